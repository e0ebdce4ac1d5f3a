//! Space that runs out, and comes back.

use super::*;

const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) async fn a_full_store_takes_what_is_urgent_alone(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let (a, b) = (stream("a"), stream("b"));
    fill(&store, &a, 0..3).await?;
    ensure!(!store.is_full(Urgency::Normal), "an empty store is full");
    if !adapter.set_full(&store, true) {
        return Ok(());
    }
    // Asked for at once, so that an adapter that groups them has them in one group.
    let normal = store.append(&b, None, events(10..11), Urgency::Normal);
    let urgent = store.append(&a, Some(Revision(2)), events(3..4), Urgency::Reserved);
    let behind = store.append(&b, None, events(4..5), Urgency::Reserved);
    let last = store.append(&b, Some(Revision(0)), events(11..12), Urgency::Normal);
    let normal = normal.await;
    ensure!(normal == Err(AppendError::Full), "not urgent: {normal:?}");
    ensure!(urgent.await? == Revision(3), "an urgent append");
    ensure!(behind.await? == Revision(0), "an urgent append behind one that was refused");
    let last = last.await;
    ensure!(last == Err(AppendError::Full), "not urgent, behind one that is: {last:?}");
    ensure!(store.is_full(Urgency::Normal), "it has refused, and does not know it is full");
    ensure!(!store.is_full(Urgency::Reserved), "what is set aside counts as gone");
    same(&store.read_stream(&a, Revision::FIRST, 100).await?, &a, Revision::FIRST, &events(0..4))?;
    same(&store.read_stream(&b, Revision::FIRST, 100).await?, &b, Revision::FIRST, &events(4..5))?;
    ensure!(all_sound(&store, None, 100).await?.len() == 5, "what was refused left events");
    Ok(())
}

pub(super) async fn appends_are_taken_again_once_there_is_space(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    if !adapter.set_full(&store, true) {
        return Ok(());
    }
    let refused = store.append(&a, None, events(0..1), Urgency::Normal).await;
    ensure!(refused == Err(AppendError::Full), "a full store: {refused:?}");
    adapter.set_full(&store, false);
    // Nobody appends meanwhile: it must find out by itself.
    while store.is_full(Urgency::Normal) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    fill(&store, &a, 0..3).await?;
    same(&store.read_stream(&a, Revision::FIRST, 100).await?, &a, Revision::FIRST, &events(0..3))
}

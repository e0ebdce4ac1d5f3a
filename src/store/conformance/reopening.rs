//! What a store holds outlives it.

use super::*;

pub(super) async fn everything_is_kept(adapter: &impl Adapter) -> Verdict {
    let mut store = adapter.fresh().await;
    let (a, b) = (stream("a"), stream("b"));
    for round in 0..3_u64 {
        let last = (round * 10).checked_sub(1).map(Revision);
        store.append(&a, last, events(round * 10..round * 10 + 10), Urgency::Normal).await?;
        store.append(&b, last, events(round * 10..round * 10 + 10), Urgency::Normal).await?;
        let before = all_sound(&store, None, 100).await?;
        let Some(again) = adapter.reopen(store).await else { return Ok(()) };
        store = again;
        let after = all_sound(&store, None, 100).await?;
        ensure!(after == before, "other events after opening again");
        let wrong = store.append(&a, None, events(99..100), Urgency::Normal).await;
        ensure!(
            matches!(wrong, Err(AppendError::WrongExpectedRevision { .. })),
            "the end of a stream is forgotten: {wrong:?}"
        );
    }
    let recorded = store.read_stream(&b, Revision::FIRST, 100).await?;
    same(&recorded, &b, Revision::FIRST, &events(0..30))
}

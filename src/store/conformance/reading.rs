//! Reads: pages, ends, and the store-wide order.

use super::*;

pub(super) async fn a_stream_is_read_in_pages(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let (a, b) = (stream("a"), stream("b"));
    let written = events(0..25);
    for (number, expected) in (0..25).zip([None].into_iter().chain((0..).map(Some))) {
        let expected = expected.map(Revision);
        store.append(&a, expected, events(number..number + 1), Urgency::Normal).await?;
        store.append(&b, expected, events(900..901), Urgency::Normal).await?;
    }
    let mut from = Revision::FIRST;
    for page in written.chunks(10) {
        let recorded = store.read_stream(&a, from, 10).await?;
        same(&recorded, &a, from, page)?;
        from = Revision(from.0 + 10);
    }
    Ok(())
}

pub(super) async fn nothing_is_behind_the_end(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    ensure!(store.read_all(None, 10).await?.is_empty(), "an empty store gives events");
    fill(&store, &a, 0..3).await?;
    for from in [3, 4, 1 << 62, 1 << 63, u64::MAX] {
        let found = store.read_stream(&a, Revision(from), 10).await?;
        ensure!(found.is_empty(), "events at {from} of three");
    }
    let found = store.read_stream(&stream("unknown"), Revision::FIRST, 10).await?;
    ensure!(found.is_empty(), "a stream that holds nothing gives events");
    ensure!(store.read_stream(&a, Revision::FIRST, 0).await?.is_empty(), "a page of none");
    Ok(())
}

pub(super) async fn no_page_is_longer_than_allowed(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    let max = READ_EVENTS_MAX as u64;
    let mut last = None;
    while last.is_none_or(|Revision(last)| last <= max) {
        let next = Revision::after(last).0;
        last = Some(store.append(&a, last, events(next..next + 512), Urgency::Normal).await?);
    }
    for asked in [READ_EVENTS_MAX, READ_EVENTS_MAX + 1, usize::MAX] {
        let found = store.read_stream(&a, Revision::FIRST, asked).await?.len();
        ensure!(found == READ_EVENTS_MAX, "{found} events of a stream for {asked}");
        let found = store.read_all(None, asked).await?.len();
        ensure!(found == READ_EVENTS_MAX, "{found} events of all for {asked}");
    }
    Ok(())
}

pub(super) async fn all_streams_are_read_in_order(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let mut written = Vec::new();
    for number in 0..30_u64 {
        let name = stream(&(number % 3).to_string());
        let revision = number / 3;
        let expected = revision.checked_sub(1).map(Revision);
        store.append(&name, expected, events(number..number + 1), Urgency::Normal).await?;
        written.push((name, Revision(revision)));
    }
    let found = all_sound(&store, None, 7).await?;
    ensure!(
        found.windows(2).all(|pair| pair.first().map(at) < pair.last().map(at)),
        "positions do not grow"
    );
    let found: Vec<_> =
        found.into_iter().map(|item| (item.recorded.stream, item.recorded.revision)).collect();
    ensure!(found == written, "events written one after the other are read in that order");
    Ok(())
}

pub(super) async fn positions_resume_a_read(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    fill(&store, &stream("a"), 0..20).await?;
    fill(&store, &stream("b"), 20..40).await?;
    let found = all_sound(&store, None, READ_EVENTS_MAX).await?;
    ensure!(found.len() == 40, "{} events of 40", found.len());
    for (index, item) in found.iter().enumerate() {
        let rest = all_sound(&store, Some(item.position), 16).await?;
        let wanted = found.get(index + 1..).unwrap_or_default();
        ensure!(rest == wanted, "reading behind the {index}. event");
    }
    Ok(())
}

fn at(item: &Positioned) -> Position {
    item.position
}

pub(super) async fn single_events_are_read_as_they_are_asked_for(
    adapter: &impl Adapter,
) -> Verdict {
    let store = adapter.fresh().await;
    let (a, b) = (stream("a"), stream("b"));
    fill(&store, &a, 0..20).await?;
    fill(&store, &b, 100..103).await?;
    let asked: Vec<Revision> = [19, 3, 4, 0, 3].map(Revision).to_vec();
    let found = store.read_events(&a, asked.clone()).await?;
    ensure!(found.len() == asked.len(), "{} events for {}", found.len(), asked.len());
    for (recorded, revision) in found.iter().zip(asked) {
        let one = store.read_stream(&a, revision, 1).await?;
        ensure!(one.first() == Some(recorded), "another event for {revision}");
    }
    ensure!(store.read_events(&a, Vec::new()).await?.is_empty(), "events for none");
    for missing in [Revision(3), Revision(1 << 62)] {
        let found = store.read_events(&b, vec![Revision(0), missing]).await;
        let right =
            matches!(&found, Err(ReadError::Corrupt { revision, .. }) if *revision == missing);
        ensure!(right, "{found:?} where revision {missing} is not there");
    }
    Ok(())
}

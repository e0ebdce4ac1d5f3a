//! Appends: what is written, in which order, and what is not.

use super::*;
use crate::ledger::event_store::{APPEND_EVENTS_MAX, STORED_BYTES_MAX};

pub(super) async fn revisions_are_dense(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    fill(&store, &a, 0..3).await?;
    let last = store.append(&a, Some(Revision(2)), events(3..8), Urgency::Normal).await?;
    ensure!(last == Revision(7), "five events behind revision 2 end at {last}");
    let recorded = store.read_stream(&a, Revision::FIRST, 100).await?;
    same(&recorded, &a, Revision::FIRST, &events(0..8))
}

pub(super) async fn the_expected_revision_must_hold(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    let refused = |expected: Option<u64>, current: Option<u64>| {
        let (store, a) = (&store, &a);
        async move {
            let found =
                store.append(a, expected.map(Revision), events(90..91), Urgency::Normal).await;
            let current = current.map(Revision);
            let wanted = AppendError::WrongExpectedRevision { stream: a.clone(), current };
            ensure!(found == Err(wanted), "expecting {expected:?} at {current:?}: {found:?}");
            Verdict::Ok(())
        }
    };
    refused(Some(0), None).await?;
    refused(Some(u64::MAX), None).await?;
    fill(&store, &a, 0..2).await?;
    for wrong in [None, Some(0), Some(2), Some(1 << 63), Some(u64::MAX)] {
        refused(wrong, Some(1)).await?;
    }
    let last = store.append(&a, Some(Revision(1)), events(2..3), Urgency::Normal).await?;
    ensure!(last == Revision(2), "the right revision gives {last}");
    let recorded = store.read_stream(&a, Revision::FIRST, 100).await?;
    same(&recorded, &a, Revision::FIRST, &events(0..3))
}

pub(super) async fn calls_are_carried_out_in_the_order_they_are_made(
    adapter: &impl Adapter,
) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    let mut calls = Vec::new();
    for number in 0..100_u64 {
        let expected = number.checked_sub(1).map(Revision);
        calls.push((
            store.append(&a, expected, events(number..number + 1), Urgency::Normal),
            number,
        ));
    }
    // Awaited backwards: the order of polls must not matter.
    for (call, number) in calls.into_iter().rev() {
        let last = call.await?;
        ensure!(last == Revision(number), "call {number} ended at {last}");
    }
    let recorded = store.read_stream(&a, Revision::FIRST, 1_000).await?;
    same(&recorded, &a, Revision::FIRST, &events(0..100))
}

pub(super) async fn a_dropped_future_still_appends(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    drop(store.append(&a, None, events(0..1), Urgency::Normal));
    let last = store.append(&a, Some(Revision(0)), events(1..2), Urgency::Normal).await?;
    ensure!(last == Revision(1), "behind a dropped append stands {last}");
    let recorded = store.read_stream(&a, Revision::FIRST, 100).await?;
    same(&recorded, &a, Revision::FIRST, &events(0..2))
}

pub(super) async fn several_events_are_all_or_none(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    store.append(&a, None, events(0..10), Urgency::Normal).await?;
    let found = store.append(&a, Some(Revision(4)), events(10..20), Urgency::Normal).await;
    ensure!(found.is_err(), "an append in the middle was accepted");
    let mut long = events(20..21);
    long.push(exactly(STORED_BYTES_MAX + 1));
    let found = store.append(&a, Some(Revision(9)), long, Urgency::Normal).await;
    ensure!(matches!(found, Err(AppendError::Limits(_))), "too long an event: {found:?}");
    let recorded = store.read_stream(&a, Revision::FIRST, 100).await?;
    same(&recorded, &a, Revision::FIRST, &events(0..10))
}

pub(super) async fn a_failed_append_fails_alone(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let (a, b) = (stream("a"), stream("b"));
    // Asked for at once, so that an adapter that groups them has them in one group.
    let good_a = store.append(&a, None, events(0..1), Urgency::Normal);
    let bad_a = store.append(&a, None, events(1..2), Urgency::Normal);
    let good_b = store.append(&b, None, events(2..3), Urgency::Normal);
    let bad_b = store.append(&b, Some(Revision(5)), events(3..4), Urgency::Normal);
    let next_a = store.append(&a, Some(Revision(0)), events(4..5), Urgency::Normal);
    let wrong = |stream: &StreamName| {
        let current = Some(Revision(0));
        Err(AppendError::WrongExpectedRevision { stream: stream.clone(), current })
    };
    ensure!(good_a.await? == Revision(0), "the first append of a");
    let (bad_a, bad_b) = (bad_a.await, bad_b.await);
    ensure!(bad_a == wrong(&a), "a second first append: {bad_a:?}");
    ensure!(good_b.await? == Revision(0), "the first append of b");
    ensure!(bad_b == wrong(&b), "an append past the end: {bad_b:?}");
    ensure!(next_a.await? == Revision(1), "the append behind one that failed");
    ensure!(all_sound(&store, None, 100).await?.len() == 3, "a failed append left events");
    Ok(())
}

pub(super) async fn limits_are_kept(adapter: &impl Adapter) -> Verdict {
    let store = adapter.fresh().await;
    let a = stream("a");
    let max = u64::try_from(APPEND_EVENTS_MAX).unwrap_or(u64::MAX);
    for outside in [events(0..0), events(0..max + 1), vec![exactly(STORED_BYTES_MAX + 1)]] {
        let found = store.append(&a, None, outside, Urgency::Normal).await;
        ensure!(matches!(found, Err(AppendError::Limits(_))), "outside the limits: {found:?}");
    }
    let last = store.append(&a, None, events(0..max), Urgency::Normal).await?;
    ensure!(last == Revision(max - 1), "as many events as allowed end at {last}");
    let longest = exactly(STORED_BYTES_MAX);
    store.append(&a, Some(last), vec![longest.clone()], Urgency::Normal).await?;
    let recorded = store.read_stream(&a, last, 2).await?;
    same(&recorded, &a, last, &[event(max - 1, 300), longest])
}

pub(super) async fn one_stream_has_one_winner_per_revision(adapter: &impl Adapter) -> Verdict {
    const WRITERS: u64 = 8;
    const EVENTS: u64 = 10;
    let store = Arc::new(adapter.fresh().await);
    let a = stream("a");
    let writers = (0..WRITERS).map(|writer| {
        let (store, a) = (Arc::clone(&store), a.clone());
        tokio::spawn(async move {
            let (mut expected, mut written, mut number) = (None, 0, writer * EVENTS);
            while written < EVENTS {
                match store.append(&a, expected, events(number..number + 1), Urgency::Normal).await
                {
                    Ok(revision) => {
                        expected = Some(revision);
                        (written, number) = (written + 1, number + 1);
                    }
                    Err(AppendError::WrongExpectedRevision { current, .. }) => expected = current,
                    Err(error) => return Err(Violation::from(error)),
                }
            }
            Ok(())
        })
    });
    joined(writers.collect()).await?;
    let recorded = store.read_stream(&a, Revision::FIRST, 1_000).await?;
    let mut found: Vec<_> = recorded.iter().map(|event| event.leaf_hash).collect();
    let mut wanted: Vec<_> =
        events(0..WRITERS * EVENTS).iter().map(|event| event.leaf_hash).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    ensure!(found == wanted, "each writer's events are in the stream exactly once");
    Ok(())
}

pub(super) async fn many_streams_are_written_at_once(adapter: &impl Adapter) -> Verdict {
    const STREAMS: u64 = 50;
    let store = Arc::new(adapter.fresh().await);
    let writers = (0..STREAMS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { fill(&*store, &stream(&writer.to_string()), 0..10).await })
    });
    joined(writers.collect()).await?;
    for number in 0..STREAMS {
        let name = stream(&number.to_string());
        let recorded = store.read_stream(&name, Revision::FIRST, 100).await?;
        same(&recorded, &name, Revision::FIRST, &events(0..10))?;
    }
    ensure!(all_sound(&*store, None, 64).await?.len() == 500, "not all events are in order");
    Ok(())
}

pub(super) async fn joined(tasks: Vec<tokio::task::JoinHandle<Verdict>>) -> Verdict {
    for task in tasks {
        task.await.map_err(|error| Violation(error.to_string()))??;
    }
    Ok(())
}

/// An event of exactly that many bytes.
fn exactly(bytes: usize) -> NewEvent {
    let event = event(7, bytes);
    debug_assert_eq!(event.stored.len(), bytes, "padding reaches any length");
    event
}

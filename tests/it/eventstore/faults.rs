//! What goes wrong at the engine, and what comes of it.

use keyledger::ledger::event_store::{AppendError, EventStore as _, ReadError, check_limits};
use keyledger::ledger::urgency::Urgency;
use keyledger::store::conformance::event;
use projections::recorded::{Recorded, Revision, StreamName};

use super::open;
use crate::engine::{AppendFault, Engine, ReadFault};

fn stream() -> StreamName {
    StreamName::from_store("org-a")
}

/// A store on an engine that holds so many events of one stream.
async fn filled(engine: &Engine, events: u64) -> keyledger::store::eventstore::EngineStore {
    let store = open(&format!("{}&defaultDeadline=400", engine.url())).await;
    let new = (0..events).map(|number| event(number, 300)).collect();
    store.append(&stream(), None, new, Urgency::Normal).await.unwrap();
    store
}

fn numbers(found: &[Recorded]) -> Vec<u64> {
    found.iter().map(|it| it.revision.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_from_the_past_is_no_answer() {
    let engine = Engine::start();
    let store = filled(&engine, 10).await;
    let whole = store.read_all(None, 100).await.unwrap();
    assert_eq!(whole.len(), 10);
    let records = engine.state().log.entries.len();
    for past in [records - 4, 2, 0] {
        engine.fail_reads(Some(ReadFault::PastAt(past)));
        let found = store.read_stream(&stream(), Revision::FIRST, 100).await;
        assert!(matches!(found, Err(ReadError::Unavailable(_))), "{past}: {found:?}");
        let found = store.read_stream(&stream(), Revision(9), 1).await;
        assert!(matches!(found, Err(ReadError::Unavailable(_))), "{past}: {found:?}");
        let found = store.read_all(None, 100).await;
        assert!(matches!(found, Err(ReadError::Unavailable(_))), "{past}: {found:?}");
    }
    engine.fail_reads(None);
    assert_eq!(store.read_all(None, 100).await.unwrap(), whole);
    // Where nothing is behind what was seen, there is an end.
    assert_eq!(store.read_stream(&stream(), Revision(10), 5).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_noticed() {
    let engine = Engine::start();
    let store = filled(&engine, 5).await;
    let read = || store.read_stream(&stream(), Revision::FIRST, 100);
    engine.fail_reads(Some(ReadFault::LieAboutBytes));
    let found = read().await;
    assert!(matches!(found, Err(ReadError::Corrupt { revision: Revision(0), .. })), "{found:?}");
    let items = store.read_all(None, 100).await.unwrap();
    assert!(items.len() == 5 && items.iter().all(Result::is_err), "{items:?}");
    for fault in [ReadFault::Nonsense, ReadFault::Refuse] {
        engine.fail_reads(Some(fault));
        let found = read().await;
        assert!(matches!(found, Err(ReadError::Unavailable(_))), "{fault:?}: {found:?}");
        let found = store.read_all(None, 100).await;
        assert!(matches!(found, Err(ReadError::Unavailable(_))), "{fault:?}: {found:?}");
    }
    engine.fail_reads(Some(ReadFault::AnswerTwice));
    assert_eq!(numbers(&read().await.unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(store.read_all(None, 100).await.unwrap().len(), 5);
    engine.fail_reads(None);
    assert_eq!(numbers(&read().await.unwrap()), [0, 1, 2, 3, 4]);
}

/// An append meets these faults; the next, with the revision behind it, meets none.
#[track_caller]
fn check(faults: &[AppendFault]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = Engine::start();
        let store = filled(&engine, 1).await;
        engine.fail_appends(faults);
        let new = vec![event(1, 300), event(2, 300)];
        let written = store.append(&stream(), Some(Revision(0)), new, Urgency::Normal).await;
        assert_eq!(written, Ok(Revision(2)), "{faults:?}");
        engine.commit_late();
        let new = vec![event(3, 300)];
        let written = store.append(&stream(), Some(Revision(2)), new, Urgency::Normal).await;
        assert_eq!(written, Ok(Revision(3)), "{faults:?}");
        let found = store.read_stream(&stream(), Revision::FIRST, 100).await.unwrap();
        let hashes: Vec<_> = found.iter().map(|it| it.leaf_hash).collect();
        let wanted: Vec<_> = (0..4).map(|number| event(number, 300).leaf_hash).collect();
        assert_eq!(hashes, wanted, "{faults:?}");
        assert_eq!(engine.state().blind, 0, "{faults:?}: tried again without reading back");
    });
}

#[test]
fn an_append_is_seen_through() {
    use AppendFault::*;
    for fault in
        [CutAfterCommit, CutBeforeCommit, SilentAfterCommit, LieAboutRevision, LateCommit, NoLeader]
    {
        check(&[fault]);
        check(&[fault, CutAfterCommit]);
        check(&[CutBeforeCommit, fault]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_wrote_meanwhile_is_not_taken_for_ours() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    let other = open(&engine.url()).await;
    // Ours is held up on the way; another's takes the place; then ours comes.
    engine.fail_appends(&[AppendFault::LateCommit]);
    let ours = store.append(&stream(), Some(Revision(0)), vec![event(1, 300)], Urgency::Normal);
    let ours = tokio::spawn(ours);
    engine.wait_until(|state| state.appends == 2);
    let theirs = vec![event(9, 300)];
    let written = other.append(&stream(), Some(Revision(0)), theirs, Urgency::Normal).await;
    let ours = ours.await.unwrap();
    engine.commit_late();
    let current = Some(Revision(1));
    let wrong = Err(AppendError::WrongExpectedRevision { stream: stream(), current });
    // Whose was first is the engine's to say: one of them, and the other is told.
    let outcomes = [written, ours];
    assert!(outcomes.contains(&Ok(Revision(1))) && outcomes.contains(&wrong), "{outcomes:?}");
    assert_eq!(store.read_stream(&stream(), Revision::FIRST, 9).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_fails_fails_no_other() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    engine.hold_appends(true);
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for number in 0..10_u64 {
        let stream = StreamName::from_store(&format!("org-{number}"));
        good.push(store.append(&stream, None, vec![event(number, 300)], Urgency::Normal));
        bad.push(store.append(&stream, Some(Revision(7)), vec![event(99, 300)], Urgency::Normal));
        let more = vec![event(number + 50, 300)];
        good.push(store.append(&stream, Some(Revision(0)), more, Urgency::Normal));
    }
    engine.hold_appends(false);
    for append in bad {
        let outcome = append.await;
        assert!(matches!(outcome, Err(AppendError::WrongExpectedRevision { .. })), "{outcome:?}");
    }
    for append in good {
        append.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    engine.hold_appends(true);
    let batch: Vec<_> = (0..1_024).map(|number| event(number, 130)).collect();
    check_limits(&batch).unwrap();
    let mut waiting = Vec::new();
    let refused = loop {
        let expected = waiting.len().checked_sub(1).map(|it| Revision(it as u64));
        let mut append = store.append(
            &StreamName::from_store("org-b"),
            expected,
            batch.clone(),
            Urgency::Normal,
        );
        match futures_now(&mut append) {
            Some(outcome) => break outcome,
            None => waiting.push(append),
        }
        assert!(waiting.len() <= 65, "nothing is refused");
    };
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    engine.hold_appends(false);
    assert_eq!(waiting.remove(0).await, Ok(Revision(1_023)), "what waited is carried out");
}

/// What a future gives without waiting.
fn futures_now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    use std::task::{Context, Poll, Waker};
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_big_for_the_engine_is_said_to_be() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    engine.state().log.append_bytes_max = 10_000;
    let new = (0..50).map(|number| event(number, 300)).collect();
    let outcome = store.append(&stream(), Some(Revision(0)), new, Urgency::Normal).await;
    assert!(matches!(outcome, Err(AppendError::Limits(_))), "{outcome:?}");
    // Those that share a call and are too big together go one by one.
    let first = store.append(&stream(), Some(Revision(0)), vec![event(1, 9_000)], Urgency::Normal);
    let second = store.append(&stream(), Some(Revision(1)), vec![event(2, 9_000)], Urgency::Normal);
    let third = store.append(&stream(), Some(Revision(2)), vec![event(3, 9_000)], Urgency::Normal);
    assert_eq!(
        (first.await, second.await, third.await),
        (Ok(Revision(1)), Ok(Revision(2)), Ok(Revision(3)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_comes_back_is_found_again() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    engine.kill(0);
    let read = store.read_stream(&stream(), Revision::FIRST, 9).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    let append = store.append(&stream(), Some(Revision(0)), vec![event(1, 300)], Urgency::Normal);
    let append = tokio::spawn(append);
    engine.revive(0);
    assert_eq!(append.await.unwrap(), Ok(Revision(1)), "tried until it was there");
    assert_eq!(store.read_stream(&stream(), Revision::FIRST, 9).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_begin_when_they_are_asked_for() {
    let engine = Engine::start();
    let store = filled(&engine, 3).await;
    let before = engine.state().reads;
    let reads: Vec<_> =
        (0..3).map(|from| store.read_stream(&stream(), Revision(from), 1)).collect();
    // Nobody has awaited any of them.
    engine.wait_until(|state| state.reads == before + 3);
    for (read, from) in reads.into_iter().zip(0..) {
        assert_eq!(numbers(&read.await.unwrap()), [from]);
    }
}

//! What goes wrong at the engine, and what comes of it.

use keyledger::ledger::event_store::{
    AppendError, EventStore as _, NewEvent, ReadError, ReadItem, check_limits,
};
use keyledger::ledger::urgency::Urgency;
use keyledger::store::conformance::event;
use keyledger::store::eventstore::registration::{Identity, Registration};
use projections::recorded::{Recorded, Revision, StreamName};

use super::open;
use crate::engine::log::{Append, Entry, Expected};
use crate::engine::{AppendFault, Engine, ReadFault, State};

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

/// An event as another process writes it, at whatever place is next.
fn write_as_another(engine: &Engine, stream: &StreamName, event: &NewEvent) {
    let hash: String = event.leaf_hash.0.iter().map(|it| format!("{it:02x}")).collect();
    let number = engine.state().log.entries.len();
    let entry = Entry {
        stream: String::new(),
        revision: 0,
        id: format!("00000000-0000-4000-9000-{number:012}"),
        metadata: [("type".to_owned(), event.event_type.to_owned())].into(),
        custom_metadata: format!(r#"{{"leaf_hash":"{hash}"}}"#).into_bytes(),
        data: event.stored.to_vec(),
        position: 0,
        gone: false,
    };
    let stream = stream.as_str().to_owned();
    let append = Append { stream, expected: Expected::Any, entries: vec![entry] };
    engine.state().log.append(append).unwrap();
}

fn wrong(current: u64) -> Result<Revision, AppendError> {
    let current = Some(Revision(current));
    Err(AppendError::WrongExpectedRevision { stream: stream(), current })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_wrote_meanwhile_is_not_taken_for_ours() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    // Ours is held up on the way; sent again, it waits until another's has taken its place.
    engine.fail_appends(&[AppendFault::LateCommit]);
    engine.hold_appends_after(1);
    let ours = store.append(&stream(), Some(Revision(0)), vec![event(1, 300)], Urgency::Normal);
    engine.wait_until(|state| state.appends >= 2);
    write_as_another(&engine, &stream(), &event(9, 300));
    engine.hold_appends(false);
    assert_eq!(ours.await, wrong(1));
    assert_eq!(engine.commit_late(), 1, "it comes too late for its place");
    let found = store.read_stream(&stream(), Revision::FIRST, 9).await.unwrap();
    let hashes: Vec<_> = found.iter().map(|it| it.leaf_hash).collect();
    assert_eq!(hashes, [event(0, 300).leaf_hash, event(9, 300).leaf_hash]);
}

/// An append fails on what another has written; so many others, each of which continues the
/// one in front of it, wait behind it, in a call of their own or in one with it.
async fn check_behind_a_failed(apart: bool) {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    let append = |expected: u64, number| {
        let new = vec![event(number, 300)];
        store.append(&stream(), Some(Revision(expected)), new, Urgency::Normal)
    };
    engine.hold_appends(true);
    // Where they are to be in one call, something else keeps the lane busy before.
    let busy = (!apart).then(|| append(7, 90));
    let first = apart.then(|| append(0, 1));
    engine.wait_until(|state| state.appends == 2);
    let first = first.unwrap_or_else(|| append(0, 1));
    let behind: Vec<_> = (1..5).map(|number| append(number, 1 + number)).collect();
    for number in 50..53 {
        write_as_another(&engine, &stream(), &event(number, 300));
    }
    engine.hold_appends(false);
    if let Some(busy) = busy {
        assert_eq!(busy.await, wrong(3));
    }
    assert_eq!(first.await, wrong(3));
    for append in behind {
        let outcome = append.await;
        assert!(
            matches!(outcome, Err(AppendError::WrongExpectedRevision { .. })),
            "apart: {apart}: {outcome:?}"
        );
    }
    // Nor what was on its way to be asked for, until it was taken back.
    for expected in [1, 5, 3] {
        let outcome = append(expected, 20 + expected).await;
        assert!(outcome.is_err(), "apart: {apart}: behind {expected}: {outcome:?}");
    }
    assert_eq!(store.read_stream(&stream(), Revision::FIRST, 9).await.unwrap().len(), 4);
    store.taken_back(&stream());
    assert_eq!(append(3, 30).await, Ok(Revision(4)), "apart: {apart}: decided on what is there");
    assert_eq!(append(4, 31).await, Ok(Revision(5)), "apart: {apart}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_continues_a_failed_append_is_never_sent() {
    check_behind_a_failed(true).await;
    check_behind_a_failed(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_unsent_is_not_built_upon() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    let empty = store.append(&stream(), Some(Revision(0)), Vec::new(), Urgency::Normal);
    let long = (0..1_025).map(|number| event(number, 130)).collect();
    let long = store.append(&stream(), Some(Revision(0)), long, Urgency::Normal);
    for refused in [empty.await, long.await] {
        assert!(matches!(refused, Err(AppendError::Limits(_))), "{refused:?}");
    }
    for number in 0..1_025 {
        write_as_another(&engine, &stream(), &event(2_000 + number, 130));
    }
    let behind =
        store.append(&stream(), Some(Revision(1_025)), vec![event(1, 300)], Urgency::Normal);
    let behind = behind.await;
    assert!(matches!(behind, Err(AppendError::WrongExpectedRevision { .. })), "{behind:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_fails_fails_no_other() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    engine.hold_appends(true);
    let append = |stream: &StreamName, expected: Option<u64>, number: u64| {
        let expected = expected.map(Revision);
        store.append(stream, expected, vec![event(number, 300)], Urgency::Normal)
    };
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for number in 0..10_u64 {
        let stream = StreamName::from_store(&format!("org-{number}"));
        good.push(append(&stream, None, number));
        bad.push(append(&stream, Some(7), 99));
        // Asked for at the same place, and behind it: of those that go in one call with it.
        bad.push(append(&stream, None, 98));
        good.push(append(&stream, Some(0), number + 50));
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
async fn what_the_engine_refuses_in_a_shared_call_fails_alone() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    let append = |expected, number| {
        let new = vec![event(number, 300)];
        store.append(&stream(), Some(Revision(expected)), new, Urgency::Normal)
    };
    let unacceptable = String::from_utf8_lossy(&event(3, 300).stored).into_owned();
    engine.state().unacceptable = Some(unacceptable);
    engine.hold_appends(true);
    let busy = append(7, 90);
    engine.wait_until(|state| state.appends == 2);
    let (first, second, third) = (append(0, 1), append(1, 2), append(2, 3));
    let behind = append(3, 4);
    engine.hold_appends(false);
    assert_eq!(busy.await, wrong(0));
    assert_eq!((first.await, second.await), (Ok(Revision(1)), Ok(Revision(2))));
    let third = third.await;
    assert!(matches!(third, Err(AppendError::Unavailable(_))), "{third:?}");
    let behind = behind.await;
    assert!(matches!(behind, Err(AppendError::WrongExpectedRevision { .. })), "{behind:?}");
    // All four in one call, then three of them alone.
    assert_eq!(engine.state().appends, 2 + 1 + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_ended_in_time_is_not_said_to_have_ended() {
    let engine = Engine::start();
    let url = format!("{}&lease=60000", engine.url());
    let store = open(&url).await;
    let lease = std::time::Duration::from_secs(60);
    let identity = || Identity::new().unwrap();
    let registration = Registration::obtain(&store, identity(), lease).await.unwrap();
    engine.hold_appends(true);
    let appends: Vec<_> = (0..4)
        .map(|number| {
            // None continues another: each is a call of its own, and takes its time.
            let expected = (number > 0).then_some(Revision(number * 7));
            store.append(&stream(), expected, vec![event(number, 300)], Urgency::Normal)
        })
        .collect();
    assert!(!store.finish().await, "they are still under way");
    registration.abandon();
    assert!(!registration.contact().holds());
    let left = |state: &State| {
        state.log.entries.iter().filter(|it| it.metadata["type"] == "NodeLeft").count()
    };
    assert_eq!(left(&engine.state()), 0, "whoever comes next waits");
    // What is still in the lane is not sent any more.
    let before = engine.state().appends;
    engine.hold_appends(false);
    for append in appends.into_iter().skip(1) {
        let outcome = append.await;
        assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(engine.state().appends, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_damage_and_hides_no_other() {
    let streams = ["org-a", "org-b"].map(StreamName::from_store);
    for (scavenged, hard) in [(false, true), (true, true), (false, false)] {
        let engine = Engine::start();
        let store = open(&engine.url()).await;
        for stream in &streams {
            let new = (0..5).map(|number| event(number, 300)).collect();
            store.append(stream, None, new, Urgency::Normal).await.unwrap();
        }
        match hard {
            true => engine.state().log.tombstone("org-a", scavenged),
            false => engine.state().log.set_metadata("org-a", r#"{"$tb":9223372036854775807}"#),
        }
        // One that has seen it, and one that has not.
        for store in [store, open(&engine.url()).await] {
            let found = store.read_stream(&streams[0], Revision::FIRST, 9).await;
            let empty = found.as_ref().is_ok_and(Vec::is_empty);
            assert!(found.is_err() || (empty && !hard), "{scavenged} {hard}: {found:?}");
            let items = store.read_all(None, 100).await.unwrap();
            let of = |wanted: &StreamName| {
                let its = |item: &&ReadItem| match item {
                    Ok(event) => event.recorded.stream == *wanted,
                    Err((_, ReadError::Corrupt { stream, .. })) => stream == wanted,
                    Err(_) => false,
                };
                items.iter().filter(its).collect::<Vec<_>>()
            };
            assert!(of(&streams[0]).iter().any(|it| it.is_err()), "{scavenged} {hard}: {items:?}");
            assert!(of(&streams[1]).len() == 5 && of(&streams[1]).iter().all(|it| it.is_ok()));
            let append =
                store.append(&streams[0], Some(Revision(4)), vec![event(7, 300)], Urgency::Normal);
            assert!(append.await.is_err() == hard);
        }
    }
}

/// What metadata of a stream of ten events makes of it.
async fn check_metadata(metadata: &[&str], damaged: bool) {
    let engine = Engine::start();
    filled(&engine, 10).await;
    for metadata in metadata {
        engine.state().log.set_metadata(stream().as_str(), metadata);
    }
    let store = open(&engine.url()).await;
    let items = store.read_all(None, 100).await.unwrap();
    assert_eq!(items.iter().filter(|it| it.is_ok()).count(), 10, "not scavenged yet");
    let corrupt: Vec<_> = items.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(!corrupt.is_empty(), damaged, "{metadata:?}: {corrupt:?}");
    for (_, error) in corrupt {
        assert!(matches!(error, ReadError::Corrupt { stream: it, .. } if *it == stream()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_metadata_hides_is_seen_before_it_is_gone() {
    check_metadata(&[r#"{"$tb":3}"#], true).await;
    check_metadata(&[r#"{"$maxCount":4}"#], true).await;
    check_metadata(&[r#"{"$maxCount":4}"#, r#"{"$tb":1,"$acl":{"$d":"$admins"}}"#], true).await;
    check_metadata(&[r#"{"$tb":9223372036854775807}"#], true).await;
    check_metadata(&[r#"{"$maxCount":10}"#], false).await;
    check_metadata(&[r#"{"$acl":{"$d":"$admins"}}"#], false).await;
    check_metadata(&[r#"{"$tb":3}"#, r#"{}"#], false).await;
    check_metadata(&["{\"$tb\":0}", "7"], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_others_are_no_matter_of_ours() {
    let engine = Engine::start();
    let store = filled(&engine, 2).await;
    for name in ["order-1", "a_org-1", "a_keyledger.account-1", "org", "$ce-org"] {
        engine.state().log.write(name, "Whatever", b"nothing of ours");
    }
    engine.state().log.set_metadata("order-1", r#"{"$tb":3}"#);
    engine.state().log.set_metadata("node-registration", r#"{"$maxCount":1}"#);
    let items = store.read_all(None, 100).await.unwrap();
    assert!(items.len() == 2 && items.iter().all(Result::is_ok), "{items:?}");
    // Of a kind that only a newer version knows, and behind our prefix.
    engine.state().log.write("keyledger.lease-1", "Whatever", b"{}");
    let items = store.read_all(None, 100).await.unwrap();
    let last = items.last().unwrap();
    assert!(
        matches!(last, Err((_, ReadError::Corrupt { stream, .. })) if stream.as_str() == "lease-1"),
        "{last:?}"
    );
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
async fn nothing_is_left_of_a_client_whose_place_another_took() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    let before = engine.state().connections;
    for revision in 1..6 {
        // The engine is there, and gives no answer: the next look is on another connection.
        engine.fail_appends(&[AppendFault::SilentAfterCommit]);
        let expected = Some(Revision(revision - 1));
        let new = vec![event(revision, 300)];
        let written = store.append(&stream(), expected, new, Urgency::Normal).await;
        assert_eq!(written, Ok(Revision(revision)));
    }
    engine.wait_until(|state| state.connections.0 <= before.0);
    assert!(engine.state().connections.1 >= before.1 + 5, "no other client was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_bounded_whatever_it_is_made_of() {
    let engine = Engine::start();
    let store = filled(&engine, 1).await;
    // A stranger's: little of it is data.
    for _ in 0..80 {
        engine.state().log.write("order-1", "Whatever", b"{}");
    }
    for entry in engine.state().log.entries.iter_mut().filter(|it| it.stream == "order-1") {
        entry.custom_metadata = vec![b' '; 1 << 20];
    }
    let last = vec![event(1, 300)];
    store.append(&stream(), Some(Revision(0)), last, Urgency::Normal).await.unwrap();
    let before = engine.state().reads;
    let items = store.read_all(None, 1_000).await.unwrap();
    let behind = match &items[..] {
        [Ok(first)] => store.read_all(Some(first.position), 1_000).await.unwrap(),
        items => panic!("80 MB in one answer: {} items", items.len()),
    };
    assert!(behind.len() == 1 && behind[0].is_ok(), "{}", behind.len());
    assert!(engine.state().reads >= before + 3, "it was cut short");
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

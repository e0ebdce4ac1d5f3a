use super::*;
use crate::store::conformance::{self, Adapter, Damage, event};

struct Memory;

impl Adapter for Memory {
    type Store = MemoryStore;

    async fn fresh(&self) -> MemoryStore {
        MemoryStore::new()
    }

    async fn reopen(&self, _: MemoryStore) -> Option<MemoryStore> {
        None
    }

    fn set_full(&self, store: &MemoryStore, full: bool) -> bool {
        store.set_full(full);
        true
    }

    async fn damage(
        &self,
        store: MemoryStore,
        damage: Damage,
        stream: &StreamName,
        revision: Revision,
    ) -> Option<MemoryStore> {
        let done = match damage {
            Damage::Stored => store.flip_stored_byte(stream, revision),
            Damage::LeafHash => store.flip_leaf_hash(stream, revision),
            Damage::Missing => store.lose_record(stream, revision),
        };
        done.then_some(store)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    assert_eq!(conformance::run(&Memory).await, []);
}

fn stream() -> StreamName {
    StreamName::from_store("org-a")
}

async fn len(store: &MemoryStore) -> usize {
    store.read_stream(&stream(), Revision::FIRST, 100).await.unwrap().len()
}

/// Two appends meet a fault each; the third meets none.
#[track_caller]
fn check(fault: AppendFault, answer: AppendError, written: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = MemoryStore::new();
        store.inject(fault, 2);
        let mut expected = None;
        for number in 0..2 {
            let found =
                store.append(&stream(), expected, vec![event(number, 100)], Urgency::Normal).await;
            assert_eq!(found, Err(answer.clone()), "{fault:?}");
            if written {
                expected = Some(Revision(number));
            }
        }
        assert_eq!(len(&store).await, if written { 2 } else { 0 }, "{fault:?}");
        let third = store.append(&stream(), expected, vec![event(2, 100)], Urgency::Normal).await;
        match fault {
            AppendFault::FenceStore => assert_eq!(third, Err(answer)),
            AppendFault::LoseAppendAck
            | AppendFault::DropAppend
            | AppendFault::RefuseAppend
            | AppendFault::RefuseFull => assert_eq!(third, Ok(Revision::after(expected))),
        }
    });
}

#[test]
fn each_append_fault_does_what_its_name_says() {
    let unknown = |what: &str| AppendError::Unknown(what.to_owned());
    check(AppendFault::LoseAppendAck, unknown("the acknowledgement was lost"), true);
    check(AppendFault::DropAppend, unknown("the append was dropped"), false);
    let injected = "an injected fault".to_owned();
    check(AppendFault::RefuseAppend, AppendError::Unavailable(injected.clone()), false);
    check(AppendFault::RefuseFull, AppendError::Full, false);
    check(AppendFault::FenceStore, AppendError::Fenced(injected), false);
}

#[tokio::test]
async fn the_gate_says_when_an_append_becomes_durable() {
    let store = MemoryStore::new();
    store.hold_appends();
    let first = store.append(&stream(), None, vec![event(0, 100)], Urgency::Normal);
    let second = store.append(&stream(), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal);
    drop(store.append(&stream(), Some(Revision(1)), vec![event(2, 100)], Urgency::Normal));
    assert_eq!((store.held_appends(), len(&store).await), (3, 0));
    assert!(store.release_append());
    assert_eq!(first.await, Ok(Revision(0)));
    assert_eq!((store.held_appends(), len(&store).await), (2, 1));
    store.release_appends();
    assert_eq!(second.await, Ok(Revision(1)));
    assert_eq!((store.held_appends(), len(&store).await), (0, 3));
    assert!(!store.release_append());
    let open =
        store.append(&stream(), Some(Revision(2)), vec![event(3, 100)], Urgency::Normal).await;
    assert_eq!(open, Ok(Revision(3)));
}

#[tokio::test]
async fn a_torn_record_is_reported() {
    let store = MemoryStore::new();
    assert!(!store.tear_last_record());
    store
        .append(&stream(), None, vec![event(0, 100), event(1, 100)], Urgency::Normal)
        .await
        .unwrap();
    assert!(store.tear_last_record());
    let found = store.read_stream(&stream(), Revision::FIRST, 100).await;
    assert!(matches!(found, Err(ReadError::Corrupt { revision: Revision(1), .. })), "{found:?}");
}

#[tokio::test]
async fn closing_ends_subscriptions_and_refuses_the_rest() {
    let store = MemoryStore::new();
    let mut subscription = store.subscribe_all(None);
    store.append(&stream(), None, vec![event(0, 100)], Urgency::Normal).await.unwrap();
    assert!(subscription.next().await.unwrap().is_ok());
    store.close();
    assert_eq!(subscription.next().await, None);
    let refused =
        store.append(&stream(), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(store.read_all(None, 1).await.is_err());
}

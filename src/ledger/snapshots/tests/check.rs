//! History in front of the snapshots, damaged.

use super::*;
use crate::ledger::event_store::NewEvent;
use crate::ledger::urgency::Urgency;

/// An installation with snapshots of all it holds, and then this damage.
async fn damaged(damage: impl FnOnce(&MemoryStore) -> bool) -> World {
    let world = World::new().await;
    for number in 1..4 {
        world.give(create(number)).await.unwrap();
    }
    world.ledger.take_snapshots().await.unwrap();
    assert!(damage(&world.store));
    world
}

fn acme() -> StreamName {
    StreamName::organization(ACME)
}

#[tokio::test]
async fn a_start_finds_damage_in_what_it_has_time_to_read() {
    let damages: [fn(&MemoryStore) -> bool; 3] = [
        |store| store.flip_stored_byte(&acme(), Revision(0)),
        |store| store.flip_stored_byte(&acme(), Revision(2)),
        |store| store.lose_record(&acme(), Revision(1)),
    ];
    for damage in damages {
        let world = damaged(damage).await;
        for _ in 0..2 {
            let (ledger, replayed) = open(&world.store, &world.time, Some(&world.derived), 2).await;
            assert_eq!((replayed.snapshots, replayed.stopped), (0, 1));
            assert!(ledger.tables().organization(ACME).unwrap().stopped().is_some());
            assert!(matches!(ledger.take_snapshots().await, Err(RoundError::Damaged)));
        }
    }
}

#[tokio::test]
async fn what_a_start_has_no_time_for_is_found_by_the_running_ledger() {
    let damages: [fn(&MemoryStore) -> bool; 2] = [
        |store| store.flip_stored_byte(&acme(), Revision(1)),
        |store| store.lose_record(&acme(), Revision(1)),
    ];
    for damage in damages {
        let world = damaged(damage).await;
        let last = world.ledger.snapshots.rounds.lock().await.anchor.clone().unwrap().position;
        *world.ledger.snapshots.check.lock().await = Some(Check::up_to(last));
        assert!(world.acme().stopped().is_none());
        Arc::clone(&world.ledger).check_history().await;
        assert!(world.acme().stopped().is_some());
        assert!(matches!(world.ledger.take_snapshots().await, Err(RoundError::Damaged)));
        // The next start does not even try.
        assert!(world.derived.manifest().unwrap().unwrap().is_empty());
        let (_, replayed) = open(&world.store, &world.time, Some(&world.derived), 2).await;
        assert_eq!((replayed.snapshots, replayed.stopped), (0, 1));
    }
}

#[tokio::test]
async fn a_whole_history_stays_trusted() {
    let world = damaged(|_| true).await;
    let last = world.ledger.snapshots.rounds.lock().await.anchor.clone().unwrap().position;
    *world.ledger.snapshots.check.lock().await = Some(Check::up_to(last));
    // What comes meanwhile is not its concern.
    world.give(create(9)).await.unwrap();
    Arc::clone(&world.ledger).check_history().await;
    assert!(world.acme().stopped().is_none());
    assert_eq!(world.ledger.take_snapshots().await.unwrap().organizations, 1);
    let world = world.restart().await;
    assert_eq!((world.replayed.events, world.replayed.snapshots), (0, 2));
}

/// Another installation's secrets read none of it, and take none of it away.
#[tokio::test]
async fn a_start_that_cannot_use_what_is_kept_leaves_it() {
    let world = damaged(|_| true).await;
    let before = world.derived.manifest().unwrap();
    let (ledger, replayed) = open(&world.store, &world.time, Some(&world.derived), 3).await;
    assert_eq!(replayed.snapshots, 0);
    assert_eq!(world.derived.manifest().unwrap(), before);
    // Once it has something better, it is put in its place.
    ledger.take_snapshots().await.unwrap();
    let (_, replayed) = open(&world.store, &world.time, Some(&world.derived), 3).await;
    assert_eq!((replayed.events, replayed.snapshots), (0, 2));
}

/// The same streams in another store, each in one piece and in this order. The event at one
/// revision of the organization's stream is given another text.
async fn moved(world: &World, order: [StreamName; 2], other_at: Option<Revision>) -> MemoryStore {
    let store = MemoryStore::new();
    for stream in order {
        let recorded = world.store.read_stream(&stream, Revision(0), 99).await.unwrap();
        for event in recorded {
            let mut envelope = Envelope::decode(&event.stored).unwrap();
            if stream == acme() && other_at == Some(event.revision) {
                envelope.correlation_id = "another".parse().unwrap();
            }
            let (stored, leaf_hash) = envelope.encode().unwrap();
            let event_type = envelope.event.event_type();
            let new = NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
            let expected = event.revision.0.checked_sub(1).map(Revision);
            store.append(&stream, expected, vec![new], Urgency::Normal).await.unwrap();
        }
    }
    store
}

#[tokio::test]
async fn snapshots_are_of_one_history_in_one_order() {
    let operator = StreamName::organization(OrganizationId::OPERATOR);
    let orders = [[operator.clone(), acme()], [acme(), operator]];
    let world = damaged(|_| true).await;
    let last = world.acme().tables().revision().unwrap();
    // Snapshots of the streams as they lie in the first order, with the operator's first.
    let store = moved(&world, orders[0].clone(), None).await;
    let world = World { store, ..world }.restart().await;
    world.ledger.take_snapshots().await.unwrap();
    let snapshots = async |store: &MemoryStore| {
        open(store, &world.time, Some(&world.derived), 2).await.1.snapshots
    };
    assert_eq!(snapshots(&moved(&world, orders[0].clone(), None).await).await, 2);
    // The last event of all is another stream's, or another one.
    assert_eq!(snapshots(&moved(&world, orders[1].clone(), None).await).await, 0);
    assert_eq!(snapshots(&moved(&world, orders[0].clone(), Some(last)).await).await, 0);
    // It is where it was, but an organization's last event is not.
    let reversed = World { store: moved(&world, orders[1].clone(), None).await, ..world };
    let world = reversed.restart().await;
    world.ledger.take_snapshots().await.unwrap();
    let snapshots = async |store: &MemoryStore| {
        open(store, &world.time, Some(&world.derived), 2).await.1.snapshots
    };
    assert_eq!(snapshots(&moved(&world, orders[1].clone(), None).await).await, 2);
    assert_eq!(snapshots(&moved(&world, orders[1].clone(), Some(last)).await).await, 0);
}

#[tokio::test]
async fn what_is_derived_takes_no_space_that_events_need() {
    let world = World::new().await;
    world.store.set_full(true);
    let full = world.ledger.take_snapshots().await;
    assert!(matches!(full, Err(RoundError::Save(SnapshotError::Full))), "{full:?}");
    world.store.set_full(false);
    assert_eq!(world.ledger.take_snapshots().await.unwrap().organizations, 2);
}

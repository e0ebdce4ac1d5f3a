//! History in front of the snapshots, damaged.

use super::*;

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

//! What is known of keys beside their rows, behind snapshots: when they were last used, and
//! which peppers they need.

use tokio::time::Instant;

use super::*;
use crate::ledger::verify::{Asking, Purpose};

impl World {
    /// Uses a key, and gives the second of it.
    async fn use_key(&self, number: u8) -> Option<Timestamp> {
        let question = Question {
            tenant: None,
            permissions: Wanted::One(Permission::constant("dns", "read")),
            service: None,
            environment: None,
            client_ip: None,
            domain: None,
            now: self.now(),
        };
        let text = text(number);
        let mut presented = Presented::default();
        presented.bearer(&text);
        let asking = Asking { reach: Reach::Installation, purpose: Purpose::Enter };
        self.ledger.verify(presented, &question, asking, |answer| {
            assert!(matches!(answer, Answer::Decided(it) if it.code == Code::Allowed));
        });
        self.last_used(number).await
    }

    async fn record(&self) {
        self.ledger.record_uses_at(Instant::now(), true).await;
    }

    async fn last_used(&self, number: u8) -> Option<Timestamp> {
        let tables = Arc::clone(&self.acme().tables());
        match tables.key(key_id(number)) {
            Some(key) => self.ledger.last_used(key),
            None => self.dead_last_used(number).await,
        }
    }

    async fn dead_last_used(&self, number: u8) -> Option<Timestamp> {
        self.ledger.dead_key(&self.acme(), key_id(number)).await.unwrap().unwrap().last_used
    }
}

#[tokio::test]
async fn last_uses_are_known_after_a_start_from_snapshots() {
    let world = World::new().await;
    for number in 1..=4 {
        world.give(create(number)).await.unwrap();
    }
    let first = world.use_key(1).await;
    let second = world.use_key(2).await;
    assert!(first.is_some());
    world.record().await;
    let taken = world.ledger.take_snapshots().await.unwrap();
    assert_eq!(taken.organizations, 2);
    // One is used again, one for the first time: that stands in the tail.
    world.pass(5_000);
    let again = world.use_key(1).await;
    let third = world.use_key(3).await;
    assert!(again > first);
    world.record().await;
    let mut world = world.restart().await;
    assert_eq!((world.replayed.events, world.replayed.snapshots), (1, 2));
    let expected = [again, second, third, None];
    for round in 0..3 {
        for (number, expected) in (1..=4).zip(expected) {
            assert_eq!(world.last_used(number).await, expected, "key {number}, round {round}");
        }
        // Where nothing else moved, the uses alone make a snapshot.
        world.ledger.take_snapshots().await.unwrap();
        world = world.restart().await;
        assert_eq!((world.replayed.events, world.replayed.snapshots), (0, 2));
    }
    // What is written from here on stands behind what was.
    world.pass(5_000);
    let last = world.use_key(4).await;
    world.record().await;
    let stream = StreamName::usage(ACME);
    let recorded = world.store.read_stream(&stream, Revision(0), 9).await.unwrap();
    assert_eq!(recorded.len(), 3);
    let world = world.restart().await;
    assert_eq!(world.replayed.events, 1);
    assert_eq!(world.last_used(4).await, last);
}

#[tokio::test]
async fn a_dead_key_keeps_its_last_use() {
    let world = World::new().await;
    for number in 1..=2 {
        world.give(create(number)).await.unwrap();
    }
    let used = world.use_key(1).await;
    assert!(used.is_some());
    world.record().await;
    world.ledger.take_snapshots().await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.give(revoke(2)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.give(create(3)).await.unwrap();
    // Out of the tables, still in memory: as it happened, and from the tail.
    assert_eq!(world.dead_last_used(1).await, used);
    let world = world.restart().await;
    assert_eq!(world.acme().departed_count(), 2);
    assert_eq!(world.dead_last_used(1).await, used);
    assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 2);
    for _ in 0..2 {
        assert_eq!(world.acme().departed_count(), 0);
        assert_eq!(world.dead_last_used(1).await, used);
        assert_eq!(world.dead_last_used(2).await, None);
    }
    let world = world.restart().await;
    assert_eq!(world.dead_last_used(1).await, used);
    assert_eq!(world.dead_last_used(2).await, None);
}

/// A damaged usage stream is told of at every start: none of them may pass it by.
#[tokio::test]
async fn nothing_is_kept_while_a_usage_stream_is_damaged() {
    let world = World::new().await;
    world.give(create(1)).await.unwrap();
    for _ in 0..2 {
        world.pass(1_000);
        world.use_key(1).await;
        world.record().await;
        world.ledger.take_snapshots().await.unwrap();
    }
    assert!(world.store.flip_stored_byte(&StreamName::usage(ACME), Revision(1)));
    for _ in 0..2 {
        let world = open(&world.store, &world.time, Some(&world.derived), 2).await;
        let (ledger, replayed) = world;
        assert_eq!(replayed.snapshots, 0);
        let acme = ledger.tables().organization(ACME).unwrap();
        let tables = Arc::clone(&acme.tables());
        assert_eq!(ledger.last_used(tables.key(key_id(1)).unwrap()), None);
        assert!(matches!(ledger.take_snapshots().await, Err(RoundError::Damaged)));
    }
}

/// Whoever imports the secret of a dead key again must be found out: without the pepper of
/// its digest they would not be.
#[tokio::test]
async fn a_dead_key_from_elsewhere_needs_its_pepper() {
    let world = World::new().await;
    let before = world.ledger.pepper_use()[0];
    let key = CreateKey { origin: KeyOrigin::Imported, ..draft(1, None) };
    let import = ImportKeys { keys: vec![ImportedKey { key, others: Vec::new() }] };
    world.give(Command::ImportKeys(import)).await.unwrap();
    world.give(create(2)).await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.give(revoke(2)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.give(create(3)).await.unwrap();
    let needed_by = |world: &World| world.ledger.pepper_use()[0].needed_by - before.needed_by;
    assert_eq!(needed_by(&world), 2, "one in force, one from elsewhere");
    assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 2);
    assert_eq!(needed_by(&world), 2, "though it is no longer in memory");
    let world = world.restart().await;
    assert_eq!(needed_by(&world), 2);
}

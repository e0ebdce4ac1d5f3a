//! Walks over long streams, and what they read of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use projections::digest::LeafHash;
use projections::event::{Event, KeyRevoked, KeyStateBefore, PlanDefined, RevocationReason};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::organization::Organization;
use projections::principal::Principal;
use projections::recorded::StreamName;

use super::*;

mod indexed;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::event_store::{
    APPEND_EVENTS_MAX, AppendError, EventStore, NewEvent, Position, ReadItem, StoreFuture,
    Subscription,
};
use crate::ledger::secret::Ids;
use crate::ledger::start::Parts;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

/// Counts the events that are read from it.
struct Counting {
    store: MemoryStore,
    read: AtomicUsize,
}

impl EventStore for Counting {
    fn append(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> StoreFuture<Result<Revision, AppendError>> {
        self.store.append(stream, expected, events, urgency)
    }

    fn is_full(&self, urgency: Urgency) -> bool {
        self.store.is_full(urgency)
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        self.read.fetch_add(events_max, Ordering::Relaxed);
        self.store.read_stream(stream, from, events_max)
    }

    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<ReadItem>, ReadError>> {
        self.store.read_all(after, events_max)
    }

    fn subscribe_all(&self, after: Option<Position>) -> Box<dyn Subscription> {
        self.store.subscribe_all(after)
    }
}

/// A stream that nothing folds: a walk looks at what is stored, and at its end.
struct World {
    ledger: Arc<Ledger>,
    store: Arc<Counting>,
    organization: Published,
    ats: Vec<i64>,
}

fn event(at: i64, event: Event) -> Envelope {
    Envelope {
        id: EventId::from_bytes([9; 16]),
        at: Timestamp::from_millis(at).unwrap(),
        actor: Principal::Ledger,
        credential: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        event,
        sealed: Vec::new(),
    }
}

fn small() -> Event {
    let (reason, before) = (RevocationReason::Unspecified, KeyStateBefore::Active);
    KeyRevoked { key_id: KeyId::from_bytes([1; 16]), reason, before }.into()
}

impl World {
    /// A stream with an event at each of these times, which never decrease.
    async fn with(ats: Vec<i64>, fact: Event) -> Self {
        let store = Arc::new(Counting { store: MemoryStore::new(), read: AtomicUsize::new(0) });
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let parts = Parts {
            store: Arc::clone(&store) as _,
            vault: Arc::new(MemoryVault::new()),
            clock: Clock::manual(time),
            ids: Ids::from_system().unwrap(),
            peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
            lookup_key: [2; 32].into(),
        };
        let ledger = Ledger::open(parts).await.unwrap().0;
        let organization = Published::new(Organization::new(ACME));
        let mut expected = None;
        let mut last: Option<(i64, NewEvent)> = None;
        let mut new_event = |at: i64| match &last {
            Some((before, event)) if *before == at => event.clone(),
            _ => {
                let envelope = event(at, fact.clone());
                let (stored, leaf_hash) = envelope.encode().unwrap();
                let event_type = envelope.event.event_type();
                let new =
                    NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
                last = Some((at, new.clone()));
                new
            }
        };
        for some in ats.chunks(APPEND_EVENTS_MAX) {
            let events = some.iter().map(|at| new_event(*at)).collect();
            let appended =
                store.append(&organization.stream, expected, events, Urgency::Normal).await;
            expected = Some(appended.unwrap());
        }
        store.read.store(0, Ordering::Relaxed);
        Self { ledger, store, organization, ats }
    }

    async fn long(events: i64) -> Self {
        // Ten of each instant.
        Self::with((0..events).map(|number| number / 10).collect(), small()).await
    }

    fn head(&self) -> Head {
        Head {
            revision: Revision(self.ats.len() as u64 - 1),
            leaf_hash: LeafHash([0; 32]),
            at: Timestamp::from_millis(*self.ats.last().unwrap()).unwrap(),
        }
    }

    fn walk(&self, direction: Direction, wanted: usize) -> Walk<'_> {
        Walk::new(&self.ledger, &self.organization, self.head(), direction, wanted)
    }

    fn read(&self) -> usize {
        self.store.read.swap(0, Ordering::Relaxed)
    }
}

/// So many steps, or as many as there are; the revisions, and what came at the end.
async fn steps(walk: &mut Walk<'_>, steps_max: usize) -> (Vec<u64>, Option<Step>) {
    let mut revisions = Vec::new();
    while revisions.len() < steps_max {
        match walk.step().await.unwrap() {
            Step::Event(revision, _) => revisions.push(revision.0),
            end @ (Step::End | Step::WorkLimit) => return (revisions, Some(end)),
        }
    }
    (revisions, None)
}

#[tokio::test]
async fn a_walk_gives_every_event_once() {
    for length in [1, 2, 3, 7, 64, 65, 1_500] {
        let world = World::long(length).await;
        let length = length as u64;
        for wanted in [1, 2, 3, 100, 5_000] {
            let (found, end) = steps(&mut world.walk(Direction::OldestFirst, wanted), 9_999).await;
            assert_eq!(found, (0..length).collect::<Vec<_>>());
            assert!(matches!(end, Some(Step::End)));
            let (found, end) = steps(&mut world.walk(Direction::NewestFirst, wanted), 9_999).await;
            assert_eq!(found, (0..length).rev().collect::<Vec<_>>());
            assert!(matches!(end, Some(Step::End)));
        }
    }
}

#[tokio::test]
async fn a_walk_goes_on_where_another_ended() {
    let world = World::long(50).await;
    for direction in [Direction::NewestFirst, Direction::OldestFirst] {
        let (whole, _) = steps(&mut world.walk(direction, 7), 99).await;
        for cut in 1..50 {
            let mut first = world.walk(direction, 7);
            let (mut found, _) = steps(&mut first, cut).await;
            let mut second = world.walk(direction, 7);
            second.continue_behind(Revision(*found.last().unwrap()));
            assert_eq!(first.left_at().is_some(), cut < 50);
            found.extend(steps(&mut second, 99).await.0);
            assert_eq!(found, whole);
        }
        let last = Revision(*whole.last().unwrap());
        let mut behind = world.walk(direction, 7);
        behind.continue_behind(last);
        assert!(behind.left_at().is_none() && steps(&mut behind, 9).await.0.is_empty());
    }
    // A place that a longer history had.
    let mut later = world.walk(Direction::OldestFirst, 7);
    later.continue_behind(Revision(u64::MAX));
    assert!(later.left_at().is_none());
    let mut later = world.walk(Direction::NewestFirst, 7);
    later.continue_behind(Revision(1_000));
    assert_eq!(steps(&mut later, 99).await.0.len(), 50);
}

#[tokio::test]
async fn a_page_of_a_long_stream_reads_no_more_than_the_page() {
    let world = World::long(100_000).await;
    for direction in [Direction::NewestFirst, Direction::OldestFirst] {
        let (found, _) = steps(&mut world.walk(direction, 100), 100).await;
        assert_eq!((found.len(), world.read()), (100, 100));
    }
    // Whoever looks for what is not there is stopped, and goes on from there.
    for direction in [Direction::NewestFirst, Direction::OldestFirst] {
        let mut walk = world.walk(direction, 100);
        let (found, end) = steps(&mut walk, usize::MAX).await;
        assert_eq!((found.len(), world.read()), (WALK_EVENTS_MAX, WALK_EVENTS_MAX));
        assert!(matches!(end, Some(Step::WorkLimit)) && walk.left_at().is_some());
    }
    // Exactly as long as a walk: the end is known.
    let world = World::long(WALK_EVENTS_MAX as i64).await;
    let mut walk = world.walk(Direction::NewestFirst, 100);
    let (found, end) = steps(&mut walk, usize::MAX).await;
    assert_eq!(found.len(), WALK_EVENTS_MAX);
    assert!(matches!(end, Some(Step::End)) && walk.left_at().is_none());
}

#[tokio::test]
async fn a_walk_over_large_events_ends_by_their_bytes() {
    let fact = PlanDefined {
        plan: "x".repeat(60).parse().unwrap(),
        rules: projections::event::PlanRules {
            key_lifetime_max_seconds: None,
            ..Default::default()
        },
        before: None,
    };
    let large = Envelope {
        sealed: vec![projections::sealed::Sealed {
            subject: "operator/2026-11".parse().unwrap(),
            seal: "A".repeat(65_000),
        }],
        ..event(5, fact.into())
    };
    let world = World::with(vec![5; 1], small()).await;
    let (stored, leaf_hash) = large.encode().unwrap();
    let bytes = stored.len();
    let new =
        NewEvent { id: large.id, event_type: "PlanDefined", stored: stored.into(), leaf_hash };
    let mut expected = Revision(0);
    for _ in 0..2 {
        let events = vec![new.clone(); 700];
        expected = world
            .store
            .append(&world.organization.stream, Some(expected), events, Urgency::Normal)
            .await
            .unwrap();
    }
    let head = Head { revision: expected, ..world.head() };
    let mut walk = Walk::new(&world.ledger, &world.organization, head, Direction::NewestFirst, 100);
    let (found, end) = steps(&mut walk, usize::MAX).await;
    assert!(matches!(end, Some(Step::WorkLimit)));
    let read = found.len() * bytes;
    assert!((WALK_BYTES_MAX..2 * WALK_BYTES_MAX + bytes).contains(&read), "{read}");
}

#[tokio::test]
async fn a_time_is_one_place() {
    let mut ats: Vec<i64> =
        (0..300).map(|number: i64| number * number % 7 + number / 3 * 5).collect();
    ats.sort_unstable();
    let world = World::with(ats, small()).await;
    let latest = *world.ats.last().unwrap();
    for at in -2..latest + 3 {
        let bound = Timestamp::from_millis(at);
        let later = world.ats.iter().filter(|it| **it >= at).count() as u64;
        let first = 300 - later;
        let mut walk = world.walk(Direction::OldestFirst, 1);
        walk.skip_to(bound, None).await.unwrap();
        assert!(world.read() <= 12, "5 of the grid, 2 between, 4 at once: {}", world.read());
        let (found, _) = steps(&mut walk, 1).await;
        assert_eq!(found.first().copied(), (later > 0).then_some(first), "from {at}");
        let mut walk = world.walk(Direction::NewestFirst, 1);
        walk.skip_to(None, bound).await.unwrap();
        let (found, _) = steps(&mut walk, 1).await;
        assert_eq!(found.first().copied(), first.checked_sub(1), "to {at}");
        world.read();
    }
}

#[tokio::test]
async fn what_is_damaged_is_not_stepped_over() {
    let world = World::long(50).await;
    assert!(world.store.store.flip_stored_byte(&world.organization.stream, Revision(20)));
    for direction in [Direction::NewestFirst, Direction::OldestFirst] {
        let mut walk = world.walk(direction, 5);
        let error = loop {
            match walk.step().await {
                Ok(Step::Event(revision, _)) => assert_ne!(revision, Revision(20)),
                Ok(step) => panic!("{step:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::Corrupt { revision: Revision(20), .. }), "{error}");
    }
    // A stream that is shorter than readers have seen.
    let head = Head { revision: Revision(60), ..world.head() };
    let mut walk = Walk::new(&world.ledger, &world.organization, head, Direction::NewestFirst, 5);
    let error = walk.step().await.unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { revision: Revision(56), .. }), "{error}");
}

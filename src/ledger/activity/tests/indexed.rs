//! Walks by an index that knows as much as it knows, held against a look at all events.

use projections::activity::Filter;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ledger::activity::index::{ActivityIndex, Indexed};
use crate::ledger::event_store::Anchor;
use crate::store::activity_index::ActivityDb;

/// Who did what with what, out of few, at which time.
#[derive(Clone, Copy, Debug)]
struct Fact {
    pause: i64,
    key: u8,
    by: u8,
    correlation: u8,
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let fact = (0..3_i64, 0..4_u8, 0..3_u8, 0..3_u8)
        .prop_map(|(pause, key, by, correlation)| Fact { pause, key, by, correlation });
    prop::collection::vec(fact, 1..80)
}

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number + 1; 16])
}

fn envelope(fact: Fact, at: i64) -> Envelope {
    let (reason, before) = (RevocationReason::KeyCompromise, KeyStateBefore::Active);
    let revoked = KeyRevoked { key_id: key(fact.key), reason, before };
    Envelope {
        actor: match fact.by {
            0 => Principal::Ledger,
            number => Principal::Organization(OrganizationId::from_bytes([number; 16])),
        },
        correlation_id: format!("c{}", fact.correlation).parse().unwrap(),
        ..event(at, revoked.into())
    }
}

async fn world(facts: &[Fact]) -> (World, Vec<Envelope>) {
    let mut at = 0;
    let envelopes: Vec<_> = facts
        .iter()
        .map(|fact| {
            at += fact.pause;
            envelope(*fact, at)
        })
        .collect();
    let world = World::with(Vec::new(), small()).await;
    let events = envelopes
        .iter()
        .map(|envelope| {
            let (stored, leaf_hash) = envelope.encode().unwrap();
            let event_type = envelope.event.event_type();
            NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash }
        })
        .collect();
    world.store.append(&world.organization.stream, None, events, Urgency::Normal).await.unwrap();
    let ats = envelopes.iter().map(|it| it.at.as_millis()).collect();
    (World { ats, ..world }, envelopes)
}

/// An index of the first so many events.
fn index_of(world: &World, envelopes: &[Envelope], known: usize, directory: &TempDir) {
    let index = ActivityDb::open(&directory.path().join("activity.db")).unwrap();
    let events: Vec<_> = (0_u64..)
        .zip(envelopes.iter().take(known))
        .map(|(revision, envelope)| Indexed {
            organization: ACME,
            revision: Revision(revision),
            terms: projections::activity::terms_of(envelope),
        })
        .collect();
    let checkpoint = Anchor {
        before: None,
        position: Position(1),
        stream: world.organization.stream.clone(),
        revision: Revision(0),
        leaf_hash: LeafHash([0; 32]),
    };
    index.add(&events, &checkpoint).unwrap();
    let last = events.last().map(|it| (ACME, it.revision));
    world.ledger.activity.begin(Arc::new(index), last);
}

/// All that a filter shows, page by page, and how many events were read for it.
async fn pages(
    world: &World,
    filter: &Filter,
    (from, to): (Option<i64>, Option<i64>),
    direction: Direction,
    rows: usize,
) -> (Vec<u64>, usize) {
    let at = |bound: Option<i64>| bound.and_then(Timestamp::from_millis);
    let (mut found, mut behind) = (Vec::new(), None);
    world.read();
    loop {
        let walk = Walk::new(&world.ledger, &world.organization, world.head(), direction, rows);
        let mut walk = walk.looking_for(filter.terms());
        walk.skip_to(at(from), at(to)).await.unwrap();
        if let Some(behind) = behind {
            walk.continue_behind(behind);
        }
        let mut page = 0;
        while page < rows {
            match walk.step().await.unwrap() {
                Step::Event(_, event)
                    if from.is_some_and(|from| {
                        direction == Direction::NewestFirst && event.at.as_millis() < from
                    }) || to.is_some_and(|to| {
                        direction == Direction::OldestFirst && event.at.as_millis() >= to
                    }) =>
                {
                    return (found, world.read());
                }
                Step::Event(revision, event) => {
                    if filter.shows(&event) {
                        found.push(revision.0);
                        page += 1;
                    }
                }
                Step::End => return (found, world.read()),
                Step::WorkLimit => break,
            }
        }
        behind = walk.left_at();
        if behind.is_none() {
            return (found, world.read());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_index_changes_what_is_read_and_not_what_is_shown(
        facts in facts(),
        known in 0_usize..90,
        asked in (prop::option::of(0..4_u8), prop::option::of(0..3_u8), prop::option::of(0..3_u8)),
        bounds in (prop::option::of(-1_i64..100), prop::option::of(-1_i64..100)),
        rows in 1_usize..7,
        newest_first in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (world, envelopes) = world(&facts).await;
            let directory = TempDir::new().unwrap();
            index_of(&world, &envelopes, known, &directory);
            let model = envelope(Fact { pause: 0, key: 0, by: asked.1.unwrap_or_default(), correlation: 0 }, 1);
            let filter = Filter {
                target: asked.0.map(|it| key(it).to_string()),
                actor: asked.1.map(|_| model.actor),
                correlation_id: asked.2.map(|it| format!("c{it}").parse().unwrap()),
                ..Filter::default()
            };
            let direction = if newest_first { Direction::NewestFirst } else { Direction::OldestFirst };
            let mut expected: Vec<u64> = (0_u64..).zip(&envelopes)
                .filter(|(_, it)| filter.shows(it))
                .filter(|(_, it)| bounds.0.is_none_or(|from| it.at.as_millis() >= from))
                .filter(|(_, it)| bounds.1.is_none_or(|to| it.at.as_millis() < to))
                .map(|(revision, _)| revision)
                .collect();
            if newest_first {
                expected.reverse();
            }
            let (found, _) = pages(&world, &filter, bounds, direction, rows).await;
            prop_assert_eq!(found, expected);
            Ok(())
        })?;
    }
}

#[test]
fn an_index_that_is_distrusted_is_not_asked_before_it_was_empty() {
    let state = IndexState::default();
    state.set_reached([(ACME, Revision(5))]);
    assert_eq!(state.reached(ACME), Some(Revision(5)));
    state.distrust();
    assert_eq!(state.reached(ACME), None);
    // A batch that was on its way.
    state.set_reached([(ACME, Revision(6))]);
    assert_eq!(state.reached(ACME), None);
    state.cleared();
    state.set_reached([(ACME, Revision(0))]);
    assert_eq!(state.reached(ACME), Some(Revision(0)));
}

#[tokio::test]
async fn a_rare_event_of_a_long_stream_is_found_by_reading_it_alone() {
    let common = Fact { pause: 1, key: 0, by: 0, correlation: 0 };
    let mut facts = vec![common; 900];
    for rare in [3, 450, 898] {
        facts[rare].key = 3;
    }
    let (world, envelopes) = world(&facts).await;
    let directory = TempDir::new().unwrap();
    index_of(&world, &envelopes, 900, &directory);
    let filter = Filter { target: Some(key(3).to_string()), ..Filter::default() };
    for (direction, expected) in
        [(Direction::NewestFirst, [898, 450, 3]), (Direction::OldestFirst, [3, 450, 898])]
    {
        let (found, read) = pages(&world, &filter, (None, None), direction, 100).await;
        assert_eq!((found.as_slice(), read), (expected.as_slice(), 3));
        // And bounded by time: halving reads a few.
        let (found, read) = pages(&world, &filter, (Some(100), Some(800)), direction, 100).await;
        assert_eq!(found, [450]);
        assert!(read < 40, "{read}");
    }
    world.ledger.activity.forget();
    let (found, read) = pages(&world, &filter, (None, None), Direction::NewestFirst, 100).await;
    assert_eq!((found.len(), read), (3, 900), "without the index");
}

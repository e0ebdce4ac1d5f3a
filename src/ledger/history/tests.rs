//! Tables as they were, with and without what is kept of them.

use std::sync::atomic::Ordering;

use projections::event::RevocationReason;
use projections::key::KEY_MEMORY_MS;
use proptest::prelude::*;

use super::keeping::Pace;
use super::*;
use crate::ledger::command::{Command, Expiry, RevokeKey, RotateKey, UpdateKeyLabel};
use crate::ledger::snapshot_store::SnapshotStore as _;
use crate::ledger::snapshots::tests::{ACME, DAY_MS, World, create, draft, key_id, revoke};
use crate::store::derived;

/// One step of a history.
#[derive(Clone, Debug)]
enum Act {
    Create(u8, bool),
    Revoke(u8),
    Disable(u8),
    Enable(u8),
    Rotate(u8, u8),
    Relabel(u8),
    Pass(i64),
}

fn arb_act() -> impl Strategy<Value = Act> {
    let key = 0_u8..24;
    prop_oneof![
        4 => (key.clone(), any::<bool>()).prop_map(|(key, ends)| Act::Create(key, ends)),
        2 => key.clone().prop_map(Act::Revoke),
        1 => key.clone().prop_map(Act::Disable),
        1 => key.clone().prop_map(Act::Enable),
        1 => (key.clone(), 24_u8..48).prop_map(|(key, new)| Act::Rotate(key, new)),
        1 => key.prop_map(Act::Relabel),
        2 => prop_oneof![Just(0), Just(1), Just(DAY_MS / 2), Just(20 * DAY_MS)].prop_map(Act::Pass),
    ]
}

/// Does it, if the rules allow.
async fn act(world: &World, act: &Act) {
    let command = match *act {
        Act::Create(key, ends) => {
            let end = ends.then(|| world.now().saturating_add_millis(DAY_MS));
            Command::CreateKey(Box::new(draft(key, end)))
        }
        Act::Revoke(key) => revoke(key),
        Act::Disable(key) => Command::DisableKey(key_id(key)),
        Act::Enable(key) => Command::EnableKey(key_id(key)),
        Act::Rotate(key, new) => Command::RotateKey(Box::new(RotateKey {
            key_id: key_id(key),
            successor: key_id(new),
            prefix: "vtx".parse().unwrap(),
            hint: None,
            digest: draft(new, None).digest,
            grace_ms: Some(1_000),
            expiry: None,
        })),
        Act::Relabel(key) => Command::UpdateKeyLabel(UpdateKeyLabel {
            key_id: key_id(key),
            name: Some(format!("named {key}").parse().unwrap()),
            description: None,
        }),
        Act::Pass(millis) => return world.pass(millis),
    };
    let _ = world.give(command).await;
}

fn forget_recent(world: &World) {
    *world.ledger.history.recent() = Recent::default();
}

/// What stands at each revision is, byte by byte, what stood there.
async fn assert_were(world: &World, were: &HashMap<Revision, Vec<u8>>, how: &str) {
    for (revision, bytes) in were {
        let tables = world.ledger.tables_at(&world.acme(), *revision).await.unwrap();
        assert!(tables.to_canonical() == *bytes, "{how}: revision {revision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// From the beginning, from what is kept, from what was asked before, after a restart and
    /// after what was kept is gone: tables as they were are what they were.
    #[test]
    fn tables_as_they_were_are_what_they_were(acts in prop::collection::vec(arb_act(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let mut were = HashMap::new();
            for one in &acts {
                act(&world, one).await;
                let tables = Arc::clone(&world.acme().tables());
                were.insert(tables.revision().unwrap(), tables.to_canonical());
            }
            assert_were(&world, &were, "from the beginning").await;
            world.ledger.history.past_events_min.store(4, Ordering::Relaxed);
            assert!(world.ledger.keep_past(Pace::Steady).await.unwrap() > 0);
            assert_were(&world, &were, "from what was asked before").await;
            forget_recent(&world);
            assert_were(&world, &were, "from what is kept").await;
            let world = world.restart().await;
            assert_were(&world, &were, "after a restart").await;
        });
    }
}

/// A world with so many events of one organization, and tables kept of it.
async fn kept_world() -> World {
    let world = World::new().await;
    for key in 0..40 {
        world.give(create(key)).await.unwrap();
        world.pass(1_000);
    }
    world.ledger.history.past_events_min.store(4, Ordering::Relaxed);
    assert!(world.ledger.keep_past(Pace::Steady).await.unwrap() > 2);
    world
}

fn places(world: &World) -> Vec<u64> {
    let database = derived::beside(&world.directory.path().join("projections.db"));
    let all = "SELECT DISTINCT revision FROM past WHERE organization = ?1 ORDER BY revision";
    let mut statement = database.prepare(all).unwrap();
    let rows = statement.query_map([ACME.to_bytes()], |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|it| it.unwrap().cast_unsigned()).collect()
}

/// Does this to what is kept of the second place, and looks how a question about it fares.
async fn damage(how: &str) {
    let world = kept_world().await;
    let right = world.ledger.tables_at(&world.acme(), Revision(30)).await.unwrap();
    let before = places(&world);
    let (one, two) = (before[0], before[1]);
    forget_recent(&world);
    let database = derived::beside(&world.directory.path().join("projections.db"));
    let how = how.replace("$1", &one.to_string()).replace("$2", &two.to_string());
    assert!(database.execute(&how, []).unwrap() > 0, "{how}");
    drop(database);
    let wanted = Revision(two + 1);
    let found = world.ledger.tables_at(&world.acme(), wanted).await.unwrap();
    assert_eq!(found.revision(), Some(wanted));
    assert_eq!(places(&world), before[..1], "thrown away with all behind it: {how}");
    forget_recent(&world);
    let again = world.ledger.tables_at(&world.acme(), Revision(30)).await.unwrap();
    assert!(again.to_canonical() == right.to_canonical(), "{how}");
    // It is made again.
    assert!(world.ledger.keep_past(Pace::Steady).await.unwrap() > 0);
    assert_eq!(places(&world), before, "{how}");
}

#[tokio::test]
async fn kept_tables_that_are_not_what_was_written_are_thrown_away_and_made_again() {
    damage("UPDATE past SET bytes = zeroblob(length(bytes)) WHERE revision = $2").await;
    damage("UPDATE past SET bytes = substr(bytes, 1, length(bytes) - 1) WHERE revision = $2").await;
    damage(
        "UPDATE past SET bytes = (SELECT bytes FROM past WHERE revision = $1) WHERE revision = $2",
    )
    .await;
}

#[tokio::test]
async fn kept_tables_of_another_history_are_thrown_away() {
    let one = kept_world().await;
    let two = kept_world().await;
    let place = places(&one)[1];
    // The same installation's seal, another history: as a data directory restored in part.
    let store = one.ledger.snapshots.store().unwrap();
    let row = store.past(ACME, Revision(place)).unwrap().unwrap();
    let other = two.ledger.snapshots.store().unwrap();
    let go_on = std::sync::atomic::AtomicBool::new(false);
    let mut saving = other.begin(&go_on).unwrap();
    saving.past(&row).unwrap();
    saving.commit().unwrap();
    forget_recent(&two);
    let found = two.ledger.tables_at(&two.acme(), Revision(place)).await.unwrap();
    let leaf_hash =
        two.ledger.event(&two.acme(), Revision(place)).await.unwrap().unwrap().leaf_hash;
    assert_eq!(found.head().unwrap().leaf_hash, leaf_hash);
    assert!(!places(&two).contains(&place));
}

/// Whoever can write the file and not read the secrets changes one bit that makes other tables.
#[tokio::test]
async fn kept_tables_that_somebody_else_wrote_are_thrown_away() {
    let world = kept_world().await;
    let (id, place) = (ACME, Revision(places(&world)[1]));
    let was = world.ledger.tables_at(&world.acme(), place).await.unwrap();
    let store = world.ledger.snapshots.store().unwrap();
    let mut row = store.past(id, place).unwrap().unwrap();
    let forged = (32..row.sealed.len()).rev().find(|at| {
        let mut bytes = row.sealed[32..].to_vec();
        bytes[at - 32] ^= 1;
        let other = Organization::from_canonical(&bytes);
        other.is_ok_and(|it| it.head() == was.head() && it != *was)
    });
    row.sealed[forged.unwrap()] ^= 1;
    let go_on = std::sync::atomic::AtomicBool::new(false);
    let mut saving = store.begin(&go_on).unwrap();
    saving.past(&row).unwrap();
    saving.commit().unwrap();
    forget_recent(&world);
    let found = world.ledger.tables_at(&world.acme(), place).await.unwrap();
    assert!(found.to_canonical() == was.to_canonical());
    assert!(!places(&world).contains(&place.0));
}

#[tokio::test]
async fn what_is_kept_is_made_again_while_questions_are_answered() {
    let world = kept_world().await;
    let before = places(&world);
    let was = world.ledger.tables_at(&world.acme(), Revision(30)).await.unwrap();
    world.derived.clear().unwrap();
    assert!(places(&world).is_empty());
    forget_recent(&world);
    let found = world.ledger.tables_at(&world.acme(), Revision(30)).await.unwrap();
    assert!(found.to_canonical() == was.to_canonical());
    world.ledger.history.not_before().clear();
    world.ledger.keep_past(Pace::Steady).await.unwrap();
    assert_eq!(places(&world), before);
}

#[tokio::test]
async fn a_request_folds_so_much_and_the_next_goes_on_there() {
    let world = World::new().await;
    for key in 0..40 {
        world.give(create(key)).await.unwrap();
    }
    world.ledger.history.fold_events_max.store(8, Ordering::Relaxed);
    let mut limits = 0;
    let found = loop {
        match world.ledger.tables_at(&world.acme(), Revision(30)).await {
            Ok(found) => break found,
            Err(PastError::WorkLimit) => limits += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((found.revision(), limits), (Some(Revision(30)), 3));
    // What others asked for is of no use to an earlier moment.
    let earlier = world.ledger.tables_at(&world.acme(), Revision(5)).await.unwrap();
    assert_eq!(earlier.revision(), Some(Revision(5)));
}

#[tokio::test]
async fn an_instant_is_behind_all_that_was_recorded_until_then() {
    let world = World::new().await;
    let began = world.now();
    world.pass(10);
    world.give(create(1)).await.unwrap();
    world.give(create(2)).await.unwrap();
    let both = world.now();
    world.pass(10);
    let last = revoke_now(&world).await;
    let at = async |at: Timestamp| {
        let (places, _) = world.ledger.places(&world.acme(), Moment::At(at)).await?;
        Ok::<_, PastError>(places.revision)
    };
    let first = world.ledger.recorded_at(&world.acme(), Revision::FIRST).await.unwrap();
    assert!(
        matches!(at(first.saturating_add_millis(-1)).await, Err(PastError::Before(it)) if it == first)
    );
    assert_eq!(at(began).await.unwrap(), Revision(0));
    assert_eq!(at(both.saturating_add_millis(-1)).await.unwrap(), Revision(0));
    assert_eq!(at(both).await.unwrap(), Revision(2), "both events of that instant");
    assert_eq!(at(both.saturating_add_millis(9)).await.unwrap(), Revision(2));
    assert_eq!(at(world.now()).await.unwrap(), last);
    let ahead = at(world.now().saturating_add_millis(1)).await;
    assert!(matches!(ahead, Err(PastError::Ahead(now)) if now == world.now()));
    let (places, when) =
        world.ledger.places(&world.acme(), Moment::Behind(Revision(1))).await.unwrap();
    assert_eq!((places.revision, when), (Revision(1), both));
    let none = world.ledger.places(&world.acme(), Moment::Behind(Revision(99))).await;
    assert!(matches!(none, Err(PastError::NoSuchRevision(it)) if it == last));
}

async fn revoke_now(world: &World) -> Revision {
    let reason = RevocationReason::KeyCompromise;
    let command = Command::RevokeKey(RevokeKey { key_id: key_id(1), reason });
    world.give(command).await.unwrap().revision.unwrap()
}

#[tokio::test]
async fn a_key_that_left_is_known_to_have_left_by_then() {
    let world = World::new().await;
    let soon = Expiry::At(world.now().saturating_add_millis(DAY_MS));
    let ends = crate::ledger::command::CreateKey { expiry: soon, ..draft(1, None) };
    world.give(Command::CreateKey(Box::new(ends))).await.unwrap();
    let before = world.acme().tables().revision().unwrap();
    world.pass(KEY_MEMORY_MS + DAY_MS);
    let at = world.give(create(2)).await.unwrap().revision.unwrap();
    world.give(create(3)).await.unwrap();
    let key = world.ledger.dead_key(&world.acme(), key_id(1)).await.unwrap().unwrap().key;
    for (revision, lost) in [(before, false), (at, true)] {
        let moment = Moment::Behind(revision);
        let (places, when) = world.ledger.places(&world.acme(), moment).await.unwrap();
        let past = world.ledger.past(&world.acme(), places, when).await.unwrap();
        assert_eq!(past.had_lost(&key), lost, "{revision}");
        assert_eq!(past.tables.key(key_id(1)).is_some(), !lost);
    }
}

//! Rounds, starts from what they left, and keys that are let go of.

mod check;
mod uses;

use std::collections::BTreeMap;
use std::path::Path;

use projections::event::{DigestForm, Hint, KeyOrigin, KeyedDigest, RevocationReason};
use projections::id::KeyId;
use projections::key::KEY_MEMORY_MS;
use projections::permission::{Permission, Scopes};
use projections::presented::Presented;
use projections::recorded::StreamName;
use projections::time::Timestamp;
use projections::verification::{Code, Question, Wanted};

use super::*;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::command::{
    Caller, Command, CreateKey, Expiry, ImportKeys, ImportedKey, Order, OrganizationDraft,
    Personal, RevokeKey, RotateKey, UpdateKeyLabel,
};
use crate::ledger::rejection::Rejection;
use crate::ledger::secret::Ids;
use crate::ledger::start::{ConfiguredKeys, Parts, Replayed};
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::verify::{Answer, Reach};
use crate::ledger::{Executed, LedgerError};
use crate::store::derived::{self, DerivedStore};
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

pub(in crate::ledger) const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
pub(in crate::ledger) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

pub(in crate::ledger) struct World {
    pub(in crate::ledger) ledger: Arc<Ledger>,
    pub(in crate::ledger) replayed: Replayed,
    pub(in crate::ledger) store: MemoryStore,
    pub(in crate::ledger) time: Arc<ManualTime>,
    pub(in crate::ledger) directory: tempfile::TempDir,
    pub(in crate::ledger) derived: Arc<DerivedStore>,
}

fn derived(directory: &Path) -> Arc<DerivedStore> {
    Arc::new(DerivedStore::open(&directory.join("projections.db")).unwrap())
}

async fn open(
    store: &MemoryStore,
    time: &Arc<ManualTime>,
    derived: Option<&Arc<DerivedStore>>,
    lookup_key: u8,
) -> (Arc<Ledger>, Replayed) {
    let parts = Parts {
        store: Arc::new(store.clone()),
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::manual(Arc::clone(time)),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [lookup_key; 32].into(),
    };
    let derived = derived.map(|it| Arc::clone(it) as Arc<dyn SnapshotStore>);
    Ledger::open_with(parts, derived).await.unwrap()
}

/// The text of a key; the ledger knows its digest only.
pub(in crate::ledger) fn text(number: u8) -> String {
    let mut text = "vtx_live_".to_owned();
    text.extend(std::iter::repeat_n(char::from(b'a' + number % 26), 35));
    text.push(char::from(b'a' + number / 26));
    projections::api_key::push_checksum(&mut text);
    text
}

pub(in crate::ledger) fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

pub(in crate::ledger) fn draft(number: u8, expires_at: Option<Timestamp>) -> CreateKey {
    let digest = Peppers::new(PepperId::FIRST, [1; 32].into()).digest(text(number).as_bytes());
    CreateKey {
        key_id: key_id(number),
        name: format!("key {number}").parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().unwrap()),
        environment: None,
        hint: Hint::of(&text(number)),
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: digest },
        scopes: Some(Scopes::new(&["dns:read"]).unwrap()),
        roles: Vec::new(),
        services: None,
        expiry: expires_at.map_or(Expiry::PlanDefault, Expiry::At),
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
    }
}

pub(in crate::ledger) fn create(number: u8) -> Command {
    Command::CreateKey(Box::new(draft(number, None)))
}

pub(in crate::ledger) fn revoke(number: u8) -> Command {
    let reason = RevocationReason::KeyCompromise;
    Command::RevokeKey(RevokeKey { key_id: key_id(number), reason })
}

impl World {
    pub(in crate::ledger) async fn new() -> Self {
        let store = MemoryStore::new();
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let derived = derived(directory.path());
        let (ledger, replayed) = open(&store, &time, Some(&derived), 2).await;
        ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
        let world = Self { ledger, replayed, store, time, directory, derived };
        let draft = OrganizationDraft {
            organization_id: ACME,
            name: "Acme".parse().unwrap(),
            key_prefix: "vtx".parse().unwrap(),
            plan: "paid".parse().unwrap(),
            personal_of: None,
        };
        let registered = Command::RegisterOrganization(draft.clone());
        world.give_to(OrganizationId::OPERATOR, registered).await.unwrap();
        world.give(Command::CreateOrganization(draft)).await.unwrap();
        world
    }

    pub(in crate::ledger) async fn give_to(
        &self,
        organization: OrganizationId,
        command: Command,
    ) -> Result<Executed, LedgerError> {
        let order = Order {
            caller: Caller::Ledger,
            command,
            expected: None,
            request: None,
            correlation_id: self.ledger.new_correlation_id(),
            causation_id: None,
            personal: Personal::default(),
            about: None,
        };
        self.ledger.execute(organization, &order).await
    }

    pub(in crate::ledger) async fn give(&self, command: Command) -> Result<Executed, LedgerError> {
        self.give_to(ACME, command).await
    }

    pub(in crate::ledger) async fn refused(&self, command: Command) -> Rejection {
        match self.give(command).await {
            Err(LedgerError::Rejected(rejection)) => rejection,
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::ledger) fn now(&self) -> Timestamp {
        self.ledger.clock().now()
    }

    pub(in crate::ledger) fn pass(&self, millis: i64) {
        self.time.set_wall(self.now().saturating_add_millis(millis));
        self.ledger.clock().confirm();
    }

    pub(in crate::ledger) fn acme(&self) -> Arc<Published> {
        self.ledger.tables().organization(ACME).unwrap()
    }

    /// Starts anew on what is there.
    pub(in crate::ledger) async fn restart(self) -> Self {
        let Self { store, time, directory, derived: old, ledger, .. } = self;
        drop((old, ledger));
        let derived = derived(directory.path());
        let (ledger, replayed) = open(&store, &time, Some(&derived), 2).await;
        Self { ledger, replayed, store, time, directory, derived }
    }

    pub(in crate::ledger) async fn code(&self, text: &str) -> Code {
        let code = |answer: Answer<'_>| match answer {
            Answer::Decided(decision) | Answer::RateLimited { decision, .. } => Ok(decision.code),
            Answer::Refused(code) => Ok(code),
            Answer::Unavailable(id) => panic!("{id} is stopped"),
            Answer::Elsewhere(ticket) => Err(ticket),
            Answer::Emergency(_) => panic!("no credential of break-glass was shown"),
        };
        let question = Question {
            tenant: None,
            permissions: Wanted::One(Permission::constant("dns", "read")),
            service: None,
            environment: None,
            client_ip: None,
            domain: None,
            now: self.now(),
        };
        let ask = || {
            let mut presented = Presented::default();
            presented.bearer(text);
            self.ledger.verify(presented, &question, Reach::Installation, code)
        };
        match ask() {
            Ok(code) => code,
            Err(ticket) => {
                self.ledger.recall(ticket).await;
                ask().unwrap()
            }
        }
    }

    /// The tables are those that a replay of all history gives, byte by byte.
    pub(in crate::ledger) async fn assert_is_history(&self) {
        let (replayed, _) = open(&self.store, &self.time, None, 2).await;
        for organization in self.ledger.tables().all() {
            let rebuilt = replayed.tables().organization(organization.id).unwrap();
            let (running, rebuilt) = (organization.tables(), rebuilt.tables());
            assert_eq!(running.to_canonical(), rebuilt.to_canonical(), "{}", organization.id);
        }
    }

    /// The numbers of the keys that are listed.
    pub(in crate::ledger) async fn dead(&self) -> Vec<u8> {
        let dead = self.ledger.dead_keys_after(&self.acme(), None, 1_000).await.unwrap();
        dead.iter().map(|row| row.key.id.to_bytes()[0]).collect()
    }
}

#[tokio::test]
async fn a_start_from_snapshots_reads_only_the_tail() {
    let world = World::new().await;
    for number in 0..10 {
        world.give(create(number)).await.unwrap();
    }
    world.give(revoke(3)).await.unwrap();
    assert_eq!(world.ledger.take_snapshots().await.unwrap().organizations, 2);
    assert_eq!(world.ledger.take_snapshots().await.unwrap(), Taken::default());
    world.give(create(11)).await.unwrap();
    world.give(revoke(4)).await.unwrap();
    let world = world.restart().await;
    assert_eq!((world.replayed.events, world.replayed.snapshots), (2, 2));
    world.assert_is_history().await;
    for (number, code) in [(2, Code::Allowed), (3, Code::Revoked), (4, Code::Revoked)] {
        assert_eq!(world.code(&text(number)).await, code);
    }
    // What was folded behind the snapshots is in the next ones.
    assert_eq!(world.ledger.take_snapshots().await.unwrap().organizations, 1);
    let world = world.restart().await;
    assert_eq!((world.replayed.events, world.replayed.snapshots), (0, 2));
    assert_eq!(world.code(&text(11)).await, Code::Allowed);
    world.give(revoke(11)).await.unwrap();
    world.assert_is_history().await;
}

#[tokio::test]
async fn keys_that_ended_long_ago_leave_memory_and_stay_answerable() {
    let world = World::new().await;
    let soon = world.now().saturating_add_millis(DAY_MS);
    world.give(create(1)).await.unwrap();
    world.give(Command::CreateKey(Box::new(draft(2, Some(soon))))).await.unwrap();
    world.give(create(3)).await.unwrap();
    world.give(revoke(1)).await.unwrap();
    let before = world.ledger.tables().indexed_keys();
    world.pass(KEY_MEMORY_MS + DAY_MS);
    // A key that is as good as gone is refused in words that say so, and stops nothing.
    for command in [revoke(1), revoke(2)] {
        let rejection = world.refused(command).await;
        assert!(matches!(rejection, Rejection::KeyNotFound(_)), "{rejection:?}");
    }
    world.give(create(4)).await.unwrap();
    // They have left the tables, and memory holds them until they are kept elsewhere.
    assert_eq!((world.acme().tables().keys_here(), world.acme().departed_count()), (2, 2));
    for round in 0..2 {
        assert_eq!(world.code(&text(1)).await, Code::Revoked, "{round}");
        assert_eq!(world.code(&text(2)).await, Code::Expired, "{round}");
        assert_eq!(world.code(&text(3)).await, Code::Allowed, "{round}");
        assert_eq!(world.code(&text(9)).await, Code::Unknown, "{round}");
        assert_eq!(world.dead().await, [1, 2], "{round}");
        let dead = world.ledger.dead_key(&world.acme(), key_id(2)).await.unwrap().unwrap().key;
        assert_eq!((dead.name.as_str(), dead.expires_at()), ("key 2", Some(soon)));
        assert!(world.ledger.dead_key(&world.acme(), key_id(3)).await.unwrap().is_none());
        let reach = Reach::Organization(ACME);
        let found = world.ledger.key_of(&text(1), reach).await.unwrap();
        assert_eq!(found, Some((ACME, key_id(1))));
        let other = Reach::Organization(OrganizationId::from_bytes([8; 16]));
        assert_eq!(world.ledger.key_of(&text(1), other).await.unwrap(), None);
        assert_eq!(world.acme().tables().key_counts(), (4, 1));
        for command in [
            revoke(1),
            revoke(2),
            Command::DisableKey(key_id(2)),
            Command::EnableKey(key_id(2)),
            Command::EndRotation(key_id(2)),
            Command::UpdateKeyLabel(UpdateKeyLabel {
                key_id: key_id(2),
                name: None,
                description: Some(None),
            }),
            Command::RotateKey(Box::new(RotateKey {
                key_id: key_id(2),
                successor: key_id(5),
                prefix: "vtx".parse().unwrap(),
                hint: None,
                digest: draft(5, None).digest,
                grace_ms: None,
                expiry: None,
            })),
        ] {
            let rejection = world.refused(command).await;
            assert!(matches!(rejection, Rejection::KeyEndedLongAgo(_)), "{rejection:?}");
        }
        // The secret of a dead key is nobody else's.
        let again = CreateKey { key_id: key_id(6), origin: KeyOrigin::Imported, ..draft(1, None) };
        let again = ImportKeys { keys: vec![ImportedKey { key: again, others: Vec::new() }] };
        let taken = world.refused(Command::ImportKeys(again)).await;
        assert_eq!(taken, Rejection::SecretInUse.of_item("keys", 0));
        if round == 0 {
            assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 2);
            assert_eq!(world.acme().departed_count(), 0);
            assert_eq!(world.acme().buried_count(), 2);
            // One was made and two were let go of.
            assert_eq!(world.ledger.tables().indexed_keys(), before - 1);
        }
    }
    world.assert_is_history().await;
    let world = world.restart().await;
    assert_eq!((world.replayed.events, world.acme().buried_count()), (0, 2));
    assert_eq!(world.code(&text(1)).await, Code::Revoked);
    assert_eq!(world.code(&text(2)).await, Code::Expired);
    assert_eq!(world.dead().await, [1, 2]);
    // Without what is derived all of it comes from history.
    world.derived.clear().unwrap();
    let world = world.restart().await;
    assert_eq!((world.replayed.snapshots, world.acme().departed_count()), (0, 2));
    assert_eq!(world.code(&text(1)).await, Code::Revoked);
    assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 2);
    assert_eq!(world.dead().await, [1, 2]);
    assert_eq!(world.code(&text(2)).await, Code::Expired);
}

/// A key that ended long ago in an organization where nothing happened since is named
/// by a command for several keys: the first of its events moves the time for all.
#[tokio::test]
async fn time_that_passed_in_silence_stops_nobody() {
    use crate::ledger::command::{RevokeKeys, WhichKeys};
    let world = World::new().await;
    let soon = world.now().saturating_add_millis(DAY_MS);
    world.give(Command::CreateKey(Box::new(draft(1, Some(soon))))).await.unwrap();
    world.give(create(2)).await.unwrap();
    world.give(create(3)).await.unwrap();
    world.pass(KEY_MEMORY_MS + DAY_MS);
    let both = |ids: &[u8]| {
        let which = WhichKeys::Listed(ids.iter().map(|it| key_id(*it)).collect());
        Command::RevokeKeys(RevokeKeys { which, reason: RevocationReason::KeyCompromise })
    };
    assert_eq!(world.refused(both(&[1, 2])).await, Rejection::KeyNotFound(key_id(1)));
    world.give(both(&[2, 3])).await.unwrap();
    assert!(world.acme().stopped().is_none());
    assert_eq!(world.acme().departed_count(), 1);
    world.assert_is_history().await;
}

#[tokio::test]
async fn dead_keys_whose_text_is_not_ours_are_looked_for_after_a_restart() {
    let world = World::new().await;
    let foreign = "made-elsewhere-long-ago";
    let sha256 = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(foreign.as_bytes()));
    let digest = crate::ledger::mint::digest_of_sha256(&sha256, world.ledger.peppers());
    let key = CreateKey {
        prefix: None,
        hint: None,
        origin: KeyOrigin::Imported,
        digest,
        ..draft(1, None)
    };
    let import = ImportKeys { keys: vec![ImportedKey { key, others: Vec::new() }] };
    world.give(Command::ImportKeys(import)).await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.give(create(2)).await.unwrap();
    assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 1);
    let world = world.restart().await;
    assert_eq!(world.code(foreign).await, Code::Revoked);
    assert_eq!(world.code("made-elsewhere-by-nobody").await, Code::Malformed);
}

/// What is wrong with what was kept, and whether the start can still use it.
#[tokio::test]
async fn a_snapshot_that_is_not_what_was_written_is_thrown_away() {
    let path = |world: &World| world.directory.path().join("projections.db");
    let damage = |world: &World, sql: &str| {
        let database = derived::beside(&path(world));
        database.execute_batch(sql).unwrap();
    };
    for sql in [
        "UPDATE snapshots SET bytes = zeroblob(length(bytes))",
        "UPDATE snapshots SET bytes = CAST(bytes || x'00' AS BLOB) WHERE organization = zeroblob(16)",
        "DELETE FROM snapshots WHERE organization <> zeroblob(16)",
        "UPDATE manifest SET bytes = substr(bytes, 1, length(bytes) - 1)",
        "UPDATE manifest SET bytes = zeroblob(length(bytes))",
        "DELETE FROM fingerprints",
        "UPDATE fingerprints SET bytes = CAST(bytes || zeroblob(8) AS BLOB)",
        "DROP TABLE snapshots",
    ] {
        let world = World::new().await;
        for number in 1..5 {
            world.give(create(number)).await.unwrap();
        }
        world.give(revoke(1)).await.unwrap();
        world.pass(KEY_MEMORY_MS);
        world.give(create(5)).await.unwrap();
        world.give(revoke(2)).await.unwrap();
        assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 1);
        damage(&world, sql);
        let world = world.restart().await;
        assert_eq!(world.replayed.snapshots, 0, "{sql}");
        assert_eq!(world.code(&text(1)).await, Code::Revoked, "{sql}");
        assert_eq!(world.code(&text(2)).await, Code::Revoked, "{sql}");
        world.assert_is_history().await;
        // And the next ones are whole again.
        assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 1, "{sql}");
        let world = world.restart().await;
        assert_eq!((world.replayed.snapshots, world.replayed.events), (2, 0), "{sql}");
    }
}

#[tokio::test]
async fn a_dead_row_that_is_not_what_was_written_is_not_believed() {
    let world = World::new().await;
    world.give(create(1)).await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.give(create(2)).await.unwrap();
    world.give(revoke(2)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.give(create(3)).await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    let database = derived::beside(&world.directory.path().join("projections.db"));
    let swap = "UPDATE dead_keys SET sealed = (SELECT sealed FROM dead_keys ORDER BY key DESC)
        WHERE key = (SELECT min(key) FROM dead_keys)";
    assert_eq!(database.execute(swap, []).unwrap(), 1);
    assert!(world.ledger.dead_key(&world.acme(), key_id(1)).await.is_err());
    assert!(world.ledger.dead_keys_after(&world.acme(), None, 9).await.is_err());
    assert!(world.ledger.key_of(&text(1), Reach::Installation).await.is_err());
    assert_eq!(world.code(&text(2)).await, Code::Revoked);
}

#[tokio::test]
async fn a_snapshot_of_another_history_is_thrown_away() {
    // Another installation's.
    let world = World::new().await;
    world.give(create(1)).await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    let (_, replayed) = open(&world.store, &world.time, Some(&world.derived), 3).await;
    assert_eq!(replayed.snapshots, 0);
    // A copy of the truth from before the snapshot was put back.
    for more in [0, 3] {
        let world = World::new().await;
        world.give(create(1)).await.unwrap();
        let copy = world.store.copied();
        world.give(revoke(1)).await.unwrap();
        world.ledger.take_snapshots().await.unwrap();
        let world = World { store: copy, ..world }.restart().await;
        assert_eq!(world.replayed.snapshots, 0);
        assert_eq!(world.code(&text(1)).await, Code::Allowed, "as history says");
        // And it went on from there, as far as the snapshot, with other events.
        for number in 0..more {
            world.give(create(10 + number)).await.unwrap();
        }
        world.assert_is_history().await;
    }
    let world = World::new().await;
    world.give(create(1)).await.unwrap();
    let copy = world.store.copied();
    world.give(revoke(1)).await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    let (other, _) = open(&copy, &world.time, None, 2).await;
    let went_on = World { ledger: other, store: copy, ..world };
    for number in 10..14 {
        went_on.give(create(number)).await.unwrap();
    }
    let world = went_on.restart().await;
    assert_eq!(world.replayed.snapshots, 0);
    assert_eq!(world.code(&text(1)).await, Code::Allowed, "as history says");
    world.assert_is_history().await;
}

/// Damage behind the snapshots is laid to whom it concerns, as in a start without them.
#[tokio::test]
async fn damage_in_the_tail_is_found() {
    let acme = StreamName::organization(ACME);
    for lose in [false, true] {
        let world = World::new().await;
        world.give(create(1)).await.unwrap();
        world.ledger.take_snapshots().await.unwrap();
        world.give(create(2)).await.unwrap();
        let executed = world.give(revoke(2)).await.unwrap();
        world.give(create(3)).await.unwrap();
        let revision = executed.revision.unwrap();
        assert!(if lose {
            world.store.lose_record(&acme, revision)
        } else {
            world.store.flip_stored_byte(&acme, revision)
        });
        let world = world.restart().await;
        assert_eq!((world.replayed.snapshots, world.replayed.stopped), (0, 1));
        // A loss is seen at the event behind it.
        let seen = if lose { revision.next() } else { revision };
        assert_eq!(world.acme().stopped().unwrap().revision, seen);
        // What is kept must not outlive what is known of the damage.
        assert!(matches!(world.ledger.take_snapshots().await, Err(RoundError::Damaged)));
    }
}

#[tokio::test]
async fn without_space_there_is_only_no_new_snapshot() {
    let world = World::new().await;
    world.give(create(1)).await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.derived.set_pages_max(1);
    for number in 0..60 {
        let mut draft = draft(number + 2, None);
        draft.description = Some("x".repeat(500).parse().unwrap());
        world.give(Command::CreateKey(Box::new(draft))).await.unwrap();
    }
    for _ in 0..2 {
        let full = world.ledger.take_snapshots().await;
        assert!(matches!(full, Err(RoundError::Save(SnapshotError::Full))), "{full:?}");
        assert_eq!(world.acme().departed_count(), 1, "nothing was let go of");
        assert_eq!(world.code(&text(1)).await, Code::Revoked);
    }
    world.derived.set_pages_max(u32::MAX);
    assert_eq!(world.ledger.take_snapshots().await.unwrap().buried, 1);
    let world = world.restart().await;
    assert_eq!((world.replayed.events, world.replayed.snapshots), (0, 2));
    world.assert_is_history().await;
}

#[tokio::test]
async fn rounds_are_due_after_so_many_events() {
    let world = World::new().await;
    let keeping = tokio::spawn(Arc::clone(&world.ledger).keep_snapshots(5));
    for number in 0..50 {
        world.give(create(number)).await.unwrap();
        tokio::task::yield_now().await;
    }
    // The round is under way on another thread: whoever comes behind it finds little to do.
    while world.derived.manifest().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    keeping.abort();
    // A round that was under way ends in front of this one.
    world.ledger.take_snapshots().await.unwrap();
    let world = world.restart().await;
    assert_eq!(world.replayed.snapshots, 2);
    world.assert_is_history().await;
}

/// The secret of a dead key cannot be configured, however long it is dead.
#[tokio::test]
async fn a_configured_key_is_refused_long_after_its_end() {
    let world = World::new().await;
    let configured =
        |sha256| ConfiguredKeys { admin_key_sha256: Some(sha256), ..Default::default() };
    world.ledger.configure(&configured([1; 32])).await.unwrap();
    world.ledger.configure(&configured([2; 32])).await.unwrap();
    for _ in 0..2 {
        world.pass(KEY_MEMORY_MS + DAY_MS);
        world.ledger.configure(&ConfiguredKeys::default()).await.unwrap();
        world.ledger.take_snapshots().await.unwrap();
        let refused = world.ledger.configure(&configured([1; 32])).await.unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains("ConfiguredKeyRevoked"), "{text}");
    }
    let world = world.restart().await;
    let refused = world.ledger.configure(&configured([1; 32])).await.unwrap_err();
    assert!(format!("{refused:?}").contains("ConfiguredKeyRevoked"), "{refused:?}");
    // So it is with a key of a tenant, found by the digest alone.
    let digest = crate::ledger::mint::digest_of_sha256(&[9; 32], world.ledger.peppers());
    let key = CreateKey { prefix: None, origin: KeyOrigin::Imported, digest, ..draft(1, None) };
    let import = ImportKeys { keys: vec![ImportedKey { key, others: Vec::new() }] };
    world.give(Command::ImportKeys(import)).await.unwrap();
    world.give(revoke(1)).await.unwrap();
    world.pass(KEY_MEMORY_MS);
    world.give(create(2)).await.unwrap();
    for _ in 0..2 {
        let refused = world.ledger.configure(&configured([9; 32])).await.unwrap_err();
        assert!(format!("{refused:?}").contains("SecretInUse"), "{refused:?}");
        world.ledger.take_snapshots().await.unwrap();
    }
}

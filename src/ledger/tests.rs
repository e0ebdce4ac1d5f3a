//! The pipeline under every fault that a store can have, and the start over what it left.

mod break_glass;
mod recording;

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::corrupt::Fault;
use projections::digest::SecretDigest;
use projections::event::{DigestForm, KeyOrigin, KeyedDigest, RevocationReason};
use projections::id::KeyId;
use projections::permission::{Permission, Scopes};
use projections::presented::Presented;
use projections::recorded::StreamName;
use projections::verification::{Code, Question, Wanted};
use tokio::task::JoinHandle;

use super::*;
use crate::ledger::clock::ManualTime;
use crate::ledger::command::{
    Caller, Command, CreateKey, Expiry, OrganizationDraft, Personal, RevokeKey,
};
use crate::ledger::start::{ConfiguredKeys, Parts, StartError};
use crate::ledger::vault::VaultError;
use crate::ledger::vault::peppers::PepperId;
use crate::ledger::verify::{Answer, Reach};
use crate::store::memory::{AppendFault, MemoryStore};
use crate::vault::memory::MemoryVault;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

struct World {
    ledger: Arc<Ledger>,
    store: MemoryStore,
    time: Arc<ManualTime>,
}

async fn open(
    store: &MemoryStore,
    time: &Arc<ManualTime>,
    pepper: u8,
) -> Result<Arc<Ledger>, StartError> {
    open_with(store, time, pepper, &Arc::default()).await
}

async fn open_with(
    store: &MemoryStore,
    time: &Arc<ManualTime>,
    pepper: u8,
    vault: &Arc<MemoryVault>,
) -> Result<Arc<Ledger>, StartError> {
    let parts = Parts {
        store: Arc::new(store.clone()),
        vault: Arc::clone(vault) as _,
        clock: Clock::manual(Arc::clone(time)),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [pepper; 32].into()),
        lookup_key: [2; 32].into(),
    };
    Ok(Ledger::open(parts).await?.0)
}

impl World {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let ledger = open(&store, &time, 1).await.unwrap();
        ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
        let draft = OrganizationDraft {
            organization_id: ACME,
            name: "Acme".parse().unwrap(),
            key_prefix: "vtx".parse().unwrap(),
            plan: "paid".parse().unwrap(),
            personal_of: None,
        };
        let registered = order(Command::RegisterOrganization(draft.clone()));
        ledger.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
        ledger.execute(ACME, &order(Command::CreateOrganization(draft))).await.unwrap();
        Self { ledger, store, time }
    }

    /// Gives a command on a task of its own, and returns once it has been decided.
    async fn start(&self, command: Command) -> JoinHandle<Result<Executed, LedgerError>> {
        let ledger = Arc::clone(&self.ledger);
        let task = tokio::spawn(async move { ledger.execute(ACME, &order(command)).await });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        task
    }

    fn revision(&self) -> Option<u64> {
        let organization = self.ledger.tables().organization(ACME).unwrap();
        let revision = organization.tables().revision();
        revision.map(|it| it.0)
    }

    fn code(&self, number: u8) -> Result<Code, OrganizationId> {
        code(&self.ledger, number)
    }

    /// What another ledger, opened on the same store, comes to.
    async fn reopened(&self) -> Arc<Ledger> {
        open(&self.store, &self.time, 1).await.unwrap()
    }

    /// The tables are those that a replay of the store gives.
    async fn assert_replays(&self) {
        let again = self.reopened().await;
        for organization in self.ledger.tables().all() {
            let replayed = again.tables().organization(organization.id).unwrap();
            assert_eq!(**replayed.tables(), **organization.tables());
        }
    }
}

/// The text of a key; the ledger knows its digest only.
fn text(number: u8) -> String {
    let mut text = format!("vtx_live_{}", char::from(b'a' + number % 26).to_string().repeat(36));
    projections::api_key::push_checksum(&mut text);
    text
}

fn code(ledger: &Ledger, number: u8) -> Result<Code, OrganizationId> {
    let question = Question {
        tenant: None,
        permissions: Wanted::One(Permission::constant("dns", "read")),
        service: None,
        environment: None,
        client_ip: None,
        domain: None,
        now: ledger.clock().now(),
    };
    let text = text(number);
    let mut presented = Presented::default();
    presented.bearer(&text);
    ledger.verify(presented, &question, Reach::Installation, |answer| match answer {
        Answer::Decided(decision) | Answer::RateLimited { decision, .. } => Ok(decision.code),
        Answer::Refused(code) => Ok(code),
        Answer::Unavailable(id) => Err(id),
        Answer::Elsewhere(_) | Answer::Emergency(_) => panic!("nothing is kept elsewhere"),
    })
}

fn order(command: Command) -> Order {
    Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal([("origin_ip".to_owned(), "192.0.2.1".to_owned())].into()),
        about: None,
    }
}

fn create(number: u8) -> Command {
    let peppers = Peppers::new(PepperId::FIRST, [1; 32].into());
    Command::CreateKey(Box::new(CreateKey {
        key_id: KeyId::from_bytes([number; 16]),
        name: format!("key {number}").parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().unwrap()),
        environment: None,
        hint: None,
        digest: mint::digest(&text(number), &peppers),
        scopes: Some(Scopes::new(&["dns:read"]).unwrap()),
        roles: Vec::new(),
        services: None,
        expiry: Expiry::PlanDefault,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
    }))
}

fn revoke(number: u8) -> Command {
    Command::RevokeKey(RevokeKey {
        key_id: KeyId::from_bytes([number; 16]),
        reason: RevocationReason::KeyCompromise,
    })
}

fn acme_stream() -> StreamName {
    StreamName::organization(ACME)
}

#[tokio::test]
async fn what_is_answered_is_durable_and_what_is_read_is_committed() {
    let world = World::new().await;
    world.store.hold_appends();
    let first = world.start(create(1)).await;
    let second = world.start(create(2)).await;
    assert_eq!(world.store.held_appends(), 2, "the second did not wait for the first");
    assert!(
        !first.is_finished() && !second.is_finished(),
        "nothing is answered before it is durable"
    );
    assert_eq!(
        (world.revision(), world.code(1)),
        (Some(0), Ok(Code::Unknown)),
        "readers see committed only"
    );
    assert!(world.store.release_append());
    let executed = first.await.unwrap().unwrap();
    assert_eq!(executed.revision, Some(Revision(1)));
    assert_eq!((world.revision(), world.code(1)), (Some(1), Ok(Code::Allowed)));
    assert_eq!(world.code(2), Ok(Code::Unknown));
    world.store.release_appends();
    assert_eq!(second.await.unwrap().unwrap().revision, Some(Revision(2)));
    world.assert_replays().await;
}

#[tokio::test]
async fn a_command_is_decided_on_the_events_in_flight() {
    let world = World::new().await;
    world.store.hold_appends();
    let made = world.start(create(1)).await;
    let revoked = world.start(revoke(1)).await;
    let again = world.start(revoke(1)).await;
    assert_eq!(world.store.held_appends(), 2, "the third is refused on what is in flight");
    assert!(!again.is_finished(), "a rejection waits for what it relies on, too");
    world.store.release_appends();
    made.await.unwrap().unwrap();
    revoked.await.unwrap().unwrap();
    let rejection = Rejection::KeyAlreadyRevoked(KeyId::from_bytes([1; 16]));
    assert!(matches!(again.await.unwrap(), Err(LedgerError::Rejected(it)) if it == rejection));
    assert_eq!(world.code(1), Ok(Code::Revoked));
    world.assert_replays().await;
}

#[tokio::test]
async fn a_failed_append_takes_back_what_was_decided_behind_it() {
    for fault in [AppendFault::RefuseAppend, AppendFault::RefuseFull, AppendFault::DropAppend] {
        let world = World::new().await;
        world.store.hold_appends();
        world.store.inject(fault, 1);
        let made = world.start(create(1)).await;
        let revoked = world.start(revoke(1)).await;
        let other = world.start(create(2)).await;
        world.store.release_appends();
        let error = made.await.unwrap().unwrap_err();
        let full = matches!(error, LedgerError::Append(AppendError::Full));
        assert_eq!(full, fault == AppendFault::RefuseFull, "{error:?}");
        // There is no key 1 now, so the revocation is decided anew, and refused.
        let rejection = Rejection::KeyNotFound(KeyId::from_bytes([1; 16]));
        assert!(
            matches!(revoked.await.unwrap(), Err(LedgerError::Rejected(it)) if it == rejection),
            "{fault:?}"
        );
        assert_eq!(other.await.unwrap().unwrap().revision, Some(Revision(1)), "{fault:?}");
        assert_eq!((world.code(1), world.code(2)), (Ok(Code::Unknown), Ok(Code::Allowed)));
        world.assert_replays().await;
    }
}

#[tokio::test]
async fn what_may_have_been_written_is_not_decided_anew() {
    let world = World::new().await;
    world.store.hold_appends();
    // As where they were sent together, and may yet come.
    world.store.inject(AppendFault::DropAppend, 2);
    let first = world.start(create(1)).await;
    let second = world.start(create(2)).await;
    let third = world.start(create(3)).await;
    world.store.release_appends();
    for unknown in [first, second] {
        let error = unknown.await.unwrap().unwrap_err();
        assert!(matches!(error, LedgerError::Append(AppendError::Unknown(_))), "{error:?}");
    }
    // The third's own append was refused: that is certain.
    third.await.unwrap().unwrap();
    let codes = [1, 2, 3].map(|number| world.code(number).unwrap());
    assert_eq!(codes, [Code::Unknown, Code::Unknown, Code::Allowed]);
    world.assert_replays().await;
}

#[tokio::test]
async fn what_ends_access_is_not_held_up_by_what_a_full_store_refuses() {
    let world = World::new().await;
    world.start(create(1)).await.await.unwrap().unwrap();
    world.store.set_full(true);
    world.store.hold_appends();
    let mut refused = Vec::new();
    for number in 2..10 {
        refused.push(world.start(create(number)).await);
    }
    let revoked = world.start(revoke(1)).await;
    assert_eq!(world.store.held_appends(), 1, "what will be refused took a place in front");
    world.store.release_appends();
    revoked.await.unwrap().unwrap();
    assert_eq!(world.code(1), Ok(Code::Revoked));
    for refused in refused {
        let error = refused.await.unwrap().unwrap_err();
        assert!(matches!(error, LedgerError::Append(AppendError::Full)), "{error:?}");
    }
    world.store.set_full(false);
    world.start(create(2)).await.await.unwrap().unwrap();
    world.assert_replays().await;
}

/// The vault, full for these, and for what is less urgent, at the first command of a month.
async fn vault_is_full(for_whom: Urgency) -> [Result<Executed, LedgerError>; 2] {
    let World { store, time, ledger } = World::new().await;
    ledger.execute(ACME, &order(create(1))).await.unwrap();
    let vault = Arc::new(MemoryVault::new());
    let ledger = open_with(&store, &time, 1, &vault).await.unwrap();
    vault.set_full(Some(for_whom));
    let with_comment = |command| {
        let personal = [(Personal::COMMENT.to_owned(), "why".to_owned())];
        Order { personal: Personal(personal.into()), ..order(command) }
    };
    let made = ledger.execute(ACME, &with_comment(create(2))).await;
    let revoked = ledger.execute(ACME, &with_comment(revoke(1))).await;
    assert_eq!(code(&ledger, 1), Ok(Code::Revoked));
    let last = store.read_stream(&StreamName::organization(ACME), Revision(2), 1).await.unwrap();
    let sealed = Envelope::decode(&last[0].stored).unwrap().sealed.len();
    assert_eq!(sealed, usize::from(for_whom == Urgency::Normal));
    [made, revoked]
}

#[tokio::test]
async fn what_ends_access_does_not_wait_for_the_vault() {
    for for_whom in [Urgency::Normal, Urgency::Reserved] {
        let [made, revoked] = vault_is_full(for_whom).await;
        let error = made.unwrap_err();
        assert!(matches!(error, LedgerError::Vault(VaultError::Full)), "{error:?}");
        revoked.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_decided_until_every_outcome_is_known() {
    let world = World::new().await;
    world.store.hold_appends();
    world.store.inject(AppendFault::RefuseAppend, 1);
    let failing = world.start(create(1)).await;
    let behind = world.start(create(2)).await;
    assert!(world.store.release_append());
    failing.await.unwrap().unwrap_err();
    // Its follower is still at the store: who knows what it will come to.
    let late = world.start(create(3)).await;
    assert_eq!(world.store.held_appends(), 1, "decided on what may never be");
    // Once that is known, whoever waited goes on.
    assert!(world.store.release_append());
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.store.held_appends(), 2, "the pipeline flows again");
    world.store.release_appends();
    behind.await.unwrap().unwrap();
    late.await.unwrap().unwrap();
    assert_eq!(world.revision(), Some(2));
    world.assert_replays().await;
}

#[tokio::test]
async fn an_append_whose_acknowledgement_was_lost_is_found_again() {
    let world = World::new().await;
    world.store.hold_appends();
    world.store.inject(AppendFault::LoseAppendAck, 1);
    let made = world.start(create(1)).await;
    let revoked = world.start(revoke(1)).await;
    world.store.release_appends();
    assert_eq!(made.await.unwrap().unwrap().revision, Some(Revision(1)));
    assert_eq!(revoked.await.unwrap().unwrap().revision, Some(Revision(2)));
    assert_eq!(world.code(1), Ok(Code::Revoked));
    world.assert_replays().await;
}

#[tokio::test]
async fn another_writers_events_are_read_and_the_command_decided_anew() {
    let world = World::new().await;
    let other = world.reopened().await;
    other.execute(ACME, &order(create(1))).await.unwrap();
    let executed = world.ledger.execute(ACME, &order(create(2))).await.unwrap();
    assert_eq!(executed.revision, Some(Revision(2)));
    world.ledger.execute(ACME, &order(revoke(1))).await.unwrap();
    assert_eq!(world.code(1), Ok(Code::Revoked));
    world.assert_replays().await;
}

#[tokio::test]
async fn what_another_writes_is_noticed() {
    let world = World::new().await;
    let other = world.reopened().await;
    let mut after = world.ledger.look_for_others(None).await;
    other.execute(ACME, &order(create(1))).await.unwrap();
    after = world.ledger.look_for_others(after).await;
    assert_eq!(world.code(1), Ok(Code::Allowed));
    other.execute(ACME, &order(revoke(1))).await.unwrap();
    // One's own events are none of another's, on their way or landed.
    world.store.hold_appends();
    let mine = world.start(create(2)).await;
    let seen = world.ledger.look_for_others(after).await;
    assert_eq!(world.code(1), Ok(Code::Allowed), "something is on its way: that will tell");
    world.store.release_appends();
    mine.await.unwrap().unwrap();
    assert_eq!((world.code(1), world.code(2)), (Ok(Code::Revoked), Ok(Code::Allowed)));
    let again = world.ledger.look_for_others(seen).await;
    assert!(again > seen, "it reads its own");
    // A whole organization.
    let beta = OrganizationDraft {
        organization_id: OrganizationId::from_bytes([8; 16]),
        name: "Beta".parse().unwrap(),
        key_prefix: "bta".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    };
    let other = world.reopened().await;
    let registered = order(Command::RegisterOrganization(beta.clone()));
    other.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
    let id = beta.organization_id;
    other.execute(id, &order(Command::CreateOrganization(beta))).await.unwrap();
    other.execute(id, &order(create(3))).await.unwrap();
    let again = world.ledger.look_for_others(again).await;
    assert!(world.ledger.tables().organization(id).unwrap().tables().profile().is_some());
    world.ledger.execute(id, &order(revoke(3))).await.unwrap();
    world.assert_replays().await;
    // Damage that was done meanwhile stops its organization, and no other.
    other.execute(ACME, &order(create(4))).await.unwrap();
    assert!(world.store.flip_stored_byte(&StreamName::organization(ACME), Revision(4)));
    world.ledger.look_for_others(again).await;
    let stopped = |id| world.ledger.tables().organization(id).unwrap().stopped().is_some();
    assert!(stopped(ACME) && !stopped(id));
}

#[tokio::test]
async fn a_fenced_store_refuses_writes_and_verification_goes_on() {
    let world = World::new().await;
    world.ledger.execute(ACME, &order(create(1))).await.unwrap();
    world.store.inject(AppendFault::FenceStore, 1);
    for _ in 0..2 {
        let error = world.ledger.execute(ACME, &order(revoke(1))).await.unwrap_err();
        assert!(matches!(error, LedgerError::Append(AppendError::Fenced(_))), "{error:?}");
        assert_eq!(world.code(1), Ok(Code::Allowed));
    }
}

#[tokio::test]
async fn whoever_leaves_early_undoes_nothing() {
    let world = World::new().await;
    world.store.hold_appends();
    let made = world.start(create(1)).await;
    made.abort();
    assert!(made.await.unwrap_err().is_cancelled());
    world.store.release_appends();
    world.ledger.tables().reached(ACME, Revision(1)).await;
    assert_eq!(world.code(1), Ok(Code::Allowed));
    world.ledger.execute(ACME, &order(revoke(1))).await.unwrap();
    world.assert_replays().await;
}

#[tokio::test]
async fn time_never_runs_back_in_a_stream_and_a_leaping_clock_stops_writes() {
    let world = World::new().await;
    let head = |world: &World| {
        world.ledger.tables().organization(ACME).unwrap().tables().head().unwrap().at
    };
    let before = head(&world);
    world.time.set_wall(before.saturating_add_millis(-3_600_000));
    world.ledger.execute(ACME, &order(create(1))).await.unwrap();
    assert_eq!(head(&world), before, "the later of the two counts");
    world.time.set_wall(before.saturating_add_millis(61_000));
    let error = world.ledger.execute(ACME, &order(create(2))).await.unwrap_err();
    assert!(matches!(error, LedgerError::ClockAhead(_)), "{error:?}");
    assert_eq!(world.code(1), Ok(Code::Allowed), "verification goes on");
    world.ledger.clock().confirm();
    world.ledger.execute(ACME, &order(create(2))).await.unwrap();
    assert_eq!(head(&world), before.saturating_add_millis(61_000));
    world.assert_replays().await;
}

/// What ended by time alone stays ended, for whoever asks and for whoever commands: the
/// clock of the running ledger goes on, and after a restart history says how late it was.
#[tokio::test]
async fn a_clock_that_is_set_back_revives_no_key() {
    const HOUR_MS: i64 = 3_600_000;
    let world = World::new().await;
    let Command::CreateKey(mut command) = create(1) else { unreachable!() };
    command.expiry = Expiry::After(HOUR_MS);
    world.ledger.execute(ACME, &order(Command::CreateKey(command))).await.unwrap();
    let before = world.ledger.clock().now();
    world.time.advance_ms(HOUR_MS - 1);
    world.time.set_wall(before);
    assert_eq!(world.code(1), Ok(Code::Allowed));
    world.time.advance_ms(1);
    assert_eq!(world.code(1), Ok(Code::Expired), "time has gone on");
    // Something is written; then a restart, or an operator, believes the clock.
    world.ledger.execute(ACME, &order(create(2))).await.unwrap();
    let again = world.reopened().await;
    assert_eq!(again.clock().now(), before.saturating_add_millis(1));
    assert_eq!((code(&again, 1), code(&again, 2)), (Ok(Code::Expired), Ok(Code::Allowed)));
    let id = KeyId::from_bytes([1; 16]);
    for command in [Command::DisableKey(id), Command::EnableKey(id)] {
        let error = again.execute(ACME, &order(command)).await.unwrap_err();
        let refused = matches!(
            error,
            LedgerError::Rejected(Rejection::KeyIsExpired(_) | Rejection::KeyNotDisabled(_))
        );
        assert!(refused, "{error:?}");
    }
    // The operator's stream counts for all organizations.
    let Command::CreateKey(mut command) = create(3) else { unreachable!() };
    command.expiry = Expiry::After(HOUR_MS);
    again.execute(ACME, &order(Command::CreateKey(command))).await.unwrap();
    assert_eq!(code(&again, 3), Ok(Code::Allowed));
    world.time.advance_ms(3 * HOUR_MS);
    again.execute(OrganizationId::OPERATOR, &order(create(4))).await.unwrap();
    world.time.set_wall(before);
    again.clock().confirm();
    assert_eq!(code(&again, 3), Ok(Code::Expired));
}

#[tokio::test]
async fn a_wait_ends_when_its_revision_is_there() {
    let world = World::new().await;
    let ledger = Arc::clone(&world.ledger);
    let waiting = tokio::spawn(async move { ledger.tables().reached(ACME, Revision(2)).await });
    world.ledger.execute(ACME, &order(create(1))).await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    world.ledger.execute(ACME, &order(create(2))).await.unwrap();
    waiting.await.unwrap();
}

#[tokio::test]
async fn corrupt_history_stops_its_organization_alone() {
    for damage in [MemoryStore::flip_stored_byte, MemoryStore::flip_leaf_hash] {
        let world = World::new().await;
        let beta = OrganizationDraft {
            organization_id: OrganizationId::from_bytes([8; 16]),
            name: "Beta".parse().unwrap(),
            key_prefix: "beta".parse().unwrap(),
            plan: "paid".parse().unwrap(),
            personal_of: None,
        };
        let registered = order(Command::RegisterOrganization(beta.clone()));
        world.ledger.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
        world
            .ledger
            .execute(beta.organization_id, &order(Command::CreateOrganization(beta.clone())))
            .await
            .unwrap();
        for number in [1, 2, 3] {
            world.ledger.execute(ACME, &order(create(number))).await.unwrap();
        }
        world.ledger.execute(beta.organization_id, &order(create(4))).await.unwrap();
        assert!(damage(&world.store, &acme_stream(), Revision(2)));
        let again = world.reopened().await;
        // Before the damage, at it and behind it: nothing is answered for that organization.
        for number in [1, 2, 3] {
            assert_eq!(code(&again, number), Err(ACME));
        }
        let error = again.execute(ACME, &order(create(5))).await.unwrap_err();
        assert!(matches!(error, LedgerError::Stopped { organization_id: ACME, .. }), "{error:?}");
        let acme = again.tables().organization(ACME).unwrap();
        assert_eq!(acme.stopped().unwrap().revision, Revision(2), "the place is named");
        assert_eq!(acme.tables().revision(), Some(Revision(1)), "nothing behind it is believed");
        assert_eq!(code(&again, 4), Ok(Code::Allowed), "others go on");
        again.execute(beta.organization_id, &order(create(6))).await.unwrap();
    }
}

#[tokio::test]
async fn a_corrupt_operator_stream_stops_the_installation() {
    let operator = StreamName::organization(OrganizationId::OPERATOR);
    for damage in
        [MemoryStore::flip_stored_byte, MemoryStore::flip_leaf_hash, MemoryStore::lose_record]
    {
        for revision in [0, 3] {
            let world = World::new().await;
            assert!(damage(&world.store, &operator, Revision(revision)));
            let error = open(&world.store, &world.time, 1).await.err().unwrap();
            let stops = matches!(error, StartError::OperatorCorrupt(_) | StartError::Lost(_));
            assert!(stops, "{error:?}");
        }
    }
}

/// A loss shows in its stream by the gap it leaves, and stops that stream alone; somebody's
/// last event leaves no gap, so that nobody can be believed.
#[tokio::test]
async fn a_loss_stops_whom_it_can_be_laid_to_and_otherwise_everybody() {
    for (revision, is_known) in [(0, true), (1, true), (2, false)] {
        let world = World::new().await;
        world.ledger.execute(ACME, &order(create(1))).await.unwrap();
        world.ledger.execute(ACME, &order(create(2))).await.unwrap();
        assert!(world.store.lose_record(&acme_stream(), Revision(revision)));
        match open(&world.store, &world.time, 1).await {
            Ok(again) => {
                assert!(is_known, "revision {revision}");
                assert_eq!(code(&again, 2), Err(ACME));
                let stopped = again.tables().organization(ACME).unwrap();
                let gap = Fault::Gap { expected: Revision(revision) }.at(Revision(revision + 1));
                assert_eq!(stopped.stopped(), Some(&gap));
            }
            Err(error) => {
                assert!(
                    !is_known && matches!(error, StartError::Lost(_)),
                    "revision {revision}: {error:?}"
                );
            }
        }
    }
}

/// Two streams: the end of an operator's key in one, what the key still does in the other.
#[tokio::test]
async fn nothing_done_with_an_operators_key_lands_after_its_end_is_acknowledged() {
    let world = World::new().await;
    let Command::CreateKey(mut key) = create(9) else { unreachable!() };
    key.scopes = Some(Scopes::new(&["org:admin"]).unwrap());
    let key_id = key.key_id;
    world.ledger.execute(OrganizationId::OPERATOR, &order(Command::CreateKey(key))).await.unwrap();
    let by_key = |command| Order {
        caller: Caller::Key { organization_id: OrganizationId::OPERATOR, key_id, owner: None },
        ..order(command)
    };
    world.store.hold_appends();
    let spawn = |target, order: Order| {
        let ledger = Arc::clone(&world.ledger);
        tokio::spawn(async move { ledger.execute(target, &order).await })
    };
    let settle = async || {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    };
    let end = spawn(OrganizationId::OPERATOR, order(revoke(9)));
    settle().await;
    let last = spawn(ACME, by_key(create(1)));
    settle().await;
    assert_eq!(world.store.held_appends(), 2, "the key's end is not durable when it is used");
    assert!(world.store.release_append());
    settle().await;
    assert!(!end.is_finished(), "what was decided before the key's end has not landed");
    let late = spawn(ACME, by_key(create(2)));
    settle().await;
    world.store.release_appends();
    last.await.unwrap().unwrap();
    end.await.unwrap().unwrap();
    let refused = late.await.unwrap();
    assert!(
        matches!(refused, Err(LedgerError::Rejected(Rejection::CallerNotInForce))),
        "{refused:?}"
    );
}

/// What an older version left: its installation never heard of `KeyRevoked`.
#[tokio::test]
async fn a_type_is_written_only_once_the_installation_says_so() {
    let world = World::new().await;
    let store = MemoryStore::new();
    for organization in [OrganizationId::OPERATOR, ACME] {
        let stream = StreamName::organization(organization);
        let stored = world.store.read_stream(&stream, Revision::FIRST, 100).await.unwrap();
        for (recorded, place) in stored.iter().zip(0..) {
            let mut envelope = Envelope::decode(&recorded.stored).unwrap();
            if let Event::SchemaActivated(event) = &mut envelope.event {
                event.schemas.retain(|it| it.event_type != "KeyRevoked");
            }
            let (stored, leaf_hash) = envelope.encode().unwrap();
            let event_type = envelope.event.event_type();
            let event = NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
            let expected = u64::checked_sub(place, 1).map(Revision);
            store.append(&stream, expected, vec![event], Urgency::Normal).await.unwrap();
        }
    }
    let older = open(&store, &world.time, 1).await.unwrap();
    older.execute(ACME, &order(create(1))).await.unwrap();
    let error = older.execute(ACME, &order(revoke(1))).await.unwrap_err();
    assert!(matches!(error, LedgerError::NotActivated("KeyRevoked")), "{error:?}");
    older.configure(&ConfiguredKeys::default()).await.unwrap();
    older.execute(ACME, &order(revoke(1))).await.unwrap();
}

#[tokio::test]
async fn another_pepper_is_found_out() {
    let world = World::new().await;
    let error = open(&world.store, &world.time, 9).await.err().unwrap();
    assert!(matches!(error, StartError::WrongPepper(PepperId::FIRST)), "{error:?}");
}

#[tokio::test]
async fn a_registration_that_was_cut_short_is_finished_at_the_next_start() {
    let world = World::new().await;
    let draft = OrganizationDraft {
        organization_id: OrganizationId::from_bytes([8; 16]),
        name: "Beta".parse().unwrap(),
        key_prefix: "beta".parse().unwrap(),
        plan: "free".parse().unwrap(),
        personal_of: None,
    };
    let registered = order(Command::RegisterOrganization(draft.clone()));
    world.ledger.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
    let again = world.reopened().await;
    let beta = again.tables().organization(draft.organization_id).unwrap();
    assert!(beta.tables().profile().is_none());
    again.configure(&ConfiguredKeys::default()).await.unwrap();
    assert_eq!(beta.tables().profile().unwrap().plan.as_str(), "free");
    let stored = again.event(&beta, Revision::FIRST).await.unwrap().unwrap();
    let envelope = Envelope::decode(&stored.stored).unwrap();
    let operator = again.tables().operator().tables();
    let registration =
        operator.installation().unwrap().organizations.get(&draft.organization_id).unwrap();
    assert_eq!(envelope.causation_id, Some(registration.event_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_of_one_organization_and_their_readers() {
    let world = World::new().await;
    let mut writers = Vec::new();
    for number in 0..26_u8 {
        let ledger = Arc::clone(&world.ledger);
        writers.push(tokio::spawn(async move {
            ledger.execute(ACME, &order(create(number))).await.unwrap();
            assert_eq!(code(&ledger, number), Ok(Code::Allowed), "true once it returns");
            let revoked = ledger.execute(ACME, &order(revoke(number))).await.unwrap();
            assert_eq!(code(&ledger, number), Ok(Code::Revoked), "true once it returns");
            revoked.revision.unwrap().0
        }));
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (ledger, until) = (Arc::clone(&world.ledger), Arc::clone(&stop));
    let reader = tokio::task::spawn_blocking(move || {
        let mut last = vec![Code::Unknown; 26];
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            for (number, seen) in (0..26_u8).zip(&mut last) {
                let tables = ledger.tables().organization(ACME).unwrap().tables().clone();
                let now = code(&ledger, number).unwrap();
                // The index is never behind the tables.
                if let Some(key) = tables.key(KeyId::from_bytes([number; 16])) {
                    assert!(
                        now == Code::Revoked || key.revocation().is_none() && now == Code::Allowed
                    );
                }
                let order = |it| {
                    [Code::Unknown, Code::Allowed, Code::Revoked]
                        .iter()
                        .position(|other| *other == it)
                };
                assert!(order(now) >= order(*seen), "{seen:?} then {now:?}");
                *seen = now;
            }
        }
    });
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    reader.await.unwrap();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 26);
    assert_eq!(world.revision(), Some(52));
    world.assert_replays().await;
}

/// A key whose digest was taken of a digest is found by its text.
#[tokio::test]
async fn a_key_known_by_its_sha256_digest_verifies() {
    let world = World::new().await;
    let foreign = "an-old-key-of-another-system";
    let sha256: [u8; 32] =
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(foreign)).into();
    let ask = |ledger: &Ledger, text: &str| {
        let question = Question {
            tenant: None,
            permissions: Wanted::Texts(&[]),
            service: None,
            environment: None,
            client_ip: None,
            domain: None,
            now: ledger.clock().now(),
        };
        let mut presented = Presented::default();
        presented.admin_api_key(text);
        ledger.verify(presented, &question, Reach::Installation, |answer| match answer {
            Answer::Decided(decision) | Answer::RateLimited { decision, .. } => decision.code,
            Answer::Refused(code) => code,
            Answer::Unavailable(_) | Answer::Elsewhere(_) | Answer::Emergency(_) => {
                panic!("stopped")
            }
        })
    };
    assert_eq!(ask(&world.ledger, foreign), Code::Malformed, "nothing of the kind is known");
    let Command::CreateKey(mut command) = create(1) else { unreachable!() };
    command.prefix = None;
    command.digest = mint::digest_of_sha256(&sha256, world.ledger.peppers());
    assert_eq!(command.digest.form, DigestForm::Sha256);
    world.ledger.execute(ACME, &order(Command::CreateKey(command))).await.unwrap();
    assert_eq!(ask(&world.ledger, foreign), Code::Allowed);
    assert_eq!(ask(&world.ledger, "another"), Code::Malformed);
    assert_eq!(ask(&world.ledger, &text(5)), Code::Unknown);
    // The digest itself opens nothing.
    let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ask(&world.ledger, &hex), Code::Malformed);
    let keyed = KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([0; 32]) };
    assert_ne!(mint::digest(foreign, world.ledger.peppers()), keyed);
}

#[tokio::test]
async fn a_stream_that_nobody_admitted_is_stopped() {
    let world = World::new().await;
    let first = world.store.read_stream(&acme_stream(), Revision::FIRST, 1).await.unwrap();
    let mut envelope = Envelope::decode(&first.first().unwrap().stored).unwrap();
    let id = OrganizationId::from_bytes([8; 16]);
    let Event::OrganizationCreated(created) = &mut envelope.event else { unreachable!() };
    created.organization_id = id;
    let (stored, leaf_hash) = envelope.encode().unwrap();
    let event_type = envelope.event.event_type();
    let event = NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
    world
        .store
        .append(&StreamName::organization(id), None, vec![event], Urgency::Normal)
        .await
        .unwrap();
    let again = world.reopened().await;
    assert!(again.tables().organization(id).unwrap().stopped().is_some());
    assert!(again.tables().organization(ACME).unwrap().stopped().is_none());
}

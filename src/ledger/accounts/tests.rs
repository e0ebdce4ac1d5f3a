//! Accounts under every fault that a store can have, and the start over what it left.

mod crashes;
mod personal;
mod sessions;
mod starts;

use std::path::Path;

use projections::corrupt::Fault;
use projections::envelope::{Envelope, RequestStamp};
use projections::event::PasswordCause;
use projections::id::OrganizationId;
use projections::principal::Principal;
use projections::time::Timestamp;
use tokio::task::JoinHandle;

use super::command::{AccountCommand, AccountOrder, CreateAccount, RESERVED_FOR_MS};
use super::*;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::command::{Personal, RequestStamper};
use crate::ledger::event_store::{AppendError, EventStore, READ_EVENTS_MAX};
use crate::ledger::secret::Ids;
use crate::ledger::snapshot_store::SnapshotStore;
use crate::ledger::start::{ConfiguredKeys, Parts, Replayed};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::vault::{Vault as _, VaultError};
use crate::store::derived::DerivedStore;
use crate::store::memory::{AppendFault, MemoryStore};
use crate::vault::memory::MemoryVault;

struct World {
    ledger: Arc<Ledger>,
    replayed: Replayed,
    store: MemoryStore,
    vault: Arc<MemoryVault>,
    time: Arc<ManualTime>,
    directory: tempfile::TempDir,
}

fn derived(directory: &Path) -> Arc<dyn SnapshotStore> {
    Arc::new(DerivedStore::open(&directory.join("projections.db")).unwrap())
}

async fn open(
    store: Arc<dyn EventStore>,
    vault: &Arc<MemoryVault>,
    time: &Arc<ManualTime>,
    derived: Option<Arc<dyn SnapshotStore>>,
) -> (Arc<Ledger>, Replayed) {
    let parts = Parts {
        store,
        vault: Arc::clone(vault) as _,
        clock: Clock::manual(Arc::clone(time)),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [2; 32].into(),
    };
    Ledger::open_with(parts, derived).await.unwrap()
}

fn id(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

fn draft(number: u8, email: &str) -> CreateAccount {
    CreateAccount {
        account_id: id(number),
        email: email.parse().unwrap(),
        name: "Alice".parse().unwrap(),
        has_password: true,
        default_organization: Some(OrganizationId::from_bytes([7; 16])),
        personal: false,
    }
}

fn order(request: Option<RequestStamp>) -> AccountOrder {
    AccountOrder {
        actor: Principal::Account(id(1)),
        credential: None,
        session: None,
        request,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal([("origin_ip".to_owned(), "192.0.2.1".to_owned())].into()),
    }
}

fn asked(number: u8) -> Option<RequestStamp> {
    let stamper = RequestStamper::new([2; 32].into());
    let caller = crate::ledger::command::Caller::Ledger;
    Some(stamper.stamp(caller, "CreateAccount", &format!("key {number}"), &[number]))
}

const RESET: AccountCommand =
    AccountCommand::SetPassword { cause: PasswordCause::Reset, keeps: None };
const END: AccountCommand = AccountCommand::EndSessions { keeps: None };
const ENROLL: AccountCommand = AccountCommand::EnrollTotp { recovery_codes: 10 };

const EMAIL: &str = "alice@example.com";

impl World {
    async fn new() -> Self {
        let store = MemoryStore::new();
        let vault = Arc::new(MemoryVault::new());
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let derived = derived(directory.path());
        let (ledger, replayed) = open(Arc::new(store.clone()), &vault, &time, Some(derived)).await;
        ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
        Self { ledger, replayed, store, vault, time, directory }
    }

    async fn create(&self, number: u8, email: &str) -> Result<AccountExecuted, LedgerError> {
        self.ledger.create_account(&draft(number, email), &order(None)).await
    }

    async fn change(
        &self,
        number: u8,
        command: AccountCommand,
    ) -> Result<AccountExecuted, LedgerError> {
        self.ledger.change_account(id(number), command, &order(None)).await
    }

    /// Gives a command on a task of its own, and returns once it is under way.
    async fn start(
        &self,
        number: u8,
        email: &'static str,
    ) -> JoinHandle<Result<AccountExecuted, LedgerError>> {
        let ledger = Arc::clone(&self.ledger);
        let task = tokio::spawn(async move {
            ledger.create_account(&draft(number, email), &order(None)).await
        });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        task
    }

    fn email(&self, text: &str) -> EmailDigest {
        self.ledger.email_digest(&text.parse().unwrap())
    }

    /// Whose e-mail it is.
    fn whose(&self, text: &str) -> Option<AccountId> {
        self.ledger.account_by_email(&self.email(text)).unwrap().map(|it| it.id)
    }

    fn now(&self) -> Timestamp {
        self.ledger.clock().now()
    }

    async fn events(&self, stream: &StreamName) -> Vec<Envelope> {
        let found = self.store.read_stream(stream, Revision::FIRST, READ_EVENTS_MAX).await.unwrap();
        found.iter().map(|it| Envelope::decode(&it.stored).unwrap()).collect()
    }

    async fn types(&self, stream: &StreamName) -> Vec<&'static str> {
        self.events(stream).await.iter().map(|it| it.event.event_type()).collect()
    }

    async fn email_types(&self) -> Vec<&'static str> {
        self.types(&StreamName::email(self.email(EMAIL))).await
    }

    /// Starts anew on what is there, without snapshots.
    async fn restart(self) -> Self {
        let Self { store, vault, time, directory, ledger, .. } = self;
        drop(ledger);
        let kept = derived(directory.path());
        kept.clear().unwrap();
        let (ledger, replayed) = open(Arc::new(store.clone()), &vault, &time, Some(kept)).await;
        Self { ledger, replayed, store, vault, time, directory }
    }

    /// What readers see is what a replay of all history gives, byte by byte.
    async fn assert_is_history(&self) {
        let (_, replayed) = self.ledger.rebuilt().await.unwrap();
        assert_eq!(self.ledger.accounts().differing(&replayed), []);
    }
}

fn rejected(error: LedgerError) -> AccountRejection {
    let LedgerError::Account(rejection) = error else { panic!("{error:?}") };
    rejection
}

#[tokio::test]
async fn an_account_comes_to_be_in_three_steps() {
    let world = World::new().await;
    assert_eq!(world.whose(EMAIL), None);
    let made = world.create(1, " Alice@EXAMPLE.com ").await.unwrap();
    assert_eq!((made.account_id, made.repeat), (id(1), false));
    assert_eq!((made.first, made.revision), (Some(Revision(0)), Some(Revision(2))));
    assert_eq!(world.email_types().await, ["EmailReserved", "EmailConfirmed"]);
    let stream = StreamName::account(id(1));
    assert_eq!(
        world.types(&stream).await,
        ["AccountCreated", "PasswordSet", "DefaultOrganizationSet"]
    );
    assert_eq!(world.whose(EMAIL), Some(id(1)));
    assert_eq!(world.whose("alice2@example.com"), None);
    let account = world.ledger.account(id(1)).unwrap().unwrap();
    assert_eq!(account.email(), Some(world.email(EMAIL)));
    assert_eq!(account.password_set_at(), Some(world.now()));
    assert_eq!(account.default_organization(), Some(OrganizationId::from_bytes([7; 16])));
    assert_eq!(world.ledger.account(id(2)).unwrap(), None);
    world.assert_is_history().await;
}

#[tokio::test]
async fn an_email_in_any_spelling_is_one_accounts() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    for other in [EMAIL, "ALICE@example.com", "alice@EXAMPLE.COM"] {
        let taken = rejected(world.create(2, other).await.unwrap_err());
        assert_eq!(taken, AccountRejection::EmailTaken);
    }
    assert_eq!(world.types(&StreamName::account(id(2))).await, [""; 0]);
    // Nor is one identifier two accounts'.
    let exists = rejected(world.create(1, "bob@example.com").await.unwrap_err());
    assert_eq!(exists, AccountRejection::AccountExists(id(1)));
    world.create(2, "bob@example.com").await.unwrap();
    assert_eq!((world.whose(EMAIL), world.whose("bob@example.com")), (Some(id(1)), Some(id(2))));
    world.assert_is_history().await;
}

#[tokio::test]
async fn who_asks_at_the_same_time_waits_and_one_of_them_has_it() {
    let world = World::new().await;
    world.store.hold_appends();
    let first = world.start(1, EMAIL).await;
    let second = world.start(2, EMAIL).await;
    let other = world.start(3, "bob@example.com").await;
    assert_eq!(world.store.held_appends(), 2, "the second waits for the first, nobody else does");
    assert_eq!((world.whose(EMAIL), world.ledger.account(id(1)).unwrap()), (None, None));
    world.store.release_appends();
    first.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    assert_eq!(rejected(second.await.unwrap().unwrap_err()), AccountRejection::EmailTaken);
    assert_eq!(world.whose(EMAIL), Some(id(1)));
    world.assert_is_history().await;
}

#[tokio::test]
async fn nobody_is_an_account_before_the_last_step_is_durable() {
    let world = World::new().await;
    world.store.hold_appends();
    let made = world.start(1, EMAIL).await;
    for step in 0..3 {
        assert_eq!(
            (world.whose(EMAIL), world.ledger.account(id(1)).unwrap()),
            (None, None),
            "{step}"
        );
        let found = world.ledger.change_account(id(1), END, &order(None)).await.unwrap_err();
        assert_eq!(rejected(found), AccountRejection::AccountNotFound);
        assert!(!made.is_finished() && world.store.release_append(), "{step}");
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(made.await.unwrap().unwrap().account_id, id(1));
    assert_eq!(world.whose(EMAIL), Some(id(1)));
}

#[tokio::test]
async fn the_same_request_makes_one_account() {
    let world = World::new().await;
    let ask = async |number, request| {
        world.ledger.create_account(&draft(number, EMAIL), &order(request)).await
    };
    let made = ask(1, asked(1)).await.unwrap();
    let again = ask(2, asked(1)).await.unwrap();
    assert_eq!((again.account_id, again.repeat, again.first), (id(1), true, None));
    assert!(!made.repeat);
    assert_eq!(world.types(&StreamName::account(id(2))).await, [""; 0]);
    assert_eq!(rejected(ask(2, asked(2)).await.unwrap_err()), AccountRejection::EmailTaken);
    let other = RequestStamp { content: asked(2).unwrap().content, ..asked(1).unwrap() };
    let reused = rejected(ask(2, Some(other)).await.unwrap_err());
    assert_eq!(reused, AccountRejection::IdempotencyKeyReused);
    // A change is made once, too.
    let reset = async |request| world.ledger.change_account(id(1), RESET, &order(request)).await;
    let first = reset(asked(3)).await.unwrap();
    let again = reset(asked(3)).await.unwrap();
    assert_eq!((first.first, again.revision, again.repeat), (Some(Revision(3)), first.first, true));
    assert_eq!(world.ledger.account(id(1)).unwrap().unwrap().epoch(), 2);
    world.assert_is_history().await;
}

#[tokio::test]
async fn every_command_changes_its_account_alone() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    world.create(2, "bob@example.com").await.unwrap();
    let bob = world.ledger.account(id(2)).unwrap().unwrap();
    let until = world.now().saturating_add_millis(60_000);
    let organization = OrganizationId::from_bytes([8; 16]);
    for command in [
        ENROLL,
        AccountCommand::UseRecoveryCode,
        AccountCommand::Lock { until },
        AccountCommand::SetDefaultOrganization(organization),
        END,
    ] {
        world.change(1, command).await.unwrap();
    }
    let alice = world.ledger.account(id(1)).unwrap().unwrap();
    assert!(alice.has_totp() && alice.is_locked(world.now()));
    assert_eq!((alice.recovery_codes(), alice.epoch()), (9, 2));
    assert_eq!(alice.default_organization(), Some(organization));
    for command in [RESET, AccountCommand::ReplaceRecoveryCodes { codes: 3 }] {
        world.change(1, command).await.unwrap();
    }
    let alice = world.ledger.account(id(1)).unwrap().unwrap();
    assert!(!alice.is_locked(world.now()));
    assert_eq!(alice.recovery_codes(), 3);
    world.change(1, AccountCommand::RemoveTotp).await.unwrap();
    let none = rejected(world.change(1, AccountCommand::UseRecoveryCode).await.unwrap_err());
    assert_eq!(none, AccountRejection::NoRecoveryCodes);
    assert_eq!(world.ledger.account(id(2)).unwrap().unwrap(), bob);
    world.assert_is_history().await;
}

#[tokio::test]
async fn the_person_is_sealed_under_the_accounts_own_key() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    world.change(1, END).await.unwrap();
    for stream in [StreamName::account(id(1)), StreamName::email(world.email(EMAIL))] {
        let stored = world.store.read_stream(&stream, Revision::FIRST, 9).await.unwrap();
        for event in stored {
            let text = String::from_utf8_lossy(&event.stored).into_owned();
            for clear in ["alice", "Alice", "example.com", "192.0.2.1"] {
                assert!(!text.contains(clear), "{text}");
            }
        }
    }
    let subjects: Vec<_> = world
        .events(&StreamName::account(id(1)))
        .await
        .iter()
        .map(|it| it.sealed.iter().map(|it| it.subject.to_string()).collect::<Vec<_>>())
        .collect();
    let own = vec![id(1).to_string()];
    assert_eq!(subjects, [own.clone(), vec![], vec![], own]);
    let person = world.ledger.account_person(id(1)).await.unwrap().unwrap();
    assert_eq!(person[command::EMAIL], EMAIL);
    assert_eq!(person[command::NAME], "Alice");
    assert_eq!(person["origin_ip"], "192.0.2.1");
    assert!(world.ledger.account_person(id(2)).await.unwrap().is_none());
    // Erased, the person is gone, and the account goes on.
    let subject = projections::sealed::Subject::account(id(1));
    assert!(world.vault.erase_subject(&subject).await.unwrap());
    let erased = world.ledger.account_person(id(1)).await.unwrap_err();
    assert!(matches!(erased, PersonError::Open(OpenError::Erased)), "{erased:?}");
    assert_eq!(world.whose(EMAIL), Some(id(1)));
    // To end access is worth more than where it was asked from; all else is refused.
    world.change(1, END).await.unwrap();
    let refused = world.change(1, ENROLL).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Vault(VaultError::Erased(_))), "{refused:?}");
}

#[tokio::test]
async fn a_full_store_keeps_nobody_from_ending_sessions() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    world.store.set_full(true);
    for command in [RESET, END] {
        world.change(1, command).await.unwrap();
    }
    for command in [ENROLL, AccountCommand::Lock { until: world.now().saturating_add_millis(9) }] {
        let full = world.change(1, command).await.unwrap_err();
        assert!(matches!(full, LedgerError::Append(AppendError::Full)), "{full:?}");
    }
    let full = world.create(2, "bob@example.com").await.unwrap_err();
    assert!(matches!(full, LedgerError::Append(AppendError::Full)), "{full:?}");
    world.store.set_full(false);
    world.create(2, "bob@example.com").await.unwrap();
    // The vault may be full by itself.
    world.vault.set_full(Some(Urgency::Reserved));
    let world = world.restart().await;
    world.change(1, END).await.unwrap();
    world.assert_is_history().await;
}

#[tokio::test]
async fn a_leaping_clock_stops_writes_and_time_never_runs_back_in_a_stream() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    let now = world.now();
    world.time.set_wall(now.saturating_add_millis(10 * 60_000));
    let ahead = world.change(1, END).await.unwrap_err();
    assert!(matches!(ahead, LedgerError::ClockAhead(_)), "{ahead:?}");
    let ahead = world.create(2, "bob@example.com").await.unwrap_err();
    assert!(matches!(ahead, LedgerError::ClockAhead(_)), "{ahead:?}");
    world.ledger.clock().confirm();
    world.change(1, END).await.unwrap();
    world.time.set_wall(now);
    world.ledger.clock().confirm();
    world.change(1, END).await.unwrap();
    let events = world.events(&StreamName::account(id(1))).await;
    assert!(events.is_sorted_by_key(|it| it.at));
    world.assert_is_history().await;
}

//! Who sees which personal data, and what that costs the vault.

use std::sync::atomic::{AtomicUsize, Ordering};

use projections::envelope::Envelope;
use projections::event::{KeyRevoked, KeyStateBefore, RevocationReason};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::sealed::Sealed;
use zeroize::Zeroizing;

use super::*;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::command::Caller;
use crate::ledger::secret::Ids;
use crate::ledger::start::Parts;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten, SecretRow};
use crate::ledger::vault::seal::seal;
use crate::ledger::vault::{SubjectKey, Vault, VaultFuture};
use crate::proto::PersonalDataState as State;
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

/// Counts how often a key is asked for.
#[derive(Default)]
struct Counting {
    vault: MemoryVault,
    asked: AtomicUsize,
}

impl Vault for Counting {
    fn cached_subject_key(&self, subject: &Subject) -> Option<SubjectKey> {
        self.vault.cached_subject_key(subject)
    }
    fn obtain_subject_key(&self, subject: &Subject, urgency: Urgency) -> VaultFuture<SubjectKey> {
        self.vault.obtain_subject_key(subject, urgency)
    }
    fn existing_subject_key(&self, subject: &Subject) -> VaultFuture<SubjectKeyState> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.vault.existing_subject_key(subject)
    }
    fn existing_subject_keys(&self, subjects: &[Subject]) -> VaultFuture<Vec<SubjectKeyState>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.vault.existing_subject_keys(subjects)
    }
    fn erase_subject(&self, subject: &Subject) -> VaultFuture<bool> {
        self.vault.erase_subject(subject)
    }
    fn obtain_named_key(&self, name: &'static str) -> VaultFuture<Zeroizing<[u8; 32]>> {
        self.vault.obtain_named_key(name)
    }
    fn read_row(&self, name: &RowName) -> VaultFuture<Option<SecretRow>> {
        self.vault.read_row(name)
    }
    fn write_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> VaultFuture<RowWritten> {
        self.vault.write_row(name, expected, secret, urgency)
    }
    fn row_names(&self, after: Option<&RowName>) -> VaultFuture<Vec<RowName>> {
        self.vault.row_names(after)
    }
}

struct World {
    ledger: Arc<Ledger>,
    vault: Arc<Counting>,
}

impl World {
    async fn new() -> Self {
        let vault = Arc::new(Counting::default());
        let parts = Parts {
            store: Arc::new(MemoryStore::new()),
            vault: Arc::clone(&vault) as _,
            clock: Clock::manual(ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap())),
            ids: Ids::from_system().unwrap(),
            peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
            lookup_key: [2; 32].into(),
        };
        Self { ledger: Ledger::open(parts).await.unwrap().0, vault }
    }

    /// What this actor wrote in an event of this month, and where from.
    async fn event(&self, number: u128, actor: OrganizationId, month: &str) -> Envelope {
        let subject: Subject = format!("{ACME}/{month}").parse().unwrap();
        let id = EventId::from_parts(1_790_000_000_000, number);
        let data = [("comment", "gone"), ("origin_ip", "192.0.2.1"), ("user_agent", "curl")];
        let data = data.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let key = self.vault.obtain_subject_key(&subject, Urgency::Normal).await.unwrap();
        let (reason, before) = (RevocationReason::Unspecified, KeyStateBefore::Active);
        Envelope {
            id,
            at: "2026-11-22T10:00:00.000Z".parse().unwrap(),
            actor: Principal::Organization(actor),
            credential: None,
            request: None,
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            event: KeyRevoked { key_id: KeyId::from_bytes([1; 16]), reason, before }.into(),
            sealed: vec![seal(&key, id, &subject, &data).unwrap()],
        }
    }

    /// A page's view of personal data, for a reader of this organization.
    fn page(&self, organization_id: OrganizationId) -> PersonalData<'_> {
        let caller =
            Caller::Key { organization_id, key_id: KeyId::from_bytes([2; 16]), owner: None };
        PersonalData::new(&self.ledger, &Authenticated { organization_id, caller, tenant: None })
    }
}

fn shown(data: &proto::ActivityPersonalData) -> (&str, &str, &str, State) {
    (&data.comment, &data.origin_ip, &data.user_agent, data.state())
}

#[tokio::test]
async fn a_page_asks_the_vault_once_for_each_month() {
    let world = World::new().await;
    let mut page = world.page(ACME);
    for number in 0..30 {
        let month = ["2026-09", "2026-10", "2026-11"][number % 3];
        let event = world.event(number as u128, ACME, month).await;
        let data = page.of(&event).await.unwrap().unwrap();
        assert_eq!(shown(&data), ("gone", "192.0.2.1", "curl", State::Shown));
    }
    assert_eq!(world.vault.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn where_the_operators_staff_sits_is_shown_to_operators_alone() {
    let world = World::new().await;
    let operator = OrganizationId::OPERATOR;
    let event = world.event(1, operator, "2026-11").await;
    let data = world.page(operator).of(&event).await.unwrap().unwrap();
    assert_eq!(shown(&data), ("gone", "192.0.2.1", "curl", State::Shown));
    let data = world.page(ACME).of(&event).await.unwrap().unwrap();
    assert_eq!(shown(&data), ("gone", "", "", State::OriginWithheld));
}

#[tokio::test]
async fn what_is_erased_is_said_to_be_and_damage_hides_nothing_else() {
    let world = World::new().await;
    let event = world.event(1, ACME, "2026-11").await;
    let moved = Envelope { id: EventId::from_bytes([3; 16]), ..event.clone() };
    let data = world.page(ACME).of(&moved).await.unwrap().unwrap();
    assert_eq!(shown(&data), ("", "", "", State::Unreadable));
    let [sealed] = event.sealed.as_slice() else { panic!() };
    assert!(world.vault.erase_subject(&sealed.subject).await.unwrap());
    let data = world.page(ACME).of(&event).await.unwrap().unwrap();
    assert_eq!(shown(&data), ("", "", "", State::Erased));
    let never: Vec<Sealed> = Vec::new();
    let nothing = Envelope { sealed: never, ..event };
    assert!(world.page(ACME).of(&nothing).await.unwrap().is_none());
}

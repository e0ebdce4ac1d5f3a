//! Personal organizations: one of its own for each account that was made while the
//! installation gave them.
//!
//! That an account is to have one stands in the first event of its stream, with the
//! identifier: so it is decided once, whatever the configuration says later. The rest is made
//! up from that, step by step, by whoever comes first: registered with the operator, begun,
//! and its owner seated in it. INVARIANT: all identifiers follow from the account's, so
//! however often this is tried, and by however many at once, one organization comes of it.

use std::sync::Arc;

use projections::account::Account;
use projections::id::{AccountId, GrantId, OrganizationId, UserId};
use projections::sealed::Subject;
use projections::text::{KeyPrefix, PlanName};
use projections::user::Identity;

use super::command::{EMAIL, NAME};
use super::{Accounts, PersonError};
use crate::ledger::command::{About, Command, Order, OrganizationDraft, Personal, SeatOwner};
use crate::ledger::rejection::Rejection;
use crate::ledger::vault::seal::OpenError;
use crate::ledger::{Ledger, LedgerError, built_in};

/// Most key prefixes that are tried for one organization.
const PREFIXES_MAX: u8 = 16;
/// What the key prefix of a personal organization begins with.
const PREFIX_HEAD: char = 'p';
/// How many characters follow.
const PREFIX_CHARS: usize = 9;

/// Whether new accounts have organizations of their own, and on which plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonalTerms {
    /// Whether accounts that are made from now on have one.
    pub for_new_accounts: bool,
    /// The plan that it is on.
    pub plan: PlanName,
}

impl Default for PersonalTerms {
    fn default() -> Self {
        Self { for_new_accounts: false, plan: built_in::default_plan() }
    }
}

/// The personal organization of an account, there or not.
#[must_use]
pub fn organization_of(account: AccountId) -> OrganizationId {
    OrganizationId::from_bytes(derived("keyledger/personal/1/organization", account))
}

/// Who the holder of an account is in their personal organization.
#[must_use]
pub fn owner_of(account: AccountId) -> UserId {
    UserId::from_bytes(derived("keyledger/personal/1/user", account))
}

/// What the keys of a personal organization begin with: the next one to try, where others have
/// those before it.
pub(super) fn key_prefix(account: AccountId, attempt: u8) -> Option<KeyPrefix> {
    let mut hasher = blake3::Hasher::new_derive_key("keyledger/personal/1/key prefix");
    hasher.update(&account.to_bytes()).update(&[attempt]);
    let mut number =
        hasher.finalize().as_bytes().first_chunk().map(|it| u64::from_be_bytes(*it))?;
    let mut prefix = String::from(PREFIX_HEAD);
    for _ in 0..PREFIX_CHARS {
        let digit = u32::try_from(number % 36).ok()?;
        prefix.push(char::from_digit(digit, 36)?);
        number /= 36;
    }
    prefix.parse().ok()
}

/// As old as the account's identifier, and otherwise as good as random.
fn derived(what: &'static str, account: AccountId) -> [u8; 16] {
    let mut bytes = account.to_bytes();
    let digest = blake3::derive_key(what, &bytes);
    for (byte, random) in bytes.iter_mut().skip(6).zip(digest) {
        *byte = random;
    }
    bytes
}

/// Why a personal organization is not there yet.
#[derive(Debug, thiserror::Error)]
pub enum PersonalError {
    /// One of the steps to it was not carried out.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It is not said now whose it is.
    #[error(transparent)]
    Person(#[from] PersonError),
}

impl Accounts {
    /// The accounts that are to have an organization of their own. Looks at all.
    fn with_personal(&self) -> Vec<Arc<Account>> {
        let pinned = self.accounts.pin();
        let there = pinned.values().filter_map(|it| self.account(it.id).ok().flatten());
        there.filter(|it| it.personal_organization().is_some()).collect()
    }
}

impl Ledger {
    /// Makes what is missing of an account's personal organization, if it is to have one and
    /// anything is. One look where nothing is.
    ///
    /// # Errors
    ///
    /// It could not be made now. What was begun goes on with the next try.
    pub async fn complete_personal(
        self: &Arc<Self>,
        account: &Account,
    ) -> Result<(), PersonalError> {
        let Some(id) = account.personal_organization() else { return Ok(()) };
        let Some(email) = account.email() else { return Ok(()) };
        if self.has_owner(id, account.id) {
            return Ok(());
        }
        self.register_personal(id, account.id).await?;
        let user_id = owner_of(account.id);
        let command = SeatOwner {
            user_id,
            account_id: account.id,
            email,
            grant_id: GrantId::from_bytes(derived("keyledger/personal/1/grant", account.id)),
        };
        let about = self.owner_about(id, account.id).await?;
        let order = Order { about, ..self.ledgers_order(Command::SeatOwner(command)) };
        self.execute(id, &order).await?;
        Ok(())
    }

    fn has_owner(&self, id: OrganizationId, account: AccountId) -> bool {
        let organization = self.tables.organization(id);
        organization.is_some_and(|it| it.tables().user(owner_of(account)).is_some())
    }

    /// Registers the organization and begins its stream, as far as that was not done.
    async fn register_personal(
        self: &Arc<Self>,
        id: OrganizationId,
        account: AccountId,
    ) -> Result<(), LedgerError> {
        let plan = self.sign_in().map(|it| it.personal.plan.clone());
        let plan = plan.unwrap_or_else(built_in::default_plan);
        let mut outcome = Err(LedgerError::Contended);
        for attempt in 0..PREFIXES_MAX {
            let Some(key_prefix) = key_prefix(account, attempt) else { continue };
            let draft = OrganizationDraft {
                organization_id: id,
                name: built_in::personal_name(),
                key_prefix,
                plan: plan.clone(),
                personal_of: Some(account),
            };
            let command = Command::RegisterOrganization(draft);
            outcome = self.as_ledger(OrganizationId::OPERATOR, command).await;
            let taken = matches!(
                &outcome,
                Err(LedgerError::Rejected(
                    Rejection::KeyPrefixTaken(_) | Rejection::KeyPrefixReserved(_)
                ))
            );
            if !taken {
                break;
            }
        }
        outcome?;
        let operator = Arc::clone(&self.tables.operator().tables());
        let registered = operator.installation().and_then(|it| it.organizations.get(&id));
        let registration = registered.ok_or(Rejection::OrganizationNotFound)?;
        self.begin_organization(id, registration).await
    }

    /// What people know the owner by, to be sealed; nothing where it was erased.
    async fn owner_about(
        &self,
        id: OrganizationId,
        account: AccountId,
    ) -> Result<Option<About>, PersonError> {
        let person = match self.account_person(account).await {
            Ok(person) => person.unwrap_or_default(),
            Err(PersonError::Open(OpenError::Erased)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let known = [(EMAIL, Identity::EMAIL), (NAME, Identity::NAME)];
        let data = known.into_iter().filter_map(|(from, to)| {
            person.get(from).map(|text| (to.to_owned(), String::clone(text)))
        });
        let data = Personal(data.collect());
        Ok(Some(About { subject: Subject::user(id, owner_of(account)), data }))
    }

    /// Makes what a crash, or a full disk, left undone of all personal organizations.
    pub async fn finish_personal(self: &Arc<Self>) {
        for account in self.accounts.with_personal() {
            if let Err(error) = self.complete_personal(&account).await {
                tracing::warn!(%error, account = %account.id, "a personal organization cannot be made now");
            }
        }
    }
}

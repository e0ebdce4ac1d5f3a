//! Accounts: who can log in, and by which e-mail.
//!
//! An account's facts stand in a stream of its own, so that what befalls it waits for no
//! organization. One command at a time is carried out in each stream ([`change`]): it is
//! decided by pure rules ([`decide`]), appended behind the revision it was decided on, and
//! published; an append whose outcome is lost is read back. There is no pipeline: an
//! account is changed a few times a day, not a thousand times a second.
//!
//! An account comes to be in three steps, in two streams ([`create`]): its e-mail is
//! reserved, its stream is begun, the reservation is confirmed. It is an account for
//! readers once that is so, and not before: however the steps of two creations fall
//! together, an e-mail leads to one account.
//!
//! Reads take no lock that a writer holds. An account whose history proves corrupt is
//! stopped, alone: it is unavailable then, by its e-mail too, and never absent.

mod change;
pub mod command;
mod create;
mod decide;
pub mod personal;
mod rejection;
pub(in crate::ledger) mod replay;
pub(in crate::ledger) mod snapshots;
mod write;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use projections::account::Account;
use projections::corrupt::CorruptHistory;
use projections::digest::EmailDigest;
use projections::email::{Holder, Reservation};
use projections::id::{AccountId, SessionId};
use projections::organization::Head;
use projections::recorded::{Revision, StreamName};
use tokio::sync::{Notify, OwnedMutexGuard};

use super::vault::seal::{OpenError, PersonalData, open};
use super::{Ledger, LedgerError};
pub use change::{AccountExecuted, HeldAccount};
pub use rejection::AccountRejection;

/// How many locks the writers of all accounts share, and those of all e-mails.
const LOCKS: usize = 1_024;

/// A stream of accounts answers nothing any more: its history proved corrupt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream `{stream}` is stopped")]
pub struct StreamStopped {
    /// The stream.
    pub stream: StreamName,
    /// What is wrong with its history.
    pub source: CorruptHistory,
}

/// One account, as readers find it.
pub struct PublishedAccount {
    /// The account.
    pub id: AccountId,
    account: ArcSwap<Account>,
    /// Its e-mail was confirmed: it is an account for readers.
    confirmed: AtomicBool,
    stopped: OnceLock<Box<CorruptHistory>>,
}

impl PublishedAccount {
    fn new(account: Arc<Account>) -> Self {
        Self {
            id: account.id,
            account: ArcSwap::new(account),
            confirmed: AtomicBool::new(false),
            stopped: OnceLock::new(),
        }
    }

    /// The account as it is now.
    ///
    /// # Errors
    ///
    /// Its history is corrupt: nothing is known of it any more.
    pub fn account(&self) -> Result<arc_swap::Guard<Arc<Account>>, StreamStopped> {
        match self.stopped() {
            None => Ok(self.account.load()),
            Some(source) => {
                let stream = StreamName::account(self.id);
                Err(StreamStopped { stream, source: source.clone() })
            }
        }
    }

    /// Why it answers nothing any more, if its history proved corrupt.
    #[must_use]
    pub fn stopped(&self) -> Option<&CorruptHistory> {
        self.stopped.get().map(|fault| &**fault)
    }
}

/// What is known of one e-mail. Nearly all are somebody's: they are kept small.
#[derive(Clone)]
enum EmailRow {
    Confirmed { account_id: AccountId, head: Head },
    Other(Box<Reservation>),
    Stopped(Box<(Reservation, CorruptHistory)>),
}

impl EmailRow {
    fn of(reservation: Reservation) -> Self {
        match (reservation.holder(), reservation.head()) {
            (Some(Holder::Confirmed(account_id)), Some(head)) => {
                Self::Confirmed { account_id, head }
            }
            _ => Self::Other(Box::new(reservation)),
        }
    }

    fn reservation(&self, email: EmailDigest) -> Reservation {
        match self {
            Self::Confirmed { account_id, head } => {
                Reservation::confirmed_at(email, *account_id, *head)
            }
            Self::Other(reservation) => Reservation::clone(reservation),
            Self::Stopped(it) => it.0.clone(),
        }
    }

    /// The account that has it for good; none where it is free or only reserved.
    fn confirmed(&self) -> Option<AccountId> {
        match self {
            Self::Confirmed { account_id, .. } => Some(*account_id),
            Self::Other(_) => None,
            Self::Stopped(it) => it.0.confirmed(),
        }
    }

    fn stopped(&self) -> Option<&CorruptHistory> {
        match self {
            Self::Stopped(it) => Some(&it.1),
            Self::Confirmed { .. } | Self::Other(_) => None,
        }
    }
}

/// All accounts that readers find.
pub struct Accounts {
    accounts: papaya::HashMap<AccountId, Arc<PublishedAccount>>,
    emails: papaya::HashMap<EmailDigest, EmailRow>,
    stopped: AtomicU64,
    /// E-mails of accounts whose creation was cut short before its last step.
    unfinished: Mutex<Vec<EmailDigest>>,
    account_writers: Locks,
    email_writers: Locks,
    waiting: AtomicU64,
    published: Notify,
}

impl Accounts {
    /// None at all.
    #[must_use]
    pub fn new() -> Self {
        Self {
            accounts: papaya::HashMap::new(),
            emails: papaya::HashMap::new(),
            stopped: AtomicU64::new(0),
            unfinished: Mutex::default(),
            account_writers: Locks::new(),
            email_writers: Locks::new(),
            waiting: AtomicU64::new(0),
            published: Notify::new(),
        }
    }

    /// The account of this identifier, to be looked at again and again.
    ///
    /// # Errors
    ///
    /// Its history is corrupt: nobody knows whether there is such an account.
    pub fn find(&self, id: AccountId) -> Result<Option<Arc<PublishedAccount>>, StreamStopped> {
        let Some(found) = self.accounts.pin().get(&id).cloned() else { return Ok(None) };
        found.account()?;
        Ok(Some(found).filter(|it| it.confirmed.load(Ordering::Acquire)))
    }

    /// The account of this identifier as it is now.
    ///
    /// # Errors
    ///
    /// Its history is corrupt: nobody knows whether there is such an account.
    pub fn account(&self, id: AccountId) -> Result<Option<Arc<Account>>, StreamStopped> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        let account = found.account()?;
        Ok(Some(Arc::clone(&account)))
    }

    /// The account that has this e-mail.
    ///
    /// # Errors
    ///
    /// The history of the e-mail or of its account is corrupt: nobody knows whether
    /// there is such an account.
    pub fn by_email(&self, email: &EmailDigest) -> Result<Option<Arc<Account>>, StreamStopped> {
        let pinned = self.emails.pin();
        match pinned.get(email) {
            None | Some(EmailRow::Other(_)) => Ok(None),
            Some(EmailRow::Confirmed { account_id, .. }) => self.account(*account_id),
            Some(EmailRow::Stopped(it)) => {
                let stream = StreamName::email(*email);
                Err(StreamStopped { stream, source: it.1.clone() })
            }
        }
    }

    /// How many streams of accounts there are, those of accounts that never came to be
    /// included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.emails.is_empty()
    }

    /// How many streams, of accounts and of e-mails, are stopped.
    #[must_use]
    pub fn stopped_count(&self) -> u64 {
        self.stopped.load(Ordering::Acquire)
    }

    /// The streams that are stopped, and why. Looks at all.
    #[must_use]
    pub fn damaged(&self) -> Vec<(StreamName, CorruptHistory)> {
        if self.stopped_count() == 0 {
            return Vec::new();
        }
        let accounts = self.accounts.pin();
        let of_accounts = accounts
            .values()
            .filter_map(|it| Some((StreamName::account(it.id), it.stopped()?.clone())));
        let emails = self.emails.pin();
        let of_emails = emails
            .iter()
            .filter_map(|(email, it)| Some((StreamName::email(*email), it.stopped()?.clone())));
        of_accounts.chain(of_emails).collect()
    }

    /// What is known of an account, whether or not it is one for readers.
    fn known(&self, id: AccountId) -> Option<Arc<PublishedAccount>> {
        self.accounts.pin().get(&id).cloned()
    }

    /// Who has an e-mail.
    fn reservation(&self, email: EmailDigest) -> Result<Reservation, StreamStopped> {
        match self.emails.pin().get(&email) {
            None => Ok(Reservation::new(email)),
            Some(EmailRow::Stopped(it)) => {
                let stream = StreamName::email(email);
                Err(StreamStopped { stream, source: it.1.clone() })
            }
            Some(row) => Ok(row.reservation(email)),
        }
    }

    /// Publishes an account. Called by its one writer.
    fn publish(&self, account: Account) {
        self.publish_shared(Arc::new(account));
    }

    fn publish_shared(&self, account: Arc<Account>) {
        let pinned = self.accounts.pin();
        let published = pinned.get_or_insert_with(account.id, || {
            Arc::new(PublishedAccount::new(Arc::clone(&account)))
        });
        published.account.store(Arc::clone(&account));
        // Either this sees who has the e-mail, or whoever publishes that sees this.
        fence(Ordering::SeqCst);
        let has_it = account.email().is_some_and(|email| {
            let emails = self.emails.pin();
            emails.get(&email).and_then(EmailRow::confirmed) == Some(account.id)
        });
        if has_it {
            published.confirmed.store(true, Ordering::Release);
        }
        self.tell_published();
    }

    /// Publishes who has an e-mail. Called by its one writer.
    fn publish_email(&self, reservation: Reservation) {
        let email = reservation.email;
        let now = reservation.confirmed();
        let emails = self.emails.pin();
        let before = emails.insert(email, EmailRow::of(reservation)).and_then(EmailRow::confirmed);
        fence(Ordering::SeqCst);
        if let Some(account) = before.filter(|_| before != now).and_then(|id| self.known(id)) {
            account.confirmed.store(false, Ordering::Release);
        }
        let has_it = |it: &Arc<PublishedAccount>| decide::is_created(&it.account.load(), email);
        if let Some(account) = now.and_then(|id| self.known(id)).filter(has_it) {
            account.confirmed.store(true, Ordering::Release);
        }
        self.tell_published();
    }

    /// Stops an account for good: its history proved corrupt.
    pub(in crate::ledger) fn stop(&self, id: AccountId, fault: CorruptHistory) {
        tracing::error!(account = %id, %fault, "account stopped: its history is corrupt");
        let pinned = self.accounts.pin();
        let account = pinned
            .get_or_insert_with(id, || Arc::new(PublishedAccount::new(Arc::new(Account::new(id)))));
        if account.stopped.set(Box::new(fault)).is_ok() {
            self.stopped.fetch_add(1, Ordering::Release);
        }
        self.tell_published();
    }

    /// Stops an e-mail for good: its history proved corrupt.
    pub(in crate::ledger) fn stop_email(&self, email: EmailDigest, fault: CorruptHistory) {
        tracing::error!(stream = %StreamName::email(email), %fault, "e-mail stopped: its history is corrupt");
        let pinned = self.emails.pin();
        let before = pinned.get(&email).cloned();
        if before.as_ref().is_none_or(|row| row.stopped().is_none()) {
            let reservation =
                before.map_or_else(|| Reservation::new(email), |row| row.reservation(email));
            pinned.insert(email, EmailRow::Stopped(Box::new((reservation, fault))));
            self.stopped.fetch_add(1, Ordering::Release);
        }
        self.tell_published();
    }

    fn tell_published(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.published.notify_waiters();
        }
    }

    /// Waits until what was being done to an account has landed.
    ///
    /// # Errors
    ///
    /// It takes too long.
    pub(in crate::ledger) async fn settled(&self, id: AccountId) -> Result<(), LedgerError> {
        self.account_writers.lock(lock_of_account(id)).await.map(drop)
    }

    /// Waits until what is published holds these revisions.
    pub(in crate::ledger) async fn reached(
        &self,
        accounts: &[(AccountId, Revision)],
        emails: &[(EmailDigest, Revision)],
    ) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(&self.waiting);
        loop {
            let published = self.published.notified();
            let mut published = std::pin::pin!(published);
            published.as_mut().enable();
            let account = |(id, revision): &(AccountId, Revision)| {
                let there = self.known(*id).and_then(|it| it.account.load().revision());
                there >= Some(*revision)
            };
            let email = |(email, revision): &(EmailDigest, Revision)| {
                let there = self.emails.pin().get(email).map(|row| row.reservation(*email));
                there.and_then(|it| it.revision()) >= Some(*revision)
            };
            if accounts.iter().all(account) && emails.iter().all(email) {
                return;
            }
            published.await;
        }
    }

    fn unfinished(&self) -> Vec<EmailDigest> {
        std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_unfinished(&self, email: EmailDigest) {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).push(email);
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

struct Leave<'a>(&'a AtomicU64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Locks that keep the writers of one stream apart. A fixed number is shared by all
/// streams: two of them may wait for each other, and no account costs one.
///
/// INVARIANT: whoever holds the lock of an account asks for none of an e-mail.
struct Locks(Box<[Arc<tokio::sync::Mutex<()>>]>);

impl Locks {
    fn new() -> Self {
        Self((0..LOCKS).map(|_| Arc::default()).collect())
    }

    /// The lock of a stream, by bytes that are as good as random.
    async fn lock(&self, by: [u8; 2]) -> Result<OwnedMutexGuard<()>, LedgerError> {
        let place = usize::from(u16::from_le_bytes(by)) % LOCKS;
        let lock = self.0.get(place).ok_or(LedgerError::Held)?;
        tokio::time::timeout(super::HELD_MAX, Arc::clone(lock).lock_owned())
            .await
            .map_err(|_| LedgerError::Held)
    }
}

/// The end of an account's identifier, which is drawn at random.
fn lock_of_account(id: AccountId) -> [u8; 2] {
    let [.., a, b] = id.to_bytes();
    [a, b]
}

fn lock_of_email(email: EmailDigest) -> [u8; 2] {
    let [a, b, ..] = email.0;
    [a, b]
}

impl Ledger {
    /// All accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The account of this identifier as it is now; none where there is no such account.
    ///
    /// # Errors
    ///
    /// Its history is corrupt: nobody knows whether there is such an account.
    pub fn account(&self, id: AccountId) -> Result<Option<Arc<Account>>, StreamStopped> {
        self.accounts.account(id)
    }

    /// The account that has this e-mail; none where nobody does.
    ///
    /// # Errors
    ///
    /// The history of the e-mail or of its account is corrupt: nobody knows whether
    /// there is such an account.
    pub fn account_by_email(
        &self,
        email: &EmailDigest,
    ) -> Result<Option<Arc<Account>>, StreamStopped> {
        self.accounts.by_email(email)
    }

    /// Whether a session that began at this epoch of an account was not ended with the
    /// account's others since. No such account: no such session.
    ///
    /// # Errors
    ///
    /// The account's history is corrupt: nobody knows.
    pub fn session_stands(
        &self,
        account_id: AccountId,
        session: SessionId,
        epoch: u64,
    ) -> Result<bool, StreamStopped> {
        let Some(found) = self.accounts.find(account_id)? else { return Ok(false) };
        let account = found.account()?;
        Ok(account.stands(session, epoch))
    }

    /// What is known of the person whose account this is, by name ([`command::EMAIL`],
    /// [`command::NAME`] and what surrounded the creation), as it was when the account was
    /// created; none where there is no such account.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the person was erased.
    pub async fn account_person(&self, id: AccountId) -> Result<Option<PersonalData>, PersonError> {
        if self.accounts.find(id)?.is_none() {
            return Ok(None);
        }
        let first = self.store.read_stream(&StreamName::account(id), Revision::FIRST, 1).await?;
        let Some(recorded) = first.into_iter().next() else { return Ok(None) };
        let envelope = projections::envelope::Envelope::decode(&recorded.stored)
            .map_err(|fault| stopped_at(StreamName::account(id), fault.at(recorded.revision)))?;
        let mut person = PersonalData::new();
        for sealed in &envelope.sealed {
            let key = self.subject_key(&sealed.subject).await?;
            person.extend(open(&key, envelope.id, sealed)?);
        }
        Ok(Some(person))
    }
}

fn stopped_at(stream: StreamName, source: CorruptHistory) -> StreamStopped {
    StreamStopped { stream, source }
}

/// Why it is not said whose account it is.
#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    /// The account is stopped.
    #[error(transparent)]
    Stopped(#[from] StreamStopped),
    /// Its history cannot be read now.
    #[error("reading history")]
    Read(#[from] super::event_store::ReadError),
    /// The vault cannot be asked.
    #[error("vault")]
    Vault(#[from] super::vault::VaultError),
    /// The person was erased, or what was sealed is damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
}

//! One account: the fold of its stream.
//!
//! Of the person it holds no more than what stands for their e-mail; of their secrets,
//! whether there are any. EPOCH: whatever ends an account's sessions raises its epoch by
//! one, and may keep one session. A session carries the epoch at which it began, and
//! stands as long as that is the account's, or as long as it is the one that was kept. So
//! no instants of two streams are ever compared.

use crate::corrupt::{CorruptHistory, Fault};
use crate::digest::{EmailDigest, LeafHash, RequestContent, RequestId};
use crate::envelope::{Envelope, RequestStamp};
use crate::event::AccountFact;
use crate::id::{AccountId, OrganizationId, SessionId};
use crate::organization::{Head, REQUEST_MEMORY_MS};
use crate::recorded::{Recorded, Revision};
use crate::snapshot::{Canonical, FORM, Malformed, Reader, row};
use crate::time::Timestamp;

/// Most requests that an account remembers: the last ones.
pub const ACCOUNT_REQUESTS_MAX: usize = 32;

/// A request that was carried out in an account's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRequest {
    /// How it is known.
    pub id: RequestId,
    /// What it asked for.
    pub content: RequestContent,
    /// The first event it caused.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub id: AccountId,
    head: Option<Head>,
    /// None before it was created.
    email: Option<EmailDigest>,
    created_at: Timestamp,
    epoch: u64,
    kept: Option<SessionId>,
    password_set_at: Option<Timestamp>,
    totp: bool,
    recovery_codes: u8,
    locked_until: Option<Timestamp>,
    default_organization: Option<OrganizationId>,
    personal_organization: Option<OrganizationId>,
    /// In the order of their revisions.
    requests: Box<[AccountRequest]>,
}

impl Account {
    /// The account of a stream that holds nothing.
    #[must_use]
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            head: None,
            email: None,
            created_at: Timestamp::default(),
            epoch: 0,
            kept: None,
            password_set_at: None,
            totp: false,
            recovery_codes: 0,
            locked_until: None,
            default_organization: None,
            personal_organization: None,
            requests: Box::default(),
        }
    }

    /// How far the stream has been folded; none if it holds nothing.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The last revision folded.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.head.map(|head| head.revision)
    }

    /// What stands for the e-mail it is known by; none before it was created.
    #[must_use]
    pub fn email(&self) -> Option<EmailDigest> {
        self.email
    }

    /// When it was created.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// How often its sessions were ended.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The session that went on when the others were ended last; none where none did.
    #[must_use]
    pub fn kept(&self) -> Option<SessionId> {
        self.kept
    }

    /// Whether a session that began at this epoch was not ended with all others since.
    #[must_use]
    pub fn stands(&self, session: SessionId, epoch: u64) -> bool {
        self.epoch == epoch || self.kept == Some(session)
    }

    /// When its password was last set; none where it has none.
    #[must_use]
    pub fn password_set_at(&self) -> Option<Timestamp> {
        self.password_set_at
    }

    /// Whether a second factor is asked of whoever logs in.
    #[must_use]
    pub fn has_totp(&self) -> bool {
        self.totp
    }

    /// How many recovery codes are left.
    #[must_use]
    pub fn recovery_codes(&self) -> u8 {
        self.recovery_codes
    }

    /// The first instant at which somebody can log in again; none where it was not locked.
    #[must_use]
    pub fn locked_until(&self) -> Option<Timestamp> {
        self.locked_until
    }

    /// Whether nobody can log in at this instant.
    #[must_use]
    pub fn is_locked(&self, now: Timestamp) -> bool {
        self.locked_until.is_some_and(|until| self.no_earlier(now) < until)
    }

    /// Where a login leads that names no organization; none for nowhere.
    #[must_use]
    pub fn default_organization(&self) -> Option<OrganizationId> {
        self.default_organization
    }

    /// The organization of its own that it is to have, there or not; none for none.
    #[must_use]
    pub fn personal_organization(&self) -> Option<OrganizationId> {
        self.personal_organization
    }

    /// This instant, but never one before the last event.
    #[must_use]
    pub fn no_earlier(&self, now: Timestamp) -> Timestamp {
        self.head.map_or(now, |head| head.at.max(now))
    }

    /// A request carried out within the last 24 hours of the stream's time, if it is one of
    /// the last [`ACCOUNT_REQUESTS_MAX`].
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<AccountRequest> {
        self.requests.iter().find(|it| it.id == id).copied()
    }

    /// Folds in one event as the store gives it. False where it had been applied before;
    /// only the last one's hash is at hand to tell that it is the same.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<bool, CorruptHistory> {
        let envelope = Envelope::decode(&recorded.stored);
        self.apply_decoded(recorded.revision, recorded.leaf_hash, envelope)
    }

    /// As [`Account::apply`], for an event that was decoded elsewhere.
    pub fn apply_decoded(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: Result<Envelope, Fault>,
    ) -> Result<bool, CorruptHistory> {
        if !follows(self.head, revision, leaf_hash)? {
            return Ok(false);
        }
        let envelope = envelope.map_err(|fault| fault.at(revision))?;
        self.apply_next(&envelope, leaf_hash)?;
        Ok(true)
    }

    /// Folds in the event that follows the last one, already read.
    pub fn apply_next(
        &mut self,
        envelope: &Envelope,
        leaf_hash: LeafHash,
    ) -> Result<(), CorruptHistory> {
        let revision = Revision::after(self.revision());
        if self.head.is_some_and(|head| envelope.at < head.at) {
            return Err(Fault::TimeRunsBack.at(revision));
        }
        self.fold(envelope).map_err(|fault| fault.at(revision))?;
        self.head = Some(Head { revision, leaf_hash, at: envelope.at });
        self.remember(envelope.request, envelope.at, revision);
        Ok(())
    }

    fn fold(&mut self, envelope: &Envelope) -> Result<(), Fault> {
        let event_type = envelope.event.event_type();
        let misplaced = Fault::Misplaced(event_type);
        let fact = AccountFact::of(&envelope.event).ok_or(misplaced.clone())?;
        // A stream begins with what makes it; what makes it stands nowhere else.
        let begins = matches!(fact, AccountFact::AccountCreated(_));
        if fact.account_id() != self.id || begins != self.email.is_none() {
            return Err(misplaced);
        }
        let missing = Fault::MissingTarget(event_type);
        match fact {
            AccountFact::AccountCreated(it) => {
                self.email = Some(it.email);
                self.personal_organization = it.personal_organization;
                self.created_at = envelope.at;
            }
            AccountFact::PasswordSet(it) => {
                self.password_set_at = Some(envelope.at);
                self.locked_until = None;
                self.end_sessions(it.keeps);
            }
            AccountFact::TotpEnrolled(_) if self.totp => {
                return Err(Fault::DuplicateTarget(event_type));
            }
            AccountFact::TotpEnrolled(_) => self.totp = true,
            AccountFact::TotpRemoved(_) if !self.totp => return Err(missing),
            AccountFact::TotpRemoved(_) => {
                self.totp = false;
                self.recovery_codes = 0;
            }
            AccountFact::RecoveryCodesReplaced(_) if !self.totp => return Err(missing),
            AccountFact::RecoveryCodesReplaced(it) => self.recovery_codes = it.codes,
            AccountFact::RecoveryCodeUsed(it) => {
                if self.recovery_codes.checked_sub(1) != Some(it.left) {
                    return Err(missing);
                }
                self.recovery_codes = it.left;
            }
            AccountFact::SessionsEnded(it) => self.end_sessions(it.keeps),
            AccountFact::AccountLocked(it) => self.locked_until = Some(it.until),
            AccountFact::DefaultOrganizationSet(it) => {
                self.default_organization = Some(it.organization_id);
            }
            // The token is kept elsewhere: that it was given is all that is known here.
            AccountFact::PasswordResetIssued(_) => {}
        }
        Ok(())
    }

    fn end_sessions(&mut self, keeps: Option<SessionId>) {
        self.epoch += 1;
        self.kept = keeps;
    }

    /// One request may cause several events: it is remembered by the first of them.
    fn remember(&mut self, stamp: Option<RequestStamp>, at: Timestamp, revision: Revision) {
        let stale = |it: &AccountRequest| it.at.saturating_add_millis(REQUEST_MEMORY_MS) <= at;
        let new = stamp.filter(|stamp| self.request(stamp.id).is_none_or(|it| stale(&it)));
        if new.is_none() && !self.requests.iter().any(stale) {
            return;
        }
        let new =
            new.map(|RequestStamp { id, content }| AccountRequest { id, content, revision, at });
        let fresh = self.requests.iter().filter(|it| !stale(it)).copied();
        let all: Vec<_> = fresh.chain(new).collect();
        let surplus = all.len().saturating_sub(ACCOUNT_REQUESTS_MAX);
        self.requests = all.into_iter().skip(surplus).collect();
    }
}

/// Whether an event follows what was folded. False where it had been applied before.
pub(crate) fn follows(
    head: Option<Head>,
    revision: Revision,
    leaf_hash: LeafHash,
) -> Result<bool, CorruptHistory> {
    let expected = Revision::after(head.map(|head| head.revision));
    if revision > expected {
        return Err(Fault::Gap { expected }.at(revision));
    }
    let rewritten =
        head.is_some_and(|head| head.revision == revision && head.leaf_hash != leaf_hash);
    if rewritten { Err(Fault::Rewritten.at(revision)) } else { Ok(revision == expected) }
}

row!(AccountRequest { id, content, revision, at });

impl Canonical for Account {
    fn write(&self, out: &mut Vec<u8>) {
        let Self {
            id,
            head,
            email,
            created_at,
            epoch,
            kept,
            password_set_at,
            totp,
            recovery_codes,
            locked_until,
            default_organization,
            personal_organization,
            requests,
        } = self;
        id.write(out);
        head.write(out);
        email.write(out);
        created_at.write(out);
        epoch.write(out);
        kept.write(out);
        password_set_at.write(out);
        totp.write(out);
        recovery_codes.write(out);
        locked_until.write(out);
        default_organization.write(out);
        personal_organization.write(out);
        crate::snapshot::write_count(requests.len(), out);
        requests.iter().for_each(|request| request.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: Canonical::read(from)?,
            head: Canonical::read(from)?,
            email: Canonical::read(from)?,
            created_at: Canonical::read(from)?,
            epoch: Canonical::read(from)?,
            kept: Canonical::read(from)?,
            password_set_at: Canonical::read(from)?,
            totp: Canonical::read(from)?,
            recovery_codes: Canonical::read(from)?,
            locked_until: Canonical::read(from)?,
            default_organization: Canonical::read(from)?,
            personal_organization: Canonical::read(from)?,
            requests: Vec::<AccountRequest>::read(from)?.into_boxed_slice(),
        })
    }
}

impl Account {
    /// The canonical bytes of the account: equal for equal accounts, and different for others.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        self.write(&mut out);
        out
    }

    /// The account of these canonical bytes.
    ///
    /// # Errors
    ///
    /// They are none, or of another form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        if u8::read(from)? != FORM {
            return Err(Malformed("it has another form"));
        }
        let account = Self::read(from)?;
        from.end()?;
        Ok(account)
    }
}

#[cfg(test)]
mod tests;

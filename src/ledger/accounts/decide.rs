//! The rules of accounts: a command and what is known give events, a next step, or a
//! rejection. Pure, as all rules are.

use projections::account::Account;
use projections::digest::EmailDigest;
use projections::email::{Holder, Reservation};
use projections::envelope::RequestStamp;
use projections::event::{
    AccountCreated, AccountLocked, DefaultOrganizationSet, Event, PasswordCause,
    PasswordResetIssued, PasswordSet, RecoveryCodeUsed, RecoveryCodesReplaced, SessionsEnded,
    TotpEnrolled, TotpRemoved,
};
use projections::id::AccountId;
use projections::recorded::Revision;
use projections::time::Timestamp;

use super::command::{
    AccountCommand, CreateAccount, HeldSession, LOCK_MS_MAX, RECOVERY_CODES_MAX, RESERVED_FOR_MS,
};
use super::rejection::AccountRejection;

/// What a change of an account is decided from.
pub(super) struct Given<'a> {
    /// The account.
    pub(super) account: &'a Account,
    /// The instant, no earlier than the account's last event.
    pub(super) now: Timestamp,
    /// The session by which the command is given.
    pub(super) session: Option<HeldSession>,
    /// Whether its organization says that it is in force; true where there is none.
    pub(super) in_force: bool,
    /// How a repeat is known.
    pub(super) request: Option<RequestStamp>,
}

/// What the rules make of a change that they accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// These facts come of it.
    Events(Vec<Event>),
    /// It was carried out for an earlier request, by this event.
    Repeat(Revision),
    /// It is so already.
    Nothing,
}

/// Decides a change of an account.
pub(super) fn change(
    given: &Given<'_>,
    command: &AccountCommand,
) -> Result<Decided, AccountRejection> {
    let account = given.account;
    if account.email().is_none() {
        return Err(AccountRejection::AccountNotFound);
    }
    given.may_decide()?;
    if let Some(revision) = repeated(account, given.request)? {
        return Ok(Decided::Repeat(revision));
    }
    let account_id = account.id;
    let event: Event = match *command {
        AccountCommand::SetPassword { cause, keeps } => {
            given.stands(keeps)?;
            match (cause, account.password_set_at()) {
                (PasswordCause::Invitation, Some(_)) => {
                    return Err(AccountRejection::PasswordAlreadySet);
                }
                (PasswordCause::Change, None) => return Err(AccountRejection::PasswordNotSet),
                (PasswordCause::Invitation, None)
                | (PasswordCause::Change, Some(_))
                | (PasswordCause::Reset, _) => {}
            }
            PasswordSet { account_id, cause, keeps: keeps.map(|it| it.id) }.into()
        }
        AccountCommand::EnrollTotp { recovery_codes } => {
            return enroll(account, recovery_codes).map(Decided::Events);
        }
        AccountCommand::RemoveTotp if !account.has_totp() => {
            return Err(AccountRejection::TotpNotEnrolled);
        }
        AccountCommand::RemoveTotp => TotpRemoved { account_id }.into(),
        AccountCommand::ReplaceRecoveryCodes { .. } if !account.has_totp() => {
            return Err(AccountRejection::TotpNotEnrolled);
        }
        AccountCommand::ReplaceRecoveryCodes { codes } => recovery_codes(account_id, codes)?,
        AccountCommand::UseRecoveryCode => {
            let left = account.recovery_codes().checked_sub(1);
            let left = left.ok_or(AccountRejection::NoRecoveryCodes)?;
            RecoveryCodeUsed { account_id, left }.into()
        }
        AccountCommand::EndSessions { keeps } => {
            given.stands(keeps)?;
            SessionsEnded { account_id, keeps: keeps.map(|it| it.id) }.into()
        }
        AccountCommand::Lock { until } => {
            if until <= given.now {
                return Err(AccountRejection::LockNotInFuture);
            }
            if until > given.now.saturating_add_millis(LOCK_MS_MAX) {
                return Err(AccountRejection::LockTooLong);
            }
            // A lock is never shortened.
            if account.locked_until() >= Some(until) {
                return Ok(Decided::Nothing);
            }
            AccountLocked { account_id, until }.into()
        }
        AccountCommand::SetDefaultOrganization(organization_id) => {
            let before = account.default_organization();
            if before == Some(organization_id) {
                return Ok(Decided::Nothing);
            }
            DefaultOrganizationSet { account_id, organization_id, before }.into()
        }
        AccountCommand::IssuePasswordReset { expires_at, given_to } => {
            PasswordResetIssued { account_id, expires_at, given_to }.into()
        }
    };
    Ok(Decided::Events(vec![event]))
}

fn enroll(account: &Account, codes: u8) -> Result<Vec<Event>, AccountRejection> {
    if account.has_totp() {
        return Err(AccountRejection::TotpAlreadyEnrolled);
    }
    let mut events: Vec<Event> = vec![TotpEnrolled { account_id: account.id }.into()];
    if codes > 0 {
        events.push(recovery_codes(account.id, codes)?);
    }
    Ok(events)
}

fn recovery_codes(account_id: AccountId, codes: u8) -> Result<Event, AccountRejection> {
    if (1..=RECOVERY_CODES_MAX).contains(&codes) {
        Ok(RecoveryCodesReplaced { account_id, codes }.into())
    } else {
        Err(AccountRejection::RecoveryCodesOutOfRange)
    }
}

impl Given<'_> {
    /// A session that was ended, by its account or in its organization, decides nothing.
    pub(super) fn may_decide(&self) -> Result<(), AccountRejection> {
        self.stands(self.session)?;
        if self.in_force { Ok(()) } else { Err(AccountRejection::SessionEnded) }
    }

    /// A session that was ended does nothing more, and is kept by nothing: to keep it would
    /// bring it back.
    fn stands(&self, session: Option<HeldSession>) -> Result<(), AccountRejection> {
        match session {
            Some(held) if !self.account.stands(held.id, held.epoch) => {
                Err(AccountRejection::SessionEnded)
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The event of an earlier request that this one repeats.
fn repeated(
    account: &Account,
    request: Option<RequestStamp>,
) -> Result<Option<Revision>, AccountRejection> {
    let Some(stamp) = request else { return Ok(None) };
    match account.request(stamp.id) {
        None => Ok(None),
        Some(before) if before.content != stamp.content => {
            Err(AccountRejection::IdempotencyKeyReused)
        }
        Some(before) => Ok(Some(before.revision)),
    }
}

/// What the next step of a creation is decided from.
pub(super) struct Creating<'a> {
    /// Who has the e-mail.
    pub(super) reservation: &'a Reservation,
    /// The account that has it, as its stream says by now; none where nobody has it.
    pub(super) holder: Option<&'a Account>,
    /// The account that shall come to be, where its stream holds something.
    pub(super) existing: Option<&'a Account>,
    /// The account that shall come to be.
    pub(super) account_id: AccountId,
    /// The instant, no earlier than the last event of the e-mail's stream.
    pub(super) now: Timestamp,
    /// How a repeat is known.
    pub(super) request: Option<RequestStamp>,
}

/// The next step of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Reserve the e-mail for this account, up to this instant.
    Reserve(AccountId, Timestamp),
    /// Begin this account's stream.
    Begin(AccountId),
    /// Confirm the e-mail, for this account.
    Confirm(AccountId),
    /// It was created, for this very request.
    Done(AccountId, Revision),
}

/// Decides the next step of a creation.
pub(super) fn create(given: &Creating<'_>) -> Result<Step, AccountRejection> {
    let email = given.reservation.email;
    let Some(holder) = given.reservation.holder() else { return given.reserve(given.account_id) };
    let its_id = holder.account_id();
    let its_account = given.holder.filter(|it| is_created(it, email));
    match holder {
        Holder::Confirmed(_) => {
            // One that cannot be told to be the same has it.
            let account = its_account.ok_or(AccountRejection::EmailTaken)?;
            match repeated(account, given.request)? {
                Some(revision) => Ok(Step::Done(its_id, revision)),
                None if its_id == given.account_id => Ok(Step::Done(its_id, Revision::FIRST)),
                None => Err(AccountRejection::EmailTaken),
            }
        }
        // Whoever began it: it was created, and lacks the last step alone.
        Holder::Reserved { .. } if its_account.is_some() => Ok(Step::Confirm(its_id)),
        Holder::Reserved { until, request, .. } => {
            let same = same_request(request, given.request)? || its_id == given.account_id;
            if same && given.holder.is_some_and(|it| it.email().is_some()) {
                return Err(AccountRejection::AccountExists(its_id));
            }
            match (same, given.now < until) {
                (true, true) => Ok(Step::Begin(its_id)),
                (true, false) => given.reserve(its_id),
                (false, false) => given.reserve(given.account_id),
                (false, true) => Err(AccountRejection::EmailReserved),
            }
        }
    }
}

impl Creating<'_> {
    fn reserve(&self, account_id: AccountId) -> Result<Step, AccountRejection> {
        let email = self.reservation.email;
        if self.existing.is_some_and(|it| it.email().is_some() && !is_created(it, email)) {
            return Err(AccountRejection::AccountExists(self.account_id));
        }
        Ok(Step::Reserve(account_id, self.now.saturating_add_millis(RESERVED_FOR_MS)))
    }
}

/// Whether an account came to be with this e-mail.
pub(super) fn is_created(account: &Account, email: EmailDigest) -> bool {
    account.email() == Some(email)
}

fn same_request(
    before: Option<RequestStamp>,
    now: Option<RequestStamp>,
) -> Result<bool, AccountRejection> {
    match (before, now) {
        (Some(before), Some(now)) if before.id == now.id => {
            if before.content == now.content {
                Ok(true)
            } else {
                Err(AccountRejection::IdempotencyKeyReused)
            }
        }
        _ => Ok(false),
    }
}

/// The events of an account's first append.
pub(super) fn begin(
    account_id: AccountId,
    email: EmailDigest,
    draft: &CreateAccount,
) -> Vec<Event> {
    let personal_organization =
        draft.personal.then(|| super::personal::organization_of(account_id));
    let mut events: Vec<Event> =
        vec![AccountCreated { account_id, email, personal_organization }.into()];
    if draft.has_password {
        let cause = PasswordCause::Invitation;
        events.push(PasswordSet { account_id, cause, keeps: None }.into());
    }
    if let Some(organization_id) = draft.default_organization {
        events.push(DefaultOrganizationSet { account_id, organization_id, before: None }.into());
    }
    events
}

#[cfg(test)]
mod tests;

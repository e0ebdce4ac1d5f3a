//! What somebody wants of an account.

use projections::envelope::RequestStamp;
use projections::event::{PasswordCause, ResetGivenTo};
use projections::id::{AccountId, EventId, OrganizationId, SessionId};
use projections::principal::{Credential, Principal};
use projections::text::{CorrelationId, Name};
use projections::time::Timestamp;

use crate::ledger::command::Personal;
use crate::ledger::email::Email;
use crate::ledger::urgency::Urgency;

/// The person's e-mail, among the personal data of an account's creation.
pub const EMAIL: &str = "email";
/// The person's name, among the personal data of an account's creation.
pub const NAME: &str = "name";

/// How long an e-mail is reserved before another account may have it, in milliseconds.
pub const RESERVED_FOR_MS: i64 = 60_000;
/// Most recovery codes of an account.
pub const RECOVERY_CODES_MAX: u8 = 20;
/// For how long an account is locked at the most, in milliseconds: a day.
pub const LOCK_MS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// A session, as somebody holds it: it carries the epoch of its account at which it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSession {
    /// The organization that it is in.
    pub organization_id: OrganizationId,
    /// The session.
    pub id: SessionId,
    /// The account's epoch at which it began.
    pub epoch: u64,
}

/// An account that shall come to be.
#[derive(Clone)]
pub struct CreateAccount {
    /// Its identifier. A secret that is kept for it is kept under this identifier before.
    pub account_id: AccountId,
    /// The e-mail it shall be known by.
    pub email: Email,
    /// What the person is called.
    pub name: Name,
    /// A password is kept for it already, set with the token of an invitation.
    pub has_password: bool,
    /// Where a login shall lead that names no organization.
    pub default_organization: Option<OrganizationId>,
    /// Whether it shall have an organization of its own.
    pub personal: bool,
}

/// What shall be so of an account. Secrets are kept elsewhere, durably, before the command
/// that speaks of them is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountCommand {
    /// Another password is in force: end the sessions, and a lock.
    SetPassword {
        /// How it came to be.
        cause: PasswordCause,
        /// The one session that shall go on; none where all end.
        keeps: Option<HeldSession>,
    },
    /// Ask for a second factor from here on.
    EnrollTotp {
        /// How many recovery codes come with it; 0 for none.
        recovery_codes: u8,
    },
    /// Ask for no second factor any more. Recovery codes go with it.
    RemoveTotp,
    /// Put other recovery codes in the place of those there are.
    ReplaceRecoveryCodes {
        /// How many.
        codes: u8,
    },
    /// A recovery code was used in place of the second factor.
    UseRecoveryCode,
    /// End the account's sessions, in all organizations.
    EndSessions {
        /// The one that shall go on; none where all end.
        keeps: Option<HeldSession>,
    },
    /// Let nobody log in up to this instant.
    Lock {
        /// The first instant at which somebody can again.
        until: Timestamp,
    },
    /// Let a login that names no organization lead to this one.
    SetDefaultOrganization(OrganizationId),
    /// Tell that somebody issues a token that sets the account's password.
    IssuePasswordReset {
        /// The first instant at which it is no longer good.
        expires_at: Timestamp,
        /// Who is given it.
        given_to: ResetGivenTo,
    },
}

impl AccountCommand {
    /// Whether it ends sessions, all or all but one.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        match self {
            Self::SetPassword { .. } | Self::EndSessions { .. } => true,
            Self::EnrollTotp { .. }
            | Self::RemoveTotp
            | Self::ReplaceRecoveryCodes { .. }
            | Self::UseRecoveryCode
            | Self::Lock { .. }
            | Self::SetDefaultOrganization(_)
            | Self::IssuePasswordReset { .. } => false,
        }
    }

    /// How badly it is wanted where space runs out. What undoes a compromise may use what
    /// is set aside; what lets somebody in may not.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        match self {
            Self::SetPassword { cause: PasswordCause::Change | PasswordCause::Reset, .. }
            | Self::EndSessions { .. } => Urgency::Reserved,
            Self::SetPassword { cause: PasswordCause::Invitation, .. }
            | Self::EnrollTotp { .. }
            | Self::RemoveTotp
            | Self::ReplaceRecoveryCodes { .. }
            | Self::UseRecoveryCode
            | Self::Lock { .. }
            | Self::SetDefaultOrganization(_)
            | Self::IssuePasswordReset { .. } => Urgency::Normal,
        }
    }
}

/// All around a command of an account.
#[derive(Clone)]
pub struct AccountOrder {
    /// Who gives it: the account itself, as a rule.
    pub actor: Principal,
    /// The key or session with which they do; none where they used none.
    pub credential: Option<Credential>,
    /// The session of this account by which it is given; none where it is given otherwise.
    /// One that was ended, even a moment ago, with the account's others or in its
    /// organization, decides nothing.
    pub session: Option<HeldSession>,
    /// How a repeat of it is known.
    pub request: Option<RequestStamp>,
    /// What ties it to all else that the same cause brings about.
    pub correlation_id: CorrelationId,
    /// The event it follows from.
    pub causation_id: Option<EventId>,
    /// Personal data around it, to be sealed under the account's own key.
    pub personal: Personal,
}

//! What befalls accounts, and the e-mails that they are known by.
//!
//! An account's facts stand in a stream of its own, and so does the reservation of each
//! e-mail: see [`crate::account`] and [`crate::email`]. Every event names its account, so
//! that one in another account's stream is found out.

use serde::{Deserialize, Serialize};

use super::Event;
use crate::digest::EmailDigest;
use crate::id::{AccountId, OrganizationId, SessionId};
use crate::time::Timestamp;

/// See [`super::Event::EmailReserved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailReserved {
    /// The e-mail: the one whose stream this is.
    pub email: EmailDigest,
    /// The account that is to have it.
    pub account_id: AccountId,
    /// The first instant at which another account may reserve it, unless it was confirmed.
    pub until: Timestamp,
}

/// See [`super::Event::EmailConfirmed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailConfirmed {
    /// The e-mail: the one whose stream this is.
    pub email: EmailDigest,
    /// The account that has it from here on.
    pub account_id: AccountId,
}

/// See [`super::Event::EmailReleased`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailReleased {
    /// The e-mail: the one whose stream this is.
    pub email: EmailDigest,
    /// The account that had it, or was to have it.
    pub account_id: AccountId,
}

/// See [`super::Event::AccountCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountCreated {
    /// The account: the one whose stream this is.
    pub account_id: AccountId,
    /// The e-mail that it is known by.
    pub email: EmailDigest,
    /// The organization of its own that it is to have; none where it is to have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal_organization: Option<OrganizationId>,
}

/// Schema 1 of [`AccountCreated`], in which no account had an organization of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountCreated1 {
    account_id: AccountId,
    email: EmailDigest,
}

impl From<AccountCreated1> for AccountCreated {
    fn from(AccountCreated1 { account_id, email }: AccountCreated1) -> Self {
        Self { account_id, email, personal_organization: None }
    }
}

/// How a password came to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordCause {
    /// With the token of an invitation: the account's first.
    Invitation,
    /// By somebody who was logged in and knew the one before.
    Change,
    /// With a token that was sent to the account's e-mail.
    Reset,
}

/// See [`super::Event::PasswordSet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordSet {
    /// The account.
    pub account_id: AccountId,
    /// How it came to be.
    pub cause: PasswordCause,
    /// The one session that goes on; none where all end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<SessionId>,
}

/// Who is given a token that sets a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetGivenTo {
    /// Whoever issued it, to hand over.
    Issuer,
    /// The account's e-mail, by way of whatever delivers.
    Email,
}

/// See [`super::Event::PasswordResetIssued`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordResetIssued {
    /// The account.
    pub account_id: AccountId,
    /// The first instant at which the token is no longer good.
    pub expires_at: Timestamp,
    /// Who is given it.
    pub given_to: ResetGivenTo,
}

/// See [`super::Event::TotpEnrolled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpEnrolled {
    /// The account.
    pub account_id: AccountId,
}

/// See [`super::Event::TotpRemoved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpRemoved {
    /// The account.
    pub account_id: AccountId,
}

/// See [`super::Event::RecoveryCodesReplaced`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCodesReplaced {
    /// The account.
    pub account_id: AccountId,
    /// How many there are from here on.
    pub codes: u8,
}

/// See [`super::Event::RecoveryCodeUsed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCodeUsed {
    /// The account.
    pub account_id: AccountId,
    /// How many are left.
    pub left: u8,
}

/// See [`super::Event::SessionsEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionsEnded {
    /// The account.
    pub account_id: AccountId,
    /// The one session that goes on; none where all end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<SessionId>,
}

/// See [`super::Event::AccountLocked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountLocked {
    /// The account.
    pub account_id: AccountId,
    /// The first instant at which somebody can log in again.
    pub until: Timestamp,
}

/// See [`super::Event::DefaultOrganizationSet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultOrganizationSet {
    /// The account.
    pub account_id: AccountId,
    /// Where a login leads that names no organization.
    pub organization_id: OrganizationId,
    /// Where it led up to here; none where that was nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<OrganizationId>,
}

/// The events of one kind of stream, apart from all others.
macro_rules! facts {
    ($(#[$doc:meta])* $facts:ident { $($name:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) enum $facts<'a> {
            $($name(&'a $name),)+
        }

        impl<'a> $facts<'a> {
            /// Their types.
            #[cfg(test)]
            pub(crate) const TYPES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The event as one of them; none where it is another.
            pub(crate) fn of(event: &'a Event) -> Option<Self> {
                $(if let Event::$name(it) = event {
                    return Some(Self::$name(it));
                })+
                None
            }

            /// The account that it names.
            pub(crate) fn account_id(self) -> AccountId {
                match self { $(Self::$name(it) => it.account_id,)+ }
            }
        }
    };
}

facts!(
    /// What stands in an account's stream.
    AccountFact {
        AccountCreated,
        PasswordSet,
        TotpEnrolled,
        TotpRemoved,
        RecoveryCodesReplaced,
        RecoveryCodeUsed,
        SessionsEnded,
        AccountLocked,
        DefaultOrganizationSet,
        PasswordResetIssued,
    }
);
facts!(
    /// What stands in the stream of an e-mail.
    #[expect(clippy::enum_variant_names, reason = "they are named as their events are")]
    EmailFact { EmailReserved, EmailConfirmed, EmailReleased }
);

impl EmailFact<'_> {
    /// The e-mail that it names.
    pub(crate) fn email(self) -> EmailDigest {
        match self {
            Self::EmailReserved(it) => it.email,
            Self::EmailConfirmed(it) => it.email,
            Self::EmailReleased(it) => it.email,
        }
    }
}

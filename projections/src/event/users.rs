//! What befalls the users of an organization, and their sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::EmailDigest;
use crate::id::{AccountId, SessionId, UserId};
use crate::text::Label;
use crate::time::Timestamp;

/// See [`super::Event::UserInvited`]. The e-mail and the name stand beside it, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserInvited {
    /// The user.
    pub user_id: UserId,
    /// What stands for the e-mail: no two users of an organization have one.
    pub email: EmailDigest,
    /// The first instant at which the invitation is no longer accepted.
    pub expires_at: Timestamp,
    /// Numbers for whoever verifies what the user presents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Label, i64>,
    /// The way of the invitation's token; none where there is none, or nobody recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenWay>,
}

/// Which way the token of an invitation goes: whoever has it can join as whom was invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenWay {
    /// It is given to what delivers to the invited e-mail, and to nobody else.
    Delivered,
    /// It is handed over to whoever invites: the event's actor.
    HandedOver,
    /// Nobody is given it.
    Withheld,
}

/// Schema 1 of [`UserInvited`], which says nothing of the token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserInvited1 {
    user_id: UserId,
    email: EmailDigest,
    expires_at: Timestamp,
    #[serde(default)]
    limits: BTreeMap<Label, i64>,
}

impl From<UserInvited1> for UserInvited {
    fn from(it: UserInvited1) -> Self {
        let UserInvited1 { user_id, email, expires_at, limits } = it;
        Self { user_id, email, expires_at, limits, token: None }
    }
}

/// See [`super::Event::InvitationRenewed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvitationRenewed {
    /// The user.
    pub user_id: UserId,
    /// The first instant at which the invitation is no longer accepted.
    pub expires_at: Timestamp,
    /// That instant up to here.
    pub before: Timestamp,
    /// The way of the invitation's new token; none where nobody recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenWay>,
}

/// Schema 1 of [`InvitationRenewed`], which says nothing of the token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationRenewed1 {
    user_id: UserId,
    expires_at: Timestamp,
    before: Timestamp,
}

impl From<InvitationRenewed1> for InvitationRenewed {
    fn from(InvitationRenewed1 { user_id, expires_at, before }: InvitationRenewed1) -> Self {
        Self { user_id, expires_at, before, token: None }
    }
}

/// See [`super::Event::UserJoined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserJoined {
    /// The user.
    pub user_id: UserId,
    /// The account of the person who accepted the invitation.
    pub account_id: AccountId,
    /// Whether they had a token that was delivered to the e-mail: they read it, then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub email_proven: bool,
}

/// Schema 1 of [`UserJoined`], which says nothing of the token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserJoined1 {
    user_id: UserId,
    account_id: AccountId,
}

impl From<UserJoined1> for UserJoined {
    fn from(UserJoined1 { user_id, account_id }: UserJoined1) -> Self {
        Self { user_id, account_id, email_proven: false }
    }
}

/// See [`super::Event::UserUpdated`]. A name stands beside it, sealed, where it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserUpdated {
    /// The user.
    pub user_id: UserId,
    /// Whether the name changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renamed: bool,
    /// Its numbers from here on.
    pub limits: BTreeMap<Label, i64>,
    /// Its numbers up to here.
    pub before: BTreeMap<Label, i64>,
}

/// See [`super::Event::UserSuspended`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSuspended {
    /// The user, who was not suspended.
    pub user_id: UserId,
}

/// See [`super::Event::UserRestored`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRestored {
    /// The user, who was suspended.
    pub user_id: UserId,
}

/// See [`super::Event::UserRemoved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRemoved {
    /// The user.
    pub user_id: UserId,
    /// What they were.
    pub before: UserStateBefore,
}

/// What a user was before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStateBefore {
    /// Invited, and not yet joined.
    Invited,
    /// A member.
    Active,
    /// Suspended.
    Suspended,
}

/// How somebody showed who they are, by the names of RFC 8176.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticationMethod {
    /// By a password (`pwd`).
    Password,
    /// By a one-time password of an authenticator (`otp`).
    Totp,
    /// By a recovery code, which stands in for an authenticator that was lost (`otp`).
    RecoveryCode,
}

impl AuthenticationMethod {
    /// Whether it shows something beside a password.
    #[must_use]
    pub fn is_second_factor(self) -> bool {
        match self {
            Self::Password => false,
            Self::Totp | Self::RecoveryCode => true,
        }
    }
}

/// See [`super::Event::SessionStarted`]. Where from stands beside it, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStarted {
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The user's account.
    pub account_id: AccountId,
    /// How often all sessions of the account had been ended when this one began: once that is
    /// more, this one has ended too.
    pub epoch: u64,
    /// How the user showed who they are, each once, in order.
    pub methods: Vec<AuthenticationMethod>,
    /// The first instant at which it is over, however it is used.
    pub expires_at: Timestamp,
}

/// See [`super::Event::SessionSteppedUp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSteppedUp {
    /// The session.
    pub session_id: SessionId,
    /// How the user showed again who they are.
    pub method: AuthenticationMethod,
}

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEndReason {
    /// Whoever had it logged out.
    LoggedOut,
    /// Its user, or somebody who may, ended it.
    Revoked,
    /// A refresh token was presented that another one had replaced: somebody has a copy.
    RefreshReused,
}

/// See [`super::Event::SessionEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionEnded {
    /// The session.
    pub session_id: SessionId,
    /// Why.
    pub reason: SessionEndReason,
}

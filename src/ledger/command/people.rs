//! Intentions about users and their sessions.

use std::collections::BTreeMap;

use projections::digest::EmailDigest;
use projections::event::{AuthenticationMethod, SessionEndReason, TokenWay};
use projections::id::{AccountId, GrantId, SessionId, UserId};
use projections::text::Label;

use super::GrantRole;

/// How long an invitation is accepted where nothing is said, in milliseconds: a week.
pub const INVITATION_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// How long it is accepted at the most: thirty days.
pub const INVITATION_MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Most users of one organization who were not removed.
pub const USERS_MAX: usize = 1_000_000;
/// Most sessions of one user that are not over: another one ends the oldest.
pub const SESSIONS_MAX: usize = 100;

/// See [`super::Command::InviteUser`]. The e-mail and the name come beside it, to be sealed.
#[derive(Clone, Debug)]
pub struct InviteUser {
    /// The user's identifier.
    pub user_id: UserId,
    /// What stands for the e-mail.
    pub email: EmailDigest,
    /// How long the invitation is accepted, in milliseconds.
    pub lifetime_ms: i64,
    /// Numbers for whoever verifies what the user presents.
    pub limits: BTreeMap<Label, i64>,
    /// What the user shall have: distinct, and all to this user.
    pub grants: Vec<GrantRole>,
    /// Which way its token will go.
    pub token: Option<TokenWay>,
}

/// See [`super::Command::RenewInvitation`].
#[derive(Clone, Copy, Debug)]
pub struct RenewInvitation {
    /// The user, who has not joined.
    pub user_id: UserId,
    /// How long the invitation is accepted from now on, in milliseconds.
    pub lifetime_ms: i64,
    /// Which way its new token will go.
    pub token: Option<TokenWay>,
}

/// See [`super::Command::JoinUser`].
#[derive(Clone, Copy, Debug)]
pub struct JoinUser {
    /// The user who was invited.
    pub user_id: UserId,
    /// The account of the person who accepts.
    pub account_id: AccountId,
    /// What stands for the account's e-mail.
    pub email: EmailDigest,
    /// Whether they show a token that was delivered to it.
    pub email_proven: bool,
}

/// See [`super::Command::SeatOwner`]. The e-mail and the name come beside it, to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct SeatOwner {
    /// The user's identifier.
    pub user_id: UserId,
    /// The account whose own the organization is.
    pub account_id: AccountId,
    /// What stands for the account's e-mail.
    pub email: EmailDigest,
    /// The identifier of the grant by which the user may do everything.
    pub grant_id: GrantId,
}

/// See [`super::Command::UpdateUser`]: what is none stays as it is.
#[derive(Clone, Debug)]
pub struct UpdateUser {
    /// The user.
    pub user_id: UserId,
    /// Whether the name changes; it comes beside it, with the e-mail, to be sealed.
    pub renamed: bool,
    /// Numbers for whoever verifies what the user presents.
    pub limits: Option<BTreeMap<Label, i64>>,
}

/// See [`super::Command::StartSession`].
#[derive(Clone, Debug)]
pub struct StartSession {
    /// The session's identifier.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// The user's account.
    pub account_id: AccountId,
    /// How often all sessions of the account had been ended when its holder showed who they
    /// are.
    pub epoch: u64,
    /// How they showed it: distinct, in order.
    pub methods: Vec<AuthenticationMethod>,
    /// How long the session lasts, in milliseconds.
    pub lifetime_ms: i64,
}

/// Whose sessions a command may end. See [`super::Command::may_end_sessions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionsOf {
    /// Of this account, in the command's organization.
    Account(AccountId),
    /// Of this user.
    User(UserId),
    /// This one.
    Session(SessionId),
}

/// See [`super::Command::StepUpSession`].
#[derive(Clone, Copy, Debug)]
pub struct StepUpSession {
    /// The session.
    pub session_id: SessionId,
    /// How its user showed again who they are.
    pub method: AuthenticationMethod,
}

/// See [`super::Command::EndSession`].
#[derive(Clone, Copy, Debug)]
pub struct EndSession {
    /// The session.
    pub session_id: SessionId,
    /// Why.
    pub reason: SessionEndReason,
}

/// See [`super::Command::EndSessions`].
#[derive(Clone, Copy, Debug)]
pub struct EndSessions {
    /// Whose sessions.
    pub user_id: UserId,
    /// The one that is spared.
    pub except: Option<SessionId>,
}

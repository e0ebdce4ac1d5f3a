//! Users: people as members of one organization.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::EmailDigest;
use crate::envelope::Envelope;
use crate::event::{UserInvited, UserStateBefore};
use crate::id::{AccountId, EventId, OrganizationId, UserId};
use crate::key::Act;
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::sealed::{Sealed, Subject};
use crate::text::Label;
use crate::time::Timestamp;

/// A user as they are now. They hold what they were granted, and so do their keys and
/// sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// What stands for their e-mail.
    pub email: EmailDigest,
    /// The account of the person; none until they joined.
    pub account_id: Option<AccountId>,
    /// Numbers for whoever verifies what they present.
    pub limits: BTreeMap<Label, i64>,
    /// The first instant at which their invitation is no longer accepted.
    pub invitation_ends_at: Timestamp,
    /// When they were invited.
    pub invited_at: Timestamp,
    /// Who invited them.
    pub invited_by: Principal,
    /// When they joined.
    pub joined_at: Option<Timestamp>,
    /// Whether they joined with a token that was delivered to the e-mail.
    pub email_proven: bool,
    /// Who suspended them, if they are suspended.
    pub suspended: Option<Act>,
    /// Who removed them, if they were.
    pub removed: Option<Act>,
    /// Their e-mail and name, sealed; none where the event that told them held none.
    pub identity: Option<Arc<Identity>>,
    /// The event that last changed this row.
    pub changed_at: Revision,
}

/// What people know a user by, sealed under the user's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The event that it was sealed for.
    pub event_id: EventId,
    /// The sealed bytes.
    pub sealed: Sealed,
}

impl Identity {
    /// The name of the e-mail among what is sealed.
    pub const EMAIL: &'static str = "email";
    /// The name of the user's name among what is sealed.
    pub const NAME: &'static str = "name";

    /// What an event holds about this user.
    fn of(envelope: &Envelope, organization: OrganizationId, user: UserId) -> Option<Arc<Self>> {
        let subject = Subject::user(organization, user);
        let sealed = envelope.sealed.iter().find(|it| it.subject == subject)?.clone();
        Some(Arc::new(Self { event_id: envelope.id, sealed }))
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// What they were granted, with keys alone: they have not joined yet.
    Invited,
    /// What they were granted.
    Active,
    /// Nothing, until they are restored.
    Suspended,
    /// Nothing, for good.
    Removed,
}

impl User {
    /// The row that an invitation makes.
    pub(crate) fn invited(
        organization: OrganizationId,
        revision: Revision,
        envelope: &Envelope,
        event: &UserInvited,
    ) -> Self {
        Self {
            id: event.user_id,
            email: event.email,
            account_id: None,
            limits: event.limits.clone(),
            invitation_ends_at: event.expires_at,
            invited_at: envelope.at,
            invited_by: envelope.actor,
            joined_at: None,
            email_proven: false,
            suspended: None,
            removed: None,
            identity: Identity::of(envelope, organization, event.user_id),
            changed_at: revision,
        }
    }

    /// The row with what this event holds about the user, where it holds anything.
    pub(crate) fn told(self, organization: OrganizationId, envelope: &Envelope) -> Self {
        let identity = Identity::of(envelope, organization, self.id).or(self.identity);
        Self { identity, ..self }
    }

    /// What they may do.
    #[must_use]
    pub fn state(&self) -> UserState {
        if self.removed.is_some() {
            UserState::Removed
        } else if self.suspended.is_some() {
            UserState::Suspended
        } else if self.account_id.is_none() {
            UserState::Invited
        } else {
            UserState::Active
        }
    }

    /// What they were, as an event says it; none once they were removed.
    #[must_use]
    pub fn state_before(&self) -> Option<UserStateBefore> {
        match self.state() {
            UserState::Invited => Some(UserStateBefore::Invited),
            UserState::Active => Some(UserStateBefore::Active),
            UserState::Suspended => Some(UserStateBefore::Suspended),
            UserState::Removed => None,
        }
    }

    /// Whether they hold anything.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.suspended.is_none() && self.removed.is_none()
    }
}

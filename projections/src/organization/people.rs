//! Users and their sessions: how they are looked up, and the fold of what befalls them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{Change, Organization};
use crate::corrupt::Fault;
use crate::digest::EmailDigest;
use crate::envelope::Envelope;
use crate::event::{
    InvitationRenewed, SessionEnded, SessionStarted, SessionSteppedUp, UserInvited, UserJoined,
    UserRemoved, UserRestored, UserSuspended, UserUpdated,
};
use crate::id::{AccountId, SessionId, UserId};
use crate::key::Act;
use crate::recorded::Revision;
use crate::session::{Session, SessionEnd};
use crate::time::Timestamp;
use crate::user::{User, UserState};

/// Most sessions that are forgotten with one event, so that no writer waits long for them.
const FORGOTTEN_MAX: usize = 1_024;

/// The tables of people. Most organizations change them seldom: they are one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct People {
    pub(super) users: OrdMap<UserId, Arc<User>>,
    /// The users who were not removed, by e-mail.
    pub(super) by_email: OrdMap<EmailDigest, UserId>,
    /// The users who joined and were not removed, by account.
    pub(super) by_account: OrdMap<AccountId, UserId>,
    pub(super) sessions: OrdMap<SessionId, Arc<Session>>,
    pub(super) sessions_of: OrdSet<(UserId, SessionId)>,
    /// When sessions are forgotten.
    pub(super) forgotten: OrdSet<(Timestamp, SessionId)>,
}

impl People {
    /// Puts a row where it is looked for.
    pub(super) fn put_user(&mut self, user: User) {
        let (id, email, account) = (user.id, user.email, user.account_id);
        if user.state() == UserState::Removed {
            self.by_email.remove(&email);
            account.map(|account| self.by_account.remove(&account));
        } else {
            self.by_email.insert(email, id);
            account.map(|account| self.by_account.insert(account, id));
        }
        self.users.insert(id, Arc::new(user));
    }

    /// Puts a row that was kept where it is looked for.
    pub(super) fn restore_user(&mut self, user: User) {
        if user.state() == UserState::Removed {
            self.users.insert(user.id, Arc::new(user));
        } else {
            self.put_user(user);
        }
    }

    /// Puts a row where it is looked for.
    pub(super) fn put_session(&mut self, session: Session) {
        let (id, forgotten_at) = (session.id, session.forgotten_at());
        self.sessions_of.insert((session.user_id, id));
        if let Some(before) = self.sessions.insert(id, Arc::new(session)) {
            self.forgotten.remove(&(before.forgotten_at(), id));
        }
        self.forgotten.insert((forgotten_at, id));
    }

    fn forget(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.sessions_of.remove(&(session.user_id, id));
        self.forgotten.remove(&(session.forgotten_at(), id));
    }

    fn first_forgotten(&self, at: Timestamp) -> Option<SessionId> {
        self.forgotten.get_min().filter(|(end, _)| *end <= at).map(|(_, id)| *id)
    }
}

impl Organization {
    /// The user of this identifier. They may have been removed.
    #[must_use]
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.people.users.get(&id)
    }

    /// The user of this e-mail who was not removed.
    #[must_use]
    pub fn user_by_email(&self, email: &EmailDigest) -> Option<&Arc<User>> {
        self.people.users.get(self.people.by_email.get(email)?)
    }

    /// The user of this account who was not removed.
    #[must_use]
    pub fn user_by_account(&self, account: AccountId) -> Option<&Arc<User>> {
        self.people.users.get(self.people.by_account.get(&account)?)
    }

    /// How many users were not removed.
    #[must_use]
    pub fn users_here(&self) -> usize {
        self.people.by_email.len()
    }

    /// The users behind this one (none: from the first), in the order of their identifiers,
    /// those who were removed included.
    pub fn users_after(&self, after: Option<UserId>) -> impl Iterator<Item = &Arc<User>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.people.users.range(range).map(|(_, user)| user)
    }

    /// The session of this identifier; none where it has been over for a day.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.people.sessions.get(&id)
    }

    /// How many sessions are in the tables, those that are over included.
    #[must_use]
    pub fn sessions_here(&self) -> usize {
        self.people.sessions.len()
    }

    /// The sessions behind this one (none: from the first), in the order of their identifiers.
    pub fn sessions_after(&self, after: Option<SessionId>) -> impl Iterator<Item = &Arc<Session>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.people.sessions.range(range).map(|(_, session)| session)
    }

    /// The sessions of a user behind this one, in the order of their identifiers, those that
    /// are over included.
    pub fn sessions_of(
        &self,
        user: UserId,
        after: Option<SessionId>,
    ) -> impl Iterator<Item = &Arc<Session>> {
        use std::ops::Bound::{Excluded, Included};
        let last = SessionId::from_bytes([u8::MAX; 16]);
        let first = match after {
            Some(after) => Excluded((user, after)),
            None => Included((user, SessionId::from_bytes([0; 16]))),
        };
        let range = self.people.sessions_of.range((first, Included((user, last))));
        range.filter_map(|(_, id)| self.people.sessions.get(id))
    }

    pub(super) fn people_mut(&mut self) -> &mut People {
        Arc::make_mut(&mut self.people)
    }

    /// Lets go of sessions that have been over long enough at this instant.
    pub(super) fn forget_sessions(&mut self, at: Timestamp) {
        for _ in 0..FORGOTTEN_MAX {
            let Some(id) = self.people.first_forgotten(at) else { return };
            self.people_mut().forget(id);
        }
    }

    /// A user who was not removed, to be changed.
    fn present_user(&self, envelope: &Envelope, id: UserId) -> Result<User, Fault> {
        let user = self.user(id).filter(|user| user.state() != UserState::Removed);
        let user = user.ok_or_else(|| Fault::MissingTarget(envelope.event.event_type()))?;
        Ok(User::clone(user))
    }

    fn put_user(&mut self, revision: Revision, user: User) -> Change {
        let id = user.id;
        self.people_mut().put_user(User { changed_at: revision, ..user });
        Change::User(id)
    }

    pub(super) fn user_invited(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserInvited,
    ) -> Result<Change, Fault> {
        if self.user(event.user_id).is_some() || self.user_by_email(&event.email).is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let user = User::invited(self.id, revision, envelope, event);
        Ok(self.put_user(revision, user))
    }

    pub(super) fn invitation_renewed(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &InvitationRenewed,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        if user.account_id.is_some() {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        Ok(self.put_user(revision, User { invitation_ends_at: event.expires_at, ..user }))
    }

    pub(super) fn user_joined(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserJoined,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        if user.account_id.is_some() || self.user_by_account(event.account_id).is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let (account_id, joined_at) = (Some(event.account_id), Some(envelope.at));
        Ok(self.put_user(
            revision,
            User { account_id, joined_at, email_proven: event.email_proven, ..user },
        ))
    }

    pub(super) fn user_updated(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserUpdated,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        let user = user.told(self.id, envelope);
        Ok(self.put_user(revision, User { limits: event.limits.clone(), ..user }))
    }

    pub(super) fn user_suspended(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserSuspended,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        if user.suspended.is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let suspended = Some(Act::of(revision, envelope));
        Ok(self.put_user(revision, User { suspended, ..user }))
    }

    pub(super) fn user_restored(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserRestored,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        if user.suspended.is_none() {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        Ok(self.put_user(revision, User { suspended: None, ..user }))
    }

    pub(super) fn user_removed(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &UserRemoved,
    ) -> Result<Change, Fault> {
        let user = self.present_user(envelope, event.user_id)?;
        let removed = Some(Act::of(revision, envelope));
        Ok(self.put_user(revision, User { removed, ..user }))
    }

    pub(super) fn session_started(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &SessionStarted,
    ) -> Result<Change, Fault> {
        if self.session(event.session_id).is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let user = self.present_user(envelope, event.user_id)?;
        if user.account_id != Some(event.account_id) {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        let session = Session::started(revision, envelope, event);
        self.people_mut().put_session(session);
        Ok(Change::Session(event.session_id))
    }

    /// A session that did not end before its time, to be changed.
    fn standing_session(&self, envelope: &Envelope, id: SessionId) -> Result<Session, Fault> {
        let session = self.session(id).filter(|it| it.ended.is_none());
        let session = session.ok_or_else(|| Fault::MissingTarget(envelope.event.event_type()))?;
        Ok(Session::clone(session))
    }

    pub(super) fn session_stepped_up(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &SessionSteppedUp,
    ) -> Result<Change, Fault> {
        let mut session = self.standing_session(envelope, event.session_id)?;
        session.changed_at = revision;
        if event.method.is_second_factor() {
            session.second_factor_at = Some(envelope.at);
        }
        if let Err(place) = session.methods.binary_search(&event.method) {
            session.methods.insert(place, event.method);
        }
        self.people_mut().put_session(session);
        Ok(Change::Session(event.session_id))
    }

    pub(super) fn session_ended(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &SessionEnded,
    ) -> Result<Change, Fault> {
        let session = self.standing_session(envelope, event.session_id)?;
        let ended = Some(SessionEnd { reason: event.reason, act: Act::of(revision, envelope) });
        self.people_mut().put_session(Session { ended, changed_at: revision, ..session });
        Ok(Change::Session(event.session_id))
    }
}

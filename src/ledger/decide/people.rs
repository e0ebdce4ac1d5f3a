//! Rules of users and their sessions.
//!
//! A user's authority is what they were granted, and nothing else. What brings it to
//! somebody (an invitation, one that is renewed, the end of a suspension) is giving: whoever
//! does it holds all of it. To suspend and to remove only takes away.

use std::collections::BTreeMap;

use projections::event::{
    Event, GrantRevoked, GrantTerms, InvitationRenewed, KeyRevoked, RevocationReason, RoleGranted,
    SessionEndReason, SessionEnded, SessionStarted, SessionSteppedUp, UserInvited, UserJoined,
    UserRemoved, UserRestored, UserSuspended, UserUpdated,
};
use projections::id::{SessionId, UserId};
use projections::organization::Change;
use projections::principal::{Owner, Principal};
use projections::session::Session;
use projections::user::{User, UserState};
use projections::verification::Authority;

use super::{Decided, Given, key, role};
use crate::ledger::built_in;
use crate::ledger::command::{
    Caller, EndSession, EndSessions, GRANTS_MAX, InviteUser, JoinUser, RenewInvitation,
    SESSIONS_MAX, SeatOwner, StartSession, StepUpSession, USERS_MAX, UpdateUser,
};
use crate::ledger::permissions::SESSIONS_WRITE;
use crate::ledger::rejection::Rejection;

fn done(user: &User) -> Decided {
    Decided::Done { outcome: Change::User(user.id), revision: user.changed_at, repeat: false }
}

/// A user who was not removed.
fn present<'a>(given: &'a Given<'_>, id: UserId) -> Result<&'a User, Rejection> {
    let user = given.state.user(id).filter(|user| user.state() != UserState::Removed);
    user.map(|user| &**user).ok_or(Rejection::UserNotFound(id))
}

/// Makes a user, who may join.
pub(super) fn invite(given: &Given<'_>, command: &InviteUser) -> Result<Decided, Rejection> {
    let id = command.user_id;
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(user) = given.state.user(id) {
        return Ok(done(user));
    }
    if given.state.profile().is_some_and(|it| it.personal_of.is_some()) {
        return Err(Rejection::OrganizationPersonal);
    }
    if let Some(other) = given.state.user_by_email(&command.email) {
        return Err(Rejection::EmailTaken(other.id));
    }
    if given.state.users_here() >= USERS_MAX {
        return Err(Rejection::TooManyUsers);
    }
    key::may_act_on_live(given)?;
    if command.grants.len() > GRANTS_MAX {
        return Err(Rejection::TooManyGrants(Principal::User(id)));
    }
    let invited = UserInvited {
        user_id: id,
        email: command.email,
        expires_at: given.now.saturating_add_millis(command.lifetime_ms),
        limits: command.limits.clone(),
        token: command.token,
    };
    let mut events: Vec<Event> = vec![invited.into()];
    for (place, grant) in command.grants.iter().enumerate() {
        let terms = role::terms(given, grant).map_err(|it| it.of_item("grants", place))?;
        events.push(RoleGranted { grant_id: grant.grant_id, terms }.into());
    }
    Ok(Decided::Events(events))
}

/// Makes the person whose own an organization is its one user, who may do everything in it.
/// Whoever was that once is not made it again: what was taken from them was taken.
pub(super) fn seat_owner(given: &Given<'_>, command: SeatOwner) -> Result<Decided, Rejection> {
    let SeatOwner { user_id, account_id, email, grant_id } = command;
    let own = given.state.profile().is_some_and(|it| it.personal_of == Some(account_id));
    if given.caller != Caller::Ledger || !own {
        return Err(Rejection::CallerNotInForce);
    }
    if let Some(user) = given.state.user(user_id) {
        return Ok(done(user));
    }
    let invited =
        UserInvited { user_id, email, expires_at: given.now, limits: BTreeMap::new(), token: None };
    let terms = GrantTerms {
        principal: Principal::User(user_id),
        role_id: built_in::ADMIN,
        domain: None,
        expires_at: None,
    };
    Ok(Decided::Events(vec![
        invited.into(),
        RoleGranted { grant_id, terms }.into(),
        UserJoined { user_id, account_id, email_proven: false }.into(),
    ]))
}

/// Whoever lets a user come to what they were granted holds all of it.
fn may_let_in(given: &Given<'_>, user: UserId) -> Result<(), Rejection> {
    key::may_act_for_all(given)?;
    let Some((_, authority)) = given.caller()? else { return Ok(()) };
    // As if the user were in force: what they hold then.
    let grants = given.state.grants_of(Principal::User(user));
    let granted = Authority::of_grants(grants, given.state, given.operator, given.now);
    key::may_give(&authority, None, &key::GivenWith::of(&granted), None)
}

/// Lets an invitation that was not accepted be accepted for longer.
pub(super) fn renew(given: &Given<'_>, command: RenewInvitation) -> Result<Decided, Rejection> {
    let user = present(given, command.user_id)?;
    match user.state() {
        UserState::Invited => {}
        UserState::Suspended => return Err(Rejection::UserIsSuspended(user.id)),
        UserState::Active | UserState::Removed => {
            return Err(Rejection::UserJoinedAlready(user.id));
        }
    }
    may_let_in(given, user.id)?;
    let renewed = InvitationRenewed {
        user_id: user.id,
        expires_at: given.now.saturating_add_millis(command.lifetime_ms),
        before: user.invitation_ends_at,
        token: command.token,
    };
    Ok(Decided::Events(vec![renewed.into()]))
}

/// Binds a user to the account of the person who accepted the invitation.
pub(super) fn join(given: &Given<'_>, command: JoinUser) -> Result<Decided, Rejection> {
    given.only_by(command.user_id)?;
    let user = present(given, command.user_id)?;
    if user.account_id == Some(command.account_id) {
        return Ok(done(user));
    }
    match user.state() {
        UserState::Invited => {}
        UserState::Suspended => return Err(Rejection::UserIsSuspended(user.id)),
        UserState::Active | UserState::Removed => {
            return Err(Rejection::UserJoinedAlready(user.id));
        }
    }
    if user.email != command.email {
        return Err(Rejection::InvitationForAnother);
    }
    // One account is one user of an organization.
    if given.state.user_by_account(command.account_id).is_some() {
        return Err(Rejection::UserJoinedAlready(user.id));
    }
    if given.now >= user.invitation_ends_at {
        return Err(Rejection::InvitationOver);
    }
    let joined = UserJoined {
        user_id: user.id,
        account_id: command.account_id,
        email_proven: command.email_proven,
    };
    Ok(Decided::Events(vec![joined.into()]))
}

/// Calls a user otherwise, or gives them other numbers.
pub(super) fn update(given: &Given<'_>, command: &UpdateUser) -> Result<Decided, Rejection> {
    let user = present(given, command.user_id)?;
    key::may_act_on_live(given)?;
    let limits = command.limits.clone().unwrap_or_else(|| user.limits.clone());
    if !command.renamed && limits == user.limits {
        return Ok(done(user));
    }
    let updated = UserUpdated {
        user_id: user.id,
        renamed: command.renamed,
        limits,
        before: user.limits.clone(),
    };
    Ok(Decided::Events(vec![updated.into()]))
}

/// Nobody takes from themself what another would have to give back.
fn not_oneself(given: &Given<'_>, user: UserId) -> Result<(), Rejection> {
    match given.caller.owner() == Some(Owner::User(user)) {
        true => Err(Rejection::NotOneself),
        false => Ok(()),
    }
}

/// Lets a user do nothing until they are restored.
pub(super) fn suspend(given: &Given<'_>, id: UserId) -> Result<Decided, Rejection> {
    let user = present(given, id)?;
    if user.state() == UserState::Suspended {
        return Err(Rejection::UserIsSuspended(id));
    }
    not_oneself(given, id)?;
    key::may_act_on_live(given)?;
    Ok(Decided::Events(vec![UserSuspended { user_id: id }.into()]))
}

/// Lets a suspended user do again what they may.
pub(super) fn restore(given: &Given<'_>, id: UserId) -> Result<Decided, Rejection> {
    let user = present(given, id)?;
    if user.state() != UserState::Suspended {
        return Err(Rejection::UserNotSuspended(id));
    }
    may_let_in(given, id)?;
    Ok(Decided::Events(vec![UserRestored { user_id: id }.into()]))
}

/// Ends a user for good, with their keys and all that they were granted. Their sessions end
/// with them.
pub(super) fn remove(given: &Given<'_>, id: UserId) -> Result<Decided, Rejection> {
    let user = present(given, id)?;
    let Some(before) = user.state_before() else { return Err(Rejection::UserNotFound(id)) };
    not_oneself(given, id)?;
    key::may_act_on_live(given)?;
    let mut events: Vec<Event> = vec![UserRemoved { user_id: id, before }.into()];
    for (key, before) in key::keys_to_end(given, Owner::User(id)) {
        let reason = RevocationReason::AffiliationChanged;
        events.push(KeyRevoked { key_id: key.id, reason, before }.into());
    }
    for grant in given.state.grants_of(Principal::User(id)) {
        let before = grant.terms.clone();
        events.push(GrantRevoked { grant_id: grant.id, before }.into());
    }
    Ok(Decided::Events(events))
}

/// Begins a session of a user who showed who they are. Where they have as many as they may,
/// the oldest ends.
pub(super) fn start_session(
    given: &Given<'_>,
    command: &StartSession,
) -> Result<Decided, Rejection> {
    given.only_by(command.user_id)?;
    if let Some(session) = given.state.session(command.session_id) {
        return Ok(session_done(session));
    }
    let user = present(given, command.user_id)?;
    if user.state() == UserState::Suspended {
        return Err(Rejection::UserIsSuspended(user.id));
    }
    if user.account_id != Some(command.account_id) {
        return Err(Rejection::UserNotFound(user.id));
    }
    let standing: Vec<_> = given
        .state
        .sessions_of(user.id, None)
        .filter(|it| it.ended.is_none() && !it.is_expired(given.now))
        .collect();
    let above = (standing.len() + 1).saturating_sub(SESSIONS_MAX);
    let started = SessionStarted {
        session_id: command.session_id,
        user_id: user.id,
        account_id: command.account_id,
        epoch: command.epoch,
        methods: command.methods.clone(),
        expires_at: given.now.saturating_add_millis(command.lifetime_ms),
    };
    // The first event is what the answer speaks of. Identifiers sort by their time.
    let mut events: Vec<Event> = vec![started.into()];
    events.extend(standing.iter().take(above).map(|it| ended(it, SessionEndReason::Revoked)));
    Ok(Decided::Events(events))
}

fn session_done(session: &Session) -> Decided {
    let outcome = Change::Session(session.id);
    Decided::Done { outcome, revision: session.changed_at, repeat: false }
}

fn ended(session: &Session, reason: SessionEndReason) -> Event {
    SessionEnded { session_id: session.id, reason }.into()
}

/// A session that is not over.
fn standing<'a>(given: &'a Given<'_>, id: SessionId) -> Result<&'a Session, Rejection> {
    let session = given.state.session(id);
    let session = session.filter(|it| it.ended.is_none() && !it.is_expired(given.now));
    session.map(|session| &**session).ok_or(Rejection::SessionNotFound(id))
}

/// Notes that the user of a session showed again who they are.
pub(super) fn step_up(given: &Given<'_>, command: StepUpSession) -> Result<Decided, Rejection> {
    let session = standing(given, command.session_id)?;
    given.only_by(session.user_id)?;
    let event = SessionSteppedUp { session_id: session.id, method: command.method };
    Ok(Decided::Events(vec![event.into()]))
}

/// A user's sessions are theirs to end, and those's who may end anybody's.
fn may_end_sessions(given: &Given<'_>, user: UserId) -> Result<(), Rejection> {
    let own = given.only_by(user).is_ok() || given.caller.owner() == Some(Owner::User(user));
    if own { Ok(()) } else { given.authorize(SESSIONS_WRITE) }
}

/// Ends a session before its time.
pub(super) fn end_session(given: &Given<'_>, command: EndSession) -> Result<Decided, Rejection> {
    let known = given.state.session(command.session_id);
    let owner = known.ok_or(Rejection::SessionNotFound(command.session_id))?.user_id;
    may_end_sessions(given, owner)?;
    let session = standing(given, command.session_id)?;
    Ok(Decided::Events(vec![ended(session, command.reason)]))
}

/// Ends a user's sessions before their time.
pub(super) fn end_sessions(given: &Given<'_>, command: EndSessions) -> Result<Decided, Rejection> {
    may_end_sessions(given, command.user_id)?;
    if given.state.user(command.user_id).is_none() {
        return Err(Rejection::UserNotFound(command.user_id));
    }
    let sessions = given.state.sessions_of(command.user_id, None);
    let sessions = sessions.filter(|it| it.ended.is_none() && !it.is_expired(given.now));
    let sessions = sessions.filter(|it| command.except != Some(it.id));
    let events: Vec<_> = sessions.map(|it| ended(it, SessionEndReason::Revoked)).collect();
    Ok(if events.is_empty() { Decided::Nothing } else { Decided::Events(events) })
}

impl Given<'_> {
    /// This is for a person themself, who showed who they are, and for the ledger.
    fn only_by(&self, user: UserId) -> Result<(), Rejection> {
        let allowed = match self.caller {
            Caller::Person { organization_id, user_id } => {
                user_id == user && organization_id == self.state.id
            }
            Caller::Session { organization_id, user_id, .. } => {
                let own = user_id == user && organization_id == self.state.id;
                own && self.caller().is_ok()
            }
            Caller::Key { .. } | Caller::Custodian { .. } | Caller::BreakGlass { .. } => false,
            Caller::Ledger => true,
        };
        if allowed { Ok(()) } else { Err(Rejection::CallerNotInForce) }
    }
}

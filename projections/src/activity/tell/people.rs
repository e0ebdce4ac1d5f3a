//! What events of users and their sessions say. Who a user is stands in them sealed, and
//! never becomes part of an entry.

use std::collections::BTreeMap;

use super::super::{TargetId, Value};
use super::{Told, text, texts};
use crate::event::{
    AuthenticationMethod, Event, InvitationRenewed, SessionEndReason, SessionEnded, SessionStarted,
    SessionSteppedUp, TokenWay, UserInvited, UserJoined, UserRemoved, UserRestored,
    UserStateBefore, UserSuspended, UserUpdated,
};
use crate::id::UserId;
use crate::text::Label;

fn user(id: UserId, deed: &'static str) -> Told<'static> {
    Told::of(TargetId::User(id), None, deed)
}

/// The user whose session an event began.
pub(super) fn names_user(event: &Event) -> Option<UserId> {
    if let Event::SessionStarted(data) = event { Some(data.user_id) } else { None }
}

pub(super) fn user_invited(data: &UserInvited) -> Told<'_> {
    // What stands for the e-mail is left out: it could be looked for elsewhere.
    let UserInvited { user_id, email: _, expires_at, limits, token } = data;
    let mut told = user(*user_id, "was invited");
    told.changes.made("invitation_expires_at", Value::Instant(*expires_at));
    told.changes.made_some("token", token.map(way));
    changed_limits(&mut told, &BTreeMap::new(), limits);
    told
}

pub(super) fn invitation_renewed(data: &InvitationRenewed) -> Told<'_> {
    let InvitationRenewed { user_id, expires_at, before, token } = data;
    let mut told = user(*user_id, "was invited again");
    let (before, after) = (Value::Instant(*before), Value::Instant(*expires_at));
    told.changes.changed("invitation_expires_at", Some(before), Some(after));
    told.changes.made_some("token", token.map(way));
    told
}

pub(super) fn user_joined(data: &UserJoined) -> Told<'_> {
    let UserJoined { user_id, account_id, email_proven } = data;
    let mut told = user(*user_id, "joined, let in");
    told.changes.changed("state", Some(text("invited")), Some(text("active")));
    told.changes.made("account_id", text(account_id.text()));
    if *email_proven {
        told.changes.made("email_proven", text("true"));
    }
    told
}

fn way(way: TokenWay) -> Value<'static> {
    text(match way {
        TokenWay::Delivered => "delivered",
        TokenWay::HandedOver => "handed_over",
        TokenWay::Withheld => "withheld",
    })
}

pub(super) fn user_updated(data: &UserUpdated) -> Told<'_> {
    let UserUpdated { user_id, renamed, limits, before } = data;
    let mut told = user(*user_id, if *renamed { "was renamed" } else { "was updated" });
    changed_limits(&mut told, before, limits);
    told
}

fn changed_limits(
    told: &mut Told<'_>,
    before: &BTreeMap<Label, i64>,
    after: &BTreeMap<Label, i64>,
) {
    let labels: std::collections::BTreeSet<&Label> = before.keys().chain(after.keys()).collect();
    for label in labels {
        let number = |map: &BTreeMap<Label, i64>| map.get(label).copied().map(Value::Number);
        told.changes.changed(format!("limits.{label}"), number(before), number(after));
    }
}

pub(super) fn user_suspended(data: &UserSuspended) -> Told<'_> {
    let mut told = user(data.user_id, "was suspended");
    told.changes.changed("suspended", Some(text("false")), Some(text("true")));
    told
}

pub(super) fn user_restored(data: &UserRestored) -> Told<'_> {
    let mut told = user(data.user_id, "was restored");
    told.changes.changed("suspended", Some(text("true")), Some(text("false")));
    told
}

pub(super) fn user_removed(data: &UserRemoved) -> Told<'_> {
    let mut told = user(data.user_id, "was removed");
    let before = match data.before {
        UserStateBefore::Invited => "invited",
        UserStateBefore::Active => "active",
        UserStateBefore::Suspended => "suspended",
    };
    told.changes.changed("state", Some(text(before)), Some(text("removed")));
    told
}

pub(super) fn session_started(data: &SessionStarted) -> Told<'_> {
    let SessionStarted { session_id, user_id, account_id, epoch: _, methods, expires_at } = data;
    let mut told = Told::of(TargetId::Session(*session_id), None, "was started");
    told.changes.made("user_id", text(user_id.text()));
    told.changes.made("account_id", text(account_id.text()));
    let methods: Vec<_> = methods.iter().copied().map(method).collect();
    told.changes.made("methods", texts(&methods));
    told.changes.made("expires_at", Value::Instant(*expires_at));
    told
}

fn method(method: AuthenticationMethod) -> &'static str {
    match method {
        AuthenticationMethod::Password => "password",
        AuthenticationMethod::Totp => "totp",
        AuthenticationMethod::RecoveryCode => "recovery_code",
    }
}

pub(super) fn session_stepped_up(data: &SessionSteppedUp) -> Told<'_> {
    let SessionSteppedUp { session_id, method: shown } = data;
    let mut told = Told::of(TargetId::Session(*session_id), None, "was stepped up");
    told.changes.made("method", text(method(*shown)));
    told
}

pub(super) fn session_ended(data: &SessionEnded) -> Told<'_> {
    let mut told = Told::of(TargetId::Session(data.session_id), None, "was ended");
    told.reason = Some(match data.reason {
        SessionEndReason::LoggedOut => "logged_out",
        SessionEndReason::Revoked => "revoked",
        SessionEndReason::RefreshReused => "refresh_reused",
    });
    told.changes.changed("state", Some(text("active")), Some(text("ended")));
    told
}

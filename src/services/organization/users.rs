//! Users of an organization: how requests about them become commands, and rows answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use projections::event::TokenWay;
use projections::id::{OrganizationId, UserId};
use projections::organization::Change;
use projections::principal::Principal;
use projections::sealed::Subject;
use projections::text::Name;
use projections::user::{Identity, User, UserState};
use prost::Message as _;
use tonic::Status;

use crate::delivery::Delivery;
use crate::ledger::command::{
    About, Command, GrantRole, InviteUser, Order, Personal, RenewInvitation, UpdateUser,
};
use crate::ledger::email::Email;
use crate::ledger::rejection::Rejection;
use crate::ledger::tables::Published;
use crate::ledger::vault::SubjectKeyState;
use crate::ledger::vault::seal::{OpenError, open};
use crate::ledger::{Executed, Ledger};
use crate::proto;
use crate::proto::UserIdentityState as Shown;
use crate::services::key::{Context, comment};
use crate::services::session::{Sent, send};
use crate::services::{page, read, status, write};

/// Most roles that come with an invitation.
const GRANTS_AT_ONCE_MAX: usize = 20;

/// The order to invite a user.
pub(super) fn invite(
    ledger: &Ledger,
    organization: OrganizationId,
    mut context: Context,
    message: &proto::InviteUserRequest,
) -> Result<Order, Status> {
    let email: Email = read::field("email", &message.email)?;
    let name: Name = read::field("name", &message.name)?;
    let user_id = ledger.ids().user(ledger.clock().now());
    let command = InviteUser {
        user_id,
        email: ledger.email_digest(&email),
        lifetime_ms: read::invitation_lifetime(message.invitation_lifetime.as_ref())?,
        limits: read::limits("limits", &message.limits)?,
        grants: grants(ledger, user_id, &message.grants)?,
        token: None,
    };
    context.comment(&message.comment)?;
    context.about = Some(about(organization, user_id, email.as_str(), &name));
    let command = Command::InviteUser(Box::new(command));
    context.order_in(ledger, organization, command, message)
}

/// What people know a user by, to be sealed.
fn about(organization: OrganizationId, user: UserId, email: &str, name: &Name) -> About {
    let data = [(Identity::EMAIL, email), (Identity::NAME, name.as_str())];
    let data = data.map(|(what, text)| (what.to_owned(), text.to_owned())).into();
    About { subject: Subject::user(organization, user), data: Personal(data) }
}

/// Roles that come with an invitation.
fn grants(
    ledger: &Ledger,
    user_id: UserId,
    messages: &[proto::InitialGrant],
) -> Result<Vec<GrantRole>, Status> {
    if messages.len() > GRANTS_AT_ONCE_MAX {
        let problem = format_args!("must be at most {GRANTS_AT_ONCE_MAX}");
        return Err(status::invalid("grants", problem));
    }
    let mut grants = Vec::with_capacity(messages.len());
    let mut named = BTreeSet::new();
    for (place, message) in messages.iter().enumerate() {
        let of_item = |error| status::in_field(&format!("grants[{place}]"), error);
        let grant = grant(ledger, user_id, message).map_err(of_item)?;
        if !named.insert((grant.role_id, grant.domain.clone())) {
            return Err(status::invalid(format!("grants[{place}]"), "is there twice"));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn grant(
    ledger: &Ledger,
    user_id: UserId,
    message: &proto::InitialGrant,
) -> Result<GrantRole, Status> {
    Ok(GrantRole {
        grant_id: ledger.ids().grant(ledger.clock().now()),
        principal: Principal::User(user_id),
        role_id: read::field("role_id", &message.role_id)?,
        domain: read::optional("domain", &message.domain)?,
        expiry: read::expiry!(initial_grant, message)?,
    })
}

/// The order to renew an invitation.
pub(super) fn renew(
    ledger: &Ledger,
    organization: OrganizationId,
    mut context: Context,
    message: &proto::RenewInvitationRequest,
) -> Result<Order, Status> {
    context.comment(&message.comment)?;
    let command = RenewInvitation {
        user_id: read::field("user_id", &message.user_id)?,
        lifetime_ms: read::invitation_lifetime(message.invitation_lifetime.as_ref())?,
        token: None,
    };
    context.order_in(ledger, organization, Command::RenewInvitation(command), message)
}

/// The order to change a user. A name is sealed together with the e-mail, which is read back
/// for it: an event holds all of what people know a user by, or nothing.
pub(super) async fn update(
    ledger: &Ledger,
    organization: &Published,
    mut context: Context,
    message: &proto::UpdateUserRequest,
) -> Result<Order, Status> {
    let user_id = read::field("user_id", &message.user_id)?;
    let name: Option<Name> = read::optional("name", &message.name)?;
    let limits = message.limits.as_ref().map(|it| read::limits("limits.entries", &it.entries));
    let limits = limits.transpose()?;
    context.comment(&message.comment)?;
    if let Some(name) = name {
        let user = organization.tables().user(user_id).cloned();
        let user = user.ok_or_else(|| status::rejected(&Rejection::UserNotFound(user_id)))?;
        let known = known_by(ledger, organization.id, &user).await?;
        match known.state {
            Shown::Erased => return Err(status::user_erased(user_id)),
            Shown::Unreadable => return Err(status::unsealable(OpenError::Damaged)),
            Shown::Unspecified | Shown::Shown if known.name == name.as_str() => {}
            Shown::Unspecified | Shown::Shown => {
                context.about = Some(about(organization.id, user_id, &known.email, &name));
            }
        }
    }
    let command = UpdateUser { user_id, renamed: context.about.is_some(), limits };
    let command = Command::UpdateUser(Box::new(command));
    context.order_in(ledger, organization.id, command, message)
}

/// Carries out a change of one user; gives the user as they are then, and where that was
/// recorded.
pub(super) async fn change(
    ledger: &Arc<Ledger>,
    organization: &Published,
    order: &Order,
) -> Result<(proto::User, Option<proto::StreamRevision>), Status> {
    let executed = ledger.execute(organization.id, order).await.map_err(status::from)?;
    outcome(ledger, organization, executed).await
}

/// An invitation that was made or renewed.
pub(super) struct Invitation {
    pub(super) user: proto::User,
    pub(super) revision: Option<proto::StreamRevision>,
    pub(super) sent: Sent,
}

/// Carries out an invitation, and sees to its token. A repeat gets none: whoever lost it
/// renews the invitation.
pub(super) async fn invited(
    ledger: &Arc<Ledger>,
    (delivery, way): (&Delivery, TokenWay),
    organization: &Published,
    mut order: Order,
) -> Result<Invitation, Status> {
    // Recorded with the invitation, before there is a token that could go it.
    if let Command::InviteUser(it) = &mut order.command {
        it.token = Some(way);
    } else if let Command::RenewInvitation(it) = &mut order.command {
        it.token = Some(way);
    }
    let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
    let (user, revision) = outcome(ledger, organization, executed).await?;
    let Change::User(id) = executed.outcome else {
        return Err(status::outcome_missing(executed.outcome));
    };
    let sent = if executed.repeat {
        Sent { token: String::new(), sent: false }
    } else {
        send(ledger, delivery, organization, id, way).await?
    };
    Ok(Invitation { user, revision, sent })
}

/// The user that a command made or changed, and where that was recorded.
async fn outcome(
    ledger: &Arc<Ledger>,
    organization: &Published,
    executed: Executed,
) -> Result<(proto::User, Option<proto::StreamRevision>), Status> {
    let missing = || status::outcome_missing(executed.outcome);
    let Change::User(id) = executed.outcome else { return Err(missing()) };
    let user = organization.tables().user(id).cloned().ok_or_else(missing)?;
    // The change was made, whatever the vault says: that was logged.
    let known = known_by(ledger, organization.id, &user).await.unwrap_or_default();
    let revision = write::revision(&organization.stream, executed.revision);
    Ok((known.with(write::user(&user, organization.id)), revision))
}

/// One user, with what was written when they were suspended or removed.
pub(super) async fn get(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::GetUserRequest,
) -> Result<proto::GetUserResponse, Status> {
    let id: UserId = read::field("user_id", &message.user_id)?;
    let tables = Arc::clone(&organization.tables());
    let user = tables.user(id).ok_or_else(|| status::rejected(&Rejection::UserNotFound(id)))?;
    let known = known_by(ledger, organization.id, user).await?;
    let mut shown = known.with(write::user(user, organization.id));
    for (act, row) in [(&mut shown.suspended, &user.suspended), (&mut shown.removed, &user.removed)]
    {
        if let (Some(act), Some(row)) = (act, row) {
            (act.comment, act.comment_erased) = comment(ledger, organization, row.revision).await?;
        }
    }
    let revision = write::revision(&organization.stream, tables.revision());
    Ok(proto::GetUserResponse { user: Some(shown), revision })
}

/// A page of the users that a request asks for.
pub(super) async fn list(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListUsersRequest,
) -> Result<proto::ListUsersResponse, Status> {
    let state = state(message.state)?;
    let email: Option<Email> = read::optional("email", &message.email)?;
    let email = email.map(|email| ledger.email_digest(&email));
    let rows_max = page::size(message.page_size)?;
    let digest = email.map(|it| it.to_string()).unwrap_or_default();
    let parameters = [organization.stream.as_str(), &message.state.to_string(), &digest];
    let list = page::List::new(ledger.stamper(), "ListUsers", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(UserId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let rows = || -> Box<dyn Iterator<Item = &Arc<User>> + Send> {
        match &email {
            Some(email) => Box::new(tables.user_by_email(email).into_iter()),
            None => Box::new(tables.users_after(after)),
        }
    };
    let wanted = |row: &User| state.is_none_or(|state| row.state() == state);
    // One question to the vault for all that may be on the page.
    let shown = rows().take(page::PAGE_WORK_MAX).filter(|row| wanted(row)).take(rows_max);
    let known = shown.filter(|row| row.identity.is_some());
    let subjects: Vec<_> = known.map(|row| Subject::user(organization.id, row.id)).collect();
    let keys = ledger.subject_keys(&subjects).await;
    let keys = keys.map_err(|error| status::from_vault(&error))?;
    let mut keys = keys.iter();
    let mut rows = rows();
    let mut next = rows.next();
    let (mut users, mut bytes, mut looked) = (Vec::new(), 0, 0);
    let mut next_page_token = String::new();
    while let Some(row) = next {
        next = rows.next();
        looked += 1;
        if wanted(row) {
            let known = match &row.identity {
                Some(identity) => opened(row, identity, keys.next()),
                None => KnownBy::default(),
            };
            let user = known.with(write::user(row, organization.id));
            bytes += user.encoded_len();
            users.push(user);
        }
        let full = users.len() == rows_max
            || bytes >= page::PAGE_BYTES_MAX
            || looked == page::PAGE_WORK_MAX;
        if full && next.is_some() {
            next_page_token = list.token(row.id.to_bytes());
            break;
        }
    }
    let revision = write::revision(&organization.stream, tables.revision());
    Ok(proto::ListUsersResponse { users, next_page_token, revision })
}

/// Users as messages, with what people know them by as far as it can be read now.
pub(in crate::services) async fn shown(
    ledger: &Ledger,
    organization: OrganizationId,
    rows: &[Arc<User>],
) -> Result<Vec<proto::User>, Status> {
    let known = rows.iter().filter(|row| row.identity.is_some());
    let subjects: Vec<_> = known.map(|row| Subject::user(organization, row.id)).collect();
    let keys = ledger.subject_keys(&subjects).await;
    let keys = keys.map_err(|error| status::from_vault(&error))?;
    let mut keys = keys.iter();
    let shown = rows.iter().map(|row| {
        let known = match &row.identity {
            Some(identity) => opened(row, identity, keys.next()),
            None => KnownBy::default(),
        };
        known.with(write::user(row, organization))
    });
    Ok(shown.collect())
}

fn state(value: i32) -> Result<Option<UserState>, Status> {
    match proto::UserState::try_from(value) {
        Ok(proto::UserState::Unspecified) => Ok(None),
        Ok(proto::UserState::Invited) => Ok(Some(UserState::Invited)),
        Ok(proto::UserState::Active) => Ok(Some(UserState::Active)),
        Ok(proto::UserState::Suspended) => Ok(Some(UserState::Suspended)),
        Ok(proto::UserState::Removed) => Ok(Some(UserState::Removed)),
        Err(_) => Err(status::invalid("state", "is no known state")),
    }
}

/// What people know a user by, as far as it can be read. It has no `Debug`.
struct KnownBy {
    state: Shown,
    email: String,
    name: String,
}

impl Default for KnownBy {
    fn default() -> Self {
        Self { state: Shown::Unspecified, email: String::new(), name: String::new() }
    }
}

impl KnownBy {
    fn with(self, user: proto::User) -> proto::User {
        let Self { state, email, name } = self;
        proto::User { identity_state: state.into(), email, name, ..user }
    }
}

/// Opens what people know a user by.
async fn known_by(
    ledger: &Ledger,
    organization: OrganizationId,
    user: &User,
) -> Result<KnownBy, Status> {
    let Some(identity) = &user.identity else { return Ok(KnownBy::default()) };
    let subject = Subject::user(organization, user.id);
    let key = ledger.subject_key(&subject).await.map_err(|error| status::from_vault(&error))?;
    Ok(opened(user, identity, Some(&key)))
}

/// What people know a user by, with what the vault has for them.
fn opened(user: &User, identity: &Identity, key: Option<&SubjectKeyState>) -> KnownBy {
    // There is one for each that is asked for.
    let key = key.unwrap_or(&SubjectKeyState::Absent);
    match open(key, identity.event_id, &identity.sealed) {
        Ok(mut opened) => {
            let mut take = |what: &str| opened.remove(what).unwrap_or_default();
            KnownBy {
                state: Shown::Shown,
                email: take(Identity::EMAIL),
                name: take(Identity::NAME),
            }
        }
        Err(OpenError::Erased) => KnownBy { state: Shown::Erased, ..KnownBy::default() },
        Err(error @ OpenError::Damaged) => {
            // One user's damage must not hide the others.
            tracing::error!(user = %user.id, %error, "open sealed data");
            KnownBy { state: Shown::Unreadable, ..KnownBy::default() }
        }
    }
}

#[cfg(test)]
mod tests;

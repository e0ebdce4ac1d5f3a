//! Joining an organization: the one-time token of an invitation, and whose account joins.
//!
//! Whoever has the token is who was invited. A person who has no account sets its first
//! password with it; one who has shows that it is theirs, by a session or as a login does. So
//! nobody's account is touched by those who invite.

use std::sync::Arc;

use projections::account::Account;
use projections::event::TokenWay;
use projections::id::{AccountId, OrganizationId, UserId};
use projections::principal::Principal;
use projections::text::Name;
use projections::user::{Identity, User, UserState};
use tonic::{Request, Response, Status};

use super::{SessionCaller, identify, person, signing_in};
use crate::delivery::{Delivery, Message, Offered, TokenKind};
use crate::ledger::Ledger;
use crate::ledger::accounts::command::{AccountCommand, AccountOrder, CreateAccount};
use crate::ledger::command::{Command, JoinUser};
use crate::ledger::email::Email;
use crate::ledger::secret::Secret;
use crate::ledger::sign_in::one_time::{Looked, Occasion, PresentedOneTime};
use crate::ledger::tables::Published;
use crate::ledger::vault::seal::{OpenError, open};
use crate::proto;
use crate::services::authentication::{correlation_id, origin, shows_credential, shows_key};
use crate::services::key::known;
use crate::services::{read, status, write};

/// Accepts an invitation.
pub(in crate::services) async fn accept(
    ledger: &Arc<Ledger>,
    request: Request<proto::AcceptInvitationRequest>,
) -> Result<Response<proto::AcceptInvitationResponse>, Status> {
    let sign_in = signing_in(ledger)?;
    let message = request.get_ref();
    let presented =
        PresentedOneTime::invitation(&message.token).ok_or_else(status::token_failed)?;
    let Occasion::Invitation(organization_id, user_id) = presented.occasion else {
        return Err(status::token_failed());
    };
    let now = ledger.clock().now();
    let looked = sign_in.one_time_tokens.look(&presented, now).await;
    let looked = looked.map_err(|error| status::sign_in_fault(&error))?;
    let Looked::Good { version, delivered: email_proven } = looked else {
        return Err(status::token_failed());
    };
    let organization = known(ledger, organization_id)?;
    let user = organization.tables().user(user_id).cloned();
    let user = user.filter(|user| user.state() == UserState::Invited);
    let user = user.ok_or_else(status::token_failed)?;
    let (account, account_created) = account_of(ledger, &request, &user, organization_id).await?;
    let email = account.email().ok_or_else(status::token_failed)?;
    let account_id = account.id;
    let command = JoinUser { user_id, account_id, email, email_proven };
    let order = person(ledger, &request, organization_id, user_id, Command::JoinUser(command))?;
    let executed = ledger.execute(organization_id, &order).await.map_err(status::from)?;
    // It joined: the token is good for nothing more, whether or not this succeeds.
    if let Err(error) = sign_in.one_time_tokens.use_up(presented.occasion, version).await {
        tracing::warn!(%error, user = %user_id, "what is kept of an invitation stays for now");
    }
    if account.default_organization().is_none() {
        lead_to(ledger, &request, &account, organization_id).await?;
    }
    if account_created && let Err(error) = ledger.complete_personal(&account).await {
        // They joined all the same; the next login, or the next start, makes up for it.
        tracing::warn!(%error, account = %account_id, "a personal organization is not there yet");
    }
    let revision = write::revision(&organization.stream, executed.revision);
    Ok(Response::new(proto::AcceptInvitationResponse {
        organization_id: organization_id.text(),
        user_id: user_id.text(),
        account_id: account_id.text(),
        account_created,
        revision,
    }))
}

/// What becomes of the token of an invitation.
pub(in crate::services) struct Sent {
    /// The token, for whoever invited, where nobody delivers it.
    pub(in crate::services) token: String,
    /// Whether it is on its way to the user.
    pub(in crate::services) sent: bool,
}

/// Makes the token of an invitation that was just recorded, and has it delivered; where nobody
/// delivers, it goes the way that was recorded.
pub(in crate::services) async fn send(
    ledger: &Ledger,
    delivery: &Delivery,
    organization: &Published,
    user_id: UserId,
    way: TokenWay,
) -> Result<Sent, Status> {
    let sign_in = signing_in(ledger)?;
    let tables = Arc::clone(&organization.tables());
    let user = tables.user(user_id).ok_or_else(|| status::user_not_found(user_id))?;
    let expires_at = user.invitation_ends_at;
    let occasion = Occasion::Invitation(organization.id, user_id);
    let delivered = way == TokenWay::Delivered;
    let token = sign_in.one_time_tokens.make(occasion, expires_at, delivered).await;
    let token = token.map_err(|error| status::sign_in_fault(&error))?;
    match way {
        TokenWay::Delivered => {}
        // Whoever has it becomes whom they invited.
        TokenWay::HandedOver => {
            return Ok(Sent { token: token.expose().to_owned(), sent: false });
        }
        TokenWay::Withheld => return Ok(Sent { token: String::new(), sent: false }),
    }
    let message = Message {
        kind: TokenKind::Invitation,
        to: Secret::new(who(ledger, user).await?.email),
        token,
        organization: tables.profile().map(|profile| profile.name.clone()),
        expires_at,
    };
    match delivery.offer(message) {
        Offered::Taken => Ok(Sent { token: String::new(), sent: true }),
        Offered::Nobody(_) | Offered::Busy => Err(status::delivery_busy()),
    }
}

/// The account that joins, and whether it was made for that.
async fn account_of(
    ledger: &Arc<Ledger>,
    request: &Request<proto::AcceptInvitationRequest>,
    user: &User,
    home: OrganizationId,
) -> Result<(Arc<Account>, bool), Status> {
    let message = request.get_ref();
    // A cookie that a browser still keeps is nobody's word where a password is given.
    let in_cookie = || message.password.is_empty() && shows_credential(request);
    if shows_key(request) || in_cookie() {
        let own = SessionCaller::of(ledger, request)?;
        return if own.account.email() == Some(user.email) {
            Ok((own.account, false))
        } else {
            Err(status::rejected(&crate::ledger::rejection::Rejection::InvitationForAnother))
        };
    }
    let invited = who(ledger, user).await?;
    let email: Email = invited.email.parse().map_err(|_| status::erased("the invited e-mail"))?;
    let there = ledger.account_by_email(&user.email).map_err(status::account_stopped)?;
    if there.is_some() {
        let shown = identify(ledger, request, &email, &message.password, &message.code).await?;
        return Ok((shown.account, false));
    }
    let name = if message.name.is_empty() { invited.name } else { message.name.clone() };
    let name: Name = read::field("name", &name)?;
    let account_id = create(ledger, request, home, user.id, email, name).await?;
    let account = ledger.account(account_id).map_err(status::account_stopped)?;
    Ok((account.ok_or_else(status::token_failed)?, true))
}

/// Makes the account of a person who was invited, with the password that they chose.
async fn create(
    ledger: &Arc<Ledger>,
    request: &Request<proto::AcceptInvitationRequest>,
    home: OrganizationId,
    user: UserId,
    email: Email,
    name: Name,
) -> Result<AccountId, Status> {
    let sign_in = signing_in(ledger)?;
    let text = &request.get_ref().password;
    let password =
        super::person::chosen(ledger, "password", text, email.as_str(), Some(home)).await?;
    // One account for one user, however often this is tried.
    let account_id = AccountId::from_bytes(user.to_bytes());
    let seen = sign_in.passwords.version(account_id).await;
    let seen = seen.map_err(|error| status::password_fault(&error))?;
    // Behind that: whose account came to be meanwhile keeps the password that it has.
    if ledger.account(account_id).map_err(status::account_stopped)?.is_some() {
        return Err(status::token_failed());
    }
    // On the disk before the event that says there is one.
    let set = sign_in.passwords.set(account_id, password, seen).await;
    set.map_err(|error| status::password_fault(&error))?;
    let draft = CreateAccount {
        account_id,
        email,
        name,
        has_password: true,
        default_organization: Some(home),
        personal: sign_in.personal.for_new_accounts,
    };
    let order = account_order(ledger, request, account_id)?;
    let created = ledger.create_account(&draft, &order).await.map_err(status::from)?;
    Ok(created.account_id)
}

fn account_order(
    ledger: &Ledger,
    request: &Request<proto::AcceptInvitationRequest>,
    account_id: AccountId,
) -> Result<AccountOrder, Status> {
    Ok(AccountOrder {
        actor: Principal::Account(account_id),
        credential: None,
        session: None,
        request: None,
        correlation_id: correlation_id(ledger, request)?,
        causation_id: None,
        personal: origin(request),
    })
}

/// A login that names no organization leads to this one from here on.
async fn lead_to(
    ledger: &Arc<Ledger>,
    request: &Request<proto::AcceptInvitationRequest>,
    account: &Account,
    home: OrganizationId,
) -> Result<(), Status> {
    let order = account_order(ledger, request, account.id)?;
    let command = AccountCommand::SetDefaultOrganization(home);
    ledger.change_account(account.id, command, &order).await.map_err(status::from)?;
    Ok(())
}

/// Who was invited.
struct Invited {
    email: String,
    name: String,
}

async fn who(ledger: &Ledger, user: &User) -> Result<Invited, Status> {
    let gone = || status::erased("the invited e-mail");
    let identity = user.identity.as_ref().ok_or_else(gone)?;
    let key = ledger.subject_key(&identity.sealed.subject).await;
    let key = key.map_err(|error| status::from_vault(&error))?;
    match open(&key, identity.event_id, &identity.sealed) {
        Ok(mut data) => Ok(Invited {
            email: data.remove(Identity::EMAIL).ok_or_else(gone)?,
            name: data.remove(Identity::NAME).unwrap_or_default(),
        }),
        Err(OpenError::Erased) => Err(gone()),
        Err(error @ OpenError::Damaged) => Err(status::sign_in_fault(&error)),
    }
}

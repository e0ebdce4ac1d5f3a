//! SessionService: how people log in, and what they hold while they are.
//!
//! Whoever logs in is told that something was wrong, and not what; an e-mail that is nobody's
//! takes as long, and is counted in the same way, as one that is somebody's.

mod ends;
mod invitation;
mod login;
mod person;
mod tokens;

use std::sync::Arc;

use projections::account::Account;
use projections::event::{AuthenticationMethod, SessionEndReason};
use projections::id::{OrganizationId, SessionId, UserId};
use projections::principal::Principal;
use projections::session::Session;
use projections::time::Timestamp;
use projections::verification::Authority;
use tonic::{Request, Response, Status};

use ends::forget_refresh;
pub(super) use invitation::{Sent, accept, send};
use login::identify;
pub use tokens::{CSRF_HEADER, csrf_token_matches, session_cookie};

use super::authentication::{
    Authenticated, authenticate, authenticate_caller, correlation_id, origin,
};
use super::key::{Context, known};
use super::{Door, page, read, status, write};
use crate::delivery::Delivery;
use crate::ledger::accounts::HeldAccount;
use crate::ledger::accounts::command::{AccountOrder, HeldSession};
use crate::ledger::command::{Caller, Command, EndSession, Order, StepUpSession};
use crate::ledger::permissions::SESSIONS_READ;
use crate::ledger::sign_in::SignIn;
use crate::ledger::sign_in::recovery::CodeUse;
use crate::ledger::sign_in::refresh::{PresentedRefresh, Rotation};
use crate::ledger::sign_in::totp::CodeShown;
use crate::ledger::tables::Published;
use crate::ledger::{Ledger, sign_in};
use crate::proto;
use crate::proto::session_service_server::SessionService;

/// The service.
pub struct Sessions {
    door: Door,
    delivery: Arc<Delivery>,
}

impl Sessions {
    /// The service behind this door; tokens that people are sent go this way.
    #[must_use]
    pub fn new(door: Door, delivery: Arc<Delivery>) -> Self {
        Self { door, delivery }
    }
}

/// What signing in rests on.
pub(super) fn signing_in(ledger: &Ledger) -> Result<&Arc<SignIn>, Status> {
    ledger.sign_in().ok_or_else(status::starting)
}

/// A caller who calls with a session.
pub(super) struct SessionCaller {
    caller: Authenticated,
    organization: Arc<Published>,
    session: Arc<Session>,
    account: Arc<Account>,
}

impl SessionCaller {
    /// Whoever calls with a session that stands.
    pub(super) fn of<T>(ledger: &Ledger, request: &Request<T>) -> Result<Self, Status> {
        Self::known(ledger, authenticate_caller(ledger, request)?)
    }

    /// A caller who was let in, if it is with a session.
    fn known(ledger: &Ledger, caller: Authenticated) -> Result<Self, Status> {
        let Caller::Session { organization_id, session_id, .. } = caller.caller else {
            return Err(status::session_required());
        };
        let organization = known(ledger, organization_id)?;
        let session = organization.tables().session(session_id).cloned();
        let session = session.ok_or_else(status::session_required)?;
        let account = ledger.account(session.account_id).map_err(status::account_stopped)?;
        let account = account.ok_or_else(status::session_required)?;
        Ok(Self { caller, organization, session, account })
    }

    fn held(&self) -> HeldSession {
        let Session { id, epoch, .. } = *self.session;
        HeldSession { organization_id: self.organization.id, id, epoch }
    }

    /// Keeps all others from changing the account, and the session from ending, meanwhile.
    async fn hold_account(&self, ledger: &Ledger) -> Result<HeldAccount, Status> {
        ledger.hold_account(self.account.id, Some(self.held())).await.map_err(status::from)
    }

    /// A command of the session's own account.
    fn account_order<T>(
        &self,
        ledger: &Ledger,
        request: &Request<T>,
    ) -> Result<AccountOrder, Status> {
        Ok(AccountOrder {
            actor: Principal::Account(self.account.id),
            credential: self.caller.caller.credential(),
            session: Some(self.held()),
            request: None,
            correlation_id: correlation_id(ledger, request)?,
            causation_id: None,
            personal: origin(request),
        })
    }

    /// Shows a second factor: a code of the authenticator, or a recovery code.
    async fn show_code(
        &self,
        ledger: &Arc<Ledger>,
        _: &person::Attempt,
        order: &AccountOrder,
        code: &str,
    ) -> Result<AuthenticationMethod, Status> {
        person::has_room(ledger)?;
        let shown = login::second_factor(ledger, &self.account, order, code).await?;
        shown.ok_or_else(|| match self.account.has_totp() {
            true => status::login_failed(),
            false => status::no_authenticator(),
        })
    }
}

/// A user who showed who they are, as somebody who gives commands.
pub(super) fn person<T>(
    ledger: &Ledger,
    request: &Request<T>,
    organization_id: OrganizationId,
    user_id: UserId,
    command: Command,
) -> Result<Order, Status> {
    Ok(Order {
        caller: Caller::Person { organization_id, user_id },
        command,
        expected: None,
        request: None,
        correlation_id: correlation_id(ledger, request)?,
        causation_id: None,
        personal: origin(request),
        about: None,
    })
}

/// A session, as a message.
pub(super) fn write_session(
    session: &Session,
    account: Option<&Account>,
    organization_id: OrganizationId,
    now: Timestamp,
    current: Option<SessionId>,
) -> proto::Session {
    let spared = account.is_some_and(|it| it.stands(session.id, session.epoch));
    let state = if session.ended.is_some() || !spared {
        proto::SessionState::Ended
    } else if session.is_expired(now) {
        proto::SessionState::Expired
    } else {
        proto::SessionState::Active
    };
    proto::Session {
        id: session.id.text(),
        organization_id: organization_id.text(),
        user_id: session.user_id.text(),
        account_id: session.account_id.text(),
        methods: session.methods.iter().map(|it| wire_method(*it).into()).collect(),
        started_at: Some(write::timestamp(session.started_at)),
        expires_at: Some(write::timestamp(session.expires_at)),
        second_factor_at: session.second_factor_at.map(write::timestamp),
        current: current == Some(session.id),
        state: state.into(),
    }
}

fn wire_method(method: AuthenticationMethod) -> proto::AuthenticationMethod {
    match method {
        AuthenticationMethod::Password => proto::AuthenticationMethod::Password,
        AuthenticationMethod::Totp => proto::AuthenticationMethod::Totp,
        AuthenticationMethod::RecoveryCode => proto::AuthenticationMethod::RecoveryCode,
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn login(
        &self,
        request: Request<proto::LoginRequest>,
    ) -> Result<Response<proto::LoginResponse>, Status> {
        let entered = self.door.enter()?;
        login::login(entered.ledger(), request).await
    }

    async fn refresh(
        &self,
        request: Request<proto::RefreshRequest>,
    ) -> Result<Response<proto::RefreshResponse>, Status> {
        let entered = self.door.enter()?;
        refresh(entered.ledger(), request).await
    }

    async fn logout(
        &self,
        request: Request<proto::LogoutRequest>,
    ) -> Result<Response<proto::LogoutResponse>, Status> {
        let entered = self.door.enter()?;
        ends::logout(entered.ledger(), &request).await
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate_caller(ledger, &request)?;
        who_am_i(ledger, &caller).await.map(Response::new)
    }

    async fn step_up(
        &self,
        request: Request<proto::StepUpRequest>,
    ) -> Result<Response<proto::StepUpResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let own = SessionCaller::of(ledger, &request)?;
        let in_cookies = tokens::came_in_cookies(&request);
        let order = own.account_order(ledger, &request)?;
        let context = Context::of(ledger, &own.caller, &request)?;
        let attempt = person::Attempt::begin(ledger, &own, &request)?;
        let method = own.show_code(ledger, &attempt, &order, &request.get_ref().code).await?;
        attempt.taken_back(ledger)?;
        let session_id = own.session.id;
        let order =
            context.plain_order(Command::StepUpSession(StepUpSession { session_id, method }));
        ledger.execute(own.organization.id, &order).await.map_err(status::from)?;
        let session = standing(ledger, &own.organization, session_id)?;
        let now = ledger.clock().now();
        let access = tokens::Issued::access(ledger, own.organization.id, &session, now)?;
        let written =
            write_session(&session, Some(&own.account), own.organization.id, now, Some(session_id));
        Ok(tokens::answer(ledger, access, in_cookies, session.expires_at, |tokens| {
            proto::StepUpResponse { session: Some(written), tokens: Some(tokens) }
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        list_sessions(ledger, &request).map(Response::new)
    }

    async fn revoke_sessions(
        &self,
        request: Request<proto::RevokeSessionsRequest>,
    ) -> Result<Response<proto::RevokeSessionsResponse>, Status> {
        let entered = self.door.enter()?;
        ends::revoke(entered.ledger(), request).await.map(Response::new)
    }

    async fn enroll_totp(
        &self,
        request: Request<proto::EnrollTotpRequest>,
    ) -> Result<Response<proto::EnrollTotpResponse>, Status> {
        let entered = self.door.enter()?;
        person::enroll_totp(entered.ledger(), &request).await.map(Response::new)
    }

    async fn confirm_totp(
        &self,
        request: Request<proto::ConfirmTotpRequest>,
    ) -> Result<Response<proto::ConfirmTotpResponse>, Status> {
        let entered = self.door.enter()?;
        person::confirm_totp(entered.ledger(), &request).await.map(Response::new)
    }

    async fn remove_totp(
        &self,
        request: Request<proto::RemoveTotpRequest>,
    ) -> Result<Response<proto::RemoveTotpResponse>, Status> {
        let entered = self.door.enter()?;
        person::remove_totp(entered.ledger(), &request).await.map(Response::new)
    }

    async fn new_recovery_codes(
        &self,
        request: Request<proto::NewRecoveryCodesRequest>,
    ) -> Result<Response<proto::NewRecoveryCodesResponse>, Status> {
        let entered = self.door.enter()?;
        person::new_recovery_codes(entered.ledger(), &request).await.map(Response::new)
    }

    async fn change_password(
        &self,
        request: Request<proto::ChangePasswordRequest>,
    ) -> Result<Response<proto::ChangePasswordResponse>, Status> {
        let entered = self.door.enter()?;
        person::change_password(entered.ledger(), &request).await.map(Response::new)
    }

    async fn request_password_reset(
        &self,
        request: Request<proto::RequestPasswordResetRequest>,
    ) -> Result<Response<proto::RequestPasswordResetResponse>, Status> {
        let entered = self.door.enter()?;
        person::request_reset(entered.ledger(), &self.delivery, &request).await.map(Response::new)
    }

    async fn reset_password(
        &self,
        request: Request<proto::ResetPasswordRequest>,
    ) -> Result<Response<proto::ResetPasswordResponse>, Status> {
        let entered = self.door.enter()?;
        person::reset_password(entered.ledger(), &request).await.map(Response::new)
    }

    async fn get_signing_keys(
        &self,
        _: Request<proto::GetSigningKeysRequest>,
    ) -> Result<Response<proto::GetSigningKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let jwks = sign_in::signing_keys::published(entered.ledger());
        Ok(Response::new(proto::GetSigningKeysResponse { jwks }))
    }
}

/// A session that stands now: one that ended a moment ago is given nothing more.
fn standing(
    ledger: &Ledger,
    organization: &Published,
    id: SessionId,
) -> Result<Arc<Session>, Status> {
    let tables = organization.tables();
    let session = tables.session(id).filter(|it| it.ended.is_none()).cloned();
    let session = session.ok_or_else(status::session_required)?;
    let account = ledger.account(session.account_id).map_err(status::account_stopped)?;
    let stands = account.is_some_and(|it| it.stands(id, session.epoch))
        && tables.user(session.user_id).is_some_and(|user| user.is_in_force());
    if stands { Ok(session) } else { Err(status::session_required()) }
}

async fn refresh(
    ledger: &Arc<Ledger>,
    request: Request<proto::RefreshRequest>,
) -> Result<Response<proto::RefreshResponse>, Status> {
    let sign_in = signing_in(ledger)?;
    let cookie = tokens::refresh_cookie(request.metadata().as_ref());
    let (text, in_cookies) = match (request.get_ref().refresh_token.as_str(), cookie) {
        ("", Some(cookie)) => (cookie.to_owned(), true),
        (text, _) => (text.to_owned(), false),
    };
    let presented = PresentedRefresh::read(&text).ok_or_else(status::refresh_failed)?;
    if in_cookies {
        tokens::check_csrf(ledger, request.metadata().as_ref(), presented.session_id())?;
    }
    let organization = ledger.tables().organization(presented.organization_id());
    let organization = organization.ok_or_else(status::refresh_failed)?;
    if organization.stopped().is_some() {
        return Err(status::stopped(organization.id));
    }
    let session = organization.tables().session(presented.session_id()).cloned();
    let session = session.ok_or_else(status::refresh_failed)?;
    let account = ledger.account(session.account_id).map_err(status::account_stopped)?;
    let account = account.ok_or_else(status::refresh_failed)?;
    let now = ledger.now_for(&organization.tables());
    let stands = session.ended.is_none()
        && !session.is_expired(now)
        && account.stands(session.id, session.epoch)
        && organization.tables().user(session.user_id).is_some_and(|user| user.is_in_force());
    if !stands {
        return Err(status::refresh_failed());
    }
    let rotated = sign_in.refresh_tokens.rotate(&presented, session.expires_at, now).await;
    let token = match rotated.map_err(|error| status::sign_in_fault(&error))? {
        Rotation::Rotated(token) => token,
        Rotation::Reused => {
            let command =
                EndSession { session_id: session.id, reason: SessionEndReason::RefreshReused };
            let (id, user) = (organization.id, session.user_id);
            let order = person(ledger, &request, id, user, Command::EndSession(command))?;
            // Over already is as well.
            if let Err(error) = ledger.execute(id, &order).await {
                let known = matches!(error, crate::ledger::LedgerError::Rejected(_));
                if !known {
                    return Err(status::from(error));
                }
            }
            forget_refresh(ledger, session.id).await;
            return Err(status::refresh_reused());
        }
        Rotation::Raced => return Err(status::refresh_raced()),
        Rotation::Unknown | Rotation::Expired => return Err(status::refresh_failed()),
    };
    // What ended meanwhile gets nothing.
    let session = standing(ledger, &organization, session.id)?;
    let access = tokens::Issued::access(ledger, organization.id, &session, now)?;
    let issued = access.with_refresh(token);
    let written = write_session(&session, Some(&account), organization.id, now, Some(session.id));
    Ok(tokens::answer(ledger, issued, in_cookies, session.expires_at, |tokens| {
        proto::RefreshResponse { session: Some(written), tokens: Some(tokens) }
    }))
}

async fn who_am_i(
    ledger: &Arc<Ledger>,
    caller: &Authenticated,
) -> Result<proto::WhoAmIResponse, Status> {
    let organization = known(ledger, caller.organization_id)?;
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.now_for(&tables);
    let mut answer = proto::WhoAmIResponse {
        principal: Some(write::principal(
            caller.caller.principal(organization.id),
            organization.id,
        )),
        organization_id: organization.id.text(),
        ..proto::WhoAmIResponse::default()
    };
    let recognised = match caller.caller {
        Caller::Key { key_id, .. } => {
            tables.key(key_id).map(|it| projections::verification::Recognised::Key(it))
        }
        Caller::Session { session_id, .. } => {
            tables.session(session_id).map(|it| projections::verification::Recognised::Session(it))
        }
        Caller::BreakGlass { grant_id, .. } => tables
            .break_glass_grant(grant_id)
            .map(|it| projections::verification::Recognised::BreakGlass(it)),
        Caller::Person { .. } | Caller::Custodian { .. } | Caller::Ledger => None,
    };
    let Some(recognised) = recognised else { return Err(status::session_required()) };
    let authority = Authority::of_recognised(recognised, &tables, &operator, now);
    answer.permissions = authority.permissions().map(str::to_owned).collect();
    answer.roles = authority.roles().map(write::role_reference).collect();
    if let projections::verification::Recognised::Session(session) = recognised {
        let account = ledger.account(session.account_id).map_err(status::account_stopped)?;
        let current = Some(session.id);
        let written = write_session(session, account.as_deref(), organization.id, now, current);
        answer.session = Some(written);
        answer.totp = account.as_ref().is_some_and(|it| it.has_totp());
        answer.recovery_codes_left = account.as_ref().map_or(0, |it| it.recovery_codes().into());
        answer.email = login::email_of(ledger, session.account_id).await?;
    }
    Ok(answer)
}

fn list_sessions(
    ledger: &Ledger,
    request: &Request<proto::ListSessionsRequest>,
) -> Result<proto::ListSessionsResponse, Status> {
    let message = request.get_ref();
    let caller = authenticate_caller(ledger, request)?;
    let own = match caller.caller {
        Caller::Session { organization_id, session_id, user_id } => {
            Some((organization_id, session_id, user_id))
        }
        Caller::Key { .. }
        | Caller::Person { .. }
        | Caller::Custodian { .. }
        | Caller::BreakGlass { .. }
        | Caller::Ledger => None,
    };
    let named: Option<UserId> = read::optional("user_id", &message.user_id)?;
    let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
    let of_own = own.filter(|(home, _, user)| {
        *home == organization.id && named.is_none_or(|named| named == *user)
    });
    let user = match (of_own, named) {
        (Some((_, _, user)), _) => user,
        (None, None) => return Err(status::session_required()),
        (None, Some(user)) => {
            authenticate(ledger, request, SESSIONS_READ)?;
            user
        }
    };
    let tables = Arc::clone(&organization.tables());
    if tables.user(user).is_none() {
        return Err(status::user_not_found(user));
    }
    let rows_max = page::size(message.page_size)?;
    let user_text = user.text();
    let parameters = [organization.stream.as_str(), &user_text];
    let list = page::List::new(ledger.stamper(), "ListSessions", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(SessionId::from_bytes);
    let now = ledger.now_for(&tables);
    let mut rows = tables.sessions_of(user, after).peekable();
    let page: Vec<_> = rows.by_ref().take(rows_max).cloned().collect();
    let next_page_token = match (rows.peek(), page.last()) {
        (Some(_), Some(last)) => list.token(last.id.to_bytes()),
        _ => String::new(),
    };
    let mut sessions = Vec::with_capacity(page.len());
    for session in &page {
        let account = ledger.account(session.account_id).map_err(status::account_stopped)?;
        let current = own.map(|(_, session, _)| session);
        sessions.push(write_session(session, account.as_deref(), organization.id, now, current));
    }
    let revision = write::revision(&organization.stream, tables.revision());
    Ok(proto::ListSessionsResponse { sessions, next_page_token, revision })
}

/// Whether a second factor was right, as the vault says it.
fn totp_is_right(shown: CodeShown) -> bool {
    match shown {
        CodeShown::Right => true,
        CodeShown::Wrong | CodeShown::NothingWaits => false,
    }
}

/// Whether a recovery code was right, as the vault says it.
fn recovery_is_right(used: CodeUse) -> bool {
    match used {
        CodeUse::Used { .. } => true,
        CodeUse::Wrong => false,
    }
}

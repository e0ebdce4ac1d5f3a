//! Logging in: who somebody is, by what they know and have.

use std::net::IpAddr;
use std::sync::Arc;

use projections::account::Account;
use projections::event::AuthenticationMethod;
use projections::id::{AccountId, OrganizationId};
use projections::principal::Principal;
use projections::text::KeyPrefix;
use projections::user::{User, UserState};
use tonic::{Request, Response, Status};

use super::{
    person, recovery_is_right, signing_in, standing, tokens, totp_is_right, write_session,
};
use crate::ledger::Ledger;
use crate::ledger::accounts::command::{AccountCommand, AccountOrder, EMAIL};
use crate::ledger::command::{Command, StartSession};
use crate::ledger::email::Email;
use crate::ledger::sign_in::password::Password;
use crate::ledger::sign_in::passwords::Checked;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::authentication::{correlation_id, origin, origin_ip};
use crate::services::key::known;
use crate::services::{read, status, write};

/// Somebody who showed whose account they have.
pub(super) struct Identified {
    pub(super) account: Arc<Account>,
    /// How often the account's sessions had been ended when they began to show it.
    pub(super) epoch: u64,
    pub(super) methods: Vec<AuthenticationMethod>,
}

/// Finds out whose account somebody has who shows a password and, where the account asks for
/// one, a second factor.
///
/// # Errors
///
/// Something is wrong, and it is not said what; or too much was wrong lately; or it cannot be
/// known now.
pub(super) async fn identify<T>(
    ledger: &Arc<Ledger>,
    request: &Request<T>,
    email: &Email,
    password: &str,
    code: &str,
) -> Result<Identified, Status> {
    let sign_in = signing_in(ledger)?;
    let digest = ledger.email_digest(email);
    let from: Option<IpAddr> = origin_ip(request.extensions());
    let now = ledger.clock().now();
    let began = {
        let mut throttle = sign_in.throttle();
        throttle.begin(digest, from, now)
    };
    let begun = began.map_err(|error| status::too_many_attempts(error.at, now))?;
    let account = ledger.account_by_email(&digest).map_err(status::account_stopped)?;
    // Before the password is looked at: a change that ends sessions meanwhile ends this one.
    let epoch = account.as_ref().map_or(0, |it| it.epoch());
    let id = account.as_ref().map(|it| it.id);
    let checked = sign_in.passwords.check(id, Password::presented(password)).await;
    let checked = checked.map_err(|error| {
        // Nothing was looked at: that is nobody's failure.
        sign_in.throttle().taken_back(begun);
        status::password_fault(&error)
    })?;
    let (Some(account), Checked::Right { .. }) = (account, checked) else {
        return Err(status::login_failed());
    };
    if account.is_locked(now) {
        let until = account.locked_until().unwrap_or(now);
        return Err(status::too_many_attempts(until, now));
    }
    let mut methods = vec![AuthenticationMethod::Password];
    if account.has_totp() {
        if code.is_empty() {
            return Err(status::second_factor_required());
        }
        let order = AccountOrder {
            actor: Principal::Account(account.id),
            credential: None,
            session: None,
            request: None,
            correlation_id: correlation_id(ledger, request)?,
            causation_id: None,
            personal: origin(request),
        };
        // Whoever knows the password guesses no more codes from many places than from one.
        let began = {
            let mut throttle = sign_in.code_throttle();
            throttle.begin(digest, from, now)
        };
        let begun = began.map_err(|error| status::too_many_attempts(error.at, now))?;
        let shown = second_factor(ledger, &account, &order, code).await;
        let shown = shown.inspect_err(|_| sign_in.code_throttle().taken_back(begun))?;
        methods.push(shown.ok_or_else(status::login_failed)?);
        sign_in.code_throttle().succeeded(begun);
    }
    sign_in.throttle().succeeded(begun);
    Ok(Identified { account, epoch, methods })
}

/// How a code shows who an account's holder is; none where it does not. A recovery code is
/// used up by it, and that is told by an event.
pub(super) async fn second_factor(
    ledger: &Arc<Ledger>,
    account: &Account,
    order: &AccountOrder,
    code: &str,
) -> Result<Option<AuthenticationMethod>, Status> {
    if !account.has_totp() || code.is_empty() {
        return Ok(None);
    }
    let sign_in = signing_in(ledger)?;
    let now = ledger.clock().now();
    let shown = sign_in.totps.check(account.id, code, now).await;
    if totp_is_right(shown.map_err(|error| status::sign_in_fault(&error))?) {
        return Ok(Some(AuthenticationMethod::Totp));
    }
    super::person::has_room(ledger)?;
    let held = ledger.hold_account(account.id, order.session).await.map_err(status::from)?;
    let used = sign_in.recovery_codes.use_code(account.id, code).await;
    drop(held);
    if recovery_is_right(used.map_err(|error| status::sign_in_fault(&error))?) {
        let used = AccountCommand::UseRecoveryCode;
        ledger.change_account(account.id, used, order).await.map_err(status::from)?;
        return Ok(Some(AuthenticationMethod::RecoveryCode));
    }
    Ok(None)
}

/// The e-mail of an account, as it was when the account was made; empty where it was erased.
pub(super) async fn email_of(ledger: &Ledger, id: AccountId) -> Result<String, Status> {
    use crate::ledger::accounts::PersonError;
    use crate::ledger::vault::seal::OpenError;
    match ledger.account_person(id).await {
        Ok(person) => Ok(person.and_then(|mut it| it.remove(EMAIL)).unwrap_or_default()),
        Err(PersonError::Open(OpenError::Erased)) => Ok(String::new()),
        Err(error) => Err(status::person_fault(&error)),
    }
}

/// The organization that a login names.
enum Named {
    Id(OrganizationId),
    Prefix(KeyPrefix),
}

impl Named {
    /// By its identifier, or by what its keys begin with; none where it is empty.
    fn read(text: &str) -> Result<Option<Self>, Status> {
        // No identifier is a prefix but the operator's, which is nobody's prefix.
        let prefix = text.parse().ok().filter(|_| text.parse::<OrganizationId>().is_err());
        match prefix {
            Some(prefix) => Ok(Some(Self::Prefix(prefix))),
            None => Ok(read::optional("organization_id", text)?.map(Self::Id)),
        }
    }

    /// To be asked for whoever showed who they are: nobody else learns what there is.
    fn organization(&self, ledger: &Ledger) -> Option<OrganizationId> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Prefix(prefix) => {
                let operator = ledger.tables().operator().tables();
                operator.installation()?.prefixes.get(prefix).copied()
            }
        }
    }
}

/// An organization, and who somebody is there.
type Membership = (Arc<Published>, Arc<User>);

/// The organization that a login leads to, and who somebody is there: the one that is named,
/// or else the account's default one, or else, where its holder is no member of that any
/// more, their own.
async fn membership(
    ledger: &Arc<Ledger>,
    account: &Account,
    named: Option<OrganizationId>,
) -> Result<Membership, Status> {
    let own = account.personal_organization();
    // What a crash left undone is made up for.
    let completed = ledger.complete_personal(account).await;
    if let Some(named) = named.filter(|named| own != Some(*named)) {
        return member_of(ledger, account, named)?.ok_or_else(status::not_a_member);
    }
    if named.is_none()
        && let Some(home) = account.default_organization()
        && let Some(found) = member_of(ledger, account, home)?
    {
        return Ok(found);
    }
    completed.map_err(status::personal_fault)?;
    let own = own.ok_or_else(status::not_a_member)?;
    member_of(ledger, account, own)?.ok_or_else(status::not_a_member)
}

/// Who the holder of an account is in an organization, if they are anybody there. Whoever is
/// no member learns no more of an organization than that.
fn member_of(
    ledger: &Ledger,
    account: &Account,
    id: OrganizationId,
) -> Result<Option<Membership>, Status> {
    let organization = match known(ledger, id) {
        Ok(organization) => organization,
        Err(error) if error.code() == tonic::Code::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let user = organization.tables().user_by_account(account.id).cloned();
    Ok(user.map(|user| (organization, user)))
}

pub(super) async fn login(
    ledger: &Arc<Ledger>,
    request: Request<proto::LoginRequest>,
) -> Result<Response<proto::LoginResponse>, Status> {
    let sign_in = signing_in(ledger)?;
    let message = request.get_ref();
    let email: Email = read::field("email", &message.email)?;
    let named = Named::read(&message.organization_id)?;
    let identified = identify(ledger, &request, &email, &message.password, &message.code).await?;
    let Identified { account, epoch, methods } = identified;
    let named = match named {
        Some(named) => Some(named.organization(ledger).ok_or_else(status::not_a_member)?),
        None => None,
    };
    let (organization, user) = membership(ledger, &account, named).await?;
    let home = organization.id;
    if user.state() == UserState::Suspended {
        return Err(status::user_suspended(user.id));
    }
    let tables = Arc::clone(&organization.tables());
    let now = ledger.now_for(&tables);
    let session_id = ledger.ids().session(now);
    let lifetime_ms = sign_in.session_lifetime_ms;
    let end = now.saturating_add_millis(lifetime_ms);
    // What is kept of the token is on the disk before any event names the session.
    let refresh = sign_in.refresh_tokens.start(home, session_id, end, now).await;
    let refresh = refresh.map_err(|error| status::sign_in_fault(&error))?;
    let command = StartSession {
        session_id,
        user_id: user.id,
        account_id: account.id,
        epoch,
        methods,
        lifetime_ms,
    };
    let command = Command::StartSession(Box::new(command));
    let order = person(ledger, &request, home, user.id, command)?;
    let executed = match ledger.execute(home, &order).await {
        Ok(executed) => executed,
        Err(error) => {
            super::forget_refresh(ledger, session_id).await;
            return Err(status::from(error));
        }
    };
    let session = standing(ledger, &organization, session_id)?;
    let now = ledger.clock().now();
    let issued = tokens::Issued::access(ledger, home, &session, now)?.with_refresh(refresh);
    let account = ledger.account(account.id).map_err(status::account_stopped)?;
    let written = write_session(&session, account.as_deref(), home, now, Some(session_id));
    let revision = write::revision(&organization.stream, executed.revision);
    let in_cookies = request.get_ref().cookies;
    Ok(tokens::answer(ledger, issued, in_cookies, session.expires_at, |tokens| {
        proto::LoginResponse { session: Some(written), tokens: Some(tokens), revision }
    }))
}

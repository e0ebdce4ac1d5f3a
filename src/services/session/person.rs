//! What somebody does with their own account: passwords, authenticators, recovery codes.

use std::sync::Arc;

use projections::event::{PasswordCause, ResetGivenTo};
use projections::id::{AccountId, OrganizationId};
use projections::principal::Principal;
use projections::time::Timestamp;
use tonic::{Request, Status};

use super::{SessionCaller, login, signing_in};
use crate::delivery::{Delivery, Message, Offered, TokenKind};
use crate::ledger::accounts::AccountRejection;
use crate::ledger::accounts::command::{AccountCommand, AccountOrder, HeldSession};
use crate::ledger::email::Email;
use crate::ledger::event_store::AppendError;
use crate::ledger::permissions::ACCOUNTS_WRITE;
use crate::ledger::secret::Secret;
use crate::ledger::sign_in::guessing::{self, KnownOf};
use crate::ledger::sign_in::one_time::{Looked, Occasion, PresentedOneTime};
use crate::ledger::sign_in::password::{NewPassword, Password};
use crate::ledger::sign_in::passwords::{Checked, PasswordError};
use crate::ledger::sign_in::recovery::CODES;
use crate::ledger::sign_in::throttle::Begun;
use crate::ledger::sign_in::totp::CodeShown;
use crate::ledger::vault::rows::RowVersion;
use crate::ledger::{Ledger, LedgerError};
use crate::proto;
use crate::services::authentication::{
    authenticate_operator, correlation_id, origin, origin_ip, shows_key,
};
use crate::services::{read, status, write};

/// How long a token is good by which a password can be reset: half an hour.
const RESET_MS: i64 = 30 * 60 * 1_000;

/// Whoever has a session, about to show once more who they are. It is counted as a login is,
/// and until all of it was right: what was stolen of one is not enough to try the rest.
pub(super) struct Attempt(Begun);

impl Attempt {
    /// Counts one more.
    pub(super) fn begin<T>(
        ledger: &Ledger,
        own: &SessionCaller,
        request: &Request<T>,
    ) -> Result<Self, Status> {
        let email = own.account.email().ok_or_else(status::session_required)?;
        let (from, now) = (origin_ip(request.extensions()), ledger.clock().now());
        let began = {
            let mut throttle = signing_in(ledger)?.step_throttle();
            throttle.begin(email, from, now)
        };
        began.map(Self).map_err(|error| status::too_many_attempts(error.at, now))
    }

    /// All that the account asks for was right.
    pub(super) fn succeeded(self, ledger: &Ledger) -> Result<(), Status> {
        signing_in(ledger)?.step_throttle().succeeded(self.0);
        Ok(())
    }

    /// A part of it was right, or could not be looked at: that forgives no failure of the rest.
    pub(super) fn taken_back(self, ledger: &Ledger) -> Result<(), Status> {
        signing_in(ledger)?.step_throttle().taken_back(self.0);
        Ok(())
    }
}

/// Holds whoever has a session to knowing the account's password, too.
async fn know_password(
    ledger: &Arc<Ledger>,
    own: &SessionCaller,
    _: &Attempt,
    password: &str,
) -> Result<RowVersion, Status> {
    let sign_in = signing_in(ledger)?;
    let checked = sign_in.passwords.check(Some(own.account.id), Password::presented(password));
    match checked.await.map_err(|error| status::password_fault(&error))? {
        Checked::Right { version } => Ok(version),
        Checked::Wrong => Err(status::login_failed()),
    }
}

pub(super) async fn enroll_totp(
    ledger: &Arc<Ledger>,
    request: &Request<proto::EnrollTotpRequest>,
) -> Result<proto::EnrollTotpResponse, Status> {
    let sign_in = signing_in(ledger)?;
    let own = SessionCaller::of(ledger, request)?;
    if own.account.has_totp() {
        return Err(status::authenticator_enrolled());
    }
    let attempt = Attempt::begin(ledger, &own, request)?;
    know_password(ledger, &own, &attempt, &request.get_ref().password).await?;
    attempt.taken_back(ledger)?;
    let email = login::email_of(ledger, own.account.id).await?;
    let name = if email.is_empty() { own.account.id.text() } else { email };
    let held = own.hold_account(ledger).await?;
    let now = ledger.clock().now();
    let enrolled = sign_in.totps.enrol(own.account.id, "keyledger", &name, now).await;
    drop(held);
    let enrolment = enrolled.map_err(|error| status::sign_in_fault(&error))?;
    Ok(proto::EnrollTotpResponse {
        secret: enrolment.secret.expose().to_owned(),
        uri: enrolment.uri.expose().to_owned(),
    })
}

pub(super) async fn confirm_totp(
    ledger: &Arc<Ledger>,
    request: &Request<proto::ConfirmTotpRequest>,
) -> Result<proto::ConfirmTotpResponse, Status> {
    let sign_in = signing_in(ledger)?;
    let own = SessionCaller::of(ledger, request)?;
    if own.account.has_totp() {
        return Err(status::authenticator_enrolled());
    }
    has_room(ledger)?;
    let order = own.account_order(ledger, request)?;
    let attempt = Attempt::begin(ledger, &own, request)?;
    // Whose session has ended confirms nothing, and keeps nothing for the account.
    let held = own.hold_account(ledger).await?;
    let now = ledger.clock().now();
    let shown = sign_in.totps.confirm(own.account.id, &request.get_ref().code, now).await;
    match shown.map_err(|error| status::sign_in_fault(&error))? {
        CodeShown::Right => attempt.taken_back(ledger)?,
        CodeShown::Wrong => return Err(status::login_failed()),
        CodeShown::NothingWaits => {
            attempt.taken_back(ledger)?;
            return Err(status::no_enrolment());
        }
    }
    // On the disk before the event that names them.
    let codes = new_codes(ledger, own.account.id).await?;
    drop(held);
    let command = AccountCommand::EnrollTotp { recovery_codes: CODES };
    ledger.change_account(own.account.id, command, &order).await.map_err(status::from)?;
    Ok(proto::ConfirmTotpResponse { recovery_codes: codes })
}

/// What is used up in the vault is used up for an event, which must find space.
pub(super) fn has_room(ledger: &Ledger) -> Result<(), Status> {
    match ledger.store_is_full() {
        true => Err(status::from(LedgerError::Append(AppendError::Full))),
        false => Ok(()),
    }
}

async fn new_codes(ledger: &Ledger, account: AccountId) -> Result<Vec<String>, Status> {
    let codes = signing_in(ledger)?.recovery_codes.replace(account).await;
    let codes = codes.map_err(|error| status::sign_in_fault(&error))?;
    Ok(codes.iter().map(|code| code.expose().to_owned()).collect())
}

pub(super) async fn remove_totp(
    ledger: &Arc<Ledger>,
    request: &Request<proto::RemoveTotpRequest>,
) -> Result<proto::RemoveTotpResponse, Status> {
    let sign_in = signing_in(ledger)?;
    let own = SessionCaller::of(ledger, request)?;
    let order = own.account_order(ledger, request)?;
    let attempt = Attempt::begin(ledger, &own, request)?;
    know_password(ledger, &own, &attempt, &request.get_ref().password).await?;
    own.show_code(ledger, &attempt, &order, &request.get_ref().code).await?;
    attempt.succeeded(ledger)?;
    let id = own.account.id;
    // The event first: an account that asks for a code which nobody has would be lost.
    let command = AccountCommand::RemoveTotp;
    ledger.change_account(id, command, &order).await.map_err(status::from)?;
    sign_in.totps.remove(id).await.map_err(|error| status::sign_in_fault(&error))?;
    sign_in.recovery_codes.remove(id).await.map_err(|error| status::sign_in_fault(&error))?;
    Ok(proto::RemoveTotpResponse {})
}

pub(super) async fn new_recovery_codes(
    ledger: &Arc<Ledger>,
    request: &Request<proto::NewRecoveryCodesRequest>,
) -> Result<proto::NewRecoveryCodesResponse, Status> {
    let own = SessionCaller::of(ledger, request)?;
    let order = own.account_order(ledger, request)?;
    let attempt = Attempt::begin(ledger, &own, request)?;
    has_room(ledger)?;
    own.show_code(ledger, &attempt, &order, &request.get_ref().code).await?;
    attempt.taken_back(ledger)?;
    let held = own.hold_account(ledger).await?;
    let recovery_codes = new_codes(ledger, own.account.id).await?;
    drop(held);
    let command = AccountCommand::ReplaceRecoveryCodes { codes: CODES };
    ledger.change_account(own.account.id, command, &order).await.map_err(status::from)?;
    Ok(proto::NewRecoveryCodesResponse { recovery_codes })
}

/// A password that somebody chose, held to the rules. What is known of them is their e-mail,
/// and the name of the organization that they are in.
pub(in crate::services) async fn chosen(
    ledger: &Ledger,
    field: &'static str,
    text: &str,
    email: &str,
    organization: Option<OrganizationId>,
) -> Result<NewPassword, Status> {
    let refused = Arc::clone(&signing_in(ledger)?.refused_passwords);
    let weak = |error| status::invalid(field, error);
    let password = NewPassword::chosen(text, Some(email)).map_err(weak)?;
    let organization = organization.and_then(|id| ledger.tables().organization(id));
    let tables = organization.map(|it| Arc::clone(&it.tables()));
    let name = tables.as_ref().and_then(|it| it.profile()).map(|it| it.name.as_str());
    let known = KnownOf::new(email, name);
    let checked = tokio::task::spawn_blocking(move || {
        guessing::check(password.as_password(), &known, &refused).map(|()| password)
    });
    checked.await.map_err(|error| status::sign_in_fault(&error))?.map_err(weak)
}

fn not_set(error: PasswordError) -> Status {
    status::password_fault(&error)
}

pub(super) async fn change_password(
    ledger: &Arc<Ledger>,
    request: &Request<proto::ChangePasswordRequest>,
) -> Result<proto::ChangePasswordResponse, Status> {
    let own = SessionCaller::of(ledger, request)?;
    let message = request.get_ref();
    let order = own.account_order(ledger, request)?;
    let attempt = Attempt::begin(ledger, &own, request)?;
    let seen = know_password(ledger, &own, &attempt, &message.password).await?;
    attempt.taken_back(ledger)?;
    let email = login::email_of(ledger, own.account.id).await?;
    let home = Some(own.organization.id);
    let password = chosen(ledger, "new_password", &message.new_password, &email, home).await?;
    let setting = Setting {
        account_id: own.account.id,
        password,
        seen: Some(seen),
        cause: PasswordCause::Change,
        keeps: Some(own.held()),
        order,
    };
    set_password(ledger, setting).await?;
    Ok(proto::ChangePasswordResponse {})
}

/// A password that is to be set.
struct Setting {
    account_id: AccountId,
    password: NewPassword,
    seen: Option<RowVersion>,
    cause: PasswordCause,
    keeps: Option<HeldSession>,
    order: AccountOrder,
}

/// Sets a password, whether or not whoever asked for it waits. The sessions that are to end do
/// so first: a session that was ended meanwhile sets nothing.
async fn set_password(ledger: &Arc<Ledger>, setting: Setting) -> Result<(), Status> {
    let ledger = Arc::clone(ledger);
    let set = tokio::spawn(async move {
        let Setting { account_id, password, seen, cause, keeps, order } = setting;
        let sign_in = signing_in(&ledger)?;
        let ends = AccountCommand::EndSessions { keeps };
        ledger.change_account(account_id, ends, &order).await.map_err(status::from)?;
        let taken = sign_in.one_time_tokens.take_away(Occasion::Reset(account_id)).await;
        taken.map_err(|error| status::sign_in_fault(&error))?;
        let held = ledger.hold_account(account_id, order.session).await.map_err(status::from)?;
        sign_in.passwords.set(account_id, password, seen).await.map_err(not_set)?;
        drop(held);
        let command = AccountCommand::SetPassword { cause, keeps };
        let told = ledger.change_account(account_id, command, &order).await;
        let told = match told {
            // It is set all the same, and that is told.
            Err(LedgerError::Account(AccountRejection::SessionEnded)) => {
                let order = AccountOrder { session: None, ..order };
                let command = AccountCommand::SetPassword { cause, keeps: None };
                ledger.change_account(account_id, command, &order).await
            }
            told => told,
        };
        told.map(drop).map_err(status::from)
    });
    set.await.map_err(|_| status::closing())?
}

pub(super) async fn request_reset(
    ledger: &Arc<Ledger>,
    delivery: &Arc<Delivery>,
    request: &Request<proto::RequestPasswordResetRequest>,
) -> Result<proto::RequestPasswordResetResponse, Status> {
    let sign_in = signing_in(ledger)?;
    // Whoever shows a credential is an operator, or is refused.
    let operator = match shows_key(request) {
        true => Some(authenticate_operator(ledger, request, ACCOUNTS_WRITE)?),
        false => None,
    };
    let email: Email = read::field("email", &request.get_ref().email)?;
    let digest = ledger.email_digest(&email);
    let now = ledger.clock().now();
    if operator.is_none() {
        let from = origin_ip(request.extensions());
        let mut throttle = sign_in.reset_throttle();
        let began = throttle.begin(digest, from, now);
        // Each time counts.
        let _ = began.map_err(|error| status::too_many_attempts(error.at, now))?;
    }
    let account = ledger.account_by_email(&digest).map_err(status::account_stopped)?;
    let ends_at = now.saturating_add_millis(RESET_MS);
    let nothing = proto::RequestPasswordResetResponse::default();
    let Some(account) = account else {
        return if operator.is_some() { Err(status::account_not_found()) } else { Ok(nothing) };
    };
    if let Some(operator) = operator {
        let order = AccountOrder {
            actor: Principal::Organization(operator.organization_id),
            credential: operator.caller.credential(),
            session: None,
            request: None,
            correlation_id: correlation_id(ledger, request)?,
            causation_id: None,
            personal: origin(request),
        };
        let made = make_reset(ledger, delivery, account.id, email, ends_at, Some(order));
        let Some(token) = made.await? else { return Ok(nothing) };
        return Ok(proto::RequestPasswordResetResponse {
            token: token.expose().to_owned(),
            expires_at: Some(write::timestamp(ends_at)),
        });
    }
    // By itself: how long it takes would tell that there is such an account. And by no event:
    // strangers fill no disk, and name nobody.
    let (ledger, delivery) = (Arc::clone(ledger), Arc::clone(delivery));
    tokio::spawn(async move {
        let made = make_reset(&ledger, &delivery, account.id, email, ends_at, None).await;
        if matches!(made, Ok(Some(_))) {
            tracing::warn!("a password's reset was asked for, and nobody delivers its token");
        }
    });
    Ok(nothing)
}

/// Makes a token and has it delivered; gives it where nobody delivers here. Who issues it is
/// told by an event first: where that cannot be, the token is nobody's.
async fn make_reset(
    ledger: &Arc<Ledger>,
    delivery: &Delivery,
    account: AccountId,
    email: Email,
    expires_at: Timestamp,
    issuer: Option<AccountOrder>,
) -> Result<Option<Secret>, Status> {
    let sign_in = signing_in(ledger)?;
    if issuer.is_some() {
        // Before the token that is good now is replaced.
        has_room(ledger)?;
    }
    let delivered = delivery.delivers();
    let token = sign_in.one_time_tokens.make(Occasion::Reset(account), expires_at, delivered).await;
    let token = token.map_err(|error| status::sign_in_fault(&error))?;
    if let Some(order) = issuer {
        let given_to = match delivery.delivers() {
            true => ResetGivenTo::Email,
            false => ResetGivenTo::Issuer,
        };
        let command = AccountCommand::IssuePasswordReset { expires_at, given_to };
        if let Err(error) = ledger.change_account(account, command, &order).await {
            if let Err(error) = sign_in.one_time_tokens.take_away(Occasion::Reset(account)).await {
                tracing::warn!(%error, "what is kept of a reset stays, and nobody has its token");
            }
            return Err(status::from(error));
        }
    }
    let to = Secret::new(email.as_str().to_owned());
    let message =
        Message { kind: TokenKind::PasswordReset, to, token, organization: None, expires_at };
    match delivery.offer(message) {
        Offered::Taken => Ok(None),
        Offered::Nobody(message) => Ok(Some(message.token)),
        Offered::Busy => Err(status::delivery_busy()),
    }
}

pub(super) async fn reset_password(
    ledger: &Arc<Ledger>,
    request: &Request<proto::ResetPasswordRequest>,
) -> Result<proto::ResetPasswordResponse, Status> {
    let sign_in = signing_in(ledger)?;
    let message = request.get_ref();
    let presented = PresentedOneTime::reset(&message.token).ok_or_else(status::token_failed)?;
    let Occasion::Reset(account_id) = presented.occasion else {
        return Err(status::token_failed());
    };
    let now = ledger.clock().now();
    let looked = sign_in.one_time_tokens.look(&presented, now).await;
    let looked = looked.map_err(|error| status::sign_in_fault(&error))?;
    let Looked::Good { version, .. } = looked else { return Err(status::token_failed()) };
    let account = ledger.account(account_id).map_err(status::account_stopped)?;
    let account = account.ok_or_else(status::token_failed)?;
    let email = login::email_of(ledger, account_id).await?;
    // A password that does not do uses nothing up.
    let home = account.default_organization();
    let password = chosen(ledger, "new_password", &message.new_password, &email, home).await?;
    let seen = sign_in.passwords.version(account_id).await.map_err(not_set)?;
    let used = sign_in.one_time_tokens.use_up(presented.occasion, version).await;
    if !used.map_err(|error| status::sign_in_fault(&error))? {
        return Err(status::token_failed());
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
    let cause = PasswordCause::Reset;
    set_password(ledger, Setting { account_id, password, seen, cause, keeps: None, order }).await?;
    Ok(proto::ResetPasswordResponse {})
}

#[cfg(test)]
mod tests;

//! Ending sessions, and having a browser forget them.

use std::sync::Arc;

use projections::event::SessionEndReason;
use projections::id::SessionId;
use projections::presented::Presented;
use tonic::{Request, Response, Status};

use super::{SessionCaller, tokens};
use crate::ledger::Ledger;
use crate::ledger::accounts::command::AccountCommand;
use crate::ledger::command::{Caller, Command, EndSession, EndSessions};
use crate::ledger::permissions::SESSIONS_WRITE;
use crate::ledger::sessions::ShownSession;
use crate::proto;
use crate::services::authentication::{Authenticated, authenticate, authenticate_caller};
use crate::services::key::{Context, known};
use crate::services::{read, status, write};

/// Logs out. Cookies that are good for nothing any more are cleared whatever the answer is;
/// where the session stands, and was not ended, they stay, so that it can be tried again.
pub(super) async fn logout(
    ledger: &Arc<Ledger>,
    request: &Request<proto::LogoutRequest>,
) -> Result<Response<proto::LogoutResponse>, Status> {
    match end_own(ledger, request).await {
        Ok(answer) => {
            let mut response = Response::new(answer);
            tokens::clear_cookies(response.metadata_mut());
            Ok(response)
        }
        Err(mut refused) => {
            let shown = shown_in_cookie(ledger, request);
            // What nobody knows may stand.
            let stands = shown.is_some_and(|shown| ledger.is_in_force(&shown).unwrap_or(true));
            if tokens::cookies_alone(request) && !stands {
                tokens::clear_cookies(refused.metadata_mut());
            }
            Err(refused)
        }
    }
}

/// Ends the session that a call is made with. An access token in a cookie whose time is over
/// does for that, if the session stands and the page has its other token: it meant the session.
async fn end_own(
    ledger: &Arc<Ledger>,
    request: &Request<proto::LogoutRequest>,
) -> Result<proto::LogoutResponse, Status> {
    let own = SessionCaller::of(ledger, request).or_else(|refused| {
        let now = ledger.clock().now();
        let shown = shown_in_cookie(ledger, request).filter(|it| it.expires_at <= now);
        let Some(shown) = shown else { return Err(refused) };
        tokens::check_csrf(ledger, request.metadata().as_ref(), shown.session_id)?;
        if !ledger.is_in_force(&shown).map_err(status::from)? {
            return Err(refused);
        }
        let ShownSession { organization_id, session_id, user_id, .. } = shown;
        let caller = Caller::Session { organization_id, session_id, user_id };
        SessionCaller::known(ledger, Authenticated { organization_id, caller, tenant: None })
    })?;
    let context = Context::of(ledger, &own.caller, request)?;
    let command = EndSession { session_id: own.session.id, reason: SessionEndReason::LoggedOut };
    let order = context.plain_order(Command::EndSession(command));
    let executed = ledger.execute(own.organization.id, &order).await.map_err(status::from)?;
    forget_refresh(ledger, own.session.id).await;
    let revision = write::revision(&own.organization.stream, executed.revision);
    Ok(proto::LogoutResponse { revision })
}

/// The session of the access token that a call shows in a cookie, and nowhere else.
fn shown_in_cookie<T>(ledger: &Ledger, request: &Request<T>) -> Option<ShownSession> {
    if !tokens::cookies_alone(request) {
        return None;
    }
    let mut presented = Presented::default();
    presented.bearer(tokens::session_cookie(request.metadata().as_ref())?);
    ledger.shown_session(presented)
}

/// Takes away what is kept of a session's refresh token. The session is over without that.
pub(super) async fn forget_refresh(ledger: &Ledger, id: SessionId) {
    let Some(sign_in) = ledger.sign_in() else { return };
    if let Err(error) = sign_in.refresh_tokens.end(id).await {
        tracing::warn!(%error, session = %id, "what is kept of a refresh token stays for now");
    }
}

/// Ends sessions: one, a user's, or one's own.
pub(super) async fn revoke(
    ledger: &Arc<Ledger>,
    request: Request<proto::RevokeSessionsRequest>,
) -> Result<proto::RevokeSessionsResponse, Status> {
    use proto::revoke_sessions_request::Which;
    let message = request.get_ref();
    let ends_all = |keep: bool| {
        let own = SessionCaller::of(ledger, &request)?;
        let keeps = keep.then(|| own.held());
        Ok::<_, Status>((own, AccountCommand::EndSessions { keeps }))
    };
    let (own, command) = match &message.which {
        Some(Which::Others(true)) => ends_all(true)?,
        Some(Which::All(true)) => ends_all(false)?,
        None | Some(Which::Others(false) | Which::All(false)) => {
            let problem = "name a session or a user, or set `others` or `all`";
            return Err(status::invalid("which", problem));
        }
        Some(Which::SessionId(id)) => {
            let command = EndSession {
                session_id: read::field("session_id", id)?,
                reason: SessionEndReason::Revoked,
            };
            return end_here(ledger, &request, Command::EndSession(command)).await;
        }
        Some(Which::UserId(id)) => {
            let command = EndSessions { user_id: read::field("user_id", id)?, except: None };
            return end_here(ledger, &request, Command::EndSessions(command)).await;
        }
    };
    let order = own.account_order(ledger, &request)?;
    let changed = ledger.change_account(own.account.id, command, &order).await;
    changed.map_err(status::from)?;
    Ok(proto::RevokeSessionsResponse { revision: None })
}

/// Ends sessions of one organization. The rules say who may.
async fn end_here(
    ledger: &Arc<Ledger>,
    request: &Request<proto::RevokeSessionsRequest>,
    command: Command,
) -> Result<proto::RevokeSessionsResponse, Status> {
    let caller = match authenticate_caller(ledger, request)? {
        caller if matches!(caller.caller, Caller::Session { .. }) => caller,
        _ => authenticate(ledger, request, SESSIONS_WRITE)?,
    };
    let organization = known(ledger, caller.target(ledger, &request.get_ref().organization_id)?)?;
    let context = Context::of(ledger, &caller, request)?;
    let order = context.plain_order(command);
    let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
    let revision = write::revision(&organization.stream, executed.revision);
    Ok(proto::RevokeSessionsResponse { revision })
}

#[cfg(test)]
mod tests;

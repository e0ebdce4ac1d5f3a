//! What a session is used with: tokens in the answer, or cookies that no script reads.
//!
//! Cookies are HttpOnly, Secure and SameSite=Strict, and bound to this host (`__Host-`). A
//! call that shows one must also send a token that only a page which read the answer has
//! (`x-csrf-token`): it is the session's, and its own key makes it.

use projections::id::{OrganizationId, SessionId};
use projections::session::Session;
use projections::time::Timestamp;
use subtle::ConstantTimeEq as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::signing_in;
use crate::ledger::Ledger;
use crate::ledger::secret::Secret;
use crate::ledger::sign_in::access_token::Bearer;
use crate::ledger::sign_in::methods::Methods;
use crate::proto;
use crate::services::authentication::shows_key;
use crate::services::{status, write};

/// The header that shows that a page meant a call.
pub const CSRF_HEADER: &str = "x-csrf-token";
const ACCESS_COOKIE: &str = "__Host-keyledger-access";
const REFRESH_COOKIE: &str = "__Host-keyledger-refresh";
const ATTRIBUTES: &str = "; Path=/; HttpOnly; Secure; SameSite=Strict";

/// Tokens of a session, just made.
pub(super) struct Issued {
    session_id: SessionId,
    access: Secret,
    expires_at: Timestamp,
    refresh: Option<Secret>,
}

impl Issued {
    /// An access token of this session.
    pub(super) fn access(
        ledger: &Ledger,
        organization_id: OrganizationId,
        session: &Session,
        now: Timestamp,
    ) -> Result<Self, Status> {
        let sign_in = signing_in(ledger)?;
        let signer = sign_in.signing_keys.signer().ok_or_else(status::no_signing_key)?;
        let bearer = Bearer {
            organization_id,
            user_id: session.user_id,
            session_id: session.id,
            methods: Methods::of(&session.methods),
        };
        let access = sign_in.access_tokens.issue(&signer, bearer, now);
        let access = access.ok_or_else(status::no_signing_key)?;
        let lifetime_ms = i64::from(sign_in.access_tokens.terms().lifetime_s) * 1_000;
        let expires_at = now.saturating_add_millis(lifetime_ms).min(session.expires_at);
        Ok(Self { session_id: session.id, access, expires_at, refresh: None })
    }

    /// With this refresh token.
    pub(super) fn with_refresh(self, refresh: Secret) -> Self {
        Self { refresh: Some(refresh), ..self }
    }
}

/// An answer with tokens, in its message or in cookies.
pub(super) fn answer<M>(
    ledger: &Ledger,
    issued: Issued,
    in_cookies: bool,
    session_ends_at: Timestamp,
    message: impl FnOnce(proto::Tokens) -> M,
) -> Response<M> {
    let Issued { session_id, access, expires_at, refresh } = issued;
    let shown = |secret: &Secret| secret.expose().to_owned();
    let access_token_expires_at = Some(write::timestamp(expires_at));
    if !in_cookies {
        return Response::new(message(proto::Tokens {
            access_token: shown(&access),
            access_token_expires_at,
            refresh_token: refresh.as_ref().map(shown).unwrap_or_default(),
            csrf_token: String::new(),
        }));
    }
    let mut response = Response::new(message(proto::Tokens {
        access_token_expires_at,
        csrf_token: ledger.stamper().csrf_token(session_id),
        ..proto::Tokens::default()
    }));
    let now = ledger.clock().now();
    let lasts = |end: Timestamp| (end.as_millis() - now.as_millis()).max(0) / 1_000;
    let metadata = response.metadata_mut();
    set_cookie(metadata, ACCESS_COOKIE, access.expose(), lasts(session_ends_at));
    if let Some(refresh) = &refresh {
        set_cookie(metadata, REFRESH_COOKIE, refresh.expose(), lasts(session_ends_at));
    }
    response
}

fn set_cookie(metadata: &mut MetadataMap, name: &str, value: &str, seconds: i64) {
    let cookie = format!("{name}={value}; Max-Age={seconds}{ATTRIBUTES}");
    // Of base64url and dots alone: it is a header's value.
    if let Ok(cookie) = MetadataValue::try_from(cookie) {
        metadata.append("set-cookie", cookie);
    }
}

/// Has the browser forget a session's cookies.
pub(super) fn clear_cookies(metadata: &mut MetadataMap) {
    set_cookie(metadata, ACCESS_COOKIE, "", 0);
    set_cookie(metadata, REFRESH_COOKIE, "", 0);
}

fn cookie<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|it| !it.is_empty())
}

/// The access token of a session in cookies, as headers show it.
#[must_use]
pub fn session_cookie(headers: &http::HeaderMap) -> Option<&str> {
    cookie(headers, ACCESS_COOKIE)
}

pub(super) fn refresh_cookie(headers: &http::HeaderMap) -> Option<&str> {
    cookie(headers, REFRESH_COOKIE)
}

/// Whether a call's session came in a cookie.
pub(super) fn came_in_cookies<T>(request: &Request<T>) -> bool {
    let headers = request.metadata().as_ref();
    !headers.contains_key(http::header::AUTHORIZATION) && session_cookie(headers).is_some()
}

/// Whether cookies are all that a call shows of a session.
pub(super) fn cookies_alone<T>(request: &Request<T>) -> bool {
    let headers = request.metadata().as_ref();
    let shown = session_cookie(headers).is_some() || refresh_cookie(headers).is_some();
    shown && !shows_key(request)
}

/// Whether a call that shows a session's cookie shows that a page meant it.
#[must_use]
pub fn csrf_token_matches(ledger: &Ledger, headers: &http::HeaderMap, session: SessionId) -> bool {
    let shown = headers.get(CSRF_HEADER).map(http::HeaderValue::as_bytes).unwrap_or_default();
    ledger.stamper().csrf_token(session).as_bytes().ct_eq(shown).into()
}

pub(super) fn check_csrf(
    ledger: &Ledger,
    headers: &http::HeaderMap,
    session: SessionId,
) -> Result<(), Status> {
    if csrf_token_matches(ledger, headers, session) { Ok(()) } else { Err(status::csrf()) }
}

//! Credentials of break-glass, as the headers of a call show them.

use http::header::{AUTHORIZATION, HeaderMap};
use projections::presented::GRANT_TOKEN_HEAD;
use projections::verification::Code;
use tonic::{Request, Status};

use super::{X_BREAK_GLASS_REASON, X_MASTER_KEY, values};
use crate::ledger::break_glass::GivenReason;
use crate::services::status;
use crate::services::verification::emergency::one_reason;

/// Whether a call shows a master key, or what begins as a grant's token does.
#[must_use]
pub fn shows_emergency(headers: &HeaderMap) -> bool {
    let is_token = |value: &http::HeaderValue| {
        let parts = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
        parts.is_some_and(|(_, token)| token.trim().starts_with(GRANT_TOKEN_HEAD))
    };
    headers.contains_key(&X_MASTER_KEY) || headers.get_all(&AUTHORIZATION).iter().any(is_token)
}

/// Whether a call shows a master key.
#[must_use]
pub fn shows_master_key(headers: &HeaderMap) -> bool {
    headers.contains_key(&X_MASTER_KEY)
}

/// The master key that a request shows; none where it shows none.
pub fn master_key<T>(request: &Request<T>) -> Result<Option<&str>, Status> {
    let mut values = values(request.metadata().as_ref(), &X_MASTER_KEY);
    let Some(first) = values.next().transpose()? else { return Ok(None) };
    for other in values {
        if other? != first {
            return Err(status::unauthenticated(Code::Ambiguous));
        }
    }
    Ok(Some(first.trim()))
}

/// The reason that a call gives for its master key. What is no text of a header is none.
pub(in crate::services) fn reason(headers: &HeaderMap) -> GivenReason {
    match values(headers, &X_BREAK_GLASS_REASON).collect::<Result<Vec<_>, _>>() {
        Ok(values) => one_reason(values.into_iter()),
        Err(_) => GivenReason::Unusable,
    }
}

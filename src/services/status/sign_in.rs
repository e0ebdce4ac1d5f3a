//! What is told to people who sign in.

use std::collections::HashMap;
use std::time::Duration;

use projections::id::UserId;
use projections::time::Timestamp;
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{DOMAIN, from, refused, rejected, unavailable};
use crate::ledger::accounts::personal::PersonalError;
use crate::ledger::accounts::{PersonError, StreamStopped};
use crate::ledger::rejection::Rejection;
use crate::ledger::sign_in::hashing::HashingError;
use crate::ledger::sign_in::passwords::PasswordError;

/// The call needs the credential of a session.
pub fn session_required() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "SESSION_REQUIRED",
        "this call is for people who are logged in: call it with a session's access token",
    )
}

/// A call with a session's cookie does not show that a page meant it.
pub fn csrf() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "CSRF",
        "a session in cookies needs its `x-csrf-token`, which the login's answer gave",
    )
}

/// Something of what was shown to log in is wrong. The same for all of it.
pub fn login_failed() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "LOGIN_FAILED",
        "the e-mail, the password or the code is wrong",
    )
}

/// The password is right, and the account asks for a second factor.
pub fn second_factor_required() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "SECOND_FACTOR_REQUIRED",
        "`code`: the account asks for a code of its authenticator, or a recovery code",
    )
}

/// Too much was tried. The same for accounts that do not exist.
pub fn too_many_attempts(at: Timestamp, now: Timestamp) -> Status {
    let millis = at.as_millis().saturating_sub(now.as_millis()).max(0);
    let retry_after = Duration::from_millis(millis.unsigned_abs());
    let mut details = ErrorDetails::with_error_info("TOO_MANY_ATTEMPTS", DOMAIN, HashMap::new());
    details.set_retry_info(Some(retry_after));
    let message = format!("too many attempts; try again in {} s", retry_after.as_secs() + 1);
    Status::with_error_details(GrpcCode::ResourceExhausted, message, details)
}

/// Whoever showed who they are is no user of the organization.
pub fn not_a_member() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "NOT_A_MEMBER",
        "`organization_id`: the account is no user of that organization; name another",
    )
}

/// The user is suspended.
pub fn user_suspended(id: UserId) -> Status {
    rejected(&Rejection::UserIsSuspended(id))
}

/// There is no such user in this organization.
pub fn user_not_found(id: UserId) -> Status {
    rejected(&Rejection::UserNotFound(id))
}

/// A refresh token is good for nothing.
pub fn refresh_failed() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "REFRESH_FAILED",
        "`refresh_token`: is none that is good; log in again",
    )
}

/// A refresh token was used before.
pub fn refresh_reused() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "REFRESH_REUSED",
        "`refresh_token`: was used before, so somebody has a copy: the session is ended; log in again",
    )
}

/// Two used a refresh token at once.
pub fn refresh_raced() -> Status {
    refused(
        GrpcCode::Aborted,
        "REFRESH_RACED",
        "`refresh_token`: is being used by another request; use what that one is given",
    )
}

/// A one-time token is good for nothing.
pub fn token_failed() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "TOKEN_FAILED",
        "`token`: is none that is good; it may have been used, replaced, or be too old",
    )
}

/// The account has an authenticator already.
pub fn authenticator_enrolled() -> Status {
    refused(
        GrpcCode::FailedPrecondition,
        "AUTHENTICATOR_ENROLLED",
        "the account has an authenticator; remove it first",
    )
}

/// The account has no authenticator.
pub fn no_authenticator() -> Status {
    refused(
        GrpcCode::FailedPrecondition,
        "NO_AUTHENTICATOR",
        "the account has no authenticator; enroll one first",
    )
}

/// No authenticator waits to be confirmed.
pub fn no_enrolment() -> Status {
    refused(
        GrpcCode::FailedPrecondition,
        "NO_ENROLMENT",
        "no authenticator waits to be confirmed: one does so for 15 minutes; enroll it anew",
    )
}

/// There is no such account. For operators alone.
pub fn account_not_found() -> Status {
    refused(GrpcCode::NotFound, "ACCOUNT_NOT_FOUND", "`email`: nobody has it")
}

/// Nothing signs access tokens yet.
pub fn no_signing_key() -> Status {
    tracing::error!("no key signs access tokens");
    unavailable()
}

/// What is asked for was personal data of somebody who was erased.
pub fn erased(what: &str) -> Status {
    refused(GrpcCode::FailedPrecondition, "ERASED", format!("{what} was erased; invite them anew"))
}

/// As many tokens wait to be delivered as may.
pub fn delivery_busy() -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "DELIVERY_BUSY",
        "too many tokens wait to be delivered; try again later",
    )
}

/// An account's history is corrupt: nothing is known of it.
pub fn account_stopped(error: StreamStopped) -> Status {
    tracing::error!(%error, "an account is stopped");
    unavailable()
}

/// Who has an account cannot be told.
pub fn person_fault(error: &PersonError) -> Status {
    tracing::error!(%error, "read who has an account");
    unavailable()
}

/// A personal organization is not there, and could not be made.
pub fn personal_fault(error: PersonalError) -> Status {
    match error {
        PersonalError::Ledger(error) => from(error),
        PersonalError::Person(error) => person_fault(&error),
    }
}

/// Something that signing in rests on did not do its part.
pub fn sign_in_fault(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "sign in");
    unavailable()
}

/// A password could not be compared or set.
pub fn password_fault(error: &PasswordError) -> Status {
    match error {
        PasswordError::Hashing(HashingError::Busy) => refused(
            GrpcCode::ResourceExhausted,
            "HASHING_BUSY",
            "too many passwords are being checked; try again shortly",
        ),
        PasswordError::Conflict => {
            refused(GrpcCode::Aborted, "CONTENDED", "another request came first; try again")
        }
        PasswordError::Hashing(_) | PasswordError::Vault(_) => {
            tracing::error!(%error, "a password");
            unavailable()
        }
    }
}

//! Why the rules refuse a command of an account.

use projections::id::AccountId;

use super::command::{LOCK_MS_MAX, RECOVERY_CODES_MAX};

/// Why the rules refuse a command of an account. Variants stand in order of precedence:
/// where several hold, the earliest is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountRejection {
    /// There is no such account.
    #[error("account not found")]
    AccountNotFound,
    /// A session by which the command is given, or that it would keep, was ended.
    #[error("the session was ended; log in again")]
    SessionEnded,
    /// The idempotency key was used within 24 hours for something else.
    #[error("`idempotency_key` was used for another request; choose a new one")]
    IdempotencyKeyReused,
    /// Another account has this e-mail.
    #[error("`email`: belongs to another account")]
    EmailTaken,
    /// The e-mail is kept for an account that may be about to come to be.
    #[error("`email`: another account is being created with it; try again in a minute")]
    EmailReserved,
    /// The identifier is that of another account.
    #[error("account `{0}` exists, with another e-mail")]
    AccountExists(AccountId),
    /// An invitation sets an account's first password only.
    #[error("the account has a password already; log in, or reset it")]
    PasswordAlreadySet,
    /// There is no password to be changed.
    #[error("the account has no password yet; set it with its invitation")]
    PasswordNotSet,
    /// A second factor is asked for already.
    #[error("a second factor is enrolled already; remove it first")]
    TotpAlreadyEnrolled,
    /// No second factor is asked for.
    #[error("no second factor is enrolled; enroll one first")]
    TotpNotEnrolled,
    /// There are to be none, or too many.
    #[error("recovery codes must be 1 to {max}", max = RECOVERY_CODES_MAX)]
    RecoveryCodesOutOfRange,
    /// All recovery codes were used.
    #[error("no recovery code is left; ask for new ones")]
    NoRecoveryCodes,
    /// It would be over from the start.
    #[error("a lock must end in the future")]
    LockNotInFuture,
    /// It would last too long.
    #[error("a lock must end within {} hours", LOCK_MS_MAX / 3_600_000)]
    LockTooLong,
}

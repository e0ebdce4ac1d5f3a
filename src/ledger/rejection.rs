//! Why the rules refuse a command.

use projections::id::{KeyId, RoleId};
use projections::recorded::Revision;

/// Why the rules refuse a command. Variants stand in order of precedence: where
/// several hold, the earliest is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The caller's key has gone out of force since it was verified.
    #[error("the caller's key is no longer in force")]
    CallerNotInForce,
    /// The caller may not do this.
    #[error("permission `{0}` is not held")]
    PermissionDenied(String),
    /// There is no such organization.
    #[error("organization not found")]
    OrganizationNotFound,
    /// The idempotency key was used within 24 hours for something else.
    #[error("`idempotency_key` was used for another request; choose a new one")]
    IdempotencyKeyReused,
    /// The stream ends elsewhere than the caller expects.
    #[error("`expected_revision`: the stream ends at revision {}; read again and decide anew", current.map_or(-1, |it| i128::from(it.0)))]
    WrongExpectedRevision {
        /// Where it ends; none if it holds nothing.
        current: Option<Revision>,
    },
    /// The installation exists.
    #[error("the installation exists already")]
    InstallationExists,
    /// Another organization has this prefix.
    #[error("`key_prefix`: `{0}` is taken; choose another")]
    KeyPrefixTaken(String),
    /// The prefix is kept for the ledger's own tokens.
    #[error("`key_prefix`: `{0}` is reserved; choose another")]
    KeyPrefixReserved(String),
    /// There is no such plan.
    #[error("`plan`: `{0}` is unknown; plans are {1}")]
    PlanUnknown(String, String),
    /// There is no such key in this organization.
    #[error("key `{0}` not found")]
    KeyNotFound(KeyId),
    /// The key is out of force already.
    #[error("key `{0}` is revoked already")]
    KeyAlreadyRevoked(KeyId),
    /// A key needs scopes, roles or both.
    #[error("a key needs `scopes`, `role_ids` or both")]
    KeyWithoutPermissions,
    /// There is no such role.
    #[error("`role_ids`: role `{0}` not found")]
    RoleNotFound(RoleId),
    /// The caller would give a permission that it does not hold.
    #[error("`{0}` is not held by the caller, who therefore cannot give it")]
    PermissionNotHeld(String),
    /// A test key would act on a live one.
    #[error("`environment`: a test key cannot act on live keys")]
    EnvironmentNotHeld,
    /// The caller's key is limited to services, and would give others.
    #[error("`services`: the caller's key is limited to services; list only those")]
    ServiceNotHeld,
    /// Another active key has this name.
    #[error("`name`: `{0}` is the name of another active key; choose another or revoke that one")]
    KeyNameTaken(String),
    /// The key would be expired from the start.
    #[error("`expires_at`: is not in the future")]
    ExpiryNotInFuture,
    /// The plan allows less.
    #[error("`expires_at`: the plan allows {max_seconds} s at most")]
    LifetimeAbovePlan {
        /// What the plan allows.
        max_seconds: u32,
    },
    /// A secret of the configuration belongs to a key that was revoked.
    #[error("the configured key `{0}` was revoked; configure a new secret")]
    ConfiguredKeyRevoked(String),
    /// A secret is that of another key.
    #[error("the secret is in use already")]
    SecretInUse,
}

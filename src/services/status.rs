//! Errors as callers see them: refusals in full, faults not at all.

use std::collections::HashMap;
use std::time::Duration;

use projections::id::{KeyId, OrganizationId, RoleId, UserId};
use projections::organization::Change;
use projections::verification::Code;
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::ledger::LedgerError;
use crate::ledger::accounts::AccountRejection;
use crate::ledger::event_store::{AppendError, ReadError};
use crate::ledger::rejection::Rejection;
use crate::ledger::snapshot_store::SnapshotError;
use crate::ledger::vault::VaultError;

mod activity;
mod break_glass;
mod history;
mod sign_in;

pub use activity::{beyond_end, tail_too_slow};
pub use break_glass::{
    alerts_missed, denial, master_key_required, no_stream_under_grant, not_a_custodian,
};
pub use history::{history_busy, history_work_limit};
pub use sign_in::*;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "keyledger";

fn refused(code: GrpcCode, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// A field of the request is wrong.
pub fn invalid(field: impl Into<String>, problem: impl std::fmt::Display) -> Status {
    let field = field.into();
    let message = format!("`{field}`: {problem}");
    let mut details = ErrorDetails::with_bad_request_violation(field, problem.to_string());
    details.set_error_info("INVALID_ARGUMENT", DOMAIN, HashMap::new());
    Status::with_error_details(GrpcCode::InvalidArgument, message, details)
}

/// The same refusal of a field, as one inside this field; other errors as they are.
pub fn in_field(outer: &str, status: Status) -> Status {
    let violation = status
        .get_details_bad_request()
        .and_then(|details| details.field_violations.into_iter().next());
    match violation {
        Some(violation) => invalid(format!("{outer}.{}", violation.field), violation.description),
        None => status,
    }
}

/// A request's body is not what its content type says.
pub fn unreadable_body() -> Status {
    refused(
        GrpcCode::InvalidArgument,
        "INVALID_ARGUMENT",
        "the request's body cannot be read as its content type says: of `application/grpc-web-text` it is whole frames in padded base64",
    )
}

/// History is still being replayed.
pub fn starting() -> Status {
    refused(
        GrpcCode::Unavailable,
        "STARTING",
        "the ledger is replaying its history; try again shortly",
    )
}

/// This node keeps no activity index, for want of a file.
pub fn no_activity_index() -> Status {
    refused(
        GrpcCode::FailedPrecondition,
        "NO_ACTIVITY_INDEX",
        "this node keeps no activity index: `activity.db` could not be made, and the log of the start says why",
    )
}

/// This node cannot know whether it is still the one that is admitted.
pub fn no_contact() -> Status {
    refused(
        GrpcCode::Unavailable,
        "NO_CONTACT",
        "this node cannot show that it is the one that may answer; try again shortly",
    )
}

/// As many requests are under way as may be.
pub fn too_many_requests() -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "TOO_MANY_REQUESTS",
        "too many requests are under way; try again shortly",
    )
}

/// The caller's organization holds as many places as one may.
pub fn share_used_up(what: &str, share_max: usize) -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "TOO_MANY_REQUESTS",
        format!(
            "the organization has {share_max} {what}, as many as one may; end some, or let the operator raise `requests_max`"
        ),
    )
}

/// The caller's key was used as often as it may be for now.
pub fn rate_limited(retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(retry_after));
    details.set_error_info("RATE_LIMITED", DOMAIN, HashMap::new());
    let message = format!(
        "the credential was used as often as it may be for now; try again in {:.1} s",
        retry_after.as_secs_f64().max(0.1)
    );
    Status::with_error_details(GrpcCode::ResourceExhausted, message, details)
}

/// An organization answers nothing because its history is corrupt.
pub fn stopped(id: OrganizationId) -> Status {
    refused(
        GrpcCode::Unavailable,
        "ORGANIZATION_STOPPED",
        format!(
            "organization `{id}` is stopped: its stored history is damaged; its operator must restore it"
        ),
    )
}

/// The organization of the caller's own credential is stopped. It goes unnamed: nobody
/// has shown yet that the credential exists.
pub fn own_organization_stopped() -> Status {
    refused(
        GrpcCode::Unavailable,
        "ORGANIZATION_STOPPED",
        "the credential's organization is stopped: its stored history is damaged; its operator must restore it",
    )
}

/// The tables did not reach a revision in time.
pub fn revision_not_reached(stream: &str) -> Status {
    refused(
        GrpcCode::Unavailable,
        "REVISION_NOT_REACHED",
        format!(
            "`at_least_revision`: stream `{stream}` has not reached that revision here; try again"
        ),
    )
}

/// Nothing was asked on a call that stays.
pub fn idle() -> Status {
    refused(GrpcCode::Unavailable, "STREAM_IDLE", "nothing was asked for too long; open another")
}

/// The server shuts down.
pub fn closing() -> Status {
    refused(GrpcCode::Unavailable, "CLOSING", "the ledger is shutting down; try again")
}

/// The answers to the questions before this one left no room for its own.
pub fn answer_too_large() -> Status {
    refused(
        GrpcCode::ResourceExhausted,
        "ANSWER_TOO_LARGE",
        "the answers together are too large; ask this question again, with fewer others",
    )
}

/// The caller's own credential does not let it in.
pub fn unauthenticated(code: Code) -> Status {
    let unknown = ("UNKNOWN", "the credential is unknown");
    let (reason, message) = match code {
        Code::NoCredential => (
            "NO_CREDENTIAL",
            "no credential; send one as `authorization: Bearer …`, `x-api-key` or `x-admin-api-key`",
        ),
        Code::Ambiguous => ("AMBIGUOUS", "two different credentials of one kind; send one"),
        Code::Malformed => ("MALFORMED", "the credential is malformed; copy it whole"),
        Code::TenantMismatch => {
            ("TENANT_MISMATCH", "the credential belongs to another organization")
        }
        Code::Revoked => ("REVOKED", "the credential is revoked"),
        Code::Disabled => ("DISABLED", "the credential is disabled"),
        Code::Expired => ("EXPIRED", "the credential is expired"),
        Code::Suspended => ("SUSPENDED", "the user that the credential belongs to is suspended"),
        Code::IpNotAllowed => {
            ("IP_NOT_ALLOWED", "the credential is not for the address that the call comes from")
        }
        Code::Unknown
        | Code::WrongEnvironment
        | Code::ServiceNotAllowed
        | Code::PermissionDenied
        | Code::DomainNotAllowed
        | Code::FeatureNotLicensed
        | Code::MfaRequired
        | Code::RateLimited
        | Code::Allowed => unknown,
        Code::BreakGlassDisabled
        | Code::BreakGlassReasonRequired
        | Code::BreakGlassOrganizationRequired
        | Code::BreakGlassApprovalPending
        | Code::BreakGlassReviewPending
        | Code::BreakGlassLimited => break_glass::unauthenticated(code).unwrap_or(unknown),
    };
    refused(GrpcCode::Unauthenticated, reason, message)
}

/// The caller's own credential ended long ago.
pub fn ended_long_ago() -> Status {
    refused(GrpcCode::Unauthenticated, "REVOKED", "the credential is out of force for good")
}

/// The caller may not do this.
pub fn permission_denied(permission: impl std::fmt::Display) -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "PERMISSION_DENIED",
        format!("permission `{permission}` is not held"),
    )
}

/// What the caller may do asks for a feature that its organization's plan lacks.
pub fn feature_not_licensed(permission: impl std::fmt::Display) -> Status {
    rejected(&Rejection::FeatureNotLicensed(permission.to_string()))
}

/// What the caller may do asks for a second factor.
pub fn mfa_required(permission: impl std::fmt::Display) -> Status {
    rejected(&Rejection::MfaRequired(permission.to_string()))
}

/// The caller holds the permission, but in an organization of its own.
pub fn operator_only(permission: impl std::fmt::Display) -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "PERMISSION_DENIED",
        format!(
            "permission `{permission}` is not held in the operator organization: this call is for the operator's keys only"
        ),
    )
}

/// The caller's key is limited to services other than keyledger's own.
pub fn service_not_allowed() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "SERVICE_NOT_ALLOWED",
        "the credential is limited to other services than `keyledger`",
    )
}

/// The call is for an organization that the caller may not act for. The same whether it exists.
pub fn tenant_mismatch() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "TENANT_MISMATCH",
        "`x-tenant-id`: is not the credential's organization; an operator who names another needs `admin:users` and `admin:settings`",
    )
}

/// The caller names an organization that is not its own. The same whether it exists.
pub fn other_organization() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "OTHER_ORGANIZATION",
        "`organization_id`: is not the caller's own",
    )
}

/// There is no such key in this organization.
pub fn key_not_found(id: KeyId) -> Status {
    rejected(&Rejection::KeyNotFound(id))
}

/// There is no such break-glass grant in this organization.
pub fn break_glass_grant_not_found(id: projections::id::BreakGlassGrantId) -> Status {
    rejected(&crate::ledger::rejection::BreakGlassRejection::NotFound(id).into())
}

/// There is no such role in this organization.
pub fn role_not_found(id: RoleId) -> Status {
    rejected(&Rejection::NoSuchRole(id))
}

/// What people knew a user by was erased: nothing can stand in its place.
pub fn user_erased(id: UserId) -> Status {
    refused(
        GrpcCode::FailedPrecondition,
        "USER_ERASED",
        format!("what was known of user `{id}` was erased; remove the user and invite them anew"),
    )
}

/// There is no such organization.
pub fn organization_not_found(id: OrganizationId) -> Status {
    let message = format!("organization `{id}` not found");
    refused(GrpcCode::NotFound, "ORGANIZATION_NOT_FOUND", message)
}

/// What a command made is not there: a fault of ours, which is logged and not shown.
pub fn outcome_missing(outcome: Change) -> Status {
    tracing::error!(?outcome, "a command's outcome is not in the tables");
    refused(GrpcCode::Internal, "INTERNAL", "the ledger failed; what was asked may have been done")
}

/// The operating system gives no entropy.
pub fn no_entropy(error: &crate::ledger::secret::NoEntropy) -> Status {
    tracing::error!(%error, "no entropy");
    unavailable()
}

/// What was asked may have been done, or may yet be.
fn outcome_unknown() -> Status {
    refused(
        GrpcCode::Unavailable,
        "OUTCOME_UNKNOWN",
        "nobody knows whether this was done, or will be; look, or ask again with the same `idempotency_key`",
    )
}

fn unavailable() -> Status {
    refused(GrpcCode::Unavailable, "UNAVAILABLE", "the ledger cannot do this now; try again later")
}

/// What the rules of accounts refuse.
fn account_rejected(rejection: &AccountRejection) -> Status {
    use AccountRejection as It;
    let (code, reason) = match rejection {
        It::AccountNotFound => (GrpcCode::NotFound, "ACCOUNT_NOT_FOUND"),
        It::SessionEnded => (GrpcCode::Unauthenticated, "SESSION_ENDED"),
        It::IdempotencyKeyReused => (GrpcCode::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"),
        It::EmailTaken => (GrpcCode::AlreadyExists, "EMAIL_TAKEN"),
        It::EmailReserved => (GrpcCode::Aborted, "EMAIL_RESERVED"),
        It::AccountExists(_) => (GrpcCode::AlreadyExists, "ACCOUNT_EXISTS"),
        It::PasswordAlreadySet => (GrpcCode::FailedPrecondition, "PASSWORD_ALREADY_SET"),
        It::PasswordNotSet => (GrpcCode::FailedPrecondition, "PASSWORD_NOT_SET"),
        It::TotpAlreadyEnrolled => (GrpcCode::FailedPrecondition, "TOTP_ALREADY_ENROLLED"),
        It::TotpNotEnrolled => (GrpcCode::FailedPrecondition, "TOTP_NOT_ENROLLED"),
        It::RecoveryCodesOutOfRange => (GrpcCode::InvalidArgument, "RECOVERY_CODES_OUT_OF_RANGE"),
        It::NoRecoveryCodes => (GrpcCode::FailedPrecondition, "NO_RECOVERY_CODES"),
        It::LockNotInFuture => (GrpcCode::InvalidArgument, "LOCK_NOT_IN_FUTURE"),
        It::LockTooLong => (GrpcCode::InvalidArgument, "LOCK_TOO_LONG"),
    };
    refused(code, reason, rejection.to_string())
}

/// Maps what the ledger says. Faults are logged here, once, and not shown.
pub fn from(error: LedgerError) -> Status {
    match error {
        LedgerError::Rejected(rejection) => rejected(&rejection),
        LedgerError::ClockAhead(error) => {
            tracing::error!(%error, "writes are stopped");
            refused(
                GrpcCode::Unavailable,
                "CLOCK_AHEAD",
                "the ledger's clock has jumped; writes wait until an operator confirms it",
            )
        }
        LedgerError::Unstorable(error) => {
            refused(GrpcCode::InvalidArgument, "TOO_LONG", error.to_string())
        }
        LedgerError::Seal(error) => {
            refused(GrpcCode::InvalidArgument, "TOO_LONG", error.to_string())
        }
        LedgerError::Stopped { organization_id, .. } => stopped(organization_id),
        LedgerError::Account(rejection) => account_rejected(&rejection),
        LedgerError::StreamStopped(_) => refused(
            GrpcCode::Unavailable,
            "ACCOUNT_STOPPED",
            "the account is stopped: its stored history is damaged; its operator must restore it",
        ),
        LedgerError::Append(AppendError::Full) => refused(
            GrpcCode::ResourceExhausted,
            "STORE_FULL",
            "the ledger's disk is full; nothing was written; verification goes on, and what ends access, as long as the reserve lasts; the operator must make space, then writes go on by themselves",
        ),
        LedgerError::Append(AppendError::WrongExpectedRevision { .. }) | LedgerError::Contended => {
            refused(GrpcCode::Aborted, "CONTENDED", "other writers came first; try again")
        }
        LedgerError::Append(AppendError::Limits(_)) => refused(
            GrpcCode::InvalidArgument,
            "TOO_LARGE",
            "the request makes more than one append may hold; ask for less",
        ),
        LedgerError::Append(error @ (AppendError::Unavailable(_) | AppendError::Fenced(_))) => {
            tracing::error!(%error, "append");
            unavailable()
        }
        LedgerError::Append(error @ AppendError::Unknown(_)) => {
            tracing::error!(%error, "append");
            outcome_unknown()
        }
        LedgerError::NoContact => no_contact(),
        LedgerError::Vault(error) => from_vault(&error),
        LedgerError::NotActivated(event_type) => {
            tracing::error!(event_type, "decided an event whose type is not activated");
            unavailable()
        }
        LedgerError::Held => unavailable(),
        LedgerError::Closing => closing(),
    }
}

/// Maps what a read of the event store says.
pub fn from_read(error: &ReadError) -> Status {
    tracing::error!(%error, "read");
    unavailable()
}

/// Maps what is said where dead keys are kept.
pub fn from_dead_keys(error: &SnapshotError) -> Status {
    tracing::error!(%error, "look up a dead key");
    unavailable()
}

/// A dead key could not be read from the disk: that was logged when it was tried.
pub fn not_recalled() -> Status {
    unavailable()
}

/// Maps what the vault says.
pub fn from_vault(error: &VaultError) -> Status {
    if *error == VaultError::Full {
        return refused(
            GrpcCode::ResourceExhausted,
            "VAULT_FULL",
            "the disk of the ledger's secrets is full; nothing was written; verification and revocation go on; the operator must make space, then writes go on by themselves",
        );
    }
    tracing::error!(%error, "vault");
    unavailable()
}

/// Sealed data does not open, although nobody erased it.
pub fn unsealable(error: crate::ledger::vault::seal::OpenError) -> Status {
    tracing::error!(%error, "open sealed data");
    refused(GrpcCode::DataLoss, "SEALED_DATA_DAMAGED", "sealed data of this record is damaged")
}

/// What the rules refuse.
pub fn rejected(rejection: &Rejection) -> Status {
    let (code, reason) = kind(rejection);
    refused(code, reason, rejection.to_string())
}

/// The kind of a rejection: as a status, and by name.
fn kind(rejection: &Rejection) -> (GrpcCode, &'static str) {
    match rejection {
        Rejection::CallerNotInForce => (GrpcCode::Unauthenticated, "CALLER_NOT_IN_FORCE"),
        Rejection::PermissionDenied(_) => (GrpcCode::PermissionDenied, "PERMISSION_DENIED"),
        Rejection::FeatureNotLicensed(_) => (GrpcCode::PermissionDenied, "FEATURE_NOT_LICENSED"),
        Rejection::MfaRequired(_) => (GrpcCode::PermissionDenied, "MFA_REQUIRED"),
        Rejection::OrganizationNotFound => (GrpcCode::NotFound, "ORGANIZATION_NOT_FOUND"),
        Rejection::IdempotencyKeyReused => (GrpcCode::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"),
        Rejection::WrongExpectedRevision { .. } => (GrpcCode::Aborted, "WRONG_EXPECTED_REVISION"),
        Rejection::InstallationExists => (GrpcCode::FailedPrecondition, "INSTALLATION_EXISTS"),
        Rejection::KeyPrefixTaken(_) => (GrpcCode::AlreadyExists, "KEY_PREFIX_TAKEN"),
        Rejection::KeyPrefixReserved(_) => (GrpcCode::InvalidArgument, "KEY_PREFIX_RESERVED"),
        Rejection::PlanUnknown(..) => (GrpcCode::InvalidArgument, "PLAN_UNKNOWN"),
        Rejection::KeyNotFound(_) => (GrpcCode::NotFound, "KEY_NOT_FOUND"),
        Rejection::KeyEndedLongAgo(_) => (GrpcCode::FailedPrecondition, "KEY_ENDED_LONG_AGO"),
        Rejection::KeyAlreadyRevoked(_) => (GrpcCode::FailedPrecondition, "KEY_ALREADY_REVOKED"),
        Rejection::KeyWithoutPermissions => (GrpcCode::InvalidArgument, "KEY_WITHOUT_PERMISSIONS"),
        Rejection::RoleNotFound(_) => (GrpcCode::InvalidArgument, "ROLE_NOT_FOUND"),
        Rejection::NoSuchRole(_) => (GrpcCode::NotFound, "ROLE_NOT_FOUND"),
        Rejection::RoleIsBuiltIn(_) => (GrpcCode::FailedPrecondition, "ROLE_BUILT_IN"),
        Rejection::RoleIsRetired(_) => (GrpcCode::FailedPrecondition, "ROLE_RETIRED"),
        Rejection::RoleNameReserved(_) => (GrpcCode::InvalidArgument, "ROLE_NAME_RESERVED"),
        Rejection::RoleNameTaken(_) => (GrpcCode::AlreadyExists, "ROLE_NAME_TAKEN"),
        Rejection::TooManyRoles => (GrpcCode::FailedPrecondition, "TOO_MANY_ROLES"),
        Rejection::TooManyRolesMade => (GrpcCode::FailedPrecondition, "TOO_MANY_ROLES_MADE"),
        Rejection::GrantNotFound(_) => (GrpcCode::NotFound, "GRANT_NOT_FOUND"),
        Rejection::GrantExists(_) => (GrpcCode::AlreadyExists, "GRANT_EXISTS"),
        Rejection::TooManyGrants(_) => (GrpcCode::FailedPrecondition, "TOO_MANY_GRANTS"),
        Rejection::NotGrantable => (GrpcCode::InvalidArgument, "NOT_GRANTABLE"),
        Rejection::PermissionNotHeld(_) => (GrpcCode::PermissionDenied, "PERMISSION_NOT_HELD"),
        Rejection::EnvironmentNotHeld => (GrpcCode::PermissionDenied, "ENVIRONMENT_NOT_HELD"),
        Rejection::ServiceNotHeld => (GrpcCode::PermissionDenied, "SERVICE_NOT_HELD"),
        Rejection::KeyNameTaken(_) => (GrpcCode::AlreadyExists, "KEY_NAME_TAKEN"),
        Rejection::ExpiryNotInFuture => (GrpcCode::InvalidArgument, "EXPIRY_NOT_IN_FUTURE"),
        Rejection::LifetimeAbovePlan { .. } => {
            (GrpcCode::FailedPrecondition, "LIFETIME_ABOVE_PLAN")
        }
        Rejection::ConfiguredKeyRevoked(_) => {
            (GrpcCode::FailedPrecondition, "CONFIGURED_KEY_REVOKED")
        }
        Rejection::SecretInUse => (GrpcCode::AlreadyExists, "SECRET_IN_USE"),
        Rejection::KeyAlreadyDisabled(_) => (GrpcCode::FailedPrecondition, "KEY_ALREADY_DISABLED"),
        Rejection::KeyIsDisabled(_) => (GrpcCode::FailedPrecondition, "KEY_DISABLED"),
        Rejection::KeyNotDisabled(_) => (GrpcCode::FailedPrecondition, "KEY_NOT_DISABLED"),
        Rejection::KeyIsExpired(_) => (GrpcCode::FailedPrecondition, "KEY_EXPIRED"),
        Rejection::KeyAlreadyRotated(..) => (GrpcCode::FailedPrecondition, "KEY_ALREADY_ROTATED"),
        Rejection::KeyNotRotated(_) => (GrpcCode::FailedPrecondition, "KEY_NOT_ROTATED"),
        Rejection::KeyIsConfigured(_) => (GrpcCode::FailedPrecondition, "KEY_CONFIGURED"),
        Rejection::ServiceAccountNotFound(_) => (GrpcCode::NotFound, "SERVICE_ACCOUNT_NOT_FOUND"),
        Rejection::ServiceAccountNameTaken(_) => {
            (GrpcCode::AlreadyExists, "SERVICE_ACCOUNT_NAME_TAKEN")
        }
        Rejection::TooManyKeys(..) => (GrpcCode::FailedPrecondition, "TOO_MANY_KEYS"),
        Rejection::TooManyServiceAccounts => {
            (GrpcCode::FailedPrecondition, "TOO_MANY_SERVICE_ACCOUNTS")
        }
        Rejection::RolesOfOwner => (GrpcCode::InvalidArgument, "ROLES_OF_OWNER"),
        Rejection::ScopesForAnother => (GrpcCode::InvalidArgument, "SCOPES_FOR_ANOTHER"),
        Rejection::UserNotFound(_) => (GrpcCode::NotFound, "USER_NOT_FOUND"),
        Rejection::UserIsSuspended(_) => (GrpcCode::FailedPrecondition, "USER_SUSPENDED"),
        Rejection::UserNotSuspended(_) => (GrpcCode::FailedPrecondition, "USER_NOT_SUSPENDED"),
        Rejection::OrganizationPersonal => (GrpcCode::FailedPrecondition, "ORGANIZATION_PERSONAL"),
        Rejection::EmailTaken(_) => (GrpcCode::AlreadyExists, "EMAIL_TAKEN"),
        Rejection::TooManyUsers => (GrpcCode::FailedPrecondition, "TOO_MANY_USERS"),
        Rejection::UserJoinedAlready(_) => (GrpcCode::FailedPrecondition, "USER_JOINED"),
        Rejection::InvitationOver => (GrpcCode::FailedPrecondition, "INVITATION_OVER"),
        Rejection::InvitationForAnother => (GrpcCode::PermissionDenied, "INVITATION_FOR_ANOTHER"),
        Rejection::NotOneself => (GrpcCode::FailedPrecondition, "NOT_ONESELF"),
        Rejection::SessionNotFound(_) => (GrpcCode::NotFound, "SESSION_NOT_FOUND"),
        Rejection::PolicyLoosened => (GrpcCode::PermissionDenied, "POLICY_LOOSENED"),
        Rejection::LifetimeAbovePolicy { .. } => {
            (GrpcCode::FailedPrecondition, "LIFETIME_ABOVE_POLICY")
        }
        Rejection::GraceAboveMax { .. } => (GrpcCode::FailedPrecondition, "GRACE_ABOVE_MAX"),
        Rejection::AllowedIpsRequired => (GrpcCode::FailedPrecondition, "ALLOWED_IPS_REQUIRED"),
        Rejection::AllowedIpsEverywhere(_) => {
            (GrpcCode::FailedPrecondition, "ALLOWED_IPS_EVERYWHERE")
        }
        Rejection::BreakGlass(rejection) => break_glass::kind(rejection),
        Rejection::OutlastsGrant => (GrpcCode::PermissionDenied, "OUTLASTS_BREAK_GLASS_GRANT"),
        Rejection::Item { source, .. } => kind(source),
    }
}

//! What is said of break-glass.

use projections::event::DenialCode;
use projections::verification::Code;
use tonic::{Code as GrpcCode, Status};
use tonic_types::StatusExt as _;

use super::refused;
use crate::ledger::rejection::BreakGlassRejection;

/// The kind of a rejection: as a status, and by name.
pub(super) fn kind(rejection: &BreakGlassRejection) -> (GrpcCode, &'static str) {
    use BreakGlassRejection as It;
    match rejection {
        It::Disabled => (GrpcCode::FailedPrecondition, "BREAK_GLASS_DISABLED"),
        It::NotAPerson => (GrpcCode::PermissionDenied, "NOT_A_PERSON"),
        It::NotFound(_) => (GrpcCode::NotFound, "BREAK_GLASS_GRANT_NOT_FOUND"),
        It::Operator => (GrpcCode::InvalidArgument, "BREAK_GLASS_OPERATOR"),
        It::PermissionNotListed(_) => (GrpcCode::InvalidArgument, "PERMISSION_NOT_LISTED"),
        It::Duration(_) => (GrpcCode::InvalidArgument, "DURATION_OUT_OF_RANGE"),
        It::IncidentRequired => (GrpcCode::InvalidArgument, "INCIDENT_REQUIRED"),
        It::ReviewPending(_) => (GrpcCode::FailedPrecondition, "BREAK_GLASS_REVIEW_PENDING"),
        It::Limited(..) => (GrpcCode::ResourceExhausted, "BREAK_GLASS_LIMITED"),
        It::NotOpen => (GrpcCode::FailedPrecondition, "BREAK_GLASS_NOT_OPEN"),
        It::NotAwaitingApproval(_) => (GrpcCode::FailedPrecondition, "NOT_AWAITING_APPROVAL"),
        It::OwnGrant(_) => (GrpcCode::PermissionDenied, "OWN_BREAK_GLASS_GRANT"),
        It::NotEnded(_) => (GrpcCode::FailedPrecondition, "BREAK_GLASS_GRANT_NOT_ENDED"),
        It::Reviewed(_) => (GrpcCode::FailedPrecondition, "BREAK_GLASS_GRANT_REVIEWED"),
    }
}

/// Why a credential of break-glass does not let its bearer in, where the code is its own.
pub(super) fn unauthenticated(code: Code) -> Option<(&'static str, &'static str)> {
    Some(match code {
        Code::BreakGlassDisabled => ("BREAK_GLASS_DISABLED", "break-glass is off"),
        Code::BreakGlassReasonRequired => (
            "BREAK_GLASS_REASON_REQUIRED",
            "`x-break-glass-reason`: must be given with a master key: 1 to 500 characters in one line",
        ),
        Code::BreakGlassOrganizationRequired => (
            "BREAK_GLASS_ORGANIZATION_REQUIRED",
            "`x-tenant-id`: must name the organization that a master key is shown for",
        ),
        Code::BreakGlassApprovalPending => {
            ("BREAK_GLASS_APPROVAL_PENDING", "the grant awaits approval by somebody else")
        }
        Code::BreakGlassReviewPending => (
            "BREAK_GLASS_REVIEW_PENDING",
            "the last grant for this reason ended; it must be reviewed before another is opened",
        ),
        Code::BreakGlassLimited => {
            ("BREAK_GLASS_LIMITED", "as many grants were opened as may be; try again later")
        }
        Code::NoCredential
        | Code::Ambiguous
        | Code::Malformed
        | Code::Unknown
        | Code::TenantMismatch
        | Code::Revoked
        | Code::Disabled
        | Code::Expired
        | Code::Suspended
        | Code::IpNotAllowed
        | Code::WrongEnvironment
        | Code::ServiceNotAllowed
        | Code::PermissionDenied
        | Code::DomainNotAllowed
        | Code::FeatureNotLicensed
        | Code::MfaRequired
        | Code::RateLimited
        | Code::Allowed => return None,
    })
}

/// What is shown is no custodian's master key.
pub fn not_a_custodian() -> Status {
    refused(GrpcCode::Unauthenticated, "UNKNOWN", "`x-master-key`: is no custodian's")
}

/// A master key is needed.
pub fn master_key_required() -> Status {
    refused(
        GrpcCode::Unauthenticated,
        "NO_CREDENTIAL",
        "`x-master-key`: must be given: a grant is opened with a custodian's master key",
    )
}

/// Emergency access is recorded call by call, and a stream is one call with many questions.
pub fn no_stream_under_grant() -> Status {
    refused(
        GrpcCode::PermissionDenied,
        "BREAK_GLASS_STREAM",
        "emergency access is recorded call by call; ask with Verify or VerifyBatch",
    )
}

/// Alerts were missed: they came faster than they were taken.
pub fn alerts_missed(missed: u64) -> Status {
    let message = format!(
        "{missed} alerts were missed: they came faster than they were taken; list the grants, and watch anew"
    );
    refused(GrpcCode::DataLoss, "ALERTS_MISSED", message)
}

/// How an answer to a custodian, or to whoever acts under a grant, is recorded: none where it
/// is none that refuses them.
pub fn denial(status: &Status) -> Option<DenialCode> {
    let details = status.get_error_details();
    let reason = details.error_info().map(|it| it.reason.as_str());
    match (status.code(), reason) {
        (_, Some("BREAK_GLASS_DISABLED")) => Some(DenialCode::BreakGlassDisabled),
        (_, Some("BREAK_GLASS_LIMITED")) => Some(DenialCode::BreakGlassLimited),
        (_, Some("BREAK_GLASS_REVIEW_PENDING")) => Some(DenialCode::BreakGlassReviewPending),
        (_, Some("ORGANIZATION_NOT_FOUND" | "BREAK_GLASS_OPERATOR")) => {
            Some(DenialCode::BreakGlassOrganizationRequired)
        }
        (GrpcCode::InvalidArgument, _) => Some(DenialCode::Malformed),
        (GrpcCode::Unauthenticated, _) => Some(DenialCode::NotInForce),
        (GrpcCode::PermissionDenied | GrpcCode::FailedPrecondition | GrpcCode::NotFound, _) => {
            Some(DenialCode::PermissionDenied)
        }
        _ => None,
    }
}

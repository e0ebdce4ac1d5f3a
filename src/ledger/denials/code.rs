//! Codes of answers, as they are recorded.

use projections::event::DenialCode;
use projections::verification::Code;

macro_rules! codes {
    ($($name:ident),+ $(,)?) => {
        /// The code of a denial; none where nothing was denied.
        pub(in crate::ledger) fn code(code: Code) -> Option<DenialCode> {
            match code {
                $(Code::$name => Some(DenialCode::$name),)+
                Code::Allowed => None,
            }
        }

        /// The code of an answer that was recorded as denied. What went out of force while it
        /// was used is revoked.
        pub(in crate::ledger) fn code_back(code: DenialCode) -> Code {
            match code {
                $(DenialCode::$name => Code::$name,)+
                DenialCode::NotInForce => Code::Revoked,
            }
        }
    };
}

codes!(
    NoCredential,
    Ambiguous,
    Malformed,
    Unknown,
    TenantMismatch,
    Revoked,
    Disabled,
    Expired,
    Suspended,
    IpNotAllowed,
    BreakGlassDisabled,
    BreakGlassReasonRequired,
    BreakGlassOrganizationRequired,
    BreakGlassApprovalPending,
    BreakGlassReviewPending,
    BreakGlassLimited,
    WrongEnvironment,
    ServiceNotAllowed,
    PermissionDenied,
    DomainNotAllowed,
    FeatureNotLicensed,
    MfaRequired,
    RateLimited,
);

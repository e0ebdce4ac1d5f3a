//! A decision becomes the bytes of a `VerifyResponse`, straight from the tables: the one
//! place where that happens, for all methods.
//!
//! Fields stand in the order of their numbers. The tests hold what is written against
//! what prost writes of the same message, and know when a field is missing.

use projections::api_key::Environment;
use projections::event::KeyOrigin;
use projections::id::OrganizationId;
use projections::principal::Owner;
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;
use projections::verification::{Code, Decision, Recognised};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::NoDecision;
use crate::ledger::verify::Answer;
use crate::proto;
use crate::services::wire::writer::{item, nested, number, signed, text};
use crate::services::write;

/// Room for a typical answer.
pub(super) const ROOM_BYTES: usize = 512;

/// Appends the `VerifyResponse` of an answer, and gives its code.
pub(super) fn write(
    answer: Answer<'_>,
    correlation_id: &str,
    out: &mut Vec<u8>,
) -> Result<proto::DecisionCode, NoDecision> {
    let (code, decision, retry_after) = match answer {
        Answer::Unavailable(id) => return Err(NoDecision::Stopped(id)),
        Answer::Elsewhere(ticket) => return Err(NoDecision::Elsewhere(ticket)),
        Answer::Emergency(shown) => return Err(NoDecision::Emergency(shown)),
        Answer::Refused(code) => (wire_code(code), None, None),
        Answer::Decided(decision) => (wire_code(decision.code), Some(decision), None),
        Answer::RateLimited { decision, retry_after } => {
            (wire_code(decision.code), Some(decision), Some(retry_after))
        }
    };
    number(out, 1, u64::from(code == proto::DecisionCode::Allowed));
    signed(out, 2, i32::from(code).into());
    if let Some(decision) = decision {
        decided(&decision, out);
    }
    text(out, 14, correlation_id);
    if let Some(retry_after) = retry_after {
        nested(out, 15, |out| {
            number(out, 1, retry_after.as_secs());
            number(out, 2, retry_after.subsec_nanos().into());
        });
    }
    Ok(code)
}

fn decided(decision: &Decision<'_>, out: &mut Vec<u8>) {
    let (credential, organization_id) = (decision.credential, decision.organization_id);
    nested(out, 3, |out| {
        let grant = match credential {
            Recognised::BreakGlass(grant) => Some(grant.id),
            Recognised::Key(_) | Recognised::Session(_) => None,
        };
        let kind = match credential.owner() {
            _ if grant.is_some() => proto::PrincipalKind::BreakGlass,
            Some(Owner::ServiceAccount(_)) => proto::PrincipalKind::ServiceAccount,
            Some(Owner::User(_)) => proto::PrincipalKind::User,
            None if organization_id.is_operator() => proto::PrincipalKind::Operator,
            None => proto::PrincipalKind::Organization,
        };
        signed(out, 1, i32::from(kind).into());
        nested(out, 2, |out| organization_id.push_to(out));
        match credential.owner() {
            Some(Owner::ServiceAccount(id)) => nested(out, 3, |out| id.push_to(out)),
            Some(Owner::User(id)) => nested(out, 4, |out| id.push_to(out)),
            None => {}
        }
        if let Some(id) = grant {
            nested(out, 5, |out| id.push_to(out));
        }
    });
    nested(out, 4, |out| decision.tenant_id.push_to(out));
    let (kind, environment) = match credential {
        Recognised::Key(key) => {
            let kind = match key.origin() {
                KeyOrigin::Global => proto::CredentialKind::GlobalKey,
                KeyOrigin::Minted | KeyOrigin::Configured | KeyOrigin::Imported => {
                    proto::CredentialKind::ApiKey
                }
            };
            (kind, key.effective_environment())
        }
        Recognised::Session(_) => (proto::CredentialKind::Session, Environment::Live),
        Recognised::BreakGlass(_) => (proto::CredentialKind::BreakGlass, Environment::Live),
    };
    signed(out, 5, i32::from(kind).into());
    nested(out, 6, |out| match credential {
        Recognised::Key(key) => key.id.push_to(out),
        Recognised::Session(session) => session.id.push_to(out),
        Recognised::BreakGlass(grant) => grant.id.push_to(out),
    });
    signed(out, 7, i32::from(write::environment(Some(environment))).into());
    for role in decision.authority.roles() {
        nested(out, 8, |out| {
            nested(out, 1, |out| role.id.push_to(out));
            text(out, 2, role.name.as_str());
        });
    }
    for permission in decision.authority.permissions() {
        item(out, 9, permission);
    }
    for (label, limit) in decision.limits() {
        nested(out, 10, |out| {
            text(out, 1, label.as_str());
            signed(out, 2, limit);
        });
    }
    if let Some(extras) = credential.key().and_then(|key| key.extras.as_deref()) {
        for (label, value) in &extras.metadata {
            nested(out, 11, |out| {
                text(out, 1, label.as_str());
                text(out, 2, value.as_str());
            });
        }
    }
    if let Some(at) = credential.expires_at() {
        nested(out, 12, |out| timestamp(at, out));
    }
    revision(organization_id, decision.revision, out);
    if !organization_id.is_operator() {
        revision(OrganizationId::OPERATOR, decision.operator_revision, out);
    }
}

fn timestamp(at: Timestamp, out: &mut Vec<u8>) {
    let at = write::timestamp(at);
    signed(out, 1, at.seconds);
    signed(out, 2, at.nanos.into());
}

fn revision(id: OrganizationId, revision: Option<Revision>, out: &mut Vec<u8>) {
    if let Some(revision) = revision {
        nested(out, 13, |out| {
            nested(out, 1, |out| {
                out.extend_from_slice(StreamName::ORGANIZATION.as_bytes());
                id.push_to(out);
            });
            number(out, 2, revision.0);
        });
    }
}

fn wire_code(code: Code) -> proto::DecisionCode {
    match code {
        Code::NoCredential => proto::DecisionCode::NoCredential,
        Code::Ambiguous => proto::DecisionCode::Ambiguous,
        Code::Malformed => proto::DecisionCode::Malformed,
        Code::Unknown => proto::DecisionCode::Unknown,
        Code::TenantMismatch => proto::DecisionCode::TenantMismatch,
        Code::Revoked => proto::DecisionCode::Revoked,
        Code::Disabled => proto::DecisionCode::Disabled,
        Code::Expired => proto::DecisionCode::Expired,
        Code::Suspended => proto::DecisionCode::Suspended,
        Code::IpNotAllowed => proto::DecisionCode::IpNotAllowed,
        Code::BreakGlassDisabled => proto::DecisionCode::BreakGlassDisabled,
        Code::BreakGlassReasonRequired => proto::DecisionCode::BreakGlassReasonRequired,
        Code::BreakGlassOrganizationRequired => proto::DecisionCode::BreakGlassOrganizationRequired,
        Code::BreakGlassApprovalPending => proto::DecisionCode::BreakGlassApprovalPending,
        Code::BreakGlassReviewPending => proto::DecisionCode::BreakGlassReviewPending,
        Code::BreakGlassLimited => proto::DecisionCode::BreakGlassLimited,
        Code::WrongEnvironment => proto::DecisionCode::WrongEnvironment,
        Code::ServiceNotAllowed => proto::DecisionCode::ServiceNotAllowed,
        Code::PermissionDenied => proto::DecisionCode::PermissionDenied,
        Code::DomainNotAllowed => proto::DecisionCode::DomainNotAllowed,
        Code::FeatureNotLicensed => proto::DecisionCode::FeatureNotLicensed,
        Code::MfaRequired => proto::DecisionCode::MfaRequired,
        Code::RateLimited => proto::DecisionCode::RateLimited,
        Code::Allowed => proto::DecisionCode::Allowed,
    }
}

/// Appends the `Undecided` that says what Verify would have answered as this error.
pub(super) fn undecided(status: &Status, out: &mut Vec<u8>) {
    let details = status.get_error_details();
    signed(out, 1, i64::from(i32::from(status.code())));
    text(out, 2, details.error_info().map_or("", |info| &info.reason));
    text(out, 3, status.message());
}

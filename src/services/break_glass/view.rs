//! Rows of break-glass become messages.

use projections::break_glass::{BreakGlassGrant, GrantState};
use projections::event::{BreakGlassEndReason, ReviewFinding};
use projections::id::OrganizationId;
use projections::text::Label;
use projections::time::Timestamp;

use crate::ledger::break_glass::{Alert, AlertKind};
use crate::proto;
use crate::services::write;

fn name(custodian: Option<&Label>) -> String {
    custodian.map(ToString::to_string).unwrap_or_default()
}

fn state(state: GrantState) -> proto::BreakGlassGrantState {
    match state {
        GrantState::AwaitingApproval => proto::BreakGlassGrantState::AwaitingApproval,
        GrantState::Open => proto::BreakGlassGrantState::Open,
        GrantState::Ended => proto::BreakGlassGrantState::Ended,
        GrantState::Reviewed => proto::BreakGlassGrantState::Reviewed,
    }
}

/// A grant, as it is at this instant.
pub(in crate::services) fn grant(
    grant: &BreakGlassGrant,
    organization_id: OrganizationId,
    now: Timestamp,
) -> proto::BreakGlassGrant {
    let way = match grant.token {
        Some(_) => proto::BreakGlassWay::Token,
        None => proto::BreakGlassWay::MasterKey,
    };
    proto::BreakGlassGrant {
        id: grant.id.text(),
        organization_id: organization_id.text(),
        state: state(grant.state(now)).into(),
        custodian: grant.custodian.to_string(),
        account_id: grant.account_id.map(|it| it.text()).unwrap_or_default(),
        way: way.into(),
        incident: grant.incident.as_ref().map(ToString::to_string).unwrap_or_default(),
        permissions: grant.permissions.texts().map(str::to_owned).collect(),
        duration: Some(prost_types::Duration { seconds: grant.duration_seconds.into(), nanos: 0 }),
        opened_at: Some(write::timestamp(grant.opened_at)),
        expires_at: Some(write::timestamp(grant.expires_at)),
        uses: grant.uses,
        refusals: grant.refusals,
        last_used_at: grant.last_used_at.map(write::timestamp),
        approved: grant.approved.as_ref().map(|it| proto::BreakGlassApproval {
            at: Some(write::timestamp(it.act.at)),
            account_id: it.account_id.text(),
            custodian: name(it.custodian.as_ref()),
        }),
        ended: grant.ended.map(|it| proto::BreakGlassEnd {
            reason: end_reason(it.reason).into(),
            ended_at: Some(write::timestamp(it.ended_at)),
            recorded_at: Some(write::timestamp(it.act.at)),
            server_was_down: it.server_was_down,
            by: Some(write::principal(it.act.by, organization_id)),
        }),
        escalated_at: grant.escalated_at.map(write::timestamp),
        reviewed: grant.reviewed.as_ref().map(|it| proto::BreakGlassReview {
            at: Some(write::timestamp(it.act.at)),
            account_id: it.account_id.text(),
            custodian: name(it.custodian.as_ref()),
            finding: match it.finding {
                ReviewFinding::Justified => proto::ReviewFinding::Justified,
                ReviewFinding::Unjustified => proto::ReviewFinding::Unjustified,
            }
            .into(),
        }),
        opened_revision: grant.opened_by.0,
    }
}

fn end_reason(reason: BreakGlassEndReason) -> proto::BreakGlassEndReason {
    match reason {
        BreakGlassEndReason::Closed => proto::BreakGlassEndReason::Closed,
        BreakGlassEndReason::Expired => proto::BreakGlassEndReason::Expired,
        BreakGlassEndReason::NotApproved => proto::BreakGlassEndReason::NotApproved,
        BreakGlassEndReason::Superseded => proto::BreakGlassEndReason::Superseded,
        BreakGlassEndReason::Withdrawn => proto::BreakGlassEndReason::Withdrawn,
    }
}

/// An alert.
pub(super) fn alert(alert: &Alert) -> proto::WatchBreakGlassResponse {
    let kind = match alert.kind {
        AlertKind::Opened => proto::BreakGlassAlertKind::Opened,
        AlertKind::AwaitsApproval => proto::BreakGlassAlertKind::AwaitsApproval,
        AlertKind::Approved => proto::BreakGlassAlertKind::Approved,
        AlertKind::Refused => proto::BreakGlassAlertKind::Refused,
        AlertKind::Ended => proto::BreakGlassAlertKind::Ended,
        AlertKind::Escalated => proto::BreakGlassAlertKind::Escalated,
        AlertKind::Reviewed => proto::BreakGlassAlertKind::Reviewed,
    };
    proto::WatchBreakGlassResponse {
        kind: kind.into(),
        at: Some(write::timestamp(alert.at)),
        organization_id: alert.organization_id.text(),
        custodian: alert.custodian.to_string(),
        grant: alert.grant.as_ref().map(|it| grant(it, alert.organization_id, alert.at)),
    }
}

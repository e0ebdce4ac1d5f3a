//! The life of one break-glass grant, and of one that was refused.

use projections::digest::ReasonDigest;
use projections::id::BreakGlassGrantId;
use projections::principal::Credential;
use projections::time::Timestamp;

use super::*;

fn account(number: u128) -> AccountId {
    AccountId::from_parts(1_790_000_000_000, number)
}

fn later() -> Timestamp {
    "2026-11-22T11:00:00.000Z".parse().unwrap()
}

fn custodian(name: &str, byte: u8) -> Custodian {
    Custodian {
        name: name.parse().unwrap(),
        account_id: Some(account(byte.into())),
        digest: KeyedDigest {
            form: DigestForm::Sha256,
            pepper: 1,
            blake3: SecretDigest([byte; 32]),
        },
    }
}

fn rules() -> BreakGlassRules {
    BreakGlassRules {
        custodians: vec![custodian("alice", 1), custodian("bob", 2)],
        permissions: Scopes::new(&["api-keys:write", "roles:read"]).unwrap(),
        duration_seconds: 1_800,
        duration_max_seconds: 3_600,
        approval_required: true,
        approval_seconds: 600,
        review_required: true,
        review_seconds: 86_400,
        reason_required: true,
        incident_required: true,
        openings_max: 5,
        openings_seconds: 86_400,
    }
}

/// What stands in the operator's stream.
pub(super) fn of_operator(envelope: impl Fn(Event) -> Envelope) -> Vec<Envelope> {
    let before = BreakGlassRules { approval_required: false, ..rules() };
    let on = BreakGlassConfigured { rules: Some(before.clone()), before: None };
    let changed = BreakGlassConfigured { rules: Some(rules()), before: Some(before) };
    vec![envelope(on.into()), envelope(changed.into())]
}

/// What stands in the organization's stream.
pub(super) fn of_organization(envelope: impl Fn(Event) -> Envelope) -> Vec<Envelope> {
    let grant_id = BreakGlassGrantId::from_parts(1_790_000_000_000, 1);
    let by = |number: u128, event: Event| Envelope {
        actor: Principal::Account(account(number)),
        sealed: vec![Sealed {
            subject: Subject::organization_month(organization_id(), AT.parse().unwrap()),
            seal: "AQID".to_owned(),
        }],
        ..envelope(event)
    };
    let under = |event: Event| Envelope {
        actor: Principal::BreakGlass(grant_id),
        credential: Some(Credential::BreakGlass(grant_id)),
        ..envelope(event)
    };
    let asked = BreakGlassAsked {
        permissions: Some(Scopes::new(&["api-keys:write"]).unwrap()),
        service: Some("cdn".parse().unwrap()),
        domain: Some("example.com".parse().unwrap()),
        method: Some("KeyService/RevokeKey".parse().unwrap()),
        asked_with: Some(key_id(9).into()),
    };
    let opened = BreakGlassOpened {
        grant_id,
        custodian: "alice".parse().unwrap(),
        account_id: Some(account(1)),
        token: Some(digest(11)),
        reason: ReasonDigest([12; 32]),
        incident: Some("INC-7".parse().unwrap()),
        permissions: rules().permissions,
        duration_seconds: 1_800,
        awaits_approval: true,
        expires_at: later(),
    };
    let approved = BreakGlassApproved {
        grant_id,
        account_id: account(2),
        custodian: Some("bob".parse().unwrap()),
        expires_at: later(),
        before: AT.parse().unwrap(),
    };
    let refused = BreakGlassRefused {
        grant_id: Some(grant_id),
        custodian: "alice".parse().unwrap(),
        code: DenialCode::PermissionDenied,
        asked: asked.clone(),
    };
    let nothing = BreakGlassRefused {
        grant_id: None,
        code: DenialCode::BreakGlassReasonRequired,
        asked: BreakGlassAsked::default(),
        ..refused.clone()
    };
    let ended = BreakGlassEnded {
        grant_id,
        reason: BreakGlassEndReason::Expired,
        ended_at: AT.parse().unwrap(),
        server_was_down: true,
    };
    let escalated = BreakGlassEscalated { grant_id, ended_at: ended.ended_at };
    let reviewed = BreakGlassReviewed {
        grant_id,
        account_id: account(3),
        custodian: Some("carol".parse().unwrap()),
        finding: ReviewFinding::Justified,
    };
    vec![
        envelope(nothing.into()),
        by(1, opened.into()),
        by(2, approved.into()),
        under(BreakGlassUsed { grant_id, asked }.into()),
        under(refused.into()),
        envelope(ended.into()),
        envelope(escalated.into()),
        by(3, reviewed.into()),
    ]
}

//! Histories of break-glass.

use super::*;
use crate::break_glass::{BreakGlassGrant, GrantState};
use crate::corrupt::Fault;
use crate::digest::ReasonDigest;
use crate::event::*;
use crate::id::BreakGlassGrantId;
use crate::permission::Scopes;
use crate::sample::{ACME, account_id, at, created, envelope, recorded, tables};

fn grant_id(number: u8) -> BreakGlassGrantId {
    BreakGlassGrantId::from_bytes([number; 16])
}

/// The fifteen choices of an event of break-glass.
pub(super) const CHOICES: u8 = 15;

fn rules(variety: u8) -> BreakGlassRules {
    BreakGlassRules {
        custodians: (0..=variety % 3)
            .map(|number| Custodian {
                name: format!("c{number}").parse().unwrap(),
                account_id: (number != 2).then(|| account_id(number)),
                digest: KeyedDigest {
                    form: DigestForm::Sha256,
                    pepper: 1,
                    blake3: crate::digest::SecretDigest([number; 32]),
                },
            })
            .collect(),
        permissions: Scopes::new(&["a:b", "c:d"]).unwrap(),
        duration_seconds: 60,
        duration_max_seconds: 600,
        approval_required: variety.is_multiple_of(2),
        approval_seconds: 60,
        review_required: !variety.is_multiple_of(3),
        review_seconds: 600,
        reason_required: true,
        incident_required: false,
        openings_max: 5,
        openings_seconds: 60,
    }
}

fn opened(number: u8, variety: u8, now: i64) -> BreakGlassOpened {
    BreakGlassOpened {
        grant_id: grant_id(number),
        custodian: format!("c{}", variety % 2).parse().unwrap(),
        account_id: (variety != 7).then(|| account_id(variety % 2)),
        token: variety.is_multiple_of(2).then_some(KeyedDigest {
            form: DigestForm::Text,
            pepper: 1,
            blake3: crate::digest::SecretDigest([number; 32]),
        }),
        reason: ReasonDigest([variety % 3; 32]),
        incident: (variety == 3).then(|| "INC-1".parse().unwrap()),
        permissions: Scopes::new(&["a:b"]).unwrap(),
        duration_seconds: 60,
        awaits_approval: variety.is_multiple_of(3),
        expires_at: at(now + 60_000),
    }
}

/// An event of break-glass. Many are impossible where they stand.
pub(super) fn event(
    (what, target, variety): (u8, u8, u8),
    now: i64,
    so_far: &Organization,
) -> Event {
    // What is to happen to a grant is most often of one that waits for it.
    let some = |is_it: fn(&BreakGlassGrant) -> bool| {
        let found = so_far.break_glass_grants_after(None).find(|it| is_it(it));
        found.map_or(grant_id(target), |it| it.id)
    };
    let asked = BreakGlassAsked {
        permissions: variety.is_multiple_of(2).then(|| Scopes::new(&["a:b"]).unwrap()),
        ..BreakGlassAsked::default()
    };
    match what {
        0 | 1 => {
            BreakGlassConfigured { rules: (variety != 5).then(|| rules(variety)), before: None }
                .into()
        }
        2..=4 => opened(target, variety, now).into(),
        5 => BreakGlassApproved {
            grant_id: some(|it| it.awaits_approval && it.ended.is_none()),
            account_id: account_id(9),
            custodian: (variety > 6).then(|| "c9".parse().unwrap()),
            expires_at: at(now + 60_000),
            before: at(now),
        }
        .into(),
        6..=8 => {
            BreakGlassUsed { grant_id: some(|it| !it.awaits_approval && it.ended.is_none()), asked }
                .into()
        }
        9 => BreakGlassRefused {
            grant_id: (variety > 3).then(|| some(|_| true)),
            custodian: "c0".parse().unwrap(),
            code: DenialCode::PermissionDenied,
            asked,
        }
        .into(),
        10 | 11 => BreakGlassEnded {
            grant_id: some(|it| it.ended.is_none()),
            reason: [BreakGlassEndReason::Closed, BreakGlassEndReason::Expired]
                [usize::from(variety % 2)],
            ended_at: at(now),
            server_was_down: variety == 4,
        }
        .into(),
        12 => BreakGlassEscalated {
            grant_id: some(|it| it.ended.is_some() && it.escalated_at.is_none()),
            ended_at: at(now),
        }
        .into(),
        _ => BreakGlassReviewed {
            grant_id: some(|it| it.ended.is_some() && it.reviewed.is_none()),
            account_id: account_id(8),
            custodian: None,
            finding: [ReviewFinding::Justified, ReviewFinding::Unjustified]
                [usize::from(variety % 2)],
        }
        .into(),
    }
}

/// What these events leave, one a millisecond, of an organization.
fn folded(events: &[Event]) -> Result<Organization, Fault> {
    let mut organization = tables(ACME, &[created()]);
    for (event, number) in events.iter().zip(1..) {
        let envelope = envelope(number, event.clone());
        let revision = u64::try_from(number).unwrap();
        organization
            .apply(&recorded(ACME, revision, &envelope))
            .map_err(|corrupt| corrupt.fault)?;
    }
    Ok(organization)
}

fn ended(number: u8) -> Event {
    let (grant_id, reason) = (grant_id(number), BreakGlassEndReason::Closed);
    BreakGlassEnded { grant_id, reason, ended_at: at(5), server_was_down: false }.into()
}

fn used(number: u8) -> Event {
    BreakGlassUsed { grant_id: grant_id(number), asked: BreakGlassAsked::default() }.into()
}

fn approved(number: u8) -> Event {
    BreakGlassApproved {
        grant_id: grant_id(number),
        account_id: account_id(9),
        custodian: None,
        expires_at: at(90_000),
        before: at(60_000),
    }
    .into()
}

fn reviewed(number: u8) -> Event {
    let finding = ReviewFinding::Justified;
    BreakGlassReviewed {
        grant_id: grant_id(number),
        account_id: account_id(8),
        custodian: None,
        finding,
    }
    .into()
}

#[test]
fn a_grant_comes_as_far_as_its_events_say() {
    let open = |awaits_approval| -> Event {
        BreakGlassOpened { awaits_approval, ..opened(1, 1, 0) }.into()
    };
    let state = |events: &[Event], now| {
        let organization = folded(events).unwrap();
        let grant = organization.break_glass_grant(grant_id(1)).unwrap();
        (grant.state(at(now)), organization.open_break_glass_grants().count())
    };
    assert_eq!(state(&[open(false)], 10), (GrantState::Open, 1));
    assert_eq!(state(&[open(false)], 60_000), (GrantState::Ended, 1), "before that is recorded");
    assert_eq!(state(&[open(true)], 10), (GrantState::AwaitingApproval, 1));
    assert_eq!(state(&[open(true), approved(1)], 60_000), (GrantState::Open, 1));
    assert_eq!(state(&[open(true), approved(1)], 90_000), (GrantState::Ended, 1));
    assert_eq!(state(&[open(false), used(1), ended(1)], 10), (GrantState::Ended, 0));
    assert_eq!(state(&[open(false), ended(1), reviewed(1)], 10), (GrantState::Reviewed, 0));
    let organization = folded(&[open(false), used(1), used(1)]).unwrap();
    let grant = organization.break_glass_grant(grant_id(1)).unwrap();
    assert_eq!((grant.uses, grant.last_used_at, grant.refusals), (2, Some(at(3)), 0));
    assert_eq!(grant.changed_at, crate::recorded::Revision(3));
}

#[test]
fn what_cannot_happen_to_a_grant_is_damage() {
    let open = |awaits_approval| -> Event {
        BreakGlassOpened { awaits_approval, ..opened(1, 1, 0) }.into()
    };
    for events in [
        vec![used(1)],
        vec![open(false), open(false)],
        vec![open(true), used(1)],
        vec![open(false), approved(1)],
        vec![open(false), ended(1), used(1)],
        vec![open(false), ended(1), ended(1)],
        vec![open(true), ended(1), approved(1)],
        vec![open(false), reviewed(1)],
        vec![open(false), ended(1), reviewed(1), reviewed(1)],
    ] {
        assert!(folded(&events).is_err(), "{events:?}");
    }
    // Nobody has emergency access to the installation itself.
    let mut operator =
        crate::sample::operator(&[Event::OrganizationCreated(crate::event::OrganizationCreated {
            organization_id: crate::id::OrganizationId::OPERATOR,
            name: "operator".parse().unwrap(),
            key_prefix: "klop".parse().unwrap(),
            plan: "operator".parse().unwrap(),
            personal_of: None,
        })]);
    let opening = envelope(9, open(false));
    let fault = operator.apply_next(&opening, crate::sample::OTHER).unwrap_err().fault;
    assert_eq!(fault, Fault::Misplaced("BreakGlassOpened"));
}

#[test]
fn a_reason_leads_to_its_last_grant() {
    let open = |number, variety| -> Event { opened(number, variety, 0).into() };
    // A later one with a lower identifier.
    let organization = folded(&[open(9, 1), ended(9), open(3, 1), open(4, 2)]).unwrap();
    let found = |organization: &Organization| {
        let custodian = "c1".parse().unwrap();
        organization.break_glass_grant_by(&custodian, ReasonDigest([1; 32])).map(|it| it.id)
    };
    assert_eq!(found(&organization), Some(grant_id(3)));
    let again = Organization::from_canonical(&organization.to_canonical()).unwrap();
    assert_eq!((found(&again), &again), (Some(grant_id(3)), &organization));
    // One with a token is not shown by a master key, and is the last of its reason.
    let (custodian, reason) = ("c0".parse().unwrap(), ReasonDigest([2; 32]));
    assert!(organization.break_glass_grant_by(&custodian, reason).is_none());
    let last = organization.break_glass_grant_for(&custodian, reason).map(|it| it.id);
    assert_eq!(last, Some(grant_id(4)));
}

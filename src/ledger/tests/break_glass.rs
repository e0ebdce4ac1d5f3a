//! Break-glass under the faults of a store and a clock, and under any sequence of commands.

use std::collections::BTreeMap;

use projections::api_key::Environment;
use projections::break_glass::GrantState;
use projections::event::{
    BreakGlassAsked, BreakGlassEndReason, BreakGlassRules, Custodian, ReviewFinding,
};
use projections::id::{AccountId, BreakGlassGrantId};
use projections::principal::{Credential, Principal};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::ledger::break_glass::{
    AlertKind, Emergency, EmergencyAnswer, Emergent, GivenReason, OpenGrantError, Opening,
    by_person,
};
use crate::ledger::command::{BreakGlassCommand, ByPerson};
use crate::ledger::event_store::READ_EVENTS_MAX;
use crate::ledger::rejection::BreakGlassRejection;

const MINUTE_MS: i64 = 60_000;
const OTHER: OrganizationId = OrganizationId::from_bytes([8; 16]);

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

fn master_key(name: &str) -> String {
    format!("klmk_{}", name.repeat(9))
}

impl World {
    fn rules(&self) -> BreakGlassRules {
        let custodian = |(name, number): (&str, u8)| Custodian {
            name: name.parse().unwrap(),
            account_id: Some(account(number)),
            digest: crate::ledger::mint::digest_of_sha256(
                &Sha256::digest(master_key(name)).into(),
                self.ledger.peppers(),
            ),
        };
        BreakGlassRules {
            custodians: [("alice", 1), ("bob", 2), ("carol", 3)].map(custodian).into(),
            permissions: Scopes::new(&["api-keys:write", "dns:read"]).unwrap(),
            duration_seconds: 600,
            duration_max_seconds: 1_200,
            approval_required: false,
            approval_seconds: 300,
            review_required: true,
            review_seconds: 3_600,
            reason_required: true,
            incident_required: false,
            openings_max: 100,
            openings_seconds: 3_600,
        }
    }

    async fn with_rules(otherwise: impl FnOnce(&mut BreakGlassRules)) -> Self {
        let world = Self::new().await;
        let mut rules = world.rules();
        otherwise(&mut rules);
        world.ledger.configure_break_glass(Some(rules)).await.unwrap();
        world
    }

    async fn another_organization(&self) {
        let draft = OrganizationDraft {
            organization_id: OTHER,
            name: "Other".parse().unwrap(),
            key_prefix: "oth".parse().unwrap(),
            plan: "paid".parse().unwrap(),
            personal_of: None,
        };
        let registered = order(Command::RegisterOrganization(draft.clone()));
        self.ledger.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
        self.ledger.execute(OTHER, &order(Command::CreateOrganization(draft))).await.unwrap();
    }

    fn request(&self, reason: Option<&str>, permissions: &[&str]) -> Emergent {
        Emergent {
            asked: BreakGlassAsked {
                permissions: Scopes::new(permissions).ok(),
                ..BreakGlassAsked::default()
            },
            tenant: Some(ACME),
            environment: None,
            client_ip: None,
            reason: GivenReason::of(reason),
            reach: Reach::Installation,
            correlation_id: "c".parse().unwrap(),
        }
    }

    /// Asks with a credential of break-glass.
    async fn emergency(
        &self,
        text: &str,
        request: Emergent,
    ) -> Result<EmergencyAnswer, LedgerError> {
        match self.ledger.emergency(text, Reach::Installation) {
            Ok(emergency) => self.ledger.use_break_glass(emergency, request).await,
            Err(code) => Ok(EmergencyAnswer { code, found: None }),
        }
    }

    async fn emergency_code(&self, text: &str, reason: Option<&str>) -> Code {
        self.emergency(text, self.request(reason, &["dns:read"])).await.unwrap().code
    }

    async fn open_grant(
        &self,
        name: &str,
        otherwise: impl FnOnce(&mut Opening),
    ) -> Result<(BreakGlassGrantId, String), LedgerError> {
        let custodian = self.ledger.custodian(&master_key(name)).unwrap();
        let mut opening = Opening {
            organization_id: ACME,
            reason: "the pager rang".parse().unwrap(),
            permissions: None,
            duration_seconds: None,
            incident: None,
        };
        otherwise(&mut opening);
        let caller = custodian.caller();
        let order = |command| Order { caller, ..order(command) };
        match self.ledger.open_grant(&custodian, opening, order).await {
            Ok((executed, token)) => {
                let Change::BreakGlass(id) = executed.outcome else { panic!("{executed:?}") };
                Ok((id, token.expose().to_owned()))
            }
            Err(OpenGrantError::Ledger(error)) => Err(error),
            Err(OpenGrantError::NoEntropy(error)) => panic!("{error}"),
        }
    }

    async fn by_custodian(
        &self,
        name: &str,
        id: BreakGlassGrantId,
        command: impl FnOnce(ByPerson) -> BreakGlassCommand,
    ) -> Result<Executed, LedgerError> {
        let custodian = self.ledger.custodian(&master_key(name)).unwrap();
        let command = Command::BreakGlass(Box::new(command(by_person(id, Some(&custodian)))));
        let order = Order { caller: custodian.caller(), ..order(command) };
        self.ledger.execute(ACME, &order).await
    }

    fn grant(&self, id: BreakGlassGrantId) -> projections::break_glass::BreakGlassGrant {
        let organization = self.ledger.tables().organization(ACME).unwrap();
        projections::break_glass::BreakGlassGrant::clone(
            organization.tables().break_glass_grant(id).unwrap(),
        )
    }

    async fn history(&self, id: OrganizationId) -> Vec<Event> {
        let stream = StreamName::organization(id);
        let all = self.store.read_stream(&stream, Revision::FIRST, READ_EVENTS_MAX).await.unwrap();
        all.iter().map(|it| Envelope::decode(&it.stored).unwrap().event).collect()
    }

    async fn count(&self, id: OrganizationId, event_type: &str) -> usize {
        let all = self.history(id).await;
        all.iter().filter(|it| it.event_type() == event_type).count()
    }

    async fn end_due(&self) {
        // What is due is recorded in one round.
        let end = std::future::ready(());
        Arc::clone(&self.ledger).keep_break_glass(end).await;
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, LedgerError>) -> BreakGlassRejection {
    match answer {
        Err(LedgerError::Rejected(Rejection::BreakGlass(rejection))) => rejection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_answered_before_its_trace_is_on_disk() {
    let world = World::with_rules(|_| ()).await;
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    world.store.hold_appends();
    let (ledger, request) = (Arc::clone(&world.ledger), world.request(None, &["dns:read"]));
    let emergency = ledger.emergency(&token, Reach::Installation).unwrap();
    assert!(matches!(emergency, Emergency::Token { grant_id, .. } if grant_id == id));
    let asked = tokio::spawn(async move { ledger.use_break_glass(emergency, request).await });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!asked.is_finished() && world.store.held_appends() == 1);
    world.store.release_appends();
    assert_eq!(asked.await.unwrap().unwrap().code, Code::Allowed);
    assert_eq!(world.grant(id).uses, 1);
    // What could not be recorded is not allowed.
    world.store.inject(AppendFault::RefuseAppend, 1);
    let failed = world.emergency(&token, world.request(None, &["dns:read"])).await;
    assert!(matches!(failed, Err(LedgerError::Append(_))), "{:?}", failed.map(|it| it.code));
    assert_eq!(world.count(ACME, "BreakGlassUsed").await, 1);
    // Nor is a refusal told.
    world.store.inject(AppendFault::RefuseAppend, 1);
    assert!(world.emergency(&token, world.request(None, &["dns:write"])).await.is_err());
    assert_eq!(world.emergency_code(&token, None).await, Code::Allowed);
    world.assert_replays().await;
}

#[tokio::test]
async fn a_full_disk_keeps_nobody_from_an_emergency() {
    let world = World::with_rules(|_| ()).await;
    world.store.set_full(true);
    assert_eq!(world.emergency_code(&master_key("alice"), Some("fire")).await, Code::Allowed);
    assert_eq!(world.count(ACME, "BreakGlassUsed").await, 1);
}

#[tokio::test]
async fn a_master_key_and_a_reason_lead_to_one_grant() {
    let world = World::with_rules(|_| ()).await;
    let key = master_key("alice");
    for reason in [Some("fire"), Some(" fire\t"), Some("fire")] {
        assert_eq!(world.emergency_code(&key, reason).await, Code::Allowed);
    }
    assert_eq!(world.count(ACME, "BreakGlassOpened").await, 1);
    assert_eq!(world.count(ACME, "BreakGlassUsed").await, 3);
    // Another reason, or another custodian, is another grant.
    assert_eq!(world.emergency_code(&key, Some("flood")).await, Code::Allowed);
    assert_eq!(world.emergency_code(&master_key("bob"), Some("fire")).await, Code::Allowed);
    assert_eq!(world.count(ACME, "BreakGlassOpened").await, 3);
    // Once it has ended it opens nothing until it is reviewed, by somebody else.
    let answer = world.emergency(&key, world.request(Some("fire"), &["dns:read"])).await.unwrap();
    let id = answer.found.unwrap().1.id;
    world.by_custodian("alice", id, BreakGlassCommand::Close).await.unwrap();
    assert_eq!(world.emergency_code(&key, Some("fire")).await, Code::BreakGlassReviewPending);
    let review = |by| BreakGlassCommand::Review(by, ReviewFinding::Justified);
    let own = refused(world.by_custodian("alice", id, review).await);
    assert!(matches!(own, BreakGlassRejection::OwnGrant(_)));
    world.by_custodian("bob", id, review).await.unwrap();
    assert_eq!(world.emergency_code(&key, Some("fire")).await, Code::Allowed);
    assert_eq!(world.count(ACME, "BreakGlassOpened").await, 4);
    world.assert_replays().await;
}

#[tokio::test]
async fn what_is_no_reason_and_no_organization_is_refused_and_recorded() {
    let world = World::with_rules(|_| ()).await;
    let key = master_key("alice");
    let long = "x".repeat(501);
    for reason in [None, Some(""), Some(" \t"), Some("a\nb"), Some("a\u{7}b"), Some(&*long)] {
        assert_eq!(world.emergency_code(&key, reason).await, Code::BreakGlassReasonRequired);
    }
    assert_eq!(world.count(ACME, "BreakGlassRefused").await, 6);
    for tenant in [None, Some(OrganizationId::OPERATOR), Some(OTHER)] {
        let request = Emergent { tenant, ..world.request(Some("fire"), &["dns:read"]) };
        let answer = world.emergency(&key, request).await.unwrap();
        assert_eq!(answer.code, Code::BreakGlassOrganizationRequired, "{tenant:?}");
    }
    assert_eq!(world.count(OrganizationId::OPERATOR, "BreakGlassRefused").await, 3);
    // Whoever asks for one organization's requests is not told of another's.
    let (_, token) = world.open_grant("alice", |_| ()).await.unwrap();
    let own = Reach::Organization(OTHER);
    assert_eq!(world.ledger.emergency(&token, own), Err(Code::Unknown));
    let request = Emergent { reach: own, ..world.request(Some("fire"), &["dns:read"]) };
    assert_eq!(world.emergency(&key, request).await.unwrap().code, Code::TenantMismatch);
    // A grant is for one organization, and live.
    let request = Emergent { tenant: Some(OTHER), ..world.request(None, &["dns:read"]) };
    assert_eq!(world.emergency(&token, request).await.unwrap().code, Code::TenantMismatch);
    let environment = Some(Environment::Test);
    let request = Emergent { environment, ..world.request(None, &["dns:read"]) };
    assert_eq!(world.emergency(&token, request).await.unwrap().code, Code::WrongEnvironment);
    // What is nobody's leaves no event.
    let facts = world.history(OrganizationId::OPERATOR).await.len();
    for text in ["klmk_nobody", "klbg_nobody", "x"] {
        assert_eq!(world.emergency_code(text, Some("fire")).await, Code::Unknown);
    }
    assert_eq!(world.history(OrganizationId::OPERATOR).await.len(), facts);
    world.ledger.configure_break_glass(None).await.unwrap();
    assert_eq!(world.emergency_code(&key, Some("fire")).await, Code::BreakGlassDisabled);
    assert_eq!(world.emergency_code("x", None).await, Code::BreakGlassDisabled);
}

#[tokio::test]
async fn a_grant_permits_its_list_and_no_more() {
    let world = World::with_rules(|_| ()).await;
    let narrow = Scopes::new(&["dns:read"]).unwrap();
    let (_, token) = world.open_grant("alice", |it| it.permissions = Some(narrow)).await.unwrap();
    for (wanted, code) in [
        (&["dns:read"][..], Code::Allowed),
        (&[], Code::Allowed),
        (&["dns:write"], Code::PermissionDenied),
        (&["api-keys:write"], Code::PermissionDenied),
        (&["dns:read", "org:admin"], Code::PermissionDenied),
    ] {
        let answer = world.emergency(&token, world.request(None, wanted)).await.unwrap();
        assert_eq!(answer.code, code, "{wanted:?}");
    }
    for (wanted, named) in [("dns:write", "dns:write"), ("org:admin", "org:admin")] {
        let permissions = Some(Scopes::new(&["dns:read", wanted]).unwrap());
        let refusal = refused(world.open_grant("bob", |it| it.permissions = permissions).await);
        assert_eq!(refusal, BreakGlassRejection::PermissionNotListed(named.into()));
    }
    for seconds in [0, 1_201, u32::MAX] {
        let refusal = world.open_grant("bob", |it| it.duration_seconds = Some(seconds)).await;
        assert_eq!(refused(refusal), BreakGlassRejection::Duration(1_200));
    }
    let operator = |it: &mut Opening| it.organization_id = OrganizationId::OPERATOR;
    assert_eq!(refused(world.open_grant("bob", operator).await), BreakGlassRejection::Operator);
}

#[tokio::test]
async fn every_grant_has_an_end_at_its_time() {
    let world = World::with_rules(|_| ()).await;
    let (id, token) = world.open_grant("alice", |it| it.duration_seconds = Some(60)).await.unwrap();
    let ends_at = world.grant(id).expires_at;
    world.end_due().await;
    assert_eq!(world.grant(id).ended, None, "not before its time");
    // A clock that is set back makes it no longer.
    world.time.advance_ms(59_999);
    assert_eq!(world.emergency_code(&token, None).await, Code::Allowed);
    world.time.set_wall("2026-11-22T09:00:00.000Z".parse().unwrap());
    world.time.advance_ms(1);
    assert_eq!(world.emergency_code(&token, None).await, Code::Expired);
    // Whoever came too late recorded the end first.
    let end = world.grant(id).ended.unwrap();
    assert_eq!((end.reason, end.ended_at), (BreakGlassEndReason::Expired, ends_at));
    assert!(!end.server_was_down);
    world.end_due().await;
    assert_eq!(world.count(ACME, "BreakGlassEnded").await, 1);
    // Nobody shows it: its end is recorded all the same.
    let (id, token) = world.open_grant("bob", |it| it.duration_seconds = Some(60)).await.unwrap();
    world.time.advance_ms(61_000);
    world.end_due().await;
    let end = world.grant(id).ended.unwrap();
    assert_eq!(
        (end.reason, end.ended_at),
        (BreakGlassEndReason::Expired, world.grant(id).expires_at)
    );
    assert_eq!(world.emergency_code(&token, None).await, Code::Expired);
    world.assert_replays().await;
}

#[tokio::test]
async fn an_end_while_no_server_was_there_says_so() {
    let world = World::with_rules(|_| ()).await;
    let (late, _) = world.open_grant("alice", |it| it.duration_seconds = Some(60)).await.unwrap();
    let ends_at = world.grant(late).expires_at;
    world.time.advance_ms(10 * MINUTE_MS);
    let rules = world.rules();
    let again = World { ledger: world.reopened().await, ..world };
    again.ledger.configure_break_glass(Some(rules)).await.unwrap();
    let end = again.grant(late).ended.unwrap();
    assert_eq!((end.ended_at, end.server_was_down), (ends_at, true));
    assert!(end.act.at > ends_at);
}

#[tokio::test]
async fn what_the_rules_no_longer_allow_ends() {
    let world = World::with_rules(|_| ()).await;
    let (of_alice, token) = world.open_grant("alice", |_| ()).await.unwrap();
    let narrow = Scopes::new(&["dns:read"]).unwrap();
    let (of_bob, narrow_token) =
        world.open_grant("bob", |it| it.permissions = Some(narrow.clone())).await.unwrap();
    let less = BreakGlassRules { permissions: narrow, ..world.rules() };
    world.ledger.configure_break_glass(Some(less)).await.unwrap();
    let reason = |id| world.grant(id).ended.map(|end| end.reason);
    assert_eq!(reason(of_alice), Some(BreakGlassEndReason::Withdrawn));
    assert_eq!((reason(of_bob), world.emergency_code(&token, None).await), (None, Code::Revoked));
    assert_eq!(world.emergency_code(&narrow_token, None).await, Code::Allowed);
    world.ledger.configure_break_glass(None).await.unwrap();
    assert_eq!(reason(of_bob), Some(BreakGlassEndReason::Withdrawn));
}

#[tokio::test]
async fn somebody_else_approves_and_somebody_else_reviews() {
    let world = World::with_rules(|rules| rules.approval_required = true).await;
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    assert_eq!(world.emergency_code(&token, None).await, Code::BreakGlassApprovalPending);
    let approve = BreakGlassCommand::Approve;
    let own = refused(world.by_custodian("alice", id, approve).await);
    assert!(matches!(own, BreakGlassRejection::OwnGrant("approved")));
    world.time.advance_ms(MINUTE_MS);
    world.by_custodian("bob", id, approve).await.unwrap();
    let lasts = world.grant(id).expires_at.as_millis() - world.ledger.clock().now().as_millis();
    assert_eq!(lasts, 600_000, "its time counts from the approval");
    assert_eq!(world.emergency_code(&token, None).await, Code::Allowed);
    let again = world.by_custodian("carol", id, approve).await;
    assert!(matches!(refused(again), BreakGlassRejection::NotAwaitingApproval(_)));
    let review = |by| BreakGlassCommand::Review(by, ReviewFinding::Unjustified);
    assert_eq!(
        refused(world.by_custodian("carol", id, review).await),
        BreakGlassRejection::NotEnded(id)
    );
    world.by_custodian("alice", id, BreakGlassCommand::Close).await.unwrap();
    for name in ["alice", "bob"] {
        let own = refused(world.by_custodian(name, id, review).await);
        assert!(matches!(own, BreakGlassRejection::OwnGrant("reviewed")), "{name}");
    }
    world.by_custodian("carol", id, review).await.unwrap();
    assert_eq!(world.grant(id).reviewed.unwrap().finding, ReviewFinding::Unjustified);
    // Nobody approved this one in time.
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    world.time.advance_ms(300_000);
    let late = world.by_custodian("bob", id, approve).await;
    assert!(matches!(refused(late), BreakGlassRejection::NotAwaitingApproval(_)));
    world.end_due().await;
    assert_eq!(world.grant(id).ended.unwrap().reason, BreakGlassEndReason::NotApproved);
    assert_eq!(world.emergency_code(&token, None).await, Code::Expired);
}

#[tokio::test]
async fn openings_of_all_organizations_are_counted_together() {
    let world = World::with_rules(|rules| rules.openings_max = 3).await;
    world.another_organization().await;
    let (first, _) = world.open_grant("alice", |_| ()).await.unwrap();
    world.open_grant("alice", |it| it.organization_id = OTHER).await.unwrap();
    // At once: exactly one of many is let through.
    let ask = |number: usize| {
        let ledger = Arc::clone(&world.ledger);
        let request = world.request(Some(&format!("reason {number}")), &["dns:read"]);
        let emergency = ledger.emergency(&master_key("bob"), Reach::Installation).unwrap();
        tokio::spawn(async move { ledger.use_break_glass(emergency, request).await.unwrap().code })
    };
    let asked: Vec<_> = (0..8).map(ask).collect();
    let mut codes = Vec::new();
    for asked in asked {
        codes.push(asked.await.unwrap());
    }
    let allowed = codes.iter().filter(|code| **code == Code::Allowed).count();
    assert_eq!((allowed, codes.len()), (1, 8), "{codes:?}");
    assert!(codes.iter().all(|it| matches!(it, Code::Allowed | Code::BreakGlassLimited)));
    let limited = refused(world.open_grant("carol", |_| ()).await);
    assert_eq!(limited, BreakGlassRejection::Limited(3, 3_600));
    // A custodian's next token takes the place of the one before.
    world.time.advance_ms(3_600_001);
    let again = refused(world.open_grant("alice", |_| ()).await);
    assert_eq!(again, BreakGlassRejection::ReviewPending(first), "by whichever way");
    let other = |it: &mut Opening| it.reason = "another".parse().unwrap();
    let (second, _) = world.open_grant("alice", other).await.unwrap();
    let reason = world.grant(first).ended.map(|end| end.reason);
    assert_eq!(reason, Some(BreakGlassEndReason::Expired), "its time was over before");
    let (_, _) = world.open_grant("alice", other).await.unwrap();
    let reason = world.grant(second).ended.map(|end| end.reason);
    assert_eq!(reason, Some(BreakGlassEndReason::Superseded));
}

#[tokio::test]
async fn many_uses_at_once_keep_their_order_and_share_commits() {
    let world = World::with_rules(|_| ()).await;
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    world.store.hold_appends();
    let emergency = world.ledger.emergency(&token, Reach::Installation).unwrap();
    let ask = |_| {
        let (ledger, emergency) = (Arc::clone(&world.ledger), emergency.clone());
        let request = world.request(None, &["dns:read"]);
        tokio::spawn(async move { ledger.use_break_glass(emergency, request).await.unwrap().code })
    };
    let asked: Vec<_> = (0..64).map(ask).collect();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.store.held_appends(), 64, "none waits for another's answer");
    world.store.release_appends();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), Code::Allowed);
    }
    assert_eq!(world.grant(id).uses, 64);
    world.assert_replays().await;
}

#[tokio::test]
async fn what_is_not_reviewed_in_time_is_escalated_and_all_is_told_at_once() {
    let world = World::with_rules(|_| ()).await;
    let mut alerts = world.ledger.break_glass().alerts();
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    world.emergency_code(&token, None).await;
    world.emergency(&token, world.request(None, &["dns:write"])).await.unwrap();
    assert_eq!(
        world.emergency_code(&master_key("bob"), None).await,
        Code::BreakGlassReasonRequired
    );
    world.by_custodian("bob", id, BreakGlassCommand::Close).await.unwrap_err();
    world.by_custodian("alice", id, BreakGlassCommand::Close).await.unwrap();
    world.time.advance_ms(3_600_000);
    world.end_due().await;
    world.end_due().await;
    assert_eq!(world.count(ACME, "BreakGlassEscalated").await, 1);
    let gauges = world.ledger.break_glass().gauges(world.ledger.clock().now());
    assert_eq!((gauges.unreviewed, gauges.overdue, gauges.open), (1, 1, 0));
    let review = |by| BreakGlassCommand::Review(by, ReviewFinding::Justified);
    world.by_custodian("bob", id, review).await.unwrap();
    let mut kinds = Vec::new();
    while let Ok(alert) = alerts.try_recv() {
        kinds.push(alert.kind);
    }
    let expected = [
        AlertKind::Opened,
        AlertKind::Refused,
        AlertKind::Refused,
        AlertKind::Ended,
        AlertKind::Escalated,
        AlertKind::Reviewed,
    ];
    assert_eq!(kinds, expected);
    let gauges = world.ledger.break_glass().gauges(world.ledger.clock().now());
    assert_eq!((gauges.unreviewed, gauges.overdue), (0, 0));
}

#[tokio::test]
async fn whoever_acts_under_a_grant_is_named_and_outlasts_it_by_nothing() {
    let world = World::with_rules(|_| ()).await;
    world.ledger.execute(ACME, &order(create(1))).await.unwrap();
    let (id, _) = world.open_grant("alice", |_| ()).await.unwrap();
    let caller = Caller::BreakGlass { organization_id: ACME, grant_id: id };
    let robot = projections::id::ServiceAccountId::from_bytes([4; 16]);
    let robot_made = projections::event::ServiceAccountCreated {
        service_account_id: robot,
        name: "robot".parse().unwrap(),
        description: None,
        roles: Vec::new(),
    };
    world
        .ledger
        .execute(ACME, &order(Command::CreateServiceAccount(Box::new(robot_made))))
        .await
        .unwrap();
    let give = async |command| {
        let order = Order { caller, ..order(command) };
        world.ledger.execute(ACME, &order).await
    };
    let revoke = RevokeKey { key_id: key_id(1), reason: RevocationReason::KeyCompromise };
    give(Command::RevokeKey(revoke)).await.unwrap();
    let stream = StreamName::organization(ACME);
    let all = world.store.read_stream(&stream, Revision::FIRST, READ_EVENTS_MAX).await.unwrap();
    let last = Envelope::decode(&all.last().unwrap().stored).unwrap();
    assert_eq!(last.actor, Principal::BreakGlass(id));
    assert_eq!(last.credential, Some(Credential::BreakGlass(id)));
    // A key that would outlast the grant is not for it to make.
    let Command::CreateKey(key) = create(2) else { panic!() };
    let scopes = Some(Scopes::new(&["dns:read"]).unwrap());
    let of = |expiry| {
        let key = CreateKey { scopes: scopes.clone(), roles: Vec::new(), expiry, ..*key.clone() };
        Command::CreateKey(Box::new(key))
    };
    let ends = world.grant(id).expires_at;
    for (expiry, may) in [
        (Expiry::PlanDefault, false),
        (Expiry::At(ends.saturating_add_millis(1)), false),
        (Expiry::At(ends), true),
    ] {
        let made = give(of(expiry)).await;
        assert_eq!(made.is_ok(), may, "{expiry:?}: {made:?}");
    }
    // Nor one that holds nothing yet, and may come to hold more.
    let owned = CreateKey {
        key_id: key_id(5),
        name: "owned".parse().unwrap(),
        owner: Some(robot.into()),
        scopes: None,
        roles: Vec::new(),
        ..*key.clone()
    };
    let owned = give(Command::CreateKey(Box::new(owned))).await;
    assert!(matches!(owned, Err(LedgerError::Rejected(Rejection::OutlastsGrant))), "{owned:?}");
    // Nor one that does what the grant does not permit.
    let wide = CreateKey {
        key_id: key_id(3),
        name: "wide".parse().unwrap(),
        scopes: Some(Scopes::new(&["dns:write"]).unwrap()),
        roles: Vec::new(),
        expiry: Expiry::At(ends),
        ..*key.clone()
    };
    let wide = give(Command::CreateKey(Box::new(wide))).await;
    assert!(matches!(wide, Err(LedgerError::Rejected(Rejection::PermissionNotHeld(_)))));
    // What was made under it ends with it, however early that comes.
    assert_eq!(world.code(2), Ok(Code::Allowed));
    world.by_custodian("alice", id, BreakGlassCommand::Close).await.unwrap();
    assert_eq!(world.code(2), Ok(Code::Revoked));
    assert_eq!(world.code(1), Ok(Code::Revoked), "and what was taken away stays away");
    let late = give(of(Expiry::At(ends))).await;
    assert!(matches!(late, Err(LedgerError::Rejected(Rejection::CallerNotInForce))), "{late:?}");
}

#[tokio::test]
async fn a_master_key_by_itself_does_nothing_else() {
    let world = World::with_rules(|_| ()).await;
    world.ledger.execute(ACME, &order(create(1))).await.unwrap();
    for account_id in [Some(account(1)), None] {
        let revoke = RevokeKey { key_id: key_id(1), reason: RevocationReason::KeyCompromise };
        let caller = Caller::Custodian { account_id };
        let order = Order { caller, ..order(Command::RevokeKey(revoke)) };
        for id in [ACME, OrganizationId::OPERATOR] {
            let answer = world.ledger.execute(id, &order).await;
            assert!(matches!(answer, Err(LedgerError::Rejected(Rejection::CallerNotInForce))));
        }
    }
    // What the ledger alone records, nobody else does.
    let id = world.open_grant("alice", |_| ()).await.unwrap().0;
    let end = BreakGlassCommand::End { grant_id: id, server_since: world.ledger.clock().now() };
    for command in [BreakGlassCommand::Configure(None), end, BreakGlassCommand::Escalate(id)] {
        let caller = Caller::Custodian { account_id: Some(account(1)) };
        let order = Order { caller, ..order(Command::BreakGlass(Box::new(command))) };
        let answer = world.ledger.execute(ACME, &order).await;
        assert!(matches!(answer, Err(LedgerError::Rejected(Rejection::CallerNotInForce))));
    }
}

fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

/// What somebody does next.
#[derive(Clone, Debug)]
enum Act {
    Open { who: u8, wide: bool, seconds: u32, elsewhere: bool },
    Show { which: u8, wanted: u8, elsewhere: bool },
    ShowMaster { who: u8, reason: u8, wanted: u8, elsewhere: bool },
    Approve { who: u8, which: u8 },
    Close { who: u8, which: u8 },
    Review { who: u8, which: u8 },
    Wait { millis: i64 },
    SetBack,
    EndDue,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3_u8, any::<bool>(), 1..2_000_u32, any::<bool>()).prop_map(
            |(who, wide, seconds, elsewhere)| Act::Open { who, wide, seconds, elsewhere }
        ),
        (0..8_u8, 0..3_u8, any::<bool>()).prop_map(|(which, wanted, elsewhere)| Act::Show {
            which,
            wanted,
            elsewhere
        }),
        (0..3_u8, 0..2_u8, 0..3_u8, any::<bool>()).prop_map(|(who, reason, wanted, elsewhere)| {
            Act::ShowMaster { who, reason, wanted, elsewhere }
        }),
        (0..3_u8, 0..8_u8).prop_map(|(who, which)| Act::Approve { who, which }),
        (0..3_u8, 0..8_u8).prop_map(|(who, which)| Act::Close { who, which }),
        (0..3_u8, 0..8_u8).prop_map(|(who, which)| Act::Review { who, which }),
        (1..900_000_i64).prop_map(|millis| Act::Wait { millis }),
        Just(Act::SetBack),
        Just(Act::EndDue),
    ];
    prop::collection::vec(act, 1..40)
}

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const WANTED: [&str; 3] = ["dns:read", "api-keys:write", "dns:write"];

/// Carries the acts out, and checks after each what may never be.
async fn try_acts(acts: Vec<Act>, approval: bool) {
    let world = World::with_rules(|rules| {
        rules.approval_required = approval;
        rules.openings_max = 12;
    })
    .await;
    world.another_organization().await;
    let place = |elsewhere: bool| if elsewhere { OTHER } else { ACME };
    let mut tokens: Vec<(OrganizationId, BreakGlassGrantId, String)> = Vec::new();
    // Boot time, which nobody sets back, since a grant began to permit anything.
    let mut elapsed = 0_i64;
    let mut began: BTreeMap<BreakGlassGrantId, i64> = BTreeMap::new();
    for act in acts {
        let which = |which: u8| tokens.get(usize::from(which) % tokens.len().max(1)).cloned();
        match act.clone() {
            Act::Open { who, wide, seconds, elsewhere } => {
                let opened = world
                    .open_grant(NAMES[usize::from(who)], |it| {
                        it.organization_id = place(elsewhere);
                        it.duration_seconds = Some(seconds);
                        if !wide {
                            it.permissions = Some(Scopes::new(&["dns:read"]).unwrap());
                        }
                    })
                    .await;
                if let Ok((id, token)) = opened {
                    assert!(seconds <= 1_200);
                    tokens.push((place(elsewhere), id, token));
                    began.insert(id, elapsed);
                }
            }
            Act::Show { which: number, wanted, elsewhere } => {
                let Some((home, id, token)) = which(number) else { continue };
                let tenant = Some(if elsewhere { place(home == ACME) } else { home });
                let wanted = WANTED[usize::from(wanted)];
                let request = Emergent { tenant, ..world.request(None, &[wanted]) };
                let answer = world.emergency(&token, request).await.unwrap();
                if answer.code == Code::Allowed {
                    assert!(!elsewhere, "it crossed organizations");
                    let (tables, grant) = answer.found.unwrap();
                    assert_eq!((tables.id, grant.id), (home, id));
                    assert!(grant.permissions.texts().any(|it| it == wanted), "{wanted}");
                    let lasted = elapsed - began[&id];
                    assert!(lasted < i64::from(grant.duration_seconds) * 1_000, "{lasted}");
                    assert!(!approval || grant.approved.is_some());
                }
            }
            Act::ShowMaster { who, reason, wanted, elsewhere } => {
                let key = master_key(NAMES[usize::from(who)]);
                let wanted = WANTED[usize::from(wanted)];
                let reason = format!("reason {reason}");
                let tenant = Some(place(elsewhere));
                let request = Emergent { tenant, ..world.request(Some(&reason), &[wanted]) };
                let answer = world.emergency(&key, request).await.unwrap();
                if let Some((_, grant)) = &answer.found {
                    began.entry(grant.id).or_insert(elapsed);
                }
                if answer.code == Code::Allowed {
                    let (tables, grant) = answer.found.unwrap();
                    assert_eq!(tables.id, place(elsewhere));
                    assert_ne!(wanted, "dns:write");
                    let lasted = elapsed - began[&grant.id];
                    assert!(lasted < i64::from(grant.duration_seconds) * 1_000, "{lasted}");
                    assert!(!approval || grant.approved.is_some());
                }
            }
            Act::Approve { who, which: number } => {
                let Some((ACME, id, _)) = which(number) else { continue };
                let name = NAMES[usize::from(who)];
                let before = world.grant(id);
                if world.by_custodian(name, id, BreakGlassCommand::Approve).await.is_ok() {
                    assert_ne!(before.custodian.as_str(), name);
                    if before.awaits_approval {
                        began.insert(id, elapsed);
                    }
                }
            }
            Act::Close { who, which: number } => {
                let Some((ACME, id, _)) = which(number) else { continue };
                let name = NAMES[usize::from(who)];
                let closed = world.by_custodian(name, id, BreakGlassCommand::Close).await;
                assert_eq!(closed.is_ok(), world.grant(id).custodian.as_str() == name);
            }
            Act::Review { who, which: number } => {
                let Some((ACME, id, _)) = which(number) else { continue };
                let name = NAMES[usize::from(who)];
                let review = |by| BreakGlassCommand::Review(by, ReviewFinding::Justified);
                if world.by_custodian(name, id, review).await.is_ok() {
                    let grant = world.grant(id);
                    assert!(
                        grant.ended.is_some()
                            && !grant.is_of(grant.reviewed.as_ref().unwrap().account_id)
                    );
                }
            }
            Act::Wait { millis } => {
                world.time.advance_ms(millis);
                elapsed += millis;
            }
            Act::SetBack => {
                let back = world.ledger.clock().now().saturating_add_millis(-3 * MINUTE_MS);
                world.time.set_wall(back);
            }
            Act::EndDue => world.end_due().await,
        }
    }
    world.assert_replays().await;
    // Whatever was done: once their time is over, all have an end.
    world.time.advance_ms(3 * 3_600_000);
    world.end_due().await;
    for organization in world.ledger.tables().all() {
        let tables = organization.tables();
        assert_eq!(tables.open_break_glass_grants().count(), 0);
        for grant in tables.break_glass_grants_after(None) {
            let state = grant.state(world.ledger.now_for(&tables));
            assert!(matches!(state, GrantState::Ended | GrantState::Reviewed));
            let end = grant.ended.unwrap().ended_at.as_millis();
            let longest = i64::from(grant.duration_seconds.max(300)) * 1_000 + 300_000;
            assert!(end - grant.opened_at.as_millis() <= longest);
        }
    }
    let all = world.ledger.tables().all();
    let opened: usize =
        all.iter().map(|it| it.tables().break_glass_grants_after(None).count()).sum();
    assert!(
        opened <= 12 * (1 + usize::try_from(elapsed / 3_600_000).unwrap()),
        "{opened} openings"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_sequence_of_commands_gives_more_than_a_grant_says(acts in acts(), approval: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(try_acts(acts, approval));
    }
}

#[test]
fn a_reason_is_one_line_of_something() {
    let is = |text: Option<&str>| match GivenReason::of(text) {
        GivenReason::Given(reason) => Some(reason.to_string()),
        GivenReason::None | GivenReason::Unusable => None,
    };
    assert_eq!(is(Some(" the pager rang ")), Some("the pager rang".to_owned()));
    assert_eq!(is(Some("ärger")), Some("ärger".to_owned()));
    for none in [None, Some(""), Some(" "), Some("a\nb"), Some("a\tb"), Some("\u{200b}x")] {
        assert_eq!(is(none), None, "{none:?}");
    }
    assert!(matches!(GivenReason::of(Some("a\rb")), GivenReason::Unusable));
}

#[tokio::test]
async fn a_refusal_takes_nothing_of_what_is_kept_for_the_worst_hour() {
    let world = World::with_rules(|_| ()).await;
    let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
    world.by_custodian("alice", id, BreakGlassCommand::Close).await.unwrap();
    world.store.set_full(true);
    let refused = world.emergency(&token, world.request(None, &["dns:read"])).await;
    assert!(matches!(refused, Err(LedgerError::Append(AppendError::Full))));
    assert_eq!(world.emergency_code(&master_key("bob"), Some("fire")).await, Code::Allowed);
}

#[tokio::test]
async fn a_secret_is_a_master_key_or_an_api_key_and_never_both() {
    let world = World::with_rules(|_| ()).await;
    let sha256: [u8; 32] = Sha256::digest(master_key("alice")).into();
    let digest = crate::ledger::mint::digest_of_sha256(&sha256, world.ledger.peppers());
    let Command::CreateKey(key) = create(7) else { panic!() };
    let key = CreateKey { origin: KeyOrigin::Imported, digest, ..*key };
    // Nobody imports a custodian's digest.
    let item = crate::ledger::command::ImportedKey { key: key.clone(), others: Vec::new() };
    let import = crate::ledger::command::ImportKeys { keys: vec![item] };
    let imported = world.ledger.execute(ACME, &order(Command::ImportKeys(import))).await;
    assert!(imported.is_err(), "{imported:?}");
    assert!(world.ledger.custodian(&master_key("alice")).is_some());
    // And where it came to be one all the same, it is no master key.
    world.ledger.execute(ACME, &order(Command::CreateKey(Box::new(key)))).await.unwrap();
    assert_eq!(world.ledger.custodian(&master_key("alice")), None);
    assert_eq!(world.emergency_code(&master_key("alice"), Some("fire")).await, Code::Unknown);
}

#[tokio::test]
async fn stricter_rules_end_what_they_would_not_have_let_begin() {
    for stricter in
        [(|rules| rules.duration_max_seconds = 599) as fn(&mut BreakGlassRules), |rules| {
            rules.approval_required = true
        }]
    {
        let world = World::with_rules(|_| ()).await;
        let (id, token) = world.open_grant("alice", |_| ()).await.unwrap();
        let mut rules = world.rules();
        stricter(&mut rules);
        world.ledger.configure_break_glass(Some(rules)).await.unwrap();
        let end = world.grant(id).ended.map(|end| end.reason);
        assert_eq!(end, Some(BreakGlassEndReason::Withdrawn));
        assert_eq!(world.emergency_code(&token, None).await, Code::Revoked);
    }
    // Whoever has stolen a master key keeps nothing of it once it is another one.
    let world = World::with_rules(|_| ()).await;
    let (of_alice, _) = world.open_grant("alice", |_| ()).await.unwrap();
    let (of_bob, _) = world.open_grant("bob", |_| ()).await.unwrap();
    world.ledger.withdraw_from(&["alice".parse().unwrap()]).await.unwrap();
    let end = |id| world.grant(id).ended.map(|end| end.reason);
    assert_eq!((end(of_alice), end(of_bob)), (Some(BreakGlassEndReason::Withdrawn), None));
}

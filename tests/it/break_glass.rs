//! Break-glass, from the settings file to the auditor: over real sockets, with real files.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyledger::ledger::vault::seal::EventKey;
use keyledger::proto::break_glass_service_client::BreakGlassServiceClient;
use keyledger::proto::{
    self, AcceptInvitationRequest, ApproveGrantRequest, BreakGlassAlertKind, BreakGlassEndReason,
    BreakGlassGrantState, BreakGlassWay, CloseGrantRequest, CredentialKind, DecisionCode,
    ListBreakGlassGrantsRequest, LoginRequest, OpenGrantRequest, PrincipalKind, ReplayGrantRequest,
    ReviewFinding, ReviewGrantRequest, VerifyRequest, WatchBreakGlassRequest,
};
use projections::envelope::Envelope;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use zeroize::Zeroizing;

use super::history::instant;
use super::support::{
    ADMIN, Acme, Client, Home, Server, StoredEvent, about, leaf_hash, refused, rejected, scoped,
    texts,
};

const PASSWORD: &str = "correct horse battery staple";
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

fn master_key(name: &str) -> String {
    format!("klmk_{}", name.repeat(9))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An installation with three custodians, who are users of the operator.
struct World {
    acme: Acme,
    accounts: Vec<String>,
}

/// The section, with these settings beside the custodians.
fn section(accounts: &[String], settings: &str) -> String {
    let mut text = format!("[break_glass]\nenabled = true\n{settings}\n");
    for (name, account) in NAMES.iter().zip(accounts) {
        let digest = hex(&Sha256::digest(master_key(name)));
        text.push_str(&format!(
            "[[break_glass.custodians]]\nname = \"{name}\"\naccount = \"{account}\"\nmaster_key_sha256 = \"{digest}\"\n"
        ));
    }
    text
}

async fn join(acme: &Acme, organization: &str, name: &str, role: &str) -> String {
    let request = proto::InviteUserRequest {
        organization_id: organization.into(),
        email: format!("{name}@example.com"),
        name: name.into(),
        grants: vec![proto::InitialGrant { role_id: role.into(), ..Default::default() }],
        ..Default::default()
    };
    let token = acme.operator.invite_user(request).await.unwrap().invitation_token;
    let accept = AcceptInvitationRequest { token, password: PASSWORD.into(), ..Default::default() };
    acme.nobody().accept_invitation(accept).await.unwrap().account_id
}

impl World {
    async fn new(settings: &str) -> Self {
        let acme = Acme::new().await;
        let mut accounts = Vec::new();
        for name in NAMES {
            accounts.push(join(&acme, "operator", name, ADMIN).await);
        }
        Self { acme, accounts }.configured(settings).await
    }

    async fn configured(self, settings: &str) -> Self {
        let Self { acme, accounts } = self;
        let text = section(&accounts, settings);
        std::fs::write(acme.home.path().join("keyledger.toml"), text).unwrap();
        Self { acme: acme.restarted().await, accounts }
    }

    fn custodian(&self, name: &str) -> Client {
        self.acme.nobody().with_header("x-master-key", &master_key(name))
    }

    fn opening(&self) -> OpenGrantRequest {
        OpenGrantRequest {
            organization_id: self.acme.id.clone(),
            reason: "the pager rang".into(),
            ..Default::default()
        }
    }

    /// Opens a grant: the grant, and whoever bears its token.
    async fn open(&self, name: &str) -> (proto::BreakGlassGrant, Client, String) {
        let opened = self.custodian(name).open_grant(self.opening()).await.unwrap();
        let bearer = self.acme.nobody().with_key(&opened.token);
        (opened.grant.unwrap(), bearer, opened.token)
    }

    async fn grants(&self) -> Vec<proto::BreakGlassGrant> {
        let request = ListBreakGlassGrantsRequest::default();
        self.acme.operator.list_break_glass_grants(request).await.unwrap().grants
    }

    async fn grant(&self, id: &str) -> proto::BreakGlassGrant {
        self.grants().await.into_iter().find(|grant| grant.id == id).unwrap()
    }

    async fn close(
        &self,
        by: &Client,
        id: &str,
    ) -> Result<proto::CloseGrantResponse, tonic::Status> {
        let (organization_id, grant_id) = (self.acme.id.clone(), id.to_owned());
        let comment = "over".to_owned();
        by.close_grant(CloseGrantRequest { organization_id, grant_id, comment }).await
    }

    async fn review(
        &self,
        by: &Client,
        id: &str,
    ) -> Result<proto::ReviewGrantResponse, tonic::Status> {
        let request = ReviewGrantRequest {
            organization_id: self.acme.id.clone(),
            grant_id: id.into(),
            finding: ReviewFinding::Justified.into(),
            comment: "as it should be".into(),
        };
        by.review_grant(request).await
    }

    async fn replay(&self, by: &Client, request: ReplayGrantRequest) -> Replayed {
        let request = ReplayGrantRequest { organization_id: self.acme.id.clone(), ..request };
        let mut client = BreakGlassServiceClient::new(self.acme.server.channel());
        let mut pieces = client.replay_grant(by.request(request)).await.unwrap().into_inner();
        let mut replayed = Replayed::default();
        while let Some(piece) = pieces.message().await.unwrap() {
            replayed.complete = piece.complete;
            replayed.entries.extend(piece.entries);
            replayed.grant = piece.grant;
        }
        replayed
    }

    fn types(&self, stream: &str) -> Vec<String> {
        let events = self.acme.home.events().into_iter().filter(|it| it.stream == stream);
        events.map(|it| it.json()["type"].as_str().unwrap().to_owned()).collect()
    }
}

#[derive(Default)]
struct Replayed {
    entries: Vec<proto::ReplayEntry>,
    grant: Option<proto::BreakGlassGrant>,
    complete: bool,
}

impl Replayed {
    fn actions(&self) -> Vec<&str> {
        self.entries.iter().map(|it| it.entry.as_ref().unwrap().action.as_str()).collect()
    }
}

fn wanting(permissions: &[&str]) -> VerifyRequest {
    VerifyRequest { permissions: texts(permissions), ..Default::default() }
}

async fn ask(by: &Client, token: &str, permissions: &[&str]) -> proto::VerifyResponse {
    by.verify(about(token, permissions)).await.unwrap()
}

#[tokio::test]
async fn a_grant_lives_is_replayed_whole_and_reviewed_by_somebody_else() {
    let world = World::new("permissions = [\"api-keys:read\", \"api-keys:write\"]").await;
    let acme = &world.acme;
    let (key_id, secret) = acme.key("leaked", &["a:b"]).await;
    let (grant, bearer, token) = world.open("alice").await;
    assert_eq!((grant.state(), grant.way()), (BreakGlassGrantState::Open, BreakGlassWay::Token));
    assert_eq!(grant.account_id, world.accounts[0]);
    assert!(token.starts_with("klbg_"));
    // A gateway asks about it.
    let answer = ask(&acme.admin, &token, &["api-keys:write"]).await;
    assert_eq!(
        (answer.code(), answer.credential_kind()),
        (DecisionCode::Allowed, CredentialKind::BreakGlass)
    );
    let principal = answer.principal.unwrap();
    assert_eq!(principal.kind(), PrincipalKind::BreakGlass);
    assert_eq!(
        (principal.break_glass_grant_id, answer.organization_id),
        (grant.id.clone(), acme.id.clone())
    );
    assert_eq!(
        (answer.permissions, answer.expires_at),
        (texts(&["api-keys:read", "api-keys:write"]), grant.expires_at)
    );
    assert_eq!(
        ask(&acme.admin, &token, &["dns:write"]).await.code(),
        DecisionCode::PermissionDenied
    );
    // A permission that is spelt in two ways is one, and not held all the same.
    for twice in [["dns:write", "dns.write"], ["org:admin", "org.admin"]] {
        let answer = ask(&acme.admin, &token, &twice).await;
        assert_eq!(answer.code(), DecisionCode::PermissionDenied, "{twice:?}");
    }
    let twice = ask(&acme.admin, &token, &["api-keys:read", "api-keys.read"]).await;
    assert_eq!(twice.code(), DecisionCode::Allowed);
    // In a batch and in a stream, too.
    let questions = vec![about(&token, &[]), about(&secret, &[]), about(&token, &["org:admin"])];
    let batch = proto::VerifyBatchRequest { questions, ..Default::default() };
    let answers = acme.admin.verify_batch(batch).await.unwrap().answers;
    let code = |answer: &proto::VerifyBatchAnswer| match answer.answer.clone().unwrap() {
        proto::verify_batch_answer::Answer::Decision(decision) => decision.code(),
        other => panic!("{other:?}"),
    };
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(
        codes,
        [DecisionCode::Allowed, DecisionCode::Allowed, DecisionCode::PermissionDenied]
    );
    let mut stream = acme.admin.verify_stream().await.unwrap();
    let streamed = stream.decide(7, about(&token, &["api-keys:read"])).await;
    assert_eq!(streamed.unwrap().code(), DecisionCode::Allowed);
    // Its bearer calls the ledger itself.
    bearer.revoke("", &key_id).await.unwrap();
    let denied = bearer.invite_user(proto::InviteUserRequest::default()).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    assert!(bearer.verify_stream().await.is_err());
    world.close(&bearer, &grant.id).await.unwrap();
    assert_eq!(ask(&acme.admin, &token, &[]).await.code(), DecisionCode::Revoked);
    let over = bearer.list_keys(proto::ListKeysRequest::default()).await.unwrap_err();
    assert_eq!(
        (over.code(), super::support::reason(&over)),
        (Code::Unauthenticated, "REVOKED".into())
    );

    rejected(world.review(&world.custodian("alice"), &grant.id).await, "OWN_BREAK_GLASS_GRANT");
    rejected(world.review(&acme.admin, &grant.id).await, "NOT_A_PERSON");
    let reviewed = world.review(&world.custodian("bob"), &grant.id).await.unwrap().grant.unwrap();
    assert_eq!(reviewed.state(), BreakGlassGrantState::Reviewed);
    assert_eq!(reviewed.reviewed.unwrap().account_id, world.accounts[1]);

    // The whole story, with the evidence that an auditor checks by themself.
    let request =
        ReplayGrantRequest { grant_id: grant.id.clone(), evidence: true, ..Default::default() };
    let replayed = world.replay(&acme.operator, request.clone()).await;
    assert!(replayed.complete);
    assert_eq!(
        replayed.actions(),
        [
            "break_glass.opened",
            "break_glass.used",
            "break_glass.refused",
            "break_glass.refused",
            "break_glass.refused",
            "break_glass.used",
            "break_glass.used",
            "break_glass.refused",
            "break_glass.used",
            // The call, and what it changed.
            "break_glass.used",
            "key.revoked",
            // A call that the permission was lacking for.
            "break_glass.used",
            "break_glass.refused",
            "break_glass.used",
            "break_glass.refused",
            // The call that closed it, and the end.
            "break_glass.used",
            "break_glass.ended",
            "break_glass.refused",
            "break_glass.refused",
            // The opener's own try, and what a key tried is no custodian's.
            "break_glass.refused",
            "break_glass.reviewed",
        ]
    );
    let grant = replayed.grant.clone().unwrap();
    assert_eq!((grant.uses, grant.refusals), (8, 9));
    // Whoever was refused is who acted: its bearer, whoever else showed the token, a custodian.
    let actors: BTreeSet<String> = replayed
        .entries
        .iter()
        .map(|it| it.entry.as_ref().unwrap())
        .filter(|it| it.action == "break_glass.refused")
        .map(|it| it.actor.clone().unwrap())
        .map(|it| [it.break_glass_grant_id, it.account_id].concat())
        .collect();
    assert!(actors.contains(&grant.id), "{actors:?}");
    assert!(actors.contains(&world.accounts[0]), "{actors:?}");
    let mut last = None;
    for it in &replayed.entries {
        let (entry, stored) = (it.entry.clone().unwrap(), it.stored.clone().unwrap());
        assert!(last < Some(entry.revision));
        last = Some(entry.revision);
        assert_eq!(leaf_hash(&stored.stored), stored.leaf_hash);
        let envelope = Envelope::decode(&stored.stored).unwrap();
        assert_eq!(envelope.id.to_string(), entry.event_id);
        assert_eq!(envelope.sealed.len(), stored.keys.len());
        for (sealed, key) in envelope.sealed.iter().zip(&stored.keys) {
            let bytes: [u8; 32] = key.key.clone().try_into().unwrap();
            let opened = EventKey::from_bytes(Zeroizing::new(bytes)).open(envelope.id, sealed);
            let opened = opened.unwrap();
            assert!(
                opened.contains_key("comment") || opened.contains_key("origin_ip"),
                "{opened:?}"
            );
        }
    }
    let first = replayed.entries[0].entry.clone().unwrap();
    assert_eq!(first.personal_data.unwrap().comment, "the pager rang");
    let changed = replayed.entries.iter().map(|it| it.entry.clone().unwrap());
    let changed: Vec<_> = changed.filter(|it| it.action == "key.revoked").collect();
    assert_eq!(changed[0].credential_id, grant.id);
    assert_eq!(changed[0].actor.clone().unwrap().kind(), PrincipalKind::BreakGlass);
    assert!(changed[0].changes.iter().any(|it| it.before.is_some() && it.after.is_some()));
    // It goes on where it was left, and a tenant sees it, but for where from.
    let after = ReplayGrantRequest { after_revision: Some(changed[0].revision), ..request.clone() };
    assert_eq!(world.replay(&acme.operator, after).await.actions(), replayed.actions()[11..]);
    let seen = world.replay(&acme.admin, request.clone()).await;
    assert_eq!(seen.actions(), replayed.actions());
    assert!(seen.entries.iter().all(|it| it.stored.as_ref().unwrap().keys.is_empty()));
    let comment = |it: &proto::ReplayEntry| it.entry.clone().unwrap().personal_data.unwrap();
    assert_eq!(comment(&seen.entries[0]).comment, "the pager rang");
    assert!(seen.entries.iter().all(|it| {
        let data = it.entry.clone().unwrap().personal_data;
        data.is_none_or(|data| data.origin_ip.is_empty())
    }));
    // Another organization does not learn of it.
    let stranger = acme.another("oth").await;
    let mut client = BreakGlassServiceClient::new(acme.server.channel());
    let foreign = ReplayGrantRequest { organization_id: acme.id.clone(), ..request.clone() };
    let foreign = client.replay_grant(stranger.request(foreign)).await.map(|_| ());
    refused(foreign, Code::PermissionDenied, "is not the caller's own");
    let own = ReplayGrantRequest { organization_id: String::new(), ..request };
    let own = client.replay_grant(stranger.request(own)).await.map(|_| ());
    rejected(own, "BREAK_GLASS_GRANT_NOT_FOUND");
    let list = ListBreakGlassGrantsRequest::default();
    assert!(stranger.list_break_glass_grants(list).await.unwrap().grants.is_empty());
    // And a restart changes nothing of it.
    let before = world.grants().await;
    let World { acme, accounts } = world;
    let world = World { acme: acme.restarted().await, accounts };
    assert_eq!(world.grants().await, before);
}

/// More than is read, or told, at once: nothing is left out or told twice where parts meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_replay_is_whole() {
    const BATCHES: u64 = 15;
    let world = World::new("").await;
    let (grant, _, token) = world.open("alice").await;
    for _ in 0..BATCHES {
        let questions = vec![about(&token, &["api-keys:read"]); 100];
        let batch = proto::VerifyBatchRequest { questions, ..Default::default() };
        world.acme.admin.verify_batch(batch).await.unwrap();
    }
    world.close(&world.custodian("alice"), &grant.id).await.unwrap();
    for evidence in [false, true] {
        let request =
            ReplayGrantRequest { grant_id: grant.id.clone(), evidence, ..Default::default() };
        let replayed = world.replay(&world.acme.operator, request.clone()).await;
        let revision = |it: &proto::ReplayEntry| it.entry.as_ref().unwrap().revision;
        let revisions: Vec<_> = replayed.entries.iter().map(revision).collect();
        // Nothing else happened: the opening, each use, and the end.
        let first = grant.opened_revision;
        let all: Vec<_> = (first..=first + BATCHES * 100 + 1).collect();
        assert_eq!(revisions, all);
        assert!(replayed.complete);
        assert_eq!(replayed.actions().last(), Some(&"break_glass.ended"));
        // It goes on from the middle of a part, too.
        let after = ReplayGrantRequest { after_revision: Some(first + 700), ..request };
        let rest = world.replay(&world.acme.operator, after).await;
        let rest: Vec<_> = rest.entries.iter().map(revision).collect();
        assert_eq!(rest, all[701..]);
    }
}

#[tokio::test]
async fn a_gateway_hands_over_what_was_shown_to_it() {
    let world = World::new("permissions = [\"dns:read\"]\nreason_required = true").await;
    let acme = &world.acme;
    let shown = |key: &str, reason: &str| VerifyRequest {
        master_key: texts(&[key]),
        break_glass_reason: if reason.is_empty() { Vec::new() } else { texts(&[reason]) },
        ..wanting(&["dns:read"])
    };
    let alice = master_key("alice");
    let code = async |by: &Client, request: VerifyRequest| by.verify(request).await.unwrap().code();
    assert_eq!(code(&acme.admin, shown(&alice, "fire")).await, DecisionCode::Allowed);
    assert_eq!(code(&acme.admin, shown(&alice, "fire")).await, DecisionCode::Allowed);
    for (request, expected) in [
        (shown(&alice, ""), DecisionCode::BreakGlassReasonRequired),
        (shown(&alice, "\u{7}"), DecisionCode::BreakGlassReasonRequired),
        (shown(&alice, &"x".repeat(501)), DecisionCode::BreakGlassReasonRequired),
        (
            VerifyRequest { break_glass_reason: texts(&["a", "b"]), ..shown(&alice, "") },
            DecisionCode::BreakGlassReasonRequired,
        ),
        (shown("klmk_nobody", "fire"), DecisionCode::Unknown),
        (
            VerifyRequest {
                master_key: vec![alice.clone(), master_key("bob")],
                ..shown("", "fire")
            },
            DecisionCode::Ambiguous,
        ),
        // What decides is the master key, whatever else is shown.
        (
            VerifyRequest { api_key: vec![acme.admin_secret.clone()], ..shown("klmk_x", "fire") },
            DecisionCode::Unknown,
        ),
    ] {
        assert_eq!(code(&acme.admin, request.clone()).await, expected, "{request:?}");
    }
    // A master key is no API key, and no API key is a master key.
    assert_eq!(code(&acme.admin, about(&alice, &["dns:read"])).await, DecisionCode::Malformed);
    let swapped = VerifyRequest { api_key: vec![alice.clone()], ..wanting(&["dns:read"]) };
    assert_eq!(code(&acme.admin, swapped).await, DecisionCode::Malformed);
    let swapped = shown(&acme.admin_secret, "fire");
    assert_eq!(code(&acme.admin, swapped).await, DecisionCode::Unknown);
    // An operator's gateway must say for whom.
    let nobodys = shown(&alice, "fire");
    assert_eq!(
        code(&acme.operator, nobodys.clone()).await,
        DecisionCode::BreakGlassOrganizationRequired
    );
    let acmes = VerifyRequest { tenant_id: acme.id.clone(), ..nobodys.clone() };
    assert_eq!(code(&acme.operator, acmes).await, DecisionCode::Allowed);
    let operators = VerifyRequest { tenant_id: "operator".into(), ..nobodys.clone() };
    assert_eq!(code(&acme.operator, operators).await, DecisionCode::BreakGlassOrganizationRequired);
    // Another tenant's gateway does not reach Acme.
    let stranger = acme.another("oth").await;
    let foreign = VerifyRequest { tenant_id: acme.id.clone(), ..nobodys };
    assert_eq!(code(&stranger, foreign).await, DecisionCode::TenantMismatch);
    let grants = world.grants().await;
    assert_eq!(grants.len(), 1, "{grants:?}");
    assert_eq!((grants[0].way(), grants[0].uses), (BreakGlassWay::MasterKey, 3));
    // The ledger's own methods take the headers, too.
    let by_headers = acme
        .nobody()
        .with_header("x-master-key", &alice)
        .with_header("x-break-glass-reason", "fire")
        .with_header("x-tenant-id", &acme.id);
    let denied = by_headers.list_keys(proto::ListKeysRequest::default()).await.unwrap_err();
    assert_eq!(super::support::reason(&denied), "PERMISSION_DENIED");
    let grant = world.grant(&grants[0].id).await;
    assert_eq!((grant.uses, grant.refusals), (4, 1), "the call, and that it was refused");
}

#[tokio::test]
async fn it_is_off_unless_it_is_turned_on() {
    let acme = Acme::new().await;
    let shown = VerifyRequest {
        master_key: texts(&["klmk_any"]),
        api_key: vec![acme.admin_secret.clone()],
        ..Default::default()
    };
    let code = acme.operator.verify(shown).await.unwrap().code();
    assert_eq!(code, DecisionCode::BreakGlassDisabled, "refused, and not ignored");
    let custodian = acme.nobody().with_header("x-master-key", "klmk_any");
    let opening = OpenGrantRequest { organization_id: acme.id.clone(), ..Default::default() };
    rejected(custodian.open_grant(opening.clone()).await, "BREAK_GLASS_DISABLED");
    rejected(acme.nobody().open_grant(opening.clone()).await, "NO_CREDENTIAL");
}

/// As redcloud has it: two variables, and a master key of nobody.
#[tokio::test]
async fn the_variables_turn_it_on() {
    let acme = Acme::new().await;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    let key = "a-master-key-of-some-length";
    let with =
        |home: &Home| home.launch().env("MASTER_KEY", key).env("BREAK_GLASS_ENABLED", "true");
    let said = with(&home).refused();
    assert!(said.contains("bound to no account") && !said.contains(key), "{said}");
    std::fs::write(home.path().join("keyledger.toml"), "[break_glass]\nreview = false\n").unwrap();
    let server = with(&home).start().await;
    let admin = server.client(&admin_secret);
    let shown = VerifyRequest { master_key: texts(&[key]), ..wanting(&["api-keys:read"]) };
    let answer = admin.verify(shown.clone()).await.unwrap();
    assert_eq!(answer.code(), DecisionCode::Allowed, "no reason is needed here");
    assert_eq!(answer.organization_id, id);
    let shown = VerifyRequest { permissions: texts(&["dns:write"]), ..shown };
    assert_eq!(admin.verify(shown.clone()).await.unwrap().code(), DecisionCode::PermissionDenied);
    assert!(!server.stop().await.contains(key));
    let server = home.launch().env("MASTER_KEY", key).start().await;
    let admin = server.client(&admin_secret);
    assert_eq!(admin.verify(shown).await.unwrap().code(), DecisionCode::BreakGlassDisabled);
    server.stop().await;
    for (name, value, says) in [
        ("MASTER_KEY", "short", "MASTER_KEY"),
        ("BREAK_GLASS_ENABLED", "perhaps", "must be `true` or `false`"),
    ] {
        let said = home.launch().env(name, value).refused();
        assert!(said.contains(says), "{said}");
    }
    let stored = std::fs::read(home.database()).unwrap();
    assert!(!stored.windows(key.len()).any(|it| it == key.as_bytes()), "it is nowhere in clear");
    let digest = hex(&Sha256::digest(key));
    assert!(!stored.windows(64).any(|it| it == digest.as_bytes()), "nor is what stands for it");
}

#[tokio::test]
async fn wrong_openings_are_refused_exactly_and_recorded() {
    let world =
        World::new("permissions = [\"dns:read\"]\nincident_required = true\nopenings_max = 2")
            .await;
    let acme = &world.acme;
    let alice = world.custodian("alice");
    let opening = OpenGrantRequest { incident: "INC-1".into(), ..world.opening() };
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let mut wrong = 0;
    for (request, code, says) in [
        (
            OpenGrantRequest { reason: String::new(), ..opening.clone() },
            Code::InvalidArgument,
            "`reason`",
        ),
        (
            OpenGrantRequest { reason: " \t ".into(), ..opening.clone() },
            Code::InvalidArgument,
            "`reason`",
        ),
        (
            OpenGrantRequest { reason: "a\nb".into(), ..opening.clone() },
            Code::InvalidArgument,
            "one line",
        ),
        (
            OpenGrantRequest { reason: "x".repeat(501), ..opening.clone() },
            Code::InvalidArgument,
            "500",
        ),
        (
            OpenGrantRequest { incident: String::new(), ..opening.clone() },
            Code::InvalidArgument,
            "`incident`",
        ),
        (
            OpenGrantRequest { duration: seconds(0, 0), ..opening.clone() },
            Code::InvalidArgument,
            "`duration`",
        ),
        (
            OpenGrantRequest { duration: seconds(-1, 0), ..opening.clone() },
            Code::InvalidArgument,
            "`duration`",
        ),
        (
            OpenGrantRequest { duration: seconds(1, 1), ..opening.clone() },
            Code::InvalidArgument,
            "whole seconds",
        ),
        (
            OpenGrantRequest { duration: seconds(14_401, 0), ..opening.clone() },
            Code::InvalidArgument,
            "1 to 14400",
        ),
        (
            OpenGrantRequest { duration: seconds(i64::MAX, 0), ..opening.clone() },
            Code::InvalidArgument,
            "`duration`",
        ),
        (
            OpenGrantRequest { permissions: texts(&["dns:write"]), ..opening.clone() },
            Code::InvalidArgument,
            "`dns:write` is not on",
        ),
        (
            OpenGrantRequest { permissions: texts(&["dns:*"]), ..opening.clone() },
            Code::InvalidArgument,
            "`permissions`",
        ),
        (
            OpenGrantRequest { permissions: texts(&["org:admin"]), ..opening.clone() },
            Code::InvalidArgument,
            "`org:admin` is not on",
        ),
        (
            OpenGrantRequest { organization_id: "operator".into(), ..opening.clone() },
            Code::InvalidArgument,
            "`organization_id`",
        ),
        (
            OpenGrantRequest { organization_id: String::new(), ..opening.clone() },
            Code::InvalidArgument,
            "`organization_id`",
        ),
        (
            OpenGrantRequest {
                organization_id: "org_01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
                ..opening.clone()
            },
            Code::NotFound,
            "not found",
        ),
    ] {
        refused(alice.open_grant(request).await, code, says);
        wrong += 1;
    }
    assert!(world.grants().await.is_empty());
    let refusals =
        |stream: &str| world.types(stream).iter().filter(|it| *it == "BreakGlassRefused").count();
    let acmes = refusals(&format!("org-{}", acme.id));
    assert_eq!(acmes + refusals("org-operator"), wrong);
    assert_eq!(acmes, 13);
    // Whoever has no master key opens nothing, and what they show is counted, not recorded.
    for other in [&acme.admin, &acme.operator] {
        rejected(other.open_grant(opening.clone()).await, "NO_CREDENTIAL");
    }
    let nobody = acme.nobody().with_header("x-master-key", "klmk_nobody");
    rejected(nobody.open_grant(opening.clone()).await, "UNKNOWN");
    let two = alice.with_header("x-master-key", &master_key("bob"));
    rejected(two.open_grant(opening.clone()).await, "AMBIGUOUS");
    for _ in 0..2 {
        alice.open_grant(opening.clone()).await.unwrap();
    }
    rejected(world.custodian("bob").open_grant(opening).await, "BREAK_GLASS_LIMITED");
    let grants = world.grants().await;
    assert_eq!(grants.len(), 2);
    let end = grants[1].ended.clone().unwrap();
    assert_eq!(end.reason(), BreakGlassEndReason::Superseded);
}

#[tokio::test]
async fn people_approve_and_review_by_their_accounts() {
    let world = World::new("approval = true").await;
    let acme = &world.acme;
    let login = async |name: &str| {
        let request = LoginRequest {
            email: format!("{name}@example.com"),
            password: PASSWORD.into(),
            ..Default::default()
        };
        let tokens = acme.nobody().login(request).await.unwrap().tokens.unwrap();
        acme.nobody().with_key(&tokens.access_token)
    };
    let (grant, bearer, token) = world.open("alice").await;
    assert_eq!(grant.state(), BreakGlassGrantState::AwaitingApproval);
    let pending = ask(&acme.admin, &token, &[]).await.code();
    assert_eq!(pending, DecisionCode::BreakGlassApprovalPending);
    let shut = bearer.list_keys(proto::ListKeysRequest::default()).await.unwrap_err();
    assert_eq!(super::support::reason(&shut), "BREAK_GLASS_APPROVAL_PENDING");
    let approve = |by: Client| {
        let (organization_id, grant_id) = (acme.id.clone(), grant.id.clone());
        let request =
            proto::ApproveGrantRequest { organization_id, grant_id, ..Default::default() };
        async move { by.approve_grant(request).await }
    };
    // The opener by whatever they show, and whoever is nobody by an account.
    let alice = login("alice").await;
    rejected(approve(alice.clone()).await, "OWN_BREAK_GLASS_GRANT");
    rejected(approve(world.custodian("alice")).await, "OWN_BREAK_GLASS_GRANT");
    rejected(approve(acme.operator.clone()).await, "NOT_A_PERSON");
    rejected(approve(bearer.clone()).await, "BREAK_GLASS_APPROVAL_PENDING");
    // A key that Alice made for Bob does not say that Bob bears it.
    let users = alice
        .list_users(proto::ListUsersRequest {
            organization_id: "operator".into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .users;
    let bob = users.iter().find(|it| it.email == "bob@example.com").unwrap();
    let key = proto::CreateKeyRequest {
        user_id: bob.id.clone(),
        ..scoped("operator", "for Bob", &["break-glass:approve", "break-glass:review"])
    };
    let key = alice.create_key(key).await.unwrap();
    rejected(approve(acme.operator.with_key(&key.secret)).await, "NOT_A_PERSON");
    // Alice, as a user of Acme's, is Alice.
    let request = proto::InviteUserRequest {
        organization_id: acme.id.clone(),
        email: "alice@example.com".into(),
        name: "also Alice".into(),
        grants: vec![proto::InitialGrant { role_id: ADMIN.into(), ..Default::default() }],
        ..Default::default()
    };
    let invitation = acme.operator.invite_user(request).await.unwrap().invitation_token;
    let accept = AcceptInvitationRequest { token: invitation, ..Default::default() };
    alice.accept_invitation(accept).await.unwrap();
    let request = LoginRequest {
        email: "alice@example.com".into(),
        password: PASSWORD.into(),
        organization_id: acme.id.clone(),
        ..Default::default()
    };
    let tokens = acme.nobody().login(request).await.unwrap().tokens.unwrap();
    let as_tenant = acme.nobody().with_key(&tokens.access_token);
    rejected(approve(as_tenant.clone()).await, "OWN_BREAK_GLASS_GRANT");
    let approved = approve(login("bob").await).await.unwrap().grant.unwrap();
    assert_eq!(approved.approved.unwrap().account_id, world.accounts[1]);
    assert_eq!(ask(&acme.admin, &token, &[]).await.code(), DecisionCode::Allowed);
    rejected(world.review(&login("carol").await, &grant.id).await, "BREAK_GLASS_GRANT_NOT_ENDED");
    // An administrator of the organization sends them away.
    world.close(&acme.admin, &grant.id).await.unwrap();
    for by in [&as_tenant, &login("bob").await] {
        rejected(world.review(by, &grant.id).await, "OWN_BREAK_GLASS_GRANT");
    }
    let reviewed = world.review(&login("carol").await, &grant.id).await.unwrap().grant.unwrap();
    assert_eq!(reviewed.reviewed.unwrap().account_id, world.accounts[2]);
}

#[tokio::test]
async fn a_grant_that_ended_while_nobody_was_there_ends_at_its_time() {
    let world = World::new("review_seconds = 1").await;
    let mut opening = world.opening();
    opening.duration = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let opened = world.custodian("alice").open_grant(opening).await.unwrap().grant.unwrap();
    let World { acme, accounts } = world;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.kill();
    // Its second passes while nobody is there.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let server = home.start().await;
    let (operator, admin) = (server.client(&home.admin_key()), server.client(&admin_secret));
    let world = World { acme: Acme { home, server, operator, id, admin, admin_secret }, accounts };
    let grant = world.grant(&opened.id).await;
    let end = grant.ended.clone().unwrap();
    assert_eq!((end.reason(), end.server_was_down), (BreakGlassEndReason::Expired, true));
    assert_eq!(end.ended_at, opened.expires_at);
    // And nobody looks at it in time.
    let mut grant = grant;
    while grant.escalated_at.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        grant = world.grant(&opened.id).await;
    }
}

#[tokio::test]
async fn alerts_come_at_once_and_a_replay_follows_what_is_open() {
    let world = World::new("").await;
    let acme = &world.acme;
    let watch = async |by: &Client| {
        let mut client = BreakGlassServiceClient::new(acme.server.channel());
        let watching = client.watch_break_glass(by.request(WatchBreakGlassRequest::default()));
        let mut alerts = watching.await.unwrap().into_inner();
        let first = alerts.message().await.unwrap().unwrap();
        assert_eq!(first.kind(), BreakGlassAlertKind::Unspecified, "it stands");
        alerts
    };
    let stranger = acme.another("oth").await;
    let (mut operators, mut tenants) = (watch(&acme.operator).await, watch(&acme.admin).await);
    let mut strangers = watch(&stranger).await;
    let (grant, bearer, token) = world.open("alice").await;
    let request = ReplayGrantRequest {
        organization_id: acme.id.clone(),
        grant_id: grant.id.clone(),
        follow: true,
        ..Default::default()
    };
    let mut client = BreakGlassServiceClient::new(acme.server.channel());
    let mut replay =
        client.replay_grant(acme.operator.request(request)).await.unwrap().into_inner();
    let mut actions = Vec::new();
    ask(&acme.admin, &token, &[]).await;
    while actions.len() < 2 {
        let piece = replay.message().await.unwrap().unwrap();
        assert!(!piece.complete);
        actions.extend(piece.entries.into_iter().map(|it| it.entry.unwrap().action));
    }
    ask(&acme.admin, &token, &["no:such"]).await;
    world.close(&bearer, &grant.id).await.unwrap();
    let mut complete = false;
    while let Some(piece) = replay.message().await.unwrap() {
        complete = piece.complete;
        actions.extend(piece.entries.into_iter().map(|it| it.entry.unwrap().action));
    }
    assert!(complete);
    assert_eq!(
        actions,
        ["opened", "used", "refused", "used", "ended"].map(|it| format!("break_glass.{it}"))
    );
    for alerts in [&mut operators, &mut tenants] {
        for kind in
            [BreakGlassAlertKind::Opened, BreakGlassAlertKind::Refused, BreakGlassAlertKind::Ended]
        {
            let alert = alerts.message().await.unwrap().unwrap();
            assert_eq!((alert.kind(), alert.organization_id.as_str()), (kind, acme.id.as_str()));
            assert_eq!(
                (alert.custodian.as_str(), alert.grant.unwrap().id),
                ("alice", grant.id.clone())
            );
        }
    }
    // Another organization is told of its own alone; whoever may not look any more, of nothing.
    let opening = OpenGrantRequest {
        organization_id: stranger
            .get_organization(proto::GetOrganizationRequest::default())
            .await
            .unwrap()
            .organization
            .unwrap()
            .id,
        ..world.opening()
    };
    world.custodian("bob").open_grant(opening.clone()).await.unwrap();
    let alert = strangers.message().await.unwrap().unwrap();
    assert_eq!(
        (alert.kind(), alert.organization_id),
        (BreakGlassAlertKind::Opened, opening.organization_id)
    );
    let key =
        acme.operator.create_key(scoped(&acme.id, "watcher", &["break-glass:read"])).await.unwrap();
    let mut watching = watch(&acme.operator.with_key(&key.secret)).await;
    acme.admin.revoke("", &key.key.unwrap().id).await.unwrap();
    assert_eq!(watching.message().await.unwrap_err().code(), Code::Unauthenticated);
}

/// kill -9 at any moment: who was let in left a trace. The trace may be there without the
/// access. The observer is outside the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_was_let_in_without_a_trace() {
    const ROUNDS: u64 = 200;
    let world = World::new("duration_seconds = 86400\nduration_max_seconds = 86400").await;
    let (grant, _, token) = world.open("alice").await;
    let Acme { home, server, id, admin_secret, .. } = world.acme;
    let mut server = Some(server);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let sent = Arc::new(AtomicU64::new(0));
    let rounds = std::env::var("KEYLEDGER_TEST_CRASH_ROUNDS").ok().and_then(|it| it.parse().ok());
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let running: Server = match server.take() {
            Some(server) => server,
            None => home.start().await,
        };
        let admin = running.client(&admin_secret);
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let (admin, token) = (admin.clone(), token.clone());
                let (seen, sent) = (Arc::clone(&seen), Arc::clone(&sent));
                tokio::spawn(async move {
                    loop {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        let correlation_id = format!("use-{number}");
                        let request = VerifyRequest {
                            correlation_id: correlation_id.clone(),
                            ..about(&token, &["api-keys:read"])
                        };
                        match admin.verify(request).await {
                            Ok(answer) => {
                                assert_eq!(answer.code(), DecisionCode::Allowed);
                                seen.lock().unwrap().insert(correlation_id);
                            }
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        // From before the first answer to a dozen of them.
        let wanted = seen.lock().unwrap().len() as u64 + round % 13;
        while (seen.lock().unwrap().len() as u64) < wanted {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        running.kill();
        for asking in asking {
            asking.await.unwrap();
        }
    }
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    let request = ListBreakGlassGrantsRequest { organization_id: id, ..Default::default() };
    let grants = operator.list_break_glass_grants(request).await.unwrap().grants;
    let traces: Vec<String> = home
        .events()
        .into_iter()
        .filter(|it| it.json()["type"] == "BreakGlassUsed")
        .map(|it| it.json()["correlation_id"].as_str().unwrap().to_owned())
        .collect();
    let distinct: BTreeSet<String> = traces.iter().cloned().collect();
    assert_eq!(distinct.len(), traces.len(), "a use leaves one trace");
    assert_eq!(grants[0].uses, traces.len() as u64);
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 200, "{} were let in", seen.len());
    let without: Vec<_> = seen.difference(&distinct).collect();
    assert!(without.is_empty(), "{without:?}");
    eprintln!("{} let in, {} traces of grant {}", seen.len(), traces.len(), grant.id);
}

/// Whoever bears a grant that permits nothing of the ledger's own is refused by every method,
/// as it says, but for those that ask for nothing.
#[tokio::test]
async fn a_grant_lets_nobody_do_what_it_does_not_say() {
    let world = World::new("permissions = [\"dns:read\"]").await;
    let (_, bearer, _) = world.open("alice").await;
    let methods = super::rpc_matrix::methods();
    assert!(methods.len() > 40, "{}", methods.len());
    let mut let_in = BTreeSet::new();
    for method in methods {
        let before = world.types(&format!("org-{}", world.acme.id)).len();
        let request = bearer.request(Vec::new());
        let called = super::support::call_raw(world.acme.server.channel(), &method, request).await;
        let code = called.map_or_else(|status| status.code(), |_| Code::Ok);
        if !matches!(code, Code::PermissionDenied | Code::Unauthenticated) {
            let_in.insert(method.clone());
            continue;
        }
        // The call, and that it was refused, are on disk.
        let after = world.types(&format!("org-{}", world.acme.id));
        let new = after.get(before..).unwrap();
        assert!(
            new == ["BreakGlassUsed", "BreakGlassRefused"] || new.is_empty(),
            "{method}: {new:?}"
        );
    }
    let expected: BTreeSet<String> = EXPECTED_OPEN.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(let_in, expected);
}

/// What needs no permission: methods that look at no caller, or at what is the caller's own, and
/// those whose rules look for themselves (an empty request is not right).
const EXPECTED_OPEN: &[&str] = &[
    "keyledger.v1.BreakGlassService/ApproveGrant",
    "keyledger.v1.BreakGlassService/CloseGrant",
    "keyledger.v1.BreakGlassService/ReviewGrant",
    "keyledger.v1.SessionService/GetSigningKeys",
    "keyledger.v1.SessionService/Login",
    "keyledger.v1.SessionService/RevokeSessions",
    "keyledger.v1.SessionService/WhoAmI",
];

/// A flood of keys that are nobody's is counted to the last, leaves no event for each, and keeps
/// no custodian out.
#[tokio::test]
async fn a_flood_of_wrong_master_keys_is_counted_and_no_more() {
    const WRONG: usize = 1_500;
    let world = World::new("permissions = [\"dns:read\"]").await;
    let shown = |key: String| VerifyRequest {
        master_key: vec![key],
        break_glass_reason: texts(&["fire"]),
        ..wanting(&["dns:read"])
    };
    let before = world.acme.home.facts();
    let questions: Vec<_> = (0..WRONG).map(|number| shown(format!("klmk_{number:041}"))).collect();
    for questions in questions.chunks(500) {
        let batch = proto::VerifyBatchRequest { questions: questions.into(), ..Default::default() };
        for answer in world.acme.admin.verify_batch(batch).await.unwrap().answers {
            let Some(proto::verify_batch_answer::Answer::Decision(decision)) = answer.answer else {
                panic!("undecided");
            };
            assert_eq!(decision.code(), DecisionCode::Unknown);
        }
    }
    let right = world.acme.admin.verify(shown(master_key("alice"))).await.unwrap();
    assert_eq!(right.code(), DecisionCode::Allowed);
    let World { acme: Acme { home, server, .. }, .. } = world;
    // What is not yet recorded is when the server stops.
    server.stop().await;
    let all = home.events();
    let counted: u64 = all
        .iter()
        .map(StoredEvent::json)
        .filter(|event| event["type"] == "DenialsSummarized")
        .flat_map(|event| event["data"]["denials"].as_array().unwrap().clone())
        .filter(|it| it["denial"]["code"] == "unknown")
        .map(|it| it["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, WRONG as u64);
    assert!(home.facts() - before < 20, "{} facts", home.facts() - before);
}

#[tokio::test]
async fn what_a_grant_could_do_is_explained_later_and_its_quarter_is_summed_up() {
    let world = World::new("permissions = [\"api-keys:read\", \"api-keys:write\"]").await;
    let acme = &world.acme;
    let before = super::history::instant().await;
    let (grant, bearer, token) = world.open("alice").await;
    let asked = |permission: &str, at| proto::ExplainDecisionRequest {
        organization_id: acme.id.clone(),
        credential_id: grant.id.clone(),
        permissions: texts(&[permission]),
        moment: Some(proto::explain_decision_request::Moment::At(at)),
        ..Default::default()
    };
    let mut answered = Vec::new();
    let mut listed = Vec::new();
    let made = proto::CreateKeyRequest {
        expiry: Some(proto::create_key_request::Expiry::ExpiresAt(grant.expires_at.unwrap())),
        ..super::support::scoped("", "made under it", &["api-keys:read"])
    };
    let made = bearer.create_key(made).await.unwrap().key.unwrap().id;
    for ended in [false, true] {
        if ended {
            world.close(&world.custodian("alice"), &grant.id).await.unwrap();
        }
        for permission in ["api-keys:read", "dns:read"] {
            // It is recorded before it is answered.
            let answer = ask(&acme.admin, &token, &[permission]).await;
            answered.push((permission, super::history::instant().await, answer.code(), ended));
        }
        listed.push((super::history::instant().await, world.grants().await));
        super::history::instant().await;
    }
    for (permission, at, code, ended) in answered {
        let is = acme.operator.explain_decision(asked(permission, at)).await.unwrap();
        assert_eq!(is.decision.as_ref().unwrap().code(), code, "{permission} {ended}");
        let decides = is.links.iter().find(|it| it.decides).unwrap().event.clone().unwrap();
        let action = if ended { "break_glass.ended" } else { "break_glass.opened" };
        assert_eq!(decides.action, action, "{permission}");
        // A key that was made under it ends with it.
        let key = proto::ExplainDecisionRequest {
            credential_id: made.clone(),
            ..asked("api-keys:read", at)
        };
        let is = acme.operator.explain_decision(key).await.unwrap();
        let expected = if ended { DecisionCode::Revoked } else { DecisionCode::Allowed };
        assert_eq!(is.decision.unwrap().code(), expected);
    }
    let unknown = acme.operator.explain_decision(asked("api-keys:read", before)).await.unwrap();
    assert_eq!(unknown.decision.unwrap().code(), DecisionCode::Unknown);
    assert!(unknown.reason.contains("did not exist yet"), "{}", unknown.reason);
    for (at, grants) in listed {
        let request = proto::StateAtRequest {
            organization_id: acme.id.clone(),
            moment: Some(proto::state_at_request::Moment::At(at)),
            table: proto::PastTable::BreakGlassGrants.into(),
            ..Default::default()
        };
        assert_eq!(acme.operator.state_at(request).await.unwrap().break_glass_grants, grants);
    }
    let now = world.grant(&grant.id).await;
    let summary = proto::SummarizeBreakGlassRequest { organization_id: acme.id.clone() };
    let quarters =
        async || acme.operator.summarize_break_glass(summary.clone()).await.unwrap().quarters;
    let one = quarters().await;
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].custodian.as_str(), one[0].opened, one[0].unreviewed), ("alice", 1, 1));
    assert_eq!((one[0].uses, one[0].refusals), (now.uses, now.refusals));
    assert!(now.uses > 0 && now.refusals > 0);
    let millis = |at: prost_types::Timestamp| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000;
    let open = one[0].open.unwrap();
    let ended_at = now.ended.unwrap().ended_at.unwrap();
    assert_eq!(
        open.seconds * 1_000 + i64::from(open.nanos) / 1_000_000,
        millis(ended_at) - millis(now.opened_at.unwrap())
    );
    world.review(&world.custodian("bob"), &grant.id).await.unwrap();
    assert_eq!(quarters().await[0].unreviewed, 0);
}

#[tokio::test]
async fn what_is_read_under_a_grant_is_in_its_replay_and_so_is_who_replays_in_the_history() {
    let world = World::new("permissions = [\"activity:read\"]").await;
    let acme = &world.acme;
    let (grant, bearer, _) = world.open("alice").await;
    let filter = proto::ActivityFilter { action: "key.*".into(), ..Default::default() };
    let query = proto::QueryActivityRequest { filter: Some(filter), ..Default::default() };
    bearer.query_activity(query).await.unwrap();
    world.close(&bearer, &grant.id).await.unwrap();
    let request = ReplayGrantRequest { grant_id: grant.id.clone(), ..Default::default() };
    let replayed = world.replay(&acme.operator, request).await;
    let actions = replayed.actions();
    let used = ["break_glass.opened", "break_glass.used", "history.read"];
    assert_eq!(actions[..3], used, "{actions:?}");
    let events = acme.home.events();
    let stored = events.iter().rev().map(|it| it.json());
    let read: Vec<_> = stored.filter(|it| it["type"] == "HistoryRead").collect();
    assert_eq!(read.len(), 2);
    assert_eq!(read[0]["actor"], "operator");
    let asked = serde_json::json!({ "way": "replayed", "asked": { "grant_id": grant.id } });
    assert_eq!(read[0]["data"], asked);
    assert_eq!(read[1]["credential"], grant.id);
    world.acme.server.stop().await;
}

/// Whoever asks who could do something is told of emergency access, too.
#[tokio::test]
async fn a_grant_held_what_it_permitted_from_its_opening_or_approval_to_its_end() {
    let world = World::new("permissions = [\"api-keys:read\"]\napproval = true").await;
    let acme = &world.acme;
    let from = instant().await;
    let (grant, bearer, token) = world.open("alice").await;
    let approve = ApproveGrantRequest {
        organization_id: acme.id.clone(),
        grant_id: grant.id.clone(),
        ..Default::default()
    };
    assert_eq!(ask(&acme.admin, &token, &[]).await.code(), DecisionCode::BreakGlassApprovalPending);
    world.custodian("bob").approve_grant(approve).await.unwrap();
    assert_eq!(ask(&acme.admin, &token, &[]).await.code(), DecisionCode::Allowed);
    let open_until = instant().await;
    world.close(&bearer, &grant.id).await.unwrap();
    let end = instant().await;
    let held = async |permission: &str, from, to| -> Vec<proto::HeldTime> {
        let request = proto::ListPermissionHoldersRequest {
            organization_id: acme.id.clone(),
            permission: permission.into(),
            from: Some(from),
            to: Some(to),
            ..Default::default()
        };
        let times = acme.operator.list_permission_holders(request).await.unwrap().times;
        let id = proto::held_time::Holder::BreakGlassGrantId(grant.id.clone());
        times.into_iter().filter(|it| it.holder.as_ref() == Some(&id)).collect()
    };
    let times = held("api-keys:read", from, end).await;
    let [time] = &times[..] else { panic!("{times:?}") };
    let action = |it: &Option<proto::PastEvent>| it.as_ref().unwrap().action.clone();
    assert_eq!(action(&time.began_by), "break_glass.approved");
    assert_eq!(action(&time.ended_by), "break_glass.ended");
    assert_eq!(time.from, time.began_by.as_ref().unwrap().at);
    assert_eq!(time.to, time.ended_by.as_ref().unwrap().at);
    let open = held("api-keys:read", from, open_until).await;
    assert_eq!((open.len(), open[0].to, &open[0].ended_by), (1, None, &None));
    assert!(held("api-keys:write", from, end).await.is_empty());
    world.acme.server.stop().await;
}

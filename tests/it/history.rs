//! What was so at a past moment: held against what was answered then.

use std::collections::BTreeSet;

use keyledger::ledger::clock::Clock;
use keyledger::proto::grant_role_request::Principal as Grantee;
use keyledger::proto::revoke_sessions_request::Which;
use keyledger::proto::state_at_request::Moment;
use keyledger::proto::{self, DecisionCode, PastTable, explain_decision_request};
use prost_types::{Duration, Timestamp};
use tonic::Code;

use super::support::{
    Acme, Client, DNS_MANAGER, Home, about, refused, scoped, texts, unused, with_roles,
};

const PASSWORD: &str = "correct horse battery";

fn now_ms() -> i64 {
    Clock::system().now().as_millis()
}

/// This instant. Whatever is recorded from here on is recorded later.
pub(crate) async fn instant() -> Timestamp {
    let now = now_ms();
    while now_ms() == now {
        tokio::task::yield_now().await;
    }
    millis(now)
}

fn millis(at: i64) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1_000)).unwrap() * 1_000_000;
    Timestamp { seconds: at.div_euclid(1_000), nanos }
}

fn of(table: PastTable, at: Timestamp) -> proto::StateAtRequest {
    let moment = Some(Moment::At(at));
    proto::StateAtRequest { table: table.into(), moment, ..Default::default() }
}

/// Every page of a table, in one.
async fn whole(client: &Client, request: proto::StateAtRequest) -> proto::StateAtResponse {
    let mut request = request;
    let mut all = proto::StateAtResponse::default();
    loop {
        let page = client.state_at(request.clone()).await.unwrap();
        all.keys.extend(page.keys);
        all.roles.extend(page.roles);
        all.grants.extend(page.grants);
        all.users.extend(page.users);
        all.service_accounts.extend(page.service_accounts);
        all.sessions.extend(page.sessions);
        all.break_glass_grants.extend(page.break_glass_grants);
        all.events.extend(page.events);
        all.organization = page.organization;
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// What lists show now.
#[derive(Clone, Debug, PartialEq)]
struct Lists {
    keys: Vec<proto::Key>,
    roles: Vec<proto::Role>,
    grants: Vec<proto::Grant>,
    users: Vec<proto::User>,
    service_accounts: Vec<proto::ServiceAccount>,
    sessions: Vec<proto::Session>,
    organization: Option<proto::Organization>,
}

impl Lists {
    async fn now(acme: &Acme) -> Self {
        let admin = &acme.admin;
        let keys = admin.list_keys(Default::default()).await.unwrap().keys;
        let users = admin.list_users(Default::default()).await.unwrap().users;
        let mut sessions = Vec::new();
        for user in &users {
            let user_id = user.id.clone();
            let request = proto::ListSessionsRequest { user_id, ..Default::default() };
            sessions.extend(admin.list_sessions(request).await.unwrap().sessions);
        }
        sessions.sort_by(|a, b| a.id.cmp(&b.id));
        Self {
            keys: keys.into_iter().map(unused).collect(),
            roles: admin.list_roles(Default::default()).await.unwrap().roles,
            grants: admin.list_grants(Default::default()).await.unwrap().grants,
            users,
            service_accounts: admin
                .list_service_accounts(Default::default())
                .await
                .unwrap()
                .service_accounts,
            sessions,
            organization: admin.get_organization(Default::default()).await.unwrap().organization,
        }
    }

    async fn then(client: &Client, at: Timestamp, page_size: u32) -> Self {
        let table =
            async |table| whole(client, proto::StateAtRequest { page_size, ..of(table, at) }).await;
        Self {
            keys: table(PastTable::Keys).await.keys.into_iter().map(unused).collect(),
            roles: table(PastTable::Roles).await.roles,
            grants: table(PastTable::Grants).await.grants,
            users: table(PastTable::Users).await.users,
            service_accounts: table(PastTable::ServiceAccounts).await.service_accounts,
            sessions: table(PastTable::Sessions).await.sessions,
            organization: table(PastTable::Organization).await.organization,
        }
    }
}

/// A credential that is watched: what is asked of it, and its identifier.
#[derive(Clone)]
struct Watched {
    what: &'static str,
    question: proto::VerifyRequest,
    id: String,
}

/// What was answered about it, and when.
struct Answered {
    after: &'static str,
    at: Timestamp,
    watched: Watched,
    answer: proto::VerifyResponse,
}

/// An organization that is changed step by step.
pub(crate) struct Story {
    pub(crate) acme: Acme,
    watched: Vec<Watched>,
    answered: Vec<Answered>,
    lists: Vec<(Timestamp, Lists)>,
    /// Who held `dns:read`.
    pub(crate) holders: Vec<(Timestamp, BTreeSet<String>)>,
}

/// An answer, but for what another look at the same thing would say otherwise: which events were
/// seen that are no part of it.
fn comparable(answer: &proto::VerifyResponse) -> proto::VerifyResponse {
    proto::VerifyResponse { correlation_id: String::new(), revisions: Vec::new(), ..answer.clone() }
}

fn explained(watched: &Watched, at: Timestamp) -> proto::ExplainDecisionRequest {
    let question = &watched.question;
    proto::ExplainDecisionRequest {
        credential_id: watched.id.clone(),
        moment: Some(explain_decision_request::Moment::At(at)),
        permissions: question.permissions.clone(),
        service: question.service.clone(),
        domain: question.domain.clone(),
        environment: question.environment,
        client_ip: question.client_ip.clone(),
        ..Default::default()
    }
}

impl Story {
    async fn new() -> Self {
        Self {
            acme: Acme::new().await,
            watched: Vec::new(),
            answered: Vec::new(),
            lists: Vec::new(),
            holders: Vec::new(),
        }
    }

    fn watch(&mut self, what: &'static str, id: &str, question: proto::VerifyRequest) {
        self.watched.push(Watched { what, question, id: id.to_owned() });
    }

    /// Makes a key, and watches whether it may do this.
    async fn key(
        &mut self,
        what: &'static str,
        request: proto::CreateKeyRequest,
    ) -> (String, String) {
        let made = self.acme.admin.create_key(request).await.unwrap();
        let id = made.key.unwrap().id;
        self.watch(what, &id, about(&made.secret, &["dns:read"]));
        (id, made.secret)
    }

    /// Notes what is answered and listed now that this was done.
    async fn note(&mut self, after: &'static str) {
        let at = instant().await;
        for watched in &self.watched {
            let answer = self.acme.operator.verify(watched.question.clone()).await.unwrap();
            let (watched, answer) = (watched.clone(), comparable(&answer));
            self.answered.push(Answered { after, at, watched, answer });
        }
        let listed = Lists::now(&self.acme).await;
        let is = Lists::then(&self.acme.admin, at, 1_000).await;
        assert_eq!(is, listed, "after {after}");
        self.lists.push((at, listed));
        let permission = "dns:read".to_owned();
        let request = proto::WhoHoldsRequest { permission, ..Default::default() };
        let holders = self.acme.admin.who_holds(request).await.unwrap().holders;
        let id = |it: proto::Holder| match it.holder.unwrap() {
            proto::holder::Holder::ServiceAccountId(id)
            | proto::holder::Holder::UserId(id)
            | proto::holder::Holder::KeyId(id) => id,
        };
        self.holders.push((at, holders.into_iter().map(id).collect()));
        // What comes next comes later than all this.
        instant().await;
    }

    async fn explain(&self, watched: &Watched, at: Timestamp) -> proto::ExplainDecisionResponse {
        self.acme.admin.explain_decision(explained(watched, at)).await.unwrap()
    }

    /// All is as it was.
    async fn assert_was(&self) {
        for Answered { after, at, watched, answer } in &self.answered {
            let what = watched.what;
            let is = self.explain(watched, *at).await;
            assert!(is.rate_limits_left_out && is.links_complete, "{what} after {after}");
            assert_eq!(comparable(is.decision.as_ref().unwrap()), *answer, "{what} after {after}");
            let deciding = is.links.iter().filter(|it| it.decides).count();
            assert_eq!(deciding, 1, "{what} after {after}: {is:?}");
            let ats = is.links.iter().map(|it| it.event.as_ref().unwrap().at.unwrap());
            let ats: Vec<_> = ats.map(|it| (it.seconds, it.nanos)).collect();
            assert!(ats.is_sorted_by(|a, b| a >= b), "the newest first");
            assert!(ats.iter().all(|it| *it <= (at.seconds, at.nanos)), "none of them later");
        }
        for (at, listed) in &self.lists {
            assert_eq!(Lists::then(&self.acme.admin, *at, 2).await, *listed);
        }
    }

    /// The action of the event that decided about what is watched, after this was done.
    async fn decided(&self, what: &str, after: &str) -> (DecisionCode, String) {
        let found = self.answered.iter().find(|it| it.watched.what == what && it.after == after);
        let found = found.unwrap_or_else(|| panic!("{what} after {after}"));
        let is = self.explain(&found.watched, found.at).await;
        let link = is.links.iter().find(|it| it.decides).unwrap();
        (found.answer.code(), link.event.as_ref().unwrap().action.clone())
    }
}

fn role(name: &str, permissions: &[&str]) -> proto::CreateRoleRequest {
    proto::CreateRoleRequest {
        name: name.into(),
        description: "for a test".into(),
        permissions: texts(permissions),
        ..Default::default()
    }
}

/// A member of the organization with this role; gives their identifier and e-mail.
async fn member(acme: &Acme, name: &str, role: &str) -> (String, String) {
    let email = format!("{name}@example.com");
    let grant = proto::InitialGrant { role_id: role.into(), ..Default::default() };
    let request = proto::InviteUserRequest {
        email: email.clone(),
        name: name.into(),
        grants: vec![grant],
        ..Default::default()
    };
    let invited = acme.admin.invite_user(request).await.unwrap();
    let accept = proto::AcceptInvitationRequest {
        token: invited.invitation_token,
        password: PASSWORD.into(),
        ..Default::default()
    };
    acme.nobody().accept_invitation(accept).await.unwrap();
    (invited.user.unwrap().id, email)
}

async fn login(acme: &Acme, email: &str) -> (String, String) {
    let request = proto::LoginRequest {
        email: email.into(),
        password: PASSWORD.into(),
        ..Default::default()
    };
    let answer = acme.nobody().login(request).await.unwrap();
    (answer.session.unwrap().id, answer.tokens.unwrap().access_token)
}

/// Every kind of change, one after the other, each followed by a look at everything.
pub(crate) async fn told() -> Story {
    let mut story = Story::new().await;
    let (plain, _) = story.key("plain", scoped("", "plain", &["dns:read"])).await;
    let from = proto::CreateKeyRequest {
        allowed_ips: texts(&["192.0.2.0/24"]),
        ..scoped("", "from", &["dns:read"])
    };
    let (from, secret) = story.key("from nowhere", from).await;
    let client_ip = "192.0.2.7".to_owned();
    let there = proto::VerifyRequest { client_ip, ..about(&secret, &["dns:read"]) };
    story.watch("from there", &from, there);
    let limited = proto::CreateKeyRequest {
        services: Some(proto::ServiceAccess { services: texts(&["dns"]) }),
        ..scoped("", "limited", &["dns:read"])
    };
    story.key("for another service", limited).await;
    let test = proto::CreateKeyRequest {
        environment: proto::Environment::Test.into(),
        ..scoped("", "test", &["dns:read"])
    };
    let (test, secret) = story.key("test", test).await;
    let environment = proto::Environment::Live.into();
    let on_live = proto::VerifyRequest { environment, ..about(&secret, &["dns:read"]) };
    story.watch("test on live", &test, on_live);
    story.key("narrow", scoped("", "narrow", &["dns:write"])).await;
    story.note("keys were made").await;

    let admin = story.acme.admin.clone();
    let reader = admin.create_role(role("reader", &["dns:read"])).await.unwrap().role.unwrap().id;
    story.key("by role", with_roles("", "by role", &[&reader])).await;
    let account =
        proto::CreateServiceAccountRequest { name: "deployer".into(), ..Default::default() };
    let account = admin.create_service_account(account).await.unwrap();
    let account = account.service_account.unwrap().id;
    let owned = proto::CreateKeyRequest {
        service_account_id: account.clone(),
        name: "deploys".into(),
        ..Default::default()
    };
    let (deploys, secret) = story.key("deploys", owned).await;
    let in_domain =
        proto::VerifyRequest { domain: "a.example".into(), ..about(&secret, &["dns:read"]) };
    story.watch("deploys in a domain", &deploys, in_domain);
    story.note("a role was made").await;

    let grant = |domain: &str| proto::GrantRoleRequest {
        role_id: reader.clone(),
        domain: domain.into(),
        principal: Some(Grantee::ServiceAccountId(account.clone())),
        ..Default::default()
    };
    let here = admin.grant_role(grant("a.example")).await.unwrap().grant.unwrap().id;
    story.note("the role was granted for a domain").await;
    let everywhere = admin.grant_role(grant("")).await.unwrap().grant.unwrap().id;
    story.note("the role was granted").await;
    let update = proto::UpdateRoleRequest {
        role_id: reader.clone(),
        permissions: Some(proto::RolePermissions { permissions: texts(&["dns:write"]) }),
        ..Default::default()
    };
    admin.update_role(update).await.unwrap();
    story.note("the role was changed").await;
    let update = proto::UpdateRoleRequest {
        role_id: reader.clone(),
        permissions: Some(proto::RolePermissions { permissions: texts(&["dns:*"]) }),
        ..Default::default()
    };
    admin.update_role(update).await.unwrap();
    story.note("the role was changed again").await;
    for grant_id in [everywhere, here] {
        let request = proto::RevokeGrantRequest { grant_id, ..Default::default() };
        admin.revoke_grant(request).await.unwrap();
    }
    story.note("the grants were taken back").await;
    let retire = proto::RetireRoleRequest { role_id: reader.clone(), ..Default::default() };
    admin.retire_role(retire).await.unwrap();
    story.note("the role was retired").await;

    let disable = proto::DisableKeyRequest { key_id: plain.clone(), ..Default::default() };
    admin.disable_key(disable).await.unwrap();
    story.note("the key was disabled").await;
    let enable = proto::EnableKeyRequest { key_id: plain.clone(), ..Default::default() };
    admin.enable_key(enable).await.unwrap();
    story.note("the key was enabled").await;
    let grace = Some(Duration { seconds: 3_600, nanos: 0 });
    let rotate = proto::RotateKeyRequest { key_id: plain.clone(), grace, ..Default::default() };
    let rotated = admin.rotate_key(rotate).await.unwrap();
    let successor = rotated.key.unwrap().id;
    story.watch("successor", &successor, about(&rotated.secret, &["dns:read"]));
    story.note("the key was rotated").await;
    let end = proto::EndRotationRequest { key_id: plain.clone(), ..Default::default() };
    admin.end_rotation(end).await.unwrap();
    story.note("the rotation ended").await;
    story.acme.admin.revoke("", &successor).await.unwrap();
    story.note("the successor was revoked").await;
    let policy = proto::Policy {
        key_lifetime_max: Some(Duration { seconds: 86_400, nanos: 0 }),
        ..Default::default()
    };
    let update = proto::UpdatePolicyRequest { policy: Some(policy), ..Default::default() };
    admin.update_policy(update).await.unwrap();
    story.note("the policy was changed").await;

    let (user, email) = member(&story.acme, "ada", DNS_MANAGER).await;
    let owned = proto::CreateKeyRequest {
        user_id: user.clone(),
        name: "ada's".into(),
        scopes: Some(proto::Scopes { permissions: texts(&["dns:read"]) }),
        expiry: Some(proto::create_key_request::Expiry::Lifetime(Duration {
            seconds: 3_600,
            nanos: 0,
        })),
        ..Default::default()
    };
    story.key("ada's", owned).await;
    let (session, token) = login(&story.acme, &email).await;
    story.watch("session", &session, about(&token, &["dns:read"]));
    let (other, other_token) = login(&story.acme, &email).await;
    story.watch("other session", &other, about(&other_token, &["dns:read"]));
    story.note("a user joined").await;
    let suspend = proto::SuspendUserRequest { user_id: user.clone(), ..Default::default() };
    admin.suspend_user(suspend).await.unwrap();
    story.note("the user was suspended").await;
    let restore = proto::RestoreUserRequest { user_id: user.clone(), ..Default::default() };
    admin.restore_user(restore).await.unwrap();
    story.note("the user was restored").await;
    let others =
        proto::RevokeSessionsRequest { which: Some(Which::Others(true)), ..Default::default() };
    story.acme.nobody().with_key(&token).revoke_sessions(others).await.unwrap();
    story.note("the other sessions were ended").await;
    story.acme.nobody().with_key(&token).logout(proto::LogoutRequest {}).await.unwrap();
    story.note("the user logged out").await;
    let remove = proto::RemoveUserRequest { user_id: user.clone(), ..Default::default() };
    admin.remove_user(remove).await.unwrap();
    story.note("the user was removed").await;
    story
}

#[tokio::test]
async fn what_was_answered_and_listed_is_explained_and_shown_later() {
    let story = told().await;
    story.assert_was().await;
    use DecisionCode::{
        Allowed, Disabled, DomainNotAllowed, IpNotAllowed, PermissionDenied, Revoked,
        ServiceNotAllowed, Suspended, WrongEnvironment,
    };
    for (what, after, code, action) in [
        ("plain", "keys were made", Allowed, "key.created"),
        ("from nowhere", "keys were made", IpNotAllowed, "key.created"),
        ("from there", "keys were made", Allowed, "key.created"),
        ("for another service", "keys were made", ServiceNotAllowed, "key.created"),
        ("test on live", "keys were made", WrongEnvironment, "key.created"),
        ("narrow", "keys were made", PermissionDenied, "key.created"),
        ("by role", "a role was made", Allowed, "key.created"),
        ("by role", "the role was changed", PermissionDenied, "role.updated"),
        ("by role", "the role was changed again", Allowed, "role.updated"),
        ("by role", "the role was retired", PermissionDenied, "role.retired"),
        ("deploys", "a role was made", PermissionDenied, "key.created"),
        ("deploys", "the role was granted for a domain", DomainNotAllowed, "role.granted"),
        ("deploys in a domain", "the role was granted for a domain", Allowed, "role.granted"),
        ("deploys", "the role was granted", Allowed, "role.granted"),
        ("deploys", "the grants were taken back", PermissionDenied, "role.grant_revoked"),
        ("plain", "the key was disabled", Disabled, "key.disabled"),
        ("plain", "the key was enabled", Allowed, "key.enabled"),
        ("plain", "the rotation ended", Revoked, "key.rotation_ended"),
        ("successor", "the successor was revoked", Revoked, "key.revoked"),
        ("ada's", "a user joined", Allowed, "key.created"),
        ("ada's", "the user was suspended", Suspended, "user.suspended"),
        ("session", "the user was suspended", Suspended, "user.suspended"),
        ("ada's", "the user was restored", Allowed, "user.restored"),
        ("other session", "the other sessions were ended", Revoked, "account.sessions_ended"),
        ("session", "the other sessions were ended", Allowed, "user.restored"),
        ("session", "the user logged out", Revoked, "session.ended"),
        ("ada's", "the user was removed", Revoked, "key.revoked"),
    ] {
        let decided = story.decided(what, after).await;
        assert_eq!(decided, (code, action.to_owned()), "{what} after {after}");
    }
    // A restart changes nothing of the past.
    let acme = story.acme.restarted().await;
    let story = Story { acme, ..story };
    story.assert_was().await;
}

#[tokio::test]
async fn a_key_that_expires_is_explained_on_both_sides_of_its_end() {
    let mut story = Story::new().await;
    let lifetime = Duration { seconds: 1, nanos: 0 };
    let request = proto::CreateKeyRequest {
        expiry: Some(proto::create_key_request::Expiry::Lifetime(lifetime)),
        ..scoped("", "short", &["dns:read"])
    };
    story.key("short", request).await;
    let watched = story.watched[0].clone();
    story.acme.wait_for(&watched.question.credential, DecisionCode::Expired).await;
    story.note("it was over").await;
    story.assert_was().await;
    let expired = story.explain(&watched, story.answered[0].at).await;
    assert_eq!(expired.decision.as_ref().unwrap().code(), DecisionCode::Expired);
    assert_eq!(expired.reason, "its time was over");
    let ends = expired.decision.unwrap().expires_at.unwrap();
    let ends = ends.seconds * 1_000 + i64::from(ends.nanos) / 1_000_000;
    for (at, code) in [(ends - 1, DecisionCode::Allowed), (ends, DecisionCode::Expired)] {
        let is = story.explain(&watched, millis(at)).await;
        assert_eq!(is.decision.unwrap().code(), code);
        let shown = story.acme.admin.state_at(of(PastTable::Keys, millis(at))).await.unwrap();
        let state = shown.keys.iter().find(|it| it.id == watched.id).unwrap().state();
        assert_eq!(state == proto::KeyState::Expired, code == DecisionCode::Expired);
    }
}

#[tokio::test]
async fn a_gate_is_explained_by_the_rule_that_asked_for_it() {
    let mut story = Story::new().await;
    story.key("gated", scoped("", "gated", &["dns:read"])).await;
    story.note("it was made").await;
    let rule = |asks: &str| format!("[[permission_rules]]\npermission = \"dns:*\"\n{asks}\n");
    let zones = rule("feature = \"zones\"");
    for (after, settings) in [
        ("a second factor was asked for", rule("mfa = true")),
        ("a licence was asked for", zones.clone()),
        ("it was licensed", zones.clone() + "[plans.paid]\nfeatures = [\"zones\"]\n"),
        ("the licence was taken away", zones),
        ("nothing was asked for", String::new()),
    ] {
        let write = |home: &Home| {
            std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
        };
        story.acme = story.acme.restarted_after(write).await;
        story.note(after).await;
    }
    story.assert_was().await;
    use DecisionCode::{Allowed, FeatureNotLicensed, MfaRequired};
    for (after, code, action) in [
        ("it was made", Allowed, "key.created"),
        ("a second factor was asked for", MfaRequired, "permission_rule.defined"),
        ("a licence was asked for", FeatureNotLicensed, "permission_rule.defined"),
        ("it was licensed", Allowed, "key.created"),
        ("the licence was taken away", FeatureNotLicensed, "plan.defined"),
        ("nothing was asked for", Allowed, "key.created"),
    ] {
        let decided = story.decided("gated", after).await;
        assert_eq!(decided, (code, action.to_owned()), "after {after}");
    }
}

#[tokio::test]
async fn a_credential_that_was_not_there_is_unknown_and_it_is_said_why() {
    let acme = Acme::new().await;
    let before = instant().await;
    let (late, _) = acme.key("late", &["dns:read"]).await;
    let now = instant().await;
    let stranger = acme.another("cdn").await;
    let ask = |id: &str, at| proto::ExplainDecisionRequest {
        credential_id: id.into(),
        moment: Some(explain_decision_request::Moment::At(at)),
        ..Default::default()
    };
    let unknown = async |client: &Client, id: &str, at| {
        let is = client.explain_decision(ask(id, at)).await.unwrap();
        let decision = is.decision.unwrap();
        assert_eq!(decision.code(), DecisionCode::Unknown);
        assert!(!decision.allowed && decision.credential_id.is_empty() && is.links.is_empty());
        is.reason
    };
    let created = acme.get(&late).await.created_at.unwrap();
    let reason = unknown(&acme.admin, &late, before).await;
    assert!(reason.contains("did not exist yet") && reason.contains(&late), "{reason}");
    assert!(created.seconds > 0);
    // Another organization's is like one that there never was.
    let later = instant().await;
    let never = unknown(&stranger, "key_00000000000000000000000009", later).await;
    let foreign = unknown(&stranger, &late, later).await;
    let at = |text: &str| {
        text.split(" at ").next().unwrap().replace(&late, "key_00000000000000000000000009")
    };
    assert_eq!(at(&foreign), at(&never));
    let long_ago = unknown(&acme.admin, &late, Timestamp { seconds: 86_400, nanos: 0 }).await;
    assert!(long_ago.contains("nothing of organization"), "{long_ago}");
    let session = unknown(&acme.admin, "ses_00000000000000000000000009", now).await;
    assert!(session.contains("until a day after their end"), "{session}");
    for wrong in ["", "rol_00000000000000000000000009", "vtx_live_secret"] {
        let answer = acme.admin.explain_decision(ask(wrong, now)).await;
        let status =
            refused(answer, Code::InvalidArgument, "`credential_id`: must be the identifier");
        assert!(!status.message().contains("vtx_live_secret"));
    }
    let moment = proto::ExplainDecisionRequest { moment: None, ..ask(&late, now) };
    refused(
        acme.admin.explain_decision(moment).await,
        Code::InvalidArgument,
        "`moment`: must be given",
    );
    let wrong = proto::ExplainDecisionRequest { permissions: texts(&["dns"]), ..ask(&late, now) };
    refused(acme.admin.explain_decision(wrong).await, Code::InvalidArgument, "`permissions[0]`");
    let wrong = proto::ExplainDecisionRequest { client_ip: "x".into(), ..ask(&late, now) };
    refused(acme.admin.explain_decision(wrong).await, Code::InvalidArgument, "`client_ip`");
}

#[tokio::test]
async fn moments_that_are_none_are_refused_by_name() {
    let acme = Acme::new().await;
    let now = instant().await;
    let keys = |moment| proto::StateAtRequest { moment, ..of(PastTable::Keys, now) };
    let last = acme.revision().await;
    for (moment, says) in [
        (None, "`moment`: must be given"),
        (
            Some(Moment::At(Timestamp { seconds: now.seconds + 3_600, nanos: 0 })),
            "`at`: must not be ahead: it is 20",
        ),
        (
            Some(Moment::At(Timestamp { seconds: 0, nanos: 0 })),
            "`at`: is before the first event of `org_",
        ),
        (
            Some(Moment::At(Timestamp { seconds: i64::MAX, nanos: 0 })),
            "`at`: must be an instant between",
        ),
        (Some(Moment::At(Timestamp { seconds: 5, nanos: -1 })), "`at`: must be an instant between"),
        (
            Some(Moment::At(Timestamp { seconds: 5, nanos: 1_000_000_000 })),
            "`at`: must be an instant between",
        ),
        (Some(Moment::Revision(u64::MAX)), "`revision`: must be at most"),
    ] {
        let answer = acme.admin.state_at(keys(moment)).await;
        refused(answer, Code::InvalidArgument, says);
    }
    assert!(last > 0);
    let request = |change: fn(&mut proto::StateAtRequest)| {
        let mut request = of(PastTable::Keys, now);
        change(&mut request);
        request
    };
    for (request, says) in [
        (request(|it| it.table = 0), "`table`: must be given"),
        (request(|it| it.table = 99), "table"),
        (request(|it| it.page_size = 1_001), "`page_size`: must be at most 1000"),
        (request(|it| it.object_id = "rol_00000000000000000000000009".into()), "`object_id`"),
        (request(|it| it.page_token = "x".into()), "`page_token`: is not one of this list"),
        (
            request(|it| it.page_token = "1.1.1.AAAA".into()),
            "`page_token`: is not one of this list",
        ),
        (request(|it| it.page_token = "9".repeat(10_000)), "`page_token`: is not one of this list"),
    ] {
        refused(acme.admin.state_at(request).await, Code::InvalidArgument, says);
    }
    let other = proto::StateAtRequest {
        object_id: "org_00000000000000000000000009".into(),
        ..of(PastTable::Organization, now)
    };
    refused(
        acme.admin.state_at(other).await,
        Code::InvalidArgument,
        "`object_id`: must be the organization",
    );
}

#[tokio::test]
async fn a_token_goes_on_in_its_own_table_at_its_own_moment() {
    let acme = Acme::new().await;
    for number in 0..5 {
        acme.key(&format!("key {number}"), &["dns:read"]).await;
    }
    let at = instant().await;
    let request = proto::StateAtRequest { page_size: 2, ..of(PastTable::Keys, at) };
    let first = acme.admin.state_at(request.clone()).await.unwrap();
    let all = whole(&acme.admin, of(PastTable::Keys, at)).await.keys;
    assert_eq!((first.keys.len(), all.len()), (2, 6));
    let ids = |keys: &[proto::Key]| keys.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
    acme.key("later", &["dns:read"]).await;
    let page_token = first.next_page_token.clone();
    let second = proto::StateAtRequest { page_token: page_token.clone(), ..request.clone() };
    let acme = acme.restarted().await;
    let second_page = acme.admin.state_at(second.clone()).await.unwrap();
    assert_eq!(ids(&second_page.keys), ids(&all)[2..4], "after a restart, and a key was made");
    assert_eq!((second_page.at, &second_page.revisions), (first.at, &first.revisions));
    let stranger = acme.another("cdn").await;
    let parts: Vec<&str> = page_token.splitn(4, '.').collect();
    let moved = |place: usize, to: &str| {
        let mut parts = parts.clone();
        parts[place] = to;
        parts.join(".")
    };
    let with = |change: &dyn Fn(&mut proto::StateAtRequest)| {
        let mut request = second.clone();
        change(&mut request);
        request
    };
    let foreign = [
        with(&|it| it.table = PastTable::Roles.into()),
        with(&|it| it.moment = Some(Moment::Revision(3))),
        with(&|it| it.object_id = all[0].id.clone()),
        with(&|it| it.page_token = moved(0, "1")),
        with(&|it| it.page_token = moved(1, "1")),
        with(&|it| it.page_token = moved(2, "1")),
        with(&|it| it.page_token = page_token[..page_token.len() - 1].to_owned()),
    ];
    for request in foreign {
        refused(acme.admin.state_at(request).await, Code::InvalidArgument, "`page_token`");
    }
    refused(stranger.state_at(second).await, Code::InvalidArgument, "`page_token`");
}

#[tokio::test]
async fn one_object_is_shown_with_what_happened_to_it_until_then() {
    let acme = Acme::new().await;
    let (id, _) = acme.key("ci", &["dns:read"]).await;
    let made = instant().await;
    let disable = proto::DisableKeyRequest { key_id: id.clone(), ..Default::default() };
    acme.admin.disable_key(disable).await.unwrap();
    let disabled = instant().await;
    let one = |at| proto::StateAtRequest { object_id: id.clone(), ..of(PastTable::Keys, at) };
    let actions = |page: &proto::StateAtResponse| {
        page.events.iter().map(|it| it.action.clone()).collect::<Vec<_>>()
    };
    let then = acme.admin.state_at(one(made)).await.unwrap();
    assert_eq!(
        (then.keys[0].state(), actions(&then)),
        (proto::KeyState::Active, texts(&["key.created"]))
    );
    assert!(then.events[0].sentence.contains("`ci`"), "{:?}", then.events[0]);
    let now = acme.admin.state_at(one(disabled)).await.unwrap();
    assert_eq!(now.keys[0].state(), proto::KeyState::Disabled);
    assert_eq!(actions(&now), ["key.disabled", "key.created"]);
    let paged = whole(&acme.admin, proto::StateAtRequest { page_size: 1, ..one(disabled) }).await;
    assert_eq!(paged.events, now.events);
    let revision = then.events[0].revision.as_ref().unwrap().revision;
    let before =
        proto::StateAtRequest { moment: Some(Moment::Revision(revision - 1)), ..one(made) };
    let before = acme.admin.state_at(before).await.unwrap();
    assert!(before.keys.is_empty() && before.events.is_empty(), "it was not there yet");
    // Another organization sees nothing of it.
    let stranger = acme.another("cdn").await;
    let foreign = stranger.state_at(one(instant().await)).await.unwrap();
    assert!(foreign.keys.is_empty() && foreign.events.is_empty());
    let named = proto::StateAtRequest { organization_id: acme.id.clone(), ..one(made) };
    let status = stranger.state_at(named.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(acme.operator.state_at(named).await.unwrap().keys, then.keys);
    // Its own log is the operator's to ask about, by its name.
    let operators = proto::StateAtRequest {
        organization_id: "operator".into(),
        ..of(PastTable::Keys, instant().await)
    };
    assert!(!acme.operator.state_at(operators).await.unwrap().keys.is_empty());
}

#[tokio::test]
async fn when_a_key_had_last_been_used_is_shown_or_said_to_be_unknown() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["dns:read"]).await;
    let before = instant().await;
    acme.operator.ask(&secret, &[]).await;
    // Uses are known by their seconds.
    let mut after = instant().await;
    let used_at = acme.get(&id).await.last_used_at.unwrap();
    while after.seconds == used_at.seconds {
        after = instant().await;
    }
    let one = |at| proto::StateAtRequest { object_id: id.clone(), ..of(PastTable::Keys, at) };
    let then = acme.admin.state_at(one(before)).await.unwrap();
    assert!(then.keys[0].last_used_at.is_none());
    assert_eq!(then.used_since, std::slice::from_ref(&id));
    let now = acme.admin.state_at(one(after)).await.unwrap();
    assert!(now.used_since.is_empty());
    assert_eq!(now.keys[0].last_used_at, acme.get(&id).await.last_used_at);
}

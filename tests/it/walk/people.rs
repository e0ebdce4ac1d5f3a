//! People in other systems: a console that they log in to, and users whom an administrator's
//! token makes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyledger::proto::grant_role_request::Principal as Grantee;
use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::organization_service_client::OrganizationServiceClient;
use keyledger::proto::session_service_client::SessionServiceClient;
use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, InitialGrant, InviteUserRequest, LoginRequest,
    PrincipalKind, RefreshRequest, Tokens, VerifyRequest, VerifyResponse, WhoAmIRequest,
};
use tonic::{Code, Request};

use crate::roles::make_role;
use crate::sessions::{Authenticator, held_up};
use crate::support::{Acme, Client, Home, reason, rejected, scoped, texts};
use crate::web::http;

const PASSWORD: &str = "correct horse battery";

/// What a gateway asks about a request, by the headers that it came with.
async fn gateway(client: &Client, header: &str, value: &str, wanted: &[&str]) -> VerifyResponse {
    let mut question = VerifyRequest { permissions: texts(wanted), ..Default::default() };
    let values = vec![value.to_owned()];
    match header {
        "authorization" => question.authorization = values,
        "x-api-key" => question.api_key = values,
        _ => question.admin_api_key = values,
    }
    client.verify(question).await.unwrap()
}

/// Somebody with this role who joined: their identifier.
async fn member(acme: &Acme, email: &str, role: &str) -> String {
    let grants = vec![InitialGrant { role_id: role.into(), ..Default::default() }];
    let invite =
        InviteUserRequest { email: email.into(), name: "Me".into(), grants, ..Default::default() };
    let invited = acme.admin.invite_user(invite).await.unwrap();
    let accept = proto::AcceptInvitationRequest {
        token: invited.invitation_token,
        password: PASSWORD.into(),
        ..Default::default()
    };
    acme.nobody().accept_invitation(accept).await.unwrap().user_id
}

async fn login(acme: &Acme, email: &str) -> Tokens {
    let request =
        LoginRequest { email: email.into(), password: PASSWORD.into(), ..Default::default() };
    acme.nobody().login(request).await.unwrap().tokens.unwrap()
}

/// What whoever has nothing but the published keys reads in a token: its claims, checked.
fn checked_offline(acme: &Acme, token: &str) -> serde_json::Value {
    let published = http(acme.server.address, "GET /.well-known/jwks.json", &[], &[]);
    assert_eq!(published.status, 200);
    assert!(published.header("content-type").unwrap().contains("json"));
    let keys: serde_json::Value = serde_json::from_slice(&published.body).unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let json = |text: &str| -> serde_json::Value { serde_json::from_slice(&decode(text)).unwrap() };
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let header = json(header);
    assert_eq!(header["alg"], "EdDSA");
    let keys = keys["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let public = decode(key["x"].as_str().unwrap());
    let public =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
    assert!(public.verify(b"another text", &decode(signature)).is_err());
    json(claims)
}

#[tokio::test]
async fn a_console_that_people_log_in_to() {
    let acme = Acme::new().await;
    let analyst = make_role(&acme.admin, "analyst", &["scans:read"]).await;
    let user = member(&acme, "me@example.com", &analyst).await;

    // POST /auth/login, and the access token as Bearer: who am I?
    let tokens = login(&acme, "me@example.com").await;
    let me = acme.operator.with_key(&tokens.access_token);
    let who = me.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!((who.email.as_str(), &who.organization_id), ("me@example.com", &acme.id));
    assert_eq!(who.permissions, ["scans:read"]);
    assert_eq!(who.roles[0].name, "analyst");
    // The token says whose it is, and which organization's, to whoever has the keys.
    let claims = checked_offline(&acme, &tokens.access_token);
    assert_eq!(
        (claims["sub"].as_str(), claims["tenant_id"].as_str()),
        (Some(&*user), Some(&*acme.id))
    );
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3_600);
    // The gateway asks with the header as it arrived.
    let bearer = format!("Bearer {}", tokens.access_token);
    let answer = gateway(&acme.operator, "authorization", &bearer, &["scans:read"]).await;
    assert!(answer.allowed, "{answer:?}");
    assert_eq!(answer.organization_id, acme.id);
    let other = VerifyRequest {
        authorization: vec![bearer.clone()],
        tenant_id: "org_00000000000000000000000009".into(),
        ..Default::default()
    };
    assert_eq!(acme.operator.code(other).await, DecisionCode::TenantMismatch);

    // Which organization a call is for is the session's to say; the answer repeats it.
    let called_for = async |tenant: &str| {
        let mut request = me.request(WhoAmIRequest {});
        request.metadata_mut().insert("x-tenant-id", tenant.parse().unwrap());
        SessionServiceClient::new(acme.server.channel()).who_am_i(request).await
    };
    let answer = called_for(&acme.id).await.unwrap();
    assert_eq!(answer.metadata().get("x-tenant-id").unwrap(), acme.id.as_str());
    let elsewhere = called_for("org_00000000000000000000000009").await.unwrap_err();
    assert_eq!(
        (elsewhere.code(), &*reason(&elsewhere)),
        (Code::PermissionDenied, "TENANT_MISMATCH")
    );

    // A key of one's own carries the permissions of one's roles, as they are by now.
    let mut request = me.request(CreateKeyRequest {
        user_id: user.clone(),
        name: "automation".into(),
        ..Default::default()
    });
    request.metadata_mut().insert("x-correlation-id", "quote-me-1".parse().unwrap());
    let made = KeyServiceClient::new(acme.server.channel()).create_key(request).await;
    let key = made.unwrap().into_inner().secret;
    let may = async |wanted: &str| {
        let by_key = gateway(&acme.operator, "x-api-key", &key, &[wanted]).await;
        let by_session = gateway(&acme.operator, "authorization", &bearer, &[wanted]).await;
        assert_eq!(by_key.code(), by_session.code());
        by_key.allowed
    };
    assert!(may("scans:read").await && !may("findings:write").await);
    let update = proto::UpdateRoleRequest {
        role_id: analyst.clone(),
        permissions: Some(proto::RolePermissions {
            permissions: texts(&["scans:read", "findings:write"]),
        }),
        ..Default::default()
    };
    acme.admin.update_role(update).await.unwrap();
    assert!(may("findings:write").await, "the next call feels what a role permits");
    let responder = make_role(&acme.admin, "responder", &["incidents:write"]).await;
    assert!(!may("incidents:write").await);
    let grant = proto::GrantRoleRequest {
        principal: Some(Grantee::UserId(user.clone())),
        role_id: responder,
        ..Default::default()
    };
    let grant = acme.admin.grant_role(grant).await.unwrap().grant.unwrap();
    assert!(may("incidents:write").await, "and what a user is granted");
    let revoke = proto::RevokeGrantRequest { grant_id: grant.id, ..Default::default() };
    acme.admin.revoke_grant(revoke).await.unwrap();
    assert!(!may("incidents:write").await, "and what is taken away");

    // What was done can be quoted to support.
    let quoted = proto::QueryActivityRequest {
        organization_id: acme.id.clone(),
        filter: Some(proto::ActivityFilter {
            correlation_id: "quote-me-1".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let found = acme.operator.query_activity(quoted).await.unwrap().entries;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].actor.as_ref().unwrap().user_id, user);

    // POST /auth/refresh: another pair, once. A copy that is used ends the session.
    let refresh = |token: &str| RefreshRequest { refresh_token: token.into() };
    let first = refresh(&tokens.refresh_token);
    let next = acme.nobody().refresh(first.clone()).await.unwrap().tokens.unwrap();
    assert_ne!(next.refresh_token, tokens.refresh_token);
    let next_bearer = format!("Bearer {}", next.access_token);
    let allowed = gateway(&acme.operator, "authorization", &next_bearer, &["scans:read"]).await;
    assert!(allowed.allowed);
    rejected(acme.nobody().refresh(first).await, "REFRESH_REUSED");
    for bearer in [&bearer, &next_bearer] {
        let ended = gateway(&acme.operator, "authorization", bearer, &[]).await;
        assert_eq!(ended.code(), DecisionCode::Revoked);
    }
    rejected(acme.nobody().refresh(refresh(&next.refresh_token)).await, "REFRESH_FAILED");
    // The key is no session: it goes on.
    assert!(gateway(&acme.operator, "x-api-key", &key, &["scans:read"]).await.allowed);
}

/// Some of what people do asks for a second factor that is not long ago.
#[tokio::test]
async fn a_second_factor_opens_what_asks_for_one() {
    let home = Home::new();
    let rule =
        "[[permission_rules]]\npermission = 'keys:rotate'\nmfa = true\nmfa_max_age = '15m'\n";
    std::fs::write(home.path().join("keyledger.toml"), rule).unwrap();
    let acme = Acme::on(home, |launch| launch).await;
    let role = make_role(&acme.admin, "rotator", &["keys:*"]).await;
    member(&acme, "me@example.com", &role).await;
    let tokens = login(&acme, "me@example.com").await;
    let me = acme.operator.with_key(&tokens.access_token);
    let may = async |wanted: &str| acme.operator.ask(&tokens.access_token, &[wanted]).await.code();
    assert_eq!(may("keys:read").await, DecisionCode::Allowed);
    assert_eq!(may("keys:rotate").await, DecisionCode::MfaRequired);
    let enroll = proto::EnrollTotpRequest { password: PASSWORD.into() };
    let uri = me.enroll_totp(enroll).await.unwrap().uri;
    let shows = Authenticator::of(&uri);
    me.confirm_totp(proto::ConfirmTotpRequest { code: shows.first() }).await.unwrap();
    assert_eq!(may("keys:rotate").await, DecisionCode::MfaRequired, "to enroll is not to show");
    me.step_up(proto::StepUpRequest { code: shows.second() }).await.unwrap();
    assert_eq!(may("keys:rotate").await, DecisionCode::Allowed, "with the token of before");
}

/// A session that was stolen is not enough to try codes, nor with the password beside it.
#[tokio::test]
async fn codes_cannot_be_tried_with_a_stolen_session() {
    let acme = Acme::new().await;
    let role = make_role(&acme.admin, "nothing", &["scans:read"]).await;
    member(&acme, "me@example.com", &role).await;
    let tokens = login(&acme, "me@example.com").await;
    let me = acme.operator.with_key(&tokens.access_token);
    let enroll = proto::EnrollTotpRequest { password: PASSWORD.into() };
    let uri = me.enroll_totp(enroll).await.unwrap().uri;
    let code = Authenticator::of(&uri).first();
    me.confirm_totp(proto::ConfirmTotpRequest { code }).await.unwrap();
    held_up(async |number| {
        let code = "no-such-code".to_owned();
        let status = match number % 2 {
            0 => me.step_up(proto::StepUpRequest { code }).await.unwrap_err(),
            _ => {
                let remove = proto::RemoveTotpRequest { password: PASSWORD.into(), code };
                me.remove_totp(remove).await.unwrap_err()
            }
        };
        reason(&status)
    })
    .await;
}

const TOKEN: &str = "an-admin-token-of-24-chars-or-more";

#[tokio::test]
async fn an_administrators_token_makes_users_and_mints_their_tokens() {
    let home = Home::new();
    let server = home.launch().env("ADMIN_API_TOKEN", TOKEN).start().await;
    let operator = server.client(TOKEN);
    for (prefix, plan) in [("fre", "free"), ("pay", "paid")] {
        let organization_id = operator.organization(plan, prefix, plan).await;
        // What users may do at most; a token of theirs may do less.
        let role = proto::CreateRoleRequest {
            organization_id: organization_id.clone(),
            name: "user".into(),
            description: "what users may do".into(),
            permissions: texts(&["bots:write", "transcripts:read", "recordings:read"]),
            ..Default::default()
        };
        let role_id = operator.create_role(role).await.unwrap().role.unwrap().id;
        // POST /admin/users with the administrators' header.
        let by_admin = |header: &'static str, value: &str| {
            let value = value.parse().unwrap();
            move |request: &mut tonic::metadata::MetadataMap| {
                request.insert(header, value);
            }
        };
        let mut request = Request::new(InviteUserRequest {
            organization_id: organization_id.clone(),
            email: "user@example.com".into(),
            name: "User".into(),
            limits: BTreeMap::from([("max_concurrent_bots".into(), 5)]),
            grants: vec![InitialGrant { role_id, ..Default::default() }],
            ..Default::default()
        });
        by_admin("x-admin-api-key", TOKEN)(request.metadata_mut());
        let mut organizations = OrganizationServiceClient::new(server.channel());
        let user = organizations.invite_user(request).await.unwrap().into_inner().user.unwrap();
        assert_eq!((user.email.as_str(), user.name.as_str()), ("user@example.com", "User"));

        // POST /admin/users/1/tokens: a token of the user's, with what is listed.
        let wanted = CreateKeyRequest {
            user_id: user.id.clone(),
            ..scoped(&organization_id, "token", &["bots:write", "transcripts:read"])
        };
        let mut request = Request::new(wanted);
        by_admin("x-admin-api-key", TOKEN)(request.metadata_mut());
        let made = KeyServiceClient::new(server.channel()).create_key(request).await;
        let made = made.unwrap().into_inner();
        let key = made.key.unwrap();
        let lives = key.expires_at.map(|it| it.seconds - key.created_at.unwrap().seconds);
        assert_eq!(lives, (plan == "free").then_some(3_600));

        // The gateway gets the user's number back.
        for (permission, allowed) in
            [("bots:write", true), ("transcripts:read", true), ("recordings:read", false)]
        {
            let answer = gateway(&operator, "x-api-key", &made.secret, &[permission]).await;
            assert_eq!(answer.allowed, allowed, "{permission}");
        }
        let answer = gateway(&operator, "x-api-key", &made.secret, &["bots:write"]).await;
        assert_eq!(answer.limits["max_concurrent_bots"], 5);
        let principal = answer.principal.unwrap();
        assert_eq!((principal.kind(), principal.user_id), (PrincipalKind::User, user.id.clone()));

        // Two headers, two scopes: a user's token makes no users, whichever carries it.
        for header in ["x-api-key", "x-admin-api-key"] {
            let mut request = Request::new(InviteUserRequest {
                email: "other@example.com".into(),
                name: "Other".into(),
                ..Default::default()
            });
            by_admin(header, &made.secret)(request.metadata_mut());
            let refused = organizations.invite_user(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{header}");
        }
        // More for the user, felt by the next question.
        let more = proto::UpdateUserRequest {
            organization_id: organization_id.clone(),
            user_id: user.id,
            limits: Some(proto::UserLimits {
                entries: BTreeMap::from([("max_concurrent_bots".into(), 9)]),
            }),
            ..Default::default()
        };
        operator.update_user(more).await.unwrap();
        let answer = gateway(&operator, "x-api-key", &made.secret, &["bots:write"]).await;
        assert_eq!(answer.limits["max_concurrent_bots"], 9);
    }
    server.stop().await;
}

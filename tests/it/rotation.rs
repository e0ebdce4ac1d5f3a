//! Rotation: a new key takes the place of an old one, which stays valid for a while.

use keyledger::proto::{
    DecisionCode, EndRotationRequest, EndRotationResponse, Environment, KeyOrigin, KeyState,
    Policy, RevocationReason, RotateKeyRequest, UpdatePolicyRequest, create_key_request,
    rotate_key_request,
};
use prost_types::Duration;
use tonic::Code;

use super::support::{Acme, Client, Home, Verifiers, refused, rejected, scoped, unused};

fn rotate(key_id: &str, grace: Option<i64>) -> RotateKeyRequest {
    let grace = grace.map(|seconds| Duration { seconds, nanos: 0 });
    RotateKeyRequest { key_id: key_id.into(), grace, ..Default::default() }
}

fn end(key_id: &str) -> EndRotationRequest {
    EndRotationRequest { key_id: key_id.into(), ..Default::default() }
}

#[tokio::test]
async fn both_keys_are_valid_until_the_grace_is_over() {
    let acme = Acme::new().await;
    let request = keyledger::proto::CreateKeyRequest {
        description: "deploys".into(),
        metadata: [("team".to_owned(), "infra".to_owned())].into(),
        limits: [("rps".to_owned(), 50)].into(),
        allowed_ips: vec!["192.0.2.0/24".into()],
        rate_limit: Some(keyledger::proto::RateLimit { requests: 5, per_seconds: 1 }),
        services: Some(keyledger::proto::ServiceAccess { services: vec!["cdn".into()] }),
        environment: Environment::Test.into(),
        ..scoped("", "like", &["a:b"])
    };
    let like = acme.admin.create_key(request).await.unwrap().key.unwrap();
    let new = acme.admin.rotate_key(rotate(&like.id, Some(0))).await.unwrap();
    let (new_key, secret) = (new.key.unwrap(), new.secret);
    assert!(secret.starts_with("vtx_test_"), "{secret}");
    // Like the old one, but for what makes it another.
    let mut same = new_key.clone();
    same.id.clone_from(&like.id);
    (same.created_at, same.predecessor_id) = (like.created_at, String::new());
    same.masked.clone_from(&like.masked);
    assert_eq!(same, like);

    let (id, old) = acme.key("ci", &["a:b"]).await;
    let rotated = acme.admin.rotate_key(rotate(&id, Some(2))).await.unwrap();
    let (successor, new) = (rotated.key.unwrap(), rotated.secret);
    assert!(!rotated.secret_already_issued && new != old);
    assert_eq!((successor.predecessor_id.as_str(), successor.name.as_str()), (&*id, "ci"));
    assert_eq!(successor.origin(), KeyOrigin::Minted);
    let predecessor = rotated.predecessor.unwrap();
    let rotation = predecessor.rotation.clone().unwrap();
    assert_eq!((predecessor.state(), rotation.successor_id), (KeyState::Active, successor.id));
    let (ends, began) = (rotation.ends_at.unwrap(), rotation.act.unwrap().at.unwrap());
    assert_eq!((ends.seconds - began.seconds, ends.nanos), (2, began.nanos));
    assert_eq!(acme.code(&old).await, DecisionCode::Allowed);
    assert_eq!(acme.code(&new).await, DecisionCode::Allowed);
    // The name is theirs together.
    rejected(acme.admin.create_key(scoped("", "ci", &["a:b"])).await, "KEY_NAME_TAKEN");
    acme.wait_for(&old, DecisionCode::Revoked).await;
    assert_eq!(acme.code(&new).await, DecisionCode::Allowed);
    let key = acme.get(&id).await;
    assert_eq!((key.state(), key.revocation.as_ref().unwrap().at), (KeyState::Revoked, Some(ends)));
    assert_eq!(key.revocation.unwrap().reason(), RevocationReason::Superseded);
    rejected(acme.admin.create_key(scoped("", "ci", &["a:b"])).await, "KEY_NAME_TAKEN");
    // All of it is so after a kill.
    let (home, secrets) = (acme.home, [old, new, secret]);
    acme.server.kill();
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.ask(&secrets[0], &[]).await.code(), DecisionCode::Revoked);
    assert_eq!(operator.ask(&secrets[1], &[]).await.code(), DecisionCode::Allowed);
    server.stop().await;
}

#[tokio::test]
async fn an_end_is_true_at_once_for_everybody_who_asks() {
    let acme = Acme::new().await;
    // Without grace.
    let (id, old) = acme.key("at once", &["a:b"]).await;
    let verifiers = Verifiers::of(&acme, &old, DecisionCode::Revoked).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    acme.admin.rotate_key(rotate(&id, Some(0))).await.unwrap();
    verifiers.over().await;
    rejected(acme.admin.end_rotation(end(&id)).await, "KEY_ALREADY_REVOKED");
    // Ended before its time.
    let (id, old) = acme.key("ended", &["a:b"]).await;
    rejected(acme.admin.end_rotation(end(&id)).await, "KEY_NOT_ROTATED");
    let new = acme.admin.rotate_key(rotate(&id, None)).await.unwrap();
    let verifiers = Verifiers::of(&acme, &old, DecisionCode::Revoked).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let request = EndRotationRequest { idempotency_key: "end".into(), ..end(&id) };
    let ended = acme.admin.end_rotation(request.clone()).await.unwrap();
    verifiers.over().await;
    assert_eq!(ended.key.as_ref().unwrap().state(), KeyState::Revoked);
    let told = |it: EndRotationResponse| (it.key.map(unused), it.revision);
    let ended = told(ended);
    assert_eq!(told(acme.admin.end_rotation(request.clone()).await.unwrap()), ended);
    rejected(acme.admin.end_rotation(end(&id)).await, "KEY_ALREADY_REVOKED");
    rejected(acme.admin.end_rotation(end(&new.key.unwrap().id)).await, "KEY_NOT_ROTATED");
    rejected(acme.admin.end_rotation(end("key_00000000000000000000000009")).await, "KEY_NOT_FOUND");
    let wrong = EndRotationRequest { expected_revision: Some(1), ..end(&id) };
    rejected(acme.admin.end_rotation(wrong).await, "WRONG_EXPECTED_REVISION");
    acme.server.kill();
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    assert_eq!(told(admin.end_rotation(request).await.unwrap()), ended);
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&old, &[]).await.code(), DecisionCode::Revoked);
    assert_eq!(operator.ask(&new.secret, &[]).await.code(), DecisionCode::Allowed);
    server.stop().await;
}

#[tokio::test]
async fn a_repeat_gives_the_same_key_without_its_secret() {
    let acme = Acme::new().await;
    let (id, _) = acme.key("ci", &["a:b"]).await;
    let request = RotateKeyRequest { idempotency_key: "r".into(), ..rotate(&id, Some(3_600)) };
    let first = acme.admin.rotate_key(request.clone()).await.unwrap();
    let again = acme.admin.rotate_key(request.clone()).await.unwrap();
    assert!(again.secret_already_issued && again.secret.is_empty());
    assert_eq!((&again.key, &again.predecessor), (&first.key, &first.predecessor));
    assert_eq!(again.revision, first.revision);
    let other = RotateKeyRequest { grace: None, ..request.clone() };
    rejected(acme.admin.rotate_key(other).await, "IDEMPOTENCY_KEY_REUSED");
    acme.server.kill();
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    let again = admin.rotate_key(request).await.unwrap();
    assert!(again.secret_already_issued && again.secret.is_empty());
    assert_eq!(again.key, first.key);
    // Whoever lost the secret rotates the new key, without grace.
    let new = first.key.unwrap().id;
    let third = admin.rotate_key(rotate(&new, Some(0))).await.unwrap();
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&first.secret, &[]).await.code(), DecisionCode::Revoked);
    assert_eq!(operator.ask(&third.secret, &[]).await.code(), DecisionCode::Allowed);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_by_its_reason() {
    let acme = Acme::new().await;
    let check = async |client: &Client, request: RotateKeyRequest, expected: &str| {
        let before = acme.writes();
        rejected(client.rotate_key(request).await, expected);
        assert_eq!(acme.writes(), before, "{expected}");
    };
    let admin = &acme.admin;
    check(admin, rotate("key_00000000000000000000000009", None), "KEY_NOT_FOUND").await;
    let (revoked, _) = acme.key("revoked", &["a:b"]).await;
    admin.revoke("", &revoked).await.unwrap();
    check(admin, rotate(&revoked, None), "KEY_ALREADY_REVOKED").await;
    let (disabled, _) = acme.key("disabled", &["a:b"]).await;
    let request =
        keyledger::proto::DisableKeyRequest { key_id: disabled.clone(), ..Default::default() };
    admin.disable_key(request).await.unwrap();
    check(admin, rotate(&disabled, None), "KEY_DISABLED").await;
    let brief = keyledger::proto::CreateKeyRequest {
        expiry: Some(create_key_request::Expiry::Lifetime(Duration {
            seconds: 0,
            nanos: 1_000_000,
        })),
        ..scoped("", "brief", &["a:b"])
    };
    let brief = admin.create_key(brief).await.unwrap();
    acme.wait_for(&brief.secret, DecisionCode::Expired).await;
    check(admin, rotate(&brief.key.unwrap().id, None), "KEY_EXPIRED").await;
    let (twice, _) = acme.key("twice", &["a:b"]).await;
    let successor = admin.rotate_key(rotate(&twice, None)).await.unwrap().key.unwrap().id;
    let status = rejected(admin.rotate_key(rotate(&twice, None)).await, "KEY_ALREADY_ROTATED");
    assert!(status.message().contains(&successor), "the remedy names the successor");
    // Whoever rotates could have made the key.
    let (wide, _) = acme.key("wide", &["a:b", "c:d"]).await;
    let (_, limited) = acme.key("limited", &["api-keys:write", "a:b"]).await;
    let limited = admin.with_key(&limited);
    check(&limited, rotate(&wide, None), "PERMISSION_NOT_HELD").await;
    // Its numbers have limits.
    let month = 30 * 86_400;
    check(admin, rotate(&wide, Some(month + 1)), "GRACE_ABOVE_MAX").await;
    refused(admin.rotate_key(rotate(&wide, Some(-1))).await, Code::InvalidArgument, "`grace`");
    let at = |seconds| {
        Some(rotate_key_request::Expiry::ExpiresAt(prost_types::Timestamp { seconds, nanos: 0 }))
    };
    let past = RotateKeyRequest { expiry: at(1_700_000_000), ..rotate(&wide, None) };
    check(admin, past, "EXPIRY_NOT_IN_FUTURE").await;
    let wrong = RotateKeyRequest { expected_revision: Some(0), ..rotate(&wide, None) };
    check(admin, wrong, "WRONG_EXPECTED_REVISION").await;
    // Policy bounds both.
    let policy = Policy {
        key_lifetime_max: Some(Duration { seconds: 3_600, nanos: 0 }),
        rotation_grace_max: Some(Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let request = UpdatePolicyRequest { policy: Some(policy), ..Default::default() };
    admin.update_policy(request).await.unwrap();
    check(admin, rotate(&wide, Some(61)), "GRACE_ABOVE_MAX").await;
    let lifetime = rotate_key_request::Expiry::Lifetime(Duration { seconds: 3_601, nanos: 0 });
    let long = RotateKeyRequest { expiry: Some(lifetime), ..rotate(&wide, None) };
    check(admin, long, "LIFETIME_ABOVE_POLICY").await;
    // Unasked, it keeps to them.
    let kept = admin.rotate_key(rotate(&wide, None)).await.unwrap();
    let seconds = |from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>| {
        to.unwrap().seconds - from.unwrap().seconds
    };
    let (new, old) = (kept.key.unwrap(), kept.predecessor.unwrap().rotation.unwrap());
    assert_eq!(seconds(new.created_at, new.expires_at), 3_600);
    assert_eq!(seconds(old.act.unwrap().at, old.ends_at), 60);
    // A key of the configuration changes with the configuration.
    let home = Home::new();
    let token = "an-admin-token-of-24-chars-or-more";
    let server = home.launch().env("ADMIN_API_TOKEN", token).start().await;
    let operator = server.client(token);
    let request = keyledger::proto::ListKeysRequest {
        organization_id: "operator".into(),
        ..Default::default()
    };
    let configured = operator.list_keys(request).await.unwrap().keys[0].id.clone();
    let request =
        RotateKeyRequest { organization_id: "operator".into(), ..rotate(&configured, None) };
    rejected(operator.rotate_key(request).await, "KEY_CONFIGURED");
}

#[tokio::test]
async fn of_many_who_rotate_one_does() {
    let acme = Acme::new().await;
    let (id, _) = acme.key("raced", &["a:b"]).await;
    let racers: Vec<_> = (0..10)
        .map(|_| {
            let (admin, request) = (acme.admin.clone(), rotate(&id, None));
            tokio::spawn(async move { admin.rotate_key(request).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            refusal => drop(rejected(refusal, "KEY_ALREADY_ROTATED")),
        }
    }
    assert_eq!(won, 1);
    // A key can rotate itself: with what it holds it could have made its successor.
    let (own, secret) = acme.key("self", &["api-keys:write"]).await;
    let client = acme.admin.with_key(&secret);
    let new = client.rotate_key(rotate(&own, Some(0))).await.unwrap();
    rejected(client.rotate_key(rotate(&own, None)).await, "REVOKED");
    let again = rotate(&new.key.unwrap().id, None);
    acme.admin.with_key(&new.secret).rotate_key(again).await.unwrap();
}

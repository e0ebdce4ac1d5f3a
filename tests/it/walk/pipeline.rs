//! A pipeline's key with scopes, live and test: made, used, rotated and revoked.

use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, EndRotationRequest, Environment, KeyState,
    ListKeysRequest, RevocationReason, RevokeKeyRequest, RotateKeyRequest, VerifyRequest,
    create_key_request,
};
use tonic::Code;

use super::{checksum_is_right, get};
use crate::support::{Acme, reason, refused, scoped, texts};

#[tokio::test]
async fn a_pipelines_key_from_its_making_to_its_revocation() {
    let acme = Acme::new().await;
    assert!(acme.admin_secret.starts_with("vtx_live_"));

    // Made by the organization's own administrator, not by the operator.
    let request = CreateKeyRequest {
        description: "deploys".into(),
        metadata: [("team".to_owned(), "infra".to_owned())].into(),
        limits: [("rps".to_owned(), 50)].into(),
        ..scoped("", "ci-pipeline", &["workflows:read", "events:write"])
    };
    let created = acme.admin.create_key(request).await.unwrap();
    let (key, secret) = (created.key.clone().unwrap(), created.secret.clone());
    assert!(!created.secret_already_issued);
    assert!(secret.starts_with("vtx_live_") && secret.len() == 9 + 36 + 6, "{secret}");
    assert!(checksum_is_right(&secret));
    assert!(key.id.starts_with("key_"));
    assert_eq!(key.organization_id, acme.id);
    assert_eq!(key.scopes.unwrap().permissions, ["events:write", "workflows:read"]);
    assert_eq!((key.state, key.expires_at), (KeyState::Active.into(), None));

    // Used.
    let answer = acme.operator.ask(&secret, &["workflows:read", "events:write"]).await;
    assert!(answer.allowed && answer.code() == DecisionCode::Allowed, "{answer:?}");
    assert_eq!((&answer.organization_id, &answer.credential_id), (&acme.id, &key.id));
    assert_eq!(answer.credential_kind(), proto::CredentialKind::ApiKey);
    assert_eq!(answer.principal.as_ref().unwrap().organization_id, acme.id);
    assert_eq!(answer.permissions, ["events:write", "workflows:read"]);
    assert_eq!(answer.environment(), Environment::Live);
    assert_eq!(answer.metadata["team"], "infra");
    assert_eq!(answer.limits["rps"], 50);
    // The decision says what it was read from.
    let streams: Vec<_> = answer.revisions.iter().map(|it| it.stream.as_str()).collect();
    assert_eq!(streams, [&format!("org-{}", acme.id), "org-operator"]);
    assert_eq!(answer.revisions[0].revision, created.revision.unwrap().revision);
    // For more than it was given: no, alone or among what it holds.
    for wanted in [&["workflows:write"][..], &["workflows:read", "workflows:write"]] {
        let answer = acme.operator.ask(&secret, wanted).await;
        assert!(!answer.allowed && answer.code() == DecisionCode::PermissionDenied, "{answer:?}");
    }
    // Nor may it do anything here.
    let pipeline = acme.admin.with_key(&secret);
    refused(
        pipeline.list_keys(ListKeysRequest::default()).await,
        Code::PermissionDenied,
        "`api-keys:read`",
    );

    // Listed, recognisable, without what it takes to use it.
    let list = acme.admin.list_keys(ListKeysRequest::default()).await.unwrap();
    assert_eq!(list.keys.iter().map(|key| &key.name).collect::<Vec<_>>(), ["admin", "ci-pipeline"]);
    let ends = &secret[secret.len() - 4..];
    assert_eq!(list.keys[1].masked, format!("vtx_live_…{ends}"));
    let got = acme.admin.get_key(get("", &key.id)).await.unwrap();
    assert_eq!(got.key.as_ref(), Some(&list.keys[1]));
    for shown in [format!("{list:?}"), format!("{got:?}")] {
        assert!(!shown.contains(&secret[9..45]) && !shown.contains(&acme.admin_secret[9..45]));
    }

    // Revoked: true at the very next question, for good, and a second time is refused.
    let request = RevokeKeyRequest {
        key_id: key.id.clone(),
        reason: RevocationReason::KeyCompromise.into(),
        comment: "seen in a public log".into(),
        ..Default::default()
    };
    let revoked = acme.admin.revoke_key(request.clone()).await.unwrap();
    let answer = acme.operator.ask(&secret, &["workflows:read"]).await;
    assert_eq!(answer.code(), DecisionCode::Revoked);
    assert_eq!(answer.revisions[0], revoked.revision.unwrap());
    let status = refused(
        pipeline.list_keys(ListKeysRequest::default()).await,
        Code::Unauthenticated,
        "the credential is revoked",
    );
    assert_eq!(reason(&status), "REVOKED");
    refused(acme.admin.revoke_key(request).await, Code::FailedPrecondition, "is revoked already");
    let key = acme.admin.get_key(get("", &key.id)).await.unwrap().key.unwrap();
    assert_eq!(key.state(), KeyState::Revoked);
    let revocation = key.revocation.unwrap();
    assert_eq!(revocation.reason(), RevocationReason::KeyCompromise);
    assert_eq!(revocation.comment, "seen in a public log");
    assert!(!revocation.with.is_empty() && !revocation.comment_erased);
    // In lists, by state, and without the comment.
    for (state, expected) in [(KeyState::Active, "admin"), (KeyState::Revoked, "ci-pipeline")] {
        let request = ListKeysRequest { state: state.into(), ..Default::default() };
        let keys = acme.admin.list_keys(request).await.unwrap().keys;
        assert_eq!(keys.iter().map(|key| &key.name).collect::<Vec<_>>(), [expected]);
        assert!(
            keys.iter().all(|it| it.revocation.as_ref().is_none_or(|it| it.comment.is_empty()))
        );
    }
    // The name is free again; the new key is another one.
    let again = acme.admin.create_key(scoped("", "ci-pipeline", &["a:b"])).await.unwrap();
    assert_ne!(again.secret, secret);
    assert_eq!(acme.operator.ask(&secret, &[]).await.code(), DecisionCode::Revoked);
    acme.server.stop().await;
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let acme = Acme::new().await;
    let request = CreateKeyRequest {
        idempotency_key: "job-17".into(),
        ..scoped("", "once", &["workflows:read"])
    };
    let first = acme.admin.create_key(request.clone()).await.unwrap();
    let before = acme.revision().await;
    let repeat = acme.admin.create_key(request.clone()).await.unwrap();
    assert!(repeat.secret_already_issued && repeat.secret.is_empty(), "{repeat:?}");
    assert_eq!(repeat.key, first.key);
    assert_eq!(repeat.revision, first.revision);
    assert!(acme.operator.ask(&first.secret, &["workflows:read"]).await.allowed);

    // The same key for something else is no repeat, and neither is another's.
    let other = CreateKeyRequest { name: "another".into(), ..request.clone() };
    let status = refused(acme.admin.create_key(other).await, Code::InvalidArgument, "idempotency");
    assert_eq!(reason(&status), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(acme.revision().await, before);
    // All keys of an organization speak for it, so they share their idempotency keys; an
    // operator is somebody else.
    let (_, second_admin) = acme.key("second admin", &["org:admin"]).await;
    let second = acme.admin.with_key(&second_admin).create_key(request.clone()).await.unwrap();
    assert!(second.secret_already_issued && second.secret.is_empty());
    let theirs = CreateKeyRequest {
        organization_id: acme.id.clone(),
        name: "theirs".into(),
        ..request.clone()
    };
    let theirs = acme.operator.create_key(theirs).await.unwrap();
    assert!(!theirs.secret_already_issued && !theirs.secret.is_empty());

    // A revocation and an organization repeat as well.
    let revoke = RevokeKeyRequest {
        key_id: first.key.unwrap().id,
        idempotency_key: "job-18".into(),
        comment: "done".into(),
        ..Default::default()
    };
    let revoked = acme.admin.revoke_key(revoke.clone()).await.unwrap();
    assert_eq!(acme.admin.revoke_key(revoke).await.unwrap(), revoked);
    let make = proto::CreateOrganizationRequest {
        name: "globex".into(),
        key_prefix: "glx".into(),
        idempotency_key: "org-1".into(),
        ..Default::default()
    };
    let made = acme.operator.create_organization(make.clone()).await.unwrap();
    let again = acme.operator.create_organization(make.clone()).await.unwrap();
    assert_eq!(again.organization, made.organization);
    let other = proto::CreateOrganizationRequest { name: "initech".into(), ..make };
    refused(acme.operator.create_organization(other).await, Code::InvalidArgument, "idempotency");

    // All of it holds over a restart.
    acme.server.kill();
    let server = acme.home.start().await;
    let repeat = server.client(&acme.admin_secret).create_key(request).await.unwrap();
    assert!(repeat.secret_already_issued && repeat.secret.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn live_and_test_are_two_worlds() {
    let acme = Acme::new().await;
    let make = async |name: &str, environment: Environment| {
        let request =
            CreateKeyRequest { environment: environment.into(), ..scoped("", name, &["a:b"]) };
        acme.admin.create_key(request).await.unwrap().secret
    };
    let live = make("live", Environment::Live).await;
    let test = make("test", Environment::Test).await;
    let plain = make("plain", Environment::Unspecified).await;
    assert!(live.starts_with("vtx_live_") && test.starts_with("vtx_test_"));
    assert!(plain.starts_with("vtx_") && plain.len() == 4 + 36 + 6, "{plain}");
    let wrong = DecisionCode::WrongEnvironment;
    let ok = DecisionCode::Allowed;
    for (secret, asked, expected) in [
        (&live, Environment::Live, ok),
        (&live, Environment::Test, wrong),
        (&live, Environment::Unspecified, ok),
        (&test, Environment::Test, ok),
        (&test, Environment::Live, wrong),
        (&test, Environment::Unspecified, ok),
        (&plain, Environment::Live, ok),
        (&plain, Environment::Test, wrong),
    ] {
        let request = VerifyRequest {
            credential: secret.clone(),
            permissions: texts(&["a:b"]),
            environment: asked.into(),
            ..Default::default()
        };
        assert_eq!(acme.operator.code(request).await, expected, "{asked:?}");
    }
    let request = ListKeysRequest { environment: Environment::Test.into(), ..Default::default() };
    let keys = acme.admin.list_keys(request).await.unwrap().keys;
    assert_eq!(keys.iter().map(|key| &key.name).collect::<Vec<_>>(), ["test"]);
}

#[tokio::test]
async fn a_name_is_unique_among_active_keys() {
    let acme = Acme::new().await;
    let (id, _) = acme.key("deploy", &["a:b"]).await;
    let taken = || scoped("", "deploy", &["c:d"]);
    let status = refused(acme.admin.create_key(taken()).await, Code::AlreadyExists, "`deploy`");
    assert_eq!(reason(&status), "KEY_NAME_TAKEN");
    // Of twenty at once, one gets the name.
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let admin = acme.admin.clone();
            tokio::spawn(async move { admin.create_key(scoped("", "raced", &["a:b"])).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            refusal => drop(refused(refusal, Code::AlreadyExists, "`raced`")),
        }
    }
    assert_eq!(won, 1);
    // Another organization has names of its own.
    let other = acme.operator.organization("globex", "glx", "").await;
    acme.operator.create_key(scoped(&other, "deploy", &["a:b"])).await.unwrap();
    // After the revocation the name is free.
    acme.admin.revoke("", &id).await.unwrap();
    acme.admin.create_key(taken()).await.unwrap();
    // So it is once the key has expired.
    let soon = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    let brief = CreateKeyRequest {
        expiry: Some(create_key_request::Expiry::Lifetime(soon)),
        ..scoped("", "brief", &["a:b"])
    };
    let brief = acme.admin.create_key(brief).await.unwrap().secret;
    let until = std::time::Instant::now() + crate::support::DEADLINE;
    while acme.operator.ask(&brief, &[]).await.code() != DecisionCode::Expired {
        assert!(std::time::Instant::now() < until);
    }
    acme.key("brief", &["a:b"]).await;
}

/// Rotation by hand, as the product's page tells it: a second key of the same scopes, then
/// the old one is revoked; and by one call, which does the same without a second name.
#[tokio::test]
async fn a_pipelines_key_is_rotated_without_downtime() {
    let acme = Acme::new().await;
    // A live key that may make keys, shown as Bearer.
    let scopes = ["api-keys:read", "api-keys:write", "workflows:read", "events:write"];
    let (_, automation) = acme.key("automation", &scopes).await;
    let automation = acme.admin.with_key(&automation);
    let wanted = ["workflows:read", "events:write"];
    let make = async |name: &str| {
        let made = automation.create_key(scoped("", name, &wanted)).await.unwrap();
        (made.key.unwrap(), made.secret)
    };
    let allowed = async |secret: &str| acme.operator.ask(secret, &["workflows:read"]).await.allowed;
    let (old, old_secret) = make("ci-pipeline").await;
    let (new, new_secret) = make("ci-pipeline-2").await;
    assert_eq!(new.scopes, old.scopes);
    assert!(allowed(&old_secret).await && allowed(&new_secret).await);
    automation.revoke("", &old.id).await.unwrap();
    assert!(!allowed(&old_secret).await && allowed(&new_secret).await);
    // By one call the name stays, and there is never a moment without a valid key.
    let request = RotateKeyRequest { key_id: new.id.clone(), ..Default::default() };
    let rotated = automation.rotate_key(request).await.unwrap();
    let successor = rotated.key.unwrap();
    assert_eq!((&successor.name, &successor.scopes), (&new.name, &new.scopes));
    assert!(allowed(&new_secret).await && allowed(&rotated.secret).await);
    let request = EndRotationRequest { key_id: new.id, ..Default::default() };
    automation.end_rotation(request).await.unwrap();
    assert!(!allowed(&new_secret).await && allowed(&rotated.secret).await);
    // A revoked key in the hands of whoever still uses it is UNAUTHENTICATED.
    let gone = acme.admin.with_key(&old_secret).list_keys(ListKeysRequest::default()).await;
    refused(gone, Code::Unauthenticated, "revoked");
    // Whoever may make keys gives no more than they hold; test keys make test keys.
    let more = automation.create_key(scoped("", "more", &["org:admin"])).await;
    refused(more, Code::PermissionDenied, "`org:admin`");
    let test = CreateKeyRequest {
        environment: Environment::Test.into(),
        ..scoped("", "sandbox", &["api-keys:write", "events:write"])
    };
    let test = acme.admin.create_key(test).await.unwrap().secret;
    assert!(test.starts_with("vtx_test_"));
    let from_test = CreateKeyRequest {
        environment: Environment::Test.into(),
        ..scoped("", "from the sandbox", &["events:write"])
    };
    acme.admin.with_key(&test).create_key(from_test).await.unwrap();
}

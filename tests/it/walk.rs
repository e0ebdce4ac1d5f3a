//! Whole stories, as two products tell them in their documentation: a pipeline's key with
//! scopes, made, used and revoked; and a console's keys with roles and services.

use std::time::Duration;

use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, Environment, GetKeyRequest, GetOrganizationRequest,
    KeyState, ListKeysRequest, RevocationReason, RevokeKeyRequest, Scopes, ServiceAccess,
    StreamRevision, VerifyRequest, create_key_request,
};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use super::support::{
    ADMIN, Acme, Client, DNS_MANAGER, Home, OPERATOR_ADMIN, READ_ONLY_ADMIN, crc32, reason,
    refused, scoped, texts, with_roles,
};

/// The checksum of a key's text, worked out here: CRC-32 in six digits of base 62.
fn checksum_is_right(secret: &str) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (body, sum) = secret.split_at(secret.len() - 6);
    let mut rest = crc32(body.as_bytes()) as usize;
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % 62];
        rest /= 62;
    }
    digits == sum.as_bytes()
}

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

fn get(organization_id: &str, key_id: &str) -> GetKeyRequest {
    GetKeyRequest { organization_id: organization_id.into(), key_id: key_id.into() }
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
async fn a_consoles_keys_with_roles_and_services() {
    let acme = Acme::new().await;
    // The eight roles of the wizard, by their identifiers, and one thing each may do.
    let roles = [
        (2, "admin", "zones:delete", ""),
        (3, "read-only-admin", "zones:read", "zones:delete"),
        (4, "billing-manager", "billing:write", "zones:read"),
        (5, "cache-purger", "cache:purge", "cache:read"),
        (6, "dns-manager", "dns:delete", "waf:write"),
        (7, "security-manager", "waf:write", "dns:delete"),
        (8, "traffic-manager", "load-balancing:write", "billing:read"),
        (9, "insights-analyst", "metrics:read", "metrics:write"),
    ];
    for (number, name, may, may_not) in roles {
        let id = format!("rol_0000000000000000000000000{number}");
        let created =
            acme.admin.create_key(with_roles("", &format!("a {name}"), &[&id])).await.unwrap();
        let key = created.key.unwrap();
        assert_eq!((&key.roles[0].id, key.roles[0].name.as_str()), (&id, name));
        assert!(key.scopes.is_none());
        let answer = acme.operator.ask(&created.secret, &[may]).await;
        assert!(answer.allowed, "{name}: {answer:?}");
        assert_eq!(answer.roles, key.roles);
        if !may_not.is_empty() {
            let answer = acme.operator.ask(&created.secret, &[may_not]).await;
            assert_eq!(answer.code(), DecisionCode::PermissionDenied, "{name}");
        }
    }
    // Roles and scopes narrow each other; several roles add up.
    let both = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["dns:read", "waf:read"]) }),
        ..with_roles("", "both", &[DNS_MANAGER])
    };
    let both = acme.admin.create_key(both).await.unwrap().secret;
    for (wanted, allowed) in [("dns:read", true), ("dns:write", false), ("waf:read", false)] {
        assert_eq!(acme.operator.ask(&both, &[wanted]).await.allowed, allowed, "{wanted}");
    }
    let two = with_roles("", "two", &[DNS_MANAGER, READ_ONLY_ADMIN]);
    let two = acme.admin.create_key(two).await.unwrap().secret;
    assert!(acme.operator.ask(&two, &["dns:write", "waf:read"]).await.allowed);
    // A role that is not there, or is the operator's alone.
    for role in ["rol_0000000000000000000000000Z", OPERATOR_ADMIN] {
        for client in [&acme.admin, &acme.operator] {
            let request = with_roles(&acme.id, "no role", &[role]);
            refused(client.create_key(request).await, Code::InvalidArgument, "not found");
        }
    }

    // Service access: all, future ones included, or a list.
    let listed = CreateKeyRequest {
        services: Some(ServiceAccess { services: texts(&["cdn", "dns"]) }),
        ..with_roles("", "listed", &[ADMIN])
    };
    let listed = acme.admin.create_key(listed).await.unwrap();
    assert_eq!(listed.key.unwrap().services.unwrap().services, ["cdn", "dns"]);
    let all = acme.admin.create_key(with_roles("", "all", &[ADMIN])).await.unwrap();
    assert!(all.key.unwrap().services.is_none());
    for (secret, service, expected) in [
        (&listed.secret, "cdn", DecisionCode::Allowed),
        (&listed.secret, "waf", DecisionCode::ServiceNotAllowed),
        (&listed.secret, "", DecisionCode::ServiceNotAllowed),
        (&all.secret, "waf", DecisionCode::Allowed),
        (&all.secret, "one-of-next-year", DecisionCode::Allowed),
        (&all.secret, "", DecisionCode::Allowed),
    ] {
        let request = VerifyRequest {
            credential: secret.clone(),
            permissions: texts(&["cache:purge"]),
            service: service.into(),
            ..Default::default()
        };
        assert_eq!(acme.operator.code(request).await, expected, "{service}");
    }
    // A key for the product's services is none for keyledger itself.
    refused(
        acme.admin.with_key(&listed.secret).list_keys(ListKeysRequest::default()).await,
        Code::PermissionDenied,
        "other services than `keyledger`",
    );
    let by_role = ListKeysRequest { role_id: DNS_MANAGER.into(), ..Default::default() };
    let keys = acme.admin.list_keys(by_role).await.unwrap().keys;
    assert_eq!(
        keys.iter().map(|it| &it.name).collect::<Vec<_>>(),
        ["a dns-manager", "both", "two"]
    );
    let by_name = ListKeysRequest { name_prefix: "t".into(), ..Default::default() };
    let keys = acme.admin.list_keys(by_name).await.unwrap().keys;
    assert_eq!(keys.iter().map(|it| &it.name).collect::<Vec<_>>(), ["two"]);
}

/// What a key may do is fixed when it is made: of all requests that change a key, none
/// has a field for it, and its name and description alone can be told anew.
#[test]
fn a_key_cannot_be_edited() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
    let methods = set.file.iter().flat_map(|file| &file.service);
    let methods = methods.filter(|service| service.name() == "KeyService");
    let mut editors = Vec::new();
    for method in methods.flat_map(|service| &service.method) {
        let input = method.input_type().rsplit('.').next().unwrap();
        let input = messages.iter().find(|message| message.name() == input).unwrap();
        let fields: Vec<_> = input.field.iter().map(|field| field.name()).collect();
        if !fields.contains(&"key_id") {
            continue;
        }
        for fixed in ["scopes", "role_ids", "services", "environment", "allowed_ips", "limits"] {
            assert!(!fields.contains(&fixed), "{} has `{fixed}`", method.name());
        }
        if fields.contains(&"name") || fields.contains(&"description") {
            editors.push(method.name());
        }
    }
    assert_eq!(editors, ["UpdateKeyLabel"]);
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
    let until = std::time::Instant::now() + super::support::DEADLINE;
    while acme.operator.ask(&brief, &[]).await.code() != DecisionCode::Expired {
        assert!(std::time::Instant::now() < until);
    }
    acme.key("brief", &["a:b"]).await;
}

#[tokio::test]
async fn the_free_plan_lets_keys_live_one_hour() {
    let acme = Acme::new().await;
    let free = acme.operator.organization("free", "fre", "free").await;
    let lifetime = |seconds, nanos| {
        Some(create_key_request::Expiry::Lifetime(prost_types::Duration { seconds, nanos }))
    };
    let create = async |name: &str, expiry| {
        let request = CreateKeyRequest { expiry, ..scoped(&free, name, &["a:b"]) };
        acme.operator.create_key(request).await.map(|it| it.key.unwrap())
    };
    let seconds = |key: &proto::Key| {
        key.expires_at.as_ref().unwrap().seconds - key.created_at.as_ref().unwrap().seconds
    };
    let by_default = create("default", None).await.unwrap();
    assert_eq!(seconds(&by_default), 3_600);
    assert_eq!(seconds(&create("cap", lifetime(3_600, 0)).await.unwrap()), 3_600);
    assert_eq!(seconds(&create("less", lifetime(60, 0)).await.unwrap()), 60);
    for over in [lifetime(3_600, 1_000_000), lifetime(86_400, 0)] {
        let status = refused(create("over", over).await, Code::FailedPrecondition, "3600 s");
        assert_eq!(reason(&status), "LIFETIME_ABOVE_PLAN");
    }
    let past = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 };
    let past = Some(create_key_request::Expiry::ExpiresAt(past));
    refused(create("past", past).await, Code::InvalidArgument, "`expires_at`");
    for none in [lifetime(0, 0), lifetime(-1, 0)] {
        refused(create("none", none).await, Code::InvalidArgument, "`lifetime`");
    }
    // A paid plan caps nothing.
    let request = CreateKeyRequest { expiry: lifetime(86_400, 0), ..scoped("", "paid", &["a:b"]) };
    assert_eq!(seconds(&acme.admin.create_key(request).await.unwrap().key.unwrap()), 86_400);
    // Other plans are named in the refusal.
    let request = proto::CreateOrganizationRequest {
        name: "x".into(),
        key_prefix: "xx".into(),
        plan: "gold".into(),
        ..Default::default()
    };
    refused(
        acme.operator.create_organization(request).await,
        Code::InvalidArgument,
        "`gold` is unknown; plans are `free`",
    );
}

#[tokio::test]
async fn prefixes_are_unique_and_some_are_kept() {
    let acme = Acme::new().await;
    let create = async |prefix: &str| {
        let request = proto::CreateOrganizationRequest {
            name: "x".into(),
            key_prefix: prefix.into(),
            ..Default::default()
        };
        acme.operator.create_organization(request).await
    };
    refused(create("vtx").await, Code::AlreadyExists, "`vtx` is taken");
    for kept in ["klop", "klbg"] {
        refused(create(kept).await, Code::InvalidArgument, "is reserved");
    }
    let two = create("cspm").await.unwrap();
    assert_eq!(two.revisions.len(), 2);
    assert_eq!(two.revisions[1].stream, "org-operator");
    let list = acme.operator.list_organizations(Default::default()).await.unwrap();
    let prefixes: Vec<_> = list.organizations.iter().map(|it| it.key_prefix.as_str()).collect();
    assert_eq!(prefixes, ["vtx", "cspm"]);
    let own = acme.admin.get_organization(GetOrganizationRequest::default()).await.unwrap();
    assert_eq!(own.organization.as_ref(), Some(&list.organizations[0]));
}

#[tokio::test]
async fn writes_can_name_the_revision_they_were_decided_on() {
    let acme = Acme::new().await;
    let at = acme.revision().await;
    let expecting = |name: &str, revision| CreateKeyRequest {
        expected_revision: Some(revision),
        ..scoped("", name, &["a:b"])
    };
    for wrong in [at + 1, at - 1, 0, u64::MAX] {
        let status = refused(
            acme.admin.create_key(expecting("x", wrong)).await,
            Code::Aborted,
            &format!("ends at revision {at}"),
        );
        assert_eq!(reason(&status), "WRONG_EXPECTED_REVISION");
    }
    let created = acme.admin.create_key(expecting("x", at)).await.unwrap();
    assert_eq!(created.revision.unwrap().revision, at + 1);
    let revoke = |revision| RevokeKeyRequest {
        key_id: created.key.as_ref().unwrap().id.clone(),
        expected_revision: Some(revision),
        ..Default::default()
    };
    refused(acme.admin.revoke_key(revoke(at)).await, Code::Aborted, "`expected_revision`");
    let revoked = acme.admin.revoke_key(revoke(at + 1)).await.unwrap();
    assert_eq!(revoked.revision.unwrap().revision, at + 2);
    // Of twenty writers who saw the same revision, one may write.
    let racers: Vec<_> = (0..20)
        .map(|n| {
            let (admin, request) = (acme.admin.clone(), expecting(&format!("racer {n}"), at + 2));
            tokio::spawn(async move { admin.create_key(request).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += usize::from(racer.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_question_can_demand_a_revision() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    let stream = format!("org-{}", acme.id);
    let question = |stream: &str, revision| VerifyRequest {
        credential: secret.clone(),
        at_least_revision: vec![StreamRevision { stream: stream.into(), revision }],
        ..Default::default()
    };
    let at = acme.revision().await;
    let status: Vec<_> = acme.operator.ask(&secret, &[]).await.revisions;
    assert_eq!(acme.operator.code(question(&stream, at)).await, DecisionCode::Allowed);
    assert_eq!(
        acme.operator.code(question("org-operator", status[1].revision)).await,
        DecisionCode::Allowed
    );

    // One that is on its way is waited for.
    let asked = {
        let (operator, question) = (acme.operator.clone(), question(&stream, at + 1));
        tokio::spawn(async move { operator.verify(question).await })
    };
    tokio::task::yield_now().await;
    acme.admin.revoke("", &id).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap().code(), DecisionCode::Revoked);

    // One that never comes is UNAVAILABLE, at the call's deadline or after 5 s.
    let began = std::time::Instant::now();
    let asked = acme.operator.verify(question(&stream, at + 1_000)).await;
    let status = refused(asked, Code::Unavailable, "has not reached that revision");
    assert_eq!(reason(&status), "REVISION_NOT_REACHED");
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..super::support::DEADLINE).contains(&took), "{took:?}");

    // Another organization's stream is not for asking, whether it exists or not.
    let other = acme.operator.organization("globex", "glx", "").await;
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let messages: Vec<String> = {
        let mut messages = Vec::new();
        for id in [other.as_str(), "org_00000000000000000000000009"] {
            let asked = verifier.verify(question(&format!("org-{id}"), 0)).await;
            let status = refused(asked, Code::InvalidArgument, "`at_least_revision[0].stream`");
            messages.push(status.message().to_owned());
        }
        messages
    };
    assert_eq!(messages[0], messages[1]);
    assert_eq!(verifier.code(question("org-operator", 0)).await, DecisionCode::Revoked);
    for wrong in ["", "org-", "usage-x", &acme.id] {
        let asked = verifier.verify(question(wrong, 0)).await;
        refused(asked, Code::InvalidArgument, "`at_least_revision[0].stream`");
    }
}

/// A page of the longest keys there are is one that any client takes: most refuse more
/// than 4 MiB.
#[tokio::test]
async fn a_page_of_long_keys_is_a_short_page() {
    const KEYS: usize = 110;
    let acme = Acme::new().await;
    let many = |what: &str| (0..100).map(|n| format!("{}:{what}{n:02}", "r".repeat(59))).collect();
    let metadata = |n| (format!("{n:02}{}", "m".repeat(62)), "\u{1f511}".repeat(256));
    for number in 0..KEYS {
        let request = CreateKeyRequest {
            description: "\u{1f511}".repeat(500),
            metadata: (0..32).map(metadata).collect(),
            scopes: Some(Scopes { permissions: many("a") }),
            ..scoped("", &number.to_string(), &[])
        };
        acme.admin.create_key(request).await.unwrap();
    }
    let mut names = Vec::new();
    let mut request = ListKeysRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = acme.admin.list_keys(request.clone()).await.unwrap();
        assert!(!page.keys.is_empty());
        names.extend(page.keys.into_iter().map(|key| key.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), KEYS + 1);
}

#[tokio::test]
async fn no_more_are_let_in_than_may_be_inside() {
    let acme = Acme::on(Home::new(), |launch| launch.args(&["--requests-max", "1"])).await;
    let ask = |revision| VerifyRequest {
        credential: acme.admin_secret.clone(),
        at_least_revision: vec![StreamRevision { stream: "org-operator".into(), revision }],
        ..Default::default()
    };
    let (operator, question) = (acme.operator.clone(), ask(u64::MAX));
    // Either may come first, and then the other is refused.
    let inside = tokio::spawn(async move {
        loop {
            match operator.verify(question.clone()).await {
                Err(status) if reason(&status) == "TOO_MANY_REQUESTS" => {}
                answer => return answer,
            }
        }
    });
    let refusal = loop {
        match acme.operator.verify(ask(0)).await {
            Ok(_) => assert!(!inside.is_finished(), "two were inside"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refusal), "TOO_MANY_REQUESTS");
    assert_eq!(reason(&inside.await.unwrap().unwrap_err()), "REVISION_NOT_REACHED");
    assert_eq!(acme.operator.code(ask(0)).await, DecisionCode::Allowed);
}

/// Questions that wait for what never comes do not keep others out.
#[tokio::test]
async fn those_who_wait_leave_room() {
    let acme = Acme::on(Home::new(), |launch| launch.args(&["--requests-max", "8"])).await;
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let mut asked = Vec::new();
    for _ in 0..8 {
        let stream = "org-operator".to_owned();
        let question = VerifyRequest {
            credential: acme.admin_secret.clone(),
            at_least_revision: vec![StreamRevision { stream, revision: u64::MAX }],
            ..Default::default()
        };
        let verifier = verifier.clone();
        asked.push(tokio::spawn(async move { verifier.verify(question).await.unwrap_err() }));
    }
    for _ in 0..20 {
        assert!(acme.operator.ask(&acme.admin_secret, &[]).await.allowed);
    }
    // Nor those who ask for a revision that is there.
    let there = VerifyRequest {
        credential: acme.admin_secret.clone(),
        at_least_revision: vec![StreamRevision { stream: "org-operator".into(), revision: 0 }],
        ..Default::default()
    };
    assert_eq!(acme.operator.code(there).await, DecisionCode::Allowed);
    let mut reasons = Vec::new();
    for asked in asked {
        reasons.push(reason(&asked.await.unwrap()));
    }
    reasons.sort();
    assert_eq!(reasons[..2], ["REVISION_NOT_REACHED"; 2]);
    assert_eq!(reasons[2..], ["TOO_MANY_REQUESTS"; 6]);
}

#[tokio::test]
async fn whoever_is_revoked_while_waiting_is_told_nothing() {
    let acme = Acme::new().await;
    let (id, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let asked = {
        let (stream, revision) = (format!("org-{}", acme.id), acme.revision().await + 1);
        let question = VerifyRequest {
            credential: acme.admin_secret.clone(),
            at_least_revision: vec![StreamRevision { stream, revision }],
            ..Default::default()
        };
        tokio::spawn(async move { verifier.verify(question).await })
    };
    // What is asked behind it on the same connection is answered: it has been let in.
    for _ in 0..20 {
        acme.operator.ask(&acme.admin_secret, &[]).await;
    }
    acme.admin.revoke("", &id).await.unwrap();
    let status = refused(asked.await.unwrap(), Code::Unauthenticated, "revoked");
    assert_eq!(reason(&status), "REVOKED");
}

#[tokio::test]
async fn what_is_presented_decides_in_a_fixed_way() {
    use DecisionCode::{Allowed, Ambiguous, Malformed, NoCredential, TenantMismatch, Unknown};
    let acme = Acme::new().await;
    let (_, a) = acme.key("a", &["x:y"]).await;
    let (_, b) = acme.key("b", &["x:y"]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let foreign = acme.operator.create_key(scoped(&other, "f", &["x:y"])).await.unwrap().secret;
    let mut typo = a.clone();
    typo.replace_range(20..21, if &a[20..21] == "x" { "y" } else { "x" });
    let bearer = |key: &str| format!("Bearer {key}");
    let check = async |request: VerifyRequest, expected: DecisionCode| {
        let shown = format!("{request:?}");
        let answer = acme.operator.verify(request).await.unwrap();
        assert_eq!(answer.code(), expected, "{shown}");
        let known = matches!(expected, Allowed | TenantMismatch);
        assert_eq!(!answer.organization_id.is_empty(), known, "{answer:?}");
        assert_eq!(!answer.revisions.is_empty(), known, "{answer:?}");
        assert!(answer.correlation_id.starts_with("cor_"));
    };
    let with = |authorization: &[String], api_key: &[&str], admin: &[&str]| VerifyRequest {
        authorization: authorization.to_vec(),
        api_key: texts(api_key),
        admin_api_key: texts(admin),
        ..Default::default()
    };
    check(with(&[], &[], &[]), NoCredential).await;
    check(with(&[bearer(&a)], &[], &[]), Allowed).await;
    check(with(&[format!("bearer   {a}")], &[], &[]), Allowed).await;
    check(with(&[], &[&a], &[]), Allowed).await;
    check(with(&[], &[], &[&a]), Allowed).await;
    // The same value twice is one; two are ambiguous, wherever they stand.
    check(with(&[bearer(&a), bearer(&a)], &[&a], &[&a]), Allowed).await;
    check(with(&[bearer(&a)], &[&b], &[]), Ambiguous).await;
    check(with(&[], &[&a, &b], &[]), Ambiguous).await;
    check(with(&[], &[&a], &[&b]), Ambiguous).await;
    let alone = VerifyRequest { credential: a.clone(), ..with(&[], &[&b], &[]) };
    check(alone, Ambiguous).await;
    // Malformed is what no look-up is needed for.
    check(with(&["Basic dXNlcjpwdw==".into()], &[], &[]), Malformed).await;
    check(with(&["Basic dXNlcjpwdw==".into()], &[&a], &[]), Allowed).await;
    for bad in [typo.as_str(), "x", "vtx_live_", &a[1..], &format!("{a}0"), &"x".repeat(513)] {
        check(with(&[], &[bad], &[]), Malformed).await;
    }
    // A session's form is tried first, and its failure is no reason to try the key.
    check(with(&[bearer("a.b.c")], &[&a], &[]), Unknown).await;
    // Well formed, never issued: the same text of another installation.
    let elsewhere = Acme::new().await;
    check(with(&[], &[&elsewhere.admin_secret], &[]), Unknown).await;
    // The organization that the request claims to be for.
    for (tenant, expected) in [(&acme.id, Allowed), (&other, TenantMismatch)] {
        let request = VerifyRequest { tenant_id: tenant.clone(), ..with(&[], &[&a], &[]) };
        check(request, expected).await;
    }
    let request = VerifyRequest { tenant_id: "acme".into(), ..with(&[], &[&a], &[]) };
    refused(acme.operator.verify(request).await, Code::InvalidArgument, "`tenant_id`");

    // A verifier of one organization knows only its own credentials: all others are
    // unknown to it, whatever they are.
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    assert_eq!(verifier.code(with(&[], &[&a], &[])).await, Allowed);
    let never = elsewhere.admin_secret.clone();
    for strange in [&foreign, &acme.home.admin_key(), &never] {
        let mut answer = verifier.ask(strange, &["x:y"]).await;
        answer.correlation_id.clear();
        let nothing = proto::VerifyResponse { code: Unknown.into(), ..Default::default() };
        assert_eq!(answer, nothing);
        let request =
            VerifyRequest { tenant_id: other.clone(), ..with(&[], &[strange.as_str()], &[]) };
        assert_eq!(verifier.code(request).await, Unknown);
    }
    // Given, a correlation id is kept.
    let request = VerifyRequest { correlation_id: "trace-1".into(), ..with(&[], &[&a], &[]) };
    assert_eq!(verifier.verify(request).await.unwrap().correlation_id, "trace-1");
    // Lists have a limit.
    let eight = with(&vec![bearer(&a); 8], &[a.as_str(); 8], &[a.as_str(); 8]);
    assert_eq!(verifier.code(eight).await, Allowed);
    for (nine, field) in [
        (with(&vec![bearer(&a); 9], &[], &[]), "`authorization`"),
        (with(&[], &[a.as_str(); 9], &[]), "`api_key`"),
        (with(&[], &[], &[a.as_str(); 9]), "`admin_api_key`"),
    ] {
        refused(verifier.verify(nine).await, Code::InvalidArgument, field);
    }
}

/// What every method says to another organization's administrator who names this one.
async fn say(client: &Client, organization: &str, key: &str) -> Vec<Result<(), Status>> {
    let (organization_id, key_id) = (organization.to_owned(), key.to_owned());
    vec![
        client.create_key(scoped(organization, "x", &["a:b"])).await.map(drop),
        client.get_key(get(organization, key)).await.map(drop),
        client
            .list_keys(ListKeysRequest {
                organization_id: organization_id.clone(),
                ..Default::default()
            })
            .await
            .map(drop),
        client
            .revoke_key(RevokeKeyRequest {
                organization_id: organization_id.clone(),
                key_id,
                ..Default::default()
            })
            .await
            .map(drop),
        client.get_organization(GetOrganizationRequest { organization_id }).await.map(drop),
    ]
}

#[tokio::test]
async fn nothing_crosses_from_one_organization_to_another() {
    let acme = Acme::new().await;
    let (key, _) = acme.key("ci", &["a:b"]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let stranger = acme.operator.create_key(scoped(&other, "s", &["org:admin"])).await.unwrap();
    let (stranger_key, stranger) =
        (stranger.key.unwrap().id, acme.operator.with_key(&stranger.secret));
    let before = (acme.revision().await, acme.operator.revision("operator").await);
    let shown = |answers: Vec<Result<(), Status>>| -> Vec<(Code, String)> {
        answers
            .into_iter()
            .map(|answer| {
                let status = answer.unwrap_err();
                (status.code(), format!("{}: {}", status.message(), reason(&status)))
            })
            .collect()
    };
    // Identical whether the organization and the key exist or not, and refused.
    let real = shown(say(&stranger, &acme.id, &key).await);
    assert!(real.iter().all(|(code, _)| *code == Code::PermissionDenied), "{real:?}");
    for (organization, key) in [
        ("org_00000000000000000000000009", key.as_str()),
        (&acme.id, "key_00000000000000000000000009"),
        ("operator", &key),
    ] {
        assert_eq!(shown(say(&stranger, organization, key).await), real);
    }
    // In its own organization, another's key is as absent as one that never was.
    for absent in [key.as_str(), "key_00000000000000000000000009"] {
        let status = stranger.get_key(get("", absent)).await;
        refused(status, Code::NotFound, &format!("key `{absent}` not found"));
        refused(stranger.revoke("", absent).await, Code::NotFound, "not found");
        // Even an operator does not reach it through the wrong organization.
        refused(acme.operator.get_key(get(&other, absent)).await, Code::NotFound, "not found");
    }
    // What only operators may do.
    refused(stranger.get_status(proto::GetStatusRequest {}).await, Code::PermissionDenied, "");
    refused(stranger.list_organizations(Default::default()).await, Code::PermissionDenied, "");
    let request = proto::CreateOrganizationRequest {
        name: "x".into(),
        key_prefix: "xyz".into(),
        ..Default::default()
    };
    refused(stranger.create_organization(request).await, Code::PermissionDenied, "");
    // A page token of one organization continues no other's list.
    acme.key("second", &["a:b"]).await;
    let page = ListKeysRequest { page_size: 1, ..Default::default() };
    let token = acme.admin.list_keys(page.clone()).await.unwrap().next_page_token;
    let page = ListKeysRequest { page_token: token, ..page };
    refused(stranger.list_keys(page.clone()).await, Code::InvalidArgument, "`page_token`");
    acme.admin.list_keys(page).await.unwrap();
    // An operator acts in an organization only by naming it.
    refused(
        acme.operator.create_key(scoped("", "x", &["a:b"])).await,
        Code::InvalidArgument,
        "name one, or `operator`",
    );
    // Nothing was written by any of it.
    let after = (acme.revision().await, acme.operator.revision("operator").await);
    assert_eq!((before.0 + 1, before.1), after);
    stranger.get_key(get("", &stranger_key)).await.unwrap();
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_hold() {
    let acme = Acme::new().await;
    let held = ["api-keys:write", "api-keys:read", "dns:read", "dns:write"];
    let (_, limited) = acme.key("limited", &held).await;
    let limited = acme.admin.with_key(&limited);
    limited.create_key(scoped("", "within", &["dns:read"])).await.unwrap();
    let check = async |client: &Client, request: CreateKeyRequest, expected: &str| {
        let before = acme.revision().await;
        let shown = format!("{request:?}");
        let Err(status) = client.create_key(request).await else { panic!("accepted: {shown}") };
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(reason(&status), expected, "{shown}");
        assert_eq!(acme.revision().await, before);
    };
    let not_held = "PERMISSION_NOT_HELD";
    // Scopes.
    check(&limited, scoped("", "n", &["cache:purge"]), not_held).await;
    check(&limited, scoped("", "n", &["dns:read", "cache:purge"]), not_held).await;
    check(&limited, scoped("", "n", &["org:admin"]), not_held).await;
    check(&limited, scoped("", "n", &["credentials:verify"]), not_held).await;
    // Roles and their wildcards: `dns:*` is more than the two it holds.
    check(&limited, with_roles("", "n", &[DNS_MANAGER]), not_held).await;
    check(&limited, with_roles("", "n", &[ADMIN]), not_held).await;
    check(&limited, with_roles("", "n", &[READ_ONLY_ADMIN]), not_held).await;
    // A role that scopes narrow to what is held gives no more than that.
    let narrowed = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["dns:read"]) }),
        ..with_roles("", "narrowed", &[DNS_MANAGER])
    };
    limited.create_key(narrowed).await.unwrap();
    let wide = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["org:admin"]) }),
        ..with_roles("", "n", &[DNS_MANAGER])
    };
    check(&limited, wide, not_held).await;
    // A role held can be given; another cannot.
    let scopes = Scopes { permissions: texts(&["api-keys:write", "dns:write"]) };
    let by_role = CreateKeyRequest { scopes: Some(scopes), ..with_roles("", "r", &[ADMIN]) };
    let by_role = acme.admin.create_key(by_role).await.unwrap().secret;
    let by_role = acme.admin.with_key(&by_role);
    by_role.create_key(scoped("", "from role", &["dns:write"])).await.unwrap();
    check(&by_role, scoped("", "n", &["dns:read"]), not_held).await;
    check(&by_role, with_roles("", "n", &[ADMIN]), not_held).await;
    // Environment: a test key neither makes nor ends live ones.
    let tester = CreateKeyRequest {
        environment: Environment::Test.into(),
        ..scoped("", "tester", &["org:admin"])
    };
    let tester = acme.admin.with_key(&acme.admin.create_key(tester).await.unwrap().secret);
    for environment in [Environment::Live, Environment::Unspecified] {
        let request =
            CreateKeyRequest { environment: environment.into(), ..scoped("", "n", &["a:b"]) };
        check(&tester, request, "ENVIRONMENT_NOT_HELD").await;
    }
    let test_key =
        CreateKeyRequest { environment: Environment::Test.into(), ..scoped("", "t", &["a:b"]) };
    tester.create_key(test_key).await.unwrap();
    let (live, _) = acme.key("live", &["a:b"]).await;
    let status = refused(tester.revoke("", &live).await, Code::PermissionDenied, "test key");
    assert_eq!(reason(&status), "ENVIRONMENT_NOT_HELD");
    // Services.
    let some = |services: &[&str]| Some(ServiceAccess { services: texts(services) });
    let listed = CreateKeyRequest {
        services: some(&["keyledger", "dns"]),
        ..scoped("", "listed", &["org:admin"])
    };
    let listed = acme.admin.with_key(&acme.admin.create_key(listed).await.unwrap().secret);
    for services in [None, some(&["waf"]), some(&["dns", "waf"])] {
        let request = CreateKeyRequest { services, ..scoped("", "n", &["a:b"]) };
        check(&listed, request, "SERVICE_NOT_HELD").await;
    }
    let request = CreateKeyRequest { services: some(&["dns"]), ..scoped("", "d", &["a:b"]) };
    listed.create_key(request).await.unwrap();
    // Neither scopes nor roles: nothing to give.
    let request = CreateKeyRequest { name: "none".into(), ..Default::default() };
    refused(acme.admin.create_key(request).await, Code::InvalidArgument, "needs `scopes`");
    refused(
        acme.admin.create_key(scoped("", "none", &[])).await,
        Code::InvalidArgument,
        "`scopes.permissions`",
    );
    // Wildcards stand in no key.
    for wild in ["*:*", "dns:*", "*:read"] {
        refused(
            acme.admin.create_key(scoped("", "w", &[wild])).await,
            Code::InvalidArgument,
            "`scopes.permissions`",
        );
    }
    // An operator with few permissions holds no more in an organization either.
    let request = scoped("operator", "helper", &["api-keys:write", "dns:read"]);
    let helper = acme.operator.create_key(request).await.unwrap();
    let helper = acme.operator.with_key(&helper.secret);
    helper.create_key(scoped(&acme.id, "helped", &["dns:read"])).await.unwrap();
    check(&helper, scoped(&acme.id, "n", &["dns:write"]), not_held).await;
    check(&helper, with_roles("operator", "n", &[OPERATOR_ADMIN]), not_held).await;
}

const TOKEN: &str = "an-admin-token-of-24-chars-or-more";

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn may(server: &super::support::Server, key: &str) -> Result<(), Code> {
    let client = server.client(key);
    client.get_status(proto::GetStatusRequest {}).await.map(drop).map_err(|it| it.code())
}

#[tokio::test]
async fn a_configured_token_is_a_key_while_it_is_configured() {
    let home = Home::new();
    let server = home.launch().env("ADMIN_API_TOKEN", TOKEN).start().await;
    // With a key of the configuration none is made.
    assert!(!home.data().join("admin.key").exists());
    assert_eq!(may(&server, TOKEN).await, Ok(()));
    let operator = server.client(TOKEN);
    let id = operator.organization("acme", "vtx", "").await;
    // It is an API key like others: each of the three headers carries it.
    for (header, value) in [
        ("authorization", format!("Bearer {TOKEN}")),
        ("x-api-key", TOKEN.to_owned()),
        ("x-admin-api-key", TOKEN.to_owned()),
    ] {
        let mut request = tonic::Request::new(proto::GetStatusRequest {});
        request.metadata_mut().insert(header, value.parse().unwrap());
        let mut client =
            proto::operator_service_client::OperatorServiceClient::new(server.channel());
        client.get_status(request).await.unwrap();
    }
    // It can be asked about, and it shows nothing of its text.
    assert!(operator.ask(TOKEN, &["anything:at-all"]).await.allowed);
    let request = ListKeysRequest { organization_id: "operator".into(), ..Default::default() };
    let keys = operator.list_keys(request.clone()).await.unwrap().keys;
    assert_eq!(keys.len(), 1);
    assert_eq!((keys[0].name.as_str(), keys[0].masked.as_str()), ("ADMIN_API_TOKEN", "…"));
    server.stop().await;

    // Unchanged over a restart: nothing is written.
    let events = || home.events().iter().filter(|it| !it.stream.starts_with("usage-")).count();
    let before = events();
    let server = home.launch().env("ADMIN_API_TOKEN", TOKEN).start().await;
    assert_eq!(may(&server, TOKEN).await, Ok(()));
    server.stop().await;
    assert_eq!(events(), before);

    // Changed: the old one is revoked; by digest alone: the text of it works.
    let (second, third) = (format!("{TOKEN}-2"), "any text of the administrator's liking");
    let server = home.launch().env("ADMIN_API_TOKEN", &second).start().await;
    assert_eq!(may(&server, TOKEN).await, Err(Code::Unauthenticated));
    assert_eq!(may(&server, &second).await, Ok(()));
    let old = server.client(&second).ask(TOKEN, &[]).await;
    assert_eq!(old.code(), DecisionCode::Revoked);
    server.stop().await;
    let digest = sha256_hex(third);
    let both = |home: &Home| {
        home.launch().env("ADMIN_API_TOKEN", &second).env("KEYLEDGER_ADMIN_KEY_SHA256", &digest)
    };
    let server = both(&home).start().await;
    assert_eq!(may(&server, &second).await, Ok(()));
    assert_eq!(may(&server, third).await, Ok(()));
    // The digest itself opens nothing.
    assert_eq!(may(&server, &digest).await, Err(Code::Unauthenticated));
    server.stop().await;

    // Taken out: gone; the digest's goes on, from the file as well.
    std::fs::write(
        home.path().join("keyledger.toml"),
        format!("admin_key_sha256 = \"{digest}\"\n"),
    )
    .unwrap();
    let server = home.start().await;
    assert_eq!(may(&server, &second).await, Err(Code::Unauthenticated));
    assert_eq!(may(&server, third).await, Ok(()));
    let organizations = server.client(third).list_organizations(Default::default()).await.unwrap();
    assert_eq!(organizations.organizations[0].id, id);
    server.stop().await;

    // One that was revoked, by configuration or by hand, is refused at the start.
    let said = home.launch().env("ADMIN_API_TOKEN", TOKEN).refused();
    assert!(said.contains("the configured key `ADMIN_API_TOKEN` was revoked"), "{said}");
    let server = home.start().await;
    let keys = server.client(third).list_keys(request).await.unwrap().keys;
    let by_digest = keys.iter().find(|key| key.state() == KeyState::Active).unwrap();
    assert_eq!(by_digest.name, "configured admin key");
    server.client(third).revoke("operator", &by_digest.id).await.unwrap();
    assert_eq!(may(&server, third).await, Err(Code::Unauthenticated));
    server.stop().await;
    let said = home.launch().refused();
    assert!(said.contains("the configured key `configured admin key` was revoked"), "{said}");
    // Weak or malformed ones are no start either.
    for (name, value, says) in [
        ("ADMIN_API_TOKEN", "", "at least 24"),
        ("ADMIN_API_TOKEN", "short", "at least 24"),
        ("ADMIN_API_TOKEN", &"x".repeat(513), "at most 512"),
        ("ADMIN_API_TOKEN", "has white space, so it is no token", "visible ASCII"),
        ("KEYLEDGER_ADMIN_KEY_SHA256", "abc", "64 characters of hexadecimal"),
        ("KEYLEDGER_ADMIN_KEY_SHA265", "abc", "`KEYLEDGER_ADMIN_KEY_SHA265` is unknown"),
    ] {
        let said = Home::new().launch().env(name, value).refused();
        assert!(said.contains(says), "{said}");
        assert!(!said.contains(value) || value.len() < 6, "{said}");
    }
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let acme = Acme::new().await;
    let (kept, kept_secret) = acme.key("kept", &["a:b"]).await;
    let (gone, gone_secret) = acme.key("gone", &["a:b"]).await;
    let revoke = RevokeKeyRequest {
        key_id: gone.clone(),
        comment: "no longer needed".into(),
        ..Default::default()
    };
    acme.admin.revoke_key(revoke).await.unwrap();
    let admin_key = acme.home.admin_key();
    let see = async |server: &super::support::Server| {
        let (operator, admin) = (server.client(&admin_key), server.client(&acme.admin_secret));
        let mut status = operator.get_status(proto::GetStatusRequest {}).await.unwrap();
        (status.now, status.clock_ahead_ms) = (None, 0);
        // What is asked here is noted, too: each time later, and what is denied in a summary.
        let mut listed = admin.list_keys(Default::default()).await.unwrap();
        listed.revision = None;
        listed.keys.iter_mut().for_each(|key| key.last_used_at = None);
        let unused = |mut answer: proto::GetKeyResponse| {
            answer.revision = None;
            answer.key.as_mut().unwrap().last_used_at = None;
            answer
        };
        (
            status,
            operator.list_organizations(Default::default()).await.unwrap(),
            listed,
            unused(admin.get_key(get("", &kept)).await.unwrap()),
            unused(admin.get_key(get("", &gone)).await.unwrap()),
            operator.ask(&kept_secret, &["a:b"]).await.code(),
            operator.ask(&gone_secret, &["a:b"]).await.code(),
        )
    };
    let before = see(&acme.server).await;
    assert_eq!(before.0.keys_not_revoked, 3);
    assert_eq!((before.5, before.6), (DecisionCode::Allowed, DecisionCode::Revoked));
    acme.server.kill();
    let killed = acme.home.start().await;
    assert_eq!(see(&killed).await, before);
    killed.stop().await;
    let stopped = acme.home.start().await;
    assert_eq!(see(&stopped).await, before);
    assert_eq!(acme.home.admin_key(), admin_key);
    // Without its file the key goes on: the file is for its owner, not for the server.
    stopped.stop().await;
    std::fs::remove_file(acme.home.data().join("admin.key")).unwrap();
    let server = acme.home.start().await;
    assert_eq!(see(&server).await, before);
    assert!(!acme.home.data().join("admin.key").exists());
    let said = server.stop().await;
    assert!(!said.contains(&admin_key));
}

#[tokio::test]
async fn a_graceful_stop_lets_requests_end() {
    let acme = Acme::new().await;
    let Acme { home, server, operator, id, admin, .. } = acme;
    // One question that waits its full five seconds, and writes that keep coming.
    let waiting = {
        let (operator, stream) = (operator.clone(), format!("org-{id}"));
        tokio::spawn(async move {
            let at_least_revision = vec![StreamRevision { stream, revision: u64::MAX }];
            operator.verify(VerifyRequest { at_least_revision, ..Default::default() }).await
        })
    };
    let (first, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (admin, first) = (admin.clone(), first.clone());
            tokio::spawn(async move {
                let mut made = Vec::new();
                loop {
                    let name = format!("key {writer}-{}", made.len());
                    match admin.create_key(scoped("", &name, &["a:b"])).await {
                        Ok(created) => {
                            made.push(created.key.unwrap().id);
                            let _ = first.send(());
                        }
                        Err(status) => return (made, status),
                    }
                }
            })
        })
        .collect();
    for _ in 0..20 {
        acknowledged.recv().await.unwrap();
    }
    let said = server.stop().await;
    assert!(said.contains("shutting down"));
    assert!(!said.contains("cut off"), "{said}");
    // It got its answer, although the server was going: its wait had ended in vain.
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "REVISION_NOT_REACHED", "{status:?}");
    let server = home.start().await;
    for writer in writers {
        let (made, status) = writer.await.unwrap();
        assert_ne!(status.code(), Code::Internal, "{status:?}");
        for key in made {
            server.client(&home.admin_key()).get_key(get(&id, &key)).await.unwrap();
        }
    }
    server.stop().await;
}

//! The global key: one key of the configuration for one organization, the weakest kind.

use keyledger::proto::{
    CredentialKind, DecisionCode, KeyOrigin, KeyState, ListKeysRequest, VerifyRequest,
};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request};

use crate::support::{ADMIN, Acme, DNS_MANAGER, Home, Launch, OPERATOR_ADMIN, Server, refused};

const GLOBAL: &str = "the one key that every service of ours knows";

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with(launch: Launch, secret: &str, organization: &str) -> Launch {
    launch
        .env("KEYLEDGER_GLOBAL_KEY_SHA256", digest(secret))
        .env("KEYLEDGER_GLOBAL_KEY_ORGANIZATION", organization)
}

/// Acme with a global key, and the server that knows it.
async fn acme() -> (Home, Server, String) {
    let Acme { home, server, id, .. } = Acme::new().await;
    server.stop().await;
    let server = with(home.launch(), GLOBAL, "vtx").start().await;
    (home, server, id)
}

fn shown_as_api_key(text: &str, permissions: &[&str]) -> VerifyRequest {
    VerifyRequest {
        api_key: vec![text.to_owned()],
        permissions: permissions.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn it_is_a_credential_of_its_own_kind_in_its_own_header() {
    let (home, server, id) = acme().await;
    let operator = server.client(&home.admin_key());
    let answer = operator.verify(shown_as_api_key(GLOBAL, &["dns:read"])).await.unwrap();
    assert_eq!(answer.code(), DecisionCode::Allowed);
    assert_eq!(answer.credential_kind(), CredentialKind::GlobalKey);
    assert_eq!(answer.organization_id, id);
    assert_eq!(answer.permissions, ["*:read"]);
    let answer = operator.verify(shown_as_api_key(GLOBAL, &["dns:write"])).await.unwrap();
    assert_eq!(answer.code(), DecisionCode::PermissionDenied);

    // In no other place is it anything.
    let elsewhere = [
        VerifyRequest { credential: GLOBAL.into(), ..Default::default() },
        VerifyRequest { authorization: vec![format!("Bearer {GLOBAL}")], ..Default::default() },
        VerifyRequest { admin_api_key: vec![GLOBAL.into()], ..Default::default() },
        VerifyRequest { admin_api_key: vec![GLOBAL.into()], ..shown_as_api_key(GLOBAL, &[]) },
    ];
    for question in elsewhere {
        assert_eq!(operator.code(question).await, DecisionCode::Malformed);
    }
    // Nor is its digest.
    assert_eq!(
        operator.code(shown_as_api_key(&digest(GLOBAL), &[])).await,
        DecisionCode::Malformed
    );

    // Beside an API key it counts for nothing, whatever comes of that one.
    let admin = home.admin_key();
    let beside =
        VerifyRequest { api_key: vec![GLOBAL.into(), admin.clone()], ..Default::default() };
    let answer = operator.verify(beside).await.unwrap();
    assert_eq!((answer.code(), &*answer.organization_id), (DecisionCode::Allowed, "operator"));
    let wrong = VerifyRequest {
        authorization: vec!["Bearer vtx_unknown".into()],
        ..shown_as_api_key(GLOBAL, &[])
    };
    assert_eq!(operator.code(wrong).await, DecisionCode::Malformed);
    // A master key and a grant's token come before all, and are refused where there is none.
    for stronger in [
        VerifyRequest { master_key: vec!["m".into()], ..shown_as_api_key(&admin, &[]) },
        VerifyRequest {
            authorization: vec!["Bearer klbg_x".into()],
            ..shown_as_api_key(&admin, &[])
        },
    ] {
        assert_eq!(operator.code(stronger).await, DecisionCode::BreakGlassDisabled);
    }
}

#[tokio::test]
async fn it_calls_the_ledger_itself_in_that_header_alone() {
    let (_home, server, _) = acme().await;
    let list = |header: &'static str, value: &str| {
        let mut request = Request::new(ListKeysRequest::default());
        request.metadata_mut().insert(header, value.parse().unwrap());
        let mut client =
            keyledger::proto::key_service_client::KeyServiceClient::new(server.channel());
        async move { client.list_keys(request).await }
    };
    let keys = list("x-api-key", GLOBAL).await.unwrap().into_inner().keys;
    let global = keys.iter().find(|key| key.origin() == KeyOrigin::Global).unwrap();
    assert_eq!((&*global.name, &*global.masked), ("global key", "…"));
    for (header, value) in [
        ("x-admin-api-key", GLOBAL.to_owned()),
        ("authorization", format!("Bearer {GLOBAL}")),
        ("x-master-key", GLOBAL.to_owned()),
        ("authorization", "Bearer klbg_x".to_owned()),
    ] {
        refused(list(header, &value).await, Code::Unauthenticated, "");
    }
}

#[tokio::test]
async fn it_is_there_while_it_is_configured_and_never_again() {
    let (home, server, id) = acme().await;
    let code = async |server: &Server, text: &str| {
        let operator = server.client(&home.admin_key());
        operator.code(shown_as_api_key(text, &[])).await
    };
    assert_eq!(code(&server, GLOBAL).await, DecisionCode::Allowed);
    server.stop().await;
    let facts = home.facts();
    // Unchanged over a restart, by identifier as by prefix: nothing is written.
    let server = with(home.launch(), GLOBAL, &id).start().await;
    assert_eq!(code(&server, GLOBAL).await, DecisionCode::Allowed);
    server.stop().await;
    assert_eq!(home.facts(), facts);

    // Another role or organization is another key, and needs another secret.
    let said =
        with(home.launch(), GLOBAL, "vtx").env("KEYLEDGER_GLOBAL_KEY_ROLE", DNS_MANAGER).refused();
    assert!(said.contains("of another organization or role"), "{said}");
    let server = with(home.launch(), GLOBAL, "vtx").start().await;
    server.client(&home.admin_key()).organization("other", "oth", "").await;
    server.stop().await;
    let said = with(home.launch(), GLOBAL, "oth").refused();
    assert!(said.contains("of another organization or role"), "{said}");

    // Another secret: the one before is revoked, here and in whatever organization.
    let server = with(home.launch(), "another", "oth")
        .env("KEYLEDGER_GLOBAL_KEY_ROLE", "auditor")
        .start()
        .await;
    assert_eq!(code(&server, GLOBAL).await, DecisionCode::Revoked);
    assert_eq!(code(&server, "another").await, DecisionCode::Allowed);
    server.stop().await;
    // None at all: none is in force.
    let server = home.start().await;
    assert_eq!(code(&server, "another").await, DecisionCode::Revoked);
    // One that was is still what it was: an API key beside it decides.
    let beside =
        VerifyRequest { api_key: vec![GLOBAL.into(), home.admin_key()], ..Default::default() };
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.code(beside).await, DecisionCode::Allowed);
    server.stop().await;
    // It does not come back, and keeps nobody from starting.
    let mut server = with(home.launch(), GLOBAL, "vtx").start().await;
    server.process.wait_for(|line| line.contains("was revoked and stays so").then_some(()));
    assert_eq!(code(&server, GLOBAL).await, DecisionCode::Revoked);
}

#[tokio::test]
async fn its_organization_may_end_it() {
    let (home, server, id) = acme().await;
    let operator = server.client(&home.admin_key());
    let keys = operator
        .list_keys(ListKeysRequest { organization_id: id.clone(), ..Default::default() })
        .await
        .unwrap()
        .keys;
    let global = keys.iter().find(|key| key.origin() == KeyOrigin::Global).unwrap();
    assert_eq!(global.state(), KeyState::Active);
    operator.revoke(&id, &global.id).await.unwrap();
    assert_eq!(operator.code(shown_as_api_key(GLOBAL, &[])).await, DecisionCode::Revoked);
    server.stop().await;
    let server = with(home.launch(), GLOBAL, "vtx").start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.code(shown_as_api_key(GLOBAL, &[])).await, DecisionCode::Revoked);
}

#[tokio::test]
async fn what_it_cannot_be_is_refused_at_the_start() {
    let Acme { home, server, .. } = Acme::new().await;
    server.stop().await;
    let role = |role: &str| {
        with(home.launch(), GLOBAL, "vtx").env("KEYLEDGER_GLOBAL_KEY_ROLE", role).refused()
    };
    for wrong in
        ["operator-admin", OPERATOR_ADMIN, "no-such-role", "rol_7ZZZZZZZZZZZZZZZZZZZZZZZZZ"]
    {
        let said = role(wrong);
        assert!(said.contains(&format!("there is no role `{wrong}`")), "{said}");
    }
    for operator in ["operator", "klop"] {
        let said = with(home.launch(), GLOBAL, operator).refused();
        assert!(said.contains("the operator has no global key"), "{said}");
    }
    let said = with(home.launch(), GLOBAL, "nobody").refused();
    assert!(said.contains("there is no organization `nobody`"), "{said}");
    // Another key's secret is no global key's.
    let said = with(home.launch(), "0123456789abcdef01234567", "vtx")
        .env("ADMIN_API_TOKEN", "0123456789abcdef01234567")
        .refused();
    assert!(said.contains("the digest of another key's secret"), "{said}");
    let said = with(home.launch(), "both", "vtx")
        .env("KEYLEDGER_ADMIN_KEY_SHA256", digest("both"))
        .refused();
    assert!(said.contains("the digest of another key's secret"), "{said}");
    // There is nobody yet whose it could be.
    let said = with(Home::new().launch(), GLOBAL, "vtx").refused();
    assert!(said.contains("there is no organization `vtx`"), "{said}");
}

#[tokio::test]
async fn in_production_it_may_not_do_everything() {
    let Acme { home, server, .. } = Acme::new().await;
    server.stop().await;
    let secrets = home.path().join("secrets");
    std::fs::rename(home.data().join("secrets"), &secrets).unwrap();
    let production = |role: &str| {
        let secrets = secrets.to_str().unwrap().to_owned();
        with(home.launch(), GLOBAL, "vtx").env("KEYLEDGER_GLOBAL_KEY_ROLE", role).args(&[
            "--production",
            "--allow-plaintext",
            "--metrics-listen",
            "127.0.0.1:0",
            "--secrets-dir",
            &secrets,
        ])
    };
    for role in ["admin", ADMIN] {
        let said = production(role).refused();
        assert!(said.contains("may not permit everything, as `admin` does"), "{said}");
    }
    production("dns-manager").start().await.stop().await;
}

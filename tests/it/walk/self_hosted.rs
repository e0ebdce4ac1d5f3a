//! Whoever runs it themselves: plans, and an administrator's token from the environment.

use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, KeyState, ListKeysRequest, create_key_request,
};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::support::{Acme, Home, reason, refused, scoped};

const TOKEN: &str = "an-admin-token-of-24-chars-or-more";

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn may(server: &crate::support::Server, key: &str) -> Result<(), Code> {
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
        let status = refused(create("over", over).await, Code::FailedPrecondition, "1 hour");
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

/// An administrator's token mints users' tokens, each for what it is needed for: with the
/// free plan for an hour, with a paid one for good.
#[tokio::test]
async fn an_admin_token_mints_scoped_tokens() {
    let home = Home::new();
    let server = home.launch().env("ADMIN_API_TOKEN", TOKEN).start().await;
    let operator = server.client(TOKEN);
    let mut secrets = Vec::new();
    for (prefix, plan) in [("fre", "free"), ("pay", "paid")] {
        let id = operator.organization(plan, prefix, plan).await;
        // As it is done from outside: by the header that is made for it.
        let mut request =
            tonic::Request::new(scoped(&id, "user 1", &["bots:write", "transcripts:read"]));
        request.metadata_mut().insert("x-admin-api-key", TOKEN.parse().unwrap());
        let mut keys = proto::key_service_client::KeyServiceClient::new(server.channel());
        let made = keys.create_key(request).await.unwrap().into_inner();
        let key = made.key.unwrap();
        match plan {
            "free" => {
                let lives = key.expires_at.unwrap().seconds - key.created_at.unwrap().seconds;
                assert_eq!(lives, 3_600);
            }
            _ => assert!(key.expires_at.is_none()),
        }
        assert!(made.secret.starts_with(&format!("{prefix}_live_")));
        secrets.push(made.secret);
    }
    for secret in &secrets {
        for (wanted, allowed) in
            [("bots:write", true), ("transcripts:read", true), ("recordings:read", false)]
        {
            assert_eq!(operator.ask(secret, &[wanted]).await.allowed, allowed, "{wanted}");
        }
        // A user's token is no administrator's, whichever header carries it.
        assert_eq!(may(&server, secret).await, Err(Code::PermissionDenied));
    }
    server.stop().await;
}

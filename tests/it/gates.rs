//! What permissions ask for beside being held, from the settings file to the answer.

use keyledger::proto::{DecisionCode, ListKeysRequest};
use tonic::Code;

use crate::support::{Acme, Home, Server, reason, scoped};
use DecisionCode::{Allowed, FeatureNotLicensed, MfaRequired};

fn settings(home: &Home, text: &str) {
    std::fs::write(home.path().join("keyledger.toml"), text).unwrap();
}

async fn restarted(home: &Home, server: Server, text: &str) -> Server {
    server.stop().await;
    settings(home, text);
    home.start().await
}

fn rule(permission: &str, rest: &str) -> String {
    format!("[[permission_rules]]\npermission = \"{permission}\"\n{rest}\n")
}

#[tokio::test]
async fn rules_of_the_settings_decide_from_the_next_start_on() {
    let Acme { home, server, admin_secret: key, .. } = Acme::new().await;
    let facts = || home.facts();
    let code = async |server: &Server, permissions: &[&str]| {
        server.client(&home.admin_key()).ask(&key, permissions).await.code()
    };
    assert_eq!(code(&server, &["dns:write", "sso:use"]).await, Allowed);

    let gated = rule("dns:*", "mfa = true") + &rule("sso:*", "feature = \"sso\"");
    let before = facts();
    let server = restarted(&home, server, &gated).await;
    assert_eq!(facts(), before + 2);
    assert_eq!(code(&server, &["cache:purge"]).await, Allowed);
    assert_eq!(code(&server, &["cache:purge", "dns:write"]).await, MfaRequired);
    assert_eq!(code(&server, &["dns:write", "sso:use"]).await, FeatureNotLicensed);
    // The same settings write nothing more, in whatever order they stand.
    let same = rule("sso:*", "feature = \"sso\"") + &rule("dns:*", "mfa = true");
    let server = restarted(&home, server, &same).await;
    assert_eq!(facts(), before + 2);

    let licensed = rule("dns:*", "mfa = true\napi_keys_satisfy_mfa = true")
        + &rule("sso:*", "feature = \"sso\"")
        + "[plans.paid]\nfeatures = [\"sso\"]\n";
    let server = restarted(&home, server, &licensed).await;
    assert_eq!(facts(), before + 4);
    assert_eq!(code(&server, &["dns:write", "sso:use"]).await, Allowed);
    let server = restarted(&home, server, "").await;
    assert_eq!(facts(), before + 7);
    let log = home.events().into_iter().filter(|it| it.stream == "org-operator");
    let types: Vec<String> = log.map(|it| it.json()["type"].as_str().unwrap().to_owned()).collect();
    let count = |wanted: &str| types.iter().filter(|it| *it == wanted).count();
    assert_eq!((count("PermissionRuleDefined"), count("PermissionRuleRemoved")), (3, 2));
    assert_eq!(code(&server, &["dns:write", "sso:use"]).await, Allowed);
    server.stop().await;
    for (text, says) in [
        (rule("dns", "mfa = true"), "`permission_rules[0].permission`"),
        (rule("dns:*", ""), "the rule asks for nothing"),
        ("[plans.paid]\nfeature = \"sso\"".to_owned(), "unknown field `feature`"),
    ] {
        settings(&home, &text);
        let said = home.launch().refused();
        assert!(said.contains(says), "{said}");
    }
}

/// Stopped, the pepper is rotated without the settings: that takes no rule away.
#[tokio::test]
async fn what_runs_without_the_settings_leaves_the_rules_as_they_are() {
    let Acme { home, server, admin_secret: key, .. } = Acme::new().await;
    let text = rule("dns:*", "mfa = true") + "[plans.free]\nfeatures = [\"sso\"]\n";
    restarted(&home, server, &text).await.stop().await;
    let rotate = std::process::Command::new(env!("CARGO_BIN_EXE_keyledger"))
        .args(["operator", "rotate-pepper", "--data-dir"])
        .arg(home.data())
        .output()
        .unwrap();
    assert!(rotate.status.success(), "{}", String::from_utf8_lossy(&rotate.stderr));
    let facts = home.facts();
    let server = home.start().await;
    assert_eq!(home.facts(), facts, "nothing had to be defined again");
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.ask(&key, &["dns:write"]).await.code(), MfaRequired);
}

#[tokio::test]
async fn the_ledgers_own_calls_are_gated_too() {
    let Acme { home, server, admin_secret, id, .. } = Acme::new().await;
    let text = rule("api-keys:write", "mfa = true")
        + &rule("api-keys:read", "feature = \"key-lists\"")
        + &rule("credentials:verify", "mfa = true\napi_keys_satisfy_mfa = true");
    let server = restarted(&home, server, &text).await;
    let (admin, operator) = (server.client(&admin_secret), server.client(&home.admin_key()));
    let facts = home.facts();
    let status = admin.create_key(scoped("", "a", &["dns:read"])).await.unwrap_err();
    assert_eq!((status.code(), &*reason(&status)), (Code::PermissionDenied, "MFA_REQUIRED"));
    let status = operator.create_key(scoped(&id, "a", &["dns:read"])).await.unwrap_err();
    assert_eq!(reason(&status), "MFA_REQUIRED");
    let status = admin.list_keys(ListKeysRequest::default()).await.unwrap_err();
    assert_eq!(
        (status.code(), &*reason(&status)),
        (Code::PermissionDenied, "FEATURE_NOT_LICENSED")
    );
    // The operator gives the licences and needs none.
    let list = ListKeysRequest { organization_id: id, ..Default::default() };
    operator.list_keys(list).await.unwrap();
    assert_eq!(admin.ask(&admin_secret, &["dns:read"]).await.code(), Allowed);
    assert_eq!(admin.ask(&admin_secret, &["api-keys:write"]).await.code(), MfaRequired);
    assert_eq!(home.facts(), facts);
}

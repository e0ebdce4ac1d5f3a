//! The pepper rotates: old keys go on, new ones use the new one, and nothing that was
//! revoked comes back.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use keyledger::proto::{
    DecisionCode, ImportKeysRequest, ImportedKey, KeyState, ListKeysRequest, Scopes,
};
use sha2::{Digest as _, Sha256};

use super::support::{Acme, Client, Home, rejected, scoped, texts, unused};

const TOKEN: &str = "an-admin-token-of-24-chars-or-more";
const FOREIGN: &str = "legacy-0001-0123456789abcdef";

fn operator_verb(home: &Home, verb: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYLEDGER_") {
            command.env_remove(name);
        }
    }
    command.current_dir(home.path()).arg("operator").args(verb);
    command.arg("--data-dir").arg(home.data());
    command
}

#[track_caller]
fn succeeds(output: &Output) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn rotate(home: &Home) -> u64 {
    let output = operator_verb(home, &["rotate-pepper", "--json"]).output().unwrap();
    succeeds(&output)["pepper"].as_u64().unwrap()
}

#[track_caller]
fn peppers(home: &Home) -> Vec<serde_json::Value> {
    let output = operator_verb(home, &["peppers", "--json"]).output().unwrap();
    succeeds(&output)["peppers"].as_array().unwrap().clone()
}

fn pepper_of_each_key(home: &Home) -> Vec<u64> {
    let created = home.events().into_iter().map(|it| it.json());
    let created = created.filter(|it| it["type"] == "KeyCreated");
    created.map(|it| it["data"]["digest"]["pepper"].as_u64().unwrap()).collect()
}

/// Events that somebody decided: what was used and denied is recorded all the time.
fn decided(home: &Home) -> usize {
    let events = home.events();
    let events = events.iter().filter(|it| !it.stream.starts_with("usage-"));
    events.filter(|it| it.json()["type"] != "DenialsSummarized").count()
}

fn import(name: &str) -> ImportKeysRequest {
    let key = ImportedKey {
        sha256: Sha256::digest(FOREIGN.as_bytes()).to_vec(),
        name: name.into(),
        scopes: Some(Scopes { permissions: texts(&["a:b"]) }),
        ..Default::default()
    };
    ImportKeysRequest { keys: vec![key], ..Default::default() }
}

async fn code(client: &Client, secret: &str) -> DecisionCode {
    client.ask(secret, &[]).await.code()
}

#[tokio::test]
async fn old_keys_go_on_and_new_ones_use_the_new_pepper() {
    let acme = Acme::new().await;
    let (_, old) = acme.key("old", &["a:b"]).await;
    let (gone_id, gone) = acme.key("gone", &["a:b"]).await;
    acme.admin.revoke("", &gone_id).await.unwrap();
    acme.admin.import_keys(import("legacy")).await.unwrap();
    // A server in the way is named.
    let output = operator_verb(&acme.home, &["rotate-pepper"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a server is using"));
    assert!(!acme.home.secret_file("pepper-2.key").exists());
    let Acme { home, server, admin_secret, .. } = acme;
    server.stop().await;
    assert_eq!(rotate(&home), 2);
    let file = home.secret_file("pepper-2.key");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(
        std::fs::read(&file).unwrap(),
        std::fs::read(home.secret_file("pepper-1.key")).unwrap()
    );
    let server = home.start().await;
    let (operator, admin) = (server.client(&home.admin_key()), server.client(&admin_secret));
    assert_eq!(code(&operator, &old).await, DecisionCode::Allowed);
    assert_eq!(code(&operator, FOREIGN).await, DecisionCode::Allowed);
    assert_eq!(code(&operator, &gone).await, DecisionCode::Revoked);
    let new = admin.create_key(scoped("", "new", &["a:b"])).await.unwrap().secret;
    assert_eq!(code(&operator, &new).await, DecisionCode::Allowed);
    // A secret is one key, whichever pepper stands for it.
    rejected(admin.import_keys(import("again")).await, "SECRET_IN_USE");
    server.stop().await;
    assert_eq!(pepper_of_each_key(&home), [1, 1, 1, 1, 1, 2]);
    assert_eq!(rotate(&home), 3);
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    for secret in [&old, &new, FOREIGN] {
        assert_eq!(code(&operator, secret).await, DecisionCode::Allowed);
    }
    server.stop().await;
    let listed = peppers(&home);
    let row = |it: &serde_json::Value| {
        let number = |name: &str| it[name].as_u64().unwrap();
        (number("pepper"), number("keys"), number("needed_by"), it["current"] == true)
    };
    // The operator's key, the administrator's, the old one and the imported one need it.
    assert_eq!(
        listed.iter().map(row).collect::<Vec<_>>(),
        [(1, 5, 4, false), (2, 1, 1, false), (3, 0, 0, true)]
    );
}

#[tokio::test]
async fn a_retired_pepper_goes_once_nobody_needs_it() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("last", &["a:b"]).await;
    let Acme { home, server, admin_secret, .. } = acme;
    server.stop().await;
    rotate(&home);
    let first = home.secret_file("pepper-1.key");
    let kept = std::fs::read_to_string(&first).unwrap();
    let mode = || std::fs::set_permissions(&first, PermissionsExt::from_mode(0o600)).unwrap();
    // While keys need it the start is refused by its name, and so is every verb.
    std::fs::remove_file(&first).unwrap();
    let said = home.launch().refused();
    assert!(said.contains("pepper-1.key") && said.contains("missing"), "{said}");
    assert!(said.contains("need it: 3"), "{said}");
    assert!(!first.exists(), "it is not made anew");
    for verb in ["peppers", "rotate-pepper", "reissue"] {
        let output = operator_verb(&home, &[verb]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("pepper-1.key"), "{verb}");
    }
    // Another one in its place is found out.
    std::fs::write(&first, format!("{}\n", "ab".repeat(32))).unwrap();
    mode();
    let said = home.launch().refused();
    assert!(said.contains("pepper-1.key") && said.contains("not the one"), "{said}");
    std::fs::write(&first, &kept).unwrap();
    // All who need it move on.
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    admin.revoke("", &id).await.unwrap();
    let new = admin.create_key(scoped("", "new", &["org:admin"])).await.unwrap();
    let request = ListKeysRequest { state: KeyState::Active.into(), ..Default::default() };
    for key in admin.list_keys(request).await.unwrap().keys {
        if key.name == "admin" {
            server.client(&new.secret).revoke("", &key.id).await.unwrap();
        }
    }
    server.stop().await;
    assert!(operator_verb(&home, &["reissue"]).output().unwrap().status.success());
    assert_eq!(peppers(&home)[0]["removable"], true);
    std::fs::remove_file(&first).unwrap();
    assert_eq!(peppers(&home)[0]["present"], false);
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(code(&operator, &new.secret).await, DecisionCode::Allowed);
    // What is not known any more is refused as well.
    assert_eq!(code(&operator, &secret).await, DecisionCode::Unknown);
    server.stop().await;
    // The current one is never dispensable, and neither is one that is open to others.
    let second = home.secret_file("pepper-2.key");
    std::fs::set_permissions(&second, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(home.launch().refused().contains("chmod 600"));
    std::fs::remove_file(&second).unwrap();
    let said = home.launch().refused();
    assert!(said.contains("missing"), "{said}");
}

/// A secret from elsewhere needs its pepper for good: without it a revoked one would come
/// back under the next.
#[tokio::test]
async fn a_revoked_secret_from_elsewhere_keeps_its_pepper() {
    let acme = Acme::new().await;
    let made = acme.admin.import_keys(import("legacy")).await.unwrap();
    acme.admin.revoke("", &made.keys[0].id).await.unwrap();
    let Acme { home, server, .. } = acme;
    server.stop().await;
    rotate(&home);
    let needed = peppers(&home)[0]["needed_by"].as_u64();
    assert_eq!(needed, Some(3));
}

#[tokio::test]
async fn a_configured_key_stays_the_same_key_and_a_revoked_one_stays_revoked() {
    let home = Home::new();
    let launch = || home.launch().env("ADMIN_API_TOKEN", TOKEN);
    let by_digest = "another secret of the administrator";
    let hex: String =
        Sha256::digest(by_digest.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let both = || launch().env("KEYLEDGER_ADMIN_KEY_SHA256", &hex);
    let keys = async |client: &Client| {
        let request = ListKeysRequest { organization_id: "operator".into(), ..Default::default() };
        let keys = client.list_keys(request).await.unwrap().keys;
        keys.into_iter().map(unused).collect::<Vec<_>>()
    };
    let server = both().start().await;
    let before = keys(&server.client(TOKEN)).await;
    assert_eq!(before.len(), 2);
    server.stop().await;
    for _ in 0..2 {
        rotate(&home);
        let events = decided(&home);
        let server = both().start().await;
        assert_eq!(keys(&server.client(TOKEN)).await, before);
        assert_eq!(keys(&server.client(by_digest)).await, before);
        server.stop().await;
        assert_eq!(decided(&home), events, "a start wrote events");
    }
    // Revoked under the first pepper, the secret does not come back under the third.
    let server = both().start().await;
    for key in &before {
        if key.name == "ADMIN_API_TOKEN" {
            server.client(by_digest).revoke("operator", &key.id).await.unwrap();
        }
    }
    server.stop().await;
    let said = both().refused();
    assert!(said.contains("the configured key `ADMIN_API_TOKEN` was revoked"), "{said}");
    rotate(&home);
    let said = both().refused();
    assert!(said.contains("the configured key `ADMIN_API_TOKEN` was revoked"), "{said}");
}

/// A secret that was known by its digest and revoked does not come back as a text.
#[tokio::test]
async fn a_revoked_digest_is_not_revived_by_its_text() {
    let home = Home::new();
    let hex: String =
        Sha256::digest(TOKEN.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let server = home.launch().env("KEYLEDGER_ADMIN_KEY_SHA256", &hex).start().await;
    assert_eq!(code(&server.client(TOKEN), TOKEN).await, DecisionCode::Allowed);
    server.stop().await;
    // As a text it is the same key, and nothing is written.
    let events = decided(&home);
    let server = home.launch().env("ADMIN_API_TOKEN", TOKEN).start().await;
    server.stop().await;
    assert_eq!(decided(&home), events);
    home.start().await.stop().await;
    for rotated in [false, true] {
        if rotated {
            rotate(&home);
        }
        let said = home.launch().env("ADMIN_API_TOKEN", TOKEN).refused();
        assert!(said.contains("was revoked"), "{said}");
    }
}

#[tokio::test]
async fn a_rotation_can_be_cut_off_anywhere() {
    let acme = Acme::new().await;
    let (_, old) = acme.key("old", &["a:b"]).await;
    let Acme { home, server, .. } = acme;
    server.stop().await;
    let rotated = |home: &Home| {
        home.events().iter().filter(|it| it.json()["type"] == "PepperRotated").count()
    };
    // With a draft of the file, and no more.
    std::fs::write(home.secret_file(".pepper-2.key.new"), "half").unwrap();
    let server = home.start().await;
    assert_eq!(code(&server.client(&home.admin_key()), &old).await, DecisionCode::Allowed);
    server.stop().await;
    // With the file, and without its event: nothing is made under it, and it is taken up.
    let file = home.secret_file("pepper-2.key");
    std::fs::write(&file, format!("{}\n", "0123456789abcdef".repeat(4))).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(code(&operator, &old).await, DecisionCode::Allowed);
    operator.create_key(scoped("operator", "made meanwhile", &["a:b"])).await.unwrap();
    server.stop().await;
    assert!(pepper_of_each_key(&home).iter().all(|pepper| *pepper == 1));
    let kept = std::fs::read(&file).unwrap();
    assert_eq!((rotate(&home), rotated(&home)), (2, 1));
    assert_eq!(std::fs::read(&file).unwrap(), kept, "the file of the first try is taken up");
    // Killed at any moment: what is there serves, and the next try goes on.
    let mut cut = BTreeSet::new();
    for delay_us in (0..30).map(|round| round * 700) {
        let before = rotated(&home);
        let mut child = operator_verb(&home, &["rotate-pepper"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        let _ = child.kill();
        child.wait().unwrap();
        let next = before + 2;
        let there = home.secret_file(&format!("pepper-{next}.key")).exists();
        let recorded = rotated(&home) > before;
        assert!(there || !recorded, "the event came before its file");
        cut.insert((there, recorded));
    }
    eprintln!("cut off with (file, event): {cut:?}");
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(code(&operator, &old).await, DecisionCode::Allowed);
    let new = operator.create_key(scoped("operator", "after all", &["a:b"])).await.unwrap();
    assert_eq!(code(&operator, &new.secret).await, DecisionCode::Allowed);
    server.stop().await;
}

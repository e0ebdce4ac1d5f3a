//! From a data directory to an engine, byte by byte.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use keyledger::proto::DecisionCode;

use super::Target;
use crate::engine::Engine;
use crate::support::{Acme, Home, StoredEvent, leaf_hash};

fn migrate(from: &Home, url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYLEDGER_") {
            command.env_remove(name);
        }
    }
    command.current_dir(from.path()).args(["migrate", "--json", "--from"]).arg(from.data());
    command.env("KEYLEDGER_STORE", url).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A history with a few organizations; gives a key of one, and one that was revoked.
async fn history() -> (Home, String, String) {
    let acme = Acme::new().await;
    for name in ["globex", "initech"] {
        acme.operator.organization(name, &name[..3], "").await;
    }
    let (_, kept) = acme.key("kept", &["a:b"]).await;
    let (id, revoked) = acme.key("revoked", &["a:b"]).await;
    acme.admin.revoke("", &id).await.unwrap();
    assert_eq!(acme.code(&kept).await, DecisionCode::Allowed);
    let Acme { home, server, .. } = acme;
    server.stop().await;
    (home, kept, revoked)
}

/// The stored bytes of each stream, in order.
fn streams<'a>(
    events: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> BTreeMap<&'a str, Vec<&'a [u8]>> {
    let mut streams = BTreeMap::<&str, Vec<&[u8]>>::new();
    for (stream, stored) in events {
        streams.entry(stream).or_default().push(stored);
    }
    streams
}

fn assert_same(source: &[StoredEvent], engine: &Engine) {
    let state = engine.state();
    let target = state.log.ours();
    let there = streams(target.iter().map(|it| (&*it.stream, &*it.data)));
    assert_eq!(there, streams(source.iter().map(|it| (&*it.stream, &*it.stored))));
    for entry in target {
        let beside: serde_json::Value = serde_json::from_slice(&entry.custom_metadata).unwrap();
        let hash: String = leaf_hash(&entry.data).iter().map(|it| format!("{it:02x}")).collect();
        assert_eq!(beside["leaf_hash"], hash.as_str());
        let json: serde_json::Value = serde_json::from_slice(&entry.data).unwrap();
        assert_eq!(json["type"], entry.metadata["type"].as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrated_history_is_the_same_and_is_served() {
    for target in Target::all("migration") {
        let (home, kept, revoked) = history().await;
        let url = format!("{}&lease=1500", target.url());
        let output = migrate(&home, &url).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let events = home.events();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["events"], events.len());
        assert_eq!(told["resumed"], 0);
        if let Target::StandIn(engine) = &target {
            assert_same(&events, engine);
        }
        // The database is not needed any more.
        std::fs::rename(home.database(), home.path().join("old.db")).unwrap();
        let secrets = home.data().join("secrets");
        let launch = home.launch().env("KEYLEDGER_STORE", &url);
        let server = launch.env("KEYLEDGER_SECRETS_DIR", secrets).start().await;
        let operator = server.client(&home.admin_key());
        assert_eq!(operator.ask(&kept, &[]).await.code(), DecisionCode::Allowed);
        assert_eq!(operator.ask(&revoked, &[]).await.code(), DecisionCode::Revoked);
        operator.organization("umbrella", "umb", "").await;
        server.stop().await;

        std::fs::rename(home.path().join("old.db"), home.database()).unwrap();
        let again = migrate(&home, &url).output().unwrap();
        assert_eq!(again.status.code(), Some(1));
        assert!(said(&again).contains("has ended already"), "{}", said(&again));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_cut_short_goes_on() {
    let (home, kept, _) = history().await;
    let engine = Engine::start();
    let url = format!("{}&lease=1500", engine.url());
    // Its registration, its word that it begins, and two streams.
    engine.hold_appends_after(4);
    let mut cut = migrate(&home, &url).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    engine.wait_until(|state| state.appends > 4);
    cut.kill().unwrap();
    cut.wait().unwrap();
    engine.hold_appends(false);
    let there = engine.state().log.ours().len();
    assert!(there > 0 && there < home.events().len(), "{there} events were carried over");

    // Nothing is served meanwhile, and nothing else may come in.
    let secrets = home.data().join("secrets");
    let serve = || {
        let launch = home.launch().env("KEYLEDGER_STORE", &url);
        launch.env("KEYLEDGER_SECRETS_DIR", &secrets)
    };
    let refused = serve().refused();
    assert!(refused.contains("was begun and is not ended"), "{refused}");
    let (other, ..) = history().await;
    let output = migrate(&other, &url).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("a migration of another history"), "{}", said(&output));

    let output = migrate(&home, &url).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["resumed"].as_u64().unwrap() >= there as u64 - 1, "{told}");
    assert_same(&home.events(), &engine);
    let server = serve().start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.ask(&kept, &[]).await.code(), DecisionCode::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_migrated_over_anything() {
    let (home, kept, _) = history().await;
    let engine = Engine::start();
    let url = format!("{}&lease=1500", engine.url());
    let used = Home::new();
    let launch = used.launch().env("KEYLEDGER_STORE", &url);
    let server = launch.env("KEYLEDGER_SECRETS_DIR", used.data().join("secrets")).start().await;
    // Not while a node runs on it, and not afterwards.
    let output = migrate(&home, &url).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("another node is running"), "{}", said(&output));
    server.stop().await;
    let output = migrate(&home, &url).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("holds events already"), "{}", said(&output));
    // Beside it there is room, and both are served.
    let beside = format!("{url}&streamPrefix=beside");
    let output = migrate(&home, &beside).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut servers = Vec::new();
    for (home, url) in [(&used, &url), (&home, &beside)] {
        let launch = home.launch().env("KEYLEDGER_STORE", url);
        let secrets = home.data().join("secrets");
        let server = launch.env("KEYLEDGER_SECRETS_DIR", secrets).start().await;
        server.client(&home.admin_key()).organization("beside", "bsd", "").await;
        servers.push(server);
    }
    let operator = servers[1].client(&home.admin_key());
    assert_eq!(operator.ask(&kept, &[]).await.code(), DecisionCode::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_at_the_end_is_found() {
    let (home, ..) = history().await;
    let engine = Engine::start();
    let url = format!("{}&lease=1500", engine.url());
    engine.hold_appends_after(4);
    let mut cut = migrate(&home, &url).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    engine.wait_until(|state| state.appends > 4);
    cut.kill().unwrap();
    cut.wait().unwrap();
    engine.hold_appends(false);
    // Other bytes with their own right hash: only the comparison can tell.
    let stream = engine.state().log.ours()[0].stream.clone();
    engine.state().log.damage(&stream, 0, |entry| {
        entry.data.push(b' ');
        let hash: String = leaf_hash(&entry.data).iter().map(|it| format!("{it:02x}")).collect();
        entry.custom_metadata = format!(r#"{{"leaf_hash":"{hash}"}}"#).into_bytes();
    });
    let output = migrate(&home, &url).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(said.contains(&format!("stream `{stream}` is not the same")), "{said}");
}

#[tokio::test]
async fn what_is_not_a_data_directory_is_not_migrated() {
    let home = Home::new();
    let output = migrate(&home, "esdb://127.0.0.1:1?tls=false").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("holds no `ledger.db`"), "{}", said(&output));
    let output = migrate(&home, "esdb://u:hunter2").output().unwrap();
    assert!(!said(&output).contains("hunter2"), "{}", said(&output));
}

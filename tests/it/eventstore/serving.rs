//! The binary on an engine: through restarts, kills, other nodes, and without contact.

use keyledger::ledger::event_store::{EventStore as _, ReadError};
use keyledger::ledger::urgency::Urgency;
use keyledger::proto::{DecisionCode, UpdateKeyLabelRequest};
use keyledger::store::conformance::event;
use projections::recorded::{Revision, StreamName};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Target, open};
use crate::engine::log::{Append, Entry, Expected};
use crate::engine::{Access, AppendFault, Engine, ReadFault, State};
use crate::support::{
    Acme, DEADLINE, Home, Launch, POLL, Server, about, leaf_hash, reason, refused, rejected, scoped,
};

/// A server on an engine, with the vault where one without would have it.
fn on(launch: Launch, home: &Home, url: &str) -> Launch {
    let secrets = home.data().join("secrets");
    launch.env("KEYLEDGER_STORE", url).env("KEYLEDGER_SECRETS_DIR", secrets)
}

fn with(url: &str, parameters: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{parameters}")
}

async fn acme(url: &str) -> Acme {
    let home = Home::new();
    let secrets = home.data().join("secrets");
    Acme::on(home, |launch| {
        launch.env("KEYLEDGER_STORE", url).env("KEYLEDGER_SECRETS_DIR", secrets)
    })
    .await
}

async fn code(server: &Server, home: &Home, secret: &str) -> DecisionCode {
    server.client(&home.admin_key()).ask(secret, &[]).await.code()
}

#[tokio::test]
async fn keys_live_through_restarts_and_kills_on_an_engine() {
    for target in Target::all("restarts") {
        let url = with(&target.url(), "lease=3000");
        let acme = acme(&url).await;
        let (_, kept) = acme.key("kept", &["a:b"]).await;
        let (id, revoked) = acme.key("revoked", &["a:b"]).await;
        assert_eq!(acme.code(&kept).await, DecisionCode::Allowed);
        assert_eq!(acme.code(&revoked).await, DecisionCode::Allowed);
        acme.admin.revoke("", &id).await.unwrap();
        assert_eq!(acme.code(&revoked).await, DecisionCode::Revoked);
        let Acme { home, server, id: organization, .. } = acme;
        server.stop().await;

        let server = on(home.launch(), &home, &url).start().await;
        assert_eq!(code(&server, &home, &kept).await, DecisionCode::Allowed);
        assert_eq!(code(&server, &home, &revoked).await, DecisionCode::Revoked);
        let operator = server.client(&home.admin_key());
        let made = operator.create_key(scoped(&organization, "late", &["a:b"])).await.unwrap();
        server.kill();

        // It knows its own registration, and need not wait for the lease to end.
        let server = on(home.launch(), &home, &url).start().await;
        for (secret, wanted) in [
            (&kept, DecisionCode::Allowed),
            (&revoked, DecisionCode::Revoked),
            (&made.secret, DecisionCode::Allowed),
        ] {
            assert_eq!(code(&server, &home, secret).await, wanted);
        }
        server.stop().await;
        // Verbs that open the directories themselves go the same way.
        for verb in [&["operator", "reissue"][..], &["projections", "verify"]] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keyledger"));
            command.args(verb).current_dir(home.path()).arg("--data-dir").arg(home.data());
            command.arg("--secrets-dir").arg(home.data().join("secrets"));
            let output = command.env("KEYLEDGER_STORE", &url).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        if let Target::StandIn(engine) = &target {
            let state = engine.state();
            assert_eq!(state.unconditional, 0, "an append without its revision");
            let ours = state.log.ours();
            assert!(ours.len() > 10, "the engine holds the events");
            for entry in ours {
                assert_eq!(entry.metadata["content-type"], "application/json");
                let json: serde_json::Value = serde_json::from_slice(&entry.data).unwrap();
                assert_eq!(json["type"], entry.metadata["type"].as_str());
            }
            assert!(!home.database().exists(), "no database of its own");
        }
    }
}

#[tokio::test]
async fn a_second_node_is_refused_and_comes_in_once_the_first_has_left() {
    for target in Target::all("second node") {
        let url = with(&target.url(), "lease=4000");
        let acme = acme(&url).await;
        let (_, secret) = acme.key("ci", &["a:b"]).await;
        let other = Home::new();
        let secrets = acme.home.data().join("secrets");
        let with_url = |url: &str| {
            let launch = other.launch().env("KEYLEDGER_STORE", url);
            launch.env("KEYLEDGER_SECRETS_DIR", &secrets)
        };
        let second = || with_url(&url);
        // Nor by being impatient itself.
        let said = with_url(&with(&target.url(), "lease=500")).refused();
        assert!(said.contains("another node is running on this event store: nod_"), "{said}");
        let said = second().refused();
        assert!(said.contains("another node is running on this event store: nod_"), "{said}");
        assert!(said.contains("stop that one"), "{said}");
        // On the same data directory it does not even have to ask.
        let said = on(acme.home.launch(), &acme.home, &url).refused();
        assert!(said.contains("is in use by another keyledger"), "{said}");
        assert_eq!(acme.code(&secret).await, DecisionCode::Allowed, "the first goes on");

        let Acme { home, server, .. } = acme;
        server.stop().await;
        let server = second().start().await;
        let code = server.client(&home.admin_key()).ask(&secret, &[]).await.code();
        assert_eq!(code, DecisionCode::Allowed);
        server.kill();
        // One that was killed has not left: its lease must end first, and then it may be taken.
        let server = on(home.launch(), &home, &url).start().await;
        assert_eq!(self::code(&server, &home, &secret).await, DecisionCode::Allowed);
    }
}

#[tokio::test]
async fn a_node_that_is_replaced_stops() {
    let engine = Engine::start();
    let mut acme = acme(&with(&engine.url(), "lease=600")).await;
    let about = r#"{"node":"nod_00000000000000000000000000","host":"elsewhere","lease_ms":600}"#;
    let entry = Entry {
        stream: String::new(),
        revision: 0,
        id: "00000000-0000-4000-8000-00000000ffff".into(),
        metadata: [("type".to_owned(), "NodeRegistered".to_owned())].into(),
        custom_metadata: Vec::new(),
        data: about.into(),
        position: 0,
        gone: false,
    };
    let stream = "node-registration".to_owned();
    let append = Append { stream, expected: Expected::Any, entries: vec![entry] };
    engine.state().log.append(append).unwrap();
    let status = acme.server.process.wait();
    let said = acme.server.process.said();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("another node has registered"), "{said}");
}

#[tokio::test]
async fn without_contact_nothing_is_answered() {
    let engine = Engine::start();
    let acme = acme(&with(&engine.url(), "lease=900&defaultDeadline=200")).await;
    let (_, secret) = acme.key("ci", &["a:b"]).await;
    let mut stream = acme.operator.verify_stream().await.unwrap();
    let decision = stream.decide(1, about(&secret, &[])).await.unwrap();
    assert!(decision.allowed);
    engine.kill(0);
    let until = std::time::Instant::now() + DEADLINE;
    let status = loop {
        match acme.operator.verify(about(&secret, &[])).await {
            Err(status) => break status,
            Ok(answer) => assert!(answer.allowed),
        }
        assert!(std::time::Instant::now() < until, "it goes on answering");
        tokio::time::sleep(POLL).await;
    };
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "NO_CONTACT"));
    stream.send(2, about(&secret, &[])).await;
    refused(stream.answer().await, Code::Unavailable, "may answer");
    let wait = async |wanted| {
        while acme.server.health().await.unwrap() != wanted {
            assert!(std::time::Instant::now() < until, "health never says {wanted:?}");
            tokio::time::sleep(POLL).await;
        }
    };
    wait(ServingStatus::NotServing).await;
    engine.revive(0);
    wait(ServingStatus::Serving).await;
    assert_eq!(acme.code(&secret).await, DecisionCode::Allowed);
    let (_, other) = acme.key("other", &["a:b"]).await;
    assert_eq!(acme.code(&other).await, DecisionCode::Allowed);
}

/// Asks about a credential until the node says that it has no leave to answer.
async fn wait_for_no_contact(acme: &Acme, secret: &str) {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        match acme.operator.verify(about(secret, &[])).await {
            Err(status) => return assert_eq!(reason(&status), "NO_CONTACT"),
            Ok(_) => assert!(std::time::Instant::now() < until, "it goes on answering"),
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn wait_for_contact(acme: &Acme) {
    let until = std::time::Instant::now() + DEADLINE;
    while acme.operator.verify(about("none", &[])).await.is_err() {
        assert!(std::time::Instant::now() < until, "it never answers again");
        tokio::time::sleep(POLL).await;
    }
}

/// Revokes a key beside whatever happens meanwhile.
fn revoking(acme: &Acme, id: &str) -> tokio::task::JoinHandle<Result<u64, tonic::Status>> {
    let (admin, id) = (acme.admin.clone(), id.to_owned());
    tokio::spawn(async move { admin.revoke("", &id).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_outlives_its_lease_is_not_acknowledged() {
    let engine = Engine::start();
    let acme = acme(&with(&engine.url(), "lease=1500")).await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    engine.fail_appends(&[AppendFault::SilentAfterCommit]);
    let revoking = revoking(&acme, &id);
    engine.wait_until(|state| of_type(state, "KeyRevoked") == 1);
    // It is written. That it was cannot be read before the lease is over.
    engine.fail_reads(Some(ReadFault::Refuse));
    engine.refuse_appends_to(&["node-"]);
    wait_for_no_contact(&acme, &secret).await;
    engine.fail_reads(None);
    let status = rejected(revoking.await.unwrap(), "OUTCOME_UNKNOWN");
    assert_eq!(status.code(), Code::Unavailable);
    engine.refuse_appends_to(&[]);
    wait_for_contact(&acme).await;
    assert_eq!(acme.code(&secret).await, DecisionCode::Revoked, "it is known here");
    assert_eq!(count(&engine, "KeyRevoked"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_once_the_lease_is_over() {
    let engine = Engine::start();
    let acme = acme(&with(&engine.url(), "lease=1500")).await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    engine.refuse_appends_to(&["org-", "node-"]);
    let first = revoking(&acme, &id);
    // A renewal was refused, so none is on its way that could still be taken.
    engine.wait_until(|state| state.refused_appends.iter().any(|it| it.starts_with("node-")));
    wait_for_no_contact(&acme, &secret).await;
    // It would be taken now.
    engine.refuse_appends_to(&["node-"]);
    rejected(first.await.unwrap(), "OUTCOME_UNKNOWN");
    assert_eq!(count(&engine, "KeyRevoked"), 0);
    engine.refuse_appends_to(&[]);
    wait_for_contact(&acme).await;
    assert_eq!(acme.code(&secret).await, DecisionCode::Allowed);
    acme.admin.revoke("", &id).await.unwrap();
    assert_eq!(acme.code(&secret).await, DecisionCode::Revoked);
}

/// A home whose data directory holds a copy of another's name.
fn copied(home: &Home) -> Home {
    let copy = Home::new();
    std::fs::create_dir_all(copy.data()).unwrap();
    for name in ["node.id", "admin.key"] {
        std::fs::copy(home.data().join(name), copy.data().join(name)).unwrap();
    }
    copy
}

/// A launch on the copy, with the vault of the first.
fn beside(copy: &Home, home: &Home, url: &str) -> Launch {
    let launch = copy.launch().env("KEYLEDGER_STORE", url);
    launch.env("KEYLEDGER_SECRETS_DIR", home.data().join("secrets"))
}

#[tokio::test]
async fn a_copied_name_is_another_node() {
    let engine = Engine::start();
    let url = with(&engine.url(), "lease=3000");
    let acme = acme(&url).await;
    let (_, secret) = acme.key("ci", &["a:b"]).await;
    let copy = copied(&acme.home);
    let said = beside(&copy, &acme.home, &url).refused();
    assert!(said.contains("another node is running on this event store: nod_"), "{said}");
    assert_eq!(acme.code(&secret).await, DecisionCode::Allowed, "the first goes on");
    let Acme { home, server, .. } = acme;
    server.kill();
    let server = beside(&copy, &home, &url).start().await;
    assert_eq!(code(&server, &home, &secret).await, DecisionCode::Allowed);
    let said = on(home.launch(), &home, &url).refused();
    assert!(said.contains("another node is running on this event store: nod_"), "{said}");
}

#[tokio::test]
async fn a_node_that_stood_still_answers_nothing() {
    let engine = Engine::start();
    let url = with(&engine.url(), "lease=1500");
    let mut acme = acme(&url).await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    assert_eq!(acme.code(&secret).await, DecisionCode::Allowed);
    acme.server.process.signal("STOP");
    // By the same name, too: it is not taken for the same node.
    let copy = copied(&acme.home);
    let server = beside(&copy, &acme.home, &url).start().await;
    let operator = server.client(&acme.home.admin_key());
    operator.revoke(&acme.id, &id).await.unwrap();
    acme.server.process.signal("CONT");
    for _ in 0..3 {
        assert!(acme.operator.verify(about(&secret, &[])).await.is_err());
    }
    let status = acme.server.process.wait();
    let said = acme.server.process.said();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("another node has registered"), "{said}");
    assert_eq!(operator.ask(&secret, &[]).await.code(), DecisionCode::Revoked);
}

#[tokio::test]
async fn installations_share_an_engine() {
    let engine = Engine::start();
    let urls = ["", "streamPrefix=a", "streamPrefix=a_b", "streamPrefix=a_b_"]
        .map(|prefix| with(&engine.url(), prefix));
    let mut all = Vec::new();
    for url in &urls {
        let acme = acme(url).await;
        let (_, secret) = acme.key("ci", &["a:b"]).await;
        all.push((acme, secret));
    }
    engine.state().log.write("order-1", "OrderPlaced", b"{}");
    let mut running = Vec::new();
    for ((acme, secret), url) in all.into_iter().zip(&urls) {
        let Acme { home, server, .. } = acme;
        server.stop().await;
        // All of history is read: none of it is another's.
        std::fs::remove_file(home.data().join("projections.db")).unwrap();
        let server = on(home.launch(), &home, url).start().await;
        assert_eq!(code(&server, &home, &secret).await, DecisionCode::Allowed, "{url}");
        running.push((home, server, secret));
    }
    for (_, server, secret) in &running {
        for (home, other, _) in &running {
            let wanted = match server.address == other.address {
                true => DecisionCode::Allowed,
                false => DecisionCode::Unknown,
            };
            assert_eq!(code(other, home, secret).await, wanted);
        }
    }
    // What a newer version has written stops this one, and nobody else.
    engine.state().log.write("a_keyledger.lease-1", "LeaseTaken", b"{}");
    for ((home, server, _), url) in running.into_iter().zip(&urls) {
        server.stop().await;
        let launch = on(home.launch(), &home, url);
        if *url == urls[1] {
            let said = launch.refused();
            assert!(said.contains("`lease-1` is of a kind unknown to this version"), "{said}");
        } else {
            launch.start().await.stop().await;
        }
    }
}

#[tokio::test]
async fn what_was_truncated_stops_its_organization_alone() {
    for how in ["truncated", "deleted", "deleted for good"] {
        let engine = Engine::start();
        let acme = acme(&engine.url()).await;
        let (_, secret) = acme.key("ci", &["a:b"]).await;
        let globex = acme.operator.organization("globex", "glx", "").await;
        let made = acme.operator.create_key(scoped(&globex, "ci", &["a:b"])).await.unwrap();
        let Acme { home, server, id, .. } = acme;
        server.stop().await;
        let stream = format!("org-{id}");
        // Nothing is scavenged: whoever reads all streams still finds every event.
        match how {
            "truncated" => engine.state().log.set_metadata(&stream, r#"{"$tb":3}"#),
            "deleted" => {
                engine.state().log.set_metadata(&stream, r#"{"$tb":9223372036854775807}"#);
            }
            _ => engine.state().log.tombstone(&stream, false),
        }
        let server = on(home.launch(), &home, &engine.url()).start().await;
        let operator = server.client(&home.admin_key());
        let until = std::time::Instant::now() + DEADLINE;
        while operator.verify(about(&secret, &[])).await.is_ok() {
            assert!(std::time::Instant::now() < until, "{how}: nobody noticed");
            tokio::time::sleep(POLL).await;
        }
        rejected(operator.verify(about(&secret, &[])).await, "ORGANIZATION_STOPPED");
        assert_eq!(operator.ask(&made.secret, &[]).await.code(), DecisionCode::Allowed, "{how}");
        server.stop().await;
        if how != "deleted for good" {
            // It can be taken back until somebody scavenges.
            engine.state().log.set_metadata(&stream, "{}");
            let server = on(home.launch(), &home, &engine.url()).start().await;
            assert_eq!(code(&server, &home, &secret).await, DecisionCode::Allowed, "{how}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_file_that_is_half_written_ends_nothing() {
    // The stand-in is in this process. Another test may have said the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let home = Home::new();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let access = Access { user: None, tls: Some((pem.clone(), key, None)) };
    let engine = Engine::with(1, access);
    let ca_file = home.path().join("ca.pem");
    std::fs::write(&ca_file, &pem).unwrap();
    let ca = ca_file.display();
    let url = format!("esdb://{}?tlsCaFile={ca}&defaultDeadline=400", engine.hosts());
    let store = open(&url).await;
    let stream = StreamName::from_store("org-a");
    let append = |expected: Option<u64>, number| {
        store.append(&stream, expected.map(Revision), vec![event(number, 300)], Urgency::Normal)
    };
    append(None, 0).await.unwrap();
    for (number, half) in (1..).zip(["", &pem[..pem.len() / 2], &pem.replace('M', "!")]) {
        std::fs::write(&ca_file, half).unwrap();
        engine.kill(0);
        // Nobody answers, and no other client can be made: not for what is to be written, nor
        // for what is read meanwhile.
        let append = append(Some(number - 1), number);
        for _ in 0..5 {
            let read = store.read_stream(&stream, Revision::FIRST, 9).await;
            assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
        }
        engine.revive(0);
        std::fs::write(&ca_file, &pem).unwrap();
        let appended = tokio::time::timeout(DEADLINE, append).await;
        assert_eq!(appended.expect("the lane goes on"), Ok(Revision(number)));
    }
}

/// How many events of a type an engine holds.
fn of_type(state: &State, event_type: &str) -> usize {
    state.log.ours().iter().filter(|entry| entry.metadata["type"] == event_type).count()
}

/// How many events of a type an engine holds.
fn count(engine: &Engine, event_type: &str) -> usize {
    of_type(&engine.state(), event_type)
}

#[tokio::test]
async fn what_is_cut_off_is_neither_doubled_nor_lost() {
    let engine = Engine::start();
    let acme = acme(&with(&engine.url(), "lease=300000&defaultDeadline=500")).await;
    let before = count(&engine, "KeyCreated");
    let faults: &[&[AppendFault]] = &[
        &[AppendFault::CutAfterCommit],
        &[AppendFault::CutBeforeCommit],
        &[AppendFault::SilentAfterCommit],
        &[AppendFault::LieAboutRevision],
        &[AppendFault::LateCommit],
        &[AppendFault::NoLeader],
        &[AppendFault::CutBeforeCommit, AppendFault::CutAfterCommit],
        &[AppendFault::LateCommit, AppendFault::CutBeforeCommit, AppendFault::SilentAfterCommit],
    ];
    let mut keys = Vec::new();
    for (number, faults) in (1..).zip(faults) {
        engine.fail_appends(faults);
        let (id, secret) = acme.key(&format!("key-{number}"), &["a:b"]).await;
        // What was held up on the way comes now, and must not count.
        engine.commit_late();
        assert_eq!(count(&engine, "KeyCreated"), before + number, "after {faults:?}");
        assert_eq!(acme.code(&secret).await, DecisionCode::Allowed, "after {faults:?}");
        keys.push((id, secret));
    }
    engine.fail_appends(&[AppendFault::CutAfterCommit]);
    acme.admin.revoke("", &keys[0].0).await.unwrap();
    assert_eq!(count(&engine, "KeyRevoked"), 1);
    assert_eq!(engine.state().blind, 0, "tried again without reading back");
    let Acme { home, server, .. } = acme;
    server.kill();
    let server = on(home.launch(), &home, &engine.url()).start().await;
    for (number, (_, secret)) in keys.iter().enumerate() {
        let wanted = if number == 0 { DecisionCode::Revoked } else { DecisionCode::Allowed };
        assert_eq!(code(&server, &home, secret).await, wanted);
    }
}

/// Writes what another node might have: the last event of a type once more, with another
/// identifier and something else in it.
fn write_as_another(engine: &Engine, event_type: &str, what: &str, instead: &str) {
    let mut state = engine.state();
    let last = state.log.ours().into_iter().rfind(|it| it.metadata["type"] == event_type);
    let mut entry = last.unwrap().clone();
    let text = String::from_utf8(entry.data).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let event_id = json["id"].as_str().unwrap();
    let (head, last) = event_id.split_at(event_id.len() - 1);
    let another = format!("{head}{}", if last == "0" { "1" } else { "0" });
    assert!(text.contains(what), "{text}");
    let text = text.replace(event_id, &another).replace(what, instead);
    let hash: String = leaf_hash(text.as_bytes()).iter().map(|it| format!("{it:02x}")).collect();
    entry.custom_metadata = format!(r#"{{"leaf_hash":"{hash}"}}"#).into_bytes();
    (entry.data, entry.id) = (text.into(), "00000000-0000-4000-9000-000000000001".to_owned());
    let (stream, entries) = (entry.stream.clone(), vec![entry]);
    state.log.append(Append { stream, expected: Expected::Any, entries }).unwrap();
}

#[tokio::test]
async fn what_another_wrote_is_felt_without_a_write() {
    let engine = Engine::start();
    let acme = acme(&engine.url()).await;
    let (first, _) = acme.key("first", &["a:b"]).await;
    let (second, secret) = acme.key("second", &["a:b"]).await;
    acme.admin.revoke("", &first).await.unwrap();
    assert_eq!(acme.code(&secret).await, DecisionCode::Allowed);
    // A revocation that was not acknowledged comes late out of the network.
    write_as_another(&engine, "KeyRevoked", &first, &second);
    acme.wait_for(&secret, DecisionCode::Revoked).await;
    assert_eq!(count(&engine, "KeyRevoked"), 2);
    // As is what an administrator does to a stream meanwhile.
    engine.state().log.set_metadata(&format!("org-{}", acme.id), r#"{"$tb":2}"#);
    let until = std::time::Instant::now() + DEADLINE;
    while acme.operator.verify(about(&secret, &[])).await.is_ok() {
        assert!(std::time::Instant::now() < until, "nobody noticed");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_wrote_is_read_and_the_command_decided_anew() {
    let engine = Engine::start();
    let acme = acme(&with(&engine.url(), "lease=300000")).await;
    let (id, _) = acme.key("one", &["a:b"]).await;
    let relabel = |name: &str| UpdateKeyLabelRequest {
        key_id: id.clone(),
        name: name.to_owned(),
        ..Default::default()
    };
    acme.admin.update_key_label(relabel("two")).await.unwrap();
    // What another node might have written, at the place where this one's next would be,
    // which is decided and on its way.
    engine.hold_appends(true);
    let before = engine.state().appends;
    let admin = acme.admin.clone();
    let making = tokio::spawn(async move { admin.create_key(scoped("", "three", &["a:b"])).await });
    engine.wait_until(|state| state.appends > before);
    write_as_another(&engine, "KeyRelabelled", "\"two\"", "\"six\"");
    engine.hold_appends(false);
    let made = making.await.unwrap().unwrap().key.unwrap().id;
    assert_eq!(acme.get(&id).await.name, "six", "what another wrote is read");
    assert_eq!(acme.get(&made).await.name, "three");
    assert_eq!(count(&engine, "KeyCreated"), 4, "the operator's, the admin's and two");
    let Acme { home, server, .. } = acme;
    server.stop().await;
    on(home.launch(), &home, &engine.url()).start().await.stop().await;
}

#[tokio::test]
async fn another_leader_is_followed() {
    let engine = Engine::with(3, Access::default());
    let acme = acme(&with(&engine.url(), "lease=300000&defaultDeadline=500")).await;
    engine.elect(1);
    let (_, first) = acme.key("first", &["a:b"]).await;
    engine.elect(2);
    engine.kill(1);
    let (_, second) = acme.key("second", &["a:b"]).await;
    engine.kill(0);
    let (_, third) = acme.key("third", &["a:b"]).await;
    for secret in [first, second, third] {
        assert_eq!(acme.code(&secret).await, DecisionCode::Allowed);
    }
    assert_eq!(count(&engine, "KeyCreated"), 5, "the operator's, the admin's and three");
}

#[tokio::test]
async fn what_was_changed_at_the_engine_stops_its_organization() {
    let engine = Engine::start();
    let acme = acme(&engine.url()).await;
    let (_, secret) = acme.key("ci", &["a:b"]).await;
    let Acme { home, server, id, .. } = acme;
    server.stop().await;
    // Still an event that can be read: only its hash knows.
    let stream = format!("org-{id}");
    engine.state().log.damage(&stream, 2, |entry| {
        let text = String::from_utf8(entry.data.clone()).unwrap();
        assert!(text.contains("\"name\":\"ci\""), "{text}");
        entry.data = text.replace("\"name\":\"ci\"", "\"name\":\"cj\"").into_bytes();
    });
    let server = on(home.launch(), &home, &engine.url()).start().await;
    let answer = server.client(&home.admin_key()).verify(about(&secret, &[])).await;
    assert!(!answer.as_ref().is_ok_and(|answer| answer.allowed), "{answer:?}");
}

#[tokio::test]
async fn a_vault_must_be_named_and_be_the_right_one() {
    let engine = Engine::start();
    let home = Home::new();
    let said = home.launch().env("KEYLEDGER_STORE", engine.url()).refused();
    assert!(said.contains("`store`: needs `secrets_dir` beside it"), "{said}");
    let acme = acme(&engine.url()).await;
    acme.key("ci", &["a:b"]).await;
    acme.server.stop().await;
    // History without its vault.
    let said = on(home.launch(), &home, &engine.url()).refused();
    assert!(said.contains("vault.db` is missing; restore it from a backup"), "{said}");
    // The vault without its history.
    let empty = Engine::start();
    let said = on(acme.home.launch(), &acme.home, &empty.url()).refused();
    assert!(said.contains("has kept keys for a history, but the event store at"), "{said}");
}

#[tokio::test]
async fn the_password_is_never_told() {
    const PASSWORD: &str = "hunter2/@:%";
    const ENCODED: &str = "hunter2%2F%40%3A%25";
    let user = format!("keyledger:{PASSWORD}");
    let access = Access { user: Some(user.clone()), tls: None };
    let engine = Engine::with(1, access);
    let hosts = engine.hosts();
    let url = |password: &str| format!("esdb://keyledger:{password}@{hosts}?tls=false");
    let home = Home::new();
    let launch = on(home.launch(), &home, &url(ENCODED));
    let server = launch.args(&["--log", "trace"]).start().await;
    let operator = server.client(&home.admin_key());
    engine.fail_appends(&[AppendFault::CutAfterCommit]);
    operator.organization("acme", "vtx", "").await;
    let mut told = vec![server.stop().await];
    told.push(on(home.launch(), &home, &url("hunter2wrong")).refused());
    assert!(told[1].contains("refuses access; check user and password"), "{}", told[1]);
    for wrong in ["esdb://u:hunter2/x@a", "hunter2", "esdb://u:hunter2@a?b=c"] {
        told.push(on(home.launch(), &home, wrong).refused());
        let flag = home.launch().args(&["--store", wrong, "--secrets-dir", "s"]).refused();
        told.push(flag);
    }
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(&user);
    for said in told {
        for secret in ["hunter2", &basic] {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a password was told");
        }
    }
}

#[tokio::test]
async fn tls_is_spoken_and_both_sides_are_known() {
    // The stand-in is in this process. Another test may have said the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let home = Home::new();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (certificate.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = signed("127.0.0.1");
    let access = Access { user: None, tls: Some((certificate, key, Some(ca_pem.clone()))) };
    let engine = Engine::with(1, access);
    let (client, client_key) = signed("keyledger");
    let ca_file = file("ca.pem", &ca_pem);
    let client = format!(
        "userCertFile={}&userKeyFile={}",
        file("client.pem", &client),
        file("client.key", &client_key)
    );
    let url = |ca: &str, client: &str| format!("esdb://{}?tlsCaFile={ca}&{client}", engine.hosts());
    let good = url(&ca_file, &client);
    let server = on(home.launch(), &home, &good).start().await;
    server.client(&home.admin_key()).organization("acme", "vtx", "").await;
    server.stop().await;

    let stranger = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
    let stranger = file("stranger.pem", &stranger);
    let refusals = [
        (url(&stranger, &client), "does not answer"),
        (url(&ca_file, ""), "does not answer"),
        (url("/nowhere.pem", &client), "parameter `tlsCaFile`: `/nowhere.pem` cannot be read"),
        (format!("esdb://{}?tls=false", engine.hosts()), "is `tls` right?"),
    ];
    for (url, wanted) in refusals {
        let said = on(home.launch(), &home, &url).refused();
        assert!(said.contains(wanted), "{url}: {said}");
    }
}

//! Starts from snapshots, and keys that ended so long ago that they left memory.
//!
//! No test can wait a month: the server is stopped, one event of a month later is written
//! behind the others, and the server goes on from there, for time never runs back.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use keyledger::ledger::event_store::{EventStore as _, NewEvent};
use keyledger::proto::verify_batch_answer::Answer;
use keyledger::proto::{self, DecisionCode, KeyRevocationOutcome, KeyState};
use keyledger::store::embedded::{EmbeddedStore, Options};
use projections::envelope::Envelope;
use projections::event::PolicyUpdated;
use projections::id::EventId;
use projections::policy::Policy;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;
use sha2::Digest as _;
use tonic::Code;

use super::support::{Acme, Client, Home, Server, about, reason, refused, scoped};

const MONTH_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

fn offline(home: &Home, verb: &str) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
    command.args(["projections", verb, "--json", "--data-dir"]).arg(home.data());
    let output = command.current_dir(home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}, {}: {said}", output.status));
    let list = |name: &str| found[name].as_array().map_or(0, Vec::len);
    let whole = found["unusable"].is_null()
        && found["activity_index_differs"] != true
        && list("differing") + list("differing_streams") + list("damaged") == 0;
    assert_eq!(output.status.code(), Some(i32::from(!whole)), "{found}: {said}");
    found
}

/// What `keyledger projections verify` finds, with no server running.
pub(crate) fn verify_projections(home: &Home) -> serde_json::Value {
    offline(home, "verify")
}

fn projections(home: &Home) -> std::path::PathBuf {
    home.data().join("projections.db")
}

/// What a server said of its start: events replayed, and organizations from snapshots.
fn ready(said: &str) -> (u64, u64) {
    let lines = said.lines().filter_map(|it| serde_json::from_str::<serde_json::Value>(it).ok());
    let ready = lines.map(|it| it["fields"].clone()).find(|it| it["message"] == "ready").unwrap();
    (ready["events_replayed"].as_u64().unwrap(), ready["snapshots"].as_u64().unwrap())
}

/// Writes, with no server running, that nothing changed, at a later time.
async fn a_month_passes(home: &Home, organization_id: &str) {
    let store = Arc::new(EmbeddedStore::open(&Options::new(home.data())).unwrap());
    let stream = StreamName::from_store(&format!("org-{organization_id}"));
    let mut events = store.read_stream(&stream, Revision::FIRST, 4_096).await.unwrap();
    let last = events.pop().unwrap();
    let at = Envelope::decode(&last.stored).unwrap().at.as_millis() + MONTH_MS;
    let event = PolicyUpdated { policy: Policy::default(), before: Policy::default() };
    let envelope = Envelope {
        // No two organizations' are the same.
        id: EventId::from_bytes(sha2::Sha256::digest(organization_id)[..16].try_into().unwrap()),
        at: Timestamp::from_millis(at).unwrap(),
        actor: Principal::Ledger,
        credential: None,
        request: None,
        correlation_id: "later".parse().unwrap(),
        causation_id: None,
        event: event.into(),
        sealed: Vec::new(),
    };
    let (stored, leaf_hash) = envelope.encode().unwrap();
    let new = NewEvent {
        id: envelope.id,
        event_type: envelope.event.event_type(),
        stored: stored.into(),
        leaf_hash,
    };
    let urgency = keyledger::ledger::urgency::Urgency::Normal;
    store.append(&stream, Some(last.revision), vec![new], urgency).await.unwrap();
    store.close().await;
}

async fn codes(client: &Client, secrets: &[&String]) -> Vec<DecisionCode> {
    let mut codes = Vec::new();
    for secret in secrets {
        codes.push(client.ask(secret, &["a:b"]).await.code());
    }
    // Alone, in a batch and in a stream the answer is the same.
    let questions: Vec<_> = secrets.iter().map(|secret| about(secret, &["a:b"])).collect();
    let request = proto::VerifyBatchRequest { questions: questions.clone(), ..Default::default() };
    let answers = client.verify_batch(request).await.unwrap().answers;
    let batch: Vec<_> = answers
        .into_iter()
        .map(|it| match it.answer {
            Some(Answer::Decision(decision)) => decision.code(),
            other => panic!("no decision: {other:?}"),
        })
        .collect();
    assert_eq!(batch, codes);
    let mut stream = client.verify_stream().await.unwrap();
    for (id, (question, code)) in questions.into_iter().zip(&codes).enumerate() {
        assert_eq!(stream.decide(id as u64, question).await.unwrap().code(), *code);
    }
    codes
}

async fn listed(client: &Client, state: KeyState, page_size: u32) -> Vec<String> {
    let mut request =
        proto::ListKeysRequest { state: state.into(), page_size, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = client.list_keys(request.clone()).await.unwrap();
        assert!(page.keys.len() <= page_size as usize);
        names.extend(page.keys.into_iter().map(|key| key.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return names;
        }
    }
}

#[tokio::test]
async fn an_orderly_end_makes_the_next_start_short() {
    let acme = Acme::new().await;
    let (id, revoked) = acme.key("revoked", &["a:b"]).await;
    let (_, kept) = acme.key("kept", &["a:b"]).await;
    acme.admin.revoke("", &id).await.unwrap();
    let Acme { home, server, .. } = acme;
    assert_eq!(ready(&server.stop().await), (0, 0));
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    let expected = [DecisionCode::Revoked, DecisionCode::Allowed];
    assert_eq!(codes(&operator, &[&revoked, &kept]).await, expected);
    // Whatever is wrong with the file, what is answered is what history says.
    let (events, snapshots) = ready(&server.stop().await);
    assert_eq!((events, snapshots), (0, 2));
    let whole = std::fs::read(projections(&home)).unwrap();
    let mut damaged = whole.clone();
    for byte in damaged.iter_mut().skip(4_096).step_by(512) {
        *byte ^= 1;
    }
    for (content, usable) in [
        (None, false),
        (Some(&whole), true),
        (Some(&damaged), false),
        (Some(&b"no database".repeat(100)), false),
        (Some(&whole[..whole.len() / 2].to_vec()), false),
    ] {
        for beside in ["-wal", "-shm", ""] {
            let _ = std::fs::remove_file(home.data().join(format!("projections.db{beside}")));
        }
        if let Some(content) = content {
            std::fs::write(projections(&home), content).unwrap();
            // What is looked at is left as it is, however bad.
            let verified = verify_projections(&home);
            assert_eq!(verified["unusable"].is_null(), usable, "{verified}");
            assert_eq!(&std::fs::read(projections(&home)).unwrap(), content);
        }
        let server = home.start().await;
        let operator = server.client(&home.admin_key());
        assert_eq!(codes(&operator, &[&revoked, &kept]).await, expected);
        let said = server.kill();
        assert_eq!(ready(&said).1 > 0, usable, "{said}");
    }
    let verified = verify_projections(&home);
    assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
    let rebuilt = offline(&home, "rebuild");
    assert_eq!(rebuilt["organizations"], 2);
    let server = home.start().await;
    assert_eq!(ready(&server.stop().await), (0, 2));
}

/// A copy of the events from before the snapshots were taken is put back.
#[tokio::test]
async fn what_is_derived_never_outweighs_history() {
    let acme = Acme::new().await;
    let (id, key) = acme.key("key", &["a:b"]).await;
    let Acme { home, server, id: organization, .. } = acme;
    server.stop().await;
    let before = std::fs::read(home.database()).unwrap();
    let server = home.start().await;
    server.client(&home.admin_key()).revoke(&organization, &id).await.unwrap();
    server.stop().await;
    std::fs::write(home.database(), before).unwrap();
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.ask(&key, &["a:b"]).await.code(), DecisionCode::Allowed);
    let said = server.stop().await;
    assert!(said.contains("the snapshots cannot be used"), "{said}");
}

#[tokio::test]
async fn a_key_that_ended_long_ago_is_answered_for() {
    let acme = Acme::new().await;
    let mut secrets = Vec::new();
    let mut ids = Vec::new();
    for number in 0..7 {
        let (id, secret) = acme.key(&format!("key {number}"), &["a:b"]).await;
        ids.push(id);
        secrets.push(secret);
    }
    for id in ids.iter().step_by(2) {
        acme.admin.revoke("", id).await.unwrap();
    }
    let expiring = proto::CreateKeyRequest {
        expiry: Some(proto::create_key_request::Expiry::Lifetime(prost_types::Duration {
            seconds: 0,
            nanos: 1_000_000,
        })),
        ..scoped("", "expiring", &["a:b"])
    };
    let expired = acme.admin.create_key(expiring).await.unwrap();
    secrets.push(expired.secret);
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    a_month_passes(&home, &id).await;
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    check(&server, &home, &admin, &ids, &secrets, &id).await;
    // A restart keeps them on disk; without the file they come from history.
    let (events, _) = ready(&server.stop().await);
    assert_eq!(events, 1);
    for file in [true, false] {
        if !file {
            std::fs::remove_file(projections(&home)).unwrap();
        }
        let server = home.start().await;
        let admin = server.client(&admin_secret);
        check(&server, &home, &admin, &ids, &secrets, &id).await;
        let (events, snapshots) = ready(&server.stop().await);
        assert_eq!((events == 0, snapshots > 0), (file, file));
    }
    let verified = verify_projections(&home);
    assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
    // A row of theirs that is gone is missed.
    let database = rusqlite::Connection::open(projections(&home)).unwrap();
    let delete = "DELETE FROM dead_keys WHERE key = (SELECT min(key) FROM dead_keys)";
    assert_eq!(database.execute(delete, []).unwrap(), 1);
    // One process at a time has the file.
    drop(database);
    let verified = verify_projections(&home);
    assert_eq!(verified["differing"].as_array().unwrap().len(), 1, "{verified}");
}

/// Everything there is to ask about keys of which every second one ended a month ago.
async fn check(
    server: &Server,
    home: &Home,
    admin: &Client,
    ids: &[String],
    secrets: &[String],
    organization_id: &str,
) {
    use DecisionCode::{Allowed, Expired, Revoked, Unknown};
    let operator = server.client(&home.admin_key());
    let all: Vec<&String> = secrets.iter().collect();
    let expected = [Revoked, Allowed, Revoked, Allowed, Revoked, Allowed, Revoked, Expired];
    assert_eq!(codes(&operator, &all).await, expected);
    assert_eq!(codes(&operator, &all).await, expected);
    let stranger = all[0].replace("vtx_", "vtx_x");
    assert_ne!(operator.ask(&stranger, &["a:b"]).await.code(), Revoked);
    // Another organization does not learn of them.
    let prefix = format!("o{:08x}", std::process::id().wrapping_add(server.address.port().into()));
    let other = operator.organization("other", &prefix, "").await;
    let asker = scoped(&other, "asker", &["credentials:verify"]);
    let asker = operator.with_key(&operator.create_key(asker).await.unwrap().secret);
    assert_eq!(codes(&asker, &[all[0]]).await, [Unknown]);
    let get = proto::GetKeyRequest { key_id: ids[0].clone(), ..Default::default() };
    let key = admin.get_key(get).await.unwrap().key.unwrap();
    assert_eq!((key.name.as_str(), key.state()), ("key 0", KeyState::Revoked));
    let get = proto::GetKeyRequest { key_id: ids[0].clone(), organization_id: other };
    refused(operator.get_key(get).await, Code::NotFound, "not found");

    let names: Vec<String> = (0..7).map(|number| format!("key {number}")).collect();
    let ours = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|it| it.starts_with("key ")).collect()
    };
    for page_size in [1, 2, 3, 100] {
        let every = listed(admin, KeyState::Unspecified, page_size).await;
        assert_eq!(every.len(), 9, "{every:?}");
        assert_eq!(ours(every), names, "{page_size}");
        let revoked = ours(listed(admin, KeyState::Revoked, page_size).await);
        assert_eq!(revoked, ["key 0", "key 2", "key 4", "key 6"]);
        assert_eq!(listed(admin, KeyState::Expired, page_size).await, ["expiring"]);
        let active = ours(listed(admin, KeyState::Active, page_size).await);
        assert_eq!(active, ["key 1", "key 3", "key 5"]);
    }
    let again = refused(
        admin.revoke("", &ids[0]).await.map(|_| ()),
        Code::FailedPrecondition,
        "it can only be looked up",
    );
    assert_eq!(reason(&again), "KEY_ENDED_LONG_AGO");
    let list = proto::KeyList { key_ids: vec![ids[2].clone()], leaked: vec![secrets[4].clone()] };
    let request = proto::RevokeKeysRequest {
        organization_id: organization_id.into(),
        which: Some(proto::revoke_keys_request::Which::List(list)),
        ..Default::default()
    };
    let outcomes = operator.revoke_keys(request).await.unwrap().keys;
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        assert_eq!(outcome.outcome(), KeyRevocationOutcome::AlreadyRevoked);
        assert_eq!(outcome.organization_id, organization_id);
    }
    // Whoever shows such a key is nobody.
    let dead = server.client(all[0]);
    let get = proto::GetKeyRequest { key_id: ids[1].clone(), ..Default::default() };
    let refusal = refused(dead.get_key(get).await, Code::Unauthenticated, "the credential is");
    assert_eq!(reason(&refusal), "REVOKED");
}

/// How far the life of a key came, as far as anybody was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Made,
    /// Its end was asked for.
    Ending,
    Ended,
}

/// What writers were told of a key: whose it is, its identifier and secret, and how far its
/// life came.
struct Acknowledged {
    organization: String,
    id: String,
    secret: String,
    told: Told,
}

/// Makes keys, and revokes every third, until the server is gone.
async fn write(
    client: Client,
    organization: String,
    name: String,
    told: tokio::sync::mpsc::UnboundedSender<Acknowledged>,
) {
    for number in 0.. {
        let request = scoped(&organization, &format!("{name} {number}"), &["a:b"]);
        let Ok(created) = client.create_key(request).await else { return };
        let (id, secret) = (created.key.unwrap().id, created.secret);
        let tell = |told_of| {
            let (organization, id) = (organization.clone(), id.clone());
            told.send(Acknowledged { organization, id, secret: secret.clone(), told: told_of })
        };
        tell(Told::Made).unwrap();
        if number % 3 == 0 {
            tell(Told::Ending).unwrap();
            let Ok(_) = client.revoke(&organization, &id).await else { return };
            tell(Told::Ended).unwrap();
        }
    }
}

/// Each event asks for another round of snapshots, so that rounds follow each other without
/// pause while there are writers, and a kill falls into one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_amid_snapshots_loses_nothing() {
    const KILLS: usize = 6;
    let home = Home::new();
    let server = home.start().await;
    let admin_key = home.admin_key();
    let mut organizations = Vec::new();
    for prefix in ["one", "two", "six"] {
        organizations.push(server.client(&admin_key).organization(prefix, prefix, "").await);
    }
    server.stop().await;
    let mut keys: BTreeMap<String, Acknowledged> = BTreeMap::new();
    for kill in 0..=KILLS {
        let server = home.launch().args(&["--snapshot-events", "1"]).start().await;
        let operator = server.client(&admin_key);
        for (id, key) in &keys {
            let Acknowledged { organization, secret, told, .. } = key;
            let request =
                proto::GetKeyRequest { organization_id: organization.clone(), key_id: id.clone() };
            let state = operator.get_key(request).await.unwrap().key.unwrap().state();
            match (told, operator.ask(secret, &["a:b"]).await.code(), state) {
                (Told::Made | Told::Ending, DecisionCode::Allowed, KeyState::Active)
                | (Told::Ending | Told::Ended, DecisionCode::Revoked, KeyState::Revoked) => {}
                other => panic!("after {kill} kills: {other:?}"),
            }
        }
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for (number, organization) in organizations.iter().enumerate() {
            let name = format!("{kill} {number}");
            tokio::spawn(write(operator.clone(), organization.clone(), name, tell.clone()));
        }
        drop(tell);
        // No two kills come after as many writes.
        for _ in 0..60 + 37 * kill {
            let Some(key): Option<Acknowledged> = told.recv().await else {
                panic!("no writer is left, and it was not killed: {}", server.kill());
            };
            keys.insert(key.id.clone(), key);
        }
        let said = server.kill();
        assert!(ready(&said).1 > 0, "it began with snapshots: {said}");
        assert!(!said.contains("\"ERROR\""), "{said}");
        while let Some(key) = told.recv().await {
            keys.insert(key.id.clone(), key);
        }
        let verified = verify_projections(&home);
        assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
        assert!(verified["snapshots"].as_u64().unwrap() > 0, "{verified}");
    }
}

/// A list of leaked keys is carried out whole, however many of them ended long ago, and in
/// whichever organization.
#[tokio::test]
async fn a_thousand_leaked_keys_are_revoked_though_some_are_dead() {
    const OF_EACH: usize = 333;
    let home = Home::new();
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    let foreign = |place: usize, number: usize| format!("leaked-{place}-{number}-0123456789abcdef");
    let mut organizations = Vec::new();
    for place in 0..3 {
        let prefix = ["one", "two", "six"][place];
        let id = operator.organization(prefix, prefix, "").await;
        let imported = |number| proto::ImportedKey {
            sha256: sha2::Sha256::digest(foreign(place, number)).to_vec(),
            name: format!("key {number}"),
            scopes: Some(proto::Scopes { permissions: vec!["a:b".into()] }),
            ..Default::default()
        };
        let request = proto::ImportKeysRequest {
            organization_id: id.clone(),
            keys: (0..OF_EACH).map(imported).collect(),
            ..Default::default()
        };
        let ids: Vec<String> =
            operator.import_keys(request).await.unwrap().keys.into_iter().map(|it| it.id).collect();
        organizations.push((id, ids));
    }
    // Of the first and the second, every third ended; the month passes for these two.
    for (id, ids) in &organizations[..2] {
        let list = proto::KeyList {
            key_ids: ids.iter().step_by(3).cloned().collect(),
            leaked: Vec::new(),
        };
        let request = proto::RevokeKeysRequest {
            organization_id: id.clone(),
            which: Some(proto::revoke_keys_request::Which::List(list)),
            ..Default::default()
        };
        operator.revoke_keys(request).await.unwrap();
    }
    server.stop().await;
    for (id, _) in &organizations[..2] {
        a_month_passes(&home, id).await;
    }
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    let mut expected = Vec::new();
    let mut list = proto::KeyList::default();
    // By identifier and by text, the organizations mixed; and one that nobody knows.
    for number in 0..OF_EACH {
        for (place, (id, ids)) in organizations.iter().enumerate() {
            let dead = place < 2 && number % 3 == 0;
            let outcome = match dead {
                true => KeyRevocationOutcome::AlreadyRevoked,
                false => KeyRevocationOutcome::Revoked,
            };
            expected.push((number % 2, outcome, ids[number].clone(), id.clone()));
            match number % 2 {
                0 => list.key_ids.push(ids[number].clone()),
                _ => list.leaked.push(foreign(place, number)),
            }
        }
    }
    list.leaked.push(foreign(9, 9));
    expected.push((1, KeyRevocationOutcome::Unknown, String::new(), String::new()));
    // First those by identifier, then those by text.
    expected.sort_by_key(|(by_text, ..)| *by_text);
    assert_eq!(list.key_ids.len() + list.leaked.len(), 1_000);
    let request = proto::RevokeKeysRequest {
        which: Some(proto::revoke_keys_request::Which::List(list)),
        ..Default::default()
    };
    let answer = operator.revoke_keys(request.clone()).await.unwrap();
    assert_eq!(answer.revisions.len(), 3);
    let outcomes = answer.keys.iter().map(|it| (it.outcome(), &it.key_id, &it.organization_id));
    let wanted = expected.iter().map(|(_, outcome, key, id)| (*outcome, key, id));
    assert!(outcomes.eq(wanted), "{:?}", answer.keys);
    for place in 0..3 {
        for number in [0, 1, 2, OF_EACH - 1] {
            let answer = operator.ask(&foreign(place, number), &["a:b"]).await;
            assert_eq!(answer.code(), DecisionCode::Revoked, "{place} {number}");
        }
    }
    // Said again it changes nothing.
    let again = operator.revoke_keys(request).await.unwrap();
    let already = |it: &proto::KeyRevocation| it.outcome() == KeyRevocationOutcome::AlreadyRevoked;
    assert_eq!(again.keys.iter().filter(|it| already(it)).count(), 999);
    server.stop().await;
    let verified = verify_projections(&home);
    assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
}

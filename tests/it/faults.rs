//! What goes wrong around the server: damaged files, missing secrets, foreign databases,
//! taken ports. It says what is wrong and what to do, makes nothing anew, and what is not
//! damaged goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::proto::{self, DecisionCode, GetKeyRequest, VerifyRequest};
use rusqlite::Connection;
use serde_json::{Value, json};
use tonic::Code;

use super::support::{Acme, Home, Server, about, crc32, leaf_hash, reason, refused, scoped};

/// Two organizations with keys and a revocation each, at rest.
struct Tenants {
    home: Home,
    admin_key: String,
    acme: Tenant,
    globex: Tenant,
}

struct Tenant {
    id: String,
    prefix: &'static str,
    /// Key and secret, in the order in which they were made.
    keys: Vec<(String, String)>,
}

impl Tenants {
    async fn at_rest() -> Self {
        let home = Home::new();
        let server = home.start().await;
        let admin_key = home.admin_key();
        let operator = server.client(&admin_key);
        let mut tenants = Vec::new();
        for prefix in ["vtx", "glx"] {
            let id = operator.organization(prefix, prefix, "").await;
            let mut keys = Vec::new();
            for name in ["first", "second", "third"] {
                let made = operator.create_key(scoped(&id, name, &["org:admin"])).await.unwrap();
                keys.push((made.key.unwrap().id, made.secret));
            }
            operator.revoke(&id, &keys[1].0).await.unwrap();
            tenants.push(Tenant { id, prefix, keys });
        }
        server.stop().await;
        let globex = tenants.pop().unwrap();
        Self { home, admin_key, acme: tenants.pop().unwrap(), globex }
    }

    /// Changes the database as only its triggers forbid.
    fn tamper(&self, change: impl FnOnce(&Connection)) {
        let database = Connection::open(self.home.database()).unwrap();
        let triggers = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'";
        let triggers: Vec<(String, String)> = database
            .prepare(triggers)
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for (name, _) in &triggers {
            database.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        change(&database);
        for (_, sql) in &triggers {
            database.execute_batch(sql).unwrap();
        }
        database.close().unwrap();
    }

    /// Flips one bit of a stored event.
    fn flip(&self, stream: &str, revision: u64, byte: usize) {
        self.tamper(|database| {
            let (position, mut stored): (i64, Vec<u8>) = database
                .query_row(
                    "SELECT position, stored FROM events JOIN streams USING (stream)
                     WHERE name = ?1 AND revision = ?2",
                    (stream, revision as i64),
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .unwrap();
            let byte = byte % stored.len();
            stored[byte] ^= 1;
            let changed = database
                .execute("UPDATE events SET stored = ?1 WHERE position = ?2", (stored, position));
            assert_eq!(changed.unwrap(), 1);
        });
    }

    /// Appends an event of our own making, with the right hash and check: the triggers let
    /// it in.
    fn append(&self, stream: &str, event: &Value) {
        let stored = serde_json::to_vec(event).unwrap();
        let hash = leaf_hash(&stored);
        let database = Connection::open(self.home.database()).unwrap();
        let (number, revision): (i64, i64) = database
            .query_row(
                "SELECT stream, max(revision) + 1 FROM events JOIN streams USING (stream)
                 WHERE name = ?1",
                [stream],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let position: i64 = database
            .query_row("SELECT max(position) + 1 FROM events", [], |row| row.get(0))
            .unwrap();
        let place =
            [stream.as_bytes(), &position.to_be_bytes(), &revision.to_be_bytes(), &hash].concat();
        let row = (position, number, revision, stored, hash, crc32(&place));
        database.execute("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row).unwrap();
    }

    /// The last event of a stream, as a template for another.
    fn last(&self, stream: &str) -> Value {
        self.home.events().iter().rfind(|it| it.stream == stream).unwrap().json()
    }

    fn stream(&self) -> String {
        format!("org-{}", self.acme.id)
    }

    /// The one organization answers nothing, and everybody says so; the other goes on.
    async fn only_acme_is_stopped(&self, fault: &str) {
        let server = self.home.start().await;
        self.acme_is_stopped(&server, fault).await;
        self.globex_goes_on(&server).await;
        let said = server.stop().await;
        assert!(said.contains("organization stopped: its history is corrupt"), "{said}");
    }

    async fn acme_is_stopped(&self, server: &Server, fault: &str) {
        let operator = server.client(&self.admin_key);
        let acme = &self.acme;
        for (key_id, secret) in &acme.keys {
            // Revoked or not, in front of the damage or behind it: nobody knows.
            let request = VerifyRequest { credential: secret.clone(), ..Default::default() };
            let status = refused(operator.verify(request).await, Code::Unavailable, "is stopped");
            assert_eq!(reason(&status), "ORGANIZATION_STOPPED");
            let own = server.client(secret).list_keys(Default::default()).await;
            let status = refused(own, Code::Unavailable, "is stopped");
            assert_eq!(reason(&status), "ORGANIZATION_STOPPED");
            // Anybody can make up a key with this prefix: nobody learns whose prefix it is.
            let mut made_up = format!("{}{}", &secret[..9], "A".repeat(36));
            projections::api_key::push_checksum(&mut made_up);
            let stranger = server.client(&made_up).list_keys(Default::default()).await;
            let status = refused(stranger, Code::Unavailable, "is stopped");
            assert!(!status.message().contains(&acme.id), "{}", status.message());
            let request =
                GetKeyRequest { organization_id: acme.id.clone(), key_id: key_id.clone() };
            refused(operator.get_key(request).await, Code::Unavailable, &acme.id);
            refused(operator.revoke(&acme.id, key_id).await, Code::Unavailable, "is stopped");
        }
        self.only_acmes_questions_are_undecided(&operator).await;
        let write = operator.create_key(scoped(&acme.id, "new", &["a:b"])).await;
        refused(write, Code::Unavailable, "its stored history is damaged");
        let request = proto::GetOrganizationRequest { organization_id: acme.id.clone() };
        refused(operator.get_organization(request).await, Code::Unavailable, "is stopped");
        let request =
            proto::QueryActivityRequest { organization_id: acme.id.clone(), ..Default::default() };
        refused(operator.query_activity(request).await, Code::Unavailable, "is stopped");
        let mut audit = AuditServiceClient::new(server.channel());
        let organization_id = acme.id.clone();
        let tail = proto::TailActivityRequest { organization_id, ..Default::default() };
        let tail = audit.tail_activity(operator.request(tail)).await;
        refused(tail.map(|_| ()), Code::Unavailable, "is stopped");
        let format = proto::ExportFormat::JsonLines.into();
        let organization_id = acme.id.clone();
        let export = proto::ExportActivityRequest { organization_id, format, ..Default::default() };
        let export = audit.export_activity(operator.request(export)).await;
        refused(export.map(|_| ()), Code::Unavailable, "is stopped");
        let status = operator.get_status(proto::GetStatusRequest {}).await.unwrap();
        assert_eq!(status.stopped.len(), 1, "{status:?}");
        assert_eq!(status.stopped[0].organization_id, acme.id);
        assert!(status.stopped[0].fault.contains(fault), "{fault}: {status:?}");
    }

    /// Many questions asked together: those about others get their answers.
    async fn only_acmes_questions_are_undecided(&self, operator: &super::support::Client) {
        use proto::verify_batch_answer::Answer as InBatch;
        use proto::verify_stream_response::Answer as InStream;
        let credentials = [&self.globex.keys[0].1, &self.acme.keys[0].1, "garbage"];
        let questions: Vec<_> = credentials.iter().map(|it| about(it, &["a:b"])).collect();
        let request =
            proto::VerifyBatchRequest { questions: questions.clone(), ..Default::default() };
        let in_batch = operator.verify_batch(request).await.unwrap().answers;
        let mut stream = operator.verify_stream().await.unwrap();
        let mut undecided = Vec::new();
        for (place, question) in questions.into_iter().enumerate() {
            stream.send(place as u64, question).await;
            let answer = stream.answer().await.unwrap();
            assert_eq!(answer.id, place as u64);
            match (answer.answer.unwrap(), in_batch[place].answer.clone().unwrap()) {
                (InStream::Decision(one), InBatch::Decision(other)) => {
                    assert_eq!(one.code, other.code);
                    assert_eq!(one.allowed, place == 0);
                }
                (InStream::Undecided(one), InBatch::Undecided(other)) => {
                    assert_eq!(one, other);
                    undecided.push((place, one));
                }
                (one, other) => panic!("{one:?} and {other:?}"),
            }
        }
        let [(1, said)] = undecided.as_slice() else { panic!("{undecided:?}") };
        assert_eq!(said.status, Code::Unavailable as i32);
        assert_eq!(said.reason, "ORGANIZATION_STOPPED");
        assert!(said.message.contains(&self.acme.id), "{}", said.message);
    }

    async fn globex_goes_on(&self, server: &Server) {
        let operator = server.client(&self.admin_key);
        let keys = &self.globex.keys;
        assert!(operator.ask(&keys[0].1, &["a:b"]).await.allowed);
        assert_eq!(operator.ask(&keys[1].1, &["a:b"]).await.code(), DecisionCode::Revoked);
        let admin = server.client(&keys[0].1);
        let made = admin.create_key(scoped("", "made beside a fault", &["a:b"])).await.unwrap();
        admin.revoke("", &made.key.unwrap().id).await.unwrap();
        // New organizations come as ever.
        let prefix = format!("n{}", operator.revision("operator").await);
        operator.organization("newcomer", &prefix, "").await;
        assert_eq!(self.globex.prefix, "glx");
    }
}

#[tokio::test]
async fn a_damaged_event_stops_its_organization_alone() {
    let tenants = Tenants::at_rest().await;
    let stream = tenants.stream();
    // The last, one in the middle, the first: each flip adds damage in front of the other.
    for (revision, byte) in [(4, 200), (2, 0), (0, 77)] {
        tenants.flip(&stream, revision, byte);
        let fault = format!("history is corrupt at revision {revision}: ");
        tenants.only_acme_is_stopped(&fault).await;
    }
}

/// What ties an event to its bytes and to its place is looked at too.
#[tokio::test]
async fn a_damaged_hash_or_place_is_seen() {
    let tenants = Tenants::at_rest().await;
    let pristine = fs::read(tenants.home.database()).unwrap();
    let change = |set: &str| {
        tenants.tamper(|database| {
            let update = format!(
                "UPDATE events SET {set} WHERE revision = 2
                 AND stream = (SELECT stream FROM streams WHERE name = ?1)"
            );
            assert_eq!(database.execute(&update, [tenants.stream()]).unwrap(), 1);
        });
    };
    change("leaf_hash = zeroblob(32)");
    let verified = super::snapshots::verify_projections(&tenants.home);
    assert_eq!(verified["damaged"][0]["stream"], tenants.stream(), "{verified}");
    tenants.only_acme_is_stopped("the leaf hash is not that of the stored bytes").await;
    // An event in a wrong place is missing in its own, and the gap says whose it was.
    for set in ["place_check = place_check + 1", "revision = 900"] {
        restore(&tenants.home, &pristine);
        change(set);
        tenants.only_acme_is_stopped("revision 2 is missing").await;
    }
    // One that claims to end the operator's stream also keeps that from being written.
    restore(&tenants.home, &pristine);
    change("stream = 1, revision = 900");
    let server = tenants.home.start().await;
    tenants.acme_is_stopped(&server, "revision 2 is missing").await;
    let operator = server.client(&tenants.admin_key);
    assert!(operator.ask(&tenants.globex.keys[0].1, &["a:b"]).await.allowed);
    let request = scoped("operator", "new", &["a:b"]);
    refused(operator.create_key(request).await, Code::Unavailable, "cannot do this now");
    server.stop().await;
    // The pages of the file itself that hold events.
    let holds = |page: &[u8]| page.windows(10).any(|it| it == b"KeyCreated");
    let pages = pristine.chunks_exact(4_096).enumerate().filter(|(_, page)| holds(page));
    let pages: Vec<usize> = pages.map(|(number, _)| number).collect();
    assert!(pages.len() > 2);
    for page in pages {
        restore(&tenants.home, &pristine);
        let mut bytes = pristine.clone();
        bytes[page * 4_096..][..4_096].fill(0xa5);
        fs::write(tenants.home.database(), bytes).unwrap();
        let said = tenants.home.launch().refused();
        assert!(said.contains("malformed") || said.contains("damaged"), "{said}");
    }
    restore(&tenants.home, &pristine);
    tenants.home.start().await.stop().await;
}

#[tokio::test]
async fn an_event_that_says_what_nobody_knows_stops_its_organization() {
    let before = Tenants::at_rest().await;
    let stream = before.stream();
    let base = before.last(&stream);
    assert_eq!(base["type"], "KeyRevoked");
    let with = |path: &[&str], value: Value| {
        let mut event = before.last(&stream);
        event["id"] = json!("evt_7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        event["data"]["key_id"] = json!(before.acme.keys[0].0);
        let target = path.iter().fold(&mut event, |at, name| &mut at[*name]);
        *target = value;
        event
    };
    let key = |n: usize| json!(before.acme.keys[n].0);
    let cases = [
        (with(&["type"], json!("KeyBlessed")), "`KeyBlessed` with schema 2 is unknown"),
        (with(&["schema"], json!(3)), "`KeyRevoked` with schema 3 is unknown"),
        (with(&["data", "mood"], json!("good")), "unknown field `mood`"),
        (with(&["mood"], json!("good")), "unknown field `mood`"),
        (with(&["data", "reason"], json!("boredom")), "unknown variant `boredom`"),
        (with(&["data"], json!({})), "missing field"),
        (with(&["data", "key_id"], json!("key_00000000000000000000000009")), "has no target"),
        (with(&["data", "key_id"], key(1)), "has no target"),
        (with(&["at"], json!("2020-01-01T00:00:00.000Z")), "time runs back"),
        (json!("no object"), "no event"),
    ];
    // The same history each time, with another event behind it.
    let pristine = fs::read(before.home.database()).unwrap();
    for (event, fault) in cases {
        restore(&before.home, &pristine);
        before.append(&stream, &event);
        before.only_acme_is_stopped(fault).await;
    }
    // An event that is all right is taken as it is: the method is not what fails.
    restore(&before.home, &pristine);
    before.append(&stream, &with(&["data", "key_id"], key(0)));
    let server = before.home.start().await;
    let operator = server.client(&before.admin_key);
    let answer = operator.ask(&before.acme.keys[0].1, &[]).await;
    assert_eq!(answer.code(), DecisionCode::Revoked);
    server.stop().await;
    // A gap.
    restore(&before.home, &pristine);
    before.tamper(|database| {
        let name = format!("org-{}", before.acme.id);
        let gap = "DELETE FROM events WHERE revision = 2
                   AND stream = (SELECT stream FROM streams WHERE name = ?1)";
        assert_eq!(database.execute(gap, [name]).unwrap(), 1);
    });
    before.only_acme_is_stopped("revision 2 is missing").await;
    // Somebody's last event leaves no gap in its stream: whose it was, nobody can know.
    restore(&before.home, &pristine);
    before.append("org-operator", &before.last("org-operator"));
    before.tamper(|database| {
        let last = "DELETE FROM events WHERE position = (
            SELECT max(position) FROM events WHERE stream = (SELECT stream FROM streams WHERE name = ?1))";
        assert_eq!(database.execute(last, [&stream]).unwrap(), 1);
    });
    let said = before.home.launch().refused();
    assert!(said.contains("an event is missing"), "{said}");
}

fn restore(home: &Home, database: &[u8]) {
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        let _ = fs::remove_file(home.data().join(file));
    }
    fs::write(home.database(), database).unwrap();
}

#[tokio::test]
async fn a_damaged_operator_stream_is_no_start() {
    let tenants = Tenants::at_rest().await;
    let pristine = fs::read(tenants.home.database()).unwrap();
    for revision in [0, 1, 7] {
        restore(&tenants.home, &pristine);
        tenants.flip("org-operator", revision, 60);
        let said = tenants.home.launch().refused();
        assert!(said.contains("the operator's history is corrupt"), "{said}");
        assert!(said.contains("restore the data directory from a backup"), "{said}");
        assert!(said.contains(&format!("at revision {revision}")), "{said}");
    }
    restore(&tenants.home, &pristine);
    let mut event = tenants.last("org-operator");
    event["type"] = json!("WorldDominated");
    event["schema"] = json!(1);
    tenants.append("org-operator", &event);
    let said = tenants.home.launch().refused();
    assert!(said.contains("`WorldDominated` with schema 1 is unknown"), "{said}");
    // A stream of a kind that only a newer version knows.
    restore(&tenants.home, &pristine);
    tenants.tamper(|database| {
        let rename = "UPDATE streams SET name = 'moon-1' WHERE name = ?1";
        assert_eq!(database.execute(rename, [tenants.stream()]).unwrap(), 1);
    });
    let said = tenants.home.launch().refused();
    assert!(said.contains("moon-1"), "{said}");
    restore(&tenants.home, &pristine);
    tenants.home.start().await.stop().await;
}

/// Every file below a directory, and what it holds.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// An installation with history, and one thing done to it: the start is refused with
/// these words, and nothing is made in the place of what is missing or wrong.
async fn check(done: &str, harm: impl FnOnce(&Home), says: &[&str]) {
    let tenants = Tenants::at_rest().await;
    let home = &tenants.home;
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        let _ = fs::remove_file(home.data().join(file));
    }
    harm(home);
    let before = contents(&home.data());
    for _ in 0..2 {
        let said = home.launch().refused();
        for part in says {
            assert!(said.contains(part), "{done}: {said}");
        }
        let kept = |files: Vec<(String, Vec<u8>)>| {
            files.into_iter().filter(|(name, _)| !name.ends_with("-wal") && !name.ends_with("-shm"))
        };
        assert!(kept(contents(&home.data())).eq(kept(before.clone())), "{done}: files changed");
    }
}

#[tokio::test]
async fn a_broken_database_is_not_replaced() {
    let size = |home: &Home| fs::metadata(home.database()).unwrap().len();
    let cut = |home: &Home, to: u64| {
        fs::OpenOptions::new().write(true).open(home.database()).unwrap().set_len(to).unwrap();
    };
    let damaged = ["`ledger.db` is damaged", "restore it from a backup"];
    check("truncated to half", |home| cut(home, size(home) / 2), &damaged).await;
    check("a page is gone", |home| cut(home, size(home) - 4_096), &damaged).await;
    check("emptied", |home| cut(home, 0), &["`ledger.db` is damaged: it is empty"]).await;
    let foreign = ["`ledger.db` is not a keyledger database", "move it away"];
    let garbage = |home: &Home| fs::write(home.database(), vec![0x5a; 40_000]).unwrap();
    check("garbage", garbage, &foreign).await;
    let other = |home: &Home| {
        fs::remove_file(home.database()).unwrap();
        let database = Connection::open(home.database()).unwrap();
        database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    };
    check("another program's", other, &foreign).await;
    let newer = |home: &Home| {
        Connection::open(home.database()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    };
    check("newer", newer, &["schema 99", "start a newer release"]).await;
    let untriggered = |home: &Home| {
        let drop = "DROP TRIGGER events_are_never_updated";
        Connection::open(home.database()).unwrap().execute_batch(drop).unwrap();
    };
    check("a trigger is gone", untriggered, &["triggers of `ledger.db` were changed"]).await;
}

#[tokio::test]
async fn missing_or_wrong_secrets_are_not_made_anew() {
    let remove =
        |name: &'static str| move |home: &Home| fs::remove_file(home.secret_file(name)).unwrap();
    let missing = |name: &'static str| [name, "is missing", "restore it from a backup"];
    for name in ["vault.db", "vault-root.key", "pepper-1.key"] {
        check(name, remove(name), &missing(name)).await;
    }
    let all = |home: &Home| fs::remove_dir_all(home.data().join("secrets")).unwrap();
    let tenants = Tenants::at_rest().await;
    all(&tenants.home);
    let said = tenants.home.launch().refused();
    assert!(said.contains("vault.db` is missing"), "{said}");
    // An empty one would be in the way of a backup.
    assert!(!tenants.home.data().join("secrets").exists());
    for name in ["vault-root.key", "pepper-1.key"] {
        let other = |home: &Home| fs::write(home.secret_file(name), "ab".repeat(32)).unwrap();
        check("another key", other, &[name, "is not the one this vault was made with"]).await;
        let garbage = |home: &Home| fs::write(home.secret_file(name), "garbage").unwrap();
        check("no key", garbage, &[name, "must hold a key of 32 bytes"]).await;
        let open = |home: &Home| {
            let mode = fs::Permissions::from_mode(0o644);
            fs::set_permissions(home.secret_file(name), mode).unwrap();
        };
        check("open to others", open, &[name, "is open to others", "chmod 600"]).await;
    }
    let garbage = |home: &Home| fs::write(home.secret_file("vault.db"), vec![7; 9_000]).unwrap();
    check("a garbage vault", garbage, &["vault.db"]).await;
    // Another installation's secrets, whole: they fit each other, not this history.
    let elsewhere = Tenants::at_rest().await;
    let swap = |home: &Home| {
        for name in ["vault.db", "vault-root.key", "pepper-1.key"] {
            fs::copy(elsewhere.home.secret_file(name), home.secret_file(name)).unwrap();
        }
    };
    check(
        "another's secrets",
        swap,
        &["the pepper is not the one", "put its secrets directory back"],
    )
    .await;
}

/// A ledger that is gone is not begun anew beside the secrets of the old one.
#[tokio::test]
async fn a_missing_database_is_missed() {
    let gone = |home: &Home| fs::remove_file(home.database()).unwrap();
    check("no ledger", gone, &["there is no `ledger.db`", "restore it from a backup"]).await;
    // Nor where its log is still there.
    let tenants = Tenants::at_rest().await;
    fs::write(tenants.home.data().join("ledger.db-wal"), "x").unwrap();
    gone(&tenants.home);
    let said = tenants.home.launch().refused();
    assert!(said.contains("restore it from a backup"), "{said}");
}

#[tokio::test]
async fn one_process_has_the_directory() {
    let acme = Acme::new().await;
    let (_, secret) = acme.key("ci", &["a:b"]).await;
    for _ in 0..3 {
        let said = acme.home.launch().refused();
        assert!(said.contains("is in use by another keyledger"), "{said}");
    }
    assert!(acme.operator.ask(&secret, &["a:b"]).await.allowed);
    acme.key("still writing", &["a:b"]).await;
    // Once it is gone, however it went, the next one has it.
    acme.server.kill();
    let server = acme.home.start().await;
    assert!(server.client(&acme.home.admin_key()).ask(&secret, &["a:b"]).await.allowed);
}

#[tokio::test]
async fn what_the_configuration_asks_for_cannot_be_had() {
    let fresh = Home::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let said = fresh.launch().listen(&taken).refused();
    assert!(said.contains(&format!("listen on {taken}")) && said.contains("in use"), "{said}");
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051"] {
        let said = fresh.launch().listen(open).refused();
        assert!(
            said.contains("without TLS credentials would cross the network in clear"),
            "{said}"
        );
        assert!(said.contains("--allow-plaintext"), "{said}");
    }
    // None of these began anything.
    assert!(!fresh.data().exists());
    for (arguments, says) in [
        (&["--request-timeout-ms", "0"][..], "must be at least 1"),
        (&["--admin-key-sha256", "12"], "64 characters of hexadecimal"),
        (&["--log", "keyledger=loud"], ""),
        (&["--config", "no-such-file.toml"], "no-such-file.toml"),
    ] {
        let said = fresh.launch().args(arguments).refused();
        assert!(said.contains(says), "{said}");
    }
    fs::write(fresh.path().join("keyledger.toml"), "lisen = \"127.0.0.1:1\"\n").unwrap();
    let said = fresh.launch().refused();
    assert!(said.contains("unknown field `lisen`"), "{said}");
    fs::remove_file(fresh.path().join("keyledger.toml")).unwrap();
    assert!(!fresh.data().exists());
    // A directory that cannot be: in the place of a file, below one, where nobody may write.
    for place in ["/dev/null/data", "/proc/keyledger-data"] {
        let said = fresh.launch().env("KEYLEDGER_SECRETS_DIR", place).refused();
        assert!(said.contains(place), "{said}");
    }
    fs::remove_dir_all(fresh.data()).unwrap();
    fs::write(fresh.data(), "a file").unwrap();
    let said = fresh.launch().refused();
    assert!(said.contains(&fresh.data().display().to_string()), "{said}");
    fs::remove_file(fresh.data()).unwrap();
    fs::create_dir(fresh.data()).unwrap();
    fs::set_permissions(fresh.data(), fs::Permissions::from_mode(0o777)).unwrap();
    let said = fresh.launch().refused();
    assert!(said.contains("is open to others") && said.contains("chmod 700"), "{said}");
    fs::set_permissions(fresh.data(), fs::Permissions::from_mode(0o700)).unwrap();
    // Accepted, plaintext it is.
    let server = fresh.launch().listen("0.0.0.0:0").args(&["--allow-plaintext"]).spawn();
    let mut server = server;
    server.wait_for(|line| line.contains("\"ready\"").then_some(()));
    server.kill();
}

/// The file that a first start left is taken up only if it holds a key of our making.
#[tokio::test]
async fn a_foreign_admin_key_is_not_brought_into_force() {
    let acme = Acme::new().await;
    for foreign in ["", "password\n", acme.admin_secret.as_str()] {
        let home = Home::new();
        fs::create_dir(home.data()).unwrap();
        fs::set_permissions(home.data(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = home.data().join("admin.key");
        fs::write(&path, foreign).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let said = home.launch().refused();
        assert!(said.contains("does not hold an operator's key; move it away"), "{said}");
        assert!(home.events().is_empty());
        fs::remove_file(&path).unwrap();
        let server = home.start().await;
        let admin_key = home.admin_key();
        assert!(server.client(&admin_key).ask(&admin_key, &["any:thing"]).await.allowed);
    }
}

/// A token that cannot be read is not an absent one, whose key would be revoked for good.
#[tokio::test]
async fn a_token_that_is_no_text_is_no_start() {
    use std::os::unix::ffi::OsStrExt as _;
    let token = "a-token-of-enough-characters";
    let home = Home::new();
    home.launch().env("ADMIN_API_TOKEN", token).start().await.stop().await;
    let broken = std::ffi::OsStr::from_bytes(b"a-token-of-enough-character\xff");
    let said = home.launch().env("ADMIN_API_TOKEN", broken).refused();
    assert!(said.contains("`ADMIN_API_TOKEN` must have"), "{said}");
    let server = home.launch().env("ADMIN_API_TOKEN", token).start().await;
    assert!(server.client(token).ask(token, &["any:thing"]).await.allowed);
}

/// Without a file descriptor for the next connection, the server says so and waits.
#[tokio::test]
async fn connections_that_cannot_be_accepted_are_told_of_and_waited_for() {
    let home = Home::new();
    let server = home.launch().with_files_max(64).start().await;
    let address = server.address;
    let held: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    drop(held);
    let operator = server.client(&home.admin_key());
    // As soon as it has noticed that they are gone: a write needs a file, too.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let request = proto::CreateOrganizationRequest {
        name: "acme".into(),
        key_prefix: "vtx".into(),
        idempotency_key: "once".into(),
        ..Default::default()
    };
    while let Err(status) = operator.create_organization(request.clone()).await {
        assert!(std::time::Instant::now() < until, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let said = server.stop().await;
    let told = said.matches("a connection could not be accepted").count();
    assert!((1..100).contains(&told), "told {told} times");
}

/// A tenant's key is not the operator's, whatever the configuration says.
#[tokio::test]
async fn a_tenants_key_is_no_configured_one() {
    let acme = Acme::new().await;
    acme.server.stop().await;
    let said = acme.home.launch().env("ADMIN_API_TOKEN", &acme.admin_secret).refused();
    assert!(said.contains("in use"), "{said}");
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&acme.admin_secret, &[]).await.organization_id, acme.id);
}

/// A directory in which nothing can be written, for whoever is not root.
#[tokio::test]
async fn an_unwritable_directory_is_no_start() {
    let home = Home::new();
    fs::create_dir(home.data()).unwrap();
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o500)).unwrap();
    let root_writes_everywhere = fs::write(home.data().join("probe"), "").is_ok();
    if root_writes_everywhere {
        fs::remove_file(home.data().join("probe")).unwrap();
    } else {
        let said = home.launch().refused();
        assert!(said.contains("ermission denied"), "{said}");
    }
    fs::set_permissions(home.data(), fs::Permissions::from_mode(0o700)).unwrap();
    home.start().await.stop().await;
}

//! A disk that is full, for real: file systems of 96 MiB, filled to the last block.
//!
//! Writes are refused and nothing is lost; what ends access goes on, also after a kill -9
//! and a start on the full disk; and when space is back so are the writes, by themselves.
//!
//! Mounting takes root. Where that is not to be had the tests say `skipped: …` and pass;
//! `KEYLEDGER_TEST_MOUNTS=1` makes them fail instead.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use keyledger::proto::{
    self, CreateKeyRequest, CreateOrganizationRequest, DecisionCode, GetKeyRequest, KeyState,
    ListKeysRequest, QueryActivityRequest, RevokeKeyRequest,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tonic::{Code, Status};

use super::metrics;
use super::support::{Acme, Client, DEADLINE, Home, POLL, Server, reason, refused, scoped};

/// How large the file systems are.
const VOLUME_MIB: u64 = 96;
/// How many revocations a full disk of that size must still take.
const REVOCATIONS: usize = 10_000;
/// How many callers ask at once.
const CALLERS: usize = 64;

/// What kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tmpfs,
    /// In an image: it allocates late, gives blocks back late, and its blocks are smaller
    /// than pages.
    Ext4,
}

/// A file system of the test's own; unmounted when it is dropped.
struct Volume {
    path: PathBuf,
    _place: TempDir,
}

impl Volume {
    /// None, and says so, where this is not allowed.
    fn mount(kind: Kind, mib: u64) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("volume");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        match kind {
            Kind::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
            }
            Kind::Ext4 => {
                let image = place.path().join("image");
                File::create(&image).unwrap().set_len(mib << 20).unwrap();
                let made = Command::new("mkfs.ext4").arg("-q").arg(&image).output();
                if !made.is_ok_and(|made| made.status.success()) {
                    return skipped("mkfs.ext4 does not run");
                }
                mount.args(["-t", "ext4", "-o", "loop"]).arg(image);
            }
        }
        match mount.arg(&path).output() {
            Ok(done) if done.status.success() => Some(Self { path, _place: place }),
            Ok(done) => skipped(String::from_utf8_lossy(&done.stderr).trim()),
            Err(error) => skipped(&error.to_string()),
        }
    }

    fn home(&self) -> Home {
        Home::inside(&self.path)
    }

    /// Fills it to the last block.
    fn fill(&self) -> Ballast {
        let ballast = Ballast(self.path.join("ballast"));
        ballast.fill();
        ballast
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: what still has a file open is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn skipped(why: &str) -> Option<Volume> {
    assert!(std::env::var_os("KEYLEDGER_TEST_MOUNTS").is_none(), "{why}");
    eprintln!("skipped: no file system can be mounted: {why}");
    None
}

/// A file that others put there.
struct Ballast(PathBuf);

impl Ballast {
    /// Grows until nothing more is to be had, also of what was let go a moment ago.
    fn fill(&self) {
        loop {
            let before = fs::metadata(&self.0).map_or(0, |it| it.len());
            self.grow();
            if fs::metadata(&self.0).unwrap().len() == before {
                return;
            }
            Command::new("sync").arg("-f").arg(&self.0).status().unwrap();
        }
    }

    fn grow(&self) {
        let mut file = File::options().create(true).append(true).open(&self.0).unwrap();
        let block = vec![7; 1 << 20];
        let mut size = block.len();
        while size > 0 {
            match file.write(&block[..size]).and_then(|_| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 4,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn remove(self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// Asks all of it, many at once, in order of places.
async fn at_once<T, F>(client: &Client, count: usize, ask: impl Fn(Client, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut asked = tokio::task::JoinSet::new();
    let mut answers = BTreeMap::new();
    for place in 0..count {
        if asked.len() >= CALLERS {
            let (place, answer) = asked.join_next().await.unwrap().unwrap();
            answers.insert(place, answer);
        }
        let answer = ask(client.clone(), place);
        asked.spawn(async move { (place, answer.await) });
    }
    while let Some(answered) = asked.join_next().await {
        let (place, answer) = answered.unwrap();
        answers.insert(place, answer);
    }
    answers.into_values().collect()
}

/// Makes keys; each identifier and secret.
async fn make_keys(client: &Client, organization: &str, count: usize) -> Vec<(String, String)> {
    let made = at_once(client, count, |client, place| {
        let request = scoped(organization, &format!("key {place}"), &["a:b"]);
        async move { client.create_key(request).await.unwrap() }
    });
    made.await.into_iter().map(|made| (made.key.unwrap().id, made.secret)).collect()
}

/// Revokes keys, with a comment; what was answered.
async fn revoke_keys(
    client: &Client,
    organization: &str,
    keys: &[(String, String)],
) -> Vec<Result<u64, Status>> {
    at_once(client, keys.len(), |client, place| {
        let request = revocation(organization, &keys[place].0);
        async move { Ok(client.revoke_key(request).await?.revision.unwrap().revision) }
    })
    .await
}

fn revocation(organization: &str, key: &str) -> RevokeKeyRequest {
    RevokeKeyRequest {
        organization_id: organization.into(),
        key_id: key.into(),
        comment: "found in a public repository".into(),
        ..Default::default()
    }
}

/// What is not urgent is refused as documented.
async fn writes_are_refused(operator: &Client, organization: &str) {
    let key = operator.create_key(scoped(organization, "one more", &["a:b"])).await;
    let status = refused(key, Code::ResourceExhausted, "disk is full");
    assert_eq!(reason(&status), "STORE_FULL");
    for says in ["nothing was written", "verification goes on", "make space", "by themselves"] {
        assert!(status.message().contains(says), "{}", status.message());
    }
    let request = CreateOrganizationRequest {
        name: "one more".into(),
        key_prefix: "more".into(),
        ..Default::default()
    };
    let status =
        refused(operator.create_organization(request).await, Code::ResourceExhausted, "full");
    assert_eq!(reason(&status), "STORE_FULL");
}

/// Waits until keys can be made again. Nobody does anything for it but ask.
async fn writes_come_back(operator: &Client, organization: &str, name: &str) -> String {
    let until = Instant::now() + DEADLINE;
    loop {
        match operator.create_key(scoped(organization, name, &["a:b"])).await {
            Ok(created) => return created.secret,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
        assert!(Instant::now() < until, "writes do not come back");
        tokio::time::sleep(POLL).await;
    }
}

/// What the reserve holds now, in bytes; its blocks are real.
fn reserve(home: &Home) -> u64 {
    let file = fs::metadata(home.data().join("reserve")).unwrap();
    assert!(file.blocks() * 512 >= file.len(), "the reserve is sparse");
    file.len()
}

/// By how many bytes the database must grow to take up what is in its log.
fn pending(home: &Home) -> u64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(home.database(), flags).unwrap();
    database.busy_timeout(DEADLINE).unwrap();
    let pages = database.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0));
    let there = fs::metadata(home.database()).unwrap().len();
    (4_096 * u64::try_from(pages.unwrap()).unwrap()).saturating_sub(there)
}

/// Every key of an organization as it is listed.
async fn listed(operator: &Client, organization: &str) -> Vec<proto::Key> {
    let mut keys = Vec::new();
    let mut request = ListKeysRequest {
        organization_id: organization.into(),
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let page = operator.list_keys(request.clone()).await.unwrap();
        keys.extend(page.keys);
        if page.next_page_token.is_empty() {
            return keys;
        }
        request.page_token = page.next_page_token;
    }
}

fn nothing_is_fenced(said: &str) {
    assert!(!said.contains("fenced"), "{said}");
}

async fn what_ends_access_goes_on(kind: Kind) {
    let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
    let home = volume.home();
    let server = home.start().await;
    let admin_key = home.admin_key();
    let operator = server.client(&admin_key);
    let acme = operator.organization("acme", "vtx", "").await;
    let keys = make_keys(&operator, &acme, REVOCATIONS + 100).await;
    let whole = reserve(&home);
    assert!(whole >= 20 << 20, "{whole}");

    // Killed with more in the log than a start has space for in the database.
    let mut number = 0;
    while pending(&home) < 9 << 18 {
        let from = number;
        number += 16;
        assert!(number < 2_000, "there is never much in the log");
        for made in at_once(&operator, 16, |client, place| {
            let request = large(&acme, &format!("large {}", from + place));
            async move { client.create_key(request).await }
        })
        .await
        {
            made.unwrap();
        }
    }
    nothing_is_fenced(&server.kill());
    let log = fs::metadata(home.data().join("ledger.db-wal")).unwrap();
    assert!(log.len() > 8 << 20, "the log is not made ahead: {}", log.len());
    let ballast = volume.fill();
    let server = home.start().await;
    let operator = server.client(&admin_key);
    writes_are_refused(&operator, &acme).await;
    assert!(operator.ask(&keys[0].1, &["a:b"]).await.allowed);
    // Whoever looks into what is going on is answered, and it is said what was not recorded.
    let query = QueryActivityRequest { organization_id: acme.clone(), ..Default::default() };
    let page = operator.query_activity(query).await.unwrap();
    assert!(page.entries.iter().all(|it| it.action == "key.created"), "{:?}", page.entries);
    let said = server.kill();
    assert!(said.contains("a reading of the history could not be recorded"), "{said}");
    ballast.remove();
    let server = home.start().await;
    let operator = server.client(&admin_key);
    writes_come_back(&operator, &acme, "after the first").await;

    let ballast = volume.fill();
    writes_are_refused(&operator, &acme).await;
    assert_eq!(reserve(&home), whole, "{kind:?}: what was refused took of the reserve");
    assert!(operator.ask(&keys[0].1, &["a:b"]).await.allowed);
    let (first, rest) = keys.split_at(50);
    for answer in revoke_keys(&operator, &acme, first).await {
        answer.unwrap();
    }
    assert_eq!(operator.ask(&keys[0].1, &[]).await.code(), DecisionCode::Revoked);

    // Killed, and started, with not a block to spare.
    nothing_is_fenced(&server.kill());
    ballast.fill();
    let server = home.start().await;
    let operator = server.client(&admin_key);
    for (_, secret) in first {
        assert_eq!(operator.ask(secret, &[]).await.code(), DecisionCode::Revoked);
    }
    assert!(operator.ask(&rest[0].1, &["a:b"]).await.allowed);
    writes_are_refused(&operator, &acme).await;

    // A stop cuts the log, and others take its space, and that of its index.
    nothing_is_fenced(&server.stop().await);
    fs::remove_file(home.data().join("ledger.db-shm")).unwrap();
    ballast.fill();
    let server = home.start().await;
    let operator = server.client(&admin_key);

    // As many as are promised.
    let began = Instant::now();
    let (promised, spare) = rest.split_at(REVOCATIONS);
    for (place, answer) in revoke_keys(&operator, &acme, promised).await.iter().enumerate() {
        assert!(answer.is_ok(), "{kind:?}: revocation {place}: {answer:?}");
    }
    let left = reserve(&home);
    eprintln!(
        "{kind:?}: {REVOCATIONS} revocations on a full disk in {:?} took {} KiB of a reserve of {} KiB",
        began.elapsed(),
        (whole - left) >> 10,
        whole >> 10,
    );
    assert!(left < whole, "{kind:?}: the reserve was not needed: this proves nothing");
    writes_are_refused(&operator, &acme).await;
    let request = GetKeyRequest { organization_id: acme.clone(), key_id: promised[0].0.clone() };
    let revoked = operator.get_key(request).await.unwrap().key.unwrap();
    assert_eq!(revoked.revocation.unwrap().comment, "found in a public repository");

    // Again: nothing of it is lost.
    nothing_is_fenced(&server.kill());
    let server = home.start().await;
    let operator = server.client(&admin_key);
    for key in listed(&operator, &acme).await {
        let revoked =
            keys.iter().any(|(id, _)| *id == key.id) && !spare.iter().any(|(id, _)| *id == key.id);
        assert_eq!(key.state() == KeyState::Revoked, revoked, "{key:?}");
    }
    writes_are_refused(&operator, &acme).await;
    operator.revoke(&acme, &spare[0].0).await.unwrap();

    // Space, and nothing else.
    ballast.remove();
    let secret = writes_come_back(&operator, &acme, "after the flood").await;
    assert_eq!(reserve(&home), whole, "{kind:?}: writes are taken, and the reserve is not whole");
    assert!(operator.ask(&secret, &["a:b"]).await.allowed);
    let before = listed(&operator, &acme).await;
    nothing_is_fenced(&server.stop().await);
    let server = home.start().await;
    let operator = server.client(&admin_key);
    assert_eq!(listed(&operator, &acme).await, before, "{kind:?}: other tables after a restart");
    assert!(operator.ask(&secret, &["a:b"]).await.allowed);
    server.stop().await;
}

#[tokio::test]
async fn what_ends_access_goes_on_in_memory() {
    what_ends_access_goes_on(Kind::Tmpfs).await;
}

#[tokio::test]
async fn what_ends_access_goes_on_on_a_disk() {
    what_ends_access_goes_on(Kind::Ext4).await;
}

/// Nobody fills the disk but the ledger, with many writers, and keys are revoked all the
/// while: none of those waits in vain behind what is refused.
async fn it_is_not_filled_by_writes_alone(kind: Kind) {
    let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
    let home = volume.home();
    let server = home.start().await;
    let admin_key = home.admin_key();
    let operator = server.client(&admin_key);
    let acme = operator.organization("acme", "vtx", "").await;
    let mut kept = make_keys(&operator, &acme, 500).await;
    let doomed = kept.split_off(440);
    let whole = reserve(&home);

    let stop = Arc::new(AtomicBool::default());
    let (refusals, number) = (Arc::new(AtomicUsize::default()), Arc::new(AtomicUsize::default()));
    let writers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (operator, acme) = (operator.clone(), acme.clone());
            let (stop, number) = (Arc::clone(&stop), Arc::clone(&number));
            let refusals = Arc::clone(&refusals);
            tokio::spawn(async move {
                let mut made = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let name = format!("filling {}", number.fetch_add(1, Ordering::SeqCst));
                    match operator.create_key(large(&acme, &name)).await {
                        Ok(created) => made.push((created.key.unwrap().id, created.secret)),
                        Err(status) => {
                            assert_eq!(reason(&status), "STORE_FULL", "{status:?}");
                            refusals.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
                made
            })
        })
        .collect();
    let until = Instant::now() + 4 * DEADLINE;
    while refusals.load(Ordering::SeqCst) < 100 {
        assert!(Instant::now() < until, "it is never full");
        tokio::time::sleep(POLL).await;
    }
    let began = Instant::now();
    for (id, secret) in &doomed {
        operator.revoke(&acme, id).await.unwrap();
        assert_eq!(operator.ask(secret, &[]).await.code(), DecisionCode::Revoked);
    }
    eprintln!("{kind:?}: {} revocations amid refusals in {:?}", doomed.len(), began.elapsed());
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        kept.extend(writer.await.unwrap());
    }
    eprintln!("{kind:?}: {} large keys fitted", kept.len());
    assert_eq!(reserve(&home), whole, "{kind:?}: writes have eaten of the reserve");

    nothing_is_fenced(&server.kill());
    let server = home.start().await;
    let operator = server.client(&admin_key);
    let states: BTreeMap<String, KeyState> =
        listed(&operator, &acme).await.iter().map(|it| (it.id.clone(), it.state())).collect();
    assert_eq!(states.len(), kept.len() + doomed.len(), "a refused key is there, or one is lost");
    assert!(kept.iter().all(|(id, _)| states[id] == KeyState::Active));
    assert!(doomed.iter().all(|(id, _)| states[id] == KeyState::Revoked));
    nothing_is_fenced(&server.stop().await);
}

/// A key whose event is large.
fn large(organization: &str, name: &str) -> CreateKeyRequest {
    let text = "x".repeat(240);
    CreateKeyRequest {
        metadata: (0..32).map(|n| (format!("entry-{n}"), text.clone())).collect(),
        ..scoped(organization, name, &["a:b"])
    }
}

#[tokio::test]
async fn writes_alone_do_not_eat_the_reserve_in_memory() {
    it_is_not_filled_by_writes_alone(Kind::Tmpfs).await;
}

#[tokio::test]
async fn writes_alone_do_not_eat_the_reserve_on_a_disk() {
    it_is_not_filled_by_writes_alone(Kind::Ext4).await;
}

#[tokio::test]
async fn a_first_start_on_a_full_disk_makes_nothing_half() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
        let home = volume.home();
        let ballast = volume.fill();
        let said = home.launch().refused();
        for says in ["no space for a new ledger", "MiB are free", "MiB are needed", "make space"] {
            assert!(said.contains(says), "{kind:?}: {said}");
        }
        assert!(!home.database().exists() && !home.data().join("admin.key").exists());
        ballast.remove();
        let server = home.start().await;
        server.client(&home.admin_key()).organization("acme", "vtx", "").await;
        server.stop().await;
    }
}

/// A user's access ends like a key's: at once, whatever the disk is like.
#[tokio::test]
async fn users_are_ended_on_a_full_disk() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
        let home = volume.home();
        let server = home.start().await;
        let operator = server.client(&home.admin_key());
        let acme = operator.organization("acme", "vtx", "").await;
        let mut users = Vec::new();
        for name in ["alice", "bob"] {
            let invited = proto::InviteUserRequest {
                organization_id: acme.clone(),
                email: format!("{name}@example.com"),
                name: name.into(),
                ..Default::default()
            };
            let user_id = operator.invite_user(invited).await.unwrap().user.unwrap().id;
            let key = scoped(&acme, name, &["a:b"]);
            let key = CreateKeyRequest { user_id: user_id.clone(), ..key };
            users.push((user_id, operator.create_key(key).await.unwrap().secret));
        }
        let _ballast = volume.fill();
        writes_are_refused(&operator, &acme).await;
        let organization_id = acme.clone();
        let restored = proto::RestoreUserRequest {
            organization_id: organization_id.clone(),
            user_id: users[0].0.clone(),
            ..Default::default()
        };
        let user_id = users[0].0.clone();
        let suspend = proto::SuspendUserRequest { organization_id, user_id, ..Default::default() };
        operator.suspend_user(suspend).await.unwrap();
        assert_eq!(operator.ask(&users[0].1, &[]).await.code(), DecisionCode::Suspended);
        let refusal = operator.restore_user(restored).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
        let user_id = users[1].0.clone();
        let organization_id = acme.clone();
        let remove = proto::RemoveUserRequest { organization_id, user_id, ..Default::default() };
        operator.remove_user(remove).await.unwrap();
        nothing_is_fenced(&server.kill());
        let server = home.start().await;
        let operator = server.client(&home.admin_key());
        let codes = [DecisionCode::Suspended, DecisionCode::Revoked];
        for ((_, secret), code) in users.iter().zip(codes) {
            assert_eq!(operator.ask(secret, &[]).await.code(), code);
        }
        server.stop().await;
    }
}

/// The operator's own key can be replaced with the disk full: it is a file, too.
#[tokio::test]
async fn the_operators_key_is_reissued_on_a_full_disk() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
        let home = volume.home();
        home.start().await.stop().await;
        let before = home.admin_key();
        let _ballast = volume.fill();
        let reissued = Command::new(env!("CARGO_BIN_EXE_keyledger"))
            .args(["operator", "reissue", "--data-dir"])
            .arg(home.data())
            .current_dir(home.path())
            .output()
            .unwrap();
        assert!(reissued.status.success(), "{}", String::from_utf8_lossy(&reissued.stderr));
        let server = home.start().await;
        let operator = server.client(&home.admin_key());
        assert!(operator.ask(&home.admin_key(), &["any:thing"]).await.allowed);
        assert_eq!(operator.ask(&before, &[]).await.code(), DecisionCode::Revoked);
        server.stop().await;
    }
}

/// Forgets the key of this month, as if the month had just begun.
fn begin_a_month(secrets: &Path) {
    let vault = Connection::open(secrets.join("vault.db")).unwrap();
    vault.pragma_update(None, "journal_mode", "MEMORY").unwrap();
    assert!(vault.execute("DELETE FROM subject_keys", []).unwrap() > 0);
}

/// The first revocation of a month needs a new key in the vault. `secrets` is on the disk
/// that is full, the data wherever they are.
async fn a_month_begins(home: &Home, secrets: &Path, full: &Volume, says: &str) {
    let launch = || home.launch().env("KEYLEDGER_SECRETS_DIR", secrets);
    let server = launch().start().await;
    let admin_key = home.admin_key();
    let operator = server.client(&admin_key);
    let acme = operator.organization("acme", "vtx", "").await;
    let globex = operator.organization("globex", "glx", "").await;
    let keys = make_keys(&operator, &acme, 4).await;
    server.stop().await;
    begin_a_month(secrets);
    let ballast = full.fill();

    let server = launch().start().await;
    let operator = server.client(&admin_key);
    let new = operator.create_key(scoped(&acme, "one more", &["a:b"])).await;
    let status = refused(new, Code::ResourceExhausted, "full");
    assert_eq!(reason(&status), says, "{status:?}");
    assert_eq!(revoked(&operator, &acme, &keys[0].0).await, "found in a public repository");
    // What was given up for that is not for others.
    let new = operator.create_key(scoped(&globex, "one more", &["a:b"])).await;
    assert_eq!(reason(&refused(new, Code::ResourceExhausted, "full")), says);
    nothing_is_fenced(&server.stop().await);

    // The vault's reserve is gone, too: rather without a comment than not at all.
    begin_a_month(secrets);
    File::options().write(true).open(secrets.join("vault.reserve")).unwrap().set_len(0).unwrap();
    ballast.fill();
    let server = launch().start().await;
    let operator = server.client(&admin_key);
    let lost = revoked(&operator, &acme, &keys[1].0).await.is_empty();
    assert_eq!(operator.ask(&keys[1].1, &[]).await.code(), DecisionCode::Revoked);
    // Where its disk is the events' own there may be a little that was given up there.
    assert!(lost || says == "STORE_FULL");

    ballast.remove();
    writes_come_back(&operator, &acme, "after the flood").await;
    assert_eq!(revoked(&operator, &acme, &keys[2].0).await, "found in a public repository");
    let said = server.stop().await;
    nothing_is_fenced(&said);
    assert_eq!(said.contains("goes on without its comment and origin"), lost, "{said}");
    let held = fs::metadata(secrets.join("vault.reserve")).unwrap();
    assert_eq!(held.len(), 1 << 20, "the vault's reserve is not whole again");
}

/// Revokes a key; the comment that is stored, as the answer and whoever asks later hear it.
async fn revoked(operator: &Client, organization: &str, key: &str) -> String {
    let answer = operator.revoke_key(revocation(organization, key)).await.unwrap();
    let request = GetKeyRequest { organization_id: organization.into(), key_id: key.into() };
    let later = operator.get_key(request).await.unwrap();
    let [answered, stored] =
        [answer.key, later.key].map(|it| it.unwrap().revocation.unwrap().comment);
    assert_eq!(answered, stored, "the answer tells of a comment that is not stored");
    stored
}

#[tokio::test]
async fn a_month_begins_on_a_full_disk() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(volume) = Volume::mount(kind, VOLUME_MIB) else { return };
        let home = volume.home();
        a_month_begins(&home, &home.data().join("secrets"), &volume, "STORE_FULL").await;
    }
}

#[tokio::test]
async fn a_month_begins_where_the_secrets_disk_alone_is_full() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(volume) = Volume::mount(kind, 16) else { return };
        let home = Home::new();
        a_month_begins(&home, &volume.path.join("secrets"), &volume, "VAULT_FULL").await;
    }
}

/// The gauge and the status say that writes are refused, for as long as they are: nobody
/// else writes in the meantime.
#[tokio::test]
async fn a_full_disk_says_so_until_there_is_space() {
    let Some(volume) = Volume::mount(Kind::Tmpfs, VOLUME_MIB) else { return };
    let home = volume.home();
    let mut server = metrics::launched(home.launch()).start().await;
    let address = metrics::address(&mut server.process);
    let operator = server.client(&home.admin_key());
    let acme = operator.organization("acme", "vtx", "").await;
    let key = make_keys(&operator, &acme, 1).await.remove(0);
    let full = async || {
        let status = operator.get_status(proto::GetStatusRequest {}).await.unwrap().store_full;
        let gauge = metrics::Scrape::of(address).value("keyledger_store_full");
        (status, gauge)
    };
    assert_eq!(full().await, (false, 0.0));
    let ballast = volume.fill();
    writes_are_refused(&operator, &acme).await;
    assert_eq!(full().await, (true, 1.0));
    // What ends access is written, and makes no space.
    operator.revoke(&acme, &key.0).await.unwrap();
    assert_eq!(full().await, (true, 1.0));
    ballast.remove();
    let until = Instant::now() + DEADLINE;
    while full().await != (false, 0.0) {
        assert!(Instant::now() < until, "it says that the disk is full, and it is not");
        tokio::time::sleep(POLL).await;
    }
    operator.create_key(scoped(&acme, "again", &["a:b"])).await.unwrap();
    server.stop().await;
}

/// A library that goes before the system's own: errors of writes as this machine cannot
/// make them.
struct Shim {
    library: PathBuf,
    trigger: PathBuf,
    _place: TempDir,
}

impl Shim {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <stdlib.h>
        #include <unistd.h>
        typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
        static ssize_t shim(const char *name, int fd, const void *data, size_t size, off_t at) {
            const char *trigger = getenv("SHIM_EIO");
            if (trigger && access(trigger, F_OK) == 0) { errno = EIO; return -1; }
            ssize_t written = ((pwrite_t)dlsym(RTLD_NEXT, name))(fd, data, size, at);
            if (written < 0 && errno == ENOSPC && getenv("SHIM_EDQUOT")) errno = EDQUOT;
            return written;
        }
        ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
            return shim("pwrite", fd, data, size, at);
        }
        ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
            return shim("pwrite64", fd, data, size, at);
        }
    "#;

    fn compiled() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let (source, library) = (place.path().join("shim.c"), place.path().join("shim.so"));
        fs::write(&source, Self::SOURCE).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        match compiler.output() {
            Ok(done) if done.status.success() => {
                Some(Self { library, trigger: place.path().join("trigger"), _place: place })
            }
            Ok(_) | Err(_) => {
                eprintln!("skipped: no C compiler");
                None
            }
        }
    }
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_a_full_disk() {
    let Some(shim) = Shim::compiled() else { return };
    let Some(volume) = Volume::mount(Kind::Tmpfs, VOLUME_MIB) else { return };
    let home = volume.home();
    let launch = || home.launch().env("LD_PRELOAD", &shim.library).env("SHIM_EDQUOT", "1");
    let server = launch().start().await;
    let operator = server.client(&home.admin_key());
    let acme = operator.organization("acme", "vtx", "").await;
    let keys = make_keys(&operator, &acme, 3_000).await;
    server.stop().await;
    // Nothing is made ahead of this start: the log must grow, and cannot.
    let ballast = volume.fill();
    let server = launch().start().await;
    let operator = server.client(&home.admin_key());
    writes_are_refused(&operator, &acme).await;
    let whole = reserve(&home);
    for answer in revoke_keys(&operator, &acme, &keys).await {
        answer.unwrap();
    }
    assert!(reserve(&home) < whole, "the reserve was not needed: this proves nothing");
    nothing_is_fenced(&server.kill());
    let server = launch().start().await;
    let operator = server.client(&home.admin_key());
    assert_eq!(operator.ask(&keys[0].1, &[]).await.code(), DecisionCode::Revoked);
    ballast.remove();
    writes_come_back(&operator, &acme, "after the flood").await;
    nothing_is_fenced(&server.stop().await);
}

#[tokio::test]
async fn an_error_of_the_disk_is_not_a_full_one() {
    let Some(shim) = Shim::compiled() else { return };
    let acme = Acme::on(Home::new(), |launch| {
        launch.env("LD_PRELOAD", &shim.library).env("SHIM_EIO", &shim.trigger)
    });
    let Acme { home, server, operator, id, .. } = acme.await;
    let keys = make_keys(&operator, &id, 1).await;
    fs::write(&shim.trigger, "").unwrap();
    let fenced = operator.create_key(scoped(&id, "one more", &["a:b"])).await;
    assert_eq!(reason(&refused(fenced, Code::Unavailable, "")), "UNAVAILABLE");
    fs::remove_file(&shim.trigger).unwrap();
    for fenced in [
        operator.create_key(scoped(&id, "one more", &["a:b"])).await.map(|_| ()),
        operator.revoke(&id, &keys[0].0).await.map(|_| ()),
    ] {
        assert_eq!(reason(&refused(fenced, Code::Unavailable, "")), "UNAVAILABLE");
    }
    assert!(operator.ask(&keys[0].1, &["a:b"]).await.allowed);
    let said = server.kill();
    assert!(said.contains("fenced"), "{said}");
    let server: Server = home.start().await;
    server.client(&home.admin_key()).revoke(&id, &keys[0].0).await.unwrap();
    server.stop().await;
}

//! That the vault outlives its process, and notices whatever was exchanged beneath it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::vault::conformance::{self, subject};

mod rows;

fn open(home: &TempDir, start: Start) -> (FileVault, Peppers) {
    FileVault::open(home.path(), start).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(home: &TempDir, start: Start) -> String {
    FileVault::open(home.path(), start).err().expect("must not open").to_string()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let home = TempDir::new().unwrap();
    conformance::check(Arc::new(open(&home, Start::First).0)).await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let home = TempDir::new().unwrap();
    let (vault, peppers) = open(&home, Start::First);
    let kept = vault.obtain_subject_key(&subject(1), Urgency::Normal).await.unwrap();
    vault.obtain_subject_key(&subject(2), Urgency::Normal).await.unwrap();
    vault.erase_subject(&subject(2)).await.unwrap();
    let named = vault.obtain_named_key("lookup-key").await.unwrap();
    // Not dropped first: what was answered must not wait for an orderly end.
    let (again, same_peppers) = open(&home, Start::Later);
    assert!(again.cached_subject_key(&subject(1)).is_none());
    let state = again.existing_subject_key(&subject(1)).await.unwrap();
    assert!(state == SubjectKeyState::Held(kept.clone()));
    assert!(again.cached_subject_key(&subject(1)) == Some(kept));
    let state = again.existing_subject_key(&subject(2)).await.unwrap();
    assert!(state == SubjectKeyState::Erased);
    assert_eq!(*again.obtain_named_key("lookup-key").await.unwrap(), *named);
    assert_eq!(same_peppers.digest(b"x"), peppers.digest(b"x"));
}

#[tokio::test]
async fn a_wrong_or_missing_secret_is_found_at_start() {
    for file in [ROOT_KEY_FILE, "pepper-1.key"] {
        let home = TempDir::new().unwrap();
        drop(open(&home, Start::First));
        let path = home.path().join(file);
        let right = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for start in [Start::First, Start::Later] {
            let text = refused(&home, start);
            assert!(text.contains(file) && text.contains("missing"), "{text}");
            assert!(!path.exists());
        }
        files::make_key(&path).unwrap();
        let text = refused(&home, Start::Later);
        assert!(text.contains(file) && text.contains("not the one"), "{text}");
        fs::write(&path, right).unwrap();
        open(&home, Start::Later);
    }
}

/// Which of them is current, and which are missed, only history can say.
#[tokio::test]
async fn every_pepper_beside_it_is_read() {
    let home = TempDir::new().unwrap();
    let (_, peppers) = open(&home, Start::First);
    let one = peppers.digest(b"x");
    for name in ["pepper-2.key", "pepper-10.key"] {
        files::make_key(&home.path().join(name)).unwrap();
    }
    for other in
        ["pepper-03.key", "pepper-.key", "pepper-x.key", "pepper-4.key.old", ".pepper-5.key.new"]
    {
        fs::write(home.path().join(other), "no key").unwrap();
    }
    let (_, peppers) = open(&home, Start::Later);
    assert_eq!((peppers.current(), peppers.digest(b"x")), (PepperId::FIRST, one));
    let there: Vec<u32> = (0..20).filter(|id| peppers.has(PepperId(*id))).collect();
    assert_eq!(there, [1, 2, 10]);
    // The first may be gone; the last one may not.
    fs::remove_file(home.path().join("pepper-1.key")).unwrap();
    let (_, peppers) = open(&home, Start::Later);
    assert!(!peppers.has(PepperId::FIRST) && peppers.has(PepperId(2)));
    for name in ["pepper-2.key", "pepper-10.key"] {
        fs::remove_file(home.path().join(name)).unwrap();
    }
    assert!(refused(&home, Start::Later).contains("pepper-1.key"));
}

#[tokio::test]
async fn a_lost_vault_is_not_made_anew() {
    let home = TempDir::new().unwrap();
    drop(open(&home, Start::First));
    fs::remove_file(home.path().join(VAULT_FILE)).unwrap();
    assert!(refused(&home, Start::Later).contains("vault.db"));
    let path = home.path().join(VAULT_FILE);
    fs::write(&path, "").unwrap();
    assert!(refused(&home, Start::Later).contains("vault.db"));
    // A database that holds nothing is no vault either.
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x); DROP TABLE t").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refused(&home, Start::Later).contains("form 0"));
}

/// A first start that ended at any of its steps goes on from there.
#[tokio::test]
async fn an_interrupted_first_start_goes_on() {
    let home = TempDir::new().unwrap();
    let root = files::make_key(&home.path().join(ROOT_KEY_FILE)).unwrap();
    fs::write(home.path().join(VAULT_FILE), "").unwrap();
    fs::set_permissions(home.path().join(VAULT_FILE), fs::Permissions::from_mode(0o600)).unwrap();
    open(&home, Start::First);
    let kept = files::read_key(&home.path().join(ROOT_KEY_FILE)).unwrap();
    assert_eq!(*kept, *root);
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    let home = TempDir::new().unwrap();
    drop(open(&home, Start::First));
    for file in [VAULT_FILE, ROOT_KEY_FILE, "pepper-1.key"] {
        let path = home.path().join(file);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&home, Start::Later).contains("chmod 600"), "{file}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[tokio::test]
async fn a_newer_vault_is_left_alone() {
    let home = TempDir::new().unwrap();
    drop(open(&home, Start::First));
    let file = Connection::open(home.path().join(VAULT_FILE)).unwrap();
    file.execute_batch("PRAGMA user_version = 3").unwrap();
    assert!(refused(&home, Start::Later).contains("form 3"));
}

/// More callers than fit in a batch, in the queue and in the cache: none is lost, and
/// nobody gets another key for it.
#[tokio::test]
async fn many_callers_at_once_are_all_served() {
    let home = TempDir::new().unwrap();
    let vault = Arc::new(open(&home, Start::First).0);
    let many = QUEUE_JOBS_MAX + worker::BATCH_JOBS_MAX + 1;
    let callers: Vec<_> = (0..many)
        .map(|n| {
            let vault = Arc::clone(&vault);
            tokio::spawn(async move {
                vault.obtain_subject_key(&subject(n as u128), Urgency::Normal).await
            })
        })
        .collect();
    let mut keys = Vec::new();
    for caller in callers {
        keys.push(caller.await.unwrap().unwrap());
    }
    assert!(vault.cache.len() <= CACHED_SUBJECT_KEYS_MAX);
    for (n, key) in keys.iter().enumerate() {
        assert!(
            vault.obtain_subject_key(&subject(n as u128), Urgency::Normal).await.unwrap() == *key
        );
        assert!(vault.cache.len() <= CACHED_SUBJECT_KEYS_MAX);
    }
}

/// Neither a key nor its wrapped form is in the file once it is erased.
#[tokio::test]
async fn erasing_leaves_nothing_in_the_file() {
    let home = TempDir::new().unwrap();
    let path = home.path().join(VAULT_FILE);
    let (vault, _) = open(&home, Start::First);
    for n in 0..200 {
        vault.obtain_subject_key(&subject(n), Urgency::Normal).await.unwrap();
    }
    let wrapped: Vec<u8> = Connection::open(&path)
        .unwrap()
        .query_row(
            "SELECT sealed FROM subject_keys WHERE subject = ?1",
            [subject(7).as_str()],
            |row| row.get(0),
        )
        .unwrap();
    let stands =
        |bytes: &[u8]| fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    let key = vault.existing_subject_key(&subject(7)).await.unwrap();
    let SubjectKeyState::Held(key) = key else { panic!("must be held") };
    assert!(stands(&wrapped));
    assert!(!stands(key.expose()));
    vault.erase_subject(&subject(7)).await.unwrap();
    assert!(!stands(&wrapped));
    assert!(!stands(&wrapped[..16]));
}

/// Two rows exchanged, or one altered, are damage: never another subject's key.
#[tokio::test]
async fn damaged_rows_are_noticed() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    for n in 1..=2 {
        vault.obtain_subject_key(&subject(n), Urgency::Normal).await.unwrap();
    }
    vault.obtain_named_key("lookup-key").await.unwrap();
    let file = Connection::open(home.path().join(VAULT_FILE)).unwrap();
    file.execute(
        "UPDATE subject_keys SET (salt, sealed) =
           (SELECT salt, sealed FROM subject_keys WHERE subject = ?1) WHERE subject = ?2",
        [subject(1).as_str(), subject(2).as_str()],
    )
    .unwrap();
    file.execute("UPDATE named_keys SET sealed = zeroblob(48)", []).unwrap();
    let (again, _) = open(&home, Start::Later);
    let damaged = Some(VaultError::Damaged(subject(2).to_string()));
    assert_eq!(again.obtain_subject_key(&subject(2), Urgency::Normal).await.err(), damaged);
    assert_eq!(again.existing_subject_key(&subject(2)).await.err(), damaged);
    assert!(again.obtain_subject_key(&subject(1), Urgency::Normal).await.is_ok());
    let damaged = Some(VaultError::Damaged("lookup-key".to_owned()));
    assert_eq!(again.obtain_named_key("lookup-key").await.err(), damaged);
}

/// A fault fences the vault: nothing more is done, though one at hand may still be used.
#[tokio::test]
async fn a_fault_stops_the_vault() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    vault.obtain_subject_key(&subject(1), Urgency::Normal).await.unwrap();
    let file = Connection::open(home.path().join(VAULT_FILE)).unwrap();
    file.execute_batch("ALTER TABLE subject_keys RENAME TO lost").unwrap();
    let fenced = |outcome: Option<VaultError>| match outcome {
        Some(VaultError::Unavailable(text)) => assert!(text.starts_with("fenced"), "{text}"),
        other => panic!("{other:?}"),
    };
    fenced(vault.obtain_subject_key(&subject(2), Urgency::Normal).await.err());
    file.execute_batch("ALTER TABLE lost RENAME TO subject_keys").unwrap();
    fenced(vault.obtain_subject_key(&subject(2), Urgency::Normal).await.err());
    assert!(vault.cached_subject_key(&subject(1)).is_some());
}

//! Secret rows on disk: kept over a restart, wrapped, overwritten, and in files of old too.

use std::fs;
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::open;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{ROW_BYTES_MAX, ROW_NAMES_MAX, RowName, RowWritten};
use crate::ledger::vault::{Vault, VaultError};
use crate::reserve::Reserve;
use crate::vault::conformance::{account, bytes, secret, subject, write};
use crate::vault::file::tables::Tables;
use crate::vault::file::worker::Worker;
use crate::vault::file::{
    Cache, FileVault, QUEUE_JOBS_MAX, RESERVE_BYTES, RESERVE_FILE, RESERVE_STEP_BYTES, Start,
    VAULT_FILE,
};
use crate::vault::files::{self, ROOT_KEY_FILE};
use crate::vault::wrap::RootKey;

#[tokio::test]
async fn a_row_that_was_answered_is_there_after_a_restart() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    let (kept, gone) = (RowName::password(account(1)), RowName::password(account(2)));
    let version = write(&vault, &kept, None, Some(b"kept")).await;
    let was = write(&vault, &gone, None, Some(b"gone")).await;
    write(&vault, &gone, was, None).await;
    // Not dropped first: what was answered must not wait for an orderly end.
    let (again, _) = open(&home, Start::Later);
    let row = again.read_row(&kept).await.unwrap().unwrap();
    assert_eq!((Some(row.version), row.secret.expose()), (version, &b"kept"[..]));
    assert!(again.read_row(&gone).await.unwrap().is_none());
}

/// A vault of the first form opens, keeps what it has, and takes rows from then on.
#[tokio::test]
async fn a_vault_without_rows_gets_them() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    let key = vault.obtain_subject_key(&subject(1), Urgency::Normal).await.unwrap();
    drop(vault);
    // The file as versions without rows made it.
    let file = Connection::open(home.path().join(VAULT_FILE)).unwrap();
    file.execute_batch("DROP TABLE secret_rows; PRAGMA user_version = 1").unwrap();
    let schema: Vec<String> = file
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(schema, ["checks", "named_keys", "subject_keys"]);
    drop(file);
    for _ in 0..2 {
        let (vault, _) = open(&home, Start::Later);
        assert!(
            vault.obtain_subject_key(&subject(1), Urgency::Normal).await.unwrap() == key,
            "what it held it holds"
        );
        let name = RowName::password(account(1));
        let seen = vault.read_row(&name).await.unwrap().map(|row| row.version);
        write(&vault, &name, seen, Some(b"x")).await;
    }
}

#[tokio::test]
async fn a_row_rests_wrapped_and_leaves_nothing_behind() {
    let home = TempDir::new().unwrap();
    let path = home.path().join(VAULT_FILE);
    let (vault, _) = open(&home, Start::First);
    let name = |n| RowName::password(account(n));
    for n in 0..100 {
        write(&vault, &name(n), None, Some(b"a secret that must not be seen")).await;
    }
    let resting = |n| -> Vec<u8> {
        let query = "SELECT sealed FROM secret_rows WHERE name = ?1";
        let file = Connection::open(&path).unwrap();
        file.query_row(query, [name(n).as_str()], |row| row.get(0)).unwrap()
    };
    let stands =
        |bytes: &[u8]| fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    let (replaced, removed) = (resting(7), resting(8));
    assert!(stands(&replaced) && stands(&removed));
    assert!(!stands(b"a secret that"));
    for (n, to) in [(7, Some(&b"another secret of some length"[..])), (8, None)] {
        let name = name(n);
        let version = vault.read_row(&name).await.unwrap().map(|row| row.version);
        write(&vault, &name, version, to).await;
    }
    assert!(!stands(&replaced[..16]) && !stands(&removed[..16]));
}

/// One row put in another's place, or altered, is damage: never another account's secret.
#[tokio::test]
async fn damaged_rows_are_no_secrets() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    let names = [1, 2, 3].map(|n| RowName::password(account(n)));
    for name in &names {
        write(&vault, name, None, Some(name.as_str().as_bytes())).await;
    }
    let file = Connection::open(home.path().join(VAULT_FILE)).unwrap();
    file.execute(
        "UPDATE secret_rows SET (salt, sealed) =
           (SELECT salt, sealed FROM secret_rows WHERE name = ?1) WHERE name = ?2",
        [names[0].as_str(), names[1].as_str()],
    )
    .unwrap();
    file.execute(
        "UPDATE secret_rows SET sealed = zeroblob(9) WHERE name = ?1",
        [names[2].as_str()],
    )
    .unwrap();
    for name in &names[1..] {
        let damaged = Some(VaultError::Damaged(name.to_string()));
        assert_eq!(vault.read_row(name).await.err(), damaged);
    }
    assert!(bytes(&vault, &names[0]).await.is_some());
}

/// A vault whose file cannot grow, in the place of the one in this directory.
fn that_cannot_grow(home: &TempDir) -> FileVault {
    let tables = Tables::open(&home.path().join(VAULT_FILE), Start::Later).unwrap();
    tables.stop_growing();
    let root = RootKey::new(files::read_key(&home.path().join(ROOT_KEY_FILE)).unwrap());
    let cache = Arc::new(Cache::new());
    let (jobs, waiting) = mpsc::channel(QUEUE_JOBS_MAX);
    let reserve = home.path().join(RESERVE_FILE);
    let reserve = Reserve::open(&reserve, RESERVE_BYTES, RESERVE_STEP_BYTES).unwrap();
    let worker = Worker::new(tables, root, Arc::clone(&cache), reserve);
    std::thread::spawn(move || worker.run(waiting));
    FileVault { jobs, cache }
}

/// What does not fit is refused, whole, and fences nothing: rows are read and taken away, and
/// where one was there is room for another.
#[tokio::test]
async fn a_full_vault_refuses_rows_and_goes_on() {
    let home = TempDir::new().unwrap();
    let (vault, _) = open(&home, Start::First);
    let name = |n| RowName::password(account(n));
    for n in 0..50 {
        write(&vault, &name(n), None, Some(&[7; 2_000])).await;
    }
    drop(vault);
    let vault = that_cannot_grow(&home);
    let mut fit = 50;
    let refused = loop {
        let row = secret(&[8; 2_000]);
        match vault.write_row(&name(fit), None, row, Urgency::Normal).await {
            Ok(_) => fit += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, VaultError::Full);
    let seen = vault.read_row(&name(1)).await.unwrap().unwrap();
    // Larger than what was there: refused as well, and what was there stays.
    let larger = secret(&[9; ROW_BYTES_MAX]);
    for urgency in [Urgency::Normal, Urgency::Reserved] {
        let version = Some(seen.version);
        let written = vault.write_row(&name(1), version, larger.clone(), urgency).await;
        assert_eq!(written, Err(VaultError::Full));
    }
    assert_eq!(bytes(&vault, &name(1)).await, Some(vec![7; 2_000]));
    for n in 1..10 {
        let version = vault.read_row(&name(n)).await.unwrap().map(|row| row.version);
        let gone = vault.write_row(&name(n), version, None, Urgency::Normal).await;
        assert_eq!(gone, Ok(RowWritten::Written(None)));
    }
    write(&vault, &name(fit), None, Some(&[8; 2_000])).await;
    assert_eq!(vault.row_names(None).await.unwrap().len() as u128, fit + 1 - 9);
}

/// More rows than a batch, a queue or an answer holds, changed at once: each by one alone.
#[tokio::test]
async fn many_rows_at_once_are_all_written() {
    let home = TempDir::new().unwrap();
    let vault = Arc::new(open(&home, Start::First).0);
    let many = ROW_NAMES_MAX + 1;
    let writers: Vec<_> = (0..many * 2)
        .map(|n| {
            let vault = Arc::clone(&vault);
            let name = RowName::totp(account((n / 2) as u128));
            tokio::spawn(async move {
                vault.write_row(&name, None, secret(&n.to_le_bytes()), Urgency::Normal).await
            })
        })
        .collect();
    let mut won = 0;
    for writer in writers {
        won += usize::from(writer.await.unwrap().unwrap() != RowWritten::Conflict);
    }
    assert_eq!(won, many);
    let first = vault.row_names(None).await.unwrap();
    assert_eq!(first.len(), ROW_NAMES_MAX);
    let rest = vault.row_names(first.last()).await.unwrap();
    assert_eq!(rest, [RowName::totp(account(ROW_NAMES_MAX as u128))]);
}

//! What every vault must do: the contract of [`crate::ledger::vault::Vault`] as tests.

use std::sync::Arc;

use projections::id::{AccountId, OrganizationId};
use projections::sealed::Subject;
use projections::time::Timestamp;
use zeroize::Zeroizing;

use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{ROW_BYTES_MAX, RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{SubjectKeyState, Vault, VaultError};

/// A subject of its own for each number.
pub(super) fn subject(n: u128) -> Subject {
    let organization = OrganizationId::from_parts(1_700_000_000_000, n);
    Subject::organization_month(organization, Timestamp::default())
}

/// Holds an empty vault to the contract.
pub(super) async fn check(vault: Arc<dyn Vault>) {
    nothing_is_made_by_looking(&*vault).await;
    a_key_is_made_once(&*vault).await;
    concurrent_callers_get_one_key(Arc::clone(&vault)).await;
    erasure_is_final(&*vault).await;
    named_keys_stay(&*vault).await;
    a_row_is_written_by_whoever_has_seen_it(&*vault).await;
    of_two_at_once_one_alone_writes_a_row(Arc::clone(&vault)).await;
    rows_are_named_in_their_order(&*vault).await;
}

/// An account of its own for each number.
pub(super) fn account(n: u128) -> AccountId {
    AccountId::from_parts(1_700_000_000_000, n)
}

/// These bytes as a row's.
pub(super) fn secret(bytes: &[u8]) -> Option<RowSecret> {
    RowSecret::new(Zeroizing::new(bytes.to_vec()))
}

/// Writes a row that must be in the expected state. Gives its version; none once it is gone.
pub(super) async fn write(
    vault: &dyn Vault,
    name: &RowName,
    expected: Option<RowVersion>,
    bytes: Option<&[u8]>,
) -> Option<RowVersion> {
    let secret = bytes.and_then(secret);
    match vault.write_row(name, expected, secret, Urgency::Normal).await.unwrap() {
        RowWritten::Written(version) => version,
        RowWritten::Conflict => panic!("`{name}` was not as expected"),
    }
}

/// What a row holds.
pub(super) async fn bytes(vault: &dyn Vault, name: &RowName) -> Option<Vec<u8>> {
    let row = vault.read_row(name).await.unwrap()?;
    Some(row.secret.expose().to_vec())
}

async fn a_row_is_written_by_whoever_has_seen_it(vault: &dyn Vault) {
    let name = RowName::password(account(1));
    assert!(vault.read_row(&name).await.unwrap().is_none());
    let first = write(vault, &name, None, Some(b"one")).await;
    assert_eq!(vault.read_row(&name).await.unwrap().map(|row| row.version), first);
    let second = write(vault, &name, first, Some(&[7; ROW_BYTES_MAX])).await;
    assert_eq!(bytes(vault, &name).await, Some(vec![7; ROW_BYTES_MAX]));
    // Neither the version before, nor none, nor one that never was.
    for stale in [first, None, Some(RowVersion(u64::MAX - 1))] {
        for change in [secret(b"late"), None] {
            let written = vault.write_row(&name, stale, change, Urgency::Reserved).await;
            assert_eq!(written, Ok(RowWritten::Conflict));
        }
    }
    assert_eq!(bytes(vault, &name).await, Some(vec![7; ROW_BYTES_MAX]));
    assert_eq!(write(vault, &name, second, None).await, None);
    assert!(vault.read_row(&name).await.unwrap().is_none());
    // Gone already: there is nothing of that version to take away, and nothing to nothing.
    let again = vault.write_row(&name, second, None, Urgency::Normal).await;
    assert_eq!(again, Ok(RowWritten::Conflict));
    assert_eq!(write(vault, &name, None, None).await, None);
    // Made anew it is another row: whoever saw the old one cannot change it.
    let third = write(vault, &name, None, Some(b"three")).await;
    assert!(third != first && third != second);
    let late = vault.write_row(&name, second, secret(b"late"), Urgency::Normal).await;
    assert_eq!(late, Ok(RowWritten::Conflict));
    let empty = write(vault, &name, third, Some(b"")).await;
    assert_eq!(bytes(vault, &name).await, Some(Vec::new()));
    write(vault, &name, empty, None).await;
    // What is about another thing is another row.
    let other = RowName::totp(account(1));
    write(vault, &other, None, Some(b"totp")).await;
    assert!(vault.read_row(&name).await.unwrap().is_none());
    assert_eq!(bytes(vault, &other).await.as_deref(), Some(&b"totp"[..]));
}

async fn of_two_at_once_one_alone_writes_a_row(vault: Arc<dyn Vault>) {
    let name = RowName::password(account(2));
    let seen = write(&*vault, &name, None, Some(b"seen")).await;
    let writers: Vec<_> = (0..50_u8)
        .map(|n| {
            let (vault, name) = (Arc::clone(&vault), name.clone());
            tokio::spawn(async move {
                vault.write_row(&name, seen, secret(&[n]), Urgency::Normal).await.unwrap()
            })
        })
        .collect();
    let mut won = Vec::new();
    for (n, writer) in (0..50_u8).zip(writers) {
        if writer.await.unwrap() != RowWritten::Conflict {
            won.push(n);
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(bytes(&*vault, &name).await, Some(won));
}

async fn rows_are_named_in_their_order(vault: &dyn Vault) {
    let names = [RowName::password(account(2)), RowName::totp(account(1))];
    assert_eq!(vault.row_names(None).await.unwrap(), names);
    assert_eq!(vault.row_names(Some(&names[0])).await.unwrap(), names[1..]);
    assert_eq!(vault.row_names(Some(&names[1])).await.unwrap(), []);
    // Behind a row that is not there.
    let between = RowName::recovery(account(9));
    assert_eq!(vault.row_names(Some(&between)).await.unwrap(), names[1..]);
}

async fn nothing_is_made_by_looking(vault: &dyn Vault) {
    for _ in 0..2 {
        assert!(vault.cached_subject_key(&subject(1)).is_none());
        let state = vault.existing_subject_key(&subject(1)).await.unwrap();
        assert!(state == SubjectKeyState::Absent);
    }
}

async fn a_key_is_made_once(vault: &dyn Vault) {
    let key = vault.obtain_subject_key(&subject(2), Urgency::Normal).await.unwrap();
    assert!(vault.obtain_subject_key(&subject(2), Urgency::Normal).await.unwrap() == key);
    let state = vault.existing_subject_key(&subject(2)).await.unwrap();
    assert!(state == SubjectKeyState::Held(key.clone()));
    assert!(vault.cached_subject_key(&subject(2)).is_none_or(|cached| cached == key));
    assert!(vault.obtain_subject_key(&subject(3), Urgency::Normal).await.unwrap() != key);
}

async fn concurrent_callers_get_one_key(vault: Arc<dyn Vault>) {
    let callers: Vec<_> = (0..50)
        .map(|n| {
            let vault = Arc::clone(&vault);
            tokio::spawn(async move {
                vault.obtain_subject_key(&subject(100 + n % 5), Urgency::Normal).await
            })
        })
        .collect();
    for (n, caller) in callers.into_iter().enumerate() {
        let key = caller.await.unwrap().unwrap();
        let again =
            vault.obtain_subject_key(&subject(100 + n as u128 % 5), Urgency::Normal).await.unwrap();
        assert!(key == again);
    }
}

async fn erasure_is_final(vault: &dyn Vault) {
    for (n, held) in [(4, true), (5, false)] {
        if held {
            vault.obtain_subject_key(&subject(n), Urgency::Normal).await.unwrap();
        }
        assert_eq!(vault.erase_subject(&subject(n)).await, Ok(held));
        assert!(vault.cached_subject_key(&subject(n)).is_none());
        assert_eq!(vault.erase_subject(&subject(n)).await, Ok(false));
        let state = vault.existing_subject_key(&subject(n)).await.unwrap();
        assert!(state == SubjectKeyState::Erased);
        let refused = vault.obtain_subject_key(&subject(n), Urgency::Normal).await.err();
        assert_eq!(refused, Some(VaultError::Erased(subject(n))));
    }
    let state = vault.existing_subject_key(&subject(2)).await.unwrap();
    assert!(matches!(state, SubjectKeyState::Held(_)));
    // Each at its place, and none is made by that.
    let many = [9_999, 2, 4, 2, 9_999].map(subject);
    let states = vault.existing_subject_keys(&many).await.unwrap();
    let absent = SubjectKeyState::Absent;
    let expected = [absent.clone(), state.clone(), SubjectKeyState::Erased, state, absent];
    assert!(states == expected);
    assert!(vault.existing_subject_keys(&[]).await.unwrap().is_empty());
}

async fn named_keys_stay(vault: &dyn Vault) {
    let key = vault.obtain_named_key("lookup-key").await.unwrap();
    assert_eq!(*vault.obtain_named_key("lookup-key").await.unwrap(), *key);
    assert_ne!(*vault.obtain_named_key("other-key").await.unwrap(), *key);
}

//! What every vault must do: the contract of [`crate::ledger::vault::Vault`] as tests.

use std::sync::Arc;

use projections::id::OrganizationId;
use projections::sealed::Subject;
use projections::time::Timestamp;

use crate::ledger::urgency::Urgency;
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
}

async fn named_keys_stay(vault: &dyn Vault) {
    let key = vault.obtain_named_key("lookup-key").await.unwrap();
    assert_eq!(*vault.obtain_named_key("lookup-key").await.unwrap(), *key);
    assert_ne!(*vault.obtain_named_key("other-key").await.unwrap(), *key);
}

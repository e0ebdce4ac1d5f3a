//! The vault of tests: in memory, gone with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use projections::sealed::Subject;
use zeroize::Zeroizing;

use crate::ledger::secret::random_key;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{
    ROW_NAMES_MAX, RowName, RowSecret, RowVersion, RowWritten, SecretRow,
};
use crate::ledger::vault::{SubjectKey, SubjectKeyState, Vault, VaultError, VaultFuture};

/// Keys in memory.
#[derive(Default)]
pub struct MemoryVault {
    kept: Mutex<Kept>,
    looked_up: AtomicU64,
}

#[derive(Default)]
struct Kept {
    /// None: erased.
    subjects: HashMap<Subject, Option<SubjectKey>>,
    named: HashMap<&'static str, Zeroizing<[u8; 32]>>,
    rows: BTreeMap<RowName, SecretRow>,
    /// How often a row was written: what versions are made of.
    rows_written: u64,
    /// For whom there is no space any more, and for whoever is less urgent.
    full: Option<Urgency>,
}

impl MemoryVault {
    /// How often it was asked for subjects' keys, of one or of many at once.
    #[must_use]
    pub fn looked_up(&self) -> u64 {
        self.looked_up.load(Ordering::Relaxed)
    }

    /// A vault that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets space run out for this urgency and what is less, or come back for all.
    pub fn set_full(&self, full: Option<Urgency>) {
        self.kept().full = full;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obtain(&self, subject: &Subject, urgency: Urgency) -> Result<SubjectKey, VaultError> {
        let mut kept = self.kept();
        if kept.full.is_some_and(|full| urgency <= full) && !kept.subjects.contains_key(subject) {
            return Err(VaultError::Full);
        }
        match kept.subjects.entry(subject.clone()).or_insert(Some(fresh()?)) {
            Some(key) => Ok(key.clone()),
            None => Err(VaultError::Erased(subject.clone())),
        }
    }

    fn change_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> Result<RowWritten, VaultError> {
        let mut kept = self.kept();
        if kept.rows.get(name).map(|row| row.version) != expected {
            return Ok(RowWritten::Conflict);
        }
        let Some(secret) = secret else {
            kept.rows.remove(name);
            return Ok(RowWritten::Written(None));
        };
        if kept.full.is_some_and(|full| urgency <= full) {
            return Err(VaultError::Full);
        }
        kept.rows_written += 1;
        let version = RowVersion(kept.rows_written);
        kept.rows.insert(name.clone(), SecretRow { version, secret });
        Ok(RowWritten::Written(Some(version)))
    }

    fn obtain_named(&self, name: &'static str) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let key = random_key().map_err(|error| VaultError::Unavailable(error.to_string()))?;
        Ok(self.kept().named.entry(name).or_insert(key).clone())
    }
}

fn fresh() -> Result<SubjectKey, VaultError> {
    random_key().map(SubjectKey::new).map_err(|error| VaultError::Unavailable(error.to_string()))
}

impl MemoryVault {
    fn existing(&self, subject: &Subject) -> SubjectKeyState {
        match self.kept().subjects.get(subject) {
            Some(Some(key)) => SubjectKeyState::Held(key.clone()),
            Some(None) => SubjectKeyState::Erased,
            None => SubjectKeyState::Absent,
        }
    }
}

fn ready<T: Send + 'static>(outcome: Result<T, VaultError>) -> VaultFuture<T> {
    Box::pin(std::future::ready(outcome))
}

impl Vault for MemoryVault {
    fn cached_subject_key(&self, subject: &Subject) -> Option<SubjectKey> {
        self.kept().subjects.get(subject).cloned().flatten()
    }

    fn obtain_subject_key(&self, subject: &Subject, urgency: Urgency) -> VaultFuture<SubjectKey> {
        ready(self.obtain(subject, urgency))
    }

    fn existing_subject_key(&self, subject: &Subject) -> VaultFuture<SubjectKeyState> {
        self.looked_up.fetch_add(1, Ordering::Relaxed);
        ready(Ok(self.existing(subject)))
    }

    fn existing_subject_keys(&self, subjects: &[Subject]) -> VaultFuture<Vec<SubjectKeyState>> {
        self.looked_up.fetch_add(1, Ordering::Relaxed);
        ready(Ok(subjects.iter().map(|it| self.existing(it)).collect()))
    }

    fn erase_subject(&self, subject: &Subject) -> VaultFuture<bool> {
        let before = self.kept().subjects.insert(subject.clone(), None);
        ready(Ok(before.flatten().is_some()))
    }

    fn obtain_named_key(&self, name: &'static str) -> VaultFuture<Zeroizing<[u8; 32]>> {
        ready(self.obtain_named(name))
    }

    fn read_row(&self, name: &RowName) -> VaultFuture<Option<SecretRow>> {
        ready(Ok(self.kept().rows.get(name).cloned()))
    }

    fn write_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> VaultFuture<RowWritten> {
        ready(self.change_row(name, expected, secret, urgency))
    }

    fn row_names(&self, after: Option<&RowName>) -> VaultFuture<Vec<RowName>> {
        let kept = self.kept();
        let behind = kept.rows.keys().filter(|name| after.is_none_or(|after| *name > after));
        ready(Ok(behind.take(ROW_NAMES_MAX).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::vault::conformance;

    #[tokio::test]
    async fn it_keeps_the_contract() {
        conformance::check(Arc::new(MemoryVault::new())).await;
    }
}

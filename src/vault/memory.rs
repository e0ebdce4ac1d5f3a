//! The vault of tests: in memory, gone with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use projections::sealed::Subject;
use zeroize::Zeroizing;

use crate::ledger::secret::random_key;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::{SubjectKey, SubjectKeyState, Vault, VaultError, VaultFuture};

/// Keys in memory.
#[derive(Default)]
pub struct MemoryVault {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// None: erased.
    subjects: HashMap<Subject, Option<SubjectKey>>,
    named: HashMap<&'static str, Zeroizing<[u8; 32]>>,
    /// For whom there is no space any more, and for whoever is less urgent.
    full: Option<Urgency>,
}

impl MemoryVault {
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

    fn obtain_named(&self, name: &'static str) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let key = random_key().map_err(|error| VaultError::Unavailable(error.to_string()))?;
        Ok(self.kept().named.entry(name).or_insert(key).clone())
    }
}

fn fresh() -> Result<SubjectKey, VaultError> {
    random_key().map(SubjectKey::new).map_err(|error| VaultError::Unavailable(error.to_string()))
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
        ready(Ok(match self.kept().subjects.get(subject) {
            Some(Some(key)) => SubjectKeyState::Held(key.clone()),
            Some(None) => SubjectKeyState::Erased,
            None => SubjectKeyState::Absent,
        }))
    }

    fn erase_subject(&self, subject: &Subject) -> VaultFuture<bool> {
        let before = self.kept().subjects.insert(subject.clone(), None);
        ready(Ok(before.flatten().is_some()))
    }

    fn obtain_named_key(&self, name: &'static str) -> VaultFuture<Zeroizing<[u8; 32]>> {
        ready(self.obtain_named(name))
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

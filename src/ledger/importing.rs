//! The secrets that are being brought into force right now.
//!
//! A secret leads to one key in the whole installation, but organizations are written
//! side by side: two of them could bring the same secret at once, each seeing a table
//! that does not have it yet. Whoever imports therefore reserves its secrets first and
//! holds them until its events have landed. One node writes at a time, so a reservation
//! in its memory is one for the installation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use projections::digest::SecretDigest;

use super::command::ImportKeys;
use super::dead::DeadKeys;
use super::tables::Tables;

/// The secrets on their way.
#[derive(Clone, Default)]
pub(super) struct Importing(Arc<Mutex<HashSet<SecretDigest>>>);

/// Secrets reserved; let go of when this is dropped.
pub(super) struct Reserved {
    importing: Importing,
    digests: Vec<SecretDigest>,
}

impl Importing {
    /// Reserves the secrets of an import; none where one of them is on its way already.
    pub(super) fn reserve(&self, command: &ImportKeys) -> Option<Reserved> {
        let digests: Vec<_> = command.keys.iter().map(|it| it.key.digest.blake3).collect();
        let mut reserved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.iter().any(|digest| reserved.contains(digest)) {
            return None;
        }
        reserved.extend(&digests);
        drop(reserved);
        Some(Reserved { importing: self.clone(), digests })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserved = self.importing.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            reserved.remove(digest);
        }
    }
}

/// The place of the first key whose secret another key has or had, or another item of the
/// same import, under any pepper, or that is a custodian's master key.
pub(super) fn first_taken(command: &ImportKeys, tables: &Tables, dead: &DeadKeys) -> Option<usize> {
    let index = tables.index();
    let operator = tables.operator().tables();
    let rules = operator.installation().and_then(|it| it.break_glass.as_deref());
    let is_master_key = |digest: SecretDigest| {
        rules.is_some_and(|it| it.custodians.iter().any(|it| it.digest.blake3 == digest))
    };
    let mut seen = HashSet::new();
    command.keys.iter().position(|it| {
        let known = |digest: SecretDigest| index.key(&digest).is_some() || dead.may_hold(&digest);
        it.digests().any(|digest| known(digest) || is_master_key(digest))
            || !seen.insert(it.key.digest.blake3)
    })
}

#[cfg(test)]
mod tests {
    use projections::event::{DigestForm, KeyOrigin, KeyedDigest};
    use projections::id::KeyId;

    use super::*;
    use crate::ledger::command::{CreateKey, Expiry, ImportedKey};
    use crate::ledger::fingerprints::{self, Fingerprints};
    use crate::ledger::snapshots::Seal;

    fn import(secrets: &[u8]) -> ImportKeys {
        let key = |secret: &u8| CreateKey {
            key_id: KeyId::from_bytes([*secret; 16]),
            name: "k".parse().unwrap(),
            description: None,
            origin: KeyOrigin::Imported,
            prefix: None,
            environment: None,
            hint: None,
            digest: KeyedDigest {
                form: DigestForm::Sha256,
                pepper: 1,
                blake3: SecretDigest([*secret; 32]),
            },
            scopes: None,
            roles: Vec::new(),
            services: None,
            expiry: Expiry::PlanDefault,
            metadata: std::collections::BTreeMap::new(),
            limits: std::collections::BTreeMap::new(),
            owner: None,
            allowed_ips: None,
            rate_limit: None,
        };
        let imported = |secret| ImportedKey { key: key(secret), others: Vec::new() };
        ImportKeys { keys: secrets.iter().map(imported).collect() }
    }

    #[test]
    fn a_secret_is_on_its_way_once() {
        let importing = Importing::default();
        let first = importing.reserve(&import(&[1, 2])).unwrap();
        assert!(importing.reserve(&import(&[3, 2])).is_none());
        let other = importing.reserve(&import(&[3])).unwrap();
        drop(first);
        assert!(importing.reserve(&import(&[1, 2])).is_some());
        assert!(importing.reserve(&import(&[3])).is_none());
        drop(other);
        assert!(importing.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_import_that_names_a_secret_twice_is_found_out() {
        let dead = |fingerprints: Fingerprints| {
            DeadKeys::new(None, Arc::new(Seal::new(&[0; 32])), fingerprints)
        };
        let nobody = dead(Fingerprints::default());
        assert_eq!(first_taken(&import(&[1, 2, 3]), &Tables::new(), &nobody), None);
        assert_eq!(first_taken(&import(&[1, 2, 3, 2, 1]), &Tables::new(), &nobody), Some(3));
        let somebody = fingerprints::of(&SecretDigest([2; 32]));
        let somebody = dead(Fingerprints::default().with(vec![somebody]).all);
        assert_eq!(first_taken(&import(&[1, 2, 3]), &Tables::new(), &somebody), Some(1));
    }
}

//! Keys that left the tables long after their end: still answerable, no longer in memory.
//!
//! A key that left ([`projections::organization::Organization::departed`]) stays in the index
//! and with its organization until its row is kept in the [`SnapshotStore`], and is then let
//! go of: whoever looks finds it in the tables, or still in memory, or there, in this order.
//! Of the dead, memory holds eight bytes each ([`Fingerprints`]), so that only who shows a
//! key that really is dead costs a look at the disk.
//!
//! A dead row is only ever the last that history says of a key, under a keyed checksum.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use projections::digest::SecretDigest;
use projections::event::DigestForm;
use projections::id::{KeyId, OrganizationId};
use projections::key::Key;
use projections::time::Timestamp;
use projections::verification::{self, Code, Question};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::fingerprints::{self, Fingerprints};
use super::rejection::Rejection;
use super::snapshot_store::{DEAD_KEYS_READ_MAX, DeadRow, SnapshotError, SnapshotStore};
use super::snapshots::{Of, Seal};
use super::tables::Published;
use super::usage;
use super::verify::{Answer, Reach};
use super::{Executed, Ledger};

/// What is known of dead keys in memory, and where the rest is.
pub(super) struct DeadKeys {
    store: Option<Arc<dyn SnapshotStore>>,
    pub(super) seal: Arc<Seal>,
    pub(super) fingerprints: ArcSwap<Fingerprints>,
    /// Keys that were read back for questions, by digest; none for what is no key.
    recalled: papaya::HashMap<[u64; 2], Option<Arc<DeadKey>>>,
}

/// Most keys that are kept once they were read back.
const RECALLED_MAX: usize = 1_024;

/// What a look at the disk is for: a credential that is a dead key's.
#[derive(Clone, Copy, Debug)]
pub struct DeadTicket {
    digest: SecretDigest,
    form: DigestForm,
}

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its row.
    pub key: Arc<Key>,
    /// When it was last used, as far as this node knows; none for never.
    pub last_used: Option<Timestamp>,
}

/// A dead key, read back.
pub struct DeadKey {
    /// Its row.
    pub key: Arc<Key>,
    /// Its organization.
    pub organization: Arc<Published>,
}

impl DeadKeys {
    pub(super) fn new(
        store: Option<Arc<dyn SnapshotStore>>,
        seal: Arc<Seal>,
        fingerprints: Fingerprints,
    ) -> Self {
        Self {
            store,
            seal,
            fingerprints: ArcSwap::from_pointee(fingerprints),
            recalled: papaya::HashMap::new(),
        }
    }

    /// Whether this is the digest of a dead key, as far as memory can tell.
    pub(super) fn may_hold(&self, digest: &SecretDigest) -> bool {
        self.fingerprints.load().may_hold(digest)
    }

    /// Reads on a thread where that does no harm; nothing where nothing is kept.
    async fn read<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&dyn SnapshotStore, &Seal) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let Some(store) = self.store.clone() else { return Ok(T::default()) };
        let seal = Arc::clone(&self.seal);
        let reading = tokio::task::spawn_blocking(move || read(&*store, &seal));
        reading.await.map_err(|error| SnapshotError::Unavailable(error.to_string()))?
    }
}

/// The row as it is kept.
pub(super) fn sealed(
    seal: &Seal,
    organization: OrganizationId,
    key: &Key,
    last_used: Option<Timestamp>,
) -> DeadRow {
    let last_s = last_used.map_or(0, usage::seconds);
    let bytes = [&last_s.to_le_bytes()[..], &key.to_canonical()].concat();
    DeadRow {
        organization,
        key: key.id,
        fingerprint: fingerprints::of(&key.digest.blake3),
        sealed: seal.seal(Of::DeadKey(organization, key.id), &bytes),
    }
}

fn opened(seal: &Seal, row: &DeadRow) -> Result<KeyRow, SnapshotError> {
    let damaged = || {
        let what = format!("the row of dead key {} is not the one that was written", row.key);
        tracing::error!(what, "delete projections.db with the server stopped, and start again");
        SnapshotError::Damaged(what)
    };
    let bytes =
        seal.open(Of::DeadKey(row.organization, row.key), &row.sealed).ok_or_else(damaged)?;
    let (last_s, bytes) = bytes.split_first_chunk().ok_or_else(damaged)?;
    let last_used = usage::of_seconds(u32::from_le_bytes(*last_s));
    let key = Key::from_canonical(bytes).map_err(|_| damaged())?;
    if key.id == row.key { Ok(KeyRow { key: Arc::new(key), last_used }) } else { Err(damaged()) }
}

impl Ledger {
    /// A ticket for the disk, where this text is a dead key's.
    pub(super) fn dead_ticket(&self, text: &str) -> Option<DeadTicket> {
        let fingerprints = self.dead.fingerprints.load();
        fingerprints.runs().next()?;
        let find = |form, bytes: &[u8]| {
            let digest = self.peppers.digests(bytes).find(|it| fingerprints.may_hold(it))?;
            Some(DeadTicket { digest, form })
        };
        find(DigestForm::Text, text.as_bytes())
            .or_else(|| find(DigestForm::Sha256, &Sha256::digest(text.as_bytes())))
    }

    /// Reads the key of a ticket; none where there is no such key after all.
    ///
    /// # Errors
    ///
    /// It cannot be known now.
    pub async fn dead_key_of(&self, ticket: DeadTicket) -> Result<Option<DeadKey>, SnapshotError> {
        let DeadTicket { digest, form } = ticket;
        let found = self.dead.read(move |store, seal| {
            let rows = store.dead_keys_like(fingerprints::of(&digest))?;
            for row in rows {
                let KeyRow { key, .. } = opened(seal, &row)?;
                let same: bool = key.digest.blake3.0.ct_eq(&digest.0).into();
                if same && key.digest.form == form {
                    return Ok(Some((row.organization, key)));
                }
            }
            Ok(None)
        });
        Ok(found.await?.and_then(|(id, key)| {
            Some(DeadKey { key, organization: self.tables.organization(id)? })
        }))
    }

    /// Reads the key of a ticket and keeps it at hand: the same question, asked again, is
    /// then answered. If it cannot be read, that is logged, and the answer is a ticket again.
    pub async fn recall(&self, ticket: DeadTicket) {
        match self.dead_key_of(ticket).await {
            Ok(found) => {
                let recalled = self.dead.recalled.pin();
                if recalled.len() >= RECALLED_MAX {
                    recalled.clear();
                }
                recalled.insert(ticket.digest.head(), found.map(Arc::new));
            }
            Err(error) => tracing::error!(%error, "a dead key cannot be read"),
        }
    }

    /// A key that was read back; none where none was.
    pub(super) fn recalled(&self, ticket: &DeadTicket) -> Option<Option<Arc<DeadKey>>> {
        self.dead.recalled.pin().get(&ticket.digest.head()).cloned()
    }

    /// Decides about a credential whose key was read from the disk.
    pub(super) fn verify_dead<R>(
        &self,
        found: Option<&DeadKey>,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let Some(DeadKey { key, organization }) = found else {
            return with(Answer::Refused(Code::Unknown));
        };
        if !reach.includes(organization.id) {
            return with(Answer::Refused(Code::Unknown));
        }
        if organization.stopped().is_some() {
            return with(Answer::Unavailable(organization.id));
        }
        let (tables, operator) = (organization.tables(), self.tables.operator().tables());
        with(Answer::Decided(verification::decide(key, &tables, &operator, question)))
    }

    /// A key in memory, as lists show it.
    #[must_use]
    pub fn row(&self, key: Arc<Key>) -> KeyRow {
        let last_used = self.last_used(&key);
        KeyRow { key, last_used }
    }

    /// Whether the dead keys of an organization are those that left the tables which
    /// somebody else came to. What cannot be read is not.
    pub async fn has_dead_of(&self, organization: &Published, others: &Published) -> bool {
        let wanted = others.departed_after(None, usize::MAX);
        let mut kept = Vec::with_capacity(wanted.len());
        loop {
            let after = kept.last().map(|key: &Arc<Key>| key.id);
            match self.dead_keys_after(organization, after, DEAD_KEYS_READ_MAX).await {
                Ok(more) if more.is_empty() => return kept == wanted,
                Ok(more) => kept.extend(more.into_iter().map(|row| row.key)),
                Err(_) => return false,
            }
        }
    }

    /// A key of an organization that is not in its tables, because its end was long ago.
    ///
    /// # Errors
    ///
    /// It cannot be known now.
    pub async fn dead_key(
        &self,
        organization: &Published,
        id: KeyId,
    ) -> Result<Option<KeyRow>, SnapshotError> {
        if let Some(key) = organization.departed_key(id) {
            return Ok(Some(self.row(key)));
        }
        if organization.buried_count() == 0 {
            return Ok(None);
        }
        let owner = organization.id;
        let read = self.dead.read(move |store, seal| {
            store.dead_key(owner, id)?.map(|row| opened(seal, &row)).transpose()
        });
        read.await
    }

    /// Which of these organizations had these keys, of those that are in nobody's tables
    /// because their end was long ago.
    ///
    /// # Errors
    ///
    /// It cannot be known now.
    pub async fn dead_holders(
        &self,
        organizations: &[Arc<Published>],
        mut ids: Vec<KeyId>,
    ) -> Result<BTreeMap<KeyId, OrganizationId>, SnapshotError> {
        let mut holders = BTreeMap::new();
        // First what is in memory: what leaves it meanwhile is found on the disk.
        for organization in organizations.iter().filter(|it| it.departed_count() > 0) {
            let had = ids.extract_if(.., |id| organization.departed_key(*id).is_some());
            holders.extend(had.map(|id| (id, organization.id)));
        }
        let within: HashSet<OrganizationId> =
            organizations.iter().filter(|it| it.buried_count() > 0).map(|it| it.id).collect();
        if within.is_empty() || ids.is_empty() {
            return Ok(holders);
        }
        let read = self.dead.read(move |store, seal| {
            let mut found = Vec::new();
            for id in ids {
                for row in store.dead_keys_named(id)? {
                    if within.contains(&row.organization) {
                        found.push((opened(seal, &row)?.key.id, row.organization));
                    }
                }
            }
            Ok(found)
        });
        holders.extend(read.await?);
        Ok(holders)
    }

    /// The keys of an organization that are not in its tables, because their end was long
    /// ago, behind this one (none: from the first), in the order of their identifiers, at
    /// most `rows_max` and at most [`DEAD_KEYS_READ_MAX`].
    ///
    /// # Errors
    ///
    /// They cannot be known now.
    pub async fn dead_keys_after(
        &self,
        organization: &Published,
        after: Option<KeyId>,
        rows_max: usize,
    ) -> Result<Vec<KeyRow>, SnapshotError> {
        let rows_max = rows_max.min(DEAD_KEYS_READ_MAX);
        // First what is in memory: what leaves it meanwhile is found on the disk.
        let departed = organization.departed_after(after, rows_max);
        let mut rows: Vec<KeyRow> = departed.into_iter().map(|key| self.row(key)).collect();
        if organization.buried_count() > 0 {
            let owner = organization.id;
            let read = self.dead.read(move |store, seal| {
                let rows = store.dead_keys_after(owner, after, rows_max)?;
                rows.iter().map(|row| opened(seal, row)).collect::<Result<Vec<_>, _>>()
            });
            rows.extend(read.await?);
            rows.sort_by_key(|row| row.key.id);
            rows.dedup_by_key(|row| row.key.id);
            rows.truncate(rows_max);
        }
        Ok(rows)
    }

    /// A rejection as whoever asked can make sense of it: a key that is no longer in the
    /// tables was there once.
    pub(super) async fn after_all(
        &self,
        organization: &Published,
        answer: Result<Executed, Rejection>,
    ) -> Result<Executed, Rejection> {
        match answer {
            Err(Rejection::KeyNotFound(id)) => match self.dead_key(organization, id).await {
                Ok(Some(_)) => Err(Rejection::KeyEndedLongAgo(id)),
                // It is refused all the same.
                Ok(None) | Err(_) => Err(Rejection::KeyNotFound(id)),
            },
            other => other,
        }
    }
}

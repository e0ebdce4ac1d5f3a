//! The tables that readers see: what is committed, and nothing else.
//!
//! Each organization's tables are one immutable value that a writer replaces; the index
//! finds a key by the digest of its secret, across organizations. No reader takes a lock
//! that a writer holds.
//!
//! INVARIANT: for each event, a writer first puts the row it changed into the index,
//! then publishes the tables that hold it. So whoever loads an organization's tables at
//! revision R and then asks the index sees every change up to R, and at most the one
//! change behind it that is being published.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use projections::corrupt::CorruptHistory;
use projections::digest::SecretDigest;
use projections::event::{DigestForm, KeyOrigin};
use projections::id::{KeyId, OrganizationId};
use projections::key::Key;
use projections::organization::{Change, Organization};
use projections::recorded::{Revision, StreamName};
use tokio::sync::Notify;

use super::break_glass::BreakGlassIndex;
use super::pepper_use;
use super::snapshots::Manifest;
use super::usage::{Head, Uses};

/// One organization, as readers find it.
pub struct Published {
    /// The organization.
    pub id: OrganizationId,
    /// The stream that holds its facts.
    pub stream: StreamName,
    tables: ArcSwap<Organization>,
    stopped: OnceLock<CorruptHistory>,
    /// The keys that left the tables and are kept nowhere else yet, and by which revision.
    departed: Mutex<BTreeMap<KeyId, (Revision, Arc<Key>)>>,
    /// How many keys that left the tables are kept as dead.
    buried: AtomicU64,
    usage_damaged: OnceLock<CorruptHistory>,
}

impl Published {
    /// An organization with these tables.
    #[must_use]
    pub fn new(tables: Organization) -> Self {
        Self {
            id: tables.id,
            stream: StreamName::organization(tables.id),
            tables: ArcSwap::from_pointee(tables),
            stopped: OnceLock::new(),
            departed: Mutex::default(),
            buried: AtomicU64::new(0),
            usage_damaged: OnceLock::new(),
        }
    }

    fn departed(&self) -> MutexGuard<'_, BTreeMap<KeyId, (Revision, Arc<Key>)>> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in rows that left the tables with this revision. It comes before the tables are
    /// published: whoever does not find a key there finds it here, or among the dead.
    pub(super) fn depart(&self, revision: Revision, rows: &[Arc<Key>]) {
        if !rows.is_empty() {
            let rows = rows.iter().map(|key| (key.id, (revision, Arc::clone(key))));
            self.departed().extend(rows);
        }
    }

    /// A key that left the tables and is still in memory.
    pub(super) fn departed_key(&self, id: KeyId) -> Option<Arc<Key>> {
        self.departed().get(&id).map(|(_, key)| Arc::clone(key))
    }

    /// Such keys behind this one (none: from the first), in the order of their identifiers.
    pub(super) fn departed_after(&self, after: Option<KeyId>, rows_max: usize) -> Vec<Arc<Key>> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let departed = self.departed();
        departed.range(range).take(rows_max).map(|(_, (_, key))| Arc::clone(key)).collect()
    }

    /// Such keys that left up to this revision.
    pub(super) fn departed_by(&self, last: Revision) -> Vec<Arc<Key>> {
        let departed = self.departed();
        let rows = departed.values().filter(|(revision, _)| *revision <= last);
        rows.map(|(_, key)| Arc::clone(key)).collect()
    }

    /// How many keys left the tables and are still in memory.
    #[must_use]
    pub fn departed_count(&self) -> usize {
        self.departed().len()
    }

    /// How many of its keys are kept as dead, outside memory.
    #[must_use]
    pub fn buried_count(&self) -> u64 {
        self.buried.load(Ordering::Acquire)
    }

    /// So many of its keys are kept as dead already.
    pub(super) fn set_buried(&self, keys: u64) {
        self.buried.store(keys, Ordering::Release);
    }

    /// The tables as they are now.
    pub fn tables(&self) -> arc_swap::Guard<Arc<Organization>> {
        self.tables.load()
    }

    /// Why this organization answers nothing any more, if its history proved corrupt.
    #[must_use]
    pub fn stopped(&self) -> Option<&CorruptHistory> {
        self.stopped.get()
    }

    /// Why uses of its keys are no longer recorded, if its usage stream proved corrupt.
    #[must_use]
    pub fn usage_damaged(&self) -> Option<&CorruptHistory> {
        self.usage_damaged.get()
    }

    /// Notes that its usage stream is corrupt, and logs it. It stops nothing.
    pub(super) fn damage_usage(&self, fault: CorruptHistory) {
        tracing::error!(organization = %self.id, %fault, "usage stream is corrupt: when keys were last used is not known, and is no longer recorded");
        let _ = self.usage_damaged.set(fault);
    }
}

/// A key in the index, with the organization it belongs to.
pub struct IndexedKey {
    /// The row.
    pub key: Arc<Key>,
    /// Its organization.
    pub organization: Arc<Published>,
    /// How it is used.
    pub uses: Uses,
}

/// Digests are uniform already: their bits are taken as they are.
#[derive(Default)]
pub struct TakeBits(u64);

impl Hasher for TakeBits {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }
    fn write_usize(&mut self, _: usize) {
        // The length of a list whose length is fixed.
    }
}

type Index = papaya::HashMap<[u64; 2], IndexedKey, BuildHasherDefault<TakeBits>>;

/// The index while somebody reads it: rows that are replaced meanwhile live on until the
/// view is dropped.
pub struct IndexView<'a> {
    index: &'a Index,
    guard: papaya::LocalGuard<'a>,
}

impl IndexView<'_> {
    /// The key whose secret has this digest. The row is no older than any tables loaded
    /// before this call.
    #[must_use]
    pub fn key(&self, digest: &SecretDigest) -> Option<&IndexedKey> {
        self.latest(digest).filter(|found| same(&found.key.digest.blake3, digest))
    }

    /// The latest row of a key that was found by this digest before.
    #[must_use]
    pub fn latest(&self, digest: &SecretDigest) -> Option<&IndexedKey> {
        self.at(digest.head())
    }

    /// The latest row of the key at this place.
    pub(super) fn at(&self, place: Head) -> Option<&IndexedKey> {
        self.index.get(&place, &self.guard)
    }
}

/// All that readers find.
pub struct Tables {
    operator: Arc<Published>,
    organizations: papaya::HashMap<OrganizationId, Arc<Published>>,
    index: Index,
    /// Keys whose digest was taken of a digest: none means that no such look-up is needed.
    sha256_keys: AtomicU64,
    /// Keys whose text the ledger did not make.
    foreign_keys: AtomicU64,
    /// The keys that are or were a global key, and whose they are.
    global_keys: Mutex<BTreeMap<KeyId, OrganizationId>>,
    /// Whether there is any.
    any_global_key: AtomicBool,
    break_glass: BreakGlassIndex,
    /// How many keys outside memory need the pepper of their digest, by pepper.
    dead_need: Mutex<BTreeMap<u32, u64>>,
    stopped: AtomicU64,
    waiting: AtomicU64,
    published: Notify,
    /// Events published since somebody last asked.
    moved: AtomicU64,
    /// As many of them as somebody waits for.
    enough: AtomicU64,
    moved_enough: Notify,
}

impl Tables {
    /// Tables of an installation whose streams hold nothing.
    #[must_use]
    pub fn new() -> Self {
        let operator = Arc::new(Published::new(Organization::new(OrganizationId::OPERATOR)));
        let organizations = papaya::HashMap::new();
        organizations.pin().insert(OrganizationId::OPERATOR, Arc::clone(&operator));
        Self {
            operator,
            organizations,
            index: Index::default(),
            sha256_keys: AtomicU64::new(0),
            foreign_keys: AtomicU64::new(0),
            global_keys: Mutex::default(),
            any_global_key: AtomicBool::new(false),
            break_glass: BreakGlassIndex::new(),
            dead_need: Mutex::default(),
            stopped: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            published: Notify::new(),
            moved: AtomicU64::new(0),
            enough: AtomicU64::new(u64::MAX),
            moved_enough: Notify::new(),
        }
    }

    /// The operator's organization.
    #[must_use]
    pub fn operator(&self) -> &Arc<Published> {
        &self.operator
    }

    /// The organization of this identifier.
    #[must_use]
    pub fn organization(&self, id: OrganizationId) -> Option<Arc<Published>> {
        if id.is_operator() {
            return Some(Arc::clone(&self.operator));
        }
        self.organizations.pin().get(&id).cloned()
    }

    /// The organization of this identifier, made with empty tables if it is new here.
    pub(super) fn obtain(&self, id: OrganizationId) -> Arc<Published> {
        if id.is_operator() {
            return Arc::clone(&self.operator);
        }
        let pinned = self.organizations.pin();
        Arc::clone(
            pinned.get_or_insert_with(id, || Arc::new(Published::new(Organization::new(id)))),
        )
    }

    /// Every organization known here, the operator's included, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Published>> {
        self.organizations.pin().values().cloned().collect()
    }

    /// Break-glass grants of all organizations.
    #[must_use]
    pub fn break_glass(&self) -> &BreakGlassIndex {
        &self.break_glass
    }

    /// Whether any key's digest was taken of a SHA-256 digest.
    #[must_use]
    pub fn has_sha256_keys(&self) -> bool {
        self.sha256_keys.load(Ordering::Acquire) > 0
    }

    /// Whether any key's text is not of the ledger's making.
    #[must_use]
    pub fn has_foreign_keys(&self) -> bool {
        self.foreign_keys.load(Ordering::Acquire) > 0
    }

    /// Whether any organization is stopped.
    #[must_use]
    pub fn any_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) > 0
    }

    /// A view of the index, from which rows can be borrowed.
    #[must_use]
    pub fn index(&self) -> IndexView<'_> {
        IndexView { index: &self.index, guard: self.index.guard() }
    }

    /// Publishes the tables behind one event, and the row that it changed.
    pub(super) fn publish(
        &self,
        organization: &Arc<Published>,
        change: Change,
        tables: Arc<Organization>,
    ) {
        if let Some(revision) = tables.revision() {
            organization.depart(revision, tables.departed());
        }
        match change {
            Change::Key(id) => {
                if let Some(key) = tables.key(id) {
                    self.put(organization, key);
                }
            }
            Change::Registration(id) => {
                self.obtain(id);
            }
            Change::BreakGlass(id) => {
                if let (Some(grant), Some(head)) = (tables.break_glass_grant(id), tables.head()) {
                    let before = organization.tables();
                    let before = before.break_glass_grant(id);
                    self.break_glass.put(organization.id, head.at, before, grant);
                }
            }
            Change::Redelivered
            | Change::Profile
            | Change::Rule
            | Change::Policy
            | Change::Evidence
            | Change::ServiceAccount(_)
            // What a role means, and who has it, is looked up with each question.
            | Change::Role(_)
            | Change::Grant(_)
            // Sessions are found in the tables of the organization that their tokens name.
            | Change::User(_)
            | Change::Session(_) => {}
        }
        organization.tables.store(tables);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.published.notify_waiters();
        }
        self.count_moved(1);
    }

    fn count_moved(&self, events: u64) {
        let moved = self.moved.fetch_add(events, Ordering::Relaxed) + events;
        if moved >= self.enough.load(Ordering::Relaxed) {
            self.moved_enough.notify_one();
        }
    }

    /// Counts events that were folded elsewhere among those published.
    pub(super) fn moved_before(&self, events: u64) {
        self.count_moved(events);
    }

    /// Waits until so many events were published since [`Tables::forget_moved`].
    pub(super) async fn moved(&self, events: u64) {
        self.enough.store(events, Ordering::Relaxed);
        self.count_moved(0);
        self.moved_enough.notified().await;
    }

    /// Begins to count anew.
    pub(super) fn forget_moved(&self) {
        self.moved.store(0, Ordering::Relaxed);
    }

    /// Lets go of keys of an organization that left the tables and are kept as dead now.
    pub(super) fn bury(&self, organization: &Published, rows: &[Arc<Key>]) {
        organization.buried.fetch_add(rows.len() as u64, Ordering::AcqRel);
        for key in rows.iter().filter(|key| pepper_use::is_made_elsewhere(key)) {
            *self.dead_need().entry(key.digest.pepper).or_default() += 1;
        }
        let index = self.index.pin();
        for key in rows {
            let digest = key.digest.blake3.head();
            if index.get(&digest).is_some_and(|found| found.key.id == key.id) {
                index.remove(&digest);
            }
        }
        let mut departed = organization.departed();
        for key in rows {
            departed.remove(&key.id);
        }
    }

    /// Counts dead keys among those that are looked for.
    pub(super) fn add_dead(&self, manifest: &Manifest) {
        self.sha256_keys.fetch_add(manifest.dead_sha256, Ordering::Release);
        self.foreign_keys.fetch_add(manifest.dead_foreign, Ordering::Release);
        self.dead_need().clone_from(&manifest.dead_need);
    }

    fn global_keys(&self) -> MutexGuard<'_, BTreeMap<KeyId, OrganizationId>> {
        self.global_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any key is or was a global key.
    #[must_use]
    pub(super) fn has_global_keys(&self) -> bool {
        self.any_global_key.load(Ordering::Acquire)
    }

    /// The organizations that have or had a global key.
    pub(super) fn with_global_keys(&self) -> BTreeSet<OrganizationId> {
        self.global_keys().values().copied().collect()
    }

    fn dead_need(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.dead_need.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of the keys that are kept as dead, outside memory, need the pepper of their
    /// digest, by pepper.
    pub(super) fn dead_that_need(&self) -> BTreeMap<u32, u64> {
        self.dead_need().clone()
    }

    /// How many keys are found by their digests in memory.
    #[must_use]
    pub fn indexed_keys(&self) -> usize {
        self.index.len()
    }

    /// Makes room for as many keys as are about to be published.
    pub(super) fn reserve(&self, keys: usize) {
        self.index.pin().reserve(keys);
    }

    /// Publishes tables that were folded elsewhere, with every key in them, and those that
    /// left them and are kept nowhere else.
    pub(super) fn publish_whole(&self, organization: &Arc<Published>, tables: Arc<Organization>) {
        for key in tables.keys_after(None).chain(&organization.departed_after(None, usize::MAX)) {
            self.put(organization, key);
        }
        for grant in tables.break_glass_grants_after(None) {
            self.break_glass.put(organization.id, grant.opened_at, None, grant);
        }
        organization.tables.store(tables);
    }

    fn put(&self, organization: &Arc<Published>, key: &Arc<Key>) {
        let index = self.index.pin();
        let place = key.digest.blake3.head();
        // One writer puts the rows of an organization, one after the other.
        let carried = index.get(&place).map(|old| old.uses.carried()).unwrap_or_default();
        let entry = IndexedKey {
            key: Arc::clone(key),
            organization: Arc::clone(organization),
            uses: carried.carried(),
        };
        if let Some(old) = index.insert(place, entry) {
            if let Some(new) = index.get(&place) {
                new.uses.add_since(&old.uses, &carried);
            }
            return;
        }
        if key.digest.form == DigestForm::Sha256 {
            self.sha256_keys.fetch_add(1, Ordering::Release);
        }
        if !key.minted {
            self.foreign_keys.fetch_add(1, Ordering::Release);
        }
        if key.origin() == KeyOrigin::Global {
            self.global_keys().insert(key.id, organization.id);
            self.any_global_key.store(true, Ordering::Release);
        }
    }

    /// Stops an organization for good: its history proved corrupt.
    pub(super) fn stop(&self, organization: &Published, fault: CorruptHistory) {
        tracing::error!(organization = %organization.id, %fault, "organization stopped: its history is corrupt");
        if organization.stopped.set(fault).is_ok() {
            self.stopped.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits until an organization's tables hold this revision.
    pub async fn reached(&self, id: OrganizationId, revision: Revision) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(&self.waiting);
        loop {
            let published = self.published.notified();
            let mut published = std::pin::pin!(published);
            published.as_mut().enable();
            let there = self.organization(id).and_then(|it| it.tables().revision());
            if there.is_some_and(|there| there >= revision) {
                return;
            }
            published.await;
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

struct Leave<'a>(&'a AtomicU64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Compares in a time that does not depend on where two digests differ.
fn same(a: &SecretDigest, b: &SecretDigest) -> bool {
    use subtle::ConstantTimeEq as _;
    a.0.ct_eq(&b.0).into()
}

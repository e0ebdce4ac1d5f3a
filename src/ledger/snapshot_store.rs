//! The port of what is derived: snapshots of tables as they are and as they were, and the
//! rows of keys that left them.
//!
//! Nothing in it is the truth. All of it can be thrown away at any time and is made again
//! from history, and whatever cannot be believed is thrown away: an adapter keeps bytes
//! and need not understand or check them. The ledger checks all it reads
//! ([`super::snapshots`]).
//!
//! Calls block: the ledger makes them on threads where that does no harm.

use std::sync::atomic::AtomicBool;

use projections::id::{KeyId, OrganizationId};
use projections::recorded::Revision;

/// Most dead keys given at once, whatever was asked.
pub const DEAD_KEYS_READ_MAX: usize = 4_096;

/// Why what is derived was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No space is left. What was there before still is.
    #[error("no space left for snapshots")]
    Full,
    /// It was told to stop before it was done. What was there before still is.
    #[error("stopped before the snapshot was complete")]
    Stopped,
    /// What is kept is not what was written.
    #[error("snapshots are damaged: {0}")]
    Damaged(String),
    /// It cannot be read or written now.
    #[error("snapshots are unavailable: {0}")]
    Unavailable(String),
}

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOf {
    /// The tables of an organization.
    Tables(OrganizationId),
    /// When the keys of an organization were last used.
    Usage(OrganizationId),
    /// One part of the accounts and e-mails, by number.
    Accounts(u16),
}

/// The row of a key that left the tables, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// Whose key it is.
    pub organization: OrganizationId,
    /// The key.
    pub key: KeyId,
    /// The beginning of its digest. Several keys may have one.
    pub fingerprint: u64,
    /// The row, sealed by the ledger.
    pub sealed: Vec<u8>,
}

/// The tables of an organization as they were at one of its revisions, as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRow {
    /// Whose tables they are.
    pub organization: OrganizationId,
    /// The last event that they hold.
    pub revision: Revision,
    /// The tables, sealed by the ledger.
    pub sealed: Vec<u8>,
}

/// Keeps what is derived.
pub trait SnapshotStore: Send + Sync + 'static {
    /// The manifest that was written last; none where there is none.
    fn manifest(&self) -> Result<Option<Vec<u8>>, SnapshotError>;

    /// The snapshot that was written last; empty where there is none.
    fn snapshot(&self, of: SnapshotOf) -> Result<Vec<u8>, SnapshotError>;

    /// The fingerprints that were written under this number.
    fn fingerprints(&self, run: u64) -> Result<Vec<u8>, SnapshotError>;

    /// Every dead key that has this fingerprint.
    fn dead_keys_like(&self, fingerprint: u64) -> Result<Vec<DeadRow>, SnapshotError>;

    /// One dead key.
    fn dead_key(
        &self,
        organization: OrganizationId,
        key: KeyId,
    ) -> Result<Option<DeadRow>, SnapshotError>;

    /// The dead keys of this identifier, whoever had them.
    fn dead_keys_named(&self, key: KeyId) -> Result<Vec<DeadRow>, SnapshotError>;

    /// The dead keys of an organization behind this one (none: from the first), in the order
    /// of their identifiers, at most `rows_max` and at most [`DEAD_KEYS_READ_MAX`].
    fn dead_keys_after(
        &self,
        organization: OrganizationId,
        after: Option<KeyId>,
        rows_max: usize,
    ) -> Result<Vec<DeadRow>, SnapshotError>;

    /// The last revision that is not behind this one and at which the tables of an
    /// organization are kept; none where there is none.
    fn last_past(
        &self,
        organization: OrganizationId,
        at_most: Revision,
    ) -> Result<Option<Revision>, SnapshotError>;

    /// The tables of an organization as they were at this revision; none where they are not
    /// kept. Nobody who reads other rows waits for it.
    fn past(
        &self,
        organization: OrganizationId,
        revision: Revision,
    ) -> Result<Option<PastRow>, SnapshotError>;

    /// Begins to write. One writes at a time, and nobody waits for it who reads. What is
    /// written must be seen by nobody until [`Saving::commit`], and then by all, and so
    /// after a crash too: all of it or nothing.
    ///
    /// Once `stop` is set, a call that would take long may fail with
    /// [`SnapshotError::Stopped`] instead.
    fn begin<'a>(&'a self, stop: &'a AtomicBool) -> Result<Box<dyn Saving + 'a>, SnapshotError>;

    /// Throws everything away.
    fn clear(&self) -> Result<(), SnapshotError>;
}

/// What is being written. Dropping it undoes it.
pub trait Saving {
    /// Replaces a snapshot.
    fn snapshot(&mut self, of: SnapshotOf, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// Adds a dead key, or replaces it.
    fn dead_key(&mut self, row: &DeadRow) -> Result<(), SnapshotError>;

    /// Adds fingerprints under a number that was never used.
    fn fingerprints(&mut self, run: u64, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// Removes the fingerprints under this number.
    fn remove_fingerprints(&mut self, run: u64) -> Result<(), SnapshotError>;

    /// Adds tables as they were, or replaces them.
    fn past(&mut self, row: &PastRow) -> Result<(), SnapshotError>;

    /// Removes the tables of an organization as they were at this revision and at those behind
    /// it.
    fn remove_past(
        &mut self,
        organization: OrganizationId,
        from: Revision,
    ) -> Result<(), SnapshotError>;

    /// Replaces the manifest.
    fn manifest(&mut self, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// Ends it: what was written is what is read from here on.
    fn commit(self: Box<Self>) -> Result<(), SnapshotError>;
}

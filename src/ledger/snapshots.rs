//! Taking snapshots: the tables of every organization that moved, and where to go on.
//!
//! A round reads what the store holds behind the round before, waits until the tables hold
//! it too, and writes, in one transaction: the tables of each organization that moved, as
//! canonical bytes; the rows of the keys that left them; and the [`Manifest`]. No reader and
//! no writer waits for it: tables are values. A round that fails changes nothing, and the
//! next one does its work too.
//!
//! INVARIANT: what is kept of an organization, its tables and its dead keys, is all that its
//! stream says up to one revision, and nothing else. And no event at or before the
//! manifest's anchor is missing in it.

mod check;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use projections::digest::EmailDigest;
use projections::envelope::Envelope;
use projections::event::DigestForm;
use projections::id::{AccountId, OrganizationId};
use projections::key::Key;
use projections::organization::Head;
use projections::recorded::{Recorded, Revision};
use tokio::sync::Mutex;

pub(super) use check::{Check, Damage};
pub(super) use manifest::{Entry, Manifest, Of, PartEntry, Seal, UsageEntry};

use super::Ledger;
use super::accounts::snapshots::{Part, PartBytes, parts_of};
use super::dead;
use super::event_store::{Anchor, EventStore, Position, READ_EVENTS_MAX, ReadError, ReadItem};
use super::fingerprints::{self, Fingerprints};
use super::pepper_use;
use super::snapshot_store::{SnapshotError, SnapshotOf, SnapshotStore};
use super::start::Folded;
use super::tables::Published;
use super::urgency::Urgency;

/// After how many events snapshots are taken, unless told otherwise.
pub const SNAPSHOT_EVENTS: u64 = 65_536;
/// How long the tables may take to hold what the store does.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

/// What came of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Organizations whose tables were written.
    pub organizations: u64,
    /// Keys that were let go of.
    pub buried: u64,
}

/// Why no snapshots were taken.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// What is derived could not be written.
    #[error(transparent)]
    Save(#[from] SnapshotError),
    /// History could not be read.
    #[error("reading history")]
    Read(#[from] ReadError),
    /// An organization is stopped, or an event is damaged: what would be kept might not be
    /// what history says.
    #[error("stored history is damaged: the next start replays all of it")]
    Damaged,
    /// The tables do not hold what the store does.
    #[error("the tables trail the store")]
    Trailing,
}

/// Takes snapshots, one round at a time.
pub(super) struct Snapshots {
    store: Option<Arc<dyn SnapshotStore>>,
    rounds: Mutex<Rounds>,
    /// What is left to check of the history in front of them.
    check: Mutex<Option<Check>>,
    /// Ends a round that is under way.
    stop: Arc<AtomicBool>,
}

/// Where the last round ended.
#[derive(Default)]
pub(super) struct Rounds {
    /// The last event that was read.
    pub(super) anchor: Option<Anchor>,
    /// The organizations that moved since they were last written, and how far.
    pub(super) moved: BTreeMap<OrganizationId, Revision>,
    /// The organizations whose usage streams moved since then, and how far.
    pub(super) moved_usage: BTreeMap<OrganizationId, Head>,
    /// The accounts and e-mails that moved since then, and how far.
    pub(super) moved_accounts: BTreeMap<AccountId, Revision>,
    pub(super) moved_emails: BTreeMap<EmailDigest, Revision>,
    /// History is damaged, and not only that of organizations that are stopped.
    is_damaged: bool,
    /// What is kept cannot be used, and is thrown away before anything is written.
    is_stale: bool,
    /// What was written last.
    pub(super) manifest: Manifest,
}

impl Snapshots {
    pub(super) fn new(
        store: Option<Arc<dyn SnapshotStore>>,
        rounds: Rounds,
        check: Option<Check>,
    ) -> Self {
        Self { store, rounds: Mutex::new(rounds), check: Mutex::new(check), stop: Arc::default() }
    }

    /// Where what is derived is kept; none where nothing is.
    pub(super) fn store(&self) -> Option<Arc<dyn SnapshotStore>> {
        self.store.clone()
    }
}

impl Rounds {
    /// The rounds that come after a start.
    pub(super) fn behind(folded: &Folded, manifest: Manifest) -> Self {
        Self {
            anchor: folded.last.clone(),
            moved: folded.moved(&manifest),
            moved_usage: folded.usage.moved(&manifest),
            moved_accounts: folded.accounts.moved_accounts(),
            moved_emails: folded.accounts.moved_emails(),
            is_damaged: folded.usage.is_damaged(),
            is_stale: manifest.entries.is_empty(),
            manifest,
        }
    }

    fn nothing_moved(&self) -> bool {
        self.moved.is_empty()
            && self.moved_usage.is_empty()
            && self.moved_accounts.is_empty()
            && self.moved_emails.is_empty()
    }

    /// Reads what the store holds behind the last event that was read.
    async fn read(&mut self, store: &Arc<dyn EventStore>) -> Result<(), RoundError> {
        loop {
            let after = self.anchor.as_ref().map(|it| it.position);
            let items = store.read_all(after, READ_EVENTS_MAX).await?;
            if items.is_empty() {
                return Ok(());
            }
            for item in items {
                self.see(&item)?;
            }
        }
    }

    fn see(&mut self, item: &ReadItem) -> Result<(), RoundError> {
        let Ok(event) = item else { return Err(RoundError::Damaged) };
        self.anchor = Some(anchor(event, self.anchor.as_ref().map(|it| it.position)));
        let Recorded { stream, revision, leaf_hash, stored, .. } = &event.recorded;
        if let Some(id) = stream.as_organization() {
            self.moved.insert(id, *revision);
        } else if let Some(id) = stream.as_account() {
            self.moved_accounts.insert(id, *revision);
        } else if let Some(email) = stream.as_email() {
            self.moved_emails.insert(email, *revision);
        } else if let Some(id) = stream.as_usage() {
            let envelope = Envelope::decode(stored).map_err(|_| RoundError::Damaged)?;
            let head = Head { revision: *revision, leaf_hash: *leaf_hash, at: envelope.at };
            self.moved_usage.insert(id, head);
        }
        Ok(())
    }
}

/// The place of an event, behind the one in front of it.
pub(super) fn anchor(event: &super::event_store::Positioned, before: Option<Position>) -> Anchor {
    let recorded = &event.recorded;
    Anchor {
        before,
        position: event.position,
        stream: recorded.stream.clone(),
        revision: recorded.revision,
        leaf_hash: recorded.leaf_hash,
    }
}

/// What a round has written.
struct Written {
    manifest: Manifest,
    fingerprints: Option<Fingerprints>,
    buried: Vec<(Arc<Published>, Vec<Arc<Key>>)>,
}

impl Ledger {
    /// Takes snapshots whenever so many events were recorded, without end.
    pub async fn keep_snapshots(self: Arc<Self>, events: u64) {
        let mut failing = false;
        loop {
            self.tables.moved(events.max(1)).await;
            match self.take_snapshots().await {
                Ok(taken) => {
                    failing = false;
                    self.history.look();
                    tracing::debug!(
                        organizations = taken.organizations,
                        buried = taken.buried,
                        "snapshots taken"
                    );
                }
                Err(error) if failing => tracing::debug!(%error, "still no snapshots"),
                Err(error) => {
                    failing = true;
                    let error = in_one_line(&error);
                    tracing::warn!(
                        error,
                        "no snapshots are taken: a start takes longer, and nothing is lost"
                    );
                }
            }
        }
    }

    /// Takes snapshots of all that moved, if that can be done within this time.
    pub async fn take_last_snapshots(self: &Arc<Self>, within: Duration) {
        let stop = Arc::clone(&self.snapshots.stop);
        match tokio::time::timeout(within, self.take_snapshots()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = in_one_line(&error);
                tracing::warn!(error, "no snapshots were taken: the next start takes longer");
            }
            Err(_) => {
                stop.store(true, Ordering::Relaxed);
                tracing::warn!("snapshots took too long: the next start takes longer");
            }
        }
    }

    /// Takes snapshots of the organizations that moved since the last time, and lets go of
    /// the keys that left their tables.
    ///
    /// # Errors
    ///
    /// Nothing was changed; what was kept before still is.
    pub async fn take_snapshots(self: &Arc<Self>) -> Result<Taken, RoundError> {
        let Some(store) = self.snapshots.store.clone() else { return Ok(Taken::default()) };
        let mut rounds = self.snapshots.rounds.lock().await;
        self.tables.forget_moved();
        // What is derived takes no space that events need.
        if self.store.is_full(Urgency::Normal) {
            return Err(SnapshotError::Full.into());
        }
        rounds.read(&self.store).await?;
        let stopped = self.tables.any_stopped() || self.accounts.stopped_count() > 0;
        if rounds.is_damaged || stopped {
            return Err(RoundError::Damaged);
        }
        if rounds.nothing_moved() {
            return Ok(Taken::default());
        }
        for (id, revision) in &rounds.moved {
            let reached = self.tables.reached(*id, *revision);
            if tokio::time::timeout(PUBLISHED_WITHIN, reached).await.is_err() {
                return Err(RoundError::Trailing);
            }
        }
        let moved_accounts: Vec<_> = rounds.moved_accounts.clone().into_iter().collect();
        let moved_emails: Vec<_> = rounds.moved_emails.clone().into_iter().collect();
        let reached = self.accounts.reached(&moved_accounts, &moved_emails);
        if tokio::time::timeout(PUBLISHED_WITHIN, reached).await.is_err() {
            return Err(RoundError::Trailing);
        }
        let parts = parts_of(rounds.moved_accounts.keys(), rounds.moved_emails.keys());
        let moved: Vec<_> =
            rounds.moved.keys().filter_map(|id| self.tables.organization(*id)).collect();
        let moved_usage = rounds.moved_usage.clone();
        let mut manifest = rounds.manifest.clone();
        manifest.anchor.clone_from(&rounds.anchor);
        let (ledger, stop) = (Arc::clone(self), Arc::clone(&self.snapshots.stop));
        let is_stale = rounds.is_stale;
        let writing = tokio::task::spawn_blocking(move || {
            if is_stale {
                store.clear()?;
            }
            write(&*store, &ledger, &Moved { moved, moved_usage, parts }, manifest, &stop)
        });
        let written =
            writing.await.map_err(|error| SnapshotError::Unavailable(error.to_string()))??;
        let mut taken = Taken { organizations: rounds.moved.len() as u64, buried: 0 };
        rounds.is_stale = false;
        rounds.moved.clear();
        rounds.moved_usage.clear();
        rounds.moved_accounts.clear();
        rounds.moved_emails.clear();
        rounds.manifest = written.manifest;
        // First it is known that they may be dead, then they are let go of.
        if let Some(fingerprints) = written.fingerprints {
            self.dead.fingerprints.store(Arc::new(fingerprints));
        }
        for (organization, rows) in written.buried {
            taken.buried += rows.len() as u64;
            self.tables.bury(&organization, &rows);
        }
        Ok(taken)
    }
}

impl Ledger {
    /// The next start does without snapshots, and no more are taken until then. Dead keys
    /// can still be read.
    async fn distrust_snapshots(&self) {
        let Some(store) = self.snapshots.store.clone() else { return };
        let mut rounds = self.snapshots.rounds.lock().await;
        rounds.is_damaged = true;
        let distrust = move || {
            let go_on = AtomicBool::new(false);
            let mut saving = store.begin(&go_on)?;
            saving.manifest(&[])?;
            saving.commit()
        };
        let distrusted = tokio::task::spawn_blocking(distrust).await;
        let error = match distrusted {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error, "the next start may do with what the snapshots say");
    }
}

/// An error and its causes, in one line.
pub(super) fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What one round writes.
struct Moved {
    moved: Vec<Arc<Published>>,
    moved_usage: BTreeMap<OrganizationId, Head>,
    /// Parts of the accounts and e-mails.
    parts: BTreeSet<Part>,
}

/// Writes one round.
fn write(
    store: &dyn SnapshotStore,
    ledger: &Ledger,
    Moved { moved, moved_usage, parts }: &Moved,
    mut manifest: Manifest,
    stop: &AtomicBool,
) -> Result<Written, SnapshotError> {
    let seal = &*ledger.dead.seal;
    let mut saving = store.begin(stop)?;
    let mut buried = Vec::new();
    let mut new = Vec::new();
    for organization in moved {
        let tables = Arc::clone(&organization.tables());
        let Some(head) = tables.head() else { continue };
        let bytes = tables.to_canonical();
        let of = SnapshotOf::Tables(organization.id);
        saving.snapshot(of, &bytes)?;
        // The tables were looked at first: all that left them by then is here.
        let rows = organization.departed_by(head.revision);
        for key in &rows {
            let last_used = ledger.last_used(key);
            saving.dead_key(&dead::sealed(seal, organization.id, key, last_used))?;
            new.push(fingerprints::of(&key.digest.blake3));
            manifest.dead_sha256 += u64::from(key.digest.form == DigestForm::Sha256);
            manifest.dead_foreign += u64::from(!key.minted);
            if pepper_use::is_made_elsewhere(key) {
                *manifest.dead_need.entry(key.digest.pepper).or_default() += 1;
            }
        }
        let entry = Entry {
            revision: head.revision,
            leaf_hash: head.leaf_hash,
            keys: tables.keys_here() as u64,
            dead: organization.buried_count() + rows.len() as u64,
            checksum: seal.checksum(Of::Snapshot(of), &bytes),
        };
        manifest.entries.insert(organization.id, entry);
        if !rows.is_empty() {
            buried.push((Arc::clone(organization), rows));
        }
    }
    for (id, head) in moved_usage {
        let Some(organization) = ledger.tables.organization(*id) else { continue };
        let bytes = ledger.last_uses(&organization);
        let of = SnapshotOf::Usage(*id);
        saving.snapshot(of, &bytes)?;
        let checksum = seal.checksum(Of::Snapshot(of), &bytes);
        manifest.usage.insert(*id, UsageEntry { head: *head, checksum });
    }
    for (part, PartBytes { rows, bytes }) in ledger.accounts.to_parts(parts) {
        let of = SnapshotOf::Accounts(part);
        saving.snapshot(of, &bytes)?;
        let checksum = seal.checksum(Of::Snapshot(of), &bytes);
        manifest.accounts.insert(part, PartEntry { rows, checksum });
    }
    let mut fingerprints = None;
    if !new.is_empty() {
        let added = ledger.dead.fingerprints.load().with(new);
        let bytes = added.run.to_bytes();
        saving.fingerprints(added.run.number, &bytes)?;
        let checksum = seal.checksum(Of::Fingerprints(added.run.number), &bytes);
        manifest.runs.insert(added.run.number, checksum);
        for number in added.merged {
            saving.remove_fingerprints(number)?;
            manifest.runs.remove(&number);
        }
        fingerprints = Some(added.all);
    }
    if let Some(bytes) = manifest.to_bytes() {
        saving.manifest(&seal.seal(Of::Manifest, &bytes))?;
    }
    saving.commit()?;
    Ok(Written { manifest, fingerprints, buried })
}

#[cfg(test)]
pub(in crate::ledger) mod tests;

//! Keeping tables as they were, so that no question folds for long.
//!
//! A task folds each organization's stream forward, behind the tables of it that were kept last,
//! and keeps some of what it comes to: at least [`PAST_EVENTS_MIN`] events apart, and so far
//! apart that what is kept has at most a third of the bytes of the events between. So
//! all of it can be thrown away at any time, and is made again.
//!
//! What is read back is believed where its keyed checksum is right and the stream holds, at its
//! revision, the event that it ends with. What is not is thrown away with all behind it, and
//! made again; the question is answered from what is kept in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use projections::organization::Organization;
use projections::recorded::Revision;
use tokio::time::Instant;

use super::fold;
use crate::ledger::Ledger;
use crate::ledger::event_store::ReadError;
use crate::ledger::snapshot_store::{PastRow, SnapshotError, SnapshotStore};
use crate::ledger::snapshots::{Of, in_one_line};
use crate::ledger::tables::Published;
use crate::ledger::urgency::Urgency;

/// Fewest events between tables that are kept.
pub const PAST_EVENTS_MIN: u64 = 4_096;
/// What is kept has at most one in so many bytes of the events between.
const EVENT_BYTES_PER_BYTE: u64 = 3;
/// How much longer the task rests than it works: it takes half of one thread.
const RESTS: u32 = 1;

/// Why tables as they were are not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// What is derived could not be written.
    #[error(transparent)]
    Save(#[from] SnapshotError),
    /// History could not be read.
    #[error("reading history")]
    Read(#[from] ReadError),
}

/// Whether somebody waits for the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nobody: it leaves others room.
    Resting,
    /// Somebody: it works as fast as it can.
    Steady,
}

impl Ledger {
    /// Keeps tables as they were whenever snapshots were taken, without end.
    pub async fn keep_history(self: Arc<Self>) {
        let mut failing = false;
        loop {
            match self.keep_past(Pace::Resting).await {
                Ok(kept) => {
                    failing = false;
                    tracing::debug!(kept, "tables as they were are kept");
                }
                Err(error) if failing => tracing::debug!(%error, "still not kept"),
                Err(error) => {
                    failing = true;
                    let error = in_one_line(&error);
                    tracing::warn!(
                        error,
                        "tables as they were are not kept: questions about the past take longer, and nothing is lost"
                    );
                }
            }
            self.history.due.notified().await;
        }
    }

    /// Keeps tables of all organizations as they were, wherever enough was recorded since those
    /// that were kept last. Gives how many were kept.
    ///
    /// # Errors
    ///
    /// What could be kept is.
    pub async fn keep_past(&self, pace: Pace) -> Result<u64, KeepError> {
        let Some(store) = self.snapshots.store() else { return Ok(0) };
        let mut organizations = self.tables.all();
        organizations.sort_by_key(|it| it.id);
        let (mut kept, mut failed) = (0, None);
        for organization in organizations.iter().filter(|it| it.stopped().is_none()) {
            match self.keep_past_of(&store, organization, pace).await {
                Ok(more) => kept += more,
                Err(error @ KeepError::Save(_)) => return Err(error),
                // One history that cannot be read keeps no other from being kept.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(kept), Err)
    }

    async fn keep_past_of(
        &self,
        store: &Arc<dyn SnapshotStore>,
        organization: &Published,
        pace: Pace,
    ) -> Result<u64, KeepError> {
        let Some(head) = organization.tables().head() else { return Ok(0) };
        let not_before = self.history.not_before().get(&organization.id).copied();
        let events_min = self.history.past_events_min.load(Ordering::Relaxed);
        if not_before.is_some_and(|it| head.revision < it) || head.revision.0 < events_min {
            return Ok(0);
        }
        let begin = self.kept_past(organization, Revision::FIRST, head.revision).await?;
        let mut tables = begin.unwrap_or_else(|| Organization::new(organization.id));
        let from = Revision::after(tables.revision());
        let way = (from, head.revision);
        let mut chunks = fold::read_ahead(&self.store, &organization.stream, way, events_min);
        let (mut kept, mut spacing) = (0, Spacing::new(events_min));
        let mut began = Instant::now();
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            spacing.pass(chunk.len(), chunk.bytes);
            tables = fold::fold(tables, &organization.stream, chunk).await?;
            if spacing.may_be_due() && self.keep_one(store, &tables, &mut spacing).await? {
                kept += 1;
            }
            if pace == Pace::Resting {
                tokio::time::sleep(began.elapsed() * RESTS).await;
                began = Instant::now();
            }
        }
        let next = Revision(head.revision.0.saturating_add(spacing.events_left()));
        self.history.not_before().insert(organization.id, next);
        Ok(kept)
    }

    /// Keeps these tables, if they are small beside the events that passed.
    async fn keep_one(
        &self,
        store: &Arc<dyn SnapshotStore>,
        tables: &Organization,
        spacing: &mut Spacing,
    ) -> Result<bool, KeepError> {
        // What is derived takes no space that events need.
        if self.store.is_full(Urgency::Normal) {
            return Err(SnapshotError::Full.into());
        }
        let (tables, seal) = (tables.clone(), Arc::clone(&self.dead.seal));
        let (store, so_far) = (Arc::clone(store), *spacing);
        let writing = tokio::task::spawn_blocking(move || {
            let Some(revision) = tables.revision() else { return Ok((0, false)) };
            let bytes = tables.to_canonical();
            let size = bytes.len() as u64;
            if !so_far.is_due(size) {
                return Ok((size, false));
            }
            let sealed = seal.seal(Of::Past(tables.id, revision), &bytes);
            let go_on = AtomicBool::new(false);
            let mut saving = store.begin(&go_on)?;
            saving.past(&PastRow { organization: tables.id, revision, sealed })?;
            saving.commit()?;
            Ok::<_, SnapshotError>((size, true))
        });
        let written = writing.await.map_err(|it| SnapshotError::Unavailable(it.to_string()))?;
        let (size, kept) = written?;
        spacing.measured(size, kept);
        Ok(kept)
    }

    /// The tables of an organization that are kept nearest in front of a revision, and not in
    /// front of another; none where none are, or none can be believed.
    ///
    /// # Errors
    ///
    /// The stream cannot be read. What is derived may fail: that is logged, and there is none.
    pub(super) async fn kept_past(
        &self,
        organization: &Published,
        at_least: Revision,
        at_most: Revision,
    ) -> Result<Option<Organization>, ReadError> {
        let Some(store) = self.snapshots.store() else { return Ok(None) };
        loop {
            let (from, seal) = (Arc::clone(&store), Arc::clone(&self.dead.seal));
            let id = organization.id;
            let reading = tokio::task::spawn_blocking(move || {
                let last = from.last_past(id, at_most)?.filter(|last| *last >= at_least);
                let Some(revision) = last else { return Ok(None) };
                let Some(row) = from.past(id, revision)? else { return Ok(None) };
                let bytes = seal.open(Of::Past(id, revision), &row.sealed);
                let tables = bytes.and_then(|it| Organization::from_canonical(it).ok());
                let tables = tables.filter(|it| it.id == id && it.revision() == Some(revision));
                Ok::<_, SnapshotError>(Some((revision, tables)))
            });
            let read = match reading.await {
                Ok(Ok(read)) => read,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "tables as they were cannot be read: history is");
                    return Ok(None);
                }
                Err(error) => return Err(ReadError::Unavailable(error.to_string())),
            };
            let Some((revision, tables)) = read else { return Ok(None) };
            let there = self.store.read_stream(&organization.stream, revision, 1).await?;
            let leaf_hash = there.first().map(|it| it.leaf_hash);
            let is_its = |it: &Organization| it.head().map(|head| head.leaf_hash) == leaf_hash;
            if let Some(tables) = tables.filter(is_its) {
                return Ok(Some(tables));
            }
            tracing::warn!(
                organization = %id,
                %revision,
                "kept tables are not what history says: they are thrown away and made again"
            );
            self.forget_past(&store, organization, revision).await;
            if revision == Revision::FIRST {
                return Ok(None);
            }
        }
    }

    /// Throws away the tables that are kept from this revision on.
    async fn forget_past(
        &self,
        store: &Arc<dyn SnapshotStore>,
        organization: &Published,
        from: Revision,
    ) {
        self.history.not_before().remove(&organization.id);
        let (store, id) = (Arc::clone(store), organization.id);
        let forgetting = tokio::task::spawn_blocking(move || {
            let go_on = AtomicBool::new(false);
            let mut saving = store.begin(&go_on)?;
            saving.remove_past(id, from)?;
            saving.commit()
        });
        let error = match forgetting.await {
            Ok(Ok(())) => return self.history.look(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(error, "what is kept of the past cannot be removed");
    }
}

/// What passed since tables were kept last.
#[derive(Clone, Copy, Debug)]
struct Spacing {
    /// See [`PAST_EVENTS_MIN`].
    events_min: u64,
    events: u64,
    bytes: u64,
    /// How many bytes tables were when they were last measured.
    size: u64,
}

impl Spacing {
    fn new(events_min: u64) -> Self {
        Self { events_min, events: 0, bytes: 0, size: 0 }
    }

    fn pass(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }

    /// Whether it is worth measuring the tables: they hardly ever shrink.
    fn may_be_due(&self) -> bool {
        self.is_due(self.size)
    }

    /// Whether tables of this size are small beside what passed.
    fn is_due(&self, size: u64) -> bool {
        self.events >= self.events_min && self.bytes >= size.saturating_mul(EVENT_BYTES_PER_BYTE)
    }

    fn measured(&mut self, size: u64, kept: bool) {
        self.size = size;
        if kept {
            (self.events, self.bytes) = (0, 0);
        }
    }

    /// After about how many more events tables may be due.
    fn events_left(&self) -> u64 {
        let missing = self.size.saturating_mul(EVENT_BYTES_PER_BYTE).saturating_sub(self.bytes);
        let each = self.bytes.checked_div(self.events).unwrap_or(0).max(256);
        (missing / each).max(self.events_min.saturating_sub(self.events)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_small_beside_the_events_between() {
        let mut spacing = Spacing::new(PAST_EVENTS_MIN);
        spacing.pass(PAST_EVENTS_MIN - 1, 1 << 40);
        assert!(!spacing.may_be_due());
        spacing.pass(1, 0);
        assert!(spacing.may_be_due() && !spacing.is_due(1 << 40));
        spacing.measured(1 << 40, false);
        assert!(!spacing.may_be_due());
        spacing.pass(1, (1 << 41) - 1);
        assert!(!spacing.may_be_due());
        assert_eq!(spacing.events_left(), 1);
        spacing.pass(1, 1);
        assert!(spacing.may_be_due());
        spacing.measured(1 << 40, true);
        assert!(!spacing.may_be_due() && spacing.events_left() >= PAST_EVENTS_MIN);
    }
}

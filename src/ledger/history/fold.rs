//! The fold forward from the nearest tables that are at hand.
//!
//! The store reads ahead and checks hashes, a thread decodes, another folds: nothing of it is
//! done on a thread that answers requests. Whoever no longer waits ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use projections::corrupt::Fault;
use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::organization::Organization;
use projections::recorded::{Recorded, Revision, StreamName};
use tokio::sync::mpsc;

use super::{PastError, TURN_WITHIN};
use crate::ledger::Ledger;
use crate::ledger::event_store::{EventStore, READ_EVENTS_MAX, ReadError};
use crate::ledger::tables::Published;

/// How many chunks may wait between reading and folding.
const CHUNKS_WAITING_MAX: usize = 2;
/// After how many events what was folded is kept at hand, should whoever waits go away.
const KEEP_EVENTS: u64 = 64 * READ_EVENTS_MAX as u64;

/// An event, decoded.
pub(super) type Decoded = (Revision, LeafHash, Result<Envelope, Fault>);

/// Events as they come from the store.
pub(super) struct Chunk {
    events: Vec<Decoded>,
    /// The bytes of the events as they are stored.
    pub(super) bytes: u64,
}

impl Chunk {
    /// The events.
    pub(super) fn into_events(self) -> Vec<Decoded> {
        self.events
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> u64 {
        self.events.len() as u64
    }
}

/// Reads and decodes a stream from one revision to another, ahead of whoever takes the chunks.
pub(super) fn read_ahead(
    store: &Arc<dyn EventStore>,
    stream: &StreamName,
    (from, to): (Revision, Revision),
    chunk_events: u64,
) -> mpsc::Receiver<Result<Chunk, ReadError>> {
    let (send, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (store, stream) = (Arc::clone(store), stream.clone());
    let chunk_events = usize::try_from(chunk_events).unwrap_or(READ_EVENTS_MAX).max(1);
    tokio::spawn(async move {
        let mut from = from;
        while from <= to {
            let wanted = usize::try_from(to.0 - from.0 + 1).unwrap_or(READ_EVENTS_MAX);
            let wanted = wanted.min(chunk_events).min(READ_EVENTS_MAX);
            let chunk = match store.read_stream(&stream, from, wanted).await {
                Ok(read) if read.is_empty() => {
                    let (stream, what) = (stream.clone(), "the event is missing".to_owned());
                    Err(ReadError::Corrupt { stream, revision: from, what })
                }
                Ok(read) => {
                    from = Revision(from.0 + read.len() as u64);
                    let decoding = tokio::task::spawn_blocking(move || decode(&read));
                    decoding.await.map_err(|error| ReadError::Unavailable(error.to_string()))
                }
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if send.send(chunk).await.is_err() || failed {
                return;
            }
        }
    });
    chunks
}

fn decode(read: &[Recorded]) -> Chunk {
    let bytes = read.iter().map(|it| it.stored.len() as u64).sum();
    let event = |it: &Recorded| (it.revision, it.leaf_hash, Envelope::decode(&it.stored));
    Chunk { events: read.iter().map(event).collect(), bytes }
}

/// Folds a chunk in, on a thread where that does no harm.
pub(super) async fn fold(
    mut tables: Organization,
    stream: &StreamName,
    chunk: Chunk,
) -> Result<Organization, ReadError> {
    let folding = tokio::task::spawn_blocking(move || {
        for (revision, leaf_hash, envelope) in chunk.events {
            tables.apply_decoded(revision, leaf_hash, envelope)?;
        }
        Ok(tables)
    });
    let folded = folding.await.map_err(|error| ReadError::Unavailable(error.to_string()))?;
    folded.map_err(|fault: projections::corrupt::CorruptHistory| ReadError::Corrupt {
        stream: stream.clone(),
        revision: fault.revision,
        what: fault.to_string(),
    })
}

impl Ledger {
    /// The tables of an organization behind this event.
    ///
    /// # Errors
    ///
    /// They cannot be had now. A work limit is got over by asking again.
    pub async fn tables_at(
        &self,
        organization: &Published,
        revision: Revision,
    ) -> Result<Arc<Organization>, PastError> {
        let present = Arc::clone(&organization.tables());
        match present.revision() {
            Some(last) if last == revision => return Ok(present),
            Some(last) if last > revision => {}
            Some(last) => return Err(PastError::NoSuchRevision(last)),
            None => return Err(PastError::NoSuchRevision(Revision::FIRST)),
        }
        let at_hand = || self.history.recent().nearest(organization.id, revision);
        let is_it = |found: &Arc<Organization>| found.revision() == Some(revision);
        if let Some(found) = at_hand().filter(is_it) {
            return Ok(found);
        }
        let turn = tokio::time::timeout(TURN_WITHIN, self.history.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(PastError::Busy) };
        // Somebody may have folded the same meanwhile.
        let recent = at_hand();
        if let Some(found) = recent.clone().filter(is_it) {
            return Ok(found);
        }
        let begins_at = |found: &Organization| found.revision().map_or(0, |it| it.0 + 1);
        let from = recent.as_ref().map_or(0, |it| begins_at(it));
        let mut kept = None;
        // What is hardly nearer is not worth reading back.
        let near = self.history.past_events_min.load(Ordering::Relaxed) / 2;
        if revision.0.saturating_sub(from) > near {
            let from = Revision(from.saturating_add(near));
            kept = self.kept_past(organization, from, revision).await?;
        }
        let begin = match (kept, recent) {
            (Some(kept), _) => kept,
            (None, Some(recent)) => Organization::clone(&recent),
            (None, None) => Organization::new(organization.id),
        };
        self.fold_to(organization, begin, revision).await
    }

    /// Folds forward, as far as one request may.
    async fn fold_to(
        &self,
        organization: &Published,
        begin: Organization,
        revision: Revision,
    ) -> Result<Arc<Organization>, PastError> {
        let stream = &organization.stream;
        let from = Revision::after(begin.revision());
        let events_max = self.history.fold_events_max.load(Ordering::Relaxed);
        let last = Revision(from.0.saturating_add(events_max - 1)).min(revision);
        let mut chunks = read_ahead(&self.store, stream, (from, last), u64::MAX);
        let mut tables = begin;
        let (mut kept, mut events) = (None, 0);
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            events += chunk.len();
            tables = fold(tables, stream, chunk).await?;
            if events >= KEEP_EVENTS {
                events = 0;
                self.history.recent().put(&Arc::new(tables.clone()), kept);
                kept = tables.revision();
            }
        }
        let tables = Arc::new(tables);
        self.history.recent().put(&tables, kept);
        match tables.revision() {
            Some(reached) if reached == revision => Ok(tables),
            _ => Err(PastError::WorkLimit),
        }
    }
}

//! The history that snapshots stand for, read again.
//!
//! A start from snapshots does not need it, and would not notice that it was damaged since.
//! So it is read all the same: at the start as much as fits into a moment, which is all of
//! a small history, and the rest once the ledger answers, at a pace that leaves it room.
//! What is checked is what a store can say of an event by itself: that it is the one that
//! was written, and that none is missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use projections::corrupt::{CorruptHistory, Fault};
use projections::id::OrganizationId;
use projections::recorded::{Revision, StreamName};
use tokio::time::Instant;

use crate::ledger::event_store::{EventStore, Position, ReadError, ReadItem};
use crate::ledger::{Ledger, READ_AGAIN};

/// Events read at once.
const BATCH_EVENTS: usize = 2_048;
/// How much longer the check rests than it reads: it takes a fifth of one reader.
const RESTS: u32 = 4;

/// A check under way.
pub(in crate::ledger) struct Check {
    after: Option<Position>,
    last: Position,
    seen: HashMap<StreamName, Revision>,
    events: u64,
    /// Events are gone, and the gap they left is not yet seen.
    lost: Option<Damage>,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::ledger) enum Damage {
    /// A stream is damaged.
    #[error("stream `{0}` is corrupt")]
    In(StreamName, #[source] CorruptHistory),
    /// Nothing says whose it is.
    #[error("events are gone, and nothing says whose they were: {0}")]
    Somewhere(String),
}

impl Check {
    /// A check of everything up to this event.
    pub(in crate::ledger) fn up_to(last: Position) -> Self {
        Self { after: None, last, seen: HashMap::new(), events: 0, lost: None }
    }

    /// Reads on; true once there is nothing left to read.
    ///
    /// # Errors
    ///
    /// What was read is damaged; or, none, it cannot be read now.
    async fn read_on(&mut self, store: &Arc<dyn EventStore>) -> Result<bool, Option<Damage>> {
        let batch = match store.read_all(self.after, BATCH_EVENTS).await {
            Ok(batch) => batch,
            Err(ReadError::Unavailable(_)) => return Err(None),
            Err(error) => return Err(Some(damage(error))),
        };
        if batch.is_empty() {
            return self.end();
        }
        for item in batch {
            let position = match &item {
                Ok(event) => event.position,
                Err((position, _)) => *position,
            };
            if position > self.last {
                return self.end();
            }
            self.after = Some(position);
            self.see(item)?;
        }
        if self.after == Some(self.last) { self.end() } else { Ok(false) }
    }

    /// A loss that left no gap was of somebody's last events: nobody knows whose.
    fn end(&mut self) -> Result<bool, Option<Damage>> {
        match self.lost.take() {
            Some(lost) => Err(Some(lost)),
            None => Ok(true),
        }
    }

    fn see(&mut self, item: ReadItem) -> Result<(), Option<Damage>> {
        let event = match item {
            Ok(event) => event.recorded,
            Err((_, ReadError::Unavailable(_))) => return Err(None),
            Err((_, error @ ReadError::Lost { events: Some(_), .. })) => {
                self.lost = Some(damage(error));
                return Ok(());
            }
            Err((_, error)) => return Err(Some(damage(error))),
        };
        let (stream, revision) = (event.stream, event.revision);
        let is_known = stream.as_organization().is_some()
            || stream.as_usage().is_some()
            || stream.as_account().is_some()
            || stream.as_email().is_some();
        if !is_known {
            return Err(Some(Damage::Somewhere(format!("stream `{stream}` is of no known kind"))));
        }
        let expected = Revision::after(self.seen.get(&stream).copied());
        if revision != expected {
            let fault = Fault::Gap { expected }.at(revision);
            return Err(Some(Damage::In(stream, fault)));
        }
        self.seen.insert(stream, revision);
        self.events += 1;
        Ok(())
    }

    /// Reads for so long; true once there is nothing left to read.
    pub(in crate::ledger) async fn read_for(
        &mut self,
        store: &Arc<dyn EventStore>,
        time: Duration,
    ) -> Result<bool, Damage> {
        let began = Instant::now();
        while began.elapsed() < time {
            match self.read_on(store).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(Some(damage)) => return Err(damage),
                // There is time for that later.
                Err(None) => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn damage(error: ReadError) -> Damage {
    match error {
        ReadError::Corrupt { stream, revision, what } => {
            Damage::In(stream, Fault::Stored(what).at(revision))
        }
        error @ (ReadError::Lost { .. } | ReadError::Unavailable(_)) => {
            Damage::Somewhere(error.to_string())
        }
    }
}

impl Ledger {
    /// Reads again what this start has not read, to the end. An organization whose history
    /// is damaged is stopped, as it would be by a start that reads everything; and the next
    /// start does.
    pub async fn check_history(self: Arc<Self>) {
        let Some(mut check) = self.snapshots.check.lock().await.take() else { return };
        let began = Instant::now();
        let damage = loop {
            let reading = Instant::now();
            match check.read_on(&self.store).await {
                Ok(true) => break None,
                Ok(false) => tokio::time::sleep(reading.elapsed() * RESTS).await,
                Err(None) => tokio::time::sleep(READ_AGAIN).await,
                Err(Some(damage)) => break Some(damage),
            }
        };
        let Some(damage) = damage else {
            let seconds = began.elapsed().as_secs();
            tracing::info!(
                events = check.events,
                seconds,
                "history in front of the snapshots is whole"
            );
            return;
        };
        if let Damage::In(stream, fault) = &damage
            && let Some(id) = stream.as_organization()
            && let Some(organization) = self.tables.organization(id)
        {
            self.tables.stop(&organization, fault.clone());
            if id == OrganizationId::OPERATOR {
                tracing::error!(
                    "the operator's history is corrupt; restore the data directory from a backup"
                );
            }
        }
        if let Damage::In(stream, fault) = &damage {
            if let Some(id) = stream.as_account() {
                self.accounts.stop(id, fault.clone());
            } else if let Some(email) = stream.as_email() {
                self.accounts.stop_email(email, fault.clone());
            }
        }
        let damage = super::in_one_line(&damage);
        tracing::error!(damage, "history is damaged: the next start reads all of it");
        self.distrust_snapshots().await;
    }
}

//! Tables as they were: an organization's and the operator's at one past moment.
//!
//! The same pure fold that serves gives them ([`Organization::apply_decoded`]), from the nearest
//! tables that are kept in front of the moment ([`keeping`]), or from the beginning, and the
//! store checks each event's hash as it is read. Nothing here is the truth: without what is
//! kept the answer is the same and takes longer.
//!
//! A moment is an instant or a place in the organization's stream. Of the operator's stream
//! counts what was recorded at that instant or before. Streams have no order among each other
//! within one millisecond: of two events of one instant in two streams, both count.
//!
//! The work of one request is bounded ([`FOLD_EVENTS_MAX`]); what was folded is kept at hand
//! ([`Recent`]), so that whoever asks again goes on there, and a second page costs nothing.

mod account;
mod fold;
pub mod held;
pub mod keeping;
mod recent;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use projections::id::OrganizationId;
use projections::key::Key;
use projections::organization::Organization;
use projections::recorded::Revision;
use projections::time::Timestamp;
use tokio::sync::{Notify, Semaphore};

use super::Ledger;
use super::event_store::ReadError;
use super::tables::Published;
use recent::Recent;

/// Most events that are folded for one request.
pub const FOLD_EVENTS_MAX: u64 = 1_000_000;
/// Most requests that fold at once; more wait.
pub const FOLDS_MAX: usize = 2;
/// How long a request waits for its turn to fold.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// A moment of an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Behind all that was recorded at this instant or before.
    At(Timestamp),
    /// Behind this event, at its instant.
    Behind(Revision),
}

/// The places in two streams that a moment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The last event of the organization.
    pub revision: Revision,
    /// The last event of the operator; none where there was none yet.
    pub operator: Option<Revision>,
}

/// Tables as they were.
#[derive(Clone, Debug)]
pub struct Past {
    /// The instant.
    pub at: Timestamp,
    /// The organization's tables.
    pub tables: Arc<Organization>,
    /// The operator's.
    pub operator: Arc<Organization>,
}

impl Past {
    /// Where they stand in their streams.
    #[must_use]
    pub fn places(&self) -> Option<Places> {
        let revision = self.tables.revision()?;
        Some(Places { revision, operator: self.operator.revision() })
    }

    /// Whether a key that is in nobody's tables any more had left these by then: it had been out
    /// of force for good for long enough. What it was when it left it was for ever.
    #[must_use]
    pub fn had_lost(&self, key: &Key) -> bool {
        let last = self.tables.head().map(|head| head.at);
        let left = key.leaves_tables_at();
        self.tables.key(key.id).is_none() && left.zip(last).is_some_and(|(left, last)| left <= last)
    }
}

/// Why tables as they were are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The instant has not come.
    #[error("that instant is ahead: it is {0} now")]
    Ahead(Timestamp),
    /// There was nothing yet.
    #[error("the first event was recorded at {0}")]
    Before(Timestamp),
    /// The stream does not go so far.
    #[error("the last revision is {0}")]
    NoSuchRevision(Revision),
    /// As many requests fold as may.
    #[error("as many requests read history as may at once")]
    Busy,
    /// As much was folded as one request may. Asked again, it goes on there.
    #[error("as much history was read as one request may")]
    WorkLimit,
    /// More was recorded between two instants than one request may read.
    #[error("{0} events were recorded between, more than one request may read")]
    TooLong(u64),
    /// History cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What is kept of tables as they were, and who works on them.
pub(super) struct History {
    turns: Semaphore,
    recent: Mutex<Recent>,
    /// There may be tables to keep.
    due: Notify,
    /// Up to where it is known that none are to be kept, by organization.
    not_before: Mutex<HashMap<OrganizationId, Revision>>,
    /// See [`FOLD_EVENTS_MAX`].
    fold_events_max: AtomicU64,
    /// See [`keeping::PAST_EVENTS_MIN`].
    past_events_min: AtomicU64,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(FOLDS_MAX),
            recent: Mutex::default(),
            due: Notify::new(),
            not_before: Mutex::default(),
            fold_events_max: AtomicU64::new(FOLD_EVENTS_MAX),
            past_events_min: AtomicU64::new(keeping::PAST_EVENTS_MIN),
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_before(&self) -> MutexGuard<'_, HashMap<OrganizationId, Revision>> {
        self.not_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be tables to keep.
    pub(super) fn look(&self) {
        self.due.notify_one();
    }
}

impl Ledger {
    /// The places that a moment comes to.
    ///
    /// # Errors
    ///
    /// There is no such moment, or history cannot be read.
    pub async fn places(
        &self,
        organization: &Published,
        moment: Moment,
    ) -> Result<(Places, Timestamp), PastError> {
        let head = organization.tables().head();
        let Some(head) = head else { return Err(PastError::Before(self.clock.now())) };
        let (revision, at) = match moment {
            Moment::Behind(revision) if revision > head.revision => {
                return Err(PastError::NoSuchRevision(head.revision));
            }
            Moment::Behind(revision) => (revision, self.recorded_at(organization, revision).await?),
            Moment::At(at) => {
                let now = self.now_for(&organization.tables());
                if at > now {
                    return Err(PastError::Ahead(now));
                }
                match self.last_at(organization, head, at).await? {
                    Some(revision) => (revision, at),
                    None => {
                        let first = self.recorded_at(organization, Revision::FIRST).await?;
                        return Err(PastError::Before(first));
                    }
                }
            }
        };
        let operator = self.tables.operator();
        let operator = match operator.tables().head() {
            _ if organization.id.is_operator() => Some(revision),
            Some(head) => self.last_at(operator, head, at).await?,
            None => None,
        };
        Ok((Places { revision, operator }, at))
    }

    /// The tables at these places, for questions about this instant.
    ///
    /// # Errors
    ///
    /// They cannot be had now.
    pub async fn past(
        &self,
        organization: &Published,
        places: Places,
        at: Timestamp,
    ) -> Result<Past, PastError> {
        let tables = self.tables_at(organization, places.revision).await?;
        let operator = match places.operator {
            _ if organization.id.is_operator() => Arc::clone(&tables),
            Some(revision) => self.tables_at(self.tables.operator(), revision).await?,
            None => Arc::new(Organization::new(OrganizationId::OPERATOR)),
        };
        Ok(Past { at, tables, operator })
    }
}

#[cfg(test)]
mod tests;

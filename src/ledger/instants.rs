//! Which place in a stream an instant is at.
//!
//! `at` never decreases in a stream, so a place is found by halving. The first halvings of every
//! search look at the same events: those of a grid. What never changes is remembered: the times of
//! the grid's events that were looked at, so that a search in a long stream reads what lies
//! between two of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use projections::envelope::Envelope;
use projections::id::OrganizationId;
use projections::organization::Head;
use projections::recorded::{Recorded, Revision};
use projections::time::Timestamp;

use super::Ledger;
use super::event_store::ReadError;
use super::tables::Published;

/// Every so many events one is of the grid. Small where short streams are to show that it works.
const GRID_EVENTS: u64 = if cfg!(test) { 16 } else { 4_096 };
/// Most times that are remembered, about 12 MB; then it is begun anew.
const REMEMBERED_MAX: usize = 262_144;
/// So few events are read at once.
const FEW_EVENTS: u64 = if cfg!(test) { 4 } else { 64 };

/// Times of events of the grid.
#[derive(Default)]
pub(super) struct Instants(Mutex<HashMap<(OrganizationId, u64), Timestamp>>);

impl Instants {
    fn get(&self, of: (OrganizationId, u64)) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&of).copied()
    }

    fn put(&self, of: (OrganizationId, u64), at: Timestamp) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() >= REMEMBERED_MAX {
            times.clear();
        }
        times.insert(of, at);
    }
}

/// When a stored event was recorded.
fn at_of(organization: &Published, recorded: &Recorded) -> Result<Timestamp, ReadError> {
    let revision = recorded.revision;
    Envelope::decode(&recorded.stored).map(|it| it.at).map_err(|fault| ReadError::Corrupt {
        stream: organization.stream.clone(),
        revision,
        what: fault.at(revision).to_string(),
    })
}

impl Ledger {
    /// When an event was recorded.
    pub(super) async fn recorded_at(
        &self,
        organization: &Published,
        revision: Revision,
    ) -> Result<Timestamp, ReadError> {
        let found = self.read_organization(organization, revision, 1).await?;
        found.first().map_or_else(
            || {
                let stream = organization.stream.clone();
                let what = "the event is missing".to_owned();
                Err(ReadError::Corrupt { stream, revision, what })
            },
            |it| at_of(organization, it),
        )
    }

    /// The first event, up to `head`, that was recorded at this instant or later; the place
    /// behind the head where there is none. Reads some 7 events one by one, and 64 at once; in a
    /// stream that nobody asked about before, as many more as its length has halves.
    ///
    /// # Errors
    ///
    /// Events on the way cannot be read.
    pub async fn first_not_before(
        &self,
        organization: &Published,
        head: Head,
        at: Timestamp,
    ) -> Result<Revision, ReadError> {
        if at > head.at {
            return Ok(head.revision.next());
        }
        // INVARIANT: all below `low` is earlier, nothing from `high` on is.
        let (mut low, mut high) = (0, head.revision.0);
        // Places of the grid, by number: `least` of them are earlier.
        let (mut least, mut most) = (0, high / GRID_EVENTS + 1);
        while least < most {
            let middle = least + (most - least) / 2;
            let revision = Revision(middle * GRID_EVENTS);
            let of = (organization.id, middle);
            let recorded_at = match self.instants.get(of) {
                Some(recorded_at) => recorded_at,
                None => {
                    let recorded_at = self.recorded_at(organization, revision).await?;
                    self.instants.put(of, recorded_at);
                    recorded_at
                }
            };
            if recorded_at < at {
                low = revision.0 + 1;
                least = middle + 1;
            } else {
                high = revision.0;
                most = middle;
            }
        }
        while high.saturating_sub(low) > FEW_EVENTS {
            let middle = low + (high - low) / 2;
            if self.recorded_at(organization, Revision(middle)).await? < at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        while low < high {
            let few = usize::try_from(high - low).unwrap_or(1);
            for recorded in self.read_organization(organization, Revision(low), few).await? {
                if at_of(organization, &recorded)? >= at {
                    return Ok(recorded.revision);
                }
                low = recorded.revision.0 + 1;
            }
        }
        Ok(Revision(high))
    }

    /// The last event that was recorded at this instant or before, of those up to `head`; none
    /// where there is none.
    ///
    /// # Errors
    ///
    /// Events on the way cannot be read.
    pub async fn last_at(
        &self,
        organization: &Published,
        head: Head,
        at: Timestamp,
    ) -> Result<Option<Revision>, ReadError> {
        if at >= head.at {
            return Ok(Some(head.revision));
        }
        // Events are recorded in whole milliseconds.
        let later = at.saturating_add_millis(1);
        let first = self.first_not_before(organization, head, later).await?;
        Ok(first.0.checked_sub(1).map(Revision))
    }
}

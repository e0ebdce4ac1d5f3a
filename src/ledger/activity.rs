//! Walking one organization's stream, event by event, in either direction.
//!
//! A walk reads the store in chunks and never past what readers see, and it ends when it
//! has read as much as one answer may cost: whoever wants more begins another walk there.

use projections::corrupt::CorruptHistory;
use projections::envelope::Envelope;
use projections::organization::Head;
use projections::recorded::{Recorded, Revision};
use projections::time::Timestamp;

use super::Ledger;
use super::event_store::ReadError;
use super::tables::Published;

/// Most events that one walk reads.
pub const WALK_EVENTS_MAX: usize = 10_000;
/// A walk ends behind the chunk with which it has read this many bytes.
pub const WALK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most events of one chunk: at most as many bytes as a walk.
const CHUNK_EVENTS_MAX: usize = 512;

/// In which direction a stream is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the end of the stream to its beginning.
    NewestFirst,
    /// From its beginning to the end.
    OldestFirst,
}

/// What a walk comes to next.
#[derive(Debug)]
pub enum Step {
    /// An event.
    Event(Revision, Box<Envelope>),
    /// The end of the stream, in the walk's direction.
    End,
    /// The walk has read as much as one may.
    WorkLimit,
}

/// A walk over one stream, as it was when the walk began.
pub struct Walk<'a> {
    ledger: &'a Ledger,
    organization: &'a Published,
    head: Head,
    direction: Direction,
    /// Where reading goes on; none behind the last event.
    next: Option<Revision>,
    /// What was read and not given yet, in the walk's direction.
    chunk: std::vec::IntoIter<Recorded>,
    chunk_events: usize,
    events_left: usize,
    bytes_left: usize,
}

impl<'a> Walk<'a> {
    /// A walk over all of a stream whose last event is `head`. It reads `wanted` events at
    /// first, and more at a time as it goes on.
    #[must_use]
    pub fn new(
        ledger: &'a Ledger,
        organization: &'a Published,
        head: Head,
        direction: Direction,
        wanted: usize,
    ) -> Self {
        let next = match direction {
            Direction::NewestFirst => head.revision,
            Direction::OldestFirst => Revision::FIRST,
        };
        Self {
            ledger,
            organization,
            head,
            direction,
            next: Some(next),
            chunk: Vec::new().into_iter(),
            chunk_events: wanted.clamp(1, CHUNK_EVENTS_MAX),
            events_left: WALK_EVENTS_MAX,
            bytes_left: WALK_BYTES_MAX,
        }
    }

    /// Goes on behind this event, which another walk in the same direction gave.
    pub fn continue_behind(&mut self, last: Revision) {
        self.next = match self.direction {
            Direction::NewestFirst => before(last).map(|next| next.min(self.head.revision)),
            Direction::OldestFirst => Some(last.0.saturating_add(1))
                .filter(|next| *next <= self.head.revision.0)
                .map(Revision),
        };
    }

    /// Skips what is before `from` on the way from the oldest, and what is not before `to`
    /// on the way from the newest. Finds the place by halving: `at` never decreases.
    pub async fn skip_to(
        &mut self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<(), ReadError> {
        match self.direction {
            Direction::NewestFirst => {
                if let Some(to) = to {
                    self.next = before(self.first_not_before(to).await?);
                }
            }
            Direction::OldestFirst => {
                if let Some(from) = from {
                    let first = self.first_not_before(from).await?;
                    self.next = Some(first).filter(|first| *first <= self.head.revision);
                }
            }
        }
        Ok(())
    }

    /// Whether there is anything behind the last event that was given.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.next.is_some() || self.chunk.len() > 0
    }

    /// The next event.
    pub async fn step(&mut self) -> Result<Step, ReadError> {
        loop {
            if let Some(recorded) = self.chunk.next() {
                let envelope = Box::new(self.decode(&recorded)?);
                return Ok(Step::Event(recorded.revision, envelope));
            }
            let Some(next) = self.next else { return Ok(Step::End) };
            if self.events_left == 0 || self.bytes_left == 0 {
                return Ok(Step::WorkLimit);
            }
            self.read_chunk(next).await?;
        }
    }

    async fn read_chunk(&mut self, next: Revision) -> Result<(), ReadError> {
        let wanted = self.chunk_events.min(self.events_left);
        let ahead = match self.direction {
            Direction::NewestFirst => next.0,
            Direction::OldestFirst => self.head.revision.0.saturating_sub(next.0),
        };
        // One event more is there than are ahead of it.
        let wanted =
            usize::try_from(ahead).map_or(wanted, |ahead| wanted.min(ahead.saturating_add(1)));
        let back = wanted as u64 - 1;
        let (first, behind) = match self.direction {
            Direction::NewestFirst => {
                let first = Revision(next.0.saturating_sub(back));
                (first, before(first))
            }
            Direction::OldestFirst => {
                let last = Revision(next.0.saturating_add(back));
                (next, Some(last.next()).filter(|it| *it <= self.head.revision))
            }
        };
        let mut chunk = self.read(first, wanted).await?;
        if self.direction == Direction::NewestFirst {
            chunk.reverse();
        }
        self.chunk = chunk.into_iter();
        self.next = behind;
        self.chunk_events = (self.chunk_events * 2).min(CHUNK_EVENTS_MAX);
        Ok(())
    }

    /// Reads so many events, which must be there: readers see them.
    async fn read(&mut self, first: Revision, wanted: usize) -> Result<Vec<Recorded>, ReadError> {
        let stream = &self.organization.stream;
        let read = self.ledger.store.read_stream(stream, first, wanted).await?;
        if read.len() != wanted {
            let missing = Revision(first.0.saturating_add(read.len() as u64));
            return Err(self.corrupt(missing, "the event is missing"));
        }
        let bytes: usize = read.iter().map(|it| it.stored.len()).sum();
        self.events_left = self.events_left.saturating_sub(read.len());
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        Ok(read)
    }

    /// The first event that was recorded at this instant or later; the place behind the
    /// last one if there is none.
    async fn first_not_before(&mut self, at: Timestamp) -> Result<Revision, ReadError> {
        let end = self.head.revision.next();
        if at > self.head.at {
            return Ok(end);
        }
        // INVARIANT: all below `low` is earlier, nothing from `high` on is.
        let (mut low, mut high) = (0, self.head.revision.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let recorded = self.read(Revision(middle), 1).await?;
            let Some(recorded) = recorded.first() else { return Ok(end) };
            if self.decode(recorded)?.at < at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Revision(high))
    }

    fn decode(&self, recorded: &Recorded) -> Result<Envelope, ReadError> {
        Envelope::decode(&recorded.stored).map_err(|fault| {
            let fault: CorruptHistory = fault.at(recorded.revision);
            self.corrupt(recorded.revision, &fault.to_string())
        })
    }

    fn corrupt(&self, revision: Revision, what: &str) -> ReadError {
        let stream = self.organization.stream.clone();
        ReadError::Corrupt { stream, revision, what: what.to_owned() }
    }
}

impl Ledger {
    /// So many events of an organization, from this one on. They must be there: readers see
    /// them. A short read is damage.
    pub async fn read_organization(
        &self,
        organization: &Published,
        first: Revision,
        wanted: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let read = self.store.read_stream(&organization.stream, first, wanted).await?;
        if read.is_empty() && wanted > 0 {
            let stream = organization.stream.clone();
            let what = "the event is missing".to_owned();
            return Err(ReadError::Corrupt { stream, revision: first, what });
        }
        Ok(read)
    }
}

/// The place in front of this one; none in front of the first.
fn before(revision: Revision) -> Option<Revision> {
    revision.0.checked_sub(1).map(Revision)
}

#[cfg(test)]
mod tests;

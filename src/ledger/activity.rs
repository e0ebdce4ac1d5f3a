//! Walking one organization's stream, event by event, in either direction.
//!
//! A walk reads the store in chunks and never past what readers see, and it ends when it
//! has read as much as one answer may cost: whoever wants more begins another walk there.
//! Where an index knows which events have what is looked for, only those are read; what the
//! index does not know yet is read event by event.

mod checking;
pub mod index;
mod indexing;

use projections::activity::Term;
use projections::corrupt::CorruptHistory;
use projections::envelope::Envelope;
use projections::organization::Head;
use projections::recorded::{Recorded, Revision};
use projections::time::Timestamp;

use super::Ledger;
use super::event_store::ReadError;
use super::tables::Published;
use index::Search;
pub use indexing::FillError;
pub(super) use indexing::IndexState;

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
    /// What every event has that is looked for; empty where all are.
    terms: Vec<Term>,
    /// Where reading goes on; none behind the last event.
    next: Option<Revision>,
    /// No event from here on is looked for, by number: where searches end.
    low: Revision,
    high: Revision,
    /// What was read and not given yet, in the walk's direction.
    chunk: std::vec::IntoIter<Recorded>,
    chunk_events: usize,
    events_left: usize,
    bytes_left: usize,
    /// A search took as long as one may.
    searched_out: bool,
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
            terms: Vec::new(),
            next: Some(next),
            low: Revision::FIRST,
            high: head.revision,
            chunk: Vec::new().into_iter(),
            chunk_events: wanted.clamp(1, CHUNK_EVENTS_MAX),
            events_left: WALK_EVENTS_MAX,
            bytes_left: WALK_BYTES_MAX,
            searched_out: false,
        }
    }

    /// Events that have not all of these terms may be left out, and are, where an index knows
    /// which they are.
    #[must_use]
    pub fn looking_for(mut self, terms: Vec<Term>) -> Self {
        self.terms = terms;
        self
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
        // The other end is of use to a search alone: a walk sees it when it comes there.
        let searches =
            !self.terms.is_empty() && self.ledger.activity.reached(self.organization.id).is_some();
        match self.direction {
            Direction::NewestFirst => {
                if let Some(to) = to {
                    self.next = before(self.first_not_before(to).await?);
                }
                if let Some(from) = from.filter(|_| searches) {
                    self.low = self.first_not_before(from).await?;
                }
            }
            Direction::OldestFirst => {
                if let Some(from) = from {
                    let first = self.first_not_before(from).await?;
                    self.next = Some(first).filter(|first| *first <= self.head.revision);
                }
                if let Some(to) = to.filter(|_| searches) {
                    self.high = before(self.first_not_before(to).await?).unwrap_or(Revision::FIRST);
                }
            }
        }
        Ok(())
    }

    /// Behind which event another walk in the same direction goes on, with nothing left out
    /// and nothing twice; none where nothing is left. Events that were read and not given are
    /// given again.
    #[must_use]
    pub fn left_at(&self) -> Option<Revision> {
        let next = self.chunk.as_slice().first().map(|it| it.revision).or(self.next)?;
        match self.direction {
            Direction::NewestFirst => Some(next.next()),
            Direction::OldestFirst => before(next),
        }
    }

    /// The next event.
    pub async fn step(&mut self) -> Result<Step, ReadError> {
        loop {
            if let Some(recorded) = self.chunk.next() {
                let envelope = Box::new(self.decode(&recorded)?);
                return Ok(Step::Event(recorded.revision, envelope));
            }
            let Some(next) = self.next else { return Ok(Step::End) };
            if self.events_left == 0 || self.bytes_left == 0 || self.searched_out {
                return Ok(Step::WorkLimit);
            }
            if !self.search(next).await? {
                self.read_chunk(next).await?;
            }
        }
    }

    /// Reads the next events that an index proposes; false where it has nothing to say.
    async fn search(&mut self, next: Revision) -> Result<bool, ReadError> {
        let activity = &self.ledger.activity;
        let reached = activity.reached(self.organization.id).filter(|_| !self.terms.is_empty());
        let Some(known) = reached.filter(|known| *known >= next) else { return Ok(false) };
        let (low, high) = match self.direction {
            Direction::NewestFirst => (self.low, next),
            Direction::OldestFirst => (next, self.high.min(known)),
        };
        if low > high {
            // Whatever follows is outside the bounds.
            return Ok(false);
        }
        let wanted = self.chunk_events.min(self.events_left);
        let search = Search {
            organization: self.organization.id,
            terms: self.terms.clone(),
            low,
            high,
            direction: self.direction,
            wanted,
        };
        let Some(found) = activity.find(search).await else { return Ok(false) };
        let proposed = found.revisions;
        // Nothing is looked for outside the bounds; what the index does not know is read.
        let unknown = Some(high.next()).filter(|it| *it <= self.high);
        self.next = match self.direction {
            Direction::NewestFirst => found.next,
            Direction::OldestFirst => found.next.or(unknown),
        };
        self.searched_out = found.next.is_some() && proposed.len() < wanted;
        self.chunk_events = (self.chunk_events * 2).min(CHUNK_EVENTS_MAX);
        self.chunk = self.read_proposed(proposed).await?.into_iter();
        Ok(true)
    }

    /// Reads these events, which must be there, in this order.
    async fn read_proposed(&mut self, proposed: Vec<Revision>) -> Result<Vec<Recorded>, ReadError> {
        let chunk = self.ledger.store.read_events(&self.organization.stream, proposed).await?;
        self.spend(&chunk);
        Ok(chunk)
    }

    async fn read_chunk(&mut self, next: Revision) -> Result<(), ReadError> {
        let mut wanted = self.chunk_events.min(self.events_left);
        // What the index knows is searched, not read.
        let known = self.ledger.activity.reached(self.organization.id);
        if let (Direction::NewestFirst, Some(known), false) =
            (self.direction, known.filter(|it| *it < next), self.terms.is_empty())
        {
            wanted = usize::try_from(next.0 - known.0).map_or(wanted, |it| wanted.min(it));
        }
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
        let read = self.all_of(first, wanted, read)?;
        self.spend(&read);
        Ok(read)
    }

    fn all_of(
        &self,
        first: Revision,
        wanted: usize,
        read: Vec<Recorded>,
    ) -> Result<Vec<Recorded>, ReadError> {
        if read.len() != wanted {
            let missing = Revision(first.0.saturating_add(read.len() as u64));
            return Err(self.corrupt(missing, "the event is missing"));
        }
        Ok(read)
    }

    fn spend(&mut self, read: &[Recorded]) {
        let bytes: usize = read.iter().map(|it| it.stored.len()).sum();
        self.events_left = self.events_left.saturating_sub(read.len());
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    async fn first_not_before(&self, at: Timestamp) -> Result<Revision, ReadError> {
        self.ledger.first_not_before(self.organization, self.head, at).await
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

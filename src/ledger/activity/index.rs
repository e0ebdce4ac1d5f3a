//! The port of the activity index: which events of an organization have some terms.
//!
//! An index is derived and never believed: what it finds is read from the stream and asked
//! again. It may know less than the stream, at its end; what it knows, it knows without gaps.

use std::collections::HashMap;

use projections::activity::Term;
use projections::id::OrganizationId;
use projections::recorded::Revision;

use super::Direction;
use crate::ledger::event_store::Anchor;

/// Why an index does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// There is no space for it.
    #[error("no space left for the activity index")]
    Full,
    /// It is not what was written: it must be cleared.
    #[error("the activity index is damaged: {0}")]
    Damaged(String),
    /// It cannot be used now.
    #[error("the activity index is unavailable: {0}")]
    Unavailable(String),
}

/// How far an index has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The last event of all; none where it holds nothing.
    pub checkpoint: Option<Anchor>,
    /// The last event of each organization that it has anything of.
    pub organizations: Vec<(OrganizationId, Revision)>,
}

/// An event, and what it can be found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    /// Whose stream it is in.
    pub organization: OrganizationId,
    /// Its place there: the one behind the last that was added of that organization.
    pub revision: Revision,
    /// Its terms, none twice.
    pub terms: Vec<Term>,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// In whose stream.
    pub organization: OrganizationId,
    /// All of which an event must have: at least one.
    pub terms: Vec<Term>,
    /// The first revision that is looked at, by number.
    pub low: Revision,
    /// The last one.
    pub high: Revision,
    /// From which end.
    pub direction: Direction,
    /// The most events to find: at least one.
    pub wanted: usize,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The events, in the direction of the search.
    pub revisions: Vec<Revision>,
    /// Where looking goes on, in the direction of the search; none where all was looked at.
    pub next: Option<Revision>,
}

/// Keeps which events have which terms.
pub trait ActivityIndex: Send + Sync + 'static {
    /// How far it has read.
    fn reached(&self) -> Result<Reached, IndexError>;

    /// Adds events and the new checkpoint: all or nothing, after a crash too.
    fn add(&self, events: &[Indexed], checkpoint: &Anchor) -> Result<(), IndexError>;

    /// Finds events. Ends early, with what it has and the place to go on from, when that takes
    /// long: the time it takes must not depend on how much the index holds.
    fn find(&self, search: &Search) -> Result<Found, IndexError>;

    /// Begins a digest of what it holds now.
    fn begin_digest(&self) -> Result<Digesting, IndexError>;

    /// Takes some more of it in; true once that is all. Takes few milliseconds, and holds
    /// nothing between calls: what is added meanwhile stays out.
    fn digest_on(&self, digesting: &mut Digesting) -> Result<bool, IndexError>;

    /// Throws everything away.
    fn clear(&self) -> Result<(), IndexError>;
}

/// A digest on its way.
#[derive(Clone, Debug, Default)]
pub struct Digesting {
    /// The last event of all that goes into it; none where nothing does.
    pub checkpoint: Option<Anchor>,
    /// The last event of each organization that goes into it, by the index's own number.
    pub organizations: HashMap<i64, (OrganizationId, Revision)>,
    /// The word and the row behind which it goes on, in the index's own terms.
    pub behind: Option<(String, i64)>,
    /// How many words it took in, from any number on.
    pub words: u64,
    /// What came of it so far.
    pub digest: IndexDigest,
}

/// What an index holds, in few bytes: sums over all terms of all events, in whatever order. Any
/// two indexes of the same events have it in common, and others have not but by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexDigest {
    /// How many terms of events.
    pub terms: u64,
    /// How many events.
    pub events: u64,
    sum: u128,
}

impl IndexDigest {
    /// Takes in one term of one event.
    pub fn add(&mut self, organization: OrganizationId, revision: Revision, term: Term) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&organization.to_bytes());
        hasher.update(&revision.0.to_le_bytes()).update(&term.0.to_le_bytes());
        let mut first = [0; 16];
        hasher.finalize_xof().fill(&mut first);
        self.terms += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(first));
    }
}

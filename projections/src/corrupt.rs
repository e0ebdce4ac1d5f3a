//! History that cannot be believed.

use crate::recorded::Revision;

/// Stored history that must not be folded further. Whoever meets it stops this
/// stream, says so, and skips nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("history is corrupt at revision {revision}: {fault}")]
pub struct CorruptHistory {
    /// Where folding stopped.
    pub revision: Revision,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a piece of history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store could not give the event as it was written.
    #[error("{0}")]
    Stored(String),
    /// An event is missing in front of this one.
    #[error("revision {expected} is missing")]
    Gap {
        /// The revision that should have come.
        expected: Revision,
    },
    /// This revision was applied before, with other bytes.
    #[error("another event was applied at this revision before")]
    Rewritten,
    /// The stored bytes are no event.
    #[error("the stored bytes are no event: {0}")]
    Unreadable(String),
    /// No version of keyledger known to this one wrote such an event.
    #[error(
        "event type `{event_type}` with schema {schema} is unknown to this version; run the version that wrote it, or a newer one"
    )]
    UnknownSchema {
        /// The type.
        event_type: String,
        /// The schema.
        schema: u32,
    },
    /// The event's time is before that of the event in front of it.
    #[error("time runs back")]
    TimeRunsBack,
    /// The event stands in a stream, or at a place, where it means nothing.
    #[error("event `{0}` does not belong here")]
    Misplaced(&'static str),
    /// The event speaks of something the stream never made.
    #[error("event `{0}` has no target")]
    MissingTarget(&'static str),
    /// The event makes something that exists.
    #[error("event `{0}` makes what exists")]
    DuplicateTarget(&'static str),
}

impl Fault {
    /// This fault, at a place.
    #[must_use]
    pub fn at(self, revision: Revision) -> CorruptHistory {
        CorruptHistory { revision, fault: self }
    }
}

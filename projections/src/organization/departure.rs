//! Keys that have been out of force for good for thirty days leave the tables.
//!
//! They leave by the stream's own time, with the event that moves it: which keys are in the
//! tables is a matter of history and of nothing else, so that rules and folds see the same
//! keys whenever memory is cleaned. A key that left is as if it had never been to every
//! later event: none of them may speak of it. Its row is handed to whoever folds, once, to
//! be kept elsewhere ([`Organization::departed`]).
//!
//! Grants that have an end leave in the same way, when it has come, and are kept nowhere:
//! history has them.

use std::borrow::Cow;
use std::sync::Arc;

use super::Organization;
use super::keys::owned;
use crate::id::GrantId;
use crate::key::{KEY_MEMORY_MS, Key};
use crate::time::Timestamp;

/// Most keys, and most grants, that leave with one event, so that no writer waits long for them. The others
/// leave with the events behind it, later ones first.
pub const DEPARTURES_MAX: usize = 1_024;

/// The rows that left with the last event. They are no part of the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Departed(Option<Arc<Vec<Arc<Key>>>>);

impl PartialEq for Departed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Departed {}

impl Organization {
    /// The rows that left the tables with the last event: keys that had been out of force
    /// for good for [`KEY_MEMORY_MS`]. They never change again.
    pub fn departed(&self) -> &[Arc<Key>] {
        self.departed.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The tables as the next event will find them if it is recorded at this instant: what
    /// rules must decide on.
    #[must_use]
    pub fn as_of(&self, at: Timestamp) -> Cow<'_, Self> {
        if !self.departures_due(at) {
            return Cow::Borrowed(self);
        }
        let mut later = self.clone();
        later.depart(at);
        Cow::Owned(later)
    }

    fn departures_due(&self, at: Timestamp) -> bool {
        // Only an event that moves the time: those of one append see the same keys.
        self.head.is_some_and(|head| head.at < at)
            && (self.first_due(at).is_some() || self.first_grant_over(at).is_some())
    }

    /// The first grant that no longer stands at this instant.
    fn first_grant_over(&self, at: Timestamp) -> Option<GrantId> {
        self.grant_ends.get_min().filter(|(end, _)| *end <= at).map(|(_, id)| *id)
    }

    fn first_due(&self, at: Timestamp) -> Option<(Timestamp, crate::id::KeyId)> {
        let first = self.ends.get_min().copied();
        first.filter(|(end, _)| end.saturating_add_millis(KEY_MEMORY_MS) <= at)
    }

    /// Lets go of the keys whose time has come, in front of an event of this instant. Gives
    /// the tables as they were, where any left.
    pub(super) fn depart(&mut self, at: Timestamp) -> Option<Box<Self>> {
        let due = self.departures_due(at);
        let before = due.then(|| Box::new(self.clone()));
        self.departed = Departed::default();
        if !due {
            return None;
        }
        let mut departed = Vec::new();
        while let Some((end, id)) = self.first_due(at).filter(|_| departed.len() < DEPARTURES_MAX) {
            self.ends.remove(&(end, id));
            let Some(key) = self.keys.remove(&id) else { continue };
            self.release_name(&key, at);
            if let Some(owned) = owned(&key) {
                self.owned.remove(&owned);
            }
            departed.push(key);
        }
        self.departed = Departed(Some(Arc::new(departed)));
        for _ in 0..DEPARTURES_MAX {
            let Some(id) = self.first_grant_over(at) else { break };
            self.remove_grant(id);
        }
        before
    }
}

//! When keys were last used, and how often.
//!
//! A use is counted where its key was found anyway, in eight bytes beside the key's row in
//! the index ([`Uses`]): two relaxed atomics, no lock, no memory. The first use of a key
//! that nobody watches puts the key into a queue of fixed length ([`Noted`]); from there the
//! [`recorder`] takes it, and writes what was counted, rolled up, into the organization's
//! usage stream. If the queue is full the recorder looks through all keys instead.
//!
//! What is lost where a node is killed: the uses that were not yet written. A key whose
//! last use is on record is written again only after [`recorder::HELD_BACK`], so what a
//! restart finds may be that much older than the truth. Lists on a running node show the
//! truth at once.

pub mod recorder;
pub(super) mod replay;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_queue::ArrayQueue;
use projections::time::Timestamp;

/// Most keys that wait to be looked at by the recorder; a mebibyte of memory.
pub(super) const NOTED_MAX: usize = 65_536;

/// How a key is found in the index.
pub(super) type Head = [u64; 2];

/// Uses of one key that are not yet recorded, and its last use, recorded or not.
///
/// Counts are relaxed: a use that comes in the very moment in which the key's row is
/// replaced may go uncounted.
#[derive(Debug, Default)]
pub struct Uses {
    /// Uses times two, and whether the recorder knows of them.
    counted: AtomicU32,
    /// In seconds since 1970; 0 for never.
    last_s: AtomicU32,
}

/// When a key was last used, a moment ago.
#[derive(Clone, Copy)]
pub(super) struct Looked {
    last_s: u32,
}

/// Set while the recorder knows of a key: it need not be told of it again.
const WATCHED: u32 = 1;
const ONE_USE: u32 = 2;

impl Uses {
    /// What [`Uses::count`] needs to know. Read early, it brings the counts into the cache
    /// while others are still on their way.
    #[inline]
    pub(super) fn look(&self) -> Looked {
        Looked { last_s: self.last_s.load(Ordering::Relaxed) }
    }

    /// Counts a use. True where the recorder must be told.
    #[inline]
    #[must_use]
    pub(super) fn count(&self, looked: Looked, at: Timestamp) -> bool {
        let at_s = seconds(at);
        // A plain store: of two in one instant the earlier one may win, by a second at most.
        if looked.last_s < at_s {
            self.last_s.store(at_s, Ordering::Relaxed);
        }
        self.counted.fetch_add(ONE_USE, Ordering::Relaxed) & WATCHED == 0
            && self.counted.fetch_or(WATCHED, Ordering::Relaxed) & WATCHED == 0
    }

    /// When the key was last used; none if no use of it is known.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        of_seconds(self.last_s())
    }

    /// The same in seconds since 1970; 0 for never.
    fn last_s(&self) -> u32 {
        self.last_s.load(Ordering::Relaxed)
    }

    /// Sets the last use, in seconds since 1970, where it is later than the one that is known.
    fn restore(&self, last_s: u32) {
        self.last_s.fetch_max(last_s, Ordering::Relaxed);
    }

    /// Takes the uses that are to be recorded. The key stays watched.
    fn take(&self) -> u32 {
        self.counted.swap(WATCHED, Ordering::Relaxed) / ONE_USE
    }

    /// Puts back uses that could not be recorded.
    fn give_back(&self, uses: u32) {
        self.counted.fetch_add(uses.wrapping_mul(ONE_USE), Ordering::Relaxed);
    }

    /// Stops watching a key without uses; false where there are some.
    fn release(&self) -> bool {
        let released =
            self.counted.compare_exchange(WATCHED, 0, Ordering::Relaxed, Ordering::Relaxed);
        released.is_ok() || self.counted.load(Ordering::Relaxed) == 0
    }

    fn waiting(&self) -> bool {
        self.counted.load(Ordering::Relaxed) >= ONE_USE
    }

    /// The same uses, for a row that takes the place of another.
    pub(super) fn carried(&self) -> Self {
        Self {
            counted: AtomicU32::new(self.counted.load(Ordering::Relaxed)),
            last_s: AtomicU32::new(self.last_s.load(Ordering::Relaxed)),
        }
    }

    /// Adds what was counted in `old` since `carried` was taken from it.
    pub(super) fn add_since(&self, old: &Self, carried: &Self) {
        self.last_s.fetch_max(old.last_s.load(Ordering::Relaxed), Ordering::Relaxed);
        let uses = |it: &Self| it.counted.load(Ordering::Relaxed) / ONE_USE;
        self.give_back(uses(old).saturating_sub(uses(carried)));
    }
}

/// The time of a last use, as it is kept.
pub(super) fn of_seconds(last_s: u32) -> Option<Timestamp> {
    if last_s == 0 { None } else { Timestamp::from_millis(i64::from(last_s) * 1_000) }
}

/// A time as last uses are kept: in seconds since 1970, 0 for never.
pub(super) fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_millis() / 1_000).unwrap_or_default()
}

/// Keys that the recorder is to look at.
pub(super) struct Noted {
    pub(super) keys: ArrayQueue<Head>,
    pub(super) overflowed: AtomicBool,
}

impl Noted {
    pub(super) fn new() -> Self {
        Self { keys: ArrayQueue::new(NOTED_MAX), overflowed: AtomicBool::new(false) }
    }

    /// Tells the recorder of a key. Allocates nothing, and waits for nobody.
    #[inline]
    pub(super) fn note(&self, key: Head) {
        if self.keys.push(key).is_err() && !self.overflowed.load(Ordering::Relaxed) {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn a_key_is_told_of_once_until_it_is_released() {
        let uses = Uses::default();
        assert_eq!(uses.last(), None);
        assert!(uses.count(uses.look(), at(1_700_000_000_900)));
        assert!(!uses.count(uses.look(), at(1_700_000_001_100)));
        // A clock that is set back takes nothing back.
        assert!(!uses.count(uses.look(), at(1_700_000_000_000)));
        assert_eq!(uses.last(), Some(at(1_700_000_001_000)));
        assert!(!uses.release(), "there are uses");
        assert_eq!(uses.take(), 3);
        uses.give_back(3);
        assert!(!uses.count(uses.look(), at(1_700_000_002_000)), "it is watched");
        assert_eq!(uses.take(), 4);
        assert!(uses.release());
        assert!(uses.count(uses.look(), at(1_700_000_003_000)));
    }

    #[test]
    fn what_was_counted_before_creation_or_after_2106_is_held_inside() {
        let uses = Uses::default();
        assert!(uses.count(uses.look(), Timestamp::MIN));
        assert_eq!(uses.last(), None);
        assert!(!uses.count(uses.look(), Timestamp::MAX));
        assert_eq!(uses.last(), None);
    }

    #[test]
    fn a_row_that_takes_anothers_place_takes_its_uses() {
        let old = Uses::default();
        assert!(old.count(old.look(), at(5_000)));
        let carried = old.carried();
        let new = old.carried();
        // Somebody still holds the old row.
        assert!(!old.count(old.look(), at(9_000)));
        new.add_since(&old, &carried);
        assert_eq!((new.take(), new.last()), (2, Some(at(9_000))));
    }

    #[test]
    fn a_full_queue_says_so() {
        let noted = Noted::new();
        for key in 0..NOTED_MAX as u64 {
            noted.note([key, 0]);
        }
        assert!(!noted.overflowed.load(Ordering::Relaxed));
        noted.note([u64::MAX, 0]);
        assert!(noted.overflowed.load(Ordering::Relaxed));
    }
}

//! How long to wait for company before a commit.
//!
//! Those answered together tend to ask again together, a little after the answer. A
//! writer that begins its next commit with the first of them leaves the others behind
//! for a whole sync. So it waits a little, for as many as are likely to come, and stops
//! waiting for a while when they do not.

use std::time::Duration;

/// Longest wait, and its share of what a commit takes.
const PATIENCE_MAX: Duration = Duration::from_millis(1);
const PATIENCE_SHARE: u32 = 4;
/// Most commits without waiting after company did not come.
const REST_MAX: u32 = 64;

/// What the writer knows of those who append.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// How many may come: those just answered and those who wait already.
    company: usize,
    commit_time: Duration,
    waited: bool,
    misses: u32,
    rest: u32,
}

impl Gathering {
    /// How many requests to wait for, and for how long.
    pub(super) fn next(&mut self) -> (usize, Duration) {
        self.waited = self.company > 1 && self.rest == 0;
        self.rest = self.rest.saturating_sub(1);
        if self.waited {
            (self.company, (self.commit_time / PATIENCE_SHARE).min(PATIENCE_MAX))
        } else {
            (1, Duration::ZERO)
        }
    }

    /// Notes a commit of `count` requests, at whose end `company` had asked.
    pub(super) fn committed(&mut self, count: usize, company: usize, commit_time: Duration) {
        if self.waited && count < self.company.div_ceil(2) {
            self.misses += 1;
            self.rest = 1_u32.checked_shl(self.misses).unwrap_or(REST_MAX).min(REST_MAX);
        } else if self.waited {
            self.misses = 0;
        }
        self.company = company;
        self.commit_time = commit_time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_millis(2);

    #[test]
    fn a_lone_writer_never_waits() {
        let mut gathering = Gathering::default();
        for _ in 0..100 {
            assert_eq!(gathering.next(), (1, Duration::ZERO));
            gathering.committed(1, 1, COMMIT);
        }
    }

    #[test]
    fn those_answered_together_are_waited_for_together() {
        let mut gathering = Gathering::default();
        gathering.committed(32, 64, COMMIT);
        assert_eq!(gathering.next(), (64, COMMIT / PATIENCE_SHARE));
        gathering.committed(64, 64, Duration::from_secs(1));
        assert_eq!(gathering.next(), (64, PATIENCE_MAX));
    }

    #[test]
    fn company_that_does_not_come_is_waited_for_ever_less() {
        let mut gathering = Gathering::default();
        let mut waits = 0;
        for _ in 0..1_000 {
            gathering.committed(1, 64, COMMIT);
            waits += usize::from(gathering.next().0 > 1);
        }
        assert!((2..40).contains(&waits), "{waits}");
    }
}

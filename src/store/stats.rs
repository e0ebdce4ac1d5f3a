//! What the event store counts while it works.

use crate::meter::{Gauge, Histogram};

/// Appends and commits, counted.
#[derive(Debug)]
pub struct StoreStats {
    /// Events in one commit.
    pub commit_events: Histogram,
    /// Appends that share one commit.
    pub commit_appends: Histogram,
    /// Nanoseconds that a commit took to be on disk.
    pub commit_ns: Histogram,
    /// 1 once the store refuses writes until a restart.
    pub fenced: Gauge,
}

/// How many share a commit.
const COMPANY: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];
/// From 50 µs to 10 s.
const COMMIT_NS: &[u64] = &[
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

impl Default for StoreStats {
    fn default() -> Self {
        Self {
            commit_events: Histogram::new(COMPANY),
            commit_appends: Histogram::new(COMPANY),
            commit_ns: Histogram::new(COMMIT_NS),
            fenced: Gauge::default(),
        }
    }
}

impl StoreStats {
    /// A commit of so many appends and events is on disk.
    pub(super) fn committed(&self, appends: usize, events: usize) {
        self.commit_appends.observe(u64::try_from(appends).unwrap_or(u64::MAX));
        self.commit_events.observe(u64::try_from(events).unwrap_or(u64::MAX));
    }
}

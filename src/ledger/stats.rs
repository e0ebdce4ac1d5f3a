//! What the ledger counts while it works.

use crate::meter::{Gauge, Histogram};

/// Appends, counted.
#[derive(Debug)]
pub struct LedgerStats {
    /// Events that were sent to the store and are not in the tables yet.
    pub in_flight: Gauge,
    /// Nanoseconds from sending events off to knowing what came of them.
    pub append_ns: Histogram,
}

/// From 100 µs to 30 s.
const APPEND_NS: &[u64] = &[
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
    30_000_000_000,
];

impl Default for LedgerStats {
    fn default() -> Self {
        Self { in_flight: Gauge::default(), append_ns: Histogram::new(APPEND_NS) }
    }
}

//! Counting while others work: atomics, no lock, no allocation.
//!
//! Figures are read one by one, so those of one moment may not fit each other to the last
//! event; each for itself only grows, or is what it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// So many more.
    pub fn up(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// So many fewer.
    pub fn down(&self, number: u64) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    /// As many as this.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Most bounds of a histogram.
pub const BOUNDS_MAX: usize = 24;

/// How often values fell below bounds that are fixed.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above them all.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// Bounds in ascending order, at most [`BOUNDS_MAX`]; more are left out.
    #[must_use]
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS_MAX + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.iter().take(BOUNDS_MAX).take_while(|bound| value > **bound).count();
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time, in nanoseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Each bound with the number of values at or below it and above the one before; the
    /// last, without a bound, with those above all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().take(BOUNDS_MAX).copied().map(Some);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        bounds.chain(std::iter::once(None)).zip(counts)
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        static HISTOGRAM: Histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, 1_000] {
            HISTOGRAM.observe(value);
        }
        let buckets: Vec<_> = HISTOGRAM.buckets().collect();
        assert_eq!(buckets, [(Some(10), 2), (Some(100), 2), (None, 2)]);
        assert_eq!(HISTOGRAM.sum(), 1_222);
    }

    #[test]
    fn a_gauge_goes_down_again() {
        let gauge = Gauge::default();
        gauge.up(3);
        gauge.down(1);
        assert_eq!(gauge.value(), 2);
        gauge.set(7);
        assert_eq!(gauge.value(), 7);
    }
}

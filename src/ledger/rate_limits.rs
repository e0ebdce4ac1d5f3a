//! How often keys may be used: the limits that keys carry, enforced by this node.
//!
//! A limit of `n` requests in `s` seconds is a bucket of `n` tokens that fills by one every
//! `s / n` seconds (GCRA): `n` at once, and no more than `n` in each `s` seconds after that.
//! What a key has left is in this node's memory alone: it is no part of history, each
//! node counts for itself, and a restart fills every bucket.
//!
//! Only keys that have a limit pay for it. A bucket that has had the time to fill again is
//! dropped: a new one would be as full.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use projections::id::{KeyId, OrganizationId};
use projections::network::RateLimit;

/// The buckets of all keys that have a limit and were used lately.
pub struct RateLimits<C: Clock = MonotonicClock> {
    clock: C,
    start: C::Instant,
    buckets: papaya::HashMap<(OrganizationId, KeyId), Arc<Bucket<C>>>,
}

struct Bucket<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    /// How long it takes to fill.
    fills_in: Duration,
    /// When it was last asked, in nanoseconds since the start.
    asked_ns: AtomicU64,
}

impl RateLimits {
    /// Limits by the system's monotonic clock.
    #[must_use]
    pub fn new() -> Self {
        Self::by(MonotonicClock)
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn by(clock: C) -> Self {
        Self { start: clock.now(), clock, buckets: papaya::HashMap::new() }
    }

    /// Takes a token of this key.
    ///
    /// # Errors
    ///
    /// There is none: how long until there is one, if nobody else takes it.
    pub(super) fn take(
        &self,
        organization_id: OrganizationId,
        key_id: KeyId,
        limit: RateLimit,
    ) -> Result<(), Duration> {
        let id = (organization_id, key_id);
        let buckets = self.buckets.pin();
        let bucket = match buckets.get(&id) {
            Some(bucket) => bucket,
            None => {
                let Some(bucket) = self.bucket(limit) else { return Ok(()) };
                buckets.get_or_insert(id, Arc::new(bucket))
            }
        };
        bucket.asked_ns.store(self.now_ns(), Ordering::Relaxed);
        bucket.limiter.check().map_err(|until| {
            // Told in milliseconds: never too early, and never nothing.
            let wait = until.wait_time_from(self.clock.now());
            let wait_ms = wait.as_nanos().div_ceil(1_000_000).max(1);
            Duration::from_millis(u64::try_from(wait_ms).unwrap_or(u64::MAX))
        })
    }

    fn bucket(&self, limit: RateLimit) -> Option<Bucket<C>> {
        let fills_in = Duration::from_secs(limit.per_seconds.into());
        let requests = NonZeroU32::new(limit.requests)?;
        // Rounded up: a limit is not exceeded by a fraction of a nanosecond either.
        let one_ns = fills_in.as_nanos().div_ceil(limit.requests.into());
        let one_in = Duration::from_nanos(u64::try_from(one_ns).unwrap_or(u64::MAX));
        let quota = Quota::with_period(one_in)?.allow_burst(requests);
        let limiter = RateLimiter::direct_with_clock(quota, self.clock.clone());
        Some(Bucket { limiter, fills_in, asked_ns: AtomicU64::new(self.now_ns()) })
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }

    /// Drops every bucket that is full again, and those of keys that are not `in_force`.
    pub(super) fn sweep(&self, in_force: impl Fn(OrganizationId, KeyId) -> bool) {
        let now_ns = self.now_ns();
        self.buckets.pin().retain(|(organization_id, key_id), bucket| {
            let asked_ns = bucket.asked_ns.load(Ordering::Relaxed);
            let idle = Duration::from_nanos(now_ns.saturating_sub(asked_ns));
            idle <= bucket.fills_in && in_force(*organization_id, *key_id)
        });
    }

    /// How many keys have a bucket.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    fn limits() -> (RateLimits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RateLimits::by(clock.clone()), clock)
    }

    fn limit(requests: u32, per_seconds: u32) -> RateLimit {
        RateLimit::new(requests, per_seconds).unwrap()
    }

    #[test]
    fn as_many_as_may_be_at_once_and_then_one_after_the_other() {
        let (limits, clock) = limits();
        let take = || limits.take(ACME, KEY, limit(10, 60));
        for _ in 0..10 {
            assert_eq!(take(), Ok(()));
        }
        assert_eq!(take(), Err(Duration::from_secs(6)));
        // To ask costs nothing.
        assert_eq!(take(), Err(Duration::from_secs(6)));
        clock.advance(Duration::from_millis(5_999));
        assert_eq!(take(), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(take(), Ok(()));
        assert_eq!(take(), Err(Duration::from_secs(6)));
        clock.advance(Duration::from_secs(60));
        assert_eq!((0..20).filter(|_| take().is_ok()).count(), 10);
    }

    #[test]
    fn no_limit_is_exceeded_in_any_window_by_more_than_its_burst() {
        for (requests, per_seconds) in [(1, 1), (3, 1), (7, 10), (1_000_000, 1), (1, 86_400)] {
            let (limits, clock) = limits();
            let limit = limit(requests, per_seconds);
            let mut taken = 0_u64;
            // Twice its time, in steps that are no divisor of anything.
            let whole = Duration::from_secs(u64::from(per_seconds) * 2);
            let steps = 997;
            for _ in 0..=steps {
                while limits.take(ACME, KEY, limit).is_ok() {
                    taken += 1;
                }
                clock.advance(whole / steps);
            }
            let most = u64::from(requests) * 3;
            assert!(taken <= most, "{taken} of {requests} in {per_seconds} s");
            assert!(taken + 1 >= u64::from(requests) * 2, "{taken}: the bucket fills");
        }
    }

    #[test]
    fn what_is_full_again_or_dead_is_dropped() {
        let (limits, clock) = limits();
        let other = KeyId::from_bytes([2; 16]);
        assert_eq!(limits.take(ACME, KEY, limit(1, 60)), Ok(()));
        assert_eq!(limits.take(ACME, other, limit(1, 60)), Ok(()));
        clock.advance(Duration::from_secs(60));
        limits.sweep(|_, _| true);
        assert_eq!(limits.len(), 2, "a bucket that may lack a token is kept");
        assert_eq!(limits.take(ACME, other, limit(1, 60)), Ok(()));
        clock.advance(Duration::from_secs(1));
        limits.sweep(|_, _| true);
        assert_eq!(limits.len(), 1);
        assert!(limits.take(ACME, other, limit(1, 60)).is_err());
        limits.sweep(|_, id| id != other);
        assert!(limits.is_empty());
    }
}

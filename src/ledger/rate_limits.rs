//! How often keys may be used: the limits that keys carry, enforced by this node.
//!
//! A limit of `n` requests in `s` seconds is a bucket of `n` tokens that fills by one every
//! `s / n` seconds (GCRA): `n` at once, and no more than `n` in each `s` seconds after that.
//! What a key has left is in this node's memory alone: it is no part of history, each
//! node counts for itself, and a restart fills every bucket.
//!
//! Only keys that have a limit pay for it. A bucket that has had the time to fill again is
//! dropped: a new one would be as full. Nothing else drops one, or who is limited would be
//! given a full one for being disabled and enabled, or rotated: the keys of one rotation
//! have one bucket together.

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

    /// Takes a token of this key. `first` names the first key of its rotation, itself if
    /// there was none; it is asked where the key has not been used for a while.
    ///
    /// # Errors
    ///
    /// There is none: how long until there is one, if nobody else takes it.
    pub(super) fn take(
        &self,
        organization_id: OrganizationId,
        key_id: KeyId,
        limit: RateLimit,
        first: impl FnOnce() -> KeyId,
    ) -> Result<(), Duration> {
        let id = (organization_id, key_id);
        let buckets = self.buckets.pin();
        let bucket = match buckets.get(&id) {
            Some(bucket) => bucket,
            None => {
                let Some(bucket) = self.bucket(limit) else { return Ok(()) };
                let shared = buckets.get_or_insert((organization_id, first()), Arc::new(bucket));
                buckets.get_or_insert(id, Arc::clone(shared))
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

    /// Drops every bucket that is full again: after a day at the latest, so that keys which
    /// are used no more cost far less than their rows do.
    pub(super) fn sweep(&self) {
        let now_ns = self.now_ns();
        self.buckets.pin().retain(|_, bucket| {
            let asked_ns = bucket.asked_ns.load(Ordering::Relaxed);
            let idle = Duration::from_nanos(now_ns.saturating_sub(asked_ns));
            idle <= bucket.fills_in
        });
    }

    /// How many keys have a bucket, a shared one counted for each.
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
        let take = || limits.take(ACME, KEY, limit(10, 60), || KEY);
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
                while limits.take(ACME, KEY, limit, || KEY).is_ok() {
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
    fn what_is_full_again_is_dropped() {
        let (limits, clock) = limits();
        let other = KeyId::from_bytes([2; 16]);
        let take = |id| limits.take(ACME, id, limit(1, 60), || id);
        assert_eq!((take(KEY), take(other)), (Ok(()), Ok(())));
        clock.advance(Duration::from_secs(60));
        limits.sweep();
        assert_eq!(limits.len(), 2, "a bucket that may lack a token is kept");
        assert_eq!(take(other), Ok(()));
        clock.advance(Duration::from_secs(1));
        limits.sweep();
        assert_eq!(limits.len(), 1);
        assert!(take(other).is_err());
        clock.advance(Duration::from_secs(61));
        limits.sweep();
        assert!(limits.is_empty());
    }

    #[test]
    fn keys_of_one_rotation_have_one_bucket_in_whatever_order_they_are_used() {
        let [first, second, third] = [1, 2, 3].map(|number| KeyId::from_bytes([number; 16]));
        for order in [[first, second, third], [third, first, second], [second, third, first]] {
            let (limits, _) = limits();
            for id in order {
                assert_eq!(limits.take(ACME, id, limit(3, 60), || first), Ok(()));
            }
            for id in order {
                assert!(limits.take(ACME, id, limit(3, 60), || first).is_err());
            }
            // Another organization's key has its own.
            let other = OrganizationId::from_bytes([8; 16]);
            assert_eq!(limits.take(other, first, limit(3, 60), || first), Ok(()));
        }
        // The first key has left the tables meanwhile: what is there leads on.
        let (limits, _) = limits();
        assert_eq!(limits.take(ACME, second, limit(1, 60), || first), Ok(()));
        assert!(limits.take(ACME, third, limit(1, 60), || second).is_err());
    }
}

//! How often somebody may try to sign in: by e-mail, and by where they come from.
//!
//! An attempt is counted before anything is compared, so that many at once count, too, and
//! whoever goes away in between. Beyond a number of failures each further attempt must wait,
//! twice as long each time, up to a bound. It knows nothing of accounts: an e-mail that is
//! nobody's is treated like any other. An attempt that is refused changes nothing, so that
//! nobody can be kept out by being tried all the time.
//!
//! Memory is bounded: whoever was not seen while as many others as fit were, is forgotten.
//! To forget one on purpose takes that many attempts, each of which costs a password's hash.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use projections::digest::EmailDigest;
use projections::time::Timestamp;

/// Most e-mails, and most origins, that are remembered in one generation; there are two.
pub const REMEMBERED_MAX: usize = if cfg!(test) { 100 } else { 50_000 };
/// The first wait, in milliseconds.
const FIRST_WAIT_MS: i64 = 1_000;
/// After how long without an attempt failures are forgotten, in milliseconds.
const FORGOTTEN_MS: i64 = 86_400_000;

/// How many may fail, and how long to wait then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleTerms {
    /// Failures of one e-mail before attempts must wait.
    pub attempts: u32,
    /// The same of one origin.
    pub origin_attempts: u32,
    /// Longest wait, in milliseconds.
    pub wait_ms_max: i64,
}

impl Default for ThrottleTerms {
    /// Five of an e-mail, a hundred of an origin; at most a quarter of an hour.
    fn default() -> Self {
        Self { attempts: 5, origin_attempts: 100, wait_ms_max: 900_000 }
    }
}

/// It is too early for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts to sign in; try again after {at}")]
pub struct TooManyAttempts {
    /// The first instant at which one may be made.
    pub at: Timestamp,
}

/// Where somebody comes from: an IPv4 address, or the first 64 bits of an IPv6 address, which
/// is what one line is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// What failed of one e-mail or origin.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    last_ms: i64,
}

impl Failures {
    /// The first instant at which another attempt may be made.
    fn next_ms(self, free: u32, wait_ms_max: i64) -> i64 {
        let Some(beyond) = self.count.checked_sub(free) else { return i64::MIN };
        let doubled = 1_i64.checked_shl(beyond).filter(|it| *it > 0).unwrap_or(i64::MAX);
        let wait_ms = FIRST_WAIT_MS.saturating_mul(doubled).min(wait_ms_max);
        self.last_ms.saturating_add(wait_ms)
    }
}

/// Failures by whose they are, those that were touched lately and those before.
struct Table<K> {
    newer: HashMap<K, Failures>,
    older: HashMap<K, Failures>,
}

impl<K: Copy + Eq + Hash> Table<K> {
    fn new() -> Self {
        Self { newer: HashMap::new(), older: HashMap::new() }
    }

    fn look(&self, key: &K, now_ms: i64) -> Failures {
        let kept = self.newer.get(key).or_else(|| self.older.get(key)).copied();
        let recent = |it: &Failures| it.last_ms.saturating_add(FORGOTTEN_MS) > now_ms;
        kept.filter(recent).unwrap_or_default()
    }

    fn keep(&mut self, key: K, failures: Failures) {
        if self.newer.len() >= REMEMBERED_MAX && !self.newer.contains_key(&key) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.older.remove(&key);
        self.newer.insert(key, failures);
    }

    fn remove(&mut self, key: &K) {
        self.newer.remove(key);
        self.older.remove(key);
    }
}

/// Who failed to sign in, and how often.
pub struct Throttle {
    terms: ThrottleTerms,
    emails: Table<EmailDigest>,
    origins: Table<Origin>,
}

impl Throttle {
    /// On these terms.
    #[must_use]
    pub fn new(terms: ThrottleTerms) -> Self {
        Self { terms, emails: Table::new(), origins: Table::new() }
    }

    /// Counts an attempt as failed, if one may be made now. An origin that is not known is
    /// not counted.
    ///
    /// # Errors
    ///
    /// Too many failed; then nothing has changed.
    pub fn begin(
        &mut self,
        email: EmailDigest,
        origin: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), TooManyAttempts> {
        let ThrottleTerms { attempts, origin_attempts, wait_ms_max } = self.terms;
        let now_ms = now.as_millis();
        let origin = origin.map(Origin::of);
        let of_email = self.emails.look(&email, now_ms);
        let of_origin = origin.map(|origin| self.origins.look(&origin, now_ms));
        let next_ms = of_email
            .next_ms(attempts, wait_ms_max)
            .max(of_origin.map_or(i64::MIN, |it| it.next_ms(origin_attempts, wait_ms_max)));
        if next_ms > now_ms {
            return Err(TooManyAttempts { at: now.saturating_add_millis(next_ms - now_ms) });
        }
        let one_more =
            |it: Failures| Failures { count: it.count.saturating_add(1), last_ms: now_ms };
        self.emails.keep(email, one_more(of_email));
        if let (Some(origin), Some(failures)) = (origin, of_origin) {
            self.origins.keep(origin, one_more(failures));
        }
        Ok(())
    }

    /// An attempt that was begun showed a part of what it takes, or could not be looked at: it
    /// is taken back, and what failed before it stays.
    pub fn taken_back(&mut self, email: EmailDigest, origin: Option<IpAddr>, now: Timestamp) {
        let before = self.emails.look(&email, now.as_millis());
        self.succeeded(email, origin, now);
        if before.count > 1 {
            self.emails.keep(email, Failures { count: before.count - 1, ..before });
        }
    }

    /// An attempt that was begun did not fail after all: the failures of its e-mail are
    /// forgotten, and its origin's are one less.
    pub fn succeeded(&mut self, email: EmailDigest, origin: Option<IpAddr>, now: Timestamp) {
        self.emails.remove(&email);
        if let Some(origin) = origin.map(Origin::of) {
            let failures = self.origins.look(&origin, now.as_millis());
            match failures.count {
                0 | 1 => self.origins.remove(&origin),
                count => self.origins.keep(origin, Failures { count: count - 1, ..failures }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: ThrottleTerms =
        ThrottleTerms { attempts: 3, origin_attempts: 10, wait_ms_max: 10_000 };

    fn at(ms: i64) -> Timestamp {
        Timestamp::default().saturating_add_millis(ms)
    }

    fn email(n: usize) -> EmailDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        EmailDigest(bytes)
    }

    fn from(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// When the next attempt may be made; none for now.
    fn waits(throttle: &mut Throttle, n: usize, origin: Option<IpAddr>, ms: i64) -> Option<i64> {
        throttle.begin(email(n), origin, at(ms)).err().map(|it| it.at.as_millis())
    }

    #[test]
    fn each_failure_beyond_the_free_ones_waits_twice_as_long() {
        let mut throttle = Throttle::new(TERMS);
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 1, None, 0), None);
        }
        let mut now = 0;
        for wait in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            assert_eq!(waits(&mut throttle, 1, None, now), Some(now + wait));
            // Attempts that are refused do not make it longer.
            assert_eq!(waits(&mut throttle, 1, None, now + wait - 1), Some(now + wait));
            now += wait;
            assert_eq!(waits(&mut throttle, 1, None, now), None, "{now}");
        }
        assert_eq!(waits(&mut throttle, 2, None, now), None, "another e-mail");
        assert_eq!(waits(&mut throttle, 1, None, now + FORGOTTEN_MS), None);
        assert_eq!(waits(&mut throttle, 1, None, now + FORGOTTEN_MS), None, "all are forgotten");
    }

    #[test]
    fn what_is_taken_back_forgives_no_other_failure() {
        let mut throttle = Throttle::new(TERMS);
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 1, None, 0), None);
        }
        for _ in 0..20 {
            throttle.taken_back(email(1), None, at(0));
            assert_eq!(waits(&mut throttle, 1, None, 0), None, "as many as were free");
        }
        assert_eq!(waits(&mut throttle, 1, None, 0), Some(1_000), "and no more");
    }

    #[test]
    fn who_signs_in_begins_anew() {
        let mut throttle = Throttle::new(TERMS);
        for round in 0..50 {
            for _ in 0..3 {
                assert_eq!(waits(&mut throttle, 1, None, round), None);
            }
            throttle.succeeded(email(1), None, at(round));
        }
        // A success says nothing about others.
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 1, None, 50), None);
        }
        throttle.succeeded(email(2), None, at(50));
        assert!(waits(&mut throttle, 1, None, 50).is_some());
    }

    /// One origin that tries many e-mails is held back, one behind which many sign in is not.
    #[test]
    fn an_origin_is_held_back_whatever_e_mails_it_tries() {
        let mut throttle = Throttle::new(TERMS);
        let home = from("192.0.2.1");
        for n in 0..500 {
            assert_eq!(waits(&mut throttle, n, home, 0), None);
            throttle.succeeded(email(n), home, at(0));
        }
        for n in 0..10 {
            assert_eq!(waits(&mut throttle, n, home, 0), None);
        }
        assert_eq!(waits(&mut throttle, 20, home, 0), Some(1_000));
        assert_eq!(waits(&mut throttle, 20, from("::ffff:192.0.2.1"), 0), Some(1_000));
        assert_eq!(waits(&mut throttle, 20, from("192.0.2.2"), 0), None);
        // The whole of what one IPv6 line is given is one origin.
        for n in 100..110 {
            let address = from(&format!("2001:db8:1:2:{n}::{n}"));
            assert_eq!(waits(&mut throttle, n, address, 0), None);
        }
        assert!(waits(&mut throttle, 200, from("2001:db8:1:2::7"), 0).is_some());
        assert_eq!(waits(&mut throttle, 200, from("2001:db8:1:3::7"), 0), None);
    }

    #[test]
    fn memory_is_bounded_and_who_goes_on_is_not_forgotten() {
        let mut throttle = Throttle::new(TERMS);
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 0, None, 0), None);
        }
        let mut now = 0;
        for n in 1..REMEMBERED_MAX * 10 {
            now += 200;
            assert_eq!(waits(&mut throttle, n, None, now), None);
            // Tried again whenever that may be: held back ever longer, through all generations.
            let _ = waits(&mut throttle, 0, None, now);
            assert!(throttle.emails.newer.len() <= REMEMBERED_MAX);
            assert!(throttle.emails.older.len() <= REMEMBERED_MAX);
        }
        assert!(waits(&mut throttle, 0, None, now).is_some_and(|next| next > now));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut failures = Failures { count: u32::MAX, last_ms: i64::MAX - 5 };
        assert_eq!(failures.next_ms(0, i64::MAX), i64::MAX);
        failures.last_ms = 0;
        for count in 0..200 {
            let failures = Failures { count, ..failures };
            let next = failures.next_ms(3, 10_000);
            assert!(next == i64::MIN || (1_000..=10_000).contains(&next), "{count}");
        }
    }
}

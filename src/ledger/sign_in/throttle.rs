//! How often somebody may try to sign in: by e-mail and where they come from together, by
//! e-mail alone, and by where they come from alone.
//!
//! An attempt is counted before anything is compared, so that many at once count, too, and
//! whoever goes away in between. Beyond a number of failures each further attempt must wait,
//! twice as long each time, up to a bound. It knows nothing of accounts: an e-mail that is
//! nobody's is treated like any other. An attempt that is refused changes nothing, so that
//! nobody can be kept out by being tried all the time.
//!
//! Nor is anybody kept out by what somebody else does elsewhere: what one place has failed
//! with an e-mail holds back that place. Of it no more than the free failures count for the
//! e-mail wherever it is tried from, as long as that has free ones itself, and those are
//! forgotten a day after the first: one place never uses them up, many places together do, and
//! then all that is tried with the e-mail waits. A success forgives what failed at its own
//! place, and tells no other place that there was one.
//!
//! Memory is bounded: whoever was not seen while as many others as fit were, is forgotten.
//! To forget one on purpose takes that many attempts, each of which costs a password's hash.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use projections::digest::EmailDigest;
use projections::time::Timestamp;

/// Most e-mails, most origins and most pairs of them that are remembered in one generation;
/// there are two.
pub const REMEMBERED_MAX: usize = if cfg!(test) { 100 } else { 50_000 };
/// The first wait, in milliseconds.
const FIRST_WAIT_MS: i64 = 1_000;
/// After how long failures are forgotten, in milliseconds: of an e-mail after the first of
/// them, of all else after the last.
const FORGOTTEN_MS: i64 = 86_400_000;

/// How many may fail, and how long to wait then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleTerms {
    /// Failures with one e-mail from one origin before attempts must wait.
    pub attempts: u32,
    /// Failures with one e-mail, wherever they come from. More than `attempts`, or one origin
    /// holds back all others.
    pub email_attempts: u32,
    /// Failures of one origin, whatever e-mails it tries.
    pub origin_attempts: u32,
    /// Longest wait, in milliseconds.
    pub wait_ms_max: i64,
}

impl ThrottleTerms {
    /// The usual `email_attempts`, for each of `attempts`.
    pub const ORIGINS: u32 = 20;

    /// The same, but wherever attempts come from no more of them are free than from one origin.
    #[must_use]
    pub fn wherever(self) -> Self {
        Self { email_attempts: self.attempts, ..self }
    }
}

impl Default for ThrottleTerms {
    /// Five of an e-mail from one origin, a hundred of an e-mail or of an origin; at most a
    /// quarter of an hour.
    fn default() -> Self {
        Self {
            attempts: 5,
            email_attempts: 5 * Self::ORIGINS,
            origin_attempts: 100,
            wait_ms_max: 900_000,
        }
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

/// What failed of one e-mail, one origin, or both.
#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// How many of these count for the e-mail wherever it is tried from: of a pair alone.
    of_email: u32,
    first_ms: i64,
    last_ms: i64,
}

impl Failures {
    fn one_more(self, now_ms: i64) -> Self {
        let first_ms = if self.count == 0 { now_ms } else { self.first_ms };
        Self { count: self.count.saturating_add(1), first_ms, last_ms: now_ms, ..self }
    }

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
    /// When the time begins after which they are forgotten.
    since: fn(&Failures) -> i64,
    newer: HashMap<K, Failures>,
    older: HashMap<K, Failures>,
}

impl<K: Copy + Eq + Hash> Table<K> {
    fn new(since: fn(&Failures) -> i64) -> Self {
        Self { since, newer: HashMap::new(), older: HashMap::new() }
    }

    fn look(&self, key: &K, now_ms: i64) -> Failures {
        let kept = self.newer.get(key).or_else(|| self.older.get(key)).copied();
        let recent = |it: &Failures| (self.since)(it).saturating_add(FORGOTTEN_MS) > now_ms;
        kept.filter(recent).unwrap_or_default()
    }

    fn keep(&mut self, key: K, failures: Failures) {
        if self.newer.len() >= REMEMBERED_MAX && !self.newer.contains_key(&key) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.older.remove(&key);
        self.newer.insert(key, failures);
    }

    /// So many fewer.
    fn forgive(&mut self, key: K, count: u32, now_ms: i64) {
        if count == 0 {
            return;
        }
        let failures = self.look(&key, now_ms);
        match failures.count.saturating_sub(count) {
            0 => self.remove(&key),
            left => self.keep(key, Failures { count: left, ..failures }),
        }
    }

    fn remove(&mut self, key: &K) {
        self.newer.remove(key);
        self.older.remove(key);
    }
}

/// An e-mail, and where it is tried from; none where that is not known.
type Pair = (EmailDigest, Option<Origin>);

/// An attempt that was counted as failed, for now.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Begun {
    pair: Pair,
    /// It counts for the e-mail, too.
    of_email: bool,
    now_ms: i64,
}

/// Who failed to sign in, and how often.
pub struct Throttle {
    terms: ThrottleTerms,
    pairs: Table<Pair>,
    emails: Table<EmailDigest>,
    origins: Table<Origin>,
}

impl Throttle {
    /// On these terms.
    #[must_use]
    pub fn new(terms: ThrottleTerms) -> Self {
        Self {
            terms,
            pairs: Table::new(|it| it.last_ms),
            emails: Table::new(|it| it.first_ms),
            origins: Table::new(|it| it.last_ms),
        }
    }

    /// Counts an attempt as failed, if one may be made now. All whose origin is not known are
    /// at one place, which is not counted as an origin.
    ///
    /// # Errors
    ///
    /// Too many failed; then nothing has changed.
    pub fn begin(
        &mut self,
        email: EmailDigest,
        origin: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Begun, TooManyAttempts> {
        let ThrottleTerms { attempts, email_attempts, origin_attempts, wait_ms_max } = self.terms;
        let now_ms = now.as_millis();
        let origin = origin.map(Origin::of);
        let pair = (email, origin);
        let of_pair = self.pairs.look(&pair, now_ms);
        let of_email = self.emails.look(&email, now_ms);
        let of_origin = origin.map(|origin| self.origins.look(&origin, now_ms));
        let next_ms = of_pair
            .next_ms(attempts, wait_ms_max)
            .max(of_email.next_ms(email_attempts, wait_ms_max))
            .max(of_origin.map_or(i64::MIN, |it| it.next_ms(origin_attempts, wait_ms_max)));
        if next_ms > now_ms {
            return Err(TooManyAttempts { at: now.saturating_add_millis(next_ms - now_ms) });
        }
        // One origin alone never uses up what is free of the e-mail; beyond that all count.
        let counts = of_pair.count < attempts || of_email.count >= email_attempts;
        let told = of_pair.of_email.saturating_add(counts.into());
        self.pairs.keep(pair, Failures { of_email: told, ..of_pair.one_more(now_ms) });
        if counts {
            self.emails.keep(email, of_email.one_more(now_ms));
        }
        if let (Some(origin), Some(failures)) = (origin, of_origin) {
            self.origins.keep(origin, failures.one_more(now_ms));
        }
        Ok(Begun { pair, of_email: counts, now_ms })
    }

    /// An attempt that was begun showed a part of what it takes, or could not be looked at: it
    /// is taken back, and what failed before it stays.
    pub fn taken_back(&mut self, begun: Begun) {
        let Begun { pair, of_email, now_ms } = begun;
        let before = self.pairs.look(&pair, now_ms);
        let told = u32::from(of_email).min(before.of_email);
        if before.count > 0 {
            self.pairs.keep(pair, Failures { of_email: before.of_email - told, ..before });
        }
        self.pairs.forgive(pair, 1, now_ms);
        self.forgive(pair, told, now_ms);
    }

    /// An attempt that was begun did not fail after all: what failed with its e-mail from its
    /// origin is forgotten, and its origin's failures are one less.
    pub fn succeeded(&mut self, begun: Begun) {
        let Begun { pair, now_ms, .. } = begun;
        let told = self.pairs.look(&pair, now_ms).of_email;
        self.pairs.remove(&pair);
        self.forgive(pair, told, now_ms);
    }

    fn forgive(&mut self, (email, origin): Pair, of_email: u32, now_ms: i64) {
        self.emails.forgive(email, of_email, now_ms);
        if let Some(origin) = origin {
            self.origins.forgive(origin, 1, now_ms);
        }
    }
}

#[cfg(test)]
mod tests;

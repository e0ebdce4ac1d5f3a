//! The time, and whether to believe it.
//!
//! Wall time stamps events and ends lifetimes. It can be set wrong: a wall clock that
//! leaps ahead would end every key that has an expiry, for good, since events' times
//! never decrease. So the wall clock is held against the boot clock, which nobody can
//! set: once the one has outrun the other by more than [`AHEAD_MS_MAX`], [`Clock::check`]
//! refuses, and writes stop until an operator calls [`Clock::confirm`].
//!
//! A wall clock that falls behind stops nothing and takes nothing back: from then on time
//! goes by the boot clock, until the wall clock has caught up or an operator calls
//! [`Clock::confirm`]. Across a restart events' times stay at the latest one.
//!
//! This file and `ledger/secret.rs` are the only ones that touch the outside; everything
//! else takes times, identifiers and secrets as arguments.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use projections::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Most milliseconds by which the wall clock may outrun the boot clock.
pub const AHEAD_MS_MAX: i64 = 60_000;

/// The boot clock: it counts on while the machine sleeps, and nobody can set it.
#[cfg(target_os = "linux")]
const BOOT_CLOCK: ClockId = ClockId::Boottime;
/// The nearest there is elsewhere; it may stand still while the machine sleeps.
#[cfg(not(target_os = "linux"))]
const BOOT_CLOCK: ClockId = ClockId::Monotonic;

/// Milliseconds on the boot clock: nobody can set it, and no other machine has the same.
#[must_use]
pub fn boot_ms() -> i64 {
    Source::System.boot_ms()
}

/// The wall clock has outrun the boot clock: no time may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wall clock has run {ahead_ms} ms ahead of the boot clock, more than {AHEAD_MS_MAX}; set it \
     right, or let an operator confirm it"
)]
pub struct ClockAhead {
    /// How far ahead it is.
    pub ahead_ms: i64,
}

/// The installation's clock. One per process, shared; every call is two reads of the
/// system's clocks at most, and takes no lock.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    /// Wall time minus boot time when they were last known to agree.
    agreed_ms: AtomicI64,
}

#[derive(Debug)]
enum Source {
    System,
    Manual(Arc<ManualTime>),
}

impl Clock {
    /// The system's clocks, taken to be right now.
    #[must_use]
    pub fn system() -> Self {
        Self::agreeing_now(Source::System)
    }

    /// Clocks that a test moves.
    #[must_use]
    pub fn manual(time: Arc<ManualTime>) -> Self {
        Self::agreeing_now(Source::Manual(time))
    }

    fn agreeing_now(source: Source) -> Self {
        let agreed_ms = AtomicI64::new(source.difference_ms());
        Self { source, agreed_ms }
    }

    /// The time, whether or not it is to be believed: for reading, never for writing. It is
    /// the wall clock's, but no earlier than the boot clock says.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        timestamp(self.source.wall_ms().max(self.floor_ms()))
    }

    fn floor_ms(&self) -> i64 {
        self.source.boot_ms().saturating_add(self.agreed_ms.load(Ordering::Relaxed))
    }

    /// The time, as [`Clock::now`] gives it, if it may be written into an event.
    ///
    /// # Errors
    ///
    /// The wall clock has run ahead by more than [`AHEAD_MS_MAX`].
    pub fn check(&self) -> Result<Timestamp, ClockAhead> {
        let (wall_ms, floor_ms) = (self.source.wall_ms(), self.floor_ms());
        let ahead_ms = wall_ms.saturating_sub(floor_ms);
        if ahead_ms > AHEAD_MS_MAX {
            Err(ClockAhead { ahead_ms })
        } else {
            Ok(timestamp(wall_ms.max(floor_ms)))
        }
    }

    /// How far the wall clock has run ahead of the boot clock since the start or the last
    /// confirmation, in milliseconds; negative if it fell behind.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_of_agreed(self.source.difference_ms())
    }

    /// Accepts the wall clock as it is now. Gives how far ahead it was, in milliseconds.
    pub fn confirm(&self) -> i64 {
        let difference_ms = self.source.difference_ms();
        difference_ms.saturating_sub(self.agreed_ms.swap(difference_ms, Ordering::Relaxed))
    }

    fn ahead_of_agreed(&self, difference_ms: i64) -> i64 {
        difference_ms.saturating_sub(self.agreed_ms.load(Ordering::Relaxed))
    }
}

impl Source {
    fn wall_ms(&self) -> i64 {
        match self {
            Self::System => system_wall_ms(),
            Self::Manual(time) => time.wall_ms.load(Ordering::Relaxed),
        }
    }

    fn boot_ms(&self) -> i64 {
        match self {
            Self::System => {
                let boot = clock_gettime(BOOT_CLOCK);
                boot.tv_sec.saturating_mul(1_000).saturating_add(boot.tv_nsec / 1_000_000)
            }
            Self::Manual(time) => time.boot_ms.load(Ordering::Relaxed),
        }
    }

    fn difference_ms(&self) -> i64 {
        self.wall_ms().saturating_sub(self.boot_ms())
    }
}

fn system_wall_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    let now = SystemTime::now();
    let millis =
        |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => millis(before.duration()).saturating_neg(),
    }
}

/// The instant this many milliseconds after 1970, held inside what can be written.
fn timestamp(millis: i64) -> Timestamp {
    Timestamp::default().saturating_add_millis(millis)
}

/// A wall clock and a boot clock that stand still until they are moved.
#[derive(Debug)]
pub struct ManualTime {
    wall_ms: AtomicI64,
    boot_ms: AtomicI64,
}

impl ManualTime {
    /// Clocks that show this wall time.
    #[must_use]
    pub fn at(wall: Timestamp) -> Arc<Self> {
        let wall_ms = AtomicI64::new(wall.as_millis());
        Arc::new(Self { wall_ms, boot_ms: AtomicI64::new(0) })
    }

    /// Lets time pass: both clocks go on.
    pub fn advance_ms(&self, millis: i64) {
        self.wall_ms.fetch_add(millis, Ordering::Relaxed);
        self.boot_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// Sets the wall clock alone.
    pub fn set_wall(&self, wall: Timestamp) {
        self.wall_ms.store(wall.as_millis(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-04-02T10:00:00.000Z";

    /// Given time that passed and a wall clock that leapt, how far ahead it is and whether
    /// it may be written.
    #[track_caller]
    fn check(passed_ms: i64, leapt_ms: i64, may_write: bool) {
        let start: Timestamp = START.parse().unwrap();
        let time = ManualTime::at(start);
        let clock = Clock::manual(Arc::clone(&time));
        time.advance_ms(passed_ms);
        let wall = start.saturating_add_millis(passed_ms).saturating_add_millis(leapt_ms);
        time.set_wall(wall);
        let now = wall.max(start.saturating_add_millis(passed_ms));
        assert_eq!(clock.now(), now, "it goes on, whatever the wall clock is set to");
        assert_eq!(clock.ahead_ms(), leapt_ms);
        let said = if may_write { Ok(now) } else { Err(ClockAhead { ahead_ms: leapt_ms }) };
        assert_eq!(clock.check(), said);
        assert_eq!(clock.confirm(), leapt_ms);
        assert_eq!(clock.ahead_ms(), 0);
        assert_eq!((clock.check(), clock.now()), (Ok(wall), wall), "as the operator wants it");
    }

    #[test]
    fn a_clock_that_leaps_ahead_stops_writes_until_it_is_confirmed() {
        check(0, 0, true);
        check(86_400_000, 0, true);
        check(5, AHEAD_MS_MAX, true);
        check(5, AHEAD_MS_MAX + 1, false);
        check(86_400_000, AHEAD_MS_MAX + 1, false);
        check(5, -3_600_000, true);
    }

    #[test]
    fn the_system_clocks_agree_with_themselves() {
        let clock = Clock::system();
        assert!(clock.check().is_ok());
        assert!(clock.ahead_ms().abs() < AHEAD_MS_MAX);
        assert!(clock.now() > START.parse().unwrap());
    }
}

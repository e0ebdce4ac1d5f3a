//! Answers to verifications, counted by their codes.
//!
//! Every question passes here, so it costs one relaxed addition; only one in
//! [`TIMED_ONE_IN`] is timed, because reading a clock twice would cost more than counting.
//! The counts are the process's: it is one node.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::meter::Histogram;
use crate::proto::DecisionCode;

/// One in how many questions is timed, per thread.
pub const TIMED_ONE_IN: u32 = 16;
/// Codes are smaller than this.
const CODES: usize = 256;

/// The counts of this process.
pub static ANSWERS: Answers = Answers {
    counts: [const { AtomicU64::new(0) }; CODES],
    time_ns: Histogram::new(&[
        250, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000,
        1_000_000, 10_000_000,
    ]),
};

thread_local! {
    static QUESTIONS: Cell<u32> = const { Cell::new(0) };
}

/// How often each code was the answer, and how long it took to find.
#[derive(Debug)]
pub struct Answers {
    counts: [AtomicU64; CODES],
    /// Nanoseconds from a question to its answer, of those that were timed.
    pub time_ns: Histogram,
}

/// A question that is being answered.
pub struct Asked(Option<Instant>);

impl Answers {
    /// A question came.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let number = QUESTIONS.with(|questions| questions.replace(questions.get().wrapping_add(1)));
        Asked(number.is_multiple_of(TIMED_ONE_IN).then(Instant::now))
    }

    /// Its answer was found. Errors are no answers.
    pub fn answered(&self, asked: &Asked, code: i32) {
        if let Some(count) = usize::try_from(code).ok().and_then(|code| self.counts.get(code)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(began) = asked.0 {
            self.time_ns.observe_time(began.elapsed());
        }
    }

    /// Every code with its name, as the protocol has it, and how often it was the answer.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = |code: i32| DecisionCode::try_from(code).ok().map(|it| it.as_str_name());
        (1..).zip(self.counts.iter().skip(1)).filter_map(move |(code, count)| {
            let name = named(code)?;
            let name = name.strip_prefix("DECISION_CODE_").unwrap_or(name);
            Some((name, count.load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_counted_under_its_name() {
        let answers =
            Answers { counts: [const { AtomicU64::new(0) }; CODES], time_ns: Histogram::new(&[1]) };
        let allowed = i32::from(DecisionCode::Allowed);
        for code in [allowed, allowed, DecisionCode::Expired.into(), 0, -1, i32::MAX] {
            answers.answered(&Asked(None), code);
        }
        let counts: Vec<_> = answers.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("ALLOWED", 2), ("EXPIRED", 1)]);
        let last =
            (0..i32::try_from(CODES).unwrap()).rfind(|it| DecisionCode::try_from(*it).is_ok());
        assert!(last >= Some(DecisionCode::PermissionDenied.into()));
    }

    #[test]
    fn one_in_so_many_is_timed() {
        let timed = (0..TIMED_ONE_IN * 3).filter(|_| ANSWERS.asked().0.is_some()).count();
        assert_eq!(timed, 3);
    }
}

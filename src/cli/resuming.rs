//! Streams that broke off go on by themselves, behind the last revision that was told.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::{safe, talk};

/// How long the first pause is, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Pauses between attempts, each about twice as long as the one before.
pub(super) struct Pauses {
    next: Duration,
    attempts: u32,
}

impl Pauses {
    /// None was made yet.
    pub(super) fn new() -> Self {
        Self { next: PAUSE_FIRST, attempts: 0 }
    }

    /// Something was told: the next pause is short again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// How often it was tried since something was told.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Says on stderr why and where it goes on, and waits. False where somebody pressed Ctrl-C.
    pub(super) async fn wait(&mut self, status: &Status, behind: Option<u64>) -> bool {
        // Many that were cut off together do not come back together.
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(PAUSE_MAX);
        self.attempts += 1;
        let place = match behind {
            Some(revision) => format!("behind revision {revision}"),
            None => "from the beginning".to_owned(),
        };
        let said = safe(&said(status));
        talk(&format!("broken off ({said}); going on {place} in {:.1} s\n", pause.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            _ = tokio::signal::ctrl_c() => false,
        }
    }
}

fn said(status: &Status) -> String {
    match reason(status) {
        Some(reason) => reason,
        None if status.message().is_empty() => status.code().description().to_lowercase(),
        None => status.message().to_owned(),
    }
}

fn reason(status: &Status) -> Option<String> {
    status.get_error_details().error_info().map(|it| it.reason.clone())
}

/// Whether a stream that ended like this may be begun again behind what it told: the server
/// went, or was too busy, or the connection broke. What is refused is refused again.
pub(super) fn may_go_on(status: &Status) -> bool {
    let reason = reason(status);
    match (status.code(), reason.as_deref()) {
        (Code::Unavailable, Some("ORGANIZATION_STOPPED")) => false,
        (Code::Unavailable, _)
        | (Code::Aborted, Some("TAIL_TOO_SLOW"))
        | (Code::ResourceExhausted, Some("TOO_MANY_REQUESTS" | "RATE_LIMITED")) => true,
        // What no server of ours said: it comes from the connection.
        (Code::Unknown | Code::Internal | Code::Cancelled, None) => {
            std::error::Error::source(status).is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "keyledger", HashMap::new());
        Status::with_error_details(code, "said", details)
    }

    #[test]
    fn what_is_refused_is_not_asked_again() {
        for (code, reason) in [
            (Code::Unavailable, "CLOSING"),
            (Code::Unavailable, "STARTING"),
            (Code::Aborted, "TAIL_TOO_SLOW"),
            (Code::ResourceExhausted, "TOO_MANY_REQUESTS"),
        ] {
            assert!(may_go_on(&status(code, reason)), "{reason}");
        }
        for (code, reason) in [
            (Code::Unavailable, "ORGANIZATION_STOPPED"),
            (Code::Unauthenticated, "REVOKED"),
            (Code::InvalidArgument, "INVALID_ARGUMENT"),
            (Code::Aborted, "CONTENDED"),
            (Code::Internal, "INTERNAL"),
        ] {
            assert!(!may_go_on(&status(code, reason)), "{reason}");
        }
        let broken = Status::from_error("connection reset".into());
        assert!(may_go_on(&broken), "{broken:?}");
        assert!(!may_go_on(&Status::unknown("a server that is not ours")));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::new();
        for _ in 0..20 {
            pauses.next = (pauses.next * 2).min(PAUSE_MAX);
        }
        assert_eq!(pauses.next, PAUSE_MAX);
        pauses.reset();
        assert_eq!((pauses.next, pauses.attempts()), (PAUSE_FIRST, 0));
    }
}

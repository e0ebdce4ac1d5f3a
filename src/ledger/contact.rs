//! Whether this node may answer at all.
//!
//! Where events are kept by a server that others can reach too, a node must show again and
//! again that it is the one admitted. It may answer for so long after the instant before
//! it last began to show it, by the boot clock; then it refuses, until it has shown it anew.
//!
//! The boot clock counts on while a process is stopped and while its machine sleeps. It does
//! not count the time for which a virtual machine is paused by its host, or which lies
//! between a snapshot of one and its return: nothing inside such a machine can tell.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::clock::boot_ms;

/// Why a node's leave to answer is over for good, while it wanted to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another node was admitted.
    Replaced,
    /// What asks for it has failed.
    Fault,
}

/// A node's leave to answer.
#[derive(Debug)]
pub struct Contact {
    until_ms: AtomicI64,
    lost: AtomicBool,
}

impl Contact {
    /// Leave until this instant of the boot clock.
    #[must_use]
    pub fn until(boot_ms: i64) -> Self {
        Self { until_ms: AtomicI64::new(boot_ms), lost: AtomicBool::new(false) }
    }

    /// Whether the node may answer now.
    #[must_use]
    pub fn holds(&self) -> bool {
        boot_ms() < self.until_ms.load(Ordering::Acquire) && !self.is_lost()
    }

    /// Leave until this instant of the boot clock, unless it reaches further already.
    pub fn extend(&self, until_boot_ms: i64) {
        self.until_ms.fetch_max(until_boot_ms, Ordering::AcqRel);
    }

    /// Takes the leave away for good: another node was admitted.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether it was taken away for good.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_ends_by_itself_and_is_lost_for_good() {
        let contact = Contact::until(boot_ms());
        assert!(!contact.holds(), "it ended");
        contact.extend(boot_ms() + 60_000);
        assert!(contact.holds());
        contact.extend(boot_ms() - 1);
        assert!(contact.holds(), "an older leave shortens nothing");
        contact.lose();
        contact.extend(boot_ms() + 120_000);
        assert!(!contact.holds() && contact.is_lost());
    }
}

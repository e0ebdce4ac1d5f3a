//! The doors: gRPC requests become commands and questions, answers become messages.
//!
//! Each method authenticates its caller by [`authentication`], reads its request by
//! [`read`], and maps errors in [`status`], once. Nothing here decides.

pub mod authentication;
pub mod key;
pub mod operator;
pub mod organization;
pub mod page;
pub mod read;
pub mod status;
pub mod verification;
pub mod wire;
pub mod write;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::ledger::Ledger;

/// What every service shares: the ledger, once it has replayed its history, and the
/// number of requests that are inside.
#[derive(Clone)]
pub struct Door {
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    inside: Arc<AtomicUsize>,
    requests_max: usize,
}

/// A request that was let in. It leaves when this is dropped.
pub struct Entered<'a> {
    ledger: &'a Arc<Ledger>,
    inside: &'a AtomicUsize,
}

impl Entered<'_> {
    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        self.ledger
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Door {
    /// A door that answers UNAVAILABLE until it is opened, and then lets in this many at once.
    #[must_use]
    pub fn closed(requests_max: usize) -> Self {
        Self { ledger: Arc::default(), inside: Arc::default(), requests_max }
    }

    /// Lets requests through to this ledger from here on.
    pub fn open(&self, ledger: Arc<Ledger>) {
        // A second opening changes nothing: there is one ledger.
        let _ = self.ledger.set(ledger);
    }

    /// Lets a request in. UNAVAILABLE while history is replayed, RESOURCE_EXHAUSTED while
    /// the ledger is full of requests: better told at once than kept waiting.
    pub fn enter(&self) -> Result<Entered<'_>, Status> {
        let ledger = self.ledger.get().ok_or_else(status::starting)?;
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        // Leaves again if it is one too many.
        let entered = Entered { ledger, inside: &self.inside };
        if before < self.requests_max { Ok(entered) } else { Err(status::too_many_requests()) }
    }
}

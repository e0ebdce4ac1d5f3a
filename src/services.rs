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

use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::ledger::Ledger;

/// What every service shares: the ledger, once it has replayed its history.
#[derive(Clone, Default)]
pub struct Door {
    ledger: Arc<OnceLock<Arc<Ledger>>>,
}

impl Door {
    /// A door that answers UNAVAILABLE until it is opened.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets requests through to this ledger from here on.
    pub fn open(&self, ledger: Arc<Ledger>) {
        // A second opening changes nothing: there is one ledger.
        let _ = self.ledger.set(ledger);
    }

    /// The ledger; UNAVAILABLE while it replays its history.
    pub fn ledger(&self) -> Result<&Arc<Ledger>, Status> {
        self.ledger.get().ok_or_else(status::starting)
    }
}

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

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use crate::ledger::Ledger;

/// What every service shares: the ledger, once it has replayed its history, and the
/// number of requests that may be inside at once.
#[derive(Clone)]
pub struct Door {
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    places: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

/// One in how many places may be held by a request that only waits for a revision: such
/// waits cost their sender nothing, and must not keep out those who have work.
const PLACES_PER_WAIT: usize = 4;

/// A request that was let in. It leaves when this is dropped.
pub struct Entered<'a> {
    ledger: &'a Arc<Ledger>,
    _place: SemaphorePermit<'a>,
}

impl Entered<'_> {
    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        self.ledger
    }
}

impl Door {
    /// A door that answers UNAVAILABLE until it is opened, and then lets in this many at once.
    #[must_use]
    pub fn closed(requests_max: usize) -> Self {
        let places = requests_max.min(Semaphore::MAX_PERMITS);
        let waits = (places / PLACES_PER_WAIT).max(1);
        Self {
            ledger: Arc::default(),
            places: Arc::new(Semaphore::new(places)),
            waits: Arc::new(Semaphore::new(waits)),
        }
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
        let place = self.places.try_acquire().map_err(|_| status::too_many_requests())?;
        Ok(Entered { ledger, _place: place })
    }

    /// Lets a request that is inside wait for a revision. RESOURCE_EXHAUSTED while as
    /// many wait as may.
    pub fn wait(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.waits.try_acquire().map_err(|_| status::too_many_requests())
    }
}

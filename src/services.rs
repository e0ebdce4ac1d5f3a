//! The doors: gRPC requests become commands and questions, answers become messages.
//!
//! Each method authenticates its caller by [`authentication`], reads its request by
//! [`read`], and maps errors in [`status`], once. Nothing here decides.

pub mod answers;
pub mod audit;
pub mod authentication;
pub mod break_glass;
pub mod client_ip;
pub mod history;
pub mod key;
pub mod operator;
pub mod organization;
pub mod page;
pub mod places;
pub mod read;
mod reading;
pub mod report;
pub mod role;
pub mod session;
pub mod status;
pub mod telling;
#[cfg(test)]
#[path = "services/tests/testing.rs"]
mod testing;
pub mod verification;
pub mod warnings;
pub mod wire;
pub mod write;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::{Extensions, HeaderMap};
use ipnet::IpNet;
use projections::id::OrganizationId;
use tokio::sync::watch;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::contact::Contact;
use crate::spans;
use places::{Place, Places};

/// What every service shares: the ledger, once it has replayed its history, and the
/// number of requests that are inside.
#[derive(Clone)]
pub struct Door {
    ledger: Arc<OnceLock<Arc<Ledger>>>,
    inside: Arc<AtomicUsize>,
    requests_max: usize,
    trusted_proxies: Arc<[IpNet]>,
    waits: Arc<Places>,
    stays: Arc<Places>,
    closing: Arc<watch::Sender<bool>>,
    contact: Arc<OnceLock<Arc<Contact>>>,
}

/// One in how many places may be held by a request that only waits for a revision: such
/// waits cost their sender nothing, and must not keep out those who have work.
const PLACES_PER_WAIT: usize = 4;

/// One in how many places may be held by calls that stay: one that only listens must not
/// keep out those who ask once.
const PLACES_PER_STAY: usize = 2;

/// A call that was let in and stays until this is dropped.
pub struct Stay {
    inside: Arc<AtomicUsize>,
    _place: Place,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// A door that answers UNAVAILABLE until it is opened, and then lets in this many at
    /// once. These proxies' word for where a request comes from is taken.
    #[must_use]
    pub fn closed(requests_max: usize, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            ledger: Arc::default(),
            inside: Arc::default(),
            requests_max,
            trusted_proxies: trusted_proxies.into(),
            waits: Places::new("requests waiting for a revision", requests_max / PLACES_PER_WAIT),
            stays: Places::new("streams open", requests_max / PLACES_PER_STAY),
            closing: Arc::new(watch::Sender::new(false)),
            contact: Arc::default(),
        }
    }

    /// Lets requests through to this ledger from here on.
    pub fn open(&self, ledger: Arc<Ledger>) {
        // A second opening changes nothing: there is one ledger.
        let _ = self.ledger.set(ledger);
    }

    /// Lets nobody in from here on but while this node has leave to answer.
    pub fn guard(&self, contact: Arc<Contact>) {
        // A second guard changes nothing: there is one.
        let _ = self.contact.set(contact);
    }

    /// UNAVAILABLE while this node has no leave to answer.
    pub fn check_contact(&self) -> Result<(), Status> {
        match self.contact.get() {
            Some(contact) if !contact.holds() => Err(status::no_contact()),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets a request in. UNAVAILABLE while history is replayed, RESOURCE_EXHAUSTED while
    /// the ledger is full of requests: better told at once than kept waiting.
    pub fn enter(&self) -> Result<Entered<'_>, Status> {
        let ledger = self.ledger.get().ok_or_else(status::starting)?;
        self.check_contact()?;
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        // Leaves again if it is one too many.
        let entered = Entered { ledger, inside: &self.inside };
        if before < self.requests_max { Ok(entered) } else { Err(status::too_many_requests()) }
    }

    /// How many requests are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// The proxies whose `x-forwarded-for` is believed.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// Looks at whoever knocks, before a byte of their request is read: a key that is not
    /// in force costs nothing but this look. What the key may do is asked inside.
    ///
    /// Which key it was, and from where, is put among the extensions, for whoever looks
    /// again. Behind a trusted proxy the client's own address counts.
    pub fn knock(&self, headers: &HeaderMap, extensions: &mut Extensions) -> Result<(), Status> {
        let ledger = self.ledger.get().ok_or_else(status::starting)?;
        self.check_contact()?;
        if !self.trusted_proxies.is_empty() {
            authentication::note_origin(headers, extensions, &self.trusted_proxies)?;
        }
        let origin = authentication::origin_ip(extensions);
        extensions.insert(authentication::in_force(ledger, headers, origin)?);
        spans::note_known_caller();
        Ok(())
    }

    /// As [`Door::knock`], for whoever shows a credential of break-glass: the call of this
    /// method is recorded before a byte of it is read.
    pub async fn knock_in_emergency(
        &self,
        method: &str,
        headers: &mut HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<break_glass::call::Call, Status> {
        self.knock_unknown(headers, extensions)?;
        let ledger = self.ledger.get().ok_or_else(status::starting)?;
        let entered = self.enter()?;
        let call = break_glass::call::begin(ledger, method, headers, extensions).await?;
        // The method enters by itself.
        drop(entered);
        self.check_contact()?;
        spans::note_known_caller();
        Ok(call)
    }

    /// As [`Door::knock`], for what needs no credential: nobody is looked at.
    pub fn knock_unknown(
        &self,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> Result<(), Status> {
        self.ledger.get().ok_or_else(status::starting)?;
        self.check_contact()?;
        if !self.trusted_proxies.is_empty() {
            authentication::note_origin(headers, extensions, &self.trusted_proxies)?;
        }
        Ok(())
    }

    /// The ledger, once it has replayed its history.
    #[must_use]
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.get()
    }

    /// Makes a call of this organization's that was let in one that stays.
    /// RESOURCE_EXHAUSTED while as many stay as may, of it or of all: [`Places::take`].
    pub fn stay(&self, entered: Entered<'_>, id: OrganizationId) -> Result<Stay, Status> {
        let place = self.stays.take(id)?;
        // Its place passes on: one comes and one leaves.
        self.inside.fetch_add(1, Ordering::Relaxed);
        drop(entered);
        Ok(Stay { inside: Arc::clone(&self.inside), _place: place })
    }

    /// Tells all who stay that it is time to leave.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until it is time to leave.
    pub async fn closing(&self) {
        // The sender lives as long as this door.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Lets a request of this organization's that is inside wait for a revision.
    /// RESOURCE_EXHAUSTED while as many wait as may, of it or of all: [`Places::take`].
    pub fn wait(&self, id: OrganizationId) -> Result<Place, Status> {
        self.waits.take(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_door_lets_nobody_in() {
        let door = Door::closed(1, Vec::new());
        let knocked = door.knock(&HeaderMap::new(), &mut Extensions::new());
        let codes = [door.enter().err(), knocked.err()].map(|it| it.unwrap().code());
        assert_eq!(codes, [tonic::Code::Unavailable; 2]);
    }
}

//! What keeps the events: adapters of [`crate::ledger::event_store::EventStore`].
//!
//! [`embedded`] is the default, on disk, for one process. [`memory`] is for tests and
//! has faults by name. [`conformance`] is the suite that both must pass, and that any
//! further adapter must pass too.

mod catch_up;
#[doc(hidden)]
pub mod conformance;
pub mod embedded;
pub mod memory;
pub mod stats;

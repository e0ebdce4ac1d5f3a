//! What keeps the events: adapters of [`crate::ledger::event_store::EventStore`].
//!
//! [`embedded`] is the default, on disk, for one process. `eventstore` keeps them on an
//! EventStoreDB or KurrentDB server, by an [`engine_url`]. [`memory`] is for tests and has
//! faults by name. [`conformance`] is the suite that all must pass, and that any further
//! adapter must pass too. [`derived`] and
//! [`activity_index`] keep what can be made again from events.

pub mod activity_index;
mod catch_up;
#[doc(hidden)]
pub mod conformance;
pub mod derived;
mod derived_file;
pub mod embedded;
pub mod engine_url;
#[cfg(feature = "eventstore")]
pub mod eventstore;
pub mod memory;
pub mod stats;

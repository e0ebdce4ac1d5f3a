//! What keyledger's events mean.
//!
//! Every type here is a fact ([`event`], in its [`envelope`]) or a fold of facts
//! ([`organization`], [`installation`], [`account`]), or the one question asked of the folds
//! ([`verification`]), or what the events say to people ([`activity`]). Nothing here
//! can wait, fail for an outside reason, or notice the time: the same events in the
//! same order give the same tables on any machine, in any year. That is what lets us
//! rebuild, audit and fuzz them.
//!
//! Invariant: this crate depends on no runtime, socket, file, clock or entropy
//! source. `tests/tidy.rs` in the root package pins the dependency list.
//!
//! Start at [`event::Event`], then read [`organization`] top to bottom.

pub mod account;
pub mod activity;
pub mod api_key;
pub mod break_glass;
pub mod corrupt;
pub mod digest;
pub mod email;
pub mod envelope;
pub mod event;
pub mod id;
pub mod installation;
pub mod key;
pub mod network;
pub mod organization;
pub mod permission;
pub mod policy;
pub mod presented;
pub mod principal;
pub mod recorded;
pub mod role;
#[cfg(test)]
mod sample;
pub mod sealed;
pub mod service_account;
pub mod session;
pub mod snapshot;
pub mod text;
pub mod time;
pub mod usage;
pub mod user;
pub mod verification;

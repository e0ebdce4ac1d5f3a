//! keyledger: an event-sourced credential ledger.
//!
//! Start at [`ledger`], which turns commands into events.

pub mod ledger;
pub mod proto;
pub mod services;
pub mod store;
pub mod vault;

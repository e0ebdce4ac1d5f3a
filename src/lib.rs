//! keyledger: an event-sourced credential ledger.
//!
//! Start at [`ledger`], which turns commands into events.

pub mod cli;
pub mod config;
mod csv;
pub mod delivery;
pub mod ledger;
pub mod meter;
pub mod metrics;
pub mod node;
pub mod proto;
pub mod reserve;
pub mod server;
pub mod services;
mod spans;
pub mod store;
pub mod vault;

//! What keeps keys and secrets: adapters of [`crate::ledger::vault::Vault`].
//!
//! [`mod@file`] is the vault of an installation, [`memory`] the one of tests; both pass
//! `conformance`. [`files`] are the files that everything rests on.

#[cfg(test)]
mod conformance;
pub mod file;
pub mod files;
pub mod memory;
mod wrap;

pub use crate::ledger::vault::{peppers, seal};

//! Intentions become facts here.

pub mod clock;
pub mod event_store;
pub mod secret;
pub mod vault;

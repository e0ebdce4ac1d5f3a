//! Intentions become facts here.

pub mod event_store;

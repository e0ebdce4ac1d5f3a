//! Answers as they are printed: the messages of the protocol, with instants in RFC 3339
//! and enums by their short names. As JSON every field is there, always; what is absent
//! is null.

pub(super) mod activity;
pub(super) mod break_glass;
pub(super) mod common;
pub(super) mod history;
pub(super) mod key;
pub(super) mod key_change;
pub(super) mod operator;
pub(super) mod organization;
pub(super) mod report;
pub(super) mod role;
pub(super) mod service_account;
pub(super) mod session;
pub(super) mod user;
pub(super) mod verification;

//! Tests of the real binary: over real sockets, on real files, killed for real.
//!
//! Nothing here knows the inside of the server: what a caller, an operator or a disk
//! can do is done, and what they can see is looked at. Start at [`support::Server`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken assumption should stop the test, wherever it stands"
)]

#[path = "it/activity.rs"]
mod activity;
#[path = "it/activity_index.rs"]
mod activity_index;
#[path = "it/addresses.rs"]
mod addresses;
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/break_glass.rs"]
mod break_glass;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/denials.rs"]
mod denials;
#[path = "it/disk_full.rs"]
mod disk_full;
#[cfg(feature = "eventstore")]
#[path = "it/engine.rs"]
mod engine;
#[cfg(feature = "eventstore")]
#[path = "it/eventstore.rs"]
mod eventstore;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/gates.rs"]
mod gates;
#[path = "it/global_key.rs"]
mod global_key;
#[path = "it/history.rs"]
mod history;
#[path = "it/imports.rs"]
mod imports;
#[path = "it/invitations.rs"]
mod invitations;
#[path = "it/lifecycle.rs"]
mod lifecycle;
#[path = "it/mail.rs"]
mod mail;
#[path = "it/metrics.rs"]
mod metrics;
#[cfg(feature = "otel")]
#[path = "it/otel.rs"]
mod otel;
#[path = "it/passwords.rs"]
mod passwords;
#[path = "it/pepper.rs"]
mod pepper;
#[path = "it/personal.rs"]
mod personal;
#[path = "it/policy.rs"]
mod policy;
#[path = "it/production.rs"]
mod production;
#[path = "it/rate_limits.rs"]
mod rate_limits;
#[path = "it/readings.rs"]
mod readings;
#[path = "it/reports.rs"]
mod reports;
#[path = "it/roles.rs"]
mod roles;
#[path = "it/rotation.rs"]
mod rotation;
#[path = "it/rpc_matrix.rs"]
mod rpc_matrix;
#[path = "it/secrets.rs"]
mod secrets;
#[path = "it/service.rs"]
mod service;
#[path = "it/service_accounts.rs"]
mod service_accounts;
#[path = "it/sessions.rs"]
mod sessions;
#[path = "it/snapshots.rs"]
mod snapshots;
#[path = "it/support.rs"]
mod support;
#[path = "it/tenants.rs"]
mod tenants;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/usage.rs"]
mod usage;
#[path = "it/users.rs"]
mod users;
#[path = "it/verify_batch.rs"]
mod verify_batch;
#[path = "it/verify_stream.rs"]
mod verify_stream;
#[path = "it/walk.rs"]
mod walk;
#[path = "it/web.rs"]
mod web;

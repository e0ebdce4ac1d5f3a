//! The binary as people and scripts meet it: whole outputs, exit codes, and what a
//! terminal is shown.
//!
//! `cli/golden/*.txt` are transcripts: `UPDATE_EXPECT=1 cargo test --test cli` rewrites
//! them, and the diff is what you review.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

#[path = "cli/activity.rs"]
mod activity;
#[path = "cli/batch.rs"]
mod batch;
#[path = "cli/break_glass.rs"]
mod break_glass;
#[path = "cli/export.rs"]
mod export;
#[path = "cli/failures.rs"]
mod failures;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/history.rs"]
mod history;
#[path = "cli/json.rs"]
mod json;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/lists.rs"]
mod lists;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/normal.rs"]
mod normal;
#[path = "cli/operator.rs"]
mod operator;
#[path = "cli/roles.rs"]
mod roles;
#[path = "cli/sessions.rs"]
mod sessions;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/users.rs"]
mod users;
#[path = "cli/walk.rs"]
mod walk;

//! The installation.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::common::instant;
use crate::ledger::activity::WALK_EVENTS_MAX;
use crate::proto;

/// See `GetStatusResponse` in `operator.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Status {
    version: String,
    installation_id: String,
    now: Option<String>,
    clock_ahead_ms: i64,
    organizations: u64,
    keys_not_revoked: u64,
    stopped: Vec<Damaged>,
    store_full: bool,
    usage_damaged: Vec<Damaged>,
    activity_index_behind: u64,
}

/// An organization with history that is damaged.
#[derive(Serialize)]
struct Damaged {
    organization_id: String,
    fault: String,
}

impl Damaged {
    fn lines(all: &[Self]) -> impl Iterator<Item = String> {
        all.iter().map(|it| format!("{}: {}", it.organization_id, it.fault))
    }
}

impl From<proto::GetStatusResponse> for Status {
    fn from(message: proto::GetStatusResponse) -> Self {
        let stopped = message
            .stopped
            .into_iter()
            .map(|it| Damaged { organization_id: it.organization_id, fault: it.fault });
        let usage_damaged = message
            .usage_damaged
            .into_iter()
            .map(|it| Damaged { organization_id: it.organization_id, fault: it.fault });
        Self {
            version: message.version,
            installation_id: message.installation_id,
            now: instant(message.now),
            clock_ahead_ms: message.clock_ahead_ms,
            organizations: message.organizations,
            keys_not_revoked: message.keys_not_revoked,
            stopped: stopped.collect(),
            store_full: message.store_full,
            usage_damaged: usage_damaged.collect(),
            activity_index_behind: message.activity_index_behind,
        }
    }
}

impl Status {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields
            .add("version", &self.version)
            .add("installation", &self.installation_id)
            .add_some("now", self.now.as_ref())
            .add("clock ahead", &format!("{} ms", self.clock_ahead_ms))
            .add("organizations", &format!("{} (the operator's own included)", self.organizations))
            .add("keys not revoked", &self.keys_not_revoked.to_string())
            .add("disk full", if self.store_full { "yes: make space" } else { "no" })
            .add_all("stopped", Damaged::lines(&self.stopped))
            .add_all("usage damaged", Damaged::lines(&self.usage_damaged));
        // What pages can look at one by one is no delay.
        if self.activity_index_behind > WALK_EVENTS_MAX as u64 {
            fields.add("activity index", &format!("{} events behind", self.activity_index_behind));
        }
        fields.to_text()
    }
}

/// See `ConfirmClockResponse` in `operator.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct ClockConfirmed {
    clock_ahead_ms: i64,
}

impl From<proto::ConfirmClockResponse> for ClockConfirmed {
    fn from(message: proto::ConfirmClockResponse) -> Self {
        Self { clock_ahead_ms: message.clock_ahead_ms }
    }
}

impl ClockConfirmed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("clock was ahead", &format!("{} ms", self.clock_ahead_ms)).to_text()
    }
}

/// Which file holds a new operator's key.
#[derive(Serialize)]
pub(in crate::cli) struct Reissued {
    pub(in crate::cli) api_key_file: String,
}

impl Reissued {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("API key file", &self.api_key_file).to_text()
    }
}

/// A new pepper.
#[derive(Serialize)]
pub(in crate::cli) struct PepperRotated {
    pub(in crate::cli) pepper: u32,
    pub(in crate::cli) file: String,
}

impl PepperRotated {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("pepper", &self.pepper.to_string()).add("file", &self.file).to_text()
    }
}

/// A pepper, and how many keys rest on it.
#[derive(Serialize)]
pub(in crate::cli) struct Pepper {
    pub(in crate::cli) pepper: u32,
    pub(in crate::cli) file: String,
    pub(in crate::cli) current: bool,
    pub(in crate::cli) present: bool,
    pub(in crate::cli) keys: u64,
    pub(in crate::cli) needed_by: u64,
    pub(in crate::cli) removable: bool,
}

/// Every pepper there was.
#[derive(Serialize)]
pub(in crate::cli) struct Peppers {
    pub(in crate::cli) peppers: Vec<Pepper>,
    pub(in crate::cli) organizations_stopped: u64,
}

impl Peppers {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let row = |it: &Pepper| {
            let state = match (it.current, it.present) {
                (true, _) => "current",
                (false, true) if it.removable => "retired, may be removed",
                (false, true) => "retired",
                (false, false) => "removed",
            };
            [
                it.pepper.to_string(),
                state.to_owned(),
                it.keys.to_string(),
                it.needed_by.to_string(),
                it.file.clone(),
            ]
        };
        table(["PEPPER", "STATE", "KEYS", "NEEDED BY", "FILE"], self.peppers.iter().map(row))
    }
}

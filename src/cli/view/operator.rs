//! The installation.

use serde::Serialize;

use super::super::output::Fields;
use super::common::instant;
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
    stopped: Vec<Stopped>,
}

#[derive(Serialize)]
struct Stopped {
    organization_id: String,
    fault: String,
}

impl From<proto::GetStatusResponse> for Status {
    fn from(message: proto::GetStatusResponse) -> Self {
        let stopped = message
            .stopped
            .into_iter()
            .map(|it| Stopped { organization_id: it.organization_id, fault: it.fault });
        Self {
            version: message.version,
            installation_id: message.installation_id,
            now: instant(message.now),
            clock_ahead_ms: message.clock_ahead_ms,
            organizations: message.organizations,
            keys_not_revoked: message.keys_not_revoked,
            stopped: stopped.collect(),
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
            .add("organizations", &self.organizations.to_string())
            .add("keys not revoked", &self.keys_not_revoked.to_string())
            .add_all(
                "stopped",
                self.stopped.iter().map(|it| format!("{}: {}", it.organization_id, it.fault)),
            );
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

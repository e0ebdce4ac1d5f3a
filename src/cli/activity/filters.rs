//! What narrows the activity log, on the command line.

use clap::{Args, ValueEnum};

use super::super::failure::Failure;
use super::super::flags::{moment, not_empty, token};
use crate::ledger::clock::Clock;
use crate::proto;

/// Which entries are meant. All filters that are given must hold.
#[derive(Args)]
pub(in crate::cli) struct Filters {
    /// Only what was done by this one: the identifier of an organization, a user, a service
    /// account, a break-glass grant, an account; or `operator`, `ledger`
    #[arg(long, value_name = "WHO", value_parser = not_empty)]
    actor: Option<String>,

    /// Only what was done with this credential: a key, a session or a break-glass grant
    #[arg(long, value_name = "ID", value_parser = not_empty)]
    key: Option<String>,

    /// Only this action, such as `key.revoked`, or all of one kind, such as `key.*`
    #[arg(long, value_name = "ACTION", value_parser = not_empty)]
    action: Option<String>,

    /// Only what was done to this one: the identifier of a key, a role, a service account, an
    /// organization; or `policy`, `credentials`, `history`
    #[arg(long = "target", value_name = "ID", value_parser = token)]
    target_id: Option<String>,

    /// Only what was done under this correlation identifier
    #[arg(long, value_name = "ID", value_parser = token)]
    correlation: Option<String>,

    /// Only what became of it
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,

    /// Only what came from this address or network, such as `192.0.2.0/24`, as far as you are
    /// shown where from
    #[arg(long, value_name = "NETWORK", value_parser = not_empty)]
    origin: Option<String>,

    /// Only what holds all these words: in names, reasons, actions and what changed
    #[arg(long, value_name = "WORDS", value_parser = not_empty)]
    text: Option<String>,

    /// Leave out who read the history
    #[arg(long)]
    without_readings: bool,

    /// Only what was recorded at this time or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Only what was recorded before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

/// What became of what was tried.
#[derive(Clone, Copy, ValueEnum)]
enum Outcome {
    /// It was done
    Succeeded,
    /// It was refused
    Denied,
}

fn time(flag: &str, text: Option<&str>) -> Result<Option<prost_types::Timestamp>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let at = moment(text, Clock::system().now());
    at.map(Some).map_err(|problem| Failure::fault(format!("`{flag}`: `{text}` {problem}")))
}

impl Filters {
    /// As the server reads them. Fails where a time cannot be read.
    pub(in crate::cli) fn into_message(self) -> Result<proto::ActivityFilter, Failure> {
        let outcome = match self.outcome {
            None => proto::ActivityOutcome::Unspecified,
            Some(Outcome::Succeeded) => proto::ActivityOutcome::Succeeded,
            Some(Outcome::Denied) => proto::ActivityOutcome::Denied,
        };
        Ok(proto::ActivityFilter {
            actor: self.actor.unwrap_or_default(),
            without_readings: self.without_readings,
            credential_id: self.key.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            target_id: self.target_id.unwrap_or_default(),
            correlation_id: self.correlation.unwrap_or_default(),
            from: time("--from", self.from.as_deref())?,
            to: time("--to", self.to.as_deref())?,
            outcome: outcome.into(),
            origin_ip: self.origin.unwrap_or_default(),
            text: self.text.unwrap_or_default(),
        })
    }
}

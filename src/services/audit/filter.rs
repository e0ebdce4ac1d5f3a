//! Which entries a caller asks for, as QueryActivity, TailActivity and ExportActivity read it.

use std::net::IpAddr;

use projections::activity::{self, Outcome, search_words};
use projections::event::WayOfReading;
use projections::id::{KeyId, OrganizationId};
use projections::network::Networks;
use projections::principal::Principal;
use projections::text::PlanName;
use projections::time::Timestamp;
use tonic::Status;

use crate::proto;
use crate::services::reading::Reading;
use crate::services::{read, status};

/// A filter, read.
#[derive(Default)]
pub(super) struct Filter {
    /// What is asked of the event.
    pub(super) event: activity::Filter,
    /// Where the request must have come from. It is sealed: whoever opens it asks
    /// [`Filter::shows_origin`].
    origin: Option<Networks>,
    /// Recorded then or later.
    pub(super) from: Option<Timestamp>,
    /// Recorded before.
    pub(super) to: Option<Timestamp>,
}

impl Filter {
    /// Reads a filter; an absent one shows everything. Errors name the field inside `filter`.
    pub(super) fn read(
        message: Option<&proto::ActivityFilter>,
        organization: OrganizationId,
    ) -> Result<Self, Status> {
        let Some(message) = message else { return Ok(Self::default()) };
        Self::of(message, organization).map_err(|status| status::in_field("filter", status))
    }

    fn of(message: &proto::ActivityFilter, organization: OrganizationId) -> Result<Self, Status> {
        let event = activity::Filter {
            actor: actor(&message.actor)?,
            credential: read::optional("credential_id", &message.credential_id)?,
            action: read::optional("action", &message.action)?,
            target: target(&message.target_id, organization)?,
            correlation_id: read::optional("correlation_id", &message.correlation_id)?,
            outcome: outcome(message.outcome)?,
            text: text(&message.text)?,
            without_readings: message.without_readings,
        };
        let from = bound("from", message.from.as_ref())?;
        let to = bound("to", message.to.as_ref())?;
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(status::invalid("to", "must be later than `from`"));
        }
        Ok(Self { event, origin: origin(&message.origin_ip)?, from, to })
    }

    /// Whether anything is asked of an event itself, beside when it was recorded.
    pub(super) fn asks_of_events(&self) -> bool {
        self.event != activity::Filter::default() || self.origin.is_some()
    }

    /// What is recorded of whoever asks this. Words, addresses and correlation identifiers may
    /// be somebody's.
    pub(super) fn reading(&self, way: WayOfReading) -> Reading {
        let fields = [
            "actor",
            "credential_id",
            "action",
            "target_id",
            "correlation_id",
            "outcome",
            "text",
            "origin_ip",
            "from",
            "to",
            "without_readings",
        ];
        let mut reading = Reading::new(way);
        for (field, value) in fields.into_iter().zip(self.parameters()) {
            reading = match field {
                // Free text of whoever asks.
                "text" | "origin_ip" | "correlation_id" => reading.writing(field, &value),
                field => reading.asking(field, value),
            };
        }
        reading
    }

    /// Whether it is asked where the request came from.
    pub(super) fn asks_origin(&self) -> bool {
        self.origin.is_some()
    }

    /// All that is asked, for what must belong to this filter alone: the same text for the
    /// same filter.
    pub(super) fn parameters(&self) -> Vec<String> {
        fn text(it: Option<impl ToString>) -> String {
            it.map(|it| it.to_string()).unwrap_or_default()
        }
        let Self { event, origin, from, to } = self;
        let activity::Filter {
            actor,
            credential,
            action,
            target,
            correlation_id,
            outcome,
            text: words,
            without_readings,
        } = event;
        let outcome = match outcome {
            None => "",
            Some(Outcome::Succeeded) => "succeeded",
            Some(Outcome::Denied) => "denied",
        };
        let origin = origin.iter().flat_map(Networks::texts).collect();
        vec![
            text(*actor),
            text(*credential),
            text(action.as_ref()),
            text(target.as_ref()),
            text(correlation_id.as_ref()),
            outcome.to_owned(),
            words.join(" "),
            origin,
            text(*from),
            text(*to),
            text(without_readings.then_some("true")),
        ]
    }

    /// Whether an entry is shown whose personal data the reader sees like this. What is
    /// withheld or cannot be opened never matches: that it exists is not told either.
    pub(super) fn shows_origin(&self, seen: Option<&proto::ActivityPersonalData>) -> bool {
        let Some(networks) = &self.origin else { return true };
        let address = seen.and_then(|seen| seen.origin_ip.parse::<IpAddr>().ok());
        address.is_some_and(|address| networks.contain(address))
    }
}

fn actor(text: &str) -> Result<Option<Principal>, Status> {
    let wrong = |_| {
        let problem =
            "names nobody who acts: must be `operator`, `ledger` or an identifier such as `org_…`";
        status::invalid("actor", problem)
    };
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(wrong) }
}

fn outcome(value: i32) -> Result<Option<Outcome>, Status> {
    match proto::ActivityOutcome::try_from(value) {
        Ok(proto::ActivityOutcome::Unspecified) => Ok(None),
        Ok(proto::ActivityOutcome::Succeeded) => Ok(Some(Outcome::Succeeded)),
        Ok(proto::ActivityOutcome::Denied) => Ok(Some(Outcome::Denied)),
        Err(_) => Err(status::invalid("outcome", "is no known outcome")),
    }
}

fn text(text: &str) -> Result<Vec<String>, Status> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    search_words(text).map_err(|error| status::invalid("text", error))
}

fn origin(text: &str) -> Result<Option<Networks>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let networks = Networks::new(&[text]);
    networks.map(Some).map_err(|(_, error)| status::invalid("origin_ip", error))
}

/// Reads what events must be about. What no event could be about is refused: a misspelt filter
/// shows an empty log. Plans, which go by their names, are the operator's.
fn target(text: &str, organization: OrganizationId) -> Result<Option<String>, Status> {
    let is_id = |text: &str| {
        text.split_once('_').is_some_and(|(kind, id)| {
            let kind = kind.len() == 3 && kind.bytes().all(|it| it.is_ascii_lowercase());
            kind && format!("{}{id}", KeyId::PREFIX).parse::<KeyId>().is_ok()
        })
    };
    match text {
        "" => Ok(None),
        "policy" | "credentials" | "operator" | "history" => Ok(Some(text.to_owned())),
        id if is_id(id) => Ok(Some(id.to_owned())),
        plan if organization.is_operator() && plan.parse::<PlanName>().is_ok() => {
            Ok(Some(plan.to_owned()))
        }
        _ => Err(status::invalid(
            "target_id",
            "must be an identifier such as `key_01M3250V000000000000000001`, or `policy`, `credentials` or `history`",
        )),
    }
}

/// Reads a bound of time. Events are recorded in whole milliseconds, so a part of one
/// counts as the next: what is before the bound stays before it.
fn bound(field: &str, at: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let Some(at) = at else { return Ok(None) };
    let nanos = i64::from(at.nanos);
    let millis = at
        .seconds
        .checked_mul(1_000)
        .filter(|_| (0..1_000_000_000).contains(&nanos))
        .and_then(|millis| millis.checked_add((nanos + 999_999) / 1_000_000));
    match millis.and_then(Timestamp::from_millis) {
        Some(at) => Ok(Some(at)),
        None => Err(status::invalid(field, "must be an instant between the years 1 and 9999")),
    }
}

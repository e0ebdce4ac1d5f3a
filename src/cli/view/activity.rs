//! What happened.

use serde::Serialize;

use super::super::output::table_within_terminal;
use super::common::{Principal, instant, short};
use crate::proto;

/// See `ActivityEntry` in `audit.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Entry {
    event_id: String,
    revision: u64,
    at: Option<String>,
    action: String,
    actor: Option<Principal>,
    credential_id: String,
    target: Option<Target>,
    outcome: String,
    reason: String,
    changes: Vec<FieldChange>,
    correlation_id: String,
    causation_id: String,
    sentence: String,
    personal_data: Option<PersonalData>,
}

#[derive(Serialize)]
struct Target {
    kind: String,
    id: String,
    name: String,
}

#[derive(Serialize)]
struct FieldChange {
    field: String,
    before: Option<FieldValue>,
    after: Option<FieldValue>,
}

/// A value is written as what it is.
#[derive(Serialize)]
#[serde(untagged)]
enum FieldValue {
    Text(String),
    Number(i64),
    Texts(Vec<String>),
    Instant(Option<String>),
}

#[derive(Serialize)]
struct PersonalData {
    comment: String,
    origin_ip: String,
    user_agent: String,
    state: String,
}

impl From<proto::ActivityEntry> for Entry {
    fn from(message: proto::ActivityEntry) -> Self {
        let outcome =
            short(message.outcome, "ACTIVITY_OUTCOME_", proto::ActivityOutcome::as_str_name);
        Self {
            event_id: message.event_id,
            revision: message.revision,
            at: instant(message.at),
            action: message.action,
            actor: message.actor.map(Into::into),
            credential_id: message.credential_id,
            target: message.target.map(|it| Target { kind: it.kind, id: it.id, name: it.name }),
            outcome,
            reason: message.reason,
            changes: message.changes.into_iter().map(Into::into).collect(),
            correlation_id: message.correlation_id,
            causation_id: message.causation_id,
            sentence: message.sentence,
            personal_data: message.personal_data.map(Into::into),
        }
    }
}

impl From<proto::FieldChange> for FieldChange {
    fn from(message: proto::FieldChange) -> Self {
        let value = |it: proto::FieldValue| it.kind.map(FieldValue::from);
        Self {
            field: message.field,
            before: message.before.and_then(value),
            after: message.after.and_then(value),
        }
    }
}

impl From<proto::field_value::Kind> for FieldValue {
    fn from(kind: proto::field_value::Kind) -> Self {
        use proto::field_value::Kind;
        match kind {
            Kind::Text(text) => Self::Text(text),
            Kind::Number(number) => Self::Number(number),
            Kind::Texts(list) => Self::Texts(list.texts),
            Kind::Instant(at) => Self::Instant(instant(Some(at))),
        }
    }
}

impl From<proto::ActivityPersonalData> for PersonalData {
    fn from(message: proto::ActivityPersonalData) -> Self {
        let state =
            short(message.state, "PERSONAL_DATA_STATE_", proto::PersonalDataState::as_str_name);
        Self {
            comment: message.comment,
            origin_ip: message.origin_ip,
            user_agent: message.user_agent,
            state,
        }
    }
}

impl Entry {
    fn row(&self) -> [String; 3] {
        [
            self.at.clone().unwrap_or_default(),
            self.actor.as_ref().map(|it| it.kind().to_owned()).unwrap_or_default(),
            self.sentence.clone(),
        ]
    }
}

/// For people: the sentence names who acted in full.
pub(in crate::cli) fn to_text(entries: &[Entry]) -> String {
    table_within_terminal(["TIME", "ACTOR", "WHAT HAPPENED"], entries.iter().map(Entry::row))
}

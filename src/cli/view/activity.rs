//! What happened.

use serde::Serialize;

use super::super::output::{safe, table_within_terminal};
use super::common::{Principal, instant, short, span};
use crate::proto;

/// Lines of an entry that say what changed; more are counted.
const CHANGES_SHOWN_MAX: usize = 8;
/// Texts of a list that are shown; more are counted.
const TEXTS_SHOWN_MAX: usize = 5;
/// Characters of a value that are shown.
const TEXT_CHARS_MAX: usize = 200;

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
    /// What changed, field by field, for people.
    pub(in crate::cli) fn change_lines(&self) -> Vec<String> {
        let mut changes: Vec<String> = self.changes.iter().flat_map(FieldChange::lines).collect();
        let more = changes.len().saturating_sub(CHANGES_SHOWN_MAX);
        changes.truncate(CHANGES_SHOWN_MAX);
        if more > 0 {
            changes.push(format!("+{more} more; `--json` shows all"));
        }
        changes
    }

    /// For people who watch: when, and the lines of it.
    pub(in crate::cli) fn to_lines(&self) -> String {
        let [at, _, told] = self.row();
        let mut lines = format!("{}  ", safe(&at.concat()));
        for (place, line) in told.iter().enumerate() {
            if place > 0 {
                lines.push_str("    ");
            }
            lines.push_str(&safe(line));
            lines.push('\n');
        }
        lines
    }

    fn row(&self) -> [Vec<String>; 3] {
        let mut lines = vec![self.sentence.clone()];
        if let Some(data) = &self.personal_data {
            let erased = data.state == "erased" && data.comment.is_empty();
            let comment = if erased { "(erased)" } else { &data.comment };
            if !comment.is_empty() {
                lines.push(format!("comment: {comment}"));
            }
            if !data.origin_ip.is_empty() {
                lines.push(format!("from {}", data.origin_ip));
            }
        }
        lines.append(&mut self.change_lines());
        [
            vec![self.at.clone().unwrap_or_default()],
            vec![self.actor.as_ref().map(|it| it.kind().to_owned()).unwrap_or_default()],
            lines,
        ]
    }
}

impl FieldChange {
    /// What it was, and what it is; nothing where the sentence says so already.
    fn lines(&self) -> Vec<String> {
        let Self { field, before, after } = self;
        let told = match field.as_str() {
            "state" | "first_at" | "last_at" => true,
            "name" | "origin" => before.is_none(),
            _ => false,
        };
        let (field, seconds) = match field.strip_suffix("_seconds") {
            Some(field) => (field, true),
            None => (field.as_str(), false),
        };
        let text = |value: &FieldValue| {
            if let (FieldValue::Number(number), true) = (value, seconds) {
                return span(*number);
            }
            value.to_text()
        };
        match (before, after) {
            _ if told => Vec::new(),
            (None, Some(FieldValue::Texts(denials))) if field == "denials" => denials.clone(),
            (None, Some(FieldValue::Number(others))) if field == "others" => {
                vec![format!("{others} × others")]
            }
            (Some(before), Some(after)) => {
                vec![format!("{field}: {} → {}", text(before), text(after))]
            }
            (Some(before), None) => vec![format!("{field}: {} → none", text(before))],
            (None, Some(after)) => vec![format!("{field}: {}", text(after))],
            (None, None) => Vec::new(),
        }
    }
}

impl FieldValue {
    fn to_text(&self) -> String {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Texts(texts) => {
                let shown: Vec<&str> =
                    texts.iter().take(TEXTS_SHOWN_MAX).map(String::as_str).collect();
                match texts.len().saturating_sub(TEXTS_SHOWN_MAX) {
                    0 => shown.join(", "),
                    more => format!("{}, +{more}", shown.join(", ")),
                }
            }
            Self::Instant(at) => at.clone().unwrap_or_default(),
        };
        match text.char_indices().nth(TEXT_CHARS_MAX) {
            Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// For people: the sentence names who acted in full.
pub(in crate::cli) fn to_text(entries: &[Entry]) -> String {
    table_within_terminal(["TIME", "ACTOR", "WHAT HAPPENED"], entries.iter().map(Entry::row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(field: &str, before: Option<FieldValue>, after: Option<FieldValue>) -> Vec<String> {
        FieldChange { field: field.to_owned(), before, after }.lines()
    }

    #[test]
    fn what_changed_is_said_in_few_words() {
        let text = |it: &str| Some(FieldValue::Text(it.to_owned()));
        assert_eq!(lines("name", text("a"), text("b")), ["name: a → b"]);
        assert_eq!(lines("description", text("a"), None), ["description: a → none"]);
        let day = || Some(FieldValue::Number(86_400));
        assert_eq!(lines("key_lifetime_max_seconds", None, day()), ["key_lifetime_max: 1d"]);
        assert!(lines("state", text("active"), text("revoked")).is_empty());
        let many = (0..7).map(|it| format!("a:b{it}")).collect();
        let shown = lines("scopes", None, Some(FieldValue::Texts(many)));
        assert_eq!(shown, ["scopes: a:b0, a:b1, a:b2, a:b3, a:b4, +2"]);
        assert_eq!(lines("x", None, text(&"ü".repeat(300)))[0].chars().count(), 204);
    }

    #[test]
    fn what_was_denied_is_said_kind_by_kind() {
        let denials = vec!["5 × revoked, key_1".to_owned(), "3 × unknown".to_owned()];
        let shown = lines("denials", None, Some(FieldValue::Texts(denials.clone())));
        assert_eq!(shown, denials);
        assert_eq!(lines("others", None, Some(FieldValue::Number(2))), ["2 × others"]);
    }
}

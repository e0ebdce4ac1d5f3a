//! Entries as a table.

use projections::envelope::Envelope;

use crate::csv::Row;
use crate::proto;

/// The names of the columns, in order.
pub(super) const COLUMNS: [&str; 19] = [
    "at",
    "revision",
    "event_id",
    "action",
    "outcome",
    "actor_kind",
    "actor_id",
    "credential_id",
    "target_kind",
    "target_id",
    "target_name",
    "reason",
    "correlation_id",
    "causation_id",
    "sentence",
    "changes",
    "comment",
    "origin_ip",
    "user_agent",
];
/// The last column.
const PERSONAL_DATA: &str = "personal_data_state";

/// Writes the header.
pub(super) fn header(out: &mut Vec<u8>) {
    let mut row = Row::begin(out);
    for name in COLUMNS {
        row.cell(name);
    }
    row.cell(PERSONAL_DATA);
    row.end();
}

/// Writes one entry.
pub(super) fn row(out: &mut Vec<u8>, entry: &proto::ActivityEntry, envelope: &Envelope) {
    let mut row = Row::begin(out);
    row.cell(&envelope.at.to_string());
    row.cell(&entry.revision.to_string());
    row.cell(&entry.event_id);
    row.cell(&entry.action);
    row.cell(word(entry.outcome().as_str_name(), "ACTIVITY_OUTCOME_").as_str());
    let kind = entry.actor.as_ref().map(|it| it.kind().as_str_name()).unwrap_or_default();
    row.cell(word(kind, "PRINCIPAL_KIND_").as_str());
    row.cell(&envelope.actor.to_string());
    row.cell(&entry.credential_id);
    let target = entry.target.as_ref();
    row.cell(target.map(|it| it.kind.as_str()).unwrap_or_default());
    row.cell(target.map(|it| it.id.as_str()).unwrap_or_default());
    row.cell(target.map(|it| it.name.as_str()).unwrap_or_default());
    row.cell(&entry.reason);
    row.cell(&entry.correlation_id);
    row.cell(&entry.causation_id);
    row.cell(&entry.sentence);
    row.cell(&changes(&entry.changes));
    let personal = entry.personal_data.as_ref();
    row.cell(personal.map(|it| it.comment.as_str()).unwrap_or_default());
    row.cell(personal.map(|it| it.origin_ip.as_str()).unwrap_or_default());
    row.cell(personal.map(|it| it.user_agent.as_str()).unwrap_or_default());
    let state = personal.map(|it| it.state().as_str_name()).unwrap_or_default();
    row.cell(word(state, "PERSONAL_DATA_STATE_").as_str());
    row.end();
}

/// `ACTIVITY_OUTCOME_DENIED` as `denied`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// `state: active → revoked; name: → x`
fn changes(changes: &[proto::FieldChange]) -> String {
    let mut text = String::new();
    for change in changes {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&change.field);
        text.push(':');
        if let Some(before) = &change.before {
            text.push(' ');
            text.push_str(&value(before));
        }
        text.push_str(" →");
        if let Some(after) = &change.after {
            text.push(' ');
            text.push_str(&value(after));
        }
    }
    text
}

fn value(value: &proto::FieldValue) -> String {
    use proto::field_value::Kind;
    match &value.kind {
        None => String::new(),
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Number(number)) => number.to_string(),
        Some(Kind::Texts(list)) => list.texts.join(", "),
        Some(Kind::Instant(at)) => super::instant(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_one_line_each_after_the_other() {
        use proto::field_value::Kind;
        let value = |it: &str| Some(proto::FieldValue { kind: Some(Kind::Text(it.to_owned())) });
        let change = |field: &str, before, after| proto::FieldChange {
            field: field.to_owned(),
            before,
            after,
        };
        let all = [
            change("state", value("active"), value("revoked")),
            change("name", None, value("x")),
            change("old", value("y"), None),
        ];
        assert_eq!(changes(&all), "state: active → revoked; name: → x; old: y →");
    }
}

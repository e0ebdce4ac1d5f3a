//! An event of a bundle: what is sealed in it opens, and it reads as it does from a server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::activity::{Entry, FieldChange, Outcome, Value};
use projections::envelope::Envelope;
use projections::id::OrganizationId;
use projections::recorded::Revision;
use zeroize::Zeroizing;

use super::super::bundle::KeyLine;
use crate::ledger::command::Personal;
use crate::ledger::vault::seal::EventKey;
use crate::proto;
use crate::services::write;

/// What was sealed in an event.
#[derive(Default)]
pub(super) struct Opened {
    /// Pieces that were opened.
    pub(super) opened: u64,
    /// Pieces whose keys are not there.
    pub(super) without_key: u64,
    /// What they say; none where nothing was sealed.
    pub(super) personal_data: Option<proto::ActivityPersonalData>,
}

/// Opens what is sealed in an event, or says what is wrong.
pub(super) fn open(
    envelope: &Envelope,
    keys: &[KeyLine],
    organization_id: OrganizationId,
) -> Result<Opened, String> {
    let mut opened = Opened::default();
    for key in keys {
        if !envelope.sealed.iter().any(|it| it.subject.as_str() == key.subject) {
            return Err("holds a key of nothing that is sealed in its event".to_owned());
        }
    }
    for sealed in &envelope.sealed {
        if sealed.subject.organization().is_some_and(|it| it != organization_id) {
            return Err("holds an event of another organization".to_owned());
        }
        let data = opened.personal_data.get_or_insert_default();
        let Some(key) = keys.iter().find(|it| it.subject == sealed.subject.as_str()) else {
            opened.without_key += 1;
            data.state = proto::PersonalDataState::Erased.into();
            continue;
        };
        let personal = event_key(key).and_then(|key| key.open(envelope.id, sealed).ok());
        let Some(mut personal) = personal else {
            return Err("holds a key that does not open what is sealed in its event".to_owned());
        };
        let mut take = |name: &str| personal.remove(name).unwrap_or_default();
        data.comment.push_str(&take(Personal::COMMENT));
        data.origin_ip.push_str(&take(Personal::ORIGIN_IP));
        data.user_agent.push_str(&take(Personal::USER_AGENT));
        opened.opened += 1;
    }
    Ok(opened)
}

fn event_key(line: &KeyLine) -> Option<EventKey> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(&line.key).ok()?);
    let bytes: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(EventKey::from_bytes(Zeroizing::new(bytes)))
}

/// The entry of an event, but for names that only a server knows.
pub(super) fn entry(
    revision: Revision,
    envelope: &Envelope,
    organization_id: OrganizationId,
    personal_data: Option<proto::ActivityPersonalData>,
) -> proto::ActivityEntry {
    let entry = Entry::of(revision, envelope, |_| None);
    let outcome = match entry.outcome {
        Outcome::Succeeded => proto::ActivityOutcome::Succeeded,
        Outcome::Denied => proto::ActivityOutcome::Denied,
    };
    proto::ActivityEntry {
        event_id: entry.event_id.text(),
        revision: revision.0,
        at: Some(write::timestamp(entry.at)),
        action: entry.action.to_owned(),
        actor: Some(write::principal(entry.actor, organization_id)),
        credential_id: entry.credential.map(|id| id.to_string()).unwrap_or_default(),
        target: None,
        outcome: outcome.into(),
        reason: entry.reason.unwrap_or_default().to_owned(),
        changes: entry.changes.into_iter().map(change).collect(),
        correlation_id: entry.correlation_id.to_string(),
        causation_id: entry.causation_id.map(|id| id.text()).unwrap_or_default(),
        sentence: entry.sentence,
        personal_data,
    }
}

fn change(change: FieldChange<'_>) -> proto::FieldChange {
    proto::FieldChange {
        field: change.field.into_owned(),
        before: change.before.map(value),
        after: change.after.map(value),
    }
}

fn value(value: Value<'_>) -> proto::FieldValue {
    use proto::field_value::Kind;
    let kind = match value {
        Value::Text(text) => Kind::Text(text.into_owned()),
        Value::Number(number) => Kind::Number(number),
        Value::Texts(texts) => {
            let texts = texts.into_iter().map(|text| text.into_owned()).collect();
            Kind::Texts(proto::TextList { texts })
        }
        Value::Instant(at) => Kind::Instant(write::timestamp(at)),
    };
    proto::FieldValue { kind: Some(kind) }
}

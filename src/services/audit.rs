//! AuditService: what happened.
//!
//! A page is a walk over the organization's own stream: nothing is kept beside it, so
//! nothing can disagree with it. A page costs at most one walk (`ledger::activity`); a
//! filter that matches little gives short pages.
//!
//! Personal data is opened here, for those who may read the log. Where an operator's
//! staff acts inside a tenant, the tenant sees that, when, with which key and what was
//! written about it; from where, and with what, only operators see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use projections::activity::{Entry, FieldChange, Filter, Outcome, Target, Value};
use projections::envelope::Envelope;
use projections::event::Event;
use projections::id::{KeyId, OrganizationId};
use projections::organization::Organization;
use projections::principal::Principal;
use projections::recorded::Revision;
use projections::sealed::Subject;
use projections::text::PlanName;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::authentication::{Authenticated, authenticate, authenticate_again, shown};
use super::key::known;
use super::{Door, page, read, status, write};
use crate::ledger::activity::{Direction, Step, Walk};
use crate::ledger::command::Personal;
use crate::ledger::tables::Published;
use crate::ledger::vault::SubjectKeyState;
use crate::ledger::vault::seal::{OpenError, open};
use crate::ledger::verify::Reach;
use crate::ledger::{Ledger, permissions};
use crate::proto;
use crate::proto::audit_service_server::AuditService;

/// Longest wait for a revision that a request asks for.
pub const REVISION_WAIT_MAX: Duration = Duration::from_secs(5);

/// The service.
pub struct Audit {
    door: Door,
}

impl Audit {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn query_activity(
        &self,
        request: Request<proto::QueryActivityRequest>,
    ) -> Result<Response<proto::QueryActivityResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let mut reader = authenticate(ledger, &request, permissions::ACTIVITY_READ)?;
        let mut organization = asked(ledger, &reader, &request)?;
        if let Some(revision) = request.get_ref().at_least_revision {
            reach(&self.door, ledger, &reader, &organization, Revision(revision)).await?;
            // What was waited for may be the end of the reader's own key, or of history.
            let now = ledger.clock().now();
            let shown = shown(ledger, &request)?;
            reader = authenticate_again(ledger, &shown, permissions::ACTIVITY_READ, now)?;
            organization = asked(ledger, &reader, &request)?;
        }
        query_activity(ledger, &reader, &organization, request.get_ref()).await.map(Response::new)
    }

    async fn state_at(
        &self,
        request: Request<proto::StateAtRequest>,
    ) -> Result<Response<proto::StateAtResponse>, Status> {
        let entered = self.door.enter()?;
        super::history::state_at(entered.ledger(), &request).await.map(Response::new)
    }

    async fn explain_decision(
        &self,
        request: Request<proto::ExplainDecisionRequest>,
    ) -> Result<Response<proto::ExplainDecisionResponse>, Status> {
        let entered = self.door.enter()?;
        super::history::explain(entered.ledger(), &request).await.map(Response::new)
    }
}

fn asked(
    ledger: &Ledger,
    reader: &Authenticated,
    request: &Request<proto::QueryActivityRequest>,
) -> Result<Arc<Published>, Status> {
    known(ledger, reader.target(ledger, &request.get_ref().organization_id)?)
}

/// Waits until the tables hold a revision.
async fn reach(
    door: &Door,
    ledger: &Ledger,
    reader: &Authenticated,
    organization: &Published,
    revision: Revision,
) -> Result<(), Status> {
    if organization.tables().revision().is_some_and(|there| there >= revision) {
        return Ok(());
    }
    let _waiting = door.wait(reader.organization_id)?;
    let reached = ledger.tables().reached(organization.id, revision);
    tokio::time::timeout(REVISION_WAIT_MAX, reached)
        .await
        .map_err(|_| status::revision_not_reached(organization.stream.as_str()))
}

/// A request, read.
struct Query {
    filter: Filter,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    direction: Direction,
    rows_max: usize,
}

impl Query {
    fn read(
        message: &proto::QueryActivityRequest,
        organization: OrganizationId,
    ) -> Result<Self, Status> {
        let filter = Filter {
            actor: actor(&message.actor)?,
            credential: read::optional("credential_id", &message.credential_id)?,
            action: read::optional("action", &message.action)?,
            target: target(&message.target_id, organization)?,
            correlation_id: read::optional("correlation_id", &message.correlation_id)?,
        };
        let from = bound("from", message.from.as_ref())?;
        let to = bound("to", message.to.as_ref())?;
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(status::invalid("to", "must be later than `from`"));
        }
        let direction = match proto::ActivityOrder::try_from(message.order) {
            Ok(proto::ActivityOrder::Unspecified | proto::ActivityOrder::NewestFirst) => {
                Direction::NewestFirst
            }
            Ok(proto::ActivityOrder::OldestFirst) => Direction::OldestFirst,
            Err(_) => return Err(status::invalid("order", "is no known order")),
        };
        Ok(Self { filter, from, to, direction, rows_max: page::size(message.page_size)? })
    }

    /// What a page token is bound to.
    fn list<'a>(
        &self,
        ledger: &'a Ledger,
        organization: &Published,
        message: &proto::QueryActivityRequest,
    ) -> page::List<'a> {
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        let direction = match self.direction {
            Direction::NewestFirst => "newest first",
            Direction::OldestFirst => "oldest first",
        };
        let parameters = [
            organization.stream.as_str(),
            &message.actor,
            &message.credential_id,
            &message.action,
            &message.target_id,
            &message.correlation_id,
            &text(self.from),
            &text(self.to),
            direction,
        ];
        page::List::new(ledger.stamper(), "QueryActivity", &parameters)
    }

    /// Whether this event, and with it all behind it in the walk's direction, is outside
    /// the time that is asked about.
    fn is_past(&self, at: Timestamp) -> bool {
        match self.direction {
            Direction::NewestFirst => self.from.is_some_and(|from| at < from),
            Direction::OldestFirst => self.to.is_some_and(|to| at >= to),
        }
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
        "policy" | "credentials" | "operator" => Ok(Some(text.to_owned())),
        id if is_id(id) => Ok(Some(id.to_owned())),
        plan if organization.is_operator() && plan.parse::<PlanName>().is_ok() => {
            Ok(Some(plan.to_owned()))
        }
        _ => Err(status::invalid(
            "target_id",
            "must be an identifier such as `key_01M3250V000000000000000001`, or `policy` or `credentials`",
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

/// The row behind which a token continues.
fn to_token(revision: Revision) -> [u8; 16] {
    u128::from(revision.0).to_be_bytes()
}

fn from_token(bytes: [u8; 16]) -> Revision {
    // Only what `to_token` made has a seal.
    Revision(u64::try_from(u128::from_be_bytes(bytes)).unwrap_or(u64::MAX))
}

async fn query_activity(
    ledger: &Ledger,
    reader: &Authenticated,
    organization: &Published,
    message: &proto::QueryActivityRequest,
) -> Result<proto::QueryActivityResponse, Status> {
    let query = Query::read(message, organization.id)?;
    let list = query.list(ledger, organization, message);
    let behind = list.continue_behind(&message.page_token)?.map(from_token);
    let tables = Arc::clone(&organization.tables());
    let Some(head) = tables.head() else {
        return Err(status::organization_not_found(organization.id));
    };
    let failed = |error| status::from_read(&error);
    let mut walk = Walk::new(ledger, organization, head, query.direction, query.rows_max);
    match behind {
        Some(last) => walk.continue_behind(last),
        None => walk.skip_to(query.from, query.to).await.map_err(failed)?,
    }
    let mut personal = PersonalData::new(ledger, reader);
    let mut answer = proto::QueryActivityResponse {
        revision: write::revision(&organization.stream, tables.revision()),
        ..Default::default()
    };
    let (mut last, mut bytes) = (None, 0);
    while answer.entries.len() < query.rows_max && bytes < page::PAGE_BYTES_MAX {
        match walk.step().await.map_err(failed)? {
            Step::Event(_, envelope) if query.is_past(envelope.at) => return Ok(answer),
            Step::Event(revision, envelope) => {
                last = Some(revision);
                if query.filter.shows(&envelope) {
                    let mut entry = entry(revision, &envelope, &tables);
                    entry.personal_data = personal.of(&envelope).await?;
                    bytes += entry.encoded_len();
                    answer.entries.push(entry);
                }
            }
            Step::End => return Ok(answer),
            Step::WorkLimit => {
                answer.work_limit_reached = true;
                break;
            }
        }
    }
    if let Some(last) = last.filter(|_| walk.goes_on()) {
        answer.next_page_token = list.token(to_token(last));
    }
    Ok(answer)
}

/// An event as an entry, its personal data aside.
pub(super) fn entry(
    revision: Revision,
    envelope: &Envelope,
    tables: &Organization,
) -> proto::ActivityEntry {
    let names = |id| tables.key(id).map(|key| key.name.clone());
    let entry = Entry::of(revision, envelope, names);
    let outcome = match entry.outcome {
        Outcome::Succeeded => proto::ActivityOutcome::Succeeded,
        Outcome::Denied => proto::ActivityOutcome::Denied,
    };
    proto::ActivityEntry {
        event_id: entry.event_id.text(),
        revision: revision.0,
        at: Some(write::timestamp(entry.at)),
        action: entry.action.to_owned(),
        actor: Some(write::principal(entry.actor, tables.id)),
        credential_id: entry.credential.map(|id| id.to_string()).unwrap_or_default(),
        target: Some(write_target(&entry.target)),
        outcome: outcome.into(),
        reason: entry.reason.unwrap_or_default().to_owned(),
        changes: entry.changes.into_iter().map(change).collect(),
        correlation_id: entry.correlation_id.to_string(),
        causation_id: entry.causation_id.map(|id| id.text()).unwrap_or_default(),
        sentence: entry.sentence,
        personal_data: None,
    }
}

fn write_target(target: &Target<'_>) -> proto::ActivityTarget {
    proto::ActivityTarget {
        kind: target.id.kind().to_owned(),
        id: target.id.to_string(),
        name: target.name.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn change(change: FieldChange<'_>) -> proto::FieldChange {
    let FieldChange { field, before, after } = change;
    proto::FieldChange {
        field: field.into_owned(),
        before: before.map(value),
        after: after.map(value),
    }
}

fn value(value: Value<'_>) -> proto::FieldValue {
    use proto::field_value::Kind;
    let kind = match value {
        Value::Text(text) => Kind::Text(text.into_owned()),
        Value::Number(number) => Kind::Number(number),
        Value::Texts(texts) => Kind::Texts(proto::TextList {
            texts: texts.into_iter().map(|text| text.into_owned()).collect(),
        }),
        Value::Instant(at) => Kind::Instant(write::timestamp(at)),
    };
    proto::FieldValue { kind: Some(kind) }
}

/// Opens the personal data of one page. The vault is asked once for each subject.
pub(super) struct PersonalData<'a> {
    ledger: &'a Ledger,
    reach: Reach,
    keys: BTreeMap<Subject, SubjectKeyState>,
}

impl<'a> PersonalData<'a> {
    pub(super) fn new(ledger: &'a Ledger, reader: &Authenticated) -> Self {
        Self { ledger, reach: reader.reach(), keys: BTreeMap::new() }
    }

    /// What an event holds, as far as this reader may see it; none where it holds none.
    pub(super) async fn of(
        &mut self,
        envelope: &Envelope,
    ) -> Result<Option<proto::ActivityPersonalData>, Status> {
        use proto::PersonalDataState as State;
        if envelope.sealed.is_empty() {
            return Ok(None);
        }
        let withheld = self.withholds_origin(envelope);
        let state = if withheld { State::OriginWithheld } else { State::Shown };
        let mut data = proto::ActivityPersonalData { state: state.into(), ..Default::default() };
        for sealed in &envelope.sealed {
            match open(self.key(&sealed.subject).await?, envelope.id, sealed) {
                Ok(mut opened) => {
                    let mut take = |name: &str| opened.remove(name).unwrap_or_default();
                    data.comment.push_str(&take(Personal::COMMENT));
                    if !withheld {
                        data.origin_ip.push_str(&take(Personal::ORIGIN_IP));
                        data.user_agent.push_str(&take(Personal::USER_AGENT));
                    }
                }
                Err(OpenError::Erased) => data.state = State::Erased.into(),
                Err(error @ OpenError::Damaged) => {
                    // One event's damage must not hide the rest of the log.
                    tracing::error!(event = %envelope.id, %error, "open sealed data");
                    data.state = State::Unreadable.into();
                }
            }
        }
        Ok(Some(data))
    }

    /// Whether where from is for operators alone: what their staff did, and custodians, and
    /// whoever these let in.
    pub(super) fn withholds_origin(&self, envelope: &Envelope) -> bool {
        let by_operator = match envelope.actor {
            Principal::Organization(id) => id.is_operator(),
            Principal::Account(_) | Principal::BreakGlass(_) => true,
            // The ledger records what was refused to them.
            Principal::Ledger => matches!(envelope.event, Event::BreakGlassRefused(_)),
            Principal::ServiceAccount(_) | Principal::User(_) => false,
        };
        by_operator && self.reach != Reach::Installation
    }

    pub(super) async fn key(&mut self, subject: &Subject) -> Result<&SubjectKeyState, Status> {
        if !self.keys.contains_key(subject) {
            let key = self
                .ledger
                .subject_key(subject)
                .await
                .map_err(|error| status::from_vault(&error))?;
            self.keys.insert(subject.clone(), key);
        }
        Ok(self.keys.get(subject).unwrap_or(&SubjectKeyState::Absent))
    }
}

#[cfg(test)]
mod tests;

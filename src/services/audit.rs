//! AuditService: what happened.
//!
//! A page is a walk over the organization's own stream (`ledger::activity`), by an index where
//! there is one: what is shown is always what the stream says. A page costs at most one walk;
//! a filter that matches little gives short pages.
//!
//! Personal data is opened here, for those who may read the log. Where an operator's
//! staff acts inside a tenant, the tenant sees that, when, with which key and what was
//! written about it; from where, and with what, only operators see.

mod export;
mod facets;
mod filter;
mod query;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use projections::activity::{Entry, FieldChange, Outcome, Target, Value};
use projections::envelope::Envelope;
use projections::event::{Event, WayOfReading};
use projections::organization::Organization;
use projections::principal::Principal;
use projections::recorded::Revision;
use projections::sealed::Subject;
use tonic::{Request, Response, Status};

use super::authentication::{Authenticated, authenticate, authenticate_again, shown};
use super::history;
use super::key::known;
use super::telling::{Pieces, Story};
use super::{Door, Stay, status, write};
use crate::ledger::command::Personal;
use crate::ledger::tables::Published;
use crate::ledger::vault::SubjectKeyState;
use crate::ledger::vault::seal::{OpenError, open};
use crate::ledger::verify::Reach;
use crate::ledger::{Ledger, permissions};
use crate::proto;
use crate::proto::audit_service_server::AuditService;
use query::Query;

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

    /// Lets in a call that stays, about this organization.
    fn stay<T>(
        &self,
        request: &Request<T>,
        named: &str,
    ) -> Result<(Story, Authenticated, Stay), Status> {
        let entered = self.door.enter()?;
        let ledger = Arc::clone(entered.ledger());
        let permission = permissions::ACTIVITY_READ;
        let caller = authenticate(&ledger, request, permission)?;
        let organization = known(&ledger, caller.target(&ledger, named)?)?;
        let shown = shown(&ledger, request)?;
        let stay = self.door.stay(entered, caller.organization_id)?;
        let door = self.door.clone();
        Ok((Story { door, ledger, organization, shown, permission }, caller, stay))
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type TailActivityStream = Pieces<proto::TailActivityResponse>;
    type ExportActivityStream = Pieces<proto::ExportActivityResponse>;

    async fn tail_activity(
        &self,
        request: Request<proto::TailActivityRequest>,
    ) -> Result<Response<Self::TailActivityStream>, Status> {
        let (story, caller, stay) = self.stay(&request, &request.get_ref().organization_id)?;
        let asked = tail::Asked::read(request.get_ref(), &story)?;
        asked.reading().record(&story.ledger, &request, &caller, &story.organization).await?;
        Ok(Response::new(tail::start(story, caller, asked, stay)))
    }

    async fn export_activity(
        &self,
        request: Request<proto::ExportActivityRequest>,
    ) -> Result<Response<Self::ExportActivityStream>, Status> {
        let (story, caller, stay) = self.stay(&request, &request.get_ref().organization_id)?;
        let asked = export::Asked::read(request.get_ref(), &story)?;
        asked.reading().record(&story.ledger, &request, &caller, &story.organization).await?;
        Ok(Response::new(export::start(story, caller, asked, stay)))
    }

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
        let query = Query::begin(ledger, &organization, request.get_ref())?;
        // Side by side: the record is on disk before the answer is given.
        let reading = query.filter.reading(WayOfReading::Queried);
        let (recorded, answer) = tokio::join!(
            reading.record(ledger, &request, &reader, &organization),
            query.page(ledger, &reader, &organization),
        );
        recorded?;
        answer.map(Response::new)
    }

    async fn state_at(
        &self,
        request: Request<proto::StateAtRequest>,
    ) -> Result<Response<proto::StateAtResponse>, Status> {
        let entered = self.door.enter()?;
        history::state_at(entered.ledger(), &request).await.map(Response::new)
    }

    async fn explain_decision(
        &self,
        request: Request<proto::ExplainDecisionRequest>,
    ) -> Result<Response<proto::ExplainDecisionResponse>, Status> {
        let entered = self.door.enter()?;
        history::explain(entered.ledger(), &request).await.map(Response::new)
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

//! What was so at a past moment: tables as they were, and why a decision was what it was.
//!
//! The ledger folds the tables ([`crate::ledger::history`]); they become the same messages as in
//! the lists of today ([`state`]), or what the pure decision is asked ([`explain`]).

mod chain;
mod explain;
mod state;

use std::sync::Arc;

use projections::activity::Entry;
use projections::envelope::Envelope;
use projections::organization::Organization;
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;
use tonic::{Request, Status};

use super::authentication::{Authenticated, authenticate};
use super::key::known;
use super::{status, write};
use crate::ledger::Ledger;
use crate::ledger::history::{Moment, Past, PastError};
use crate::ledger::permissions::ACTIVITY_READ;
use crate::ledger::tables::Published;
use crate::proto;

pub(super) use explain::explain;
pub(super) use state::state_at;

/// Who asks, and about which organization.
pub(super) fn asked<T>(
    ledger: &Ledger,
    request: &Request<T>,
    organization_id: &str,
) -> Result<(Authenticated, Arc<Published>), Status> {
    let reader = authenticate(ledger, request, ACTIVITY_READ)?;
    let organization = known(ledger, reader.target(ledger, organization_id)?)?;
    Ok((reader, organization))
}

/// Reads an instant of the past. Events are recorded in whole milliseconds: what was recorded by
/// then was recorded by the last whole one.
pub(super) fn instant(field: &str, at: &prost_types::Timestamp) -> Result<Timestamp, Status> {
    let nanos = i64::from(at.nanos);
    let millis = at
        .seconds
        .checked_mul(1_000)
        .filter(|_| (0..1_000_000_000).contains(&nanos))
        .and_then(|millis| millis.checked_add(nanos / 1_000_000));
    let wrong = || status::invalid(field, "must be an instant between the years 1 and 9999");
    millis.and_then(Timestamp::from_millis).ok_or_else(wrong)
}

/// A moment was left out.
fn no_moment() -> Status {
    status::invalid("moment", "must be given: `at`, an instant, or `revision`")
}

/// Why tables as they were are not to be had, to whoever asked.
pub(super) fn failed(organization: &Published, error: PastError) -> Status {
    match error {
        PastError::Ahead(now) => {
            let problem = format_args!("must not be ahead: it is {now} now");
            status::invalid("at", problem)
        }
        PastError::Before(first) => {
            let id = organization.id;
            let problem = format_args!("is before the first event of `{id}`, of {first}");
            status::invalid("at", problem)
        }
        PastError::NoSuchRevision(last) => {
            status::invalid("revision", format_args!("must be at most {last}, the last one"))
        }
        PastError::TooLong(events) => {
            let problem = format_args!(
                "is too far behind `from`: {events} events were recorded between; ask for less at once"
            );
            status::invalid("to", problem)
        }
        PastError::Busy => status::history_busy(),
        PastError::WorkLimit => status::history_work_limit(),
        PastError::Read(error) => status::from_read(&error),
    }
}

/// The tables at a moment.
async fn past_at(
    ledger: &Ledger,
    organization: &Published,
    moment: Moment,
) -> Result<Past, PastError> {
    let (places, at) = ledger.places(organization, moment).await?;
    ledger.past(organization, places, at).await
}

/// How far the streams of an organization and the operator were read.
fn revisions(organization: &Published, past: &Past) -> Vec<proto::StreamRevision> {
    let own = write::revision(&organization.stream, past.tables.revision());
    let operator = StreamName::organization(projections::id::OrganizationId::OPERATOR);
    let operator = write::revision(&operator, past.operator.revision());
    own.into_iter().chain(operator.filter(|_| !organization.id.is_operator())).collect()
}

/// How far the stream of an account was read.
fn account_revision(account: &projections::account::Account) -> Option<proto::StreamRevision> {
    write::revision(&StreamName::account(account.id), account.revision())
}

/// One event of a stream, in short.
pub(super) fn past_event(
    stream: &StreamName,
    revision: Revision,
    envelope: &Envelope,
    tables: &Organization,
) -> proto::PastEvent {
    let names = |id| tables.key(id).map(|key| key.name.clone());
    let entry = Entry::of(revision, envelope, names);
    proto::PastEvent {
        revision: write::revision(stream, Some(revision)),
        event_id: entry.event_id.text(),
        at: Some(write::timestamp(entry.at)),
        action: entry.action.to_owned(),
        actor: Some(write::principal(entry.actor, tables.id)),
        credential_id: entry.credential.map(|id| id.to_string()).unwrap_or_default(),
        sentence: entry.sentence,
    }
}

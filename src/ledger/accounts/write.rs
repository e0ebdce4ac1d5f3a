//! Writing a stream of accounts: events in their stored form, appended behind the revision
//! they were decided on, and settled where their outcome is lost.

use std::time::Instant;

use projections::account::Account;
use projections::corrupt::{CorruptHistory, Fault};
use projections::digest::LeafHash;
use projections::email::Reservation;
use projections::envelope::{Envelope, Unstorable};
use projections::event::Event;
use projections::id::AccountId;
use projections::recorded::{Recorded, Revision, StreamName};
use projections::sealed::Subject;
use projections::time::Timestamp;

use super::command::AccountOrder;
use super::stopped_at;
use crate::ledger::activated::may_write;
use crate::ledger::command::Personal;
use crate::ledger::event_store::{AppendError, NewEvent, READ_EVENTS_MAX, ReadError};
use crate::ledger::sealing::Sealing;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::seal::seal;
use crate::ledger::{Ledger, LedgerError, READ_AGAIN};

/// What a stream of accounts is folded into.
pub(super) trait Fold: Clone + Send + Sync {
    fn stream(&self) -> StreamName;
    fn revision(&self) -> Option<Revision>;
    fn apply(&mut self, recorded: &Recorded) -> Result<bool, CorruptHistory>;
    fn apply_decoded(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: Result<Envelope, Fault>,
    ) -> Result<bool, CorruptHistory>;
    fn apply_next(
        &mut self,
        envelope: &Envelope,
        leaf_hash: LeafHash,
    ) -> Result<(), CorruptHistory>;
}

macro_rules! fold {
    ($name:ident, $stream:expr) => {
        impl Fold for $name {
            fn stream(&self) -> StreamName {
                let stream: fn(&Self) -> StreamName = $stream;
                stream(self)
            }
            fn revision(&self) -> Option<Revision> {
                $name::revision(self)
            }
            fn apply(&mut self, recorded: &Recorded) -> Result<bool, CorruptHistory> {
                $name::apply(self, recorded)
            }
            fn apply_decoded(
                &mut self,
                revision: Revision,
                leaf_hash: LeafHash,
                envelope: Result<Envelope, Fault>,
            ) -> Result<bool, CorruptHistory> {
                $name::apply_decoded(self, revision, leaf_hash, envelope)
            }
            fn apply_next(
                &mut self,
                envelope: &Envelope,
                leaf_hash: LeafHash,
            ) -> Result<(), CorruptHistory> {
                $name::apply_next(self, envelope, leaf_hash)
            }
        }
    };
}
fold!(Account, |it| StreamName::account(it.id));
fold!(Reservation, |it| StreamName::email(it.email));

/// An event that is to be written, and the personal data that goes with it.
pub(super) type Drafted<'a> = (Event, Option<&'a Personal>);

impl Ledger {
    /// What personal data about the person whose account this is is sealed with.
    pub(super) async fn account_sealing(
        &self,
        id: AccountId,
        order: &AccountOrder,
        urgency: Urgency,
    ) -> Result<Option<Sealing>, LedgerError> {
        self.seal_under(Subject::account(id), urgency, &order.correlation_id).await
    }

    /// Appends events to a stream, and gives what it then comes to. Nothing is published.
    ///
    /// # Errors
    ///
    /// Nothing was written, as far as is known. Where another writer came first, the stream
    /// must be read again ([`Ledger::read_again`]).
    pub(super) async fn write<F: Fold>(
        &self,
        state: &F,
        events: Vec<Drafted<'_>>,
        at: Timestamp,
        order: &AccountOrder,
        sealing: Option<&Sealing>,
        urgency: Urgency,
    ) -> Result<F, LedgerError> {
        if self.store.is_full(urgency) {
            return Err(AppendError::Full.into());
        }
        let mut next = state.clone();
        let mut new_events = Vec::with_capacity(events.len());
        for (event, personal) in events {
            may_write(&self.tables.operator().tables(), &event)?;
            let id = self.ids.event(at);
            let sealed = match (sealing, personal.filter(|it| !it.0.is_empty())) {
                (Some((subject, key)), Some(personal)) => {
                    vec![seal(key, id, subject, &personal.0)?]
                }
                _ => Vec::new(),
            };
            let envelope = Envelope {
                id,
                at,
                actor: order.actor,
                credential: order.credential,
                request: order.request,
                correlation_id: order.correlation_id.clone(),
                causation_id: order.causation_id,
                event,
                sealed,
            };
            let event_type = envelope.event.event_type();
            let (stored, leaf_hash) = envelope.encode()?;
            // What is acknowledged must be readable for ever.
            if Envelope::decode(&stored).as_ref() != Ok(&envelope) {
                let why = format!("{event_type} does not read back");
                return Err(Unstorable::Form(why).into());
            }
            next.apply_next(&envelope, leaf_hash).map_err(|source| {
                tracing::error!(stream = %state.stream(), fault = %source, "decided an event that does not fold");
                stopped_at(state.stream(), source)
            })?;
            new_events.push(NewEvent { id, event_type, stored: stored.into(), leaf_hash });
        }
        self.append(state, new_events, urgency).await?;
        Ok(next)
    }

    async fn append<F: Fold>(
        &self,
        state: &F,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> Result<(), AppendError> {
        let (stream, expected) = (state.stream(), state.revision());
        let hashes: Vec<_> = events.iter().map(|event| event.leaf_hash).collect();
        let in_flight = u64::try_from(hashes.len()).unwrap_or_default();
        let began = Instant::now();
        self.stats.in_flight.up(in_flight);
        let outcome = match self.store.append(&stream, expected, events, urgency).await {
            Err(AppendError::Unknown(why)) => {
                self.settle(&stream, Revision::after(expected), &hashes, why).await
            }
            known => known.map(|_| ()),
        };
        self.stats.in_flight.down(in_flight);
        self.stats.append_ns.observe_time(began.elapsed());
        if let Err(error) = &outcome {
            tracing::warn!(%stream, %error, "append failed");
            // Nothing is decided behind an append that is under way.
            self.store.taken_back(&stream);
        }
        if outcome.is_ok() {
            self.tables.moved_before(in_flight);
        }
        outcome
    }

    /// Folds in what the store holds of a stream behind what is known.
    ///
    /// # Errors
    ///
    /// Its history is corrupt.
    pub(super) async fn read_again<F: Fold>(&self, known: &F) -> Result<F, CorruptHistory> {
        let mut state = known.clone();
        loop {
            let from = Revision::after(state.revision());
            match self.store.read_stream(&state.stream(), from, READ_EVENTS_MAX).await {
                Ok(recorded) if recorded.is_empty() => return Ok(state),
                Ok(recorded) => {
                    for event in &recorded {
                        state.apply(event)?;
                    }
                }
                Err(ReadError::Corrupt { revision, what, .. }) => {
                    return Err(Fault::Stored(what).at(revision));
                }
                Err(ReadError::Lost { what, .. }) => return Err(Fault::Stored(what).at(from)),
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(READ_AGAIN).await,
            }
        }
    }
}

//! Intentions become facts here.
//!
//! A [`command::Command`] comes in with all that surrounds it (a [`command::Order`]),
//! is decided by the pure rules in [`decide`], becomes events in their stored form, and
//! is answered once they are durable and in the [`tables`] that readers see. The
//! question of every request, [`Ledger::verify`], is asked of those tables alone.
//!
//! Start at [`Ledger::execute`], then read [`decide`].

pub mod accounts;
mod activated;
pub mod activity;
pub mod break_glass;
pub mod built_in;
pub mod clock;
pub mod command;
pub mod contact;
pub mod dead;
pub mod decide;
pub mod denials;
pub mod email;
mod error;
pub mod event_store;
pub mod fingerprints;
pub mod following;
pub mod history;
mod importing;
mod instants;
pub mod mint;
pub mod pepper_use;
pub mod permissions;
mod pipeline;
pub mod rate_limits;
mod read_back;
mod reading;
pub mod recording;
pub mod rejection;
mod sealing;
pub mod secret;
pub mod sessions;
pub mod sign_in;
pub mod snapshot_store;
pub mod snapshots;
pub mod start;
pub mod stats;
pub mod tables;
pub mod urgency;
pub mod usage;
pub mod vault;
pub mod verify;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use projections::digest::{EmailDigest, LeafHash};
use projections::envelope::{Envelope, Unstorable};
use projections::event::{DenialCode, Event};
use projections::id::OrganizationId;
use projections::key::Key;
use projections::organization::{Change, Organization};
use projections::principal::Credential;
use projections::recorded::Revision;
use projections::time::Timestamp;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore, oneshot};

use crate::spans;

use activated::may_write;
use clock::Clock;
use command::{Caller, Order, RequestStamper};
use decide::{Decided, Given};
pub use error::LedgerError;
use event_store::{AppendError, EventStore, NewEvent, Position, StoreFuture};
use importing::{Importing, Reserved};
use pipeline::{Landing, Pipeline, Ticket};
use rejection::Rejection;
use sealing::Sealings;
use secret::Ids;
use sign_in::SignIn;
use stats::LedgerStats;
use tables::{Published, Tables};
use urgency::Urgency;
use vault::Vault;
use vault::peppers::Peppers;
use vault::seal::seal;

/// Most commands under way at once; more wait their turn.
pub const COMMANDS_MAX: usize = 4_096;
/// How often a command is decided anew because an append in front of it failed.
pub const DECISIONS_MAX: usize = 8;
/// How long a command waits for a stream that must be read again before it can be written.
const HELD_MAX: Duration = Duration::from_secs(10);
/// How long to wait before a store that could not be read is asked again.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// What it made or changed.
    pub outcome: Change,
    /// The first of the events that it caused; none where it caused none.
    pub first: Option<Revision>,
    /// The last event that says so; none where the stream holds nothing.
    pub revision: Option<Revision>,
    /// It was carried out for an earlier request with the same idempotency key.
    pub repeat: bool,
    /// Why a request under break-glass was refused, where that is what was recorded.
    pub refused: Option<DenialCode>,
}

/// The ledger of one installation.
pub struct Ledger {
    store: Arc<dyn EventStore>,
    vault: Arc<dyn Vault>,
    clock: Clock,
    ids: Ids,
    tables: Tables,
    pipelines: papaya::HashMap<OrganizationId, Arc<Pipeline>>,
    peppers: Peppers,
    stamper: RequestStamper,
    admission: Semaphore,
    /// Held, shared, by what an operator's key does inside a tenant, from its decision to
    /// its landing. Whoever ends an operator's key waits for it, so that nothing done with
    /// the key lands once its end is acknowledged.
    abroad: Arc<RwLock<()>>,
    importing: Importing,
    accounts: accounts::Accounts,
    emails: email::EmailDigester,
    dead: dead::DeadKeys,
    snapshots: snapshots::Snapshots,
    history: history::History,
    sign_in: OnceLock<Arc<SignIn>>,
    /// The last event that the start has read; none where it found none.
    replayed_to: Option<Position>,
    /// Keys whose use is to be recorded, and what records it.
    noted: usage::Noted,
    recorder: tokio::sync::Mutex<usage::recorder::Recorder>,
    denials: denials::Denials,
    /// Held while a break-glass grant is opened: what all organizations opened is counted.
    opening: tokio::sync::Mutex<()>,
    server_since: break_glass::ServerSince,
    rate_limits: rate_limits::RateLimits,
    activity: activity::IndexState,
    readings: reading::Readings,
    instants: instants::Instants,
    stats: LedgerStats,
}

/// What a command has become, once decided.
enum Attempt {
    /// Its events are on their way.
    Submitted { executed: Executed, landing: oneshot::Receiver<Landing> },
    /// It needs no events; the answer holds once these have landed.
    Answered { answer: Result<Executed, Rejection>, landing: Option<oneshot::Receiver<Landing>> },
    /// It says something of its subject, which needs a key to be sealed under first.
    Unsealed,
}

/// Held while what an operator's key does inside a tenant is on its way.
type Abroad = OwnedRwLockReadGuard<()>;

/// What is held while events are on their way.
#[expect(dead_code, reason = "they are let go of when this is dropped")]
struct Held {
    abroad: Option<Abroad>,
    reserved: Option<Reserved>,
}

impl Ledger {
    /// Whether what is not urgent is refused for want of space.
    #[must_use]
    pub fn store_is_full(&self) -> bool {
        self.store.is_full(Urgency::Normal)
    }

    /// The tables that readers see.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What it counts while it works.
    #[must_use]
    pub fn stats(&self) -> &LedgerStats {
        &self.stats
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What makes identifiers.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// What makes request stamps.
    #[must_use]
    pub fn stamper(&self) -> &RequestStamper {
        &self.stamper
    }

    /// What turns secrets into digests.
    #[must_use]
    pub fn peppers(&self) -> &Peppers {
        &self.peppers
    }

    /// What stands for an e-mail.
    #[must_use]
    pub fn email_digest(&self, email: &email::Email) -> EmailDigest {
        self.emails.digest(email)
    }

    /// What was denied and is not yet recorded.
    #[must_use]
    pub fn denials(&self) -> &denials::Denials {
        &self.denials
    }

    /// When a key was last used, as far as this node knows; none for never.
    #[must_use]
    pub fn last_used(&self, key: &Key) -> Option<Timestamp> {
        self.tables.index().key(&key.digest.blake3)?.uses.last()
    }

    /// Carries out a command in an organization.
    ///
    /// `Ok` means that its events are on disk and in the tables that readers see; a
    /// rejection means that the events it was decided on are. Dropping the future does
    /// not undo what was begun.
    pub async fn execute(
        self: &Arc<Self>,
        organization_id: OrganizationId,
        order: &Order,
    ) -> Result<Executed, LedgerError> {
        let _place = self.admission.acquire().await.map_err(|_| LedgerError::Closing)?;
        let pipeline = self.pipeline(organization_id).ok_or(Rejection::OrganizationNotFound)?;
        let around = self.sealing(organization_id, order).await?;
        let mut sealings = Sealings { around, about: None };
        let mut contended = LedgerError::Contended;
        for _ in 0..DECISIONS_MAX {
            let held = Held {
                abroad: self.go_abroad(organization_id, order).await,
                reserved: self.reserve(order)?,
            };
            let attempt = self.attempt(&pipeline, order, &sealings, held).await?;
            let (answer, landing, sent, mut span) = match attempt {
                Attempt::Submitted { executed, landing } => {
                    (Ok(executed), Some(landing), true, spans::part(spans::APPEND))
                }
                Attempt::Answered { answer, landing } => (answer, landing, false, None),
                Attempt::Unsealed => {
                    sealings.about = self.sealing_about(order).await?;
                    continue;
                }
            };
            let landed = match landing {
                Some(landing) => landing.await,
                None => Ok(Landing::Durable),
            };
            if let Some(span) = span.as_mut().filter(|_| !matches!(landed, Ok(Landing::Durable))) {
                span.fail();
            }
            drop(span);
            match landed {
                Ok(Landing::Durable) => {
                    self.await_abroad(organization_id, order).await;
                    self.await_account(&pipeline.published, &order.command).await?;
                    if let (Err(rejection), Some(home), Some(credential)) =
                        (&answer, order.caller.home(), order.caller.credential())
                        && !matches!(credential, Credential::BreakGlass(_))
                        && let Some(code) = denials::rejected(rejection)
                    {
                        self.note_denied_caller(home, credential, code);
                    }
                    let answer = self.after_all(&pipeline.published, answer).await;
                    self.may_acknowledge(sent)?;
                    return Ok(answer?);
                }
                // Decided on events that never came to be, or behind another writer's: the
                // tables are read again by now.
                Ok(Landing::Discarded(AppendError::Full)) => contended = AppendError::Full.into(),
                Ok(
                    Landing::Discarded(_)
                    | Landing::Failed(AppendError::WrongExpectedRevision { .. }),
                )
                | Err(_) => contended = LedgerError::Contended,
                Ok(Landing::Failed(error)) => return Err(error.into()),
            }
        }
        Err(contended)
    }

    /// Nothing is acknowledged once another node may be in the place of this one: that one
    /// may have read history before these events were in it. Asked when they are durable:
    /// whoever is admitted after that reads them.
    fn may_acknowledge(&self, sent: bool) -> Result<(), LedgerError> {
        if self.store.may_answer() {
            return Ok(());
        }
        if sent {
            let what = "this node's leave to answer has ended meanwhile";
            return Err(AppendError::Unknown(what.to_owned()).into());
        }
        Err(LedgerError::NoContact)
    }

    /// What an operator's key does inside a tenant is decided on the operator's published
    /// tables: its end may be on its way. See [`Ledger::await_abroad`].
    async fn go_abroad(&self, target: OrganizationId, order: &Order) -> Option<Abroad> {
        match order.caller {
            Caller::Key { organization_id: home, .. } if home != target => {
                Some(Arc::clone(&self.abroad).read_owned().await)
            }
            // Its account, whose end of it may be on its way, is another stream everywhere.
            Caller::Session { .. } => Some(Arc::clone(&self.abroad).read_owned().await),
            Caller::Key { .. }
            | Caller::Person { .. }
            // Its rules are the configuration's: they change where nobody calls.
            | Caller::Custodian { .. }
            | Caller::BreakGlass { .. }
            | Caller::Ledger => None,
        }
    }

    /// Reserves the secrets that a command brings into force: each leads to one key.
    fn reserve(&self, order: &Order) -> Result<Option<Reserved>, LedgerError> {
        let Some(command) = order.command.imports() else { return Ok(None) };
        self.importing.reserve(command).map(Some).ok_or(LedgerError::Contended)
    }

    /// Before the end of an operator's key is acknowledged, all that was decided on its
    /// being in force has landed: nothing done with the key comes after.
    async fn await_abroad(&self, target: OrganizationId, order: &Order) {
        if target.is_operator() && order.command.may_end_authority() {
            drop(self.abroad.write().await);
        }
    }

    /// The pipeline of an organization that is known here.
    fn pipeline(&self, id: OrganizationId) -> Option<Arc<Pipeline>> {
        let published = self.tables.organization(id)?;
        let pinned = self.pipelines.pin();
        let pipeline =
            pinned.get_or_insert_with(id, || Arc::new(Pipeline::new(Arc::clone(&published))));
        Some(Arc::clone(pipeline))
    }

    /// Decides a command on the tables as they will be, and sends its events off.
    async fn attempt(
        self: &Arc<Self>,
        pipeline: &Arc<Pipeline>,
        order: &Order,
        sealings: &Sealings,
        held: Held,
    ) -> Result<Attempt, LedgerError> {
        let writer = tokio::time::timeout(HELD_MAX, pipeline.writer()).await;
        let mut writer = writer.map_err(|_| LedgerError::Held)?;
        let published = &pipeline.published;
        if let Some(source) = published.stopped() {
            return Err(LedgerError::Stopped {
                organization_id: published.id,
                source: source.clone(),
            });
        }
        let now = self.clock.check()?;
        let operator = self.tables.operator().tables();
        let ahead = writer.ahead();
        // As verifications see it: a clock that was set back undoes no end.
        let now = operator.no_earlier(ahead.no_earlier(now));
        // What the events will be folded into: keys that have left by then are gone.
        let as_of = ahead.as_of(now);
        let state = &*as_of;
        let given = Given {
            state,
            operator: if published.id.is_operator() { state } else { &operator },
            now,
            caller: order.caller,
            standing: self.callers_standing(order.caller, state, &operator)?,
            expected: order.expected,
            request: order.request,
            taken: order
                .command
                .imports()
                .and_then(|command| importing::first_taken(command, &self.tables, &self.dead)),
        };
        let answer = match decide::decide(&given, &order.command) {
            Ok(Decided::Events(events)) => {
                // Before it takes a place in the pipeline: what is decided behind an append
                // that fails must be decided anew, and what ends access would be held up.
                let refuses = |event: &Event| matches!(event, Event::BreakGlassRefused(_));
                // What keeps somebody out may not use up what is kept for the worst hour.
                let urgency = match events.iter().all(refuses) {
                    true => Urgency::Normal,
                    false => order.command.urgency(),
                };
                if self.store.is_full(urgency) {
                    return Err(AppendError::Full.into());
                }
                // Not before: what is refused, or a repeat, leaves no key of nobody behind.
                if order.about.is_some() && sealings.about.is_none() {
                    return Ok(Attempt::Unsealed);
                }
                let drafted = self.draft(ahead, &given, events, order, sealings)?;
                let flight =
                    self.send(&pipeline.published, ahead.revision(), &drafted, urgency, held);
                drop(as_of);
                drop(operator);
                let executed = drafted.executed;
                let (ticket, landing) = writer.enter(drafted.steps);
                drop(writer);
                tokio::spawn(Arc::clone(self).land(Arc::clone(pipeline), flight, ticket));
                return Ok(Attempt::Submitted { executed, landing });
            }
            Ok(Decided::Done { outcome, revision, repeat }) => Ok(Executed {
                outcome,
                first: None,
                revision: Some(revision),
                repeat,
                refused: None,
            }),
            Ok(Decided::Nothing) => Ok(Executed {
                outcome: Change::Redelivered,
                first: None,
                revision: state.revision(),
                repeat: false,
                refused: None,
            }),
            Err(rejection) => Err(rejection),
        };
        Ok(Attempt::Answered { answer, landing: writer.relied_on() })
    }

    /// Gives events their stored form, and folds them one by one.
    fn draft(
        &self,
        state: &Organization,
        given: &Given<'_>,
        events: Vec<Event>,
        order: &Order,
        sealings: &Sealings,
    ) -> Result<Draft, LedgerError> {
        let at = state.no_earlier(given.now);
        let mut next = state.clone();
        let mut steps = Vec::with_capacity(events.len());
        let mut new_events = Vec::with_capacity(events.len());
        let refused = events.iter().find_map(|event| {
            if let Event::BreakGlassRefused(it) = event { Some(it.code) } else { None }
        });
        for event in events {
            let rules = if state.id.is_operator() { &next } else { given.operator };
            may_write(rules, &event)?;
            let first = steps.is_empty();
            let envelope = self.envelope(state.id, event, (at, first), order, sealings)?;
            let (stored, leaf_hash) = envelope.encode()?;
            // What is acknowledged must be readable for ever: two microseconds for certainty.
            if Envelope::decode(&stored).as_ref() != Ok(&envelope) {
                return Err(Unstorable::Form(format!(
                    "{} does not read back",
                    envelope.event.event_type()
                ))
                .into());
            }
            let change = next.apply_next(&envelope, leaf_hash).map_err(|source| {
                tracing::error!(organization = %state.id, fault = %source, "decided an event that does not fold");
                LedgerError::Stopped { organization_id: state.id, source }
            })?;
            let event_type = envelope.event.event_type();
            new_events.push(NewEvent {
                id: envelope.id,
                event_type,
                stored: stored.into(),
                leaf_hash,
            });
            steps.push((change, Arc::new(next.clone())));
        }
        let outcome = steps.first().map_or(Change::Redelivered, |(change, _)| *change);
        let first = Some(Revision::after(state.revision()));
        let revision = next.revision();
        let executed = Executed { outcome, first, revision, repeat: false, refused };
        Ok(Draft { executed, steps, new_events })
    }

    fn envelope(
        &self,
        stream: OrganizationId,
        event: Event,
        (at, first): (Timestamp, bool),
        order: &Order,
        sealings: &Sealings,
    ) -> Result<Envelope, LedgerError> {
        let id = self.ids.event(at);
        let mut sealed = Vec::new();
        if let Some((subject, key)) = &sealings.around {
            sealed.push(seal(key, id, subject, &order.personal.0)?);
        }
        if let (true, Some((subject, key)), Some(about)) = (first, &sealings.about, &order.about) {
            sealed.push(seal(key, id, subject, &about.data.0)?);
        }
        Ok(Envelope {
            id,
            at,
            actor: order.caller.principal(stream),
            credential: order.caller.credential(),
            request: order.request,
            correlation_id: order.correlation_id.clone(),
            causation_id: order.causation_id,
            event,
            sealed,
        })
    }

    /// Sends events off. They take their place in the store's order before this returns.
    fn send(
        &self,
        published: &Published,
        expected: Option<Revision>,
        draft: &Draft,
        urgency: Urgency,
        held: Held,
    ) -> Flight {
        let hashes = draft.new_events.iter().map(|event| event.leaf_hash).collect();
        let events = draft.new_events.clone();
        let append = self.store.append(&published.stream, expected, events, urgency);
        Flight { first: Revision::after(expected), hashes, append, held }
    }

    /// Sees an append through to its outcome. Runs by itself: whoever gave the command
    /// may have gone.
    async fn land(self: Arc<Self>, pipeline: Arc<Pipeline>, flight: Flight, ticket: Ticket) {
        let Flight { first, hashes, append, held } = flight;
        let began = Instant::now();
        let in_flight = u64::try_from(hashes.len()).unwrap_or_default();
        self.stats.in_flight.up(in_flight);
        let outcome = match append.await {
            Err(AppendError::Unknown(why)) => {
                self.settle(&pipeline.published.stream, first, &hashes, why).await
            }
            known => known.map(|_| ()),
        };
        match outcome {
            Ok(()) => {
                pipeline.landed(&self.tables, &ticket);
                drop(held);
            }
            Err(error) => {
                tracing::warn!(organization = %pipeline.published.id, %error, "append failed");
                // First, because whoever is told tries again.
                drop(held);
                pipeline.failed(&ticket, &error);
            }
        }
        self.stats.in_flight.down(in_flight);
        self.stats.append_ns.observe_time(began.elapsed());
        if pipeline.claim_recovery() {
            self.store.taken_back(&pipeline.published.stream);
            self.catch_up(&pipeline.published).await;
            pipeline.recover();
        }
    }
}

/// Events in their stored form, not yet sent.
struct Draft {
    executed: Executed,
    steps: Vec<(Change, Arc<Organization>)>,
    new_events: Vec<NewEvent>,
}

/// An append under way.
struct Flight {
    first: Revision,
    hashes: Vec<LeafHash>,
    append: StoreFuture<Result<Revision, AppendError>>,
    held: Held,
}

#[cfg(test)]
mod tests;

//! An event store in memory, for tests: everything it keeps is lost with it.
//!
//! Its use is its faults, each with a name: of appends ([`AppendFault`]), of what is
//! stored ([`MemoryStore::flip_stored_byte`] and its neighbours), and a gate
//! ([`MemoryStore::hold_appends`]) that lets a test say when an append becomes durable.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use projections::digest::LeafHash;
use projections::recorded::{Recorded, Revision, StreamName};
use tokio::sync::{oneshot, watch};

use super::catch_up::CatchUp;
use crate::ledger::event_store::{
    AppendError, EventStore, NewEvent, Position, Positioned, READ_EVENTS_MAX, ReadError, ReadItem,
    StoreFuture, Subscription, check_limits,
};
use crate::ledger::urgency::Urgency;

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// It is written, but the answer is [`AppendError::Unknown`].
    LoseAppendAck,
    /// It is not written, and the answer is [`AppendError::Unknown`].
    DropAppend,
    /// It is not written, and the answer is [`AppendError::Unavailable`].
    RefuseAppend,
    /// It is not written, and the answer is [`AppendError::Full`].
    RefuseFull,
    /// It is not written, nor is any after it: [`AppendError::Fenced`].
    FenceStore,
}

/// The store. Clones share what is stored.
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// All events in order; the place in this list is the position less one.
    /// None where an event was lost.
    log: Vec<Option<Recorded>>,
    /// The places of each stream's events in `log`.
    streams: HashMap<StreamName, Vec<usize>>,
    /// What the next appends meet with; none for nothing.
    faults: VecDeque<Option<AppendFault>>,
    fenced: bool,
    full: bool,
    /// Appends that wait behind the gate; none while it is open.
    held: Option<VecDeque<Held>>,
    /// None once the store is closed.
    durable: Option<watch::Sender<()>>,
}

struct Held {
    stream: StreamName,
    expected: Option<Revision>,
    events: Vec<NewEvent>,
    urgency: Urgency,
    answer: oneshot::Sender<Result<Revision, AppendError>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            streams: HashMap::new(),
            faults: VecDeque::new(),
            fenced: false,
            full: false,
            held: None,
            durable: Some(watch::Sender::new(())),
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the next `times` appends this fault, behind those already arranged.
    pub fn inject(&self, fault: AppendFault, times: usize) {
        self.lock().faults.extend(std::iter::repeat_n(Some(fault), times));
    }

    /// Lets `after` appends be carried out, behind what was arranged already, and gives the
    /// next one this fault.
    pub fn inject_after(&self, after: usize, fault: AppendFault) {
        let faults = std::iter::repeat_n(None, after).chain([Some(fault)]);
        self.lock().faults.extend(faults);
    }

    /// Lets space run out, or come back: what is set aside does not.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Closes the gate: appends take their place in the order, but none is carried out.
    pub fn hold_appends(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// Carries out the append that waits longest behind the gate; false if none waits.
    pub fn release_append(&self) -> bool {
        self.lock().release_append()
    }

    /// Carries out the append that came last behind the gate; false if none waits.
    pub fn release_last_append(&self) -> bool {
        let mut inner = self.lock();
        let last = inner.held.as_mut().and_then(VecDeque::pop_back);
        last.is_some_and(|held| inner.carry_out(held))
    }

    /// Opens the gate and carries out all that wait.
    pub fn release_appends(&self) {
        let mut inner = self.lock();
        while inner.release_append() {}
        inner.held = None;
    }

    /// How many appends wait behind the gate.
    #[must_use]
    pub fn held_appends(&self) -> usize {
        self.lock().held.as_ref().map_or(0, VecDeque::len)
    }

    /// Turns one bit of a stored event; false if there is no such event.
    pub fn flip_stored_byte(&self, stream: &StreamName, revision: Revision) -> bool {
        self.lock().damage(stream, revision, |recorded| {
            let mut stored = recorded.stored.to_vec();
            if let Some(byte) = stored.first_mut() {
                *byte ^= 1;
            }
            recorded.stored = stored.into();
        })
    }

    /// Turns one bit of a stored leaf hash; false if there is no such event.
    pub fn flip_leaf_hash(&self, stream: &StreamName, revision: Revision) -> bool {
        self.lock().damage(stream, revision, |recorded| {
            if let Some(byte) = recorded.leaf_hash.0.first_mut() {
                *byte ^= 1;
            }
        })
    }

    /// Cuts the last event written to half its length, as a crash in the middle of a
    /// write might; false if there is none.
    pub fn tear_last_record(&self) -> bool {
        let mut inner = self.lock();
        let Some(Some(recorded)) = inner.log.last_mut() else { return false };
        recorded.stored = recorded.stored.iter().copied().take(recorded.stored.len() / 2).collect();
        true
    }

    /// Loses an event, as if its row were gone; false if there is no such event.
    pub fn lose_record(&self, stream: &StreamName, revision: Revision) -> bool {
        let mut inner = self.lock();
        let Some(place) = inner.place(stream, revision) else { return false };
        inner.log.get_mut(place).is_some_and(|slot| slot.take().is_some())
    }

    /// Another store that holds the same events: what a backup is.
    #[must_use]
    pub fn copied(&self) -> Self {
        let inner = self.lock();
        let (log, streams) = (inner.log.clone(), inner.streams.clone());
        drop(inner);
        Self { inner: Arc::new(Mutex::new(Inner { log, streams, ..Inner::default() })) }
    }

    /// Closes the store: subscriptions end, everything else is unavailable.
    pub fn close(&self) {
        self.lock().durable = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(
        &mut self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> Result<Revision, AppendError> {
        if self.durable.is_none() {
            return Err(AppendError::Unavailable(CLOSED.to_owned()));
        }
        if self.fenced {
            return Err(AppendError::Fenced("an injected fault".to_owned()));
        }
        if self.is_full(urgency) {
            return Err(AppendError::Full);
        }
        match self.faults.pop_front().flatten() {
            None => self.write(stream, expected, events),
            Some(AppendFault::LoseAppendAck) => {
                self.write(stream, expected, events)?;
                Err(AppendError::Unknown("the acknowledgement was lost".to_owned()))
            }
            Some(AppendFault::DropAppend) => {
                Err(AppendError::Unknown("the append was dropped".to_owned()))
            }
            Some(AppendFault::RefuseAppend) => {
                Err(AppendError::Unavailable("an injected fault".to_owned()))
            }
            Some(AppendFault::RefuseFull) => Err(AppendError::Full),
            Some(AppendFault::FenceStore) => {
                self.fenced = true;
                Err(AppendError::Fenced("an injected fault".to_owned()))
            }
        }
    }

    fn write(
        &mut self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
    ) -> Result<Revision, AppendError> {
        let places = self.streams.entry(stream.clone()).or_default();
        let end = Revision(places.len() as u64);
        let current = end.0.checked_sub(1).map(Revision);
        if current != expected {
            return Err(AppendError::WrongExpectedRevision { stream: stream.clone(), current });
        }
        let mut last = end;
        for (NewEvent { stored, leaf_hash, .. }, revision) in events.into_iter().zip(end.0..) {
            last = Revision(revision);
            places.push(self.log.len());
            let stream = stream.clone();
            self.log.push(Some(Recorded { stream, revision: last, stored, leaf_hash }));
        }
        if let Some(durable) = &self.durable {
            durable.send_replace(());
        }
        Ok(last)
    }

    fn is_full(&self, urgency: Urgency) -> bool {
        self.full && urgency == Urgency::Normal
    }

    fn release_append(&mut self) -> bool {
        let held = self.held.as_mut().and_then(VecDeque::pop_front);
        held.is_some_and(|held| self.carry_out(held))
    }

    fn carry_out(&mut self, held: Held) -> bool {
        let result = self.append(&held.stream, held.expected, held.events, held.urgency);
        // Whoever asked may have dropped the future.
        let _ = held.answer.send(result);
        true
    }

    fn place(&self, stream: &StreamName, revision: Revision) -> Option<usize> {
        let index = usize::try_from(revision.0).ok()?;
        self.streams.get(stream)?.get(index).copied()
    }

    fn damage(
        &mut self,
        stream: &StreamName,
        revision: Revision,
        harm: impl FnOnce(&mut Recorded),
    ) -> bool {
        let Some(place) = self.place(stream, revision) else { return false };
        let Some(Some(recorded)) = self.log.get_mut(place) else { return false };
        harm(recorded);
        true
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        if self.durable.is_none() {
            return Err(ReadError::Unavailable(CLOSED.to_owned()));
        }
        let Some(places) = self.streams.get(stream) else { return Ok(Vec::new()) };
        let skip = usize::try_from(from.0).unwrap_or(usize::MAX);
        let wanted = places.iter().zip(0..).skip(skip).take(events_max.min(READ_EVENTS_MAX));
        wanted
            .map(|(place, revision)| match self.log.get(*place) {
                Some(Some(recorded)) => checked(recorded),
                Some(None) | None => Err(ReadError::Corrupt {
                    stream: stream.clone(),
                    revision: Revision(revision),
                    what: "the event is missing".to_owned(),
                }),
            })
            .collect()
    }

    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ReadItem>, ReadError> {
        if self.durable.is_none() {
            return Err(ReadError::Unavailable(CLOSED.to_owned()));
        }
        let skip = after.map_or(0, |Position(after)| usize::try_from(after).unwrap_or(usize::MAX));
        let wanted = self.log.iter().zip(1..).skip(skip).take(events_max.min(READ_EVENTS_MAX));
        Ok(wanted
            .map(|(slot, position)| {
                let position = Position(position);
                let Some(recorded) = slot else {
                    return Err((
                        position,
                        ReadError::Lost { events: Some(1), what: "an event is missing".to_owned() },
                    ));
                };
                match checked(recorded) {
                    Ok(recorded) => Ok(Positioned { position, recorded }),
                    Err(error) => Err((position, error)),
                }
            })
            .collect())
    }
}

const CLOSED: &str = "the store is closed";

fn checked(recorded: &Recorded) -> Result<Recorded, ReadError> {
    if LeafHash::of(&recorded.stored) == recorded.leaf_hash {
        return Ok(recorded.clone());
    }
    Err(ReadError::Corrupt {
        stream: recorded.stream.clone(),
        revision: recorded.revision,
        what: "the stored bytes do not have the leaf hash kept beside them".to_owned(),
    })
}

impl EventStore for MemoryStore {
    fn append(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> StoreFuture<Result<Revision, AppendError>> {
        if let Err(error) = check_limits(&events) {
            return Box::pin(ready(Err(error)));
        }
        let mut inner = self.lock();
        let Some(held) = &mut inner.held else {
            return Box::pin(ready(inner.append(stream, expected, events, urgency)));
        };
        let (answer, answered) = oneshot::channel();
        held.push_back(Held { stream: stream.clone(), expected, events, urgency, answer });
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(AppendError::Unknown(CLOSED.to_owned())))
        })
    }

    fn is_full(&self, urgency: Urgency) -> bool {
        self.lock().is_full(urgency)
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        Box::pin(ready(self.lock().read_stream(stream, from, events_max)))
    }

    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<ReadItem>, ReadError>> {
        Box::pin(ready(self.lock().read_all(after, events_max)))
    }

    fn subscribe_all(&self, after: Option<Position>) -> Box<dyn Subscription> {
        let durable = match &self.lock().durable {
            Some(durable) => durable.subscribe(),
            None => watch::channel(()).1,
        };
        let store = self.clone();
        CatchUp::boxed(move |after| store.read_all(after, READ_EVENTS_MAX), durable, after)
    }
}

#[cfg(test)]
mod tests;

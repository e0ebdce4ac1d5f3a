//! Appends that wait, a lane for each stream.
//!
//! Within a lane appends are carried out in the order in which they were asked for, one
//! call at a time. What waits and continues what is in front of it goes in one call, all or
//! none; where that fails, each is carried out alone, so that none fails for another.
//! Lanes do not wait for each other, but for one of few places at the engine.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use projections::recorded::{Revision, StreamName};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::settle::first_after;
use super::{CLOSED, Inner};
use crate::ledger::event_store::{APPEND_EVENTS_MAX, AppendError, NewEvent};

/// Most events that wait. More are refused, so that memory stays bounded.
const WAITING_EVENTS_MAX: usize = 65_536;
/// Most bytes of events that wait.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// Most bytes of events in one call that several appends share: less than the megabyte
/// that the engine takes unless told otherwise.
const SHARED_BYTES_MAX: usize = 512 << 10;
/// Most calls at the engine at once.
const CALLS_MAX: usize = 64;

/// One append and whom to answer.
pub(super) struct Request {
    pub(super) expected: Option<Revision>,
    pub(super) events: Vec<NewEvent>,
    pub(super) answer: oneshot::Sender<Result<Revision, AppendError>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.stored.len()).sum()
    }

    /// Where the stream ends behind it.
    fn last(&self) -> Option<Revision> {
        let events = u64::try_from(self.events.len()).ok()?;
        first_after(self.expected)?.0.checked_add(events - 1).map(Revision)
    }

    fn answer(self, outcome: Result<(), AppendError>) {
        let last = self.last().unwrap_or(Revision::FIRST);
        // Whoever asked may have dropped the future: the events stay.
        let _ = self.answer.send(outcome.map(|()| last));
    }
}

pub(super) struct Lanes {
    waiting: Mutex<Waiting>,
    calls: Semaphore,
    changed: Notify,
}

impl Default for Lanes {
    fn default() -> Self {
        let calls = Semaphore::new(CALLS_MAX);
        Self { waiting: Mutex::default(), calls, changed: Notify::new() }
    }
}

#[derive(Default)]
struct Waiting {
    lanes: HashMap<StreamName, VecDeque<Request>>,
    events: usize,
    bytes: usize,
    closed: bool,
}

/// Puts an append at the end of its lane. Never blocks: full lanes refuse.
pub(super) fn push(
    inner: &Arc<Inner>,
    stream: &StreamName,
    request: Request,
) -> Result<(), AppendError> {
    let mut waiting = inner.lanes.lock();
    if waiting.closed {
        return Err(AppendError::Unavailable(CLOSED.to_owned()));
    }
    let (events, bytes) = (request.events.len(), request.bytes());
    if waiting.events + events > WAITING_EVENTS_MAX || waiting.bytes + bytes > WAITING_BYTES_MAX {
        return Err(AppendError::Unavailable("too many appends are waiting".to_owned()));
    }
    waiting.events += events;
    waiting.bytes += bytes;
    if let Some(lane) = waiting.lanes.get_mut(stream) {
        lane.push_back(request);
        return Ok(());
    }
    waiting.lanes.insert(stream.clone(), VecDeque::from([request]));
    drop(waiting);
    inner.runtime.spawn(drive(Arc::clone(inner), stream.clone()));
    Ok(())
}

/// Carries out a lane's appends until none waits.
async fn drive(inner: Arc<Inner>, stream: StreamName) {
    loop {
        let Ok(place) = inner.lanes.calls.acquire().await else { return };
        let Some(batch) = inner.lanes.take(&stream) else { return };
        inner.carry_out(&stream, batch).await;
        drop(place);
    }
}

impl Lanes {
    /// Refuses what comes from now on; what waits is still carried out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Waits until every lane is empty.
    pub(super) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.lock().lanes.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// What goes next, in one call; none once the lane is empty, which ends it.
    fn take(&self, stream: &StreamName) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        let lane = waiting.lanes.get_mut(stream)?;
        let mut batch: Vec<Request> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(next) = lane.front() {
            let fits = events + next.events.len() <= APPEND_EVENTS_MAX
                && bytes + next.bytes() <= SHARED_BYTES_MAX;
            let continues = match batch.last() {
                None => true,
                Some(last) => fits && last.last().is_some() && next.expected == last.last(),
            };
            if !continues {
                break;
            }
            let Some(next) = lane.pop_front() else { break };
            events += next.events.len();
            bytes += next.bytes();
            batch.push(next);
        }
        if batch.is_empty() {
            waiting.lanes.remove(stream);
            self.changed.notify_waiters();
            return None;
        }
        waiting.events -= events;
        waiting.bytes -= bytes;
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn carry_out(&self, stream: &StreamName, batch: Vec<Request>) {
        let Some(expected) = batch.first().map(|first| first.expected) else { return };
        let events: Vec<NewEvent> =
            batch.iter().flat_map(|request| request.events.iter().cloned()).collect();
        let outcome = self.measured(stream, expected, &events, batch.len()).await;
        let nothing_written = matches!(
            outcome,
            Err(AppendError::WrongExpectedRevision { .. } | AppendError::Limits(_))
        );
        if batch.len() > 1 && nothing_written {
            for request in batch {
                let outcome = self.measured(stream, request.expected, &request.events, 1).await;
                request.answer(outcome);
            }
            return;
        }
        for request in batch {
            request.answer(outcome.clone());
        }
    }

    async fn measured(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
        appends: usize,
    ) -> Result<(), AppendError> {
        let began = Instant::now();
        let last = self.write(stream, expected, events).await?;
        self.stats.commit_ns.observe_time(began.elapsed());
        self.stats.committed(appends, events.len());
        self.known.saw(stream, first_after(expected).unwrap_or(last), last);
        self.announce();
        Ok(())
    }
}

//! Appends that wait for the writer, in the order in which they were asked for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use projections::recorded::{Revision, StreamName};
use tokio::sync::oneshot;

use crate::ledger::event_store::{AppendError, NewEvent};
use crate::ledger::urgency::Urgency;

/// Most events that wait. More are refused, so that memory stays bounded.
pub(super) const QUEUE_EVENTS_MAX: usize = 65_536;
/// Most bytes of events that wait.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Most events in one commit; an append is never split.
pub(super) const COMMIT_EVENTS_MAX: usize = 4_096;
/// Most bytes of events in one commit.
pub(super) const COMMIT_BYTES_MAX: usize = 16 << 20;

/// In how many parts the writer takes those who come late.
const LATE_PARTS: usize = 4;

/// One append and whom to answer.
pub(super) struct Request {
    pub(super) stream: StreamName,
    pub(super) expected: Option<Revision>,
    pub(super) events: Vec<NewEvent>,
    pub(super) urgency: Urgency,
    pub(super) answer: oneshot::Sender<Result<Revision, AppendError>>,
}

impl Request {
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.stored.len()).sum()
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct AppendQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    events: usize,
    bytes: usize,
    closed: bool,
    /// How many requests it takes to wake the writer.
    wake_at: usize,
}

impl AppendQueue {
    /// Puts a request at the end. Never blocks: a full or closed queue refuses.
    pub(super) fn push(&self, request: Request) -> Result<(), AppendError> {
        let bytes = request.bytes();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AppendError::Unavailable("the store is closed".to_owned()));
        }
        if waiting.events + request.events.len() > QUEUE_EVENTS_MAX
            || waiting.bytes + bytes > QUEUE_BYTES_MAX
        {
            return Err(AppendError::Unavailable("too many appends are waiting".to_owned()));
        }
        waiting.events += request.events.len();
        waiting.bytes += bytes;
        waiting.requests.push_back(request);
        let wake = waiting.requests.len() >= waiting.wake_at;
        drop(waiting);
        if wake {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// Refuses what comes from now on; what waits is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Drops what waits: nobody will take it.
    pub(super) fn abandon(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.requests.clear();
    }

    /// Takes a commit's first requests; none once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        waiting.wake_at = 1;
        let mut waiting = self
            .changed
            .wait_while(waiting, |waiting| waiting.requests.is_empty() && !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        waiting.wake_at = usize::MAX;
        let mut batch = Vec::new();
        waiting.take_batch(&mut batch);
        if batch.is_empty() { None } else { Some(batch) }
    }

    /// Adds to a commit that has begun: waits until `until` for it to have `company`
    /// requests. False when no more should be waited for.
    pub(super) fn take_late(
        &self,
        batch: &mut Vec<Request>,
        company: usize,
        until: Instant,
    ) -> bool {
        let taken = batch.len();
        let Some(missing) = company.checked_sub(taken).filter(|missing| *missing > 0) else {
            return false;
        };
        let mut waiting = self.lock();
        // Woken for a part, so that placing and coming overlap, but not for each.
        waiting.wake_at = missing.div_ceil(LATE_PARTS);
        while waiting.requests.is_empty() && !waiting.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.wake_at = usize::MAX;
        waiting.take_batch(batch);
        batch.len() > taken
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Moves what fits into one commit to the end of `batch`.
    fn take_batch(&mut self, batch: &mut Vec<Request>) {
        let mut events: usize = batch.iter().map(|request| request.events.len()).sum();
        let mut bytes: usize = batch.iter().map(Request::bytes).sum();
        while let Some(request) = self.requests.pop_front() {
            let (more_events, more_bytes) = (request.events.len(), request.bytes());
            let fits =
                events + more_events <= COMMIT_EVENTS_MAX && bytes + more_bytes <= COMMIT_BYTES_MAX;
            if !batch.is_empty() && !fits {
                self.requests.push_front(request);
                return;
            }
            self.events -= more_events;
            self.bytes -= more_bytes;
            events += more_events;
            bytes += more_bytes;
            batch.push(request);
        }
    }
}

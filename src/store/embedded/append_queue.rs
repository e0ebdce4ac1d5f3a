//! Appends that wait for the writer, in the order in which they were asked for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use projections::recorded::{Revision, StreamName};
use tokio::sync::oneshot;

use crate::ledger::event_store::{AppendError, NewEvent};

/// Most events that wait. More are refused, so that memory stays bounded.
pub(super) const QUEUE_EVENTS_MAX: usize = 65_536;
/// Most bytes of events that wait.
pub(super) const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Most events in one commit; an append is never split.
pub(super) const COMMIT_EVENTS_MAX: usize = 4_096;
/// Most bytes of events in one commit.
pub(super) const COMMIT_BYTES_MAX: usize = 16 << 20;

/// One append and whom to answer.
pub(super) struct Request {
    pub(super) stream: StreamName,
    pub(super) expected: Option<Revision>,
    pub(super) events: Vec<NewEvent>,
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

    /// Takes the next commit's requests; none once the queue is closed and empty.
    ///
    /// Whoever was answered together tends to ask again together. So once there is one
    /// request, those up to `company` are waited for, for at most `patience`.
    pub(super) fn take(&self, company: usize, patience: Duration) -> Option<Vec<Request>> {
        let mut waiting = self.lock();
        waiting.wake_at = 1;
        let mut waiting = self
            .changed
            .wait_while(waiting, |waiting| waiting.requests.is_empty() && !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.requests.len() < company && !patience.is_zero() {
            waiting.wake_at = company;
            waiting = self.wait_for_company(waiting, company, patience);
        }
        waiting.wake_at = usize::MAX;
        let batch = waiting.take_batch();
        if batch.is_empty() { None } else { Some(batch) }
    }

    fn wait_for_company<'a>(
        &self,
        mut waiting: MutexGuard<'a, Waiting>,
        company: usize,
        patience: Duration,
    ) -> MutexGuard<'a, Waiting> {
        let until = Instant::now() + patience;
        while waiting.requests.len() < company && !waiting.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting =
                self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take_batch(&mut self) -> Vec<Request> {
        let (mut count, mut events, mut bytes) = (0, 0, 0);
        for request in &self.requests {
            let (more_events, more_bytes) =
                (events + request.events.len(), bytes + request.bytes());
            let fits = more_events <= COMMIT_EVENTS_MAX && more_bytes <= COMMIT_BYTES_MAX;
            if count > 0 && !fits {
                break;
            }
            (count, events, bytes) = (count + 1, more_events, more_bytes);
        }
        self.events -= events;
        self.bytes -= bytes;
        self.requests.drain(..count).collect()
    }
}

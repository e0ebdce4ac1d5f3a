//! Appends that wait, a lane for each stream.
//!
//! Within a lane appends are carried out in the order in which they were asked for, one
//! call at a time. What waits and continues what is in front of it goes in one call, all or
//! none; where the engine will not take them together, each is carried out alone. What
//! continues an append that failed fails with it and is never sent: another's event may
//! stand where the failed one's would, and it was not decided on that. That holds until
//! whoever asked has taken back what relies on it. No other append fails.
//! Lanes do not wait for each other, but for one of few places at the engine.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use projections::recorded::{Revision, StreamName};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::settle::{Unwritten, first_after};
use super::{CLOSED, Inner, NO_LEAVE};
use crate::ledger::event_store::{APPEND_EVENTS_MAX, AppendError, NewEvent, check_limits};

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
        first_after(self.expected)?.0.checked_add(events.checked_sub(1)?).map(Revision)
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
    /// Where streams would end behind appends that failed, until those who asked for them
    /// have taken back what they decided on them.
    failed: HashMap<StreamName, HashSet<Revision>>,
    events: usize,
    bytes: usize,
    closed: bool,
}

/// Puts an append at the end of its lane. Never blocks: full lanes refuse.
pub(super) fn push(inner: &Arc<Inner>, stream: &StreamName, request: Request) {
    let mut waiting = inner.lanes.lock();
    let (events, bytes) = (request.events.len(), request.bytes());
    let refusal = check_limits(&request.events).err().or_else(|| {
        let full = waiting.events + events > WAITING_EVENTS_MAX
            || waiting.bytes + bytes > WAITING_BYTES_MAX;
        let what = match (waiting.closed, full) {
            (true, _) => CLOSED,
            (_, true) => "too many appends are waiting",
            (false, false) => return None,
        };
        Some(AppendError::Unavailable(what.to_owned()))
    });
    if let Some(error) = refusal {
        waiting.fail(inner, stream, &request);
        drop(waiting);
        return request.answer(Err(error));
    }
    waiting.events += events;
    waiting.bytes += bytes;
    if let Some(lane) = waiting.lanes.get_mut(stream) {
        lane.push_back(request);
        return;
    }
    waiting.lanes.insert(stream.clone(), VecDeque::from([request]));
    drop(waiting);
    inner.runtime.spawn(drive(Arc::clone(inner), stream.clone()));
}

/// Carries out a lane's appends until none waits.
async fn drive(inner: Arc<Inner>, stream: StreamName) {
    loop {
        let Ok(place) = inner.lanes.calls.acquire().await else { return };
        let Some((refused, batch)) = inner.lanes.take(&inner, &stream) else { return };
        for request in refused {
            let current = inner.known.head(&stream);
            let stream = stream.clone();
            request.answer(Err(AppendError::WrongExpectedRevision { stream, current }));
        }
        inner.carry_out(&stream, batch).await;
        drop(place);
    }
}

impl Waiting {
    /// What continues this append is not to be sent, unless what stands at its place was
    /// written here before.
    fn fail(&mut self, inner: &Inner, stream: &StreamName, request: &Request) {
        let Some(last) = request.last() else { return };
        if inner.known.written(stream) < Some(last) {
            self.failed.entry(stream.clone()).or_default().insert(last);
        }
    }

    fn relies_on_failed(&self, stream: &StreamName, request: &Request) -> bool {
        let failed = self.failed.get(stream);
        failed.zip(request.expected).is_some_and(|(failed, expected)| failed.contains(&expected))
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

    /// Nothing that is asked for from here on relies on appends that failed.
    pub(super) fn taken_back(&self, stream: &StreamName) {
        self.lock().failed.remove(stream);
    }

    fn fail(&self, inner: &Inner, stream: &StreamName, requests: &[Request]) {
        let mut waiting = self.lock();
        for request in requests {
            waiting.fail(inner, stream, request);
        }
    }

    /// What stands at these places is ours.
    fn succeed(&self, stream: &StreamName, requests: &[Request]) {
        let mut waiting = self.lock();
        let Some(failed) = waiting.failed.get_mut(stream) else { return };
        for last in requests.iter().filter_map(Request::last) {
            failed.remove(&last);
        }
        if failed.is_empty() {
            waiting.failed.remove(stream);
        }
    }

    /// What fails with what it relies on, and what goes next, in one call; none once the lane
    /// is empty, which ends it.
    fn take(&self, inner: &Inner, stream: &StreamName) -> Option<(Vec<Request>, Vec<Request>)> {
        let mut waiting = self.lock();
        let mut lane = std::mem::take(waiting.lanes.get_mut(stream)?);
        let mut refused = Vec::new();
        while let Some(next) = lane.pop_front_if(|next| waiting.relies_on_failed(stream, next)) {
            waiting.fail(inner, stream, &next);
            refused.push(next);
        }
        let mut batch: Vec<Request> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(next) = lane.front() {
            let fits = events + next.events.len() <= APPEND_EVENTS_MAX
                && bytes + next.bytes() <= SHARED_BYTES_MAX;
            let continues = match batch.last() {
                None => true,
                // Not what continues what was written here before: the one in front must fail.
                Some(last) => {
                    fits && last.last() > inner.known.written(stream)
                        && next.expected == last.last()
                }
            };
            if !continues {
                break;
            }
            let Some(next) = lane.pop_front() else { break };
            events += next.events.len();
            bytes += next.bytes();
            batch.push(next);
        }
        for request in &refused {
            events += request.events.len();
            bytes += request.bytes();
        }
        waiting.events -= events;
        waiting.bytes -= bytes;
        if batch.is_empty() && refused.is_empty() {
            waiting.lanes.remove(stream);
            self.changed.notify_waiters();
            return None;
        }
        waiting.lanes.insert(stream.clone(), lane);
        Some((refused, batch))
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
        match outcome {
            Err(Unwritten { divisible: true, .. }) if batch.len() > 1 => {
                self.carry_out_apart(stream, batch).await;
            }
            Ok(()) => {
                self.lanes.succeed(stream, &batch);
                batch.into_iter().for_each(|request| request.answer(Ok(())));
            }
            // Unknown of one is unknown of all: they were sent together.
            Err(Unwritten { error, .. }) => {
                self.lanes.fail(self, stream, &batch);
                batch.into_iter().for_each(|request| request.answer(Err(error.clone())));
            }
        }
    }

    /// One by one, as far as they succeed.
    async fn carry_out_apart(&self, stream: &StreamName, batch: Vec<Request>) {
        let mut batch = batch.into_iter();
        while let Some(request) = batch.next() {
            let outcome = self.measured(stream, request.expected, &request.events, 1).await;
            let one = [request];
            match outcome {
                Ok(()) => {
                    self.lanes.succeed(stream, &one);
                    one.into_iter().for_each(|request| request.answer(Ok(())));
                }
                Err(Unwritten { error, .. }) => {
                    self.lanes.fail(self, stream, &one);
                    self.lanes.fail(self, stream, batch.as_slice());
                    one.into_iter().for_each(|request| request.answer(Err(error.clone())));
                    let current = self.known.head(stream);
                    let stream = stream.clone();
                    let error = AppendError::WrongExpectedRevision { stream, current };
                    return batch.for_each(|request| request.answer(Err(error.clone())));
                }
            }
        }
    }

    async fn measured(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
        appends: usize,
    ) -> Result<(), Unwritten> {
        if !self.may_answer() {
            return Err(AppendError::Unavailable(NO_LEAVE.to_owned()).into());
        }
        let began = Instant::now();
        let last = self.write(stream, expected, events).await?;
        self.stats.commit_ns.observe_time(began.elapsed());
        self.stats.committed(appends, events.len());
        self.known.wrote(stream, first_after(expected).unwrap_or(last), last);
        self.announce();
        Ok(())
    }
}

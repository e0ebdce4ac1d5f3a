//! `VerifyStream`: questions as they come, answers in their order.
//!
//! [`Answers`] is polled by the side that sends: a question is read when an answer can be
//! sent, and never before, so a client that does not read makes nothing grow. Beside each
//! stream a [`Watchman`] looks, once a second, whether it should end though nothing is
//! asked: it holds the stream's place, so that the place is free even where the client
//! takes no answers and nobody polls.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use projections::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Asked, NoDecision, Verification, Wrong, answer, decide, question, revisions};
use crate::ledger::break_glass::Emergency;
use crate::ledger::dead::DeadTicket;
use crate::ledger::{Ledger, permissions};
use crate::proto::{StreamRevision, VerifyRequest, VerifyStreamRequest};
use crate::services::authentication::{
    Authenticated, Shown, authenticate_again, authenticate_at, authenticate_message, shown,
};
use crate::services::wire::Written;
use crate::services::wire::writer::{nested, number};
use crate::services::{Door, Stay, status};

/// How long a stream may be without a question.
pub const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often the caller's own key is looked at though nothing is asked.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Verification {
    /// `VerifyStream`.
    pub fn verify_stream<S>(&self, request: Request<S>) -> Result<Response<Answers<S>>, Status>
    where
        S: Stream<Item = Result<VerifyStreamRequest, Status>> + Unpin,
    {
        let entered = self.door.enter()?;
        let ledger = Arc::clone(entered.ledger());
        let now = ledger.clock().now();
        let asker = authenticate_at(&ledger, &request, permissions::CREDENTIALS_VERIFY, now)?;
        if matches!(asker.caller, crate::ledger::command::Caller::BreakGlass { .. }) {
            return Err(status::no_stream_under_grant());
        }
        let caller = Caller { shown: shown(&ledger, &request)?, ledger };
        let stay = self.door.stay(entered, asker.organization_id)?;
        let asked = Arc::new(AtomicU64::new(0));
        let (tell, told) = oneshot::channel();
        let watchman = Watchman {
            caller: caller.clone(),
            door: self.door.clone(),
            asked: Arc::clone(&asked),
            idle_max: self.idle_max,
            _stay: stay,
        };
        tokio::spawn(watchman.watch(tell));
        Ok(Response::new(Answers {
            questions: request.into_inner(),
            caller,
            door: self.door.clone(),
            waiting: None,
            asked,
            told,
            over: false,
        }))
    }
}

/// Whose stream it is.
#[derive(Clone)]
struct Caller {
    shown: Shown,
    ledger: Arc<Ledger>,
}

impl Caller {
    /// Who asks, if they may, now.
    fn look(&self) -> Result<(Authenticated, Timestamp), Status> {
        let now = self.ledger.clock().now();
        let permission = permissions::CREDENTIALS_VERIFY;
        Ok((authenticate_again(&self.ledger, &self.shown, permission, now)?, now))
    }

    /// Who asks another question, if they may, now.
    fn ask(&self) -> Result<(Authenticated, Timestamp), Status> {
        let now = self.ledger.clock().now();
        let permission = permissions::CREDENTIALS_VERIFY;
        Ok((authenticate_message(&self.ledger, &self.shown, permission, now)?, now))
    }
}

/// Ends a stream though nothing is asked on it.
struct Watchman {
    caller: Caller,
    door: Door,
    asked: Arc<AtomicU64>,
    idle_max: Duration,
    _stay: Stay,
}

impl Watchman {
    /// Tells the stream how it ends, unless it has ended by itself.
    async fn watch(self, mut tell: oneshot::Sender<Status>) {
        let end = tokio::select! {
            () = tell.closed() => return,
            () = self.door.closing() => status::closing(),
            end = self.look_on() => end,
        };
        // A stream that has ended meanwhile needs no telling.
        let _ = tell.send(end);
    }

    async fn look_on(&self) -> Status {
        let mut looks = tokio::time::interval(LOOK_EVERY.min(self.idle_max));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut since) = (0, Instant::now());
        loop {
            looks.tick().await;
            if let Err(status) = self.door.check_contact().and_then(|()| self.caller.look()) {
                return status;
            }
            let asked = self.asked.load(Ordering::Relaxed);
            if asked != last {
                (last, since) = (asked, Instant::now());
            } else if since.elapsed() >= self.idle_max {
                return status::idle();
            }
        }
    }
}

/// The answers to a stream of questions.
pub struct Answers<S> {
    questions: S,
    caller: Caller,
    door: Door,
    waiting: Option<Waiting>,
    asked: Arc<AtomicU64>,
    told: oneshot::Receiver<Status>,
    over: bool,
}

/// A question that must not be decided yet.
struct Waiting {
    id: u64,
    question: VerifyRequest,
    reached: Pin<Box<dyn Future<Output = Result<Option<Written>, Status>> + Send>>,
    /// Whether its key was read from the disk already.
    recalled: bool,
}

impl<S> Stream for Answers<S>
where
    S: Stream<Item = Result<VerifyStreamRequest, Status>> + Unpin,
{
    type Item = Result<Written, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        // One who asks without pause leaves others their turn.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        let next = ready!(this.poll_answer(context));
        turn.made_progress();
        this.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl<S> Answers<S>
where
    S: Stream<Item = Result<VerifyStreamRequest, Status>> + Unpin,
{
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Written, Status>>> {
        if let Poll::Ready(end) = Pin::new(&mut self.told).poll(context) {
            return Poll::Ready(Some(Err(end.unwrap_or_else(|_| status::closing()))));
        }
        if self.waiting.is_none() {
            let message = match ready!(Pin::new(&mut self.questions).poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(message)) => message,
            };
            self.asked.fetch_add(1, Ordering::Relaxed);
            match self.asked(message) {
                Ok(Some(answer)) => return Poll::Ready(Some(Ok(answer))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
        let Some(mut waiting) = self.waiting.take() else { return Poll::Ready(None) };
        match waiting.reached.as_mut().poll(context) {
            Poll::Pending => {
                self.waiting = Some(waiting);
                Poll::Pending
            }
            Poll::Ready(reached) => {
                // Anew: what was waited for may be the end of the asker's own key.
                let asks = match self.door.check_contact().and_then(|()| self.caller.look()) {
                    Ok(asks) => asks,
                    Err(status) => return Poll::Ready(Some(Err(status))),
                };
                let (id, question) = (waiting.id, waiting.question);
                let answer = match reached {
                    // It was recorded, and is the answer.
                    Ok(Some(answer)) => answer,
                    Ok(None) => match self.answer(asks, id, &question) {
                        // Once only: what cannot be read is not read again and again.
                        Err(Later::Recall(_)) if waiting.recalled => {
                            undecided(id, &status::not_recalled())
                        }
                        Err(later) => {
                            self.waiting = Some(self.later(later, asks, id, question));
                            return self.poll_answer(context);
                        }
                        Ok(answer) => answer,
                    },
                    Err(status) => undecided(id, &status),
                };
                Poll::Ready(Some(Ok(answer)))
            }
        }
    }

    /// A question that something must be done for first.
    fn later(
        &self,
        later: Later,
        (asker, now): (Authenticated, Timestamp),
        id: u64,
        question: VerifyRequest,
    ) -> Waiting {
        let (ledger, door) = (Arc::clone(&self.caller.ledger), self.door.clone());
        match later {
            Later::Recall(ticket) => {
                let reached = Box::pin(async move {
                    ledger.recall(ticket).await;
                    Ok(None)
                });
                Waiting { id, question, reached, recalled: true }
            }
            Later::Record(shown) => {
                let about = question.clone();
                let reached = Box::pin(async move {
                    let trusted_proxies = door.trusted_proxies();
                    let asked =
                        Asked { ledger: &ledger, trusted_proxies, asking: asker.asking(), now };
                    let recorded = record(&ledger, asked, (shown, id), &about).await;
                    Ok(Some(recorded.unwrap_or_else(|no| undecided(id, &no.status("question.")))))
                });
                Waiting { id, question, reached, recalled: true }
            }
        }
    }

    /// The answer to a message, or none where it must be waited for. An error ends the
    /// stream.
    fn asked(&mut self, message: VerifyStreamRequest) -> Result<Option<Written>, Status> {
        self.door.check_contact()?;
        let (asker, now) = self.caller.ask()?;
        let id = message.id;
        let Some(mut question) = message.question else {
            let wrong = Wrong::new("question", "is missing; ask one");
            return Ok(Some(undecided(id, &wrong.status(""))));
        };
        if question.at_least_revision.is_empty() {
            return match self.answer((asker, now), id, &question) {
                Ok(answer) => Ok(Some(answer)),
                Err(later) => {
                    self.waiting = Some(self.later(later, (asker, now), id, question));
                    Ok(None)
                }
            };
        }
        let wanted = std::mem::take(&mut question.at_least_revision);
        let (door, ledger) = (self.door.clone(), Arc::clone(&self.caller.ledger));
        let reached = Box::pin(reach(door, ledger, asker, wanted));
        self.waiting = Some(Waiting { id, question, reached, recalled: false });
        Ok(None)
    }

    /// The answer to a question, or what must be done for it first.
    fn answer(
        &self,
        (asker, now): (Authenticated, Timestamp),
        id: u64,
        question: &VerifyRequest,
    ) -> Result<Written, Later> {
        let ledger = &self.caller.ledger;
        let trusted_proxies = self.door.trusted_proxies();
        let asked = Asked { ledger, trusted_proxies, asking: asker.asking(), now };
        let mut out = Vec::with_capacity(answer::ROOM_BYTES);
        number(&mut out, 1, id);
        let decided = question::correlation_id_or_new(ledger, &question.correlation_id)
            .map_err(NoDecision::Wrong)
            .and_then(|correlation_id| {
                nested(&mut out, 2, |out| decide(asked, question, &correlation_id, out))
            });
        match decided {
            Ok(_) => Ok(Written(out)),
            Err(NoDecision::Elsewhere(ticket)) => Err(Later::Recall(ticket)),
            Err(NoDecision::Emergency(shown)) => Err(Later::Record(shown)),
            Err(no) => Ok(undecided(id, &no.status("question."))),
        }
    }
}

async fn reach(
    door: Door,
    ledger: Arc<Ledger>,
    asker: Authenticated,
    wanted: Vec<StreamRevision>,
) -> Result<Option<Written>, Status> {
    revisions::reach(&door, &ledger, &asker, &wanted, "question.").await.map(|()| None)
}

/// What must be done before a question can be answered.
enum Later {
    /// Its key is read from the disk.
    Recall(DeadTicket),
    /// It is about a credential of break-glass, and recorded.
    Record(Emergency),
}

/// Records a question about a credential of break-glass, and gives the answer.
async fn record(
    ledger: &Arc<Ledger>,
    asked: Asked<'_>,
    (shown, id): (Emergency, u64),
    question: &VerifyRequest,
) -> Result<Written, NoDecision> {
    let correlation_id = question::correlation_id_or_new(ledger, &question.correlation_id)
        .map_err(NoDecision::Wrong)?;
    let mut answer = Vec::with_capacity(answer::ROOM_BYTES);
    let shown = (shown, &*correlation_id);
    super::decide_emergency(ledger, asked, question, shown, &mut answer).await?;
    let mut out = Vec::with_capacity(answer.len() + answer::ROOM_BYTES);
    number(&mut out, 1, id);
    nested(&mut out, 2, |out| out.extend_from_slice(&answer));
    Ok(Written(out))
}

/// The message that says why a question was not decided.
fn undecided(id: u64, status: &Status) -> Written {
    let mut out = Vec::new();
    number(&mut out, 1, id);
    nested(&mut out, 3, |out| answer::undecided(status, out));
    Written(out)
}

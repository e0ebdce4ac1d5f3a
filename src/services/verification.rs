//! VerificationService: the question that every request of the tenants' products asks,
//! alone, in batches and in streams.
//!
//! A request is read in [`question`], the answer is written in [`answer`], and
//! [`decide`] is between them; all methods go this one way.

mod answer;
mod batch;
pub(super) mod emergency;
mod question;
mod revisions;
pub mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use projections::id::OrganizationId;
use projections::presented::Presented;
use projections::time::Timestamp;
use projections::verification::Question;
use tonic::{Request, Status};

pub use batch::{BATCH_ANSWER_BYTES_MAX, BATCH_BYTES_MAX, QUESTIONS_MAX};
pub use revisions::{REVISION_WAIT_MAX, REVISIONS_MAX};
pub use stream::{Answers, IDLE_MAX, LOOK_EVERY};

use super::answers::{self, ANSWERS};
use super::authentication::{authenticate_again, authenticate_at, shown};
use super::wire::unary::Framed;
use super::{Door, status};
use crate::ledger::break_glass::Emergency;
use crate::ledger::dead::DeadTicket;
use crate::ledger::verify::{Answer, Asking, Purpose, Reach};
use crate::ledger::{Ledger, LedgerError, permissions};
use crate::proto;
use crate::spans;
use question::Wrong;

/// The service.
pub struct Verification {
    door: Door,
    idle_max: Duration,
}

/// Why a question was not decided.
enum NoDecision {
    /// It is wrong itself.
    Wrong(Wrong),
    /// The history of the organization it is about proved corrupt.
    Stopped(OrganizationId),
    /// It is about a key that ended long ago, which must be read from the disk first:
    /// [`Ledger::recall`].
    Elsewhere(DeadTicket),
    /// It is about a credential of break-glass: what comes of it must be recorded first.
    Emergency(Emergency),
    /// That could not be recorded.
    Unrecorded(Box<LedgerError>),
}

impl NoDecision {
    /// As an error, where the question stands at this path of the request.
    fn status(self, path: &str) -> Status {
        match self {
            Self::Wrong(wrong) => wrong.status(path),
            Self::Stopped(id) => status::stopped(id),
            Self::Elsewhere(_) => status::not_recalled(),
            // Whoever may decide it records it.
            Self::Emergency(_) => status::starting(),
            Self::Unrecorded(error) => status::from(*error),
        }
    }
}

/// Decides again, where a key must be read from the disk first.
async fn recalled<T>(
    ledger: &Ledger,
    first: Result<T, NoDecision>,
    again: impl FnOnce() -> Result<T, NoDecision>,
) -> Result<T, NoDecision> {
    match first {
        Err(NoDecision::Elsewhere(ticket)) => {
            // If it cannot be read, the second answer says so.
            ledger.recall(ticket).await;
            again()
        }
        decided => decided,
    }
}

impl Verification {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door, idle_max: IDLE_MAX }
    }

    fn asked<'a>(&'a self, ledger: &'a Ledger, asking: Asking, now: Timestamp) -> Asked<'a> {
        Asked { ledger, trusted_proxies: self.door.trusted_proxies(), asking, now }
    }

    /// `Verify`.
    pub async fn verify(&self, request: Request<proto::VerifyRequest>) -> Result<Framed, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let mut now = ledger.clock().now();
        let mut asker = authenticate_at(ledger, &request, permissions::CREDENTIALS_VERIFY, now)?;
        let message = request.get_ref();
        if !message.at_least_revision.is_empty() {
            revisions::reach(&self.door, ledger, &asker, &message.at_least_revision, "").await?;
            now = ledger.clock().now();
            // What was waited for may be the end of the asker's own key.
            let shown = shown(ledger, &request)?;
            asker = authenticate_again(ledger, &shown, permissions::CREDENTIALS_VERIFY, now)?;
        }
        let correlation_id = question::correlation_id_or_new(ledger, &message.correlation_id)
            .map_err(|wrong| wrong.status(""))?;
        spans::note_correlation_id(&correlation_id);
        let mut out = Framed::with_room(answer::ROOM_BYTES);
        let asked = self.asked(ledger, asker.asking(), now);
        let code = decide(asked, message, &correlation_id, out.message());
        let again = || decide(asked, message, &correlation_id, out.message());
        let code = match recalled(ledger, code, again).await {
            Err(NoDecision::Emergency(shown)) => {
                decide_emergency(ledger, asked, message, (shown, &correlation_id), out.message())
                    .await
            }
            code => code,
        };
        let code = code.map_err(|it| it.status(""))?;
        spans::note_decision(|| answers::name(code.into()));
        Ok(out)
    }
}

/// Who asks, when, and whose word is taken for where a subject's request came from.
#[derive(Clone, Copy)]
struct Asked<'a> {
    ledger: &'a Ledger,
    trusted_proxies: &'a [IpNet],
    asking: Asking,
    now: Timestamp,
}

impl Asked<'_> {
    /// The same, to know only: nothing is noted of it.
    fn looking(self) -> Self {
        Self { asking: Asking { purpose: Purpose::Look, ..self.asking }, ..self }
    }
}

/// What is asked in a request that names its credential otherwise.
pub(super) fn question_of<'a>(
    ledger: &Ledger,
    message: &'a proto::VerifyRequest,
    now: Timestamp,
) -> Result<Question<'a>, Status> {
    let asking = Asking { reach: Reach::Installation, purpose: Purpose::Look };
    let asked = Asked { ledger, trusted_proxies: &[], asking, now };
    let read = question::read(message, asked);
    read.map(|(_, question)| question).map_err(|wrong| wrong.status(""))
}

/// The message of a decision.
pub(super) fn message(answer: Answer<'_>) -> Result<proto::VerifyResponse, Status> {
    let mut out = Vec::with_capacity(answer::ROOM_BYTES);
    answer::write(answer, "", &mut out).map_err(|it| it.status(""))?;
    // It was written a line above.
    prost::Message::decode(&*out).map_err(|_| status::not_recalled())
}

/// Decides one question, appends the `VerifyResponse`, and gives its code. Where it cannot
/// be decided, nothing is appended that the caller may keep.
fn decide(
    asked: Asked<'_>,
    message: &proto::VerifyRequest,
    correlation_id: &str,
    out: &mut Vec<u8>,
) -> Result<proto::DecisionCode, NoDecision> {
    let (presented, question) = question::read(message, asked).map_err(NoDecision::Wrong)?;
    decide_read(asked, (presented, &question), correlation_id, out)
}

/// As [`decide`], for a question about this credential of break-glass.
async fn decide_emergency(
    ledger: &Arc<Ledger>,
    asked: Asked<'_>,
    message: &proto::VerifyRequest,
    (shown, correlation_id): (Emergency, &str),
    out: &mut Vec<u8>,
) -> Result<proto::DecisionCode, NoDecision> {
    let (_, question) = question::read(message, asked).map_err(NoDecision::Wrong)?;
    let reason = emergency::reason(message);
    emergency::decide(ledger, asked, (shown, reason), &question, correlation_id, out).await
}

/// As [`decide`], for a question that was read already.
fn decide_read(
    asked: Asked<'_>,
    (presented, question): (Presented<'_>, &Question<'_>),
    correlation_id: &str,
    out: &mut Vec<u8>,
) -> Result<proto::DecisionCode, NoDecision> {
    let began = ANSWERS.asked();
    let code = asked
        .ledger
        .verify(presented, question, asked.asking, |it| answer::write(it, correlation_id, out))?;
    if asked.asking.purpose != Purpose::Look {
        ANSWERS.answered(&began, code.into());
    }
    Ok(code)
}

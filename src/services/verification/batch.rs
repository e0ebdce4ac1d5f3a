//! `VerifyBatch`: many questions, one caller, one instant.

use std::time::{Duration, Instant};

use tonic::{Request, Status};

use super::{
    Asked, NoDecision, Verification, Wrong, answer, decide_read, question, recalled, revisions,
};
use crate::ledger::permissions;
use crate::proto;
use crate::services::authentication::{authenticate_again, authenticate_at, shown};
use crate::services::status;
use crate::services::wire::unary::Framed;
use crate::services::wire::writer::nested;
use crate::spans;

/// Most questions of one batch. `build.rs` holds the wire to it.
pub const QUESTIONS_MAX: usize = 1_000;
/// Most bytes of a batch's request.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a batch's decisions: what clients take unless told otherwise is 4 MiB,
/// and a question that finds no room still gets its answer, that there is none.
pub const BATCH_ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// While decisions come to no more than this there is room for any other: what a key and
/// its roles say stands in events, and all of theirs together are shorter.
const ROOM_FOR_ANY_BYTES: usize = BATCH_ANSWER_BYTES_MAX / 2;
/// How long questions are decided before others get their turn.
const TURN_MAX: Duration = Duration::from_millis(1);
/// As many questions and wanted permissions are decided without a look at the clock.
const WORK_PER_LOOK: usize = 16;

impl Verification {
    /// `VerifyBatch`.
    pub async fn verify_batch(
        &self,
        request: Request<proto::VerifyBatchRequest>,
    ) -> Result<Framed, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let mut now = ledger.clock().now();
        let mut asker = authenticate_at(ledger, &request, permissions::CREDENTIALS_VERIFY, now)?;
        let message = request.get_ref();
        if message.questions.is_empty() || message.questions.len() > QUESTIONS_MAX {
            return Err(status::invalid("questions", "must be 1 to 1,000"));
        }
        let correlation_id = question::correlation_id_or_new(ledger, &message.correlation_id)
            .map_err(|wrong| wrong.status(""))?;
        spans::note_correlation_id(&correlation_id);
        if !message.at_least_revision.is_empty() {
            revisions::reach(&self.door, ledger, &asker, &message.at_least_revision, "").await?;
            now = ledger.clock().now();
            // What was waited for may be the end of the asker's own key.
            let shown = shown(ledger, &request)?;
            asker = authenticate_again(ledger, &shown, permissions::CREDENTIALS_VERIFY, now)?;
        }
        let asked = self.asked(ledger, asker.asking(), now);
        let mut framed = Framed::with_room(message.questions.len() * answer::ROOM_BYTES);
        let out = framed.message();
        // All are read before one is decided: what is refused whole uses no key.
        let mut read = Vec::with_capacity(message.questions.len());
        for (place, message) in message.questions.iter().enumerate() {
            let wrong = |wrong: Wrong| wrong.status(&format!("questions[{place}]."));
            let correlation_id = own_correlation_id(message, &correlation_id).map_err(wrong)?;
            read.push((question::read(message, asked).map_err(wrong)?, correlation_id));
        }
        let (mut turn, mut work) = (Instant::now(), 0);
        for ((question, correlation_id), message) in read.into_iter().zip(&message.questions) {
            // Some questions take a thousand times as long as others.
            if work >= WORK_PER_LOOK {
                work = 0;
                if turn.elapsed() >= TURN_MAX {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
            }
            work += 1 + message.permissions.len();
            let before = out.len();
            let (presented, question) = question;
            let mut decide_it = |asked: Asked<'_>| {
                out.truncate(before);
                nested(out, 1, |out| {
                    nested(out, 1, |out| {
                        decide_read(asked, (presented, &question), correlation_id, out)
                    })
                })?;
                Ok(out.len())
            };
            // An answer that is not given is no use of the key and costs none of its tokens.
            let first = if before > ROOM_FOR_ANY_BYTES { asked.looking() } else { asked };
            let mut decided = decide_it(first);
            decided = recalled(ledger, decided, || decide_it(first)).await;
            if before > ROOM_FOR_ANY_BYTES
                && decided.as_ref().is_ok_and(|length| *length <= BATCH_ANSWER_BYTES_MAX)
            {
                decided = decide_it(asked);
            }
            if let Err(NoDecision::Emergency(shown)) = decided {
                // Whether or not there is room for its answer: it is recorded first.
                let mut answer = Vec::with_capacity(answer::ROOM_BYTES);
                let shown = (shown, correlation_id);
                let code = super::decide_emergency(ledger, asked, message, shown, &mut answer);
                decided = code.await.map(|_| {
                    out.truncate(before);
                    nested(out, 1, |out| nested(out, 1, |out| out.extend_from_slice(&answer)));
                    out.len()
                });
            }
            let undecided = match decided {
                Err(no_decision) => no_decision.status(""),
                Ok(length) if length > BATCH_ANSWER_BYTES_MAX => status::answer_too_large(),
                Ok(_) => continue,
            };
            out.truncate(before);
            nested(out, 1, |out| nested(out, 2, |out| answer::undecided(&undecided, out)));
        }
        Ok(framed)
    }
}

/// The correlation id of one question: its own, or the batch's.
fn own_correlation_id<'a>(
    question: &'a proto::VerifyRequest,
    batchs: &'a str,
) -> Result<&'a str, Wrong> {
    if !question.at_least_revision.is_empty() {
        return Err(Wrong::new(
            "at_least_revision",
            "stands beside the questions, for all of them",
        ));
    }
    Ok(question::correlation_id(&question.correlation_id)?.unwrap_or(batchs))
}

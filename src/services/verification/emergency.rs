//! Questions about credentials of break-glass: recorded first, answered then.

use std::sync::Arc;

use projections::event::BreakGlassAsked;
use projections::permission::{Permission, Scopes};
use projections::verification::{Code, Decision, Question, Wanted, decide_break_glass};

use super::question::Wrong;
use super::{Asked, NoDecision, answer};
use crate::ledger::break_glass::{Emergency, Emergent, GivenReason};
use crate::ledger::verify::{Answer, Asking, Purpose};
use crate::ledger::{Ledger, LedgerError};
use crate::proto;
use crate::services::answers::ANSWERS;

/// The reason that a question gives.
pub(super) fn reason(message: &proto::VerifyRequest) -> GivenReason {
    one_reason(message.break_glass_reason.iter().map(String::as_str))
}

/// One reason of all values; the same value twice is one, two different ones are none.
pub(in crate::services) fn one_reason<'a>(
    mut values: impl Iterator<Item = &'a str>,
) -> GivenReason {
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => GivenReason::of(first),
        false => GivenReason::Unusable,
    }
}

/// What is asked, as it is recorded: each permission once, however it was spelt. None where it
/// cannot be recorded, and so cannot be answered.
fn asked(question: &Question<'_>, asking: Asking) -> Option<BreakGlassAsked> {
    let mut wanted = match question.permissions {
        Wanted::Texts(texts) => {
            texts.iter().map(|text| Permission::parse(text).ok()).collect::<Option<Vec<_>>>()?
        }
        Wanted::One(permission) => vec![permission],
    };
    wanted.sort_unstable();
    wanted.dedup();
    let texts: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let permissions = match texts.is_empty() {
        true => None,
        false => Some(Scopes::new(&texts).ok()?),
    };
    Some(BreakGlassAsked {
        permissions,
        service: question.service.and_then(|it| it.parse().ok()),
        domain: question.domain.and_then(|it| it.parse().ok()),
        method: None,
        asked_with: match asking.purpose {
            Purpose::Ask(credential) => Some(credential),
            Purpose::Look | Purpose::Knock | Purpose::Enter | Purpose::Again | Purpose::Message => {
                None
            }
        },
    })
}

/// Records what comes of a question about a credential of break-glass, appends the
/// `VerifyResponse`, and gives its code.
pub(super) async fn decide(
    ledger: &Arc<Ledger>,
    asked_by: Asked<'_>,
    (emergency, reason): (Emergency, GivenReason),
    question: &Question<'_>,
    correlation_id: &str,
    out: &mut Vec<u8>,
) -> Result<proto::DecisionCode, NoDecision> {
    let began = ANSWERS.asked();
    let request = Emergent {
        asked: asked(question, asked_by.asking).ok_or_else(unrecordable)?,
        tenant: question.tenant,
        environment: question.environment,
        client_ip: question.client_ip,
        reason,
        reach: asked_by.asking.reach,
        correlation_id: correlation_id
            .parse()
            .map_err(|error| NoDecision::Wrong(Wrong::new("correlation_id", error)))?,
    };
    let recorded = ledger.use_break_glass(emergency, request).await;
    let recorded =
        recorded.map_err(|error: LedgerError| NoDecision::Unrecorded(Box::new(error)))?;
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let answer = match &recorded.found {
        Some((tables, grant)) => {
            let decision = decide_break_glass(grant, tables, &operator, question);
            // What was recorded is the answer, and never a better one than this question's own.
            let differs = recorded.code == Code::Allowed
                && !matches!(decision.code, Code::Allowed | Code::Expired | Code::Revoked);
            let code = if differs { decision.code } else { recorded.code };
            Answer::Decided(Decision { code, ..decision })
        }
        None => Answer::Refused(recorded.code),
    };
    let code = answer::write(answer, correlation_id, out)?;
    ANSWERS.answered(&began, code.into());
    Ok(code)
}

fn unrecordable() -> NoDecision {
    NoDecision::Wrong(Wrong::new("permissions", "cannot be recorded; name each once"))
}

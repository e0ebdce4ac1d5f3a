//! ExplainDecision: what a credential could have done, and why.

use std::sync::Arc;

use projections::account::Account;
use projections::event::WayOfReading;
use projections::id::{BreakGlassGrantId, KeyId, SessionId};
use projections::key::Key;
use projections::recorded::Revision;
use projections::session::{Session, Standing};
use projections::verification::{self, Code, Decision, Question};
use tonic::{Request, Status};

use super::chain::Chain;
use super::{account_revision, asked, failed, instant, no_moment, past_at};
use crate::ledger::Ledger;
use crate::ledger::history::{Moment, Past, PastError};
use crate::ledger::tables::Published;
use crate::ledger::verify::{Answer, Reach};
use crate::proto;
use crate::proto::explain_decision_request::Moment as Wire;
use crate::services::authentication::Authenticated;
use crate::services::reading::Reading;
use crate::services::{status, verification as answers, write};

/// A credential, by its identifier.
#[derive(Clone, Copy)]
enum Named {
    Key(KeyId),
    Session(SessionId),
    BreakGlass(BreakGlassGrantId),
}

impl Named {
    fn read(text: &str) -> Result<Self, Status> {
        let key = || text.parse().map(Self::Key).ok();
        let session = || text.parse().map(Self::Session).ok();
        let grant = || text.parse().map(Self::BreakGlass).ok();
        key().or_else(session).or_else(grant).ok_or_else(|| {
            let problem = "must be the identifier of a key (`key_…`), a session (`ses_…`) or a break-glass grant (`bgg_…`), never a secret";
            status::invalid("credential_id", problem)
        })
    }
}

/// Answers ExplainDecision.
pub(in crate::services) async fn explain(
    ledger: &Arc<Ledger>,
    request: &Request<proto::ExplainDecisionRequest>,
) -> Result<proto::ExplainDecisionResponse, Status> {
    let message = request.get_ref();
    let (reader, organization) = asked(ledger, request, &message.organization_id)?;
    let answer = answer(ledger, &reader, &organization, message).await?;
    reading(message).record(ledger, request, &reader, &organization).await?;
    Ok(answer)
}

/// What is recorded of whoever asks this.
fn reading(message: &proto::ExplainDecisionRequest) -> Reading {
    let environment = message.environment().as_str_name().trim_start_matches("ENVIRONMENT_");
    let reading = Reading::new(WayOfReading::AskedToExplain)
        .asking("credential_id", &message.credential_id)
        .asking("permissions", message.permissions.join(" "))
        .asking("environment", environment.trim_start_matches("UNSPECIFIED").to_ascii_lowercase())
        .asking("tenant_id", &message.tenant_id)
        .writing("service", &message.service)
        .writing("domain", &message.domain)
        .writing("client_ip", &message.client_ip);
    match &message.moment {
        Some(Wire::At(at)) => reading.asking_at("at", Some(at)),
        Some(Wire::Revision(revision)) => reading.asking("revision", revision),
        None => reading,
    }
}

async fn answer(
    ledger: &Ledger,
    reader: &Authenticated,
    organization: &Arc<Published>,
    message: &proto::ExplainDecisionRequest,
) -> Result<proto::ExplainDecisionResponse, Status> {
    let named = Named::read(&message.credential_id)?;
    let moment = match &message.moment {
        None => return Err(no_moment()),
        Some(Wire::At(at)) => Moment::At(instant("at", at)?),
        Some(Wire::Revision(revision)) => Moment::Behind(Revision(*revision)),
    };
    let asked_as = question_message(message);
    // What is wrong in it is said before history is read.
    let now = ledger.clock().now();
    answers::question_of(ledger, &asked_as, now)?;
    let past = match (past_at(ledger, organization, moment).await, moment) {
        (Ok(past), _) => past,
        (Err(PastError::Before(first)), Moment::At(at)) => {
            let reason = format!(
                "nothing of organization `{}` was recorded yet: its first event is of {first}",
                organization.id
            );
            return Ok(unknown(at, reason));
        }
        (Err(error), _) => return Err(failed(organization, error)),
    };
    let question = answers::question_of(ledger, &asked_as, past.at)?;
    let found = Found::look(ledger, organization, &past, named).await?;
    let Some((decision, account)) = found.decide(&past, &question) else {
        let reason = not_known(organization, &past, named);
        let mut answer = unknown(past.at, reason);
        answer.decision.get_or_insert_default().revisions = super::revisions(organization, &past);
        return Ok(answer);
    };
    let shows_operators = reader.reach() == Reach::Installation;
    let chain = Chain { ledger, organization, past: &past, question: &question };
    let chain = chain.links(&decision, account, shows_operators).await?;
    let mut message = answers::message(Answer::Decided(decision))?;
    message.revisions.extend(account.and_then(account_revision));
    Ok(proto::ExplainDecisionResponse {
        decision: Some(message),
        at: Some(write::timestamp(past.at)),
        reason: reason(decision.code).to_owned(),
        links: chain.links,
        rate_limits_left_out: true,
        links_complete: chain.complete,
    })
}

/// The question, as Verify is asked it.
fn question_message(message: &proto::ExplainDecisionRequest) -> proto::VerifyRequest {
    proto::VerifyRequest {
        permissions: message.permissions.clone(),
        service: message.service.clone(),
        domain: message.domain.clone(),
        environment: message.environment,
        client_ip: message.client_ip.clone(),
        tenant_id: message.tenant_id.clone(),
        ..proto::VerifyRequest::default()
    }
}

fn unknown(at: projections::time::Timestamp, reason: String) -> proto::ExplainDecisionResponse {
    let code = proto::DecisionCode::Unknown.into();
    proto::ExplainDecisionResponse {
        decision: Some(proto::VerifyResponse { code, ..Default::default() }),
        at: Some(write::timestamp(at)),
        reason,
        links: Vec::new(),
        rate_limits_left_out: true,
        links_complete: true,
    }
}

/// Why a credential was not known. Of what is another organization's, nothing is said.
fn not_known(organization: &Published, past: &Past, named: Named) -> String {
    let tables = organization.tables();
    let (what, since) = match named {
        Named::Key(id) => (format!("key `{id}`"), tables.key(id).map(|it| it.created_at)),
        Named::Session(id) => {
            (format!("session `{id}`"), tables.session(id).map(|it| it.started_at))
        }
        Named::BreakGlass(id) => {
            let since = tables.break_glass_grant(id).map(|it| it.opened_at);
            (format!("break-glass grant `{id}`"), since)
        }
    };
    match (since, named) {
        (Some(since), _) => format!("{what} did not exist yet: it came to be at {since}"),
        (None, Named::Session(_)) => format!(
            "organization `{}` knew no {what} at {}: sessions are known until a day after their end",
            organization.id, past.at
        ),
        (None, _) => {
            format!("organization `{}` knew no {what} at {}", organization.id, past.at)
        }
    }
}

/// Why, in one sentence.
fn reason(code: Code) -> &'static str {
    match code {
        Code::Allowed => "it could do all that was asked",
        Code::Revoked => {
            "it was out of force for good: revoked, replaced, or ended with whom it belonged to"
        }
        Code::Disabled => "it was disabled",
        Code::Expired => "its time was over",
        Code::Suspended => "the user whose it was was suspended",
        Code::IpNotAllowed => "it was for other addresses",
        Code::TenantMismatch => "it belonged to another organization than the request was for",
        Code::WrongEnvironment => "it was for the other environment",
        Code::ServiceNotAllowed => "it was limited to other services",
        Code::PermissionDenied => "it did not hold all that was asked",
        Code::DomainNotAllowed => "it held all that was asked, but not for that domain",
        Code::FeatureNotLicensed => {
            "what was asked needs a feature that its organization's plan does not license"
        }
        Code::MfaRequired => "what was asked needs a second factor, which it did not show",
        Code::BreakGlassDisabled => "break-glass was off",
        Code::BreakGlassApprovalPending => "the grant awaited approval",
        Code::NoCredential
        | Code::Ambiguous
        | Code::Malformed
        | Code::Unknown
        | Code::BreakGlassReasonRequired
        | Code::BreakGlassOrganizationRequired
        | Code::BreakGlassReviewPending
        | Code::BreakGlassLimited
        | Code::RateLimited => "no such credential was known",
    }
}

/// What was found of a credential.
enum Found {
    Nothing,
    Key(Arc<Key>),
    Session(Arc<Session>, Option<Arc<Account>>),
    BreakGlass(Arc<projections::break_glass::BreakGlassGrant>),
}

impl Found {
    async fn look(
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        named: Named,
    ) -> Result<Self, Status> {
        Ok(match named {
            Named::Key(id) => match past.tables.key(id) {
                Some(key) => Self::Key(Arc::clone(key)),
                None => {
                    let dead = ledger.dead_key(organization, id).await;
                    let dead = dead.map_err(|error| status::from_dead_keys(&error))?;
                    let dead = dead.filter(|row| past.had_lost(&row.key));
                    dead.map_or(Self::Nothing, |row| Self::Key(row.key))
                }
            },
            Named::Session(id) => match past.tables.session(id) {
                Some(session) => {
                    let account = ledger.past_account(session.account_id, past.at).await;
                    let account = account.map_err(|error| failed(organization, error))?;
                    Self::Session(Arc::clone(session), account)
                }
                None => Self::Nothing,
            },
            Named::BreakGlass(id) => {
                let grant = past.tables.break_glass_grant(id).cloned();
                grant.map_or(Self::Nothing, Self::BreakGlass)
            }
        })
    }

    /// What the pure decision says, and the account that it read; none where there is nothing to
    /// decide about.
    fn decide<'a>(
        &'a self,
        past: &'a Past,
        question: &Question<'a>,
    ) -> Option<(Decision<'a>, Option<&'a Account>)> {
        let Past { tables, operator, .. } = past;
        Some(match self {
            Self::Nothing => return None,
            Self::Key(key) => (verification::decide(key, tables, operator, question), None),
            Self::Session(session, account) => {
                let account = account.as_deref();
                let standing = account.map(|it| Standing { epoch: it.epoch(), kept: it.kept() });
                let end = session.expires_at;
                let decision = verification::decide_session(
                    session, standing, end, tables, operator, question,
                );
                (decision, account)
            }
            Self::BreakGlass(grant) => {
                (verification::decide_break_glass(grant, tables, operator, question), None)
            }
        })
    }
}

//! VerificationService: the question that every request of the tenants' products asks.

use std::time::Duration;

use projections::id::OrganizationId;
use projections::presented::Presented;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::text;
use projections::time::Timestamp;
use projections::verification::{Code, Decision, Question, Wanted};
use tonic::{Request, Response, Status};

use super::answers::ANSWERS;
use super::authentication::{
    Authenticated, HEADER_VALUES_MAX, authenticate_again, authenticate_at,
};
use super::{Door, read, status, write};
use crate::ledger::verify::{Answer, Asking, Reach};
use crate::ledger::{Ledger, permissions};
use crate::proto;
use crate::proto::verification_service_server::VerificationService;

/// Longest wait for a revision that a question asks for.
pub const REVISION_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most streams that a question may ask revisions of.
pub const REVISIONS_MAX: usize = 8;

/// The service.
pub struct Verification {
    door: Door,
}

impl Verification {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl VerificationService for Verification {
    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<proto::VerifyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let mut now = ledger.clock().now();
        let mut asker = authenticate_at(ledger, &request, permissions::CREDENTIALS_VERIFY, now)?;
        if !request.get_ref().at_least_revision.is_empty() {
            let wanted = &request.get_ref().at_least_revision;
            reach_revisions(&self.door, ledger, &asker, wanted).await?;
            now = ledger.clock().now();
            // What was waited for may be the end of the asker's own key.
            asker = authenticate_again(ledger, &request, permissions::CREDENTIALS_VERIFY, now)?;
        }
        let mut message = request.into_inner();
        let correlation_id = correlation_id(ledger, std::mem::take(&mut message.correlation_id))?;
        answer(ledger, &message, asker.asking(), correlation_id, now).map(Response::new)
    }
}

fn correlation_id(ledger: &Ledger, given: String) -> Result<String, Status> {
    if given.is_empty() {
        Ok(ledger.new_correlation_id().to_string())
    } else if text::is_token(&given) {
        Ok(given)
    } else {
        Err(status::invalid("correlation_id", "must be 1 to 128 visible ASCII characters"))
    }
}

/// Answers one question.
pub(super) fn answer(
    ledger: &Ledger,
    message: &proto::VerifyRequest,
    asking: Asking,
    correlation_id: String,
    now: Timestamp,
) -> Result<proto::VerifyResponse, Status> {
    let asked = ANSWERS.asked();
    let question = Question {
        tenant: read::optional("tenant_id", &message.tenant_id)?,
        permissions: Wanted::new(&message.permissions)
            .map_err(|(place, error)| status::invalid(format!("permissions[{place}]"), error))?,
        service: service(&message.service)?,
        environment: read::environment(message.environment)?,
        client_ip: None,
        now,
    };
    let answer = ledger.verify(presented(message)?, &question, asking, |answer| match answer {
        Answer::Unavailable(id) => Err(status::stopped(id)),
        Answer::Refused(code) => Ok(proto::VerifyResponse {
            code: wire_code(code).into(),
            correlation_id,
            ..proto::VerifyResponse::default()
        }),
        Answer::Decided(decision) => Ok(decided(&decision, correlation_id)),
        Answer::RateLimited { decision, retry_after } => Ok(proto::VerifyResponse {
            retry_after: prost_types::Duration::try_from(retry_after).ok(),
            ..decided(&decision, correlation_id)
        }),
    });
    if let Ok(answer) = &answer {
        ANSWERS.answered(&asked, answer.code);
    }
    answer
}

fn service(text: &str) -> Result<Option<&str>, Status> {
    match text {
        "" => Ok(None),
        name if text::is_label(name) => Ok(Some(name)),
        _ => Err(status::invalid("service", "must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`")),
    }
}

fn presented(message: &proto::VerifyRequest) -> Result<Presented<'_>, Status> {
    let lists = [
        ("authorization", &message.authorization),
        ("api_key", &message.api_key),
        ("admin_api_key", &message.admin_api_key),
    ];
    if let Some((name, _)) = lists.iter().find(|(_, values)| values.len() > HEADER_VALUES_MAX) {
        return Err(status::invalid(
            *name,
            format_args!("must be at most {HEADER_VALUES_MAX} values"),
        ));
    }
    let mut presented = Presented::default();
    if !message.credential.is_empty() {
        presented.bearer(&message.credential);
    }
    message.authorization.iter().for_each(|value| presented.authorization(value));
    message.api_key.iter().chain(&message.admin_api_key).for_each(|value| presented.api_key(value));
    Ok(presented)
}

fn decided(decision: &Decision<'_>, correlation_id: String) -> proto::VerifyResponse {
    let key = decision.key;
    let extras = key.extras.as_deref();
    let operator =
        StreamRevision { stream: OrganizationId::OPERATOR, revision: decision.operator_revision };
    let own = StreamRevision { stream: decision.organization_id, revision: decision.revision };
    let operator = (!decision.organization_id.is_operator()).then_some(operator);
    let principal = match key.owner() {
        Some(owner) => Principal::ServiceAccount(owner),
        None => Principal::Organization(decision.organization_id),
    };
    proto::VerifyResponse {
        allowed: decision.code == Code::Allowed,
        code: wire_code(decision.code).into(),
        principal: Some(write::principal(principal, decision.organization_id)),
        organization_id: decision.organization_id.text(),
        credential_kind: proto::CredentialKind::ApiKey.into(),
        credential_id: key.id.text(),
        environment: write::environment(Some(key.effective_environment())).into(),
        roles: decision.authority.roles().map(write::role_reference).collect(),
        permissions: decision.authority.permissions().map(str::to_owned).collect(),
        limits: extras
            .map(|it| it.limits.iter().map(|(k, v)| (k.to_string(), *v)).collect())
            .unwrap_or_default(),
        metadata: extras
            .map(|it| it.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
            .unwrap_or_default(),
        expires_at: key.expires_at().map(write::timestamp),
        revisions: std::iter::once(own).chain(operator).filter_map(StreamRevision::wire).collect(),
        correlation_id,
        retry_after: None,
    }
}

struct StreamRevision {
    stream: OrganizationId,
    revision: Option<Revision>,
}

impl StreamRevision {
    fn wire(self) -> Option<proto::StreamRevision> {
        let revision = self.revision?.0;
        Some(proto::StreamRevision { stream: StreamName::organization_text(self.stream), revision })
    }
}

/// Waits until the tables hold the revisions that a question asks for.
async fn reach_revisions(
    door: &Door,
    ledger: &Ledger,
    asker: &Authenticated,
    wanted: &[proto::StreamRevision],
) -> Result<(), Status> {
    const FIELD: &str = "at_least_revision";
    if wanted.len() > REVISIONS_MAX {
        return Err(status::invalid(FIELD, format_args!("must be at most {REVISIONS_MAX}")));
    }
    let deadline = tokio::time::Instant::now() + REVISION_WAIT_MAX;
    for (place, item) in wanted.iter().enumerate() {
        let field = format!("{FIELD}[{place}].stream");
        let id = StreamName::from_store(&item.stream).as_organization().ok_or_else(|| {
            status::invalid(&field, "must be `org-` and an organization's identifier")
        })?;
        // Whether another organization exists is not the asker's to learn.
        if asker.reach() != Reach::Installation && id != asker.organization_id && !id.is_operator()
        {
            return Err(status::invalid(
                &field,
                "is neither the caller's own stream nor `org-operator`",
            ));
        }
        let revision = Revision(item.revision);
        let there = ledger.tables().organization(id).and_then(|it| it.tables().revision());
        if there.is_some_and(|there| there >= revision) {
            continue;
        }
        let _waiting = door.wait()?;
        let reached = ledger.tables().reached(id, revision);
        if tokio::time::timeout_at(deadline, reached).await.is_err() {
            return Err(status::revision_not_reached(&item.stream));
        }
    }
    Ok(())
}

fn wire_code(code: Code) -> proto::DecisionCode {
    match code {
        Code::NoCredential => proto::DecisionCode::NoCredential,
        Code::Ambiguous => proto::DecisionCode::Ambiguous,
        Code::Malformed => proto::DecisionCode::Malformed,
        Code::Unknown => proto::DecisionCode::Unknown,
        Code::TenantMismatch => proto::DecisionCode::TenantMismatch,
        Code::Revoked => proto::DecisionCode::Revoked,
        Code::Disabled => proto::DecisionCode::Disabled,
        Code::IpNotAllowed => proto::DecisionCode::IpNotAllowed,
        Code::RateLimited => proto::DecisionCode::RateLimited,
        Code::Expired => proto::DecisionCode::Expired,
        Code::WrongEnvironment => proto::DecisionCode::WrongEnvironment,
        Code::ServiceNotAllowed => proto::DecisionCode::ServiceNotAllowed,
        Code::PermissionDenied => proto::DecisionCode::PermissionDenied,
        Code::Allowed => proto::DecisionCode::Allowed,
    }
}

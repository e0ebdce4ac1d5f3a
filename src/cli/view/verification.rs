//! Decisions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::super::output::{Colour, Fields, coloured, safe, table};
use super::common::{
    Principal, RoleReference, StreamRevision, entries, environment, instant, short,
};
use crate::proto;

/// See `VerifyResponse` in `verification.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Decision {
    pub(in crate::cli) allowed: bool,
    code: String,
    principal: Option<Principal>,
    organization_id: String,
    credential_kind: String,
    credential_id: String,
    environment: String,
    roles: Vec<RoleReference>,
    permissions: Vec<String>,
    limits: BTreeMap<String, i64>,
    metadata: BTreeMap<String, String>,
    expires_at: Option<String>,
    revisions: Vec<StreamRevision>,
    correlation_id: String,
    /// As protobuf's JSON writes durations: `1.500s`.
    retry_after: Option<String>,
    #[serde(skip)]
    meaning: Cow<'static, str>,
}

impl From<proto::VerifyResponse> for Decision {
    fn from(message: proto::VerifyResponse) -> Self {
        Self {
            allowed: message.allowed,
            code: short(message.code, "DECISION_CODE_", proto::DecisionCode::as_str_name),
            principal: message.principal.map(Into::into),
            organization_id: message.organization_id,
            credential_kind: short(
                message.credential_kind,
                "CREDENTIAL_KIND_",
                proto::CredentialKind::as_str_name,
            ),
            credential_id: message.credential_id,
            environment: environment(message.environment),
            roles: message.roles.into_iter().map(Into::into).collect(),
            permissions: message.permissions,
            limits: message.limits,
            metadata: message.metadata,
            expires_at: instant(message.expires_at),
            revisions: message.revisions.into_iter().map(Into::into).collect(),
            correlation_id: message.correlation_id,
            retry_after: message
                .retry_after
                .map(|it| format!("{}.{:03}s", it.seconds, it.nanos / 1_000_000)),
            meaning: proto::DecisionCode::try_from(message.code).map_or("", meaning).into(),
        }
    }
}

/// What a code says, for people.
fn meaning(code: proto::DecisionCode) -> &'static str {
    use proto::DecisionCode as Code;
    match code {
        Code::Unspecified => "",
        Code::Allowed => "the credential may do all that was asked",
        Code::NoCredential => "nothing was presented",
        Code::Ambiguous => "two different credentials of one kind were presented",
        Code::Malformed => "no credential looks like this; was it copied whole?",
        Code::Unknown => "not issued here, or not yours to ask about",
        Code::TenantMismatch => "the credential belongs to another organization",
        Code::Revoked => "the credential is revoked",
        Code::Disabled => "the credential is disabled",
        Code::Expired => "the credential's lifetime is over",
        Code::Suspended => "the user that the credential belongs to is suspended",
        Code::IpNotAllowed => "the credential is for requests from other addresses",
        Code::BreakGlassDisabled => "break-glass is off",
        Code::BreakGlassReasonRequired => {
            "a master key needs a reason (`x-break-glass-reason`), in one line"
        }
        Code::BreakGlassOrganizationRequired => {
            "a master key needs an organization that there is (`x-tenant-id`)"
        }
        Code::BreakGlassApprovalPending => "the grant awaits approval by somebody else",
        Code::BreakGlassReviewPending => {
            "the last grant for this reason ended, and must be reviewed first"
        }
        Code::BreakGlassLimited => "as many grants were opened as may be for now",
        Code::WrongEnvironment => "the credential is for the other environment",
        Code::ServiceNotAllowed => "the credential is limited to other services",
        Code::PermissionDenied => "a wanted permission is not held",
        Code::DomainNotAllowed => "a wanted permission is held, but not for this domain",
        Code::FeatureNotLicensed => "a wanted permission asks for a feature that is not licensed",
        Code::MfaRequired => "a wanted permission asks for a second factor",
        Code::RateLimited => "the credential was used as often as it may be for now",
    }
}

impl Decision {
    /// Says more for people where what was asked tells it: the one permission that was
    /// wanted, or that no address was given.
    pub(in crate::cli) fn explain(mut self, asked: &proto::VerifyRequest) -> Self {
        match (self.code.as_str(), asked.permissions.as_slice()) {
            ("permission_denied", [permission]) => {
                self.meaning = format!("`{}` is not held", safe(permission)).into();
            }
            ("ip_not_allowed", _) if asked.client_ip.is_empty() => {
                self.meaning = "the credential is for requests from certain addresses, and no \
                                address was given (`--client-ip`)"
                    .into();
            }
            _ => {}
        }
        self
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let colour = if self.allowed { Colour::Green } else { Colour::Red };
        let code = coloured(&safe(&self.code.to_uppercase()), colour);
        let mut fields = Fields::default();
        self.describe(&mut fields);
        fields
            .add_some("retry after", self.retry_after.as_ref())
            .add("correlation", &self.correlation_id);
        format!("{code}: {}\n{}", self.meaning, fields.to_text())
    }

    /// The answer in one word.
    pub(in crate::cli) fn code(&self) -> &str {
        &self.code
    }

    /// What it says of the credential.
    pub(in crate::cli) fn describe(&self, fields: &mut Fields) {
        if !self.credential_id.is_empty() {
            let kind = self.credential_kind.replace('_', " ");
            let principal = self.principal.as_ref().map(Principal::to_text);
            fields
                .add("credential", &format!("{kind} {}", self.credential_id))
                .add_some("principal", principal.as_ref())
                .add("organization", &self.organization_id)
                .add("environment", &self.environment)
                .add_all("roles", self.roles.iter().map(RoleReference::to_text))
                .add_all("permissions", self.permissions.iter().cloned())
                .add_all("limits", entries(&self.limits))
                .add_all("metadata", entries(&self.metadata))
                .add("expires", self.expires_at.as_deref().unwrap_or("never"))
                .add_all("revisions", self.revisions.iter().map(StreamRevision::to_text));
        }
    }
}

/// See `Undecided` in `verification.proto`.
#[derive(Serialize)]
struct Undecided {
    status: i32,
    reason: String,
    message: String,
}

/// See `VerifyBatchAnswer` in `verification.proto`; of one line of a file.
#[derive(Serialize)]
pub(in crate::cli) struct Answer {
    line: usize,
    decision: Option<Decision>,
    undecided: Option<Undecided>,
}

impl Answer {
    /// What was answered to the question of a line.
    pub(in crate::cli) fn of(line: usize, message: proto::VerifyBatchAnswer) -> Self {
        use proto::verify_batch_answer::Answer;
        let (decision, undecided) = match message.answer {
            Some(Answer::Decision(decision)) => (Some(decision.into()), None),
            Some(Answer::Undecided(it)) => (
                None,
                Some(Undecided { status: it.status, reason: it.reason, message: it.message }),
            ),
            None => (None, None),
        };
        Self { line, decision, undecided }
    }

    /// Which line.
    pub(in crate::cli) fn line(&self) -> usize {
        self.line
    }

    /// Whether the answers before it left no room: it may be asked again.
    pub(in crate::cli) fn is_too_large(&self) -> bool {
        self.undecided.as_ref().is_some_and(|it| it.reason == "ANSWER_TOO_LARGE")
    }

    fn row(&self) -> [String; 4] {
        let decision = self.decision.as_ref();
        let code = match (decision, &self.undecided) {
            (Some(decision), _) => decision.code.to_uppercase(),
            (None, Some(undecided)) => format!("undecided: {}", undecided.reason),
            (None, None) => "undecided".to_owned(),
        };
        let of = |field: fn(&Decision) -> &String| decision.map(field).cloned().unwrap_or_default();
        [self.line.to_string(), code, of(|it| &it.credential_id), of(|it| &it.organization_id)]
    }
}

/// See `VerifyBatchResponse`; of all calls that it took.
#[derive(Serialize)]
pub(in crate::cli) struct Answers {
    answers: Vec<Answer>,
}

impl From<Vec<Answer>> for Answers {
    fn from(answers: Vec<Answer>) -> Self {
        Self { answers }
    }
}

impl Answers {
    /// How many were allowed, denied, and neither.
    pub(in crate::cli) fn counts(&self) -> [usize; 3] {
        let count = |is: Option<bool>| {
            let all = self.answers.iter();
            all.filter(|it| it.decision.as_ref().map(|it| it.allowed) == is).count()
        };
        [count(Some(true)), count(Some(false)), count(None)]
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(["LINE", "DECISION", "KEY", "ORGANIZATION"], self.answers.iter().map(Answer::row))
    }
}

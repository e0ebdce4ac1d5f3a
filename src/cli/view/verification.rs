//! Decisions.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::output::{Colour, Fields, coloured, safe};
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
    meaning: &'static str,
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
            meaning: proto::DecisionCode::try_from(message.code).map_or("", meaning),
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
        Code::IpNotAllowed => "the credential is for requests from other addresses",
        Code::WrongEnvironment => "the credential is for the other environment",
        Code::ServiceNotAllowed => "the credential is limited to other services",
        Code::PermissionDenied => "a wanted permission is not held",
        Code::RateLimited => "the credential was used as often as it may be for now",
    }
}

impl Decision {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let colour = if self.allowed { Colour::Green } else { Colour::Red };
        let code = coloured(&safe(&self.code.to_uppercase()), colour);
        let mut fields = Fields::default();
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
        fields
            .add_some("retry after", self.retry_after.as_ref())
            .add("correlation", &self.correlation_id);
        format!("{code}: {}\n{}", self.meaning, fields.to_text())
    }
}

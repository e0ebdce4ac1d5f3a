//! Organizations.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{StreamRevision, instant, span};
use crate::proto;

/// See `Organization` in `organization.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Organization {
    id: String,
    name: String,
    key_prefix: String,
    plan: String,
    created_at: Option<String>,
    policy: Option<Policy>,
    /// Absent where people join it.
    #[serde(skip_serializing_if = "String::is_empty")]
    personal_account_id: String,
}

/// See `Policy` in `organization.proto`; lengths of time in seconds.
#[derive(Serialize)]
struct Policy {
    key_lifetime_max_seconds: Option<i64>,
    rotation_grace_max_seconds: Option<i64>,
    allowed_ips_required: bool,
}

impl From<proto::Policy> for Policy {
    fn from(message: proto::Policy) -> Self {
        Self {
            key_lifetime_max_seconds: message.key_lifetime_max.map(|it| it.seconds),
            rotation_grace_max_seconds: message.rotation_grace_max.map(|it| it.seconds),
            allowed_ips_required: message.allowed_ips_required,
        }
    }
}

impl Policy {
    /// Adds the rules that there are.
    fn describe(&self, fields: &mut Fields) {
        let lifetime = self.key_lifetime_max_seconds.map(span);
        let grace = self.rotation_grace_max_seconds.map(span);
        let required = if self.allowed_ips_required { "required" } else { "" };
        fields
            .add_some("key lifetime max", lifetime.as_ref())
            .add_some("rotation grace max", grace.as_ref())
            .add("allowed addresses", required);
    }
}

/// The rules that an organization gives itself, and where that was read or recorded.
#[derive(Serialize)]
pub(in crate::cli) struct PolicyNow {
    policy: Option<Policy>,
    revision: Option<StreamRevision>,
}

impl From<proto::UpdatePolicyResponse> for PolicyNow {
    fn from(message: proto::UpdatePolicyResponse) -> Self {
        Self { policy: message.policy.map(Into::into), revision: message.revision.map(Into::into) }
    }
}

impl PolicyNow {
    /// A policy that was read there.
    pub(in crate::cli) fn new(
        policy: proto::Policy,
        revision: Option<proto::StreamRevision>,
    ) -> Self {
        Self { policy: Some(policy.into()), revision: revision.map(Into::into) }
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(it) = &self.policy {
            let or = |limit: Option<i64>, otherwise: &str| {
                limit.map_or_else(|| otherwise.to_owned(), span)
            };
            let lifetime = or(it.key_lifetime_max_seconds, "as long as the plan allows");
            let required = if it.allowed_ips_required { "required" } else { "not required" };
            fields
                .add("key lifetime max", &lifetime)
                .add("rotation grace max", &or(it.rotation_grace_max_seconds, "30d"))
                .add("allowed addresses", required);
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

impl From<proto::Organization> for Organization {
    fn from(message: proto::Organization) -> Self {
        Self {
            id: message.id,
            name: message.name,
            key_prefix: message.key_prefix,
            plan: message.plan,
            created_at: instant(message.created_at),
            policy: message.policy.map(Into::into),
            personal_account_id: message.personal_account_id,
        }
    }
}

/// See `CreateOrganizationResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Created {
    organization: Option<Organization>,
    revisions: Vec<StreamRevision>,
}

impl From<proto::CreateOrganizationResponse> for Created {
    fn from(message: proto::CreateOrganizationResponse) -> Self {
        Self {
            organization: message.organization.map(Into::into),
            revisions: message.revisions.into_iter().map(Into::into).collect(),
        }
    }
}

impl Created {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        one(self.organization.as_ref(), &self.revisions)
    }
}

/// See `GetOrganizationResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Got {
    organization: Option<Organization>,
    revision: Option<StreamRevision>,
}

impl From<proto::GetOrganizationResponse> for Got {
    fn from(message: proto::GetOrganizationResponse) -> Self {
        Self {
            organization: message.organization.map(Into::into),
            revision: message.revision.map(Into::into),
        }
    }
}

impl Got {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        one(self.organization.as_ref(), &self.revision)
    }
}

fn one<'a>(
    organization: Option<&Organization>,
    revisions: impl IntoIterator<Item = &'a StreamRevision>,
) -> String {
    let mut fields = Fields::default();
    if let Some(it) = organization {
        fields
            .add("id", &it.id)
            .add("name", &it.name)
            .add("key prefix", &it.key_prefix)
            .add("plan", &it.plan)
            .add_some("created", it.created_at.as_ref());
        if !it.personal_account_id.is_empty() {
            fields.add("personal of", &it.personal_account_id);
        }
        it.policy.iter().for_each(|policy| policy.describe(&mut fields));
    }
    fields.add_all("revision", revisions.into_iter().map(StreamRevision::to_text));
    fields.to_text()
}

/// See `ListOrganizationsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    organizations: Vec<Organization>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl From<proto::ListOrganizationsResponse> for Listed {
    fn from(message: proto::ListOrganizationsResponse) -> Self {
        Self {
            organizations: message.organizations.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "NAME", "PREFIX", "PLAN", "CREATED"],
            self.organizations.iter().map(|it| {
                [
                    it.id.clone(),
                    it.name.clone(),
                    it.key_prefix.clone(),
                    it.plan.clone(),
                    it.created_at.clone().unwrap_or_default(),
                ]
            }),
        )
    }
}

impl Page for Listed {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.organizations.len()
    }

    fn join(&mut self, later: Self) {
        self.organizations.extend(later.organizations);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}

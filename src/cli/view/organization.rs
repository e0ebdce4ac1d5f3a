//! Organizations.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{StreamRevision, instant};
use crate::proto;

/// See `Organization` in `organization.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Organization {
    id: String,
    name: String,
    key_prefix: String,
    plan: String,
    created_at: Option<String>,
}

impl From<proto::Organization> for Organization {
    fn from(message: proto::Organization) -> Self {
        Self {
            id: message.id,
            name: message.name,
            key_prefix: message.key_prefix,
            plan: message.plan,
            created_at: instant(message.created_at),
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

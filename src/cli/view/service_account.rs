//! Service accounts.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{Principal, RoleReference, StreamRevision, instant};
use crate::proto;

/// See `ServiceAccount` in `organization.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct ServiceAccount {
    pub(in crate::cli) id: String,
    organization_id: String,
    name: String,
    description: String,
    pub(in crate::cli) roles: Vec<RoleReference>,
    created_at: Option<String>,
    created_by: Option<Principal>,
}

impl From<proto::ServiceAccount> for ServiceAccount {
    fn from(message: proto::ServiceAccount) -> Self {
        Self {
            id: message.id,
            organization_id: message.organization_id,
            name: message.name,
            description: message.description,
            roles: message.roles.into_iter().map(Into::into).collect(),
            created_at: instant(message.created_at),
            created_by: message.created_by.map(Into::into),
        }
    }
}

/// See `CreateServiceAccountResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Created {
    pub(in crate::cli) service_account: Option<ServiceAccount>,
    revision: Option<StreamRevision>,
}

impl From<proto::CreateServiceAccountResponse> for Created {
    fn from(message: proto::CreateServiceAccountResponse) -> Self {
        Self {
            service_account: message.service_account.map(Into::into),
            revision: message.revision.map(Into::into),
        }
    }
}

impl Created {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(it) = &self.service_account {
            let by = it.created_by.as_ref().map(Principal::to_text);
            fields
                .add("id", &it.id)
                .add("organization", &it.organization_id)
                .add("name", &it.name)
                .add("description", &it.description)
                .add_all("roles", it.roles.iter().map(RoleReference::to_text))
                .add_some("created", it.created_at.as_ref())
                .add_some("created by", by.as_ref());
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `ListServiceAccountsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    service_accounts: Vec<ServiceAccount>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl From<proto::ListServiceAccountsResponse> for Listed {
    fn from(message: proto::ListServiceAccountsResponse) -> Self {
        Self {
            service_accounts: message.service_accounts.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "NAME", "ROLES", "CREATED", "DESCRIPTION"],
            self.service_accounts.iter().map(|it| {
                let roles: Vec<String> = it.roles.iter().map(RoleReference::to_text).collect();
                [
                    it.id.clone(),
                    it.name.clone(),
                    roles.join(","),
                    it.created_at.clone().unwrap_or_default(),
                    it.description.clone(),
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
        self.service_accounts.len()
    }

    fn join(&mut self, later: Self) {
        self.service_accounts.extend(later.service_accounts);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}

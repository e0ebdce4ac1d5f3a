//! Roles, grants, and what they come to.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{Principal, RoleReference, StreamRevision, instant};
use crate::proto;

/// See `Role` in `role.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Role {
    id: String,
    organization_id: String,
    name: String,
    description: String,
    permissions: Vec<String>,
    built_in: bool,
    created_at: Option<String>,
    retired_at: Option<String>,
    changed: Option<StreamRevision>,
}

impl From<proto::Role> for Role {
    fn from(message: proto::Role) -> Self {
        Self {
            id: message.id,
            organization_id: message.organization_id,
            name: message.name,
            description: message.description,
            permissions: message.permissions,
            built_in: message.built_in,
            created_at: instant(message.created_at),
            retired_at: instant(message.retired_at),
            changed: message.changed.map(Into::into),
        }
    }
}

impl Role {
    fn state(&self) -> &'static str {
        match (&self.retired_at, self.built_in) {
            (Some(_), _) => "retired",
            (None, true) => "built in",
            (None, false) => "in force",
        }
    }
}

/// One role, and where that was read or recorded.
#[derive(Serialize)]
pub(in crate::cli) struct Got {
    role: Option<Role>,
    revision: Option<StreamRevision>,
}

macro_rules! got {
    ($($message:ident),+) => {$(
        impl From<proto::$message> for Got {
            fn from(message: proto::$message) -> Self {
                Self {
                    role: message.role.map(Into::into),
                    revision: message.revision.map(Into::into),
                }
            }
        }
    )+};
}
got!(CreateRoleResponse, UpdateRoleResponse, RetireRoleResponse, GetRoleResponse);

impl Got {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(it) = &self.role {
            fields
                .add("id", &it.id)
                .add("organization", &it.organization_id)
                .add("name", &it.name)
                .add("description", &it.description)
                .add_all("permissions", it.permissions.iter().cloned())
                .add("state", it.state())
                .add_some("created", it.created_at.as_ref())
                .add_some("retired", it.retired_at.as_ref());
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `ListRolesResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    roles: Vec<Role>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "NAME", "STATE", "PERMISSIONS", "DESCRIPTION"],
            self.roles.iter().map(|it| {
                [
                    it.id.clone(),
                    it.name.clone(),
                    it.state().to_owned(),
                    it.permissions.join(","),
                    it.description.clone(),
                ]
            }),
        )
    }
}

/// See `Grant` in `role.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Grant {
    id: String,
    organization_id: String,
    principal: Option<Principal>,
    role: Option<RoleReference>,
    domain: String,
    expires_at: Option<String>,
    granted_at: Option<String>,
    granted_by: Option<Principal>,
}

impl From<proto::Grant> for Grant {
    fn from(message: proto::Grant) -> Self {
        Self {
            id: message.id,
            organization_id: message.organization_id,
            principal: message.principal.map(Into::into),
            role: message.role.map(Into::into),
            domain: message.domain,
            expires_at: instant(message.expires_at),
            granted_at: instant(message.granted_at),
            granted_by: message.granted_by.map(Into::into),
        }
    }
}

fn role_text(role: Option<&RoleReference>) -> String {
    role.map(RoleReference::to_text).unwrap_or_default()
}

fn principal_text(principal: Option<&Principal>) -> String {
    principal.map(Principal::to_text).unwrap_or_default()
}

/// See `GrantRoleResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Granted {
    grant: Option<Grant>,
    revision: Option<StreamRevision>,
}

impl From<proto::GrantRoleResponse> for Granted {
    fn from(message: proto::GrantRoleResponse) -> Self {
        Self { grant: message.grant.map(Into::into), revision: message.revision.map(Into::into) }
    }
}

impl Granted {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(it) = &self.grant {
            fields
                .add("id", &it.id)
                .add("organization", &it.organization_id)
                .add("role", &role_text(it.role.as_ref()))
                .add("to", &principal_text(it.principal.as_ref()))
                .add("domain", &it.domain)
                .add_some("expires", it.expires_at.as_ref())
                .add_some("granted", it.granted_at.as_ref())
                .add("granted by", &principal_text(it.granted_by.as_ref()));
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `RevokeGrantResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Revoked {
    revision: Option<StreamRevision>,
}

impl From<proto::RevokeGrantResponse> for Revoked {
    fn from(message: proto::RevokeGrantResponse) -> Self {
        Self { revision: message.revision.map(Into::into) }
    }
}

impl Revoked {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `ListGrantsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct ListedGrants {
    grants: Vec<Grant>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl ListedGrants {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "ROLE", "TO", "DOMAIN", "EXPIRES", "GRANTED"],
            self.grants.iter().map(|it| {
                [
                    it.id.clone(),
                    role_text(it.role.as_ref()),
                    principal_text(it.principal.as_ref()),
                    it.domain.clone(),
                    it.expires_at.clone().unwrap_or_default(),
                    it.granted_at.clone().unwrap_or_default(),
                ]
            }),
        )
    }
}

/// See `Holder` in `role.proto`.
#[derive(Serialize)]
struct Holder {
    service_account_id: String,
    user_id: String,
    key_id: String,
    name: String,
    everywhere: bool,
    domains: Vec<String>,
    roles: Vec<RoleReference>,
}

impl From<proto::Holder> for Holder {
    fn from(message: proto::Holder) -> Self {
        use proto::holder::Holder as Who;
        let none = String::new;
        let (service_account_id, user_id, key_id) = match message.holder {
            Some(Who::ServiceAccountId(id)) => (id, none(), none()),
            Some(Who::UserId(id)) => (none(), id, none()),
            Some(Who::KeyId(id)) => (none(), none(), id),
            None => Default::default(),
        };
        Self {
            service_account_id,
            user_id,
            key_id,
            name: message.name,
            everywhere: message.everywhere,
            domains: message.domains,
            roles: message.roles.into_iter().map(Into::into).collect(),
        }
    }
}

/// See `WhoHoldsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Holders {
    holders: Vec<Holder>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl Holders {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "NAME", "WHERE", "BY"],
            self.holders.iter().map(|it| {
                let everywhere = it.everywhere.then(|| "everywhere".to_owned());
                let roles: Vec<String> = it.roles.iter().map(RoleReference::to_text).collect();
                [
                    [it.service_account_id.as_str(), &it.user_id, &it.key_id].concat(),
                    it.name.clone(),
                    everywhere.unwrap_or_else(|| it.domains.join(",")),
                    if roles.is_empty() { "scopes".to_owned() } else { roles.join(",") },
                ]
            }),
        )
    }
}

macro_rules! pages {
    ($($page:ident of $rows:ident from $message:ident),+) => {$(
        impl From<proto::$message> for $page {
            fn from(message: proto::$message) -> Self {
                Self {
                    $rows: message.$rows.into_iter().map(Into::into).collect(),
                    next_page_token: message.next_page_token,
                    revision: message.revision.map(Into::into),
                }
            }
        }

        impl Page for $page {
            fn next_page_token(&self) -> &str {
                &self.next_page_token
            }

            fn rows(&self) -> usize {
                self.$rows.len()
            }

            fn join(&mut self, later: Self) {
                self.$rows.extend(later.$rows);
                self.next_page_token = later.next_page_token;
                self.revision = later.revision;
            }
        }
    )+};
}
pages!(
    Listed of roles from ListRolesResponse,
    ListedGrants of grants from ListGrantsResponse,
    Holders of holders from WhoHoldsResponse
);

/// See `EffectivePermission` in `role.proto`.
#[derive(Serialize)]
struct Held {
    permission: String,
    role: Option<RoleReference>,
    grant_id: String,
    domain: String,
    expires_at: Option<String>,
}

/// See `EffectivePermissionsResponse`; all pages of it.
#[derive(Default, Serialize)]
pub(in crate::cli) struct Effective {
    in_force: bool,
    permissions: Vec<Held>,
    revision: Option<StreamRevision>,
}

impl From<proto::EffectivePermissionsResponse> for Effective {
    fn from(message: proto::EffectivePermissionsResponse) -> Self {
        let held = |it: proto::EffectivePermission| Held {
            permission: it.permission,
            role: it.role.map(Into::into),
            grant_id: it.grant_id,
            domain: it.domain,
            expires_at: instant(it.expires_at),
        };
        Self {
            in_force: message.in_force,
            permissions: message.permissions.into_iter().map(held).collect(),
            revision: message.revision.map(Into::into),
        }
    }
}

impl Effective {
    /// Puts a later page behind this one.
    pub(in crate::cli) fn join(&mut self, later: Self) {
        self.in_force = later.in_force;
        self.permissions.extend(later.permissions);
        self.revision = later.revision;
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        if self.permissions.is_empty() {
            return String::new();
        }
        table(
            ["PERMISSION", "BY", "GRANT", "DOMAIN", "EXPIRES"],
            self.permissions.iter().map(|it| {
                let by = role_text(it.role.as_ref());
                [
                    it.permission.clone(),
                    if by.is_empty() { "scopes".to_owned() } else { by },
                    it.grant_id.clone(),
                    it.domain.clone(),
                    it.expires_at.clone().unwrap_or_default(),
                ]
            }),
        )
    }
}

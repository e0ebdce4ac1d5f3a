//! Keys.

use std::collections::BTreeMap;

use serde::Serialize;
use zeroize::Zeroizing;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{
    Principal, RoleReference, StreamRevision, entries, environment, instant, short,
};
use crate::proto;

/// Scopes shown in a list; more are counted.
const LISTED_SCOPES_MAX: usize = 3;

#[derive(Serialize)]
struct Scopes {
    permissions: Vec<String>,
}

#[derive(Serialize)]
struct ServiceAccess {
    services: Vec<String>,
}

/// See `Key` in `key.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Key {
    id: String,
    organization_id: String,
    name: String,
    description: String,
    masked: String,
    environment: String,
    scopes: Option<Scopes>,
    roles: Vec<RoleReference>,
    services: Option<ServiceAccess>,
    created_at: Option<String>,
    created_by: Option<Principal>,
    created_with: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    state: String,
    revocation: Option<Revocation>,
    metadata: BTreeMap<String, String>,
    limits: BTreeMap<String, i64>,
}

/// See `Revocation` in `key.proto`.
#[derive(Serialize)]
struct Revocation {
    reason: String,
    comment: String,
    comment_erased: bool,
    at: Option<String>,
    by: Option<Principal>,
    with: String,
}

impl From<proto::Key> for Key {
    fn from(message: proto::Key) -> Self {
        Self {
            id: message.id,
            organization_id: message.organization_id,
            name: message.name,
            description: message.description,
            masked: message.masked,
            environment: environment(message.environment),
            scopes: message.scopes.map(|it| Scopes { permissions: it.permissions }),
            roles: message.roles.into_iter().map(Into::into).collect(),
            services: message.services.map(|it| ServiceAccess { services: it.services }),
            created_at: instant(message.created_at),
            created_by: message.created_by.map(Into::into),
            created_with: message.created_with,
            expires_at: instant(message.expires_at),
            last_used_at: instant(message.last_used_at),
            state: short(message.state, "KEY_STATE_", proto::KeyState::as_str_name),
            revocation: message.revocation.map(Into::into),
            metadata: message.metadata,
            limits: message.limits,
        }
    }
}

impl From<proto::Revocation> for Revocation {
    fn from(message: proto::Revocation) -> Self {
        let reason =
            short(message.reason, "REVOCATION_REASON_", proto::RevocationReason::as_str_name);
        Self {
            reason,
            comment: message.comment,
            comment_erased: message.comment_erased,
            at: instant(message.at),
            by: message.by.map(Into::into),
            with: message.with,
        }
    }
}

impl Key {
    fn describe(&self, fields: &mut Fields) {
        let unspecified = self.environment == "unspecified";
        let environment = if unspecified { "live" } else { &self.environment };
        let all = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        fields
            .add("id", &self.id)
            .add("organization", &self.organization_id)
            .add("name", &self.name)
            .add("description", &self.description)
            .add("masked", &self.masked)
            .add("state", &self.state)
            .add("environment", environment)
            .add_all("roles", self.roles.iter().map(RoleReference::to_text))
            .add_all("scopes", all(self.scopes.as_ref().map(|it| &it.permissions)))
            .add_all("services", all(self.services.as_ref().map(|it| &it.services)))
            .add_all("metadata", entries(&self.metadata))
            .add_all("limits", entries(&self.limits))
            .add_some("created", self.created_at.as_ref())
            .add("created by", &who(self.created_by.as_ref(), &self.created_with))
            .add("expires", self.expires_at.as_deref().unwrap_or("never"))
            .add("last used", self.last_used_at.as_deref().unwrap_or("never"));
        if let Some(revocation) = &self.revocation {
            let comment = if revocation.comment_erased { "(erased)" } else { &revocation.comment };
            fields
                .add_some("revoked", revocation.at.as_ref())
                .add("revoked by", &who(revocation.by.as_ref(), &revocation.with))
                .add("reason", &revocation.reason.replace('_', "-"))
                .add("comment", comment);
        }
    }

    fn row(&self) -> [String; 8] {
        let roles: Vec<String> = self.roles.iter().map(RoleReference::to_text).collect();
        [
            self.id.clone(),
            self.name.clone(),
            self.state.clone(),
            self.masked.clone(),
            roles.join(","),
            self.scopes.as_ref().map(|it| abridged(&it.permissions)).unwrap_or_default(),
            self.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
            self.last_used_at.clone().unwrap_or_else(|| "never".to_owned()),
        ]
    }
}

fn abridged(scopes: &[String]) -> String {
    let shown: Vec<&str> = scopes.iter().take(LISTED_SCOPES_MAX).map(String::as_str).collect();
    match scopes.len().saturating_sub(LISTED_SCOPES_MAX) {
        0 => shown.join(","),
        more => format!("{},+{more}", shown.join(",")),
    }
}

fn who(principal: Option<&Principal>, with: &str) -> String {
    let who = principal.map(Principal::to_text).unwrap_or_default();
    if with.is_empty() { who } else { format!("{who} with {with}") }
}

/// See `CreateKeyResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Created {
    key: Option<Key>,
    #[serde(serialize_with = "exposed")]
    pub(in crate::cli) secret: Zeroizing<String>,
    pub(in crate::cli) secret_already_issued: bool,
    revision: Option<StreamRevision>,
}

fn exposed<S: serde::Serializer>(
    secret: &Zeroizing<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret)
}

impl From<proto::CreateKeyResponse> for Created {
    fn from(message: proto::CreateKeyResponse) -> Self {
        Self {
            key: message.key.map(Into::into),
            secret: Zeroizing::new(message.secret),
            secret_already_issued: message.secret_already_issued,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Created {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("secret", &self.secret);
        one(fields, self.key.as_ref(), self.revision.as_ref())
    }
}

/// See `GetKeyResponse` and `RevokeKeyResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Got {
    key: Option<Key>,
    revision: Option<StreamRevision>,
}

impl From<proto::GetKeyResponse> for Got {
    fn from(message: proto::GetKeyResponse) -> Self {
        Self { key: message.key.map(Into::into), revision: message.revision.map(Into::into) }
    }
}

impl From<proto::RevokeKeyResponse> for Got {
    fn from(message: proto::RevokeKeyResponse) -> Self {
        Self { key: message.key.map(Into::into), revision: message.revision.map(Into::into) }
    }
}

impl Got {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        one(Fields::default(), self.key.as_ref(), self.revision.as_ref())
    }
}

fn one(mut fields: Fields, key: Option<&Key>, revision: Option<&StreamRevision>) -> String {
    if let Some(key) = key {
        key.describe(&mut fields);
    }
    fields.add_all("revision", revision.map(StreamRevision::to_text));
    fields.to_text()
}

/// See `ListKeysResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    keys: Vec<Key>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl From<proto::ListKeysResponse> for Listed {
    fn from(message: proto::ListKeysResponse) -> Self {
        Self {
            keys: message.keys.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "NAME", "STATE", "MASKED", "ROLES", "SCOPES", "EXPIRES", "LAST USED"],
            self.keys.iter().map(Key::row),
        )
    }
}

impl Page for Listed {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.keys.len()
    }

    fn join(&mut self, later: Self) {
        self.keys.extend(later.keys);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}

//! Keys.

use std::collections::BTreeMap;

use serde::Serialize;
use zeroize::Zeroizing;

use super::super::output::{Fields, table, warn};
use super::super::pages::Page;
use super::common::{
    Act, Principal, RoleReference, StreamRevision, entries, environment, instant, short, who,
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
    pub(in crate::cli) id: String,
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
    pub(in crate::cli) state: String,
    revocation: Option<Revocation>,
    metadata: BTreeMap<String, String>,
    limits: BTreeMap<String, i64>,
    origin: String,
    service_account_id: String,
    user_id: String,
    allowed_ips: Vec<String>,
    rate_limit: Option<RateLimit>,
    predecessor_id: String,
    pub(in crate::cli) rotation: Option<Rotation>,
    disabled: Option<Act>,
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct RateLimit {
    requests: u32,
    per_seconds: u32,
}

/// See `Rotation` in `key.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Rotation {
    pub(in crate::cli) successor_id: String,
    pub(in crate::cli) ends_at: Option<String>,
    act: Option<Act>,
}

#[derive(Serialize)]
pub(super) struct Warning {
    code: String,
    pub(super) message: String,
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
            environment: effective(message.environment),
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
            origin: short(message.origin, "KEY_ORIGIN_", proto::KeyOrigin::as_str_name),
            service_account_id: message.service_account_id,
            user_id: message.user_id,
            allowed_ips: message.allowed_ips,
            rate_limit: message
                .rate_limit
                .map(|it| RateLimit { requests: it.requests, per_seconds: it.per_seconds }),
            predecessor_id: message.predecessor_id,
            rotation: message.rotation.map(Into::into),
            disabled: message.disabled.map(Into::into),
            warnings: message.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

/// Where a key may be used: one whose text names no environment is live.
fn effective(value: i32) -> String {
    let unspecified = value == i32::from(proto::Environment::Unspecified);
    environment(if unspecified { proto::Environment::Live.into() } else { value })
}

impl From<proto::Rotation> for Rotation {
    fn from(message: proto::Rotation) -> Self {
        Self {
            successor_id: message.successor_id,
            ends_at: instant(message.ends_at),
            act: message.act.map(Into::into),
        }
    }
}

impl From<proto::KeyWarning> for Warning {
    fn from(message: proto::KeyWarning) -> Self {
        let code = short(message.code, "KEY_WARNING_CODE_", proto::KeyWarningCode::as_str_name);
        Self { code, message: message.message }
    }
}

impl RateLimit {
    fn to_text(&self) -> String {
        format!("{}/{}s", self.requests, self.per_seconds)
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
        let all = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        fields
            .add("id", &self.id)
            .add("organization", &self.organization_id)
            .add("name", &self.name)
            .add("description", &self.description)
            .add("masked", &self.masked)
            .add("origin", if self.origin == "minted" { "" } else { &self.origin })
            .add("service account", &self.service_account_id)
            .add("user", &self.user_id)
            .add("state", &self.state)
            .add("environment", &self.environment)
            .add_all("roles", self.roles.iter().map(RoleReference::to_text))
            .add_all("scopes", all(self.scopes.as_ref().map(|it| &it.permissions)))
            .add_all("services", all(self.services.as_ref().map(|it| &it.services)))
            .add_all("allowed from", self.allowed_ips.iter().cloned())
            .add_some("rate limit", self.rate_limit.as_ref().map(RateLimit::to_text).as_ref())
            .add_all("metadata", entries(&self.metadata))
            .add_all("limits", entries(&self.limits))
            .add_some("created", self.created_at.as_ref())
            .add("created by", &who(self.created_by.as_ref(), &self.created_with))
            .add("expires", self.expires_at.as_deref().unwrap_or("never"))
            .add("last used", self.last_used_at.as_deref().unwrap_or("never"))
            .add("predecessor", &self.predecessor_id);
        if let Some(rotation) = &self.rotation {
            let by = rotation.act.as_ref().map(Act::to_text);
            fields
                .add("successor", &rotation.successor_id)
                .add_some("valid until", rotation.ends_at.as_ref())
                .add_some("rotated", by.as_ref());
        }
        if let Some(disabled) = &self.disabled {
            fields.add("disabled", &disabled.to_text());
            // Of a key that was revoked since, the last comment says why it is out of force.
            if self.revocation.is_none() {
                fields.add("comment", disabled.comment());
            }
        }
        if let Some(revocation) = &self.revocation {
            let comment = if revocation.comment_erased { "(erased)" } else { &revocation.comment };
            fields
                .add_some("revoked", revocation.at.as_ref())
                .add("revoked by", &who(revocation.by.as_ref(), &revocation.with))
                .add("reason", &revocation.reason.replace('_', "-"))
                .add("comment", comment);
        }
    }

    /// Says on stderr what looks like a mistake.
    pub(super) fn warn(&self) {
        for warning in &self.warnings {
            warn(&warning.message);
        }
    }

    /// The same, where there are several keys.
    pub(super) fn warn_by_name(&self) {
        for warning in &self.warnings {
            warn(&format!("key `{}`: {}", self.name, warning.message));
        }
    }

    /// Keys, one to a line.
    pub(super) fn table(keys: &[Self]) -> String {
        table(
            [
                "ID",
                "NAME",
                "STATE",
                "MASKED",
                "ROLES",
                "SCOPES",
                "SERVICES",
                "EXPIRES",
                "LAST USED",
                "REMARKS",
            ],
            keys.iter().map(Self::row),
        )
    }

    /// What sets it apart from most keys, in few words.
    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if self.origin != "minted" {
            remarks.push(self.origin.clone());
        }
        for owner in [&self.service_account_id, &self.user_id] {
            if !owner.is_empty() {
                remarks.push(format!("of {owner}"));
            }
        }
        if !self.allowed_ips.is_empty() {
            remarks.push(format!("from {}", abridged(&self.allowed_ips)));
        }
        remarks.extend(self.rate_limit.as_ref().map(RateLimit::to_text));
        if let Some(rotation) = self.rotation.as_ref().filter(|_| self.state != "revoked") {
            let until = rotation.ends_at.as_deref().unwrap_or_default();
            remarks.push(format!("rotated, valid until {until}"));
        }
        match self.warnings.len() {
            0 => {}
            1 => remarks.push("1 warning".to_owned()),
            more => remarks.push(format!("{more} warnings")),
        }
        remarks.join("; ")
    }

    fn row(&self) -> [String; 10] {
        let roles: Vec<String> = self.roles.iter().map(RoleReference::to_text).collect();
        [
            self.id.clone(),
            self.name.clone(),
            self.state.clone(),
            self.masked.clone(),
            roles.join(","),
            self.scopes.as_ref().map(|it| abridged(&it.permissions)).unwrap_or_default(),
            self.services.as_ref().map(|it| abridged(&it.services)).unwrap_or_default(),
            self.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
            self.last_used_at.clone().unwrap_or_else(|| "never".to_owned()),
            self.remarks(),
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

/// See `CreateKeyResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Created {
    key: Option<Key>,
    #[serde(serialize_with = "exposed")]
    pub(in crate::cli) secret: Zeroizing<String>,
    pub(in crate::cli) secret_already_issued: bool,
    revision: Option<StreamRevision>,
}

pub(super) fn exposed<S: serde::Serializer>(
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
    /// Whether it may do everything in the whole installation, for ever.
    pub(in crate::cli) fn rules_for_ever(&self) -> bool {
        self.key.as_ref().is_some_and(|key| {
            let all =
                |role: &RoleReference| ["admin", "operator-admin"].contains(&&*role.to_text());
            key.organization_id == "operator"
                && key.expires_at.is_none()
                && key.scopes.is_none()
                && key.services.is_none()
                && key.roles.iter().any(all)
        })
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("secret", &self.secret);
        one(fields, self.key.as_ref(), self.revision.as_ref())
    }

    /// Says on stderr what looks like a mistake.
    pub(in crate::cli) fn warn(&self) {
        self.key.iter().for_each(Key::warn);
    }
}

/// A key as it is now, and where that was read or recorded: see `GetKeyResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Got {
    pub(in crate::cli) key: Option<Key>,
    revision: Option<StreamRevision>,
}

macro_rules! got {
    ($($response:ident)+) => {
        $(impl From<proto::$response> for Got {
            fn from(message: proto::$response) -> Self {
                let key = message.key.map(Into::into);
                Self { key, revision: message.revision.map(Into::into) }
            }
        })+
    };
}

got! {
    GetKeyResponse
    RevokeKeyResponse
    UpdateKeyLabelResponse
    EndRotationResponse
    DisableKeyResponse
    EnableKeyResponse
}

impl Got {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        one(Fields::default(), self.key.as_ref(), self.revision.as_ref())
    }

    /// Says on stderr what looks like a mistake.
    pub(in crate::cli) fn warn(&self) {
        self.key.iter().for_each(Key::warn);
    }
}

pub(super) fn one(
    mut fields: Fields,
    key: Option<&Key>,
    revision: Option<&StreamRevision>,
) -> String {
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
    /// Of these keys it is not known when they had last been used.
    pub(super) fn last_used_unknown(mut self, of: &[String]) -> Self {
        for key in self.keys.iter_mut().filter(|it| of.contains(&it.id)) {
            key.last_used_at = Some("not known".to_owned());
        }
        self
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        Key::table(&self.keys)
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

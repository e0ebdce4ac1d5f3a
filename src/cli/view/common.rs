//! What several messages share.

use std::collections::BTreeMap;

use projections::time::Timestamp;
use serde::Serialize;

use crate::proto;

/// See `StreamRevision` in `common.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct StreamRevision {
    stream: String,
    revision: u64,
}

impl From<proto::StreamRevision> for StreamRevision {
    fn from(message: proto::StreamRevision) -> Self {
        Self { stream: message.stream, revision: message.revision }
    }
}

impl StreamRevision {
    /// As `--at-least` takes it.
    pub(in crate::cli) fn to_text(&self) -> String {
        format!("{}={}", self.stream, self.revision)
    }
}

/// See `Principal` in `common.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Principal {
    kind: String,
    organization_id: String,
    service_account_id: String,
    user_id: String,
    break_glass_grant_id: String,
    account_id: String,
}

impl From<proto::Principal> for Principal {
    fn from(message: proto::Principal) -> Self {
        let kind = short(message.kind, "PRINCIPAL_KIND_", proto::PrincipalKind::as_str_name);
        Self {
            kind,
            organization_id: message.organization_id,
            service_account_id: message.service_account_id,
            user_id: message.user_id,
            break_glass_grant_id: message.break_glass_grant_id,
            account_id: message.account_id,
        }
    }
}

impl Principal {
    /// What it is: `organization`, `service_account`, `user`, `break_glass`, `account`,
    /// `operator`, `ledger`.
    pub(in crate::cli) fn kind(&self) -> &str {
        &self.kind
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        match self.kind.as_str() {
            "organization" => format!("organization {}", self.organization_id),
            "service_account" => format!("service account {}", self.service_account_id),
            "user" => format!("user {}", self.user_id),
            "break_glass" => format!("break-glass grant {}", self.break_glass_grant_id),
            "account" => format!("account {}", self.account_id),
            kind => kind.to_owned(),
        }
    }
}

/// See `RoleReference` in `common.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct RoleReference {
    id: String,
    name: String,
}

impl From<proto::RoleReference> for RoleReference {
    fn from(message: proto::RoleReference) -> Self {
        Self { id: message.id, name: message.name }
    }
}

impl RoleReference {
    /// Its name, or its identifier where the name is not known.
    pub(in crate::cli) fn to_text(&self) -> String {
        if self.name.is_empty() { self.id.clone() } else { self.name.clone() }
    }
}

/// An enum's value by its short name; a number that this release has no name for stays one.
pub(in crate::cli) fn short<E: TryFrom<i32>>(
    value: i32,
    prefix: &str,
    name: impl FnOnce(&E) -> &'static str,
) -> String {
    match E::try_from(value) {
        Ok(known) => name(&known).trim_start_matches(prefix).to_lowercase(),
        Err(_) => value.to_string(),
    }
}

/// `live` or `test`.
pub(in crate::cli) fn environment(value: i32) -> String {
    short(value, "ENVIRONMENT_", proto::Environment::as_str_name)
}

/// See `Act` in `common.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Act {
    pub(in crate::cli) at: Option<String>,
    by: Option<Principal>,
    with: String,
    comment: String,
    comment_erased: bool,
}

impl From<proto::Act> for Act {
    fn from(message: proto::Act) -> Self {
        Self {
            at: instant(message.at),
            by: message.by.map(Into::into),
            with: message.with,
            comment: message.comment,
            comment_erased: message.comment_erased,
        }
    }
}

impl Act {
    /// For people: when, and who.
    pub(in crate::cli) fn to_text(&self) -> String {
        let at = self.at.as_deref().unwrap_or_default();
        format!("{at} by {}", who(self.by.as_ref(), &self.with))
    }

    /// What was written, for people; empty if nothing was.
    pub(in crate::cli) fn comment(&self) -> &str {
        if self.comment_erased { "(erased)" } else { &self.comment }
    }
}

/// A principal and the key it used, for people.
pub(in crate::cli) fn who(principal: Option<&Principal>, with: &str) -> String {
    let who = principal.map(Principal::to_text).unwrap_or_default();
    if with.is_empty() { who } else { format!("{who} with {with}") }
}

/// A length of time in whole seconds as flags take it: `1d12h`.
pub(in crate::cli) fn span(seconds: i64) -> String {
    let mut text = String::new();
    let mut rest = seconds;
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest / length > 0 {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// RFC 3339.
pub(in crate::cli) fn instant(at: Option<prost_types::Timestamp>) -> Option<String> {
    let at = at?;
    let millis = at
        .seconds
        .checked_mul(1_000)
        .and_then(|millis| millis.checked_add(i64::from(at.nanos) / 1_000_000));
    Some(match millis.and_then(Timestamp::from_millis) {
        Some(instant) => instant.to_string(),
        None => at.to_string(),
    })
}

/// `key=value`, for people.
pub(in crate::cli) fn entries<V: ToString>(
    map: &BTreeMap<String, V>,
) -> impl Iterator<Item = String> {
    map.iter().map(|(key, value)| format!("{key}={}", value.to_string()))
}

//! Requests become types that cannot be wrong; the field at fault is named.

use std::collections::BTreeMap;
use std::str::FromStr;

use projections::api_key::Environment;
use projections::envelope::RequestStamp;
use projections::event::RevocationReason;
use projections::id::RoleId;
use projections::permission::Scopes;
use projections::recorded::Revision;
use projections::text::{self, Label, MetadataValue, ServiceName};
use projections::time::Timestamp;
use tonic::Status;

use super::status;
use crate::ledger::command::{Caller, Expiry, RequestStamper};
use crate::proto;

/// Most roles of one key.
pub const ROLES_MAX: usize = 20;
/// Most services of one key.
pub const SERVICES_MAX: usize = 100;
/// Most entries of metadata, and of limits.
pub const ENTRIES_MAX: usize = 32;

/// Reads a field that must be there.
pub fn field<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| status::invalid(name, error))
}

/// Reads a field that may be empty.
pub fn optional<T: FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: &str,
) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

/// Reads an environment; none where it is unspecified.
pub fn environment(value: i32) -> Result<Option<Environment>, Status> {
    match proto::Environment::try_from(value) {
        Ok(proto::Environment::Unspecified) => Ok(None),
        Ok(proto::Environment::Live) => Ok(Some(Environment::Live)),
        Ok(proto::Environment::Test) => Ok(Some(Environment::Test)),
        Err(_) => Err(status::invalid("environment", "is no known environment")),
    }
}

/// Reads the reason of a revocation.
pub fn revocation_reason(value: i32) -> Result<RevocationReason, Status> {
    use proto::RevocationReason as Wire;
    Ok(
        match Wire::try_from(value).map_err(|_| status::invalid("reason", "is no known reason"))? {
            Wire::Unspecified => RevocationReason::Unspecified,
            Wire::KeyCompromise => RevocationReason::KeyCompromise,
            Wire::AffiliationChanged => RevocationReason::AffiliationChanged,
            Wire::Superseded => RevocationReason::Superseded,
            Wire::CessationOfOperation => RevocationReason::CessationOfOperation,
            Wire::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        },
    )
}

/// Reads scopes; none where they are absent.
pub fn scopes(message: Option<&proto::Scopes>) -> Result<Option<Scopes>, Status> {
    message
        .map(|message| Scopes::new(&message.permissions))
        .transpose()
        .map_err(|error| status::invalid("scopes.permissions", error))
}

/// Reads a list of roles, each named once.
pub fn roles(texts: &[String]) -> Result<Vec<RoleId>, Status> {
    if texts.len() > ROLES_MAX {
        return Err(status::invalid("role_ids", format_args!("must be at most {ROLES_MAX}")));
    }
    let mut roles = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        let role = field(&format!("role_ids[{place}]"), text)?;
        if roles.contains(&role) {
            return Err(status::invalid(format!("role_ids[{place}]"), "is named twice"));
        }
        roles.push(role);
    }
    Ok(roles)
}

/// Reads service access; none for all services.
pub fn services(
    message: Option<&proto::ServiceAccess>,
) -> Result<Option<Vec<ServiceName>>, Status> {
    let Some(message) = message else { return Ok(None) };
    if message.services.is_empty() || message.services.len() > SERVICES_MAX {
        let problem =
            format!("must name 1 to {SERVICES_MAX} services; leave `services` out for all");
        return Err(status::invalid("services.services", problem));
    }
    let mut services: Vec<ServiceName> = Vec::with_capacity(message.services.len());
    for (place, text) in message.services.iter().enumerate() {
        let name = format!("services.services[{place}]");
        let service = field(&name, text)?;
        if services.contains(&service) {
            return Err(status::invalid(name, "is named twice"));
        }
        services.push(service);
    }
    services.sort();
    Ok(Some(services))
}

/// Reads metadata.
pub fn metadata(map: &BTreeMap<String, String>) -> Result<BTreeMap<Label, MetadataValue>, Status> {
    entries("metadata", map, |field_name, value| field(field_name, value))
}

/// Reads numeric limits.
pub fn limits(map: &BTreeMap<String, i64>) -> Result<BTreeMap<Label, i64>, Status> {
    entries("limits", map, |_, value| Ok(*value))
}

fn entries<V, T>(
    name: &str,
    map: &BTreeMap<String, V>,
    read: impl Fn(&str, &V) -> Result<T, Status>,
) -> Result<BTreeMap<Label, T>, Status> {
    if map.len() > ENTRIES_MAX {
        return Err(status::invalid(name, format_args!("must have at most {ENTRIES_MAX} entries")));
    }
    map.iter()
        .map(|(key, value)| {
            let label: Label = key
                .parse()
                .map_err(|error| status::invalid(name, format_args!("a key {error}")))?;
            let value = read(&format!("{name}.{label}"), value)?;
            Ok((label, value))
        })
        .collect()
}

/// Reads when a key shall end.
pub fn expiry(message: Option<&proto::create_key_request::Expiry>) -> Result<Expiry, Status> {
    use proto::create_key_request::Expiry as Wire;
    match message {
        None => Ok(Expiry::PlanDefault),
        Some(Wire::ExpiresAt(at)) => instant(at).map(Expiry::At),
        Some(Wire::Lifetime(lifetime)) => {
            let wrong = || {
                status::invalid("lifetime", "must be longer than 0 and shorter than 1,000 years")
            };
            const YEARS_1000_MS: i64 = 1_000 * 366 * 24 * 3_600 * 1_000;
            let millis = lifetime
                .seconds
                .checked_mul(1_000)
                .and_then(|millis| millis.checked_add(i64::from(lifetime.nanos) / 1_000_000))
                .filter(|millis| (1..YEARS_1000_MS).contains(millis))
                .ok_or_else(wrong)?;
            Ok(Expiry::After(millis))
        }
    }
}

fn instant(at: &prost_types::Timestamp) -> Result<Timestamp, Status> {
    let wrong = || status::invalid("expires_at", "must be an instant between the years 1 and 9999");
    if !(0..1_000_000_000).contains(&at.nanos) {
        return Err(wrong());
    }
    let millis = at
        .seconds
        .checked_mul(1_000)
        .and_then(|millis| millis.checked_add(i64::from(at.nanos) / 1_000_000));
    millis.and_then(Timestamp::from_millis).ok_or_else(wrong)
}

/// Reads the revision that the caller expects.
#[must_use]
pub fn expected(revision: Option<u64>) -> Option<Revision> {
    revision.map(Revision)
}

/// Reads an idempotency key, and stamps the request with it.
///
/// `message` is the request without that key: what must be the same in a repeat.
pub fn request_stamp<M: prost::Message>(
    stamper: &RequestStamper,
    caller: Caller,
    method: &str,
    idempotency_key: &str,
    message: &M,
) -> Result<Option<RequestStamp>, Status> {
    if idempotency_key.is_empty() {
        return Ok(None);
    }
    if !text::is_token(idempotency_key) {
        return Err(status::invalid(
            "idempotency_key",
            "must be 1 to 128 visible ASCII characters",
        ));
    }
    Ok(Some(stamper.stamp(caller, method, idempotency_key, &message.encode_to_vec())))
}

//! Requests become types that cannot be wrong; the field at fault is named.

use std::collections::BTreeMap;
use std::str::FromStr;

use projections::api_key::Environment;
use projections::envelope::RequestStamp;
use projections::event::RevocationReason;
use projections::id::{RoleId, ServiceAccountId, UserId};
use projections::network::{Networks, RateLimit};
use projections::permission::{PermissionPattern, Scopes};
use projections::policy::Policy;
use projections::principal::Owner;
use projections::recorded::Revision;
use projections::text::{self, Label, MetadataValue, ServiceName};
use projections::time::Timestamp;
use tonic::Status;

use super::status;
use crate::ledger::command::{Caller, Expiry, INVITATION_MAX_MS, INVITATION_MS, RequestStamper};
use crate::proto;

/// Most roles of one key.
pub const ROLES_MAX: usize = 20;
/// Most services of one key.
pub const SERVICES_MAX: usize = 100;
/// Most entries of metadata, and of limits.
pub const ENTRIES_MAX: usize = 32;

/// What a domain must be.
pub const DOMAIN: &str = "must be a domain such as `example.com`, in lower case";

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

/// Reads whose key is meant: a service account's, a user's, or nobody's.
pub fn owner(service_account_id: &str, user_id: &str) -> Result<Option<Owner>, Status> {
    let account: Option<ServiceAccountId> = optional("service_account_id", service_account_id)?;
    let user: Option<UserId> = optional("user_id", user_id)?;
    match (account, user) {
        (Some(_), Some(_)) => {
            Err(status::invalid("user_id", "stands beside `service_account_id`; name one of both"))
        }
        (account, user) => Ok(account.map(Owner::from).or(user.map(Owner::from))),
    }
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

/// Reads what a role shall permit.
pub fn role_permissions(name: &str, texts: &[String]) -> Result<Vec<PermissionPattern>, Status> {
    PermissionPattern::list(texts).map_err(|(place, error)| match place {
        Some(place) => status::invalid(format!("{name}[{place}]"), error),
        None => status::invalid(name, error),
    })
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

/// Reads numeric limits, in a field of this name.
pub fn limits(name: &str, map: &BTreeMap<String, i64>) -> Result<BTreeMap<Label, i64>, Status> {
    entries(name, map, |_, value| Ok(*value))
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

/// Reads when a key shall end, from the oneof that some messages have for it.
macro_rules! expiry {
    ($module:ident, $message:expr) => {
        match &$message.expiry {
            None => Ok(None),
            Some(proto::$module::Expiry::ExpiresAt(at)) => read::expires_at(at).map(Some),
            Some(proto::$module::Expiry::Lifetime(it)) => read::lifetime(it).map(Some),
        }
    };
}
pub(super) use expiry;

/// Reads the instant at which a key shall end.
pub fn expires_at(at: &prost_types::Timestamp) -> Result<Expiry, Status> {
    instant(at).map(Expiry::At)
}

/// Reads after how long a key shall end.
pub fn lifetime(lifetime: &prost_types::Duration) -> Result<Expiry, Status> {
    const YEARS_1000_MS: i64 = 1_000 * 366 * 24 * 3_600 * 1_000;
    let millis = millis(lifetime).filter(|millis| (1..YEARS_1000_MS).contains(millis));
    millis.map(Expiry::After).ok_or_else(|| {
        status::invalid("lifetime", "must be longer than 0 and shorter than 1,000 years")
    })
}

/// Reads how long an invitation is accepted, in milliseconds.
pub fn invitation_lifetime(lifetime: Option<&prost_types::Duration>) -> Result<i64, Status> {
    let Some(lifetime) = lifetime else { return Ok(INVITATION_MS) };
    millis(lifetime).filter(|millis| (1..=INVITATION_MAX_MS).contains(millis)).ok_or_else(|| {
        status::invalid("invitation_lifetime", "must be longer than 0 and at most 30 days")
    })
}

/// A duration in whole milliseconds; none where there is no such number, or where it is
/// negative or none at all: its nanoseconds are less than a second, and never negative.
fn millis(duration: &prost_types::Duration) -> Option<i64> {
    let nanos = Some(duration.nanos).filter(|nanos| (0..1_000_000_000).contains(nanos))?;
    let millis = duration.seconds.checked_mul(1_000)?.checked_add(i64::from(nanos) / 1_000_000)?;
    Some(millis).filter(|millis| *millis >= 0)
}

/// Reads how long the old key of a rotation stays valid, in milliseconds.
pub fn grace(duration: Option<&prost_types::Duration>) -> Result<Option<i64>, Status> {
    let Some(duration) = duration else { return Ok(None) };
    millis(duration)
        .map(Some)
        .ok_or_else(|| status::invalid("grace", "must be a duration that is not negative"))
}

/// Reads a limit of a policy in whole seconds, at least one unless `from` says otherwise.
fn seconds(
    name: &str,
    duration: Option<&prost_types::Duration>,
    from: u32,
) -> Result<Option<u32>, Status> {
    let Some(duration) = duration else { return Ok(None) };
    let whole =
        u32::try_from(duration.seconds).ok().filter(|it| duration.nanos == 0 && *it >= from);
    let problem = || format!("must be whole seconds, {from} to {}", u32::MAX);
    whole.map(Some).ok_or_else(|| status::invalid(name, problem()))
}

/// Reads the rules that an organization gives itself.
pub fn policy(message: Option<&proto::Policy>) -> Result<Policy, Status> {
    let missing = || status::invalid("policy", "must be given; an empty one asks for nothing");
    let message = message.ok_or_else(missing)?;
    let lifetime = message.key_lifetime_max.as_ref();
    let grace = message.rotation_grace_max.as_ref();
    Ok(Policy {
        key_lifetime_max_seconds: seconds("policy.key_lifetime_max", lifetime, 1)?,
        rotation_grace_max_seconds: seconds("policy.rotation_grace_max", grace, 0)?,
        allowed_ips_required: message.allowed_ips_required,
    })
}

/// Reads the addresses from which a key may be used; none for anywhere.
pub fn allowed_ips(texts: &[String]) -> Result<Option<Networks>, Status> {
    if texts.is_empty() {
        return Ok(None);
    }
    Networks::new(texts)
        .map(Some)
        .map_err(|(place, error)| status::invalid(format!("allowed_ips[{place}]"), error))
}

/// Reads how often a key may be used.
pub fn rate_limit(message: Option<&proto::RateLimit>) -> Result<Option<RateLimit>, Status> {
    message
        .map(|message| RateLimit::new(message.requests, message.per_seconds))
        .transpose()
        .map_err(|error| status::invalid("rate_limit", error))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn a_duration_is_what_it_says() {
        for (seconds, nanos, millis) in [(0, 0, 0), (0, 1, 0), (1, 999_999_999, 1_999)] {
            assert_eq!(grace(Some(&duration(seconds, nanos))).unwrap(), Some(millis));
        }
        assert_eq!(lifetime(&duration(0, 1_000_000)).unwrap(), Expiry::After(1));
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (1, -1),
            (-1, 1_000_000_000),
            (-1, i32::MAX),
            (1, 1_000_000_000),
            (i64::MAX, 0),
            (i64::MIN, 0),
        ] {
            let wrong = duration(seconds, nanos);
            assert!(grace(Some(&wrong)).is_err(), "{wrong:?}");
            assert!(lifetime(&wrong).is_err(), "{wrong:?}");
            assert!(self::seconds("s", Some(&wrong), 0).is_err(), "{wrong:?}");
        }
        assert!(lifetime(&duration(0, 999_999)).is_err(), "that is nothing");
    }
}

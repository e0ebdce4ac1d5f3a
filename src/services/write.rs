//! Rows become messages.

use projections::api_key::Environment;
use projections::event::RevocationReason;
use projections::id::RoleId;
use projections::key::{Key, KeyState, Revocation};
use projections::organization::{Organization, Profile};
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::role::Role;
use projections::time::Timestamp;
use projections::verification::Authority;

use crate::proto;

/// An instant.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let millis = at.as_millis();
    prost_types::Timestamp {
        seconds: millis.div_euclid(1_000),
        // At most 999 milliseconds: it fits.
        nanos: i32::try_from(millis.rem_euclid(1_000)).unwrap_or(0) * 1_000_000,
    }
}

/// A place in a stream; none where the stream holds nothing.
#[must_use]
pub fn revision(stream: &StreamName, revision: Option<Revision>) -> Option<proto::StreamRevision> {
    revision
        .map(|revision| proto::StreamRevision { stream: stream.to_string(), revision: revision.0 })
}

/// Who acts.
#[must_use]
pub fn principal(principal: Principal) -> proto::Principal {
    let (kind, organization_id) = match principal {
        Principal::Organization(id) if id.is_operator() => {
            (proto::PrincipalKind::Operator, id.text())
        }
        Principal::Organization(id) => (proto::PrincipalKind::Organization, id.text()),
        Principal::Ledger => (proto::PrincipalKind::Ledger, String::new()),
    };
    proto::Principal { kind: kind.into(), organization_id }
}

/// Where a key may be used.
#[must_use]
pub fn environment(environment: Option<Environment>) -> proto::Environment {
    match environment {
        None => proto::Environment::Unspecified,
        Some(Environment::Live) => proto::Environment::Live,
        Some(Environment::Test) => proto::Environment::Test,
    }
}

fn reason(reason: RevocationReason) -> proto::RevocationReason {
    match reason {
        RevocationReason::Unspecified => proto::RevocationReason::Unspecified,
        RevocationReason::KeyCompromise => proto::RevocationReason::KeyCompromise,
        RevocationReason::AffiliationChanged => proto::RevocationReason::AffiliationChanged,
        RevocationReason::Superseded => proto::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => proto::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => proto::RevocationReason::PrivilegeWithdrawn,
    }
}

/// Whether a key is in force.
#[must_use]
pub fn key_state(state: KeyState) -> proto::KeyState {
    match state {
        KeyState::Active => proto::KeyState::Active,
        KeyState::Expired => proto::KeyState::Expired,
        KeyState::Revoked => proto::KeyState::Revoked,
    }
}

/// Scopes.
#[must_use]
pub fn scopes(scopes: &Scopes) -> proto::Scopes {
    proto::Scopes { permissions: scopes.texts().map(str::to_owned).collect() }
}

/// A role by reference.
#[must_use]
pub fn role_reference(role: &Role) -> proto::RoleReference {
    proto::RoleReference { id: role.id.to_string(), name: role.definition.name.to_string() }
}

fn roles(
    key: &Key,
    organization: &Organization,
    operator: &Organization,
) -> Vec<proto::RoleReference> {
    let known: Vec<&Role> = Authority::of(key, organization, operator).roles().collect();
    let reference = |id: &RoleId| match known.iter().find(|role| role.id == *id) {
        Some(role) => role_reference(role),
        None => proto::RoleReference { id: id.to_string(), name: String::new() },
    };
    key.roles().iter().map(reference).collect()
}

/// A key, without what a revoker wrote.
#[must_use]
pub fn key(
    key: &Key,
    organization: &Organization,
    operator: &Organization,
    now: Timestamp,
) -> proto::Key {
    let extras = key.extras.as_deref();
    proto::Key {
        id: key.id.to_string(),
        organization_id: organization.id.to_string(),
        name: key.name.to_string(),
        description: extras
            .and_then(|it| it.description.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        masked: organization.profile().map(|it| key.masked(&it.key_prefix)).unwrap_or_default(),
        environment: environment(key.environment).into(),
        scopes: key.scopes.as_ref().map(scopes),
        roles: roles(key, organization, operator),
        services: key.services().map(|list| proto::ServiceAccess {
            services: list.iter().map(ToString::to_string).collect(),
        }),
        created_at: Some(timestamp(key.created_at)),
        created_by: Some(principal(key.maker.by)),
        created_with: key.maker.with.map(|id| id.to_string()).unwrap_or_default(),
        expires_at: key.expires_at().map(timestamp),
        state: key_state(key.state(now)).into(),
        revocation: key.revocation.as_deref().map(revocation),
        metadata: extras
            .map(|it| it.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
            .unwrap_or_default(),
        limits: extras
            .map(|it| it.limits.iter().map(|(k, v)| (k.to_string(), *v)).collect())
            .unwrap_or_default(),
    }
}

fn revocation(revocation: &Revocation) -> proto::Revocation {
    proto::Revocation {
        reason: reason(revocation.reason).into(),
        comment: String::new(),
        comment_erased: false,
        at: Some(timestamp(revocation.at)),
        by: Some(principal(revocation.by)),
        with: revocation.with.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// An organization.
#[must_use]
pub fn organization(id: projections::id::OrganizationId, profile: &Profile) -> proto::Organization {
    proto::Organization {
        id: id.to_string(),
        name: profile.name.to_string(),
        key_prefix: profile.key_prefix.to_string(),
        plan: profile.plan.to_string(),
        created_at: Some(timestamp(profile.created_at)),
    }
}

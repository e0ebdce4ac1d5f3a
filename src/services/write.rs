//! Rows become messages.

use projections::api_key::Environment;
use projections::event::{KeyOrigin, RevocationReason};
use projections::id::{AccountId, KeyId, OrganizationId, RoleId};
use projections::key::{Act, Key, KeyState};
use projections::organization::{Organization, Profile};
use projections::permission::Scopes;
use projections::policy::Policy;
use projections::principal::{Owner, Principal};
use projections::recorded::{Revision, StreamName};
use projections::role::{Grant, Role};
use projections::service_account::ServiceAccount;
use projections::time::Timestamp;
use projections::user::{User, UserState};
use projections::verification::Authority;

use super::warnings::Measure;
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

/// Who acts, in the history of this organization.
#[must_use]
pub fn principal(principal: Principal, organization_id: OrganizationId) -> proto::Principal {
    let of = |kind: proto::PrincipalKind, organization_id: String| proto::Principal {
        kind: kind.into(),
        organization_id,
        ..proto::Principal::default()
    };
    match principal {
        Principal::Organization(id) if id.is_operator() => {
            of(proto::PrincipalKind::Operator, id.text())
        }
        Principal::Organization(id) => of(proto::PrincipalKind::Organization, id.text()),
        Principal::ServiceAccount(id) => proto::Principal {
            service_account_id: id.text(),
            ..of(proto::PrincipalKind::ServiceAccount, organization_id.text())
        },
        Principal::User(id) => proto::Principal {
            user_id: id.text(),
            ..of(proto::PrincipalKind::User, organization_id.text())
        },
        Principal::Account(id) => proto::Principal {
            account_id: id.text(),
            ..of(proto::PrincipalKind::Account, String::new())
        },
        Principal::BreakGlass(id) => proto::Principal {
            break_glass_grant_id: id.text(),
            ..of(proto::PrincipalKind::BreakGlass, organization_id.text())
        },
        Principal::Ledger => of(proto::PrincipalKind::Ledger, String::new()),
    }
}

/// Who did something, in the history of this organization.
fn act(act: &Act, organization_id: OrganizationId) -> proto::Act {
    proto::Act {
        at: Some(timestamp(act.at)),
        by: Some(principal(act.by, organization_id)),
        with: act.with.map(|it| it.to_string()).unwrap_or_default(),
        comment: String::new(),
        comment_erased: false,
    }
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
        KeyState::Disabled => proto::KeyState::Disabled,
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
    proto::RoleReference { id: role.id.to_string(), name: role.name.to_string() }
}

/// A role that this organization knows.
#[must_use]
pub fn role(role: &Role, organization_id: OrganizationId) -> proto::Role {
    let owner = if role.built_in { OrganizationId::OPERATOR } else { organization_id };
    proto::Role {
        id: role.id.text(),
        organization_id: owner.text(),
        name: role.name.to_string(),
        description: role.description.as_ref().map(ToString::to_string).unwrap_or_default(),
        permissions: role.permissions().iter().map(ToString::to_string).collect(),
        built_in: role.built_in,
        created_at: Some(timestamp(role.created_at)),
        retired_at: role.retired_at.map(timestamp),
        changed: revision(&StreamName::organization(owner), Some(role.changed_at)),
    }
}

/// A grant.
#[must_use]
pub fn grant(grant: &Grant, organization: &Organization, operator: &Organization) -> proto::Grant {
    let terms = &grant.terms;
    proto::Grant {
        id: grant.id.text(),
        organization_id: organization.id.text(),
        principal: Some(principal(terms.principal, organization.id)),
        role: roles(std::iter::once(terms.role_id), organization, operator).pop(),
        domain: terms.domain.as_ref().map(ToString::to_string).unwrap_or_default(),
        expires_at: terms.expires_at.map(timestamp),
        granted_at: Some(timestamp(grant.granted_at)),
        granted_by: Some(principal(grant.granted_by, organization.id)),
    }
}

fn roles(
    ids: impl Iterator<Item = RoleId>,
    organization: &Organization,
    operator: &Organization,
) -> Vec<proto::RoleReference> {
    let known = |id| organization.role(id).or_else(|| operator.built_in_role(id));
    let reference = |id: RoleId| match known(id) {
        Some(role) => role_reference(role),
        None => proto::RoleReference { id: id.text(), name: String::new() },
    };
    ids.map(reference).collect()
}

/// A key, without what those who changed it wrote.
#[must_use]
pub fn key(key: &Key, measure: &mut Measure<'_>) -> proto::Key {
    let Measure { organization, operator, now, .. } = *measure;
    let extras = key.extras.as_deref();
    let id = organization.id;
    let authority = Authority::of(key, organization, operator, now);
    proto::Key {
        id: key.id.to_string(),
        organization_id: id.to_string(),
        name: key.name.to_string(),
        description: extras
            .and_then(|it| it.description.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        masked: organization.profile().map(|it| key.masked(&it.key_prefix)).unwrap_or_default(),
        environment: environment(key.environment).into(),
        scopes: key.scopes.as_ref().map(scopes),
        roles: roles(authority.role_ids(), organization, operator),
        services: key.services().map(|list| proto::ServiceAccess {
            services: list.iter().map(ToString::to_string).collect(),
        }),
        created_at: Some(timestamp(key.created_at)),
        created_by: Some(principal(key.maker.by, id)),
        created_with: key.maker.with.map(|it| it.to_string()).unwrap_or_default(),
        expires_at: key.expires_at().map(timestamp),
        state: key_state(organization.key_state(key, now)).into(),
        revocation: revocation(key, id, now),
        metadata: extras
            .map(|it| it.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
            .unwrap_or_default(),
        limits: extras
            .map(|it| it.limits.iter().map(|(k, v)| (k.to_string(), *v)).collect())
            .unwrap_or_default(),
        origin: origin(key.origin()).into(),
        service_account_id: match key.owner() {
            Some(Owner::ServiceAccount(id)) => id.text(),
            Some(Owner::User(_)) | None => String::new(),
        },
        user_id: match key.owner() {
            Some(Owner::User(id)) => id.text(),
            Some(Owner::ServiceAccount(_)) | None => String::new(),
        },
        allowed_ips: key.allowed_ips().map(|it| it.texts().collect()).unwrap_or_default(),
        rate_limit: key
            .rate_limit()
            .map(|it| proto::RateLimit { requests: it.requests, per_seconds: it.per_seconds }),
        predecessor_id: key.predecessor().map(KeyId::text).unwrap_or_default(),
        rotation: key.rotation().map(|it| proto::Rotation {
            successor_id: it.successor.text(),
            ends_at: Some(timestamp(it.ends_at)),
            act: Some(act(&it.act, id)),
        }),
        disabled: key.disabled().map(|it| act(it, id)),
        last_used_at: None,
        warnings: measure.warnings(key),
    }
}

fn origin(origin: KeyOrigin) -> proto::KeyOrigin {
    match origin {
        KeyOrigin::Minted => proto::KeyOrigin::Minted,
        KeyOrigin::Configured => proto::KeyOrigin::Configured,
        KeyOrigin::Imported => proto::KeyOrigin::Imported,
        KeyOrigin::Global => proto::KeyOrigin::Global,
    }
}

/// How a key ended: by a revocation, or because another one took its place.
fn revocation(key: &Key, id: OrganizationId, now: Timestamp) -> Option<proto::Revocation> {
    let superseded = key.rotation().filter(|it| it.ends_at <= now);
    let (why, at, act) = match (key.revocation(), superseded) {
        (Some(revocation), _) => (revocation.reason, revocation.act.at, revocation.act),
        (None, Some(rotation)) => (RevocationReason::Superseded, rotation.ends_at, rotation.act),
        (None, None) => return None,
    };
    Some(proto::Revocation {
        reason: reason(why).into(),
        comment: String::new(),
        comment_erased: false,
        at: Some(timestamp(at)),
        by: Some(principal(act.by, id)),
        with: act.with.map(|it| it.to_string()).unwrap_or_default(),
    })
}

/// The rules that an organization gives itself.
#[must_use]
pub fn policy(policy: &Policy) -> proto::Policy {
    let duration = |seconds: u32| prost_types::Duration { seconds: seconds.into(), nanos: 0 };
    proto::Policy {
        key_lifetime_max: policy.key_lifetime_max_seconds.map(duration),
        rotation_grace_max: policy.rotation_grace_max_seconds.map(duration),
        allowed_ips_required: policy.allowed_ips_required,
    }
}

/// A service account.
#[must_use]
pub fn service_account(
    account: &ServiceAccount,
    organization: &Organization,
    operator: &Organization,
) -> proto::ServiceAccount {
    proto::ServiceAccount {
        id: account.id.text(),
        organization_id: organization.id.text(),
        name: account.name.to_string(),
        description: account.description.as_ref().map(ToString::to_string).unwrap_or_default(),
        roles: roles(account.roles.iter().copied(), organization, operator),
        created_at: Some(timestamp(account.created_at)),
        created_by: Some(principal(account.created_by, organization.id)),
    }
}

/// A user, without what people know them by and what those who changed them wrote.
#[must_use]
pub fn user(user: &User, organization_id: OrganizationId) -> proto::User {
    let state = match user.state() {
        UserState::Invited => proto::UserState::Invited,
        UserState::Active => proto::UserState::Active,
        UserState::Suspended => proto::UserState::Suspended,
        UserState::Removed => proto::UserState::Removed,
    };
    proto::User {
        id: user.id.text(),
        organization_id: organization_id.text(),
        state: state.into(),
        identity_state: proto::UserIdentityState::Unspecified.into(),
        email: String::new(),
        name: String::new(),
        limits: user.limits.iter().map(|(name, limit)| (name.to_string(), *limit)).collect(),
        account_id: user.account_id.map(AccountId::text).unwrap_or_default(),
        invited_at: Some(timestamp(user.invited_at)),
        invited_by: Some(principal(user.invited_by, organization_id)),
        invitation_ends_at: Some(timestamp(user.invitation_ends_at)),
        joined_at: user.joined_at.map(timestamp),
        email_proven: user.email_proven,
        suspended: user.suspended.as_ref().map(|it| act(it, organization_id)),
        removed: user.removed.as_ref().map(|it| act(it, organization_id)),
    }
}

/// An organization.
#[must_use]
pub fn organization(
    id: OrganizationId,
    profile: &Profile,
    own: Option<&Policy>,
) -> proto::Organization {
    proto::Organization {
        id: id.to_string(),
        name: profile.name.to_string(),
        key_prefix: profile.key_prefix.to_string(),
        plan: profile.plan.to_string(),
        created_at: Some(timestamp(profile.created_at)),
        policy: own.map(policy),
        personal_account_id: profile.personal_of.map(|it| it.text()).unwrap_or_default(),
    }
}

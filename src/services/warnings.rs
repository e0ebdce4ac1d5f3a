//! What looks like a mistake in what a key may do: roles and scopes that do not fit each
//! other, or the services that the key is limited to.
//!
//! A service is taken to be what permissions of the same name are about: `dns:write` is
//! about the service `dns`. A service that no role and no scope is about by name, such as
//! `cdn` beside `cache:purge`, is one that nothing is known about, and nothing is said of
//! it. These are hints for people. Nothing is refused for them.

use projections::key::{Key, KeyState};
use projections::organization::Organization;
use projections::permission::{Permission, PermissionPattern};
use projections::role::Role;
use projections::text::ServiceName;
use projections::time::Timestamp;
use projections::verification::Authority;

use super::authentication::SERVICE;
use crate::ledger::permissions::API_KEYS_WRITE;
use crate::proto;
use crate::proto::KeyWarningCode as Code;

/// The warnings about a key, as the roles of its organization and of the operator are now.
#[must_use]
pub fn of(
    key: &Key,
    organization: &Organization,
    operator: &Organization,
    now: Timestamp,
) -> Vec<proto::KeyWarning> {
    let authority = Authority::of(key, organization, operator, now);
    let mut found = Vec::new();
    if let Some(services) = key.services() {
        let names = |role: &Role, service: &ServiceName| {
            role.permissions().iter().any(|it| resource(it) == service.as_str())
        };
        let is_known = |service: &&ServiceName| {
            organization.roles().chain(operator.roles()).any(|role| names(role, service))
                || key
                    .scopes
                    .as_ref()
                    .is_some_and(|scopes| scopes.iter().any(|it| it.resource() == service.as_str()))
        };
        let known: Vec<&ServiceName> = services.iter().filter(is_known).collect();
        // A role may be about a service of another name.
        if known.len() == services.len() {
            for role in authority.roles() {
                if !known.iter().any(|service| concerns(role, service)) {
                    let name = &role.name;
                    let message = format!("role `{name}` permits nothing on the key's services");
                    found.push((Code::RoleOutsideServices, message));
                }
            }
        }
        for service in known.into_iter().filter(|service| !may_act_on(key, &authority, service)) {
            let message = format!("nothing that the key holds is about service `{service}`");
            found.push((Code::ServiceWithoutPermission, message));
        }
    }
    if let Some(scopes) = key.scopes.as_ref().filter(|_| authority.has_roles()) {
        let held = |scope| authority.holds(scope) || authority.holds_for_a_domain(scope);
        for scope in scopes.iter().filter(|scope| !held(*scope)) {
            let message = format!("scope `{scope}` is permitted by none of the key's roles");
            found.push((Code::ScopeOutsideRoles, message));
        }
    }
    found
        .into_iter()
        .map(|(code, message)| proto::KeyWarning { code: code.into(), message })
        .collect()
}

/// The warning that no key in force can make keys of the operator's any more: nobody
/// administers the installation until a key is issued with the server stopped.
#[must_use]
pub fn no_operator_key(operator: &Organization, now: Timestamp) -> Option<proto::KeyWarning> {
    let administers = |key: &Key| {
        key.state(now) == KeyState::Active
            && key.serves(SERVICE)
            && Authority::of(key, operator, operator, now).holds(API_KEYS_WRITE)
    };
    if operator.keys_after(None).any(|key| administers(key)) {
        return None;
    }
    Some(proto::KeyWarning {
        code: Code::NoOperatorKey.into(),
        message: "no operator's key that may make keys is in force any more: nobody can administer this installation until the server is stopped and `keyledger operator reissue` has made a new key".to_owned(),
    })
}

/// Whether anything that the key holds is about this service.
fn may_act_on(key: &Key, authority: &Authority<'_>, service: &ServiceName) -> bool {
    match key.scopes.as_ref().filter(|scopes| !scopes.imply_everything()) {
        Some(scopes) => {
            scopes.iter().any(|it| it.resource() == service.as_str() && authority.holds(it))
        }
        // Scopes that narrow nothing, or none: the roles say it all, where there are any.
        None if !authority.has_roles() => key.scopes.is_some(),
        None => authority.roles().any(|role| concerns(role, service)),
    }
}

/// Whether a role permits something on this service.
fn concerns(role: &Role, service: &ServiceName) -> bool {
    role.permissions().iter().any(|pattern| {
        let resource = resource(pattern);
        resource == "*"
            || resource == service.as_str()
            || pattern.as_permission() == Some(Permission::ORG_ADMIN)
    })
}

fn resource(pattern: &PermissionPattern) -> &str {
    pattern.as_str().split_once(':').unwrap_or_default().0
}

#[cfg(test)]
mod tests;

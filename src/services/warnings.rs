//! What looks like a mistake in what a key may do: roles and scopes that do not fit each
//! other, or the services that the key is limited to.
//!
//! A service is taken to be what permissions of the same name are about: `dns:write` is
//! about the service `dns`. These are hints for people. Nothing is refused for them.

use projections::key::Key;
use projections::permission::{Permission, PermissionPattern};
use projections::role::Role;
use projections::verification::Authority;

use crate::proto;
use crate::proto::KeyWarningCode as Code;

/// The warnings about a key, as its roles are now.
#[must_use]
pub fn of(key: &Key, authority: &Authority<'_>) -> Vec<proto::KeyWarning> {
    let mut found = Vec::new();
    if let Some(services) = key.services() {
        let concerns = |role: &Role, service: &str| {
            role.definition.permissions.iter().any(|pattern| is_about(pattern, service))
        };
        for role in authority.roles() {
            if !services.iter().any(|service| concerns(role, service.as_str())) {
                let message = format!(
                    "role `{}` permits nothing on the key's services",
                    role.definition.name
                );
                found.push((Code::RoleOutsideServices, message));
            }
        }
        for service in services {
            let by_role = authority.roles().any(|role| concerns(role, service.as_str()));
            let by_scope = key.scopes.as_ref().is_some_and(|scopes| {
                scopes
                    .iter()
                    .any(|it| it.resource() == service.as_str() || it == Permission::ORG_ADMIN)
            });
            let held = match (&key.scopes, authority.role_ids()) {
                (Some(_), None) => by_scope,
                (None, _) => by_role,
                (Some(_), Some(_)) => by_role && by_scope,
            };
            if !held {
                let message = format!("nothing that the key holds is about service `{service}`");
                found.push((Code::ServiceWithoutPermission, message));
            }
        }
    }
    if let (Some(scopes), Some(_)) = (&key.scopes, authority.role_ids()) {
        for scope in scopes.iter().filter(|scope| !authority.holds(*scope)) {
            let message = format!("scope `{scope}` is permitted by none of the key's roles");
            found.push((Code::ScopeOutsideRoles, message));
        }
    }
    found
        .into_iter()
        .map(|(code, message)| proto::KeyWarning { code: code.into(), message })
        .collect()
}

fn is_about(pattern: &PermissionPattern, service: &str) -> bool {
    let (resource, _) = pattern.as_str().split_once(':').unwrap_or_default();
    resource == "*" || resource == service || pattern.as_permission() == Some(Permission::ORG_ADMIN)
}

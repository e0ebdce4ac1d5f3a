//! What looks like a mistake in what a key may do: roles and scopes that do not fit each
//! other, or the services that the key is limited to.
//!
//! A service is taken to be what permissions of the same name are about: `dns:write` is
//! about the service `dns`. A service that no role and no scope is about by name, such as
//! `cdn` beside `cache:purge`, is one that nothing is known about, and nothing is said of
//! it. These are hints for people. Nothing is refused for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use projections::id::RoleId;
use projections::key::{Key, KeyState};
use projections::organization::Organization;
use projections::permission::{Permission, PermissionPattern};
use projections::principal::Owner;
use projections::role::Role;
use projections::text::ServiceName;
use projections::time::Timestamp;
use projections::verification::{Authority, role_in_force};

use super::authentication::SERVICE;
use crate::ledger::permissions::API_KEYS_WRITE;
use crate::proto;
use crate::proto::KeyWarningCode as Code;

/// What the keys of one answer are measured by, as the roles of their organization and of the
/// operator are now. What many of them have in common is worked out once.
pub struct Measure<'a> {
    /// The organization of the keys.
    pub organization: &'a Organization,
    /// The operator's.
    pub operator: &'a Organization,
    /// The instant.
    pub now: Timestamp,
    /// What roles in force are about by name.
    named: Option<HashSet<&'a str>>,
    held: HashMap<Holder, Arc<Held<'a>>>,
    silent: bool,
}

/// What the roles of keys follow from.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    Owner(Owner),
    Roles(Vec<RoleId>),
}

/// What somebody's roles permit, for the whole organization or for some domains.
struct Held<'a> {
    /// Each once.
    roles: Vec<(&'a Role, About<'a>)>,
    /// What they permit together, in order.
    patterns: Vec<PermissionPattern>,
}

/// What permissions are about.
struct About<'a> {
    resources: HashSet<&'a str>,
    everything: bool,
}

impl<'a> About<'a> {
    fn of(patterns: &'a [PermissionPattern]) -> Self {
        let is_all = |it: &PermissionPattern| {
            resource(it) == "*" || it.as_permission() == Some(Permission::ORG_ADMIN)
        };
        let resources = patterns.iter().map(resource).collect();
        Self { resources, everything: patterns.iter().any(is_all) }
    }

    /// Whether anything of it is about this service.
    fn concerns(&self, service: &ServiceName) -> bool {
        self.everything || self.resources.contains(service.as_str())
    }
}

impl<'a> Held<'a> {
    fn of(roles: impl Iterator<Item = &'a Role>) -> Self {
        let mut seen = HashSet::new();
        let roles: Vec<&Role> = roles.filter(|role| seen.insert(role.id)).collect();
        let patterns = roles.iter().flat_map(|role| role.permissions());
        let mut patterns: Vec<PermissionPattern> = patterns.cloned().collect();
        patterns.sort_unstable();
        patterns.dedup();
        let about = |role: &'a Role| (role, About::of(role.permissions()));
        Self { roles: roles.into_iter().map(about).collect(), patterns }
    }

    fn concerns(&self, service: &ServiceName) -> bool {
        self.roles.iter().any(|(_, about)| about.concerns(service))
    }
}

impl<'a> Measure<'a> {
    /// Measures keys of this organization at this instant.
    #[must_use]
    pub fn new(organization: &'a Organization, operator: &'a Organization, now: Timestamp) -> Self {
        Self { organization, operator, now, named: None, held: HashMap::new(), silent: false }
    }

    /// Warns of nothing more.
    pub fn be_silent(&mut self) {
        self.silent = true;
    }

    /// The warnings about a key.
    #[must_use]
    pub fn warnings(&mut self, key: &Key) -> Vec<proto::KeyWarning> {
        if self.silent || (key.services().is_none() && key.scopes.is_none()) {
            return Vec::new();
        }
        let has_roles = key.owner().is_some() || !key.roles().is_empty();
        let held = self.held(key);
        let mut found = Vec::new();
        if let Some(services) = key.services() {
            self.of_services(key, services, has_roles.then_some(&*held), &mut found);
        }
        if let Some(scopes) = key.scopes.as_ref().filter(|_| has_roles) {
            let permitted = |scope| PermissionPattern::any_implies(&held.patterns, scope);
            for scope in scopes.iter().filter(|scope| !permitted(*scope)) {
                let message = format!("scope `{scope}` is permitted by none of the key's roles");
                found.push((Code::ScopeOutsideRoles, message));
            }
        }
        found
            .into_iter()
            .map(|(code, message)| proto::KeyWarning { code: code.into(), message })
            .collect()
    }

    /// The warnings about the services that a key is limited to.
    fn of_services(
        &mut self,
        key: &Key,
        services: &[ServiceName],
        held: Option<&Held<'_>>,
        found: &mut Vec<(Code, String)>,
    ) {
        let scopes: HashSet<&str> =
            key.scopes.iter().flat_map(|it| it.iter()).map(|it| it.resource()).collect();
        let named = self.named();
        let is_known =
            |it: &&ServiceName| named.contains(it.as_str()) || scopes.contains(it.as_str());
        let known: Vec<&ServiceName> = services.iter().filter(is_known).collect();
        // A role may be about a service of another name.
        if known.len() == services.len() {
            for (role, about) in held.into_iter().flat_map(|held| &held.roles) {
                if !known.iter().any(|service| about.concerns(service)) {
                    let name = &role.name;
                    let message = format!("role `{name}` permits nothing on the key's services");
                    found.push((Code::RoleOutsideServices, message));
                }
            }
        }
        let narrowing = key.scopes.as_ref().filter(|scopes| !scopes.imply_everything());
        // What scopes and roles give together is about these.
        let given: Option<HashSet<&str>> = narrowing.map(|scopes| {
            let permitted = |scope| {
                held.is_none_or(|held| PermissionPattern::any_implies(&held.patterns, scope))
            };
            scopes.iter().filter(|it| permitted(*it)).map(|it| it.resource()).collect()
        });
        let may_act_on = |service: &ServiceName| match (&given, held) {
            (Some(given), _) => given.contains(service.as_str()),
            // Scopes that narrow nothing, or none: the roles say it all, where there are any.
            (None, Some(held)) => held.concerns(service),
            (None, None) => key.scopes.is_some(),
        };
        for service in known.into_iter().filter(|service| !may_act_on(service)) {
            let message = format!("nothing that the key holds is about service `{service}`");
            found.push((Code::ServiceWithoutPermission, message));
        }
    }

    /// What roles in force are about by name.
    fn named(&mut self) -> &HashSet<&'a str> {
        let (organization, operator) = (self.organization, self.operator);
        self.named.get_or_insert_with(|| {
            let roles = organization.roles().chain(operator.roles());
            roles.flat_map(|role| role.permissions()).map(resource).collect()
        })
    }

    /// What a key's roles permit.
    fn held(&mut self, key: &Key) -> Arc<Held<'a>> {
        let holder = match key.owner() {
            Some(owner) => Holder::Owner(owner),
            None => Holder::Roles(key.roles().to_vec()),
        };
        if let Some(held) = self.held.get(&holder) {
            return Arc::clone(held);
        }
        let Self { organization, operator, now, .. } = *self;
        let held = match &holder {
            Holder::Owner(owner) => {
                let authority = Authority::of_owner(*owner, organization, operator, now);
                let granted = authority.grants().map(|(_, role)| role);
                Held::of(authority.fixed_roles().chain(granted))
            }
            Holder::Roles(ids) => {
                let role = |id: &RoleId| role_in_force(*id, organization, operator);
                Held::of(ids.iter().filter_map(role))
            }
        };
        let held = Arc::new(held);
        self.held.insert(holder, Arc::clone(&held));
        held
    }
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

fn resource(pattern: &PermissionPattern) -> &str {
    pattern.as_str().split_once(':').unwrap_or_default().0
}

#[cfg(test)]
mod tests;

//! Rules of keys.

use projections::api_key::Environment;
use projections::event::{KeyCreated, KeyRevoked, KeyStateBefore};
use projections::id::RoleId;
use projections::key::{Key, KeyState};
use projections::organization::Change;
use projections::permission::Permission;
use projections::role::Role;
use projections::time::Timestamp;
use projections::verification::Authority;

use super::{Decided, Given};
use crate::ledger::command::{CreateKey, Expiry, RevokeKey};
use crate::ledger::rejection::Rejection;

/// Brings a key into force.
pub(super) fn create(given: &Given<'_>, command: &CreateKey) -> Result<Decided, Rejection> {
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(key) = given.state.key(command.key_id) {
        return Ok(Decided::Done {
            outcome: Change::Key(key.id),
            revision: key.changed_at,
            repeat: false,
        });
    }
    if command.scopes.is_none() && command.roles.is_empty() {
        return Err(Rejection::KeyWithoutPermissions);
    }
    let roles = command.roles.iter().map(|id| role(given, *id)).collect::<Result<Vec<_>, _>>()?;
    if let Some((key, authority)) = given.caller()? {
        may_give(&authority, command, &roles)?;
        within_reach(key, command)?;
    }
    name_is_free(given, command)?;
    let event = created(command, expires_at(given, command.expiry)?);
    Ok(Decided::Events(vec![event.into()]))
}

/// The event that brings a key into force, once nothing speaks against it.
pub(super) fn created(command: &CreateKey, expires_at: Option<Timestamp>) -> KeyCreated {
    KeyCreated {
        key_id: command.key_id,
        name: command.name.clone(),
        description: command.description.clone(),
        origin: command.origin,
        prefix: command.prefix.clone(),
        environment: command.environment,
        hint: command.hint,
        digest: command.digest.clone(),
        scopes: command.scopes.clone(),
        roles: command.roles.clone(),
        services: command.services.clone(),
        expires_at,
        metadata: command.metadata.clone(),
        limits: command.limits.clone(),
    }
}

fn role<'a>(given: &'a Given<'_>, id: RoleId) -> Result<&'a Role, Rejection> {
    let role = given.state.role(id).or_else(|| given.operator.role(id));
    // The operator's own role means nothing inside a tenant.
    let here = role.filter(|role| {
        given.state.id.is_operator() || role.id != crate::ledger::built_in::OPERATOR_ADMIN
    });
    here.map(|role| &**role).ok_or(Rejection::RoleNotFound(id))
}

/// Nobody gives what they do not hold: every permission that the key will have must be
/// the caller's too.
fn may_give(
    authority: &Authority<'_>,
    command: &CreateKey,
    roles: &[&Role],
) -> Result<(), Rejection> {
    let narrowing =
        command.scopes.as_ref().filter(|scopes| roles.is_empty() || !scopes.imply_everything());
    if let Some(scopes) = narrowing {
        // What no role permits today is given all the same: the role may come to permit it.
        let missing = scopes.iter().find(|permission| !authority.holds(*permission));
        return missing.map_or(Ok(()), |it| Err(Rejection::PermissionNotHeld(it.to_string())));
    }
    let mut patterns = roles.iter().flat_map(|role| &role.definition.permissions);
    if let Some(pattern) = patterns.find(|pattern| !authority.covers(pattern)) {
        return Err(Rejection::PermissionNotHeld(pattern.to_string()));
    }
    if roles.is_empty() && !authority.holds(Permission::ORG_ADMIN) {
        return Err(Rejection::PermissionNotHeld(Permission::ORG_ADMIN.to_string()));
    }
    Ok(())
}

/// A key reaches no further than the key that makes it: neither into another
/// environment nor into other services.
fn within_reach(caller: &Key, command: &CreateKey) -> Result<(), Rejection> {
    let environment = command.environment.unwrap_or(Environment::Live);
    if caller.effective_environment() == Environment::Test && environment == Environment::Live {
        return Err(Rejection::EnvironmentNotHeld);
    }
    let listed = command.services.as_deref();
    let within = caller.services().is_none()
        || listed.is_some_and(|services| services.iter().all(|name| caller.serves(name.as_str())));
    if within { Ok(()) } else { Err(Rejection::ServiceNotHeld) }
}

fn name_is_free(given: &Given<'_>, command: &CreateKey) -> Result<(), Rejection> {
    match given.state.key_named(&command.name) {
        Some(key) if key.state(given.now) == KeyState::Active => {
            Err(Rejection::KeyNameTaken(command.name.to_string()))
        }
        Some(_) | None => Ok(()),
    }
}

/// When the key ends, under the rules of the organization's plan as they are now.
fn expires_at(given: &Given<'_>, expiry: Expiry) -> Result<Option<Timestamp>, Rejection> {
    let rules = given.state.profile().and_then(|profile| {
        given.operator.installation().and_then(|installation| installation.plans.get(&profile.plan))
    });
    let max_seconds = rules.and_then(|rules| rules.key_lifetime_max_seconds);
    let latest =
        max_seconds.map(|seconds| given.now.saturating_add_millis(i64::from(seconds) * 1_000));
    let asked = match expiry {
        Expiry::PlanDefault => return Ok(latest),
        Expiry::At(instant) => instant,
        Expiry::After(millis) => given.now.saturating_add_millis(millis),
    };
    if asked <= given.now {
        return Err(Rejection::ExpiryNotInFuture);
    }
    match (latest, max_seconds) {
        (Some(latest), Some(max_seconds)) if asked > latest => {
            Err(Rejection::LifetimeAbovePlan { max_seconds })
        }
        _ => Ok(Some(asked)),
    }
}

/// Ends a key for good.
pub(super) fn revoke(given: &Given<'_>, command: RevokeKey) -> Result<Decided, Rejection> {
    let key = given.state.key(command.key_id).ok_or(Rejection::KeyNotFound(command.key_id))?;
    let before = match key.state(given.now) {
        KeyState::Revoked => return Err(Rejection::KeyAlreadyRevoked(command.key_id)),
        KeyState::Active => KeyStateBefore::Active,
        KeyState::Expired => KeyStateBefore::Expired,
    };
    if let Some((caller, _)) = given.caller()? {
        let reaches_up = caller.effective_environment() == Environment::Test
            && key.effective_environment() == Environment::Live;
        if reaches_up {
            return Err(Rejection::EnvironmentNotHeld);
        }
    }
    let event = KeyRevoked { key_id: command.key_id, reason: command.reason, before };
    Ok(Decided::Events(vec![event.into()]))
}

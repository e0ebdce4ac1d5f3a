//! Rules of roles, and of who is granted them.
//!
//! To define is to give: a role may be had already by whoever has it, so whoever says what
//! it means holds all of it. To retire a role or to revoke a grant only takes away.

use projections::event::{
    GrantRevoked, GrantTerms, RoleCreated, RoleDefinition, RoleGranted, RoleRetired, RoleUpdated,
};
use projections::id::{GrantId, RoleId};
use projections::organization::Change;
use projections::permission::PermissionPattern;
use projections::principal::Principal;
use projections::role::{Grant, Role};
use projections::text::{Domain, Name};
use projections::time::Timestamp;
use projections::user::UserState;

use super::{Decided, Given, key};
use crate::ledger::command::{
    CreateRole, Expiry, GRANTS_MAX, GrantRole, OWN_ROLES_MAX, ROLES_MADE_MAX, UpdateRole,
};
use crate::ledger::rejection::Rejection;

/// Makes a role of the organization's own.
pub(super) fn create(given: &Given<'_>, command: &CreateRole) -> Result<Decided, Rejection> {
    let id = command.role_id;
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(role) = given.state.role(id) {
        return Ok(done(Change::Role(id), role));
    }
    let name = Name::from(command.name.clone());
    name_is_free(given, &name)?;
    if given.state.own_roles_in_force() >= OWN_ROLES_MAX {
        return Err(Rejection::TooManyRoles);
    }
    if given.state.own_roles_made() >= ROLES_MADE_MAX {
        return Err(Rejection::TooManyRolesMade);
    }
    may_mean(given, &command.permissions)?;
    let definition = RoleDefinition {
        name,
        description: command.description.clone(),
        permissions: command.permissions.clone(),
    };
    Ok(Decided::Events(vec![RoleCreated { role_id: id, definition }.into()]))
}

/// Lets a role of the organization's own mean something else, for everybody who has it.
pub(super) fn update(given: &Given<'_>, command: &UpdateRole) -> Result<Decided, Rejection> {
    let role = own(given, command.role_id)?;
    let before = role.definition().ok_or(Rejection::RoleIsRetired(role.id))?;
    let definition = RoleDefinition {
        name: command.name.clone().map_or_else(|| before.name.clone(), Name::from),
        description: command.description.clone().unwrap_or_else(|| before.description.clone()),
        permissions: command.permissions.clone().unwrap_or_else(|| before.permissions.clone()),
    };
    if definition.name != before.name {
        name_is_free(given, &definition.name)?;
    }
    // Before it is said that nothing changes: that tells what the role means.
    may_mean(given, &definition.permissions)?;
    if definition == before {
        return Ok(done(Change::Role(role.id), role));
    }
    Ok(Decided::Events(vec![RoleUpdated { role_id: role.id, definition, before }.into()]))
}

/// Lets a role permit nothing any more.
pub(super) fn retire(given: &Given<'_>, id: RoleId) -> Result<Decided, Rejection> {
    let role = own(given, id)?;
    key::may_act_on_live(given)?;
    let name = role.name.clone();
    Ok(Decided::Events(vec![RoleRetired { role_id: id, name }.into()]))
}

/// Gives a principal a role.
pub(super) fn grant(given: &Given<'_>, command: &GrantRole) -> Result<Decided, Rejection> {
    let id = command.grant_id;
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(grant) = given.state.grant(id) {
        let outcome = Change::Grant(id);
        return Ok(Decided::Done { outcome, revision: grant.changed_at, repeat: false });
    }
    match command.principal {
        Principal::ServiceAccount(id) if given.state.service_account(id).is_none() => {
            return Err(Rejection::ServiceAccountNotFound(id));
        }
        Principal::ServiceAccount(_) => {}
        Principal::User(id) => match given.state.user(id).map(|user| user.state()) {
            None | Some(UserState::Removed) => return Err(Rejection::UserNotFound(id)),
            Some(UserState::Invited | UserState::Active | UserState::Suspended) => {}
        },
        Principal::Organization(_)
        | Principal::Account(_)
        | Principal::BreakGlass(_)
        | Principal::Ledger => {
            return Err(Rejection::NotGrantable);
        }
    }
    let terms = terms(given, command)?;
    Ok(Decided::Events(vec![RoleGranted { grant_id: id, terms }.into()]))
}

/// What a grant comes to, if the caller may make it.
pub(super) fn terms(given: &Given<'_>, command: &GrantRole) -> Result<GrantTerms, Rejection> {
    let role = key::role(given, command.role_id).ok_or(Rejection::NoSuchRole(command.role_id))?;
    if !role.is_in_force() {
        return Err(Rejection::RoleIsRetired(role.id));
    }
    let expires_at = expires_at(given, command.expiry);
    let terms = GrantTerms {
        principal: command.principal,
        role_id: role.id,
        domain: command.domain.clone(),
        expires_at: expires_at.as_ref().ok().copied().flatten(),
    };
    gives_more(given, &terms)?;
    key::may_act_for_all(given)?;
    if let Some((_, authority)) = given.caller()? {
        if !authority.lasts_until(terms.expires_at) {
            return Err(Rejection::OutlastsGrant);
        }
        let domain = terms.domain.as_ref().map(Domain::as_str);
        let there = authority.until(terms.expires_at).over(domain);
        key::may_define(&there, role.permissions())?;
    }
    expires_at?;
    Ok(terms)
}

/// Takes a role that was granted.
pub(super) fn revoke(given: &Given<'_>, id: GrantId) -> Result<Decided, Rejection> {
    let grant = given.state.grant(id).filter(|grant| grant.stands(given.now));
    let grant = grant.ok_or(Rejection::GrantNotFound(id))?;
    key::may_act_on_live(given)?;
    let before = grant.terms.clone();
    Ok(Decided::Events(vec![GrantRevoked { grant_id: id, before }.into()]))
}

fn done(outcome: Change, role: &Role) -> Decided {
    Decided::Done { outcome, revision: role.changed_at, repeat: false }
}

/// A role of the organization's own that is in force.
fn own<'a>(given: &'a Given<'_>, id: RoleId) -> Result<&'a Role, Rejection> {
    let role = key::role(given, id).ok_or(Rejection::NoSuchRole(id))?;
    if role.built_in {
        return Err(Rejection::RoleIsBuiltIn(id));
    }
    if role.is_in_force() { Ok(role) } else { Err(Rejection::RoleIsRetired(id)) }
}

/// Neither a built-in role nor another one in force has this name.
fn name_is_free(given: &Given<'_>, name: &Name) -> Result<(), Rejection> {
    let mut built_in = given.operator.roles().filter(|role| role.built_in);
    if built_in.any(|role| role.name == *name) {
        return Err(Rejection::RoleNameReserved(name.to_string()));
    }
    match given.state.role_named(name) {
        Some(_) => Err(Rejection::RoleNameTaken(name.to_string())),
        None => Ok(()),
    }
}

/// The caller may let a role mean this, for as long as it lasts.
fn may_mean(given: &Given<'_>, permissions: &[PermissionPattern]) -> Result<(), Rejection> {
    key::may_act_for_all(given)?;
    match given.caller()? {
        Some((_, authority)) => key::may_define(&authority.until(None), permissions),
        None => Ok(()),
    }
}

/// The grant adds something to what its principal has, and there is room for it.
fn gives_more(given: &Given<'_>, terms: &GrantTerms) -> Result<(), Rejection> {
    let there = given.state.grants_of(terms.principal);
    let there: Vec<&Grant> =
        there.iter().map(|it| &**it).filter(|it| it.stands(given.now)).collect();
    let lasts = |end: Option<Timestamp>| end.unwrap_or(Timestamp::MAX);
    let same = there.iter().find(|it| {
        it.terms.role_id == terms.role_id
            && it.terms.domain == terms.domain
            && lasts(it.terms.expires_at) >= lasts(terms.expires_at)
    });
    if let Some(grant) = same {
        return Err(Rejection::GrantExists(grant.id));
    }
    if there.len() < GRANTS_MAX { Ok(()) } else { Err(Rejection::TooManyGrants(terms.principal)) }
}

/// When a grant ends.
fn expires_at(given: &Given<'_>, expiry: Option<Expiry>) -> Result<Option<Timestamp>, Rejection> {
    let end = match expiry {
        None | Some(Expiry::PlanDefault) => return Ok(None),
        Some(Expiry::At(instant)) => instant,
        Some(Expiry::After(millis)) => given.now.saturating_add_millis(millis),
    };
    if end > given.now { Ok(Some(end)) } else { Err(Rejection::ExpiryNotInFuture) }
}

//! Rules of keys.

use std::collections::{BTreeMap, BTreeSet};

use projections::api_key::Environment;
use projections::event::{
    Event, KeyCreated, KeyDisabled, KeyEnabled, KeyLabel, KeyRelabelled, KeyRevoked, KeyStateBefore,
};
use projections::id::{KeyId, RoleId};
use projections::key::{Key, KeyState};
use projections::network::Networks;
use projections::organization::Change;
use projections::permission::{Permission, PermissionPattern, Scopes};
use projections::principal::{Owner, Principal};
use projections::role::{Grant, Role};
use projections::text::{Domain, Name, ServiceName};
use projections::time::Timestamp;
use projections::user::UserState;
use projections::verification::Authority;

use super::{Decided, Given};
use crate::ledger::command::{
    CreateKey, Expiry, ImportKeys, KEYS_AT_ONCE_MAX, RevokeKey, RevokeKeys, USER_KEYS_MAX,
    UpdateKeyLabel, WhichKeys,
};
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
    Ok(Decided::Events(vec![may_create(given, command)?.into()]))
}

/// Brings keys into force that were made elsewhere, all or none.
pub(super) fn import(given: &Given<'_>, command: &ImportKeys) -> Result<Decided, Rejection> {
    const LIST: &str = "keys";
    let mut events: Vec<Event> = Vec::with_capacity(command.keys.len());
    let mut names = BTreeSet::new();
    let mut owned: BTreeMap<Owner, usize> = BTreeMap::new();
    let mut given_before = GivenBefore::default();
    for (place, imported) in command.keys.iter().enumerate() {
        let key = &imported.key;
        if let Some(made) = given.state.key(key.key_id) {
            return Ok(Decided::Done {
                outcome: Change::Key(made.id),
                revision: made.changed_at,
                repeat: false,
            });
        }
        let event = may_create_one_of(given, key, &mut given_before)
            .map_err(|rejection| rejection.of_item(LIST, place))?;
        if !names.insert(&key.name) {
            let taken = Rejection::KeyNameTaken(key.name.to_string());
            return Err(taken.of_item(LIST, place));
        }
        if let Some(owner) = key.owner {
            let more = owned.entry(owner).or_default();
            *more += 1;
            has_room_for(given, owner, *more).map_err(|it| it.of_item(LIST, place))?;
        }
        if given.taken == Some(place) {
            return Err(Rejection::SecretInUse.of_item(LIST, place));
        }
        events.push(event.into());
    }
    Ok(Decided::Events(events))
}

/// What the caller may give, as was found for other keys of the same command.
#[derive(Default)]
struct GivenBefore<'a>(Vec<Gift<'a>>);

/// What somebody is given with a key: whose it is, its scopes and roles, and until when.
#[derive(PartialEq)]
struct Gift<'a> {
    owner: Option<Owner>,
    scopes: Option<&'a Scopes>,
    roles: &'a [RoleId],
    end: Option<Timestamp>,
}

/// The event that brings a key into force, unless a rule speaks against it.
fn may_create(given: &Given<'_>, command: &CreateKey) -> Result<KeyCreated, Rejection> {
    may_create_one_of(given, command, &mut GivenBefore::default())
}

/// As [`may_create`], for one of many keys.
fn may_create_one_of<'a>(
    given: &Given<'_>,
    command: &'a CreateKey,
    given_before: &mut GivenBefore<'a>,
) -> Result<KeyCreated, Rejection> {
    let expires_at = expires_at(given, command.expiry);
    let given_with = match command.owner {
        Some(owner) => {
            owner_in_force(given, owner)?;
            has_room(given, owner)?;
            if !command.roles.is_empty() {
                return Err(Rejection::RolesOfOwner);
            }
            for_another(given, owner, command.scopes.as_ref())?;
            GivenWith::of(&Authority::of_owner(owner, given.state, given.operator, given.now))
        }
        None if command.scopes.is_none() && command.roles.is_empty() => {
            return Err(Rejection::KeyWithoutPermissions);
        }
        None => GivenWith::roles(roles(given, &command.roles)?, !command.roles.is_empty()),
    };
    if let Some((key, authority)) = given.caller()? {
        // An end that is refused below matters to nobody here.
        let end = expires_at.as_ref().ok().copied().flatten();
        let scopes = command.scopes.as_ref();
        let gift = Gift { owner: command.owner, scopes, roles: &command.roles, end };
        if is_oneself(given, command.owner) {
            may_give_oneself(&authority, scopes)?;
        } else if !given_before.0.contains(&gift) {
            may_give(&authority, scopes, &given_with, end)?;
            given_before.0.push(gift);
        }
        within_reach(key, command.environment, command.services.as_deref())?;
    }
    name_is_free(given, &command.name, None)?;
    within_policy(given, command.allowed_ips.as_ref())?;
    Ok(created(command, expires_at?))
}

/// Keys are made for service accounts that exist, and users who are in force.
fn owner_in_force(given: &Given<'_>, owner: Owner) -> Result<(), Rejection> {
    match owner {
        Owner::ServiceAccount(id) if given.state.service_account(id).is_none() => {
            Err(Rejection::ServiceAccountNotFound(id))
        }
        Owner::ServiceAccount(_) => Ok(()),
        Owner::User(id) => match given.state.user(id).map(|user| user.state()) {
            None | Some(UserState::Removed) => Err(Rejection::UserNotFound(id)),
            Some(UserState::Suspended) => Err(Rejection::UserIsSuspended(id)),
            Some(UserState::Invited | UserState::Active) => Ok(()),
        },
    }
}

/// A service account or a user of this organization, in force or not.
fn owner_known(given: &Given<'_>, owner: Owner) -> Result<(), Rejection> {
    match owner {
        Owner::ServiceAccount(id) if given.state.service_account(id).is_none() => {
            Err(Rejection::ServiceAccountNotFound(id))
        }
        Owner::User(id) if given.state.user(id).is_none() => Err(Rejection::UserNotFound(id)),
        Owner::ServiceAccount(_) | Owner::User(_) => Ok(()),
    }
}

/// A key that is made for another person says what it is for: what they will come to hold
/// is not for whoever makes it to take.
pub(super) fn for_another(
    given: &Given<'_>,
    owner: Owner,
    scopes: Option<&Scopes>,
) -> Result<(), Rejection> {
    let another = matches!(owner, Owner::User(_)) && !is_oneself(given, Some(owner));
    let by_somebody = given.caller.home().is_some();
    let listed = scopes.is_some_and(|scopes| !scopes.imply_everything());
    if another && by_somebody && !listed { Err(Rejection::ScopesForAnother) } else { Ok(()) }
}

/// Whether a key is the caller's own, where the caller is a user of this organization.
fn is_oneself(given: &Given<'_>, owner: Option<Owner>) -> bool {
    let here = given.caller.home() == Some(given.state.id);
    here && matches!(owner, Some(Owner::User(_))) && given.caller.owner() == owner
}

/// A service account or a user has room for one key more.
pub(super) fn has_room(given: &Given<'_>, owner: Owner) -> Result<(), Rejection> {
    has_room_for(given, owner, 1)
}

fn has_room_for(given: &Given<'_>, owner: Owner, more: usize) -> Result<(), Rejection> {
    let there = keys_to_end(given, owner).count();
    let max = match owner {
        Owner::ServiceAccount(_) => KEYS_AT_ONCE_MAX,
        Owner::User(_) => USER_KEYS_MAX,
    };
    if there + more <= max { Ok(()) } else { Err(Rejection::TooManyKeys(owner, max)) }
}

/// The keys of a service account or a user that are in force, or may come into force again.
pub(super) fn keys_to_end<'a>(
    given: &'a Given<'_>,
    owner: Owner,
) -> impl Iterator<Item = (&'a Key, KeyStateBefore)> {
    given.state.keys_of(owner, given.now).filter_map(|key| match before(given, key) {
        Some(before @ (KeyStateBefore::Active | KeyStateBefore::Disabled)) => {
            Some((&**key, before))
        }
        Some(KeyStateBefore::Expired) | None => None,
    })
}

/// A key of the organization that is in force.
pub(super) fn active<'a>(given: &'a Given<'_>, id: KeyId) -> Result<&'a Key, Rejection> {
    let key = given.state.key(id).ok_or(Rejection::KeyNotFound(id))?;
    match key.state(given.now) {
        KeyState::Active => Ok(key),
        KeyState::Disabled => Err(Rejection::KeyIsDisabled(id)),
        KeyState::Expired => Err(Rejection::KeyIsExpired(id)),
        KeyState::Revoked => Err(Rejection::KeyAlreadyRevoked(id)),
    }
}

/// A test key changes no live one.
pub(super) fn may_change(given: &Given<'_>, key: &Key) -> Result<(), Rejection> {
    match key.effective_environment() {
        Environment::Live => may_act_on_live(given),
        Environment::Test => Ok(()),
    }
}

/// A test key changes nothing that live keys are bound by.
pub(super) fn may_act_on_live(given: &Given<'_>) -> Result<(), Rejection> {
    match given.caller()? {
        Some((Some(caller), _)) if caller.effective_environment() == Environment::Test => {
            Err(Rejection::EnvironmentNotHeld)
        }
        Some(_) | None => Ok(()),
    }
}

/// Whoever brings a key into force again, or another like it until this end, could make it.
pub(super) fn may_bring_into_force(
    given: &Given<'_>,
    key: &Key,
    end: Option<Timestamp>,
) -> Result<(), Rejection> {
    let Some((caller, authority)) = given.caller()? else { return Ok(()) };
    if let Some(owner) = key.owner() {
        owner_in_force(given, owner)?;
    }
    if is_oneself(given, key.owner()) {
        may_give_oneself(&authority, key.scopes.as_ref())?;
    } else {
        let held = Authority::of(key, given.state, given.operator, given.now);
        may_give(&authority, key.scopes.as_ref(), &GivenWith::of(&held), end)?;
    }
    within_reach(caller, Some(key.effective_environment()), key.services())
}

/// What a test key changes binds live keys, and what a key limited to services gives could
/// be used for others: neither defines roles nor grants them.
pub(super) fn may_act_for_all(given: &Given<'_>) -> Result<(), Rejection> {
    may_act_on_live(given)?;
    match given.caller()? {
        Some((Some(caller), _)) if caller.services().is_some() => Err(Rejection::ServiceNotHeld),
        Some(_) | None => Ok(()),
    }
}

/// The organization's policy lets a key be used from these addresses.
pub(super) fn within_policy(
    given: &Given<'_>,
    allowed_ips: Option<&Networks>,
) -> Result<(), Rejection> {
    if !given.state.policy().allowed_ips_required {
        return Ok(());
    }
    let allowed_ips = allowed_ips.ok_or(Rejection::AllowedIpsRequired)?;
    match allowed_ips.everywhere() {
        Some(net) => Err(Rejection::AllowedIpsEverywhere(net.to_string())),
        None => Ok(()),
    }
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
        owner: command.owner,
        allowed_ips: command.allowed_ips.clone(),
        rate_limit: command.rate_limit,
        rotates: None,
    }
}

/// The roles of these identifiers, which must exist here and be in force.
pub(super) fn roles<'a>(given: &'a Given<'_>, ids: &[RoleId]) -> Result<Vec<&'a Role>, Rejection> {
    let found = |id: &RoleId| {
        let role = role(given, *id).ok_or(Rejection::RoleNotFound(*id))?;
        if role.is_in_force() { Ok(role) } else { Err(Rejection::RoleIsRetired(*id)) }
    };
    ids.iter().map(found).collect()
}

/// A role that means something here.
pub(super) fn role<'a>(given: &'a Given<'_>, id: RoleId) -> Option<&'a Role> {
    let role = given.state.role(id).or_else(|| given.operator.built_in_role(id));
    // The operator's own role means nothing inside a tenant.
    let here = role.filter(|role| {
        given.state.id.is_operator() || role.id != crate::ledger::built_in::OPERATOR_ADMIN
    });
    here.map(|role| &**role)
}

/// What comes with a key, or with a service account, beside scopes.
pub(super) struct GivenWith<'a> {
    roles: Vec<&'a Role>,
    /// Roles for one domain, or for a time, or both.
    grants: Vec<(&'a Grant, &'a Role)>,
    /// Whether it holds nothing beside them, although there may be none.
    has_roles: bool,
}

impl<'a> GivenWith<'a> {
    /// All that somebody has.
    pub(super) fn of(authority: &Authority<'a>) -> Self {
        Self {
            roles: authority.fixed_roles().collect(),
            grants: authority.grants().collect(),
            has_roles: authority.has_roles(),
        }
    }

    /// These roles.
    pub(super) fn roles(roles: Vec<&'a Role>, has_roles: bool) -> Self {
        Self { roles, grants: Vec::new(), has_roles }
    }
}

/// Nobody gives what they do not hold: every permission that a key with these scopes and
/// roles will have until this end must be the caller's too, there, and for as long.
pub(super) fn may_give(
    authority: &Authority<'_>,
    scopes: Option<&Scopes>,
    with: &GivenWith<'_>,
    end: Option<Timestamp>,
) -> Result<(), Rejection> {
    if !authority.lasts_until(end) {
        return Err(Rejection::OutlastsGrant);
    }
    let lasting = authority.until(end);
    let narrowing = scopes.filter(|scopes| !with.has_roles || !scopes.imply_everything());
    if let Some(scopes) = narrowing {
        // What no role permits today is given all the same: the role may come to permit it.
        let missing = scopes.iter().find(|permission| !lasting.holds(*permission));
        return missing.map_or(Ok(()), |it| Err(Rejection::PermissionNotHeld(it.to_string())));
    }
    for role in &with.roles {
        may_define(&lasting, role.permissions())?;
    }
    for (grant, role) in &with.grants {
        let end = end.into_iter().chain(grant.terms.expires_at).min();
        let there = authority.until(end).over(grant.domain().map(Domain::as_str));
        may_define(&there, role.permissions())?;
    }
    if !with.has_roles && !lasting.holds(Permission::ORG_ADMIN) {
        return Err(Rejection::PermissionNotHeld(Permission::ORG_ADMIN.to_string()));
    }
    Ok(())
}

/// A user's own key holds what the user does, and no more than the credential that it is made
/// with: now, there and for as long, whatever they will be granted. So whatever narrows that
/// credential narrows the key, and what it is made for is held by now, if only for a domain.
fn may_give_oneself(authority: &Authority<'_>, scopes: Option<&Scopes>) -> Result<(), Rejection> {
    let Some(scopes) = scopes.filter(|scopes| !scopes.imply_everything()) else {
        return match authority.scopes().is_none_or(Scopes::imply_everything) {
            true => Ok(()),
            false => Err(Rejection::PermissionNotHeld(Permission::ORG_ADMIN.to_string())),
        };
    };
    let held = |it| authority.holds(it) || authority.holds_for_a_domain(it);
    let missing = scopes.iter().find(|it| !held(*it));
    missing.map_or(Ok(()), |it| Err(Rejection::PermissionNotHeld(it.to_string())))
}

/// Nobody lets others have what they do not hold.
pub(super) fn may_define(
    authority: &Authority<'_>,
    permissions: &[PermissionPattern],
) -> Result<(), Rejection> {
    match permissions.iter().find(|pattern| !authority.covers(pattern)) {
        Some(pattern) => Err(Rejection::PermissionNotHeld(pattern.to_string())),
        None => Ok(()),
    }
}

/// A key reaches no further than the key that makes it: neither into another
/// environment nor into other services. A session reaches everywhere.
fn within_reach(
    caller: Option<&Key>,
    environment: Option<Environment>,
    services: Option<&[ServiceName]>,
) -> Result<(), Rejection> {
    let Some(caller) = caller else { return Ok(()) };
    let environment = environment.unwrap_or(Environment::Live);
    if caller.effective_environment() == Environment::Test && environment == Environment::Live {
        return Err(Rejection::EnvironmentNotHeld);
    }
    let within = caller.services().is_none()
        || services.is_some_and(|list| list.iter().all(|name| caller.serves(name.as_str())));
    if within { Ok(()) } else { Err(Rejection::ServiceNotHeld) }
}

/// No other active key has this name, unless it is of the same rotation.
fn name_is_free(given: &Given<'_>, name: &Name, key: Option<&Key>) -> Result<(), Rejection> {
    // The last of a rotation may be out of force while one before it is not yet.
    let mut active =
        given.state.keys_named(name).filter(|it| it.state(given.now) == KeyState::Active);
    let other = active.find(|other| {
        key.is_none_or(|key| key.id != other.id && !given.state.in_one_rotation(key, other))
    });
    match other {
        Some(_) => Err(Rejection::KeyNameTaken(name.to_string())),
        None => Ok(()),
    }
}

/// When a key ends, under the rules of the organization's plan and its own as they are
/// now.
pub(super) fn expires_at(
    given: &Given<'_>,
    expiry: Expiry,
) -> Result<Option<Timestamp>, Rejection> {
    let rules = given.state.profile().and_then(|profile| {
        given.operator.installation().and_then(|installation| installation.plans.get(&profile.plan))
    });
    let plan = rules.and_then(|rules| rules.key_lifetime_max_seconds);
    let policy = given.state.policy().key_lifetime_max_seconds;
    let latest = |seconds: u32| given.now.saturating_add_millis(i64::from(seconds) * 1_000);
    let asked = match expiry {
        Expiry::PlanDefault => return Ok(plan.into_iter().chain(policy).min().map(latest)),
        Expiry::At(instant) => instant,
        Expiry::After(millis) => given.now.saturating_add_millis(millis),
    };
    if asked <= given.now {
        return Err(Rejection::ExpiryNotInFuture);
    }
    let above = |max: Option<u32>| max.filter(|seconds| asked > latest(*seconds));
    if let Some(max_seconds) = above(plan) {
        return Err(Rejection::LifetimeAbovePlan { max_seconds });
    }
    match above(policy) {
        Some(max_seconds) => Err(Rejection::LifetimeAbovePolicy { max_seconds }),
        None => Ok(Some(asked)),
    }
}

/// A key ends no later than one that is made now may end.
fn within_lifetime(given: &Given<'_>, key: &Key) -> Result<(), Rejection> {
    let end = key.expires_at().unwrap_or(Timestamp::MAX);
    expires_at(given, Expiry::At(end)).map(|_| ())
}

/// Calls a key otherwise.
pub(super) fn relabel(given: &Given<'_>, command: &UpdateKeyLabel) -> Result<Decided, Rejection> {
    let id = command.key_id;
    let key = given.state.key(id).ok_or(Rejection::KeyNotFound(id))?;
    if key.state(given.now) == KeyState::Revoked {
        return Err(Rejection::KeyAlreadyRevoked(id));
    }
    // By their names the ledger knows the keys that it keeps for the operator.
    if given.state.id.is_operator() && key.maker.by == Principal::Ledger {
        return Err(Rejection::KeyIsConfigured(id));
    }
    may_change(given, key)?;
    let before = key.label();
    let label = KeyLabel {
        name: command.name.clone().unwrap_or_else(|| before.name.clone()),
        description: command.description.clone().unwrap_or_else(|| before.description.clone()),
    };
    if label == before {
        let outcome = Change::Key(id);
        return Ok(Decided::Done { outcome, revision: key.changed_at, repeat: false });
    }
    if label.name != before.name && key.state(given.now) == KeyState::Active {
        name_is_free(given, &label.name, Some(key))?;
    }
    Ok(Decided::Events(vec![KeyRelabelled { key_id: id, label, before }.into()]))
}

/// Puts a key out of force until it is enabled.
pub(super) fn disable(given: &Given<'_>, id: KeyId) -> Result<Decided, Rejection> {
    if given.state.key(id).is_some_and(|key| key.state(given.now) == KeyState::Disabled) {
        return Err(Rejection::KeyAlreadyDisabled(id));
    }
    let key = active(given, id)?;
    may_change(given, key)?;
    Ok(Decided::Events(vec![KeyDisabled { key_id: id }.into()]))
}

/// Brings a disabled key into force again: nobody does so who could not make it.
pub(super) fn enable(given: &Given<'_>, id: KeyId) -> Result<Decided, Rejection> {
    let key = given.state.key(id).ok_or(Rejection::KeyNotFound(id))?;
    match key.state(given.now) {
        KeyState::Revoked => return Err(Rejection::KeyAlreadyRevoked(id)),
        KeyState::Active | KeyState::Expired => return Err(Rejection::KeyNotDisabled(id)),
        KeyState::Disabled => {}
    }
    if key.expires_at().is_some_and(|end| end <= given.now) {
        return Err(Rejection::KeyIsExpired(id));
    }
    may_bring_into_force(given, key, key.expires_at())?;
    name_is_free(given, &key.name, Some(key))?;
    within_policy(given, key.allowed_ips())?;
    within_lifetime(given, key)?;
    Ok(Decided::Events(vec![KeyEnabled { key_id: id }.into()]))
}

/// Ends a key for good.
pub(super) fn revoke(given: &Given<'_>, command: RevokeKey) -> Result<Decided, Rejection> {
    let key = given.state.key(command.key_id).ok_or(Rejection::KeyNotFound(command.key_id))?;
    let Some(before) = before(given, key) else {
        return Err(Rejection::KeyAlreadyRevoked(command.key_id));
    };
    may_change(given, key)?;
    let event = KeyRevoked { key_id: command.key_id, reason: command.reason, before };
    Ok(Decided::Events(vec![event.into()]))
}

/// What a key is before it is revoked; none where it is revoked already.
fn before(given: &Given<'_>, key: &Key) -> Option<KeyStateBefore> {
    match key.state(given.now) {
        KeyState::Revoked => None,
        KeyState::Active => Some(KeyStateBefore::Active),
        KeyState::Disabled => Some(KeyStateBefore::Disabled),
        KeyState::Expired => Some(KeyStateBefore::Expired),
    }
}

/// Ends keys for good, all or none. Those that are revoked already stay as they are.
pub(super) fn revoke_all(given: &Given<'_>, command: &RevokeKeys) -> Result<Decided, Rejection> {
    let mut events: Vec<Event> = Vec::new();
    let reason = command.reason;
    match &command.which {
        WhichKeys::Listed(ids) => {
            let ids: BTreeSet<KeyId> = ids.iter().copied().collect();
            for id in ids {
                let key = given.state.key(id).ok_or(Rejection::KeyNotFound(id))?;
                may_change(given, key)?;
                let before = before(given, key);
                events
                    .extend(before.map(|before| KeyRevoked { key_id: id, reason, before }.into()));
            }
        }
        WhichKeys::Of(owner) => {
            owner_known(given, *owner)?;
            for (key, before) in keys_to_end(given, *owner) {
                may_change(given, key)?;
                events.push(KeyRevoked { key_id: key.id, reason, before }.into());
            }
        }
    }
    Ok(if events.is_empty() { Decided::Nothing } else { Decided::Events(events) })
}

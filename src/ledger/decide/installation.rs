//! Rules of the installation itself.

use std::sync::Arc;

use projections::digest::SigningKeyId;
use projections::event::{
    ActivatedSchema, BuiltInRoleDefined, Event, InstallationCreated, KeyOrigin, KeyRevoked,
    KeyStateBefore, OrganizationCreated, PepperRotated, PermissionRule, PermissionRuleDefined,
    PermissionRuleRemoved, PlanDefined, RevocationReason, SCHEMAS, SchemaActivated,
    SigningKeyAdded, SigningKeyRetired,
};
use projections::id::OrganizationId;
use projections::installation::Installation;
use projections::key::{Key, KeyState};
use projections::permission::PermissionPattern;

use super::{Decided, Given, key};
use crate::ledger::built_in;
use crate::ledger::command::{ConfigureKeys, CreateInstallation, CreateKey, ImportedKey, Rules};
use crate::ledger::rejection::Rejection;

/// Makes the installation: all that its first start needs, in one append.
pub(super) fn create(
    given: &Given<'_>,
    command: &CreateInstallation,
) -> Result<Decided, Rejection> {
    if given.state.revision().is_some() {
        return Err(Rejection::InstallationExists);
    }
    let mut events: Vec<Event> = vec![
        InstallationCreated {
            installation_id: command.installation_id,
            pepper: command.pepper,
            pepper_check: command.pepper_check,
        }
        .into(),
        OrganizationCreated {
            organization_id: OrganizationId::OPERATOR,
            name: built_in::operator_name(),
            key_prefix: built_in::operator_key_prefix(),
            plan: built_in::operator_plan(),
            personal_of: None,
        }
        .into(),
    ];
    events.extend(changed_rules(given, &command.rules));
    events.extend(
        command
            .admin_key
            .iter()
            .chain(&command.configured)
            .map(|draft| Event::from(key::created(draft, None))),
    );
    Ok(Decided::Events(events))
}

/// Makes the rules those of the configuration: one event for each that differs.
pub(super) fn configure(given: &Given<'_>, rules: &Rules) -> Result<Decided, Rejection> {
    Ok(events_or_nothing(changed_rules(given, rules)))
}

fn events_or_nothing(events: Vec<Event>) -> Decided {
    if events.is_empty() { Decided::Nothing } else { Decided::Events(events) }
}

fn changed_rules(given: &Given<'_>, rules: &Rules) -> Vec<Event> {
    let installation = given.state.installation();
    let mut events = Vec::new();
    let missing: Vec<_> = SCHEMAS
        .iter()
        .filter(|(name, schema)| !installation.is_some_and(|it| it.may_write(name, *schema)))
        .map(|(name, schema)| ActivatedSchema { event_type: (*name).to_owned(), schema: *schema })
        .collect();
    if !missing.is_empty() {
        events.push(SchemaActivated { schemas: missing }.into());
    }
    for (plan, rules) in &rules.plans {
        let before = installation.and_then(|it| it.plans.get(plan)).cloned();
        if before.as_ref() != Some(rules) {
            events.push(PlanDefined { plan: plan.clone(), rules: rules.clone(), before }.into());
        }
    }
    if let Some(wanted) = &rules.permission_rules {
        events.extend(changed_permission_rules(installation, wanted));
    }
    for (role_id, definition) in &rules.roles {
        let before = given.state.role(*role_id).and_then(|role| role.definition());
        if before.as_ref() != Some(definition) {
            let definition = definition.clone();
            events.push(BuiltInRoleDefined { role_id: *role_id, definition, before }.into());
        }
    }
    events
}

/// One event for each rule that comes, changes or goes.
fn changed_permission_rules(
    installation: Option<&Arc<Installation>>,
    wanted: &[(PermissionPattern, PermissionRule)],
) -> Vec<Event> {
    let there = || installation.into_iter().flat_map(|it| it.permission_rules.iter());
    let mut events: Vec<Event> = Vec::new();
    for (permission, before) in there() {
        if !wanted.iter().any(|(pattern, _)| pattern == permission) {
            let (permission, before) = (permission.clone(), before.clone());
            events.push(PermissionRuleRemoved { permission, before }.into());
        }
    }
    for (permission, rule) in wanted {
        let before = installation.and_then(|it| it.permission_rules.get(permission)).cloned();
        if before.as_ref() != Some(rule) {
            let (permission, rule) = (permission.clone(), rule.clone());
            events.push(PermissionRuleDefined { permission, rule, before }.into());
        }
    }
    events
}

/// Makes the configured keys those of the configuration: new ones come, others go.
pub(super) fn configure_keys(
    given: &Given<'_>,
    command: &ConfigureKeys,
) -> Result<Decided, Rejection> {
    let mut events = Vec::new();
    let is_of = |key: &Key, wanted: &ImportedKey| {
        wanted.digests().any(|digest| digest == key.digest.blake3)
    };
    let is_wanted = |key: &Key| command.keys.iter().any(|wanted| is_of(key, wanted));
    for key in given.state.keys_after(None).filter(|key| key.is_configured() && !is_wanted(key)) {
        events.extend(superseded(given, key));
    }
    for wanted in &command.keys {
        let same: Vec<&Arc<Key>> =
            given.state.keys_after(None).filter(|key| is_of(key, wanted)).collect();
        if same.iter().any(|key| key.revocation().is_some()) {
            return Err(Rejection::ConfiguredKeyRevoked(wanted.key.name.to_string()));
        }
        if same.iter().any(|key| !key.is_configured()) {
            return Err(Rejection::SecretInUse);
        }
        if same.is_empty() {
            events.push(key::created(&wanted.key, None).into());
        }
    }
    Ok(events_or_nothing(events))
}

/// Replaces the operator's own minted administrator keys by a new one.
pub(super) fn reissue(given: &Given<'_>, command: &CreateKey) -> Result<Decided, Rejection> {
    let mut events = Vec::new();
    for key in given.state.keys_after(None) {
        let is_admin = !key.is_configured() && key.name == command.name;
        if is_admin {
            events.extend(superseded(given, key));
        }
    }
    debug_assert_eq!(command.origin, KeyOrigin::Minted, "a reissued key is minted");
    events.push(key::created(command, None).into());
    Ok(Decided::Events(events))
}

/// Keys new digests with another pepper from here on.
pub(super) fn rotate_pepper(
    given: &Given<'_>,
    event: &PepperRotated,
) -> Result<Decided, Rejection> {
    let known = given.state.installation().is_some_and(|it| it.pepper >= event.pepper);
    Ok(if known { Decided::Nothing } else { Decided::Events(vec![event.clone().into()]) })
}

/// Lets access tokens be signed with a key, unless it may already, or might once.
pub(super) fn add_signing_key(
    given: &Given<'_>,
    event: &SigningKeyAdded,
) -> Result<Decided, Rejection> {
    let keys = given.state.installation().map(|it| &it.signing_keys);
    let known = keys.is_some_and(|keys| keys.contains_key(&event.signing_key_id));
    Ok(if known { Decided::Nothing } else { Decided::Events(vec![event.clone().into()]) })
}

/// Lets what a key signed count no more.
pub(super) fn retire_signing_key(
    given: &Given<'_>,
    signing_key_id: SigningKeyId,
) -> Result<Decided, Rejection> {
    let keys = given.state.installation().map(|it| &it.signing_keys);
    let row = keys.and_then(|keys| keys.get(&signing_key_id));
    let counts = row.is_some_and(|row| row.retired_at.is_none());
    let retired = || vec![SigningKeyRetired { signing_key_id }.into()];
    Ok(if counts { Decided::Events(retired()) } else { Decided::Nothing })
}

fn superseded(given: &Given<'_>, key: &Key) -> Option<Event> {
    let before = match key.state(given.now) {
        KeyState::Revoked => return None,
        KeyState::Active => KeyStateBefore::Active,
        KeyState::Disabled => KeyStateBefore::Disabled,
        KeyState::Expired => KeyStateBefore::Expired,
    };
    Some(KeyRevoked { key_id: key.id, reason: RevocationReason::Superseded, before }.into())
}

//! Rules of organizations.

use projections::event::{OrganizationCreated, OrganizationRegistered, PolicyUpdated};
use projections::id::OrganizationId;
use projections::organization::Change;
use projections::policy::Policy;

use super::{Decided, Given, key};
use crate::ledger::built_in;
use crate::ledger::command::OrganizationDraft;
use crate::ledger::rejection::Rejection;

/// Prefixes that the ledger keeps for its own tokens, and words that stand behind a prefix.
pub(super) const RESERVED_PREFIXES: &[&str] = &["klbg", "klmk", "klop", "live", "test"];

/// Admits an organization: its prefix is taken from here on.
pub(super) fn register(given: &Given<'_>, draft: &OrganizationDraft) -> Result<Decided, Rejection> {
    let Some(installation) = given.state.installation() else {
        return Err(Rejection::OrganizationNotFound);
    };
    if let Some(revision) = given
        .state
        .revision()
        .filter(|_| installation.organizations.contains_key(&draft.organization_id))
    {
        let outcome = Change::Registration(draft.organization_id);
        return Ok(Decided::Done { outcome, revision, repeat: false });
    }
    if RESERVED_PREFIXES.contains(&draft.key_prefix.as_str()) {
        return Err(Rejection::KeyPrefixReserved(draft.key_prefix.to_string()));
    }
    if installation.prefixes.contains_key(&draft.key_prefix) {
        return Err(Rejection::KeyPrefixTaken(draft.key_prefix.to_string()));
    }
    // The operator's own plan is no tenant's.
    let offered = || installation.plans.keys().filter(|plan| **plan != built_in::operator_plan());
    if !offered().any(|plan| *plan == draft.plan) {
        let plans: Vec<_> = offered().map(|plan| format!("`{plan}`")).collect();
        return Err(Rejection::PlanUnknown(draft.plan.to_string(), plans.join(", ")));
    }
    Ok(Decided::Events(vec![
        OrganizationRegistered {
            organization_id: draft.organization_id,
            name: draft.name.clone(),
            key_prefix: draft.key_prefix.clone(),
            plan: draft.plan.clone(),
            personal_of: draft.personal_of,
        }
        .into(),
    ]))
}

/// Begins the stream of an organization that was admitted.
pub(super) fn create(given: &Given<'_>, draft: &OrganizationDraft) -> Result<Decided, Rejection> {
    if let Some(revision) = given.state.revision() {
        return Ok(Decided::Done { outcome: Change::Profile, revision, repeat: false });
    }
    Ok(Decided::Events(vec![
        OrganizationCreated {
            organization_id: draft.organization_id,
            name: draft.name.clone(),
            key_prefix: draft.key_prefix.clone(),
            plan: draft.plan.clone(),
            personal_of: draft.personal_of,
        }
        .into(),
    ]))
}

/// Changes the rules that an organization gives itself. It tightens them; what it took
/// upon itself, its operator alone takes back.
pub(super) fn update_policy(given: &Given<'_>, policy: &Policy) -> Result<Decided, Rejection> {
    // It holds for live keys, and whoever tightens it cannot take that back.
    key::may_act_on_live(given)?;
    let before = given.state.policy();
    if policy == before {
        return Ok(match given.state.revision() {
            Some(revision) => Decided::Done { outcome: Change::Policy, revision, repeat: false },
            None => Decided::Nothing,
        });
    }
    let is_operator = given.caller.home().is_none_or(OrganizationId::is_operator);
    if !is_operator && !policy.is_as_tight_as(before) {
        return Err(Rejection::PolicyLoosened);
    }
    let event = PolicyUpdated { policy: policy.clone(), before: before.clone() };
    Ok(Decided::Events(vec![event.into()]))
}

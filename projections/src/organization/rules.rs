//! The fold of what only the operator's stream holds: rules of the installation.

use std::sync::Arc;

use super::{Change, Organization, Profile};
use crate::corrupt::Fault;
use crate::envelope::Envelope;
use crate::event::{
    OrganizationRegistered, PepperRotated, PermissionRuleDefined, PermissionRuleRemoved,
    PlanDefined, SchemaActivated,
};
use crate::installation::{Installation, Registration};

impl Organization {
    pub(super) fn installation_mut(&mut self) -> Result<&mut Installation, Fault> {
        self.installation.as_mut().map(Arc::make_mut).ok_or(Fault::Misplaced("InstallationCreated"))
    }

    pub(super) fn schemas_activated(&mut self, event: &SchemaActivated) -> Result<Change, Fault> {
        self.installation_mut()?.schemas.extend(event.schemas.iter().cloned());
        Ok(Change::Rule)
    }

    pub(super) fn plan_defined(&mut self, event: &PlanDefined) -> Result<Change, Fault> {
        let mut rules = event.rules.clone();
        rules.features.sort_unstable();
        rules.features.dedup();
        self.installation_mut()?.plans.insert(event.plan.clone(), rules);
        Ok(Change::Rule)
    }

    pub(super) fn permission_rule_defined(
        &mut self,
        event: &PermissionRuleDefined,
    ) -> Result<Change, Fault> {
        let rules = &mut self.installation_mut()?.permission_rules;
        rules.insert(event.permission.clone(), event.rule.clone());
        Ok(Change::Rule)
    }

    pub(super) fn permission_rule_removed(
        &mut self,
        envelope: &Envelope,
        event: &PermissionRuleRemoved,
    ) -> Result<Change, Fault> {
        if !self.installation_mut()?.permission_rules.remove(&event.permission) {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        Ok(Change::Rule)
    }

    pub(super) fn registered(
        &mut self,
        envelope: &Envelope,
        event: &OrganizationRegistered,
    ) -> Result<Change, Fault> {
        let id = event.organization_id;
        let profile = Arc::new(Profile {
            name: event.name.clone(),
            key_prefix: event.key_prefix.clone(),
            plan: event.plan.clone(),
            created_at: envelope.at,
            personal_of: event.personal_of,
        });
        let installation = self.installation_mut()?;
        if installation.prefixes.contains_key(&event.key_prefix)
            || installation.organizations.contains_key(&id)
        {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        installation.prefixes.insert(event.key_prefix.clone(), id);
        installation.organizations.insert(id, Registration { profile, event_id: envelope.id });
        Ok(Change::Registration(id))
    }

    pub(super) fn pepper_rotated(
        &mut self,
        envelope: &Envelope,
        event: &PepperRotated,
    ) -> Result<Change, Fault> {
        let installation = self.installation_mut()?;
        if event.pepper <= installation.pepper {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        installation.pepper = event.pepper;
        installation.peppers.insert(event.pepper, event.pepper_check);
        Ok(Change::Rule)
    }
}

//! Roles, and who has them: how they are looked up, and the fold of what befalls them.

use std::sync::Arc;

use super::{Change, Organization};
use crate::corrupt::Fault;
use crate::digest::NameDigest;
use crate::envelope::Envelope;
use crate::event::{
    BuiltInRoleDefined, GrantRevoked, RoleCreated, RoleDefinition, RoleGranted, RoleRetired,
    RoleUpdated,
};
use crate::id::{GrantId, RoleId};
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::role::{Grant, Role, in_order};
use crate::text::Name;
use crate::time::Timestamp;
use crate::user::UserState;

impl Organization {
    /// The role of this identifier, where the installation defines it for everybody.
    #[must_use]
    pub fn built_in_role(&self, id: RoleId) -> Option<&Arc<Role>> {
        self.role(id).filter(|role| role.built_in)
    }

    /// The roles behind this one (none: from the first), in the order of their identifiers.
    pub fn roles_after(&self, after: Option<RoleId>) -> impl Iterator<Item = &Arc<Role>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.roles.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, role)| role)
    }

    /// The role of the organization's own that is in force under this name.
    #[must_use]
    pub fn role_named(&self, name: &Name) -> Option<&Arc<Role>> {
        self.roles.get(self.role_names.get(&NameDigest::of(name.as_str()))?)
    }

    /// How many roles of the organization's own are in force.
    #[must_use]
    pub fn own_roles_in_force(&self) -> usize {
        self.role_names.len()
    }

    /// How many roles of its own the organization ever made.
    #[must_use]
    pub fn own_roles_made(&self) -> usize {
        self.roles.values().filter(|role| !role.built_in).count()
    }

    /// The grant of this identifier; none where it was revoked, or ended by the stream's
    /// time.
    #[must_use]
    pub fn grant(&self, id: GrantId) -> Option<&Arc<Grant>> {
        self.grants.get(&id)
    }

    /// The grants behind this one (none: from the first), in the order of their
    /// identifiers. By the stream's time they stand; whether by the clock, each says.
    pub fn grants_after(&self, after: Option<GrantId>) -> impl Iterator<Item = &Arc<Grant>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.grants.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, grant)| grant)
    }

    /// The grants of a role behind this one, in the order of their identifiers.
    pub fn grants_of_role(
        &self,
        role: RoleId,
        after: Option<GrantId>,
    ) -> impl Iterator<Item = &Arc<Grant>> {
        use std::ops::Bound::{Excluded, Included};
        let last = GrantId::from_bytes([u8::MAX; 16]);
        let first = match after {
            Some(after) => Excluded((role, after)),
            None => Included((role, GrantId::from_bytes([0; 16]))),
        };
        let range = self.grants_of_roles.range((first, Included((role, last))));
        range.filter_map(|(_, id)| self.grants.get(id))
    }

    /// The grants of a principal, in the order of their identifiers.
    #[must_use]
    pub fn grants_of(&self, principal: Principal) -> &[Arc<Grant>] {
        self.granted.get(&principal).map_or(&[], |grants| grants.as_slice())
    }

    pub(super) fn role_defined(
        &mut self,
        revision: Revision,
        at: Timestamp,
        event: &BuiltInRoleDefined,
    ) -> Change {
        let before = self.roles.get(&event.role_id);
        let role = Role {
            built_in: true,
            created_at: before.map_or(at, |it| it.created_at),
            ..made(event.role_id, &event.definition, at, revision)
        };
        self.roles.insert(event.role_id, Arc::new(role));
        Change::Rule
    }

    pub(super) fn role_created(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &RoleCreated,
    ) -> Result<Change, Fault> {
        let id = event.role_id;
        if self.roles.contains_key(&id) {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let role = made(id, &event.definition, envelope.at, revision);
        self.role_names.insert(place(&event.definition.name), id);
        self.roles.insert(id, Arc::new(role));
        Ok(Change::Role(id))
    }

    /// A role of the organization's own that is in force, to be changed.
    fn own_role(&self, envelope: &Envelope, id: RoleId) -> Result<Arc<Role>, Fault> {
        let role = self.roles.get(&id).filter(|role| !role.built_in && role.is_in_force());
        role.cloned().ok_or_else(|| Fault::MissingTarget(envelope.event.event_type()))
    }

    fn release_role_name(&mut self, role: &Role) {
        let place = place(&role.name);
        if self.role_names.get(&place) == Some(&role.id) {
            self.role_names.remove(&place);
        }
    }

    pub(super) fn role_updated(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &RoleUpdated,
    ) -> Result<Change, Fault> {
        let role = self.own_role(envelope, event.role_id)?;
        self.release_role_name(&role);
        self.role_names.insert(place(&event.definition.name), role.id);
        let row = Role { changed_at: revision, ..(*role).clone() }.defined(&event.definition);
        self.roles.insert(row.id, Arc::new(row));
        Ok(Change::Role(role.id))
    }

    pub(super) fn role_retired(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &RoleRetired,
    ) -> Result<Change, Fault> {
        let role = self.own_role(envelope, event.role_id)?;
        self.release_role_name(&role);
        // It permits nothing any more: what it was, history says.
        let row = Role {
            description: None,
            permissions: Vec::new(),
            retired_at: Some(envelope.at),
            changed_at: revision,
            ..(*role).clone()
        };
        self.roles.insert(row.id, Arc::new(row));
        Ok(Change::Role(role.id))
    }

    pub(super) fn role_granted(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &RoleGranted,
    ) -> Result<Change, Fault> {
        let id = event.grant_id;
        if self.grants.contains_key(&id) {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        if !self.knows(event.terms.principal) {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        self.put_grant(Grant {
            id,
            terms: event.terms.clone(),
            granted_at: envelope.at,
            granted_by: envelope.actor,
            changed_at: revision,
        });
        Ok(Change::Grant(id))
    }

    /// Whether this is a service account of the organization, or a user who was not removed.
    pub(super) fn knows(&self, principal: Principal) -> bool {
        match principal {
            Principal::ServiceAccount(id) => self.service_accounts.contains_key(&id),
            Principal::User(id) => {
                self.user(id).is_some_and(|user| user.state() != UserState::Removed)
            }
            Principal::Organization(_)
            | Principal::Account(_)
            | Principal::Ledger
            | Principal::BreakGlass(_) => false,
        }
    }

    /// Puts a grant where it is looked for.
    pub(super) fn put_grant(&mut self, grant: Grant) {
        let grant = Arc::new(grant);
        let (id, terms) = (grant.id, &grant.terms);
        self.grants_of_roles.insert((terms.role_id, id));
        if let Some(end) = terms.expires_at {
            self.grant_ends.insert((end, id));
        }
        let mut granted = self.grants_of(terms.principal).to_vec();
        let behind = granted.partition_point(|it| it.id < id);
        granted.insert(behind, Arc::clone(&grant));
        self.granted.insert(terms.principal, Arc::new(granted));
        self.grants.insert(id, grant);
    }

    pub(super) fn grant_revoked(
        &mut self,
        envelope: &Envelope,
        event: &GrantRevoked,
    ) -> Result<Change, Fault> {
        match self.remove_grant(event.grant_id) {
            true => Ok(Change::Grant(event.grant_id)),
            false => Err(Fault::MissingTarget(envelope.event.event_type())),
        }
    }

    /// Removes a grant from wherever it is looked for.
    pub(super) fn remove_grant(&mut self, id: GrantId) -> bool {
        let Some(grant) = self.grants.remove(&id) else { return false };
        let terms = &grant.terms;
        self.grants_of_roles.remove(&(terms.role_id, id));
        if let Some(end) = terms.expires_at {
            self.grant_ends.remove(&(end, id));
        }
        let left: Vec<_> =
            self.grants_of(terms.principal).iter().filter(|it| it.id != id).cloned().collect();
        if left.is_empty() {
            self.granted.remove(&terms.principal);
        } else {
            self.granted.insert(terms.principal, Arc::new(left));
        }
        true
    }
}

/// A role of an organization's own, as an event makes it.
fn made(id: RoleId, definition: &RoleDefinition, at: Timestamp, revision: Revision) -> Role {
    let RoleDefinition { name, description, permissions } = in_order(definition);
    Role {
        id,
        name,
        description: Some(description),
        permissions,
        built_in: false,
        created_at: at,
        retired_at: None,
        changed_at: revision,
    }
}

/// Where a name is looked for.
pub(super) fn place(name: &Name) -> NameDigest {
    NameDigest::of(name.as_str())
}

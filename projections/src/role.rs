//! Roles: named sets of permissions, resolved as they are now; and who was granted them.

use crate::event::{GrantTerms, RoleDefinition};
use crate::id::{GrantId, RoleId};
use crate::permission::{Permission, PermissionPattern};
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::{Description, Domain, Name};
use crate::time::Timestamp;

/// A role as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The role.
    pub id: RoleId,
    /// What people call it.
    pub name: Name,
    /// What it is for; none once it is retired: its history says what it was.
    pub description: Option<Description>,
    /// What it permits; nothing once it is retired.
    pub permissions: Vec<PermissionPattern>,
    /// Whether the installation defines it, for every organization.
    pub built_in: bool,
    /// When it came to be.
    pub created_at: Timestamp,
    /// Since when it permits nothing, for good; none while it is in force.
    pub retired_at: Option<Timestamp>,
    /// The event that gave it this meaning.
    pub changed_at: Revision,
}

impl Role {
    /// Whether it permits anything.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.retired_at.is_none()
    }

    /// What it permits; nothing once it is retired.
    #[must_use]
    pub fn permissions(&self) -> &[PermissionPattern] {
        if self.is_in_force() { &self.permissions } else { &[] }
    }

    /// What it means; none once it is retired.
    #[must_use]
    pub fn definition(&self) -> Option<RoleDefinition> {
        Some(RoleDefinition {
            name: self.name.clone(),
            description: self.description.clone()?,
            permissions: self.permissions.clone(),
        })
    }

    /// The same role with this meaning.
    pub(crate) fn defined(self, definition: &RoleDefinition) -> Self {
        let RoleDefinition { name, description, permissions } = in_order(definition);
        Self { name, description: Some(description), permissions, ..self }
    }

    /// Whether it permits this.
    #[must_use]
    pub fn implies(&self, wanted: Permission<'_>) -> bool {
        PermissionPattern::any_implies(self.permissions(), wanted)
    }

    /// Whether it permits all that the pattern permits.
    #[must_use]
    pub fn covers(&self, wanted: &PermissionPattern) -> bool {
        PermissionPattern::any_covers(self.permissions(), wanted)
    }
}

/// A meaning whose permissions stand in order: so they are looked up.
pub(crate) fn in_order(definition: &RoleDefinition) -> RoleDefinition {
    let mut definition = definition.clone();
    definition.permissions.sort_unstable();
    definition
}

/// A grant that was not revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub id: GrantId,
    /// Who has which role, where, and until when.
    pub terms: GrantTerms,
    /// When it was made.
    pub granted_at: Timestamp,
    /// Who made it.
    pub granted_by: Principal,
    /// The event that made it.
    pub changed_at: Revision,
}

impl Grant {
    /// Whether it still stands at this instant.
    #[must_use]
    pub fn stands(&self, now: Timestamp) -> bool {
        self.terms.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it is for this domain; for none: for the whole organization.
    #[must_use]
    pub fn is_for(&self, domain: Option<&str>) -> bool {
        self.terms.domain.as_ref().is_none_or(|own| Some(own.as_str()) == domain)
    }

    /// The one domain that it is for.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        self.terms.domain.as_ref()
    }
}

//! Roles: named sets of permissions, resolved as they are now.

use crate::event::RoleDefinition;
use crate::id::RoleId;
use crate::permission::{Permission, PermissionPattern};
use crate::recorded::Revision;

/// A role as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The role.
    pub id: RoleId,
    /// What it means.
    pub definition: RoleDefinition,
    /// The event that gave it this meaning.
    pub changed_at: Revision,
}

impl Role {
    /// Whether it permits this.
    #[must_use]
    pub fn implies(&self, wanted: Permission<'_>) -> bool {
        self.definition.permissions.iter().any(|pattern| pattern.implies(wanted))
    }

    /// Whether it permits all that the pattern permits.
    #[must_use]
    pub fn covers(&self, wanted: &PermissionPattern) -> bool {
        self.definition.permissions.iter().any(|pattern| pattern.covers(wanted))
    }
}

//! Service accounts: programs that act for an organization.

use crate::event::ServiceAccountCreated;
use crate::id::{RoleId, ServiceAccountId};
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::{Description, Name};
use crate::time::Timestamp;

/// A service account as it is now. Its keys hold what its roles permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The service account.
    pub id: ServiceAccountId,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub description: Option<Description>,
    /// Its roles.
    pub roles: Vec<RoleId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Principal,
    /// The event that last changed it.
    pub changed_at: Revision,
}

impl ServiceAccount {
    /// The row that a creation makes.
    pub(crate) fn created(
        revision: Revision,
        at: Timestamp,
        by: Principal,
        event: &ServiceAccountCreated,
    ) -> Self {
        Self {
            id: event.service_account_id,
            name: event.name.clone(),
            description: event.description.clone(),
            roles: event.roles.clone(),
            created_at: at,
            created_by: by,
            changed_at: revision,
        }
    }
}

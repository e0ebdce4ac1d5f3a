//! What only the operator's stream holds: organizations admitted, plans, schemas.

use imbl::{OrdMap, OrdSet};

use crate::digest::SecretDigest;
use crate::event::{ActivatedSchema, InstallationCreated, PlanRules};
use crate::id::{EventId, InstallationId, OrganizationId};
use crate::organization::Profile;
use crate::text::{KeyPrefix, PlanName};

/// The tables of the installation itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// What this installation is called among others.
    pub id: InstallationId,
    /// The pepper that keys new digests, by number.
    pub pepper: u32,
    /// Every pepper there was, with what it makes of a fixed text.
    pub peppers: OrdMap<u32, SecretDigest>,
    /// Every organization admitted, in the order of their making.
    pub organizations: OrdMap<OrganizationId, Registration>,
    /// Who has which prefix.
    pub prefixes: OrdMap<KeyPrefix, OrganizationId>,
    /// The rules of each plan.
    pub plans: OrdMap<PlanName, PlanRules>,
    /// What may be written.
    pub schemas: OrdSet<ActivatedSchema>,
}

/// An organization as the operator admitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the organization was made as.
    pub profile: std::sync::Arc<Profile>,
    /// The event that admitted it.
    pub event_id: EventId,
}

impl Installation {
    pub(crate) fn new(event: &InstallationCreated) -> Self {
        Self {
            id: event.installation_id,
            pepper: event.pepper,
            peppers: OrdMap::unit(event.pepper, event.pepper_check),
            organizations: OrdMap::new(),
            prefixes: OrdMap::new(),
            plans: OrdMap::new(),
            schemas: OrdSet::new(),
        }
    }

    /// Whether events of this type and schema may be written.
    #[must_use]
    pub fn may_write(&self, event_type: &str, schema: u32) -> bool {
        self.schemas.iter().any(|known| known.event_type == event_type && known.schema == schema)
    }
}

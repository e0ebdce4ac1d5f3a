//! What only the operator's stream holds: organizations admitted, plans, schemas.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::digest::{SecretDigest, SigningKeyId, SigningPublicKey};
use crate::event::{
    ActivatedSchema, BreakGlassRules, InstallationCreated, PermissionRule, PlanRules,
    SigningKeyAdded,
};
use crate::id::{EventId, InstallationId, OrganizationId};
use crate::organization::Profile;
use crate::permission::{Permission, PermissionPattern};
use crate::text::{FeatureName, KeyPrefix, PlanName};
use crate::time::Timestamp;

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
    /// What permissions ask for, beside being held.
    pub permission_rules: PermissionRules,
    /// What may be written.
    pub schemas: OrdSet<ActivatedSchema>,
    /// Every key that signs access tokens, or did.
    pub signing_keys: OrdMap<SigningKeyId, SigningKeyRow>,
    /// How break-glass is governed; none where it is off.
    pub break_glass: Option<Arc<BreakGlassRules>>,
}

/// A key that signs access tokens, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Its public half.
    pub public_key: SigningPublicKey,
    /// Since when it may sign.
    pub added_at: Timestamp,
    /// Since when nothing that it signed counts; none while it does.
    pub retired_at: Option<Timestamp>,
}

/// An organization as the operator admitted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the organization was made as.
    pub profile: Arc<Profile>,
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
            permission_rules: PermissionRules::default(),
            schemas: OrdSet::new(),
            signing_keys: OrdMap::new(),
            break_glass: None,
        }
    }

    /// Takes up a key that signs access tokens; none if there is or was such a key.
    pub(crate) fn add_signing_key(&mut self, event: &SigningKeyAdded, at: Timestamp) -> Option<()> {
        if self.signing_keys.contains_key(&event.signing_key_id) {
            return None;
        }
        let row = SigningKeyRow { public_key: event.public_key, added_at: at, retired_at: None };
        self.signing_keys.insert(event.signing_key_id, row);
        Some(())
    }

    /// Retires a key that signs access tokens; none if there is none that still counts.
    pub(crate) fn retire_signing_key(&mut self, id: SigningKeyId, at: Timestamp) -> Option<()> {
        let row = self.signing_keys.get_mut(&id).filter(|row| row.retired_at.is_none())?;
        row.retired_at = Some(at);
        Some(())
    }

    /// Whether a feature is licensed to whoever is on a plan.
    #[must_use]
    pub fn licenses(&self, plan: &PlanName, feature: &FeatureName) -> bool {
        self.plans.get(plan).is_some_and(|rules| rules.features.contains(feature))
    }

    /// Whether events of this type and schema may be written.
    #[must_use]
    pub fn may_write(&self, event_type: &str, schema: u32) -> bool {
        self.schemas.iter().any(|known| known.event_type == event_type && known.schema == schema)
    }
}

/// Rules of permissions, by their patterns and in the order of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionRules(Vec<(PermissionPattern, PermissionRule)>);

impl PermissionRules {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns, each with its rule, in order.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = &(PermissionPattern, PermissionRule)> + ExactSizeIterator
    {
        self.0.iter()
    }

    /// The rule of a pattern itself.
    #[must_use]
    pub fn get(&self, pattern: &PermissionPattern) -> Option<&PermissionRule> {
        let place = self.place(pattern).ok()?;
        self.0.get(place).map(|(_, rule)| rule)
    }

    /// Every rule that a permission is under: of at most four patterns.
    pub fn of<'a>(
        &'a self,
        permission: Permission<'a>,
    ) -> impl Iterator<Item = &'a PermissionRule> + use<'a> {
        permission.patterns().into_iter().filter_map(|pattern| {
            let place = self.0.binary_search_by(|(it, _)| it.cmp_text(pattern)).ok()?;
            self.0.get(place).map(|(_, rule)| rule)
        })
    }

    fn place(&self, pattern: &PermissionPattern) -> Result<usize, usize> {
        self.0.binary_search_by(|(it, _)| it.cmp(pattern))
    }

    /// Puts a rule in the place of the one that the pattern had.
    pub(crate) fn insert(&mut self, pattern: PermissionPattern, rule: PermissionRule) {
        match self.place(&pattern) {
            Ok(place) => self.0.splice(place..=place, [(pattern, rule)]).for_each(drop),
            Err(place) => self.0.insert(place, (pattern, rule)),
        }
    }

    /// Takes a pattern's rule away, and tells whether it had one.
    pub(crate) fn remove(&mut self, pattern: &PermissionPattern) -> bool {
        self.place(pattern).map(|place| self.0.remove(place)).is_ok()
    }
}

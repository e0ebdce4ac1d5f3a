//! One API key, as a row of the live table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api_key::Environment;
use crate::envelope::Envelope;
use crate::event::{Hint, KeyCreated, KeyOrigin, KeyRevoked, KeyedDigest, RevocationReason};
use crate::id::{KeyId, OrganizationId, RoleId};
use crate::permission::Scopes;
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::{Description, KeyPrefix, Label, MetadataValue, Name, ServiceName};
use crate::time::Timestamp;

/// A key as it is now. The row is never changed in place: a change makes a new row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub id: KeyId,
    /// The organization it belongs to.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What stands for its secret.
    pub digest: KeyedDigest,
    /// What narrows it; none for nothing but its roles.
    pub scopes: Option<Scopes>,
    /// The first instant at which it is no longer accepted; none for never.
    pub expires_at: Option<Timestamp>,
    /// When and by whom it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Principal,
    /// The key they made it with.
    pub created_with: Option<KeyId>,
    /// The event that last changed this row.
    pub changed_at: Revision,
    /// The environment that its text names.
    pub environment: Option<Environment>,
    /// The end of its text.
    pub hint: Option<Hint>,
    /// What its text begins with.
    pub prefix: Option<KeyPrefix>,
    /// Its revocation, if it was revoked.
    pub revocation: Option<Arc<Revocation>>,
    /// What few keys have.
    pub extras: Option<Arc<Extras>>,
}

/// What few keys have: kept apart, so that the others are small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// What it is for.
    pub description: Option<Description>,
    /// Its roles.
    pub roles: Vec<RoleId>,
    /// The services it may be used for; none for all.
    pub services: Option<Vec<ServiceName>>,
    /// Texts for whoever verifies it.
    pub metadata: BTreeMap<Label, MetadataValue>,
    /// Numbers for whoever verifies it.
    pub limits: BTreeMap<Label, i64>,
    /// Whether the configuration of the installation holds its secret.
    pub configured: bool,
}

/// How a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Why.
    pub reason: RevocationReason,
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: Principal,
    /// The key they did it with.
    pub with: Option<KeyId>,
    /// The event that says so, which also holds the revoker's sealed words.
    pub revision: Revision,
}

/// Whether a key is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is.
    Active,
    /// Its lifetime is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Key {
    /// The row that a creation makes.
    pub(crate) fn created(
        organization_id: OrganizationId,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyCreated,
    ) -> Self {
        let extras = Extras {
            description: event.description.clone(),
            roles: event.roles.clone(),
            services: event.services.clone(),
            metadata: event.metadata.clone(),
            limits: event.limits.clone(),
            configured: event.origin == KeyOrigin::Configured,
        };
        Self {
            id: event.key_id,
            organization_id,
            name: event.name.clone(),
            digest: event.digest.clone(),
            scopes: event.scopes.clone(),
            expires_at: event.expires_at,
            created_at: envelope.at,
            created_by: envelope.actor,
            created_with: envelope.credential,
            changed_at: revision,
            environment: event.environment,
            hint: event.hint,
            prefix: event.prefix.clone(),
            revocation: None,
            extras: (extras != Extras::default()).then(|| Arc::new(extras)),
        }
    }

    /// The row that a revocation leaves.
    pub(crate) fn revoked(
        &self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyRevoked,
    ) -> Self {
        let revocation = Revocation {
            reason: event.reason,
            at: envelope.at,
            by: envelope.actor,
            with: envelope.credential,
            revision,
        };
        Self { changed_at: revision, revocation: Some(Arc::new(revocation)), ..self.clone() }
    }

    /// Whether it is in force at this instant.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revocation.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Its roles.
    #[must_use]
    pub fn roles(&self) -> &[RoleId] {
        self.extras.as_ref().map_or(&[], |extras| &extras.roles)
    }

    /// The services it may be used for; none for all.
    #[must_use]
    pub fn services(&self) -> Option<&[ServiceName]> {
        self.extras.as_ref()?.services.as_deref()
    }

    /// Whether it may be used for this service.
    #[must_use]
    pub fn serves(&self, service: &str) -> bool {
        self.services().is_none_or(|list| list.iter().any(|name| name.as_str() == service))
    }

    /// Where it is accepted: a key whose text names no environment is live.
    #[must_use]
    pub fn effective_environment(&self) -> Environment {
        self.environment.unwrap_or(Environment::Live)
    }

    /// Whether the configuration of the installation holds its secret.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.configured)
    }

    /// Enough of its text to recognise it by.
    #[must_use]
    pub fn masked(&self) -> String {
        match (&self.prefix, &self.hint) {
            (Some(prefix), Some(hint)) => {
                format!("{}…{}", crate::api_key::head(prefix, self.environment), hint.as_str())
            }
            _ => "…".to_owned(),
        }
    }
}

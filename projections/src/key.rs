//! One API key, as a row of the live table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api_key::Environment;
use crate::envelope::Envelope;
use crate::event::{Hint, KeyCreated, KeyOrigin, KeyRevoked, KeyedDigest, RevocationReason};
use crate::id::{KeyId, RoleId};
use crate::permission::Scopes;
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::{Description, KeyPrefix, Label, MetadataValue, Name, ServiceName};
use crate::time::Timestamp;

/// A key as it is now. The row is never changed in place: a change makes a new row.
///
/// There are millions of these, and each verification reads one that is in no cache:
/// what it reads stands first, in two cache lines, and what many rows have in common
/// they share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Key {
    /// What stands for its secret.
    pub digest: KeyedDigest,
    /// What narrows it; none for nothing but its roles.
    pub scopes: Option<Scopes>,
    /// See [`Key::expires_at`]; [`NEVER_MS`] for never, which no instant is.
    ends_at_ms: i64,
    /// Its revocation, if it was revoked.
    pub revocation: Option<Arc<Revocation>>,
    /// What few keys have.
    pub extras: Option<Arc<Extras>>,
    /// The event that last changed this row.
    pub changed_at: Revision,
    /// The environment that its text names.
    pub environment: Option<Environment>,
    /// Whether its text is of the ledger's making, and begins with the organization's prefix.
    pub minted: bool,
    /// The end of its text.
    pub hint: Option<Hint>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub maker: Arc<Maker>,
    /// The key.
    pub id: KeyId,
    /// What people call it.
    pub name: Name,
}

/// Later than every instant that can be written.
const NEVER_MS: i64 = i64::MAX;

/// Who makes keys, and with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// Who.
    pub by: Principal,
    /// With which key; none where the ledger acted.
    pub with: Option<KeyId>,
}

/// Values that many rows have in common, so that rows can share them: the last few seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    makers: Arc<Vec<Arc<Maker>>>,
    scopes: Arc<Vec<Scopes>>,
}

/// Most values of a kind that are looked through for one to share.
const SHARED_MAX: usize = 16;

/// The equal value seen before, or this one, kept for the next.
fn share<T: Clone, Q: ?Sized>(
    seen: &mut Arc<Vec<T>>,
    wanted: &Q,
    same: impl Fn(&T, &Q) -> bool,
    new: impl FnOnce() -> T,
) -> T {
    if let Some(found) = seen.iter().find(|it| same(it, wanted)) {
        return found.clone();
    }
    let new = new();
    let list = Arc::make_mut(seen);
    if list.len() == SHARED_MAX {
        list.remove(0);
    }
    list.push(new.clone());
    new
}

impl Shared {
    fn maker(&mut self, maker: Maker) -> Arc<Maker> {
        share(&mut self.makers, &maker, |seen, it| **seen == *it, || Arc::new(maker.clone()))
    }

    fn scopes(&mut self, scopes: &Scopes) -> Scopes {
        share(&mut self.scopes, scopes, |seen, it| seen == it, || scopes.clone())
    }
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
        shared: &mut Shared,
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
            name: event.name.clone(),
            digest: event.digest.clone(),
            scopes: event.scopes.as_ref().map(|scopes| shared.scopes(scopes)),
            ends_at_ms: event.expires_at.map_or(NEVER_MS, Timestamp::as_millis),
            created_at: envelope.at,
            maker: shared.maker(Maker { by: envelope.actor, with: envelope.credential }),
            changed_at: revision,
            environment: event.environment,
            minted: event.prefix.is_some(),
            hint: event.hint,
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
        } else if now.as_millis() >= self.ends_at_ms {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// The first instant at which it is no longer accepted; none for never.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        Timestamp::from_millis(self.ends_at_ms)
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
    pub fn masked(&self, prefix: &KeyPrefix) -> String {
        match &self.hint {
            Some(hint) if self.minted => {
                format!("{}…{}", crate::api_key::head(prefix, self.environment), hint.as_str())
            }
            _ => "…".to_owned(),
        }
    }
}

//! One API key, as a row of the live table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api_key::Environment;
use crate::envelope::Envelope;
use crate::event::{
    Hint, KeyCreated, KeyLabel, KeyOrigin, KeyRotated, KeyedDigest, RevocationReason,
};
use crate::id::{KeyId, RoleId};
use crate::network::{Networks, RateLimit};
use crate::permission::Scopes;
use crate::principal::{Credential, Owner, Principal};
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
    /// What befell few keys.
    past: Option<Arc<Past>>,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Maker {
    /// Who.
    pub by: Principal,
    /// With which key or session; none where the ledger acted.
    pub with: Option<Credential>,
}

/// How long a key that is out of force for good stays in the tables, in milliseconds of the
/// stream's own time: see [`crate::organization::Organization::departed`].
pub const KEY_MEMORY_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// Values that many rows have in common, so that rows can share them: the last few seen.
#[derive(Clone, Debug, Default)]
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

/// What rows happen to share is no part of what they say.
impl PartialEq for Shared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Shared {}

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
    /// How its secret came to be.
    pub origin: KeyOrigin,
    /// Whose key it is; none for the organization's own.
    pub owner: Option<Owner>,
    /// Where it may be used from; none for anywhere.
    pub allowed_ips: Option<Networks>,
    /// How often it may be used; none for as often as one likes.
    pub rate_limit: Option<RateLimit>,
    /// The key whose place it took.
    pub predecessor: Option<KeyId>,
}

/// What befell few keys: kept apart, so that the others are small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Past {
    revocation: Option<Revocation>,
    rotation: Option<Rotation>,
    disabled: Option<Act>,
}

/// Who did something, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: Principal,
    /// What they did it with; none where the ledger acted.
    pub with: Option<Credential>,
    /// The event that says so, which also holds what they wrote, sealed.
    pub revision: Revision,
}

impl Act {
    pub(crate) fn of(revision: Revision, envelope: &Envelope) -> Self {
        Self { at: envelope.at, by: envelope.actor, with: envelope.credential, revision }
    }
}

/// How a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Why.
    pub reason: RevocationReason,
    /// Who ended it, and when.
    pub act: Act,
}

/// How another key took this one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The other key.
    pub successor: KeyId,
    /// The first instant at which this one is no longer accepted.
    pub ends_at: Timestamp,
    /// Who rotated it, and when.
    pub act: Act,
}

/// Whether a key is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is.
    Active,
    /// It is not, until somebody enables it.
    Disabled,
    /// Its lifetime is over.
    Expired,
    /// It was revoked, or another key took its place.
    Revoked,
}

impl Past {
    /// Whether the key is out of force for good at this instant.
    fn ended(&self, now: Timestamp) -> bool {
        self.revocation.is_some() || self.rotation.is_some_and(|it| it.ends_at <= now)
    }
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
            origin: event.origin,
            owner: event.owner,
            allowed_ips: event.allowed_ips.clone(),
            rate_limit: event.rate_limit,
            predecessor: event.rotates,
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
            past: None,
            extras: (extras != Extras::default()).then(|| Arc::new(extras)),
        }
    }

    fn changed(&self, revision: Revision, change: impl FnOnce(&mut Past)) -> Self {
        let mut past = self.past.as_deref().cloned().unwrap_or_default();
        change(&mut past);
        let past = (past != Past::default()).then(|| Arc::new(past));
        Self { changed_at: revision, past, ..self.clone() }
    }

    /// The row that a revocation leaves.
    pub(crate) fn revoked(
        &self,
        revision: Revision,
        envelope: &Envelope,
        reason: RevocationReason,
    ) -> Self {
        let act = Act::of(revision, envelope);
        self.changed(revision, |past| past.revocation = Some(Revocation { reason, act }))
    }

    /// The row that is left where another key takes this one's place. An end that is no
    /// longer ahead is final: no clock that is set back brings the key into force again.
    pub(crate) fn rotated(
        &self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyRotated,
    ) -> Self {
        let act = Act::of(revision, envelope);
        let KeyRotated { successor, ends_at, .. } = *event;
        let rotated = self.changed(revision, |past| {
            past.rotation = Some(Rotation { successor, ends_at, act });
        });
        if ends_at > envelope.at {
            return rotated;
        }
        rotated.revoked(revision, envelope, RevocationReason::Superseded)
    }

    /// The row that is left where a key is disabled.
    pub(crate) fn with_disabled(&self, revision: Revision, envelope: &Envelope) -> Self {
        self.changed(revision, |past| past.disabled = Some(Act::of(revision, envelope)))
    }

    /// The row that is left where a disabled key is enabled.
    pub(crate) fn with_enabled(&self, revision: Revision) -> Self {
        self.changed(revision, |past| past.disabled = None)
    }

    /// The row under another label.
    pub(crate) fn relabelled(&self, revision: Revision, label: &KeyLabel) -> Self {
        let mut extras = self.extras.as_deref().cloned().unwrap_or_default();
        extras.description.clone_from(&label.description);
        let extras = (extras != Extras::default()).then(|| Arc::new(extras));
        Self { changed_at: revision, name: label.name.clone(), extras, ..self.clone() }
    }

    /// Whether it is in force at this instant.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        let expired = now.as_millis() >= self.ends_at_ms;
        match &self.past {
            None if expired => KeyState::Expired,
            None => KeyState::Active,
            Some(past) if past.ended(now) => KeyState::Revoked,
            Some(past) if past.disabled.is_some() => KeyState::Disabled,
            Some(_) if expired => KeyState::Expired,
            Some(_) => KeyState::Active,
        }
    }

    /// The instant from which it is out of force for good, as far as is known now; none for
    /// never. It never moves to later. A key that the configuration holds always counts:
    /// what was revoked of it must be refused for ever.
    pub(crate) fn ends_for_good_at(&self) -> Option<Timestamp> {
        if self.is_configured() {
            return None;
        }
        let revoked = self.revocation().map(|it| it.act.at);
        let replaced = self.rotation().map(|it| it.ends_at);
        [revoked, replaced, self.expires_at()].into_iter().flatten().min()
    }

    /// The instant from which the tables let go of it, as far as is known now: see
    /// [`KEY_MEMORY_MS`]; none for never.
    #[must_use]
    pub fn leaves_tables_at(&self) -> Option<Timestamp> {
        self.ends_for_good_at().map(|end| end.saturating_add_millis(KEY_MEMORY_MS))
    }

    /// Its revocation, if it was revoked. A key that another one replaced is superseded
    /// without one, once its time is over: see [`Key::rotation`].
    #[must_use]
    pub fn revocation(&self) -> Option<&Revocation> {
        self.past.as_ref()?.revocation.as_ref()
    }

    /// How another key took its place, if one did.
    #[must_use]
    pub fn rotation(&self) -> Option<&Rotation> {
        self.past.as_ref()?.rotation.as_ref()
    }

    /// Who disabled it, if it is disabled.
    #[must_use]
    pub fn disabled(&self) -> Option<&Act> {
        self.past.as_ref()?.disabled.as_ref()
    }

    /// Whose key it is; none for the organization's own.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.extras.as_ref()?.owner
    }

    /// Where it may be used from; none for anywhere.
    #[must_use]
    pub fn allowed_ips(&self) -> Option<&Networks> {
        self.extras.as_ref()?.allowed_ips.as_ref()
    }

    /// How often it may be used; none for as often as one likes.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.extras.as_ref()?.rate_limit
    }

    /// The key whose place it took; none where it took no other's.
    #[must_use]
    pub fn predecessor(&self) -> Option<KeyId> {
        self.extras.as_ref()?.predecessor
    }

    /// How it is called.
    #[must_use]
    pub fn label(&self) -> KeyLabel {
        let description = self.extras.as_ref().and_then(|extras| extras.description.clone());
        KeyLabel { name: self.name.clone(), description }
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

    /// How its secret came to be.
    #[must_use]
    pub fn origin(&self) -> KeyOrigin {
        self.extras.as_ref().map(|extras| extras.origin).unwrap_or_default()
    }

    /// Whether the configuration of the installation holds its secret.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        matches!(self.origin(), KeyOrigin::Configured | KeyOrigin::Global)
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

mod canonical;

pub(crate) use canonical::ROW_BYTES_MIN;

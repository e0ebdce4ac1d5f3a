//! The live tables of one organization: the fold of its stream.
//!
//! Cloning is cheap (the tables share what did not change), so that a writer can
//! think ahead on a copy while readers keep what is committed.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::break_glass::BreakGlassTable;
use crate::corrupt::{CorruptHistory, Fault};
use crate::digest::{LeafHash, NameDigest, RequestContent, RequestId};
use crate::envelope::Envelope;
use crate::event::{Event, OrganizationCreated, ServiceAccountCreated};
use crate::id::{
    AccountId, BreakGlassGrantId, GrantId, KeyId, OrganizationId, RoleId, ServiceAccountId,
    SessionId, UserId,
};
use crate::installation::Installation;
use crate::key::{Key, Shared};
use crate::policy::Policy;
use crate::principal::{Owner, Principal};
use crate::recorded::{Recorded, Revision};
use crate::role::{Grant, Role};
use crate::service_account::ServiceAccount;
use crate::text::{KeyPrefix, Name, PlanName};
use crate::time::Timestamp;

/// How long a request is remembered, in milliseconds of the stream's own time.
pub const REQUEST_MEMORY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Most rotations that are looked back over from a key.
const ROTATIONS_MAX: usize = 10_000;

/// How far a stream has been folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last event folded.
    pub revision: Revision,
    /// Its leaf hash.
    pub leaf_hash: LeafHash,
    /// Its time.
    pub at: Timestamp,
}

/// What an organization is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What people call it.
    pub name: Name,
    /// What its keys begin with.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
    /// When it came to be.
    pub created_at: Timestamp,
    /// The account of the one person whose own it is; none for one that people join.
    pub personal_of: Option<AccountId>,
}

/// A request that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedRequest {
    /// What it asked for.
    pub content: RequestContent,
    /// What it made or changed.
    pub outcome: Change,
    /// The event it caused.
    pub revision: Revision,
}

/// What an event changed: one record, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it had been applied before.
    Redelivered,
    /// This key.
    Key(KeyId),
    /// The organization's own profile.
    Profile,
    /// This service account.
    ServiceAccount(ServiceAccountId),
    /// The organization's own rules.
    Policy,
    /// The installation admitted this organization.
    Registration(OrganizationId),
    /// A rule of the installation.
    Rule,
    /// No record: what was denied is evidence, and no more.
    Evidence,
    /// This role of the organization's own.
    Role(RoleId),
    /// This grant.
    Grant(GrantId),
    /// This user.
    User(UserId),
    /// This session.
    Session(SessionId),
    /// This break-glass grant.
    BreakGlass(BreakGlassGrantId),
}

/// The tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// The organization.
    pub id: OrganizationId,
    head: Option<Head>,
    profile: Option<Arc<Profile>>,
    policy: Arc<Policy>,
    service_accounts: OrdMap<ServiceAccountId, Arc<ServiceAccount>>,
    service_account_names: OrdMap<NameDigest, ServiceAccountId>,
    /// The keys of service accounts and users that were not revoked, by when they are out of force for
    /// good: at the end of time where nothing says so.
    owned: OrdSet<(Owner, Timestamp, KeyId)>,
    keys: OrdMap<KeyId, Arc<Key>>,
    names: OrdMap<NameDigest, KeyId>,
    /// The keys in the tables that are, or will be, out of force for good, by when.
    ends: OrdSet<(Timestamp, KeyId)>,
    /// How many keys were made.
    keys_made: u64,
    revoked_keys: u64,
    departed: Departed,
    shared: Shared,
    roles: OrdMap<RoleId, Arc<Role>>,
    /// The roles of the organization's own that are in force, by name.
    role_names: OrdMap<NameDigest, RoleId>,
    grants: OrdMap<GrantId, Arc<Grant>>,
    /// The grants of each principal, in the order of their identifiers.
    granted: OrdMap<Principal, Arc<Vec<Arc<Grant>>>>,
    grants_of_roles: OrdSet<(RoleId, GrantId)>,
    /// The grants that end by themselves, by when.
    grant_ends: OrdSet<(Timestamp, GrantId)>,
    people: Arc<People>,
    break_glass: Arc<BreakGlassTable>,
    requests: OrdMap<RequestId, RememberedRequest>,
    requests_by_age: OrdSet<(Timestamp, RequestId)>,
    installation: Option<Arc<Installation>>,
}

impl Organization {
    /// The tables of an organization whose stream holds nothing.
    #[must_use]
    pub fn new(id: OrganizationId) -> Self {
        Self {
            id,
            head: None,
            profile: None,
            policy: Arc::default(),
            service_accounts: OrdMap::new(),
            service_account_names: OrdMap::new(),
            owned: OrdSet::new(),
            keys: OrdMap::new(),
            names: OrdMap::new(),
            ends: OrdSet::new(),
            keys_made: 0,
            revoked_keys: 0,
            departed: Departed::default(),
            shared: Shared::default(),
            roles: OrdMap::new(),
            role_names: OrdMap::new(),
            grants: OrdMap::new(),
            granted: OrdMap::new(),
            grants_of_roles: OrdSet::new(),
            grant_ends: OrdSet::new(),
            people: Arc::default(),
            break_glass: Arc::default(),
            requests: OrdMap::new(),
            requests_by_age: OrdSet::new(),
            installation: None,
        }
    }

    /// How far the stream has been folded; none if it holds nothing.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The last revision folded.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.head.map(|head| head.revision)
    }

    /// What the organization is; none before it was created.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The key of this identifier; none where it [departed](Self::departed) long ago.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&Arc<Key>> {
        self.keys.get(&id)
    }

    /// The keys behind this one (none: from the first), in the order of their identifiers.
    pub fn keys_after(&self, after: Option<KeyId>) -> impl Iterator<Item = &Arc<Key>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.keys.range((after.map_or(Unbounded, Excluded), Unbounded)).map(|(_, key)| key)
    }

    /// How many keys were ever made, and how many of them are revoked.
    #[must_use]
    pub fn key_counts(&self) -> (u64, u64) {
        (self.keys_made, self.revoked_keys)
    }

    /// How many keys are in the tables.
    #[must_use]
    pub fn keys_here(&self) -> usize {
        self.keys.len()
    }

    /// The organization's own rules.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The service account of this identifier.
    #[must_use]
    pub fn service_account(&self, id: ServiceAccountId) -> Option<&Arc<ServiceAccount>> {
        self.service_accounts.get(&id)
    }

    /// The service account of this name.
    #[must_use]
    pub fn service_account_named(&self, name: &Name) -> Option<&Arc<ServiceAccount>> {
        let id = self.service_account_names.get(&NameDigest::of(name.as_str()))?;
        self.service_accounts.get(id)
    }

    /// The service accounts behind this one (none: from the first), in the order of their
    /// identifiers.
    pub fn service_accounts_after(
        &self,
        after: Option<ServiceAccountId>,
    ) -> impl Iterator<Item = &Arc<ServiceAccount>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.service_accounts.range(range).map(|(_, account)| account)
    }

    /// The keys of a service account or a user that are not out of force for good at this instant:
    /// in the order of their ends, and without a look at those that ended.
    pub fn keys_of(&self, owner: Owner, now: Timestamp) -> impl Iterator<Item = &Arc<Key>> {
        use std::ops::Bound::{Excluded, Included};
        let last = KeyId::from_bytes([u8::MAX; 16]);
        let range = (Excluded((owner, now, last)), Included((owner, Timestamp::MAX, last)));
        self.owned.range(range).filter_map(|(_, _, id)| self.keys.get(id))
    }

    /// This instant, but never one before the last event: a clock that was set back undoes
    /// no end that history has seen.
    #[must_use]
    pub fn no_earlier(&self, now: Timestamp) -> Timestamp {
        self.head.map_or(now, |head| head.at.max(now))
    }

    /// Whether one of these keys took the other's place, directly or through others.
    #[must_use]
    pub fn in_one_rotation(&self, a: &Key, b: &Key) -> bool {
        self.predecessors(a).any(|key| key.id == b.id)
            || self.predecessors(b).any(|key| key.id == a.id)
    }

    /// The first key of the rotation that this one is of, as far as it is in the tables;
    /// itself where it took no other's place.
    #[must_use]
    pub fn first_of_rotation(&self, key: &Key) -> KeyId {
        self.predecessors(key).last().map_or(key.id, |first| first.id)
    }

    /// The keys whose place this one took, the last one first. No history makes it endless.
    fn predecessors(&self, key: &Key) -> impl Iterator<Item = &Arc<Key>> {
        let before = |key: &Key| self.keys.get(&key.predecessor()?);
        std::iter::successors(before(key), move |key| before(key)).take(ROTATIONS_MAX)
    }

    /// The key that has this name: the last one made under it that was neither revoked nor
    /// disabled, or else the one whose place that took. It may be expired.
    #[must_use]
    pub fn key_named(&self, name: &Name) -> Option<&Arc<Key>> {
        self.keys.get(self.names.get(&NameDigest::of(name.as_str()))?)
    }

    /// The keys of this name, of one rotation: the one that has it, and those whose place
    /// it took. They may be out of force.
    pub fn keys_named(&self, name: &Name) -> impl Iterator<Item = &Arc<Key>> {
        let last = self.key_named(name);
        let before = last.into_iter().flat_map(|last| self.predecessors(last));
        last.into_iter().chain(before.filter(move |key| key.name == *name))
    }

    /// The role of this identifier, as this organization's stream defines it.
    #[must_use]
    pub fn role(&self, id: RoleId) -> Option<&Arc<Role>> {
        self.roles.get(&id)
    }

    /// The roles this organization's stream defines.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    /// A request carried out within the last 24 hours of the stream's time.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<RememberedRequest> {
        self.requests.get(&id).copied()
    }

    /// The tables of the installation; only the operator's organization has them.
    #[must_use]
    pub fn installation(&self) -> Option<&Arc<Installation>> {
        self.installation.as_ref()
    }

    /// Folds in one event as the store gives it.
    ///
    /// An event applied before changes nothing, if it is the same one; only the last
    /// one's hash is at hand to tell.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<Change, CorruptHistory> {
        self.place(recorded.revision, recorded.leaf_hash, || Envelope::decode(&recorded.stored))
    }

    /// As [`Organization::apply`], for an event that was decoded elsewhere.
    pub fn apply_decoded(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: Result<Envelope, Fault>,
    ) -> Result<Change, CorruptHistory> {
        self.place(revision, leaf_hash, || envelope)
    }

    fn place(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: impl FnOnce() -> Result<Envelope, Fault>,
    ) -> Result<Change, CorruptHistory> {
        let expected = Revision::after(self.revision());
        if revision > expected {
            return Err(Fault::Gap { expected }.at(revision));
        }
        if revision < expected {
            return match self.head {
                Some(head) if head.revision == revision && head.leaf_hash != leaf_hash => {
                    Err(Fault::Rewritten.at(revision))
                }
                _ => Ok(Change::Redelivered),
            };
        }
        self.apply_next(&envelope().map_err(|fault| fault.at(revision))?, leaf_hash)
    }

    /// Folds in the event that follows the last one, already read.
    pub fn apply_next(
        &mut self,
        envelope: &Envelope,
        leaf_hash: LeafHash,
    ) -> Result<Change, CorruptHistory> {
        let revision = Revision::after(self.revision());
        if self.head.is_some_and(|head| envelope.at < head.at) {
            return Err(Fault::TimeRunsBack.at(revision));
        }
        let before = self.depart(envelope.at);
        let change = match self.fold(revision, envelope) {
            Ok(change) => change,
            Err(fault) => {
                if let Some(before) = before {
                    *self = *before;
                }
                return Err(fault.at(revision));
            }
        };
        self.head = Some(Head { revision, leaf_hash, at: envelope.at });
        self.forget_requests(envelope.at);
        self.forget_sessions(envelope.at);
        if let Some(stamp) = envelope.request {
            self.remember(stamp, envelope.at, revision, change);
        }
        Ok(change)
    }

    fn fold(&mut self, revision: Revision, envelope: &Envelope) -> Result<Change, Fault> {
        let misplaced = Fault::Misplaced(envelope.event.event_type());
        // A stream begins with what makes it; what makes it stands nowhere else.
        let begins = match &envelope.event {
            Event::InstallationCreated(_) => self.id.is_operator() && self.head.is_none(),
            Event::OrganizationCreated(_) => {
                self.profile.is_none() && self.installation.is_some() == self.id.is_operator()
            }
            Event::SchemaActivated(_)
            | Event::PlanDefined(_)
            | Event::BuiltInRoleDefined(_)
            | Event::PepperRotated(_)
            | Event::SigningKeyAdded(_)
            | Event::SigningKeyRetired(_)
            | Event::PermissionRuleDefined(_)
            | Event::PermissionRuleRemoved(_)
            | Event::BreakGlassConfigured(_)
            | Event::OrganizationRegistered(_) => self.installation.is_some(),
            Event::KeyCreated(_)
            | Event::KeyRevoked(_)
            | Event::KeyRelabelled(_)
            | Event::KeyRotated(_)
            | Event::KeyRotationEnded(_)
            | Event::KeyDisabled(_)
            | Event::KeyEnabled(_)
            | Event::ServiceAccountCreated(_)
            | Event::PolicyUpdated(_)
            | Event::RoleCreated(_)
            | Event::RoleUpdated(_)
            | Event::RoleRetired(_)
            | Event::RoleGranted(_)
            | Event::GrantRevoked(_)
            | Event::UserInvited(_)
            | Event::InvitationRenewed(_)
            | Event::UserJoined(_)
            | Event::UserUpdated(_)
            | Event::UserSuspended(_)
            | Event::UserRestored(_)
            | Event::UserRemoved(_)
            | Event::SessionStarted(_)
            | Event::SessionSteppedUp(_)
            | Event::SessionEnded(_)
            | Event::BreakGlassRefused(_)
            | Event::HistoryRead(_)
            | Event::DenialsSummarized(_) => self.profile.is_some(),
            // Nobody has emergency access to the installation itself.
            Event::BreakGlassOpened(_)
            | Event::BreakGlassApproved(_)
            | Event::BreakGlassUsed(_)
            | Event::BreakGlassEnded(_)
            | Event::BreakGlassEscalated(_)
            | Event::BreakGlassReviewed(_) => self.profile.is_some() && !self.id.is_operator(),
            // They stand in streams of their own: see `crate::usage`, `account` and `email`.
            Event::UsageRecorded(_)
            | Event::EmailReserved(_)
            | Event::EmailConfirmed(_)
            | Event::EmailReleased(_)
            | Event::AccountCreated(_)
            | Event::PasswordSet(_)
            | Event::TotpEnrolled(_)
            | Event::TotpRemoved(_)
            | Event::RecoveryCodesReplaced(_)
            | Event::RecoveryCodeUsed(_)
            | Event::SessionsEnded(_)
            | Event::AccountLocked(_)
            | Event::DefaultOrganizationSet(_)
            | Event::PasswordResetIssued(_) => false,
        };
        if !begins {
            return Err(misplaced);
        }
        match &envelope.event {
            Event::InstallationCreated(event) => {
                self.installation = Some(Arc::new(Installation::new(event)));
                Ok(Change::Rule)
            }
            Event::OrganizationCreated(event) => self.created(envelope, event),
            Event::SchemaActivated(event) => self.schemas_activated(event),
            Event::PlanDefined(event) => self.plan_defined(event),
            Event::PermissionRuleDefined(event) => self.permission_rule_defined(event),
            Event::PermissionRuleRemoved(event) => self.permission_rule_removed(envelope, event),
            Event::BuiltInRoleDefined(event) => Ok(self.role_defined(revision, envelope.at, event)),
            Event::OrganizationRegistered(event) => self.registered(envelope, event),
            Event::KeyCreated(event) => self.key_created(revision, envelope, event),
            Event::KeyRevoked(event) => {
                self.key_ended(revision, envelope, event.key_id, event.reason)
            }
            Event::KeyRelabelled(event) => self.key_relabelled(revision, envelope, event),
            Event::KeyRotated(event) => self.key_rotated(revision, envelope, event),
            Event::KeyRotationEnded(event) => self.key_rotation_ended(revision, envelope, event),
            Event::KeyDisabled(event) => self.key_disabled(revision, envelope, event),
            Event::KeyEnabled(event) => self.key_enabled(revision, envelope, event),
            Event::ServiceAccountCreated(event) => {
                self.service_account_created(revision, envelope, event)
            }
            Event::PolicyUpdated(event) => {
                self.policy = Arc::new(event.policy.clone());
                Ok(Change::Policy)
            }
            Event::PepperRotated(event) => self.pepper_rotated(envelope, event),
            Event::RoleCreated(event) => self.role_created(revision, envelope, event),
            Event::RoleUpdated(event) => self.role_updated(revision, envelope, event),
            Event::RoleRetired(event) => self.role_retired(revision, envelope, event),
            Event::RoleGranted(event) => self.role_granted(revision, envelope, event),
            Event::GrantRevoked(event) => self.grant_revoked(envelope, event),
            Event::UserInvited(event) => self.user_invited(revision, envelope, event),
            Event::InvitationRenewed(event) => self.invitation_renewed(revision, envelope, event),
            Event::UserJoined(event) => self.user_joined(revision, envelope, event),
            Event::UserUpdated(event) => self.user_updated(revision, envelope, event),
            Event::UserSuspended(event) => self.user_suspended(revision, envelope, event),
            Event::UserRestored(event) => self.user_restored(revision, envelope, event),
            Event::UserRemoved(event) => self.user_removed(revision, envelope, event),
            Event::SessionStarted(event) => self.session_started(revision, envelope, event),
            Event::SessionSteppedUp(event) => self.session_stepped_up(revision, envelope, event),
            Event::SessionEnded(event) => self.session_ended(revision, envelope, event),
            Event::SigningKeyAdded(event) => {
                let added = self.installation_mut()?.add_signing_key(event, envelope.at);
                added.map(|()| Change::Rule).ok_or(Fault::DuplicateTarget("SigningKeyAdded"))
            }
            Event::SigningKeyRetired(event) => {
                let id = event.signing_key_id;
                let retired = self.installation_mut()?.retire_signing_key(id, envelope.at);
                retired.map(|()| Change::Rule).ok_or(Fault::MissingTarget("SigningKeyRetired"))
            }
            Event::BreakGlassConfigured(event) => self.break_glass_configured(event),
            Event::BreakGlassOpened(event) => self.break_glass_opened(revision, envelope, event),
            Event::BreakGlassApproved(event) => {
                self.break_glass_approved(revision, envelope, event)
            }
            Event::BreakGlassUsed(event) => self.break_glass_used(revision, envelope, event),
            Event::BreakGlassRefused(event) => self.break_glass_refused(revision, envelope, event),
            Event::BreakGlassEnded(event) => self.break_glass_ended(revision, envelope, event),
            Event::BreakGlassEscalated(event) => {
                self.break_glass_escalated(revision, envelope, event)
            }
            Event::BreakGlassReviewed(event) => {
                self.break_glass_reviewed(revision, envelope, event)
            }
            Event::DenialsSummarized(_) | Event::HistoryRead(_) => Ok(Change::Evidence),
            Event::UsageRecorded(_)
            | Event::EmailReserved(_)
            | Event::EmailConfirmed(_)
            | Event::EmailReleased(_)
            | Event::AccountCreated(_)
            | Event::PasswordSet(_)
            | Event::TotpEnrolled(_)
            | Event::TotpRemoved(_)
            | Event::RecoveryCodesReplaced(_)
            | Event::RecoveryCodeUsed(_)
            | Event::SessionsEnded(_)
            | Event::AccountLocked(_)
            | Event::DefaultOrganizationSet(_)
            | Event::PasswordResetIssued(_) => Err(misplaced),
        }
    }

    fn created(
        &mut self,
        envelope: &Envelope,
        event: &OrganizationCreated,
    ) -> Result<Change, Fault> {
        if event.organization_id != self.id {
            return Err(Fault::Misplaced(envelope.event.event_type()));
        }
        self.profile = Some(Arc::new(Profile {
            name: event.name.clone(),
            key_prefix: event.key_prefix.clone(),
            plan: event.plan.clone(),
            created_at: envelope.at,
            personal_of: event.personal_of,
        }));
        Ok(Change::Profile)
    }

    fn service_account_created(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &ServiceAccountCreated,
    ) -> Result<Change, Fault> {
        let id = event.service_account_id;
        if self.service_accounts.contains_key(&id) {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let account = ServiceAccount::created(revision, envelope.at, envelope.actor, event);
        self.service_account_names.insert(NameDigest::of(event.name.as_str()), id);
        self.service_accounts.insert(id, Arc::new(account));
        Ok(Change::ServiceAccount(id))
    }
}

mod break_glass;
mod canonical;
mod departure;
mod keys;
mod people;
mod requests;
mod roles;
mod rules;
#[cfg(test)]
mod tests;

pub use departure::DEPARTURES_MAX;
use departure::Departed;
use people::People;

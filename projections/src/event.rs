//! The facts.
//!
//! Types and schemas are only ever added. A changed meaning gets a new schema, or a
//! new type; the old one stays readable for as long as any log holds it. One event
//! changes one record: that is what lets a reader see a table between two events.
//!
//! To change a type's data, write the new struct, give it the next schema in [`events!`],
//! and name the old struct beside it, with a conversion: what was written stays readable.
//!
//! To add a type: write its struct, add it to [`events!`] below with schema 1, fold it
//! in [`crate::organization`], and write its golden file. The tests say what is missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::api_key::Environment;
use crate::digest::SecretDigest;
use crate::id::{InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId};
use crate::network::{Networks, RateLimit};
use crate::permission::Scopes;
use crate::policy::Policy;
use crate::text::{Description, KeyPrefix, Label, MetadataValue, Name, PlanName, ServiceName};
use crate::time::Timestamp;

mod accounts;
mod hint;
mod noted;
mod roles;

pub use accounts::{
    AccountCreated, AccountLocked, DefaultOrganizationSet, EmailConfirmed, EmailReleased,
    EmailReserved, PasswordCause, PasswordSet, RecoveryCodeUsed, RecoveryCodesReplaced,
    SessionsEnded, TotpEnrolled, TotpRemoved,
};
pub(crate) use accounts::{AccountFact, EmailFact};
pub use hint::Hint;
use noted::DenialsSummarized1;
pub use noted::{CountedDenial, Denial, DenialCode, DenialsSummarized, KeyUses, UsageRecorded};
pub use roles::{
    BuiltInRoleDefined, GrantRevoked, GrantTerms, RoleCreated, RoleDefinition, RoleGranted,
    RoleRetired, RoleUpdated,
};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $schema:literal $(or $before:ident = $older:literal)*,)+) => {
        /// A fact.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)+
        }

        /// Every type of event and its schema that this version writes, in the order
        /// in which the types came to be.
        pub const SCHEMAS: &[(&str, u32)] = &[$((stringify!($name), $schema)),+];

        /// Every type and schema that earlier versions wrote: it is read as the current one.
        pub const OLDER_SCHEMAS: &[(&str, u32)] = &[$($((stringify!($name), $older),)*)+];

        impl Event {
            /// The name of its type, as stored.
            #[must_use]
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)+ }
            }

            /// The schema of its data.
            #[must_use]
            pub fn schema(&self) -> u32 {
                match self { $(Self::$name(_) => $schema,)+ }
            }

            /// Reads the data of an event of this type and schema; none if there is no such.
            pub(crate) fn read(event_type: &str, schema: u32, data: &str) -> Option<serde_json::Result<Self>> {
                match (event_type, schema) {
                    $((stringify!($name), $schema) => Some(serde_json::from_str(data).map(Self::$name)),)+
                    $($((stringify!($name), $older) => {
                        Some(serde_json::from_str::<$before>(data).map(|it| Self::$name(it.into())))
                    })*)+
                    _ => None,
                }
            }
        }

        impl Serialize for Event {
            /// The data alone: type and schema stand in the envelope.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name(data) => data.serialize(serializer),)+ }
            }
        }

        $(impl From<$name> for Event {
            fn from(data: $name) -> Self {
                Self::$name(data)
            }
        })+
    };
}

events! {
    /// The installation came to be: the first event of the operator's stream.
    InstallationCreated = 1,
    /// From here on events of these types and schemas may be written.
    SchemaActivated = 1,
    /// A plan has these rules from here on.
    PlanDefined = 1,
    /// A role that every organization has means this from here on.
    BuiltInRoleDefined = 1,
    /// The operator admitted an organization; its name and prefix are taken.
    OrganizationRegistered = 1,
    /// An organization came to be: the first event of its stream (the operator's second).
    OrganizationCreated = 1,
    /// A key came into force.
    KeyCreated = 2 or KeyCreated1 = 1,
    /// A key went out of force for good.
    KeyRevoked = 2 or KeyRevoked1 = 1,
    /// A key is called otherwise, or what it is for is said otherwise.
    KeyRelabelled = 1,
    /// Another key takes a key's place: the old one goes out of force at an instant.
    KeyRotated = 1,
    /// A key whose place was taken went out of force before that instant.
    KeyRotationEnded = 1,
    /// A key went out of force until it is enabled.
    KeyDisabled = 1,
    /// A disabled key came into force again.
    KeyEnabled = 1,
    /// A program that acts for the organization came to be.
    ServiceAccountCreated = 1,
    /// The organization has these rules of its own from here on.
    PolicyUpdated = 1,
    /// New digests are made under another pepper from here on.
    PepperRotated = 1,
    /// Credentials were denied: what came together within a minute.
    DenialsSummarized = 2 or DenialsSummarized1 = 1,
    /// Keys were used: the one type of event in a usage stream.
    UsageRecorded = 1,
    /// The organization has a role of its own from here on.
    RoleCreated = 1,
    /// A role of the organization's own means something else from here on.
    RoleUpdated = 1,
    /// A role of the organization's own permits nothing from here on, for good.
    RoleRetired = 1,
    /// A principal has a role from here on.
    RoleGranted = 1,
    /// A principal no longer has a role that it was granted.
    GrantRevoked = 1,
    /// An e-mail is kept for an account that is about to come to be.
    EmailReserved = 1,
    /// An account has an e-mail, and no other account can.
    EmailConfirmed = 1,
    /// An e-mail is free again.
    EmailReleased = 1,
    /// Somebody can log in from here on: the first event of their account's stream.
    AccountCreated = 1,
    /// An account has another password; its sessions ended, and so did a lock.
    PasswordSet = 1,
    /// A second factor is asked of whoever logs in to an account.
    TotpEnrolled = 1,
    /// No second factor is asked any more; its recovery codes went with it.
    TotpRemoved = 1,
    /// An account has other recovery codes, and none of those before.
    RecoveryCodesReplaced = 1,
    /// A recovery code took the place of a second factor, once.
    RecoveryCodeUsed = 1,
    /// An account's sessions ended, in all organizations.
    SessionsEnded = 1,
    /// Nobody can log in to an account for a time.
    AccountLocked = 1,
    /// A login that names no organization leads to this one.
    DefaultOrganizationSet = 1,
}

/// See [`Event::InstallationCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallationCreated {
    /// What this installation is called among others.
    pub installation_id: InstallationId,
    /// The pepper that keys its digests, by number.
    pub pepper: u32,
    /// What that pepper makes of a fixed text: another pepper would be found out.
    pub pepper_check: SecretDigest,
}

/// See [`Event::SchemaActivated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaActivated {
    /// The types and schemas that may be written.
    pub schemas: Vec<ActivatedSchema>,
}

/// One schema of one type of event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivatedSchema {
    /// The type.
    pub event_type: String,
    /// The schema.
    pub schema: u32,
}

/// The rules of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRules {
    /// How long a key may live, in seconds; none for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_lifetime_max_seconds: Option<u32>,
}

/// See [`Event::PlanDefined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDefined {
    /// The plan.
    pub plan: PlanName,
    /// Its rules from here on.
    pub rules: PlanRules,
    /// Its rules up to here; none where the plan is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PlanRules>,
}

/// See [`Event::OrganizationRegistered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationRegistered {
    /// The organization.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What its keys begin with: no other organization's do.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
}

/// See [`Event::OrganizationCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationCreated {
    /// The organization: the one whose stream this is.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What its keys begin with.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
}

/// How a key's secret came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOrigin {
    /// The ledger made it and showed it once.
    #[default]
    Minted,
    /// The configuration of the installation holds it, or its digest.
    Configured,
    /// It was made elsewhere; its SHA-256 digest was brought here.
    Imported,
}

/// What the digest of a secret was taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestForm {
    /// The text of the key.
    Text,
    /// The SHA-256 digest of the text: all that whoever brought the key had.
    Sha256,
}

/// What stands for a secret: enough to recognise it by, with the pepper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyedDigest {
    /// What was digested.
    pub form: DigestForm,
    /// The pepper that keyed it.
    pub pepper: u32,
    /// BLAKE3, keyed.
    pub blake3: SecretDigest,
}

/// What every key says of itself, for good: only name and description may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCreated {
    /// The key.
    pub key_id: KeyId,
    /// What people call it, unique among the organization's active keys.
    pub name: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// How its secret came to be.
    pub origin: KeyOrigin,
    /// What its text begins with; none where the text is not of the ledger's making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<KeyPrefix>,
    /// The environment that its text names; one without is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// The end of its text; none where the text is not of the ledger's making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// What stands for its secret.
    pub digest: KeyedDigest,
    /// What narrows it; none for nothing but its roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleId>,
    /// The services it may be used for; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceName>>,
    /// The first instant at which it is no longer accepted; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Texts for whoever verifies it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<Label, MetadataValue>,
    /// Numbers for whoever verifies it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Label, i64>,
    /// Whose key it is; none for the organization's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ServiceAccountId>,
    /// Where it may be used from; none for anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_ips: Option<Networks>,
    /// How often it may be used; none for as often as one likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// The key whose place it takes; none where it takes no other's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotates: Option<KeyId>,
}

/// The origins that schema 1 of a key's creation knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyOrigin1 {
    Minted,
    Configured,
}

/// Schema 1 of [`KeyCreated`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyCreated1 {
    key_id: KeyId,
    name: Name,
    #[serde(default)]
    description: Option<Description>,
    origin: KeyOrigin1,
    #[serde(default)]
    prefix: Option<KeyPrefix>,
    #[serde(default)]
    environment: Option<Environment>,
    #[serde(default)]
    hint: Option<Hint>,
    digest: KeyedDigest,
    #[serde(default)]
    scopes: Option<Scopes>,
    #[serde(default)]
    roles: Vec<RoleId>,
    #[serde(default)]
    services: Option<Vec<ServiceName>>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    metadata: BTreeMap<Label, MetadataValue>,
    #[serde(default)]
    limits: BTreeMap<Label, i64>,
}

impl From<KeyCreated1> for KeyCreated {
    fn from(it: KeyCreated1) -> Self {
        let origin = match it.origin {
            KeyOrigin1::Minted => KeyOrigin::Minted,
            KeyOrigin1::Configured => KeyOrigin::Configured,
        };
        Self {
            key_id: it.key_id,
            name: it.name,
            description: it.description,
            origin,
            prefix: it.prefix,
            environment: it.environment,
            hint: it.hint,
            digest: it.digest,
            scopes: it.scopes,
            roles: it.roles,
            services: it.services,
            expires_at: it.expires_at,
            metadata: it.metadata,
            limits: it.limits,
            owner: None,
            allowed_ips: None,
            rate_limit: None,
            rotates: None,
        }
    }
}

/// Why a key was revoked: the names of RFC 5280, section 5.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// None was given.
    Unspecified,
    /// Somebody else knows the key.
    KeyCompromise,
    /// Whoever used it belongs elsewhere now.
    AffiliationChanged,
    /// Another key took its place.
    Superseded,
    /// What it was for is over.
    CessationOfOperation,
    /// It is no longer to hold what it held.
    PrivilegeWithdrawn,
}

/// What a key was before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStateBefore {
    /// In force.
    Active,
    /// Over its lifetime.
    Expired,
    /// Out of force until it is enabled.
    Disabled,
}

/// See [`Event::KeyRevoked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRevoked {
    /// The key.
    pub key_id: KeyId,
    /// Why.
    pub reason: RevocationReason,
    /// What it was.
    pub before: KeyStateBefore,
}

/// What schema 1 of a revocation knew a key to be before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyStateBefore1 {
    Active,
    Expired,
}

/// Schema 1 of [`KeyRevoked`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRevoked1 {
    key_id: KeyId,
    reason: RevocationReason,
    before: KeyStateBefore1,
}

impl From<KeyRevoked1> for KeyRevoked {
    fn from(it: KeyRevoked1) -> Self {
        let before = match it.before {
            KeyStateBefore1::Active => KeyStateBefore::Active,
            KeyStateBefore1::Expired => KeyStateBefore::Expired,
        };
        Self { key_id: it.key_id, reason: it.reason, before }
    }
}

/// What may change of a key: how it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLabel {
    /// What people call it.
    pub name: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
}

/// See [`Event::KeyRelabelled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRelabelled {
    /// The key.
    pub key_id: KeyId,
    /// How it is called from here on.
    pub label: KeyLabel,
    /// How it was called up to here.
    pub before: KeyLabel,
}

/// See [`Event::KeyRotated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotated {
    /// The old key.
    pub key_id: KeyId,
    /// The key that takes its place.
    pub successor: KeyId,
    /// The first instant at which the old key is no longer accepted.
    pub ends_at: Timestamp,
}

/// See [`Event::KeyRotationEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotationEnded {
    /// The old key.
    pub key_id: KeyId,
    /// When it would have ended.
    pub before: Timestamp,
}

/// See [`Event::KeyDisabled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDisabled {
    /// The key, which was active.
    pub key_id: KeyId,
}

/// See [`Event::KeyEnabled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEnabled {
    /// The key, which was disabled.
    pub key_id: KeyId,
}

/// See [`Event::ServiceAccountCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountCreated {
    /// The service account.
    pub service_account_id: ServiceAccountId,
    /// What people call it, unique in the organization.
    pub name: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleId>,
}

/// See [`Event::PolicyUpdated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyUpdated {
    /// The organization's rules from here on.
    pub policy: Policy,
    /// Its rules up to here.
    pub before: Policy,
}

/// See [`Event::PepperRotated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PepperRotated {
    /// The pepper that keys new digests, by number.
    pub pepper: u32,
    /// What that pepper makes of a fixed text.
    pub pepper_check: SecretDigest,
}

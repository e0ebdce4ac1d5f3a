//! What befalls keys.

use std::collections::BTreeMap;
use std::fmt;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api_key::{Environment, HINT_CHARS};
use crate::digest::SecretDigest;
use crate::id::{KeyId, RoleId};
use crate::network::{Networks, RateLimit};
use crate::permission::Scopes;
use crate::principal::Owner;
use crate::text::{Description, KeyPrefix, Label, MetadataValue, Name, ServiceName};
use crate::time::Timestamp;

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
    /// The configuration of the installation holds its digest, and this organization's key
    /// it is: one key for a whole service, from before there were others.
    Global,
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

/// The last characters of a key, which lists show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hint([u8; HINT_CHARS]);

impl Hint {
    /// The hint of a key's text; none if it does not end in ASCII letters and digits.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let last = *text.as_bytes().last_chunk::<HINT_CHARS>()?;
        last.iter().all(u8::is_ascii_alphanumeric).then_some(Self(last))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::of(text)
            .filter(|_| text.len() == HINT_CHARS)
            .ok_or_else(|| de::Error::custom("a hint is four ASCII letters and digits"))
    }
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
    pub owner: Option<Owner>,
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

/// Schema 2 of [`KeyCreated`]: it knew no users' keys, and no global one.
pub(super) struct KeyCreated2(KeyCreated);

impl<'de> Deserialize<'de> for KeyCreated2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = KeyCreated::deserialize(deserializer)?;
        if matches!(event.owner, Some(Owner::User(_))) || event.origin == KeyOrigin::Global {
            return Err(de::Error::custom("schema 2 knows neither users' keys nor a global one"));
        }
        Ok(Self(event))
    }
}

impl From<KeyCreated2> for KeyCreated {
    fn from(it: KeyCreated2) -> Self {
        it.0
    }
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
pub(super) struct KeyCreated1 {
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

/// See [`super::Event::KeyRevoked`].
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
pub(super) struct KeyRevoked1 {
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

/// See [`super::Event::KeyRelabelled`].
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

/// See [`super::Event::KeyRotated`].
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

/// See [`super::Event::KeyRotationEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotationEnded {
    /// The old key.
    pub key_id: KeyId,
    /// When it would have ended.
    pub before: Timestamp,
}

/// See [`super::Event::KeyDisabled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDisabled {
    /// The key, which was active.
    pub key_id: KeyId,
}

/// See [`super::Event::KeyEnabled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEnabled {
    /// The key, which was disabled.
    pub key_id: KeyId,
}

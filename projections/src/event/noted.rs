//! What the ledger notes by itself: what was denied, and how keys were used.

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::text::ServiceName;
use crate::time::Timestamp;

/// Why a credential was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialCode {
    /// Nothing was presented.
    NoCredential,
    /// Two different credentials of one kind.
    Ambiguous,
    /// No credential of ours looks like this.
    Malformed,
    /// Not issued here, or not the asker's to ask about.
    Unknown,
    /// The request was for another organization than the credential's.
    TenantMismatch,
    /// Revoked, for good.
    Revoked,
    /// Out of force until somebody enables it.
    Disabled,
    /// Its lifetime is over.
    Expired,
    /// Used from an address that the key is not for.
    IpNotAllowed,
    /// A test key on live, or a live key on test.
    WrongEnvironment,
    /// The key is limited to other services.
    ServiceNotAllowed,
    /// At least one wanted permission is not held.
    PermissionDenied,
    /// Every wanted permission is held, but not all of them for the domain asked about.
    DomainNotAllowed,
    /// Used more often than it may be.
    RateLimited,
    /// It went out of force while its call was under way.
    NotInForce,
}

/// What denials have in common that are counted as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Why.
    pub code: DenialCode,
    /// The key that was denied; none where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The key with which somebody asked about the credential; none where whoever showed
    /// it called the ledger itself, or where many asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_with: Option<KeyId>,
    /// The service that it was to be used for; none where none was named, or many were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

/// Denials that are counted as one, and how many they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedDenial {
    /// What they have in common.
    pub denial: Denial,
    /// How many.
    pub count: u64,
}

/// See [`super::Event::DenialsSummarized`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenialsSummarized {
    /// When the first of them was.
    pub first_at: Timestamp,
    /// When the last of them was.
    pub last_at: Timestamp,
    /// The most frequent ones, most first; of each key at least one, as far as there is room.
    pub denials: Vec<CountedDenial>,
    /// How many others there were.
    pub others: u64,
}

impl DenialsSummarized {
    /// How many there were in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.denials.iter().map(|it| it.count).fold(self.others, u64::saturating_add)
    }
}

/// The codes that schema 1 of a summary knew.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DenialCode1 {
    NoCredential,
    Ambiguous,
    Malformed,
    Unknown,
    TenantMismatch,
    Revoked,
    Disabled,
    Expired,
    IpNotAllowed,
    WrongEnvironment,
    ServiceNotAllowed,
    PermissionDenied,
    RateLimited,
    NotInForce,
}

impl From<DenialCode1> for DenialCode {
    fn from(it: DenialCode1) -> Self {
        match it {
            DenialCode1::NoCredential => Self::NoCredential,
            DenialCode1::Ambiguous => Self::Ambiguous,
            DenialCode1::Malformed => Self::Malformed,
            DenialCode1::Unknown => Self::Unknown,
            DenialCode1::TenantMismatch => Self::TenantMismatch,
            DenialCode1::Revoked => Self::Revoked,
            DenialCode1::Disabled => Self::Disabled,
            DenialCode1::Expired => Self::Expired,
            DenialCode1::IpNotAllowed => Self::IpNotAllowed,
            DenialCode1::WrongEnvironment => Self::WrongEnvironment,
            DenialCode1::ServiceNotAllowed => Self::ServiceNotAllowed,
            DenialCode1::PermissionDenied => Self::PermissionDenied,
            DenialCode1::RateLimited => Self::RateLimited,
            DenialCode1::NotInForce => Self::NotInForce,
        }
    }
}

/// Schema 1 of [`Denial`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Denial1 {
    code: DenialCode1,
    #[serde(default)]
    key_id: Option<KeyId>,
    #[serde(default)]
    asked_with: Option<KeyId>,
    #[serde(default)]
    service: Option<ServiceName>,
}

/// Schema 1 of [`CountedDenial`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountedDenial1 {
    denial: Denial1,
    count: u64,
}

/// Schema 1 of [`DenialsSummarized`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DenialsSummarized1 {
    first_at: Timestamp,
    last_at: Timestamp,
    denials: Vec<CountedDenial1>,
    others: u64,
}

impl From<DenialsSummarized1> for DenialsSummarized {
    fn from(it: DenialsSummarized1) -> Self {
        let denial = |CountedDenial1 { denial, count }| {
            let Denial1 { code, key_id, asked_with, service } = denial;
            let denial = Denial { code: code.into(), key_id, asked_with, service };
            CountedDenial { denial, count }
        };
        Self {
            first_at: it.first_at,
            last_at: it.last_at,
            denials: it.denials.into_iter().map(denial).collect(),
            others: it.others,
        }
    }
}

/// How a key was used since that was last recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyUses {
    /// The key.
    pub key_id: KeyId,
    /// How often.
    pub uses: u64,
    /// When last, in whole seconds.
    pub last_used_at: Timestamp,
}

/// See [`super::Event::UsageRecorded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageRecorded {
    /// The keys that were used.
    pub keys: Vec<KeyUses>,
}

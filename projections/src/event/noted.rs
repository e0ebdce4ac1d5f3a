//! What the ledger notes by itself: what was denied, and how keys were used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::principal::Credential;
use crate::text::{Label, ServiceName};
use crate::time::Timestamp;

mod before;

pub(super) use before::{DenialsSummarized1, DenialsSummarized2, DenialsSummarized3};

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
    /// Whoever it belongs to was suspended.
    Suspended,
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
    /// Something that was wanted is not licensed to its organization.
    FeatureNotLicensed,
    /// Something that was wanted asks for a second factor.
    MfaRequired,
    /// Used more often than it may be.
    RateLimited,
    /// It went out of force while its call was under way.
    NotInForce,
    /// Break-glass is off.
    BreakGlassDisabled,
    /// No reason was given, or none that could be one.
    BreakGlassReasonRequired,
    /// No organization was named, or none that there is.
    BreakGlassOrganizationRequired,
    /// Its grant awaits approval.
    BreakGlassApprovalPending,
    /// Its grant ended, and was not reviewed.
    BreakGlassReviewPending,
    /// As many grants were opened as may be, for now.
    BreakGlassLimited,
}

/// What denials have in common that are counted as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Why.
    pub code: DenialCode,
    /// The key or session that was denied; none where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The key or session with which somebody asked about the credential; none where whoever
    /// showed it called the ledger itself, or where many asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_with: Option<Credential>,
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

/// In which way a history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WayOfReading {
    /// Page by page.
    Queried,
    /// As it comes.
    Followed,
    /// As a file.
    Exported,
    /// As the story of a break-glass grant.
    Replayed,
    /// For how things were.
    AskedForThePast,
    /// For why a credential could do what it could.
    AskedToExplain,
    /// For a report.
    ReportedOn,
}

impl WayOfReading {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queried => "queried",
            Self::Followed => "followed",
            Self::Exported => "exported",
            Self::Replayed => "replayed",
            Self::AskedForThePast => "asked_for_the_past",
            Self::AskedToExplain => "asked_to_explain",
            Self::ReportedOn => "reported_on",
        }
    }
}

/// See [`super::Event::HistoryRead`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRead {
    /// In which way.
    pub way: WayOfReading,
    /// What was asked for, by field, as far as it is no free text: that is sealed. Empty where
    /// all was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<Label, String>,
    /// More different questions came within the minute than are recorded one by one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub and_more: bool,
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

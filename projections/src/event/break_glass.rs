//! Break-glass: governed emergency access, from the rules that allow it to the review that
//! closes it.

use serde::{Deserialize, Serialize};

use super::{DenialCode, KeyedDigest};
use crate::digest::ReasonDigest;
use crate::id::{AccountId, BreakGlassGrantId};
use crate::permission::Scopes;
use crate::principal::Credential;
use crate::text::{Domain, Label, MethodName, Name, ServiceName};
use crate::time::Timestamp;

/// Who may open grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// What the custodian is called, unique among them.
    pub name: Label,
    /// The person's account; none where the key is bound to nobody, which only rules without
    /// approval and review allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// What stands for the custodian's master key.
    pub digest: KeyedDigest,
}

/// What break-glass may be used for, and how it is governed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassRules {
    /// Who may open grants: at least one, in the order of their names.
    pub custodians: Vec<Custodian>,
    /// All that a grant may permit.
    pub permissions: Scopes,
    /// How long a grant lasts where whoever opens it does not say.
    pub duration_seconds: u32,
    /// How long a grant may last.
    pub duration_max_seconds: u32,
    /// Whether somebody else must approve a grant before it permits anything.
    pub approval_required: bool,
    /// How long a grant waits for that.
    pub approval_seconds: u32,
    /// Whether somebody else must review a grant once it has ended.
    pub review_required: bool,
    /// After how long a missing review is escalated.
    pub review_seconds: u32,
    /// Whether a reason must be given with each request that shows a master key.
    pub reason_required: bool,
    /// Whether a reference to an incident must be given.
    pub incident_required: bool,
    /// Most grants that are opened in all organizations together …
    pub openings_max: u32,
    /// … within this time.
    pub openings_seconds: u32,
}

/// See [`super::Event::BreakGlassConfigured`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassConfigured {
    /// The rules from here on; none where break-glass is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<BreakGlassRules>,
    /// The rules up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<BreakGlassRules>,
}

/// See [`super::Event::BreakGlassOpened`]. The reason stands beside it, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassOpened {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// Whose master key was shown.
    pub custodian: Label,
    /// The custodian's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// What stands for the token that was given out; none where the master key is shown with
    /// each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<KeyedDigest>,
    /// What stands for the reason.
    pub reason: ReasonDigest,
    /// The incident that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Name>,
    /// What it permits.
    pub permissions: Scopes,
    /// How long it lasts, from when it permits anything.
    pub duration_seconds: u32,
    /// Whether it permits nothing until somebody approves it.
    pub awaits_approval: bool,
    /// The first instant at which it is over: by then it has lasted as long as it may, or was
    /// not approved.
    pub expires_at: Timestamp,
}

/// See [`super::Event::BreakGlassApproved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassApproved {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// The account of whoever approved.
    pub account_id: AccountId,
    /// The custodian, where they did it with a master key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custodian: Option<Label>,
    /// The first instant at which it is over.
    pub expires_at: Timestamp,
    /// When it would have been over without approval.
    pub before: Timestamp,
}

/// What was asked of emergency access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassAsked {
    /// All that the request needed; none where only being in force was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Scopes>,
    /// The service that the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The domain that the request was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// The method of the ledger itself that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodName>,
    /// The key or session with which somebody asked about it; none where whoever showed it
    /// called the ledger itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_with: Option<Credential>,
}

/// See [`super::Event::BreakGlassUsed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassUsed {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// What was asked.
    pub asked: BreakGlassAsked,
}

/// See [`super::Event::BreakGlassRefused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassRefused {
    /// The grant; none where none was found, nor opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<BreakGlassGrantId>,
    /// Whose master key was shown, or opened the grant.
    pub custodian: Label,
    /// Why it was refused.
    pub code: DenialCode,
    /// What was asked.
    pub asked: BreakGlassAsked,
}

/// How a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakGlassEndReason {
    /// Somebody closed it.
    Closed,
    /// Its time was over.
    Expired,
    /// Nobody approved it in time.
    NotApproved,
    /// Its custodian opened another one for the organization.
    Superseded,
    /// The rules no longer allow it.
    Withdrawn,
}

/// See [`super::Event::BreakGlassEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassEnded {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// How.
    pub reason: BreakGlassEndReason,
    /// Since when it permits nothing, which may be earlier than when that was recorded.
    pub ended_at: Timestamp,
    /// Whether no server was there to record it when it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_was_down: bool,
}

/// What came of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewFinding {
    /// All that was done was as it should be.
    Justified,
    /// Something was not.
    Unjustified,
}

/// See [`super::Event::BreakGlassReviewed`]. What the reviewer wrote stands beside it, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassReviewed {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// The account of whoever reviewed.
    pub account_id: AccountId,
    /// The custodian, where they did it with a master key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custodian: Option<Label>,
    /// What came of it.
    pub finding: ReviewFinding,
}

/// See [`super::Event::BreakGlassEscalated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassEscalated {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// When it ended.
    pub ended_at: Timestamp,
}

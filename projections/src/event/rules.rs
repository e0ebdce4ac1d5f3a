//! The rules of the installation: plans, and what permissions ask for beside being held.

use serde::{Deserialize, Serialize};

use crate::permission::PermissionPattern;
use crate::text::{FeatureName, PlanName};

/// The rules of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRules {
    /// How long a key may live, in seconds; none for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_lifetime_max_seconds: Option<u32>,
    /// The features that are licensed to whoever is on it: distinct, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<FeatureName>,
}

/// See [`super::Event::PlanDefined`].
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

/// The rules of a plan as schema 1 knew them: without features.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanRules1 {
    #[serde(default)]
    key_lifetime_max_seconds: Option<u32>,
}

impl From<PlanRules1> for PlanRules {
    fn from(it: PlanRules1) -> Self {
        Self { key_lifetime_max_seconds: it.key_lifetime_max_seconds, features: Vec::new() }
    }
}

/// Schema 1 of [`PlanDefined`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanDefined1 {
    plan: PlanName,
    rules: PlanRules1,
    #[serde(default)]
    before: Option<PlanRules1>,
}

impl From<PlanDefined1> for PlanDefined {
    fn from(it: PlanDefined1) -> Self {
        Self { plan: it.plan, rules: it.rules.into(), before: it.before.map(PlanRules::from) }
    }
}

/// What a permission asks for, beside being held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRule {
    /// Whether a second factor must have been shown; none where it need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfa: Option<MfaRule>,
    /// The feature that must be licensed to the organization; none where none must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<FeatureName>,
}

/// How a second factor must have been shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MfaRule {
    /// How long ago at the most, in seconds; none for any time in the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// Whether an API key stands for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub api_keys_satisfy: bool,
}

/// See [`super::Event::PermissionRuleDefined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRuleDefined {
    /// The permissions that it is for.
    pub permission: PermissionPattern,
    /// What they ask for from here on.
    pub rule: PermissionRule,
    /// What they asked for up to here; none where there was no rule of this pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PermissionRule>,
}

/// See [`super::Event::PermissionRuleRemoved`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRuleRemoved {
    /// The permissions that it was for.
    pub permission: PermissionPattern,
    /// What they asked for up to here.
    pub before: PermissionRule,
}

//! Plans and rules of permissions, as the settings file gives them.

use std::collections::{BTreeMap, BTreeSet};

use projections::event::{MfaRule, PermissionRule, PlanRules};
use projections::permission::PermissionPattern;
use projections::text::{FeatureName, PlanName};
use serde::Deserialize;

use super::{ConfigError, duration};
use crate::ledger::built_in;
use crate::ledger::start::ConfiguredRules;

/// Most rules of permissions.
pub(super) const PERMISSION_RULES_MAX: usize = 100;
/// Most plans that the configuration names, and most features of one.
pub(super) const PLANS_MAX: usize = 100;
/// The lifetime that says that there is no limit.
const NONE: &str = "none";

/// `[[permission_rules]]`: what permissions ask for, beside being held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionRuleSetting {
    /// The permissions that it is for: `resource:action`, in which `*` may stand for either.
    permission: String,
    /// Whether a second factor must have been shown.
    #[serde(default)]
    mfa: bool,
    /// How long ago at the most, such as `15m`; absent for any time in the session.
    mfa_max_age: Option<String>,
    /// Whether an API key stands for a second factor.
    #[serde(default)]
    api_keys_satisfy_mfa: bool,
    /// The feature that must be licensed to the organization.
    feature: Option<String>,
}

/// `[plans.NAME]`: the rules of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSetting {
    /// How long a key may live, such as `90d`, or `none`; absent for what a built-in plan
    /// says of itself, and for no limit elsewhere.
    key_lifetime_max: Option<String>,
    /// The features that are licensed to whoever is on it.
    #[serde(default)]
    features: Vec<String>,
}

/// What is wrong with a setting of a list or a table.
fn wrong(setting: String, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Rule { setting, problem: problem.to_string() }
}

/// A length of time in whole seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let length = duration(text)?;
    let whole = length.subsec_nanos() == 0;
    let seconds = u32::try_from(length.as_secs()).map_err(|_| "is too long")?;
    if whole { Ok(seconds) } else { Err("must be whole seconds".to_owned()) }
}

/// Checks the rules.
pub(super) fn configured(
    permission_rules: &[PermissionRuleSetting],
    plans: &BTreeMap<String, PlanSetting>,
) -> Result<ConfiguredRules, ConfigError> {
    if permission_rules.len() > PERMISSION_RULES_MAX {
        let max = PERMISSION_RULES_MAX;
        return Err(ConfigError::Above { name: "permission_rules", max });
    }
    if plans.len() > PLANS_MAX {
        return Err(ConfigError::Above { name: "plans", max: PLANS_MAX });
    }
    let mut named: BTreeSet<PermissionPattern> = BTreeSet::new();
    let mut rules = Vec::with_capacity(permission_rules.len());
    for (place, setting) in permission_rules.iter().enumerate() {
        let (pattern, rule) = permission_rule(place, setting)?;
        if !named.insert(pattern.clone()) {
            let setting = format!("permission_rules[{place}].permission");
            return Err(wrong(setting, format_args!("`{pattern}` has a rule already")));
        }
        rules.push((pattern, rule));
    }
    let plans = plans.iter().map(|(name, setting)| plan(name, setting));
    Ok(ConfiguredRules { permission_rules: rules, plans: plans.collect::<Result<_, _>>()? })
}

fn permission_rule(
    place: usize,
    setting: &PermissionRuleSetting,
) -> Result<(PermissionPattern, PermissionRule), ConfigError> {
    let at = |field: &str| format!("permission_rules[{place}].{field}");
    let pattern = setting.permission.parse().map_err(|error| wrong(at("permission"), error))?;
    let max_age_seconds = setting.mfa_max_age.as_deref().map(seconds).transpose();
    let max_age_seconds = max_age_seconds.map_err(|error| wrong(at("mfa_max_age"), error))?;
    for (given, name) in [
        (max_age_seconds.is_some(), "mfa_max_age"),
        (setting.api_keys_satisfy_mfa, "api_keys_satisfy_mfa"),
    ] {
        if given && !setting.mfa {
            return Err(wrong(at(name), "needs `mfa = true` beside it"));
        }
    }
    let feature = setting.feature.as_deref().map(str::parse::<FeatureName>).transpose();
    let feature = feature.map_err(|error| wrong(at("feature"), error))?;
    if !setting.mfa && feature.is_none() {
        return Err(wrong(at("mfa"), "the rule asks for nothing; set `mfa`, `feature` or both"));
    }
    let api_keys_satisfy = setting.api_keys_satisfy_mfa;
    let mfa = setting.mfa.then_some(MfaRule { max_age_seconds, api_keys_satisfy });
    Ok((pattern, PermissionRule { mfa, feature }))
}

fn plan(name: &str, setting: &PlanSetting) -> Result<(PlanName, PlanRules), ConfigError> {
    let at = |field: &str| format!("plans.{name}{field}");
    let plan: PlanName = name.parse().map_err(|error| wrong(at(""), error))?;
    let key_lifetime_max_seconds = match setting.key_lifetime_max.as_deref() {
        None => built_in::plan(&plan).and_then(|it| it.key_lifetime_max_seconds),
        Some(NONE) => None,
        Some(text) => Some(seconds(text).map_err(|error| wrong(at(".key_lifetime_max"), error))?),
    };
    if setting.features.len() > PLANS_MAX {
        return Err(wrong(at(".features"), format_args!("must be at most {PLANS_MAX}")));
    }
    let mut features: Vec<FeatureName> = Vec::with_capacity(setting.features.len());
    for (place, text) in setting.features.iter().enumerate() {
        let at = || at(&format!(".features[{place}]"));
        let feature = text.parse().map_err(|error| wrong(at(), error))?;
        if features.contains(&feature) {
            return Err(wrong(at(), "is named twice"));
        }
        features.push(feature);
    }
    features.sort_unstable();
    Ok((plan, PlanRules { key_lifetime_max_seconds, features }))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn read(text: &str) -> Result<ConfiguredRules, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        let config = settings.complete(None).map_err(|error| error.to_string())?;
        Ok(config.configured_keys.rules)
    }

    #[test]
    fn rules_and_plans_are_read() {
        let rules = read(
            r#"
            [[permission_rules]]
            permission = "users.write"
            mfa = true
            mfa_max_age = "15m"
            [[permission_rules]]
            permission = "sso:*"
            mfa = true
            api_keys_satisfy_mfa = true
            feature = "sso"
            [plans.free]
            features = ["b", "a"]
            [plans.pro]
            key_lifetime_max = "90d"
            [plans.paid]
            key_lifetime_max = "none"
            "#,
        )
        .unwrap();
        let rule = |place: usize| {
            let (pattern, rule) = &rules.permission_rules[place];
            (pattern.as_str(), rule.mfa, rule.feature.as_ref().map(FeatureName::as_str))
        };
        let mfa =
            |max_age_seconds, api_keys_satisfy| Some(MfaRule { max_age_seconds, api_keys_satisfy });
        assert_eq!(rule(0), ("users:write", mfa(Some(900), false), None));
        assert_eq!(rule(1), ("sso:*", mfa(None, true), Some("sso")));
        let plans: Vec<_> = rules
            .plans
            .iter()
            .map(|(name, it)| (name.as_str(), it.key_lifetime_max_seconds, it.features.len()))
            .collect();
        let expected = [("free", Some(3_600), 2), ("paid", None, 0), ("pro", Some(90 * 86_400), 0)];
        assert_eq!(plans, expected);
        let usual = read("").unwrap();
        assert!(usual.permission_rules.is_empty() && usual.plans.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rule = |rest: &str| format!("[[permission_rules]]\npermission = \"a:b\"\n{rest}");
        for (text, says) in [
            ("[[permission_rules]]\nmfa = true".to_owned(), "missing field `permission`"),
            (rule(""), "`permission_rules[0].mfa`: the rule asks for nothing"),
            (rule("mfa_max_age = \"5m\"\nfeature = \"x\""), "mfa_max_age`: needs `mfa = true`"),
            (rule("api_keys_satisfy_mfa = true"), "api_keys_satisfy_mfa`: needs `mfa = true`"),
            (rule("mfa = true\nmfa_max_age = \"15\""), "mfa_max_age`: must be numbers"),
            (rule("mfa = true\nmfa_max_age = \"5ms\""), "must be whole seconds"),
            (rule("mfa = true\nfeature = \"\""), "feature`: must be 1 to 64"),
            (rule("mfa = true\nmfaa = true"), "unknown field `mfaa`"),
            (
                rule("mfa = true\n") + &rule("mfa = true"),
                "permission_rules[1].permission`: `a:b` has",
            ),
            ("[[permission_rules]]\npermission = \"a\"".to_owned(), "must be `resource:action`"),
            ("[plans.Free]".to_owned(), "`plans.Free`: must be"),
            (
                "[plans.a]\nkey_lifetime_max = \"x\"".to_owned(),
                "`plans.a.key_lifetime_max`: must be",
            ),
            ("[plans.a]\nfeatures = [\"x\", \"x\"]".to_owned(), "features[1]`: is named twice"),
            ("[plans.a]\nlifetime = 1".to_owned(), "unknown field `lifetime`"),
        ] {
            let error = read(&text).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(error.contains(says), "{text}: {error}");
        }
        let many = |count| {
            let one = |n| format!("[[permission_rules]]\npermission = \"a:b{n}\"\nmfa = true\n");
            read(&(0..count).map(one).collect::<String>())
        };
        assert!(many(PERMISSION_RULES_MAX).is_ok());
        assert!(many(PERMISSION_RULES_MAX + 1).is_err());
    }
}

//! What every installation has from its first start: roles, plans, names.
//!
//! Their identifiers are fixed, so that a role means the same in every installation.
//! A change here becomes events at the next start.

use projections::event::{PlanRules, RoleDefinition};
use projections::id::RoleId;
use projections::permission::PermissionPattern;
use projections::text::{CorrelationId, KeyPrefix, Name, PlanName};

use super::command::Rules;
use super::start::ConfiguredRules;

/// Full authority over the installation; known only in the operator organization.
pub const OPERATOR_ADMIN: RoleId = role(1);
/// Full authority inside one organization.
pub const ADMIN: RoleId = role(2);

/// The built-in roles: number, name, description, permissions. The eight behind the
/// operator's are those an organization's wizard offers; the auditor's reads all that
/// keyledger itself keeps, and nothing of the tenant's product.
const ROLES: &[(u8, &str, &str, &[&str])] = &[
    (1, "operator-admin", "Full control over the installation", &["*:*"]),
    (2, "admin", "Full administrative control over the selected services", &["*:*"]),
    (3, "read-only-admin", "Viewing access without permission to modify resources", &["*:read"]),
    (4, "billing-manager", "Create and manage billing-related functions", &["billing:*"]),
    (5, "cache-purger", "Purge cached content across the CDN", &["cache:purge"]),
    (6, "dns-manager", "Create, modify, or delete DNS records", &["dns:*"]),
    (
        7,
        "security-manager",
        "Manage security configurations such as WAF, DDoS protection, and other security policies",
        &["security:*", "waf:*", "ddos:*", "firewall:*", "certificates:*"],
    ),
    (
        8,
        "traffic-manager",
        "Configure routing rules and load balancing",
        &["routing:*", "load-balancing:*"],
    ),
    (
        9,
        "insights-analyst",
        "Access traffic analytics, performance metrics, and reporting",
        &["analytics:read", "metrics:read", "reports:read"],
    ),
    (
        10,
        "auditor",
        "See all that the ledger keeps, and change nothing",
        &[
            "activity:read",
            "api-keys:read",
            "service-accounts:read",
            "roles:read",
            "users:read",
            "sessions:read",
            "break-glass:read",
            "organizations:read",
            "installation:read",
        ],
    ),
];

const fn role(number: u8) -> RoleId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    RoleId::from_bytes(bytes)
}

/// The plans: name, longest life of a key in seconds.
const PLANS: &[(&str, Option<u32>)] =
    &[(OPERATOR_PLAN, None), ("free", Some(60 * 60)), (DEFAULT_PLAN, None)];

const OPERATOR_PLAN: &str = "operator";
/// The plan of an organization made without naming one.
pub const DEFAULT_PLAN: &str = "paid";

#[expect(
    clippy::expect_used,
    reason = "the texts are fixed in this file, and a test reads them all"
)]
fn fixed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a fixed text has its type's shape")
}

/// What the operator organization is called.
#[must_use]
pub fn operator_name() -> Name {
    fixed("operator")
}

/// What the operator's keys begin with.
#[must_use]
pub fn operator_key_prefix() -> KeyPrefix {
    fixed("klop")
}

/// What every personal organization is called: names are clear text for ever, and a person's
/// is theirs to have erased.
#[must_use]
pub fn personal_name() -> Name {
    fixed("personal")
}

/// The plan of the operator organization.
#[must_use]
pub fn operator_plan() -> PlanName {
    fixed(OPERATOR_PLAN)
}

/// The plan of an organization made without naming one.
#[must_use]
pub fn default_plan() -> PlanName {
    fixed(DEFAULT_PLAN)
}

/// What the operator's own minted key is called.
#[must_use]
pub fn admin_key_name() -> Name {
    fixed("admin")
}

/// What the key of `ADMIN_API_TOKEN` is called.
#[must_use]
pub fn admin_api_token_name() -> Name {
    fixed("ADMIN_API_TOKEN")
}

/// What the key of a configured digest is called.
#[must_use]
pub fn admin_digest_name() -> Name {
    fixed("configured admin key")
}

/// What the global key is called; with a number, where another key has that name.
#[must_use]
pub fn global_key_name(number: u32) -> Name {
    match number {
        0 | 1 => fixed("global key"),
        number => fixed(&format!("global key {number}")),
    }
}

/// Stands where no correlation id could be made.
pub(super) fn fallback_correlation_id() -> CorrelationId {
    fixed("none")
}

/// The rules of an installation whose configuration says nothing else.
#[must_use]
pub fn rules() -> Rules {
    rules_with(&ConfiguredRules::default())
}

/// The rules of an installation whose configuration says this.
#[must_use]
pub fn rules_with(configured: &ConfiguredRules) -> Rules {
    let definition = |name, description, permissions: &[&str]| {
        let mut permissions: Vec<PermissionPattern> =
            permissions.iter().map(|text| fixed(text)).collect();
        permissions.sort_unstable();
        RoleDefinition { name: fixed(name), description: fixed(description), permissions }
    };
    let named = |name: &str| configured.plans.iter().any(|(plan, _)| plan.as_str() == name);
    let others = PLANS.iter().filter(|(name, _)| !named(name));
    Rules {
        roles: ROLES
            .iter()
            .map(|(number, name, description, permissions)| {
                (role(*number), definition(name, description, permissions))
            })
            .collect(),
        plans: others
            .map(|(name, seconds)| (fixed(name), plan_rules(*seconds)))
            .chain(configured.plans.iter().cloned())
            .collect(),
        permission_rules: Some(configured.permission_rules.clone()),
    }
}

/// What changes no rule, and only lets be written what this version writes.
#[must_use]
pub fn no_rules() -> Rules {
    Rules { roles: Vec::new(), plans: Vec::new(), permission_rules: None }
}

/// The rules of a built-in plan, where the configuration says nothing else.
#[must_use]
pub fn plan(name: &PlanName) -> Option<PlanRules> {
    let plan = PLANS.iter().find(|(plan, _)| *plan == name.as_str());
    plan.map(|(_, seconds)| plan_rules(*seconds))
}

fn plan_rules(key_lifetime_max_seconds: Option<u32>) -> PlanRules {
    PlanRules { key_lifetime_max_seconds, features: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixed_text_has_its_shape() {
        let rules = rules();
        assert_eq!(rules.roles.len(), ROLES.len());
        assert_eq!(rules.plans.len(), 3);
        assert_eq!(rules.roles.first().unwrap().0, OPERATOR_ADMIN);
        assert_eq!(operator_name().as_str(), "operator");
        assert_eq!(
            (operator_key_prefix().as_str(), operator_plan().as_str()),
            ("klop", OPERATOR_PLAN)
        );
        assert_eq!(default_plan().as_str(), DEFAULT_PLAN);
        for name in [
            admin_key_name(),
            admin_api_token_name(),
            admin_digest_name(),
            personal_name(),
            global_key_name(1),
            global_key_name(u32::MAX),
        ] {
            assert!(!name.as_str().is_empty());
        }
        assert_eq!(fallback_correlation_id().as_str(), "none");
    }

    #[test]
    fn an_auditor_sees_all_that_the_ledger_keeps_and_changes_nothing() {
        let auditor = ROLES.iter().find(|(_, name, _, _)| *name == "auditor");
        let mut held: Vec<String> =
            auditor.unwrap().3.iter().map(|text| (*text).to_owned()).collect();
        let all = super::super::permissions::ALL.iter().map(ToString::to_string);
        let mut reads: Vec<String> = all.filter(|text| text.ends_with(":read")).collect();
        held.sort();
        reads.sort();
        assert_eq!(held, reads);
    }
}

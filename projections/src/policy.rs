//! Policy: rules that an organization gives itself, on top of its plan's.

use serde::{Deserialize, Serialize};

/// What an organization asks of its own keys. The default asks nothing.
///
/// Rules of the plan hold beside these: of two limits the lower one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How long a key may live, in seconds; none for as long as the plan allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_lifetime_max_seconds: Option<u32>,
    /// How long a key whose place was taken may stay valid, in seconds; none for as long
    /// as the ledger allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_grace_max_seconds: Option<u32>,
    /// Whether a key must say from where it may be used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allowed_ips_required: bool,
}

impl Policy {
    /// Whether whatever this allows, `other` allows too.
    #[must_use]
    pub fn is_as_tight_as(&self, other: &Self) -> bool {
        let at_most = |own: Option<u32>, others: Option<u32>| {
            others.is_none_or(|others| own.is_some_and(|own| own <= others))
        };
        at_most(self.key_lifetime_max_seconds, other.key_lifetime_max_seconds)
            && at_most(self.rotation_grace_max_seconds, other.rotation_grace_max_seconds)
            && (self.allowed_ips_required || !other.allowed_ips_required)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tighter_means_that_no_rule_allows_more() {
        let none = Policy::default();
        let day = Policy { key_lifetime_max_seconds: Some(86_400), ..none.clone() };
        let hour = Policy { key_lifetime_max_seconds: Some(3_600), ..none.clone() };
        let grace = Policy { rotation_grace_max_seconds: Some(0), ..day.clone() };
        let listed = Policy { allowed_ips_required: true, ..none.clone() };
        let all = [&none, &day, &hour, &grace, &listed];
        for policy in all {
            assert!(policy.is_as_tight_as(policy) && policy.is_as_tight_as(&none));
            assert_eq!(none.is_as_tight_as(policy), *policy == none);
        }
        assert!(hour.is_as_tight_as(&day) && !day.is_as_tight_as(&hour));
        assert!(grace.is_as_tight_as(&day) && !day.is_as_tight_as(&grace));
        assert!(!listed.is_as_tight_as(&day) && !day.is_as_tight_as(&listed));
    }
}

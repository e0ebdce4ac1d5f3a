//! Who acts.

use std::fmt;
use std::str::FromStr;

use crate::id::{AccountId, InvalidId, OrganizationId, ServiceAccountId, text_serde};

/// Who acts, written as its identifier: the prefix tells the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// An organization itself, through one of its keys; `operator` for the installation's.
    Organization(OrganizationId),
    /// A service account of the organization in whose history it is named.
    ServiceAccount(ServiceAccountId),
    /// A person, by their account: as such they act in its stream alone.
    Account(AccountId),
    /// The ledger, acting by its own rules.
    Ledger,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(id) => id.fmt(f),
            Self::ServiceAccount(id) => id.fmt(f),
            Self::Account(id) => id.fmt(f),
            Self::Ledger => f.write_str("ledger"),
        }
    }
}

impl FromStr for Principal {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            "ledger" => Ok(Self::Ledger),
            other if other.starts_with(ServiceAccountId::PREFIX) => {
                other.parse().map(Self::ServiceAccount)
            }
            other if other.starts_with(AccountId::PREFIX) => other.parse().map(Self::Account),
            other => other.parse().map(Self::Organization),
        }
    }
}

text_serde!(
    Principal,
    "`ledger`, `operator`, or an organization's, service account's or account's identifier"
);

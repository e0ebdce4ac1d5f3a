//! Who acts, with what, and whose things are.

use std::fmt;
use std::str::FromStr;

use crate::id::{
    AccountId, BreakGlassGrantId, InvalidId, KeyId, OrganizationId, ServiceAccountId, SessionId,
    UserId, text_serde,
};

/// Who acts, written as its identifier: the prefix tells the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// An organization itself, through one of its keys; `operator` for the installation's.
    Organization(OrganizationId),
    /// A service account of the organization in whose history it is named.
    ServiceAccount(ServiceAccountId),
    /// A person, by their account: in its stream, and where they govern break-glass.
    Account(AccountId),
    /// The ledger, acting by its own rules.
    Ledger,
    /// A user of the organization in whose history it is named.
    User(UserId),
    /// Whoever acts under a break-glass grant.
    BreakGlass(BreakGlassGrantId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(id) => id.fmt(f),
            Self::ServiceAccount(id) => id.fmt(f),
            Self::Account(id) => id.fmt(f),
            Self::Ledger => f.write_str("ledger"),
            Self::User(id) => id.fmt(f),
            Self::BreakGlass(id) => id.fmt(f),
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
            other if other.starts_with(UserId::PREFIX) => other.parse().map(Self::User),
            other if other.starts_with(AccountId::PREFIX) => other.parse().map(Self::Account),
            other if other.starts_with(BreakGlassGrantId::PREFIX) => {
                other.parse().map(Self::BreakGlass)
            }
            other => other.parse().map(Self::Organization),
        }
    }
}

text_serde!(
    Principal,
    "`ledger`, `operator`, or an organization's, user's, service account's, account's or break-glass grant's identifier"
);

/// Whose a key is, where it is not the organization's own: its authority is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A service account's.
    ServiceAccount(ServiceAccountId),
    /// A user's.
    User(UserId),
}

impl From<ServiceAccountId> for Owner {
    fn from(id: ServiceAccountId) -> Self {
        Self::ServiceAccount(id)
    }
}

impl From<UserId> for Owner {
    fn from(id: UserId) -> Self {
        Self::User(id)
    }
}

impl Owner {
    /// The owner as somebody who acts.
    #[must_use]
    pub fn principal(self) -> Principal {
        match self {
            Self::ServiceAccount(id) => Principal::ServiceAccount(id),
            Self::User(id) => Principal::User(id),
        }
    }

    /// The 16 bytes of the identifier.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        match self {
            Self::ServiceAccount(id) => id.to_bytes(),
            Self::User(id) => id.to_bytes(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.principal().fmt(f)
    }
}

impl FromStr for Owner {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.starts_with(UserId::PREFIX) {
            text.parse().map(Self::User)
        } else {
            text.parse().map(Self::ServiceAccount)
        }
    }
}

text_serde!(Owner, "a service account's or a user's identifier");

/// What somebody acts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Credential {
    /// A key.
    Key(KeyId),
    /// A session.
    Session(SessionId),
    /// A break-glass grant.
    BreakGlass(BreakGlassGrantId),
}

impl From<KeyId> for Credential {
    fn from(id: KeyId) -> Self {
        Self::Key(id)
    }
}

impl From<SessionId> for Credential {
    fn from(id: SessionId) -> Self {
        Self::Session(id)
    }
}

impl Credential {
    /// The key, where it is one.
    #[must_use]
    pub fn key(self) -> Option<KeyId> {
        match self {
            Self::Key(id) => Some(id),
            Self::Session(_) | Self::BreakGlass(_) => None,
        }
    }

    /// What it is, in one word.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Session(_) => "session",
            Self::BreakGlass(_) => "break-glass grant",
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Session(id) => id.fmt(f),
            Self::BreakGlass(id) => id.fmt(f),
        }
    }
}

impl FromStr for Credential {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.starts_with(SessionId::PREFIX) {
            text.parse().map(Self::Session)
        } else if text.starts_with(BreakGlassGrantId::PREFIX) {
            text.parse().map(Self::BreakGlass)
        } else {
            text.parse().map(Self::Key)
        }
    }
}

text_serde!(Credential, "a key's, a session's or a break-glass grant's identifier");

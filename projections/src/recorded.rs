//! What the event store gives back: bytes, and where they stand.

use std::fmt;
use std::sync::Arc;

use crate::digest::{EmailDigest, LeafHash};
use crate::id::{AccountId, OrganizationId};

/// An event's dense place 0, 1, 2, … in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The place of a stream's first event.
    pub const FIRST: Self = Self(0);

    /// The place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place at which a stream that ends at `last` goes on.
    #[must_use]
    pub fn after(last: Option<Self>) -> Self {
        last.map_or(Self::FIRST, Self::next)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a stream: `<category>-<id>`, with no `-` inside the category.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// What the name of an organization's stream begins with.
    pub const ORGANIZATION: &'static str = "org-";
    const USAGE: &'static str = "usage-";
    const ACCOUNT: &'static str = "account-";
    const EMAIL: &'static str = "email-";

    /// The stream that holds all facts of one organization.
    #[must_use]
    pub fn organization(id: OrganizationId) -> Self {
        Self(Self::organization_text(id).into())
    }

    /// The name of the stream that holds all facts of one organization, as text.
    #[must_use]
    pub fn organization_text(id: OrganizationId) -> String {
        [Self::ORGANIZATION, &id.text()].concat()
    }

    /// The stream that holds how one organization's keys were used.
    #[must_use]
    pub fn usage(id: OrganizationId) -> Self {
        Self([Self::USAGE, &id.text()].concat().into())
    }

    /// The stream that holds all facts of one account.
    #[must_use]
    pub fn account(id: AccountId) -> Self {
        Self([Self::ACCOUNT, &id.text()].concat().into())
    }

    /// The stream that says which account has an e-mail.
    #[must_use]
    pub fn email(digest: EmailDigest) -> Self {
        Self(format!("{}{digest}", Self::EMAIL).into())
    }

    /// A stream by the name that a store has for it.
    #[must_use]
    pub fn from_store(name: &str) -> Self {
        Self(name.into())
    }

    /// The organization whose stream this is; none for a stream of another category.
    #[must_use]
    pub fn as_organization(&self) -> Option<OrganizationId> {
        self.0.strip_prefix(Self::ORGANIZATION)?.parse().ok()
    }

    /// The organization whose usage stream this is; none for a stream of another category.
    #[must_use]
    pub fn as_usage(&self) -> Option<OrganizationId> {
        self.0.strip_prefix(Self::USAGE)?.parse().ok()
    }

    /// The account whose stream this is; none for a stream of another category.
    #[must_use]
    pub fn as_account(&self) -> Option<AccountId> {
        self.0.strip_prefix(Self::ACCOUNT)?.parse().ok()
    }

    /// The e-mail whose stream this is; none for a stream of another category.
    #[must_use]
    pub fn as_email(&self) -> Option<EmailDigest> {
        self.0.strip_prefix(Self::EMAIL)?.parse().ok()
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event as a store gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The stream it is in.
    pub stream: StreamName,
    /// Its place in that stream.
    pub revision: Revision,
    /// The exact bytes that were written.
    pub stored: Arc<[u8]>,
    /// The leaf hash that was kept beside the bytes. The store has checked it against them.
    pub leaf_hash: LeafHash,
}

//! What surrounds a command: who gives it, and how a repeat of it is known.

use std::collections::BTreeMap;

use projections::digest::{ReasonDigest, RequestContent, RequestId};
use projections::envelope::RequestStamp;
use projections::id::{
    AccountId, BreakGlassGrantId, EventId, KeyId, OrganizationId, SessionId, UserId,
};
use projections::principal::{Credential, Owner, Principal};
use projections::recorded::Revision;
use projections::sealed::Subject;
use projections::text::CorrelationId;

use super::Command;

/// Who gives a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever holds this key of this organization.
    Key {
        /// The organization that the key belongs to.
        organization_id: OrganizationId,
        /// The key.
        key_id: KeyId,
        /// Whose key it is; none for the organization's own.
        owner: Option<Owner>,
    },
    /// Whoever holds this session of this organization.
    Session {
        /// The organization that the session is for.
        organization_id: OrganizationId,
        /// The session.
        session_id: SessionId,
        /// Whose session it is.
        user_id: UserId,
    },
    /// A user of this organization who showed who they are and has no credential yet: they
    /// join with it, log in, and end what is theirs, and may do nothing else.
    Person {
        /// The organization.
        organization_id: OrganizationId,
        /// The user.
        user_id: UserId,
    },
    /// Whoever showed a custodian's master key: they govern break-glass with it, and may do
    /// nothing else.
    Custodian {
        /// The custodian's account.
        account_id: Option<AccountId>,
    },
    /// Whoever acts under this break-glass grant of this organization.
    BreakGlass {
        /// The organization that the grant is for.
        organization_id: OrganizationId,
        /// The grant.
        grant_id: BreakGlassGrantId,
    },
    /// The ledger itself, or the installation's console.
    Ledger,
}

impl Caller {
    /// Whom an event in the stream of this organization names as its actor. A service
    /// account or a user means something at home only: elsewhere its organization is named.
    #[must_use]
    pub fn principal(self, stream: OrganizationId) -> Principal {
        if let Self::Custodian { account_id: Some(id) } = self {
            return Principal::Account(id);
        }
        if let Self::BreakGlass { grant_id, .. } = self {
            return Principal::BreakGlass(grant_id);
        }
        match (self.home(), self.owner()) {
            (Some(home), Some(owner)) if home == stream => owner.principal(),
            (Some(home), _) => Principal::Organization(home),
            (None, _) => Principal::Ledger,
        }
    }

    /// The organization that its credential belongs to; none for the ledger itself.
    #[must_use]
    pub fn home(self) -> Option<OrganizationId> {
        match self {
            Self::Key { organization_id, .. }
            | Self::Session { organization_id, .. }
            | Self::Person { organization_id, .. }
            | Self::BreakGlass { organization_id, .. } => Some(organization_id),
            Self::Custodian { .. } => Some(OrganizationId::OPERATOR),
            Self::Ledger => None,
        }
    }

    /// The service account or user who acts; none where it is an organization, or the ledger.
    #[must_use]
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::Key { owner, .. } => owner,
            Self::Session { user_id, .. } | Self::Person { user_id, .. } => {
                Some(Owner::User(user_id))
            }
            Self::Custodian { .. } | Self::BreakGlass { .. } | Self::Ledger => None,
        }
    }

    /// The credential that an event names.
    #[must_use]
    pub fn credential(self) -> Option<Credential> {
        match self {
            Self::Key { key_id, .. } => Some(Credential::Key(key_id)),
            Self::Session { session_id, .. } => Some(Credential::Session(session_id)),
            Self::BreakGlass { grant_id, .. } => Some(Credential::BreakGlass(grant_id)),
            Self::Person { .. } | Self::Custodian { .. } | Self::Ledger => None,
        }
    }
}

/// A command and all around it.
#[derive(Clone)]
pub struct Order {
    /// Who gives it.
    pub caller: Caller,
    /// What it is.
    pub command: Command,
    /// The revision at which the caller saw the stream.
    pub expected: Option<Revision>,
    /// How a repeat of it is known.
    pub request: Option<RequestStamp>,
    /// What ties it to all else that the same cause brings about.
    pub correlation_id: CorrelationId,
    /// The event it follows from.
    pub causation_id: Option<EventId>,
    /// Personal data around it, to be sealed: never logged, never in clear.
    pub personal: Personal,
    /// Personal data about whomever it is about, if it holds any.
    pub about: Option<About>,
}

/// Personal data about one subject, sealed under a key of the subject's own into the first
/// event that comes of a command. It has no `Debug`.
#[derive(Clone)]
pub struct About {
    /// The subject.
    pub subject: Subject,
    /// What is said of it.
    pub data: Personal,
}

/// Personal data around a command. It has no `Debug`.
#[derive(Clone, Default)]
pub struct Personal(pub BTreeMap<String, String>);

impl Personal {
    /// The address that the request came from.
    pub const ORIGIN_IP: &'static str = "origin_ip";
    /// The program that sent it.
    pub const USER_AGENT: &'static str = "user_agent";
    /// What the caller wrote, in their own words.
    pub const COMMENT: &'static str = "comment";
}

/// Makes request stamps: keyed, so that a stored one gives nothing away.
#[derive(Clone)]
pub struct RequestStamper {
    lookup_key: zeroize::Zeroizing<[u8; 32]>,
}

impl RequestStamper {
    /// Stamps with this key, which must stay the same for the installation's life.
    #[must_use]
    pub fn new(lookup_key: zeroize::Zeroizing<[u8; 32]>) -> Self {
        Self { lookup_key }
    }

    /// The stamp of a request: who, which method, under which idempotency key, and
    /// the bytes of all it asks for.
    #[must_use]
    pub fn stamp(
        &self,
        caller: Caller,
        method: &str,
        idempotency_key: &str,
        content: &[u8],
    ) -> RequestStamp {
        let who = match (caller, caller.owner(), caller.home()) {
            (Caller::BreakGlass { grant_id, .. }, ..) => grant_id.to_bytes(),
            (Caller::Custodian { account_id: Some(id) }, ..) => id.to_bytes(),
            (_, Some(owner), _) => owner.to_bytes(),
            (_, None, Some(home)) => home.to_bytes(),
            (_, None, None) => [0xff; 16],
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.lookup_key);
        hasher.update(&who);
        for part in [method.as_bytes(), idempotency_key.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let id = RequestId(first_half(hasher.finalize().as_bytes()));
        hasher.update(content);
        let content = RequestContent(first_half(hasher.finalize().as_bytes()));
        RequestStamp { id, content }
    }

    /// What stands for the reason of emergency access. White space around it does not count.
    #[must_use]
    pub fn reason(&self, reason: &str) -> ReasonDigest {
        let key = blake3::derive_key("keyledger 2026-11 break-glass reasons", &self.lookup_key[..]);
        ReasonDigest(*blake3::keyed_hash(&key, reason.trim().as_bytes()).as_bytes())
    }

    /// What a page that uses a session in cookies sends beside them: the session's own.
    #[must_use]
    pub fn csrf_token(&self, session: SessionId) -> String {
        let csrf_key = blake3::derive_key("keyledger 2026-11 csrf tokens", &self.lookup_key[..]);
        let token = blake3::keyed_hash(&csrf_key, &session.to_bytes());
        token.to_hex().to_string()
    }

    /// What shows that a page token is of our making, and of which list.
    #[must_use]
    pub fn page_seal(&self, list: &[u8], last: &[u8; 16]) -> [u8; 16] {
        let page_key =
            blake3::derive_key("keyledger 2026-11 page tokens", self.lookup_key.as_slice());
        let mut hasher = blake3::Hasher::new_keyed(&page_key);
        hasher.update(last);
        hasher.update(list);
        first_half(hasher.finalize().as_bytes())
    }
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    half
}

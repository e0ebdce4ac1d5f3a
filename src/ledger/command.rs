//! Intentions: what a caller wants to be so.

use std::collections::BTreeMap;

use projections::api_key::Environment;
use projections::digest::{RequestContent, RequestId, SecretDigest};
use projections::envelope::RequestStamp;
use projections::event::{
    Hint, KeyOrigin, KeyedDigest, PlanRules, RevocationReason, RoleDefinition,
};
use projections::id::{EventId, InstallationId, KeyId, OrganizationId, RoleId};
use projections::permission::{Permission, Scopes};
use projections::principal::Principal;
use projections::recorded::Revision;
use projections::text::{
    CorrelationId, Description, KeyPrefix, Label, MetadataValue, Name, PlanName, ServiceName,
};
use projections::time::Timestamp;

use super::urgency::Urgency;

/// What a caller wants to be so. Identifiers and digests of secrets come with it, so
/// that deciding it twice decides the same.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the installation: the first command of all.
    CreateInstallation(Box<CreateInstallation>),
    /// Make the rules of the installation those of its configuration.
    ConfigureInstallation(Rules),
    /// Make the keys that the configuration holds those it holds now.
    ConfigureKeys(ConfigureKeys),
    /// Admit an organization: take its prefix, in the operator's stream.
    RegisterOrganization(OrganizationDraft),
    /// Begin the stream of an organization that was admitted.
    CreateOrganization(OrganizationDraft),
    /// Bring a key into force.
    CreateKey(Box<CreateKey>),
    /// End a key for good.
    RevokeKey(RevokeKey),
    /// Replace the operator's own minted keys by one new one.
    ReissueOperatorKey(Box<CreateKey>),
}

impl Command {
    /// The permission that its caller needs in the organization it is for.
    #[must_use]
    pub fn permission(&self) -> Permission<'static> {
        match self {
            Self::CreateInstallation(_)
            | Self::ConfigureInstallation(_)
            | Self::ConfigureKeys(_)
            | Self::ReissueOperatorKey(_) => super::permissions::INSTALLATION_WRITE,
            Self::RegisterOrganization(_) | Self::CreateOrganization(_) => {
                super::permissions::ORGANIZATIONS_WRITE
            }
            Self::CreateKey(_) | Self::RevokeKey(_) => super::permissions::API_KEYS_WRITE,
        }
    }

    /// Whether it may use the space that is set aside for a full disk: what ends access,
    /// what a start records (it must not fail, and says little), and the second half of
    /// what was begun.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        match self {
            Self::RevokeKey(_)
            | Self::ReissueOperatorKey(_)
            | Self::ConfigureKeys(_)
            | Self::ConfigureInstallation(_)
            | Self::CreateOrganization(_) => Urgency::Reserved,
            Self::CreateInstallation(_) | Self::RegisterOrganization(_) | Self::CreateKey(_) => {
                Urgency::Normal
            }
        }
    }
}

/// See [`Command::CreateInstallation`].
#[derive(Clone, Debug)]
pub struct CreateInstallation {
    /// What the installation shall be called.
    pub installation_id: InstallationId,
    /// The pepper that keys its digests, by number.
    pub pepper: u32,
    /// What that pepper makes of a fixed text.
    pub pepper_check: SecretDigest,
    /// Its rules.
    pub rules: Rules,
    /// The operator's first key, where the ledger mints one.
    pub admin_key: Option<CreateKey>,
    /// The keys that the configuration holds.
    pub configured: Vec<CreateKey>,
}

/// The rules of the installation.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The roles that every organization has.
    pub roles: Vec<(RoleId, RoleDefinition)>,
    /// The plans.
    pub plans: Vec<(PlanName, PlanRules)>,
}

/// See [`Command::ConfigureKeys`].
#[derive(Clone, Debug)]
pub struct ConfigureKeys {
    /// The keys that the configuration holds now.
    pub keys: Vec<CreateKey>,
}

/// What an organization shall be.
#[derive(Clone, Debug)]
pub struct OrganizationDraft {
    /// Its identifier.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What its keys begin with.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
}

/// When a key shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// When the plan says so, else never.
    PlanDefault,
    /// At this instant.
    At(Timestamp),
    /// This many milliseconds from now.
    After(i64),
}

/// See [`Command::CreateKey`].
#[derive(Clone, Debug)]
pub struct CreateKey {
    /// Its identifier.
    pub key_id: KeyId,
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub description: Option<Description>,
    /// How its secret came to be.
    pub origin: KeyOrigin,
    /// What its text begins with.
    pub prefix: Option<KeyPrefix>,
    /// The environment that its text names.
    pub environment: Option<Environment>,
    /// The end of its text.
    pub hint: Option<Hint>,
    /// What stands for its secret.
    pub digest: KeyedDigest,
    /// What narrows it.
    pub scopes: Option<Scopes>,
    /// Its roles.
    pub roles: Vec<RoleId>,
    /// The services it may be used for.
    pub services: Option<Vec<ServiceName>>,
    /// When it shall end.
    pub expiry: Expiry,
    /// Texts for whoever verifies it.
    pub metadata: BTreeMap<Label, MetadataValue>,
    /// Numbers for whoever verifies it.
    pub limits: BTreeMap<Label, i64>,
}

/// See [`Command::RevokeKey`].
#[derive(Clone, Copy, Debug)]
pub struct RevokeKey {
    /// The key.
    pub key_id: KeyId,
    /// Why.
    pub reason: RevocationReason,
}

/// Who gives a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever holds this key of this organization.
    Key {
        /// The organization that the key belongs to.
        organization_id: OrganizationId,
        /// The key.
        key_id: KeyId,
    },
    /// The ledger itself, or the installation's console.
    Ledger,
}

impl Caller {
    /// Whom an event names as its actor.
    #[must_use]
    pub fn principal(self) -> Principal {
        match self {
            Self::Key { organization_id, .. } => Principal::Organization(organization_id),
            Self::Ledger => Principal::Ledger,
        }
    }

    /// The key that an event names.
    #[must_use]
    pub fn credential(self) -> Option<KeyId> {
        match self {
            Self::Key { key_id, .. } => Some(key_id),
            Self::Ledger => None,
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
        let who = match caller {
            Caller::Key { organization_id, .. } => organization_id.to_bytes(),
            Caller::Ledger => [0xff; 16],
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

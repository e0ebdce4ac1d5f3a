//! Intentions: what a caller wants to be so.

use std::collections::BTreeMap;

use projections::api_key::Environment;
use projections::digest::{SecretDigest, SigningKeyId};
use projections::event::{
    DenialsSummarized, Hint, HistoryRead, KeyOrigin, KeyedDigest, PepperRotated, PermissionRule,
    PlanRules, RevocationReason, RoleDefinition, ServiceAccountCreated, SigningKeyAdded,
    WayOfReading,
};
use projections::id::{AccountId, GrantId, InstallationId, KeyId, OrganizationId, RoleId, UserId};
use projections::network::{Networks, RateLimit};
use projections::permission::{Permission, PermissionPattern, Scopes};
use projections::policy::Policy;
use projections::principal::{Owner, Principal};
use projections::text::{
    Description, Domain, KeyPrefix, Label, MetadataValue, Name, PlanName, RoleName, ServiceName,
};
use projections::time::Timestamp;

use super::urgency::Urgency;

mod break_glass;
mod order;
mod people;

pub use break_glass::{BreakGlassCommand, ByPerson, OpenGrant, UseGrant, WhichGrant};
pub use order::{About, Caller, Order, Personal, RequestStamper};
pub use people::{
    EndSession, EndSessions, INVITATION_MAX_MS, INVITATION_MS, InviteUser, JoinUser,
    RenewInvitation, SESSIONS_MAX, SeatOwner, SessionsOf, StartSession, StepUpSession, USERS_MAX,
    UpdateUser,
};

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
    /// Bring keys into force that were made elsewhere, all or none.
    ImportKeys(ImportKeys),
    /// Call a key otherwise.
    UpdateKeyLabel(UpdateKeyLabel),
    /// Put a new key in the place of another.
    RotateKey(Box<RotateKey>),
    /// End the old key of a rotation before its time.
    EndRotation(KeyId),
    /// Put a key out of force until it is enabled.
    DisableKey(KeyId),
    /// Bring a disabled key into force again.
    EnableKey(KeyId),
    /// End a key for good.
    RevokeKey(RevokeKey),
    /// End keys for good, all or none.
    RevokeKeys(RevokeKeys),
    /// Make a service account.
    CreateServiceAccount(Box<ServiceAccountCreated>),
    /// Make the organization's own rules these.
    UpdatePolicy(Policy),
    /// Key new digests with another pepper.
    RotatePepper(PepperRotated),
    /// Let access tokens be signed with a key.
    AddSigningKey(SigningKeyAdded),
    /// Let what a key signed count no more.
    RetireSigningKey(SigningKeyId),
    /// Replace the operator's own minted keys by one new one.
    ReissueOperatorKey(Box<CreateKey>),
    /// Record what was denied.
    RecordDenials(DenialsSummarized),
    /// Record that somebody reads the history.
    RecordReading(HistoryRead),
    /// Make a role of the organization's own.
    CreateRole(Box<CreateRole>),
    /// Let a role of the organization's own mean something else.
    UpdateRole(Box<UpdateRole>),
    /// Let a role of the organization's own permit nothing any more, for good.
    RetireRole(RoleId),
    /// Give a principal a role.
    GrantRole(Box<GrantRole>),
    /// Take a role that was granted.
    RevokeGrant(GrantId),
    /// Make a user, who may join.
    InviteUser(Box<InviteUser>),
    /// Let an invitation that was not accepted be accepted for longer.
    RenewInvitation(RenewInvitation),
    /// Bind a user to the account of the person who accepted.
    JoinUser(JoinUser),
    /// Make the person whose own an organization is its one user.
    SeatOwner(SeatOwner),
    /// Call a user otherwise, or give them other numbers.
    UpdateUser(Box<UpdateUser>),
    /// Let a user do nothing until they are restored.
    SuspendUser(UserId),
    /// Let a suspended user do again what they may.
    RestoreUser(UserId),
    /// End a user for good, with all that is theirs.
    RemoveUser(UserId),
    /// Begin a session.
    StartSession(Box<StartSession>),
    /// Note that the user of a session showed again who they are.
    StepUpSession(StepUpSession),
    /// End a session before its time.
    EndSession(EndSession),
    /// End a user's sessions before their time.
    EndSessions(EndSessions),
    /// Govern break-glass, or act by it.
    BreakGlass(Box<BreakGlassCommand>),
}

impl Command {
    /// The permission that its caller needs in the organization it is for; none where the
    /// rules ask who the caller is.
    #[must_use]
    pub fn permission(&self) -> Option<Permission<'static>> {
        Some(match self {
            Self::CreateInstallation(_)
            | Self::ConfigureInstallation(_)
            | Self::ConfigureKeys(_)
            | Self::RotatePepper(_)
            | Self::AddSigningKey(_)
            | Self::RetireSigningKey(_)
            | Self::RecordDenials(_)
            | Self::ReissueOperatorKey(_) => super::permissions::INSTALLATION_WRITE,
            Self::RegisterOrganization(_) | Self::CreateOrganization(_) => {
                super::permissions::ORGANIZATIONS_WRITE
            }
            Self::CreateKey(_)
            | Self::ImportKeys(_)
            | Self::UpdateKeyLabel(_)
            | Self::RotateKey(_)
            | Self::EndRotation(_)
            | Self::DisableKey(_)
            | Self::EnableKey(_)
            | Self::RevokeKey(_)
            | Self::RevokeKeys(_) => super::permissions::API_KEYS_WRITE,
            Self::CreateServiceAccount(_) => super::permissions::SERVICE_ACCOUNTS_WRITE,
            Self::UpdatePolicy(_) => super::permissions::POLICY_WRITE,
            Self::CreateRole(_)
            | Self::UpdateRole(_)
            | Self::RetireRole(_)
            | Self::GrantRole(_)
            | Self::RevokeGrant(_) => super::permissions::ROLES_WRITE,
            Self::InviteUser(_)
            | Self::SeatOwner(_)
            | Self::RenewInvitation(_)
            | Self::UpdateUser(_)
            | Self::SuspendUser(_)
            | Self::RestoreUser(_)
            | Self::RemoveUser(_) => super::permissions::USERS_WRITE,
            Self::RecordReading(event) => match event.way {
                WayOfReading::Replayed => super::permissions::BREAK_GLASS_READ,
                WayOfReading::Queried
                | WayOfReading::Followed
                | WayOfReading::Exported
                | WayOfReading::AskedForThePast
                | WayOfReading::AskedToExplain
                | WayOfReading::ReportedOn => super::permissions::ACTIVITY_READ,
            },
            Self::JoinUser(_)
            | Self::StartSession(_)
            | Self::StepUpSession(_)
            | Self::EndSession(_)
            | Self::EndSessions(_)
            | Self::BreakGlass(_) => return None,
        })
    }

    /// Whether it makes no sense without what is written beside it: the opening of a break-glass
    /// grant without its reason.
    #[must_use]
    pub fn rests_on_its_words(&self) -> bool {
        if let Self::BreakGlass(command) = self { command.opens() } else { false }
    }

    /// The secrets that it brings from elsewhere.
    #[must_use]
    pub fn imports(&self) -> Option<&ImportKeys> {
        if let Self::ImportKeys(command) = self { Some(command) } else { None }
    }

    /// Whether it may put a key out of force, or take something of what keys hold.
    #[must_use]
    pub fn may_end_authority(&self) -> bool {
        match self {
            Self::ConfigureKeys(_)
            | Self::ReissueOperatorKey(_)
            | Self::RotateKey(_)
            | Self::EndRotation(_)
            | Self::DisableKey(_)
            | Self::RevokeKey(_)
            | Self::RevokeKeys(_)
            | Self::UpdateRole(_)
            | Self::RetireRole(_)
            | Self::RevokeGrant(_)
            | Self::SuspendUser(_)
            | Self::RemoveUser(_)
            // It may end another one.
            | Self::StartSession(_)
            | Self::EndSession(_)
            | Self::EndSessions(_) => true,
            Self::BreakGlass(command) => command.may_end_authority(),
            Self::CreateInstallation(_)
            | Self::ConfigureInstallation(_)
            | Self::RegisterOrganization(_)
            | Self::CreateOrganization(_)
            | Self::CreateKey(_)
            | Self::ImportKeys(_)
            | Self::UpdateKeyLabel(_)
            | Self::EnableKey(_)
            | Self::CreateServiceAccount(_)
            | Self::UpdatePolicy(_)
            | Self::RotatePepper(_)
            | Self::AddSigningKey(_)
            | Self::RetireSigningKey(_)
            | Self::RecordDenials(_)
            | Self::RecordReading(_)
            | Self::CreateRole(_)
            | Self::GrantRole(_)
            | Self::InviteUser(_)
            | Self::SeatOwner(_)
            | Self::RenewInvitation(_)
            | Self::JoinUser(_)
            | Self::UpdateUser(_)
            | Self::RestoreUser(_)
            | Self::StepUpSession(_) => false,
        }
    }

    /// Whose sessions it may end, but for their time.
    #[must_use]
    pub fn may_end_sessions(&self) -> Option<SessionsOf> {
        match self {
            Self::SuspendUser(id) | Self::RemoveUser(id) => Some(SessionsOf::User(*id)),
            Self::EndSessions(command) => Some(SessionsOf::User(command.user_id)),
            Self::EndSession(command) => Some(SessionsOf::Session(command.session_id)),
            // It may end another one.
            Self::StartSession(command) => Some(SessionsOf::Account(command.account_id)),
            Self::ConfigureKeys(_)
            | Self::ReissueOperatorKey(_)
            | Self::RotateKey(_)
            | Self::EndRotation(_)
            | Self::DisableKey(_)
            | Self::RevokeKey(_)
            | Self::RevokeKeys(_)
            | Self::UpdateRole(_)
            | Self::RetireRole(_)
            | Self::RevokeGrant(_)
            | Self::CreateInstallation(_)
            | Self::ConfigureInstallation(_)
            | Self::RegisterOrganization(_)
            | Self::CreateOrganization(_)
            | Self::CreateKey(_)
            | Self::ImportKeys(_)
            | Self::UpdateKeyLabel(_)
            | Self::EnableKey(_)
            | Self::CreateServiceAccount(_)
            | Self::UpdatePolicy(_)
            | Self::RotatePepper(_)
            | Self::AddSigningKey(_)
            | Self::RetireSigningKey(_)
            | Self::RecordDenials(_)
            | Self::RecordReading(_)
            | Self::CreateRole(_)
            | Self::GrantRole(_)
            | Self::InviteUser(_)
            | Self::RenewInvitation(_)
            | Self::JoinUser(_)
            | Self::UpdateUser(_)
            | Self::RestoreUser(_)
            | Self::StepUpSession(_)
            | Self::SeatOwner(_)
            | Self::BreakGlass(_) => None,
        }
    }

    /// Whether it may use the space that is set aside for a full disk: what ends access,
    /// what a start records (it must not fail, and says little), and the second half of
    /// what was begun.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        match self {
            Self::RevokeKey(_)
            | Self::RevokeKeys(_)
            | Self::DisableKey(_)
            | Self::EndRotation(_)
            | Self::ReissueOperatorKey(_)
            | Self::ConfigureKeys(_)
            | Self::ConfigureInstallation(_)
            | Self::CreateOrganization(_)
            | Self::RetireRole(_)
            | Self::RetireSigningKey(_)
            | Self::RevokeGrant(_)
            | Self::SuspendUser(_)
            | Self::RemoveUser(_)
            | Self::EndSession(_)
            | Self::EndSessions(_)
            // The worst hour is what it is for.
            | Self::BreakGlass(_) => Urgency::Reserved,
            Self::CreateInstallation(_)
            | Self::RegisterOrganization(_)
            | Self::CreateKey(_)
            | Self::ImportKeys(_)
            | Self::UpdateKeyLabel(_)
            | Self::RotateKey(_)
            | Self::EnableKey(_)
            | Self::CreateServiceAccount(_)
            | Self::UpdatePolicy(_)
            | Self::RotatePepper(_)
            | Self::AddSigningKey(_)
            | Self::RecordDenials(_)
            | Self::RecordReading(_)
            | Self::CreateRole(_)
            | Self::UpdateRole(_)
            | Self::GrantRole(_)
            | Self::InviteUser(_)
            | Self::SeatOwner(_)
            | Self::RenewInvitation(_)
            | Self::JoinUser(_)
            | Self::UpdateUser(_)
            | Self::RestoreUser(_)
            | Self::StartSession(_)
            | Self::StepUpSession(_) => Urgency::Normal,
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
    /// The plans. One that is not among them stays as it is: organizations may be on it.
    pub plans: Vec<(PlanName, PlanRules)>,
    /// What permissions ask for beside being held; none for what they ask for now.
    pub permission_rules: Option<Vec<(PermissionPattern, PermissionRule)>>,
}

/// See [`Command::ConfigureKeys`].
#[derive(Clone, Debug)]
pub struct ConfigureKeys {
    /// The keys that the configuration holds now.
    pub keys: Vec<ImportedKey>,
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
    /// The account of the one person whose own it is; none for one that people join.
    pub personal_of: Option<AccountId>,
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
    /// Whose key it shall be; none for the organization's own.
    pub owner: Option<Owner>,
    /// Where it may be used from.
    pub allowed_ips: Option<Networks>,
    /// How often it may be used.
    pub rate_limit: Option<RateLimit>,
}

/// See [`Command::ImportKeys`].
#[derive(Clone, Debug)]
pub struct ImportKeys {
    /// The keys, 1 to [`KEYS_AT_ONCE_MAX`].
    pub keys: Vec<ImportedKey>,
}

/// A key whose secret was made elsewhere.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    /// What it shall be.
    pub key: CreateKey,
    /// What else may stand for its secret: under each retired pepper, and in another form.
    pub others: Vec<SecretDigest>,
}

impl ImportedKey {
    /// All that may stand for its secret.
    pub fn digests(&self) -> impl Iterator<Item = SecretDigest> {
        std::iter::once(self.key.digest.blake3).chain(self.others.iter().copied())
    }
}

/// Most keys that one command brings into force or ends, and most keys of a service
/// account that are not revoked: it is ended whole, in one append.
pub const KEYS_AT_ONCE_MAX: usize = 1_000;

/// Most keys of a user that are not revoked: they are ended in one append with the user, and
/// with all that the user was granted.
pub const USER_KEYS_MAX: usize = 900;

/// See [`Command::UpdateKeyLabel`].
#[derive(Clone, Debug)]
pub struct UpdateKeyLabel {
    /// The key.
    pub key_id: KeyId,
    /// What people shall call it; none for what they call it now.
    pub name: Option<Name>,
    /// What it is for, which may be nothing; none for what is said now.
    pub description: Option<Option<Description>>,
}

/// See [`Command::RotateKey`]: a key like the old one but for its secret and its end.
#[derive(Clone, Debug)]
pub struct RotateKey {
    /// The old key.
    pub key_id: KeyId,
    /// The new key's identifier.
    pub successor: KeyId,
    /// What the new key's text begins with.
    pub prefix: KeyPrefix,
    /// The end of the new key's text.
    pub hint: Option<Hint>,
    /// What stands for the new key's secret.
    pub digest: KeyedDigest,
    /// How long the old key stays valid, in milliseconds; none for as long as is usual.
    pub grace_ms: Option<i64>,
    /// When the new key shall end; none for a lifetime as long as the old one's.
    pub expiry: Option<Expiry>,
}

/// How long the old key of a rotation stays valid where nothing is said: a day.
pub const ROTATION_GRACE_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long it may stay valid at the most: thirty days.
pub const ROTATION_GRACE_MAX_SECONDS: u32 = 30 * 24 * 60 * 60;

/// See [`Command::CreateRole`].
#[derive(Clone, Debug)]
pub struct CreateRole {
    /// Its identifier.
    pub role_id: RoleId,
    /// What people shall call it.
    pub name: RoleName,
    /// What it is for.
    pub description: Description,
    /// What it shall permit: distinct, in order, at least one.
    pub permissions: Vec<PermissionPattern>,
}

/// See [`Command::UpdateRole`]: what is none stays as it is.
#[derive(Clone, Debug)]
pub struct UpdateRole {
    /// The role.
    pub role_id: RoleId,
    /// What people shall call it.
    pub name: Option<RoleName>,
    /// What it is for.
    pub description: Option<Description>,
    /// What it shall permit: distinct, in order, at least one.
    pub permissions: Option<Vec<PermissionPattern>>,
}

/// Most roles of its own that an organization has in force.
pub const OWN_ROLES_MAX: usize = 1_000;
/// Most roles of its own that an organization ever makes: retired ones stay.
pub const ROLES_MADE_MAX: usize = 10_000;
/// Most grants of one principal.
pub const GRANTS_MAX: usize = 100;

/// See [`Command::GrantRole`].
#[derive(Clone, Debug)]
pub struct GrantRole {
    /// Its identifier.
    pub grant_id: GrantId,
    /// Who shall have the role.
    pub principal: Principal,
    /// The role.
    pub role_id: RoleId,
    /// The one domain that it shall be for; none for the whole organization.
    pub domain: Option<Domain>,
    /// When it shall end; none for never.
    pub expiry: Option<Expiry>,
}

/// See [`Command::RevokeKeys`]. Those that are revoked already stay as they are.
#[derive(Clone, Debug)]
pub struct RevokeKeys {
    /// Which keys.
    pub which: WhichKeys,
    /// Why.
    pub reason: RevocationReason,
}

/// Keys of one organization.
#[derive(Clone, Debug)]
pub enum WhichKeys {
    /// These, at most [`KEYS_AT_ONCE_MAX`].
    Listed(Vec<KeyId>),
    /// All keys of this service account or user.
    Of(Owner),
}

/// See [`Command::RevokeKey`].
#[derive(Clone, Copy, Debug)]
pub struct RevokeKey {
    /// The key.
    pub key_id: KeyId,
    /// Why.
    pub reason: RevocationReason,
}

//! The question the ledger answers: may this credential do this, now?
//!
//! A decision is a pure function of the tables, the question and the instant. It
//! allocates nothing and asks nobody, so any past decision can be made again.

use std::net::IpAddr;

use crate::api_key::Environment;
use crate::id::{OrganizationId, RoleId};
use crate::key::{Key, KeyState};
use crate::network::Networks;
use crate::organization::Organization;
use crate::permission::{InvalidPermission, PERMISSIONS_MAX, Permission, PermissionPattern};
use crate::recorded::Revision;
use crate::role::Role;
use crate::time::Timestamp;

/// The answer in one word. In order of precedence: where several denials hold, the
/// first is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// Nothing was presented.
    NoCredential,
    /// Two different credentials of one kind.
    Ambiguous,
    /// No credential of ours looks like this.
    Malformed,
    /// Not issued here, or not the caller's to ask about.
    Unknown,
    /// The request claims another organization than the credential's.
    TenantMismatch,
    /// Revoked, for good.
    Revoked,
    /// Out of force until somebody enables it.
    Disabled,
    /// Its lifetime is over.
    Expired,
    /// The request comes from an address that the key is not for.
    IpNotAllowed,
    /// A test key on live, or a live key on test.
    WrongEnvironment,
    /// The key is limited to other services.
    ServiceNotAllowed,
    /// At least one wanted permission is not held.
    PermissionDenied,
    /// It may do all that was asked, but has been used as often as it may for now. Never
    /// decided here: how often a key was used is no part of history.
    RateLimited,
    /// The credential may do all that was asked.
    Allowed,
}

/// What is asked of a credential.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The organization that the request claims to be for.
    pub tenant: Option<OrganizationId>,
    /// All that the request needs.
    pub permissions: Wanted<'a>,
    /// The service that the request is for.
    pub service: Option<&'a str>,
    /// The environment that answers the request.
    pub environment: Option<Environment>,
    /// The address that the request comes from, as far as that is known.
    pub client_ip: Option<IpAddr>,
    /// The instant of the question.
    pub now: Timestamp,
}

/// Wanted permissions, borrowed from their texts and known to be well formed.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Texts of a request.
    Texts(&'a [String]),
    /// One permission that the ledger itself asks for.
    One(Permission<'a>),
}

impl<'a> Wanted<'a> {
    /// Takes the texts of a request; names the place of the first that is no permission.
    pub fn new(texts: &'a [String]) -> Result<Self, (usize, InvalidPermission)> {
        if texts.len() > PERMISSIONS_MAX {
            return Err((PERMISSIONS_MAX, InvalidPermission::TooMany));
        }
        for (place, text) in texts.iter().enumerate() {
            Permission::parse(text).map_err(|error| (place, error))?;
        }
        Ok(Self::Texts(texts))
    }

    fn all(self, mut held: impl FnMut(Permission<'_>) -> bool) -> bool {
        match self {
            Self::Texts(texts) => {
                texts.iter().all(|text| Permission::parse(text).is_ok_and(&mut held))
            }
            Self::One(permission) => held(permission),
        }
    }
}

/// What a key may do, as its scopes and its roles are now.
///
/// Scopes and roles each narrow the other: a permission is held if the roles permit it
/// (where there are roles) and the scopes name it (where there are scopes). A key with
/// neither holds nothing. A role that no longer exists permits nothing. The roles of a
/// service account's key are the service account's: without any it holds nothing.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    key: &'a Key,
    organization: &'a Organization,
    operator: &'a Organization,
}

impl<'a> Authority<'a> {
    /// The authority of a key, given the tables of its organization and of the operator.
    #[must_use]
    pub fn of(key: &'a Key, organization: &'a Organization, operator: &'a Organization) -> Self {
        Self { key, organization, operator }
    }

    /// The roles that it has by reference, those that no longer exist included; none where
    /// its scopes alone say what it may do.
    #[must_use]
    pub fn role_ids(&self) -> Option<&'a [RoleId]> {
        let Self { key, organization, .. } = *self;
        match key.owner() {
            Some(owner) => {
                Some(organization.service_account(owner).map_or(&[], |account| &account.roles))
            }
            None => Some(key.roles()).filter(|roles| !roles.is_empty()),
        }
    }

    /// Its roles that exist.
    pub fn roles(&self) -> impl Iterator<Item = &'a Role> + use<'a> {
        let Self { organization, operator, .. } = *self;
        self.role_ids()
            .unwrap_or_default()
            .iter()
            .filter_map(|id| organization.role(*id).or_else(|| operator.role(*id)))
            .map(|role| &**role)
    }

    /// Whether it holds this permission.
    #[must_use]
    pub fn holds(&self, wanted: Permission<'_>) -> bool {
        match (&self.key.scopes, self.role_ids()) {
            (None, None) => false,
            (Some(scopes), None) => scopes.imply(wanted),
            (None, Some(_)) => self.roles().any(|role| role.implies(wanted)),
            (Some(scopes), Some(_)) => {
                scopes.imply(wanted) && self.roles().any(|role| role.implies(wanted))
            }
        }
    }

    /// Whether it holds all that a role's permission permits.
    #[must_use]
    pub fn covers(&self, wanted: &PermissionPattern) -> bool {
        if let Some(permission) = wanted.as_permission().filter(|it| *it != Permission::ORG_ADMIN) {
            return self.holds(permission);
        }
        // With wildcards on both sides, only unnarrowed authority can hold everything.
        self.key.scopes.as_ref().is_none_or(super::permission::Scopes::imply_everything)
            && (self.roles().any(|role| role.covers(wanted))
                || (self.role_ids().is_none() && self.key.scopes.is_some()))
    }

    /// What it may do, as texts: exact permissions, or the roles' own where no scopes
    /// narrow them.
    pub fn permissions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let this = *self;
        let narrowed = this
            .key
            .scopes
            .as_ref()
            .filter(|scopes| this.role_ids().is_none() || !scopes.imply_everything());
        let exact = narrowed.into_iter().flat_map(|scopes| scopes.texts());
        // Without roles the scopes are all there is: each of them is held.
        let alone = this.role_ids().is_none();
        let exact = exact
            .filter(move |text| alone || Permission::parse(text).is_ok_and(|it| this.holds(it)));
        let patterns = narrowed.is_none().then(|| this.roles()).into_iter().flatten();
        exact.chain(
            patterns
                .flat_map(|role| role.definition.permissions.iter().map(PermissionPattern::as_str)),
        )
    }
}

/// A decision about a key, and the tables it was made from.
#[derive(Clone, Copy)]
pub struct Decision<'a> {
    /// The answer.
    pub code: Code,
    /// The key.
    pub key: &'a Key,
    /// The organization that it belongs to.
    pub organization_id: OrganizationId,
    /// What it may do.
    pub authority: Authority<'a>,
    /// The revision of the key's organization that the decision speaks for.
    pub revision: Option<Revision>,
    /// The revision of the operator's stream that the decision read.
    pub operator_revision: Option<Revision>,
}

/// Decides. The key is a row of `organization`, or one event ahead of it. The instant is the
/// question's, or that of the last event that the tables have seen, whichever is later: what
/// ended before their eyes has ended, wherever a clock is set to.
#[must_use]
pub fn decide<'a>(
    key: &'a Key,
    organization: &'a Organization,
    operator: &'a Organization,
    question: &Question<'_>,
) -> Decision<'a> {
    let authority = Authority::of(key, organization, operator);
    let now = operator.no_earlier(organization.no_earlier(question.now));
    Decision {
        code: code(key, organization.id, &authority, &Question { now, ..*question }),
        key,
        organization_id: organization.id,
        authority,
        revision: organization.revision().max(Some(key.changed_at)),
        operator_revision: operator.revision(),
    }
}

fn code(
    key: &Key,
    organization_id: OrganizationId,
    authority: &Authority<'_>,
    question: &Question<'_>,
) -> Code {
    if question.tenant.is_some_and(|tenant| tenant != organization_id) {
        return Code::TenantMismatch;
    }
    match key.state(question.now) {
        KeyState::Revoked => return Code::Revoked,
        KeyState::Disabled => return Code::Disabled,
        KeyState::Expired => return Code::Expired,
        KeyState::Active => {}
    }
    // A key for certain addresses is not for requests that come from nobody knows where.
    let from_there = |allowed: &Networks| question.client_ip.is_some_and(|it| allowed.contain(it));
    if !key.allowed_ips().is_none_or(from_there) {
        return Code::IpNotAllowed;
    }
    if question.environment.is_some_and(|environment| environment != key.effective_environment()) {
        return Code::WrongEnvironment;
    }
    // A key limited to services is not for requests that do not say what they are for.
    let serves = match question.service {
        Some(service) => key.serves(service),
        None => key.services().is_none(),
    };
    if !serves {
        return Code::ServiceNotAllowed;
    }
    if !question.permissions.all(|permission| authority.holds(permission)) {
        return Code::PermissionDenied;
    }
    Code::Allowed
}

#[cfg(test)]
mod tests;

//! The question the ledger answers: may this credential do this, now?
//!
//! A decision is a pure function of the tables, the question and the instant. It
//! allocates nothing and asks nobody, so any past decision can be made again.

use std::net::IpAddr;
use std::sync::Arc;

use crate::api_key::Environment;
use crate::id::{OrganizationId, RoleId, ServiceAccountId};
use crate::key::{Key, KeyState};
use crate::network::Networks;
use crate::organization::Organization;
use crate::permission::{
    InvalidPermission, PERMISSIONS_MAX, Permission, PermissionPattern, Scopes,
};
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::role::{Grant, Role};
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
    /// Every wanted permission is held, but not all of them for the domain asked about.
    DomainNotAllowed,
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
    /// The domain that the request is about; what is held for some domains alone counts
    /// for these alone.
    pub domain: Option<&'a str>,
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

/// What a credential or a principal may do, as its scopes, its roles and its grants are now.
///
/// Scopes and roles each narrow the other: a permission is held if the roles permit it
/// (where there are roles) and the scopes name it (where there are scopes). A key with
/// neither holds nothing. A role that no longer exists, or was retired, permits nothing. The
/// roles of a service account's key are the service account's, and those granted to it:
/// without any it holds nothing.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    organization: &'a Organization,
    operator: &'a Organization,
    scopes: Option<&'a Scopes>,
    /// Whether roles say what it may do, even where there are none.
    has_roles: bool,
    /// The roles that it has for good.
    fixed: &'a [RoleId],
    grants: &'a [Arc<Grant>],
    now: Timestamp,
    domain: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// The authority of a key at this instant, given the tables of its organization and of
    /// the operator: what it holds for the whole organization.
    #[must_use]
    pub fn of(
        key: &'a Key,
        organization: &'a Organization,
        operator: &'a Organization,
        now: Timestamp,
    ) -> Self {
        let its_own = Self {
            organization,
            operator,
            scopes: None,
            has_roles: !key.roles().is_empty(),
            fixed: key.roles(),
            grants: &[],
            now,
            domain: None,
        };
        let authority = match key.owner() {
            Some(owner) => Self::of_service_account(owner, organization, operator, now),
            None => its_own,
        };
        Self { scopes: key.scopes.as_ref(), ..authority }
    }

    /// The authority of a service account itself.
    #[must_use]
    pub fn of_service_account(
        id: ServiceAccountId,
        organization: &'a Organization,
        operator: &'a Organization,
        now: Timestamp,
    ) -> Self {
        Self {
            organization,
            operator,
            scopes: None,
            has_roles: true,
            fixed: organization.service_account(id).map_or(&[], |account| &account.roles),
            grants: organization.grants_of(Principal::ServiceAccount(id)),
            now,
            domain: None,
        }
    }

    /// The same authority, over this domain: what is held there or everywhere.
    #[must_use]
    pub fn over(self, domain: Option<&'a str>) -> Self {
        Self { domain, ..self }
    }

    /// As much of the same authority as lasts until this instant; none: as lasts for good.
    #[must_use]
    pub fn until(self, end: Option<Timestamp>) -> Self {
        let last = end.map_or(Timestamp::MAX, |end| end.saturating_add_millis(-1));
        Self { now: self.now.max(last), ..self }
    }

    /// Whether roles say what it may do: then it holds nothing that no role permits.
    #[must_use]
    pub fn has_roles(&self) -> bool {
        self.has_roles
    }

    /// The scopes that narrow it.
    #[must_use]
    pub fn scopes(&self) -> Option<&'a Scopes> {
        self.scopes
    }

    /// The grants that stand, those for other domains included, each with its role where
    /// that permits anything.
    pub fn grants(&self) -> impl Iterator<Item = (&'a Grant, &'a Role)> + use<'a> {
        let this = *self;
        let standing = this.grants.iter().filter(move |grant| grant.stands(this.now));
        standing.filter_map(move |grant| Some((&**grant, this.role(grant.terms.role_id)?)))
    }

    /// The roles that it has for good and that permit anything.
    pub fn fixed_roles(&self) -> impl Iterator<Item = &'a Role> + use<'a> {
        let this = *self;
        this.fixed.iter().filter_map(move |id| this.role(*id))
    }

    /// The roles that it has here by reference, each once, those that no longer exist
    /// included.
    pub fn role_ids(&self) -> impl Iterator<Item = RoleId> + use<'a> {
        let Self { fixed, grants, now, domain, .. } = *self;
        let counts = move |grant: &Grant| grant.stands(now) && grant.is_for(domain);
        let granted = grants.iter().enumerate().filter_map(move |(place, grant)| {
            let id = grant.terms.role_id;
            let same = |it: &&Arc<Grant>| counts(it) && it.terms.role_id == id;
            let first = !fixed.contains(&id) && !grants.iter().take(place).any(|it| same(&it));
            (counts(grant) && first).then_some(id)
        });
        fixed.iter().copied().chain(granted)
    }

    /// Its roles that permit anything, each once.
    pub fn roles(&self) -> impl Iterator<Item = &'a Role> + use<'a> {
        let this = *self;
        this.role_ids().filter_map(move |id| this.role(id))
    }

    fn role(&self, id: RoleId) -> Option<&'a Role> {
        let role = self.organization.role(id).or_else(|| self.operator.built_in_role(id));
        role.map(|role| &**role).filter(|role| role.is_in_force())
    }

    /// Its roles that permit anything; one that it has twice may be among them twice.
    fn counting_roles(&self) -> impl Iterator<Item = &'a Role> + use<'a> {
        let this = *self;
        let here = this
            .grants
            .iter()
            .filter(move |grant| grant.stands(this.now) && grant.is_for(this.domain));
        let granted = here.filter_map(move |grant| this.role(grant.terms.role_id));
        this.fixed_roles().chain(granted)
    }

    /// Whether it holds this permission.
    #[must_use]
    pub fn holds(&self, wanted: Permission<'_>) -> bool {
        match (self.scopes, self.has_roles) {
            (None, false) => false,
            (Some(scopes), false) => scopes.imply(wanted),
            (None, true) => self.counting_roles().any(|role| role.implies(wanted)),
            (Some(scopes), true) => {
                scopes.imply(wanted) && self.counting_roles().any(|role| role.implies(wanted))
            }
        }
    }

    /// Whether it holds this permission for at least one domain by itself.
    #[must_use]
    pub fn holds_for_a_domain(&self, wanted: Permission<'_>) -> bool {
        self.scopes.is_none_or(|scopes| scopes.imply(wanted))
            && self.grants().any(|(grant, role)| grant.domain().is_some() && role.implies(wanted))
    }

    /// Whether it holds all that a role's permission permits.
    #[must_use]
    pub fn covers(&self, wanted: &PermissionPattern) -> bool {
        if let Some(permission) = wanted.as_permission().filter(|it| *it != Permission::ORG_ADMIN) {
            return self.holds(permission);
        }
        // With wildcards on both sides, only unnarrowed authority can hold everything.
        self.scopes.is_none_or(Scopes::imply_everything)
            && (self.counting_roles().any(|role| role.covers(wanted))
                || (!self.has_roles && self.scopes.is_some()))
    }

    /// What it may do, as texts: exact permissions, or the roles' own where no scopes
    /// narrow them.
    pub fn permissions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let this = *self;
        let narrowed = this.narrowing_scopes();
        let exact = narrowed.into_iter().flat_map(|scopes| scopes.texts());
        // Without roles the scopes are all there is: each of them is held.
        let alone = !this.has_roles;
        let exact = exact
            .filter(move |text| alone || Permission::parse(text).is_ok_and(|it| this.holds(it)));
        let patterns = narrowed.is_none().then(|| this.roles()).into_iter().flatten();
        exact.chain(
            patterns.flat_map(|role| role.permissions().iter().map(PermissionPattern::as_str)),
        )
    }

    /// The scopes, where they say what it may do: by themselves, or by narrowing its roles.
    #[must_use]
    pub fn narrowing_scopes(&self) -> Option<&'a Scopes> {
        self.scopes.filter(|scopes| !self.has_roles || !scopes.imply_everything())
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
    question: &Question<'a>,
) -> Decision<'a> {
    let now = operator.no_earlier(organization.no_earlier(question.now));
    let authority = Authority::of(key, organization, operator, now).over(question.domain);
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
    let mut elsewhere = false;
    let held = question.permissions.all(|permission| {
        authority.holds(permission) || {
            let held = authority.holds_for_a_domain(permission);
            elsewhere |= held;
            held
        }
    });
    if !held {
        return Code::PermissionDenied;
    }
    if elsewhere {
        return Code::DomainNotAllowed;
    }
    Code::Allowed
}

#[cfg(test)]
mod tests;

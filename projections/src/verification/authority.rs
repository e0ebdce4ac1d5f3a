//! What a credential or a principal may do.

use std::sync::Arc;

use super::{Recognised, first_places};
use crate::id::RoleId;
use crate::key::Key;
use crate::organization::Organization;
use crate::permission::{PERMISSIONS_MAX, Permission, PermissionPattern, Scopes};
use crate::principal::Owner;
use crate::role::{Grant, Role};
use crate::time::Timestamp;

/// What a credential or a principal may do, as its scopes, its roles and its grants are now.
///
/// Scopes and roles each narrow the other: a permission is held if the roles permit it
/// (where there are roles) and the scopes name it (where there are scopes). A key with
/// neither holds nothing. A role that no longer exists, or was retired, permits nothing. The
/// roles of a service account's key are the service account's, and those granted to it, and
/// those of a user's key or session are the ones that the user was granted: without any it
/// holds nothing.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    pub(super) organization: &'a Organization,
    pub(super) operator: &'a Organization,
    pub(super) scopes: Option<&'a Scopes>,
    /// Whether roles say what it may do, even where there are none.
    pub(super) has_roles: bool,
    /// The roles that it has for good.
    pub(super) fixed: &'a [RoleId],
    pub(super) grants: &'a [Arc<Grant>],
    pub(super) now: Timestamp,
    pub(super) domain: Option<&'a str>,
    /// When all of it ends; none where nothing says so.
    pub(super) ends_at: Option<Timestamp>,
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
            ends_at: None,
        };
        let authority = match key.owner() {
            Some(owner) => Self::of_owner(owner, organization, operator, now),
            None => its_own,
        };
        Self { scopes: key.scopes.as_ref(), ..authority }
    }

    /// The authority of a key or a session: see [`Authority::of`].
    #[must_use]
    pub fn of_recognised(
        credential: Recognised<'a>,
        organization: &'a Organization,
        operator: &'a Organization,
        now: Timestamp,
    ) -> Self {
        match credential {
            Recognised::Key(key) => Self::of(key, organization, operator, now),
            Recognised::Session(session) => {
                Self::of_owner(Owner::User(session.user_id), organization, operator, now)
            }
            // What it says, and nothing by roles.
            Recognised::BreakGlass(grant) => Self {
                organization,
                operator,
                scopes: Some(&grant.permissions),
                has_roles: false,
                fixed: &[],
                grants: &[],
                ends_at: Some(grant.expires_at),
                now,
                domain: None,
            },
        }
    }

    /// The authority that these grants alone give.
    #[must_use]
    pub fn of_grants(
        grants: &'a [Arc<Grant>],
        organization: &'a Organization,
        operator: &'a Organization,
        now: Timestamp,
    ) -> Self {
        Self {
            organization,
            operator,
            scopes: None,
            has_roles: true,
            fixed: &[],
            grants,
            now,
            domain: None,
            ends_at: None,
        }
    }

    /// The authority of a service account or a user themselves. A user who is suspended or
    /// removed has none.
    #[must_use]
    pub fn of_owner(
        owner: Owner,
        organization: &'a Organization,
        operator: &'a Organization,
        now: Timestamp,
    ) -> Self {
        let (fixed, in_force): (&[RoleId], bool) = match owner {
            Owner::ServiceAccount(id) => {
                (organization.service_account(id).map_or(&[], |account| &account.roles), true)
            }
            Owner::User(id) => (&[], organization.user(id).is_some_and(|it| it.is_in_force())),
        };
        let grants = if in_force { organization.grants_of(owner.principal()) } else { &[] };
        Self { fixed, ..Self::of_grants(grants, organization, operator, now) }
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

    /// Whether whoever has it may give anything that lasts until this instant; none: for good.
    #[must_use]
    pub fn lasts_until(&self, end: Option<Timestamp>) -> bool {
        self.ends_at.is_none_or(|ends_at| end.is_some_and(|end| end <= ends_at))
    }

    /// Whether a grant of a role stands, and whoever gave it could still give it: what was given
    /// under a break-glass grant ends with that.
    fn stands(&self, grant: &Grant) -> bool {
        grant.stands(self.now) && self.organization.outlives(grant.granted_by, self.now)
    }

    /// Whether all of it has ended.
    fn is_over(&self) -> bool {
        self.ends_at.is_some_and(|end| self.now >= end)
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
        let standing = this.grants.iter().filter(move |grant| this.stands(grant));
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
        let this = *self;
        let Self { fixed, grants, domain, .. } = this;
        let counts = move |grant: &Grant| this.stands(grant) && grant.is_for(domain);
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
        role_in_force(id, self.organization, self.operator)
    }

    /// Its roles that permit anything; one that it has twice may be among them twice.
    pub(super) fn counting_roles(&self) -> impl Iterator<Item = &'a Role> + use<'a> {
        let this = *self;
        let here =
            this.grants.iter().filter(move |grant| this.stands(grant) && grant.is_for(this.domain));
        let granted = here.filter_map(move |grant| this.role(grant.terms.role_id));
        this.fixed_roles().chain(granted)
    }

    /// Whether it holds this permission.
    #[must_use]
    pub fn holds(&self, wanted: Permission<'_>) -> bool {
        if self.is_over() {
            return false;
        }
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
        if self.is_over() {
            return false;
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
        let held = narrowed.map_or(0, |scopes| this.held_of(scopes));
        let exact = narrowed.into_iter().flat_map(|scopes| scopes.texts()).zip(0..);
        let exact = exact.filter(move |(_, place)| held >> place & 1 == 1).map(|(text, _)| text);
        let patterns = narrowed.is_none().then(|| this.roles()).into_iter().flatten();
        exact.chain(
            patterns.flat_map(|role| role.permissions().iter().map(PermissionPattern::as_str)),
        )
    }

    /// The places of those of its own scopes that it holds. Without roles they are all there
    /// is: each of them is held.
    fn held_of(&self, scopes: &Scopes) -> u128 {
        let mut missing = first_places(scopes.iter().take(PERMISSIONS_MAX).count());
        let all = missing;
        if !self.has_roles {
            return all;
        }
        for role in self.counting_roles() {
            let places = scopes.iter().zip(0..).filter(|(_, place)| missing >> place & 1 == 1);
            let held = places.filter(|(scope, _)| role.implies(*scope));
            missing &= !held.fold(0, |held, (_, place)| held | 1 << place);
            if missing == 0 {
                break;
            }
        }
        all & !missing
    }

    /// The scopes, where they say what it may do: by themselves, or by narrowing its roles.
    #[must_use]
    pub fn narrowing_scopes(&self) -> Option<&'a Scopes> {
        self.scopes.filter(|scopes| !self.has_roles || !scopes.imply_everything())
    }
}

/// The role of this identifier that permits something to an organization: one of its own, or
/// one that every organization has.
#[must_use]
pub fn role_in_force<'a>(
    id: RoleId,
    organization: &'a Organization,
    operator: &'a Organization,
) -> Option<&'a Role> {
    let role = organization.role(id).or_else(|| operator.built_in_role(id));
    role.map(|role| &**role).filter(|role| role.is_in_force())
}

//! The question the ledger answers: may this credential do this, now?
//!
//! A decision is a pure function of the tables, the question and the instant. It
//! allocates nothing and asks nobody, so any past decision can be made again.

use std::net::IpAddr;

use crate::api_key::Environment;
use crate::break_glass::{BreakGlassGrant, GrantState};
use crate::event::{BreakGlassEndReason, KeyOrigin, MfaRule};
use crate::id::{OrganizationId, UserId};
use crate::key::{Key, KeyState};
use crate::network::Networks;
use crate::organization::Organization;
use crate::permission::{InvalidPermission, PERMISSIONS_MAX, Permission};
use crate::principal::{Credential, Owner};
use crate::recorded::Revision;
use crate::session::{Session, Standing};
use crate::text::{FeatureName, Label};
use crate::time::Timestamp;
use crate::user::UserState;

mod authority;

pub use authority::{Authority, role_in_force};

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
    /// Whoever it belongs to is suspended.
    Suspended,
    /// The request comes from an address that the key is not for.
    IpNotAllowed,
    /// Break-glass is off.
    BreakGlassDisabled,
    /// Emergency access needs a reason, and none was given that could be one. Never decided
    /// here: a grant is found by it.
    BreakGlassReasonRequired,
    /// Emergency access is to one organization, and none that there is was named. Never
    /// decided here, as above.
    BreakGlassOrganizationRequired,
    /// The grant awaits approval.
    BreakGlassApprovalPending,
    /// The last grant for the same reason ended and was not reviewed. Never decided here.
    BreakGlassReviewPending,
    /// As many grants were opened as may be, for now. Never decided here.
    BreakGlassLimited,
    /// A test key on live, or a live key on test.
    WrongEnvironment,
    /// The key is limited to other services.
    ServiceNotAllowed,
    /// At least one wanted permission is not held.
    PermissionDenied,
    /// Every wanted permission is held, but not all of them for the domain asked about.
    DomainNotAllowed,
    /// Something that was wanted is not licensed to its organization.
    FeatureNotLicensed,
    /// Something that was wanted asks for a second factor.
    MfaRequired,
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

    /// The places of all of them; none where they are more than one question may want.
    fn places(self) -> Option<u128> {
        let wanted = match self {
            Self::Texts(texts) => texts.len(),
            Self::One(_) => 1,
        };
        (wanted <= PERMISSIONS_MAX).then(|| first_places(wanted))
    }

    /// Of these places, those of the permissions that are so.
    fn among(self, places: u128, mut is_so: impl FnMut(Permission<'_>) -> bool) -> u128 {
        match self {
            Self::Texts(texts) => {
                let among = texts.iter().zip(0..).filter(|(_, place)| places >> place & 1 == 1);
                let so = among.filter(|(text, _)| Permission::split(text).is_some_and(&mut is_so));
                so.fold(0, |so, (_, place)| so | 1 << place)
            }
            Self::One(permission) => places & u128::from(is_so(permission)),
        }
    }

    /// Each of them.
    pub fn each(self) -> impl Iterator<Item = Permission<'a>> + use<'a> {
        let (texts, one) = match self {
            Self::Texts(texts) => (texts, None),
            Self::One(permission) => (&[][..], Some(permission)),
        };
        texts.iter().filter_map(|text| Permission::split(text)).chain(one)
    }
}

/// A bit for each place.
const _: () = assert!(PERMISSIONS_MAX < 128);

/// The first places, so many.
fn first_places(count: usize) -> u128 {
    (1 << count) - 1
}

/// A credential that was recognised.
#[derive(Clone, Copy)]
pub enum Recognised<'a> {
    /// A key.
    Key(&'a Key),
    /// A session.
    Session(&'a Session),
    /// A break-glass grant.
    BreakGlass(&'a BreakGlassGrant),
}

impl<'a> Recognised<'a> {
    /// Its identifier.
    #[must_use]
    pub fn id(self) -> Credential {
        match self {
            Self::Key(key) => Credential::Key(key.id),
            Self::Session(session) => Credential::Session(session.id),
            Self::BreakGlass(grant) => Credential::BreakGlass(grant.id),
        }
    }

    /// The key, where it is one.
    #[must_use]
    pub fn key(self) -> Option<&'a Key> {
        match self {
            Self::Key(key) => Some(key),
            Self::Session(_) | Self::BreakGlass(_) => None,
        }
    }

    /// Whose it is; none for the organization's own, and for a break-glass grant.
    #[must_use]
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::Key(key) => key.owner(),
            Self::Session(session) => Some(Owner::User(session.user_id)),
            Self::BreakGlass(_) => None,
        }
    }

    /// The first instant at which it is no longer accepted; none for never.
    #[must_use]
    pub fn expires_at(self) -> Option<Timestamp> {
        match self {
            Self::Key(key) => key.expires_at(),
            Self::Session(session) => Some(session.expires_at),
            Self::BreakGlass(grant) => Some(grant.expires_at),
        }
    }
}

impl<'a> Decision<'a> {
    /// Numbers for whoever verifies the credential: its own, and those of the user it belongs
    /// to. Where both have one of a name, the key's counts.
    pub fn limits(&self) -> impl Iterator<Item = (&'a Label, i64)> + use<'a> {
        let own = self.credential.key().and_then(|key| key.extras.as_deref());
        let own = own.map(|extras| &extras.limits);
        let users = match self.credential.owner() {
            Some(Owner::User(id)) => self.authority.organization.user(id),
            Some(Owner::ServiceAccount(_)) | None => None,
        };
        let users = users.into_iter().flat_map(|user| &user.limits);
        let others = users.filter(move |(label, _)| own.is_none_or(|it| !it.contains_key(*label)));
        own.into_iter().flatten().chain(others).map(|(label, limit)| (label, *limit))
    }
}

/// A decision about a credential, and the tables it was made from.
#[derive(Clone, Copy)]
pub struct Decision<'a> {
    /// The answer.
    pub code: Code,
    /// The credential.
    pub credential: Recognised<'a>,
    /// The organization that it belongs to.
    pub organization_id: OrganizationId,
    /// The organization that the decision is for: its own, unless it is an operator's that
    /// acts for another one.
    pub tenant_id: OrganizationId,
    /// What it may do.
    pub authority: Authority<'a>,
    /// The revision of the key's organization that the decision speaks for.
    pub revision: Option<Revision>,
    /// The revision of the operator's stream that the decision read.
    pub operator_revision: Option<Revision>,
}

/// Decides about a key. The key is a row of `organization`, or one event ahead of it. The
/// instant is the question's, or that of the last event that the tables have seen, whichever
/// is later: what ended before their eyes has ended, wherever a clock is set to.
#[must_use]
pub fn decide<'a>(
    key: &'a Key,
    organization: &'a Organization,
    operator: &'a Organization,
    question: &Question<'a>,
) -> Decision<'a> {
    let now = operator.no_earlier(organization.no_earlier(question.now));
    let question = Question { now, ..*question };
    let authority = Authority::of(key, organization, operator, now).over(question.domain);
    let code = tenant_mismatch(&authority, &question)
        .or_else(|| key_out_of_force(key, organization, now))
        .or_else(|| out_of_reach(key, &question))
        .unwrap_or_else(|| may_do(Recognised::Key(key), &authority, &question));
    Decision {
        code,
        credential: Recognised::Key(key),
        organization_id: organization.id,
        tenant_id: tenant_of(code, organization.id, &question),
        authority,
        revision: organization.revision().max(Some(key.changed_at)),
        operator_revision: operator.revision(),
    }
}

/// Decides about a session, given what its account says of it (none where the account is not
/// known) and the first instant at which the token that was shown of it is no longer good. A
/// session is for every service, and live.
#[must_use]
pub fn decide_session<'a>(
    session: &'a Session,
    standing: Option<Standing>,
    expires_at: Timestamp,
    organization: &'a Organization,
    operator: &'a Organization,
    question: &Question<'a>,
) -> Decision<'a> {
    let now = operator.no_earlier(organization.no_earlier(question.now));
    let question = Question { now, ..*question };
    let owner = Owner::User(session.user_id);
    let authority = Authority::of_owner(owner, organization, operator, now).over(question.domain);
    let elsewhere = question.environment.is_some_and(|it| it != Environment::Live);
    let over = session_over(session, standing, organization, now);
    let token_over = (now >= expires_at).then_some(Code::Expired);
    let code = tenant_mismatch(&authority, &question)
        .or_else(|| over.into_iter().chain(token_over).min())
        .or(elsewhere.then_some(Code::WrongEnvironment))
        .unwrap_or_else(|| may_do(Recognised::Session(session), &authority, &question));
    Decision {
        code,
        credential: Recognised::Session(session),
        organization_id: organization.id,
        tenant_id: tenant_of(code, organization.id, &question),
        authority,
        revision: organization.revision(),
        operator_revision: operator.revision(),
    }
}

/// Decides about a break-glass grant, as [`decide`] does about a key. A grant is for every
/// service, and live.
#[must_use]
pub fn decide_break_glass<'a>(
    grant: &'a BreakGlassGrant,
    organization: &'a Organization,
    operator: &'a Organization,
    question: &Question<'a>,
) -> Decision<'a> {
    let now = operator.no_earlier(organization.no_earlier(question.now));
    let question = Question { now, ..*question };
    let credential = Recognised::BreakGlass(grant);
    let authority = Authority::of_recognised(credential, organization, operator, now);
    let elsewhere = question.environment.is_some_and(|it| it != Environment::Live);
    let code = tenant_mismatch(&authority, &question)
        .or_else(|| grant_out_of_force(grant, operator, now))
        .or(elsewhere.then_some(Code::WrongEnvironment))
        .unwrap_or_else(|| may_do(credential, &authority, &question));
    Decision {
        code,
        credential,
        organization_id: organization.id,
        tenant_id: tenant_of(code, organization.id, &question),
        authority,
        revision: organization.revision(),
        operator_revision: operator.revision(),
    }
}

/// Why a break-glass grant is not in force.
fn grant_out_of_force(
    grant: &BreakGlassGrant,
    operator: &Organization,
    now: Timestamp,
) -> Option<Code> {
    use BreakGlassEndReason::{Closed, Expired, NotApproved, Superseded, Withdrawn};
    if let Some(end) = grant.ended {
        return Some(match end.reason {
            Closed | Superseded | Withdrawn => Code::Revoked,
            Expired | NotApproved => Code::Expired,
        });
    }
    let rules = operator.installation().and_then(|it| it.break_glass.as_ref());
    let own = match grant.state(now) {
        GrantState::Open => None,
        GrantState::AwaitingApproval => Some(Code::BreakGlassApprovalPending),
        GrantState::Ended | GrantState::Reviewed => Some(Code::Expired),
    };
    let by_rules = match rules {
        None => Some(Code::BreakGlassDisabled),
        Some(rules) => (!grant.is_allowed_by(rules)).then_some(Code::Revoked),
    };
    own.into_iter().chain(by_rules).min()
}

/// What an operator holds, both, who may act for a tenant by naming it.
pub const FOR_TENANTS: [Permission<'static>; 2] =
    [Permission::constant("admin", "users"), Permission::constant("admin", "settings")];

/// Whether the organization that a request claims to be for is another one than the
/// credential's, and the credential is no operator's that may act there.
fn tenant_mismatch(authority: &Authority<'_>, question: &Question<'_>) -> Option<Code> {
    let own = authority.organization.id;
    let tenant = question.tenant.filter(|tenant| *tenant != own)?;
    let is_there = || {
        let installation = authority.operator.installation();
        installation.is_some_and(|it| it.organizations.contains_key(&tenant))
    };
    let may = own.is_operator() && FOR_TENANTS.into_iter().all(|it| authority.holds(it));
    (!may || !is_there()).then_some(Code::TenantMismatch)
}

/// The organization that a decision is for.
fn tenant_of(code: Code, own: OrganizationId, question: &Question<'_>) -> OrganizationId {
    question.tenant.filter(|_| code != Code::TenantMismatch).unwrap_or(own)
}

/// What keeps a user from anything.
fn user_out_of_force(user: UserId, organization: &Organization) -> Option<Code> {
    match organization.user(user).map(|user| user.state()) {
        Some(UserState::Invited | UserState::Active) => None,
        Some(UserState::Suspended) => Some(Code::Suspended),
        Some(UserState::Removed) | None => Some(Code::Revoked),
    }
}

/// Why a credential of this organization is not in force: the first of the codes that hold.
/// A session needs to know what its account says of it, and a break-glass grant what the
/// operator's rules say.
#[must_use]
pub fn out_of_force(
    credential: Recognised<'_>,
    standing: Option<Standing>,
    organization: &Organization,
    operator: &Organization,
    now: Timestamp,
) -> Option<Code> {
    match credential {
        Recognised::Key(key) => key_out_of_force(key, organization, now),
        Recognised::Session(session) => session_over(session, standing, organization, now),
        Recognised::BreakGlass(grant) => grant_out_of_force(grant, operator, now),
    }
}

fn key_out_of_force(key: &Key, organization: &Organization, now: Timestamp) -> Option<Code> {
    let own = match key.state(now) {
        KeyState::Revoked => Some(Code::Revoked),
        KeyState::Disabled => Some(Code::Disabled),
        KeyState::Expired => Some(Code::Expired),
        KeyState::Active => None,
    };
    let over = (!organization.outlives(key.maker.by, now)).then_some(Code::Revoked);
    let own = own.into_iter().chain(over).min();
    let Some(Owner::User(user)) = key.owner() else { return own };
    own.into_iter().chain(user_out_of_force(user, organization)).min()
}

fn session_over(
    session: &Session,
    standing: Option<Standing>,
    organization: &Organization,
    now: Timestamp,
) -> Option<Code> {
    let spared = standing.is_some_and(|standing| standing.spares(session));
    if session.ended.is_some() || !spared {
        return Some(Code::Revoked);
    }
    let expired = session.is_expired(now).then_some(Code::Expired);
    expired.into_iter().chain(user_out_of_force(session.user_id, organization)).min()
}

/// Whether a key is for requests such as this one.
fn out_of_reach(key: &Key, question: &Question<'_>) -> Option<Code> {
    // A key for certain addresses is not for requests that come from nobody knows where.
    let from_there = |allowed: &Networks| question.client_ip.is_some_and(|it| allowed.contain(it));
    if !key.allowed_ips().is_none_or(from_there) {
        return Some(Code::IpNotAllowed);
    }
    if question.environment.is_some_and(|environment| environment != key.effective_environment()) {
        return Some(Code::WrongEnvironment);
    }
    // A key limited to services is not for requests that do not say what they are for.
    let serves = match question.service {
        Some(service) => key.serves(service),
        None => key.services().is_none(),
    };
    if serves { None } else { Some(Code::ServiceNotAllowed) }
}

/// Whether all that is wanted is held. Each role is looked up once, whatever is wanted.
fn permitted(authority: &Authority<'_>, question: &Question<'_>) -> Code {
    let wanted = question.permissions;
    let Some(mut missing) = wanted.places() else { return Code::PermissionDenied };
    let narrowed = match authority.scopes {
        Some(scopes) => wanted.among(missing, |permission| scopes.imply(permission)) != missing,
        None => !authority.has_roles && missing != 0,
    };
    if narrowed {
        return Code::PermissionDenied;
    }
    if missing == 0 || !authority.has_roles {
        return Code::Allowed;
    }
    for role in authority.counting_roles() {
        missing &= !wanted.among(missing, |permission| role.implies(permission));
        if missing == 0 {
            return Code::Allowed;
        }
    }
    for (_, role) in authority.grants().filter(|(grant, _)| grant.domain().is_some()) {
        missing &= !wanted.among(missing, |permission| role.implies(permission));
        if missing == 0 {
            return Code::DomainNotAllowed;
        }
    }
    Code::PermissionDenied
}

/// What keeps a credential from permissions that it holds, as the rules of the installation
/// are now: a feature that is not licensed to its organization, or a second factor that was
/// not shown. The operator's organization, which gives the licences, needs none.
#[must_use]
pub fn gated(
    credential: Recognised<'_>,
    organization: &Organization,
    operator: &Organization,
    wanted: Wanted<'_>,
    now: Timestamp,
) -> Option<Code> {
    let installation = operator.installation()?;
    let rules = &installation.permission_rules;
    if rules.is_empty() {
        return None;
    }
    let plan = organization.profile().map(|profile| &profile.plan);
    let is_licensed = |feature: &FeatureName| {
        organization.id.is_operator()
            || plan.is_some_and(|plan| installation.licenses(plan, feature))
    };
    let mut mfa_required = false;
    for permission in wanted.each() {
        for rule in rules.of(permission) {
            if !rule.feature.as_ref().is_none_or(is_licensed) {
                return Some(Code::FeatureNotLicensed);
            }
            mfa_required |= rule.mfa.is_some_and(|mfa| !satisfies(credential, mfa, now));
        }
    }
    mfa_required.then_some(Code::MfaRequired)
}

/// Whether a second factor was shown, or the rule takes the credential for one. It never
/// takes the global key, which many share.
fn satisfies(credential: Recognised<'_>, mfa: MfaRule, now: Timestamp) -> bool {
    match credential {
        Recognised::Key(key) => mfa.api_keys_satisfy && key.origin() != KeyOrigin::Global,
        Recognised::Session(session) => session.second_factor_at.is_some_and(|shown| {
            mfa.max_age_seconds
                .is_none_or(|seconds| now < shown.saturating_add_millis(i64::from(seconds) * 1_000))
        }),
        // There is no second factor in an emergency: the list of what a grant may permit says
        // what is done without one.
        Recognised::BreakGlass(_) => true,
    }
}

/// Whether all that is wanted may be done.
fn may_do(credential: Recognised<'_>, authority: &Authority<'_>, question: &Question<'_>) -> Code {
    let Authority { organization, operator, .. } = *authority;
    let gated = |wanted| gated(credential, organization, operator, wanted, question.now);
    // Whoever acts for another organization wants that, too.
    let abroad = question.tenant.is_some_and(|tenant| tenant != organization.id);
    let also = FOR_TENANTS.into_iter().filter(|_| abroad).filter_map(|it| gated(Wanted::One(it)));
    let code = permitted(authority, question);
    if code != Code::Allowed {
        return code;
    }
    gated(question.permissions).into_iter().chain(also).min().unwrap_or(Code::Allowed)
}

#[cfg(test)]
mod tests;

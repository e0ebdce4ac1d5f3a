//! Who calls, and whether they may: every method goes through here first.

mod emergency;

use std::net::IpAddr;

use http::Extensions;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use ipnet::IpNet;
use projections::event::DenialCode;
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::permission::Permission;
use projections::presented::{GRANT_TOKEN_HEAD, Presented};
use projections::principal::Owner;
use projections::text::CorrelationId;
use projections::time::Timestamp;
use projections::verification::{Code, Question, Recognised, Wanted};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Status};

pub(super) use emergency::reason;
pub use emergency::{master_key, shows_emergency, shows_master_key};

use super::client_ip::client_ip;
use super::session::{csrf_token_matches, session_cookie};
use super::status;
use crate::ledger::Ledger;
use crate::ledger::break_glass::ShownCustodian;
use crate::ledger::command::{Caller, Personal};
use crate::ledger::verify::{Answer, Asking, Held, Purpose, Reach};
use crate::spans;

/// What keyledger itself is called in a key's service access.
pub const SERVICE: &str = "keyledger";
/// Most values of one header.
pub const HEADER_VALUES_MAX: usize = 8;
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_ADMIN_API_KEY: HeaderName = HeaderName::from_static("x-admin-api-key");
static X_MASTER_KEY: HeaderName = HeaderName::from_static("x-master-key");
/// Names the organization that a call is for; an answer repeats it.
pub static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// Why a master key is shown.
static X_BREAK_GLASS_REASON: HeaderName = HeaderName::from_static("x-break-glass-reason");
pub(super) static X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Most characters of a user agent that are kept.
const USER_AGENT_CHARS_MAX: usize = 256;

/// A caller who was let in.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated {
    /// The organization that its key belongs to.
    pub organization_id: OrganizationId,
    /// How commands name it.
    pub caller: Caller,
    /// The organization that the call is for by its metadata, where it names one.
    pub tenant: Option<OrganizationId>,
}

impl Authenticated {
    /// A custodian who showed a master key.
    #[must_use]
    pub fn custodian(custodian: &ShownCustodian) -> Self {
        let organization_id = OrganizationId::OPERATOR;
        Self { organization_id, caller: custodian.caller(), tenant: None }
    }

    /// Whose credentials and tables it may know.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.organization_id.is_operator() {
            Reach::Installation
        } else {
            Reach::Organization(self.organization_id)
        }
    }

    /// Notes that it was denied what it asked for.
    fn note_denial(&self, ledger: &Ledger, code: DenialCode) {
        if let Some(credential) = self.caller.credential() {
            ledger.note_denied_caller(self.organization_id, credential, code);
        }
    }

    /// How it asks about another's credential.
    #[must_use]
    pub fn asking(&self) -> Asking {
        let purpose = self.caller.credential().map_or(Purpose::Look, Purpose::Ask);
        Asking { reach: self.reach(), purpose }
    }

    /// The organization that a request is for: the named one, or the caller's own.
    pub fn target(&self, ledger: &Ledger, named: &str) -> Result<OrganizationId, Status> {
        if let Some(tenant) = self.tenant {
            if named.is_empty() || named.parse() == Ok(tenant) {
                return Ok(tenant);
            }
            let problem = format_args!("is another organization than `{X_TENANT_ID}` names");
            return Err(status::invalid("organization_id", problem));
        }
        if named.is_empty() {
            return match self.reach() {
                Reach::Organization(own) => Ok(own),
                Reach::Installation => Err(status::invalid(
                    "organization_id",
                    "an operator acts in no organization by default; name one, or `operator`",
                )),
            };
        }
        let id = named.parse().map_err(|error| status::invalid("organization_id", error))?;
        if id == self.organization_id || self.organization_id.is_operator() {
            Ok(id)
        } else {
            self.note_denial(ledger, DenialCode::TenantMismatch);
            Err(status::other_organization())
        }
    }
}

/// What a caller showed when they knocked, and from where. It is no authority: it is looked
/// at anew wherever authority is needed.
#[derive(Clone, Copy)]
pub struct Shown {
    held: Held,
    origin: Option<IpAddr>,
    tenant: Option<OrganizationId>,
}

impl Shown {
    /// Whoever acts under this grant, of which that is recorded already.
    #[must_use]
    pub fn under_grant(
        organization_id: OrganizationId,
        grant_id: BreakGlassGrantId,
        origin: Option<IpAddr>,
        tenant: Option<OrganizationId>,
    ) -> Self {
        Self { held: Held::BreakGlass { organization_id, grant_id }, origin, tenant }
    }
}

/// Refuses whoever shows no key that is in force, whatever it may do.
pub fn in_force(
    ledger: &Ledger,
    headers: &HeaderMap,
    origin: Option<IpAddr>,
) -> Result<Shown, Status> {
    let now = ledger.clock().now();
    look(ledger, headers, origin, Wanted::Texts(&[]), now, Purpose::Knock)
        .map(|looked| looked.shown)
}

/// Lets in whoever holds the permission in their own organization.
pub fn authenticate<T>(
    ledger: &Ledger,
    request: &Request<T>,
    permission: Permission<'static>,
) -> Result<Authenticated, Status> {
    authenticate_at(ledger, request, permission, ledger.clock().now())
}

/// As [`authenticate`], at an instant that was read already.
pub fn authenticate_at<T>(
    ledger: &Ledger,
    request: &Request<T>,
    permission: Permission<'static>,
    now: Timestamp,
) -> Result<Authenticated, Status> {
    match request.extensions().get::<Shown>() {
        Some(shown) => look_again(ledger, shown, permission, now, Purpose::Enter),
        None => {
            let origin = origin_ip(request.extensions());
            let headers = request.metadata().as_ref();
            look(ledger, headers, origin, Wanted::One(permission), now, Purpose::Enter)?
                .admitted(permission)
        }
    }
}

/// As [`authenticate`], but lets in every user of an organization, whatever they hold: what is
/// theirs they change without the permission, and the rules ask for it where it is not.
pub fn authenticate_for_oneself<T>(
    ledger: &Ledger,
    request: &Request<T>,
    permission: Permission<'static>,
) -> Result<Authenticated, Status> {
    let now = ledger.clock().now();
    let shown = shown(ledger, request)?;
    let asks = |purpose| look_at(ledger, &shown, Wanted::Texts(&[]), now, purpose);
    match asks(Purpose::Again)?.caller.caller.owner() {
        Some(Owner::User(_)) => asks(Purpose::Enter)?.admitted(permission),
        Some(Owner::ServiceAccount(_)) | None => {
            look_again(ledger, &shown, permission, now, Purpose::Enter)
        }
    }
}

/// The key that a request shows.
pub fn shown<T>(ledger: &Ledger, request: &Request<T>) -> Result<Shown, Status> {
    match request.extensions().get::<Shown>() {
        Some(shown) => Ok(*shown),
        None => in_force(ledger, request.metadata().as_ref(), origin_ip(request.extensions())),
    }
}

/// Lets in whoever shows a credential in force, whatever it may do.
pub fn authenticate_caller<T>(
    ledger: &Ledger,
    request: &Request<T>,
) -> Result<Authenticated, Status> {
    let now = ledger.clock().now();
    let wanted = Wanted::Texts(&[]);
    let looked = match request.extensions().get::<Shown>() {
        Some(shown) => look_at(ledger, shown, wanted, now, Purpose::Enter),
        None => {
            let origin = origin_ip(request.extensions());
            look(ledger, request.metadata().as_ref(), origin, wanted, now, Purpose::Enter)
        }
    }?;
    looked.admitted_anyway()
}

/// Whether a request shows a credential in a header of its own: a cookie that a browser keeps
/// says nothing of what its page means.
pub fn shows_key<T>(request: &Request<T>) -> bool {
    let headers = request.metadata().as_ref();
    let keys = [&AUTHORIZATION, &X_API_KEY, &X_ADMIN_API_KEY];
    keys.into_iter().any(|name| headers.contains_key(name))
}

/// Whether a request shows a credential at all.
pub fn shows_credential<T>(request: &Request<T>) -> bool {
    shows_key(request) || session_cookie(request.metadata().as_ref()).is_some()
}

/// Lets whoever was let in with this key go on, if it is still in force and holds the
/// permission. That is no further use of the key.
pub fn authenticate_again(
    ledger: &Ledger,
    shown: &Shown,
    permission: Permission<'static>,
    now: Timestamp,
) -> Result<Authenticated, Status> {
    look_again(ledger, shown, permission, now, Purpose::Again)
}

/// As [`authenticate_again`], for another message on a call that stays: that is a use.
pub fn authenticate_message(
    ledger: &Ledger,
    shown: &Shown,
    permission: Permission<'static>,
    now: Timestamp,
) -> Result<Authenticated, Status> {
    look_again(ledger, shown, permission, now, Purpose::Message)
}

fn look_again(
    ledger: &Ledger,
    shown: &Shown,
    permission: Permission<'static>,
    now: Timestamp,
    purpose: Purpose,
) -> Result<Authenticated, Status> {
    look_at(ledger, shown, Wanted::One(permission), now, purpose)?.admitted(permission)
}

fn look_at(
    ledger: &Ledger,
    shown: &Shown,
    permissions: Wanted<'_>,
    now: Timestamp,
    purpose: Purpose,
) -> Result<Looked, Status> {
    let question = Question { tenant: shown.tenant, ..callers(permissions, shown.origin, now) };
    ledger.verify_again(&shown.held, &question, callers_asking(purpose), |answer| {
        looked(&answer, Some(shown.held), &question)
    })
}

/// A key that is in force.
struct Looked {
    shown: Shown,
    caller: Authenticated,
    lacks: Refusal,
}

impl Looked {
    fn admitted(self, permission: Permission<'static>) -> Result<Authenticated, Status> {
        match self.lacks {
            Refusal::None => Ok(self.caller),
            Refusal::Permission => Err(status::permission_denied(permission)),
            Refusal::Service => Err(status::service_not_allowed()),
            Refusal::Feature => Err(status::feature_not_licensed(permission)),
            Refusal::Mfa => Err(status::mfa_required(permission)),
        }
    }

    /// Whoever is in force, where nothing was wanted.
    fn admitted_anyway(self) -> Result<Authenticated, Status> {
        match self.lacks {
            Refusal::Service => Err(status::service_not_allowed()),
            Refusal::None | Refusal::Permission | Refusal::Feature | Refusal::Mfa => {
                Ok(self.caller)
            }
        }
    }
}

/// What a key that is in force lacks.
enum Refusal {
    None,
    Permission,
    Service,
    Feature,
    Mfa,
}

/// Looks at the key that a caller shows.
fn look(
    ledger: &Ledger,
    headers: &HeaderMap,
    origin: Option<IpAddr>,
    permissions: Wanted<'_>,
    now: Timestamp,
    purpose: Purpose,
) -> Result<Looked, Status> {
    let question = Question { tenant: tenant(headers)?, ..callers(permissions, origin, now) };
    let mut presented = presented(ledger, headers)?;
    let cookie = session_cookie(headers);
    // A cookie holds a session's token, and no credential of another kind.
    let cookie = cookie.filter(|token| !token.starts_with(GRANT_TOKEN_HEAD));
    if let Some(token) = cookie.filter(|_| !headers.contains_key(&AUTHORIZATION)) {
        presented.bearer(token);
        let shown = ledger.shown_session(presented);
        if shown.is_some_and(|it| !csrf_token_matches(ledger, headers, it.session_id)) {
            return Err(status::csrf());
        }
    }
    let session = ledger.shown_session(presented).map(Held::Session);
    ledger.verify(presented, &question, callers_asking(purpose), |answer| {
        looked(&answer, session, &question)
    })
}

fn callers_asking(purpose: Purpose) -> Asking {
    Asking { reach: Reach::Installation, purpose }
}

/// What is asked of a caller's own key.
fn callers(permissions: Wanted<'_>, client_ip: Option<IpAddr>, now: Timestamp) -> Question<'_> {
    Question {
        tenant: None,
        permissions,
        service: Some(SERVICE),
        domain: None,
        environment: None,
        client_ip,
        now,
    }
}

/// What came of a look; `held` is what was shown, where that is known already.
fn looked(
    answer: &Answer<'_>,
    held: Option<Held>,
    question: &Question<'_>,
) -> Result<Looked, Status> {
    let decision = match answer {
        Answer::Unavailable(_) => return Err(status::own_organization_stopped()),
        Answer::Refused(code) => return Err(status::unauthenticated(*code)),
        // How it ended is of no use to whoever shows it, and not worth a look at the disk.
        Answer::Elsewhere(_) => return Err(status::ended_long_ago()),
        // It is recorded before a method is called: see [`Emergencies`].
        Answer::Emergency(_) => return Err(status::unauthenticated(Code::Unknown)),
        Answer::RateLimited { retry_after, .. } => return Err(status::rate_limited(*retry_after)),
        Answer::Decided(decision) => decision,
    };
    let lacks = match decision.code {
        Code::Allowed => Refusal::None,
        // keyledger's own methods are about no domain.
        Code::PermissionDenied | Code::DomainNotAllowed => Refusal::Permission,
        Code::ServiceNotAllowed => Refusal::Service,
        Code::FeatureNotLicensed => Refusal::Feature,
        Code::MfaRequired => Refusal::Mfa,
        Code::TenantMismatch => return Err(status::tenant_mismatch()),
        code @ (Code::NoCredential
        | Code::Ambiguous
        | Code::Malformed
        | Code::Unknown
        | Code::Revoked
        | Code::Disabled
        | Code::Expired
        | Code::Suspended
        | Code::IpNotAllowed
        | Code::BreakGlassDisabled
        | Code::BreakGlassReasonRequired
        | Code::BreakGlassOrganizationRequired
        | Code::BreakGlassApprovalPending
        | Code::BreakGlassReviewPending
        | Code::BreakGlassLimited
        | Code::RateLimited
        | Code::WrongEnvironment) => return Err(status::unauthenticated(code)),
    };
    let organization_id = decision.organization_id;
    let (caller, held) = match decision.credential {
        Recognised::Key(key) => {
            let caller = Caller::Key { organization_id, key_id: key.id, owner: key.owner() };
            (caller, Some(Held::Key(key.digest.blake3)))
        }
        Recognised::Session(session) => {
            let (session_id, user_id) = (session.id, session.user_id);
            (Caller::Session { organization_id, session_id, user_id }, held)
        }
        Recognised::BreakGlass(grant) => {
            let grant_id = grant.id;
            let caller = Caller::BreakGlass { organization_id, grant_id };
            (caller, Some(Held::BreakGlass { organization_id, grant_id }))
        }
    };
    let held = held.ok_or_else(|| status::unauthenticated(Code::Unknown))?;
    let &Question { client_ip: origin, tenant, .. } = question;
    let shown = Shown { held, origin, tenant };
    Ok(Looked { shown, caller: Authenticated { organization_id, caller, tenant }, lacks })
}

/// Lets in whoever holds the permission in the operator organization.
pub fn authenticate_operator<T>(
    ledger: &Ledger,
    request: &Request<T>,
    permission: Permission<'static>,
) -> Result<Authenticated, Status> {
    let authenticated = authenticate(ledger, request, permission)?;
    if authenticated.organization_id.is_operator() {
        Ok(authenticated)
    } else {
        authenticated.note_denial(ledger, DenialCode::PermissionDenied);
        Err(status::operator_only(permission))
    }
}

pub(super) fn presented<'a>(
    ledger: &Ledger,
    headers: &'a HeaderMap,
) -> Result<Presented<'a>, Status> {
    let mut presented = Presented::default();
    for value in values(headers, &AUTHORIZATION) {
        presented.authorization(value?);
    }
    for value in values(headers, &X_API_KEY) {
        presented.api_key(value?, |text| ledger.is_global_key(text));
    }
    for value in values(headers, &X_ADMIN_API_KEY) {
        presented.admin_api_key(value?);
    }
    for value in values(headers, &X_MASTER_KEY) {
        presented.master_key(value?);
    }
    Ok(presented)
}

/// The organization that a call is for by its metadata.
pub(super) fn tenant(headers: &HeaderMap) -> Result<Option<OrganizationId>, Status> {
    let mut tenant = None;
    for value in values(headers, &X_TENANT_ID) {
        let id =
            value?.trim().parse().map_err(|error| status::invalid(X_TENANT_ID.as_str(), error))?;
        if tenant.is_some_and(|other| other != id) {
            let problem = "is sent twice with different values; send it once";
            return Err(status::invalid(X_TENANT_ID.as_str(), problem));
        }
        tenant = Some(id);
    }
    Ok(tenant)
}

fn values<'a>(
    headers: &'a HeaderMap,
    name: &'static HeaderName,
) -> impl Iterator<Item = Result<&'a str, Status>> {
    headers.get_all(name).iter().enumerate().map(move |(place, value)| {
        if place >= HEADER_VALUES_MAX {
            let problem = format!("is sent more than {HEADER_VALUES_MAX} times");
            return Err(status::invalid(name.as_str(), problem));
        }
        value
            .to_str()
            .map_err(|_| status::invalid(name.as_str(), "must be visible ASCII characters"))
    })
}

/// The correlation id of a call: the caller's, or a new one. The call's span has it too.
pub fn correlation_id<T>(ledger: &Ledger, request: &Request<T>) -> Result<CorrelationId, Status> {
    let id = read_correlation_id(ledger, request)?;
    spans::note_correlation_id(id.as_str());
    Ok(id)
}

fn read_correlation_id<T>(ledger: &Ledger, request: &Request<T>) -> Result<CorrelationId, Status> {
    let mut given = values(request.metadata().as_ref(), &X_CORRELATION_ID);
    let Some(first) = given.next().transpose()? else { return Ok(ledger.new_correlation_id()) };
    for other in given {
        if other? != first {
            return Err(status::invalid(
                "x-correlation-id",
                "is sent twice with different values; send it once",
            ));
        }
    }
    first.parse().map_err(|error| status::invalid("x-correlation-id", error))
}

/// The address of a client that a trusted proxy stands before.
#[derive(Clone, Copy)]
struct Origin(Option<IpAddr>);

fn peer_ip(extensions: &Extensions) -> Option<IpAddr> {
    let peer = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)?;
    Some(peer.ip().to_canonical())
}

/// Finds out who a request comes from, and puts it among the request's extensions.
///
/// # Errors
///
/// A trusted proxy passed on what is no address: nobody can say.
pub(super) fn note_origin(
    headers: &HeaderMap,
    extensions: &mut Extensions,
    trusted: &[IpNet],
) -> Result<(), Status> {
    let lines = headers.get_all(&X_FORWARDED_FOR).iter();
    // What is no text is no address either.
    let entries = lines.flat_map(|line| line.to_str().unwrap_or("?").split(','));
    let client = client_ip(peer_ip(extensions), entries, trusted)
        .map_err(|error| status::invalid(X_FORWARDED_FOR.as_str(), error))?;
    extensions.insert(Origin(client));
    Ok(())
}

/// The address that a call comes from: the peer's, or the client's behind trusted proxies.
pub fn origin_ip(extensions: &Extensions) -> Option<IpAddr> {
    match extensions.get::<Origin>() {
        Some(Origin(client)) => *client,
        None => peer_ip(extensions),
    }
}

/// Where a call comes from: personal data, for sealing only.
pub fn origin<T>(request: &Request<T>) -> Personal {
    let mut personal = Personal::default();
    if let Some(address) = origin_ip(request.extensions()) {
        personal.0.insert(Personal::ORIGIN_IP.to_owned(), address.to_string());
    }
    if let Some(agent) = request.metadata().get("user-agent").and_then(|value| value.to_str().ok())
    {
        let agent = agent.chars().take(USER_AGENT_CHARS_MAX).collect();
        personal.0.insert(Personal::USER_AGENT.to_owned(), agent);
    }
    personal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_the_peer_or_whom_a_trusted_proxy_names() {
        let origin = |peer: &str, trusted: &[&str], forwarded: &str| {
            let mut extensions = Extensions::new();
            let remote_addr = Some(peer.parse().unwrap());
            extensions.insert(TcpConnectInfo { local_addr: None, remote_addr });
            let mut headers = HeaderMap::new();
            headers.append(&X_FORWARDED_FOR, "8.8.8.8".parse().unwrap());
            headers.append(&X_FORWARDED_FOR, forwarded.parse().unwrap());
            let trusted: Vec<IpNet> = trusted.iter().map(|it| it.parse().unwrap()).collect();
            if !trusted.is_empty() {
                note_origin(&headers, &mut extensions, &trusted)?;
            }
            Ok::<_, Status>(origin_ip(&extensions).map(|it| it.to_string()))
        };
        let is = |address: &str| Some(address.to_owned());
        assert_eq!(origin("[::ffff:192.0.2.1]:7", &[], "x").unwrap(), is("192.0.2.1"));
        assert_eq!(origin("192.0.2.1:7", &["10.0.0.0/8"], "x").unwrap(), is("192.0.2.1"));
        let behind = |forwarded| origin("10.0.0.1:7", &["10.0.0.0/8"], forwarded);
        assert_eq!(behind("198.51.100.1, 10.0.0.2").unwrap(), is("198.51.100.1"));
        assert_eq!(behind("10.0.0.2").unwrap(), is("8.8.8.8"));
        assert!(behind("x").is_err());
        assert!(behind("\u{e9}").is_err(), "no ASCII");
    }
}

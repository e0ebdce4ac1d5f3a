//! Who calls, and whether they may: every method goes through here first.

use std::net::SocketAddr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use projections::digest::SecretDigest;
use projections::id::OrganizationId;
use projections::permission::Permission;
use projections::presented::Presented;
use projections::text::CorrelationId;
use projections::time::Timestamp;
use projections::verification::{Code, Question, Wanted};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Status};

use super::status;
use crate::ledger::Ledger;
use crate::ledger::command::{Caller, Personal};
use crate::ledger::verify::{Answer, Reach};

/// What keyledger itself is called in a key's service access.
pub const SERVICE: &str = "keyledger";
/// Most values of one header.
pub const HEADER_VALUES_MAX: usize = 8;
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_ADMIN_API_KEY: HeaderName = HeaderName::from_static("x-admin-api-key");
static X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
/// Most characters of a user agent that are kept.
const USER_AGENT_CHARS_MAX: usize = 256;

/// A caller who was let in.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated {
    /// The organization that its key belongs to.
    pub organization_id: OrganizationId,
    /// How commands name it.
    pub caller: Caller,
}

impl Authenticated {
    /// Whose credentials and tables it may know.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.organization_id.is_operator() {
            Reach::Installation
        } else {
            Reach::Organization(self.organization_id)
        }
    }

    /// The organization that a request is for: the named one, or the caller's own.
    pub fn target(&self, named: &str) -> Result<OrganizationId, Status> {
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
            Err(status::other_organization())
        }
    }
}

/// The key that a caller showed when they knocked, by what stands for its secret. It is no
/// authority: the key is looked at anew, by this, wherever authority is needed.
#[derive(Clone, Copy)]
pub struct Shown(SecretDigest);

/// Refuses whoever shows no key that is in force, whatever it may do.
pub fn in_force(ledger: &Ledger, headers: &HeaderMap) -> Result<Shown, Status> {
    look(ledger, headers, Wanted::Texts(&[]), ledger.clock().now()).map(|looked| looked.shown)
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
        Some(shown) => authenticate_again(ledger, shown, permission, now),
        None => {
            let looked = look(ledger, request.metadata().as_ref(), Wanted::One(permission), now)?;
            looked.admitted(permission)
        }
    }
}

/// The key that a request shows.
pub fn shown<T>(ledger: &Ledger, request: &Request<T>) -> Result<Shown, Status> {
    match request.extensions().get::<Shown>() {
        Some(shown) => Ok(*shown),
        None => in_force(ledger, request.metadata().as_ref()),
    }
}

/// Lets in whoever showed this key before, if it is in force and holds the permission.
pub fn authenticate_again(
    ledger: &Ledger,
    shown: &Shown,
    permission: Permission<'static>,
    now: Timestamp,
) -> Result<Authenticated, Status> {
    let question = callers(Wanted::One(permission), now);
    ledger
        .verify_again(&shown.0, &question, Reach::Installation, |answer| looked(&answer))?
        .admitted(permission)
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
        }
    }
}

/// What a key that is in force lacks.
enum Refusal {
    None,
    Permission,
    Service,
}

/// Looks at the key that a caller shows.
fn look(
    ledger: &Ledger,
    headers: &HeaderMap,
    permissions: Wanted<'_>,
    now: Timestamp,
) -> Result<Looked, Status> {
    let question = callers(permissions, now);
    ledger.verify(presented(headers)?, &question, Reach::Installation, |answer| looked(&answer))
}

/// What is asked of a caller's own key.
fn callers(permissions: Wanted<'_>, now: Timestamp) -> Question<'_> {
    Question { tenant: None, permissions, service: Some(SERVICE), environment: None, now }
}

fn looked(answer: &Answer<'_>) -> Result<Looked, Status> {
    let decision = match answer {
        Answer::Unavailable(_) => return Err(status::own_organization_stopped()),
        Answer::Refused(code) => return Err(status::unauthenticated(*code)),
        Answer::Decided(decision) => decision,
    };
    let lacks = match decision.code {
        Code::Allowed => Refusal::None,
        Code::PermissionDenied => Refusal::Permission,
        Code::ServiceNotAllowed => Refusal::Service,
        code @ (Code::NoCredential
        | Code::Ambiguous
        | Code::Malformed
        | Code::Unknown
        | Code::TenantMismatch
        | Code::Revoked
        | Code::Expired
        | Code::WrongEnvironment) => return Err(status::unauthenticated(code)),
    };
    let organization_id = decision.organization_id;
    let caller = Caller::Key { organization_id, key_id: decision.key.id };
    let shown = Shown(decision.key.digest.blake3);
    Ok(Looked { shown, caller: Authenticated { organization_id, caller }, lacks })
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
        Err(status::permission_denied(permission))
    }
}

fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Status> {
    let mut presented = Presented::default();
    for value in values(headers, &AUTHORIZATION) {
        presented.authorization(value?);
    }
    for name in [&X_API_KEY, &X_ADMIN_API_KEY] {
        for value in values(headers, name) {
            presented.api_key(value?);
        }
    }
    Ok(presented)
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

/// The correlation id of a call: the caller's, or a new one.
pub fn correlation_id<T>(ledger: &Ledger, request: &Request<T>) -> Result<CorrelationId, Status> {
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

/// Where a call comes from: personal data, for sealing only.
pub fn origin<T>(request: &Request<T>) -> Personal {
    let mut personal = Personal::default();
    let peer: Option<SocketAddr> =
        request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    if let Some(peer) = peer {
        personal.0.insert(Personal::ORIGIN_IP.to_owned(), peer.ip().to_string());
    }
    if let Some(agent) = request.metadata().get("user-agent").and_then(|value| value.to_str().ok())
    {
        let agent = agent.chars().take(USER_AGENT_CHARS_MAX).collect();
        personal.0.insert(Personal::USER_AGENT.to_owned(), agent);
    }
    personal
}

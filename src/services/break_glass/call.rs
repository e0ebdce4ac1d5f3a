//! Calls of the ledger itself under break-glass: each is recorded before it is carried out,
//! and where it is refused, that is recorded before it is answered.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderValue, Response};
use projections::event::{BreakGlassAsked, DenialCode};
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::presented::Deciding;
use projections::text::CorrelationId;
use projections::verification::Code;
use tonic::Status;
use tonic::body::Body;

use crate::ledger::Ledger;
use crate::ledger::break_glass::{Emergency, Emergent};
use crate::ledger::command::Personal;
use crate::ledger::verify::Reach;
use crate::services::authentication::{
    Shown, X_CORRELATION_ID, origin_ip, presented, reason, tenant,
};
use crate::services::status;

/// A call under a grant, which was recorded.
pub struct Call {
    ledger: Arc<Ledger>,
    organization_id: OrganizationId,
    grant_id: BreakGlassGrantId,
    asked: BreakGlassAsked,
    origin: Option<IpAddr>,
    correlation_id: CorrelationId,
}

/// Records a call of this method under break-glass, and puts who calls among its extensions.
///
/// # Errors
///
/// It is refused, which is recorded, or could not be recorded.
pub async fn begin(
    ledger: &Arc<Ledger>,
    method: &str,
    headers: &mut HeaderMap,
    extensions: &mut Extensions,
) -> Result<Call, Status> {
    let origin = origin_ip(extensions);
    let asked = BreakGlassAsked {
        method: method.trim_start_matches("/keyledger.v1.").parse().ok(),
        ..BreakGlassAsked::default()
    };
    // First of all who it is: whatever else is wrong with the call is recorded.
    let emergency = match presented(ledger, headers)?.deciding() {
        Ok(Deciding::BreakGlass(text)) => ledger.emergency(text, Reach::Installation),
        Ok(Deciding::Session(_) | Deciding::ApiKey(_) | Deciding::GlobalKey(_)) => {
            Err(Code::Unknown)
        }
        Err(code) => Err(code),
    };
    let emergency = emergency.map_err(|code| {
        ledger.note_unknown_emergency(code);
        status::unauthenticated(code)
    })?;
    let read = correlation_id(ledger, headers).and_then(|id| Ok((id, tenant(headers)?)));
    let (correlation_id, tenant) = match read {
        Ok(read) => read,
        Err(status) => return Err(malformed(ledger, &emergency, asked, origin, status).await),
    };
    let reason = reason(headers);
    let named = match &emergency {
        Emergency::Token { grant_id, organization_id } => Some((*organization_id, *grant_id)),
        Emergency::MasterKey(_) => None,
    };
    let request = Emergent {
        asked: asked.clone(),
        tenant,
        environment: None,
        client_ip: origin,
        reason,
        reach: Reach::Installation,
        correlation_id: correlation_id.clone(),
    };
    let answer = ledger.use_break_glass(emergency, request).await.map_err(status::from)?;
    if answer.code == Code::TenantMismatch {
        return Err(status::tenant_mismatch());
    }
    if answer.code != Code::Allowed {
        return Err(status::unauthenticated(answer.code));
    }
    let found = answer.found.map(|(tables, grant)| (tables.id, grant.id)).or(named);
    let (organization_id, grant_id) =
        found.ok_or_else(|| status::unauthenticated(Code::Unknown))?;
    extensions.insert(Shown::under_grant(organization_id, grant_id, origin, tenant));
    if let Ok(value) = HeaderValue::from_str(correlation_id.as_str()) {
        // The changes that are made have it, too.
        headers.insert(&X_CORRELATION_ID, value);
    }
    Ok(Call {
        ledger: Arc::clone(ledger),
        organization_id,
        grant_id,
        asked,
        origin,
        correlation_id,
    })
}

/// Records that a call was refused because its headers cannot be read.
async fn malformed(
    ledger: &Arc<Ledger>,
    emergency: &Emergency,
    asked: BreakGlassAsked,
    origin: Option<IpAddr>,
    status: Status,
) -> Status {
    let refused = (DenialCode::Malformed, asked);
    let around = (ledger.new_correlation_id(), around(origin));
    let recorded = match emergency {
        Emergency::Token { organization_id, grant_id } => {
            ledger.refuse_under_grant(*organization_id, *grant_id, refused, around).await
        }
        Emergency::MasterKey(custodian) => {
            ledger.refuse_shown((None, None), custodian, refused, around).await
        }
    };
    match recorded {
        Ok(()) => status,
        Err(error) => status::from(error),
    }
}

/// Where a call comes from, to be sealed.
fn around(origin: Option<IpAddr>) -> Personal {
    let mut personal = Personal::default();
    if let Some(address) = origin {
        personal.0.insert(Personal::ORIGIN_IP.to_owned(), address.to_string());
    }
    personal
}

fn correlation_id(ledger: &Ledger, headers: &HeaderMap) -> Result<CorrelationId, Status> {
    match headers.get(&X_CORRELATION_ID) {
        None => Ok(ledger.new_correlation_id()),
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            text.parse().map_err(|error| status::invalid(X_CORRELATION_ID.as_str(), error))
        }
    }
}

impl Call {
    /// Records that the call was refused, where it was, before its answer goes out.
    pub async fn end(self, response: Response<Body>) -> Response<Body> {
        let code = match response.headers().get("grpc-status").map(HeaderValue::as_bytes) {
            Some(b"7") => DenialCode::PermissionDenied,
            Some(b"16") => DenialCode::NotInForce,
            _ => return response,
        };
        let refused = (code, self.asked);
        let around = (self.correlation_id, around(self.origin));
        let recorded = self
            .ledger
            .refuse_under_grant(self.organization_id, self.grant_id, refused, around)
            .await;
        match recorded {
            Ok(()) => response,
            Err(error) => status::from(error).into_http(),
        }
    }
}

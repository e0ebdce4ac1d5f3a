//! Summaries of denials as earlier versions wrote them: they knew keys alone, and fewer codes.

use serde::Deserialize;

use super::{CountedDenial, Denial, DenialCode, DenialsSummarized};
use crate::id::KeyId;
use crate::principal::Credential;
use crate::text::ServiceName;
use crate::time::Timestamp;

/// Schema 1.
pub(in crate::event) type DenialsSummarized1 = SummaryOfKeys<Code1>;
/// Schema 2.
pub(in crate::event) type DenialsSummarized2 = SummaryOfKeys<Code2>;

/// Schema 3: it knew all but break-glass.
#[derive(Deserialize)]
#[serde(transparent)]
pub(in crate::event) struct DenialsSummarized3(DenialsSummarized);

impl From<DenialsSummarized3> for DenialsSummarized {
    fn from(it: DenialsSummarized3) -> Self {
        it.0
    }
}

/// A denial.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DenialOfKey<C> {
    code: C,
    #[serde(default)]
    key_id: Option<KeyId>,
    #[serde(default)]
    asked_with: Option<KeyId>,
    #[serde(default)]
    service: Option<ServiceName>,
}

/// Denials that are counted as one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountedDenialOfKey<C> {
    denial: DenialOfKey<C>,
    count: u64,
}

/// A summary.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::event) struct SummaryOfKeys<C> {
    first_at: Timestamp,
    last_at: Timestamp,
    denials: Vec<CountedDenialOfKey<C>>,
    others: u64,
}

impl<C: Into<DenialCode>> From<SummaryOfKeys<C>> for DenialsSummarized {
    fn from(it: SummaryOfKeys<C>) -> Self {
        let denial = |CountedDenialOfKey { denial, count }: CountedDenialOfKey<C>| {
            let DenialOfKey { code, key_id, asked_with, service } = denial;
            let denial = Denial {
                code: code.into(),
                credential: key_id.map(Credential::Key),
                asked_with: asked_with.map(Credential::Key),
                service,
            };
            CountedDenial { denial, count }
        };
        Self {
            first_at: it.first_at,
            last_at: it.last_at,
            denials: it.denials.into_iter().map(denial).collect(),
            others: it.others,
        }
    }
}

/// The codes that schema 1 of a summary knew.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::event) enum Code1 {
    NoCredential,
    Ambiguous,
    Malformed,
    Unknown,
    TenantMismatch,
    Revoked,
    Disabled,
    Expired,
    IpNotAllowed,
    WrongEnvironment,
    ServiceNotAllowed,
    PermissionDenied,
    RateLimited,
    NotInForce,
}

impl From<Code1> for DenialCode {
    fn from(it: Code1) -> Self {
        match it {
            Code1::NoCredential => Self::NoCredential,
            Code1::Ambiguous => Self::Ambiguous,
            Code1::Malformed => Self::Malformed,
            Code1::Unknown => Self::Unknown,
            Code1::TenantMismatch => Self::TenantMismatch,
            Code1::Revoked => Self::Revoked,
            Code1::Disabled => Self::Disabled,
            Code1::Expired => Self::Expired,
            Code1::IpNotAllowed => Self::IpNotAllowed,
            Code1::WrongEnvironment => Self::WrongEnvironment,
            Code1::ServiceNotAllowed => Self::ServiceNotAllowed,
            Code1::PermissionDenied => Self::PermissionDenied,
            Code1::RateLimited => Self::RateLimited,
            Code1::NotInForce => Self::NotInForce,
        }
    }
}

/// The codes that schema 2 of a summary knew.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::event) enum Code2 {
    NoCredential,
    Ambiguous,
    Malformed,
    Unknown,
    TenantMismatch,
    Revoked,
    Disabled,
    Expired,
    IpNotAllowed,
    WrongEnvironment,
    ServiceNotAllowed,
    PermissionDenied,
    RateLimited,
    NotInForce,
    DomainNotAllowed,
}

impl From<Code2> for DenialCode {
    fn from(it: Code2) -> Self {
        match it {
            Code2::NoCredential => Self::NoCredential,
            Code2::Ambiguous => Self::Ambiguous,
            Code2::Malformed => Self::Malformed,
            Code2::Unknown => Self::Unknown,
            Code2::TenantMismatch => Self::TenantMismatch,
            Code2::Revoked => Self::Revoked,
            Code2::Disabled => Self::Disabled,
            Code2::Expired => Self::Expired,
            Code2::IpNotAllowed => Self::IpNotAllowed,
            Code2::WrongEnvironment => Self::WrongEnvironment,
            Code2::ServiceNotAllowed => Self::ServiceNotAllowed,
            Code2::PermissionDenied => Self::PermissionDenied,
            Code2::RateLimited => Self::RateLimited,
            Code2::NotInForce => Self::NotInForce,
            Code2::DomainNotAllowed => Self::DomainNotAllowed,
        }
    }
}

//! A `VerifyRequest` becomes a question: the one place where that happens, for all methods.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use projections::presented::Presented;
use projections::text;
use projections::verification::{Question, Wanted};
use tonic::Status;

use super::Asked;
use crate::ledger::Ledger;
use crate::proto::VerifyRequest;
use crate::services::authentication::HEADER_VALUES_MAX;
use crate::services::{read, status};

/// What is wrong with a question, by the name of the field.
pub(super) struct Wrong {
    field: Cow<'static, str>,
    problem: String,
}

impl Wrong {
    pub(super) fn new(field: impl Into<Cow<'static, str>>, problem: impl Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }

    /// As an error, where the question stands at this path of the request, which is empty
    /// or ends with a dot.
    pub(super) fn status(&self, path: &str) -> Status {
        status::invalid([path, &self.field].concat(), &self.problem)
    }
}

/// What is asked, and about which credential.
pub(super) fn read<'a>(
    message: &'a VerifyRequest,
    asked: Asked<'_>,
) -> Result<(Presented<'a>, Question<'a>), Wrong> {
    let question = Question {
        tenant: match message.tenant_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|error| Wrong::new("tenant_id", error))?),
        },
        permissions: Wanted::new(&message.permissions)
            .map_err(|(place, error)| Wrong::new(format!("permissions[{place}]"), error))?,
        service: service(&message.service)?,
        domain: domain(&message.domain)?,
        environment: read::environment(message.environment)
            .map_err(|_| Wrong::new("environment", "is no known environment"))?,
        client_ip: client_ip(message, asked.trusted_proxies)?,
        now: asked.now,
    };
    Ok((presented(message, asked.ledger)?, question))
}

fn service(text: &str) -> Result<Option<&str>, Wrong> {
    match text {
        "" => Ok(None),
        name if text::is_label(name) => Ok(Some(name)),
        _ => Err(Wrong::new("service", "must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`")),
    }
}

fn domain(text: &str) -> Result<Option<&str>, Wrong> {
    match text {
        "" => Ok(None),
        name if text::is_domain(name) => Ok(Some(name)),
        _ => Err(Wrong::new("domain", read::DOMAIN)),
    }
}

/// The address that the subject's request comes from: the one that the asker saw, or, where
/// that is a trusted proxy's, the one that the proxy saw.
fn client_ip(message: &VerifyRequest, trusted: &[IpNet]) -> Result<Option<IpAddr>, Wrong> {
    if message.client_ip.is_empty() {
        return match message.forwarded_for.is_empty() {
            true => Ok(None),
            false => Err(Wrong::new("client_ip", "must be given beside `forwarded_for`")),
        };
    }
    let peer: IpAddr = message
        .client_ip
        .parse()
        .map_err(|_| Wrong::new("client_ip", "must be an address such as `192.0.2.7`"))?;
    if message.forwarded_for.len() > HEADER_VALUES_MAX {
        let problem = format!("must be at most {HEADER_VALUES_MAX} values");
        return Err(Wrong::new("forwarded_for", problem));
    }
    let entries = message.forwarded_for.iter().flat_map(|line| line.split(','));
    crate::services::client_ip::client_ip(Some(peer.to_canonical()), entries, trusted)
        .map_err(|error| Wrong::new("forwarded_for", error))
}

fn presented<'a>(message: &'a VerifyRequest, ledger: &Ledger) -> Result<Presented<'a>, Wrong> {
    let lists = [
        ("master_key", &message.master_key),
        ("break_glass_reason", &message.break_glass_reason),
        ("authorization", &message.authorization),
        ("api_key", &message.api_key),
        ("admin_api_key", &message.admin_api_key),
    ];
    if let Some((name, _)) = lists.iter().find(|(_, values)| values.len() > HEADER_VALUES_MAX) {
        return Err(Wrong::new(*name, format_args!("must be at most {HEADER_VALUES_MAX} values")));
    }
    let mut presented = Presented::default();
    if !message.credential.is_empty() {
        presented.bearer(&message.credential);
    }
    message.authorization.iter().for_each(|value| presented.authorization(value));
    let is_global = |text: &str| ledger.is_global_key(text);
    message.api_key.iter().for_each(|value| presented.api_key(value, is_global));
    message.admin_api_key.iter().for_each(|value| presented.admin_api_key(value));
    message.master_key.iter().for_each(|value| presented.master_key(value));
    Ok(presented)
}

/// The correlation id that was given; none where it is empty.
pub(super) fn correlation_id(given: &str) -> Result<Option<&str>, Wrong> {
    if given.is_empty() {
        Ok(None)
    } else if text::is_token(given) {
        Ok(Some(given))
    } else {
        Err(Wrong::new("correlation_id", "must be 1 to 128 visible ASCII characters"))
    }
}

/// The correlation id that was given, or a new one.
pub(super) fn correlation_id_or_new<'a>(
    ledger: &Ledger,
    given: &'a str,
) -> Result<Cow<'a, str>, Wrong> {
    Ok(match correlation_id(given)? {
        Some(given) => Cow::Borrowed(given),
        None => Cow::Owned(ledger.new_correlation_id().to_string()),
    })
}

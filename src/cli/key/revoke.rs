//! `keyledger key revoke`

use clap::{Args, ValueEnum};

use super::super::client::{Client, Repeat, Target};
use super::super::failure::Outcome;
use super::super::view::key::Got;
use super::service;
use crate::proto;

/// Revoke a key, for good.
///
/// When this returns, the key is refused everywhere.
#[derive(Args)]
pub(in crate::cli) struct Revoke {
    /// The key
    #[arg(value_name = "ID")]
    key_id: String,

    /// Why, by the names of RFC 5280
    #[arg(long, value_enum, default_value_t = Reason::Unspecified, hide_default_value = true)]
    reason: Reason,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reason {
    /// No reason is given (the default).
    Unspecified,
    /// Somebody else has the key, or may have it.
    #[value(alias = "key_compromise")]
    KeyCompromise,
    /// Whoever used it belongs elsewhere now.
    #[value(alias = "affiliation_changed")]
    AffiliationChanged,
    /// Another key has taken its place.
    Superseded,
    /// What it was for has ended.
    #[value(alias = "cessation_of_operation")]
    CessationOfOperation,
    /// What it permitted is no longer permitted.
    #[value(alias = "privilege_withdrawn")]
    PrivilegeWithdrawn,
}

impl Revoke {
    pub(in crate::cli) fn run(self) -> Outcome {
        let request = proto::RevokeKeyRequest {
            organization_id: self.target.organization_id(),
            key_id: self.key_id,
            reason: reason(self.reason).into(),
            comment: self.comment.unwrap_or_default(),
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).revoke_key(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

fn reason(reason: Reason) -> proto::RevocationReason {
    use proto::RevocationReason as Wire;
    match reason {
        Reason::Unspecified => Wire::Unspecified,
        Reason::KeyCompromise => Wire::KeyCompromise,
        Reason::AffiliationChanged => Wire::AffiliationChanged,
        Reason::Superseded => Wire::Superseded,
        Reason::CessationOfOperation => Wire::CessationOfOperation,
        Reason::PrivilegeWithdrawn => Wire::PrivilegeWithdrawn,
    }
}

//! Who has roles: `keyledger role grant`, `revoke` and `grants`.

use std::time::Duration;

use clap::Args;

use super::super::client::{Client, Repeat, Target};
use super::super::failure::Outcome;
use super::super::flags;
use super::super::key::role::id_of;
use super::super::output::talk;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::role::{Granted, ListedGrants, Revoked};
use super::service;
use crate::proto;

/// Give a service account or a user a role, everywhere or for one domain, for good or for a time.
///
/// You can give only what your own key holds, there and for as long.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger role grant dns-manager --org vtx --service-account sva_01M3250V000000000000000001
  keyledger role grant dns-manager --org vtx --user usr_01M3250V000000000000000001 \
--domain example.com --lifetime 8h")]
pub(in crate::cli) struct Grant {
    /// The role, by identifier or by the name of a built-in one
    #[arg(value_name = "ROLE")]
    role: String,

    /// The service account that shall have it
    #[arg(long, value_name = "ID", required_unless_present = "user", conflicts_with = "user")]
    service_account: Option<String>,

    /// The user who shall have it
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// The one domain that it is for, such as example.com [default: the whole organization]
    #[arg(long, value_name = "DOMAIN", value_parser = flags::not_empty)]
    domain: Option<String>,

    /// When it ends [default: never]
    #[arg(long, value_name = "INSTANT", value_parser = flags::instant, conflicts_with = "lifetime")]
    expires_at: Option<prost_types::Timestamp>,

    /// After how long it ends, such as 8h [default: never]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    lifetime: Option<Duration>,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Grant {
    pub(in crate::cli) fn run(self) -> Outcome {
        use proto::grant_role_request::{Expiry, Principal};
        let account = self.service_account.map(Principal::ServiceAccountId);
        let lifetime = self.lifetime.map(flags::wire).map(Expiry::Lifetime);
        let mut request = proto::GrantRoleRequest {
            organization_id: self.target.organization_id(),
            role_id: id_of(&self.role)?,
            domain: self.domain.unwrap_or_default(),
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
            principal: account.or(self.user.map(Principal::UserId)),
            expiry: self.expires_at.map(Expiry::ExpiresAt).or(lifetime),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let made = Granted::from(session.answer(service(session).grant_role(request)).await?);
            session.print(&made, || made.to_text())
        })
    }
}

/// Take a role that was granted.
///
/// When this returns, whoever had it no longer has it by this grant.
#[derive(Args)]
pub(in crate::cli) struct Revoke {
    /// The grant
    #[arg(value_name = "GRANT")]
    grant: String,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Revoke {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::RevokeGrantRequest {
            organization_id: self.target.organization_id(),
            grant_id: self.grant,
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let over = Revoked::from(session.answer(service(session).revoke_grant(request)).await?);
            let code = session.print(&over, || over.to_text())?;
            if !session.json() {
                talk("done: the role is no longer had by it\n");
            }
            Ok(code)
        })
    }
}

/// List the grants that stand, in order of creation.
#[derive(Args)]
pub(in crate::cli) struct Grants {
    /// Those of this role alone, by identifier or by the name of a built-in one
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// Those of this service account alone
    #[arg(long, value_name = "ID", value_parser = flags::not_empty)]
    service_account: Option<String>,

    /// Those of this user alone
    #[arg(
        long,
        value_name = "ID",
        value_parser = flags::not_empty,
        conflicts_with = "service_account"
    )]
    user: Option<String>,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Grants {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut wanted = proto::ListGrantsRequest {
            organization_id: self.target.organization_id(),
            role_id: self.role.as_deref().map(id_of).transpose()?.unwrap_or_default(),
            service_account_id: self.service_account.unwrap_or_default(),
            user_id: self.user.unwrap_or_default(),
            ..Default::default()
        };
        self.client.run(async |session| {
            session.aim(&mut wanted.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListGrantsRequest { page_size, page_token, ..wanted.clone() };
                let request = session.request(message)?;
                let call = async { service(session).list_grants(request).await };
                session.answer(call).await.map(ListedGrants::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "grants");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

//! `keyledger org create`

use clap::Args;

use super::super::client::{Client, Repeat};
use super::super::failure::Outcome;
use super::super::flags;
use super::super::view::organization::Created;
use super::service;
use crate::proto;

/// Create an organization.
///
/// Needs an operator's key.
#[derive(Args)]
pub(in crate::cli) struct Create {
    /// What it is called: 1 to 100 characters
    #[arg(long)]
    name: String,

    /// What its keys begin with: 2 to 10 characters of a-z and 0-9, a letter first; no other
    /// organization's
    #[arg(long, value_name = "PREFIX")]
    key_prefix: String,

    /// `paid`, or `free`, whose keys live one hour at most [default: paid]
    #[arg(long, value_parser = flags::not_empty)]
    plan: Option<String>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    client: Client,
}

impl Create {
    pub(in crate::cli) fn run(self) -> Outcome {
        let request = proto::CreateOrganizationRequest {
            name: self.name,
            key_prefix: self.key_prefix,
            plan: self.plan.unwrap_or_default(),
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            let request = session.request(request)?;
            let answer = session.answer(service(session).create_organization(request)).await?;
            let created = Created::from(answer);
            session.print(&created, || created.to_text())
        })
    }
}

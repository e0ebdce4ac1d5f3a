//! `keyledger org get`

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::flags;
use super::super::view::organization::Got;
use super::service;
use crate::proto;

/// Show one organization.
#[derive(Args)]
pub(in crate::cli) struct Get {
    /// The organization, by identifier or by what its keys begin with [default: your key's own;
    /// an operator must name one]
    #[arg(env = "KEYLEDGER_ORG", value_name = "ORGANIZATION", value_parser = flags::not_empty)]
    organization_id: Option<String>,

    #[command(flatten)]
    client: Client,
}

impl Get {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::GetOrganizationRequest {
            organization_id: self.organization_id.unwrap_or_default(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let answer = session.answer(service(session).get_organization(request)).await?;
            let got = Got::from(answer);
            session.print(&got, || got.to_text())
        })
    }
}

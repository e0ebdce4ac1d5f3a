//! `keyledger key get`

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::view::key::Got;
use super::service;
use crate::proto;

/// Show one key, without its secret.
#[derive(Args)]
pub(in crate::cli) struct Get {
    /// The key
    #[arg(value_name = "ID")]
    key_id: String,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Get {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::GetKeyRequest {
            organization_id: self.target.organization_id(),
            key_id: self.key_id,
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).get_key(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            got.warn();
            Ok(code)
        })
    }
}

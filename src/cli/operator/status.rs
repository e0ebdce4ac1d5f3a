//! `keyledger operator status`

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::view::operator::Status as View;
use super::service;
use crate::proto;

/// Show what the server is and how it fares.
///
/// Needs an operator's key.
#[derive(Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    client: Client,
}

impl Status {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run(async |session| {
            let request = session.request(proto::GetStatusRequest {})?;
            let status = View::from(session.answer(service(session).get_status(request)).await?);
            session.print(&status, || status.to_text())
        })
    }
}

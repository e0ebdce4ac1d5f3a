//! `keyledger operator rebuild-index`

use std::process::ExitCode;

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::output::{print_json_line, talk};
use super::service;
use crate::proto;

/// Make the server's activity index anew from history, while it serves.
///
/// Returns at once. Queries are answered meanwhile and find the same, but cost more;
/// `operator status` says how many events are still to come. Needs an operator's key.
#[derive(Args)]
pub(in crate::cli) struct RebuildIndex {
    #[command(flatten)]
    client: Client,
}

impl RebuildIndex {
    pub(in crate::cli) fn run(self) -> Outcome {
        let json = self.client.json();
        self.client.run(async |session| {
            let request = session.request(proto::RebuildActivityIndexRequest {})?;
            let call = async { service(session).rebuild_activity_index(request).await };
            session.answer(call).await?;
            if json {
                print_json_line(&serde_json::json!({}))?;
            } else {
                talk("the activity index is being made anew\n");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

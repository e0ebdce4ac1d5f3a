//! `keyledger projections rebuild`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::failure::Outcome;
use super::super::output::{print, print_json};
use super::offline::Offline;

/// Make what is derived anew from all history, with the server stopped.
///
/// The same as deleting projections.db, but the next start is quick.
#[derive(Args)]
pub(in crate::cli) struct Rebuild {
    #[command(flatten)]
    offline: Offline,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Rebuilt {
    organizations: u64,
    events: u64,
}

impl Rebuild {
    pub(in crate::cli) fn run(self) -> Outcome {
        let rebuilt = self.offline.with(async |opened| {
            opened.forget_derived().await?;
            let node = opened.replay().await?;
            let taken = node.take_snapshots().await;
            node.close().await;
            taken?;
            let replayed = node.replayed;
            Ok(Rebuilt { organizations: replayed.organizations, events: replayed.events })
        })?;
        if self.json {
            print_json(&rebuilt)?;
        } else {
            let Rebuilt { organizations, events } = rebuilt;
            print(&format!("{organizations} organizations made anew from {events} events\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

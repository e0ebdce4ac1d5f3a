//! `keyledger projections rebuild`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::directory::{Directory, block_on, failure};
use super::super::failure::Outcome;
use super::super::output::{print, print_json};
use crate::node::Opened;

/// Make what is derived anew from all history, with the server stopped.
///
/// The same as deleting projections.db, but the next start is quick.
#[derive(Args)]
pub(in crate::cli) struct Rebuild {
    #[command(flatten)]
    directory: Directory,

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
        const DOING: &str = "rebuild";
        let directories = self.directory.find(DOING)?;
        let rebuilt = block_on(async {
            let rebuilt = async {
                let opened = Opened::open(directories).await?;
                opened.forget_derived().await?;
                let node = opened.replay().await?;
                let taken = node.take_snapshots().await;
                node.close().await;
                taken?;
                let replayed = node.replayed;
                Ok(Rebuilt { organizations: replayed.organizations, events: replayed.events })
            };
            rebuilt.await.map_err(|error| failure(error, DOING))
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

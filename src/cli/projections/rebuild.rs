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
/// The same as deleting projections.db and activity.db, but the next start is quick, and so
/// are the first questions to the activity log. A running server makes the activity index
/// anew by `keyledger operator rebuild-index`.
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
    /// Events that the activity index holds.
    indexed: u64,
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
                let indexed = node.fill_activity_index().await;
                node.close().await;
                taken?;
                let indexed = indexed?;
                let replayed = node.replayed;
                let (organizations, events) = (replayed.organizations, replayed.events);
                Ok(Rebuilt { organizations, events, indexed })
            };
            rebuilt.await.map_err(|error| failure(error, DOING))
        })?;
        if self.json {
            print_json(&rebuilt)?;
        } else {
            let Rebuilt { organizations, events, indexed } = rebuilt;
            print(&format!(
                "{organizations} organizations made anew from {events} events, {indexed} of them in the activity index\n"
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

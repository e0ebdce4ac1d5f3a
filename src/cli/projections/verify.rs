//! `keyledger projections verify`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::failure::Outcome;
use super::super::output::{print, print_json};
use super::offline::Offline;

/// Compare what is derived with a replay of all history, with the server stopped.
///
/// Reads projections.db as a start does, replays every event, and compares the two byte by
/// byte. Exit code 0: they are the same. 1: they differ; `projections rebuild` makes it anew,
/// and somebody should ask how it came to differ.
#[derive(Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    offline: Offline,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Verified {
    organizations: u64,
    snapshots: u64,
    differing: Vec<Differing>,
}

#[derive(Serialize)]
struct Differing {
    organization_id: String,
    revision: Option<u64>,
}

impl Verify {
    pub(in crate::cli) fn run(self) -> Outcome {
        let verified = self.offline.with(async |opened| {
            let node = opened.replay().await?;
            let differing = node.differing().await;
            node.leave().await;
            let differing = differing?.into_iter().map(|(id, revision)| Differing {
                organization_id: id.text(),
                revision: revision.map(|it| it.0),
            });
            Ok(Verified {
                organizations: node.replayed.organizations,
                snapshots: node.replayed.snapshots,
                differing: differing.collect(),
            })
        })?;
        let same = verified.differing.is_empty();
        if self.json {
            print_json(&verified)?;
        } else {
            let Verified { organizations, snapshots, differing } = &verified;
            let mut text = format!(
                "{organizations} organizations, {snapshots} of them from snapshots: {}\n",
                if same { "what history says" } else { "not what history says" }
            );
            for Differing { organization_id, .. } in differing {
                text.push_str(&format!("{organization_id} differs\n"));
            }
            print(&text)?;
        }
        Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

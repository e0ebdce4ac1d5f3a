//! `keyledger projections verify`

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::directory::{Directory, block_on, failure};
use super::super::failure::Outcome;
use super::super::output::{print, print_json, talk};
use crate::node::{Directories, NodeError, Opened};

/// Compare what is derived with a replay of all history, with the server stopped.
///
/// Reads projections.db as a start does, replays every event, and compares the two byte by
/// byte; and holds activity.db against what every event can be found by. Nothing is changed.
/// Exit code 0: they are the same. 1: they differ, or one of the files cannot be used (`projections rebuild` makes it anew, and somebody should
/// ask how it came to that), or history itself is damaged.
#[derive(Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    directory: Directory,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Default, Serialize)]
struct Verified {
    organizations: u64,
    snapshots: u64,
    accounts: u64,
    /// Why a file cannot be used; none where both can, or are not there.
    unusable: Option<String>,
    /// The activity index is not what history says.
    activity_index_differs: bool,
    differing: Vec<Differing>,
    /// Streams of accounts and e-mails that differ.
    differing_streams: Vec<String>,
    damaged: Vec<Damaged>,
}

#[derive(Serialize)]
struct Differing {
    organization_id: String,
    revision: Option<u64>,
}

/// A stream whose history is damaged.
#[derive(Serialize)]
struct Damaged {
    stream: String,
    fault: String,
}

const DOING: &str = "verify";

impl Verify {
    pub(in crate::cli) fn run(self) -> Outcome {
        let directories = self.directory.find(DOING)?;
        let verified =
            block_on(async { verified(directories).await.map_err(|error| failure(error, DOING)) })?;
        let whole = verified.is_whole();
        if self.json {
            print_json(&verified)?;
        } else {
            print(&verified.to_text())?;
        }
        if verified.unusable.is_some() || !verified.is_as_history_says() {
            talk("next: ask how it came to that, then `keyledger projections rebuild`\n");
        }
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

async fn verified(directories: Directories) -> Result<Verified, NodeError> {
    match Opened::look_at_derived(&directories).await {
        // Opening it would make it anew: first somebody is to see it.
        Err(NodeError::Derived(why)) if why.is_damage() => {
            return Ok(Verified { unusable: Some(why.to_string()), ..Verified::default() });
        }
        looked => looked?,
    }
    let node = Opened::open(directories).await?.replay().await?;
    let differing = node.differing().await;
    let index_is_right = node.activity_index_is_right().await;
    node.leave().await;
    let (differing, differing_streams) = differing?;
    let differing = differing.into_iter().map(|(id, revision)| Differing {
        organization_id: id.text(),
        revision: revision.map(|it| it.0),
    });
    let damaged = node
        .damaged()
        .into_iter()
        .map(|(stream, fault)| Damaged { stream: stream.to_string(), fault: fault.to_string() });
    Ok(Verified {
        organizations: node.replayed.organizations,
        snapshots: node.replayed.snapshots,
        accounts: node.replayed.accounts,
        unusable: node
            .replayed
            .snapshots_refused
            .as_ref()
            .map(|it| format!("projections.db: {it}")),
        activity_index_differs: !index_is_right?,
        differing: differing.collect(),
        differing_streams: differing_streams.iter().map(ToString::to_string).collect(),
        damaged: damaged.collect(),
    })
}

impl Verified {
    fn is_whole(&self) -> bool {
        self.unusable.is_none() && self.is_as_history_says() && self.damaged.is_empty()
    }

    fn is_as_history_says(&self) -> bool {
        !self.activity_index_differs
            && self.differing.is_empty()
            && self.differing_streams.is_empty()
    }

    fn to_text(&self) -> String {
        let Self {
            organizations,
            snapshots,
            accounts,
            unusable,
            activity_index_differs,
            differing,
            differing_streams,
            damaged,
        } = self;
        let mut text = String::new();
        if let Some(why) = unusable {
            text.push_str(&format!("what is derived cannot be used: {why}\n"));
        }
        if *activity_index_differs {
            text.push_str("activity.db differs from what history says\n");
        }
        for Damaged { stream, fault } in damaged {
            text.push_str(&format!("history of stream {stream} is damaged: {fault}\n"));
        }
        for Differing { organization_id, .. } in differing {
            text.push_str(&format!("{organization_id} differs from what history says\n"));
        }
        for stream in differing_streams {
            text.push_str(&format!("stream {stream} differs from what history says\n"));
        }
        if self.is_whole() {
            text.push_str(&format!(
                "{organizations} organizations, {snapshots} of them from snapshots, and {accounts} accounts: what history says\n"
            ));
        }
        text
    }
}

//! `keyledger break-glass replay`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::client::{Client, Session, Target};
use super::super::failure::{Failure, Outcome};
use super::super::output::{print, print_json_line, safe, talk};
use super::super::view::activity::Entry;
use super::bundle::Bundle;
use super::new_file::NewFile;
use super::service;
use super::timeline::Timeline;
use crate::proto;

/// Show all that was done under a grant, in order: each use and refusal, what was changed,
/// and where nothing happened.
///
/// With `--json`, each entry is an object on a line of its own. `--bundle` keeps the stored
/// events for whoever checks them without a server (`check`), with the keys that open what is
/// sealed in them and nothing else: guard it as you would that personal data.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger break-glass replay bgg_01M3250V000000000000000001 --org vtx
  keyledger break-glass replay bgg_01M3250V000000000000000001 --org vtx --follow
  keyledger break-glass replay bgg_01M3250V000000000000000001 --org vtx --bundle incident-7.jsonl")]
pub(in crate::cli) struct Replay {
    /// The grant
    #[arg(value_name = "GRANT")]
    grant_id: String,

    /// Go on with what is yet to come, until the grant has ended or Ctrl-C
    #[arg(long)]
    follow: bool,

    /// Only what stands behind this revision of the organization's stream
    #[arg(long, value_name = "REVISION", conflicts_with = "bundle")]
    after_revision: Option<u64>,

    /// Write the evidence, too, into this new file of mode 0600
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Replay {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut message = proto::ReplayGrantRequest {
            organization_id: self.target.organization_id(),
            grant_id: self.grant_id,
            after_revision: self.after_revision,
            follow: self.follow,
            evidence: self.bundle.is_some(),
        };
        let file = self.bundle.as_deref().map(|path| NewFile::make(path, "the bundle"));
        let file = file.transpose()?;
        self.client.run(async |session| {
            session.aim(&mut message.organization_id).await?;
            let mut shown = Shown { bundle: file.map(Bundle::new), ..Shown::default() };
            let complete = shown.replay(session, message).await?;
            shown.end(session, complete)?;
            if let (Some(path), false) = (&self.bundle, session.json()) {
                let path = safe(&path.display().to_string());
                talk(&format!("saved: `keyledger break-glass check {path}` checks it\n"));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

#[derive(Default)]
struct Shown {
    timeline: Option<Timeline>,
    grant: Option<proto::BreakGlassGrant>,
    skipped: bool,
    bundle: Option<Bundle>,
}

impl Shown {
    /// Shows pieces as they arrive; gives whether the grant has ended and all of it was shown.
    async fn replay(
        &mut self,
        session: &Session<'_>,
        message: proto::ReplayGrantRequest,
    ) -> Result<bool, Failure> {
        self.skipped = message.after_revision.is_some();
        let request = session.stream_request(message)?;
        let mut pieces = session.answer(service(session).replay_grant(request)).await?;
        let mut complete = false;
        loop {
            let next = tokio::select! {
                next = pieces.message() => next,
                _ = tokio::signal::ctrl_c() => return Ok(false),
            };
            let Some(piece) = next.map_err(|status| session.refused(&status))? else {
                return Ok(complete);
            };
            complete = piece.complete;
            self.show(session, piece)?;
        }
    }

    fn show(
        &mut self,
        session: &Session<'_>,
        piece: proto::ReplayGrantResponse,
    ) -> Result<(), Failure> {
        if let Some(grant) = piece.grant {
            if let Some(bundle) = &mut self.bundle {
                bundle.begin(&grant)?;
            }
            self.grant = Some(grant);
        }
        let grant = self.grant.as_ref();
        let timeline = self.timeline.get_or_insert_with(|| match grant {
            Some(grant) if self.skipped => Timeline::behind(grant),
            Some(grant) => Timeline::of(&grant.id),
            None => Timeline::default(),
        });
        for replayed in piece.entries {
            if let Some(bundle) = &mut self.bundle {
                bundle.add(&replayed)?;
            }
            let Some(entry) = replayed.entry else { continue };
            if session.json() {
                print_json_line(&Entry::from(entry))?;
            } else {
                print(&timeline.tell(&entry))?;
            }
        }
        Ok(())
    }

    fn end(self, session: &Session<'_>, complete: bool) -> Result<(), Failure> {
        if let Some(bundle) = self.bundle {
            bundle.end(complete)?;
        }
        match (self.timeline, &self.grant) {
            (Some(mut timeline), Some(grant)) if !session.json() => {
                if self.skipped {
                    timeline.take_numbers(grant);
                }
                print(&format!("\n{}", timeline.summary()))
            }
            _ if complete => Ok(()),
            _ => {
                talk("incomplete: the grant has not ended; more may follow\n");
                Ok(())
            }
        }
    }
}

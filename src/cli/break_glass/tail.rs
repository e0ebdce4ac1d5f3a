//! `keyledger break-glass tail`

use std::process::ExitCode;

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::output::{print, print_json_line, talk};
use super::super::view::break_glass::Alert;
use super::service;
use crate::proto;

/// Show alerts as they happen, until Ctrl-C: openings, refusals, ends, and what else befalls
/// grants beside their uses.
///
/// Of one organization, or of all where an operator names none. With `--json`, each alert is an
/// object on a line of its own.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger break-glass tail --json")]
pub(in crate::cli) struct Tail {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Tail {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut message =
            proto::WatchBreakGlassRequest { organization_id: self.target.organization_id() };
        self.client.run(async |session| {
            session.aim(&mut message.organization_id).await?;
            let request = session.stream_request(message)?;
            let mut alerts = session.answer(service(session).watch_break_glass(request)).await?;
            talk("watching; Ctrl-C ends it\n");
            loop {
                let next = tokio::select! {
                    next = alerts.message() => next,
                    _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
                };
                let Some(alert) = next.map_err(|status| session.refused(&status))? else {
                    return Ok(ExitCode::SUCCESS);
                };
                // The call stands, and that is all.
                if alert.kind == i32::from(proto::BreakGlassAlertKind::Unspecified) {
                    continue;
                }
                let alert = Alert::from(alert);
                if session.json() {
                    print_json_line(&alert)?;
                } else {
                    print(&alert.to_text())?;
                }
            }
        })
    }
}

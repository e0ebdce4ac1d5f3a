//! `keyledger operator rotate-pepper` and `keyledger operator peppers`

use std::process::ExitCode;

use clap::Args;

use super::super::directory::{Directory, failure};
use super::super::failure::Outcome;
use super::super::output::{print, print_json, talk};
use super::super::view::operator::{Pepper, PepperRotated, Peppers};

/// Make a new pepper, with the server stopped.
///
/// The pepper keys the digests of credentials. Keys that were made before go on verifying
/// under the one they were made with; keys that are made from the next start on use the
/// new one. Back up the secrets directory afterwards.
#[derive(Args)]
pub(in crate::cli) struct RotatePepper {
    #[command(flatten)]
    directory: Directory,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl RotatePepper {
    pub(in crate::cli) fn run(self) -> Outcome {
        const DOING: &str = "rotate the pepper";
        let (pepper, path) = self.directory.with_node(DOING, async |node| {
            node.rotate_pepper().await.map_err(|error| {
                failure(error, DOING).hint("nothing is lost by it; run this again")
            })
        })?;
        let rotated = PepperRotated { pepper: pepper.0, file: path.display().to_string() };
        if self.json {
            print_json(&rotated)?;
        } else {
            print(&rotated.to_text())?;
        }
        talk("New keys are made under it from the next start on; the others go on verifying.\n");
        talk("Back up the secrets directory now: without this file those keys are lost.\n");
        Ok(ExitCode::SUCCESS)
    }
}

/// List the peppers, and how many keys need each, with the server stopped.
///
/// A retired pepper that no key needs may be removed. A key needs its pepper while it is in
/// force or disabled; one whose secret was imported or configured needs it for good.
#[derive(Args)]
pub(in crate::cli) struct ListPeppers {
    #[command(flatten)]
    directory: Directory,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ListPeppers {
    pub(in crate::cli) fn run(self) -> Outcome {
        let peppers = self.directory.with_node("list the peppers", async |node| {
            // What cannot be read cannot be counted.
            let whole = node.replayed.stopped == 0;
            let pepper = |it: crate::ledger::pepper_use::PepperUse| Pepper {
                pepper: it.pepper.0,
                file: node.pepper_path(it.pepper).display().to_string(),
                current: it.current,
                present: it.present,
                keys: it.keys,
                needed_by: it.needed_by,
                removable: whole && it.present && !it.current && it.needed_by == 0,
            };
            let peppers = node.ledger.pepper_use().into_iter().map(pepper).collect();
            Ok(Peppers { peppers, organizations_stopped: node.replayed.stopped })
        })?;
        if self.json {
            print_json(&peppers)?;
        } else {
            print(&peppers.to_text())?;
        }
        if peppers.organizations_stopped > 0 {
            talk("warning: some organizations are stopped; their keys are not all counted\n");
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! `keyledger operator reissue`: for when no operator's key is left to show a server.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::super::directory::{Directory, failure};
use super::super::failure::Outcome;
use super::super::output::{print, print_json, safe, talk};
use super::super::view::operator::Reissued;
use crate::node::{ADMIN_KEY_FILE, FirstKey};

/// What a server in the way must be stopped for.
const DOING: &str = "reissue the key";

/// Replace the operator's own key, with the server stopped.
///
/// The key in the data directory's admin.key is revoked, and a new one takes its place
/// there. Other operators' keys stay as they are.
#[derive(Args)]
pub(in crate::cli) struct Reissue {
    #[command(flatten)]
    directory: Directory,

    /// Print one JSON object; the key itself is not in it
    #[arg(long)]
    json: bool,
}

impl Reissue {
    pub(in crate::cli) fn run(self) -> Outcome {
        let key = self.directory.with_node(DOING, async |node| {
            node.reissue_operator_key().await.map_err(|error| {
                failure(error, DOING).hint(format!(
                    "{ADMIN_KEY_FILE} may hold a key that is not in force now; run this again"
                ))
            })
        })?;
        let reissued = Reissued { api_key_file: key.path.display().to_string() };
        if self.json {
            print_json(&reissued)?;
        } else {
            print(&reissued.to_text())?;
        }
        tell(&key);
        Ok(ExitCode::SUCCESS)
    }
}

fn tell(key: &FirstKey) {
    let path = safe(&key.path.display().to_string());
    talk(&format!("The operator's new key is in {path} (readable by you alone).\n"));
    // The key itself goes to a terminal only: never into a log.
    if std::io::stderr().is_terminal() {
        talk(&Zeroizing::new(format!("It is shown this once: {}\n", key.secret.expose())));
    }
    talk("Any key it held before is refused from now on; other operator keys stay in force.\n");
}

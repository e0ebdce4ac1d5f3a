//! `keyledger operator reissue`: the one verb that opens the data directory itself, for
//! when no operator's key is left to show a server.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::super::failure::{Failure, Outcome};
use super::super::output::{print, print_json, safe, talk};
use super::super::view::operator::Reissued;
use crate::config::Settings;
use crate::node::{ADMIN_KEY_FILE, FirstKey, NodeError, Opened};
use crate::store::embedded::OpenError;

/// Replace the operator's own key, with the server stopped.
///
/// The key in the data directory's admin.key is revoked, and a new one takes its place
/// there. Other operators' keys stay as they are.
#[derive(Args)]
pub(in crate::cli) struct Reissue {
    /// The settings file [default: keyledger.toml, if it is there]
    #[arg(long, env = "KEYLEDGER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where events are kept [default: keyledger-data]
    #[arg(long, env = "KEYLEDGER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where the vault, its root key and the pepper are kept [default: `secrets` in the data
    /// directory]
    #[arg(long, env = "KEYLEDGER_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,

    /// Print one JSON object; the key itself is not in it
    #[arg(long)]
    json: bool,
}

impl Reissue {
    pub(in crate::cli) fn run(self) -> Outcome {
        let flags = Settings {
            data_dir: self.data_dir,
            secrets_dir: self.secrets_dir,
            ..Settings::default()
        };
        let settings = flags.or(Settings::from_file(self.config).map_err(anyhow::Error::from)?);
        let key = reissue(&settings)?;
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

fn reissue(settings: &Settings) -> Result<FirstKey, Failure> {
    let directories = settings.directories();
    // Opening would make what is not there.
    if !directories.hold_history() {
        let data = directories.data.clone();
        return Err(failure(NodeError::NoInstallation(data))
            .hint("name the server's data directory with `--data-dir`"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fault("cannot start").because(error))?;
    runtime.block_on(async {
        let node =
            Opened::open(directories).await.map_err(failure)?.replay().await.map_err(failure)?;
        let key = node.reissue_operator_key().await.map_err(|error| {
            failure(error).hint(format!(
                "{ADMIN_KEY_FILE} may hold a key that is not in force now; run this again"
            ))
        });
        node.close().await;
        key
    })
}

fn failure(error: NodeError) -> Failure {
    if let NodeError::OpenStore(OpenError::DirectoryLocked(path)) = &error {
        return Failure::fault(format!("a server is using data directory `{}`", path.display()))
            .hint("stop it, reissue the key, then start it again");
    }
    anyhow::Error::from(error).into()
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

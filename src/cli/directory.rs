//! Verbs that open the data directory themselves, with the server stopped.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::Settings;
use crate::node::{Directories, Node, NodeError, Opened};
use crate::store::embedded::OpenError;
use crate::store::engine_url::EngineText;

// No doc comment: clap would take it for the verb's own.
#[derive(Args)]
pub(super) struct Directory {
    /// The settings file [default: keyledger.toml, if it is there]
    #[arg(long, env = "KEYLEDGER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where events are kept [default: keyledger-data]
    #[arg(long, env = "KEYLEDGER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where the vault, its root key and the peppers are kept [default: `secrets` in the data
    /// directory]
    #[arg(long, env = "KEYLEDGER_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,

    /// The server that keeps the events, by its connection string [default: none]
    #[arg(long, env = "KEYLEDGER_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<EngineText>,
}

impl Directory {
    /// The directories, which must hold history: opening would make what is not there.
    pub(super) fn find(self, doing: &str) -> Result<Directories, Failure> {
        let flags = Settings {
            data_dir: self.data_dir,
            secrets_dir: self.secrets_dir,
            store: self.store,
            ..Settings::default()
        };
        let settings = flags.or(Settings::from_file(self.config).map_err(anyhow::Error::from)?);
        let directories = settings.directories();
        if directories.hold_history() {
            return Ok(directories);
        }
        Err(failure(NodeError::NoInstallation(directories.data), doing)
            .hint("name the server's data directory with `--data-dir`"))
    }

    /// Opens the directories, replays history, does this, and closes them again. `doing`
    /// says what a server in the way must be stopped for.
    pub(super) fn with_node<T>(
        self,
        doing: &str,
        work: impl AsyncFnOnce(&Node) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let directories = self.find(doing)?;
        block_on(async {
            let opened = Opened::open(directories).await.map_err(|error| failure(error, doing))?;
            let node = opened.replay().await.map_err(|error| failure(error, doing))?;
            let outcome = work(&node).await;
            node.close().await;
            outcome
        })
    }
}

/// Runs what such a verb does.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::fault("cannot start").because(error))?
        .block_on(work)
}

/// What went wrong; `doing` as in [`Directory::with_node`].
pub(super) fn failure(error: NodeError, doing: &str) -> Failure {
    if let NodeError::OpenStore(OpenError::DirectoryLocked(path)) = &error {
        return Failure::fault(format!("a server is using data directory `{}`", path.display()))
            .hint(format!("stop it, {doing}, then start it again"));
    }
    anyhow::Error::from(error).into()
}

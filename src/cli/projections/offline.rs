//! A data directory that is opened by a verb itself.

use std::path::PathBuf;

use clap::Args;

use super::super::failure::Failure;
use crate::config::Settings;
use crate::node::{NodeError, Opened};
use crate::store::embedded::OpenError;
use crate::store::engine_url::EngineText;

/// Which directories.
#[derive(Args)]
pub(super) struct Offline {
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

    /// The server that keeps the events, by its connection string [default: none]
    #[arg(long, env = "KEYLEDGER_STORE", value_name = "URL", hide_env_values = true)]
    store: Option<EngineText>,
}

impl Offline {
    /// Opens the directories, which must hold history, and works on them.
    pub(super) fn with<T>(
        self,
        work: impl AsyncFnOnce(Opened) -> Result<T, NodeError>,
    ) -> Result<T, Failure> {
        let flags = Settings {
            data_dir: self.data_dir,
            secrets_dir: self.secrets_dir,
            store: self.store,
            ..Settings::default()
        };
        let settings = flags.or(Settings::from_file(self.config).map_err(anyhow::Error::from)?);
        let directories = settings.directories();
        // Opening would make what is not there.
        if !directories.hold_history() {
            let data = directories.data.clone();
            return Err(failure(NodeError::NoInstallation(data))
                .hint("name the server's data directory with `--data-dir`"));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fault("cannot start").because(error))?;
        runtime.block_on(async {
            let opened = Opened::open(directories).await.map_err(failure)?;
            work(opened).await.map_err(failure)
        })
    }
}

fn failure(error: NodeError) -> Failure {
    if let NodeError::OpenStore(OpenError::DirectoryLocked(path)) = &error {
        return Failure::fault(format!("a server is using data directory `{}`", path.display()))
            .hint("stop it first");
    }
    anyhow::Error::from(error).into()
}

//! `keyledger serve`

use std::env::VarError;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use sd_notify::NotifyState;
use zeroize::Zeroizing;

use crate::config::{Collector, LogFormat, Settings};
use crate::ledger::secret::Secret;
use crate::ledger::start::WeakToken;
use crate::node::{FirstKey, Node};
use crate::server::{self, Announce};

/// Run the server.
///
/// Without any configuration it listens on loopback and keeps everything in
/// ./keyledger-data; the first start writes the operator's key to
/// ./keyledger-data/admin.key. `ADMIN_API_TOKEN` in the environment is an operator's key too.
#[derive(Args)]
pub(super) struct Serve {
    /// The settings file [default: keyledger.toml, if it is there]
    #[arg(long, env = "KEYLEDGER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// What the variables of emergency access say.
fn with_emergencies(settings: Settings) -> anyhow::Result<Settings> {
    let variable = |name: &str| match std::env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => anyhow::bail!("`{name}`: must be a text"),
    };
    let master_key = variable("MASTER_KEY")?.map(|it| Secret::new(Zeroizing::new(it)));
    let enabled = variable("BREAK_GLASS_ENABLED")?;
    let break_glass = settings.break_glass.clone().unwrap_or_default();
    let break_glass = break_glass.with_variables(enabled.as_deref(), master_key.as_ref())?;
    Ok(Settings { break_glass: Some(break_glass), ..settings })
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let settings = self.settings.or(Settings::from_file(self.config)?);
        let token = match std::env::var("ADMIN_API_TOKEN") {
            // Empty is not absent: a variable that was meant to be set, and was not.
            Ok(token) => Some(token),
            Err(VarError::NotPresent) => None,
            // To take it for absent would revoke the key of the token before it, for good.
            Err(VarError::NotUnicode(_)) => return Err(WeakToken.into()),
        };
        let settings = with_emergencies(settings)?;
        let config = settings.complete(token)?;
        start_logging(&config.log, config.log_format)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async { server::serve(config, &Talk, stop()).await })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The flags of `serve`, and with them the variables that are settings.
pub(super) fn flags() -> clap::Command {
    Flags::command()
}

/// Names of the environment's variables that are text.
pub(super) fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|_| {
        anyhow::anyhow!("`log`: must be a filter such as `info` or `keyledger=debug`")
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

async fn stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Without it only the other signal ends the server.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Tells whoever started the server what they need.
struct Talk;

#[expect(clippy::print_stderr, reason = "stderr is where talk goes")]
impl Announce for Talk {
    fn listening(&self, address: SocketAddr) {
        tracing::info!(%address, "listening; replaying history");
    }

    fn metrics(&self, address: SocketAddr) {
        tracing::info!(%address, "answering metrics");
    }

    fn exporting(&self, collector: &Collector) {
        let Collector { endpoint, sample_ratio, service_name } = collector;
        let endpoint = endpoint.uri();
        tracing::info!(%endpoint, sample_ratio, %service_name, "telling a collector about calls");
    }

    fn first_key(&self, key: &FirstKey) {
        eprintln!();
        eprintln!("  The operator's key is in {} (readable by you alone).", key.path.display());
        // The key itself goes to a terminal only, and only this once: never into a log.
        if std::io::stderr().is_terminal() {
            eprintln!("  It is shown this once: {}", key.secret.expose());
        }
        eprintln!();
    }

    fn ready(&self, node: &Node) {
        notify(&[NotifyState::Ready]);
        // The operator's own included, as everywhere.
        let organizations = node.ledger.tables().all().len();
        if !node.has_operator_key() {
            tracing::warn!(
                "no operator's key is in force: stop the server and run `keyledger operator reissue`"
            );
        }
        let replayed = &node.replayed;
        tracing::info!(
            events_replayed = replayed.events,
            snapshots = replayed.snapshots,
            organizations,
            stopped = replayed.stopped,
            accounts = replayed.accounts,
            accounts_stopped = replayed.accounts_stopped,
            "ready"
        );
    }

    fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
        tracing::info!("shutting down");
    }
}

/// Tells systemd, where it asked to be told.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

//! `keyledger migrate`: the history of a data directory, carried over to a server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Failure, Outcome};
use super::output::{print, print_json, safe, talk};
use crate::ledger::contact::Loss;
use crate::store::embedded::{EmbeddedStore, OpenError, Options};
use crate::store::engine_url::EngineText;
use crate::store::eventstore::EngineStore;
use crate::store::eventstore::migration::{self, Migrated, MigrationError, Progress};
use crate::store::eventstore::registration::{Identity, Registration};

/// Carry the history of a data directory over to an EventStoreDB or KurrentDB server.
///
/// With no server running on either side. The target must be empty; what was cut short goes
/// on when it is run again. At the end both sides are read and compared, event by event. The
/// data directory stays as it is, and so do its secrets: the server on the new store needs
/// them, by `--secrets-dir`.
#[derive(Args)]
pub(super) struct Migrate {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    from: PathBuf,

    /// The server, by its connection string
    #[arg(long, env = "KEYLEDGER_STORE", value_name = "URL", hide_env_values = true)]
    to: EngineText,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub(super) fn run(self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fault("cannot start").because(error))?;
        let migrated = runtime.block_on(self.migrate())?;
        if self.json {
            print_json(&migrated)?;
        } else {
            let Migrated { events, streams, resumed } = migrated;
            print(&format!("events   {events}\nstreams  {streams}\nresumed  {resumed}\n"))?;
        }
        let secrets = safe(&self.from.join("secrets").display().to_string());
        talk(&format!(
            "All of it was compared. Start the server with `--store` and with this history's \
             secrets: `--secrets-dir {secrets}`, unless they are elsewhere.\n"
        ));
        Ok(ExitCode::SUCCESS)
    }

    async fn migrate(&self) -> Result<Migrated, Failure> {
        let url = self.to.url().map_err(|error| Failure::fault(format!("`--to`: {error}")))?;
        let hold = self.from.join("ledger.db").exists();
        if !hold {
            let from = self.from.display();
            return Err(Failure::fault(format!("`--from`: `{from}` holds no `ledger.db`"))
                .hint("name the data directory of a server"));
        }
        let options = Options::new(&self.from);
        let source = tokio::task::spawn_blocking(move || EmbeddedStore::open(&options))
            .await
            .map_err(|_| Failure::fault("a thread ended early"))?
            .map_err(source_failure)?;
        let target = EngineStore::open(&url).await.map_err(anyhow::Error::from)?;
        // Nobody serves meanwhile.
        let identity = Identity::new().map_err(anyhow::Error::from)?;
        let registration = Registration::obtain(&target, identity, url.lease())
            .await
            .map_err(anyhow::Error::from)?;
        let bar = bar();
        let migrated = tokio::select! {
            migrated = migration::migrate(&source, &target, |progress| show(&bar, progress)) => {
                migrated.map_err(target_failure)
            }
            loss = registration.lost() => Err(match loss {
                Loss::Replaced => {
                    Failure::fault("a node has registered in the event store meanwhile")
                        .hint("stop it, and run this again")
                }
                Loss::Fault => {
                    Failure::fault("the registration in the event store is not renewed any more")
                        .hint("run this again")
                }
            }),
        };
        bar.finish_and_clear();
        target.finish().await;
        registration.leave().await;
        target.close().await;
        source.close().await;
        migrated
    }
}

fn source_failure(error: OpenError) -> Failure {
    if let OpenError::DirectoryLocked(path) = &error {
        return Failure::fault(format!("a server is using data directory `{}`", path.display()))
            .hint("stop it, and run this again");
    }
    anyhow::Error::from(error).into()
}

fn target_failure(error: MigrationError) -> Failure {
    use MigrationError::{Ended, NotEmpty, OtherHistory};
    let said = error.to_string();
    let no = matches!(error, NotEmpty | Ended | OtherHistory);
    if no { Failure::refusal(said) } else { Failure::fault(said) }
}

/// On a terminal only.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} [{bar:40}] {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    let (said, done, all) = match progress {
        Progress::Counting(done) => ("counting", done, done),
        Progress::Copying(done, all) => ("copying", done, all),
        Progress::Verifying(done, all) => ("verifying", done, all),
    };
    if bar.message() != said {
        bar.set_message(said);
    }
    bar.set_length(all);
    bar.set_position(done);
}

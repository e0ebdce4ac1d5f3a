//! `keyledger completions` and `keyledger man`: what helps at the prompt.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::failure::{Failure, Outcome};
use super::output;

/// Print a script that completes commands and flags in your shell.
///
/// For bash: keyledger completions bash > ~/.local/share/bash-completion/completions/keyledger
#[derive(Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Outcome {
        let mut script = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages into a directory.
///
/// For all users: keyledger man /usr/local/share/man/man1
#[derive(Args)]
pub(super) struct Manual {
    /// The directory; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Manual {
    pub(super) fn run(self, command: Command) -> Outcome {
        let failed = |error: std::io::Error| {
            let place = self.directory.display();
            Failure::fault(format!("cannot write manual pages into `{place}`")).because(error)
        };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        clap_mangen::generate_to(command, &self.directory).map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}

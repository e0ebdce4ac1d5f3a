//! The command line: one binary, one file per verb.
//!
//! stdout is data, stderr is talk. Exit codes: 0 yes, 1 no (a denial, a refusal), 2 fault.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An event-sourced credential ledger.
#[derive(Parser)]
#[command(name = "keyledger", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server.
    Serve(serve::Serve),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        Verb::Serve(verb) => verb.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stderr, reason = "stderr is where talk goes")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

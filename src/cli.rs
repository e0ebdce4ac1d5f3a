//! The command line: one binary, one file per verb.
//!
//! stdout is data, stderr is talk. Exit codes: 0 yes, 1 no (a denial, a refusal), 2 fault.
//!
//! A verb is a `clap` type with a `run`. Those that ask a server flatten
//! [`client::Client`] and get a [`client::Session`] from it; what they print goes
//! through [`output`], by the shapes in [`view`].

mod activity;
mod as_of;
mod break_glass;
mod client;
mod completions;
mod directory;
mod explain;
mod export;
mod failure;
mod flags;
mod json_line;
mod key;
#[cfg(feature = "eventstore")]
mod migrate;
mod operator;
mod org;
mod output;
mod pages;
mod projections;
mod report;
mod resuming;
mod role;
mod saved_session;
mod secret_text;
mod serve;
mod service_account;
mod session;
mod typed;
mod user;
mod verify;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use failure::{Failure, Outcome};

use crate::config::refuse_unknown_variables;

/// An event-sourced credential ledger.
///
/// `keyledger serve` runs the server; the other verbs ask one, but for those that open its
/// directories while it is stopped (`operator reissue`, `rotate-pepper` and `peppers`,
/// `projections`) and for `break-glass new-master-key` and `check`, `completions` and `man`. Exit codes: 0 yes, 1 no (a denial or a
/// refusal), 2 fault.
#[derive(Parser)]
#[command(name = "keyledger", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Serve(Box<serve::Serve>),
    Verify(Box<verify::Verify>),
    #[command(subcommand)]
    Org(org::Org),
    #[command(subcommand)]
    Key(key::Key),
    #[command(subcommand)]
    ServiceAccount(service_account::ServiceAccount),
    #[command(subcommand)]
    User(user::User),
    #[command(subcommand)]
    Session(session::Session),
    #[command(subcommand)]
    Role(role::Role),
    Activity(Box<activity::Activity>),
    Export(Box<export::Export>),
    AsOf(Box<as_of::AsOf>),
    Explain(Box<explain::Explain>),
    #[command(subcommand)]
    Report(report::Report),
    #[command(subcommand)]
    BreakGlass(break_glass::BreakGlass),
    #[command(subcommand)]
    Operator(operator::Operator),
    #[command(subcommand)]
    Projections(projections::Projections),
    #[cfg(feature = "eventstore")]
    Migrate(migrate::Migrate),
    Completions(completions::Completions),
    #[command(name = "man")]
    Manual(completions::Manual),
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    // Dependencies bring a second provider in: which one is used is said here, once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    if let Err(error) = refuse_unknown_variables(serve::variables(), &serve::flags()) {
        return ended(Err(Failure::fault(error.to_string())));
    }
    let outcome = match cli.verb {
        Verb::Serve(verb) => verb.run().map_err(Into::into),
        Verb::Verify(verb) => verb.run(),
        Verb::Org(noun) => noun.run(),
        Verb::Key(noun) => noun.run(),
        Verb::ServiceAccount(noun) => noun.run(),
        Verb::User(noun) => noun.run(),
        Verb::Session(noun) => noun.run(),
        Verb::Role(noun) => noun.run(),
        Verb::Activity(verb) => verb.run(),
        Verb::Export(verb) => verb.run(),
        Verb::AsOf(verb) => verb.run(),
        Verb::Explain(verb) => verb.run(),
        Verb::Report(noun) => noun.run(),
        Verb::BreakGlass(noun) => noun.run(),
        Verb::Operator(noun) => noun.run(),
        Verb::Projections(noun) => noun.run(),
        #[cfg(feature = "eventstore")]
        Verb::Migrate(verb) => verb.run(),
        Verb::Completions(verb) => verb.run(Cli::command()),
        Verb::Manual(verb) => verb.run(Cli::command()),
    };
    ended(outcome)
}

fn ended(outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        output::talk(&failure.report());
        failure.exit_code()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// clap finds flags that clash, and the like, only when it is asked.
    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}

//! `keyledger service-account`

mod create;
mod list;

use clap::Subcommand;

use super::failure::Outcome;

/// Service accounts: programs that act for an organization, each with keys of its own.
#[derive(Subcommand)]
pub(super) enum ServiceAccount {
    Create(create::Create),
    List(list::List),
}

impl ServiceAccount {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Create(verb) => verb.run(),
            Self::List(verb) => verb.run(),
        }
    }
}

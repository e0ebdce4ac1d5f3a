//! `keyledger projections`: what is derived from history, looked at and made anew, with the
//! server stopped.

mod rebuild;
mod verify;

use clap::Subcommand;

use super::failure::Outcome;

/// What is kept in projections.db, which history can make again.
#[derive(Subcommand)]
pub(super) enum Projections {
    Verify(verify::Verify),
    Rebuild(rebuild::Rebuild),
}

impl Projections {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Verify(verb) => verb.run(),
            Self::Rebuild(verb) => verb.run(),
        }
    }
}

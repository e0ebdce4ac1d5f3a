//! `keyledger user`

mod accept;
mod change;
mod invite;
mod list;

use clap::Subcommand;

use super::failure::Outcome;

/// Users: people as members of an organization.
#[derive(Subcommand)]
pub(super) enum User {
    Invite(Box<invite::Invite>),
    Renew(invite::Renew),
    Accept(Box<accept::Accept>),
    Get(list::Get),
    List(list::List),
    Update(Box<change::Update>),
    Suspend(change::Suspend),
    Restore(change::Restore),
    Remove(change::Remove),
}

impl User {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Invite(verb) => verb.run(),
            Self::Renew(verb) => verb.run(),
            Self::Accept(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Update(verb) => verb.run(),
            Self::Suspend(verb) => verb.run(),
            Self::Restore(verb) => verb.run(),
            Self::Remove(verb) => verb.run(),
        }
    }
}

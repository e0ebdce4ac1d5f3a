//! `keyledger key`

mod change;
mod create;
mod get;
mod import;
mod imported_line;
mod list;
mod revoke;
pub(super) mod role;
mod rotate;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session};
use super::failure::Outcome;
use crate::proto::key_service_client::KeyServiceClient;

/// API keys of one organization.
#[derive(Subcommand)]
pub(super) enum Key {
    Create(Box<create::Create>),
    Get(get::Get),
    List(list::List),
    Rotate(rotate::Rotate),
    EndRotation(change::EndRotation),
    Disable(change::Disable),
    Enable(change::Enable),
    Relabel(change::Relabel),
    Import(import::Import),
    Revoke(Box<revoke::Revoke>),
}

impl Key {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Create(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Rotate(verb) => verb.run(),
            Self::EndRotation(verb) => verb.run(),
            Self::Disable(verb) => verb.run(),
            Self::Enable(verb) => verb.run(),
            Self::Relabel(verb) => verb.run(),
            Self::Import(verb) => verb.run(),
            Self::Revoke(verb) => verb.run(),
        }
    }
}

fn service(session: &Session<'_>) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

//! `keyledger key`

mod create;
mod get;
mod list;
mod revoke;
mod role;

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
    Revoke(revoke::Revoke),
}

impl Key {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Create(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Revoke(verb) => verb.run(),
        }
    }
}

fn service(session: &Session<'_>) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

//! `keyledger org`

mod create;
mod get;
mod list;
mod policy;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session};
use super::failure::Outcome;
use crate::proto::organization_service_client::OrganizationServiceClient;

/// Organizations: the tenants of the installation.
#[derive(Subcommand)]
pub(super) enum Org {
    Create(create::Create),
    Get(get::Get),
    List(list::List),
    Policy(policy::Policy),
}

impl Org {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Create(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Policy(verb) => verb.run(),
        }
    }
}

pub(super) fn service(session: &Session<'_>) -> OrganizationServiceClient<Channel> {
    OrganizationServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

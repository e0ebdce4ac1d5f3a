//! `keyledger role`

mod define;
mod give;
mod holding;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session};
use super::failure::Outcome;
use crate::proto::role_service_client::RoleServiceClient;

/// Roles: named sets of permissions, and who has them.
#[derive(Subcommand)]
pub(super) enum Role {
    List(define::List),
    Get(define::Get),
    Create(define::Create),
    Update(define::Update),
    Retire(define::Retire),
    Grant(give::Grant),
    Revoke(give::Revoke),
    Grants(give::Grants),
    WhoHolds(holding::WhoHolds),
    Effective(holding::Effective),
}

impl Role {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::List(verb) => verb.run(),
            Self::Get(verb) => verb.run(),
            Self::Create(verb) => verb.run(),
            Self::Update(verb) => verb.run(),
            Self::Retire(verb) => verb.run(),
            Self::Grant(verb) => verb.run(),
            Self::Revoke(verb) => verb.run(),
            Self::Grants(verb) => verb.run(),
            Self::WhoHolds(verb) => verb.run(),
            Self::Effective(verb) => verb.run(),
        }
    }
}

fn service(session: &Session<'_>) -> RoleServiceClient<Channel> {
    RoleServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

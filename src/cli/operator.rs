//! `keyledger operator`

mod confirm_clock;
mod peppers;
mod rebuild_index;
mod reissue;
mod status;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session};
use super::failure::Outcome;
use crate::proto::operator_service_client::OperatorServiceClient;

/// The installation itself.
#[derive(Subcommand)]
pub(super) enum Operator {
    Status(status::Status),
    ConfirmClock(confirm_clock::ConfirmClock),
    RebuildIndex(rebuild_index::RebuildIndex),
    Reissue(reissue::Reissue),
    RotatePepper(peppers::RotatePepper),
    Peppers(peppers::ListPeppers),
}

impl Operator {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Status(verb) => verb.run(),
            Self::ConfirmClock(verb) => verb.run(),
            Self::RebuildIndex(verb) => verb.run(),
            Self::Reissue(verb) => verb.run(),
            Self::RotatePepper(verb) => verb.run(),
            Self::Peppers(verb) => verb.run(),
        }
    }
}

fn service(session: &Session<'_>) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

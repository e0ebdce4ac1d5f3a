//! `keyledger break-glass`

mod bundle;
mod check;
mod govern;
mod list;
mod master_key;
mod new_file;
mod new_master_key;
mod open;
mod replay;
mod tail;
mod timeline;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session};
use super::failure::Outcome;
use crate::proto::break_glass_service_client::BreakGlassServiceClient;

/// Break-glass: emergency access that is recorded, ends, and is reviewed.
///
/// A custodian opens a grant with a master key, for one organization and a time, and acts by
/// its token; somebody else reviews what was done. What is used and what is refused is
/// recorded before it is answered.
#[derive(Subcommand)]
pub(super) enum BreakGlass {
    NewMasterKey(new_master_key::NewMasterKey),
    Open(Box<open::Open>),
    Approve(govern::Approve),
    Close(govern::Close),
    Review(govern::Review),
    List(list::List),
    Replay(replay::Replay),
    Check(check::Check),
    Tail(tail::Tail),
}

impl BreakGlass {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::NewMasterKey(verb) => verb.run(),
            Self::Open(verb) => verb.run(),
            Self::Approve(verb) => verb.run(),
            Self::Close(verb) => verb.run(),
            Self::Review(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Replay(verb) => verb.run(),
            Self::Check(verb) => verb.run(),
            Self::Tail(verb) => verb.run(),
        }
    }
}

fn service(session: &Session<'_>) -> BreakGlassServiceClient<Channel> {
    BreakGlassServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

//! `keyledger session`

mod list;
mod log_in;
mod password;
mod person;
mod totp;

use clap::Subcommand;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Session as Asking};
use super::failure::Outcome;
use crate::proto::session_service_client::SessionServiceClient;

/// Sessions: people who are logged in, and what they show for it.
#[derive(Subcommand)]
pub(super) enum Session {
    Login(Box<log_in::Login>),
    Refresh(log_in::Refresh),
    Logout(log_in::Logout),
    #[command(name = "whoami")]
    WhoAmI(person::WhoAmI),
    List(list::List),
    Revoke(list::Revoke),
    StepUp(person::StepUp),
    #[command(subcommand)]
    Totp(totp::Totp),
    RecoveryCodes(totp::RecoveryCodes),
    #[command(subcommand)]
    Password(password::Password),
    SigningKeys(person::SigningKeys),
}

impl Session {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Login(verb) => verb.run(),
            Self::Refresh(verb) => verb.run(),
            Self::Logout(verb) => verb.run(),
            Self::WhoAmI(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Revoke(verb) => verb.run(),
            Self::StepUp(verb) => verb.run(),
            Self::Totp(noun) => noun.run(),
            Self::RecoveryCodes(verb) => verb.run(),
            Self::Password(noun) => noun.run(),
            Self::SigningKeys(verb) => verb.run(),
        }
    }
}

fn service(session: &Asking<'_>) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

//! Joining: `keyledger user accept`.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::org::service;
use super::super::output::talk;
use super::super::typed::{self, PasswordFile};
use super::super::view::user::Accepted;
use crate::proto;

/// Join the organization that you were invited to.
///
/// Whoever has no account yet chooses the password of one, of 12 to 256 characters; whoever
/// has one gives its password, or names a session of it with `--api-key-file`. On standard
/// input the invitation comes first, the password behind it.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user accept --token-file invitation.txt")]
pub(in crate::cli) struct Accept {
    /// The file that holds the invitation's token [default: asked for on a terminal, else a line
    /// of standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    password: PasswordFile,

    /// A code of your authenticator, or one of your recovery codes, where your account asks for
    /// one
    #[arg(long, default_value = "", hide_default_value = true)]
    code: String,

    /// What you are called, for a new account [default: what you were invited as]
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,

    #[command(flatten)]
    client: Client,
}

impl Accept {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        let token = typed::secret(self.token_file.as_deref(), "invitation")?;
        let password = match self.client.names_credential() {
            true => Zeroizing::default(),
            false => self.password.obtain_new()?,
        };
        let message = proto::AcceptInvitationRequest {
            token: String::clone(&token),
            name: self.name,
            password: String::clone(&password),
            code: self.code,
        };
        self.client.run_open(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).accept_invitation(request)).await;
            let answer = answer.map_err(|failure| {
                failure.hint_where(
                    "TOKEN_FAILED",
                    "whoever invited you makes another with `keyledger user renew`",
                )
            })?;
            let accepted = Accepted::from(answer);
            let code = session.print(&accepted, || accepted.to_text())?;
            if !session.json() {
                talk("next: log in: `keyledger session login --email E-MAIL --save FILE`\n");
            }
            Ok(code)
        })
    }
}

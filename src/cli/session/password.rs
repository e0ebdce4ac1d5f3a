//! Passwords: `keyledger session password`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::client::Client;
use super::super::failure::{Failure, Outcome};
use super::super::flags;
use super::super::output::talk;
use super::super::typed::{self, PasswordFile};
use super::super::view::session::{Done, ResetAsked};
use super::service;
use crate::proto;

/// The password of an account.
#[derive(Subcommand)]
pub(in crate::cli) enum Password {
    Change(Change),
    ResetRequest(ResetRequest),
    Reset(Reset),
}

impl Password {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Change(verb) => verb.run(),
            Self::ResetRequest(verb) => verb.run(),
            Self::Reset(verb) => verb.run(),
        }
    }
}

/// Change your password, and end your other sessions.
///
/// On standard input the password comes first, the new one behind it.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session password change --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Change {
    #[command(flatten)]
    password: PasswordFile,

    /// The file that holds the new password, of 12 to 256 characters [default: asked for on a
    /// terminal, else a line of standard input]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    #[command(flatten)]
    client: Client,
}

impl Change {
    pub(in crate::cli) fn run(self) -> Outcome {
        let password = String::clone(&*self.password.obtain()?);
        let new = typed::password(self.new_password_file.as_deref(), "new password", true)?;
        let message = proto::ChangePasswordRequest { password, new_password: String::clone(&new) };
        self.client.run(async |session| {
            let request = session.request(message)?;
            session.answer(service(session).change_password(request)).await?;
            let code = session.print(&Done {}, String::new)?;
            if !session.json() {
                talk("done: your other sessions are ended\n");
            }
            Ok(code)
        })
    }
}

/// Have a one-time token delivered by which a password can be reset.
///
/// The answer is the same whether or not there is such an account. An operator who holds
/// `accounts:write` and names their key is given the token where nobody delivers, to hand over.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger session password reset-request --email alice@example.com
  keyledger session password reset-request --email alice@example.com \
--api-key-file keyledger-data/admin.key")]
pub(in crate::cli) struct ResetRequest {
    /// Whose account
    #[arg(long, value_name = "E-MAIL", value_parser = flags::not_empty)]
    email: String,

    #[command(flatten)]
    client: Client,
}

impl ResetRequest {
    pub(in crate::cli) fn run(self) -> Outcome {
        let message = proto::RequestPasswordResetRequest { email: self.email };
        self.client.run_open(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).request_password_reset(request)).await?;
            let asked = ResetAsked::from(answer);
            let code = session.print(&asked, || asked.to_text())?;
            if !session.json() {
                talk(if asked.has_token() {
                    "note: the token is shown this once: hand it over; `keyledger session \
                     password reset` takes it\n"
                } else if self.client.names_credential() {
                    "done: the token is on its way\n"
                } else {
                    "done: if there is such an account, and the server delivers, a token is on \
                     its way\n"
                });
            }
            Ok(code)
        })
    }
}

/// Set a password by a one-time token, and end all sessions of the account.
///
/// On standard input the token comes first, the password behind it.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session password reset --token-file token.txt")]
pub(in crate::cli) struct Reset {
    /// The file that holds the token [default: asked for on a terminal, else a line of standard
    /// input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    password: PasswordFile,

    #[command(flatten)]
    client: Client,
}

impl Reset {
    pub(in crate::cli) fn run(self) -> Outcome {
        let token = typed::secret(self.token_file.as_deref(), "token")?;
        let new = self.password.obtain_new()?;
        let message = proto::ResetPasswordRequest {
            token: String::clone(&token),
            new_password: String::clone(&new),
        };
        self.client.run_open(async |session| {
            let request = session.request(message)?;
            let done = session.answer(service(session).reset_password(request)).await;
            done.map_err(|it: Failure| it.hint_where("TOKEN_FAILED", "ask for another"))?;
            let code = session.print(&Done {}, String::new)?;
            if !session.json() {
                talk("done: all sessions of the account are ended; log in\n");
            }
            Ok(code)
        })
    }
}

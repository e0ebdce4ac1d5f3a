//! Who one is: `keyledger session whoami`, `step-up`, and `signing-keys`.

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::output::talk;
use super::super::saved_session::Saved;
use super::super::view::session::{LoggedIn, SigningKeys as Keys, Who};
use super::service;
use crate::proto;

/// Show who you are to the server, with any credential, and what you may do.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session whoami --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct WhoAmI {
    #[command(flatten)]
    client: Client,
}

impl WhoAmI {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run(async |session| {
            let request = session.request(proto::WhoAmIRequest {})?;
            let who = Who::from(session.answer(service(session).who_am_i(request)).await?);
            session.print(&who, || who.to_text())
        })
    }
}

/// Show again who you are, for what asks for a second factor that is not long ago.
///
/// What is said to whoever asks keyledger holds for the access token that you have, too. A
/// saved session takes the new one, which says so itself.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session step-up --code 123456 --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct StepUp {
    /// A code of your authenticator, or one of your recovery codes
    #[arg(long)]
    code: String,

    #[command(flatten)]
    client: Client,
}

impl StepUp {
    pub(in crate::cli) fn run(self) -> Outcome {
        let message = proto::StepUpRequest { code: self.code };
        self.client.run(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).step_up(request)).await?;
            let saved = session.saved_session();
            if let (Some(path), Some(tokens)) = (saved, &answer.tokens) {
                let refresh_token = Saved::read(path)?.refresh_token.clone();
                let tokens = proto::Tokens { refresh_token, ..tokens.clone() };
                Saved::of(answer.session.as_ref(), &tokens).write(path)?;
            }
            let shown = answer.tokens.filter(|_| saved.is_none());
            let stepped = LoggedIn::new(answer.session, shown, None);
            let code = session.print(&stepped, || stepped.to_text())?;
            if !session.json() {
                talk("done: this session has shown a second factor just now\n");
            }
            Ok(code)
        })
    }
}

/// Print the public keys that access tokens are signed with, as a JSON Web Key Set.
///
/// Whoever checks tokens by them alone takes a token until it expires, though its session
/// has ended. `GET /.well-known/jwks.json` gives the same.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session signing-keys > jwks.json")]
pub(in crate::cli) struct SigningKeys {
    #[command(flatten)]
    client: Client,
}

impl SigningKeys {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run_open(async |session| {
            let request = session.request(proto::GetSigningKeysRequest {})?;
            let keys = session.answer(service(session).get_signing_keys(request)).await?;
            let keys = Keys::from(keys);
            session.print(&keys, || format!("{}\n", keys.jwks))
        })
    }
}

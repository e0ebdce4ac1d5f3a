//! In and out: `keyledger session login`, `refresh` and `logout`.

use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::super::client::{Client, Session};
use super::super::failure::{Failure, Outcome};
use super::super::flags;
use super::super::output::{safe, talk};
use super::super::saved_session::Saved;
use super::super::typed::{self, PasswordFile};
use super::super::view::session::{LoggedIn, Recorded};
use super::service;
use crate::proto;

/// What a server says whose account asks for a second factor.
const SECOND_FACTOR: &str = "SECOND_FACTOR_REQUIRED";

/// Log in.
///
/// What is saved is a credential of every other verb. The access token in it is good for
/// minutes; `session refresh` gets the next.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session login --email alice@example.com --save ~/.keyledger-session
  keyledger session whoami --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Login {
    /// Whose account
    #[arg(long, value_name = "E-MAIL", value_parser = flags::not_empty)]
    email: String,

    #[command(flatten)]
    password: PasswordFile,

    /// A code of the account's authenticator, or one of its recovery codes [default: asked for
    /// on a terminal, where it is needed]
    #[arg(long, default_value = "", hide_default_value = true)]
    code: String,

    /// The organization to log in to, by identifier or key prefix [default: the account's own]
    #[arg(long = "org", value_name = "ORGANIZATION", value_parser = flags::not_empty)]
    organization_id: Option<String>,

    /// Keep the tokens in this file of mode 0600, and print none
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    client: Client,
}

impl Login {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        if let Some(path) = &self.save {
            Saved::may_be_written(path)?;
        }
        let password = self.password.obtain()?;
        let mut message = proto::LoginRequest {
            email: self.email,
            password: String::clone(&password),
            code: self.code,
            organization_id: self.organization_id.unwrap_or_default(),
            cookies: false,
        };
        let client = self.client;
        client.run_open(async |session| {
            let mut answer = login(session, &message).await;
            let lacks_code = |failure: &Failure| {
                message.code.is_empty() && failure.reason() == Some(SECOND_FACTOR)
            };
            if answer.as_ref().is_err_and(lacks_code) && typed::is_terminal() {
                message.code = typed::ask("code")?;
                answer = login(session, &message).await;
            }
            let answer = answer?;
            let tokens = answer.tokens.unwrap_or_default();
            if let Some(path) = &self.save {
                Saved::of(answer.session.as_ref(), &tokens).write(path)?;
            }
            let shown = self.save.is_none().then_some(tokens);
            let logged_in = LoggedIn::new(answer.session, shown, answer.revision);
            show(session, &logged_in, self.save.as_deref())
        })
    }
}

async fn login(
    session: &Session<'_>,
    message: &proto::LoginRequest,
) -> Result<proto::LoginResponse, Failure> {
    let request = session.request(message.clone())?;
    session.answer(service(session).login(request)).await
}

fn show(session: &Session<'_>, logged_in: &LoggedIn, saved: Option<&Path>) -> Outcome {
    let code = session.print(logged_in, || logged_in.to_text()).map_err(|_| {
        Failure::fault("the session is there, but its tokens could not be written")
            .hint("log in again; `keyledger session list` shows the one that is lost")
    })?;
    if !session.json() {
        talk(&match saved {
            Some(path) => {
                let path = safe(&path.display().to_string());
                format!(
                    "saved: `--api-key-file {path}` shows it, `keyledger session refresh {path}` \
                     goes on with it\n"
                )
            }
            None => "note: the tokens are shown this once; keep them now\n".to_owned(),
        });
    }
    Ok(code)
}

/// Get the next access token, and the next refresh token.
///
/// A refresh token is good once: the session ends when one is used again.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session refresh ~/.keyledger-session")]
pub(in crate::cli) struct Refresh {
    /// The file of `session login --save`, which takes the new tokens [default: the refresh
    /// token is a line of standard input, and the new tokens are printed]
    #[arg(value_name = "FILE")]
    saved: Option<PathBuf>,

    #[command(flatten)]
    client: Client,
}

impl Refresh {
    pub(in crate::cli) fn run(self) -> Outcome {
        let refresh_token = match &self.saved {
            Some(path) => Zeroizing::new(Saved::read(path)?.refresh_token.clone()),
            None => typed::secret(None, "refresh token")?,
        };
        let message = proto::RefreshRequest { refresh_token: String::clone(&refresh_token) };
        self.client.run_open(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).refresh(request)).await?;
            let tokens = answer.tokens.unwrap_or_default();
            if let Some(path) = &self.saved {
                Saved::of(answer.session.as_ref(), &tokens).write(path)?;
            }
            let shown = self.saved.is_none().then_some(tokens);
            let refreshed = LoggedIn::new(answer.session, shown, None);
            show(session, &refreshed, self.saved.as_deref())
        })
    }
}

/// End the session that you show.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session logout --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Logout {
    #[command(flatten)]
    client: Client,
}

impl Logout {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run(async |session| {
            let request = session.request(proto::LogoutRequest {})?;
            let answer = session.answer(service(session).logout(request)).await?;
            let recorded = Recorded::from(answer.revision);
            let code = session.print(&recorded, || recorded.to_text())?;
            if !session.json() {
                talk("done: this session is refused everywhere from now on\n");
            }
            Ok(code)
        })
    }
}

//! The second factor: `keyledger session totp` and `recovery-codes`.

use clap::{Args, Subcommand};

use super::super::client::{Client, Session};
use super::super::failure::{Failure, Outcome};
use super::super::output::talk;
use super::super::typed::PasswordFile;
use super::super::view::session::{Codes, Done, Enrolled};
use super::service;
use crate::proto;

/// The authenticator of your account (RFC 6238).
#[derive(Subcommand)]
pub(in crate::cli) enum Totp {
    Enroll(Enroll),
    Confirm(Confirm),
    Remove(Remove),
}

impl Totp {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Enroll(verb) => verb.run(),
            Self::Confirm(verb) => verb.run(),
            Self::Remove(verb) => verb.run(),
        }
    }
}

/// Begin to enroll an authenticator, which counts once it is confirmed.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session totp enroll --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Enroll {
    #[command(flatten)]
    password: PasswordFile,

    #[command(flatten)]
    client: Client,
}

impl Enroll {
    pub(in crate::cli) fn run(self) -> Outcome {
        let password = String::clone(&*self.password.obtain()?);
        self.client.run(async |session| {
            let request = session.request(proto::EnrollTotpRequest { password })?;
            let answer = session.answer(service(session).enroll_totp(request)).await?;
            let enrolled = Enrolled::from(answer);
            let code = session.print(&enrolled, || enrolled.to_text())?;
            if !session.json() {
                talk(
                    "note: the secret is shown this once; give it to your authenticator now\n\
                     next: `keyledger session totp confirm --code CODE`, with the code that it \
                     shows, within 15 minutes\n",
                );
            }
            Ok(code)
        })
    }
}

/// Confirm an authenticator by a code of it, and get recovery codes, once.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session totp confirm --code 123456 --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Confirm {
    /// The code that the authenticator shows
    #[arg(long)]
    code: String,

    #[command(flatten)]
    client: Client,
}

impl Confirm {
    pub(in crate::cli) fn run(self) -> Outcome {
        let message = proto::ConfirmTotpRequest { code: self.code };
        self.client.run(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).confirm_totp(request)).await?;
            show(session, &Codes { recovery_codes: answer.recovery_codes })
        })
    }
}

/// Shows recovery codes. If nobody saw them, others can be had.
fn show(session: &Session<'_>, codes: &Codes) -> Outcome {
    let code = session.print(codes, || codes.to_text()).map_err(|_| {
        Failure::fault("the recovery codes are made, but could not be written")
            .hint("`keyledger session recovery-codes` gets others")
    })?;
    if !session.json() {
        talk("note: each is good once, in the place of a code; they are shown this once\n");
    }
    Ok(code)
}

/// Let go of your authenticator and of your recovery codes.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session totp remove --code 123456 --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct Remove {
    #[command(flatten)]
    password: PasswordFile,

    /// A code of your authenticator, or one of your recovery codes
    #[arg(long)]
    code: String,

    #[command(flatten)]
    client: Client,
}

impl Remove {
    pub(in crate::cli) fn run(self) -> Outcome {
        let password = String::clone(&*self.password.obtain()?);
        let message = proto::RemoveTotpRequest { password, code: self.code };
        self.client.run(async |session| {
            let request = session.request(message)?;
            session.answer(service(session).remove_totp(request)).await?;
            let code = session.print(&Done {}, String::new)?;
            if !session.json() {
                talk("done: your password alone logs you in from now on\n");
            }
            Ok(code)
        })
    }
}

/// Get new recovery codes, once; the old ones are good no more.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session recovery-codes --code 123456 --api-key-file ~/.keyledger-session")]
pub(in crate::cli) struct RecoveryCodes {
    /// A code of your authenticator
    #[arg(long)]
    code: String,

    #[command(flatten)]
    client: Client,
}

impl RecoveryCodes {
    pub(in crate::cli) fn run(self) -> Outcome {
        let message = proto::NewRecoveryCodesRequest { code: self.code };
        self.client.run(async |session| {
            let request = session.request(message)?;
            let answer = session.answer(service(session).new_recovery_codes(request)).await?;
            show(session, &Codes { recovery_codes: answer.recovery_codes })
        })
    }
}

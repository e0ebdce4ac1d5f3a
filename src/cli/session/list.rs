//! Which there are: `keyledger session list` and `revoke`.

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::output::talk;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::session::{Listed, Recorded};
use super::service;
use crate::proto;
use crate::proto::revoke_sessions_request::Which;

/// List your sessions, or those of a user, in order of start, those that ended included.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger session list --org vtx --user usr_01M3250V000000000000000001")]
pub(in crate::cli) struct List {
    /// Whose [default: your own]
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut first = proto::ListSessionsRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            ..Default::default()
        };
        self.client.run(async |session| {
            session.aim(&mut first.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListSessionsRequest { page_size, page_token, ..first.clone() };
                let request = session.request(message)?;
                let call = async { service(session).list_sessions(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "sessions");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

/// End sessions.
///
/// When this returns they are refused everywhere, but by whoever checks access tokens by the
/// published keys alone.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger session revoke --others --api-key-file ~/.keyledger-session
  keyledger session revoke --org vtx --user usr_01M3250V000000000000000001")]
#[group(id = "which", required = true, multiple = false, args = ["session", "user", "others", "all"])]
pub(in crate::cli) struct Revoke {
    /// This one
    #[arg(value_name = "SESSION")]
    session: Option<String>,

    /// All of this user's in the organization
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// All of your own account, in every organization, but the one that you show
    #[arg(long)]
    others: bool,

    /// All of your own account, in every organization
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Revoke {
    pub(in crate::cli) fn run(self) -> Outcome {
        let which = match (self.session, self.user) {
            (Some(session), _) => Which::SessionId(session),
            (None, Some(user)) => Which::UserId(user),
            (None, None) if self.others => Which::Others(true),
            (None, None) => Which::All(self.all),
        };
        let mut message = proto::RevokeSessionsRequest {
            organization_id: self.target.organization_id(),
            which: Some(which),
        };
        self.client.run(async |session| {
            session.aim(&mut message.organization_id).await?;
            let request = session.request(message)?;
            let answer = session.answer(service(session).revoke_sessions(request)).await?;
            let recorded = Recorded::from(answer.revision);
            let code = session.print(&recorded, || recorded.to_text())?;
            if !session.json() {
                talk("done: what was ended is refused everywhere from now on\n");
            }
            Ok(code)
        })
    }
}

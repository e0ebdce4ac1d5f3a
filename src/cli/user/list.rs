//! Who is there: `keyledger user list` and `get`.

use clap::{Args, ValueEnum};

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::flags;
use super::super::org::service;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::user::{Got, Listed};
use crate::proto;

/// List users, in order of invitation, those who were removed included.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger user list --org vtx --state active
  keyledger user list --org vtx --email alice@example.com")]
pub(in crate::cli) struct List {
    /// Only users in this state
    #[arg(long, value_enum)]
    state: Option<State>,

    /// Only the user of this e-mail, who was not removed
    #[arg(long, value_name = "E-MAIL", value_parser = flags::not_empty)]
    email: Option<String>,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Have not joined yet.
    Invited,
    /// Hold what they were granted.
    Active,
    /// Hold nothing until somebody restores them.
    Suspended,
    /// Hold nothing, for good.
    Removed,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut first = proto::ListUsersRequest {
            organization_id: self.target.organization_id(),
            state: state(self.state).into(),
            email: self.email.unwrap_or_default(),
            ..Default::default()
        };
        self.client.run(async |session| {
            session.aim(&mut first.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListUsersRequest { page_size, page_token, ..first.clone() };
                let request = session.request(message)?;
                let call = async { service(session).list_users(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "users");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

fn state(state: Option<State>) -> proto::UserState {
    match state {
        None => proto::UserState::Unspecified,
        Some(State::Invited) => proto::UserState::Invited,
        Some(State::Active) => proto::UserState::Active,
        Some(State::Suspended) => proto::UserState::Suspended,
        Some(State::Removed) => proto::UserState::Removed,
    }
}

/// Show one user.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user get usr_01M3250V000000000000000001 --org vtx")]
pub(in crate::cli) struct Get {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Get {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::GetUserRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).get_user(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

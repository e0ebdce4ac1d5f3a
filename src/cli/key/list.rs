//! `keyledger key list`

use clap::{Args, ValueEnum};

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::flags::{Environment, environment};
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::key::Listed;
use super::{role, service};
use crate::proto;

/// List keys, in order of creation.
#[derive(Args)]
pub(in crate::cli) struct List {
    /// Only keys in this state
    #[arg(long, value_enum)]
    state: Option<State>,

    /// Only keys of this environment
    #[arg(long, value_enum)]
    environment: Option<Environment>,

    /// Only keys with this role, by identifier or by the name of a built-in one
    #[arg(long)]
    role: Option<String>,

    /// Only keys of this service account
    #[arg(long, value_name = "SERVICE_ACCOUNT")]
    service_account: Option<String>,

    /// Only keys of this user
    #[arg(long, value_name = "USER", conflicts_with = "service_account")]
    user: Option<String>,

    /// Only keys whose name begins so
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// In force.
    Active,
    /// Out of force until somebody enables them.
    Disabled,
    /// Their lifetime is over.
    Expired,
    /// Ended for good.
    Revoked,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut first = proto::ListKeysRequest {
            organization_id: self.target.organization_id(),
            state: state(self.state),
            environment: environment(self.environment),
            role_id: self.role.as_deref().map(role::id_of).transpose()?.unwrap_or_default(),
            name_prefix: self.name_prefix.unwrap_or_default(),
            service_account_id: self.service_account.unwrap_or_default(),
            user_id: self.user.unwrap_or_default(),
            page_size: 0,
            page_token: String::new(),
        };
        self.client.run(async |session| {
            session.aim(&mut first.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListKeysRequest { page_size, page_token, ..first.clone() };
                let request = session.request(message)?;
                let call = async { service(session).list_keys(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "keys");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

fn state(state: Option<State>) -> i32 {
    match state {
        None => proto::KeyState::Unspecified,
        Some(State::Active) => proto::KeyState::Active,
        Some(State::Disabled) => proto::KeyState::Disabled,
        Some(State::Expired) => proto::KeyState::Expired,
        Some(State::Revoked) => proto::KeyState::Revoked,
    }
    .into()
}

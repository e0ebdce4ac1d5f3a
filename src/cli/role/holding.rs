//! What roles come to: `keyledger role who-holds` and `effective`.

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::role::{Effective as Shown, Holders};
use super::service;
use crate::proto;

/// List who holds a permission now: service accounts, users, then the organization's own keys.
#[derive(Args)]
pub(in crate::cli) struct WhoHolds {
    /// The permission, such as dns:write
    #[arg(value_name = "PERMISSION")]
    permission: String,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl WhoHolds {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut wanted = proto::WhoHoldsRequest {
            organization_id: self.target.organization_id(),
            permission: self.permission,
            ..Default::default()
        };
        self.client.run(async |session| {
            session.aim(&mut wanted.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::WhoHoldsRequest { page_size, page_token, ..wanted.clone() };
                let request = session.request(message)?;
                let call = async { service(session).who_holds(request).await };
                session.answer(call).await.map(Holders::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "holders");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

/// Show what a service account, a user or a key may do now, and what lets it.
#[derive(Args)]
pub(in crate::cli) struct Effective {
    /// The service account
    #[arg(
        long,
        value_name = "ID",
        required_unless_present_any = ["user", "key"],
        conflicts_with_all = ["user", "key"]
    )]
    service_account: Option<String>,

    /// The user
    #[arg(long, value_name = "ID", conflicts_with = "key")]
    user: Option<String>,

    /// The key
    #[arg(long, value_name = "ID")]
    key: Option<String>,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Effective {
    pub(in crate::cli) fn run(self) -> Outcome {
        use proto::effective_permissions_request::Subject;
        let account = self.service_account.map(Subject::ServiceAccountId);
        let user = self.user.map(Subject::UserId);
        let mut request = proto::EffectivePermissionsRequest {
            organization_id: self.target.organization_id(),
            subject: account.or(user).or(self.key.map(Subject::KeyId)),
            page_token: String::new(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let mut shown = Shown::default();
            loop {
                let page = session.request(request.clone())?;
                let call = async { service(session).effective_permissions(page).await };
                let mut answer = session.answer(call).await?;
                request.page_token = std::mem::take(&mut answer.next_page_token);
                shown.join(answer.into());
                if request.page_token.is_empty() {
                    break;
                }
            }
            session.print(&shown, || shown.to_text())
        })
    }
}

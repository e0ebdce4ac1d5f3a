//! What roles come to: `keyledger role who-holds` and `effective`.

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::role::{Effective as Shown, Holders};
use super::service;
use crate::proto;

/// List who holds a permission now: service accounts, then the organization's own keys.
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

/// Show what a service account or a key may do now, and what lets it.
#[derive(Args)]
pub(in crate::cli) struct Effective {
    /// The service account
    #[arg(long, value_name = "ID", required_unless_present = "key", conflicts_with = "key")]
    service_account: Option<String>,

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
        let mut request = proto::EffectivePermissionsRequest {
            organization_id: self.target.organization_id(),
            subject: account.or(self.key.map(Subject::KeyId)),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let answer = session.answer(service(session).effective_permissions(request)).await?;
            let shown = Shown::from(answer);
            session.print(&shown, || shown.to_text())
        })
    }
}

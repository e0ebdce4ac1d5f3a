//! `keyledger service-account list`

use clap::Args;

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::org::service;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::service_account::Listed;
use crate::proto;

/// List service accounts, in order of creation.
#[derive(Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut organization_id = self.target.organization_id();
        self.client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let organization_id = organization_id.clone();
                let message =
                    proto::ListServiceAccountsRequest { organization_id, page_size, page_token };
                let request = session.request(message)?;
                let call = async { service(session).list_service_accounts(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "service accounts");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

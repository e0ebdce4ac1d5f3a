//! `keyledger org list`

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::organization::Listed;
use super::service;
use crate::proto;

/// List organizations, in order of creation.
///
/// Needs an operator's key.
#[derive(Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    client: Client,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run(async |session| {
            let page = async |page_size, page_token| {
                let message = proto::ListOrganizationsRequest { page_size, page_token };
                let request = session.request(message)?;
                let call = async { service(session).list_organizations(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "organizations");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

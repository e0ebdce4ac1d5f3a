//! `keyledger service-account create`

use clap::Args;

use super::super::client::{Client, Repeat, Target};
use super::super::failure::Outcome;
use super::super::key::role;
use super::super::org::service;
use super::super::output::{safe, talk, warn};
use super::super::view::service_account::Created;
use crate::proto;

/// Create a service account.
///
/// Its keys hold what its roles permit now, narrowed by their own scopes. You can give only
/// roles whose permissions your own key holds.
#[derive(Args)]
pub(in crate::cli) struct Create {
    /// What it is called: 1 to 100 characters, no other service account's name
    #[arg(long)]
    name: String,

    /// What it is for, in at most 500 characters; no place for personal data
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// A role, by identifier or by the name of a built-in one; repeat, or separate by commas
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Create {
    pub(in crate::cli) fn run(self) -> Outcome {
        let again = self.target.again();
        let mut request = proto::CreateServiceAccountRequest {
            organization_id: self.target.organization_id(),
            name: self.name,
            description: self.description.unwrap_or_default(),
            role_ids: self.roles.iter().map(|it| role::id_of(it)).collect::<Result<_, _>>()?,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let answer = session.answer(service(session).create_service_account(request)).await?;
            let created = Created::from(answer);
            let code = session.print(&created, || created.to_text())?;
            if let Some(account) = created.service_account.filter(|_| !session.json()) {
                if account.roles.is_empty() {
                    warn("without a role its keys may do nothing");
                }
                let id = safe(&account.id);
                talk(&format!(
                    "next: make it a key: `keyledger key create{again} --service-account {id} \
                     --name …`\n"
                ));
            }
            Ok(code)
        })
    }
}

//! `keyledger as-of`

use clap::{Args, ValueEnum};

use super::client::{ANSWER_BYTES_MAX, Client, Target};
use super::failure::{Failure, Outcome};
use super::flags::{PastMoment, not_empty, past_moment};
use super::output::{safe, talk};
use super::pages::{Page as _, Pages, talk_about, talk_about_with};
use super::view::common::instant;
use super::view::history::Past;
use crate::ledger::clock::Clock;
use crate::proto;
use crate::proto::PastTable;
use crate::proto::audit_service_client::AuditServiceClient;
use crate::proto::state_at_request::Moment;

const EXAMPLES: &str = "\
Examples:
  keyledger as-of 2026-11-01T12:00:00Z keys --org vtx
  keyledger as-of 7d roles --org vtx --json
  keyledger as-of revision:4711 keys key_01M3250V000000000000000001 --org vtx";

/// Show a table as it was at a past moment, or one object and what happened to it until then.
///
/// The moment is an instant in RFC 3339, a day (`2026-11-22`: its first moment, UTC), how long ago
/// (`30m`, `2h`, `7d`), or a place in the organization's stream (`revision:4711`: behind that
/// event). Rows are what the lists of today show, evaluated at that moment.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AsOf {
    /// The moment
    #[arg(value_name = "MOMENT", value_parser = not_empty)]
    moment: String,

    /// The table
    #[arg(value_enum)]
    table: Table,

    /// One row alone, by its identifier, and what happened to it until then
    #[arg(value_name = "ID", value_parser = not_empty)]
    object_id: Option<String>,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum Table {
    /// Keys, those that ended long before included.
    Keys,
    /// Roles, built-in ones first.
    Roles,
    /// Roles that were had by a grant.
    Grants,
    /// Users.
    Users,
    /// Service accounts.
    ServiceAccounts,
    /// Sessions: they are known until a day after their end.
    Sessions,
    /// Break-glass grants.
    BreakGlassGrants,
    /// The organization itself, with its own rules.
    Organization,
}

impl Table {
    fn wire(self) -> PastTable {
        match self {
            Self::Keys => PastTable::Keys,
            Self::Roles => PastTable::Roles,
            Self::Grants => PastTable::Grants,
            Self::Users => PastTable::Users,
            Self::ServiceAccounts => PastTable::ServiceAccounts,
            Self::Sessions => PastTable::Sessions,
            Self::BreakGlassGrants => PastTable::BreakGlassGrants,
            Self::Organization => PastTable::Organization,
        }
    }
}

impl AsOf {
    pub(super) fn run(self) -> Outcome {
        let moment = past_moment(&self.moment, Clock::system().now())
            .map_err(|problem| Failure::fault(format!("`{}` {problem}", self.moment)))?;
        let table = self.table.wire();
        let mut first = proto::StateAtRequest {
            organization_id: self.target.organization_id(),
            moment: Some(match moment {
                PastMoment::At(at) => Moment::At(at),
                PastMoment::Revision(revision) => Moment::Revision(revision),
            }),
            table: table.into(),
            object_id: self.object_id.unwrap_or_default(),
            page_size: 0,
            page_token: String::new(),
        };
        self.client.run(async |session| {
            session.aim(&mut first.organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::StateAtRequest { page_size, page_token, ..first.clone() };
                let request = session.request(message)?;
                let mut service = AuditServiceClient::new(session.channel())
                    .max_decoding_message_size(ANSWER_BYTES_MAX);
                let answer = session.answer(async { service.state_at(request).await });
                answer.await.map(|it| Past::new(table, it))
            };
            let past = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk(&past.talk());
                match first.object_id.as_str() {
                    id if !id.is_empty() && past.rows() == 0 => {
                        talk(&format!("`{}` was not there by then\n", safe(id)));
                    }
                    // What was so long ago is not the same moment again.
                    _ => match &first.moment {
                        Some(Moment::At(at)) => {
                            let at = instant(Some(*at)).unwrap_or_default();
                            talk_about_with(&past, "rows", &format!("as-of {at} … "));
                        }
                        _ => talk_about(&past, "rows"),
                    },
                }
            }
            session.print(&past, || if past.rows() == 0 { String::new() } else { past.to_text() })
        })
    }
}

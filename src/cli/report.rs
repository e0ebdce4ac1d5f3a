//! `keyledger report`

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Client, Session, Target};
use super::failure::{Failure, Outcome};
use super::flags::{moment, not_empty};
use super::key::role::id_of;
use super::output::{print, talk};
use super::pages::{Page, Pages, talk_about_with};
use super::view::common::instant;
use super::view::report::{BreakGlassSummary, HeldTimes, KeysFound};
use crate::csv::Row;
use crate::ledger::clock::Clock;
use crate::proto;
use crate::proto::report_service_client::ReportServiceClient;

const EXAMPLES: &str = "\
Examples:
  keyledger report unused-keys --days 90 --org vtx
  keyledger report permission-holders dns:write --from 2026-01-01 --to 2026-04-01 --csv --all
  keyledger report break-glass --org vtx --json";

/// Reports for whoever must show how access is governed.
#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Report {
    UnusedKeys(UnusedKeys),
    KeysWithoutExpiry(KeysWithoutExpiry),
    PermissionHolders(PermissionHolders),
    RoleHolders(RoleHolders),
    BreakGlass(BreakGlass),
}

impl Report {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::UnusedKeys(verb) => verb.run(),
            Self::KeysWithoutExpiry(verb) => verb.run(),
            Self::PermissionHolders(verb) => verb.run(),
            Self::RoleHolders(verb) => verb.run(),
            Self::BreakGlass(verb) => verb.run(),
        }
    }
}

/// What a report is of, and how it is printed.
#[derive(Args)]
struct Form {
    /// Print comma-separated values, for a spreadsheet
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

/// A report as rows of texts.
pub(super) trait Rows: Serialize {
    /// The names of the columns.
    fn header(&self) -> &'static [&'static str];
    /// The rows.
    fn rows(&self) -> Vec<Vec<String>>;
    /// The same as a table for people.
    fn to_text(&self) -> String;
}

fn show(session: &Session<'_>, csv: bool, report: &impl Rows) -> Outcome {
    if csv {
        let mut table = Vec::new();
        let mut put = |cells: &mut dyn Iterator<Item = &str>| {
            let mut row = Row::begin(&mut table);
            cells.for_each(|cell| row.cell(cell));
            row.end();
        };
        put(&mut report.header().iter().copied());
        for row in report.rows() {
            put(&mut row.iter().map(String::as_str));
        }
        print(&String::from_utf8_lossy(&table))?;
        return Ok(std::process::ExitCode::SUCCESS);
    }
    session.print(
        report,
        || {
            if report.rows().is_empty() { String::new() } else { report.to_text() }
        },
    )
}

/// Prints a report that comes in pages. `with` is what going on takes beside the token.
async fn show_pages<P: Page + Rows>(
    (session, csv, json): (&Session<'_>, bool, bool),
    pages: &Pages,
    (nouns, with): (&str, &str),
    page: impl AsyncFn(u32, String) -> Result<P, Failure>,
) -> Outcome {
    let report = pages.fetch(page).await?;
    if !json {
        talk_about_with(&report, nouns, with);
    }
    show(session, csv, &report)
}

fn service(session: &Session<'_>) -> ReportServiceClient<Channel> {
    ReportServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Keys in force that nobody used for so long, those never used included.
#[derive(Args)]
pub(super) struct UnusedKeys {
    /// Made, and last used if ever, at least so many days ago
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    form: Form,
}

impl UnusedKeys {
    fn run(self) -> Outcome {
        let Form { csv, target, client } = self.form;
        let mut organization_id = target.organization_id();
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let (organization_id, days) = (organization_id.clone(), self.days);
                let message =
                    proto::ListUnusedKeysRequest { organization_id, days, page_size, page_token };
                let request = session.request(message)?;
                let call = async { service(session).list_unused_keys(request).await };
                let answer = session.answer(call).await?;
                Ok(KeysFound::new(answer.keys, answer.next_page_token, answer.revision))
            };
            show_pages((session, csv, client.json()), &self.pages, ("keys", ""), page).await
        })
    }
}

/// Keys in force that never end by themselves.
#[derive(Args)]
pub(super) struct KeysWithoutExpiry {
    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    form: Form,
}

impl KeysWithoutExpiry {
    fn run(self) -> Outcome {
        let Form { csv, target, client } = self.form;
        let mut organization_id = target.organization_id();
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let organization_id = organization_id.clone();
                let message =
                    proto::ListKeysWithoutExpiryRequest { organization_id, page_size, page_token };
                let request = session.request(message)?;
                let call = async { service(session).list_keys_without_expiry(request).await };
                let answer = session.answer(call).await?;
                Ok(KeysFound::new(answer.keys, answer.next_page_token, answer.revision))
            };
            show_pages((session, csv, client.json()), &self.pages, ("keys", ""), page).await
        })
    }
}

/// From when to when a report looks.
#[derive(Args)]
struct Between {
    /// The first instant: in RFC 3339, a day, or how long ago
    #[arg(long, value_name = "TIME", value_parser = not_empty)]
    from: String,

    /// The instant behind the last [default: now]
    #[arg(long, value_name = "TIME", value_parser = not_empty)]
    to: Option<String>,
}

type Instants = (Option<prost_types::Timestamp>, Option<prost_types::Timestamp>);

impl Between {
    fn read(&self) -> Result<Instants, Failure> {
        let now = Clock::system().now();
        let read = |flag: &str, text: &str| {
            let at = moment(text, now);
            at.map_err(|problem| Failure::fault(format!("`{flag}`: `{text}` {problem}")))
        };
        let from = read("--from", &self.from)?;
        let to = match &self.to {
            Some(text) => read("--to", text)?,
            None => crate::services::write::timestamp(now),
        };
        Ok((Some(from), Some(to)))
    }
}

/// How a report of these times is asked for again: "so long ago" is another time by then.
fn again(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> String {
    let text = |at| instant(at).unwrap_or_default();
    format!("--from {} --to {} ", text(from), text(to))
}

/// Who held a permission at any time between two instants, and from when to when.
#[derive(Args)]
pub(super) struct PermissionHolders {
    /// The permission, such as dns:write
    #[arg(value_name = "PERMISSION", value_parser = not_empty)]
    permission: String,

    #[command(flatten)]
    between: Between,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    form: Form,
}

impl PermissionHolders {
    fn run(self) -> Outcome {
        let (from, to) = self.between.read()?;
        let Form { csv, target, client } = self.form;
        let mut organization_id = target.organization_id();
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListPermissionHoldersRequest {
                    organization_id: organization_id.clone(),
                    permission: self.permission.clone(),
                    from,
                    to,
                    page_size,
                    page_token,
                };
                let request = session.request(message)?;
                let call = async { service(session).list_permission_holders(request).await };
                let answer = session.answer(call).await?;
                Ok(HeldTimes::new(answer.times, answer.next_page_token))
            };
            show_pages(
                (session, csv, client.json()),
                &self.pages,
                ("holders", &again(from, to)),
                page,
            )
            .await
        })
    }
}

/// Who had a role at any time between two instants, and from when to when.
#[derive(Args)]
pub(super) struct RoleHolders {
    /// The role, by identifier or by the name of a built-in one
    #[arg(value_name = "ROLE", value_parser = not_empty)]
    role: String,

    #[command(flatten)]
    between: Between,

    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    form: Form,
}

impl RoleHolders {
    fn run(self) -> Outcome {
        let (from, to) = self.between.read()?;
        let role_id = id_of(&self.role)?;
        let Form { csv, target, client } = self.form;
        let mut organization_id = target.organization_id();
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let message = proto::ListRoleHoldersRequest {
                    organization_id: organization_id.clone(),
                    role_id: role_id.clone(),
                    from,
                    to,
                    page_size,
                    page_token,
                };
                let request = session.request(message)?;
                let call = async { service(session).list_role_holders(request).await };
                let answer = session.answer(call).await?;
                Ok(HeldTimes::new(answer.times, answer.next_page_token))
            };
            show_pages(
                (session, csv, client.json()),
                &self.pages,
                ("holders", &again(from, to)),
                page,
            )
            .await
        })
    }
}

/// Break-glass grants by the quarter they were opened in and by custodian.
#[derive(Args)]
pub(super) struct BreakGlass {
    #[command(flatten)]
    form: Form,
}

impl BreakGlass {
    fn run(self) -> Outcome {
        let Form { csv, target, client } = self.form;
        let mut organization_id = target.organization_id();
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let message = proto::SummarizeBreakGlassRequest { organization_id };
            let request = session.request(message)?;
            let call = async { service(session).summarize_break_glass(request).await };
            let report = BreakGlassSummary::from(session.answer(call).await?);
            if report.rows().is_empty() && !client.json() {
                talk("no grants\n");
            }
            show(session, csv, &report)
        })
    }
}

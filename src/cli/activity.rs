//! `keyledger activity`

mod counts;
mod filters;
mod follow;

use std::process::ExitCode;

use clap::Args;
use tonic::transport::Channel;

pub(super) use filters::Filters;

use super::client::{ANSWER_BYTES_MAX, Client, Session, Target};
use super::failure::{Failure, Outcome};
use super::output::{print, print_json_line, talk};
use super::view::activity::{Entry, to_text};
use crate::proto;
use crate::proto::audit_service_client::AuditServiceClient;

/// Entries that are shown unless told otherwise.
const LIMIT_DEFAULT: u32 = 100;
/// Most entries of a page.
const PAGE_ROWS: u32 = 1_000;

const EXAMPLES: &str = "\
Examples:
  keyledger activity --org vtx --from 2h
  keyledger activity --org vtx --action key.revoked --json
  keyledger activity --org vtx --outcome denied --origin 192.0.2.0/24
  keyledger activity --org vtx --text 'nightly build'
  keyledger activity --org operator --actor operator --oldest-first
  keyledger activity --org vtx --from 30d --count-by action --count-by actor
  keyledger activity --org vtx --outcome denied --from 1h --follow";

/// Show what happened: who did what, when, on what, and why.
///
/// Newest first. All filters that are given must hold. Times are instants in RFC 3339,
/// days (`2026-11-22`: from the first moment of that day, UTC) or how long ago (`30m`, `2h`,
/// `7d`). With `--json`, each entry is an object on a line of its own.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Activity {
    #[command(flatten)]
    filters: Filters,

    /// Begin with the oldest
    #[arg(long)]
    oldest_first: bool,

    /// The most entries to show [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Count the entries by this instead of showing them; may be given several times
    #[arg(long, value_name = "FACET", conflicts_with_all = ["oldest_first", "limit", "follow"])]
    count_by: Vec<counts::Facet>,

    /// Show what comes, as it comes, until Ctrl-C; with `--from`, what was recorded since then
    /// before that. Where the connection breaks it goes on by itself, without loss or repeat
    #[arg(long, short, conflicts_with_all = ["oldest_first", "limit", "to"])]
    follow: bool,

    /// Follow what stands behind this revision of the organization's stream
    #[arg(long, value_name = "REVISION", requires = "follow")]
    after_revision: Option<u64>,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Activity {
    pub(super) fn run(self) -> Outcome {
        let order = if self.oldest_first {
            proto::ActivityOrder::OldestFirst
        } else {
            proto::ActivityOrder::NewestFirst
        };
        let filter = Some(self.filters.into_message()?);
        let organization_id = self.target.organization_id();
        if self.follow {
            let after_revision = self.after_revision;
            let mut tail = proto::TailActivityRequest { organization_id, filter, after_revision };
            return self.client.run(async |session| {
                session.aim(&mut tail.organization_id).await?;
                follow::follow(session, tail).await
            });
        }
        let mut query = proto::QueryActivityRequest {
            organization_id,
            filter,
            order: order.into(),
            ..Default::default()
        };
        if !self.count_by.is_empty() {
            let mut facets = self.count_by;
            facets.dedup();
            return self.client.run(async |session| {
                session.aim(&mut query.organization_id).await?;
                counts::count(session, query, &facets).await
            });
        }
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        let json = self.client.json();
        self.client.run(async |session| {
            session.aim(&mut query.organization_id).await?;
            let mut entries = Vec::new();
            let shown = walk(session, query, limit, |entry| {
                if json {
                    return print_json_line(&entry);
                }
                entries.push(entry);
                Ok(())
            });
            let Shown { entries: shown, more } = shown.await?;
            if shown > 0 && !json {
                print(&to_text(&entries))?;
            }
            if shown == 0 && !json {
                talk("no activity\n");
            }
            if more {
                talk("more entries follow: `--limit` shows more of them\n");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// How many entries were shown, and whether there are more.
struct Shown {
    entries: u32,
    more: bool,
}

/// Follows the pages until there are no more entries, or as many as wanted.
async fn walk(
    session: &Session<'_>,
    mut query: proto::QueryActivityRequest,
    limit: u32,
    mut show: impl FnMut(Entry) -> Result<(), Failure>,
) -> Result<Shown, Failure> {
    let mut entries = 0;
    loop {
        // One more than is shown tells whether there are more.
        query.page_size = (limit - entries).saturating_add(1).min(PAGE_ROWS);
        let request = session.request(query.clone())?;
        let call = async { service(session).query_activity(request).await };
        let page = session.answer(call).await?;
        for entry in page.entries {
            if entries == limit {
                return Ok(Shown { entries, more: true });
            }
            show(entry.into())?;
            entries += 1;
        }
        if page.next_page_token.is_empty() {
            return Ok(Shown { entries, more: false });
        }
        query.page_token = page.next_page_token;
    }
}

pub(super) fn service(session: &Session<'_>) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

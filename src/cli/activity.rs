//! `keyledger activity`

use std::process::ExitCode;

use clap::Args;
use tonic::transport::Channel;

use super::client::{ANSWER_BYTES_MAX, Client, Session, Target};
use super::failure::{Failure, Outcome};
use super::flags::{moment, not_empty, token};
use super::output::{print, print_json_line, talk};
use super::view::activity::{Entry, to_text};
use crate::ledger::clock::Clock;
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
  keyledger activity --org operator --actor operator --oldest-first";

/// Show what happened: who did what, when, on what, and why.
///
/// Newest first. All filters that are given must hold. Times are instants in RFC 3339,
/// days (`2026-11-22`: from the first moment of that day, UTC) or how long ago (`30m`, `2h`,
/// `7d`). With `--json`, each entry is an object on a line of its own.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Activity {
    /// Only what was done by this one: `operator`, `ledger` or an organization's identifier
    #[arg(long, value_name = "WHO", value_parser = not_empty)]
    actor: Option<String>,

    /// Only what was done with this key
    #[arg(long, value_name = "KEY_ID", value_parser = not_empty)]
    key: Option<String>,

    /// Only this action, such as `key.revoked`, or all of one kind, such as `key.*`
    #[arg(long, value_name = "ACTION", value_parser = not_empty)]
    action: Option<String>,

    /// Only what was done to this one: the identifier of a key, a role, a service account, an
    /// organization; or `policy`, `credentials`
    #[arg(long = "target", value_name = "ID", value_parser = token)]
    target_id: Option<String>,

    /// Only what was done under this correlation identifier
    #[arg(long, value_name = "ID", value_parser = token)]
    correlation: Option<String>,

    /// Only what was recorded at this time or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Only what was recorded before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// Begin with the oldest
    #[arg(long)]
    oldest_first: bool,

    /// The most entries to show [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

fn time(flag: &str, text: Option<&str>) -> Result<Option<prost_types::Timestamp>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let at = moment(text, Clock::system().now());
    at.map(Some).map_err(|problem| Failure::fault(format!("`{flag}`: `{text}` {problem}")))
}

impl Activity {
    pub(super) fn run(self) -> Outcome {
        let order = if self.oldest_first {
            proto::ActivityOrder::OldestFirst
        } else {
            proto::ActivityOrder::NewestFirst
        };
        let mut query = proto::QueryActivityRequest {
            organization_id: self.target.organization_id(),
            actor: self.actor.unwrap_or_default(),
            credential_id: self.key.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            target_id: self.target_id.unwrap_or_default(),
            correlation_id: self.correlation.unwrap_or_default(),
            from: time("--from", self.from.as_deref())?,
            to: time("--to", self.to.as_deref())?,
            order: order.into(),
            ..Default::default()
        };
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

fn service(session: &Session<'_>) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(session.channel()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

//! QueryActivity: pages of entries, and how many there are of each kind.

use std::sync::Arc;

use projections::organization::Organization;
use projections::recorded::Revision;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::Status;

use super::facets::{self, Counted};
use super::filter::Filter;
use super::{PersonalData, entry};
use crate::ledger::Ledger;
use crate::ledger::activity::{Direction, Step, Walk};
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::authentication::Authenticated;
use crate::services::{page as paging, status, write};

/// Most entries whose origin is looked at in vain for one page: each is sealed by itself.
pub(super) const OPENED_MAX: usize = 1_000;

/// A request, read.
pub(super) struct Query {
    pub(super) filter: Filter,
    direction: Direction,
    rows_max: usize,
    facets: Vec<proto::ActivityFacet>,
    /// Where the page before ended.
    behind: Option<Revision>,
    /// What was recorded when it was asked. What is recorded of the asking is behind it.
    tables: Arc<Organization>,
}

impl Query {
    /// Reads a request; what is wrong with it is INVALID_ARGUMENT.
    pub(super) fn begin(
        ledger: &Ledger,
        organization: &Published,
        message: &proto::QueryActivityRequest,
    ) -> Result<Self, Status> {
        let filter = Filter::read(message.filter.as_ref(), organization.id)?;
        let direction = match proto::ActivityOrder::try_from(message.order) {
            Ok(proto::ActivityOrder::Unspecified | proto::ActivityOrder::NewestFirst) => {
                Direction::NewestFirst
            }
            Ok(proto::ActivityOrder::OldestFirst) => Direction::OldestFirst,
            Err(_) => return Err(status::invalid("order", "is no known order")),
        };
        let facets = facets::read(&message.facets)?;
        let rows_max = paging::size(message.page_size)?;
        let tables = Arc::clone(&organization.tables());
        let mut query = Self { filter, direction, rows_max, facets, behind: None, tables };
        let list = query.list(ledger, organization);
        query.behind = list.continue_behind(&message.page_token)?.map(from_token);
        Ok(query)
    }

    /// What a page token is bound to.
    fn list<'a>(&self, ledger: &'a Ledger, organization: &Published) -> paging::List<'a> {
        let direction = match self.direction {
            Direction::NewestFirst => "newest first",
            Direction::OldestFirst => "oldest first",
        };
        let filter = self.filter.parameters();
        let mut parameters = vec![organization.stream.as_str(), direction];
        parameters.extend(filter.iter().map(String::as_str));
        paging::List::new(ledger.stamper(), "QueryActivity", &parameters)
    }

    /// Whether this event, and with it all behind it in the walk's direction, is outside
    /// the time that is asked about.
    fn is_past(&self, at: Timestamp) -> bool {
        match self.direction {
            Direction::NewestFirst => self.filter.from.is_some_and(|from| at < from),
            Direction::OldestFirst => self.filter.to.is_some_and(|to| at >= to),
        }
    }

    /// One page.
    pub(super) async fn page(
        &self,
        ledger: &Ledger,
        reader: &Authenticated,
        organization: &Published,
    ) -> Result<proto::QueryActivityResponse, Status> {
        let tables = &self.tables;
        let Some(head) = tables.head() else {
            return Err(status::organization_not_found(organization.id));
        };
        let failed = |error| status::from_read(&error);
        let mut personal = PersonalData::new(ledger, reader);
        let facets = match self.facets.is_empty() {
            true => None,
            false => {
                let of = Counted { ledger, organization, head, filter: &self.filter };
                Some(facets::count(of, &self.facets, &mut personal).await?)
            }
        };
        let walk = Walk::new(ledger, organization, head, self.direction, self.rows_max);
        let terms = self.filter.event.terms();
        // Where the page before ended is inside the bounds; a search ends at the other one.
        let bounded = self.behind.is_none() || !terms.is_empty();
        let mut walk = walk.looking_for(terms);
        if bounded {
            walk.skip_to(self.filter.from, self.filter.to).await.map_err(failed)?;
        }
        if let Some(last) = self.behind {
            walk.continue_behind(last);
        }
        let mut answer = proto::QueryActivityResponse {
            revision: write::revision(&organization.stream, tables.revision()),
            facets,
            ..Default::default()
        };
        let (mut bytes, mut opened) = (0, 0);
        while answer.entries.len() < self.rows_max && bytes < paging::PAGE_BYTES_MAX {
            if opened >= OPENED_MAX {
                answer.work_limit_reached = true;
                break;
            }
            match walk.step().await.map_err(failed)? {
                Step::Event(_, envelope) if self.is_past(envelope.at) => return Ok(answer),
                Step::Event(revision, envelope) => {
                    if self.filter.event.shows(&envelope) {
                        let personal_data = personal.of(&envelope).await?;
                        if !self.filter.shows_origin(personal_data.as_ref()) {
                            opened += 1;
                            continue;
                        }
                        let mut entry = entry(revision, &envelope, tables);
                        entry.personal_data = personal_data;
                        bytes += entry.encoded_len();
                        answer.entries.push(entry);
                    }
                }
                Step::End => return Ok(answer),
                Step::WorkLimit => {
                    answer.work_limit_reached = true;
                    break;
                }
            }
        }
        if let Some(last) = walk.left_at() {
            answer.next_page_token = self.list(ledger, organization).token(to_token(last));
        }
        Ok(answer)
    }
}

/// The row behind which a token continues.
fn to_token(revision: Revision) -> [u8; 16] {
    u128::from(revision.0).to_be_bytes()
}

fn from_token(bytes: [u8; 16]) -> Revision {
    // Only what `to_token` made has a seal.
    Revision(u64::try_from(u128::from_be_bytes(bytes)).unwrap_or(u64::MAX))
}

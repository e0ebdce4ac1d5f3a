//! How many entries there are of each kind: counted, newest first, over as many as one page
//! may look at.

use std::collections::HashMap;

use projections::activity::{Entry, Outcome};
use projections::organization::Head;
use tonic::Status;

use super::PersonalData;
use super::filter::Filter;
use super::query::OPENED_MAX;
use crate::ledger::Ledger;
use crate::ledger::activity::{Direction, Step, Walk};
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::{status, write};

/// Most values of one facet that are told; the rest is summed up.
const VALUES_MAX: usize = 20;
/// How many entries are read at first.
const CHUNK: usize = 512;

/// Reads which facets are asked for.
pub(super) fn read(asked: &[i32]) -> Result<Vec<proto::ActivityFacet>, Status> {
    let mut facets = Vec::new();
    for value in asked {
        match proto::ActivityFacet::try_from(*value) {
            Ok(proto::ActivityFacet::Unspecified) | Err(_) => {
                return Err(status::invalid("facets", "must be known facets"));
            }
            Ok(facet) if facets.contains(&facet) => {
                return Err(status::invalid("facets", "must not name a facet twice"));
            }
            Ok(facet) => facets.push(facet),
        }
    }
    Ok(facets)
}

/// What is counted.
pub(super) struct Counted<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) organization: &'a Published,
    pub(super) head: Head,
    pub(super) filter: &'a Filter,
}

/// Counts entries, from the newest on.
pub(super) async fn count(
    of: Counted<'_>,
    facets: &[proto::ActivityFacet],
    personal: &mut PersonalData<'_>,
) -> Result<proto::ActivityFacets, Status> {
    let Counted { ledger, organization, head, filter } = of;
    let failed = |error| status::from_read(&error);
    let walk = Walk::new(ledger, organization, head, Direction::NewestFirst, CHUNK);
    let mut walk = walk.looking_for(filter.event.terms());
    walk.skip_to(None, filter.to).await.map_err(failed)?;
    let mut counts = vec![HashMap::<String, u64>::new(); facets.len()];
    let mut answer = proto::ActivityFacets::default();
    let mut opened = 0;
    loop {
        match walk.step().await.map_err(failed)? {
            Step::Event(_, envelope) if filter.from.is_some_and(|from| envelope.at < from) => {
                answer.complete = true;
                break;
            }
            Step::Event(revision, envelope) => {
                // All that is asked for and newer was counted.
                answer.counted_from = Some(write::timestamp(envelope.at));
                if opened >= OPENED_MAX {
                    break;
                }
                if !filter.event.shows(&envelope) {
                    continue;
                }
                if filter.asks_origin() {
                    opened += 1;
                    if !filter.shows_origin(personal.of(&envelope).await?.as_ref()) {
                        continue;
                    }
                }
                answer.entries += 1;
                let entry = Entry::of(revision, &envelope, |_| None);
                for (facet, counts) in facets.iter().zip(&mut counts) {
                    *counts.entry(value(*facet, &entry)).or_default() += 1;
                }
            }
            Step::End => {
                answer.complete = true;
                break;
            }
            Step::WorkLimit => break,
        }
    }
    if answer.complete {
        answer.counted_from = None;
    }
    answer.facets = facets.iter().zip(counts).map(|(facet, counts)| told(*facet, counts)).collect();
    Ok(answer)
}

/// What an entry counts as; empty where it has nothing of the kind.
fn value(facet: proto::ActivityFacet, entry: &Entry<'_>) -> String {
    match facet {
        proto::ActivityFacet::Unspecified => String::new(),
        proto::ActivityFacet::Action => entry.action.to_owned(),
        proto::ActivityFacet::Actor => entry.actor.to_string(),
        proto::ActivityFacet::Credential => {
            entry.credential.map(|it| it.to_string()).unwrap_or_default()
        }
        proto::ActivityFacet::TargetKind => entry.target.id.kind().to_owned(),
        proto::ActivityFacet::Outcome => match entry.outcome {
            Outcome::Succeeded => "succeeded".to_owned(),
            Outcome::Denied => "denied".to_owned(),
        },
    }
}

fn told(facet: proto::ActivityFacet, counts: HashMap<String, u64>) -> proto::FacetCounts {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable_by(|(one, ones), (other, others)| others.cmp(ones).then(one.cmp(other)));
    let rest = counts.split_off(counts.len().min(VALUES_MAX));
    proto::FacetCounts {
        facet: facet.into(),
        counts: counts
            .into_iter()
            .map(|(value, entries)| proto::FacetCount { value, entries })
            .collect(),
        other_values: rest.len() as u64,
        other_entries: rest.iter().map(|(_, entries)| entries).sum(),
    }
}

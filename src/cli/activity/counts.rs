//! How many entries there are of each kind.

use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use super::super::client::Session;
use super::super::failure::Outcome;
use super::super::output::{print, print_json, table, talk};
use super::super::view::common::instant;
use super::service;
use crate::proto;

/// What entries are counted by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Facet {
    /// What was done
    Action,
    /// Who acted
    Actor,
    /// The key or session they acted with
    Credential,
    /// What kind of thing it was done to
    TargetKind,
    /// What became of it
    Outcome,
}

impl Facet {
    fn message(self) -> proto::ActivityFacet {
        match self {
            Self::Action => proto::ActivityFacet::Action,
            Self::Actor => proto::ActivityFacet::Actor,
            Self::Credential => proto::ActivityFacet::Credential,
            Self::TargetKind => proto::ActivityFacet::TargetKind,
            Self::Outcome => proto::ActivityFacet::Outcome,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Actor => "actor",
            Self::Credential => "credential",
            Self::TargetKind => "target_kind",
            Self::Outcome => "outcome",
        }
    }
}

/// See `ActivityFacets` in `audit.proto`.
#[derive(Serialize)]
struct Counts {
    entries: u64,
    complete: bool,
    counted_from: Option<String>,
    facets: Vec<FacetCounts>,
}

#[derive(Serialize)]
struct FacetCounts {
    facet: &'static str,
    counts: Vec<Count>,
    other_values: u64,
    other_entries: u64,
}

#[derive(Serialize)]
struct Count {
    value: String,
    entries: u64,
}

/// Counts what a query shows.
pub(super) async fn count(
    session: &Session<'_>,
    mut query: proto::QueryActivityRequest,
    facets: &[Facet],
) -> Outcome {
    query.facets = facets.iter().map(|it| it.message().into()).collect();
    query.page_size = 1;
    let request = session.request(query)?;
    let call = async { service(session).query_activity(request).await };
    let found = session.answer(call).await?.facets.unwrap_or_default();
    let of = |(facet, counts): (&Facet, proto::FacetCounts)| FacetCounts {
        facet: facet.name(),
        counts: counts
            .counts
            .into_iter()
            .map(|it| Count { value: it.value, entries: it.entries })
            .collect(),
        other_values: counts.other_values,
        other_entries: counts.other_entries,
    };
    let counts = Counts {
        entries: found.entries,
        complete: found.complete,
        counted_from: instant(found.counted_from),
        facets: facets.iter().zip(found.facets).map(of).collect(),
    };
    if session.json() {
        print_json(&counts)?;
    } else {
        print(&counts.to_text())?;
    }
    if let (false, Some(from)) = (counts.complete, &counts.counted_from) {
        let entries = counts.entries;
        talk(&format!(
            "only the newest {entries} entries were counted, back to {from}: narrow the time with `--from` and `--to`\n"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

impl Counts {
    fn to_text(&self) -> String {
        let rows = self.facets.iter().flat_map(|facet| {
            let rest = (facet.other_values > 0).then(|| {
                let value = format!("({} others)", facet.other_values);
                [facet.facet.to_owned(), value, facet.other_entries.to_string()]
            });
            let row = |it: &Count| {
                let value = if it.value.is_empty() { "(none)" } else { &it.value };
                [facet.facet.to_owned(), value.to_owned(), it.entries.to_string()]
            };
            facet.counts.iter().map(row).chain(rest)
        });
        let total = ["all".to_owned(), String::new(), self.entries.to_string()];
        table(["BY", "VALUE", "ENTRIES"], rows.chain([total]))
    }
}

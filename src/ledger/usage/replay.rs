//! The usage streams at the start: when keys were last used, as far as that was recorded.

use std::collections::HashMap;

use projections::corrupt::{CorruptHistory, Fault};
use projections::id::OrganizationId;
use projections::recorded::Revision;
use projections::usage::Usage;

use super::recorder::Place;
use crate::ledger::start::Arrived;
use crate::ledger::tables::Tables;

/// Usage streams while they are replayed.
#[derive(Default)]
pub(in crate::ledger) struct Replaying(HashMap<OrganizationId, Stream>);

struct Stream {
    usage: Usage,
    fault: Option<CorruptHistory>,
    seen: Option<Revision>,
    missing: u64,
}

impl Replaying {
    /// Folds in one event, or the damage in its place.
    pub(in crate::ledger) fn fold(
        &mut self,
        id: OrganizationId,
        revision: Revision,
        arrived: Result<Arrived, Fault>,
    ) {
        let stream = self.0.entry(id).or_insert_with(|| Stream {
            usage: Usage::new(id),
            fault: None,
            seen: None,
            missing: 0,
        });
        stream.missing += revision.0.saturating_sub(Revision::after(stream.seen).0);
        stream.seen = stream.seen.max(Some(revision));
        if stream.fault.is_none() {
            let folded = arrived
                .map_err(|fault| fault.at(revision))
                .and_then(|it| stream.usage.apply_decoded(revision, it.leaf_hash, it.envelope));
            stream.fault = folded.err();
        }
    }

    /// How many revisions the store did not give.
    pub(in crate::ledger) fn missing(&self) -> u64 {
        self.0.values().map(|it| it.missing).sum()
    }

    /// Restores the last use of every key that is known, and gives where the streams end.
    ///
    /// A stream that is corrupt stops nothing: when its keys were last used is unknown, and
    /// nothing more is written behind the damage.
    pub(in crate::ledger) fn restore(self, tables: &Tables) -> HashMap<OrganizationId, Place> {
        let mut places = HashMap::with_capacity(self.0.len());
        for (id, stream) in self.0 {
            let end = Place::After(stream.usage.head());
            places.insert(id, if stream.fault.is_some() { Place::Corrupt } else { end });
            let Some(organization) = tables.organization(id) else {
                tracing::warn!(organization = %id, "usage of an organization that nobody admitted");
                continue;
            };
            if let Some(fault) = stream.fault {
                organization.damage_usage(fault);
                continue;
            }
            let rows = organization.tables();
            let index = tables.index();
            for (key_id, usage) in stream.usage.keys() {
                let found = rows.key(key_id).and_then(|key| index.latest(&key.digest.blake3));
                if let Some(found) = found.filter(|found| found.key.id == key_id) {
                    found.uses.restore(usage.last_used_at);
                }
            }
        }
        places
    }
}

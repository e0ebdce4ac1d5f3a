//! The usage streams at the start: when keys were last used, as far as that was recorded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use projections::corrupt::{CorruptHistory, Fault};
use projections::id::{KeyId, OrganizationId};
use projections::key::Key;
use projections::organization::Head;
use projections::recorded::Revision;
use projections::usage::Usage;

use super::recorder::Place;
use crate::ledger::snapshots::Manifest;
use crate::ledger::start::{Arrived, in_parallel};
use crate::ledger::tables::{Published, Tables};
use crate::ledger::{Ledger, usage};

/// Usage streams while they are replayed.
#[derive(Default)]
pub(in crate::ledger) struct Replaying(HashMap<OrganizationId, Stream>);

struct Stream {
    /// What was known before, if anything.
    before: LastUses,
    usage: Usage,
    fault: Option<CorruptHistory>,
    seen: Option<Revision>,
    missing: u64,
}

impl Stream {
    fn behind(id: OrganizationId, head: Option<Head>, before: LastUses) -> Self {
        let usage = Usage::behind(id, head);
        let seen = head.map(|head| head.revision);
        Self { before, usage, fault: None, seen, missing: 0 }
    }

    fn restore(self, tables: &Tables, organization: &Published) {
        if let Some(fault) = self.fault {
            organization.damage_usage(fault);
            return;
        }
        let index = tables.index();
        let restore = |key: &Key, last_s: u32| {
            let found = index.latest(&key.digest.blake3);
            if let Some(found) = found.filter(|found| found.key.id == key.id) {
                found.uses.restore(last_s);
            }
        };
        let rows = organization.tables();
        let behind = self.usage.keys().map(|(id, it)| (id, usage::seconds(it.last_used_at)));
        for (id, last_s) in self.before.0.into_iter().chain(behind) {
            match rows.key(id) {
                Some(key) => restore(key, last_s),
                None => {
                    if let Some(key) = organization.departed_key(id) {
                        restore(&key, last_s);
                    }
                }
            }
        }
    }
}

/// When keys of an organization were last used, in the order of their identifiers.
#[derive(Default)]
pub(in crate::ledger) struct LastUses(Vec<(KeyId, u32)>);

/// A key's identifier, and a time in seconds since 1970.
const LAST_USE_BYTES: usize = 20;

impl LastUses {
    /// From what [`Ledger::last_uses`] gave; none where it is something else.
    pub(in crate::ledger) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (uses, rest) = bytes.as_chunks::<LAST_USE_BYTES>();
        let read = |bytes: &[u8; LAST_USE_BYTES]| {
            let (id, last_s) = bytes.split_first_chunk()?;
            Some((KeyId::from_bytes(*id), u32::from_le_bytes(last_s.try_into().ok()?)))
        };
        let uses: Vec<_> = uses.iter().map(read).collect::<Option<_>>()?;
        (rest.is_empty() && uses.is_sorted_by(|a, b| a.0 < b.0)).then_some(Self(uses))
    }
}

impl Ledger {
    /// When each key in the tables of an organization was last used, as bytes.
    pub(in crate::ledger) fn last_uses(&self, organization: &Published) -> Vec<u8> {
        let tables = Arc::clone(&organization.tables());
        let index = self.tables.index();
        let mut bytes = Vec::new();
        for key in tables.keys_after(None) {
            let found = index.latest(&key.digest.blake3).filter(|found| found.key.id == key.id);
            if let Some(last_s) = found.map(|found| found.uses.last_s()).filter(|it| *it > 0) {
                bytes.extend(key.id.to_bytes());
                bytes.extend(last_s.to_le_bytes());
            }
        }
        bytes
    }
}

impl Replaying {
    /// Begins a stream behind an event, up to which it is known when keys were last used.
    pub(in crate::ledger) fn behind(&mut self, id: OrganizationId, head: Head, before: LastUses) {
        self.0.insert(id, Stream::behind(id, Some(head), before));
    }

    /// Folds in one event, or the damage in its place.
    pub(in crate::ledger) fn fold(
        &mut self,
        id: OrganizationId,
        revision: Revision,
        arrived: Result<Arrived, Fault>,
    ) {
        let stream =
            self.0.entry(id).or_insert_with(|| Stream::behind(id, None, LastUses::default()));
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

    /// Whether any of the streams is.
    pub(in crate::ledger) fn is_damaged(&self) -> bool {
        self.0.values().any(|it| it.fault.is_some() || it.missing > 0)
    }

    /// The streams that are further than their snapshots, and how far they are.
    pub(in crate::ledger) fn moved(&self, manifest: &Manifest) -> BTreeMap<OrganizationId, Head> {
        let heads = self.0.iter().filter_map(|(id, it)| Some((*id, it.usage.head()?)));
        let moved = |id: &_, head: &_| manifest.usage.get(id).is_none_or(|it| it.head != *head);
        heads.filter(|(id, head)| moved(id, head)).collect()
    }

    /// Restores the last use of every key that is known, and gives where the streams end.
    ///
    /// A stream that is corrupt stops nothing: when its keys were last used is unknown, and
    /// nothing more is written behind the damage.
    pub(in crate::ledger) fn restore(self, tables: &Tables) -> HashMap<OrganizationId, Place> {
        let place = |stream: &Stream| match stream.fault {
            Some(_) => Place::Corrupt,
            None => Place::After(stream.usage.head()),
        };
        let places = self.0.iter().map(|(id, stream)| (*id, place(stream))).collect();
        in_parallel(self.0.into_iter().collect(), |(id, stream)| match tables.organization(id) {
            Some(organization) => stream.restore(tables, &organization),
            None => {
                tracing::warn!(organization = %id, "usage of an organization that nobody admitted");
            }
        });
        places
    }
}

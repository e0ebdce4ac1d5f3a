//! The replay: events are folded into tables, all of them or those behind snapshots.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::{Arc, Mutex, PoisonError};

use projections::corrupt::{CorruptHistory, Fault};
use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::id::OrganizationId;
use projections::key::Key;
use projections::organization::Organization;
use projections::recorded::{Recorded, Revision, StreamName};
use tokio::sync::mpsc;

use super::{Replayed, StartError};
use crate::ledger::accounts::Accounts;
use crate::ledger::accounts::replay::Replaying as AccountsReplaying;
use crate::ledger::event_store::{Anchor, EventStore, Position, Positioned, ReadError, ReadItem};
use crate::ledger::snapshots::{Manifest, anchor};
use crate::ledger::tables::Tables;
use crate::ledger::usage::replay::Replaying as UsageReplaying;

/// One organization while its history is replayed.
pub(super) struct Replaying {
    tables: Organization,
    /// The keys that left the tables, and by which revision.
    departed: Vec<(Revision, Arc<Key>)>,
    fault: Option<CorruptHistory>,
    /// The last revision that the store gave, believed or not.
    seen: Option<Revision>,
    /// How many revisions the store did not give.
    missing: u64,
}

impl Replaying {
    /// An organization of which everything up to here is known.
    pub(super) fn behind(tables: Organization) -> Self {
        let seen = tables.revision();
        Self { tables, departed: Vec::new(), fault: None, seen, missing: 0 }
    }
}

/// One item on its way from the store into the tables.
#[expect(clippy::large_enum_variant, reason = "nearly every item is an event")]
enum Arriving {
    /// An event of a known stream, or damage in its place.
    In(StreamName, Revision, Result<Arrived, Fault>),
    /// This many events are gone, and it is not known whose they were.
    Lost(u64, String),
}

/// An event that the store gave whole.
pub(in crate::ledger) struct Arrived {
    pub(in crate::ledger) leaf_hash: LeafHash,
    pub(in crate::ledger) envelope: Result<Envelope, Fault>,
}

/// How many events are read at once, a batch for each stage and those that wait.
const BATCH_EVENTS: usize = 2_048;
/// How many batches may wait between two stages of a replay.
const BATCHES_WAITING_MAX: usize = 2;

/// What is known before a replay.
#[derive(Default)]
pub(super) struct Before {
    pub(super) streams: HashMap<StreamName, Replaying>,
    pub(super) usage: UsageReplaying,
    pub(super) accounts: AccountsReplaying,
    /// The last event that is known; none where all of history is to be read.
    pub(super) last: Option<Anchor>,
}

/// What a replay comes to.
pub(in crate::ledger) struct Folded {
    streams: HashMap<StreamName, Replaying>,
    /// When keys were last used.
    pub(in crate::ledger) usage: UsageReplaying,
    /// Accounts and e-mails.
    pub(in crate::ledger) accounts: AccountsReplaying,
    /// Events folded.
    pub(super) events: u64,
    /// The last event that was read; none where there is none.
    pub(in crate::ledger) last: Option<Anchor>,
    lost: u64,
    lost_what: String,
}

impl Folded {
    /// The organizations whose tables are not those of their snapshots, and how far they are.
    pub(in crate::ledger) fn moved(
        &self,
        manifest: &Manifest,
    ) -> BTreeMap<OrganizationId, Revision> {
        let heads = self.streams.values().filter_map(|it| Some((it.tables.id, it.tables.head()?)));
        heads
            .filter(|(id, head)| manifest.entries.get(id).is_none_or(|it| !it.is_at(Some(*head))))
            .map(|(id, head)| (id, head.revision))
            .collect()
    }

    /// Whether nothing was wrong anywhere.
    pub(super) fn is_whole(&self) -> bool {
        self.lost == 0
            && !self.usage.is_damaged()
            && !self.accounts.is_damaged()
            && self.streams.values().all(|it| it.fault.is_none() && it.missing == 0)
    }
}

/// Folds what the store holds behind what is known.
///
/// In three stages side by side: the store reads and checks hashes, a thread decodes,
/// and this task folds.
pub(super) async fn fold_all(
    store: &Arc<dyn EventStore>,
    before: Before,
) -> Result<Folded, StartError> {
    let Before { streams, usage, accounts, last } = before;
    let (read, mut to_decode) = mpsc::channel(BATCHES_WAITING_MAX);
    let (decoded, mut to_fold) = mpsc::channel(BATCHES_WAITING_MAX);
    let after = last.as_ref().map(|it| it.position);
    let reading = tokio::spawn(read_all(Arc::clone(store), after, read));
    let mut folded =
        Folded { streams, usage, accounts, events: 0, last, lost: 0, lost_what: String::new() };
    let decoding = tokio::task::spawn_blocking(move || {
        let mut before = after;
        while let Some(batch) = to_decode.blocking_recv() {
            let arriving = decode_batch(batch, &mut before);
            let failed = arriving.is_err();
            if decoded.blocking_send(arriving).is_err() || failed {
                break;
            }
        }
    });
    while let Some(batch) = to_fold.recv().await {
        let Batch { arriving, last } = batch?;
        folded.last = last.or(folded.last);
        for arriving in arriving {
            match arriving {
                Arriving::In(stream, revision, arrived) => {
                    if let Some(id) = stream.as_account() {
                        folded.accounts.fold_account(id, revision, arrived);
                    } else if let Some(email) = stream.as_email() {
                        folded.accounts.fold_email(email, revision, arrived);
                    } else if let Some(id) = stream.as_usage() {
                        folded.usage.fold(id, revision, arrived);
                    } else {
                        fold(&mut folded.streams, stream, revision, arrived)?;
                    }
                    folded.events += 1;
                }
                Arriving::Lost(events, what) => {
                    tracing::error!(events, what, "stored events are gone");
                    folded.lost += events;
                    folded.lost_what = what;
                }
            }
        }
    }
    let ended = |error: tokio::task::JoinError| ReadError::Unavailable(error.to_string());
    decoding.await.map_err(ended)?;
    reading.await.map_err(ended)??;
    // A loss is known by the gap it left in its stream, and stops that stream alone. One
    // that left none was somebody's last word, perhaps a revocation: nobody can be believed.
    let missing: u64 = folded.streams.values().map(|it| it.missing).sum();
    if folded.lost > missing + folded.usage.missing() + folded.accounts.missing() {
        return Err(StartError::Lost(folded.lost_what));
    }
    Ok(folded)
}

/// Reads the store behind a place, batch by batch, ahead of whoever takes them.
async fn read_all(
    store: Arc<dyn EventStore>,
    mut after: Option<Position>,
    batches: mpsc::Sender<Vec<ReadItem>>,
) -> Result<(), ReadError> {
    loop {
        let batch = store.read_all(after, BATCH_EVENTS).await?;
        after = match batch.last() {
            None => return Ok(()),
            Some(Ok(item)) => Some(item.position),
            Some(Err((position, _))) => Some(*position),
        };
        if batches.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

/// Items, decoded, and the last of them if it is an event.
struct Batch {
    arriving: Vec<Arriving>,
    last: Option<Anchor>,
}

/// Decodes a batch that stands behind `before`, which becomes its own last place.
fn decode_batch(batch: Vec<ReadItem>, before: &mut Option<Position>) -> Result<Batch, ReadError> {
    let position = |item: &ReadItem| match item {
        Ok(event) => event.position,
        Err((position, _)) => *position,
    };
    let in_front = batch.iter().rev().nth(1).map(position).or(*before);
    let last = batch.last().and_then(|item| item.as_ref().ok()).map(|it| anchor(it, in_front));
    *before = batch.last().map(position).or(*before);
    let arriving = batch.into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok(Batch { arriving, last })
}

fn decode(item: ReadItem) -> Result<Arriving, ReadError> {
    match item {
        Ok(Positioned { recorded, .. }) => {
            let envelope = Envelope::decode(&recorded.stored);
            let Recorded { stream, revision, leaf_hash, .. } = recorded;
            Ok(Arriving::In(stream, revision, Ok(Arrived { leaf_hash, envelope })))
        }
        Err((_, ReadError::Corrupt { stream, revision, what })) => {
            Ok(Arriving::In(stream, revision, Err(Fault::Stored(what))))
        }
        Err((_, ReadError::Lost { events: Some(events), what })) => {
            Ok(Arriving::Lost(events, what))
        }
        Err((_, error @ (ReadError::Lost { events: None, .. } | ReadError::Unavailable(_)))) => {
            Err(error)
        }
    }
}

fn fold(
    streams: &mut HashMap<StreamName, Replaying>,
    stream: StreamName,
    revision: Revision,
    arrived: Result<Arrived, Fault>,
) -> Result<(), StartError> {
    let replaying = match streams.entry(stream) {
        hash_map::Entry::Occupied(entry) => entry.into_mut(),
        hash_map::Entry::Vacant(entry) => {
            let Some(id) = entry.key().as_organization() else {
                return Err(StartError::UnknownStream(entry.key().clone()));
            };
            entry.insert(Replaying::behind(Organization::new(id)))
        }
    };
    let expected = Revision::after(replaying.seen);
    replaying.missing += revision.0.saturating_sub(expected.0);
    replaying.seen = replaying.seen.max(Some(revision));
    // Nothing behind a fault is believed; nothing in front of it is forgotten.
    if replaying.fault.is_none() {
        let tables = &mut replaying.tables;
        let folded = arrived
            .map_err(|fault| fault.at(revision))
            .and_then(|it| tables.apply_decoded(revision, it.leaf_hash, it.envelope));
        replaying.fault = folded.err();
        let departed = tables.departed().iter();
        replaying.departed.extend(departed.map(|key| (revision, Arc::clone(key))));
    }
    Ok(())
}

/// Publishes the tables that a replay came to.
pub(super) fn publish(
    folded: Folded,
    tables: &Tables,
    accounts: &Accounts,
) -> Result<Replayed, StartError> {
    let mut streams = folded.streams;
    let mut replayed = Replayed { events: folded.events, ..Replayed::default() };
    let operator_stream = StreamName::organization(OrganizationId::OPERATOR);
    let Some(operator) = streams.remove(&operator_stream) else {
        return match streams.into_keys().next().or_else(|| folded.accounts.any_stream()) {
            Some(other) => Err(StartError::OperatorMissing(other)),
            None => Ok(replayed),
        };
    };
    if let Some(fault) = operator.fault {
        return Err(StartError::OperatorCorrupt(fault));
    }
    let keys = |it: &Replaying| it.tables.keys_here() + it.departed.len();
    tables.reserve(streams.values().map(keys).sum());
    let installation = operator.tables.installation().cloned();
    replayed.organizations = 1 + streams.len() as u64;
    // Admitted organizations are known, even those whose stream was not begun.
    if let Some(installation) = &installation {
        for id in installation.organizations.keys() {
            tables.obtain(*id);
        }
    }
    let mut whole: Vec<Replaying> = vec![operator];
    for (_, mut replaying) in streams {
        let id = replaying.tables.id;
        let admitted = installation.as_ref().is_some_and(|it| it.organizations.contains_key(&id));
        let misplaced = || Fault::Misplaced("OrganizationCreated").at(Revision::FIRST);
        if let Some(fault) = replaying.fault.take().or_else(|| (!admitted).then(misplaced)) {
            tables.stop(&tables.obtain(id), fault);
            replayed.stopped += 1;
        }
        whole.push(replaying);
    }
    let counts = folded.accounts.publish(accounts);
    replayed.accounts = counts.accounts;
    replayed.accounts_stopped = counts.stopped;
    in_parallel(whole, |Replaying { tables: its, departed, .. }| {
        let organization = tables.obtain(its.id);
        for (revision, key) in departed {
            organization.depart(revision, &[key]);
        }
        tables.publish_whole(&organization, Arc::new(its));
    });
    Ok(replayed)
}

/// Does the same with each, on as many threads as may run.
pub(in crate::ledger) fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.min(items.len());
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

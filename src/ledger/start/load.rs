//! The start from snapshots: what was folded is read back, and only the tail of history is
//! replayed behind it.
//!
//! A snapshot is believed where its keyed checksum is right, the store holds at its revision
//! the event it ends with, and the event that the snapshots were taken behind stands where
//! it stood. What the store holds in front of that event is only checked ([`Check`]), and
//! most of it once the ledger answers. Whatever is wrong, in a snapshot, in front of it or
//! behind it, no snapshot is used and all history is replayed, which then says what is wrong.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use projections::digest::LeafHash;
use projections::id::OrganizationId;
use projections::organization::Organization;
use projections::recorded::{Revision, StreamName};

use super::replay::{self, Before, Folded, Replaying};
use crate::ledger::accounts::replay::Replaying as AccountsReplaying;
use crate::ledger::accounts::snapshots::ReadPart;
use crate::ledger::event_store::{EventStore, READ_EVENTS_MAX, ReadError};
use crate::ledger::fingerprints::{Fingerprints, Run};
use crate::ledger::snapshot_store::{SnapshotError, SnapshotOf, SnapshotStore};
use crate::ledger::snapshots::{Check, Damage, Entry, Manifest, Of, Seal};
use crate::ledger::usage::replay::{LastUses, Replaying as UsageReplaying};

/// How long a start may read what is in front of the snapshots: about 100,000 events.
const CHECKED_AT_START: Duration = Duration::from_millis(200);

/// Why a start does without its snapshots.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Read(#[from] SnapshotError),
    #[error("{0} is not what this installation wrote")]
    Checksum(String),
    #[error("{0} was written by another version, or is no snapshot")]
    Form(String),
    #[error("they are of another history than the store holds: {0}")]
    OtherHistory(String),
    #[error("the store could not be read")]
    Store(#[from] ReadError),
    #[error("history in front of them is damaged")]
    Before(#[from] Damage),
    #[error("history behind them is damaged")]
    Tail,
}

/// Tables as they were read back, and all history behind them.
pub(super) struct Loaded {
    pub(super) manifest: Manifest,
    pub(super) folded: Folded,
    pub(super) fingerprints: Fingerprints,
    /// What is left to check of the history in front of the snapshots.
    pub(super) check: Option<Check>,
}

/// Starts from snapshots; none where there are none.
pub(super) async fn load(
    store: &Arc<dyn EventStore>,
    snapshots: &Arc<dyn SnapshotStore>,
    seal: &Arc<Seal>,
) -> Result<Option<Loaded>, Unusable> {
    let Some(manifest) = manifest(snapshots, seal).await? else { return Ok(None) };
    let Some(anchor) = manifest.anchor.clone() else { return Ok(None) };
    if !anchor.is_in(&**store).await? {
        return Err(Unusable::OtherHistory(anchor.stream.to_string()));
    }
    let mut check = Check::up_to(anchor.position);
    let check = if check.read_for(store, CHECKED_AT_START).await? { None } else { Some(check) };
    let manifest = Arc::new(manifest);
    let (its, from, by) = (Arc::clone(&manifest), Arc::clone(snapshots), Arc::clone(seal));
    let reading = tokio::task::spawn_blocking(move || {
        let fingerprints = fingerprints(&*from, &by, &its)?;
        let organizations = organizations(&*from, &by, &its)?;
        let accounts = accounts(&*from, &by, &its)?;
        Ok::<_, Unusable>((fingerprints, organizations, usage(&*from, &by, &its)?, accounts))
    });
    ends_are_there(store, &ends(&manifest)).await?;
    let ended = |error: tokio::task::JoinError| SnapshotError::Unavailable(error.to_string());
    let (fingerprints, organizations, usage, (accounts, ends)) = reading.await.map_err(ended)??;
    ends_are_there(store, &ends).await?;
    let streams: HashMap<StreamName, Replaying> = organizations
        .into_iter()
        .map(|tables| (StreamName::organization(tables.id), Replaying::behind(tables)))
        .collect();
    let before = Before { streams, usage, accounts, last: Some(anchor) };
    let folded = replay::fold_all(store, before).await.map_err(|error| {
        tracing::warn!(%error, "history behind the snapshots");
        Unusable::Tail
    })?;
    if !folded.is_whole() {
        return Err(Unusable::Tail);
    }
    let manifest = Arc::unwrap_or_clone(manifest);
    Ok(Some(Loaded { manifest, folded, fingerprints, check }))
}

async fn manifest(
    snapshots: &Arc<dyn SnapshotStore>,
    seal: &Seal,
) -> Result<Option<Manifest>, Unusable> {
    let from = Arc::clone(snapshots);
    let sealed = tokio::task::spawn_blocking(move || from.manifest()).await;
    let sealed = sealed.map_err(|error| SnapshotError::Unavailable(error.to_string()))??;
    let Some(sealed) = sealed else { return Ok(None) };
    let name = || "the manifest".to_owned();
    let bytes = seal.open(Of::Manifest, &sealed).ok_or_else(|| Unusable::Checksum(name()))?;
    Manifest::from_bytes(bytes).map(Some).ok_or_else(|| Unusable::Form(name()))
}

/// The event that a stream ends with, as a snapshot has it.
type End = (StreamName, Revision, LeafHash);

/// The events that the snapshots of organizations and their usage end with.
fn ends(manifest: &Manifest) -> Vec<End> {
    let tables = manifest
        .entries
        .iter()
        .map(|(id, it)| (StreamName::organization(*id), it.revision, it.leaf_hash));
    let usage = manifest
        .usage
        .iter()
        .map(|(id, it)| (StreamName::usage(*id), it.head.revision, it.head.leaf_hash));
    tables.chain(usage).collect()
}

/// The store holds each of these events.
async fn ends_are_there(store: &Arc<dyn EventStore>, ends: &[End]) -> Result<(), Unusable> {
    // Side by side, as many as a page of events: the store's own readers set the pace.
    for ends in ends.chunks(READ_EVENTS_MAX) {
        let read = |(stream, revision, _): &End| store.read_stream(stream, *revision, 1);
        let reads: Vec<_> = ends.iter().map(read).collect();
        for ((stream, _, leaf_hash), read) in ends.iter().zip(reads) {
            let there = read.await.ok().and_then(|found| found.into_iter().next());
            if there.is_none_or(|it| it.leaf_hash != *leaf_hash) {
                return Err(Unusable::OtherHistory(stream.to_string()));
            }
        }
    }
    Ok(())
}

fn fingerprints(
    from: &dyn SnapshotStore,
    seal: &Seal,
    manifest: &Manifest,
) -> Result<Fingerprints, Unusable> {
    let mut runs = Vec::with_capacity(manifest.runs.len());
    for (number, checksum) in &manifest.runs {
        let bytes = from.fingerprints(*number)?;
        let name = || format!("run {number} of fingerprints");
        if !seal.is(Of::Fingerprints(*number), &bytes, checksum) {
            return Err(Unusable::Checksum(name()));
        }
        runs.push(Run::from_bytes(*number, &bytes).ok_or_else(|| Unusable::Form(name()))?);
    }
    Ok(Fingerprints::new(runs))
}

/// Reads when keys were last used.
fn usage(
    from: &dyn SnapshotStore,
    seal: &Seal,
    manifest: &Manifest,
) -> Result<UsageReplaying, Unusable> {
    let mut usage = UsageReplaying::default();
    for (id, entry) in &manifest.usage {
        let of = SnapshotOf::Usage(*id);
        let bytes = from.snapshot(of)?;
        let name = || format!("the usage snapshot of organization {id}");
        if !seal.is(Of::Snapshot(of), &bytes, &entry.checksum) {
            return Err(Unusable::Checksum(name()));
        }
        let last_uses = LastUses::from_bytes(&bytes).ok_or_else(|| Unusable::Form(name()))?;
        usage.behind(*id, entry.head, last_uses);
    }
    Ok(usage)
}

/// Reads the accounts and e-mails, and one event of each part that the store must hold:
/// there are too many streams to look for the end of each.
fn accounts(
    from: &dyn SnapshotStore,
    seal: &Seal,
    manifest: &Manifest,
) -> Result<(AccountsReplaying, Vec<End>), Unusable> {
    let (mut accounts, mut ends) = (AccountsReplaying::default(), Vec::new());
    for (part, entry) in &manifest.accounts {
        let of = SnapshotOf::Accounts(*part);
        let bytes = from.snapshot(of)?;
        let name = || format!("part {part} of the accounts");
        if !seal.is(Of::Snapshot(of), &bytes, &entry.checksum) {
            return Err(Unusable::Checksum(name()));
        }
        let read = ReadPart::from_bytes(*part, entry.rows, &bytes);
        let read = read.ok_or_else(|| Unusable::Form(name()))?;
        ends.extend(read.end());
        read.put_into(&mut accounts);
    }
    Ok((accounts, ends))
}

/// Reads every snapshot of tables, on as many threads as may run.
fn organizations(
    from: &dyn SnapshotStore,
    seal: &Seal,
    manifest: &Manifest,
) -> Result<Vec<Organization>, Unusable> {
    // The longest ones first, so that no thread is left with one at the end.
    let mut entries: Vec<_> = manifest.entries.iter().collect();
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.keys));
    let next = AtomicUsize::new(0);
    let read = Mutex::new(Ok(Vec::with_capacity(entries.len())));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(entries.len()) {
            scope.spawn(|| {
                while let Some((id, entry)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = organization(from, seal, **id, entry);
                    let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *read, one) {
                        (Ok(all), Ok(one)) => all.push(one),
                        (Ok(_), Err(error)) => *read = Err(error),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    read.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn organization(
    from: &dyn SnapshotStore,
    seal: &Seal,
    id: OrganizationId,
    entry: &Entry,
) -> Result<Organization, Unusable> {
    let of = SnapshotOf::Tables(id);
    let bytes = from.snapshot(of)?;
    let name = || format!("the snapshot of organization {id}");
    if !seal.is(Of::Snapshot(of), &bytes, &entry.checksum) {
        return Err(Unusable::Checksum(name()));
    }
    let tables = Organization::from_canonical(&bytes).map_err(|_| Unusable::Form(name()))?;
    if tables.id == id && entry.is_at(tables.head()) {
        Ok(tables)
    } else {
        Err(Unusable::Form(name()))
    }
}

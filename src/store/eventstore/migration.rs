//! History of a data directory, carried over to a server: the same bytes at the same places.
//!
//! A stream of its own says that a migration was begun, from which history, and that it
//! was ended; nothing may be served in between. Begun again, it goes on where each stream
//! ends. At the end both sides are read from the start and compared, stream by stream.

use std::collections::BTreeMap;
use std::time::Duration;

use projections::corrupt::Fault as Corrupt;
use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::recorded::{Recorded, Revision, StreamName};
use serde::{Deserialize, Serialize};

use super::{EngineStore, registration};
use crate::ledger::event_store::{
    AppendError, EventStore, NewEvent, Position, ReadError, ReadItem, StoreFuture,
};
use crate::ledger::urgency::Urgency;

/// The stream that says how far a migration is.
pub const STREAM: &str = "node-migration";
const BEGUN: &str = "MigrationBegun";
const ENDED: &str = "MigrationEnded";
/// How long one word about the migration may take.
const WORD_MAX: Duration = Duration::from_secs(10);
/// Most events read at once.
const BATCH_EVENTS: usize = 2_048;
/// Most events, and bytes of them, in one append.
const APPEND_EVENTS: usize = 512;
const APPEND_BYTES: usize = 512 << 10;

/// Why history was not carried over.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A migration into the store has not come to its end.
    #[error(
        "a migration into this event store was begun and is not ended; run `keyledger migrate` again with the same directory, and it goes on"
    )]
    Unfinished,
    /// The target is somebody's already.
    #[error(
        "the event store holds events already; migrate into an empty one, or set another `streamPrefix`"
    )]
    NotEmpty,
    /// The target was migrated into, to the end.
    #[error("a migration into this event store has ended already; start the server on it")]
    Ended,
    /// Another history was begun to be migrated there.
    #[error(
        "a migration of another history into this event store was begun; finish that one, or migrate into an empty one"
    )]
    OtherHistory,
    /// There is nothing to migrate.
    #[error("the data directory holds no events")]
    Nothing,
    /// The source is damaged.
    #[error("the data directory's history is damaged: {0}; restore it from a backup")]
    Damaged(#[source] ReadError),
    /// An event of the source cannot be understood.
    #[error("revision {revision} of stream `{stream}` cannot be read: {source}")]
    Unreadable {
        /// The stream.
        stream: StreamName,
        /// The place.
        revision: Revision,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// The target cannot be read.
    #[error("the event store cannot be read: {0}; run this again, and it goes on")]
    Read(#[source] ReadError),
    /// The target does not take an event.
    #[error(
        "the event store does not take events of stream `{stream}`: {source}; run this again, and it goes on"
    )]
    Append {
        /// The stream.
        stream: StreamName,
        /// What it says.
        source: AppendError,
    },
    /// The two sides are not the same.
    #[error("stream `{0}` is not the same in the event store: do not use it")]
    Differs(StreamName),
    /// The migration's own stream cannot be used.
    #[error("stream `{STREAM}` of the event store: {0}")]
    Word(String),
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many events of the source were looked at.
    Counting(u64),
    /// Of all events this many are in the target.
    Copying(u64, u64),
    /// Of all events this many were compared.
    Verifying(u64, u64),
}

/// What was carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Events in the target, all compared with the source.
    pub events: u64,
    /// Streams they are in.
    pub streams: u64,
    /// Events that were there already, from an attempt that was cut short.
    pub resumed: u64,
}

/// Which history a migration is of.
#[derive(Deserialize, Serialize)]
struct Word {
    /// The leaf hash of its first event.
    first_event: String,
}

/// What a stream comes to: how many events, and the hash of all their leaf hashes.
struct Sum {
    events: u64,
    hash: blake3::Hasher,
}

impl Sum {
    fn add(&mut self, leaf_hash: &LeafHash) {
        self.events += 1;
        self.hash.update(&leaf_hash.0);
    }
}

type Sums = BTreeMap<StreamName, Sum>;

/// Refuses a store into which a migration was begun and not ended.
///
/// # Errors
///
/// [`MigrationError::Unfinished`], or the store cannot be read.
pub async fn ensure_none_begun(store: &EngineStore) -> Result<(), MigrationError> {
    match last_word(store).await? {
        Some((_, BEGUN, _)) => Err(MigrationError::Unfinished),
        Some(_) | None => Ok(()),
    }
}

/// Carries the source's history over to the target, and compares the two.
///
/// # Errors
///
/// Each [`MigrationError`] says what is wrong and what to do about it. The source is only
/// read, whatever happens.
pub async fn migrate(
    source: &impl EventStore,
    target: &EngineStore,
    mut progress: impl FnMut(Progress),
) -> Result<Migrated, MigrationError> {
    let mut first_event = None;
    let sums = sums(source, MigrationError::Damaged, |recorded, events| {
        first_event.get_or_insert(recorded.leaf_hash);
        progress(Progress::Counting(events));
    })
    .await?;
    let Some(first_event) = first_event else { return Err(MigrationError::Nothing) };
    let events = sums.values().map(|sum| sum.events).sum();
    let word = Word { first_event: blake3::Hash::from(first_event.0).to_string() };
    let begun = begin(target, &word).await?;
    let resumed = copy(source, target, events, &mut progress).await?;
    let found = self::sums(target, MigrationError::Read, |_, done| {
        progress(Progress::Verifying(done, events));
    })
    .await?;
    compare(&sums, &found)?;
    say(target, ENDED, &word, Some(begun)).await?;
    let streams = u64::try_from(sums.len()).unwrap_or(u64::MAX);
    Ok(Migrated { events, streams, resumed })
}

/// Says that a migration was begun, or finds that it was.
async fn begin(target: &EngineStore, word: &Word) -> Result<Revision, MigrationError> {
    match last_word(target).await? {
        Some((_, ENDED, _)) => Err(MigrationError::Ended),
        Some((_, _, there)) if there.first_event != word.first_event => {
            Err(MigrationError::OtherHistory)
        }
        Some((revision, _, _)) => Ok(revision),
        None => {
            let there = target.read_all(None, 1).await.map_err(MigrationError::Read)?;
            if !there.is_empty() {
                return Err(MigrationError::NotEmpty);
            }
            say(target, BEGUN, word, None).await
        }
    }
}

/// Appends what the target lacks, and gives how many events it held already.
async fn copy(
    source: &impl EventStore,
    target: &EngineStore,
    events: u64,
    progress: &mut impl FnMut(Progress),
) -> Result<u64, MigrationError> {
    let mut heads: BTreeMap<StreamName, Option<Revision>> = BTreeMap::new();
    let (mut after, mut done, mut resumed) = (None, 0, 0);
    loop {
        let batch = source.read_all(after, BATCH_EVENTS).await.map_err(MigrationError::Damaged)?;
        let Some(position) = batch.last().map(place) else { return Ok(resumed) };
        after = Some(position);
        let mut runs: BTreeMap<StreamName, Vec<NewEvent>> = BTreeMap::new();
        let mut under_way = Vec::new();
        for item in batch {
            let recorded = item.map_err(|(_, error)| MigrationError::Damaged(error))?.recorded;
            let stream = recorded.stream.clone();
            let head = match heads.get(&stream) {
                Some(head) => *head,
                None => {
                    let head = target.head(&stream).await.map_err(MigrationError::Read)?;
                    heads.insert(stream.clone(), head);
                    head
                }
            };
            done += 1;
            if Some(recorded.revision) <= head {
                resumed += 1;
                continue;
            }
            let run = runs.entry(stream.clone()).or_default();
            run.push(new_event(recorded)?);
            let bytes: usize = run.iter().map(|event| event.stored.len()).sum();
            if run.len() >= APPEND_EVENTS || bytes >= APPEND_BYTES {
                let run = std::mem::take(run);
                under_way.push(append(target, &mut heads, stream, run));
            }
        }
        for (stream, run) in runs.into_iter().filter(|(_, run)| !run.is_empty()) {
            under_way.push(append(target, &mut heads, stream, run));
        }
        for (stream, append) in under_way {
            append.await.map_err(|source| MigrationError::Append { stream, source })?;
        }
        progress(Progress::Copying(done, events));
    }
}

type UnderWay = (StreamName, StoreFuture<Result<Revision, AppendError>>);

/// Sends a run of a stream's events off, behind those that were sent before.
fn append(
    target: &EngineStore,
    heads: &mut BTreeMap<StreamName, Option<Revision>>,
    stream: StreamName,
    run: Vec<NewEvent>,
) -> UnderWay {
    let expected = heads.get(&stream).copied().flatten();
    let events = u64::try_from(run.len()).unwrap_or(u64::MAX);
    let last = Revision::after(expected).0.saturating_add(events).saturating_sub(1);
    heads.insert(stream.clone(), Some(Revision(last)));
    let append = target.append(&stream, expected, run, Urgency::Normal);
    (stream, append)
}

/// The event as it is to be written: its bytes, and what they say of themselves.
fn new_event(recorded: Recorded) -> Result<NewEvent, MigrationError> {
    let Recorded { stream, revision, stored, leaf_hash } = recorded;
    let envelope = Envelope::decode(&stored).map_err(|source| MigrationError::Unreadable {
        stream,
        revision,
        source,
    })?;
    let event_type = envelope.event.event_type();
    Ok(NewEvent { id: envelope.id, event_type, stored, leaf_hash })
}

/// What all streams of a store come to. Every leaf hash is checked on the way.
async fn sums(
    store: &impl EventStore,
    wrong: impl Fn(ReadError) -> MigrationError,
    mut seen: impl FnMut(&Recorded, u64),
) -> Result<Sums, MigrationError> {
    let mut sums = Sums::new();
    let (mut after, mut events) = (None, 0);
    loop {
        let batch = store.read_all(after, BATCH_EVENTS).await.map_err(&wrong)?;
        let Some(position) = batch.last().map(place) else { return Ok(sums) };
        after = Some(position);
        for item in batch {
            let recorded = item.map_err(|(_, error)| wrong(error))?.recorded;
            events += 1;
            seen(&recorded, events);
            let new = || Sum { events: 0, hash: blake3::Hasher::new() };
            sums.entry(recorded.stream).or_insert_with(new).add(&recorded.leaf_hash);
        }
    }
}

fn compare(source: &Sums, target: &Sums) -> Result<(), MigrationError> {
    let same = |a: &Sum, b: &Sum| a.events == b.events && a.hash.finalize() == b.hash.finalize();
    let lacking = source
        .iter()
        .find(|(stream, sum)| !target.get(*stream).is_some_and(|found| same(sum, found)));
    let more = target.keys().find(|stream| !source.contains_key(*stream));
    match lacking.map(|(stream, _)| stream).or(more) {
        Some(stream) => Err(MigrationError::Differs(stream.clone())),
        None => Ok(()),
    }
}

fn place(item: &ReadItem) -> Position {
    match item {
        Ok(positioned) => positioned.position,
        Err((position, _)) => *position,
    }
}

/// The last word about a migration, by its place and type; none where there is none.
async fn last_word(
    store: &EngineStore,
) -> Result<Option<(Revision, &'static str, Word)>, MigrationError> {
    let word = |what: String| MigrationError::Word(what);
    let event = store.inner.last(&StreamName::from_store(STREAM)).await;
    let Some(event) = event.map_err(|fault| word(fault.to_string()))? else { return Ok(None) };
    let event_type = [BEGUN, ENDED].into_iter().find(|it| *it == event.event_type);
    let said = serde_json::from_slice(&event.data).ok();
    match event_type.zip(said) {
        Some((event_type, said)) => Ok(Some((Revision(event.revision), event_type, said))),
        None => Err(word("holds what this version does not know".to_owned())),
    }
}

async fn say(
    store: &EngineStore,
    event_type: &'static str,
    word: &Word,
    expected: Option<Revision>,
) -> Result<Revision, MigrationError> {
    let word_failed = |error: AppendError| MigrationError::Word(error.to_string());
    let id = registration::new_id().map_err(word_failed)?;
    let said = (id, event_type);
    registration::note(&store.inner, STREAM, said, word, expected, WORD_MAX)
        .await
        .map_err(word_failed)
}

impl EngineStore {
    /// The last revision of a stream, whatever stands there.
    async fn head(&self, stream: &StreamName) -> Result<Option<Revision>, ReadError> {
        match self.inner.last(stream).await {
            Ok(last) => Ok(last.map(|event| Revision(event.revision))),
            Err(fault) => Err(ReadError::Unavailable(fault.to_string())),
        }
    }
}

//! The event store port: all the ledger asks of what keeps its events.
//!
//! Every adapter in [`crate::store`] must keep this contract, and one suite
//! (`store::conformance`) holds them all to it. It is written so that an embedded
//! database and a cluster of event stores can both keep it: appends touch one
//! stream, the caller always names the revision it expects, and positions are opaque.

use std::pin::Pin;
use std::sync::Arc;

use projections::digest::LeafHash;
use projections::id::EventId;
use projections::recorded::{Recorded, Revision, StreamName};

use super::urgency::Urgency;

/// What an [`EventStore`] call gives back: it may be awaited, or dropped without
/// undoing what the call began.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Most events in one append.
pub const APPEND_EVENTS_MAX: usize = 1_024;
/// Most bytes in one stored event.
pub const STORED_BYTES_MAX: usize = projections::envelope::STORED_BYTES_MAX;
/// Most events a read gives at once, whatever was asked.
pub const READ_EVENTS_MAX: usize = 4_096;

/// One event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identifier, the same as inside `stored`: how an append whose outcome
    /// is unknown is recognised when it is read back.
    pub id: EventId,
    /// Its type, the same as inside `stored`, for engines that show one.
    pub event_type: &'static str,
    /// The bytes to be kept: a JSON object, at most [`STORED_BYTES_MAX`] bytes.
    pub stored: Arc<[u8]>,
    /// The leaf hash of `stored`.
    pub leaf_hash: LeafHash,
}

/// An event's place in the store-wide order. Opaque: positions of one store can be
/// compared and kept, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u128);

/// A recorded event and its place in the store-wide order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positioned {
    /// Where it stands among all events.
    pub position: Position,
    /// The event.
    pub recorded: Recorded,
}

/// An event, by where it stands in the store's order: what has read up to there goes on behind
/// it, in the same history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The position in front of it; none where it is the first.
    pub before: Option<Position>,
    /// Its position.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its place there.
    pub revision: Revision,
    /// The leaf hash of its bytes.
    pub leaf_hash: LeafHash,
}

impl Anchor {
    /// Whether the event stands where it stood.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn is_in(&self, store: &dyn EventStore) -> Result<bool, ReadError> {
        let found = store.read_all(self.before, 1).await?;
        Ok(found.first().and_then(|it| it.as_ref().ok()).is_some_and(|it| {
            it.position == self.position
                && it.recorded.stream == self.stream
                && it.recorded.revision == self.revision
                && it.recorded.leaf_hash == self.leaf_hash
        }))
    }
}

/// Why an append has no acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream does not end where the caller expects. Nothing was written.
    #[error("stream `{stream}` ends at another revision than expected")]
    WrongExpectedRevision {
        /// The stream that was to be written.
        stream: StreamName,
        /// Where it really ends; none if it holds nothing.
        current: Option<Revision>,
    },
    /// No space is left for appends of this urgency. Nothing was written; the store stays
    /// usable, and takes appends again once there is space.
    #[error("no space left for events")]
    Full,
    /// The store cannot be asked now. Nothing was written.
    #[error("the event store is unavailable: {0}")]
    Unavailable(String),
    /// An I/O error came between; what is on disk is not known until the store is
    /// opened anew. Nothing more is written until then.
    #[error("the event store is fenced after an I/O error; restart to check its tail: {0}")]
    Fenced(String),
    /// The append may or may not have happened: read the stream back before trying again.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// The append is outside the limits of the port. Nothing was written.
    #[error("the append is outside the store's limits: {0}")]
    Limits(&'static str),
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was written: its hash differs, or its place is missing.
    #[error("stored history of stream `{stream}` is corrupt at revision {revision}: {what}")]
    Corrupt {
        /// The stream that is damaged.
        stream: StreamName,
        /// Where.
        revision: Revision,
        /// What is wrong there.
        what: String,
    },
    /// Something is missing or damaged, and nothing says whose it was: any stream may
    /// be short of an event.
    #[error("stored history is damaged and the stream is not known: {what}")]
    Lost {
        /// How many events are gone; none where even that is not known. A store must not
        /// count too few: whoever reads everything can tell from the gaps in the streams
        /// whose events they were.
        events: Option<u64>,
        /// What is wrong.
        what: String,
    },
    /// The store cannot be asked now.
    #[error("the event store is unavailable: {0}")]
    Unavailable(String),
}

impl ReadError {
    /// An event that must be there is not.
    #[must_use]
    pub fn missing(stream: &StreamName, revision: Revision) -> Self {
        let what = "the event is missing".to_owned();
        Self::Corrupt { stream: stream.clone(), revision, what }
    }
}

/// One item of a read over all streams. Damage to one stream does not hide the others:
/// the position beside an error is where reading goes on behind the damage.
pub type ReadItem = Result<Positioned, (Position, ReadError)>;

/// Where reading goes on behind an item.
#[must_use]
pub fn place(item: &ReadItem) -> Position {
    match item {
        Ok(positioned) => positioned.position,
        Err((position, _)) => *position,
    }
}

/// Live events, in the store-wide order, from a chosen place on and without end.
pub trait Subscription: Send {
    /// The next event. Must give every event behind the chosen place exactly once, in
    /// the store-wide order, first those already stored, then each as it becomes durable.
    /// Dropping the future loses no event.
    ///
    /// While the store cannot be read it gives an error item and stays where it is: the
    /// next call tries again. Ends (`None`) only when the store is closed.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<ReadItem>> + Send + '_>>;
}

/// Checks an append against the limits of the port: what every adapter must do before
/// anything else.
///
/// # Errors
///
/// [`AppendError::Limits`] for no event, too many, or one that is too long.
pub fn check_limits(events: &[NewEvent]) -> Result<(), AppendError> {
    if events.is_empty() {
        return Err(AppendError::Limits("an append needs an event"));
    }
    if events.len() > APPEND_EVENTS_MAX {
        return Err(AppendError::Limits("too many events in one append"));
    }
    if events.iter().any(|event| event.stored.len() > STORED_BYTES_MAX) {
        return Err(AppendError::Limits("an event is too long"));
    }
    debug_assert!(
        events.iter().all(|event| LeafHash::of(&event.stored) == event.leaf_hash),
        "the leaf hash is that of the stored bytes"
    );
    Ok(())
}

/// Keeps events, in order, for ever.
pub trait EventStore: Send + Sync + 'static {
    /// Appends events to the end of one stream, all or none.
    ///
    /// - `expected` is the stream's last revision as the caller knows it, none for a
    ///   stream that holds nothing. If the stream ends elsewhere, the append must fail
    ///   with [`AppendError::WrongExpectedRevision`] and write nothing.
    /// - The call must take its place in the order when it is made, not when the
    ///   future is first polled: two calls made one after the other for one stream are
    ///   carried out in that order. It must not block.
    /// - The future must be ready only when the events are on disk (or known not to be),
    ///   and dropping it must not undo the append.
    /// - `Ok` holds the revision of the last event appended. Revisions are dense.
    /// - No event, more than [`APPEND_EVENTS_MAX`], or one longer than [`STORED_BYTES_MAX`]
    ///   must fail with [`AppendError::Limits`]: [`check_limits`].
    /// - A failed append must not fail another stream's append, unless the fault is the store's.
    /// - Where space runs out, an append must fail with [`AppendError::Full`] and write
    ///   nothing. Space for [`Urgency::Reserved`] appends must be kept back, and one of
    ///   [`Urgency::Normal`] must be refused before it takes of that. A full store must
    ///   stay readable, must open, and must take appends again by itself once there is space.
    fn append(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> StoreFuture<Result<Revision, AppendError>>;

    /// Whether the store knows that an append of this urgency would be
    /// [`AppendError::Full`] now. Must not block, and must not stay true once there is space,
    /// whether or not anybody appends. False promises nothing.
    fn is_full(&self, urgency: Urgency) -> bool;

    /// Whoever asked for appends of this stream that failed has taken back all that was
    /// decided on them: what is appended from here on relies on none.
    ///
    /// An append may be asked for behind one that is still under way. Where others write the
    /// store, too, another's event may come to stand where the first one's last would: so
    /// such a store must refuse, with [`AppendError::WrongExpectedRevision`], whatever
    /// expects the last revision of an append that failed, until this is called.
    fn taken_back(&self, stream: &StreamName) {
        let _ = stream;
    }

    /// Whether what was read or written here may be told to callers now. False while another
    /// node may have been admitted in place of this one. Must not block.
    fn may_answer(&self) -> bool {
        true
    }

    /// Reads a stream forward from `from`, at most `events_max` events and at most
    /// [`READ_EVENTS_MAX`]. Gives nothing for a place behind the end, or a stream that
    /// holds nothing.
    ///
    /// Must check every leaf hash against the bytes it gives, and must fail with
    /// [`ReadError::Corrupt`] rather than give an event that is not the one written, or
    /// leave one out.
    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>>;

    /// Reads these events of a stream, which must be there, in this order: at most
    /// [`READ_EVENTS_MAX`]. Checks them as [`EventStore::read_stream`] does; one that is not
    /// there is [`ReadError::Corrupt`].
    ///
    /// A store that can look up many places at once should: this asks for each by itself.
    fn read_events(
        &self,
        stream: &StreamName,
        revisions: Vec<Revision>,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        let read = |it: Revision| (it, tokio::spawn(self.read_stream(stream, it, 1)));
        let reads: Vec<_> = revisions.into_iter().map(read).collect();
        let stream = stream.clone();
        Box::pin(async move {
            let mut events = Vec::with_capacity(reads.len());
            for (revision, read) in reads {
                let missing = || ReadError::missing(&stream, revision);
                let read = read.await.map_err(|it| ReadError::Unavailable(it.to_string()))??;
                events.push(read.into_iter().next().ok_or_else(missing)?);
            }
            Ok(events)
        })
    }

    /// Reads all streams in the store-wide order, behind `after` (none: from the start),
    /// at most `events_max` events and at most [`READ_EVENTS_MAX`]. An empty answer means
    /// the end was reached.
    ///
    /// Order: within a stream it is the stream's own; an event that became durable
    /// before another was begun comes before it. Hashes are checked as in
    /// [`EventStore::read_stream`]; a damaged event, or a run of missing ones, is an item of
    /// its own, so that the events behind it can be read.
    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<ReadItem>, ReadError>>;

    /// Follows all streams from behind `after` (none: from the start), first what is
    /// stored, then what comes.
    fn subscribe_all(&self, after: Option<Position>) -> Box<dyn Subscription>;
}

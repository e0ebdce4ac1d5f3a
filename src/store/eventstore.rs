//! Events kept by an EventStoreDB or KurrentDB server, over its published protocol.
//!
//! - A stream of ours is a stream there, under a prefix where one is configured. Every
//!   append names the revision it expects; "any" is never said.
//! - An append whose outcome is not known is settled by reading back the identifiers of
//!   its events, before it is tried again: [`settle`].
//! - Appends of one stream go one after the other, those that fit together as one: [`lanes`].
//!   There is no session that one failure could end for others; what continues an append
//!   that failed is never sent.
//! - Nothing is sent, nor sent again, once this node's leave to answer is over.
//! - Everything that is read is held against its leaf hash, its place in its stream, and
//!   what was seen before: [`reading`]. An answer from the past is no answer.
//! - Reading goes on from the last event that was seen. No position of the server's own
//!   making is ever kept.
//! - One node is admitted at a time: [`registration`].
//!
//! Which streams are ours is a matter of their names: [`names`]. Those that begin with
//! `node-` are about nodes and no part of the ledger's history.
//!
//! Start at [`EngineStore::open`].

mod backoff;
mod connection;
mod fault;
mod known;
mod lanes;
pub mod migration;
mod names;
mod reading;
pub mod registration;
mod settle;
mod wire;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use projections::recorded::{Recorded, Revision, StreamName};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

use self::connection::Connection;
use self::known::Known;
use self::lanes::{Lanes, Request};
use super::catch_up::CatchUp;
use super::engine_url::{EngineFileError, EngineUrl};
use super::stats::StoreStats;
use crate::ledger::contact::Contact;
use crate::ledger::event_store::{
    AppendError, EventStore, NewEvent, Position, READ_EVENTS_MAX, ReadError, ReadItem, StoreFuture,
    Subscription,
};
use crate::ledger::urgency::Urgency;

/// How often subscriptions look for events that others have written.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most reads at the engine at once; with the appends less than the hundred that a server
/// lets one connection have.
const READS_MAX: usize = 32;
/// How long appends under way may take to end when the store is closed.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Why the engine's store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineOpenError {
    /// A file that the connection string names cannot be used.
    #[error("`store`: {0}")]
    File(#[from] EngineFileError),
    /// The client does not take the connection string.
    #[error("`store`: the client of the event store does not take this connection string: {0}")]
    Client(String),
    /// The engine does not answer.
    #[error(
        "the event store at {hosts} does not answer: {what}; is it running, and is `tls` right?"
    )]
    Unreachable {
        /// Where it was looked for.
        hosts: String,
        /// What happened.
        what: String,
    },
    /// The engine refuses the user.
    #[error(
        "the event store at {hosts} refuses access; check user and password in `store`, and that the user may read $all"
    )]
    Denied {
        /// Where.
        hosts: String,
    },
}

/// An event store on an engine of its own. Must be opened, and used, within a runtime.
pub struct EngineStore {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    known: Known,
    lanes: Lanes,
    reads: Arc<Semaphore>,
    stats: Arc<StoreStats>,
    runtime: Handle,
    /// Given with this node's registration; a store without one answers always.
    leave: OnceLock<Arc<Contact>>,
    /// None once the store is closed.
    durable: Mutex<Option<watch::Sender<()>>>,
}

impl EngineStore {
    /// Connects to the engine and makes sure that it answers.
    ///
    /// # Errors
    ///
    /// Each [`EngineOpenError`] says what is wrong and what to do about it.
    pub async fn open(url: &EngineUrl) -> Result<Self, EngineOpenError> {
        url.check_files()?;
        let connection = Connection::new(url).map_err(EngineOpenError::Client)?;
        let inner = Arc::new(Inner {
            connection,
            known: Known::default(),
            lanes: Lanes::default(),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            stats: Arc::default(),
            runtime: Handle::current(),
            leave: OnceLock::new(),
            durable: Mutex::new(Some(watch::Sender::new(()))),
        });
        let hosts = url.hosts();
        inner.probe().await.map_err(|fault| {
            if fault == fault::Fault::Denied {
                return EngineOpenError::Denied { hosts };
            }
            EngineOpenError::Unreachable { hosts, what: fault.to_string() }
        })?;
        tokio::spawn(look_again(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// What it counts while it works.
    #[must_use]
    pub fn stats(&self) -> &Arc<StoreStats> {
        &self.inner.stats
    }

    /// Closes the store: appends that wait are carried out, what is asked afterwards is
    /// unavailable, and subscriptions end.
    pub async fn close(&self) {
        self.finish().await;
        self.inner.durable().take();
    }

    /// Takes no more appends, and waits for those under way.
    ///
    /// False where some were still under way after a while: they may yet happen.
    pub async fn finish(&self) -> bool {
        self.inner.lanes.close();
        let drained = tokio::time::timeout(CLOSE_MAX, self.inner.lanes.drained()).await.is_ok();
        if !drained {
            tracing::warn!("appends under way were cut off");
        }
        drained
    }
}

impl Inner {
    fn durable(&self) -> std::sync::MutexGuard<'_, Option<watch::Sender<()>>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node may be the one that is admitted, as far as it can know.
    fn may_answer(&self) -> bool {
        self.leave.get().is_none_or(|leave| leave.holds())
    }

    fn is_closed(&self) -> bool {
        self.durable().is_none()
    }

    fn announce(&self) {
        if let Some(durable) = &*self.durable() {
            durable.send_replace(());
        }
    }
}

/// Wakes subscriptions now and then: others may have written.
async fn look_again(inner: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.is_closed() {
            return;
        }
        inner.announce();
    }
}

const CLOSED: &str = "the store is closed";
const NO_LEAVE: &str = "this node's leave to write has ended";

impl EventStore for EngineStore {
    fn append(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        _urgency: Urgency,
    ) -> StoreFuture<Result<Revision, AppendError>> {
        let (answer, answered) = oneshot::channel();
        lanes::push(&self.inner, stream, Request { expected, events, answer });
        Box::pin(async move {
            let gone = |_| Err(AppendError::Unknown("the writer has stopped".to_owned()));
            answered.await.unwrap_or_else(gone)
        })
    }

    fn taken_back(&self, stream: &StreamName) {
        self.inner.lanes.taken_back(stream);
    }

    fn may_answer(&self) -> bool {
        self.inner.may_answer()
    }

    /// The engine does not say how much space it has: an operator must watch it.
    fn is_full(&self, _urgency: Urgency) -> bool {
        false
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        let stream = stream.clone();
        let events_max = events_max.min(READ_EVENTS_MAX);
        let inner = Arc::clone(&self.inner);
        let read = async move { inner.read_stream(&stream, from, events_max).await };
        begin(&self.inner, read)
    }

    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<ReadItem>, ReadError>> {
        read_all(&self.inner, after, events_max)
    }

    fn subscribe_all(&self, after: Option<Position>) -> Box<dyn Subscription> {
        let durable = match &*self.inner.durable() {
            Some(durable) => durable.subscribe(),
            None => watch::channel(()).1,
        };
        let inner = Arc::clone(&self.inner);
        CatchUp::boxed(move |after| read_all(&inner, after, READ_EVENTS_MAX), durable, after)
    }
}

fn read_all(
    inner: &Arc<Inner>,
    after: Option<Position>,
    events_max: usize,
) -> StoreFuture<Result<Vec<ReadItem>, ReadError>> {
    let events_max = events_max.min(READ_EVENTS_MAX);
    let own = Arc::clone(inner);
    begin(inner, async move { own.read_all(after, events_max).await })
}

/// Begins a read at once, whenever it is awaited: whoever begins many has them side by side.
fn begin<T: Send + 'static>(
    inner: &Inner,
    read: impl Future<Output = Result<T, ReadError>> + Send + 'static,
) -> StoreFuture<Result<T, ReadError>> {
    let places = Arc::clone(&inner.reads);
    let reading = inner.runtime.spawn(async move {
        let place = places.acquire().await;
        let _place = place.map_err(|_| ReadError::Unavailable(CLOSED.to_owned()))?;
        read.await
    });
    Box::pin(async move {
        reading.await.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string())))
    })
}

//! The default event store: one SQLite database in a data directory.
//!
//! One thread writes, and commits together what came together; one moves the
//! write-ahead log into the database; a few read. None of them holds another up, and
//! none runs on the async runtime.
//!
//! What it promises beyond the port: no event is answered for before it is synced; only
//! one process has the directory; what is stored can only be added to; an I/O error
//! during a commit fences the store, a full disk does not.
//!
//! Start at [`EmbeddedStore::open`], then `embedded/writer.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use projections::recorded::{Recorded, Revision, StreamName};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

mod append_queue;
mod checkpointer;
mod commit_fault;
mod directory;
mod gathering;
mod heads;
mod open_error;
mod place;
mod reader;
mod reader_pool;
mod schema;
mod space;
mod writer;

pub use open_error::OpenError;

use self::append_queue::{AppendQueue, Request};
use self::checkpointer::{Checkpoints, LogPages};
use self::commit_fault::CommitFault;
use self::directory::Directory;
use self::reader_pool::ReaderPool;
use self::space::{Sizes, Space};
use self::writer::Writer;
use super::catch_up::CatchUp;
use super::stats::StoreStats;
use crate::ledger::event_store::{
    AppendError, EventStore, NewEvent, Position, READ_EVENTS_MAX, ReadError, ReadItem, StoreFuture,
    Subscription, check_limits,
};
use crate::ledger::urgency::Urgency;
use crate::reserve;

/// How many events at the end are checked when the store is opened.
const TAIL_EVENTS: usize = 1_024;

/// How to open an [`EmbeddedStore`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it is not there.
    pub directory: PathBuf,
    /// How many threads read.
    pub reader_threads: usize,
    /// How long the write-ahead log is made at once: as long as it usually gets. To sync
    /// a file that grows takes longer. At most an eighth of the volume.
    pub log_bytes_reserved: u64,
    /// How much space is set aside for [`Urgency::Reserved`] appends. At most a quarter of
    /// the volume.
    pub reserve_bytes: u64,
    /// Most pages the database may have; none for what the disk holds.
    pub pages_max: Option<u32>,
}

impl Options {
    /// The usual options for a data directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            reader_threads: 2,
            log_bytes_reserved: 40 << 20,
            reserve_bytes: 64 << 20,
            pages_max: None,
        }
    }
}

/// An event store in a data directory. Dropping it closes it.
pub struct EmbeddedStore {
    appends: Arc<AppendQueue>,
    reads: ReaderPool,
    durable: watch::Receiver<()>,
    space: Arc<Space>,
    running: Arc<Running>,
    stats: Arc<StoreStats>,
    #[cfg(test)]
    commit_fault: CommitFault,
}

impl EmbeddedStore {
    /// What it counts while it works.
    #[must_use]
    pub fn stats(&self) -> &Arc<StoreStats> {
        &self.stats
    }

    /// Opens the store, making an empty one where there is none. Blocks.
    ///
    /// The write-ahead log is first synced, so that whatever is found is durable before it
    /// is read, and moved into the database as far as there is space; then the last events
    /// are checked. A full disk keeps no store from opening, but a new one. Damage to single events is logged and left to those who read them; a database
    /// that is shorter than it says is refused by the engine.
    ///
    /// # Errors
    ///
    /// Each [`OpenError`] says what is wrong and what to do about it.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let directory = Directory::open(&options.directory)?;
        let database = directory.database();
        let io = |source| OpenError::Io { path: options.directory.clone(), source };
        let sizes = sizes(options)?;
        if !database.exists() {
            ensure_space(options, sizes)?;
        }
        let space = Arc::new(Space::open(&options.directory, sizes).map_err(io)?);
        directory.ensure_database()?;
        let pages = LogPages::of(sizes.log);
        let (connection, index) = open_checked(&database, &space, sizes, pages)?;
        if let Some(pages_max) = options.pages_max {
            let set = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            connection.pragma_update_and_check(None, "max_page_count", pages_max, set)?;
        }
        directory.sync()?;
        space.opened();

        let reads = ReaderPool::default();
        let appends = Arc::new(AppendQueue::default());
        let checkpoints = Arc::new(Checkpoints::new(Arc::clone(&space)));
        let commit_fault = CommitFault::default();
        let stats = Arc::new(StoreStats::default());
        let (durable_sender, durable) = watch::channel(());
        let writer = Writer::new(
            connection,
            Arc::clone(&appends),
            durable_sender,
            Arc::clone(&checkpoints),
            Arc::clone(&space),
            commit_fault.clone(),
            Arc::clone(&stats),
        )?;
        let checkpoint_connection = writer::connect(&database)?;
        let running = Running {
            appends: Arc::clone(&appends),
            reads: reads.clone(),
            checkpoints: Arc::clone(&checkpoints),
            threads: Mutex::default(),
        };
        let mut threads = Threads { directory: Some(directory), index, ..Threads::default() };
        threads.readers = reads.start(&database, options.reader_threads)?;
        threads.checkpointer = Some(spawn("store-checkpointer", &database, move || {
            checkpointer::run(&checkpoint_connection, &checkpoints, pages);
        })?);
        let abandoned = Abandon(Arc::clone(&appends));
        threads.writer = Some(spawn("store-writer", &database, move || {
            let _abandoned = abandoned;
            writer.run();
        })?);
        *running.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(Self {
            appends,
            reads,
            durable,
            space,
            running: Arc::new(running),
            stats,
            #[cfg(test)]
            commit_fault,
        })
    }

    /// Checks that a new store fits, where there is none yet.
    ///
    /// # Errors
    ///
    /// [`OpenError::NoSpace`], or the system does not say.
    pub fn check_space(options: &Options) -> Result<(), OpenError> {
        if options.directory.join(directory::DATABASE).exists() {
            return Ok(());
        }
        ensure_space(options, sizes(options)?)
    }

    /// Gives up a little of the reserve, for a file beside the events that is as urgent as
    /// they are. False where nothing is left.
    pub fn release_reserve(&self) -> bool {
        self.space.release()
    }

    /// Closes the store: carries out the appends that wait, ends the reads, and moves
    /// the whole write-ahead log into the database. What is asked afterwards is
    /// unavailable, and subscriptions end.
    pub async fn close(&self) {
        let running = Arc::clone(&self.running);
        let (done, closed) = oneshot::channel();
        let close = move || {
            running.close();
            // Whoever asked may have dropped the future.
            let _ = done.send(());
        };
        if thread::Builder::new().name("store-close".to_owned()).spawn(close).is_err() {
            self.running.close();
        }
        // An error means that it was closed just above.
        let _ = closed.await;
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.running.close();
    }
}

/// What runs, so that it can be ended.
struct Running {
    appends: Arc<AppendQueue>,
    reads: ReaderPool,
    checkpoints: Arc<Checkpoints>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    writer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    /// The index of the write-ahead log. Held open, because closing any file takes away the
    /// locks that this process has on it.
    index: Option<File>,
    /// Let go last: nobody else may come in before the files are at rest.
    directory: Option<Directory>,
}

impl Running {
    fn close(&self) {
        // Held to the end, so that a second caller returns only when all is done.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        self.appends.close();
        join(threads.writer.take());
        self.reads.close();
        join(threads.readers.drain(..));
        self.checkpoints.close();
        join(threads.checkpointer.take());
        threads.index = None;
        threads.directory = None;
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the event store has panicked");
        }
    }
}

fn spawn(
    name: &str,
    database: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| OpenError::Io { path: database.to_owned(), source })
}

/// Answers those who wait if the writer ends before its queue does.
struct Abandon(Arc<AppendQueue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// How much space is kept for what in this directory.
fn sizes(options: &Options) -> Result<Sizes, OpenError> {
    let volume = volume(options)?;
    Ok(Sizes::on(volume, options.reserve_bytes, options.log_bytes_reserved))
}

fn volume(options: &Options) -> Result<reserve::Volume, OpenError> {
    // Of a directory that is still to be made, the one it will be in.
    let there = options.directory.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(there)
        .and_then(|directory| reserve::volume(&directory))
        .map_err(|source| OpenError::Io { path: options.directory.clone(), source })
}

fn ensure_space(options: &Options, sizes: Sizes) -> Result<(), OpenError> {
    // A start that was cut short may have set space aside already.
    let held = std::fs::metadata(options.directory.join(space::RESERVE));
    let free = volume(options)?.free + held.map_or(0, |held| held.len());
    if free >= sizes.needed() {
        return Ok(());
    }
    Err(OpenError::NoSpace {
        path: options.directory.clone(),
        free_mib: free >> 20,
        needed_mib: sizes.needed() >> 20,
    })
}

/// Opens the database for writing and checks all that can be checked in little time.
/// Gives the index of the write-ahead log, too.
fn open_checked(
    database: &Path,
    space: &Space,
    sizes: Sizes,
    pages: LogPages,
) -> Result<(Connection, Option<File>), OpenError> {
    let io = |source| OpenError::Io { path: database.to_owned(), source };
    if std::fs::metadata(database).map_err(io)?.len() == 0 {
        return Err(OpenError::Corrupt("it is empty".to_owned()));
    }
    let connection = writer::connect(database)?;
    schema::check(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let log = database.with_extension("db-wal");
    checkpointer::sync(&log).map_err(|source| OpenError::Io { path: log.clone(), source })?;
    let log_bytes = || std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    // One that is not too long keeps its blocks: others might have them before it does.
    let mode = if log_bytes() > sizes.log { "TRUNCATE" } else { "RESTART" };
    match checkpointer::checkpoint(&connection, mode) {
        Ok(checkpointed) if checkpointed.held_up => return Err(OpenError::InUse),
        Ok(_) => {}
        // It is read where it is.
        Err(error) if space.is_no_space(&error) => space.tighten(),
        Err(error) => return Err(error.into()),
    }
    check_tail(database)?;
    let index = File::options().write(true).open(database.with_extension("db-shm")).ok();
    if let Some(index) = &index {
        let bytes = index.metadata().map_or(0, |metadata| metadata.len());
        let bytes = bytes.max(pages.index_bytes());
        if let Err(error) = reserve::back_with_blocks(index, bytes) {
            tracing::warn!(%error, "no space could be had for the index of the write-ahead log");
        }
    }
    if !space.spares(sizes.log.saturating_sub(log_bytes())) {
        tracing::warn!("no space could be had for the write-ahead log");
    } else if let Err(error) = checkpointer::lengthen(&log, sizes.log) {
        tracing::warn!(%error, "no space could be had for the write-ahead log");
    }
    Ok((connection, index))
}

/// Reads the last events: an engine that cannot is damaged.
fn check_tail(database: &Path) -> Result<(), OpenError> {
    let mut reader = reader::Reader::open(database)?;
    let items = reader.read_tail(TAIL_EVENTS).map_err(|error| match error {
        ReadError::Lost { what, .. } | ReadError::Unavailable(what) => OpenError::Corrupt(what),
        ReadError::Corrupt { what, .. } => OpenError::Corrupt(what),
    })?;
    for (position, error) in items.into_iter().filter_map(Result::err) {
        tracing::error!(position = position.0, %error, "an event near the end is damaged");
    }
    Ok(())
}

impl EventStore for EmbeddedStore {
    fn append(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: Vec<NewEvent>,
        urgency: Urgency,
    ) -> StoreFuture<Result<Revision, AppendError>> {
        let (answer, answered) = oneshot::channel();
        let queued = check_limits(&events).and_then(|()| {
            self.appends.push(Request { stream: stream.clone(), expected, events, urgency, answer })
        });
        Box::pin(async move {
            queued?;
            let gone = |_| Err(AppendError::Unknown("the writer has stopped".to_owned()));
            answered.await.unwrap_or_else(gone)
        })
    }

    fn is_full(&self, urgency: Urgency) -> bool {
        urgency == Urgency::Normal && self.space.is_short()
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        let stream = stream.clone();
        self.reads.read(move |reader| reader.read_stream(&stream, from, events_max))
    }

    fn read_events(
        &self,
        stream: &StreamName,
        revisions: Vec<Revision>,
    ) -> StoreFuture<Result<Vec<Recorded>, ReadError>> {
        let stream = stream.clone();
        // One look-up at a time, on one thread, and one answer for all.
        self.reads.read(move |reader| {
            let mut events = Vec::with_capacity(revisions.len());
            for revision in revisions {
                let missing = || ReadError::missing(&stream, revision);
                let read = reader.read_stream(&stream, revision, 1)?;
                events.push(read.into_iter().next().ok_or_else(missing)?);
            }
            Ok(events)
        })
    }

    fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> StoreFuture<Result<Vec<ReadItem>, ReadError>> {
        self.reads.read(move |reader| reader.read_all(after, events_max))
    }

    fn subscribe_all(&self, after: Option<Position>) -> Box<dyn Subscription> {
        let reads = self.reads.clone();
        let read = move |after| reads.read(move |reader| reader.read_all(after, READ_EVENTS_MAX));
        CatchUp::boxed(read, self.durable.clone(), after)
    }
}

#[cfg(test)]
mod tests;

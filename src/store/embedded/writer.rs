//! The one writer: takes what waits, commits it at once, answers all.
//!
//! INVARIANT: nobody is answered `Ok` before the commit that holds their events has
//! returned, and that is after the write-ahead log was synced.
//!
//! A failed commit has one of three ends. No space: rolled back, each append tried on
//! its own, [`AppendError::Full`] for those that do not fit. A lock that another program
//! holds: rolled back, [`AppendError::Unavailable`]. Anything else: the store is fenced.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use projections::recorded::Revision;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::append_queue::{AppendQueue, Request};
use super::checkpointer::Checkpoints;
use super::commit_fault::CommitFault;
use super::gathering::Gathering;
use super::heads::{HeadError, Heads};
use super::place::revision;
use super::schema;
use crate::ledger::event_store::AppendError;
use crate::store::stats::StoreStats;

/// How long the writer waits for a lock: a checkpoint's, or another program's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Page cache of the writer, in KiB: the inner pages of the index should stay in it.
const CACHE_KIB: i64 = 32_768;

const LAST_POSITION: &str = "SELECT coalesce(max(position), 0) FROM events";
const INSERT_EVENT: &str = "INSERT INTO events
    (position, stream, revision, stored, leaf_hash, place_check) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

type Verdict = Result<Revision, AppendError>;

/// The writer, on its thread.
pub(super) struct Writer {
    connection: Connection,
    queue: Arc<AppendQueue>,
    heads: Heads,
    last_position: i64,
    durable: watch::Sender<()>,
    checkpoints: Arc<Checkpoints>,
    fault: CommitFault,
    fenced: Option<String>,
    gathering: Gathering,
    stats: Arc<StoreStats>,
}

/// Who may still join a commit that has begun.
struct Late {
    company: usize,
    until: Instant,
}

/// Why a commit failed.
enum CommitError {
    Full,
    Unavailable(String),
    Fence(String),
}

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Fence(error.to_string()),
        }
    }
}

impl From<&CommitError> for AppendError {
    fn from(error: &CommitError) -> Self {
        match error {
            CommitError::Full => Self::Full,
            CommitError::Unavailable(what) => Self::Unavailable(what.clone()),
            CommitError::Fence(what) => Self::Fenced(what.clone()),
        }
    }
}

/// Opens the connection that writes, with the write-ahead log on and synced at each commit.
pub(super) fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(database, schema::WRITE_FLAGS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        queue: Arc<AppendQueue>,
        durable: watch::Sender<()>,
        checkpoints: Arc<Checkpoints>,
        fault: CommitFault,
        stats: Arc<StoreStats>,
    ) -> rusqlite::Result<Self> {
        let last_position = connection.query_row(LAST_POSITION, [], |row| row.get(0))?;
        Ok(Self {
            connection,
            queue,
            heads: Heads::default(),
            last_position,
            durable,
            checkpoints,
            fault,
            fenced: None,
            gathering: Gathering::default(),
            stats,
        })
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(mut batch) = self.queue.take() {
            let (company, patience) = self.gathering.next();
            let began = Instant::now();
            let late = Late { company, until: began + patience };
            let verdicts = self.decide(&mut batch, Some(late));
            // Read before anyone is answered: whoever comes later may have been answered.
            let waiting = self.queue.len();
            self.gathering.committed(batch.len(), batch.len() + waiting, began.elapsed());
            for (request, verdict) in batch.into_iter().zip(verdicts) {
                // Whoever asked may have dropped the future: the events stay.
                let _ = request.answer.send(verdict);
            }
        }
    }

    /// Carries out a batch, which may grow, and says what came of each.
    fn decide(&mut self, batch: &mut Vec<Request>, late: Option<Late>) -> Vec<Verdict> {
        let before = self.last_position;
        match self.commit(batch, late) {
            Ok(verdicts) => {
                if self.last_position != before {
                    self.durable.send_replace(());
                }
                verdicts
            }
            // One that is too big must not fail those that fit.
            Err(CommitError::Full) if batch.len() > 1 => {
                let mut verdicts = Vec::with_capacity(batch.len());
                for request in std::mem::take(batch) {
                    let mut alone = vec![request];
                    verdicts.append(&mut self.decide(&mut alone, None));
                    batch.append(&mut alone);
                }
                verdicts
            }
            Err(error) => vec![Err(AppendError::from(&error)); batch.len()],
        }
    }

    /// Writes a batch in one transaction. The verdicts hold only because it committed.
    fn commit(
        &mut self,
        batch: &mut Vec<Request>,
        late: Option<Late>,
    ) -> Result<Vec<Verdict>, CommitError> {
        if let Some(what) = &self.fenced {
            return Err(CommitError::Fence(what.clone()));
        }
        let before = self.last_position;
        self.try_commit(batch, late).map_err(|error| {
            self.last_position = before;
            self.heads.forget(batch.iter().map(|request| &request.stream));
            self.roll_back(error)
        })
    }

    /// Leaves the failed transaction, and fences the store unless nothing can be in doubt.
    fn roll_back(&mut self, error: CommitError) -> CommitError {
        if matches!(error, CommitError::Full) {
            self.stats.full.set(1);
        }
        let rolled_back =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        let what = match error {
            CommitError::Full | CommitError::Unavailable(_) if rolled_back => return error,
            CommitError::Full | CommitError::Unavailable(_) => {
                "a failed commit could not be rolled back".to_owned()
            }
            CommitError::Fence(what) => what,
        };
        tracing::error!(%what, "the event store is fenced: writes are refused until restart");
        self.checkpoints.fence();
        self.stats.fenced.set(1);
        self.fenced = Some(what.clone());
        CommitError::Fence(what)
    }

    fn try_commit(
        &mut self,
        batch: &mut Vec<Request>,
        late: Option<Late>,
    ) -> Result<Vec<Verdict>, CommitError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut verdicts = Vec::with_capacity(batch.len());
        loop {
            for request in batch.iter().skip(verdicts.len()) {
                verdicts.push(self.place(request)?);
            }
            // Those who come late are placed as they come, not after the last of them.
            let Some(late) = &late else { break };
            if !self.queue.take_late(batch, late.company, late.until) {
                break;
            }
        }
        self.fault.strike().map_err(|error| CommitError::Fence(error.to_string()))?;
        let began = Instant::now();
        self.connection.execute_batch("COMMIT")?;
        self.stats.commit_ns.observe_time(began.elapsed());
        let bytes = batch.iter().map(Request::bytes).sum();
        let events = batch.iter().map(|request| request.events.len()).sum();
        self.checkpoints.committed(events, bytes);
        self.stats.committed(batch.len(), events);
        Ok(verdicts)
    }

    /// Writes one append into the open transaction, if its stream ends where it expects.
    fn place(&mut self, request: &Request) -> Result<Verdict, CommitError> {
        let head = match self.heads.head(&self.connection, &request.stream) {
            Ok(head) => head,
            Err(HeadError::Corrupt(what)) => {
                let what = format!("stream `{}` is corrupt: {what}", request.stream);
                return Ok(Err(AppendError::Unavailable(what)));
            }
            Err(HeadError::Engine(error)) => return Err(error.into()),
        };
        let current = head.last.map(revision);
        if current != request.expected {
            let stream = request.stream.clone();
            return Ok(Err(AppendError::WrongExpectedRevision { stream, current }));
        }
        let id = head.stored(&self.connection)?;
        let mut insert = self.connection.prepare_cached(INSERT_EVENT)?;
        let mut last = head.last.unwrap_or(-1);
        for event in &request.events {
            self.last_position += 1;
            last += 1;
            let leaf_hash = event.leaf_hash.0.as_slice();
            let check = head.named.check(self.last_position, last, leaf_hash);
            insert.execute((self.last_position, id, last, &*event.stored, leaf_hash, check))?;
        }
        head.last = Some(last);
        Ok(Ok(revision(last)))
    }
}

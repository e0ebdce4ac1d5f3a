//! The one writer: takes what waits, commits it at once, answers all.
//!
//! INVARIANT: nobody is answered `Ok` before the commit that holds their events has
//! returned, and that is after the write-ahead log was synced.
//!
//! A failed commit has one of three ends. No space: rolled back, and tried again with what
//! is urgent in it on the reserve's space; [`AppendError::Full`] for what does not fit. A
//! lock that another program holds: rolled back, [`AppendError::Unavailable`]. Anything
//! else: the store is fenced.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use projections::recorded::Revision;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::append_queue::{AppendQueue, Request};
use super::checkpointer::{self, Checkpoints};
use super::commit_fault::CommitFault;
use super::gathering::Gathering;
use super::heads::{HeadError, Heads};
use super::place::revision;
use super::schema;
use super::space::{APPEND_BYTES, Space};
use crate::ledger::event_store::AppendError;
use crate::ledger::urgency::Urgency;
use crate::store::stats::StoreStats;

/// How long the writer waits for a lock: a checkpoint's, or another program's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it waits for reads before the log is begun again for want of space.
const RESTART_TIMEOUT: Duration = Duration::from_secs(1);
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
    space: Arc<Space>,
    /// How many bytes the batch at hand may still write for what is not urgent.
    room: u64,
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

/// What became of an append inside a transaction that failed, or why it did.
enum Failure {
    Engine(rusqlite::Error),
    Known(CommitError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error)
    }
}

impl CommitError {
    fn of(failure: Failure, space: &Space) -> Self {
        let error = match failure {
            Failure::Known(error) => return error,
            Failure::Engine(error) if space.is_no_space(&error) => return Self::Full,
            Failure::Engine(error) => error,
        };
        match error.sqlite_error_code() {
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

/// What each append of a batch is told.
fn verdicts(outcome: Result<Vec<Verdict>, CommitError>, count: usize) -> Vec<Verdict> {
    outcome.unwrap_or_else(|error| vec![Err(AppendError::from(&error)); count])
}

/// Opens the connection that writes, with the write-ahead log on and synced at each commit.
pub(super) fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(database, schema::WRITE_FLAGS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A disk that is full elsewhere is no reason to fail.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        queue: Arc<AppendQueue>,
        durable: watch::Sender<()>,
        checkpoints: Arc<Checkpoints>,
        space: Arc<Space>,
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
            space,
            room: 0,
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
            self.room = self.space.room();
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
        match self.commit(batch, late) {
            Err(CommitError::Full) => self.decide_short(batch),
            outcome => verdicts(outcome, batch.len()),
        }
    }

    /// Carries out a batch that there was no space for.
    fn decide_short(&mut self, batch: &mut Vec<Request>) -> Vec<Verdict> {
        let normal = |request: &Request| request.urgency == Urgency::Normal;
        if self.room == 0 || !batch.iter().any(normal) {
            return match self.commit_reserved(batch) {
                Err(CommitError::Full) if batch.len() > 1 => self.decide_alone(batch),
                outcome => verdicts(outcome, batch.len()),
            };
        }
        if batch.len() > 1 {
            return self.decide_alone(batch);
        }
        self.refuse_normal();
        vec![Err(AppendError::Full)]
    }

    /// Carries out each append of a batch by itself: one that is too big must not fail
    /// those that fit.
    fn decide_alone(&mut self, batch: &mut Vec<Request>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(batch.len());
        for request in std::mem::take(batch) {
            self.room = self.room.min(self.space.room());
            let mut alone = vec![request];
            verdicts.append(&mut self.decide(&mut alone, None));
            batch.append(&mut alone);
        }
        verdicts
    }

    /// Writes what is urgent in a batch that there was no space for: with the write-ahead log
    /// begun again, then with one step of the reserve after the other.
    fn commit_reserved(&mut self, batch: &mut Vec<Request>) -> Result<Vec<Verdict>, CommitError> {
        self.refuse_normal();
        loop {
            // What it cannot copy now it can after another step.
            if let Err(error) = self.restart_log() {
                tracing::debug!(%error, "the write-ahead log could not be begun again");
            }
            match self.commit(batch, None) {
                Err(CommitError::Full) if self.space.release() => {}
                outcome => return outcome,
            }
        }
    }

    fn restart_log(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(RESTART_TIMEOUT)?;
        let restarted = checkpointer::checkpoint(&self.connection, "RESTART");
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        restarted.map(|_| ())
    }

    /// Refuses what is not urgent, in the batch at hand and until there is space again.
    fn refuse_normal(&mut self) {
        self.room = 0;
        self.checkpoints.tighten();
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
        let verdicts = self.try_commit(batch, late).map_err(|failure| {
            let error = CommitError::of(failure, &self.space);
            self.last_position = before;
            self.heads.forget(batch.iter().map(|request| &request.stream));
            self.roll_back(error)
        })?;
        if self.last_position != before {
            self.durable.send_replace(());
        }
        Ok(verdicts)
    }

    /// Leaves the failed transaction, and fences the store unless nothing can be in doubt.
    fn roll_back(&mut self, error: CommitError) -> CommitError {
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
    ) -> Result<Vec<Verdict>, Failure> {
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
        let fence = |error: std::io::Error| CommitError::Fence(error.to_string());
        self.fault.strike().map_err(fence).map_err(Failure::Known)?;
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
    fn place(&mut self, request: &Request) -> Result<Verdict, Failure> {
        let left = match request.urgency {
            Urgency::Reserved => Some(self.room),
            // Once in the log, and once in the database.
            Urgency::Normal => self.room.checked_sub(2 * request.bytes() as u64 + APPEND_BYTES),
        };
        let Some(left) = left else {
            self.refuse_normal();
            return Ok(Err(AppendError::Full));
        };
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
        self.room = left;
        Ok(Ok(revision(last)))
    }
}

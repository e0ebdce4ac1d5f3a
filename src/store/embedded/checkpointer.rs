//! Moves the write-ahead log into the database, off the write path.
//!
//! A passive checkpoint copies what it can while the writer goes on. Under steady load
//! that never reaches the end of the log, so beyond a limit the checkpointer also asks
//! for a restart: it first copies all it can, then holds the writer up for the rest.
//!
//! The limit is low on purpose: a log that begins again writes over itself, and to sync
//! that is much cheaper than to sync a file that grows.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

/// How many pages the writer may have added before the length of the log is looked at.
const LOOK_PAGES: usize = 512;
/// How many pages of the log may wait to be copied.
const PENDING_PAGES_MAX: i64 = 4_096;
/// How long the log may grow, in pages, before the writer is held up to restart it.
const LOG_PAGES_MAX: i64 = 8_192;
/// How long the log may be, in pages, before it is also cut.
const LOG_PAGES_KEPT_MAX: i64 = 131_072;
/// How long a restart waits for reads: the writer waits as long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
const PAGE_BYTES: usize = 4_096;

/// Fills a log that was just cut with zeros, which the engine takes for an empty log.
///
/// Without it the first commits would each make the file longer.
pub(super) fn reserve(log: &Path, bytes: usize) -> io::Result<()> {
    let mut log = OpenOptions::new().write(true).open(log)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes / zeros.len() {
        log.write_all(&zeros)?;
    }
    log.sync_all()
}

/// What the writer tells the checkpointer.
#[derive(Default)]
pub(super) struct Checkpoints {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pages: usize,
    fenced: bool,
    closed: bool,
}

impl Checkpoints {
    /// Notes what a commit added: about a page of index for each event, and its bytes.
    pub(super) fn committed(&self, events: usize, bytes: usize) {
        let mut state = self.lock();
        state.pages += events + bytes / PAGE_BYTES;
        let due = state.pages >= LOOK_PAGES;
        drop(state);
        if due {
            self.changed.notify_one();
        }
    }

    /// Leaves the files as they are: what is in them is for the next start to judge.
    pub(super) fn fence(&self) {
        self.lock().fenced = true;
    }

    /// Ends the checkpointer, with a last checkpoint.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until there is enough to do; false once closed.
    fn wait(&self) -> bool {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| !state.closed && (state.fenced || state.pages < LOOK_PAGES))
            .unwrap_or_else(PoisonError::into_inner);
        state.pages = 0;
        !state.closed
    }

    fn is_fenced(&self) -> bool {
        self.lock().fenced
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until closed, on its own thread and connection.
pub(super) fn run(connection: &Connection, checkpoints: &Checkpoints) {
    if let Err(error) = connection.busy_timeout(BUSY_TIMEOUT) {
        tracing::warn!(%error, "a restart of the write-ahead log may hold the writer up for long");
    }
    while checkpoints.wait() {
        if checkpoints.is_fenced() {
            continue;
        }
        if let Err(error) = relieve(connection) {
            tracing::warn!(%error, "a checkpoint of the write-ahead log failed; the log grows until one succeeds");
        }
    }
    if checkpoints.is_fenced() {
        return;
    }
    if let Err(error) = checkpoint(connection, "TRUNCATE") {
        tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
    }
}

fn relieve(connection: &Connection) -> rusqlite::Result<()> {
    let log = checkpoint(connection, "NOOP")?;
    if log.log_pages - log.copied_pages < PENDING_PAGES_MAX {
        return Ok(());
    }
    let log = checkpoint(connection, "PASSIVE")?;
    if log.log_pages > LOG_PAGES_KEPT_MAX {
        checkpoint(connection, "TRUNCATE")?;
    } else if log.log_pages > LOG_PAGES_MAX {
        checkpoint(connection, "RESTART")?;
    }
    Ok(())
}

/// What came of a checkpoint.
pub(super) struct Checkpointed {
    /// Whether a lock kept it from its end.
    pub(super) held_up: bool,
    /// How long the log is, in pages.
    pub(super) log_pages: i64,
    /// How many of these are in the database.
    copied_pages: i64,
}

/// Runs one checkpoint.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Checkpointed> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Checkpointed { held_up: row.get(0)?, log_pages: row.get(1)?, copied_pages: row.get(2)? })
    })
}

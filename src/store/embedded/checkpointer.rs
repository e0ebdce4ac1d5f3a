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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::space::Space;

/// How many pages the writer may have added before the length of the log is looked at.
const LOOK_PAGES: usize = 512;
/// How long a restart waits for reads: the writer waits as long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether space has come back.
const SPACE_LOOK: Duration = Duration::from_millis(250);
const PAGE_BYTES: usize = 4_096;
/// A page in the log, with what stands before it.
const FRAME_BYTES: u64 = 4_096 + 24;
/// How many pages of the log one part of its index is for, and how long that part is.
const INDEX_PAGES: u64 = 4_096;
const INDEX_PART_BYTES: u64 = 32 << 10;

/// How long the log may get, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogPages {
    /// How many may wait to be copied.
    pending_max: i64,
    /// How many there may be before the writer is held up to restart it.
    max: i64,
    /// The same where space is short: what there is of it is for the database.
    short_max: i64,
    /// How many there may be before it is also cut.
    kept_max: i64,
}

impl LogPages {
    /// For a log that is made that long: it is restarted well before it must grow.
    pub(super) fn of(log_bytes: u64) -> Self {
        let max = i64::try_from(log_bytes / FRAME_BYTES / 5 * 4).unwrap_or(i64::MAX / 16);
        let max = max.max(1_024);
        Self { pending_max: max / 2, max, short_max: 256, kept_max: max.saturating_mul(16) }
    }

    /// How long the index of the log is made at once.
    pub(super) fn index_bytes(self) -> u64 {
        let pages = 2 * u64::try_from(self.max).unwrap_or(0);
        (pages / INDEX_PAGES + 2) * INDEX_PART_BYTES
    }
}

/// Makes the log so long with zeros, which the engine takes for an empty log.
///
/// Without it the first commits would each make the file longer. What cannot be had is
/// left away.
pub(super) fn lengthen(log: &Path, bytes: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut log = options.append(true).open(log)?;
    let there = log.metadata()?.len();
    let zeros = vec![0; 1 << 20];
    let mut missing = usize::try_from(bytes.saturating_sub(there)).unwrap_or(0);
    while missing > 0 {
        let (part, _) = zeros.split_at(missing.min(zeros.len()));
        log.write_all(part)?;
        missing -= part.len();
    }
    log.sync_all()
}

/// Makes sure that what is in the log is on disk.
pub(super) fn sync(log: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(log) {
        Ok(log) => log.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the writer tells the checkpointer.
pub(super) struct Checkpoints {
    space: Arc<Space>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pages: usize,
    fenced: bool,
    closed: bool,
    /// There is too little space: it is looked for.
    short: bool,
}

impl Checkpoints {
    pub(super) fn new(space: Arc<Space>) -> Self {
        let state = State { short: space.is_short(), ..State::default() };
        Self { space, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Refuses appends that are not urgent, until there is space again.
    pub(super) fn tighten(&self) {
        let mut state = self.lock();
        self.space.tighten();
        state.short = true;
        drop(state);
        self.changed.notify_one();
    }

    /// Looks for space where there was too little.
    fn recover(&self) {
        let short = self.lock().short;
        if short && self.space.recover() {
            // Somebody may have found too little in the meantime.
            let mut state = self.lock();
            state.short = self.space.is_short();
        }
    }

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
        let mut state = self.lock();
        state.fenced = true;
        // What is refused now is refused for another reason.
        state.short = false;
        self.space.forget();
    }

    /// Ends the checkpointer, with a last checkpoint.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until there is enough to do, or time to look for space; false once closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        let idle = |state: &State| !state.closed && (state.fenced || state.pages < LOOK_PAGES);
        while idle(&state) {
            if state.short && !state.fenced {
                let woken = self.changed.wait_timeout(state, SPACE_LOOK);
                let (woken, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() {
                    break;
                }
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
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
pub(super) fn run(connection: &Connection, checkpoints: &Checkpoints, pages: LogPages) {
    if let Err(error) = connection.busy_timeout(BUSY_TIMEOUT) {
        tracing::warn!(%error, "a restart of the write-ahead log may hold the writer up for long");
    }
    while checkpoints.wait() {
        if checkpoints.is_fenced() {
            continue;
        }
        match relieve(connection, pages, checkpoints.space.is_short()) {
            Ok(()) => checkpoints.recover(),
            Err(error) if checkpoints.space.is_no_space(&error) => checkpoints.tighten(),
            Err(error) => {
                tracing::warn!(%error, "a checkpoint of the write-ahead log failed; the log grows until one succeeds");
            }
        }
    }
    if checkpoints.is_fenced() {
        return;
    }
    if let Err(error) = checkpoint(connection, "TRUNCATE") {
        tracing::warn!(%error, "the last checkpoint failed; the next start makes up for it");
    }
}

/// Copies what waits, if it is much; all of it where space is short, so that what is
/// left to be copied is known to fit.
fn relieve(connection: &Connection, pages: LogPages, short: bool) -> rusqlite::Result<()> {
    let log = checkpoint(connection, "NOOP")?;
    let pending = log.log_pages - log.copied_pages;
    if pending < pages.pending_max && !(short && pending > 0) {
        return Ok(());
    }
    let log = checkpoint(connection, "PASSIVE")?;
    let max = if short { pages.short_max } else { pages.max };
    if log.log_pages > pages.kept_max {
        checkpoint(connection, "TRUNCATE")?;
    } else if log.log_pages > max {
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
    pub(super) copied_pages: i64,
}

/// Runs one checkpoint.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Checkpointed> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Checkpointed { held_up: row.get(0)?, log_pages: row.get(1)?, copied_pages: row.get(2)? })
    })
}

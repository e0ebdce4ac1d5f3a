//! What is derived, in `projections.db`: one SQLite database beside the truth.
//!
//! It holds nothing that history does not say, and can be deleted whenever no process uses
//! the directory. A file that is no such database, or of another form, is thrown away and made
//! anew. A round of writing is one transaction; a crash leaves the rounds before
//! it. They are not synced as they end: a power cut may take back the last of them, whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use projections::id::{KeyId, OrganizationId};
use projections::recorded::Revision;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};

use super::derived_file;
use crate::ledger::snapshot_store::{
    DEAD_KEYS_READ_MAX, DeadRow, PastRow, Saving, SnapshotError, SnapshotOf, SnapshotStore,
};

/// "KLDP": what `file(1)` and we know the database by.
const APPLICATION_ID: i32 = 0x4b4c_4450;
/// The form of the tables.
const FORM: i32 = 2;
/// A snapshot is kept in parts of this many bytes.
const PART_BYTES: usize = 4 << 20;
const TABLES: &str = "
CREATE TABLE manifest (only_one INTEGER PRIMARY KEY CHECK (only_one = 0), bytes BLOB NOT NULL)
    STRICT;
CREATE TABLE snapshots (
    organization BLOB NOT NULL, kind INTEGER NOT NULL, part INTEGER NOT NULL,
    bytes BLOB NOT NULL, UNIQUE (organization, kind, part)
) STRICT;
CREATE TABLE fingerprints (run INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE dead_keys (
    organization BLOB NOT NULL, key BLOB NOT NULL, fingerprint INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY (organization, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_keys_by_fingerprint ON dead_keys (fingerprint);
CREATE INDEX dead_keys_by_key ON dead_keys (key);
CREATE TABLE past (
    organization BLOB NOT NULL, revision INTEGER NOT NULL, part INTEGER NOT NULL,
    bytes BLOB NOT NULL, UNIQUE (organization, revision, part)
) STRICT;
";
const DEAD_ROW: &str = "SELECT organization, key, fingerprint, sealed FROM dead_keys";

/// The derived store of a data directory.
pub struct DerivedStore {
    path: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// Reads tables as they were, which are long: nobody else waits for it.
    past_reader: Mutex<Connection>,
}

impl DerivedStore {
    /// Opens the file, making it anew if it is not there or cannot be used. Blocks.
    ///
    /// # Errors
    ///
    /// Not even an empty one can be made.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let Connections { writer, reader, past_reader } = match connect(path) {
            Ok(all) => all,
            Err(SnapshotError::Damaged(what)) => {
                tracing::warn!(what, "projections.db cannot be used; it is made anew from history");
                derived_file::remove(path)?;
                connect(path)?
            }
            // For want of space, say, nothing is thrown away.
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            past_reader: Mutex::new(past_reader),
        })
    }

    /// Looks whether the file, where there is one, can be used. It is left as it is. Blocks.
    ///
    /// # Errors
    ///
    /// It cannot; [`DerivedStore::open`] would make it anew where it is damaged.
    pub fn look(path: &Path) -> Result<(), SnapshotError> {
        if path.exists() { connect(path).map(drop) } else { Ok(()) }
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past_reader(&self) -> MutexGuard<'_, Connection> {
        self.past_reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database may grow to this many pages.
    #[cfg(test)]
    pub(crate) fn set_pages_max(&self, pages_max: u32) {
        let writer = self.writer();
        let set = writer.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()));
        assert!(set.is_ok(), "{set:?}");
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<rusqlite::Error> for SnapshotError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy) => Self::Unavailable(
                "another process has projections.db open: stop the server of this directory, or end the database shell, say".to_owned(),
            ),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// What a database is reached by.
struct Connections {
    writer: Connection,
    reader: Connection,
    past_reader: Connection,
}

fn connect(path: &Path) -> Result<Connections, SnapshotError> {
    derived_file::create(path)?;
    let open = |flags: OpenFlags| derived_file::connect(path, flags);
    let writer = open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    writer.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    writer.pragma_update(None, "synchronous", "NORMAL")?;
    writer.pragma_update(None, "wal_autocheckpoint", 0)?;
    let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let objects = "SELECT count(*) FROM sqlite_schema";
    let objects: i64 = writer.query_row(objects, [], |row| row.get(0))?;
    if objects == 0 {
        writer.execute_batch(&format!(
            "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORM};
             {TABLES} COMMIT;"
        ))?;
    }
    if (number("application_id")?, number("user_version")?) != (APPLICATION_ID, FORM) {
        return Err(SnapshotError::Damaged("it is of another form".to_owned()));
    }
    let read_only = || -> rusqlite::Result<Connection> {
        let reader = open(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(reader)
    };
    let (reader, past_reader) = (read_only()?, read_only()?);
    let tables = "SELECT count(*) FROM sqlite_schema
        WHERE name IN ('manifest', 'snapshots', 'fingerprints', 'dead_keys', 'past')";
    if reader.query_row(tables, [], |row| row.get::<_, i64>(0))? != 5 {
        return Err(SnapshotError::Damaged("a table is missing".to_owned()));
    }
    Ok(Connections { writer, reader, past_reader })
}

/// Another connection to a database in use, for what goes wrong with it.
#[cfg(test)]
pub(crate) fn beside(path: &Path) -> Connection {
    derived_file::beside(path)
}

/// Where a snapshot is kept: whose it is, and which of its kinds.
fn place(of: SnapshotOf) -> ([u8; 16], i64) {
    match of {
        SnapshotOf::Tables(organization) => (organization.to_bytes(), 0),
        SnapshotOf::Usage(organization) => (organization.to_bytes(), 1),
        SnapshotOf::Accounts(part) => (u128::from(part).to_be_bytes(), 2),
    }
}

/// A revision as it is kept. None is as great as that type holds.
fn stored_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn dead_row(row: &Row<'_>) -> rusqlite::Result<DeadRow> {
    Ok(DeadRow {
        organization: OrganizationId::from_bytes(row.get(0)?),
        key: KeyId::from_bytes(row.get(1)?),
        fingerprint: row.get::<_, i64>(2)?.cast_unsigned(),
        sealed: row.get(3)?,
    })
}

impl SnapshotStore for DerivedStore {
    fn manifest(&self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let bytes = "SELECT bytes FROM manifest";
        Ok(self.reader().query_row(bytes, [], |row| row.get(0)).optional()?)
    }

    fn snapshot(&self, of: SnapshotOf) -> Result<Vec<u8>, SnapshotError> {
        let (id, kind) = place(of);
        let reader = self.reader();
        let parts =
            "SELECT bytes FROM snapshots WHERE organization = ?1 AND kind = ?2 ORDER BY part";
        let mut statement = reader.prepare_cached(parts)?;
        let mut rows = statement.query(params![id, kind])?;
        let mut bytes = Vec::new();
        while let Some(row) = rows.next()? {
            bytes.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
        }
        Ok(bytes)
    }

    fn fingerprints(&self, run: u64) -> Result<Vec<u8>, SnapshotError> {
        let bytes = "SELECT bytes FROM fingerprints WHERE run = ?1";
        let bytes = self.reader().query_row(bytes, [run.cast_signed()], |row| row.get(0));
        Ok(bytes.optional()?.unwrap_or_default())
    }

    fn dead_keys_like(&self, fingerprint: u64) -> Result<Vec<DeadRow>, SnapshotError> {
        let reader = self.reader();
        let like = format!("{DEAD_ROW} WHERE fingerprint = ?1");
        let mut statement = reader.prepare_cached(&like)?;
        let rows = statement.query_map([fingerprint.cast_signed()], dead_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn dead_key(
        &self,
        organization: OrganizationId,
        key: KeyId,
    ) -> Result<Option<DeadRow>, SnapshotError> {
        let reader = self.reader();
        let one = format!("{DEAD_ROW} WHERE organization = ?1 AND key = ?2");
        let mut statement = reader.prepare_cached(&one)?;
        let place = params![organization.to_bytes(), key.to_bytes()];
        Ok(statement.query_row(place, dead_row).optional()?)
    }

    fn dead_keys_named(&self, key: KeyId) -> Result<Vec<DeadRow>, SnapshotError> {
        let reader = self.reader();
        let named = format!("{DEAD_ROW} WHERE key = ?1");
        let mut statement = reader.prepare_cached(&named)?;
        let rows = statement.query_map([key.to_bytes()], dead_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn dead_keys_after(
        &self,
        organization: OrganizationId,
        after: Option<KeyId>,
        rows_max: usize,
    ) -> Result<Vec<DeadRow>, SnapshotError> {
        let reader = self.reader();
        // An empty blob is in front of every identifier.
        let after = after.map(|it| it.to_bytes().to_vec()).unwrap_or_default();
        let rows_max = i64::try_from(rows_max.min(DEAD_KEYS_READ_MAX)).unwrap_or(i64::MAX);
        let behind =
            format!("{DEAD_ROW} WHERE organization = ?1 AND key > ?2 ORDER BY key LIMIT ?3");
        let mut statement = reader.prepare_cached(&behind)?;
        let rows =
            statement.query_map(params![organization.to_bytes(), after, rows_max], dead_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn last_past(
        &self,
        organization: OrganizationId,
        at_most: Revision,
    ) -> Result<Option<Revision>, SnapshotError> {
        let last = "SELECT max(revision) FROM past WHERE organization = ?1 AND revision <= ?2";
        let place = params![organization.to_bytes(), stored_revision(at_most)];
        let reader = self.reader();
        let last: Option<i64> = reader.prepare_cached(last)?.query_row(place, |row| row.get(0))?;
        Ok(last.map(|it| Revision(it.cast_unsigned())))
    }

    fn past(
        &self,
        organization: OrganizationId,
        revision: Revision,
    ) -> Result<Option<PastRow>, SnapshotError> {
        let parts =
            "SELECT bytes FROM past WHERE organization = ?1 AND revision = ?2 ORDER BY part";
        let reader = self.past_reader();
        let mut statement = reader.prepare_cached(parts)?;
        let place = params![organization.to_bytes(), stored_revision(revision)];
        let mut rows = statement.query(place)?;
        let mut sealed = Vec::new();
        while let Some(row) = rows.next()? {
            sealed.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
        }
        Ok(Some(PastRow { organization, revision, sealed }).filter(|row| !row.sealed.is_empty()))
    }

    fn begin<'a>(&'a self, stop: &'a AtomicBool) -> Result<Box<dyn Saving + 'a>, SnapshotError> {
        let writer = self.writer();
        writer.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Box::new(Round { writer, stop }))
    }

    fn clear(&self) -> Result<(), SnapshotError> {
        // Nobody is inside while the files change under the connections.
        let (mut writer, mut reader) = (self.writer(), self.reader());
        let mut past_reader = self.past_reader();
        *writer = Connection::open_in_memory()?;
        *reader = Connection::open_in_memory()?;
        *past_reader = Connection::open_in_memory()?;
        derived_file::remove(&self.path)?;
        let new = connect(&self.path)?;
        (*writer, *reader, *past_reader) = (new.writer, new.reader, new.past_reader);
        Ok(())
    }
}

/// A transaction.
struct Round<'a> {
    writer: MutexGuard<'a, Connection>,
    stop: &'a AtomicBool,
}

impl Round<'_> {
    fn go_on(&self) -> Result<(), SnapshotError> {
        if self.stop.load(Ordering::Relaxed) { Err(SnapshotError::Stopped) } else { Ok(()) }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if !self.writer.is_autocommit() {
            // If even this fails the connection is of no more use, and says so next time.
            let _ = self.writer.execute_batch("ROLLBACK");
        }
    }
}

impl Saving for Round<'_> {
    fn snapshot(&mut self, of: SnapshotOf, bytes: &[u8]) -> Result<(), SnapshotError> {
        let (id, kind) = place(of);
        let remove = "DELETE FROM snapshots WHERE organization = ?1 AND kind = ?2";
        self.writer.prepare_cached(remove)?.execute(params![id, kind])?;
        let insert =
            "INSERT INTO snapshots (organization, kind, part, bytes) VALUES (?1, ?2, ?3, ?4)";
        for (bytes, part) in bytes.chunks(PART_BYTES).zip(0_i64..) {
            self.go_on()?;
            self.writer.prepare_cached(insert)?.execute(params![id, kind, part, bytes])?;
        }
        Ok(())
    }

    fn dead_key(&mut self, row: &DeadRow) -> Result<(), SnapshotError> {
        self.go_on()?;
        let DeadRow { organization, key, fingerprint, sealed } = row;
        let insert = "INSERT OR REPLACE INTO dead_keys (organization, key, fingerprint, sealed)
            VALUES (?1, ?2, ?3, ?4)";
        let fingerprint = fingerprint.cast_signed();
        let values = params![organization.to_bytes(), key.to_bytes(), fingerprint, sealed];
        self.writer.prepare_cached(insert)?.execute(values)?;
        Ok(())
    }

    fn fingerprints(&mut self, run: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let insert = "INSERT INTO fingerprints (run, bytes) VALUES (?1, ?2)";
        self.writer.prepare_cached(insert)?.execute(params![run.cast_signed(), bytes])?;
        Ok(())
    }

    fn remove_fingerprints(&mut self, run: u64) -> Result<(), SnapshotError> {
        let remove = "DELETE FROM fingerprints WHERE run = ?1";
        self.writer.prepare_cached(remove)?.execute([run.cast_signed()])?;
        Ok(())
    }

    fn past(&mut self, row: &PastRow) -> Result<(), SnapshotError> {
        let (organization, revision) = (row.organization.to_bytes(), stored_revision(row.revision));
        let remove = "DELETE FROM past WHERE organization = ?1 AND revision = ?2";
        self.writer.prepare_cached(remove)?.execute(params![organization, revision])?;
        let insert =
            "INSERT INTO past (organization, revision, part, bytes) VALUES (?1, ?2, ?3, ?4)";
        for (bytes, part) in row.sealed.chunks(PART_BYTES).zip(0_i64..) {
            self.go_on()?;
            let values = params![organization, revision, part, bytes];
            self.writer.prepare_cached(insert)?.execute(values)?;
        }
        Ok(())
    }

    fn remove_past(
        &mut self,
        organization: OrganizationId,
        from: Revision,
    ) -> Result<(), SnapshotError> {
        let remove = "DELETE FROM past WHERE organization = ?1 AND revision >= ?2";
        let place = params![organization.to_bytes(), stored_revision(from)];
        self.writer.prepare_cached(remove)?.execute(place)?;
        Ok(())
    }

    fn manifest(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let put = "INSERT OR REPLACE INTO manifest (only_one, bytes) VALUES (0, ?1)";
        self.writer.prepare_cached(put)?.execute([bytes])?;
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), SnapshotError> {
        self.go_on()?;
        self.writer.execute_batch("COMMIT")?;
        // What readers still look at stays in the log until the next round.
        let moved = self.writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = moved {
            tracing::debug!(%error, "the log of projections.db could not be emptied");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

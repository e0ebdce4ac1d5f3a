//! The tables of `ledger.db`, and how a database file is known to be ours.
//!
//! Events and streams are only ever added. Triggers refuse everything else, from any
//! connection: `INSERT OR REPLACE` deletes without firing delete triggers, so the insert
//! triggers admit nothing but the next place.

use rusqlite::{Connection, OpenFlags};

use super::open_error::OpenError;

/// "KLDG": what `file(1)` and we know the database by.
pub(super) const APPLICATION_ID: i32 = 0x4b4c_4447;
/// The one schema there is so far.
pub(super) const SCHEMA_VERSION: i32 = 1;

const TABLES: &str = "
CREATE TABLE streams (
    stream INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    stored BLOB NOT NULL,
    leaf_hash BLOB NOT NULL,
    place_check INTEGER NOT NULL,
    UNIQUE (stream, revision)
) STRICT;
";

/// What makes the tables append-only.
pub(super) const TRIGGERS: &str = "
CREATE TRIGGER events_take_only_the_next_place BEFORE INSERT ON events
WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM events)
  OR NEW.revision IS NOT
     (SELECT coalesce(max(revision), -1) + 1 FROM events WHERE stream = NEW.stream)
BEGIN SELECT RAISE(ABORT, 'events take only the next place'); END;
CREATE TRIGGER events_are_never_updated BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never updated'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TRIGGER streams_take_only_the_next_place BEFORE INSERT ON streams
WHEN NEW.stream IS NOT (SELECT coalesce(max(stream), 0) + 1 FROM streams)
  OR EXISTS (SELECT 1 FROM streams WHERE name = NEW.name)
BEGIN SELECT RAISE(ABORT, 'streams take only the next place'); END;
CREATE TRIGGER streams_are_never_updated BEFORE UPDATE ON streams
BEGIN SELECT RAISE(ABORT, 'streams are never updated'); END;
CREATE TRIGGER streams_are_never_deleted BEFORE DELETE ON streams
BEGIN SELECT RAISE(ABORT, 'streams are never deleted'); END;
";

/// Makes the tables in an empty database, all or none.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {SCHEMA_VERSION};
         {TABLES} {TRIGGERS}
         COMMIT;"
    ))
}

/// Checks that the database is ours and of this schema, its triggers included.
pub(super) fn check(connection: &Connection) -> Result<(), OpenError> {
    let application_id: i32 = connection.pragma_query_value(None, "application_id", first)?;
    if application_id != APPLICATION_ID {
        return Err(OpenError::NotKeyledger);
    }
    let found: i32 = connection.pragma_query_value(None, "user_version", first)?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::NewerSchema { found, known: SCHEMA_VERSION });
    }
    if found < SCHEMA_VERSION || objects(connection)? != expected_objects()? {
        return Err(OpenError::SchemaDiffers);
    }
    Ok(())
}

fn expected_objects() -> rusqlite::Result<Vec<String>> {
    let model = Connection::open_in_memory()?;
    create(&model)?;
    objects(&model)
}

/// Every table, index and trigger, as the text that made it.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // STAT tables are what `ANALYZE` in a foreign tool leaves behind; they do no harm.
    connection
        .prepare(
            "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY 1",
        )?
        .query_map([], first)?
        .collect()
}

fn first<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>) -> rusqlite::Result<T> {
    row.get(0)
}

/// What every connection is opened with: a database that is there, used by one thread.
pub(super) const WRITE_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
/// The same, for readers.
pub(super) const READ_FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

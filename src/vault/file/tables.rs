//! The tables of `vault.db`, row by row.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use projections::sealed::Subject;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, params};
use subtle::ConstantTimeEq as _;

use super::{OpenVaultError, Start};
use crate::ledger::vault::rows::RowName;
use crate::vault::files::{self, SecretFileError};
use crate::vault::wrap::Wrapped;

/// The form of the file, kept in SQLite's `user_version`.
const FORM: i64 = 2;
/// The form before secret rows.
const FORM_WITHOUT_ROWS: i64 = 1;

/// A subject without a wrapped key was erased.
const SCHEMA: &str = "
    CREATE TABLE checks (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE subject_keys (
        subject TEXT PRIMARY KEY, salt BLOB, sealed BLOB,
        CHECK ((salt IS NULL) = (sealed IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE named_keys (
        name TEXT PRIMARY KEY, salt BLOB NOT NULL, sealed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// What the second form has beside that. Replaced whenever it changes, its salt too.
const ROWS_SCHEMA: &str = "
    CREATE TABLE secret_rows (
        name TEXT PRIMARY KEY, salt BLOB NOT NULL, sealed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;
";

/// The open file.
pub(super) struct Tables(Connection);

/// A subject's row.
pub(super) enum SubjectRow {
    Held(Wrapped),
    Erased,
    Absent,
}

impl Tables {
    /// Opens the file; at the first start, makes it with mode 0600.
    pub(super) fn open(path: &Path, start: Start) -> Result<Self, OpenVaultError> {
        let io = |source| SecretFileError::Io { doing: "make", path: path.to_owned(), source };
        // Here and not by SQLite, so that it never is open to others.
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path).map_err(io)?;
        files::refuse_open_to_others(path, &file.metadata().map_err(io)?)?;
        drop(file);
        let failed = |source| OpenVaultError::Database { path: path.to_owned(), source };
        let mut connection = connect(path).map_err(failed)?;
        if start == Start::First {
            make_tables(&mut connection).map_err(failed)?;
        }
        add_rows(&mut connection).map_err(failed)?;
        match form(&connection).map_err(failed)? {
            FORM => Ok(Self(connection)),
            form => Err(OpenVaultError::Form { path: path.to_owned(), form }),
        }
    }

    /// Whether this is the value kept under this name; at the first start, keeps it if none is.
    pub(super) fn check(
        &mut self,
        start: Start,
        name: &str,
        value: &[u8],
    ) -> rusqlite::Result<bool> {
        let kept = "SELECT value FROM checks WHERE name = ?1";
        let kept: Option<Vec<u8>> = self.0.query_row(kept, [name], |row| row.get(0)).optional()?;
        if let Some(kept) = kept {
            return Ok(kept.ct_eq(value).into());
        }
        if start == Start::Later {
            return Ok(false);
        }
        self.0.execute("INSERT INTO checks (name, value) VALUES (?1, ?2)", params![name, value])?;
        Ok(true)
    }

    /// Whether it ever kept a subject's key, erased ones included.
    pub(super) fn has_subjects(&self) -> rusqlite::Result<bool> {
        self.0.query_row("SELECT EXISTS (SELECT 1 FROM subject_keys)", [], |row| row.get(0))
    }

    /// Lets the file grow no more: what else it is asked to hold finds the disk full.
    #[cfg(test)]
    pub(super) fn stop_growing(&self) {
        let pages: i64 = self.0.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let most = format!("PRAGMA max_page_count = {pages}");
        self.0.query_row(&most, [], |_| Ok(())).unwrap();
    }

    /// Begins a transaction.
    pub(super) fn begin(&mut self) -> rusqlite::Result<Rows<'_>> {
        self.0.transaction().map(Rows)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn form(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables in a file that has none.
fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = transaction.query_row(count, [], |row| row.get(0))?;
    if tables == 0 && form(&transaction)? == 0 {
        transaction.execute_batch(SCHEMA)?;
    }
    transaction.commit()
}

/// Brings a vault of the first form to the second.
fn add_rows(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if form(&transaction)? == FORM_WITHOUT_ROWS {
        transaction.execute_batch(ROWS_SCHEMA)?;
    }
    transaction.commit()
}

/// The rows, inside a transaction.
pub(super) struct Rows<'a>(Transaction<'a>);

impl Rows<'_> {
    pub(super) fn subject(&self, subject: &Subject) -> rusqlite::Result<SubjectRow> {
        let query = "SELECT salt, sealed FROM subject_keys WHERE subject = ?1";
        let mut statement = self.0.prepare_cached(query)?;
        let row = statement
            .query_row([subject.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match row {
            Some((Some(salt), Some(sealed))) => SubjectRow::Held(Wrapped { salt, sealed }),
            Some((_, _)) => SubjectRow::Erased,
            None => SubjectRow::Absent,
        })
    }

    pub(super) fn keep_subject(&self, subject: &Subject, key: &Wrapped) -> rusqlite::Result<()> {
        let insert = "INSERT INTO subject_keys (subject, salt, sealed) VALUES (?1, ?2, ?3)";
        let mut statement = self.0.prepare_cached(insert)?;
        statement.execute(params![subject.as_str(), key.salt, key.sealed]).map(|_| ())
    }

    pub(super) fn erase_subject(&self, subject: &Subject) -> rusqlite::Result<()> {
        let erase = "INSERT INTO subject_keys (subject) VALUES (?1)
                     ON CONFLICT (subject) DO UPDATE SET salt = NULL, sealed = NULL";
        self.0.prepare_cached(erase)?.execute([subject.as_str()]).map(|_| ())
    }

    pub(super) fn named(&self, name: &str) -> rusqlite::Result<Option<Wrapped>> {
        let query = "SELECT salt, sealed FROM named_keys WHERE name = ?1";
        let wrapped =
            |row: &rusqlite::Row<'_>| Ok(Wrapped { salt: row.get(0)?, sealed: row.get(1)? });
        self.0.prepare_cached(query)?.query_row([name], wrapped).optional()
    }

    pub(super) fn keep_named(&self, name: &str, key: &Wrapped) -> rusqlite::Result<()> {
        let insert = "INSERT INTO named_keys (name, salt, sealed) VALUES (?1, ?2, ?3)";
        self.0.prepare_cached(insert)?.execute(params![name, key.salt, key.sealed]).map(|_| ())
    }

    pub(super) fn secret_row(&self, name: &RowName) -> rusqlite::Result<Option<Wrapped>> {
        let query = "SELECT salt, sealed FROM secret_rows WHERE name = ?1";
        let wrapped =
            |row: &rusqlite::Row<'_>| Ok(Wrapped { salt: row.get(0)?, sealed: row.get(1)? });
        self.0.prepare_cached(query)?.query_row([name.as_str()], wrapped).optional()
    }

    pub(super) fn keep_secret_row(&self, name: &RowName, row: &Wrapped) -> rusqlite::Result<()> {
        let upsert = "INSERT INTO secret_rows (name, salt, sealed) VALUES (?1, ?2, ?3)
                      ON CONFLICT (name) DO UPDATE SET salt = ?2, sealed = ?3";
        let mut statement = self.0.prepare_cached(upsert)?;
        statement.execute(params![name.as_str(), row.salt, row.sealed]).map(|_| ())
    }

    pub(super) fn remove_secret_row(&self, name: &RowName) -> rusqlite::Result<()> {
        let delete = "DELETE FROM secret_rows WHERE name = ?1";
        self.0.prepare_cached(delete)?.execute([name.as_str()]).map(|_| ())
    }

    /// The first `most` names behind this text.
    pub(super) fn secret_row_names(
        &self,
        after: &str,
        most: usize,
    ) -> rusqlite::Result<Vec<String>> {
        let query = "SELECT name FROM secret_rows WHERE name > ?1 ORDER BY name LIMIT ?2";
        let mut statement = self.0.prepare_cached(query)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        statement.query_map(params![after, most], |row| row.get(0))?.collect()
    }

    /// Ends the transaction; what it wrote is on disk when this returns.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.0.commit()
    }
}

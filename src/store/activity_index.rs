//! The activity index, in `activity.db`: SQLite's full-text engine (FTS5) as what it is
//! inside, lists of places for each term, without any text.
//!
//! A row stands for an event: its number is the organization's, here, and the revision. Its
//! terms are hashes in letters, so that nothing anybody wrote ever reaches the engine's query
//! language. Rows hold no text and no columns, only the lists (`content=''`, `detail=none`,
//! <https://sqlite.org/fts5.html>).
//!
//! The file is derived: it can be deleted whenever no process uses the directory, and one that
//! cannot be used is made anew. It stands apart from `projections.db` because a database has one
//! writer: snapshots are written in long transactions, and the index is to be up to date.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use projections::activity::{TERM_BITS, TERMS_FORM, Term};
use projections::digest::LeafHash;
use projections::id::OrganizationId;
use projections::recorded::{Revision, StreamName};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use super::derived_file;
use crate::ledger::activity::Direction;
use crate::ledger::activity::index::{
    ActivityIndex, Digesting, Found, IndexError, Indexed, Reached, Search,
};
use crate::ledger::event_store::{Anchor, Position};

/// "KLAI": what `file(1)` and we know the database by.
const APPLICATION_ID: i32 = 0x4b4c_4149;
/// The form of the tables; that of the terms is counted on top.
const FORM: i32 = 2 << 16;
/// Page cache of the connection that writes, in KiB.
const WRITER_CACHE_KIB: i64 = 16_384;
/// Page cache of each connection that reads, in KiB.
const READER_CACHE_KIB: i64 = 8_192;
/// Pages of the write-ahead log after which it is moved into the database: 4 MiB.
const LOG_PAGES: i64 = 512;
/// Connections that read: a search takes one, and the last is for checks. What they read, each page
/// of it once, must not take the place of what searches read again and again.
const READERS: usize = 3;

/// A row's number is the organization's, shifted by this, and the revision.
const REVISION_BITS: u32 = 40;
/// Events stand in runs of so many, and have a word for their run. A search of several terms
/// looks at one run at a time, then at the clock: with that word among its own it ends where
/// the run does. A range of rows alone would not end it: the engine looks for the next event
/// that has all words, however far that is, before it looks at the range.
const RUN: u64 = 1 << RUN_BITS;
const RUN_BITS: u32 = 17;
/// Places that one step of a digest takes in: some milliseconds of work.
const DIGEST_PLACES: u32 = 1_024;
/// One in so many words is searched for, and where each step ends. To read all lists in order says
/// that nothing is missing in them, and not that a search finds its way to each: what leads there is
/// a hundredth of the file, each of it leads to hundreds of words or places, and each digest
/// searches for others.
const SEARCHED_ONE_IN: u64 = 16;
/// For how long a search begins windows.
const SEARCH_WITHIN: Duration = Duration::from_millis(10);

const TABLES: &str = "
CREATE TABLE checkpoint (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 0), before BLOB, position BLOB NOT NULL,
    stream TEXT NOT NULL, revision INTEGER NOT NULL, leaf_hash BLOB NOT NULL
) STRICT;
CREATE TABLE organizations (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, revision INTEGER NOT NULL
) STRICT;
CREATE VIRTUAL TABLE terms USING fts5(
    of_event, content='', detail=none, columnsize=0, tokenize='ascii'
);
";
/// Every word of every row, in order. Of one connection alone, in memory:
/// <https://sqlite.org/fts5.html#the_fts5vocab_virtual_table_module>.
const WORDS: &str = "CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, terms, instance)";
const PUT_CHECKPOINT: &str = "INSERT OR REPLACE INTO checkpoint
    (only_one, before, position, stream, revision, leaf_hash) VALUES (0, ?1, ?2, ?3, ?4, ?5)";

/// The activity index of a data directory.
pub struct ActivityDb {
    path: PathBuf,
    // Closed first: the last connection moves the write-ahead log into the database.
    readers: [Mutex<Connection>; READERS],
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    /// The number and the last revision of each organization.
    organizations: HashMap<OrganizationId, (i64, Revision)>,
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::DatabaseBusy) => Self::Unavailable(
                "another process has activity.db open: stop the server of this directory, or end the database shell, say".to_owned(),
            ),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl ActivityDb {
    /// Opens the file, making it anew if it is not there or cannot be used. Blocks.
    ///
    /// # Errors
    ///
    /// Not even an empty one can be made.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let (writer, readers) = match connect(path) {
            Ok(both) => both,
            Err(IndexError::Damaged(what)) => {
                tracing::warn!(what, "activity.db cannot be used; it is made anew from history");
                derived_file::remove(path)?;
                connect(path)?
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: readers.map(Mutex::new),
        })
    }

    /// Looks whether the file, where there is one, can be used. It is left as it is. Blocks.
    ///
    /// # Errors
    ///
    /// It cannot; [`ActivityDb::open`] would make it anew where it is damaged.
    pub fn look(path: &Path) -> Result<(), IndexError> {
        if path.exists() { connect(path).map(drop) } else { Ok(()) }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that nobody uses; else the first, once nobody does.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        let [first, second, _] = &self.readers;
        let free = [first, second].into_iter().find_map(|it| it.try_lock().ok());
        free.unwrap_or_else(|| first.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connection that reads all of it.
    fn checker(&self) -> MutexGuard<'_, Connection> {
        let [.., last] = &self.readers;
        last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> Result<(Writer, [Connection; READERS]), IndexError> {
    derived_file::create(path)?;
    let open = |flags: OpenFlags, cache_kib: i64| -> rusqlite::Result<Connection> {
        let connection = derived_file::connect(path, flags)?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        Ok(connection)
    };
    let connection = open(OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    let objects = "SELECT count(*) FROM sqlite_schema";
    let objects: i64 = connection.query_row(objects, [], |row| row.get(0))?;
    if objects == 0 {
        connection.pragma_update(None, "page_size", 8_192)?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    let form = FORM.saturating_add_unsigned(TERMS_FORM);
    if objects == 0 {
        connection.execute_batch(&format!(
            "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {form};
             {TABLES} COMMIT;"
        ))?;
    }
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    if (number("application_id")?, number("user_version")?) != (APPLICATION_ID, form) {
        return Err(IndexError::Damaged("it is of another form".to_owned()));
    }
    let reader = || -> Result<Connection, IndexError> {
        let reader = open(OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?;
        let tables = "SELECT count(*) FROM sqlite_schema
            WHERE name IN ('checkpoint', 'organizations', 'terms')";
        if reader.query_row(tables, [], |row| row.get::<_, i64>(0))? != 3 {
            return Err(IndexError::Damaged("a table is missing".to_owned()));
        }
        reader.execute_batch(WORDS)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(reader)
    };
    let readers = [reader()?, reader()?, reader()?];
    let mut organizations = HashMap::new();
    {
        let mut rows = connection.prepare("SELECT id, number, revision FROM organizations")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let revision = Revision(row.get::<_, i64>(2)?.cast_unsigned());
            organizations.insert(OrganizationId::from_bytes(row.get(0)?), (row.get(1)?, revision));
        }
    }
    Ok((Writer { connection, organizations }, readers))
}

/// Letters for each five bits of a term: what the engine takes for one word.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const TERM_LETTERS: usize = TERM_BITS.div_ceil(5) as usize;

fn write_term(term: Term, text: &mut String) {
    for place in 0..TERM_LETTERS {
        let five = usize::try_from((term.0 >> (5 * place)) & 31).unwrap_or_default();
        text.push(char::from(LETTERS.get(five).copied().unwrap_or_default()));
    }
}

fn read_term(text: &str) -> Option<Term> {
    // A damaged file has words of any length.
    if text.len() != TERM_LETTERS {
        return None;
    }
    let mut bits = 0;
    for (place, letter) in text.bytes().enumerate() {
        let five = LETTERS.iter().position(|it| *it == letter)? as u64;
        bits |= five << (5 * place);
    }
    Some(Term(bits))
}

/// The word of a row's run. It is a letter longer than a term, so it is none.
fn write_run(row: i64, text: &mut String) {
    text.push('r');
    write_term(Term(row.cast_unsigned() >> RUN_BITS), text);
}

/// The number of an event's row; none where the engine has no numbers for it.
fn row_number(organization: i64, revision: Revision) -> Option<i64> {
    let revision = i64::try_from(revision.0).ok().filter(|it| *it < 1 << REVISION_BITS)?;
    let organization = organization.checked_mul(1 << REVISION_BITS)?;
    organization.checked_add(revision)
}

fn revision_of(row: i64) -> Revision {
    Revision((row & ((1 << REVISION_BITS) - 1)).cast_unsigned())
}

impl Writer {
    fn add(&mut self, events: &[Indexed], checkpoint: &Anchor) -> Result<(), IndexError> {
        let mut moved: HashMap<OrganizationId, (i64, Revision)> = HashMap::new();
        let mut unused = self.organizations.values().map(|(number, _)| number + 1).max();
        {
            let insert = "INSERT INTO terms (rowid, of_event) VALUES (?1, ?2)";
            let mut insert = self.connection.prepare_cached(insert)?;
            let mut text = String::new();
            for Indexed { organization, revision, terms } in events {
                let known =
                    moved.get(organization).or_else(|| self.organizations.get(organization));
                let last = known.map(|(_, last)| *last);
                let number = known.map(|(number, _)| *number).unwrap_or_else(|| {
                    let number = unused.unwrap_or_default();
                    unused = Some(number + 1);
                    number
                });
                if *revision != Revision::after(last) {
                    let what = format!("revision {revision} does not come behind {last:?}");
                    return Err(IndexError::Damaged(what));
                }
                moved.insert(*organization, (number, *revision));
                let Some(row) = row_number(number, *revision) else {
                    return Err(IndexError::Unavailable("it has no more rows".to_owned()));
                };
                text.clear();
                for term in terms {
                    write_term(*term, &mut text);
                    text.push(' ');
                }
                write_run(row, &mut text);
                insert.execute(params![row, text])?;
            }
        }
        let put = "INSERT OR REPLACE INTO organizations (number, id, revision) VALUES (?1, ?2, ?3)";
        let mut put = self.connection.prepare_cached(put)?;
        for (id, (number, revision)) in &moved {
            put.execute(params![number, id.to_bytes(), revision.0.cast_signed()])?;
        }
        let Anchor { before, position, stream, revision, leaf_hash } = checkpoint;
        self.connection.prepare_cached(PUT_CHECKPOINT)?.execute(params![
            before.map(|it| it.0.to_be_bytes()),
            position.0.to_be_bytes(),
            stream.as_str(),
            revision.0.cast_signed(),
            leaf_hash.0,
        ])?;
        self.connection.execute_batch("COMMIT")?;
        self.organizations.extend(moved);
        Ok(())
    }
}

fn read_checkpoint(connection: &Connection) -> rusqlite::Result<Option<Anchor>> {
    let checkpoint = "SELECT before, position, stream, revision, leaf_hash FROM checkpoint";
    let checkpoint = connection.query_row(checkpoint, [], |row| {
        let position = |bytes: [u8; 16]| Position(u128::from_be_bytes(bytes));
        Ok(Anchor {
            before: row.get::<_, Option<[u8; 16]>>(0)?.map(position),
            position: position(row.get(1)?),
            stream: StreamName::from_store(&row.get::<_, String>(2)?),
            revision: Revision(row.get::<_, i64>(3)?.cast_unsigned()),
            leaf_hash: LeafHash(row.get(4)?),
        })
    });
    checkpoint.optional()
}

/// Takes a word of a row into a digest, if the row was there when it was begun.
fn take_in(
    digesting: &mut Digesting,
    word: &str,
    row: i64,
    searched: &mut Vec<(String, i64)>,
) -> Result<(), IndexError> {
    let number = row >> REVISION_BITS;
    let mut run = String::with_capacity(TERM_LETTERS + 1);
    write_run(row, &mut run);
    let term = read_term(word);
    if term.is_none() && word != run {
        return Err(IndexError::Damaged("it holds what nobody wrote".to_owned()));
    }
    match &mut digesting.behind {
        Some((last, place)) => {
            if last != word {
                word.clone_into(last);
                digesting.words += 1;
                if digesting.words.is_multiple_of(SEARCHED_ONE_IN) {
                    searched.push((word.to_owned(), row));
                }
            }
            *place = row;
        }
        behind => *behind = Some((word.to_owned(), row)),
    }
    // Organizations that came since have numbers of their own.
    let Some((id, last)) = digesting.organizations.get(&number) else { return Ok(()) };
    let revision = revision_of(row);
    if revision > *last {
        return Ok(());
    }
    match term {
        Some(term) => digesting.digest.add(*id, revision, term),
        None => digesting.digest.events += 1,
    }
    Ok(())
}

/// Searches for a word of a row from both sides.
fn look_for(reader: &Connection, word: &str, row: i64) -> Result<(), IndexError> {
    for (order, low, high) in [("ASC", row, i64::MAX), ("DESC", i64::MIN, row)] {
        let first = format!(
            "SELECT rowid FROM terms WHERE terms MATCH ?1 AND rowid BETWEEN ?2 AND ?3
             ORDER BY rowid {order} LIMIT 1"
        );
        let mut first = reader.prepare_cached(&first)?;
        let found = first.query_row(params![word, low, high], |row| row.get(0)).optional()?;
        if found != Some(row) {
            return Err(IndexError::Damaged("a search does not find what it holds".to_owned()));
        }
    }
    Ok(())
}

impl ActivityIndex for ActivityDb {
    fn reached(&self) -> Result<Reached, IndexError> {
        let writer = self.writer();
        let checkpoint = read_checkpoint(&writer.connection)?;
        let organizations = writer.organizations.iter();
        let organizations = organizations.map(|(id, (_, revision))| (*id, *revision)).collect();
        Ok(Reached { checkpoint, organizations })
    }

    fn add(&self, events: &[Indexed], checkpoint: &Anchor) -> Result<(), IndexError> {
        let mut writer = self.writer();
        writer.connection.execute_batch("BEGIN IMMEDIATE")?;
        let added = writer.add(events, checkpoint);
        if added.is_err() && !writer.connection.is_autocommit() {
            // If even this fails the connection is of no more use, and says so next time.
            let _ = writer.connection.execute_batch("ROLLBACK");
        }
        added
    }

    fn find(&self, search: &Search) -> Result<Found, IndexError> {
        let reader = self.reader();
        let number = "SELECT number FROM organizations WHERE id = ?1";
        let number: Option<i64> = reader
            .prepare_cached(number)?
            .query_row([search.organization.to_bytes()], |row| row.get(0))
            .optional()?;
        let Some(number) = number else { return Ok(Found::default()) };
        let mut matching = String::new();
        for term in &search.terms {
            if !matching.is_empty() {
                matching.push_str(" AND ");
            }
            write_term(*term, &mut matching);
        }
        let order = match search.direction {
            Direction::NewestFirst => "DESC",
            Direction::OldestFirst => "ASC",
        };
        let select = format!(
            "SELECT rowid FROM terms WHERE terms MATCH ?1 AND rowid BETWEEN ?2 AND ?3
             ORDER BY rowid {order} LIMIT ?4"
        );
        let mut select = reader.prepare_cached(&select)?;
        let began = Instant::now();
        let mut found = Found::default();
        let (mut low, mut high) = (search.low.0, search.high.0);
        // One list is read from where it is looked at to as many as are wanted; several are
        // read against each other, and may have nothing in common for long.
        let by_runs = search.terms.len() > 1;
        let all = matching.len();
        while low <= high {
            let (first, last) = match search.direction {
                _ if !by_runs => (low, high),
                Direction::NewestFirst => (low.max(high & !(RUN - 1)), high),
                Direction::OldestFirst => (low, high.min(low | (RUN - 1))),
            };
            let rows = row_number(number, Revision(first)).zip(row_number(number, Revision(last)));
            let Some((first_row, last_row)) = rows else { return Ok(found) };
            if by_runs {
                matching.truncate(all);
                matching.push_str(" AND ");
                write_run(first_row, &mut matching);
            }
            let wanted = search.wanted.saturating_sub(found.revisions.len());
            let limit = i64::try_from(wanted).unwrap_or(i64::MAX);
            let mut rows = select.query(params![matching, first_row, last_row, limit])?;
            while let Some(row) = rows.next()? {
                found.revisions.push(revision_of(row.get(0)?));
            }
            // What is behind the last one that is wanted was not looked at.
            let full = found.revisions.len() >= search.wanted;
            let seen = found.revisions.last().filter(|_| full);
            let end = match search.direction {
                Direction::NewestFirst => {
                    let seen = seen.map_or(first, |it| it.0);
                    seen.checked_sub(1).filter(|it| *it >= search.low.0)
                }
                Direction::OldestFirst => {
                    let seen = seen.map_or(last, |it| it.0);
                    Some(seen.saturating_add(1)).filter(|it| *it <= search.high.0)
                }
            };
            let Some(end) = end else { return Ok(found) };
            if full || began.elapsed() > SEARCH_WITHIN {
                found.next = Some(Revision(end));
                return Ok(found);
            }
            match search.direction {
                Direction::NewestFirst => high = end,
                Direction::OldestFirst => low = end,
            }
        }
        Ok(found)
    }

    fn begin_digest(&self) -> Result<Digesting, IndexError> {
        let mut reader = self.checker();
        // Both as they are at one moment.
        let reading = reader.transaction()?;
        let checkpoint = read_checkpoint(&reading)?;
        let mut organizations = HashMap::new();
        let mut rows = reading.prepare("SELECT number, id, revision FROM organizations")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let last = Revision(row.get::<_, i64>(2)?.cast_unsigned());
            organizations.insert(row.get(0)?, (OrganizationId::from_bytes(row.get(1)?), last));
        }
        let words = fastrand::u64(..SEARCHED_ONE_IN);
        Ok(Digesting { checkpoint, organizations, words, ..Digesting::default() })
    }

    fn digest_on(&self, digesting: &mut Digesting) -> Result<bool, IndexError> {
        let reader = self.checker();
        let mut left = DIGEST_PLACES;
        let mut searched = Vec::new();
        // A word may have any number of rows: those that are left are searched for, as a query
        // searches. Only words that we write come here.
        if let Some((word, row)) = digesting.behind.clone() {
            let rows = "SELECT rowid FROM terms WHERE terms MATCH ?1 AND rowid BETWEEN ?2 AND ?3
                ORDER BY rowid LIMIT ?4";
            let mut rows = reader.prepare_cached(rows)?;
            let mut rows = rows.query(params![word, row.saturating_add(1), i64::MAX, left])?;
            while let Some(row) = rows.next()? {
                take_in(digesting, &word, row.get(0)?, &mut searched)?;
                left -= 1;
            }
        }
        let next = digesting.behind.as_ref().map(|(word, _)| format!("{word}\0"));
        let rows = "SELECT term, doc FROM temp.words WHERE term >= ?1 LIMIT ?2";
        let mut rows = reader.prepare_cached(rows)?;
        let mut rows = rows.query(params![next.unwrap_or_default(), left])?;
        while let Some(row) = rows.next()? {
            let word = row.get_ref(0)?.as_str().unwrap_or_default();
            take_in(digesting, word, row.get(1)?, &mut searched)?;
            left -= 1;
        }
        searched.extend(digesting.behind.clone());
        for (word, row) in searched {
            look_for(&reader, &word, row)?;
        }
        Ok(left > 0)
    }

    fn clear(&self) -> Result<(), IndexError> {
        // Nobody is inside while the files change under the connections.
        let mut writer = self.writer();
        let mut readers =
            self.readers.each_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        writer.connection = Connection::open_in_memory()?;
        for reader in &mut readers {
            **reader = Connection::open_in_memory()?;
        }
        derived_file::remove(&self.path)?;
        let (new_writer, new_readers) = connect(&self.path)?;
        *writer = new_writer;
        for (reader, new) in readers.iter_mut().zip(new_readers) {
            **reader = new;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

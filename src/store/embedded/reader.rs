//! Reads: one connection of its own, read-only, that sees what is durable and no more.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use projections::recorded::{Recorded, Revision, StreamName};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::place::{Damage, NamedStream, Row, position, revision, stored_revision};
use super::schema;
use crate::ledger::event_store::{Position, READ_EVENTS_MAX, ReadError, ReadItem};

/// How long a read waits for a lock that only recovery takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most stream names a reader remembers before it begins again.
const NAMES_MAX: usize = 1 << 20;
/// Page cache of one reader, in KiB.
const CACHE_KIB: i64 = 4_096;

const READ_ALL: &str = "SELECT position, revision, stored, leaf_hash, place_check, stream
    FROM events WHERE position > ?1 ORDER BY position LIMIT ?2";
const READ_STREAM: &str = "SELECT position, revision, stored, leaf_hash, place_check
    FROM events WHERE stream = ?1 AND revision >= ?2 ORDER BY revision LIMIT ?3";
const PROBE: &str = "SELECT position FROM events WHERE position > ?1 ORDER BY position LIMIT 1";
const LAST_POSITION: &str = "SELECT coalesce(max(position), 0) FROM events";
const STREAM_OF_NAME: &str = "SELECT stream FROM streams WHERE name = ?1";
const NAME_OF_STREAM: &str = "SELECT name FROM streams WHERE stream = ?1";

/// Reads the database on the thread that has it.
pub(super) struct Reader {
    connection: Connection,
    names: HashMap<i64, NamedStream>,
}

impl Reader {
    pub(super) fn open(database: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(database, schema::READ_FLAGS)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        Ok(Self { connection, names: HashMap::new() })
    }

    /// As the port says of `read_stream`.
    pub(super) fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        let corrupt = |revision, what: &str| ReadError::Corrupt {
            stream: stream.clone(),
            revision,
            what: what.to_owned(),
        };
        let failed = |at| {
            move |error: rusqlite::Error| match is_corrupt(&error) {
                true => corrupt(at, &error.to_string()),
                false => unavailable(&error),
            }
        };
        let named = NamedStream::new(stream.clone());
        let mut names = self.connection.prepare_cached(STREAM_OF_NAME).map_err(failed(from))?;
        let id: Option<i64> = names
            .query_row([stream.as_str()], |row| row.get(0))
            .optional()
            .map_err(failed(from))?;
        let Some(id) = id else { return Ok(Vec::new()) };
        let mut events = self.connection.prepare_cached(READ_STREAM).map_err(failed(from))?;
        let mut rows =
            events.query((id, stored_revision(from), limit(events_max))).map_err(failed(from))?;
        let mut found = Vec::new();
        let mut next = from;
        while let Some(row) = rows.next().map_err(failed(next))? {
            let row = Row::read(row).map_err(failed(next))?;
            if revision(row.revision) != next {
                return Err(corrupt(next, "the event is missing"));
            }
            found.push(row.verify(&named).map_err(|damage| match damage {
                Damage::Content(what) => corrupt(next, what),
                Damage::Place => corrupt(next, "the event does not belong there"),
            })?);
            next = next.next();
        }
        Ok(found)
    }

    /// As the port says of `read_all`.
    pub(super) fn read_all(
        &mut self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ReadItem>, ReadError> {
        let after = after.map_or(0, |Position(after)| i64::try_from(after).unwrap_or(i64::MAX));
        let mut items = Vec::new();
        match self.scan(after, limit(events_max), &mut items) {
            Ok(()) => Ok(items),
            // What was read stands; the next read begins at the damage.
            Err(error) if is_corrupt(&error) && !items.is_empty() => Ok(items),
            Err(error) if is_corrupt(&error) => self.step_over(after, &error),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The last events, at most `events_max`.
    pub(super) fn read_tail(&mut self, events_max: usize) -> Result<Vec<ReadItem>, ReadError> {
        let last: i64 = self
            .connection
            .query_row(LAST_POSITION, [], |row| row.get(0))
            .map_err(|error| unavailable(&error))?;
        let after = last.saturating_sub(limit(events_max)).max(0);
        self.read_all(Some(position(after)), events_max)
    }

    fn scan(&mut self, after: i64, limit: i64, items: &mut Vec<ReadItem>) -> rusqlite::Result<()> {
        let mut events = self.connection.prepare_cached(READ_ALL)?;
        let mut rows = events.query((after, limit))?;
        let mut last = after;
        while let Some(row) = rows.next()? {
            let stream: i64 = row.get(5)?;
            let row = Row::read(row)?;
            if row.position != last + 1 {
                items.push(missing(last, row.position - 1));
                if i64::try_from(items.len()).is_ok_and(|len| len >= limit) {
                    return Ok(());
                }
            }
            last = row.position;
            items.push(match named(&self.connection, &mut self.names, stream)? {
                Some(named) => row.item(named),
                None => Err((
                    position(row.position),
                    ReadError::Lost {
                        events: Some(1),
                        what: format!("the stream of revision {} has no name", row.revision),
                    },
                )),
            });
        }
        Ok(())
    }

    /// Finds where reading can go on behind a damaged page: the least distance at which
    /// a look-up succeeds, by doubling and then halving.
    fn step_over(&self, after: i64, error: &rusqlite::Error) -> Result<Vec<ReadItem>, ReadError> {
        let readable = |distance: i64| {
            let mut probe = self.connection.prepare_cached(PROBE).ok()?;
            probe.query_row([after.checked_add(distance)?], |row| row.get::<_, i64>(0)).ok()
        };
        let lost = || ReadError::Lost { events: None, what: error.to_string() };
        let doubled = (0..i64::BITS - 1).map(|power| 1_i64 << power);
        let mut good = doubled.into_iter().find(|d| readable(*d).is_some()).ok_or_else(lost)?;
        let mut bad = good / 2;
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match readable(middle) {
                Some(_) => good = middle,
                None => bad = middle,
            }
        }
        Ok(vec![Err((position(after + good), lost()))])
    }
}

/// The stream of that number, remembered.
fn named<'a>(
    connection: &Connection,
    names: &'a mut HashMap<i64, NamedStream>,
    stream: i64,
) -> rusqlite::Result<Option<&'a NamedStream>> {
    if !names.contains_key(&stream) {
        let mut statement = connection.prepare_cached(NAME_OF_STREAM)?;
        let name: Option<String> = statement.query_row([stream], |row| row.get(0)).optional()?;
        let Some(name) = name else { return Ok(None) };
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(stream, NamedStream::new(StreamName::from_store(&name)));
    }
    Ok(names.get(&stream))
}

fn missing(after: i64, last: i64) -> ReadItem {
    let what = match last - after {
        1 => "an event is missing".to_owned(),
        count => format!("{count} events are missing"),
    };
    let events = u64::try_from(last - after).ok();
    Err((position(last), ReadError::Lost { events, what }))
}

fn limit(events_max: usize) -> i64 {
    i64::try_from(events_max.min(READ_EVENTS_MAX)).unwrap_or(0)
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    if let Some(code) = error.sqlite_error_code() {
        return matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase);
    }
    // Text that is not UTF-8, a type the table cannot hold: damage below SQLite's notice.
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

fn unavailable(error: &rusqlite::Error) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

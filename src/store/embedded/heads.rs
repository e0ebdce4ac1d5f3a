//! Where each stream ends, remembered by the writer.
//!
//! A head is loaded when its stream is first written to, with the stream's last event
//! checked: a stream that ends in damage takes no more events.

use std::collections::HashMap;

use projections::recorded::StreamName;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::place::{Damage, NamedStream, Row};

/// Most heads in memory before the writer begins again.
const HEADS_MAX: usize = 1 << 20;

const STREAM_OF_NAME: &str = "SELECT stream FROM streams WHERE name = ?1";
const LAST_EVENT: &str = "SELECT position, revision, stored, leaf_hash, place_check
    FROM events WHERE stream = ?1 ORDER BY revision DESC LIMIT 1";
const INSERT_STREAM: &str =
    "INSERT INTO streams (stream, name) SELECT coalesce(max(stream), 0) + 1, ?1 FROM streams";

/// The end of one stream.
pub(super) struct Head {
    pub(super) named: NamedStream,
    /// Its number; none until it is first written.
    id: Option<i64>,
    /// Its last revision.
    pub(super) last: Option<i64>,
}

/// The ends of the streams that were written to.
#[derive(Default)]
pub(super) struct Heads {
    heads: HashMap<StreamName, Head>,
}

/// Why the end of a stream is not known.
pub(super) enum HeadError {
    Corrupt(String),
    Engine(rusqlite::Error),
}

impl From<rusqlite::Error> for HeadError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt(error.to_string()),
            _ => Self::Engine(error),
        }
    }
}

impl Heads {
    pub(super) fn head(
        &mut self,
        connection: &Connection,
        stream: &StreamName,
    ) -> Result<&mut Head, HeadError> {
        if !self.heads.contains_key(stream) && self.heads.len() >= HEADS_MAX {
            self.heads.clear();
        }
        match self.heads.entry(stream.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Ok(entry.insert(Head::load(connection, stream)?))
            }
        }
    }

    /// Forgets what a transaction that was rolled back may have changed.
    pub(super) fn forget<'a>(&mut self, streams: impl Iterator<Item = &'a StreamName>) {
        for stream in streams {
            self.heads.remove(stream);
        }
    }
}

impl Head {
    fn load(connection: &Connection, stream: &StreamName) -> Result<Self, HeadError> {
        let named = NamedStream::new(stream.clone());
        let mut streams = connection.prepare_cached(STREAM_OF_NAME)?;
        let id: Option<i64> = streams.query_row([stream.as_str()], |row| row.get(0)).optional()?;
        let Some(id) = id else { return Ok(Self { named, id: None, last: None }) };
        let mut events = connection.prepare_cached(LAST_EVENT)?;
        let mut rows = events.query([id])?;
        let Some(row) = rows.next()? else { return Ok(Self { named, id: Some(id), last: None }) };
        let row = Row::read(row)?;
        match row.verify(&named) {
            Ok(_) => Ok(Self { named, id: Some(id), last: Some(row.revision) }),
            Err(Damage::Content(what)) => Err(HeadError::Corrupt(what.to_owned())),
            Err(Damage::Place) => {
                Err(HeadError::Corrupt("its last event does not belong there".to_owned()))
            }
        }
    }

    /// The stream's number, given to it now if it has none.
    pub(super) fn stored(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        connection.prepare_cached(INSERT_STREAM)?.execute([self.named.name.as_str()])?;
        let id = connection.last_insert_rowid();
        self.id = Some(id);
        Ok(id)
    }
}

//! What ties an event to its place, so that a damaged place is known.
//!
//! The leaf hash covers an event's bytes, not where they stand. `place_check` is a
//! CRC-32 over stream name, position, revision and leaf hash. It is against accidents;
//! against forgery there are the tree heads.

use projections::digest::LeafHash;
use projections::recorded::{Recorded, Revision, StreamName};

use crate::ledger::event_store::{Position, Positioned, ReadError, ReadItem};

/// A stream's name and the part of the check that all its events share.
#[derive(Clone)]
pub(super) struct NamedStream {
    pub(super) name: StreamName,
    seed: u32,
}

impl NamedStream {
    pub(super) fn new(name: StreamName) -> Self {
        let seed = crc32fast::hash(name.as_str().as_bytes());
        Self { name, seed }
    }

    /// The check of an event of this stream.
    pub(super) fn check(&self, position: i64, revision: i64, leaf_hash: &[u8]) -> i64 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(&position.to_be_bytes());
        hasher.update(&revision.to_be_bytes());
        hasher.update(leaf_hash);
        i64::from(hasher.finalize())
    }
}

/// A row of `events`, its stream apart.
pub(super) struct Row<'a> {
    pub(super) position: i64,
    pub(super) revision: i64,
    pub(super) stored: &'a [u8],
    pub(super) leaf_hash: &'a [u8],
    pub(super) place_check: i64,
}

/// What is wrong with a row.
pub(super) enum Damage {
    /// Its bytes or their hash; it stands where it belongs.
    Content(&'static str),
    /// Its place: nothing says where it belongs.
    Place,
}

impl<'a> Row<'a> {
    /// The columns `position, revision, stored, leaf_hash, place_check` from `first` on.
    pub(super) fn read(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            position: row.get(0)?,
            revision: row.get(1)?,
            stored: row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?,
            leaf_hash: row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?,
            place_check: row.get(4)?,
        })
    }

    /// Checks the row and copies it out.
    pub(super) fn verify(&self, stream: &NamedStream) -> Result<Recorded, Damage> {
        let leaf_hash = LeafHash::of(self.stored);
        let placed =
            |leaf_hash| stream.check(self.position, self.revision, leaf_hash) == self.place_check;
        match (leaf_hash.0.as_slice() == self.leaf_hash, placed(self.leaf_hash)) {
            (true, true) => Ok(Recorded {
                stream: stream.name.clone(),
                revision: revision(self.revision),
                stored: self.stored.into(),
                leaf_hash,
            }),
            (false, true) => {
                Err(Damage::Content("the stored bytes do not have the leaf hash kept beside them"))
            }
            (false, false) if placed(&leaf_hash.0) => {
                Err(Damage::Content("the leaf hash is not that of the stored bytes"))
            }
            (true | false, false) => Err(Damage::Place),
        }
    }

    /// The row as an item of a read over all streams.
    pub(super) fn item(&self, stream: &NamedStream) -> ReadItem {
        let position = position(self.position);
        match self.verify(stream) {
            Ok(recorded) => Ok(Positioned { position, recorded }),
            Err(Damage::Content(what)) => Err((
                position,
                ReadError::Corrupt {
                    stream: stream.name.clone(),
                    revision: revision(self.revision),
                    what: what.to_owned(),
                },
            )),
            Err(Damage::Place) => Err((
                position,
                ReadError::Lost {
                    events: Some(1),
                    what: format!(
                        "the event kept as revision {} of stream `{}` does not belong there",
                        self.revision, stream.name
                    ),
                },
            )),
        }
    }
}

/// The port's position for a stored one. Stored ones are never negative unless damaged.
pub(super) fn position(stored: i64) -> Position {
    Position(u128::try_from(stored).unwrap_or(0))
}

/// The port's revision for a stored one.
pub(super) fn revision(stored: i64) -> Revision {
    Revision(u64::try_from(stored).unwrap_or(0))
}

/// The stored form of a revision.
pub(super) fn stored_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

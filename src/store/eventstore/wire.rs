//! Our events as the engine keeps them, and back.
//!
//! The stored bytes are the event's data, unchanged, said to be JSON, so that the engine's
//! own tools show them. The leaf hash stands in the event's metadata, as JSON too. The
//! event's identifier is its own, 16 bytes of it.

use eventstore::{EventData, RecordedEvent};
use projections::digest::LeafHash;
use projections::id::EventId;
use projections::recorded::{Recorded, Revision, StreamName};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ledger::event_store::{NewEvent, Position};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What is kept beside the bytes.
#[derive(Deserialize)]
struct Beside<'a> {
    leaf_hash: &'a str,
}

/// The engine's identifier of an event.
pub(super) fn id(event: &NewEvent) -> Uuid {
    id_of(event.id)
}

/// The engine's form of an event's identifier.
pub(super) fn id_of(id: EventId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// An event to be written.
pub(super) fn proposed(event: &NewEvent) -> EventData {
    let beside = format!(r#"{{"leaf_hash":"{}"}}"#, hexadecimal(&event.leaf_hash.0));
    // The client says JSON only of what it writes as JSON itself: this it writes as it is.
    let json = serde_json::from_slice::<&RawValue>(&event.stored)
        .ok()
        .filter(|raw| raw.get().len() == event.stored.len())
        .and_then(|raw| EventData::json(event.event_type, &raw).ok());
    let data =
        json.unwrap_or_else(|| EventData::binary(event.event_type, event.stored.to_vec().into()));
    data.id(id(event)).metadata(beside.into())
}

/// What the engine gave for an event, held against the leaf hash beside it.
pub(super) fn recorded(
    stream: &StreamName,
    event: &RecordedEvent,
) -> Result<Recorded, &'static str> {
    let beside: Beside<'_> = serde_json::from_slice(&event.custom_metadata)
        .map_err(|_| "the leaf hash beside the stored bytes is missing")?;
    let leaf_hash = parsed(beside.leaf_hash).ok_or("the leaf hash is none")?;
    if LeafHash::of(&event.data) != leaf_hash {
        return Err("the stored bytes do not have the leaf hash kept beside them");
    }
    Ok(Recorded {
        stream: stream.clone(),
        revision: Revision(event.revision),
        stored: event.data.as_ref().into(),
        leaf_hash,
    })
}

/// A place in the engine's order, as the port has it: it can also name the gap in front of
/// an event, which lies between that event and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) commit: u64,
    pub(super) prepare: u64,
    /// Behind the event itself, not only behind the gap in front of it.
    pub(super) behind: bool,
}

impl Place {
    pub(super) fn of(event: &RecordedEvent) -> Self {
        Self { commit: event.position.commit, prepare: event.position.prepare, behind: true }
    }

    pub(super) fn gap_before(self) -> Self {
        Self { behind: false, ..self }
    }

    /// As the port has it. The engine's positions are below 2^63.
    pub(super) fn position(self) -> Position {
        let behind = u128::from(self.behind);
        Position(u128::from(self.commit) << 65 | u128::from(self.prepare) << 1 | behind)
    }

    pub(super) fn from_position(position: Position) -> Self {
        let part = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        Self {
            commit: part(position.0 >> 65),
            prepare: part(position.0 >> 1),
            behind: position.0 & 1 == 1,
        }
    }

    /// As the engine has it.
    pub(super) fn engines(self) -> eventstore::Position {
        eventstore::Position { commit: self.commit, prepare: self.prepare }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).map_or('0', |it| char::from(*it));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Small letters only: one hash has one spelling.
fn parsed(text: &str) -> Option<LeafHash> {
    let value = |byte: &u8| HEX.iter().position(|digit| digit == byte);
    let mut hash = [0_u8; 32];
    if text.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = u8::try_from(value(high)? * 16 + value(low)?).ok()?;
    }
    Some(LeafHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_order_and_come_back() {
        let place = Place { commit: (1 << 63) - 1, prepare: 7, behind: true };
        for it in [place, place.gap_before()] {
            assert_eq!(Place::from_position(it.position()), it);
        }
        assert!(place.gap_before().position() < place.position());
        let later = Place { prepare: 8, ..place }.gap_before();
        assert!(place.position() < later.position());
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = LeafHash::of(b"x");
        let text = hexadecimal(&hash.0);
        assert_eq!(parsed(&text), Some(hash));
        for other in ["", &text.to_uppercase(), &text[1..], &format!("{text}0")] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}

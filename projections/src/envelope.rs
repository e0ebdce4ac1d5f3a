//! The stored form of an event: who, when and why around the fact itself.
//!
//! One JSON object, written once. These bytes are what is hashed, kept, exported and
//! verified; they are never written anew. A field without a value is left out.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::corrupt::Fault;
use crate::digest::{LeafHash, RequestContent, RequestId};
use crate::event::Event;
use crate::id::EventId;
use crate::principal::{Credential, Principal};
use crate::sealed::Sealed;
use crate::text::CorrelationId;
use crate::time::Timestamp;

/// Most bytes in one stored event, its envelope included.
pub const STORED_BYTES_MAX: usize = 65_535;

/// The request that caused an event, named so that a repeat is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestStamp {
    /// Keyed hash of principal, method and idempotency key.
    pub id: RequestId,
    /// Keyed hash of all that the request asked for.
    pub content: RequestContent,
}

/// An event and all that is known around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The event's identifier.
    pub id: EventId,
    /// When it was recorded; never before the event in front of it.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: Principal,
    /// The key or session with which they did; none where the ledger acted, or the
    /// installation's console.
    pub credential: Option<Credential>,
    /// The request that caused it, where the caller named it.
    pub request: Option<RequestStamp>,
    /// What ties it to all else that the same cause brought about.
    pub correlation_id: CorrelationId,
    /// The event it follows from.
    pub causation_id: Option<EventId>,
    /// The fact.
    pub event: Event,
    /// Personal data around it, one sealed piece per subject.
    pub sealed: Vec<Sealed>,
}

/// The stored form, field by field. The order is part of the form.
#[derive(Serialize)]
struct Written<'a> {
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema: u32,
    at: Timestamp,
    actor: Principal,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<Credential>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestStamp>,
    correlation_id: &'a CorrelationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<EventId>,
    data: &'a Event,
    #[serde(skip_serializing_if = "<[Sealed]>::is_empty")]
    sealed: &'a [Sealed],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema: u32,
    at: Timestamp,
    actor: Principal,
    #[serde(default)]
    credential: Option<Credential>,
    #[serde(default)]
    request: Option<RequestStamp>,
    correlation_id: CorrelationId,
    #[serde(default)]
    causation_id: Option<EventId>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    sealed: Vec<Sealed>,
}

/// An event that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// Its stored form is too long.
    #[error("the event would be {0} bytes long; at most {STORED_BYTES_MAX} are stored")]
    TooLong(usize),
    /// It has no JSON form.
    #[error("the event has no stored form: {0}")]
    Form(String),
}

impl Envelope {
    /// The stored bytes and their leaf hash.
    pub fn encode(&self) -> Result<(Vec<u8>, LeafHash), Unstorable> {
        let written = Written {
            id: self.id,
            event_type: self.event.event_type(),
            schema: self.event.schema(),
            at: self.at,
            actor: self.actor,
            credential: self.credential,
            request: self.request,
            correlation_id: &self.correlation_id,
            causation_id: self.causation_id,
            data: &self.event,
            sealed: &self.sealed,
        };
        let mut stored = Vec::with_capacity(1_024);
        serde_json::to_writer(&mut stored, &written)
            .map_err(|error| Unstorable::Form(error.to_string()))?;
        if stored.len() > STORED_BYTES_MAX {
            return Err(Unstorable::TooLong(stored.len()));
        }
        let leaf_hash = LeafHash::of(&stored);
        Ok((stored, leaf_hash))
    }

    /// Reads stored bytes. Refuses a type, a schema or a field that it does not know.
    pub fn decode(stored: &[u8]) -> Result<Self, Fault> {
        let unreadable = |error: serde_json::Error| Fault::Unreadable(error.to_string());
        let read: Read<'_> = serde_json::from_slice(stored).map_err(unreadable)?;
        let event = Event::read(read.event_type, read.schema, read.data.get())
            .ok_or_else(|| Fault::UnknownSchema {
                event_type: read.event_type.to_owned(),
                schema: read.schema,
            })?
            .map_err(unreadable)?;
        Ok(Self {
            id: read.id,
            at: read.at,
            actor: read.actor,
            credential: read.credential,
            request: read.request,
            correlation_id: read.correlation_id,
            causation_id: read.causation_id,
            event,
            sealed: read.sealed,
        })
    }
}

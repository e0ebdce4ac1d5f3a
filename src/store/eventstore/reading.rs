//! Reads, each held against what must be so.

use std::time::Duration;

use eventstore::{ReadStream, RecordedEvent, StreamPosition};
use projections::recorded::{Recorded, Revision, StreamName};

use super::fault::Fault;
use super::known::Before;
use super::wire::{self, Place};
use super::{CLOSED, Inner};
use crate::ledger::event_store::{Position, Positioned, READ_EVENTS_MAX, ReadError, ReadItem};

/// Streams that are about nodes, and no part of history.
pub(super) const ABOUT_NODES: &str = "node-";
/// Most events asked for at once: a page, and the event it begins behind.
const ASKED_MAX: usize = READ_EVENTS_MAX + 1;
/// Most bytes of events in one answer: no more are taken, and reading goes on behind them.
/// Not less than the longest append that the port allows.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How often a call is tried again on another connection before it is said to have failed.
const ATTEMPTS: usize = 3;
/// The engine counts revisions in 63 bits.
pub(super) const REVISION_MAX: u64 = i64::MAX as u64;

const MISSING: &str = "the event is missing";

/// What the name of a stream begins with that holds another's metadata.
const METADATA_OF: &str = "$$";

/// What a stream's metadata may hide of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hides {
    /// The first events, never the last.
    First,
    PerhapsAll,
}

impl Hides {
    /// None where it hides nothing.
    fn of(metadata: &[u8]) -> Option<Self> {
        let metadata: serde_json::Value = serde_json::from_slice(metadata).ok()?;
        let is_set = |name| metadata.get(name).is_some_and(|it| it.as_u64() != Some(0));
        if is_set("$tb") || is_set("$maxAge") {
            Some(Self::PerhapsAll)
        } else {
            is_set("$maxCount").then_some(Self::First)
        }
    }
}

/// Events as the engine gave them, in its order.
struct Raw {
    events: Vec<RecordedEvent>,
    /// Whether there is nothing behind them.
    ended: bool,
    /// Whether the answer was longer than is taken at once.
    cut_short: bool,
}

/// What to ask the engine for.
#[derive(Clone)]
enum Asked {
    Stream { name: String, from: u64, count: usize },
    Last { name: String },
    All { from: Option<Place>, count: usize },
}

impl Asked {
    fn count(&self) -> usize {
        match self {
            Self::Stream { count, .. } | Self::All { count, .. } => *count,
            Self::Last { .. } => 1,
        }
    }
}

impl Inner {
    /// Makes sure that the engine answers, and lets us read what we will read.
    pub(super) async fn probe(&self) -> Result<(), Fault> {
        let mut backoff = super::backoff::Backoff::new();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.ask_once(Asked::All { from: None, count: 1 }).await {
                Ok(_) => return Ok(()),
                Err(fault) if attempt < ATTEMPTS && fault.is_connection() => backoff.wait().await,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// As the port says of `read_stream`.
    pub(super) async fn read_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        events_max: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Unavailable(CLOSED.to_owned()));
        }
        if events_max == 0 || from.0 > REVISION_MAX {
            return Ok(Vec::new());
        }
        let corrupt = |revision, what: &str| ReadError::Corrupt {
            stream: stream.clone(),
            revision,
            what: what.to_owned(),
        };
        // Before the read: what is acknowledged meanwhile may be missed.
        let head = self.known.head(stream);
        let name = self.connection.named(stream.as_str());
        let asked = Asked::Stream { name, from: from.0, count: events_max };
        let raw = match self.ask(asked).await {
            Ok(raw) => raw,
            Err(Fault::NoStream) => Raw { events: Vec::new(), ended: true, cut_short: false },
            Err(Fault::Deleted) => return Err(corrupt(from, "the stream was deleted")),
            Err(fault) => return Err(unavailable(&fault)),
        };
        let mut found = Vec::with_capacity(raw.events.len());
        let mut next = from;
        for event in &raw.events {
            if (from.0..next.0).contains(&event.revision) {
                // Given twice: the first was taken.
                continue;
            }
            if event.revision != next.0 {
                return Err(corrupt(next, MISSING));
            }
            found.push(wire::recorded(stream, event).map_err(|what| corrupt(next, what))?);
            next = next.next();
        }
        if let Some(last) = found.last() {
            self.known.saw(stream, from, last.revision);
        }
        if raw.ended && head.is_some_and(|head| next <= head) {
            return self.past(stream, next, from).await;
        }
        Ok(found)
    }

    /// A stream ends before a revision that was seen. Either the engine answers from the
    /// past, or the events are gone: never is it the end.
    async fn past(
        &self,
        stream: &StreamName,
        next: Revision,
        from: Revision,
    ) -> Result<Vec<Recorded>, ReadError> {
        let Some(head) = self.known.head(stream).filter(|_| next == from) else {
            self.look_elsewhere();
            let what = format!("it answers from the past: `{stream}` ends before {next}");
            return Err(ReadError::Unavailable(what));
        };
        // A hole at this place that has something behind it is damage.
        let name = self.connection.named(stream.as_str());
        match self.ask(Asked::Stream { name, from: head.0, count: 1 }).await {
            Ok(raw) if raw.events.first().is_some_and(|event| event.revision >= head.0) => {
                Err(ReadError::Corrupt {
                    stream: stream.clone(),
                    revision: next,
                    what: MISSING.to_owned(),
                })
            }
            Ok(_) | Err(Fault::NoStream) => {
                self.look_elsewhere();
                let what = format!("it answers from the past: `{stream}` holds {head}");
                Err(ReadError::Unavailable(what))
            }
            Err(fault) => Err(unavailable(&fault)),
        }
    }

    fn look_elsewhere(&self) {
        self.connection.renew(self.connection.client().generation);
    }

    /// The last event of a stream, unchecked; none where it holds nothing.
    pub(super) async fn last(&self, stream: &StreamName) -> Result<Option<RecordedEvent>, Fault> {
        let name = self.connection.named(stream.as_str());
        match self.ask(Asked::Last { name }).await {
            Ok(raw) => Ok(raw.events.into_iter().next()),
            Err(Fault::NoStream) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A stream's events from a place on, unchecked.
    pub(super) async fn raw_stream(
        &self,
        stream: &StreamName,
        from: Revision,
        count: usize,
    ) -> Result<Vec<RecordedEvent>, Fault> {
        let name = self.connection.named(stream.as_str());
        match self.ask(Asked::Stream { name, from: from.0, count }).await {
            Ok(raw) => Ok(raw.events),
            Err(Fault::NoStream) => Ok(Vec::new()),
            Err(fault) => Err(fault),
        }
    }

    /// As the port says of `read_all`.
    pub(super) async fn read_all(
        &self,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ReadItem>, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Unavailable(CLOSED.to_owned()));
        }
        let furthest = self.known.furthest();
        let mut place = after.map(Place::from_position);
        let mut items = Vec::new();
        while items.len() < events_max {
            // One more than is wanted: the engine begins with the event at the place.
            let count = (events_max - items.len()).saturating_add(1).min(ASKED_MAX);
            let raw = self.ask(Asked::All { from: place, count }).await;
            let raw = raw.map_err(|fault| unavailable(&fault))?;
            let began_at = place;
            for event in &raw.events {
                let here = Place::of(event);
                if place.is_some_and(|place| here <= place) {
                    continue;
                }
                if items.len() >= events_max {
                    return Ok(items);
                }
                self.take(event, here, place, events_max, &mut items).await?;
                // A page that is full of what is in front of the event leaves it to the next.
                if items.last().is_some_and(|it| place_of(it) == here.gap_before().position())
                    && items.len() >= events_max
                {
                    return Ok(items);
                }
                place = Some(here);
            }
            if let Some(place) = place {
                self.known.reached(place);
            }
            let stands_still = place == began_at;
            if raw.ended && (stands_still || !items.is_empty()) {
                if place < furthest {
                    self.look_elsewhere();
                    let what = "it answers from the past: its end lies before what was read";
                    return Err(ReadError::Unavailable(what.to_owned()));
                }
                return Ok(items);
            }
            if raw.cut_short && !items.is_empty() {
                return Ok(items);
            }
            if stands_still {
                let what = "it gives the same events again and again";
                return Err(ReadError::Unavailable(what.to_owned()));
            }
        }
        Ok(items)
    }

    /// Adds what one event of the engine's is to us: nothing, itself, or damage.
    async fn take(
        &self,
        event: &RecordedEvent,
        here: Place,
        place: Option<Place>,
        events_max: usize,
        items: &mut Vec<ReadItem>,
    ) -> Result<(), ReadError> {
        let Some(name) = self.connection.ours(event.stream_id()) else {
            return self.take_metadata(event, here, items).await;
        };
        if name.starts_with(ABOUT_NODES) {
            return Ok(());
        }
        let stream = StreamName::from_store(name);
        let revision = Revision(event.revision);
        let told = place == Some(here.gap_before());
        if !told && let Some(first) = self.gap_before(&stream, revision).await? {
            let error = ReadError::Corrupt {
                stream: stream.clone(),
                revision: first,
                what: MISSING.to_owned(),
            };
            items.push(Err((here.gap_before().position(), error)));
            if items.len() >= events_max {
                return Ok(());
            }
        }
        self.known.saw_behind_known(&stream, revision);
        items.push(match wire::recorded(&stream, event) {
            Ok(recorded) => Ok(Positioned { position: here.position(), recorded }),
            Err(what) => {
                let what = what.to_owned();
                Err((here.position(), ReadError::Corrupt { stream, revision, what }))
            }
        });
        Ok(())
    }

    /// Adds the damage that a stream's metadata does to it, if it does any.
    ///
    /// Truncating or deleting a stream hides its events from whoever reads the stream, at
    /// once; here they stay until the engine is scavenged.
    async fn take_metadata(
        &self,
        event: &RecordedEvent,
        here: Place,
        items: &mut Vec<ReadItem>,
    ) -> Result<(), ReadError> {
        let of = event.stream_id().strip_prefix(METADATA_OF);
        let Some(name) = of.and_then(|name| self.connection.ours(name)) else { return Ok(()) };
        let Some(hides) = Hides::of(&event.data).filter(|_| !name.starts_with(ABOUT_NODES)) else {
            return Ok(());
        };
        let stream = StreamName::from_store(name);
        // It may have been taken back since, or hide nothing yet.
        let hidden = match self.raw_stream(&stream, Revision::FIRST, 1).await {
            Ok(found) => match found.first() {
                Some(first) => first.revision > 0,
                None => hides == Hides::PerhapsAll,
            },
            Err(Fault::Deleted) => true,
            Err(fault) => return Err(unavailable(&fault)),
        };
        if hidden {
            let what = "the stream was truncated or deleted: its metadata hides events".to_owned();
            let error = ReadError::Corrupt { stream, revision: Revision::FIRST, what };
            items.push(Err((here.position(), error)));
        }
        Ok(())
    }

    /// The first of the revisions that are missing in front of this one; none if its
    /// predecessor is there.
    async fn gap_before(
        &self,
        stream: &StreamName,
        revision: Revision,
    ) -> Result<Option<Revision>, ReadError> {
        match self.known.before(stream, revision) {
            Before::Whole => return Ok(None),
            Before::Gap(first) => return Ok(Some(first)),
            Before::Unknown => {}
        }
        // Seldom: the first event of a stream after a start that did not read from the
        // beginning, or after damage.
        let before = Revision(revision.0.saturating_sub(1));
        let there = match self.raw_stream(stream, before, 1).await {
            Ok(found) => found.first().is_some_and(|event| event.revision == before.0),
            // A stream that was deleted is damaged; the others are read on.
            Err(Fault::Deleted) => false,
            Err(fault) => return Err(unavailable(&fault)),
        };
        if there {
            return Ok(None);
        }
        let first = Revision::after(self.known.whole(stream)).min(before);
        self.known.found_gap(stream, first, revision);
        Ok(Some(first))
    }

    /// Asks, and asks again on another connection where this one fails.
    async fn ask(&self, asked: Asked) -> Result<Raw, Fault> {
        let mut backoff = super::backoff::Backoff::new();
        let mut attempt = 1;
        loop {
            match self.ask_once(asked.clone()).await {
                Err(fault) if fault.is_connection() && attempt < ATTEMPTS => backoff.wait().await,
                outcome => return outcome,
            }
            attempt += 1;
        }
    }

    /// One call. It runs by itself: the client panics at answers that make no sense.
    async fn ask_once(&self, asked: Asked) -> Result<Raw, Fault> {
        let lent = self.connection.client();
        let (one, all) = (self.connection.reading(), self.connection.reading_all());
        let deadline = self.connection.deadline;
        let count = asked.count();
        let call = self.runtime.spawn(async move {
            let stream = async {
                match asked {
                    Asked::Stream { name, from, count } => {
                        let from = StreamPosition::Position(from);
                        lent.client.read_stream(name, &one.position(from).max_count(count)).await
                    }
                    Asked::Last { name } => {
                        let end = one.position(StreamPosition::End).max_count(1);
                        lent.client.read_stream(name, &end).await
                    }
                    Asked::All { from, count } => {
                        let from = from.map_or(StreamPosition::Start, |place| {
                            StreamPosition::Position(place.engines())
                        });
                        lent.client.read_all(&all.position(from).max_count(count)).await
                    }
                }
            };
            collect(stream, count, deadline).await
        });
        let outcome = call.await.unwrap_or(Err(Fault::Nonsense("the client fails on it")));
        if outcome.as_ref().is_err_and(Fault::is_connection) {
            self.connection.renew(lent.generation);
        }
        outcome
    }
}

/// Takes events as they come. The deadline holds for each: a long page may take longer.
async fn collect(
    stream: impl Future<Output = eventstore::Result<ReadStream>>,
    count: usize,
    deadline: Duration,
) -> Result<Raw, Fault> {
    let late = |_| Fault::NoAnswer("in time".to_owned());
    let mut stream = tokio::time::timeout(deadline, stream)
        .await
        .map_err(late)?
        .map_err(|error| Fault::of(&error))?;
    let mut events: Vec<RecordedEvent> = Vec::new();
    let mut bytes = 0;
    loop {
        let event = tokio::time::timeout(deadline, stream.next()).await.map_err(late)?;
        match event.map_err(|error| Fault::of(&error))? {
            // A link of another's is given as it is, and is not ours.
            Some(found) => {
                let found = found.link.or(found.event);
                bytes += found.as_ref().map_or(0, size);
                events.extend(found);
            }
            None => break,
        }
        if bytes > ANSWER_BYTES_MAX {
            return Ok(Raw { events, ended: false, cut_short: true });
        }
        if events.len() > count {
            return Err(Fault::Nonsense("more events than were asked for"));
        }
    }
    let ended = events.len() < count;
    Ok(Raw { events, ended, cut_short: false })
}

/// What an event takes in memory, whoever wrote it and whatever stands beside it.
fn size(event: &RecordedEvent) -> usize {
    let beside: usize = event.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    event.data.len() + event.custom_metadata.len() + beside + event.stream_id().len()
}

fn place_of(item: &ReadItem) -> Position {
    match item {
        Ok(positioned) => positioned.position,
        Err((position, _)) => *position,
    }
}

fn unavailable(fault: &Fault) -> ReadError {
    ReadError::Unavailable(fault.to_string())
}

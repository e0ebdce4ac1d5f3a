//! ExportActivity: the log as a file.
//!
//! The end of the file is settled when the export begins. What was told is told by revisions,
//! so one that broke off goes on anywhere, and the pieces put together are the same bytes.
//! JSON Lines are the stored bytes: where the filter asks nothing of an event, none is decoded.

mod csv;
mod ocsf;

use std::sync::Arc;

use projections::event::WayOfReading;
use projections::organization::{Head, Organization};
use projections::recorded::{Recorded, Revision};
use projections::time::Timestamp;
use prost::bytes::Bytes;
use tonic::Status;

use super::filter::Filter;
use super::{PersonalData, entry};
use crate::ledger::event_store::ReadError;
use crate::proto;
use crate::services::authentication::Authenticated;
use crate::services::reading::Reading;
use crate::services::telling::{Pieces, Story, Tell, Teller, start as start_telling};
use crate::services::{Stay, status, write};

/// A piece is given behind the record with which it has so many bytes. With one record more
/// it is what any client takes.
const PIECE_BYTES: usize = 256 * 1024;
/// Most events that are looked at before it is said how far the export is.
const LOOKED_MAX: u64 = 16_384;
/// After so many events that are told others have their turn.
const TURN_EVENTS: u64 = 64;

type Piece = proto::ExportActivityResponse;

/// How an event becomes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    JsonLines,
    Csv,
    Ocsf,
}

impl Format {
    fn read(value: i32) -> Result<Self, Status> {
        match proto::ExportFormat::try_from(value) {
            Ok(proto::ExportFormat::JsonLines) => Ok(Self::JsonLines),
            Ok(proto::ExportFormat::Csv) => Ok(Self::Csv),
            Ok(proto::ExportFormat::OcsfCloudevents) => Ok(Self::Ocsf),
            Ok(proto::ExportFormat::Unspecified) => {
                Err(status::invalid("format", "must name a format"))
            }
            Err(_) => Err(status::invalid("format", "is no known format")),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines | Self::Ocsf => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// What is to be exported.
pub(super) struct Asked {
    filter: Filter,
    format: Format,
    after: Option<Revision>,
    up_to: Option<Revision>,
    end: Revision,
    head: Head,
}

impl Asked {
    /// Reads a request. INVALID_ARGUMENT for what cannot be an export.
    pub(super) fn read(
        message: &proto::ExportActivityRequest,
        story: &Story,
    ) -> Result<Self, Status> {
        let filter = Filter::read(message.filter.as_ref(), story.organization.id)?;
        let format = Format::read(message.format)?;
        let Some(head) = story.tables().head() else {
            return Err(status::organization_not_found(story.organization.id));
        };
        let after = message.after_revision.map(Revision);
        let up_to = message.up_to_revision.map(Revision);
        for (field, named) in [("after_revision", after), ("up_to_revision", up_to)] {
            if named.is_some_and(|named| named > head.revision) {
                return Err(status::beyond_end(field, head.revision));
            }
        }
        let end = up_to.unwrap_or(head.revision);
        if after.is_some_and(|after| after > end) {
            let problem = "must not be less than `after_revision`";
            return Err(status::invalid("up_to_revision", problem));
        }
        Ok(Self { filter, format, after, up_to, end, head })
    }

    /// What is recorded of whoever asks this.
    pub(super) fn reading(&self) -> Reading {
        let format = match self.format {
            Format::JsonLines => "json_lines",
            Format::Csv => "csv",
            Format::Ocsf => "ocsf_cloudevents",
        };
        let place = |it: Option<Revision>| it.map(|it| it.to_string()).unwrap_or_default();
        self.filter
            .reading(WayOfReading::Exported)
            .asking("format", format)
            .asking("after_revision", place(self.after))
            .asking("up_to_revision", place(self.up_to))
    }
}

/// Begins an export.
pub(super) fn start(
    story: Story,
    caller: Authenticated,
    asked: Asked,
    stay: Stay,
) -> Pieces<Piece> {
    start_telling(stay, move |teller| async move {
        story.unless_closing(export(&story, &caller, &asked, &teller)).await
    })
}

async fn export(
    story: &Story,
    caller: &Authenticated,
    asked: &Asked,
    teller: &Teller<Piece>,
) -> Result<(), Status> {
    let stream = &story.organization.stream;
    let mut next = Revision::after(asked.after);
    let mut last = Some(asked.end);
    if let Some(from) = asked.filter.from {
        next = next.max(story.first_not_before(from, asked.head).await?);
    }
    if let Some(to) = asked.filter.to {
        let behind = story.first_not_before(to, asked.head).await?;
        last = behind.0.checked_sub(1).map(|it| Revision(it).min(asked.end));
    }
    let ahead = last.map_or(0, |last| (last.0 + 1).saturating_sub(next.0));
    let end = match asked.end == asked.head.revision {
        true => Some(asked.head.leaf_hash),
        false => {
            let end = story.ledger.event(&story.organization, asked.end).await;
            end.map_err(|error| status::from_read(&error))?.map(|it| it.leaf_hash)
        }
    };
    let reader = caller.caller.principal(story.organization.id);
    let begin = proto::ExportBegin {
        end_leaf_hash: end.map(|it| it.0.to_vec()).unwrap_or_default(),
        reader: Some(write::principal(reader, story.organization.id)),
        end: write::revision(stream, Some(asked.end)),
        head_at: Some(write::timestamp(asked.head.at)),
        events_ahead: ahead,
        content_type: asked.format.content_type().to_owned(),
    };
    let mut telling = Telling {
        story,
        caller,
        asked,
        teller,
        tables: story.tables(),
        data: Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4),
        events: 0,
        records: 0,
        unsaid: 0,
    };
    telling.send(Piece { begin: Some(begin), ..Piece::default() }).await?;
    if asked.format == Format::Csv && asked.after.is_none() {
        csv::header(&mut telling.data);
    }
    story.read_through(next, last, &mut telling).await?;
    telling.give(asked.end, true).await
}

struct Telling<'a> {
    story: &'a Story,
    caller: &'a Authenticated,
    asked: &'a Asked,
    teller: &'a Teller<Piece>,
    tables: Arc<Organization>,
    data: Vec<u8>,
    events: u64,
    records: u64,
    /// Events that were looked at since the last piece.
    unsaid: u64,
}

impl Tell for Telling<'_> {
    async fn tell(&mut self, chunk: &[Recorded]) -> Result<(), Status> {
        // Made anew for each chunk: what is renamed or erased meanwhile is told as it is.
        self.tables = self.story.tables();
        let mut personal = PersonalData::new(&self.story.ledger, self.caller);
        let as_stored =
            self.asked.format == Format::JsonLines && !self.asked.filter.asks_of_events();
        for recorded in chunk {
            if as_stored {
                self.stored(recorded)?;
            } else {
                self.told(recorded, &mut personal).await?;
                if self.events.is_multiple_of(TURN_EVENTS) {
                    tokio::task::yield_now().await;
                }
            }
            self.events += 1;
            self.unsaid += 1;
            if self.data.len() >= PIECE_BYTES || self.unsaid >= LOOKED_MAX {
                self.give(recorded.revision, false).await?;
            }
        }
        Ok(())
    }
}

impl Telling<'_> {
    /// A line of the bytes as they are stored.
    fn stored(&mut self, recorded: &Recorded) -> Result<(), Status> {
        if memchr::memchr2(b'\n', b'\r', &recorded.stored).is_some() {
            // None is ever written, and a line of two halves would be two lies.
            return Err(status::from_read(&ReadError::Corrupt {
                stream: self.story.organization.stream.clone(),
                revision: recorded.revision,
                what: "the stored event is more than one line".to_owned(),
            }));
        }
        self.data.extend_from_slice(&recorded.stored);
        self.data.push(b'\n');
        self.records += 1;
        Ok(())
    }

    /// A record of an event, where the filter shows it.
    async fn told(
        &mut self,
        recorded: &Recorded,
        personal: &mut PersonalData<'_>,
    ) -> Result<(), Status> {
        let Asked { filter, format, .. } = self.asked;
        let envelope = self.story.decode(recorded)?;
        if !filter.event.shows(&envelope) {
            return Ok(());
        }
        let seen = match (format, filter.asks_origin()) {
            (Format::JsonLines, false) => None,
            _ => personal.of(&envelope).await?,
        };
        if !filter.shows_origin(seen.as_ref()) {
            return Ok(());
        }
        if *format == Format::JsonLines {
            return self.stored(recorded);
        }
        let mut entry = entry(recorded.revision, &envelope, &self.tables);
        entry.personal_data = seen;
        match format {
            Format::JsonLines => {}
            Format::Csv => csv::row(&mut self.data, &entry, &envelope),
            Format::Ocsf => ocsf::line(&mut self.data, &entry, &envelope, &self.tables),
        }
        self.records += 1;
        Ok(())
    }

    /// Gives what was gathered: all up to this revision.
    async fn give(&mut self, up_to: Revision, complete: bool) -> Result<(), Status> {
        let room = self.data.capacity().min(2 * PIECE_BYTES);
        let data = std::mem::replace(&mut self.data, Vec::with_capacity(room));
        self.unsaid = 0;
        let piece = Piece {
            begin: None,
            data: Bytes::from(data),
            revision: write::revision(&self.story.organization.stream, Some(up_to)),
            events: self.events,
            records: self.records,
            complete,
        };
        self.send(piece).await
    }

    async fn send(&self, piece: Piece) -> Result<(), Status> {
        // Somebody may have taken long to take the piece before.
        self.story.may()?;
        self.teller.give(piece).await.map_err(|_| status::closing())
    }
}

/// An instant of an entry, as texts have it.
fn instant(at: &prost_types::Timestamp) -> String {
    let millis = at.seconds.saturating_mul(1_000).saturating_add(i64::from(at.nanos) / 1_000_000);
    Timestamp::from_millis(millis).map(|at| at.to_string()).unwrap_or_default()
}

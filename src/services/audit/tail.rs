//! TailActivity: entries as they come.
//!
//! The tail reads the organization's stream behind the tables, so it tells what is durable, in
//! order, and each event once. It begins again anywhere: a revision is all there is to remember.

use std::time::Duration;

use projections::event::WayOfReading;
use projections::organization::{Head, Organization};
use projections::recorded::{Recorded, Revision};
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::filter::Filter;
use super::{PersonalData, entry};
use crate::proto;
use crate::services::authentication::Authenticated;
use crate::services::reading::Reading;
use crate::services::telling::{NotTaken, Pieces, Story, Tell, Teller, start as start_telling};
use crate::services::{Stay, status, write};

/// How often a quiet tail looks whether it may go on, and says how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long nothing may be taken before the tail is cut off.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most entries in one piece, and about how many bytes.
const PIECE_ENTRIES: usize = 256;
const PIECE_BYTES: usize = 512 * 1024;
/// Most events that are looked at before it is said how far the tail is.
const LOOKED_MAX: usize = 4_096;
/// After so many events others have their turn.
const TURN_EVENTS: usize = 64;

type Piece = proto::TailActivityResponse;

/// What is to be followed.
pub(super) struct Asked {
    filter: Filter,
    after: Option<Revision>,
}

impl Asked {
    /// Reads a request. INVALID_ARGUMENT for a filter with an end, and a place beyond the
    /// stream's.
    pub(super) fn read(
        message: &proto::TailActivityRequest,
        story: &Story,
    ) -> Result<Self, Status> {
        let filter = Filter::read(message.filter.as_ref(), story.organization.id)?;
        if filter.to.is_some() {
            let problem = "a tail has no end; QueryActivity and ExportActivity take one";
            return Err(status::invalid("filter.to", problem));
        }
        let head = head(story)?.revision;
        let after = message.after_revision.map(Revision);
        if after.is_some_and(|after| after > head) {
            return Err(status::beyond_end("after_revision", head));
        }
        Ok(Self { filter, after })
    }

    /// What is recorded of whoever asks this.
    pub(super) fn reading(&self) -> Reading {
        let after = self.after.map(|it| it.to_string()).unwrap_or_default();
        self.filter.reading(WayOfReading::Followed).asking("after_revision", after)
    }
}

fn head(story: &Story) -> Result<Head, Status> {
    let absent = || status::organization_not_found(story.organization.id);
    story.tables().head().ok_or_else(absent)
}

/// Begins a tail: where nothing else is asked, behind what is recorded by now.
pub(super) fn start(
    story: Story,
    caller: Authenticated,
    asked: Asked,
    stay: Stay,
) -> Pieces<Piece> {
    start_telling(stay, move |teller| async move {
        let Asked { filter, after } = asked;
        let head = head(&story)?;
        let next = match (after, filter.from) {
            (Some(after), _) => after.next(),
            (None, Some(from)) => story.first_not_before(from, head).await?,
            (None, None) => head.revision.next(),
        };
        tail(&story, &caller, &filter, &teller, next).await
    })
}

async fn tail(
    story: &Story,
    caller: &Authenticated,
    filter: &Filter,
    teller: &Teller<Piece>,
    mut next: Revision,
) -> Result<(), Status> {
    let told = next.0.checked_sub(1).map(Revision);
    let mut telling = Telling {
        story,
        caller,
        filter,
        teller,
        tables: story.tables(),
        piece: Piece::default(),
        bytes: 0,
        looked: 0,
        told: None,
    };
    story.may()?;
    telling.give(told).await?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        telling.tables = story.tables();
        let last = telling.tables.revision();
        story.read_through(next, last, &mut telling).await?;
        next = next.max(Revision::after(last));
        let told = Some(Revision(next.0.saturating_sub(1)));
        if !telling.piece.entries.is_empty() {
            telling.give(told).await?;
        }
        let ledger = &story.ledger;
        tokio::select! {
            () = ledger.tables().reached(story.organization.id, next) => {}
            _ = looks.tick() => {
                story.may()?;
                if telling.looked > 0 {
                    telling.give(told).await?;
                }
            }
            () = story.door.closing() => return Err(status::closing()),
        }
    }
}

struct Telling<'a> {
    story: &'a Story,
    caller: &'a Authenticated,
    filter: &'a Filter,
    teller: &'a Teller<Piece>,
    tables: std::sync::Arc<Organization>,
    piece: Piece,
    bytes: usize,
    /// Events that were looked at since the last piece.
    looked: usize,
    told: Option<Revision>,
}

impl Tell for Telling<'_> {
    async fn tell(&mut self, chunk: &[Recorded]) -> Result<(), Status> {
        // Made anew for each chunk: what is erased meanwhile is not opened.
        let mut personal = PersonalData::new(&self.story.ledger, self.caller);
        for recorded in chunk {
            let envelope = self.story.decode(recorded)?;
            if self.filter.event.shows(&envelope)
                && self.filter.from.is_none_or(|from| envelope.at >= from)
            {
                let seen = personal.of(&envelope).await?;
                if self.filter.shows_origin(seen.as_ref()) {
                    let mut entry = entry(recorded.revision, &envelope, &self.tables);
                    entry.personal_data = seen;
                    self.bytes += entry.encoded_len();
                    self.piece.entries.push(entry);
                }
            }
            self.looked += 1;
            if self.piece.entries.len() >= PIECE_ENTRIES
                || self.bytes >= PIECE_BYTES
                || self.looked >= LOOKED_MAX
            {
                self.give(Some(recorded.revision)).await?;
            }
            if self.looked.is_multiple_of(TURN_EVENTS) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

impl Telling<'_> {
    /// Tells what was gathered: all up to this revision.
    async fn give(&mut self, up_to: Option<Revision>) -> Result<(), Status> {
        // Somebody may have taken long to take the piece before.
        self.story.may()?;
        let mut piece = std::mem::take(&mut self.piece);
        piece.revision = write::revision(&self.story.organization.stream, up_to);
        (self.bytes, self.looked) = (0, 0);
        let given = async { Ok(self.teller.give_within(piece, PATIENCE).await) };
        match self.story.unless_closing(given).await? {
            Ok(()) => self.told = up_to,
            Err(NotTaken::Slow) => return Err(status::tail_too_slow(self.told)),
            Err(NotTaken::Gone) => return Err(status::closing()),
        }
        Ok(())
    }
}

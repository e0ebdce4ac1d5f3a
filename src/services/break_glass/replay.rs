//! The whole story of one grant, in order, from the organization's own stream.
//!
//! A replay looks at every event from the grant's opening on. What cannot belong to the grant,
//! for its bytes do not hold the grant's identifier, is not even read.

use memchr::memmem;
use projections::activity::is_under;
use projections::break_glass::BreakGlassGrant;
use projections::envelope::Envelope;
use projections::id::BreakGlassGrantId;
use projections::organization::Organization;
use projections::recorded::{Recorded, Revision};
use tonic::Status;

use super::{LOOK_EVERY, view};
use crate::ledger::vault::SubjectKeyState;
use crate::ledger::vault::seal::EventKey;
use crate::proto;
use crate::services::audit::{PersonalData, entry};
use crate::services::authentication::Authenticated;
use crate::services::telling::{Pieces, Story, Tell, Teller, start as start_telling};
use crate::services::{Stay, status, write};

/// Most entries in one piece, and about how many bytes of stored events.
const PIECE_ENTRIES: usize = 512;
const PIECE_BYTES: usize = 1 << 20;

/// What is asked of a replay.
pub(super) struct Asked {
    id: BreakGlassGrantId,
    after: Option<Revision>,
    follow: bool,
    evidence: bool,
}

impl Asked {
    pub(super) fn of(id: BreakGlassGrantId, message: &proto::ReplayGrantRequest) -> Self {
        let after = message.after_revision.map(Revision);
        Self { id, after, follow: message.follow, evidence: message.evidence }
    }
}

/// The pieces of a replay.
pub(super) type Replay = Pieces<proto::ReplayGrantResponse>;

/// Begins a replay.
pub(super) fn start(story: Story, caller: Authenticated, asked: Asked, stay: Stay) -> Replay {
    start_telling(stay, |teller| async move { replay(&story, &caller, &asked, &teller).await })
}

async fn replay(
    story: &Story,
    caller: &Authenticated,
    asked: &Asked,
    teller: &Teller<proto::ReplayGrantResponse>,
) -> Result<(), Status> {
    let text = asked.id.text();
    let finder = memmem::Finder::new(text.as_bytes());
    let missing = || status::break_glass_grant_not_found(asked.id);
    let opened = story.tables().break_glass_grant(asked.id).map(|it| it.opened_by);
    let mut next = opened.ok_or_else(missing)?;
    if let Some(after) = asked.after {
        next = next.max(Revision(after.0.saturating_add(1)));
    }
    loop {
        story.may()?;
        // Up to here, and as the grant is then.
        let tables = story.tables();
        let grant = tables.break_glass_grant(asked.id).ok_or_else(missing)?;
        // Nothing but a review and refusals can follow an end.
        let last = match (&grant.reviewed, tables.revision()) {
            (Some(_), Some(_)) => Some(grant.changed_at),
            (_, last) => last,
        };
        let personal = PersonalData::new(&story.ledger, caller);
        let piece = proto::ReplayGrantResponse::default();
        let tables = &tables;
        let mut telling = Telling {
            story,
            teller,
            asked,
            finder: &finder,
            tables,
            grant,
            personal,
            piece,
            bytes: 0,
        };
        story.read_through(next, last, &mut telling).await?;
        let Telling { piece, .. } = &mut telling;
        let piece = std::mem::take(piece);
        let over = grant.ended.is_some();
        let done = over || !asked.follow;
        if done || !piece.entries.is_empty() {
            telling.give(piece, last.unwrap_or(Revision::FIRST), over).await?;
        }
        if done {
            return Ok(());
        }
        next = next.max(Revision::after(last));
        story.more(next, LOOK_EVERY).await?;
    }
}

/// One reading of what belongs to a grant, up to the end as it is.
struct Telling<'a> {
    story: &'a Story,
    teller: &'a Teller<proto::ReplayGrantResponse>,
    asked: &'a Asked,
    finder: &'a memmem::Finder<'a>,
    tables: &'a Organization,
    grant: &'a BreakGlassGrant,
    personal: PersonalData<'a>,
    piece: proto::ReplayGrantResponse,
    bytes: usize,
}

impl Tell for Telling<'_> {
    async fn tell(&mut self, chunk: &[Recorded]) -> Result<(), Status> {
        for recorded in chunk {
            if self.finder.find(&recorded.stored).is_none() {
                continue;
            }
            if let Some(written) = self.entry(recorded).await? {
                self.bytes += recorded.stored.len();
                self.piece.entries.push(written);
            }
            if self.piece.entries.len() >= PIECE_ENTRIES || self.bytes >= PIECE_BYTES {
                let full = std::mem::take(&mut self.piece);
                self.bytes = 0;
                self.give(full, recorded.revision, false).await?;
            }
        }
        Ok(())
    }
}

impl Telling<'_> {
    async fn give(
        &self,
        piece: proto::ReplayGrantResponse,
        up_to: Revision,
        complete: bool,
    ) -> Result<(), Status> {
        // Somebody may have taken long to take the piece before.
        self.story.may()?;
        let organization = &self.story.organization;
        let now = self.story.ledger.now_for(&organization.tables());
        let piece = proto::ReplayGrantResponse {
            grant: Some(view::grant(self.grant, organization.id, now)),
            revision: write::revision(&organization.stream, Some(up_to)),
            complete,
            ..piece
        };
        self.teller.give(piece).await.map_err(|_| status::closing())
    }

    async fn entry(&mut self, recorded: &Recorded) -> Result<Option<proto::ReplayEntry>, Status> {
        let envelope = self.story.decode(recorded)?;
        if !is_under(&envelope, self.asked.id) {
            return Ok(None);
        }
        let mut written = entry(recorded.revision, &envelope, self.tables);
        written.personal_data = self.personal.of(&envelope).await?;
        let stored = match self.asked.evidence {
            true => Some(stored(recorded, &envelope, &mut self.personal).await?),
            false => None,
        };
        Ok(Some(proto::ReplayEntry { entry: Some(written), stored }))
    }
}

/// An event as it is stored, with the keys that open it alone.
async fn stored(
    recorded: &Recorded,
    envelope: &Envelope,
    personal: &mut PersonalData<'_>,
) -> Result<proto::StoredEvent, Status> {
    let mut keys = Vec::new();
    // Where from is for operators alone: a key opens all of a piece.
    let withheld = personal.withholds_origin(envelope);
    for sealed in envelope.sealed.iter().filter(|_| !withheld) {
        if let SubjectKeyState::Held(key) = personal.key(&sealed.subject).await? {
            let derived = EventKey::derive(key, envelope.id, &sealed.subject);
            let derived = derived.map_err(|error| status::from(error.into()))?;
            let (subject, key) = (sealed.subject.to_string(), derived.expose().to_vec());
            keys.push(proto::EventKey { subject, key });
        }
    }
    Ok(proto::StoredEvent {
        stored: recorded.stored.to_vec(),
        leaf_hash: recorded.leaf_hash.0.to_vec(),
        keys,
    })
}

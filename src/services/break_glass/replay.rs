//! The whole story of one grant, in order, from the organization's own stream.
//!
//! A replay looks at every event from the grant's opening on. What cannot belong to the grant,
//! for its bytes do not hold the grant's identifier, is not even read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use memchr::memmem;
use projections::activity::is_under;
use projections::envelope::Envelope;
use projections::id::BreakGlassGrantId;
use projections::recorded::{Recorded, Revision};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::{LOOK_EVERY, view};
use crate::ledger::Ledger;
use crate::ledger::permissions::BREAK_GLASS_READ;
use crate::ledger::tables::Published;
use crate::ledger::vault::SubjectKeyState;
use crate::ledger::vault::seal::EventKey;
use crate::proto;
use crate::services::audit::{PersonalData, entry};
use crate::services::authentication::{Authenticated, Shown, authenticate_again};
use crate::services::{Door, Stay, status, write};

/// Pieces that wait to be taken: a slow reader holds up reading, and nothing else.
const WAITING: usize = 2;
/// Most events that are read at once. While those are told, as many more are read.
const CHUNK_EVENTS: usize = 512;
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
pub struct Replay(mpsc::Receiver<Result<proto::ReplayGrantResponse, Status>>);

impl Stream for Replay {
    type Item = Result<proto::ReplayGrantResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Begins a replay.
pub(super) fn start(
    door: Door,
    ledger: Arc<Ledger>,
    organization: Arc<Published>,
    (caller, shown): (Authenticated, Shown),
    asked: Asked,
    stay: Stay,
) -> Replay {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _stay = stay;
        let work = Work { ledger: &ledger, door: &door, organization: &organization, shown, asked };
        let replayed = tokio::select! {
            replayed = work.replay(&caller, &sender) => replayed,
            () = sender.closed() => return,
        };
        if let Err(status) = replayed {
            // Whoever asked may have gone.
            let _ = sender.send(Err(status)).await;
        }
    });
    Replay(receiver)
}

struct Work<'a> {
    ledger: &'a Arc<Ledger>,
    door: &'a Door,
    organization: &'a Published,
    shown: Shown,
    asked: Asked,
}

type Pieces = mpsc::Sender<Result<proto::ReplayGrantResponse, Status>>;

impl Work<'_> {
    fn may(&self) -> Result<(), Status> {
        self.door.check_contact()?;
        let now = self.ledger.clock().now();
        authenticate_again(self.ledger, &self.shown, BREAK_GLASS_READ, now)?;
        match self.organization.stopped() {
            Some(_) => Err(status::stopped(self.organization.id)),
            None => Ok(()),
        }
    }

    async fn replay(&self, caller: &Authenticated, pieces: &Pieces) -> Result<(), Status> {
        let mut personal = PersonalData::new(self.ledger, caller);
        let text = self.asked.id.text();
        let finder = memmem::Finder::new(text.as_bytes());
        let missing = || status::break_glass_grant_not_found(self.asked.id);
        let opened =
            self.organization.tables().break_glass_grant(self.asked.id).map(|it| it.opened_by);
        let mut next = opened.ok_or_else(missing)?;
        if let Some(after) = self.asked.after {
            next = next.max(Revision(after.0.saturating_add(1)));
        }
        loop {
            self.may()?;
            // Up to here, and as the grant is then: what is in the tables is in the stream.
            let tables = Arc::clone(&self.organization.tables());
            let grant = tables.break_glass_grant(self.asked.id).ok_or_else(missing)?;
            // Nothing but a review and refusals can follow an end.
            let last = match (&grant.reviewed, tables.revision()) {
                (Some(_), Some(_)) => Some(grant.changed_at),
                (_, last) => last,
            };
            let mut piece = proto::ReplayGrantResponse::default();
            let mut bytes = 0;
            let mut chunk = self.read(next, last).await?;
            while let Some(end) = chunk.last() {
                next = end.revision.next();
                let tell = async {
                    for recorded in &chunk {
                        if finder.find(&recorded.stored).is_none() {
                            continue;
                        }
                        if let Some(written) = self.entry(recorded, &tables, &mut personal).await? {
                            bytes += recorded.stored.len();
                            piece.entries.push(written);
                        }
                        if piece.entries.len() >= PIECE_ENTRIES || bytes >= PIECE_BYTES {
                            let full = std::mem::take(&mut piece);
                            bytes = 0;
                            self.send(pieces, full, grant, recorded.revision, false).await?;
                        }
                    }
                    Ok::<_, Status>(())
                };
                // The store's thread reads while this one tells.
                let (read, told) = tokio::join!(self.read(next, last), tell);
                told?;
                self.may()?;
                chunk = read?;
            }
            let over = grant.ended.is_some();
            let done = over || !self.asked.follow;
            if done || !piece.entries.is_empty() {
                let up_to = last.unwrap_or(Revision::FIRST);
                self.send(pieces, piece, grant, up_to, over).await?;
            }
            if done {
                return Ok(());
            }
            let more = self.ledger.tables().reached(self.organization.id, next);
            tokio::select! {
                () = more => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.door.closing() => return Err(status::closing()),
            }
        }
    }

    /// The events from here on up to the last one, as many as are read at once; none behind it.
    async fn read(&self, next: Revision, last: Option<Revision>) -> Result<Vec<Recorded>, Status> {
        let Some(ahead) = last.and_then(|last| last.0.checked_sub(next.0)) else {
            return Ok(Vec::new());
        };
        let wanted = usize::try_from(ahead).unwrap_or(CHUNK_EVENTS).saturating_add(1);
        let wanted = wanted.min(CHUNK_EVENTS);
        let read = self.ledger.read_organization(self.organization, next, wanted).await;
        read.map_err(|error| status::from_read(&error))
    }

    async fn send(
        &self,
        pieces: &Pieces,
        piece: proto::ReplayGrantResponse,
        grant: &projections::break_glass::BreakGlassGrant,
        up_to: Revision,
        complete: bool,
    ) -> Result<(), Status> {
        // Somebody may have taken long to take the piece before.
        self.may()?;
        let now = self.ledger.now_for(&self.organization.tables());
        let piece = proto::ReplayGrantResponse {
            grant: Some(view::grant(grant, self.organization.id, now)),
            revision: write::revision(&self.organization.stream, Some(up_to)),
            complete,
            ..piece
        };
        pieces.send(Ok(piece)).await.map_err(|_| status::closing())
    }

    async fn entry(
        &self,
        recorded: &Recorded,
        tables: &projections::organization::Organization,
        personal: &mut PersonalData<'_>,
    ) -> Result<Option<proto::ReplayEntry>, Status> {
        let envelope = Envelope::decode(&recorded.stored).map_err(|fault| {
            let stream = self.organization.stream.clone();
            let what = fault.to_string();
            status::from_read(&crate::ledger::event_store::ReadError::Corrupt {
                stream,
                revision: recorded.revision,
                what,
            })
        })?;
        if !is_under(&envelope, self.asked.id) {
            return Ok(None);
        }
        let mut written = entry(recorded.revision, &envelope, tables);
        written.personal_data = personal.of(&envelope).await?;
        let stored = match self.asked.evidence {
            true => Some(stored(recorded, &envelope, personal).await?),
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

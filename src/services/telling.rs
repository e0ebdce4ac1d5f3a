//! Calls that tell of an organization's events, in order, for as long as it takes.
//!
//! A task reads and tells; what it made waits in a short queue until the caller takes it. So a
//! slow caller holds up its own reading and nothing else: memory is bounded by the queue, and
//! no writer waits. Before each piece the caller's authority is looked at again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use projections::corrupt::CorruptHistory;
use projections::envelope::Envelope;
use projections::organization::{Head, Organization};
use projections::permission::Permission;
use projections::recorded::{Recorded, Revision};
use projections::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use super::authentication::{Shown, authenticate_again};
use super::{Door, Stay, status};
use crate::ledger::Ledger;
use crate::ledger::event_store::ReadError;
use crate::ledger::tables::Published;

/// Pieces that wait to be taken.
const WAITING: usize = 2;
/// Events that are read at first; more at a time where they are small.
const CHUNK_EVENTS_FIRST: usize = 256;
/// Most events that are read at once. While those are told, as many more are read.
const CHUNK_EVENTS_MAX: usize = 2_048;
/// About how many bytes are read at once.
const CHUNK_BYTES: usize = 2 << 20;

/// The pieces of one call, as they are taken.
pub struct Pieces<T> {
    pieces: mpsc::Receiver<T>,
    end: Option<oneshot::Receiver<Status>>,
}

impl<T> Stream for Pieces<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = ready!(self.pieces.poll_recv(context)) {
            return Poll::Ready(Some(Ok(piece)));
        }
        // Whoever made the pieces has said by now why there are no more, if that was no end.
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let end = ready!(Pin::new(end).poll(context));
        self.end = None;
        Poll::Ready(end.ok().map(Err))
    }
}

/// Where the pieces of one call go.
pub struct Teller<T> {
    pieces: mpsc::Sender<T>,
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Whoever asked has gone.
    Gone,
    /// Nothing was taken for too long.
    Slow,
}

impl<T> Teller<T> {
    /// Puts a piece into the queue as soon as there is room.
    pub async fn give(&self, piece: T) -> Result<(), NotTaken> {
        self.pieces.send(piece).await.map_err(|_| NotTaken::Gone)
    }

    /// The same, where there is room within this time.
    pub async fn give_within(&self, piece: T, patience: Duration) -> Result<(), NotTaken> {
        tokio::time::timeout(patience, self.give(piece)).await.map_err(|_| NotTaken::Slow)?
    }
}

/// Begins to tell. The work ends when it is done, when it fails, which the caller is told
/// behind all that was told before, or when the caller goes. It has its place until then.
pub fn start<T, F>(stay: Stay, work: impl FnOnce(Teller<T>) -> F) -> Pieces<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(WAITING);
    let (end, ended) = oneshot::channel();
    let work = work(Teller { pieces: sender.clone() });
    tokio::spawn(async move {
        let _stay = stay;
        let told = tokio::select! {
            told = work => told,
            () = sender.closed() => Ok(()),
        };
        if let Err(status) = told {
            // Whoever asked may have gone.
            let _ = end.send(status);
        }
    });
    Pieces { pieces, end: Some(ended) }
}

/// Takes the events of one chunk.
pub trait Tell {
    /// Takes them, in order.
    fn tell(&mut self, chunk: &[Recorded]) -> impl Future<Output = Result<(), Status>> + Send;
}

/// The events of an organization, as one caller may hear of them.
pub struct Story {
    /// The door that the caller came through.
    pub door: Door,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Whose events.
    pub organization: Arc<Published>,
    /// Who asked.
    pub shown: Shown,
    /// What they must hold.
    pub permission: Permission<'static>,
}

impl Story {
    /// Whether the caller may hear more: the same authority as at first, of a node that may
    /// answer, about an organization that is not stopped.
    pub fn may(&self) -> Result<(), Status> {
        self.door.check_contact()?;
        let now = self.ledger.clock().now();
        authenticate_again(&self.ledger, &self.shown, self.permission, now)?;
        match self.organization.stopped() {
            Some(_) => Err(status::stopped(self.organization.id)),
            None => Ok(()),
        }
    }

    /// The organization's tables as they are now: what is in them is in the stream.
    #[must_use]
    pub fn tables(&self) -> Arc<Organization> {
        Arc::clone(&self.organization.tables())
    }

    /// Tells all events from `next` up to `last`; nothing where that is in front of it. The
    /// store's thread reads the next chunk while one is told.
    pub async fn read_through(
        &self,
        mut next: Revision,
        last: Option<Revision>,
        teller: &mut (impl Tell + Send),
    ) -> Result<(), Status> {
        let Some(last) = last else { return Ok(()) };
        let mut wanted = CHUNK_EVENTS_FIRST;
        let mut chunk = self.read(next, last, wanted).await?;
        while let Some(end) = chunk.last() {
            next = end.revision.next();
            let bytes: usize = chunk.iter().map(|it| it.stored.len()).sum();
            let fit = CHUNK_BYTES / (bytes / chunk.len()).max(1);
            wanted = fit.min(wanted * 2).clamp(1, CHUNK_EVENTS_MAX);
            let (read, told) = tokio::join!(self.read(next, last, wanted), teller.tell(&chunk));
            told?;
            self.may()?;
            chunk = read?;
        }
        Ok(())
    }

    /// The events from here on up to the last one, at most as many as wanted; none behind it.
    async fn read(
        &self,
        next: Revision,
        last: Revision,
        wanted: usize,
    ) -> Result<Vec<Recorded>, Status> {
        let Some(ahead) = last.0.checked_sub(next.0) else { return Ok(Vec::new()) };
        let wanted = usize::try_from(ahead).map_or(wanted, |it| wanted.min(it.saturating_add(1)));
        let read = self.ledger.read_organization(&self.organization, next, wanted).await;
        read.map_err(|error| status::from_read(&error))
    }

    /// The first event that was recorded at this instant or later; the place behind the head if
    /// there is none.
    pub async fn first_not_before(&self, at: Timestamp, head: Head) -> Result<Revision, Status> {
        let first = self.ledger.first_not_before(&self.organization, head, at).await;
        first.map_err(|error| status::from_read(&error))
    }

    /// What an event says. One that cannot be read is damage, which is logged.
    pub fn decode(&self, recorded: &Recorded) -> Result<Envelope, Status> {
        Envelope::decode(&recorded.stored).map_err(|fault| {
            let fault: CorruptHistory = fault.at(recorded.revision);
            status::from_read(&ReadError::Corrupt {
                stream: self.organization.stream.clone(),
                revision: recorded.revision,
                what: fault.to_string(),
            })
        })
    }

    /// Waits until the tables hold this revision, at most so long. UNAVAILABLE when the server
    /// shuts down.
    pub async fn more(&self, next: Revision, at_most: Duration) -> Result<(), Status> {
        tokio::select! {
            () = self.ledger.tables().reached(self.organization.id, next) => Ok(()),
            () = tokio::time::sleep(at_most) => Ok(()),
            () = self.door.closing() => Err(status::closing()),
        }
    }

    /// Does this, unless the server shuts down first.
    pub async fn unless_closing<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            done = work => done,
            () = self.door.closing() => Err(status::closing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use projections::id::OrganizationId;
    use tokio_stream::StreamExt as _;

    use super::*;

    /// A call that stays, at a door that need not be open for that.
    fn stay(door: &Door) -> Stay {
        Stay {
            inside: Arc::clone(&door.inside),
            _place: door.stays.take(OrganizationId::OPERATOR).unwrap(),
        }
    }

    #[tokio::test]
    async fn whoever_takes_nothing_is_cut_off_behind_what_was_told() {
        let door = Door::closed(8, Vec::new());
        let (cut, was_cut) = oneshot::channel();
        let mut pieces = start(stay(&door), |teller: Teller<usize>| async move {
            let mut given = 0;
            let slow = loop {
                match teller.give_within(given, Duration::from_millis(1)).await {
                    Ok(()) => given += 1,
                    Err(why) => break why,
                }
            };
            let _ = cut.send((given, slow));
            Err(Status::aborted("slow"))
        });
        // Nothing is taken until the work has given up, however long that takes.
        assert_eq!(was_cut.await.unwrap(), (WAITING, NotTaken::Slow));
        for piece in 0..WAITING {
            assert_eq!(pieces.next().await.unwrap().unwrap(), piece);
        }
        assert_eq!(pieces.next().await.unwrap().unwrap_err().message(), "slow");
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn the_work_ends_with_whoever_asked() {
        let door = Door::closed(8, Vec::new());
        let (gone, mut is_gone) = mpsc::channel::<()>(1);
        let pieces = start(stay(&door), |teller: Teller<usize>| async move {
            let _gone = gone;
            teller.give(1).await.map_err(|_| Status::aborted("gone"))?;
            std::future::pending().await
        });
        drop(pieces);
        assert!(is_gone.recv().await.is_none(), "the work was dropped");
    }
}

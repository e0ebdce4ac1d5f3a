//! Keeping the activity index behind the stream: by a few hundredths of a second, while all is
//! well, and by as much as it must while it is made anew. Nobody waits for it: what it does
//! not know yet is walked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use projections::activity::terms_of;
use projections::envelope::Envelope;
use projections::id::OrganizationId;
use projections::recorded::Revision;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::index::{ActivityIndex, Found, IndexError, Indexed, Reached, Search};
use crate::ledger::Ledger;
use crate::ledger::event_store::{
    Anchor, Position, Positioned, READ_EVENTS_MAX, ReadError, ReadItem, Subscription, place,
};
use crate::ledger::urgency::Urgency;

/// How long events are gathered before they are added together.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The index of a running ledger, and how far it may be asked.
#[derive(Default)]
pub(in crate::ledger) struct IndexState {
    index: OnceLock<Arc<dyn ActivityIndex>>,
    reached: RwLock<Asked>,
    anew: Notify,
    /// How often it was found damaged.
    damaged: AtomicU64,
}

/// How far an index may be asked.
#[derive(Default)]
struct Asked {
    reached: HashMap<OrganizationId, Revision>,
    /// Not at all, whatever is still added to it, until it is empty.
    distrusted: bool,
}

impl IndexState {
    /// The last event of an organization that the index knows, and all before it.
    pub(super) fn reached(&self, organization: OrganizationId) -> Option<Revision> {
        let asked = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        asked.reached.get(&organization).copied()
    }

    fn asked(&self) -> RwLockWriteGuard<'_, Asked> {
        self.reached.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_reached(
        &self,
        organizations: impl IntoIterator<Item = (OrganizationId, Revision)>,
    ) {
        let mut asked = self.asked();
        if !asked.distrusted {
            asked.reached.extend(organizations);
        }
    }

    /// From here on this index is asked, up to there.
    #[cfg(test)]
    pub(super) fn begin(
        &self,
        index: Arc<dyn ActivityIndex>,
        reached: Option<(OrganizationId, Revision)>,
    ) {
        assert!(self.index.set(index).is_ok());
        self.set_reached(reached);
    }

    /// From here on nothing is asked of it.
    pub(super) fn forget(&self) {
        self.asked().reached.clear();
    }

    /// From here on nothing is asked of it until it was made anew, which is to begin.
    pub(super) fn distrust(&self) {
        *self.asked() = Asked { reached: HashMap::new(), distrusted: true };
        self.anew.notify_one();
    }

    /// It is empty, so what is added from here on is all that it holds.
    pub(super) fn cleared(&self) {
        self.asked().distrusted = false;
    }

    /// As [`IndexState::distrust`], because it is damaged.
    pub(super) fn found_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.distrust();
    }

    /// Finds events; none where the index cannot be asked: the stream can.
    pub(super) async fn find(&self, search: Search) -> Option<Found> {
        let index = Arc::clone(self.index.get()?);
        let found = tokio::task::spawn_blocking(move || index.find(&search)).await;
        match found {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the stream is read instead of the activity index");
                if let IndexError::Damaged(_) = error {
                    self.found_damaged();
                }
                None
            }
            Err(_) => None,
        }
    }
}

/// Why the index is begun anew.
enum Begin {
    /// From where it is.
    There,
    /// From nothing.
    Anew,
}

/// Events that were told, and how far they go.
pub(super) struct Batch {
    pub(super) events: Vec<Indexed>,
    checkpoint: Anchor,
}

impl Ledger {
    /// Keeps this index up to date, without end. It is asked from the moment it is known to be
    /// of this history.
    pub async fn keep_activity_index(self: Arc<Self>, index: Arc<dyn ActivityIndex>) {
        if self.activity.index.set(Arc::clone(&index)).is_err() {
            return;
        }
        let mut begin = Begin::There;
        loop {
            let kept = match begin {
                Begin::There => self.follow_from_there(&index).await,
                Begin::Anew => match in_background(&index, |index| index.clear()).await {
                    Ok(()) => {
                        self.activity.cleared();
                        self.follow_and_check(&index, Reached::default()).await
                    }
                    Err(error) => Err(error),
                },
            };
            self.activity.forget();
            begin = match kept {
                Ok(()) => Begin::Anew,
                Err(error) => {
                    tracing::warn!(%error, "the activity index is not kept: pages cost more");
                    tokio::time::sleep(AGAIN).await;
                    match error {
                        IndexError::Damaged(_) => {
                            self.activity.damaged.fetch_add(1, Ordering::Relaxed);
                            Begin::Anew
                        }
                        IndexError::Full | IndexError::Unavailable(_) => begin,
                    }
                }
            };
        }
    }

    /// Throws the activity index away and makes it anew, in the background. Pages are walked
    /// meanwhile. False where no index is kept.
    pub fn rebuild_activity_index(&self) -> bool {
        let kept = self.activity.index.get().is_some();
        if kept {
            self.activity.distrust();
        }
        kept
    }

    /// How often the activity index was found damaged, since the start.
    #[must_use]
    pub fn activity_index_damaged(&self) -> u64 {
        self.activity.damaged.load(Ordering::Relaxed)
    }

    /// How many events of the organizations' streams the activity index does not know yet.
    #[must_use]
    pub fn activity_index_behind(&self) -> u64 {
        let behind = |organization: &super::Published| {
            let there = organization.tables().revision().map_or(0, |it| it.0 + 1);
            let known = self.activity.reached(organization.id).map_or(0, |it| it.0 + 1);
            there.saturating_sub(known)
        };
        self.tables.all().iter().map(|it| behind(it)).sum()
    }

    /// Goes on where the index is, if it is of this history; else there is nothing to go on
    /// from.
    async fn follow_from_there(&self, index: &Arc<dyn ActivityIndex>) -> Result<(), IndexError> {
        let reached = in_background(index, |index| index.reached()).await?;
        if let Some(checkpoint) = &reached.checkpoint {
            let there = loop {
                match checkpoint.is_in(&*self.store).await {
                    Ok(there) => break there,
                    Err(_) => tokio::time::sleep(AGAIN).await,
                }
            };
            if !there {
                tracing::info!("the activity index is of another history: it is made anew");
                return Ok(());
            }
        }
        self.follow_and_check(index, reached).await
    }

    /// Follows the store, and checks what the index holds meanwhile.
    async fn follow_and_check(
        &self,
        index: &Arc<dyn ActivityIndex>,
        reached: Reached,
    ) -> Result<(), IndexError> {
        tokio::select! {
            // What differs is made anew by whoever follows.
            followed = self.follow(index, reached) => followed,
            never = self.check_activity_index(index) => match never {},
        }
    }

    /// Adds what the store has behind this, and what comes; ends where it is to be made anew.
    async fn follow(
        &self,
        index: &Arc<dyn ActivityIndex>,
        reached: Reached,
    ) -> Result<(), IndexError> {
        let Reached { checkpoint, organizations } = reached;
        self.activity.set_reached(organizations.iter().copied());
        let mut heads: HashMap<OrganizationId, Revision> = organizations.into_iter().collect();
        let mut last = checkpoint.map(|it| it.position);
        let mut subscription = self.store.subscribe_all(last);
        let mut adding: Option<Adding> = None;
        loop {
            let mut gathering = std::pin::pin!(gather(&mut *subscription));
            let items = loop {
                tokio::select! {
                    items = &mut gathering => break items,
                    added = added(&mut adding) => {
                        adding = None;
                        self.activity.set_reached(added?);
                    }
                    () = self.activity.anew.notified() => {
                        if adding.is_some() {
                            // Or it would come into the new one.
                            added(&mut adding).await?;
                        }
                        return Ok(());
                    }
                }
            };
            let Some(items) = items else {
                // The store is closed: the node is about to end.
                std::future::pending::<()>().await;
                return Ok(());
            };
            // What is told here, and what is added meanwhile, is done on other threads.
            let telling = tokio::task::spawn_blocking(move || {
                let batch = tell(items, &mut heads, &mut last);
                (batch, heads, last)
            });
            let told = telling.await;
            if adding.is_some() {
                self.activity.set_reached(added(&mut adding).await?);
            }
            let batch;
            (batch, heads, last) =
                told.map_err(|error| IndexError::Unavailable(error.to_string()))?;
            adding = batch.map(|batch| self.add(index, batch));
        }
    }

    /// Begins to add a batch.
    fn add(&self, index: &Arc<dyn ActivityIndex>, batch: Batch) -> Adding {
        let (index, store) = (Arc::clone(index), Arc::clone(&self.store));
        tokio::spawn(async move {
            // What is derived takes no space that events need.
            while store.is_full(Urgency::Normal) {
                tokio::time::sleep(AGAIN).await;
            }
            let batch = Arc::new(batch);
            loop {
                let adding = Arc::clone(&batch);
                let added = in_background(&index, move |index| {
                    index.add(&adding.events, &adding.checkpoint)
                });
                match added.await {
                    Err(IndexError::Full) => tokio::time::sleep(AGAIN).await,
                    Err(error) => return Err(error),
                    Ok(()) => break,
                }
            }
            let last = batch.events.iter().map(|it| (it.organization, it.revision));
            Ok(last.collect())
        })
    }

    /// Adds to an index all that the store holds behind what it has, for whoever waits for it.
    /// Gives the number of events.
    ///
    /// # Errors
    ///
    /// It is of another history or cannot be written, or the store could not be read.
    pub async fn fill_activity_index(
        &self,
        index: &Arc<dyn ActivityIndex>,
    ) -> Result<u64, FillError> {
        let (mut heads, mut last) = self.trusted(index).await?.ok_or_else(other_history)?;
        let mut added = 0;
        let mut reading = self.store.read_all(last, READ_EVENTS_MAX);
        loop {
            let items = reading.await?;
            let Some(end) = items.last().map(place) else { return Ok(added) };
            // The store's thread reads while this one adds.
            reading = self.store.read_all(Some(end), READ_EVENTS_MAX);
            if let Some(batch) = tell(items, &mut heads, &mut last) {
                added += batch.events.len() as u64;
                let add =
                    move |index: &dyn ActivityIndex| index.add(&batch.events, &batch.checkpoint);
                in_background(index, add).await?;
            }
        }
    }

    /// How far an index goes; none where it is of another history.
    async fn trusted(
        &self,
        index: &Arc<dyn ActivityIndex>,
    ) -> Result<Option<(HashMap<OrganizationId, Revision>, Option<Position>)>, FillError> {
        let reached = in_background(index, |index| index.reached()).await?;
        if let Some(checkpoint) = &reached.checkpoint
            && !checkpoint.is_in(&*self.store).await?
        {
            return Ok(None);
        }
        let last = reached.checkpoint.map(|it| it.position);
        Ok(Some((reached.organizations.into_iter().collect(), last)))
    }
}

fn other_history() -> FillError {
    IndexError::Damaged("it is of another history".to_owned()).into()
}

/// Why an index could not be filled, or held against history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A batch on its way into the index.
type Adding = tokio::task::JoinHandle<Result<HashMap<OrganizationId, Revision>, IndexError>>;

/// Waits until a batch is in the index, and gives how far that goes: for ever, where none is on
/// its way.
async fn added(
    adding: &mut Option<Adding>,
) -> Result<HashMap<OrganizationId, Revision>, IndexError> {
    match adding {
        Some(adding) => adding.await.map_err(|error| IndexError::Unavailable(error.to_string()))?,
        None => std::future::pending().await,
    }
}

pub(super) async fn in_background<T: Send + 'static>(
    index: &Arc<dyn ActivityIndex>,
    work: impl FnOnce(&dyn ActivityIndex) -> Result<T, IndexError> + Send + 'static,
) -> Result<T, IndexError> {
    let index = Arc::clone(index);
    let done = tokio::task::spawn_blocking(move || work(&*index)).await;
    done.map_err(|error| IndexError::Unavailable(error.to_string()))?
}

/// The next events: as many as there are, or as come within a moment. None once the store is
/// closed.
async fn gather(subscription: &mut dyn Subscription) -> Option<Vec<ReadItem>> {
    let mut items = Vec::new();
    let first = loop {
        match subscription.next().await? {
            Err((_, ReadError::Unavailable(_))) => tokio::time::sleep(AGAIN).await,
            first => break first,
        }
    };
    items.push(first);
    let end = Instant::now() + GATHER;
    while items.len() < READ_EVENTS_MAX {
        match tokio::time::timeout_at(end, subscription.next()).await {
            Ok(Some(Err((_, ReadError::Unavailable(_))))) | Ok(None) | Err(_) => break,
            Ok(Some(item)) => items.push(item),
        }
    }
    Some(items)
}

/// What the events of organizations can be found by. Behind a damaged event nothing more of
/// its organization is told: an index has no gaps.
pub(super) fn tell(
    items: Vec<ReadItem>,
    heads: &mut HashMap<OrganizationId, Revision>,
    last: &mut Option<Position>,
) -> Option<Batch> {
    let mut events = Vec::with_capacity(items.len());
    let mut checkpoint = None;
    for item in items {
        let Positioned { position, recorded } = match item {
            Ok(positioned) => positioned,
            Err((position, _)) => {
                *last = Some(position);
                continue;
            }
        };
        let before = last.replace(position);
        let organization = recorded.stream.as_organization();
        let next = organization.map(|it| Revision::after(heads.get(&it).copied()));
        if let Some(organization) = organization.filter(|_| next == Some(recorded.revision))
            && let Ok(envelope) = Envelope::decode(&recorded.stored)
        {
            heads.insert(organization, recorded.revision);
            let (revision, terms) = (recorded.revision, terms_of(&envelope));
            events.push(Indexed { organization, revision, terms });
        }
        let (stream, revision) = (recorded.stream, recorded.revision);
        let leaf_hash = recorded.leaf_hash;
        checkpoint = Some(Anchor { before, position, stream, revision, leaf_hash });
    }
    checkpoint.map(|checkpoint| Batch { events, checkpoint })
}

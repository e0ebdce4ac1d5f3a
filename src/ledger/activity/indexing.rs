//! Keeping the activity index behind the stream: by a few hundredths of a second, while all is
//! well, and by as much as it must while it is made anew. Nobody waits for it: what it does
//! not know yet is walked.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use projections::activity::terms_of;
use projections::envelope::Envelope;
use projections::id::OrganizationId;
use projections::recorded::Revision;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::index::{ActivityIndex, Found, IndexDigest, IndexError, Indexed, Reached, Search};
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
    reached: RwLock<HashMap<OrganizationId, Revision>>,
    anew: Notify,
}

impl IndexState {
    /// The last event of an organization that the index knows, and all before it.
    pub(super) fn reached(&self, organization: OrganizationId) -> Option<Revision> {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        reached.get(&organization).copied()
    }

    fn set_reached(&self, organizations: impl IntoIterator<Item = (OrganizationId, Revision)>) {
        let mut reached = self.reached.write().unwrap_or_else(PoisonError::into_inner);
        reached.extend(organizations);
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
        self.reached.write().unwrap_or_else(PoisonError::into_inner).clear();
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
                    self.forget();
                    self.anew.notify_one();
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
struct Batch {
    events: Vec<Indexed>,
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
                    Ok(()) => self.follow(&index, Reached::default()).await,
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
                        IndexError::Damaged(_) => Begin::Anew,
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
            self.activity.forget();
            self.activity.anew.notify_one();
        }
        kept
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
        self.follow(index, reached).await
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

    /// What an index of all that the store holds would be, up to where this one has read; none
    /// where that is another history.
    ///
    /// # Errors
    ///
    /// The index or the store could not be read.
    pub async fn activity_index_digest(
        &self,
        index: &Arc<dyn ActivityIndex>,
    ) -> Result<Option<IndexDigest>, FillError> {
        let Some((_, end)) = self.trusted(index).await? else { return Ok(None) };
        let (mut digest, mut heads, mut last) = (IndexDigest::default(), HashMap::new(), None);
        while last < end {
            let mut items = self.store.read_all(last, READ_EVENTS_MAX).await?;
            items.retain(|it| Some(place(it)) <= end);
            if items.is_empty() {
                break;
            }
            let batch = tell(items, &mut heads, &mut last);
            for Indexed { organization, revision, terms } in
                batch.into_iter().flat_map(|it| it.events)
            {
                digest.events += 1;
                terms.iter().for_each(|term| digest.add(organization, revision, *term));
            }
        }
        Ok(Some(digest))
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

async fn in_background<T: Send + 'static>(
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
fn tell(
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

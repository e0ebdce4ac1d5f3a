//! Holding the activity index against history.
//!
//! SQLite notices little of what befalls a file. An index that lost something hides it from
//! queries, and nothing that a query sees says so. So all that it holds is summed up, all that
//! history says is, and the two sums are compared: by `keyledger projections verify`, and by a
//! task of a running node, at a pace that leaves others room. What differs is not asked any more,
//! and made anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use projections::id::OrganizationId;
use projections::recorded::Revision;
use tokio::time::Instant;

use super::FillError;
use super::index::{ActivityIndex, Digesting, IndexDigest, IndexError, Indexed};
use super::indexing::{in_background, tell};
use crate::ledger::event_store::{Position, ReadError, place};
use crate::ledger::history::keeping::Pace;
use crate::ledger::{Ledger, READ_AGAIN};

/// How long after a check the next one begins. A check reads all history and all of the index,
/// so it is to be rare; and for about so long may damage hide something from filtered queries.
const CHECK_EVERY: Duration = Duration::from_hours(24);
/// An index that knows all but so many events has caught up: what it does not know is no longer
/// most of what there is to check.
const CAUGHT_UP_EVENTS: u64 = 10_000;
/// Events that one step tells: some milliseconds of work.
const STEP_EVENTS: usize = 1_024;
/// How much longer each half of a check rests than it works: both take a fifth of one thread.
const RESTS: u32 = 9;

/// What history says that an index holds.
#[derive(Default)]
struct Told {
    digest: IndexDigest,
    heads: HashMap<OrganizationId, Revision>,
    last: Option<Position>,
}

impl Ledger {
    /// Checks the index once it has caught up, and a day behind each check, for as long as it is
    /// the one that is kept. Where it differs, it is to be made anew.
    pub(super) async fn check_activity_index(&self, index: &Arc<dyn ActivityIndex>) -> Infallible {
        loop {
            while self.activity_index_behind() > CAUGHT_UP_EVENTS {
                tokio::time::sleep(READ_AGAIN).await;
            }
            let began = Instant::now();
            match self.activity_index_is_right(index, Pace::Resting).await {
                Ok(true) => {
                    let seconds = began.elapsed().as_secs();
                    tracing::info!(seconds, "the activity index is what history says");
                }
                Ok(false) => return self.replace_index("it is not what history says").await,
                Err(FillError::Index(IndexError::Damaged(what))) => {
                    return self.replace_index(&what).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the activity index could not be checked: the next check is in a day");
                }
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Never comes back: whoever follows the store ends, and what is checked with it.
    async fn replace_index(&self, what: &str) -> Infallible {
        tracing::error!(
            what,
            "the activity index is damaged, and may have hidden events from filtered queries: it is not asked any more, and made anew; look at the disk"
        );
        self.activity.found_damaged();
        std::future::pending().await
    }

    /// Whether an index holds what history says, up to where it had read when this began.
    ///
    /// # Errors
    ///
    /// The index could not be read, or, where somebody waits for it, the store.
    pub async fn activity_index_is_right(
        &self,
        index: &Arc<dyn ActivityIndex>,
        pace: Pace,
    ) -> Result<bool, FillError> {
        let begun = in_background(index, |index| index.begin_digest()).await?;
        if let Some(checkpoint) = &begun.checkpoint {
            let there = loop {
                match checkpoint.is_in(&*self.store).await {
                    Err(ReadError::Unavailable(_)) if pace == Pace::Resting => {
                        tokio::time::sleep(READ_AGAIN).await;
                    }
                    there => break there?,
                }
            };
            if !there {
                return Ok(false);
            }
        }
        let end = begun.checkpoint.as_ref().map(|it| it.position);
        let heads: HashMap<_, _> = begun.organizations.values().copied().collect();
        let held = async { Ok(held(index, begun, pace).await?) };
        let (held, told) = tokio::try_join!(held, self.told(end, pace))?;
        Ok((held, heads) == (told.digest, told.heads))
    }

    /// What an index holds that has read up to there.
    async fn told(&self, end: Option<Position>, pace: Pace) -> Result<Told, FillError> {
        let mut told = Told::default();
        while told.last < end {
            let began = Instant::now();
            let read = self.store.read_all(told.last, STEP_EVENTS).await.and_then(|items| {
                // What history itself does not say any more is no fault of the index. Whoever waits
                // for an answer is told of that elsewhere.
                let fails = |error: &ReadError| {
                    pace == Pace::Resting || matches!(error, ReadError::Unavailable(_))
                };
                let failed = items.iter().filter_map(|it| it.as_ref().err());
                let failed = failed.map(|(_, error)| error.clone()).find(fails);
                failed.map_or(Ok(items), Err)
            });
            let mut items = match read {
                Err(ReadError::Unavailable(_)) if pace == Pace::Resting => {
                    tokio::time::sleep(READ_AGAIN).await;
                    continue;
                }
                read => read?,
            };
            items.retain(|it| Some(place(it)) <= end);
            if items.is_empty() {
                break;
            }
            let telling = tokio::task::spawn_blocking(move || {
                let batch = tell(items, &mut told.heads, &mut told.last);
                let events = batch.into_iter().flat_map(|it| it.events);
                for Indexed { organization, revision, terms } in events {
                    told.digest.events += 1;
                    terms.iter().for_each(|term| told.digest.add(organization, revision, *term));
                }
                told
            });
            told = telling.await.map_err(|error| IndexError::Unavailable(error.to_string()))?;
            rest(pace, began).await;
        }
        Ok(told)
    }
}

/// What an index holds of what it held when this was begun.
async fn held(
    index: &Arc<dyn ActivityIndex>,
    mut digesting: Digesting,
    pace: Pace,
) -> Result<IndexDigest, IndexError> {
    loop {
        let began = Instant::now();
        let step = in_background(index, move |index| {
            let all = index.digest_on(&mut digesting)?;
            Ok((all, digesting))
        });
        let all;
        (all, digesting) = step.await?;
        if all {
            return Ok(digesting.digest);
        }
        rest(pace, began).await;
    }
}

async fn rest(pace: Pace, began: Instant) {
    if pace == Pace::Resting {
        tokio::time::sleep(began.elapsed() * RESTS).await;
    }
}

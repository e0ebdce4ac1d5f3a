//! One suite that holds every adapter to the contract of [`EventStore`].
//!
//! [`run`] carries out every check against an [`Adapter`] and says which musts are
//! broken. It is part of the library, hidden from its documentation, so that adapters
//! in other crates and their integration tests can run it.

use std::sync::Arc;
use std::time::Duration;

use projections::digest::LeafHash;
use projections::id::EventId;
use projections::recorded::{Recorded, Revision, StreamName};

use crate::ledger::event_store::{
    AppendError, EventStore, NewEvent, Position, Positioned, READ_EVENTS_MAX, ReadError, ReadItem,
    Subscription,
};
use crate::ledger::urgency::Urgency;

mod appending;
mod corruption;
mod filling;
mod reading;
mod reopening;
mod subscribing;

/// How long one check may take: a subscription that never gives its event must fail.
const CHECK_TIME_MAX: Duration = Duration::from_secs(60);

/// What the suite needs of an adapter.
pub trait Adapter: Send + Sync {
    /// The adapter's store.
    type Store: EventStore;

    /// Opens a store that holds no events.
    fn fresh(&self) -> impl Future<Output = Self::Store> + Send;

    /// Closes a store and opens it again with all that it held; none if the adapter
    /// keeps nothing.
    fn reopen(&self, store: Self::Store) -> impl Future<Output = Option<Self::Store>> + Send;

    /// Lets space run out, with what is set aside whole, or come back; false if the adapter
    /// cannot do that.
    fn set_full(&self, store: &Self::Store, full: bool) -> bool;

    /// Damages one stored event behind the store's back and gives the store, opened
    /// again if need be; none if the adapter cannot do that.
    fn damage(
        &self,
        store: Self::Store,
        damage: Damage,
        stream: &StreamName,
        revision: Revision,
    ) -> impl Future<Output = Option<Self::Store>> + Send;
}

/// A way to damage a stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Other bytes than were written.
    Stored,
    /// Another leaf hash than was written.
    LeafHash,
    /// Nothing is left of it.
    Missing,
}

/// A must that an adapter breaks, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl From<AppendError> for Violation {
    fn from(error: AppendError) -> Self {
        Self(format!("an append failed: {error}"))
    }
}

impl From<ReadError> for Violation {
    fn from(error: ReadError) -> Self {
        Self(format!("a read failed: {error}"))
    }
}

/// What came of one check.
pub type Verdict = Result<(), Violation>;

/// Returns a [`Violation`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::store::conformance::Violation(format!($($message)+)));
        }
    };
}
use ensure;

/// Runs every check and gives those that fail, each by its name.
pub async fn run<A: Adapter>(adapter: &A) -> Vec<(&'static str, Violation)> {
    let mut violations = Vec::new();
    macro_rules! check {
        ($($module:ident::$check:ident,)+) => {$(
            let verdict = tokio::time::timeout(CHECK_TIME_MAX, $module::$check(adapter)).await;
            let verdict = verdict.unwrap_or_else(|_| Err(Violation("it hangs".to_owned())));
            if let Err(violation) = verdict {
                violations.push((stringify!($check), violation));
            }
        )+};
    }
    check! {
        appending::revisions_are_dense,
        appending::the_expected_revision_must_hold,
        appending::calls_are_carried_out_in_the_order_they_are_made,
        appending::a_dropped_future_still_appends,
        appending::several_events_are_all_or_none,
        appending::a_failed_append_fails_alone,
        appending::limits_are_kept,
        appending::one_stream_has_one_winner_per_revision,
        appending::many_streams_are_written_at_once,
        filling::a_full_store_takes_what_is_urgent_alone,
        filling::appends_are_taken_again_once_there_is_space,
        reading::a_stream_is_read_in_pages,
        reading::nothing_is_behind_the_end,
        reading::no_page_is_longer_than_allowed,
        reading::all_streams_are_read_in_order,
        reading::positions_resume_a_read,
        reading::single_events_are_read_as_they_are_asked_for,
        subscribing::what_is_stored_comes_first_then_what_is_new,
        subscribing::nothing_is_lost_or_repeated_under_load,
        subscribing::a_dropped_wait_loses_nothing,
        reopening::everything_is_kept,
        corruption::damage_is_reported_and_hides_nothing_else,
    }
    violations
}

/// An event whose stored bytes tell its number and are about `bytes` long.
#[must_use]
pub fn event(number: u64, bytes: usize) -> NewEvent {
    let id = EventId::from_parts(number, u128::from(number));
    let head = format!(r#"{{"id":"{id}","type":"conformance","number":{number},"padding":""#);
    let padding = "x".repeat(bytes.saturating_sub(head.len() + 2));
    let stored: Arc<[u8]> = format!("{head}{padding}\"}}").into_bytes().into();
    let leaf_hash = LeafHash::of(&stored);
    NewEvent { id, event_type: "conformance", stored, leaf_hash }
}

/// Events by number, each of a usual length.
fn events(numbers: std::ops::Range<u64>) -> Vec<NewEvent> {
    numbers.map(|number| event(number, 300)).collect()
}

fn stream(name: &str) -> StreamName {
    StreamName::from_store(&format!("conformance-{name}"))
}

/// Appends one event at a time, checking each revision.
async fn fill(
    store: &impl EventStore,
    stream: &StreamName,
    numbers: std::ops::Range<u64>,
) -> Verdict {
    let mut last = None;
    for number in numbers {
        let written =
            store.append(stream, last, events(number..number + 1), Urgency::Normal).await?;
        ensure!(written == Revision::after(last), "revision {written} follows {last:?}");
        last = Some(written);
    }
    Ok(())
}

/// Ensures that what was recorded is what was written, from `first` on.
fn same(
    recorded: &[Recorded],
    stream: &StreamName,
    first: Revision,
    written: &[NewEvent],
) -> Verdict {
    ensure!(
        recorded.len() == written.len(),
        "`{stream}` gave {} events for {}",
        recorded.len(),
        written.len()
    );
    let mut revision = first;
    for (found, event) in recorded.iter().zip(written) {
        ensure!(found.revision == revision, "{} stands at {revision}", found.revision);
        ensure!(found.stream == *stream, "`{}` was read from `{stream}`", found.stream);
        ensure!(found.stored == event.stored, "other bytes at {revision} of `{stream}`");
        ensure!(found.leaf_hash == event.leaf_hash, "other hash at {revision} of `{stream}`");
        revision = revision.next();
    }
    Ok(())
}

/// Everything a store holds, in pages of `page`.
async fn all(
    store: &impl EventStore,
    mut after: Option<Position>,
    page: usize,
) -> Result<Vec<ReadItem>, ReadError> {
    let mut items: Vec<ReadItem> = Vec::new();
    loop {
        let more = store.read_all(after, page).await?;
        let Some(last) = more.last() else { return Ok(items) };
        after = Some(match last {
            Ok(positioned) => positioned.position,
            Err((position, _)) => *position,
        });
        items.extend(more);
    }
}

/// Everything a store holds, which must be undamaged.
async fn all_sound(
    store: &impl EventStore,
    after: Option<Position>,
    page: usize,
) -> Result<Vec<Positioned>, Violation> {
    all(store, after, page)
        .await?
        .into_iter()
        .map(|item| item.map_err(|(_, error)| error.into()))
        .collect()
}

/// The next event of a subscription, which must be undamaged.
async fn following(subscription: &mut dyn Subscription) -> Result<Positioned, Violation> {
    match subscription.next().await {
        Some(Ok(positioned)) => Ok(positioned),
        Some(Err((_, error))) => Err(error.into()),
        None => Err(Violation("a subscription ended before its store was closed".to_owned())),
    }
}

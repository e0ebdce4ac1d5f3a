//! One append, seen through to an outcome that is known.
//!
//! An answer that is lost says nothing. Before the append is tried again, the stream is
//! read back at the very places it would have taken: its own identifiers there mean that
//! it happened, another's that it never can. Only where there is nothing is the same
//! append sent again, with the same identifiers and the same expected revision, so that
//! the first, should it come late, and the second are one. Nothing is sent any more once
//! this node's leave to answer is over.

use std::time::Duration;

use eventstore::StreamState;
use projections::recorded::{Revision, StreamName};
use tokio::time::Instant;

use super::Inner;
use super::backoff::Backoff;
use super::fault::Fault;
use super::reading::REVISION_MAX;
use super::wire;
use crate::ledger::event_store::{AppendError, NewEvent};

/// How long an append is tried before it is said to be unavailable, or of unknown outcome.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// What stands at the places of an append.
enum Found {
    Ours,
    /// Another's, or less than all of ours.
    Others,
    Nothing,
}

/// Why an append has no acknowledgement.
pub(super) struct Unwritten {
    pub(super) error: AppendError,
    /// Nothing was written, and a part of it may be.
    pub(super) divisible: bool,
}

impl From<AppendError> for Unwritten {
    fn from(error: AppendError) -> Self {
        Self { error, divisible: false }
    }
}

/// How long an append is tried.
#[derive(Clone, Copy)]
struct Patience {
    until: Instant,
    /// No longer than this node has leave to answer.
    with_leave: bool,
}

impl Inner {
    /// Appends events, all or none, and gives the revision of the last.
    pub(super) async fn write(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
    ) -> Result<Revision, Unwritten> {
        let patience = Patience { until: Instant::now() + SETTLE_MAX, with_leave: true };
        self.write_with(stream, expected, events, patience).await
    }

    /// The same, with so much time to settle what is not known, and whether or not this node
    /// has leave to answer: that is how it asks for leave.
    pub(super) async fn write_within(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
        settle_max: Duration,
    ) -> Result<Revision, AppendError> {
        let patience = Patience { until: Instant::now() + settle_max, with_leave: false };
        let written = self.write_with(stream, expected, events, patience).await;
        written.map_err(|unwritten| unwritten.error)
    }

    fn is_over(&self, patience: Patience) -> bool {
        Instant::now() >= patience.until || (patience.with_leave && !self.may_answer())
    }

    async fn write_with(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
        patience: Patience,
    ) -> Result<Revision, Unwritten> {
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let first = first_after(expected);
        let last = first.and_then(|first| first.0.checked_add(count - 1));
        let Some((first, last)) = first.zip(last.filter(|last| *last <= REVISION_MAX)) else {
            // No stream is that long.
            return Err(self.wrong_revision(stream).await.into());
        };
        let mut backoff = Backoff::new();
        let mut sent = false;
        loop {
            let fault = match self.append_once(stream, expected, events).await {
                Ok(written) if written == last => return Ok(Revision(last)),
                Ok(_) => Fault::Nonsense("another revision than the append must have"),
                // After an attempt that may have happened, it may be our own events that
                // the stream ends with.
                Err(Fault::WrongRevision(current)) if !sent => {
                    let stream = stream.clone();
                    return Err(AppendError::WrongExpectedRevision { stream, current }.into());
                }
                Err(fault) => fault,
            };
            match &fault {
                Fault::Refused(what) if !sent && is_too_big(what) => {
                    tracing::warn!(%what, "the event store takes no append of this size: see `MaxAppendSize` in its settings");
                    let error = AppendError::Limits("the event store takes no append of this size");
                    return Err(Unwritten { error, divisible: true });
                }
                Fault::Refused(_) if !sent => {
                    let error = AppendError::Unavailable(fault.to_string());
                    return Err(Unwritten { error, divisible: true });
                }
                Fault::Denied | Fault::Deleted if !sent => {
                    return Err(AppendError::Unavailable(fault.to_string()).into());
                }
                // To append to no stream is to begin one: this was not said of the stream.
                Fault::NotSent(_) | Fault::NoStream => {}
                Fault::WrongRevision(_)
                | Fault::Refused(_)
                | Fault::Denied
                | Fault::Deleted
                | Fault::NoAnswer(_)
                | Fault::Nonsense(_) => sent = true,
            }
            if sent {
                match self.read_back(stream, first, events, patience).await {
                    Ok(Found::Ours) => return Ok(Revision(last)),
                    Ok(Found::Others) => return Err(self.wrong_revision(stream).await.into()),
                    // It may have failed on the revision that it expects.
                    Ok(Found::Nothing) => match self.last(stream).await {
                        Ok(last) if last.as_ref().map(|it| Revision(it.revision)) == expected => {}
                        Ok(_) if matches!(fault, Fault::WrongRevision(_)) => {
                            return Err(self.wrong_revision(stream).await.into());
                        }
                        Ok(_) | Err(_) => {}
                    },
                    Err(why) => return Err(AppendError::Unknown(why.to_string()).into()),
                }
            }
            let mut over = self.is_over(patience);
            if !over {
                backoff.wait().await;
                over = patience.with_leave && !self.may_answer();
            }
            if over {
                let what = fault.to_string();
                let error = match sent {
                    true => AppendError::Unknown(what),
                    false => AppendError::Unavailable(what),
                };
                return Err(error.into());
            }
        }
    }

    /// One call. It runs by itself: the client panics at answers that make no sense.
    async fn append_once(
        &self,
        stream: &StreamName,
        expected: Option<Revision>,
        events: &[NewEvent],
    ) -> Result<u64, Fault> {
        let expected =
            expected.map_or(StreamState::NoStream, |it| StreamState::StreamRevision(it.0));
        let options = self.connection.appending().stream_state(expected);
        let name = self.connection.named(stream.as_str());
        let proposed: Vec<_> = events.iter().map(wire::proposed).collect();
        let lent = self.connection.client();
        let deadline = self.connection.deadline;
        let call = self.runtime.spawn(async move {
            let append = lent.client.append_to_stream(name, &options, proposed);
            match tokio::time::timeout(deadline, append).await {
                Ok(Ok(written)) => Ok(written.next_expected_version),
                Ok(Err(error)) => Err(Fault::of(&error)),
                Err(_) => Err(Fault::NoAnswer("in time".to_owned())),
            }
        });
        let outcome = call.await.unwrap_or(Err(Fault::Nonsense("the client fails on it")));
        if outcome.as_ref().is_err_and(Fault::is_connection) {
            self.connection.renew(lent.generation);
        }
        outcome
    }

    /// What stands at the places of an append, as soon as the engine can be read.
    async fn read_back(
        &self,
        stream: &StreamName,
        first: Revision,
        events: &[NewEvent],
        patience: Patience,
    ) -> Result<Found, Fault> {
        let mut backoff = Backoff::new();
        loop {
            match self.raw_stream(stream, first, events.len()).await {
                Ok(found) if found.is_empty() => return Ok(Found::Nothing),
                Ok(found) => {
                    let ours = found.len() == events.len()
                        && found.iter().zip(events).zip(first.0..).all(|((found, event), at)| {
                            let leaf_hash = wire::recorded(stream, found).map(|it| it.leaf_hash);
                            found.revision == at
                                && found.id == wire::id(event)
                                && leaf_hash == Ok(event.leaf_hash)
                        });
                    return Ok(if ours { Found::Ours } else { Found::Others });
                }
                Err(fault) if self.is_over(patience) => return Err(fault),
                Err(_) => backoff.wait().await,
            }
        }
    }

    /// Says where a stream ends that does not end where it was expected to.
    async fn wrong_revision(&self, stream: &StreamName) -> AppendError {
        match self.last(stream).await {
            Ok(last) => AppendError::WrongExpectedRevision {
                stream: stream.clone(),
                current: last.map(|event| Revision(event.revision)),
            },
            Err(fault) => AppendError::Unavailable(fault.to_string()),
        }
    }
}

/// The place behind this one; none where there can be none.
pub(super) fn first_after(expected: Option<Revision>) -> Option<Revision> {
    match expected {
        None => Some(Revision::FIRST),
        Some(Revision(expected)) => expected.checked_add(1).map(Revision),
    }
}

fn is_too_big(what: &str) -> bool {
    what.to_ascii_lowercase().contains("append size")
}

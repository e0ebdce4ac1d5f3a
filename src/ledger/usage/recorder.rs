//! Writes what was counted into the usage streams, rolled up.
//!
//! Growth is bounded: a key is written at its first use, and then at most once in
//! [`HELD_BACK`], however often it is used. What cannot be written stays counted, beside
//! the key, and is written later.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::event::{KeyUses, UsageRecorded};
use projections::id::{KeyId, OrganizationId};
use projections::organization::Head as StreamHead;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Head, NOTED_MAX};
use crate::ledger::event_store::{AppendError, NewEvent, READ_EVENTS_MAX};
use crate::ledger::tables::IndexedKey;
use crate::ledger::urgency::Urgency;
use crate::ledger::{Ledger, LedgerError, may_write};

/// How often the recorder looks.
pub const EVERY: Duration = Duration::from_secs(10);
/// How long a key whose use was recorded is only counted on.
pub const HELD_BACK: Duration = Duration::from_secs(5 * 60);
/// Most keys in one event: about 50 KiB of the 64 that there are.
const KEYS_PER_EVENT: usize = 500;
/// Most keys that are taken up at once.
const KEYS_AT_ONCE: usize = 8_192;
/// Most organizations that are written at once.
const APPENDS_AT_ONCE: usize = 16;

/// Where a usage stream ends, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Place {
    /// Behind this event; at the beginning where it holds nothing.
    After(Option<StreamHead>),
    /// The stream is corrupt: nothing is written.
    Corrupt,
}

/// What the recorder knows of keys. Used by one task.
pub(in crate::ledger) struct Recorder {
    places: HashMap<OrganizationId, Place>,
    /// Keys that were recorded, and when they are to be looked at again: in that order.
    held_back: VecDeque<(Instant, Head)>,
    /// When all keys are to be looked through; none while every watched key is in a queue.
    look_through_at: Option<Instant>,
}

/// Uses taken from keys of one organization, to be written.
#[derive(Default)]
struct Taken {
    heads: Vec<Head>,
    uses: Vec<KeyUses>,
}

impl Taken {
    fn take(&mut self, head: Head, found: &IndexedKey) -> bool {
        let (uses, last) = (found.uses.take(), found.uses.last());
        let (1.., Some(last_used_at)) = (uses, last) else { return false };
        self.heads.push(head);
        self.uses.push(KeyUses { key_id: found.key.id, uses: uses.into(), last_used_at });
        true
    }
}

impl Recorder {
    pub(in crate::ledger) fn new(places: HashMap<OrganizationId, Place>) -> Self {
        Self { places, held_back: VecDeque::new(), look_through_at: None }
    }

    /// Writes what is due; at the end, all.
    pub(in crate::ledger) async fn record(
        &mut self,
        ledger: &Arc<Ledger>,
        now: Instant,
        end: bool,
    ) {
        let mut heads = Vec::new();
        // What cannot be written is put into the queue again, for the next time.
        for _ in 0..ledger.noted.keys.len() {
            let Some(head) = ledger.noted.keys.pop() else { break };
            heads.push(head);
            if heads.len() == KEYS_AT_ONCE {
                self.record_keys(ledger, std::mem::take(&mut heads), now).await;
            }
        }
        for _ in 0..self.held_back.len() {
            let due = self.held_back.pop_front_if(|(due, _)| end || *due <= now);
            let Some((_, head)) = due else { break };
            let idle = ledger.tables.index().at(head).is_none_or(|found| found.uses.release());
            if !idle {
                heads.push(head);
            }
            if heads.len() == KEYS_AT_ONCE {
                self.record_keys(ledger, std::mem::take(&mut heads), now).await;
            }
        }
        self.record_keys(ledger, heads, now).await;
        if ledger.noted.overflowed.swap(false, Ordering::Relaxed) {
            self.look_through_at.get_or_insert(now);
        }
        if self.look_through_at.is_some_and(|due| end || due <= now) {
            self.look_through(ledger, now).await;
        }
    }

    async fn record_keys(&mut self, ledger: &Arc<Ledger>, heads: Vec<Head>, now: Instant) {
        let mut taken: HashMap<OrganizationId, Taken> = HashMap::new();
        {
            let index = ledger.tables.index();
            for head in heads {
                if let Some(found) = index.at(head) {
                    let of = taken.entry(found.organization.id).or_default();
                    if !of.take(head, found) {
                        found.uses.release();
                    }
                }
            }
        }
        taken.retain(|_, it| !it.heads.is_empty());
        self.write(ledger, taken, now).await;
    }

    /// Looks through all keys: more were used than the queues hold.
    async fn look_through(&mut self, ledger: &Arc<Ledger>, now: Instant) {
        self.look_through_at = None;
        self.held_back.clear();
        for organization in ledger.tables.all() {
            let tables = Arc::clone(&organization.tables());
            let mut after: Option<KeyId> = None;
            loop {
                let mut taken = Taken::default();
                let mut looked_at = 0;
                {
                    let index = ledger.tables.index();
                    for key in tables.keys_after(after).take(KEYS_AT_ONCE) {
                        looked_at += 1;
                        after = Some(key.id);
                        let Some(found) = index.latest(&key.digest.blake3) else { continue };
                        if found.uses.waiting() {
                            taken.take(key.digest.blake3.head(), found);
                        } else {
                            found.uses.release();
                        }
                    }
                }
                if !taken.heads.is_empty() {
                    self.write(ledger, HashMap::from([(organization.id, taken)]), now).await;
                }
                if looked_at < KEYS_AT_ONCE {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Writes uses into the streams of their organizations, some at a time. What could not
    /// be written is put back.
    async fn write(
        &mut self,
        ledger: &Arc<Ledger>,
        taken: HashMap<OrganizationId, Taken>,
        now: Instant,
    ) {
        let mut writing = JoinSet::new();
        for (id, taken) in taken {
            if writing.len() == APPENDS_AT_ONCE {
                self.written(ledger, writing.join_next().await, now);
            }
            let place = self.places.get(&id).copied().unwrap_or(Place::After(None));
            let ledger = Arc::clone(ledger);
            writing.spawn(async move {
                let (place, written) = ledger.append_uses(id, place, &taken.uses).await;
                (id, taken, place, written)
            });
        }
        while !writing.is_empty() {
            self.written(ledger, writing.join_next().await, now);
        }
    }

    fn written(
        &mut self,
        ledger: &Ledger,
        joined: Option<Result<(OrganizationId, Taken, Place, usize), tokio::task::JoinError>>,
        now: Instant,
    ) {
        let Some(Ok((id, taken, place, written))) = joined else { return };
        self.places.insert(id, place);
        if place == Place::Corrupt {
            // They stay watched, so that nobody is told of them again.
            return;
        }
        let index = ledger.tables.index();
        for (number, (head, uses)) in taken.heads.iter().zip(&taken.uses).enumerate() {
            let due = if number < written {
                now + HELD_BACK
            } else {
                if let Some(found) = index.at(*head) {
                    found.uses.give_back(u32::try_from(uses.uses).unwrap_or_default());
                }
                // Tried again the next time.
                if ledger.noted.keys.push(*head).is_ok() {
                    continue;
                }
                now
            };
            if due > now && self.held_back.len() < NOTED_MAX {
                self.held_back.push_back((due, *head));
            } else {
                self.look_through_at.get_or_insert(now + HELD_BACK);
            }
        }
    }
}

impl Ledger {
    /// Appends uses to a usage stream; gives where it ends then, and how many were written.
    async fn append_uses(
        &self,
        id: OrganizationId,
        mut place: Place,
        uses: &[KeyUses],
    ) -> (Place, usize) {
        let mut written = 0;
        for keys in uses.chunks(KEYS_PER_EVENT) {
            let Place::After(head) = place else { break };
            match self.append_usage(id, head, keys).await {
                Ok(head) => place = Place::After(Some(head)),
                Err(LedgerError::Append(AppendError::WrongExpectedRevision { stream, .. })) => {
                    place = self.usage_place(id, &stream, head).await;
                    break;
                }
                Err(error) => {
                    tracing::debug!(organization = %id, %error, "usage is recorded later");
                    break;
                }
            }
            written += keys.len();
        }
        (place, written)
    }

    async fn append_usage(
        &self,
        id: OrganizationId,
        head: Option<StreamHead>,
        keys: &[KeyUses],
    ) -> Result<StreamHead, LedgerError> {
        let now = self.clock.check()?;
        let at = head.map_or(now, |head| head.at.max(now));
        let event = UsageRecorded { keys: keys.to_vec() }.into();
        may_write(&self.tables.operator().tables(), &event)?;
        let envelope = Envelope {
            id: self.ids.event(at),
            at,
            actor: Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: self.new_correlation_id(),
            causation_id: None,
            event,
            sealed: Vec::new(),
        };
        let (stored, leaf_hash) = envelope.encode()?;
        let event_type = envelope.event.event_type();
        let new = NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
        let (stream, expected) = (StreamName::usage(id), head.map(|head| head.revision));
        let append = self.store.append(&stream, expected, vec![new], Urgency::Normal);
        let revision = match append.await {
            Err(AppendError::Unknown(why)) => {
                let first = Revision::after(expected);
                self.settle(&stream, first, &[leaf_hash], why).await.map(|()| first)
            }
            known => known,
        };
        // Nothing is ever sent behind an append that is still under way.
        let revision = revision.inspect_err(|_| self.store.taken_back(&stream))?;
        Ok(StreamHead { revision, leaf_hash, at })
    }

    /// Finds the end of a usage stream, behind the place where it was thought to be.
    async fn usage_place(
        &self,
        id: OrganizationId,
        stream: &StreamName,
        mut head: Option<StreamHead>,
    ) -> Place {
        loop {
            let from = Revision::after(head.map(|head| head.revision));
            let Ok(recorded) = self.store.read_stream(stream, from, READ_EVENTS_MAX).await else {
                return Place::After(head);
            };
            if recorded.is_empty() {
                return Place::After(head);
            }
            for event in recorded {
                let envelope = match Envelope::decode(&event.stored) {
                    Ok(envelope) => envelope,
                    Err(fault) => {
                        if let Some(organization) = self.tables.organization(id) {
                            organization.damage_usage(fault.at(event.revision));
                        }
                        return Place::Corrupt;
                    }
                };
                let leaf_hash: LeafHash = event.leaf_hash;
                head = Some(StreamHead { revision: event.revision, leaf_hash, at: envelope.at });
            }
        }
    }
}

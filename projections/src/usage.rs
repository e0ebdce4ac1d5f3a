//! How often keys were used, and when last: the fold of one organization's usage stream.
//!
//! A stream of its own, beside the organization's: nothing in it is authority. If it is
//! corrupt nothing stops; when keys were last used is then unknown.

use imbl::OrdMap;

use crate::corrupt::{CorruptHistory, Fault};
use crate::digest::LeafHash;
use crate::envelope::Envelope;
use crate::event::{Event, UsageRecorded};
use crate::id::{KeyId, OrganizationId};
use crate::organization::Head;
use crate::recorded::Revision;
use crate::time::Timestamp;

/// How a key was used, as far as that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUsage {
    /// How often, all records together.
    pub uses: u64,
    /// When last.
    pub last_used_at: Timestamp,
}

/// The usage of one organization's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The organization.
    pub id: OrganizationId,
    head: Option<Head>,
    keys: OrdMap<KeyId, KeyUsage>,
}

impl Usage {
    /// The usage of an organization whose usage stream holds nothing.
    #[must_use]
    pub fn new(id: OrganizationId) -> Self {
        Self { id, head: None, keys: OrdMap::new() }
    }

    /// The usage behind this event: what it and those before it say is known elsewhere.
    #[must_use]
    pub fn behind(id: OrganizationId, head: Option<Head>) -> Self {
        Self { head, ..Self::new(id) }
    }

    /// How far the stream has been folded; none if it holds nothing.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// How this key was used; none if no use of it is recorded.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<KeyUsage> {
        self.keys.get(&id).copied()
    }

    /// Every key with a recorded use, in the order of their identifiers.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, KeyUsage)> {
        self.keys.iter().map(|(id, usage)| (*id, *usage))
    }

    /// Folds in one event as the store gives it, already read. One that was applied before
    /// changes nothing, if it is the same one; only the last one's hash is at hand to tell.
    pub fn apply_decoded(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: Result<Envelope, Fault>,
    ) -> Result<(), CorruptHistory> {
        let expected = Revision::after(self.head.map(|head| head.revision));
        if revision > expected {
            return Err(Fault::Gap { expected }.at(revision));
        }
        if revision < expected {
            return match self.head {
                Some(head) if head.revision == revision && head.leaf_hash != leaf_hash => {
                    Err(Fault::Rewritten.at(revision))
                }
                _ => Ok(()),
            };
        }
        let envelope = envelope.map_err(|fault| fault.at(revision))?;
        if self.head.is_some_and(|head| envelope.at < head.at) {
            return Err(Fault::TimeRunsBack.at(revision));
        }
        let Event::UsageRecorded(event) = &envelope.event else {
            return Err(Fault::Misplaced(envelope.event.event_type()).at(revision));
        };
        self.recorded(event);
        self.head = Some(Head { revision, leaf_hash, at: envelope.at });
        Ok(())
    }

    fn recorded(&mut self, event: &UsageRecorded) {
        for used in &event.keys {
            let before = self.keys.get(&used.key_id);
            let usage = KeyUsage {
                uses: before.map_or(0, |it| it.uses).saturating_add(used.uses),
                last_used_at: used
                    .last_used_at
                    .max(before.map_or(Timestamp::MIN, |it| it.last_used_at)),
            };
            self.keys.insert(used.key_id, usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{KeyDisabled, KeyUses};
    use crate::sample::{ACME, at, envelope, key_id};

    fn used(uses: &[(u8, u64, i64)]) -> Event {
        let keys = uses.iter().map(|(number, uses, at_ms)| KeyUses {
            key_id: key_id(*number),
            uses: *uses,
            last_used_at: at(*at_ms),
        });
        UsageRecorded { keys: keys.collect() }.into()
    }

    fn apply(usage: &mut Usage, revision: u64, at_ms: i64, event: Event) -> Result<(), Fault> {
        let envelope = envelope(at_ms, event);
        let leaf_hash = envelope.encode().unwrap().1;
        usage.apply_decoded(Revision(revision), leaf_hash, Ok(envelope)).map_err(|it| it.fault)
    }

    #[test]
    fn counts_add_up_and_the_last_use_is_the_latest() {
        let mut usage = Usage::new(ACME);
        apply(&mut usage, 0, 10, used(&[(1, 3, 9), (2, 1, 5)])).unwrap();
        apply(&mut usage, 1, 20, used(&[(1, 2, 7)])).unwrap();
        let first = KeyUsage { uses: 5, last_used_at: at(9) };
        let second = KeyUsage { uses: 1, last_used_at: at(5) };
        let keys: Vec<_> = usage.keys().collect();
        assert_eq!(keys, [(key_id(1), first), (key_id(2), second)]);
        assert_eq!(usage.key(key_id(3)), None);
        // A redelivery is known.
        apply(&mut usage, 1, 20, used(&[(1, 2, 7)])).unwrap();
        assert_eq!(usage.key(key_id(1)), Some(first));
    }

    #[test]
    fn what_does_not_belong_into_a_usage_stream_is_corrupt() {
        let mut usage = Usage::new(ACME);
        apply(&mut usage, 0, 10, used(&[(1, 3, 9)])).unwrap();
        let before = usage.clone();
        let gap = Fault::Gap { expected: Revision(1) };
        assert_eq!(apply(&mut usage, 2, 20, used(&[])), Err(gap));
        assert_eq!(apply(&mut usage, 0, 10, used(&[(1, 4, 9)])), Err(Fault::Rewritten));
        assert_eq!(apply(&mut usage, 1, 9, used(&[])), Err(Fault::TimeRunsBack));
        let other = KeyDisabled { key_id: key_id(1) }.into();
        assert_eq!(apply(&mut usage, 1, 20, other), Err(Fault::Misplaced("KeyDisabled")));
        assert_eq!(usage, before);
    }
}

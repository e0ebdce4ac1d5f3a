//! The fold of what befalls keys.

use std::sync::Arc;

use super::{Change, Organization};
use crate::corrupt::Fault;
use crate::digest::NameDigest;
use crate::envelope::Envelope;
use crate::event::{
    KeyCreated, KeyDisabled, KeyEnabled, KeyRelabelled, KeyRotated, KeyRotationEnded,
    RevocationReason,
};
use crate::id::KeyId;
use crate::key::{Key, KeyState};
use crate::principal::Owner;
use crate::recorded::Revision;
use crate::text::Name;
use crate::time::Timestamp;

/// The place of a key among those of its owner; none where it has none.
pub(super) fn owned(key: &Key) -> Option<(Owner, Timestamp, KeyId)> {
    let owner = key.owner().filter(|_| key.revocation().is_none())?;
    Some((owner, key.ends_for_good_at().unwrap_or(Timestamp::MAX), key.id))
}

impl Organization {
    pub(super) fn key_created(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyCreated,
    ) -> Result<Change, Fault> {
        if self.keys.contains_key(&event.key_id) {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let missing = Fault::MissingTarget(envelope.event.event_type());
        if event.owner.is_some_and(|owner| !self.knows(owner.principal()))
            || event.rotates.is_some_and(|before| !self.keys.contains_key(&before))
        {
            return Err(missing);
        }
        let key = Key::created(&mut self.shared, revision, envelope, event);
        self.put(key);
        self.keys_made += 1;
        self.names.insert(NameDigest::of(event.name.as_str()), event.key_id);
        Ok(Change::Key(event.key_id))
    }

    /// A key that was not revoked, to be changed.
    fn unrevoked(&self, envelope: &Envelope, id: KeyId) -> Result<Arc<Key>, Fault> {
        let key = self.keys.get(&id).filter(|key| key.revocation().is_none());
        key.cloned().ok_or_else(|| Fault::MissingTarget(envelope.event.event_type()))
    }

    pub(super) fn key_ended(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        id: KeyId,
        reason: RevocationReason,
    ) -> Result<Change, Fault> {
        let key = self.unrevoked(envelope, id)?;
        Ok(self.put_ended(envelope, &key, key.revoked(revision, envelope, reason)))
    }

    /// Puts the row of a key that is revoked from here on.
    fn put_ended(&mut self, envelope: &Envelope, key: &Key, row: Key) -> Change {
        self.release_name(key, envelope.at);
        self.revoked_keys += 1;
        self.put(row)
    }

    fn put(&mut self, row: Key) -> Change {
        let (id, end, owned) = (row.id, row.ends_for_good_at(), owned(&row));
        let before = self.keys.insert(id, Arc::new(row));
        let end_before = before.as_ref().and_then(|it| it.ends_for_good_at());
        if end_before != end {
            end_before.map(|before| self.ends.remove(&(before, id)));
            end.map(|end| self.ends.insert((end, id)));
        }
        let owned_before = before.as_deref().and_then(self::owned);
        if owned_before != owned {
            owned_before.map(|before| self.owned.remove(&before));
            owned.map(|owned| self.owned.insert(owned));
        }
        Change::Key(id)
    }

    /// A key takes a name, unless one has it that took the key's own place.
    fn take_name(&mut self, id: KeyId, name: &Name) {
        let place = NameDigest::of(name.as_str());
        let holder = self.names.get(&place).and_then(|id| self.keys.get(id));
        if !holder.is_some_and(|it| self.predecessors(it).any(|it| it.id == id)) {
            self.names.insert(place, id);
        }
    }

    /// A key lets go of its name: it is free, or again that of the key whose place this
    /// one took, if that one is still in force.
    pub(super) fn release_name(&mut self, key: &Key, at: Timestamp) {
        let place = NameDigest::of(key.name.as_str());
        if self.names.get(&place) != Some(&key.id) {
            return;
        }
        let heir = self
            .predecessors(key)
            .find(|it| it.id != key.id && it.name == key.name && it.state(at) == KeyState::Active)
            .map(|it| it.id);
        match heir {
            Some(heir) => self.names.insert(place, heir),
            None => self.names.remove(&place),
        };
    }

    pub(super) fn key_relabelled(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyRelabelled,
    ) -> Result<Change, Fault> {
        let key = self.unrevoked(envelope, event.key_id)?;
        if event.label.name != key.name {
            self.release_name(&key, envelope.at);
            // A key that is out of force has no name to itself, and takes nobody's.
            if key.state(envelope.at) == KeyState::Active {
                self.take_name(key.id, &event.label.name);
            }
        }
        Ok(self.put(key.relabelled(revision, &event.label)))
    }

    pub(super) fn key_rotated(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyRotated,
    ) -> Result<Change, Fault> {
        let key = self.unrevoked(envelope, event.key_id)?;
        let successor = self.keys.get(&event.successor);
        if successor.is_none_or(|it| it.predecessor() != Some(event.key_id)) {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        if key.rotation().is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        let row = key.rotated(revision, envelope, event);
        Ok(match row.revocation() {
            Some(_) => self.put_ended(envelope, &key, row),
            None => self.put(row),
        })
    }

    pub(super) fn key_rotation_ended(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyRotationEnded,
    ) -> Result<Change, Fault> {
        if self.unrevoked(envelope, event.key_id)?.rotation().is_none() {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        self.key_ended(revision, envelope, event.key_id, RevocationReason::Superseded)
    }

    pub(super) fn key_disabled(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyDisabled,
    ) -> Result<Change, Fault> {
        let key = self.unrevoked(envelope, event.key_id)?;
        if key.disabled().is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        self.release_name(&key, envelope.at);
        Ok(self.put(key.with_disabled(revision, envelope)))
    }

    pub(super) fn key_enabled(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &KeyEnabled,
    ) -> Result<Change, Fault> {
        let key = self.unrevoked(envelope, event.key_id)?;
        if key.disabled().is_none() {
            return Err(Fault::MissingTarget(envelope.event.event_type()));
        }
        self.take_name(key.id, &key.name);
        Ok(self.put(key.with_enabled(revision)))
    }
}

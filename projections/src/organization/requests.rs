//! Requests that were carried out, and for how long they are remembered.

use super::{Change, Organization, REQUEST_MEMORY_MS, RememberedRequest};
use crate::envelope::RequestStamp;
use crate::recorded::Revision;
use crate::time::Timestamp;

impl Organization {
    pub(super) fn remember(
        &mut self,
        stamp: RequestStamp,
        at: Timestamp,
        revision: Revision,
        outcome: Change,
    ) {
        // One request may cause several events; its outcome is what the first one made.
        if !self.requests.contains_key(&stamp.id) {
            self.requests
                .insert(stamp.id, RememberedRequest { content: stamp.content, outcome, revision });
            self.requests_by_age.insert((at, stamp.id));
        }
    }

    pub(super) fn forget_requests(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.requests_by_age.get_min().copied() {
            if at.saturating_add_millis(REQUEST_MEMORY_MS) > now {
                break;
            }
            self.requests_by_age.remove(&(at, id));
            self.requests.remove(&id);
        }
    }
}

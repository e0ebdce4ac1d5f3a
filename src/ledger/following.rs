//! What others write, noticed by a running ledger.
//!
//! One node serves at a time; yet an append of the one before it may come late, out of a
//! network that was cut, when this one has read history already. Nobody was told that it
//! happened, but it is history. So a ledger whose store others can write looks again and
//! again for events that its tables do not hold and that are not its own on their way, and
//! for damage that was done meanwhile.

use std::sync::Arc;
use std::time::Duration;

use projections::corrupt::Fault;
use projections::recorded::Recorded;

use super::Ledger;
use super::event_store::{Position, READ_EVENTS_MAX, ReadError};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

impl Ledger {
    /// Follows what others write, for as long as this is awaited.
    pub async fn follow_others(self: Arc<Self>) {
        let mut after = self.replayed_to;
        loop {
            tokio::time::sleep(EVERY).await;
            after = self.look_for_others(after).await;
        }
    }

    /// Reads what is behind this place, its own events too, and gives how far it came.
    pub(super) async fn look_for_others(&self, mut after: Option<Position>) -> Option<Position> {
        loop {
            // What cannot be read now is read at the next look.
            let Ok(batch) = self.store.read_all(after, READ_EVENTS_MAX).await else { return after };
            if batch.is_empty() {
                return after;
            }
            for item in batch {
                match item {
                    Ok(event) => {
                        self.notice(&event.recorded).await;
                        after = Some(event.position);
                    }
                    Err((_, ReadError::Unavailable(_))) => return after,
                    Err((position, error)) => {
                        self.notice_damage(error);
                        after = Some(position);
                    }
                }
            }
        }
    }

    async fn notice(&self, event: &Recorded) {
        if let Some(id) = event.stream.as_account() {
            return self.follow_account(id, event.revision).await;
        }
        let Some(id) = event.stream.as_organization() else { return };
        let Some(organization) = self.tables.organization(id) else { return };
        let known = organization.tables().revision() >= Some(event.revision);
        if known || organization.stopped().is_some() {
            return;
        }
        let Some(pipeline) = self.pipeline(id) else { return };
        if pipeline.claim_catch_up(event.revision) {
            tracing::warn!(organization = %id, revision = %event.revision, "another node has written: reading it");
            self.store.taken_back(&event.stream);
            self.catch_up(&pipeline.published).await;
            pipeline.recover();
        }
    }

    fn notice_damage(&self, error: ReadError) {
        let ReadError::Corrupt { stream, revision, what } = error else {
            return tracing::error!(%error, "stored history is damaged: the next start says whose");
        };
        let fault = Fault::Stored(what).at(revision);
        let of = |id| self.tables.organization(id);
        if let Some(organization) = stream.as_organization().and_then(of) {
            self.tables.stop(&organization, fault);
        } else if let Some(organization) = stream.as_usage().and_then(of) {
            organization.damage_usage(fault);
        } else {
            tracing::error!(%stream, %fault, "the next start stops at this stream");
        }
    }
}

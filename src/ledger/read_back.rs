//! What is kept, read back: events of commands, and keys of sealed data.

use projections::envelope::{Envelope, RequestStamp};
use projections::event::Event;
use projections::id::KeyId;
use projections::recorded::{Recorded, Revision};
use projections::sealed::Subject;

use super::event_store::ReadError;
use super::tables::Published;
use super::vault::{SubjectKeyState, VaultError};
use super::{Executed, Ledger};

impl Ledger {
    /// One event of an organization, as it was stored; none where the stream ends before.
    pub async fn event(
        &self,
        organization: &Published,
        revision: Revision,
    ) -> Result<Option<Recorded>, ReadError> {
        let found = self.store.read_stream(&organization.stream, revision, 1).await?;
        Ok(found.into_iter().next())
    }

    /// The keys that one request brought into force, from its first event on, and where.
    pub async fn keys_made(
        &self,
        organization: &Published,
        first: Revision,
        request: RequestStamp,
        keys_max: usize,
    ) -> Result<Vec<(KeyId, Revision)>, ReadError> {
        let recorded = self.store.read_stream(&organization.stream, first, keys_max).await?;
        let made = recorded.iter().map_while(|recorded| {
            let envelope = Envelope::decode(&recorded.stored).ok()?;
            let Event::KeyCreated(event) = envelope.event else { return None };
            (envelope.request == Some(request)).then_some((event.key_id, recorded.revision))
        });
        Ok(made.collect())
    }

    /// The keys that one command revoked, in the order of its events.
    pub async fn keys_ended(
        &self,
        organization: &Published,
        executed: &Executed,
    ) -> Result<Vec<KeyId>, ReadError> {
        let (Some(first), Some(last)) = (executed.first, executed.revision) else {
            return Ok(Vec::new());
        };
        let events = usize::try_from(last.0.saturating_sub(first.0)).unwrap_or_default() + 1;
        let recorded = self.store.read_stream(&organization.stream, first, events).await?;
        let ended = recorded.iter().filter_map(|recorded| {
            let envelope = Envelope::decode(&recorded.stored).ok()?;
            let Event::KeyRevoked(event) = envelope.event else { return None };
            Some(event.key_id)
        });
        Ok(ended.collect())
    }

    /// What the vault has for a subject.
    pub async fn subject_key(&self, subject: &Subject) -> Result<SubjectKeyState, VaultError> {
        self.vault.existing_subject_key(subject).await
    }
}

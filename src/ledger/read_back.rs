//! What is kept, read back: events of commands, and keys of sealed data.

use std::sync::Arc;

use projections::corrupt::Fault;
use projections::digest::LeafHash;
use projections::envelope::{Envelope, RequestStamp};
use projections::event::Event;
use projections::id::KeyId;
use projections::organization::Organization;
use projections::recorded::{Recorded, Revision, StreamName};
use projections::sealed::Subject;

use super::event_store::{AppendError, READ_EVENTS_MAX, ReadError};
use super::tables::Published;
use super::vault::{SubjectKeyState, VaultError};
use super::{Executed, Ledger, READ_AGAIN};

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

    /// What the vault has for many subjects, in their order.
    pub async fn subject_keys(
        &self,
        subjects: &[Subject],
    ) -> Result<Vec<SubjectKeyState>, VaultError> {
        match subjects {
            [] => Ok(Vec::new()),
            some => self.vault.existing_subject_keys(some).await,
        }
    }

    /// Finds out whether an append happened whose outcome got lost, by reading back. Where
    /// nothing stands at its places, it may still come: then the outcome stays unknown.
    pub(super) async fn settle(
        &self,
        stream: &StreamName,
        first: Revision,
        hashes: &[LeafHash],
        why: String,
    ) -> Result<(), AppendError> {
        loop {
            match self.store.read_stream(stream, first, hashes.len()).await {
                Ok(found) if found.iter().map(|it| it.leaf_hash).eq(hashes.iter().copied()) => {
                    return Ok(());
                }
                Ok(found) if found.is_empty() => return Err(AppendError::Unknown(why)),
                Ok(_) => {
                    let stream = stream.clone();
                    return Err(AppendError::WrongExpectedRevision { stream, current: None });
                }
                Err(ReadError::Corrupt { .. } | ReadError::Lost { .. }) => {
                    return Err(AppendError::Unknown(why));
                }
                Err(ReadError::Unavailable(_)) => tokio::time::sleep(READ_AGAIN).await,
            }
        }
    }

    /// Folds in what the store holds behind the published tables.
    pub(super) async fn catch_up(&self, published: &Arc<Published>) {
        loop {
            let mut tables = Organization::clone(&published.tables());
            let from = Revision::after(tables.revision());
            let recorded =
                match self.store.read_stream(&published.stream, from, READ_EVENTS_MAX).await {
                    Ok(recorded) if recorded.is_empty() => return,
                    Ok(recorded) => recorded,
                    Err(ReadError::Corrupt { revision, what, .. }) => {
                        return self.tables.stop(published, Fault::Stored(what).at(revision));
                    }
                    Err(ReadError::Lost { what, .. }) => {
                        return self.tables.stop(published, Fault::Stored(what).at(from));
                    }
                    Err(ReadError::Unavailable(_)) => {
                        tokio::time::sleep(READ_AGAIN).await;
                        continue;
                    }
                };
            for event in &recorded {
                match tables.apply(event) {
                    Ok(change) => self.tables.publish(published, change, Arc::new(tables.clone())),
                    Err(fault) => return self.tables.stop(published, fault),
                }
            }
        }
    }
}

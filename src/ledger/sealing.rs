//! What personal data is sealed under, before any event names it.

use projections::id::OrganizationId;
use projections::sealed::Subject;
use projections::text::CorrelationId;

use super::command::Order;
use super::event_store::AppendError;
use super::urgency::Urgency;
use super::vault::SubjectKey;
use super::{Ledger, LedgerError};

/// What personal data of one command is sealed with.
pub(super) type Sealing = (Subject, SubjectKey);

/// All that the personal data of one command is sealed with.
#[derive(Default)]
pub(super) struct Sealings {
    /// For what is around the command.
    pub(super) around: Option<Sealing>,
    /// For what is said of its subject, once it is known that it comes to pass.
    pub(super) about: Option<Sealing>,
}

impl Ledger {
    /// The key under which the command's personal data is sealed; durable before any
    /// event names it. An urgent command goes without rather than fail.
    pub(super) async fn sealing(
        &self,
        organization_id: OrganizationId,
        order: &Order,
    ) -> Result<Option<Sealing>, LedgerError> {
        if order.personal.0.is_empty() {
            return Ok(None);
        }
        let subject = Subject::organization_month(organization_id, self.clock.now());
        // Without its words an urgent command goes on; but for those that it rests on.
        if order.command.rests_on_its_words() {
            let key = match self.vault.cached_subject_key(&subject) {
                Some(key) => key,
                None => self.vault.obtain_subject_key(&subject, Urgency::Reserved).await?,
            };
            return Ok(Some((subject, key)));
        }
        self.seal_under(subject, order.command.urgency(), &order.correlation_id).await
    }

    /// The key under which what a command says of its subject is sealed. A command goes
    /// without it by no means: nobody could be told whom its events are about.
    pub(super) async fn sealing_about(
        &self,
        order: &Order,
    ) -> Result<Option<Sealing>, LedgerError> {
        let Some(about) = &order.about else { return Ok(None) };
        let subject = about.subject.clone();
        let key = match self.vault.cached_subject_key(&subject) {
            Some(key) => key,
            None => self.vault.obtain_subject_key(&subject, order.command.urgency()).await?,
        };
        Ok(Some((subject, key)))
    }

    /// The key of a subject, under which the personal data of one command is sealed.
    pub(super) async fn seal_under(
        &self,
        subject: Subject,
        urgency: Urgency,
        correlation_id: &CorrelationId,
    ) -> Result<Option<Sealing>, LedgerError> {
        let key = match self.vault.cached_subject_key(&subject) {
            Some(key) => Ok(key),
            // The vault may be on the same disk: it must not take for a command that will be
            // refused what the store gave up for urgent ones.
            None if self.store.is_full(urgency) => return Err(AppendError::Full.into()),
            None => self.vault.obtain_subject_key(&subject, urgency).await,
        };
        match key {
            Ok(key) => Ok(Some((subject, key))),
            // Who acted, on what and why stands in clear: to end access now is worth more
            // than the address it was asked from, or a comment.
            Err(error) if urgency == Urgency::Reserved => {
                tracing::error!(
                    %error, %subject, %correlation_id,
                    "the vault gives no key: an urgent command goes on without its comment and origin"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

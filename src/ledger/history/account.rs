//! An account as it was.

use std::sync::Arc;

use projections::account::Account;
use projections::envelope::Envelope;
use projections::id::{AccountId, SessionId};
use projections::recorded::{Recorded, Revision, StreamName};
use projections::time::Timestamp;

use super::PastError;
use crate::ledger::Ledger;
use crate::ledger::event_store::{READ_EVENTS_MAX, ReadError};

/// Most events of one account that are looked at: people change theirs a few times a day.
const ACCOUNT_EVENTS_MAX: u64 = 65_536;

impl Ledger {
    /// An account behind all that its stream recorded at this instant or before; none where
    /// there was none.
    ///
    /// # Errors
    ///
    /// Its history cannot be read, or is longer than one request may read.
    pub async fn past_account(
        &self,
        id: AccountId,
        at: Timestamp,
    ) -> Result<Option<Arc<Account>>, PastError> {
        // One that has been as it is since before need not be read.
        if let Ok(Some(found)) = self.accounts().find(id)
            && let Ok(account) = found.account()
            && account.head().is_some_and(|head| head.at <= at)
        {
            return Ok(Some(Arc::clone(&account)));
        }
        let account = self.fold_account(id, at, |_| ()).await?;
        Ok(account.head().is_some().then(|| Arc::new(account)))
    }

    /// The event of an account by which it had ended this session, which began at this epoch, at
    /// this instant; none where it had not.
    ///
    /// # Errors
    ///
    /// As [`Ledger::past_account`].
    pub async fn past_sessions_end(
        &self,
        id: AccountId,
        (session, epoch): (SessionId, u64),
        at: Timestamp,
    ) -> Result<Option<Revision>, PastError> {
        let mut ended = None;
        let look = |account: &Account| {
            let stands = account.stands(session, epoch) || account.epoch() < epoch;
            ended = if stands { None } else { ended.or(account.revision()) };
        };
        self.fold_account(id, at, look).await?;
        Ok(ended)
    }

    /// One event of an account, as it was stored; none where the stream ends before.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn account_event(
        &self,
        id: AccountId,
        revision: Revision,
    ) -> Result<Option<Recorded>, ReadError> {
        let found = self.store.read_stream(&StreamName::account(id), revision, 1).await?;
        Ok(found.into_iter().next())
    }

    /// Folds an account up to an instant, and looks at it behind each event.
    async fn fold_account(
        &self,
        id: AccountId,
        at: Timestamp,
        mut look: impl FnMut(&Account),
    ) -> Result<Account, PastError> {
        let stream = StreamName::account(id);
        let mut account = Account::new(id);
        loop {
            let from = Revision::after(account.revision());
            if from.0 >= ACCOUNT_EVENTS_MAX {
                return Err(PastError::WorkLimit);
            }
            let read = self.store.read_stream(&stream, from, READ_EVENTS_MAX).await?;
            if read.is_empty() {
                return Ok(account);
            }
            for recorded in read {
                let corrupt = |what: String| {
                    let (stream, revision) = (stream.clone(), recorded.revision);
                    ReadError::Corrupt { stream, revision, what }
                };
                let envelope = Envelope::decode(&recorded.stored)
                    .map_err(|fault| corrupt(fault.at(recorded.revision).to_string()))?;
                if envelope.at > at {
                    return Ok(account);
                }
                let applied = account.apply_next(&envelope, recorded.leaf_hash);
                applied.map_err(|fault| corrupt(fault.to_string()))?;
                look(&account);
            }
        }
    }
}

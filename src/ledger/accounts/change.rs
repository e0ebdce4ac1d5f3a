//! Changing an account.

use std::sync::Arc;

use projections::account::Account;
use projections::id::AccountId;
use projections::recorded::Revision;
use tokio::sync::OwnedMutexGuard;

use super::command::{AccountCommand, AccountOrder, HeldSession};
use super::decide::{self, Decided, Given};
use super::rejection::AccountRejection;
use super::{PublishedAccount, lock_of_account};
use crate::ledger::event_store::AppendError;
use crate::ledger::{DECISIONS_MAX, Ledger, LedgerError};

/// What came of a command of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountExecuted {
    /// The account. Where a creation is repeated, the one that the first made.
    pub account_id: AccountId,
    /// The first of the events that it caused in the account's stream; none where it caused
    /// none.
    pub first: Option<Revision>,
    /// The last event of the account's stream that says so.
    pub revision: Option<Revision>,
    /// It was carried out for an earlier request with the same idempotency key.
    pub repeat: bool,
}

/// An account that nobody else changes. See [`Ledger::hold_account`].
#[must_use]
pub struct HeldAccount(#[expect(dead_code, reason = "it is held")] OwnedMutexGuard<()>);

impl Ledger {
    /// Carries out a command of an account.
    ///
    /// `Ok` means that its events are on disk and in what readers see. Dropping the future
    /// does not undo what was begun.
    ///
    /// # Errors
    ///
    /// The rules refuse it, the account is stopped, or it could not be written.
    pub async fn change_account(
        self: &Arc<Self>,
        id: AccountId,
        command: AccountCommand,
        order: &AccountOrder,
    ) -> Result<AccountExecuted, LedgerError> {
        let _place = self.admission.acquire().await.map_err(|_| LedgerError::Closing)?;
        let account = self.accounts.find(id)?.ok_or(AccountRejection::AccountNotFound)?;
        let (ledger, order) = (Arc::clone(self), order.clone());
        // By itself: whoever gave the command may have gone.
        let change = tokio::spawn(async move { ledger.change(&account, command, &order).await });
        change.await.map_err(|_| LedgerError::Closing)?
    }

    async fn change(
        &self,
        published: &PublishedAccount,
        command: AccountCommand,
        order: &AccountOrder,
    ) -> Result<AccountExecuted, LedgerError> {
        let urgency = command.urgency();
        let sealing = if order.personal.0.is_empty() {
            None
        } else {
            self.account_sealing(published.id, order, urgency).await?
        };
        let writer = self.accounts.account_writers.lock(lock_of_account(published.id)).await?;
        for _ in 0..DECISIONS_MAX {
            let account = Account::clone(&*published.account()?);
            let now = account.no_earlier(self.clock.check()?);
            let given = Given {
                account: &account,
                now,
                session: order.session,
                in_force: self.in_force(order.session)?,
                request: order.request,
            };
            let executed = |first, revision, repeat| AccountExecuted {
                account_id: account.id,
                first,
                revision,
                repeat,
            };
            let events = match decide::change(&given, &command)? {
                Decided::Events(events) => events,
                Decided::Repeat(revision) => {
                    self.may_acknowledge(false)?;
                    return Ok(executed(None, Some(revision), true));
                }
                Decided::Nothing => {
                    self.may_acknowledge(false)?;
                    return Ok(executed(None, account.revision(), false));
                }
            };
            let events = events.into_iter().map(|event| (event, Some(&order.personal))).collect();
            let written = self.write(&account, events, now, order, sealing.as_ref(), urgency).await;
            match written {
                Ok(next) => {
                    let first = Some(Revision::after(account.revision()));
                    let executed = executed(first, next.revision(), false);
                    self.accounts.publish(next);
                    self.may_acknowledge(true)?;
                    drop(writer);
                    if command.ends_sessions() {
                        // What was decided on a session's being in force has landed.
                        drop(self.abroad.write().await);
                    }
                    return Ok(executed);
                }
                Err(LedgerError::Append(AppendError::WrongExpectedRevision { .. })) => {
                    self.read_account_again(&account).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LedgerError::Contended)
    }

    /// Keeps all others from changing an account, while something is kept for it that no event
    /// tells of. The session by which that is done is in force until this is let go of.
    ///
    /// # Errors
    ///
    /// There is no such account, the session was ended, or nobody knows.
    pub async fn hold_account(
        &self,
        id: AccountId,
        session: Option<HeldSession>,
    ) -> Result<HeldAccount, LedgerError> {
        let published = self.accounts.find(id)?.ok_or(AccountRejection::AccountNotFound)?;
        let writer = self.accounts.account_writers.lock(lock_of_account(id)).await?;
        let account = Account::clone(&*published.account()?);
        let now = account.no_earlier(self.clock.now());
        let in_force = self.in_force(session)?;
        Given { account: &account, now, session, in_force, request: None }.may_decide()?;
        Ok(HeldAccount(writer))
    }

    /// Publishes what the store holds of an account behind what is known; stops it where
    /// that is corrupt. Called by its one writer.
    pub(super) async fn read_account_again(&self, known: &Account) {
        match self.read_again(known).await {
            Ok(account) => {
                self.accounts.publish(account);
            }
            Err(fault) => self.accounts.stop(known.id, fault),
        }
    }
}

//! Creating an account: its e-mail is reserved, its stream is begun, the reservation is
//! confirmed.
//!
//! Each step is decided anew on what the two streams hold by then, so that whoever asks
//! again, or asks for the same e-mail, goes on where the last one stopped. INVARIANT: a
//! reservation is taken over only where its account did not come to be, by the store's own
//! word; and it is confirmed only by its expected revision. So an e-mail that was
//! confirmed leads to one account, and an account that came too late is nobody's.

use std::sync::Arc;

use projections::account::Account;
use projections::digest::EmailDigest;
use projections::email::Reservation;
use projections::event::{EmailConfirmed, EmailReleased, EmailReserved, Event};
use projections::id::AccountId;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;

use super::change::AccountExecuted;
use super::command::{AccountOrder, CreateAccount, EMAIL, NAME};
use super::decide::{self, Creating, Step};
use super::{lock_of_account, lock_of_email, stopped_at};
use crate::ledger::command::Personal;
use crate::ledger::event_store::AppendError;
use crate::ledger::urgency::Urgency;
use crate::ledger::{DECISIONS_MAX, Ledger, LedgerError};

impl Ledger {
    /// Creates an account.
    ///
    /// `Ok` means that it is there, and that its e-mail is its own. The same request again
    /// gives the same account. Dropping the future does not undo what was begun; what a
    /// crash cut short goes on with the next request for the e-mail, or is given up a minute
    /// later.
    ///
    /// # Errors
    ///
    /// The rules refuse it, above all because somebody has the e-mail; or it could not be
    /// written.
    pub async fn create_account(
        self: &Arc<Self>,
        draft: &CreateAccount,
        order: &AccountOrder,
    ) -> Result<AccountExecuted, LedgerError> {
        let _place = self.admission.acquire().await.map_err(|_| LedgerError::Closing)?;
        let (ledger, draft, order) = (Arc::clone(self), draft.clone(), order.clone());
        let create = tokio::spawn(async move { ledger.create(&draft, &order).await });
        create.await.map_err(|_| LedgerError::Closing)?
    }

    async fn create(
        &self,
        draft: &CreateAccount,
        order: &AccountOrder,
    ) -> Result<AccountExecuted, LedgerError> {
        let email = self.email_digest(&draft.email);
        let _writer = self.accounts.email_writers.lock(lock_of_email(email)).await?;
        let (mut reserved, mut confirmed) = (None, None);
        for _ in 0..DECISIONS_MAX {
            let reservation = self.accounts.reservation(email)?;
            let holder = match reservation.holder() {
                Some(holder) => self.holder(holder.account_id(), email).await?,
                None => None,
            };
            let existing = self.accounts.known(draft.account_id);
            let existing = existing.map(|it| it.account().map(|it| Arc::clone(&it))).transpose()?;
            let now = reservation.no_earlier(self.clock.check()?);
            let given = Creating {
                reservation: &reservation,
                holder: holder.as_ref(),
                existing: existing.as_deref(),
                account_id: draft.account_id,
                now,
                request: order.request,
            };
            let written = match decide::create(&given)? {
                Step::Reserve(account_id, until) => {
                    let event = EmailReserved { email, account_id, until };
                    reserved = Some(account_id);
                    self.write_email(&reservation, event.into(), now, order, Urgency::Normal).await
                }
                Step::Begin(account_id) => {
                    let begun = self.begin(account_id, email, draft, order).await;
                    if let Err(error) = &begun
                        && reserved == Some(account_id)
                        && was_never_written(error)
                    {
                        self.release(&reservation, account_id, now, order).await;
                    }
                    begun
                }
                // Begun is begun: its last step may use what is set aside.
                Step::Confirm(account_id) => {
                    let event = EmailConfirmed { email, account_id };
                    confirmed = Some(account_id);
                    self.write_email(&reservation, event.into(), now, order, Urgency::Reserved)
                        .await
                }
                Step::Done(account_id, first) => {
                    let repeat = confirmed != Some(account_id);
                    let revision = holder.as_ref().and_then(Account::revision);
                    let first = Some(first).filter(|_| !repeat);
                    self.may_acknowledge(reserved.is_some() || confirmed.is_some())?;
                    return Ok(AccountExecuted { account_id, first, revision, repeat });
                }
            };
            match written {
                Ok(()) => {}
                Err(LedgerError::Append(AppendError::WrongExpectedRevision { .. })) => {
                    self.read_email_again(&reservation).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LedgerError::Contended)
    }

    /// The account that has an e-mail, as its stream says by now. One that is not known to
    /// have come to be is asked of the store.
    async fn holder(
        &self,
        id: AccountId,
        email: EmailDigest,
    ) -> Result<Option<Account>, LedgerError> {
        if let Some(known) = self.accounts.known(id) {
            let account = Account::clone(&*known.account()?);
            if decide::is_created(&account, email) {
                return Ok(Some(account));
            }
        }
        let _writer = self.accounts.account_writers.lock(lock_of_account(id)).await?;
        self.read_account(id).await
    }

    /// The account as the store has it. Called by its one writer.
    async fn read_account(&self, id: AccountId) -> Result<Option<Account>, LedgerError> {
        let known = match self.accounts.known(id) {
            Some(known) => Account::clone(&*known.account()?),
            None => Account::new(id),
        };
        match self.read_again(&known).await {
            Ok(account) if account.revision().is_some() => {
                self.accounts.publish(account.clone());
                Ok(Some(account))
            }
            Ok(_) => Ok(None),
            Err(fault) => {
                self.accounts.stop(id, fault.clone());
                Err(stopped_at(StreamName::account(id), fault).into())
            }
        }
    }

    /// Reads an account's stream up to an event that another node has written.
    pub(in crate::ledger) async fn follow_account(&self, id: AccountId, revision: Revision) {
        let Ok(_writer) = self.accounts.account_writers.lock(lock_of_account(id)).await else {
            return;
        };
        let known = self.accounts.known(id);
        let seen = known.and_then(|it| it.account().ok()?.revision());
        if seen >= Some(revision) {
            return;
        }
        if let Err(error) = self.read_account(id).await {
            tracing::error!(%error, account = %id, "what another node has written of an account cannot be read");
        }
    }

    /// Begins an account's stream.
    async fn begin(
        &self,
        id: AccountId,
        email: EmailDigest,
        draft: &CreateAccount,
        order: &AccountOrder,
    ) -> Result<(), LedgerError> {
        let urgency = Urgency::Normal;
        let sealing = self.account_sealing(id, order, urgency).await?;
        let mut personal = order.personal.clone();
        personal.0.insert(EMAIL.to_owned(), draft.email.as_str().to_owned());
        personal.0.insert(NAME.to_owned(), draft.name.as_str().to_owned());
        let _writer = self.accounts.account_writers.lock(lock_of_account(id)).await?;
        let now = self.clock.check()?;
        let events = decide::begin(id, email, draft);
        // The first one tells of the person, and of where it was asked from.
        let whose = std::iter::once(Some(&personal)).chain(std::iter::repeat(None));
        let events = events.into_iter().zip(whose).collect();
        let none = Account::new(id);
        match self.write(&none, events, now, order, sealing.as_ref(), urgency).await {
            Ok(account) => {
                self.accounts.publish(account);
                Ok(())
            }
            Err(LedgerError::Append(AppendError::WrongExpectedRevision { .. })) => {
                // It was begun already: the next step is decided on that.
                self.read_account(id).await.map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    async fn write_email(
        &self,
        reservation: &Reservation,
        event: Event,
        at: Timestamp,
        order: &AccountOrder,
        urgency: Urgency,
    ) -> Result<(), LedgerError> {
        let next = self.write(reservation, vec![(event, None)], at, order, None, urgency).await?;
        self.accounts.publish_email(next);
        Ok(())
    }

    /// Publishes what the store holds of an e-mail behind what is known; stops it where
    /// that is corrupt. Called by its one writer.
    async fn read_email_again(&self, known: &Reservation) {
        match self.read_again(known).await {
            Ok(reservation) => self.accounts.publish_email(reservation),
            Err(fault) => self.accounts.stop_email(known.email, fault),
        }
    }

    /// Lets go of an e-mail whose account could not be begun. If that fails, time does it.
    async fn release(
        &self,
        reservation: &Reservation,
        account_id: AccountId,
        at: Timestamp,
        order: &AccountOrder,
    ) {
        let event = EmailReleased { email: reservation.email, account_id };
        let released =
            self.write_email(reservation, event.into(), at, order, Urgency::Reserved).await;
        if let Err(error) = released {
            tracing::debug!(%error, "an e-mail stays reserved until its time has come");
        }
    }

    /// Confirms the e-mail of every account whose creation a crash cut short behind its
    /// second step. What cannot be finished now is finished with the next request.
    pub(in crate::ledger) async fn finish_accounts(&self) {
        for email in self.accounts.unfinished() {
            if let Err(error) = self.finish_account(email).await {
                tracing::warn!(%error, "an account's creation cannot be finished now");
            }
        }
    }

    async fn finish_account(&self, email: EmailDigest) -> Result<(), LedgerError> {
        let _writer = self.accounts.email_writers.lock(lock_of_email(email)).await?;
        let reservation = self.accounts.reservation(email)?;
        let Some(holder) = reservation.holder() else { return Ok(()) };
        let account_id = holder.account_id();
        let account = self.holder(account_id, email).await?;
        let is_created = account.is_some_and(|it| decide::is_created(&it, email));
        if !is_created || reservation.confirmed().is_some() {
            return Ok(());
        }
        let order = AccountOrder {
            actor: Principal::Ledger,
            credential: None,
            session: None,
            request: None,
            correlation_id: self.new_correlation_id(),
            causation_id: None,
            personal: Personal::default(),
        };
        let now = reservation.no_earlier(self.clock.check()?);
        let event = EmailConfirmed { email, account_id };
        self.write_email(&reservation, event.into(), now, &order, Urgency::Reserved).await
    }
}

/// Whether an error means that the account's stream was certainly not begun.
fn was_never_written(error: &LedgerError) -> bool {
    match error {
        LedgerError::Append(error) => {
            matches!(error, AppendError::Full | AppendError::Limits(_))
        }
        LedgerError::Unstorable(_) | LedgerError::Seal(_) | LedgerError::Vault(_) => true,
        LedgerError::Rejected(_)
        | LedgerError::Account(_)
        | LedgerError::ClockAhead(_)
        | LedgerError::Stopped { .. }
        | LedgerError::StreamStopped(_)
        | LedgerError::NotActivated(_)
        | LedgerError::Held
        | LedgerError::NoContact
        | LedgerError::Contended
        | LedgerError::Closing => false,
    }
}

//! Which account has an e-mail: the fold of that e-mail's stream.
//!
//! An e-mail is reserved before the account that is to have it comes to be, and confirmed
//! once it has. A reservation that is not confirmed in time may be taken over by another
//! account: by the stream's own time, so that every reader agrees on whose it is.

use crate::account::follows;
use crate::corrupt::{CorruptHistory, Fault};
use crate::digest::{EmailDigest, LeafHash};
use crate::envelope::{Envelope, RequestStamp};
use crate::event::EmailFact;
use crate::id::AccountId;
use crate::organization::Head;
use crate::recorded::{Recorded, Revision};
use crate::snapshot::{Canonical, FORM, Malformed, Reader, row};
use crate::time::Timestamp;

/// Who has an e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An account that may be about to come to be.
    Reserved {
        /// The account.
        account_id: AccountId,
        /// The first instant at which another account may reserve it.
        until: Timestamp,
        /// The request that it was reserved for, where the caller named it.
        request: Option<RequestStamp>,
    },
    /// An account, for as long as it is not released.
    Confirmed(AccountId),
}

impl Holder {
    /// The account.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        match self {
            Self::Reserved { account_id, .. } | Self::Confirmed(account_id) => *account_id,
        }
    }
}

/// Who has one e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// What stands for the e-mail.
    pub email: EmailDigest,
    head: Option<Head>,
    holder: Option<Holder>,
}

impl Reservation {
    /// The reservation of an e-mail whose stream holds nothing.
    #[must_use]
    pub fn new(email: EmailDigest) -> Self {
        Self { email, head: None, holder: None }
    }

    /// The reservation of an e-mail that was confirmed for this account by the last event.
    #[must_use]
    pub fn confirmed_at(email: EmailDigest, account_id: AccountId, head: Head) -> Self {
        Self { email, head: Some(head), holder: Some(Holder::Confirmed(account_id)) }
    }

    /// How far the stream has been folded; none if it holds nothing.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The last revision folded.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.head.map(|head| head.revision)
    }

    /// Who has it; none where it is free. A reservation stays until another takes its
    /// place, even when its time has come.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// The account that has it for good; none where it is free or only reserved.
    #[must_use]
    pub fn confirmed(&self) -> Option<AccountId> {
        match self.holder {
            Some(Holder::Confirmed(id)) => Some(id),
            Some(Holder::Reserved { .. }) | None => None,
        }
    }

    /// This instant, but never one before the last event.
    #[must_use]
    pub fn no_earlier(&self, now: Timestamp) -> Timestamp {
        self.head.map_or(now, |head| head.at.max(now))
    }

    /// Folds in one event as the store gives it. False where it had been applied before;
    /// only the last one's hash is at hand to tell that it is the same.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<bool, CorruptHistory> {
        let envelope = Envelope::decode(&recorded.stored);
        self.apply_decoded(recorded.revision, recorded.leaf_hash, envelope)
    }

    /// As [`Reservation::apply`], for an event that was decoded elsewhere.
    pub fn apply_decoded(
        &mut self,
        revision: Revision,
        leaf_hash: LeafHash,
        envelope: Result<Envelope, Fault>,
    ) -> Result<bool, CorruptHistory> {
        if !follows(self.head, revision, leaf_hash)? {
            return Ok(false);
        }
        let envelope = envelope.map_err(|fault| fault.at(revision))?;
        self.apply_next(&envelope, leaf_hash)?;
        Ok(true)
    }

    /// Folds in the event that follows the last one, already read.
    pub fn apply_next(
        &mut self,
        envelope: &Envelope,
        leaf_hash: LeafHash,
    ) -> Result<(), CorruptHistory> {
        let revision = Revision::after(self.revision());
        if self.head.is_some_and(|head| envelope.at < head.at) {
            return Err(Fault::TimeRunsBack.at(revision));
        }
        self.holder = self.fold(envelope).map_err(|fault| fault.at(revision))?;
        self.head = Some(Head { revision, leaf_hash, at: envelope.at });
        Ok(())
    }

    /// Who has it behind this event.
    fn fold(&self, envelope: &Envelope) -> Result<Option<Holder>, Fault> {
        let event_type = envelope.event.event_type();
        let misplaced = Fault::Misplaced(event_type);
        let fact = EmailFact::of(&envelope.event).ok_or(misplaced.clone())?;
        if fact.email() != self.email {
            return Err(misplaced);
        }
        let account_id = fact.account_id();
        let has_it = self.holder.is_some_and(|holder| holder.account_id() == account_id);
        match fact {
            EmailFact::EmailReserved(it) => match self.holder {
                Some(Holder::Reserved { until, .. }) if until <= envelope.at => {
                    Ok(Some(reserved(envelope, account_id, it.until)))
                }
                None => Ok(Some(reserved(envelope, account_id, it.until))),
                Some(Holder::Reserved { .. } | Holder::Confirmed(_)) => {
                    Err(Fault::DuplicateTarget(event_type))
                }
            },
            EmailFact::EmailConfirmed(_) if self.confirmed().is_some() => {
                Err(Fault::DuplicateTarget(event_type))
            }
            EmailFact::EmailConfirmed(_) if has_it => Ok(Some(Holder::Confirmed(account_id))),
            EmailFact::EmailReleased(_) if has_it => Ok(None),
            EmailFact::EmailConfirmed(_) | EmailFact::EmailReleased(_) => {
                Err(Fault::MissingTarget(event_type))
            }
        }
    }
}

fn reserved(envelope: &Envelope, account_id: AccountId, until: Timestamp) -> Holder {
    Holder::Reserved { account_id, until, request: envelope.request }
}

row!(RequestStamp { id, content });
row!(Reservation { email, head, holder });

impl Canonical for Holder {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Reserved { account_id, until, request } => {
                out.push(1);
                account_id.write(out);
                until.write(out);
                request.write(out);
            }
            Self::Confirmed(account_id) => {
                out.push(2);
                account_id.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match u8::read(from)? {
            1 => Self::Reserved {
                account_id: Canonical::read(from)?,
                until: Canonical::read(from)?,
                request: Canonical::read(from)?,
            },
            2 => Self::Confirmed(Canonical::read(from)?),
            _ => return Err(Malformed("a holder is of an unknown kind")),
        })
    }
}

impl Reservation {
    /// The canonical bytes: equal for equal reservations, and different for others.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        self.write(&mut out);
        out
    }

    /// The reservation of these canonical bytes.
    ///
    /// # Errors
    ///
    /// They are none, or of another form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        if u8::read(from)? != FORM {
            return Err(Malformed("it has another form"));
        }
        let reservation = Self::read(from)?;
        from.end()?;
        Ok(reservation)
    }
}

#[cfg(test)]
mod tests;

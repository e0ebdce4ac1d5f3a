//! The streams of accounts and e-mails at the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use projections::account::Account;
use projections::corrupt::{CorruptHistory, Fault};
use projections::digest::EmailDigest;
use projections::email::{Holder, Reservation};
use projections::id::AccountId;
use projections::recorded::{Revision, StreamName};

use super::write::Fold;
use super::{Accounts, decide};
use crate::ledger::start::Arrived;

/// Accounts and e-mails while their streams are replayed.
#[derive(Default)]
pub(in crate::ledger) struct Replaying {
    accounts: HashMap<AccountId, Stream<Account>>,
    emails: HashMap<EmailDigest, Stream<Reservation>>,
}

/// Of a million streams: what is folded is shared with nobody, and published as it is.
struct Stream<F> {
    state: Arc<F>,
    fault: Option<Box<CorruptHistory>>,
    /// The last revision that the store gave, believed or not.
    seen: Option<Revision>,
    missing: u64,
    moved: bool,
}

impl<F: Fold> Stream<F> {
    /// A stream of which everything up to here is known.
    fn behind(state: F) -> Self {
        let seen = state.revision();
        Self { state: Arc::new(state), fault: None, seen, missing: 0, moved: false }
    }

    /// Nothing behind a fault is believed; nothing in front of it is forgotten.
    fn fold(&mut self, revision: Revision, arrived: Result<Arrived, Fault>) {
        self.missing += revision.0.saturating_sub(Revision::after(self.seen).0);
        self.seen = self.seen.max(Some(revision));
        self.moved = true;
        if self.fault.is_none() {
            let folded = arrived.map_err(|fault| fault.at(revision)).and_then(|it| {
                let state = Arc::make_mut(&mut self.state);
                state.apply_decoded(revision, it.leaf_hash, it.envelope)
            });
            self.fault = folded.err().map(Box::new);
        }
    }

    fn is_damaged(&self) -> bool {
        self.fault.is_some() || self.missing > 0
    }
}

/// How much was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct PublishedCounts {
    pub(in crate::ledger) accounts: u64,
    pub(in crate::ledger) stopped: u64,
}

impl Replaying {
    /// Begins behind what is known of an account.
    pub(in crate::ledger) fn account_behind(&mut self, account: Account) {
        self.accounts.insert(account.id, Stream::behind(account));
    }

    /// Begins behind what is known of an e-mail.
    pub(in crate::ledger) fn email_behind(&mut self, reservation: Reservation) {
        self.emails.insert(reservation.email, Stream::behind(reservation));
    }

    /// Folds in one event of an account, or the damage in its place.
    pub(in crate::ledger) fn fold_account(
        &mut self,
        id: AccountId,
        revision: Revision,
        arrived: Result<Arrived, Fault>,
    ) {
        let stream = self.accounts.entry(id);
        stream.or_insert_with(|| Stream::behind(Account::new(id))).fold(revision, arrived);
    }

    /// Folds in one event of an e-mail, or the damage in its place.
    pub(in crate::ledger) fn fold_email(
        &mut self,
        email: EmailDigest,
        revision: Revision,
        arrived: Result<Arrived, Fault>,
    ) {
        let stream = self.emails.entry(email);
        stream.or_insert_with(|| Stream::behind(Reservation::new(email))).fold(revision, arrived);
    }

    /// How many revisions the store did not give.
    pub(in crate::ledger) fn missing(&self) -> u64 {
        let accounts = self.accounts.values().map(|it| it.missing);
        accounts.chain(self.emails.values().map(|it| it.missing)).sum()
    }

    /// Whether any of the streams is.
    pub(in crate::ledger) fn is_damaged(&self) -> bool {
        self.accounts.values().any(Stream::is_damaged)
            || self.emails.values().any(Stream::is_damaged)
    }

    /// One of the streams; none where there are none.
    pub(in crate::ledger) fn any_stream(&self) -> Option<StreamName> {
        let account = self.accounts.keys().next().map(|id| StreamName::account(*id));
        account.or_else(|| self.emails.keys().next().map(|it| StreamName::email(*it)))
    }

    /// The accounts of which events were folded, and how far they are.
    pub(in crate::ledger) fn moved_accounts(&self) -> BTreeMap<AccountId, Revision> {
        let moved = self.accounts.iter().filter(|(_, it)| it.moved);
        moved.filter_map(|(id, it)| Some((*id, it.state.revision()?))).collect()
    }

    /// The e-mails of which events were folded, and how far they are.
    pub(in crate::ledger) fn moved_emails(&self) -> BTreeMap<EmailDigest, Revision> {
        let moved = self.emails.iter().filter(|(_, it)| it.moved);
        moved.filter_map(|(email, it)| Some((*email, it.state.revision()?))).collect()
    }

    /// Publishes what the replay came to.
    pub(in crate::ledger) fn publish(self, to: &Accounts) -> PublishedCounts {
        let accounts = self.accounts.len() as u64;
        for (id, stream) in self.accounts {
            to.publish_shared(stream.state);
            if let Some(fault) = stream.fault {
                to.stop(id, *fault);
            }
        }
        for (email, stream) in self.emails {
            let (holder, head) = (stream.state.holder(), stream.state.head());
            to.publish_email(Arc::unwrap_or_clone(stream.state));
            let account_id = holder.map(|it| it.account_id());
            let account = account_id.and_then(|id| to.known(id));
            let is_created =
                account.as_ref().is_some_and(|it| decide::is_created(&it.account.load(), email));
            let is_stopped = account.as_ref().is_some_and(|it| it.stopped().is_some());
            match (holder, stream.fault.map(|it| *it)) {
                (_, Some(fault)) => {
                    // It may have been confirmed: nobody knows whether it is an account.
                    let confirmed = matches!(holder, Some(Holder::Confirmed(_)));
                    if let Some(id) = account_id.filter(|_| !confirmed && is_created) {
                        to.stop(id, fault.clone());
                    }
                    to.stop_email(email, fault);
                }
                // Whoever has an e-mail is an account: its history is gone.
                (Some(Holder::Confirmed(id)), None) if !is_created && !is_stopped => {
                    let revision = head.map_or(Revision::FIRST, |head| head.revision);
                    to.stop(id, Fault::MissingTarget("EmailConfirmed").at(revision));
                }
                (Some(Holder::Reserved { .. }), None) if is_created => to.note_unfinished(email),
                (Some(Holder::Confirmed(_) | Holder::Reserved { .. }) | None, None) => {}
            }
        }
        PublishedCounts { accounts, stopped: to.stopped_count() }
    }
}

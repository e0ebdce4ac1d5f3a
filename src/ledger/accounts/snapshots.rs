//! Accounts and e-mails as snapshots keep them: in parts, each of which is written anew
//! when something in it moved.

use std::collections::{BTreeMap, BTreeSet};

use projections::account::Account;
use projections::digest::{EmailDigest, LeafHash};
use projections::email::Reservation;
use projections::id::AccountId;
use projections::organization::Head;
use projections::recorded::{Revision, StreamName};

use super::replay::Replaying;
use super::{Accounts, lock_of_account, lock_of_email};

/// How many parts there are: of a million accounts, each holds about a thousand.
const PARTS: u16 = 1_024;

/// One part.
pub(in crate::ledger) type Part = u16;

fn part(by: [u8; 2]) -> Part {
    u16::from_le_bytes(by) % PARTS
}

/// The parts that hold these.
pub(in crate::ledger) fn parts_of<'a>(
    accounts: impl Iterator<Item = &'a AccountId>,
    emails: impl Iterator<Item = &'a EmailDigest>,
) -> BTreeSet<Part> {
    let accounts = accounts.map(|id| part(lock_of_account(*id)));
    accounts.chain(emails.map(|email| part(lock_of_email(*email)))).collect()
}

/// The bytes of one part, and how many rows are in it.
pub(in crate::ledger) struct PartBytes {
    pub(in crate::ledger) rows: u64,
    pub(in crate::ledger) bytes: Vec<u8>,
}

impl Accounts {
    /// These parts as they are now. Looks at all accounts.
    pub(in crate::ledger) fn to_parts(&self, parts: &BTreeSet<Part>) -> BTreeMap<Part, PartBytes> {
        type Rows<K> = BTreeMap<Part, BTreeMap<K, Vec<u8>>>;
        let mut accounts: Rows<AccountId> = BTreeMap::new();
        for (id, published) in &self.accounts.pin() {
            let part = part(lock_of_account(*id));
            if parts.contains(&part) {
                let account = published.account.load();
                if account.revision().is_some() {
                    accounts.entry(part).or_default().insert(*id, account.to_canonical());
                }
            }
        }
        let mut emails: Rows<EmailDigest> = BTreeMap::new();
        for (email, row) in &self.emails.pin() {
            let part = part(lock_of_email(*email));
            if parts.contains(&part) {
                let row = row.reservation(*email).to_canonical();
                emails.entry(part).or_default().insert(*email, row);
            }
        }
        let bytes = |part: &Part| {
            let accounts = accounts.remove(part).unwrap_or_default();
            let emails = emails.remove(part).unwrap_or_default();
            let mut bytes = Vec::new();
            write_rows(accounts.values(), &mut bytes);
            write_rows(emails.values(), &mut bytes);
            (*part, PartBytes { rows: (accounts.len() + emails.len()) as u64, bytes })
        };
        parts.iter().map(bytes).collect()
    }

    /// Where these differ from others, stream by stream; what is only known to one of them
    /// differs.
    #[must_use]
    pub fn differing(&self, others: &Self) -> Vec<StreamName> {
        let (mine, theirs) = (self.by_stream(), others.by_stream());
        let names: BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
        names.into_iter().filter(|name| mine.get(*name) != theirs.get(*name)).cloned().collect()
    }

    /// The canonical bytes of each stream's row, and whether it is stopped, or an account
    /// for readers.
    fn by_stream(&self) -> BTreeMap<StreamName, (Vec<u8>, bool, bool)> {
        use std::sync::atomic::Ordering::Acquire;
        let (accounts, emails) = (self.accounts.pin(), self.emails.pin());
        let of_accounts = accounts.iter().map(|(id, it)| {
            let row = it.account.load().to_canonical();
            let of = (row, it.stopped().is_some(), it.confirmed.load(Acquire));
            (StreamName::account(*id), of)
        });
        let of_emails = emails.iter().map(|(email, it)| {
            let row = it.reservation(*email).to_canonical();
            (StreamName::email(*email), (row, it.stopped().is_some(), false))
        });
        of_accounts.chain(of_emails).collect()
    }
}

fn write_rows<'a>(rows: impl ExactSizeIterator<Item = &'a Vec<u8>>, out: &mut Vec<u8>) {
    out.extend((rows.len() as u64).to_le_bytes());
    for row in rows {
        out.extend((row.len() as u64).to_le_bytes());
        out.extend(row);
    }
}

/// What a part was read back to.
pub(in crate::ledger) struct ReadPart {
    accounts: Vec<Account>,
    emails: Vec<Reservation>,
}

impl ReadPart {
    /// From what [`Accounts::to_parts`] gave for this part; none where it is something else.
    pub(in crate::ledger) fn from_bytes(of: Part, rows: u64, mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let accounts = read_rows(from, |row| Account::from_canonical(row).ok())?;
        let emails = read_rows(from, |row| Reservation::from_canonical(row).ok())?;
        let whole = bytes.is_empty()
            && (accounts.len() + emails.len()) as u64 == rows
            && accounts.is_sorted_by(|a, b| a.id < b.id)
            && emails.is_sorted_by(|a, b| a.email < b.email)
            && accounts.iter().all(|it| part(lock_of_account(it.id)) == of && it.head().is_some())
            && emails.iter().all(|it| part(lock_of_email(it.email)) == of);
        whole.then_some(Self { accounts, emails })
    }

    /// Where the stream ends that was written last, of all in this part: the store must
    /// hold that event.
    pub(in crate::ledger) fn end(&self) -> Option<(StreamName, Revision, LeafHash)> {
        let end = |stream: StreamName, head: Option<Head>| head.map(|head| (stream, head));
        let accounts =
            self.accounts.iter().filter_map(|it| end(StreamName::account(it.id), it.head()));
        let emails =
            self.emails.iter().filter_map(|it| end(StreamName::email(it.email), it.head()));
        let last = accounts.chain(emails).max_by_key(|(_, head)| head.at);
        last.map(|(stream, head)| (stream, head.revision, head.leaf_hash))
    }

    /// Begins behind all of it.
    pub(in crate::ledger) fn put_into(self, replaying: &mut Replaying) {
        self.accounts.into_iter().for_each(|it| replaying.account_behind(it));
        self.emails.into_iter().for_each(|it| replaying.email_behind(it));
    }
}

fn read_rows<T>(from: &mut &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut rows = Vec::new();
    for _ in 0..number(from)? {
        let length = usize::try_from(number(from)?).ok()?;
        let (row, rest) = from.split_at_checked(length)?;
        *from = rest;
        rows.push(read(row)?);
    }
    Some(rows)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*taken))
}

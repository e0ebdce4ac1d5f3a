//! What was denied, on its way into history: one summary per organization and minute.
//!
//! Denials of a known credential go into the stream of its organization, all others into
//! the operator's. Whoever is denied waits for nothing but a short lock. What is kept is
//! bounded, whatever strangers do: denials that have all in common are one group, a key
//! has few groups, an organization a few hundred, and all organizations together
//! [`GROUPS_MAX`]. What finds no place is counted among the others, so that the sum over
//! all summaries is the number of denials, always.

mod code;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, hash_map};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use projections::event::{CountedDenial, Denial, DenialCode, DenialsSummarized};
use projections::id::OrganizationId;
use projections::principal::Credential;
use projections::time::Timestamp;
use projections::verification::Question;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) use code::{code, code_back};

use super::command::Command;
use super::rejection::Rejection;
use super::verify::Purpose;
use super::{Ledger, LedgerError};

/// Most groups in one summary.
pub const SUMMARY_GROUPS_MAX: usize = 100;
/// Least time between two summaries of one organization.
pub const SUMMARY_EVERY: Duration = Duration::from_secs(60);
/// How long the first denial of a quiet time waits for others.
const FIRST_AFTER: Duration = Duration::from_millis(250);
/// How long to wait before what could not be written is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often it is looked whether a summary is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most groups of one organization.
const ORGANIZATION_GROUPS_MAX: usize = 512;
/// Groups that every organization may have, however many others have.
const ORGANIZATION_GROUPS_ALWAYS: usize = 8;
/// Most groups of one party before they are thrown together by code.
const PARTY_GROUPS_MAX: usize = 8;
/// Most groups of all organizations, beside those they may always have.
pub const GROUPS_MAX: usize = 65_536;
/// Most summaries on their way at once.
const WRITES_MAX: usize = 32;
const SHARDS: usize = 64;
/// How many groups are looked at for one that makes room.
const CANDIDATES: usize = 8;

/// Whose groups they are, for fairness: the credential that was denied, or else the asking one.
type Party = Option<Credential>;

fn party(denial: &Denial) -> Party {
    denial.credential.or(denial.asked_with)
}

/// Denials that are not yet recorded.
pub struct Denials {
    shards: [Shard; SHARDS],
    hasher: RandomState,
    groups: AtomicUsize,
    organizations: AtomicUsize,
    first: Notify,
}

type Shard = Mutex<HashMap<OrganizationId, Waiting>>;

/// Those of one organization.
struct Waiting {
    counted: Counted,
    due: Instant,
}

#[derive(Default)]
struct Counted {
    groups: Vec<CountedDenial>,
    places: HashMap<Denial, usize>,
    parties: HashMap<Party, usize>,
    others: u64,
    /// When the first and the last of them were.
    span: Option<(Timestamp, Timestamp)>,
    turn: u64,
}

impl Denials {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            groups: AtomicUsize::new(0),
            organizations: AtomicUsize::new(0),
            first: Notify::new(),
        }
    }

    /// How many groups are kept now.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }

    fn shard(&self, id: OrganizationId) -> MutexGuard<'_, HashMap<OrganizationId, Waiting>> {
        let number = usize::from(self.hasher.hash_one(id).to_le_bytes()[0]) % SHARDS;
        let [first, ..] = &self.shards;
        // A panic leaves a map of counts whole.
        self.shards.get(number).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a denial for the summary of an organization.
    pub(super) fn count(&self, id: OrganizationId, denial: Denial, at: Timestamp) {
        let mut shard = self.shard(id);
        let waiting = self.waiting(&mut shard, id);
        waiting.counted.extend(at, at);
        waiting.counted.add(denial, 1, &self.groups);
    }

    fn waiting<'a>(
        &self,
        shard: &'a mut HashMap<OrganizationId, Waiting>,
        id: OrganizationId,
    ) -> &'a mut Waiting {
        match shard.entry(id) {
            hash_map::Entry::Occupied(entry) => entry.into_mut(),
            hash_map::Entry::Vacant(entry) => {
                self.organizations.fetch_add(1, Ordering::Relaxed);
                self.first.notify_one();
                let due = Instant::now() + FIRST_AFTER;
                entry.insert(Waiting { counted: Counted::default(), due })
            }
        }
    }

    /// Takes the summaries that are due; at the end, all.
    fn take(&self, now: Instant, end: bool) -> Vec<(OrganizationId, DenialsSummarized)> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|id, waiting| {
                if !end && waiting.due > now {
                    return true;
                }
                if waiting.counted.span.is_none() {
                    self.organizations.fetch_sub(1, Ordering::Relaxed);
                    return false;
                }
                waiting.due = now + SUMMARY_EVERY;
                taken.push((*id, std::mem::take(&mut waiting.counted)));
                true
            });
        }
        let summarized = taken.into_iter().filter_map(|(id, counted)| {
            self.groups.fetch_sub(counted.groups.len(), Ordering::Relaxed);
            Some((id, counted.summary()?))
        });
        summarized.collect()
    }

    /// Takes back a summary that could not be written.
    fn take_back(&self, id: OrganizationId, summary: DenialsSummarized) {
        let mut shard = self.shard(id);
        let waiting = self.waiting(&mut shard, id);
        waiting.due = Instant::now() + AGAIN_AFTER;
        let counted = &mut waiting.counted;
        counted.extend(summary.first_at, summary.last_at);
        counted.others = counted.others.saturating_add(summary.others);
        for group in summary.denials {
            counted.add(group.denial, group.count, &self.groups);
        }
    }
}

impl Counted {
    fn extend(&mut self, first: Timestamp, last: Timestamp) {
        let (before, after) = self.span.unwrap_or((first, last));
        self.span = Some((before.min(first), after.max(last)));
    }

    /// Counts denials with their like, in constant time.
    fn add(&mut self, denial: Denial, count: u64, all: &AtomicUsize) {
        if self.join(&denial, count) {
            return;
        }
        let mut denial = denial;
        if self.parties.get(&party(&denial)).is_some_and(|groups| *groups >= PARTY_GROUPS_MAX) {
            denial.service = None;
            if denial.credential.is_some() {
                denial.asked_with = None;
            }
            if self.join(&denial, count) {
                return;
            }
        }
        let place = if self.groups.len() < ORGANIZATION_GROUPS_MAX && self.may_grow(all) {
            all.fetch_add(1, Ordering::Relaxed);
            self.groups.len()
        } else {
            match self.make_room(count) {
                Some(place) => place,
                None => {
                    self.others = self.others.saturating_add(count);
                    return;
                }
            }
        };
        *self.parties.entry(party(&denial)).or_default() += 1;
        self.places.insert(denial.clone(), place);
        let group = CountedDenial { denial, count };
        match self.groups.get_mut(place) {
            Some(old) => *old = group,
            None => self.groups.push(group),
        }
    }

    fn may_grow(&self, all: &AtomicUsize) -> bool {
        self.groups.len() < ORGANIZATION_GROUPS_ALWAYS || all.load(Ordering::Relaxed) < GROUPS_MAX
    }

    /// Counts denials in the group that there is.
    fn join(&mut self, denial: &Denial, count: u64) -> bool {
        let group = self.places.get(denial).and_then(|place| self.groups.get_mut(*place));
        let Some(group) = group else { return false };
        group.count = group.count.saturating_add(count);
        true
    }

    /// Throws the smallest of a few groups, taken at random, among the others, unless it is
    /// larger than what wants its place.
    fn make_room(&mut self, count: u64) -> Option<usize> {
        if self.turn == 0 {
            self.turn = RandomState::new().hash_one(0) | 1;
        }
        let mut smallest: Option<(u64, usize)> = None;
        for _ in 0..CANDIDATES {
            // xorshift64: nobody gains by guessing it.
            self.turn ^= self.turn << 13;
            self.turn ^= self.turn >> 7;
            self.turn ^= self.turn << 17;
            let place = usize::try_from(self.turn >> 16).unwrap_or_default() % self.groups.len();
            if let Some(group) = self.groups.get(place) {
                let candidate = (group.count, place);
                smallest = Some(smallest.map_or(candidate, |it| it.min(candidate)));
            }
        }
        let (_, place) = smallest.filter(|(smallest, _)| *smallest <= count)?;
        let group = self.groups.get(place)?;
        self.others = self.others.saturating_add(group.count);
        self.places.remove(&group.denial);
        if let hash_map::Entry::Occupied(mut groups) = self.parties.entry(party(&group.denial)) {
            *groups.get_mut() -= 1;
            if *groups.get() == 0 {
                groups.remove();
            }
        }
        Some(place)
    }

    /// The summary: the largest groups, of each party at least one, as far as there is room.
    fn summary(self) -> Option<DenialsSummarized> {
        let (first_at, last_at) = self.span?;
        let mut groups = self.groups;
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.denial.cmp(&b.denial)));
        let mut ranks: BTreeMap<Party, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, CountedDenial)> = groups
            .into_iter()
            .map(|group| {
                let rank = ranks.entry(party(&group.denial)).or_default();
                *rank += 1;
                (*rank, group)
            })
            .collect();
        ranked.sort_by_key(|(rank, group)| (*rank, Reverse(group.count)));
        let rest = ranked.split_off(ranked.len().min(SUMMARY_GROUPS_MAX));
        let others = rest.iter().map(|(_, group)| group.count);
        let others = others.fold(self.others, u64::saturating_add);
        let mut denials: Vec<_> = ranked.into_iter().map(|(_, group)| group).collect();
        denials.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.denial.cmp(&b.denial)));
        Some(DenialsSummarized { first_at, last_at, denials, others })
    }
}

/// The code of a denial that the rules of writing made; none where they refuse for
/// another reason than who asks.
pub(super) fn rejected(rejection: &Rejection) -> Option<DenialCode> {
    if let Rejection::Item { source, .. } = rejection {
        return rejected(source);
    }
    if *rejection == Rejection::CallerNotInForce {
        return Some(DenialCode::NotInForce);
    }
    if matches!(rejection, Rejection::FeatureNotLicensed(_)) {
        return Some(DenialCode::FeatureNotLicensed);
    }
    if matches!(rejection, Rejection::MfaRequired(_)) {
        return Some(DenialCode::MfaRequired);
    }
    let is_for_who_asks = matches!(
        rejection,
        Rejection::PermissionDenied(_)
            | Rejection::PermissionNotHeld(_)
            | Rejection::EnvironmentNotHeld
            | Rejection::ServiceNotHeld
            | Rejection::PolicyLoosened
    );
    is_for_who_asks.then_some(DenialCode::PermissionDenied)
}

impl Ledger {
    /// Counts the denial of an answer, where it is one.
    pub(super) fn note_denial(
        &self,
        known: Option<(OrganizationId, Credential)>,
        code: DenialCode,
        question: &Question<'_>,
        purpose: Purpose,
    ) {
        let asked_with = match purpose {
            Purpose::Look => return,
            Purpose::Knock | Purpose::Enter | Purpose::Again | Purpose::Message => None,
            Purpose::Ask(credential) => Some(credential),
        };
        let denial = Denial {
            code,
            credential: known.map(|(_, credential)| credential),
            asked_with,
            service: question.service.and_then(|it| it.parse().ok()),
        };
        let id = known.map_or(OrganizationId::OPERATOR, |(id, _)| id);
        self.denials.count(id, denial, question.now);
    }

    /// Counts the denial of a credential that nobody knows, of a caller of the ledger itself.
    pub(super) fn count_unknown(&self, code: DenialCode) {
        let service = "keyledger".parse().ok();
        let denial = Denial { code, credential: None, asked_with: None, service };
        self.denials.count(OrganizationId::OPERATOR, denial, self.clock.now());
    }

    /// Counts a denial of a caller who was let in.
    pub fn note_denied_caller(&self, id: OrganizationId, credential: Credential, code: DenialCode) {
        let service = "keyledger".parse().ok();
        let denial = Denial { code, credential: Some(credential), asked_with: None, service };
        self.denials.count(id, denial, self.clock.now());
    }

    /// Writes summaries as they become due, until `end`; then all that is left.
    pub(super) async fn record_denials(self: Arc<Self>, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut writing = JoinSet::new();
        loop {
            let quiet = self.denials.organizations.load(Ordering::Relaxed) == 0;
            let wait = async {
                match quiet {
                    true => self.denials.first.notified().await,
                    false => tokio::time::sleep(LOOK_EVERY).await,
                }
            };
            let ended = tokio::select! {
                () = &mut end => true,
                () = wait => false,
            };
            for (id, summary) in self.denials.take(Instant::now(), ended) {
                while writing.len() >= WRITES_MAX {
                    writing.join_next().await;
                }
                writing.spawn(Arc::clone(&self).write_denials(id, summary));
            }
            while writing.try_join_next().is_some() {}
            if ended {
                break;
            }
        }
        while writing.join_next().await.is_some() {}
        // What the last writes could not write is lost now; say how much.
        let lost = self.denials.take(Instant::now(), true);
        for (id, summary) in lost {
            tracing::error!(organization = %id, denials = summary.total(), "denials could not be recorded");
        }
    }

    async fn write_denials(self: Arc<Self>, id: OrganizationId, summary: DenialsSummarized) {
        let command = Command::RecordDenials(summary.clone());
        match self.as_ledger(id, command).await {
            Ok(_) => {}
            Err(
                error @ (LedgerError::Stopped { .. }
                | LedgerError::Rejected(_)
                | LedgerError::Unstorable(_)),
            ) => {
                tracing::warn!(organization = %id, denials = summary.total(), %error, "denials are not recorded");
            }
            Err(error) => {
                tracing::debug!(organization = %id, %error, "denials are recorded later");
                self.denials.take_back(id, summary);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use projections::id::KeyId;

    use super::*;

    const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn organization(number: u64) -> OrganizationId {
        OrganizationId::from_parts(1, u128::from(number) + 1)
    }

    fn key(number: u64) -> Credential {
        KeyId::from_parts(1, u128::from(number) + 1).into()
    }

    fn denial(
        credential: Option<Credential>,
        asked_with: Option<Credential>,
        service: &str,
    ) -> Denial {
        Denial {
            code: DenialCode::Revoked,
            credential,
            asked_with,
            service: Some(service.parse().unwrap()),
        }
    }

    fn total(summaries: &[(OrganizationId, DenialsSummarized)]) -> u64 {
        summaries.iter().map(|(_, it)| it.total()).sum()
    }

    #[test]
    fn the_first_comes_at_once_and_others_once_a_minute() {
        let denials = Denials::new();
        let one = || denials.count(ACME, denial(Some(key(1)), None, "cdn"), at(5));
        let begin = Instant::now();
        one();
        assert!(denials.take(begin, false).is_empty(), "it waits for its like");
        one();
        let first_at = begin + Duration::from_secs(1);
        let first = denials.take(first_at, false);
        assert_eq!((first.len(), total(&first)), (1, 2), "within a second");
        one();
        let soon = first_at + SUMMARY_EVERY - Duration::from_millis(1);
        assert!(denials.take(soon, false).is_empty(), "no more than once a minute");
        let second_at = first_at + SUMMARY_EVERY;
        assert_eq!(total(&denials.take(second_at, false)), 1);
        assert!(denials.take(second_at + SUMMARY_EVERY, false).is_empty(), "a quiet minute");
        assert_eq!(denials.organizations.load(Ordering::Relaxed), 0, "it is forgotten");
        one();
        let again = Instant::now() + Duration::from_secs(1);
        assert_eq!(total(&denials.take(again, false)), 1, "and is the first again");
    }

    #[test]
    fn a_flood_of_a_million_different_denials_is_bounded_and_counted() {
        let denials = Denials::new();
        let mut summarized = 0;
        for number in 0..1_000_000_u64 {
            let id = organization(number % 2_000);
            denials.count(id, denial(Some(key(number)), Some(key(number % 7)), "cdn"), at(5));
            assert!(denials.groups() <= GROUPS_MAX + 2_000 * ORGANIZATION_GROUPS_ALWAYS);
            if number == 700_000 {
                // Some of it could not be written, and comes back.
                for (id, summary) in denials.take(Instant::now(), true) {
                    denials.take_back(id, summary);
                }
            }
            if number == 800_000 {
                summarized += total(&denials.take(Instant::now(), true));
                assert_eq!(denials.groups(), 0);
            }
        }
        let last = denials.take(Instant::now(), true);
        assert_eq!(summarized + total(&last), 1_000_000);
        assert_eq!(last.len(), 2_000);
        assert!(last.iter().all(|(_, it)| !it.denials.is_empty()), "everybody has something");
        assert!(last.iter().all(|(_, it)| it.denials.len() <= SUMMARY_GROUPS_MAX));
        assert_eq!(denials.groups(), 0);
    }

    #[test]
    fn one_organizations_flood_stays_among_its_own_groups() {
        let denials = Denials::new();
        for number in 0..100_000_u64 {
            denials.count(ACME, denial(Some(key(number)), None, "cdn"), at(5));
            // Somebody who goes on and on is not pushed out by those who come once.
            if number % 100 == 0 {
                denials.count(ACME, denial(Some(key(u64::MAX)), None, "cdn"), at(5));
            }
        }
        assert!(denials.groups() <= ORGANIZATION_GROUPS_MAX);
        let taken = denials.take(Instant::now(), true);
        assert_eq!(total(&taken), 101_000);
        let first = &taken[0].1.denials[0];
        assert_eq!(first.denial.credential, Some(key(u64::MAX)));
        assert!(first.count > 900, "{first:?}");
    }

    #[test]
    fn what_finds_no_place_is_counted_among_the_others() {
        let denials = Denials::new();
        // As many groups as there may be, each larger than what comes then.
        for number in 0..ORGANIZATION_GROUPS_MAX as u64 * 2 {
            let number = number % ORGANIZATION_GROUPS_MAX as u64;
            denials.count(ACME, denial(Some(key(number)), None, "cdn"), at(5));
        }
        for number in 0..1_000 {
            denials.count(ACME, denial(Some(key(10_000 + number)), None, "cdn"), at(5));
        }
        let taken = denials.take(Instant::now(), true);
        assert_eq!(total(&taken), ORGANIZATION_GROUPS_MAX as u64 * 2 + 1_000);
        assert!(taken[0].1.denials.iter().all(|it| it.count == 2), "nobody was pushed out");
    }

    #[test]
    fn no_key_has_all_the_groups() {
        let denials = Denials::new();
        // One key, asked about for a thousand services by a thousand keys; and ninety others.
        for number in 0..1_000_u64 {
            let service = format!("service-{number}");
            for _ in 0..10 {
                denials.count(ACME, denial(Some(key(0)), Some(key(number + 200)), &service), at(5));
            }
        }
        for number in 1..=90 {
            denials.count(ACME, denial(Some(key(number)), None, "cdn"), at(5));
        }
        // Credentials that nobody knows: the asking key stands for them.
        for number in 0..1_000_u64 {
            denials.count(ACME, denial(None, Some(key(100)), &format!("s{number}")), at(5));
        }
        let taken = denials.take(Instant::now(), true);
        let summary = &taken[0].1;
        assert_eq!(summary.total(), 10_000 + 90 + 1_000);
        let of = |number| {
            summary.denials.iter().filter(move |it| party(&it.denial) == Some(key(number)))
        };
        assert!((1..=90).all(|number| of(number).count() == 1), "{summary:?}");
        assert!(of(0).count() > 0 && of(100).count() > 0);
        assert!(of(0).count() <= PARTY_GROUPS_MAX + 1);
        // Thrown together, and not lost.
        let together = Denial {
            code: DenialCode::Revoked,
            credential: Some(key(0)),
            asked_with: None,
            service: None,
        };
        let together = summary.denials.iter().find(|it| it.denial == together).unwrap();
        assert_eq!(together.count, 10_000 - 10 * PARTY_GROUPS_MAX as u64);
    }

    #[test]
    fn whoever_floods_leaves_room_for_a_hundred() {
        let denials = Denials::new();
        for number in 0..300_u64 {
            for _ in 0..=number {
                denials.count(ACME, denial(Some(key(number)), None, "cdn"), at(5));
            }
        }
        let taken = denials.take(Instant::now(), true);
        let summary = &taken[0].1;
        let counts: Vec<u64> = summary.denials.iter().map(|it| it.count).collect();
        assert_eq!(counts, (201..=300).rev().collect::<Vec<_>>());
        assert_eq!(summary.others, (1..=200).sum::<u64>());
    }
}

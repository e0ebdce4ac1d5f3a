//! Who reads the history is history, too: recorded once for each question and minute of a
//! principal, by each credential that they show.
//!
//! To read is never refused for want of a record: whoever looks into what is going on must be
//! able to while a disk is full. What could not be recorded is said in the node's log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use projections::event::{HistoryRead, WayOfReading};
use projections::id::OrganizationId;
use projections::principal::{Credential, Principal};
use tokio::sync::watch;

use super::command::{Command, Order, Personal};
use super::{Ledger, LedgerError};

/// How many different questions of one reader in one minute are recorded one by one, for each
/// way of reading: what is asked in one way hides nothing that is asked in another.
const QUESTIONS_MAX: usize = 100;
const MINUTE_MS: i64 = 60_000;
/// How long a reader waits for the record, where the store does not say that it fails.
const RECORD_WITHIN: Duration = Duration::from_secs(5);

/// Of which organization the history is read, who reads it, with what, and in which way. Keys of
/// one organization are often one principal's and still in different hands.
type Reader = (OrganizationId, Principal, Option<Credential>, WayOfReading);
/// A question, in few bytes.
type Question = [u8; 16];
/// How a record ended, once it has.
type Ended = watch::Receiver<Option<Ending>>;

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It is on disk.
    Recorded,
    /// The store takes no events now.
    NotNow,
    /// Whoever reads may not.
    Refused,
}

/// What was asked in the minute that is now.
#[derive(Default)]
pub(super) struct Readings(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    number: i64,
    asked: HashMap<Reader, Asked>,
}

#[derive(Default)]
struct Asked {
    one_by_one: HashMap<Question, Ended>,
    more: Option<Ended>,
}

/// What is to be done about a question.
#[derive(Debug)]
enum Noted {
    /// It is recorded, or about to be.
    Known(Ended),
    /// To be recorded, and to be told how that ended.
    New(watch::Sender<Option<Ending>>),
    /// That there are more than are recorded one by one is to be recorded.
    More(watch::Sender<Option<Ending>>),
}

/// Whether it is recorded, or somebody is about to.
fn stands(ended: &Ended) -> bool {
    match *ended.borrow() {
        Some(Ending::Recorded) => true,
        Some(Ending::NotNow | Ending::Refused) => false,
        None => ended.has_changed().is_ok(),
    }
}

impl Readings {
    /// Takes note of a question. Who is told that it is new records it.
    fn note(&self, now_ms: i64, reader: Reader, question: Question) -> Noted {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now_ms.div_euclid(MINUTE_MS);
        if minute.number != number {
            *minute = Minute { number, asked: HashMap::new() };
        }
        let asked = minute.asked.entry(reader).or_default();
        let known = asked.one_by_one.get(&question);
        let one_of_many = known.is_none() && asked.one_by_one.len() >= QUESTIONS_MAX;
        let known = if one_of_many { asked.more.as_ref() } else { known };
        if let Some(ended) = known.filter(|it| stands(it)) {
            return Noted::Known(ended.clone());
        }
        let (ending, ended) = watch::channel(None);
        if one_of_many {
            asked.more = Some(ended);
            Noted::More(ending)
        } else {
            asked.one_by_one.insert(question, ended);
            Noted::New(ending)
        }
    }
}

/// What stands for a question: what in clear, and what sealed, where it came from included.
fn question(event: &HistoryRead, personal: &Personal) -> Question {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    for (field, value) in &event.asked {
        add(field.as_str());
        add(value);
    }
    add("");
    for (field, value) in &personal.0 {
        add(field);
        add(value);
    }
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    first
}

impl Ledger {
    /// Records a reading of an organization's history before it is answered, where the same
    /// question of the same reader is not recorded yet in this minute. More than 100 different
    /// ones in one way are recorded as one more that says so. A node remembers what it recorded
    /// itself, and forgets it with its end.
    ///
    /// Nothing is done for an order of another command than [`Command::RecordReading`]. What is
    /// sealed with it belongs to the question.
    ///
    /// A record that was begun is ended, whether or not anybody waits for it, and told to all who
    /// ask the same meanwhile.
    ///
    /// # Errors
    ///
    /// The caller may not read any more; or this node may not answer. That the store takes no
    /// events now, or none within 5 seconds, is no error: it is said in the node's log.
    pub async fn record_reading(
        self: &Arc<Self>,
        organization: OrganizationId,
        mut order: Order,
    ) -> Result<(), LedgerError> {
        let caller = order.caller;
        let principal = caller.principal(organization);
        let Command::RecordReading(event) = &mut order.command else { return Ok(()) };
        let way = event.way;
        let reader = (organization, principal, caller.credential(), way);
        let question = question(event, &order.personal);
        let noted = self.readings.note(self.clock.now().as_millis(), reader, question);
        let mut ended = match noted {
            Noted::Known(ended) => ended,
            Noted::New(ending) => self.begin_record(organization, order.clone(), ending),
            Noted::More(ending) => {
                *event = HistoryRead { way, asked: BTreeMap::new(), and_more: true };
                order.personal.0.remove(Personal::COMMENT);
                self.begin_record(organization, order.clone(), ending)
            }
        };
        let ending = ended.wait_for(Option::is_some);
        match tokio::time::timeout(RECORD_WITHIN, ending).await.map(|it| it.map(|it| *it)) {
            Ok(Ok(Some(Ending::Refused))) => {
                // Why, to each by themself.
                self.execute(organization, &order).await.map(drop)
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(LedgerError::Closing),
            Err(_) => {
                tracing::warn!(%organization, %principal, ?way, "a reading of the history could not be recorded in time");
                Ok(())
            }
        }
    }

    /// Records it in the background.
    fn begin_record(
        self: &Arc<Self>,
        organization: OrganizationId,
        order: Order,
        ending: watch::Sender<Option<Ending>>,
    ) -> Ended {
        let (this, ended) = (Arc::clone(self), ending.subscribe());
        tokio::spawn(async move {
            let how = match this.execute(organization, &order).await {
                Ok(_) => Ending::Recorded,
                Err(
                    error @ (LedgerError::Append(_)
                    | LedgerError::Vault(_)
                    | LedgerError::ClockAhead(_)
                    | LedgerError::NotActivated(_)
                    | LedgerError::Held
                    | LedgerError::Contended),
                ) => {
                    let principal = order.caller.principal(organization);
                    tracing::warn!(%organization, %principal, %error, "a reading of the history could not be recorded");
                    Ending::NotNow
                }
                Err(_) => Ending::Refused,
            };
            ending.send_replace(Some(how));
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
    const ADA: Reader = (ACME, Principal::Ledger, None, WayOfReading::Queried);

    /// What is to be done about it, and how that ends.
    fn noted(
        readings: &Readings,
        at: i64,
        reader: Reader,
        asked: u8,
        ending: Ending,
    ) -> &'static str {
        let (name, to) = match readings.note(at, reader, [asked; 16]) {
            Noted::Known(_) => return "nothing",
            Noted::New(ending) => ("question", ending),
            Noted::More(ending) => ("more", ending),
        };
        to.send_replace(Some(ending));
        name
    }

    #[test]
    fn a_question_is_recorded_once_a_minute_and_very_many_are_summed_up() {
        let readings = Readings::default();
        let bob = (ACME, Principal::Organization(ACME), None, WayOfReading::Queried);
        let exporting = (ACME, Principal::Ledger, None, WayOfReading::Exported);
        let note = |at, of, asked| noted(&readings, at, of, asked, Ending::Recorded);
        assert_eq!(note(0, ADA, 1), "question");
        assert_eq!(note(59_999, ADA, 1), "nothing");
        assert_eq!(note(59_999, ADA, 2), "question");
        assert_eq!(note(59_999, bob, 1), "question");
        for asked in 1..=100 {
            assert_eq!(note(60_000, ADA, asked), "question");
        }
        assert_eq!(note(60_001, ADA, 101), "more");
        assert_eq!(note(60_002, ADA, 102), "nothing");
        assert_eq!(note(60_003, ADA, 1), "nothing");
        assert_eq!(note(60_003, bob, 101), "question");
        assert_eq!(note(60_004, exporting, 101), "question", "no way hides another");
        assert_eq!(note(120_000, ADA, 101), "question");
    }

    #[test]
    fn what_could_not_be_recorded_is_to_be_recorded_still() {
        let readings = Readings::default();
        for ending in [Ending::NotNow, Ending::Refused] {
            assert_eq!(noted(&readings, 0, ADA, 1, ending), "question", "again");
        }
        // Whoever records it is gone, and said nothing.
        let Noted::New(ending) = readings.note(0, ADA, [1; 16]) else { panic!("new") };
        assert!(matches!(readings.note(0, ADA, [1; 16]), Noted::Known(_)), "it is about to be");
        drop(ending);
        assert_eq!(noted(&readings, 0, ADA, 1, Ending::Recorded), "question");
        assert_eq!(noted(&readings, 0, ADA, 1, Ending::Recorded), "nothing");
    }

    #[test]
    fn questions_differ_in_all_that_is_asked_and_in_where_they_come_from() {
        let ask = |asked: &[(&str, &str)], personal: &[(&str, &str)]| {
            let field = |(field, value): &(&str, &str)| (field.parse().unwrap(), (*value).into());
            let asked = asked.iter().map(field).collect();
            let event = HistoryRead { way: WayOfReading::Queried, asked, and_more: false };
            let personal = personal.iter().map(|(field, value)| ((*field).into(), (*value).into()));
            question(&event, &Personal(personal.collect()))
        };
        let all = [
            ask(&[], &[]),
            ask(&[("a", "b")], &[]),
            ask(&[("a", "bc")], &[]),
            ask(&[("a", "b"), ("c", "d")], &[]),
            ask(&[("a", "b")], &[("comment", "c")]),
            ask(&[("a", "b")], &[("comment", "d")]),
            ask(&[("a", "b")], &[("origin_ip", "c")]),
            ask(&[], &[("a", "b")]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}

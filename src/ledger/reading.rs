//! Who reads the history is history, too: recorded once for each question and minute of a
//! principal, by each credential that they show.
//!
//! To read is never refused for want of a record: whoever looks into what is going on must be
//! able to while a disk is full. What could not be recorded is said in the node's log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use projections::event::HistoryRead;
use projections::id::OrganizationId;
use projections::principal::{Credential, Principal};
use tokio::sync::OnceCell;

use super::command::{Command, Order, Personal};
use super::{Ledger, LedgerError};

/// How many different questions of one reader in one minute are recorded one by one.
const QUESTIONS_MAX: usize = 100;
const MINUTE_MS: i64 = 60_000;

/// Of which organization the history is read, who reads it, and with what. Keys of one
/// organization are often one principal's and still in different hands.
type Reader = (OrganizationId, Principal, Option<Credential>);
/// A question, in few bytes.
type Question = [u8; 16];
/// Full when what it stands for is recorded. Who asks the same meanwhile waits for it.
type Recorded = Arc<OnceCell<()>>;

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
    one_by_one: HashMap<Question, Recorded>,
    more: Recorded,
}

/// What is to be recorded of a reading, if it is not yet.
#[derive(Clone, Debug)]
enum Record {
    /// The question.
    Question(Recorded),
    /// That there are more than are recorded one by one.
    More(Recorded),
}

impl Readings {
    /// Takes note of a question.
    fn note(&self, now_ms: i64, reader: Reader, question: Question) -> Record {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now_ms.div_euclid(MINUTE_MS);
        if minute.number != number {
            *minute = Minute { number, asked: HashMap::new() };
        }
        let asked = minute.asked.entry(reader).or_default();
        if let Some(recorded) = asked.one_by_one.get(&question) {
            Record::Question(Arc::clone(recorded))
        } else if asked.one_by_one.len() < QUESTIONS_MAX {
            Record::Question(Arc::clone(asked.one_by_one.entry(question).or_default()))
        } else {
            Record::More(Arc::clone(&asked.more))
        }
    }
}

/// What stands for a question: in which way, what in clear and what sealed.
fn question(event: &HistoryRead, wrote: &str) -> Question {
    let HistoryRead { way, asked, and_more: _ } = event;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[*way as u8]);
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    for (field, value) in asked {
        add(field.as_str());
        add(value);
    }
    add(wrote);
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    first
}

impl Ledger {
    /// Records a reading of an organization's history before it is answered, where the same
    /// question of the same reader is not recorded yet in this minute. More than 100 different
    /// ones are recorded as one more that says so. A node remembers what it recorded itself,
    /// and forgets it with its end.
    ///
    /// Nothing is done for an order of another command than [`Command::RecordReading`]. Its
    /// comment belongs to the question, and is sealed.
    ///
    /// # Errors
    ///
    /// The caller may not read any more; or this node may not answer. That the store takes no
    /// events now is no error: it is said in the node's log.
    pub async fn record_reading(
        self: &Arc<Self>,
        organization: OrganizationId,
        mut order: Order,
    ) -> Result<(), LedgerError> {
        let caller = order.caller;
        let reader = (organization, caller.principal(organization), caller.credential());
        let personal = &mut order.personal.0;
        let Command::RecordReading(event) = &mut order.command else { return Ok(()) };
        let wrote = personal.get(Personal::COMMENT).map_or("", String::as_str);
        let asked = question(event, wrote);
        let recorded = match self.readings.note(self.clock.now().as_millis(), reader, asked) {
            Record::Question(recorded) => recorded,
            Record::More(recorded) => {
                *event = HistoryRead { way: event.way, asked: BTreeMap::new(), and_more: true };
                personal.remove(Personal::COMMENT);
                recorded
            }
        };
        let way = event.way;
        let record = || async { self.execute(organization, &order).await.map(drop) };
        match recorded.get_or_try_init(record).await {
            Ok(()) => Ok(()),
            Err(
                error @ (LedgerError::Append(_)
                | LedgerError::Vault(_)
                | LedgerError::ClockAhead(_)
                | LedgerError::NotActivated(_)
                | LedgerError::Held
                | LedgerError::Contended),
            ) => {
                let principal = reader.1;
                tracing::warn!(%organization, %principal, ?way, %error, "a reading of the history could not be recorded");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use projections::event::WayOfReading;

    use super::*;

    /// What is to be recorded, and whether it is the first time that it is told.
    fn noted(readings: &Readings, at: i64, reader: Reader, asked: u8) -> &'static str {
        let (name, recorded) = match readings.note(at, reader, [asked; 16]) {
            Record::Question(recorded) => ("question", recorded),
            Record::More(recorded) => ("more", recorded),
        };
        if recorded.set(()).is_ok() { name } else { "nothing" }
    }

    #[test]
    fn a_question_is_recorded_once_a_minute_and_very_many_are_summed_up() {
        let readings = Readings::default();
        let acme = OrganizationId::from_bytes([7; 16]);
        let (ada, bob) =
            ((acme, Principal::Ledger, None), (acme, Principal::Organization(acme), None));
        let note = |at, of, asked| noted(&readings, at, of, asked);
        assert_eq!(note(0, ada, 1), "question");
        assert_eq!(note(59_999, ada, 1), "nothing");
        assert_eq!(note(59_999, ada, 2), "question");
        assert_eq!(note(59_999, bob, 1), "question");
        for asked in 1..=100 {
            assert_eq!(note(60_000, ada, asked), "question");
        }
        assert_eq!(note(60_001, ada, 101), "more");
        assert_eq!(note(60_002, ada, 102), "nothing");
        assert_eq!(note(60_003, ada, 1), "nothing");
        assert_eq!(note(60_003, bob, 101), "question");
        assert_eq!(note(120_000, ada, 101), "question");
    }

    #[test]
    fn what_could_not_be_recorded_is_to_be_recorded_still() {
        let readings = Readings::default();
        let acme = OrganizationId::from_bytes([7; 16]);
        let ada = (acme, Principal::Ledger, None);
        for _ in 0..2 {
            let Record::Question(recorded) = readings.note(0, ada, [1; 16]) else {
                panic!("one question");
            };
            assert!(recorded.get().is_none());
        }
    }

    #[test]
    fn questions_differ_in_all_that_is_asked() {
        let ask = |way, asked: &[(&str, &str)], wrote: &str| {
            let asked =
                asked.iter().map(|(field, value)| (field.parse().unwrap(), (*value).to_owned()));
            question(&HistoryRead { way, asked: asked.collect(), and_more: false }, wrote)
        };
        let all = [
            ask(WayOfReading::Queried, &[], ""),
            ask(WayOfReading::Exported, &[], ""),
            ask(WayOfReading::Queried, &[("a", "b")], ""),
            ask(WayOfReading::Queried, &[("a", "bc")], ""),
            ask(WayOfReading::Queried, &[("a", "b"), ("c", "d")], ""),
            ask(WayOfReading::Queried, &[("a", "b")], "c"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}

//! Who reads the history is history, too: recorded once for each principal, question and
//! minute.
//!
//! To read is never refused for want of a record: whoever looks into what is going on must be
//! able to while a disk is full. What could not be recorded is said in the node's log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use projections::event::WayOfReading;
use projections::id::OrganizationId;
use projections::principal::Principal;

use super::command::{Command, Order, Personal};
use super::{Ledger, LedgerError};

/// How many different questions of one principal in one minute are recorded one by one.
const QUESTIONS_MAX: usize = 100;
const MINUTE_MS: i64 = 60_000;

/// A question, in few bytes.
type Question = [u8; 16];

/// What was asked in the minute that is now.
#[derive(Default)]
pub(super) struct Readings(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    number: i64,
    asked: HashMap<(OrganizationId, Principal), HashSet<Question>>,
}

/// What is to be recorded of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// Nothing: it is recorded already.
    Nothing,
    /// The question.
    Question,
    /// That there are more than are recorded one by one.
    Summary,
}

impl Readings {
    /// Takes note of a question. What is to be recorded of it is told once.
    fn note(
        &self,
        now_ms: i64,
        (organization, principal): (OrganizationId, Principal),
        question: Question,
        summary: Question,
    ) -> Record {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now_ms.div_euclid(MINUTE_MS);
        if minute.number != number {
            *minute = Minute { number, asked: HashMap::new() };
        }
        let asked = minute.asked.entry((organization, principal)).or_default();
        if asked.contains(&question) {
            Record::Nothing
        } else if asked.len() < QUESTIONS_MAX {
            asked.insert(question);
            Record::Question
        } else if asked.insert(summary) {
            Record::Summary
        } else {
            Record::Nothing
        }
    }

    /// It was not recorded after all: the next such question is.
    fn forget(&self, of: (OrganizationId, Principal), question: Question) {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = minute.asked.get_mut(&of) {
            asked.remove(&question);
        }
    }
}

/// What stands for a question: in which way, what in clear and what sealed.
fn question(way: WayOfReading, order: &Order) -> Question {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    add(&format!("{way:?}"));
    if let Command::RecordReading(event) = &order.command {
        for (field, value) in &event.asked {
            add(field.as_str());
            add(value);
        }
    }
    add(order.personal.0.get(Personal::COMMENT).map_or("", String::as_str));
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    first
}

impl Ledger {
    /// Records a reading of an organization's history, where it is not recorded yet: what the
    /// order's [`Command::RecordReading`] says, and its comment. Nothing is done for another
    /// command.
    ///
    /// # Errors
    ///
    /// The caller may not read; or the order cannot be carried out for another reason than
    /// that the store takes no events now.
    pub async fn record_reading(
        self: &Arc<Self>,
        organization: OrganizationId,
        mut order: Order,
    ) -> Result<(), LedgerError> {
        let Command::RecordReading(event) = &order.command else { return Ok(()) };
        let way = event.way;
        let of = (organization, order.caller.principal(organization));
        let asked = question(way, &order);
        let mut summary = order.clone();
        if let Command::RecordReading(event) = &mut summary.command {
            event.asked.clear();
            event.and_more = true;
        }
        summary.personal.0.remove(Personal::COMMENT);
        // Nobody's question has this: it says what no question says.
        let more = question(way, &summary).map(|byte| !byte);
        let (order, noted) = match self.readings.note(self.clock.now().as_millis(), of, asked, more)
        {
            Record::Nothing => return Ok(()),
            Record::Question => {
                order.expected = None;
                (order, asked)
            }
            Record::Summary => (summary, more),
        };
        match self.execute(organization, &order).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.readings.forget(of, noted);
                match error {
                    LedgerError::Append(_)
                    | LedgerError::Vault(_)
                    | LedgerError::ClockAhead(_)
                    | LedgerError::NotActivated(_)
                    | LedgerError::Held
                    | LedgerError::Contended => {
                        let principal = of.1;
                        tracing::warn!(%organization, %principal, ?way, %error, "a reading of the history could not be recorded");
                        Ok(())
                    }
                    error => Err(error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_recorded_once_a_minute_and_very_many_are_summed_up() {
        let readings = Readings::default();
        let acme = OrganizationId::from_bytes([7; 16]);
        let (ada, bob) = ((acme, Principal::Ledger), (acme, Principal::Organization(acme)));
        let more = [255; 16];
        let note = |at, of, question: u8| readings.note(at, of, [question; 16], more);
        assert_eq!(note(0, ada, 1), Record::Question);
        assert_eq!(note(59_999, ada, 1), Record::Nothing);
        assert_eq!(note(59_999, ada, 2), Record::Question);
        assert_eq!(note(59_999, bob, 1), Record::Question);
        assert_eq!(note(60_000, ada, 1), Record::Question);
        readings.forget(ada, [1; 16]);
        assert_eq!(note(60_001, ada, 1), Record::Question);
        for question in 2..=100 {
            assert_eq!(note(60_002, ada, question), Record::Question);
        }
        assert_eq!(note(60_003, ada, 101), Record::Summary);
        assert_eq!(note(60_003, ada, 102), Record::Nothing);
        assert_eq!(note(60_003, ada, 1), Record::Nothing);
        assert_eq!(note(60_003, bob, 101), Record::Question);
        assert_eq!(note(120_000, ada, 101), Record::Question);
    }
}

//! What an event can be found by, for an index beside the stream.
//!
//! An index proposes and the event decides: a term is a short hash, so two texts may have
//! one, and [`Filter::shows`] is asked of every event that an index finds. What must hold is
//! the other direction, and a test holds it: an event that a filter shows has all the terms
//! of that filter.

use super::filter::{ActionPattern, Filter};
use super::tell::{for_each_named, tell};
use super::{Outcome, action, words_of};
use crate::envelope::Envelope;

/// The form of terms: an index that was made of other ones is made anew.
pub const TERMS_FORM: u32 = 2;

/// How many bits a term has: two events of a billion with different terms that look the same
/// are read in vain, and nothing else.
pub const TERM_BITS: u32 = 50;

/// One thing that an event can be found by: [`TERM_BITS`] that stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// What a term is of, so that one text in two places makes two terms.
#[derive(Clone, Copy)]
enum Of {
    Actor = 1,
    Credential = 2,
    Action = 3,
    Kind = 4,
    Named = 5,
    Correlation = 6,
    Outcome = 7,
    Word = 8,
}

impl Term {
    fn of(what: Of, text: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[what as u8]).update(text.as_bytes());
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        Self(u64::from_le_bytes(first) & ((1 << TERM_BITS) - 1))
    }
}

/// All that an event can be found by, none of it twice.
#[must_use]
pub fn terms_of(envelope: &Envelope) -> Vec<Term> {
    let mut terms = vec![Term::of(Of::Actor, &envelope.actor.to_string())];
    if let Some(credential) = envelope.credential {
        terms.push(Term::of(Of::Credential, &credential.to_string()));
    }
    let action = action(&envelope.event);
    terms.push(Term::of(Of::Action, action));
    // As a pattern says it: `key.*` without its star.
    let kind = action.split_inclusive('.').next().unwrap_or_default();
    terms.push(Term::of(Of::Kind, kind));
    terms.push(Term::of(Of::Correlation, envelope.correlation_id.as_str()));
    for_each_named(&envelope.event, |id| terms.push(Term::of(Of::Named, &id.to_string())));
    terms.extend(of_outcome(tell(&envelope.event).outcome));
    terms.extend(words_of(&envelope.event).iter().map(|word| Term::of(Of::Word, word)));
    terms.sort_unstable();
    terms.dedup();
    terms
}

impl Filter {
    /// The terms that every event has which this filter shows; none where an index cannot
    /// help to find them.
    #[must_use]
    pub fn terms(&self) -> Vec<Term> {
        // What is left out has no term: it is looked at, and not shown.
        let Self {
            actor,
            credential,
            action,
            target,
            correlation_id,
            outcome,
            text,
            without_readings: _,
        } = self;
        let mut terms = Vec::new();
        terms.extend(correlation_id.as_ref().map(|it| Term::of(Of::Correlation, it.as_str())));
        terms.extend(target.as_ref().map(|it| Term::of(Of::Named, it)));
        terms.extend(credential.map(|it| Term::of(Of::Credential, &it.to_string())));
        terms.extend(actor.map(|it| Term::of(Of::Actor, &it.to_string())));
        terms.extend(text.iter().map(|word| Term::of(Of::Word, word)));
        terms.extend(action.as_ref().map(of_pattern));
        terms.extend(outcome.and_then(of_outcome));
        terms
    }
}

/// That something was done is said of nearly all: it is no help.
fn of_outcome(outcome: Outcome) -> Option<Term> {
    (outcome == Outcome::Denied).then(|| Term::of(Of::Outcome, "denied"))
}

fn of_pattern(pattern: &ActionPattern) -> Term {
    let text = pattern.to_string();
    match text.strip_suffix('*') {
        Some(kind) => Term::of(Of::Kind, kind),
        None => Term::of(Of::Action, &text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{
        envelope, key_created, key_id, key_revoked, role_granted, service_account_id, terms,
    };

    #[test]
    fn one_text_in_two_places_is_two_terms() {
        let term = |what| Term::of(what, "key_1");
        assert_ne!(term(Of::Credential), term(Of::Named));
        assert_eq!(term(Of::Named), Term::of(Of::Named, "key_1"));
        assert!(term(Of::Named).0 < 1 << TERM_BITS);
    }

    #[test]
    fn a_filter_that_an_index_cannot_help_has_no_terms() {
        assert!(Filter::default().terms().is_empty());
        let succeeded = Filter { outcome: Some(Outcome::Succeeded), ..Filter::default() };
        assert!(succeeded.terms().is_empty());
    }

    #[test]
    fn whatever_is_named_is_a_term() {
        let has = |event, named: &str| {
            terms_of(&envelope(1, event)).contains(&Term::of(Of::Named, named))
        };
        assert!(has(key_created(7, |_| ()), &key_id(7).to_string()));
        assert!(has(key_revoked(7), &key_id(7).to_string()));
        assert!(!has(key_revoked(7), &key_id(8).to_string()));
        let granted = role_granted(1, terms(3, 5, None, None));
        assert!(has(granted, &service_account_id(3).to_string()), "who was granted a role");
    }
}

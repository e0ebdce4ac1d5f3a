//! The words by which the activity log is searched.

use std::collections::BTreeSet;

use unicode_normalization::UnicodeNormalization as _;

use super::tell::{Told, tell};
use super::{FieldChange, Value, action};
use crate::event::Event;

/// Most different words of a search.
pub const SEARCH_WORDS_MAX: usize = 8;
/// Most characters of a search.
pub const SEARCH_CHARS_MAX: usize = 200;

/// Text that is no search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSearch {
    /// It holds neither a letter nor a digit.
    #[error("must hold a word: letters or digits")]
    NoWord,
    /// It has too many characters.
    #[error("must have at most {SEARCH_CHARS_MAX} characters")]
    TooLong,
    /// It has too many different words.
    #[error("must have at most {SEARCH_WORDS_MAX} different words")]
    TooManyWords,
}

/// The words of a text, in lower case and Normalization Form C (Unicode Standard Annex #15):
/// whatever is neither a letter nor a digit parts them.
/// The words of words are themselves.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    // However its letters are composed, a word is one word; and lower case first: a letter may
    // become more than letters.
    let lower: String = text.nfc().collect::<String>().to_lowercase().nfc().collect();
    let words: Vec<String> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.into_iter()
}

/// The words that are searched for by this text: each once, in order.
pub fn search_words(text: &str) -> Result<Vec<String>, InvalidSearch> {
    if text.chars().nth(SEARCH_CHARS_MAX).is_some() {
        return Err(InvalidSearch::TooLong);
    }
    let words: BTreeSet<String> = words(text).collect();
    match words.len() {
        0 => Err(InvalidSearch::NoWord),
        1..=SEARCH_WORDS_MAX => Ok(words.into_iter().collect()),
        _ => Err(InvalidSearch::TooManyWords),
    }
}

/// All words by which an event is found: of its target's name as the event has it, its
/// action, its reason, and the texts that its changes went from and to. Nothing that is
/// sealed is among them.
#[must_use]
pub fn words_of(event: &Event) -> BTreeSet<String> {
    let Told { target, reason, changes, deed: _, outcome: _ } = tell(event);
    let mut found: BTreeSet<String> = words(action(event)).collect();
    found.extend(target.name.iter().flat_map(|name| words(name.as_str())));
    found.extend(reason.into_iter().flat_map(words));
    for FieldChange { field: _, before, after } in changes.0 {
        for value in before.into_iter().chain(after) {
            match value {
                Value::Text(text) => found.extend(words(&text)),
                Value::Texts(texts) => found.extend(texts.iter().flat_map(|text| words(text))),
                Value::Number(_) | Value::Instant(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample::{key_created, key_revoked};

    fn list(text: &str) -> Vec<String> {
        words(text).collect()
    }

    #[test]
    fn letters_and_digits_make_words() {
        assert_eq!(list("ci-pipeline v2, DNS:read"), ["ci", "pipeline", "v2", "dns", "read"]);
        assert_eq!(list("Straße ÜBER 東京_9"), ["straße", "über", "東京", "9"]);
        assert_eq!(list("E\u{301}tude nai\u{308}ve"), ["\u{e9}tude", "na\u{ef}ve"]);
        assert_eq!(list("-- ' \" * % \0 \u{200b} 🙂"), Vec::<String>::new());
        assert_eq!(list("İstanbul"), ["i", "stanbul"]);
    }

    #[test]
    fn an_event_is_found_by_what_it_says() {
        let created = key_created(1, |it| it.name = "Nightly build".parse().unwrap());
        let found = words_of(&created);
        for word in ["nightly", "build", "key", "created", "minted"] {
            assert!(found.contains(word), "{word}: {found:?}");
        }
        let found = words_of(&key_revoked(1));
        for word in ["revoked", "active", "key", "compromise"] {
            assert!(found.contains(word), "{word}: {found:?}");
        }
        assert!(!found.contains("nightly"), "the name of a key that the event does not hold");
    }

    #[test]
    fn a_search_has_bounds() {
        let several = |count: usize| (0..count).map(|it| format!("w{it} ")).collect::<String>();
        assert_eq!(search_words(&several(SEARCH_WORDS_MAX)).unwrap().len(), SEARCH_WORDS_MAX);
        assert_eq!(search_words(&several(SEARCH_WORDS_MAX + 1)), Err(InvalidSearch::TooManyWords));
        assert_eq!(search_words("b a B a"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(search_words(&"ü".repeat(SEARCH_CHARS_MAX)).is_ok());
        assert_eq!(search_words(&"ü".repeat(SEARCH_CHARS_MAX + 1)), Err(InvalidSearch::TooLong));
        for none in ["", " ", "*", "'--"] {
            assert_eq!(search_words(none), Err(InvalidSearch::NoWord), "{none}");
        }
    }

    proptest! {
        #[test]
        fn the_words_of_words_are_themselves(text in "\\PC{0,60}") {
            let found = list(&text);
            prop_assert_eq!(list(&found.join(" ")), found.clone());
            for word in found {
                prop_assert_eq!(list(&word), [word.clone()]);
            }
        }
    }
}

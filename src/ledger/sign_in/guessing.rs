//! Passwords that somebody who guesses would try early: the common ones, patterns of the
//! keyboard and the calendar, what stands in the operator's own list, and what is known of
//! the person.
//!
//! The cost is bounded: a text is looked at in parts of [`PART_CHARS_MAX`] characters, of
//! which there are four at the most. Nothing of a password is kept or told.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zxcvbn::zxcvbn;

use super::password::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, Password, WeakPassword};

/// Most characters that are estimated at once.
pub const PART_CHARS_MAX: usize = 64;
/// How many guesses a password must withstand, as a power of ten.
pub const GUESSES_LOG10_MIN: f64 = 8.0;
/// Most bytes of the operator's list.
pub const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most passwords of it that are kept.
pub const LIST_PASSWORDS_MAX: usize = 2_000_000;
/// Fewest characters of what is known of a person that are looked for.
const KNOWN_CHARS_MIN: usize = 4;
/// Most of what is known that is looked for, and most characters of one.
const KNOWN_MAX: usize = 16;
const KNOWN_CHARS_MAX: usize = 128;
/// What people call this product.
const PRODUCT: &str = "keyledger";

/// Why the operator's list cannot be used. It tells no line of it.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too long.
    #[error(
        "`{0}`: must be at most {LIST_BYTES_MAX} bytes, with at most {LIST_PASSWORDS_MAX} passwords of {PASSWORD_CHARS_MIN} characters or more"
    )]
    TooLong(PathBuf),
}

/// Passwords that the operator refuses, by what stands for them, without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedPasswords(Vec<[u8; 16]>);

impl RefusedPasswords {
    /// Reads a list, one on a line. What is no password by its length alone, or no UTF-8, is
    /// passed over: nobody can choose it.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is too long.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let failed = |source| ListError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut lines = BufReader::new(file.take(LIST_BYTES_MAX + 1));
        let (mut line, mut bytes, mut kept) = (Vec::new(), 0, BTreeSet::new());
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                return Ok(Self(kept.into_iter().collect()));
            }
            bytes += read as u64;
            let text = std::str::from_utf8(&line).ok();
            let text = text.map(|text| text.trim_end_matches(['\n', '\r']));
            if let Some(password) = text.and_then(Password::presented)
                && password.text().chars().count() >= PASSWORD_CHARS_MIN
            {
                kept.insert(stands_for(&password));
            }
            if bytes > LIST_BYTES_MAX || kept.len() > LIST_PASSWORDS_MAX {
                return Err(ListError::TooLong(path.to_owned()));
            }
        }
    }

    fn holds(&self, password: &Password) -> bool {
        self.0.binary_search(&stands_for(password)).is_ok()
    }
}

fn stands_for(password: &Password) -> [u8; 16] {
    let lower = Zeroizing::new(password.text().to_lowercase());
    let digest = blake3::hash(lower.as_bytes());
    digest.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What is known of a person, and is no secret of theirs.
#[derive(Clone, Debug, Default)]
pub struct KnownOf {
    terms: Vec<String>,
}

impl KnownOf {
    /// The account's e-mail, and the names of organizations that they are in.
    pub fn new<'a>(email: &'a str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
        let domain = domain.split('.').next().unwrap_or_default();
        let known = [PRODUCT, email, local, domain].into_iter().chain(names);
        let mut terms: Vec<String> = known
            .map(|text| text.to_lowercase())
            .filter(|text| (KNOWN_CHARS_MIN..=KNOWN_CHARS_MAX).contains(&text.chars().count()))
            .take(KNOWN_MAX)
            .collect();
        // The whole e-mail before its parts.
        terms.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Self { terms }
    }
}

/// Whether whoever guesses would come upon a password early. Takes milliseconds of a
/// processor: it is no work for a thread that others wait for.
///
/// # Errors
///
/// They would, and this is how.
pub fn check(
    password: &Password,
    known: &KnownOf,
    refused: &RefusedPasswords,
) -> Result<(), WeakPassword> {
    if refused.holds(password) {
        return Err(WeakPassword::Refused);
    }
    let lower = Zeroizing::new(password.text().to_lowercase());
    let rest = known
        .terms
        .iter()
        .fold(lower.clone(), |rest, term| Zeroizing::new(rest.replace(term.as_str(), "")));
    let is_left = rest.chars().count() >= PASSWORD_CHARS_MIN;
    if rest.len() < lower.len() && !is_left {
        return Err(WeakPassword::Known);
    }
    // As hard as its hardest part, at least.
    let text = Zeroizing::new(password.text().chars().take(PASSWORD_CHARS_MAX).collect::<Vec<_>>());
    let terms: Vec<&str> = known.terms.iter().map(String::as_str).collect();
    let withstands = text.chunks(PART_CHARS_MAX).any(|part| {
        let part: Zeroizing<String> = Zeroizing::new(part.iter().collect());
        zxcvbn(&part, &terms).guesses_log10() >= GUESSES_LOG10_MIN
    });
    if withstands { Ok(()) } else { Err(WeakPassword::Guessable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), WeakPassword> {
        let known = KnownOf::new("ada.lovelace@engines.example", ["Analytical Works"]);
        check(&Password::presented(text).unwrap(), &known, &RefusedPasswords::default())
    }

    #[test]
    fn what_is_tried_first_is_refused_however_long() {
        let long = "a".repeat(PASSWORD_CHARS_MAX);
        for text in [
            "passwordpassword",
            "Password1234",
            "p@ssw0rd1234",
            "123456789012",
            "qwertyuiop[]",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
            "letmeinletmein",
            "iloveyou2026",
            &long,
        ] {
            assert_eq!(checked(text), Err(WeakPassword::Guessable), "{text}");
        }
        for text in [
            "correct horse battery",
            "another long password",
            "k7#Vq2!mZp0x",
            "grüne Äpfel im Regen",
            "пароль из пяти разных слов",
        ] {
            assert_eq!(checked(text), Ok(()), "{text}");
        }
        // What stands behind a guessable beginning counts, too.
        assert_eq!(
            checked(&format!("{}correct horse battery", "a".repeat(PART_CHARS_MAX))),
            Ok(())
        );
    }

    #[test]
    fn what_is_known_of_the_person_counts_for_nothing() {
        for text in [
            "Ada.Lovelace!",
            "ada.lovelace@engines.example",
            "xx analytical works 7",
            "KeyLedger-2026",
            "keyledgerkeyledger",
            "engines-engines-9",
        ] {
            assert_eq!(checked(text), Err(WeakPassword::Known), "{text}");
        }
        // What is left of it is a password by itself.
        assert_eq!(checked("engines and violet trombones"), Ok(()));
        // Short parts are in half of all words.
        let known = KnownOf::new("al@io.example", ["X"]);
        let password = Password::presented("also violet trombones").unwrap();
        assert_eq!(check(&password, &known, &RefusedPasswords::default()), Ok(()));
    }

    #[test]
    fn the_operators_list_is_refused_in_any_case_and_spelling_of_its_lines() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("refused");
        let list =
            b"Violet Trombones\r\n\xff\xfe no text at all\nshort\n\ncafe\xcc\x81 au lait noir\n";
        std::fs::write(&path, list).unwrap();
        let refused = RefusedPasswords::read(&path).unwrap();
        assert_eq!(refused.0.len(), 2);
        let known = KnownOf::default();
        let checked = |text| check(&Password::presented(text).unwrap(), &known, &refused);
        for text in ["violet trombones", "VIOLET TROMBONES", "caf\u{e9} au lait noir"] {
            assert_eq!(checked(text), Err(WeakPassword::Refused), "{text}");
        }
        assert_eq!(checked("violet trombones!"), Ok(()));
        let missing = RefusedPasswords::read(&home.path().join("missing")).unwrap_err();
        assert!(matches!(missing, ListError::Read { .. }), "{missing}");
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("refused");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(LIST_BYTES_MAX + 1).unwrap();
        let error = RefusedPasswords::read(&path).unwrap_err();
        assert!(matches!(error, ListError::TooLong(_)), "{error}");
    }
}

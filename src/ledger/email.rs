//! E-mails: one address has one form, and one digest stands for it.
//!
//! Two texts are one address where they differ in white space around them, in case, in how
//! Unicode composes their characters, or in whether their domain is written in Unicode or
//! as `xn--…`. Nothing that a mail server may tell apart is taken together beyond that:
//! no dots are dropped, and nothing behind a `+`. What an address must not hold is what
//! nobody sees, what turns the direction of writing, and what would need quoting.

use std::fmt;
use std::str::FromStr;

use icu_normalizer::ComposingNormalizerBorrowed;
use idna::AsciiDenyList;
use projections::digest::EmailDigest;
use projections::text::{is_domain, unwritable};
use zeroize::Zeroizing;

/// Most bytes in an e-mail.
pub const EMAIL_BYTES_MAX: usize = 254;
/// Most bytes in front of its `@`.
pub const LOCAL_BYTES_MAX: usize = 64;
/// Most bytes in a text that is read as an e-mail: composing may shorten it.
const TEXT_BYTES_MAX: usize = 1_024;

/// An e-mail in its one form. It is personal data: it has no readable `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(Zeroizing<String>);

/// Text that is no e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmail {
    /// It is too long.
    #[error(
        "must be at most {EMAIL_BYTES_MAX} bytes long, and {LOCAL_BYTES_MAX} in front of its `@`"
    )]
    TooLong,
    /// It holds what nobody sees, or what lies about itself on a screen.
    #[error("must hold no white space, control or invisible characters")]
    Unwritable,
    /// It has no `@`, or several.
    #[error("must hold one `@`")]
    At,
    /// What stands in front of the `@` is not right.
    #[error(
        "in front of its `@` must be words with single dots between them, without any of `\"(),:;<>[\\]`"
    )]
    Local,
    /// What stands behind the `@` is not right.
    #[error("behind its `@` must be a domain such as `example.com`")]
    Domain,
}

impl Email {
    /// The address, in its one form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(InvalidEmail::TooLong);
        }
        if text.chars().any(is_hidden) {
            return Err(InvalidEmail::Unwritable);
        }
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail::At)?;
        if domain.contains('@') {
            return Err(InvalidEmail::At);
        }
        let local = local_form(local);
        if !local.split('.').all(is_word) {
            return Err(InvalidEmail::Local);
        }
        let domain = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3)
            .map_err(|_| InvalidEmail::Domain)?;
        if !is_domain(&domain) {
            return Err(InvalidEmail::Domain);
        }
        if local.len() > LOCAL_BYTES_MAX || local.len() + 1 + domain.len() > EMAIL_BYTES_MAX {
            return Err(InvalidEmail::TooLong);
        }
        Ok(Self(Zeroizing::new([&local, "@", &domain].concat())))
    }
}

/// What nobody sees: [`unwritable`], white space, and what only changes how the character
/// in front of it looks.
fn is_hidden(c: char) -> bool {
    unwritable(c)
        || c.is_whitespace()
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// What stands in front of the `@` in its one form: composed, in lower case, composed again.
fn local_form(text: &str) -> String {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let lower: String = nfc.normalize(text).chars().flat_map(folded).collect();
    nfc.normalize(&lower).into_owned()
}

/// A character in lower case. It goes by its upper case first, so that characters which
/// share that are one: `σ` and `ς`, `s` and `ſ`. What has an upper case of several
/// characters keeps its own lower case: `ß` is not `ss`.
fn folded(c: char) -> impl Iterator<Item = char> {
    let mut upper = c.to_uppercase();
    let alone = upper.next().filter(|_| upper.next().is_none());
    alone.unwrap_or(c).to_lowercase()
}

/// Characters that stand between dots without being quoted.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|c: char| {
            matches!(c, '"' | '(' | ')' | ',' | ':' | ';' | '<' | '>' | '[' | '\\' | ']')
        })
}

/// Makes digests of e-mails: keyed, so that a stored one gives nothing away.
#[derive(Clone)]
pub struct EmailDigester(Zeroizing<[u8; 32]>);

impl EmailDigester {
    /// Digests under a key of its own, derived from this one, which must stay the same for
    /// the installation's life.
    #[must_use]
    pub fn new(lookup_key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("keyledger 2026-11 e-mail digests", lookup_key)))
    }

    /// What stands for an e-mail.
    #[must_use]
    pub fn digest(&self, email: &Email) -> EmailDigest {
        EmailDigest(*blake3::keyed_hash(&self.0, email.as_str().as_bytes()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, InvalidEmail>) {
        let email = text.parse::<Email>();
        assert_eq!(email.as_ref().map(Email::as_str).map_err(|error| *error), expected, "{text:?}");
    }

    #[test]
    fn one_address_has_one_form() {
        for (text, form) in [
            ("alice@example.com", "alice@example.com"),
            ("  Alice@EXAMPLE.com\n", "alice@example.com"),
            ("a.l.i+x@example.com", "a.l.i+x@example.com"),
            ("o'hara!#$%&*/=?^_`{|}~-@example.com", "o'hara!#$%&*/=?^_`{|}~-@example.com"),
            // Composed and decomposed, in either case.
            ("Zo\u{eb}@example.com", "zo\u{eb}@example.com"),
            ("ZOE\u{308}@example.com", "zo\u{eb}@example.com"),
            ("\u{212a}ate@example.com", "kate@example.com"),
            ("\u{212b}sa@example.com", "\u{e5}sa@example.com"),
            ("ΣΑΣ@example.com", "σασ@example.com"),
            ("σας@example.com", "σασ@example.com"),
            ("stra\u{df}e@example.com", "stra\u{df}e@example.com"),
            ("STRA\u{1e9e}E@example.com", "stra\u{df}e@example.com"),
            ("иван@example.com", "иван@example.com"),
            ("ИВАН@example.com", "иван@example.com"),
            // One domain, in Unicode and not.
            ("a@b\u{fc}cher.example", "a@xn--bcher-kva.example"),
            ("a@BU\u{308}CHER.example", "a@xn--bcher-kva.example"),
            ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
            ("a@example\u{3002}com", "a@example.com"),
        ] {
            check(text, Ok(form));
            check(form, Ok(form));
        }
    }

    #[test]
    fn what_is_no_address() {
        use InvalidEmail::*;
        for text in ["", "alice", "alice.example.com", "a@b@example.com", "@@"] {
            check(text, Err(At));
        }
        for text in ["@example.com", ".a@example.com", "a.@example.com", "a..b@example.com"] {
            check(text, Err(Local));
        }
        for special in "\"(),:;<>[\\]".chars() {
            check(&format!("a{special}b@example.com"), Err(Local));
        }
        for domain in [
            "",
            "localhost",
            "example.com.",
            ".com",
            "a..b",
            "192.0.2.7",
            "[192.0.2.7]",
            "-a.b",
            "a_b.example",
            "xn--a.example",
            "exa/mple.com",
        ] {
            check(&format!("a@{domain}"), Err(Domain));
        }
        for hidden in [
            ' ',
            '\t',
            '\n',
            '\0',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2066}',
            '\u{3000}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{e0101}',
            '\u{e0041}',
        ] {
            check(&format!("a{hidden}b@example.com"), Err(Unwritable));
            check(&format!("ab@exa{hidden}mple.com"), Err(Unwritable));
        }
    }

    #[test]
    fn no_address_is_too_long() {
        let local = "a".repeat(LOCAL_BYTES_MAX);
        check(&format!("{local}@example.com"), Ok(&format!("{local}@example.com")));
        check(&format!("{local}a@example.com"), Err(InvalidEmail::TooLong));
        let label = "a".repeat(61);
        let domain = format!("{label}.{label}.{label}.com");
        let rest = EMAIL_BYTES_MAX - domain.len() - 1;
        let longest = format!("{}@{domain}", "a".repeat(rest));
        check(&longest, Ok(&longest));
        check(&format!("a{longest}"), Err(InvalidEmail::TooLong));
        check(&"a".repeat(TEXT_BYTES_MAX + 1), Err(InvalidEmail::TooLong));
        // Bytes count, not characters.
        check(&format!("{}@example.com", "é".repeat(33)), Err(InvalidEmail::TooLong));
    }

    #[test]
    fn every_character_has_one_form_whatever_its_case() {
        let nfd = icu_normalizer::DecomposingNormalizerBorrowed::new_nfd();
        let mut told_apart = Vec::new();
        for c in '\0'..=char::MAX {
            let form = local_form(&c.to_string());
            assert_eq!(local_form(&form), form, "{c:?}");
            assert_eq!(local_form(&nfd.normalize(&c.to_string())), form, "{c:?}");
            assert_eq!(local_form(&c.to_lowercase().collect::<String>()), form, "{c:?}");
            let upper: String = c.to_uppercase().collect();
            if local_form(&upper) != form {
                told_apart.push(c);
            }
        }
        // What several characters stand for in upper case, such as ß and ligatures.
        assert!(told_apart.iter().all(|c| c.to_uppercase().count() > 1), "{told_apart:?}");
    }

    #[test]
    fn a_digest_is_of_one_address_under_one_key_of_its_own() {
        let of =
            |key: u8, text: &str| EmailDigester::new(&[key; 32]).digest(&text.parse().unwrap());
        let alice = of(1, "alice@example.com");
        assert_eq!(of(1, " ALICE@Example.com"), alice);
        assert_ne!(of(1, "alice2@example.com"), alice);
        assert_ne!(of(2, "alice@example.com"), alice);
        let plain = blake3::keyed_hash(&[1; 32], b"alice@example.com");
        assert_ne!(alice.0, *plain.as_bytes(), "the key is used for this alone");
    }

    proptest! {
        #[test]
        fn variants_of_an_address_are_one(local in "\\PC{1,12}", domain in "[a-zA-Z\u{e0}-\u{ff}]{1,8}\\.[a-z]{2,4}") {
            let text = format!("{local}@{domain}");
            let Ok(email) = text.parse::<Email>() else { return Ok(()) };
            let again = email.as_str().parse::<Email>();
            prop_assert_eq!(again.as_ref(), Ok(&email));
            let nfd = icu_normalizer::DecomposingNormalizerBorrowed::new_nfd();
            for variant in [
                nfd.normalize(&text).into_owned(),
                text.to_lowercase(),
                format!(" {text}\n"),
                format!("{local}@{}", domain.to_uppercase()),
            ] {
                let variant = variant.parse::<Email>();
                prop_assert_eq!(variant.as_ref(), Ok(&email));
            }
            prop_assert!(email.as_str().len() <= EMAIL_BYTES_MAX);
            let debug = format!("{email:?}");
            prop_assert!(!debug.contains(email.as_str()));
        }

        #[test]
        fn no_text_stops_it(text in "\\PC*", bytes in "(?s).{0,40}") {
            let _ = text.parse::<Email>();
            let _ = bytes.parse::<Email>();
        }
    }
}

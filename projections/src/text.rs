//! Texts with a shape and a limit: once made, they cannot be wrong.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

use crate::id::text_serde;

/// Text that does not have the shape it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {must}")]
pub struct InvalidText {
    /// The shape, to follow "must be".
    pub must: &'static str,
}

/// Most characters in a name.
pub const NAME_CHARS_MAX: usize = 100;
/// Most characters in a description or a comment.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Fewest and most characters in a key prefix.
pub const KEY_PREFIX_CHARS: std::ops::RangeInclusive<usize> = 2..=10;
/// Most characters in the name of a service, a plan, or an entry of metadata.
pub const LABEL_CHARS_MAX: usize = 64;
/// Most characters in a metadata value.
pub const METADATA_VALUE_CHARS_MAX: usize = 256;
/// Most characters in a domain, and in one label of it.
pub const DOMAIN_CHARS_MAX: usize = 253;
const DOMAIN_LABEL_CHARS_MAX: usize = 63;
/// Most characters in a correlation id or an idempotency key.
pub const TOKEN_CHARS_MAX: usize = 128;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $must:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;
            fn from_str(text: &str) -> Result<Self, InvalidText> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(InvalidText { must: $must }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        text_serde!($name, $must);
    };
}

text!(
    /// The name of a key, a role or an organization.
    Name,
    "1 to 100 characters without control characters, and no white space at either end",
    |text| chars_in(text, 1..=NAME_CHARS_MAX) && text.trim() == text && !text.chars().any(unwritable)
);
text!(
    /// What a thing is for, in its maker's words.
    Description,
    "at most 500 characters, without control characters other than line breaks and tabs",
    |text| chars_in(text, 1..=DESCRIPTION_CHARS_MAX)
        && !text.chars().any(|c| unwritable(c) && c != '\n' && c != '\t')
);
text!(
    /// What an organization's keys begin with.
    KeyPrefix,
    "2 to 10 characters of `a-z 0-9`, a letter first",
    |text| KEY_PREFIX_CHARS.contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
);
text!(
    /// The name of a plan.
    PlanName,
    "1 to 64 characters of `a-z 0-9 -`, a letter first",
    |text| (1..=LABEL_CHARS_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);
text!(
    /// The name of a role that an organization defines: nobody mistakes it for another's.
    RoleName,
    "1 to 64 characters of `a-z 0-9 -`, a letter first",
    |text| (1..=LABEL_CHARS_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);
impl From<RoleName> for Name {
    /// What is a role's name is a name.
    fn from(name: RoleName) -> Self {
        Self(name.0)
    }
}
text!(
    /// A domain that a grant can be limited to. One of several labels in lower case:
    /// every domain has exactly one spelling.
    Domain,
    "a domain such as `example.com`: labels of `a-z 0-9 -` with dots between them, 253 characters in all; write other scripts as `xn--…`",
    is_domain
);
text!(
    /// The name of a part of the tenant's product.
    ServiceName,
    "1 to 64 characters of `A-Z a-z 0-9 . _ -`",
    is_label
);
text!(
    /// The name of a feature that a plan licenses.
    FeatureName,
    "1 to 64 characters of `A-Z a-z 0-9 . _ -`",
    is_label
);
text!(
    /// The name of an entry of metadata or limits.
    Label,
    "1 to 64 characters of `A-Z a-z 0-9 . _ -`",
    is_label
);
text!(
    /// A value of metadata.
    MetadataValue,
    "at most 256 characters without control characters",
    |text| chars_in(text, 0..=METADATA_VALUE_CHARS_MAX) && !text.chars().any(unwritable)
);
text!(
    /// A method of the ledger itself, such as `KeyService/RevokeKey`.
    MethodName,
    "1 to 128 characters of `A-Z a-z 0-9 . _ - /`",
    |text| (1..=TOKEN_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
);
text!(
    /// What ties together all that one request causes, here and elsewhere.
    CorrelationId,
    "1 to 128 visible ASCII characters",
    is_token
);

/// Whether this is 1 to 128 visible ASCII characters.
#[must_use]
pub fn is_token(text: &str) -> bool {
    (1..=TOKEN_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether this is 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether this is a domain of two labels or more, in lower case, and no address.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=DOMAIN_LABEL_CHARS_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= DOMAIN_CHARS_MAX
        && text.contains('.')
        && text.split('.').all(is_label)
        && !last.bytes().all(|b| b.is_ascii_digit())
}

fn chars_in(text: &str, range: std::ops::RangeInclusive<usize>) -> bool {
    // A character is at most four bytes: what is longer need not be counted.
    text.len() <= range.end() * 4 && range.contains(&text.chars().count())
}

/// Characters that would let a name lie about itself on a screen: control characters,
/// those that turn the direction of writing, and those that nobody sees.
#[must_use]
pub fn unwritable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = InvalidText> + fmt::Display>(good: &[&str], bad: &[&str]) {
        for text in good {
            match text.parse::<T>() {
                Ok(parsed) => assert_eq!(parsed.to_string(), *text),
                Err(error) => panic!("{text:?}: {error}"),
            }
        }
        for text in bad {
            assert!(text.parse::<T>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names() {
        let longest = "é".repeat(NAME_CHARS_MAX);
        let longer = "é".repeat(NAME_CHARS_MAX + 1);
        check::<Name>(
            &["ci-pipeline", "a", "Zoë's key", "مفتاح", "鍵 🔑", &longest],
            &["", " a", "a ", "a\nb", "a\u{0}", "a\u{202e}b", "a\u{200b}", &longer],
        );
        for unseen in ['\u{ad}', '\u{61c}', '\u{180e}', '\u{206a}', '\u{3164}', '\u{e0041}'] {
            check::<Name>(&[], &[&format!("a{unseen}b")]);
        }
    }

    #[test]
    fn prefixes() {
        check::<KeyPrefix>(
            &["vtx", "k2", "abcdefghij"],
            &["", "v", "2k", "Vtx", "v_x", "abcdefghijk", "vé"],
        );
    }

    #[test]
    fn domains() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        check::<Domain>(
            &["example.com", "a.b", "xn--bcher-kva.example", "1.a", "a-b.c--d.e", &longest],
            &[
                "",
                "com",
                "Example.com",
                "example.com.",
                ".example.com",
                "a..b",
                "-a.b",
                "a-.b",
                "a_b.c",
                "*.example.com",
                "b\u{fc}cher.example",
                "192.0.2.7",
                "a b.c",
                "example.com:443",
                &format!("{}.b", "a".repeat(64)),
                &format!("{longest}a"),
            ],
        );
    }

    #[test]
    fn labels_and_tokens() {
        let longest = "a".repeat(LABEL_CHARS_MAX);
        let longer = "a".repeat(LABEL_CHARS_MAX + 1);
        check::<ServiceName>(&["cdn", "DNS.v2_x-y", &longest], &["", "a b", "a/b", "é", &longer]);
        check::<CorrelationId>(&["a", "~!x"], &["", "a b", "é", "\u{7f}", &"a".repeat(129)]);
        check::<MetadataValue>(&["", "a b"], &["a\tb", &"a".repeat(257)]);
        check::<Description>(&["a\nb", &"a".repeat(500)], &["", "\u{1}", &"a".repeat(501)]);
        check::<RoleName>(
            &["a", "zone-editor-2", &longest],
            &["", "Admin", "2x", "a b", "a_b", "\u{430}dmin", "-a", &longer],
        );
        check::<PlanName>(&["free", "paid-2"], &["", "Free", "2x", "a b"]);
    }
}

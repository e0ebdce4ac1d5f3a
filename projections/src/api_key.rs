//! The text of an API key.
//!
//! `<prefix>_` + optional `live_` or `test_` + secret + checksum. The secret is 36
//! characters of base62 (214 bits, of which the four shown in lists give away at
//! most 24); the checksum is the CRC-32 (ISO-HDLC, the one of zip and gzip) of
//! everything before it, as six characters of base62, most significant first, padded
//! with `0`. The alphabet is `0-9 A-Z a-z`. The checksum is public: anybody may use it
//! to find keys in text, or to refuse a mistyped one without asking the ledger.

use serde::{Deserialize, Serialize};

use crate::text::KeyPrefix;

/// Characters of secret in a key.
pub const SECRET_CHARS: usize = 36;
/// Characters of checksum in a key.
pub const CHECKSUM_CHARS: usize = 6;
/// Characters of a key that lists show, from its end.
pub const HINT_CHARS: usize = 4;
/// Most characters in anything presented as a credential.
pub const CREDENTIAL_CHARS_MAX: usize = 512;

/// The digits of secrets and checksums, by value.
pub const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Where a key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// In production.
    Live,
    /// In tests and sandboxes.
    Test,
}

impl Environment {
    /// The text: `live` or `test`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The text of a key in front of its secret.
#[must_use]
pub fn head(prefix: &KeyPrefix, environment: Option<Environment>) -> String {
    match environment {
        Some(environment) => format!("{prefix}_{}_", environment.as_str()),
        None => format!("{prefix}_"),
    }
}

/// Appends the checksum of what the text holds so far.
pub fn push_checksum(text: &mut String) {
    text.push_str(&String::from_utf8_lossy(&checksum(text.as_bytes())));
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(bytes) as usize;
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET.get(rest % ALPHABET.len()).copied().unwrap_or(b'0');
        rest /= ALPHABET.len();
    }
    digits
}

/// The prefix of a text that has the form of a key and the right checksum.
#[must_use]
pub fn prefix_of(text: &str) -> Option<&str> {
    let (prefix, rest) = text.split_once('_')?;
    let secret = rest.strip_prefix("live_").or_else(|| rest.strip_prefix("test_")).unwrap_or(rest);
    let shaped = secret.len() == SECRET_CHARS + CHECKSUM_CHARS
        && secret.bytes().all(|b| b.is_ascii_alphanumeric())
        && crate::text::KEY_PREFIX_CHARS.contains(&prefix.len());
    if !shaped {
        return None;
    }
    let (body, sum) = text.as_bytes().split_at_checked(text.len() - CHECKSUM_CHARS)?;
    (checksum(body) == sum).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(environment: Option<Environment>) -> String {
        let mut text = head(&"vtx".parse().unwrap(), environment) + &"a1B2".repeat(9);
        push_checksum(&mut text);
        text
    }

    #[test]
    fn the_form_is_fixed() {
        assert_eq!(
            key(Some(Environment::Live)),
            "vtx_live_a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B22T8ROz"
        );
        assert_eq!(prefix_of(&key(Some(Environment::Test))), Some("vtx"));
        assert_eq!(prefix_of(&key(None)), Some("vtx"));
    }

    #[test]
    fn every_single_typo_is_seen() {
        let good = key(Some(Environment::Live));
        for at in 0..good.len() {
            for with in ['0', 'z', '_', '-', 'é'] {
                let mut typo: String = good.chars().take(at).collect();
                typo.push(with);
                typo.extend(good.chars().skip(at + 1));
                assert_eq!(prefix_of(&typo).is_some(), typo == good, "{typo}");
            }
        }
        assert_eq!(prefix_of(""), None);
        assert_eq!(prefix_of("_"), None);
        assert_eq!(prefix_of(good.get(1..).unwrap()), None);
    }
}

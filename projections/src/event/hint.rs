//! The end of a key's text.

use std::fmt;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api_key::HINT_CHARS;

/// The last characters of a key, which lists show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hint([u8; HINT_CHARS]);

impl Hint {
    /// The hint of a key's text; none if it does not end in ASCII letters and digits.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let last = *text.as_bytes().last_chunk::<HINT_CHARS>()?;
        last.iter().all(u8::is_ascii_alphanumeric).then_some(Self(last))
    }

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::of(text)
            .filter(|_| text.len() == HINT_CHARS)
            .ok_or_else(|| de::Error::custom("a hint is four ASCII letters and digits"))
    }
}

//! Instants, as the ledger writes them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat};

use crate::id::text_serde;

/// An instant in milliseconds since 1970-01-01T00:00:00Z, between the years 1 and 9999.
///
/// Written as RFC 3339 in UTC with exactly three digits of fraction, so that one
/// instant has one spelling and texts sort as instants do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Text that is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an instant such as `2026-04-02T10:00:00.000Z`")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// The last instant that can be written.
    pub const MAX: Self = Self(253_402_300_799_999);
    /// The first instant that can be written.
    pub const MIN: Self = Self(-62_135_596_800_000);

    /// The instant this many milliseconds after 1970; none outside the years 1 to 9999.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&millis).then_some(Self(millis))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The instant this many milliseconds later, held inside what can be written.
    #[must_use]
    pub fn saturating_add_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis).clamp(Self::MIN.0, Self::MAX.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = DateTime::from_timestamp_millis(self.0).unwrap_or_default();
        f.write_str(&instant.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let shape =
            text.len() == 24 && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T');
        if !shape {
            return Err(InvalidTimestamp);
        }
        let instant = DateTime::parse_from_rfc3339(text).map_err(|_| InvalidTimestamp)?;
        // A leap second is read as the next whole one by chrono; it has no spelling of its own here.
        if instant.timestamp_subsec_nanos() >= 1_000_000_000 {
            return Err(InvalidTimestamp);
        }
        Self::from_millis(instant.timestamp_millis()).ok_or(InvalidTimestamp)
    }
}

text_serde!(Timestamp, "an RFC 3339 instant in UTC with milliseconds");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_exactly_one_spelling() {
        for text in
            ["2026-04-02T10:00:00.000Z", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"]
        {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
        for text in [
            "2026-04-02T10:00:00Z",
            "2026-04-02T10:00:00.000z",
            "2026-04-02 10:00:00.000Z",
            "2026-04-02T10:00:00.000+00:00",
            "2026-02-30T10:00:00.000Z",
            "2016-12-31T23:59:60.000Z",
            "0000-01-01T00:00:00.000Z",
            "",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }
}

//! Values of flags: texts that have a form.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime};
use projections::text::is_token;
use projections::time::Timestamp;

use super::failure::Failure;
pub(super) use crate::config::duration;
use crate::proto;

/// Longest time to wait for an answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// A duration, or `0` for none at all.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

/// A limit that is set, or taken away by `none`.
pub(super) type Limit = Option<Duration>;

/// A duration, `0`, or `none` for no limit.
pub(super) fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(None) } else { duration_or_zero(text).map(Some) }
}

/// A duration as the protocol has it.
pub(super) fn wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

/// How long to wait for an answer.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout > TIMEOUT_MAX { Err("must be at most `1h`".to_owned()) } else { Ok(timeout) }
}

/// An instant in RFC 3339, in any time zone.
pub(super) fn instant(text: &str) -> Result<prost_types::Timestamp, String> {
    let at = DateTime::parse_from_rfc3339(text)
        .map_err(|_| "must be an instant in RFC 3339, such as `2026-12-31T23:59:59Z`".to_owned())?;
    // A leap second has more nanoseconds than fit; it ends with the second.
    let nanos = at.timestamp_subsec_nanos().min(999_999_999);
    Ok(prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    })
}

/// An instant in RFC 3339, the beginning of a day (UTC), or so long ago.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<prost_types::Timestamp, String> {
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let seconds = day.and_time(NaiveTime::MIN).and_utc().timestamp();
        return Ok(prost_types::Timestamp { seconds, nanos: 0 });
    }
    if let Ok(ago) = duration(text) {
        let millis = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let at = now.saturating_add_millis(millis.saturating_neg()).as_millis();
        let nanos = i32::try_from(at.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
        return Ok(prost_types::Timestamp { seconds: at.div_euclid(1_000), nanos });
    }
    instant(text).map_err(|_| {
        "must be an instant such as `2026-12-31T23:59:59Z`, a day such as `2026-12-31`, or how \
         long ago, such as `30m`, `2h` or `7d`"
            .to_owned()
    })
}

/// A moment of the past: an instant as [`moment`] takes it, or a place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PastMoment {
    /// An instant.
    At(prost_types::Timestamp),
    /// Behind this event.
    Revision(u64),
}

/// A moment of the past: as [`moment`], or `revision:7`.
pub(super) fn past_moment(text: &str, now: Timestamp) -> Result<PastMoment, String> {
    match text.strip_prefix("revision:") {
        Some(number) => number
            .parse()
            .map(PastMoment::Revision)
            .map_err(|_| "must be a whole number behind `revision:`".to_owned()),
        None => moment(text, now)
            .map(PastMoment::At)
            .map_err(|problem| format!("{problem}; or `revision:7`")),
    }
}

/// Visible ASCII, as correlation ids and idempotency keys are.
pub(super) fn token(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 128 visible ASCII characters".to_owned())
    }
}

/// A text that is there: an empty one is most likely a variable that nobody set.
pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// `key=value`.
pub(super) fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be `key=value`")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=number`.
pub(super) fn numeric_entry(text: &str) -> Result<(String, i64), String> {
    let (key, value) = text.split_once('=').ok_or("must be `key=number`")?;
    let value = value.parse().map_err(|_| "must be `key=number`, with a whole number")?;
    Ok((key.to_owned(), value))
}

/// `stream=revision`.
pub(super) fn stream_revision(text: &str) -> Result<proto::StreamRevision, String> {
    let wrong = || "must be `stream=revision`, such as `org-operator=7`".to_owned();
    let (stream, revision) = text.rsplit_once('=').ok_or_else(wrong)?;
    let revision = revision.parse().map_err(|_| wrong())?;
    Ok(proto::StreamRevision { stream: stream.to_owned(), revision })
}

/// How often: `100/60s`.
pub(super) fn rate_limit(text: &str) -> Result<proto::RateLimit, String> {
    let limit: projections::network::RateLimit =
        text.parse().map_err(|error| format!("{error}, written such as `100/60s`"))?;
    Ok(proto::RateLimit { requests: limit.requests, per_seconds: limit.per_seconds })
}

/// Entries by their keys, each given once.
pub(super) fn once_each<V>(
    flag: &str,
    entries: Vec<(String, V)>,
) -> Result<BTreeMap<String, V>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        if map.contains_key(&key) {
            return Err(Failure::fault(format!("`{flag}`: `{key}` is given twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// `live` or `test`.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Environment {
    /// The real thing.
    Live,
    /// For trying out.
    Test,
}

/// The number that stands for it on the wire; unspecified for none.
pub(super) fn environment(environment: Option<Environment>) -> i32 {
    match environment {
        None => proto::Environment::Unspecified,
        Some(Environment::Live) => proto::Environment::Live,
        Some(Environment::Test) => proto::Environment::Test,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("2w", 1_209_600_000),
            ("5ms", 5),
            ("7s", 7_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "0s",
            "1",
            "h",
            "1y",
            "1 h",
            "-1h",
            "1.5h",
            "1h30",
            "1H",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(limit("none"), Ok(None));
        assert_eq!(limit("1h"), Ok(Some(Duration::from_secs(3_600))));
        assert!(limit("never").is_err() && duration_or_zero("00").is_err());
        assert!(timeout("1h").is_ok());
        assert!(timeout("3601s").is_err());
    }

    #[test]
    fn instants_may_have_any_time_zone() {
        let seconds = |text| instant(text).map(|at| (at.seconds, at.nanos));
        assert_eq!(seconds("1970-01-01T00:00:01.5Z"), Ok((1, 500_000_000)));
        assert_eq!(seconds("1970-01-01T02:00:00+02:00"), Ok((0, 0)));
        for text in ["1970-01-01", "1970-01-01T00:00:00", "tomorrow", ""] {
            assert!(instant(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_an_instant_a_day_or_so_long_ago() {
        let now = "2026-11-22T10:00:00.250Z".parse().unwrap();
        let at = |text| moment(text, now).map(|at| (at.seconds - 1_795_341_600, at.nanos));
        assert_eq!(at("2026-11-22T10:00:01Z"), Ok((1, 0)));
        assert_eq!(at("2026-11-22T12:00:00+02:00"), Ok((0, 0)));
        assert_eq!(at("2026-11-22"), Ok((-36_000, 0)));
        assert_eq!(at("2h"), Ok((-7_200, 250_000_000)));
        assert_eq!(at("1h30m"), Ok((-5_400, 250_000_000)));
        for text in ["", "2026-02-30", "2026-11-22T10:00", "2026", "22.11.2026", "-2h", "0s", "now"]
        {
            assert!(moment(text, now).unwrap_err().contains("`2026-12-31`"), "{text}");
        }
    }

    #[test]
    fn pairs_are_split_where_they_must_be() {
        assert_eq!(entry("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(numeric_entry("a=-1"), Ok(("a".into(), -1)));
        assert!(entry("a").is_err());
        assert!(numeric_entry("a=1.5").is_err());
        let expected = proto::StreamRevision { stream: "org-operator".into(), revision: 7 };
        assert_eq!(stream_revision("org-operator=7"), Ok(expected));
        assert!(stream_revision("org-operator").is_err());
        assert!(stream_revision("org-operator=-1").is_err());
        assert!(once_each("--limit", vec![("a".into(), 1), ("a".into(), 1)]).is_err());
    }
}

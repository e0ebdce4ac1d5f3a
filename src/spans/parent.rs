//! The span of the caller's that a call is a part of: `traceparent` of W3C Trace Context.

use http::header::{HeaderMap, HeaderName};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Versions of the header's form: this one is ours, the last is none.
const VERSION: u128 = 0;
const NO_VERSION: u128 = 0xff;

/// What a caller says about the span that it works for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) sampled: bool,
}

impl Parent {
    /// The one that a request names; none where it names none, or in no proper form.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let parent = Self::parse(values.next()?.to_str().ok()?)?;
        // Of two, neither is it.
        values.next().is_none().then_some(parent)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut number = |digits| hexadecimal(parts.next()?, digits);
        let (version, trace_id, span_id) = (number(2)?, number(32)?, number(16)?);
        let flags = number(2)?;
        let more = parts.next().is_some();
        // Later versions may say more behind what is known.
        let readable = version != NO_VERSION && !(version == VERSION && more);
        let span_id = u64::try_from(span_id).ok()?;
        let named = trace_id != 0 && span_id != 0;
        (readable && named).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let small = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(small) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_parent_is_read_strictly() {
        let parse = |text: String| Parent::parse(&text).map(|it| it.sampled);
        assert_eq!(parse(format!("00-{TRACE}-{SPAN}-01")), Some(true));
        assert_eq!(parse(format!("00-{TRACE}-{SPAN}-00")), Some(false));
        assert_eq!(parse(format!("00-{TRACE}-{SPAN}-03")), Some(true));
        assert_eq!(parse(format!("01-{TRACE}-{SPAN}-01-more-of-it")), Some(true));
        let (zeros, no_span) = ("0".repeat(32), "0".repeat(16));
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-+{}-{SPAN}-01", TRACE.split_at(1).1),
            format!("00-{SPAN}-{TRACE}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parse(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(Parent::of(&headers), None);
        headers.append(&TRACEPARENT, format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
        let span_id = 0xb7ad_6b71_6920_3331;
        let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        assert_eq!(Parent::of(&headers), Some(Parent { trace_id, span_id, sampled: true }));
        headers.append(&TRACEPARENT, format!("00-{TRACE}-{SPAN}-00").parse().unwrap());
        assert_eq!(Parent::of(&headers), None);
    }
}

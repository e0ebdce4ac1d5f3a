//! Snapshots: the canonical bytes of what was folded.
//!
//! The same events give the same bytes, on any machine and however they were come by: all
//! lists are sorted, numbers and texts have one spelling, and nothing is in them that
//! depends on how the tables were built. What [`Organization::to_canonical`] wrote,
//! [`Organization::from_canonical`] reads, and it reads nothing else: bytes that it accepts
//! are those that the tables it made would give.
//!
//! Whoever keeps such bytes keeps a keyed checksum beside them: they are authority, and
//! nothing in them says whose.
//!
//! A field that is added to the tables must be added to the form, and [`FORM`] raised: a
//! snapshot of another form is not read, and history is replayed instead. The writers name
//! every field, so that none is forgotten.
//!
//! [`Organization::to_canonical`]: crate::organization::Organization::to_canonical
//! [`Organization::from_canonical`]: crate::organization::Organization::from_canonical

mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of canonical bytes that this version writes and reads.
pub const FORM: u8 = 7;

/// Bytes that are no snapshot of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot of form {FORM}: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// What has canonical bytes.
pub(crate) trait Canonical: Sized {
    /// Appends the bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes the bytes off the front.
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// Bytes that are being read.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends too soon"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// As many of the next bytes as there are places.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends too soon"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A number of things, each of which has `bytes_min` bytes at least: no more than there
    /// can be, so that room may be made for them.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(u64::read(self)?).unwrap_or(usize::MAX);
        if count > self.0.len() / bytes_min.max(1) {
            return Err(Malformed("it counts more than it holds"));
        }
        Ok(count)
    }

    /// A text.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let count = self.count(1)?;
        std::str::from_utf8(self.take(count)?).map_err(|_| Malformed("a text is no UTF-8"))
    }

    /// Distinct values, each behind the one in front of it.
    pub(crate) fn sorted<T: Canonical>(
        &mut self,
        before: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, Malformed> {
        let mut values = Vec::new();
        for _ in 0..self.count(2)? {
            let value = T::read(self)?;
            if values.last().is_some_and(|last| !before(last, &value)) {
                return Err(Malformed("a list is unsorted"));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// Nothing more may follow.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("more follows its end")) }
    }
}

/// Appends a number of things.
pub(crate) fn write_count(count: usize, out: &mut Vec<u8>) {
    (count as u64).write(out);
}

/// Appends a text.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    write_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Refuses what does not come behind the thing before it.
pub(crate) fn ascending<T: PartialOrd>(last: Option<&T>, next: &T) -> Result<(), Malformed> {
    if last.is_none_or(|last| last < next) { Ok(()) } else { Err(Malformed("a list is unsorted")) }
}

impl Canonical for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array().map(|[byte]| byte)
    }
}

impl Canonical for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }
}

/// Seven bits a byte, the lowest first, and no byte more than are needed.
impl Canonical for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while let low @ 0x80.. = rest {
            out.push(low.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        out.push(rest.to_le_bytes()[0]);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u8::read(from)?;
            let bits = u64::from(byte & 0x7f);
            if (shift > 0 && byte == 0) || (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has another spelling"))
    }
}

impl Canonical for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        u64::from(*self).write(out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::try_from(u64::read(from)?).map_err(|_| Malformed("a number is too great"))
    }
}

/// The sign is moved to the lowest bit, so that small numbers are short.
impl Canonical for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        ((self << 1) ^ (self >> 63)).cast_unsigned().write(out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let value = u64::read(from)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Canonical> Canonical for Arc<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::read(from).map(Self::new)
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        self.iter().for_each(|value| value.write(out));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(1)?;
        (0..count).map(|_| T::read(from)).collect()
    }
}

impl<K: Canonical + Ord, V: Canonical> Canonical for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut map = Self::new();
        for _ in 0..from.count(2)? {
            let key = K::read(from)?;
            ascending(map.last_key_value().map(|(last, _)| last), &key)?;
            map.insert(key, V::read(from)?);
        }
        Ok(map)
    }
}

/// The fields of a row, one after the other.
macro_rules! row {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::snapshot::Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $($crate::snapshot::Canonical::write($field, out);)+
            }
            fn read(
                from: &mut $crate::snapshot::Reader<'_>,
            ) -> Result<Self, $crate::snapshot::Malformed> {
                Ok(Self { $($field: $crate::snapshot::Canonical::read(from)?),+ })
            }
        }
    };
}
pub(crate) use row;

/// Variants without data, each by its number.
macro_rules! variants {
    ($name:ident { $($number:literal => $variant:ident),+ $(,)? }) => {
        impl $crate::snapshot::Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.push(match self { $(Self::$variant => $number),+ });
            }
            fn read(
                from: &mut $crate::snapshot::Reader<'_>,
            ) -> Result<Self, $crate::snapshot::Malformed> {
                match u8::read(from)? {
                    $($number => Ok(Self::$variant),)+
                    _ => Err($crate::snapshot::Malformed("a kind is unknown")),
                }
            }
        }
    };
}
pub(crate) use variants;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_has_one_spelling(value: u64, signed: i64, bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut out = Vec::new();
            value.write(&mut out);
            signed.write(&mut out);
            let mut from = Reader::new(&out);
            prop_assert_eq!((u64::read(&mut from), i64::read(&mut from)), (Ok(value), Ok(signed)));
            prop_assert_eq!(from.end(), Ok(()));
            let mut from = Reader::new(&bytes);
            if let Ok(read) = u64::read(&mut from) {
                let mut again = Vec::new();
                read.write(&mut again);
                prop_assert!(bytes.starts_with(&again));
                prop_assert_eq!(bytes.len() - again.len(), from.0.len());
            }
        }
    }

    #[test]
    fn no_count_makes_room_for_what_is_not_there() {
        let mut out = Vec::new();
        u64::MAX.write(&mut out);
        assert!(Vec::<u8>::read(&mut Reader::new(&out)).is_err());
        assert!(Reader::new(&out).text().is_err());
    }
}

//! Writes messages field by field, for answers that are made too often to be built first.
//!
//! What is written is what prost would write: fields whose value is the default are left
//! out. Fields must be written in ascending order of their numbers.

/// A varint field: numbers, enums, booleans. Left out where it is 0.
#[inline]
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint(out, u64::from(field) << 3);
        varint(out, value);
    }
}

/// An `int32` or `int64` field, or an enum's. Left out where it is 0.
#[inline]
pub fn signed(out: &mut Vec<u8>, field: u32, value: i64) {
    number(out, field, value.cast_unsigned());
}

/// A text. Left out where it is empty.
#[inline]
pub fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        item(out, field, value);
    }
}

/// A text of a list: never left out.
#[inline]
pub fn item(out: &mut Vec<u8>, field: u32, value: &str) {
    varint(out, u64::from(field) << 3 | LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// A message inside this one, or a text that is made in place: what `write` appends.
/// Never left out.
#[inline]
pub fn nested<R>(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    varint(out, u64::from(field) << 3 | LENGTH_DELIMITED);
    // One byte holds most lengths.
    let place = out.len();
    out.push(0);
    let begin = out.len();
    let written = write(out);
    let length = out.len() - begin;
    let (bytes, used) = encoded(length as u64);
    let more = used - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(begin..begin + length, begin + more);
    }
    for (to, byte) in out.iter_mut().skip(place).zip(bytes.iter().take(used)) {
        *to = *byte;
    }
    written
}

const LENGTH_DELIMITED: u64 = 2;
/// Most bytes of a varint.
const VARINT_BYTES_MAX: usize = 10;

#[inline]
fn varint(out: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(byte) if byte < 0x80 => out.push(byte),
        _ => {
            let (bytes, used) = encoded(value);
            out.extend(bytes.iter().take(used));
        }
    }
}

/// A varint, and of how many bytes.
fn encoded(mut value: u64) -> ([u8; VARINT_BYTES_MAX], usize) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let mut used = 0;
    for byte in &mut bytes {
        used += 1;
        *byte = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, used)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_are_protobufs(value in any::<u64>(), shift in 0_u32..64) {
            let mut expected = Vec::new();
            prost::encoding::encode_varint(value >> shift, &mut expected);
            let mut out = Vec::new();
            varint(&mut out, value >> shift);
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn lengths_of_any_size_are_put_in_front(before in 0_usize..3, length in 0_usize..40_000) {
            let mut out = vec![7; before];
            nested(&mut out, 3, |out| out.extend((0..length).map(|n| (n % 251) as u8)));
            let mut expected = vec![7; before];
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            prost::encoding::bytes::encode(3, &content, &mut expected);
            prop_assert_eq!(out, expected);
        }
    }
}

//! Looks at the bytes of a message, before it is decoded, for whatever protobuf would
//! forgive and a ledger must not.
//!
//! Start at [`check`]. Invariant: what passes, prost can decode; no input panics; no
//! allocation unless something is refused or a map has more than
//! [`MAP_KEYS_ON_STACK`] entries.

use std::fmt;

use super::table::{Field, Kind, Label, Message};

/// How deep messages may lie in each other.
pub const DEPTH_MAX: usize = 32;
/// Maps up to this size are checked for repeated keys without allocating.
pub const MAP_KEYS_ON_STACK: usize = 32;
/// Most characters of a caller's own text in a refusal.
const SHOWN_CHARS_MAX: usize = 64;

/// Checks the bytes of a message against its table.
///
/// # Errors
///
/// The first thing that is wrong, in the order of the bytes.
pub fn check(message: &'static Message, bytes: &[u8]) -> Result<(), Refusal> {
    scan(message, bytes, 1).map_err(|inner| Refusal { message: message.name, inner: *inner })
}

/// Why a message is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    message: &'static str,
    inner: Located,
}

impl Refusal {
    /// The path of the field, such as `at_least_revision[0].stream`; the message's name
    /// where no field could be made out.
    #[must_use]
    pub fn field(&self) -> String {
        match (&self.inner.fault, self.inner.path.as_str()) {
            (Fault::UnknownField(number), "") => number.to_string(),
            (Fault::UnknownField(number), path) => format!("{path}.{number}"),
            (_, "") => self.message.to_owned(),
            (_, path) => path.to_owned(),
        }
    }

    /// What is wrong with it, and what to do.
    #[must_use]
    pub fn description(&self) -> String {
        self.inner.fault.to_string()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Located { path, fault } = &self.inner;
        match (fault, path.as_str()) {
            (Fault::UnknownField(_), "") => write!(f, "{fault}"),
            (_, "") => write!(f, "`{}`: {fault}", self.message),
            (_, path) => write!(f, "`{path}`: {fault}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    path: String,
    fault: Fault,
}

/// What is wrong. Each text ends with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("ends in the middle; send the whole message")]
    Truncated,
    #[error("a number is longer than 64 bits; encode it as a varint of at most ten bytes")]
    Varint,
    #[error(
        "no field can begin like this; encode the message with a protobuf library, from this \
         server's .proto files"
    )]
    Tag,
    #[error("is encoded as a group, which proto3 does not have; use this server's .proto files")]
    Group,
    #[error("is encoded as another type than declared; use this server's .proto files")]
    WireType,
    #[error("is not UTF-8; send text in UTF-8")]
    NotUtf8,
    #[error("does not fit its type; send a number within its range")]
    OutOfRange,
    #[error(
        "field {0}: unknown to this server; leave it out, or ask a server whose version knows it"
    )]
    UnknownField(u32),
    #[error("value {0} is unknown to this server; use one of the values in its .proto files")]
    UnknownValue(i64),
    #[error("sent twice; send it once")]
    Twice,
    #[error("only one of {} may be sent, and only once; leave the others out", Names(.0))]
    OneOf(&'static [&'static str]),
    #[error("key `{}` sent twice; send each key once", Shown(.0))]
    MapKeyTwice(Vec<u8>),
    #[error("sent more than {0} times; send fewer")]
    TooMany(usize),
    #[error("lies more than {DEPTH_MAX} messages deep; send a flatter message")]
    TooDeep,
}

/// Names in backticks.
struct Names(&'static [&'static str]);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, name) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        Ok(())
    }
}

/// A caller's text, short and on one line.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.0);
        for character in text.chars().take(SHOWN_CHARS_MAX) {
            write!(f, "{}", character.escape_debug())?;
        }
        if text.chars().nth(SHOWN_CHARS_MAX).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

impl From<Fault> for Box<Located> {
    #[cold]
    fn from(fault: Fault) -> Self {
        Box::new(Located { path: String::new(), fault })
    }
}

type Scanned<T> = Result<T, Box<Located>>;

fn scan(message: &'static Message, bytes: &[u8], depth: usize) -> Scanned<()> {
    if depth > DEPTH_MAX {
        return Err(Fault::TooDeep.into());
    }
    let mut rest = bytes;
    let mut sent = 0_u64;
    while !rest.is_empty() {
        let behind = bytes.len() - rest.len();
        let (number, wire) = tag(&mut rest)?;
        let Some(field) = message.field(number) else {
            return Err(Fault::UnknownField(number).into());
        };
        scan_field(field, wire, bytes, &mut rest, &mut sent, depth)
            .map_err(|located| located.inside(field, bytes, behind))?;
    }
    Ok(())
}

/// One field behind its tag. `bytes` is the whole message it is in.
#[inline]
fn scan_field(
    field: &'static Field,
    wire: Wire,
    bytes: &[u8],
    rest: &mut &[u8],
    sent: &mut u64,
    depth: usize,
) -> Scanned<()> {
    if field.label != Label::Repeated || field.at_most > 0 {
        let bit = 1_u64 << (field.slot & 63);
        let again = *sent & bit != 0;
        *sent |= bit;
        match field.label {
            Label::Map if !again => map_keys_differ(field.number, bytes)?,
            Label::Singular if again && field.oneof.is_empty() => return Err(Fault::Twice.into()),
            Label::Singular if again => return Err(Fault::OneOf(field.oneof).into()),
            Label::Repeated if !again => no_more_than(field, bytes)?,
            Label::Map | Label::Singular | Label::Repeated => {}
        }
    }
    match wire {
        Wire::Group => Err(Fault::Group.into()),
        Wire::Length => {
            let length = varint(rest)?;
            let value = take(rest, length)?;
            match &field.kind {
                Kind::Message(message) => scan(message, value, depth + 1),
                Kind::String => match std::str::from_utf8(value) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(Fault::NotUtf8.into()),
                },
                Kind::Bytes => Ok(()),
                Kind::Bool
                | Kind::Int32
                | Kind::Uint32
                | Kind::Varint64
                | Kind::Enum(_)
                | Kind::Fixed32
                | Kind::Fixed64 => match field.label {
                    Label::Repeated => packed(&field.kind, value),
                    Label::Singular | Label::Map => Err(Fault::WireType.into()),
                },
            }
        }
        Wire::Varint | Wire::Fixed32 | Wire::Fixed64 => number(&field.kind, wire, rest),
    }
}

/// Numbers packed one behind the other.
fn packed(kind: &Kind, mut bytes: &[u8]) -> Scanned<()> {
    let wire = match kind {
        Kind::Fixed32 => Wire::Fixed32,
        Kind::Fixed64 => Wire::Fixed64,
        Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Varint64 | Kind::Enum(_) => Wire::Varint,
        Kind::String | Kind::Bytes | Kind::Message(_) => return Err(Fault::WireType.into()),
    };
    while !bytes.is_empty() {
        number(kind, wire, &mut bytes)?;
    }
    Ok(())
}

/// A number that is not length-delimited.
fn number(kind: &Kind, wire: Wire, rest: &mut &[u8]) -> Scanned<()> {
    let (expected, length) = match kind {
        Kind::Fixed32 => (Wire::Fixed32, 4),
        Kind::Fixed64 => (Wire::Fixed64, 8),
        Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Varint64 | Kind::Enum(_) => {
            (Wire::Varint, 0)
        }
        Kind::String | Kind::Bytes | Kind::Message(_) => return Err(Fault::WireType.into()),
    };
    if wire != expected {
        return Err(Fault::WireType.into());
    }
    if length > 0 {
        return take(rest, length).map(|_| ());
    }
    let value = varint(rest)?;
    // Negative numbers are sign-extended to 64 bits, whatever their type.
    let signed = value.cast_signed();
    let fits = match kind {
        Kind::Bool => value <= 1,
        Kind::Int32 => i32::try_from(signed).is_ok(),
        Kind::Uint32 => u32::try_from(value).is_ok(),
        Kind::Enum(numbers) => {
            let known = i32::try_from(signed).is_ok_and(|value| numbers.contains(&value));
            return if known { Ok(()) } else { Err(Fault::UnknownValue(signed).into()) };
        }
        Kind::Varint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::String
        | Kind::Bytes
        | Kind::Message(_) => true,
    };
    if fits { Ok(()) } else { Err(Fault::OutOfRange.into()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Varint,
    Fixed64,
    Length,
    Group,
    Fixed32,
}

#[inline]
fn tag(rest: &mut &[u8]) -> Scanned<(u32, Wire)> {
    let key = u32::try_from(varint(rest)?).map_err(|_| Fault::Tag)?;
    let wire = match key & 7 {
        0 => Wire::Varint,
        1 => Wire::Fixed64,
        2 => Wire::Length,
        3 | 4 => Wire::Group,
        5 => Wire::Fixed32,
        _ => return Err(Fault::Tag.into()),
    };
    if key < 8 { Err(Fault::Tag.into()) } else { Ok((key >> 3, wire)) }
}

#[inline]
fn varint(rest: &mut &[u8]) -> Scanned<u64> {
    let Some((&first, behind)) = rest.split_first() else { return Err(Fault::Truncated.into()) };
    if first < 0x80 {
        *rest = behind;
        return Ok(u64::from(first));
    }
    long_varint(rest)
}

fn long_varint(rest: &mut &[u8]) -> Scanned<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, behind)) = rest.split_first() else {
            return Err(Fault::Truncated.into());
        };
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Fault::Varint.into())
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: u64) -> Scanned<&'a [u8]> {
    let taken = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((value, behind)) = taken else { return Err(Fault::Truncated.into()) };
    *rest = behind;
    Ok(value)
}

/// The fields of a message as far as they can be made out: number, and value where it is
/// length-delimited. What is malformed ends it: the scan proper says so.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (number, wire) = tag(&mut rest).ok()?;
        let value = match wire {
            Wire::Length => {
                let length = varint(&mut rest).ok()?;
                take(&mut rest, length).ok()?
            }
            Wire::Varint => varint(&mut rest).map(|_| &[][..]).ok()?,
            Wire::Fixed32 => take(&mut rest, 4).map(|_| &[][..]).ok()?,
            Wire::Fixed64 => take(&mut rest, 8).map(|_| &[][..]).ok()?,
            Wire::Group => return None,
        };
        Some((number, value))
    })
}

/// Checks that no two entries of a map have the same key. An entry without one has the
/// empty key.
fn map_keys_differ(map: u32, bytes: &[u8]) -> Scanned<()> {
    let keys = || {
        let entries = fields(bytes).filter(move |(number, _)| *number == map);
        entries.map(|(_, entry)| {
            fields(entry).find(|(number, _)| *number == 1).map_or(&[][..], |(_, key)| key)
        })
    };
    let mut few = [&[][..]; MAP_KEYS_ON_STACK];
    for (count, key) in keys().enumerate() {
        let (before, free) = few.split_at_mut(count.min(MAP_KEYS_ON_STACK));
        let Some(place) = free.first_mut() else {
            return many_map_keys_differ(keys().collect());
        };
        if before.contains(&key) {
            return Err(Fault::MapKeyTwice(key.to_vec()).into());
        }
        *place = key;
    }
    Ok(())
}

/// The same for many entries, without taking quadratic time.
fn many_map_keys_differ(mut keys: Vec<&[u8]>) -> Scanned<()> {
    keys.sort_unstable();
    match keys.array_windows().find(|[one, next]| one == next) {
        Some([key, _]) => Err(Fault::MapKeyTwice(key.to_vec()).into()),
        None => Ok(()),
    }
}

/// Checks that a repeated field is not sent more often than it may be.
fn no_more_than(field: &Field, bytes: &[u8]) -> Scanned<()> {
    let mut sent = fields(bytes).filter(|(number, _)| *number == field.number);
    match sent.nth(field.at_most) {
        Some(_) => Err(Fault::TooMany(field.at_most).into()),
        None => Ok(()),
    }
}

impl Located {
    /// The same, seen from the message that holds `field`, which begins `behind` bytes into it.
    #[cold]
    fn inside(mut self: Box<Self>, field: &Field, bytes: &[u8], behind: usize) -> Box<Self> {
        let whole = matches!(self.fault, Fault::MapKeyTwice(_) | Fault::TooMany(_));
        let whole = whole && self.path.is_empty();
        let mut path = field.name.to_owned();
        if field.label != Label::Singular && !whole {
            let before = bytes.get(..behind).unwrap_or_default();
            let index = fields(before).filter(|(number, _)| *number == field.number).count();
            path.push_str(&format!("[{index}]"));
        }
        if !self.path.is_empty() {
            path.push('.');
            path.push_str(&self.path);
        }
        self.path = path;
        self
    }
}

//! What a message may hold, as static tables that `build.rs` makes from the `.proto` files.

/// A message: its fields by ascending number.
#[derive(Debug)]
pub struct Message {
    /// The full name, such as `keyledger.v1.VerifyRequest`.
    pub name: &'static str,
    /// The fields, by ascending number.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in the `.proto` file.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// How often it may be sent.
    pub label: Label,
    /// The bit that says it was sent, below 64. Members of one oneof share it; unused
    /// for repeated fields that are not counted.
    pub slot: u8,
    /// All members of the oneof it is in; empty if it is in none.
    pub oneof: &'static [&'static str],
    /// Most values of a repeated field, where so many could not even be decoded without
    /// harm; 0 for any number. Its slot says that they were counted.
    pub at_most: usize,
}

/// How often a field may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Singular,
    /// As often as wanted.
    Repeated,
    /// As often as wanted, with another key each time.
    Map,
}

/// What a field holds, as far as the wire shows it.
#[derive(Debug)]
pub enum Kind {
    /// 0 or 1 as a varint.
    Bool,
    /// A varint that is sign-extended to 64 bits.
    Int32,
    /// A varint below 2^32.
    Uint32,
    /// Any varint.
    Varint64,
    /// One of these numbers, as a varint.
    Enum(&'static [i32]),
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// UTF-8.
    String,
    /// Any bytes.
    Bytes,
    /// A message, or a map's entry.
    Message(&'static Message),
}

impl Message {
    /// The field of this number.
    #[must_use]
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        // Most messages number their fields 1, 2, 3, …
        let dense = self.fields.get(number.wrapping_sub(1) as usize);
        if let Some(field) = dense.filter(|field| field.number == number) {
            return Some(field);
        }
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(at)
    }
}

include!(concat!(env!("OUT_DIR"), "/wire_tables.rs"));

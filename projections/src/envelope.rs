//! The stored form of an event.

/// Most bytes in one stored event, its envelope included.
pub const STORED_BYTES_MAX: usize = 65_535;

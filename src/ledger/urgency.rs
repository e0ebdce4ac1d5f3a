//! How badly a write is wanted where space runs out.

/// Whether a write may use the space that is set aside for the worst hour.
///
/// A full disk must not keep anybody from ending access: a leaked key that cannot be
/// revoked is the worst of all outages. So adapters of the ledger's ports keep space back
/// that only [`Urgency::Reserved`] writes may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Refused before it would take of what is set aside.
    Normal,
    /// Ends access, or finishes what was begun: may use what is set aside.
    Reserved,
}

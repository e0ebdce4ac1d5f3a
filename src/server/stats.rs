//! What the server counts about its connections.

use crate::meter::{Counter, Gauge};

/// Connections, counted.
#[derive(Debug, Default)]
pub(crate) struct ConnectionStats {
    /// Accepted so far.
    pub(crate) accepted: Counter,
    /// Open now, those in their handshake among them.
    pub(crate) open: Gauge,
    /// Closed at once because too many were open.
    pub(crate) refused: Counter,
    /// Ended because the TLS handshake failed or took too long.
    pub(crate) handshakes_failed: Counter,
}

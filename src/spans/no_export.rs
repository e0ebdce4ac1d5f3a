//! In place of [`export`](super::export) in a program that was built without the feature
//! `otel`: there, a configuration that names a collector is refused.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Span, SpanStats};
use crate::config::Collector;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The operating system gives no entropy.
    #[error("the operating system gives no entropy")]
    NoEntropy,
    /// Nothing here can send them.
    #[error("this program was built without OpenTelemetry")]
    NotBuilt,
}

/// There is none.
pub(crate) struct Exporter(Infallible);

impl Exporter {
    pub(super) fn start(
        _: &Collector,
        _: mpsc::Receiver<Span>,
        _: Arc<SpanStats>,
    ) -> Result<Self, ExportError> {
        Err(ExportError::NotBuilt)
    }

    pub(crate) async fn flush(self) {
        match self.0 {}
    }
}

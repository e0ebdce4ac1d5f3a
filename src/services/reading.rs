//! What is recorded of those who read.

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::event::{HistoryRead, WayOfReading};
use projections::text::Label;
use projections::time::Timestamp;
use tonic::{Request, Status};

use super::authentication::Authenticated;
use super::key::Context;
use super::status;
use crate::ledger::Ledger;
use crate::ledger::command::{Command, Personal};
use crate::ledger::tables::Published;

/// A reading of an organization's history: in which way, and what was asked for.
pub(super) struct Reading {
    way: WayOfReading,
    asked: BTreeMap<Label, String>,
    /// What may be about a person, in the words of whoever asks: it is sealed.
    wrote: String,
}

impl Reading {
    pub(super) fn new(way: WayOfReading) -> Self {
        Self { way, asked: BTreeMap::new(), wrote: String::new() }
    }

    /// A field of the question; nothing where it is empty. For identifiers, instants, and
    /// words that the ledger knows: it stays in clear for ever.
    #[must_use]
    pub(super) fn asking(mut self, field: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if let (false, Ok(field)) = (value.is_empty(), field.parse()) {
            self.asked.insert(field, value);
        }
        self
    }

    /// A field that is an instant.
    #[must_use]
    pub(super) fn asking_at(self, field: &str, at: Option<&prost_types::Timestamp>) -> Self {
        let millis =
            at.map(|at| at.seconds.saturating_mul(1_000) + i64::from(at.nanos) / 1_000_000);
        let at = millis.and_then(Timestamp::from_millis);
        self.asking(field, at.map(|at| at.to_string()).unwrap_or_default())
    }

    /// The same, for whatever else.
    #[must_use]
    pub(super) fn writing(mut self, field: &str, value: &str) -> Self {
        if !value.is_empty() {
            let gap = if self.wrote.is_empty() { "" } else { "; " };
            self.wrote.push_str(&format!("{gap}{field}: {value}"));
        }
        self
    }

    /// Records it: see [`Ledger::record_reading`].
    pub(super) async fn record<T>(
        self,
        ledger: &Arc<Ledger>,
        request: &Request<T>,
        reader: &Authenticated,
        organization: &Published,
    ) -> Result<(), Status> {
        let Self { way, asked, wrote } = self;
        let mut context = Context::of(ledger, reader, request)?;
        if !wrote.is_empty() {
            context.personal.0.insert(Personal::COMMENT.to_owned(), wrote);
        }
        let event = HistoryRead { way, asked, and_more: false };
        let order = context.plain_order(Command::RecordReading(event));
        ledger.record_reading(organization.id, order).await.map_err(status::from)
    }
}

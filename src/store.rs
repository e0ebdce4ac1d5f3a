//! What keeps the events: adapters of [`crate::ledger::event_store::EventStore`].

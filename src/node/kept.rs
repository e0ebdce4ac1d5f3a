//! What keeps a node's events: a database of its own, or a server's.

use std::sync::Arc;

#[cfg(feature = "eventstore")]
use super::engine::Engine;
use crate::ledger::contact::{Contact, Loss};
use crate::ledger::event_store::EventStore;
use crate::store::embedded::EmbeddedStore;
use crate::store::stats::StoreStats;

/// The event store of a node, and what else it knows of it.
pub(super) enum Kept {
    Embedded(Arc<EmbeddedStore>),
    #[cfg(feature = "eventstore")]
    Engine(Engine),
}

impl Kept {
    pub(super) fn event_store(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Embedded(store) => Arc::clone(store) as _,
            #[cfg(feature = "eventstore")]
            Self::Engine(engine) => engine.event_store(),
        }
    }

    pub(super) fn stats(&self) -> &Arc<StoreStats> {
        match self {
            Self::Embedded(store) => store.stats(),
            #[cfg(feature = "eventstore")]
            Self::Engine(engine) => engine.stats(),
        }
    }

    /// Gives up space for a file that is as urgent as an event; false where none is kept.
    pub(super) fn release_reserve(&self) -> bool {
        match self {
            Self::Embedded(store) => store.release_reserve(),
            #[cfg(feature = "eventstore")]
            Self::Engine(_) => false,
        }
    }

    pub(super) fn contact(&self) -> Option<Arc<Contact>> {
        match self {
            Self::Embedded(_) => None,
            #[cfg(feature = "eventstore")]
            Self::Engine(engine) => Some(engine.contact()),
        }
    }

    pub(super) async fn lost(&self) -> Loss {
        match self {
            Self::Embedded(_) => std::future::pending().await,
            #[cfg(feature = "eventstore")]
            Self::Engine(engine) => engine.lost().await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Embedded(store) => store.close().await,
            #[cfg(feature = "eventstore")]
            Self::Engine(engine) => engine.close().await,
        }
    }
}

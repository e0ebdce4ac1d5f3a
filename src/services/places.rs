//! Places for calls that stay or wait, of which no organization may take them all.
//!
//! Such a call costs its sender next to nothing, so each tenant has a share: whoever has
//! used theirs is refused while others still find room. The operator's organization asks
//! for everybody, and has no share but the whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use projections::id::OrganizationId;
use tonic::Status;

use super::status;

/// One in how many of these places one organization may hold.
const PLACES_PER_SHARE: usize = 4;

/// So many places, and who holds how many of them.
#[derive(Debug)]
pub struct Places {
    /// What they are for, in words.
    what: &'static str,
    places_max: usize,
    share_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<OrganizationId, usize>,
}

impl Places {
    /// So many places, but one at least, for what is called this where it is refused.
    #[must_use]
    pub fn new(what: &'static str, places_max: usize) -> Arc<Self> {
        let places_max = places_max.max(1);
        let share_max = (places_max / PLACES_PER_SHARE).max(1);
        Arc::new(Self { what, places_max, share_max, held: Mutex::default() })
    }

    /// Takes a place for an organization. RESOURCE_EXHAUSTED where all are taken, or as
    /// many by this organization as one may hold.
    pub fn take(self: &Arc<Self>, id: OrganizationId) -> Result<Place, Status> {
        let mut held = self.held();
        if held.all >= self.places_max {
            return Err(status::too_many_requests());
        }
        let own = held.by.entry(id).or_default();
        if *own >= self.share_max && !id.is_operator() {
            return Err(status::share_used_up(self.what, self.share_max));
        }
        *own += 1;
        held.all += 1;
        Ok(Place { places: Arc::clone(self), id })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: OrganizationId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.all = held.all.saturating_sub(1);
        if let Some(own) = held.by.get_mut(&self.id) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.by.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tenant(number: u8) -> OrganizationId {
        OrganizationId::from_bytes([number; 16])
    }

    #[test]
    fn no_tenant_takes_more_than_its_share_and_the_operator_takes_all() {
        let places = Places::new("streams open", 8);
        let mut taken = Vec::new();
        for number in 1..=3 {
            taken.extend((0..2).map(|_| places.take(tenant(number)).unwrap()));
            let refusal = places.take(tenant(number)).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
            assert!(refusal.message().contains("has 2 streams open"), "{refusal:?}");
        }
        taken.extend((0..2).map(|_| places.take(OrganizationId::OPERATOR).unwrap()));
        for id in [tenant(4), OrganizationId::OPERATOR] {
            let refusal = places.take(id).unwrap_err();
            assert!(!refusal.message().contains("streams open"), "all are taken: {refusal:?}");
        }
        // A place that is let go of is free, for anybody who has not used their share.
        taken.remove(0);
        assert!(places.take(tenant(2)).is_err());
        let again = places.take(tenant(1)).unwrap();
        drop((taken, again));
        let all: Vec<_> = (0..8).map(|_| places.take(OrganizationId::OPERATOR).unwrap()).collect();
        drop(all);
        assert!(places.held().by.is_empty(), "nothing is kept of who has left");
        assert_eq!(places.held().all, 0);
    }

    #[test]
    fn everybody_finds_one_place_where_there_are_few() {
        for places_max in 0..4 {
            let places = Places::new("streams open", places_max);
            let first = places.take(tenant(1)).unwrap();
            assert!(places.take(tenant(1)).is_err());
            assert_eq!(places.take(tenant(2)).is_ok(), places_max > 1);
            drop(first);
        }
    }
}

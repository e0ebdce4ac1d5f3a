//! What this process has seen of the engine, so that it notices what is taken away.
//!
//! For each stream the last revision that was read or acknowledged, and the gaps that
//! reading has found; for all streams together the furthest place that was read. An answer
//! that ends before is from the past: a node that was cut off, or a restored backup.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use projections::recorded::{Revision, StreamName};

use super::wire::Place;

/// Most gaps that are remembered; beyond, they are looked for anew.
const GAPS_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    streams: HashMap<StreamName, Stream>,
    gaps: usize,
    furthest: Option<Place>,
}

#[derive(Default)]
struct Stream {
    head: Option<Revision>,
    /// The last revision that was acknowledged to this process.
    written: Option<Revision>,
    /// Up to here, nothing was missing when it was read or written.
    whole: Option<Revision>,
    /// The first missing revision, by the revision that stands behind the gap.
    gaps: BTreeMap<Revision, Revision>,
}

/// What is known of the place in front of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// The event in front of it was there.
    Whole,
    /// This and what is behind it are missing.
    Gap(Revision),
    /// Nobody has looked.
    Unknown,
}

impl Known {
    /// The last revision of a stream that was ever seen.
    pub(super) fn head(&self, stream: &StreamName) -> Option<Revision> {
        self.lock().streams.get(stream)?.head
    }

    /// A stream holds these revisions, one after the other.
    pub(super) fn saw(&self, stream: &StreamName, first: Revision, last: Revision) {
        let mut inner = self.lock();
        if !inner.streams.contains_key(stream) {
            inner.streams.insert(stream.clone(), Stream::default());
        }
        let Some(known) = inner.streams.get_mut(stream) else { return };
        known.head = known.head.max(Some(last));
        if first <= Revision::after(known.whole) {
            known.whole = known.whole.max(Some(last));
        }
    }

    /// These revisions of a stream were written here.
    pub(super) fn wrote(&self, stream: &StreamName, first: Revision, last: Revision) {
        self.saw(stream, first, last);
        if let Some(known) = self.lock().streams.get_mut(stream) {
            known.written = known.written.max(Some(last));
        }
    }

    /// The last revision of a stream that was written here.
    pub(super) fn written(&self, stream: &StreamName) -> Option<Revision> {
        self.lock().streams.get(stream)?.written
    }

    /// A stream holds this revision, and what is missing in front of it is known.
    pub(super) fn saw_behind_known(&self, stream: &StreamName, revision: Revision) {
        self.saw(stream, revision, revision);
        if let Some(known) = self.lock().streams.get_mut(stream) {
            known.whole = known.whole.max(Some(revision));
        }
    }

    /// Up to where nothing was missing.
    pub(super) fn whole(&self, stream: &StreamName) -> Option<Revision> {
        self.lock().streams.get(stream)?.whole
    }

    /// What is known of the place in front of this one.
    pub(super) fn before(&self, stream: &StreamName, revision: Revision) -> Before {
        let inner = self.lock();
        let known = inner.streams.get(stream);
        if let Some(first) = known.and_then(|known| known.gaps.get(&revision)) {
            return Before::Gap(*first);
        }
        let whole = known.and_then(|known| known.whole);
        if revision <= Revision::after(whole) { Before::Whole } else { Before::Unknown }
    }

    /// From `first` on to the place in front of `revision` there is nothing.
    pub(super) fn found_gap(&self, stream: &StreamName, first: Revision, revision: Revision) {
        let mut inner = self.lock();
        if inner.gaps >= GAPS_MAX {
            return;
        }
        inner.gaps += 1;
        inner.streams.entry(stream.clone()).or_default().gaps.insert(revision, first);
    }

    /// The furthest place that was read.
    pub(super) fn furthest(&self) -> Option<Place> {
        self.lock().furthest
    }

    /// Reading has come this far.
    pub(super) fn reached(&self, place: Place) {
        let mut inner = self.lock();
        inner.furthest = inner.furthest.max(Some(place));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

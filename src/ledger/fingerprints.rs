//! A filter in front of the disk: which digests may be those of dead keys.
//!
//! Eight bytes for each dead key, the beginning of its digest, in sorted runs. Digests are
//! keyed, so that nobody outside can make one that looks like another's: what is not here
//! is no dead key, and what is here is one, but for a chance of one in 2⁶⁴ for each. A
//! stranger's made-up credential therefore costs a few probes of memory and no disk.
//!
//! Each addition is a run of its own; runs are merged when they are about as long as the one
//! behind them, so that there are few of them and each number is moved rarely.

use std::sync::Arc;

use projections::digest::SecretDigest;

/// The fingerprint of a digest.
#[must_use]
pub fn of(digest: &SecretDigest) -> u64 {
    let [first, _] = digest.head();
    first
}

/// Fingerprints in ascending order, under a number that no other run has.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number.
    pub number: u64,
    sorted: Vec<u64>,
}

impl Run {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.sorted.iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    /// From bytes; none where they are no run.
    #[must_use]
    pub fn from_bytes(number: u64, bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let sorted: Vec<u64> = words.iter().map(|it| u64::from_le_bytes(*it)).collect();
        (rest.is_empty() && sorted.is_sorted()).then_some(Self { number, sorted })
    }
}

/// The runs, longer ones first. A value: additions make another one.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints(Vec<Arc<Run>>);

/// What an addition did to the runs.
pub struct Added {
    /// The fingerprints, the new ones among them.
    pub all: Fingerprints,
    /// The run that the new ones are in.
    pub run: Arc<Run>,
    /// The numbers of the runs that were merged into it.
    pub merged: Vec<u64>,
}

impl Fingerprints {
    /// The fingerprints of these runs.
    #[must_use]
    pub fn new(mut runs: Vec<Run>) -> Self {
        runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        Self(runs.into_iter().map(Arc::new).collect())
    }

    /// The runs.
    pub fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.0.iter()
    }

    /// Whether a key with this digest may be dead.
    #[must_use]
    pub fn may_hold(&self, digest: &SecretDigest) -> bool {
        let wanted = of(digest);
        self.0.iter().any(|run| run.sorted.binary_search(&wanted).is_ok())
    }

    /// The same with these added.
    #[must_use]
    pub fn with(&self, mut sorted: Vec<u64>) -> Added {
        let number = self.0.iter().map(|run| run.number + 1).max().unwrap_or_default();
        let mut kept = self.0.clone();
        let mut merged = Vec::new();
        while let Some(last) = kept.pop_if(|last| last.len() <= 2 * sorted.len()) {
            merged.push(last.number);
            sorted.extend_from_slice(&last.sorted);
        }
        sorted.sort_unstable();
        let run = Arc::new(Run { number, sorted });
        kept.push(Arc::clone(&run));
        Added { all: Self(kept), run, merged }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(value: u64) -> SecretDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        SecretDigest(bytes)
    }

    proptest! {
        #[test]
        fn all_that_was_added_is_there(rounds in prop::collection::vec(prop::collection::vec(0_u64..500, 0..20), 0..30)) {
            let mut all = Fingerprints::default();
            let mut kept = std::collections::BTreeMap::new();
            for round in &rounds {
                let added = all.with(round.clone());
                for number in &added.merged {
                    prop_assert!(kept.remove(number).is_some());
                }
                prop_assert!(kept.insert(added.run.number, added.run.to_bytes()).is_none());
                all = added.all;
            }
            let read = kept.iter().map(|(number, bytes)| Run::from_bytes(*number, bytes).unwrap());
            let read = Fingerprints::new(read.collect());
            for value in 0..500 {
                let there = rounds.iter().flatten().any(|it| *it == value);
                prop_assert_eq!(all.may_hold(&digest(value)), there);
                prop_assert_eq!(read.may_hold(&digest(value)), there);
            }
        }
    }

    #[test]
    fn runs_stay_few() {
        let mut all = Fingerprints::default();
        for number in 0..1_000 {
            all = all.with(vec![number]).all;
        }
        assert!(all.runs().count() <= 10, "{}", all.runs().count());
        assert!(Run::from_bytes(0, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(Run::from_bytes(0, &[1]).is_none());
    }
}

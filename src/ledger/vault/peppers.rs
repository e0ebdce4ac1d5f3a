//! Peppers: the keys under which credentials are digested.
//!
//! Whoever has the log has digests only, and whoever has digests cannot try credentials
//! against them without the pepper, which is a file apart. Peppers rotate: new digests
//! are made under the current one, old ones stay comparable under the one that made them.

use std::fmt;

use projections::digest::SecretDigest;
use zeroize::Zeroizing;

/// Which pepper: 1, 2, 3, … in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PepperId(pub u32);

impl PepperId {
    /// The pepper of the first start.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The current pepper and the retired ones. It cannot be printed, and is overwritten
/// when dropped.
pub struct Peppers {
    current: PepperId,
    current_key: Zeroizing<[u8; 32]>,
    retired: Vec<(PepperId, Zeroizing<[u8; 32]>)>,
}

impl Peppers {
    /// A current pepper alone.
    #[must_use]
    pub fn new(current: PepperId, key: Zeroizing<[u8; 32]>) -> Self {
        Self { current, current_key: key, retired: Vec::new() }
    }

    /// The same with one retired pepper more.
    #[must_use]
    pub fn with_retired(mut self, id: PepperId, key: Zeroizing<[u8; 32]>) -> Self {
        self.retired.push((id, key));
        self
    }

    /// The same with this pepper as the current one, and without those that are not known;
    /// none if it is not among them.
    #[must_use]
    pub fn with_current(self, current: PepperId, known: impl Fn(PepperId) -> bool) -> Option<Self> {
        let Self { current: before, current_key, mut retired } = self;
        retired.push((before, current_key));
        retired.retain(|(id, _)| known(*id));
        // Newest first: most keys that are not under the current one are under the last.
        retired.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
        let place = retired.iter().position(|(id, _)| *id == current)?;
        let (current, current_key) = retired.remove(place);
        Some(Self { current, current_key, retired })
    }

    /// Whether this pepper is among them.
    #[must_use]
    pub fn has(&self, id: PepperId) -> bool {
        id == self.current || self.retired.iter().any(|(retired, _)| *retired == id)
    }

    /// The pepper under which new digests are made.
    #[must_use]
    pub fn current(&self) -> PepperId {
        self.current
    }

    /// What stands for this credential from now on.
    #[must_use]
    pub fn digest(&self, credential: &[u8]) -> SecretDigest {
        digest(&self.current_key, credential)
    }

    /// What stood for this credential under that pepper; none if there is no such pepper.
    #[must_use]
    pub fn digest_under(&self, id: PepperId, credential: &[u8]) -> Option<SecretDigest> {
        if id == self.current {
            return Some(self.digest(credential));
        }
        let (_, key) = self.retired.iter().find(|(retired, _)| *retired == id)?;
        Some(digest(key, credential))
    }

    /// What stands for this credential now, then what stood for it under each retired pepper.
    pub fn digests(&self, credential: &[u8]) -> impl Iterator<Item = SecretDigest> {
        let keys =
            std::iter::once(&self.current_key).chain(self.retired.iter().map(|(_, key)| key));
        keys.map(move |key| digest(key, credential))
    }
}

fn digest(key: &[u8; 32], credential: &[u8]) -> SecretDigest {
    SecretDigest(*blake3::keyed_hash(key, credential).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pepper_gives_its_own_digests() {
        let key = |byte| Zeroizing::new([byte; 32]);
        let (one, two) = (PepperId(1), PepperId(2));
        let before = Peppers::new(one, key(1));
        let after = Peppers::new(two, key(2)).with_retired(one, key(1));
        let credential: &[u8] = b"vtx_live_x";
        assert_ne!(before.digest(credential), after.digest(credential));
        assert_eq!(after.digest_under(one, credential), Some(before.digest(credential)));
        assert_eq!(after.digest_under(two, credential), Some(after.digest(credential)));
        assert_eq!(after.digest_under(PepperId(3), credential), None);
        let all: Vec<_> = after.digests(credential).collect();
        assert_eq!(all, [after.digest(credential), before.digest(credential)]);
        let back = after.with_current(one, |_| true).unwrap();
        assert_eq!((back.current(), back.has(two)), (one, true));
        assert_eq!(back.digest(credential), before.digest(credential));
        let alone = back.with_current(one, |id| id == one).unwrap();
        assert!(alone.has(one) && !alone.has(two));
        assert!(alone.with_current(two, |_| true).is_none());
        // The digest is BLAKE3's keyed mode and nothing else: logs in the field rest on it.
        assert_eq!(
            Peppers::new(one, key(0)).digest(b"").to_string(),
            blake3::keyed_hash(&[0; 32], b"").to_hex().as_str()
        );
    }
}

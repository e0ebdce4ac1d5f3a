//! Entropy, and what it is for: secrets, keys and identifiers.
//!
//! Secrets and keys come straight from the operating system, each one. Identifiers need
//! only be unique and cannot wait for a system call each: [`Ids`] draws them from a
//! keyed BLAKE3 that the operating system seeded once.
//!
//! This file and `ledger/clock.rs` are the only ones that touch the outside.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use projections::id::{
    AccountId, BreakGlassGrantId, EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId,
    ServiceAccountId, SessionId, UserId,
};
use projections::time::Timestamp;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Characters in the random part of a credential.
pub const SECRET_CHARS: usize = 36;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The operating system gave no entropy: nothing secret can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no entropy: {0}")]
pub struct NoEntropy(getrandom::Error);

fn fill(bytes: &mut [u8]) -> Result<(), NoEntropy> {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks for entropy")]
    getrandom::fill(bytes).map_err(NoEntropy)
}

/// 128 random bits.
///
/// # Errors
///
/// The operating system gives no entropy.
pub fn random_u128() -> Result<u128, NoEntropy> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes))
}

/// A random key of 256 bits.
///
/// # Errors
///
/// The operating system gives no entropy.
pub fn random_key() -> Result<Zeroizing<[u8; 32]>, NoEntropy> {
    let mut key = Zeroizing::new([0; 32]);
    fill(key.as_mut_slice())?;
    Ok(key)
}

/// The random part of a credential: [`SECRET_CHARS`] base62 characters, more than 214 bits.
///
/// # Errors
///
/// The operating system gives no entropy.
pub fn mint_secret_text() -> Result<Zeroizing<String>, NoEntropy> {
    // Room from the start: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_CHARS));
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < SECRET_CHARS {
        fill(bytes.as_mut_slice())?;
        let characters = bytes.iter().filter_map(|byte| base62(*byte));
        let missing = SECRET_CHARS - text.len();
        text.extend(characters.take(missing));
    }
    Ok(text)
}

/// The character of a random byte. The 8 bytes that do not divide evenly among the 62
/// characters are thrown away, so that none is likelier than another.
fn base62(byte: u8) -> Option<char> {
    let evenly = byte < 62 * 4;
    let character = BASE62.get(usize::from(byte % 62)).filter(|_| evenly)?;
    Some(char::from(*character))
}

/// A text that must not be seen: it cannot be printed, is compared in constant time and
/// is overwritten when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<Zeroizing<String>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who must use it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    /// In a time that tells nothing but whether the lengths are equal.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// Makes identifiers, fast and from any thread.
///
/// The n-th is BLAKE3 of n under a key that the operating system gave: a pseudorandom
/// function in counter mode, so no two are equal but by the chance that random ones are,
/// and none can be guessed from others. That is enough for names; secrets are never made so.
pub struct Ids {
    key: Zeroizing<[u8; 32]>,
    next: AtomicU64,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").finish_non_exhaustive()
    }
}

impl Ids {
    /// Identifiers that no other process makes.
    ///
    /// # Errors
    ///
    /// The operating system gives no entropy.
    pub fn from_system() -> Result<Self, NoEntropy> {
        Ok(Self { key: random_key()?, next: AtomicU64::new(0) })
    }

    /// The same identifiers each time: for tests only.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let key = blake3::hash(&seed.to_le_bytes());
        Self { key: Zeroizing::new(*key.as_bytes()), next: AtomicU64::new(0) }
    }

    /// A new event's.
    pub fn event(&self, at: Timestamp) -> EventId {
        EventId::from_parts(millis(at), self.draw())
    }

    /// A new key's.
    pub fn key(&self, at: Timestamp) -> KeyId {
        KeyId::from_parts(millis(at), self.draw())
    }

    /// A new service account's.
    pub fn service_account(&self, at: Timestamp) -> ServiceAccountId {
        ServiceAccountId::from_parts(millis(at), self.draw())
    }

    /// A new break-glass grant's.
    pub fn break_glass_grant(&self, at: Timestamp) -> BreakGlassGrantId {
        BreakGlassGrantId::from_parts(millis(at), self.draw())
    }

    /// A new grant's.
    pub fn grant(&self, at: Timestamp) -> GrantId {
        GrantId::from_parts(millis(at), self.draw())
    }

    /// A new account's.
    pub fn account(&self, at: Timestamp) -> AccountId {
        AccountId::from_parts(millis(at), self.draw())
    }

    /// A new user's.
    pub fn user(&self, at: Timestamp) -> UserId {
        UserId::from_parts(millis(at), self.draw())
    }

    /// A new session's.
    pub fn session(&self, at: Timestamp) -> SessionId {
        SessionId::from_parts(millis(at), self.draw())
    }

    /// A new role's.
    #[must_use]
    pub fn role(&self, at: Timestamp) -> RoleId {
        RoleId::from_parts(millis(at), self.draw())
    }

    /// A new organization's.
    pub fn organization(&self, at: Timestamp) -> OrganizationId {
        OrganizationId::from_parts(millis(at), self.draw())
    }

    /// A new installation's.
    pub fn installation(&self, at: Timestamp) -> InstallationId {
        InstallationId::from_parts(millis(at), self.draw())
    }

    /// A new trace's: it carries no time, and is not zero.
    pub fn trace(&self) -> u128 {
        self.draw().max(1)
    }

    /// A new span's: as a trace's, and half as long.
    pub fn span(&self) -> u64 {
        u64::try_from(self.draw() >> 64).unwrap_or(1).max(1)
    }

    fn draw(&self) -> u128 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let drawn = blake3::keyed_hash(&self.key, &n.to_le_bytes());
        drawn.as_bytes().iter().take(16).fold(0, |value, byte| value << 8 | u128::from(*byte))
    }
}

/// Milliseconds since 1970, as identifiers carry them: none before that year.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_character_stands_for_four_bytes() {
        let mut counts = BTreeMap::new();
        for character in (0..=u8::MAX).filter_map(base62) {
            *counts.entry(character).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 62);
        assert!(counts.values().all(|count| *count == 4), "{counts:?}");
        assert!(counts.keys().all(char::is_ascii_alphanumeric));
    }

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let texts: HashSet<String> =
            (0..1_000).map(|_| mint_secret_text().unwrap().to_string()).collect();
        assert_eq!(texts.len(), 1_000);
        for text in &texts {
            assert_eq!(text.len(), SECRET_CHARS);
            assert!(text.bytes().all(|byte| BASE62.contains(&byte)), "{text}");
        }
        // All 62 characters come up: 36,000 draws miss a given one with probability e^-580.
        let seen: HashSet<u8> = texts.iter().flat_map(|text| text.bytes()).collect();
        assert_eq!(seen.len(), 62);
        assert_ne!(random_u128(), random_u128());
        assert_ne!(*random_key().unwrap(), *random_key().unwrap());
    }

    #[test]
    fn secrets_are_equal_by_their_text() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(secret("a") == secret("a"));
        assert!(secret("a") != secret("b"));
        assert!(secret("a") != secret("ab"));
        assert_eq!(secret("a").expose(), "a");
    }

    #[test]
    fn identifiers_are_unique_across_threads_and_carry_their_time() {
        let ids = Arc::new(Ids::from_system().unwrap());
        let at: Timestamp = "2026-04-02T10:00:00.000Z".parse().unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ids = Arc::clone(&ids);
                std::thread::spawn(move || (0..5_000).map(|_| ids.event(at)).collect::<Vec<_>>())
            })
            .collect();
        let made: Vec<EventId> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), 20_000);
        let later = ids.event(at.saturating_add_millis(1));
        assert!(made.iter().all(|id| *id < later));
    }

    #[test]
    fn a_seed_repeats_itself() {
        let at = Timestamp::MIN;
        let (one, two) = (Ids::from_seed(7), Ids::from_seed(7));
        assert_eq!(one.event(at), two.event(at));
        assert_eq!(one.key(at), two.key(at));
        assert_ne!(one.event(at), one.event(at));
        assert_ne!(Ids::from_seed(8).event(at), Ids::from_seed(7).event(at));
    }
}

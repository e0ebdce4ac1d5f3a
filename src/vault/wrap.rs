//! Wrapping: keys and other secrets at rest, encrypted under the root key.
//!
//! A random 96-bit nonce under one key would be too short for billions of rows, so each
//! row has a key of its own: HKDF-SHA-256(salt = 32 random bytes of the row, root key,
//! what and whose the row is). It is used once, hence the zero nonce.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, random_key};
use crate::ledger::vault::seal::{decrypt_once, encrypt_once};

/// What a wrapped secret is for: part of what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Subject,
    Named,
    Row,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Subject => "keyledger/vault/1/subject",
            Self::Named => "keyledger/vault/1/named",
            Self::Row => "keyledger/vault/1/row",
        }
    }
}

/// A wrapped secret, as it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub(super) salt: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

/// The key under which everything in a vault is wrapped.
pub(super) struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    pub(super) fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// What tells this root key from another, and tells nothing else about it.
    pub(super) fn check_value(&self) -> Option<[u8; 32]> {
        let derived = self.derive(None, &[b"keyledger/vault/1/root-check"])?;
        Some(*derived)
    }

    /// Wraps a secret for this purpose and name. None only if the cipher refuses, which it
    /// has no reason to.
    pub(super) fn wrap(
        &self,
        purpose: Purpose,
        name: &str,
        secret: &[u8],
    ) -> Result<Option<Wrapped>, NoEntropy> {
        let salt = random_key()?.to_vec();
        let mut sealed = Vec::with_capacity(secret.len() + 16);
        sealed.extend_from_slice(secret);
        let wrapped = self
            .row_key(&salt, purpose, name)
            .and_then(|row_key| encrypt_once(&row_key, &[], &mut sealed));
        Ok(wrapped.map(|()| Wrapped { salt, sealed }))
    }

    /// Undoes [`RootKey::wrap`]; none if anything is not as it was.
    pub(super) fn unwrap_secret(
        &self,
        purpose: Purpose,
        name: &str,
        wrapped: &Wrapped,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let row_key = self.row_key(&wrapped.salt, purpose, name)?;
        let mut bytes = Zeroizing::new(wrapped.sealed.clone());
        decrypt_once(&row_key, &[], &mut bytes)?;
        Some(bytes)
    }

    /// The same for a secret that is a key.
    pub(super) fn unwrap(
        &self,
        purpose: Purpose,
        name: &str,
        wrapped: &Wrapped,
    ) -> Option<Zeroizing<[u8; 32]>> {
        let bytes = self.unwrap_secret(purpose, name, wrapped)?;
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return None;
        }
        key.copy_from_slice(&bytes);
        Some(key)
    }

    fn row_key(&self, salt: &[u8], purpose: Purpose, name: &str) -> Option<Zeroizing<[u8; 32]>> {
        self.derive(Some(salt), &[purpose.label().as_bytes(), &[0], name.as_bytes()])
    }

    fn derive(&self, salt: Option<&[u8]>, info: &[&[u8]]) -> Option<Zeroizing<[u8; 32]>> {
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(salt, self.0.as_slice())
            .expand_multi_info(info, derived.as_mut_slice())
            .ok()?;
        Some(derived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_only_as_what_it_is() {
        let root = |byte| RootKey::new(Zeroizing::new([byte; 32]));
        let wrap = || root(1).wrap(Purpose::Subject, "a", &[9; 32]).unwrap().unwrap();
        let wrapped = wrap();
        assert_eq!(root(1).unwrap(Purpose::Subject, "a", &wrapped).as_deref(), Some(&[9; 32]));
        assert!(root(2).unwrap(Purpose::Subject, "a", &wrapped).is_none());
        assert!(root(1).unwrap(Purpose::Named, "a", &wrapped).is_none());
        assert!(root(1).unwrap(Purpose::Subject, "b", &wrapped).is_none());
        let other = Wrapped { salt: wrap().salt, ..wrapped.clone() };
        assert!(root(1).unwrap(Purpose::Subject, "a", &other).is_none());
        for at in 0..wrapped.sealed.len() {
            let mut damaged = wrapped.clone();
            damaged.sealed[at] ^= 1;
            assert!(root(1).unwrap(Purpose::Subject, "a", &damaged).is_none());
        }
        for secret in [&b""[..], b"a secret of another length"] {
            let wrapped = root(1).wrap(Purpose::Row, "a", secret).unwrap().unwrap();
            let opened = root(1).unwrap_secret(Purpose::Row, "a", &wrapped);
            assert_eq!(opened.as_deref().map(Vec::as_slice), Some(secret));
            assert!(root(1).unwrap_secret(Purpose::Row, "b", &wrapped).is_none());
            assert!(root(1).unwrap_secret(Purpose::Named, "a", &wrapped).is_none());
        }
        assert_ne!(root(1).check_value(), root(2).check_value());
    }
}

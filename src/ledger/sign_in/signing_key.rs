//! Keys that sign access tokens: Ed25519 (RFC 8032), named by their thumbprint (RFC 7638).
//!
//! The private half is 32 bytes in a row of the vault; the public half is a fact of the
//! operator's stream, and everybody's to have ([`jwks`], RFC 8037).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::digest::{SigningKeyId, SigningPublicKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, random_key};
use crate::ledger::vault::rows::RowSecret;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why there is no signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// What is kept of it is not what was put there.
    #[error("what is kept of a signing key is damaged; restore the vault from a backup")]
    Damaged,
}

/// A key that signs access tokens. It cannot be printed; the library that holds it
/// overwrites it when it is dropped.
pub struct SigningKey {
    id: SigningKeyId,
    public_key: SigningPublicKey,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// Makes a key, and what is to be kept of it.
    ///
    /// # Errors
    ///
    /// The system gives no entropy.
    pub fn make() -> Result<(Self, RowSecret), SigningKeyError> {
        let seed = random_key()?;
        let key = Self::from_seed(&seed)?;
        let kept = RowSecret::new(Zeroizing::new(seed.to_vec())).ok_or(SigningKeyError::Damaged)?;
        Ok((key, kept))
    }

    /// The key that was kept under this name.
    ///
    /// # Errors
    ///
    /// What was kept is another key, or none.
    pub fn from_kept(id: SigningKeyId, kept: &RowSecret) -> Result<Self, SigningKeyError> {
        let seed = kept.expose().try_into().map_err(|_| SigningKeyError::Damaged)?;
        let key = Self::from_seed(seed)?;
        if key.id == id { Ok(key) } else { Err(SigningKeyError::Damaged) }
    }

    /// The key of this seed.
    fn from_seed(seed: &[u8; 32]) -> Result<Self, SigningKeyError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SigningKeyError::Damaged)?;
        let public_key = pair.public_key().as_ref().try_into();
        let public_key = SigningPublicKey(public_key.map_err(|_| SigningKeyError::Damaged)?);
        Ok(Self { id: id_of(&public_key), public_key, pair })
    }

    /// What it is called: `kid` in a token.
    #[must_use]
    pub fn id(&self) -> SigningKeyId {
        self.id
    }

    /// Its public half.
    #[must_use]
    pub fn public_key(&self) -> SigningPublicKey {
        self.public_key
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// What the key of this public half is called: the head of its thumbprint.
#[must_use]
pub fn id_of(public_key: &SigningPublicKey) -> SigningKeyId {
    let thumbprint = Sha256::digest(format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(public_key.0)
    ));
    let mut head = [0; 16];
    for (to, from) in head.iter_mut().zip(thumbprint) {
        *to = from;
    }
    SigningKeyId(head)
}

/// The public halves as a set of JSON Web Keys (RFC 7517, RFC 8037): what services that
/// check tokens by themselves fetch.
#[must_use]
pub fn jwks(keys: impl Iterator<Item = (SigningKeyId, SigningPublicKey)>) -> String {
    let keys: Vec<String> = keys
        .map(|(id, public_key)| {
            let x = URL_SAFE_NO_PAD.encode(public_key.0);
            format!(
                r#"{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"{id}","x":"{x}"}}"#
            )
        })
        .collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

#[cfg(test)]
pub(in crate::ledger) mod tests {
    use super::*;

    /// RFC 8037, appendix A.1.
    const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    /// A key of its own for each number.
    pub(in crate::ledger) fn key(number: u8) -> SigningKey {
        SigningKey::from_seed(&[number; 32]).unwrap()
    }

    fn bytes(text: &str) -> [u8; 32] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 8037, appendices A.2 to A.4: the public half, its thumbprint, a signature.
    #[test]
    fn it_signs_as_rfc_8037_does() {
        let key = SigningKey::from_seed(&bytes(D)).unwrap();
        assert_eq!(key.public_key().0, bytes(X));
        let thumbprint = bytes("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.id().0, thumbprint[..16]);
        assert_eq!(id_of(&key.public_key()), key.id());
        let signed = key.sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signed),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
    }

    #[test]
    fn what_is_kept_is_that_key_and_no_other() {
        let (key, kept) = SigningKey::make().unwrap();
        let again = SigningKey::from_kept(key.id(), &kept).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.sign(b"x"), key.sign(b"x"));
        let (other, other_kept) = SigningKey::make().unwrap();
        assert_ne!(other.id(), key.id());
        for bad in [other_kept.expose(), &kept.expose()[..31], b""] {
            let bad = RowSecret::new(Zeroizing::new(bad.to_vec())).unwrap();
            assert!(SigningKey::from_kept(key.id(), &bad).is_err());
        }
    }

    #[test]
    fn the_set_of_public_halves_is_rfc_8037s() {
        let key = SigningKey::from_seed(&bytes(D)).unwrap();
        let one = [(key.id(), key.public_key())];
        let expected = format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"90facafea9b1556698540f70c0117a22","x":"{X}"}}]}}"#
        );
        assert_eq!(jwks(one.into_iter()), expected);
        assert_eq!(jwks(std::iter::empty()), r#"{"keys":[]}"#);
        let two: serde_json::Value =
            serde_json::from_str(&jwks(one.into_iter().chain(one))).unwrap();
        assert_eq!(two["keys"].as_array().unwrap().len(), 2);
    }
}

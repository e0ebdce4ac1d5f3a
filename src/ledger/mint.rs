//! The making of a key's secret.

use projections::api_key::{self, Environment};
use projections::digest::SecretDigest;
use projections::event::{DigestForm, Hint, KeyedDigest};
use projections::text::KeyPrefix;
use sha2::{Digest as _, Sha256};

use super::secret::{NoEntropy, Secret, mint_secret_text};
use super::vault::peppers::Peppers;

/// A key's text, and what the ledger keeps of it.
pub struct Minted {
    /// The text: shown once, kept nowhere.
    pub secret: Secret,
    /// The end of the text.
    pub hint: Option<Hint>,
    /// What stands for the text.
    pub digest: KeyedDigest,
}

/// Makes the text of a new key.
pub fn mint(
    prefix: &KeyPrefix,
    environment: Option<Environment>,
    peppers: &Peppers,
) -> Result<Minted, NoEntropy> {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(api_key::CREDENTIAL_CHARS_MAX));
    text.push_str(&api_key::head(prefix, environment));
    text.push_str(&mint_secret_text()?);
    api_key::push_checksum(&mut text);
    Ok(Minted { hint: Hint::of(&text), digest: digest(&text, peppers), secret: Secret::new(text) })
}

/// Makes the text of something that is no key, beginning with this head.
pub fn mint_token(head: &str, peppers: &Peppers) -> Result<Minted, NoEntropy> {
    let secret = mint_text(head)?;
    let (hint, digest) = (Hint::of(secret.expose()), digest(secret.expose(), peppers));
    Ok(Minted { hint, digest, secret })
}

/// A text that nobody guesses, with a checksum, beginning with this head.
pub fn mint_text(head: &str) -> Result<Secret, NoEntropy> {
    let mut text = zeroize::Zeroizing::new(String::with_capacity(api_key::CREDENTIAL_CHARS_MAX));
    text.push_str(head);
    text.push_str(&mint_secret_text()?);
    api_key::push_checksum(&mut text);
    Ok(Secret::new(text))
}

/// What stands for a text that is presented as it is.
#[must_use]
pub fn digest(text: &str, peppers: &Peppers) -> KeyedDigest {
    keyed(DigestForm::Text, text.as_bytes(), peppers)
}

/// What stands for a text of which only the SHA-256 digest is known.
#[must_use]
pub fn digest_of_sha256(sha256: &[u8; 32], peppers: &Peppers) -> KeyedDigest {
    keyed(DigestForm::Sha256, sha256, peppers)
}

/// What would stand for it under each retired pepper.
#[must_use]
pub fn retired_digests_of_sha256(sha256: &[u8; 32], peppers: &Peppers) -> Vec<SecretDigest> {
    peppers.digests(sha256).skip(1).collect()
}

/// What else may stand for a text: under each retired pepper, and as a text of which only
/// the SHA-256 digest was known, under every pepper.
#[must_use]
pub fn other_digests(text: &str, peppers: &Peppers) -> Vec<SecretDigest> {
    let sha256 = Sha256::digest(text.as_bytes());
    let by_text = peppers.digests(text.as_bytes()).skip(1);
    by_text.chain(peppers.digests(&sha256)).collect()
}

fn keyed(form: DigestForm, bytes: &[u8], peppers: &Peppers) -> KeyedDigest {
    KeyedDigest { form, pepper: peppers.current().0, blake3: peppers.digest(bytes) }
}

//! Sealing personal data into an event, and opening it again.
//!
//! One blob per event and subject:
//!
//! ```text
//! event key            = HKDF-SHA-256(subject key, "keyledger/sealed/1/event" ‖ event id ‖ subject)
//! encryption ‖ commit  = HKDF-Expand(event key, "keyledger/sealed/1/keys"), 32 bytes each
//! blob                 = 0x01 ‖ commit ‖ ChaCha20-Poly1305(encryption, nonce 0, aad = event id ‖ subject)
//! ```
//!
//! - *Commitment.* ChaCha20-Poly1305 alone lets one ciphertext be made that opens to two
//!   texts under two keys. `commit` binds the blob to one event key, and so to one subject
//!   key, event and subject; it is compared first, in constant time.
//! - *The zero nonce is safe* because the encryption key is used once: it is derived from
//!   the event's identifier. INVARIANT: an event's identifier is drawn anew whenever its
//!   sealed text is, so that one identifier never seals two texts about one subject.
//! - *The event key* can be given away: an auditor who has it opens this blob, checks its
//!   commitment, and can do nothing else.
//! - A blob tells the length of its text.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use projections::id::EventId;
use projections::sealed::{Sealed, Subject};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{SubjectKey, SubjectKeyState};

/// Most bytes of personal data in one blob, as JSON: what leaves room for the rest of an event.
pub const SEALED_TEXT_BYTES_MAX: usize = 32_768;

const EVENT_LABEL: &[u8] = b"keyledger/sealed/1/event";
const KEYS_LABEL: &[u8] = b"keyledger/sealed/1/keys";
const VERSION: u8 = 1;
const COMMIT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Personal data by name, such as `comment`.
pub type PersonalData = BTreeMap<String, String>;

/// Why data could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is too much of it.
    #[error("personal data of one event must be at most {SEALED_TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// The cipher refused. It has no reason to.
    #[error("the cipher refused to seal")]
    Cipher,
}

/// Why sealed data cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its key was destroyed: the data is gone for good, as it should be.
    #[error("erased")]
    Erased,
    /// The bytes, the event, the subject or the key are not the ones it was sealed with.
    #[error("the sealed data is damaged, or belongs to another event or key")]
    Damaged,
}

/// The key of one event's data about one subject. It opens that and nothing else.
pub struct EventKey(Zeroizing<[u8; 32]>);

impl EventKey {
    /// Derives the key of this event's data.
    ///
    /// # Errors
    ///
    /// The cipher refuses, which it has no reason to.
    pub fn derive(key: &SubjectKey, event: EventId, subject: &Subject) -> Result<Self, SealError> {
        let info = [EVENT_LABEL, &event.to_bytes(), subject.as_str().as_bytes()];
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, key.expose())
            .expand_multi_info(&info, derived.as_mut_slice())
            .map_err(|_| SealError::Cipher)?;
        Ok(Self(derived))
    }

    /// A key that was given away.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, to be given away.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The encryption key and the commitment.
    fn expand(&self) -> Result<(Zeroizing<[u8; 32]>, [u8; COMMIT_BYTES]), SealError> {
        let mut both = Zeroizing::new([0; 64]);
        let expander =
            Hkdf::<Sha256>::from_prk(self.0.as_slice()).map_err(|_| SealError::Cipher)?;
        expander.expand(KEYS_LABEL, both.as_mut_slice()).map_err(|_| SealError::Cipher)?;
        let (encryption, commit) = both.split_first_chunk().ok_or(SealError::Cipher)?;
        let commit = commit.try_into().map_err(|_| SealError::Cipher)?;
        Ok((Zeroizing::new(*encryption), commit))
    }

    /// Seals this event's data about a subject.
    fn seal(
        &self,
        event: EventId,
        subject: &Subject,
        data: &PersonalData,
    ) -> Result<Sealed, SealError> {
        let text = Zeroizing::new(serde_json::to_vec(data).map_err(|_| SealError::Cipher)?);
        if text.len() > SEALED_TEXT_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let (encryption, commit) = self.expand()?;
        let mut sealed = Vec::with_capacity(text.len() + TAG_BYTES);
        sealed.extend_from_slice(&text);
        encrypt_once(&encryption, &bound_to(event, subject), &mut sealed)
            .ok_or(SealError::Cipher)?;
        let blob = [&[VERSION][..], &commit, &sealed].concat();
        Ok(Sealed { subject: subject.clone(), seal: URL_SAFE_NO_PAD.encode(blob) })
    }

    /// Opens this event's data about a subject.
    ///
    /// # Errors
    ///
    /// [`OpenError::Damaged`] if anything is not as it was sealed.
    pub fn open(&self, event: EventId, sealed: &Sealed) -> Result<PersonalData, OpenError> {
        let blob = URL_SAFE_NO_PAD.decode(&sealed.seal).map_err(|_| OpenError::Damaged)?;
        let (&[VERSION], rest) = blob.split_first_chunk().ok_or(OpenError::Damaged)? else {
            return Err(OpenError::Damaged);
        };
        let (commit, sealed_text) =
            rest.split_first_chunk::<COMMIT_BYTES>().ok_or(OpenError::Damaged)?;
        let (encryption, expected) = self.expand().map_err(|_| OpenError::Damaged)?;
        if !bool::from(commit.ct_eq(&expected)) {
            return Err(OpenError::Damaged);
        }
        let mut text = Zeroizing::new(sealed_text.to_vec());
        decrypt_once(&encryption, &bound_to(event, &sealed.subject), &mut text)
            .ok_or(OpenError::Damaged)?;
        serde_json::from_slice(&text).map_err(|_| OpenError::Damaged)
    }
}

/// Seals an event's personal data about a subject.
///
/// # Errors
///
/// There is too much of it.
pub fn seal(
    key: &SubjectKey,
    event: EventId,
    subject: &Subject,
    data: &PersonalData,
) -> Result<Sealed, SealError> {
    EventKey::derive(key, event, subject)?.seal(event, subject, data)
}

/// Opens an event's personal data with what the vault has for its subject.
///
/// # Errors
///
/// [`OpenError::Erased`] if the key was destroyed; [`OpenError::Damaged`] if there never
/// was one, or if anything is not as it was sealed.
pub fn open(
    key: &SubjectKeyState,
    event: EventId,
    sealed: &Sealed,
) -> Result<PersonalData, OpenError> {
    match key {
        SubjectKeyState::Held(key) => EventKey::derive(key, event, &sealed.subject)
            .map_err(|_| OpenError::Damaged)?
            .open(event, sealed),
        SubjectKeyState::Erased => Err(OpenError::Erased),
        SubjectKeyState::Absent => Err(OpenError::Damaged),
    }
}

/// What a blob is bound to, beside its key.
fn bound_to(event: EventId, subject: &Subject) -> Vec<u8> {
    [&event.to_bytes(), subject.as_str().as_bytes()].concat()
}

/// Encrypts in place with a key that is used for this and never again, hence with a zero nonce.
pub(crate) fn encrypt_once(key: &[u8; 32], aad: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let cipher = ChaCha20Poly1305::new(<&Key>::from(key));
    cipher.encrypt_in_place(&Nonce::default(), aad, text).ok()
}

/// Undoes [`encrypt_once`]; none if anything is not as it was.
pub(crate) fn decrypt_once(key: &[u8; 32], aad: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let cipher = ChaCha20Poly1305::new(<&Key>::from(key));
    cipher.decrypt_in_place(&Nonce::default(), aad, text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use projections::id::OrganizationId;
    use projections::time::Timestamp;

    fn key(byte: u8) -> SubjectKey {
        SubjectKey::new(Zeroizing::new([byte; 32]))
    }

    fn event(random: u128) -> EventId {
        EventId::from_parts(1_700_000_000_000, random)
    }

    fn subject(random: u128) -> Subject {
        let organization = OrganizationId::from_parts(1_700_000_000_000, random);
        Subject::organization_month(organization, Timestamp::default())
    }

    fn comment(text: &str) -> PersonalData {
        [("comment".to_owned(), text.to_owned())].into()
    }

    fn reopen(
        key: &SubjectKey,
        event: EventId,
        sealed: &Sealed,
    ) -> Result<PersonalData, OpenError> {
        open(&SubjectKeyState::Held(key.clone()), event, sealed)
    }

    /// Blobs in the field must open for ever: this one was made by the first version.
    #[test]
    fn the_form_is_fixed() {
        let sealed = seal(&key(7), event(1), &subject(2), &comment("left the company")).unwrap();
        let fixed = "AbzIjlOOSRIE5mcfEBjZM0iAvHMBQtwDMuk02kAOZiqrjyMJsrDPSDcvAKgxqzGjeSJd31aL_3Hdm5XD7q5\
                     nRuy27sGhQKe3HfVXQl2iHg";
        assert_eq!(sealed.seal, fixed);
    }

    #[test]
    fn what_is_erased_is_not_damaged() {
        let sealed = seal(&key(7), event(1), &subject(2), &comment("x")).unwrap();
        assert_eq!(open(&SubjectKeyState::Erased, event(1), &sealed), Err(OpenError::Erased));
        assert_eq!(open(&SubjectKeyState::Absent, event(1), &sealed), Err(OpenError::Damaged));
    }

    #[test]
    fn there_is_a_limit() {
        let overhead = serde_json::to_vec(&comment("")).unwrap().len();
        let longest = "x".repeat(SEALED_TEXT_BYTES_MAX - overhead);
        let sealed = seal(&key(7), event(1), &subject(2), &comment(&longest)).unwrap();
        assert_eq!(reopen(&key(7), event(1), &sealed), Ok(comment(&longest)));
        let longer = comment(&format!("{longest}x"));
        assert_eq!(seal(&key(7), event(1), &subject(2), &longer), Err(SealError::TooLong));
    }

    /// Whoever knows both keys still cannot make a blob that opens under either: a text
    /// encrypted under another key's encryption key is refused by the commitment.
    #[test]
    fn a_blob_is_committed_to_one_key() {
        let (event, subject) = (event(1), subject(2));
        let honest = EventKey::derive(&key(7), event, &subject).unwrap();
        let other = EventKey::derive(&key(8), event, &subject).unwrap();
        let (encryption, right) = other.expand().unwrap();
        let (_, wrong) = honest.expand().unwrap();
        let forge = |commit: [u8; 32]| {
            let mut text = br#"{"comment":"forged"}"#.to_vec();
            encrypt_once(&encryption, &bound_to(event, &subject), &mut text).unwrap();
            let blob = [&[VERSION][..], &commit, &text].concat();
            Sealed { subject: subject.clone(), seal: URL_SAFE_NO_PAD.encode(blob) }
        };
        // The ciphertext opens under `other`, but not with a commitment to `honest`.
        assert_eq!(other.open(event, &forge(right)), Ok(comment("forged")));
        assert_eq!(other.open(event, &forge(wrong)), Err(OpenError::Damaged));
        assert_eq!(honest.open(event, &forge(wrong)), Err(OpenError::Damaged));
        assert_eq!(honest.open(event, &forge(right)), Err(OpenError::Damaged));
    }

    #[test]
    fn an_event_key_that_was_given_away_opens_its_event_only() {
        let (one, two) = (event(1), event(2));
        let subject = subject(3);
        let sealed = seal(&key(7), one, &subject, &comment("one")).unwrap();
        let next = seal(&key(7), two, &subject, &comment("two")).unwrap();
        let derived = EventKey::derive(&key(7), one, &subject).unwrap();
        let given = EventKey::from_bytes(Zeroizing::new(*derived.expose()));
        assert_eq!(given.open(one, &sealed), Ok(comment("one")));
        assert_eq!(given.open(two, &next), Err(OpenError::Damaged));
        assert_eq!(given.open(one, &next), Err(OpenError::Damaged));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(data in prop::collection::btree_map(".{0,9}", ".{0,40}", 0..4)) {
            let sealed = seal(&key(7), event(1), &subject(2), &data).unwrap();
            prop_assert_eq!(reopen(&key(7), event(1), &sealed), Ok(data));
        }

        #[test]
        fn nothing_else_opens(
            text in ".{0,40}",
            bit in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let damaged = Err(OpenError::Damaged);
            let sealed = seal(&key(7), event(1), &subject(2), &comment(&text)).unwrap();
            prop_assert_eq!(reopen(&key(8), event(1), &sealed), damaged.clone());
            prop_assert_eq!(reopen(&key(7), event(2), &sealed), damaged.clone());
            let moved = Sealed { subject: subject(3), ..sealed.clone() };
            prop_assert_eq!(reopen(&key(7), event(1), &moved), damaged.clone());

            let mut blob = URL_SAFE_NO_PAD.decode(&sealed.seal).unwrap();
            let short = &blob[..cut.index(blob.len())];
            let short = Sealed { seal: URL_SAFE_NO_PAD.encode(short), ..sealed.clone() };
            prop_assert_eq!(reopen(&key(7), event(1), &short), damaged.clone());
            let bit = bit.index(blob.len() * 8);
            blob[bit / 8] ^= 1 << (bit % 8);
            let flipped = Sealed { seal: URL_SAFE_NO_PAD.encode(&blob), ..sealed.clone() };
            prop_assert_eq!(reopen(&key(7), event(1), &flipped), damaged);
        }
    }

    /// Every single bit, once: the property above draws only some.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = seal(&key(7), event(1), &subject(2), &comment("x")).unwrap();
        let blob = URL_SAFE_NO_PAD.decode(&sealed.seal).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut blob = blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            let flipped = Sealed { seal: URL_SAFE_NO_PAD.encode(&blob), ..sealed.clone() };
            assert_eq!(reopen(&key(7), event(1), &flipped), Err(OpenError::Damaged), "{bit}");
        }
        for text in [format!("{}=", sealed.seal), format!("{}A", sealed.seal), String::new()] {
            let other = Sealed { seal: text, ..sealed.clone() };
            assert_eq!(reopen(&key(7), event(1), &other), Err(OpenError::Damaged));
        }
    }
}

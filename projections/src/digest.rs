//! Digests: what stands for bytes that are long, or secret.

use std::fmt;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Bytes as lower-case hexadecimal in JSON and in `Debug`.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads what `Display` writes; none if it is anything else.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                decode_hex(text, &mut bytes).map(|()| Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Hex;
                impl de::Visitor<'_> for Hex {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes of lower-case hexadecimal", $len)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::from_hex(text)
                            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Hex)
            }
        }
    };
}

/// Fills `bytes` from lower-case hexadecimal of exactly that length.
fn decode_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = value(high)? << 4 | value(low)?;
    }
    Some(())
}

hex_bytes!(
    /// The Merkle leaf hash of an event's stored bytes: SHA-256 of a zero byte and
    /// those bytes (RFC 6962, section 2.1).
    LeafHash, 32
);
hex_bytes!(
    /// What stands for a credential's secret: BLAKE3 keyed with the installation's
    /// pepper. Useless without the pepper, and not the digest keys are imported by.
    SecretDigest, 32
);
hex_bytes!(
    /// What stands for an e-mail: BLAKE3 of its normalized form, under a key that only the
    /// installation has and that stays the same for good.
    EmailDigest, 32
);
hex_bytes!(
    /// What stands for the reason of emergency access: BLAKE3 of the text, under a key that
    /// only the installation has and that stays the same for good.
    ReasonDigest, 32
);
hex_bytes!(
    /// One request, named so that a repeat is known: its principal, method and
    /// idempotency key, under a key that only the installation has.
    RequestId, 16
);
hex_bytes!(
    /// What a request asked for, under a key that only the installation has: a
    /// repeat with other content is not a repeat.
    RequestContent, 16
);
hex_bytes!(
    /// A name's place in an index: 128 bits of its BLAKE3 hash.
    NameDigest, 16
);
hex_bytes!(
    /// Which key signs access tokens: the first 128 bits of the SHA-256 thumbprint of its
    /// public half (RFC 7638).
    SigningKeyId, 16
);
hex_bytes!(
    /// The public half of an Ed25519 key that signs access tokens.
    SigningPublicKey, 32
);

/// Text that is no digest of an e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 digits of lower-case hexadecimal")]
pub struct InvalidEmailDigest;

impl std::str::FromStr for EmailDigest {
    type Err = InvalidEmailDigest;

    fn from_str(text: &str) -> Result<Self, InvalidEmailDigest> {
        let mut bytes = [0; 32];
        decode_hex(text, &mut bytes).ok_or(InvalidEmailDigest)?;
        Ok(Self(bytes))
    }
}

impl LeafHash {
    /// The leaf hash of an event's stored bytes.
    #[must_use]
    pub fn of(stored: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(stored);
        Self(hasher.finalize().into())
    }
}

impl NameDigest {
    /// The place of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(blake3::hash(name.as_bytes()).as_bytes()) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl SecretDigest {
    /// The first 128 bits: enough to find a key by, before all 256 are compared.
    #[must_use]
    pub fn head(&self) -> [u64; 2] {
        let mut head = [0; 2];
        for (half, bytes) in head.iter_mut().zip(self.0.as_chunks::<8>().0) {
            *half = u64::from_le_bytes(*bytes);
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_hash_is_rfc_6962s() {
        // RFC 6962's empty leaf, as every Merkle test vector in the field has it.
        assert_eq!(
            LeafHash::of(b"").to_string(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            LeafHash::of(b"L123456").to_string(),
            "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
        );
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        let text = format!("\"{}\"", "0f".repeat(16));
        assert_eq!(serde_json::from_str::<NameDigest>(&text).unwrap(), NameDigest([15; 16]));
        for bad in ["0F".repeat(16), "0f".repeat(15), "0g".repeat(16), "é".repeat(16)] {
            assert!(serde_json::from_str::<NameDigest>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
    }
}

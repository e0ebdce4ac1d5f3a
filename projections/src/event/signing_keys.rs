//! What becomes of the keys that sign access tokens.

use serde::{Deserialize, Serialize};

use crate::digest::{SigningKeyId, SigningPublicKey};

/// See [`Event::SigningKeyAdded`](super::Event::SigningKeyAdded).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeyAdded {
    /// The key.
    pub signing_key_id: SigningKeyId,
    /// Its public half.
    pub public_key: SigningPublicKey,
}

/// See [`Event::SigningKeyRetired`](super::Event::SigningKeyRetired).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeyRetired {
    /// The key.
    pub signing_key_id: SigningKeyId,
}

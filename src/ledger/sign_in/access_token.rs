//! Access tokens: JSON Web Tokens (RFC 7519, RFC 9068) signed with Ed25519 (RFC 8037).
//!
//! One form is written and that form alone is read. The algorithm is not chosen by the
//! token: there is one. Reading one says what was signed and nothing more: whether the
//! session stands, and what its user may do, is looked up each time.
//!
//! Signatures that were found good are remembered ([`AccessTokens::verify`]), by a keyed
//! digest of the whole token, in bounded memory. What expires is not remembered: times are
//! compared on every call, and so is whether the key that signed is still among the set.
//!
//! What is read is written here by hand, since a library for every kind of token would have
//! to be told to refuse all but one; signatures, JSON and base64 are libraries'.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::digest::{SigningKeyId, SigningPublicKey};
use projections::id::{OrganizationId, SessionId, UserId};
use projections::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::methods::Methods;
use super::signing_key::{SIGNATURE_BYTES, SigningKey};
use crate::ledger::secret::{NoEntropy, Secret, random_key};
use crate::ledger::tables::TakeBits;

/// Most bytes of a token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 2_048;
/// Most characters of an issuer's or an audience's name.
pub const PARTY_CHARS_MAX: usize = 256;
/// Most tokens remembered of one generation; there are two.
pub const REMEMBERED_MAX: usize = if cfg!(test) { 64 } else { 50_000 };

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "at+jwt";

/// Who writes tokens, whom they are for, how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTerms {
    /// `iss`: this installation.
    pub issuer: String,
    /// `aud`: the services that take its tokens.
    pub audience: String,
    /// How long a token is good, in seconds.
    pub lifetime_s: u32,
}

/// What a token says, and which key signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `tenant_id`: the organization that the session is in.
    pub organization_id: OrganizationId,
    /// `sub`: whose session it is.
    pub user_id: UserId,
    /// `sid`: the session.
    pub session_id: SessionId,
    /// `amr`: how they showed who they are.
    pub methods: Methods,
    /// `iat` and `nbf`: when it was written, in seconds since 1970.
    pub issued_at_s: i64,
    /// `exp`: the first second at which it is no longer good.
    pub expires_at_s: i64,
    /// `kid`: the key that signed it.
    pub key: SigningKeyId,
}

impl Claims {
    /// Whether the token is good at this instant.
    ///
    /// # Errors
    ///
    /// It is not yet, or no longer.
    pub fn good_at(&self, now: Timestamp) -> Result<(), AccessTokenError> {
        if now.as_millis() < self.issued_at_s.saturating_mul(1_000) {
            return Err(AccessTokenError::NotYetValid);
        }
        if now >= self.expires_at() {
            return Err(AccessTokenError::Expired);
        }
        Ok(())
    }

    /// The first instant at which the token is no longer good.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        let millis = self.expires_at_s.saturating_mul(1_000);
        Timestamp::from_millis(millis).unwrap_or(Timestamp::MAX)
    }
}

/// Why a token is refused. It is told in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessTokenError {
    /// It is longer than [`TOKEN_BYTES_MAX`].
    #[error("access token: must be at most {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is not three parts of unpadded base64url, or its head is not JSON as it is written here.
    #[error("access token: malformed")]
    Malformed,
    /// It asks for something that must be understood, and is not.
    #[error("access token: header `crit` is not supported")]
    Critical,
    /// It is not signed with EdDSA.
    #[error("access token: algorithm must be `EdDSA`")]
    Algorithm,
    /// It is another kind of token.
    #[error("access token: type must be `at+jwt`")]
    Type,
    /// No key of that name signs tokens here.
    #[error("access token: unknown signing key")]
    UnknownKey,
    /// The signature is not that key's.
    #[error("access token: signature does not match")]
    Signature,
    /// Another installation wrote it.
    #[error("access token: issued by another")]
    Issuer,
    /// It is for others.
    #[error("access token: meant for another audience")]
    Audience,
    /// It is not good yet.
    #[error("access token: not valid yet")]
    NotYetValid,
    /// It is no longer good.
    #[error("access token: expired")]
    Expired,
}

/// What callers are told of an [`AccessTokenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no access token.
    Malformed,
    /// It is not one of this installation's.
    Unknown,
    /// It was one.
    Expired,
}

impl AccessTokenError {
    /// What callers are told.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::TooLong | Self::Malformed | Self::Critical | Self::Algorithm | Self::Type => {
                Refusal::Malformed
            }
            Self::UnknownKey
            | Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::NotYetValid => Refusal::Unknown,
            Self::Expired => Refusal::Expired,
        }
    }
}

/// What a token is written about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The organization that the session is in.
    pub organization_id: OrganizationId,
    /// Whose session it is.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
    /// How they showed who they are.
    pub methods: Methods,
}

/// The head of a token, as others may write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// The claims, as they stand in a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    #[serde(borrow)]
    iss: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    aud: std::borrow::Cow<'a, str>,
    sub: UserId,
    tenant_id: OrganizationId,
    sid: SessionId,
    iat: i64,
    nbf: i64,
    exp: i64,
    amr: Methods,
}

/// A keyed digest of a token. Nobody else can make one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TokenDigest([u8; 32]);

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let head = self.0.first_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_le_bytes(head));
    }
}

type Remembered = papaya::HashMap<TokenDigest, Claims, BuildHasherDefault<TakeBits>>;

/// Signatures that were found good: the newer, which grow, and the older, which are forgotten
/// once the newer are as many as may be.
#[derive(Default)]
struct Generations {
    newer: std::sync::Arc<Remembered>,
    older: std::sync::Arc<Remembered>,
}

/// The keys whose signatures count. There are few.
type KeySet = Vec<(SigningKeyId, ParsedPublicKey)>;

/// Writes access tokens and reads them.
pub struct AccessTokens {
    terms: AccessTerms,
    keys: ArcSwap<KeySet>,
    digest_key: Zeroizing<[u8; 32]>,
    generations: ArcSwap<Generations>,
    /// Held by whoever begins a generation.
    turning: Mutex<()>,
}

impl AccessTokens {
    /// On these terms; no key counts yet.
    ///
    /// # Errors
    ///
    /// The system gives no entropy.
    pub fn new(terms: AccessTerms) -> Result<Self, NoEntropy> {
        Ok(Self {
            terms,
            keys: ArcSwap::default(),
            digest_key: random_key()?,
            generations: ArcSwap::default(),
            turning: Mutex::new(()),
        })
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &AccessTerms {
        &self.terms
    }

    /// From now on the signatures of these keys count, and of no others. One that is no
    /// public half of anything is left out.
    pub fn set_keys(&self, keys: impl Iterator<Item = (SigningKeyId, SigningPublicKey)>) {
        let parsed = keys.filter_map(|(id, public_key)| {
            ParsedPublicKey::new(&ED25519, public_key.0).ok().map(|parsed| (id, parsed))
        });
        self.keys.store(parsed.collect::<Vec<_>>().into());
    }

    /// Writes a token, good from now on. None only if JSON cannot be written, which it can.
    #[must_use]
    pub fn issue(&self, key: &SigningKey, bearer: Bearer, now: Timestamp) -> Option<Secret> {
        let now_s = now.as_millis().div_euclid(1_000);
        let payload = Payload {
            iss: self.terms.issuer.as_str().into(),
            aud: self.terms.audience.as_str().into(),
            sub: bearer.user_id,
            tenant_id: bearer.organization_id,
            sid: bearer.session_id,
            iat: now_s,
            nbf: now_s,
            exp: now_s.saturating_add(i64::from(self.terms.lifetime_s)),
            amr: bearer.methods,
        };
        let header = format!(r#"{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"{}"}}"#, key.id());
        // Room from the start: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_BYTES_MAX));
        URL_SAFE_NO_PAD.encode_string(header, &mut text);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(&payload).ok()?, &mut text);
        let signature = key.sign(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Some(Secret::new(text))
    }

    /// What a token says, if it is one of ours and good now. Whether its session stands is
    /// for the caller to look up.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, AccessTokenError> {
        let claims = self.recognise(token)?;
        claims.good_at(now)?;
        Ok(claims)
    }

    /// What a token says, if it is one of ours, whenever it is good.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it, its time aside.
    pub fn recognise(&self, token: &str) -> Result<Claims, AccessTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AccessTokenError::TooLong);
        }
        let digest =
            TokenDigest(*blake3::keyed_hash(&self.digest_key, token.as_bytes()).as_bytes());
        let keys = self.keys.load();
        let claims = match self.remembered(&digest) {
            Some(claims) if !keys.iter().any(|(id, _)| *id == claims.key) => {
                return Err(AccessTokenError::UnknownKey);
            }
            Some(claims) => claims,
            None => {
                let claims = self.read(token, &keys)?;
                self.remember(digest, claims);
                claims
            }
        };
        Ok(claims)
    }

    fn remembered(&self, digest: &TokenDigest) -> Option<Claims> {
        let generations = self.generations.load();
        let newer = generations.newer.pin().get(digest).copied();
        newer.or_else(|| generations.older.pin().get(digest).copied())
    }

    fn remember(&self, digest: TokenDigest, claims: Claims) {
        if self.generations.load().newer.len() >= REMEMBERED_MAX {
            let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
            let generations = self.generations.load();
            if generations.newer.len() >= REMEMBERED_MAX {
                let older = std::sync::Arc::clone(&generations.newer);
                let newer = std::sync::Arc::default();
                self.generations.store(Generations { newer, older }.into());
            }
        }
        self.generations.load().newer.pin().insert(digest, claims);
    }

    /// Reads a token that is not remembered: all but the times.
    fn read(&self, token: &str, keys: &KeySet) -> Result<Claims, AccessTokenError> {
        let malformed = AccessTokenError::Malformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        if signature.len() != SIGNATURE_BYTES {
            return Err(malformed);
        }
        let kid = kid(&header)?;
        let (_, key) =
            keys.iter().find(|(id, _)| *id == kid).ok_or(AccessTokenError::UnknownKey)?;
        key.verify_sig(signed.as_bytes(), &signature).map_err(|_| AccessTokenError::Signature)?;
        // Signed with our key: what follows was written here, or by whoever has the key.
        let payload: Payload<'_> = serde_json::from_slice(&payload).map_err(|_| malformed)?;
        if payload.iss != self.terms.issuer {
            return Err(AccessTokenError::Issuer);
        }
        if payload.aud != self.terms.audience {
            return Err(AccessTokenError::Audience);
        }
        Ok(Claims {
            organization_id: payload.tenant_id,
            user_id: payload.sub,
            session_id: payload.sid,
            methods: payload.amr,
            issued_at_s: payload.nbf.max(payload.iat),
            expires_at_s: payload.exp,
            key: kid,
        })
    }
}

/// The key that a head names, if everything else in it is as it must be.
fn kid(header: &[u8]) -> Result<SigningKeyId, AccessTokenError> {
    // A list would do for the parser, and blanks before the brace; not for us.
    if !header.starts_with(b"{") {
        return Err(AccessTokenError::Malformed);
    }
    let header: Header = serde_json::from_slice(header).map_err(|_| AccessTokenError::Malformed)?;
    if header.crit.is_some() {
        return Err(AccessTokenError::Critical);
    }
    if header.alg.as_deref() != Some(ALGORITHM) {
        return Err(AccessTokenError::Algorithm);
    }
    if header.typ.as_deref() != Some(TYPE) {
        return Err(AccessTokenError::Type);
    }
    let kid = header.kid.as_deref().and_then(SigningKeyId::from_hex);
    kid.ok_or(AccessTokenError::UnknownKey)
}

#[cfg(test)]
mod tests;

//! Refresh tokens: one good one for each session, which each use replaces.
//!
//! ```text
//! token = "klrt_" base64url(organization ‖ session ‖ generation ‖ secret ‖ tag)
//! tag   = BLAKE3(tag key of the session, everything before it), 16 bytes
//! row   = 0x01 ‖ generation ‖ idle end ‖ tag key ‖ BLAKE3(token)
//! ```
//!
//! The row `refresh/<session>` holds what the current token is recognised by, and is
//! replaced by compare-and-set: of two who use one token at once, one alone gets the next.
//! The tag tells, without keeping anything of them, which texts were tokens of this session
//! before: whoever shows one of those has it from somewhere else, and the session must end
//! ([`Rotation::Reused`]). A text that was never a token ends nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::id::{OrganizationId, SessionId};
use projections::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, Secret, random_key};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{Vault, VaultError};

/// What every refresh token begins with.
pub const PREFIX: &str = "klrt_";
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const TAGGED_BYTES: usize = 16 + 16 + 8 + SECRET_BYTES;
const TOKEN_BYTES: usize = TAGGED_BYTES + TAG_BYTES;
const ROW_FORM: u8 = 1;
const ROW_BYTES: usize = 1 + 8 + 8 + 32 + 32;

/// Why a refresh token could not be made or used. It says nothing about the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The vault did not do its part. After a rotation it is not known which token is good.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// The session has a refresh token already.
    #[error("the session has a refresh token already")]
    AlreadyStarted,
}

/// What came of using a refresh token.
pub enum Rotation {
    /// It was the current one; this takes its place.
    Rotated(Secret),
    /// It was the current one once: somebody has it who should not. End the session.
    Reused,
    /// It was the current one, and another request used it at the same time. The session
    /// goes on with what that one was given.
    Raced,
    /// It is none of the session's, or the session has none.
    Unknown,
    /// It was not used for too long.
    Expired,
}

/// A text that may be a refresh token, taken apart. It cannot be printed.
pub struct PresentedRefresh {
    organization_id: OrganizationId,
    session_id: SessionId,
    generation: u64,
    bytes: Zeroizing<[u8; TOKEN_BYTES]>,
}

impl PresentedRefresh {
    /// Takes a text apart; none if it has not the form of a refresh token.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        let body = text.strip_prefix(PREFIX)?;
        let length = URL_SAFE_NO_PAD.decode_slice(body, bytes.as_mut_slice()).ok()?;
        if length != TOKEN_BYTES {
            return None;
        }
        let (organization, rest) = bytes.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let generation = u64::from_be_bytes(*rest.first_chunk()?);
        Some(Self {
            organization_id: OrganizationId::from_bytes(*organization),
            session_id: SessionId::from_bytes(*session),
            generation,
            bytes,
        })
    }

    /// The organization that it says its session is in. Believe it once it was used.
    #[must_use]
    pub fn organization_id(&self) -> OrganizationId {
        self.organization_id
    }

    /// The session that it says it is of.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Whether this tag key made it.
    fn is_made_with(&self, tag_key: &[u8; 32]) -> bool {
        let (tagged, tag) = self.bytes.split_at(TAGGED_BYTES);
        let expected = blake3::keyed_hash(tag_key, tagged);
        expected.as_bytes().first_chunk::<TAG_BYTES>().is_some_and(|it| it.ct_eq(tag).into())
    }
}

/// What a row holds.
struct Row {
    generation: u64,
    idle_until: i64,
    tag_key: Zeroizing<[u8; 32]>,
    digest: [u8; 32],
}

impl Row {
    fn read(secret: &RowSecret) -> Option<Self> {
        let bytes: &[u8; ROW_BYTES] = secret.expose().try_into().ok()?;
        let (&[form], rest) = bytes.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (idle_until, rest) = rest.split_first_chunk()?;
        let (tag_key, digest) = rest.split_first_chunk()?;
        (form == ROW_FORM).then_some(Self {
            generation: u64::from_be_bytes(*generation),
            idle_until: i64::from_be_bytes(*idle_until),
            tag_key: Zeroizing::new(*tag_key),
            digest: digest.try_into().ok()?,
        })
    }

    fn secret(&self) -> Option<RowSecret> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROW_BYTES));
        bytes.push(ROW_FORM);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.idle_until.to_be_bytes());
        bytes.extend_from_slice(self.tag_key.as_slice());
        bytes.extend_from_slice(&self.digest);
        RowSecret::new(bytes)
    }
}

/// Makes refresh tokens and takes them.
pub struct RefreshTokens {
    vault: Arc<dyn Vault>,
    idle_ms: i64,
}

impl RefreshTokens {
    /// With rows in this vault; a token that is not used for so many milliseconds is no
    /// longer good.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>, idle_ms: i64) -> Self {
        Self { vault, idle_ms }
    }

    /// The first refresh token of a session that begins, and ends at the latest at
    /// `session_end`. What is kept of it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// The vault or the system did not do its part, or the session has one already.
    pub async fn start(
        &self,
        organization_id: OrganizationId,
        session_id: SessionId,
        session_end: Timestamp,
        now: Timestamp,
    ) -> Result<Secret, RefreshError> {
        let tag_key = random_key()?;
        let of = Of { organization_id, session_id, generation: 1 };
        let (token, row) = self.make(of, tag_key, session_end, now)?;
        match self.write(session_id, None, &row).await? {
            RowWritten::Written(_) => Ok(token),
            RowWritten::Conflict => Err(RefreshError::AlreadyStarted),
        }
    }

    /// Uses a refresh token. Dropping the future does not undo what was begun.
    ///
    /// # Errors
    ///
    /// The vault or the system did not do its part.
    pub async fn rotate(
        &self,
        presented: &PresentedRefresh,
        session_end: Timestamp,
        now: Timestamp,
    ) -> Result<Rotation, RefreshError> {
        let session_id = presented.session_id;
        let name = RowName::refresh(session_id);
        let Some(kept) = self.vault.read_row(&name).await? else { return Ok(Rotation::Unknown) };
        let row = Row::read(&kept.secret).ok_or_else(|| VaultError::Damaged(name.to_string()))?;
        if !presented.is_made_with(&row.tag_key) || presented.generation > row.generation {
            return Ok(Rotation::Unknown);
        }
        if presented.generation < row.generation {
            return Ok(Rotation::Reused);
        }
        if !bool::from(digest(presented.bytes.as_slice()).ct_eq(&row.digest)) {
            // Made for a request that lost, and given to nobody.
            return Ok(Rotation::Unknown);
        }
        if now.as_millis() >= row.idle_until.min(session_end.as_millis()) {
            return Ok(Rotation::Expired);
        }
        let of = Of {
            organization_id: presented.organization_id,
            session_id,
            generation: row.generation.saturating_add(1),
        };
        let (token, next) = self.make(of, row.tag_key, session_end, now)?;
        Ok(match self.write(session_id, Some(kept.version), &next).await? {
            RowWritten::Written(_) => Rotation::Rotated(token),
            RowWritten::Conflict => Rotation::Raced,
        })
    }

    /// Takes away what is kept of a session's refresh token: none of them is good any more.
    ///
    /// # Errors
    ///
    /// The vault did not do it, or others kept using it.
    pub async fn end(&self, session_id: SessionId) -> Result<(), RefreshError> {
        let name = RowName::refresh(session_id);
        for _ in 0..ENDS_MAX {
            let Some(row) = self.vault.read_row(&name).await? else { return Ok(()) };
            let ended =
                self.vault.write_row(&name, Some(row.version), None, Urgency::Reserved).await?;
            if ended != RowWritten::Conflict {
                return Ok(());
            }
        }
        Err(VaultError::Unavailable("the refresh token is in use".to_owned()).into())
    }

    /// Takes away what is kept of sessions that began before an instant, so long ago that
    /// they are over however they ended. Gives how many; those that others use are left.
    ///
    /// # Errors
    ///
    /// The vault did not do it all.
    pub async fn sweep(&self, begun_before: Timestamp) -> Result<usize, RefreshError> {
        // All rows of other kinds stand in front of these or behind them.
        let mut after = RowName::refresh(SessionId::from_bytes([0; 16]));
        let mut swept = 0;
        loop {
            let names = self.vault.row_names(Some(&after)).await?;
            for name in &names {
                let Some(session) = name.session() else { return Ok(swept) };
                if begun_at_ms(session) >= begun_before.as_millis() {
                    // Sessions are in the order in which they began.
                    return Ok(swept);
                }
                if let Some(row) = self.vault.read_row(name).await? {
                    let version = Some(row.version);
                    let gone = self.vault.write_row(name, version, None, Urgency::Reserved).await?;
                    swept += usize::from(gone != RowWritten::Conflict);
                }
            }
            let Some(last) = names.last() else { return Ok(swept) };
            after = last.clone();
        }
    }

    fn make(
        &self,
        of: Of,
        tag_key: Zeroizing<[u8; 32]>,
        session_end: Timestamp,
        now: Timestamp,
    ) -> Result<(Secret, Row), RefreshError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES));
        bytes.extend_from_slice(&of.organization_id.to_bytes());
        bytes.extend_from_slice(&of.session_id.to_bytes());
        bytes.extend_from_slice(&of.generation.to_be_bytes());
        bytes.extend_from_slice(random_key()?.as_slice());
        let tag = blake3::keyed_hash(&tag_key, &bytes);
        bytes.extend(tag.as_bytes().iter().take(TAG_BYTES));
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + TOKEN_BYTES * 2));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        let idle_until = now.saturating_add_millis(self.idle_ms).min(session_end).as_millis();
        let row = Row { generation: of.generation, idle_until, tag_key, digest: digest(&bytes) };
        Ok((Secret::new(text), row))
    }

    async fn write(
        &self,
        session_id: SessionId,
        expected: Option<RowVersion>,
        row: &Row,
    ) -> Result<RowWritten, RefreshError> {
        let secret = row.secret().ok_or_else(|| VaultError::Unavailable("too long".to_owned()))?;
        let name = RowName::refresh(session_id);
        Ok(self.vault.write_row(&name, expected, Some(secret), Urgency::Normal).await?)
    }
}

/// What a token is about.
struct Of {
    organization_id: OrganizationId,
    session_id: SessionId,
    generation: u64,
}

/// How often it is tried to take a row away while others change it.
const ENDS_MAX: usize = 8;

/// When a session began, by its identifier: the milliseconds are its first 48 bits.
fn begun_at_ms(session: SessionId) -> i64 {
    let bits = u128::from_be_bytes(session.to_bytes()) >> 80;
    i64::try_from(bits).unwrap_or(i64::MAX)
}

/// What stands for a token. It needs no key: the token has 256 random bits.
fn digest(token: &[u8]) -> [u8; 32] {
    *blake3::hash(token).as_bytes()
}

#[cfg(test)]
mod tests;

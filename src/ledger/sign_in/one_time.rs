//! One-time tokens: what somebody is sent, to join an organization or to set a password
//! that was forgotten.
//!
//! A token says what it is for and whose it is; the row `invitation/<user>` or
//! `reset/<account>` holds a digest of the one that is good, and until when. Making another
//! one replaces it. It is looked at first ([`OneTimeTokens::look`]) and used up once what it
//! is for was done ([`OneTimeTokens::use_up`]): of two who use it at once, what it is for is
//! decided once by the events.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::id::{AccountId, OrganizationId, UserId};
use projections::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, Secret, random_key};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{Vault, VaultError};

const INVITATION_PREFIX: &str = "klit_";
const RESET_PREFIX: &str = "klpr_";
const SECRET_BYTES: usize = 32;
/// The first byte of a row: what is known of the token's way.
const ROW_SHOWN: u8 = 1;
const ROW_DELIVERED: u8 = 2;
const ROW_BYTES: usize = 1 + 8 + 32;
/// How often a row is written while others change it.
const TRIES_MAX: usize = 8;

/// Why a token could not be made or looked at. It says nothing about the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OneTimeError {
    /// The vault did not do its part.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Others kept changing the row.
    #[error("the token is being replaced by other requests; try again")]
    Contended,
}

/// What a token is for, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// To join this organization as this user.
    Invitation(OrganizationId, UserId),
    /// To set the password of this account.
    Reset(AccountId),
}

impl Occasion {
    fn prefix(self) -> &'static str {
        match self {
            Self::Invitation(..) => INVITATION_PREFIX,
            Self::Reset(_) => RESET_PREFIX,
        }
    }

    fn head(self) -> Vec<u8> {
        match self {
            Self::Invitation(organization, user) => {
                [organization.to_bytes(), user.to_bytes()].concat()
            }
            Self::Reset(account) => account.to_bytes().to_vec(),
        }
    }

    fn row(self) -> RowName {
        match self {
            Self::Invitation(_, user) => RowName::invitation(user),
            Self::Reset(account) => RowName::reset(account),
        }
    }
}

/// A text that may be a one-time token, taken apart. It cannot be printed.
pub struct PresentedOneTime {
    /// What it says it is for. Believe it once it was looked at.
    pub occasion: Occasion,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl PresentedOneTime {
    /// Takes the token of an invitation apart; none if it has not that form.
    #[must_use]
    pub fn invitation(text: &str) -> Option<Self> {
        let bytes = decode(text, INVITATION_PREFIX)?;
        let (organization, rest) = bytes.split_first_chunk()?;
        let (user, secret) = rest.split_first_chunk()?;
        let occasion = Occasion::Invitation(
            OrganizationId::from_bytes(*organization),
            UserId::from_bytes(*user),
        );
        Some(Self { occasion, secret: Zeroizing::new(secret.try_into().ok()?) })
    }

    /// Takes the token of a password's reset apart; none if it has not that form.
    #[must_use]
    pub fn reset(text: &str) -> Option<Self> {
        let bytes = decode(text, RESET_PREFIX)?;
        let (account, secret) = bytes.split_first_chunk()?;
        let occasion = Occasion::Reset(AccountId::from_bytes(*account));
        Some(Self { occasion, secret: Zeroizing::new(secret.try_into().ok()?) })
    }
}

fn decode(text: &str, prefix: &str) -> Option<Zeroizing<Vec<u8>>> {
    const BYTES_MAX: usize = 2 * 16 + SECRET_BYTES;
    let body = text.strip_prefix(prefix).filter(|body| body.len() <= BYTES_MAX * 2)?;
    URL_SAFE_NO_PAD.decode(body).ok().map(Zeroizing::new)
}

/// What a row holds.
struct Row {
    ends_at: Timestamp,
    digest: [u8; 32],
    delivered: bool,
}

impl Row {
    fn read(secret: &RowSecret) -> Option<Self> {
        let bytes: &[u8; ROW_BYTES] = secret.expose().try_into().ok()?;
        let (&[form], rest) = bytes.split_first_chunk()?;
        let (ends_at, digest) = rest.split_first_chunk()?;
        let ends_at = Timestamp::from_millis(i64::from_be_bytes(*ends_at))?;
        let delivered = match form {
            ROW_SHOWN => false,
            ROW_DELIVERED => true,
            _ => return None,
        };
        Some(Self { ends_at, digest: digest.try_into().ok()?, delivered })
    }

    fn secret(&self) -> Option<RowSecret> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROW_BYTES));
        bytes.push(if self.delivered { ROW_DELIVERED } else { ROW_SHOWN });
        bytes.extend_from_slice(&self.ends_at.as_millis().to_be_bytes());
        bytes.extend_from_slice(&self.digest);
        RowSecret::new(bytes)
    }
}

/// What came of a look at a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is the one that is good.
    Good {
        /// The state to use up.
        version: RowVersion,
        /// Whether it was made to be delivered, and to be shown to nobody else.
        delivered: bool,
    },
    /// It is not, or was used, or replaced, or its time is over.
    Wrong,
}

/// Makes one-time tokens and takes them.
pub struct OneTimeTokens {
    vault: Arc<dyn Vault>,
}

impl OneTimeTokens {
    /// With rows in this vault.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }

    /// A token that is good until this instant; the one before is good no more. `delivered`
    /// where it will be shown to nobody but whom it is delivered to. What is kept
    /// of it is on disk when this returns.
    ///
    /// # Errors
    ///
    /// The vault or the system did not do its part, or others kept making some.
    pub async fn make(
        &self,
        occasion: Occasion,
        ends_at: Timestamp,
        delivered: bool,
    ) -> Result<Secret, OneTimeError> {
        let secret = random_key()?;
        let row = Row { ends_at, digest: digest(occasion, &secret), delivered };
        let name = occasion.row();
        for _ in 0..TRIES_MAX {
            let seen = self.vault.read_row(&name).await?.map(|row| row.version);
            let kept =
                row.secret().ok_or_else(|| VaultError::Unavailable("too long".to_owned()))?;
            let written = self.vault.write_row(&name, seen, Some(kept), Urgency::Normal).await?;
            if written != RowWritten::Conflict {
                return Ok(text(occasion, &secret));
            }
        }
        Err(OneTimeError::Contended)
    }

    /// Looks whether a token is good at this instant. It stays so.
    ///
    /// # Errors
    ///
    /// The vault did not do its part.
    pub async fn look(
        &self,
        presented: &PresentedOneTime,
        now: Timestamp,
    ) -> Result<Looked, OneTimeError> {
        let name = presented.occasion.row();
        let Some(kept) = self.vault.read_row(&name).await? else { return Ok(Looked::Wrong) };
        let row = Row::read(&kept.secret).ok_or_else(|| VaultError::Damaged(name.to_string()))?;
        let shown = digest(presented.occasion, &presented.secret);
        let same: bool = shown.ct_eq(&row.digest).into();
        Ok(if same && now < row.ends_at {
            Looked::Good { version: kept.version, delivered: row.delivered }
        } else {
            Looked::Wrong
        })
    }

    /// Takes away the token of an occasion, if there is one.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept making some.
    pub async fn take_away(&self, occasion: Occasion) -> Result<(), OneTimeError> {
        for _ in 0..TRIES_MAX {
            let Some(row) = self.vault.read_row(&occasion.row()).await? else { return Ok(()) };
            if self.use_up(occasion, row.version).await? {
                return Ok(());
            }
        }
        Err(OneTimeError::Contended)
    }

    /// Uses a token up: of those who looked at it at once, one alone gets true.
    ///
    /// # Errors
    ///
    /// The vault did not do its part.
    pub async fn use_up(
        &self,
        occasion: Occasion,
        looked: RowVersion,
    ) -> Result<bool, OneTimeError> {
        let written =
            self.vault.write_row(&occasion.row(), Some(looked), None, Urgency::Reserved).await?;
        Ok(written != RowWritten::Conflict)
    }
}

fn text(occasion: Occasion, secret: &[u8; SECRET_BYTES]) -> Secret {
    let mut bytes = Zeroizing::new(occasion.head());
    bytes.reserve_exact(SECRET_BYTES);
    bytes.extend_from_slice(secret);
    let mut text = Zeroizing::new(String::with_capacity(8 + bytes.len() * 2));
    text.push_str(occasion.prefix());
    URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
    Secret::new(text)
}

/// What stands for a token. It needs no key: the token has 256 random bits.
fn digest(occasion: Occasion, secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(occasion.prefix().as_bytes());
    hasher.update(&occasion.head());
    hasher.update(secret);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::memory::MemoryVault;

    const USER: UserId = UserId::from_bytes([3; 16]);
    const ACCOUNT: AccountId = AccountId::from_bytes([4; 16]);
    const INVITATION: Occasion = Occasion::Invitation(OrganizationId::from_bytes([2; 16]), USER);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn tokens() -> OneTimeTokens {
        OneTimeTokens::new(Arc::new(MemoryVault::new()))
    }

    #[tokio::test]
    async fn a_token_is_good_once_until_its_time_is_over_or_another_is_made() {
        let tokens = tokens();
        let first = tokens.make(INVITATION, at(100), false).await.unwrap();
        let shown = PresentedOneTime::invitation(first.expose()).unwrap();
        assert_eq!(shown.occasion, INVITATION);
        let looked = tokens.look(&shown, at(99)).await.unwrap();
        let Looked::Good { version, delivered: false } = looked else { panic!("{looked:?}") };
        assert_eq!(tokens.look(&shown, at(100)).await.unwrap(), Looked::Wrong);
        assert!(tokens.use_up(INVITATION, version).await.unwrap());
        assert!(!tokens.use_up(INVITATION, version).await.unwrap(), "used up");
        assert_eq!(tokens.look(&shown, at(1)).await.unwrap(), Looked::Wrong);
        let second = tokens.make(INVITATION, at(100), false).await.unwrap();
        let third = tokens.make(INVITATION, at(100), true).await.unwrap();
        let second = PresentedOneTime::invitation(second.expose()).unwrap();
        let third = PresentedOneTime::invitation(third.expose()).unwrap();
        assert_eq!(tokens.look(&second, at(1)).await.unwrap(), Looked::Wrong);
        let looked = tokens.look(&third, at(1)).await.unwrap();
        assert!(matches!(looked, Looked::Good { delivered: true, .. }), "{looked:?}");
        let stale = tokens.use_up(INVITATION, version).await.unwrap();
        assert!(!stale, "a state that is gone uses nothing up");
    }

    #[tokio::test]
    async fn no_token_is_good_for_another_thing() {
        let tokens = tokens();
        let reset = tokens.make(Occasion::Reset(ACCOUNT), at(100), true).await.unwrap();
        let invitation = tokens.make(INVITATION, at(100), true).await.unwrap();
        assert!(PresentedOneTime::invitation(reset.expose()).is_none());
        assert!(PresentedOneTime::reset(invitation.expose()).is_none());
        let renamed = reset.expose().replacen(RESET_PREFIX, INVITATION_PREFIX, 1);
        assert!(PresentedOneTime::invitation(&renamed).is_none());
        // Another user's, with the same secret.
        let bytes = decode(invitation.expose(), INVITATION_PREFIX).unwrap();
        let mut other = bytes.to_vec();
        other[16] ^= 1;
        let other = format!("{INVITATION_PREFIX}{}", URL_SAFE_NO_PAD.encode(other));
        let other = PresentedOneTime::invitation(&other).unwrap();
        assert_eq!(tokens.look(&other, at(1)).await.unwrap(), Looked::Wrong);
        for wrong in ["", "klit_", "klit_AAAA", "klpr_*", &"klit_A".repeat(200)] {
            assert!(PresentedOneTime::invitation(wrong).is_none(), "{wrong}");
            assert!(PresentedOneTime::reset(wrong).is_none(), "{wrong}");
        }
    }
}

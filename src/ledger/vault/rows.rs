//! Secret rows: small secrets that change, such as the password of an account.
//!
//! What sign-in rests on is no event: it must be forgotten when it is replaced. It rests
//! behind the [`Vault`](super::Vault) as rows with a name, changed by compare-and-set: whoever
//! writes says which version they have seen, and of two at once one alone wins.

use std::fmt;
use std::str::FromStr;

use projections::digest::SigningKeyId;
use projections::id::{AccountId, SessionId, UserId};
use zeroize::Zeroizing;

/// Most bytes of one secret row.
pub const ROW_BYTES_MAX: usize = 4_096;
/// Most names in one answer to [`Vault::row_names`](super::Vault::row_names).
pub const ROW_NAMES_MAX: usize = 1_000;

/// What a row is about. The order is that of names as texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// The token by which a user joins.
    Invitation,
    /// What an account's password is compared with.
    Password,
    /// The digests of an account's recovery codes.
    Recovery,
    /// Which refresh token of a session is the current one.
    Refresh,
    /// The token by which an account's password can be set.
    Reset,
    /// The private half of a key that signs access tokens.
    SigningKey,
    /// An account's secret for one-time codes, and which of them was used last.
    Totp,
}

impl RowKind {
    const ALL: [Self; 7] = [
        Self::Invitation,
        Self::Password,
        Self::Recovery,
        Self::Refresh,
        Self::Reset,
        Self::SigningKey,
        Self::Totp,
    ];

    fn head(self) -> &'static str {
        match self {
            Self::Invitation => "invitation/",
            Self::Password => "password/",
            Self::Recovery => "recovery/",
            Self::Refresh => "refresh/",
            Self::Reset => "reset/",
            Self::SigningKey => "signing-key/",
            Self::Totp => "totp/",
        }
    }
}

/// What a row is called: what it is about, and whose it is. It tells nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowName {
    kind: RowKind,
    text: String,
}

/// A text that names no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a secret row, such as `password/acc_…`")]
pub struct InvalidRowName;

impl RowName {
    /// The row of an account's password.
    #[must_use]
    pub fn password(account: AccountId) -> Self {
        Self::new(RowKind::Password, account)
    }

    /// The row of a user's invitation.
    #[must_use]
    pub fn invitation(user: UserId) -> Self {
        Self::new(RowKind::Invitation, user)
    }

    /// The row of the reset of an account's password.
    #[must_use]
    pub fn reset(account: AccountId) -> Self {
        Self::new(RowKind::Reset, account)
    }

    /// The row of an account's one-time codes.
    #[must_use]
    pub fn totp(account: AccountId) -> Self {
        Self::new(RowKind::Totp, account)
    }

    /// The row of an account's recovery codes.
    #[must_use]
    pub fn recovery(account: AccountId) -> Self {
        Self::new(RowKind::Recovery, account)
    }

    /// The row of a session's refresh token.
    #[must_use]
    pub fn refresh(session: SessionId) -> Self {
        Self::new(RowKind::Refresh, session)
    }

    /// The row of a signing key's private half.
    #[must_use]
    pub fn signing_key(key: SigningKeyId) -> Self {
        Self::new(RowKind::SigningKey, key)
    }

    fn new(kind: RowKind, whose: impl fmt::Display) -> Self {
        Self { kind, text: format!("{}{whose}", kind.head()) }
    }

    /// What the row is about.
    #[must_use]
    pub fn kind(&self) -> RowKind {
        self.kind
    }

    /// The session whose refresh token this row is about; none if it is about another thing.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.text.strip_prefix(RowKind::Refresh.head())?.parse().ok()
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RowName {
    type Err = InvalidRowName;

    fn from_str(text: &str) -> Result<Self, InvalidRowName> {
        let (kind, whose) = RowKind::ALL
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.head()).map(|whose| (kind, whose)))
            .ok_or(InvalidRowName)?;
        let known = match kind {
            RowKind::Password | RowKind::Recovery | RowKind::Reset | RowKind::Totp => {
                whose.parse::<AccountId>().is_ok()
            }
            RowKind::Invitation => whose.parse::<UserId>().is_ok(),
            RowKind::Refresh => whose.parse::<SessionId>().is_ok(),
            RowKind::SigningKey => SigningKeyId::from_hex(whose).is_some(),
        };
        if known { Ok(Self { kind, text: text.to_owned() }) } else { Err(InvalidRowName) }
    }
}

/// Which state of a row. A row that is written anew, even after it was taken away, never has
/// a version that it had before; beyond being the same or not, versions mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion(pub u64);

/// The bytes of a row: at most [`ROW_BYTES_MAX`]. They cannot be printed, and are
/// overwritten when dropped.
#[derive(Clone)]
pub struct RowSecret(Zeroizing<Vec<u8>>);

impl RowSecret {
    /// Takes these bytes into custody; none if they are too many.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (bytes.len() <= ROW_BYTES_MAX).then_some(Self(bytes))
    }

    /// The bytes, for the one who must use them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A row as it is now.
#[derive(Clone)]
pub struct SecretRow {
    /// Which state this is: what a change of it must name.
    pub version: RowVersion,
    /// What it holds.
    pub secret: RowSecret,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowWritten {
    /// The row is as asked, on disk; its version, or none where it is gone.
    Written(Option<RowVersion>),
    /// The row was not in the state that the change was meant for. Nothing was written.
    Conflict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        let account = AccountId::from_parts(1_700_000_000_000, 1);
        let session = SessionId::from_parts(1_700_000_000_000, 2);
        let key = SigningKeyId([7; 16]);
        let names = [
            RowName::invitation(UserId::from_parts(1_700_000_000_000, 3)),
            RowName::password(account),
            RowName::recovery(account),
            RowName::refresh(session),
            RowName::reset(account),
            RowName::signing_key(key),
            RowName::totp(account),
        ];
        assert!(names.is_sorted());
        assert!(names.iter().map(RowName::as_str).is_sorted());
        for (name, kind) in names.iter().zip(RowKind::ALL) {
            assert_eq!(name.as_str().parse().as_ref(), Ok(name));
            assert_eq!(name.kind(), kind);
            assert_eq!(name.session(), (kind == RowKind::Refresh).then_some(session));
        }
        for other in ["", "password/", "password", "refresh/acc_x", "lookup-key", "totp/totp/"] {
            assert_eq!(other.parse::<RowName>(), Err(InvalidRowName), "{other}");
        }
        assert!(format!("password/{session}").parse::<RowName>().is_err());
    }

    #[test]
    fn a_row_is_small() {
        let bytes = |n: usize| Zeroizing::new(vec![7; n]);
        assert!(RowSecret::new(bytes(ROW_BYTES_MAX)).is_some());
        assert!(RowSecret::new(bytes(ROW_BYTES_MAX + 1)).is_none());
    }
}

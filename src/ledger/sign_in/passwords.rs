//! The passwords of accounts: checked, set, taken away.
//!
//! A password rests as its hash in a row of the vault. Setting one is durable when it
//! returns; the event that tells of it comes after.

use std::sync::Arc;

use projections::id::AccountId;
use zeroize::Zeroizing;

use super::hashing::{Compared, HashedPassword, Hashers, HashingError};
use super::password::{NewPassword, Password};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{Vault, VaultError};

/// Why a password could not be checked or set. None of it says whether an account has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It could not be hashed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The vault did not do its part.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// Somebody else set the password meanwhile. Nothing was written.
    #[error("the password was changed by another request; sign in again")]
    Conflict,
}

/// What came of a look at a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is not the account's, or there is no such account, or it has no password.
    Wrong,
    /// It is the account's.
    Right {
        /// The state of the password: what a change that rests on this look must name.
        version: RowVersion,
    },
}

/// The passwords of all accounts.
pub struct Passwords {
    vault: Arc<dyn Vault>,
    hashers: Hashers,
}

impl Passwords {
    /// Passwords in this vault, hashed by these threads.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>, hashers: Hashers) -> Self {
        Self { vault, hashers }
    }

    /// Compares a password with an account's. None for an account that is not there, and a
    /// password that is too long for any: both take as long as a wrong one.
    ///
    /// A password that was hashed at another cost is hashed anew on the way.
    ///
    /// # Errors
    ///
    /// It could not be compared; that says nothing about it.
    pub async fn check(
        &self,
        account: Option<AccountId>,
        password: Option<Password>,
    ) -> Result<Checked, PasswordError> {
        // No account has this identifier; to look for its row takes as long as for any other.
        let name = RowName::password(account.unwrap_or(AccountId::from_bytes([0; 16])));
        let row = self.vault.read_row(&name).await?;
        let row = row.filter(|_| account.is_some() && password.is_some());
        let kept = row.as_ref().map(|row| {
            HashedPassword::from_bytes(row.secret.expose()).ok_or(HashingError::Damaged)
        });
        let password = password.or_else(|| Password::presented(""));
        let password = password.ok_or(HashingError::Failed)?;
        let compared = self.hashers.compare(password, kept.transpose()?).await?;
        let (Some(row), Compared::Same { renewed }) = (row, compared) else {
            return Ok(Checked::Wrong);
        };
        let mut version = row.version;
        if let Some(renewed) = renewed
            // Whoever is right may come in; the old hash can be renewed another time.
            && let Ok(RowWritten::Written(Some(written))) =
                self.write(&name, Some(version), &renewed).await
        {
            version = written;
        }
        Ok(Checked::Right { version })
    }

    /// The state of an account's password, for one who may set it without knowing it; none
    /// where there is no password.
    ///
    /// # Errors
    ///
    /// The vault cannot be asked.
    pub async fn version(&self, account: AccountId) -> Result<Option<RowVersion>, PasswordError> {
        let row = self.vault.read_row(&RowName::password(account)).await?;
        Ok(row.map(|row| row.version))
    }

    /// Sets an account's password, if it still is in the state that the caller saw (none:
    /// there was no password). It is on disk when this returns; who sets one ends sessions
    /// by it, so it may use the space that is set aside.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Conflict`] if it no longer is. After any other error it is not
    /// known to be set.
    pub async fn set(
        &self,
        account: AccountId,
        password: NewPassword,
        seen: Option<RowVersion>,
    ) -> Result<(), PasswordError> {
        let hashed = self.hashers.hash(password.into_password()).await?;
        match self.write(&RowName::password(account), seen, &hashed).await? {
            RowWritten::Written(_) => Ok(()),
            RowWritten::Conflict => Err(PasswordError::Conflict),
        }
    }

    /// Takes away an account's password, whatever it is.
    ///
    /// # Errors
    ///
    /// The vault did not do it, or others kept setting it.
    pub async fn remove(&self, account: AccountId) -> Result<(), PasswordError> {
        let name = RowName::password(account);
        for _ in 0..REMOVALS_MAX {
            let seen = self.version(account).await?;
            let removed = self.vault.write_row(&name, seen, None, Urgency::Reserved).await?;
            if removed != RowWritten::Conflict {
                return Ok(());
            }
        }
        Err(PasswordError::Conflict)
    }

    async fn write(
        &self,
        name: &RowName,
        seen: Option<RowVersion>,
        hashed: &HashedPassword,
    ) -> Result<RowWritten, PasswordError> {
        let bytes = Zeroizing::new(hashed.expose().as_bytes().to_vec());
        let secret = RowSecret::new(bytes).ok_or(HashingError::Failed)?;
        Ok(self.vault.write_row(name, seen, Some(secret), Urgency::Reserved).await?)
    }
}

/// How often a removal is tried while others set the password.
const REMOVALS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::hashing::{HashingCost, HashingTerms};
    use super::*;
    use crate::vault::memory::MemoryVault;

    const CHEAP: HashingCost = HashingCost { memory_kib: 8_192, iterations: 1, parallelism: 1 };

    fn account(n: u128) -> AccountId {
        AccountId::from_parts(1_700_000_000_000, n)
    }

    fn passwords(vault: &Arc<MemoryVault>, cost: HashingCost) -> Passwords {
        let terms = HashingTerms { cost, ..HashingTerms::default() };
        Passwords::new(Arc::clone(vault) as _, Hashers::start(terms).unwrap())
    }

    fn new(text: &str) -> NewPassword {
        NewPassword::chosen(text, None).unwrap()
    }

    async fn is_right(passwords: &Passwords, account: Option<AccountId>, text: &str) -> bool {
        let checked = passwords.check(account, Password::presented(text)).await;
        checked.unwrap() != Checked::Wrong
    }

    #[tokio::test]
    async fn a_password_is_its_account_s_alone() {
        let vault = Arc::new(MemoryVault::new());
        let passwords = passwords(&vault, CHEAP);
        let (ada, bob) = (Some(account(1)), Some(account(2)));
        assert!(!is_right(&passwords, ada, "").await, "no password is no password");
        passwords.set(account(1), new("correct horse"), None).await.unwrap();
        passwords.set(account(2), new("battery staple"), None).await.unwrap();
        assert!(is_right(&passwords, ada, "correct horse").await);
        assert!(!is_right(&passwords, bob, "correct horse").await);
        assert!(!is_right(&passwords, None, "correct horse").await);
        assert!(!is_right(&passwords, Some(account(3)), "correct horse").await);
        let too_long = passwords.check(ada, None).await;
        assert_eq!(too_long, Ok(Checked::Wrong));
        passwords.remove(account(1)).await.unwrap();
        passwords.remove(account(1)).await.unwrap();
        assert!(!is_right(&passwords, ada, "correct horse").await);
        assert!(is_right(&passwords, bob, "battery staple").await);
    }

    /// The row of an account that is not there is looked for under an identifier that no
    /// account has; should there be one all the same, it is nobody's.
    #[tokio::test]
    async fn nobody_has_no_password() {
        let vault = Arc::new(MemoryVault::new());
        let passwords = passwords(&vault, CHEAP);
        passwords.set(AccountId::from_bytes([0; 16]), new("correct horse"), None).await.unwrap();
        assert!(!is_right(&passwords, None, "correct horse").await);
    }

    #[tokio::test]
    async fn a_change_rests_on_the_password_that_was_seen() {
        let vault = Arc::new(MemoryVault::new());
        let passwords = passwords(&vault, CHEAP);
        passwords.set(account(1), new("correct horse"), None).await.unwrap();
        let seen = passwords.version(account(1)).await.unwrap();
        let checked = passwords.check(Some(account(1)), Password::presented("correct horse")).await;
        assert_eq!(checked.ok(), seen.map(|version| Checked::Right { version }));
        for stale in [None, Some(RowVersion(u64::MAX))] {
            let late = passwords.set(account(1), new("another horse"), stale).await;
            assert_eq!(late, Err(PasswordError::Conflict));
        }
        let (one, two) = tokio::join!(
            passwords.set(account(1), new("another horse"), seen),
            passwords.set(account(1), new("a third horse"), seen),
        );
        let won = [one.is_ok(), two.is_ok()];
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        assert!(!is_right(&passwords, Some(account(1)), "correct horse").await);
        assert_eq!(is_right(&passwords, Some(account(1)), "another horse").await, won[0]);
        assert_eq!(is_right(&passwords, Some(account(1)), "a third horse").await, won[1]);
    }

    #[tokio::test]
    async fn a_password_is_renewed_by_who_knows_it() {
        let vault = Arc::new(MemoryVault::new());
        passwords(&vault, CHEAP).set(account(1), new("correct horse"), None).await.unwrap();
        let today = HashingCost { iterations: 2, ..CHEAP };
        let passwords = passwords(&vault, today);
        let cost = || async {
            let row = vault.read_row(&RowName::password(account(1))).await.unwrap().unwrap();
            let text = String::from_utf8(row.secret.expose().to_vec()).unwrap();
            (text.contains("t=2"), row.version)
        };
        assert!(!is_right(&passwords, Some(account(1)), "wrong").await);
        assert!(!cost().await.0);
        let checked = passwords.check(Some(account(1)), Password::presented("correct horse")).await;
        let (renewed, version) = cost().await;
        assert!(renewed);
        assert_eq!(checked, Ok(Checked::Right { version }));
        assert!(is_right(&passwords, Some(account(1)), "correct horse").await);
    }

    #[tokio::test]
    async fn a_full_disk_keeps_nobody_out_and_lets_passwords_be_changed() {
        let vault = Arc::new(MemoryVault::new());
        passwords(&vault, CHEAP).set(account(1), new("correct horse"), None).await.unwrap();
        let passwords = passwords(&vault, HashingCost { iterations: 2, ..CHEAP });
        vault.set_full(Some(Urgency::Reserved));
        assert!(is_right(&passwords, Some(account(1)), "correct horse").await);
        let seen = passwords.version(account(1)).await.unwrap();
        let refused = passwords.set(account(1), new("another horse"), seen).await;
        assert_eq!(refused, Err(PasswordError::Vault(VaultError::Full)));
        vault.set_full(Some(Urgency::Normal));
        assert_eq!(passwords.set(account(1), new("another horse"), seen).await, Ok(()));
    }
}

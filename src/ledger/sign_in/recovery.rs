//! Recovery codes: what stands for an authenticator that is lost, each of them once.
//!
//! The row `recovery/<account>` holds a digest of each that is left. Using one writes the
//! row without it, by compare-and-set, so that one code never lets two in.

use std::sync::Arc;

use projections::id::AccountId;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, Secret, random_key};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{Vault, VaultError};

/// How many codes an account is given.
pub const CODES: u8 = 10;
/// Characters of a code, without the hyphens: 80 bits.
pub const CODE_CHARS: usize = 16;
const GROUP_CHARS: usize = 4;
/// Crockford's base32, in lower case: no character is taken for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ROW_FORM: u8 = 1;
const DIGEST_BYTES: usize = 32;
/// How often a use or a replacement is tried while others change the row.
const TRIES_MAX: usize = 8;
const DIGEST_CONTEXT: &str = "keyledger/vault/1/recovery-code";

/// Why recovery codes could not be made or used. It says nothing about a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The vault did not do its part.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Others kept changing the codes.
    #[error("the recovery codes are being changed by other requests; try again")]
    Contended,
}

/// What came of using a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeUse {
    /// It was one of the account's, and is none any more; so many are left.
    Used {
        /// How many.
        left: u8,
    },
    /// It is none of the account's, or was used.
    Wrong,
}

/// The recovery codes of all accounts.
pub struct RecoveryCodes {
    vault: Arc<dyn Vault>,
}

impl RecoveryCodes {
    /// With rows in this vault.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }

    /// Gives an account [`CODES`] new codes, to be shown once; the ones before are none any
    /// more. They are on disk when this returns.
    ///
    /// # Errors
    ///
    /// The vault or the system did not do its part, or others kept changing them.
    pub async fn replace(&self, account: AccountId) -> Result<Vec<Secret>, RecoveryError> {
        let codes: Vec<Secret> = (0..CODES).map(|_| make()).collect::<Result<_, _>>()?;
        let digests: Vec<_> = codes
            .iter()
            .filter_map(|code| canonical(code.expose()))
            .map(|code| digest(account, &code))
            .collect();
        for _ in 0..TRIES_MAX {
            let seen = self.vault.read_row(&RowName::recovery(account)).await?;
            let seen = seen.map(|row| row.version);
            if self.write(account, seen, &digests).await? != RowWritten::Conflict {
                return Ok(codes);
            }
        }
        Err(RecoveryError::Contended)
    }

    /// Uses a code, however its letters are written and its groups are set apart.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept changing the codes.
    pub async fn use_code(&self, account: AccountId, text: &str) -> Result<CodeUse, RecoveryError> {
        let name = RowName::recovery(account);
        for _ in 0..TRIES_MAX {
            let Some(row) = self.vault.read_row(&name).await? else { return Ok(CodeUse::Wrong) };
            let mut digests =
                read(&row.secret).ok_or_else(|| VaultError::Damaged(name.to_string()))?;
            let Some(code) = canonical(text) else { return Ok(CodeUse::Wrong) };
            let shown = digest(account, &code);
            let Some(place) = digests.iter().position(|kept| kept.ct_eq(&shown).into()) else {
                return Ok(CodeUse::Wrong);
            };
            digests.remove(place);
            if self.write(account, Some(row.version), &digests).await? != RowWritten::Conflict {
                let left = u8::try_from(digests.len()).unwrap_or(u8::MAX);
                return Ok(CodeUse::Used { left });
            }
        }
        Err(RecoveryError::Contended)
    }

    /// Takes away an account's codes.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept changing them.
    pub async fn remove(&self, account: AccountId) -> Result<(), RecoveryError> {
        let name = RowName::recovery(account);
        for _ in 0..TRIES_MAX {
            let seen = self.vault.read_row(&name).await?.map(|row| row.version);
            let removed = self.vault.write_row(&name, seen, None, Urgency::Reserved).await?;
            if removed != RowWritten::Conflict {
                return Ok(());
            }
        }
        Err(RecoveryError::Contended)
    }

    /// Fewer codes on a full disk is what ends access: it may use what is set aside.
    async fn write(
        &self,
        account: AccountId,
        seen: Option<RowVersion>,
        digests: &[[u8; DIGEST_BYTES]],
    ) -> Result<RowWritten, RecoveryError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + digests.len() * DIGEST_BYTES));
        bytes.push(ROW_FORM);
        digests.iter().for_each(|digest| bytes.extend_from_slice(digest));
        let secret = RowSecret::new(bytes);
        let name = RowName::recovery(account);
        Ok(self.vault.write_row(&name, seen, secret, Urgency::Reserved).await?)
    }
}

fn read(secret: &RowSecret) -> Option<Vec<[u8; DIGEST_BYTES]>> {
    let (form, digests) = secret.expose().split_first()?;
    let (digests, rest) = digests.as_chunks::<DIGEST_BYTES>();
    (*form == ROW_FORM && rest.is_empty()).then(|| digests.to_vec())
}

/// A new code, in groups set apart by hyphens.
fn make() -> Result<Secret, NoEntropy> {
    let random = random_key()?;
    let mut text = Zeroizing::new(String::with_capacity(CODE_CHARS * 2));
    for (at, byte) in random.iter().take(CODE_CHARS).enumerate() {
        if at > 0 && at % GROUP_CHARS == 0 {
            text.push('-');
        }
        // 32 divides 256: none is likelier than another.
        let character = ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or_default();
        text.push(char::from(character));
    }
    Ok(Secret::new(text))
}

/// A code as it is digested: lower case, without hyphens and blanks, with the letters that
/// are taken for digits as digits. None if it cannot be a code.
fn canonical(text: &str) -> Option<Zeroizing<String>> {
    if text.len() > CODE_CHARS * 2 {
        return None;
    }
    let mut code = Zeroizing::new(String::with_capacity(CODE_CHARS * 2));
    for character in text.chars().filter(|character| !matches!(character, '-' | ' ')) {
        let character = match character.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        if !ALPHABET.iter().any(|known| char::from(*known) == character) {
            return None;
        }
        code.push(character);
    }
    (code.len() == CODE_CHARS).then_some(code)
}

/// What stands for a code of this account.
fn digest(account: AccountId, code: &str) -> [u8; DIGEST_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
    hasher.update(&account.to_bytes());
    hasher.update(code.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::vault::memory::MemoryVault;

    fn account(n: u128) -> AccountId {
        AccountId::from_parts(1_700_000_000_000, n)
    }

    fn codes() -> (Arc<MemoryVault>, RecoveryCodes) {
        let vault = Arc::new(MemoryVault::new());
        (Arc::clone(&vault), RecoveryCodes::new(vault))
    }

    #[tokio::test]
    async fn each_code_lets_in_once() {
        let (_, codes) = codes();
        let given = codes.replace(account(1)).await.unwrap();
        assert_eq!(given.len(), usize::from(CODES));
        let distinct: BTreeSet<&str> = given.iter().map(Secret::expose).collect();
        assert_eq!(distinct.len(), given.len());
        const { assert!(CODE_CHARS * 5 >= 60) };
        for (code, left) in given.iter().zip((0..CODES).rev()) {
            let wrong = codes.use_code(account(2), code.expose()).await;
            assert_eq!(wrong, Ok(CodeUse::Wrong), "another account's");
            assert_eq!(codes.use_code(account(1), code.expose()).await, Ok(CodeUse::Used { left }));
            assert_eq!(codes.use_code(account(1), code.expose()).await, Ok(CodeUse::Wrong));
        }
    }

    #[tokio::test]
    async fn new_codes_take_the_place_of_the_old_ones() {
        let (_, codes) = codes();
        let old = codes.replace(account(1)).await.unwrap();
        let new = codes.replace(account(1)).await.unwrap();
        assert_eq!(codes.use_code(account(1), old[0].expose()).await, Ok(CodeUse::Wrong));
        let used = codes.use_code(account(1), new[0].expose()).await;
        assert_eq!(used, Ok(CodeUse::Used { left: CODES - 1 }));
        codes.remove(account(1)).await.unwrap();
        codes.remove(account(1)).await.unwrap();
        assert_eq!(codes.use_code(account(1), new[1].expose()).await, Ok(CodeUse::Wrong));
    }

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let code = "o1il-2345-6789-abcd";
        let same = canonical(code).unwrap();
        assert_eq!(*same, "011123456789abcd");
        for written in ["O1IL 2345 6789 ABCD", "01112 3456 789abcd", "0-1-1-1-23456789abcd"] {
            assert_eq!(canonical(written).as_deref(), Some(&*same), "{written}");
        }
        for bad in ["", "0111-2345-6789-abc", "0111-2345-6789-abcde", "u111-2345-6789-abcd"] {
            assert!(canonical(bad).is_none(), "{bad}");
        }
        assert!(canonical(&"-".repeat(100_000)).is_none());
        let made = make().unwrap();
        assert_eq!(made.expose().len(), CODE_CHARS + 3);
        assert!(canonical(made.expose()).is_some());
    }

    /// Neither a code nor anything that tells one is kept.
    #[tokio::test]
    async fn digests_alone_are_kept() {
        let (vault, codes) = codes();
        let given = codes.replace(account(1)).await.unwrap();
        let row = vault.read_row(&RowName::recovery(account(1))).await.unwrap().unwrap();
        let kept = row.secret.expose();
        assert_eq!(kept.len(), 1 + usize::from(CODES) * DIGEST_BYTES);
        for code in given {
            let code = canonical(code.expose()).unwrap();
            assert!(!kept.windows(8).any(|window| window == &code.as_bytes()[..8]));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_with_one_code_one_alone_is_let_in() {
        let (_, codes) = codes();
        let codes = Arc::new(codes);
        for n in 0..20 {
            let given = codes.replace(account(n)).await.unwrap();
            let users: Vec<_> = (0..8)
                .map(|_| {
                    let (codes, code) = (Arc::clone(&codes), given[3].clone());
                    tokio::spawn(async move { codes.use_code(account(n), code.expose()).await })
                })
                .collect();
            let mut used = 0;
            for user in users {
                used += usize::from(user.await.unwrap().is_ok_and(|it| it != CodeUse::Wrong));
            }
            assert_eq!(used, 1);
        }
    }
}

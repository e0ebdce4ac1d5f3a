//! One-time codes of an authenticator: TOTP (RFC 6238) with SHA-1, six digits and steps of
//! 30 seconds, the one kind that every authenticator knows.
//!
//! The row `totp/<account>` holds the secret and the last step of which a code was used. A
//! code counts once: the step is moved on by compare-and-set, so that of two who show one
//! code at once one alone is let in. A secret counts from the moment on at which a code of it
//! was shown ([`Totps::confirm`]); until then the one before it stays. It waits for that for
//! [`WAITS_MS`], and is nothing more then.

use std::sync::Arc;

use projections::id::AccountId;
use projections::time::Timestamp;
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, Secret, random_key};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten};
use crate::ledger::vault::{Vault, VaultError};

/// Bytes of a secret: 160 bits, as RFC 4226 asks.
pub const SECRET_BYTES: usize = 20;
/// Digits of a code.
pub const DIGITS: u8 = 6;
/// Seconds of a step.
pub const STEP_S: u64 = 30;
/// By how many steps an authenticator's clock may be off, either way.
pub const DRIFT_STEPS: u64 = 1;
/// Most characters of the account's name in an authenticator.
const NAME_CHARS_MAX: usize = 256;
/// How long a secret waits to be confirmed, in milliseconds: a quarter of an hour.
pub const WAITS_MS: i64 = 15 * 60 * 1_000;
const ROW_FORM: u8 = 2;
/// As 2, but what waits has no end: it waits no more.
const ROW_FORM_1: u8 = 1;
/// How often a code is tried while others change the row.
const TRIES_MAX: usize = 8;

/// Why a code could not be looked at, or a secret not be made. It says nothing about a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// The vault did not do its part.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// Others kept changing the row.
    #[error("one-time codes are being used by other requests; try again")]
    Contended,
    /// The name of the account cannot stand in an authenticator.
    #[error("the account's name cannot be shown by an authenticator")]
    Name,
}

/// What came of showing a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeShown {
    /// It is the authenticator's.
    Right,
    /// It is not, or was used, or there is no authenticator.
    Wrong,
    /// It was to confirm one, and none waits for that, or none any more.
    NothingWaits,
}

/// What an authenticator is given, once.
pub struct Enrolment {
    /// The secret in base32, for typing.
    pub secret: Secret,
    /// The same as an `otpauth` URI, for a picture.
    pub uri: Secret,
}

/// A secret, and the last step of which a code was used.
#[derive(Clone)]
struct Seed {
    bytes: Zeroizing<[u8; SECRET_BYTES]>,
    /// 0: none was used.
    used_step: u64,
}

/// A secret that is to be confirmed.
#[derive(Clone)]
struct Pending {
    seed: Seed,
    /// The first instant at which it waits no more.
    until: Timestamp,
}

/// What a row holds: the secret that counts, and one that is to be confirmed.
#[derive(Default)]
struct Row {
    active: Option<Seed>,
    pending: Option<Pending>,
}

/// Which of them a code is to be of.
#[derive(Clone, Copy)]
enum Of {
    Active,
    Pending,
}

/// The one-time codes of all accounts.
pub struct Totps {
    vault: Arc<dyn Vault>,
}

impl Totps {
    /// With rows in this vault.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }

    /// Makes a secret for an account, to be confirmed; one that was waiting is thrown away,
    /// the one that counts still counts. `issuer` and `name` are what the authenticator shows.
    ///
    /// # Errors
    ///
    /// The vault or the system did not do its part, or the name does not do.
    pub async fn enrol(
        &self,
        account: AccountId,
        issuer: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Enrolment, TotpError> {
        let random = random_key()?;
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        for (to, from) in bytes.iter_mut().zip(random.iter()) {
            *to = *from;
        }
        let enrolment = enrolment(&bytes, issuer, name)?;
        for _ in 0..TRIES_MAX {
            let (seen, row) = self.read(account).await?;
            let seed = Seed { bytes: bytes.clone(), used_step: 0 };
            let pending = Some(Pending { seed, until: now.saturating_add_millis(WAITS_MS) });
            let row = Row { pending, ..row };
            if self.write(account, seen, &row, Urgency::Normal).await? != RowWritten::Conflict {
                return Ok(enrolment);
            }
        }
        Err(TotpError::Contended)
    }

    /// Shows a code of the secret that waits: if it is right, that secret counts from now on,
    /// and the code is used.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept changing the row.
    pub async fn confirm(
        &self,
        account: AccountId,
        code: &str,
        now: Timestamp,
    ) -> Result<CodeShown, TotpError> {
        self.show(account, code, now, Of::Pending).await
    }

    /// Shows a code of the secret that counts: if it is right, it is used.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept changing the row.
    pub async fn check(
        &self,
        account: AccountId,
        code: &str,
        now: Timestamp,
    ) -> Result<CodeShown, TotpError> {
        self.show(account, code, now, Of::Active).await
    }

    /// Takes away what an account has, waiting or not.
    ///
    /// # Errors
    ///
    /// The vault did not do its part, or others kept changing the row.
    pub async fn remove(&self, account: AccountId) -> Result<(), TotpError> {
        let name = RowName::totp(account);
        for _ in 0..TRIES_MAX {
            let (seen, _) = self.read(account).await?;
            let removed = self.vault.write_row(&name, seen, None, Urgency::Reserved).await?;
            if removed != RowWritten::Conflict {
                return Ok(());
            }
        }
        Err(TotpError::Contended)
    }

    async fn show(
        &self,
        account: AccountId,
        code: &str,
        now: Timestamp,
        of: Of,
    ) -> Result<CodeShown, TotpError> {
        for _ in 0..TRIES_MAX {
            let (seen, mut row) = self.read(account).await?;
            let seed = match of {
                Of::Active => row.active.take().ok_or(CodeShown::Wrong),
                Of::Pending => match row.pending.take() {
                    None => Err(CodeShown::NothingWaits),
                    Some(waits) if waits.until <= now => {
                        // Whoever comes first puts it away; it is nothing as it is.
                        self.write(account, seen, &row, Urgency::Normal).await?;
                        Err(CodeShown::NothingWaits)
                    }
                    Some(waits) => Ok(waits.seed),
                },
            };
            let mut seed = match seed {
                Ok(seed) => seed,
                Err(shown) => return Ok(shown),
            };
            let Some(step) = step_of(&seed, code, now) else { return Ok(CodeShown::Wrong) };
            seed.used_step = step;
            row.active = Some(seed);
            // To let nobody in on a full disk would lock everybody out who has an authenticator.
            let urgency = Urgency::Reserved;
            if self.write(account, seen, &row, urgency).await? != RowWritten::Conflict {
                return Ok(CodeShown::Right);
            }
        }
        Err(TotpError::Contended)
    }

    async fn read(&self, account: AccountId) -> Result<(Option<RowVersion>, Row), TotpError> {
        let name = RowName::totp(account);
        let Some(kept) = self.vault.read_row(&name).await? else {
            return Ok((None, Row::default()));
        };
        let row = Row::read(&kept.secret).ok_or_else(|| VaultError::Damaged(name.to_string()))?;
        Ok((Some(kept.version), row))
    }

    async fn write(
        &self,
        account: AccountId,
        seen: Option<RowVersion>,
        row: &Row,
        urgency: Urgency,
    ) -> Result<RowWritten, TotpError> {
        let name = RowName::totp(account);
        Ok(self.vault.write_row(&name, seen, row.secret(), urgency).await?)
    }
}

impl Row {
    /// Form, then for each of the two whether it is there, its secret and its last step; at the
    /// end how long the second waits.
    fn secret(&self) -> Option<RowSecret> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + 2 * (1 + SECRET_BYTES + 8) + 8));
        bytes.push(ROW_FORM);
        let pending = self.pending.as_ref();
        for seed in [self.active.as_ref(), pending.map(|it| &it.seed)] {
            bytes.push(u8::from(seed.is_some()));
            if let Some(seed) = seed {
                bytes.extend_from_slice(seed.bytes.as_slice());
                bytes.extend_from_slice(&seed.used_step.to_be_bytes());
            }
        }
        if let Some(pending) = pending {
            bytes.extend_from_slice(&pending.until.as_millis().to_be_bytes());
        }
        RowSecret::new(bytes)
    }

    fn read(secret: &RowSecret) -> Option<Self> {
        let (&form, mut rest) = secret.expose().split_first()?;
        let mut seed = || {
            let (&there, behind) = rest.split_first()?;
            rest = behind;
            if there == 0 {
                return Some(None);
            }
            let (bytes, behind) = rest.split_first_chunk()?;
            let (used_step, behind) = behind.split_first_chunk()?;
            rest = behind;
            let used_step = u64::from_be_bytes(*used_step);
            (there == 1).then(|| Some(Seed { bytes: Zeroizing::new(*bytes), used_step }))
        };
        let (active, waits) = (seed()?, seed()?);
        let pending = match (form, waits) {
            (ROW_FORM, Some(seed)) => {
                let (until, behind) = rest.split_first_chunk()?;
                rest = behind;
                let until = Timestamp::from_millis(i64::from_be_bytes(*until))?;
                Some(Pending { seed, until })
            }
            (ROW_FORM, None) | (ROW_FORM_1, _) => None,
            _ => return None,
        };
        rest.is_empty().then_some(Self { active, pending })
    }
}

fn totp(secret: &[u8; SECRET_BYTES]) -> Builder {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_step_duration(STEP_S)
        .with_skew(0)
        .with_secret(secret.to_vec())
}

fn enrolment(
    secret: &[u8; SECRET_BYTES],
    issuer: &str,
    name: &str,
) -> Result<Enrolment, TotpError> {
    // A colon parts the two where they are shown.
    let shown =
        |text: &str| text.replace(':', " ").chars().take(NAME_CHARS_MAX).collect::<String>();
    let totp: Totp = totp(secret)
        .with_issuer(Some(shown(issuer)))
        .with_account_name(shown(name))
        .build()
        .map_err(|_| TotpError::Name)?;
    let text = |text: String| Secret::new(Zeroizing::new(text));
    let uri = totp.to_url().map_err(|_| TotpError::Name)?;
    Ok(Enrolment { secret: text(totp.secret().to_base32()), uri: text(uri) })
}

/// The step that this code is of, if it is near, and neither it nor a later one was used.
fn step_of(seed: &Seed, code: &str, now: Timestamp) -> Option<u64> {
    let is_code = code.len() == usize::from(DIGITS) && code.bytes().all(|it| it.is_ascii_digit());
    let now_s = u64::try_from(now.as_millis().div_euclid(1_000)).ok()?;
    let totp = totp(&seed.bytes).build_noncompliant();
    let step = now_s / STEP_S;
    let near = step.saturating_sub(DRIFT_STEPS)..=step.saturating_add(DRIFT_STEPS);
    // All of them, whichever is right: time does not tell how far a clock is off.
    let fits = |step: u64| totp.check(code, step * STEP_S).is_some();
    let right = near.filter(|step| fits(*step)).fold(None, |_, step| Some(step));
    right.filter(|step| is_code && *step > seed.used_step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::memory::MemoryVault;

    /// RFC 6238, appendix B: the secret of the SHA-1 vectors.
    const RFC_SECRET: &[u8; SECRET_BYTES] = b"12345678901234567890";

    fn account(n: u128) -> AccountId {
        AccountId::from_parts(1_700_000_000_000, n)
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::default().saturating_add_millis(s * 1_000)
    }

    fn totps() -> (Arc<MemoryVault>, Totps) {
        let vault = Arc::new(MemoryVault::new());
        (Arc::clone(&vault), Totps::new(vault))
    }

    /// The code that an authenticator shows.
    fn code(enrolment: &Enrolment, s: i64) -> String {
        let totp = Totp::from_url(enrolment.uri.expose()).unwrap();
        totp.generate(s.try_into().unwrap()).to_string()
    }

    async fn enrolled(totps: &Totps, n: u128) -> Enrolment {
        let enrolment =
            totps.enrol(account(n), "keyledger", "ada@example.com", at(0)).await.unwrap();
        let code = code(&enrolment, 30);
        assert_eq!(totps.confirm(account(n), &code, at(30)).await, Ok(CodeShown::Right));
        enrolment
    }

    /// The vectors are of eight digits; six are their last.
    #[test]
    fn codes_are_rfc_6238s() {
        for (s, digits) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            let seed = Seed { bytes: Zeroizing::new(*RFC_SECRET), used_step: 0 };
            let step = step_of(&seed, &digits[2..], at(s));
            assert_eq!(step, Some(s.unsigned_abs() / STEP_S), "{s}");
            assert_eq!(step_of(&seed, digits, at(s)), None, "eight are not six");
        }
    }

    #[tokio::test]
    async fn a_secret_counts_once_a_code_of_it_was_shown() {
        let (_, totps) = totps();
        assert_eq!(totps.check(account(1), "000000", at(0)).await, Ok(CodeShown::Wrong));
        let first =
            totps.enrol(account(1), "keyledger", "ada@example.com", at(2_990)).await.unwrap();
        let shown = code(&first, 3_000);
        assert_eq!(totps.check(account(1), &shown, at(3_000)).await, Ok(CodeShown::Wrong));
        let wrong = if shown == "000000" { "000001" } else { "000000" };
        assert_eq!(totps.confirm(account(1), wrong, at(3_000)).await, Ok(CodeShown::Wrong));
        assert_eq!(totps.confirm(account(1), &shown, at(3_000)).await, Ok(CodeShown::Right));
        // It was used by that, and the secret waits no more.
        assert_eq!(totps.check(account(1), &shown, at(3_000)).await, Ok(CodeShown::Wrong));
        let next = code(&first, 3_030);
        assert_eq!(totps.confirm(account(1), &next, at(3_030)).await, Ok(CodeShown::NothingWaits));
        assert_eq!(totps.check(account(1), &next, at(3_030)).await, Ok(CodeShown::Right));
        // Until another is confirmed it goes on.
        let second =
            totps.enrol(account(1), "keyledger", "ada@example.com", at(3_040)).await.unwrap();
        let old = code(&first, 3_060);
        assert_eq!(totps.check(account(1), &old, at(3_060)).await, Ok(CodeShown::Right));
        let new = code(&second, 3_090);
        assert_eq!(totps.confirm(account(1), &new, at(3_090)).await, Ok(CodeShown::Right));
        let old = code(&first, 3_120);
        assert_eq!(totps.check(account(1), &old, at(3_120)).await, Ok(CodeShown::Wrong));
        totps.remove(account(1)).await.unwrap();
        totps.remove(account(1)).await.unwrap();
        let new = code(&second, 3_150);
        assert_eq!(totps.check(account(1), &new, at(3_150)).await, Ok(CodeShown::Wrong));
    }

    #[tokio::test]
    async fn a_secret_waits_for_a_quarter_of_an_hour() {
        let (vault, totps) = totps();
        let active = enrolled(&totps, 1).await;
        let began = 3_000;
        let over = began + 15 * 60;
        let enrol =
            async |s| totps.enrol(account(1), "keyledger", "ada@example.com", at(s)).await.unwrap();
        let confirm =
            async |of: &Enrolment, s| totps.confirm(account(1), &code(of, s), at(s)).await.unwrap();
        let first = enrol(began).await;
        assert_eq!(confirm(&first, over).await, CodeShown::NothingWaits);
        // It is gone, even where a clock is set back; what counts still counts.
        assert_eq!(confirm(&first, over - 1).await, CodeShown::NothingWaits);
        let current = code(&active, over);
        assert_eq!(totps.check(account(1), &current, at(over)).await, Ok(CodeShown::Right));
        // Another one waits as long, however often it is looked at.
        let second = enrol(over).await;
        assert_eq!(confirm(&first, over + 30).await, CodeShown::Wrong);
        assert_eq!(confirm(&second, over + 15 * 60 - 1).await, CodeShown::Right);
        // What an older version left waiting had no end: it waits no more.
        let third = enrol(over).await;
        let name = RowName::totp(account(1));
        let row = vault.read_row(&name).await.unwrap().unwrap();
        let (until, seeds) =
            row.secret.expose().split_last_chunk::<8>().map(|it| (it.1, it.0)).unwrap();
        assert_eq!(i64::from_be_bytes(*until), (over + 15 * 60) * 1_000);
        let mut old = Zeroizing::new(seeds.to_vec());
        old[0] = ROW_FORM_1;
        vault
            .write_row(&name, Some(row.version), RowSecret::new(old), Urgency::Normal)
            .await
            .unwrap();
        assert_eq!(confirm(&third, over).await, CodeShown::NothingWaits);
        let later = over + 60 * 60;
        let current = code(&second, later);
        assert_eq!(totps.check(account(1), &current, at(later)).await, Ok(CodeShown::Right));
    }

    #[tokio::test]
    async fn a_clock_may_be_one_step_off_and_no_more() {
        let (_, totps) = totps();
        for (n, (off, shown)) in [
            (-60, CodeShown::Wrong),
            (-30, CodeShown::Right),
            (0, CodeShown::Right),
            (30, CodeShown::Right),
            (60, CodeShown::Wrong),
        ]
        .into_iter()
        .enumerate()
        {
            let enrolment = enrolled(&totps, n as u128).await;
            let code = code(&enrolment, 3_000 + off);
            assert_eq!(totps.check(account(n as u128), &code, at(3_000)).await, Ok(shown), "{off}");
        }
    }

    /// Nor may one be used that is older than one that was.
    #[tokio::test]
    async fn a_code_is_used_once() {
        let (_, totps) = totps();
        let enrolment = enrolled(&totps, 1).await;
        let [before, current, after] = [2_970, 3_000, 3_030].map(|s| code(&enrolment, s));
        assert_eq!(totps.check(account(1), &current, at(3_000)).await, Ok(CodeShown::Right));
        for used in [&current, &before] {
            assert_eq!(totps.check(account(1), used, at(3_000)).await, Ok(CodeShown::Wrong));
            assert_eq!(totps.check(account(1), used, at(3_029)).await, Ok(CodeShown::Wrong));
        }
        assert_eq!(totps.check(account(1), &after, at(3_000)).await, Ok(CodeShown::Right));
        assert_eq!(totps.check(account(1), &after, at(3_030)).await, Ok(CodeShown::Wrong));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_with_one_code_one_alone_is_let_in() {
        let (_, totps) = totps();
        let totps = Arc::new(totps);
        for n in 0..20 {
            let enrolment = enrolled(&totps, n).await;
            let code = code(&enrolment, 3_000);
            let users: Vec<_> = (0..8)
                .map(|_| {
                    let (totps, code) = (Arc::clone(&totps), code.clone());
                    tokio::spawn(async move { totps.check(account(n), &code, at(3_000)).await })
                })
                .collect();
            let mut right = 0;
            for user in users {
                right += usize::from(user.await.unwrap() == Ok(CodeShown::Right));
            }
            assert_eq!(right, 1);
        }
    }

    #[tokio::test]
    async fn what_an_authenticator_is_given() {
        let (vault, totps) = totps();
        let enrolment =
            totps.enrol(account(1), "Ledger: EU", "ada@example.com", at(0)).await.unwrap();
        let uri = enrolment.uri.expose();
        assert!(uri.starts_with("otpauth://totp/Ledger"), "{uri}");
        assert!(uri.contains("ada%40example.com?") && uri.contains("issuer=Ledger"), "{uri}");
        assert!(uri.contains(&format!("secret={}", enrolment.secret.expose())), "{uri}");
        // 160 bits in base32.
        assert_eq!(enrolment.secret.expose().len(), 32);
        let another = totps.enrol(account(1), "Ledger", "ada@example.com", at(0)).await.unwrap();
        assert!(another.secret != enrolment.secret);
        assert!(matches!(totps.enrol(account(1), "L", "", at(0)).await, Err(TotpError::Name)));
        let row = vault.read_row(&RowName::totp(account(1))).await.unwrap().unwrap();
        let mut bytes = Zeroizing::new(row.secret.expose().to_vec());
        bytes.push(0);
        let name = RowName::totp(account(1));
        let damaged = RowSecret::new(bytes);
        vault.write_row(&name, Some(row.version), damaged, Urgency::Normal).await.unwrap();
        let outcome = totps.check(account(1), "000000", at(0)).await;
        assert_eq!(outcome, Err(TotpError::Vault(VaultError::Damaged(name.to_string()))));
    }

    #[test]
    fn what_is_no_code_is_none() {
        let seed = Seed { bytes: Zeroizing::new(*RFC_SECRET), used_step: 0 };
        assert!(step_of(&seed, "287082", at(59)).is_some());
        for bad in
            ["", "28708", "2870820", " 287082", "287 082", "287082\n", "28708x", "-87082", "+87082"]
        {
            assert_eq!(step_of(&seed, bad, at(59)), None, "{bad}");
        }
        assert_eq!(step_of(&seed, "287082", Timestamp::MIN), None);
    }
}

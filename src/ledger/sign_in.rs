//! What signing in rests on, but for the events that tell of it.
//!
//! Secrets here are rows behind the vault's port ([`super::vault::rows`]), changed by
//! compare-and-set: of two who use a thing at once that may be used once, one alone wins.
//! None of this says who may do what: accounts, memberships and sessions are facts, and
//! whoever calls looks them up.
//!
//! Start at [`SignIn`].

pub mod access_token;
pub mod guessing;
pub mod hashing;
pub mod methods;
pub mod one_time;
pub mod password;
pub mod passwords;
pub mod recovery;
pub mod refresh;
pub mod signing_key;
pub mod signing_keys;
pub mod throttle;
pub mod totp;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use projections::time::Timestamp;

use super::Ledger;
use super::accounts::personal::PersonalTerms;
use super::secret::NoEntropy;
use access_token::{AccessTerms, AccessTokens};
use guessing::RefusedPasswords;
use hashing::{Hashers, HashingTerms};
use one_time::OneTimeTokens;
use passwords::Passwords;
use recovery::RecoveryCodes;
use refresh::RefreshTokens;
use signing_keys::SigningKeys;
use throttle::{Throttle, ThrottleTerms};
use totp::Totps;

/// How often signing keys are looked at.
const TEND_EVERY: Duration = Duration::from_secs(60);
/// At every how many of these looks what is kept of sessions that are long over is taken away.
const SWEEP_EVERY_LOOKS: u32 = 60;
/// How long what is kept of a session stays beyond its longest life, in milliseconds.
const SWEEP_SPARE_MS: i64 = 86_400_000;

/// How people sign in, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInTerms {
    /// Access tokens.
    pub access: AccessTerms,
    /// How long a refresh token may lie unused, in milliseconds.
    pub refresh_idle_ms: i64,
    /// How long a session may last, in milliseconds.
    pub session_lifetime_ms: i64,
    /// At what age a signing key is replaced, in milliseconds.
    pub signing_key_age_ms: i64,
    /// What hashing passwords may take of the machine.
    pub hashing: HashingTerms,
    /// How often attempts may fail.
    pub throttle: ThrottleTerms,
    /// Whether new accounts have organizations of their own.
    pub personal: PersonalTerms,
    /// Passwords that the operator refuses.
    pub refused_passwords: Arc<RefusedPasswords>,
}

/// Why there is no signing in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// The system gives no threads.
    #[error("cannot start the threads that hash passwords")]
    Threads(#[source] std::io::Error),
}

/// All that signing in rests on, in one installation.
pub struct SignIn {
    /// Passwords of accounts.
    pub passwords: Passwords,
    /// One-time codes of accounts.
    pub totps: Totps,
    /// Recovery codes of accounts.
    pub recovery_codes: RecoveryCodes,
    /// Refresh tokens of sessions.
    pub refresh_tokens: RefreshTokens,
    /// Access tokens.
    pub access_tokens: Arc<AccessTokens>,
    /// The keys that sign them.
    pub signing_keys: SigningKeys,
    /// Tokens that people are sent, to join or to set a password.
    pub one_time_tokens: OneTimeTokens,
    /// How long a session may last, in milliseconds.
    pub session_lifetime_ms: i64,
    /// Whether new accounts have organizations of their own.
    pub personal: PersonalTerms,
    /// Passwords that the operator refuses.
    pub refused_passwords: Arc<RefusedPasswords>,
    throttle: Mutex<Throttle>,
    reset_throttle: Mutex<Throttle>,
    step_throttle: Mutex<Throttle>,
    code_throttle: Mutex<Throttle>,
}

impl SignIn {
    /// On these terms, with the ledger's vault.
    ///
    /// # Errors
    ///
    /// The system gives no entropy or no threads.
    pub fn open(ledger: &Ledger, terms: SignInTerms) -> Result<Self, SignInError> {
        let vault = || Arc::clone(&ledger.vault);
        let access_tokens = Arc::new(AccessTokens::new(terms.access)?);
        let hashers = Hashers::start(terms.hashing).map_err(SignInError::Threads)?;
        Ok(Self {
            passwords: Passwords::new(vault(), hashers),
            totps: Totps::new(vault()),
            recovery_codes: RecoveryCodes::new(vault()),
            refresh_tokens: RefreshTokens::new(vault(), terms.refresh_idle_ms),
            signing_keys: SigningKeys::new(Arc::clone(&access_tokens), terms.signing_key_age_ms),
            access_tokens,
            one_time_tokens: OneTimeTokens::new(vault()),
            session_lifetime_ms: terms.session_lifetime_ms,
            personal: terms.personal,
            refused_passwords: terms.refused_passwords,
            throttle: Mutex::new(Throttle::new(terms.throttle)),
            reset_throttle: Mutex::new(Throttle::new(terms.throttle.wherever())),
            step_throttle: Mutex::new(Throttle::new(terms.throttle.wherever())),
            code_throttle: Mutex::new(Throttle::new(terms.throttle.wherever())),
        })
    }

    /// Who failed to sign in, and how often. Held for a moment, never while anything waits.
    pub fn throttle(&self) -> MutexGuard<'_, Throttle> {
        held(&self.throttle)
    }

    /// Who asked for a password's reset, and how often: each time counts, wherever from. Held
    /// for a moment, never while anything waits.
    pub fn reset_throttle(&self) -> MutexGuard<'_, Throttle> {
        held(&self.reset_throttle)
    }

    /// Who failed to show again who they are, in a session, wherever from: strangers count for
    /// nothing here. Held for a moment, never while anything waits.
    pub fn step_throttle(&self) -> MutexGuard<'_, Throttle> {
        held(&self.step_throttle)
    }

    /// Who failed to show a second factor and knew the password, wherever from: strangers count
    /// for nothing here either. Held for a moment, never while anything waits.
    pub fn code_throttle(&self) -> MutexGuard<'_, Throttle> {
        held(&self.code_throttle)
    }

    /// Sees to the signing keys, as far as that can be done now; the log says what cannot.
    pub async fn tend(&self, ledger: &Arc<Ledger>) {
        if let Err(error) = self.signing_keys.tend(ledger).await {
            let cause = std::error::Error::source(&error).map(|it| format!(": {it}"));
            let error = format!("{error}{}", cause.unwrap_or_default());
            tracing::warn!(
                error,
                "the keys that sign access tokens could not be tended; it is tried again"
            );
        }
    }

    /// Tends the signing keys from now on, and takes away what is kept of sessions that are
    /// long over. Ends when it is dropped.
    pub async fn keep(self: Arc<Self>, ledger: Arc<Ledger>) {
        let mut looks: u32 = 0;
        loop {
            tokio::time::sleep(TEND_EVERY).await;
            self.tend(&ledger).await;
            if looks.is_multiple_of(SWEEP_EVERY_LOOKS) {
                self.sweep(ledger.clock().now()).await;
            }
            looks = looks.wrapping_add(1);
        }
    }

    async fn sweep(&self, now: Timestamp) {
        let over_ms = self.session_lifetime_ms.saturating_add(SWEEP_SPARE_MS);
        let begun_before = now.saturating_add_millis(-over_ms);
        if let Err(error) = self.refresh_tokens.sweep(begun_before).await {
            tracing::warn!(
                %error,
                "what is kept of sessions that are over could not be taken away; it is tried again"
            );
        }
    }
}

fn held(throttle: &Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    throttle.lock().unwrap_or_else(PoisonError::into_inner)
}

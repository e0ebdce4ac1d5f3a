//! Settings of signing in: the section `[sessions]` of the settings file. They have no flags
//! and no variables: there are many, and none is one for a single run.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::delivery::DeliveryCommand;
use crate::ledger::accounts::personal::PersonalTerms;
use crate::ledger::sign_in::SignInTerms;
use crate::ledger::sign_in::access_token::{AccessTerms, PARTY_CHARS_MAX};
use crate::ledger::sign_in::hashing::{HashingCost, HashingTerms};
use crate::ledger::sign_in::signing_keys::ACCESS_LIFETIME_S_MAX;
use crate::ledger::sign_in::throttle::ThrottleTerms;

/// Shortest and longest that a refresh token may lie unused, and that a session may last, in
/// seconds.
const SESSION_S: [i64; 2] = [300, 31_536_000];
/// Most days until a signing key is replaced.
const SIGNING_KEY_DAYS_MAX: i64 = 365;
/// Most parts of the program that delivers.
const COMMAND_PARTS_MAX: usize = 64;

/// The section as the file gives it: each setting may be missing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// Who writes access tokens: `iss`.
    pub issuer: Option<String>,
    /// Whom they are for: `aud`.
    pub audience: Option<String>,
    /// How long an access token is good.
    pub access_lifetime_seconds: Option<u32>,
    /// How long a refresh token may lie unused.
    pub refresh_idle_seconds: Option<i64>,
    /// How long a session may last.
    pub session_lifetime_seconds: Option<i64>,
    /// After how many days a signing key is replaced.
    pub signing_key_days: Option<i64>,
    /// Memory of one password's hash, in KiB.
    pub argon2_memory_kib: Option<u32>,
    /// Passes over it.
    pub argon2_iterations: Option<u32>,
    /// Lanes of it.
    pub argon2_parallelism: Option<u32>,
    /// How many passwords are hashed at once.
    pub hashing_threads: Option<usize>,
    /// How many may wait to be.
    pub hashing_queue: Option<usize>,
    /// Failed attempts with one e-mail from one origin before further ones must wait.
    pub lockout_attempts: Option<u32>,
    /// The same with one e-mail, wherever they come from.
    pub lockout_email_attempts: Option<u32>,
    /// The same from one origin, whatever e-mails it tries.
    pub lockout_origin_attempts: Option<u32>,
    /// Longest wait.
    pub lockout_seconds: Option<i64>,
    /// Who delivers one-time tokens.
    pub delivery: Option<DeliverySettings>,
}

/// Who delivers one-time tokens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverySettings {
    /// A program and its fixed arguments.
    pub command: Vec<String>,
    /// How long it may take for one message.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl SessionSettings {
    /// Checks the section and fills in what nobody said.
    pub(super) fn complete(self) -> Result<(SignInTerms, Option<DeliveryCommand>), ConfigError> {
        let terms = self.terms()?;
        Ok((terms, self.delivery.map(DeliverySettings::complete).transpose()?))
    }

    fn terms(&self) -> Result<SignInTerms, ConfigError> {
        let seconds = |name, given: Option<i64>, usual| {
            within(name, given.unwrap_or(usual), SESSION_S).map(|seconds| seconds * 1_000)
        };
        let refresh_idle_ms =
            seconds("sessions.refresh_idle_seconds", self.refresh_idle_seconds, 14 * 86_400)?;
        let session_lifetime_ms = seconds(
            "sessions.session_lifetime_seconds",
            self.session_lifetime_seconds,
            30 * 86_400,
        )?;
        let days = self.signing_key_days.unwrap_or(30);
        let days = within("sessions.signing_key_days", days, [1, SIGNING_KEY_DAYS_MAX])?;
        Ok(SignInTerms {
            access: AccessTerms {
                issuer: party("sessions.issuer", self.issuer.as_deref())?,
                audience: party("sessions.audience", self.audience.as_deref())?,
                lifetime_s: within(
                    "sessions.access_lifetime_seconds",
                    self.access_lifetime_seconds.unwrap_or(600),
                    [30, ACCESS_LIFETIME_S_MAX],
                )?,
            },
            refresh_idle_ms,
            session_lifetime_ms,
            signing_key_age_ms: days * 86_400_000,
            hashing: self.hashing()?,
            throttle: self.throttle()?,
            personal: PersonalTerms::default(),
            refused_passwords: Arc::default(),
        })
    }

    fn hashing(&self) -> Result<HashingTerms, ConfigError> {
        let usual = HashingTerms::default();
        let cost = HashingCost {
            memory_kib: within(
                "sessions.argon2_memory_kib",
                self.argon2_memory_kib.unwrap_or(usual.cost.memory_kib),
                HashingCost::MEMORY_KIB,
            )?,
            iterations: within(
                "sessions.argon2_iterations",
                self.argon2_iterations.unwrap_or(usual.cost.iterations),
                HashingCost::ITERATIONS,
            )?,
            parallelism: within(
                "sessions.argon2_parallelism",
                self.argon2_parallelism.unwrap_or(usual.cost.parallelism),
                HashingCost::PARALLELISM,
            )?,
        };
        let threads = self.hashing_threads.unwrap_or(usual.threads);
        let queue = self.hashing_queue.unwrap_or(usual.queue_max);
        Ok(HashingTerms {
            cost,
            threads: within("sessions.hashing_threads", threads, [1, HashingTerms::THREADS_MAX])?,
            queue_max: within("sessions.hashing_queue", queue, [1, HashingTerms::QUEUE_MAX])?,
        })
    }

    fn throttle(&self) -> Result<ThrottleTerms, ConfigError> {
        let usual = ThrottleTerms::default();
        let attempts = self.lockout_attempts.unwrap_or(usual.attempts);
        let attempts = within("sessions.lockout_attempts", attempts, [1, 100])?;
        let email_attempts = self.lockout_email_attempts;
        let email_attempts = email_attempts.unwrap_or(attempts * ThrottleTerms::ORIGINS);
        let origin_attempts = self.lockout_origin_attempts.unwrap_or(usual.origin_attempts);
        let seconds = self.lockout_seconds.unwrap_or(usual.wait_ms_max / 1_000);
        Ok(ThrottleTerms {
            attempts,
            // With no more than one origin has, one could hold back all others.
            email_attempts: within(
                "sessions.lockout_email_attempts",
                email_attempts,
                [attempts + 1, 1_000_000],
            )?,
            origin_attempts: within(
                "sessions.lockout_origin_attempts",
                origin_attempts,
                [1, 1_000_000],
            )?,
            wait_ms_max: within("sessions.lockout_seconds", seconds, [1, 86_400])? * 1_000,
        })
    }
}

impl DeliverySettings {
    fn complete(self) -> Result<DeliveryCommand, ConfigError> {
        let parts = 1..=COMMAND_PARTS_MAX;
        let named = self.command.first().is_some_and(|program| program.starts_with('/'));
        let whole = self.command.iter().all(|part| !part.contains('\0'));
        if !parts.contains(&self.command.len()) || !named || !whole {
            return Err(ConfigError::DeliveryCommand);
        }
        let timeout_ms = self.timeout_ms.unwrap_or(10_000);
        let timeout_ms = within("sessions.delivery.timeout_ms", timeout_ms, [1, 600_000])?;
        Ok(DeliveryCommand { program: self.command, within: Duration::from_millis(timeout_ms) })
    }
}

/// The name of who writes tokens, or takes them.
fn party(name: &'static str, given: Option<&str>) -> Result<String, ConfigError> {
    let text = given.unwrap_or("keyledger");
    let fits = (1..=PARTY_CHARS_MAX).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(ConfigError::Party(name))
    }
}

pub(super) fn within<T: PartialOrd + Display + Copy>(
    name: &'static str,
    value: T,
    [least, most]: [T; 2],
) -> Result<T, ConfigError> {
    if least <= value && value <= most {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange { name, least: least.to_string(), most: most.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<(SignInTerms, Option<DeliveryCommand>), String> {
        let settings: SessionSettings =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        settings.complete().map_err(|error| error.to_string())
    }

    #[test]
    fn what_nobody_says_is_usual() {
        let (terms, delivery) = section("").unwrap();
        assert_eq!(delivery, None);
        assert_eq!(terms.access.issuer, "keyledger");
        assert_eq!(terms.access.lifetime_s, 600);
        assert_eq!(terms.refresh_idle_ms, 14 * 86_400_000);
        assert_eq!(terms.session_lifetime_ms, 30 * 86_400_000);
        assert_eq!(terms.signing_key_age_ms, 30 * 86_400_000);
        assert_eq!(terms.hashing, HashingTerms::default());
        assert_eq!(terms.throttle, ThrottleTerms::default());
    }

    #[test]
    fn each_number_has_its_bounds() {
        for (name, least, most) in [
            ("access_lifetime_seconds", 30, 3_600),
            ("refresh_idle_seconds", 300, 31_536_000),
            ("session_lifetime_seconds", 300, 31_536_000),
            ("signing_key_days", 1, 365),
            ("argon2_memory_kib", 8_192, 1_048_576),
            ("argon2_iterations", 1, 64),
            ("argon2_parallelism", 1, 16),
            ("hashing_threads", 1, 64),
            ("hashing_queue", 1, 10_000),
            ("lockout_attempts", 1, 100),
            ("lockout_email_attempts", 6, 1_000_000),
            ("lockout_origin_attempts", 1, 1_000_000),
            ("lockout_seconds", 1, 86_400),
        ] {
            for good in [least, most] {
                assert!(section(&format!("{name} = {good}")).is_ok(), "{name} = {good}");
            }
            for bad in [least - 1, most + 1] {
                let said = section(&format!("{name} = {bad}")).unwrap_err();
                let expected = format!("`sessions.{name}`: must be {least} to {most}");
                assert_eq!(said, expected);
            }
        }
    }

    #[test]
    fn an_e_mail_has_more_attempts_than_one_place_has() {
        let (terms, _) = section("lockout_attempts = 100").unwrap();
        assert_eq!(terms.throttle.email_attempts, 2_000);
        let said = section("lockout_attempts = 7\nlockout_email_attempts = 7").unwrap_err();
        assert_eq!(said, "`sessions.lockout_email_attempts`: must be 8 to 1000000");
    }

    #[test]
    fn names_and_programs_have_a_form() {
        let long = "x".repeat(PARTY_CHARS_MAX + 1);
        for bad in ["", "two words", "\\u00e9", &long] {
            for name in ["issuer", "audience"] {
                let said = section(&format!("{name} = \"{bad}\"")).unwrap_err();
                assert!(said.starts_with(&format!("`sessions.{name}`: ")), "{said}");
            }
        }
        let (terms, _) = section("issuer = \"https://ledger.example\"").unwrap();
        assert_eq!(terms.access.issuer, "https://ledger.example");
        for bad in ["[]", "[\"deliver\"]", "[\"\"]", "[\"/a\", \"b\\u0000\"]"] {
            let said = section(&format!("delivery = {{ command = {bad} }}")).unwrap_err();
            assert!(said.starts_with("`sessions.delivery`: "), "{said}");
        }
        let (_, delivery) =
            section("delivery = { command = [\"/usr/bin/deliver\", \"-v\"], timeout_ms = 5 }")
                .unwrap();
        let program = vec!["/usr/bin/deliver".to_owned(), "-v".to_owned()];
        let within = Duration::from_millis(5);
        assert_eq!(delivery, Some(DeliveryCommand { program, within }));
        for unknown in ["lifetime = 1", "delivery = { command = [\"/a\"], shell = true }"] {
            assert!(section(unknown).unwrap_err().contains("unknown field"), "{unknown}");
        }
    }
}

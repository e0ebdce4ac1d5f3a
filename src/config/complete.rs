//! Settings, checked and complete.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use projections::text;
use zeroize::Zeroizing;

use super::production::{self, Unsafe};
use super::{Collector, LogFormat, METRICS_LISTEN_DEFAULT, Network, Origin, Settings};
use super::{break_glass, rules};
use crate::delivery::Means;
use crate::delivery::mail::RelayError;
use crate::ledger::secret::Secret;
use crate::ledger::sign_in::SignInTerms;
use crate::ledger::sign_in::guessing::ListError;
use crate::ledger::snapshots::SNAPSHOT_EVENTS;
use crate::ledger::start::{ConfiguredGlobalKey, ConfiguredKeys, WeakToken, check_admin_api_token};
use crate::node::Directories;
use crate::server::tls;
use crate::services::organization::HandOver;
use crate::store::engine_url::EngineUrlError;

/// Which part of the calls a collector is told about unless told otherwise: a ledger answers
/// a question for each request of whole products, and those who trace say so themselves.
const SAMPLE_RATIO_DEFAULT: f64 = 0.01;
/// The role of the global key unless told otherwise.
const GLOBAL_KEY_ROLE_DEFAULT: &str = "read-only-admin";

/// What a server is told, complete.
pub struct Config {
    /// Where things are kept.
    pub directories: Directories,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The files that make TLS; none for plaintext.
    pub tls: Option<tls::Files>,
    /// Keys that the configuration holds.
    pub configured_keys: ConfiguredKeys,
    /// What to log.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Longest time for one request, in milliseconds.
    pub request_timeout_ms: u64,
    /// Most requests under way at once.
    pub requests_max: usize,
    /// After how many events snapshots are taken.
    pub snapshot_events: u64,
    /// Most connections open at once.
    pub connections_max: usize,
    /// Networks of proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of pages that browsers may let call this server.
    pub cors_origins: Vec<Origin>,
    /// Where metrics are answered; none for nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Who is told about calls; none for nobody.
    pub collector: Option<Collector>,
    /// How people sign in.
    pub sign_in: SignInTerms,
    /// Who delivers one-time tokens; none for nobody.
    pub delivery: Option<Means>,
    /// Who is handed the tokens of invitations that nobody delivers.
    pub hand_over: HandOver,
    /// Whether clients are told about the services.
    pub reflection: bool,
    /// Whether what is convenient but unsafe is refused.
    pub production: bool,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The settings file is wrong.
    #[error("`{path}`: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A variable of ours that nobody reads.
    #[error("environment variable `{0}` is unknown; see `keyledger serve --help`")]
    UnknownVariable(String),
    /// A plaintext port that others can reach.
    #[error(
        "`listen`: {0} can be reached from other machines, and without TLS credentials would cross the network in clear; \
         set `tls_certificate` and `tls_key`, listen on loopback behind a TLS proxy, or accept that with `--allow-plaintext`"
    )]
    Plaintext(SocketAddr),
    /// One of two settings that need each other.
    #[error("`{given}`: needs `{missing}` beside it")]
    Together {
        /// The setting that is there.
        given: &'static str,
        /// The setting that is not.
        missing: &'static str,
    },
    /// What production mode does not allow.
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    /// A rule of permissions or a plan is wrong.
    #[error("`{setting}`: {problem}")]
    Rule {
        /// The setting.
        setting: String,
        /// What is wrong.
        problem: String,
    },
    /// A digest is no digest.
    #[error("`{0}`: must be 64 characters of hexadecimal")]
    Digest(&'static str),
    /// A configured secret is too short, or no text for a header.
    #[error(transparent)]
    AdminApiToken(#[from] WeakToken),
    /// A part of a whole is less than nothing, or more than all.
    #[error("`otel_sample_ratio`: must be a number from 0 to 1")]
    SampleRatio,
    /// A name has a wrong form.
    #[error("`otel_service_name`: must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`")]
    ServiceName,
    /// This program cannot tell a collector anything.
    #[error(
        "`otel_endpoint`: this program was built without OpenTelemetry; build it with the feature `otel`, or take the setting away"
    )]
    NoOtel,
    /// The event store's connection string is none.
    #[error("`store`: {0}")]
    Store(#[from] EngineUrlError),
    /// The vault has no place.
    #[error(
        "`store`: needs `secrets_dir` beside it: the vault is not kept in the event store; name the directory that holds it, and back it up"
    )]
    StoreNeedsSecrets,
    /// What is stored, and a password, would cross the network in clear.
    #[error(
        "`store`: {0} is not this machine, and without verified TLS events and password would cross the network in clear; use `tls=true`, or accept that with `--allow-plaintext`"
    )]
    StorePlaintext(String),
    /// This program cannot use an event store.
    #[error(
        "`store`: this program was built without it; build it with the feature `eventstore`, or take the setting away"
    )]
    NoEventStore,
    /// A number is out of its range.
    #[error("`{name}`: must be {least} to {most}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its least value.
        least: String,
        /// Its greatest value.
        most: String,
    },
    /// The name of who writes tokens, or takes them, has a wrong form.
    #[error("`{0}`: must be 1 to 256 printable ASCII characters without blanks, such as a URL")]
    Party(&'static str),
    /// Nobody can deliver with this.
    #[error(
        "`sessions.delivery`: `command` must be a list of 1 to 64 texts: the program, by its whole path, and its arguments"
    )]
    DeliveryCommand,
    /// The list of refused passwords cannot be used.
    #[error("`passwords.refuse_file`")]
    RefusedPasswords(#[source] ListError),
    /// A setting of the mail relay is wrong.
    #[error("`{0}`: {1}")]
    Smtp(&'static str, &'static str),
    /// A file that the mail relay needs cannot be read.
    #[error("`{name}`: cannot read `{path}`")]
    SmtpFile {
        /// The setting.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The relay's certificates cannot be used.
    #[error("`smtp.ca_file`")]
    Relay(#[from] RelayError),
    /// A number is out of range.
    #[error("`{0}`: must be at least 1")]
    Zero(&'static str),
    /// A number is more than can be counted.
    #[error("`{name}`: must be at most {max}")]
    Above {
        /// The setting.
        name: &'static str,
        /// Its bound.
        max: usize,
    },
}

impl Settings {
    /// Checks the settings and fills in what nobody said.
    pub fn complete(self, admin_api_token: Option<String>) -> Result<Config, ConfigError> {
        let tls = self.tls()?;
        let production = self.production == Some(true);
        if production {
            production::check(&self, tls.is_some(), admin_api_token.is_some())?;
        }
        let listen = self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 50_051)));
        if tls.is_none() && !listen.ip().is_loopback() && self.allow_plaintext != Some(true) {
            return Err(ConfigError::Plaintext(listen));
        }
        let request_timeout_ms = self.request_timeout_ms.unwrap_or(30_000);
        if request_timeout_ms == 0 {
            return Err(ConfigError::Zero("request_timeout_ms"));
        }
        let requests_max = at_least_one("requests_max", self.requests_max.unwrap_or(4_096))?;
        let snapshot_events = self.snapshot_events.unwrap_or(SNAPSHOT_EVENTS);
        if snapshot_events == 0 {
            return Err(ConfigError::Zero("snapshot_events"));
        }
        let connections_max =
            at_least_one("connections_max", self.connections_max.unwrap_or(10_000))?;
        let countable = tokio::sync::Semaphore::MAX_PERMITS;
        if connections_max > countable {
            return Err(ConfigError::Above { name: "connections_max", max: countable });
        }
        self.check_store()?;
        let collector = self.collector()?;
        let directories = self.directories();
        let admin_api_token = admin_api_token.map(|token| Secret::new(Zeroizing::new(token)));
        admin_api_token.as_ref().map(check_admin_api_token).transpose()?;
        let configured_keys = ConfiguredKeys {
            admin_api_token,
            admin_key_sha256: sha256("admin_key_sha256", self.admin_key_sha256.as_deref())?,
            global: self.global_key(production)?,
            rules: rules::configured(
                self.permission_rules.as_deref().unwrap_or_default(),
                self.plans.as_ref().unwrap_or(&BTreeMap::new()),
            )?,
            break_glass: self.break_glass.unwrap_or_default().complete(production)?,
        };
        break_glass::check_others(&configured_keys)?;
        let (mut sign_in, command) = self.sessions.unwrap_or_default().complete()?;
        let delivery = match (command, self.smtp) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::Smtp(
                    "smtp",
                    "stands beside `sessions.delivery`; keep one of them",
                ));
            }
            (Some(command), None) => Some(Means::Command(command)),
            (None, Some(smtp)) => Some(Means::Mail(Box::new(smtp.complete()?))),
            (None, None) => None,
        };
        sign_in.personal = self.accounts.unwrap_or_default().complete(&configured_keys.rules)?;
        sign_in.refused_passwords = self.passwords.unwrap_or_default().complete()?.into();
        let metrics_default =
            || if production { METRICS_LISTEN_DEFAULT.parse().ok() } else { None };
        let log_format = if production { LogFormat::Json } else { LogFormat::Text };
        Ok(Config {
            directories,
            listen,
            tls,
            configured_keys,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or(log_format),
            request_timeout_ms,
            requests_max,
            snapshot_events,
            connections_max,
            trusted_proxies: networks(self.trusted_proxies),
            cors_origins: self.cors_origins.unwrap_or_default(),
            metrics_listen: self.metrics_listen.or_else(metrics_default),
            collector,
            sign_in,
            delivery,
            hand_over: self.invitations.unwrap_or_default().complete(production),
            reflection: self.reflection.unwrap_or(!production),
            production,
        })
    }

    fn global_key(&self, production: bool) -> Result<Option<ConfiguredGlobalKey>, ConfigError> {
        let sha256 = sha256("global_key_sha256", self.global_key_sha256.as_deref())?;
        let together = |given, missing| Err(ConfigError::Together { given, missing });
        match (sha256, &self.global_key_organization, &self.global_key_role) {
            (Some(sha256), Some(organization), role) => Ok(Some(ConfiguredGlobalKey {
                sha256,
                organization: organization.clone(),
                role: role.clone().unwrap_or_else(|| GLOBAL_KEY_ROLE_DEFAULT.to_owned()),
                production,
            })),
            (Some(_), None, _) => together("global_key_sha256", "global_key_organization"),
            (None, Some(_), _) => together("global_key_organization", "global_key_sha256"),
            (None, None, Some(_)) => together("global_key_role", "global_key_sha256"),
            (None, None, None) => Ok(None),
        }
    }

    fn collector(&self) -> Result<Option<Collector>, ConfigError> {
        let sample_ratio = self.otel_sample_ratio.unwrap_or(SAMPLE_RATIO_DEFAULT);
        if !(0.0..=1.0).contains(&sample_ratio) {
            return Err(ConfigError::SampleRatio);
        }
        let service_name = self.otel_service_name.as_deref().unwrap_or("keyledger");
        if !text::is_label(service_name) {
            return Err(ConfigError::ServiceName);
        }
        let Some(endpoint) = self.otel_endpoint.clone() else { return Ok(None) };
        if cfg!(not(feature = "otel")) {
            return Err(ConfigError::NoOtel);
        }
        Ok(Some(Collector { endpoint, sample_ratio, service_name: service_name.to_owned() }))
    }

    fn check_store(&self) -> Result<(), ConfigError> {
        let Some(store) = &self.store else { return Ok(()) };
        let url = store.url()?;
        if cfg!(not(feature = "eventstore")) {
            return Err(ConfigError::NoEventStore);
        }
        if self.secrets_dir.is_none() {
            return Err(ConfigError::StoreNeedsSecrets);
        }
        if !url.is_secure() && !url.is_loopback() && self.allow_plaintext != Some(true) {
            return Err(ConfigError::StorePlaintext(url.hosts()));
        }
        Ok(())
    }

    fn tls(&self) -> Result<Option<tls::Files>, ConfigError> {
        let together = |given, missing| Err(ConfigError::Together { given, missing });
        match (&self.tls_certificate, &self.tls_key, &self.tls_client_ca) {
            (Some(certificate), Some(key), client_ca) => Ok(Some(tls::Files {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: client_ca.clone(),
            })),
            (Some(_), None, _) => together("tls_certificate", "tls_key"),
            (None, Some(_), _) => together("tls_key", "tls_certificate"),
            (None, None, Some(_)) => together("tls_client_ca", "tls_certificate"),
            (None, None, None) => Ok(None),
        }
    }
}

fn networks(given: Option<Vec<Network>>) -> Vec<IpNet> {
    given.unwrap_or_default().into_iter().map(|network| network.0).collect()
}

fn at_least_one(name: &'static str, number: usize) -> Result<usize, ConfigError> {
    if number == 0 { Err(ConfigError::Zero(name)) } else { Ok(number) }
}

pub(super) fn sha256(
    name: &'static str,
    text: Option<&str>,
) -> Result<Option<[u8; 32]>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 64).ok_or(ConfigError::Digest(name))?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value * 16 + u8::try_from(*digit).unwrap_or(0));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_loopback_unless_accepted() {
        let at = |listen: &str, allow| Settings {
            listen: Some(listen.parse().unwrap()),
            allow_plaintext: allow,
            ..Settings::default()
        };
        assert!(at("127.0.0.1:1", None).complete(None).is_ok());
        assert!(at("[::1]:1", None).complete(None).is_ok());
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(
                matches!(at(open, None).complete(None), Err(ConfigError::Plaintext(_))),
                "{open}"
            );
            assert!(at(open, Some(false)).complete(None).is_err(), "{open}");
            assert!(at(open, Some(true)).complete(None).is_ok(), "{open}");
        }
    }

    #[test]
    fn numbers_and_digests_have_a_form() {
        let digest = |text: &str| {
            Settings { admin_key_sha256: Some(text.into()), ..Settings::default() }
                .complete(None)
                .map(|it| it.configured_keys.admin_key_sha256)
        };
        assert_eq!(digest(&"0f".repeat(32)).ok(), Some(Some([15; 32])));
        assert!(digest(&"0f".repeat(31)).is_err());
        assert!(digest(&"0g".repeat(32)).is_err());
        assert!(Settings { requests_max: Some(0), ..Settings::default() }.complete(None).is_err());
        assert!(
            Settings { snapshot_events: Some(0), ..Settings::default() }.complete(None).is_err()
        );
        assert!(
            Settings { request_timeout_ms: Some(0), ..Settings::default() }.complete(None).is_err()
        );
    }

    #[test]
    fn a_global_key_has_a_digest_and_an_organization() {
        let with = |sha256: Option<&str>, organization: Option<&str>, role: Option<&str>| {
            let settings = Settings {
                global_key_sha256: sha256.map(str::to_owned),
                global_key_organization: organization.map(str::to_owned),
                global_key_role: role.map(str::to_owned),
                ..Settings::default()
            };
            settings.complete(None).map(|it| it.configured_keys.global)
        };
        let digest = "0f".repeat(32);
        let global = with(Some(&digest), Some("vtx"), None).unwrap().unwrap();
        assert_eq!((global.sha256, &*global.role), ([15; 32], "read-only-admin"));
        assert!(!global.production);
        assert!(with(None, None, None).unwrap().is_none());
        for (sha256, organization, role, says) in [
            (Some(&*digest), None, None, "`global_key_sha256`: needs `global_key_organization`"),
            (None, Some("vtx"), None, "`global_key_organization`: needs `global_key_sha256`"),
            (None, None, Some("auditor"), "`global_key_role`: needs `global_key_sha256`"),
            (Some("0f"), Some("vtx"), None, "`global_key_sha256`: must be 64 characters"),
        ] {
            let error = with(sha256, organization, role).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_event_store_needs_a_vault_and_tls() {
        let with = |store: &str, secrets: bool, allow| {
            let settings = Settings {
                store: Some(store.to_owned().into()),
                secrets_dir: secrets.then(|| PathBuf::from("s")),
                allow_plaintext: allow,
                ..Settings::default()
            };
            settings.complete(None).map(drop)
        };
        assert!(matches!(with("hunter2", true, None), Err(ConfigError::Store(_))));
        if cfg!(not(feature = "eventstore")) {
            assert!(matches!(with("esdb://a", true, None), Err(ConfigError::NoEventStore)));
            return;
        }
        assert!(matches!(with("esdb://a", false, None), Err(ConfigError::StoreNeedsSecrets)));
        assert!(with("esdb://a", true, None).is_ok());
        assert!(with("esdb://127.0.0.1?tls=false", true, None).is_ok());
        for open in ["esdb://a?tls=false", "esdb://u:p@a?tlsVerifyCert=false"] {
            assert!(
                matches!(with(open, true, None), Err(ConfigError::StorePlaintext(_))),
                "{open}"
            );
            assert!(with(open, true, Some(true)).is_ok(), "{open}");
        }
    }

    #[test]
    fn connections_are_counted() {
        let most = |n| Settings { connections_max: Some(n), ..Settings::default() }.complete(None);
        assert!(most(0).is_err());
        assert!(most(1).is_ok());
        assert!(most(usize::MAX).is_err());
    }

    #[test]
    fn a_collector_is_told_part_of_the_calls() {
        let with = |ratio, name: Option<&str>| {
            let settings = Settings {
                otel_endpoint: Some("http://127.0.0.1:4317".parse().unwrap()),
                otel_sample_ratio: ratio,
                otel_service_name: name.map(str::to_owned),
                ..Settings::default()
            };
            settings.complete(None).map(|config| config.collector)
        };
        for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(with(Some(ratio), None), Err(ConfigError::SampleRatio)), "{ratio}");
        }
        for name in ["", "two words", "\u{e9}", &"x".repeat(65)] {
            assert!(matches!(with(None, Some(name)), Err(ConfigError::ServiceName)), "{name}");
        }
        if cfg!(not(feature = "otel")) {
            assert!(matches!(with(None, None), Err(ConfigError::NoOtel)));
            return;
        }
        let usual = with(None, None).unwrap().unwrap();
        assert_eq!((usual.sample_ratio, &*usual.service_name), (0.01, "keyledger"));
        for ratio in [0.0, 0.5, 1.0] {
            let told = with(Some(ratio), Some("a.b_c-1")).unwrap().unwrap();
            assert_eq!((told.sample_ratio, &*told.service_name), (ratio, "a.b_c-1"));
        }
        assert_eq!(Settings::default().complete(None).unwrap().collector, None);
    }

    #[test]
    fn certificate_and_key_come_together() {
        let tls = |certificate: bool, key: bool, ca: bool| {
            let path = |given: bool| given.then(|| PathBuf::from("x.pem"));
            let settings = Settings {
                listen: Some("0.0.0.0:1".parse().unwrap()),
                tls_certificate: path(certificate),
                tls_key: path(key),
                tls_client_ca: path(ca),
                ..Settings::default()
            };
            settings.complete(None).map(|config| config.tls.is_some()).map_err(|it| it.to_string())
        };
        assert_eq!(tls(true, true, false), Ok(true));
        assert_eq!(tls(true, true, true), Ok(true));
        let needs =
            |given: &str, missing: &str| Err(format!("`{given}`: needs `{missing}` beside it"));
        assert_eq!(tls(true, false, true), needs("tls_certificate", "tls_key"));
        assert_eq!(tls(false, true, false), needs("tls_key", "tls_certificate"));
        assert_eq!(tls(false, false, true), needs("tls_client_ca", "tls_certificate"));
        assert!(tls(false, false, false).unwrap_err().contains("`tls_certificate` and `tls_key`"));
    }
}

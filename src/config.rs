//! What a server is told: flags over `KEYLEDGER_*` over `keyledger.toml`.
//!
//! Each setting is defined once, in [`Settings`]; its flag, its variable and its name in
//! the file follow from that. A name that is unknown, in the file or among the
//! variables, is an error: a misspelt setting is not a setting.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::ledger::secret::Secret;
use crate::ledger::start::{ConfiguredKeys, WeakToken, check_admin_api_token};
use crate::node::Directories;

/// The settings file looked for where none is named.
pub const FILE: &str = "keyledger.toml";
/// Where the server listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:50051";
/// Where events are kept unless told otherwise.
pub const DATA_DIR_DEFAULT: &str = "keyledger-data";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings as one source gives them: each may be missing. The doc comments are the
/// flags' help.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where events are kept [default: keyledger-data]
    #[arg(long, env = "KEYLEDGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the vault, its root key and the pepper are kept [default: `secrets` in the data directory]
    #[arg(long, env = "KEYLEDGER_SECRETS_DIR", value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// Where to listen [default: 127.0.0.1:50051]
    #[arg(long, env = "KEYLEDGER_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,

    /// Listen without TLS on an address that other machines can reach
    #[arg(long, env = "KEYLEDGER_ALLOW_PLAINTEXT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub allow_plaintext: Option<bool>,

    /// The SHA-256 digest of the operator's key, in hexadecimal, instead of a minted one
    #[arg(long, env = "KEYLEDGER_ADMIN_KEY_SHA256", value_name = "HEX")]
    pub admin_key_sha256: Option<String>,

    /// What to log, such as `info` or `keyledger=debug` [default: info]
    #[arg(long, env = "KEYLEDGER_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look [default: text]
    #[arg(long, env = "KEYLEDGER_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Longest time for one request, in milliseconds [default: 30000]
    #[arg(long, env = "KEYLEDGER_REQUEST_TIMEOUT_MS", value_name = "MS")]
    pub request_timeout_ms: Option<u64>,

    /// Most requests under way at once, over all connections [default: 4096]
    #[arg(long, env = "KEYLEDGER_REQUESTS_MAX", value_name = "N")]
    pub requests_max: Option<usize>,
}

/// What a server is told, complete.
pub struct Config {
    /// Where things are kept.
    pub directories: Directories,
    /// Where to listen.
    pub listen: SocketAddr,
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
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error("read `{path}`")]
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
         listen on loopback behind a TLS proxy, or accept that with `--allow-plaintext`"
    )]
    Plaintext(SocketAddr),
    /// The digest is no digest.
    #[error("`admin_key_sha256`: must be 64 characters of hexadecimal")]
    AdminKeyDigest,
    /// A configured secret is too short, or no text for a header.
    #[error(transparent)]
    AdminApiToken(#[from] WeakToken),
    /// A number is out of range.
    #[error("`{0}`: must be at least 1")]
    Zero(&'static str),
}

/// Variables that are ours but not a server's setting: the client's, and the tests'.
const OTHER_VARIABLES: &[&str] = &[
    "KEYLEDGER_SERVER",
    "KEYLEDGER_API_KEY",
    "KEYLEDGER_API_KEY_FILE",
    "KEYLEDGER_CREDENTIAL",
    "KEYLEDGER_CONFIG",
];
const TEST_VARIABLES: &str = "KEYLEDGER_TEST_";

impl Settings {
    /// Reads a settings file: the named one, or `keyledger.toml` if it is there.
    pub fn from_file(named: Option<PathBuf>) -> Result<Self, ConfigError> {
        let (path, must_be_there) = match named {
            Some(path) => (path, true),
            None => (PathBuf::from(FILE), false),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if !must_be_there && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let problem = |error: toml::de::Error| {
            // The place and what is wrong, without the report's copy of the file's text.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
            let what = error.message().lines().next().unwrap_or_default();
            ConfigError::File { path: path.clone(), problem: format!("line {line}: {what}") }
        };
        toml::from_str(&text).map_err(problem)
    }

    /// These settings, and where they say nothing, those.
    #[must_use]
    pub fn or(self, under: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(under.data_dir),
            secrets_dir: self.secrets_dir.or(under.secrets_dir),
            listen: self.listen.or(under.listen),
            allow_plaintext: self.allow_plaintext.or(under.allow_plaintext),
            admin_key_sha256: self.admin_key_sha256.or(under.admin_key_sha256),
            log: self.log.or(under.log),
            log_format: self.log_format.or(under.log_format),
            request_timeout_ms: self.request_timeout_ms.or(under.request_timeout_ms),
            requests_max: self.requests_max.or(under.requests_max),
        }
    }

    /// Where things are kept.
    #[must_use]
    pub fn directories(&self) -> Directories {
        let data = self.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT));
        let mut directories = Directories::inside(&data);
        if let Some(secrets) = &self.secrets_dir {
            directories.secrets.clone_from(secrets);
        }
        directories
    }

    /// Checks the settings and fills in what nobody said.
    pub fn complete(self, admin_api_token: Option<String>) -> Result<Config, ConfigError> {
        let listen = match self.listen {
            Some(listen) => listen,
            None => SocketAddr::from(([127, 0, 0, 1], 50_051)),
        };
        if !listen.ip().is_loopback() && self.allow_plaintext != Some(true) {
            return Err(ConfigError::Plaintext(listen));
        }
        let directories = self.directories();
        let request_timeout_ms = self.request_timeout_ms.unwrap_or(30_000);
        let requests_max = self.requests_max.unwrap_or(4_096);
        if request_timeout_ms == 0 {
            return Err(ConfigError::Zero("request_timeout_ms"));
        }
        if requests_max == 0 {
            return Err(ConfigError::Zero("requests_max"));
        }
        let admin_api_token = admin_api_token.map(|token| Secret::new(Zeroizing::new(token)));
        admin_api_token.as_ref().map(check_admin_api_token).transpose()?;
        let configured_keys = ConfiguredKeys {
            admin_api_token,
            admin_key_sha256: self.admin_key_sha256.as_deref().map(sha256).transpose()?,
        };
        Ok(Config {
            directories,
            listen,
            configured_keys,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            request_timeout_ms,
            requests_max,
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as `127.0.0.1:50051`".to_owned())
}

fn sha256(text: &str) -> Result<[u8; 32], ConfigError> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 64).ok_or(ConfigError::AdminKeyDigest)?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |value, digit| value * 16 + u8::try_from(*digit).unwrap_or(0));
    }
    Ok(bytes)
}

/// Refuses variables that begin with `KEYLEDGER_` and that nobody reads.
pub fn refuse_unknown_variables(
    variables: impl Iterator<Item = String>,
    command: &clap::Command,
) -> Result<(), ConfigError> {
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        .chain(OTHER_VARIABLES.iter().map(|name| (*name).to_owned()))
        .collect();
    let ours = |name: &String| name.starts_with("KEYLEDGER_") && !name.starts_with(TEST_VARIABLES);
    match variables.filter(ours).find(|name| !known.contains(name)) {
        Some(unknown) => Err(ConfigError::UnknownVariable(unknown)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k.toml");
        std::fs::write(&path, text).unwrap();
        Settings::from_file(Some(path)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_is_read_strictly() {
        let settings = file("listen = \"127.0.0.1:7000\"\nlog_format = \"json\"\n").unwrap();
        assert_eq!(settings.listen, Some("127.0.0.1:7000".parse().unwrap()));
        assert_eq!(settings.log_format, Some(LogFormat::Json));
        let unknown = file("lisen = \"127.0.0.1:7000\"").unwrap_err();
        assert!(unknown.contains("unknown field `lisen`"), "{unknown}");
        assert!(file("listen = 7").is_err());
        assert!(Settings::from_file(Some("/nonexistent/k.toml".into())).is_err());
    }

    #[test]
    fn the_nearer_source_wins() {
        let near = Settings { log: Some("debug".into()), ..Settings::default() };
        let far =
            Settings { log: Some("warn".into()), requests_max: Some(7), ..Settings::default() };
        let both = near.or(far);
        assert_eq!((both.log.as_deref(), both.requests_max), (Some("debug"), Some(7)));
    }

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
            Settings { request_timeout_ms: Some(0), ..Settings::default() }.complete(None).is_err()
        );
    }
}

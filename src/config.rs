//! What a server is told: flags over `KEYLEDGER_*` over `keyledger.toml`.
//!
//! Each setting is defined once, in [`Settings`]; its flag, its variable and its name in
//! the file follow from that. A name that is unknown, in the file or among the
//! variables, is an error: a misspelt setting is not a setting.

mod break_glass;
mod complete;
mod people;
pub mod production;
mod rules;
mod sessions;
mod smtp;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use crate::node::Directories;
use crate::store::engine_url::EngineText;

pub use break_glass::{BreakGlassSettings, CustodianSetting};
pub use complete::{Config, ConfigError};
pub use people::{AccountSettings, HandOverSetting, InvitationSettings, PasswordSettings};
pub use rules::{PermissionRuleSetting, PlanSetting};
pub use sessions::{DeliverySettings, SessionSettings};
pub use smtp::{SMTP_PASSWORD, SmtpSettings, SmtpTls};
pub use values::{Collector, CollectorUrl, Network, Origin, duration};

/// The settings file looked for where none is named.
pub const FILE: &str = "keyledger.toml";
/// Where the server listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:50051";
/// Where metrics are answered in production mode unless told otherwise.
pub const METRICS_LISTEN_DEFAULT: &str = "127.0.0.1:9464";
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
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where events are kept [default: keyledger-data]
    #[arg(long, env = "KEYLEDGER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the vault, its root key and the pepper are kept [default: `secrets` in the data directory]
    #[arg(long, env = "KEYLEDGER_SECRETS_DIR", value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// The EventStoreDB or KurrentDB server that keeps the events, by its connection string;
    /// needs `secrets_dir` [default: none, they are kept in the data directory]
    #[arg(long, env = "KEYLEDGER_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<EngineText>,

    /// Where to listen [default: 127.0.0.1:50051]
    #[arg(long, env = "KEYLEDGER_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,

    /// The server's certificate and those it was signed with, in PEM
    #[arg(long, env = "KEYLEDGER_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// The private key of the certificate, in PEM
    #[arg(long, env = "KEYLEDGER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Certificates in PEM, one of which must have signed every client's certificate
    #[arg(long, env = "KEYLEDGER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Do without TLS on an address that other machines can reach
    #[arg(long, env = "KEYLEDGER_ALLOW_PLAINTEXT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub allow_plaintext: Option<bool>,

    /// The SHA-256 digest of the operator's key, in hexadecimal, instead of a minted one
    #[arg(long, env = "KEYLEDGER_ADMIN_KEY_SHA256", value_name = "HEX")]
    pub admin_key_sha256: Option<String>,

    /// The SHA-256 digest of the global key, in hexadecimal: one key for a whole service, shown
    /// as `X-API-Key`; needs `global_key_organization` [default: none]
    #[arg(long, env = "KEYLEDGER_GLOBAL_KEY_SHA256", value_name = "HEX")]
    pub global_key_sha256: Option<String>,

    /// The organization whose key the global key is, by its identifier or key prefix
    #[arg(long, env = "KEYLEDGER_GLOBAL_KEY_ORGANIZATION", value_name = "ID|PREFIX")]
    pub global_key_organization: Option<String>,

    /// The role of the global key: a built-in one's name, or any one's identifier [default: read-only-admin]
    #[arg(long, env = "KEYLEDGER_GLOBAL_KEY_ROLE", value_name = "NAME|ID")]
    pub global_key_role: Option<String>,

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

    /// After how many events snapshots are taken; an orderly end takes them too [default: 65536]
    #[arg(long, env = "KEYLEDGER_SNAPSHOT_EVENTS", value_name = "N")]
    pub snapshot_events: Option<u64>,

    /// Most connections open at once [default: 10000]
    #[arg(long, env = "KEYLEDGER_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,

    /// Networks of proxies whose `x-forwarded-for` is believed [default: none]
    #[arg(
        long,
        env = "KEYLEDGER_TRUSTED_PROXIES",
        value_name = "NETWORK,…",
        value_delimiter = ','
    )]
    pub trusted_proxies: Option<Vec<Network>>,

    /// Origins of pages that browsers may let call this server, or `*` [default: none]
    #[arg(long, env = "KEYLEDGER_CORS_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub cors_origins: Option<Vec<Origin>>,

    /// Where to answer `GET /metrics` for Prometheus [default: nowhere; in production mode 127.0.0.1:9464]
    #[arg(long, env = "KEYLEDGER_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = address)]
    pub metrics_listen: Option<SocketAddr>,

    /// The collector that is told about calls, by OpenTelemetry's protocol over gRPC [default: none]
    #[arg(long, env = "KEYLEDGER_OTEL_ENDPOINT", value_name = "URL")]
    pub otel_endpoint: Option<CollectorUrl>,

    /// Which part of the calls is told about, of those whose callers do not say [default: 0.01]
    #[arg(long, env = "KEYLEDGER_OTEL_SAMPLE_RATIO", value_name = "0…1")]
    pub otel_sample_ratio: Option<f64>,

    /// What this server is called there [default: keyledger]
    #[arg(long, env = "KEYLEDGER_OTEL_SERVICE_NAME", value_name = "NAME")]
    pub otel_service_name: Option<String>,

    /// Tell clients about the services (gRPC reflection) [default: true; in production mode false]
    #[arg(long, env = "KEYLEDGER_REFLECTION", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub reflection: Option<bool>,

    /// Be strict about what is convenient but unsafe: docs/OPERATING.md has the list
    #[arg(long, env = "KEYLEDGER_PRODUCTION", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub production: Option<bool>,

    /// Signing in: in the file alone.
    #[arg(skip)]
    pub sessions: Option<SessionSettings>,

    /// The relay that takes mails. In the file alone.
    #[arg(skip)]
    pub smtp: Option<SmtpSettings>,

    /// What comes with an account. In the file alone.
    #[arg(skip)]
    pub accounts: Option<AccountSettings>,

    /// Who is handed tokens. In the file alone.
    #[arg(skip)]
    pub invitations: Option<InvitationSettings>,

    /// What passwords are held to. In the file alone.
    #[arg(skip)]
    pub passwords: Option<PasswordSettings>,

    /// What permissions ask for, beside being held. In the file alone.
    #[arg(skip)]
    pub permission_rules: Option<Vec<PermissionRuleSetting>>,

    /// The rules of plans, by their names. In the file alone.
    #[arg(skip)]
    pub plans: Option<BTreeMap<String, PlanSetting>>,

    /// Emergency access. In the file alone, but for two variables.
    #[arg(skip)]
    pub break_glass: Option<BreakGlassSettings>,
}

/// Variables that are ours but not a server's setting: the client's, and the tests'.
const OTHER_VARIABLES: &[&str] = &[
    "KEYLEDGER_SERVER",
    "KEYLEDGER_API_KEY",
    "KEYLEDGER_API_KEY_FILE",
    "KEYLEDGER_CREDENTIAL",
    "KEYLEDGER_ORG",
    "KEYLEDGER_MASTER_KEY",
    "KEYLEDGER_CA",
    "KEYLEDGER_CLIENT_CERT",
    "KEYLEDGER_TIMEOUT",
    "KEYLEDGER_CLIENT_KEY",
    "KEYLEDGER_CONFIG",
    SMTP_PASSWORD,
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
            store: self.store.or(under.store),
            listen: self.listen.or(under.listen),
            tls_certificate: self.tls_certificate.or(under.tls_certificate),
            tls_key: self.tls_key.or(under.tls_key),
            tls_client_ca: self.tls_client_ca.or(under.tls_client_ca),
            allow_plaintext: self.allow_plaintext.or(under.allow_plaintext),
            admin_key_sha256: self.admin_key_sha256.or(under.admin_key_sha256),
            global_key_sha256: self.global_key_sha256.or(under.global_key_sha256),
            global_key_organization: self.global_key_organization.or(under.global_key_organization),
            global_key_role: self.global_key_role.or(under.global_key_role),
            log: self.log.or(under.log),
            log_format: self.log_format.or(under.log_format),
            request_timeout_ms: self.request_timeout_ms.or(under.request_timeout_ms),
            requests_max: self.requests_max.or(under.requests_max),
            snapshot_events: self.snapshot_events.or(under.snapshot_events),
            connections_max: self.connections_max.or(under.connections_max),
            trusted_proxies: self.trusted_proxies.or(under.trusted_proxies),
            cors_origins: self.cors_origins.or(under.cors_origins),
            metrics_listen: self.metrics_listen.or(under.metrics_listen),
            otel_endpoint: self.otel_endpoint.or(under.otel_endpoint),
            otel_sample_ratio: self.otel_sample_ratio.or(under.otel_sample_ratio),
            otel_service_name: self.otel_service_name.or(under.otel_service_name),
            reflection: self.reflection.or(under.reflection),
            production: self.production.or(under.production),
            sessions: self.sessions.or(under.sessions),
            smtp: self.smtp.or(under.smtp),
            accounts: self.accounts.or(under.accounts),
            invitations: self.invitations.or(under.invitations),
            passwords: self.passwords.or(under.passwords),
            permission_rules: self.permission_rules.or(under.permission_rules),
            plans: self.plans.or(under.plans),
            break_glass: self.break_glass.or(under.break_glass),
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
        directories.engine.clone_from(&self.store);
        directories
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "must be an IP address and a port, such as `127.0.0.1:50051`".to_owned())
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
        let unknown = file("[sessions]\nisuer = 'x'").unwrap_err();
        assert!(unknown.contains("unknown field `isuer`"), "{unknown}");
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

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }

    fn flags() -> Vec<String> {
        use clap::CommandFactory as _;
        let command = Flags::command();
        command.get_arguments().filter_map(|it| it.get_long().map(str::to_owned)).collect()
    }

    /// The example says nothing until a line is taken in, and then what is the default.
    #[test]
    fn the_example_names_every_setting() {
        let example = include_str!("../examples/keyledger.toml");
        assert_eq!(file(example).unwrap(), Settings::default());
        let setting = |line: &str| {
            let line = line.strip_prefix('#').filter(|line| !line.starts_with(' '))?;
            line.split_once(" = ").map(|(name, _)| (name.to_owned(), format!("{line}\n")))
        };
        let (flat, section) = example.split_once("#[sessions]\n").unwrap();
        let (names, lines): (Vec<String>, String) = flat.lines().filter_map(setting).unzip();
        let (in_section, section): (Vec<String>, String) =
            section.lines().filter_map(setting).unzip();
        let flags: Vec<String> = flags().iter().map(|flag| flag.replace('-', "_")).collect();
        assert_eq!(names, flags);
        let usual = Settings::default().complete(None).unwrap();
        // None of its settings is missing: whatever is unknown is refused.
        let sessions = file(&format!("[sessions]\n{section}")).unwrap();
        let all = sessions.sessions.as_ref().map(|it| format!("{it:?}")).unwrap();
        assert_eq!(all.matches(": ").count(), all.matches(": Some(").count() + 1, "{all}");
        let sessions = sessions.complete(None).unwrap();
        assert_eq!(sessions.sign_in, usual.sign_in);
        assert!(sessions.delivery.is_some() && usual.delivery.is_none());
        let page = include_str!("../docs/OPERATING.md");
        for name in in_section {
            assert!(page.contains(&format!("| `{name}` | ")), "docs/OPERATING.md lacks `{name}`");
        }
        let mut same = file(&lines).unwrap();
        if cfg!(not(feature = "eventstore")) {
            same.store = None;
        }
        if cfg!(not(feature = "otel")) {
            same.otel_endpoint = None;
        }
        let same = same.complete(None).unwrap();
        assert_eq!(same.directories.data, usual.directories.data);
        assert_eq!(
            (same.listen, same.log, same.log_format),
            (usual.listen, usual.log, usual.log_format)
        );
        assert_eq!(same.request_timeout_ms, usual.request_timeout_ms);
        assert_eq!(
            (same.requests_max, same.connections_max, same.snapshot_events),
            (usual.requests_max, usual.connections_max, usual.snapshot_events)
        );
        assert_eq!(same.trusted_proxies, usual.trusted_proxies);
        assert_eq!(same.cors_origins, usual.cors_origins);
        assert_eq!((same.reflection, same.production), (usual.reflection, usual.production));
    }

    #[test]
    fn the_operators_page_names_every_setting() {
        let page = include_str!("../docs/OPERATING.md");
        for flag in flags() {
            let name = flag.replace('-', "_");
            let row = format!("| `--{flag}` | `KEYLEDGER_{}` | `{name}` |", name.to_uppercase());
            assert!(page.contains(&row), "docs/OPERATING.md lacks `{row}`");
        }
    }
}

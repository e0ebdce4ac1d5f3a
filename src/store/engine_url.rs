//! The connection string of an event store engine, checked and kept from sight.
//!
//! It may hold a password, so nothing of it is ever repeated in an error, and its `Debug`
//! shows where it leads and no more. Everything the engine's client would silently ignore
//! or fail on later is refused here: unknown parameters, files that are not there, a
//! preference for nodes that may be behind.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

/// The port where none is named.
const PORT_DEFAULT: u16 = 2_113;
/// How long one call may take unless the connection string says otherwise.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// How many calls a lease must have room for.
const CALLS_PER_LEASE: u32 = 3;
/// How long a node may answer after it has last shown that it is the one admitted.
const LEASE_DEFAULT: Duration = Duration::from_secs(15);
/// How long the client waits between two looks for a node, in milliseconds.
const DISCOVERY_MS: u64 = 20;
/// How often it looks before it gives up.
const ATTEMPTS: u64 = 5;
/// Longest prefix in front of the names of streams.
const PREFIX_CHARS_MAX: usize = 32;
/// Most hosts in one connection string.
const HOSTS_MAX: usize = 16;

const SCHEMES: &[&str] = &["esdb", "kurrentdb", "kdb", "kurrent"];

/// A connection string as a setting holds it, before anybody has looked at it: a parser of
/// flags would repeat one that is wrong, with the password in it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct EngineText(Zeroizing<String>);

impl EngineText {
    /// What it says.
    ///
    /// # Errors
    ///
    /// It is no connection string.
    pub fn url(&self) -> Result<EngineUrl, EngineUrlError> {
        self.0.parse()
    }
}

impl From<String> for EngineText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl FromStr for EngineText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

/// Nothing of it: it may hold a password.
impl fmt::Debug for EngineText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineText")
    }
}

/// Where an event store engine is, and how to speak to it.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl {
    discover: bool,
    hosts: Vec<Host>,
    user: Option<User>,
    tls: bool,
    verify: bool,
    ca_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    stream_prefix: String,
    deadline: Duration,
    lease: Duration,
    passed_on: Vec<(&'static str, u64)>,
}

#[derive(Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

#[derive(Clone, PartialEq, Eq)]
struct User {
    name: String,
    password: Zeroizing<String>,
}

/// Why a text is no connection string. Says nothing of what the text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineUrlError {
    /// It does not begin as one.
    #[error(
        "must be a connection string such as `esdb://user:password@host:2113?tls=true`, with `esdb`, `kurrentdb` or either with `+discover`"
    )]
    Scheme,
    /// The hosts are missing or have no such form.
    #[error(
        "must name hosts as `host`, `host:port` or `[address]:port`, separated by commas; in a user or password, write `@ : / ? # %` as `%` and two digits"
    )]
    Hosts,
    /// Discovery asks one name.
    #[error("must name exactly one host with `+discover`")]
    Discover,
    /// The user has no password, or one of them cannot be read.
    #[error("must have a user and a password in front of `@`, or neither, in UTF-8")]
    User,
    /// Something stands behind the hosts.
    #[error("must not have a path")]
    Path,
    /// A parameter is none of ours.
    #[error(
        "has an unknown parameter; known are `tls`, `tlsVerifyCert`, `tlsCaFile`, `userCertFile`, `userKeyFile`, `defaultDeadline`, `keepAliveInterval`, `keepAliveTimeout`, `maxDiscoverAttempts`, `discoveryInterval`, `gossipTimeout`, `nodePreference`, `streamPrefix` and `lease`"
    )]
    Parameter,
    /// A parameter is there twice.
    #[error("has parameter `{0}` twice")]
    Twice(&'static str),
    /// A parameter's value is none of those it may have.
    #[error("parameter `{name}`: must be {must_be}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it may be.
        must_be: &'static str,
    },
    /// Two parameters need each other.
    #[error("parameters `userCertFile` and `userKeyFile` need each other, and TLS")]
    ClientCertificate,
    /// A call may take so long that a node could not show in time that it is the one.
    #[error("parameter `defaultDeadline`: must be at most a third of `lease`, which is {0} ms")]
    DeadlineAboveLease(u64),
    /// A password would be sent in clear.
    #[error("parameter `tlsCaFile`: needs `tls=true`")]
    CaWithoutTls,
}

/// A file that the connection string names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("parameter `{name}`: `{}` {problem}", path.display())]
pub struct EngineFileError {
    /// The parameter.
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl EngineUrl {
    /// Whether what is sent can be read, or answered, by others on the way.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls && self.verify
    }

    /// Whether every host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        !self.discover && self.hosts.iter().all(Host::is_loopback)
    }

    /// The hosts, without anything that is secret.
    #[must_use]
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        hosts.join(",")
    }

    /// What stands in front of the names of all streams.
    #[must_use]
    pub fn stream_prefix(&self) -> &str {
        &self.stream_prefix
    }

    /// How long one call may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How long a node may answer after it has last shown that it is the one admitted.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// User and password, where there are any.
    #[must_use]
    pub fn user(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|user| (&*user.name, &**user.password))
    }

    /// Checks that the files it names hold certificates and a key.
    ///
    /// # Errors
    ///
    /// [`EngineFileError`] names the first that does not.
    pub fn check_files(&self) -> Result<(), EngineFileError> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificates = |name, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(()) };
            let wrong = |problem: &str| EngineFileError {
                name,
                path: path.clone(),
                problem: problem.to_owned(),
            };
            let found = CertificateDer::pem_file_iter(path)
                .map_err(|_| wrong("cannot be read"))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| wrong("is not PEM"))?;
            if found.is_empty() { Err(wrong("holds no certificate")) } else { Ok(()) }
        };
        certificates("tlsCaFile", &self.ca_file)?;
        certificates("userCertFile", &self.client_certificate)?;
        let Some(path) = &self.client_key else { return Ok(()) };
        PrivateKeyDer::from_pem_file(path).map(drop).map_err(|_| EngineFileError {
            name: "userKeyFile",
            path: path.clone(),
            problem: "is no private key in PEM that can be read".to_owned(),
        })
    }

    /// The connection string as the engine's client takes it, without the secrets.
    #[must_use]
    pub fn for_client(&self) -> String {
        let discover = if self.discover { "+discover" } else { "" };
        let mut text = format!(
            "esdb{discover}://{}?tls={}&tlsVerifyCert={}&nodePreference=leader",
            self.hosts(),
            self.tls,
            self.verify
        );
        // The client waits so long before it first connects, too.
        let usual = [("discoveryInterval", DISCOVERY_MS), ("maxDiscoverAttempts", ATTEMPTS)];
        let said = |name| self.passed_on.iter().any(|(said, _)| *said == name);
        let usual = usual.iter().filter(|(name, _)| !said(*name));
        for (name, value) in self.passed_on.iter().chain(usual) {
            text.push_str(&format!("&{name}={value}"));
        }
        for (name, path) in [
            ("tlsCaFile", &self.ca_file),
            ("userCertFile", &self.client_certificate),
            ("userKeyFile", &self.client_key),
        ] {
            if let Some(path) = path {
                text.push_str(&format!("&{name}={}", encoded(&path.to_string_lossy())));
            }
        }
        text
    }

    fn set(&mut self, parameter: Parameter, value: &str) -> Result<(), EngineUrlError> {
        let name = parameter.name();
        let wrong = |must_be| EngineUrlError::Value { name, must_be };
        let flag = || match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("`true` or `false`")),
        };
        let millis = |least: u64, most: u64, must_be| {
            let millis = value.parse().map_err(|_| wrong(must_be))?;
            let fits = (least..=most).contains(&millis);
            if fits { Ok(millis) } else { Err(wrong(must_be)) }
        };
        let file = || {
            let path = decoded(value).filter(|path| !path.is_empty());
            path.map(PathBuf::from).ok_or_else(|| wrong("a file's name"))
        };
        match parameter {
            Parameter::Tls => self.tls = flag()?,
            Parameter::TlsVerifyCert => self.verify = flag()?,
            Parameter::TlsCaFile => self.ca_file = Some(file()?),
            Parameter::UserCertFile => self.client_certificate = Some(file()?),
            Parameter::UserKeyFile => self.client_key = Some(file()?),
            Parameter::DefaultDeadline => {
                let ms = millis(100, 60_000, "milliseconds from 100 to 60000")?;
                self.deadline = Duration::from_millis(ms);
            }
            Parameter::Lease => {
                let ms = millis(500, 300_000, "milliseconds from 500 to 300000")?;
                self.lease = Duration::from_millis(ms);
            }
            Parameter::KeepAliveInterval | Parameter::KeepAliveTimeout => {
                let ms = millis(10_000, 3_600_000, "milliseconds from 10000 to 3600000")?;
                self.passed_on.push((name, ms));
            }
            Parameter::MaxDiscoverAttempts => {
                self.passed_on.push((name, millis(1, 100, "a number from 1 to 100")?));
            }
            Parameter::DiscoveryInterval | Parameter::GossipTimeout => {
                let ms = millis(1, 60_000, "milliseconds from 1 to 60000")?;
                self.passed_on.push((name, ms));
            }
            // Others may be behind, and what they answer be out of date.
            Parameter::NodePreference if value.eq_ignore_ascii_case("leader") => {}
            Parameter::NodePreference => return Err(wrong("`leader`")),
            Parameter::StreamPrefix => {
                let fits = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
                let begins = value.starts_with(|it: char| it.is_ascii_lowercase());
                if !begins || value.len() > PREFIX_CHARS_MAX || !value.chars().all(fits) {
                    return Err(wrong("1 to 32 of `a-z 0-9 _`, a letter first"));
                }
                self.stream_prefix = format!("{value}_");
            }
        }
        Ok(())
    }
}

/// What a connection string may say behind `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Tls,
    TlsVerifyCert,
    TlsCaFile,
    UserCertFile,
    UserKeyFile,
    DefaultDeadline,
    KeepAliveInterval,
    KeepAliveTimeout,
    MaxDiscoverAttempts,
    DiscoveryInterval,
    GossipTimeout,
    NodePreference,
    StreamPrefix,
    Lease,
}

impl Parameter {
    const ALL: [Self; 14] = [
        Self::Tls,
        Self::TlsVerifyCert,
        Self::TlsCaFile,
        Self::UserCertFile,
        Self::UserKeyFile,
        Self::DefaultDeadline,
        Self::KeepAliveInterval,
        Self::KeepAliveTimeout,
        Self::MaxDiscoverAttempts,
        Self::DiscoveryInterval,
        Self::GossipTimeout,
        Self::NodePreference,
        Self::StreamPrefix,
        Self::Lease,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::TlsVerifyCert => "tlsVerifyCert",
            Self::TlsCaFile => "tlsCaFile",
            Self::UserCertFile => "userCertFile",
            Self::UserKeyFile => "userKeyFile",
            Self::DefaultDeadline => "defaultDeadline",
            Self::KeepAliveInterval => "keepAliveInterval",
            Self::KeepAliveTimeout => "keepAliveTimeout",
            Self::MaxDiscoverAttempts => "maxDiscoverAttempts",
            Self::DiscoveryInterval => "discoveryInterval",
            Self::GossipTimeout => "gossipTimeout",
            Self::NodePreference => "nodePreference",
            Self::StreamPrefix => "streamPrefix",
            Self::Lease => "lease",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(name))
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let (name, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, behind) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{address}]"), behind.strip_prefix(':').map_or(Some(""), Some)?)
        } else {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            (name.to_owned(), port)
        };
        let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
        if !name.starts_with('[') && (name.is_empty() || !name.chars().all(plain)) {
            return None;
        }
        let port = if port.is_empty() && !text.ends_with(':') {
            PORT_DEFAULT
        } else {
            port.parse().ok().filter(|port| *port > 0)?
        };
        Some(Self { name, port })
    }

    fn is_loopback(&self) -> bool {
        let bare = self.name.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for EngineUrl {
    type Err = EngineUrlError;

    fn from_str(text: &str) -> Result<Self, EngineUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(EngineUrlError::Scheme)?;
        let (scheme, discover) = match scheme.split_once('+') {
            Some((scheme, "discover")) => (scheme, true),
            Some(_) => return Err(EngineUrlError::Scheme),
            None => (scheme, false),
        };
        if !SCHEMES.contains(&scheme) {
            return Err(EngineUrlError::Scheme);
        }
        let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Of a password with such a character in it, most would be taken for something else.
        if behind.contains('@') && !authority.contains('@') {
            return Err(EngineUrlError::Hosts);
        }
        let query = match behind.strip_prefix('/').unwrap_or(behind) {
            "" => "",
            query => query.strip_prefix('?').ok_or(EngineUrlError::Path)?,
        };
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(User::parse(user)?), hosts),
            None => (None, authority),
        };
        let hosts: Option<Vec<Host>> = hosts.split(',').map(Host::parse).collect();
        let hosts = hosts.filter(|hosts| hosts.len() <= HOSTS_MAX).ok_or(EngineUrlError::Hosts)?;
        if discover && hosts.len() != 1 {
            return Err(EngineUrlError::Discover);
        }
        let mut url = Self {
            discover,
            hosts,
            user,
            tls: true,
            verify: true,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            stream_prefix: String::new(),
            deadline: DEADLINE_DEFAULT,
            lease: LEASE_DEFAULT,
            passed_on: Vec::new(),
        };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(EngineUrlError::Parameter)?;
            let parameter = Parameter::named(name).ok_or(EngineUrlError::Parameter)?;
            if seen.contains(&parameter) {
                return Err(EngineUrlError::Twice(parameter.name()));
            }
            seen.push(parameter);
            url.set(parameter, value)?;
        }
        let certificate = url.client_certificate.is_some();
        if certificate != url.client_key.is_some() || (certificate && !url.tls) {
            return Err(EngineUrlError::ClientCertificate);
        }
        if url.ca_file.is_some() && !url.tls {
            return Err(EngineUrlError::CaWithoutTls);
        }
        let third = url.lease / CALLS_PER_LEASE;
        if !seen.contains(&Parameter::DefaultDeadline) {
            url.deadline = url.deadline.min(third);
        }
        if url.deadline > third {
            let lease_ms = u64::try_from(url.lease.as_millis()).unwrap_or(u64::MAX);
            return Err(EngineUrlError::DeadlineAboveLease(lease_ms));
        }
        Ok(url)
    }
}

impl User {
    fn parse(text: &str) -> Result<Self, EngineUrlError> {
        let (name, password) = text.split_once(':').ok_or(EngineUrlError::User)?;
        let name = decoded(name).filter(|name| !name.is_empty() && !name.contains(':'));
        let password = decoded(password).filter(|password| !password.is_empty());
        match (name, password) {
            (Some(name), Some(password)) => Ok(Self { name, password: Zeroizing::new(password) }),
            _ => Err(EngineUrlError::User),
        }
    }
}

/// Where it leads, and no more: it may hold a password.
impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineUrl({})", self.hosts())
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;

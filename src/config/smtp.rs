//! The mail relay: the section `[smtp]` of the settings file. It has no flags; its password may
//! come in a variable.

use std::env::VarError;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::message::Mailbox;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::ConfigError;
use super::sessions::within;
use crate::delivery::mail::{Links, Relay, RelaySettings, RelayTls};
use crate::ledger::secret::Secret;

/// The variable that may hold the relay's password.
pub const SMTP_PASSWORD: &str = "KEYLEDGER_SMTP_PASSWORD";
/// Most characters of a link's beginning.
const LINK_CHARS_MAX: usize = 1_000;
/// Most bytes of a file that the relay needs.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How the way to the relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// By TLS from the first byte.
    Implicit,
    /// By STARTTLS, without which nothing is sent.
    StartTls,
    /// Not at all: for this very machine.
    None,
}

/// `[smtp]`: the relay that takes mails.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// Its host.
    host: String,
    /// Its port; absent for what is usual for its TLS.
    port: Option<u16>,
    /// How the way there is protected.
    tls: Option<SmtpTls>,
    /// Whom mails are from: an address, or `Name <address>`.
    from: String,
    /// The name that it is shown.
    user: Option<String>,
    /// The file that holds the password.
    password_file: Option<PathBuf>,
    /// Certificates in PEM, one of which must have signed the relay's.
    ca_file: Option<PathBuf>,
    /// How long one mail may take.
    timeout_ms: Option<u64>,
    /// What the links of invitations begin with.
    invitation_url: Option<String>,
    /// What the links of password resets begin with.
    reset_url: Option<String>,
}

impl SmtpSettings {
    /// Checks the section, and reads the files that it names.
    pub(super) fn complete(self) -> Result<Relay, ConfigError> {
        let wrong = |name, problem| Err(ConfigError::Smtp(name, problem));
        let host = self.host;
        if host.is_empty() || host.len() > 253 || !host.bytes().all(|it| it.is_ascii_graphic()) {
            return wrong("smtp.host", "must be a host's name or an IP address");
        }
        let tls = match self.tls.unwrap_or(SmtpTls::StartTls) {
            SmtpTls::Implicit => RelayTls::Implicit,
            SmtpTls::StartTls => RelayTls::StartTls,
            SmtpTls::None if is_here(&host) => RelayTls::None,
            SmtpTls::None => {
                return wrong(
                    "smtp.tls",
                    "must be `implicit` or `starttls`: tokens would cross the network in clear; `none` is for a relay on this machine",
                );
            }
        };
        let port = self.port.unwrap_or(match tls {
            RelayTls::Implicit => 465,
            RelayTls::StartTls => 587,
            RelayTls::None => 25,
        });
        let Ok(from) = self.from.parse::<Mailbox>() else {
            return wrong("smtp.from", "must be an address, or `Name <address>`");
        };
        let login = match (self.user, password(self.password_file.as_deref())?) {
            (Some(user), Some(password)) if !user.is_empty() => Some((user, password)),
            (None, None) => None,
            (Some(_), _) => {
                return wrong(
                    "smtp.user",
                    "needs a password beside it: `password_file`, or the variable `KEYLEDGER_SMTP_PASSWORD`",
                );
            }
            (None, Some(_)) => {
                return wrong("smtp.user", "is missing: there is a password for it");
            }
        };
        let ca = self.ca_file.map(|path| read("smtp.ca_file", &path)).transpose()?;
        let timeout_ms =
            within("smtp.timeout_ms", self.timeout_ms.unwrap_or(10_000), [1, 600_000])?;
        let links = Links {
            invitation: link("smtp.invitation_url", self.invitation_url)?,
            reset: link("smtp.reset_url", self.reset_url)?,
        };
        Ok(Relay::new(RelaySettings {
            host,
            port,
            tls,
            from,
            login,
            ca: ca.map(|it| it.to_vec()),
            within: Duration::from_millis(timeout_ms),
            links,
        })?)
    }
}

/// Whether a host is this very machine, whatever a resolver says.
fn is_here(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

fn read(name: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    use std::io::Read as _;
    let failed = |source| ConfigError::SmtpFile { name, path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The password, from where it is: one end of a line behind it in a file is not part of it.
fn password(file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let none = "must hold a password: UTF-8, on one line, not empty";
    let (name, text) = match (file, std::env::var(SMTP_PASSWORD)) {
        (Some(_), Ok(_)) => {
            let problem = "stands beside the variable `KEYLEDGER_SMTP_PASSWORD`; keep one of them";
            return Err(ConfigError::Smtp("smtp.password_file", problem));
        }
        (Some(path), Err(_)) => {
            let bytes = read("smtp.password_file", path)?;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            ("smtp.password_file", Zeroizing::new(text.to_owned()))
        }
        (None, Ok(text)) => (SMTP_PASSWORD, Zeroizing::new(text)),
        (None, Err(VarError::NotPresent)) => return Ok(None),
        (None, Err(VarError::NotUnicode(_))) => return Err(ConfigError::Smtp(SMTP_PASSWORD, none)),
    };
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(ConfigError::Smtp(name, none));
    }
    Ok(Some(Secret::new(text)))
}

/// What a link begins with: tokens cross no network in clear.
fn link(name: &'static str, text: Option<String>) -> Result<Option<String>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let here = ["http://127.0.0.1", "http://[::1]", "http://localhost"].iter().any(|begin| {
        text.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let fits = text.len() <= LINK_CHARS_MAX && text.bytes().all(|it| it.is_ascii_graphic());
    if fits && (here || text.starts_with("https://")) {
        return Ok(Some(text));
    }
    Err(ConfigError::Smtp(
        name,
        "must begin with `https://`, without blanks; the token is put behind it, as in `https://id.example.com/join#`",
    ))
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::delivery::Means;

    fn section(text: &str) -> Result<bool, String> {
        let usual = "host = '127.0.0.1'\ntls = 'none'\nfrom = 'Keys <keys@example.com>'\n";
        let named = |line: &&str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !text.lines().any(|other| other.starts_with(&format!("{name} = ")))
        };
        let usual: Vec<_> = usual.lines().filter(named).collect();
        let text = format!("[smtp]\n{}\n{text}", usual.join("\n"));
        let settings: Settings =
            toml::from_str(&text).map_err(|error| error.message().to_owned())?;
        let config = settings.complete(None).map_err(|error| error.to_string())?;
        Ok(matches!(config.delivery, Some(Means::Mail(_))))
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(section(""), Ok(true));
        assert_eq!(section("host = 'mail.example.com'\ntls = 'starttls'"), Ok(true));
        assert_eq!(section("host = 'mail.example.com'\ntls = 'implicit'"), Ok(true));
        assert_eq!(section("invitation_url = 'https://id.example.com/join#'"), Ok(true));
        for (text, named) in [
            ("host = ''", "`smtp.host`"),
            ("host = 'mail.example.com'", "`smtp.tls`"),
            ("host = 'localhost.example.com'", "`smtp.tls`"),
            ("host = '127.0.0.1.example.com'", "`smtp.tls`"),
            ("from = 'nobody'", "`smtp.from`"),
            ("from = \"a@example.com\\nBcc: b@example.com\"", "`smtp.from`"),
            ("user = 'keys'", "`smtp.user`"),
            ("password_file = '/nonexistent'", "`smtp.password_file`: cannot read"),
            ("ca_file = '/nonexistent'", "`smtp.ca_file`: cannot read"),
            ("timeout_ms = 0", "`smtp.timeout_ms`: must be 1 to 600000"),
            ("reset_url = 'http://id.example.com/'", "`smtp.reset_url`"),
            ("reset_url = 'http://localhost.example.com/'", "`smtp.reset_url`"),
            ("invitation_url = \"https://a/\\nb\"", "`smtp.invitation_url`"),
            ("pasword_file = '/a'", "unknown field"),
        ] {
            let said = section(text).unwrap_err();
            assert!(said.starts_with(named), "{text}: {said}");
        }
        let both = "[sessions]\ndelivery = { command = ['/bin/true'] }";
        assert!(section(both).unwrap_err().starts_with("`smtp`: stands beside"));
    }

    #[test]
    fn a_password_is_in_a_file_and_in_nothing_that_is_printed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("password");
        std::fs::write(&path, "s3cret\n").unwrap();
        let with = format!("user = 'keys'\npassword_file = {path:?}");
        assert_eq!(section(&with), Ok(true));
        let alone = section(&format!("password_file = {path:?}")).unwrap_err();
        assert!(alone.starts_with("`smtp.user`") && !alone.contains("s3cret"), "{alone}");
        for bad in ["", "\n", "a\nb"] {
            std::fs::write(&path, bad).unwrap();
            assert!(section(&with).unwrap_err().starts_with("`smtp.password_file`"), "{bad:?}");
        }
    }
}

//! Production mode: what is convenient but unsafe is refused, what is wise is the default.
//!
//! [`EFFECTS`] is the whole of it; the table of docs/OPERATING.md has the same rows.

use std::path::{Component, Path, PathBuf};

use super::Settings;

/// One thing that is different in production mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The setting, or the file, that it is about.
    pub about: &'static str,
    /// What is different.
    pub effect: &'static str,
}

/// All that is different in production mode.
pub const EFFECTS: &[Effect] = &[
    Effect {
        about: "tls_certificate",
        effect: "must be set, on loopback too, unless `allow_plaintext` is",
    },
    Effect { about: "secrets_dir", effect: "must be set, and lie outside the data directory" },
    Effect {
        about: "ADMIN_API_TOKEN",
        effect: "is refused: `admin_key_sha256` needs no secret on the server",
    },
    Effect { about: "cors_origins", effect: "may not hold `*`" },
    Effect { about: "log_format", effect: "is `json` unless set" },
    Effect {
        about: "global_key_role",
        effect: "is refused where it permits everything, as `admin` does",
    },
    Effect { about: "metrics_listen", effect: "is `127.0.0.1:9464` unless set" },
    Effect { about: "reflection", effect: "is `false` unless set" },
    Effect {
        about: "invitations.hand_over",
        effect: "is `operators` unless set, and `inviter` is refused: whoever is handed a token can make the account of an e-mail that has none",
    },
    Effect {
        about: "admin.key",
        effect: "a start that finds it in the data directory warns: move it off the machine",
    },
];

/// What production mode does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// No TLS.
    #[error(
        "`production`: TLS is required; set `tls_certificate` and `tls_key`, or accept plaintext with `--allow-plaintext`"
    )]
    Plaintext,
    /// The secrets would lie beside what they protect.
    #[error(
        "`production`: `secrets_dir` must be set, so that a copy of the data directory holds no secrets"
    )]
    NoSecretsDirectory,
    /// The secrets would lie beside what they protect.
    #[error("`production`: `secrets_dir` must lie outside the data directory `{0}`")]
    SecretsInside(PathBuf),
    /// An operator's key in the environment.
    #[error(
        "`production`: `ADMIN_API_TOKEN` puts an operator's key into the server's environment; set `admin_key_sha256` instead"
    )]
    AdminApiToken,
    /// Every page may call.
    #[error("`production`: `cors_origins` may not hold `*`; name the origins")]
    AnyOrigin,
    /// Whoever invites could make the accounts of whom they invite.
    #[error(
        "`production`: `invitations.hand_over` may not be `inviter`; set `operators` or `nobody`, and let `smtp` or `sessions.delivery` deliver"
    )]
    HandOver,
}

/// Refuses what production mode does not allow.
pub(super) fn check(
    settings: &Settings,
    tls: bool,
    has_admin_api_token: bool,
) -> Result<(), Unsafe> {
    if !tls && settings.allow_plaintext != Some(true) {
        return Err(Unsafe::Plaintext);
    }
    if settings.secrets_dir.is_none() {
        return Err(Unsafe::NoSecretsDirectory);
    }
    let directories = settings.directories();
    if is_inside(&directories.secrets, &directories.data) {
        return Err(Unsafe::SecretsInside(directories.data));
    }
    if has_admin_api_token {
        return Err(Unsafe::AdminApiToken);
    }
    if settings.cors_origins.iter().flatten().any(super::Origin::is_any) {
        return Err(Unsafe::AnyOrigin);
    }
    if settings.invitations.and_then(|it| it.hand_over) == Some(super::HandOverSetting::Inviter) {
        return Err(Unsafe::HandOver);
    }
    Ok(())
}

/// Whether a path is the other, or below it, links followed as far as there are files.
fn is_inside(path: &Path, directory: &Path) -> bool {
    resolved(path).starts_with(resolved(directory))
}

fn resolved(path: &Path) -> PathBuf {
    let mut there = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    loop {
        if let Ok(real) = there.canonicalize() {
            missing.reverse();
            return flat(&missing.into_iter().fold(real, |path, name| path.join(name)));
        }
        let Some(last) = there.components().next_back() else { return flat(path) };
        missing.push(PathBuf::from(last.as_os_str()));
        if !there.pop() {
            return flat(path);
        }
    }
}

/// Without `..` and `.`: of what is not there yet, nothing can be a link.
fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                flat.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                flat.push(component);
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError, LogFormat};

    fn settings() -> Settings {
        Settings {
            production: Some(true),
            tls_certificate: Some("c.pem".into()),
            tls_key: Some("k.pem".into()),
            data_dir: Some("/var/lib/keyledger".into()),
            secrets_dir: Some("/var/lib/keyledger-secrets".into()),
            ..Settings::default()
        }
    }

    fn check(change: impl FnOnce(&mut Settings)) -> Result<Config, Unsafe> {
        let mut settings = settings();
        change(&mut settings);
        settings.complete(None).map_err(|error| {
            let ConfigError::Unsafe(error) = error else { panic!("{error}") };
            error
        })
    }

    #[test]
    fn tls_is_required_unless_plaintext_is_accepted() {
        let plain = |settings: &mut Settings| {
            settings.tls_certificate = None;
            settings.tls_key = None;
        };
        assert_eq!(check(plain).err(), Some(Unsafe::Plaintext));
        let accepted = check(|settings| {
            plain(settings);
            settings.allow_plaintext = Some(true);
        });
        assert!(accepted.is_ok());
    }

    #[test]
    fn secrets_lie_elsewhere() {
        assert_eq!(check(|it| it.secrets_dir = None).err(), Some(Unsafe::NoSecretsDirectory));
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let at = |secrets: PathBuf| {
            check(|it| {
                it.data_dir = Some(data.clone());
                it.secrets_dir = Some(secrets);
            })
            .err()
        };
        let inside = Some(Unsafe::SecretsInside(data.clone()));
        for made in [false, true] {
            if made {
                std::fs::create_dir_all(data.join("a")).unwrap();
                std::os::unix::fs::symlink(&data, home.path().join("link")).unwrap();
                assert_eq!(at(home.path().join("link/secrets")), inside);
            }
            assert_eq!(at(data.clone()), inside);
            assert_eq!(at(data.join("secrets")), inside);
            assert_eq!(at(data.join("../data/./secrets")), inside);
            assert_eq!(at(home.path().join("data-secrets")), None);
            assert_eq!(at(data.join("../secrets")), None);
        }
    }

    #[test]
    fn no_key_in_the_environment_and_no_page_of_anybodys() {
        let token = || Some("0123456789abcdef0123456789abcdef".to_owned());
        let refused = settings().complete(token()).err().map(|it| it.to_string());
        assert_eq!(refused, Some(Unsafe::AdminApiToken.to_string()));
        let any = |it: &mut Settings| it.cors_origins = Some(vec!["*".parse().unwrap()]);
        assert_eq!(check(any).err(), Some(Unsafe::AnyOrigin));
        let one =
            |it: &mut Settings| it.cors_origins = Some(vec!["https://a.example".parse().unwrap()]);
        assert!(check(one).is_ok());
    }

    #[test]
    fn defaults_differ_and_can_be_set() {
        let config = check(|_| ()).unwrap();
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.metrics_listen, Some("127.0.0.1:9464".parse().unwrap()));
        assert!(!config.reflection);
        let set = check(|it| {
            it.log_format = Some(LogFormat::Text);
            it.metrics_listen = Some("127.0.0.1:1".parse().unwrap());
            it.reflection = Some(true);
        });
        let set = set.unwrap();
        assert_eq!(set.log_format, LogFormat::Text);
        assert_eq!(set.metrics_listen, Some("127.0.0.1:1".parse().unwrap()));
        assert!(set.reflection);
        let usual = Settings::default().complete(None).unwrap();
        assert_eq!((usual.log_format, usual.metrics_listen), (LogFormat::Text, None));
        assert!(usual.reflection && !usual.production);
    }

    #[test]
    fn the_operators_page_lists_every_effect_and_no_other() {
        let page = include_str!("../../docs/OPERATING.md");
        let table = page.split("## Production mode").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let effects: Vec<String> =
            EFFECTS.iter().map(|it| format!("| `{}` | {} |", it.about, it.effect)).collect();
        assert_eq!(rows, effects);
    }
}

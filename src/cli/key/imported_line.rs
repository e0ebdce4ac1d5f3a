//! One line of a file of keys to import.
//!
//! A line may hold a secret, so nothing of its values is ever repeated in an error.

use sha2::{Digest as _, Sha256};

use super::super::flags;
use super::super::json_line::JsonLine;
use super::create::some;
use super::role;
use crate::proto;
use crate::proto::imported_key::Expiry;

/// What a line may hold beside its secret.
pub(super) const FIELDS: &[&str] = &[
    "name",
    "description",
    "scopes",
    "roles",
    "services",
    "environment",
    "expires_at",
    "lifetime",
    "metadata",
    "limits",
    "service_account",
    "user",
    "allowed_ips",
    "rate_limit",
];

/// What stands for the secret on a line.
#[derive(Clone, Copy)]
pub(super) enum Secret {
    /// `sha256`: its digest, in hexadecimal.
    Digest,
    /// `key`: the whole key, hashed here.
    Whole,
}

impl Secret {
    fn field(self) -> &'static str {
        match self {
            Self::Digest => "sha256",
            Self::Whole => "key",
        }
    }
}

/// The key that a line tells of, or what is wrong with the line.
pub(super) fn read(line: &str, secret: Secret) -> Result<proto::ImportedKey, String> {
    let mut line = JsonLine::parse(line)?;
    let text: String = line.must(secret.field(), "a text")?;
    let sha256 = match secret {
        Secret::Whole => whole(&zeroize::Zeroizing::new(text))?,
        Secret::Digest => digest(&text)?,
    };
    let expires_at: Option<String> = line.may("expires_at", "an instant")?;
    let lifetime: Option<String> = line.may("lifetime", "a duration")?;
    let expiry = match (expires_at, lifetime) {
        (None, None) => None,
        (Some(_), Some(_)) => return Err("has both `expires_at` and `lifetime`".to_owned()),
        (Some(at), None) => {
            Some(Expiry::ExpiresAt(flags::instant(&at).map_err(in_("expires_at"))?))
        }
        (None, Some(lifetime)) => {
            let lifetime = flags::duration(&lifetime).map_err(in_("lifetime"))?;
            Some(Expiry::Lifetime(flags::wire(lifetime)))
        }
    };
    let environment = line.environment()?.unwrap_or_default();
    let roles: Vec<String> = line.list("roles")?;
    let role_ids = roles.iter().map(|it| role::id_of(it)).collect::<Result<_, _>>();
    let rate_limit: Option<String> = line.may("rate_limit", "a text such as `100/60s`")?;
    let key = proto::ImportedKey {
        sha256,
        name: line.must("name", "a text")?,
        description: line.may("description", "a text")?.unwrap_or_default(),
        scopes: some(line.list("scopes")?).map(|permissions| proto::Scopes { permissions }),
        role_ids: role_ids.map_err(|_| {
            "`roles`: must be identifiers of roles (`rol_…`) or names of built-in ones".to_owned()
        })?,
        services: some(line.list("services")?).map(|services| proto::ServiceAccess { services }),
        environment: environment.into(),
        expiry,
        metadata: line.map("metadata", "texts by their names")?,
        limits: line.map("limits", "whole numbers by their names")?,
        service_account_id: line.may("service_account", "a text")?.unwrap_or_default(),
        user_id: line.may("user", "a text")?.unwrap_or_default(),
        allowed_ips: line.list("allowed_ips")?,
        rate_limit: rate_limit
            .map(|it| flags::rate_limit(&it))
            .transpose()
            .map_err(in_("rate_limit"))?,
    };
    line.is_read(&[&[secret.field()], FIELDS].concat())?;
    Ok(key)
}

fn in_(field: &'static str) -> impl Fn(String) -> String {
    move |problem| format!("`{field}`: {problem}")
}

fn whole(key: &str) -> Result<Vec<u8>, String> {
    // Hashed with white space around it, it would never be recognised.
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("`key`: must be visible ASCII characters".to_owned());
    }
    Ok(Sha256::digest(key.as_bytes()).to_vec())
}

fn digest(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| {
        let &[high, low] = pair else { return None };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    bytes.filter(|it| it.len() == 32).ok_or_else(|| {
        "`sha256`: must be 64 characters of hexadecimal; `--hash` takes whole keys".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn a_line_is_a_key() {
        let line = format!(
            r#"{{"sha256": "{HEX}", "name": "ci", "scopes": ["a:b"], "roles": ["dns-manager"],
                "environment": "test", "lifetime": "1h", "metadata": {{"a": "b"}},
                "limits": {{"n": -1}}, "allowed_ips": ["192.0.2.0/24"], "rate_limit": "5/1s"}}"#
        );
        let key = read(&line, Secret::Digest).unwrap();
        assert_eq!((key.name.as_str(), key.sha256[0], key.limits["n"]), ("ci", 0x2c, -1));
        assert_eq!(key.environment(), proto::Environment::Test);
        assert_eq!(key.role_ids, ["rol_00000000000000000000000006"]);
        // Hashed here, it is the same key.
        let whole = read(r#"{"key": "hello", "name": "ci"}"#, Secret::Whole).unwrap();
        assert_eq!(whole.sha256, key.sha256);
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        const HIDDEN: &str = "vtx_live_S3CRET";
        let good = format!(r#""sha256": "{HEX}", "name": "n""#);
        for (line, secret, says) in [
            (HIDDEN.to_owned(), Secret::Whole, "not one JSON object"),
            (format!("\"{HIDDEN}\""), Secret::Whole, "not one JSON object"),
            (format!(r#"{{"key": "{HIDDEN}"}}"#), Secret::Whole, "lacks `name`"),
            (format!(r#"{{"key": "{HIDDEN} ", "name": "n"}}"#), Secret::Whole, "`key`: must be"),
            (
                format!(r#"{{"key": ["{HIDDEN}"], "name": "n"}}"#),
                Secret::Whole,
                "`key`: must be a text",
            ),
            (format!(r#"{{"key": "{HIDDEN}", "name": "n"}}"#), Secret::Digest, "lacks `sha256`"),
            (
                format!(r#"{{"sha256": "{HIDDEN}", "name": "n"}}"#),
                Secret::Digest,
                "`sha256`: must be 64",
            ),
            (
                format!(r#"{{{good}, "{HIDDEN}": 1}}"#),
                Secret::Digest,
                "has a field that is unknown",
            ),
            (format!(r#"{{{good}, "key": "{HIDDEN}"}}"#), Secret::Digest, "field `key`"),
            (format!(r#"{{{good}, "scopes": []}}"#), Secret::Digest, "`scopes`: is empty"),
            (
                format!(r#"{{{good}, "scopes": "{HIDDEN}"}}"#),
                Secret::Digest,
                "`scopes`: must be a list",
            ),
            (format!(r#"{{{good}, "roles": ["{HIDDEN}"]}}"#), Secret::Digest, "`roles`: must be"),
            (format!(r#"{{{good}, "environment": "{HIDDEN}"}}"#), Secret::Digest, "`environment`"),
            (format!(r#"{{{good}, "lifetime": "{HIDDEN}"}}"#), Secret::Digest, "`lifetime`: must"),
            (
                format!(r#"{{{good}, "expires_at": "{HIDDEN}"}}"#),
                Secret::Digest,
                "`expires_at`: must",
            ),
            (format!(r#"{{{good}, "lifetime": "1h", "expires_at": "x"}}"#), Secret::Digest, "both"),
            (
                format!(r#"{{{good}, "rate_limit": "{HIDDEN}"}}"#),
                Secret::Digest,
                "`rate_limit`: must",
            ),
            (
                format!(r#"{{{good}, "limits": {{"n": "{HIDDEN}"}}}}"#),
                Secret::Digest,
                "`limits`: must",
            ),
        ] {
            let problem = read(&line, secret).unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
            assert!(!problem.contains("S3CRET"), "{problem}");
        }
    }
}

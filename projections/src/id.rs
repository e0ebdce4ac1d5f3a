//! Identifiers: ULIDs with a type prefix, so that one kind is never taken for another.
//!
//! Written `<prefix>_<26 characters of Crockford base32>`, upper case only: every
//! identifier has exactly one spelling. The organization of the installation
//! itself is written `operator`.

use std::fmt;
use std::str::FromStr;

use ulid::Ulid;

/// Text that is no identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `{prefix}` followed by 26 characters of upper-case Crockford base32")]
pub struct InvalidId {
    prefix: &'static str,
}

fn parse(text: &str, prefix: &'static str) -> Result<[u8; 16], InvalidId> {
    let invalid = InvalidId { prefix };
    let Some(body) = text.strip_prefix(prefix) else { return Err(invalid) };
    let Ok(ulid) = Ulid::from_string(body) else { return Err(invalid) };
    let mut canonical = [0; ulid::ULID_LEN];
    if ulid.array_to_str(&mut canonical) == body { Ok(ulid.to_bytes()) } else { Err(invalid) }
}

fn text(prefix: &str, value: [u8; 16]) -> String {
    let mut body = [0; ulid::ULID_LEN];
    [prefix, Ulid::from_bytes(value).array_to_str(&mut body)].concat()
}

fn push(prefix: &str, value: [u8; 16], to: &mut Vec<u8>) {
    let mut body = [0; ulid::ULID_LEN];
    to.extend_from_slice(prefix.as_bytes());
    to.extend_from_slice(Ulid::from_bytes(value).array_to_str(&mut body).as_bytes());
}

fn write(f: &mut fmt::Formatter<'_>, prefix: &str, value: [u8; 16]) -> fmt::Result {
    let mut body = [0; ulid::ULID_LEN];
    f.write_str(prefix)?;
    f.write_str(Ulid::from_bytes(value).array_to_str(&mut body))
}

/// Serde through `Display` and `FromStr`, borrowing the text where the format allows.
macro_rules! text_serde {
    ($name:ident, $expecting:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use text_serde;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The text in front of every identifier of this kind.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an identifier of a time in milliseconds since 1970 and 80 random bits.
            #[must_use]
            pub fn from_parts(at_ms: u64, random: u128) -> Self {
                Self(Ulid::from_parts(at_ms, random).to_bytes())
            }

            /// The text, as `Display` writes it, made faster.
            #[must_use]
            pub fn text(self) -> String {
                text($prefix, self.0)
            }

            /// Appends the text to bytes.
            pub fn push_to(self, bytes: &mut Vec<u8>) {
                push($prefix, self.0, bytes);
            }

            /// The 16 bytes, most significant first: they sort as the text does.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// The identifier of these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, $prefix, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text, $prefix).map(Self)
            }
        }

        text_serde!($name, concat!("an identifier beginning `", $prefix, "`"));
    };
}

id!(
    /// An event, unique in the installation.
    EventId, "evt_"
);
id!(
    /// An API key. It sorts by the time of its making.
    KeyId, "key_"
);
id!(
    /// A role, built in or an organization's own.
    RoleId, "rol_"
);
id!(
    /// The grant of a role to a principal.
    GrantId, "grt_"
);
id!(
    /// A service account: a program that acts for an organization.
    ServiceAccountId, "sva_"
);
id!(
    /// A person who can log in, known to the installation by one e-mail.
    AccountId, "acc_"
);
id!(
    /// A user: a person's membership in one organization.
    UserId, "usr_"
);
id!(
    /// A session: what somebody who logged in may do until it ends.
    SessionId, "ses_"
);
id!(
    /// A break-glass grant: one bounded emergency access to one organization.
    BreakGlassGrantId, "bgg_"
);
id!(
    /// One installation of keyledger: what a data directory belongs to.
    InstallationId, "ins_"
);

/// An organization: a tenant, or the installation's own (`operator`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId([u8; 16]);

impl OrganizationId {
    /// The text in front of every tenant's identifier.
    pub const PREFIX: &'static str = "org_";
    /// The installation's own organization.
    pub const OPERATOR: Self = Self([0; 16]);

    /// Makes an identifier of a time in milliseconds since 1970 and 80 random bits.
    #[must_use]
    pub fn from_parts(at_ms: u64, random: u128) -> Self {
        Self(Ulid::from_parts(at_ms, random).to_bytes())
    }

    /// Whether this is the installation's own organization.
    #[must_use]
    pub fn is_operator(self) -> bool {
        self == Self::OPERATOR
    }

    /// The text, as `Display` writes it, made faster.
    #[must_use]
    pub fn text(self) -> String {
        if self.is_operator() { "operator".to_owned() } else { text(Self::PREFIX, self.0) }
    }

    /// Appends the text to bytes.
    pub fn push_to(self, bytes: &mut Vec<u8>) {
        if self.is_operator() {
            bytes.extend_from_slice(b"operator");
        } else {
            push(Self::PREFIX, self.0, bytes);
        }
    }

    /// The 16 bytes, most significant first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The identifier of these 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_operator() { f.write_str("operator") } else { write(f, Self::PREFIX, self.0) }
    }
}

impl fmt::Debug for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrganizationId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text == "operator" {
            return Ok(Self::OPERATOR);
        }
        match parse(text, Self::PREFIX)? {
            // The operator's has one spelling too, and this is not it.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => {
                Err(InvalidId { prefix: Self::PREFIX })
            }
            value => Ok(Self(value)),
        }
    }
}

text_serde!(OrganizationId, "`operator` or an identifier beginning `org_`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_has_exactly_one_spelling() {
        let id = KeyId::from_parts(1_700_000_000_000, 7);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(id.text(), text);
        assert_eq!(KeyId::from_bytes(id.to_bytes()), id);
        for other in [
            text.to_lowercase(),
            text.replace("key_", "rol_"),
            text.replacen('0', "O", 1),
            format!("{text}0"),
            text.get(..29).unwrap().to_owned(),
            "key_".to_owned(),
            "key_80000000000000000000000000".to_owned(),
            format!(" {text}"),
        ] {
            assert!(other.parse::<KeyId>().is_err(), "{other}");
        }
    }

    #[test]
    fn the_operator_is_written_by_name_only() {
        assert_eq!("operator".parse(), Ok(OrganizationId::OPERATOR));
        assert_eq!(OrganizationId::OPERATOR.to_string(), "operator");
        assert_eq!(OrganizationId::OPERATOR.text(), "operator");
        assert!("org_00000000000000000000000000".parse::<OrganizationId>().is_err());
        assert!("Operator".parse::<OrganizationId>().is_err());
    }
}

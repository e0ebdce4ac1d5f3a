//! How somebody showed who they are.

use std::fmt;

use projections::event::AuthenticationMethod;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALL: [AuthenticationMethod; 3] = [
    AuthenticationMethod::Password,
    AuthenticationMethod::Totp,
    AuthenticationMethod::RecoveryCode,
];

/// What `amr` calls a way (RFC 8176 has the first two).
fn name(method: AuthenticationMethod) -> &'static str {
    match method {
        AuthenticationMethod::Password => "pwd",
        AuthenticationMethod::Totp => "otp",
        AuthenticationMethod::RecoveryCode => "recovery",
    }
}

fn bit(method: AuthenticationMethod) -> u8 {
    match method {
        AuthenticationMethod::Password => 1,
        AuthenticationMethod::Totp => 2,
        AuthenticationMethod::RecoveryCode => 4,
    }
}

/// A set of ways.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Methods(u8);

impl Methods {
    /// These ways.
    #[must_use]
    pub fn of(methods: &[AuthenticationMethod]) -> Self {
        Self(methods.iter().fold(0, |bits, method| bits | bit(*method)))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(self, method: AuthenticationMethod) -> bool {
        self.0 & bit(method) != 0
    }

    /// Whether a second factor is among them, beside a first.
    #[must_use]
    pub fn are_several(self) -> bool {
        self.has(AuthenticationMethod::Password) && self.iter().any(|it| it.is_second_factor())
    }

    /// Each of them, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = AuthenticationMethod> {
        ALL.into_iter().filter(move |method| self.has(*method))
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Methods {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(name))
    }
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Methods;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of ways to sign in, each once")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Methods, A::Error> {
                let mut methods = Methods::default();
                while let Some(text) = names.next_element::<&str>()? {
                    let method = ALL.into_iter().find(|method| name(*method) == text);
                    let new = method.filter(|method| !methods.has(*method));
                    let new =
                        new.ok_or_else(|| de::Error::custom("an unknown or repeated name"))?;
                    methods.0 |= bit(new);
                }
                Ok(methods)
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        for bits in 0..8 {
            let methods = Methods(bits);
            let text = serde_json::to_string(&methods).unwrap();
            assert_eq!(serde_json::from_str::<Methods>(&text).unwrap(), methods);
        }
        let all = Methods::of(&ALL);
        assert_eq!(serde_json::to_string(&all).unwrap(), r#"["pwd","otp","recovery"]"#);
        for bad in [r#"["pwd","pwd"]"#, r#"["sms"]"#, r#""pwd""#, "[1]", "null", "{}"] {
            assert!(serde_json::from_str::<Methods>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_factors_are_a_password_and_another() {
        use AuthenticationMethod::{Password, RecoveryCode, Totp};
        for (methods, several) in [
            (&[][..], false),
            (&[Password], false),
            (&[Totp, RecoveryCode], false),
            (&[Password, Totp], true),
            (&[Password, RecoveryCode], true),
        ] {
            assert_eq!(Methods::of(methods).are_several(), several, "{methods:?}");
        }
    }
}

//! Passwords as texts: what may be one, and its one form.
//!
//! The rules are NIST SP 800-63B's: a password is long enough, is none that is tried first
//! ([`super::guessing`]), and nothing is asked of its composition.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// Fewest characters of a password, normalized.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Most characters of a password, normalized.
pub const PASSWORD_CHARS_MAX: usize = 256;
/// Most bytes of a text that is looked at: each character as long as there is one.
const TEXT_BYTES_MAX: usize = PASSWORD_CHARS_MAX * 4;
/// By how much normalizing makes a text longer at most, in bytes (Unicode, UAX 15).
const NORMALIZED_GROWTH_MAX: usize = 3;

/// Why a text cannot become a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// It is too short.
    #[error("password: must be at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// It is too long.
    #[error("password: must be at most {PASSWORD_CHARS_MAX} characters")]
    TooLong,
    /// It is the e-mail of the account, or the part before the `@`.
    #[error("password: must not be the account's e-mail")]
    Email,
    /// Little is left of it without what everybody knows of the person.
    #[error(
        "password: must have {PASSWORD_CHARS_MIN} characters beside the e-mail, the organization's name and `keyledger`; choose something that has nothing to do with them"
    )]
    Known,
    /// It is on the operator's list.
    #[error("password: is on this installation's list of refused passwords; choose another")]
    Refused,
    /// It is common, or follows a pattern.
    #[error(
        "password: is among those that are tried first; choose several unrelated words, or have a password manager make one"
    )]
    Guessable,
}

/// A password as somebody gave it, in normal form C, so that it does not matter how their
/// keyboard composes letters. It cannot be printed, and is overwritten when dropped.
pub struct Password(Zeroizing<String>);

impl Password {
    /// A password to be compared; none if it is too long to be anybody's.
    #[must_use]
    pub fn presented(text: &str) -> Option<Self> {
        let normalized = normalized(text)?;
        (normalized.chars().nth(PASSWORD_CHARS_MAX).is_none()).then_some(Self(normalized))
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The bytes, for hashing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A password that obeys the rules, to be set.
pub struct NewPassword(Password);

impl NewPassword {
    /// Holds a text to the rules. The account's e-mail is compared without regard to case.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn chosen(text: &str, email: Option<&str>) -> Result<Self, WeakPassword> {
        let password = Password::presented(text).ok_or(WeakPassword::TooLong)?;
        if password.0.chars().nth(PASSWORD_CHARS_MIN - 1).is_none() {
            return Err(WeakPassword::TooShort);
        }
        let same = |part: &str| part.to_lowercase() == *Zeroizing::new(password.0.to_lowercase());
        let parts = email.map(|email| (email, email.rsplit_once('@').map_or("", |(name, _)| name)));
        if parts.is_some_and(|(email, name)| same(email) || same(name)) {
            return Err(WeakPassword::Email);
        }
        Ok(Self(password))
    }

    /// The password, to be held to further rules.
    #[must_use]
    pub fn as_password(&self) -> &Password {
        &self.0
    }

    /// The password.
    #[must_use]
    pub fn into_password(self) -> Password {
        self.0
    }
}

/// The text in normal form C; none if it is too long.
fn normalized(text: &str) -> Option<Zeroizing<String>> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    // Room from the start: a text that grows leaves copies behind.
    let mut normalized = Zeroizing::new(String::with_capacity(text.len() * NORMALIZED_GROWTH_MAX));
    normalized.extend(text.nfc());
    Some(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str) -> Result<Vec<u8>, WeakPassword> {
        NewPassword::chosen(text, Some("Ada.Lovelace@Example.com"))
            .map(|password| password.into_password().expose().to_vec())
    }

    #[test]
    fn length_is_all_that_is_asked() {
        assert_eq!(chosen("aaaaaaaaaaa"), Err(WeakPassword::TooShort));
        assert_eq!(chosen("aaaaaaaaaaaa"), Ok(b"aaaaaaaaaaaa".to_vec()));
        assert_eq!(chosen("   pass  \t word "), Ok(b"   pass  \t word ".to_vec()));
        assert!(chosen(&"x".repeat(PASSWORD_CHARS_MAX)).is_ok());
        for letter in ["x", "\u{10400}"] {
            assert!(chosen(&letter.repeat(PASSWORD_CHARS_MAX)).is_ok());
            let longer = chosen(&letter.repeat(PASSWORD_CHARS_MAX + 1));
            assert_eq!(longer, Err(WeakPassword::TooLong));
        }
        assert!(Password::presented(&"x".repeat(PASSWORD_CHARS_MAX + 1)).is_none());
        assert!(Password::presented("").is_some());
    }

    #[test]
    fn the_account_s_e_mail_is_no_password() {
        for text in ["ada.lovelace@example.com", "ADA.LOVELACE@EXAMPLE.COM", "Ada.Lovelace"] {
            assert_eq!(chosen(text), Err(WeakPassword::Email), "{text}");
        }
        assert!(chosen("ada.lovelace@example.org").is_ok());
        assert!(NewPassword::chosen("ada.lovelace", None).is_ok());
    }

    /// The same letters, composed by one keyboard and not by another, are one password; and
    /// it is the composed letters that are counted.
    #[test]
    fn letters_are_the_same_however_they_are_composed() {
        let composed = "\u{e9}\u{e8}\u{ea}\u{e0}\u{e7}\u{fc}\u{f6}\u{e4}\u{df}\u{f1}\u{e9}\u{e9}";
        let apart = composed.nfd().collect::<String>();
        assert_ne!(composed, apart);
        assert_eq!(chosen(composed), Ok(composed.as_bytes().to_vec()));
        assert_eq!(chosen(&apart), chosen(composed));
        let eleven: String = apart.chars().take(20).collect();
        assert_eq!(chosen(&eleven), Err(WeakPassword::TooShort));
    }

    #[test]
    fn there_is_room_for_what_grows_most() {
        for text in ["\u{1d160}", "\u{958}", "\u{fb2c}", "\u{390}"] {
            let text = text.repeat(20);
            let normalized = normalized(&text).unwrap();
            assert!(normalized.len() <= text.len() * NORMALIZED_GROWTH_MAX);
            assert_eq!(normalized.capacity(), text.len() * NORMALIZED_GROWTH_MAX);
        }
    }
}

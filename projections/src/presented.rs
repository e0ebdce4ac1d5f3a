//! What a request presents as credentials, and which of it decides.
//!
//! Kinds are tried in a fixed order and the first kind present decides, whatever it
//! comes to: a recognised credential that fails is never a reason to try a weaker one.

use crate::api_key::CREDENTIAL_CHARS_MAX;
use crate::verification::Code;

/// The credentials of one request, gathered header by header. It has no `Debug`: it
/// holds secrets.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    session: Slot<'a>,
    api_key: Slot<'a>,
    unusable: bool,
}

/// What was presented of one kind.
#[derive(Clone, Copy, Default)]
enum Slot<'a> {
    #[default]
    Empty,
    One(&'a str),
    Different,
}

/// The credential that decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Deciding<'a> {
    /// A session's access token.
    Session(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

impl<'a> Slot<'a> {
    /// The same value twice is one; two different ones are ambiguous.
    fn put(&mut self, text: &'a str) {
        *self = match *self {
            Self::Empty => Self::One(text),
            Self::One(first) if first == text => Self::One(first),
            Self::One(_) | Self::Different => Self::Different,
        };
    }

    fn take(self) -> Option<Result<&'a str, Code>> {
        match self {
            Self::Empty => None,
            Self::One(text) if text.is_empty() || text.len() > CREDENTIAL_CHARS_MAX => {
                Some(Err(Code::Malformed))
            }
            Self::One(text) => Some(Ok(text)),
            Self::Different => Some(Err(Code::Ambiguous)),
        }
    }
}

impl<'a> Presented<'a> {
    /// A value of the `Authorization` header. Schemes other than `Bearer` are not ours:
    /// they count only where nothing else is presented.
    pub fn authorization(&mut self, value: &'a str) {
        match value.trim().split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                self.bearer(token.trim())
            }
            _ => self.unusable = true,
        }
    }

    /// A credential as it stands behind `Bearer`: three parts between dots are a
    /// session, all else is an API key.
    pub fn bearer(&mut self, token: &'a str) {
        if token.bytes().filter(|byte| *byte == b'.').count() == 2 {
            self.session.put(token);
        } else {
            self.api_key.put(token);
        }
    }

    /// A value of the `X-API-Key` or the `X-Admin-API-Key` header.
    pub fn api_key(&mut self, value: &'a str) {
        self.api_key.put(value.trim());
    }

    /// The credential that decides, or why none can.
    pub fn deciding(self) -> Result<Deciding<'a>, Code> {
        if let Some(session) = self.session.take() {
            return session.map(Deciding::Session);
        }
        if let Some(api_key) = self.api_key.take() {
            return api_key.map(Deciding::ApiKey);
        }
        Err(if self.unusable { Code::Malformed } else { Code::NoCredential })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Header {
        Authorization(&'static str),
        ApiKey(&'static str),
    }
    use Header::{ApiKey, Authorization};

    #[track_caller]
    fn check(headers: &[Header], expected: Result<Deciding<'_>, Code>) {
        let mut presented = Presented::default();
        for header in headers {
            match header {
                Authorization(value) => presented.authorization(value),
                ApiKey(value) => presented.api_key(value),
            }
        }
        let same = match (presented.deciding(), expected) {
            (Ok(got), Ok(wanted)) => got == wanted,
            (Err(got), Err(wanted)) => got == wanted,
            _ => false,
        };
        assert!(same);
    }

    #[test]
    fn the_first_kind_present_decides() {
        check(&[], Err(Code::NoCredential));
        check(&[ApiKey("k")], Ok(Deciding::ApiKey("k")));
        check(&[Authorization("Bearer k")], Ok(Deciding::ApiKey("k")));
        check(&[Authorization("bearer  k ")], Ok(Deciding::ApiKey("k")));
        check(&[ApiKey("k"), Authorization("Bearer a.b.c")], Ok(Deciding::Session("a.b.c")));
        check(&[ApiKey("k"), Authorization("Basic xyz")], Ok(Deciding::ApiKey("k")));
    }

    #[test]
    fn two_of_a_kind_are_one_only_if_they_are_the_same() {
        check(&[ApiKey("k"), Authorization("Bearer k")], Ok(Deciding::ApiKey("k")));
        check(&[ApiKey("k"), Authorization("Bearer j")], Err(Code::Ambiguous));
        check(&[ApiKey("k"), ApiKey("j"), ApiKey("k")], Err(Code::Ambiguous));
        check(
            &[Authorization("Bearer a.b.c"), Authorization("Bearer a.b.d"), ApiKey("k")],
            Err(Code::Ambiguous),
        );
    }

    #[test]
    fn what_is_no_credential_is_malformed() {
        check(&[Authorization("Basic xyz")], Err(Code::Malformed));
        check(&[Authorization("Bearer")], Err(Code::Malformed));
        check(&[ApiKey("")], Err(Code::Malformed));
        check(
            &[ApiKey(Box::leak("x".repeat(CREDENTIAL_CHARS_MAX + 1).into_boxed_str()))],
            Err(Code::Malformed),
        );
        let longest: &'static str = Box::leak("x".repeat(CREDENTIAL_CHARS_MAX).into_boxed_str());
        check(&[ApiKey(longest)], Ok(Deciding::ApiKey(longest)));
    }
}

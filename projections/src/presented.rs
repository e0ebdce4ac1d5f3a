//! What a request presents as credentials, and which of it decides.
//!
//! Kinds are tried in a fixed order and the first kind present decides, whatever it
//! comes to: a recognised credential that fails is never a reason to try a weaker one.

use crate::api_key::CREDENTIAL_CHARS_MAX;
use crate::verification::Code;

/// What the token of a break-glass grant begins with. No organization's keys do.
pub const GRANT_TOKEN_HEAD: &str = "klbg_";

/// The credentials of one request, gathered header by header. It has no `Debug`: it
/// holds secrets.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    break_glass: Slot<'a>,
    session: Slot<'a>,
    api_key: Slot<'a>,
    global_key: Slot<'a>,
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
    /// A master key, or the token of a break-glass grant.
    BreakGlass(&'a str),
    /// A session's access token.
    Session(&'a str),
    /// An API key.
    ApiKey(&'a str),
    /// The global key.
    GlobalKey(&'a str),
}

/// Whether a text has a credential's length.
fn is_presentable(text: &str) -> bool {
    !text.is_empty() && text.len() <= CREDENTIAL_CHARS_MAX
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
            Self::One(text) if !is_presentable(text) => Some(Err(Code::Malformed)),
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

    /// A credential as it stands behind `Bearer`: what begins as a grant's token does is one,
    /// three parts between dots are a session, all else is an API key.
    pub fn bearer(&mut self, token: &'a str) {
        if token.starts_with(GRANT_TOKEN_HEAD) {
            self.break_glass.put(token);
        } else if token.bytes().filter(|byte| *byte == b'.').count() == 2 {
            self.session.put(token);
        } else {
            self.api_key.put(token);
        }
    }

    /// A value of the `X-Master-Key` header.
    pub fn master_key(&mut self, value: &'a str) {
        self.break_glass.put(value.trim());
    }

    /// A value of the `X-API-Key` header, and what tells whether a text is the global key. It
    /// is not asked about what can be no credential.
    pub fn api_key(&mut self, value: &'a str, is_global: impl FnOnce(&str) -> bool) {
        let text = value.trim();
        if is_presentable(text) && is_global(text) {
            self.global_key.put(text);
        } else {
            self.api_key.put(text);
        }
    }

    /// A value of the `X-Admin-API-Key` header: an API key, whatever it holds.
    pub fn admin_api_key(&mut self, value: &'a str) {
        self.api_key.put(value.trim());
    }

    /// The credential that decides, or why none can.
    pub fn deciding(self) -> Result<Deciding<'a>, Code> {
        if let Some(break_glass) = self.break_glass.take() {
            return break_glass.map(Deciding::BreakGlass);
        }
        if let Some(session) = self.session.take() {
            return session.map(Deciding::Session);
        }
        if let Some(api_key) = self.api_key.take() {
            return api_key.map(Deciding::ApiKey);
        }
        if let Some(global_key) = self.global_key.take() {
            return global_key.map(Deciding::GlobalKey);
        }
        Err(if self.unusable { Code::Malformed } else { Code::NoCredential })
    }
}

#[cfg(test)]
mod tests;

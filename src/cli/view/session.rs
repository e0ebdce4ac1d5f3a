//! Sessions, and what people have for them.

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{Principal, RoleReference, StreamRevision, instant, short};
use crate::proto;

/// See `Session` in `session.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Session {
    id: String,
    organization_id: String,
    user_id: String,
    account_id: String,
    methods: Vec<String>,
    started_at: Option<String>,
    expires_at: Option<String>,
    second_factor_at: Option<String>,
    current: bool,
    state: String,
}

impl From<proto::Session> for Session {
    fn from(message: proto::Session) -> Self {
        let method = |it: &i32| {
            short(*it, "AUTHENTICATION_METHOD_", proto::AuthenticationMethod::as_str_name)
        };
        Self {
            id: message.id,
            organization_id: message.organization_id,
            user_id: message.user_id,
            account_id: message.account_id,
            methods: message.methods.iter().map(method).collect(),
            started_at: instant(message.started_at),
            expires_at: instant(message.expires_at),
            second_factor_at: instant(message.second_factor_at),
            current: message.current,
            state: short(message.state, "SESSION_STATE_", proto::SessionState::as_str_name),
        }
    }
}

impl Session {
    fn describe(&self, fields: &mut Fields) {
        fields
            .add("session", &self.id)
            .add("organization", &self.organization_id)
            .add("user", &self.user_id)
            .add("account", &self.account_id)
            .add("logged in by", &self.methods.join(", "))
            .add_some("started", self.started_at.as_ref())
            .add_some("ends", self.expires_at.as_ref())
            .add_some("second factor", self.second_factor_at.as_ref());
    }
}

/// See `Tokens` in `session.proto`.
#[derive(Serialize)]
struct Tokens {
    access_token: String,
    access_token_expires_at: Option<String>,
    refresh_token: String,
    csrf_token: String,
}

/// A session, and its tokens where they are shown.
#[derive(Serialize)]
pub(in crate::cli) struct LoggedIn {
    session: Option<Session>,
    tokens: Option<Tokens>,
    revision: Option<StreamRevision>,
}

impl LoggedIn {
    /// What an answer said, with the tokens that are to be shown.
    pub(in crate::cli) fn new(
        session: Option<proto::Session>,
        tokens: Option<proto::Tokens>,
        revision: Option<proto::StreamRevision>,
    ) -> Self {
        Self {
            session: session.map(Into::into),
            tokens: tokens.map(|it| Tokens {
                access_token: it.access_token,
                access_token_expires_at: instant(it.access_token_expires_at),
                refresh_token: it.refresh_token,
                csrf_token: it.csrf_token,
            }),
            revision: revision.map(Into::into),
        }
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(session) = &self.session {
            session.describe(&mut fields);
        }
        if let Some(tokens) = &self.tokens {
            fields
                .add("access token", &tokens.access_token)
                .add_some("good until", tokens.access_token_expires_at.as_ref())
                .add("refresh token", &tokens.refresh_token);
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `WhoAmIResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Who {
    principal: Option<Principal>,
    organization_id: String,
    session: Option<Session>,
    permissions: Vec<String>,
    roles: Vec<RoleReference>,
    email: String,
    totp: bool,
    recovery_codes_left: u32,
}

impl From<proto::WhoAmIResponse> for Who {
    fn from(message: proto::WhoAmIResponse) -> Self {
        Self {
            principal: message.principal.map(Into::into),
            organization_id: message.organization_id,
            session: message.session.map(Into::into),
            permissions: message.permissions,
            roles: message.roles.into_iter().map(Into::into).collect(),
            email: message.email,
            totp: message.totp,
            recovery_codes_left: message.recovery_codes_left,
        }
    }
}

impl Who {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        let principal = self.principal.as_ref().map(Principal::to_text);
        fields.add_some("you are", principal.as_ref()).add("e-mail", &self.email);
        match &self.session {
            Some(session) => {
                session.describe(&mut fields);
                let codes = match self.recovery_codes_left {
                    1 => "yes, and 1 recovery code".to_owned(),
                    left => format!("yes, and {left} recovery codes"),
                };
                fields.add("authenticator", if self.totp { &codes } else { "no" });
            }
            None => {
                fields.add("organization", &self.organization_id);
            }
        }
        fields
            .add_all("roles", self.roles.iter().map(RoleReference::to_text))
            .add_all("may", self.permissions.iter().cloned());
        fields.to_text()
    }
}

/// See `ListSessionsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    sessions: Vec<Session>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl From<proto::ListSessionsResponse> for Listed {
    fn from(message: proto::ListSessionsResponse) -> Self {
        Self {
            sessions: message.sessions.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "STATE", "LOGGED IN BY", "STARTED", "ENDS", ""],
            self.sessions.iter().map(|it| {
                [
                    it.id.clone(),
                    it.state.clone(),
                    it.methods.join(", "),
                    it.started_at.clone().unwrap_or_default(),
                    it.expires_at.clone().unwrap_or_default(),
                    if it.current { "this one".to_owned() } else { String::new() },
                ]
            }),
        )
    }
}

impl Page for Listed {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.sessions.len()
    }

    fn join(&mut self, later: Self) {
        self.sessions.extend(later.sessions);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}

/// Where something was recorded.
#[derive(Serialize)]
pub(in crate::cli) struct Recorded {
    revision: Option<StreamRevision>,
}

impl From<Option<proto::StreamRevision>> for Recorded {
    fn from(revision: Option<proto::StreamRevision>) -> Self {
        Self { revision: revision.map(Into::into) }
    }
}

impl Recorded {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let Some(revision) = &self.revision else { return String::new() };
        let mut fields = Fields::default();
        fields.add("revision", &revision.to_text());
        fields.to_text()
    }
}

/// See `EnrollTotpResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Enrolled {
    secret: String,
    uri: String,
}

impl From<proto::EnrollTotpResponse> for Enrolled {
    fn from(message: proto::EnrollTotpResponse) -> Self {
        Self { secret: message.secret, uri: message.uri }
    }
}

impl Enrolled {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("secret", &self.secret).add("uri", &self.uri);
        fields.to_text()
    }
}

/// Recovery codes.
#[derive(Serialize)]
pub(in crate::cli) struct Codes {
    pub(in crate::cli) recovery_codes: Vec<String>,
}

impl Codes {
    /// For people, and for scripts: one to a line.
    pub(in crate::cli) fn to_text(&self) -> String {
        self.recovery_codes
            .iter()
            .map(|code| format!("{}\n", super::super::output::safe(code)))
            .collect()
    }
}

/// See `RequestPasswordResetResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct ResetAsked {
    token: String,
    expires_at: Option<String>,
}

impl From<proto::RequestPasswordResetResponse> for ResetAsked {
    fn from(message: proto::RequestPasswordResetResponse) -> Self {
        Self { token: message.token, expires_at: instant(message.expires_at) }
    }
}

impl ResetAsked {
    /// Whether the token is shown.
    pub(in crate::cli) fn has_token(&self) -> bool {
        !self.token.is_empty()
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        if !self.has_token() {
            return String::new();
        }
        let mut fields = Fields::default();
        fields.add("token", &self.token).add_some("good until", self.expires_at.as_ref());
        fields.to_text()
    }
}

/// See `GetSigningKeysResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct SigningKeys {
    pub(in crate::cli) jwks: String,
}

impl From<proto::GetSigningKeysResponse> for SigningKeys {
    fn from(message: proto::GetSigningKeysResponse) -> Self {
        Self { jwks: message.jwks }
    }
}

/// It was done, and that is all there is to say.
#[derive(Serialize)]
pub(in crate::cli) struct Done {}

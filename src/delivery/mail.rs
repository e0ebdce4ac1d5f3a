//! One-time tokens by mail: what such a mail says, and the relay that takes it.
//!
//! The relay is spoken to over TLS, or is this very machine. What it answers is not told to the
//! log: it repeats addresses. INVARIANT: nothing of a message but its encoded subject and its
//! recipient gets into a header.

use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::{Message, TokenKind};
use crate::ledger::secret::Secret;

/// How the way to the relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTls {
    /// By TLS from the first byte.
    Implicit,
    /// By STARTTLS, without which nothing is sent.
    StartTls,
    /// Not at all: for this very machine.
    None,
}

/// A relay, and how it is used. It cannot be printed.
pub struct RelaySettings {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way there is protected.
    pub tls: RelayTls,
    /// Whom mails are from.
    pub from: Mailbox,
    /// The name and the password that it is shown.
    pub login: Option<(String, Secret)>,
    /// The certificates, in PEM, one of which must have signed the relay's; none for those of
    /// the system.
    pub ca: Option<Vec<u8>>,
    /// How long one mail may take.
    pub within: Duration,
    /// What links begin with; the token follows.
    pub links: Links,
}

/// What the links of mails begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Of invitations.
    pub invitation: Option<String>,
    /// Of resets of passwords.
    pub reset: Option<String>,
}

/// Why a relay cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The certificates are none, or none can be had.
    #[error("the certificates that sign the relay's cannot be used")]
    Certificates(#[source] lettre::transport::smtp::Error),
    /// The file of certificates holds none, or what is none.
    #[error("must hold certificates in PEM, and whole ones")]
    NoCertificate,
}

/// Why a mail was not delivered. It tells nothing of the mail, nor of what the relay said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The recipient or the text cannot be written into a mail.
    #[error("no mail can be written of it")]
    Unwritable,
    /// It was not taken in time.
    #[error("the relay took too long")]
    TooLong,
    /// TLS was not to be had, or not with whom it should be.
    #[error(
        "the relay cannot be spoken to over TLS: it offers none, or its certificate is not right"
    )]
    Tls,
    /// The relay refused it.
    #[error("the relay refused it with status {0}")]
    Refused(u16),
    /// The relay was not reached, or went away.
    #[error("the relay could not be reached, or what it said was no SMTP")]
    Unreachable,
}

/// A relay that takes mails.
pub struct Relay {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    links: Links,
    within: Duration,
}

impl Relay {
    /// As these settings say. Nothing is connected to yet.
    ///
    /// # Errors
    ///
    /// The certificates cannot be used.
    pub fn new(settings: RelaySettings) -> Result<Self, RelayError> {
        let RelaySettings { host, port, tls, from, login, ca, within, links } = settings;
        if let Some(ca) = &ca {
            let whole: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca).collect();
            if whole.map_or(true, |it| it.is_empty()) {
                return Err(RelayError::NoCertificate);
            }
        }
        let parameters = || {
            let mut parameters = TlsParameters::builder(host.clone());
            if let Some(ca) = &ca {
                let signed = Certificate::from_pem(ca)?;
                parameters = parameters
                    .certificate_store(CertificateStore::None)
                    .add_root_certificate(signed);
            }
            parameters.build_rustls()
        };
        let tls = match tls {
            RelayTls::Implicit => Tls::Wrapper(parameters().map_err(RelayError::Certificates)?),
            RelayTls::StartTls => Tls::Required(parameters().map_err(RelayError::Certificates)?),
            RelayTls::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .tls(tls)
            .timeout(Some(within));
        if let Some((user, password)) = login {
            transport = transport.credentials(Credentials::new(user, password.expose().to_owned()));
        }
        Ok(Self { transport: transport.build(), from, links, within })
    }

    /// Hands a message over to the relay, in bounded time.
    pub(super) async fn send(&self, message: &Message) -> Result<(), MailError> {
        let mail = self.mail(message)?;
        let sent = tokio::time::timeout(self.within, self.transport.send(mail)).await;
        sent.map_err(|_| MailError::TooLong)?.map(drop).map_err(|error| told(&error))
    }

    fn mail(&self, message: &Message) -> Result<lettre::Message, MailError> {
        let unwritable = || MailError::Unwritable;
        let to: Address = message.to.expose().parse().map_err(|_| unwritable())?;
        let domain = self.from.email.domain();
        let id = format!("<{:032x}@{domain}>", fastrand::u128(..));
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject(message))
            .message_id(Some(id))
            .singlepart(
                SinglePart::builder()
                    .header(ContentType::TEXT_PLAIN)
                    .body(self.text(message).as_str().to_owned()),
            );
        let mut mail = mail.map_err(|_| unwritable())?;
        // No out-of-office notice comes back (RFC 3834).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(mail)
    }

    fn text(&self, message: &Message) -> Zeroizing<String> {
        let (what, link, ignore) = match message.kind {
            TokenKind::Invitation => (
                format!("You are invited to join {}.", organization(message)),
                &self.links.invitation,
                "If you expect no invitation, leave this mail alone.",
            ),
            TokenKind::PasswordReset => (
                "Somebody asked to set another password for your account.".to_owned(),
                &self.links.reset,
                "If that was not you, leave this mail alone: your password stays as it is.",
            ),
        };
        let how = match link {
            Some(_) => "To go on, open",
            None => "To go on, use this token",
        };
        let link = link.as_deref().unwrap_or_default();
        let (token, end) = (message.token.expose(), message.expires_at);
        // Room from the start: a text that grows leaves copies behind.
        let mut text =
            Zeroizing::new(String::with_capacity(1_024 + what.len() + link.len() + token.len()));
        let lines = [&what, "\r\n\r\n", how, ":\r\n\r\n    ", link, token, "\r\n\r\n"];
        lines.iter().for_each(|part| text.push_str(part));
        text.push_str(&format!(
            "It is good once, until {end}. Whoever has it can act in your place: pass it on to nobody.\r\n{ignore}\r\n"
        ));
        text
    }
}

fn organization(message: &Message) -> &str {
    message.organization.as_ref().map_or("an organization", |name| name.as_str())
}

fn subject(message: &Message) -> String {
    match message.kind {
        TokenKind::Invitation => format!("Invitation to {}", organization(message)),
        TokenKind::PasswordReset => "Set another password".to_owned(),
    }
}

/// What may be told of an error: a relay's words repeat addresses, and its answers may be
/// anybody's.
fn told(error: &lettre::transport::smtp::Error) -> MailError {
    if let Some(status) = error.status() {
        MailError::Refused(u16::from(status))
    } else if error.is_timeout() {
        MailError::TooLong
    } else if error.is_tls() {
        MailError::Tls
    } else {
        MailError::Unreachable
    }
}

#[cfg(test)]
mod tests;

//! The server that a verb asks: its URL, and the connection to it.

use std::error::Error;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::super::failure::Failure;

/// How long a server may take to show what it speaks.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// What an alert of TLS begins with.
const TLS_ALERT: u8 = 21;

/// Where a server is.
pub(super) struct Server {
    text: String,
    uri: Uri,
}

impl Server {
    /// Reads a URL; `http://` may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::fault(format!("`--server`: `{text}` is not the URL of a server"))
                .hint("it looks like `https://keyledger.example.com:50051`")
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| wrong())?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(wrong()),
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if authority.host().is_empty() || authority.as_str().contains('@') || !bare {
            return Err(wrong());
        }
        Ok(Self { text: whole, uri })
    }

    /// Whether TLS is spoken to it.
    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// Credentials cross no network in clear, unless somebody accepts that.
    pub(super) fn refuse_plaintext_unless(&self, accepted: bool) -> Result<(), Failure> {
        if accepted || self.is_tls() || self.is_local() {
            return Ok(());
        }
        Err(Failure::fault(format!(
            "`{}` is another machine, and without TLS credentials would cross the network in clear",
            self.text
        ))
        .hint("name an `https://` address, or accept that with `--allow-plaintext`"))
    }

    /// Connects.
    pub(super) async fn connect(
        &self,
        tls: Option<ClientTlsConfig>,
        timeout: Duration,
    ) -> Result<Channel, Failure> {
        let unreachable = || Failure::fault(format!("cannot reach a server at `{}`", self.text));
        let mut endpoint = Endpoint::from(self.uri.clone())
            .user_agent(concat!("keyledger/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unreachable().because(error))?
            .connect_timeout(timeout)
            .tcp_nodelay(true);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(|error| {
                let failure = Failure::fault("cannot set up TLS").because(innermost(&error));
                failure.hint("`--ca`, `--client-cert` and `--client-key` name files in PEM")
            })?;
        }
        let connected = tokio::time::timeout(timeout, endpoint.connect()).await;
        connected
            .map_err(|_| unreachable().because(format!("no connection within {timeout:?}")))?
            .map_err(|error| {
                if let Some(failure) = self.of_tls(&error) {
                    return failure;
                }
                let failure = unreachable().because(innermost(&error));
                if self.is_tls() {
                    return failure.hint(
                        "`--ca` names the certificate of the authority that signed the server's; \
                         `--client-cert` and `--client-key` are for a server that asks for yours",
                    );
                }
                failure
                    .hint("`keyledger serve` starts a server here; `--server` names one elsewhere")
            })
    }
}

impl Server {
    /// What is wrong between the two where they do not speak the same; none where a call
    /// failed for another reason.
    pub(super) async fn not_understood(&self, status: &Status) -> Option<Failure> {
        // An answer of the server's has no source.
        let error = status.source()?;
        if let Some(failure) = self.of_tls(error) {
            return Some(failure);
        }
        if self.is_tls() {
            // A handshake of TLS 1.3 ends for us before the server has looked at our
            // certificate, and what it says then is lost on the way.
            let failure = self.not_spoken_with("it ended the connection without an answer");
            return Some(failure.because(innermost(error)).hint(
                "a server that asks for a client certificate does so: `--client-cert` and \
                 `--client-key` name yours, signed by an authority that the server names",
            ));
        }
        if !self.answers_in_tls().await {
            return None;
        }
        Some(self.not_spoken_with("it speaks TLS").hint("name it as `https://…`"))
    }

    /// What TLS says of the other side.
    fn of_tls(&self, error: &(dyn Error + 'static)) -> Option<Failure> {
        if !self.is_tls() {
            return None;
        }
        let mut next = Some(error);
        while let Some(cause) = next {
            // Somewhere in between, errors of TLS become ones of input and output.
            let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let inner = inner.and_then(|it| it.downcast_ref::<rustls::Error>());
            match inner.or_else(|| cause.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
                    return Some(
                        self.not_spoken_with("it asks for a client certificate")
                            .hint("`--client-cert` and `--client-key` name yours"),
                    );
                }
                Some(rustls::Error::InvalidMessage(_)) => {
                    return Some(
                        self.not_spoken_with("it does not speak TLS").hint("name it as `http://…`"),
                    );
                }
                _ => next = cause.source(),
            }
        }
        None
    }

    fn not_spoken_with(&self, why: &str) -> Failure {
        Failure::fault(format!("cannot talk to the server at `{}`", self.text)).because(why)
    }

    /// Whether what is said in clear is answered with an alert of TLS.
    async fn answers_in_tls(&self) -> bool {
        let (Some(host), Some(port)) = (self.uri.host(), self.uri.port_u16()) else { return false };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let asked = async {
            let mut stream = TcpStream::connect((host, port)).await?;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
            stream.read_u8().await
        };
        let first = tokio::time::timeout(PROBE_MAX, asked).await;
        matches!(first, Ok(Ok(TLS_ALERT)))
    }
}

/// The cause that says most, in words of our own where it is the usual one.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        _ => cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_bare_url() {
        for (text, local) in [
            ("http://127.0.0.1:50051", true),
            ("127.0.0.1:50051", true),
            ("http://localhost:1/", true),
            ("http://[::1]:50051", true),
            ("http://keyledger:50051", false),
            ("http://10.0.0.1:50051", false),
            ("http://127.0.0.1.example.com:1", false),
            ("http://localhost.example.com", false),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(server.is_local(), local, "{text}");
            assert_eq!(server.refuse_plaintext_unless(false).is_ok(), local, "{text}");
            assert!(server.refuse_plaintext_unless(true).is_ok(), "{text}");
        }
        let tls = Server::parse("https://keyledger.example.com").unwrap();
        assert!(tls.is_tls() && !tls.is_local() && tls.refuse_plaintext_unless(false).is_ok());
        for text in [
            "",
            "http://",
            "ftp://localhost:1",
            "http://localhost:1/path",
            "http://localhost:1/?q",
            "http://127.0.0.1@example.com:1",
            "a b",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
    }
}

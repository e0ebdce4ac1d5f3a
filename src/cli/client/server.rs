//! The server that a verb asks: its URL, and the connection to it.

use std::error::Error;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::super::failure::Failure;

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

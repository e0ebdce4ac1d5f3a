//! Mails over real sockets, to relays that do what relays do.

use std::sync::{Arc, Mutex};

use projections::time::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// What a relay does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Takes,
    OffersNoTls,
    RefusesTls,
    RefusesRecipients,
    RefusesLogins,
    SaysNothing,
    HangsUp,
    SaysNonsense,
}

/// A relay on this machine, for as long as the test lasts.
struct Standing {
    port: u16,
    /// The certificate that signs its own, in PEM.
    ca: Vec<u8>,
    /// All that it was told, line by line; what was told over TLS begins with `tls:`.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Standing {
    async fn start(does: Does, implicit: bool, name: &str) -> Self {
        let signed = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let ca = signed.cert.pem().into_bytes();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let all = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, heard) = (acceptor.clone(), Arc::clone(&all));
                tokio::spawn(async move {
                    if implicit {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        speak(stream, does, "tls:", true, &heard).await;
                    } else if let Some(stream) = speak(stream, does, "", true, &heard).await
                        && let Ok(stream) = acceptor.accept(stream).await
                    {
                        speak(stream, does, "tls:", false, &heard).await;
                    }
                });
            }
        });
        Self { port, ca, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().join("\n")
    }

    fn relay(&self, tls: RelayTls, change: impl FnOnce(&mut RelaySettings)) -> Relay {
        let mut settings = RelaySettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls,
            from: "Key Desk <keys@example.org>".parse().unwrap(),
            login: None,
            ca: Some(self.ca.clone()),
            within: Duration::from_secs(60),
            links: Links::default(),
        };
        change(&mut settings);
        Relay::new(settings).unwrap()
    }
}

/// Speaks SMTP; gives the stream back where TLS is to begin on it.
async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    does: Does,
    over: &str,
    greets: bool,
    heard: &Mutex<Vec<String>>,
) -> Option<S> {
    let mut stream = BufReader::new(stream);
    match does {
        Does::SaysNothing => std::future::pending().await,
        Does::HangsUp => return None,
        Does::SaysNonsense => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            return None;
        }
        Does::Takes
        | Does::OffersNoTls
        | Does::RefusesTls
        | Does::RefusesRecipients
        | Does::RefusesLogins => {
            if greets {
                stream.write_all(b"220 relay.example\r\n").await.ok()?;
            }
        }
    }
    let (mut line, mut in_data) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        heard.lock().unwrap().push(format!("{over}{}", line.trim_end_matches(['\r', '\n'])));
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let tls =
            if over.is_empty() && does != Does::OffersNoTls { "250-STARTTLS\r\n" } else { "" };
        let answer = match (in_data, verb.as_str()) {
            (true, _) if line == ".\r\n" => {
                in_data = false;
                "250 taken\r\n".to_owned()
            }
            (true, _) => continue,
            (_, "EHLO") => format!("250-relay.example\r\n{tls}250-AUTH PLAIN\r\n250 8BITMIME\r\n"),
            (_, "STAR") if does == Does::RefusesTls => "454 not now\r\n".to_owned(),
            (_, "STAR") => {
                stream.write_all(b"220 go on\r\n").await.ok()?;
                return Some(stream.into_inner());
            }
            (_, "AUTH") if does == Does::RefusesLogins => "535 no\r\n".to_owned(),
            (_, "AUTH") => "235 yes\r\n".to_owned(),
            (_, "RCPT") if does == Does::RefusesRecipients => {
                "550 5.1.1 <ada@example.com> is nobody here\r\n".to_owned()
            }
            (_, "DATA") => {
                in_data = true;
                "354 go on\r\n".to_owned()
            }
            _ => "250 well\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

const TOKEN: &str = "klit_s3cret-token-of-somebody";

fn message(kind: TokenKind, organization: Option<&str>) -> Message {
    let secret = |text: &str| Secret::new(text.to_owned());
    Message {
        kind,
        to: secret("ada@example.com"),
        token: secret(TOKEN),
        organization: organization.map(|name| name.parse().unwrap()),
        expires_at: Timestamp::default(),
    }
}

async fn sent(relay: &Relay) -> Result<(), MailError> {
    relay.send(&message(TokenKind::Invitation, Some("Acme"))).await
}

fn with_login(settings: &mut RelaySettings) {
    settings.login = Some(("keys".to_owned(), Secret::new("hunter2hunter2".to_owned())));
}

#[tokio::test]
async fn a_mail_is_taken_over_tls_and_by_this_machine() {
    for (tls, implicit) in [(RelayTls::Implicit, true), (RelayTls::StartTls, false)] {
        let relay = Standing::start(Does::Takes, implicit, "127.0.0.1").await;
        assert_eq!(sent(&relay.relay(tls, with_login)).await, Ok(()), "{tls:?}");
        let heard = relay.heard();
        let clear: Vec<_> = heard.lines().filter(|line| !line.starts_with("tls:")).collect();
        assert!(clear.iter().all(|it| it.starts_with("EHLO") || *it == "STARTTLS"), "{clear:?}");
        for told in [
            "tls:AUTH PLAIN",
            "tls:MAIL FROM:<keys@example.org>",
            "tls:RCPT TO:<ada@example.com>",
            TOKEN,
        ] {
            assert!(heard.contains(told), "{told}: {heard}");
        }
    }
    let relay = Standing::start(Does::OffersNoTls, false, "127.0.0.1").await;
    assert_eq!(sent(&relay.relay(RelayTls::None, |_| ())).await, Ok(()));
}

/// Where TLS is not to be had, or not with whom it should be, nothing is told: no password, no
/// address, no token.
#[tokio::test]
async fn nothing_is_told_to_whom_it_should_not_be() {
    for (does, name, trusted) in [
        (Does::OffersNoTls, "127.0.0.1", true),
        (Does::RefusesTls, "127.0.0.1", true),
        (Does::Takes, "relay.example", true),
        (Does::Takes, "127.0.0.1", false),
    ] {
        for (tls, implicit) in [(RelayTls::StartTls, false), (RelayTls::Implicit, true)] {
            if implicit && matches!(does, Does::OffersNoTls | Does::RefusesTls) {
                continue;
            }
            let relay = Standing::start(does, implicit, name).await;
            let ours = relay.relay(tls, |settings| {
                with_login(settings);
                if !trusted {
                    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
                    settings.ca = Some(other.unwrap().cert.pem().into_bytes());
                }
            });
            let outcome = sent(&ours).await;
            assert!(outcome.is_err(), "{does:?} {name} {trusted} {tls:?}");
            let heard = relay.heard();
            for secret in ["AUTH", "MAIL", "ada@", TOKEN] {
                assert!(!heard.contains(secret), "{does:?} {tls:?}: {heard}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_relay_refuses_is_told_without_its_words() {
    for (does, expected) in [
        (Does::RefusesRecipients, MailError::Refused(550)),
        (Does::RefusesLogins, MailError::Refused(535)),
        (Does::HangsUp, MailError::Unreachable),
        (Does::SaysNonsense, MailError::Unreachable),
    ] {
        let relay = Standing::start(does, false, "127.0.0.1").await;
        let error = sent(&relay.relay(RelayTls::StartTls, with_login)).await.unwrap_err();
        assert_eq!(error, expected, "{does:?}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("ada") && !said.contains(TOKEN), "{said}");
    }
    let relay = Standing::start(Does::SaysNothing, false, "127.0.0.1").await;
    let short = |settings: &mut RelaySettings| settings.within = Duration::from_millis(200);
    assert_eq!(sent(&relay.relay(RelayTls::StartTls, short)).await, Err(MailError::TooLong));
    let gone = relay.relay(RelayTls::None, |settings| settings.port = 1);
    assert_eq!(sent(&gone).await, Err(MailError::Unreachable));
}

/// Whatever an organization is called, no header and no recipient comes of it.
#[tokio::test]
async fn a_name_makes_no_header() {
    let relay = Standing::start(Does::OffersNoTls, false, "127.0.0.1").await;
    let ours = relay.relay(RelayTls::None, |settings| {
        settings.links.invitation = Some("https://id.example.org/join#".to_owned());
    });
    let name = "Bcc: eve@example.com, \"<Ünïcode>\" =?utf-8?q?=0D=0ABcc:_eve?=";
    ours.send(&message(TokenKind::Invitation, Some(name))).await.unwrap();
    assert!("Acme\r\nBcc: eve@example.com".parse::<projections::text::Name>().is_err());
    let heard = relay.heard();
    let mail = heard.split_once("DATA\n").unwrap().1;
    let (headers, body) = mail.split_once("\n\n").unwrap();
    let names: Vec<_> = headers
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split_once(':').unwrap().0)
        .collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let expected = [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "MIME-Version",
        "Message-ID",
        "Subject",
        "To",
    ];
    assert_eq!(sorted, expected, "{headers}");
    assert_eq!(heard.matches("RCPT TO:").count(), 1);
    assert!(
        body.contains("join#") || body.contains("join#".replace('#', "=23").as_str()),
        "{body}"
    );
}

#[test]
fn what_a_mail_says() {
    let relay = |links| {
        Relay::new(RelaySettings {
            host: "127.0.0.1".to_owned(),
            port: 25,
            tls: RelayTls::None,
            from: "keys@example.org".parse().unwrap(),
            login: None,
            ca: None,
            within: Duration::from_secs(1),
            links,
        })
        .unwrap()
    };
    let links = Links {
        invitation: Some("https://id.example.org/join#".to_owned()),
        reset: Some("https://id.example.org/reset?token=".to_owned()),
    };
    let text = relay(links).text(&message(TokenKind::Invitation, Some("Acme \"CDN\"")));
    assert_eq!(
        *text,
        "You are invited to join Acme \"CDN\".\r\n\r\nTo go on, open:\r\n\r\n    \
         https://id.example.org/join#klit_s3cret-token-of-somebody\r\n\r\n\
         It is good once, until 1970-01-01T00:00:00.000Z. Whoever has it can act in your place: \
         pass it on to nobody.\r\nIf you expect no invitation, leave this mail alone.\r\n"
    );
    let text = relay(Links::default()).text(&message(TokenKind::PasswordReset, None));
    assert!(text.contains("To go on, use this token:\r\n\r\n    klit_s3cret"), "{}", *text);
}

#[test]
fn certificates_that_are_none_are_found_out_at_once() {
    let settings = RelaySettings {
        host: "relay.example".to_owned(),
        port: 465,
        tls: RelayTls::Implicit,
        from: "keys@example.org".parse().unwrap(),
        login: None,
        ca: Some(b"no certificate".to_vec()),
        within: Duration::from_secs(1),
        links: Links::default(),
    };
    assert!(matches!(Relay::new(settings), Err(RelayError::NoCertificate)));
}

//! One-time tokens by mail, taken by a relay on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use keyledger::proto::{
    AcceptInvitationRequest, GetUserRequest, InviteUserRequest, LoginRequest,
    RequestPasswordResetRequest, ResetPasswordRequest,
};

use super::metrics::{Scrape, address, launched};
use super::support::{Acme, DEADLINE, Home};

const PASSWORD: &str = "correct horse battery";
const ADA: &str = "ada@example.com";
const NOBODY: &str = "nobody@example.com";

/// Takes mails, but none for nobody; gives each, in one line for each of its lines.
fn relay() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (taken, mails) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let taken = taken.clone();
            std::thread::spawn(move || speak(&stream, &taken));
        }
    });
    (port, mails)
}

fn speak(mut stream: &TcpStream, taken: &Sender<String>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut mail: Option<String> = None;
    stream.write_all(b"220 relay\r\n").ok()?;
    while let Some(Ok(line)) = lines.next() {
        let answer = match &mut mail {
            Some(text) if line == "." => {
                taken.send(std::mem::take(text)).ok()?;
                mail = None;
                "250 taken"
            }
            Some(text) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            None if line.starts_with("EHLO") => "250 relay",
            None if line.contains(NOBODY) => "550 <nobody@example.com> is nobody here",
            None if line == "DATA" => {
                mail = Some(String::new());
                "354 go on"
            }
            None => "250 well",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
    None
}

/// The token of the next mail, which is to Ada.
fn token(mails: &Receiver<String>, url: &str) -> String {
    let mail = mails.recv_timeout(DEADLINE).unwrap();
    assert!(mail.contains("To: ada@example.com"), "{mail}");
    let text = mail.replace("=\n", "").replace("=3D", "=");
    let (_, rest) = text.split_once(url).unwrap_or_else(|| panic!("no `{url}`: {text}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn invitations_and_resets_come_by_mail_and_nobody_else_sees_them() {
    let (port, mails) = relay();
    let home = Home::new();
    let settings = format!(
        "[smtp]\nhost = '127.0.0.1'\nport = {port}\ntls = 'none'\nfrom = 'Keys <keys@example.org>'\n\
         invitation_url = 'https://id.example.org/join#'\nreset_url = 'https://id.example.org/reset#'\n"
    );
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    let mut acme = Acme::on(home, launched).await;
    let metrics = address(&mut acme.server.process);
    let invite = |email: &str| InviteUserRequest {
        email: email.into(),
        name: "Ada".into(),
        ..Default::default()
    };
    let invited = acme.admin.invite_user(invite(ADA)).await.unwrap();
    assert_eq!((invited.invitation_token.as_str(), invited.invitation_sent), ("", true));
    let invitation = token(&mails, "https://id.example.org/join#");
    let accept = AcceptInvitationRequest {
        token: invitation.clone(),
        password: PASSWORD.into(),
        ..Default::default()
    };
    let joined = acme.nobody().accept_invitation(accept).await.unwrap();
    assert!(joined.account_created);
    let get = GetUserRequest { user_id: joined.user_id, ..Default::default() };
    let user = acme.admin.get_user(get).await.unwrap().user.unwrap();
    assert!(user.email_proven, "whoever joined reads that e-mail");
    let events = acme.home.events();
    let told = |name: &str| {
        let event = events.iter().map(|it| it.json()).find(|it| it["type"] == name).unwrap();
        event["data"].clone()
    };
    assert_eq!(told("UserInvited")["token"], "delivered");
    assert_eq!(told("UserJoined")["email_proven"], true);

    let ask = RequestPasswordResetRequest { email: ADA.into() };
    let answer = acme.nobody().request_password_reset(ask).await.unwrap();
    assert_eq!(answer.token, "");
    let reset = token(&mails, "https://id.example.org/reset#");
    let new_password = "another long password";
    let set = ResetPasswordRequest { token: reset.clone(), new_password: new_password.into() };
    acme.nobody().reset_password(set).await.unwrap();
    let login =
        LoginRequest { email: ADA.into(), password: new_password.into(), ..Default::default() };
    acme.nobody().login(login).await.unwrap();

    // One that is refused is counted and told, without a word of it.
    assert!(acme.admin.invite_user(invite(NOBODY)).await.unwrap().invitation_sent);
    acme.server.process.wait_for(|line| {
        (line.contains("could not be delivered") && line.contains("status 550")).then_some(())
    });
    acme.wait_for_undelivered(metrics);
    let said = acme.server.process.said();
    for secret in [&invitation, &reset, ADA, NOBODY] {
        assert!(!said.contains(secret), "`{secret}` is in the log: {said}");
    }
    acme.server.stop().await;
}

impl Acme {
    fn wait_for_undelivered(&self, metrics: std::net::SocketAddr) {
        let until = std::time::Instant::now() + DEADLINE;
        loop {
            let scrape = Scrape::of(metrics);
            let delivered = scrape.value("keyledger_tokens_delivered_total");
            let undelivered = scrape.value("keyledger_tokens_undelivered_total");
            if (delivered, undelivered) == (2.0, 1.0) {
                return;
            }
            assert!(std::time::Instant::now() < until, "{delivered} {undelivered}");
        }
    }
}

/// The password is in no text that the server writes, however wrong the rest is.
#[test]
fn a_relay_that_cannot_be_used_stops_the_start() {
    let home = Home::new();
    let settings = "[smtp]\nhost = 'relay.example'\ntls = 'none'\nfrom = 'keys@example.org'\n";
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    let error = home.launch().env("KEYLEDGER_SMTP_PASSWORD", "hunter2hunter2").refused();
    assert!(error.contains("`smtp.tls`") && !error.contains("hunter2"), "{error}");
    let settings = settings.replace("tls = 'none'\n", "");
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    let error = home.launch().env("KEYLEDGER_SMTP_PASSWORD", "hunter2hunter2").refused();
    assert!(error.contains("`smtp.user`") && !error.contains("hunter2"), "{error}");
}

//! HTTP/1.1 and gRPC-Web, framed by hand over a socket: what browsers send, byte for byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use keyledger::proto::{self, DecisionCode};
use prost::Message as _;

use crate::support::{Acme, DEADLINE, Home};

const VERIFY: &str = "/keyledger.v1.VerificationService/Verify";

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// One request over HTTP/1.1.
pub(crate) fn http(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut body = answer[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|it| it == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// One frame: a flag, a length, and so many bytes.
fn frame(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, bytes].concat()
}

/// The message of an answer, and its trailers.
fn frames(mut rest: &[u8]) -> (Vec<u8>, String) {
    let (mut message, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *flag == 0x80 {
            trailers = String::from_utf8(tail[..length].to_vec()).unwrap();
        } else {
            message = tail[..length].to_vec();
        }
        rest = &tail[length..];
    }
    (message, trailers)
}

fn question(credential: &str) -> Vec<u8> {
    let request = proto::VerifyRequest { credential: credential.to_owned(), ..Default::default() };
    frame(0, &request.encode_to_vec())
}

#[tokio::test]
async fn a_browser_asks_by_grpc_web() {
    let acme = Acme::new().await;
    let address = acme.server.address;
    let bearer = format!("Bearer {}", acme.home.admin_key());
    let kind = ("content-type", "application/grpc-web+proto");
    let shown = [kind, ("x-grpc-web", "1"), ("authorization", bearer.as_str())];
    let answer = http(address, &format!("POST {VERIFY}"), &shown, &question(&acme.admin_secret));
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/grpc-web+proto"));
    let (message, trailers) = frames(&answer.body);
    let message = proto::VerifyResponse::decode(message.as_slice()).unwrap();
    assert_eq!(message.code(), DecisionCode::Allowed);
    assert_eq!(message.organization_id, acme.id);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");

    // As text, for those who cannot read bytes.
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let text = [
        ("content-type", "application/grpc-web-text"),
        ("accept", "application/grpc-web-text"),
        ("authorization", bearer.as_str()),
    ];
    let asked = base64.encode(question(&acme.admin_secret));
    let answer = http(address, &format!("POST {VERIFY}"), &text, asked.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text+proto"));
    assert!(answer.body.iter().all(u8::is_ascii_graphic));

    // A refusal says so in the headers.
    let answer = http(address, &format!("POST {VERIFY}"), &[kind], &question("x"));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("16")));
    let answer = http(address, &format!("GET {VERIFY}"), &[kind], &[]);
    assert_eq!(answer.status, 405);
    let unknown = http(address, "POST /keyledger.v1.Invented/Method", &shown, &question("x"));
    assert_eq!((unknown.status, unknown.header("grpc-status")), (200, Some("12")));
}

/// What is no base64 is the caller's fault, and is told in words of ours.
#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_refused() {
    use base64::Engine as _;
    let acme = Acme::new().await;
    let bearer = format!("Bearer {}", acme.home.admin_key());
    let whole = base64::engine::general_purpose::STANDARD.encode(question(&acme.admin_secret));
    let unpadded = whole.trim_end_matches('=');
    assert_ne!(unpadded.len() % 4, 0, "a question whose base64 is padded");
    let bodies = ["!!!!", "AAAA====", unpadded, &whole.replace('A', "-"), &format!("{whole}A")];
    let methods = [
        "VerificationService/Verify",
        "VerificationService/VerifyBatch",
        "VerificationService/VerifyStream",
        "KeyService/GetKey",
        "AuditService/QueryActivity",
    ];
    for method in methods {
        for body in bodies {
            let kind = ("content-type", "application/grpc-web-text+proto");
            let headers = [kind, ("authorization", bearer.as_str())];
            let line = format!("POST /keyledger.v1.{method}");
            let answer = http(acme.server.address, &line, &headers, body.as_bytes());
            let said = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.status, 200, "{said}");
            let trailers = match answer.header("grpc-status") {
                Some(_) => answer.head.clone(),
                None => frames(&answer.body).1.replace(':', ": "),
            };
            let lines = trailers.lines().filter_map(|line| line.split_once(": "));
            let status = lines.filter(|(name, _)| *name == "grpc-status").map(|(_, value)| value);
            assert_eq!(status.collect::<Vec<_>>(), ["3"], "{method} {body}: {said}");
            assert!(!said.contains("tonic"), "{said}");
        }
    }
}

/// Another program's way of asking, where there is one.
#[tokio::test]
async fn curl_gets_an_answer() {
    let acme = Acme::new().await;
    let path = acme.home.path().join("question");
    std::fs::write(&path, question(&acme.admin_secret)).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http1.1", "--fail"]);
    curl.args(["-H", "content-type: application/grpc-web+proto", "-H"]);
    curl.arg(format!("authorization: Bearer {}", acme.home.admin_key()));
    curl.arg("--data-binary").arg(format!("@{}", path.display()));
    curl.arg(format!("http://{}{VERIFY}", acme.server.address));
    let output = match curl.output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: curl cannot be run: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let message = proto::VerifyResponse::decode(frames(&output.stdout).0.as_slice()).unwrap();
    assert_eq!(message.code(), DecisionCode::Allowed);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let home = Home::new();
    let server = home.start().await;
    let json = ("content-type", "application/json");
    let grpc = ("content-type", "application/grpc");
    for (line, header, status) in [
        ("GET /", None, 404),
        ("GET /favicon.ico", None, 404),
        ("POST /api/v1/keys", Some(json), 404),
        ("GET /keyledger.v1.VerificationService", None, 404),
        ("POST /keyledger.v1.VerificationService/Verify", Some(json), 415),
        ("POST /keyledger.v1.VerificationService/Verify", None, 415),
        ("GET /keyledger.v1.VerificationService/Verify", None, 405),
        ("POST /keyledger.v1.VerificationService/Verify", Some(grpc), 505),
        ("OPTIONS /keyledger.v1.VerificationService/Verify", None, 405),
    ] {
        let answer = http(server.address, line, header.as_slice(), b"{}");
        assert_eq!(answer.status, status, "{line}: {}", answer.head);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{line}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["status"], status, "{line}");
        assert_eq!(answer.header("grpc-status"), None, "{line}");
    }
    let output = Command::new("curl")
        .args(["--silent", "--http2-prior-knowledge", "--write-out", "%{http_code}", "-o"])
        .arg("/dev/null")
        .arg(format!("http://{}/", server.address))
        .output();
    match output {
        // Over HTTP/2 it is the same; a curl that does not speak it says so.
        Ok(output) if output.status.success() => assert_eq!(output.stdout, b"404"),
        Ok(_) | Err(_) => eprintln!("skipped: no curl that speaks HTTP/2"),
    }
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_no_others() {
    let preflight = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
    ];
    let kind = ("content-type", "application/grpc-web+proto");
    let asked = |address, origin: &str| {
        let mut headers = preflight.to_vec();
        headers.push(("origin", origin));
        let before = http(address, &format!("OPTIONS {VERIFY}"), &headers, &[]);
        let call =
            http(address, &format!("POST {VERIFY}"), &[kind, ("origin", origin)], &question("x"));
        let allowed = |it: &Answer| it.header("access-control-allow-origin").map(str::to_owned);
        (allowed(&before), allowed(&call), before, call)
    };
    let home = Home::new();
    let server = home.start().await;
    let (before, call, ..) = asked(server.address, "https://app.example");
    assert_eq!((before, call), (None, None), "none unless named");

    let home = Home::new();
    let origins = "https://app.example,http://localhost:3000";
    let server = home.launch().args(&["--cors-origins", origins]).start().await;
    for origin in origins.split(',') {
        let (allowed, called, before, call) = asked(server.address, origin);
        assert_eq!((allowed.as_deref(), called.as_deref()), (Some(origin), Some(origin)));
        assert_eq!(before.status, 200, "{}", before.head);
        let headers = before.header("access-control-allow-headers").unwrap();
        for name in ["authorization", "x-grpc-web", "traceparent", "tracestate"] {
            assert!(headers.split(',').any(|it| it == name), "{name}: {headers}");
        }
        let exposed = call.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("grpc-status"), "{exposed}");
        // Pages that are named may send their cookies.
        assert_eq!(before.header("access-control-allow-credentials"), Some("true"));
    }
    for origin in ["https://evil.example", "http://app.example", "null"] {
        let (allowed, called, ..) = asked(server.address, origin);
        assert_eq!((allowed, called), (None, None), "{origin}");
    }
    let error = Home::new().launch().args(&["--cors-origins", "app.example"]).refused();
    assert!(error.contains("must be an origin such as"), "{error}");
}

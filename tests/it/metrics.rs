//! `/metrics`, as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use keyledger::proto;
use tonic::Code;

use crate::support::{Acme, DEADLINE, Home, Launch, POLL, Process, call_raw, refused};

pub(crate) fn launched(launch: Launch) -> Launch {
    launch.args(&["--metrics-listen", "127.0.0.1:0"])
}

pub(crate) fn address(process: &mut Process) -> SocketAddr {
    process.wait_for(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields")?;
        let it = fields.get("message")?.as_str()? == "answering metrics";
        it.then(|| fields.get("address")?.as_str()?.parse().ok()).flatten()
    })
}

/// One request, by hand: the head of the answer, and its body.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Every sample, by its name and labels.
pub(crate) struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let (head, text) = ask(address, "GET /metrics");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        let samples = lines.map(sample).collect();
        Self { text, samples }
    }

    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> f64 {
        let value = self.samples.get(name);
        *value.unwrap_or_else(|| panic!("there is no `{name}` in {}", self.text))
    }

    fn decisions(&self, code: &str) -> f64 {
        self.value(&format!("keyledger_decisions_total{{code=\"{code}\"}}"))
    }

    fn requests(&self, service: &str, method: &str, code: &str) -> f64 {
        let labels = format!("service=\"{service}\",method=\"{method}\",code=\"{code}\"");
        let name = format!("keyledger_requests_total{{{labels}}}");
        self.samples.get(&name).copied().unwrap_or_default()
    }

    /// Name and kind of every family.
    fn families(&self) -> Vec<(String, String)> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect()
    }
}

/// Every figure moves with what it stands for.
#[tokio::test]
async fn what_happens_is_counted() {
    let mut acme = Acme::on(Home::new(), launched).await;
    let address = address(&mut acme.server.process);
    let before = Scrape::of(address);
    let (id, secret) = acme.key("one", &["dns:read"]).await;
    acme.operator.ask(&secret, &["dns:read"]).await;
    acme.operator.ask(&secret, &["dns:read"]).await;
    acme.operator.ask(&secret, &["dns:write"]).await;
    acme.revoke(&id).await;
    acme.operator.ask(&secret, &[]).await;
    acme.operator.ask("nonsense", &[]).await;
    let anonymous = acme.server.anonymous();
    refused(anonymous.verify(Default::default()).await, Code::Unauthenticated, "no credential");
    let unknown = tonic::Request::new(Vec::new());
    let _ = call_raw(acme.server.channel(), "keyledger.v1.KeyService/Invented", unknown).await;
    let after = Scrape::of(address);

    let more = |name: &str| after.value(name) - before.value(name);
    for (code, number) in
        [("ALLOWED", 2.0), ("PERMISSION_DENIED", 1.0), ("REVOKED", 1.0), ("MALFORMED", 1.0)]
    {
        assert_eq!(after.decisions(code) - before.decisions(code), number, "{code}");
    }
    assert!(more("keyledger_verification_seconds_count") >= 0.0);
    let verified = |code| after.requests("keyledger.v1.VerificationService", "Verify", code);
    assert_eq!((verified("OK"), verified("UNAUTHENTICATED")), (5.0, 1.0));
    assert_eq!(after.requests("keyledger.v1.KeyService", "CreateKey", "OK"), 2.0);
    assert_eq!(after.requests("other", "other", "UNIMPLEMENTED"), 0.0, "knocked first");
    assert_eq!(after.requests("other", "other", "UNAUTHENTICATED"), 1.0);
    assert!(!after.text.contains("Invented"), "a caller makes no series");
    let timed = "service=\"keyledger.v1.VerificationService\",method=\"Verify\"";
    assert_eq!(after.value(&format!("keyledger_request_seconds_count{{{timed}}}")), 6.0);
    let slow = format!("keyledger_request_seconds_bucket{{le=\"+Inf\",{timed}}}");
    assert_eq!(after.value(&slow), 6.0);

    assert_eq!(more("keyledger_commit_events_sum"), 2.0, "one key made, one revoked");
    assert_eq!(more("keyledger_commit_appends_sum"), 2.0);
    assert_eq!(more("keyledger_commit_seconds_count"), 2.0);
    assert_eq!(more("keyledger_append_seconds_count"), 2.0);
    assert!(more("keyledger_commit_seconds_sum") > 0.0);
    assert_eq!(after.value("keyledger_events_in_flight"), 0.0);
    assert_eq!(more("keyledger_keys_not_revoked"), 0.0);
    assert_eq!(after.value("keyledger_keys_not_revoked"), 2.0, "the operator's and an admin's");
    assert_eq!(after.value("keyledger_organizations"), 2.0);
    assert_eq!(after.value("keyledger_organizations_stopped"), 0.0);
    assert_eq!(after.value("keyledger_accounts_stopped"), 0.0);
    assert_eq!(after.value("keyledger_ready"), 1.0);
    assert_eq!(after.value("keyledger_requests_inside"), 0.0);
    assert_eq!(after.value("keyledger_store_fenced"), 0.0);
    assert_eq!(after.value("keyledger_store_full"), 0.0);
    assert!(after.value("keyledger_clock_ahead_seconds").abs() < 60.0);
    let started = after.value("process_start_time_seconds");
    assert!(
        (1.7e9..1e11).contains(&started) && started == before.value("process_start_time_seconds")
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(after.value(&format!("keyledger_build_info{{version=\"{version}\"}}")), 1.0);

    assert_eq!(after.value("keyledger_connections_open"), 1.0);
    let second = TcpStream::connect(acme.server.address).unwrap();
    wait(address, "keyledger_connections_open", 2.0).await;
    drop(second);
    wait(address, "keyledger_connections_open", 1.0).await;
    assert_eq!(Scrape::of(address).value("keyledger_connections_accepted_total"), 2.0);
    assert_eq!(after.value("keyledger_connections_refused_total"), 0.0);

    for told in [&acme.id, &id, &secret, &acme.admin_secret, "acme", "127.0.0.1"] {
        assert!(!after.text.contains(told), "no `{told}` in what everybody may read");
    }
}

impl Acme {
    async fn revoke(&self, key_id: &str) {
        let request = proto::RevokeKeyRequest { key_id: key_id.to_owned(), ..Default::default() };
        self.admin.revoke_key(request).await.unwrap();
    }
}

pub(crate) async fn wait(address: SocketAddr, name: &str, value: f64) {
    let until = Instant::now() + DEADLINE;
    while Scrape::of(address).value(name) != value {
        assert!(Instant::now() < until, "`{name}` never was {value}");
        tokio::time::sleep(POLL).await;
    }
}

/// The page tells of every family, by its name and kind, and of no other.
#[tokio::test]
async fn the_operators_page_lists_every_metric_and_no_other() {
    let home = Home::new();
    let mut server = launched(home.launch()).start().await;
    let scrape = Scrape::of(address(&mut server.process));
    let page = include_str!("../../docs/OPERATING.md");
    let table = page.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: Vec<(String, String)> = rows
        .map(|row| row.split_once("` | ").unwrap())
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().to_owned()))
        .collect();
    assert_eq!(scrape.families(), listed);
}

#[tokio::test]
async fn the_port_is_for_metrics_alone_and_only_where_it_is_wanted() {
    let home = Home::new();
    let mut server = launched(home.launch()).start().await;
    let metrics = address(&mut server.process);
    for (request, status) in [
        ("GET /metrics", "200 "),
        ("HEAD /metrics", "200 "),
        ("GET /metrics?x=y", "200 "),
        ("POST /metrics", "405 "),
        ("GET /", "404 "),
        ("POST /keyledger.v1.VerificationService/Verify", "404 "),
    ] {
        let (head, _) = ask(metrics, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
    let (head, _) = ask(server.address, "GET /metrics");
    assert!(head.starts_with("HTTP/1.1 404 "), "not beside the ledger: {head}");

    let taken = ["--metrics-listen", &metrics.to_string()];
    let error = Home::new().launch().args(&taken).refused();
    assert!(error.contains("choose one with `--metrics-listen`"), "{error}");
    let quiet = Home::new();
    let server = quiet.start().await;
    assert!(!server.process.said().contains("answering metrics"));
}

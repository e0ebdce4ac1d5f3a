//! What an OpenTelemetry collector is told about calls, and what becomes of calls where
//! the collector is no good.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use keyledger::proto;
use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::verification_service_client::VerificationServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

use crate::metrics::{self, Scrape};
use crate::support::{Acme, Client, DEADLINE, Home, Launch, POLL, Raw, call_raw, refused, scoped};

/// What a collector does with a batch.
#[derive(Clone)]
enum Answer {
    Bytes(Vec<u8>),
    Refusal(Status),
    Never,
}

/// One batch as it came: its headers, and its bytes.
#[derive(Clone)]
struct Batch {
    headers: String,
    bytes: Vec<u8>,
}

/// A stand-in for a collector.
#[derive(Clone)]
struct Collector {
    answer: Answer,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl tonic::server::NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::server::UnaryService<Vec<u8>> for Collector {
    type Response = Vec<u8>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let headers = format!("{:?}", request.metadata());
        self.batches.lock().unwrap().push(Batch { headers, bytes: request.into_inner() });
        let answer = self.answer.clone();
        Box::pin(async move {
            match answer {
                Answer::Bytes(bytes) => Ok(Response::new(bytes)),
                Answer::Refusal(status) => Err(status),
                Answer::Never => std::future::pending().await,
            }
        })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            assert!(request.uri().path().ends_with(".TraceService/Export"), "{request:?}");
            Ok(tonic::server::Grpc::new(Raw).unary(this, request).await)
        })
    }
}

impl Collector {
    async fn start(answer: Answer) -> (Self, SocketAddr) {
        Self::start_on(Server::builder(), answer).await
    }

    async fn start_on(mut server: Server, answer: Answer) -> (Self, SocketAddr) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self { answer, batches: Arc::default() };
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(server.add_service(collector.clone()).serve_with_incoming(incoming));
        (collector, address)
    }

    async fn takes() -> (Self, SocketAddr) {
        Self::start(Answer::Bytes(Vec::new())).await
    }

    fn batches(&self) -> Vec<Batch> {
        self.batches.lock().unwrap().clone()
    }

    /// Waits until this many batches came.
    async fn came(&self, batches: usize) {
        let until = Instant::now() + DEADLINE;
        while self.batches.lock().unwrap().len() < batches {
            assert!(Instant::now() < until, "no batch came");
            tokio::time::sleep(POLL).await;
        }
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let batches = self.batches();
        batches.iter().map(|it| ExportTraceServiceRequest::decode(&*it.bytes).unwrap()).collect()
    }

    /// Every span that came, but those of looks at the server's health.
    fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|it| it.resource_spans);
        let scopes = resources.flat_map(|it| it.scope_spans);
        let spans = scopes.flat_map(|it| it.spans);
        spans.filter(|it| !it.name.starts_with("grpc.health")).collect()
    }

    fn names(&self) -> Vec<String> {
        self.spans().into_iter().map(|it| it.name).collect()
    }
}

fn told(launch: Launch, address: SocketAddr, ratio: &str) -> Launch {
    let endpoint = format!("http://{address}");
    launch.args(&["--otel-endpoint", &endpoint, "--otel-sample-ratio", ratio])
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    use any_value::Value::{IntValue, StringValue};
    let text = |it: &KeyValue| {
        let value = it.value.clone().unwrap().value.unwrap();
        if let StringValue(text) = value {
            return text;
        }
        let IntValue(number) = value else { panic!("{value:?}") };
        number.to_string()
    };
    attributes.iter().map(|it| (&*it.key, text(it))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A request with headers that no collector is to hear of, and a parent.
fn traced<T>(client: &Client, message: T, flags: &str) -> Request<T> {
    let mut request = client.request(message);
    let parent = format!("00-{TRACE}-{SPAN}-{flags}");
    for (name, value) in [
        ("traceparent", &*parent),
        ("tracestate", "vendor=told-to-nobody"),
        ("baggage", "who=told-to-nobody"),
        ("x-forwarded-for", "203.0.113.9"),
        ("user-agent", "told-to-nobody"),
        ("x-correlation-id", "corr-1"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_told_with_their_parents_and_without_secrets() {
    let (collector, address) = Collector::takes().await;
    let home = Home::new();
    let launch = told(home.launch(), address, "1").args(&["--otel-service-name", "ledger-a"]);
    // Variables of OpenTelemetry's own change nothing.
    let launch = launch
        .args(&["--trusted-proxies", "127.0.0.1"])
        .env("OTEL_SERVICE_NAME", "told-to-nobody")
        .env("OTEL_RESOURCE_ATTRIBUTES", "who=told-to-nobody")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "who=told-to-nobody")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_TRACES_SAMPLER", "always_off");
    let acme = Acme::on(home, |_| launch).await;
    let (channel, port) = (acme.server.channel(), acme.server.address.port());
    let (key_id, secret) = acme.key("the-name-of-a-key", &["dns:read"]).await;

    let question = |permission: &str| proto::VerifyRequest {
        credential: secret.clone(),
        permissions: vec![permission.to_owned()],
        correlation_id: "corr-2".into(),
        ..Default::default()
    };
    let mut verification = VerificationServiceClient::new(channel.clone());
    verification.verify(traced(&acme.operator, question("dns:read"), "01")).await.unwrap();
    verification.verify(traced(&acme.operator, question("dns:write"), "00")).await.unwrap();
    let revoke = proto::RevokeKeyRequest {
        key_id: key_id.clone(),
        comment: "a comment in confidence".into(),
        ..Default::default()
    };
    KeyServiceClient::new(channel.clone())
        .revoke_key(traced(&acme.admin, revoke, "01"))
        .await
        .unwrap();
    acme.operator.verify(question("dns:write")).await.unwrap();
    let stranger = acme.operator.with_key("vtx_nonsense_credential");
    refused(stranger.verify(question("dns:read")).await, Code::Unauthenticated, "");
    let invented = acme.operator.request(Vec::new());
    let _ = call_raw(channel.clone(), "made.up.Service/ToldToNobody", invented).await;
    let damaged = acme.operator.request(b"\xff\xffgarbage".to_vec());
    let get = "keyledger.v1.KeyService/GetKey";
    refused(call_raw(channel.clone(), get, damaged).await, Code::InvalidArgument, "");
    drop((channel, verification));
    let Acme { home, server, id, admin_secret, operator, admin, .. } = acme;
    let admin_key = home.admin_key();
    drop((operator, admin, stranger));
    server.stop().await;

    let spans = collector.spans();
    let verify = "keyledger.v1.VerificationService/Verify";
    let named = |name: &str| spans.iter().filter(|it| it.name == name).collect::<Vec<_>>();
    let verified = named(verify);
    assert_eq!(verified.len(), 3, "one that the caller did not sample is not told");
    let first = verified[0];
    let port = port.to_string();
    let common = [
        ("rpc.system", "grpc"),
        ("rpc.service", "keyledger.v1.VerificationService"),
        ("rpc.method", "Verify"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*port),
    ];
    let with = |more: &[(&'static str, &str)]| {
        let all = common.iter().chain(more);
        all.map(|(name, value)| (*name, (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let answered = |decision| {
        with(&[
            ("rpc.grpc.status_code", "0"),
            ("keyledger.correlation_id", "corr-2"),
            ("keyledger.decision", decision),
        ])
    };
    assert_eq!(texts(&first.attributes), answered("ALLOWED"));
    assert_eq!(hex(&first.trace_id), TRACE);
    assert_eq!(hex(&first.parent_span_id), SPAN);
    assert_eq!((first.kind(), first.flags), (SpanKind::Server, 0x301));
    assert!(first.end_time_unix_nano > first.start_time_unix_nano);
    assert!(first.start_time_unix_nano > 1_700_000_000_000_000_000);
    assert_eq!(first.status.clone().unwrap().code(), StatusCode::Unset);
    assert!(first.trace_state.is_empty());
    let revoked = verified[1];
    assert_eq!(texts(&revoked.attributes), answered("REVOKED"));
    assert!(revoked.parent_span_id.is_empty() && hex(&revoked.trace_id) != TRACE);
    assert_eq!(revoked.flags, 0x101, "a beginning of its own, and sampled");
    let stranger = verified[2];
    assert_eq!(texts(&stranger.attributes), with(&[("rpc.grpc.status_code", "16")]));
    assert_eq!(stranger.status.clone().unwrap().code(), StatusCode::Unset);

    let revoke = named("keyledger.v1.KeyService/RevokeKey")[0];
    assert_eq!(texts(&revoke.attributes)["keyledger.correlation_id"], "corr-1");
    let appends = named("append");
    let append = appends.iter().find(|it| it.parent_span_id == revoke.span_id).unwrap();
    assert_eq!((hex(&append.trace_id), append.kind()), (TRACE.to_owned(), SpanKind::Internal));
    assert!(append.attributes.is_empty());
    assert!(append.start_time_unix_nano >= revoke.start_time_unix_nano);
    assert!(append.end_time_unix_nano <= revoke.end_time_unix_nano);
    assert!(append.end_time_unix_nano > append.start_time_unix_nano);
    let created = named("keyledger.v1.KeyService/CreateKey");
    assert_eq!((created.len(), named("_OTHER").len()), (2, 1));
    assert!(appends.len() >= 5, "each write appends");
    let unimplemented = named("_OTHER")[0];
    assert_eq!(texts(&unimplemented.attributes)["rpc.grpc.status_code"], "12");
    assert_eq!(unimplemented.status.clone().unwrap().code(), StatusCode::Error);

    for resource in collector.requests().into_iter().flat_map(|it| it.resource_spans) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let is = [("service.name", "ledger-a".to_owned()), ("service.version", version)];
        assert_eq!(texts(&resource.resource.unwrap().attributes), BTreeMap::from(is));
    }
    let told = collector.batches().into_iter().map(|batch| {
        let Batch { headers, bytes } = batch;
        headers + &String::from_utf8_lossy(&bytes)
    });
    let told: String = told.collect();
    assert!(told.contains("corr-2"), "what is told can be found");
    for secret in [
        &*secret,
        &secret[secret.len() - 20..],
        &admin_secret,
        &admin_key,
        "nonsense_credential",
        "the-name-of-a-key",
        "acme",
        "confidence",
        "dns:",
        "203.0.113.9",
        "told-to-nobody",
        "ToldToNobody",
        "garbage",
        &id,
        &key_id,
    ] {
        assert!(!told.contains(secret), "`{secret}` was told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_decide_and_chance_for_those_who_do_not() {
    let (collector, address) = Collector::takes().await;
    let acme = Acme::on(Home::new(), |launch| told(launch, address, "0")).await;
    for _ in 0..50 {
        acme.operator.ask(&acme.admin_secret, &[]).await;
    }
    let mut client = VerificationServiceClient::new(acme.server.channel());
    for flags in ["00", "01"] {
        client.verify(traced(&acme.operator, Default::default(), flags)).await.unwrap();
    }
    // A stranger's word does not count, and neither does anybody's where no key is needed.
    let stranger = acme.operator.with_key("vtx_nonsense_credential");
    for _ in 0..50 {
        client.verify(traced(&stranger, Default::default(), "01")).await.unwrap_err();
        let invented = traced(&acme.operator, Vec::new(), "01");
        call_raw(acme.server.channel(), "made.up.Service/Method", invented).await.unwrap_err();
    }
    drop((client, stranger));
    let Acme { server, operator, admin, home, .. } = acme;
    drop((operator, admin));
    server.stop().await;
    assert_eq!(collector.names(), ["keyledger.v1.VerificationService/Verify"]);

    // Without a collector nothing is told, whatever the callers and the environment say.
    let endpoint = format!("http://{address}");
    let server = home.launch().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).start().await;
    let client = server.client(&home.admin_key());
    let mut verification = VerificationServiceClient::new(server.channel());
    verification.verify(traced(&client, Default::default(), "01")).await.unwrap();
    drop((verification, client));
    let said = server.stop().await;
    assert!(!said.contains("collector"), "{said}");
    assert_eq!(collector.names().len(), 1);
}

/// A server that tells a collector that is no good, and what it says about that.
struct Ill {
    acme: Acme,
    metrics: SocketAddr,
}

impl Ill {
    async fn told(collector: SocketAddr) -> Self {
        let launch = |launch| metrics::launched(told(launch, collector, "1"));
        let mut acme = Acme::on(Home::new(), launch).await;
        let metrics = metrics::address(&mut acme.server.process);
        Self { acme, metrics }
    }

    fn dropped(&self, reason: &str) -> f64 {
        let name = format!("keyledger_spans_dropped_total{{reason=\"{reason}\"}}");
        Scrape::of(self.metrics).value(&name)
    }

    fn exported(&self) -> f64 {
        Scrape::of(self.metrics).value("keyledger_spans_exported_total")
    }

    async fn until_exported(&self) {
        let until = Instant::now() + DEADLINE;
        while self.exported() == 0.0 {
            assert!(Instant::now() < until, "none was exported");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Goes on asking and writing until more than so many spans were dropped for a reason.
    async fn until_dropped(&self, reason: &str, more_than: f64) {
        let until = Instant::now() + DEADLINE;
        while self.dropped(reason) <= more_than {
            assert!(Instant::now() < until, "none was dropped for `{reason}`");
            let asked = (0..200).map(|_| {
                let (client, secret) = (self.acme.operator.clone(), self.acme.admin_secret.clone());
                tokio::spawn(async move { client.ask(&secret, &["org:admin"]).await })
            });
            for asked in asked.collect::<Vec<_>>() {
                assert!(asked.await.unwrap().allowed);
            }
        }
    }

    /// A write goes through; then the server ends in order. Gives what it said.
    async fn goes_on_and_ends(self) -> String {
        let made = self.acme.admin.create_key(scoped("", "another", &["dns:read"])).await;
        assert!(!made.unwrap().secret.is_empty());
        let Acme { server, operator, admin, .. } = self.acme;
        drop((operator, admin));
        server.stop().await
    }
}

const CUT_OFF: &str = "the last spans were dropped";

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let (collector, address) = Collector::start(Answer::Never).await;
    let ill = Ill::told(address).await;
    ill.until_dropped("full", 500.0).await;
    assert_eq!(collector.batches().len(), 1, "one at a time");
    // It is not waited for without end either.
    ill.until_dropped("failed", 0.0).await;
    collector.came(2).await;
    assert_eq!(ill.exported(), 0.0);
    let said = ill.goes_on_and_ends().await;
    assert!(said.contains(CUT_OFF), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_spans_and_one_line_of_the_log() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ill = Ill::told(address).await;
    ill.until_dropped("failed", 0.0).await;
    let before = ill.dropped("failed");
    ill.until_dropped("failed", before).await;
    let said = ill.goes_on_and_ends().await;
    assert!(!said.contains(CUT_OFF), "it was told at once: {said}");
    assert_eq!(said.matches("spans were dropped").count(), 1, "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_lies_is_not_believed() {
    let took = |rejected_spans, length| {
        let error_message = format!("\u{1b}[31mred\nline{}", "x".repeat(length));
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
        Answer::Bytes(ExportTraceServiceResponse { partial_success }.encode_to_vec())
    };
    let refusal = Status::unavailable(format!("\u{1b}[31m{}", "x".repeat(5_000)));
    for (answer, reason) in [
        (took(i64::MAX, 5_000), Some("rejected")),
        (took(i64::MIN, 5_000), None),
        (Answer::Refusal(refusal), Some("failed")),
        (Answer::Bytes(b"\xff\xff\xff".to_vec()), Some("failed")),
        (took(0, 1 << 20), Some("failed")),
    ] {
        let (collector, address) = Collector::start(answer).await;
        let ill = Ill::told(address).await;
        match reason {
            Some(reason) => ill.until_dropped(reason, 0.0).await,
            None => ill.until_exported().await,
        }
        assert_eq!(ill.exported() == 0.0, reason.is_some());
        assert!(!collector.batches().is_empty());
        let dropped = ["rejected", "failed"].map(|reason| ill.dropped(reason));
        assert!(dropped.iter().all(|it| *it < 1e6), "{dropped:?}");
        let said = ill.goes_on_and_ends().await;
        assert_eq!(said.contains("spans were dropped"), reason.is_some(), "{said}");
        assert!(!said.contains(&"x".repeat(300)) && !said.contains('\u{1b}'), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_over_tls_by_the_systems_authorities() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    let identity = Identity::from_pem(&certificate, key.serialize_pem());
    let tls = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let (collector, address) = Collector::start_on(tls, Answer::Bytes(Vec::new())).await;
    let endpoint = format!("https://localhost:{}", address.port());
    for trusted in [true, false] {
        collector.batches.lock().unwrap().clear();
        let home = Home::new();
        let other = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let authorities = home.path().join("authorities.pem");
        std::fs::write(&authorities, if trusted { &certificate } else { &other }).unwrap();
        let launch = home.launch().env("SSL_CERT_FILE", &authorities);
        let launch = launch.args(&["--otel-endpoint", &endpoint, "--otel-sample-ratio", "1"]);
        let acme = Acme::on(home, |_| launch).await;
        let Acme { server, operator, admin, home: _home, .. } = acme;
        drop((operator, admin));
        let said = server.stop().await;
        let told = !collector.batches().is_empty();
        assert_eq!((told, said.contains("spans were dropped")), (trusted, !trusted), "{said}");
    }
}

#[tokio::test]
async fn what_is_no_collector_is_refused() {
    for (arguments, says) in [
        (["--otel-endpoint", "http://me:s3cret@collector:4317"], "must be a URL such as"),
        (["--otel-sample-ratio", "1.5"], "`otel_sample_ratio`: must be a number from 0 to 1"),
        (["--otel-sample-ratio", "NaN"], "`otel_sample_ratio`: must be a number from 0 to 1"),
        (["--otel-service-name", "two words"], "`otel_service_name`: must be 1 to 64"),
    ] {
        let error = Home::new().launch().args(&arguments).refused();
        assert!(error.contains(says), "{error}");
    }
}

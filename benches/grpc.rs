//! What a verification costs over gRPC, as a ratio to an empty call with messages of the
//! same sizes on a server of the same kind: CPU time of the server process, throughput,
//! and the 99th percentile of latency at half load.
//!
//! With `KEYLEDGER_TEST_OTEL_RATIO` set, a collector in this process is told about that part
//! of the calls.
//!
//! Budgets and figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

mod support;

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use keyledger::proto;
use keyledger::proto::verification_service_client::VerificationServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use support::{
    OTEL_RATIO, SERVE_LEDGER, Served, connect, ledger, median, serve_ledger, with_caller,
};
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICES: usize = 9;
const SLICE: Duration = Duration::from_millis(1_200);
const CONNECTIONS: usize = 4;
const CALLS_PER_CONNECTION: usize = 16;
const SERVE_EMPTY: &str = "--serve-empty";

/// A message of some size and no meaning.
#[derive(Clone, PartialEq, Message)]
struct Filler {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: prost::bytes::Bytes,
}

/// A filler whose encoding has this many bytes.
fn filler(encoded_bytes: usize) -> Filler {
    (0..=encoded_bytes)
        .rev()
        .map(|bytes| Filler { bytes: vec![b'x'; bytes].into() })
        .find(|filler| filler.encoded_len() <= encoded_bytes)
        .expect("a filler")
}

/// A service whose one method answers with the same filler each time.
#[derive(Clone)]
struct Empty(Filler);

impl tonic::server::NamedService for Empty {
    const NAME: &'static str = "bench.Empty";
}

impl tonic::server::UnaryService<Filler> for Empty {
    type Response = Filler;
    type Future = std::future::Ready<Result<tonic::Response<Filler>, tonic::Status>>;
    fn call(&mut self, _: tonic::Request<Filler>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new(self.0.clone())))
    }
}

impl<B> tower::Service<http::Request<B>> for Empty
where
    B: tonic::transport::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Filler, Filler>::default());
            Ok(grpc.unary(this, request).await)
        })
    }
}

fn serve_empty(runtime: &tokio::runtime::Runtime, response_bytes: usize) {
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        tonic::transport::Server::builder()
            .tcp_nodelay(true)
            // As the ledger's own: what these cost is not the verification's.
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .http2_max_header_list_size(keyledger::server::HEADER_BYTES_MAX)
            .max_concurrent_streams(keyledger::server::CONNECTION_REQUESTS_MAX)
            .timeout(Duration::from_secs(30))
            .add_service(Empty(filler(response_bytes)))
            .serve_with_incoming(
                tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
            )
            .await
            .expect("it serves");
    });
}

/// Takes every span, and does nothing with it.
struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        _: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector, if there is to be one.
async fn collector() -> Option<String> {
    std::env::var_os(OTEL_RATIO)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server =
        tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector));
    tokio::spawn(server.serve_with_incoming(incoming));
    Some(endpoint)
}

/// One kind of call, ready to be made over and over.
#[derive(Clone)]
enum Call {
    Verify {
        client: VerificationServiceClient<Channel>,
        requests: std::sync::Arc<[proto::VerifyRequest]>,
        caller: String,
    },
    Empty {
        client: tonic::client::Grpc<Channel>,
        request: Filler,
        caller: String,
    },
}

impl Call {
    async fn make(&mut self, number: usize) {
        match self {
            Self::Verify { client, requests, caller } => {
                let message = requests[number % requests.len()].clone();
                let answer = client.verify(with_caller(message, caller)).await.expect("an answer");
                assert!(answer.get_ref().allowed, "{answer:?}");
            }
            Self::Empty { client, request, caller } => {
                client.ready().await.expect("ready");
                let path = http::uri::PathAndQuery::from_static("/bench.Empty/Call");
                let codec = ProstCodec::<Filler, Filler>::default();
                client
                    .unary(with_caller(request.clone(), caller), path, codec)
                    .await
                    .expect("an answer");
            }
        }
    }
}

/// What one slice of load showed.
struct Slice {
    calls_per_second: f64,
    server_us: f64,
    p99_us: f64,
}

/// Calls without pause, or at a rate, and looks at the server's CPU time.
async fn load(server: &Served, calls: &[Call], per_second: Option<f64>) -> Slice {
    let begin = Instant::now();
    let cpu = server.cpu();
    let mut tasks = Vec::new();
    let workers = calls.len() * CALLS_PER_CONNECTION;
    for worker in 0..workers {
        let mut call = calls[worker % calls.len()].clone();
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let mut number = worker * 7_919;
            let pause = per_second.map(|rate| Duration::from_secs_f64(workers as f64 / rate));
            let mut due = begin + pause.unwrap_or_default().mul_f64(worker as f64 / workers as f64);
            while begin.elapsed() < SLICE {
                if let Some(pause) = pause {
                    tokio::time::sleep_until(due.into()).await;
                    due += pause;
                }
                let start = Instant::now();
                call.make(number).await;
                latencies.push(start.elapsed().as_secs_f64() * 1e6);
                number += 1;
            }
            latencies
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a worker"));
    }
    let count = latencies.len() as f64;
    let seconds = begin.elapsed().as_secs_f64();
    let used = (server.cpu() - cpu).as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    Slice {
        calls_per_second: count / seconds,
        server_us: used / count * 1e6,
        p99_us: latencies[(latencies.len() * 99 / 100).min(latencies.len() - 1)],
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        arguments.iter().position(|it| it == name).map(|place| &arguments[place + 1..])
    };
    if let Some(rest) = after(SERVE_EMPTY) {
        return serve_empty(&runtime, rest[0].parse().expect("a size"));
    }
    if let Some(rest) = after(SERVE_LEDGER) {
        return serve_ledger(&runtime, rest);
    }
    runtime.block_on(measure());
}

async fn measure() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let collector = collector().await;
    let (ledger, requests, caller) = ledger(root.path(), collector.as_deref()).await;
    let requests: std::sync::Arc<[proto::VerifyRequest]> = requests.into();

    let channels = connect(&ledger.address, CONNECTIONS).await;
    let one = VerificationServiceClient::new(channels[0].clone())
        .verify(with_caller(requests[0].clone(), &caller))
        .await
        .expect("an answer")
        .into_inner();
    let (request_bytes, response_bytes) = (requests[0].encoded_len(), one.encoded_len());
    let empty = Served::start(&[SERVE_EMPTY, &response_bytes.to_string()]);
    println!(
        "request {request_bytes} bytes, response {response_bytes} bytes; {CONNECTIONS} connections, {CALLS_PER_CONNECTION} calls on each; medians of {SLICES} slices in turn"
    );
    let verify: Vec<Call> = channels
        .into_iter()
        .map(|channel| Call::Verify {
            client: VerificationServiceClient::new(channel),
            requests: std::sync::Arc::clone(&requests),
            caller: caller.clone(),
        })
        .collect();
    let nothing: Vec<Call> = connect(&empty.address, CONNECTIONS)
        .await
        .into_iter()
        .map(|channel| Call::Empty {
            client: tonic::client::Grpc::new(channel),
            request: filler(request_bytes),
            caller: caller.clone(),
        })
        .collect();
    for warm in [(&ledger, &verify), (&empty, &nothing)] {
        load(warm.0, warm.1, None).await;
    }
    let mut pairs = Vec::new();
    for _ in 0..SLICES {
        pairs.push((load(&empty, &nothing, None).await, load(&ledger, &verify, None).await));
    }
    let report = |name: &str, pairs: &[(Slice, Slice)], figure: fn(&Slice) -> f64, budget: &str| {
        println!(
            "{name}: empty {:.1}, verify {:.1}, ratio {:.2} {budget}",
            median(pairs.iter().map(|(empty, _)| figure(empty))),
            median(pairs.iter().map(|(_, verify)| figure(verify))),
            median(pairs.iter().map(|(empty, verify)| figure(verify) / figure(empty))),
        );
    };
    report("calls/s", &pairs, |it| it.calls_per_second, "");
    report("server CPU per call, us", &pairs, |it| it.server_us, "(budget 1.2)");
    let half = median(pairs.iter().map(|(_, verify)| verify.calls_per_second)) / 2.0;
    let mut pairs = Vec::new();
    for _ in 0..SLICES {
        pairs.push((
            load(&empty, &nothing, Some(half)).await,
            load(&ledger, &verify, Some(half)).await,
        ));
    }
    println!("at half load, {half:.0} calls/s:");
    report("p99, us", &pairs, |it| it.p99_us, "(budget 1.2)");
    report("server CPU per call, us", &pairs, |it| it.server_us, "");
}

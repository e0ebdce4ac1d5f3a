//! What the benchmarks over gRPC share: servers in processes of their own, and an
//! organization with keys to ask about.

#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyledger::config::Settings;
use keyledger::node::{FirstKey, Node};
use keyledger::proto;
use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::organization_service_client::OrganizationServiceClient;
use keyledger::server::Announce;
use tonic::transport::{Channel, Endpoint};

/// The argument that makes a benchmark a server.
pub(crate) const SERVE_LEDGER: &str = "--serve-ledger";
/// Of how many of its calls a server tells the collector that it is given.
pub(crate) const OTEL_RATIO: &str = "KEYLEDGER_TEST_OTEL_RATIO";
const KEYS: usize = 20_000;

/// CPU time that a process has used so far.
fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 =
        [11, 12].iter().map(|place| fields[*place].parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// CPU time that this process has used so far.
pub(crate) fn cpu_of_this_process() -> Duration {
    cpu_of("self")
}

/// Prints where the server listens, for the process that started it.
struct Tell;

impl Announce for Tell {
    fn listening(&self, _: SocketAddr) {}
    fn first_key(&self, _: &FirstKey) {}
    fn ready(&self, _: &Node) {
        println!("ready");
    }
}

/// Serves the ledger in this process: its directory, where to listen, and a collector if
/// there is one.
pub(crate) fn serve_ledger(runtime: &tokio::runtime::Runtime, arguments: &[String]) {
    let (directory, listen) = (&arguments[0], &arguments[1]);
    let ratio = std::env::var(OTEL_RATIO).ok();
    let settings = Settings {
        otel_endpoint: arguments.get(2).map(|endpoint| endpoint.parse().expect("a URL")),
        otel_sample_ratio: ratio.map(|ratio| ratio.parse().expect("a ratio")),
        data_dir: Some(directory.into()),
        listen: Some(listen.parse().expect("an address")),
        ..Settings::default()
    };
    let config = settings.complete(None).expect("a configuration");
    runtime
        .block_on(keyledger::server::serve(config, &Tell, std::future::pending()))
        .expect("it serves");
}

/// A server in a process of its own, killed when dropped.
pub(crate) struct Served {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Served {
    /// Starts this program again, with these arguments, and waits for its first line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self { child, address: line.trim().to_owned() }
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&self.child.id().to_string())
    }

    /// Resident memory, files mapped into it aside.
    pub(crate) fn resident_megabytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("status");
        let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:")).expect("a line");
        let kilobytes: f64 =
            line.trim().trim_end_matches(" kB").parse().expect("a number of kilobytes");
        kilobytes / 1e3
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that shows this key.
pub(crate) fn with_caller<T>(message: T, caller: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", caller.parse().expect("a header"));
    request
}

/// Connections to a server.
pub(crate) async fn connect(address: &str, connections: usize) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..connections {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .tcp_nodelay(true);
        channels.push(endpoint.connect().await.expect("a connection"));
    }
    channels
}

/// Makes an organization with many keys, and the requests that verify them.
async fn prepare(address: &str, admin: &str) -> Vec<proto::VerifyRequest> {
    let channel = connect(address, 1).await.remove(0);
    let caller = format!("Bearer {admin}");
    let organization = OrganizationServiceClient::new(channel.clone())
        .create_organization(with_caller(
            proto::CreateOrganizationRequest {
                name: "Acme".into(),
                key_prefix: "vtx".into(),
                plan: String::new(),
                idempotency_key: String::new(),
            },
            &caller,
        ))
        .await
        .expect("an organization")
        .into_inner()
        .organization
        .expect("an organization");
    let mut tasks = Vec::new();
    for worker in 0..64 {
        let (channel, caller, organization_id) =
            (channel.clone(), caller.clone(), organization.id.clone());
        tasks.push(tokio::spawn(async move {
            let mut requests = Vec::new();
            for number in 0..KEYS / 64 {
                let message = proto::CreateKeyRequest {
                    organization_id: organization_id.clone(),
                    name: format!("key {worker} {number}"),
                    scopes: Some(proto::Scopes {
                        permissions: vec!["workflows:read".into(), "events:write".into()],
                    }),
                    environment: proto::Environment::Live.into(),
                    ..proto::CreateKeyRequest::default()
                };
                let made = KeyServiceClient::new(channel.clone())
                    .create_key(with_caller(message, &caller))
                    .await
                    .expect("a key");
                requests.push(proto::VerifyRequest {
                    credential: made.into_inner().secret,
                    permissions: vec!["workflows:read".into()],
                    environment: proto::Environment::Live.into(),
                    correlation_id: "cor_01M3250V000000000000000001".into(),
                    ..proto::VerifyRequest::default()
                });
            }
            requests
        }));
    }
    let mut requests = Vec::new();
    for task in tasks {
        requests.extend(task.await.expect("a worker"));
    }
    requests
}

/// A ledger with keys, the requests that verify them, and the key to ask with.
pub(crate) async fn ledger(
    root: &Path,
    collector: Option<&str>,
) -> (Served, Vec<proto::VerifyRequest>, String) {
    let directory = root.join("data");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let listen = port.to_string();
    let mut arguments = vec![SERVE_LEDGER, directory.to_str().expect("a path"), &listen];
    arguments.extend(collector);
    let mut ledger = Served::start(&arguments);
    ledger.address = listen;
    let admin = std::fs::read_to_string(directory.join("admin.key")).expect("the key");
    let admin = admin.trim();
    let requests = prepare(&ledger.address, admin).await;
    (ledger, requests, format!("Bearer {admin}"))
}

/// The middle one.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

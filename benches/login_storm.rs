//! What a storm of logins does to verification: Verify at a steady rate over gRPC, without and
//! with as many logins at once as 200 clients make that try again when too many wait, in
//! turns; how many log in; and what memory the server takes.
//!
//! Server and clients share the machine.
//!
//! Budgets and figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement prints, and stops at the first fault"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use keyledger::proto;
use keyledger::proto::organization_service_client::OrganizationServiceClient;
use keyledger::proto::session_service_client::SessionServiceClient;
use keyledger::proto::verification_service_client::VerificationServiceClient;
use support::{
    SERVE_LEDGER, Served, connect, cpu_of_this_process, ledger, median, serve_ledger, with_caller,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICES: usize = 7;
const SLICE: Duration = Duration::from_secs(2);
/// How long a storm rages before anything is measured.
const GATHERING: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 4;
const CALLS_PER_CONNECTION: usize = 16;
/// Each of them at an address of their own, as attempts from one are bounded.
const PEOPLE: usize = 50;
const LOGINS_EACH: usize = 4;
const PASSWORD: &str = "correct horse battery";
/// How long a client waits that is told to try again: at first, and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// What all clients of a storm share.
#[derive(Default)]
struct Storm {
    is_over: AtomicBool,
    logins: AtomicU64,
    told_to_wait: AtomicU64,
}

impl Storm {
    /// Logs in over and over until the storm is over. Nobody goes away in the middle of a login.
    async fn rage(&self, mut client: SessionServiceClient<Channel>, login: proto::LoginRequest) {
        let [mut pause, pause_max] = PAUSE;
        while !self.is_over.load(Relaxed) {
            match client.login(login.clone()).await {
                Ok(_) => {
                    self.logins.fetch_add(1, Relaxed);
                    pause = PAUSE[0];
                }
                Err(status) if is_busy(&status) => {
                    self.told_to_wait.fetch_add(1, Relaxed);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(pause_max);
                }
                Err(status) => panic!("{status:?}"),
            }
        }
    }
}

/// Whether as many passwords wait as may. Too many attempts are refused with the same code,
/// and would mean that no storm was measured.
fn is_busy(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("passwords")
}

/// Somebody who joined, and their connection.
struct Person {
    client: SessionServiceClient<Channel>,
    login: proto::LoginRequest,
}

/// An organization and its people.
async fn people(address: &str, caller: &str) -> Vec<Person> {
    let channel = connect(address, 1).await.remove(0);
    let mut organizations = OrganizationServiceClient::new(channel);
    let create = proto::CreateOrganizationRequest {
        name: "People".into(),
        key_prefix: "ppl".into(),
        ..Default::default()
    };
    let created = organizations.create_organization(with_caller(create, caller)).await;
    let organization = created.expect("an organization").into_inner().organization;
    let organization_id = organization.expect("an organization").id;
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let email = format!("person{number}@example.com");
        let invite = proto::InviteUserRequest {
            organization_id: organization_id.clone(),
            email: email.clone(),
            name: format!("Person {number}"),
            ..Default::default()
        };
        let invited = organizations.invite_user(with_caller(invite, caller)).await;
        let token = invited.expect("an invitation").into_inner().invitation_token;
        let accept = proto::AcceptInvitationRequest {
            token,
            password: PASSWORD.into(),
            ..Default::default()
        };
        organizations.accept_invitation(accept).await.expect("somebody joins");
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number + 1).expect("a small number"));
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .local_address(Some(IpAddr::V4(from)))
            .tcp_nodelay(true)
            .connect()
            .await
            .expect("a connection");
        let login = proto::LoginRequest { email, password: PASSWORD.into(), ..Default::default() };
        people.push(Person { client: SessionServiceClient::new(channel), login });
    }
    people
}

/// Verifications, ready to be asked for over and over.
struct Verifications {
    clients: Vec<VerificationServiceClient<Channel>>,
    requests: Arc<[proto::VerifyRequest]>,
    caller: String,
}

/// What one slice showed.
struct Slice {
    calls_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_cores: f64,
    client_cores: f64,
    logins_per_second: f64,
    waits_per_second: f64,
}

/// Verifies without pause, or at a rate, for a slice.
async fn load(
    server: &Served,
    verifications: &Verifications,
    per_second: Option<f64>,
    storm: &Storm,
) -> Slice {
    let (logins, waits) = (storm.logins.load(Relaxed), storm.told_to_wait.load(Relaxed));
    let begin = Instant::now();
    let (server_cpu, client_cpu) = (server.cpu(), cpu_of_this_process());
    let workers = CONNECTIONS * CALLS_PER_CONNECTION;
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let mut client = verifications.clients[worker % CONNECTIONS].clone();
            let requests = Arc::clone(&verifications.requests);
            let caller = verifications.caller.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut number = worker * 7_919;
                let pause = per_second.map(|rate| Duration::from_secs_f64(workers as f64 / rate));
                let offset = worker as f64 / workers as f64;
                let mut due = begin + pause.unwrap_or_default().mul_f64(offset);
                while begin.elapsed() < SLICE {
                    if let Some(pause) = pause {
                        tokio::time::sleep_until(due.into()).await;
                        due += pause;
                    }
                    let message = requests[number % requests.len()].clone();
                    let start = Instant::now();
                    let answer = client.verify(with_caller(message, &caller)).await;
                    latencies.push(start.elapsed().as_secs_f64() * 1e6);
                    assert!(answer.expect("an answer").get_ref().allowed);
                    number += 1;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a worker"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let since = |before: u64, now: &AtomicU64| (now.load(Relaxed) - before) as f64 / seconds;
    latencies.sort_by(f64::total_cmp);
    Slice {
        calls_per_second: latencies.len() as f64 / seconds,
        p50_us: latencies[latencies.len() / 2],
        p99_us: latencies[latencies.len() * 99 / 100],
        server_cores: (server.cpu() - server_cpu).as_secs_f64() / seconds,
        client_cores: (cpu_of_this_process() - client_cpu).as_secs_f64() / seconds,
        logins_per_second: since(logins, &storm.logins),
        waits_per_second: since(waits, &storm.told_to_wait),
    }
}

/// The same while people log in, and the most memory that the server was seen with.
async fn load_in_storm(
    server: &Served,
    verifications: &Verifications,
    per_second: Option<f64>,
    people: &[Person],
) -> (Slice, f64) {
    let storm = Arc::new(Storm::default());
    let mut tasks = Vec::new();
    for person in people {
        for _ in 0..LOGINS_EACH {
            let (client, login) = (person.client.clone(), person.login.clone());
            let storm = Arc::clone(&storm);
            tasks.push(tokio::spawn(async move { storm.rage(client, login).await }));
        }
    }
    let measured = async {
        tokio::time::sleep(GATHERING).await;
        let slice = load(server, verifications, per_second, &storm).await;
        storm.is_over.store(true, Relaxed);
        slice
    };
    let most = async {
        let mut most = 0.0_f64;
        while !storm.is_over.load(Relaxed) {
            most = most.max(server.resident_megabytes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    };
    let measured = tokio::join!(measured, most);
    for task in tasks {
        task.await.expect("a client");
    }
    measured
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|it| it == SERVE_LEDGER) {
        return serve_ledger(&runtime, &arguments[place + 1..]);
    }
    runtime.block_on(measure());
}

async fn measure() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let (server, requests, caller) = ledger(root.path(), None).await;
    let people = people(&server.address, &caller).await;
    let clients = connect(&server.address, CONNECTIONS).await;
    let verifications = Verifications {
        clients: clients.into_iter().map(VerificationServiceClient::new).collect(),
        requests: requests.into(),
        caller,
    };
    let calm = Storm::default();
    let mut full = Vec::new();
    for _ in 0..3 {
        full.push(load(&server, &verifications, None, &calm).await.calls_per_second);
    }
    let full = median(full.into_iter());
    let rest = server.resident_megabytes();
    println!(
        "{full:.0} verifications/s at most; {} logins at once of {PEOPLE} people; medians of {SLICES} slices of {SLICE:?} in turn; clients on the same cores",
        PEOPLE * LOGINS_EACH,
    );
    let mut most = 0.0_f64;
    for part in [2.0, 8.0] {
        let rate = full / part;
        let mut pairs = Vec::new();
        for _ in 0..SLICES {
            let without = load(&server, &verifications, Some(rate), &calm).await;
            let (with, seen) = load_in_storm(&server, &verifications, Some(rate), &people).await;
            most = most.max(seen);
            pairs.push((without, with));
        }
        println!("at 1/{part} of that, {rate:.0} verifications/s:");
        let report = |name: &str, figure: fn(&Slice) -> f64, budget: &str| {
            println!(
                "  {name}: without {:.2}, with {:.2}, ratio {:.2} {budget}",
                median(pairs.iter().map(|(without, _)| figure(without))),
                median(pairs.iter().map(|(_, with)| figure(with))),
                median(pairs.iter().map(|(without, with)| figure(with) / figure(without))),
            );
        };
        report("p50, us", |it| it.p50_us, "");
        report("p99, us", |it| it.p99_us, "(budget 2)");
        report("verifications/s", |it| it.calls_per_second, "");
        report("cores of the server", |it| it.server_cores, "");
        report("cores of the clients", |it| it.client_cores, "");
        println!(
            "  {:.1} logins/s; {:.0} a second told to try again",
            median(pairs.iter().map(|(_, with)| with.logins_per_second)),
            median(pairs.iter().map(|(_, with)| with.waits_per_second)),
        );
    }
    println!("the server's memory: {rest:.0} MB at rest, {most:.0} MB at most in a storm");
}

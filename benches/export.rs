//! What an export of a long log costs: each format over gRPC, client on the same cores, beside
//! reading and checking the same events out of the store and nothing else.
//!
//! `KEYLEDGER_BENCH_EVENTS` sets how many events there are [default: 1000000].
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

use std::path::Path;
use std::time::{Duration, Instant};

use keyledger::ledger::Ledger;
use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::event_store::{
    APPEND_EVENTS_MAX, EventStore as _, NewEvent, READ_EVENTS_MAX,
};
use keyledger::ledger::start::ConfiguredKeys;
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::Vault as _;
use keyledger::ledger::vault::seal::seal;
use keyledger::node::{ADMIN_KEY_FILE, Directories, Node, Opened};
use keyledger::proto;
use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::file::{FileVault, Start};
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, KeyCreated, KeyOrigin, KeyRevoked, KeyStateBefore, KeyedDigest,
    RevocationReason,
};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::sealed::Subject;
use support::{
    SERVE_LEDGER, Served, connect, cpu_of_this_process, median, serve_ledger, with_caller,
};
use tonic::transport::Channel;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
/// Exports of each format.
const ROUNDS: usize = 3;

fn events() -> u64 {
    let events = std::env::var("KEYLEDGER_BENCH_EVENTS").ok();
    events.map_or(1_000_000, |events| events.parse().expect("a number"))
}

fn order(command: Command) -> Order {
    Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "bench".parse().expect("an id"),
        causation_id: None,
        personal: Personal::default(),
        about: None,
    }
}

async fn make_organization(ledger: &std::sync::Arc<Ledger>) {
    let draft = OrganizationDraft {
        organization_id: ACME,
        name: "Acme".parse().expect("a name"),
        key_prefix: "vtx".parse().expect("a prefix"),
        plan: "paid".parse().expect("a plan"),
        personal_of: None,
    };
    let registered = order(Command::RegisterOrganization(draft.clone()));
    ledger.execute(OrganizationId::OPERATOR, &registered).await.expect("registered");
    ledger.execute(ACME, &order(Command::CreateOrganization(draft))).await.expect("created");
}

/// Keys that are made and revoked in turn.
fn event(number: u64) -> Event {
    let key_id = KeyId::from_parts(1_790_000_000_000, u128::from(number / 2) + 1);
    if !number.is_multiple_of(2) {
        let (reason, before) = (RevocationReason::Superseded, KeyStateBefore::Active);
        return KeyRevoked { key_id, reason, before }.into();
    }
    let blake3 = SecretDigest(*blake3::hash(&number.to_le_bytes()).as_bytes());
    KeyCreated {
        key_id,
        name: format!("key {number}").parse().expect("a name"),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: "vtx".parse().ok(),
        environment: None,
        hint: None,
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3 },
        scopes: Scopes::new(&["workflows:read", "events:write"]).ok(),
        roles: Vec::new(),
        services: None,
        expires_at: None,
        metadata: Default::default(),
        limits: Default::default(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    }
    .into()
}

async fn open_node(directory: &Path) -> Node {
    let opened = Opened::open(Directories::inside(directory)).await.expect("it opens");
    opened.replay().await.expect("it starts")
}

/// Makes an installation with an organization of so many events; gives how fast they are
/// read and checked, by the second.
async fn make_history(directory: &Path) -> f64 {
    let node = open_node(directory).await;
    node.configure(&ConfiguredKeys::default()).await.expect("an installation");
    make_organization(&node.ledger).await;
    node.leave().await;
    let began = Instant::now();
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    lengthen(&store, directory).await;
    println!("{} events written in {:.0} s", events(), began.elapsed().as_secs_f64());
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let (began, mut next) = (Instant::now(), Revision::FIRST);
        let stream = StreamName::organization(ACME);
        loop {
            let read = store.read_stream(&stream, next, READ_EVENTS_MAX).await.expect("read");
            let Some(last) = read.last() else { break };
            next = last.revision.next();
        }
        rates.push(next.0 as f64 / began.elapsed().as_secs_f64());
    }
    store.close().await;
    let node = open_node(directory).await;
    node.take_snapshots().await.expect("snapshots");
    node.leave().await;
    median(rates.into_iter())
}

async fn lengthen(store: &EmbeddedStore, directory: &Path) {
    let stream = StreamName::organization(ACME);
    let read = store.read_stream(&stream, Revision::FIRST, 100).await.expect("events");
    let last = read.last().expect("an event");
    let began = Envelope::decode(&last.stored).expect("it reads").at;
    let mut last = last.revision;
    let secrets = Directories::inside(directory).secrets;
    let (vault, _) = FileVault::open(&secrets, Start::Later).expect("a vault");
    let subject = Subject::organization_month(ACME, began);
    let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
    let personal = [("origin_ip", "192.0.2.1"), ("user_agent", "bench/1.0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    for first in (0..events()).step_by(APPEND_EVENTS_MAX) {
        let numbers = first..events().min(first + APPEND_EVENTS_MAX as u64);
        let new = numbers.map(|number| {
            let id = EventId::from_parts(1_790_000_000_000, u128::from(number) + 1);
            let envelope = Envelope {
                id,
                at: began,
                actor: Principal::Organization(ACME),
                credential: Some(KeyId::from_bytes([9; 16]).into()),
                request: None,
                correlation_id: "common".parse().expect("an id"),
                causation_id: None,
                event: event(number),
                sealed: vec![seal(&key, id, &subject, &personal).expect("sealed")],
            };
            let (stored, leaf_hash) = envelope.encode().expect("it encodes");
            let event_type = envelope.event.event_type();
            NewEvent { id, event_type, stored: stored.into(), leaf_hash }
        });
        let appended = store.append(&stream, Some(last), new.collect(), Urgency::Normal).await;
        last = appended.expect("appended");
    }
}

/// What one export showed.
struct Exported {
    events: f64,
    bytes: f64,
    seconds: f64,
    server: Duration,
    client: Duration,
    /// Resident megabytes of the server: the most up to a tenth of the events, and behind that.
    early: f64,
    late: f64,
}

async fn export(
    server: &Served,
    client: &mut AuditServiceClient<Channel>,
    caller: &str,
    format: proto::ExportFormat,
    filter: Option<proto::ActivityFilter>,
) -> Exported {
    let message = proto::ExportActivityRequest {
        organization_id: ACME.text(),
        format: format.into(),
        filter,
        ..Default::default()
    };
    let (began, of_server, of_client) = (Instant::now(), server.cpu(), cpu_of_this_process());
    let answer = client.export_activity(with_caller(message, caller)).await.expect("an export");
    let (mut pieces, mut bytes, mut told) = (answer.into_inner(), 0, 0);
    let (mut early, mut late) = (0.0_f64, 0.0_f64);
    let (mut number, mut complete) = (0, false);
    while let Some(piece) = pieces.message().await.expect("a piece") {
        bytes += piece.data.len();
        (told, complete) = (piece.events, piece.complete);
        number += 1;
        if number % 64 == 0 {
            let memory = server.resident_megabytes();
            let most = if told < events() / 10 { &mut early } else { &mut late };
            *most = most.max(memory);
        }
    }
    assert!(complete, "the last piece says that nothing follows");
    Exported {
        events: told as f64,
        bytes: bytes as f64,
        seconds: began.elapsed().as_secs_f64(),
        server: server.cpu().saturating_sub(of_server),
        client: cpu_of_this_process().saturating_sub(of_client),
        early,
        late,
    }
}

async fn run(root: &Path) {
    let directory = root.join("data");
    let reads = make_history(&directory).await;
    println!("{reads:.0} events/s are read out of the store and checked, nothing else");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let listen = port.to_string();
    let mut server = Served::start(&[SERVE_LEDGER, directory.to_str().expect("a path"), &listen]);
    server.address = listen;
    let admin = std::fs::read_to_string(directory.join(ADMIN_KEY_FILE)).expect("the key");
    let caller = format!("Bearer {}", admin.trim());
    let channel = connect(&server.address, 1).await.remove(0);
    let mut client = AuditServiceClient::new(channel);
    println!("resident memory of the server {:.0} MB before", server.resident_megabytes());
    let rare = proto::ActivityFilter { text: "nobody".to_owned(), ..Default::default() };
    for (name, format, filter) in [
        ("JSON Lines", proto::ExportFormat::JsonLines, None),
        ("JSON Lines, a word nobody has", proto::ExportFormat::JsonLines, Some(rare)),
        ("CSV", proto::ExportFormat::Csv, None),
        ("OCSF", proto::ExportFormat::OcsfCloudevents, None),
    ] {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let it = export(&server, &mut client, &caller, format, filter.clone()).await;
            let each = |time: Duration| time.as_secs_f64() * 1e6 / it.events;
            println!(
                "{name:<30} {:>8.0} events/s {:>5.0} MB/s   CPU of an event: server {:.1} us, client {:.1} us   memory up to a tenth {:.0} MB, behind it {:.0} MB",
                it.events / it.seconds,
                it.bytes / it.seconds / 1e6,
                each(it.server),
                each(it.client),
                it.early,
                it.late,
            );
            rates.push(it.events / it.seconds);
        }
        let rate = median(rates.into_iter());
        println!("{name:<30} {rate:>8.0} events/s, median; {:.2} of reading alone", rate / reads);
    }
    println!("resident memory of the server {:.0} MB at the end", server.resident_megabytes());
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == SERVE_LEDGER) {
        return serve_ledger(&runtime, &arguments[1..]);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).expect("a directory");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    runtime.block_on(run(root.path()));
}

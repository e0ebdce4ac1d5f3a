//! What emergency access costs: uses of one grant on a real disk, beside appends of events of
//! the same size in turn; and the replay over gRPC of a grant that was used a million times.
//!
//! `KEYLEDGER_BENCH_EVENTS` sets how many uses are replayed [default: 1000000].
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyledger::ledger::break_glass::{Emergent, GivenReason, Opening};
use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::event_store::{APPEND_EVENTS_MAX, EventStore as _, NewEvent};
use keyledger::ledger::start::{ConfiguredBreakGlass, ConfiguredCustodian, ConfiguredKeys, Parts};
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::Vault as _;
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::vault::seal::seal;
use keyledger::ledger::verify::Reach;
use keyledger::ledger::{Ledger, clock::Clock, secret::Ids, secret::Secret};
use keyledger::node::{ADMIN_KEY_FILE, Directories, Node, Opened};
use keyledger::proto;
use keyledger::proto::break_glass_service_client::BreakGlassServiceClient;
use keyledger::store::conformance::event;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::file::{FileVault, Start};
use keyledger::vault::memory::MemoryVault;
use projections::envelope::Envelope;
use projections::event::{
    BreakGlassAsked, BreakGlassEndReason, BreakGlassEnded, BreakGlassRules, Event,
};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::organization::Change;
use projections::permission::Scopes;
use projections::recorded::{Revision, StreamName};
use projections::sealed::Subject;
use projections::verification::Code;
use sha2::{Digest as _, Sha256};
use support::{
    SERVE_LEDGER, Served, connect, cpu_of_this_process, median, serve_ledger, with_caller,
};

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
const MASTER_KEY: &str = "klmk_0123456789012345678901234567890123456789";
/// Each of the two runs for a slice, in turn: what else happens on the machine meets both.
const SLICES: usize = 30;
const SLICE: Duration = Duration::from_millis(150);
/// Replays, without evidence and with it.
const REPLAYS: usize = 3;

fn uses() -> u64 {
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

/// Rules that let one custodian open grants on their own.
fn configured() -> ConfiguredKeys {
    let custodian = ConfiguredCustodian {
        name: "alice".parse().expect("a name"),
        account_id: None,
        sha256: Sha256::digest(MASTER_KEY.as_bytes()).into(),
    };
    let rules = BreakGlassRules {
        custodians: Vec::new(),
        permissions: Scopes::new(&["api-keys:read", "api-keys:write"]).expect("scopes"),
        duration_seconds: 86_400,
        duration_max_seconds: 86_400,
        approval_required: false,
        approval_seconds: 300,
        review_required: false,
        review_seconds: 3_600,
        reason_required: true,
        incident_required: false,
        openings_max: 100,
        openings_seconds: 3_600,
    };
    let break_glass = Some(ConfiguredBreakGlass { rules, custodians: vec![custodian] });
    ConfiguredKeys { break_glass, ..ConfiguredKeys::default() }
}

/// Makes the organization and opens a grant for it: its token.
async fn open_grant(ledger: &Arc<Ledger>) -> Secret {
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
    let custodian = ledger.custodian(MASTER_KEY).expect("a custodian");
    let opening = Opening {
        organization_id: ACME,
        reason: "the pager rang".parse().expect("a reason"),
        permissions: None,
        duration_seconds: None,
        incident: None,
    };
    let caller = custodian.caller();
    let opened =
        ledger.open_grant(&custodian, opening, |command| Order { caller, ..order(command) });
    let (executed, token) = opened.await.expect("a grant");
    assert!(matches!(executed.outcome, Change::BreakGlass(_)), "{executed:?}");
    token
}

/// A request under the grant, as a service asks about it: from where it came stands sealed.
fn request() -> Emergent {
    Emergent {
        asked: BreakGlassAsked {
            permissions: Scopes::new(&["api-keys:write"]).ok(),
            asked_with: Some(KeyId::from_bytes([9; 16]).into()),
            ..BreakGlassAsked::default()
        },
        tenant: Some(ACME),
        environment: None,
        client_ip: "192.0.2.1".parse().ok(),
        reason: GivenReason::None,
        reach: Reach::Installation,
        correlation_id: "cor_01M3250V000000000000000001".parse().expect("an id"),
    }
}

async fn use_grant(ledger: &Arc<Ledger>, token: &Secret) {
    let emergency = ledger.emergency(token.expose(), Reach::Installation).expect("a token");
    let answer = ledger.use_break_glass(emergency, request()).await.expect("an answer");
    assert_eq!(answer.code, Code::Allowed);
}

/// The last event of the organization, as it is stored, and its place.
async fn last_event(store: &EmbeddedStore) -> (Vec<u8>, Revision) {
    let stream = StreamName::organization(ACME);
    let read = store.read_stream(&stream, Revision::FIRST, 100).await.expect("events");
    let last = read.last().expect("an event");
    (last.stored.to_vec(), last.revision)
}

/// One who does the same over and over, and waits for it each time.
enum Asker {
    Use { ledger: Arc<Ledger>, token: Arc<Secret> },
    Append { store: Arc<EmbeddedStore>, writer: usize, last: Option<Revision>, bytes: usize },
}

impl Asker {
    async fn ask(&mut self, number: u64) {
        match self {
            Self::Use { ledger, token } => use_grant(ledger, token).await,
            Self::Append { store, writer, last, bytes } => {
                let stream = StreamName::from_store(&format!("org-{writer:026}"));
                let new = vec![event(number, *bytes)];
                let appended = store.append(&stream, *last, new, Urgency::Normal);
                *last = Some(appended.await.expect("an append"));
            }
        }
    }
}

/// How often a second all of them together did it, and how many microseconds each took.
async fn slice(askers: &mut Vec<Asker>) -> (f64, Vec<f64>) {
    let began = Instant::now();
    let tasks: Vec<_> = askers
        .drain(..)
        .map(|mut asker| {
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < SLICE {
                    let start = Instant::now();
                    asker.ask(latencies.len() as u64).await;
                    latencies.push(start.elapsed().as_secs_f64() * 1e6);
                }
                (asker, latencies)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let (asker, latencies) = task.await.expect("an asker");
        askers.push(asker);
        all.extend(latencies);
    }
    (all.len() as f64 / began.elapsed().as_secs_f64(), all)
}

fn percentiles(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[figures.len() * 99 / 100])
}

/// Uses of one grant, beside appends to a store of its own.
async fn measure_uses(root: &Path) {
    let open = |name: &str| {
        Arc::new(EmbeddedStore::open(&Options::new(root.join(name))).expect("a store"))
    };
    let (of_ledger, port) = (open("uses"), open("port"));
    let parts = Parts {
        store: Arc::clone(&of_ledger) as _,
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().expect("entropy"),
        peppers: Peppers::new(PepperId::FIRST, [7; 32].into()),
        lookup_key: [2; 32].into(),
    };
    let (ledger, _) = Ledger::open(parts).await.expect("it opens");
    ledger.create_installation(None, &configured()).await.expect("an installation");
    let token = Arc::new(open_grant(&ledger).await);
    use_grant(&ledger, &token).await;
    let bytes = last_event(&of_ledger).await.0.len();
    println!(
        "uses of one grant, events of {bytes} bytes: medians of {SLICES} slices in turn with the store's port"
    );
    println!("askers    uses/s (p50, p99 us)    appends/s (p50, p99 us)    ratio  p50   p99");
    for (run, askers) in [1, 8, 64].into_iter().enumerate() {
        let mut users: Vec<_> = (0..askers)
            .map(|_| Asker::Use { ledger: Arc::clone(&ledger), token: Arc::clone(&token) })
            .collect();
        let mut writers: Vec<_> = (0..askers)
            .map(|number| Asker::Append {
                store: Arc::clone(&port),
                writer: run * 100 + number,
                last: None,
                bytes,
            })
            .collect();
        let (mut rates, mut of_uses, mut of_appends) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SLICES {
            let (uses, latencies) = slice(&mut users).await;
            of_uses.extend(latencies);
            let (appends, latencies) = slice(&mut writers).await;
            of_appends.extend(latencies);
            rates.push((uses, appends));
        }
        let (uses, appends) = (percentiles(of_uses), percentiles(of_appends));
        println!(
            "{askers:>6} {:>9.0} ({:.0}, {:.0}) {:>14.0} ({:.0}, {:.0}) {:>10.2} {:>6.2} {:>5.2}",
            median(rates.iter().map(|(uses, _)| *uses)),
            uses.0,
            uses.1,
            median(rates.iter().map(|(_, appends)| *appends)),
            appends.0,
            appends.1,
            median(rates.iter().map(|(uses, appends)| uses / appends)),
            uses.0 / appends.0,
            uses.1 / appends.1,
        );
    }
    drop(ledger);
    of_ledger.close().await;
    port.close().await;
}

async fn open_node(directory: &Path) -> Node {
    let opened = Opened::open(Directories::inside(directory)).await.expect("it opens");
    opened.replay().await.expect("it starts")
}

/// Makes an installation with a grant that was used so often, and has ended: the grant.
async fn make_history(directory: &Path, uses: u64) -> String {
    let node = open_node(directory).await;
    node.configure(&configured()).await.expect("an installation");
    let token = open_grant(&node.ledger).await;
    use_grant(&node.ledger, &token).await;
    node.leave().await;
    let began = Instant::now();
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    let grant_id = lengthen(&store, directory, uses).await;
    store.close().await;
    println!("{uses} uses written in {:.0} s", began.elapsed().as_secs_f64());
    let node = open_node(directory).await;
    node.take_snapshots().await.expect("snapshots");
    node.leave().await;
    grant_id
}

/// Appends so many uses like the last event, which is one, and an end.
async fn lengthen(store: &EmbeddedStore, directory: &Path, uses: u64) -> String {
    let (stored, mut last) = last_event(store).await;
    let model = Envelope::decode(&stored).expect("a use");
    let Event::BreakGlassUsed(used) = &model.event else { panic!("{model:?}") };
    let secrets = Directories::inside(directory).secrets;
    let (vault, _) = FileVault::open(&secrets, Start::Later).expect("a vault");
    let subject = Subject::organization_month(ACME, model.at);
    let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
    let personal = [("origin_ip".to_owned(), "192.0.2.1".to_owned())].into();
    let new_event = |number: u64, event: Event| {
        let id = EventId::from_parts(1_790_000_000_000, u128::from(number) + 1);
        let sealed = vec![seal(&key, id, &subject, &personal).expect("sealed")];
        let envelope = Envelope { id, event, sealed, ..model.clone() };
        let (stored, leaf_hash) = envelope.encode().expect("it encodes");
        let event_type = envelope.event.event_type();
        NewEvent { id, event_type, stored: stored.into(), leaf_hash }
    };
    let stream = StreamName::organization(ACME);
    for first in (0..uses).step_by(APPEND_EVENTS_MAX) {
        let numbers = first..uses.min(first + APPEND_EVENTS_MAX as u64);
        let new = numbers.map(|number| new_event(number, used.clone().into())).collect();
        let appended = store.append(&stream, Some(last), new, Urgency::Normal).await;
        last = appended.expect("appended");
    }
    let ended = BreakGlassEnded {
        grant_id: used.grant_id,
        reason: BreakGlassEndReason::Closed,
        ended_at: model.at,
        server_was_down: false,
    };
    let end = vec![new_event(uses, ended.into())];
    store.append(&stream, Some(last), end, Urgency::Normal).await.expect("appended");
    used.grant_id.text()
}

/// What one replay showed.
struct Replayed {
    entries: f64,
    seconds: f64,
    server: Duration,
    client: Duration,
    /// Resident megabytes of the server: the most among looks at it up to a tenth of the
    /// entries, and behind that.
    early: f64,
    late: f64,
}

async fn replay(
    server: &Served,
    client: &mut BreakGlassServiceClient<tonic::transport::Channel>,
    (caller, grant_id): (&str, &str),
    (uses, evidence): (u64, bool),
) -> Replayed {
    let message = proto::ReplayGrantRequest {
        organization_id: ACME.text(),
        grant_id: grant_id.to_owned(),
        evidence,
        ..Default::default()
    };
    let (began, of_server, of_client) = (Instant::now(), server.cpu(), cpu_of_this_process());
    let answer = client.replay_grant(with_caller(message, caller)).await.expect("a replay");
    let (mut pieces, mut entries) = (answer.into_inner(), 0);
    let (mut early, mut late) = (0.0_f64, 0.0_f64);
    let (mut number, mut complete) = (0, false);
    while let Some(piece) = pieces.message().await.expect("a piece") {
        entries += piece.entries.len();
        complete = piece.complete;
        if let Some(entry) = piece.entries.last() {
            let (entry, stored) = (entry.entry.as_ref().expect("an entry"), &entry.stored);
            let personal = entry.personal_data.as_ref().expect("where from");
            assert_eq!(personal.origin_ip, "192.0.2.1");
            assert_eq!(stored.as_ref().map_or(0, |it| it.keys.len()), usize::from(evidence));
        }
        number += 1;
        if number % 16 == 0 {
            let memory = server.resident_megabytes();
            let most = if (entries as u64) < uses / 10 { &mut early } else { &mut late };
            *most = most.max(memory);
        }
    }
    assert!(complete, "the last piece says that nothing follows");
    Replayed {
        entries: entries as f64,
        seconds: began.elapsed().as_secs_f64(),
        server: server.cpu().saturating_sub(of_server),
        client: cpu_of_this_process().saturating_sub(of_client),
        early,
        late,
    }
}

/// A server in a process of its own replays the grant.
async fn measure_replays(root: &Path) {
    let (directory, uses) = (root.join("data"), uses());
    let grant_id = make_history(&directory, uses).await;
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let listen = port.to_string();
    let mut server = Served::start(&[SERVE_LEDGER, directory.to_str().expect("a path"), &listen]);
    server.address = listen;
    let admin = std::fs::read_to_string(directory.join(ADMIN_KEY_FILE)).expect("the key");
    let caller = format!("Bearer {}", admin.trim());
    let mut client = BreakGlassServiceClient::new(connect(&server.address, 1).await.remove(0));
    println!(
        "replay over gRPC of a grant with {uses} uses, client on the same cores; resident memory of the server {:.0} MB before",
        server.resident_megabytes()
    );
    for evidence in [false, true] {
        let mut rates = Vec::new();
        for _ in 0..REPLAYS {
            let it = replay(&server, &mut client, (&caller, &grant_id), (uses, evidence)).await;
            // The opening, the use that the others are like, and the end.
            assert_eq!(it.entries, uses as f64 + 3.0);
            let each = |time: Duration| time.as_secs_f64() * 1e6 / it.entries;
            println!(
                "evidence {evidence:<5} {:>8.0} entries/s   CPU of an entry: server {:.1} us, client {:.1} us   memory up to a tenth {:.0} MB, behind it {:.0} MB, at the end {:.0} MB",
                it.entries / it.seconds,
                each(it.server),
                each(it.client),
                it.early,
                it.late,
                server.resident_megabytes(),
            );
            rates.push(it.entries / it.seconds);
        }
        let budget = if evidence { "" } else { "(budget 100,000)" };
        println!(
            "evidence {evidence:<5} {:>8.0} entries/s, median {budget}",
            median(rates.into_iter())
        );
    }
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
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    runtime.block_on(measure_uses(root.path()));
    runtime.block_on(measure_replays(root.path()));
}

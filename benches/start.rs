//! How long the server takes from its start until it answers, where there is a long history:
//! from snapshots, from snapshots with a tail behind them, and without any.
//!
//! 1,000,000 keys in 100 organizations, nine of ten events relabellings of them, and a
//! recorded use of every key. The server is this program in a process of its own, with the
//! real configuration, vault and files. Nothing clears the page cache.
//!
//! `KEYLEDGER_BENCH_EVENTS` sets how many events there are [default: 10000000].
//!
//! Figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keyledger::ledger::Ledger;
use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::event_store::{EventStore as _, NewEvent};
use keyledger::ledger::start::ConfiguredKeys;
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::seal::seal;
use keyledger::ledger::vault::{SubjectKey, Vault as _};
use keyledger::node::{Directories, Node, Opened};
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, KeyCreated, KeyLabel, KeyOrigin, KeyRelabelled, KeyUses, KeyedDigest,
    UsageRecorded,
};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::sealed::Subject;
use projections::time::Timestamp;
use support::{SERVE_LEDGER, Served, median};

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const ORGANIZATIONS: u64 = 100;
const KEYS_EACH: u64 = KEYS / ORGANIZATIONS;
/// Events in one append.
const AT_ONCE: u64 = 500;
/// What a kill may leave behind the last snapshots.
const TAIL: u64 = 65_535;
const STARTS: usize = 5;

fn events() -> u64 {
    let events = std::env::var("KEYLEDGER_BENCH_EVENTS").ok();
    events.map_or(10_000_000, |events| events.parse().expect("a number"))
}

fn organization(number: u64) -> OrganizationId {
    OrganizationId::from_parts(1_790_000_000_000, u128::from(number) + 1)
}

fn key_id(organization: u64, number: u64) -> KeyId {
    let number = organization * KEYS_EACH + number;
    KeyId::from_parts(1_790_000_000_000, u128::from(number) + 1)
}

fn label(number: u64, round: u64) -> KeyLabel {
    let name = format!("key {number} {round}").parse().expect("a name");
    KeyLabel { name, description: None }
}

/// One event of an organization's stream: each key is made, then all are relabelled again
/// and again.
fn event(organization: u64, number: u64) -> Event {
    let (key, round) = (number % KEYS_EACH, number / KEYS_EACH);
    let key_id = key_id(organization, key);
    if round > 0 {
        let (label, before) = (label(key, round), label(key, round - 1));
        return KeyRelabelled { key_id, label, before }.into();
    }
    let blake3 = SecretDigest(*blake3::hash(&key_id.to_bytes()).as_bytes());
    KeyCreated {
        key_id,
        name: label(key, 0).name,
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

fn uses(organization: u64, first: u64, at: Timestamp) -> Event {
    let keys = (first..first + AT_ONCE).map(|key| KeyUses {
        key_id: key_id(organization, key),
        uses: 3,
        last_used_at: at,
    });
    UsageRecorded { keys: keys.collect() }.into()
}

/// What every event is sealed with, and when the history began.
struct Written {
    began: Timestamp,
    subject: Subject,
    key: SubjectKey,
}

impl Written {
    fn new_event(&self, number: u64, event: Event) -> NewEvent {
        let id = EventId::from_parts(1_790_000_000_000, u128::from(number) + 1);
        let personal = [("origin_ip", "192.0.2.1"), ("user_agent", "bench/1.0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let envelope = Envelope {
            id,
            at: self.began,
            actor: Principal::Ledger,
            credential: Some(KeyId::from_bytes([9; 16]).into()),
            request: None,
            correlation_id: "bench".parse().expect("an id"),
            causation_id: None,
            event,
            sealed: vec![seal(&self.key, id, &self.subject, &personal).expect("sealed")],
        };
        let (stored, leaf_hash) = envelope.encode().expect("it encodes");
        let event_type = envelope.event.event_type();
        NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash }
    }
}

async fn order(ledger: &Arc<Ledger>, organization: OrganizationId, command: Command) {
    let order = Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "bench".parse().expect("an id"),
        causation_id: None,
        personal: Personal::default(),
        about: None,
    };
    ledger.execute(organization, &order).await.expect("executed");
}

async fn open(directory: &Path) -> Node {
    let opened = Opened::open(Directories::inside(directory)).await.expect("it opens");
    opened.replay().await.expect("it starts")
}

async fn install(directory: &Path) -> Timestamp {
    let node = open(directory).await;
    node.configure(&ConfiguredKeys::default()).await.expect("an installation");
    for number in 0..ORGANIZATIONS {
        let draft = OrganizationDraft {
            organization_id: organization(number),
            name: format!("Organization {number}").parse().expect("a name"),
            key_prefix: format!("vtx{number}").parse().expect("a prefix"),
            plan: "paid".parse().expect("a plan"),
            personal_of: None,
        };
        let ledger = &node.ledger;
        order(ledger, OrganizationId::OPERATOR, Command::RegisterOrganization(draft.clone())).await;
        order(ledger, draft.organization_id, Command::CreateOrganization(draft)).await;
    }
    let began = node.ledger.clock().now();
    node.leave().await;
    began
}

/// Appends so many events, evenly to all organizations, behind those that are there.
async fn lengthen(directory: &Path, written: &Written, from: u64, to: u64) {
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    let (from, to) = (from / ORGANIZATIONS, to / ORGANIZATIONS);
    for number in 0..ORGANIZATIONS {
        let stream = StreamName::organization(organization(number));
        for first in (from..to).step_by(AT_ONCE as usize) {
            let new = (first..to.min(first + AT_ONCE))
                .map(|at| written.new_event(at * ORGANIZATIONS + number, event(number, at)));
            // Behind the event that began the stream.
            let last = Some(Revision(first));
            let appended = store.append(&stream, last, new.collect(), Urgency::Normal).await;
            appended.expect("appended");
        }
    }
    store.close().await;
}

async fn note_uses(directory: &Path, written: &Written) {
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    for number in 0..ORGANIZATIONS {
        let stream = StreamName::usage(organization(number));
        let mut last = None;
        for first in (0..KEYS_EACH).step_by(AT_ONCE as usize) {
            let id = u64::MAX - number * KEYS_EACH - first;
            let new = written.new_event(id, uses(number, first, written.began));
            let appended = store.append(&stream, last, vec![new], Urgency::Normal).await;
            last = Some(appended.expect("appended"));
        }
    }
    store.close().await;
}

/// Seconds from the start of the process until the server answers; it is killed then.
fn start(directory: &Path) -> f64 {
    let began = Instant::now();
    let arguments = [SERVE_LEDGER, directory.to_str().expect("a path"), "127.0.0.1:0"];
    let served = Served::start(&arguments);
    let took = began.elapsed().as_secs_f64();
    drop(served);
    took
}

fn report(what: &str, directory: &Path, starts: usize, events: u64) {
    let mut all: Vec<f64> = (0..starts).map(|_| start(directory)).collect();
    all.sort_by(f64::total_cmp);
    let middle = median(all.iter().copied());
    let rate = events as f64 / middle;
    print!("{what:<44} {middle:>7.2} s  ({:.2} to {:.2})", all[0], all[all.len() - 1]);
    if events > 0 { println!("  {rate:>9.0} events/s") } else { println!() }
}

fn size(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |it| it.len() as f64) / 1e6
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|it| it == SERVE_LEDGER) {
        return support::serve_ledger(&runtime, &arguments[1..]);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let directory = root.path().join("data");
    let events = events();
    let written = runtime.block_on(async {
        let began = install(&directory).await;
        let vault = MemoryVault::new();
        let subject = Subject::organization_month(organization(0), began);
        let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
        let written = Written { began, subject, key };
        let began = Instant::now();
        lengthen(&directory, &written, 0, events).await;
        note_uses(&directory, &written).await;
        println!(
            "{events} events written in {:.0} s: {:.0} MB",
            began.elapsed().as_secs_f64(),
            size(&directory.join("ledger.db"))
        );
        written
    });
    let derived = directory.join("projections.db");
    // Killed as it becomes ready, the server has had no time for snapshots.
    report("without snapshots", &directory, 1, events);
    runtime.block_on(async {
        let node = open(&directory).await;
        let began = Instant::now();
        node.take_snapshots().await.expect("snapshots");
        println!(
            "snapshots of {} keys: {:.2} s, {:.0} MB",
            node.ledger.tables().indexed_keys(),
            began.elapsed().as_secs_f64(),
            size(&derived)
        );
        node.leave().await;
    });
    report("from snapshots", &directory, STARTS, 0);
    runtime.block_on(lengthen(&directory, &written, events, events + TAIL));
    report("from snapshots, and 65,500 events", &directory, STARTS, 0);
}

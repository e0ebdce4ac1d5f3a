//! What questions about the past cost: ten organizations of 100,000 keys each and a long
//! history, on a real disk, asked through the service but not over the network, at random
//! moments, with a fixed seed.
//!
//! `KEYLEDGER_BENCH_EVENTS` sets how many events there are [default: 10000000].
//!
//! Figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keyledger::ledger::Ledger;
use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::event_store::{EventStore as _, NewEvent};
use keyledger::ledger::history::keeping::Pace;
use keyledger::ledger::start::ConfiguredKeys;
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::seal::seal;
use keyledger::ledger::vault::{SubjectKey, Vault as _};
use keyledger::node::{Directories, Node, Opened};
use keyledger::proto::audit_service_server::AuditService as _;
use keyledger::proto::state_at_request::Moment;
use keyledger::proto::{
    ExplainDecisionRequest, PastTable, StateAtRequest, StateAtResponse, explain_decision_request,
};
use keyledger::services::Door;
use keyledger::services::audit::Audit;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, KeyCreated, KeyLabel, KeyOrigin, KeyRelabelled, KeyedDigest,
};
use projections::id::{EventId, KeyId, OrganizationId};
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::sealed::Subject;
use projections::time::Timestamp;
use tonic::Request;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ORGANIZATIONS: u64 = 10;
const KEYS_EACH: u64 = 100_000;
/// One event in so many makes a key, until all are there.
const KEY_EVERY: u64 = 5;
/// Events of one millisecond.
const EVENTS_PER_MS: u64 = 100;
const AT_ONCE: u64 = 1_000;
/// How often each question is asked.
const QUESTIONS: usize = 100;

fn events_each() -> u64 {
    let events = std::env::var("KEYLEDGER_BENCH_EVENTS").ok();
    events.map_or(10_000_000, |it| it.parse::<u64>().expect("a number")) / ORGANIZATIONS
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

/// How many keys there are behind so many events.
fn keys_by(number: u64) -> u64 {
    (number.div_ceil(KEY_EVERY)).min(KEYS_EACH)
}

/// One event of an organization's stream: keys are made, and relabelled all the while.
fn event(organization: u64, number: u64) -> Event {
    let keys = keys_by(number);
    if !number.is_multiple_of(KEY_EVERY) || keys == KEYS_EACH {
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys.max(1);
        let key_id = key_id(organization, key);
        return KeyRelabelled { key_id, label: label(key, number), before: label(key, 0) }.into();
    }
    let key_id = key_id(organization, keys);
    let blake3 = SecretDigest(*blake3::hash(&key_id.to_bytes()).as_bytes());
    KeyCreated {
        key_id,
        name: label(keys, 0).name,
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

/// What every event is sealed with, and when the history began.
struct Written {
    began: Timestamp,
    subject: Subject,
    key: SubjectKey,
}

impl Written {
    fn at(&self, number: u64) -> Timestamp {
        let millis = i64::try_from(number / EVENTS_PER_MS).expect("it fits");
        self.began.saturating_add_millis(millis)
    }

    fn new_event(&self, organization: u64, number: u64) -> NewEvent {
        let id = u128::from(number * ORGANIZATIONS + organization) + 1;
        let id = EventId::from_parts(1_790_000_000_000, id);
        let personal = [("origin_ip", "192.0.2.1"), ("user_agent", "bench/1.0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let envelope = Envelope {
            id,
            at: self.at(number),
            actor: Principal::Ledger,
            credential: Some(KeyId::from_bytes([9; 16]).into()),
            request: None,
            correlation_id: "bench".parse().expect("an id"),
            causation_id: None,
            event: event(organization, number),
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

/// Makes the organizations; gives the operator's key and the time.
async fn install(directory: &Path) -> (String, Timestamp) {
    let node = open(directory).await;
    let first = node.configure(&ConfiguredKeys::default()).await.expect("an installation");
    let admin = first.expect("the first key").secret.expose().to_owned();
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
    (admin, began)
}

async fn lengthen(directory: &Path, written: &Written, events: u64) {
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    for number in 0..ORGANIZATIONS {
        let stream = StreamName::organization(organization(number));
        for first in (0..events).step_by(usize::try_from(AT_ONCE).expect("it fits")) {
            let new = first..events.min(first + AT_ONCE);
            let new = new.map(|at| written.new_event(number, at)).collect();
            // Behind the event that began the stream.
            let last = Some(Revision(first));
            store.append(&stream, last, new, Urgency::Normal).await.expect("appended");
        }
    }
    store.close().await;
}

/// Milliseconds, and what was answered.
async fn timed<T>(answer: impl Future<Output = T>) -> (f64, T) {
    let began = Instant::now();
    let answer = answer.await;
    (began.elapsed().as_secs_f64() * 1e3, answer)
}

fn print(what: &str, mut latencies: Vec<f64>) {
    latencies.sort_by(f64::total_cmp);
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or(f64::NAN);
    let worst = latencies.last().copied().unwrap_or(f64::NAN);
    println!("{what:<56} p50 {:>7.2} ms   p90 {:>7.2} ms   worst {worst:>7.2} ms", at(50), at(90));
}

struct Asking {
    audit: Audit,
    admin: String,
}

impl Asking {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.admin).parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        request
    }

    async fn state(&self, message: StateAtRequest) -> StateAtResponse {
        self.audit.state_at(self.request(message)).await.expect("an answer").into_inner()
    }
}

fn wire(at: Timestamp) -> prost_types::Timestamp {
    let millis = at.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).expect("it fits");
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// Asks at random moments of random organizations.
async fn ask(asking: &Asking, written: &Written, events: u64, what: &str) {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut first, mut second, mut object, mut explain, mut again) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..QUESTIONS {
        let (number, event) = (random.u64(0..ORGANIZATIONS), random.u64(events / 10..events));
        let at = wire(written.at(event));
        let page = StateAtRequest {
            organization_id: organization(number).text(),
            moment: Some(Moment::At(at)),
            table: PastTable::Keys.into(),
            ..StateAtRequest::default()
        };
        let (took, answer) = timed(asking.state(page.clone())).await;
        assert_eq!(answer.keys.len(), 100);
        first.push(took);
        let page_token = answer.next_page_token;
        let (took, answer) =
            timed(asking.state(StateAtRequest { page_token, ..page.clone() })).await;
        assert_eq!(answer.keys.len(), 100);
        second.push(took);
        let key = key_id(number, random.u64(0..keys_by(event))).text();
        let one = StateAtRequest { object_id: key, ..page };
        let (took, answer) = timed(asking.state(one)).await;
        assert_eq!(answer.keys.len(), 1);
        object.push(took);
    }
    for _ in 0..QUESTIONS {
        let (number, event) = (random.u64(0..ORGANIZATIONS), random.u64(events / 10..events));
        let message = ExplainDecisionRequest {
            organization_id: organization(number).text(),
            credential_id: key_id(number, random.u64(0..keys_by(event))).text(),
            moment: Some(explain_decision_request::Moment::At(wire(written.at(event)))),
            permissions: vec!["workflows:read".to_owned()],
            ..ExplainDecisionRequest::default()
        };
        for latencies in [&mut explain, &mut again] {
            let request = asking.request(message.clone());
            let (took, answer) = timed(asking.audit.explain_decision(request)).await;
            let answer = answer.expect("an answer").into_inner();
            assert!(answer.decision.is_some_and(|it| it.allowed));
            latencies.push(took);
        }
    }
    print(&format!("{what}: first page of a table"), first);
    print(&format!("{what}: second page"), second);
    print(&format!("{what}: one key and 10,000 events looked at for it"), object);
    print(&format!("{what}: a decision explained"), explain);
    print(&format!("{what}: another at the same moment"), again);
}

fn megabytes(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |it| it.len() as f64) / 1e6
}

async fn run(root: &Path) {
    let directory = root.join("data");
    let events = events_each();
    let (admin, began) = install(&directory).await;
    let vault = MemoryVault::new();
    let subject = Subject::organization_month(organization(0), began);
    let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
    let written = Written { began, subject, key };
    let (took, ()) = timed(lengthen(&directory, &written, events)).await;
    let size = megabytes(&directory.join("ledger.db"));
    println!("{} events written in {:.0} s: {size:.0} MB", events * ORGANIZATIONS, took / 1e3);
    let node = open(&directory).await;
    node.take_snapshots().await.expect("snapshots");
    let before = megabytes(&directory.join("projections.db"));
    let (took, kept) = timed(node.ledger.keep_past(Pace::Steady)).await;
    let after = megabytes(&directory.join("projections.db"));
    println!(
        "tables kept as they were: {} in {:.1} s, {:.0} MB",
        kept.expect("kept"),
        took / 1e3,
        after - before
    );
    let door = Door::closed(16, Vec::new());
    door.open(Arc::clone(&node.ledger));
    let asking = Asking { audit: Audit::new(door), admin };
    ask(&asking, &written, events, "kept").await;
    node.leave().await;
}

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).expect("a directory");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(root.path()));
}

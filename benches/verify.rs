//! What a verification costs inside the process, as a ratio to what it cannot do
//! without: the keyed hash of the credential and one probe of the same map. With it,
//! what a million keys cost in memory, and how fast their history replays.
//!
//! Budgets and figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keyledger::ledger::Ledger;
use keyledger::ledger::clock::Clock;
use keyledger::ledger::event_store::{EventStore, NewEvent};
use keyledger::ledger::mint;
use keyledger::ledger::secret::Ids;
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::verify::{Answer, Asking, Purpose, Reach};
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::api_key::{self, Environment};
use projections::envelope::Envelope;
use projections::event::{
    Event, Hint, KeyCreated, KeyOrigin, OrganizationCreated, OrganizationRegistered,
};
use projections::id::{KeyId, OrganizationId};
use projections::permission::{Permission, Scopes};
use projections::presented::Presented;
use projections::principal::Principal;
use projections::recorded::{Revision, StreamName};
use projections::sealed::{Sealed, Subject};
use projections::verification::{Code, Question, Wanted};

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const ORGANIZATIONS: u64 = 100;
const ROUNDS: usize = 15;
const LOOKUPS: usize = 200_000;
const WRITE: &str = "--write-history";

fn peppers() -> Peppers {
    Peppers::new(PepperId::FIRST, [7; 32].into())
}

fn organization(number: u64) -> OrganizationId {
    OrganizationId::from_parts(1_790_000_000_000, u128::from(number) + 1)
}

/// The text of a key: a fixed function of its number, so that none need be kept.
fn text(number: u64) -> String {
    let prefix = "vtx".parse().expect("a prefix");
    let mut text = api_key::head(&prefix, Some(Environment::Live));
    let digits = blake3::hash(&number.to_le_bytes());
    let characters = digits.as_bytes().iter().chain(&digits.as_bytes()[..4]);
    text.extend(characters.map(|byte| char::from(api_key::ALPHABET[usize::from(*byte) % 62])));
    api_key::push_checksum(&mut text);
    text
}

fn envelope(ids: &Ids, clock: &Clock, event: Event, id: OrganizationId) -> NewEvent {
    let at = clock.now();
    let envelope = Envelope {
        id: ids.event(at),
        at,
        actor: Principal::Organization(OrganizationId::OPERATOR),
        credential: Some(KeyId::from_bytes([9; 16]).into()),
        request: None,
        correlation_id: "cor_01M3250V000000000000000001".parse().expect("an id"),
        causation_id: None,
        event,
        sealed: vec![Sealed {
            subject: Subject::organization_month(id, at),
            seal: "A".repeat(150),
        }],
    };
    let (stored, leaf_hash) = envelope.encode().expect("it encodes");
    NewEvent {
        id: envelope.id,
        event_type: envelope.event.event_type(),
        stored: stored.into(),
        leaf_hash,
    }
}

fn key_created(number: u64, ids: &Ids, clock: &Clock, peppers: &Peppers, scopes: &Scopes) -> Event {
    let text = text(number);
    KeyCreated {
        key_id: ids.key(clock.now()),
        name: format!("service key {number}").parse().expect("a name"),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().expect("a prefix")),
        environment: Some(Environment::Live),
        hint: Hint::of(&text),
        digest: mint::digest(&text, peppers),
        scopes: Some(scopes.clone()),
        roles: Vec::new(),
        services: None,
        expires_at: None,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    }
    .into()
}

/// Writes a history of a million keys in a hundred organizations.
async fn write_history(store: &Arc<EmbeddedStore>, ids: &Ids) -> u64 {
    let peppers = peppers();
    let ledger = open(store).await.0;
    // Another one would not go exactly like it.
    let clock = ledger.clock();
    ledger.create_installation(None, &ConfiguredKeys::default()).await.expect("an installation");
    let operator = StreamName::organization(OrganizationId::OPERATOR);
    let mut last = ledger.tables().operator().tables().revision();
    let mut bytes = 0;
    let scopes = Scopes::new(&["workflows:read", "events:write"]).expect("scopes");
    for owner in 0..ORGANIZATIONS {
        let id = organization(owner);
        let name = format!("Organization {owner}");
        let key_prefix = format!("p{owner}");
        let registered = OrganizationRegistered {
            organization_id: id,
            name: name.parse().expect("a name"),
            key_prefix: key_prefix.parse().expect("a prefix"),
            plan: "paid".parse().expect("a plan"),
            personal_of: None,
        };
        let event = envelope(ids, clock, registered.clone().into(), id);
        last = Some(
            store.append(&operator, last, vec![event], Urgency::Normal).await.expect("an append"),
        );
        let created = OrganizationCreated {
            organization_id: id,
            name: registered.name,
            key_prefix: registered.key_prefix,
            plan: registered.plan,
            personal_of: None,
        };
        let stream = StreamName::organization(id);
        let first = envelope(ids, clock, created.into(), id);
        let mut end: Option<Revision> = Some(
            store.append(&stream, None, vec![first], Urgency::Normal).await.expect("an append"),
        );
        let keys: Vec<u64> = (owner..KEYS).step_by(ORGANIZATIONS as usize).collect();
        for batch in keys.chunks(1_000) {
            let events: Vec<_> = batch
                .iter()
                .map(|number| {
                    envelope(ids, clock, key_created(*number, ids, clock, &peppers, &scopes), id)
                })
                .collect();
            bytes += events.iter().map(|event| event.stored.len() as u64).sum::<u64>();
            end =
                Some(store.append(&stream, end, events, Urgency::Normal).await.expect("an append"));
        }
    }
    bytes / KEYS
}

async fn open(store: &Arc<EmbeddedStore>) -> (Arc<Ledger>, u64) {
    let parts = Parts {
        store: Arc::clone(store) as Arc<dyn EventStore>,
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().expect("entropy"),
        peppers: peppers(),
        lookup_key: [2; 32].into(),
    };
    let (ledger, replayed) = Ledger::open(parts).await.expect("it opens");
    (ledger, replayed.events)
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4_096
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // The history is written by another process: this one's memory then holds nothing of it.
    let mut arguments = std::env::args().skip_while(|argument| argument != WRITE);
    if let (Some(_), Some(directory)) = (arguments.next(), arguments.next()) {
        runtime.block_on(async {
            let store = Arc::new(EmbeddedStore::open(&Options::new(directory)).expect("a store"));
            let ids = Ids::from_system().expect("entropy");
            println!("{}", write_history(&store, &ids).await);
            store.close().await;
        });
        return;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let writer = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([WRITE.as_ref(), root.path().as_os_str()])
        .output()
        .expect("it runs");
    assert!(writer.status.success(), "{}", String::from_utf8_lossy(&writer.stderr));
    let event_bytes = String::from_utf8_lossy(&writer.stdout);

    let store = Arc::new(EmbeddedStore::open(&Options::new(root.path())).expect("a store"));
    let before = resident();
    let begin = Instant::now();
    let (ledger, events) = runtime.block_on(open(&store));
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "replay: {events} events of {} bytes in {seconds:.2} s: {:.0} events/s",
        event_bytes.trim(),
        events as f64 / seconds
    );
    println!(
        "memory: {:.0} bytes per active key, resident, at {KEYS} keys",
        (resident() - before) as f64 / KEYS as f64
    );
    lookups(&ledger);
    runtime.block_on(store.close());
}

/// As a gateway asks: what is allowed counts as a use.
fn asking() -> Asking {
    let purpose = Purpose::Ask(KeyId::from_bytes([9; 16]).into());
    Asking { reach: Reach::Installation, purpose }
}

/// Verifies random keys in slices, each next to a slice of what cannot be done without.
fn lookups(ledger: &Ledger) {
    let peppers = peppers();
    let texts: Vec<String> =
        (0..LOOKUPS as u64).map(|number| text(number * 4_999 % KEYS)).collect();
    let question = |now| Question {
        tenant: None,
        permissions: Wanted::One(Permission::constant("workflows", "read")),
        service: None,
        environment: Some(Environment::Live),
        client_ip: None,
        domain: None,
        now,
    };
    let mut verified = Vec::new();
    let mut floor = Vec::new();
    let mut hashed = Vec::new();
    for _ in 0..ROUNDS {
        verified.push(each(&texts, |text| {
            let mut presented = Presented::default();
            presented.bearer(text);
            let question = question(ledger.clock().now());
            let code = ledger.verify(presented, &question, asking(), |answer| match answer {
                Answer::Decided(decision) | Answer::RateLimited { decision, .. } => decision.code,
                Answer::Refused(code) => code,
                Answer::Unavailable(_) | Answer::Elsewhere(_) | Answer::Emergency(_) => {
                    Code::Unknown
                }
            });
            assert_eq!(code, Code::Allowed);
        }));
        floor.push(each(&texts, |text| {
            let index = ledger.tables().index();
            assert!(black_box(index.key(&peppers.digest(text.as_bytes()))).is_some());
        }));
        hashed.push(each(&texts, |text| {
            black_box(peppers.digest(text.as_bytes()));
        }));
    }
    let ratio = median(verified.iter().zip(&floor).map(|(a, b)| a / b).collect());
    println!(
        "verify in process at {KEYS} keys: {:.0} ns; keyed hash + one probe of the same map: {:.0} ns (hash alone {:.0}); ratio {ratio:.2} (budget 2)",
        median(verified),
        median(floor),
        median(hashed),
    );
}

/// Nanoseconds per text.
fn each(texts: &[String], mut work: impl FnMut(&str)) -> f64 {
    let begin = Instant::now();
    for text in texts {
        work(text);
    }
    begin.elapsed().as_nanos() as f64 / texts.len() as f64
}

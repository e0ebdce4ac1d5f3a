//! What a page of the activity log costs where there is no index: one organization of a
//! million events, on a real disk, asked through the service but not over the network.
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

use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::event_store::{APPEND_EVENTS_MAX, EventStore as _, NewEvent};
use keyledger::ledger::secret::{Ids, Secret};
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::vault::seal::seal;
use keyledger::ledger::vault::{SubjectKey, Vault as _};
use keyledger::ledger::{Ledger, built_in, clock::Clock, mint};
use keyledger::proto::audit_service_server::AuditService as _;
use keyledger::proto::{ActivityFilter, QueryActivityRequest, QueryActivityResponse};
use keyledger::services::Door;
use keyledger::services::audit::Audit;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
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
use projections::time::Timestamp;
use tonic::Request;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 1_000_000;
/// One event in so many has the correlation id that is looked for.
const RARE: u64 = 100_000;
const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

async fn open(store: &Arc<EmbeddedStore>, vault: &Arc<MemoryVault>) -> Arc<Ledger> {
    let parts = Parts {
        store: Arc::clone(store) as _,
        vault: Arc::clone(vault) as _,
        clock: Clock::system(),
        ids: Ids::from_system().expect("entropy"),
        peppers: peppers(),
        lookup_key: [2; 32].into(),
    };
    Ledger::open(parts).await.expect("it opens").0
}

fn peppers() -> Peppers {
    Peppers::new(PepperId::FIRST, [7; 32].into())
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

async fn install(ledger: &Arc<Ledger>, admin: &Secret) {
    let none = ConfiguredKeys::default();
    ledger.create_installation(Some(admin), &none).await.expect("an installation");
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

fn envelope(number: u64, at: Timestamp, subject: &Subject, key: &SubjectKey) -> Envelope {
    let id = EventId::from_parts(1_790_000_000_000, u128::from(number) + 1);
    let personal = [("origin_ip", "192.0.2.1"), ("user_agent", "bench/1.0")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let correlation_id = if number.is_multiple_of(RARE) { "rare" } else { "common" };
    Envelope {
        id,
        at,
        actor: Principal::Organization(ACME),
        credential: Some(KeyId::from_bytes([9; 16]).into()),
        request: None,
        correlation_id: correlation_id.parse().expect("an id"),
        causation_id: None,
        event: event(number),
        sealed: vec![seal(key, id, subject, &personal).expect("sealed")],
    }
}

/// Writes the history: keys made and revoked, ten events of each millisecond.
async fn lengthen(store: &EmbeddedStore, vault: &MemoryVault, began: Timestamp) {
    let stream = StreamName::organization(ACME);
    let subject = Subject::organization_month(ACME, began);
    let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
    let mut last = Revision(0);
    for first in (0..EVENTS).step_by(APPEND_EVENTS_MAX) {
        let numbers = first..EVENTS.min(first + APPEND_EVENTS_MAX as u64);
        let new = numbers.map(|number| {
            let millis = i64::try_from(number / 10).expect("it fits");
            let envelope = envelope(number, began.saturating_add_millis(millis), &subject, &key);
            let (stored, leaf_hash) = envelope.encode().expect("it encodes");
            let event_type = envelope.event.event_type();
            NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash }
        });
        last = store
            .append(&stream, Some(last), new.collect(), Urgency::Normal)
            .await
            .expect("appended");
    }
}

/// Milliseconds of each page of a walk that goes on until its end, or so many pages.
async fn walk(
    audit: &Audit,
    admin: &Secret,
    mut query: QueryActivityRequest,
    pages_max: usize,
) -> (Vec<f64>, usize) {
    let mut latencies = Vec::new();
    let mut entries = 0;
    while latencies.len() < pages_max {
        let mut request = Request::new(query.clone());
        let value = format!("Bearer {}", admin.expose()).parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        let began = Instant::now();
        let page: QueryActivityResponse =
            audit.query_activity(request).await.expect("a page").into_inner();
        latencies.push(began.elapsed().as_secs_f64() * 1e3);
        entries += page.entries.len();
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            break;
        }
    }
    (latencies, entries)
}

fn print(what: &str, (mut latencies, entries): (Vec<f64>, usize)) {
    latencies.sort_by(f64::total_cmp);
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or(f64::NAN);
    println!(
        "{what:<44} {:>6} pages {entries:>7} entries   p50 {:>7.2} ms   p99 {:>7.2} ms",
        latencies.len(),
        at(50),
        at(99)
    );
}

async fn run(root: &Path) {
    let vault = Arc::new(MemoryVault::new());
    let admin = mint::mint(&built_in::operator_key_prefix(), None, &peppers()).expect("a key");
    let admin = admin.secret;
    let store = Arc::new(EmbeddedStore::open(&Options::new(root)).expect("a store"));
    let ledger = open(&store, &vault).await;
    install(&ledger, &admin).await;
    let began = ledger.clock().now();
    drop(ledger);
    lengthen(&store, &vault, began).await;
    let ledger = open(&store, &vault).await;
    let door = Door::closed(16, Vec::new());
    door.open(ledger);
    let audit = Audit::new(door);

    let all = QueryActivityRequest { organization_id: ACME.text(), ..Default::default() };
    let filtered = |filter| QueryActivityRequest { filter: Some(filter), ..all.clone() };
    let rare = filtered(ActivityFilter { correlation_id: "rare".to_owned(), ..Default::default() });
    println!("pages of the activity log of {EVENTS} events, without an index");
    print("newest first, 100 rows", walk(&audit, &admin, all.clone(), 2_000).await);
    let large = QueryActivityRequest { page_size: 1_000, ..all.clone() };
    print("newest first, 1,000 rows", walk(&audit, &admin, large, 500).await);
    for _ in 0..3 {
        print("by a rare correlation id", walk(&audit, &admin, rare.clone(), usize::MAX).await);
    }
    let seconds = began.as_millis().div_euclid(1_000) + 50;
    let mut bounded = (Vec::new(), 0);
    for number in 0..500 {
        let to = prost_types::Timestamp { seconds, nanos: number * 1_000_000 };
        let query = filtered(ActivityFilter { to: Some(to), ..Default::default() });
        let (latencies, entries) = walk(&audit, &admin, query, 1).await;
        bounded.0.extend(latencies);
        bounded.1 += entries;
    }
    print("newest first up to a time, 100 rows", bounded);
    store.close().await;
}

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(root.path()));
}

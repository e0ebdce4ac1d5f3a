//! What a command costs from its decision to its answer: keys made through the ledger, on
//! a real disk, by writers of one organization and by writers of many.
//!
//! Figures: docs/PERFORMANCE.md. What the store alone can do: `benches/append.rs`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyledger::ledger::command::{
    Caller, Command, CreateKey, Expiry, Order, OrganizationDraft, Personal,
};
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::{Ledger, clock::Clock, mint, secret::Ids};
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::event::KeyOrigin;
use projections::id::OrganizationId;
use projections::permission::Scopes;
use projections::text::KeyPrefix;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICE: Duration = Duration::from_millis(2_000);
const ORGANIZATIONS: usize = 64;

fn order(command: Command) -> Order {
    Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "cor_01M3250V000000000000000001".parse().expect("an id"),
        causation_id: None,
        about: None,
        personal: Personal(
            [("origin_ip", "192.0.2.1"), ("user_agent", "bench/1.0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        ),
    }
}

async fn ledger(store: &Arc<EmbeddedStore>) -> (Arc<Ledger>, Vec<OrganizationId>) {
    let parts = Parts {
        store: Arc::clone(store) as _,
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().expect("entropy"),
        peppers: Peppers::new(PepperId::FIRST, [7; 32].into()),
        lookup_key: [2; 32].into(),
    };
    let (ledger, _) = Ledger::open(parts).await.expect("it opens");
    ledger.create_installation(None, &ConfiguredKeys::default()).await.expect("an installation");
    let mut organizations = Vec::new();
    for number in 0..ORGANIZATIONS {
        let id = ledger.ids().organization(ledger.clock().now());
        let draft = OrganizationDraft {
            organization_id: id,
            name: format!("Organization {number}").parse().expect("a name"),
            key_prefix: format!("p{number}").parse().expect("a prefix"),
            plan: "paid".parse().expect("a plan"),
            personal_of: None,
        };
        let registered = order(Command::RegisterOrganization(draft.clone()));
        ledger.execute(OrganizationId::OPERATOR, &registered).await.expect("registered");
        ledger.execute(id, &order(Command::CreateOrganization(draft))).await.expect("created");
        organizations.push(id);
    }
    (ledger, organizations)
}

fn create(ledger: &Ledger, name: String) -> Command {
    let prefix: KeyPrefix = "vtx".parse().expect("a prefix");
    let minted = mint::mint(&prefix, None, ledger.peppers()).expect("entropy");
    Command::CreateKey(Box::new(CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name: name.parse().expect("a name"),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some(prefix),
        environment: None,
        hint: minted.hint,
        digest: minted.digest,
        scopes: Some(Scopes::new(&["workflows:read", "events:write"]).expect("scopes")),
        roles: Vec::new(),
        services: None,
        expiry: Expiry::PlanDefault,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
    }))
}

/// Keys made per second by this many writers, and the 99th percentile of one, in ms.
async fn slice(
    ledger: &Arc<Ledger>,
    organizations: &[OrganizationId],
    writers: usize,
    run: usize,
) -> (f64, f64) {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for (writer, id) in organizations.iter().cycle().take(writers).copied().enumerate() {
        let ledger = Arc::clone(ledger);
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < SLICE {
                let command = create(&ledger, format!("key {run} {writer} {}", latencies.len()));
                let start = Instant::now();
                ledger.execute(id, &order(command)).await.expect("a key");
                latencies.push(start.elapsed().as_secs_f64() * 1e3);
            }
            latencies
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a writer"));
    }
    latencies.sort_by(f64::total_cmp);
    let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
    (rate, latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(f64::NAN))
}

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(&Options::new(root.path())).expect("a store"));
        let (ledger, organizations) = ledger(&store).await;
        println!("keys made through the ledger, per second (p99 in ms)");
        println!("writers    one organization    {ORGANIZATIONS} organizations");
        for (run, writers) in [1, 8, 64].into_iter().enumerate() {
            let (one, one_p99) = slice(&ledger, &organizations[..1], writers, run * 2).await;
            let (many, many_p99) = slice(&ledger, &organizations, writers, run * 2 + 1).await;
            println!("{writers:>7} {one:>10.0} ({one_p99:.2}) {many:>16.0} ({many_p99:.2})");
        }
        store.close().await;
    });
}

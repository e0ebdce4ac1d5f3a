//! What the activity log costs: making its index, a page of many kinds of queries by it and
//! without it, and how far the index trails. One organization, on a real disk, asked through
//! the service but not over the network. `KEYLEDGER_BENCH_EVENTS` says how many events there
//! are: one million, if nothing is said.
//!
//! Figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

#[path = "support/history.rs"]
mod history;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use history::{Dice, History, KEYS, USERS, correlation, key_id, user_id};
use keyledger::ledger::activity::index::ActivityIndex;
use keyledger::ledger::command::{Caller, Command, Order, OrganizationDraft, Personal};
use keyledger::ledger::history::keeping::Pace;
use keyledger::ledger::secret::{Ids, Secret};
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::{Ledger, built_in, clock::Clock, mint};
use keyledger::proto::audit_service_server::AuditService as _;
use keyledger::proto::{
    ActivityFilter, ActivityOrder, QueryActivityRequest, QueryActivityResponse,
};
use keyledger::services::Door;
use keyledger::services::audit::Audit;
use keyledger::store::activity_index::ActivityDb;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::id::OrganizationId;
use projections::recorded::Revision;
use projections::time::Timestamp;
use tonic::Request;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Queries of each kind.
const QUERIES: usize = 400;
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

/// What the organization is asked, each time about something else.
fn queries(
    dice: &mut Dice,
    events: u64,
    began: Timestamp,
) -> Vec<(&'static str, Vec<QueryActivityRequest>)> {
    let none = ActivityFilter::default;
    let instant = |number: u64| {
        let at = began.as_millis() + i64::try_from(number).expect("it fits") * 500;
        Some(prost_types::Timestamp { seconds: at.div_euclid(1_000), nanos: 0 })
    };
    let mut kinds: Vec<(&'static str, Vec<ActivityFilter>)> = Vec::new();
    let mut ask = |what, filter: &mut dyn FnMut(&mut Dice) -> ActivityFilter| {
        kinds.push((what, (0..QUERIES).map(|_| filter(dice)).collect()));
    };
    // A month, a day, or an hour, somewhere in it.
    let within = |dice: &mut Dice, filter: ActivityFilter| {
        let length = *dice.one_of(&[5_000_000, 170_000, 7_200]);
        let from = dice.below(events);
        ActivityFilter { from: instant(from), to: instant(from + length), ..filter }
    };
    let actions =
        ["key.created", "key.revoked", "key.*", "session.started", "denials.*", "key.relabelled"];
    let action = |dice: &mut Dice| (*dice.one_of(&actions)).to_owned();
    let actor = |dice: &mut Dice| user_id(dice.skewed(USERS)).to_string();
    let target = |dice: &mut Dice| key_id(dice.below(KEYS)).to_string();
    ask("a time", &mut |dice| within(dice, none()));
    ask("actor, time", &mut |dice| {
        let actor = actor(dice);
        within(dice, ActivityFilter { actor, ..none() })
    });
    ask("action, time", &mut |dice| {
        let action = action(dice);
        within(dice, ActivityFilter { action, ..none() })
    });
    ask("target (the history of one object)", &mut |dice| ActivityFilter {
        target_id: target(dice),
        ..none()
    });
    ask("target, time", &mut |dice| {
        let target_id = target(dice);
        within(dice, ActivityFilter { target_id, ..none() })
    });
    ask("correlation id", &mut |dice| ActivityFilter {
        correlation_id: correlation(dice.below(events)),
        ..none()
    });
    ask("a word, time", &mut |dice| {
        let text = ["billing", "compromise", "v3", "edge deploy"];
        let text = (*dice.one_of(&text)).to_owned();
        within(dice, ActivityFilter { text, ..none() })
    });
    ask("actor, action, time", &mut |dice| {
        let (actor, action) = (actor(dice), action(dice));
        within(dice, ActivityFilter { actor, action, ..none() })
    });
    // What costs most: much has each of it, and little or nothing all.
    ask("worst: actor, action, word", &mut |dice| ActivityFilter {
        actor: actor(dice),
        action: action(dice),
        text: format!("deploy {} v{}", dice.below(KEYS), dice.below(50)),
        ..none()
    });
    ask("worst: ledger, key.* (nothing)", &mut |_| ActivityFilter {
        actor: "ledger".to_owned(),
        action: "key.*".to_owned(),
        ..none()
    });
    ask("worst: origin (sealed)", &mut |dice| ActivityFilter {
        origin_ip: format!("192.0.2.{}", 240 + dice.below(10)),
        ..none()
    });
    let all = QueryActivityRequest { organization_id: ACME.text(), ..Default::default() };
    let request = |filter| QueryActivityRequest { filter: Some(filter), ..all.clone() };
    kinds
        .into_iter()
        .map(|(what, filters)| (what, filters.into_iter().map(request).collect()))
        .collect()
}

fn megabytes(path: &Path) -> f64 {
    let beside = ["", "-wal"].iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |metadata| metadata.len())
    });
    beside.sum::<u64>() as f64 / 1e6
}

async fn run(root: &Path, events: u64) {
    let vault = Arc::new(MemoryVault::new());
    let admin = mint::mint(&built_in::operator_key_prefix(), None, &peppers()).expect("a key");
    let admin = admin.secret;
    let store = Arc::new(EmbeddedStore::open(&Options::new(root)).expect("a store"));
    let ledger = open(&store, &vault).await;
    install(&ledger, &admin).await;
    let began = ledger.clock().now();
    drop(ledger);
    let writing = Instant::now();
    History::new(began).write(&*store, &*vault, ACME, Revision(0), events).await;
    println!("{events} events written in {:.0} s", writing.elapsed().as_secs_f64());
    let ledger = open(&store, &vault).await;
    let path = root.join("activity.db");
    let index: Arc<dyn ActivityIndex> = Arc::new(ActivityDb::open(&path).expect("an index"));
    let filling = Instant::now();
    let filled = ledger.fill_activity_index(&index).await.expect("filled");
    let seconds = filling.elapsed().as_secs_f64();
    println!(
        "index: {filled} events in {seconds:.1} s, {:.0}/s, {:.0} bytes each",
        filled as f64 / seconds,
        megabytes(&path) * 1e6 / filled as f64
    );
    let checking = Instant::now();
    assert!(ledger.activity_index_is_right(&index, Pace::Steady).await.expect("checked"));
    println!("held against history in {:.1} s", checking.elapsed().as_secs_f64());
    let door = Door::closed(16, Vec::new());
    door.open(Arc::clone(&ledger));
    let audit = Audit::new(door);
    let all = QueryActivityRequest { organization_id: ACME.text(), ..Default::default() };
    print("newest first, 100 rows", walk(&audit, &admin, all.clone(), 2_000).await);
    let large = QueryActivityRequest { page_size: 1_000, ..all.clone() };
    print("newest first, 1,000 rows", walk(&audit, &admin, large, 300).await);
    let rare = correlation(events / 2);
    let rare = Some(ActivityFilter { correlation_id: rare, ..Default::default() });
    let rare = QueryActivityRequest { filter: rare, ..all.clone() };
    print("without an index: correlation id", walk(&audit, &admin, rare, 300).await);
    tokio::spawn(Arc::clone(&ledger).keep_activity_index(index));
    while ledger.activity_index_behind() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    for (what, queries) in queries(&mut Dice(7), events, began) {
        for order in [ActivityOrder::NewestFirst, ActivityOrder::OldestFirst] {
            let mut pages = (Vec::new(), 0);
            for query in &queries {
                let query = QueryActivityRequest { order: order.into(), ..query.clone() };
                // Two pages of each: the second begins in the middle.
                let (latencies, entries) = walk(&audit, &admin, query, 2).await;
                pages.0.extend(latencies);
                pages.1 += entries;
            }
            let order = if order == ActivityOrder::NewestFirst { "newest" } else { "oldest" };
            print(&format!("{what}, {order} first"), pages);
        }
    }
    let nothing = ActivityFilter {
        actor: "ledger".to_owned(),
        action: "key.*".to_owned(),
        ..Default::default()
    };
    let nothing = QueryActivityRequest { filter: Some(nothing), ..all.clone() };
    let looking = Instant::now();
    print("ledger, key.* (nothing), to the end", walk(&audit, &admin, nothing, 10_000).await);
    println!("  in {:.2} s", looking.elapsed().as_secs_f64());
    let facets = vec![1, 2, 3, 4, 5];
    let counted = QueryActivityRequest { facets, page_size: 1, ..all.clone() };
    print("all facets", walk(&audit, &admin, counted, 100).await);
    lag(&ledger).await;
    store.close().await;
}

/// How long after a write is acknowledged the index knows it.
async fn lag(ledger: &Arc<Ledger>) {
    let mut lags = Vec::new();
    for number in 0..300 {
        let policy = projections::policy::Policy {
            key_lifetime_max_seconds: Some(100_000 + number),
            ..Default::default()
        };
        let write = order(Command::UpdatePolicy(policy));
        ledger.execute(ACME, &write).await.expect("written");
        let began = Instant::now();
        while ledger.activity_index_behind() > 0 {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
        lags.push(began.elapsed().as_secs_f64() * 1e3);
    }
    print("index behind a write", (lags, 300));
}

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let events = std::env::var("KEYLEDGER_BENCH_EVENTS").ok();
    let events = events.map_or(1_000_000, |events| events.parse().expect("a number"));
    runtime.block_on(run(root.path(), events));
}

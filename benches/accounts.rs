//! What accounts cost: in memory, in a replay and in a start from snapshots, and to look up.
//!
//! Each account has two streams, of two events: its e-mail reserved and confirmed; itself
//! created, with a password. The history is written by another process, so that this one's
//! memory holds nothing of it.
//!
//! `KEYLEDGER_BENCH_ACCOUNTS` sets how many there are [default: 1000000].
//!
//! Figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use keyledger::ledger::Ledger;
use keyledger::ledger::clock::Clock;
use keyledger::ledger::event_store::{EventStore, NewEvent};
use keyledger::ledger::secret::Ids;
use keyledger::ledger::snapshot_store::SnapshotStore;
use keyledger::ledger::start::{ConfiguredKeys, Parts, Replayed};
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::store::derived::DerivedStore;
use keyledger::store::embedded::{EmbeddedStore, Options};
use keyledger::vault::memory::MemoryVault;
use projections::digest::EmailDigest;
use projections::envelope::Envelope;
use projections::event::{
    AccountCreated, EmailConfirmed, EmailReserved, Event, PasswordCause, PasswordSet,
};
use projections::id::{AccountId, SessionId};
use projections::principal::Principal;
use projections::recorded::StreamName;
use projections::sealed::{Sealed, Subject};
use projections::time::Timestamp;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOOKUPS: u64 = 200_000;
/// Appends under way at once.
const AT_ONCE: usize = 1_024;
const WRITE: &str = "--write-history";

fn accounts() -> u64 {
    let accounts = std::env::var("KEYLEDGER_BENCH_ACCOUNTS").ok();
    accounts.map_or(1_000_000, |accounts| accounts.parse().expect("a number"))
}

/// Identifiers and digests as they are in the field: as good as random.
fn random(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn account(number: u64) -> AccountId {
    let [random @ .., _, _, _, _, _, _] = random(number);
    let mut bits = [0; 16];
    bits[6..].copy_from_slice(&random[..10]);
    AccountId::from_parts(1_790_000_000_000, u128::from_be_bytes(bits))
}

fn email(number: u64) -> EmailDigest {
    EmailDigest(random(number))
}

fn event(ids: &Ids, at: Timestamp, event: Event, about: Option<AccountId>) -> NewEvent {
    // As long as an e-mail, a name and an address are once they are sealed.
    let sealed = about.map(|id| Sealed { subject: Subject::account(id), seal: "A".repeat(190) });
    let envelope = Envelope {
        id: ids.event(at),
        at,
        actor: Principal::Ledger,
        credential: None,
        request: None,
        correlation_id: "cor_01M3250V000000000000000001".parse().expect("a text"),
        causation_id: None,
        event,
        sealed: sealed.into_iter().collect(),
    };
    let (stored, leaf_hash) = envelope.encode().expect("it can be stored");
    let event_type = envelope.event.event_type();
    NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash }
}

async fn write_history(store: &Arc<EmbeddedStore>) {
    let (ledger, _) = open(store, None).await;
    ledger.create_installation(None, &ConfiguredKeys::default()).await.expect("an installation");
    let (ids, at) = (Ids::from_system().expect("entropy"), ledger.clock().now());
    let mut under_way = VecDeque::new();
    for number in 0..accounts() {
        let (account_id, email) = (account(number), email(number));
        let until = at.saturating_add_millis(60_000);
        let reserved = EmailReserved { email, account_id, until };
        let confirmed = EmailConfirmed { email, account_id };
        let password = PasswordSet { account_id, cause: PasswordCause::Invitation, keeps: None };
        let of_email =
            vec![event(&ids, at, reserved.into(), None), event(&ids, at, confirmed.into(), None)];
        let of_account = vec![
            event(
                &ids,
                at,
                AccountCreated { account_id, email, personal_organization: None }.into(),
                Some(account_id),
            ),
            event(&ids, at, password.into(), None),
        ];
        for (stream, events) in
            [(StreamName::email(email), of_email), (StreamName::account(account_id), of_account)]
        {
            under_way.push_back(store.append(&stream, None, events, Urgency::Normal));
        }
        while under_way.len() > AT_ONCE {
            under_way.pop_front().expect("an append").await.expect("it is durable");
        }
    }
    for append in under_way {
        append.await.expect("it is durable");
    }
}

async fn open(
    store: &Arc<EmbeddedStore>,
    derived: Option<Arc<dyn SnapshotStore>>,
) -> (Arc<Ledger>, Replayed) {
    let parts = Parts {
        store: Arc::clone(store) as Arc<dyn EventStore>,
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().expect("entropy"),
        peppers: Peppers::new(PepperId::FIRST, [7; 32].into()),
        lookup_key: [2; 32].into(),
    };
    Ledger::open_with(parts, derived).await.expect("it opens")
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4_096
}

/// Nanoseconds of one look-up.
fn each(work: impl Fn(u64)) -> f64 {
    let begin = Instant::now();
    for number in 0..LOOKUPS {
        work(number * 4_999 % accounts());
    }
    begin.elapsed().as_nanos() as f64 / LOOKUPS as f64
}

async fn measure(root: &Path) {
    let accounts = accounts();
    let store = Arc::new(EmbeddedStore::open(&Options::new(root)).expect("a store"));
    let derived: Arc<dyn SnapshotStore> =
        Arc::new(DerivedStore::open(&root.join("projections.db")).expect("a store"));
    let before = resident();
    let begin = Instant::now();
    let (ledger, replayed) = open(&store, Some(Arc::clone(&derived))).await;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "replay: {} events in {seconds:.2} s: {:.0} events/s",
        replayed.events,
        replayed.events as f64 / seconds
    );
    let first = resident();
    // What the first replay needed besides is used again by the second: what comes on top
    // are the accounts alone.
    let (beside, _) = open(&store, None).await;
    println!(
        "memory: {:.0} bytes per account, resident, at {accounts} accounts; right behind a replay {:.0}",
        resident().saturating_sub(first) as f64 / accounts as f64,
        (first - before) as f64 / accounts as f64
    );
    drop(beside);
    let by_id = each(|number| {
        let found = ledger.session_stands(account(number), SessionId::from_bytes([1; 16]), 1);
        assert!(found.expect("it is known"));
    });
    let by_email = each(|number| {
        assert!(ledger.account_by_email(&email(number)).expect("it is known").is_some());
    });
    let alone = each(|number| {
        black_box(account(number));
    });
    println!(
        "look-ups: whether a session stands {:.0} ns, an account by its e-mail {:.0} ns",
        by_id - alone,
        by_email - alone
    );
    let begin = Instant::now();
    ledger.take_snapshots().await.expect("they are taken");
    println!("snapshots of all accounts: {:.2} s", begin.elapsed().as_secs_f64());
    drop(ledger);
    let begin = Instant::now();
    let (_ledger, replayed) = open(&store, Some(derived)).await;
    println!(
        "start from snapshots: {:.2} s, {} events behind them",
        begin.elapsed().as_secs_f64(),
        replayed.events
    );
    store.close().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut arguments = std::env::args().skip_while(|argument| argument != WRITE);
    if let (Some(_), Some(directory)) = (arguments.next(), arguments.next()) {
        runtime.block_on(async {
            let store = Arc::new(EmbeddedStore::open(&Options::new(directory)).expect("a store"));
            write_history(&store).await;
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
    runtime.block_on(measure(root.path()));
}

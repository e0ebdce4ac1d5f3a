//! What an edit of a role costs that 100,000 keys have: nothing is walked. And what the
//! widest question costs about somebody with as many roles as there may be, beside asking
//! each permission of each role.
//!
//! `cargo bench --bench roles`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints, and stops where it must"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyledger::ledger::command::{
    Caller, Command, CreateKey, CreateRole, Expiry, GRANTS_MAX, GrantRole, ImportKeys, ImportedKey,
    KEYS_AT_ONCE_MAX, Order, OrganizationDraft, Personal, UpdateRole,
};
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::{Ledger, clock::Clock, secret::Ids};
use keyledger::store::memory::MemoryStore;
use keyledger::vault::memory::MemoryVault;
use projections::digest::SecretDigest;
use projections::event::{DigestForm, KeyOrigin, KeyedDigest, ServiceAccountCreated};
use projections::id::{OrganizationId, RoleId, ServiceAccountId};
use projections::permission::{PERMISSIONS_MAX, Permission, PermissionPattern};
use projections::principal::Principal;
use projections::verification::{self, Code, Question, Wanted};

const KEYS: usize = 100_000;
const EDITS: usize = 200;

fn order(command: Command) -> Order {
    Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal::default(),
        about: None,
    }
}

fn key(ledger: &Ledger, number: usize, role: RoleId) -> ImportedKey {
    let mut digest = [0; 32];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut digest);
    let blake3 = SecretDigest(digest);
    let key = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name: format!("key {number}").parse().unwrap(),
        description: None,
        origin: KeyOrigin::Imported,
        prefix: None,
        environment: None,
        hint: None,
        digest: KeyedDigest { form: DigestForm::Sha256, pepper: 1, blake3 },
        scopes: None,
        roles: vec![role],
        services: None,
        expiry: Expiry::PlanDefault,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
    };
    ImportedKey { key, others: Vec::new() }
}

async fn edits(ledger: &Arc<Ledger>, id: OrganizationId, role_id: RoleId) -> Vec<Duration> {
    let mut took = Vec::with_capacity(EDITS);
    for number in 0..EDITS {
        let permission = format!("dns:edit-{number}");
        let update = UpdateRole {
            role_id,
            name: None,
            description: None,
            permissions: Some(PermissionPattern::list(&[permission]).unwrap()),
        };
        let order = order(Command::UpdateRole(Box::new(update)));
        let began = Instant::now();
        ledger.execute(id, &order).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

/// Somebody with 100 grants of roles with 100 permissions each, asked for 100 permissions
/// that the last role alone permits.
async fn widest(ledger: &Arc<Ledger>, id: OrganizationId) {
    const ASKED: usize = 50;
    let account = ServiceAccountId::from_bytes([3; 16]);
    let made = ServiceAccountCreated {
        service_account_id: account,
        name: "everywhere".parse().unwrap(),
        description: None,
        roles: Vec::new(),
    };
    ledger.execute(id, &order(Command::CreateServiceAccount(Box::new(made)))).await.unwrap();
    let texts = |role: usize| -> Vec<String> {
        (0..PERMISSIONS_MAX).map(|number| format!("service-{role}:action-{number}")).collect()
    };
    for role in 0..GRANTS_MAX {
        let role_id = ledger.ids().role(ledger.clock().now());
        let created = CreateRole {
            role_id,
            name: format!("wide-{role}").parse().unwrap(),
            description: "a role".parse().unwrap(),
            permissions: PermissionPattern::list(&texts(role)).unwrap(),
        };
        ledger.execute(id, &order(Command::CreateRole(Box::new(created)))).await.unwrap();
        let grant = GrantRole {
            grant_id: ledger.ids().grant(ledger.clock().now()),
            principal: Principal::ServiceAccount(account),
            role_id,
            domain: None,
            expiry: None,
        };
        ledger.execute(id, &order(Command::GrantRole(Box::new(grant)))).await.unwrap();
    }
    let mut drafted = key(ledger, 1_000_000, RoleId::from_bytes([0; 16])).key;
    drafted.roles.clear();
    drafted.owner = Some(account.into());
    let key_id = drafted.key_id;
    ledger.execute(id, &order(Command::CreateKey(Box::new(drafted)))).await.unwrap();
    let organization = ledger.tables().organization(id).unwrap();
    let (tables, operator) = (organization.tables(), ledger.tables().operator().tables());
    let row = tables.key(key_id).unwrap();
    let wanted = texts(GRANTS_MAX - 1);
    let question = Question {
        tenant: None,
        permissions: Wanted::new(&wanted).unwrap(),
        service: None,
        domain: None,
        environment: None,
        client_ip: None,
        now: ledger.clock().now(),
    };
    let began = Instant::now();
    for _ in 0..ASKED {
        let decision = verification::decide(black_box(row), &tables, &operator, &question);
        assert_eq!(black_box(decision.code), Code::Allowed);
    }
    let took = began.elapsed() / u32::try_from(ASKED).unwrap();
    let began = Instant::now();
    let authority = verification::Authority::of(row, &tables, &operator, question.now);
    let held = wanted.iter().all(|text| {
        let wanted = Permission::parse(text).unwrap();
        let mut roles = authority.grants().map(|(_, role)| role);
        roles.any(|role| role.permissions().iter().any(|it| black_box(it).implies(wanted)))
    });
    let each = began.elapsed();
    assert!(held);
    let ratio = each.as_secs_f64() / took.as_secs_f64();
    println!(
        "the widest question: {took:?}; each permission of each role: {each:?}; {ratio:.0} times"
    );
    assert!(ratio > 5.0, "roles are looked up, and each once");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [2; 32].into(),
    };
    let (ledger, _) = Ledger::open(parts).await.unwrap();
    ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
    let id = OrganizationId::from_bytes([7; 16]);
    let draft = OrganizationDraft {
        organization_id: id,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    };
    let registered = order(Command::RegisterOrganization(draft.clone()));
    ledger.execute(OrganizationId::OPERATOR, &registered).await.unwrap();
    ledger.execute(id, &order(Command::CreateOrganization(draft))).await.unwrap();
    let role_id = ledger.ids().role(ledger.clock().now());
    let role = CreateRole {
        role_id,
        name: "editor".parse().unwrap(),
        description: "a role".parse().unwrap(),
        permissions: PermissionPattern::list(&["dns:*"]).unwrap(),
    };
    ledger.execute(id, &order(Command::CreateRole(Box::new(role)))).await.unwrap();
    widest(&ledger, id).await;
    let none = edits(&ledger, id, role_id).await;
    for first in (0..KEYS).step_by(KEYS_AT_ONCE_MAX) {
        let numbers = first..first + KEYS_AT_ONCE_MAX;
        let keys = numbers.map(|number| key(&ledger, number, role_id)).collect();
        ledger.execute(id, &order(Command::ImportKeys(ImportKeys { keys }))).await.unwrap();
    }
    let all = edits(&ledger, id, role_id).await;
    let at = |took: &[Duration], share: usize| took.get(EDITS * share / 100).copied().unwrap();
    for (name, took) in [("no key has", &none), (&format!("{KEYS} keys have"), &all)] {
        let (half, most) = (at(took, 50), at(took, 99));
        println!("an edit of a role that {name}: median {half:?}, p99 {most:?}");
    }
    let ratio = at(&all, 50).as_secs_f64() / at(&none, 50).as_secs_f64();
    println!("ratio {ratio:.2}");
    assert!(at(&all, 99) < Duration::from_millis(10), "an edit walks nothing");
}

//! The allow path allocates nothing. A test of its own: counting takes the place of the
//! allocator of the whole program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken set-up should stop the test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use keyledger::ledger::command::{
    Caller, Command, CreateKey, CreateRole, Expiry, GrantRole, Order, OrganizationDraft, Personal,
};
use keyledger::ledger::start::{ConfiguredKeys, Parts};
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use keyledger::ledger::verify::{Answer, Asking, Purpose, Reach};
use keyledger::ledger::{Ledger, clock::Clock, mint, secret::Ids};
use keyledger::proto::{
    VerifyBatchAnswer, VerifyBatchRequest, VerifyBatchResponse, VerifyRequest, verify_batch_answer,
};
use keyledger::services::Door;
use keyledger::services::verification::Verification;
use keyledger::store::memory::MemoryStore;
use keyledger::vault::memory::MemoryVault;
use projections::event::{KeyOrigin, ServiceAccountCreated};
use projections::id::{KeyId, OrganizationId};
use projections::permission::{Permission, PermissionPattern, Scopes};
use projections::presented::Presented;
use projections::principal::Principal;
use projections::verification::{Code, Question, Wanted};
use prost::Message as _;

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

/// A ledger with two keys, and their texts: one of the organization's own, and one of a
/// service account that was granted a role for two domains.
async fn ledger() -> (Arc<Ledger>, String, String) {
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
    ledger.execute(id, &order(Command::CreateOrganization(draft.clone()))).await.unwrap();
    let minted = mint::mint(&draft.key_prefix, None, ledger.peppers()).unwrap();
    let command = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name: "a key".parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some(draft.key_prefix),
        environment: None,
        hint: minted.hint,
        digest: minted.digest.clone(),
        scopes: Some(Scopes::new(&["dns:read", "dns:write", "credentials:verify"]).unwrap()),
        roles: Vec::new(),
        services: None,
        expiry: Expiry::After(3_600_000),
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
    };
    ledger.execute(id, &order(Command::CreateKey(Box::new(command.clone())))).await.unwrap();
    let at = ledger.clock().now();
    let account = ServiceAccountCreated {
        service_account_id: ledger.ids().service_account(at),
        name: "bot".parse().unwrap(),
        description: None,
        roles: Vec::new(),
    };
    let owner = account.service_account_id;
    let role = CreateRole {
        role_id: ledger.ids().role(at),
        name: "editor".parse().unwrap(),
        description: "a role".parse().unwrap(),
        permissions: PermissionPattern::list(&["dns:*"]).unwrap(),
    };
    let grant = |domain: &str| {
        Command::GrantRole(Box::new(GrantRole {
            grant_id: ledger.ids().grant(at),
            principal: Principal::ServiceAccount(owner),
            role_id: role.role_id,
            domain: domain.parse().ok(),
            expiry: Some(Expiry::After(3_600_000)),
        }))
    };
    let granted = mint::mint(&"vtx".parse().unwrap(), None, ledger.peppers()).unwrap();
    let key = CreateKey {
        key_id: ledger.ids().key(at),
        name: "its key".parse().unwrap(),
        hint: granted.hint,
        digest: granted.digest.clone(),
        scopes: None,
        owner: Some(owner.into()),
        ..command
    };
    for command in [
        Command::CreateServiceAccount(Box::new(account)),
        Command::CreateRole(Box::new(role.clone())),
        grant("other.example"),
        grant(DOMAIN),
        Command::CreateKey(Box::new(key)),
    ] {
        ledger.execute(id, &order(command)).await.unwrap();
    }
    (ledger, minted.secret.expose().to_owned(), granted.secret.expose().to_owned())
}

/// What is asked about.
const DOMAIN: &str = "example.com";

/// As a gateway asks: what is allowed counts as a use.
fn asking() -> Asking {
    let purpose = Purpose::Ask(KeyId::from_bytes([9; 16]).into());
    Asking { reach: Reach::Installation, purpose }
}

fn verify(ledger: &Ledger, text: &str) -> Code {
    let question = Question {
        tenant: None,
        permissions: Wanted::One(Permission::constant("dns", "write")),
        service: Some("dns"),
        environment: Some(projections::api_key::Environment::Live),
        client_ip: None,
        domain: Some(DOMAIN),
        now: ledger.clock().now(),
    };
    let mut presented = Presented::default();
    presented.bearer(text);
    ledger.verify(presented, &question, asking(), |answer| match answer {
        Answer::Decided(decision) | Answer::RateLimited { decision, .. } => decision.code,
        Answer::Refused(code) => code,
        Answer::Unavailable(id) => panic!("{id} is stopped"),
        Answer::Elsewhere(_) | Answer::Emergency(_) => panic!("nothing is kept elsewhere"),
    })
}

#[tokio::test]
async fn the_allow_path_allocates_nothing() {
    let (ledger, text, granted) = ledger().await;
    // By its scopes, and by a role that was granted for a domain.
    for text in [&text, &granted] {
        // What a thread sets up once is not the path's.
        assert_eq!(verify(&ledger, text), Code::Allowed);
        let allocated =
            allocation_counter::measure(|| assert_eq!(verify(&ledger, text), Code::Allowed));
        assert_eq!(allocated.count_total, 0, "{allocated:?}");
    }
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(text.clone())));
    assert_eq!(counted.count_total, 1, "the count counts");
}

/// A batch makes room for its answers once: a question in it allocates nothing.
#[test]
fn a_question_of_a_batch_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (ledger, text, _) = runtime.block_on(ledger());
    let door = Door::closed(8, Vec::new());
    door.open(ledger);
    let verification = Verification::new(door);
    let ask = |count: usize| {
        let question = VerifyRequest {
            credential: text.clone(),
            permissions: vec!["dns:write".into()],
            service: "dns".into(),
            ..VerifyRequest::default()
        };
        let questions = vec![question; count];
        let message = VerifyBatchRequest { questions, ..VerifyBatchRequest::default() };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("x-api-key", text.parse().unwrap());
        let (mut request, mut answer) = (Some(request), None);
        let allocated = allocation_counter::measure(|| {
            answer = Some(runtime.block_on(verification.verify_batch(request.take().unwrap())));
        });
        let mut answer = answer.unwrap().unwrap();
        let answers =
            VerifyBatchResponse::decode(answer.message().get(5..).unwrap()).unwrap().answers;
        assert_eq!(answers.len(), count);
        let allowed = |it: VerifyBatchAnswer| match it.answer {
            Some(verify_batch_answer::Answer::Decision(decision)) => decision.allowed,
            _ => false,
        };
        assert!(answers.into_iter().all(allowed));
        allocated.count_total
    };
    // What a thread sets up once is not the batch's.
    ask(100);
    let (few, many) = (ask(100), ask(1_000));
    assert!(few < 100, "{few}");
    // Nine more turns for others, at most a few allocations of the runtime each.
    assert!(many < few + 50, "{few} and {many}");
}

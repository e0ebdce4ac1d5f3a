//! What is written is what prost would write; and what an open stream reads, holds and
//! ends with, where no socket shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use projections::api_key::Environment;
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    BuiltInRoleDefined, DigestForm, Event, Hint, InstallationCreated, KeyCreated, KeyOrigin,
    KeyedDigest, OrganizationCreated, RoleDefinition,
};
use projections::id::{EventId, InstallationId, KeyId, RoleId};
use projections::organization::Organization;
use projections::permission::Scopes;
use projections::principal::{Owner, Principal};
use projections::recorded::{Recorded, Revision, StreamName};
use projections::verification::{self, Code, Decision, Question, Wanted};
use proptest::prelude::*;
use prost::Message as _;
use tokio_stream::{Stream, StreamExt as _};

use super::*;

mod users;

use crate::ledger::clock::Clock;
use crate::ledger::secret::Ids;
use crate::ledger::start::{ConfiguredKeys, Parts};
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::verify::Answer;
use crate::services::wire::Written;
use crate::services::write;
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
const KEY: KeyId = KeyId::from_bytes([3; 16]);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

/// The tables that these events leave, one a millisecond.
fn tables(owner: OrganizationId, events: impl IntoIterator<Item = Event>) -> Organization {
    let mut tables = Organization::new(owner);
    for (number, event) in events.into_iter().enumerate() {
        let envelope = Envelope {
            id: EventId::from_bytes([9; 16]),
            at: at(number as i64),
            actor: Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            event,
            sealed: Vec::new(),
        };
        let (stored, leaf_hash) = envelope.encode().unwrap();
        let recorded = Recorded {
            stream: StreamName::organization(owner),
            revision: Revision(number as u64),
            stored: stored.into(),
            leaf_hash,
        };
        tables.apply(&recorded).unwrap();
    }
    tables
}

fn installation() -> Event {
    InstallationCreated {
        installation_id: InstallationId::from_bytes([1; 16]),
        pepper: 1,
        pepper_check: SecretDigest([1; 32]),
    }
    .into()
}

fn operator() -> Organization {
    let role = |number: u8, permissions: &[&str]| BuiltInRoleDefined {
        role_id: RoleId::from_bytes([number; 16]),
        definition: RoleDefinition {
            name: format!("role {number}").parse().unwrap(),
            description: "a role".parse().unwrap(),
            permissions: permissions.iter().map(|text| text.parse().unwrap()).collect(),
        },
        before: None,
    };
    let roles = [role(1, &["dns:read", "cdn:*"]), role(2, &["*:*"])];
    let events = std::iter::once(installation()).chain(roles.map(Event::from));
    tables(OrganizationId::OPERATOR, events)
}

fn created(owner: OrganizationId) -> Event {
    OrganizationCreated {
        organization_id: owner,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    }
    .into()
}

/// A key that has one of each.
fn full_key() -> KeyCreated {
    KeyCreated {
        key_id: KEY,
        name: "a key".parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().unwrap()),
        environment: Some(Environment::Live),
        hint: Hint::of("a1B2"),
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([5; 32]) },
        scopes: Some(Scopes::new(&["dns:read"]).unwrap()),
        roles: vec![RoleId::from_bytes([1; 16])],
        services: None,
        expires_at: Some(at(4_000_000_000_000)),
        metadata: BTreeMap::from([("m".parse().unwrap(), "v".parse().unwrap())]),
        limits: BTreeMap::from([("l".parse().unwrap(), 1)]),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    }
}

prop_compose! {
    fn any_key()(
        environment in prop_oneof![
            Just(None), Just(Some(Environment::Live)), Just(Some(Environment::Test))
        ],
        scopes in prop::option::of(prop::collection::btree_set("[a-z]{1,9}:[a-z]{1,9}", 1..40)),
        roles in prop::sample::subsequence(vec![1_u8, 2, 3], 0..=3),
        expires_at in prop::option::of(1_i64..4_000_000_000_000),
        limits in prop::collection::btree_map("[a-z]{1,64}", any::<i64>(), 0..8),
        metadata in prop::collection::btree_map("[a-z]{1,64}", "[ -~é]{0,200}", 0..8),
    ) -> KeyCreated {
        let scopes = scopes.map(|it| Scopes::new(&it.into_iter().collect::<Vec<_>>()).unwrap());
        let texts = metadata.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
        KeyCreated {
            environment,
            scopes,
            roles: roles.into_iter().map(|it| RoleId::from_bytes([it; 16])).collect(),
            expires_at: expires_at.map(at),
            metadata: texts.collect(),
            limits: limits.iter().map(|(k, v)| (k.parse().unwrap(), *v)).collect(),
            ..full_key()
        }
    }
}

/// The message, as whoever builds messages would build it.
fn built(
    decision: &Decision<'_>,
    correlation_id: &str,
    retry_after: Option<Duration>,
) -> proto::VerifyResponse {
    let (key, owner) = (decision.credential.key().unwrap(), decision.organization_id);
    let extras = key.extras.as_deref();
    let revision = |owner: OrganizationId, revision: Option<Revision>| {
        write::revision(&StreamName::organization(owner), revision)
    };
    let operators = decision.operator_revision.filter(|_| !owner.is_operator());
    proto::VerifyResponse {
        allowed: decision.code == Code::Allowed,
        code: match decision.code {
            Code::Allowed => proto::DecisionCode::Allowed,
            Code::Expired => proto::DecisionCode::Expired,
            Code::RateLimited => proto::DecisionCode::RateLimited,
            Code::PermissionDenied => proto::DecisionCode::PermissionDenied,
            Code::DomainNotAllowed => proto::DecisionCode::DomainNotAllowed,
            Code::FeatureNotLicensed => proto::DecisionCode::FeatureNotLicensed,
            Code::MfaRequired => proto::DecisionCode::MfaRequired,
            other @ (Code::NoCredential
            | Code::Ambiguous
            | Code::Malformed
            | Code::Unknown
            | Code::TenantMismatch
            | Code::Revoked
            | Code::Disabled
            | Code::Suspended
            | Code::IpNotAllowed
            | Code::BreakGlassDisabled
            | Code::BreakGlassReasonRequired
            | Code::BreakGlassOrganizationRequired
            | Code::BreakGlassApprovalPending
            | Code::BreakGlassReviewPending
            | Code::BreakGlassLimited
            | Code::WrongEnvironment
            | Code::ServiceNotAllowed) => panic!("{other:?} was not asked for"),
        }
        .into(),
        principal: Some(write::principal(
            key.owner().map_or(Principal::Organization(owner), Owner::principal),
            owner,
        )),
        organization_id: owner.to_string(),
        credential_kind: proto::CredentialKind::ApiKey.into(),
        credential_id: key.id.to_string(),
        environment: write::environment(Some(key.effective_environment())).into(),
        roles: decision.authority.roles().map(write::role_reference).collect(),
        permissions: decision.authority.permissions().map(str::to_owned).collect(),
        limits: extras
            .map(|it| it.limits.iter().map(|(k, v)| (k.to_string(), *v)).collect())
            .unwrap_or_default(),
        metadata: extras
            .map(|it| it.metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
            .unwrap_or_default(),
        expires_at: key.expires_at().map(write::timestamp),
        revisions: revision(owner, decision.revision)
            .into_iter()
            .chain(revision(OrganizationId::OPERATOR, operators))
            .collect(),
        correlation_id: correlation_id.to_owned(),
        retry_after: retry_after.map(|it| it.try_into().unwrap()),
    }
}

/// Writes the answer about a key and gives it to `check`, with the message it should be.
fn written(
    owner: OrganizationId,
    key: KeyCreated,
    correlation_id: &str,
    retry_after: Option<Duration>,
    check: impl FnOnce(&[u8], proto::VerifyResponse),
) {
    let installation = owner.is_operator().then(installation);
    let events = installation.into_iter().chain([created(owner), key.into()]);
    let organization = tables(owner, events);
    let wanted = ["dns:read".to_owned()];
    let question = Question {
        tenant: None,
        permissions: Wanted::new(&wanted).unwrap(),
        service: None,
        environment: None,
        client_ip: None,
        domain: None,
        now: at(1_000_000_000_000),
    };
    let operator = operator();
    let key = organization.key(KEY).unwrap();
    let decision = verification::decide(key, &organization, &operator, &question);
    let answer = |decision| match retry_after {
        None => Answer::Decided(decision),
        Some(retry_after) => Answer::RateLimited {
            decision: Decision { code: Code::RateLimited, ..decision },
            retry_after,
        },
    };
    let message = match answer(decision) {
        Answer::Decided(decision) | Answer::RateLimited { decision, .. } => {
            built(&decision, correlation_id, retry_after)
        }
        Answer::Refused(_)
        | Answer::Unavailable(_)
        | Answer::Elsewhere(_)
        | Answer::Emergency(_) => unreachable!(),
    };
    let mut out = Vec::new();
    assert!(answer::write(answer(decision), correlation_id, &mut out).is_ok());
    check(&out, message);
}

proptest! {
    #[test]
    fn what_is_written_is_what_prost_writes(
        key in any_key(),
        operators in any::<bool>(),
        correlation_id in "[!-~]{1,128}",
        retry_after in prop::option::of((0_u32..99_999, 0_u32..1_000_000_000)),
    ) {
        let retry_after = retry_after.map(|(seconds, nanos)| Duration::new(seconds.into(), nanos));
        let owner = if operators { OrganizationId::OPERATOR } else { ACME };
        written(owner, key, &correlation_id, retry_after, |out, message| {
            assert_eq!(proto::VerifyResponse::decode(out).unwrap(), message);
            assert_eq!(out, message.encode_to_vec());
        });
    }
}

/// A field that is added to the message must be written, too.
#[test]
fn every_field_of_the_message_is_written() {
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut messages = set.file.iter().flat_map(|file| &file.message_type);
    let message = messages.find(|it| it.name() == "VerifyResponse").unwrap();
    let declared: BTreeSet<u32> =
        message.field.iter().map(|field| field.number().try_into().unwrap()).collect();
    let mut there = BTreeSet::new();
    // What stands beside yes, and what beside no.
    for retry_after in [None, Some(Duration::from_millis(1_500))] {
        written(ACME, full_key(), "c", retry_after, |mut out, _| {
            while !out.is_empty() {
                let (number, wire) = prost::encoding::decode_key(&mut out).unwrap();
                there.insert(number);
                prost::encoding::skip_field(
                    wire,
                    number,
                    &mut out,
                    prost::encoding::DecodeContext::default(),
                )
                .unwrap();
            }
        });
    }
    assert_eq!(there, declared);
}

/// A ledger of one installation, a door to it, and the key of its operator.
async fn opened(requests_max: usize) -> (Door, String) {
    let parts = Parts {
        store: Arc::new(MemoryStore::new()),
        vault: Arc::new(MemoryVault::new()),
        clock: Clock::system(),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [2; 32].into(),
    };
    let (ledger, _) = Ledger::open(parts).await.unwrap();
    let secret = crate::ledger::mint::mint(
        &"klop".parse().unwrap(),
        Some(Environment::Live),
        ledger.peppers(),
    )
    .unwrap()
    .secret;
    let text = secret.expose().to_owned();
    ledger.create_installation(Some(&secret), &ConfiguredKeys::default()).await.unwrap();
    let door = Door::closed(requests_max, Vec::new());
    door.open(ledger);
    (door, text)
}

/// Asks the same question without end, and counts how often it was read.
struct Asking {
    credential: String,
    read: Arc<AtomicUsize>,
    at_most: usize,
}

impl Stream for Asking {
    type Item = Result<proto::VerifyStreamRequest, Status>;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        if self.read.load(Ordering::SeqCst) >= self.at_most {
            return std::task::Poll::Pending;
        }
        let id = self.read.fetch_add(1, Ordering::SeqCst) as u64;
        let question = Some(proto::VerifyRequest {
            credential: self.credential.clone(),
            ..proto::VerifyRequest::default()
        });
        std::task::Poll::Ready(Some(Ok(proto::VerifyStreamRequest { id, question })))
    }
}

fn asking(credential: &str, at_most: usize) -> (Request<Asking>, Arc<AtomicUsize>) {
    let read = Arc::<AtomicUsize>::default();
    let asking = Asking { credential: credential.to_owned(), read: Arc::clone(&read), at_most };
    let mut request = Request::new(asking);
    request.metadata_mut().insert("x-api-key", credential.parse().unwrap());
    (request, read)
}

fn ended(answer: Option<Result<Written, Status>>) -> Status {
    answer.unwrap().expect_err("an end")
}

/// A client that takes no answers makes nothing grow: nothing is read for it.
#[tokio::test]
async fn nothing_is_read_before_it_can_be_answered() {
    let (door, key) = opened(8).await;
    let (request, read) = asking(&key, usize::MAX);
    let mut answers = Verification::new(door).verify_stream(request).unwrap().into_inner();
    assert_eq!(read.load(Ordering::SeqCst), 0);
    for taken in 1..=1_000 {
        let answer = answers.next().await.unwrap().unwrap();
        let answer = proto::VerifyStreamResponse::decode(&*answer.0).unwrap();
        assert_eq!(answer.id, taken as u64 - 1);
        assert_eq!(read.load(Ordering::SeqCst), taken);
    }
}

/// One who asks without pause gives others their turn.
#[tokio::test]
async fn a_stream_without_pause_yields() {
    let (door, key) = opened(8).await;
    let (request, read) = asking(&key, usize::MAX);
    let mut answers = Verification::new(door).verify_stream(request).unwrap().into_inner();
    // In one turn of a task, as the transport polls.
    std::future::poll_fn(|context| {
        let turns = (0..10_000)
            .take_while(|_| std::pin::Pin::new(&mut answers).poll_next(context).is_ready());
        std::task::Poll::Ready(turns.count())
    })
    .await;
    assert!((1..=1_000).contains(&read.load(Ordering::SeqCst)));
}

/// Waits until as many may enter as there are places.
async fn free(door: &Door, places: usize) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while (0..places).map(|_| door.enter()).collect::<Vec<_>>().iter().any(Result::is_err) {
        assert!(std::time::Instant::now() < until, "the place is never free");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_that_asks_nothing_ends_and_its_place_is_free_though_nobody_polls() {
    let (door, key) = opened(2).await;
    let idle_max = Duration::from_millis(30);
    let verification = Verification { door: door.clone(), idle_max };
    let (request, _) = asking(&key, 1);
    let mut answers = verification.verify_stream(request).unwrap().into_inner();
    assert!(answers.next().await.unwrap().is_ok());
    let taken = [door.enter(), door.enter()];
    assert!(taken[0].is_ok() && taken[1].is_err(), "a stream has a place");
    drop(taken);
    free(&door, 2).await;
    let status = ended(answers.next().await);
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("nothing was asked"), "{status:?}");
    assert!(answers.next().await.is_none());
}

/// However a stream ends, others can have its place.
#[tokio::test]
async fn a_stream_that_is_dropped_leaves_its_place() {
    let (door, key) = opened(2).await;
    let (request, _) = asking(&key, 1);
    let answers = Verification::new(door.clone()).verify_stream(request).unwrap().into_inner();
    drop(answers);
    free(&door, 2).await;
}

#[tokio::test]
async fn a_closing_door_ends_streams_busy_or_not() {
    let (door, key) = opened(8).await;
    let verification = Verification::new(door.clone());
    let (idle, _) = asking(&key, 0);
    let mut idle = verification.verify_stream(idle).unwrap().into_inner();
    let mut context = Context::from_waker(Waker::noop());
    assert!(std::pin::Pin::new(&mut idle).poll_next(&mut context).is_pending());
    let (busy, _) = asking(&key, usize::MAX);
    let mut busy = verification.verify_stream(busy).unwrap().into_inner();
    assert!(busy.next().await.unwrap().is_ok());
    door.close();
    let (late, _) = asking(&key, usize::MAX);
    let mut late = verification.verify_stream(late).unwrap().into_inner();
    for answers in [&mut idle, &mut busy, &mut late] {
        let status = loop {
            match answers.next().await.unwrap() {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => break status,
            }
        };
        assert!(status.message().contains("shutting down"), "{status:?}");
        assert!(answers.next().await.is_none());
    }
}

#[tokio::test]
async fn a_question_is_refused_where_the_door_was_never_opened() {
    let (request, _) = asking("k", 1);
    let Err(status) = Verification::new(Door::closed(8, Vec::new())).verify_stream(request) else {
        panic!("let in")
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

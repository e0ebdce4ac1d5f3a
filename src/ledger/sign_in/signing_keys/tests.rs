use projections::id::UserId;

use super::super::access_token::{AccessTerms, AccessTokenError, Bearer};
use projections::id::SessionId;

use super::super::methods::Methods;
use super::*;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::secret::{Ids, Secret};
use crate::ledger::start::{ConfiguredKeys, Parts};
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

const DAY_MS: i64 = 86_400_000;
const REPLACED_AT_MS: i64 = 30 * DAY_MS;

fn at(ms: i64) -> Timestamp {
    Timestamp::default().saturating_add_millis(ms)
}

fn life(n: u8, added_ms: i64) -> Life {
    Life { id: SigningKeyId([n; 16]), added_at: at(added_ms), at_hand: true }
}

#[track_caller]
fn check(lives: &[Life], now_ms: i64, signer: Option<u8>, due: Option<Due>) {
    let lives = Lives::of(lives.iter().rev().copied().collect());
    let signer = signer.map(|n| SigningKeyId([n; 16]));
    assert_eq!(lives.signer(at(now_ms)), signer, "signer at {now_ms}");
    assert_eq!(lives.due(at(now_ms), REPLACED_AT_MS), due, "due at {now_ms}");
}

#[test]
fn a_key_is_published_before_it_signs_and_stays_while_it_counts() {
    let retire = |n| Some(Due::Retire(SigningKeyId([n; 16])));
    check(&[], 0, None, Some(Due::Add));
    // The first one signs at once: nobody has a set without it.
    let first = life(1, 0);
    check(&[first], 0, Some(1), None);
    check(&[first], REPLACED_AT_MS - 1, Some(1), None);
    check(&[first], REPLACED_AT_MS, Some(1), Some(Due::Add));
    let second = life(2, REPLACED_AT_MS);
    let signs = REPLACED_AT_MS + LEAD_MS;
    check(&[first, second], signs - 1, Some(1), None);
    check(&[first, second], signs, Some(2), None);
    check(&[first, second], signs + STAY_MS - 1, Some(2), None);
    check(&[first, second], signs + STAY_MS, Some(2), retire(1));
    check(&[second], signs + STAY_MS, Some(2), None);
    // A node that slept for a year: what is long over goes, oldest first, once a new one is there.
    let late = 400 * DAY_MS;
    check(&[first, second], late, Some(2), Some(Due::Add));
    let third = life(3, late);
    check(&[first, second, third], late, Some(2), retire(1));
    check(&[second, third], late, Some(2), None);
    check(&[second, third], late + LEAD_MS + STAY_MS, Some(3), retire(2));
}

#[test]
fn a_key_that_is_not_at_hand_signs_nothing_and_is_replaced_at_once() {
    let lost = Life { at_hand: false, ..life(1, 0) };
    check(&[lost], 5, None, Some(Due::Add));
    let second = life(2, 5);
    check(&[lost, second], 5, Some(2), None);
    // It counts for as long as any.
    check(&[lost, second], 5 + LEAD_MS + STAY_MS - 1, Some(2), None);
    check(&[lost, second], 5 + LEAD_MS + STAY_MS, Some(2), Some(Due::Retire(lost.id)));
    // One that is lost takes nobody's place.
    let lost = Life { at_hand: false, ..life(2, 10) };
    check(&[life(1, 5), lost], 10 + LEAD_MS + STAY_MS, Some(1), None);
}

struct World {
    store: MemoryStore,
    vault: Arc<MemoryVault>,
    time: Arc<ManualTime>,
    ledger: Arc<Ledger>,
    access: Arc<AccessTokens>,
    keys: SigningKeys,
}

impl World {
    async fn new() -> Self {
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let (store, vault) = (MemoryStore::new(), Arc::new(MemoryVault::new()));
        let ledger = open(&store, &vault, &time).await;
        ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
        let (access, keys) = keys();
        Self { store, vault, time, ledger, access, keys }
    }

    /// The same installation, started again.
    async fn restarted(self) -> Self {
        let ledger = open(&self.store, &self.vault, &self.time).await;
        let (access, keys) = keys();
        Self { ledger, access, keys, ..self }
    }

    async fn tend(&self) {
        self.keys.tend(&self.ledger).await.unwrap();
    }

    fn signer(&self) -> SigningKeyId {
        self.keys.signer().unwrap().id()
    }

    fn token(&self) -> Secret {
        let bearer = Bearer {
            organization_id: OrganizationId::from_parts(1, 1),
            user_id: UserId::from_parts(1, 2),
            session_id: SessionId::from_parts(1, 3),
            methods: Methods::default(),
        };
        let key = self.keys.signer().unwrap();
        self.access.issue(&key, bearer, self.ledger.clock().now()).unwrap()
    }

    fn accepts(&self, token: &Secret) -> Result<(), AccessTokenError> {
        self.access.verify(token.expose(), self.ledger.clock().now()).map(|_| ())
    }

    /// The names of the keys that count and of those that are kept.
    async fn kept(&self) -> (Vec<SigningKeyId>, Vec<SigningKeyId>) {
        let counting: Vec<_> = counting(&self.ledger).into_iter().map(|(id, _)| id).collect();
        let names = self.vault.row_names(None).await.unwrap();
        let id =
            |name: &RowName| SigningKeyId::from_hex(name.as_str().strip_prefix("signing-key/")?);
        (counting, names.iter().filter_map(id).collect())
    }
}

async fn open(
    store: &MemoryStore,
    vault: &Arc<MemoryVault>,
    time: &Arc<ManualTime>,
) -> Arc<Ledger> {
    let parts = Parts {
        store: Arc::new(store.clone()),
        vault: Arc::clone(vault) as _,
        clock: Clock::manual(Arc::clone(time)),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [2; 32].into(),
    };
    Ledger::open(parts).await.unwrap().0
}

fn keys() -> (Arc<AccessTokens>, SigningKeys) {
    let terms = AccessTerms {
        issuer: "https://ledger.example".to_owned(),
        audience: "services".to_owned(),
        lifetime_s: 600,
    };
    let access = Arc::new(AccessTokens::new(terms).unwrap());
    (Arc::clone(&access), SigningKeys::new(access, REPLACED_AT_MS))
}

/// The whole life: no token that was good is refused before its end, whoever keeps the set
/// for as long as they may has every key that signs, and in the end one key is left.
#[tokio::test]
async fn keys_come_and_go_and_no_good_token_is_refused() {
    let world = World::new().await;
    assert!(world.keys.signer().is_none());
    world.tend().await;
    let first = world.signer();
    world.tend().await;
    assert_eq!(world.kept().await, (vec![first], vec![first]), "one is enough");
    let hour = 3_600_000;
    world.time.advance_ms(REPLACED_AT_MS);
    world.tend().await;
    assert_eq!(world.signer(), first);
    assert_eq!(counting(&world.ledger).len(), 2);
    let set = published(&world.ledger);
    let mut tokens: Vec<(Timestamp, Secret)> = Vec::new();
    for _ in 0..48 {
        tokens.push((world.ledger.clock().now(), world.token()));
        let signer = world.signer().to_string();
        assert!(set.contains(&signer), "an hour ago everybody could know it");
        world.time.advance_ms(hour / 12);
        world.tend().await;
        let now = world.ledger.clock().now();
        for (issued, token) in &tokens {
            let good = now < issued.saturating_add_millis(600_000);
            assert!(!good || world.accepts(token).is_ok(), "{issued}");
        }
    }
    let second = world.signer();
    assert_ne!(second, first);
    assert_eq!(world.kept().await, (vec![second], vec![second]), "the first is retired and gone");
    let (_, of_first) = tokens.first().unwrap();
    assert_eq!(world.accepts(of_first), Err(AccessTokenError::UnknownKey));
    let operator = world.ledger.tables().operator().tables();
    assert_eq!(operator.installation().unwrap().signing_keys.len(), 2);
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_key() {
    let world = World::new().await;
    world.tend().await;
    let (signer, token) = (world.signer(), world.token());
    let world = world.restarted().await;
    world.tend().await;
    assert_eq!(world.signer(), signer);
    assert!(world.accepts(&token).is_ok());
    assert_eq!(counting(&world.ledger).len(), 1);
}

/// Kept before it is added: what is cut short in between leaves a key that is nobody's, and
/// the next start takes it away.
#[tokio::test]
async fn what_was_cut_short_is_finished_or_swept() {
    let world = World::new().await;
    world.store.set_full(true);
    assert!(world.keys.tend(&world.ledger).await.is_err());
    assert!(world.keys.signer().is_none(), "what was not added does not sign");
    let (counting_now, kept) = world.kept().await;
    assert_eq!((counting_now.len(), kept.len()), (0, 1));
    // The same node tries again with the same key.
    assert!(world.keys.tend(&world.ledger).await.is_err());
    assert_eq!(world.kept().await.1, kept);
    let world = world.restarted().await;
    world.store.set_full(false);
    world.tend().await;
    let (counting_now, kept_now) = world.kept().await;
    assert_eq!(counting_now, kept_now);
    assert_ne!(kept_now, kept);
}

/// A vault that is full, or without the key: the first makes no new one, the other does.
#[tokio::test]
async fn a_key_that_is_lost_is_replaced() {
    let world = World::new().await;
    world.vault.set_full(Some(Urgency::Normal));
    assert!(matches!(
        world.keys.tend(&world.ledger).await,
        Err(TendError::Vault(VaultError::Full))
    ));
    world.vault.set_full(None);
    world.tend().await;
    let lost = world.signer();
    let token = world.token();
    forget(&*world.vault, &RowName::signing_key(lost)).await.unwrap();
    let world = world.restarted().await;
    world.tend().await;
    assert_ne!(world.signer(), lost);
    assert!(world.accepts(&token).is_ok(), "what it signed counts");
    assert!(world.accepts(&world.token()).is_ok());
}

#[tokio::test]
async fn a_rotation_by_hand_waits_like_any_other() {
    let world = World::new().await;
    world.tend().await;
    let first = world.signer();
    world.time.advance_ms(1);
    world.keys.rotate(&world.ledger).await.unwrap();
    assert_eq!(counting(&world.ledger).len(), 2);
    assert_eq!(world.signer(), first);
    assert!(matches!(world.keys.rotate(&world.ledger).await, Err(TendError::TooSoon)));
    world.time.advance_ms(LEAD_MS);
    world.tend().await;
    assert_ne!(world.signer(), first);
    world.keys.rotate(&world.ledger).await.unwrap();
    assert_eq!(counting(&world.ledger).len(), 3);
}

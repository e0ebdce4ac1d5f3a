//! What signing in costs: an access token verified for the first time and again, beside an
//! API key's keyed hash and probe; a password's hash; a signature.
//!
//! Budgets and figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::hash::BuildHasherDefault;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use keyledger::ledger::secret::Secret;
use keyledger::ledger::sign_in::access_token::{AccessTerms, AccessTokens, Bearer};
use keyledger::ledger::sign_in::hashing::{Compared, HashedPassword, Hashers, HashingTerms};
use keyledger::ledger::sign_in::methods::Methods;
use keyledger::ledger::sign_in::password::Password;
use keyledger::ledger::sign_in::signing_key::SigningKey;
use keyledger::ledger::tables::TakeBits;
use keyledger::ledger::vault::peppers::{PepperId, Peppers};
use projections::api_key::{self, Environment};
use projections::event::AuthenticationMethod as Method;
use projections::id::{OrganizationId, SessionId, UserId};
use projections::time::Timestamp;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const TOKENS: u64 = 40_000;
const COLD: usize = 4_000;
const ROUNDS: usize = 15;
const HASHES: usize = 20;

/// An index of the same kind as the ledger's.
type Index = papaya::HashMap<[u64; 2], Arc<u64>, BuildHasherDefault<TakeBits>>;

/// The text of a key: a fixed function of its number, so that none need be kept.
fn key_text(number: u64) -> String {
    let prefix = "vtx".parse().expect("a prefix");
    let mut text = api_key::head(&prefix, Some(Environment::Live));
    let digits = blake3::hash(&number.to_le_bytes());
    let characters = digits.as_bytes().iter().chain(&digits.as_bytes()[..4]);
    text.extend(characters.map(|byte| char::from(api_key::ALPHABET[usize::from(*byte) % 62])));
    api_key::push_checksum(&mut text);
    text
}

fn access(key: &SigningKey) -> AccessTokens {
    let terms = AccessTerms {
        issuer: "https://ledger.example.com".to_owned(),
        audience: "https://api.example.com".to_owned(),
        lifetime_s: 600,
    };
    let access = AccessTokens::new(terms).expect("entropy");
    access.set_keys([(key.id(), key.public_key())].into_iter());
    access
}

fn bearer(number: u64) -> Bearer {
    Bearer {
        organization_id: OrganizationId::from_parts(1_790_000_000_000, 1),
        user_id: UserId::from_parts(1_790_000_000_000, u128::from(number)),
        session_id: SessionId::from_parts(1_790_000_000_000, u128::from(number)),
        methods: Methods::of(&[Method::Password, Method::Totp]),
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Nanoseconds per item.
fn each<T>(items: &[T], mut work: impl FnMut(&T)) -> f64 {
    let begin = Instant::now();
    for item in items {
        work(item);
    }
    begin.elapsed().as_nanos() as f64 / items.len() as f64
}

fn main() {
    let now: Timestamp = "2026-11-22T10:00:00.000Z".parse().expect("an instant");
    let (key, _) = SigningKey::make().expect("entropy");
    let warm = access(&key);

    let numbers: Vec<u64> = (0..TOKENS).map(|number| number * 4_999 % TOKENS).collect();
    let mut tokens: Vec<Secret> = Vec::new();
    let issued = each(&numbers, |number| {
        tokens.push(warm.issue(&key, bearer(*number), now).expect("a token"));
    });
    println!(
        "an access token: {} bytes, issued in {:.1} µs",
        tokens[0].expose().len(),
        issued / 1e3
    );

    let peppers = Peppers::new(PepperId::FIRST, [7; 32].into());
    let index = Index::default();
    for number in 0..KEYS {
        let digest = peppers.digest(key_text(number).as_bytes());
        index.pin().insert(digest.head(), Arc::new(number));
    }
    let texts: Vec<String> = (0..TOKENS).map(|number| key_text(number * 4_999 % KEYS)).collect();

    for token in &tokens {
        warm.verify(token.expose(), now).expect("a good token");
    }
    let (mut cold, mut hit, mut of_key) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let fresh = access(&key);
        cold.push(each(&tokens[..COLD], |token| {
            black_box(fresh.verify(token.expose(), now).expect("a good token"));
        }));
        hit.push(each(&tokens, |token| {
            black_box(warm.verify(token.expose(), now).expect("a good token"));
        }));
        of_key.push(each(&texts, |text| {
            let digest = peppers.digest(text.as_bytes());
            assert!(black_box(index.pin().get(&digest.head())).is_some());
        }));
    }
    let ratio = median(hit.iter().zip(&of_key).map(|(a, b)| a / b).collect());
    println!(
        "an access token: {:.1} µs cold (budget 60), {:.0} ns again, of {TOKENS}; a key's keyed hash + one probe at {KEYS}: {:.0} ns; ratio {ratio:.2} (budget 2)",
        median(cold) / 1e3,
        median(hit),
        median(of_key),
    );

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let hashers = Hashers::start(HashingTerms::default()).expect("a thread");
    let compared = |known: bool| {
        let password = || Password::presented("correct horse battery staple").expect("a password");
        let kept = runtime.block_on(hashers.hash(password())).expect("a hash");
        let begin = Instant::now();
        for _ in 0..HASHES {
            let bytes = kept.expose().as_bytes();
            let kept = if known { HashedPassword::from_bytes(bytes) } else { None };
            let compared = runtime.block_on(hashers.compare(password(), kept)).expect("an answer");
            assert_eq!(matches!(compared, Compared::Same { .. }), known);
        }
        begin.elapsed().as_secs_f64() * 1e3 / HASHES as f64
    };
    println!(
        "a password, 19 MiB and two passes: {:.1} ms of one thread; where there is no account: {:.1} ms",
        compared(true),
        compared(false),
    );
}

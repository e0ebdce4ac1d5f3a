//! What users cost in memory: a million of them, and a million of grants to them.
//!
//! `cargo bench --bench users`; figures in docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::time::Instant;

use projections::digest::EmailDigest;
use projections::envelope::Envelope;
use projections::event::{Event, GrantTerms, OrganizationCreated, RoleGranted, UserInvited};
use projections::id::{EventId, GrantId, OrganizationId, RoleId, UserId};
use projections::organization::Organization;
use projections::principal::Principal;
use projections::sealed::{Sealed, Subject};
use projections::time::Timestamp;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ORGANIZATIONS: u64 = 100;
const USERS: u64 = 1_000_000;
/// Characters of a sealed e-mail and name of usual lengths.
const SEAL_CHARS: usize = 152;

fn at(number: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + i64::try_from(number).expect("it fits"))
        .expect("an instant")
}

fn user(number: u64) -> UserId {
    UserId::from_parts(1_790_000_000_000 + number, u128::from(number))
}

/// Folds an event as a replay does: from its stored form.
fn fold(tables: &mut Organization, number: u64, event: Event, sealed: Vec<Sealed>) {
    let envelope = Envelope {
        id: EventId::from_parts(1_790_000_000_000 + number, u128::from(number)),
        at: at(number),
        actor: Principal::Organization(tables.id),
        credential: None,
        request: None,
        correlation_id: format!("cor_{number}").parse().expect("a correlation id"),
        causation_id: None,
        event,
        sealed,
    };
    let (stored, leaf_hash) = envelope.encode().expect("it encodes");
    drop(envelope);
    let envelope = Envelope::decode(&stored).expect("it decodes");
    tables.apply_next(&envelope, leaf_hash).expect("it folds");
}

fn invite(tables: &mut Organization, number: u64) {
    let mut email = [0; 32];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut email);
    let invited = UserInvited {
        user_id: user(number),
        email: EmailDigest(email),
        expires_at: at(number + 604_800_000),
        limits: Default::default(),
        token: None,
    };
    let subject = Subject::user(tables.id, user(number));
    let sealed = Sealed { subject, seal: "A".repeat(SEAL_CHARS) };
    fold(tables, number, invited.into(), vec![sealed]);
}

fn grant(tables: &mut Organization, number: u64) {
    let terms = GrantTerms {
        principal: Principal::User(user(number)),
        role_id: RoleId::from_bytes([6; 16]),
        domain: None,
        expires_at: None,
    };
    let grant_id = GrantId::from_parts(1_790_000_000_000 + number, u128::from(number));
    fold(tables, USERS + number, RoleGranted { grant_id, terms }.into(), Vec::new());
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4_096
}

fn main() {
    let mut all: Vec<Organization> = (0..ORGANIZATIONS)
        .map(|number| {
            let id = OrganizationId::from_parts(1_790_000_000_000, u128::from(number) + 1);
            let mut tables = Organization::new(id);
            let created = OrganizationCreated {
                organization_id: id,
                name: "Acme".parse().expect("a name"),
                key_prefix: format!("a{number}").parse().expect("a prefix"),
                plan: "paid".parse().expect("a plan"),
                personal_of: None,
            };
            fold(&mut tables, 0, created.into(), Vec::new());
            tables
        })
        .collect();
    for (what, one) in [("user", invite as fn(&mut Organization, u64)), ("grant", grant)] {
        let (before, begin) = (resident(), Instant::now());
        for (place, tables) in (0..).zip(&mut all) {
            for number in 0..USERS / ORGANIZATIONS {
                one(tables, place * (USERS / ORGANIZATIONS) + number);
            }
        }
        let bytes = (resident() - before) as f64 / USERS as f64;
        let each = begin.elapsed().as_secs_f64() / USERS as f64 * 1e6;
        println!("memory: {bytes:.0} bytes per {what}, resident, at {USERS}; {each:.1} µs each");
    }
}

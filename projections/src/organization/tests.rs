use proptest::prelude::*;

use super::*;
use crate::sample::{
    ACME, OTHER, created, envelope, installation_created, key_created, key_id, key_revoked,
    recorded, role_defined, tables,
};

fn acme() -> Organization {
    tables(ACME, &[created(), key_created(1, |_| {}), key_created(2, |_| {})])
}

#[track_caller]
fn check(before: &Organization, millis: i64, event: Event, expected: Result<Change, Fault>) {
    let mut after = before.clone();
    let revision = Revision::after(before.revision());
    let outcome = after.apply(&recorded(before.id, revision.0, &envelope(millis, event)));
    assert_eq!(outcome, expected.map_err(|fault| fault.at(revision)));
}

#[test]
fn what_does_not_belong_is_corrupt() {
    let empty = Organization::new(ACME);
    check(&empty, 0, created(), Ok(Change::Profile));
    check(&empty, 0, key_created(1, |_| {}), Err(Fault::Misplaced("KeyCreated")));
    check(&empty, 0, installation_created(), Err(Fault::Misplaced("InstallationCreated")));
    check(&acme(), 9, created(), Err(Fault::Misplaced("OrganizationCreated")));
    check(&acme(), 9, role_defined(1, &["a:b"]), Err(Fault::Misplaced("BuiltInRoleDefined")));
    check(
        &Organization::new(OrganizationId::OPERATOR),
        0,
        created(),
        Err(Fault::Misplaced("OrganizationCreated")),
    );
    let other = Organization::new(OrganizationId::from_bytes([8; 16]));
    check(&other, 0, created(), Err(Fault::Misplaced("OrganizationCreated")));
}

#[test]
fn targets_exist_once() {
    check(&acme(), 9, key_created(3, |_| {}), Ok(Change::Key(key_id(3))));
    check(&acme(), 9, key_created(2, |_| {}), Err(Fault::DuplicateTarget("KeyCreated")));
    check(&acme(), 9, key_revoked(2), Ok(Change::Key(key_id(2))));
    check(&acme(), 9, key_revoked(3), Err(Fault::MissingTarget("KeyRevoked")));
    let mut revoked = acme();
    revoked.apply(&recorded(ACME, 3, &envelope(9, key_revoked(2)))).unwrap();
    check(&revoked, 9, key_revoked(2), Err(Fault::MissingTarget("KeyRevoked")));
}

#[test]
fn an_organization_and_a_prefix_are_registered_once() {
    let registered = |number: u8, prefix: &str| {
        Event::from(OrganizationRegistered {
            organization_id: OrganizationId::from_bytes([number; 16]),
            name: "Acme".parse().unwrap(),
            key_prefix: prefix.parse().unwrap(),
            plan: "paid".parse().unwrap(),
        })
    };
    let twice = || Err(Fault::DuplicateTarget("OrganizationRegistered"));
    let operator =
        tables(OrganizationId::OPERATOR, &[installation_created(), registered(8, "vtx")]);
    let other = OrganizationId::from_bytes([9; 16]);
    check(&operator, 9, registered(9, "glx"), Ok(Change::Registration(other)));
    check(&operator, 9, registered(9, "vtx"), twice());
    check(&operator, 9, registered(8, "glx"), twice());
}

#[test]
fn time_does_not_run_back() {
    check(&acme(), 2, key_created(3, |_| {}), Ok(Change::Key(key_id(3))));
    check(&acme(), 1, key_created(3, |_| {}), Err(Fault::TimeRunsBack));
}

#[test]
fn order_is_dense_and_unchanging() {
    let mut tables = acme();
    let next = envelope(9, key_created(3, |_| {}));
    let expected = Fault::Gap { expected: Revision(3) }.at(Revision(4));
    assert_eq!(tables.apply(&recorded(ACME, 4, &next)), Err(expected));
    // What was applied before changes nothing, unless it is another event.
    let before = tables.clone();
    assert_eq!(
        tables.apply(&recorded(ACME, 2, &envelope(2, key_created(2, |_| {})))),
        Ok(Change::Redelivered)
    );
    assert_eq!(tables, before);
    let mut other = recorded(ACME, 2, &envelope(2, key_created(2, |_| {})));
    other.leaf_hash = OTHER;
    assert_eq!(tables.apply(&other), Err(Fault::Rewritten.at(Revision(2))));
}

#[test]
fn a_refused_event_changes_nothing() {
    let before = acme();
    for event in [created(), key_created(2, |_| {}), key_revoked(9), role_defined(1, &["a:b"])] {
        let mut after = before.clone();
        assert!(after.apply(&recorded(ACME, 3, &envelope(9, event))).is_err());
        assert_eq!(after, before);
    }
}

#[test]
fn a_name_is_free_once_its_key_is_revoked() {
    let name = "ci".parse().unwrap();
    let named = |number| key_created(number, |key| key.name = "ci".parse().unwrap());
    let one = tables(ACME, &[created(), named(1)]);
    assert_eq!(one.key_named(&name).unwrap().id, key_id(1));
    let none = tables(ACME, &[created(), named(1), key_revoked(1)]);
    assert!(none.key_named(&name).is_none());
    // The revocation of an older bearer of the name does not free it for the newer.
    let second = tables(ACME, &[created(), named(1), named(2), key_revoked(1)]);
    assert_eq!(second.key_named(&name).unwrap().id, key_id(2));
}

#[test]
fn requests_are_remembered_for_a_day_of_the_streams_time() {
    let stamp = RequestStamp { id: RequestId([1; 16]), content: RequestContent([2; 16]) };
    let mut tables = acme();
    let asked = Envelope { request: Some(stamp), ..envelope(1_000, key_created(3, |_| {})) };
    tables.apply(&recorded(ACME, 3, &asked)).unwrap();
    let remembered = tables.request(stamp.id).unwrap();
    assert_eq!((remembered.outcome, remembered.revision), (Change::Key(key_id(3)), Revision(3)));
    tables
        .apply(&recorded(ACME, 4, &envelope(1_000 + REQUEST_MEMORY_MS - 1, key_created(4, |_| {}))))
        .unwrap();
    assert!(tables.request(stamp.id).is_some());
    tables
        .apply(&recorded(ACME, 5, &envelope(1_000 + REQUEST_MEMORY_MS, key_created(5, |_| {}))))
        .unwrap();
    assert!(tables.request(stamp.id).is_none());
}

/// Some history of an organization: keys made and revoked in any order that is possible.
fn arb_history() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((any::<bool>(), 0_usize..50), 0..60).prop_map(|choices| {
        let mut history = vec![created()];
        let (mut made, mut alive) = (0_u8, Vec::new());
        for (make, which) in choices {
            if make || alive.is_empty() {
                made += 1;
                alive.push(made);
                history.push(key_created(made, |_| {}));
            } else {
                history.push(key_revoked(alive.swap_remove(which % alive.len())));
            }
        }
        history
    })
}

proptest! {
    /// Delivering any part of the history again changes nothing.
    #[test]
    fn redelivery_is_harmless(history in arb_history(), from in 0_usize..60) {
        let once = tables(ACME, &history);
        let mut twice = once.clone();
        for (revision, event) in history.iter().enumerate().skip(from) {
            let again = recorded(ACME, revision as u64, &envelope(revision as i64, event.clone()));
            prop_assert_eq!(twice.apply(&again), Ok(Change::Redelivered));
        }
        prop_assert_eq!(once, twice);
    }

    /// Revocation is final: no later event brings a key back.
    #[test]
    fn revoked_stays_revoked(history in arb_history()) {
        let mut tables = Organization::new(ACME);
        let mut revoked = Vec::new();
        for (revision, event) in history.iter().enumerate() {
            if let Event::KeyRevoked(event) = event {
                revoked.push(event.key_id);
            }
            tables.apply(&recorded(ACME, revision as u64, &envelope(revision as i64, event.clone()))).unwrap();
            for id in &revoked {
                prop_assert!(tables.key(*id).unwrap().revocation.is_some());
            }
        }
        prop_assert_eq!(tables.key_counts().1, revoked.len() as u64);
    }

    /// A copy taken along the way is not changed by what comes later, and goes on to the same end.
    #[test]
    fn copies_are_apart(history in arb_history(), cut in 0_usize..60) {
        let cut = cut.min(history.len());
        let half = tables(ACME, &history[..cut]);
        let kept = half.clone();
        let mut on = half.clone();
        for (revision, event) in history.iter().enumerate().skip(cut) {
            on.apply(&recorded(ACME, revision as u64, &envelope(revision as i64, event.clone()))).unwrap();
        }
        prop_assert_eq!(half, kept);
        prop_assert_eq!(on, tables(ACME, &history));
    }

    /// No bytes make the reader panic.
    #[test]
    fn any_bytes_are_an_event_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(&bytes);
    }
}

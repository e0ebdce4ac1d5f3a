use proptest::prelude::*;

use super::*;
use crate::envelope::RequestStamp;
use crate::event::{KeyLabel, KeyRelabelled, KeyRotationEnded, SigningKeyAdded, SigningKeyRetired};
use crate::event::{OrganizationRegistered, PepperRotated};
use crate::sample::{
    ACME, OTHER, at, created, envelope, installation_created, key_created, key_disabled,
    key_enabled, key_id, key_revoked, key_rotated, recorded, role_defined, service_account_created,
    service_account_id, tables,
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
            personal_of: None,
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

/// A key that takes the place of another, under the same name.
fn successor(number: u8, of: u8) -> Event {
    key_created(number, |key| {
        key.name = "ci".parse().unwrap();
        key.rotates = Some(key_id(of));
    })
}

fn relabelled(number: u8, from: &str, to: &str) -> Event {
    let label = |name: &str| KeyLabel { name: name.parse().unwrap(), description: None };
    KeyRelabelled { key_id: key_id(number), label: label(to), before: label(from) }.into()
}

#[test]
fn a_name_goes_back_to_the_key_whose_place_its_bearer_took() {
    let first = key_created(1, |key| key.name = "ci".parse().unwrap());
    let bearer = |events: &[Event]| {
        let history: Vec<_> = [created(), first.clone()].iter().chain(events).cloned().collect();
        let tables = tables(ACME, &history);
        tables.key_named(&"ci".parse().unwrap()).map(|key| key.id)
    };
    let rotated = [successor(2, 1), key_rotated(1, 2, 1_000)];
    let with = |then: &[Event]| [&rotated, then].concat();
    assert_eq!(bearer(&with(&[])), Some(key_id(2)));
    assert_eq!(bearer(&with(&[key_revoked(1)])), Some(key_id(2)));
    assert_eq!(bearer(&with(&[key_revoked(2)])), Some(key_id(1)));
    assert_eq!(bearer(&with(&[key_disabled(2)])), Some(key_id(1)));
    assert_eq!(bearer(&with(&[key_disabled(2), key_enabled(2)])), Some(key_id(2)));
    assert_eq!(bearer(&with(&[relabelled(2, "ci", "other")])), Some(key_id(1)));
    assert_eq!(bearer(&with(&[key_disabled(1), key_enabled(1)])), Some(key_id(2)));
    assert_eq!(bearer(&with(&[key_disabled(1), key_revoked(2)])), None);
    assert_eq!(bearer(&with(&[key_revoked(2), key_revoked(1)])), None);
    // Through a link that is gone: the third took the second's place, without grace.
    let third = [successor(3, 2), key_rotated(2, 3, 0)];
    assert_eq!(bearer(&with(&[&third[..], &[key_revoked(3)]].concat())), Some(key_id(1)));
    // A key whose time is over inherits nothing.
    let over = [successor(2, 1), key_rotated(1, 2, 5), key_created(8, |_| {}), key_revoked(2)];
    assert_eq!(bearer(&over), None);
}

#[test]
fn changes_of_a_key_need_the_key_in_that_state() {
    let base = acme();
    let missing = |name| Err(Fault::MissingTarget(name));
    let twice = |name| Err(Fault::DuplicateTarget(name));
    let key = |number| Ok(Change::Key(key_id(number)));
    let ended =
        |number| -> Event { KeyRotationEnded { key_id: key_id(number), before: at(0) }.into() };
    check(&base, 9, key_disabled(1), key(1));
    check(&base, 9, key_disabled(9), missing("KeyDisabled"));
    check(&base, 9, key_enabled(1), missing("KeyEnabled"));
    check(&base, 9, relabelled(1, "key 1", "x"), key(1));
    check(&base, 9, relabelled(9, "key 9", "x"), missing("KeyRelabelled"));
    check(&base, 9, key_rotated(1, 2, 50), missing("KeyRotated"));
    check(&base, 9, ended(1), missing("KeyRotationEnded"));
    let mut disabled = base.clone();
    disabled.apply(&recorded(ACME, 3, &envelope(9, key_disabled(1)))).unwrap();
    check(&disabled, 9, key_disabled(1), twice("KeyDisabled"));
    check(&disabled, 9, key_enabled(1), key(1));
    check(&disabled, 9, key_revoked(1), key(1));
    let mut rotated = base;
    for (revision, event) in [(3, successor(4, 1)), (4, key_rotated(1, 4, 50))] {
        rotated.apply(&recorded(ACME, revision, &envelope(9, event))).unwrap();
    }
    check(&rotated, 9, key_rotated(1, 4, 50), twice("KeyRotated"));
    check(&rotated, 9, ended(1), key(1));
    check(&rotated, 9, ended(4), missing("KeyRotationEnded"));
    rotated.apply(&recorded(ACME, 5, &envelope(9, ended(1)))).unwrap();
    for event in [ended(1), key_disabled(1), relabelled(1, "key 1", "x"), key_revoked(1)] {
        let name = event.event_type();
        check(&rotated, 9, event, missing(name));
    }
    assert_eq!(rotated.key_counts(), (3, 1));
}

#[test]
fn the_keys_of_a_service_account_are_its_own() {
    let owned = |number, owner| {
        key_created(number, |key| key.owner = Some(service_account_id(owner).into()))
    };
    check(&acme(), 9, owned(3, 1), Err(Fault::MissingTarget("KeyCreated")));
    let history = [
        created(),
        service_account_created(1, &[]),
        service_account_created(2, &[]),
        owned(1, 1),
        owned(2, 2),
        owned(3, 1),
        key_created(4, |_| {}),
    ];
    let mut tables = tables(ACME, &history);
    let ids = |tables: &Organization, owner| {
        tables
            .keys_of(service_account_id(owner).into(), at(0))
            .map(|key| key.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&tables, 1), [key_id(1), key_id(3)]);
    assert_eq!(ids(&tables, 2), [key_id(2)]);
    assert!(ids(&tables, 3).is_empty());
    check(
        &tables,
        9,
        service_account_created(2, &[]),
        Err(Fault::DuplicateTarget("ServiceAccountCreated")),
    );
    tables.apply(&recorded(ACME, 7, &envelope(9, key_revoked(1)))).unwrap();
    assert_eq!(ids(&tables, 1), [key_id(3)]);
}

/// However many keys of a service account ended, nobody looks at them who asks for those
/// that did not.
#[test]
fn the_keys_of_a_service_account_that_ended_are_passed_over() {
    let owner = service_account_id(1);
    let owned = |number, end: Option<i64>| {
        key_created(number, move |key| {
            key.owner = Some(owner.into());
            key.expires_at = end.map(at);
        })
    };
    let mut history = vec![created(), service_account_created(1, &[])];
    history.extend([owned(1, Some(50)), owned(2, None), owned(3, Some(20)), owned(4, None)]);
    history.push(key_created(5, |key| {
        key.owner = Some(owner.into());
        key.rotates = Some(key_id(2));
    }));
    let mut tables = tables(ACME, &history);
    let in_order = |tables: &Organization, now| {
        tables.keys_of(owner.into(), at(now)).map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!(in_order(&tables, 9), [3, 1, 2, 4, 5].map(key_id));
    assert_eq!(in_order(&tables, 19), [3, 1, 2, 4, 5].map(key_id));
    assert_eq!(in_order(&tables, 20), [1, 2, 4, 5].map(key_id));
    assert_eq!(in_order(&tables, 50), [2, 4, 5].map(key_id));
    let events = [key_rotated(2, 5, 60), key_disabled(4), key_disabled(1), key_revoked(5)];
    for (revision, event) in (7..).zip(events) {
        tables.apply(&recorded(ACME, revision, &envelope(9, event))).unwrap();
    }
    assert_eq!(in_order(&tables, 9), [3, 1, 2, 4].map(key_id));
    assert_eq!(in_order(&tables, 59), [2, 4].map(key_id));
    assert_eq!(in_order(&tables, 60), [key_id(4)], "it may be enabled again");
    // As they are from a snapshot, and once they have left.
    let again = Organization::from_canonical(&tables.to_canonical()).unwrap();
    assert_eq!(again, tables);
    let month = crate::key::KEY_MEMORY_MS;
    let later = envelope(month + 60, key_created(6, |_| {}));
    tables.apply(&recorded(ACME, 11, &later)).unwrap();
    assert_eq!(tables.departed().len(), 4);
    assert_eq!(tables.owned.len(), 1);
}

#[test]
fn peppers_only_go_forward() {
    let rotated = |pepper| -> Event {
        PepperRotated { pepper, pepper_check: crate::digest::SecretDigest([2; 32]) }.into()
    };
    let operator = tables(OrganizationId::OPERATOR, &[installation_created(), rotated(3)]);
    assert_eq!(operator.installation().unwrap().pepper, 3);
    assert_eq!(operator.installation().unwrap().peppers.len(), 2);
    check(&operator, 9, rotated(4), Ok(Change::Rule));
    check(&operator, 9, rotated(3), Err(Fault::DuplicateTarget("PepperRotated")));
    check(&acme(), 9, rotated(4), Err(Fault::Misplaced("PepperRotated")));
}

#[test]
fn a_signing_key_is_added_once_and_retired_once() {
    let id = crate::digest::SigningKeyId;
    let added = |n: u8| -> Event {
        let public_key = crate::digest::SigningPublicKey([n; 32]);
        SigningKeyAdded { signing_key_id: id([n; 16]), public_key }.into()
    };
    let retired = |n: u8| -> Event { SigningKeyRetired { signing_key_id: id([n; 16]) }.into() };
    let history = [installation_created(), added(1), added(2), retired(1)];
    let operator = tables(OrganizationId::OPERATOR, &history);
    let keys = &operator.installation().unwrap().signing_keys;
    assert_eq!(keys.len(), 2);
    assert!(keys[&id([1; 16])].retired_at.is_some() && keys[&id([2; 16])].retired_at.is_none());
    check(&operator, 9, added(3), Ok(Change::Rule));
    check(&operator, 9, retired(2), Ok(Change::Rule));
    for again in [added(1), added(2)] {
        check(&operator, 9, again, Err(Fault::DuplicateTarget("SigningKeyAdded")));
    }
    for none in [retired(1), retired(3)] {
        check(&operator, 9, none, Err(Fault::MissingTarget("SigningKeyRetired")));
    }
    check(&acme(), 9, added(3), Err(Fault::Misplaced("SigningKeyAdded")));
    check(&acme(), 9, retired(2), Err(Fault::Misplaced("SigningKeyRetired")));
    assert_eq!(Organization::from_canonical(&operator.to_canonical()).unwrap(), operator);
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

/// Some history of an organization: keys made and changed in any order that is possible.
fn arb_history() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0_u8..8, 0_usize..50), 0..60).prop_map(|choices| {
        let mut history = vec![created()];
        let (mut made, mut alive, mut disabled, mut replaced) = (0_u8, vec![], vec![], vec![]);
        for (what, which) in choices {
            let Some(number) = (!alive.is_empty()).then(|| alive[which % alive.len()]) else {
                made += 1;
                alive.push(made);
                history.push(key_created(made, |_| {}));
                continue;
            };
            let is_disabled = disabled.contains(&number);
            match what {
                0 | 1 => {
                    made += 1;
                    alive.push(made);
                    history.push(key_created(made, |_| {}));
                }
                2 if !is_disabled => {
                    disabled.push(number);
                    history.push(key_disabled(number));
                }
                3 if is_disabled => {
                    disabled.retain(|it| *it != number);
                    history.push(key_enabled(number));
                }
                4 => history.push(relabelled(number, "a", ["b", "c", "d"][which % 3])),
                5 if !replaced.contains(&number) => {
                    made += 1;
                    alive.push(made);
                    replaced.push(number);
                    history.push(successor(made, number));
                    history.push(key_rotated(number, made, 1_000_000));
                }
                _ => {
                    alive.retain(|it| *it != number);
                    history.push(key_revoked(number));
                }
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
                prop_assert!(tables.key(*id).unwrap().revocation().is_some());
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

mod break_glass;
mod snapshots;

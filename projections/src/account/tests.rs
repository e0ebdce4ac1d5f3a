use proptest::prelude::*;

use super::*;
use crate::event::*;
use crate::sample::{OTHER, at, created, envelope};

const ALICE: AccountId = AccountId::from_bytes([1; 16]);
const BOB: AccountId = AccountId::from_bytes([2; 16]);
const EMAIL: EmailDigest = EmailDigest([3; 32]);

fn session(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

fn begun() -> Event {
    AccountCreated { account_id: ALICE, email: EMAIL, personal_organization: None }.into()
}

fn password(keeps: Option<u8>) -> Event {
    let keeps = keeps.map(session);
    PasswordSet { account_id: ALICE, cause: PasswordCause::Change, keeps }.into()
}

fn ended(keeps: Option<u8>) -> Event {
    SessionsEnded { account_id: ALICE, keeps: keeps.map(session) }.into()
}

fn totp(enrolled: bool) -> Event {
    if enrolled {
        TotpEnrolled { account_id: ALICE }.into()
    } else {
        TotpRemoved { account_id: ALICE }.into()
    }
}

fn codes(codes: u8) -> Event {
    RecoveryCodesReplaced { account_id: ALICE, codes }.into()
}

fn used(left: u8) -> Event {
    RecoveryCodeUsed { account_id: ALICE, left }.into()
}

fn locked(until: i64) -> Event {
    AccountLocked { account_id: ALICE, until: at(until) }.into()
}

fn next(account: &mut Account, millis: i64, event: Event) -> Result<(), Fault> {
    let envelope = envelope(millis, event);
    let leaf_hash = envelope.encode().unwrap().1;
    account.apply_next(&envelope, leaf_hash).map_err(|it| it.fault)
}

/// The account that these events leave, one a millisecond.
fn account(events: &[Event]) -> Account {
    let mut account = Account::new(ALICE);
    for (event, millis) in events.iter().zip(0..) {
        next(&mut account, millis, event.clone()).unwrap();
    }
    account
}

/// This event changes nothing and is refused.
#[track_caller]
fn refused(before: &Account, event: Event, fault: Fault) {
    let mut after = before.clone();
    assert_eq!(next(&mut after, 99, event), Err(fault));
    assert_eq!(after, *before);
}

#[test]
fn what_does_not_belong_into_an_accounts_stream_is_corrupt() {
    let (empty, begun_account) = (Account::new(ALICE), account(&[begun()]));
    let of_account: [Event; 8] = [
        password(None),
        totp(true),
        totp(false),
        codes(3),
        used(1),
        ended(None),
        locked(9),
        DefaultOrganizationSet {
            account_id: ALICE,
            organization_id: OrganizationId::from_bytes([4; 16]),
            before: None,
        }
        .into(),
    ];
    for event in of_account {
        // Before the account came to be.
        refused(&empty, event.clone(), Fault::Misplaced(event.event_type()));
        // In another account's stream.
        let mut bobs = Account::new(BOB);
        next(
            &mut bobs,
            0,
            AccountCreated { account_id: BOB, email: EMAIL, personal_organization: None }.into(),
        )
        .unwrap();
        refused(&bobs, event.clone(), Fault::Misplaced(event.event_type()));
    }
    refused(&Account::new(BOB), begun(), Fault::Misplaced("AccountCreated"));
    refused(&begun_account, begun(), Fault::Misplaced("AccountCreated"));
    refused(&begun_account, created(), Fault::Misplaced("OrganizationCreated"));
    let confirmed = EmailConfirmed { email: EMAIL, account_id: ALICE };
    refused(&begun_account, confirmed.into(), Fault::Misplaced("EmailConfirmed"));
}

#[test]
fn second_factors_and_recovery_codes_exist_once() {
    let plain = account(&[begun()]);
    refused(&plain, totp(false), Fault::MissingTarget("TotpRemoved"));
    refused(&plain, codes(3), Fault::MissingTarget("RecoveryCodesReplaced"));
    refused(&plain, used(0), Fault::MissingTarget("RecoveryCodeUsed"));
    let enrolled = account(&[begun(), totp(true), codes(2)]);
    refused(&enrolled, totp(true), Fault::DuplicateTarget("TotpEnrolled"));
    for left in [0, 2, 3] {
        refused(&enrolled, used(left), Fault::MissingTarget("RecoveryCodeUsed"));
    }
    let used_up = account(&[begun(), totp(true), codes(2), used(1), used(0)]);
    assert_eq!(used_up.recovery_codes(), 0);
    refused(&used_up, used(0), Fault::MissingTarget("RecoveryCodeUsed"));
    let removed = account(&[begun(), totp(true), codes(2), totp(false)]);
    assert!(!removed.has_totp());
    assert_eq!(removed.recovery_codes(), 0, "they went with what they stood in for");
}

#[test]
fn order_and_time_are_kept() {
    let mut account = account(&[begun(), totp(true)]);
    let before = account.clone();
    let removed = envelope(1, totp(false));
    let hash = removed.encode().unwrap().1;
    let apply = |account: &mut Account, revision, hash, envelope: &Envelope| {
        account.apply_decoded(Revision(revision), hash, Ok(envelope.clone()))
    };
    let gap = Fault::Gap { expected: Revision(2) }.at(Revision(3));
    assert_eq!(apply(&mut account, 3, hash, &removed), Err(gap));
    assert_eq!(apply(&mut account, 1, OTHER, &removed), Err(Fault::Rewritten.at(Revision(1))));
    let early = envelope(0, totp(false));
    assert_eq!(apply(&mut account, 2, hash, &early), Err(Fault::TimeRunsBack.at(Revision(2))));
    let unreadable = Fault::Unreadable("x".to_owned());
    assert_eq!(
        account.apply_decoded(Revision(2), hash, Err(unreadable.clone())),
        Err(unreadable.at(Revision(2)))
    );
    assert_eq!(account, before);
    // A redelivery is known.
    let again = account.head().unwrap().leaf_hash;
    assert_eq!(apply(&mut account, 1, again, &removed), Ok(false));
    assert_eq!(apply(&mut account, 0, OTHER, &removed), Ok(false));
    assert_eq!(account, before);
    assert_eq!(apply(&mut account, 2, hash, &removed), Ok(true));
}

#[test]
fn a_session_stands_at_its_epoch_or_where_it_was_kept() {
    let mut account = account(&[begun(), password(None)]);
    let began = account.epoch();
    assert!(account.stands(session(1), began) && account.stands(session(2), began));
    next(&mut account, 9, ended(Some(1))).unwrap();
    assert!(account.stands(session(1), began));
    assert!(!account.stands(session(2), began));
    // It is kept again, as long as it is named.
    next(&mut account, 9, password(Some(1))).unwrap();
    assert!(account.stands(session(1), began));
    let later = account.epoch();
    assert!(account.stands(session(3), later));
    next(&mut account, 9, ended(None)).unwrap();
    assert!(!account.stands(session(1), began) && !account.stands(session(3), later));
    assert_eq!(account.epoch(), began + 3);
}

#[test]
fn a_lock_ends_by_itself_or_with_another_password() {
    let mut account = account(&[begun(), locked(10)]);
    assert!(account.is_locked(at(9)) && !account.is_locked(at(10)));
    next(&mut account, 20, totp(true)).unwrap();
    assert!(!account.is_locked(at(5)), "a clock that is set back locks nothing again");
    next(&mut account, 20, locked(99)).unwrap();
    assert!(account.is_locked(at(50)));
    next(&mut account, 21, password(None)).unwrap();
    assert!(!account.is_locked(at(50)));
    assert_eq!(account.password_set_at(), Some(at(21)));
}

fn asked(number: u8) -> RequestStamp {
    RequestStamp { id: RequestId([number; 16]), content: RequestContent([number; 16]) }
}

#[test]
fn requests_are_remembered_for_a_day_and_the_last_ones_only() {
    let mut account = account(&[begun()]);
    let ask = |account: &mut Account, number, millis| {
        let envelope = Envelope { request: Some(asked(number)), ..envelope(millis, ended(None)) };
        let leaf_hash = envelope.encode().unwrap().1;
        account.apply_next(&envelope, leaf_hash).unwrap();
    };
    ask(&mut account, 1, 10);
    ask(&mut account, 1, 11);
    let first = account.request(asked(1).id).unwrap();
    assert_eq!((first.revision, first.at), (Revision(1), at(10)), "its first event");
    ask(&mut account, 2, 10 + REQUEST_MEMORY_MS - 1);
    assert!(account.request(asked(1).id).is_some());
    ask(&mut account, 3, 10 + REQUEST_MEMORY_MS);
    assert!(account.request(asked(1).id).is_none());
    for number in 10..42 {
        ask(&mut account, number, 20 + REQUEST_MEMORY_MS);
    }
    assert_eq!(account.requests.len(), ACCOUNT_REQUESTS_MAX);
    assert!(account.request(asked(3).id).is_none() && account.request(asked(41).id).is_some());
}

/// The event of a choice; those that are impossible where they stand are passed over.
fn event((what, variety): (u8, u8)) -> Event {
    match what {
        0 => password((variety % 3 == 0).then_some(variety)),
        1 => totp(true),
        2 => totp(false),
        3 => codes(variety),
        4 => used(variety),
        5 => ended((variety % 3 == 0).then_some(variety)),
        6 => locked(variety.into()),
        _ => DefaultOrganizationSet {
            account_id: ALICE,
            organization_id: OrganizationId::from_bytes([variety; 16]),
            before: None,
        }
        .into(),
    }
}

proptest! {
    #[test]
    fn a_snapshot_is_the_account(choices in prop::collection::vec((0_u8..8, 0_u8..6, any::<bool>()), 0..40)) {
        let mut account = Account::new(ALICE);
        prop_assert_eq!(&Account::from_canonical(&account.to_canonical()).unwrap(), &account);
        next(&mut account, 0, begun()).unwrap();
        for ((what, variety, stamped), millis) in choices.into_iter().zip(1..) {
            let request = stamped.then(|| asked(variety));
            let envelope = Envelope { request, ..envelope(millis, event((what, variety))) };
            let leaf_hash = envelope.encode().unwrap().1;
            let before = account.clone();
            if account.apply_next(&envelope, leaf_hash).is_err() {
                prop_assert_eq!(&account, &before);
            } else {
                prop_assert_ne!(account.to_canonical(), before.to_canonical());
            }
            let bytes = account.to_canonical();
            prop_assert_eq!(&Account::from_canonical(&bytes).unwrap(), &account);
            prop_assert!(Account::from_canonical(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Account::from_canonical(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}

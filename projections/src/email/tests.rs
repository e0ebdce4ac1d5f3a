use proptest::prelude::*;

use super::*;
use crate::digest::{RequestContent, RequestId};
use crate::event::*;
use crate::sample::{OTHER, at, created, envelope};

const EMAIL: EmailDigest = EmailDigest([3; 32]);

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

fn reserve(number: u8, until: i64) -> Event {
    EmailReserved { email: EMAIL, account_id: account(number), until: at(until) }.into()
}

fn confirm(number: u8) -> Event {
    EmailConfirmed { email: EMAIL, account_id: account(number) }.into()
}

fn release(number: u8) -> Event {
    EmailReleased { email: EMAIL, account_id: account(number) }.into()
}

fn next(reservation: &mut Reservation, millis: i64, event: Event) -> Result<(), Fault> {
    let envelope = envelope(millis, event);
    let leaf_hash = envelope.encode().unwrap().1;
    reservation.apply_next(&envelope, leaf_hash).map_err(|it| it.fault)
}

/// The reservation that these events leave, all at the first millisecond.
fn behind(events: &[Event]) -> Reservation {
    let mut reservation = Reservation::new(EMAIL);
    for event in events {
        next(&mut reservation, 0, event.clone()).unwrap();
    }
    reservation
}

#[track_caller]
fn check(before: &[Event], millis: i64, event: Event, expected: Result<Option<u8>, Fault>) {
    let mut after = behind(before);
    let outcome = next(&mut after, millis, event);
    let holder = after.holder().map(|it| it.account_id());
    match expected {
        Ok(expected) => {
            assert_eq!((outcome, holder), (Ok(()), expected.map(account)));
        }
        Err(fault) => {
            assert_eq!(outcome, Err(fault));
            assert_eq!(after, behind(before));
        }
    }
}

#[test]
fn an_email_is_one_accounts_at_a_time() {
    let twice = || Err(Fault::DuplicateTarget("EmailReserved"));
    check(&[], 0, reserve(1, 10), Ok(Some(1)));
    check(&[reserve(1, 10)], 9, reserve(2, 20), twice());
    check(&[reserve(1, 10)], 9, reserve(1, 20), twice());
    check(&[reserve(1, 10)], 10, reserve(2, 20), Ok(Some(2)));
    check(&[reserve(1, 10)], 10, reserve(1, 20), Ok(Some(1)));
    check(&[reserve(1, 10), confirm(1)], 99, reserve(2, 200), twice());
    check(&[reserve(1, 10), confirm(1)], 99, reserve(1, 200), twice());
    check(&[reserve(1, 10), release(1)], 1, reserve(2, 20), Ok(Some(2)));
    check(&[reserve(1, 10), confirm(1), release(1)], 1, reserve(2, 20), Ok(Some(2)));
}

#[test]
fn only_who_has_it_confirms_and_releases_it() {
    let missing = |event_type| Err(Fault::MissingTarget(event_type));
    check(&[], 0, confirm(1), missing("EmailConfirmed"));
    check(&[], 0, release(1), missing("EmailReleased"));
    check(&[reserve(1, 10)], 0, confirm(2), missing("EmailConfirmed"));
    check(&[reserve(1, 10)], 0, release(2), missing("EmailReleased"));
    check(&[reserve(1, 10)], 99, confirm(1), Ok(Some(1)));
    check(&[reserve(1, 10), release(1)], 0, confirm(1), missing("EmailConfirmed"));
    check(&[reserve(1, 10), release(1)], 0, release(1), missing("EmailReleased"));
    let confirmed = [reserve(1, 10), confirm(1)];
    check(&confirmed, 0, confirm(1), Err(Fault::DuplicateTarget("EmailConfirmed")));
    check(&confirmed, 0, release(1), Ok(None));
    assert_eq!(behind(&confirmed).confirmed(), Some(account(1)));
    assert_eq!(behind(&[reserve(1, 10)]).confirmed(), None);
}

#[test]
fn what_does_not_belong_into_an_emails_stream_is_corrupt() {
    check(&[], 0, created(), Err(Fault::Misplaced("OrganizationCreated")));
    let begun =
        AccountCreated { account_id: account(1), email: EMAIL, personal_organization: None };
    check(&[], 0, begun.into(), Err(Fault::Misplaced("AccountCreated")));
    let elsewhere =
        EmailReserved { email: EmailDigest([4; 32]), account_id: account(1), until: at(10) };
    check(&[], 0, elsewhere.into(), Err(Fault::Misplaced("EmailReserved")));
    let other = EmailDigest([4; 32]);
    let confirmed = EmailConfirmed { email: other, account_id: account(1) }.into();
    check(&[reserve(1, 10)], 0, confirmed, Err(Fault::Misplaced("EmailConfirmed")));
    let released = EmailReleased { email: other, account_id: account(1) }.into();
    check(&[reserve(1, 10)], 0, released, Err(Fault::Misplaced("EmailReleased")));
}

#[test]
fn order_and_time_are_kept() {
    let mut it = Reservation::new(EMAIL);
    next(&mut it, 5, reserve(1, 10)).unwrap();
    let before = it.clone();
    let confirmed = envelope(5, confirm(1));
    let hash = confirmed.encode().unwrap().1;
    let apply = |it: &mut Reservation, revision, hash, envelope: &Envelope| {
        it.apply_decoded(Revision(revision), hash, Ok(envelope.clone()))
    };
    let gap = Fault::Gap { expected: Revision(1) }.at(Revision(2));
    assert_eq!(apply(&mut it, 2, hash, &confirmed), Err(gap));
    assert_eq!(apply(&mut it, 0, OTHER, &confirmed), Err(Fault::Rewritten.at(Revision(0))));
    let early = envelope(4, confirm(1));
    assert_eq!(apply(&mut it, 1, hash, &early), Err(Fault::TimeRunsBack.at(Revision(1))));
    assert_eq!(it, before);
    let again = before.head().unwrap().leaf_hash;
    assert_eq!(apply(&mut it, 0, again, &confirmed), Ok(false));
    assert_eq!(apply(&mut it, 1, hash, &confirmed), Ok(true));
    assert_eq!(it.confirmed(), Some(account(1)));
}

proptest! {
    #[test]
    fn a_snapshot_is_the_reservation(choices in prop::collection::vec((0_u8..3, 0_u8..2, any::<bool>()), 0..20)) {
        let mut it = Reservation::new(EMAIL);
        for ((what, number, stamped), millis) in choices.into_iter().zip(1..) {
            let event = match what {
                0 => reserve(number, millis + 2),
                1 => confirm(number),
                _ => release(number),
            };
            let request = stamped.then_some(RequestStamp {
                id: RequestId([number; 16]),
                content: RequestContent([number; 16]),
            });
            let envelope = Envelope { request, ..envelope(millis, event) };
            let leaf_hash = envelope.encode().unwrap().1;
            let _ = it.apply_next(&envelope, leaf_hash);
            let bytes = it.to_canonical();
            prop_assert_eq!(&Reservation::from_canonical(&bytes).unwrap(), &it);
            prop_assert!(Reservation::from_canonical(&bytes[..bytes.len() - 1]).is_err());
            prop_assert!(Reservation::from_canonical(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}

use projections::digest::{EmailDigest, RequestContent, RequestId};
use projections::envelope::Envelope;
use projections::event::{AccountCreated, EmailConfirmed, EmailReserved};
use projections::id::{EventId, OrganizationId, SessionId};
use projections::principal::Principal;

use super::*;

const ALICE: AccountId = AccountId::from_bytes([1; 16]);
const BOB: AccountId = AccountId::from_bytes([2; 16]);
const EMAIL: EmailDigest = EmailDigest([3; 32]);
const OTHER: EmailDigest = EmailDigest([4; 32]);
const NOW: i64 = 1_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn envelope(event: Event, request: Option<RequestStamp>) -> Envelope {
    Envelope {
        id: EventId::from_bytes([9; 16]),
        at: at(NOW),
        actor: Principal::Ledger,
        credential: None,
        request,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        event,
        sealed: Vec::new(),
    }
}

fn asked(id: u8, content: u8) -> RequestStamp {
    RequestStamp { id: RequestId([id; 16]), content: RequestContent([content; 16]) }
}

fn fold(account: &mut Account, events: Vec<Event>, request: Option<RequestStamp>) {
    for event in events {
        let envelope = envelope(event, request);
        let leaf_hash = envelope.encode().unwrap().1;
        account.apply_next(&envelope, leaf_hash).unwrap();
    }
}

fn created(id: AccountId, email: EmailDigest, request: Option<RequestStamp>) -> Account {
    let mut account = Account::new(id);
    fold(
        &mut account,
        vec![AccountCreated { account_id: id, email, personal_organization: None }.into()],
        request,
    );
    account
}

/// Alice's account after these commands.
fn alice(commands: &[AccountCommand]) -> Account {
    let mut account = created(ALICE, EMAIL, None);
    for command in commands {
        let Decided::Events(events) = decided(&account, None, None, command).unwrap() else {
            panic!("{command:?} changes nothing")
        };
        fold(&mut account, events, None);
    }
    account
}

fn decided(
    account: &Account,
    session: Option<HeldSession>,
    request: Option<RequestStamp>,
    command: &AccountCommand,
) -> Result<Decided, AccountRejection> {
    change(&Given { account, now: at(NOW), session, in_force: true, request }, command)
}

/// Given these commands, when one is given, then these events or this rejection.
#[track_caller]
fn check(
    given: &[AccountCommand],
    when: AccountCommand,
    then: Result<Vec<Event>, AccountRejection>,
) {
    assert_eq!(decided(&alice(given), None, None, &when), then.map(Decided::Events));
}

fn held(number: u8, epoch: u64) -> Option<HeldSession> {
    let organization_id = OrganizationId::from_bytes([7; 16]);
    Some(HeldSession { organization_id, id: SessionId::from_bytes([number; 16]), epoch })
}

fn password(cause: PasswordCause) -> AccountCommand {
    AccountCommand::SetPassword { cause, keeps: None }
}

fn set(cause: PasswordCause) -> Vec<Event> {
    vec![PasswordSet { account_id: ALICE, cause, keeps: None }.into()]
}

const ENROLL: AccountCommand = AccountCommand::EnrollTotp { recovery_codes: 2 };
const USE: AccountCommand = AccountCommand::UseRecoveryCode;

#[test]
fn an_invitation_sets_the_first_password_alone() {
    use PasswordCause::*;
    let first = [password(Invitation)];
    check(&[], password(Invitation), Ok(set(Invitation)));
    check(&[], password(Change), Err(AccountRejection::PasswordNotSet));
    check(&[], password(Reset), Ok(set(Reset)));
    check(&first, password(Invitation), Err(AccountRejection::PasswordAlreadySet));
    check(&first, password(Change), Ok(set(Change)));
    check(&first, password(Reset), Ok(set(Reset)));
}

#[test]
fn a_second_factor_and_its_codes() {
    let enrolled: Event = TotpEnrolled { account_id: ALICE }.into();
    let codes = |codes| Event::from(RecoveryCodesReplaced { account_id: ALICE, codes });
    let replace = |codes| AccountCommand::ReplaceRecoveryCodes { codes };
    let enroll = |recovery_codes| AccountCommand::EnrollTotp { recovery_codes };
    let used = |left| Event::from(RecoveryCodeUsed { account_id: ALICE, left });
    check(&[], enroll(0), Ok(vec![enrolled.clone()]));
    check(&[], enroll(2), Ok(vec![enrolled, codes(2)]));
    check(&[], enroll(21), Err(AccountRejection::RecoveryCodesOutOfRange));
    check(&[ENROLL], enroll(0), Err(AccountRejection::TotpAlreadyEnrolled));
    check(&[], AccountCommand::RemoveTotp, Err(AccountRejection::TotpNotEnrolled));
    let removed = TotpRemoved { account_id: ALICE }.into();
    check(&[ENROLL], AccountCommand::RemoveTotp, Ok(vec![removed]));
    check(&[], replace(5), Err(AccountRejection::TotpNotEnrolled));
    check(&[ENROLL], replace(0), Err(AccountRejection::RecoveryCodesOutOfRange));
    check(&[ENROLL], replace(RECOVERY_CODES_MAX), Ok(vec![codes(RECOVERY_CODES_MAX)]));
    check(&[ENROLL], replace(21), Err(AccountRejection::RecoveryCodesOutOfRange));
    check(&[], USE, Err(AccountRejection::NoRecoveryCodes));
    check(&[ENROLL], USE, Ok(vec![used(1)]));
    check(&[ENROLL, USE], USE, Ok(vec![used(0)]));
    check(&[ENROLL, USE, USE], USE, Err(AccountRejection::NoRecoveryCodes));
    check(&[ENROLL, AccountCommand::RemoveTotp], USE, Err(AccountRejection::NoRecoveryCodes));
}

#[test]
fn a_lock_is_bounded_and_never_shortened() {
    let lock = |millis| AccountCommand::Lock { until: at(NOW + millis) };
    let locked =
        |millis| Ok(vec![AccountLocked { account_id: ALICE, until: at(NOW + millis) }.into()]);
    check(&[], lock(0), Err(AccountRejection::LockNotInFuture));
    check(&[], lock(1), locked(1));
    check(&[], lock(LOCK_MS_MAX), locked(LOCK_MS_MAX));
    check(&[], lock(LOCK_MS_MAX + 1), Err(AccountRejection::LockTooLong));
    check(&[lock(5)], lock(6), locked(6));
    for shorter in [4, 5] {
        let nothing = decided(&alice(&[lock(5)]), None, None, &lock(shorter));
        assert_eq!(nothing, Ok(Decided::Nothing));
    }
}

#[test]
fn what_is_so_already_causes_nothing() {
    let organization = |number| OrganizationId::from_bytes([number; 16]);
    let lead = |number| AccountCommand::SetDefaultOrganization(organization(number));
    let led = |before| DefaultOrganizationSet {
        account_id: ALICE,
        organization_id: organization(2),
        before,
    };
    check(&[], lead(2), Ok(vec![led(None).into()]));
    check(&[lead(1)], lead(2), Ok(vec![led(Some(organization(1))).into()]));
    assert_eq!(decided(&alice(&[lead(2)]), None, None, &lead(2)), Ok(Decided::Nothing));
}

#[test]
fn a_session_that_was_ended_does_nothing_and_is_not_brought_back() {
    let end = |keeps| AccountCommand::EndSessions { keeps };
    let account = alice(&[end(None), end(held(1, 1))]);
    assert_eq!(account.epoch(), 2);
    let ended = Err(AccountRejection::SessionEnded);
    // One of this epoch, and the one that was kept; and one of before.
    for (session, stands) in [(held(2, 2), true), (held(1, 1), true), (held(3, 1), false)] {
        let by_it = decided(&account, session, None, &ENROLL);
        assert_eq!(by_it.is_ok(), stands, "{session:?}");
        let commands = [
            end(session),
            AccountCommand::SetPassword { cause: PasswordCause::Reset, keeps: session },
        ];
        for command in commands {
            let kept = decided(&account, None, None, &command);
            assert_eq!(kept.is_ok(), stands, "{session:?}");
            if !stands {
                assert_eq!(kept, ended);
                assert_eq!(by_it, ended);
            }
        }
    }
    // Which comes before all that may be said of the account itself.
    assert_eq!(decided(&account, held(3, 1), Some(asked(1, 1)), &USE), ended);
}

#[test]
fn a_request_is_carried_out_once() {
    let mut account = alice(&[]);
    let Decided::Events(events) = decided(&account, None, Some(asked(1, 1)), &ENROLL).unwrap()
    else {
        panic!()
    };
    fold(&mut account, events, Some(asked(1, 1)));
    let again = decided(&account, None, Some(asked(1, 1)), &ENROLL);
    assert_eq!(again, Ok(Decided::Repeat(Revision(1))));
    let other = decided(&account, None, Some(asked(1, 2)), &ENROLL);
    assert_eq!(other, Err(AccountRejection::IdempotencyKeyReused));
    let new = decided(&account, None, Some(asked(2, 1)), &ENROLL);
    assert_eq!(new, Err(AccountRejection::TotpAlreadyEnrolled));
    let nobody = decided(&Account::new(ALICE), None, None, &ENROLL);
    assert_eq!(nobody, Err(AccountRejection::AccountNotFound));
}

/// The reservation of the e-mail for an account, and its last step where it was confirmed.
fn reservation(of: Option<(AccountId, i64, bool)>, request: Option<RequestStamp>) -> Reservation {
    let mut reservation = Reservation::new(EMAIL);
    let mut events: Vec<Event> = Vec::new();
    if let Some((account_id, until, confirmed)) = of {
        events.push(EmailReserved { email: EMAIL, account_id, until: at(until) }.into());
        if confirmed {
            events.push(EmailConfirmed { email: EMAIL, account_id }.into());
        }
    }
    for event in events {
        let envelope = envelope(event, request);
        let leaf_hash = envelope.encode().unwrap().1;
        reservation.apply_next(&envelope, leaf_hash).unwrap();
    }
    reservation
}

/// What Alice's creation does next.
#[track_caller]
fn next(
    of: Option<(AccountId, i64, bool)>,
    holder: Option<&Account>,
    requests: [Option<RequestStamp>; 2],
    then: Result<Step, AccountRejection>,
) {
    let [before, request] = requests;
    let given = Creating {
        reservation: &reservation(of, before),
        holder,
        existing: None,
        account_id: ALICE,
        now: at(NOW),
        request,
    };
    assert_eq!(create(&given), then);
}

#[test]
fn an_email_goes_to_one_account() {
    let until = at(NOW + RESERVED_FOR_MS);
    let (alice, bob) = (created(ALICE, EMAIL, None), created(BOB, EMAIL, None));
    let none = [None, None];
    let (soon, over) = (NOW + 1, NOW);
    next(None, None, none, Ok(Step::Reserve(ALICE, until)));
    // Her own goes on, and is made anew where its time has come.
    next(Some((ALICE, soon, false)), None, none, Ok(Step::Begin(ALICE)));
    next(Some((ALICE, over, false)), None, none, Ok(Step::Reserve(ALICE, until)));
    next(Some((ALICE, over, false)), Some(&alice), none, Ok(Step::Confirm(ALICE)));
    next(Some((ALICE, soon, true)), Some(&alice), none, Ok(Step::Done(ALICE, Revision(0))));
    // Another's is waited for, and taken over only where no account came of it.
    next(Some((BOB, soon, false)), None, none, Err(AccountRejection::EmailReserved));
    next(Some((BOB, over, false)), None, none, Ok(Step::Reserve(ALICE, until)));
    next(Some((BOB, over, false)), Some(&bob), none, Ok(Step::Confirm(BOB)));
    next(Some((BOB, soon, false)), Some(&bob), none, Ok(Step::Confirm(BOB)));
    next(Some((BOB, over, true)), Some(&bob), none, Err(AccountRejection::EmailTaken));
    // Nobody knows of that account: it has the e-mail all the same.
    next(Some((BOB, over, true)), None, none, Err(AccountRejection::EmailTaken));
}

#[test]
fn a_creation_that_is_asked_for_again_goes_on() {
    let same = [Some(asked(1, 1)), Some(asked(1, 1))];
    let reused = [Some(asked(1, 1)), Some(asked(1, 2))];
    let until = at(NOW + RESERVED_FOR_MS);
    let bob = created(BOB, EMAIL, Some(asked(1, 1)));
    next(Some((BOB, NOW + 1, false)), None, same, Ok(Step::Begin(BOB)));
    next(Some((BOB, NOW, false)), None, same, Ok(Step::Reserve(BOB, until)));
    next(Some((BOB, NOW + 1, false)), Some(&bob), same, Ok(Step::Confirm(BOB)));
    next(Some((BOB, NOW, true)), Some(&bob), same, Ok(Step::Done(BOB, Revision(0))));
    let refused = Err(AccountRejection::IdempotencyKeyReused);
    next(Some((BOB, NOW + 1, false)), None, reused, refused.clone());
    next(Some((BOB, NOW, true)), Some(&bob), reused, refused);
}

#[test]
fn an_identifier_is_one_accounts() {
    let elsewhere = created(ALICE, OTHER, None);
    let exists = Err(AccountRejection::AccountExists(ALICE));
    next(Some((ALICE, NOW + 1, false)), Some(&elsewhere), [None, None], exists.clone());
    next(Some((ALICE, NOW, false)), Some(&elsewhere), [None, None], exists.clone());
    let given = Creating {
        reservation: &reservation(None, None),
        holder: None,
        existing: Some(&elsewhere),
        account_id: ALICE,
        now: at(NOW),
        request: None,
    };
    assert_eq!(create(&given), exists);
}

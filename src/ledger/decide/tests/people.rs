//! Rules of users, of what they were granted, and of their keys.

use projections::digest::EmailDigest;
use projections::id::UserId;
use projections::principal::Owner;
use projections::user::UserState;

use super::*;
use crate::ledger::command::{InviteUser, RenewInvitation, USER_KEYS_MAX, UpdateUser};
use crate::ledger::event_store::APPEND_EVENTS_MAX;

const DAY: i64 = 24 * 60 * 60 * 1_000;

fn user_id(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

/// A command to invite a user by e-mail `number`, with roles everywhere.
pub(super) fn invite(number: u8, email: u8, roles: &[RoleId]) -> Command {
    let grants = roles.iter().enumerate().map(|(place, role)| {
        let number = number.wrapping_mul(10).wrapping_add(u8::try_from(place).unwrap());
        to_user(number, number, *role, None, None, user_id)
    });
    let user_id = user_id(number);
    Command::InviteUser(Box::new(InviteUser {
        user_id,
        email: EmailDigest([email; 32]),
        lifetime_ms: 7 * DAY,
        limits: [("bots".parse().unwrap(), 3)].into(),
        grants: grants.map(|it| GrantRole { principal: Principal::User(user_id), ..it }).collect(),
        token: None,
    }))
}

pub(super) fn to_user(
    number: u8,
    user: u8,
    role_id: RoleId,
    domain: Option<&str>,
    lifetime: Option<i64>,
    user_id: impl FnOnce(u8) -> UserId,
) -> GrantRole {
    GrantRole {
        grant_id: grant_id(number),
        principal: Principal::User(user_id(user)),
        role_id,
        domain: domain.map(|it| it.parse().unwrap()),
        expiry: lifetime.map(Expiry::After),
    }
}

fn give(number: u8, user: u8, role: RoleId, domain: Option<&str>, ms: Option<i64>) -> Command {
    Command::GrantRole(Box::new(to_user(number, user, role, domain, ms, user_id)))
}

pub(super) fn renew(user: UserId) -> Command {
    Command::RenewInvitation(RenewInvitation { user_id: user, lifetime_ms: DAY, token: None })
}

fn update(number: u8, renamed: bool, limits: Option<i64>) -> Command {
    let limits = limits.map(|it| [("bots".parse().unwrap(), it)].into());
    Command::UpdateUser(Box::new(UpdateUser { user_id: user_id(number), renamed, limits }))
}

/// A command to make a key of a user's.
fn key_of(user: u8, number: u8, wanted: Option<&[&str]>) -> Command {
    create(number, |key| {
        key.scopes = wanted.and_then(scopes);
        key.owner = Some(user_id(user).into());
    })
}

fn suspend(user: u8) -> Command {
    Command::SuspendUser(user_id(user))
}

fn restore(user: u8) -> Command {
    Command::RestoreUser(user_id(user))
}

fn remove(user: u8) -> Command {
    Command::RemoveUser(user_id(user))
}

fn state(world: &World, user: u8) -> UserState {
    world.acme.user(user_id(user)).unwrap().state()
}

/// Acme with an administrator (key 1), a key that holds `users:write`, `roles:write`,
/// `api-keys:write` and `dns:read` (key 2), roles 10 (`dns:read`) and 11 (`dns:write`), and
/// user 1, who was granted role 10.
fn with_users() -> World {
    let mut world = with_admin("paid");
    let all = &["users:write", "roles:write", "api-keys:write", "dns:read"];
    world.must(ACME, by(1), &create(2, |key| key.scopes = scopes(all)));
    world.must(ACME, by(1), &role_draft(10, &["dns:read"]));
    world.must(ACME, by(1), &role_draft(11, &["dns:write"]));
    world.must(ACME, by(2), &invite(1, 1, &[own_role(10)]));
    world
}

fn not_held(text: &str) -> Result<&'static [&'static str], Rejection> {
    Err(Rejection::PermissionNotHeld(text.to_owned()))
}

#[test]
fn an_invitation_gives_what_whoever_invites_holds() {
    let mut world = with_users();
    assert_eq!(state(&world, 1), UserState::Invited);
    let both = invite(2, 2, &[own_role(10), own_role(11)]);
    let refused = Rejection::PermissionNotHeld("dns:write".into()).of_item("grants", 1);
    world.check(by(2), &both, Err(refused));
    world.check(by(1), &both, Ok(&["UserInvited", "RoleGranted", "RoleGranted"]));
    world.check(by(2), &invite(2, 2, &[]), Ok(&["UserInvited"]));
    let nowhere = Rejection::NoSuchRole(own_role(99)).of_item("grants", 0);
    world.check(by(1), &invite(2, 2, &[own_role(99)]), Err(nowhere));
    // In whatever state they are: the e-mail is theirs until they are removed.
    let taken = || Err(Rejection::EmailTaken(user_id(1)));
    world.check(by(1), &invite(2, 1, &[]), taken());
    world.must(ACME, by(1), &suspend(1));
    world.check(by(1), &invite(2, 1, &[]), taken());
    // The same command again, after its append was taken for lost.
    world.check(by(1), &invite(1, 1, &[]), Ok(&["done"]));
    world.must(ACME, by(1), &create(3, |key| key.scopes = scopes(&["roles:write", "dns:read"])));
    let denied = Rejection::PermissionDenied("users:write".into());
    for command in [
        invite(2, 2, &[]),
        renew(user_id(1)),
        update(1, true, None),
        suspend(1),
        restore(1),
        remove(1),
    ] {
        world.check(by(3), &command, Err(denied.clone()));
    }
}

#[test]
fn a_limited_key_lets_nobody_in() {
    let mut world = with_users();
    let limited = |number, otherwise: fn(&mut CreateKey)| {
        create(number, |key| {
            key.scopes = scopes(&["users:write", "dns:read"]);
            otherwise(key);
        })
    };
    world.must(ACME, by(1), &limited(3, |key| key.environment = Some(Environment::Test)));
    let services = |key: &mut CreateKey| key.services = Some(vec!["keyledger".parse().unwrap()]);
    world.must(ACME, by(1), &limited(4, services));
    let test = || Err(Rejection::EnvironmentNotHeld);
    for command in
        [invite(2, 2, &[]), renew(user_id(1)), update(1, true, None), suspend(1), remove(1)]
    {
        world.check(by(3), &command, test());
    }
    let services = Rejection::ServiceNotHeld;
    let with_role = services.clone().of_item("grants", 0);
    world.check(by(4), &invite(2, 2, &[own_role(10)]), Err(with_role));
    world.check(by(4), &invite(2, 2, &[]), Ok(&["UserInvited"]));
    world.check(by(4), &renew(user_id(1)), Err(services.clone()));
    world.check(by(4), &suspend(1), Ok(&["UserSuspended"]));
    world.must(ACME, by(1), &suspend(1));
    world.check(by(3), &restore(1), test());
    world.check(by(4), &restore(1), Err(services));
}

/// Whoever lets a user come to what they were granted holds all of it.
#[test]
fn to_renew_and_to_restore_is_to_give() {
    let mut world = with_users();
    world.check(by(2), &renew(user_id(1)), Ok(&["InvitationRenewed"]));
    let for_a_time = give(50, 1, own_role(11), Some("a.example"), Some(DAY));
    world.must(ACME, by(1), &for_a_time);
    world.check(by(2), &renew(user_id(1)), not_held("dns:write"));
    world.check(by(1), &renew(user_id(1)), Ok(&["InvitationRenewed"]));
    world.must(ACME, by(2), &suspend(1));
    world.check(by(2), &restore(1), not_held("dns:write"));
    world.check(by(1), &restore(1), Ok(&["UserRestored"]));
    // What ended is not given.
    world.now += DAY;
    world.check(by(2), &restore(1), Ok(&["UserRestored"]));
    world.check(by(1), &renew(user_id(1)), Err(Rejection::UserIsSuspended(user_id(1))));
    world.must(ACME, by(2), &restore(1));
    world.check(by(2), &renew(user_id(1)), Ok(&["InvitationRenewed"]));
    world.check(by(2), &restore(1), Err(Rejection::UserNotSuspended(user_id(1))));
}

#[test]
fn what_is_done_with_a_user_is_said_by_its_reason() {
    let mut world = with_users();
    let missing = |number| Err(Rejection::UserNotFound(user_id(number)));
    for command in [
        renew(user_id(9)),
        update(9, true, None),
        suspend(9),
        restore(9),
        remove(9),
        give(50, 9, own_role(10), None, None),
        key_of(9, 9, Some(&["dns:read"])),
    ] {
        world.check(by(1), &command, missing(9));
    }
    world.check(by(1), &update(1, false, None), Ok(&["done"]));
    world.check(by(1), &update(1, false, Some(3)), Ok(&["done"]));
    world.check(by(1), &update(1, false, Some(4)), Ok(&["UserUpdated"]));
    world.check(by(1), &update(1, true, None), Ok(&["UserUpdated"]));
    let Ok(Decided::Events(events)) = world.decide(ACME, by(1), &update(1, true, None)) else {
        panic!()
    };
    let [Event::UserUpdated(event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.limits.len(), event.limits == event.before), (1, true), "they stay");
    world.must(ACME, by(1), &suspend(1));
    let suspended = || Err(Rejection::UserIsSuspended(user_id(1)));
    world.check(by(1), &suspend(1), suspended());
    world.check(by(1), &key_of(1, 9, Some(&["dns:read"])), suspended());
    // Who is suspended may be granted roles, changed and removed.
    world.check(by(1), &give(50, 1, own_role(11), None, None), Ok(&["RoleGranted"]));
    world.check(by(1), &update(1, true, None), Ok(&["UserUpdated"]));
    world.must(ACME, by(1), &remove(1));
    for command in [
        renew(user_id(1)),
        update(1, true, None),
        suspend(1),
        restore(1),
        remove(1),
        give(50, 1, own_role(10), None, None),
        key_of(1, 9, Some(&["dns:read"])),
    ] {
        world.check(by(1), &command, missing(1));
    }
}

#[test]
fn a_user_is_removed_with_their_keys_and_all_they_were_granted() {
    let mut world = with_users();
    world.must(ACME, by(1), &give(50, 1, own_role(11), Some("a.example"), Some(DAY)));
    for number in [20, 21, 22, 23] {
        world.must(ACME, by(1), &key_of(1, number, Some(&["dns:read"])));
    }
    world.must(ACME, by(1), &revoke(21));
    world.must(ACME, by(1), &Command::DisableKey(key_id(22)));
    let whole = ["UserRemoved", "KeyRevoked", "KeyRevoked", "KeyRevoked"];
    let all = [&whole[..], &["GrantRevoked"; 2]].concat();
    world.check(by(1), &remove(1), Ok(&all));
    // What ended by itself is not revoked.
    world.now += DAY;
    let all = [&whole[..], &["GrantRevoked"]].concat();
    let departed = world.acme.as_of(at(world.now));
    let given = Given { state: &departed, ..world.given(ACME, by(1)) };
    let Ok(Decided::Events(events)) = decide(&given, &remove(1)) else { panic!() };
    assert_eq!(events.iter().map(Event::event_type).collect::<Vec<_>>(), all);
    let Some(Event::KeyRevoked(first)) = events.get(1) else { panic!() };
    assert_eq!(first.reason, RevocationReason::AffiliationChanged);
    world.fold(ACME, &events, None);
    assert_eq!(state(&world, 1), UserState::Removed);
    for number in [20, 22, 23] {
        assert_eq!(world.acme.key(key_id(number)).unwrap().state(at(NOW)), KeyState::Revoked);
    }
    assert!(world.acme.grants_of(Principal::User(user_id(1))).is_empty());
    // The same e-mail is another user, with nothing of the old one.
    world.must(ACME, by(1), &invite(2, 1, &[]));
    let again = world.acme.user_by_email(&EmailDigest([1; 32])).unwrap();
    assert_eq!((again.id, again.state()), (user_id(2), UserState::Invited));
    assert!(world.acme.grants_of(Principal::User(user_id(2))).is_empty());
    assert_eq!(world.acme.keys_of(user_id(2).into(), at(world.now)).count(), 0);
}

#[test]
fn nobody_ends_themself() {
    let mut world = with_users();
    world.must(ACME, by(1), &role_draft(12, &["users:write"]));
    world.must(ACME, by(1), &invite(2, 2, &[own_role(12)]));
    world.must(ACME, by(1), &key_of(2, 20, Some(&["users:write"])));
    let themself = by_owned(&world, 20);
    for command in [suspend(2), remove(2)] {
        world.check(themself, &command, Err(Rejection::NotOneself));
    }
    world.check(themself, &suspend(1), Ok(&["UserSuspended"]));
    world.check(themself, &remove(1), Ok(&["UserRemoved", "GrantRevoked"]));
}

/// At once: the next thing that is decided finds them out of force.
#[test]
fn a_users_key_counts_as_long_as_the_user() {
    let mut world = with_users();
    world.must(ACME, by(1), &key_of(1, 20, Some(&["dns:read"])));
    let themself = by_owned(&world, 20);
    let own = create(21, |key| {
        key.owner = Some(user_id(1).into());
        key.scopes = scopes(&["dns:read"]);
    });
    world.check(themself, &own, Ok(&["KeyCreated"]));
    world.must(ACME, by(1), &suspend(1));
    world.check(themself, &own, Err(Rejection::CallerNotInForce));
    world.must(ACME, by(1), &restore(1));
    world.check(themself, &own, Ok(&["KeyCreated"]));
    world.must(ACME, by(1), &remove(1));
    world.check(themself, &own, Err(Rejection::CallerNotInForce));
}

/// What a user will come to hold is not for whoever makes them a key to take.
#[test]
fn a_key_for_another_person_lists_what_its_maker_holds() {
    let mut world = with_users();
    let make = |scopes| key_of(1, 20, scopes);
    for unlisted in [None, Some(&["org:admin"][..])] {
        world.check(by(1), &make(unlisted), Err(Rejection::ScopesForAnother));
        world.check(by(2), &make(unlisted), Err(Rejection::ScopesForAnother));
    }
    world.check(by(2), &make(Some(&["dns:read"])), Ok(&["KeyCreated"]));
    world.check(by(2), &make(Some(&["dns:read", "dns:write"])), not_held("dns:write"));
    let with_role = create(20, |key| {
        key.owner = Some(user_id(1).into());
        key.roles = vec![own_role(10)];
    });
    world.check(by(1), &with_role, Err(Rejection::RolesOfOwner));
    // An import is no way around it.
    let import = |scopes| {
        let Command::CreateKey(key) = key_of(1, 20, scopes) else { panic!() };
        Command::ImportKeys(ImportKeys { keys: vec![ImportedKey { key: *key, others: vec![] }] })
    };
    let item = Rejection::ScopesForAnother.of_item("keys", 0);
    world.check(by(1), &import(None), Err(item));
    world.check(by(2), &import(Some(&["dns:read"])), Ok(&["KeyCreated"]));
    // Nor a rotation, which shows a new secret. What the user holds stays theirs to enable.
    world.must(ACME, by(1), &make(Some(&["dns:read"])));
    let themself = by_owned(&world, 20);
    let whole = create(21, |key| {
        key.owner = Some(user_id(1).into());
        key.scopes = None;
    });
    world.check(themself, &whole, not_held("org:admin"));
    world.must(ACME, Caller::Ledger, &whole);
    world.check(by(1), &rotate(21, 22, |_| {}), Err(Rejection::ScopesForAnother));
    world.must(ACME, by(1), &Command::DisableKey(key_id(21)));
    world.check(by(1), &Command::EnableKey(key_id(21)), Ok(&["KeyEnabled"]));
}

/// Without `api-keys:write`, and never more than the credential that it is done with.
#[test]
fn a_users_own_keys_are_theirs_to_manage() {
    let mut world = with_users();
    // The user holds `dns:read`, and `dns:write` for a domain and for a time.
    world.must(ACME, by(1), &give(50, 1, own_role(11), Some("a.example"), Some(DAY)));
    world.must(ACME, by(1), &invite(2, 2, &[own_role(10)]));
    world.must(ACME, Caller::Ledger, &key_of(1, 20, None));
    world.must(ACME, by(1), &key_of(1, 21, Some(&["dns:read"])));
    world.must(ACME, by(1), &key_of(2, 22, Some(&["dns:read"])));
    world.must(ACME, by(1), &account(1, &[]));
    let (whole, narrow) = (by_owned(&world, 20), by_owned(&world, 21));
    for (scopes, by_whole, by_narrow) in [
        (None, None, Some("org:admin")),
        (Some(&["org:admin"][..]), None, Some("org:admin")),
        (Some(&["dns:read"]), None, None),
        (Some(&["dns:read", "dns:write"]), None, Some("dns:write")),
        (Some(&["dns:write"]), None, Some("dns:write")),
        (Some(&["x:y"]), Some("x:y"), Some("x:y")),
    ] {
        let make = key_of(1, 30, scopes);
        for (caller, missing) in [(whole, by_whole), (narrow, by_narrow)] {
            let expected = missing.map_or(Ok(&["KeyCreated"][..]), not_held);
            world.check(caller, &make, expected);
        }
    }
    // Their own, and nobody else's: whether another key is there is not for them to know.
    let denied = || Err(Rejection::PermissionDenied("api-keys:write".into()));
    let others = [22, 2, 99];
    for other in others {
        for command in [
            rotate(other, 30, |_| {}),
            Command::EndRotation(key_id(other)),
            Command::DisableKey(key_id(other)),
            Command::EnableKey(key_id(other)),
            revoke(other),
            Command::RevokeKeys(RevokeKeys {
                which: WhichKeys::Listed(vec![key_id(20), key_id(other)]),
                reason: RevocationReason::Superseded,
            }),
        ] {
            world.check(whole, &command, denied());
        }
    }
    let revoke_of = |owner: Owner| {
        let which = WhichKeys::Of(owner);
        Command::RevokeKeys(RevokeKeys { which, reason: RevocationReason::Superseded })
    };
    for owner in [user_id(2).into(), user_id(9).into(), account_id(1).into()] {
        world.check(whole, &revoke_of(owner), denied());
    }
    for command in [
        key_of(2, 30, Some(&["dns:read"])),
        create(30, |key| key.owner = Some(account_id(1).into())),
        create(30, |_| {}),
        relabel(21, "other"),
    ] {
        world.check(whole, &command, denied());
    }
    // Theirs, whichever of them they use.
    for caller in [whole, narrow] {
        world.check(caller, &revoke(20), Ok(&["KeyRevoked"]));
        world.check(caller, &Command::DisableKey(key_id(20)), Ok(&["KeyDisabled"]));
    }
    world.check(whole, &revoke_of(user_id(1).into()), Ok(&["KeyRevoked", "KeyRevoked"]));
    world.check(whole, &rotate(21, 30, |_| {}), Ok(&["KeyCreated", "KeyRotated"]));
    world.check(narrow, &rotate(21, 30, |_| {}), Ok(&["KeyCreated", "KeyRotated"]));
    world.check(narrow, &rotate(20, 30, |_| {}), not_held("org:admin"));
    world.must(ACME, whole, &rotate(21, 30, |_| {}));
    world.check(narrow, &Command::EndRotation(key_id(21)), Ok(&["KeyRotationEnded"]));
}

/// What another disabled is not for its user to enable: it may have been to keep them out.
#[test]
fn a_user_enables_what_they_disabled() {
    let mut world = with_users();
    world.must(ACME, Caller::Ledger, &key_of(1, 20, None));
    world.must(ACME, by(1), &key_of(1, 21, Some(&["dns:read"])));
    let (whole, enable) = (by_owned(&world, 20), Command::EnableKey(key_id(21)));
    let disabled_by = |world: &World, caller: Caller| {
        let mut world = world.clone();
        let Ok(Decided::Events(events)) =
            world.decide(ACME, caller, &Command::DisableKey(key_id(21)))
        else {
            panic!()
        };
        world.fold_as(ACME, caller, &events);
        world
    };
    let by_themself = disabled_by(&world, whole);
    by_themself.check(whole, &enable, Ok(&["KeyEnabled"]));
    let by_another = disabled_by(&world, by(1));
    by_another.check(whole, &enable, Err(Rejection::PermissionDenied("api-keys:write".into())));
    by_another.check(by(1), &enable, Ok(&["KeyEnabled"]));
}

/// A test key makes and ends no live ones; one for some services makes none for others.
#[test]
fn a_users_own_limited_key_reaches_no_further() {
    let mut world = with_users();
    let limited = |number, otherwise: fn(&mut CreateKey)| {
        create(number, |key| {
            key.scopes = scopes(&["dns:read"]);
            key.owner = Some(user_id(1).into());
            otherwise(key);
        })
    };
    let test = |key: &mut CreateKey| key.environment = Some(Environment::Test);
    let services = |key: &mut CreateKey| {
        key.services = Some(vec!["dns".parse().unwrap(), "keyledger".parse().unwrap()]);
    };
    world.must(ACME, by(1), &limited(20, test));
    world.must(ACME, by(1), &limited(21, services));
    world.must(ACME, by(1), &limited(22, |_| {}));
    let (by_test, by_services) = (by_owned(&world, 20), by_owned(&world, 21));
    let live = || Err(Rejection::EnvironmentNotHeld);
    for command in
        [limited(30, |_| {}), rotate(22, 30, |_| {}), Command::DisableKey(key_id(22)), revoke(22)]
    {
        world.check(by_test, &command, live());
    }
    world.check(by_test, &limited(30, test), Ok(&["KeyCreated"]));
    world.check(by_services, &limited(30, |_| {}), Err(Rejection::ServiceNotHeld));
    world.check(by_services, &rotate(22, 30, |_| {}), Err(Rejection::ServiceNotHeld));
    world.check(by_services, &limited(30, services), Ok(&["KeyCreated"]));
    world.check(by_services, &revoke(22), Ok(&["KeyRevoked"]));
}

#[test]
fn users_have_grants_as_service_accounts_do() {
    let mut world = with_users();
    world.check(by(2), &give(50, 1, own_role(11), None, None), not_held("dns:write"));
    world.check(by(1), &give(50, 1, own_role(11), None, None), Ok(&["RoleGranted"]));
    let exists = Rejection::GrantExists(grant_id(10));
    world.check(by(1), &give(50, 1, own_role(10), None, None), Err(exists));
    let who = Principal::User(user_id(1));
    for number in 1..GRANTS_MAX {
        let domain = format!("d{number}.example");
        let number = u8::try_from(number).unwrap() + 50;
        world.must(ACME, by(1), &give(number, 1, own_role(11), Some(&domain), None));
    }
    world.check(by(1), &give(200, 1, own_role(11), None, None), Err(Rejection::TooManyGrants(who)));
    let Command::InviteUser(mut many) = invite(2, 2, &[]) else { panic!() };
    let one = to_user(1, 2, own_role(10), None, None, user_id);
    many.grants = vec![one; GRANTS_MAX + 1];
    let who = Principal::User(user_id(2));
    world.check(by(1), &Command::InviteUser(many), Err(Rejection::TooManyGrants(who)));
    // Removed in one append, however much was theirs.
    let imported = |number: usize| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let key = draft(9, |key| {
            key.key_id = KeyId::from_bytes(id);
            key.name = format!("imported {number}").parse().unwrap();
            key.owner = Some(user_id(1).into());
        });
        ImportedKey { key, others: Vec::new() }
    };
    let import =
        |keys: usize| Command::ImportKeys(ImportKeys { keys: (0..keys).map(imported).collect() });
    let full = Rejection::TooManyKeys(user_id(1).into(), USER_KEYS_MAX);
    let full = full.of_item("keys", USER_KEYS_MAX);
    world.check(by(1), &import(USER_KEYS_MAX + 1), Err(full));
    world.must(ACME, by(1), &import(USER_KEYS_MAX));
    let Ok(Decided::Events(events)) = world.decide(ACME, by(1), &remove(1)) else { panic!() };
    assert_eq!(events.len(), 1 + USER_KEYS_MAX + GRANTS_MAX);
    assert!(events.len() <= APPEND_EVENTS_MAX);
}

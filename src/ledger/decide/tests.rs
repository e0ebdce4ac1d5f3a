//! Given a history, when a command is given, then exactly this comes of it.

use projections::api_key::Environment;
use projections::digest::{RequestContent, RequestId, SecretDigest};
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, Hint, KeyOrigin, KeyRevoked, KeyStateBefore, KeyedDigest, RevocationReason,
};
use projections::id::{EventId, InstallationId, KeyId, OrganizationId, RoleId};
use projections::permission::Scopes;
use projections::principal::Principal;
use proptest::prelude::*;

use super::*;
use crate::ledger::built_in;
use crate::ledger::command::{
    ConfigureKeys, CreateInstallation, CreateKey, Expiry, OrganizationDraft, RevokeKey, Rules,
};

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
const NOW: i64 = 1_800_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn role(number: u8) -> RoleId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    RoleId::from_bytes(bytes)
}

fn scopes(list: &[&str]) -> Option<Scopes> {
    Some(Scopes::new(list).unwrap())
}

/// A command to make a live key with the scope `dns:read`; the closure makes it otherwise.
fn draft(number: u8, otherwise: impl FnOnce(&mut CreateKey)) -> CreateKey {
    let mut draft = CreateKey {
        key_id: key_id(number),
        name: format!("key {number}").parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().unwrap()),
        environment: Some(Environment::Live),
        hint: Hint::of("a1B2"),
        digest: KeyedDigest {
            form: DigestForm::Text,
            pepper: 1,
            blake3: SecretDigest([number; 32]),
        },
        scopes: scopes(&["dns:read"]),
        roles: Vec::new(),
        services: None,
        expiry: Expiry::PlanDefault,
        metadata: std::collections::BTreeMap::new(),
        limits: std::collections::BTreeMap::new(),
    };
    otherwise(&mut draft);
    draft
}

fn create(number: u8, otherwise: impl FnOnce(&mut CreateKey)) -> Command {
    Command::CreateKey(Box::new(draft(number, otherwise)))
}

fn revoke(number: u8) -> Command {
    Command::RevokeKey(RevokeKey {
        key_id: key_id(number),
        reason: RevocationReason::KeyCompromise,
    })
}

fn organization(prefix: &str, plan: &str) -> OrganizationDraft {
    OrganizationDraft {
        organization_id: ACME,
        name: "Acme".parse().unwrap(),
        key_prefix: prefix.parse().unwrap(),
        plan: plan.parse().unwrap(),
    }
}

fn installation(configured: Vec<CreateKey>) -> Command {
    Command::CreateInstallation(Box::new(CreateInstallation {
        installation_id: InstallationId::from_bytes([1; 16]),
        pepper: 1,
        pepper_check: SecretDigest([1; 32]),
        rules: built_in::rules(),
        admin_key: Some(operator_key(200)),
        configured,
    }))
}

fn operator_key(number: u8) -> CreateKey {
    draft(number, |key| {
        key.name = built_in::admin_key_name();
        key.scopes = None;
        key.roles = vec![built_in::OPERATOR_ADMIN];
        key.environment = None;
    })
}

fn configured(number: u8) -> CreateKey {
    draft(number, |key| {
        key.name = built_in::admin_api_token_name();
        key.origin = KeyOrigin::Configured;
        key.scopes = None;
        key.roles = vec![built_in::OPERATOR_ADMIN];
        key.prefix = None;
    })
}

/// Two streams, and the commands that made them.
#[derive(Clone)]
struct World {
    operator: Organization,
    acme: Organization,
    now: i64,
}

impl World {
    /// An installation with nothing in it.
    fn empty() -> Self {
        Self {
            operator: Organization::new(OrganizationId::OPERATOR),
            acme: Organization::new(ACME),
            now: NOW,
        }
    }

    /// An installation with the organization Acme on a plan.
    fn on(plan: &str) -> Self {
        let mut world = Self::empty();
        world.must(OrganizationId::OPERATOR, Caller::Ledger, &installation(Vec::new()));
        let registered = Command::RegisterOrganization(organization("vtx", plan));
        world.must(OrganizationId::OPERATOR, Caller::Ledger, &registered);
        world.must(ACME, Caller::Ledger, &Command::CreateOrganization(organization("vtx", plan)));
        world
    }

    fn given(&self, target: OrganizationId, caller: Caller) -> Given<'_> {
        Given {
            state: if target.is_operator() { &self.operator } else { &self.acme },
            operator: &self.operator,
            now: at(self.now),
            caller,
            expected: None,
            request: None,
        }
    }

    fn decide(
        &self,
        target: OrganizationId,
        caller: Caller,
        command: &Command,
    ) -> Result<Decided, Rejection> {
        decide(&self.given(target, caller), command)
    }

    fn fold(&mut self, target: OrganizationId, events: &[Event], request: Option<RequestStamp>) {
        let state = if target.is_operator() { &mut self.operator } else { &mut self.acme };
        for event in events {
            let envelope = Envelope {
                id: EventId::from_bytes([9; 16]),
                at: at(self.now),
                actor: Principal::Ledger,
                credential: None,
                request,
                correlation_id: "c".parse().unwrap(),
                causation_id: None,
                event: event.clone(),
                sealed: Vec::new(),
            };
            let (_, leaf_hash) = envelope.encode().unwrap();
            state.apply_next(&envelope, leaf_hash).unwrap();
        }
    }

    #[track_caller]
    fn must(&mut self, target: OrganizationId, caller: Caller, command: &Command) {
        match self.decide(target, caller, command) {
            Ok(Decided::Events(events)) => self.fold(target, &events, None),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(&self, caller: Caller, command: &Command, expected: Result<&[&str], Rejection>) {
        self.check_in(ACME, caller, command, expected);
    }

    #[track_caller]
    fn check_in(
        &self,
        target: OrganizationId,
        caller: Caller,
        command: &Command,
        expected: Result<&[&str], Rejection>,
    ) {
        let outcome = self.decide(target, caller, command).map(|decided| match decided {
            Decided::Events(events) => events.iter().map(Event::event_type).collect(),
            Decided::Done { .. } => vec!["done"],
            Decided::Nothing => vec!["nothing"],
        });
        assert_eq!(outcome, expected.map(<[_]>::to_vec));
    }
}

fn by(number: u8) -> Caller {
    Caller::Key { organization_id: ACME, key_id: key_id(number) }
}

fn by_operator(number: u8) -> Caller {
    Caller::Key { organization_id: OrganizationId::OPERATOR, key_id: key_id(number) }
}

#[test]
fn a_first_start_makes_everything_at_once() {
    let world = World::empty();
    let Ok(Decided::Events(events)) = world.decide(
        OrganizationId::OPERATOR,
        Caller::Ledger,
        &installation(vec![configured(201)]),
    ) else {
        panic!("events are expected")
    };
    let types: Vec<_> = events.iter().map(Event::event_type).collect();
    let mut expected = vec!["InstallationCreated", "OrganizationCreated", "SchemaActivated"];
    expected.extend(["PlanDefined"; 3]);
    expected.extend(built_in::rules().roles.iter().map(|_| "BuiltInRoleDefined"));
    expected.extend(["KeyCreated"; 2]);
    assert_eq!(types, expected);
    let again = World::on("paid").decide(
        OrganizationId::OPERATOR,
        Caller::Ledger,
        &installation(Vec::new()),
    );
    assert_eq!(again, Err(Rejection::InstallationExists));
}

#[test]
fn configuration_becomes_events_only_where_it_changed() {
    let world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let same = Command::ConfigureInstallation(built_in::rules());
    world.check_in(operator, Caller::Ledger, &same, Ok(&["nothing"]));
    // A release that knows one role more gives it to the installation that is there.
    let mut more = built_in::rules();
    more.roles.push((projections::id::RoleId::from_bytes([99; 16]), more.roles[3].1.clone()));
    let more = Command::ConfigureInstallation(more);
    world.check_in(operator, Caller::Ledger, &more, Ok(&["BuiltInRoleDefined"]));
    let mut rules: Rules = built_in::rules();
    rules.plans[1].1.key_lifetime_max_seconds = Some(7_200);
    rules.roles[3].1.permissions.clear();
    let changed = Command::ConfigureInstallation(rules);
    world.check_in(operator, Caller::Ledger, &changed, Ok(&["PlanDefined", "BuiltInRoleDefined"]));
    let Ok(Decided::Events(events)) = world.decide(operator, Caller::Ledger, &changed) else {
        panic!()
    };
    let Some(Event::PlanDefined(plan)) = events.first() else { panic!("{events:?}") };
    assert_eq!(
        plan.before.as_ref().unwrap().key_lifetime_max_seconds,
        Some(3_600),
        "what it was is kept"
    );
}

#[test]
fn configured_keys_come_and_go_with_the_configuration() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let keys = |numbers: &[u8]| {
        Command::ConfigureKeys(ConfigureKeys {
            keys: numbers.iter().map(|number| configured(*number)).collect(),
        })
    };
    world.check_in(operator, Caller::Ledger, &keys(&[]), Ok(&["nothing"]));
    world.must(operator, Caller::Ledger, &keys(&[201]));
    world.check_in(operator, Caller::Ledger, &keys(&[201]), Ok(&["nothing"]));
    world.check_in(operator, Caller::Ledger, &keys(&[202]), Ok(&["KeyRevoked", "KeyCreated"]));
    world.check_in(operator, Caller::Ledger, &keys(&[]), Ok(&["KeyRevoked"]));
    world.must(operator, Caller::Ledger, &revoke(201));
    let revoked = Rejection::ConfiguredKeyRevoked("ADMIN_API_TOKEN".into());
    world.check_in(operator, Caller::Ledger, &keys(&[201]), Err(revoked));
    let minted = Command::ConfigureKeys(ConfigureKeys {
        keys: vec![draft(203, |key| {
            key.origin = KeyOrigin::Configured;
            key.digest.blake3 = SecretDigest([200; 32]);
        })],
    });
    world.check_in(operator, Caller::Ledger, &minted, Err(Rejection::SecretInUse));
}

#[test]
fn a_reissue_ends_the_operators_own_keys() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    world.must(operator, Caller::Ledger, &create(205, |key| key.name = "robot".parse().unwrap()));
    let reissue = |number| Command::ReissueOperatorKey(Box::new(operator_key(number)));
    world.check_in(operator, Caller::Ledger, &reissue(201), Ok(&["KeyRevoked", "KeyCreated"]));
    world.must(operator, Caller::Ledger, &reissue(201));
    world.check_in(operator, Caller::Ledger, &reissue(202), Ok(&["KeyRevoked", "KeyCreated"]));
    assert!(world.operator.key(key_id(200)).unwrap().revocation.is_some());
    assert!(world.operator.key(key_id(205)).unwrap().revocation.is_none(), "other keys stay");
}

#[test]
fn organizations_have_their_prefix_alone() {
    let world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let register = |prefix, plan| {
        let draft = OrganizationDraft {
            organization_id: OrganizationId::from_bytes([8; 16]),
            ..organization(prefix, plan)
        };
        Command::RegisterOrganization(draft)
    };
    world.check_in(
        operator,
        Caller::Ledger,
        &register("abc", "free"),
        Ok(&["OrganizationRegistered"]),
    );
    world.check_in(
        operator,
        Caller::Ledger,
        &register("vtx", "free"),
        Err(Rejection::KeyPrefixTaken("vtx".into())),
    );
    for reserved in ["klop", "klbg"] {
        let expected = Err(Rejection::KeyPrefixReserved(reserved.into()));
        world.check_in(operator, Caller::Ledger, &register(reserved, "free"), expected);
    }
    let plans = "`free`, `paid`".to_owned();
    world.check_in(
        operator,
        Caller::Ledger,
        &register("abc", "gold"),
        Err(Rejection::PlanUnknown("gold".into(), plans)),
    );
    let unknown = Rejection::PlanUnknown("operator".into(), "`free`, `paid`".to_owned());
    world.check_in(operator, Caller::Ledger, &register("abc", "operator"), Err(unknown));
    let again = Command::RegisterOrganization(organization("other", "paid"));
    world.check_in(operator, Caller::Ledger, &again, Ok(&["done"]));
    world.check(
        Caller::Ledger,
        &Command::CreateOrganization(organization("vtx", "paid")),
        Ok(&["done"]),
    );
}

/// Everything that can be wrong with making a key, in order of precedence: what the
/// world is, what the command is, and the rejection.
#[test]
fn of_two_wrongs_the_earlier_is_the_rejection() {
    type Wrong = (fn(&mut World, &mut CreateKey), Rejection);
    let wrongs: [Wrong; 9] = [
        (|world, _| world.must(ACME, Caller::Ledger, &revoke(1)), Rejection::CallerNotInForce),
        (
            |_, key| {
                key.scopes = None;
                key.roles.clear();
            },
            Rejection::KeyWithoutPermissions,
        ),
        (|_, key| key.roles.push(role(99)), Rejection::RoleNotFound(role(99))),
        (|_, key| key.scopes = scopes(&["x:y"]), Rejection::PermissionNotHeld("x:y".into())),
        (
            |world, key| {
                world.acme = {
                    let mut w = World::on("free");
                    w.must(
                        ACME,
                        Caller::Ledger,
                        &create(1, |it| {
                            it.environment = Some(Environment::Test);
                            it.scopes = scopes(&["api-keys:write", "dns:read"]);
                        }),
                    );
                    w.must(ACME, Caller::Ledger, &create(2, |_| {}));
                    w.acme
                };
                key.environment = Some(Environment::Live);
            },
            Rejection::EnvironmentNotHeld,
        ),
        (
            |world, _| {
                world.acme = {
                    let mut w = World::on("free");
                    w.must(
                        ACME,
                        Caller::Ledger,
                        &create(1, |it| {
                            it.services = Some(vec!["cdn".parse().unwrap()]);
                            it.scopes = scopes(&["api-keys:write", "dns:read"]);
                        }),
                    );
                    w.must(ACME, Caller::Ledger, &create(2, |_| {}));
                    w.acme
                };
            },
            Rejection::ServiceNotHeld,
        ),
        (|_, key| key.name = "key 2".parse().unwrap(), Rejection::KeyNameTaken("key 2".into())),
        (|_, key| key.expiry = Expiry::At(at(NOW)), Rejection::ExpiryNotInFuture),
        (
            |_, key| key.expiry = Expiry::After(3_600_001),
            Rejection::LifetimeAbovePlan { max_seconds: 3_600 },
        ),
    ];
    let base = || {
        let mut world = World::on("free");
        world.must(
            ACME,
            Caller::Ledger,
            &create(1, |key| key.scopes = scopes(&["api-keys:write", "dns:read"])),
        );
        world.must(ACME, Caller::Ledger, &create(2, |_| {}));
        world
    };
    for (first, (make_first, expected)) in wrongs.iter().enumerate() {
        let (mut world, mut key) = (base(), draft(3, |_| {}));
        make_first(&mut world, &mut key);
        world.check(by(1), &Command::CreateKey(Box::new(key)), Err(expected.clone()));
        for (second, (make_second, _)) in wrongs.iter().enumerate().skip(first + 1) {
            // Both of a pair that changes the same thing cannot hold at once.
            if [(0, 4), (0, 5), (1, 2), (1, 3), (4, 5), (7, 8)].contains(&(first, second)) {
                continue;
            }
            let (mut world, mut key) = (base(), draft(3, |_| {}));
            make_second(&mut world, &mut key);
            make_first(&mut world, &mut key);
            world.check(by(1), &Command::CreateKey(Box::new(key)), Err(expected.clone()));
        }
    }
}

#[test]
fn a_caller_needs_the_permission_and_a_key_in_force() {
    let mut world = World::on("paid");
    world.must(ACME, Caller::Ledger, &create(1, |_| {}));
    world.check(
        by(1),
        &create(2, |_| {}),
        Err(Rejection::PermissionDenied("api-keys:write".into())),
    );
    world.check(by(9), &create(2, |_| {}), Err(Rejection::CallerNotInForce));
    world.check(by_operator(200), &create(2, |_| {}), Ok(&["KeyCreated"]));
    world.must(OrganizationId::OPERATOR, Caller::Ledger, &revoke(200));
    world.check(by_operator(200), &create(2, |_| {}), Err(Rejection::CallerNotInForce));
    // A key of one organization is nobody in another.
    let foreign =
        Caller::Key { organization_id: OrganizationId::from_bytes([8; 16]), key_id: key_id(1) };
    world.check(foreign, &create(2, |_| {}), Err(Rejection::CallerNotInForce));
    let empty = World::empty();
    let outcome = decide(&empty.given(ACME, Caller::Ledger), &create(1, |_| {}));
    assert_eq!(outcome, Err(Rejection::OrganizationNotFound));
}

#[test]
fn nobody_gives_what_they_do_not_hold() {
    let mut world = World::on("paid");
    world.must(
        ACME,
        Caller::Ledger,
        &create(1, |key| key.scopes = scopes(&["api-keys:write", "dns:read"])),
    );
    world.must(ACME, Caller::Ledger, &create(2, |key| key.scopes = scopes(&["org:admin"])));
    let dns_manager = role(6);
    type Gift = (u8, Option<Scopes>, Vec<RoleId>, Option<&'static str>);
    let cases: [Gift; 9] = [
        (1, scopes(&["dns:read"]), vec![], None),
        (1, scopes(&["dns:write"]), vec![], Some("dns:write")),
        (1, scopes(&["org:admin"]), vec![], Some("org:admin")),
        (1, None, vec![dns_manager], Some("dns:*")),
        (1, scopes(&["dns:read"]), vec![dns_manager], None),
        (1, scopes(&["org:admin"]), vec![dns_manager], Some("dns:*")),
        (1, scopes(&["cache:purge"]), vec![dns_manager], Some("cache:purge")),
        (2, scopes(&["org:admin"]), vec![], None),
        (2, None, vec![role(2)], None),
    ];
    for (caller, scoped, roles, missing) in cases {
        let command = create(3, |key| {
            key.scopes = scoped;
            key.roles = roles;
        });
        match missing {
            None => world.check(by(caller), &command, Ok(&["KeyCreated"])),
            Some(missing) => {
                world.check(by(caller), &command, Err(Rejection::PermissionNotHeld(missing.into())))
            }
        }
    }
    // The operator's own role is no role of a tenant.
    let command = create(3, |key| key.roles = vec![built_in::OPERATOR_ADMIN]);
    world.check(by(2), &command, Err(Rejection::RoleNotFound(built_in::OPERATOR_ADMIN)));
}

#[test]
fn plans_cap_the_life_of_keys() {
    let ends = |plan, expiry| {
        let world = World::on(plan);
        match world.decide(ACME, Caller::Ledger, &create(1, |key| key.expiry = expiry)) {
            Ok(Decided::Events(events)) => match events.as_slice() {
                [Event::KeyCreated(event)] => Ok(event.expires_at.map(|end| end.as_millis() - NOW)),
                other => panic!("{other:?}"),
            },
            Err(rejection) => Err(rejection),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends("paid", Expiry::PlanDefault), Ok(None));
    assert_eq!(ends("paid", Expiry::After(1)), Ok(Some(1)));
    assert_eq!(ends("free", Expiry::PlanDefault), Ok(Some(3_600_000)));
    assert_eq!(ends("free", Expiry::After(3_600_000)), Ok(Some(3_600_000)));
    assert_eq!(
        ends("free", Expiry::After(3_600_001)),
        Err(Rejection::LifetimeAbovePlan { max_seconds: 3_600 })
    );
    assert_eq!(ends("free", Expiry::At(at(NOW + 1))), Ok(Some(1)));
    assert_eq!(ends("free", Expiry::At(at(NOW))), Err(Rejection::ExpiryNotInFuture));
}

#[test]
fn a_name_is_one_active_keys() {
    let mut world = World::on("free");
    let named = |number| create(number, |key| key.name = "ci".parse().unwrap());
    world.must(ACME, Caller::Ledger, &named(1));
    world.check(Caller::Ledger, &named(2), Err(Rejection::KeyNameTaken("ci".into())));
    let mut later = world.clone();
    later.now += 3_600_000;
    later.check(Caller::Ledger, &named(2), Ok(&["KeyCreated"]));
    world.must(ACME, Caller::Ledger, &revoke(1));
    world.check(Caller::Ledger, &named(2), Ok(&["KeyCreated"]));
}

#[test]
fn revocation_says_what_was() {
    let mut world = World::on("free");
    world.must(ACME, Caller::Ledger, &create(1, |_| {}));
    world.check(Caller::Ledger, &revoke(9), Err(Rejection::KeyNotFound(key_id(9))));
    for (later, before) in [(0, KeyStateBefore::Active), (3_600_000, KeyStateBefore::Expired)] {
        let mut world = world.clone();
        world.now += later;
        let expected =
            KeyRevoked { key_id: key_id(1), reason: RevocationReason::KeyCompromise, before };
        let outcome = world.decide(ACME, Caller::Ledger, &revoke(1));
        assert_eq!(outcome, Ok(Decided::Events(vec![expected.into()])));
    }
    world.must(ACME, Caller::Ledger, &revoke(1));
    world.check(Caller::Ledger, &revoke(1), Err(Rejection::KeyAlreadyRevoked(key_id(1))));
}

#[test]
fn a_test_key_does_not_end_live_ones() {
    let mut world = World::on("paid");
    let tester = create(1, |key| {
        key.environment = Some(Environment::Test);
        key.scopes = scopes(&["org:admin"]);
    });
    world.must(ACME, Caller::Ledger, &tester);
    world.must(ACME, Caller::Ledger, &create(2, |_| {}));
    world.must(ACME, Caller::Ledger, &create(3, |key| key.environment = Some(Environment::Test)));
    world.check(by(1), &revoke(2), Err(Rejection::EnvironmentNotHeld));
    world.check(by(1), &revoke(3), Ok(&["KeyRevoked"]));
    world.check(by(1), &revoke(1), Ok(&["KeyRevoked"]));
}

#[test]
fn a_repeat_is_known_and_anything_else_under_its_key_is_refused() {
    let mut world = World::on("paid");
    let stamp = |content| {
        Some(RequestStamp { id: RequestId([1; 16]), content: RequestContent([content; 16]) })
    };
    let ask = |world: &World, request, number| {
        let given = Given { request, ..world.given(ACME, Caller::Ledger) };
        decide(&given, &create(number, |_| {}))
    };
    let Ok(Decided::Events(events)) = ask(&world, stamp(1), 1) else { panic!() };
    world.fold(ACME, &events, stamp(1));
    let done =
        Decided::Done { outcome: Change::Key(key_id(1)), revision: Revision(1), repeat: true };
    assert_eq!(ask(&world, stamp(1), 2), Ok(done));
    assert_eq!(ask(&world, stamp(2), 2), Err(Rejection::IdempotencyKeyReused));
    // The same command decided again, after its append was taken for lost, is no repeat of a request.
    let done =
        Decided::Done { outcome: Change::Key(key_id(1)), revision: Revision(1), repeat: false };
    assert_eq!(ask(&world, None, 1), Ok(done));
}

#[test]
fn the_expected_revision_is_the_last() {
    let world = World::on("paid");
    let current = world.acme.revision();
    for (expected, fine) in [(None, true), (current, true), (Some(Revision(7)), false)] {
        let given = Given { expected, ..world.given(ACME, Caller::Ledger) };
        let outcome = decide(&given, &create(1, |_| {})).map(|_| ());
        assert_eq!(
            outcome,
            if fine { Ok(()) } else { Err(Rejection::WrongExpectedRevision { current }) }
        );
    }
}

/// A step of a random history: who acts, and on what.
#[derive(Clone, Debug)]
enum Step {
    Create { caller: u8, scopes: Vec<&'static str>, role: u8, lifetime: i64, test: bool },
    Revoke { caller: u8, key: u8 },
    Wait(i64),
}

fn arb_step() -> impl Strategy<Value = Step> {
    let permissions = prop::sample::subsequence(
        vec!["api-keys:write", "dns:read", "dns:write", "cache:purge", "org:admin"],
        0..4,
    );
    prop_oneof![
        6 => (0..12_u8, permissions, 0..10_u8, 1..5_000_000_i64, any::<bool>()).prop_map(
            |(caller, scopes, role, lifetime, test)| Step::Create { caller, scopes, role, lifetime, test }
        ),
        2 => (0..12_u8, 0..12_u8).prop_map(|(caller, key)| Step::Revoke { caller, key }),
        1 => (1..2_000_000_i64).prop_map(Step::Wait),
    ]
}

const ASKED: [&str; 8] = [
    "dns:read",
    "dns:write",
    "cache:purge",
    "api-keys:write",
    "org:admin",
    "billing:read",
    "x:y",
    "routing:write",
];

proptest! {
    /// No sequence of commands revives a revoked key, makes one outlive its plan, or gives
    /// a key a permission that whoever made it did not hold.
    #[test]
    fn no_sequence_of_commands_breaks_the_rules(steps in prop::collection::vec(arb_step(), 1..40)) {
        let mut world = World::on("free");
        world.must(ACME, Caller::Ledger, &create(0, |key| {
            key.scopes = scopes(&["api-keys:write", "dns:read", "cache:purge"]);
            key.expiry = Expiry::PlanDefault;
        }));
        let mut number = 0_u8;
        let mut revoked = Vec::new();
        for step in steps {
            let (caller, command) = match step {
                Step::Wait(millis) => { world.now += millis; continue }
                Step::Revoke { caller, key } => (by(caller), revoke(key)),
                Step::Create { caller, scopes: wanted, role: wanted_role, lifetime, test } => {
                    let scoped = (!wanted.is_empty()).then(|| Scopes::new(&wanted).unwrap());
                    let command = create(number + 1, |key| {
                        key.scopes = scoped;
                        key.roles = (wanted_role > 0).then(|| role(wanted_role)).into_iter().collect();
                        key.expiry = Expiry::After(lifetime);
                        key.environment = Some(if test { Environment::Test } else { Environment::Live });
                    });
                    (by(caller), command)
                }
            };
            let Ok(Decided::Events(events)) = world.decide(ACME, caller, &command) else { continue };
            let before = world.clone();
            world.fold(ACME, &events, None);
            for event in &events {
                match event {
                    Event::KeyRevoked(event) => revoked.push(event.key_id),
                    Event::KeyCreated(event) => {
                        number += 1;
                        let made = world.acme.key(event.key_id).unwrap();
                        prop_assert!(made.expires_at().unwrap() <= at(world.now + 3_600_000));
                        let Caller::Key { key_id: maker, .. } = caller else { unreachable!() };
                        let maker = before.acme.key(maker).unwrap();
                        prop_assert_eq!(maker.state(at(world.now)), KeyState::Active);
                        let maker = Authority::of(maker, &before.acme, &before.operator);
                        let made = Authority::of(made, &world.acme, &world.operator);
                        for text in ASKED {
                            let permission = Permission::parse(text).unwrap();
                            prop_assert!(!made.holds(permission) || maker.holds(permission), "{text}");
                        }
                    }
                    Event::InstallationCreated(_)
                    | Event::SchemaActivated(_)
                    | Event::PlanDefined(_)
                    | Event::BuiltInRoleDefined(_)
                    | Event::OrganizationRegistered(_)
                    | Event::OrganizationCreated(_) => prop_assert!(false, "{event:?}"),
                }
            }
            for id in &revoked {
                prop_assert_eq!(world.acme.key(*id).unwrap().state(at(world.now)), KeyState::Revoked);
            }
        }
    }
}

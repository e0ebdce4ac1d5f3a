//! Given a history, when a command is given, then exactly this comes of it.

mod people;

use projections::api_key::Environment;
use projections::digest::{
    RequestContent, RequestId, SecretDigest, SigningKeyId, SigningPublicKey,
};
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, Hint, KeyOrigin, KeyRevoked, KeyStateBefore, KeyedDigest, MfaRule,
    PermissionRule, RevocationReason, RoleCreated, RoleUpdated, ServiceAccountCreated,
    SigningKeyAdded,
};
use projections::id::{
    EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId, UserId,
};
use projections::key::KeyState;
use projections::network::Networks;
use projections::permission::{PermissionPattern, Scopes};
use projections::policy::Policy;
use projections::principal::Principal;
use projections::user::UserState;
use proptest::prelude::*;

use super::*;
use crate::ledger::built_in;
use crate::ledger::command::{
    ConfigureKeys, CreateInstallation, CreateKey, CreateRole, Expiry, GRANTS_MAX, GrantRole,
    ImportKeys, ImportedKey, KEYS_AT_ONCE_MAX, OWN_ROLES_MAX, OrganizationDraft, ROLES_MADE_MAX,
    ROTATION_GRACE_MAX_SECONDS, RevokeKey, RevokeKeys, RotateKey, Rules, UpdateKeyLabel,
    UpdateRole, WhichKeys,
};
use crate::ledger::start::ConfiguredRules;

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
        owner: None,
        allowed_ips: None,
        rate_limit: None,
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

fn account_id(number: u8) -> ServiceAccountId {
    ServiceAccountId::from_bytes([number; 16])
}

fn account(number: u8, roles: &[u8]) -> Command {
    Command::CreateServiceAccount(Box::new(ServiceAccountCreated {
        service_account_id: account_id(number),
        name: format!("account {number}").parse().unwrap(),
        description: None,
        roles: roles.iter().map(|number| role(*number)).collect(),
    }))
}

/// A command to put key `new` in the place of key `old`; the closure makes it otherwise.
fn rotate(old: u8, new: u8, otherwise: impl FnOnce(&mut RotateKey)) -> Command {
    let mut command = RotateKey {
        key_id: key_id(old),
        successor: key_id(new),
        prefix: "vtx".parse().unwrap(),
        hint: Hint::of("c3D4"),
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([new; 32]) },
        grace_ms: None,
        expiry: None,
    };
    otherwise(&mut command);
    Command::RotateKey(Box::new(command))
}

/// A key of Acme as a caller, with its owner.
fn by_owned(world: &World, number: u8) -> Caller {
    let owner = world.acme.key(key_id(number)).and_then(|key| key.owner());
    Caller::Key { organization_id: ACME, key_id: key_id(number), owner }
}

fn organization(prefix: &str, plan: &str) -> OrganizationDraft {
    OrganizationDraft {
        organization_id: ACME,
        name: "Acme".parse().unwrap(),
        key_prefix: prefix.parse().unwrap(),
        plan: plan.parse().unwrap(),
        personal_of: None,
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
            standing: None,
            expected: None,
            request: None,
            taken: None,
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
        self.fold_by(target, (Principal::Ledger, request), events);
    }

    /// Folds what this caller did, in their name.
    fn fold_as(&mut self, target: OrganizationId, caller: Caller, events: &[Event]) {
        self.fold_by(target, (caller.principal(target), None), events);
    }

    fn fold_by(
        &mut self,
        target: OrganizationId,
        (actor, request): (Principal, Option<RequestStamp>),
        events: &[Event],
    ) {
        let state = if target.is_operator() { &mut self.operator } else { &mut self.acme };
        for event in events {
            let envelope = Envelope {
                id: EventId::from_bytes([9; 16]),
                at: at(self.now),
                actor,
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
    Caller::Key { organization_id: ACME, key_id: key_id(number), owner: None }
}

fn by_operator(number: u8) -> Caller {
    Caller::Key { organization_id: OrganizationId::OPERATOR, key_id: key_id(number), owner: None }
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

/// To ask again adds nothing, and what was retired comes back in no way.
#[test]
fn a_signing_key_is_added_and_retired_once() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let id = SigningKeyId([1; 16]);
    let public_key = SigningPublicKey([2; 32]);
    let add = Command::AddSigningKey(SigningKeyAdded { signing_key_id: id, public_key });
    let retire = Command::RetireSigningKey(id);
    world.check_in(operator, Caller::Ledger, &retire, Ok(&["nothing"]));
    world.check_in(operator, Caller::Ledger, &add, Ok(&["SigningKeyAdded"]));
    world.must(operator, Caller::Ledger, &add);
    world.check_in(operator, Caller::Ledger, &add, Ok(&["nothing"]));
    world.check_in(operator, Caller::Ledger, &retire, Ok(&["SigningKeyRetired"]));
    world.must(operator, Caller::Ledger, &retire);
    for again in [&add, &retire] {
        world.check_in(operator, Caller::Ledger, again, Ok(&["nothing"]));
    }
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
fn rules_of_permissions_come_change_and_go_with_the_configuration() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let rules = |list: &[(&str, bool)]| {
        let rule = |(pattern, mfa): &(&str, bool)| {
            let feature = Some("sso".parse().unwrap());
            let mfa = mfa.then(MfaRule::default);
            (pattern.parse().unwrap(), PermissionRule { mfa, feature })
        };
        let permission_rules = list.iter().map(rule).collect();
        let rules = ConfiguredRules { permission_rules, plans: Vec::new() };
        Command::ConfigureInstallation(built_in::rules_with(&rules))
    };
    let mut check = |list: &[(&str, bool)], events: &[&str]| {
        let command = rules(list);
        world.check_in(operator, Caller::Ledger, &command, Ok(events));
        if events != ["nothing"] {
            world.must(operator, Caller::Ledger, &command);
        }
    };
    check(&[], &["nothing"]);
    check(&[("a:b", true), ("*:*", false)], &["PermissionRuleDefined"; 2]);
    check(&[("*:*", false), ("a:b", true)], &["nothing"]);
    check(&[("a:b", false), ("*:*", false)], &["PermissionRuleDefined"]);
    check(&[("c:d", true), ("*:*", false)], &["PermissionRuleRemoved", "PermissionRuleDefined"]);
    // What changes no rule leaves them as they are.
    let nothing = Command::ConfigureInstallation(built_in::no_rules());
    world.check_in(operator, Caller::Ledger, &nothing, Ok(&["nothing"]));
    let check = |list: &[(&str, bool)], events: &[&str]| {
        world.check_in(operator, Caller::Ledger, &rules(list), Ok(events));
    };
    check(&[], &["PermissionRuleRemoved"; 2]);
}

#[test]
fn configured_keys_come_and_go_with_the_configuration() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    let keys = |numbers: &[u8]| {
        Command::ConfigureKeys(ConfigureKeys {
            keys: numbers
                .iter()
                .map(|number| ImportedKey { key: configured(*number), others: Vec::new() })
                .collect(),
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
        keys: vec![ImportedKey {
            key: draft(203, |key| {
                key.origin = KeyOrigin::Configured;
                key.digest.blake3 = SecretDigest([200; 32]);
            }),
            others: Vec::new(),
        }],
    });
    world.check_in(operator, Caller::Ledger, &minted, Err(Rejection::SecretInUse));
}

/// A secret is the same one whichever digest stands for it.
#[test]
fn a_configured_key_is_the_same_under_another_pepper() {
    let mut world = World::on("paid");
    let operator = OrganizationId::OPERATOR;
    // What stood for the secret of key 201 is one of several that may stand for this one's.
    let rotated = |number: u8| {
        let others = vec![SecretDigest([99; 32]), configured(201).digest.blake3];
        let key = ImportedKey { key: configured(number), others };
        Command::ConfigureKeys(ConfigureKeys { keys: vec![key] })
    };
    let plain = ImportedKey { key: configured(201), others: Vec::new() };
    let plain = Command::ConfigureKeys(ConfigureKeys { keys: vec![plain] });
    world.must(operator, Caller::Ledger, &plain);
    world.check_in(operator, Caller::Ledger, &rotated(202), Ok(&["nothing"]));
    world.must(operator, Caller::Ledger, &revoke(201));
    let revoked = Rejection::ConfiguredKeyRevoked("ADMIN_API_TOKEN".into());
    world.check_in(operator, Caller::Ledger, &rotated(202), Err(revoked));
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
    assert!(world.operator.key(key_id(200)).unwrap().revocation().is_some());
    assert!(world.operator.key(key_id(205)).unwrap().revocation().is_none(), "other keys stay");
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
    for reserved in ["klop", "klbg", "live", "test"] {
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
    let foreign = Caller::Key {
        organization_id: OrganizationId::from_bytes([8; 16]),
        key_id: key_id(1),
        owner: None,
    };
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
    // A policy binds live keys, and its organization cannot take it back.
    let policy = Policy { key_lifetime_max_seconds: Some(1), ..Policy::default() };
    world.check(by(1), &Command::UpdatePolicy(policy), Err(Rejection::EnvironmentNotHeld));
}

/// Acme with an administrator's key 1 that nothing limits.
fn with_admin(plan: &str) -> World {
    let mut world = World::on(plan);
    let admin = |key: &mut CreateKey| key.scopes = scopes(&["org:admin"]);
    world.must(ACME, Caller::Ledger, &create(1, admin));
    world
}

fn relabel(number: u8, name: &str) -> Command {
    Command::UpdateKeyLabel(UpdateKeyLabel {
        key_id: key_id(number),
        name: name.parse().ok(),
        description: None,
    })
}

#[test]
fn a_rotation_makes_a_like_key_and_leaves_the_old_one_a_while() {
    let mut world = with_admin("paid");
    let like = |key: &mut CreateKey| {
        key.scopes = scopes(&["dns:read"]);
        key.roles = vec![role(6)];
        key.services = Some(vec!["dns".parse().unwrap()]);
        key.expiry = Expiry::After(1_000_000);
        key.allowed_ips = Networks::new(&["192.0.2.0/24"]).ok();
    };
    world.must(ACME, Caller::Ledger, &create(2, like));
    world.now += 400_000;
    world.must(ACME, by(1), &rotate(2, 3, |_| {}));
    let (old, new) = (world.acme.key(key_id(2)).unwrap(), world.acme.key(key_id(3)).unwrap());
    assert_eq!((&old.name, &old.scopes, old.roles()), (&new.name, &new.scopes, new.roles()));
    assert_eq!((old.services(), old.allowed_ips()), (new.services(), new.allowed_ips()));
    assert_eq!(new.predecessor(), Some(old.id));
    assert_eq!(new.expires_at(), Some(at(NOW + 1_400_000)), "as long a life as the old one's");
    assert_eq!(old.rotation().unwrap().ends_at, at(NOW + 400_000 + 86_400_000), "a day of grace");
    assert_eq!(old.expires_at(), Some(at(NOW + 1_000_000)), "its own end stays");
    let again = Rejection::KeyAlreadyRotated(key_id(2), key_id(3));
    world.check(by(1), &rotate(2, 4, |_| {}), Err(again));
    // Whoever lost the new secret rotates the new key; the old one keeps its grace.
    world.must(ACME, by(1), &rotate(3, 4, |command| command.grace_ms = Some(0)));
    let state =
        |world: &World, number| world.acme.key(key_id(number)).unwrap().state(at(world.now));
    let states = [state(&world, 2), state(&world, 3), state(&world, 4)];
    assert_eq!(states, [KeyState::Active, KeyState::Revoked, KeyState::Active]);
    world.check(by(1), &Command::EndRotation(key_id(4)), Err(Rejection::KeyNotRotated(key_id(4))));
    world.must(ACME, by(1), &Command::EndRotation(key_id(2)));
    assert_eq!(state(&world, 2), KeyState::Revoked);
    let over = Err(Rejection::KeyAlreadyRevoked(key_id(2)));
    world.check(by(1), &Command::EndRotation(key_id(2)), over);
}

#[test]
fn a_rotation_keeps_to_plan_and_policy() {
    let mut world = with_admin("free");
    let day = 24 * 3_600_000;
    world.must(ACME, by(1), &create(2, |key| key.expiry = Expiry::After(10)));
    let too_long = Err(Rejection::LifetimeAbovePlan { max_seconds: 3_600 });
    let forever = |command: &mut RotateKey| command.expiry = Some(Expiry::After(day));
    world.check(by(1), &rotate(2, 3, forever), too_long);
    let max_seconds = ROTATION_GRACE_MAX_SECONDS;
    let grace = |grace_ms: i64| move |command: &mut RotateKey| command.grace_ms = Some(grace_ms);
    let longest = i64::from(max_seconds) * 1_000;
    let above = Err(Rejection::GraceAboveMax { max_seconds });
    world.check(by(1), &rotate(2, 3, grace(longest + 1)), above);
    world.check(by(1), &rotate(2, 3, grace(longest)), Ok(&["KeyCreated", "KeyRotated"]));
    let policy = Policy {
        rotation_grace_max_seconds: Some(60),
        key_lifetime_max_seconds: Some(5),
        ..Policy::default()
    };
    world.must(ACME, by(1), &Command::UpdatePolicy(policy));
    let above = Err(Rejection::GraceAboveMax { max_seconds: 60 });
    world.check(by(1), &rotate(2, 3, grace(60_001)), above);
    let above = Err(Rejection::LifetimeAbovePolicy { max_seconds: 5 });
    let longer = |command: &mut RotateKey| command.expiry = Some(Expiry::After(5_001));
    world.check(by(1), &rotate(2, 3, longer), above);
    world.must(ACME, by(1), &rotate(2, 3, |_| {}));
    let old = world.acme.key(key_id(2)).unwrap();
    assert_eq!(old.rotation().unwrap().ends_at, at(NOW + 60_000), "as long as the policy allows");
}

#[test]
fn a_disabled_key_decides_nothing_until_it_is_enabled() {
    let mut world = with_admin("paid");
    world.must(ACME, by(1), &create(2, |key| key.scopes = scopes(&["org:admin"])));
    let (disable, enable) = (Command::DisableKey(key_id(2)), Command::EnableKey(key_id(2)));
    world.check(by(1), &enable, Err(Rejection::KeyNotDisabled(key_id(2))));
    world.must(ACME, by(1), &disable);
    world.check(by(2), &create(3, |_| {}), Err(Rejection::CallerNotInForce));
    world.check(by(1), &disable, Err(Rejection::KeyAlreadyDisabled(key_id(2))));
    world.check(by(1), &rotate(2, 3, |_| {}), Err(Rejection::KeyIsDisabled(key_id(2))));
    world.must(ACME, by(1), &enable);
    world.check(by(2), &create(3, |_| {}), Ok(&["KeyCreated"]));
    world.must(ACME, by(1), &disable);
    world.must(ACME, by(1), &revoke(2));
    world.check(by(1), &enable, Err(Rejection::KeyAlreadyRevoked(key_id(2))));
    // A lifetime goes on meanwhile.
    world.must(ACME, by(1), &create(4, |key| key.expiry = Expiry::After(1_000)));
    world.must(ACME, by(1), &Command::DisableKey(key_id(4)));
    world.now += 1_000;
    let over = Err(Rejection::KeyIsExpired(key_id(4)));
    world.check(by(1), &Command::EnableKey(key_id(4)), over);
}

#[test]
fn whoever_rotates_or_enables_could_make_the_key() {
    let mut world = with_admin("paid");
    let writer =
        |list: &'static [&'static str]| move |key: &mut CreateKey| key.scopes = scopes(list);
    world.must(ACME, by(1), &create(2, writer(&["api-keys:write", "dns:read"])));
    world.must(ACME, by(1), &create(3, writer(&["dns:read"])));
    world.must(ACME, by(1), &create(4, writer(&["dns:write"])));
    let not_held = || Err(Rejection::PermissionNotHeld("dns:write".to_owned()));
    world.check(by(2), &rotate(3, 5, |_| {}), Ok(&["KeyCreated", "KeyRotated"]));
    world.check(by(2), &rotate(4, 5, |_| {}), not_held());
    for number in [3, 4] {
        world.must(ACME, by(2), &Command::DisableKey(key_id(number)));
    }
    world.check(by(2), &Command::EnableKey(key_id(3)), Ok(&["KeyEnabled"]));
    world.check(by(2), &Command::EnableKey(key_id(4)), not_held());
    world.must(
        ACME,
        by(1),
        &create(6, |key| {
            key.scopes = scopes(&["org:admin"]);
            key.environment = Some(Environment::Test);
        }),
    );
    for command in [
        rotate(2, 7, |_| {}),
        Command::DisableKey(key_id(2)),
        Command::EnableKey(key_id(3)),
        relabel(2, "x"),
        revoke(2),
    ] {
        world.check(by(6), &command, Err(Rejection::EnvironmentNotHeld));
    }
}

#[test]
fn a_name_belongs_to_one_rotation() {
    let mut world = with_admin("paid");
    let named = |number: u8| create(number, |key| key.name = "ci".parse().unwrap());
    let taken = || Err(Rejection::KeyNameTaken("ci".to_owned()));
    world.must(ACME, by(1), &named(2));
    world.must(ACME, by(1), &create(3, |_| {}));
    world.check(by(1), &relabel(3, "ci"), taken());
    world.must(ACME, by(1), &rotate(2, 4, |_| {}));
    // Both keys of the rotation have it; no third one does, whichever of them goes.
    world.check(by(1), &named(5), taken());
    world.must(ACME, by(1), &Command::DisableKey(key_id(4)));
    world.check(by(1), &named(5), taken());
    world.must(ACME, by(1), &Command::DisableKey(key_id(2)));
    world.must(ACME, by(1), &named(5));
    for number in [2, 4] {
        world.check(by(1), &Command::EnableKey(key_id(number)), taken());
    }
    world.must(ACME, by(1), &relabel(5, "other"));
    world.must(ACME, by(1), &Command::EnableKey(key_id(4)));
    world.must(ACME, by(1), &Command::EnableKey(key_id(2)));
    world.check(by(1), &relabel(5, "ci"), taken());
    world.check(by(1), &relabel(5, "other"), Ok(&["done"]));
}

#[test]
fn a_name_is_taken_while_any_active_key_has_it() {
    let named = |number: u8| create(number, |key| key.name = "ci".parse().unwrap());
    let taken = || Err(Rejection::KeyNameTaken("ci".to_owned()));
    // A key that is out of force takes nobody's name by being called so.
    let mut world = with_admin("paid");
    world.must(ACME, by(1), &named(2));
    world.must(ACME, by(1), &create(3, |_| {}));
    world.must(ACME, by(1), &create(4, |key| key.expiry = Expiry::After(5)));
    world.must(ACME, by(1), &Command::DisableKey(key_id(3)));
    world.now += 5;
    for number in [3, 4] {
        world.must(ACME, by(1), &relabel(number, "ci"));
        world.check(by(1), &named(5), taken());
    }
    world.check(by(1), &Command::EnableKey(key_id(3)), taken());
    // The old key of a rotation takes it back, and ends.
    world.must(ACME, by(1), &rotate(2, 6, |_| {}));
    world.must(ACME, by(1), &relabel(2, "old"));
    world.must(ACME, by(1), &relabel(2, "ci"));
    world.must(ACME, by(1), &Command::EndRotation(key_id(2)));
    world.check(by(1), &named(5), taken());
    // The new key of a rotation ends before the old one.
    let short = |command: &mut RotateKey| command.expiry = Some(Expiry::After(10));
    world.must(ACME, by(1), &rotate(6, 7, short));
    world.now += 10;
    world.check(by(1), &named(5), taken());
    world.must(ACME, by(1), &revoke(6));
    world.check(by(1), &named(5), Ok(&["KeyCreated"]));
}

#[test]
fn a_service_accounts_key_has_its_roles_and_no_others() {
    let mut world = with_admin("paid");
    world.must(ACME, by(1), &account(1, &[6]));
    let name_taken = Rejection::ServiceAccountNameTaken("account 1".to_owned());
    let twin = Command::CreateServiceAccount(Box::new(ServiceAccountCreated {
        service_account_id: account_id(2),
        name: "account 1".parse().unwrap(),
        description: None,
        roles: Vec::new(),
    }));
    world.check(by(1), &twin, Err(name_taken));
    world.check(by(1), &account(2, &[99]), Err(Rejection::RoleNotFound(role(99))));
    let owned =
        |number, owner| create(number, move |key| key.owner = Some(account_id(owner).into()));
    let missing = Err(Rejection::ServiceAccountNotFound(account_id(9)));
    world.check(by(1), &owned(2, 9), missing);
    let with_roles = create(2, |key| {
        key.owner = Some(account_id(1).into());
        key.roles = vec![role(6)];
    });
    world.check(by(1), &with_roles, Err(Rejection::RolesOfOwner));
    world.must(ACME, by(1), &owned(2, 1));
    // Its key may write keys only if the account's roles say so.
    world.must(ACME, by(1), &account(3, &[2]));
    world.must(
        ACME,
        by(1),
        &create(3, |key| {
            key.owner = Some(account_id(3).into());
            key.scopes = scopes(&["api-keys:write", "service-accounts:write", "dns:read"]);
        }),
    );
    world.check(by(3), &create(4, |_| {}), Ok(&["KeyCreated"]));
    let unscoped = create(4, |key| {
        key.owner = Some(account_id(1).into());
        key.scopes = None;
    });
    world.check(by(3), &unscoped, Err(Rejection::PermissionNotHeld("dns:*".to_owned())));
    world.check(by(3), &account(4, &[6]), Err(Rejection::PermissionNotHeld("dns:*".to_owned())));
    world.check(by(3), &account(4, &[]), Ok(&["ServiceAccountCreated"]));
}

#[test]
fn a_service_account_is_revoked_whole() {
    let mut world = with_admin("paid");
    world.must(ACME, by(1), &account(1, &[6]));
    world.must(ACME, by(1), &account(2, &[6]));
    for (number, owner) in [(2, 1), (3, 1), (4, 2)] {
        world.must(ACME, by(1), &create(number, |key| key.owner = Some(account_id(owner).into())));
    }
    world.must(ACME, by(1), &Command::DisableKey(key_id(3)));
    let all_of = |owner| {
        Command::RevokeKeys(RevokeKeys {
            which: WhichKeys::Of(account_id(owner).into()),
            reason: RevocationReason::KeyCompromise,
        })
    };
    world.check(by(1), &all_of(9), Err(Rejection::ServiceAccountNotFound(account_id(9))));
    world.must(ACME, by(1), &all_of(1));
    let state = |number| world.acme.key(key_id(number)).unwrap().state(at(NOW));
    let states = [state(2), state(3), state(4)];
    assert_eq!(states, [KeyState::Revoked, KeyState::Revoked, KeyState::Active]);
    world.check(by(1), &all_of(1), Ok(&["nothing"]));
}

#[test]
fn a_list_is_revoked_whole_or_not_at_all() {
    let mut world = with_admin("paid");
    for number in [2, 3] {
        world.must(ACME, by(1), &create(number, |_| {}));
    }
    let all = |numbers: &[u8]| {
        let ids = numbers.iter().map(|number| key_id(*number)).collect();
        Command::RevokeKeys(RevokeKeys {
            which: WhichKeys::Listed(ids),
            reason: RevocationReason::KeyCompromise,
        })
    };
    world.check(by(1), &all(&[2, 9]), Err(Rejection::KeyNotFound(key_id(9))));
    world.check(by(1), &all(&[2, 3, 2]), Ok(&["KeyRevoked", "KeyRevoked"]));
    world.must(ACME, by(1), &revoke(2));
    world.check(by(1), &all(&[2, 3]), Ok(&["KeyRevoked"]));
}

#[test]
fn an_import_is_checked_key_by_key() {
    let mut world = with_admin("paid");
    let import = |drafts: Vec<CreateKey>| {
        let keys = drafts.into_iter().map(|key| ImportedKey { key, others: Vec::new() });
        Command::ImportKeys(ImportKeys { keys: keys.collect() })
    };
    let foreign = |number| {
        draft(number, |key| {
            key.origin = KeyOrigin::Imported;
            key.prefix = None;
        })
    };
    world.check(by(1), &import(vec![foreign(2), foreign(3)]), Ok(&["KeyCreated", "KeyCreated"]));
    let item = |place, rejection: Rejection| Err(rejection.of_item("keys", place));
    let twin = CreateKey { name: "key 2".parse().unwrap(), ..foreign(3) };
    let taken = Rejection::KeyNameTaken("key 2".to_owned());
    world.check(by(1), &import(vec![foreign(2), twin]), item(1, taken));
    let missing = CreateKey { roles: vec![role(99)], ..foreign(3) };
    world.check(
        by(1),
        &import(vec![foreign(2), missing]),
        item(1, Rejection::RoleNotFound(role(99))),
    );
    let given = Given { taken: Some(1), ..world.given(ACME, by(1)) };
    let decided = decide(&given, &import(vec![foreign(2), foreign(3)])).map(|_| ());
    assert_eq!(decided, Err(Rejection::SecretInUse.of_item("keys", 1)));
    world.must(ACME, by(1), &account(1, &[6]));
    let owned = |number| CreateKey { owner: Some(account_id(1).into()), ..foreign(number) };
    let many = |count: usize| {
        let key = |place: usize| CreateKey {
            key_id: KeyId::from_parts(1, place as u128),
            name: format!("n{place}").parse().unwrap(),
            ..owned(2)
        };
        import((0..count).map(key).collect())
    };
    let full = Rejection::TooManyKeys(account_id(1).into(), KEYS_AT_ONCE_MAX);
    world.check(by(1), &many(KEYS_AT_ONCE_MAX + 1), item(KEYS_AT_ONCE_MAX, full.clone()));
    world.must(ACME, by(1), &many(KEYS_AT_ONCE_MAX));
    world.check(by(1), &import(vec![owned(3)]), item(0, full.clone()));
    world.check(by(1), &create(3, |key| key.owner = Some(account_id(1).into())), Err(full));
}

#[test]
fn a_policy_is_tightened_by_its_organization_and_loosened_by_its_operator() {
    let mut world = with_admin("paid");
    let policy = |seconds, listed| {
        Command::UpdatePolicy(Policy {
            key_lifetime_max_seconds: seconds,
            allowed_ips_required: listed,
            ..Policy::default()
        })
    };
    world.must(ACME, by(1), &policy(Some(60), true));
    world.check(by(1), &policy(Some(60), true), Ok(&["done"]));
    for looser in [policy(Some(61), true), policy(None, true), policy(Some(60), false)] {
        world.check(by(1), &looser, Err(Rejection::PolicyLoosened));
        world.check(by_operator(200), &looser, Ok(&["PolicyUpdated"]));
    }
    world.check(by(1), &policy(Some(59), true), Ok(&["PolicyUpdated"]));
    world.check(by(1), &create(2, |_| {}), Err(Rejection::AllowedIpsRequired));
    let (four, six) = ("0.0.0.0/0".to_owned(), "::/0".to_owned());
    let (four, six) = (Rejection::AllowedIpsEverywhere(four), Rejection::AllowedIpsEverywhere(six));
    for (list, rejection) in [
        (&["0.0.0.0/0"][..], &four),
        (&["192.0.2.0/24", "::/0"], &six),
        (&["0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32"], &four),
    ] {
        let everywhere = create(2, |key| key.allowed_ips = Networks::new(list).ok());
        world.check(by(1), &everywhere, Err(rejection.clone()));
    }
    let listed = |lifetime| {
        create(2, move |key| {
            key.allowed_ips = Networks::new(&["192.0.2.0/24"]).ok();
            key.expiry = lifetime;
        })
    };
    let above = Err(Rejection::LifetimeAbovePolicy { max_seconds: 60 });
    world.check(by(1), &listed(Expiry::After(60_001)), above);
    world.must(ACME, by(1), &listed(Expiry::PlanDefault));
    assert_eq!(world.acme.key(key_id(2)).unwrap().expires_at(), Some(at(NOW + 60_000)));
    // What was made before does not come into force again against the policy.
    world.must(ACME, Caller::Ledger, &Command::DisableKey(key_id(1)));
    world.check(
        by_operator(200),
        &Command::EnableKey(key_id(1)),
        Err(Rejection::AllowedIpsRequired),
    );
}

/// What is brought into force again keeps to the rules as they are now.
#[test]
fn a_key_is_enabled_within_the_policy_of_today() {
    let mut world = with_admin("paid");
    let hour = i64::from(3_600) * 1_000;
    world.must(ACME, by(1), &create(2, |_| {}));
    world.must(ACME, by(1), &create(3, |key| key.expiry = Expiry::After(2 * hour)));
    world.must(ACME, by(1), &create(4, |key| key.expiry = Expiry::After(hour)));
    for number in [2, 3, 4] {
        world.must(ACME, by(1), &Command::DisableKey(key_id(number)));
    }
    let policy = Policy { key_lifetime_max_seconds: Some(3_600), ..Policy::default() };
    world.must(ACME, by(1), &Command::UpdatePolicy(policy));
    let above = || Err(Rejection::LifetimeAbovePolicy { max_seconds: 3_600 });
    let enable = |number| Command::EnableKey(key_id(number));
    world.check(by(1), &enable(2), above());
    world.check(by(1), &enable(3), above());
    world.check(by(1), &enable(4), Ok(&["KeyEnabled"]));
    // What is left of it counts.
    world.now += hour;
    world.check(by(1), &enable(3), Ok(&["KeyEnabled"]));
}

#[test]
fn the_operators_own_keys_keep_their_names() {
    let world = World::on("paid");
    let admin = |command: &Command| {
        let given = world.given(OrganizationId::OPERATOR, by_operator(200));
        decide(&given, command).map(|_| ())
    };
    let configured = Err(Rejection::KeyIsConfigured(key_id(200)));
    assert_eq!(admin(&relabel(200, "other")), configured);
    assert_eq!(admin(&rotate(200, 201, |_| {})), Ok(()));
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

/// Acme with an administrator (key 1), a key that holds `roles:write` and `dns:read` (key
/// 2), and service account 1, without roles.
fn with_roles() -> World {
    let mut world = with_admin("paid");
    world.must(ACME, by(1), &create(2, |key| key.scopes = scopes(&["roles:write", "dns:read"])));
    world.must(ACME, by(1), &account(1, &[]));
    world
}

#[test]
fn nobody_defines_or_grants_what_they_do_not_hold() {
    let mut world = with_roles();
    let not_held = |text: &str| Err(Rejection::PermissionNotHeld(text.to_owned()));
    for (permissions, missing) in [
        (&["dns:read"][..], None),
        (&["dns:read", "roles:write"], None),
        (&["dns:read", "dns:write"], Some("dns:write")),
        (&["dns:*"], Some("dns:*")),
        (&["*:read"], Some("*:read")),
        (&["org:admin"], Some("org:admin")),
        (&["*:*"], Some("*:*")),
    ] {
        let outcome = missing.map_or(Ok(&["RoleCreated"][..]), not_held);
        world.check(by(2), &role_draft(10, permissions), outcome);
    }
    world.must(ACME, by(2), &role_draft(10, &["dns:read"]));
    world.must(ACME, by(1), &role_draft(11, &["dns:*"]));
    // Whoever changes a role holds all of what it comes to, whatever it was.
    world.check(by(2), &edit_role(own_role(10), &["dns:read", "x:y"]), not_held("x:y"));
    world.check(by(2), &edit_role(own_role(11), &["dns:read"]), Ok(&["RoleUpdated"]));
    let rename = |role_id| {
        Command::UpdateRole(Box::new(UpdateRole {
            role_id,
            name: "other".parse().ok(),
            description: None,
            permissions: None,
        }))
    };
    world.check(by(2), &rename(own_role(11)), not_held("dns:*"));
    world.check(by(2), &rename(own_role(10)), Ok(&["RoleUpdated"]));
    let give = |role_id| grant(10, account_id(1), role_id, None, None);
    world.check(by(2), &give(own_role(10)), Ok(&["RoleGranted"]));
    world.check(by(2), &give(own_role(11)), not_held("dns:*"));
    world.check(by(2), &give(role(2)), not_held("*:*"));
    world.must(ACME, by(1), &give(own_role(11)));
    // To take away needs the permission alone.
    world.check(by(2), &Command::RevokeGrant(grant_id(10)), Ok(&["GrantRevoked"]));
    world.check(by(2), &Command::RetireRole(own_role(11)), Ok(&["RoleRetired"]));
    let (writer, denied) = (&["api-keys:write"], "roles:write".to_owned());
    world.must(ACME, by(1), &create(3, |key| key.scopes = scopes(writer)));
    for command in [
        role_draft(12, &["api-keys:write"]),
        Command::RetireRole(own_role(10)),
        Command::RevokeGrant(grant_id(10)),
    ] {
        world.check(by(3), &command, Err(Rejection::PermissionDenied(denied.clone())));
    }
}

/// Not through a key either: neither a new one, nor a rotated or an enabled one.
#[test]
fn a_key_gives_all_that_its_account_was_granted() {
    let mut world = with_roles();
    let writer = scopes(&["api-keys:write", "dns:read"]);
    world.must(ACME, by(1), &create(4, |key| key.scopes = writer));
    world.must(ACME, by(1), &role_draft(10, &["dns:read"]));
    world.must(ACME, by(1), &role_draft(11, &["dns:write"]));
    let owned =
        |number| create(number, |key| (key.scopes, key.owner) = (None, Some(account_id(1).into())));
    world.must(ACME, by(1), &grant(10, account_id(1), own_role(10), None, None));
    world.must(ACME, by(1), &owned(5));
    world.must(ACME, by(4), &owned(6));
    world.must(ACME, by(4), &Command::DisableKey(key_id(6)));
    let there = grant(11, account_id(1), own_role(11), Some("a.example"), Some(1_000));
    world.must(ACME, by(1), &there);
    let not_held = || Err(Rejection::PermissionNotHeld("dns:write".into()));
    world.check(by(4), &owned(7), not_held());
    world.check(by(4), &rotate(5, 7, |_| {}), not_held());
    world.check(by(4), &Command::EnableKey(key_id(6)), not_held());
    world.check(by(1), &owned(7), Ok(&["KeyCreated"]));
    // What its account no longer has, nobody gives with it.
    world.now += 1_000;
    world.check(by(4), &owned(7), Ok(&["KeyCreated"]));
    world.must(ACME, by(1), &Command::RetireRole(own_role(10)));
    world.check(by(4), &Command::EnableKey(key_id(6)), Ok(&["KeyEnabled"]));
}

/// What is held for one domain is given for it alone; what is held for a time, as long.
#[test]
fn what_is_held_in_part_is_given_in_part() {
    let mut world = with_roles();
    let all = ["roles:write", "api-keys:write", "service-accounts:write"];
    world.must(ACME, by(1), &role_draft(10, &all));
    world.must(ACME, by(1), &role_draft(11, &["dns:write"]));
    world.must(ACME, by(1), &account(2, &[]));
    world.must(
        ACME,
        by(1),
        &create(3, |key| (key.scopes, key.owner) = (None, Some(account_id(2).into()))),
    );
    world.must(ACME, by(1), &grant(10, account_id(2), own_role(10), None, None));
    let there = Some("a.example");
    world.must(ACME, by(1), &grant(11, account_id(2), own_role(11), there, Some(1_000)));
    let caller = by_owned(&world, 3);
    let not_held = || Err(Rejection::PermissionNotHeld("dns:write".into()));
    let give = |domain, lifetime| grant(12, account_id(1), own_role(11), domain, lifetime);
    world.check(caller, &give(there, Some(1_000)), Ok(&["RoleGranted"]));
    for (domain, lifetime) in [
        (there, None),
        (there, Some(1_001)),
        (None, Some(1_000)),
        (Some("b.example"), Some(1_000)),
        (Some("x.a.example"), Some(1_000)),
    ] {
        world.check(caller, &give(domain, lifetime), not_held());
    }
    // Everywhere is more than there: no role, no account and no key of the organization's.
    world.check(caller, &role_draft(12, &["dns:write"]), not_held());
    world.check(caller, &create(4, |key| key.scopes = scopes(&["dns:write"])), not_held());
    // What is for a time is no key's that lasts longer.
    let role = Rejection::PermissionNotHeld("dns:write".into());
    let for_good = grant(13, account_id(2), own_role(11), None, Some(1_000));
    world.must(ACME, by(1), &for_good);
    let lasting = |expiry| {
        create(4, move |key| {
            key.scopes = scopes(&["dns:write"]);
            key.expiry = expiry;
        })
    };
    world.check(caller, &lasting(Expiry::After(1_000)), Ok(&["KeyCreated"]));
    world.check(caller, &lasting(Expiry::After(1_001)), Err(role.clone()));
    world.check(caller, &lasting(Expiry::PlanDefault), Err(role.clone()));
    world.check(caller, &role_draft(12, &["dns:write"]), Err(role.clone()));
    let made = Command::CreateServiceAccount(Box::new(ServiceAccountCreated {
        service_account_id: account_id(9),
        name: "nine".parse().unwrap(),
        description: None,
        roles: vec![own_role(11)],
    }));
    world.check(caller, &made, Err(role));
}

#[test]
fn roles_and_grants_are_refused_by_their_reason() {
    let mut world = with_roles();
    world.must(ACME, by(1), &role_draft(10, &["dns:read"]));
    let named = |name: &str| {
        let Command::CreateRole(mut draft) = role_draft(11, &["dns:read"]) else { panic!() };
        draft.name = name.parse().unwrap();
        Command::CreateRole(draft)
    };
    let taken = Rejection::RoleNameTaken("own-10".into());
    world.check(by(1), &named("own-10"), Err(taken));
    for reserved in ["admin", "operator-admin", "dns-manager"] {
        let expected = Err(Rejection::RoleNameReserved(reserved.into()));
        world.check(by(1), &named(reserved), expected);
    }
    for id in [role(2), role(6)] {
        let expected = || Err(Rejection::RoleIsBuiltIn(id));
        world.check(by(1), &edit_role(id, &["dns:read"]), expected());
        world.check(by(1), &Command::RetireRole(id), expected());
    }
    let give = |role_id| grant(10, account_id(1), role_id, None, None);
    for id in [own_role(99), built_in::OPERATOR_ADMIN] {
        for command in [edit_role(id, &["a:b"]), Command::RetireRole(id), give(id)] {
            world.check(by(1), &command, Err(Rejection::NoSuchRole(id)));
        }
    }
    let nobody = grant(10, account_id(99), own_role(10), None, None);
    world.check(by(1), &nobody, Err(Rejection::ServiceAccountNotFound(account_id(99))));
    for principal in [Principal::Ledger, Principal::Organization(ACME)] {
        let Command::GrantRole(mut command) = give(own_role(10)) else { panic!() };
        command.principal = principal;
        world.check(by(1), &Command::GrantRole(command), Err(Rejection::NotGrantable));
    }
    let missing = || Err(Rejection::GrantNotFound(grant_id(10)));
    world.check(by(1), &Command::RevokeGrant(grant_id(10)), missing());
    let over = grant(10, account_id(1), own_role(10), None, Some(0));
    world.check(by(1), &over, Err(Rejection::ExpiryNotInFuture));
    // A second one must add something: another domain, or a longer time.
    let within =
        |number, domain, lifetime| grant(number, account_id(1), own_role(10), domain, lifetime);
    world.must(ACME, by(1), &within(10, None, Some(1_000)));
    let exists = || Err(Rejection::GrantExists(grant_id(10)));
    world.check(by(1), &within(11, None, Some(1_000)), exists());
    world.check(by(1), &within(11, None, Some(999)), exists());
    world.check(by(1), &within(11, None, Some(1_001)), Ok(&["RoleGranted"]));
    world.check(by(1), &within(11, Some("a.example"), None), Ok(&["RoleGranted"]));
    world.now += 1_000;
    world.check(by(1), &Command::RevokeGrant(grant_id(10)), missing());
    world.check(by(1), &within(11, None, Some(1)), Ok(&["RoleGranted"]));
    for number in 0..GRANTS_MAX {
        let domain = format!("d{number}.example");
        let number = u8::try_from(number).unwrap() + 20;
        let one_more = grant(number, account_id(1), own_role(10), Some(&domain), None);
        world.must(ACME, by(1), &one_more);
    }
    let who = Principal::ServiceAccount(account_id(1));
    world.check(by(1), &within(11, None, None), Err(Rejection::TooManyGrants(who)));
    // A retired role is nobody's to change, to have or to name: its name is free again.
    world.must(ACME, by(1), &Command::RetireRole(own_role(10)));
    let retired = || Err(Rejection::RoleIsRetired(own_role(10)));
    for command in [
        edit_role(own_role(10), &["a:b"]),
        Command::RetireRole(own_role(10)),
        within(200, None, None),
        create(5, |key| key.roles = vec![own_role(10)]),
    ] {
        world.check(by(1), &command, retired());
    }
    world.check(by(1), &named("own-10"), Ok(&["RoleCreated"]));
}

/// An edit that changes nothing says what the role means, and so is for those who may give it.
#[test]
fn what_a_role_means_is_told_to_nobody_by_an_edit() {
    let mut world = with_roles();
    world.must(ACME, by(1), &role_draft(11, &["dns:*"]));
    let nothing = Command::UpdateRole(Box::new(UpdateRole {
        role_id: own_role(11),
        name: None,
        description: None,
        permissions: None,
    }));
    world.check(by(1), &nothing, Ok(&["done"]));
    world.check(by(2), &nothing, Err(Rejection::PermissionNotHeld("dns:*".into())));
    world.must(ACME, by(1), &Command::RetireRole(own_role(11)));
    let retired = world.acme.role(own_role(11)).unwrap();
    assert_eq!((retired.description.as_ref(), retired.permissions.len()), (None, 0));
    assert_eq!(retired.name.as_str(), "own-11");
}

#[test]
fn an_organization_has_so_many_roles_of_its_own_and_makes_no_more_than_so_many() {
    let mut world = with_roles();
    let id = |number: usize| RoleId::from_parts(NOW.unsigned_abs(), number as u128);
    let make = |number: usize| {
        Command::CreateRole(Box::new(CreateRole {
            role_id: id(number),
            name: format!("role-{number}").parse().unwrap(),
            description: "a role".parse().unwrap(),
            permissions: patterns(&["dns:read"]),
        }))
    };
    for number in 0..OWN_ROLES_MAX {
        world.must(ACME, by(1), &make(number));
    }
    world.check(by(1), &make(OWN_ROLES_MAX), Err(Rejection::TooManyRoles));
    for number in OWN_ROLES_MAX..ROLES_MADE_MAX {
        world.must(ACME, by(1), &Command::RetireRole(id(number - 1)));
        world.must(ACME, by(1), &make(number));
    }
    world.must(ACME, by(1), &Command::RetireRole(id(0)));
    world.check(by(1), &make(ROLES_MADE_MAX), Err(Rejection::TooManyRolesMade));
    world.check(by(1), &edit_role(id(1), &["dns:write"]), Ok(&["RoleUpdated"]));
}

/// Roles bind live keys, and keys for any service: who is limited to less defines none.
#[test]
fn a_limited_key_defines_and_grants_nothing() {
    let mut world = with_roles();
    world.must(ACME, by(1), &role_draft(10, &["dns:read"]));
    world.must(ACME, by(1), &grant(10, account_id(1), own_role(10), None, None));
    let limited = |number, otherwise: fn(&mut CreateKey)| {
        create(number, |key| {
            key.scopes = scopes(&["roles:write", "dns:read"]);
            otherwise(key);
        })
    };
    world.must(ACME, by(1), &limited(3, |key| key.environment = Some(Environment::Test)));
    let services = |key: &mut CreateKey| key.services = Some(vec!["keyledger".parse().unwrap()]);
    world.must(ACME, by(1), &limited(4, services));
    world.must(
        ACME,
        by(1),
        &create(5, |key| {
            key.scopes = scopes(&["service-accounts:write", "dns:read"]);
            key.services = Some(vec!["keyledger".parse().unwrap()]);
        }),
    );
    world.must(
        ACME,
        by(1),
        &create(6, |key| {
            key.scopes = scopes(&["service-accounts:write", "dns:read"]);
            key.environment = Some(Environment::Test);
        }),
    );
    let bot = |roles: &[u8]| {
        let Command::CreateServiceAccount(mut bot) = account(9, &[]) else { panic!() };
        bot.roles = roles.iter().map(|number| own_role(*number)).collect();
        Command::CreateServiceAccount(bot)
    };
    world.check(by(5), &bot(&[10]), Err(Rejection::ServiceNotHeld));
    world.check(by(6), &bot(&[10]), Err(Rejection::EnvironmentNotHeld));
    world.check(by(5), &bot(&[]), Ok(&["ServiceAccountCreated"]));
    let giving = [
        role_draft(11, &["dns:read"]),
        edit_role(own_role(10), &["roles:write"]),
        grant(11, account_id(1), own_role(10), Some("a.example"), None),
    ];
    for command in &giving {
        world.check(by(3), command, Err(Rejection::EnvironmentNotHeld));
        world.check(by(4), command, Err(Rejection::ServiceNotHeld));
    }
    for command in [Command::RetireRole(own_role(10)), Command::RevokeGrant(grant_id(10))] {
        world.check(by(3), &command, Err(Rejection::EnvironmentNotHeld));
        assert!(world.decide(ACME, by(4), &command).is_ok(), "it only takes away");
    }
}

/// A step of a random history: who acts, and on what.
#[derive(Clone, Debug)]
enum Step {
    Create { name: u8, scopes: Vec<&'static str>, role: u8, owned: bool, lifetime: i64, test: bool },
    Account { roles: Vec<u8> },
    Rotate { key: u8, grace: i64, lifetime: Option<i64> },
    EndRotation(u8),
    Disable(u8),
    Enable(u8),
    Relabel { key: u8, name: u8 },
    Revoke(u8),
    RevokeMany(Vec<u8>),
    Policy { lifetime: Option<u32> },
    Role { permissions: Vec<&'static str> },
    EditRole { role: u8, permissions: Vec<&'static str> },
    RetireRole(u8),
    Grant { account: u8, role: u8, domain: Option<&'static str>, lifetime: Option<i64> },
    RevokeGrant(u8),
    Invite { email: u8, role: u8, lifetime: Option<i64> },
    Renew(u8),
    Suspend(u8),
    Restore(u8),
    Remove(u8),
    UserKey { user: u8, scopes: Vec<&'static str>, lifetime: i64, test: bool },
    GrantUser { user: u8, role: u8, domain: Option<&'static str>, lifetime: Option<i64> },
    Wait(i64),
}

fn arb_step() -> impl Strategy<Value = (Option<u8>, Step)> {
    let permissions = prop::sample::subsequence(
        vec!["api-keys:write", "dns:read", "dns:write", "cache:purge", "org:admin"],
        0..3,
    );
    let user_scopes = prop::sample::subsequence(
        vec![
            "api-keys:write",
            "users:write",
            "dns:read",
            "dns:write",
            "cache:purge",
            "routing:write",
        ],
        0..3,
    );
    let role_permissions = || {
        prop::sample::subsequence(
            vec![
                "roles:write",
                "users:write",
                "dns:read",
                "dns:write",
                "dns:*",
                "cache:purge",
                "routing:*",
                "*:read",
                "org:admin",
                "*:*",
            ],
            1..3,
        )
    };
    let key = || 0..16_u8;
    // Few, so that keys want the same one.
    let name = || 0..4_u8;
    let step = prop_oneof![
        6 => (
            name(),
            permissions,
            prop_oneof![2 => Just(0), 1 => 1..10_u8],
            prop::bool::weighted(0.3),
            1..4_000_000_i64,
            any::<bool>(),
        )
            .prop_map(|(name, scopes, role, owned, lifetime, test)| {
                Step::Create { name, scopes, role, owned, lifetime, test }
            }),
        1 => prop::collection::vec(2..10_u8, 0..3).prop_map(|roles| Step::Account { roles }),
        3 => (key(), 0..4_000_000_i64, prop::option::of(1..4_000_000_i64))
            .prop_map(|(key, grace, lifetime)| Step::Rotate { key, grace, lifetime }),
        1 => key().prop_map(Step::EndRotation),
        2 => key().prop_map(Step::Disable),
        2 => key().prop_map(Step::Enable),
        3 => (key(), name()).prop_map(|(key, name)| Step::Relabel { key, name }),
        2 => key().prop_map(Step::Revoke),
        1 => prop::collection::vec(key(), 1..4).prop_map(Step::RevokeMany),
        1 => prop::option::of(1_000..4_000_u32).prop_map(|lifetime| Step::Policy { lifetime }),
        2 => role_permissions().prop_map(|permissions| Step::Role { permissions }),
        3 => (key(), role_permissions())
            .prop_map(|(role, permissions)| Step::EditRole { role, permissions }),
        1 => key().prop_map(Step::RetireRole),
        4 => (
            key(),
            key(),
            prop::option::of(prop_oneof![Just("a.example"), Just("b.example")]),
            prop::option::of(1..20_000_000_i64),
        )
            .prop_map(|(account, role, domain, lifetime)| {
                Step::Grant { account, role, domain, lifetime }
            }),
        1 => key().prop_map(Step::RevokeGrant),
        2 => (0..6_u8, key(), prop::option::of(1..20_000_000_i64))
            .prop_map(|(email, role, lifetime)| Step::Invite { email, role, lifetime }),
        1 => key().prop_map(Step::Renew),
        2 => key().prop_map(Step::Suspend),
        3 => key().prop_map(Step::Restore),
        1 => key().prop_map(Step::Remove),
        6 => (key(), user_scopes, 1..4_000_000_i64, prop::bool::weighted(0.2)).prop_map(
            |(user, scopes, lifetime, test)| Step::UserKey { user, scopes, lifetime, test }
        ),
        4 => (
            key(),
            key(),
            prop::option::of(prop_oneof![Just("a.example"), Just("b.example")]),
            prop::option::of(1..20_000_000_i64),
        )
            .prop_map(|(user, role, domain, lifetime)| {
                Step::GrantUser { user, role, domain, lifetime }
            }),
        1 => (1..400_000_i64).prop_map(Step::Wait),
    ];
    // Mostly whoever may do something.
    (prop::option::weighted(0.4, key()), step)
}

const ASKED: [&str; 10] = [
    "dns:read",
    "dns:write",
    "cache:purge",
    "api-keys:write",
    "service-accounts:write",
    "policy:write",
    "org:admin",
    "billing:read",
    "x:y",
    "routing:write",
];

/// The number of a key that there is. 0, with which most is done, is left alone.
fn there(world: &World, number: u8) -> u8 {
    let numbers = world.acme.keys_after(None).map(|key| key.id.to_bytes()[0]);
    let others: Vec<u8> = numbers.filter(|other| *other != 0).collect();
    if others.is_empty() { number } else { others[usize::from(number) % others.len()] }
}

fn own_role(number: u8) -> RoleId {
    RoleId::from_bytes([number; 16])
}

/// A role that there is, of the organization's own or a built-in one.
fn some_role(world: &World, number: u8) -> RoleId {
    let own: Vec<RoleId> = world.acme.roles().map(|it| it.id).collect();
    let all: Vec<RoleId> = own.into_iter().chain((2..10).map(role)).collect();
    all[usize::from(number) % all.len()]
}

fn some_account(world: &World, number: u8) -> ServiceAccountId {
    let all: Vec<_> = world.acme.service_accounts_after(None).map(|it| it.id).collect();
    all[usize::from(number) % all.len()]
}

fn patterns(texts: &[&str]) -> Vec<PermissionPattern> {
    PermissionPattern::list(texts).unwrap()
}

fn role_draft(number: u8, permissions: &[&str]) -> Command {
    Command::CreateRole(Box::new(CreateRole {
        role_id: own_role(number),
        name: format!("own-{number}").parse().unwrap(),
        description: "a role".parse().unwrap(),
        permissions: patterns(permissions),
    }))
}

fn edit_role(role_id: RoleId, permissions: &[&str]) -> Command {
    Command::UpdateRole(Box::new(UpdateRole {
        role_id,
        name: None,
        description: None,
        permissions: Some(patterns(permissions)),
    }))
}

fn grant_id(number: u8) -> GrantId {
    GrantId::from_bytes([number; 16])
}

fn grant(
    number: u8,
    account: ServiceAccountId,
    role_id: RoleId,
    domain: Option<&str>,
    lifetime: Option<i64>,
) -> Command {
    Command::GrantRole(Box::new(GrantRole {
        grant_id: grant_id(number),
        principal: Principal::ServiceAccount(account),
        role_id,
        domain: domain.map(|it| it.parse().unwrap()),
        expiry: lifetime.map(Expiry::After),
    }))
}

/// What somebody may come to hold: where, and when.
type Held = (String, &'static str, Option<&'static str>, Timestamp);

/// What this authority comes to at an instant.
fn held_by(authority: Authority<'_>, at: Timestamp, who: &str) -> Vec<Held> {
    let mut held = Vec::new();
    for domain in [None, Some("a.example"), Some("b.example")] {
        let there = authority.over(domain);
        let texts = PROBED.iter().filter(|text| there.holds(Permission::parse(text).unwrap()));
        held.extend(texts.map(|text| (who.to_owned(), *text, domain, at)));
    }
    held
}

/// Everything that the service accounts hold, and the keys in force whose roles are their
/// own, now and later.
fn holdings(world: &World) -> std::collections::BTreeSet<Held> {
    let (acme, operator) = (&world.acme, &world.operator);
    let mut held = std::collections::BTreeSet::new();
    for then in [world.now, world.now + 3_000_000, i64::from(u32::MAX) * 1_000].map(at) {
        for account in acme.service_accounts_after(None) {
            let authority = Authority::of_owner(account.id.into(), acme, operator, then);
            held.extend(held_by(authority, then, &account.id.text()));
        }
        for user in acme.users_after(None) {
            let authority = Authority::of_owner(user.id.into(), acme, operator, then);
            held.extend(held_by(authority, then, &user.id.text()));
        }
        for key in acme.keys_after(None).filter(|key| key.state(then) == KeyState::Active) {
            let authority = Authority::of(key, acme, operator, then);
            held.extend(held_by(authority, then, &key.id.text()));
        }
    }
    held
}

const PROBED: [&str; 7] = [
    "users:write",
    "dns:read",
    "dns:write",
    "cache:purge",
    "roles:write",
    "routing:write",
    "org:admin",
];

fn some_user(world: &World, number: u8) -> UserId {
    let all: Vec<_> = world.acme.users_after(None).map(|it| it.id).collect();
    all[usize::from(number) % all.len()]
}

/// The command of a step; `next` is the number of the key that it may make.
fn command_of(world: &World, step: Step, next: u8) -> Option<Command> {
    let there = |number| there(world, number);
    Some(match step {
        Step::Wait(_) => return None,
        Step::Create { name, scopes: wanted, role: wanted_role, owned, lifetime, test } => {
            create(next, |key| {
                key.name = format!("key {name}").parse().unwrap();
                key.scopes = (!wanted.is_empty()).then(|| Scopes::new(&wanted).unwrap());
                let role = (wanted_role > 0 && !owned).then(|| some_role(world, wanted_role));
                key.roles = role.into_iter().collect();
                key.owner = owned.then(|| account_id(1 + wanted_role % 2).into());
                key.expiry = Expiry::After(lifetime);
                let environment = if test { Environment::Test } else { Environment::Live };
                key.environment = Some(environment);
            })
        }
        Step::Account { roles } => account(next, &roles),
        Step::Rotate { key, grace, lifetime } => rotate(there(key), next, |command| {
            command.grace_ms = Some(grace);
            command.expiry = lifetime.map(Expiry::After);
        }),
        Step::EndRotation(key) => Command::EndRotation(key_id(there(key))),
        Step::Disable(key) => Command::DisableKey(key_id(there(key))),
        Step::Enable(key) => Command::EnableKey(key_id(there(key))),
        Step::Relabel { key, name } => Command::UpdateKeyLabel(UpdateKeyLabel {
            key_id: key_id(there(key)),
            name: format!("key {name}").parse().ok(),
            description: None,
        }),
        Step::Revoke(key) => revoke(there(key)),
        Step::RevokeMany(keys) => {
            let which = WhichKeys::Listed(keys.into_iter().map(|key| key_id(there(key))).collect());
            Command::RevokeKeys(RevokeKeys { which, reason: RevocationReason::KeyCompromise })
        }
        Step::Role { permissions } => role_draft(next, &permissions),
        Step::EditRole { role, permissions } => edit_role(some_role(world, role), &permissions),
        Step::RetireRole(role) => Command::RetireRole(some_role(world, role)),
        Step::Grant { account, role, domain, lifetime } => {
            let (account, role) = (some_account(world, account), some_role(world, role));
            grant(next, account, role, domain, lifetime)
        }
        Step::RevokeGrant(number) => {
            let all: Vec<_> = world.acme.grants_after(None).map(|it| it.id).collect();
            Command::RevokeGrant(*all.get(usize::from(number) % all.len().max(1))?)
        }
        Step::Invite { email, role, lifetime } => {
            let role = some_role(world, role);
            let Command::InviteUser(mut invited) = people::invite(next, email, &[role]) else {
                return None;
            };
            for grant in &mut invited.grants {
                grant.grant_id = grant_id(next);
                grant.expiry = lifetime.map(Expiry::After);
            }
            Command::InviteUser(invited)
        }
        Step::Renew(user) => people::renew(some_user(world, user)),
        Step::Suspend(user) => Command::SuspendUser(some_user(world, user)),
        Step::Restore(user) => Command::RestoreUser(some_user(world, user)),
        Step::Remove(user) => Command::RemoveUser(some_user(world, user)),
        Step::UserKey { user, scopes: wanted, lifetime, test } => create(next, |key| {
            key.name = format!("key {next}").parse().unwrap();
            key.scopes = (!wanted.is_empty()).then(|| Scopes::new(&wanted).unwrap());
            key.owner = Some(some_user(world, user).into());
            key.expiry = Expiry::After(lifetime);
            let environment = if test { Environment::Test } else { Environment::Live };
            key.environment = Some(environment);
        }),
        Step::GrantUser { user, role, domain, lifetime } => {
            let (user, role) = (some_user(world, user), some_role(world, role));
            let grant = people::to_user(next, 0, role, domain, lifetime, |_| user);
            Command::GrantRole(Box::new(grant))
        }
        Step::Policy { lifetime } => Command::UpdatePolicy(Policy {
            key_lifetime_max_seconds: lifetime,
            ..Policy::default()
        }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No sequence of commands revives a revoked key, makes one outlive its plan or its
    /// organization's policy, gives a key a permission that whoever brought it into force
    /// did not hold, or gives two active keys one name.
    #[test]
    fn no_sequence_of_commands_breaks_the_rules(
        steps in prop::collection::vec(arb_step(), 1..100),
    ) {
        let mut world = World::on("free");
        world.must(ACME, Caller::Ledger, &account(1, &[6]));
        world.must(ACME, Caller::Ledger, &account(2, &[]));
        world.must(ACME, Caller::Ledger, &create(0, |key| {
            key.scopes = scopes(&[
                "api-keys:write",
                "cache:purge",
                "dns:read",
                "policy:write",
                "roles:write",
                "service-accounts:write",
                "users:write",
            ]);
        }));
        // Somebody who holds something for a time, and something for one domain.
        let all = ["roles:write", "api-keys:write", "service-accounts:write", "dns:write"];
        world.must(ACME, Caller::Ledger, &role_draft(250, &all));
        world.must(ACME, Caller::Ledger, &role_draft(251, &["routing:*", "cache:purge"]));
        let hours_2 = Some(7_200_000);
        let by_grant = grant(250, account_id(2), own_role(250), None, hours_2);
        world.must(ACME, Caller::Ledger, &by_grant);
        let by_grant = grant(251, account_id(2), own_role(251), Some("a.example"), None);
        world.must(ACME, Caller::Ledger, &by_grant);
        world.must(ACME, Caller::Ledger, &create(1, |key| {
            key.scopes = None;
            key.owner = Some(account_id(2).into());
        }));
        // And a user, with what they made of it.
        world.must(ACME, Caller::Ledger, &people::invite(1, 1, &[]));
        let user = |number, role, domain, lifetime| {
            let to_user = |_| UserId::from_bytes([1; 16]);
            let grant = people::to_user(number, 0, role, domain, lifetime, to_user);
            Command::GrantRole(Box::new(grant))
        };
        world.must(ACME, Caller::Ledger, &role_draft(252, &["users:write", "dns:write"]));
        world.must(ACME, Caller::Ledger, &user(252, own_role(252), None, hours_2));
        world.must(ACME, Caller::Ledger, &user(253, own_role(251), Some("a.example"), None));
        world.must(ACME, Caller::Ledger, &create(2, |key| {
            key.scopes = None;
            key.owner = Some(UserId::from_bytes([1; 16]).into());
        }));
        let mut number = 3_u8;
        let mut removed = std::collections::BTreeSet::new();
        let mut revoked = std::collections::BTreeSet::new();
        for (caller, step) in steps {
            if let Step::Wait(millis) = step {
                world.now += millis;
                continue;
            }
            let Some(command) = command_of(&world, step, number + 1) else { continue };
            let caller = by_owned(&world, caller.map_or(0, |number| there(&world, number)));
            let Ok(Decided::Events(events)) = world.decide(ACME, caller, &command) else { continue };
            number += 1;
            let before = world.clone();
            world.fold(ACME, &events, None);
            let now = at(world.now);
            let Caller::Key { key_id: maker, .. } = caller else { unreachable!() };
            let maker = before.acme.key(maker).unwrap();
            prop_assert_eq!(maker.state(now), KeyState::Active);
            // Nobody holds anything, anywhere, at any time, that they did not hold before,
            // unless whoever did this holds it there and then.
            let had = holdings(&before);
            for gained in holdings(&world).difference(&had) {
                let (who, text, domain, then) = gained;
                let maker = Authority::of(maker, &before.acme, &before.operator, *then);
                let held = maker.over(*domain).holds(Permission::parse(text).unwrap());
                prop_assert!(held, "{who} gained {text} {domain:?} at {then}: {events:?}");
            }
            let maker = Authority::of(maker, &before.acme, &before.operator, now);
            for event in &events {
                let came_into_force = match event {
                    Event::KeyRevoked(event) => {
                        revoked.insert(event.key_id);
                        None
                    }
                    Event::KeyRotationEnded(event) => {
                        revoked.insert(event.key_id);
                        None
                    }
                    Event::KeyRotated(event) => {
                        let old = world.acme.key(event.key_id).unwrap();
                        if event.ends_at <= now {
                            prop_assert_eq!(old.state(at(NOW)), KeyState::Revoked);
                        }
                        None
                    }
                    Event::KeyCreated(event) => {
                        let made = world.acme.key(event.key_id).unwrap();
                        let policy = before.acme.policy().key_lifetime_max_seconds;
                        let longest = policy.unwrap_or(3_600).min(3_600);
                        let latest = now.saturating_add_millis(i64::from(longest) * 1_000);
                        prop_assert!(made.expires_at().unwrap() <= latest);
                        Some(event.key_id)
                    }
                    Event::KeyEnabled(event) => Some(event.key_id),
                    Event::KeyRelabelled(_)
                    | Event::KeyDisabled(_)
                    | Event::PolicyUpdated(_) => None,
                    Event::ServiceAccountCreated(event) => {
                        for id in &event.roles {
                            let role = world.acme.role(*id).or_else(|| world.operator.role(*id));
                            for pattern in role.unwrap().permissions() {
                                prop_assert!(maker.covers(pattern), "{pattern}");
                            }
                        }
                        None
                    }
                    Event::RoleCreated(RoleCreated { definition, .. })
                    | Event::RoleUpdated(RoleUpdated { definition, .. }) => {
                        for pattern in &definition.permissions {
                            prop_assert!(maker.covers(pattern), "{pattern}");
                        }
                        None
                    }
                    Event::RoleRetired(_) | Event::RoleGranted(_) | Event::GrantRevoked(_) => None,
                    Event::UserRemoved(event) => {
                        removed.insert(event.user_id);
                        None
                    }
                    Event::UserInvited(_)
                    | Event::InvitationRenewed(_)
                    | Event::UserJoined(_)
                    | Event::UserUpdated(_)
                    | Event::UserSuspended(_)
                    | Event::UserRestored(_)
                    | Event::SessionStarted(_)
                    | Event::SessionSteppedUp(_)
                    | Event::SessionEnded(_) => None,
                    Event::DenialsSummarized(_)
                    | Event::HistoryRead(_)
                    | Event::UsageRecorded(_)
                    | Event::EmailReserved(_)
                    | Event::EmailConfirmed(_)
                    | Event::EmailReleased(_)
                    | Event::AccountCreated(_)
                    | Event::PasswordSet(_)
                    | Event::TotpEnrolled(_)
                    | Event::TotpRemoved(_)
                    | Event::RecoveryCodesReplaced(_)
                    | Event::RecoveryCodeUsed(_)
                    | Event::SessionsEnded(_)
                    | Event::AccountLocked(_)
                    | Event::DefaultOrganizationSet(_)
                    | Event::BreakGlassConfigured(_)
                    | Event::BreakGlassOpened(_)
                    | Event::BreakGlassApproved(_)
                    | Event::BreakGlassUsed(_)
                    | Event::BreakGlassRefused(_)
                    | Event::BreakGlassEnded(_)
                    | Event::BreakGlassEscalated(_)
                    | Event::BreakGlassReviewed(_)
 | Event::PasswordResetIssued(_)
                    | Event::InstallationCreated(_)
                    | Event::SchemaActivated(_)
                    | Event::PlanDefined(_)
                    | Event::PermissionRuleDefined(_)
                    | Event::PermissionRuleRemoved(_)
                    | Event::BuiltInRoleDefined(_)
                    | Event::OrganizationRegistered(_)
                    | Event::PepperRotated(_)
                    | Event::SigningKeyAdded(_)
                    | Event::SigningKeyRetired(_)
                    | Event::OrganizationCreated(_) => {
                        prop_assert!(false, "{event:?}");
                        None
                    }
                };
                let Some(id) = came_into_force else { continue };
                let made = world.acme.key(id).unwrap();
                let made = Authority::of(made, &world.acme, &world.operator, now);
                for text in ASKED {
                    let permission = Permission::parse(text).unwrap();
                    prop_assert!(!made.holds(permission) || maker.holds(permission), "{text}");
                }
            }
            if !matches!(events.first(), Some(Event::PolicyUpdated(_))) {
                prop_assert_eq!(world.acme.policy(), before.acme.policy());
            } else {
                prop_assert!(world.acme.policy().is_as_tight_as(before.acme.policy()));
            }
            for id in &revoked {
                // Whatever the clock says.
                for now in [now, at(NOW)] {
                    prop_assert_eq!(world.acme.key(*id).unwrap().state(now), KeyState::Revoked);
                }
            }
            for id in &removed {
                prop_assert_eq!(world.acme.user(*id).unwrap().state(), UserState::Removed);
                prop_assert!(world.acme.grants_of(Principal::User(*id)).is_empty());
                prop_assert_eq!(world.acme.keys_of((*id).into(), now).count(), 0);
            }
            let active: Vec<_> =
                world.acme.keys_after(None).filter(|key| key.state(now) == KeyState::Active).collect();
            for (place, a) in active.iter().enumerate() {
                for b in active.iter().skip(place + 1).filter(|b| b.name == a.name) {
                    prop_assert!(world.acme.in_one_rotation(a, b), "{:?} {:?}", a.id, b.id);
                }
            }
        }
    }
}

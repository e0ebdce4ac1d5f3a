//! Every wrong of every kind of credential, alone and with every other; and what permissions
//! ask for beside being held.

use super::*;
use crate::event::{
    AuthenticationMethod, GrantTerms, PermissionRule, PermissionRuleDefined, PermissionRuleRemoved,
    PlanDefined, PlanRules, RoleGranted, SessionEndReason, SessionEnded, SessionStarted,
    UserInvited, UserJoined, UserSuspended,
};
use crate::sample::{account_id, session_id, user_id};

/// Whose credential is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OrganizationKey,
    ServiceAccountKey,
    UserKey,
    Session,
}

impl Kind {
    /// All that can be wrong with it, in order of precedence.
    fn wrongs(self) -> Vec<Code> {
        let all = [
            Code::TenantMismatch,
            Code::Revoked,
            Code::Disabled,
            Code::Expired,
            Code::Suspended,
            Code::IpNotAllowed,
            Code::WrongEnvironment,
            Code::ServiceNotAllowed,
            Code::PermissionDenied,
            Code::DomainNotAllowed,
            Code::FeatureNotLicensed,
            Code::MfaRequired,
        ];
        let cannot: &[Code] = match self {
            Self::OrganizationKey => &[Code::Suspended, Code::DomainNotAllowed],
            Self::ServiceAccountKey => &[Code::Suspended],
            Self::UserKey => &[],
            Self::Session => &[Code::Disabled, Code::IpNotAllowed, Code::ServiceNotAllowed],
        };
        all.into_iter().filter(|code| !cannot.contains(code)).collect()
    }

    fn owner(self) -> Option<Owner> {
        match self {
            Self::OrganizationKey => None,
            Self::ServiceAccountKey => Some(service_account_id(1).into()),
            Self::UserKey | Self::Session => Some(user_id(1).into()),
        }
    }
}

fn granted_to(owner: Owner, number: u8, role: u8, domain: Option<&str>) -> Event {
    let terms = GrantTerms {
        principal: owner.principal(),
        role_id: role_id(role),
        domain: domain.map(|it| it.parse().unwrap()),
        expires_at: None,
    };
    RoleGranted { grant_id: grant_id(number), terms }.into()
}

fn person() -> [Event; 2] {
    let invited = UserInvited {
        user_id: user_id(1),
        email: crate::digest::EmailDigest([1; 32]),
        expires_at: at(60_000),
        limits: Default::default(),
        token: None,
    };
    [
        invited.into(),
        UserJoined { user_id: user_id(1), account_id: account_id(1), email_proven: false }.into(),
    ]
}

fn started(methods: &[AuthenticationMethod], expires_at: i64) -> Event {
    SessionStarted {
        session_id: session_id(1),
        user_id: user_id(1),
        account_id: account_id(1),
        epoch: 3,
        methods: methods.to_vec(),
        expires_at: at(expires_at),
    }
    .into()
}

/// What the installation defines: a role for all that is wanted, and two rules.
fn installation() -> Organization {
    let rule = |pattern: &str, mfa: Option<MfaRule>, feature: Option<&str>| {
        let feature = feature.map(|it| it.parse().unwrap());
        defined(pattern, PermissionRule { mfa, feature })
    };
    operator(&[
        role_defined(1, &["dns:read", "sso:use", "users:write"]),
        role_defined(2, &["zones:read"]),
        rule("users:write", Some(MfaRule::default()), None),
        rule("sso:*", None, Some("sso")),
    ])
}

fn defined(pattern: &str, rule: PermissionRule) -> Event {
    let permission = pattern.parse().unwrap();
    PermissionRuleDefined { permission, rule, before: None }.into()
}

/// The answer about a credential with which all of this is wrong.
fn with_all(kind: Kind, wrongs: &[Code]) -> Code {
    let is = |code| wrongs.contains(&code);
    let mut events = vec![created(), service_account_created(1, &[])];
    events.extend(person());
    if let Some(owner) = kind.owner() {
        events.push(granted_to(owner, 1, 1, None));
        events.push(granted_to(owner, 2, 2, Some("example.com")));
    }
    if kind == Kind::Session {
        let end = if is(Code::Expired) { 50 } else { 60_000 };
        events.push(started(&[AuthenticationMethod::Password], end));
    } else {
        events.push(key_created(1, |key| {
            key.scopes = None;
            key.owner = kind.owner();
            key.roles = if key.owner.is_none() { vec![role_id(1)] } else { Vec::new() };
            key.expires_at = is(Code::Expired).then(|| at(50));
            key.allowed_ips = Networks::new(&["192.0.2.0/24"]).ok();
            key.services = is(Code::ServiceNotAllowed).then(|| vec!["cdn".parse().unwrap()]);
        }));
    }
    if is(Code::Disabled) {
        events.push(key_disabled(1));
    }
    if is(Code::Suspended) {
        events.push(UserSuspended { user_id: user_id(1) }.into());
    }
    if is(Code::Revoked) && kind != Kind::Session {
        events.push(key_revoked(1));
    }
    let (organization, operator) = (tables(ACME, &events), installation());
    let mut wanted = vec!["dns:read"];
    for (code, permission) in [
        (Code::MfaRequired, "users:write"),
        (Code::FeatureNotLicensed, "sso:use"),
        (Code::DomainNotAllowed, "zones:read"),
        (Code::PermissionDenied, "dns:write"),
    ] {
        wanted.extend(is(code).then_some(permission));
    }
    let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    let ip = if is(Code::IpNotAllowed) { "198.51.100.7" } else { "192.0.2.7" };
    let environment =
        if is(Code::WrongEnvironment) { Environment::Test } else { Environment::Live };
    let question = Question {
        tenant: is(Code::TenantMismatch).then_some(OrganizationId::OPERATOR),
        permissions: Wanted::new(&wanted).unwrap(),
        service: Some("dns"),
        domain: Some("other.example"),
        environment: Some(environment),
        client_ip: ip.parse().ok(),
        now: at(100),
    };
    match organization.session(session_id(1)) {
        Some(session) => {
            let epoch = if is(Code::Revoked) { 4 } else { 3 };
            let standing = Some(Standing { epoch, kept: None });
            decide_session(session, standing, Timestamp::MAX, &organization, &operator, &question)
                .code
        }
        None => {
            let key = organization.key(key_id(1)).unwrap();
            decide(key, &organization, &operator, &question).code
        }
    }
}

#[test]
fn of_whatever_is_wrong_the_first_is_the_answer() {
    for kind in [Kind::OrganizationKey, Kind::ServiceAccountKey, Kind::UserKey, Kind::Session] {
        let wrongs = kind.wrongs();
        assert!(wrongs.is_sorted(), "codes stand in order of precedence");
        assert_eq!(with_all(kind, &[]), Code::Allowed, "{kind:?}");
        for (place, first) in wrongs.iter().enumerate() {
            assert_eq!(with_all(kind, &[*first]), *first, "{kind:?}");
            let later = wrongs.get(place + 1..).unwrap();
            for second in later {
                assert_eq!(with_all(kind, &[*second, *first]), *first, "{kind:?} {second:?}");
            }
            let all: Vec<Code> = wrongs.get(place..).unwrap().to_vec();
            assert_eq!(with_all(kind, &all), *first, "{kind:?}");
        }
    }
}

/// Nothing of an account says less than that it ended a session.
#[test]
fn a_session_without_an_account_that_spares_it_is_over() {
    let mut events = vec![created()];
    events.extend(person());
    events.push(started(&[AuthenticationMethod::Password], 60_000));
    let organization = tables(ACME, &events);
    let code = |organization: &Organization, standing| {
        let session = organization.session(session_id(1)).unwrap();
        let question = Question { permissions: Wanted::Texts(&[]), ..ask() };
        decide_session(session, standing, Timestamp::MAX, organization, &operator(&[]), &question)
            .code
    };
    let standing = |epoch, kept| Some(Standing { epoch, kept });
    assert_eq!(code(&organization, None), Code::Revoked);
    assert_eq!(code(&organization, standing(3, None)), Code::Allowed);
    assert_eq!(code(&organization, standing(4, None)), Code::Revoked);
    assert_eq!(code(&organization, standing(4, Some(session_id(1)))), Code::Allowed);
    assert_eq!(code(&organization, standing(4, Some(session_id(2)))), Code::Revoked);
    let ended = SessionEnded { session_id: session_id(1), reason: SessionEndReason::LoggedOut };
    events.push(ended.into());
    assert_eq!(code(&tables(ACME, &events), standing(3, None)), Code::Revoked);
}

/// What keeps a key or a session of a user, who may do everything, from `users:write`.
fn gate(rules: &[Event], methods: Option<&[AuthenticationMethod]>, now: i64) -> Code {
    let mut events = vec![created()];
    events.extend(person());
    events.push(granted_to(user_id(1).into(), 1, 1, None));
    match methods {
        Some(methods) => events.push(started(methods, 60_000_000)),
        None => events.push(key_created(1, |key| {
            key.scopes = None;
            key.owner = Some(user_id(1).into());
        })),
    }
    let organization = tables(ACME, &events);
    let operator = operator(&[&[role_defined(1, &["*:*"])], rules].concat());
    let permissions = Wanted::One(Permission::constant("users", "write"));
    let question = Question { permissions, now: at(now), ..ask() };
    let standing = Some(Standing { epoch: 3, kept: None });
    match organization.session(session_id(1)) {
        Some(it) => {
            decide_session(it, standing, Timestamp::MAX, &organization, &operator, &question).code
        }
        None => {
            decide(organization.key(key_id(1)).unwrap(), &organization, &operator, &question).code
        }
    }
}

fn mfa(pattern: &str, max_age_seconds: Option<u32>, api_keys_satisfy: bool) -> Event {
    let mfa = Some(MfaRule { max_age_seconds, api_keys_satisfy });
    defined(pattern, PermissionRule { mfa, feature: None })
}

fn feature(pattern: &str, feature: &str) -> Event {
    let feature = Some(feature.parse().unwrap());
    defined(pattern, PermissionRule { mfa: None, feature })
}

use AuthenticationMethod::{Password, RecoveryCode, Totp};

#[test]
fn a_second_factor_counts_as_long_as_the_rule_says() {
    let once = [mfa("users:write", None, false)];
    assert_eq!(gate(&once, Some(&[Password]), 100), Code::MfaRequired);
    assert_eq!(gate(&once, Some(&[Password, Totp]), 50_000_000), Code::Allowed);
    assert_eq!(gate(&once, Some(&[Password, RecoveryCode]), 100), Code::Allowed);
    // The session began, with its second factor, at the fifth event: at 4 ms.
    let recent = [mfa("users:write", Some(900), false)];
    for (now, code) in [(900_003, Code::Allowed), (900_004, Code::MfaRequired)] {
        assert_eq!(gate(&recent, Some(&[Password, Totp]), now), code, "at {now}");
    }
}

#[test]
fn an_api_key_stands_for_a_second_factor_only_where_the_rule_says_so() {
    assert_eq!(gate(&[mfa("users:write", None, false)], None, 100), Code::MfaRequired);
    assert_eq!(gate(&[mfa("users:write", Some(1), true)], None, 100_000), Code::Allowed);
    // It says nothing of sessions.
    assert_eq!(gate(&[mfa("users:write", None, true)], Some(&[Password]), 100), Code::MfaRequired);
    // Nobody knows who shows the global key.
    let global = key_created(1, |key| {
        key.origin = KeyOrigin::Global;
        key.scopes = Some(crate::permission::Scopes::new(&["users:write"]).unwrap());
    });
    let (organization, operator) =
        (tables(ACME, &[created(), global]), operator(&[mfa("users:write", None, true)]));
    let permissions = Wanted::One(Permission::constant("users", "write"));
    let question = Question { permissions, ..ask() };
    let key = organization.key(key_id(1)).unwrap();
    assert_eq!(decide(key, &organization, &operator, &question).code, Code::MfaRequired);
}

#[test]
fn a_rule_is_for_what_its_pattern_matches_and_every_rule_counts() {
    for (pattern, code) in [
        ("users:write", Code::MfaRequired),
        ("users:*", Code::MfaRequired),
        ("*:write", Code::MfaRequired),
        ("*:*", Code::MfaRequired),
        ("users:read", Code::Allowed),
        ("roles:*", Code::Allowed),
        ("*:read", Code::Allowed),
        // Whoever may do everything is asked for what they want, not for what they hold.
        ("org:admin", Code::Allowed),
    ] {
        assert_eq!(gate(&[mfa(pattern, None, false)], None, 100), code, "{pattern}");
    }
    let both = [mfa("users:write", None, true), mfa("*:*", None, false)];
    assert_eq!(gate(&both, None, 100), Code::MfaRequired);
    let rules = [mfa("users:write", None, false), feature("users:*", "people")];
    assert_eq!(gate(&rules, None, 100), Code::FeatureNotLicensed);
    // What was a rule, and what it said before, counts no longer.
    let rule = PermissionRule { mfa: Some(MfaRule::default()), feature: None };
    let removed = PermissionRuleRemoved { permission: "*:*".parse().unwrap(), before: rule };
    assert_eq!(gate(&[mfa("*:*", None, false), removed.into()], None, 100), Code::Allowed);
    let other = [mfa("*:*", None, false), mfa("*:*", None, true)];
    assert_eq!(gate(&other, None, 100), Code::Allowed);
}

#[test]
fn a_feature_is_licensed_by_the_plan_and_the_operator_needs_no_licence() {
    let plan = |plan: &str, features: &[&str]| -> Event {
        let features = features.iter().map(|it| it.parse().unwrap()).collect();
        let rules = PlanRules { key_lifetime_max_seconds: None, features };
        PlanDefined { plan: plan.parse().unwrap(), rules, before: None }.into()
    };
    let gated = feature("users:write", "people");
    let code = |plans: &[Event]| gate(&[std::slice::from_ref(&gated), plans].concat(), None, 100);
    assert_eq!(code(&[]), Code::FeatureNotLicensed);
    assert_eq!(code(&[plan("paid", &["sso", "people"])]), Code::Allowed);
    assert_eq!(code(&[plan("free", &["people"])]), Code::FeatureNotLicensed);
    // Taken away again, it is missed by the next verification.
    let gone = [plan("paid", &["people"]), plan("paid", &["sso"])];
    assert_eq!(code(&gone), Code::FeatureNotLicensed);

    let begun = OrganizationCreated { organization_id: OrganizationId::OPERATOR, ..acme() };
    let own = key_created(1, |key| {
        key.scopes = Some(crate::permission::Scopes::new(&["org:admin"]).unwrap());
    });
    let operator = operator(&[begun.into(), gated.clone(), own]);
    let permissions = Wanted::One(Permission::constant("users", "write"));
    let question = Question { permissions, ..ask() };
    let key = operator.key(key_id(1)).unwrap();
    assert_eq!(decide(key, &operator, &operator, &question).code, Code::Allowed);
}

/// The code, and the organization that the decision is for.
fn for_tenant(scopes: &[&str], more: &[Event], tenant: OrganizationId) -> (Code, OrganizationId) {
    let registered: Event = crate::event::OrganizationRegistered {
        organization_id: ACME,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    }
    .into();
    let begun = OrganizationCreated { organization_id: OrganizationId::OPERATOR, ..acme() };
    let own = key_created(1, |key| {
        key.scopes = Some(crate::permission::Scopes::new(scopes).unwrap());
    });
    let operator = operator(&[&[begun.into(), registered, own], more].concat());
    let question = Question { tenant: Some(tenant), ..ask() };
    let decision = decide(operator.key(key_id(1)).unwrap(), &operator, &operator, &question);
    assert_eq!(decision.organization_id, OrganizationId::OPERATOR);
    (decision.code, decision.tenant_id)
}

#[test]
fn an_operator_who_may_acts_for_the_tenant_it_names() {
    let (own, other) = (OrganizationId::OPERATOR, OrganizationId::from_bytes([8; 16]));
    // Older spellings are the same permissions.
    for scopes in [
        &["admin:users", "admin:settings", "dns:read"][..],
        &["admin.users", "admin.settings", "dns.read"],
        &["org:admin"],
    ] {
        assert_eq!(for_tenant(scopes, &[], ACME), (Code::Allowed, ACME), "{scopes:?}");
        assert_eq!(for_tenant(scopes, &[], own), (Code::Allowed, own));
        // There is none such.
        assert_eq!(for_tenant(scopes, &[], other), (Code::TenantMismatch, own));
    }
    for scopes in [&["dns:read"][..], &["admin:users", "dns:read"], &["admin:settings", "dns:read"]]
    {
        assert_eq!(for_tenant(scopes, &[], ACME), (Code::TenantMismatch, own), "{scopes:?}");
        assert_eq!(for_tenant(scopes, &[], own), (Code::Allowed, own));
    }
    let both = ["admin:users", "admin:settings"];
    assert_eq!(for_tenant(&both, &[], ACME), (Code::PermissionDenied, ACME));
    // What is needed for that may ask for more, too.
    let gated = [mfa("admin:settings", None, false)];
    assert_eq!(for_tenant(&["org:admin"], &gated, ACME), (Code::MfaRequired, ACME));
    assert_eq!(for_tenant(&["org:admin"], &gated, own), (Code::Allowed, own));
    let revoked = [key_revoked(1)];
    assert_eq!(for_tenant(&["org:admin"], &revoked, ACME), (Code::Revoked, ACME));
    // A tenant's key acts for no other, whatever it holds.
    for (tenant, code) in
        [(ACME, Code::Allowed), (own, Code::TenantMismatch), (other, Code::TenantMismatch)]
    {
        let question = Question { tenant: Some(tenant), ..ask() };
        let all = |key: &mut KeyCreated| {
            key.scopes = Some(crate::permission::Scopes::new(&["org:admin"]).unwrap());
        };
        check(all, &[], &[], &question, code);
    }
}

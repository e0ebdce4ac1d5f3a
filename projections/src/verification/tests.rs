mod break_glass;

use super::*;
use crate::permission::PermissionPattern;

mod gates;

use crate::event::{
    Event, GrantRevoked, KeyCreated, KeyRotated, OrganizationCreated, RoleRetired, RoleUpdated,
};
use crate::sample::{
    ACME, at, created, definition, envelope, grant_id, key_created, key_disabled, key_id,
    key_revoked, operator, recorded, role_created, role_defined, role_granted, role_id,
    service_account_created, service_account_id, tables, terms,
};

/// Everything that can be wrong with a question about a known key, in order of
/// precedence: how the key comes to be wrong, what is asked, and the answer.
type Wrong = (fn(&mut KeyCreated), &'static [Then], fn(&mut Question<'_>), Code);

/// What befalls a key after it was made.
type Then = fn(u8) -> Event;

const WRONGS: &[Wrong] = &[
    (
        |_| {},
        &[],
        |question| question.tenant = Some(OrganizationId::OPERATOR),
        Code::TenantMismatch,
    ),
    (|_| {}, &[key_revoked], |_| {}, Code::Revoked),
    (|_| {}, &[key_disabled], |_| {}, Code::Disabled),
    (|key| key.expires_at = Some(at(50)), &[], |_| {}, Code::Expired),
    (
        |key| key.allowed_ips = Networks::new(&["192.0.2.0/24"]).ok(),
        &[],
        |question| question.client_ip = "198.51.100.7".parse().ok(),
        Code::IpNotAllowed,
    ),
    (
        |_| {},
        &[],
        |question| question.environment = Some(Environment::Test),
        Code::WrongEnvironment,
    ),
    (
        |key| key.services = Some(vec!["cdn".parse().unwrap()]),
        &[],
        |question| question.service = Some("dns"),
        Code::ServiceNotAllowed,
    ),
    (
        |_| {},
        &[],
        |question| question.permissions = Wanted::One(Permission::constant("dns", "write")),
        Code::PermissionDenied,
    ),
    (
        |key| {
            key.owner = Some(service_account_id(1).into());
            key.scopes = None;
        },
        &[],
        |question| question.domain = Some("other.example"),
        Code::DomainNotAllowed,
    ),
];

fn ask<'a>() -> Question<'a> {
    Question {
        tenant: None,
        permissions: Wanted::One(Permission::constant("dns", "read")),
        service: None,
        environment: None,
        client_ip: None,
        domain: None,
        now: at(100),
    }
}

#[track_caller]
fn check(
    key: impl FnOnce(&mut KeyCreated),
    then: &[Then],
    roles: &[Event],
    question: &Question<'_>,
    code: Code,
) {
    // The account holds `dns:read` for one domain; keys of the organization's own do not
    // have it by that.
    let mut history = vec![
        created(),
        service_account_created(1, &[]),
        role_created(100, &["dns:read"]),
        role_granted(1, terms(1, 100, Some("example.com"), None)),
        key_created(1, key),
    ];
    history.extend(then.iter().map(|event| event(1)));
    let organization = tables(ACME, &history);
    let operator = operator(roles);
    let decision = decide(organization.key(key_id(1)).unwrap(), &organization, &operator, question);
    assert_eq!(decision.code, code);
    assert_eq!(decision.revision, organization.revision());
    assert_eq!(decision.operator_revision, operator.revision());
}

#[test]
fn each_wrong_alone_has_its_own_code() {
    check(|_| {}, &[], &[], &ask(), Code::Allowed);
    for (key, then, change, code) in WRONGS {
        let mut question = ask();
        change(&mut question);
        check(key, then, &[], &question, *code);
    }
}

#[test]
fn of_two_wrongs_the_earlier_is_the_answer() {
    for (place, (first_key, first_then, first_change, code)) in WRONGS.iter().enumerate() {
        for (second_key, second_then, second_change, second) in WRONGS.iter().skip(place + 1) {
            assert!(code < second, "codes stand in order of precedence");
            let mut question = ask();
            first_change(&mut question);
            second_change(&mut question);
            let both = |key: &mut KeyCreated| {
                first_key(key);
                second_key(key);
            };
            // A revoked key is changed no more: what is final comes last.
            let then = [*second_then, *first_then].concat();
            check(both, &then, &[], &question, *code);
        }
    }
}

#[test]
fn a_lifetime_ends_at_its_instant() {
    for (now, code) in [(49, Code::Allowed), (50, Code::Expired), (51, Code::Expired)] {
        check(
            |key| key.expires_at = Some(at(50)),
            &[],
            &[],
            &Question { now: at(now), ..ask() },
            code,
        );
    }
}

/// Events that came later than the question's clock says have been seen all the same.
#[test]
fn a_clock_that_is_set_back_undoes_no_end() {
    let operator = |at_ms| {
        let mut operator = operator(&[]);
        let revision = Revision::after(operator.revision()).0;
        let role = role_defined(1, &["dns:read"]);
        let event = recorded(OrganizationId::OPERATOR, revision, &envelope(at_ms, role));
        operator.apply(&event).unwrap();
        operator
    };
    let mut organization = tables(
        ACME,
        &[
            created(),
            key_created(1, |key| {
                key.expires_at = Some(at(50));
            }),
        ],
    );
    let question = Question { now: at(40), ..ask() };
    let code = |organization: &Organization, operator: &Organization| {
        decide(organization.key(key_id(1)).unwrap(), organization, operator, &question).code
    };
    assert_eq!(code(&organization, &operator(49)), Code::Allowed);
    assert_eq!(code(&organization, &operator(50)), Code::Expired);
    let other = envelope(50, key_created(2, |_| {}));
    organization.apply(&recorded(ACME, 2, &other)).unwrap();
    assert_eq!(code(&organization, &operator(49)), Code::Expired);
}

#[test]
fn a_key_without_environment_is_live() {
    let asked = |environment| Question { environment: Some(environment), ..ask() };
    check(|key| key.environment = None, &[], &[], &asked(Environment::Live), Code::Allowed);
    check(
        |key| key.environment = None,
        &[],
        &[],
        &asked(Environment::Test),
        Code::WrongEnvironment,
    );
    check(
        |key| key.environment = Some(Environment::Test),
        &[],
        &[],
        &asked(Environment::Test),
        Code::Allowed,
    );
}

#[test]
fn a_key_limited_to_services_must_be_asked_with_one() {
    let limited = |key: &mut KeyCreated| {
        key.services = Some(vec!["cdn".parse().unwrap(), "dns".parse().unwrap()])
    };
    check(limited, &[], &[], &ask(), Code::ServiceNotAllowed);
    check(limited, &[], &[], &Question { service: Some("dns"), ..ask() }, Code::Allowed);
    check(|_| {}, &[], &[], &Question { service: Some("anything"), ..ask() }, Code::Allowed);
}

#[test]
fn scopes_and_roles_narrow_each_other() {
    let roles =
        [role_defined(1, &["dns:*"]), role_defined(2, &["cache:purge"]), role_defined(3, &["*:*"])];
    let scopes = |list: &[&str]| Some(crate::permission::Scopes::new(list).unwrap());
    let wants = |resource, action| Question {
        permissions: Wanted::One(Permission::constant(resource, action)),
        ..ask()
    };
    for (scoped, key_roles, resource, action, allowed) in [
        (None, &[][..], "dns", "read", false),
        (scopes(&["dns:read"]), &[], "dns", "read", true),
        (scopes(&["org:admin"]), &[], "dns", "read", true),
        (None, &[1], "dns", "write", true),
        (None, &[1], "cache", "purge", false),
        (None, &[1, 2], "cache", "purge", true),
        (scopes(&["dns:read"]), &[1], "dns", "read", true),
        (scopes(&["dns:read"]), &[1], "dns", "write", false),
        (scopes(&["dns:read"]), &[2], "dns", "read", false),
        (scopes(&["org:admin"]), &[2], "cache", "purge", true),
        (scopes(&["org:admin"]), &[2], "dns", "read", false),
        (scopes(&["dns:read"]), &[3], "dns", "read", true),
        (None, &[9], "dns", "read", false),
        (scopes(&["dns:read"]), &[9], "dns", "read", false),
    ] {
        let code = if allowed { Code::Allowed } else { Code::PermissionDenied };
        let change = |key: &mut KeyCreated| {
            key.scopes.clone_from(&scoped);
            key.roles = key_roles.iter().map(|number| role_id(*number)).collect();
        };
        check(change, &[], &roles, &wants(resource, action), code);
    }
}

#[test]
fn a_service_accounts_key_holds_what_its_roles_permit() {
    let roles = [role_defined(1, &["dns:*"])];
    let scopes = |list: &[&str]| Some(crate::permission::Scopes::new(list).unwrap());
    for (scoped, account_roles, resource, action, allowed) in [
        (None, &[1][..], "dns", "write", true),
        (None, &[1], "cache", "purge", false),
        (scopes(&["dns:read"]), &[1], "dns", "read", true),
        (scopes(&["dns:read"]), &[1], "dns", "write", false),
        (scopes(&["cache:purge"]), &[1], "cache", "purge", false),
        // Without roles the scopes are nothing to narrow: they give nothing by themselves.
        (scopes(&["dns:read"]), &[], "dns", "read", false),
        (scopes(&["org:admin"]), &[], "dns", "read", false),
        (None, &[], "dns", "read", false),
    ] {
        let key = key_created(1, |key| {
            key.scopes.clone_from(&scoped);
            key.owner = Some(service_account_id(1).into());
        });
        let organization =
            tables(ACME, &[created(), service_account_created(1, account_roles), key]);
        let operator = operator(&roles);
        let row = organization.key(key_id(1)).unwrap();
        let authority = Authority::of(row, &organization, &operator, at(100));
        let wanted = Permission::constant(resource, action);
        assert_eq!(authority.holds(wanted), allowed, "{scoped:?} {account_roles:?} {wanted}");
        let listed = authority
            .permissions()
            .any(|text| text.parse::<PermissionPattern>().unwrap().implies(wanted));
        assert_eq!(listed, allowed, "what is listed is what is held");
        let everything: PermissionPattern = "*:*".parse().unwrap();
        assert!(!authority.covers(&everything));
    }
}

/// The codes of service account 1's unnarrowed key after these events, asked for `dns:read`
/// and for `dns:write` at this instant, about this domain.
fn granted(events: &[Event], now: i64, domain: Option<&str>) -> [Code; 2] {
    let mut history = vec![
        created(),
        service_account_created(1, &[]),
        key_created(1, |key| {
            key.owner = Some(service_account_id(1).into());
            key.scopes = None;
        }),
        role_created(100, &["dns:read"]),
        role_created(101, &["dns:write"]),
    ];
    history.extend_from_slice(events);
    let (organization, operator) = (tables(ACME, &history), operator(&[]));
    ["read", "write"].map(|action| {
        let wanted = Wanted::One(Permission::constant("dns", action));
        let question = Question { permissions: wanted, domain, now: at(now), ..ask() };
        decide(organization.key(key_id(1)).unwrap(), &organization, &operator, &question).code
    })
}

#[test]
fn a_grant_counts_where_and_as_long_as_it_is_for() {
    use Code::{Allowed, DomainNotAllowed, PermissionDenied};
    let (here, there) = (Some("example.com"), Some("other.example"));
    let everywhere = [role_granted(1, terms(1, 100, None, None))];
    for domain in [None, here, there] {
        assert_eq!(granted(&everywhere, 100, domain), [Allowed, PermissionDenied]);
        assert_eq!(granted(&[], 100, domain), [PermissionDenied; 2]);
    }
    let one = [role_granted(1, terms(1, 100, here, None))];
    assert_eq!(granted(&one, 100, here), [Allowed, PermissionDenied]);
    for domain in [None, there, Some("www.example.com"), Some("com")] {
        assert_eq!(granted(&one, 100, domain), [DomainNotAllowed, PermissionDenied], "{domain:?}");
    }
    let both = [one[0].clone(), role_granted(2, terms(1, 101, there, None))];
    assert_eq!(granted(&both, 100, here), [Allowed, DomainNotAllowed]);
    assert_eq!(granted(&both, 100, None), [DomainNotAllowed; 2]);
    let until = [role_granted(1, terms(1, 100, here, Some(50)))];
    for (now, code) in [(49, Allowed), (50, PermissionDenied), (51, PermissionDenied)] {
        assert_eq!(granted(&until, now, here)[0], code, "at {now}");
    }
    let revoked = GrantRevoked { grant_id: grant_id(1), before: terms(1, 100, None, None) }.into();
    assert_eq!(granted(&[everywhere[0].clone(), revoked], 100, None), [PermissionDenied; 2]);
    // Somebody else's grant is nobody else's.
    let other = [service_account_created(2, &[]), role_granted(1, terms(2, 100, None, None))];
    assert_eq!(granted(&other, 100, None), [PermissionDenied; 2]);
}

#[test]
fn a_role_of_ones_own_means_what_it_means_now_and_once_retired_nothing() {
    let grant = role_granted(1, terms(1, 100, None, None));
    let updated: Event = RoleUpdated {
        role_id: role_id(100),
        definition: definition("own-100", &["dns:write"]),
        before: definition("own-100", &["dns:read"]),
    }
    .into();
    let edited = [grant.clone(), updated];
    assert_eq!(granted(&edited, 100, None), [Code::PermissionDenied, Code::Allowed]);
    let retired: Event =
        RoleRetired { role_id: role_id(100), name: "own-100".parse().unwrap() }.into();
    assert_eq!(granted(&[grant, retired.clone()], 100, None), [Code::PermissionDenied; 2]);
    // A key with scopes and a retired role holds nothing: the scopes alone give nothing.
    let with_role = |key: &mut KeyCreated| key.roles = vec![role_id(100)];
    let history = [created(), role_created(100, &["dns:*"]), key_created(1, with_role), retired];
    let (organization, operator) = (tables(ACME, &history), operator(&[]));
    let row = organization.key(key_id(1)).unwrap();
    assert_eq!(decide(row, &organization, &operator, &ask()).code, Code::PermissionDenied);
}

/// A tenant's key is never lent a role of another organization, the operator's included.
#[test]
fn of_the_operators_roles_only_the_built_in_ones_count_elsewhere() {
    let with_role = |key: &mut KeyCreated| {
        key.scopes = None;
        key.roles = vec![role_id(100)];
    };
    let organization = tables(ACME, &[created(), key_created(1, with_role)]);
    let row = organization.key(key_id(1)).unwrap();
    for (role, code) in [
        (role_defined(100, &["dns:read"]), Code::Allowed),
        (role_created(100, &["dns:read"]), Code::PermissionDenied),
    ] {
        let begun = OrganizationCreated { organization_id: OrganizationId::OPERATOR, ..acme() };
        let operator = operator(&[begun.into(), role]);
        assert_eq!(decide(row, &organization, &operator, &ask()).code, code);
    }
}

fn acme() -> OrganizationCreated {
    let Event::OrganizationCreated(event) = created() else { panic!("it is another event") };
    event
}

#[test]
fn authority_lasts_as_long_as_the_grants_it_comes_from() {
    let events = [
        created(),
        service_account_created(1, &[]),
        role_created(100, &["dns:read"]),
        role_granted(1, terms(1, 100, Some("example.com"), Some(50))),
    ];
    let (organization, operator) = (tables(ACME, &events), operator(&[]));
    let authority =
        Authority::of_owner(service_account_id(1).into(), &organization, &operator, at(10));
    let there = authority.over(Some("example.com"));
    let read = Permission::constant("dns", "read");
    assert!(there.holds(read) && !authority.holds(read) && authority.holds_for_a_domain(read));
    assert!(there.until(Some(at(50))).holds(read));
    assert!(!there.until(Some(at(51))).holds(read) && !there.until(None).holds(read));
}

#[test]
fn a_key_for_certain_addresses_is_for_no_others() {
    let listed = |key: &mut KeyCreated| {
        key.allowed_ips = Networks::new(&["192.0.2.0/24", "2001:db8::/32"]).ok();
    };
    for (address, code) in [
        (Some("192.0.2.1"), Code::Allowed),
        (Some("::ffff:192.0.2.1"), Code::Allowed),
        (Some("2001:db8::1"), Code::Allowed),
        (Some("192.0.3.1"), Code::IpNotAllowed),
        (Some("::1"), Code::IpNotAllowed),
        (None, Code::IpNotAllowed),
    ] {
        let client_ip = address.map(|text| text.parse().unwrap());
        check(listed, &[], &[], &Question { client_ip, ..ask() }, code);
        check(|_| {}, &[], &[], &Question { client_ip, ..ask() }, Code::Allowed);
    }
}

#[test]
fn a_replaced_key_is_revoked_once_its_time_is_over() {
    let history = |ends_at| {
        let successor = key_created(2, |key| key.rotates = Some(key_id(1)));
        let rotated = KeyRotated { key_id: key_id(1), successor: key_id(2), ends_at: at(ends_at) };
        tables(ACME, &[created(), key_created(1, |_| {}), successor, rotated.into()])
    };
    let operator = operator(&[]);
    let code = |organization: &Organization, key, now| {
        let row = organization.key(key_id(key)).unwrap();
        decide(row, organization, &operator, &Question { now: at(now), ..ask() }).code
    };
    let organization = history(50);
    for (now, old) in [(49, Code::Allowed), (50, Code::Revoked), (51, Code::Revoked)] {
        assert_eq!(code(&organization, 1, now), old, "at {now}");
        assert_eq!(code(&organization, 2, now), Code::Allowed);
    }
    // Without grace the end is final: no clock set back undoes it.
    let organization = history(3);
    for now in [0, 2, 3, 4] {
        assert_eq!(code(&organization, 1, now), Code::Revoked);
    }
}

#[test]
fn a_role_means_what_it_means_now() {
    let with_role = |key: &mut KeyCreated| {
        key.scopes = None;
        key.roles = vec![role_id(1)];
    };
    check(with_role, &[], &[role_defined(1, &["dns:read"])], &ask(), Code::Allowed);
    let edited = [role_defined(1, &["dns:read"]), role_defined(1, &["dns:write"])];
    check(with_role, &[], &edited, &ask(), Code::PermissionDenied);
}

#[test]
fn all_wanted_permissions_must_be_held() {
    let texts = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let scopes = |key: &mut KeyCreated| {
        key.scopes = Some(crate::permission::Scopes::new(&["a:b", "c:d"]).unwrap())
    };
    for (wanted, code) in [
        (texts(&[]), Code::Allowed),
        (texts(&["a:b"]), Code::Allowed),
        (texts(&["a.b", "c:d"]), Code::Allowed),
        (texts(&["a:b", "c:e"]), Code::PermissionDenied),
    ] {
        check(
            scopes,
            &[],
            &[],
            &Question { permissions: Wanted::new(&wanted).unwrap(), ..ask() },
            code,
        );
    }
    assert_eq!(Wanted::new(&texts(&["a:b", "x"])).unwrap_err().0, 1);
    assert!(Wanted::new(&vec!["a:b".to_owned(); PERMISSIONS_MAX]).is_ok());
    assert!(Wanted::new(&vec!["a:b".to_owned(); PERMISSIONS_MAX + 1]).is_err());
}

/// Covering a pattern must mean holding all it matches: compared with asking one by one.
#[test]
fn an_authority_covers_a_pattern_only_if_it_holds_all_of_it() {
    let patterns = ["*:*", "dns:*", "*:read", "org:admin", "dns:read", "cache:purge", "*:admin"];
    let asked =
        ["dns:read", "dns:write", "cache:purge", "cache:read", "org:admin", "x:y", "x:admin"];
    let scope_lists: [Option<&[&str]>; 4] =
        [None, Some(&["org:admin"]), Some(&["dns:read"]), Some(&["dns:read", "dns:write"])];
    for scoped in scope_lists {
        for role in [None, Some("*:*"), Some("dns:*"), Some("*:read"), Some("dns:read")] {
            let roles: Vec<_> = role.map(|it| role_defined(1, &[it])).into_iter().collect();
            let event = key_created(1, |key| {
                key.scopes = scoped.map(|list| crate::permission::Scopes::new(list).unwrap());
                key.roles = role.map(|_| role_id(1)).into_iter().collect();
            });
            let organization = tables(ACME, &[created(), event]);
            let operator = operator(&roles);
            let authority = Authority::of(
                organization.key(key_id(1)).unwrap(),
                &organization,
                &operator,
                at(100),
            );
            for pattern in patterns {
                let pattern: PermissionPattern = pattern.parse().unwrap();
                let matched = asked
                    .iter()
                    .map(|it| Permission::parse(it).unwrap())
                    .filter(|it| pattern.implies(*it));
                let holds_all = matched.clone().all(|permission| authority.holds(permission));
                if authority.covers(&pattern) {
                    assert!(holds_all, "{scoped:?} {role:?} covers {pattern} without holding it");
                }
            }
        }
    }
}

#[test]
fn effective_permissions_are_what_is_held() {
    let roles = [role_defined(1, &["dns:*"])];
    let listed = |scoped: Option<&[&str]>, with_role: bool| {
        let event = key_created(1, |key| {
            key.scopes = scoped.map(|list| crate::permission::Scopes::new(list).unwrap());
            key.roles = with_role.then(|| role_id(1)).into_iter().collect();
        });
        let organization = tables(ACME, &[created(), event]);
        let operator = operator(&roles);
        let authority =
            Authority::of(organization.key(key_id(1)).unwrap(), &organization, &operator, at(100));
        authority.permissions().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(Some(&["dns:read", "cache:purge"]), true), ["dns:read"]);
    assert_eq!(listed(Some(&["dns:read", "cache:purge"]), false), ["cache:purge", "dns:read"]);
    assert_eq!(listed(None, true), ["dns:*"]);
    assert_eq!(listed(Some(&["org:admin"]), true), ["dns:*"]);
    assert_eq!(listed(Some(&["org:admin"]), false), ["org:admin"]);
}

/// Each role is looked at once for all that is wanted: the answer is that of asking for each.
#[test]
fn what_is_wanted_together_is_what_is_wanted_one_by_one() {
    let domains = [None, Some("example.com"), Some("other.example")];
    let roles = [&["dns:read", "a:b"][..], &["dns:*"], &["*:read", "c:d"], &["cache:purge"]];
    let texts = ["dns:read", "dns:write", "a:b", "c:d", "cache:purge", "x:read", "x:y"];
    for held in 0..3_u32.pow(4) {
        // Each role is granted everywhere, here, or not at all.
        let mut history = vec![created(), service_account_created(1, &[])];
        for (number, permissions) in (0_u8..).zip(roles) {
            history.push(role_created(100 + number, permissions));
            let domain = match held / 3_u32.pow(number.into()) % 3 {
                0 => continue,
                1 => None,
                _ => Some("example.com"),
            };
            history.push(role_granted(number, terms(1, 100 + number, domain, None)));
        }
        history.push(key_created(1, |key| {
            key.owner = Some(service_account_id(1).into());
            key.scopes = None;
        }));
        let (organization, operator) = (tables(ACME, &history), operator(&[]));
        let key = organization.key(key_id(1)).unwrap();
        let code = |permissions: Wanted<'_>, domain| {
            let question = Question { permissions, domain, ..ask() };
            decide(key, &organization, &operator, &question).code
        };
        for domain in domains {
            for first in 0..texts.len() {
                let wanted: Vec<String> =
                    texts.iter().skip(first).take(3).map(|it| (*it).to_owned()).collect();
                let each = wanted
                    .iter()
                    .map(|it| code(Wanted::One(Permission::parse(it).unwrap()), domain));
                let expected = each.min();
                assert_eq!(Some(code(Wanted::Texts(&wanted), domain)), expected, "{wanted:?}");
            }
        }
    }
    // More than any question may want is not half looked at.
    let many = vec!["dns:read".to_owned(); PERMISSIONS_MAX + 1];
    let question = Question { permissions: Wanted::Texts(&many), ..ask() };
    check(|_| {}, &[], &[], &question, Code::PermissionDenied);
}

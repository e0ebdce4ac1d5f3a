//! Which mistakes are hinted at, and which only look like one.

use std::collections::BTreeMap;

use projections::api_key::Environment;
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    BuiltInRoleDefined, DigestForm, Event, GrantTerms, InstallationCreated, KeyCreated, KeyOrigin,
    KeyedDigest, OrganizationCreated, RoleCreated, RoleDefinition, RoleGranted, RoleRetired,
    ServiceAccountCreated,
};
use projections::id::{
    EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId,
};
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::time::Timestamp;

use super::*;
use crate::ledger::built_in;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
const ACCOUNT: ServiceAccountId = ServiceAccountId::from_bytes([8; 16]);
const KEY: KeyId = KeyId::from_bytes([9; 16]);

fn tables(id: OrganizationId, events: Vec<Event>) -> Organization {
    let mut tables = Organization::new(id);
    for event in events {
        let envelope = Envelope {
            id: EventId::from_bytes([1; 16]),
            at: Timestamp::default(),
            actor: Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            event,
            sealed: Vec::new(),
        };
        let (_, leaf_hash) = envelope.encode().unwrap();
        tables.apply_next(&envelope, leaf_hash).unwrap();
    }
    tables
}

/// An installation with the built-in roles.
fn operator() -> Organization {
    let mut events: Vec<Event> = vec![
        InstallationCreated {
            installation_id: InstallationId::from_bytes([1; 16]),
            pepper: 1,
            pepper_check: SecretDigest([1; 32]),
        }
        .into(),
    ];
    events.extend(built_in::rules().roles.into_iter().map(|(role_id, definition)| {
        Event::from(BuiltInRoleDefined { role_id, definition, before: None })
    }));
    tables(OrganizationId::OPERATOR, events)
}

fn role(name: &str) -> RoleId {
    let roles = built_in::rules().roles;
    roles.iter().find(|(_, it)| it.name.as_str() == name).unwrap().0
}

fn organization_created() -> Event {
    OrganizationCreated {
        organization_id: ACME,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    }
    .into()
}

fn account_created(roles: Vec<RoleId>) -> Event {
    ServiceAccountCreated {
        service_account_id: ACCOUNT,
        name: "bot".parse().unwrap(),
        description: None,
        roles,
    }
    .into()
}

fn key_created(otherwise: impl FnOnce(&mut KeyCreated)) -> Event {
    let mut key = KeyCreated {
        key_id: KEY,
        name: "key".parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: None,
        environment: Some(Environment::Live),
        hint: None,
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([2; 32]) },
        scopes: None,
        roles: Vec::new(),
        services: None,
        expires_at: None,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    };
    otherwise(&mut key);
    key.into()
}

/// The warnings about the one key.
fn codes(organization: &Organization) -> Vec<String> {
    let operator = operator();
    let mut measure = Measure::new(organization, &operator, Timestamp::MAX);
    let found = measure.warnings(organization.key(KEY).unwrap());
    let code = |it: &proto::KeyWarning| {
        it.code().as_str_name().trim_start_matches("KEY_WARNING_CODE_").to_lowercase()
    };
    let quoted = |it: &proto::KeyWarning| it.message.split('`').nth(1).unwrap().to_owned();
    found.iter().map(|it| format!("{} {}", code(it), quoted(it))).collect()
}

/// What is said of a key with these roles, scopes and services; of a service account's,
/// with those roles, if `owned`.
fn said(owned: bool, roles: &[&str], scopes: &[&str], services: &[&str]) -> Vec<String> {
    let roles: Vec<RoleId> = roles.iter().map(|name| role(name)).collect();
    let mut events = vec![organization_created()];
    if owned {
        events.push(account_created(roles.clone()));
    }
    let list = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect();
    events.push(key_created(|key| {
        key.scopes = (!scopes.is_empty()).then(|| Scopes::new(scopes).unwrap());
        key.roles = if owned { Vec::new() } else { roles };
        key.services = (!services.is_empty()).then(|| list(services));
        key.owner = owned.then_some(ACCOUNT.into());
    }));
    codes(&tables(ACME, events))
}

#[test]
fn what_does_not_fit_is_said_and_what_may_fit_is_not() {
    type Texts = &'static [&'static str];
    const NONE: Texts = &[];
    #[rustfmt::skip]
    let cases: &[(Texts, Texts, Texts, Texts)] = &[
        // All services: nothing to fit.
        (&["dns-manager"], &[], &[], NONE),
        (&[], &["dns:read"], &[], NONE),
        // What fits.
        (&["dns-manager"], &[], &["dns"], NONE),
        (&["admin"], &[], &["dns", "waf"], NONE),
        (&["read-only-admin"], &[], &["dns", "cdn"], NONE),
        (&[], &["dns:read", "org:admin"], &["dns", "waf"], NONE),
        (&["security-manager"], &[], &["waf"], NONE),
        // A role for other services.
        (&["cache-purger"], &[], &["dns"], &["role_outside_services cache-purger", "service_without_permission dns"]),
        (&["dns-manager", "billing-manager"], &[], &["dns"], &["role_outside_services billing-manager"]),
        // A service that nothing is for.
        (&["dns-manager"], &[], &["dns", "waf"], &["service_without_permission waf"]),
        (&[], &["dns:read"], &["dns", "waf"], &["service_without_permission waf"]),
        // Of a service that nobody names nothing is known: the role may be for it.
        (&["cache-purger"], &[], &["cdn"], NONE),
        (&["cache-purger"], &[], &["cdn", "dns"], &["service_without_permission dns"]),
        (&[], &["workflows:read"], &["pipelines"], NONE),
        (&[], &["api-keys:write"], &["keyledger"], NONE),
        // A scope beside the roles.
        (&["dns-manager"], &["dns:read"], &[], NONE),
        (&["dns-manager"], &["dns:read", "waf:read"], &[], &["scope_outside_roles waf:read"]),
        (&["admin"], &["org:admin", "waf:read"], &[], NONE),
        // Role and scopes each fit the service, and together give nothing for it.
        (&["read-only-admin"], &["dns:write"], &["dns"], &["service_without_permission dns", "scope_outside_roles dns:write"]),
    ];
    for (roles, scopes, services, expected) in cases {
        let shown = format!("{roles:?} {scopes:?} {services:?}");
        assert_eq!(said(false, roles, scopes, services), *expected, "{shown}");
    }
}

#[test]
fn a_service_accounts_key_is_measured_by_its_accounts_roles() {
    assert_eq!(said(true, &["dns-manager"], &["dns:read"], &["dns"]), [""; 0]);
    let expected = ["role_outside_services cache-purger", "service_without_permission dns"];
    assert_eq!(said(true, &["cache-purger"], &[], &["dns"]), expected);
    // Without a role its scopes give it nothing.
    let expected = ["service_without_permission dns", "scope_outside_roles dns:read"];
    assert_eq!(said(true, &[], &["dns:read"], &["dns"]), expected);
}

/// What is held for a domain alone is held all the same; what a retired role was about is
/// known no more.
#[test]
fn what_is_held_for_a_domain_counts_and_what_was_retired_does_not() {
    let said = |retired: bool, domain: Option<&str>, scopes: Option<&[&str]>| {
        let grant = RoleGranted {
            grant_id: GrantId::from_bytes([4; 16]),
            terms: GrantTerms {
                principal: Principal::ServiceAccount(ACCOUNT),
                role_id: RoleId::from_bytes([100; 16]),
                domain: domain.map(|it| it.parse().unwrap()),
                expires_at: None,
            },
        };
        let permissions = ["zones:read", "zones:write"].map(|it| it.parse().unwrap()).to_vec();
        let definition = RoleDefinition {
            name: "zones".parse().unwrap(),
            description: "z".parse().unwrap(),
            permissions,
        };
        let role_id = RoleId::from_bytes([100; 16]);
        let name = definition.name.clone();
        let mut events: Vec<Event> = vec![
            organization_created(),
            account_created(Vec::new()),
            RoleCreated { role_id, definition }.into(),
            grant.into(),
        ];
        events.extend(retired.then(|| RoleRetired { role_id, name }.into()));
        let key = key_created(|key| {
            key.scopes = scopes.map(|it| Scopes::new(it).unwrap());
            key.services = Some(vec!["zones".parse().unwrap()]);
            key.owner = Some(ACCOUNT.into());
        });
        events.push(key);
        codes(&tables(ACME, events))
    };
    for domain in [None, Some("example.com")] {
        assert_eq!(said(false, domain, None), [""; 0], "{domain:?}");
        assert_eq!(said(false, domain, Some(&["zones:read"])), [""; 0], "{domain:?}");
        let expected = ["scope_outside_roles dns:read"];
        assert_eq!(said(false, domain, Some(&["zones:read", "dns:read"])), expected);
        // Nobody is about it any more, by name: nothing is known of it.
        assert_eq!(said(true, domain, None), [""; 0], "{domain:?}");
    }
}

/// A page of keys looks at each role once, and at what each holder has once.
#[test]
fn what_many_keys_have_in_common_is_worked_out_once() {
    let mut events = vec![organization_created(), account_created(vec![role("dns-manager")])];
    for number in 0..50 {
        events.push(key_created(|key| {
            key.key_id = KeyId::from_bytes([number; 16]);
            key.name = format!("key {number}").parse().unwrap();
            key.services = Some(vec!["waf".parse().unwrap()]);
            key.owner = (number % 2 == 0).then_some(ACCOUNT.into());
            key.roles = if number % 2 == 0 { Vec::new() } else { vec![role("dns-manager")] };
        }));
    }
    let (organization, operator) = (tables(ACME, events), operator());
    let mut measure = Measure::new(&organization, &operator, Timestamp::MAX);
    for key in organization.keys_after(None) {
        assert_eq!(measure.warnings(key).len(), 2);
    }
    assert_eq!(measure.held.len(), 2, "one for the account, one for the list of roles");
    let named: *const _ = measure.named();
    measure.be_silent();
    assert!(measure.warnings(organization.keys_after(None).next().unwrap()).is_empty());
    assert_eq!(named, std::ptr::from_ref(measure.named()));
}

//! Which mistakes are hinted at, and which only look like one.

use std::collections::BTreeMap;

use projections::api_key::Environment;
use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    BuiltInRoleDefined, DigestForm, Event, InstallationCreated, KeyCreated, KeyOrigin, KeyedDigest,
    OrganizationCreated, ServiceAccountCreated,
};
use projections::id::{EventId, InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId};
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

/// What is said of a key with these roles, scopes and services; of a service account's,
/// with those roles, if `owned`.
fn said(owned: bool, roles: &[&str], scopes: &[&str], services: &[&str]) -> Vec<String> {
    let roles: Vec<RoleId> = roles.iter().map(|name| role(name)).collect();
    let mut events: Vec<Event> = vec![
        OrganizationCreated {
            organization_id: ACME,
            name: "Acme".parse().unwrap(),
            key_prefix: "vtx".parse().unwrap(),
            plan: "paid".parse().unwrap(),
        }
        .into(),
    ];
    if owned {
        let account = ServiceAccountCreated {
            service_account_id: ACCOUNT,
            name: "bot".parse().unwrap(),
            description: None,
            roles: roles.clone(),
        };
        events.push(account.into());
    }
    let list = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect();
    let key = KeyCreated {
        key_id: KEY,
        name: "key".parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: None,
        environment: Some(Environment::Live),
        hint: None,
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([2; 32]) },
        scopes: (!scopes.is_empty()).then(|| Scopes::new(scopes).unwrap()),
        roles: if owned { Vec::new() } else { roles },
        services: (!services.is_empty()).then(|| list(services)),
        expires_at: None,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: owned.then_some(ACCOUNT.into()),
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    };
    events.push(key.into());
    let (organization, operator) = (tables(ACME, events), operator());
    let mut measure = Measure::new(&organization, &operator, Timestamp::MAX);
    let found = measure.warnings(organization.key(KEY).unwrap());
    let code = |it: &proto::KeyWarning| {
        it.code().as_str_name().trim_start_matches("KEY_WARNING_CODE_").to_lowercase()
    };
    let quoted = |it: &proto::KeyWarning| it.message.split('`').nth(1).unwrap().to_owned();
    found.iter().map(|it| format!("{} {}", code(it), quoted(it))).collect()
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

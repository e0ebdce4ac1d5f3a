//! Histories for tests: each event stands in for the many that differ in what the test
//! does not ask about.

use crate::api_key::Environment;
use crate::digest::{LeafHash, SecretDigest};
use crate::envelope::Envelope;
use crate::event::*;
use crate::id::{
    AccountId, EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId,
    SessionId, UserId,
};
use crate::organization::Organization;
use crate::principal::Principal;
use crate::recorded::{Recorded, Revision, StreamName};
use crate::time::Timestamp;

pub(crate) const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

pub(crate) fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

pub(crate) fn role_id(number: u8) -> RoleId {
    RoleId::from_bytes([number; 16])
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

pub(crate) fn envelope(millis: i64, event: Event) -> Envelope {
    Envelope {
        id: EventId::from_bytes([9; 16]),
        at: at(millis),
        actor: Principal::Ledger,
        credential: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        event,
        sealed: Vec::new(),
    }
}

pub(crate) fn created() -> Event {
    OrganizationCreated {
        organization_id: ACME,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    }
    .into()
}

/// A live key with one scope and no end; the closure makes it otherwise.
pub(crate) fn key_created(number: u8, otherwise: impl FnOnce(&mut KeyCreated)) -> Event {
    let mut event = KeyCreated {
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
        scopes: Some(crate::permission::Scopes::new(&["dns:read"]).unwrap()),
        roles: Vec::new(),
        services: None,
        expires_at: None,
        metadata: std::collections::BTreeMap::new(),
        limits: std::collections::BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    };
    otherwise(&mut event);
    event.into()
}

pub(crate) fn key_revoked(number: u8) -> Event {
    KeyRevoked {
        key_id: key_id(number),
        reason: RevocationReason::KeyCompromise,
        before: KeyStateBefore::Active,
    }
    .into()
}

pub(crate) fn key_disabled(number: u8) -> Event {
    KeyDisabled { key_id: key_id(number) }.into()
}

pub(crate) fn key_enabled(number: u8) -> Event {
    KeyEnabled { key_id: key_id(number) }.into()
}

/// Key `old`, replaced by `new`, ends at this millisecond.
pub(crate) fn key_rotated(old: u8, new: u8, ends_at: i64) -> Event {
    KeyRotated { key_id: key_id(old), successor: key_id(new), ends_at: at(ends_at) }.into()
}

pub(crate) fn service_account_id(number: u8) -> ServiceAccountId {
    ServiceAccountId::from_bytes([number; 16])
}

pub(crate) fn service_account_created(number: u8, roles: &[u8]) -> Event {
    ServiceAccountCreated {
        service_account_id: service_account_id(number),
        name: format!("account {number}").parse().unwrap(),
        description: None,
        roles: roles.iter().map(|number| role_id(*number)).collect(),
    }
    .into()
}

pub(crate) fn user_id(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(crate) fn account_id(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

pub(crate) fn session_id(number: u8) -> SessionId {
    SessionId::from_bytes([number; 16])
}

pub(crate) fn installation_created() -> Event {
    InstallationCreated {
        installation_id: InstallationId::from_bytes([1; 16]),
        pepper: 1,
        pepper_check: SecretDigest([1; 32]),
    }
    .into()
}

pub(crate) fn role_defined(number: u8, permissions: &[&str]) -> Event {
    BuiltInRoleDefined {
        role_id: role_id(number),
        definition: RoleDefinition {
            name: format!("role {number}").parse().unwrap(),
            description: "a role".parse().unwrap(),
            permissions: permissions.iter().map(|text| text.parse().unwrap()).collect(),
        },
        before: None,
    }
    .into()
}

pub(crate) fn definition(name: &str, permissions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        name: name.parse().unwrap(),
        description: "a role".parse().unwrap(),
        permissions: permissions.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

pub(crate) fn role_created(number: u8, permissions: &[&str]) -> Event {
    let definition = definition(&format!("own-{number}"), permissions);
    RoleCreated { role_id: role_id(number), definition }.into()
}

pub(crate) fn grant_id(number: u8) -> GrantId {
    GrantId::from_bytes([number; 16])
}

/// Service account `account` is granted this role.
pub(crate) fn terms(
    account: u8,
    role: u8,
    domain: Option<&str>,
    expires_at: Option<i64>,
) -> GrantTerms {
    GrantTerms {
        principal: Principal::ServiceAccount(service_account_id(account)),
        role_id: role_id(role),
        domain: domain.map(|text| text.parse().unwrap()),
        expires_at: expires_at.map(at),
    }
}

pub(crate) fn role_granted(number: u8, terms: GrantTerms) -> Event {
    RoleGranted { grant_id: grant_id(number), terms }.into()
}

pub(crate) fn recorded(owner: OrganizationId, revision: u64, envelope: &Envelope) -> Recorded {
    let (stored, leaf_hash) = envelope.encode().unwrap();
    Recorded {
        stream: StreamName::organization(owner),
        revision: Revision(revision),
        stored: stored.into(),
        leaf_hash,
    }
}

/// The tables that these events leave, one a millisecond.
pub(crate) fn tables(owner: OrganizationId, events: &[Event]) -> Organization {
    let mut tables = Organization::new(owner);
    for (event, number) in events.iter().zip(0..) {
        let envelope = envelope(number, event.clone());
        tables.apply(&recorded(owner, u64::try_from(number).unwrap(), &envelope)).unwrap();
    }
    tables
}

pub(crate) fn operator(events: &[Event]) -> Organization {
    let mut all = vec![installation_created()];
    all.extend_from_slice(events);
    tables(OrganizationId::OPERATOR, &all)
}

/// A leaf hash that is no event's.
pub(crate) const OTHER: LeafHash = LeafHash([0; 32]);

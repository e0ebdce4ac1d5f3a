//! Golden events and golden replay.
//!
//! `golden/<Type>.<schema>.json` are stored events as some version wrote them: logs in
//! the field hold their like, so they are never edited. To add one for a new schema, put
//! a sample into [`samples`] and run `KEYLEDGER_TEST_WRITE_GOLDEN=1 cargo test -p projections`,
//! which writes missing files and touches no other.
//!
//! `golden/walk.tables.txt` is today's reading of all of them as one history;
//! `UPDATE_EXPECT=1` rewrites it, and the diff is what you review.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken assumption should stop the test, wherever it stands"
)]

use std::path::PathBuf;

use expect_test::expect_file;
use projections::digest::{LeafHash, RequestContent, RequestId, SecretDigest};
use projections::envelope::{Envelope, RequestStamp};
use projections::event::*;
use projections::id::{EventId, InstallationId, KeyId, OrganizationId, RoleId};
use projections::organization::Organization;
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::recorded::{Recorded, Revision, StreamName};
use projections::sealed::{Sealed, Subject};

const AT: &str = "2026-11-22T10:00:00.000Z";

fn organization_id() -> OrganizationId {
    OrganizationId::from_parts(1_790_000_000_000, 1)
}

fn key_id(number: u128) -> KeyId {
    KeyId::from_parts(1_790_000_000_000, number)
}

fn envelope(number: u128, event: Event) -> Envelope {
    Envelope {
        id: EventId::from_parts(1_790_000_000_000, number),
        at: AT.parse().unwrap(),
        actor: Principal::Ledger,
        credential: None,
        request: None,
        correlation_id: "cor-1".parse().unwrap(),
        causation_id: None,
        event,
        sealed: Vec::new(),
    }
}

fn digest(byte: u8) -> KeyedDigest {
    KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest([byte; 32]) }
}

fn key_created() -> KeyCreated {
    KeyCreated {
        key_id: key_id(1),
        name: "ci-pipeline".parse().unwrap(),
        description: Some("builds on every push".parse().unwrap()),
        origin: KeyOrigin::Minted,
        prefix: Some("vtx".parse().unwrap()),
        environment: Some(projections::api_key::Environment::Live),
        hint: Hint::of("vtx_live_a1B2"),
        digest: digest(7),
        scopes: Some(Scopes::new(&["workflows:read", "events:write"]).unwrap()),
        roles: vec![RoleId::from_bytes([1; 16])],
        services: Some(vec!["cdn".parse().unwrap()]),
        expires_at: Some("2027-11-22T10:00:00.000Z".parse().unwrap()),
        metadata: [("team".parse().unwrap(), "build".parse().unwrap())].into(),
        limits: [("max_concurrent_bots".parse().unwrap(), 5)].into(),
    }
}

/// One stored event of each type and schema, in an order that makes a history: first the
/// operator's stream, then one organization's.
fn samples() -> Vec<(OrganizationId, Envelope)> {
    let operator = OrganizationId::OPERATOR;
    let definition = RoleDefinition {
        name: "dns-manager".parse().unwrap(),
        description: "Create, modify, or delete DNS records".parse().unwrap(),
        permissions: vec!["dns:*".parse().unwrap()],
    };
    let installation = InstallationCreated {
        installation_id: InstallationId::from_parts(1_790_000_000_000, 1),
        pepper: 1,
        pepper_check: SecretDigest([1; 32]),
    };
    let activated = SchemaActivated {
        schemas: vec![ActivatedSchema { event_type: "KeyCreated".to_owned(), schema: 1 }],
    };
    let plan = PlanDefined {
        plan: "free".parse().unwrap(),
        rules: PlanRules { key_lifetime_max_seconds: Some(3_600) },
        before: Some(PlanRules { key_lifetime_max_seconds: None }),
    };
    let role =
        BuiltInRoleDefined { role_id: RoleId::from_bytes([1; 16]), definition, before: None };
    let registered = OrganizationRegistered {
        organization_id: organization_id(),
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "free".parse().unwrap(),
    };
    let created = OrganizationCreated {
        organization_id: organization_id(),
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "free".parse().unwrap(),
    };
    let revoked = KeyRevoked {
        key_id: key_id(1),
        reason: RevocationReason::KeyCompromise,
        before: KeyStateBefore::Active,
    };
    let with_all = |number, event: Event| Envelope {
        actor: Principal::Organization(operator),
        credential: Some(key_id(9)),
        request: Some(RequestStamp { id: RequestId([2; 16]), content: RequestContent([3; 16]) }),
        causation_id: Some(EventId::from_parts(1_790_000_000_000, 1)),
        sealed: vec![Sealed {
            subject: Subject::organization_month(organization_id(), AT.parse().unwrap()),
            seal: "AQID".to_owned(),
        }],
        ..envelope(number, event)
    };
    vec![
        (operator, envelope(1, installation.into())),
        (operator, envelope(2, activated.into())),
        (operator, envelope(3, plan.into())),
        (operator, envelope(4, role.into())),
        (operator, envelope(5, registered.into())),
        (organization_id(), envelope(6, created.into())),
        (organization_id(), with_all(7, key_created().into())),
        (organization_id(), envelope(8, revoked.into())),
    ]
}

fn golden(event_type: &str, schema: u32) -> PathBuf {
    let name = format!("{event_type}.{schema}.json");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn write_missing() {
    for (_, sample) in samples() {
        let path = golden(sample.event.event_type(), sample.event.schema());
        if !path.exists() {
            std::fs::write(path, sample.encode().unwrap().0).unwrap();
        }
    }
}

#[test]
fn every_schema_that_was_ever_written_reads_and_keeps_its_bytes() {
    if std::env::var_os("KEYLEDGER_TEST_WRITE_GOLDEN").is_some() {
        write_missing();
    }
    for (event_type, schema) in SCHEMAS {
        let path = golden(event_type, *schema);
        let stored =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let envelope = Envelope::decode(&stored).unwrap();
        assert_eq!((envelope.event.event_type(), envelope.event.schema()), (*event_type, *schema));
        let (again, leaf_hash) = envelope.encode().unwrap();
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&stored));
        assert_eq!(leaf_hash, LeafHash::of(&stored));
        assert!(
            samples().iter().any(|(_, sample)| *sample == envelope),
            "{event_type} differs from its sample"
        );
    }
    let files = std::fs::read_dir(golden("", 0).parent().unwrap()).unwrap();
    let schemas = files
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "json"))
        .count();
    assert!(schemas >= SCHEMAS.len(), "golden events are never removed");
}

#[test]
fn the_golden_history_folds_to_the_golden_tables() {
    let mut operator = Organization::new(OrganizationId::OPERATOR);
    // The operator's own organization is created like every other; its event is of the same type.
    let mut organization = Organization::new(organization_id());
    for (owner, sample) in samples() {
        let stored =
            std::fs::read(golden(sample.event.event_type(), sample.event.schema())).unwrap();
        let tables = if owner.is_operator() { &mut operator } else { &mut organization };
        let recorded = Recorded {
            stream: StreamName::organization(owner),
            revision: Revision::after(tables.revision()),
            leaf_hash: LeafHash::of(&stored),
            stored: stored.into(),
        };
        tables.apply(&recorded).unwrap();
    }
    let tables = format!("{operator:#?}\n{organization:#?}\n");
    expect_file!["golden/walk.tables.txt"].assert_eq(&tables);
}

#[test]
fn a_field_a_type_or_a_schema_that_is_unknown_is_refused() {
    let (stored, _) = samples().pop().unwrap().1.encode().unwrap();
    let text = String::from_utf8(stored).unwrap();
    assert!(Envelope::decode(text.as_bytes()).is_ok());
    for (from, to) in [
        (r#""schema":1"#, r#""schema":2"#),
        (r#""type":"KeyRevoked""#, r#""type":"KeyMended""#),
        (r#""reason":"key_compromise""#, r#""reason":"boredom""#),
        (r#""reason":"key_compromise""#, r#""reason":"key_compromise","extra":1"#),
        (r#""schema":1"#, r#""schema":1,"extra":1"#),
        (r#""schema":1"#, r#""schema":1,"schema":1"#),
        (r#""actor":"ledger""#, r#""actor":"somebody""#),
        (AT, "2026-11-22T10:00:00Z"),
        ("}}", "}"),
        ("}}", "}} "),
        ("}}", "}}{"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from} occurs");
        let accepted = Envelope::decode(broken.as_bytes());
        // White space behind the object is JSON; the leaf hash would tell it apart.
        assert_eq!(accepted.is_ok(), to == "}} ", "{broken}");
    }
}

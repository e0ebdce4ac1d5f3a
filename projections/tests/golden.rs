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

#[path = "golden/break_glass.rs"]
mod break_glass;

use std::path::PathBuf;

use expect_test::expect_file;
use projections::account::Account;
use projections::digest::{
    EmailDigest, LeafHash, RequestContent, RequestId, SecretDigest, SigningKeyId, SigningPublicKey,
};
use projections::email::Reservation;
use projections::envelope::{Envelope, RequestStamp};
use projections::event::*;
use projections::id::{
    AccountId, EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId, ServiceAccountId,
    SessionId, UserId,
};
use projections::network::{Networks, RateLimit};
use projections::organization::Organization;
use projections::permission::Scopes;
use projections::policy::Policy;
use projections::principal::Principal;
use projections::recorded::{Recorded, Revision, StreamName};
use projections::sealed::{Sealed, Subject};
use projections::usage::Usage;

const AT: &str = "2026-11-22T10:00:00.000Z";

fn organization_id() -> OrganizationId {
    OrganizationId::from_parts(1_790_000_000_000, 1)
}

fn key_id(number: u128) -> KeyId {
    KeyId::from_parts(1_790_000_000_000, number)
}

fn user_id() -> UserId {
    UserId::from_parts(1_790_000_000_000, 1)
}

fn session_id() -> SessionId {
    SessionId::from_parts(1_790_000_000_000, 1)
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
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    }
}

/// What stands for an instant later than all of the history.
const LATER: &str = "2026-11-23T10:00:00.000Z";

/// One stored event of each type, in its current schema, in an order that makes a history: first the
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
        rules: PlanRules {
            key_lifetime_max_seconds: Some(3_600),
            features: vec!["dns".parse().unwrap(), "sso".parse().unwrap()],
        },
        before: Some(PlanRules {
            key_lifetime_max_seconds: None,
            features: vec!["dns".parse().unwrap()],
        }),
    };
    let rule = PermissionRule {
        mfa: Some(MfaRule { max_age_seconds: Some(900), api_keys_satisfy: true }),
        feature: Some("sso".parse().unwrap()),
    };
    let rule_defined = PermissionRuleDefined {
        permission: "users:*".parse().unwrap(),
        rule: rule.clone(),
        before: Some(PermissionRule { mfa: Some(MfaRule::default()), feature: None }),
    };
    let other_rule =
        PermissionRuleDefined { permission: "*:purge".parse().unwrap(), ..rule_defined.clone() };
    let rule_removed =
        PermissionRuleRemoved { permission: "*:purge".parse().unwrap(), before: rule };
    let role =
        BuiltInRoleDefined { role_id: RoleId::from_bytes([1; 16]), definition, before: None };
    let registered = OrganizationRegistered {
        organization_id: organization_id(),
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "free".parse().unwrap(),
        personal_of: Some(AccountId::from_parts(1_790_000_000_000, 1)),
    };
    let created = OrganizationCreated {
        organization_id: organization_id(),
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "free".parse().unwrap(),
        personal_of: Some(AccountId::from_parts(1_790_000_000_000, 1)),
    };
    let revoked = KeyRevoked {
        key_id: key_id(1),
        reason: RevocationReason::KeyCompromise,
        before: KeyStateBefore::Active,
    };
    let pepper = PepperRotated { pepper: 2, pepper_check: SecretDigest([2; 32]) };
    let signing_key_id = SigningKeyId([4; 16]);
    let signing = SigningKeyAdded { signing_key_id, public_key: SigningPublicKey([5; 32]) };
    let retired_key = SigningKeyRetired { signing_key_id };
    let label = |name: &str, description: Option<&str>| KeyLabel {
        name: name.parse().unwrap(),
        description: description.map(|text| text.parse().unwrap()),
    };
    let relabelled = KeyRelabelled {
        key_id: key_id(1),
        label: label("ci", None),
        before: label("ci-pipeline", Some("builds on every push")),
    };
    let account_id = ServiceAccountId::from_parts(1_790_000_000_000, 1);
    let account = ServiceAccountCreated {
        service_account_id: account_id,
        name: "deployer".parse().unwrap(),
        description: Some("rolls out".parse().unwrap()),
        roles: vec![RoleId::from_bytes([1; 16])],
    };
    let policy = PolicyUpdated {
        policy: Policy {
            key_lifetime_max_seconds: Some(86_400),
            rotation_grace_max_seconds: Some(3_600),
            allowed_ips_required: true,
        },
        before: Policy::default(),
    };
    let successor = KeyCreated {
        key_id: key_id(2),
        name: "ci".parse().unwrap(),
        digest: digest(8),
        roles: Vec::new(),
        owner: Some(account_id.into()),
        allowed_ips: Some(Networks::new(&["192.0.2.0/24", "2001:db8::1"]).unwrap()),
        rate_limit: Some(RateLimit::new(100, 60).unwrap()),
        rotates: Some(key_id(1)),
        ..key_created()
    };
    let rotated =
        KeyRotated { key_id: key_id(1), successor: key_id(2), ends_at: LATER.parse().unwrap() };
    let ended = KeyRotationEnded { key_id: key_id(1), before: LATER.parse().unwrap() };
    let read = HistoryRead {
        way: WayOfReading::Queried,
        asked: [("action", "key.*"), ("from", AT)]
            .map(|(field, value)| (field.parse().unwrap(), value.to_owned()))
            .into(),
        and_more: true,
    };
    let denials = DenialsSummarized {
        first_at: "2026-11-22T09:59:30.000Z".parse().unwrap(),
        last_at: AT.parse().unwrap(),
        denials: vec![
            CountedDenial {
                denial: Denial {
                    code: DenialCode::PermissionDenied,
                    credential: Some(key_id(2).into()),
                    asked_with: Some(key_id(9).into()),
                    service: Some("cdn".parse().unwrap()),
                },
                count: 12,
            },
            CountedDenial {
                denial: Denial {
                    code: DenialCode::DomainNotAllowed,
                    credential: Some(key_id(2).into()),
                    asked_with: None,
                    service: None,
                },
                count: 2,
            },
            CountedDenial {
                denial: Denial {
                    code: DenialCode::Suspended,
                    credential: Some(session_id().into()),
                    asked_with: None,
                    service: None,
                },
                count: 2,
            },
            CountedDenial {
                denial: Denial {
                    code: DenialCode::Revoked,
                    credential: Some(key_id(1).into()),
                    asked_with: None,
                    service: None,
                },
                count: 1,
            },
        ],
        others: 3,
    };
    let mut denials = denials;
    denials.denials.push(CountedDenial {
        denial: Denial {
            code: DenialCode::BreakGlassDisabled,
            credential: None,
            asked_with: None,
            service: None,
        },
        count: 1,
    });
    let role_id = RoleId::from_parts(1_790_000_000_000, 1);
    let meaning = |name: &str, permissions: &[&str]| RoleDefinition {
        name: name.parse().unwrap(),
        description: "edits zones".parse().unwrap(),
        permissions: permissions.iter().map(|it| it.parse().unwrap()).collect(),
    };
    let role_created =
        RoleCreated { role_id, definition: meaning("zone-editor", &["dns:read", "dns:write"]) };
    let role_updated = RoleUpdated {
        role_id,
        definition: meaning("zone-keeper", &["dns:*"]),
        before: role_created.definition.clone(),
    };
    let role_retired = RoleRetired { role_id, name: role_updated.definition.name.clone() };
    let grant_id = |number| GrantId::from_parts(1_790_000_000_000, number);
    let terms = GrantTerms {
        principal: Principal::ServiceAccount(account_id),
        role_id,
        domain: Some("example.com".parse().unwrap()),
        expires_at: Some(LATER.parse().unwrap()),
    };
    let for_good = GrantTerms { domain: None, expires_at: None, ..terms.clone() };
    let for_good = RoleGranted { grant_id: grant_id(2), terms: for_good };
    let grant_revoked = GrantRevoked { grant_id: grant_id(2), before: for_good.terms.clone() };
    let role_granted = RoleGranted { grant_id: grant_id(1), terms };
    let user_id = user_id();
    let person = |envelope: Envelope| Envelope {
        sealed: vec![Sealed {
            subject: Subject::user(organization_id(), user_id),
            seal: "BAUG".to_owned(),
        }],
        ..envelope
    };
    let limits = |number| [("max_concurrent_bots".parse().unwrap(), number)].into();
    let invited = UserInvited {
        user_id,
        email: EmailDigest([4; 32]),
        expires_at: AT.parse().unwrap(),
        limits: limits(5),
        token: Some(TokenWay::Delivered),
    };
    let renewed = InvitationRenewed {
        user_id,
        expires_at: LATER.parse().unwrap(),
        before: invited.expires_at,
        token: Some(TokenWay::HandedOver),
    };
    let person_account = AccountId::from_parts(1_790_000_000_000, 1);
    let updated =
        UserUpdated { user_id, renamed: true, limits: limits(7), before: invited.limits.clone() };
    let users_key = KeyCreated {
        key_id: key_id(3),
        name: "Ada's".parse().unwrap(),
        digest: digest(9),
        owner: Some(user_id.into()),
        ..successor.clone()
    };
    let session_id = session_id();
    let started = SessionStarted {
        session_id,
        user_id,
        account_id: person_account,
        epoch: 2,
        methods: vec![AuthenticationMethod::Password, AuthenticationMethod::Totp],
        expires_at: LATER.parse().unwrap(),
    };
    let stepped_up = SessionSteppedUp { session_id, method: AuthenticationMethod::RecoveryCode };
    let session_ended = SessionEnded { session_id, reason: SessionEndReason::RefreshReused };
    let removed = UserRemoved { user_id, before: UserStateBefore::Active };
    let with_all = |number, event: Event| Envelope {
        actor: Principal::Organization(operator),
        credential: Some(key_id(9).into()),
        request: Some(RequestStamp { id: RequestId([2; 16]), content: RequestContent([3; 16]) }),
        causation_id: Some(EventId::from_parts(1_790_000_000_000, 1)),
        sealed: vec![Sealed {
            subject: Subject::organization_month(organization_id(), AT.parse().unwrap()),
            seal: "AQID".to_owned(),
        }],
        ..envelope(number, event)
    };
    let mut all = vec![
        (operator, envelope(1, installation.into())),
        (operator, envelope(2, activated.into())),
        (operator, envelope(3, plan.into())),
        (operator, envelope(4, role.into())),
        (operator, envelope(5, registered.into())),
        (operator, envelope(9, pepper.into())),
        (operator, envelope(26, signing.into())),
        (operator, envelope(27, retired_key.into())),
        (operator, envelope(37, other_rule.into())),
        (operator, envelope(38, rule_removed.into())),
        (operator, envelope(39, rule_defined.into())),
        (organization_id(), envelope(6, created.into())),
        (organization_id(), envelope(7, key_created().into())),
        (organization_id(), envelope(10, relabelled.into())),
        (organization_id(), envelope(11, account.into())),
        (organization_id(), envelope(12, policy.into())),
        (organization_id(), with_all(13, successor.into())),
        (organization_id(), envelope(14, rotated.into())),
        (organization_id(), envelope(15, KeyDisabled { key_id: key_id(2) }.into())),
        (organization_id(), envelope(16, KeyEnabled { key_id: key_id(2) }.into())),
        (organization_id(), envelope(17, ended.into())),
        (organization_id(), envelope(18, denials.into())),
        (organization_id(), envelope(20, role_created.into())),
        (organization_id(), envelope(21, role_updated.into())),
        (organization_id(), envelope(22, for_good.into())),
        (organization_id(), envelope(23, role_granted.into())),
        (organization_id(), envelope(24, grant_revoked.into())),
        (organization_id(), envelope(25, role_retired.into())),
        (organization_id(), person(envelope(26, invited.into()))),
        (organization_id(), envelope(27, renewed.into())),
        (
            organization_id(),
            envelope(
                28,
                UserJoined { user_id, account_id: person_account, email_proven: true }.into(),
            ),
        ),
        (organization_id(), person(envelope(29, updated.into()))),
        (organization_id(), envelope(30, users_key.into())),
        (organization_id(), envelope(31, started.into())),
        (organization_id(), envelope(32, stepped_up.into())),
        (organization_id(), envelope(33, session_ended.into())),
        (organization_id(), envelope(34, UserSuspended { user_id }.into())),
        (organization_id(), envelope(35, UserRestored { user_id }.into())),
        (organization_id(), envelope(36, removed.into())),
        (organization_id(), envelope(37, read.into())),
        (organization_id(), envelope(8, KeyRevoked { key_id: key_id(2), ..revoked }.into())),
    ];
    // What stands last is what the tests below take apart.
    let last = all.pop();
    let number = std::cell::Cell::new(60);
    let next = |event| envelope(number.replace(number.get() + 1), event);
    all.extend(break_glass::of_operator(next).into_iter().map(|it| (operator, it)));
    let own = break_glass::of_organization(next).into_iter();
    all.extend(own.map(|it| (organization_id(), it)));
    all.extend(last);
    all
}

/// The one type of event that stands in another stream.
fn usage_sample() -> Envelope {
    let used = |number, uses, at: &str| KeyUses {
        key_id: key_id(number),
        uses,
        last_used_at: at.parse().unwrap(),
    };
    let keys =
        vec![used(1, 41, "2026-11-22T09:59:59.000Z"), used(2, 1, "2026-11-22T09:55:00.000Z")];
    envelope(17, UsageRecorded { keys }.into())
}

fn account_id() -> AccountId {
    AccountId::from_parts(1_790_000_000_000, 1)
}

const EMAIL: EmailDigest = EmailDigest([5; 32]);

/// What stands in the stream of an e-mail.
fn email_samples() -> Vec<Envelope> {
    let account_id = account_id();
    let reserved = EmailReserved { email: EMAIL, account_id, until: LATER.parse().unwrap() };
    vec![
        envelope(40, reserved.clone().into()),
        envelope(41, EmailConfirmed { email: EMAIL, account_id }.into()),
        envelope(42, EmailReleased { email: EMAIL, account_id }.into()),
        envelope(40, reserved.into()),
    ]
}

/// What stands in an account's stream.
fn account_samples() -> Vec<Envelope> {
    let account_id = account_id();
    let keeps = Some(SessionId::from_parts(1_790_000_000_000, 1));
    let created =
        AccountCreated { account_id, email: EMAIL, personal_organization: Some(organization_id()) };
    let created = Envelope {
        sealed: vec![Sealed { subject: Subject::account(account_id), seal: "AQID".to_owned() }],
        ..envelope(50, created.into())
    };
    let password = PasswordSet { account_id, cause: PasswordCause::Change, keeps };
    let locked = AccountLocked { account_id, until: LATER.parse().unwrap() };
    let led = DefaultOrganizationSet {
        account_id,
        organization_id: organization_id(),
        before: Some(OrganizationId::OPERATOR),
    };
    let (expires_at, given_to) = (LATER.parse().unwrap(), ResetGivenTo::Issuer);
    let issued = PasswordResetIssued { account_id, expires_at, given_to };
    let by_owner = |number, event: Event| Envelope {
        actor: Principal::Account(account_id),
        ..envelope(number, event)
    };
    vec![
        created,
        by_owner(51, password.into()),
        by_owner(52, TotpEnrolled { account_id }.into()),
        by_owner(53, RecoveryCodesReplaced { account_id, codes: 10 }.into()),
        by_owner(54, RecoveryCodeUsed { account_id, left: 9 }.into()),
        by_owner(55, TotpRemoved { account_id }.into()),
        by_owner(56, SessionsEnded { account_id, keeps }.into()),
        envelope(57, locked.into()),
        by_owner(58, led.into()),
        Envelope {
            actor: Principal::Organization(OrganizationId::OPERATOR),
            ..envelope(59, issued.into())
        },
    ]
}

/// Every sample, whatever its stream.
fn all_samples() -> Vec<Envelope> {
    let mut all: Vec<_> = samples().into_iter().map(|(_, sample)| sample).collect();
    all.push(usage_sample());
    all.extend(email_samples());
    all.extend(account_samples());
    all
}

/// Stored events of older schemas, as they read today.
fn older() -> Vec<(u32, Event)> {
    let revoked = KeyRevoked {
        key_id: key_id(1),
        reason: RevocationReason::KeyCompromise,
        before: KeyStateBefore::Active,
    };
    // What earlier schemas did not know yet.
    let denials_without = |codes: &[DenialCode]| {
        let mut all = samples().into_iter().map(|(_, sample)| sample.event);
        let mut denials = all.find(|it| matches!(it, Event::DenialsSummarized(_))).unwrap();
        if let Event::DenialsSummarized(data) = &mut denials {
            data.denials.retain(|it| !codes.contains(&it.denial.code));
        }
        denials
    };
    let disabled = DenialCode::BreakGlassDisabled;
    let plan = PlanDefined {
        plan: "free".parse().unwrap(),
        rules: PlanRules { key_lifetime_max_seconds: Some(3_600), features: Vec::new() },
        before: Some(PlanRules::default()),
    };
    let successor = samples()
        .into_iter()
        .map(|(_, sample)| sample.event)
        .find(|it| matches!(it, Event::KeyCreated(data) if data.key_id == key_id(2)));
    let registered = OrganizationRegistered {
        organization_id: organization_id(),
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "free".parse().unwrap(),
        personal_of: None,
    };
    let OrganizationRegistered { organization_id, name, key_prefix, plan: its_plan, personal_of } =
        registered.clone();
    let begun =
        OrganizationCreated { organization_id, name, key_prefix, plan: its_plan, personal_of };
    let account =
        AccountCreated { account_id: account_id(), email: EMAIL, personal_organization: None };
    let invited = UserInvited {
        user_id: user_id(),
        email: EmailDigest([4; 32]),
        expires_at: AT.parse().unwrap(),
        limits: [("max_concurrent_bots".parse().unwrap(), 5)].into(),
        token: None,
    };
    let renewed = InvitationRenewed {
        user_id: user_id(),
        expires_at: LATER.parse().unwrap(),
        before: invited.expires_at,
        token: None,
    };
    let joined = UserJoined { user_id: user_id(), account_id: account_id(), email_proven: false };
    vec![
        (1, invited.into()),
        (1, renewed.into()),
        (1, joined.into()),
        (1, registered.into()),
        (1, begun.into()),
        (1, account.into()),
        (1, key_created().into()),
        (2, successor.unwrap()),
        (1, revoked.into()),
        (1, plan.into()),
        (1, denials_without(&[disabled, DenialCode::Suspended, DenialCode::DomainNotAllowed])),
        (2, denials_without(&[disabled, DenialCode::Suspended])),
        (3, denials_without(&[disabled])),
    ]
}

fn golden(event_type: &str, schema: u32) -> PathBuf {
    let name = format!("{event_type}.{schema}.json");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn write_missing() {
    // The last one of a type is its golden event: it has every field.
    for sample in all_samples().into_iter().rev() {
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
        assert!(all_samples().contains(&envelope), "{event_type} differs from its sample");
    }
    let files = std::fs::read_dir(golden("", 0).parent().unwrap()).unwrap();
    let schemas = files
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "json"))
        .count();
    assert!(schemas >= SCHEMAS.len(), "golden events are never removed");
}

#[test]
fn older_schemas_read_as_the_current_one_and_nothing_newer() {
    let older = older();
    assert_eq!(older.len(), OLDER_SCHEMAS.len());
    for (schema, expected) in older {
        let event_type = expected.event_type();
        assert!(OLDER_SCHEMAS.contains(&(event_type, schema)), "{event_type} {schema}");
        let stored = std::fs::read_to_string(golden(event_type, schema)).unwrap();
        assert_eq!(Envelope::decode(stored.as_bytes()).unwrap().event, expected);
    }
    // What came with a later schema is unknown to an earlier one.
    for (event_type, from, to) in [
        ("KeyCreated", r#""origin":"minted""#, r#""origin":"imported""#),
        ("KeyCreated", r#""limits":"#, r#""rate_limit":{"requests":1,"per_seconds":1},"limits":"#),
        (
            "PlanDefined",
            r#""key_lifetime_max_seconds":3600"#,
            r#""key_lifetime_max_seconds":3600,"features":["sso"]"#,
        ),
        ("KeyRevoked", r#""before":"active""#, r#""before":"disabled""#),
        ("DenialsSummarized", r#""code":"revoked""#, r#""code":"domain_not_allowed""#),
    ] {
        let stored = std::fs::read_to_string(golden(event_type, 1)).unwrap();
        let newer = stored.replacen(from, to, 1);
        assert_ne!(newer, stored);
        assert!(Envelope::decode(newer.as_bytes()).is_err(), "{newer}");
        let at_home = newer.replacen(r#""schema":1"#, r#""schema":2"#, 1);
        assert!(Envelope::decode(at_home.as_bytes()).is_ok(), "{at_home}");
    }
}

#[test]
fn the_golden_history_folds_to_the_golden_tables() {
    let mut operator = Organization::new(OrganizationId::OPERATOR);
    // The operator's own organization is created like every other; its event is of the same type.
    let mut organization = Organization::new(organization_id());
    for (owner, sample) in samples() {
        let stored = sample.encode().unwrap().0;
        let tables = if owner.is_operator() { &mut operator } else { &mut organization };
        let recorded = Recorded {
            stream: StreamName::organization(owner),
            revision: Revision::after(tables.revision()),
            leaf_hash: LeafHash::of(&stored),
            stored: stored.into(),
        };
        tables.apply(&recorded).unwrap();
    }
    let mut usage = Usage::new(organization_id());
    let leaf_hash = usage_sample().encode().unwrap().1;
    usage.apply_decoded(Revision::FIRST, leaf_hash, Ok(usage_sample())).unwrap();
    let mut email = Reservation::new(EMAIL);
    for sample in email_samples() {
        email.apply_next(&sample, sample.encode().unwrap().1).unwrap();
    }
    let mut account = Account::new(account_id());
    for sample in account_samples() {
        account.apply_next(&sample, sample.encode().unwrap().1).unwrap();
    }
    let tables =
        format!("{operator:#?}\n{organization:#?}\n{usage:#?}\n{email:#?}\n{account:#?}\n");
    expect_file!["golden/walk.tables.txt"].assert_eq(&tables);
}

#[test]
fn a_field_a_type_or_a_schema_that_is_unknown_is_refused() {
    let (stored, _) = samples().pop().unwrap().1.encode().unwrap();
    let text = String::from_utf8(stored).unwrap();
    assert!(Envelope::decode(text.as_bytes()).is_ok());
    for (from, to) in [
        (r#""schema":2"#, r#""schema":3"#),
        (r#""type":"KeyRevoked""#, r#""type":"KeyMended""#),
        (r#""reason":"key_compromise""#, r#""reason":"boredom""#),
        (r#""reason":"key_compromise""#, r#""reason":"key_compromise","extra":1"#),
        (r#""schema":2"#, r#""schema":2,"extra":1"#),
        (r#""schema":2"#, r#""schema":2,"schema":2"#),
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

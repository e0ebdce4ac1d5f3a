//! Snapshots and departures, over histories of every kind of event.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::break_glass;
use super::*;
use crate::api_key::Environment;
use crate::digest::{EmailDigest, SecretDigest, SigningKeyId, SigningPublicKey};
use crate::event::*;
use crate::key::{KEY_MEMORY_MS, Key};
use crate::network::{Networks, RateLimit};
use crate::permission::Scopes;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::sample::{
    account_id, definition, grant_id, role_granted, role_id, session_id, terms, user_id,
};
use crate::sealed::{Sealed, Subject};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What may come next: which event, of which target, and how much later.
type Choice = (u8, u8, u8, u8);

fn rule_pattern(number: u8) -> crate::permission::PermissionPattern {
    ["*:*", "a:*", "a:b", "*:b"][usize::from(number % 4)].parse().unwrap()
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec((0_u8..51 + break_glass::CHOICES, 0_u8..12, 0_u8..12, 0_u8..8), 0..140)
}

fn label(number: u8) -> KeyLabel {
    let description = (number.is_multiple_of(3)).then(|| "what for".parse().unwrap());
    KeyLabel { name: format!("key {}", number % 5).parse().unwrap(), description }
}

fn meaning(variety: u8) -> RoleDefinition {
    definition(&format!("role-{}", variety % 4), &["a:b", "*:read"][..usize::from(variety % 3)])
}

fn new_key(id: u8, variety: u8, now: i64) -> KeyCreated {
    let Event::KeyCreated(plain) = key_created(id, |key| {
        key.name = label(variety).name;
        key.prefix = (variety % 4 != 1).then(|| "vtx".parse().unwrap());
        key.hint = Hint::of("a1B2").filter(|_| variety % 4 != 1);
        key.environment =
            [None, Some(Environment::Live), Some(Environment::Test)][usize::from(variety % 3)];
        key.origin = [KeyOrigin::Minted, KeyOrigin::Imported, KeyOrigin::Configured]
            [usize::from(variety % 5).min(2) % 3];
        key.scopes = (variety != 7)
            .then(|| Scopes::new(&["dns:read", ["a:b", "c:d", "e:f"][usize::from(variety % 3)]]))
            .transpose()
            .unwrap();
    }) else {
        unreachable!()
    };
    KeyCreated {
        expires_at: (variety.is_multiple_of(2)).then(|| at(now + i64::from(variety) * DAY_MS)),
        digest: KeyedDigest {
            form: if variety % 4 == 1 { DigestForm::Sha256 } else { DigestForm::Text },
            ..plain.digest
        },
        owner: [
            None,
            Some(user_id(variety % 4).into()),
            Some(service_account_id(variety % 4).into()),
        ][usize::from(variety % 3)],
        allowed_ips: (variety == 4).then(|| Networks::new(&["10.0.0.0/8", "::1"]).unwrap()),
        rate_limit: (variety == 5).then(|| RateLimit::new(7, 60).unwrap()),
        roles: (0..variety % 3).map(role_id).collect(),
        services: (variety == 6).then(|| vec!["cdn".parse().unwrap()]),
        metadata: (0..variety % 3)
            .map(|n| (format!("m{n}").parse().unwrap(), "v".parse().unwrap()))
            .collect(),
        limits: (0..variety % 2).map(|n| (format!("l{n}").parse().unwrap(), -5)).collect(),
        ..plain
    }
}

/// The event of a choice. Many are impossible where they stand; those are passed over.
fn event((what, target, variety, _): Choice, now: i64, tables: &Organization) -> Event {
    let to_rotate = |id: &KeyId| {
        tables.key(*id).is_some_and(|it| it.revocation().is_none() && it.rotation().is_none())
    };
    let rotations = tables.keys_after(None).filter_map(|key| Some((key.predecessor()?, key.id)));
    let some_rotation = rotations.filter(|(old, _)| to_rotate(old)).last();
    let unrevoked = |key: &&Arc<Key>| key.revocation().is_none();
    let replaced = tables.keys_after(None).filter(|key| key.rotation().is_some());
    let some_replaced = replaced.filter(unrevoked).last().map(|key| key.id);
    let disabled = tables.keys_after(None).filter(|key| key.disabled().is_some());
    let some_disabled = disabled.filter(unrevoked).last().map(|key| key.id);
    let key = key_id(target);
    let other = OrganizationId::from_bytes([target + 20; 16]);
    let own = 100 + target % 4;
    match what {
        0..6 => new_key(target, variety, now).into(),
        6 | 22 => {
            KeyCreated { rotates: Some(key_id(variety)), ..new_key(target, variety, now) }.into()
        }
        7 | 8 => KeyRotated {
            key_id: some_rotation.map_or(key_id(variety), |(old, _)| old),
            successor: some_rotation.map_or(key, |(_, new)| new),
            ends_at: at(now + i64::from(variety / 3) * DAY_MS),
        }
        .into(),
        9 => KeyRotationEnded { key_id: some_replaced.unwrap_or(key), before: at(now) }.into(),
        10 | 11 => KeyRevoked {
            key_id: key,
            reason: [RevocationReason::Unspecified, RevocationReason::PrivilegeWithdrawn]
                [usize::from(variety % 2)],
            before: KeyStateBefore::Active,
        }
        .into(),
        12 => key_disabled(target),
        13 => KeyEnabled { key_id: some_disabled.unwrap_or(key) }.into(),
        14 | 15 => KeyRelabelled { key_id: key, label: label(variety), before: label(0) }.into(),
        16 => service_account_created(target % 4, &[variety]),
        17 => PolicyUpdated {
            policy: Policy {
                key_lifetime_max_seconds: (variety > 5).then_some(u32::from(variety)),
                rotation_grace_max_seconds: (variety > 8).then_some(0),
                allowed_ips_required: target % 2 == 0,
            },
            before: Policy::default(),
        }
        .into(),
        18 => role_defined(target, &["a:b", "*:read"][..usize::from(variety % 3)]),
        19 => OrganizationRegistered {
            organization_id: other,
            name: label(variety).name,
            key_prefix: format!("p{target}").parse().unwrap(),
            plan: "paid".parse().unwrap(),
            personal_of: Some(crate::id::AccountId::from_bytes([7; 16])),
        }
        .into(),
        20 => PepperRotated {
            pepper: u32::from(variety) + 2,
            pepper_check: SecretDigest([variety; 32]),
        }
        .into(),
        46 => SigningKeyAdded {
            signing_key_id: SigningKeyId([target; 16]),
            public_key: SigningPublicKey([variety; 32]),
        }
        .into(),
        47 => SigningKeyRetired { signing_key_id: SigningKeyId([target; 16]) }.into(),
        21 => PlanDefined {
            plan: format!("plan-{}", target % 3).parse().unwrap(),
            rules: PlanRules {
                key_lifetime_max_seconds: Some(u32::from(variety)),
                features: vec![format!("f{variety}").parse().unwrap()],
            },
            before: None,
        }
        .into(),
        33..46 => person_event((what, target, variety), now, tables),
        48 | 49 => PermissionRuleDefined {
            permission: rule_pattern(target),
            rule: PermissionRule {
                mfa: (variety % 2 == 0).then(MfaRule::default),
                feature: Some(format!("f{variety}").parse().unwrap()),
            },
            before: None,
        }
        .into(),
        50 => PermissionRuleRemoved {
            permission: rule_pattern(target),
            before: PermissionRule::default(),
        }
        .into(),
        51.. => break_glass::event((what - 51, target, variety), now, tables),
        32 if variety % 2 == 0 => HistoryRead {
            way: crate::event::WayOfReading::Exported,
            asked: Default::default(),
            and_more: false,
        }
        .into(),
        32 => DenialsSummarized {
            first_at: at(now),
            last_at: at(now),
            denials: Vec::new(),
            others: u64::from(variety),
        }
        .into(),
        24 | 25 => RoleCreated { role_id: role_id(own), definition: meaning(variety) }.into(),
        26 => {
            RoleUpdated { role_id: role_id(own), definition: meaning(variety), before: meaning(0) }
                .into()
        }
        27 => RoleRetired { role_id: role_id(own), name: meaning(0).name }.into(),
        28..=30 => {
            let domain = [None, Some("example.com"), Some("a.example")][usize::from(variety % 3)];
            let lasts = [None, Some(0), Some(DAY_MS), Some(20 * DAY_MS)][usize::from(variety % 4)];
            let terms = terms(target % 4, own, domain, lasts.map(|millis| now + millis));
            role_granted(target % 6 + variety % 2 * 6, terms)
        }
        31 => {
            GrantRevoked { grant_id: grant_id(target), before: terms(target % 4, own, None, None) }
                .into()
        }
        _ => SchemaActivated {
            schemas: vec![ActivatedSchema {
                event_type: format!("Type{target}"),
                schema: u32::from(variety),
            }],
        }
        .into(),
    }
}

/// As [`event`], of users and their sessions.
fn person_event((what, target, variety): (u8, u8, u8), now: i64, tables: &Organization) -> Event {
    let who = target % 4;
    let email = EmailDigest([variety % 4; 32]);
    let limits = || (0..variety % 3).map(|n| (format!("l{n}").parse().unwrap(), 5)).collect();
    let joined = tables.users_after(None).filter(|user| user.account_id.is_some());
    let some_member = joined.map(|user| (user.id, user.account_id.unwrap())).last();
    let standing = tables.users_after(None).flat_map(|user| tables.sessions_of(user.id, None));
    let some_session = standing.filter(|it| it.ended.is_none()).last().map(|it| it.id);
    let session = some_session.unwrap_or(session_id(target));
    let (member, account) = some_member.unwrap_or((user_id(who), account_id(who)));
    match what {
        33 | 34 => UserInvited {
            user_id: user_id(target),
            email,
            expires_at: at(now),
            limits: limits(),
            token: None,
        }
        .into(),
        35 => InvitationRenewed {
            user_id: user_id(who),
            expires_at: at(now + 5),
            before: at(now),
            token: Some(crate::event::TokenWay::Delivered),
        }
        .into(),
        36 | 37 => UserJoined {
            user_id: user_id(target),
            account_id: account_id(variety % 3),
            email_proven: variety % 2 == 0,
        }
        .into(),
        38 => UserUpdated {
            user_id: user_id(who),
            renamed: variety % 2 == 0,
            limits: limits(),
            before: limits(),
        }
        .into(),
        39 => UserSuspended { user_id: user_id(who) }.into(),
        40 => UserRestored { user_id: user_id(who) }.into(),
        41 => UserRemoved { user_id: user_id(target), before: UserStateBefore::Invited }.into(),
        42 | 43 => SessionStarted {
            session_id: session_id(target),
            user_id: member,
            account_id: account,
            epoch: u64::from(variety),
            methods: [AuthenticationMethod::Password, AuthenticationMethod::Totp]
                [..1 + usize::from(variety % 2)]
                .to_vec(),
            expires_at: at(now + i64::from(variety) * DAY_MS / 3),
        }
        .into(),
        44 => SessionSteppedUp {
            session_id: session,
            method: [AuthenticationMethod::Totp, AuthenticationMethod::Password]
                [usize::from(variety % 2)],
        }
        .into(),
        _ => SessionEnded {
            session_id: session,
            reason: [SessionEndReason::LoggedOut, SessionEndReason::RefreshReused]
                [usize::from(variety % 2)],
        }
        .into(),
    }
}

/// What an event of a user holds of them, sealed.
fn sealed(event: &Event, owner: OrganizationId) -> Vec<Sealed> {
    let user = if let Event::UserInvited(event) = event {
        event.user_id
    } else if let Event::UserUpdated(event) = event {
        event.user_id
    } else {
        return Vec::new();
    };
    vec![Sealed { subject: Subject::user(owner, user), seal: "AQ".to_owned() }]
}

/// The history that these choices make of one organization's stream: each event that can
/// follow the ones before it.
fn history(owner: OrganizationId, choices: &[Choice]) -> Vec<Envelope> {
    let mut tables = Organization::new(owner);
    let mut history = Vec::new();
    let mut now = 1_790_000_000_000;
    let mut push = |tables: &mut Organization, envelope: Envelope| {
        let before = tables.to_canonical();
        match tables.apply_next(&envelope, LeafHash::of(&[history.len() as u8])) {
            Ok(_) => history.push(envelope),
            Err(_) => assert_eq!(tables.to_canonical(), before, "a refused event changes nothing"),
        }
    };
    if owner.is_operator() {
        push(&mut tables, envelope(now, installation_created()));
    }
    let born = OrganizationCreated {
        organization_id: owner,
        name: "Acme".parse().unwrap(),
        key_prefix: "vtx".parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    };
    push(&mut tables, envelope(now, born.into()));
    for (number, choice) in choices.iter().enumerate() {
        let later = [0, 0, 1, 60_000, DAY_MS - 1, DAY_MS, 11 * DAY_MS, 31 * DAY_MS];
        now += later[usize::from(choice.3)];
        let byte = number as u8;
        let stamp = RequestStamp { id: RequestId([byte; 16]), content: RequestContent([1; 16]) };
        let event = event(*choice, now, &tables);
        let envelope = Envelope {
            sealed: sealed(&event, owner),
            actor: [Principal::Ledger, Principal::Organization(owner)][usize::from(byte % 2)],
            credential: (byte.is_multiple_of(3)).then(|| key_id(byte % 5).into()),
            request: (byte.is_multiple_of(2)).then_some(stamp),
            ..envelope(now, event)
        };
        push(&mut tables, envelope);
    }
    history
}

fn fold(tables: &mut Organization, history: &[Envelope]) {
    for envelope in history {
        let number = tables.revision().map_or(0, |it| it.0 + 1);
        tables.apply_next(envelope, LeafHash::of(&[number as u8])).unwrap();
    }
}

fn owners() -> impl Strategy<Value = OrganizationId> {
    prop_oneof![Just(ACME), Just(OrganizationId::OPERATOR)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// At every revision the bytes are those of the tables, they read back, and whoever goes
    /// on from them comes to the same bytes and hands on the same rows.
    #[test]
    fn a_snapshot_is_the_tables(owner in owners(), choices in choices(), cut in 0_usize..80) {
        let history = history(owner, &choices);
        let mut running = Organization::new(owner);
        let mut restored: Option<Organization> = None;
        for (number, envelope) in history.iter().enumerate() {
            fold(&mut running, std::slice::from_ref(envelope));
            let bytes = running.to_canonical();
            let read = Organization::from_canonical(&bytes).unwrap();
            prop_assert_eq!(&read, &running);
            prop_assert_eq!(&read.to_canonical(), &bytes);
            if let Some(restored) = &mut restored {
                fold(restored, std::slice::from_ref(envelope));
                prop_assert_eq!(&restored.to_canonical(), &bytes);
                prop_assert_eq!(restored.departed(), running.departed());
            }
            if number == cut {
                restored = Some(read);
            }
        }
        let mut rebuilt = Organization::new(owner);
        fold(&mut rebuilt, &history);
        prop_assert_eq!(rebuilt.to_canonical(), running.to_canonical());
    }

    /// A key leaves once, thirty days after its end and not before, and its row reads back.
    #[test]
    fn keys_leave_in_their_time(owner in owners(), choices in choices()) {
        let mut tables = Organization::new(owner);
        let mut made = 0;
        let mut left: Vec<Arc<Key>> = Vec::new();
        for envelope in history(owner, &choices) {
            let before = tables.clone();
            // The rules decide on what the fold will find.
            let decided_on = tables.as_of(envelope.at).into_owned();
            fold(&mut tables, std::slice::from_ref(&envelope));
            made += u64::from(matches!(envelope.event, Event::KeyCreated(_)));
            let is_due = |key: &Key| key.ends_for_good_at().is_some_and(|end| {
                end.saturating_add_millis(KEY_MEMORY_MS) <= envelope.at
            });
            for key in tables.departed() {
                prop_assert!(is_due(key) && before.key(key.id) == Some(key));
                prop_assert!(decided_on.key(key.id).is_none() && !key.is_configured());
                prop_assert_ne!(key.state(envelope.at), crate::key::KeyState::Active);
                prop_assert_eq!(&Key::from_canonical(&key.to_canonical()).unwrap(), &**key);
                left.push(Arc::clone(key));
            }
            for key in decided_on.keys_after(None) {
                // What is still there was made in this very instant, or has its time ahead.
                prop_assert!(!is_due(key) || before.head().is_some_and(|it| it.at == envelope.at));
            }
            prop_assert_eq!(tables.key_counts().0, made);
            prop_assert_eq!(tables.keys_here() as u64 + left.len() as u64, made);
        }
    }

    /// Bytes that are accepted are the bytes of the tables they make.
    #[test]
    fn damaged_bytes_are_refused_or_are_other_tables(
        owner in owners(),
        choices in choices(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        cut in any::<bool>(),
    ) {
        let mut tables = Organization::new(owner);
        fold(&mut tables, &history(owner, &choices));
        let whole = tables.to_canonical();
        let mut damaged = whole.clone();
        let place = at.index(damaged.len());
        if cut {
            damaged.truncate(place);
            prop_assert!(Organization::from_canonical(&damaged).is_err());
        } else {
            damaged[place] ^= 1 << bit;
            if let Ok(other) = Organization::from_canonical(&damaged) {
                prop_assert_eq!(other.to_canonical(), damaged);
            }
        }
        for key in tables.keys_after(None) {
            let mut damaged = key.to_canonical();
            let place = at.index(damaged.len());
            damaged[place] ^= 1 << bit;
            if let Ok(other) = Key::from_canonical(&damaged) {
                prop_assert_eq!(other.to_canonical(), damaged);
            }
        }
    }

    /// No bytes make the reader panic, or take more memory than they have.
    #[test]
    fn any_bytes_are_a_snapshot_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut formed = vec![crate::snapshot::FORM];
        formed.extend(&bytes);
        for bytes in [&bytes, &formed] {
            let _ = Organization::from_canonical(bytes);
            let _ = Key::from_canonical(bytes);
        }
    }
}

/// The generated histories come to what they are to test.
#[test]
fn the_histories_hold_every_event() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    let (mut left, mut requests) = (0, 0);
    for _ in 0..600 {
        let choices = choices().new_tree(&mut runner).unwrap().current();
        for owner in [ACME, OrganizationId::OPERATOR] {
            let mut tables = Organization::new(owner);
            for envelope in history(owner, &choices) {
                seen.insert(envelope.event.event_type());
                fold(&mut tables, &[envelope]);
                left += tables.departed().len();
                requests += tables.requests.len();
            }
        }
    }
    let elsewhere = |it: &&str| {
        *it == "UsageRecorded" || AccountFact::TYPES.contains(it) || EmailFact::TYPES.contains(it)
    };
    let all: std::collections::BTreeSet<_> =
        SCHEMAS.iter().map(|(name, _)| *name).filter(|it| !elsewhere(it)).collect();
    assert_eq!(seen, all, "but for those that stand in streams of their own");
    assert!(left > 500 && requests > 500, "{left} keys left, {requests} requests");
}

#[test]
fn what_left_is_spoken_of_no_more() {
    let month = 30 * DAY_MS;
    let mut tables = tables(
        ACME,
        &[
            created(),
            key_created(1, |key| key.expires_at = Some(at(10))),
            key_created(2, |_| {}),
            key_revoked(2),
            key_created(3, |key| {
                key.origin = KeyOrigin::Configured;
                key.name = "configured".parse().unwrap();
            }),
            key_revoked(3),
        ],
    );
    let missing = |name| Err(Fault::MissingTarget(name));
    check(&tables, month + 9, key_revoked(1), Ok(Change::Key(key_id(1))));
    check(&tables, month + 10, key_revoked(1), missing("KeyRevoked"));
    check(&tables, month + 10, relabelled(1, "key 1", "x"), missing("KeyRelabelled"));
    let ids =
        |tables: &Organization| -> Vec<_> { tables.departed().iter().map(|key| key.id).collect() };
    let revision = Revision::after(tables.revision()).0;
    tables.apply(&recorded(ACME, revision, &envelope(month + 10, key_created(4, |_| {})))).unwrap();
    assert_eq!(ids(&tables), [key_id(2), key_id(1)]);
    assert!(tables.key_named(&"key 1".parse().unwrap()).is_none());
    // What a start refused once it refuses for ever.
    assert!(tables.key(key_id(3)).unwrap().revocation().is_some());
    assert_eq!((tables.keys_here(), tables.key_counts()), (2, (4, 2)));
    let next = recorded(ACME, revision + 1, &envelope(month + 10, key_created(5, |_| {})));
    tables.apply(&next).unwrap();
    assert!(ids(&tables).is_empty());
}

/// However many keys end at once, no event waits for more than a bounded number of them.
#[test]
fn many_keys_leave_over_several_events() {
    let mut tables = Organization::new(ACME);
    fold(&mut tables, &[envelope(0, created())]);
    let many = DEPARTURES_MAX + 10;
    for number in 0..many {
        let Event::KeyCreated(key) = key_created(1, |key| key.expires_at = Some(at(1))) else {
            unreachable!()
        };
        let key_id = KeyId::from_parts(1, number as u128);
        let name = format!("key {number}").parse().unwrap();
        fold(&mut tables, &[envelope(0, KeyCreated { key_id, name, ..key }.into())]);
    }
    for (left, later) in [(DEPARTURES_MAX, 0), (0, 0), (10, 1), (0, 2)] {
        let envelope = envelope(31 * DAY_MS + later, quiet());
        fold(&mut tables, &[envelope]);
        assert_eq!(tables.departed().len(), left);
    }
    assert_eq!(tables.keys_here(), 0);
}

fn quiet() -> Event {
    PolicyUpdated { policy: Policy::default(), before: Policy::default() }.into()
}

#[test]
fn a_snapshot_of_another_form_is_refused() {
    let mut bytes = acme().to_canonical();
    assert!(Organization::from_canonical(&bytes).is_ok());
    bytes[0] += 1;
    assert!(Organization::from_canonical(&bytes).is_err());
}

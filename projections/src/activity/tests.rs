//! What entries say, and what they must not.

use std::collections::BTreeSet;

use super::*;
use crate::event::{PlanDefined, RoleDefinition};
use crate::event::{PlanRules, SCHEMAS};
use crate::sample::{ACME, envelope, key_created, key_id, key_revoked, role_defined};

fn sentence(event: Event) -> String {
    Entry::of(Revision(3), &envelope(5, event), |_| None).sentence
}

#[test]
fn every_type_of_event_has_an_action_of_its_own() {
    let types: BTreeSet<&str> = SCHEMAS.iter().map(|(event_type, _)| *event_type).collect();
    let told: BTreeSet<&str> = ACTIONS.iter().map(|(event_type, _)| *event_type).collect();
    assert_eq!(types, told);
    let names: BTreeSet<&str> = ACTIONS.iter().map(|(_, action)| *action).collect();
    assert_eq!(names.len(), ACTIONS.len(), "two types of events share an action");
    for name in names {
        let (what, done) = name.split_once('.').unwrap();
        let word =
            |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(word(what) && word(done), "{name}");
    }
}

#[test]
fn an_entry_says_who_what_on_what_and_why() {
    let mut revoked = envelope(5, key_revoked(1));
    revoked.actor = Principal::Organization(ACME);
    revoked.credential = Some(key_id(2).into());
    let ci = || "ci".parse::<Name>().ok();
    let entry = Entry::of(Revision(3), &revoked, |id| ci().filter(|_| id == key_id(1)));
    let (key, by) = (key_id(1), key_id(2));
    assert_eq!(
        entry.sentence,
        format!(
            "Key `ci` ({key}) was revoked by organization `{ACME}` with key `{by}`: key_compromise"
        )
    );
    assert_eq!((entry.action, entry.reason), ("key.revoked", Some("key_compromise")));
    assert_eq!((entry.target.id, entry.target.name), (TargetId::Key(key), ci()));
    let state = |text: &'static str| Some(Value::Text(text.into()));
    assert_eq!(
        entry.changes,
        [FieldChange { field: "state".into(), before: state("active"), after: state("revoked") }]
    );
    revoked.actor = Principal::Organization(OrganizationId::OPERATOR);
    revoked.credential = None;
    let entry = Entry::of(Revision(3), &revoked, |_| None);
    assert_eq!(entry.sentence, format!("Key `{key}` was revoked by the operator: key_compromise"));
}

#[test]
fn a_name_cannot_say_the_rest_of_the_sentence() {
    let event = key_created(1, |it| {
        it.name = "x` (key_1) was revoked by the operator: `".parse().unwrap();
    });
    assert_eq!(sentence(event).matches('`').count(), 2);
}

#[test]
fn what_stands_for_a_secret_is_no_part_of_an_entry() {
    let envelope = envelope(5, key_created(0x5a, |it| it.hint = None));
    let entry = format!("{:?}", Entry::of(Revision(3), &envelope, |_| None));
    let Event::KeyCreated(data) = &envelope.event else { panic!() };
    let digest = serde_json::to_string(&data.digest.blake3).unwrap();
    assert!(!entry.contains(digest.trim_matches('"')), "{entry}");
    assert!(!entry.contains("5a5a5a") && !entry.contains("90, 90"), "{entry}");
}

#[test]
fn what_stays_as_it_was_is_no_change() {
    let Event::BuiltInRoleDefined(mut role) = role_defined(1, &["dns:read"]) else { panic!() };
    role.before = Some(RoleDefinition {
        permissions: vec!["dns:*".parse().unwrap()],
        ..role.definition.clone()
    });
    let again = envelope(5, role.into());
    let entry = Entry::of(Revision(3), &again, |_| None);
    let fields: Vec<&str> = entry.changes.iter().map(|it| it.field.as_ref()).collect();
    assert_eq!(fields, ["permissions"]);
    assert!(entry.sentence.contains("was redefined by the ledger"), "{}", entry.sentence);
    let plan = PlanDefined {
        plan: "free".parse().unwrap(),
        rules: PlanRules { key_lifetime_max_seconds: None, ..Default::default() },
        before: None,
    };
    assert_eq!(sentence(plan.into()), "Plan `free` was defined by the ledger");
}

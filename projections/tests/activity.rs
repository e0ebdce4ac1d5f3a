//! What the activity log says of every event that was ever written.
//!
//! `golden/activity.txt` holds the entries of all golden events; `UPDATE_EXPECT=1`
//! rewrites it, and the diff is what you review.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken assumption should stop the test, wherever it stands"
)]

use std::path::Path;

use expect_test::expect_file;
use projections::activity::{
    Entry, FieldChange, Filter, Outcome, Value, action, terms_of, words, words_of,
};
use projections::envelope::Envelope;
use projections::event::SCHEMAS;
use projections::id::KeyId;
use projections::recorded::Revision;
use projections::text::Name;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The golden event of each type and schema that is written today.
fn events() -> Vec<Envelope> {
    let directory = root().join("tests/golden");
    let read = |(event_type, schema): &(&str, u32)| {
        let path = directory.join(format!("{event_type}.{schema}.json"));
        let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        Envelope::decode(&stored).unwrap()
    };
    SCHEMAS.iter().map(read).collect()
}

fn names(_: KeyId) -> Option<Name> {
    "ci-pipeline".parse().ok()
}

fn value(value: Option<&Value<'_>>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::Text(text)) => text.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Texts(texts)) => format!("{texts:?}"),
        Some(Value::Instant(at)) => at.to_string(),
    }
}

fn change(change: &FieldChange<'_>) -> String {
    let FieldChange { field, before, after } = change;
    format!("    {field}: {} → {}\n", value(before.as_ref()), value(after.as_ref()))
}

#[test]
fn every_event_says_what_it_is() {
    let mut text = String::new();
    for envelope in events() {
        let entry = Entry::of(Revision(1), &envelope, names);
        let Entry { action, target, outcome, reason, changes, sentence, .. } = &entry;
        text.push_str(&format!(
            "{} {}: {action} on {} {} {:?}, {outcome:?}, {reason:?}\n    {sentence}\n",
            envelope.event.event_type(),
            envelope.event.schema(),
            target.id.kind(),
            target.id,
            target.name,
        ));
        text.extend(changes.iter().map(change));
    }
    expect_file!["golden/activity.txt"].assert_eq(&text);
}

/// Identifiers cut to their prefix, as the docs write them.
fn shortened(sentence: &str) -> String {
    let word = |word: &str| {
        let trimmed = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        match trimmed.split_once('_') {
            Some((prefix, body)) if body.len() == 26 => {
                word.replace(trimmed, &format!("{prefix}_…"))
            }
            _ => word.to_owned(),
        }
    };
    sentence.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The page's table has a row for every type: its action, and its sentence as it reads.
#[test]
fn every_action_and_its_sentence_are_in_the_docs() {
    let page = std::fs::read_to_string(root().join("../docs/EVENTS.md")).unwrap();
    for envelope in events() {
        let entry = Entry::of(Revision(1), &envelope, names);
        let row = format!(
            "| `{}` | `{}` | {} |",
            envelope.event.event_type(),
            entry.action,
            shortened(&entry.sentence)
        );
        assert!(page.lines().any(|line| line == row), "docs/EVENTS.md lacks the row\n{row}");
    }
}

/// Every filter that asks for one thing that an event might have: what it has, and every
/// identifier that stands anywhere in it.
fn filters(envelope: &Envelope) -> Vec<Filter> {
    let none = Filter::default;
    let action = action(&envelope.event);
    let kind = format!("{}.*", action.split('.').next().unwrap());
    let mut filters = vec![
        Filter { actor: Some(envelope.actor), ..none() },
        Filter { credential: envelope.credential, ..none() },
        Filter { action: action.parse().ok(), ..none() },
        Filter { action: kind.parse().ok(), ..none() },
        Filter { correlation_id: Some(envelope.correlation_id.clone()), ..none() },
        Filter { outcome: Some(Outcome::Succeeded), ..none() },
        Filter { outcome: Some(Outcome::Denied), ..none() },
    ];
    let (stored, _) = envelope.encode().unwrap();
    let stored = String::from_utf8(stored).unwrap();
    let parts = stored.split(|c: char| !(c.is_ascii_alphanumeric() || "_-.:*".contains(c)));
    for part in parts.filter(|it| !it.is_empty()) {
        filters.push(Filter { target: Some(part.to_owned()), ..none() });
        filters.extend(words(part).map(|word| Filter { text: vec![word], ..none() }));
    }
    for fixed in ["operator", "policy", "credentials"] {
        filters.push(Filter { target: Some(fixed.to_owned()), ..none() });
    }
    filters
}

#[test]
fn whatever_a_filter_shows_an_index_finds() {
    let (mut shown, mut helped) = (0, 0);
    for envelope in events() {
        let terms = terms_of(&envelope);
        assert!(terms.is_sorted_by(|one, other| one < other), "none twice");
        for filter in filters(&envelope).into_iter().filter(|it| it.shows(&envelope)) {
            let wanted = filter.terms();
            assert!(wanted.iter().all(|it| terms.contains(it)), "{filter:?}: {envelope:?}");
            shown += 1;
            helped += usize::from(!wanted.is_empty());
        }
        let text = words_of(&envelope.event).into_iter().take(8).collect();
        let all =
            Filter { text, action: action(&envelope.event).parse().ok(), ..Filter::default() };
        assert!(all.shows(&envelope) && all.terms().iter().all(|it| terms.contains(it)));
    }
    assert!(shown > 500 && helped > 400, "{helped} of {shown}");
}

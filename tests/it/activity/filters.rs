//! Outcome, origin and words: held against a look at all entries.

use std::collections::BTreeSet;

use ipnet::IpNet;
use keyledger::proto::ListKeysRequest;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use unicode_normalization::UnicodeNormalization as _;

use super::super::support::refused;
use super::*;

const NAMES: [&str; 6] =
    ["Nightly build", "nightly-deploy", "ÜBER straße", "東京 office", "x'; DROP TABLE", "=1+1"];

/// Keys made and revoked from several places, and something that is denied.
async fn acme() -> Acme {
    let proxied = |launch: super::super::support::Launch| {
        launch.args(&["--trusted-proxies", "127.0.0.1,192.0.2.0/24,2001:db8::/32"])
    };
    let acme = Acme::on(Home::new(), proxied).await;
    for (number, name) in NAMES.into_iter().enumerate() {
        let origin = ["198.51.100.7", "198.51.100.200", "2a00::7"][number % 3];
        let caller = acme.admin.from(origin);
        let created = caller.create_key(scoped("", name, &["dns:read"])).await.unwrap();
        let id = created.key.unwrap().id;
        if number % 2 == 0 {
            revoke(&caller, "", &id, RevocationReason::KeyCompromise, "by hand").await;
        }
    }
    revoke_of_staff(&acme).await;
    let (_, nobody) = acme.key("nobody", &["dns:read"]).await;
    let list = acme.operator.with_key(&nobody).list_keys(ListKeysRequest::default()).await;
    refused(list, Code::PermissionDenied, "");
    // What was denied is recorded at the end.
    acme.restarted().await
}

/// What is neither a letter nor a digit parts words; case does not count.
fn split(text: &str, into: &mut BTreeSet<String>) {
    let mut word = String::new();
    let lower = text.nfc().collect::<String>().to_lowercase();
    for character in lower.nfc() {
        if character.is_alphanumeric() {
            word.push(character);
        } else if !word.is_empty() {
            into.insert(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        into.insert(word);
    }
}

/// The words of an entry, by the plainest reading.
fn words(entry: &ActivityEntry, event: &Value) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    split(&entry.action, &mut words);
    split(&entry.reason, &mut words);
    split(text(&event["data"], "name"), &mut words);
    for change in &entry.changes {
        for value in change.before.iter().chain(&change.after) {
            match value.kind.clone().unwrap() {
                field_value::Kind::Text(text) => split(&text, &mut words),
                field_value::Kind::Texts(list) => {
                    list.texts.iter().for_each(|text| split(text, &mut words));
                }
                field_value::Kind::Number(_) | field_value::Kind::Instant(_) => {}
            }
        }
    }
    words
}

/// All entries as this reader sees them, with their events.
async fn entries(acme: &Acme, reader: &Client) -> Vec<(ActivityEntry, Value)> {
    let events = stored(&acme.home, &acme.id);
    let mut entries = all(reader, &oldest_first(&acme.id)).await;
    // Behind them it is recorded who asks.
    assert!(entries.len() >= events.len());
    entries.truncate(events.len());
    entries.into_iter().zip(events).collect()
}

/// A filter shows what a look at all entries shows, in both directions.
async fn check(
    acme: &Acme,
    reader: &Client,
    filter: ActivityFilter,
    shows: impl Fn(&ActivityEntry, &Value) -> bool,
) -> usize {
    let entries = entries(acme, reader).await;
    let shown = entries.iter().filter(|(entry, event)| shows(entry, event));
    let mut expected: Vec<u64> = shown.map(|(entry, _)| entry.revision).collect();
    for order in [ActivityOrder::OldestFirst, ActivityOrder::NewestFirst] {
        let query = QueryActivityRequest {
            order: order.into(),
            page_size: 3,
            ..filtered(&acme.id, filter.clone())
        };
        let mut found = revisions(&all(reader, &query).await);
        found.retain(|revision| *revision < entries.len() as u64);
        assert_eq!(found, expected, "{filter:?}");
        expected.reverse();
    }
    expected.len()
}

#[tokio::test]
async fn outcome_and_origin_show_what_a_look_at_all_entries_shows() {
    let acme = acme().await;
    for outcome in [ActivityOutcome::Succeeded, ActivityOutcome::Denied] {
        let filter = ActivityFilter { outcome: outcome.into(), ..Default::default() };
        let found = check(&acme, &acme.operator, filter, |entry, _| entry.outcome() == outcome);
        assert!(found.await > 0, "{outcome:?}");
    }
    // The tenant is not shown where staff sits, so its filter never finds that either.
    let mut found = Vec::new();
    for reader in [&acme.operator, &acme.admin] {
        for network in [
            "127.0.0.1",
            "127.0.0.0/8",
            "198.51.100.7",
            "198.51.100.0/25",
            "198.51.100.0/24",
            "0.0.0.0/0",
            "2a00::/16",
            "::/0",
            "203.0.113.0/24",
        ] {
            let filter = ActivityFilter { origin_ip: network.into(), ..Default::default() };
            let single = || network.parse::<std::net::IpAddr>().unwrap().into();
            let net: IpNet = network.parse().unwrap_or_else(|_| single());
            let shows = |entry: &ActivityEntry, _: &Value| {
                let seen = entry.personal_data.as_ref().map(|it| it.origin_ip.as_str());
                let seen = seen.filter(|it| !it.is_empty());
                seen.is_some_and(|it| net.contains(&it.parse::<std::net::IpAddr>().unwrap()))
            };
            found.push(check(&acme, reader, filter, shows).await);
        }
    }
    let (operator, tenant) = found.split_at(found.len() / 2);
    assert!(operator[..8].iter().all(|it| *it > 0) && operator[8] == 0, "{operator:?}");
    assert!(tenant[0] < operator[0], "{tenant:?}: what staff did from here is withheld");
    assert_eq!(tenant[2..5], operator[2..5], "what it did itself is not");
    acme.server.stop().await;
}

/// Words of the log under all sorts of separators, and any text at all.
fn searches(known: Vec<String>) -> impl Strategy<Value = String> {
    let word = prop::sample::select(known);
    let known = prop::collection::vec((word, "[^\\p{L}\\p{N}]{1,3}", any::<bool>()), 1..4)
        .prop_map(|words| {
            let cased = |(word, part, upper): (String, String, bool)| {
                let upper = if upper && word.is_ascii() { word.to_uppercase() } else { word };
                format!("{part}{upper}{part}")
            };
            words.into_iter().map(cased).collect()
        });
    prop_oneof![4 => known, 1 => ".{0,220}", 1 => any::<String>(), 1 => "[ a-e]{1,30}"]
}

/// No text is syntax: it is refused, or shows exactly the entries that hold all its words.
#[tokio::test]
async fn any_text_is_refused_or_shows_what_holds_all_its_words() {
    let acme = acme().await;
    let entries = entries(&acme, &acme.operator).await;
    let words: Vec<_> = entries.iter().map(|(entry, event)| words(entry, event)).collect();
    let known: BTreeSet<String> = words.iter().flatten().cloned().collect();
    let searches = searches(known.into_iter().collect());
    let mut runner = TestRunner::deterministic();
    let (mut refusals, mut found) = (0, 0);
    for _ in 0..300 {
        let text = searches.new_tree(&mut runner).unwrap().current();
        let filter = ActivityFilter { text: text.clone(), ..Default::default() };
        let query = QueryActivityRequest { page_size: 1_000, ..filtered(&acme.id, filter) };
        let answer = acme.operator.query_activity(query).await;
        let mut wanted = BTreeSet::new();
        split(&text, &mut wanted);
        let bounds = (1..=8).contains(&wanted.len()) && text.chars().count() <= 200;
        if !bounds && !text.is_empty() {
            refused(answer, Code::InvalidArgument, "`filter.text`: must ");
            refusals += 1;
            continue;
        }
        let mut shown = revisions(&answer.unwrap().entries);
        shown.retain(|revision| *revision < words.len() as u64);
        let holds = words.iter().zip(0_u64..).filter(|(words, _)| wanted.is_subset(words));
        let mut expected: Vec<u64> = holds.map(|(_, revision)| revision).collect();
        expected.reverse();
        assert_eq!(shown, expected, "{text:?}");
        found += usize::from(!expected.is_empty());
    }
    assert!(refusals > 10 && found > 50, "{refusals} refused, {found} found");
    acme.server.stop().await;
}

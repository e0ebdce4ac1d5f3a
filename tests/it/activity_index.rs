//! The activity index of a running server: it changes what a query costs, and nothing else.

use std::collections::BTreeMap;

use keyledger::proto::{
    ActivityEntry, ActivityFacet, ActivityFilter, ActivityOutcome, QueryActivityRequest,
    RebuildActivityIndexRequest,
};
use tonic::Code;

use super::metrics::{Scrape, address, launched, wait};
use super::snapshots::verify_projections;
use super::support::{Acme, Client, Home, refused, scoped};

fn query(organization_id: &str, filter: ActivityFilter) -> QueryActivityRequest {
    QueryActivityRequest {
        organization_id: organization_id.into(),
        filter: Some(filter),
        ..Default::default()
    }
}

async fn all(client: &Client, mut query: QueryActivityRequest) -> Vec<ActivityEntry> {
    let mut entries = Vec::new();
    loop {
        let page = client.query_activity(query.clone()).await.unwrap();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return entries;
        }
        query.page_token = page.next_page_token;
    }
}

/// Waits until the index knows all that is recorded.
pub(crate) async fn indexed(operator: &Client) {
    loop {
        let status = operator.get_status(Default::default()).await.unwrap();
        if status.activity_index_behind == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What each of many filters shows, but for the records of who asked.
async fn shown(acme: &Acme, keys: &[String]) -> Vec<Vec<ActivityEntry>> {
    let none = ActivityFilter::default;
    let mut filters = vec![
        none(),
        ActivityFilter { action: "key.created".into(), ..none() },
        ActivityFilter { action: "key.*".into(), ..none() },
        ActivityFilter { actor: "operator".into(), ..none() },
        ActivityFilter { text: "key 7".into(), ..none() },
        ActivityFilter { outcome: ActivityOutcome::Denied.into(), ..none() },
        ActivityFilter { origin_ip: "127.0.0.0/8".into(), action: "key.*".into(), ..none() },
    ];
    filters.extend(keys.iter().map(|id| ActivityFilter { target_id: id.clone(), ..none() }));
    let mut shown = Vec::new();
    for filter in filters {
        let request = QueryActivityRequest { page_size: 7, ..query(&acme.id, filter) };
        let mut entries = all(&acme.operator, request).await;
        entries.retain(|entry| entry.action != "history.read");
        shown.push(entries);
    }
    shown
}

async fn history(acme: &Acme) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..12 {
        let request = scoped("", &format!("key {number}"), &["dns:read"]);
        keys.push(acme.admin.create_key(request).await.unwrap().key.unwrap().id);
    }
    for key in &keys[..5] {
        acme.admin.revoke("", key).await.unwrap();
    }
    keys
}

fn file(home: &Home) -> std::path::PathBuf {
    home.data().join("activity.db")
}

fn remove(home: &Home) {
    for file in ["activity.db", "activity.db-wal", "activity.db-shm"] {
        let _ = std::fs::remove_file(home.data().join(file));
    }
}

#[tokio::test]
async fn with_and_without_an_index_the_same_is_shown() {
    let acme = Acme::new().await;
    let keys = history(&acme).await;
    indexed(&acme.operator).await;
    let expected = shown(&acme, &keys).await;
    assert_eq!(expected[0].len(), 19);
    assert_eq!((expected[1].len(), expected[4].len(), expected[7].len()), (13, 1, 2));

    // While it is made anew, and once it is.
    let request = RebuildActivityIndexRequest {};
    acme.operator.rebuild_activity_index(request).await.unwrap();
    assert_eq!(shown(&acme, &keys).await, expected);
    indexed(&acme.operator).await;
    assert_eq!(shown(&acme, &keys).await, expected);

    // One that is there is gone on with; one that is gone, or none, is made anew.
    let mut acme = acme.restarted().await;
    assert_eq!(shown(&acme, &keys).await, expected);
    acme = acme.restarted_after(remove).await;
    assert_eq!(shown(&acme, &keys).await, expected);
    indexed(&acme.operator).await;
    assert_eq!(shown(&acme, &keys).await, expected);
    let wreck = |home: &Home| {
        remove(home);
        std::fs::write(file(home), "no database".repeat(1_000)).unwrap();
        let verified = verify_projections(home);
        let unusable = verified["unusable"].as_str().unwrap();
        assert!(unusable.starts_with("activity.db: "), "{unusable}");
    };
    acme = acme.restarted_after(wreck).await;
    indexed(&acme.operator).await;
    assert_eq!(shown(&acme, &keys).await, expected);

    // One of another history.
    let other = Acme::new().await;
    history(&other).await;
    indexed(&other.operator).await;
    other.server.stop().await;
    let exchange = |home: &Home| {
        remove(home);
        std::fs::copy(file(&other.home), file(home)).unwrap();
        assert_eq!(verify_projections(home)["activity_index_differs"], true);
    };
    acme = acme.restarted_after(exchange).await;
    assert_eq!(shown(&acme, &keys).await, expected);
    indexed(&acme.operator).await;
    assert_eq!(shown(&acme, &keys).await, expected);

    let denied = acme.admin.rebuild_activity_index(request).await;
    refused(denied, Code::PermissionDenied, "operator");
    acme.server.stop().await;
    let verified = verify_projections(&acme.home);
    assert_eq!(verified["activity_index_differs"], false, "{verified}");
}

#[tokio::test]
async fn an_index_that_was_tampered_with_shows_nothing_false_and_is_found_out() {
    let acme = Acme::new().await;
    let keys = history(&acme).await;
    indexed(&acme.operator).await;
    let expected = shown(&acme, &keys).await;
    let tamper = |home: &Home| {
        assert_eq!(verify_projections(home)["activity_index_differs"], false);
        spoil(&rusqlite::Connection::open(file(home)).unwrap());
        assert_eq!(verify_projections(home)["activity_index_differs"], true);
    };
    let acme = acme.restarted_after(tamper).await;
    assert_eq!(shown(&acme, &keys).await, expected);
    acme.server.stop().await;
}

/// What the server says of itself behind a check: how often an index was found damaged.
const DAMAGED: &str = "keyledger_activity_index_damaged_total";

#[tokio::test]
async fn an_index_that_hides_events_is_found_out_while_the_server_runs_and_made_anew() {
    let acme = Acme::new().await;
    let keys = history(&acme).await;
    indexed(&acme.operator).await;
    let expected = shown(&acme, &keys).await;
    let hide = |home: &Home| {
        hide(&rusqlite::Connection::open(file(home)).unwrap());
        assert_eq!(verify_projections(home)["activity_index_differs"], true);
    };
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    hide(&home);
    let mut server = launched(home.launch()).start().await;
    let metrics = address(&mut server.process);
    let operator = server.client(&home.admin_key());
    let admin = operator.with_key(&admin_secret);
    let acme = Acme { home, server, operator, id, admin, admin_secret };
    wait(metrics, DAMAGED, 1.0).await;
    // From here on nothing is hidden: neither while it is made anew nor behind that.
    assert_eq!(shown(&acme, &keys).await, expected);
    indexed(&acme.operator).await;
    assert_eq!(shown(&acme, &keys).await, expected);
    assert_eq!(Scrape::of(metrics).value(DAMAGED), 1.0);
    let Acme { home, server, .. } = acme;
    let said = server.stop().await;
    assert!(said.contains("may have hidden events"), "{said}");
    assert_eq!(verify_projections(&home)["activity_index_differs"], false);

    // One that is whole is looked at, and left alone.
    let mut server = launched(home.launch()).start().await;
    let metrics = address(&mut server.process);
    server
        .process
        .wait_for(|line| line.contains("the activity index is what history says").then_some(()));
    assert_eq!(Scrape::of(metrics).value(DAMAGED), 0.0);
    server.stop().await;
}

/// Takes most events away from most terms, and leaves them what they need to be looked at.
fn hide(database: &rusqlite::Connection) {
    let words = "CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, terms, instance)";
    database.execute_batch(words).unwrap();
    let mut words = database.prepare("SELECT doc, term FROM temp.words").unwrap();
    let mut rows = BTreeMap::<i64, Vec<String>>::new();
    for word in words.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap() {
        let (row, word) = word.unwrap();
        rows.entry(row).or_default().push(word);
    }
    database.execute("INSERT INTO terms(terms) VALUES ('delete-all')", []).unwrap();
    for (row, mut words) in rows {
        words.retain(|it| row % 5 == 0 || it.starts_with('r') && it.len() == 11);
        let put = "INSERT INTO terms (rowid, of_event) VALUES (?1, ?2)";
        database.execute(put, (row, words.join(" "))).unwrap();
    }
}

/// Gives every event every term that any has.
fn spoil(database: &rusqlite::Connection) {
    let terms = "SELECT DISTINCT term FROM temp.words";
    database
        .execute_batch("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, terms, row)")
        .unwrap();
    let mut terms = database.prepare(terms).unwrap();
    let terms: Vec<String> =
        terms.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = "SELECT number, revision FROM organizations";
    let mut rows = database.prepare(rows).unwrap();
    let rows: Vec<(i64, i64)> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    database.execute("INSERT INTO terms(terms) VALUES ('delete-all')", []).unwrap();
    for (number, last) in rows {
        for revision in 0..=last {
            let row = (number << 40) + revision;
            let put = "INSERT INTO terms (rowid, of_event) VALUES (?1, ?2)";
            database.execute(put, (row, terms.join(" "))).unwrap();
        }
    }
}

#[tokio::test]
async fn kinds_are_counted_over_all_that_a_filter_shows() {
    let acme = Acme::new().await;
    history(&acme).await;
    let facets = [
        ActivityFacet::Action,
        ActivityFacet::Outcome,
        ActivityFacet::Actor,
        ActivityFacet::TargetKind,
        ActivityFacet::Credential,
    ];
    let asked = |filter| QueryActivityRequest {
        facets: facets.iter().map(|it| (*it).into()).collect(),
        page_size: 2,
        ..query(&acme.id, filter)
    };
    // Up to here: later it is recorded who asks.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let all_of_it = all(&acme.operator, query(&acme.id, ActivityFilter::default())).await;
    let mut to = all_of_it[0].at.unwrap();
    to.nanos += 1;
    let none = || ActivityFilter { to: Some(to), ..Default::default() };
    let key = all_of_it[0].credential_id.clone();
    for filter in [
        none(),
        ActivityFilter { action: "key.*".into(), ..none() },
        ActivityFilter { text: "7".into(), ..none() },
        ActivityFilter { origin_ip: "10.0.0.1".into(), ..none() },
        ActivityFilter { credential_id: key, origin_ip: "127.0.0.1".into(), ..none() },
    ] {
        let entries = all(&acme.operator, query(&acme.id, filter.clone())).await;
        let answer = acme.operator.query_activity(asked(filter)).await.unwrap();
        let found = answer.facets.unwrap();
        assert!(found.complete && found.counted_from.is_none());
        assert_eq!(found.entries, entries.len() as u64);
        for (facet, counts) in facets.iter().zip(&found.facets) {
            assert_eq!(counts.facet(), *facet);
            let mut expected = BTreeMap::<String, u64>::new();
            for entry in &entries {
                let value = match facet {
                    ActivityFacet::Action => entry.action.clone(),
                    ActivityFacet::Credential => entry.credential_id.clone(),
                    ActivityFacet::TargetKind => entry.target.as_ref().unwrap().kind.clone(),
                    ActivityFacet::Outcome => match entry.outcome() {
                        ActivityOutcome::Denied => "denied".to_owned(),
                        ActivityOutcome::Unspecified | ActivityOutcome::Succeeded => {
                            "succeeded".to_owned()
                        }
                    },
                    ActivityFacet::Unspecified | ActivityFacet::Actor => continue,
                };
                *expected.entry(value).or_default() += 1;
            }
            let told: BTreeMap<_, _> =
                counts.counts.iter().map(|it| (it.value.clone(), it.entries)).collect();
            let sum: u64 = told.values().sum();
            assert_eq!(sum + counts.other_entries, found.entries);
            if *facet != ActivityFacet::Actor {
                assert_eq!((told, counts.other_values), (expected, 0));
            } else if !entries.is_empty() {
                assert!(told.contains_key(&acme.id) || told.contains_key("operator"), "{told:?}");
            }
        }
    }
    for wrong in [vec![0], vec![99], vec![1, 1]] {
        let request = QueryActivityRequest { facets: wrong, ..query(&acme.id, none()) };
        refused(acme.operator.query_activity(request).await, Code::InvalidArgument, "`facets");
    }
    acme.server.stop().await;
}

//! What is stored cannot be changed by accident, and a change is noticed.

use super::*;

/// Three streams of four events each, written in turn.
fn made(options: &Options) {
    let store = EmbeddedStore::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in 0..4_u64 {
        for name in ["a", "b", "c"] {
            let expected = number.checked_sub(1).map(Revision);
            let append =
                store.append(&stream(name), expected, vec![event(number, 300)], Urgency::Normal);
            runtime.block_on(append).unwrap();
        }
    }
}

#[test]
fn the_tables_take_only_what_comes_next() {
    let root = directory();
    let options = options(root.path().join("data"));
    made(&options);
    let connection = foreign(&options);
    let columns = "(position, stream, revision, stored, leaf_hash, place_check)";
    for refused in [
        "UPDATE events SET stored = x'00' WHERE position = 1".to_owned(),
        "UPDATE OR REPLACE events SET position = 2 WHERE position = 1".to_owned(),
        "DELETE FROM events".to_owned(),
        "DELETE FROM events WHERE position = 12".to_owned(),
        format!("INSERT OR REPLACE INTO events {columns} VALUES (1, 1, 0, x'', x'', 0)"),
        format!("INSERT OR REPLACE INTO events {columns} VALUES (12, 1, 4, x'', x'', 0)"),
        format!("INSERT OR REPLACE INTO events {columns} VALUES (13, 1, 3, x'', x'', 0)"),
        format!("INSERT OR IGNORE INTO events {columns} VALUES (13, 1, 3, x'', x'', 0)"),
        format!("INSERT INTO events {columns} VALUES (14, 1, 4, x'', x'', 0)"),
        format!("INSERT INTO events {columns} VALUES (13, 1, 5, x'', x'', 0)"),
        format!("INSERT INTO events {columns} VALUES (NULL, 1, 4, x'', x'', 0)"),
        format!(
            "INSERT INTO events {columns} VALUES (12, 1, 3, x'', x'', 0)
             ON CONFLICT DO UPDATE SET stored = x'00'"
        ),
        "UPDATE streams SET name = 'org-z' WHERE stream = 1".to_owned(),
        "DELETE FROM streams".to_owned(),
        "INSERT OR REPLACE INTO streams (stream, name) VALUES (1, 'org-z')".to_owned(),
        "INSERT OR REPLACE INTO streams (stream, name) VALUES (4, 'org-a')".to_owned(),
    ] {
        let found = connection.execute_batch(&refused);
        let said = found.expect_err(&refused).to_string();
        assert!(said.contains("never") || said.contains("only the next"), "{refused}: {said}");
    }
    let next = format!("INSERT INTO events {columns} VALUES (13, 1, 4, x'', x'', 0)");
    connection.execute_batch(&next).unwrap();
}

/// After an edit, reading all gives at least one error, and all of `sound` streams.
fn check(edit: &str, sound: &[&str]) {
    let root = directory();
    let options = options(root.path().join("data"));
    made(&options);
    edit_behind(&options, edit);
    let store = EmbeddedStore::open(&options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let items = store.read_all(None, 100).await.unwrap();
        assert!(items.iter().any(Result::is_err), "{edit}: no error in {items:?}");
        for name in sound {
            let from_all: Vec<_> = items
                .iter()
                .flatten()
                .map(|item| item.recorded.clone())
                .filter(|recorded| recorded.stream == stream(name))
                .collect();
            let read = store.read_stream(&stream(name), Revision::FIRST, 100).await.unwrap();
            assert_eq!(from_all.len(), 4, "{edit}: {name}");
            assert_eq!(from_all, read, "{edit}: {name}");
        }
    });
}

#[test]
fn damage_to_any_column_is_reported_and_hides_no_other_stream() {
    // Position 5 is b's revision 1; 11 is b's last.
    for row in [5, 11] {
        for (edit, sound) in [
            ("stored = x'7b7d'", ["a", "c"]),
            ("stored = x''", ["a", "c"]),
            ("leaf_hash = zeroblob(32)", ["a", "c"]),
            ("leaf_hash = x''", ["a", "c"]),
            ("revision = 9", ["a", "c"]),
            ("revision = -9", ["a", "c"]),
            ("stream = 9", ["a", "c"]),
            ("position = 99", ["a", "c"]),
            ("position = -99", ["a", "c"]),
            ("place_check = 0", ["a", "c"]),
            ("place_check = -1", ["a", "c"]),
        ] {
            check(&format!("UPDATE events SET {edit} WHERE position = {row}"), &sound);
        }
    }
    check("UPDATE streams SET name = 'org-z' WHERE stream = 2", &["a", "c"]);
    check("UPDATE streams SET stream = 9 WHERE stream = 2", &["a", "c"]);
    check("DELETE FROM streams WHERE stream = 2", &["a", "c"]);
    check("DELETE FROM events WHERE position = 5", &["a", "c"]);
    check("DELETE FROM events WHERE position BETWEEN 2 AND 11", &[]);
    // The end of one stream made the end of another, where it fits.
    check(
        "DELETE FROM events WHERE position = 12;
         UPDATE events SET stream = 3, revision = 3, position = 12 WHERE position = 11",
        &["a"],
    );
    // Two events of one stream exchanged.
    check(
        "UPDATE events SET revision = 77 WHERE position = 5;
         UPDATE events SET revision = 1 WHERE position = 8;
         UPDATE events SET revision = 2 WHERE position = 5",
        &["a", "c"],
    );
}

#[tokio::test]
async fn a_stream_that_ends_in_damage_takes_no_more() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    for name in ["a", "b"] {
        store.append(&stream(name), None, vec![event(0, 100)], Urgency::Normal).await.unwrap();
    }
    drop(store);
    edit_behind(&options, "UPDATE events SET stored = x'00' WHERE position = 1");
    let store = EmbeddedStore::open(&options).unwrap();
    let refused =
        store.append(&stream("a"), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    store
        .append(&stream("b"), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_damaged_page_hides_only_the_events_on_it() {
    const EVENTS: u64 = 1_000;
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    let events = (0..EVENTS).map(|number| event(number, 500)).collect();
    store.append(&stream("a"), None, events, Urgency::Normal).await.unwrap();
    drop(store);
    let page: u64 = foreign(&options)
        .query_row(
            "SELECT pageno FROM dbstat WHERE name = 'events' AND pagetype = 'leaf'
             ORDER BY path LIMIT 1 OFFSET 40",
            [],
            |row| row.get::<_, u32>(0),
        )
        .unwrap()
        .into();
    let path = options.directory.join("ledger.db");
    let mut bytes = fs::read(&path).unwrap();
    let start = usize::try_from((page - 1) * 4_096).unwrap();
    bytes[start..start + 4_096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let store = EmbeddedStore::open(&options).unwrap();
    let (mut after, mut sound, mut errors) = (None, 0, 0);
    loop {
        let items = store.read_all(after, 100).await.unwrap();
        let Some(last) = items.last() else { break };
        after = Some(match last {
            Ok(item) => item.position,
            Err((position, _)) => *position,
        });
        sound += items.iter().filter(|item| item.is_ok()).count();
        errors += items.iter().filter(|item| item.is_err()).count();
    }
    assert_eq!(errors, 1);
    assert!((980..1_000).contains(&sound), "{sound} of {EVENTS} events");
}

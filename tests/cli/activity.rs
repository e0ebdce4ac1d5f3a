//! What happened, as people and scripts read it.

use expect_test::expect_file;

use crate::harness::{Scene, on_terminal};

#[test]
fn what_happened_reads_well() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let made = scene.run(&format!("key create --org {org} --name ci --scope dns:read --json"));
    let made = made.json();
    let id = made["key"]["id"].as_str().unwrap();
    let secret = made["secret"].as_str().unwrap().to_owned();
    scene.run(&format!(
        "key revoke {id} --org {org} --reason key-compromise --comment 'in a log' \
         --correlation-id inc-7"
    ));
    scene.run(&format!("activity --org {org}"));
    scene.run(&format!("activity --org {org} --oldest-first --limit 1"));
    // Who asked is in it, too.
    scene.run(&format!("activity --org {org} --oldest-first --limit 1 --action history.read"));
    for filter in [
        "--action key.revoked",
        "--action key.* --actor operator --from 1h",
        "--correlation inc-7",
        "--correlation inc-7 --limit 1",
        "--target policy",
        "--to 2020-01-01",
        "--text CREATED,dns",
        "--text 'created nobody'",
        "--outcome denied",
        "--outcome succeeded --origin 127.0.0.0/8 --action key.revoked",
        "--origin 192.0.2.0/24",
        "--action key.* --count-by action --count-by target-kind",
        "--text nobody --count-by outcome --json",
    ] {
        scene.run(&format!("activity --org {org} {filter}"));
    }
    scene.run(&format!("activity --org {org} --target {id}"));
    // A line is an object.
    let admin = admin(&made);
    let line = format!("activity --org {org} --key {admin} --action key.* --json --limit 2");
    let lines = scene.run(&line);
    let actions: Vec<String> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["key.revoked", "key.created"]);
    assert!(!lines.stdout.contains(&secret));
    // What is wrong is said by its name.
    for wrong in [
        "--action key.mended",
        "--from yesterday",
        "--from 2026-02-30",
        "--from 2026-11-22 --to 2026-11-21",
        "--key nonsense",
        "--actor nobody",
        "--target nothing",
        "--outcome perhaps",
        "--origin 10.0.0.1/8",
        "--text ***",
    ] {
        let refused = scene.run(&format!("activity --org {org} {wrong}"));
        assert_ne!(refused.code, 0, "{wrong}");
    }
    scene.run("activity");
    scene.check(&expect_file!["golden/activity.txt"]);
}

fn admin(made: &serde_json::Value) -> &str {
    made["key"]["created_with"].as_str().unwrap()
}

/// On a terminal of 80 columns no line is longer.
#[test]
fn the_table_fits_a_terminal() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let shown = on_terminal(&mut scene.command(&format!("activity --org {org}")));
    assert!(shown.lines().count() > 3, "{shown}");
    for line in shown.lines() {
        assert!(line.trim_end().chars().count() <= 80, "{line}");
    }
    assert!(shown.replace(char::is_whitespace, "").contains("wascreatedbytheoperator"), "{shown}");
}

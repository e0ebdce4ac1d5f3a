//! The log as a file, as people and scripts make one.

use std::os::unix::fs::PermissionsExt as _;

use expect_test::expect_file;

use crate::harness::{Scene, on_terminal, output};

#[test]
fn an_export_reads_well() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let other = scene.organization("Globex", "glx");
    for name in ["ci", "=1+1"] {
        let line = format!("key create --org {org} --name {name} --scope dns:read --json");
        assert_eq!(output(&mut scene.command(&line), "").code, 0);
    }
    // What cannot be followed.
    for wrong in
        ["--follow --to 1h", "-f --limit 3", "--after-revision 3", "-f --after-revision 99"]
    {
        let refused = scene.run(&format!("activity --org {org} {wrong}"));
        assert_ne!(refused.code, 0, "{wrong}");
    }
    let stdout = |filter: &str| {
        let line = format!("export --org {org} {filter}");
        let exported = output(&mut scene.command(&line), "");
        assert_eq!((exported.code, exported.stderr.as_str()), (0, ""), "{line}");
        exported.stdout
    };
    // To standard output: the bytes, and nothing else anywhere.
    let events = stdout("");
    let types: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["OrganizationCreated", "KeyCreated", "KeyCreated"]);
    let table = stdout("--format csv --text ci");
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("\"at\",\"revision\""), "{table}");
    assert!(stdout("--format csv").contains("\"'=1+1\""));
    let ocsf = stdout("--format ocsf --action organization.created");
    let event: serde_json::Value = serde_json::from_str(&ocsf).unwrap();
    assert_eq!(event["type"], "io.keyledger.organization.created");
    // Into a file.
    let line = format!("export --org {org} --format csv --action key.* --output log.csv");
    let exported = output(&mut scene.command(&line), "");
    assert_eq!((exported.code, exported.stdout.as_str()), (0, ""), "{}", exported.stderr);
    let again = stdout("--format csv --action key.*");
    assert_eq!(std::fs::read_to_string(scene.path("log.csv")).unwrap(), again);
    let mode = std::fs::metadata(scene.path("log.csv")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // On a terminal there is a bar, and it is gone at the end.
    let line = format!("export --org {org} --output bar.jsonl");
    let shown = on_terminal(&mut scene.command(&line));
    assert!(shown.contains("exported: `bar.jsonl`"), "{shown}");
    // Behind what was there before it is recorded who exported.
    let exported = std::fs::read_to_string(scene.path("bar.jsonl")).unwrap();
    let behind = exported.strip_prefix(&events).expect("the same bytes");
    assert!(behind.lines().all(|line| line.contains("\"HistoryRead\"")), "{behind}");
    assert_ne!(behind, "");
    // What is wrong is said, and leaves nothing behind.
    let before = std::fs::read_dir(scene.path("")).unwrap().count();
    for wrong in [
        "--output log.csv",
        "--output none/log.csv",
        "--output new.csv --resume",
        "--output new.csv --resume --format csv",
        "--output new.csv --resume --from 1h",
        "--resume",
        "--format xml",
        "--output new.csv --from 2026-02-30",
        "--output new.csv --from 2026-11-22 --to 2026-11-21",
        "--output new.csv --text ***",
    ] {
        let refused = scene.run(&format!("export --org {org} {wrong}"));
        assert_ne!(refused.code, 0, "{wrong}");
    }
    assert_eq!(scene.run("export --output new.csv --org org_00000000000000000000000009").code, 1);
    assert_eq!(std::fs::read_dir(scene.path("")).unwrap().count(), before, "{other}");
    scene.check(&expect_file!["golden/export.txt"]);
}

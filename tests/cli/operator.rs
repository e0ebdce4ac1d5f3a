//! `operator reissue`: offline, and never beside a server.

use std::os::unix::fs::PermissionsExt as _;

use expect_test::expect_file;

use crate::harness::{Scene, on_terminal};

#[test]
fn a_new_operator_key_takes_the_place_of_the_old_one() {
    let mut scene = Scene::new();
    let file = scene.path("keyledger-data/admin.key");
    let old = std::fs::read_to_string(&file).unwrap();
    assert_eq!(scene.run("operator reissue").code, 2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), old, "a refusal changes nothing");
    scene.organization("Acme", "vtx");
    scene.stop();
    let reissued = scene.run("operator reissue");
    assert_eq!(reissued.code, 0);
    let new = std::fs::read_to_string(&file).unwrap();
    assert_ne!(new, old);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // It is on no pipe.
    assert!(!reissued.stdout.contains(new.trim()) && !reissued.stderr.contains(new.trim()));
    let server = scene.start();
    assert!(!server.said.iter().any(|line| line.contains("klop_")), "{:?}", server.said);
    assert_eq!(scene.run("org list").code, 0);
    assert_eq!(scene.run_with("org list", "", &[("KEYLEDGER_API_KEY", old.trim())]).code, 1);
    scene.stop();
    assert_eq!(scene.run("operator reissue --json --data-dir keyledger-data").code, 0);
    scene.check(&expect_file!["golden/reissue.txt"]);
}

#[test]
fn nothing_is_made_where_there_is_no_installation() {
    let mut scene = Scene::without_server();
    assert_eq!(scene.run("operator reissue").code, 2);
    assert_eq!(scene.run("operator reissue --data-dir elsewhere").code, 2);
    assert_eq!(scene.run("operator reissue --config missing.toml").code, 2);
    assert!(!scene.path("keyledger-data").exists() && !scene.path("elsewhere").exists());
    scene.check(&expect_file!["golden/no-installation.txt"]);
}

#[test]
fn a_terminal_is_shown_the_new_key() {
    let mut scene = Scene::new();
    scene.stop();
    let shown = on_terminal(&mut scene.command("operator reissue"));
    let new = std::fs::read_to_string(scene.path("keyledger-data/admin.key")).unwrap();
    assert!(shown.contains(&format!("It is shown this once: {}", new.trim())), "{shown}");
}

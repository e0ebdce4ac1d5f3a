//! What somebody new does wrong, and what they are told.

use std::process::Command;

use expect_test::expect_file;

use crate::harness::{Output, Scene, keyledger, output};

fn made(scene: &mut Scene, line: &str) -> String {
    let made = scene.run(&format!("{line} --json"));
    assert_eq!(made.code, 0, "{}", made.stderr);
    made.json()["key"]["id"].as_str().unwrap().to_owned()
}

fn listed_as(scene: &mut Scene, org: &str, name: &str) -> String {
    let line = format!("key list --org {org} --name-prefix {name} --json");
    quietly(&mut scene.command(&line)).json()["keys"][0]["id"].as_str().unwrap().to_owned()
}

/// Runs a verb without writing it down.
fn quietly(command: &mut Command) -> Output {
    output(command, "")
}

/// A directory that was made by mistake would be in the way of the one from a backup.
#[test]
fn a_wrong_secrets_directory_is_named_and_not_made() {
    let mut scene = Scene::new();
    scene.stop();
    let refused = scene.run("operator reissue --secrets-dir elsewhere");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("`elsewhere/vault.db` is missing"), "{}", refused.stderr);
    assert!(refused.stderr.contains("is `--secrets-dir` right?"), "{}", refused.stderr);
    assert!(!scene.path("elsewhere").exists(), "it was made");
    std::fs::rename(scene.path("keyledger-data/secrets"), scene.path("backup")).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "keyledger-data"];
    assert_ne!(quietly(keyledger(&scene.path("")).args(serve)).code, 0);
    assert!(!scene.path("keyledger-data/secrets").exists(), "it was made");
    std::fs::rename(scene.path("backup"), scene.path("keyledger-data/secrets")).unwrap();
    scene.start();
    assert_eq!(scene.run("org list").code, 0);
}

/// A key that leaked must end, the last one, too: but whoever ends it knows what follows.
#[test]
fn the_end_of_the_last_operator_key_is_warned_of() {
    const LOCKED: &str = "`keyledger operator reissue`";
    let mut scene = Scene::new();
    let listed = scene.run("key list --org operator --json").json();
    let admin = listed["keys"][0]["id"].as_str().unwrap().to_owned();
    // A key that may only verify administers nothing.
    made(&mut scene, "key create --org operator --name asks --scope credentials:verify");
    let second = scene.run("key create --org operator --name second --role admin --json");
    assert!(second.stderr.contains("everything in the whole installation"), "{}", second.stderr);
    let second = second.json()["key"]["id"].as_str().unwrap().to_owned();
    let narrow = scene.run("key create --org operator --name n --role admin --lifetime 1h --json");
    assert!(!narrow.stderr.contains("warning"), "{}", narrow.stderr);
    let narrow = narrow.json()["key"]["id"].as_str().unwrap().to_owned();
    for id in [&second, &narrow] {
        let revoked = scene.run(&format!("key revoke {id} --org operator"));
        assert!(!revoked.stderr.contains(LOCKED), "{}", revoked.stderr);
    }
    let revoked = scene.run(&format!("key revoke {admin} --org operator --json"));
    assert_eq!(revoked.code, 0);
    assert!(revoked.stderr.contains(LOCKED), "{}", revoked.stderr);
    assert_eq!(revoked.json()["key"]["warnings"][0]["code"], "no_operator_key");
    assert_eq!(scene.run("org list").code, 1);
    scene.stop();
    assert_eq!(scene.run("operator reissue").code, 0);
    scene.start();
    let listed = scene.run("key list --org operator --state active --role operator-admin --json");
    let last = listed.json()["keys"][0]["id"].as_str().unwrap().to_owned();
    let many = scene.run(&format!("key revoke {last} {narrow} --org operator"));
    assert_eq!(many.code, 0);
    assert!(many.stderr.contains(LOCKED), "{}", many.stderr);
}

#[test]
fn what_is_asked_wrongly_is_answered_with_what_would_be_right() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    for prefix in ["live", "test"] {
        let line = format!("org create --name x --key-prefix {prefix}");
        assert_eq!(scene.run(&line).code, 1);
    }
    let admin =
        scene.run(&format!("key create --org {org} --name admin --role admin --secret-only"));
    let admin = [("KEYLEDGER_API_KEY", admin.stdout.trim())];
    for line in ["org list", "operator status"] {
        let refused = scene.run_with(line, "", &admin);
        assert!(refused.stderr.contains("for the operator's keys only"), "{}", refused.stderr);
    }
    for name in ["KEYLEDGER_API_KEY", "KEYLEDGER_API_KEY_FILE"] {
        assert_eq!(scene.run_with("org list", "", &[(name, "")]).code, 2);
    }
    // A key without addresses is not rotated where they are demanded.
    let id = made(&mut scene, &format!("key create --org {org} --name ci --scope dns:read"));
    scene.run(&format!("key disable {id} --org {org} --comment 'seen in a log'"));
    let seen = scene.run(&format!("key get {id} --org {org}"));
    assert!(seen.stdout.contains("seen in a log"), "{}", seen.stdout);
    let seen = scene.run(&format!("key get {id} --org {org} --json")).json();
    assert_eq!(seen["key"]["disabled"]["comment"], "seen in a log");
    assert_eq!(seen["key"]["environment"], "live");
    let limited = scene.run(&format!(
        "key create --org {org} --name edge --scope dns:read --allow-ip 192.0.2.7 --secret-only"
    ));
    scene.run(&format!("org policy {org} --allowed-ips-required true --key-lifetime-max 90d"));
    let plain = listed_as(&mut scene, &org, "admin");
    for (verb, id) in [("rotate", &plain), ("enable", &id)] {
        let refused = scene.run(&format!("key {verb} {id} --org {org}"));
        assert!(refused.stderr.contains("create another key"), "{}", refused.stderr);
    }
    let long =
        format!("key create --org {org} --name x --scope a:b --lifetime 91d --allow-ip 192.0.2.7");
    assert!(scene.run(&long).stderr.contains("90 days at most"));
    let edge = limited.stdout.trim();
    for flags in ["", "--client-ip 192.0.2.8", "--client-ip 192.0.2.7 --permission dns:write"] {
        assert_eq!(scene.run_with(&format!("verify - {flags}"), edge, &[]).code, 1);
    }
    // Rows of a file are its lines.
    scene.write("leaked", &format!("\n  \n{edge}\nnobodys-key\n"));
    scene.run("key revoke --leaked leaked");
    let again = scene.run("key revoke --leaked leaked --json").json();
    let lines: Vec<_> = again["keys"].as_array().unwrap().iter().map(|it| &it["line"]).collect();
    assert_eq!(lines, [3, 4]);
    scene.run(&format!("activity --org {org} --actor operator"));
    scene.check(&expect_file!["golden/mistakes.txt"]);
}

#[test]
fn an_organization_goes_by_its_prefix_too() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    scene.organization("Beta", "beta");
    let id = made(&mut scene, "key create --org vtx --name ci --scope dns:read");
    let inside = [("KEYLEDGER_ORG", "vtx")];
    for line in [
        "key list --json".to_owned(),
        format!("key get {id} --json"),
        format!("key relabel {id} --name build --json"),
        "org get --json".to_owned(),
        "org policy --json".to_owned(),
        "activity --json --action organization.*".to_owned(),
        format!("key disable {id} --json"),
        format!("key revoke {id} --json"),
    ] {
        let output = scene.run_with(&line, "", &inside);
        assert_eq!(output.code, 0, "{line}: {}", output.stderr);
        assert!(output.stdout.contains(&org), "{line}");
    }
    // The flag goes before the variable.
    let beta = scene.run_with("key list --org beta", "", &inside);
    assert_eq!((beta.code, beta.stdout.as_str(), beta.stderr.as_str()), (0, "", "no keys\n"));
    let nobody = scene.run("key list --org gamma");
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("no organization with the key prefix `gamma`"));
    let empty = scene.run_with("key list", "", &[("KEYLEDGER_ORG", "")]);
    assert_eq!(empty.code, 2, "{}", empty.stderr);
    // A tenant's key knows its own.
    let line = "key create --org vtx --name t --role admin --lifetime 1h --secret-only";
    let admin = scene.run(line);
    let admin = [("KEYLEDGER_API_KEY", admin.stdout.trim())];
    assert_eq!(scene.run_with("key list --org vtx", "", &admin).code, 0);
    let refused = scene.run_with("key list --org beta", "", &admin);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("by its identifier"), "{}", refused.stderr);
}

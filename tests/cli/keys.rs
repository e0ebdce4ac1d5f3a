//! The whole life of keys, as people and scripts lead it.

use expect_test::expect_file;

use crate::harness::{Scene, on_terminal};

fn made(scene: &mut Scene, line: &str) -> (String, String) {
    let made = scene.run(&format!("{line} --json")).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    (text(&made["key"]["id"]), text(&made["secret"]))
}

#[test]
fn a_key_is_rotated_without_anything_stopping() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let (id, old) = made(&mut scene, &format!("key create --org {org} --name ci --scope a:b"));
    scene.run(&format!("key rotate {id} --org {org} --idempotency-key r"));
    scene.run(&format!("key rotate {id} --org {org} --idempotency-key r"));
    let lost = scene.run(&format!("key rotate {id} --org {org} --idempotency-key r --secret-only"));
    assert_eq!(lost.code, 1);
    assert_eq!(scene.run(&format!("key rotate {id} --org {org}")).code, 1);
    scene.run(&format!("key get {id} --org {org}"));
    scene.run(&format!("key list --org {org}"));
    assert_eq!(scene.run_with("verify -", &old, &[]).code, 0);
    scene.run(&format!("key end-rotation {id} --org {org}"));
    assert_eq!(scene.run_with("verify -", &old, &[]).code, 1);
    assert_eq!(scene.run(&format!("key end-rotation {id} --org {org}")).code, 1);
    let key = scene.run(&format!("key list --org {org} --state active --json")).json();
    let key = key["keys"][0]["id"].as_str().unwrap().to_owned();
    let new =
        scene.run(&format!("key rotate {key} --org {org} --grace 0 --lifetime 30d --secret-only"));
    assert_eq!(scene.run_with("verify -", &new.stdout, &[]).code, 0);
    let json = scene.run(&format!("key rotate {key} --org {org} --json"));
    assert_eq!((json.code, json.stdout.as_str()), (1, ""));
    for wrong in ["--grace 31d", "--grace x", "--lifetime 1h --expires-at 2030-01-01T00:00:00Z"] {
        assert_ne!(scene.run(&format!("key rotate {key} --org {org} {wrong}")).code, 0, "{wrong}");
    }
    scene.check(&expect_file!["golden/rotate.txt"]);
}

#[test]
fn a_key_is_disabled_enabled_and_called_otherwise() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let line = format!(
        "key create --org {org} --name ci --scope a:b --allow-ip 192.0.2.0/24 --rate-limit 100/60s"
    );
    let (id, secret) = made(&mut scene, &line);
    assert_eq!(scene.run_with("verify -", &secret, &[]).code, 1);
    assert_eq!(scene.run_with("verify - --client-ip 192.0.3.1", &secret, &[]).code, 1);
    assert_eq!(scene.run_with("verify - --client-ip 192.0.2.1", &secret, &[]).code, 0);
    assert_eq!(scene.run_with("verify - --client-ip nowhere", &secret, &[]).code, 2);
    scene.run(&format!("key disable {id} --org {org} --comment 'looks strange'"));
    assert_eq!(scene.run_with("verify -", &secret, &[]).code, 1);
    assert_eq!(scene.run(&format!("key disable {id} --org {org}")).code, 1);
    scene.run(&format!("key list --org {org} --state disabled"));
    scene.run(&format!("key get {id} --org {org}"));
    assert_eq!(scene.run(&format!("key rotate {id} --org {org}")).code, 1);
    scene.run(&format!("key enable {id} --org {org}"));
    assert_eq!(scene.run(&format!("key enable {id} --org {org}")).code, 1);
    scene.run(&format!("key relabel {id} --org {org} --name builds --description 'what for'"));
    scene.run(&format!("key relabel {id} --org {org} --no-description --json"));
    assert_eq!(scene.run(&format!("key relabel {id} --org {org}")).code, 2);
    scene.check(&expect_file!["golden/lifecycle.txt"]);
}

#[test]
fn keys_come_in_by_their_digests_and_go_by_their_texts() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let whole = r#"{"key": "legacy-key-number-one-0001", "name": "one", "scopes": ["a:b"]}

{"key": "legacy-key-number-two-0002", "name": "two", "roles": ["dns-manager"], "services": ["waf"], "environment": "test"}
"#;
    let imported = scene.run_with(&format!("key import - --hash --org {org}"), whole, &[]);
    assert_eq!(imported.code, 0);
    for stream in [&imported.stdout, &imported.stderr] {
        assert!(!stream.contains("legacy-key"), "{stream}");
    }
    let ask = "verify - --permission a:b";
    assert_eq!(scene.run_with(ask, "legacy-key-number-one-0001", &[]).code, 0);
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let line = |name: &str| {
        format!("{{\"sha256\": \"{digest}\", \"name\": \"{name}\", \"scopes\": [\"a:b\"]}}\n")
    };
    scene.write("keys.jsonl", &line("three"));
    assert_eq!(scene.run(&format!("key import keys.jsonl --org {org} --json")).code, 0);
    assert_eq!(scene.run_with("verify -", "test", &[]).code, 0);
    // What is wrong is told by its line, and never repeated.
    scene.write("keys.jsonl", &format!("\n{}", line("four")));
    assert_eq!(scene.run(&format!("key import keys.jsonl --org {org}")).code, 1);
    for wrong in ["legacy-key-alone", "{\"name\": \"x\"}", "{\"key\": 1, \"name\": \"x\"}", ""] {
        let command = format!("key import - --hash --org {org}");
        assert_eq!(scene.run_with(&command, wrong, &[]).code, 2, "{wrong}");
    }
    assert_eq!(scene.run(&format!("key import missing --org {org}")).code, 2);
    // Leaked.
    let leaked =
        "legacy-key-number-one-0001\n\n  legacy-key-number-two-0002\nnever-seen-anywhere\n";
    let gone = scene.run_with("key revoke --leaked - --reason key-compromise", leaked, &[]);
    assert_eq!(gone.code, 1, "one of them is not known");
    assert_eq!(scene.run_with("verify -", "legacy-key-number-one-0001", &[]).code, 1);
    scene.write("leaked", "legacy-key-number-one-0001\n");
    assert_eq!(scene.run("key revoke --leaked leaked --json").code, 0);
    // Several by their identifiers; those of one organization all or none.
    let keys: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| {
            made(&mut scene, &format!("key create --org {org} --name {name} --scope a:b")).0
        })
        .collect();
    let ids = keys.join(" ");
    assert_eq!(scene.run(&format!("key revoke {ids} --org {org}")).code, 0);
    assert_eq!(scene.run(&format!("key revoke {ids} --org {org}")).code, 0);
    assert_eq!(scene.run(&format!("key revoke {ids} --idempotency-key x")).code, 2);
    assert_eq!(scene.run("key revoke --leaked missing").code, 2);
    assert_eq!(scene.run("key revoke").code, 2);
    scene.check(&expect_file!["golden/import.txt"]);
}

/// More keys than one request takes are imported, and revoked, step by step.
#[test]
fn many_keys_take_several_steps() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let lines: String = (0..2_300)
        .map(|n| format!("{{\"key\": \"legacy-{n:05}-abcdefghijkl\", \"name\": \"k{n}\", \"scopes\": [\"a:b\"]}}\n"))
        .collect();
    scene.write("keys.jsonl", &lines);
    let imported =
        scene.run(&format!("key import keys.jsonl --hash --org {org} --json --idempotency-key i"));
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    assert_eq!(imported.json()["keys"].as_array().unwrap().len(), 2_300);
    let again =
        scene.run(&format!("key import keys.jsonl --hash --org {org} --json --idempotency-key i"));
    assert_eq!(again.stdout, imported.stdout);
    let leaked: String = (0..2_300).map(|n| format!("legacy-{n:05}-abcdefghijkl\n")).collect();
    scene.write("leaked", &leaked);
    let gone = scene.run("key revoke --leaked leaked");
    assert_eq!(gone.code, 0);
    assert!(gone.stderr.starts_with("done: 2300 keys are revoked"), "{}", gone.stderr);
}

#[test]
fn a_service_account_has_keys_of_its_own() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    scene.run(&format!(
        "service-account create --org {org} --name dns-bot --role dns-manager --description 'Zones'"
    ));
    scene.run(&format!("service-account create --org {org} --name idle"));
    assert_eq!(scene.run(&format!("service-account create --org {org} --name idle")).code, 1);
    scene.run(&format!("service-account list --org {org}"));
    let listed = scene.run(&format!("service-account list --org {org} --json"));
    let bot = listed.json()["service_accounts"][0]["id"].as_str().unwrap().to_owned();
    let (_, secret) =
        made(&mut scene, &format!("key create --org {org} --name k1 --service-account {bot}"));
    scene.run(&format!(
        "key create --org {org} --name k2 --service-account {bot} --scope dns:read,waf:read \
         --secret-only"
    ));
    let both = format!("key create --org {org} --name k3 --service-account {bot} --role admin");
    assert_eq!(scene.run(&both).code, 2);
    scene.run(&format!("key list --org {org} --service-account {bot}"));
    assert_eq!(scene.run_with("verify - --permission dns:write", &secret, &[]).code, 0);
    scene.run(&format!("key revoke --service-account {bot} --org {org}"));
    scene.run(&format!("key revoke --service-account {bot} --org {org}"));
    assert_eq!(scene.run_with("verify -", &secret, &[]).code, 1);
    let nobody = "sva_00000000000000000000000009";
    assert_eq!(scene.run(&format!("key revoke --service-account {nobody} --org {org}")).code, 1);
    scene.check(&expect_file!["golden/service-account.txt"]);
}

#[test]
fn a_policy_is_shown_and_changed_rule_by_rule() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let admin =
        scene.run(&format!("key create --org {org} --name admin --role admin --secret-only"));
    let admin = [("KEYLEDGER_API_KEY", admin.stdout.trim())];
    scene.run_with("org policy", "", &admin);
    scene.run_with("org policy --key-lifetime-max 90d", "", &admin);
    scene.run_with("org policy --rotation-grace-max 1h30m --allowed-ips-required true", "", &admin);
    assert_eq!(scene.run_with("org policy --key-lifetime-max none", "", &admin).code, 1);
    for refused in [
        "key create --name x --scope a:b --lifetime 91d --allow-ip 192.0.2.7",
        "key create --name x --scope a:b",
        "key create --name x --scope a:b --allow-ip 192.0.2.7/24",
    ] {
        assert_eq!(scene.run_with(refused, "", &admin).code, 1, "{refused}");
    }
    scene.run(&format!("org policy {org} --key-lifetime-max none --json"));
    scene.run(&format!("org get {org}"));
    assert_eq!(scene.run(&format!("org policy {org} --key-lifetime-max 0")).code, 1);
    assert_eq!(scene.run(&format!("org policy {org} --key-lifetime-max 1y")).code, 2);
    let old = format!("org policy {org} --rotation-grace-max 0 --expected-revision 0");
    assert_eq!(scene.run(&old).code, 1);
    scene.check(&expect_file!["golden/policy.txt"]);
}

#[test]
fn a_warning_is_yellow_on_a_terminal() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let line = format!("key create --org {org} --name x --role cache-purger --service dns");
    let mut command = scene.command(&line);
    let shown = on_terminal(command.env("TERM", "xterm"));
    assert!(shown.contains("\u{1b}[1;33mwarning\u{1b}[0m: role `cache-purger`"), "{shown}");
}

#[test]
fn the_pepper_is_rotated_with_the_server_stopped() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let (_, secret) = made(&mut scene, &format!("key create --org {org} --name ci --scope a:b"));
    assert_eq!(scene.run("operator rotate-pepper").code, 2);
    assert_eq!(scene.run("operator peppers").code, 2);
    scene.stop();
    assert_eq!(scene.run("operator rotate-pepper").code, 0);
    scene.run("operator peppers");
    scene.run("operator peppers --json");
    scene.start();
    assert_eq!(scene.run_with("verify -", &secret, &[]).code, 0);
    scene.stop();
    std::fs::remove_file(scene.path("keyledger-data/secrets/pepper-1.key")).unwrap();
    assert_eq!(scene.run("operator peppers").code, 2);
    scene.check(&expect_file!["golden/peppers.txt"]);
}

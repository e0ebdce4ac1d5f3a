//! `--json`: one object on stdout, from every verb.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn every_verb_speaks_json() {
    let mut scene = Scene::new();
    let mut run = |line: &str, stdin: &str| {
        let output = scene.run_with(line, stdin, &[]);
        assert!(output.json().is_object(), "{line}");
        output
    };
    let org = run("org create --name Acme --key-prefix vtx --plan free --json", "").json();
    let org = org["organization"]["id"].as_str().unwrap().to_owned();
    run(&format!("org get {org} --json"), "");
    run("org list --json", "");
    let made = run(
        &format!(
            "key create --org {org} --name ci --scope dns:read --role dns-manager --service dns \
             --environment test --lifetime 30m --metadata team=net --limit rps=-1 --json"
        ),
        "",
    );
    assert_eq!(made.stderr, "note: the secret is shown this once; keep it now\n");
    let made = made.json();
    let id = made["key"]["id"].as_str().unwrap();
    let secret = made["secret"].as_str().unwrap();
    run(&format!("key list --org {org} --json"), "");
    assert_eq!(run("verify - --json --service dns --correlation-id mine", secret).code, 0);
    run(&format!("key revoke {id} --org {org} --reason superseded --json"), "");
    run(&format!("key get {id} --org {org} --json"), "");
    assert_eq!(run("verify - --json", secret).code, 1);
    assert_eq!(run("verify - --json", "klop_x").code, 1);
    run(&format!("key list --org {org} --state active --json"), "");
    run("operator status --json", "");
    run("operator confirm-clock --json", "");
    scene.check(&expect_file!["golden/json.txt"]);
}

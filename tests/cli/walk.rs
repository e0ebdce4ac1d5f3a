//! The first five minutes: from nothing to a verified, then revoked key.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn from_nothing_to_a_revoked_key() {
    let mut scene = Scene::new();
    scene.run("operator status");
    scene.run("org create --name 'Acme Networks' --key-prefix vtx");
    let listed = scene.run("org list --json").json();
    let org = listed["organizations"][0]["id"].as_str().unwrap().to_owned();
    scene.run("org list");
    scene.run(&format!("org get {org}"));
    let got = scene.run(&format!("org get {org} --json")).json();
    assert_eq!(got["organization"], listed["organizations"][0]);
    scene.run(&format!("key list --org {org}"));
    scene.run(&format!(
        "key create --org {org} --name dns-bot --description 'Keeps zones in step' \
         --role dns-manager --scope dns:read,dns:write --service dns --environment live \
         --expires-at 2999-12-31T23:59:59+02:00 --metadata team=net --metadata site=a=b \
         --limit rps=50 --correlation-id walk-1"
    ));
    let key =
        scene.run(&format!("key create --org {org} --name ci --scope cache:purge --secret-only"));
    let (key, id) = (key.stdout.trim(), scene.run(&format!("key list --org {org} --json")).json());
    let id = id["keys"][1]["id"].as_str().unwrap().to_owned();
    scene.run(&format!("key list --org {org}"));
    let allowed = scene.run_with("verify - --permission cache:purge", &format!("{key}\n"), &[]);
    assert_eq!(allowed.code, 0);
    scene.write("credential", &format!("{key}\n"));
    scene.run(&format!("verify --credential-file credential --permission cache:purge --tenant {org} --environment live --service cdn --at-least org-{org}=2 --at-least org-operator=3"));
    let denied =
        scene.run_with("verify --permission dns:read", "", &[("KEYLEDGER_CREDENTIAL", key)]);
    assert_eq!(denied.code, 1);
    scene.run_with("verify - --environment test", key, &[]);
    scene.run_with("verify -", "vtx_nonsense", &[]);
    scene.run_with("verify -", "", &[]);
    // A tenant's key, in the tenant's own organization.
    let admin =
        scene.run(&format!("key create --org {org} --name admin --role admin --secret-only"));
    let admin = [("KEYLEDGER_API_KEY", admin.stdout.trim())];
    scene.run_with("org get", "", &admin);
    scene.run_with(
        &format!("key revoke {id} --reason key-compromise --comment 'in a log'"),
        "",
        &admin,
    );
    scene.run_with(&format!("key get {id}"), "", &admin);
    scene.run_with("verify -", key, &admin);
    scene.check(&expect_file!["golden/walk.txt"]);
}

#[test]
fn a_repeat_is_done_once_and_shows_no_secret() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let create =
        format!("key create --org {org} --name ci --scope dns:read --idempotency-key once");
    let first = scene.run(&create);
    let again = scene.run(&create);
    let id = |text: &str| text.lines().find(|line| line.starts_with("id ")).unwrap().to_owned();
    assert_eq!(id(&first.stdout), id(&again.stdout));
    assert!(first.stdout.contains("secret ") && !again.stdout.contains("secret "));
    scene.run(&format!("{create} --secret-only"));
    scene.run(&format!(
        "key create --org {org} --name other --scope dns:read --idempotency-key once"
    ));
    scene.check(&expect_file!["golden/repeat.txt"]);
}

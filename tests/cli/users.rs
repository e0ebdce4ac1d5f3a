//! Users, their keys, and what they were granted.

use expect_test::expect_file;

use crate::harness::Scene;

fn id(found: &serde_json::Value) -> String {
    found["id"].as_str().unwrap().to_owned()
}

#[test]
fn users_are_invited_looked_at_changed_and_removed() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    for wrong in [
        format!("user invite --org {org} --email alice --name Alice"),
        format!("user invite --org {org} --email alice@example.com --name Alice --role nobody"),
        format!(
            "user invite --org {org} --email alice@example.com --name Alice --role dns-manager@Example"
        ),
        format!("user invite --org {org} --email a@example.com --name A --invitation-lifetime 31d"),
        format!("user invite --org {org} --email a@example.com --name A --roles-lifetime 1h"),
        format!("user get usr_x --org {org}"),
        format!("user get usr_00000000000000000000000009 --org {org}"),
        format!("user update usr_00000000000000000000000009 --org {org}"),
    ] {
        assert_ne!(scene.run(&wrong).code, 0, "{wrong}");
    }
    scene.run(&format!("user list --org {org}"));
    let bob = scene.run(&format!("user invite --org {org} --email bob@example.com --name Bob"));
    assert_eq!(bob.code, 0);
    let alice = scene.run(&format!(
        "user invite --org {org} --email ' Alice@EXAMPLE.com' --name 'Alice Doe' \
         --role dns-manager@example.com --roles-lifetime 30d \
         --limit max_concurrent_bots=3 --comment 'joins the team' --json"
    ));
    let alice = id(&alice.json()["user"]);
    scene.run(&format!("user renew {alice} --org {org} --invitation-lifetime 14d"));
    scene.run(&format!("role grant cache-purger --org {org} --user {alice} --lifetime 8h"));
    let key = format!("key create --org {org} --name laptop --user {alice}");
    assert_ne!(scene.run(&key).code, 0, "a key for another person is narrowed");
    let secret = scene.run(&format!("{key} --scope dns:write --secret-only")).stdout;
    scene.run(&format!("key list --org {org} --user {alice}"));
    scene.run(&format!("role grants --org {org} --user {alice}"));
    scene.run(&format!("role effective --user {alice} --org {org}"));
    scene.run(&format!("role who-holds cache:purge --org {org}"));
    scene.run(&format!("user update {alice} --org {org} --name 'Alice Roe' --limit bots=1"));
    scene.run(&format!("user get {alice} --org {org}"));
    let ask = "verify - --permission dns:write --domain example.com";
    assert_eq!(scene.run_with(ask, &secret, &[]).code, 0);
    scene.run(&format!("user suspend {alice} --org {org} --comment 'on leave'"));
    assert_eq!(scene.run(&format!("user suspend {alice} --org {org}")).code, 1);
    assert_eq!(scene.run_with(ask, &secret, &[]).code, 1);
    scene.run(&format!("user get {alice} --org {org}"));
    scene.run(&format!("user restore {alice} --org {org}"));
    scene.run(&format!("key revoke --org {org} --user {alice}"));
    scene.run(&format!("user remove {alice} --org {org} --comment 'has left'"));
    scene.run(&format!("user list --org {org} --json"));
    scene.run(&format!("user list --org {org} --state removed"));
    scene.run(&format!("user list --org {org} --email BOB@example.com"));
    scene.check(&expect_file!["golden/users.txt"]);
}

#[test]
fn every_verb_about_users_finds_its_organization_by_its_key_prefix() {
    let mut scene = Scene::new();
    scene.organization("Acme", "vtx");
    let mut done = |verb: String| {
        let ran = scene.run(&format!("{verb} --org vtx --json"));
        assert_eq!(ran.code, 0, "{verb}");
        ran.json()
    };
    let invite = "user invite --email a@example.com --name A";
    let user = id(&done(format!("{invite} --role dns-manager,cache-purger@a.example"))["user"]);
    done(format!("user renew {user}"));
    done(format!("user get {user}"));
    done("user list".into());
    done(format!("user update {user} --no-limits"));
    done(format!("user suspend {user}"));
    done(format!("user restore {user}"));
    done(format!("key create --name k --user {user} --scope a:b"));
    done(format!("key list --user {user}"));
    done(format!("role grant read-only-admin --user {user}"));
    done(format!("role grants --user {user}"));
    done(format!("role effective --user {user}"));
    done(format!("key revoke --user {user}"));
    done(format!("user remove {user}"));
}

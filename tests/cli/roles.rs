//! Roles, grants, and what they come to.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn roles_are_made_granted_looked_at_and_retired() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let account = scene
        .run(&format!("service-account create --org {org} --name bot --json"))
        .json()["service_account"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let secret = scene
        .run(&format!("key create --org {org} --name k --service-account {account} --secret-only"))
        .stdout;
    let made = scene.run(&format!(
        "role create --org {org} --name zone-editor --description 'Edits zones' \
         --permission dns:read,dns:write --json"
    ));
    let role = made.json()["role"]["id"].as_str().unwrap().to_owned();
    for wrong in [
        format!("role create --org {org} --name admin --description x --permission a:b"),
        format!("role create --org {org} --name zone-editor --description x --permission a:b"),
        format!("role update admin --org {org} --permission a:b"),
        format!("role grant nobody --org {org} --service-account {account}"),
        format!("role grant {role} --org {org} --service-account {account} --domain Example.com"),
    ] {
        assert_ne!(scene.run(&wrong).code, 0, "{wrong}");
    }
    let granted = scene.run(&format!(
        "role grant {role} --org {org} --service-account {account} --domain example.com --json"
    ));
    let grant = granted.json()["grant"]["id"].as_str().unwrap().to_owned();
    scene.run(&format!(
        "role grant dns-manager --org {org} --service-account {account} --lifetime 8h"
    ));
    scene.run(&format!("role grants --org {org} --role {role}"));
    scene.run(&format!("role grants --org {org} --service-account {account} --json"));
    scene.run(&format!("role who-holds dns:write --org {org}"));
    scene.run(&format!("role effective --service-account {account} --org {org}"));
    scene.run(&format!(
        "role update {role} --org {org} --permission cache:purge --description Purges"
    ));
    for (domain, code) in [("--domain example.com", 0), ("", 1)] {
        let ask = format!("verify - --permission cache:purge {domain}");
        assert_eq!(scene.run_with(&ask, &secret, &[]).code, code);
    }
    scene.run(&format!("role revoke {grant} --org {org}"));
    assert_eq!(scene.run(&format!("role revoke {grant} --org {org}")).code, 1);
    scene.run(&format!("role retire {role} --org {org} --comment 'no longer needed'"));
    scene.run(&format!("role get {role} --org {org}"));
    scene.run(&format!("role list --org {org}"));
    scene.check(&expect_file!["golden/roles.txt"]);
}

#[test]
fn every_verb_about_roles_finds_its_organization_by_its_key_prefix() {
    let mut scene = Scene::new();
    scene.organization("Acme", "vtx");
    let mut done = |verb: String| {
        let ran = scene.run(&format!("{verb} --org vtx --json"));
        assert_eq!(ran.code, 0, "{verb}");
        ran.json()
    };
    let id = |found: &serde_json::Value| found["id"].as_str().unwrap().to_owned();
    let account = id(&done("service-account create --name bot".into())["service_account"]);
    let create = "role create --name zones --description x --permission dns:read";
    let role = id(&done(create.into())["role"]);
    done(format!("role update {role} --description y"));
    let grant = id(&done(format!("role grant {role} --service-account {account}"))["grant"]);
    done(format!("role get {role}"));
    done("role list".into());
    done("role grants".into());
    done("role who-holds dns:read".into());
    done(format!("role effective --service-account {account}"));
    done(format!("role revoke {grant}"));
    done(format!("role retire {role}"));
}

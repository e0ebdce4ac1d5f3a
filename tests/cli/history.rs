//! What was so at a past moment, as people and scripts read it.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn the_past_reads_well() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let made = scene.run(&format!("key create --org {org} --name ci --scope dns:read --json"));
    let made = made.json();
    let id = made["key"]["id"].as_str().unwrap().to_owned();
    let created = made["revision"]["revision"].as_u64().unwrap();
    let secret = made["secret"].as_str().unwrap().to_owned();
    scene.run(&format!("key disable {id} --org {org} --comment 'on holiday' --json"));
    let disabled = created + 1;
    scene.run(&format!("as-of revision:{created} keys --org {org}"));
    scene.run(&format!("as-of revision:{disabled} keys {id} --org vtx"));
    scene.run(&format!("as-of revision:{created} keys {id} --org vtx --json"));
    scene.run(&format!("as-of revision:{created} organization --org {org}"));
    scene.run(&format!("as-of revision:0 keys --org {org}"));
    scene.run(&format!("as-of revision:{created} service-accounts --org {org}"));
    for (at, permission, code) in [
        (created, "dns:read", 0),
        (disabled, "dns:read", 1),
        (created, "dns:write", 1),
        (0, "dns:read", 1),
    ] {
        let explain =
            format!("explain {id} --at revision:{at} --permission {permission} --org {org}");
        assert_eq!(scene.run(&explain).code, code, "{explain}");
    }
    let json = format!("explain {id} --at revision:{disabled} --org {org} --json");
    let explained = scene.run(&json);
    assert_eq!(explained.json()["decision"]["code"], "disabled");
    assert!(!explained.stdout.contains(&secret));
    for wrong in [
        "as-of yesterday keys",
        "as-of revision:x keys",
        "as-of revision:999 keys",
        "as-of 2020-01-01 keys",
        "as-of 2999-01-01 keys",
        "as-of 1h nothing",
        "as-of revision:0 keys rol_00000000000000000000000002",
        "explain key_x --at revision:0",
        "explain --at revision:0",
        "explain key_00000000000000000000000009 --at 2999-01-01",
        "explain key_00000000000000000000000009",
    ] {
        let refused = scene.run(&format!("{wrong} --org {org}"));
        assert_ne!(refused.code, 0, "{wrong}");
    }
    scene.check(&expect_file!["golden/past.txt"]);
}

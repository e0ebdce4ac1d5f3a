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
    scene.run(&format!("as-of revision:{created} keys --org {org}"));
    scene.run(&format!("as-of revision:{disabled} keys {id} --org vtx"));
    scene.run(&format!("as-of revision:{created} keys {id} --org vtx --json"));
    scene.run(&format!("as-of revision:{created} organization --org {org}"));
    scene.run(&format!("as-of revision:0 keys --org {org}"));
    scene.run(&format!("as-of revision:0 keys {id} --org {org}"));
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
    scene.check(&expect_file!["golden/past.txt"]);
}

#[test]
fn reports_read_well() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    // A name that a spreadsheet would take for a formula, were it not kept from it.
    scene.run(&format!("key create --org {org} --name '=1+1' --scope dns:read"));
    let made = scene
        .run(&format!("key create --org {org} --name ends --scope dns:read --lifetime 1h --json"));
    let id = made.json()["key"]["id"].as_str().unwrap().to_owned();
    scene.run(&format!("key revoke {id} --org {org}"));
    scene.run(&format!("report keys-without-expiry --org {org}"));
    scene.run(&format!("report keys-without-expiry --org {org} --csv"));
    scene.run(&format!("report unused-keys --days 1 --org {org}"));
    scene.run(&format!("report permission-holders dns:read --from 1d --org {org}"));
    scene.run("report permission-holders dns:read --from 1d --org vtx --csv");
    let json = format!("report permission-holders dns:read --from 1d --org {org} --json");
    assert_eq!(scene.run(&json).json()["times"].as_array().unwrap().len(), 2);
    scene.run(&format!("report role-holders admin --from 1d --org {org}"));
    scene.run(&format!("report break-glass --org {org}"));
    scene.run(&format!("report break-glass --org {org} --csv"));
    for wrong in [
        "unused-keys --days 0",
        "unused-keys",
        "permission-holders dns:* --from 1d",
        "permission-holders dns:read",
        "permission-holders dns:read --from 1h --to 2h",
        "permission-holders dns:read --from 1h --to 2999-01-01",
        "role-holders nobody --from 1d",
        "break-glass --csv --json",
    ] {
        let refused = scene.run(&format!("report {wrong} --org {org}"));
        assert_ne!(refused.code, 0, "{wrong}");
    }
    scene.check(&expect_file!["golden/reports.txt"]);
}

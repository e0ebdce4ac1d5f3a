//! Lists: pages and filters.

use expect_test::expect_file;

use crate::harness::Scene;

fn names(json: &serde_json::Value) -> Vec<&str> {
    json["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect()
}

#[test]
fn pages_follow_each_other() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    for name in ["a1", "a2", "b1"] {
        scene.run(&format!(
            "key create --org {org} --name {name} --role cache-purger --secret-only"
        ));
    }
    let first = scene.run(&format!("key list --org {org} --page-size 2 --json")).json();
    assert_eq!(names(&first), ["a1", "a2"]);
    let token = first["next_page_token"].as_str().unwrap();
    let second =
        scene.run(&format!("key list --org {org} --page-size 2 --page-token {token} --json"));
    assert_eq!(names(&second.json()), ["b1"]);
    assert_eq!(second.json()["next_page_token"], "");
    let all = scene.run(&format!("key list --org {org} --page-size 1 --all --json")).json();
    assert_eq!(names(&all), ["a1", "a2", "b1"]);
    assert_eq!(all["next_page_token"], "");
    let human = scene.run(&format!("key list --org {org} --page-size 2"));
    assert!(human.stderr.starts_with("more keys follow: `--page-token "), "{}", human.stderr);
    assert_eq!(human.stdout.lines().count(), 3);
    scene.organization("Other", "oth");
    let page = scene.run("org list --page-size 1 --json").json();
    let token = page["next_page_token"].as_str().unwrap();
    assert_eq!(scene.run(&format!("org list --page-token {token}")).stdout.lines().count(), 2);
    assert_eq!(scene.run("org list --page-size 1 --all").stdout.lines().count(), 3);
    assert_eq!(scene.run("org list --page-token AAAA").code, 1);
}

#[test]
fn filters_show_what_they_say() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    for flags in [
        "a1 --role cache-purger",
        "a2 --role cache-purger --environment test",
        "b1 --scope dns:read,dns:write,cache:purge,waf:read,waf:write",
    ] {
        scene.run(&format!("key create --org {org} --secret-only --name {flags}"));
    }
    let listed = scene.run(&format!("key list --org {org} --name-prefix b --json")).json();
    let id = listed["keys"][0]["id"].as_str().unwrap();
    scene.run(&format!("key revoke {id} --org {org}"));
    for filter in [
        "",
        "--state active",
        "--state revoked",
        "--state expired",
        "--environment test",
        "--environment live --state active",
        "--role cache-purger",
        "--name-prefix a",
    ] {
        scene.run(&format!("key list --org {org} {filter}"));
    }
    scene.check(&expect_file!["golden/filters.txt"]);
}

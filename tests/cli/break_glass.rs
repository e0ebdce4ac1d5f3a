//! Emergency access, from the master key to the review and the bundle for an auditor.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use expect_test::expect_file;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Output, Scene, output, typed_into};

/// Runs a verb without writing it down, to a good end.
#[track_caller]
fn done(scene: &Scene, line: &str) -> Output {
    let ran = output(&mut scene.command(line), "");
    assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
    ran
}

/// An organization, and a server where Ada, Bob and Cleo are custodians, with their master
/// keys in `ada.key`, `bob.key` and `cleo.key`.
fn governed(scene: &mut Scene, settings: &str) -> String {
    scene.start();
    let org = scene.organization("Acme", "vtx");
    scene.write("password", "correct horse battery");
    let mut file = format!(
        "[break_glass]\nenabled = true\npermissions = [\"api-keys:read\", \"api-keys:write\", \
         \"dns:read\", \"users:read\"]\n{settings}\n"
    );
    for name in ["ada", "bob", "cleo"] {
        let invite =
            format!("user invite --org {org} --email {name}@example.com --name {name} --json");
        let invited = done(scene, &invite).json();
        scene.write("invitation", invited["invitation_token"].as_str().unwrap());
        let accept = "user accept --token-file invitation --password-file password --json";
        let account = done(scene, accept).json()["account_id"].as_str().unwrap().to_owned();
        let made = format!("break-glass new-master-key --custodian {name} --out {name}.key");
        let block = done(scene, &made).stdout;
        file.push_str(&block.replace("# account = \"acc_…\"", &format!("account = \"{account}\"")));
    }
    scene.stop();
    scene.write("keyledger.toml", &file);
    scene.start();
    org
}

fn opened(scene: &Scene, org: &str, custodian: &str) -> String {
    let line = format!(
        "break-glass open --org {org} --reason 'the zone is gone' --json \
         --master-key-file {custodian}.key --save {custodian}.token"
    );
    done(scene, &line).json()["grant"]["id"].as_str().unwrap().to_owned()
}

/// A key of the organization's.
fn key(scene: &Scene, org: &str, name: &str) -> String {
    let line = format!("key create --org {org} --name {name} --scope dns:read --json");
    done(scene, &line).json()["key"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_grant_is_opened_approved_used_ended_reviewed_and_told() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "approval = true");
    assert_eq!(scene.run("break-glass new-master-key --custodian dora").code, 0);
    assert_eq!(scene.run("break-glass new-master-key --custodian dora --json").code, 0);
    let mode = std::fs::metadata(scene.path("ada.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = key(&scene, &org, "fix");
    let open = format!(
        "break-glass open --org {org} --reason 'the zone is gone' --permission api-keys:write \
         --permission dns:read,api-keys:read --duration 30m --incident INC-7"
    );
    let grant = scene.run(&format!("{open} --master-key-file ada.key --save token"));
    assert_eq!(grant.code, 0);
    let token = std::fs::read_to_string(scene.path("token")).unwrap();
    assert!(token.starts_with("klbg_") && !grant.stdout.contains("klbg_"));
    let mode = std::fs::metadata(scene.path("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = scene.run("break-glass list --state awaiting-approval --json").json();
    let grant = listed["grants"][0]["id"].as_str().unwrap().to_owned();
    let its = format!("{grant} --org {org}");
    let keys = format!("key list --org {org} --api-key-file token");
    assert_eq!(scene.run(&keys).code, 1, "nobody approved it");
    let approve = format!("break-glass approve {its} --master-key-file");
    assert_eq!(scene.run(&format!("{approve} ada.key")).code, 1, "her own");
    assert_eq!(scene.run(&format!("{approve} bob.key --comment 'saw the alarm'")).code, 0);
    assert_eq!(scene.run(&keys).code, 0);
    let gives = format!("key create --org {org} --name own --scope dns:read --api-key-file token");
    assert_eq!(scene.run(&gives).code, 1, "who acts under a grant gives nothing away");
    let relabel = format!("key relabel {key} --org {org} --name fixed --api-key-file token");
    assert_eq!(scene.run(&relabel).code, 0);
    assert_eq!(scene.run(&format!("user list --org {org} --api-key-file token")).code, 1);
    scene.run("break-glass list");
    scene.run(&format!("break-glass replay {its}"));
    let review = format!("break-glass review {its} --finding justified");
    assert_eq!(scene.run(&format!("{review} --master-key-file cleo.key")).code, 1, "it is open");
    let close = format!("break-glass close {its} --api-key-file token --comment 'it is back'");
    assert_eq!(scene.run(&close).code, 0);
    assert_eq!(scene.run(&keys).code, 1, "it has ended");
    scene.run(&format!("break-glass list --org {org} --state ended"));
    for (custodian, code, why) in
        [("ada", 1, "she opened it"), ("bob", 1, "he approved it"), ("cleo", 0, "no part in it")]
    {
        let reviewed = format!("{review} --comment 'no more than was needed'");
        let reviewed = scene.run_with(
            &format!("{reviewed} --master-key-file -"),
            &std::fs::read_to_string(scene.path(&format!("{custodian}.key"))).unwrap(),
            &[],
        );
        assert_eq!(reviewed.code, code, "{why}");
    }
    scene.run("break-glass list --org vtx --json");
    assert_eq!(scene.run(&format!("break-glass replay {its} --bundle bundle")).code, 0);
    let mode = std::fs::metadata(scene.path("bundle")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(scene.run(&format!("break-glass replay {its} --bundle bundle")).code, 2);
    scene.stop();
    assert_eq!(scene.run("break-glass check bundle").code, 0);
    assert_eq!(scene.run("break-glass check bundle --json").code, 0);
    scene.holds_none_of(&[token.trim()]);
    scene.check(&expect_file!["golden/break-glass.txt"]);
}

#[test]
fn what_is_wrong_about_a_grant_is_told() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "incident_required = true\nduration_max_seconds = 3600");
    let open = format!("break-glass open --org {org} --reason r --incident INC-7");
    assert_eq!(scene.run(&open).code, 2, "no master key");
    let empty = [("KEYLEDGER_MASTER_KEY", "")];
    assert_eq!(scene.run_with(&open, "", &empty).code, 2);
    let wrong = [("KEYLEDGER_MASTER_KEY", "klmk_wrong")];
    assert_eq!(scene.run_with(&open, "", &wrong).code, 1);
    assert_eq!(scene.run(&format!("{open} --master-key-file nowhere")).code, 2);
    assert_eq!(scene.run(&format!("{open} --api-key-file ada.key")).code, 2);
    let open = format!("{open} --master-key-file ada.key");
    assert_eq!(scene.run(&open.replace(&org, "vtx")).code, 2, "a master key finds no prefix");
    assert_eq!(scene.run(&format!("{open} --save bob.key")).code, 2, "nothing is overwritten");
    let nowhere = "org_00000000000000000000000009";
    assert_eq!(scene.run(&format!("{} --save t", open.replace(&org, nowhere))).code, 1);
    assert!(!scene.path("t").exists(), "nothing was opened");
    for (more, code) in [
        ("--permission cache:purge", 1),
        ("--duration 2h", 1),
        ("--duration soon", 2),
        ("--reason ''", 2),
    ] {
        let line = format!(
            "{} {more}",
            open.replace(
                "--reason r",
                if more.starts_with("--reason") { "" } else { "--reason r" }
            )
        );
        assert_eq!(scene.run(&line).code, code, "{more}");
    }
    assert_eq!(
        scene.run(&open.replace("--incident INC-7", "")).code,
        1,
        "an incident is asked for"
    );
    let none = format!("bgg_00000000000000000000000009 --org {org}");
    for verb in ["approve", "close", "replay"] {
        assert_eq!(scene.run(&format!("break-glass {verb} {none}")).code, 1, "{verb}");
    }
    assert_eq!(scene.run(&format!("break-glass review {none}")).code, 2, "a finding is asked for");
    let both = format!("break-glass close {none} --master-key-file a --api-key-file b");
    assert_eq!(scene.run(&both).code, 2);
    assert_eq!(scene.run("break-glass new-master-key --custodian 'a b'").code, 2);
    assert_eq!(scene.run("break-glass new-master-key --custodian a --out ada.key").code, 2);
    assert_eq!(scene.run("break-glass check nowhere").code, 2);
    assert_eq!(scene.run("break-glass list").code, 0);
    scene.stop();
    std::fs::remove_file(scene.path("keyledger.toml")).unwrap();
    scene.start();
    assert_eq!(scene.run(&open).code, 1, "break-glass is off");
    scene.check(&expect_file!["golden/break-glass-mistakes.txt"]);
}

/// A token that is not saved is printed, once; a master key that is typed is not.
#[test]
fn a_terminal_is_shown_no_master_key() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "");
    let key = std::fs::read_to_string(scene.path("ada.key")).unwrap();
    let open = &mut scene.command(&format!("break-glass open --org {org} --reason r"));
    let (shown, code) = typed_into(open, &[("master key: ", &*key)]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("klbg_") && !shown.contains(key.trim()), "{shown}");
}

/// Without a master key it is the caller's own credential that is shown, and one whose file is
/// named is shown where a master key is in the environment, too.
#[test]
fn a_person_reviews_with_a_session_of_their_own() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "");
    let invite =
        format!("user invite --org {org} --email dora@example.com --name dora --role admin --json");
    let invited = done(&scene, &invite).json();
    scene.write("invitation", invited["invitation_token"].as_str().unwrap());
    done(&scene, "user accept --token-file invitation --password-file password");
    done(&scene, "session login --email dora@example.com --password-file password --save dora");
    let grant = opened(&scene, &org, "ada");
    let its = format!("{grant} --org {org}");
    let key = std::fs::read_to_string(scene.path("ada.key")).unwrap();
    let with_key = |scene: &Scene, line: &str| {
        output(scene.command(line).env("KEYLEDGER_MASTER_KEY", key.trim()), "")
    };
    assert_eq!(with_key(&scene, &format!("break-glass close {its}")).code, 0);
    let review = format!("break-glass review {its} --finding unjustified --json");
    assert_eq!(with_key(&scene, &review).code, 1, "she opened it");
    let reviewed = with_key(&scene, &format!("{review} --api-key-file dora"));
    assert_eq!(reviewed.code, 0, "{}", reviewed.stderr);
    let reviewed = reviewed.json()["grant"]["reviewed"].clone();
    assert_eq!(reviewed["finding"], "unjustified");
    assert_eq!(reviewed["custodian"], "");
}

/// The lines of a bundle of a grant that has ended, whose stored events hold a sealed reason.
fn bundle(scene: &Scene, org: &str, custodian: &str) -> Vec<Value> {
    let grant = opened(scene, org, custodian);
    let token = format!("--org {org} --api-key-file {custodian}.token");
    done(scene, &format!("key list {token}"));
    let key = key(scene, org, custodian);
    done(scene, &format!("key revoke {key} --reason superseded {token}"));
    done(scene, &format!("break-glass close {grant} {token}"));
    let file = format!("{custodian}.bundle");
    done(scene, &format!("break-glass replay {grant} --org {org} --json --bundle {file}"));
    let text = std::fs::read_to_string(scene.path(&file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What its maker would have written: the last line says what the lines before it are.
fn sealed(mut lines: Vec<Value>) -> String {
    let mut last = lines.pop().unwrap();
    let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    last["events"] = json!(lines.len() - 1);
    last["last_revision"] = lines.last().unwrap()["revision"].clone();
    let digest = Sha256::digest(text.as_bytes());
    last["sha256"] = json!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    text.push_str(&format!("{last}\n"));
    text
}

#[test]
fn a_bundle_that_is_not_whole_says_what_is_wrong_first() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "review = false");
    let whole = bundle(&scene, &org, "ada");
    let other = bundle(&scene, &org, "bob");
    // Opened, a use and two for the two calls, a key, a use for the close, the end.
    assert_eq!(whole.len(), 8, "{whole:?}");
    let last = whole.len() - 1;
    let check = |lines: &str| {
        scene.write("bundle", lines);
        let checked = output(&mut scene.command("break-glass check bundle"), "");
        let json = output(&mut scene.command("break-glass check bundle --json"), "");
        assert_eq!(checked.code, json.code, "{}", checked.stderr);
        assert_eq!(json.json()["whole"], json.code == 0);
        assert_eq!(json.json()["anchored"], false);
        assert!(checked.code == 0 || checked.stdout.is_empty(), "{}", checked.stdout);
        (checked.code, checked.stderr)
    };
    let written = std::fs::read_to_string(scene.path("ada.bundle")).unwrap();
    assert_eq!(check(&written), (0, String::new()));
    assert_eq!(check(&sealed(whole.clone())).0, 0, "the test makes bundles, too");
    let changed = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        sealed(lines)
    };
    let flipped = |text: &str| {
        let first = if text.starts_with('A') { 'B' } else { 'A' };
        json!(format!("{first}{}", text.get(1..).unwrap()))
    };
    let mut missing: Vec<&str> = written.lines().collect();
    missing.remove(3);
    let missing = missing.iter().map(|line| format!("{line}\n")).collect::<String>();
    let wrongs: Vec<(&str, String, &str)> = vec![
        ("an event is missing", missing, "line 7 says 6 events; there are 5"),
        ("two are swapped", changed(&|it| it.swap(3, 4)), "line 5 holds revision"),
        ("one stands twice", changed(&|it| it.insert(3, it[3].clone())), "line 5 holds revision"),
        (
            "an event is another",
            changed(&|it| it[3]["stored"] = flipped(it[3]["stored"].as_str().unwrap())),
            "line 4 holds an event that is not what its leaf hash says",
        ),
        (
            "a hash is another",
            changed(&|it| it[4]["leaf_hash"] = other[4]["leaf_hash"].clone()),
            "line 5 holds an event that is not what its leaf hash says",
        ),
        (
            "an event is of another grant",
            changed(&|it| {
                let revision = it[3]["revision"].clone();
                it[3] = other[3].clone();
                it[3]["revision"] = revision;
            }),
            "line 4 holds an event that does not belong to the grant",
        ),
        (
            "the opening is missing",
            changed(&|it| drop(it.remove(1))),
            "line 2 holds another event than the opening",
        ),
        (
            "the end is missing",
            changed(&|it| drop(it.remove(last - 1))),
            "line 7 says that the grant ended, and no event ends it",
        ),
        (
            "a key is another's",
            changed(&|it| it[1]["keys"][0]["key"] = other[1]["keys"][0]["key"].clone()),
            "line 2 holds a key that does not open",
        ),
        (
            "a key is of nothing",
            changed(&|it| it[1]["keys"][0]["subject"] = json!("acc_00000000000000000000000009")),
            "line 2 holds a key of nothing that is sealed",
        ),
        (
            "it is of another organization",
            changed(&|it| it[0]["organization_id"] = json!("org_00000000000000000000000009")),
            "line 2 holds an event of another organization",
        ),
        (
            "it is of another grant",
            changed(&|it| it[0]["grant_id"] = other[0]["grant_id"].clone()),
            "line 2 holds an event that does not belong to the grant",
        ),
        ("its form is newer", changed(&|it| it[0]["version"] = json!(2)), "line 1 names version 2"),
        ("it is something else", "{}\n".to_owned(), "line 1 is not the first line of a bundle"),
        ("it is empty", String::new(), "line 0 is the end"),
        (
            "a field is unknown",
            changed(&|it| it[3]["more"] = json!(1)),
            "line 4 is neither an event nor the last line",
        ),
        (
            "the last line is missing",
            written.lines().take(last).map(|line| format!("{line}\n")).collect(),
            "is the end, and not the last line",
        ),
        ("it is cut off", written.trim_end().to_owned(), "line 8 is cut off"),
        ("something follows", format!("{written}{{}}\n"), "line 9 stands behind the last one"),
        (
            "the header was changed and nothing else",
            written.replacen("made_at\":\"2", "made_at\":\"3", 1),
            "line 8 says another digest of the lines before it",
        ),
    ];
    let mut unnoticed = Vec::new();
    for (what, lines, said) in wrongs {
        let (code, stderr) = check(&lines);
        if code != 1 || !stderr.contains(said) {
            unnoticed.push(format!("{what}: {code} {stderr}"));
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
    // What no bundle can show by itself: whoever makes it can leave out what stands between.
    let left_out = changed(&|it| drop(it.remove(3)));
    assert_eq!(check(&left_out).0, 0);
    let said = done(&scene, "break-glass check bundle").stdout;
    assert!(said.contains("unanchored") && said.contains("nothing was left out"), "{said}");
    // Keys may be gone: erased, or withheld.
    let (code, _) = check(&changed(&|it| it[1]["keys"] = json!([])));
    assert_eq!(code, 0);
    assert!(done(&scene, "break-glass check bundle").stdout.contains("1 without a key"));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a verb that goes on.
fn started(scene: &Scene, line: &str) -> Killed {
    let mut command = scene.command(line);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Killed(command.spawn().unwrap())
}

#[test]
fn alerts_come_as_they_happen_and_a_replay_goes_on() {
    let mut scene = Scene::without_server();
    let org = governed(&mut scene, "");
    let mut tail = started(&scene, "break-glass tail --json");
    let mut said = BufReader::new(tail.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "watching; Ctrl-C ends it\n");
    let mut alerts = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&alerts.next().unwrap().unwrap()).unwrap();
    let grant = opened(&scene, &org, "ada");
    let alert = next();
    assert_eq!((&alert["kind"], &alert["grant"]["id"]), (&json!("opened"), &json!(grant)));
    // A replay that follows ends with the grant.
    let mut replay = started(&scene, &format!("break-glass replay {grant} --org {org} --follow"));
    let mut told = BufReader::new(replay.0.stdout.take().unwrap());
    let mut first = String::new();
    told.read_line(&mut first).unwrap();
    assert!(first.contains("+00:00:00  opened by custodian ada"), "{first}");
    let token = format!("--org {org} --api-key-file ada.token");
    assert_eq!(output(&mut scene.command(&format!("role list {token}")), "").code, 1);
    assert_eq!(next()["kind"], "refused");
    done(&scene, &format!("break-glass close {grant} {token}"));
    assert_eq!(next()["kind"], "ended");
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(replay.0.wait().unwrap().code(), Some(0));
    assert!(rest.contains("REFUSED (") && rest.contains("ended: closed"), "{rest}");
    // Part of it has the grant's own numbers.
    let whole = done(&scene, &format!("break-glass replay {grant} --org {org} --json")).stdout;
    let revisions: Vec<u64> = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["revision"].as_u64().unwrap())
        .collect();
    assert!(revisions.is_sorted() && revisions.len() > 3, "{whole}");
    let after = revisions[revisions.len() - 2];
    let line = format!("break-glass replay {grant} --org {org} --after-revision {after}");
    let part = done(&scene, &line).stdout;
    assert!(part.contains("ended: closed") && !part.contains("opened by"), "{part}");
    assert!(part.contains("refusals     1"), "{part}");
    let id = tail.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(tail.0.wait().unwrap().code(), Some(0));
}

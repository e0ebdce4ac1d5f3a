//! People who join, log in, and look after what they log in with.

use std::os::unix::fs::PermissionsExt as _;

use expect_test::expect_file;

use crate::harness::{Scene, output, typed_into};

const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another long password";

/// Makes a user of a new organization: its identifier, and the user's. The invitation is in
/// the file `invitation`, the password in `password`.
fn invited(scene: &mut Scene) -> (String, String) {
    let org = scene.organization("Acme", "vtx");
    let line = format!(
        "user invite --org {org} --email ada@example.com --name Ada --role dns-manager --json"
    );
    let made = output(&mut scene.command(&line), "").json();
    scene.write("invitation", made["invitation_token"].as_str().unwrap());
    scene.write("password", PASSWORD);
    scene.write("other", OTHER);
    (org, made["user"]["id"].as_str().unwrap().to_owned())
}

/// As [`invited`]; the user joined.
fn joined(scene: &mut Scene) -> (String, String) {
    let made = invited(scene);
    let line = "user accept --token-file invitation --password-file password";
    assert_eq!(output(&mut scene.command(line), "").code, 0);
    made
}

const LOGIN: &str = "session login --email ada@example.com";

#[test]
fn somebody_joins_logs_in_and_out() {
    let mut scene = Scene::new();
    let (org, user) = invited(&mut scene);
    let short = "user accept --token-file invitation";
    assert_eq!(scene.run_with(short, "short", &[]).code, 1, "too short a password");
    assert_eq!(scene.run("user accept --token-file invitation --password-file password").code, 0);
    assert_eq!(scene.run_with(short, PASSWORD, &[]).code, 1, "an invitation is good once");
    assert_eq!(scene.run(&format!("{LOGIN} --password-file password --save me")).code, 0);
    let mode = std::fs::metadata(scene.path("me")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    scene.run("session whoami --api-key-file me");
    scene.run(&format!("key create --api-key-file me --name mine --user {user} --scope dns:read"));
    scene.run("session refresh me");
    scene.run("session whoami --api-key-file me --json");
    assert_eq!(scene.run_with(&format!("{LOGIN} --json"), PASSWORD, &[]).code, 0);
    scene.run("session list --api-key-file me");
    scene.run("session revoke --others --api-key-file me");
    scene.run(&format!("session list --org {org} --user {user}"));
    scene.run(&format!("session list --org vtx --user {user} --json"));
    scene.run("session list");
    assert_eq!(scene.run("session logout --api-key-file me").code, 0);
    assert_eq!(scene.run("session whoami --api-key-file me").code, 1);
    assert_eq!(scene.run("session refresh me").code, 1);
    scene.run("session whoami");
    scene.check(&expect_file!["golden/sessions.txt"]);
}

#[test]
fn what_is_wrong_is_told_and_nothing_is_overwritten() {
    let mut scene = Scene::new();
    joined(&mut scene);
    // Exit code 1 is the answer "no".
    assert_eq!(scene.run(&format!("{LOGIN} --password-file other")).code, 1);
    assert_eq!(scene.run_with("session login --email no@example.com", OTHER, &[]).code, 1);
    assert_eq!(scene.run(LOGIN).code, 2, "no password");
    assert_eq!(scene.run(&format!("{LOGIN} --password-file nowhere")).code, 2);
    assert_eq!(scene.run(&format!("{LOGIN} --password {PASSWORD}")).code, 2, "never an argument");
    let save = "--password-file password --save";
    assert_eq!(scene.run(&format!("{LOGIN} {save} keyledger-data/admin.key")).code, 2);
    assert_eq!(scene.run(&format!("{LOGIN} {save} no/such/directory")).code, 2);
    assert_eq!(scene.run(&format!("{LOGIN} {save} me --org no-prefix")).code, 1);
    assert_eq!(scene.run(&format!("{LOGIN} {save} me --org nosuch")).code, 1);
    let nowhere = "org_00000000000000000000000009";
    assert_eq!(scene.run(&format!("{LOGIN} {save} me --org {nowhere}")).code, 1);
    assert!(!scene.path("me").exists());
    assert_eq!(scene.run("session refresh keyledger-data/admin.key").code, 2);
    assert_eq!(scene.run_with("session refresh", "klrt_nonsense", &[]).code, 1);
    assert_eq!(scene.run("session logout").code, 1, "an operator's key is no session");
    assert_eq!(scene.run("session revoke").code, 2);
    assert_eq!(scene.run("session revoke --all --others").code, 2);
    assert_eq!(scene.run_with("user accept", "klit_nonsense\nx", &[]).code, 1);
    assert_eq!(scene.run_with("session password reset", "klpr_nonsense\nx", &[]).code, 1);
    scene.check(&expect_file!["golden/session-mistakes.txt"]);
}

/// The first two codes of an authenticator: of the step in which it is asked, and of the one
/// behind. A clock may be one step off, so that each is right for half a minute at the least.
fn codes_of(uri: &str) -> [String; 2] {
    let now_ms = keyledger::ledger::clock::Clock::system().now().as_millis();
    let now_s = u64::try_from(now_ms / 1_000).unwrap();
    let totp = totp_rs::Totp::from_url(uri).unwrap();
    [now_s, now_s + 30].map(|at| totp.generate(at).to_string())
}

#[test]
fn passwords_and_second_factors_are_looked_after() {
    let mut scene = Scene::new();
    joined(&mut scene);
    let login = format!("{LOGIN} --password-file password --save");
    for file in ["me", "elsewhere --org vtx"] {
        assert_eq!(output(&mut scene.command(&format!("{login} {file}")), "").code, 0);
    }
    let me = "--api-key-file me";
    let enrolled = scene.run(&format!("session totp enroll {me} --password-file password --json"));
    let uri = enrolled.json()["uri"].as_str().unwrap().to_owned();
    let quiet = |scene: &Scene, line: &str, stdin: &str| output(&mut scene.command(line), stdin);
    let [code, next_code] = codes_of(&uri);
    let made = quiet(&scene, &format!("session totp confirm {me} --code {code}"), "");
    assert_eq!(made.code, 0, "{}", made.stderr);
    let codes: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(codes.len(), 10);
    assert_eq!(scene.run(&login.replace("--save", "--save again")).code, 1, "a code is missing");
    let with_code = login.replace("--save", &format!("--save again --code {next_code}"));
    assert_eq!(quiet(&scene, &with_code, "").code, 0);
    // The saved session takes the token that says so, and goes on with its refresh token.
    let saved = || {
        let text = std::fs::read_to_string(scene.path("me")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let before = saved();
    let stepped = quiet(&scene, &format!("session step-up {me} --code {}", codes[0]), "");
    assert_eq!(stepped.code, 0, "{}", stepped.stderr);
    let after = saved();
    assert_ne!(before["access_token"], after["access_token"]);
    assert_eq!(before["refresh_token"], after["refresh_token"]);
    assert!(!stepped.stdout.contains(after["access_token"].as_str().unwrap()));
    let more =
        quiet(&scene, &format!("session recovery-codes {me} --json --code {}", codes[1]), "");
    assert_eq!(more.code, 0, "{}", more.stderr);
    let code = more.json()["recovery_codes"][0].as_str().unwrap().to_owned();
    assert_ne!(code, codes[0]);
    let remove = format!("session totp remove {me} --password-file password --code {code}");
    assert_eq!(quiet(&scene, &remove, "").code, 0);
    scene.run(&format!("session step-up {me} --code 123456"));
    // The password first, the new one behind it.
    let change = format!("session password change {me}");
    assert_eq!(scene.run_with(&change, &format!("{OTHER}\n{PASSWORD}\n"), &[]).code, 1);
    assert_eq!(scene.run_with(&change, &format!("{PASSWORD}\n{OTHER}\n"), &[]).code, 0);
    assert_eq!(scene.run("session whoami --api-key-file elsewhere").code, 1);
    assert_eq!(scene.run(&format!("{LOGIN} --password-file other --save me")).code, 0);
    let ask = "session password reset-request --email ada@example.com";
    assert_eq!(scene.run(ask).code, 0);
    assert_eq!(scene.run(&ask.replace("ada", "nobody")).code, 0);
    assert_eq!(scene.run(&format!("{ask} {me}")).code, 1, "a user is no operator");
    let asked = scene.run(&format!("{ask} --api-key-file keyledger-data/admin.key --json"));
    let reset = format!("{}\n{PASSWORD}\n", asked.json()["token"].as_str().unwrap());
    assert_eq!(quiet(&scene, "session password reset", &reset).code, 0);
    assert_eq!(scene.run("session whoami --api-key-file me").code, 1);
    assert_eq!(scene.run(&format!("{LOGIN} --password-file password --save me")).code, 0);
    scene.check(&expect_file!["golden/passwords.txt"]);
}

#[test]
fn the_signing_keys_are_a_key_set() {
    let mut scene = Scene::without_server();
    scene.start();
    // Whoever has no credential may ask.
    std::fs::remove_file(scene.path("keyledger-data/admin.key")).unwrap();
    let keys = output(&mut scene.command("session signing-keys"), "");
    assert_eq!(keys.code, 0, "{}", keys.stderr);
    assert_eq!(keys.json()["keys"][0]["crv"], "Ed25519");
    let wrapped = output(&mut scene.command("session signing-keys --json"), "").json();
    assert_eq!(wrapped["jwks"].as_str().unwrap(), keys.stdout.trim_end());
}

/// A password is asked for, and not shown; Ctrl-C leaves the terminal as it was.
#[test]
fn a_terminal_is_shown_no_password() {
    let mut scene = Scene::new();
    invited(&mut scene);
    let typed = format!("{PASSWORD}\n");
    let accept = &mut scene.command("user accept --token-file invitation");
    let differs = [("password: ", &*typed), ("password again: ", "something else\n")];
    let (shown, code) = typed_into(accept, &differs);
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("not the same both times"), "{shown}");
    let twice = [("password: ", &*typed), ("password again: ", &*typed)];
    let (shown, code) = typed_into(accept, &twice);
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    let login = &mut scene.command(LOGIN);
    let (shown, code) = typed_into(login, &[("password: ", &*typed)]);
    assert!(code == 0 && shown.contains("access token"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    let (shown, code) = typed_into(login, &[("password: ", "half of it\u{3}")]);
    assert_eq!(code, 2);
    assert!(shown.contains("interrupted") && !shown.contains("half"), "{shown}");
}

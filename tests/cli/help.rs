//! Every help text, as it reads.

use expect_test::expect_file;

use crate::harness::Scene;

#[test]
fn help_reads_well() {
    let mut scene = Scene::without_server();
    for verb in [
        "",
        "serve",
        "verify",
        "org",
        "org create",
        "org get",
        "org list",
        "org policy",
        "key",
        "key create",
        "key get",
        "key list",
        "key rotate",
        "key end-rotation",
        "key disable",
        "key enable",
        "key relabel",
        "key import",
        "key revoke",
        "service-account",
        "service-account create",
        "service-account list",
        "user",
        "user invite",
        "user renew",
        "user get",
        "user list",
        "user update",
        "user suspend",
        "user restore",
        "user remove",
        "role grant",
        "user accept",
        "session",
        "session login",
        "session refresh",
        "session logout",
        "session whoami",
        "session list",
        "session revoke",
        "session step-up",
        "session totp",
        "session totp enroll",
        "session totp confirm",
        "session totp remove",
        "session recovery-codes",
        "session password",
        "session password change",
        "session password reset-request",
        "session password reset",
        "session signing-keys",
        "activity",
        "as-of",
        "explain",
        "export",
        "report",
        "report unused-keys",
        "report keys-without-expiry",
        "report permission-holders",
        "report role-holders",
        "report break-glass",
        "break-glass",
        "break-glass new-master-key",
        "break-glass open",
        "break-glass approve",
        "break-glass close",
        "break-glass review",
        "break-glass list",
        "break-glass replay",
        "break-glass check",
        "break-glass tail",
        "operator",
        "operator status",
        "operator confirm-clock",
        "operator rebuild-index",
        "operator reissue",
        "operator rotate-pepper",
        "operator peppers",
        "projections",
        "projections verify",
        "projections rebuild",
        "completions",
        "man",
    ] {
        assert_eq!(scene.run(format!("{verb} --help").trim_start()).code, 0, "{verb}");
    }
    scene.check(&expect_file!["golden/help.txt"]);
}

#[test]
fn every_shell_gets_a_script_that_knows_every_verb() {
    let mut scene = Scene::without_server();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = scene.run(&format!("completions {shell}"));
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{shell}");
        for word in ["serve", "confirm-clock", "tls-certificate", "idempotency-key"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(scene.run("completions csh").code, 2);
    // A shell reads what it was given, where there is that shell.
    let script = scene.run("completions bash").stdout;
    scene.write("completions.bash", &script);
    let checked = std::process::Command::new("bash")
        .args(["--norc", "-c", "source ./completions.bash && complete -p keyledger"])
        .current_dir(scene.path(""))
        .output();
    match checked {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
        Err(error) => println!("skipped: bash cannot be run: {error}"),
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let mut scene = Scene::without_server();
    assert_eq!(scene.run("man made/pages").code, 0);
    let mut names: Vec<String> = std::fs::read_dir(scene.path("made/pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in ["keyledger.1", "keyledger-serve.1", "keyledger-key-create.1", "keyledger-man.1"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    assert!(names.iter().all(|name| !name.contains("help")), "{names:?}");
    let page = std::fs::read_to_string(scene.path("made/pages/keyledger-serve.1")).unwrap();
    assert!(page.contains(".TH keyledger-serve 1") && page.contains("tls\\-certificate"), "{page}");
    scene.write("file", "");
    let refused = scene.run("man file");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("cannot write manual pages into `file`"), "{}", refused.stderr);
}

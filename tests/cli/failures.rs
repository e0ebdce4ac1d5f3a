//! What goes wrong, in words, with what to do about it and the right exit code.

use std::os::unix::fs::PermissionsExt;

use expect_test::expect_file;

use crate::harness::{Scene, output};

#[test]
fn refusals_are_one() {
    let mut scene = Scene::new();
    let org = scene.organization("Acme", "vtx");
    let lines = [
        "org create --name Acme --key-prefix vtx".to_owned(),
        "org create --name '' --key-prefix new".to_owned(),
        "org create --name Acme --key-prefix new --plan gold".to_owned(),
        "org get".to_owned(),
        "org get org_01M80MFK1S954BKDX0SF96KS30".to_owned(),
        "key list".to_owned(),
        "key list --org nonsense".to_owned(),
        format!("key get nonsense --org {org}"),
        format!("key get key_00000000000000000000000000 --org {org}"),
        format!("key revoke key_00000000000000000000000000 --org {org}"),
        format!("key create --org {org} --name x"),
        format!("key create --org {org} --name x --scope 'dns:*'"),
        format!("key create --org {org} --name x --role rol_00000000000000000000000099"),
        format!(
            "key create --org {org} --name x --scope dns:read --expires-at 2001-01-01T00:00:00Z"
        ),
        format!("key create --org {org} --name x --scope dns:read --expected-revision 9"),
        format!("key create --org {org} --name 'evil\u{202e}name' --scope dns:read"),
    ];
    for line in lines {
        assert_eq!(scene.run(&line).code, 1, "{line}");
    }
    let tenant =
        scene.run(&format!("key create --org {org} --name t --scope api-keys:read --secret-only"));
    let tenant = [("KEYLEDGER_API_KEY", tenant.stdout.trim())];
    for line in ["org list", "key list --org operator", "key create --name y --scope api-keys:read"]
    {
        assert_eq!(scene.run_with(line, "", &tenant).code, 1, "{line}");
    }
    let wrong = [("KEYLEDGER_API_KEY", "klop_typo")];
    assert_eq!(scene.run_with("org list", "", &wrong).code, 1);
    // For `verify` 1 is an answer, so no decision is 2.
    assert_eq!(scene.run_with("verify -", "x", &wrong).code, 2);
    assert_eq!(scene.run_with("verify - --permission nonsense", "x", &[]).code, 2);
    scene.check(&expect_file!["golden/refusals.txt"]);
}

#[test]
fn faults_are_two() {
    let mut scene = Scene::new();
    let readable = scene.path("keyledger-data/admin.key");
    scene.write("empty.key", "\n");
    scene.write("binary.key", "k\u{e9}y with spaces");
    scene.write("long.key", &"x".repeat(20_000));
    std::fs::copy(&readable, scene.path("open.key")).unwrap();
    std::fs::set_permissions(scene.path("open.key"), PermissionsExt::from_mode(0o644)).unwrap();
    for file in ["missing.key", "empty.key", "binary.key", "long.key", "keyledger-data"] {
        assert_eq!(scene.run(&format!("org list --api-key-file {file}")).code, 2, "{file}");
    }
    let open = scene.run("org list --api-key-file open.key");
    assert_eq!((open.code, open.stdout.as_str()), (0, ""));
    let variables = [
        ("KEYLEDGER_API_KEY_FILE", "missing.key"),
        ("KEYLEDGER_API_KEY", " "),
        ("KEYLEDGER_SERVER", "ftp://127.0.0.1:1"),
        ("KEYLEDGER_SERVER", "http://192.0.2.1:50051"),
        ("KEYLEDGER_SERVER", "http://127.0.0.1:1/path"),
        ("KEYLEDGER_SERVER", "not a url"),
    ];
    for variable in variables {
        assert_eq!(scene.run_with("org list", "", &[variable]).code, 2, "{variable:?}");
    }
    // The flag goes before the variables.
    let wrong = [("KEYLEDGER_API_KEY", "klop_typo")];
    let flag = scene.run_with("org list --api-key-file keyledger-data/admin.key", "", &wrong);
    assert_eq!(flag.code, 0);
    for line in [
        "verify",
        "verify vtx_this_is_a_secret",
        "verify - vtx_this_is_a_secret",
        "verify --credential vtx_this_is_a_secret",
        "verify --credential=vtx_this_is_a_secret",
        "verify - --credential-file vtx_file",
        "verify --credential-file missing",
        "verify - --tenant ''",
        "verify - --at-least 7",
        "org list --timeout 5",
        "org list --page-size 1001",
        "org list --all --page-token x",
        "key create --name x --role janitor",
        "key create --name x --lifetime 1y",
        "key create --name x --lifetime 1h --expires-at 2030-01-01T00:00:00Z",
        "key create --name x --expires-at tomorrow",
        "key create --name x --limit n=many",
        "key create --name x --metadata a=1 --metadata a=2",
        "key create",
        "key revoke x --reason boredom",
        "nonsense",
    ] {
        let output = scene.run(line);
        assert_eq!(output.code, 2, "{line}");
        assert!(!output.stderr.contains("this_is_a_secret"), "{line}");
    }
    scene.check(&expect_file!["golden/faults.txt"]);
}

#[test]
fn without_a_server_or_a_key_the_hint_says_where_to_get_one() {
    let mut scene = Scene::without_server();
    assert_eq!(scene.run("org list").code, 2);
    let key = [("KEYLEDGER_API_KEY", "klop_x")];
    // Nothing listens on port 1 of the loopback.
    assert_eq!(scene.run_with("org list --server http://127.0.0.1:1", "", &key).code, 2);
    assert_eq!(scene.run_with("org list --server 127.0.0.1:1", "", &key).code, 2);
    // The operator's key of this directory is for this machine alone.
    std::fs::create_dir(scene.path("keyledger-data")).unwrap();
    scene.write("keyledger-data/admin.key", "klop_x");
    std::fs::set_permissions(
        scene.path("keyledger-data/admin.key"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    assert_eq!(scene.run("org list --server http://127.0.0.1:1").code, 2);
    assert_eq!(scene.run("org list --server http://192.0.2.1:1 --allow-plaintext").code, 2);
    scene.check(&expect_file!["golden/nobody.txt"]);
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scene = Scene::without_server();
    let mut command = scene.command("org list --timeout 200ms");
    command.env("KEYLEDGER_API_KEY", "klop_x").env("KEYLEDGER_SERVER", format!("http://{address}"));
    let output = output(&mut command, "");
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.starts_with("error: no answer within 200ms\nhint: "),
        "{}",
        output.stderr
    );
}

#[test]
fn a_full_disk_is_a_fault_and_a_closed_pipe_is_quiet() {
    let scene = Scene::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let out = scene.command("operator status").stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.starts_with("error: cannot write to standard output\n"), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = scene.command("operator status").stdout(writer).output().unwrap();
    assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(2), &b""[..]));
}

//! The server as an init system runs it, and the examples for that.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::support::{DEADLINE, Home};

/// systemd is told when the server serves, and when it is about to end; not before.
#[tokio::test]
async fn systemd_is_told_when_it_serves() {
    let home = Home::new();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let server = home.launch().env("NOTIFY_SOCKET", &path).start().await;
    assert_eq!(told(), "READY=1");
    server.stop().await;
    assert_eq!(told(), "STOPPING=1");
}

/// What systemd says about the example, with our binary in the place of the installed one.
#[test]
fn the_unit_is_one_that_systemd_takes() {
    let example = include_str!("../../examples/keyledger.service");
    let pages = example.lines().filter(|line| !line.starts_with("Documentation=man:"));
    let unit: String = pages.map(|line| format!("{line}\n")).collect();
    let unit = unit.replace("/usr/local/bin/keyledger", env!("CARGO_BIN_EXE_keyledger"));
    assert!(unit.contains(env!("CARGO_BIN_EXE_keyledger")));
    let home = Home::new();
    let path = home.path().join("keyledger.service");
    let verify = |unit: &str| {
        std::fs::write(&path, unit).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&path).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        std::io::Result::Ok((output.status.success(), said))
    };
    let (accepted, said) = match verify(&unit) {
        Ok(answer) => answer,
        Err(error) => return eprintln!("skipped: systemd-analyze cannot be run: {error}"),
    };
    assert!(accepted, "{said}");
    assert!(!said.contains("keyledger.service:"), "{said}");
    let (_, said) = verify(&unit.replace("NoNewPrivileges=", "NoNewPrivilegs=")).unwrap();
    assert!(said.contains("NoNewPrivilegs"), "what is misspelt is told of: {said}");
}

/// Each setting that the examples make is one.
#[test]
fn the_examples_set_what_there_is() {
    let help = Command::new(env!("CARGO_BIN_EXE_keyledger")).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    for example in [
        include_str!("../../examples/keyledger.service"),
        include_str!("../../examples/Containerfile"),
    ] {
        let names = example.match_indices("KEYLEDGER_").map(|(place, _)| {
            let rest = &example[place..];
            let end = rest.find(|it: char| !it.is_ascii_uppercase() && it != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        let names: Vec<&str> = names.filter(|name| *name != "KEYLEDGER_").collect();
        assert!(names.len() > 3);
        for name in names {
            assert!(help.contains(&format!("[env: {name}=")), "{name}");
        }
    }
}

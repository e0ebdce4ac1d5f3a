//! What the shape of the project promises, checked by reading it.

#![allow(clippy::unwrap_used, reason = "a broken project should stop the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory of the project.
fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{directory} holds Rust files");
    files
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn holds_tests(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|it| it.as_os_str() == "tests")
}

/// `projections` stays pure: whatever it pulls in must be on this list. None of them
/// touches a file, a socket, a clock, a thread or a source of entropy. (`rand_core` and
/// `rand_xoshiro` are traits, and a generator that must be given its seed.)
#[test]
fn projections_depends_on_nothing_that_does_io() {
    const ALLOWED: &[&str] = &[
        "archery",
        "arrayref",
        "arrayvec",
        "bitmaps",
        "blake3",
        "block-buffer",
        "bytemuck",
        "cfg-if",
        "chrono",
        "constant_time_eq",
        "cpufeatures",
        "crc32fast",
        "crypto-common",
        "digest",
        "equivalent",
        "hybrid-array",
        "imbl",
        "ipnet",
        "imbl-sized-chunks",
        "itoa",
        "memchr",
        "num-traits",
        "proc-macro2",
        "projections",
        "quote",
        "rand_core",
        "rand_xoshiro",
        "safe_arch",
        "serde",
        "serde_core",
        "serde_derive",
        "serde_json",
        "sha2",
        "smol_str",
        "syn",
        "thiserror",
        "thiserror-impl",
        "typenum",
        "tinyvec",
        "ulid",
        "unicode-ident",
        "unicode-normalization",
        "wide",
        "zmij",
    ];
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "-p",
            "projections",
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.lines().count() > 10, "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(ALLOWED.contains(&name), "`projections` may not depend on `{name}`");
    }
}

/// Names point down: cli and server over services over ledger over projections; the
/// adapters of store and vault name the ledger's ports and nothing else.
#[test]
fn nothing_names_what_is_above_it() {
    const LAYERS: &[(&str, &[&str])] = &[
        ("src/ledger", &["services", "server", "cli", "node", "config", "store", "vault", "proto"]),
        ("src/store", &["services", "server", "cli", "node", "config", "vault", "proto"]),
        ("src/vault", &["services", "server", "cli", "node", "config", "store", "proto"]),
        ("src/services", &["server", "cli", "node", "config", "store", "vault"]),
    ];
    for (layer, above) in LAYERS {
        // Tests may stand a layer on real adapters.
        for file in rust_files(layer).into_iter().filter(|file| !holds_tests(file)) {
            let text = read(&file);
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for (number, line) in code.lines().enumerate() {
                let line = line.trim_start();
                let above = above.iter().find(|name| line.contains(&format!("crate::{name}::")));
                let comment = line.starts_with("//");
                assert!(
                    comment || above.is_none(),
                    "{}:{} names {above:?}, which is above it",
                    shown(&file),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for file in rust_files("src").into_iter().chain(rust_files("projections/src")) {
        assert!(
            holds_tests(&file) || read(&file).starts_with("//!"),
            "{} opens without `//!`",
            shown(&file)
        );
    }
}

#[test]
fn files_hold_one_thing() {
    const LINES_MAX: usize = 600;
    for file in rust_files("src").into_iter().chain(rust_files("projections/src")) {
        let lines = read(&file).lines().count();
        assert!(
            holds_tests(&file) || lines <= LINES_MAX,
            "{} has {lines} lines: two things",
            shown(&file)
        );
    }
}

#[test]
fn every_event_is_described() {
    let page = read("docs/EVENTS.md");
    for (event_type, schema) in projections::event::SCHEMAS {
        let heading = format!("### {event_type} (schema {schema})");
        assert!(page.contains(&heading), "docs/EVENTS.md lacks `{heading}`");
    }
}

/// Each promise of the architecture names the tests that fail when it is broken.
#[test]
fn every_promise_names_tests_that_exist() {
    let page = read("docs/ARCHITECTURE.md");
    let mut tests = BTreeSet::new();
    for directory in ["src", "projections", "tests"] {
        for file in rust_files(directory) {
            let text = read(&file);
            tests.extend(
                text.split("fn ")
                    .skip(1)
                    .map(|rest| rest.split(['(', '<']).next().unwrap().to_owned()),
            );
        }
    }
    let named: Vec<&str> =
        page.split("test:`").skip(1).map(|rest| rest.split('`').next().unwrap()).collect();
    assert!(named.len() > 12, "the page names its tests as test:`name`");
    for name in named {
        assert!(
            tests.contains(name),
            "docs/ARCHITECTURE.md names the test `{name}`, which does not exist"
        );
    }
}

#[test]
fn the_readme_shows_the_two_commands() {
    let readme = read("README.md");
    for command in ["cargo run --release -- serve", "cargo test --workspace"] {
        assert!(readme.contains(command), "{command}");
    }
}

/// The SQLite that is linked syncs with `fdatasync`, as `.cargo/config.toml` asks.
#[test]
fn sqlite_is_built_to_sync_with_fdatasync() {
    // Built next to this test: target/<profile>/deps/<test> and target/<profile>/build.
    let test = std::env::current_exe().unwrap();
    let build = test.parent().unwrap().parent().unwrap().join("build");
    let archives: Vec<PathBuf> = std::fs::read_dir(build)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("out/libsqlite3.a"))
        .filter(|path| path.exists())
        .collect();
    assert!(!archives.is_empty(), "SQLite was built");
    for archive in archives {
        let symbols = match Command::new("nm").arg("-u").arg(&archive).output() {
            Ok(output) => output.stdout,
            Err(error) => {
                println!("skipped: `nm` cannot be run: {error}");
                return;
            }
        };
        let symbols = String::from_utf8_lossy(&symbols);
        let syncs = symbols.lines().any(|line| line.trim() == "U fdatasync");
        assert!(syncs, "{} does not call fdatasync", archive.display());
    }
}

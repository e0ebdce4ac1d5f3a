//! `keyledger activity --follow` and `keyledger export`, against servers that come and go and
//! with ends that nobody asked for.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::super::support::{DEADLINE, POLL, Server};
use super::*;

const EVENTS: u64 = 120_000;

/// The binary, as whoever has this key runs it.
fn keyledger(home: &Home, server: &str, key: &str, line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYLEDGER_") {
            command.env_remove(name);
        }
    }
    command.current_dir(home.path()).args(line);
    command.env("KEYLEDGER_SERVER", format!("http://{server}")).env("KEYLEDGER_API_KEY", key);
    command.env("KEYLEDGER_TIMEOUT", "5m");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A long log, and its administrator's key.
async fn long_log() -> (Home, Server, String, String) {
    let Acme { home, server, id, admin_secret, .. } = Acme::new().await;
    server.stop().await;
    lengthen(&home, &id, EVENTS).await;
    let server = home.start().await;
    (home, server, id, admin_secret)
}

/// The stored bytes of the first so many events.
fn whole(home: &Home, organization_id: &str, events: u64) -> Vec<u8> {
    let stream = format!("org-{organization_id}");
    let own = home.events().into_iter().filter(|it| it.stream == stream);
    let events = own.filter(|it| it.revision < events);
    events.flat_map(|it| [it.stored, vec![b'\n']].concat()).collect()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map(|it| it.len()).unwrap_or_default()
}

/// Waits until this much of a file is there, or the program has ended.
async fn until_written(child: &mut Child, part: &Path, bytes: u64) {
    let until = Instant::now() + DEADLINE;
    while length(part) < bytes && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "nothing is written");
        tokio::time::sleep(POLL).await;
    }
}

/// Its end, waited for without keeping others from running.
async fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = output.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Killed in the middle, again and again, and gone on with: the file is the stored bytes.
#[tokio::test]
async fn an_export_that_was_killed_goes_on_and_is_whole() {
    let (home, server, id, key) = long_log().await;
    let address = server.address.to_string();
    let file: PathBuf = home.path().join("log.jsonl");
    let part = home.path().join("log.jsonl.part");
    let mut line = vec!["export", "--output", "log.jsonl"];
    for bytes in [1, 20_000_000, 40_000_000] {
        let mut child = keyledger(&home, &address, &key, &line).spawn().unwrap();
        until_written(&mut child, &part, bytes).await;
        child.kill().unwrap();
        ended(child).await;
        if !file.exists() {
            // Not begun anew over what is there, and not by two at once.
            let again = keyledger(&home, &address, &key, &["export", "--output", "log.jsonl"]);
            let (code, _, said) = ended({ again }.spawn().unwrap()).await;
            assert!(code == Some(2) && said.contains("--resume"), "{said}");
            line = vec!["export", "--output", "log.jsonl", "--resume"];
        }
    }
    if !file.exists() {
        let (code, _, said) = ended(keyledger(&home, &address, &key, &line).spawn().unwrap()).await;
        assert_eq!(code, Some(0), "{said}");
    }
    let exported = std::fs::read(&file).unwrap();
    let events = exported.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(events > EVENTS && exported == whole(&home, &id, events), "the stored bytes");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!part.exists() && !home.path().join("log.jsonl.resume").exists());
    server.stop().await;
}

/// The server goes in the middle and comes again: the export goes on by itself.
#[tokio::test]
async fn an_export_goes_on_when_the_server_comes_again() {
    let (home, server, id, key) = long_log().await;
    let address = server.address.to_string();
    // To standard output, of which nobody takes more than a pipe holds: it is under way.
    let mut child = keyledger(&home, &address, &key, &["export"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    let read = tokio::task::spawn_blocking(move || {
        stdout.read_exact(&mut first).unwrap();
        (stdout, first)
    });
    let (mut stdout, first) = read.await.unwrap();
    server.stop().await;
    let server = home.launch().listen(&address).start().await;
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        rest
    });
    let rest = rest.await.unwrap();
    let (code, _, said) = ended(child).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("going on behind revision"), "{said}");
    let stored = whole(&home, &id, EVENTS + 2);
    assert!([first.to_vec(), rest].concat() == stored, "the stored bytes, each once");
    // Into a file: the same bytes, wherever it was when the server went.
    let line = ["export", "--output", "log.jsonl", "--json"];
    let mut child = keyledger(&home, &address, &key, &line).spawn().unwrap();
    until_written(&mut child, &home.path().join("log.jsonl.part"), 1).await;
    server.stop().await;
    let server = home.launch().listen(&address).start().await;
    let (code, stdout, said) = ended(child).await;
    assert_eq!(code, Some(0), "{said}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let end = summary["end_revision"].as_u64().unwrap();
    assert!(end > EVENTS);
    assert!(std::fs::read(home.path().join("log.jsonl")).unwrap() == whole(&home, &id, end + 1));
    server.stop().await;
}

/// What is shown by one who follows, line by line.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn begin(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The revisions of the lines up to this one.
    async fn until(mut self, revision: u64) -> (Self, Vec<u64>) {
        let read = tokio::task::spawn_blocking(move || {
            let mut shown = Vec::new();
            while shown.last().is_none_or(|last| *last < revision) {
                let line = self.lines.next().expect("it goes on").unwrap();
                let entry: Value = serde_json::from_str(&line).unwrap();
                shown.push(entry["revision"].as_u64().unwrap());
            }
            (self, shown)
        });
        tokio::time::timeout(DEADLINE, read).await.expect("it is shown in time").unwrap()
    }
}

#[tokio::test]
async fn who_follows_is_shown_each_entry_once_across_restarts() {
    let acme = Acme::new().await;
    let address = acme.server.address.to_string();
    let line = ["activity", "--follow", "--from", "2000-01-01", "--json"];
    let following = Following::begin(keyledger(&acme.home, &address, &acme.admin_secret, &line));
    let mut head = acme.revision().await;
    let (mut following, mut shown) = following.until(head).await;
    let Acme { home, mut server, id, admin_secret, .. } = acme;
    for round in 0..3 {
        server.stop().await;
        server = home.launch().listen(&address).start().await;
        let admin = server.client(&admin_secret);
        for number in 0..5 {
            let name = format!("round {round} {number}");
            admin.create_key(scoped(&id, &name, &["a:b"])).await.unwrap();
        }
        head = admin.query_activity(of("")).await.unwrap().revision.unwrap().revision;
        let more;
        (following, more) = following.until(head).await;
        shown.extend(more);
    }
    assert_eq!(shown, (0..=head).collect::<Vec<_>>());
    // Ctrl-C is how it ends.
    let pid = following.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    drop(following.lines);
    let (code, _, said) = ended(following.child).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("going on behind revision"), "{said}");
    server.stop().await;
}

/// A file that was begun is of one history and for one reader, whoever goes on with it.
#[tokio::test]
async fn an_export_is_not_gone_on_with_by_somebody_else() {
    let (home, server, id, key) = long_log().await;
    let operator = server.client(&home.admin_key());
    let other = operator.organization("globex", "glx", "").await;
    let others = operator.create_key(scoped(&other, "admin", &["org:admin"])).await.unwrap().secret;
    let address = server.address.to_string();
    for (file, format, stranger, says) in [
        ("a.csv", "csv", &others, "is beyond the end of the stream"),
        ("b.csv", "csv", &home.admin_key(), "began for somebody else"),
        ("c.jsonl", "jsonl", &others, "is beyond the end of the stream"),
    ] {
        let mut line = vec!["export", "--format", format, "--output", file];
        if says.contains("somebody else") {
            line.extend(["--org", &id]);
        }
        let mut child = keyledger(&home, &address, &key, &line).spawn().unwrap();
        let part = home.path().join(format!("{file}.part"));
        until_written(&mut child, &part, 1_000_000).await;
        // Behind a note of how far it is.
        let interrupt = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &interrupt]).status().unwrap().success());
        let (code, _, said) = ended(child).await;
        assert_ne!(code, Some(0), "{file} was whole too soon: {said}");
        let left = std::fs::read(&part).unwrap();
        let mut line = vec!["export", "--output", file, "--resume"];
        if says.contains("somebody else") {
            line.extend(["--org", &id]);
        }
        let (code, _, said) =
            ended(keyledger(&home, &address, stranger, &line).spawn().unwrap()).await;
        assert!(code != Some(0) && said.contains(says), "{file}: {said}");
        assert!(std::fs::read(&part).unwrap() == left, "nothing was added");
        line.truncate(4);
        let (code, _, said) = ended(keyledger(&home, &address, &key, &line).spawn().unwrap()).await;
        assert_eq!(code, Some(0), "{file}: {said}");
    }
    let jsonl = std::fs::read(home.path().join("c.jsonl")).unwrap();
    let events = jsonl.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(jsonl == whole(&home, &id, events), "the stored bytes");
    server.stop().await;
}

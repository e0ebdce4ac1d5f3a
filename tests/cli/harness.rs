//! A server of one's own, the verbs run against it, and a transcript of both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use expect_test::ExpectFile;
use tempfile::TempDir;

use crate::normal::Normal;

/// The binary, with an environment that holds nothing of ours, in this directory.
pub(crate) fn keyledger(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy().starts_with("KEYLEDGER_");
        if ours
            || ["ADMIN_API_TOKEN", "NO_COLOR", "CLICOLOR_FORCE"].contains(&&*name.to_string_lossy())
        {
            command.env_remove(name);
        }
    }
    command.current_dir(directory);
    command
}

/// A running server; it is killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// What it said on stderr until it was ready.
    pub(crate) said: Vec<String>,
}

impl Server {
    /// Starts one on the data directory `keyledger-data` in this directory, and waits
    /// until it is ready.
    pub(crate) fn start(directory: &Path) -> Self {
        let mut child = keyledger(directory)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", "keyledger-data"])
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut server = Self { child, address: String::new(), said: Vec::new() };
        for line in lines.by_ref() {
            let line = line.expect("stderr is text");
            let json: Option<serde_json::Value> = serde_json::from_str(&line).ok();
            server.said.push(line);
            let Some(fields) = json.map(|json| json["fields"].clone()) else { continue };
            if let Some(address) = fields["address"].as_str() {
                server.address = address.to_owned();
            }
            if fields["message"] == "ready" {
                break;
            }
        }
        assert!(!server.address.is_empty(), "the server ended early: {:?}", server.said);
        // A pipe that nobody reads would stop the server.
        std::thread::spawn(move || lines.for_each(drop));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a verb came to.
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Output {
    /// The one object on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("stdout is one JSON object")
    }
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command, stdin: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // A verb that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        code: output.status.code().expect("no signal ended it"),
    }
}

/// Runs a command on a terminal of 80 columns, and gives all that the terminal was shown.
pub(crate) fn on_terminal(command: &mut Command) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal =
        std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    // What is left open here would keep the terminal from ending.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut shown = Vec::new();
    // Linux ends a terminal with an error.
    let _ = std::fs::File::from(master).read_to_end(&mut shown);
    child.wait().unwrap();
    String::from_utf8(shown).unwrap()
}

/// Runs a command on a terminal where somebody types each line once its prompt is there, and
/// gives all that the terminal was shown, and how it ended.
pub(crate) fn typed_into(command: &mut Command, lines: &[(&str, &str)]) -> (String, i32) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal =
        std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = command
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    // What is left open here would keep the terminal from ending.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut master = std::fs::File::from(master);
    let (mut shown, mut typed) = (String::new(), 0);
    let mut lines = lines.iter();
    let mut next = lines.next();
    let mut bytes = [0; 1024];
    // Linux ends a terminal with an error.
    while let Ok(read @ 1..) = master.read(&mut bytes) {
        shown.push_str(std::str::from_utf8(&bytes[..read]).expect("no character is cut"));
        if let Some((prompt, line)) = next
            && shown[typed..].ends_with(prompt)
        {
            typed = shown.len();
            master.write_all(line.as_bytes()).unwrap();
            next = lines.next();
        }
    }
    assert!(next.is_none(), "nobody asked for {next:?}: {shown}");
    (shown, child.wait().unwrap().code().expect("no signal ended it"))
}

/// A place with a server, and a transcript of what was asked of it.
pub(crate) struct Scene {
    home: TempDir,
    server: Option<Server>,
    normal: Normal,
    transcript: String,
}

impl Scene {
    /// A place without a server.
    pub(crate) fn without_server() -> Self {
        let home = tempfile::tempdir().unwrap();
        let normal = Normal::new(home.path());
        Self { home, server: None, normal, transcript: String::new() }
    }

    /// A place with a server.
    pub(crate) fn new() -> Self {
        let mut scene = Self::without_server();
        scene.start();
        scene
    }

    /// Starts the server.
    pub(crate) fn start(&mut self) -> &Server {
        self.server.insert(Server::start(self.home.path()))
    }

    /// Stops the server.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// The directory that verbs run in.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file there.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The binary, as the verbs are run.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = keyledger(self.home.path());
        command.args(words(line));
        if let Some(server) = &self.server {
            command.env("KEYLEDGER_SERVER", format!("http://{}", server.address));
            // How fast the machine is, is no part of what is tested.
            command.env("KEYLEDGER_TIMEOUT", "5m");
        }
        command
    }

    /// Runs a verb and writes it down. Words are split at spaces, `'…'` keeps them together.
    pub(crate) fn run(&mut self, line: &str) -> Output {
        self.run_with(line, "", &[])
    }

    /// Runs a verb with something on stdin and in the environment, and writes it down.
    pub(crate) fn run_with(
        &mut self,
        line: &str,
        stdin: &str,
        environment: &[(&str, &str)],
    ) -> Output {
        let mut command = self.command(line);
        command.envs(environment.iter().copied());
        let output = output(&mut command, stdin);
        for (name, value) in environment {
            self.transcript.push_str(&format!("{name}={value} "));
        }
        let input = if stdin.is_empty() { String::new() } else { format!(" <<< {}", stdin.trim()) };
        self.transcript.push_str(&format!("$ keyledger {line}{input}\n{}", output.stdout));
        if !output.stderr.is_empty() {
            self.transcript.push_str(&format!("--- stderr\n{}", output.stderr));
        }
        self.transcript.push_str(&format!("--- exit {}\n\n", output.code));
        output
    }

    /// Makes an organization and gives its identifier.
    pub(crate) fn organization(&mut self, name: &str, key_prefix: &str) -> String {
        let line = format!("org create --name {name} --key-prefix {key_prefix} --json");
        let made = output(&mut self.command(&line), "");
        assert_eq!(made.code, 0, "{}", made.stderr);
        made.json()["organization"]["id"].as_str().unwrap().to_owned()
    }

    /// Fails where anything that was said or asked holds one of these.
    #[track_caller]
    pub(crate) fn holds_none_of(&self, secrets: &[&str]) {
        for secret in secrets {
            assert!(!self.transcript.contains(secret), "a secret was said");
        }
    }

    /// Compares the transcript with the golden one.
    #[track_caller]
    pub(crate) fn check(mut self, golden: &ExpectFile) {
        assert!(!self.transcript.contains('\u{1b}'), "escapes reach a pipe");
        let address = self.server.as_ref().map(|server| server.address.clone());
        golden.assert_eq(&self.normal.text(&self.transcript, address.as_deref()));
    }
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

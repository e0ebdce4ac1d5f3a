//! How one-time tokens reach people: by a program of the operator's, by mail, or not at all.
//!
//! A program is given one JSON message on its standard input; nothing of it stands among
//! its arguments or in its environment, which other users of the machine can see, and nothing
//! that it prints is kept. Mails go to a relay ([`mail`]). Either has bounded time for each
//! message, a program for one after the other, a relay for a few at once, off the way of any
//! request: [`Delivery::offer`] takes a place in a bounded queue, or says
//! that there is none. A message that could not be delivered is told to the log without its
//! content; whoever waits for it asks for another.

pub mod mail;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use projections::text::Name;
use projections::time::Timestamp;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use zeroize::Zeroizing;

use crate::ledger::secret::Secret;
use mail::{MailError, Relay};

/// Most messages that wait.
pub const QUEUE_MESSAGES_MAX: usize = 1_000;

/// The program that delivers, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryCommand {
    /// The program, and its fixed arguments.
    pub program: Vec<String>,
    /// How long it may take for one message.
    pub within: Duration,
}

/// Most mails that are handed to a relay at once.
pub const MAILS_AT_ONCE_MAX: usize = 4;

/// Who delivers.
pub enum Means {
    /// A program.
    Command(DeliveryCommand),
    /// A mail relay.
    Mail(Box<Relay>),
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// To join an organization.
    Invitation,
    /// To set another password.
    PasswordReset,
}

/// A token for somebody.
pub struct Message {
    /// What the token is for.
    pub kind: TokenKind,
    /// The e-mail that it goes to.
    pub to: Secret,
    /// The token.
    pub token: Secret,
    /// The organization that it is about.
    pub organization: Option<Name>,
    /// The first instant at which it is no longer good.
    pub expires_at: Timestamp,
}

/// A message as the program reads it.
#[derive(Serialize)]
struct Line<'a> {
    kind: TokenKind,
    to: &'a str,
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
    expires_at: Timestamp,
}

impl Message {
    /// One line of JSON; none only if it cannot be written, which it can.
    fn line(&self) -> Option<Zeroizing<Vec<u8>>> {
        let line = Line {
            kind: self.kind,
            to: self.to.expose(),
            token: self.token.expose(),
            organization: self.organization.as_ref().map(Name::as_str),
            expires_at: self.expires_at,
        };
        // Room from the start: a text that grows leaves copies behind.
        let room = 1_024 + 6 * (line.to.len() + line.token.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *bytes, &line).ok()?;
        bytes.push(b'\n');
        Some(bytes)
    }
}

/// What becomes of a message.
pub enum Offered {
    /// It will be delivered, if it can be.
    Taken,
    /// Nobody delivers here: give the token to whoever asked for it, this once.
    Nobody(Message),
    /// Too many wait. Nothing will be delivered.
    Busy,
}

/// How many messages were delivered, and how many could not be.
#[derive(Debug, Default)]
pub struct DeliveryStats {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl DeliveryStats {
    /// Messages that were taken.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Messages that were not taken, or not in time.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Takes messages. What waits when it is dropped is not delivered.
pub enum Delivery {
    /// Nobody delivers.
    Nobody,
    /// Somebody does.
    Somebody {
        /// The queue.
        queue: mpsc::Sender<Message>,
        /// What is counted.
        stats: Arc<DeliveryStats>,
        /// The task that empties the queue.
        task: JoinHandle<()>,
    },
}

impl Delivery {
    /// Begins to deliver by this means; none for not at all. Must be called on a runtime.
    #[must_use]
    pub fn start(means: Option<Means>) -> Self {
        let Some(means) = means else { return Self::Nobody };
        let (queue, waiting) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let stats = Arc::new(DeliveryStats::default());
        let task = tokio::spawn(deliver(Arc::new(means), waiting, Arc::clone(&stats)));
        Self::Somebody { queue, stats, task }
    }

    /// How many messages were delivered, and how many could not be; none where nobody delivers.
    #[must_use]
    pub fn stats(&self) -> Option<&Arc<DeliveryStats>> {
        match self {
            Self::Nobody => None,
            Self::Somebody { stats, .. } => Some(stats),
        }
    }

    /// Whether anybody delivers.
    #[must_use]
    pub fn delivers(&self) -> bool {
        matches!(self, Self::Somebody { .. })
    }

    /// Hands over a message, without waiting for anything.
    #[must_use]
    pub fn offer(&self, message: Message) -> Offered {
        match self {
            Self::Nobody => Offered::Nobody(message),
            Self::Somebody { queue, .. } => match queue.try_send(message) {
                Ok(()) => Offered::Taken,
                Err(_) => Offered::Busy,
            },
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Self::Somebody { task, .. } = self {
            task.abort();
        }
    }
}

async fn deliver(
    means: Arc<Means>,
    mut waiting: mpsc::Receiver<Message>,
    stats: Arc<DeliveryStats>,
) {
    let at_once_max = match &*means {
        Means::Command(_) => 1,
        Means::Mail(_) => MAILS_AT_ONCE_MAX,
    };
    // Dropped with this task, it ends what is under way.
    let mut under_way = JoinSet::new();
    while let Some(message) = waiting.recv().await {
        while under_way.len() >= at_once_max {
            under_way.join_next().await;
        }
        let (means, stats) = (Arc::clone(&means), Arc::clone(&stats));
        under_way.spawn(async move {
            let delivered = match &*means {
                Means::Command(command) => with_program(command, &message).await,
                Means::Mail(relay) => relay.send(&message).await.map_err(DeliveryError::Mail),
            };
            let Err(error) = delivered else {
                stats.delivered.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let kind = message.kind;
            tracing::error!(?kind, %error, "a one-time token could not be delivered; see `Delivery` in docs/OPERATING.md");
            stats.failed.fetch_add(1, Ordering::Relaxed);
        });
    }
}

async fn with_program(command: &DeliveryCommand, message: &Message) -> Result<(), DeliveryError> {
    let ran = tokio::time::timeout(command.within, run(command, message)).await;
    ran.unwrap_or(Err(DeliveryError::TooLong))
}

/// Why a message was not delivered. It tells nothing of the message.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the program cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("the program ended with {0}")]
    Ended(std::process::ExitStatus),
    #[error("the program took too long and was ended")]
    TooLong,
    #[error(transparent)]
    Mail(MailError),
}

/// Runs the program with one message. Dropped, it ends the program.
async fn run(command: &DeliveryCommand, message: &Message) -> Result<(), DeliveryError> {
    let [program, arguments @ ..] = &command.program[..] else {
        return Err(DeliveryError::Run(std::io::ErrorKind::NotFound.into()));
    };
    // Of the environment, where secrets of this process may be, only what finds programs.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(DeliveryError::Run)?;
    if let (Some(mut stdin), Some(line)) = (child.stdin.take(), message.line()) {
        // One that does not read it all may have read enough: it says so by how it ends.
        let _ = stdin.write_all(&line).await;
    }
    let status = child.wait().await.map_err(DeliveryError::Run)?;
    if status.success() { Ok(()) } else { Err(DeliveryError::Ended(status)) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn message(token: &str) -> Message {
        let secret = |text: &str| Secret::new(Zeroizing::new(text.to_owned()));
        Message {
            kind: TokenKind::Invitation,
            to: secret("ada@example.com"),
            token: secret(token),
            organization: Some("Acme \"CDN\"".parse().unwrap()),
            expires_at: Timestamp::default(),
        }
    }

    /// Delivers with a shell script whose `$1` is a directory.
    fn with(script: &str, directory: &Path, within: Duration) -> Delivery {
        let program = ["/bin/sh", "-c", script, "sh", directory.to_str().unwrap()];
        let program = program.iter().map(|it| (*it).to_owned()).collect();
        Delivery::start(Some(Means::Command(DeliveryCommand { program, within })))
    }

    /// Waits until so many messages came to an end; the counts of both kinds.
    async fn ended(delivery: &Delivery, many: u64) -> (u64, u64) {
        let Delivery::Somebody { stats, .. } = delivery else { panic!("a program delivers") };
        loop {
            let counts = (stats.delivered(), stats.failed());
            if counts.0 + counts.1 == many {
                return counts;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_is_given_the_message_and_nothing_of_it_is_seen_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        let script = "cat > $1/stdin; tr '\\0' ' ' < /proc/$$/cmdline > $1/cmdline; \
                      env > $1/environment; echo noise; echo noise >&2";
        let delivery = with(script, home.path(), Duration::from_secs(60));
        assert!(matches!(delivery.offer(message("s3cret")), Offered::Taken));
        assert_eq!(ended(&delivery, 1).await, (1, 0));
        let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
        assert_eq!(
            read("stdin"),
            "{\"kind\":\"invitation\",\"to\":\"ada@example.com\",\"token\":\"s3cret\",\
             \"organization\":\"Acme \\\"CDN\\\"\",\"expires_at\":\"1970-01-01T00:00:00.000Z\"}\n"
        );
        for name in ["cmdline", "environment"] {
            let text = read(name);
            assert!(!text.contains("s3cret") && !text.contains("ada@"), "{text}");
        }
        let environment = read("environment");
        assert!(environment.contains("PATH=") && !environment.contains("CARGO"), "{environment}");
    }

    /// One that fails, one that reads nothing, one that never ends, one that is not there: the
    /// next message is delivered all the same.
    #[tokio::test]
    async fn a_program_that_fails_stops_nothing() {
        let home = tempfile::tempdir().unwrap();
        let script =
            "read line; case $line in *good*) exit 0;; *bad*) exit 3;; *) exec sleep 1000;; esac";
        let delivery = with(script, home.path(), Duration::from_secs(3));
        for (token, after) in [("bad", (0, 1)), ("endless", (0, 2)), ("good", (1, 2))] {
            assert!(matches!(delivery.offer(message(token)), Offered::Taken));
            assert_eq!(ended(&delivery, after.0 + after.1).await, after, "{token}");
        }
        let delivery = with("exit 0", home.path(), Duration::from_secs(60));
        let _ = delivery.offer(message(&"x".repeat(1_000_000)));
        assert_eq!(ended(&delivery, 1).await, (1, 0));
        let program = vec!["/nonexistent/program".to_owned()];
        let within = Duration::from_secs(60);
        let command = DeliveryCommand { program, within };
        let delivery = Delivery::start(Some(Means::Command(command)));
        let _ = delivery.offer(message("x"));
        assert_eq!(ended(&delivery, 1).await, (0, 1));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_says_so_and_nobody_gives_the_message_back() {
        let home = tempfile::tempdir().unwrap();
        let delivery = with("exec sleep 1000", home.path(), Duration::from_secs(1_000));
        // The task does not run until this one waits: none is taken out.
        for _ in 0..QUEUE_MESSAGES_MAX {
            assert!(matches!(delivery.offer(message("x")), Offered::Taken));
        }
        assert!(matches!(delivery.offer(message("x")), Offered::Busy));
        let Offered::Nobody(back) = Delivery::start(None).offer(message("mine")) else {
            panic!("nobody delivers")
        };
        assert_eq!(back.token.expose(), "mine");
    }
}

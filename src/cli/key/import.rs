//! `keyledger key import`

use std::path::PathBuf;

use clap::Args;
use prost::Message as _;

use super::super::client::{Client, Repeat, Session, Target};
use super::super::failure::{Failure, Outcome};
use super::super::output::{counted, talk};
use super::super::secret_text;
use super::super::view::key_change::Imported;
use super::imported_line::{self, Secret};
use super::service;
use crate::ledger::command::KEYS_AT_ONCE_MAX;
use crate::proto;

/// Most bytes of the keys of one request; a server takes 1 MiB.
pub(super) const REQUEST_BYTES_MAX: usize = 1_000 * 1_000;

/// Bring keys into force that were made elsewhere, by the SHA-256 digests of their texts.
///
/// Each line of the file is a JSON object: `sha256` in hexadecimal, `name`, and where they are
/// wanted `description`, `scopes`, `roles`, `services`, `environment`, `expires_at` or
/// `lifetime`, `metadata`, `limits`, `service_account`, `allowed_ips` (lists as lists) and
/// `rate_limit`. With `--hash` each line has the whole `key` instead of `sha256`: it is hashed
/// here, and never leaves this machine.
///
/// Up to 1,000 keys come into force together, or none; a longer file takes several steps.
#[derive(Args)]
pub(in crate::cli) struct Import {
    /// The file of keys; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Lines hold whole keys (`key`), to be hashed here
    #[arg(long)]
    hash: bool,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

/// A key, and the line of the file that told of it.
type Numbered = (usize, proto::ImportedKey);

impl Import {
    pub(in crate::cli) fn run(self) -> Outcome {
        let secret = if self.hash { Secret::Whole } else { Secret::Digest };
        let file = secret_text::name_of(&self.file);
        let text = secret_text::read_many(&self.file).map_err(|error| {
            Failure::fault(format!("cannot read the keys in {file}")).because(error)
        })?;
        let mut keys: Vec<Numbered> = Vec::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let key = imported_line::read(line, secret).map_err(|problem| {
                Failure::fault(format!("{file}, line {number}: {problem}"))
                    .hint("nothing was imported; see `keyledger key import --help`")
            })?;
            keys.push((number, key));
        }
        drop(text);
        if keys.is_empty() {
            return Err(Failure::fault(format!("there are no keys in {file}")));
        }
        let steps = steps(keys);
        if steps.len() > 1 && self.expected_revision.is_some() {
            return Err(Failure::fault(
                "the file takes several steps, and `--expected-revision` \
                                       is for one",
            )
            .hint(format!("import at most {KEYS_AT_ONCE_MAX} keys at a time")));
        }
        let mut request = proto::ImportKeysRequest {
            organization_id: self.target.organization_id(),
            keys: Vec::new(),
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let imported = import(session, &request, steps, &file).await?;
            let code = session.print(&imported, || imported.to_text())?;
            imported.warn();
            if !session.json() {
                let (keys, are) = counted(imported.keys.len());
                talk(&format!("done: {keys} {are} accepted from now on\n"));
            }
            Ok(code)
        })
    }
}

/// As many keys together as one request may hold.
fn steps(keys: Vec<Numbered>) -> Vec<Vec<Numbered>> {
    let mut steps: Vec<Vec<Numbered>> = Vec::new();
    let mut bytes = 0;
    for (line, key) in keys {
        // A tag and a length stand before each.
        let more = key.encoded_len() + 8;
        match steps.last_mut() {
            Some(step) if step.len() < KEYS_AT_ONCE_MAX && bytes + more <= REQUEST_BYTES_MAX => {
                bytes += more;
                step.push((line, key));
            }
            _ => {
                bytes = more;
                steps.push(vec![(line, key)]);
            }
        }
    }
    steps
}

async fn import(
    session: &Session<'_>,
    request: &proto::ImportKeysRequest,
    steps: Vec<Vec<Numbered>>,
    file: &str,
) -> Result<Imported, Failure> {
    let mut imported = Imported::default();
    let mut done = None;
    for (step, number) in steps.into_iter().zip(1..) {
        let lines: Vec<usize> = step.iter().map(|(line, _)| *line).collect();
        let mut request = proto::ImportKeysRequest {
            keys: step.into_iter().map(|(_, key)| key).collect(),
            ..request.clone()
        };
        // Each step is a request of its own.
        if number > 1 && !request.idempotency_key.is_empty() {
            request.idempotency_key = format!("{}/{number}", request.idempotency_key);
        }
        let request = session.request(request)?;
        match session.answer(service(session).import_keys(request)).await {
            Ok(answer) => imported.join(answer),
            Err(failure) => return Err(explained(failure, &lines, file, done)),
        }
        done = lines.last().copied();
    }
    Ok(imported)
}

/// Says which line of the file a failure is about, and what was imported before it.
fn explained(failure: Failure, lines: &[usize], file: &str, done: Option<usize>) -> Failure {
    let place = failure.message().strip_prefix("`keys[").and_then(|it| it.split(']').next());
    let line = place.and_then(|it| lines.get(it.parse::<usize>().ok()?));
    let failure = match line {
        Some(line) => failure.because(format!("that is line {line} of {file}")),
        None => failure,
    };
    match done {
        Some(last) => failure.because(format!("the keys up to line {last} were imported before")),
        None => failure,
    }
}

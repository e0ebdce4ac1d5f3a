//! `keyledger export`

mod part;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tonic::Status;

use super::activity::{Filters, service};
use super::client::{Client, Session, Target};
use super::failure::{Failure, Outcome};
use super::output::{print_bytes, print_json, safe, talk};
use super::resuming::{Pauses, may_go_on};
use crate::proto;
use part::{Begun, Part, Told, Whole};

/// How often it is tried to go on before it is given up.
const ATTEMPTS_MAX: u32 = 20;

/// Write the activity log into a file, or to standard output.
///
/// All that was recorded when the export begins, oldest first, as far as the filters show it.
/// Where the connection breaks it goes on by itself. Into a file: what is written stands in
/// `FILE.part` until all of it is there and on disk; `--resume` goes on with one that was broken
/// off, whatever ended it. Exit code 0 means that all of it is there. With `--json`, what came of
/// it is an object on stdout, where the export went into a file.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger export --org vtx --format csv --output activity.csv
  keyledger export --output activity.csv --resume
  keyledger export --org vtx --format ocsf --from 2026-11-01 --to 2026-12-01 | gzip > november.gz")]
pub(super) struct Export {
    /// What is written [default: jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// The file, which must not be there yet; it is for its owner alone
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Go on with the export into this file that was broken off, as it was begun
    #[arg(long, requires = "output", conflicts_with = "format")]
    resume: bool,

    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

/// The forms of an export.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// The stored bytes of each event, an event a line: evidence; personal data is sealed in it
    Jsonl,
    /// A table with a header, safe for spreadsheets
    Csv,
    /// CloudEvents whose data are OCSF events, one a line
    Ocsf,
}

impl From<Format> for proto::ExportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jsonl => Self::JsonLines,
            Format::Csv => Self::Csv,
            Format::Ocsf => Self::OcsfCloudevents,
        }
    }
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    file: String,
    bytes: u64,
    sha256: String,
    end_revision: u64,
    resumed: bool,
}

impl Export {
    pub(super) fn run(self) -> Outcome {
        let filter = self.filters.into_message()?;
        if self.resume && filter != proto::ActivityFilter::default() {
            return Err(Failure::fault("`--resume` goes on with the export as it was begun")
                .hint("leave out what narrows it"));
        }
        if self.output.as_deref() == Some(Path::new("-")) {
            return Err(Failure::fault("`--output`: `-` is no file")
                .hint("without `--output` the export goes to standard output"));
        }
        let mut request = proto::ExportActivityRequest {
            organization_id: self.target.organization_id(),
            filter: Some(filter),
            format: proto::ExportFormat::from(self.format.unwrap_or(Format::Jsonl)).into(),
            ..Default::default()
        };
        let resumed = match &self.output {
            Some(path) if self.resume => Some(Part::resume(path)?),
            _ => None,
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let (mut sink, request) = match (resumed, &self.output) {
                (Some((part, begun)), _) => {
                    same_organization(&request, &begun)?;
                    (Sink::File(Box::new(part)), begun)
                }
                (None, Some(path)) => (Sink::File(Box::new(Part::make(path, &request)?)), request),
                (None, None) => (Sink::Stdout, request),
            };
            let begun = match &sink {
                Sink::File(part) => part.begun().cloned(),
                Sink::Stdout => None,
            };
            let (pauses, bar) = (Pauses::new(), bar());
            let mut work = Work { session, request, begun, pauses, bar, done: 0 };
            let exported = work.export(&mut sink).await;
            work.bar.finish_and_clear();
            let end = match exported {
                Ok(end) => end,
                Err(failure) => return Err(sink.broken_off(failure)),
            };
            let Sink::File(part) = sink else { return Ok(ExitCode::SUCCESS) };
            let Whole { path, bytes, sha256 } = part.finish()?;
            let file = safe(&path.display().to_string());
            if session.json() {
                let resumed = self.resume;
                let summary = Summary { file, bytes, sha256, end_revision: end, resumed };
                print_json(&summary)?;
            } else {
                talk(&format!(
                    "exported: `{file}`, {bytes} bytes, up to revision {end}\nSHA-256: {sha256}\n"
                ));
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn same_organization(
    named: &proto::ExportActivityRequest,
    begun: &proto::ExportActivityRequest,
) -> Result<(), Failure> {
    if named.organization_id.is_empty() || named.organization_id == begun.organization_id {
        return Ok(());
    }
    let of = match begun.organization_id.as_str() {
        "" => "your key's own organization",
        id => id,
    };
    Err(Failure::fault(format!("`--org`: the export that was broken off is of {of}")))
}

/// Where the bytes go.
enum Sink {
    Stdout,
    File(Box<Part>),
}

impl Sink {
    fn write(&mut self, bytes: &[u8], told: Told) -> Result<(), Failure> {
        match self {
            Self::Stdout => print_bytes(bytes),
            Self::File(part) => part.write(bytes, told),
        }
    }

    /// Notes of what it is.
    fn begin(&mut self, begun: &Begun) {
        if let Self::File(part) = self {
            part.begin(begun.clone());
        }
    }

    /// What is said where not all of it is there.
    fn broken_off(self, failure: Failure) -> Failure {
        match self {
            Self::Stdout => failure,
            Self::File(part) => part.broken_off(failure),
        }
    }
}

struct Work<'a> {
    session: &'a Session<'a>,
    request: proto::ExportActivityRequest,
    /// Of what it is, once the server said.
    begun: Option<Begun>,
    pauses: Pauses,
    bar: ProgressBar,
    /// Events that earlier calls have looked at.
    done: u64,
}

/// How one call ended.
enum Ended {
    Complete,
    Broken(Status),
}

impl Work<'_> {
    /// Writes all of it; gives the last revision.
    async fn export(&mut self, sink: &mut Sink) -> Result<u64, Failure> {
        let mut begun = false;
        loop {
            let status = match self.once(sink, &mut begun).await? {
                Ended::Complete => return Ok(self.request.up_to_revision.unwrap_or_default()),
                Ended::Broken(status) => status,
            };
            let enough = self.pauses.attempts() >= ATTEMPTS_MAX;
            if !begun || enough || !may_go_on(&status) {
                return Err(self.session.refused(&status));
            }
            let behind = self.request.after_revision;
            if !self.pauses.wait(&status, behind).await {
                return Err(interrupted());
            }
        }
    }

    /// Writes what one call tells, and notes in the request how far that is.
    async fn once(&mut self, sink: &mut Sink, begun: &mut bool) -> Result<Ended, Failure> {
        let message = self.session.stream_request(self.request.clone())?;
        let call = async { service(self.session).export_activity(message).await };
        let mut pieces = tokio::select! {
            answer = call => match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => return Ok(Ended::Broken(status)),
            },
            _ = tokio::signal::ctrl_c() => return Err(interrupted()),
        };
        let done = self.done;
        loop {
            let piece = tokio::select! {
                piece = pieces.message() => piece,
                _ = tokio::signal::ctrl_c() => return Err(interrupted()),
            };
            let piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    return Ok(Ended::Broken(Status::unavailable("the server ended the call")));
                }
                Err(status) => return Ok(Ended::Broken(status)),
            };
            *begun = true;
            self.pauses.reset();
            if let Some(begin) = &piece.begin {
                let now = Begun::of(begin);
                let stored_bytes = self.request.format() == proto::ExportFormat::JsonLines;
                match &self.begun {
                    Some(begun) => begun.may_go_on_as(&now, stored_bytes)?,
                    None => sink.begin(&now),
                }
                self.begun.get_or_insert(now);
                // From here on the end stands, whatever is recorded.
                self.request.up_to_revision = begin.end.as_ref().map(|it| it.revision);
                self.bar.set_length(done + begin.events_ahead);
                continue;
            }
            let after = piece.revision.as_ref().map(|it| it.revision);
            let told = Told { after, up_to: self.request.up_to_revision };
            sink.write(&piece.data, told)?;
            self.request.after_revision = after;
            self.done = done + piece.events;
            self.bar.set_position(self.done);
            if piece.complete {
                return Ok(Ended::Complete);
            }
        }
    }
}

fn interrupted() -> Failure {
    Failure::fault("interrupted")
}

/// On a terminal only.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("[{bar:40}] {pos}/{len} events {per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

//! `keyledger break-glass check`: what a bundle says, and whether it is whole. No server is
//! asked.

mod opened;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use projections::activity::is_under;
use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::event::Event;
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::recorded::Revision;
use projections::time::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::failure::{Failure, NO, Outcome};
use super::super::output::{print, print_json};
use super::super::view::break_glass::{BundleProblem, Checked, hex};
use super::bundle::{EventLine, FORMAT, Header, Trailer, VERSION};
use super::timeline::Timeline;
use crate::proto;

/// Most bytes of a line: an event of the greatest length with its keys takes half of it.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// Check a bundle of `replay --bundle`, and show what was done. No server is needed.
///
/// Each event is what its leaf hash says and belongs to the grant, they stand in order from the
/// opening to the end, and what is sealed in them opens. Exit code 1 where that is not so, with
/// the first thing that is wrong.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger break-glass check incident-7.jsonl")]
pub(in crate::cli) struct Check {
    /// The bundle
    #[arg(value_name = "FILE")]
    bundle: PathBuf,

    /// Print one JSON object, without what was done
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(in crate::cli) fn run(self) -> Outcome {
        let checked = walk(&self.bundle, |_, _| Ok(()))?;
        if self.json {
            print_json(&checked)?;
            let code = if checked.whole { ExitCode::SUCCESS } else { ExitCode::from(NO) };
            return Ok(code);
        }
        refuse(&self.bundle, &checked)?;
        // Nothing is shown of what is not whole, so it is read a second time.
        let mut timeline = Timeline::of(&checked.grant_id);
        let again = walk(&self.bundle, |_, entry| print(&timeline.tell(entry)))?;
        refuse(&self.bundle, &again)?;
        print(&format!("\n{}\n{}", timeline.summary(), again.to_text()))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn refuse(path: &Path, checked: &Checked) -> Result<(), Failure> {
    match &checked.problem {
        None => Ok(()),
        Some(BundleProblem { line, what }) => {
            Err(Failure::refusal(format!("`{}` is not whole: line {line} {what}", path.display())))
        }
    }
}

/// Reads a bundle from its beginning to the first thing that is wrong.
fn walk(
    path: &Path,
    mut show: impl FnMut(&Checker, &proto::ActivityEntry) -> Result<(), Failure>,
) -> Result<Checked, Failure> {
    let cannot = |error| {
        Failure::fault(format!("cannot read the bundle in `{}`", path.display())).because(error)
    };
    let mut reader = BufReader::new(File::open(path).map_err(cannot)?);
    let mut checker = Checker::default();
    let mut line = Zeroizing::new(Vec::new());
    let mut number = 0;
    loop {
        number += 1;
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(cannot)? == 0 {
            let problem = checker.at_end().err();
            return Ok(checker.checked(number - 1, problem));
        }
        match checker.line(&line) {
            Ok(Some(entry)) => show(&checker, &entry)?,
            Ok(None) => {}
            Err(problem) => return Ok(checker.checked(number, Some(problem))),
        }
    }
}

/// How far a bundle has been checked.
#[derive(Default)]
struct Checker {
    header: Option<(Header, BreakGlassGrantId, OrganizationId)>,
    digest: Sha256,
    events: u64,
    last: Option<(Revision, Timestamp)>,
    ends: u64,
    opened: u64,
    without_key: u64,
    trailer: Option<Trailer>,
}

type Checking<T> = Result<T, String>;

impl Checker {
    /// The next line; gives the entry where it holds an event.
    fn line(&mut self, line: &[u8]) -> Checking<Option<proto::ActivityEntry>> {
        if self.trailer.is_some() {
            return Err("stands behind the last one".to_owned());
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err("is cut off, or too long".to_owned());
        };
        let Some((header, grant_id, organization_id)) = &self.header else {
            self.header = Some(header(text)?);
            self.digest.update(line);
            return Ok(None);
        };
        if let Ok(trailer) = serde_json::from_slice::<Trailer>(text) {
            self.last_line(trailer)?;
            return Ok(None);
        }
        let event: EventLine = serde_json::from_slice(text).map_err(|error| {
            format!("is neither an event nor the last line (column {})", error.column())
        })?;
        debug_assert_eq!(header.version, VERSION, "no other was read");
        let (grant_id, organization_id) = (*grant_id, *organization_id);
        let entry = self.event(&event, grant_id, organization_id)?;
        self.digest.update(line);
        Ok(Some(entry))
    }

    fn event(
        &mut self,
        line: &EventLine,
        grant_id: BreakGlassGrantId,
        organization_id: OrganizationId,
    ) -> Checking<proto::ActivityEntry> {
        let revision = Revision(line.revision);
        let stored = URL_SAFE_NO_PAD
            .decode(&line.stored)
            .map_err(|_| "holds stored bytes that are no base64url".to_owned())?;
        if LeafHash::of(&stored) != line.leaf_hash {
            return Err("holds an event that is not what its leaf hash says".to_owned());
        }
        let envelope = Envelope::decode(&stored)
            .map_err(|fault| format!("holds an event that cannot be read: {fault}"))?;
        if !is_under(&envelope, grant_id) {
            return Err("holds an event that does not belong to the grant".to_owned());
        }
        if let Some((last, at)) = self.last {
            if revision <= last {
                return Err(format!("holds revision {}, behind {}", revision.0, last.0));
            }
            if envelope.at < at {
                return Err("holds an event that is earlier than the one before".to_owned());
            }
        }
        self.in_its_place(&envelope.event)?;
        let opened = opened::open(&envelope, &line.keys, organization_id)?;
        self.opened += opened.opened;
        self.without_key += opened.without_key;
        self.events += 1;
        self.last = Some((revision, envelope.at));
        Ok(opened::entry(revision, &envelope, organization_id, opened.personal_data))
    }

    /// The opening stands first and nowhere else, and nothing is used behind the end.
    fn in_its_place(&mut self, event: &Event) -> Checking<()> {
        let opens = matches!(event, Event::BreakGlassOpened(_));
        if self.events == 0 && !opens {
            return Err("holds another event than the opening of the grant".to_owned());
        }
        if self.events > 0 && opens {
            return Err("opens the grant a second time".to_owned());
        }
        if self.ends > 0 && matches!(event, Event::BreakGlassUsed(_)) {
            return Err("holds a use behind the end of the grant".to_owned());
        }
        if matches!(event, Event::BreakGlassEnded(_)) {
            self.ends += 1;
            if self.ends > 1 {
                return Err("ends the grant a second time".to_owned());
            }
        }
        Ok(())
    }

    fn last_line(&mut self, trailer: Trailer) -> Checking<()> {
        let last_revision = self.last.map(|(revision, _)| revision.0);
        if trailer.events != self.events {
            return Err(format!("says {} events; there are {}", trailer.events, self.events));
        }
        if trailer.last_revision != last_revision {
            return Err("says another last revision than the last event has".to_owned());
        }
        if self.events == 0 {
            return Err("ends a bundle without the opening of the grant".to_owned());
        }
        if trailer.complete && self.ends != 1 {
            return Err("says that the grant ended, and no event ends it".to_owned());
        }
        let sha256 = hex(&self.digest.clone().finalize());
        if trailer.sha256 != sha256 {
            return Err(format!("says another digest of the lines before it than {sha256}"));
        }
        self.trailer = Some(trailer);
        Ok(())
    }

    /// There are no more lines.
    fn at_end(&self) -> Checking<()> {
        match self.trailer {
            Some(_) => Ok(()),
            None => Err("is the end, and not the last line of a bundle".to_owned()),
        }
    }

    fn checked(self, line: u64, problem: Option<String>) -> Checked {
        let header = self.header.map(|(header, _, _)| header);
        let text =
            |of: fn(&Header) -> &String| header.as_ref().map(of).cloned().unwrap_or_default();
        Checked {
            whole: problem.is_none(),
            anchored: false,
            organization_id: text(|it| &it.organization_id),
            grant_id: text(|it| &it.grant_id),
            made_at: text(|it| &it.made_at),
            complete: self.trailer.as_ref().is_some_and(|it| it.complete),
            events: self.events,
            last_revision: self.last.map(|(revision, _)| revision.0),
            opened: self.opened,
            without_key: self.without_key,
            sha256: self.trailer.map(|it| it.sha256).unwrap_or_default(),
            problem: problem.map(|what| BundleProblem { line, what }),
        }
    }
}

fn header(text: &[u8]) -> Checking<(Header, BreakGlassGrantId, OrganizationId)> {
    let header: Header =
        serde_json::from_slice(text).map_err(|_| "is not the first line of a bundle".to_owned())?;
    if header.format != FORMAT {
        return Err("is not the first line of a bundle".to_owned());
    }
    if header.version != VERSION {
        return Err(format!("names version {}; this release reads {VERSION}", header.version));
    }
    let grant = header.grant_id.parse().map_err(|_| "names no grant".to_owned())?;
    let organization = header.organization_id.parse();
    let organization = organization.map_err(|_| "names no organization".to_owned())?;
    Ok((header, grant, organization))
}

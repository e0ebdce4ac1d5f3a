//! A file that is being exported: `FILE.part` for what is written, `FILE.resume` for how far.
//!
//! What `FILE.resume` says is on disk before it says so: it is written anew beside, synced and
//! put in its place, behind a sync of what it speaks of. Whatever ends the program or the
//! machine, the export goes on there: what `FILE.part` has behind that is cut off. `FILE` itself
//! is there once it is whole.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::failure::Failure;
use crate::proto;

/// How far the export is, is put down behind so many bytes, or where so much time went by.
const SAVE_BYTES: u64 = 32 * 1024 * 1024;
const SAVE_WITHIN: Duration = Duration::from_secs(1);
const ANEW: &str = "remove what is left of `FILE.part` and `FILE.resume`, and begin anew";
/// More than `FILE.resume` ever has.
const RESUME_BYTES_MAX: u64 = 64 * 1024;

/// How far an export is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The last revision whose record was given; none before the first.
    pub(super) after: Option<u64>,
    /// The last of all.
    pub(super) up_to: Option<u64>,
}

/// `FILE.resume`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// The request as it was first made, as a protobuf message in base64.
    request: String,
    after_revision: Option<u64>,
    up_to_revision: Option<u64>,
    /// So many bytes of `FILE.part` are right.
    bytes: u64,
    /// Their SHA-256 digest, in hexadecimal.
    sha256: String,
    /// Of what, and for whom; none where the server never said.
    begun: Option<Begun>,
}

/// Of what an export is, and for whom it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    stream: String,
    /// The leaf hash of its last event, in base64.
    end_leaf_hash: String,
    /// Who reads, as a protobuf message in base64.
    reader: String,
}

impl Begun {
    pub(super) fn of(begin: &proto::ExportBegin) -> Self {
        let reader = begin.reader.as_ref().map(prost::Message::encode_to_vec);
        Self {
            stream: begin.end.as_ref().map(|it| it.stream.clone()).unwrap_or_default(),
            end_leaf_hash: STANDARD.encode(&begin.end_leaf_hash),
            reader: STANDARD.encode(reader.unwrap_or_default()),
        }
    }

    /// Whether an export that began as this may go on as another. What is personal in records
    /// other than the stored bytes looks otherwise to another reader.
    pub(super) fn may_go_on_as(&self, other: &Self, stored_bytes: bool) -> Result<(), Failure> {
        let wrong = if self.stream != other.stream {
            format!("the export is of `{}`, and this would be of `{}`", self.stream, other.stream)
        } else if self.end_leaf_hash != other.end_leaf_hash {
            format!("the history of `{}` is not the one that the export began with", self.stream)
        } else if self.reader != other.reader && !stored_bytes {
            "the export began for somebody else, to whom personal data may look otherwise"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::fault(wrong)
            .hint("go on with the credential and the server that it began with, or begin anew"))
    }
}

/// A file that is being written.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    request: String,
    written: u64,
    digest: Sha256,
    begun: Option<Begun>,
    told: Told,
    saved_at: u64,
    saved: Instant,
}

/// A file that is whole.
pub(super) struct Whole {
    /// Where it is.
    pub(super) path: PathBuf,
    /// How long it is.
    pub(super) bytes: u64,
    /// Its SHA-256 digest, in hexadecimal.
    pub(super) sha256: String,
}

/// The path with this behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn cannot(path: &Path) -> Failure {
    Failure::fault(format!("cannot write `{}`", path.display()))
}

impl Part {
    /// Begins a file, which must not be there, in part neither.
    pub(super) fn make(
        path: &Path,
        request: &proto::ExportActivityRequest,
    ) -> Result<Self, Failure> {
        if path.exists() {
            return Err(cannot(path)
                .because("it is there already")
                .hint("name a file that is not there"));
        }
        let part = beside(path, ".part");
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = made.map_err(|error| {
            let failure = cannot(&part).because(&error);
            if error.kind() == ErrorKind::AlreadyExists {
                failure.hint("an export into it was broken off: `--resume` goes on with it")
            } else {
                failure
            }
        })?;
        let request = STANDARD.encode(request.encode_to_vec());
        let path = path.to_owned();
        let mut part = Self {
            path,
            file,
            request,
            written: 0,
            digest: Sha256::new(),
            begun: None,
            told: Told::default(),
            saved_at: 0,
            saved: Instant::now(),
        };
        part.lock()?;
        part.save()?;
        Ok(part)
    }

    /// Goes on with a file that was broken off, and gives what is to be asked for it.
    pub(super) fn resume(path: &Path) -> Result<(Self, proto::ExportActivityRequest), Failure> {
        let resume = beside(path, ".resume");
        let unreadable = || Failure::fault(format!("cannot go on from `{}`", resume.display()));
        let mut text = String::new();
        let read = File::open(&resume)
            .and_then(|file| file.take(RESUME_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| {
            let failure = unreadable().because(&error);
            if error.kind() == ErrorKind::NotFound {
                failure.hint("no export into this file was broken off: leave out `--resume`")
            } else {
                failure
            }
        })?;
        let saved: Saved =
            serde_json::from_str(&text).map_err(|error| unreadable().because(error).hint(ANEW))?;
        let bytes = STANDARD.decode(&saved.request).map_err(|error| unreadable().because(error))?;
        let begun = proto::ExportActivityRequest::decode(bytes.as_slice())
            .map_err(|error| unreadable().because(error))?;
        let part = beside(path, ".part");
        let opened = OpenOptions::new().read(true).write(true).open(&part);
        let file = opened.map_err(|error| cannot(&part).because(error).hint(ANEW))?;
        let told = Told { after: saved.after_revision, up_to: saved.up_to_revision };
        let request = proto::ExportActivityRequest {
            after_revision: told.after,
            up_to_revision: told.up_to,
            ..begun
        };
        let mut this = Self {
            path: path.to_owned(),
            file,
            request: saved.request,
            written: saved.bytes,
            digest: Sha256::new(),
            begun: saved.begun,
            told,
            saved_at: saved.bytes,
            saved: Instant::now(),
        };
        this.lock()?;
        this.take_up(&saved.sha256).map_err(|error| cannot(&part).because(error))?;
        Ok((this, request))
    }

    /// One program writes it.
    fn lock(&self) -> Result<(), Failure> {
        self.file.try_lock().map_err(|error| {
            cannot(&self.path).because(error).hint("another export writes it: wait for its end")
        })
    }

    /// Looks at what was written, and takes away what is behind it.
    fn take_up(&mut self, digest: &str) -> std::io::Result<()> {
        let mut read = BufReader::with_capacity(1 << 20, (&self.file).take(self.written));
        let mut there = 0;
        loop {
            let bytes = read.fill_buf()?;
            let length = bytes.len();
            if length == 0 {
                break;
            }
            self.digest.update(bytes);
            there += length as u64;
            read.consume(length);
        }
        if there < self.written {
            return Err(std::io::Error::other(
                "it is shorter than it was; remove it and its `.resume`, and begin anew",
            ));
        }
        if self.digest() != digest {
            return Err(std::io::Error::other(
                "it is not what was written; remove it and its `.resume`, and begin anew",
            ));
        }
        self.file.set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written))?;
        Ok(())
    }

    fn digest(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.digest.clone().finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Of what it is, as it was said when it began; none before that.
    pub(super) fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// Notes of what it is.
    pub(super) fn begin(&mut self, begun: Begun) {
        self.begun = Some(begun);
    }

    /// Writes behind what was written.
    pub(super) fn write(&mut self, bytes: &[u8], told: Told) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| cannot(&beside(&self.path, ".part")).because(error))?;
        self.written += bytes.len() as u64;
        self.digest.update(bytes);
        self.told = told;
        let due = self.written - self.saved_at >= SAVE_BYTES || self.saved.elapsed() >= SAVE_WITHIN;
        if due { self.save() } else { Ok(()) }
    }

    /// Puts down how far it is, on disk.
    fn save(&mut self) -> Result<(), Failure> {
        let resume = beside(&self.path, ".resume");
        self.try_save(&resume).map_err(|error| cannot(&resume).because(error))?;
        self.saved_at = self.written;
        self.saved = Instant::now();
        Ok(())
    }

    fn try_save(&self, resume: &Path) -> std::io::Result<()> {
        self.file.sync_data()?;
        let saved = Saved {
            request: self.request.clone(),
            after_revision: self.told.after,
            up_to_revision: self.told.up_to,
            bytes: self.written,
            sha256: self.digest(),
            begun: self.begun.clone(),
        };
        let new = beside(resume, ".new");
        // Made here, and nothing that somebody put in its place.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&saved)?)?;
        file.sync_all()?;
        std::fs::rename(&new, resume)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// All of it is written: when this returns the file is there, whole, on disk.
    pub(super) fn finish(self) -> Result<Whole, Failure> {
        self.try_finish().map_err(|error| cannot(&self.path).because(error))?;
        let sha256 = self.digest();
        Ok(Whole { path: self.path, bytes: self.written, sha256 })
    }

    fn try_finish(&self) -> std::io::Result<()> {
        self.file.sync_all()?;
        if self.path.exists() {
            return Err(std::io::Error::other("another came to be there meanwhile"));
        }
        std::fs::rename(beside(&self.path, ".part"), &self.path)?;
        std::fs::remove_file(beside(&self.path, ".resume"))?;
        self.sync_directory()
    }

    /// Puts down how far it is, as far as that can be, and says how to go on. What was never
    /// begun is taken away.
    pub(super) fn broken_off(mut self, failure: Failure) -> Failure {
        if self.written == 0 && self.told == Told::default() {
            let _ = std::fs::remove_file(beside(&self.path, ".part"));
            let _ = std::fs::remove_file(beside(&self.path, ".resume"));
            return failure;
        }
        // What was put down before stands where this fails.
        let _ = self.save();
        failure.hint("`--resume`, with the same `--output`, goes on where it was left")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn told(after: u64) -> Told {
        Told { after: Some(after), up_to: Some(9) }
    }

    fn request() -> proto::ExportActivityRequest {
        proto::ExportActivityRequest { organization_id: "org_x".to_owned(), ..Default::default() }
    }

    #[test]
    fn it_goes_on_where_it_was_put_down_whatever_is_behind_that() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.jsonl");
        let mut part = Part::make(&path, &request()).unwrap();
        part.write(b"one\n", told(1)).unwrap();
        part.save().unwrap();
        part.write(b"two\nthr", told(2)).unwrap();
        // As a kill leaves it: nothing more is put down.
        drop(part);
        assert!(!path.exists());
        assert!(Part::make(&path, &request()).is_err(), "it is not begun anew over that");
        let (mut part, next) = Part::resume(&path).unwrap();
        assert_eq!((next.after_revision, next.up_to_revision), (Some(1), Some(9)));
        assert_eq!(next.organization_id, "org_x");
        assert!(Part::resume(&path).is_err(), "one program writes it");
        part.write(b"two\n", told(2)).unwrap();
        let whole = part.finish().unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), whole.bytes), (b"one\ntwo\n".to_vec(), 8));
        // printf 'one\ntwo\n' | sha256sum
        assert_eq!(
            whole.sha256,
            "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(Part::make(&path, &request()).is_err(), "nothing is written over");
        assert!(Part::resume(&path).is_err(), "there is nothing to go on with");
    }

    #[test]
    fn what_began_is_gone_on_with_as_what_it_is() {
        let begin = |stream: &str, hash: u8, user: &str| proto::ExportBegin {
            end: Some(proto::StreamRevision { stream: stream.to_owned(), revision: 9 }),
            end_leaf_hash: vec![hash; 32],
            reader: Some(proto::Principal { user_id: user.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let begun = Begun::of(&begin("org-a", 1, "usr_1"));
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log.csv");
        let mut part = Part::make(&path, &request()).unwrap();
        part.begin(begun);
        part.write(b"one\n", told(1)).unwrap();
        let _ = part.broken_off(Failure::fault("x"));
        let (part, _) = Part::resume(&path).unwrap();
        let begun = part.begun().unwrap();
        let may = |stream, hash, user, stored_bytes| {
            let other = Begun::of(&begin(stream, hash, user));
            let failure = begun.may_go_on_as(&other, stored_bytes).err();
            failure.map(|it| it.report()).unwrap_or_default()
        };
        assert_eq!(may("org-a", 1, "usr_1", false), "");
        assert!(may("org-b", 1, "usr_1", true).contains("would be of `org-b`"));
        assert!(may("org-a", 2, "usr_1", true).contains("is not the one"));
        assert!(may("org-a", 1, "usr_2", false).contains("somebody else"));
        assert_eq!(may("org-a", 1, "usr_2", true), "", "sealed for everybody");
    }

    #[test]
    fn what_was_put_down_wrongly_is_not_gone_on_with() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut part = Part::make(&path, &request()).unwrap();
        part.write(b"one\n", told(1)).unwrap();
        let _ = part.broken_off(Failure::fault("x"));
        assert!(Part::resume(&path).is_ok());
        for (wrong, says) in [(&b"on"[..], "shorter"), (b"One\n", "not what was written")] {
            std::fs::write(beside(&path, ".part"), wrong).unwrap();
            let failure = Part::resume(&path).map(|_| ()).unwrap_err();
            assert!(format!("{failure:?}").contains(says), "{failure:?}");
        }
        for wrong in ["", "{}", "x", r#"{"request":"!","bytes":0}"#] {
            std::fs::write(beside(&path, ".resume"), wrong).unwrap();
            assert!(Part::resume(&path).is_err(), "{wrong}");
        }
        let never = home.path().join("never");
        let _ = Part::make(&never, &request()).unwrap().broken_off(Failure::fault("x"));
        assert!(!beside(&never, ".part").exists() && !beside(&never, ".resume").exists());
    }
}

//! A file that is being exported: `FILE.part` for what is written, `FILE.resume` for how far.
//!
//! What `FILE.resume` says is on disk before it says so: it is written anew beside, synced and
//! put in its place, behind a sync of what it speaks of. Whatever ends the program or the
//! machine, the export goes on there: what `FILE.part` has behind that is cut off. `FILE` itself
//! is there once it is whole.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::super::failure::Failure;
use crate::proto;

/// How far the export is, is put down behind so many bytes, or where so much time went by.
const SAVE_BYTES: u64 = 32 * 1024 * 1024;
const SAVE_WITHIN: Duration = Duration::from_secs(1);
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
    /// Their BLAKE3 digest.
    blake3: String,
}

/// A file that is being written.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    request: String,
    written: u64,
    digest: Box<blake3::Hasher>,
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
    /// Its BLAKE3 digest, in hexadecimal.
    pub(super) blake3: String,
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
            digest: Box::default(),
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
            serde_json::from_str(&text).map_err(|error| unreadable().because(error))?;
        let bytes = STANDARD.decode(&saved.request).map_err(|error| unreadable().because(error))?;
        let begun = proto::ExportActivityRequest::decode(bytes.as_slice())
            .map_err(|error| unreadable().because(error))?;
        let part = beside(path, ".part");
        let opened = OpenOptions::new().read(true).write(true).open(&part);
        let file = opened.map_err(|error| cannot(&part).because(error))?;
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
            digest: Box::default(),
            told,
            saved_at: saved.bytes,
            saved: Instant::now(),
        };
        this.lock()?;
        this.take_up(&saved.blake3).map_err(|error| cannot(&part).because(error))?;
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
        self.digest.update_reader((&self.file).take(self.written))?;
        if self.digest.count() < self.written {
            return Err(std::io::Error::other(
                "it is shorter than it was; remove it and begin anew",
            ));
        }
        if self.digest.finalize().to_hex().as_str() != digest {
            return Err(std::io::Error::other(
                "it is not what was written; remove it and begin anew",
            ));
        }
        self.file.set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written))?;
        Ok(())
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
            blake3: self.digest.finalize().to_string(),
        };
        let new = beside(resume, ".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
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
        let blake3 = self.digest.finalize().to_string();
        Ok(Whole { path: self.path, bytes: self.written, blake3 })
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
        assert_eq!(whole.blake3, blake3::hash(b"one\ntwo\n").to_string());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(Part::make(&path, &request()).is_err(), "nothing is written over");
        assert!(Part::resume(&path).is_err(), "there is nothing to go on with");
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

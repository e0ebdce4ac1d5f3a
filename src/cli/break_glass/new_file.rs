//! A file that must not be there yet, for its owner alone: a key, a token, a bundle.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::super::failure::Failure;

/// A new file of mode 0600. It is taken away again where it is dropped without being kept.
pub(super) struct NewFile {
    path: PathBuf,
    what: &'static str,
    file: BufWriter<File>,
    kept: bool,
}

impl NewFile {
    /// Makes it, empty; `what` is what it is for.
    pub(super) fn make(path: &Path, what: &'static str) -> Result<Self, Failure> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|error| {
            let failure = cannot(what, path).because(&error);
            if error.kind() == ErrorKind::AlreadyExists {
                failure.hint("name a file that is not there")
            } else {
                failure
            }
        })?;
        Ok(Self { path: path.to_owned(), what, file: BufWriter::new(file), kept: false })
    }

    /// Writes behind what was written.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| cannot(self.what, &self.path).because(error))
    }

    /// Keeps it: when this returns it is on disk, whole.
    pub(super) fn keep(mut self) -> Result<(), Failure> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let directory = self.path.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let synced = synced.and_then(|()| File::open(directory)?.sync_all());
        synced.map_err(|error| cannot(self.what, &self.path).because(error))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot(what: &str, path: &Path) -> Failure {
    Failure::fault(format!("cannot write {what} into `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_not_kept_is_taken_away_and_nothing_is_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let mut dropped = NewFile::make(&path, "the token").unwrap();
        dropped.write(b"x").unwrap();
        drop(dropped);
        assert!(!path.exists());
        let mut kept = NewFile::make(&path, "the token").unwrap();
        kept.write(b"x").unwrap();
        kept.keep().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(NewFile::make(&path, "the token").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }
}

//! The data directory: who may use it, and what the files in it are called.
//!
//! Only its owner can read it. One process uses it at a time, held to that by a lock
//! that the system takes back when the process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::open_error::OpenError;
use super::schema;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The database that is the truth.
pub(super) const DATABASE: &str = "ledger.db";

/// A data directory that is ours until this is dropped.
pub(super) struct Directory {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl Directory {
    /// Takes the directory, making it if need be.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY_MODE)
                .create(path)
                .and_then(|()| path.parent().map_or(Ok(()), sync_directory))
                .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        }
        let lock_path = path.join("lock");
        let io = |source| OpenError::Io { path: lock_path.clone(), source };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::DirectoryLocked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// The database that is the truth.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes the database if it is not there. It is made under another name, so that a
    /// `ledger.db` that is empty was cut off, and is never taken for a new one.
    pub(super) fn ensure_database(&self) -> Result<(), OpenError> {
        let path = self.database();
        let wal = self.path.join("ledger.db-wal");
        match (path.exists(), wal.exists()) {
            (true, _) => return Ok(()),
            (false, true) => {
                let what = "it is missing, but its write-ahead log is there";
                return Err(OpenError::Corrupt(what.to_owned()));
            }
            (false, false) => {}
        }
        let new = self.path.join("ledger.db.new");
        let io = |source| OpenError::Io { path: new.clone(), source };
        for leftover in [new.clone(), self.path.join("ledger.db.new-journal")] {
            match fs::remove_file(leftover) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                Ok(()) | Err(_) => {}
            }
        }
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&new)
            .map_err(io)?;
        let connection = Connection::open_with_flags(&new, schema::WRITE_FLAGS)?;
        schema::create(&connection)?;
        connection.close().map_err(|(_, error)| error)?;
        file.sync_all()
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| sync_directory(&self.path))
            .map_err(io)
    }

    /// Makes the names of files in the directory durable.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        sync_directory(&self.path)
            .map_err(|source| OpenError::Io { path: self.path.clone(), source })
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

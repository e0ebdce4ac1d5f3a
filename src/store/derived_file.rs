//! A SQLite file of what is derived: how it is made, opened and thrown away.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long a read waits for a lock that only recovery takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite's way with files of one process alone (<https://sqlite.org/vfs.html>, "unix-excl"): the
/// index of the write-ahead log is in memory. As a mapped file it would be a hole wherever the
/// file system's blocks are smaller than a page, and a full disk would then end the process
/// by SIGBUS.
const ONE_PROCESS: &CStr = c"unix-excl";

/// Makes the file where it is not there: here and not by SQLite, so that it never is open to
/// others.
pub(super) fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Opens one connection to it.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, ONE_PROCESS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Another connection to a database in use, for what goes wrong with it.
#[cfg(test)]
pub(super) fn beside(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), ONE_PROCESS).unwrap()
}

/// Removes the file and what SQLite keeps beside it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for beside in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        match fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

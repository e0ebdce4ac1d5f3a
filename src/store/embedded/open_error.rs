//! Why a data directory cannot be opened, in words an operator can act on.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the embedded store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error(
        "data directory `{}` is in use by another keyledger; stop that one, or give this one a directory of its own",
        .0.display()
    )]
    DirectoryLocked(PathBuf),
    /// Another program has the database open.
    #[error("another program has `ledger.db` open; close it")]
    InUse,
    /// `ledger.db` is no database, or another program's.
    #[error("`ledger.db` is not a keyledger database; move it away or name another data directory")]
    NotKeyledger,
    /// A later release has written the database.
    #[error(
        "`ledger.db` has schema {found}, this release knows schemas up to {known}; start a newer release"
    )]
    NewerSchema {
        /// The schema of the database.
        found: i32,
        /// The newest schema this release can read.
        known: i32,
    },
    /// Tables, indexes or triggers were changed by hand.
    #[error("the tables or triggers of `ledger.db` were changed; restore it from a backup")]
    SchemaDiffers,
    /// The database is damaged, truncated, or missing beside its own log.
    #[error("`ledger.db` is damaged: {0}; restore it from a backup")]
    Corrupt(String),
    /// A new store does not fit.
    #[error(
        "no space for a new ledger in `{}`: {free_mib} MiB are free, {needed_mib} MiB are needed; make space, or name another data directory",
        path.display()
    )]
    NoSpace {
        /// The data directory.
        path: PathBuf,
        /// How much is free.
        free_mib: u64,
        /// How much must be.
        needed_mib: u64,
    },
    /// The operating system refuses a file.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database engine fails in another way.
    #[error("cannot open `ledger.db`")]
    Engine(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotKeyledger,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt(error.to_string()),
            _ => Self::Engine(error),
        }
    }
}

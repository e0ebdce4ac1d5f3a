//! The vault of an installation: `vault.db`, a SQLite file beside the secret files that
//! open it.
//!
//! - Every key and secret row in it is wrapped under the root key (`vault::wrap`): the file alone opens
//!   nothing.
//! - It is written by one thread (`worker`), many requests to a commit, and answers only
//!   when the commit is on disk (rollback journal, `synchronous=EXTRA`).
//! - Some space is set aside (`vault.reserve`) for what urgent commands write: a disk that
//!   is full refuses the rest, and fences nothing.
//! - Erasing, or replacing a secret row, overwrites what was there (`secure_delete`). What a file system, a disk or a backup
//!   keeps of an older state is theirs; it is wrapped all the same.
//! - It knows its root key and peppers by check values, so that a wrong or a newly made
//!   file is refused at start, not discovered when nothing opens any more.
//!
//! Start at [`FileVault::open`].

mod tables;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use papaya::HashMap;
use projections::sealed::Subject;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::files::{self, ROOT_KEY_FILE, SecretFileError, pepper_file};
use super::wrap::RootKey;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::vault::rows::{RowName, RowSecret, RowVersion, RowWritten, SecretRow};
use crate::ledger::vault::{SubjectKey, SubjectKeyState, Vault, VaultError, VaultFuture};
use crate::reserve::Reserve;
use tables::Tables;
use worker::{Job, RowChange, Worker};

/// The vault's file in the data directory.
pub const VAULT_FILE: &str = "vault.db";
/// The space set aside for urgent keys, beside it.
pub const RESERVE_FILE: &str = "vault.reserve";
/// How much that is: some thousands of keys.
const RESERVE_BYTES: u64 = 1 << 20;
/// How much of it is given up, or taken again, at once.
const RESERVE_STEP_BYTES: u64 = 64 << 10;
/// Most requests waiting for the vault's thread; further callers wait for a place.
pub const QUEUE_JOBS_MAX: usize = 1_024;
/// Most subject keys at hand. Beyond, the vault forgets them all and begins anew.
pub const CACHED_SUBJECT_KEYS_MAX: usize = if cfg!(test) { 300 } else { 100_000 };

/// Whether an installation without a vault is a new one.
///
/// The vault must be opened before the event store is made: a first start that is cut
/// short in between is then still a first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is no history yet: a vault and its secrets may be made.
    First,
    /// There is history: its vault and secrets must be there.
    Later,
}

/// Why a vault does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenVaultError {
    /// There is history, but no vault.
    #[error(
        "`{path}` is missing; restore it from a backup, or is `--secrets-dir` right? Without it sealed data cannot be read"
    )]
    Missing {
        /// The vault's file.
        path: PathBuf,
    },
    /// A secret file is missing, or not as it must be.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// A secret file is not the one this vault was made with.
    #[error(
        "`{path}` is not the one this vault was made with; restore the right one from a backup"
    )]
    WrongSecret {
        /// The secret file.
        path: PathBuf,
    },
    /// The vault has sealed for a history that is not there.
    #[error(
        "`{path}` has kept keys for a history, but there is no `ledger.db`; restore it from a backup, or name another secrets directory to begin anew"
    )]
    HistoryMissing {
        /// The vault's file.
        path: PathBuf,
    },
    /// A newer or foreign file stands in the vault's place.
    #[error("`{path}` is no vault of this version (form {form}); use the version that wrote it")]
    Form {
        /// The vault's file.
        path: PathBuf,
        /// What it says of itself.
        form: i64,
    },
    /// SQLite failed.
    #[error("cannot open the vault `{path}`")]
    Database {
        /// The vault's file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// No space can be set aside.
    #[error("cannot use `{path}`")]
    Reserve {
        /// The file that holds it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The vault's thread did not start.
    #[error("cannot start the vault's thread")]
    Thread(#[source] std::io::Error),
    /// The cipher refused. It has no reason to.
    #[error("the cipher refused the root key")]
    Cipher,
}

/// Subject keys at hand. Only the vault's thread changes it, after each commit.
type Cache = HashMap<Subject, SubjectKey>;

/// The vault in a data directory. One process at a time may have it open.
pub struct FileVault {
    jobs: mpsc::Sender<Job>,
    cache: Arc<Cache>,
}

impl FileVault {
    /// Opens the vault in this directory and reads all peppers beside it: which of them
    /// is current, and which are missing, only history can say. At the first start it makes
    /// the directory, the secret files and the vault.
    ///
    /// # Errors
    ///
    /// A file is missing that cannot be made anew, is not the one that belongs here, is
    /// open to others, or cannot be read.
    pub fn open(directory: &Path, start: Start) -> Result<(Self, Peppers), OpenVaultError> {
        let path = directory.join(VAULT_FILE);
        let there = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0);
        // Before the directory is made: an empty one would be in the way of a backup.
        if !there && start == Start::Later {
            return Err(OpenVaultError::Missing { path });
        }
        files::make_directory(directory)?;
        // Secrets first: a vault that is there proves that its secrets once were.
        let secret = |name: &str| {
            let path = directory.join(name);
            match files::read_key(&path) {
                Err(SecretFileError::Missing { .. }) if !there => files::make_key(&path),
                outcome => outcome,
            }
        };
        let root = RootKey::new(secret(ROOT_KEY_FILE)?);
        let mut later = files::peppers_in(directory)?;
        later.retain(|pepper| there && *pepper > PepperId::FIRST);
        let first = match secret(&pepper_file(PepperId::FIRST)) {
            // Retired and taken away, perhaps: whoever knows the keys can tell.
            Err(SecretFileError::Missing { .. }) if !later.is_empty() => None,
            outcome => Some(outcome?),
        };
        let first_check = first.as_deref().map(pepper_check_value);
        let mut peppers = first.map(|pepper| Peppers::new(PepperId::FIRST, pepper));
        for id in later {
            let pepper = files::read_key(&directory.join(pepper_file(id)))?;
            peppers = Some(match peppers {
                Some(peppers) => peppers.with_retired(id, pepper),
                None => Peppers::new(id, pepper),
            });
        }
        let missing =
            || SecretFileError::Missing { path: directory.join(pepper_file(PepperId::FIRST)) };
        let peppers = peppers.ok_or_else(missing)?;

        let mut tables = Tables::open(&path, start)?;
        let root_check = root.check_value().ok_or(OpenVaultError::Cipher)?;
        for (name, file, value) in [
            ("root", ROOT_KEY_FILE.to_owned(), Some(root_check)),
            ("pepper-1", pepper_file(PepperId::FIRST), first_check),
        ] {
            let Some(value) = value else { continue };
            let same = tables
                .check(start, name, &value)
                .map_err(|source| OpenVaultError::Database { path: path.clone(), source })?;
            if !same {
                return Err(OpenVaultError::WrongSecret { path: directory.join(file) });
            }
        }
        // A subject's key is made for a request, and requests come once there is history.
        let sealed_before = start == Start::First
            && tables
                .has_subjects()
                .map_err(|source| OpenVaultError::Database { path: path.clone(), source })?;
        if sealed_before {
            return Err(OpenVaultError::HistoryMissing { path });
        }

        let cache = Arc::new(Cache::new());
        let (jobs, waiting) = mpsc::channel(QUEUE_JOBS_MAX);
        let reserve =
            Reserve::open(&directory.join(RESERVE_FILE), RESERVE_BYTES, RESERVE_STEP_BYTES)
                .map_err(|source| OpenVaultError::Reserve {
                    path: directory.join(RESERVE_FILE),
                    source,
                })?;
        let worker = Worker::new(tables, root, Arc::clone(&cache), reserve);
        std::thread::Builder::new()
            .name("vault".to_owned())
            .spawn(move || worker.run(waiting))
            .map_err(OpenVaultError::Thread)?;
        Ok((Self { jobs, cache }, peppers))
    }

    /// Hands a job to the vault's thread and waits for its answer.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, VaultError>>) -> Job,
    ) -> VaultFuture<T> {
        let jobs = self.jobs.clone();
        let (reply, answer) = oneshot::channel();
        let job = job(reply);
        Box::pin(async move {
            let gone = || VaultError::Unavailable("its thread has ended; restart".to_owned());
            jobs.send(job).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }
}

impl Vault for FileVault {
    fn cached_subject_key(&self, subject: &Subject) -> Option<SubjectKey> {
        self.cache.pin().get(subject).cloned()
    }

    fn obtain_subject_key(&self, subject: &Subject, urgency: Urgency) -> VaultFuture<SubjectKey> {
        if let Some(key) = self.cached_subject_key(subject) {
            return Box::pin(std::future::ready(Ok(key)));
        }
        self.ask(|reply| Job::Obtain(subject.clone(), urgency, reply))
    }

    fn existing_subject_key(&self, subject: &Subject) -> VaultFuture<SubjectKeyState> {
        if let Some(key) = self.cached_subject_key(subject) {
            return Box::pin(std::future::ready(Ok(SubjectKeyState::Held(key))));
        }
        self.ask(|reply| Job::Existing(subject.clone(), reply))
    }

    fn existing_subject_keys(&self, subjects: &[Subject]) -> VaultFuture<Vec<SubjectKeyState>> {
        let subjects = subjects.to_vec();
        self.ask(|reply| Job::ExistingOfMany(subjects, reply))
    }

    fn erase_subject(&self, subject: &Subject) -> VaultFuture<bool> {
        self.ask(|reply| Job::Erase(subject.clone(), reply))
    }

    fn obtain_named_key(&self, name: &'static str) -> VaultFuture<Zeroizing<[u8; 32]>> {
        self.ask(|reply| Job::Named(name, reply))
    }

    fn read_row(&self, name: &RowName) -> VaultFuture<Option<SecretRow>> {
        self.ask(|reply| Job::Row(name.clone(), reply))
    }

    fn write_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> VaultFuture<RowWritten> {
        let change = RowChange { name: name.clone(), expected, secret };
        self.ask(|reply| Job::WriteRow(change, urgency, reply))
    }

    fn row_names(&self, after: Option<&RowName>) -> VaultFuture<Vec<RowName>> {
        self.ask(|reply| Job::RowNames(after.cloned(), reply))
    }
}

/// What tells this pepper from another, and tells nothing else about it.
fn pepper_check_value(pepper: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("keyledger/vault/1/pepper-check", pepper)
}

#[cfg(test)]
mod tests;

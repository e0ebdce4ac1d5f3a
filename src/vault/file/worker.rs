//! The vault's thread: takes what waits, carries it out in one transaction, and answers
//! when that is on disk.

use std::sync::Arc;
use std::time::Duration;

use projections::sealed::Subject;
use rusqlite::ErrorCode;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::tables::{Rows, SubjectRow, Tables};
use super::{CACHED_SUBJECT_KEYS_MAX, Cache, RESERVE_STEP_BYTES};
use crate::ledger::secret::{NoEntropy, random_key};
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{
    ROW_NAMES_MAX, RowName, RowSecret, RowVersion, RowWritten, SecretRow,
};
use crate::ledger::vault::{SubjectKey, SubjectKeyState, VaultError};
use crate::reserve::Reserve;
use crate::vault::wrap::{Purpose, RootKey, Wrapped};

/// What must be free beside a step of the reserve that is taken up again.
const RESERVE_SPARE_BYTES: u64 = RESERVE_STEP_BYTES;
/// How long a job may wait while the reserve is not whole.
const SPACE_LOOK: Duration = Duration::from_millis(20);
/// Most jobs in one transaction.
pub(super) const BATCH_JOBS_MAX: usize = 256;
const _: () = assert!(BATCH_JOBS_MAX < CACHED_SUBJECT_KEYS_MAX);

type Reply<T> = oneshot::Sender<Result<T, VaultError>>;

/// What the vault is asked.
pub(super) enum Job {
    Obtain(Subject, Urgency, Reply<SubjectKey>),
    Existing(Subject, Reply<SubjectKeyState>),
    /// What is found is not kept in memory: that has room for those that are asked for alone.
    ExistingOfMany(Vec<Subject>, Reply<Vec<SubjectKeyState>>),
    Erase(Subject, Reply<bool>),
    Named(&'static str, Reply<Zeroizing<[u8; 32]>>),
    Row(RowName, Reply<Option<SecretRow>>),
    WriteRow(RowChange, Urgency, Reply<RowWritten>),
    RowNames(Option<RowName>, Reply<Vec<RowName>>),
}

/// A change of a secret row.
pub(super) struct RowChange {
    pub(super) name: RowName,
    pub(super) expected: Option<RowVersion>,
    /// None: the row is taken away.
    pub(super) secret: Option<RowSecret>,
}

/// A job that was carried out, waiting for the commit. Gives the job back where there was
/// no space for it and it may have what is set aside.
type Answer = Box<dyn FnOnce(Result<(), VaultError>, &Cache) -> Option<Job>>;

pub(super) struct Worker {
    tables: Tables,
    root: RootKey,
    cache: Arc<Cache>,
    reserve: Reserve,
    /// After an I/O error it is not known what is on disk: nothing more is done until a restart.
    fenced: Option<VaultError>,
}

impl Worker {
    pub(super) fn new(tables: Tables, root: RootKey, cache: Arc<Cache>, reserve: Reserve) -> Self {
        Self { tables, root, cache, reserve, fenced: None }
    }

    /// Works until no one can ask any more.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = self.next(&mut waiting) {
            let mut batch = vec![first];
            while batch.len() < BATCH_JOBS_MAX
                && let Ok(job) = waiting.try_recv()
            {
                batch.push(job);
            }
            // One that there is no space for must not fail the others.
            for job in self.carry_out(batch) {
                self.carry_out_short(job);
            }
        }
    }

    /// The next job; none once no one can ask any more. While the reserve is not whole it is
    /// looked for space meanwhile.
    fn next(&mut self, waiting: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while !self.refilled() {
            match waiting.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(SPACE_LOOK),
            }
        }
        waiting.blocking_recv()
    }

    /// Carries out a job that there was no space for, urgent ones on the reserve's.
    fn carry_out_short(&mut self, job: Job) {
        let urgent = job.is_urgent();
        let mut again = self.carry_out(vec![job]);
        while urgent && !again.is_empty() && self.release() {
            again = self.carry_out(again);
        }
        again.into_iter().for_each(Job::refuse);
    }

    /// Takes up what is missing of the reserve, if there is space; true once it is whole.
    fn refilled(&mut self) -> bool {
        // A file system that fails here fails where it matters, too, and that is told.
        self.reserve.is_whole() || self.reserve.refill(RESERVE_SPARE_BYTES).is_ok_and(|whole| whole)
    }

    /// Gives up a step of the reserve.
    fn release(&mut self) -> bool {
        tracing::error!(
            reserve_bytes = self.reserve.held(),
            "the disk of the vault is full: its reserve is used for an urgent key; make space"
        );
        self.reserve.release().unwrap_or_else(|error| {
            tracing::error!(%error, "the vault's reserve could not be used");
            false
        })
    }

    /// Carries out a batch, all of it or nothing. Gives it back where there is no space.
    fn carry_out(&mut self, batch: Vec<Job>) -> Vec<Job> {
        let whole = self.reserve.is_whole();
        let mut attempts = Attempts { rows: None, root: &self.root, whole, failed: None };
        if self.fenced.is_none() {
            match self.tables.begin() {
                Ok(rows) => attempts.rows = Some(rows),
                Err(error) => attempts.failed = Some(error),
            }
        }
        let answers: Vec<Answer> = batch.into_iter().map(|job| attempts.carry_out(job)).collect();
        let committed = attempts.commit();
        let committed = match (&self.fenced, committed) {
            (Some(fault), _) => Err(fault.clone()),
            (None, Err(error)) => Err(self.fault(&error)),
            (None, Ok(())) => Ok(()),
        };
        // INVARIANT: a batch is smaller than the cache.
        if self.cache.len() + answers.len() > CACHED_SUBJECT_KEYS_MAX {
            self.cache.pin().clear();
        }
        answers.into_iter().filter_map(|answer| answer(committed.clone(), &self.cache)).collect()
    }

    /// What callers are told; fences the vault unless it is known that nothing was written.
    fn fault(&mut self, error: &rusqlite::Error) -> VaultError {
        let quota = error
            .sqlite_error()
            .is_some_and(|code| code.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE)
            && self.reserve.has_room(RESERVE_STEP_BYTES).is_ok_and(|room| !room);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => VaultError::Full,
            _ if quota => VaultError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                VaultError::Unavailable("another process uses it".to_owned())
            }
            // Its journal, which comes before everything else.
            Some(ErrorCode::CannotOpen) => {
                VaultError::Unavailable("its journal cannot be made".to_owned())
            }
            _ => {
                let text = format!("fenced after an error, restart to check it: {error}");
                self.fenced.insert(VaultError::Unavailable(text)).clone()
            }
        }
    }
}

impl Job {
    /// Whether what is set aside is for it, too. An erasure writes over what is there; it
    /// needs space for the journal alone.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Obtain(_, urgency, _) => *urgency == Urgency::Reserved,
            Self::Erase(..) => true,
            Self::WriteRow(change, urgency, _) => {
                change.secret.is_none() || *urgency == Urgency::Reserved
            }
            Self::Existing(..)
            | Self::ExistingOfMany(..)
            | Self::Named(..)
            | Self::Row(..)
            | Self::RowNames(..) => false,
        }
    }

    /// Says that there is no space for it.
    fn refuse(self) {
        // Whoever asked may be gone.
        match self {
            Self::Obtain(_, _, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::Existing(_, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::ExistingOfMany(_, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::Erase(_, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::Named(_, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::Row(_, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::WriteRow(_, _, reply) => drop(reply.send(Err(VaultError::Full))),
            Self::RowNames(_, reply) => drop(reply.send(Err(VaultError::Full))),
        }
    }
}

/// One batch. The first error ends it: after one, SQLite may have rolled everything back.
struct Attempts<'a> {
    rows: Option<Rows<'a>>,
    root: &'a RootKey,
    /// Nothing of what is set aside is missing.
    whole: bool,
    failed: Option<rusqlite::Error>,
}

impl Attempts<'_> {
    fn carry_out(&mut self, job: Job) -> Answer {
        match job {
            Job::Obtain(subject, urgency, reply) => {
                // What was given up for urgent keys is for them alone.
                let may_make = self.whole || urgency == Urgency::Reserved;
                let key = self.attempt(|rows, root| obtain(rows, root, &subject, may_make));
                Box::new(move |committed, cache| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::Obtain(subject, urgency, reply));
                    }
                    let key = committed.and(key);
                    if let Ok(key) = &key {
                        cache.pin().insert(subject, key.clone());
                    }
                    let _ = reply.send(key);
                    None
                })
            }
            Job::Existing(subject, reply) => {
                let state = self.attempt(|rows, root| existing(rows, root, &subject));
                Box::new(move |committed, cache| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::Existing(subject, reply));
                    }
                    let state = committed.and(state);
                    if let Ok(SubjectKeyState::Held(key)) = &state {
                        cache.pin().insert(subject, key.clone());
                    }
                    let _ = reply.send(state);
                    None
                })
            }
            Job::ExistingOfMany(subjects, reply) => {
                let states = self.attempt(|rows, root| {
                    subjects.iter().map(|subject| existing(rows, root, subject)).collect()
                });
                Box::new(move |committed, _| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::ExistingOfMany(subjects, reply));
                    }
                    let _ = reply.send(committed.and(states));
                    None
                })
            }
            Job::Erase(subject, reply) => {
                let held = self.attempt(|rows, _| erase(rows, &subject));
                Box::new(move |committed, cache| {
                    // Even if it is not on disk: rather ask again than give it out.
                    cache.pin().remove(&subject);
                    if committed == Err(VaultError::Full) {
                        return Some(Job::Erase(subject, reply));
                    }
                    let _ = reply.send(committed.and(held));
                    None
                })
            }
            Job::Row(name, reply) => {
                let row = self.attempt(|rows, root| read_row(rows, root, &name));
                Box::new(move |committed, _| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::Row(name, reply));
                    }
                    let _ = reply.send(committed.and(row));
                    None
                })
            }
            Job::WriteRow(change, urgency, reply) => {
                let may_write =
                    self.whole || urgency == Urgency::Reserved || change.secret.is_none();
                let written = self.attempt(|rows, root| write_row(rows, root, &change, may_write));
                Box::new(move |committed, _| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::WriteRow(change, urgency, reply));
                    }
                    let _ = reply.send(committed.and(written));
                    None
                })
            }
            Job::RowNames(after, reply) => {
                let names = self.attempt(|rows, _| row_names(rows, after.as_ref()));
                Box::new(move |committed, _| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::RowNames(after, reply));
                    }
                    let _ = reply.send(committed.and(names));
                    None
                })
            }
            Job::Named(name, reply) => {
                let key = self.attempt(|rows, root| named(rows, root, name));
                Box::new(move |committed, _| {
                    if committed == Err(VaultError::Full) {
                        return Some(Job::Named(name, reply));
                    }
                    let _ = reply.send(committed.and(key));
                    None
                })
            }
        }
    }

    /// Does this, unless the batch has ended already.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>, &RootKey) -> rusqlite::Result<Result<T, VaultError>>,
    ) -> Result<T, VaultError> {
        // The batch's own fault is reported before this one.
        let ended = || Err(VaultError::Unavailable("not carried out".to_owned()));
        let Some(rows) = self.rows.as_ref().filter(|_| self.failed.is_none()) else {
            return ended();
        };
        work(rows, self.root).unwrap_or_else(|error| {
            self.failed = Some(error);
            ended()
        })
    }

    /// Ends the batch: all of it is on disk, or none.
    fn commit(self) -> rusqlite::Result<()> {
        match (self.failed, self.rows) {
            (Some(error), _) => Err(error),
            (None, Some(rows)) => rows.commit(),
            (None, None) => Ok(()),
        }
    }
}

fn erase(rows: &Rows<'_>, subject: &Subject) -> rusqlite::Result<Result<bool, VaultError>> {
    let held = matches!(rows.subject(subject)?, SubjectRow::Held(_));
    rows.erase_subject(subject)?;
    Ok(Ok(held))
}

fn existing(
    rows: &Rows<'_>,
    root: &RootKey,
    subject: &Subject,
) -> rusqlite::Result<Result<SubjectKeyState, VaultError>> {
    Ok(match rows.subject(subject)? {
        SubjectRow::Erased => Ok(SubjectKeyState::Erased),
        SubjectRow::Absent => Ok(SubjectKeyState::Absent),
        SubjectRow::Held(wrapped) => unwrap(root, Purpose::Subject, subject.as_str(), &wrapped)
            .map(|key| SubjectKeyState::Held(SubjectKey::new(key))),
    })
}

fn obtain(
    rows: &Rows<'_>,
    root: &RootKey,
    subject: &Subject,
    may_make: bool,
) -> rusqlite::Result<Result<SubjectKey, VaultError>> {
    match existing(rows, root, subject)? {
        Ok(SubjectKeyState::Held(key)) => Ok(Ok(key)),
        Ok(SubjectKeyState::Erased) => Ok(Err(VaultError::Erased(subject.clone()))),
        Err(error) => Ok(Err(error)),
        Ok(SubjectKeyState::Absent) if !may_make => Ok(Err(VaultError::Full)),
        Ok(SubjectKeyState::Absent) => match fresh(root, Purpose::Subject, subject.as_str()) {
            Err(error) => Ok(Err(error)),
            Ok((key, wrapped)) => {
                rows.keep_subject(subject, &wrapped)?;
                Ok(Ok(SubjectKey::new(key)))
            }
        },
    }
}

fn named(
    rows: &Rows<'_>,
    root: &RootKey,
    name: &'static str,
) -> rusqlite::Result<Result<Zeroizing<[u8; 32]>, VaultError>> {
    if let Some(wrapped) = rows.named(name)? {
        return Ok(unwrap(root, Purpose::Named, name, &wrapped));
    }
    match fresh(root, Purpose::Named, name) {
        Err(error) => Ok(Err(error)),
        Ok((key, wrapped)) => {
            rows.keep_named(name, &wrapped)?;
            Ok(Ok(key))
        }
    }
}

/// Which state of a row this is: part of what is drawn anew whenever it is written.
fn version(wrapped: &Wrapped) -> RowVersion {
    let head = wrapped.salt.first_chunk().copied().unwrap_or_default();
    RowVersion(u64::from_le_bytes(head))
}

fn read_row(
    rows: &Rows<'_>,
    root: &RootKey,
    name: &RowName,
) -> rusqlite::Result<Result<Option<SecretRow>, VaultError>> {
    let Some(wrapped) = rows.secret_row(name)? else { return Ok(Ok(None)) };
    let secret = root.unwrap_secret(Purpose::Row, name.as_str(), &wrapped).and_then(RowSecret::new);
    let row = secret.map(|secret| Some(SecretRow { version: version(&wrapped), secret }));
    Ok(row.ok_or_else(|| VaultError::Damaged(name.to_string())))
}

fn write_row(
    rows: &Rows<'_>,
    root: &RootKey,
    change: &RowChange,
    may_write: bool,
) -> rusqlite::Result<Result<RowWritten, VaultError>> {
    let RowChange { name, expected, secret } = change;
    if rows.secret_row(name)?.as_ref().map(version) != *expected {
        return Ok(Ok(RowWritten::Conflict));
    }
    let Some(secret) = secret else {
        rows.remove_secret_row(name)?;
        return Ok(Ok(RowWritten::Written(None)));
    };
    if !may_write {
        return Ok(Err(VaultError::Full));
    }
    match wrap(root, Purpose::Row, name.as_str(), secret.expose()) {
        Err(error) => Ok(Err(error)),
        Ok(wrapped) => {
            rows.keep_secret_row(name, &wrapped)?;
            Ok(Ok(RowWritten::Written(Some(version(&wrapped)))))
        }
    }
}

fn row_names(
    rows: &Rows<'_>,
    after: Option<&RowName>,
) -> rusqlite::Result<Result<Vec<RowName>, VaultError>> {
    let names = rows.secret_row_names(after.map_or("", RowName::as_str), ROW_NAMES_MAX)?;
    let known = |name: String| name.parse().map_err(|_| VaultError::Damaged(name));
    Ok(names.into_iter().map(known).collect())
}

fn unwrap(
    root: &RootKey,
    purpose: Purpose,
    name: &str,
    wrapped: &Wrapped,
) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    root.unwrap(purpose, name, wrapped).ok_or_else(|| VaultError::Damaged(name.to_owned()))
}

fn fresh(
    root: &RootKey,
    purpose: Purpose,
    name: &str,
) -> Result<(Zeroizing<[u8; 32]>, Wrapped), VaultError> {
    let key = random_key().map_err(no_entropy)?;
    let wrapped = wrap(root, purpose, name, key.as_slice())?;
    Ok((key, wrapped))
}

fn wrap(
    root: &RootKey,
    purpose: Purpose,
    name: &str,
    secret: &[u8],
) -> Result<Wrapped, VaultError> {
    let wrapped = root.wrap(purpose, name, secret).map_err(no_entropy)?;
    wrapped.ok_or_else(|| VaultError::Unavailable("the cipher refused".to_owned()))
}

fn no_entropy(error: NoEntropy) -> VaultError {
    VaultError::Unavailable(error.to_string())
}

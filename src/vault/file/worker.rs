//! The vault's thread: takes what waits, carries it out in one transaction, and answers
//! when that is on disk.

use std::sync::Arc;

use projections::sealed::Subject;
use rusqlite::ErrorCode;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::tables::{Rows, SubjectRow, Tables};
use super::{CACHED_SUBJECT_KEYS_MAX, Cache};
use crate::ledger::secret::random_key;
use crate::ledger::vault::{SubjectKey, SubjectKeyState, VaultError};
use crate::vault::wrap::{Purpose, RootKey, Wrapped};

/// Most jobs in one transaction.
pub(super) const BATCH_JOBS_MAX: usize = 256;
const _: () = assert!(BATCH_JOBS_MAX < CACHED_SUBJECT_KEYS_MAX);

type Reply<T> = oneshot::Sender<Result<T, VaultError>>;

/// What the vault is asked.
pub(super) enum Job {
    Obtain(Subject, Reply<SubjectKey>),
    Existing(Subject, Reply<SubjectKeyState>),
    Erase(Subject, Reply<bool>),
    Named(&'static str, Reply<Zeroizing<[u8; 32]>>),
}

/// A job that was carried out, waiting for the commit.
type Answer = Box<dyn FnOnce(Result<(), VaultError>, &Cache)>;

pub(super) struct Worker {
    tables: Tables,
    root: RootKey,
    cache: Arc<Cache>,
    /// After an I/O error it is not known what is on disk: nothing more is done until a restart.
    fenced: Option<VaultError>,
}

impl Worker {
    pub(super) fn new(tables: Tables, root: RootKey, cache: Arc<Cache>) -> Self {
        Self { tables, root, cache, fenced: None }
    }

    /// Works until no one can ask any more.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_JOBS_MAX
                && let Ok(job) = waiting.try_recv()
            {
                batch.push(job);
            }
            self.carry_out(batch);
        }
    }

    fn carry_out(&mut self, batch: Vec<Job>) {
        let mut attempts = Attempts { rows: None, root: &self.root, failed: None };
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
            (None, Err(error)) => Err(fault(&error, &mut self.fenced)),
            (None, Ok(())) => Ok(()),
        };
        // INVARIANT: a batch is smaller than the cache.
        if self.cache.len() + answers.len() > CACHED_SUBJECT_KEYS_MAX {
            self.cache.pin().clear();
        }
        for answer in answers {
            answer(committed.clone(), &self.cache);
        }
    }
}

/// One batch. The first error ends it: after one, SQLite may have rolled everything back.
struct Attempts<'a> {
    rows: Option<Rows<'a>>,
    root: &'a RootKey,
    failed: Option<rusqlite::Error>,
}

impl Attempts<'_> {
    fn carry_out(&mut self, job: Job) -> Answer {
        match job {
            Job::Obtain(subject, reply) => {
                let key = self.attempt(|rows, root| obtain(rows, root, &subject));
                Box::new(move |committed, cache| {
                    let key = committed.and(key);
                    if let Ok(key) = &key {
                        cache.pin().insert(subject, key.clone());
                    }
                    let _ = reply.send(key);
                })
            }
            Job::Existing(subject, reply) => {
                let state = self.attempt(|rows, root| existing(rows, root, &subject));
                Box::new(move |committed, cache| {
                    let state = committed.and(state);
                    if let Ok(SubjectKeyState::Held(key)) = &state {
                        cache.pin().insert(subject, key.clone());
                    }
                    let _ = reply.send(state);
                })
            }
            Job::Erase(subject, reply) => {
                let held = self.attempt(|rows, _| erase(rows, &subject));
                Box::new(move |committed, cache| {
                    // Even if it is not on disk: rather ask again than give it out.
                    cache.pin().remove(&subject);
                    let _ = reply.send(committed.and(held));
                })
            }
            Job::Named(name, reply) => {
                let key = self.attempt(|rows, root| named(rows, root, name));
                Box::new(move |committed, _| {
                    let _ = reply.send(committed.and(key));
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
) -> rusqlite::Result<Result<SubjectKey, VaultError>> {
    match existing(rows, root, subject)? {
        Ok(SubjectKeyState::Held(key)) => Ok(Ok(key)),
        Ok(SubjectKeyState::Erased) => Ok(Err(VaultError::Erased(subject.clone()))),
        Err(error) => Ok(Err(error)),
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
    let no_entropy =
        |error: crate::ledger::secret::NoEntropy| VaultError::Unavailable(error.to_string());
    let key = random_key().map_err(no_entropy)?;
    let wrapped = root.wrap(purpose, name, &key).map_err(no_entropy)?;
    let wrapped =
        wrapped.ok_or_else(|| VaultError::Unavailable("the cipher refused".to_owned()))?;
    Ok((key, wrapped))
}

/// What callers are told; fences the vault unless it is known that nothing was written.
fn fault(error: &rusqlite::Error, fenced: &mut Option<VaultError>) -> VaultError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => VaultError::Unavailable("no space left".to_owned()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            VaultError::Unavailable("another process uses it".to_owned())
        }
        _ => {
            let text = format!("fenced after an error, restart to check it: {error}");
            fenced.insert(VaultError::Unavailable(text)).clone()
        }
    }
}

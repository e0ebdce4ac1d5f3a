//! Threads that read, so that no read waits for a write or holds up the runtime.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::open_error::OpenError;
use super::reader::Reader;
use crate::ledger::event_store::{ReadError, StoreFuture};

/// Most reads that wait for a thread.
pub(super) const READS_WAITING_MAX: usize = 4_096;

type Job = Box<dyn FnOnce(&mut Reader) + Send>;

/// Hands reads to the threads. Clones share them.
#[derive(Clone, Default)]
pub(super) struct ReaderPool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl ReaderPool {
    /// Starts the threads, each with a connection of its own.
    pub(super) fn start(
        &self,
        database: &Path,
        threads: usize,
    ) -> Result<Vec<JoinHandle<()>>, OpenError> {
        (0..threads.max(1))
            .map(|_| {
                let mut reader = Reader::open(database)?;
                let shared = Arc::clone(&self.shared);
                let work = move || {
                    while let Some(job) = shared.take() {
                        job(&mut reader)
                    }
                };
                thread::Builder::new()
                    .name("store-reader".to_owned())
                    .spawn(work)
                    .map_err(|source| OpenError::Io { path: database.to_owned(), source })
            })
            .collect()
    }

    /// Queues a read; it is done even if nobody awaits it.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> StoreFuture<Result<T, ReadError>> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |reader: &mut Reader| {
            if !answer.is_closed() {
                // Whoever asked may have dropped the future in the meantime.
                let _ = answer.send(read(reader));
            }
        });
        if let Err(refusal) = self.shared.push(job) {
            return Box::pin(std::future::ready(Err(ReadError::Unavailable(refusal.to_owned()))));
        }
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(ReadError::Unavailable(CLOSED.to_owned())))
        })
    }

    /// Ends the threads after the read each is at.
    pub(super) fn close(&self) {
        let mut jobs = self.shared.lock();
        jobs.closed = true;
        jobs.waiting.clear();
        drop(jobs);
        self.shared.changed.notify_all();
    }
}

const CLOSED: &str = "the store is closed";

impl Shared {
    fn push(&self, job: Job) -> Result<(), &'static str> {
        let mut jobs = self.lock();
        if jobs.closed {
            return Err(CLOSED);
        }
        if jobs.waiting.len() >= READS_WAITING_MAX {
            return Err("too many reads are waiting");
        }
        jobs.waiting.push_back(job);
        drop(jobs);
        self.changed.notify_one();
        Ok(())
    }

    fn take(&self) -> Option<Job> {
        let jobs = self.lock();
        let mut jobs = self
            .changed
            .wait_while(jobs, |jobs| jobs.waiting.is_empty() && !jobs.closed)
            .unwrap_or_else(PoisonError::into_inner);
        jobs.waiting.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

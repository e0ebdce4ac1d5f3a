//! The way of a command into the history of one organization.
//!
//! Commands of one organization are decided one after the other, each on the tables as
//! the events in flight will leave them, so that many of them share one fsync. What is
//! answered is durable: an acceptance, and a rejection too, waits for the events that
//! it was decided on. If an append fails, what was decided behind it is taken back, and
//! decided anew once it is certain that it was not written.
//!
//! INVARIANT: `ahead` = the published tables + the events in flight, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use projections::organization::{Change, Organization};
use projections::recorded::Revision;
use tokio::sync::{Notify, oneshot};

use super::event_store::AppendError;
use super::tables::{Published, Tables};

/// What became of the events that an answer relies on.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// They are durable and published.
    Durable,
    /// The append itself failed: nothing was written.
    Failed(AppendError),
    /// An append in front of them failed for this reason, and they were not written: decide
    /// anew.
    Discarded(AppendError),
}

/// One command's events on their way to the disk.
struct InFlight {
    ticket: u64,
    steps: Vec<(Change, Arc<Organization>)>,
    waiters: Vec<oneshot::Sender<Landing>>,
    /// Why an append in front of it failed, if one did: it is not to be published, and its
    /// own outcome says whether it was written all the same.
    behind: Option<AppendError>,
}

/// The writing side of one organization.
pub(super) struct Pipeline {
    pub(super) published: Arc<Published>,
    writer: Mutex<Writer>,
    /// Woken when a pipeline that was held goes on.
    flows: Notify,
}

pub(super) struct Writer {
    ahead: Organization,
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    /// Appends whose outcome has not come back, those taken back included.
    unresolved: usize,
    /// An append failed: nothing is decided until every outcome is known and the
    /// stream was read again.
    held: bool,
    /// Somebody is reading it again.
    recovering: bool,
}

/// A place in the pipeline.
pub(super) struct Ticket(u64);

impl Pipeline {
    pub(super) fn new(published: Arc<Published>) -> Self {
        let ahead = Organization::clone(&published.tables());
        let writer = Writer {
            ahead,
            in_flight: VecDeque::new(),
            next_ticket: 0,
            unresolved: 0,
            held: false,
            recovering: false,
        };
        Self { published, writer: Mutex::new(writer), flows: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic inside leaves the writer whole: it is changed by plain assignments only.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, once the pipeline flows.
    pub(super) async fn writer(&self) -> MutexGuard<'_, Writer> {
        loop {
            let flows = self.flows.notified();
            let mut flows = std::pin::pin!(flows);
            flows.as_mut().enable();
            if let Some(writer) = self.flowing() {
                return writer;
            }
            flows.await;
        }
    }

    fn flowing(&self) -> Option<MutexGuard<'_, Writer>> {
        Some(self.lock()).filter(|writer| !writer.held)
    }

    /// Everything up to this ticket is durable: readers may see it.
    pub(super) fn landed(&self, tables: &Tables, ticket: &Ticket) {
        let mut writer = self.lock();
        writer.unresolved -= 1;
        let mut landed = Vec::new();
        while writer.in_flight.front().is_some_and(|it| it.ticket <= ticket.0) {
            let Some(entry) = writer.in_flight.pop_front() else { break };
            let landing = match entry.behind {
                None => {
                    for (change, step) in entry.steps {
                        tables.publish(&self.published, change, step);
                    }
                    Landing::Durable
                }
                // What it was decided on may have been written late, too, or never was.
                Some(error) => Landing::Failed(AppendError::Unknown(error.to_string())),
            };
            landed.extend(entry.waiters.into_iter().map(|waiter| (waiter, landing.clone())));
        }
        drop(writer);
        for (waiter, landing) in landed {
            // Whoever asked may be gone; the fact stands.
            let _ = waiter.send(landing);
        }
    }

    /// An append failed: takes back what was decided on it, and holds the pipeline. What is
    /// behind it is told when its own outcome is known: it may have been written.
    pub(super) fn failed(&self, ticket: &Ticket, error: &AppendError) {
        let mut writer = self.lock();
        writer.unresolved -= 1;
        writer.held = true;
        let behind = writer.in_flight.iter_mut().filter(|it| it.ticket > ticket.0);
        for entry in behind {
            entry.behind.get_or_insert_with(|| error.clone());
        }
        let at = writer.in_flight.iter().position(|it| it.ticket == ticket.0);
        let failed = at.and_then(|at| writer.in_flight.remove(at));
        drop(writer);
        let Some(InFlight { waiters, behind, .. }) = failed else { return };
        let landing = match (behind, error) {
            (None, _) | (Some(_), AppendError::Unknown(_)) => Landing::Failed(error.clone()),
            (Some(front), _) => Landing::Discarded(front),
        };
        for waiter in waiters {
            let _ = waiter.send(landing.clone());
        }
    }

    /// True, to one caller only, once the pipeline is held and every outcome is known:
    /// that caller must read the stream again and then [`Pipeline::recover`].
    pub(super) fn claim_recovery(&self) -> bool {
        let mut writer = self.lock();
        let claimed = writer.held && writer.unresolved == 0 && !writer.recovering;
        writer.recovering |= claimed;
        claimed
    }

    /// True where an event at this revision is another's: readers do not see it, and nothing
    /// is on its way. The pipeline is held then, and its caller must read the stream again and
    /// then [`Pipeline::recover`].
    pub(super) fn claim_catch_up(&self, revision: Revision) -> bool {
        let mut writer = self.lock();
        let behind = self.published.tables().revision() < Some(revision);
        let claimed = behind && !writer.held && writer.unresolved == 0;
        writer.held |= claimed;
        writer.recovering |= claimed;
        claimed
    }

    /// Goes on from the published tables.
    pub(super) fn recover(&self) {
        let mut writer = self.lock();
        writer.ahead = Organization::clone(&self.published.tables());
        writer.in_flight.clear();
        writer.held = false;
        writer.recovering = false;
        drop(writer);
        self.flows.notify_waiters();
    }
}

impl Writer {
    /// The tables as the events in flight will leave them.
    pub(super) fn ahead(&self) -> &Organization {
        &self.ahead
    }

    /// Takes a place for events that were folded into `steps`, one by one.
    pub(super) fn enter(
        &mut self,
        steps: Vec<(Change, Arc<Organization>)>,
    ) -> (Ticket, oneshot::Receiver<Landing>) {
        let (waiter, landing) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.unresolved += 1;
        if let Some((_, last)) = steps.last() {
            self.ahead = Organization::clone(last);
        }
        self.in_flight.push_back(InFlight { ticket, steps, waiters: vec![waiter], behind: None });
        (Ticket(ticket), landing)
    }

    /// What becomes of the events that an answer without events of its own relies on;
    /// none if all is published.
    pub(super) fn relied_on(&mut self) -> Option<oneshot::Receiver<Landing>> {
        let last = self.in_flight.back_mut()?;
        let (waiter, landing) = oneshot::channel();
        last.waiters.push(waiter);
        Some(landing)
    }
}

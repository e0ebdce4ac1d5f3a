//! A subscription made of reads: what is stored first, then what a signal announces.
//!
//! The signal only says *look again*; events always come from a read. So nothing can be
//! lost or repeated at the switch from stored to live: there is no switch.

use std::collections::VecDeque;
use std::pin::Pin;

use tokio::sync::watch;

use crate::ledger::event_store::{
    Position, READ_EVENTS_MAX, ReadError, ReadItem, StoreFuture, Subscription, place,
};

type Page = Result<Vec<ReadItem>, ReadError>;

/// Follows a store through `read`, which reads a page behind a position.
pub(super) struct CatchUp<R> {
    read: R,
    /// Changes after every append that became durable; closed with the store.
    durable: watch::Receiver<()>,
    /// Behind which position the next read begins.
    after: Option<Position>,
    ready: VecDeque<ReadItem>,
    /// A read under way. It is kept here, so that dropping [`Subscription::next`]'s
    /// future loses nothing.
    reading: Option<StoreFuture<Page>>,
}

impl<R> CatchUp<R>
where
    R: Fn(Option<Position>) -> StoreFuture<Page> + Send,
{
    pub(super) fn boxed(
        read: R,
        durable: watch::Receiver<()>,
        after: Option<Position>,
    ) -> Box<dyn Subscription>
    where
        R: 'static,
    {
        Box::new(Self { read, durable, after, ready: VecDeque::new(), reading: None })
    }

    fn begin_read(&mut self) -> StoreFuture<Page> {
        // INVARIANT: seen before the read begins, so that what the read misses wakes us.
        self.durable.borrow_and_update();
        (self.read)(self.after)
    }

    async fn turn(&mut self) -> Option<ReadItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if self.reading.is_none() {
                self.reading = Some(self.begin_read());
            }
            let Some(reading) = self.reading.as_mut() else { continue };
            let page = reading.as_mut().await;
            self.reading = None;
            let page = match page {
                Ok(page) => page,
                Err(_) if self.durable.has_changed().is_err() => return None,
                Err(error) => return Some(Err((self.after.unwrap_or(Position(0)), error))),
            };
            match page.last() {
                Some(last) => self.after = Some(place(last)),
                None if self.durable.changed().await.is_err() => return None,
                None => {}
            }
            if page.len() >= READ_EVENTS_MAX {
                // Read the next page while this one is being folded.
                self.reading = Some(self.begin_read());
            }
            self.ready = page.into();
        }
    }
}

impl<R> Subscription for CatchUp<R>
where
    R: Fn(Option<Position>) -> StoreFuture<Page> + Send,
{
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<ReadItem>> + Send + '_>> {
        Box::pin(self.turn())
    }
}

//! Alerts, as they happen.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use projections::id::OrganizationId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::{LOOK_EVERY, view};
use crate::ledger::Ledger;
use crate::ledger::permissions::BREAK_GLASS_READ;
use crate::proto;
use crate::services::authentication::{Shown, authenticate_again};
use crate::services::{Door, Stay, status};

/// Alerts that wait to be taken.
const WAITING: usize = 16;

/// The alerts of one caller.
pub struct Watch(mpsc::Receiver<Result<proto::WatchBreakGlassResponse, Status>>);

impl Stream for Watch {
    type Item = Result<proto::WatchBreakGlassResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Begins to watch: all organizations, or this one.
pub(super) fn start(
    door: Door,
    ledger: Arc<Ledger>,
    of: Option<OrganizationId>,
    shown: Shown,
    stay: Stay,
) -> Watch {
    let (sender, receiver) = mpsc::channel(WAITING);
    // Taken now: what happens from here on is told.
    let mut alerts = ledger.break_glass().alerts();
    tokio::spawn(async move {
        let _stay = stay;
        let watch = async {
            if sender.send(Ok(proto::WatchBreakGlassResponse::default())).await.is_err() {
                return None;
            }
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                let alert = tokio::select! {
                    alert = alerts.recv() => alert,
                    () = door.closing() => return Some(status::closing()),
                    () = sender.closed() => return None,
                    _ = looks.tick() => {
                        let may = door.check_contact().and_then(|()| may(&ledger, &shown));
                        match may {
                            Ok(()) => continue,
                            Err(status) => return Some(status),
                        }
                    }
                };
                let alert = match alert {
                    Ok(alert) if of.is_none_or(|of| of == alert.organization_id) => alert,
                    Ok(_) => continue,
                    Err(RecvError::Lagged(missed)) => return Some(status::alerts_missed(missed)),
                    Err(RecvError::Closed) => return Some(status::closing()),
                };
                if let Err(status) = may(&ledger, &shown) {
                    return Some(status);
                }
                if sender.send(Ok(view::alert(&alert))).await.is_err() {
                    return None;
                }
            }
        };
        if let Some(status) = watch.await {
            // Whoever watched may have gone.
            let _ = sender.send(Err(status)).await;
        }
    });
    Watch(receiver)
}

fn may(ledger: &Ledger, shown: &Shown) -> Result<(), Status> {
    authenticate_again(ledger, shown, BREAK_GLASS_READ, ledger.clock().now()).map(|_| ())
}

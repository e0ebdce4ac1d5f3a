//! What a running ledger records by itself: uses, denials; and what it lets go of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Ledger;
use super::usage::recorder;

/// How often idle rate limits are let go of.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long the last records may take at the end.
const END_MAX: Duration = Duration::from_secs(5);

/// The tasks that record. They end when this is finished, or dropped: then with nothing
/// more written.
pub struct Recording {
    end: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Records uses and denials from here on.
    #[must_use]
    pub fn start_recording(self: &Arc<Self>) -> Recording {
        let (end, _) = watch::channel(false);
        let ended = || {
            let mut ended = end.subscribe();
            // A sender that is gone means the same.
            async move { drop(ended.wait_for(|ended| *ended).await) }
        };
        let tasks = vec![
            tokio::spawn(Arc::clone(self).record_uses(ended())),
            tokio::spawn(Arc::clone(self).record_denials(ended())),
            tokio::spawn(Arc::clone(self).sweep_rate_limits(ended())),
            tokio::spawn(Arc::clone(self).keep_break_glass(ended())),
        ];
        Recording { end, tasks }
    }

    async fn record_uses(self: Arc<Self>, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            let ended = tokio::select! {
                () = &mut end => true,
                () = tokio::time::sleep(recorder::EVERY) => false,
            };
            self.record_uses_at(Instant::now(), ended).await;
            if ended {
                return;
            }
        }
    }

    /// Writes the uses that are due; at the end, all.
    pub(super) async fn record_uses_at(self: &Arc<Self>, now: Instant, end: bool) {
        self.recorder.lock().await.record(self, now, end).await;
    }

    async fn sweep_rate_limits(self: Arc<Self>, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            self.rate_limits.sweep();
        }
    }
}

impl Recording {
    /// Writes what is left, and ends.
    pub async fn finish(self) {
        self.end.send_replace(true);
        for task in self.tasks {
            let stop = task.abort_handle();
            if tokio::time::timeout(END_MAX, task).await.is_err() {
                tracing::warn!("the last uses and denials could not be recorded in time");
                stop.abort();
            }
        }
    }
}

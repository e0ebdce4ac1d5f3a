//! Waiting until the tables hold what a question must be decided by.

use std::time::Duration;

use projections::recorded::{Revision, StreamName};
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::verify::Reach;
use crate::proto;
use crate::services::authentication::Authenticated;
use crate::services::{Door, status};

/// Longest wait for a revision that a question asks for.
pub const REVISION_WAIT_MAX: Duration = Duration::from_secs(5);
/// Most streams that a question may ask revisions of.
pub const REVISIONS_MAX: usize = 8;

/// Waits until the tables hold these revisions. `path` is empty or ends with a dot: where
/// the question stands in its request.
pub(super) async fn reach(
    door: &Door,
    ledger: &Ledger,
    asker: &Authenticated,
    wanted: &[proto::StreamRevision],
    path: &str,
) -> Result<(), Status> {
    let whole = format!("{path}at_least_revision");
    if wanted.len() > REVISIONS_MAX {
        return Err(status::invalid(whole, format_args!("must be at most {REVISIONS_MAX}")));
    }
    let deadline = tokio::time::Instant::now() + REVISION_WAIT_MAX;
    for (place, item) in wanted.iter().enumerate() {
        let wrong = |problem| status::invalid(format!("{whole}[{place}].stream"), problem);
        let id = StreamName::from_store(&item.stream)
            .as_organization()
            .ok_or_else(|| wrong("must be `org-` and an organization's identifier"))?;
        // Whether another organization exists is not the asker's to learn.
        if asker.reach() != Reach::Installation && id != asker.organization_id && !id.is_operator()
        {
            return Err(wrong("is neither the caller's own stream nor `org-operator`"));
        }
        let revision = Revision(item.revision);
        let there = ledger.tables().organization(id).and_then(|it| it.tables().revision());
        if there.is_some_and(|there| there >= revision) {
            continue;
        }
        let _waiting = door.wait(asker.organization_id)?;
        let reached = ledger.tables().reached(id, revision);
        if tokio::time::timeout_at(deadline, reached).await.is_err() {
            return Err(status::revision_not_reached(&item.stream));
        }
    }
    Ok(())
}

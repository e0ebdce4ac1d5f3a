//! What a node keeps that is derived from events: two files that can be deleted.

use std::sync::Arc;

use super::{Directories, NodeError};
use crate::ledger::activity::index::{ActivityIndex as _, IndexError};
use crate::ledger::snapshot_store::{SnapshotError, SnapshotStore as _};
use crate::store::activity_index::ActivityDb;
use crate::store::derived::DerivedStore;

/// The file that holds snapshots and dead keys, in the data directory.
pub const PROJECTIONS_FILE: &str = "projections.db";
/// The file that holds the activity index, in the data directory.
pub const ACTIVITY_FILE: &str = "activity.db";

/// What is derived; none where not even an empty file can be had: then that is not kept.
#[derive(Clone)]
pub(super) struct Derived {
    pub(super) snapshots: Option<Arc<DerivedStore>>,
    pub(super) activity: Option<Arc<ActivityDb>>,
}

/// Why what is derived cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The snapshots.
    #[error("projections.db: {0}")]
    Snapshots(#[from] SnapshotError),
    /// The activity index.
    #[error("activity.db: {0}")]
    Activity(#[from] IndexError),
}

impl Unusable {
    /// Whether opening it would make it anew.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Snapshots(SnapshotError::Damaged(_)) | Self::Activity(IndexError::Damaged(_))
        )
    }
}

impl Derived {
    /// Opens both files. Blocks.
    pub(super) fn open(directories: &Directories) -> Self {
        let snapshots = DerivedStore::open(&directories.data.join(PROJECTIONS_FILE));
        let snapshots = snapshots.inspect_err(|error| {
            tracing::error!(%error, "projections.db cannot be made: starts take longer, and dead keys stay in memory");
        });
        let activity = ActivityDb::open(&directories.data.join(ACTIVITY_FILE));
        let activity = activity.inspect_err(|error| {
            tracing::error!(%error, "activity.db cannot be made: pages of the activity log cost more");
        });
        Self { snapshots: snapshots.ok().map(Arc::new), activity: activity.ok().map(Arc::new) }
    }

    /// Looks whether both files, where there are any, can be used. They are left as they are.
    /// Blocks.
    pub(super) fn look(directories: &Directories) -> Result<(), Unusable> {
        DerivedStore::look(&directories.data.join(PROJECTIONS_FILE))?;
        Ok(ActivityDb::look(&directories.data.join(ACTIVITY_FILE))?)
    }

    /// Throws all of it away. Blocks.
    pub(super) fn clear(&self) -> Result<(), NodeError> {
        let (Some(snapshots), Some(activity)) = (&self.snapshots, &self.activity) else {
            return Err(NodeError::NoDerived);
        };
        snapshots.clear().map_err(Unusable::from)?;
        Ok(activity.clear().map_err(Unusable::from)?)
    }
}

//! Tables as they were that somebody asked for a moment ago.

use std::sync::Arc;

use projections::id::OrganizationId;
use projections::organization::Organization;
use projections::recorded::Revision;

/// About how many bytes they may be together. The last ones are kept, however many they are.
const RECENT_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Most of them.
const RECENT_MAX: usize = 64;

/// Tables, and when they were last wanted.
struct Row {
    tables: Arc<Organization>,
    revision: Revision,
    bytes: u64,
    wanted: u64,
}

/// The last ones that were wanted.
#[derive(Default)]
pub(super) struct Recent {
    rows: Vec<Row>,
    wanted: u64,
}

impl Recent {
    /// The tables of an organization at the last revision that is here and not behind this one.
    pub(super) fn nearest(
        &mut self,
        organization: OrganizationId,
        at_most: Revision,
    ) -> Option<Arc<Organization>> {
        let here = |row: &&mut Row| row.tables.id == organization && row.revision <= at_most;
        let row = self.rows.iter_mut().filter(here).max_by_key(|row| row.revision)?;
        self.wanted += 1;
        row.wanted = self.wanted;
        Some(Arc::clone(&row.tables))
    }

    /// Keeps tables, in place of those that the same work had come to before, if any.
    pub(super) fn put(&mut self, tables: &Arc<Organization>, instead_of: Option<Revision>) {
        let Some(revision) = tables.revision() else { return };
        let id = tables.id;
        self.rows.retain(|row| {
            row.tables.id != id || (row.revision != revision && Some(row.revision) != instead_of)
        });
        self.wanted += 1;
        let (bytes, wanted) = (about_bytes(tables), self.wanted);
        self.rows.push(Row { tables: Arc::clone(tables), revision, bytes, wanted });
        while self.rows.len() > 1
            && (self.rows.len() > RECENT_MAX || self.bytes() > RECENT_BYTES_MAX)
        {
            let oldest = self.rows.iter().enumerate().min_by_key(|(_, row)| row.wanted);
            let Some((place, _)) = oldest else { return };
            self.rows.swap_remove(place);
        }
    }

    fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }
}

/// About how many bytes tables take in memory.
fn about_bytes(tables: &Organization) -> u64 {
    let organizations = tables.installation().map_or(0, |it| it.organizations.len());
    let rows = [
        (tables.keys_here(), 400),
        (tables.users_here(), 800),
        (tables.sessions_here(), 400),
        (tables.grants_after(None).count(), 300),
        (tables.service_accounts_after(None).count(), 300),
        (organizations, 400),
    ];
    let bytes = rows.iter().map(|(rows, bytes)| *rows as u64 * bytes);
    bytes.sum::<u64>() + 64 * 1024
}

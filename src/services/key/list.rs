//! ListKeys: pages of keys, in the order of their making.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;

use projections::api_key::Environment;
use projections::id::{KeyId, RoleId};
use projections::key::{Key, KeyState};
use projections::organization::Organization;
use projections::principal::Owner;
use projections::text::Name;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::Status;

use super::write_row;
use crate::ledger::Ledger;
use crate::ledger::dead::KeyRow;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::warnings::Measure;
use crate::services::{page, read, status, write};

/// Which keys a list shows.
struct Filter<'a> {
    state: Option<KeyState>,
    environment: Option<Environment>,
    role: Option<RoleId>,
    owner: Option<Owner>,
    name_prefix: &'a str,
    organization: &'a Organization,
    now: Timestamp,
}

impl Filter<'_> {
    fn shows(&self, key: &Key) -> bool {
        self.state.is_none_or(|state| self.organization.key_state(key, self.now) == state)
            && self.environment.is_none_or(|environment| key.effective_environment() == environment)
            && self.role.is_none_or(|role| key.roles().contains(&role))
            && (self.owner.is_none() || key.owner() == self.owner)
            && key.name.as_str().starts_with(self.name_prefix)
    }
}

/// Dead keys read at once.
const DEAD_ROWS: usize = 256;

/// The keys of an organization in the order of their identifiers, those in its tables and
/// those that left them long after their end.
pub(in crate::services) struct Rows<'a, I: Iterator<Item = &'a Arc<Key>>> {
    ledger: &'a Ledger,
    organization: &'a Published,
    here: Peekable<I>,
    /// The last key that was given.
    last: Option<KeyId>,
    /// Dead keys behind it; none once there are no more.
    dead: Option<VecDeque<KeyRow>>,
}

impl<'a, I: Iterator<Item = &'a Arc<Key>>> Rows<'a, I> {
    /// The keys behind this one: these, and the dead ones if they may be among them.
    pub(in crate::services) fn new(
        ledger: &'a Ledger,
        organization: &'a Published,
        here: I,
        after: Option<KeyId>,
        may_be_dead: bool,
    ) -> Self {
        let dead = may_be_dead.then(VecDeque::new);
        Self { ledger, organization, here: here.peekable(), last: after, dead }
    }

    /// The next key.
    pub(in crate::services) async fn next(&mut self) -> Result<Option<KeyRow>, Status> {
        let next = self.peek().await?;
        if let Some(row) = &next {
            self.last = Some(row.key.id);
        }
        Ok(next)
    }

    /// The key that is next.
    pub(in crate::services) async fn peek(&mut self) -> Result<Option<KeyRow>, Status> {
        let last = self.last;
        let given = |key: &Key| last.is_some_and(|last| key.id <= last);
        while self.here.next_if(|key| given(key)).is_some() {}
        if let Some(dead) = &mut self.dead {
            // One that left while this list was made is in both.
            while dead.pop_front_if(|row| given(&row.key)).is_some() {}
            if dead.is_empty() {
                let rows = self.ledger.dead_keys_after(self.organization, last, DEAD_ROWS).await;
                dead.extend(rows.map_err(|error| status::from_dead_keys(&error))?);
            }
        }
        self.dead.take_if(|dead| dead.is_empty());
        let dead = self.dead.as_ref().and_then(VecDeque::front);
        Ok(match (self.here.peek(), dead) {
            (Some(here), Some(dead)) if dead.key.id < here.id => Some(dead.clone()),
            (Some(here), _) => Some(self.ledger.row(Arc::clone(here))),
            (None, dead) => dead.cloned(),
        })
    }
}

/// How many keys are written before others get their turn.
pub(in crate::services) const KEYS_PER_TURN: usize = 100;

/// A page of the keys that a request asks for.
pub(super) async fn list_keys(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListKeysRequest,
) -> Result<proto::ListKeysResponse, Status> {
    let tables_now = Arc::clone(&organization.tables());
    let filter = Filter {
        organization: &tables_now,
        state: state(message.state)?,
        environment: read::environment(message.environment)?,
        role: read::optional("role_id", &message.role_id)?,
        owner: read::owner(&message.service_account_id, &message.user_id)?,
        name_prefix: read::optional::<Name>("name_prefix", &message.name_prefix)?
            .map_or("", |_| message.name_prefix.as_str()),
        now: ledger.now_for(&organization.tables()),
    };
    let rows_max = page::size(message.page_size)?;
    let parameters = [
        organization.stream.as_str(),
        &message.state.to_string(),
        &message.environment.to_string(),
        &message.role_id,
        &message.service_account_id,
        &message.user_id,
        &message.name_prefix,
    ];
    let list = page::List::new(ledger.stamper(), "ListKeys", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(KeyId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let mut keys = Vec::new();
    let mut bytes = 0;
    let mut next_page_token = String::new();
    // No key that ended long ago is in force, or will be.
    let may_be_dead =
        filter.state.is_none_or(|state| matches!(state, KeyState::Expired | KeyState::Revoked));
    let here = tables.keys_after(after);
    let mut rows = Rows::new(ledger, organization, here, after, may_be_dead);
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let mut measure = Measure::new(&tables, &operator, filter.now);
    let mut looked_at = 0;
    while let Some(row) = rows.next().await? {
        looked_at += 1;
        if keys.len() % KEYS_PER_TURN == KEYS_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        if filter.shows(&row.key) {
            let key = write_row(&row, &mut measure);
            bytes += key.encoded_len();
            keys.push(key);
        }
        let full = keys.len() == rows_max
            || bytes >= page::PAGE_BYTES_MAX
            || looked_at == page::PAGE_WORK_MAX;
        if full && rows.peek().await?.is_some() {
            next_page_token = list.token(row.key.id.to_bytes());
            break;
        }
    }
    Ok(proto::ListKeysResponse {
        keys,
        next_page_token,
        revision: write::revision(&organization.stream, tables.revision()),
    })
}

fn state(value: i32) -> Result<Option<KeyState>, Status> {
    match proto::KeyState::try_from(value) {
        Ok(proto::KeyState::Unspecified) => Ok(None),
        Ok(proto::KeyState::Active) => Ok(Some(KeyState::Active)),
        Ok(proto::KeyState::Disabled) => Ok(Some(KeyState::Disabled)),
        Ok(proto::KeyState::Expired) => Ok(Some(KeyState::Expired)),
        Ok(proto::KeyState::Revoked) => Ok(Some(KeyState::Revoked)),
        Err(_) => Err(status::invalid("state", "is no known state")),
    }
}

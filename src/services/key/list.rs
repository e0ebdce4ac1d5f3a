//! ListKeys: pages of keys, in the order of their making.

use std::sync::Arc;

use projections::api_key::Environment;
use projections::id::{KeyId, RoleId, ServiceAccountId};
use projections::key::{Key, KeyState};
use projections::text::Name;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::Status;

use super::write_key;
use crate::ledger::Ledger;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::{page, read, status, write};

/// Which keys a list shows.
struct Filter<'a> {
    state: Option<KeyState>,
    environment: Option<Environment>,
    role: Option<RoleId>,
    owner: Option<ServiceAccountId>,
    name_prefix: &'a str,
    now: Timestamp,
}

impl Filter<'_> {
    fn shows(&self, key: &Key) -> bool {
        self.state.is_none_or(|state| key.state(self.now) == state)
            && self.environment.is_none_or(|environment| key.effective_environment() == environment)
            && self.role.is_none_or(|role| key.roles().contains(&role))
            && (self.owner.is_none() || key.owner() == self.owner)
            && key.name.as_str().starts_with(self.name_prefix)
    }
}

/// A page of the keys that a request asks for.
pub(super) fn list_keys(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListKeysRequest,
) -> Result<proto::ListKeysResponse, Status> {
    let filter = Filter {
        state: state(message.state)?,
        environment: read::environment(message.environment)?,
        role: read::optional("role_id", &message.role_id)?,
        owner: read::optional("service_account_id", &message.service_account_id)?,
        name_prefix: read::optional::<Name>("name_prefix", &message.name_prefix)?
            .map_or("", |_| message.name_prefix.as_str()),
        now: ledger.clock().now(),
    };
    let rows_max = page::size(message.page_size)?;
    let parameters = [
        organization.stream.as_str(),
        &message.state.to_string(),
        &message.environment.to_string(),
        &message.role_id,
        &message.service_account_id,
        &message.name_prefix,
    ];
    let list = page::List::new(ledger.stamper(), "ListKeys", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(KeyId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let mut keys = Vec::new();
    let mut bytes = 0;
    let mut next_page_token = String::new();
    let mut rows = tables.keys_after(after).enumerate().peekable();
    while let Some((looked_at, row)) = rows.next() {
        if filter.shows(row) {
            let key = write_key(ledger, row, &tables);
            bytes += key.encoded_len();
            keys.push(key);
        }
        let full = keys.len() == rows_max
            || bytes >= page::PAGE_BYTES_MAX
            || looked_at + 1 == page::PAGE_WORK_MAX;
        if full && rows.peek().is_some() {
            next_page_token = list.token(row.id.to_bytes());
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

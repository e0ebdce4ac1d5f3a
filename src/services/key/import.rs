//! ImportKeys: keys that were made elsewhere, by the digests of their texts.

use std::sync::Arc;

use projections::event::KeyOrigin;
use projections::id::KeyId;
use prost::Message as _;
use tonic::Status;

use super::{Context, row, write_row};
use crate::ledger::Ledger;
use crate::ledger::command::{
    Command, CreateKey, Expiry, ImportKeys, ImportedKey, KEYS_AT_ONCE_MAX,
};
use crate::ledger::mint::{digest_of_sha256, retired_digests_of_sha256};
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::warnings::Measure;
use crate::services::{page, read, status, write};

/// Carries out an import.
pub(super) async fn import_keys(
    ledger: &Arc<Ledger>,
    organization: &Published,
    context: Context,
    message: proto::ImportKeysRequest,
) -> Result<proto::ImportKeysResponse, Status> {
    if message.keys.is_empty() || message.keys.len() > KEYS_AT_ONCE_MAX {
        return Err(status::invalid("keys", format_args!("must be 1 to {KEYS_AT_ONCE_MAX}")));
    }
    let mut keys = Vec::with_capacity(message.keys.len());
    for (place, item) in message.keys.iter().enumerate() {
        keys.push(
            imported(ledger, item)
                .map_err(|error| status::in_field(&format!("keys[{place}]"), error))?,
        );
    }
    let mut ids: Vec<KeyId> = keys.iter().map(|it| it.key.key_id).collect();
    let order = context.order_in(
        ledger,
        organization.id,
        Command::ImportKeys(ImportKeys { keys }),
        &message,
    )?;
    let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
    let mut revision = executed.revision;
    if executed.repeat
        && let (Some(first), Some(stamp)) = (executed.revision, order.request)
    {
        let made = ledger
            .keys_made(organization, first, stamp, message.keys.len())
            .await
            .map_err(|error| status::from_read(&error))?;
        revision = made.last().map(|(_, revision)| *revision).or(revision);
        ids = made.into_iter().map(|(id, _)| id).collect();
    }
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let mut measure = Measure::new(&tables, &operator, ledger.now_for(&tables));
    let (mut keys, mut bytes) = (Vec::with_capacity(ids.len()), 0);
    for id in ids {
        let row = row(ledger, organization, &tables, id).await?;
        // What clients take unless told otherwise is 4 MiB. The rest of a key is about as
        // long as it was in the request; its warnings may be many times that.
        if bytes >= page::PAGE_BYTES_MAX {
            measure.be_silent();
        }
        let key = write_row(&row, &mut measure);
        bytes += key.encoded_len();
        keys.push(key);
    }
    Ok(proto::ImportKeysResponse {
        keys,
        revision: write::revision(&organization.stream, revision),
    })
}

fn imported(ledger: &Ledger, item: &proto::ImportedKey) -> Result<ImportedKey, Status> {
    let sha256 = <&[u8; 32]>::try_from(item.sha256.as_slice())
        .map_err(|_| status::invalid("sha256", "must be the 32 bytes of a SHA-256 digest"))?;
    let key = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name: read::field("name", &item.name)?,
        description: read::optional("description", &item.description)?,
        origin: KeyOrigin::Imported,
        prefix: None,
        environment: read::environment(item.environment)?,
        hint: None,
        digest: digest_of_sha256(sha256, ledger.peppers()),
        scopes: read::scopes(item.scopes.as_ref())?,
        roles: read::roles(&item.role_ids)?,
        services: read::services(item.services.as_ref())?,
        expiry: read::expiry!(imported_key, item)?.unwrap_or(Expiry::PlanDefault),
        metadata: read::metadata(&item.metadata)?,
        limits: read::limits("limits", &item.limits)?,
        owner: read::owner(&item.service_account_id, &item.user_id)?,
        allowed_ips: read::allowed_ips(&item.allowed_ips)?,
        rate_limit: read::rate_limit(item.rate_limit.as_ref())?,
    };
    Ok(ImportedKey { key, others: retired_digests_of_sha256(sha256, ledger.peppers()) })
}

//! Keys to be made, read from requests.

use projections::event::KeyOrigin;
use projections::id::KeyId;
use projections::text::Name;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::command::{CreateKey, Expiry, RotateKey};
use crate::ledger::mint::{Minted, mint};
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::{read, status};

/// The command of a request to make a key, and the secret that it shows.
pub(super) fn create_key(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::CreateKeyRequest,
) -> Result<(CreateKey, Minted), Status> {
    let name: Name = read::field("name", &message.name)?;
    let description = read::optional("description", &message.description)?;
    let environment = read::environment(message.environment)?;
    let scopes = read::scopes(message.scopes.as_ref())?;
    let roles = read::roles(&message.role_ids)?;
    let services = read::services(message.services.as_ref())?;
    let expiry = read::expiry!(create_key_request, message)?.unwrap_or(Expiry::PlanDefault);
    let metadata = read::metadata(&message.metadata)?;
    let limits = read::limits("limits", &message.limits)?;
    let owner = read::owner(&message.service_account_id, &message.user_id)?;
    let allowed_ips = read::allowed_ips(&message.allowed_ips)?;
    let rate_limit = read::rate_limit(message.rate_limit.as_ref())?;
    let tables = organization.tables();
    let profile =
        tables.profile().ok_or_else(|| status::organization_not_found(organization.id))?;
    let minted = mint(&profile.key_prefix, environment, ledger.peppers())
        .map_err(|error| status::no_entropy(&error))?;
    let command = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name,
        description,
        origin: KeyOrigin::Minted,
        prefix: Some(profile.key_prefix.clone()),
        environment,
        hint: minted.hint,
        digest: minted.digest.clone(),
        scopes,
        roles,
        services,
        expiry,
        metadata,
        limits,
        owner,
        allowed_ips,
        rate_limit,
    };
    Ok((command, minted))
}

/// The command of a request to rotate a key, and the secret that it shows.
pub(super) fn rotate_key(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::RotateKeyRequest,
) -> Result<(RotateKey, Minted), Status> {
    let key_id: KeyId = read::field("key_id", &message.key_id)?;
    let grace_ms = read::grace(message.grace.as_ref())?;
    let expiry = read::expiry!(rotate_key_request, message)?;
    let tables = organization.tables();
    let profile =
        tables.profile().ok_or_else(|| status::organization_not_found(organization.id))?;
    // Its environment never changes, so the new text's can be made before the rules speak,
    // who refuse if there is no such key.
    let environment = tables.key(key_id).and_then(|old| old.environment);
    let minted = mint(&profile.key_prefix, environment, ledger.peppers())
        .map_err(|error| status::no_entropy(&error))?;
    let command = RotateKey {
        key_id,
        successor: ledger.ids().key(ledger.clock().now()),
        prefix: profile.key_prefix.clone(),
        hint: minted.hint,
        digest: minted.digest.clone(),
        grace_ms,
        expiry,
    };
    Ok((command, minted))
}

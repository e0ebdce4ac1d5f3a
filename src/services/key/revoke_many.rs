//! RevokeKeys: many keys at once, by their owner or from a list of leaked ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::id::{KeyId, OrganizationId, ServiceAccountId};
use projections::key::KeyState;
use tonic::Status;

use super::{Context, known};
use crate::ledger::Ledger;
use crate::ledger::command::{Command, KEYS_AT_ONCE_MAX, RevokeKeys, WhichKeys};
use crate::ledger::verify::Reach;
use crate::proto;
use crate::proto::KeyRevocationOutcome as Outcome;
use crate::services::authentication::Authenticated;
use crate::services::{read, status, write};

/// Carries out the revocations, one append for each organization.
pub(super) async fn revoke_keys(
    ledger: &Arc<Ledger>,
    caller: &Authenticated,
    context: Context,
    message: proto::RevokeKeysRequest,
) -> Result<proto::RevokeKeysResponse, Status> {
    use proto::revoke_keys_request::Which;
    let reason = read::revocation_reason(message.reason)?;
    match message.which {
        None => Err(status::invalid("which", "must be `list` or `service_account_id`")),
        Some(Which::ServiceAccountId(id)) => {
            let owner: ServiceAccountId = read::field("service_account_id", &id)?;
            let target = caller.target(ledger, &message.organization_id)?;
            let command = RevokeKeys { which: WhichKeys::Of(owner), reason };
            let before = active_keys(ledger, target, owner)?;
            let mut answer = proto::RevokeKeysResponse::default();
            revoke(ledger, target, &context, command, &mut answer).await?;
            answer.keys =
                before.into_iter().map(|id| item(Outcome::Revoked, Some((target, id)))).collect();
            Ok(answer)
        }
        Some(Which::List(list)) => {
            let reach = reach(ledger, caller, &message.organization_id)?;
            let found = found(ledger, reach, &list)?;
            let mut by_organization: BTreeMap<OrganizationId, Vec<KeyId>> = BTreeMap::new();
            let mut keys = Vec::with_capacity(found.len());
            for found in found {
                keys.push(match found {
                    None => item(Outcome::Unknown, None),
                    Some((organization, id)) if is_revoked(ledger, organization, id) => {
                        item(Outcome::AlreadyRevoked, Some((organization, id)))
                    }
                    Some((organization, id)) => {
                        by_organization.entry(organization).or_default().push(id);
                        item(Outcome::Revoked, Some((organization, id)))
                    }
                });
            }
            let mut answer = proto::RevokeKeysResponse { keys, revisions: Vec::new() };
            for (organization, ids) in by_organization {
                let command = RevokeKeys { which: WhichKeys::Listed(ids), reason };
                revoke(ledger, organization, &context, command, &mut answer).await?;
            }
            Ok(answer)
        }
    }
}

/// Whose keys a list may name: an operator that names no organization reaches all.
fn reach(ledger: &Ledger, caller: &Authenticated, named: &str) -> Result<Reach, Status> {
    if named.is_empty() && caller.reach() == Reach::Installation {
        return Ok(Reach::Installation);
    }
    caller.target(ledger, named).map(Reach::Organization)
}

async fn revoke(
    ledger: &Arc<Ledger>,
    id: OrganizationId,
    context: &Context,
    command: RevokeKeys,
    answer: &mut proto::RevokeKeysResponse,
) -> Result<(), Status> {
    let organization = known(ledger, id)?;
    let order = context.plain_order(Command::RevokeKeys(command));
    let executed = ledger.execute(id, &order).await.map_err(status::from)?;
    answer.revisions.extend(write::revision(&organization.stream, executed.revision));
    Ok(())
}

/// The keys of a list, in its order; none for those that the caller may not know.
fn found(
    ledger: &Ledger,
    reach: Reach,
    list: &proto::KeyList,
) -> Result<Vec<Option<(OrganizationId, KeyId)>>, Status> {
    let asked = list.key_ids.len() + list.leaked.len();
    if asked == 0 || asked > KEYS_AT_ONCE_MAX {
        let problem = format!("must name 1 to {KEYS_AT_ONCE_MAX} keys");
        return Err(status::invalid("list", problem));
    }
    let mut found = Vec::with_capacity(asked);
    for (place, text) in list.key_ids.iter().enumerate() {
        let id: KeyId = read::field(&format!("list.key_ids[{place}]"), text)?;
        let organization = match reach {
            Reach::Organization(own) => holds(ledger, own, id).then_some(own),
            Reach::Installation => {
                ledger.tables().all().iter().map(|it| it.id).find(|it| holds(ledger, *it, id))
            }
        };
        found.push(organization.map(|organization| (organization, id)));
    }
    found.extend(list.leaked.iter().map(|text| ledger.key_of(text, reach)));
    Ok(found)
}

fn holds(ledger: &Ledger, organization: OrganizationId, id: KeyId) -> bool {
    let organization = ledger.tables().organization(organization);
    organization.is_some_and(|it| it.tables().key(id).is_some())
}

fn is_revoked(ledger: &Ledger, organization: OrganizationId, id: KeyId) -> bool {
    let now = ledger.clock().now();
    let organization = ledger.tables().organization(organization);
    organization.is_some_and(|it| {
        it.tables().key(id).is_some_and(|key| key.state(now) == KeyState::Revoked)
    })
}

/// The keys of a service account that its revocation will end.
fn active_keys(
    ledger: &Ledger,
    organization: OrganizationId,
    owner: ServiceAccountId,
) -> Result<Vec<KeyId>, Status> {
    let now = ledger.clock().now();
    let organization = known(ledger, organization)?;
    let tables = organization.tables();
    let in_force = |state| matches!(state, KeyState::Active | KeyState::Disabled);
    Ok(tables.keys_of(owner).filter(|key| in_force(key.state(now))).map(|key| key.id).collect())
}

fn item(outcome: Outcome, key: Option<(OrganizationId, KeyId)>) -> proto::KeyRevocation {
    let (organization_id, key_id) =
        key.map(|(organization, id)| (organization.text(), id.text())).unwrap_or_default();
    proto::KeyRevocation { outcome: outcome.into(), key_id, organization_id }
}

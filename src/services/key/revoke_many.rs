//! RevokeKeys: many keys at once, by their owner or from a list of leaked ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use projections::event::RevocationReason;
use projections::id::{KeyId, OrganizationId};
use tonic::Status;

use super::{Context, known, left_behind};
use crate::ledger::command::{Command, KEYS_AT_ONCE_MAX, RevokeKeys, WhichKeys};
use crate::ledger::rejection::Rejection;
use crate::ledger::tables::Published;
use crate::ledger::verify::Reach;
use crate::ledger::{Executed, Ledger, LedgerError};
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
    let (account, user) = match &message.which {
        Some(Which::ServiceAccountId(id)) => (id.as_str(), ""),
        Some(Which::UserId(id)) => ("", id.as_str()),
        Some(Which::List(_)) | None => ("", ""),
    };
    let owner = read::owner(account, user)?;
    let which = |problem| status::invalid("which", problem);
    match message.which {
        None => Err(which("must be `list`, `service_account_id` or `user_id`")),
        Some(Which::ServiceAccountId(_) | Which::UserId(_)) => {
            let owner = owner.ok_or_else(|| which("must name whose keys"))?;
            let target = caller.target(ledger, &message.organization_id)?;
            let command = RevokeKeys { which: WhichKeys::Of(owner), reason };
            let mut answer = proto::RevokeKeysResponse::default();
            let organization = known(ledger, target)?;
            let order = context.plain_order(Command::RevokeKeys(command));
            let executed = ledger.execute(target, &order).await;
            let ids = ended(ledger, &organization, executed, &mut answer).await?;
            answer.keys =
                ids.into_iter().map(|id| item(Outcome::Revoked, Some((target, id)))).collect();
            answer.warnings.extend(left_behind(ledger, target));
            Ok(answer)
        }
        Some(Which::List(list)) => {
            let reach = reach(ledger, caller, &message.organization_id)?;
            let found = found(ledger, reach, &list).await?;
            let mut by_organization: BTreeMap<OrganizationId, Vec<KeyId>> = BTreeMap::new();
            for (organization, id) in found.iter().flatten() {
                by_organization.entry(*organization).or_default().push(*id);
            }
            let mut answer = proto::RevokeKeysResponse::default();
            let mut ended: BTreeSet<(OrganizationId, KeyId)> = BTreeSet::new();
            let mut refused = None;
            for (organization, ids) in by_organization {
                match revoke_listed(ledger, organization, &context, ids, reason, &mut answer).await
                {
                    Ok(ids) => ended.extend(ids.into_iter().map(|id| (organization, id))),
                    // What leaked elsewhere is revoked all the same.
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            if let Some(error) = refused {
                return Err(error);
            }
            let outcome = |found| match found {
                None => item(Outcome::Unknown, None),
                Some(key) if ended.contains(&key) => item(Outcome::Revoked, Some(key)),
                Some(key) => item(Outcome::AlreadyRevoked, Some(key)),
            };
            answer.keys = found.into_iter().map(outcome).collect();
            let organizations: BTreeSet<_> = ended.iter().map(|(id, _)| *id).collect();
            answer.warnings =
                organizations.into_iter().filter_map(|id| left_behind(ledger, id)).collect();
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

/// Revokes listed keys of one organization, but for those that left its tables long after
/// their end; gives those that this call revoked.
async fn revoke_listed(
    ledger: &Arc<Ledger>,
    id: OrganizationId,
    context: &Context,
    mut ids: Vec<KeyId>,
    reason: RevocationReason,
    answer: &mut proto::RevokeKeysResponse,
) -> Result<Vec<KeyId>, Status> {
    let organization = known(ledger, id)?;
    {
        let tables = organization.tables();
        let tables = tables.as_of(ledger.now_for(&tables));
        ids.retain(|id| tables.key(*id).is_some());
    }
    while !ids.is_empty() {
        let command = RevokeKeys { which: WhichKeys::Listed(ids.clone()), reason };
        let order = context.plain_order(Command::RevokeKeys(command));
        match ledger.execute(id, &order).await {
            // Its time came just now.
            Err(LedgerError::Rejected(Rejection::KeyEndedLongAgo(gone))) => {
                ids.retain(|id| *id != gone);
            }
            executed => return ended(ledger, &organization, executed, answer).await,
        }
    }
    Ok(ids)
}

/// The keys that a command revoked.
async fn ended(
    ledger: &Ledger,
    organization: &Published,
    executed: Result<Executed, LedgerError>,
    answer: &mut proto::RevokeKeysResponse,
) -> Result<Vec<KeyId>, Status> {
    let executed = executed.map_err(status::from)?;
    let ended = ledger.keys_ended(organization, &executed).await;
    answer.revisions.extend(write::revision(&organization.stream, executed.revision));
    ended.map_err(|error| status::from_read(&error))
}

/// The keys of a list, in its order; none for those that the caller may not know.
async fn found(
    ledger: &Ledger,
    reach: Reach,
    list: &proto::KeyList,
) -> Result<Vec<Option<(OrganizationId, KeyId)>>, Status> {
    let asked = list.key_ids.len() + list.leaked.len();
    if asked == 0 || asked > KEYS_AT_ONCE_MAX {
        let problem = format!("must name 1 to {KEYS_AT_ONCE_MAX} keys");
        return Err(status::invalid("list", problem));
    }
    let everywhere = match reach {
        Reach::Installation => ledger.tables().all(),
        Reach::Organization(own) => ledger.tables().organization(own).into_iter().collect(),
    };
    let ids = list.key_ids.iter().enumerate();
    let ids = ids.map(|(place, text)| read::field(&format!("list.key_ids[{place}]"), text));
    let ids: Vec<KeyId> = ids.collect::<Result<_, _>>()?;
    let mut holders = holders(&everywhere, &ids.iter().copied().collect());
    let dead = |error| status::from_dead_keys(&error);
    let gone = ids.iter().copied().filter(|id| !holders.contains_key(id)).collect();
    holders.extend(ledger.dead_holders(&everywhere, gone).await.map_err(dead)?);
    let mut found: Vec<_> = ids
        .into_iter()
        .map(|id| holders.get(&id).map(|organization| (*organization, id)))
        .collect();
    for text in &list.leaked {
        let key = match ledger.key_of(text, reach).await.map_err(dead)? {
            // As in a header, white space around a key is none of it.
            None => ledger.key_of(text.trim(), reach).await.map_err(dead)?,
            found => found,
        };
        found.push(key);
    }
    Ok(found)
}

/// The organizations that have these keys.
///
/// One pass: of each organization no more keys are looked at than it has, nor than are
/// asked for, as both are in order.
fn holders(
    organizations: &[Arc<Published>],
    ids: &BTreeSet<KeyId>,
) -> BTreeMap<KeyId, OrganizationId> {
    let mut holders = BTreeMap::new();
    for organization in organizations {
        let tables = organization.tables();
        let mut wanted = ids.first();
        while let Some(id) = wanted {
            if tables.key(*id).is_some() {
                holders.insert(*id, organization.id);
            }
            let behind = tables.keys_after(Some(*id)).next();
            wanted = behind.and_then(|key| ids.range(key.id..).next());
        }
    }
    holders
}

fn item(outcome: Outcome, key: Option<(OrganizationId, KeyId)>) -> proto::KeyRevocation {
    let (organization_id, key_id) =
        key.map(|(organization, id)| (organization.text(), id.text())).unwrap_or_default();
    proto::KeyRevocation { outcome: outcome.into(), key_id, organization_id }
}

#[cfg(test)]
mod tests;

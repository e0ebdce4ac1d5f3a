//! The global key of the configuration becomes a key of its organization's.

use std::sync::Arc;

use projections::event::KeyOrigin;
use projections::id::{OrganizationId, RoleId};
use projections::key::KeyState;
use projections::organization::Organization;
use projections::permission::Permission;
use projections::role::Role;
use projections::text::KeyPrefix;
use sha2::{Digest as _, Sha256};

use super::{ConfiguredGlobalKey, ConfiguredKeys, StartError};
use crate::ledger::command::{Command, ConfigureKeys, ImportedKey};
use crate::ledger::{Ledger, built_in, mint};

/// Why the global key cannot be what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobalKeyError {
    /// There is no such organization.
    #[error(
        "`global_key_organization`: there is no organization `{0}`; start without the global key, make the organization, and configure its key then"
    )]
    Organization(String),
    /// It is the operator's.
    #[error(
        "`global_key_organization`: the operator has no global key; name a tenant's organization"
    )]
    Operator,
    /// There is no such role.
    #[error(
        "`global_key_role`: there is no role `{0}` that could be given; name a built-in role, or the identifier of one in force"
    )]
    Role(String),
    /// Production mode does not allow the role.
    #[error(
        "`production`: `global_key_role` may not permit everything, as `{0}` does; name a restricted role"
    )]
    Unrestricted(String),
    /// The secret is another key's.
    #[error("`global_key_sha256`: it is the digest of another key's secret; make a new one")]
    SecretInUse,
    /// The secret was a global key already, but another one.
    #[error(
        "`global_key_sha256`: a global key of another organization or role had this secret; make a new one"
    )]
    Changed,
}

/// Most names that are tried for the global key.
const NAMES_MAX: u32 = 1_000;

impl Ledger {
    /// Makes the global keys those of the configuration: a new one comes, others go.
    pub(super) async fn configure_global_key(
        self: &Arc<Self>,
        configured: &ConfiguredKeys,
    ) -> Result<(), StartError> {
        let wanted = configured.global.as_ref().map(|it| self.wanted(it)).transpose()?;
        if let (Some(global), Some(token)) = (&configured.global, &configured.admin_api_token)
            && Sha256::digest(token.expose().as_bytes()).as_slice() == global.sha256
        {
            return Err(GlobalKeyError::SecretInUse.into());
        }
        let mut concerned = self.tables.with_global_keys();
        concerned.extend(wanted.as_ref().map(|(id, _)| *id));
        for id in concerned {
            let key = wanted.as_ref().filter(|(owner, _)| *owner == id).map(|(_, key)| key);
            self.configure_global_key_of(id, key).await?;
        }
        Ok(())
    }

    /// Makes the global keys of an organization this one, or none.
    async fn configure_global_key_of(
        self: &Arc<Self>,
        id: OrganizationId,
        wanted: Option<&ImportedKey>,
    ) -> Result<(), StartError> {
        let Some(organization) = self.tables.organization(id) else { return Ok(()) };
        if organization.stopped().is_some() {
            tracing::warn!(organization = %id, "the history of the global key's organization is corrupt: nothing was changed there");
            return Ok(());
        }
        let mut keys: Vec<ImportedKey> = wanted.into_iter().cloned().collect();
        // The organization may have ended it: then it stays so, and nobody else is kept from
        // starting.
        let revoked = |key: &ImportedKey| self.is_revoked(key);
        if let Some(ended) = keys.pop_if(|key| revoked(key)) {
            let name = &ended.key.name;
            tracing::warn!(organization = %id, %name, "the configured global key was revoked and stays so: configure a new secret");
        }
        self.as_ledger(id, Command::ConfigureKeys(ConfigureKeys { keys })).await?;
        Ok(())
    }

    fn is_revoked(&self, wanted: &ImportedKey) -> bool {
        let index = self.tables.index();
        let found = wanted.digests().find_map(|digest| index.key(&digest));
        found.is_some_and(|found| found.key.state(self.clock.now()) == KeyState::Revoked)
    }

    /// The key that the configuration tells of, and whose it is.
    fn wanted(
        &self,
        configured: &ConfiguredGlobalKey,
    ) -> Result<(OrganizationId, ImportedKey), GlobalKeyError> {
        let id = self.organization_of(&configured.organization)?;
        let unknown = || GlobalKeyError::Organization(configured.organization.clone());
        let organization = self.tables.organization(id).ok_or_else(unknown)?;
        let operator = self.tables.operator().tables();
        let tables = organization.tables();
        let role = role(&configured.role, &tables, &operator);
        let digest = mint::digest_of_sha256(&configured.sha256, &self.peppers);
        let others = mint::retired_digests_of_sha256(&configured.sha256, &self.peppers);
        let index = self.tables.index();
        let mut digests = std::iter::once(digest.blake3).chain(others.iter().copied());
        let known = digests.clone().find_map(|digest| index.key(&digest));
        let unusable = || GlobalKeyError::Role(configured.role.clone());
        let role_id = match known {
            // What its role has come to mean is the organization's to say.
            Some(found) if found.key.origin() == KeyOrigin::Global => {
                let same = |id: &RoleId| role_id(&configured.role, role) == Some(*id);
                let is_its_own = found.organization.id == id && found.key.roles().iter().all(same);
                if !is_its_own {
                    return Err(GlobalKeyError::Changed);
                }
                found.key.roles().first().copied().ok_or_else(unusable)?
            }
            Some(_) => return Err(GlobalKeyError::SecretInUse),
            None if digests.any(|digest| self.dead.may_hold(&digest)) => {
                return Err(GlobalKeyError::SecretInUse);
            }
            None => role.filter(|role| role.is_in_force()).ok_or_else(unusable)?.id,
        };
        if let Some(role) = role.filter(|role| role.built_in || known.is_none())
            && configured.production
            && role.implies(Permission::ORG_ADMIN)
        {
            return Err(GlobalKeyError::Unrestricted(role.name.to_string()));
        }
        let now = self.clock.now();
        let is_free = |name: &projections::text::Name| {
            !tables.keys_named(name).any(|key| key.state(now) == KeyState::Active)
        };
        let name = (1..=NAMES_MAX).map(built_in::global_key_name).find(is_free);
        let name = name.unwrap_or_else(|| built_in::global_key_name(1));
        let key = self.key_of_role(role_id, name, KeyOrigin::Global, digest);
        Ok((id, ImportedKey { key, others }))
    }

    /// The tenant of this identifier or key prefix.
    fn organization_of(&self, text: &str) -> Result<OrganizationId, GlobalKeyError> {
        let operator = self.tables.operator().tables();
        let of_prefix = |prefix: KeyPrefix| {
            if prefix == built_in::operator_key_prefix() {
                return Some(OrganizationId::OPERATOR);
            }
            operator.installation()?.prefixes.get(&prefix).copied()
        };
        let id = text.parse().ok().or_else(|| of_prefix(text.parse().ok()?));
        match id {
            Some(OrganizationId::OPERATOR) => Err(GlobalKeyError::Operator),
            Some(id) => Ok(id),
            None => Err(GlobalKeyError::Organization(text.to_owned())),
        }
    }
}

/// The role of this name or identifier, in force or not; never the operator's own.
fn role<'a>(
    text: &str,
    organization: &'a Organization,
    operator: &'a Organization,
) -> Option<&'a Role> {
    let found = match text.parse() {
        Ok(id) => organization.role(id).or_else(|| operator.built_in_role(id)),
        Err(_) => operator.roles().find(|role| role.built_in && role.name.as_str() == text),
    };
    found.map(|role| &**role).filter(|role| role.id != built_in::OPERATOR_ADMIN)
}

/// The identifier that the configuration gives, or the found role's.
fn role_id(text: &str, found: Option<&Role>) -> Option<RoleId> {
    found.map(|role| role.id).or_else(|| text.parse().ok())
}

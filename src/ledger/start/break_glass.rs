//! What the configuration says of break-glass becomes its rules.

use std::sync::Arc;

use projections::event::{BreakGlassRules, Custodian};
use projections::id::AccountId;
use projections::text::Label;

use super::StartError;
use crate::ledger::{Ledger, mint};

/// Break-glass, as the configuration turns it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredBreakGlass {
    /// How it is governed, but for the custodians.
    pub rules: BreakGlassRules,
    /// Who may open grants, in the order of their names.
    pub custodians: Vec<ConfiguredCustodian>,
}

/// Somebody who has a master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredCustodian {
    /// What the custodian is called.
    pub name: Label,
    /// The person's account.
    pub account_id: Option<AccountId>,
    /// The SHA-256 digest of the master key.
    pub sha256: [u8; 32],
}

/// Why break-glass cannot be what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakGlassError {
    /// There is no such account.
    #[error(
        "`break_glass.custodians`: there is no account `{1}` that `{0}` could be; let the person join first, and see `keyledger user get` for the account"
    )]
    Account(Label, AccountId),
    /// The secret is a key's.
    #[error(
        "`break_glass.custodians`: the master key of `{0}` is the secret of an API key; make a new one"
    )]
    SecretInUse(Label),
}

impl Ledger {
    /// Makes the rules of break-glass those of the configuration.
    pub(super) async fn configure_emergencies(
        self: &Arc<Self>,
        configured: Option<&ConfiguredBreakGlass>,
    ) -> Result<(), StartError> {
        if configured.is_some_and(|it| it.custodians.is_empty()) {
            tracing::warn!("break-glass is enabled and stays off: nobody has a master key");
        }
        let configured = configured.filter(|it| !it.custodians.is_empty());
        match (configured, self.break_glass_rules()) {
            (Some(it), _) => tracing::info!(custodians = it.custodians.len(), "break-glass is on"),
            (None, Some(_)) => {
                tracing::warn!("break-glass is off from here on: grants that are open end");
            }
            (None, None) => {}
        }
        let rules = configured.map(|it| self.break_glass_rules_of(it)).transpose()?;
        // Before the rules say otherwise: a start that is cut off here does it again.
        self.withdraw_from(&self.with_other_keys(configured)).await?;
        self.configure_break_glass(rules).await?;
        Ok(())
    }

    /// The custodians whose master key is another one now.
    fn with_other_keys(&self, configured: Option<&ConfiguredBreakGlass>) -> Vec<Label> {
        let before = self.break_glass_rules();
        let before = before.iter().flat_map(|it| &it.custodians);
        let is_another = |it: &&Custodian| {
            let now = configured.iter().flat_map(|it| &it.custodians);
            let mut same = now.filter(|now| now.name == it.name);
            same.any(|now| !self.peppers.digests(&now.sha256).any(|one| one == it.digest.blake3))
        };
        before.filter(is_another).map(|it| it.name.clone()).collect()
    }

    fn break_glass_rules_of(
        &self,
        configured: &ConfiguredBreakGlass,
    ) -> Result<BreakGlassRules, BreakGlassError> {
        let mut custodians = Vec::with_capacity(configured.custodians.len());
        for ConfiguredCustodian { name, account_id, sha256 } in &configured.custodians {
            if let Some(id) = account_id
                && !self.account(*id).is_ok_and(|account| account.is_some())
            {
                return Err(BreakGlassError::Account(name.clone(), *id));
            }
            let index = self.tables.index();
            if self.peppers.digests(sha256).any(|digest| index.key(&digest).is_some()) {
                return Err(BreakGlassError::SecretInUse(name.clone()));
            }
            custodians.push(Custodian {
                name: name.clone(),
                account_id: *account_id,
                digest: mint::digest_of_sha256(sha256, &self.peppers),
            });
        }
        Ok(BreakGlassRules { custodians, ..configured.rules.clone() })
    }
}

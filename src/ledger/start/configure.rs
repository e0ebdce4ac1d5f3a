//! What the configuration says becomes events: the installation, its rules, its keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::digest::SecretDigest;
use projections::event::{DigestForm, Hint, KeyOrigin, KeyedDigest};
use projections::id::{OrganizationId, RoleId};
use projections::installation::Registration;
use projections::text::{CorrelationId, KeyPrefix, Name};

use super::{ConfiguredKeys, GlobalKeyError, StartError, check_admin_api_token};
use crate::ledger::command::{
    Caller, Command, ConfigureKeys, CreateInstallation, CreateKey, Expiry, ImportedKey, Order,
    OrganizationDraft, Personal,
};
use crate::ledger::rejection::Rejection;
use crate::ledger::secret::Secret;
use crate::ledger::{Executed, Ledger, LedgerError, built_in, mint, pepper_use};

impl Ledger {
    /// Makes the installation, with the operator's first key where one was minted. The
    /// key must be kept safe by now: once this returns it is in force.
    pub async fn create_installation(
        self: &Arc<Self>,
        admin_key: Option<&Secret>,
        configured: &ConfiguredKeys,
    ) -> Result<(), StartError> {
        if let Some(global) = &configured.global {
            // There is no organization yet whose key it could be.
            return Err(GlobalKeyError::Organization(global.organization.clone()).into());
        }
        let command = CreateInstallation {
            installation_id: self.ids.installation(self.clock.now()),
            pepper: self.peppers.current().0,
            pepper_check: pepper_use::check(&self.peppers),
            rules: built_in::rules_with(&configured.rules),
            admin_key: admin_key.map(|secret| self.admin_key(secret)),
            configured: self.configured(configured)?.into_iter().map(|it| it.key).collect(),
        };
        self.as_ledger(OrganizationId::OPERATOR, Command::CreateInstallation(Box::new(command)))
            .await?;
        self.configure_emergencies(configured.break_glass.as_ref()).await
    }

    /// Records what the configuration says now, and finishes what a crash left half done.
    pub async fn configure(
        self: &Arc<Self>,
        configured: &ConfiguredKeys,
    ) -> Result<(), StartError> {
        let rules = Command::ConfigureInstallation(built_in::rules_with(&configured.rules));
        self.as_ledger(OrganizationId::OPERATOR, rules).await?;
        let keys = ConfigureKeys { keys: self.configured(configured)? };
        self.as_ledger(OrganizationId::OPERATOR, Command::ConfigureKeys(keys)).await?;
        self.finish_organizations().await?;
        self.finish_accounts().await;
        self.configure_emergencies(configured.break_glass.as_ref()).await?;
        self.configure_global_key(configured).await
    }

    /// Begins the stream of every organization that was admitted but not begun.
    async fn finish_organizations(self: &Arc<Self>) -> Result<(), StartError> {
        let operator = self.tables.operator().tables().clone();
        let Some(installation) = operator.installation() else { return Ok(()) };
        for (id, registration) in &installation.organizations {
            let organization = self.tables.organization(*id);
            let begun = organization
                .is_some_and(|it| it.stopped().is_some() || it.tables().profile().is_some());
            if begun {
                continue;
            }
            self.begin_organization(*id, registration).await?;
        }
        Ok(())
    }

    /// Begins the stream of an organization that was admitted, unless it was begun.
    pub(in crate::ledger) async fn begin_organization(
        self: &Arc<Self>,
        id: OrganizationId,
        registration: &Registration,
    ) -> Result<(), LedgerError> {
        let profile = &registration.profile;
        let draft = OrganizationDraft {
            organization_id: id,
            name: profile.name.clone(),
            key_prefix: profile.key_prefix.clone(),
            plan: profile.plan.clone(),
            personal_of: profile.personal_of,
        };
        let order = Order {
            causation_id: Some(registration.event_id),
            ..self.ledgers_order(Command::CreateOrganization(draft))
        };
        self.execute(id, &order).await.map(|_| ())
    }

    /// Replaces the operator's minted administrator keys by this one.
    pub async fn reissue_operator_key(
        self: &Arc<Self>,
        secret: &Secret,
    ) -> Result<Executed, LedgerError> {
        let command = Command::ReissueOperatorKey(Box::new(self.admin_key(secret)));
        self.as_ledger(OrganizationId::OPERATOR, command).await
    }

    pub(in crate::ledger) async fn as_ledger(
        self: &Arc<Self>,
        id: OrganizationId,
        command: Command,
    ) -> Result<Executed, LedgerError> {
        let order = self.ledgers_order(command);
        self.execute(id, &order).await
    }

    pub(in crate::ledger) fn ledgers_order(&self, command: Command) -> Order {
        Order {
            caller: Caller::Ledger,
            command,
            expected: None,
            request: None,
            correlation_id: self.new_correlation_id(),
            causation_id: None,
            personal: Personal::default(),
            about: None,
        }
    }

    /// A correlation id for what was asked without one.
    #[must_use]
    pub fn new_correlation_id(&self) -> CorrelationId {
        let id = self.ids.event(self.clock.now()).to_string().replacen("evt_", "cor_", 1);
        id.parse().unwrap_or_else(|_| built_in::fallback_correlation_id())
    }

    fn admin_key(&self, secret: &Secret) -> CreateKey {
        let digest = mint::digest(secret.expose(), &self.peppers);
        let prefix = Some(built_in::operator_key_prefix());
        self.operator_key(
            built_in::admin_key_name(),
            KeyOrigin::Minted,
            prefix,
            Hint::of(secret.expose()),
            digest,
        )
    }

    fn configured(&self, configured: &ConfiguredKeys) -> Result<Vec<ImportedKey>, StartError> {
        let mut keys = Vec::new();
        if let Some(token) = &configured.admin_api_token {
            check_admin_api_token(token)?;
            let text = token.expose();
            let digest = mint::digest(text, &self.peppers);
            let name = built_in::admin_api_token_name();
            let key = self.operator_key(name, KeyOrigin::Configured, None, None, digest);
            keys.push(ImportedKey { key, others: mint::other_digests(text, &self.peppers) });
        }
        if let Some(sha256) = &configured.admin_key_sha256 {
            let digest = mint::digest_of_sha256(sha256, &self.peppers);
            debug_assert_eq!(digest.form, DigestForm::Sha256, "the digest of a digest says so");
            let name = built_in::admin_digest_name();
            let key = self.operator_key(name, KeyOrigin::Configured, None, None, digest);
            let others = mint::retired_digests_of_sha256(sha256, &self.peppers);
            keys.push(ImportedKey { key, others });
        }
        // A digest leads to one key. The operator's own, as long as they are in its tables, are
        // the rules' to look at.
        let index = self.tables.index();
        let operator = self.tables.operator().tables();
        let elsewhere = |digest: SecretDigest| match index.key(&digest) {
            Some(found) => operator.key(found.key.id).is_none(),
            None => self.dead.may_hold(&digest),
        };
        if keys.iter().flat_map(ImportedKey::digests).any(elsewhere) {
            return Err(LedgerError::from(Rejection::SecretInUse).into());
        }
        Ok(keys)
    }

    fn operator_key(
        &self,
        name: Name,
        origin: KeyOrigin,
        prefix: Option<KeyPrefix>,
        hint: Option<Hint>,
        digest: KeyedDigest,
    ) -> CreateKey {
        let role = built_in::OPERATOR_ADMIN;
        CreateKey { prefix, hint, ..self.key_of_role(role, name, origin, digest) }
    }

    /// A key that holds what one role permits, and never ends by itself.
    pub(super) fn key_of_role(
        &self,
        role: RoleId,
        name: Name,
        origin: KeyOrigin,
        digest: KeyedDigest,
    ) -> CreateKey {
        CreateKey {
            key_id: self.ids.key(self.clock.now()),
            name,
            description: None,
            origin,
            prefix: None,
            environment: None,
            hint: None,
            digest,
            scopes: None,
            roles: vec![role],
            services: None,
            expiry: Expiry::PlanDefault,
            metadata: BTreeMap::new(),
            limits: BTreeMap::new(),
            owner: None,
            allowed_ips: None,
            rate_limit: None,
        }
    }
}

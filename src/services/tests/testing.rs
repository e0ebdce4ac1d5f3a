//! A ledger in memory with one organization, for tests of what services say.

use std::sync::Arc;

use projections::id::OrganizationId;
use tonic::Request;

use super::authentication::Authenticated;
use super::key::Context;
use crate::ledger::clock::{Clock, ManualTime};
use crate::ledger::command::{Caller, Command, Order, OrganizationDraft};
use crate::ledger::secret::Ids;
use crate::ledger::sign_in::access_token::AccessTerms;
use crate::ledger::sign_in::hashing::HashingTerms;
use crate::ledger::sign_in::throttle::ThrottleTerms;
use crate::ledger::sign_in::{SignIn, SignInTerms};
use crate::ledger::start::{ConfiguredKeys, Parts};
use crate::ledger::tables::Published;
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::{Executed, Ledger};
use crate::store::memory::MemoryStore;
use crate::vault::memory::MemoryVault;

/// The organization.
pub(super) const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

/// A ledger, and what it stands on.
pub(super) struct World {
    pub(super) ledger: Arc<Ledger>,
    pub(super) store: MemoryStore,
    pub(super) vault: Arc<MemoryVault>,
    pub(super) time: Arc<ManualTime>,
}

impl World {
    pub(super) async fn new() -> Self {
        let store = MemoryStore::new();
        let vault = Arc::new(MemoryVault::new());
        let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
        let parts = Parts {
            store: Arc::new(store.clone()),
            vault: Arc::clone(&vault) as _,
            clock: Clock::manual(Arc::clone(&time)),
            ids: Ids::from_system().unwrap(),
            peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
            lookup_key: [2; 32].into(),
        };
        let (ledger, _) = Ledger::open(parts).await.unwrap();
        ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
        let world = Self { ledger, store, vault, time };
        let draft = draft(ACME, "vtx");
        world.give(OrganizationId::OPERATOR, Command::RegisterOrganization(draft.clone())).await;
        world.give(ACME, Command::CreateOrganization(draft)).await;
        world
    }

    /// Lets people sign in.
    pub(super) fn sign_in(&self) -> Arc<SignIn> {
        let terms = SignInTerms {
            access: AccessTerms {
                issuer: "keyledger".to_owned(),
                audience: "keyledger".to_owned(),
                lifetime_s: 600,
            },
            refresh_idle_ms: 3_600_000,
            session_lifetime_ms: 3_600_000,
            signing_key_age_ms: 86_400_000,
            hashing: HashingTerms::default(),
            throttle: ThrottleTerms::default(),
            personal: Default::default(),
            refused_passwords: Arc::default(),
        };
        let sign_in = Arc::new(SignIn::open(&self.ledger, terms).unwrap());
        self.ledger.begin_sign_in(Arc::clone(&sign_in));
        sign_in
    }

    pub(super) fn acme(&self) -> Arc<Published> {
        self.ledger.tables().organization(ACME).unwrap()
    }

    /// What surrounds a command of the ledger's own.
    pub(super) fn context(&self) -> Context {
        let caller = Authenticated {
            organization_id: OrganizationId::OPERATOR,
            caller: Caller::Ledger,
            tenant: None,
        };
        Context::of(&self.ledger, &caller, &Request::new(())).unwrap()
    }

    /// Carries out a command of the ledger's own.
    pub(super) async fn give(&self, id: OrganizationId, command: Command) -> Executed {
        let order: Order = self.context().plain_order(command);
        self.ledger.execute(id, &order).await.unwrap()
    }
}

/// What an organization shall be.
pub(super) fn draft(organization_id: OrganizationId, prefix: &str) -> OrganizationDraft {
    OrganizationDraft {
        organization_id,
        name: "Acme".parse().unwrap(),
        key_prefix: prefix.parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    }
}

//! Personal organizations, cut short at every step and made by many at once.

use projections::organization::Organization;
use projections::principal::Principal;
use projections::user::{Identity, UserState};

use super::*;
use crate::ledger::accounts::personal::{key_prefix, organization_of, owner_of};
use crate::ledger::built_in;
use crate::ledger::command::{Caller, Command, InviteUser, Order, OrganizationDraft, SeatOwner};
use crate::ledger::rejection::Rejection;

const ROUNDS: [AppendFault; 4] = [
    AppendFault::LoseAppendAck,
    AppendFault::DropAppend,
    AppendFault::RefuseAppend,
    AppendFault::RefuseFull,
];

impl World {
    /// An account that is to have an organization of its own, which is not there yet.
    async fn create_personal(&self) -> Arc<Account> {
        let draft = CreateAccount { personal: true, ..draft(1, EMAIL) };
        self.ledger.create_account(&draft, &order(None)).await.unwrap();
        self.account()
    }

    fn account(&self) -> Arc<Account> {
        self.ledger.account(id(1)).unwrap().unwrap()
    }

    fn organizations(&self) -> Vec<OrganizationId> {
        let operator = self.ledger.tables().operator().tables().clone();
        operator.installation().unwrap().organizations.keys().copied().collect()
    }

    fn personal(&self) -> Arc<Organization> {
        let organization = self.ledger.tables().organization(organization_of(id(1))).unwrap();
        Arc::clone(&organization.tables())
    }

    /// There is one organization, and it has one user, who may do everything.
    #[track_caller]
    fn assert_personal(&self) {
        assert_eq!(self.organizations(), [organization_of(id(1))]);
        let tables = self.personal();
        assert_eq!(tables.profile().unwrap().personal_of, Some(id(1)));
        let users: Vec<_> = tables.users_after(None).collect();
        let [owner] = users[..] else { panic!("{users:?}") };
        assert_eq!((owner.id, owner.account_id), (owner_of(id(1)), Some(id(1))));
        assert_eq!(owner.state(), UserState::Active);
        assert!(owner.identity.is_some());
        let grants = tables.grants_of(Principal::User(owner.id));
        let [grant] = grants else { panic!("{grants:?}") };
        assert_eq!((grant.terms.role_id, &grant.terms.domain), (built_in::ADMIN, &None));
    }

    /// Starts anew on what is there, as after a kill, and finishes what was begun.
    async fn killed_and_started(self) -> Self {
        let world = self.restart().await;
        world.ledger.configure(&ConfiguredKeys::default()).await.unwrap();
        world.ledger.finish_personal().await;
        world
    }

    fn ordered(&self, caller: Caller, command: Command) -> Order {
        Order { caller, ..self.ledger.ledgers_order(command) }
    }
}

#[tokio::test]
async fn whoever_is_cut_short_at_any_step_has_one_organization_in_the_end() {
    for fault in ROUNDS {
        for step in 0..3 {
            for by_login in [true, false] {
                let world = World::new().await;
                let account = world.create_personal().await;
                world.store.inject_after(step, fault);
                let made = world.ledger.complete_personal(&account).await;
                assert_eq!(made.is_ok(), fault == AppendFault::LoseAppendAck, "{fault:?} {step}");
                let world = if by_login {
                    world.ledger.complete_personal(&account).await.unwrap();
                    world
                } else {
                    world.killed_and_started().await
                };
                world.assert_personal();
                let before = world.store.copied();
                world.ledger.complete_personal(&account).await.unwrap();
                world.ledger.finish_personal().await;
                world.assert_personal();
                let count = async |store: &MemoryStore| {
                    let stream = StreamName::organization(OrganizationId::OPERATOR);
                    store
                        .read_stream(&stream, Revision::FIRST, READ_EVENTS_MAX)
                        .await
                        .unwrap()
                        .len()
                };
                assert_eq!(
                    count(&before).await,
                    count(&world.store).await,
                    "nothing is said twice"
                );
            }
        }
    }
}

#[tokio::test]
async fn many_at_once_make_one() {
    let world = World::new().await;
    let account = world.create_personal().await;
    let one = || {
        let (ledger, account) = (Arc::clone(&world.ledger), Arc::clone(&account));
        tokio::spawn(async move { ledger.complete_personal(&account).await })
    };
    let all: Vec<_> = (0..8).map(|_| one()).collect();
    for made in all {
        made.await.unwrap().unwrap();
    }
    world.assert_personal();
}

#[tokio::test]
async fn an_account_that_was_to_have_none_has_none() {
    let world = World::new().await;
    world.create(1, EMAIL).await.unwrap();
    assert_eq!(world.account().personal_organization(), None);
    world.ledger.complete_personal(&world.account()).await.unwrap();
    let world = world.killed_and_started().await;
    assert_eq!(world.organizations(), []);
}

#[tokio::test]
async fn a_prefix_that_somebody_has_is_not_taken_from_them() {
    let world = World::new().await;
    let account = world.create_personal().await;
    let taken = key_prefix(id(1), 0).unwrap();
    let draft = OrganizationDraft {
        organization_id: OrganizationId::from_bytes([9; 16]),
        name: "Acme".parse().unwrap(),
        key_prefix: taken.clone(),
        plan: built_in::default_plan(),
        personal_of: None,
    };
    let command = Command::RegisterOrganization(draft);
    world.ledger.as_ledger(OrganizationId::OPERATOR, command).await.unwrap();
    world.ledger.complete_personal(&account).await.unwrap();
    let prefix = world.personal().profile().unwrap().key_prefix.clone();
    assert_eq!(Some(&prefix), key_prefix(id(1), 1).as_ref());
    assert_ne!(prefix, taken);
}

/// Nobody joins it, and nobody but the ledger, for the account that it is of, seats anybody.
#[tokio::test]
async fn nobody_else_comes_in() {
    let world = World::new().await;
    let account = world.create_personal().await;
    world.ledger.complete_personal(&account).await.unwrap();
    let organization = organization_of(id(1));
    let refused = async |caller, command| {
        let order = world.ordered(caller, command);
        let error = world.ledger.execute(organization, &order).await.unwrap_err();
        let LedgerError::Rejected(rejection) = error else { panic!("{error:?}") };
        rejection
    };
    let invite = InviteUser {
        user_id: world.ledger.ids().user(world.now()),
        email: world.email("eve@example.com"),
        lifetime_ms: 1_000,
        limits: [].into(),
        grants: Vec::new(),
        token: None,
    };
    let invite = Command::InviteUser(Box::new(invite));
    assert_eq!(refused(Caller::Ledger, invite).await, Rejection::OrganizationPersonal);
    let seat = |account_id| {
        Command::SeatOwner(SeatOwner {
            user_id: owner_of(account_id),
            account_id,
            email: world.email("eve@example.com"),
            grant_id: world.ledger.ids().grant(world.now()),
        })
    };
    assert_eq!(refused(Caller::Ledger, seat(id(2))).await, Rejection::CallerNotInForce);
    let person = Caller::Person { organization_id: organization, user_id: owner_of(id(1)) };
    assert_eq!(refused(person, seat(id(1))).await, Rejection::CallerNotInForce);
    // Who was removed is not brought back.
    let remove = world.ordered(Caller::Ledger, Command::RemoveUser(owner_of(id(1))));
    world.ledger.execute(organization, &remove).await.unwrap();
    let world = world.killed_and_started().await;
    world.ledger.complete_personal(&world.account()).await.unwrap();
    let owner = world.personal().user(owner_of(id(1))).unwrap().state();
    assert_eq!(owner, UserState::Removed);
}

#[tokio::test]
async fn the_owner_is_known_as_the_account_is_and_sealed_under_a_key_of_their_own() {
    let world = World::new().await;
    let account = world.create_personal().await;
    world.ledger.complete_personal(&account).await.unwrap();
    let tables = world.personal();
    let identity = tables.user(owner_of(id(1))).unwrap().identity.clone().unwrap();
    let key = world.ledger.subject_key(&identity.sealed.subject).await.unwrap();
    let known =
        crate::ledger::vault::seal::open(&key, identity.event_id, &identity.sealed).unwrap();
    assert_eq!((&known[Identity::EMAIL][..], &known[Identity::NAME][..]), (EMAIL, "Alice"));
    assert_eq!(known.len(), 2, "where the account was made from is not passed on");
    let clear = world.events(&StreamName::organization(tables.id)).await;
    for event in clear.iter().filter_map(|it| serde_json::to_string(&it.event).ok()) {
        assert!(!event.contains("lice"), "{event}");
    }
    // A person who was erased has one all the same.
    let world = World::new().await;
    let account = world.create_personal().await;
    world.vault.erase_subject(&projections::sealed::Subject::account(id(1))).await.unwrap();
    world.ledger.complete_personal(&account).await.unwrap();
    assert!(world.personal().user(owner_of(id(1))).unwrap().identity.is_none());
}

/// Identifiers are kept for ever: how they follow from the account's must never change.
#[test]
fn what_follows_from_an_account_is_fixed() {
    let account = AccountId::from_parts(1_790_000_000_000, 1);
    let said = format!(
        "{} {} {}",
        organization_of(account),
        owner_of(account).text(),
        key_prefix(account, 0).unwrap(),
    );
    expect_test::expect![
        "org_01M3250V00E7YT94Q9KSEPPX29 usr_01M3250V00WB1WXE0RXXRR6WEH pfd82kx50h"
    ]
    .assert_eq(&said);
    assert_ne!(organization_of(account), organization_of(id(1)));
    assert_ne!(owner_of(account).to_bytes(), account.to_bytes());
}

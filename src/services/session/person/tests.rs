//! A password's reset that somebody issues: told first, or given to nobody.

use projections::id::OrganizationId;

use super::*;
use crate::ledger::accounts::command::CreateAccount;
use crate::ledger::command::Personal;
use crate::ledger::vault::Vault as _;
use crate::ledger::vault::rows::RowName;
use crate::services::testing::World;
use crate::store::memory::AppendFault;

const ACCOUNT: AccountId = AccountId::from_bytes([5; 16]);
const EMAIL: &str = "ada@example.com";

fn order() -> AccountOrder {
    AccountOrder {
        actor: Principal::Organization(OrganizationId::OPERATOR),
        credential: None,
        session: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal::default(),
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.sign_in();
    let draft = CreateAccount {
        account_id: ACCOUNT,
        email: EMAIL.parse().unwrap(),
        name: "Ada".parse().unwrap(),
        has_password: true,
        default_organization: None,
        personal: false,
    };
    world.ledger.create_account(&draft, &order()).await.unwrap();
    world
}

async fn issue(world: &World, issuer: Option<AccountOrder>) -> Result<Option<Secret>, Status> {
    let ends_at = world.ledger.clock().now().saturating_add_millis(RESET_MS);
    make_reset(&world.ledger, &Delivery::Nobody, ACCOUNT, EMAIL.parse().unwrap(), ends_at, issuer)
        .await
}

#[tokio::test]
async fn what_cannot_be_told_is_given_to_nobody() {
    let world = world().await;
    let revision = || world.ledger.account(ACCOUNT).unwrap().unwrap().revision();
    let row = async || world.vault.read_row(&RowName::reset(ACCOUNT)).await.unwrap();
    let begun = revision();
    // A stranger's leaves no event.
    issue(&world, None).await.unwrap();
    assert_eq!(revision(), begun);
    let kept = row().await.map(|it| it.version);
    assert!(kept.is_some());
    // On a full disk what is good stays good.
    world.store.set_full(true);
    assert!(issue(&world, Some(order())).await.is_err());
    assert!(row().await.map(|it| it.version) == kept);
    world.store.set_full(false);
    world.store.inject(AppendFault::RefuseAppend, 1);
    assert!(issue(&world, Some(order())).await.is_err());
    assert!(row().await.is_none(), "nobody has the token");
    assert_eq!(revision(), begun);
    assert!(issue(&world, Some(order())).await.unwrap().is_some());
    assert!(revision() > begun && row().await.is_some());
}

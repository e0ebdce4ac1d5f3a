//! What people know users by: sealed once, read back, and gone once it is erased.

use projections::envelope::Envelope;
use projections::recorded::Revision;

use super::*;
use crate::ledger::LedgerError;
use crate::ledger::vault::{SubjectKeyState, Vault as _};
use crate::services::testing::{ACME, World};

fn invitation(email: &str, name: &str) -> proto::InviteUserRequest {
    let role_id = "rol_00000000000000000000000006".to_owned();
    proto::InviteUserRequest {
        email: email.into(),
        name: name.into(),
        grants: vec![proto::InitialGrant { role_id, ..Default::default() }],
        comment: "a new colleague".into(),
        ..Default::default()
    }
}

async fn invited(world: &World, email: &str, name: &str) -> Result<proto::User, LedgerError> {
    // Who comes later sorts behind.
    world.time.advance_ms(1);
    let request = invitation(email, name);
    let order = invite(&world.ledger, ACME, world.context(), &request).unwrap();
    let Command::InviteUser(command) = &order.command else { panic!() };
    let user = command.user_id;
    if let Err(error) = world.ledger.execute(ACME, &order).await {
        // What is refused leaves no key of nobody behind.
        let subject = Subject::user(ACME, user);
        let key = world.vault.existing_subject_key(&subject).await;
        assert!(matches!(key, Ok(SubjectKeyState::Absent)));
        return Err(error);
    }
    Ok(got(world, user).await)
}

async fn got(world: &World, user: UserId) -> proto::User {
    let request = proto::GetUserRequest { user_id: user.text(), ..Default::default() };
    get(&world.ledger, &world.acme(), &request).await.unwrap().user.unwrap()
}

async fn listed(world: &World, email: &str) -> Vec<proto::User> {
    let request = proto::ListUsersRequest { email: email.into(), ..Default::default() };
    list(&world.ledger, &world.acme(), &request).await.unwrap().users
}

async fn rename(world: &World, user: &proto::User, name: &str) -> Result<Order, Status> {
    let request = proto::UpdateUserRequest {
        user_id: user.id.clone(),
        name: name.into(),
        ..Default::default()
    };
    update(&world.ledger, &world.acme(), world.context(), &request).await
}

async fn events(world: &World) -> Vec<Envelope> {
    let mut events = Vec::new();
    while let Some(recorded) =
        world.ledger.event(&world.acme(), Revision(events.len() as u64)).await.unwrap()
    {
        events.push(Envelope::decode(&recorded.stored).unwrap());
    }
    events
}

#[tokio::test]
async fn what_a_user_is_known_by_is_sealed_into_the_first_event_alone() {
    let world = World::new().await;
    let alice = invited(&world, " Alice@EXAMPLE.com", "Alice").await.unwrap();
    assert_eq!((alice.email.as_str(), alice.name.as_str()), ("alice@example.com", "Alice"));
    assert_eq!(alice.identity_state(), Shown::Shown);
    let subject = Subject::user(ACME, alice.id.parse().unwrap());
    let sealed =
        |event: &Envelope| event.sealed.iter().map(|it| it.subject == subject).collect::<Vec<_>>();
    let made: Vec<_> = events(&world).await.iter().skip(1).map(sealed).collect();
    // The comment under the month's key, in both; the rest under the user's, in the first.
    assert_eq!(made, [vec![false, true], vec![false]]);
    let taken = invited(&world, "ALICE@example.com", "Another").await;
    assert!(matches!(taken, Err(LedgerError::Rejected(Rejection::EmailTaken(_)))));
    let order = rename(&world, &alice, "Alice Roe").await.unwrap();
    let (renamed, _) = change(&world.ledger, &world.acme(), &order).await.unwrap();
    assert_eq!((renamed.email.as_str(), renamed.name.as_str()), ("alice@example.com", "Alice Roe"));
    // The name that they have is no change.
    let order = rename(&world, &alice, "Alice Roe").await.unwrap();
    assert!(order.about.is_none());
    let before = world.acme().tables().revision();
    change(&world.ledger, &world.acme(), &order).await.unwrap();
    assert_eq!(world.acme().tables().revision(), before);
}

#[tokio::test]
async fn what_was_erased_is_said_to_be() {
    let world = World::new().await;
    let alice = invited(&world, "alice@example.com", "Alice").await.unwrap();
    let bob = invited(&world, "bob@example.com", "Bob").await.unwrap();
    let subject = Subject::user(ACME, alice.id.parse().unwrap());
    assert!(world.vault.erase_subject(&subject).await.unwrap());
    let erased = got(&world, alice.id.parse().unwrap()).await;
    assert_eq!((erased.email.as_str(), erased.name.as_str()), ("", ""));
    assert_eq!(erased.identity_state(), Shown::Erased);
    let all = listed(&world, "").await;
    let states: Vec<_> = all.iter().map(proto::User::identity_state).collect();
    assert_eq!((states, &all[1]), (vec![Shown::Erased, Shown::Shown], &bob));
    // Who knows the e-mail still finds the user; nobody gives them another name.
    assert_eq!(listed(&world, "alice@example.com").await, [erased]);
    let refused = rename(&world, &alice, "Alice Roe").await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("was erased"), "{}", refused.message());
    // All else goes on.
    let order = world.context().plain_order(Command::SuspendUser(alice.id.parse().unwrap()));
    let (suspended, _) = change(&world.ledger, &world.acme(), &order).await.unwrap();
    assert_eq!(suspended.state(), proto::UserState::Suspended);
    assert_eq!(suspended.identity_state(), Shown::Erased);
}

/// Each is shown with their own name, whoever of them was erased; the vault is asked once.
#[tokio::test]
async fn a_page_of_users_asks_the_vault_once() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let name = format!("User {number}");
        ids.push(invited(&world, &format!("user{number}@example.com"), &name).await.unwrap().id);
    }
    let erased = Subject::user(ACME, ids[2].parse().unwrap());
    world.vault.erase_subject(&erased).await.unwrap();
    let mut request = proto::ListUsersRequest { page_size: 4, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let asked = world.vault.looked_up();
        let page = list(&world.ledger, &world.acme(), &request).await.unwrap();
        assert_eq!(world.vault.looked_up(), asked + 1);
        names.extend(page.users.into_iter().map(|it| (it.id, it.name)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = ids
        .into_iter()
        .enumerate()
        .map(|(n, id)| (id, if n == 2 { String::new() } else { format!("User {n}") }))
        .collect();
    assert_eq!(names, expected);
    // None of a state: nobody is asked for.
    let asked = world.vault.looked_up();
    let removed = proto::ListUsersRequest { state: proto::UserState::Removed.into(), ..request };
    assert!(list(&world.ledger, &world.acme(), &removed).await.unwrap().users.is_empty());
    assert_eq!(world.vault.looked_up(), asked);
}

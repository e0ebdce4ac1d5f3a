//! Logging out with an access token whose time is over.

use projections::event::AuthenticationMethod;
use projections::id::{AccountId, SessionId, UserId};

use super::super::tokens::{CSRF_HEADER, Issued, answer};
use super::*;
use crate::ledger::accounts::command::{AccountOrder, CreateAccount};
use crate::ledger::command::{InviteUser, JoinUser, Personal, StartSession};
use crate::services::testing::{ACME, World};

const USER: UserId = UserId::from_bytes([5; 16]);
const ACCOUNT: AccountId = AccountId::from_bytes([5; 16]);
const SESSION: SessionId = SessionId::from_bytes([6; 16]);
const EMAIL: &str = "ada@example.com";

/// A user of Acme, with a session.
async fn world() -> World {
    let world = World::new().await;
    let sign_in = world.sign_in();
    sign_in.tend(&world.ledger).await;
    let draft = CreateAccount {
        account_id: ACCOUNT,
        email: EMAIL.parse().unwrap(),
        name: "Ada".parse().unwrap(),
        has_password: true,
        default_organization: None,
        personal: false,
    };
    let order = AccountOrder {
        actor: projections::principal::Principal::Account(ACCOUNT),
        credential: None,
        session: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal::default(),
    };
    world.ledger.create_account(&draft, &order).await.unwrap();
    let email = world.ledger.email_digest(&EMAIL.parse().unwrap());
    let invite = InviteUser {
        user_id: USER,
        email,
        lifetime_ms: 60_000,
        limits: Default::default(),
        grants: Vec::new(),
        token: None,
    };
    world.give(ACME, Command::InviteUser(Box::new(invite))).await;
    let join = JoinUser { user_id: USER, account_id: ACCOUNT, email, email_proven: true };
    world.give(ACME, Command::JoinUser(join)).await;
    let start = StartSession {
        session_id: SESSION,
        user_id: USER,
        account_id: ACCOUNT,
        epoch: world.ledger.account(ACCOUNT).unwrap().unwrap().epoch(),
        methods: vec![AuthenticationMethod::Password],
        lifetime_ms: 3_600_000,
    };
    world.give(ACME, Command::StartSession(Box::new(start))).await;
    world
}

/// What a page sends that keeps the session's cookies.
fn page(world: &World) -> Request<proto::LogoutRequest> {
    let session = world.acme().tables().session(SESSION).cloned().unwrap();
    let now = world.ledger.clock().now();
    let issued = Issued::access(&world.ledger, ACME, &session, now).unwrap();
    let kept = answer(&world.ledger, issued, true, session.expires_at, |tokens| tokens);
    let cookie = kept.metadata().get("set-cookie").unwrap().to_str().unwrap();
    let mut request = Request::new(proto::LogoutRequest {});
    let metadata = request.metadata_mut();
    metadata.insert("cookie", cookie.split(';').next().unwrap().parse().unwrap());
    metadata.insert(CSRF_HEADER, kept.get_ref().csrf_token.parse().unwrap());
    request
}

fn ended(world: &World) -> bool {
    world.acme().tables().session(SESSION).unwrap().ended.is_some()
}

#[tokio::test]
async fn a_token_whose_time_is_over_ends_its_session_for_the_page_that_has_it() {
    let world = world().await;
    let mut other = page(&world);
    other.metadata_mut().insert(CSRF_HEADER, "0".parse().unwrap());
    let page = page(&world);
    world.time.advance_ms(601_000);
    assert!(authenticate_caller(&world.ledger, &page).is_err(), "it is good for nothing else");
    let refused = logout(&world.ledger, &other).await.unwrap_err();
    assert!(refused.metadata().get("set-cookie").is_none() && !ended(&world));
    let done = logout(&world.ledger, &page).await.unwrap();
    assert_eq!(done.metadata().get_all("set-cookie").iter().count(), 2);
    assert!(ended(&world));
    // Again, and when nobody knows any more.
    for request in [&page, &other] {
        let refused = logout(&world.ledger, request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert_eq!(refused.metadata().get_all("set-cookie").iter().count(), 2);
    }
}

/// A session whose whole time is over is not ended: it is nothing any more.
#[tokio::test]
async fn a_session_whose_time_is_over_is_forgotten_by_the_browser() {
    let world = world().await;
    let page = page(&world);
    world.time.advance_ms(3_600_000);
    let refused = logout(&world.ledger, &page).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    assert_eq!(refused.metadata().get_all("set-cookie").iter().count(), 2);
    assert!(!ended(&world));
}

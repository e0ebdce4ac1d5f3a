//! A user's key ends its calls when the user goes out of force.

use std::collections::BTreeMap;

use projections::digest::EmailDigest;
use projections::id::UserId;

use super::*;
use crate::ledger::built_in;
use crate::ledger::command::{Caller, Command, CreateKey, Expiry, GrantRole, InviteUser, Order};
use crate::ledger::mint;

fn order(command: Command) -> Order {
    Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Default::default(),
        about: None,
    }
}

/// A user of the operator's who may do everything, and the text of a key of theirs.
async fn user_with_key(ledger: &Arc<Ledger>) -> (UserId, String) {
    let id = OrganizationId::OPERATOR;
    let user_id = UserId::from_bytes([5; 16]);
    let grant = GrantRole {
        grant_id: ledger.ids().grant(ledger.clock().now()),
        principal: Principal::User(user_id),
        role_id: built_in::OPERATOR_ADMIN,
        domain: None,
        expiry: None,
    };
    let invite = InviteUser {
        user_id,
        email: EmailDigest([1; 32]),
        lifetime_ms: 60_000,
        limits: BTreeMap::new(),
        grants: vec![grant],
        token: None,
    };
    ledger.execute(id, &order(Command::InviteUser(Box::new(invite)))).await.unwrap();
    let prefix = built_in::operator_key_prefix();
    let minted = mint::mint(&prefix, None, ledger.peppers()).unwrap();
    let key = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name: "ada".parse().unwrap(),
        description: None,
        origin: KeyOrigin::Minted,
        prefix: Some(prefix),
        environment: None,
        hint: minted.hint,
        digest: minted.digest,
        scopes: None,
        roles: Vec::new(),
        services: None,
        expiry: Expiry::PlanDefault,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: Some(user_id.into()),
        allowed_ips: None,
        rate_limit: None,
    };
    ledger.execute(id, &order(Command::CreateKey(Box::new(key)))).await.unwrap();
    (user_id, minted.secret.expose().to_owned())
}

#[tokio::test]
async fn a_suspended_users_key_ends_its_stream_busy_or_not() {
    let (door, _) = opened(8).await;
    let ledger = Arc::clone(door.enter().unwrap().ledger());
    let (user_id, key) = user_with_key(&ledger).await;
    let verification = Verification::new(door);
    let (busy, _) = asking(&key, usize::MAX);
    let mut busy = verification.verify_stream(busy).unwrap().into_inner();
    let (idle, _) = asking(&key, 0);
    let mut idle = verification.verify_stream(idle).unwrap().into_inner();
    let answer = busy.next().await.unwrap().unwrap();
    let answer = proto::VerifyStreamResponse::decode(&*answer.0).unwrap();
    let Some(proto::verify_stream_response::Answer::Decision(decision)) = answer.answer else {
        panic!("a decision")
    };
    assert!(decision.allowed);
    let suspend = order(Command::SuspendUser(user_id));
    ledger.execute(OrganizationId::OPERATOR, &suspend).await.unwrap();
    // The very next message, and without one as soon as the caller is looked at again.
    for answers in [&mut busy, &mut idle] {
        let status = ended(answers.next().await);
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert!(status.message().contains("suspended"), "{status:?}");
    }
    let (again, _) = asking(&key, 1);
    assert!(verification.verify_stream(again).is_err());
    let restore = order(Command::RestoreUser(user_id));
    ledger.execute(OrganizationId::OPERATOR, &restore).await.unwrap();
    let (again, _) = asking(&key, 1);
    assert!(verification.verify_stream(again).is_ok());
}

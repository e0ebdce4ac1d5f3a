//! Keys may be used as often as they may: through the server, each call and each question
//! one.

use keyledger::proto::DecisionCode::{Allowed, RateLimited};
use keyledger::proto::verify_batch_answer::Answer;
use keyledger::proto::{
    CreateKeyRequest, DecisionCode, DisableKeyRequest, EnableKeyRequest, GetKeyRequest,
    ListKeysRequest, RateLimit, RotateKeyRequest, VerifyBatchRequest, VerifyRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Acme, Client, about, reason, refused, scoped, texts};

async fn limited(client: &Client, name: &str, scopes: &[&str], requests: u32) -> (String, String) {
    let request = CreateKeyRequest {
        // So slow that no token comes back while the test runs.
        rate_limit: Some(RateLimit { requests, per_seconds: 86_400 }),
        ..scoped("", name, scopes)
    };
    let created = client.create_key(request).await.unwrap();
    (created.key.unwrap().id, created.secret)
}

#[tokio::test]
async fn whoever_is_asked_about_too_often_is_told_how_long_to_wait() {
    let acme = Acme::new().await;
    let (id, secret) = limited(&acme.admin, "slow", &["dns:read"], 3).await;
    let ask = |permission: &str| VerifyRequest {
        credential: secret.clone(),
        permissions: texts(&[permission]),
        ..Default::default()
    };
    assert_eq!(acme.operator.code(ask("dns:write")).await, DecisionCode::PermissionDenied);
    for _ in 0..3 {
        let answer = acme.operator.verify(ask("dns:read")).await.unwrap();
        assert!(answer.allowed && answer.retry_after.is_none(), "{answer:?}");
    }
    let answer = acme.operator.verify(ask("dns:read")).await.unwrap();
    assert_eq!(answer.code(), DecisionCode::RateLimited);
    assert_eq!((answer.allowed, answer.credential_id.as_str()), (false, id.as_str()));
    let wait = answer.retry_after.unwrap().seconds;
    assert!((28_000..=28_800).contains(&wait), "a third of a day: {wait}");
    // A restart fills it again: how often it was used is no part of history.
    acme.server.kill();
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.code(ask("dns:read")).await, DecisionCode::Allowed);
}

/// Neither a rotation nor a pause gives tokens back.
#[tokio::test]
async fn the_keys_of_one_rotation_are_limited_together() {
    let acme = Acme::new().await;
    let (id, first) = limited(&acme.admin, "slow", &["dns:read"], 4).await;
    let rotate = |key_id: String, seconds| RotateKeyRequest {
        key_id,
        grace: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    assert_eq!(acme.code(&first).await, Allowed);
    let second = acme.admin.rotate_key(rotate(id, 3_600)).await.unwrap();
    let second_id = second.key.unwrap().id;
    let third = acme.admin.rotate_key(rotate(second_id.clone(), 0)).await.unwrap();
    let third_id = third.key.unwrap().id;
    assert_eq!(acme.code(&third.secret).await, Allowed);
    assert_eq!(acme.code(&second.secret).await, DecisionCode::Revoked);
    assert_eq!(acme.code(&first).await, Allowed, "it has its grace");
    let disable = DisableKeyRequest { key_id: third_id.clone(), ..Default::default() };
    acme.admin.disable_key(disable).await.unwrap();
    assert_eq!(acme.code(&third.secret).await, DecisionCode::Disabled);
    let enable = EnableKeyRequest { key_id: third_id.clone(), ..Default::default() };
    acme.admin.enable_key(enable).await.unwrap();
    assert_eq!(acme.code(&third.secret).await, Allowed);
    let fourth = acme.admin.rotate_key(rotate(third_id, 3_600)).await.unwrap();
    for secret in [&fourth.secret, &third.secret, &first] {
        assert_eq!(acme.code(secret).await, RateLimited);
    }
    // Another key has its own tokens.
    let (_, other) = limited(&acme.admin, "other", &["dns:read"], 1).await;
    assert_eq!(acme.code(&other).await, Allowed);
}

/// However a key is asked about, each question costs one.
#[tokio::test]
async fn batches_and_streams_cost_one_for_each_question() {
    let acme = Acme::new().await;
    let expected: Vec<_> =
        (0..5).map(|place| if place < 3 { Allowed } else { RateLimited }).collect();
    let (_, secret) = limited(&acme.admin, "batch", &["dns:read"], 3).await;
    // What is refused whole was never asked.
    let wrong = VerifyRequest { service: "no name".into(), ..about(&secret, &[]) };
    let questions = [about(&secret, &["dns:read"]), wrong].to_vec();
    let refusal =
        acme.operator.verify_batch(VerifyBatchRequest { questions, ..Default::default() });
    refused(refusal.await, Code::InvalidArgument, "questions[1].service");
    let questions = vec![about(&secret, &["dns:read"]); 5];
    let batch = VerifyBatchRequest { questions, ..Default::default() };
    let answers = acme.operator.verify_batch(batch).await.unwrap().answers;
    let codes = answers.into_iter().map(|answer| match answer.answer.unwrap() {
        Answer::Decision(decision) => {
            assert_eq!(decision.retry_after.is_some(), decision.code() == RateLimited);
            decision.code()
        }
        Answer::Undecided(undecided) => panic!("{undecided:?}"),
    });
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    let (_, secret) = limited(&acme.admin, "stream", &["dns:read"], 3).await;
    let mut stream = acme.operator.verify_stream().await.unwrap();
    for (id, code) in (0..).zip(expected) {
        let answer = stream.decide(id, about(&secret, &["dns:read"])).await.unwrap();
        assert_eq!(answer.code(), code);
    }
}

#[tokio::test]
async fn a_call_to_the_server_costs_one() {
    let acme = Acme::new().await;
    let scopes = ["api-keys:read", "credentials:verify"];
    let (id, secret) = limited(&acme.admin, "slow", &scopes, 4).await;
    let client = acme.server.client(&secret);
    let get = || GetKeyRequest { key_id: id.clone(), ..Default::default() };
    client.get_key(get()).await.unwrap();
    // A call that waits is looked at twice, and costs one.
    let waits = VerifyRequest {
        credential: secret.clone(),
        at_least_revision: vec![keyledger::proto::StreamRevision {
            stream: format!("org-{}", acme.id),
            revision: 0,
        }],
        ..Default::default()
    };
    // One for the call, and one for being asked about.
    assert!(client.verify(waits).await.unwrap().allowed);
    client.list_keys(ListKeysRequest::default()).await.unwrap();
    // What is denied costs none, and comes first.
    refused(
        client.create_key(scoped("", "k", &["dns:read"])).await,
        Code::PermissionDenied,
        "api-keys:write",
    );
    let status =
        refused(client.get_key(get()).await, Code::ResourceExhausted, "as often as it may");
    assert_eq!(reason(&status), "RATE_LIMITED");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((21_000..=21_600).contains(&wait.as_secs()), "a quarter of a day: {wait:?}");
    // Other keys of the organization go on.
    acme.admin.get_key(get()).await.unwrap();
}

//! Many questions at once: each gets the answer it would get alone, in its place.

use keyledger::proto::verify_batch_answer::Answer;
use keyledger::proto::{
    CreateKeyRequest, DecisionCode, RateLimit, StreamRevision, VerifyBatchAnswer,
    VerifyBatchRequest, VerifyRequest, VerifyResponse,
};
use tonic::Code;

use super::support::{ADMIN, Acme, Client, about, reason, refused, scoped, with_roles};

fn batch(questions: Vec<VerifyRequest>) -> VerifyBatchRequest {
    VerifyBatchRequest { questions, ..Default::default() }
}

/// The decisions of a batch in which all is decided.
async fn decisions(client: &Client, request: VerifyBatchRequest) -> Vec<VerifyResponse> {
    let answers = client.verify_batch(request).await.unwrap().answers;
    let decision = |answer: Option<Answer>| match answer {
        Some(Answer::Decision(decision)) => decision,
        other => panic!("no decision: {other:?}"),
    };
    answers.into_iter().map(|it| decision(it.answer)).collect()
}

#[tokio::test]
async fn each_question_has_the_answer_it_has_alone() {
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read", "dns:write"]).await;
    let (gone, revoked) = acme.key("gone", &["dns:read"]).await;
    acme.admin.revoke("", &gone).await.unwrap();
    let role = acme.operator.create_key(with_roles(&acme.id, "by role", &[ADMIN])).await.unwrap();
    let full = CreateKeyRequest {
        metadata: [("team".to_owned(), "infra".to_owned())].into(),
        limits: [("rps".to_owned(), -5), ("none".to_owned(), 0)].into(),
        ..scoped("", "full", &["dns:read"])
    };
    let full = acme.admin.create_key(full).await.unwrap().secret;
    let other = acme.operator.organization("globex", "glx", "").await;
    let other = acme.operator.create_key(scoped(&other, "theirs", &["org:admin"])).await.unwrap();
    let admin_key = acme.home.admin_key();
    let credentials = [
        "",
        &key,
        &revoked,
        &role.secret,
        &full,
        &other.secret,
        &admin_key,
        "garbage",
        "vtx_live_x",
    ];
    let mut questions = Vec::new();
    for (place, credential) in credentials.iter().enumerate() {
        for permissions in [&[][..], &["dns:read"], &["dns:read", "dns:write"], &["org:admin"]] {
            let mut question = about(credential, permissions);
            question.correlation_id = format!("{place}-{}", questions.len());
            questions.push(VerifyRequest { service: "dns".into(), ..question.clone() });
            question.tenant_id = acme.id.clone();
            question.api_key = vec![key.clone()];
            questions.push(question);
        }
    }
    // An operator may know them all, a tenant its own.
    for client in [&acme.operator, &acme.admin] {
        let together = decisions(client, batch(questions.clone())).await;
        assert_eq!(together.len(), questions.len());
        let mut codes = Vec::new();
        for (question, answer) in questions.iter().zip(together) {
            let mut alone = client.verify(question.clone()).await.unwrap();
            // What is denied here is recorded meanwhile.
            for (there, here) in alone.revisions.iter().zip(&answer.revisions) {
                assert_eq!(there.stream, here.stream);
                assert!(there.revision >= here.revision, "{there:?} {here:?}");
            }
            assert_eq!(alone.revisions.len(), answer.revisions.len());
            alone.revisions.clone_from(&answer.revisions);
            assert_eq!(answer, alone);
            assert_eq!(answer.correlation_id, question.correlation_id);
            assert_eq!(answer.allowed, answer.code() == DecisionCode::Allowed);
            codes.push(answer.code());
        }
        for code in [
            DecisionCode::Allowed,
            DecisionCode::NoCredential,
            DecisionCode::Ambiguous,
            DecisionCode::Malformed,
            DecisionCode::Revoked,
            DecisionCode::PermissionDenied,
        ] {
            assert!(codes.contains(&code), "{code:?}: {codes:?}");
        }
        let foreign = DecisionCode::Unknown;
        assert_eq!(codes.contains(&foreign), std::ptr::eq(client, &raw const acme.admin));
    }
}

#[tokio::test]
async fn a_batch_is_of_one_to_a_thousand_questions() {
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    for count in [1, 999, 1_000] {
        let questions = (0..count)
            .map(|number| {
                let permission = if number % 2 == 0 { "dns:read" } else { "dns:write" };
                about(&key, &[permission])
            })
            .collect();
        let request = VerifyBatchRequest { correlation_id: "all".into(), ..batch(questions) };
        let answers = decisions(&acme.operator, request).await;
        assert_eq!(answers.len(), count);
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.allowed, number % 2 == 0);
            assert_eq!(answer.correlation_id, "all");
        }
    }
    for questions in [Vec::new(), vec![about(&key, &[]); 1_001]] {
        let asked = acme.operator.verify_batch(batch(questions)).await;
        refused(asked, Code::InvalidArgument, "`questions`: ");
    }
    // Nobody's correlation id is one for all, of the ledger's making.
    let request = batch(vec![about(&key, &[]), about("x", &[])]);
    let answers = decisions(&acme.operator, request).await;
    assert!(answers[0].correlation_id.starts_with("cor_"), "{answers:?}");
    assert_eq!(answers[0].correlation_id, answers[1].correlation_id);
}

/// What is wrong in one question refuses all: nobody takes half an answer for a whole one.
#[tokio::test]
async fn a_wrong_question_refuses_its_batch() {
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    let mut questions = vec![about(&key, &["dns:read"]); 20];
    questions[17].permissions = vec!["a:b".into(), "c:d".into(), "wrong".into()];
    let asked = acme.operator.verify_batch(batch(questions)).await;
    refused(asked, Code::InvalidArgument, "`questions[17].permissions[2]`: ");
}

#[tokio::test]
async fn a_batch_waits_once_for_its_revisions() {
    let acme = Acme::new().await;
    let (id, key) = acme.key("key", &["dns:read"]).await;
    let stream = format!("org-{}", acme.id);
    let revision = acme.revision().await + 1;
    let request = VerifyBatchRequest {
        at_least_revision: vec![StreamRevision { stream, revision }],
        ..batch(vec![about(&key, &[]), about(&key, &["dns:read"])])
    };
    let asked = {
        let (operator, request) = (acme.operator.clone(), request.clone());
        tokio::spawn(async move { decisions(&operator, request).await })
    };
    tokio::task::yield_now().await;
    acme.admin.revoke("", &id).await.unwrap();
    for answer in asked.await.unwrap() {
        assert_eq!(answer.code(), DecisionCode::Revoked);
        assert!(answer.revisions[0].revision >= revision);
    }
    // What was waited for is the end of the asker's own key: nothing is answered.
    let (asker_id, asker) = acme.key("asker", &["credentials:verify"]).await;
    let mut request = request;
    request.at_least_revision[0].revision = acme.revision().await + 1;
    let asked = {
        let asker = acme.operator.with_key(&asker);
        tokio::spawn(async move { asker.verify_batch(request).await })
    };
    tokio::task::yield_now().await;
    acme.admin.revoke("", &asker_id).await.unwrap();
    refused(asked.await.unwrap(), Code::Unauthenticated, "revoked");
}

/// A thousand of the longest answers there are would be more than clients take: those
/// that find no room say so, and the others stand.
#[tokio::test]
async fn answers_that_find_no_room_say_so() {
    let acme = Acme::new().await;
    let metadata = |n| (format!("{n:02}{}", "m".repeat(62)), "\u{1f511}".repeat(256));
    let long = CreateKeyRequest {
        metadata: (0..32).map(metadata).collect(),
        ..scoped("", "long", &["dns:read"])
    };
    let long = acme.admin.create_key(long).await.unwrap().secret;
    let (_, short) = acme.key("short", &["dns:read"]).await;
    let mut questions = vec![about(&long, &["dns:read"]); 999];
    questions.push(about(&short, &["dns:read"]));
    // The client takes no more than 4 MiB.
    let answers = acme.operator.verify_batch(batch(questions)).await.unwrap().answers;
    assert_eq!(answers.len(), 1_000);
    let mut decided = 0;
    for (place, answer) in answers.into_iter().enumerate() {
        match answer.answer.unwrap() {
            Answer::Decision(it) => {
                assert!(it.allowed && it.metadata.len() == if place < 999 { 32 } else { 0 });
                decided += 1;
            }
            Answer::Undecided(it) => {
                assert_eq!(it.status, Code::ResourceExhausted as i32);
                assert_eq!(it.reason, "ANSWER_TOO_LARGE");
            }
        }
    }
    assert!((50..999).contains(&decided), "{decided}");
    // What found no room cost nothing: there are as many tokens as there were answers.
    let limited = CreateKeyRequest {
        metadata: (0..32).map(metadata).collect(),
        // So slow that no token comes back while the test runs.
        rate_limit: Some(RateLimit { requests: decided + 3, per_seconds: 86_400 }),
        ..scoped("", "limited", &["dns:read"])
    };
    let limited = acme.admin.create_key(limited).await.unwrap().secret;
    let questions = vec![about(&limited, &["dns:read"]); 1_000];
    let answers = acme.operator.verify_batch(batch(questions)).await.unwrap().answers;
    let given = |it: &VerifyBatchAnswer| matches!(it.answer, Some(Answer::Decision(_)));
    let mut left = i64::from(decided) + 3 - answers.iter().filter(|it| given(it)).count() as i64;
    assert!((1..10).contains(&left), "{left}");
    while acme.operator.ask(&limited, &["dns:read"]).await.allowed {
        left -= 1;
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn whoever_may_not_ask_gets_no_answer() {
    let acme = Acme::new().await;
    let (_, lacking) = acme.key("lacking", &["dns:read"]).await;
    // Though every question is wrong: who asks comes first.
    let request = batch(vec![about("x", &["wrong"])]);
    let asked = acme.operator.with_key(&lacking).verify_batch(request).await;
    let status = refused(asked, Code::PermissionDenied, "credentials:verify");
    assert_eq!(reason(&status), "PERMISSION_DENIED");
}

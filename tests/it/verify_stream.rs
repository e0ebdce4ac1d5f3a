//! Questions on open streams: each is decided by what is true then, in order, and the
//! stream ends when its caller's authority does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keyledger::proto::verify_stream_response::Answer;
use keyledger::proto::{DecisionCode, StreamRevision, VerifyRequest, VerifyStreamRequest};
use tonic::Code;

use super::support::{Acme, Home, about, call_without_body, reason, refused, scoped};

#[tokio::test]
async fn answers_come_in_the_order_of_the_questions() {
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let other = acme.operator.create_key(scoped(&other, "theirs", &["org:admin"])).await.unwrap();
    let mut stream = acme.admin.verify_stream().await.unwrap();
    let asker = stream.ask.clone();
    let questions = [
        about(&key, &["dns:read"]),
        about(&key, &["dns:write"]),
        about(&key, &["wrong"]),
        about(&other.secret, &[]),
        about("", &[]),
    ];
    let sent = questions.clone();
    tokio::spawn(async move {
        // Identifiers are the caller's own business: they may repeat, and be nothing.
        for number in 0..5_000_u64 {
            let question = Some(sent[usize::try_from(number).unwrap() % sent.len()].clone());
            let message = VerifyStreamRequest { id: number / 2, question };
            asker.send(message).await.unwrap();
        }
    });
    for number in 0..5_000_u64 {
        let answer = stream.answer().await.unwrap();
        assert_eq!(answer.id, number / 2);
        let code = match answer.answer.unwrap() {
            Answer::Decision(it) => {
                assert_eq!(it.allowed, it.code() == DecisionCode::Allowed);
                it.code()
            }
            Answer::Undecided(it) => {
                assert_eq!(it.status, Code::InvalidArgument as i32);
                assert!(it.message.starts_with("`question.permissions[0]`"), "{it:?}");
                DecisionCode::Unspecified
            }
        };
        let expected = [
            DecisionCode::Allowed,
            DecisionCode::PermissionDenied,
            DecisionCode::Unspecified,
            DecisionCode::Unknown,
            DecisionCode::NoCredential,
        ];
        assert_eq!(code, expected[usize::try_from(number).unwrap() % questions.len()]);
    }
    // Each is the answer it would be alone.
    for mut question in questions.into_iter().filter(|it| it.permissions != ["wrong"]) {
        question.correlation_id = "mine".into();
        let alone = acme.admin.verify(question.clone()).await.unwrap();
        assert_eq!(stream.decide(1, question).await.unwrap(), alone);
    }
    // It ends well when its caller has no more to ask.
    let super::support::VerifyStream { ask, mut answers } = stream;
    drop(ask);
    assert_eq!(answers.message().await.unwrap(), None);
}

/// Once RevokeKey has returned, no stream allows that key, wherever it was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_see_a_revocation_once_it_has_returned() {
    const STREAMS: usize = 24;
    const ROUNDS: usize = 6;
    let acme = Acme::new().await;
    for round in 0..ROUNDS {
        let (id, key) = acme.key(&format!("key {round}"), &["dns:read"]).await;
        let revoked = Arc::new(AtomicBool::new(false));
        let (warm, mut warmed) = tokio::sync::mpsc::channel(STREAMS);
        let mut streams = Vec::new();
        for number in 0..STREAMS {
            let asker = if number % 2 == 0 { &acme.operator } else { &acme.admin };
            let mut stream = asker.verify_stream().await.unwrap();
            let (key, revoked, warm) = (key.clone(), Arc::clone(&revoked), warm.clone());
            streams.push(tokio::spawn(async move {
                let mut allowed = 0_u64;
                for asked in 1.. {
                    // What is asked before it returned may be answered either way.
                    let returned = revoked.load(Ordering::SeqCst);
                    let answer = stream.decide(asked, about(&key, &["dns:read"])).await.unwrap();
                    if answer.allowed {
                        assert!(!returned, "allowed after the revocation had returned");
                        allowed += 1;
                    } else {
                        assert_eq!(answer.code(), DecisionCode::Revoked);
                    }
                    if asked == 10 {
                        warm.send(()).await.unwrap();
                    }
                    if returned {
                        return allowed;
                    }
                }
                0
            }));
        }
        for _ in 0..STREAMS {
            let warm = tokio::time::timeout(super::support::DEADLINE, warmed.recv());
            warm.await.expect("each stream is answered").unwrap();
        }
        acme.admin.revoke("", &id).await.unwrap();
        revoked.store(true, Ordering::SeqCst);
        for stream in streams {
            assert!(stream.await.unwrap() > 0, "each stream had seen it allowed");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_callers_authority() {
    let acme = Acme::new().await;
    let (_, subject) = acme.key("subject", &["dns:read"]).await;
    for idle in [false, true] {
        let (id, asker) = acme.key(&format!("asker {idle}"), &["credentials:verify"]).await;
        let mut stream = acme.operator.with_key(&asker).verify_stream().await.unwrap();
        assert!(stream.decide(1, about(&subject, &["dns:read"])).await.unwrap().allowed);
        acme.admin.revoke("", &id).await.unwrap();
        // With the next question, or without one.
        if !idle {
            stream.send(2, about(&subject, &["dns:read"])).await;
        }
        let status = refused(stream.answer().await, Code::Unauthenticated, "revoked");
        assert_eq!(reason(&status), "REVOKED");
        assert_eq!(stream.answers.message().await.unwrap(), None);
    }
    // What a question waited for may be that end itself.
    for round in 0..4 {
        let (id, asker) = acme.key(&format!("waits {round}"), &["credentials:verify"]).await;
        let mut stream = acme.operator.with_key(&asker).verify_stream().await.unwrap();
        assert!(stream.decide(1, about(&subject, &["dns:read"])).await.unwrap().allowed);
        let end = StreamRevision {
            stream: format!("org-{}", acme.id),
            revision: acme.revision().await + 1,
        };
        let question =
            VerifyRequest { at_least_revision: vec![end], ..about(&subject, &["dns:read"]) };
        stream.send(2, question).await;
        acme.admin.revoke("", &id).await.unwrap();
        refused(stream.answer().await, Code::Unauthenticated, "revoked");
    }
    // A lifetime that is over ends it, too.
    let mut request = scoped("", "short", &["credentials:verify"]);
    request.expiry =
        Some(keyledger::proto::create_key_request::Expiry::Lifetime(prost_types::Duration {
            seconds: 1,
            nanos: 500_000_000,
        }));
    let short = acme.admin.create_key(request).await.unwrap().secret;
    let mut stream = acme.operator.with_key(&short).verify_stream().await.unwrap();
    refused(stream.answer().await, Code::Unauthenticated, "expired");
    // Who never had it gets no stream.
    let asked = acme.operator.with_key(&subject).verify_stream().await;
    refused(asked.map(drop), Code::PermissionDenied, "credentials:verify");
}

#[tokio::test]
async fn a_question_waits_for_its_revision_and_keeps_no_other_stream_waiting() {
    let acme = Acme::new().await;
    let (id, key) = acme.key("key", &["dns:read"]).await;
    let at_least = |revision| VerifyRequest {
        at_least_revision: vec![StreamRevision { stream: format!("org-{}", acme.id), revision }],
        ..about(&key, &["dns:read"])
    };
    let revision = acme.revision().await + 1;
    let mut stream = acme.operator.verify_stream().await.unwrap();
    assert!(stream.decide(1, at_least(revision - 1)).await.unwrap().allowed);
    stream.send(2, at_least(revision)).await;
    stream.send(3, about(&key, &["dns:read"])).await;
    let mut other = acme.operator.verify_stream().await.unwrap();
    assert!(other.decide(1, about(&key, &["dns:read"])).await.unwrap().allowed);
    acme.admin.revoke("", &id).await.unwrap();
    for id in [2, 3] {
        let answer = stream.answer().await.unwrap();
        assert_eq!(answer.id, id);
        let Some(Answer::Decision(decision)) = answer.answer else { panic!("{answer:?}") };
        assert_eq!(decision.code(), DecisionCode::Revoked);
    }
    // One that never comes is told, and the stream goes on.
    stream.send(4, at_least(revision + 1_000)).await;
    stream.send(5, about(&key, &["dns:read"])).await;
    let answer = stream.answer().await.unwrap();
    let Some(Answer::Undecided(undecided)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!((answer.id, undecided.status), (4, Code::Unavailable as i32));
    assert_eq!(undecided.reason, "REVISION_NOT_REACHED");
    assert_eq!(stream.answer().await.unwrap().id, 5);
}

/// What waits to be read fills the stream's own window, and no more: the connection and all
/// other calls on it go on.
#[tokio::test]
async fn a_stream_whose_answers_are_not_taken_harms_no_other_call() {
    const QUESTIONS: u64 = 60_000;
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    let mut stream = acme.operator.verify_stream().await.unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let (asker, question, counted) = (stream.ask.clone(), about(&key, &[]), Arc::clone(&sent));
    let sending = tokio::spawn(async move {
        for id in 0..QUESTIONS {
            let question = Some(question.clone());
            asker.send(VerifyStreamRequest { id, question }).await.unwrap();
            counted.store(id + 1, Ordering::Relaxed);
        }
    });
    // Until no question has found room for as long as so many others take.
    let (mut before, mut others) = (0, 0);
    while others < 300 {
        assert!(acme.operator.ask(&key, &["dns:read"]).await.allowed);
        let now = sent.load(Ordering::Relaxed);
        others = if now == before { others + 1 } else { 0 };
        before = now;
    }
    assert!(before < QUESTIONS, "nothing is read while answers are not taken");
    for id in 0..QUESTIONS {
        assert_eq!(stream.answer().await.unwrap().id, id);
    }
    sending.await.unwrap();
}

/// A request has its time, a stream has all it wants.
#[tokio::test]
async fn the_time_of_a_request_is_not_the_time_of_a_stream() {
    let acme = Acme::on(Home::new(), |it| it.args(&["--request-timeout-ms", "300"])).await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    let mut stream = acme.operator.verify_stream().await.unwrap();
    // A request that begins behind it is given up, twice, and the stream is still there.
    for id in 0..2 {
        let method = "keyledger.v1.OrganizationService/ListOrganizations";
        let request = acme.operator.request(());
        let given_up = call_without_body(acme.server.channel(), method, request).await;
        assert!(given_up.is_err());
        assert!(stream.decide(id, about(&key, &["dns:read"])).await.unwrap().allowed);
    }
}

/// A stream is one request under way for as long as it is open; only half of all places
/// are for streams.
#[tokio::test]
async fn a_stream_has_one_place_and_leaves_it() {
    let acme = Acme::on(Home::new(), |it| it.args(&["--requests-max", "4"])).await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    for _ in 0..20 {
        let mut streams = Vec::new();
        // A place is free a moment after its stream was given up.
        let until = std::time::Instant::now() + super::support::DEADLINE;
        while streams.len() < 2 {
            match acme.operator.verify_stream().await {
                Ok(stream) => streams.push(stream),
                Err(status) => {
                    assert_eq!(reason(&status), "TOO_MANY_REQUESTS");
                    assert!(std::time::Instant::now() < until, "places are never free again");
                }
            }
        }
        let third = acme.operator.verify_stream().await.map(drop);
        let status = refused(third, Code::ResourceExhausted, "too many requests");
        assert_eq!(reason(&status), "TOO_MANY_REQUESTS");
        // Whoever asks once is let in beside them.
        assert!(acme.operator.ask(&key, &["dns:read"]).await.allowed);
        for stream in &mut streams {
            assert!(stream.decide(1, about(&key, &["dns:read"])).await.unwrap().allowed);
        }
    }
}

/// However many streams one organization asks for, another finds room for its own.
#[tokio::test]
async fn no_organization_takes_the_streams_of_others() {
    let acme = Acme::on(Home::new(), |it| it.args(&["--requests-max", "64"])).await;
    let theirs = acme.operator.organization("globex", "glx", "").await;
    let verifier = scoped(&theirs, "verifier", &["credentials:verify"]);
    let verifier = acme.operator.create_key(verifier).await.unwrap().secret;
    let mut streams = Vec::new();
    let refusal = loop {
        match acme.admin.verify_stream().await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(streams.len(), 8, "a quarter of the half of 64");
    assert_eq!(
        (refusal.code(), reason(&refusal).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_REQUESTS")
    );
    let says = "the organization has 8 streams open, as many as one may; end some, or let the operator raise `requests_max`";
    assert_eq!(refusal.message(), says);
    let mut other = acme.operator.with_key(&verifier).verify_stream().await.unwrap();
    assert!(other.decide(1, about(&verifier, &[])).await.unwrap().allowed);
    // The operator's gateways ask for everybody.
    for number in streams.len() + 1..32 {
        let mut stream = acme.operator.verify_stream().await.unwrap();
        let number = number.try_into().unwrap();
        assert!(stream.decide(number, about(&verifier, &[])).await.unwrap().allowed);
        streams.push(stream);
    }
    let refusal = refused(
        acme.operator.verify_stream().await.map(drop),
        Code::ResourceExhausted,
        "too many requests",
    );
    assert_eq!(reason(&refusal), "TOO_MANY_REQUESTS");
}

#[tokio::test]
async fn a_server_that_ends_ends_its_streams() {
    let acme = Acme::new().await;
    let (_, key) = acme.key("key", &["dns:read"]).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = acme.operator.verify_stream().await.unwrap();
        assert!(stream.decide(1, about(&key, &["dns:read"])).await.unwrap().allowed);
        streams.push(stream);
    }
    let Acme { server, home, .. } = acme;
    let stopping = tokio::spawn(server.stop());
    for stream in &mut streams {
        let status = refused(stream.answer().await, Code::Unavailable, "shutting down");
        assert_eq!(reason(&status), "CLOSING");
    }
    let said = stopping.await.unwrap();
    assert!(!said.contains("cut off"), "{said}");
    drop(home);
}

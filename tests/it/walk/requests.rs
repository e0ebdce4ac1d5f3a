//! Requests that wait, that are many or that are large.

use std::time::Duration;

use keyledger::proto::{
    CreateKeyRequest, DecisionCode, ListKeysRequest, RevokeKeyRequest, Scopes, StreamRevision,
    VerifyRequest,
};
use tonic::Code;

use crate::support::{Acme, Home, reason, refused, scoped};

#[tokio::test]
async fn writes_can_name_the_revision_they_were_decided_on() {
    let acme = Acme::new().await;
    let at = acme.revision().await;
    let expecting = |name: &str, revision| CreateKeyRequest {
        expected_revision: Some(revision),
        ..scoped("", name, &["a:b"])
    };
    for wrong in [at + 1, at - 1, 0, u64::MAX] {
        let status = refused(
            acme.admin.create_key(expecting("x", wrong)).await,
            Code::Aborted,
            &format!("ends at revision {at}"),
        );
        assert_eq!(reason(&status), "WRONG_EXPECTED_REVISION");
    }
    let created = acme.admin.create_key(expecting("x", at)).await.unwrap();
    assert_eq!(created.revision.unwrap().revision, at + 1);
    let revoke = |revision| RevokeKeyRequest {
        key_id: created.key.as_ref().unwrap().id.clone(),
        expected_revision: Some(revision),
        ..Default::default()
    };
    refused(acme.admin.revoke_key(revoke(at)).await, Code::Aborted, "`expected_revision`");
    let revoked = acme.admin.revoke_key(revoke(at + 1)).await.unwrap();
    assert_eq!(revoked.revision.unwrap().revision, at + 2);
    // Of twenty writers who saw the same revision, one may write.
    let racers: Vec<_> = (0..20)
        .map(|n| {
            let (admin, request) = (acme.admin.clone(), expecting(&format!("racer {n}"), at + 2));
            tokio::spawn(async move { admin.create_key(request).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += usize::from(racer.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_question_can_demand_a_revision() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    let stream = format!("org-{}", acme.id);
    let question = |stream: &str, revision| VerifyRequest {
        credential: secret.clone(),
        at_least_revision: vec![StreamRevision { stream: stream.into(), revision }],
        ..Default::default()
    };
    let at = acme.revision().await;
    let status: Vec<_> = acme.operator.ask(&secret, &[]).await.revisions;
    assert_eq!(acme.operator.code(question(&stream, at)).await, DecisionCode::Allowed);
    assert_eq!(
        acme.operator.code(question("org-operator", status[1].revision)).await,
        DecisionCode::Allowed
    );

    // One that is on its way is waited for.
    let asked = {
        let (operator, question) = (acme.operator.clone(), question(&stream, at + 1));
        tokio::spawn(async move { operator.verify(question).await })
    };
    tokio::task::yield_now().await;
    acme.admin.revoke("", &id).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap().code(), DecisionCode::Revoked);

    // One that never comes is UNAVAILABLE, at the call's deadline or after 5 s.
    let began = std::time::Instant::now();
    let asked = acme.operator.verify(question(&stream, at + 1_000)).await;
    let status = refused(asked, Code::Unavailable, "has not reached that revision");
    assert_eq!(reason(&status), "REVISION_NOT_REACHED");
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..crate::support::DEADLINE).contains(&took), "{took:?}");

    // Another organization's stream is not for asking, whether it exists or not.
    let other = acme.operator.organization("globex", "glx", "").await;
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let messages: Vec<String> = {
        let mut messages = Vec::new();
        for id in [other.as_str(), "org_00000000000000000000000009"] {
            let asked = verifier.verify(question(&format!("org-{id}"), 0)).await;
            let status = refused(asked, Code::InvalidArgument, "`at_least_revision[0].stream`");
            messages.push(status.message().to_owned());
        }
        messages
    };
    assert_eq!(messages[0], messages[1]);
    assert_eq!(verifier.code(question("org-operator", 0)).await, DecisionCode::Revoked);
    for wrong in ["", "org-", "usage-x", &acme.id] {
        let asked = verifier.verify(question(wrong, 0)).await;
        refused(asked, Code::InvalidArgument, "`at_least_revision[0].stream`");
    }
}

/// A page of the longest keys there are is one that any client takes: most refuse more
/// than 4 MiB.
#[tokio::test]
async fn a_page_of_long_keys_is_a_short_page() {
    const KEYS: usize = 110;
    let acme = Acme::new().await;
    let many = |what: &str| (0..100).map(|n| format!("{}:{what}{n:02}", "r".repeat(59))).collect();
    let metadata = |n| (format!("{n:02}{}", "m".repeat(62)), "\u{1f511}".repeat(256));
    for number in 0..KEYS {
        let request = CreateKeyRequest {
            description: "\u{1f511}".repeat(500),
            metadata: (0..32).map(metadata).collect(),
            scopes: Some(Scopes { permissions: many("a") }),
            ..scoped("", &number.to_string(), &[])
        };
        acme.admin.create_key(request).await.unwrap();
    }
    let mut names = Vec::new();
    let mut request = ListKeysRequest { page_size: 1_000, ..Default::default() };
    loop {
        let page = acme.admin.list_keys(request.clone()).await.unwrap();
        assert!(!page.keys.is_empty());
        names.extend(page.keys.into_iter().map(|key| key.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), KEYS + 1);
}

#[tokio::test]
async fn no_more_are_let_in_than_may_be_inside() {
    let acme = Acme::on(Home::new(), |launch| launch.args(&["--requests-max", "1"])).await;
    let ask = |revision| VerifyRequest {
        credential: acme.admin_secret.clone(),
        at_least_revision: vec![StreamRevision { stream: "org-operator".into(), revision }],
        ..Default::default()
    };
    let (operator, question) = (acme.operator.clone(), ask(u64::MAX));
    // Either may come first, and then the other is refused.
    let inside = tokio::spawn(async move {
        loop {
            match operator.verify(question.clone()).await {
                Err(status) if reason(&status) == "TOO_MANY_REQUESTS" => {}
                answer => return answer,
            }
        }
    });
    let refusal = loop {
        match acme.operator.verify(ask(0)).await {
            Ok(_) => assert!(!inside.is_finished(), "two were inside"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refusal), "TOO_MANY_REQUESTS");
    assert_eq!(reason(&inside.await.unwrap().unwrap_err()), "REVISION_NOT_REACHED");
    assert_eq!(acme.operator.code(ask(0)).await, DecisionCode::Allowed);
}

/// Questions that wait for what never comes do not keep others out, of whatever
/// organization.
#[tokio::test]
async fn those_who_wait_leave_room() {
    let acme = Acme::on(Home::new(), |launch| launch.args(&["--requests-max", "32"])).await;
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let mut asked = Vec::new();
    for _ in 0..8 {
        let stream = "org-operator".to_owned();
        let question = VerifyRequest {
            credential: acme.admin_secret.clone(),
            at_least_revision: vec![StreamRevision { stream, revision: u64::MAX }],
            ..Default::default()
        };
        let verifier = verifier.clone();
        asked.push(tokio::spawn(async move { verifier.verify(question).await.unwrap_err() }));
    }
    for _ in 0..20 {
        assert!(acme.operator.ask(&acme.admin_secret, &[]).await.allowed);
    }
    // Another organization waits beside them, and gets what it waits for.
    let theirs = acme.operator.organization("globex", "glx", "").await;
    let verifier = scoped(&theirs, "verifier", &["credentials:verify"]);
    let verifier = acme.operator.create_key(verifier).await.unwrap();
    let (stream, revision) = (format!("org-{theirs}"), acme.operator.revision(&theirs).await + 1);
    let question = VerifyRequest {
        credential: verifier.secret.clone(),
        at_least_revision: vec![StreamRevision { stream, revision }],
        ..Default::default()
    };
    let waiting = acme.operator.with_key(&verifier.secret);
    let waiting = tokio::spawn(async move { waiting.verify(question).await });
    acme.operator.create_key(scoped(&theirs, "another", &["a:b"])).await.unwrap();
    assert!(waiting.await.unwrap().unwrap().allowed);
    // Nor those who ask for a revision that is there.
    let there = VerifyRequest {
        credential: acme.admin_secret.clone(),
        at_least_revision: vec![StreamRevision { stream: "org-operator".into(), revision: 0 }],
        ..Default::default()
    };
    assert_eq!(acme.operator.code(there).await, DecisionCode::Allowed);
    let mut reasons = Vec::new();
    for asked in asked {
        let status = asked.await.unwrap();
        if status.code() == Code::ResourceExhausted {
            assert!(status.message().contains("has 2 requests waiting for a revision"));
        }
        reasons.push(reason(&status));
    }
    reasons.sort();
    assert_eq!(reasons[..2], ["REVISION_NOT_REACHED"; 2]);
    assert_eq!(reasons[2..], ["TOO_MANY_REQUESTS"; 6]);
}

#[tokio::test]
async fn whoever_is_revoked_while_waiting_is_told_nothing() {
    let acme = Acme::new().await;
    let (id, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    let asked = {
        let (stream, revision) = (format!("org-{}", acme.id), acme.revision().await + 1);
        let question = VerifyRequest {
            credential: acme.admin_secret.clone(),
            at_least_revision: vec![StreamRevision { stream, revision }],
            ..Default::default()
        };
        tokio::spawn(async move { verifier.verify(question).await })
    };
    // What is asked behind it on the same connection is answered: it has been let in.
    for _ in 0..20 {
        acme.operator.ask(&acme.admin_secret, &[]).await;
    }
    acme.admin.revoke("", &id).await.unwrap();
    let status = refused(asked.await.unwrap(), Code::Unauthenticated, "revoked");
    assert_eq!(reason(&status), "REVOKED");
}

//! What was denied is evidence: bounded, and counted to the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keyledger::proto::{
    ActivityFilter, ActivityOutcome, DecisionCode, GetOrganizationRequest, ListKeysRequest,
    QueryActivityRequest, VerifyRequest,
};
use serde_json::Value;
use tonic::Code;

use super::support::{Acme, DEADLINE, Home, POLL, refused, scoped, texts};

/// The summaries in the stream of an organization.
fn summaries(home: &Home, organization_id: &str) -> Vec<Value> {
    let stream = format!("org-{organization_id}");
    let events = home.events();
    let events = events.iter().filter(|it| it.stream == stream).map(|it| it.json());
    events.filter(|it| it["type"] == "DenialsSummarized").collect()
}

fn total(summaries: &[Value]) -> u64 {
    let of = |it: &Value| {
        let denials = it["data"]["denials"].as_array().unwrap();
        let counts = denials.iter().map(|it| it["count"].as_u64().unwrap());
        counts.sum::<u64>() + it["data"]["others"].as_u64().unwrap()
    };
    summaries.iter().map(of).sum()
}

fn count(summaries: &[Value], of: impl Fn(&Value) -> bool) -> u64 {
    let groups = summaries.iter().flat_map(|it| it["data"]["denials"].as_array().unwrap());
    groups.filter(|it| of(&it["denial"])).map(|it| it["count"].as_u64().unwrap()).sum()
}

async fn first(home: &Home, organization_id: &str) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(first) = summaries(home, organization_id).pop() {
            return first;
        }
        assert!(Instant::now() < until, "nothing is recorded");
        tokio::time::sleep(POLL * 5).await;
    }
}

#[tokio::test]
async fn denials_stand_in_the_stream_of_whose_credential_it_was() {
    let acme = Acme::new().await;
    let (gateway_id, gateway) = acme.key("gateway", &["credentials:verify"]).await;
    let (id, secret) = acme.key("ci", &["dns:read"]).await;
    let gateway = acme.server.client(&gateway);
    let ask = |credential: &str| VerifyRequest {
        credential: credential.into(),
        permissions: texts(&["dns:write"]),
        service: "cdn".into(),
        ..Default::default()
    };
    for _ in 0..3 {
        assert_eq!(gateway.code(ask(&secret)).await, DecisionCode::PermissionDenied);
    }
    // The first is on disk long before the minute is over.
    first(&acme.home, &acme.id).await;
    // At the server's own door: nothing, nonsense, nobody's, not for this, not for them.
    let keys = ListKeysRequest::default();
    refused(acme.server.anonymous().list_keys(keys.clone()).await, Code::Unauthenticated, "");
    let nonsense = acme.server.client("nonsense");
    refused(nonsense.list_keys(keys.clone()).await, Code::Unauthenticated, "");
    refused(acme.server.client(&secret).list_keys(keys).await, Code::PermissionDenied, "");
    let other = acme.operator.organization("other", "oth", "paid").await;
    let elsewhere = GetOrganizationRequest { organization_id: other.clone() };
    refused(acme.admin.get_organization(elsewhere).await, Code::PermissionDenied, "");
    let held = scoped("", "more", &["org:admin"]);
    let writer = acme.key("writer", &["api-keys:write"]).await;
    let writer_client = acme.server.client(&writer.1);
    refused(writer_client.create_key(held).await, Code::PermissionDenied, "");
    // Another organization's key is nobody's to whoever may not know it.
    let stranger = acme.operator.create_key(scoped(&other, "s", &["org:admin"])).await.unwrap();
    assert_eq!(gateway.code(ask(&stranger.secret)).await, DecisionCode::Unknown);
    // What is allowed is no denial.
    assert!(acme.operator.ask(&secret, &["dns:read"]).await.allowed);
    acme.server.stop().await;

    let own = summaries(&acme.home, &acme.id);
    assert_eq!(own.len(), 2, "the first, and the rest at the end: {own:?}");
    assert_eq!(total(&own), 6, "{own:?}");
    let asked = count(&own, |it| {
        it["code"] == "permission_denied"
            && it["credential"] == id
            && it["asked_with"] == gateway_id
            && it["service"] == "cdn"
    });
    assert_eq!(asked, 3, "{own:?}");
    let at_the_door = |code: &str, key: &str| {
        count(&own, |it| {
            let door = it["service"] == "keyledger" && it["asked_with"].is_null();
            door && it["code"] == code && it["credential"] == key
        })
    };
    assert_eq!(at_the_door("permission_denied", &id), 1);
    assert_eq!(at_the_door("permission_denied", &writer.0), 1);
    let admin_id = own.iter().flat_map(|it| it["data"]["denials"].as_array().unwrap());
    assert_eq!(
        admin_id.filter(|it| it["denial"]["code"] == "tenant_mismatch").count(),
        1,
        "whoever asks for another organization is on record in their own"
    );
    let operators = summaries(&acme.home, "operator");
    for code in ["no_credential", "malformed", "unknown"] {
        assert_eq!(count(&operators, |it| it["code"] == code), 1, "{code}: {operators:?}");
    }
    assert_eq!(total(&operators), 3);
    assert!(summaries(&acme.home, &other).is_empty(), "nothing crosses organizations");
    // Nobody's secret, and nothing of a stranger's text.
    let all = format!("{own:?}{operators:?}");
    assert!(!all.contains(&secret) && !all.contains("nonsense") && !all.contains("127.0.0.1"));

    // The activity log tells of it.
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    let of = |filter| QueryActivityRequest { filter: Some(filter), ..Default::default() };
    let query = of(ActivityFilter { action: "denials.*".into(), ..Default::default() });
    let entries = admin.query_activity(query).await.unwrap().entries;
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|it| it.outcome() == ActivityOutcome::Denied), "{entries:?}");
    let sentences: Vec<_> = entries.iter().map(|it| it.sentence.as_str()).collect();
    assert!(sentences[1].contains("was denied"), "{sentences:?}");
    assert!(sentences[1].ends_with("by the ledger: permission_denied"), "{sentences:?}");
    let query = of(ActivityFilter { target_id: id, ..Default::default() });
    let actions: Vec<_> = admin
        .query_activity(query)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|it| it.action)
        .collect();
    let denials = actions.iter().filter(|it| *it == "denials.summarized").count();
    assert_eq!(denials, 2, "found by the key that was denied: {actions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_fills_neither_disk_nor_memory_and_stops_nobody() {
    let acme = Acme::new().await;
    let (_, secret) = acme.key("ci", &["dns:read"]).await;
    let denied = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(5);
    let floods = (0..32_u32).map(|number| {
        let (client, secret) = (acme.operator.clone(), secret.clone());
        let (stranger, denied) = (acme.server.anonymous(), Arc::clone(&denied));
        tokio::spawn(async move {
            let mut round = 0_u32;
            while Instant::now() < until {
                round += 1;
                let request = VerifyRequest {
                    credential: secret.clone(),
                    permissions: texts(&["dns:write"]),
                    service: format!("service-{number}-{round}"),
                    ..Default::default()
                };
                assert!(!client.verify(request).await.unwrap().allowed);
                let nobody = stranger.verify(VerifyRequest::default()).await;
                assert_eq!(nobody.unwrap_err().code(), Code::Unauthenticated);
                denied.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let floods: Vec<_> = floods.collect();
    // Meanwhile others write, at the revision that they saw.
    for number in 0..20 {
        let mut tries = 0;
        loop {
            let mut request = scoped(&acme.id, &format!("key {number}"), &["dns:read"]);
            request.expected_revision = Some(acme.revision().await);
            match acme.operator.create_key(request).await {
                Ok(_) => break,
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
            tries += 1;
            assert!(tries < 3, "a summary comes once a minute");
        }
    }
    for flood in floods {
        flood.await.unwrap();
    }
    acme.server.stop().await;
    let denied = denied.load(Ordering::Relaxed);
    for (id, summaries) in [
        (&acme.id, summaries(&acme.home, &acme.id)),
        (&"operator".to_owned(), summaries(&acme.home, "operator")),
    ] {
        assert_eq!(total(&summaries), denied, "{id}: all are counted");
        assert!(summaries.len() <= 3, "{id}: at once, once a minute, and at the end");
    }
}

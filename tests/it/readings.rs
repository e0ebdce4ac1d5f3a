//! Who reads the history is in the history: before they are answered, once for each question
//! and minute.

use std::time::{Duration, Instant};

use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::proto::{
    self, ActivityEntry, ActivityFilter, ExportActivityRequest, ExportFormat, PastTable,
    QueryActivityRequest, TailActivityRequest,
};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::Code;

use super::history::instant;
use super::support::{Acme, Client, DEADLINE, Home, POLL, refused, with_roles};

/// The auditor's role.
const AUDITOR: &str = "rol_0000000000000000000000000A";

/// What is stored of those who read one organization's history.
fn readings(home: &Home, organization_id: &str) -> Vec<Value> {
    let stream = format!("org-{organization_id}");
    let own = home.events().into_iter().filter(|it| it.stream == stream);
    own.map(|it| it.json()).filter(|it| it["type"] == "HistoryRead").collect()
}

fn filtered(filter: ActivityFilter) -> QueryActivityRequest {
    QueryActivityRequest { filter: Some(filter), ..Default::default() }
}

/// A key that may read the history and nothing else, and its identifier.
async fn auditor(acme: &Acme) -> (Client, String) {
    let created = acme.admin.create_key(with_roles("", "auditor", &[AUDITOR])).await.unwrap();
    (acme.operator.with_key(&created.secret), created.key.unwrap().id)
}

/// How the first part of a stream of answers comes.
async fn followed(acme: &Acme, client: &Client, filter: ActivityFilter) {
    let request = TailActivityRequest { filter: Some(filter), ..Default::default() };
    let mut service = AuditServiceClient::new(acme.server.channel());
    let tail = service.tail_activity(client.request(request)).await.unwrap();
    drop(tail);
}

async fn exported(acme: &Acme, client: &Client, format: ExportFormat) {
    let request = ExportActivityRequest { format: format.into(), ..Default::default() };
    let mut service = AuditServiceClient::new(acme.server.channel());
    drop(service.export_activity(client.request(request)).await.unwrap());
}

#[tokio::test]
async fn whoever_reads_is_recorded_before_they_are_answered() {
    let acme = Acme::new().await;
    let (auditor, auditors_key) = auditor(&acme).await;
    let (key, _) = acme.key("looked into", &["dns:read"]).await;
    let head = acme.revision().await;
    let ago = Timestamp { seconds: 1, nanos: 5_000_000 };
    let mut told = 0;
    // What is on disk of it when the answer is here.
    let mut recorded = |way: &str, asked: Value| {
        let all = readings(&acme.home, &acme.id);
        told += 1;
        assert_eq!(all.len(), told, "{way} {asked}");
        let last = all.last().unwrap();
        let mut data = json!({ "way": way });
        if asked != json!({}) {
            data["asked"] = asked;
        }
        assert_eq!(last["data"], data);
        assert_eq!((&last["actor"], &last["credential"]), (&json!(acme.id), &json!(auditors_key)));
    };

    auditor.query_activity(QueryActivityRequest::default()).await.unwrap();
    recorded("queried", json!({}));
    let filter = ActivityFilter {
        action: "key.*".into(),
        target_id: key.clone(),
        from: Some(ago),
        text: "Secret Project".into(),
        origin_ip: "192.0.2.0/24".into(),
        ..Default::default()
    };
    auditor.query_activity(filtered(filter.clone())).await.unwrap();
    let asked = json!({
        "action": "key.*", "target_id": key, "from": "1970-01-01T00:00:01.005Z"
    });
    recorded("queried", asked.clone());
    followed(&acme, &auditor, filter).await;
    recorded("followed", asked);
    exported(&acme, &auditor, ExportFormat::Csv).await;
    recorded("exported", json!({ "format": "csv" }));
    exported(&acme, &auditor, ExportFormat::OcsfCloudevents).await;
    recorded("exported", json!({ "format": "ocsf_cloudevents" }));

    let state = proto::StateAtRequest {
        table: PastTable::Keys.into(),
        object_id: key.clone(),
        moment: Some(proto::state_at_request::Moment::Revision(head)),
        ..Default::default()
    };
    auditor.state_at(state).await.unwrap();
    recorded(
        "asked_for_the_past",
        json!({ "table": "keys", "object_id": key, "revision": head.to_string() }),
    );
    let explain = |moment| proto::ExplainDecisionRequest {
        credential_id: key.clone(),
        permissions: vec!["dns:read".into(), "dns:write".into()],
        client_ip: "192.0.2.7".into(),
        moment: Some(moment),
        ..Default::default()
    };
    let moment = proto::explain_decision_request::Moment::Revision(head);
    auditor.explain_decision(explain(moment)).await.unwrap();
    let permissions = "dns:read dns:write";
    recorded(
        "asked_to_explain",
        json!({ "credential_id": key, "permissions": permissions, "revision": head.to_string() }),
    );
    // Of a time before all that is recorded.
    let moment = proto::explain_decision_request::Moment::At(ago);
    auditor.explain_decision(explain(moment)).await.unwrap();
    let at = "1970-01-01T00:00:01.005Z";
    recorded(
        "asked_to_explain",
        json!({ "credential_id": key, "permissions": permissions, "at": at }),
    );

    let days = proto::ListUnusedKeysRequest { days: 7, ..Default::default() };
    auditor.list_unused_keys(days).await.unwrap();
    recorded("reported_on", json!({ "report": "unused_keys", "days": "7" }));
    auditor.list_keys_without_expiry(Default::default()).await.unwrap();
    recorded("reported_on", json!({ "report": "keys_without_expiry" }));
    let created = acme.get(&key).await.created_at;
    let from = created.map(|it| Timestamp { seconds: it.seconds - 1, nanos: 0 });
    let since = acme.get(&key).await.created_at;
    let holders = proto::ListPermissionHoldersRequest {
        permission: "dns:read".into(),
        from,
        to: since,
        ..Default::default()
    };
    auditor.list_permission_holders(holders).await.unwrap();
    let between = |it: Option<Timestamp>| {
        let it = it.unwrap();
        let millis = it.seconds * 1_000 + i64::from(it.nanos) / 1_000_000;
        projections::time::Timestamp::from_millis(millis).unwrap().to_string()
    };
    recorded(
        "reported_on",
        json!({
            "report": "permission_holders", "permission": "dns:read",
            "from": between(from), "to": between(since)
        }),
    );
    let role = proto::ListRoleHoldersRequest {
        role_id: AUDITOR.into(),
        from,
        to: since,
        ..Default::default()
    };
    auditor.list_role_holders(role).await.unwrap();
    recorded(
        "reported_on",
        json!({
            "report": "role_holders", "role_id": AUDITOR,
            "from": between(from), "to": between(since)
        }),
    );
    auditor.summarize_break_glass(Default::default()).await.unwrap();
    recorded("reported_on", json!({ "report": "break_glass" }));

    // What was written is sealed, and shown to whoever may see it.
    let stored: Vec<u8> = acme.home.events().into_iter().flat_map(|it| it.stored).collect();
    let stored = String::from_utf8(stored).unwrap();
    for written in ["secret", "project", "192.0.2."] {
        assert!(!stored.contains(written), "{written}");
    }
    let of_readings = || ActivityFilter { action: "history.read".into(), ..Default::default() };
    let page = acme.admin.query_activity(filtered(of_readings())).await.unwrap();
    let with = |start: &str| {
        let starts = |it: &&ActivityEntry| it.sentence.starts_with(start);
        page.entries.iter().rfind(starts).unwrap().personal_data.clone().unwrap()
    };
    assert_eq!(
        with("The history was followed").comment,
        "text: project secret; origin_ip: 192.0.2.0/24"
    );
    assert_eq!(with("The history was asked to explain a decision").comment, "client_ip: 192.0.2.7");
    assert_eq!(page.entries.len(), told);
    acme.server.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_no_reading_and_readings_stay_in_their_organization() {
    let acme = Acme::new().await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let (_, nobody) = acme.key("nobody", &["dns:read"]).await;
    let nobody = acme.operator.with_key(&nobody);
    let query = QueryActivityRequest::default;
    refused(nobody.query_activity(query()).await, Code::PermissionDenied, "activity:read");
    let foreign = QueryActivityRequest { organization_id: other.clone(), ..query() };
    refused(acme.admin.query_activity(foreign.clone()).await, Code::PermissionDenied, "own");
    let wrong = filtered(ActivityFilter { action: "key.mended".into(), ..Default::default() });
    refused(acme.admin.query_activity(wrong).await, Code::InvalidArgument, "`filter.action`");
    let missing = proto::StateAtRequest { table: PastTable::Keys.into(), ..Default::default() };
    refused(acme.admin.state_at(missing).await, Code::InvalidArgument, "`moment`");
    for organization in [&acme.id, &other, "operator"] {
        assert!(readings(&acme.home, organization).is_empty(), "{organization}");
    }
    // The operator reads a tenant's history: it is the tenant's to know.
    acme.operator.query_activity(foreign).await.unwrap();
    let [reading] = &readings(&acme.home, &other)[..] else { panic!("one reading") };
    assert_eq!(reading["actor"], "operator");
    assert!(readings(&acme.home, &acme.id).is_empty());
    assert!(readings(&acme.home, "operator").is_empty());
    acme.server.stop().await;
}

#[tokio::test]
async fn very_many_questions_are_summed_up() {
    const QUESTIONS: usize = 330;
    let acme = Acme::new().await;
    let first = instant().await.seconds / 60;
    for number in 0..QUESTIONS {
        let correlation_id = format!("question-{number}");
        let asked = filtered(ActivityFilter { correlation_id, ..Default::default() });
        for _ in 0..2 {
            acme.admin.query_activity(asked.clone()).await.unwrap();
        }
    }
    let last = instant().await.seconds / 60;
    let minutes = usize::try_from(last - first).unwrap() + 1;
    assert!(minutes <= 3, "the machine stands still");
    let all = readings(&acme.home, &acme.id);
    // What is asked in one way hides nothing that is asked in another.
    exported(&acme, &acme.admin, ExportFormat::JsonLines).await;
    let export = readings(&acme.home, &acme.id).pop().unwrap();
    assert_eq!(export["data"], json!({ "way": "exported", "asked": { "format": "json_lines" } }));
    let (more, single): (Vec<_>, Vec<_>) =
        all.iter().partition(|it| it["data"]["and_more"] == true);
    assert!((1..=minutes).contains(&more.len()), "{} summaries", more.len());
    assert!((100..=100 * minutes).contains(&single.len()), "{} one by one", single.len());
    assert_eq!(more[0]["data"], json!({ "way": "queried", "and_more": true }));
    // Another key is recorded all the same.
    let (auditor, key) = auditor(&acme).await;
    auditor.query_activity(QueryActivityRequest::default()).await.unwrap();
    assert_eq!(readings(&acme.home, &acme.id).last().unwrap()["credential"], key);
    acme.server.stop().await;
}

#[tokio::test]
async fn a_question_is_recorded_once_however_many_ask_it_at_once() {
    let acme = Acme::new().await;
    let ask = || {
        let admin = acme.admin.clone();
        tokio::spawn(async move { admin.query_activity(QueryActivityRequest::default()).await })
    };
    let asked: Vec<_> = (0..50).map(|_| ask()).collect();
    for one in asked {
        one.await.unwrap().unwrap();
    }
    // Twice where a minute ended meanwhile.
    let recorded = readings(&acme.home, &acme.id).len();
    assert!((1..=2).contains(&recorded), "{recorded}");
    // Whoever goes before they are answered asked all the same, and once.
    let filter = ActivityFilter { action: "key.*".into(), ..Default::default() };
    for micros in 0..60 {
        let asked = acme.admin.query_activity(filtered(filter.clone()));
        let _ = tokio::time::timeout(Duration::from_micros(micros * 50), asked).await;
    }
    acme.admin.query_activity(filtered(filter)).await.unwrap();
    let of_keys = readings(&acme.home, &acme.id);
    let of_keys = of_keys.iter().filter(|it| it["data"]["asked"]["action"] == "key.*").count();
    assert!((1..=2).contains(&of_keys), "{of_keys}");
    acme.server.stop().await;
}

/// A store that answers nothing at all is worse than a full one: nobody waits for it for long,
/// and nobody one after the other.
#[tokio::test]
async fn reading_goes_on_while_nothing_can_be_recorded() {
    let acme = Acme::new().await;
    let database = rusqlite::Connection::open(acme.home.database()).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let asked: Vec<_> = (0..6)
        .map(|_| {
            let admin = acme.admin.clone();
            tokio::spawn(async move { admin.query_activity(QueryActivityRequest::default()).await })
        })
        .collect();
    for one in asked {
        one.await.unwrap().unwrap();
    }
    // Together they took about what one takes.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    database.execute_batch("ROLLBACK").unwrap();
    drop(database);
    // What is asked when the store takes events again is recorded again.
    let until = Instant::now() + DEADLINE;
    while readings(&acme.home, &acme.id).is_empty() {
        assert!(Instant::now() < until, "it is not recorded any more");
        acme.admin.query_activity(QueryActivityRequest::default()).await.unwrap();
        tokio::time::sleep(POLL).await;
    }
    acme.server.stop().await;
}

#[tokio::test]
async fn readings_can_be_left_out() {
    let acme = Acme::new().await;
    acme.key("ci", &["dns:read"]).await;
    let end = acme.revision().await;
    acme.admin.query_activity(QueryActivityRequest::default()).await.unwrap();
    let without = ActivityFilter { without_readings: true, ..Default::default() };
    let page = acme.admin.query_activity(filtered(without.clone())).await.unwrap();
    let revisions: Vec<u64> = page.entries.iter().map(|it| it.revision).collect();
    assert_eq!(revisions, (0..=end).rev().collect::<Vec<_>>());
    let last = readings(&acme.home, &acme.id).pop().unwrap();
    assert_eq!(last["data"]["asked"], json!({ "without_readings": "true" }));
    let both = ActivityFilter { action: "history.*".into(), ..without };
    assert!(acme.admin.query_activity(filtered(both)).await.unwrap().entries.is_empty());
    acme.server.stop().await;
}

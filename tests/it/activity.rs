//! What happened, as the server tells it: held against the stored events themselves.

#[path = "activity/export.rs"]
mod export;
#[path = "activity/filters.rs"]
mod filters;
#[path = "activity/tail.rs"]
mod tail;
#[path = "activity/verbs.rs"]
mod verbs;

use std::collections::BTreeSet;

use keyledger::ledger::event_store::{APPEND_EVENTS_MAX, EventStore as _, NewEvent};
use keyledger::ledger::urgency::Urgency;
use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::{
    ActivityEntry, ActivityFacet, ActivityFilter, ActivityOrder, ActivityOutcome,
    PersonalDataState, PrincipalKind, QueryActivityRequest, RevocationReason, RevokeKeyRequest,
    field_value,
};
use keyledger::store::embedded::{EmbeddedStore, Options};
use projections::activity::ACTIONS;
use projections::envelope::Envelope;
use projections::event::{Event, KeyRevoked, KeyStateBefore};
use projections::id::{EventId, KeyId};
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;
use serde_json::Value;
use tonic::{Code, Status};

use super::support::{
    ADMIN, Acme, Client, Home, OPERATOR_ADMIN, READ_ONLY_ADMIN, reason, refused, scoped, with_roles,
};

/// The auditor's role.
const AUDITOR: &str = "rol_0000000000000000000000000A";

fn of(organization_id: &str) -> QueryActivityRequest {
    QueryActivityRequest { organization_id: organization_id.into(), ..Default::default() }
}

fn oldest_first(organization_id: &str) -> QueryActivityRequest {
    QueryActivityRequest { order: ActivityOrder::OldestFirst.into(), ..of(organization_id) }
}

fn filtered(organization_id: &str, filter: ActivityFilter) -> QueryActivityRequest {
    QueryActivityRequest { filter: Some(filter), ..of(organization_id) }
}

/// Every entry of a query, page by page.
async fn all(client: &Client, query: &QueryActivityRequest) -> Vec<ActivityEntry> {
    let mut query = query.clone();
    let mut entries = Vec::new();
    loop {
        let page = client.query_activity(query.clone()).await.unwrap();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return entries;
        }
        query.page_token = page.next_page_token;
    }
}

fn revisions(entries: &[ActivityEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.revision).collect()
}

/// The stored events of one organization.
fn stored(home: &Home, organization_id: &str) -> Vec<Value> {
    let stream = format!("org-{organization_id}");
    home.events().iter().filter(|it| it.stream == stream).map(|it| it.json()).collect()
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn action_of(event: &Value) -> &'static str {
    ACTIONS.iter().find(|(event_type, _)| *event_type == text(event, "type")).unwrap().1
}

/// What an event was done to, by its stored form.
fn target_of(event: &Value) -> &str {
    let data = &event["data"];
    let found = ["key_id", "service_account_id", "role_id", "plan"]
        .iter()
        .find_map(|field| data[*field].as_str());
    match text(event, "type") {
        "OrganizationCreated" | "OrganizationRegistered" => text(data, "organization_id"),
        "InstallationCreated"
        | "SchemaActivated"
        | "PepperRotated"
        | "SigningKeyAdded"
        | "SigningKeyRetired" => "operator",
        "PolicyUpdated" => "policy",
        _ => found.unwrap(),
    }
}

fn at_of(event: &Value) -> i64 {
    text(event, "at").parse::<Timestamp>().unwrap().as_millis()
}

async fn revoke(
    client: &Client,
    organization_id: &str,
    key_id: &str,
    reason: RevocationReason,
    comment: &str,
) {
    let request = RevokeKeyRequest {
        organization_id: organization_id.into(),
        key_id: key_id.into(),
        reason: reason.into(),
        comment: comment.into(),
        ..Default::default()
    };
    client.revoke_key(request).await.unwrap();
}

#[tokio::test]
async fn every_event_says_who_did_what_to_what() {
    let acme = Acme::new().await;
    let id = &acme.id;
    let request = keyledger::proto::CreateKeyRequest {
        description: "builds".into(),
        metadata: [("team".to_owned(), "net".to_owned())].into(),
        limits: [("rps".to_owned(), 5)].into(),
        ..scoped("", "ci", &["dns:read", "dns:write"])
    };
    let ci = acme.admin.create_key(request).await.unwrap().key.unwrap().id;
    let (old, _) = acme.key("old", &["dns:read"]).await;
    revoke(&acme.admin, id, &ci, RevocationReason::KeyCompromise, "found in a log").await;
    revoke(&acme.operator, id, &old, RevocationReason::Unspecified, "").await;

    let events = stored(&acme.home, id);
    let entries = all(&acme.admin, &oldest_first("")).await;
    assert_eq!(entries.len(), events.len());
    let operators_key = text(&events[1], "credential");
    let admins_key = text(&events[2], "credential");
    let by_operator = format!("by the operator with key `{operators_key}`");
    let by_admin = format!("by organization `{id}` with key `{admins_key}`");
    let expected = [
        (
            "organization.created",
            "operator",
            format!("Organization `acme` ({id}) was created {by_operator}"),
        ),
        (
            "key.created",
            "operator",
            format!("Key `admin` ({admins_key}) was created {by_operator}"),
        ),
        ("key.created", id, format!("Key `ci` ({ci}) was created {by_admin}")),
        ("key.created", id, format!("Key `old` ({old}) was created {by_admin}")),
        ("key.revoked", id, format!("Key `ci` ({ci}) was revoked {by_admin}: key_compromise")),
        ("key.revoked", "operator", format!("Key `old` ({old}) was revoked {by_operator}")),
    ];
    for (place, (entry, event)) in entries.iter().zip(&events).enumerate() {
        let (action, actor, sentence) = &expected[place];
        assert_eq!((entry.action.as_str(), &entry.sentence), (*action, sentence));
        let who = entry.actor.as_ref().unwrap();
        assert_eq!(who.organization_id, **actor);
        assert_eq!(who.kind() == PrincipalKind::Operator, *actor == "operator");
        assert_eq!(entry.revision, place as u64);
        assert_eq!(entry.outcome(), ActivityOutcome::Succeeded);
        let target = entry.target.as_ref().unwrap();
        assert_eq!(target.id, target_of(event));
        assert!(action.starts_with(&target.kind) && sentence.contains(&target.name));
        for (said, field) in [
            (&entry.event_id, "id"),
            (&entry.credential_id, "credential"),
            (&entry.correlation_id, "correlation_id"),
            (&entry.causation_id, "causation_id"),
        ] {
            assert_eq!(said, text(event, field), "{field}");
        }
        let at = entry.at.unwrap();
        assert_eq!(at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000, at_of(event));
    }
    // What followed from another event says so.
    let registered = stored(&acme.home, "operator");
    let registered = registered.iter().rfind(|it| action_of(it) == "organization.registered");
    assert_eq!(entries[0].causation_id, text(registered.unwrap(), "id"));
    // Reasons and changes.
    assert_eq!((entries[4].reason.as_str(), entries[5].reason.as_str()), ("key_compromise", ""));
    let shown = |entry: &ActivityEntry| -> Vec<String> {
        let value = |it: &Option<keyledger::proto::FieldValue>| match it {
            None => "-".to_owned(),
            Some(it) => match it.kind.clone().unwrap() {
                field_value::Kind::Text(text) => text,
                field_value::Kind::Number(number) => number.to_string(),
                field_value::Kind::Texts(list) => list.texts.join(","),
                field_value::Kind::Instant(at) => at.to_string(),
            },
        };
        let change = |it: &keyledger::proto::FieldChange| {
            format!("{} {}→{}", it.field, value(&it.before), value(&it.after))
        };
        entry.changes.iter().map(change).collect()
    };
    assert_eq!(
        shown(&entries[2]),
        [
            "name -→ci",
            "description -→builds",
            "origin -→minted",
            "environment -→live",
            "scopes -→dns:read,dns:write",
            "metadata.team -→net",
            "limits.rps -→5"
        ]
    );
    assert_eq!(shown(&entries[4]), ["state active→revoked"]);
    assert_eq!(entries[4].personal_data.as_ref().unwrap().comment, "found in a log");

    // The operator's own log.
    let events = stored(&acme.home, "operator");
    let entries = all(&acme.operator, &oldest_first("operator")).await;
    assert_eq!(entries.len(), events.len());
    let mut actions = BTreeSet::new();
    for (entry, event) in entries.iter().zip(&events) {
        actions.insert(entry.action.as_str());
        assert_eq!(entry.action, action_of(event));
        assert_eq!(entry.target.as_ref().unwrap().id, target_of(event));
        let by =
            if text(event, "actor") == "ledger" { " by the ledger" } else { " by the operator" };
        assert!(entry.sentence.contains(by), "{}", entry.sentence);
    }
    for action in [
        "installation.created",
        "installation.schema_activated",
        "plan.defined",
        "role.defined",
        "organization.registered",
        "organization.created",
        "key.created",
    ] {
        assert!(actions.contains(action), "{action}");
    }
    let first = &entries[0];
    assert_eq!(first.sentence, "The installation was created by the ledger");
    assert_eq!(first.actor.as_ref().unwrap().kind(), PrincipalKind::Ledger);
    acme.server.stop().await;
}

/// Numbers without pattern, the same each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.throw(from.len())]
    }

    /// None as often as not.
    fn maybe<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if self.throw(2) == 0 { None } else { Some(self.pick(from).clone()) }
    }
}

/// Makes and revokes keys at random, by several callers, under several correlation ids.
async fn history(acme: &Acme, dice: &mut Dice, events: usize) {
    let mut callers = vec![acme.admin.clone(), acme.operator.clone()];
    for name in ["one", "two"] {
        let scopes = ["api-keys:write", "dns:read"];
        callers.push(acme.operator.with_key(&acme.key(name, &scopes).await.1));
    }
    let mut keys = Vec::new();
    for number in 0..events {
        let caller = dice.pick(&callers).clone();
        let correlation = ["a", "b", "c"][dice.throw(3)].parse().unwrap();
        let mut service = KeyServiceClient::new(acme.server.channel());
        if keys.is_empty() || dice.throw(3) > 0 {
            let name = format!("key {number}");
            let mut request = caller.request(scoped(&acme.id, &name, &["dns:read"]));
            request.metadata_mut().insert("x-correlation-id", correlation);
            let created = service.create_key(request).await.unwrap().into_inner();
            keys.push(created.key.unwrap().id);
        } else {
            let key_id = keys.swap_remove(dice.throw(keys.len()));
            let organization_id = acme.id.clone();
            let revoke = RevokeKeyRequest { organization_id, key_id, ..Default::default() };
            let mut request = caller.request(revoke);
            request.metadata_mut().insert("x-correlation-id", correlation);
            service.revoke_key(request).await.unwrap();
        }
    }
}

/// A random query, and whether it shows an event, by the plainest reading of it.
fn random_query(
    dice: &mut Dice,
    acme: &Acme,
    events: &[Value],
) -> (QueryActivityRequest, impl Fn(&Value) -> bool) {
    let of_some = |field: &str| -> Vec<String> {
        events.iter().map(|it| text(it, field).to_owned()).filter(|it| !it.is_empty()).collect()
    };
    let targets: Vec<String> = events.iter().map(|it| target_of(it).to_owned()).collect();
    let actor = dice.maybe(&[acme.id.clone(), "operator".to_owned(), "ledger".to_owned()]);
    let credential = dice.maybe(&of_some("credential"));
    let actions =
        ["key.created", "key.revoked", "key.*", "organization.*", "organization.created", "plan.*"];
    let action = dice.maybe(&actions);
    // Seldom: one target has few events.
    let target = dice.maybe(&targets).filter(|_| dice.throw(3) == 0);
    let correlation = dice.maybe(&of_some("correlation_id"));
    let mut bound = || {
        let at = at_of(dice.pick(events)) + i64::try_from(dice.throw(3)).unwrap() - 1;
        // A part of a millisecond is later than the whole one.
        let part = i32::try_from(dice.throw(2) * 7).unwrap();
        (dice.throw(2) == 0).then_some((at, part))
    };
    let (mut from, mut to) = (bound(), bound());
    if from.is_some() && to.is_some() {
        if from > to {
            (from, to) = (to, from);
        }
        let ceiling = |it: Option<(i64, i32)>| it.map(|(at, part)| at + i64::from(part > 0));
        if ceiling(from) >= ceiling(to) {
            to = None;
        }
    }
    let wire = |bound: Option<(i64, i32)>| {
        bound.map(|(at, part)| prost_types::Timestamp {
            seconds: at.div_euclid(1_000),
            nanos: i32::try_from(at.rem_euclid(1_000)).unwrap() * 1_000_000 + part,
        })
    };
    let order =
        if dice.throw(2) == 0 { ActivityOrder::OldestFirst } else { ActivityOrder::Unspecified };
    let filter = ActivityFilter {
        actor: actor.clone().unwrap_or_default(),
        credential_id: credential.clone().unwrap_or_default(),
        action: action.unwrap_or_default().into(),
        target_id: target.clone().unwrap_or_default(),
        correlation_id: correlation.clone().unwrap_or_default(),
        from: wire(from),
        to: wire(to),
        ..Default::default()
    };
    let query = QueryActivityRequest {
        order: order.into(),
        page_size: u32::try_from(dice.throw(9)).unwrap(),
        ..filtered(&acme.id, filter)
    };
    let shows = move |event: &Value| {
        let at = (at_of(event), 0);
        actor.as_ref().is_none_or(|it| text(event, "actor") == it)
            && credential.as_ref().is_none_or(|it| text(event, "credential") == it)
            && action.is_none_or(|it| match it.strip_suffix(".*") {
                Some(kind) => action_of(event).split('.').next() == Some(kind),
                None => action_of(event) == it,
            })
            && target.as_ref().is_none_or(|it| target_of(event) == it)
            && correlation.as_ref().is_none_or(|it| text(event, "correlation_id") == it)
            && from.is_none_or(|from| at >= from)
            && to.is_none_or(|to| at < to)
    };
    (query, shows)
}

#[tokio::test]
async fn any_filters_show_what_a_look_at_all_events_shows() {
    let acme = Acme::new().await;
    let mut dice = Dice(0x2026_1122);
    history(&acme, &mut dice, 120).await;
    let events = stored(&acme.home, &acme.id);
    let (mut empty, mut several) = (0, 0);
    // Whether or not an index is of help.
    for round in 0..400 {
        if round == 100 {
            super::activity_index::indexed(&acme.operator).await;
        }
        let (query, shows) = random_query(&mut dice, &acme, &events);
        let mut found = revisions(&all(&acme.operator, &query).await);
        // Behind them it is recorded who asks.
        found.retain(|revision| *revision < events.len() as u64);
        let shown = events.iter().zip(0_u64..).filter(|(event, _)| shows(event));
        let mut expected: Vec<u64> = shown.map(|(_, revision)| revision).collect();
        if query.order() != ActivityOrder::OldestFirst {
            expected.reverse();
        }
        assert_eq!(found, expected, "{query:?}");
        empty += usize::from(found.is_empty());
        several += usize::from(found.len() > 3);
    }
    assert!(empty < 300 && several > 60, "the queries ask for something: {empty}, {several}");
    acme.server.stop().await;
}

#[tokio::test]
async fn a_page_token_is_of_its_query_alone() {
    let acme = Acme::new().await;
    let mut dice = Dice(7);
    history(&acme, &mut dice, 20).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let first = QueryActivityRequest { page_size: 3, ..of(&acme.id) };
    let page = acme.operator.query_activity(first.clone()).await.unwrap();
    let token = page.next_page_token;
    let next = QueryActivityRequest { page_token: token.clone(), ..first.clone() };
    let again = acme.operator.query_activity(next.clone()).await.unwrap();
    assert_eq!(again.entries[0].revision + 1, page.entries[2].revision);
    // The size may change, and who asks; the rest may not.
    let sized =
        QueryActivityRequest { page_size: 0, organization_id: String::new(), ..next.clone() };
    assert!(acme.admin.query_activity(sized).await.is_ok());
    let key = page.entries[0].credential_id.clone();
    let instant = prost_types::Timestamp { seconds: 0, nanos: 0 };
    let later = prost_types::Timestamp { seconds: 9_999_999_999, nanos: 0 };
    let none = ActivityFilter::default;
    let filters = [
        ActivityFilter { actor: "operator".into(), ..none() },
        ActivityFilter { credential_id: key, ..none() },
        ActivityFilter { action: "key.*".into(), ..none() },
        ActivityFilter { target_id: "operator".into(), ..none() },
        ActivityFilter { correlation_id: "a".into(), ..none() },
        ActivityFilter { from: Some(instant), ..none() },
        ActivityFilter { to: Some(later), ..none() },
        ActivityFilter { outcome: ActivityOutcome::Succeeded.into(), ..none() },
        ActivityFilter { origin_ip: "127.0.0.1".into(), ..none() },
        ActivityFilter { text: "key".into(), ..none() },
    ];
    let of_filters = filters
        .into_iter()
        .map(|filter| QueryActivityRequest { filter: Some(filter), ..next.clone() });
    for wrong in of_filters.chain([
        QueryActivityRequest { organization_id: other, ..next.clone() },
        QueryActivityRequest { organization_id: "operator".into(), ..next.clone() },
        QueryActivityRequest { order: ActivityOrder::OldestFirst.into(), ..next.clone() },
        QueryActivityRequest { page_token: format!("{token}A"), ..next.clone() },
        QueryActivityRequest { page_token: token[1..].into(), ..next.clone() },
        QueryActivityRequest { page_token: "A".repeat(43), ..next.clone() },
    ]) {
        let answer = acme.operator.query_activity(wrong).await;
        refused(answer, Code::InvalidArgument, "`page_token`: is not one of this list");
    }
    // A restart changes nothing.
    let Acme { home, server, .. } = acme;
    server.stop().await;
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    let after = operator.query_activity(next).await.unwrap();
    assert_eq!((after.entries, after.next_page_token), (again.entries, again.next_page_token));
    server.stop().await;
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_others_write() {
    let acme = Acme::new().await;
    for number in 0..12 {
        acme.key(&format!("before {number}"), &["a:b"]).await;
    }
    let head = acme.revision().await;
    // Newest first: as it was when the first page was read.
    let mut query = QueryActivityRequest { page_size: 4, ..of(&acme.id) };
    let mut found = Vec::new();
    for page in 0.. {
        let now = acme.revision().await;
        let answer = acme.operator.query_activity(query.clone()).await.unwrap();
        assert_eq!(answer.revision.unwrap().revision, now, "it says what it was read from");
        found.extend(revisions(&answer.entries));
        if answer.next_page_token.is_empty() {
            break;
        }
        query.page_token = answer.next_page_token;
        acme.key(&format!("meanwhile {page}"), &["a:b"]).await;
    }
    assert_eq!(found, (0..=head).rev().collect::<Vec<_>>());
    // Oldest first: what comes meanwhile comes last, until all is seen. Many write at once.
    let writers = (0..4).map(|writer| {
        let admin = acme.admin.clone();
        tokio::spawn(async move {
            for number in 0..25 {
                let name = format!("writer {writer} {number}");
                admin.create_key(scoped("", &name, &["a:b"])).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut query = QueryActivityRequest { page_size: 4, ..oldest_first(&acme.id) };
    let mut found = Vec::new();
    let mut meanwhile = 0;
    let end = loop {
        let answer = acme.operator.query_activity(query.clone()).await.unwrap();
        found.extend(revisions(&answer.entries));
        if answer.next_page_token.is_empty() {
            break answer.revision.unwrap().revision;
        }
        query.page_token = answer.next_page_token;
        if meanwhile < 10 {
            acme.key(&format!("later {meanwhile}"), &["a:b"]).await;
            meanwhile += 1;
        }
    };
    assert!(end >= head + 10, "what came meanwhile is there");
    assert_eq!(found, (0..=end).collect::<Vec<_>>());
    for writer in writers {
        writer.await.unwrap();
    }
    acme.server.stop().await;
}

#[tokio::test]
async fn nobody_sees_another_organizations_log() {
    let acme = Acme::new().await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let admin = acme.operator.create_key(scoped(&other, "admin", &["org:admin"])).await.unwrap();
    let admin = acme.operator.with_key(&admin.secret);
    let (gone, _) = acme.key("gone", &["a:b"]).await;
    revoke(&acme.admin, "", &gone, RevocationReason::Superseded, "by me").await;
    revoke_of_staff(&acme).await;

    // Own and named are the same; another's, and the operator's, are refused alike.
    let end = acme.revision().await;
    let up_to_now = |entries: Vec<ActivityEntry>| -> Vec<ActivityEntry> {
        entries.into_iter().filter(|it| it.revision <= end).collect()
    };
    let own = up_to_now(all(&acme.admin, &of("")).await);
    assert_eq!(own.len() as u64, end + 1);
    assert_eq!(up_to_now(all(&acme.admin, &of(&acme.id)).await), own);
    for foreign in [&other, "operator", "org_00000000000000000000000009"] {
        let answer = acme.admin.query_activity(of(foreign)).await;
        assert_eq!(reason(&refused(answer, Code::PermissionDenied, "own")), "OTHER_ORGANIZATION");
    }
    let seen = all(&admin, &of("")).await;
    let named: Vec<&str> = seen.iter().map(|it| it.sentence.as_str()).collect();
    assert!(!named.iter().any(|it| it.contains(&acme.id) || it.contains("`gone`")), "{named:?}");
    // No filter reaches across.
    for query in [
        ActivityFilter { target_id: gone.clone(), ..Default::default() },
        ActivityFilter { actor: acme.id.clone(), ..Default::default() },
        ActivityFilter { text: "gone".into(), ..Default::default() },
    ] {
        let query = filtered("", query);
        assert!(all(&admin, &query).await.is_empty());
    }
    // An operator names one, and one that is there.
    refused(acme.operator.query_activity(of("")).await, Code::InvalidArgument, "`organization_id`");
    let nobody = of("org_00000000000000000000000009");
    refused(acme.operator.query_activity(nobody).await, Code::NotFound, "not found");

    // Who may read: by role.
    for (name, role, may) in [
        ("an auditor", AUDITOR, true),
        ("a reader", READ_ONLY_ADMIN, true),
        ("an admin", ADMIN, true),
        ("a purger", "rol_00000000000000000000000005", false),
    ] {
        let key = acme.admin.create_key(with_roles("", name, &[role])).await.unwrap().secret;
        let answer = acme.operator.with_key(&key).query_activity(of("")).await;
        assert_eq!(answer.is_ok(), may, "{name}: {answer:?}");
        if role == AUDITOR {
            let create = acme.operator.with_key(&key).create_key(scoped("", "x", &["a:b"])).await;
            refused(create, Code::PermissionDenied, "`api-keys:write`");
            let list = acme.operator.with_key(&key).list_keys(Default::default()).await;
            assert!(list.is_ok());
        }
    }
    let refused_role = acme.admin.create_key(with_roles("", "no", &[OPERATOR_ADMIN])).await;
    assert!(refused_role.is_err());

    // The operator's acts are shown; where their staff sits is not.
    let by_operator = |entries: Vec<ActivityEntry>| {
        entries.into_iter().filter(|it| it.actor.as_ref().unwrap().organization_id == "operator")
    };
    let revoked = ActivityFilter { action: "key.revoked".into(), ..Default::default() };
    let query = filtered(&acme.id, revoked);
    let data = |entry: ActivityEntry| entry.personal_data.unwrap();
    for (reader, state, shows) in [
        (&acme.admin, PersonalDataState::OriginWithheld, false),
        (&acme.operator, PersonalDataState::Shown, true),
    ] {
        let entries = all(reader, &query).await;
        let staff = by_operator(entries.clone()).map(data).next().unwrap();
        assert_eq!((staff.comment.as_str(), staff.state()), ("by staff", state));
        assert_eq!(staff.origin_ip == "127.0.0.1", shows, "{staff:?}");
        assert_eq!(!staff.user_agent.is_empty(), shows, "{staff:?}");
        let own = entries.into_iter().map(data).find(|it| it.comment == "by me").unwrap();
        assert_eq!(own.state(), PersonalDataState::Shown);
        assert_eq!(own.origin_ip, "127.0.0.1");
        assert!(own.user_agent.contains("tonic"), "{own:?}");
    }
    acme.server.stop().await;
}

async fn revoke_of_staff(acme: &Acme) {
    let (key, _) = acme.key("for staff", &["a:b"]).await;
    revoke(&acme.operator, &acme.id, &key, RevocationReason::KeyCompromise, "by staff").await;
}

#[tokio::test]
async fn a_page_can_demand_a_revision() {
    let acme = Acme::new().await;
    let keys = ActivityFilter { action: "key.*".into(), ..Default::default() };
    let of_keys = |revision| QueryActivityRequest {
        at_least_revision: Some(revision),
        ..filtered("", keys.clone())
    };
    let head = acme.revision().await;
    let answer = acme.admin.query_activity(of_keys(head)).await.unwrap();
    assert_eq!(answer.entries[0].revision, head);
    let head = acme.revision().await;
    let query = of_keys(head + 1);
    let asked = tokio::spawn({
        let admin = acme.admin.clone();
        async move { admin.query_activity(query).await }
    });
    acme.key("next", &["a:b"]).await;
    assert_eq!(asked.await.unwrap().unwrap().entries[0].revision, head + 1);
    // Whoever is revoked while waiting is told nothing.
    let (reader, secret) = acme.key("reader", &["activity:read"]).await;
    let query = of_keys(acme.revision().await + 1);
    let asked = tokio::spawn({
        let reader = acme.operator.with_key(&secret);
        async move { reader.query_activity(query).await }
    });
    revoke(&acme.admin, "", &reader, RevocationReason::Unspecified, "").await;
    let answer: Result<_, Status> = asked.await.unwrap();
    refused(answer, Code::Unauthenticated, "revoked");
    acme.server.stop().await;
}

/// Adds what takes long to make over the wire: keys made and revoked in turn, ten events
/// of each instant, and the one in the middle under the correlation id `the-one`.
async fn lengthen(home: &Home, organization_id: &str, events: u64) {
    let store = EmbeddedStore::open(&Options::new(home.data())).unwrap();
    let stream = StreamName::organization(organization_id.parse().unwrap());
    let written = stored(home, organization_id);
    let template = Envelope::decode(
        &home.events().iter().rfind(|it| it.stream == stream.as_str()).unwrap().stored,
    )
    .unwrap();
    let mut last = written.len() as u64 - 1;
    let mut new = Vec::new();
    for number in 0..events {
        let at = template.at.as_millis() + i64::try_from(number / 10).unwrap();
        let Event::KeyCreated(mut created) = template.event.clone() else { panic!() };
        let key_id = KeyId::from_parts(1_790_000_000_000, u128::from(number / 2) + 1);
        let event: Event = if number % 2 == 0 {
            created.key_id = key_id;
            created.name = format!("long {number}").parse().unwrap();
            created.digest.blake3 =
                projections::digest::SecretDigest(*blake3::hash(&number.to_le_bytes()).as_bytes());
            created.into()
        } else {
            let reason = projections::event::RevocationReason::Superseded;
            KeyRevoked { key_id, reason, before: KeyStateBefore::Active }.into()
        };
        let mut envelope = Envelope {
            id: EventId::from_parts(1_790_000_000_000, u128::from(number) + 1),
            at: Timestamp::from_millis(at).unwrap(),
            request: None,
            sealed: Vec::new(),
            event,
            ..template.clone()
        };
        if number == events / 2 {
            envelope.correlation_id = "the-one".parse().unwrap();
        }
        let (stored, leaf_hash) = envelope.encode().unwrap();
        let event_type = envelope.event.event_type();
        new.push(NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash });
        if new.len() == APPEND_EVENTS_MAX || number + 1 == events {
            let appended = store.append(
                &stream,
                Some(Revision(last)),
                std::mem::take(&mut new),
                Urgency::Normal,
            );
            last = appended.await.unwrap().0;
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_long_log_is_read_in_bounded_pages() {
    const EVENTS: u64 = 100_000;
    const WORK: u64 = 10_000;
    const OPENED: u64 = 1_000;
    let acme = Acme::new().await;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    lengthen(&home, &id, EVENTS).await;
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    let head = EVENTS + 1;
    // The newest, whole.
    let page = admin.query_activity(of("")).await.unwrap();
    assert_eq!(revisions(&page.entries), (head - 99..=head).rev().collect::<Vec<_>>());
    assert!(!page.work_limit_reached && page.revision.unwrap().revision == head);
    // What no index knows takes several pages, each of bounded work: each origin is opened.
    let nowhere = ActivityFilter { origin_ip: "203.0.113.9".into(), ..Default::default() };
    let nowhere = filtered("", nowhere);
    for order in [ActivityOrder::NewestFirst, ActivityOrder::OldestFirst] {
        let mut query = QueryActivityRequest { order: order.into(), ..nowhere.clone() };
        let (mut pages, mut found, mut limited) = (0, Vec::new(), 0);
        loop {
            let page = admin.query_activity(query.clone()).await.unwrap();
            pages += 1;
            limited += u64::from(page.work_limit_reached);
            assert_eq!(page.work_limit_reached, !page.next_page_token.is_empty());
            found.extend(revisions(&page.entries));
            if page.next_page_token.is_empty() {
                break;
            }
            query.page_token = page.next_page_token;
        }
        assert!(found.is_empty());
        assert_eq!((pages, limited), ((head + 1).div_ceil(OPENED), (head + 1) / OPENED));
    }
    // Kinds are counted among as many as one page may look at, and it is said how far back.
    let facets = vec![ActivityFacet::Action.into()];
    let counted = admin.query_activity(QueryActivityRequest { facets, ..of("") }).await.unwrap();
    let counted = counted.facets.unwrap();
    assert!(!counted.complete && counted.counted_from.is_some());
    assert_eq!(counted.entries, WORK);
    // What an index knows is found at once.
    super::activity_index::indexed(&server.client(&home.admin_key())).await;
    let the_one = ActivityFilter { correlation_id: "the-one".into(), ..Default::default() };
    let the_one = filtered("", the_one);
    for order in [ActivityOrder::NewestFirst, ActivityOrder::OldestFirst] {
        let query = QueryActivityRequest { order: order.into(), ..the_one.clone() };
        let page = admin.query_activity(query).await.unwrap();
        assert_eq!(revisions(&page.entries), [EVENTS / 2 + 2]);
        assert!(!page.work_limit_reached && page.next_page_token.is_empty());
    }
    // A time is found without reading up to it.
    let at = home.events()[usize::try_from(EVENTS / 2).unwrap()].json();
    let at = at_of(&at);
    let instant = |at: i64| prost_types::Timestamp {
        seconds: at.div_euclid(1_000),
        nanos: i32::try_from(at.rem_euclid(1_000)).unwrap() * 1_000_000,
    };
    for order in [ActivityOrder::NewestFirst, ActivityOrder::OldestFirst] {
        let filter = ActivityFilter {
            from: Some(instant(at)),
            to: Some(instant(at + 20)),
            ..Default::default()
        };
        let query =
            QueryActivityRequest { page_size: 1_000, order: order.into(), ..filtered("", filter) };
        let page = admin.query_activity(query).await.unwrap();
        assert_eq!((page.entries.len(), page.next_page_token.as_str()), (200, ""));
        assert!(page.entries.iter().all(|it| it.at.unwrap().nanos % 1_000_000 == 0));
    }
    server.stop().await;
}

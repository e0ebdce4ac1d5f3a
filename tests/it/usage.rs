//! When keys were last used: by what the server says, and what it leaves on disk.

use keyledger::proto::{GetKeyRequest, Key, ListKeysRequest, RotateKeyRequest, VerifyRequest};
use rusqlite::Connection;

use super::support::{Acme, Client, DEADLINE, Home, POLL, scoped};

async fn get(client: &Client, id: &str) -> Key {
    let request = GetKeyRequest { key_id: id.into(), ..Default::default() };
    client.get_key(request).await.unwrap().key.unwrap()
}

async fn last_used(client: &Client, id: &str) -> Option<i64> {
    get(client, id).await.last_used_at.map(|at| at.seconds)
}

/// The uses of a key that are on disk.
fn recorded(home: &Home, organization_id: &str, key_id: &str) -> u64 {
    let stream = format!("usage-{organization_id}");
    let events = home.events();
    let events: Vec<_> =
        events.iter().filter(|it| it.stream == stream).map(|it| it.json()).collect();
    let keys = events.iter().flat_map(|it| it["data"]["keys"].as_array().unwrap());
    keys.filter(|it| it["key_id"] == key_id).map(|it| it["uses"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_key_shows_when_it_was_last_used() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["dns:read"]).await;
    assert_eq!(last_used(&acme.admin, &id).await, None, "never used");
    // A denial is no use.
    assert!(!acme.operator.ask(&secret, &["dns:write"]).await.allowed);
    assert_eq!(last_used(&acme.admin, &id).await, None);
    let before = get(&acme.admin, &id).await.created_at.unwrap().seconds;
    for _ in 0..3 {
        assert!(acme.operator.ask(&secret, &["dns:read"]).await.allowed);
    }
    let used = last_used(&acme.admin, &id).await;
    assert!(used >= Some(before), "it is shown at once: {used:?}");
    // Whoever calls the server uses their key, too: this one lists it.
    let listed = acme.admin.list_keys(ListKeysRequest::default()).await.unwrap().keys;
    assert!(listed.iter().all(|key| key.last_used_at.is_some()), "{listed:?}");
    let status = acme.operator.get_status(Default::default()).await.unwrap();
    assert!(status.usage_damaged.is_empty(), "{status:?}");
    // Its successor begins anew.
    let rotated = acme
        .admin
        .rotate_key(RotateKeyRequest { key_id: id.clone(), ..Default::default() })
        .await
        .unwrap();
    let successor = rotated.key.unwrap();
    assert_eq!(successor.last_used_at, None);
    assert_eq!(last_used(&acme.admin, &id).await, used, "and takes nothing along");

    // An orderly end leaves all on disk, and the next start finds it.
    acme.server.stop().await;
    assert_eq!(recorded(&acme.home, &acme.id, &id), 3);
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    assert_eq!(last_used(&admin, &id).await, used);
    assert_eq!(last_used(&admin, &successor.id).await, None);
}

#[tokio::test]
async fn a_use_is_on_disk_before_long_and_outlives_a_kill() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["dns:read"]).await;
    assert!(acme.operator.ask(&secret, &["dns:read"]).await.allowed);
    let used = last_used(&acme.admin, &id).await;
    let until = std::time::Instant::now() + DEADLINE;
    while recorded(&acme.home, &acme.id, &id) == 0 {
        assert!(std::time::Instant::now() < until, "it is never recorded");
        tokio::time::sleep(POLL * 50).await;
    }
    acme.server.kill();
    let server = acme.home.start().await;
    assert_eq!(last_used(&server.client(&acme.admin_secret), &id).await, used);
}

#[tokio::test]
async fn a_damaged_usage_stream_stops_nobody() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["dns:read"]).await;
    assert!(acme.operator.ask(&secret, &["dns:read"]).await.allowed);
    acme.server.stop().await;
    let database = Connection::open(acme.home.database()).unwrap();
    let triggers: Vec<(String, String)> = database
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for (name, _) in &triggers {
        database.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    let changed = database
        .execute(
            "UPDATE events SET stored = CAST(replace(CAST(stored AS TEXT), '\"uses\":1', '\"uses\":7') AS BLOB)
             WHERE stream = (SELECT stream FROM streams WHERE name = ?1) AND revision = 0",
            [format!("usage-{}", acme.id)],
        )
        .unwrap();
    assert_eq!(changed, 1);
    for (_, sql) in &triggers {
        database.execute_batch(sql).unwrap();
    }
    drop(database);
    let server = acme.home.start().await;
    let (admin, operator) =
        (server.client(&acme.admin_secret), server.client(&acme.home.admin_key()));
    assert_eq!(last_used(&admin, &id).await, None, "what is damaged is not believed");
    let request = VerifyRequest { credential: secret, ..Default::default() };
    assert!(operator.verify(request).await.unwrap().allowed);
    let status = operator.get_status(Default::default()).await.unwrap();
    assert!(status.stopped.is_empty(), "{status:?}");
    let [damaged] = status.usage_damaged.try_into().unwrap();
    assert_eq!(damaged.organization_id, acme.id);
    assert!(damaged.fault.contains("revision 0"), "{damaged:?}");
    admin.create_key(scoped("", "another", &["dns:read"])).await.unwrap();
    assert!(last_used(&admin, &id).await.is_some(), "and is known again from here on");
    let said = server.stop().await;
    assert!(said.contains("usage stream is corrupt"), "{said}");
}

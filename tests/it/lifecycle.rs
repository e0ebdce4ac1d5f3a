//! A key is disabled, enabled and called otherwise.

use keyledger::proto::{
    CreateKeyRequest, DecisionCode, DisableKeyRequest, DisableKeyResponse, EnableKeyRequest,
    EnableKeyResponse, Environment, KeyState, ListKeysRequest, UpdateKeyLabelRequest,
    create_key_request,
};
use prost_types::Duration;

use super::support::{Acme, Verifiers, rejected, scoped, unused};

fn disable(key_id: &str) -> DisableKeyRequest {
    DisableKeyRequest { key_id: key_id.into(), ..Default::default() }
}

fn enable(key_id: &str) -> EnableKeyRequest {
    EnableKeyRequest { key_id: key_id.into(), ..Default::default() }
}

fn relabel(key_id: &str, name: &str, description: Option<&str>) -> UpdateKeyLabelRequest {
    UpdateKeyLabelRequest {
        key_id: key_id.into(),
        name: name.into(),
        description: description.map(str::to_owned),
        ..Default::default()
    }
}

const NOBODY: &str = "key_00000000000000000000000009";

#[tokio::test]
async fn a_disabled_key_is_refused_at_once_and_comes_back() {
    let acme = Acme::new().await;
    let (id, secret) = acme.key("ci", &["a:b"]).await;
    rejected(acme.admin.enable_key(enable(&id)).await, "KEY_NOT_DISABLED");
    let verifiers = Verifiers::of(&acme, &secret, DecisionCode::Disabled).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let request = DisableKeyRequest {
        comment: "looks strange".into(),
        idempotency_key: "d".into(),
        ..disable(&id)
    };
    let disabled = acme.admin.disable_key(request.clone()).await.unwrap();
    verifiers.over().await;
    let key = disabled.key.clone().unwrap();
    assert_eq!(key.state(), KeyState::Disabled);
    assert!(!key.disabled.unwrap().with.is_empty());
    let told = |it: DisableKeyResponse| (it.key.map(unused), it.revision);
    let disabled = told(disabled);
    assert_eq!(told(acme.admin.disable_key(request.clone()).await.unwrap()), disabled);
    rejected(acme.admin.disable_key(disable(&id)).await, "KEY_ALREADY_DISABLED");
    // As a caller it is refused too, by this reason.
    let (own, caller) = acme.key("caller", &["api-keys:read", "api-keys:write"]).await;
    let caller = acme.admin.with_key(&caller);
    caller.disable_key(disable(&own)).await.unwrap();
    rejected(caller.list_keys(ListKeysRequest::default()).await, "DISABLED");
    // In lists by its state.
    let request_list = ListKeysRequest { state: KeyState::Disabled.into(), ..Default::default() };
    let listed = acme.admin.list_keys(request_list).await.unwrap().keys;
    assert_eq!(listed.iter().map(|key| &key.name).collect::<Vec<_>>(), ["ci", "caller"]);
    // After a kill it is so still, and the repeat is known.
    acme.server.kill();
    let server = acme.home.start().await;
    let (operator, admin) =
        (server.client(&acme.home.admin_key()), server.client(&acme.admin_secret));
    assert_eq!(operator.ask(&secret, &[]).await.code(), DecisionCode::Disabled);
    assert_eq!(told(admin.disable_key(request).await.unwrap()), disabled);
    let wrong = EnableKeyRequest { expected_revision: Some(0), ..enable(&id) };
    rejected(admin.enable_key(wrong).await, "WRONG_EXPECTED_REVISION");
    let request = EnableKeyRequest { idempotency_key: "e".into(), ..enable(&id) };
    let enabled = admin.enable_key(request.clone()).await.unwrap();
    assert_eq!(enabled.key.as_ref().unwrap().state(), KeyState::Active);
    assert!(enabled.key.as_ref().unwrap().disabled.is_none());
    assert_eq!(operator.ask(&secret, &[]).await.code(), DecisionCode::Allowed);
    let told = |it: EnableKeyResponse| (it.key.map(unused), it.revision);
    assert_eq!(told(admin.enable_key(request).await.unwrap()), told(enabled));
    server.kill();
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&secret, &[]).await.code(), DecisionCode::Allowed);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_disabled_or_enabled_is_refused_by_its_reason() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    rejected(admin.disable_key(disable(NOBODY)).await, "KEY_NOT_FOUND");
    rejected(admin.enable_key(enable(NOBODY)).await, "KEY_NOT_FOUND");
    let (revoked, _) = acme.key("revoked", &["a:b"]).await;
    admin.revoke("", &revoked).await.unwrap();
    rejected(admin.disable_key(disable(&revoked)).await, "KEY_ALREADY_REVOKED");
    rejected(admin.enable_key(enable(&revoked)).await, "KEY_ALREADY_REVOKED");
    // Its name was taken meanwhile.
    let (named, _) = acme.key("named", &["a:b"]).await;
    admin.disable_key(disable(&named)).await.unwrap();
    let (taker, _) = acme.key("named", &["a:b"]).await;
    rejected(admin.enable_key(enable(&named)).await, "KEY_NAME_TAKEN");
    admin.update_key_label(relabel(&taker, "another", None)).await.unwrap();
    admin.enable_key(enable(&named)).await.unwrap();
    // Its time was over meanwhile.
    let lifetime = Duration { seconds: 0, nanos: 300_000_000 };
    let brief = CreateKeyRequest {
        expiry: Some(create_key_request::Expiry::Lifetime(lifetime)),
        ..scoped("", "brief", &["a:b"])
    };
    let brief = admin.create_key(brief).await.unwrap();
    let brief_id = brief.key.unwrap().id;
    let disabled = admin.disable_key(disable(&brief_id)).await.unwrap().key.unwrap();
    let end = disabled.expires_at.unwrap();
    let until = std::time::Instant::now() + super::support::DEADLINE;
    let now = async || {
        let status = acme.operator.get_status(keyledger::proto::GetStatusRequest {}).await;
        status.unwrap().now.unwrap()
    };
    while (end.seconds, end.nanos) >= (now().await.seconds, now().await.nanos) {
        assert!(std::time::Instant::now() < until);
    }
    rejected(admin.enable_key(enable(&brief_id)).await, "KEY_EXPIRED");
    // Nobody enables what they could not make; a test key touches no live one.
    let (wide, _) = acme.key("wide", &["a:b", "c:d"]).await;
    let (_, limited) = acme.key("limited", &["api-keys:write", "a:b"]).await;
    let limited = admin.with_key(&limited);
    // To put it out of force takes no more than the permission.
    limited.disable_key(disable(&wide)).await.unwrap();
    rejected(limited.enable_key(enable(&wide)).await, "PERMISSION_NOT_HELD");
    let tester = CreateKeyRequest {
        environment: Environment::Test.into(),
        ..scoped("", "t", &["org:admin"])
    };
    let tester = admin.with_key(&admin.create_key(tester).await.unwrap().secret);
    rejected(tester.enable_key(enable(&wide)).await, "ENVIRONMENT_NOT_HELD");
    rejected(tester.disable_key(disable(&named)).await, "ENVIRONMENT_NOT_HELD");
    rejected(tester.update_key_label(relabel(&named, "x", None)).await, "ENVIRONMENT_NOT_HELD");
    let wrong = DisableKeyRequest { expected_revision: Some(0), ..disable(&named) };
    rejected(admin.disable_key(wrong).await, "WRONG_EXPECTED_REVISION");
}

#[tokio::test]
async fn a_key_is_called_otherwise_and_may_do_what_it_could() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let (id, secret) = acme.key("old name", &["a:b"]).await;
    acme.key("taken", &["a:b"]).await;
    rejected(admin.update_key_label(relabel(&id, "taken", None)).await, "KEY_NAME_TAKEN");
    rejected(admin.update_key_label(relabel(NOBODY, "x", None)).await, "KEY_NOT_FOUND");
    let request = UpdateKeyLabelRequest {
        idempotency_key: "l".into(),
        ..relabel(&id, "new name", Some("what for"))
    };
    let changed = admin.update_key_label(request.clone()).await.unwrap();
    let key = changed.key.clone().unwrap();
    assert_eq!((key.name.as_str(), key.description.as_str()), ("new name", "what for"));
    assert_eq!(admin.update_key_label(request.clone()).await.unwrap(), changed);
    // Absent: as it is. Empty: none. The same again: nothing is written.
    let key = admin.update_key_label(relabel(&id, "", None)).await.unwrap().key.unwrap();
    assert_eq!(key.description, "what for");
    let at = acme.revision().await;
    let same = admin.update_key_label(relabel(&id, "new name", Some("what for"))).await.unwrap();
    assert_eq!((same.revision.unwrap().revision, acme.revision().await), (at, at));
    let key = admin.update_key_label(relabel(&id, "", Some(""))).await.unwrap().key.unwrap();
    assert_eq!((key.name.as_str(), key.description.as_str()), ("new name", ""));
    // The old name is free, the new one is not.
    acme.key("old name", &["a:b"]).await;
    rejected(admin.create_key(scoped("", "new name", &["a:b"])).await, "KEY_NAME_TAKEN");
    assert!(acme.operator.ask(&secret, &["a:b"]).await.allowed);
    let wrong = UpdateKeyLabelRequest { expected_revision: Some(0), ..relabel(&id, "x", None) };
    rejected(admin.update_key_label(wrong).await, "WRONG_EXPECTED_REVISION");
    let (gone, _) = acme.key("gone", &["a:b"]).await;
    admin.revoke("", &gone).await.unwrap();
    rejected(admin.update_key_label(relabel(&gone, "x", None)).await, "KEY_ALREADY_REVOKED");
    // What the ledger keeps for the operator keeps its name.
    let request = ListKeysRequest { organization_id: "operator".into(), ..Default::default() };
    let own = acme.operator.list_keys(request).await.unwrap().keys[0].id.clone();
    let request =
        UpdateKeyLabelRequest { organization_id: "operator".into(), ..relabel(&own, "x", None) };
    rejected(acme.operator.update_key_label(request).await, "KEY_CONFIGURED");
    acme.server.kill();
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    let listed = admin.list_keys(ListKeysRequest::default()).await.unwrap().keys;
    assert!(listed.iter().any(|key| key.id == id && key.name == "new name"));
    server.stop().await;
}

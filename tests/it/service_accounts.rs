//! Service accounts: programs with keys of their own, which hold what its roles permit now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger::proto::revoke_keys_request::Which;
use keyledger::proto::{
    CreateKeyRequest, CreateServiceAccountRequest, DecisionCode, KeyRevocationOutcome,
    KeyWarningCode, ListKeysRequest, ListServiceAccountsRequest, PrincipalKind, RevokeKeysRequest,
    Scopes,
};

use super::support::{
    ADMIN, Acme, DNS_MANAGER, READ_ONLY_ADMIN, rejected, scoped, texts, with_roles,
};

fn account(name: &str, roles: &[&str]) -> CreateServiceAccountRequest {
    CreateServiceAccountRequest { name: name.into(), role_ids: texts(roles), ..Default::default() }
}

fn owned(owner: &str, name: &str, scopes: &[&str]) -> CreateKeyRequest {
    let scopes = (!scopes.is_empty()).then(|| Scopes { permissions: texts(scopes) });
    CreateKeyRequest {
        service_account_id: owner.into(),
        name: name.into(),
        scopes,
        ..Default::default()
    }
}

fn revoke(owner: &str) -> RevokeKeysRequest {
    let which = Some(Which::ServiceAccountId(owner.into()));
    RevokeKeysRequest { which, ..Default::default() }
}

const NOBODY: &str = "sva_00000000000000000000000009";

#[tokio::test]
async fn its_keys_hold_what_its_roles_permit() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let request = CreateServiceAccountRequest {
        description: "keeps zones in step".into(),
        idempotency_key: "s".into(),
        ..account("dns-bot", &[DNS_MANAGER])
    };
    let made = admin.create_service_account(request.clone()).await.unwrap();
    assert_eq!(admin.create_service_account(request).await.unwrap(), made);
    let bot = made.service_account.unwrap();
    assert_eq!((bot.roles[0].name.as_str(), bot.name.as_str()), ("dns-manager", "dns-bot"));
    let whole = admin.create_key(owned(&bot.id, "whole", &[])).await.unwrap();
    let key = whole.key.unwrap();
    assert_eq!((&key.service_account_id, key.roles[0].name.as_str()), (&bot.id, "dns-manager"));
    let answer = acme.operator.ask(&whole.secret, &["dns:write"]).await;
    assert!(answer.allowed, "{answer:?}");
    let principal = answer.principal.unwrap();
    assert_eq!(principal.kind(), PrincipalKind::ServiceAccount);
    assert_eq!(
        (principal.service_account_id, principal.organization_id),
        (bot.id.clone(), acme.id.clone())
    );
    // Scopes narrow the roles, and give nothing beside them.
    let narrow =
        admin.create_key(owned(&bot.id, "narrow", &["dns:read", "waf:read"])).await.unwrap();
    let codes = [("dns:read", true), ("dns:write", false), ("waf:read", false)];
    for (wanted, allowed) in codes {
        assert_eq!(acme.operator.ask(&narrow.secret, &[wanted]).await.allowed, allowed, "{wanted}");
    }
    let warnings = narrow.key.unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code(), KeyWarningCode::ScopeOutsideRoles);
    assert!(warnings[0].message.contains("`waf:read`"));
    // Without roles there is nothing.
    let idle = admin.create_service_account(account("idle", &[])).await.unwrap();
    let idle = idle.service_account.unwrap().id;
    let nothing = admin.create_key(owned(&idle, "nothing", &["dns:read"])).await.unwrap().secret;
    assert_eq!(
        acme.operator.ask(&nothing, &["dns:read"]).await.code(),
        DecisionCode::PermissionDenied
    );
    // It acts in its own name.
    let writer = admin.create_service_account(account("writer", &[ADMIN])).await.unwrap();
    let writer = writer.service_account.unwrap().id;
    let secret = admin.create_key(owned(&writer, "w", &[])).await.unwrap().secret;
    let by = admin.with_key(&secret).create_key(scoped("", "by it", &["a:b"])).await.unwrap();
    let by = by.key.unwrap().created_by.unwrap();
    assert_eq!((by.kind(), by.service_account_id), (PrincipalKind::ServiceAccount, writer));
    // Its keys are found by it.
    let request = ListKeysRequest { service_account_id: bot.id.clone(), ..Default::default() };
    let keys = admin.list_keys(request).await.unwrap().keys;
    assert_eq!(keys.iter().map(|it| &it.name).collect::<Vec<_>>(), ["whole", "narrow"]);
    let page = |token| ListServiceAccountsRequest {
        page_size: 2,
        page_token: token,
        ..Default::default()
    };
    let first = admin.list_service_accounts(page(String::new())).await.unwrap();
    let second = admin.list_service_accounts(page(first.next_page_token)).await.unwrap();
    let names: Vec<_> =
        first.service_accounts.iter().chain(&second.service_accounts).map(|it| &it.name).collect();
    assert_eq!(names, ["dns-bot", "idle", "writer"]);
    // All of it is so after a kill.
    acme.server.kill();
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert!(operator.ask(&whole.secret, &["dns:write"]).await.allowed);
    assert_eq!(operator.ask(&nothing, &["dns:read"]).await.code(), DecisionCode::PermissionDenied);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_its_reason() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let bot = admin.create_service_account(account("bot", &[DNS_MANAGER])).await.unwrap();
    let bot = bot.service_account.unwrap().id;
    let taken = admin.create_service_account(account("bot", &[])).await;
    rejected(taken, "SERVICE_ACCOUNT_NAME_TAKEN");
    let role = account("x", &["rol_0000000000000000000000000Z"]);
    rejected(admin.create_service_account(role).await, "ROLE_NOT_FOUND");
    let wrong = CreateServiceAccountRequest { expected_revision: Some(0), ..account("x", &[]) };
    rejected(admin.create_service_account(wrong).await, "WRONG_EXPECTED_REVISION");
    // Nobody gives what they do not hold: neither to an account nor through one.
    let (_, limited) = acme.key("limited", &["service-accounts:write", "api-keys:write"]).await;
    let limited = admin.with_key(&limited);
    let given = limited.create_service_account(account("x", &[DNS_MANAGER])).await;
    rejected(given, "PERMISSION_NOT_HELD");
    rejected(limited.create_key(owned(&bot, "x", &[])).await, "PERMISSION_NOT_HELD");
    rejected(admin.create_key(owned(NOBODY, "x", &[])).await, "SERVICE_ACCOUNT_NOT_FOUND");
    rejected(admin.revoke_keys(revoke(NOBODY)).await, "SERVICE_ACCOUNT_NOT_FOUND");
    let roles = CreateKeyRequest {
        service_account_id: bot.clone(),
        ..with_roles("", "x", &[READ_ONLY_ADMIN])
    };
    rejected(admin.create_key(roles).await, "ROLES_OF_OWNER");
    // Another organization's is as absent as one that never was.
    let other = acme.operator.organization("globex", "glx", "").await;
    let foreign = CreateKeyRequest { organization_id: other, ..owned(&bot, "x", &[]) };
    rejected(acme.operator.create_key(foreign).await, "SERVICE_ACCOUNT_NOT_FOUND");
}

#[tokio::test]
async fn its_keys_end_together() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let bot = admin.create_service_account(account("bot", &[DNS_MANAGER])).await.unwrap();
    let bot = bot.service_account.unwrap().id;
    let mut secrets = Vec::new();
    for number in 0..3 {
        let made = admin.create_key(owned(&bot, &format!("k{number}"), &[])).await.unwrap();
        secrets.push((made.key.unwrap().id, made.secret));
    }
    let (_, own) = acme.key("the organization's own", &["a:b"]).await;
    admin.revoke("", &secrets[0].0).await.unwrap();
    let answer = admin.revoke_keys(revoke(&bot)).await.unwrap();
    let ended: Vec<_> = answer.keys.iter().map(|it| it.key_id.as_str()).collect();
    assert_eq!(ended, [&secrets[1].0, &secrets[2].0]);
    assert!(answer.keys.iter().all(|it| it.outcome() == KeyRevocationOutcome::Revoked));
    for (_, secret) in &secrets {
        assert_eq!(acme.code(secret).await, DecisionCode::Revoked);
    }
    assert_eq!(acme.code(&own).await, DecisionCode::Allowed);
    // Once more there is nothing to end.
    assert!(admin.revoke_keys(revoke(&bot)).await.unwrap().keys.is_empty());
    acme.server.kill();
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&secrets[1].1, &[]).await.code(), DecisionCode::Revoked);
    server.stop().await;
}

/// What is reported is what was revoked, whoever makes keys meanwhile.
#[tokio::test]
async fn every_key_that_ends_is_reported() {
    let acme = Acme::new().await;
    let bot = acme.admin.create_service_account(account("bot", &[DNS_MANAGER])).await.unwrap();
    let bot = bot.service_account.unwrap().id;
    let over = Arc::new(AtomicBool::new(false));
    let makers: Vec<_> = (0..4)
        .map(|maker| {
            let (admin, bot, over) = (acme.admin.clone(), bot.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut made = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let name = format!("key {maker}-{}", made.len());
                    let key = admin.create_key(owned(&bot, &name, &[])).await.unwrap();
                    made.push(key.key.unwrap().id);
                }
                made
            })
        })
        .collect();
    let mut reported = Vec::new();
    for _ in 0..30 {
        let answer = acme.admin.revoke_keys(revoke(&bot)).await.unwrap();
        reported.extend(answer.keys.into_iter().map(|it| it.key_id));
    }
    over.store(true, Ordering::SeqCst);
    let mut made = Vec::new();
    for maker in makers {
        made.extend(maker.await.unwrap());
    }
    let last = acme.admin.revoke_keys(revoke(&bot)).await.unwrap();
    reported.extend(last.keys.into_iter().map(|it| it.key_id));
    assert!(made.len() > 30, "{}", made.len());
    reported.sort();
    made.sort();
    assert_eq!(reported, made, "each key was reported once");
}

//! Roles of an organization's own, and who has them: what is changed is felt by the next
//! question, whichever way it is asked.

use keyledger::proto::effective_permissions_request::Subject;
use keyledger::proto::holder::Holder as Who;
use keyledger::proto::verify_batch_answer::Answer;
use keyledger::proto::{self, DecisionCode};
use prost_types::Timestamp;
use tonic::Code;

use super::support::{
    Acme, Client, DNS_MANAGER, OPERATOR_ADMIN, VerifyStream, about, refused, rejected, scoped,
    texts, with_roles,
};

fn role(name: &str, permissions: &[&str]) -> proto::CreateRoleRequest {
    proto::CreateRoleRequest {
        name: name.into(),
        description: "a role".into(),
        permissions: texts(permissions),
        ..Default::default()
    }
}

/// Makes a role; gives its identifier.
pub(crate) async fn make_role(admin: &Client, name: &str, permissions: &[&str]) -> String {
    admin.create_role(role(name, permissions)).await.unwrap().role.unwrap().id
}

/// Makes a service account without roles; gives its identifier.
pub(crate) async fn make_account(admin: &Client, name: &str) -> String {
    let request = proto::CreateServiceAccountRequest { name: name.into(), ..Default::default() };
    admin.create_service_account(request).await.unwrap().service_account.unwrap().id
}

fn grant(account: &str, role_id: &str, domain: &str) -> proto::GrantRoleRequest {
    proto::GrantRoleRequest {
        principal: Some(proto::grant_role_request::Principal::ServiceAccountId(account.into())),
        role_id: role_id.into(),
        domain: domain.into(),
        ..Default::default()
    }
}

/// Grants a role; gives the grant's identifier.
pub(crate) async fn give(admin: &Client, account: &str, role_id: &str, domain: &str) -> String {
    admin.grant_role(grant(account, role_id, domain)).await.unwrap().grant.unwrap().id
}

fn edit(role_id: &str, permissions: &[&str]) -> proto::UpdateRoleRequest {
    let permissions = Some(proto::RolePermissions { permissions: texts(permissions) });
    proto::UpdateRoleRequest { role_id: role_id.into(), permissions, ..Default::default() }
}

async fn own_key(admin: &Client, account: &str, name: &str) -> (String, String) {
    let request = proto::CreateKeyRequest {
        service_account_id: account.into(),
        name: name.into(),
        ..Default::default()
    };
    let made = admin.create_key(request).await.unwrap();
    (made.key.unwrap().id, made.secret)
}

/// Asks on all three ways, and gives the one answer.
async fn code(
    operator: &Client,
    stream: &mut VerifyStream,
    secret: &str,
    wanted: &str,
    domain: &str,
) -> DecisionCode {
    let question = proto::VerifyRequest { domain: domain.into(), ..about(secret, &[wanted]) };
    let alone = operator.verify(question.clone()).await.unwrap().code();
    let request =
        proto::VerifyBatchRequest { questions: vec![question.clone()], ..Default::default() };
    let in_batch = operator.verify_batch(request).await.unwrap().answers.remove(0);
    let Some(Answer::Decision(in_batch)) = in_batch.answer else { panic!("{in_batch:?}") };
    let in_stream = stream.decide(1, question).await.unwrap();
    assert_eq!([in_batch.code(), in_stream.code()], [alone; 2]);
    alone
}

use DecisionCode::{Allowed, DomainNotAllowed, PermissionDenied};

#[tokio::test]
async fn a_change_is_felt_by_the_next_question_on_every_way() {
    let acme = Acme::new().await;
    let (admin, operator) = (&acme.admin, &acme.operator);
    let mut stream = operator.verify_stream().await.unwrap();
    let bot = make_account(admin, "bot").await;
    let (_, secret) = own_key(admin, &bot, "key").await;
    let editor = make_role(admin, "zone-editor", &["dns:read"]).await;
    let by_role = admin.create_key(with_roles("", "by role", &[&editor])).await.unwrap().secret;
    let stream = &mut stream;
    assert_eq!(code(operator, stream, &secret, "dns:read", "").await, PermissionDenied);
    let given = give(admin, &bot, &editor, "").await;
    assert_eq!(code(operator, stream, &secret, "dns:read", "").await, Allowed);
    for (permissions, read, write) in [
        (&["dns:write"][..], PermissionDenied, Allowed),
        (&["dns:*"], Allowed, Allowed),
        (&["cache:purge"], PermissionDenied, PermissionDenied),
        (&["dns:read"], Allowed, PermissionDenied),
    ] {
        admin.update_role(edit(&editor, permissions)).await.unwrap();
        for secret in [&secret, &by_role] {
            assert_eq!(code(operator, stream, secret, "dns:read", "").await, read);
            assert_eq!(code(operator, stream, secret, "dns:write", "").await, write);
        }
    }
    let request = proto::RevokeGrantRequest { grant_id: given, ..Default::default() };
    admin.revoke_grant(request).await.unwrap();
    assert_eq!(code(operator, stream, &secret, "dns:read", "").await, PermissionDenied);
    // For one domain.
    give(admin, &bot, &editor, "example.com").await;
    for (domain, expected) in [
        ("example.com", Allowed),
        ("", DomainNotAllowed),
        ("www.example.com", DomainNotAllowed),
        ("other.example", DomainNotAllowed),
    ] {
        assert_eq!(code(operator, stream, &secret, "dns:read", domain).await, expected, "{domain}");
        let other = code(operator, stream, &secret, "dns:write", domain).await;
        assert_eq!(other, PermissionDenied);
    }
    let there = proto::VerifyRequest { domain: "example.com".into(), ..about(&secret, &[]) };
    let listed = operator.verify(there).await.unwrap();
    assert_eq!(
        (&listed.roles[0].name[..], &listed.permissions[..]),
        ("zone-editor", &texts(&["dns:read"])[..])
    );
    assert!(operator.verify(about(&secret, &[])).await.unwrap().roles.is_empty());
    // Retired, it permits nothing to anybody, and stays listed.
    let request = proto::RetireRoleRequest { role_id: editor.clone(), ..Default::default() };
    let retired = admin.retire_role(request).await.unwrap().role.unwrap();
    assert!(retired.retired_at.is_some());
    for (secret, domain) in [(&secret, "example.com"), (&by_role, "")] {
        assert_eq!(code(operator, stream, secret, "dns:read", domain).await, PermissionDenied);
    }
    let request = proto::GetRoleRequest { role_id: editor.clone(), ..Default::default() };
    assert_eq!(admin.get_role(request).await.unwrap().role.unwrap(), retired);
    rejected(admin.grant_role(grant(&bot, &editor, "")).await, "ROLE_RETIRED");
}

/// All that can be asked about roles, but for where it was read: what was denied meanwhile is
/// an event, too.
async fn everything(admin: &Client, operator: &Client, bot: &str, secret: &str) -> Vec<String> {
    let roles = admin.list_roles(Default::default()).await.unwrap().roles;
    let grants = admin.list_grants(Default::default()).await.unwrap().grants;
    let subject = Some(Subject::ServiceAccountId(bot.into()));
    let request = proto::EffectivePermissionsRequest { subject, ..Default::default() };
    let held = admin.effective_permissions(request).await.unwrap().permissions;
    let mut all = vec![format!("{roles:?}"), format!("{grants:?}"), format!("{held:?}")];
    for wanted in ["dns:read", "dns:write", "cache:purge"] {
        let request = proto::WhoHoldsRequest { permission: wanted.into(), ..Default::default() };
        let holders = admin.who_holds(request).await.unwrap().holders;
        all.push(format!("{holders:?}"));
        for domain in ["", "example.com"] {
            let question =
                proto::VerifyRequest { domain: domain.into(), ..about(secret, &[wanted]) };
            let answer = operator.verify(question).await.unwrap();
            all.push(format!("{:?} {:?} {:?}", answer.code(), answer.roles, answer.permissions));
        }
    }
    all
}

#[tokio::test]
async fn a_start_from_snapshots_and_one_from_history_come_to_the_same() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let bot = make_account(admin, "bot").await;
    let (_, secret) = own_key(admin, &bot, "key").await;
    let reader = make_role(admin, "reader", &["dns:read"]).await;
    let writer = make_role(admin, "writer", &["dns:write", "dns:read"]).await;
    let purger = make_role(admin, "purger", &["cache:purge"]).await;
    give(admin, &bot, &reader, "").await;
    give(admin, &bot, &writer, "example.com").await;
    let lasting = proto::GrantRoleRequest {
        expiry: Some(proto::grant_role_request::Expiry::Lifetime(prost_types::Duration {
            seconds: 3_600,
            nanos: 0,
        })),
        ..grant(&bot, DNS_MANAGER, "other.example")
    };
    admin.grant_role(lasting).await.unwrap();
    let over = give(admin, &bot, &purger, "").await;
    let over = proto::RevokeGrantRequest { grant_id: over, ..Default::default() };
    admin.revoke_grant(over).await.unwrap();
    admin.update_role(edit(&reader, &["dns:read", "waf:read"])).await.unwrap();
    let retired = proto::RetireRoleRequest { role_id: purger, ..Default::default() };
    admin.retire_role(retired).await.unwrap();
    let before = everything(admin, &acme.operator, &bot, &secret).await;
    let admin_secret = acme.admin_secret.clone();
    acme.server.stop().await;
    for from_history in [false, true] {
        if from_history {
            for file in ["projections.db", "projections.db-wal", "projections.db-shm"] {
                let _ = std::fs::remove_file(acme.home.data().join(file));
            }
        }
        let server = acme.home.start().await;
        let (admin, operator) =
            (server.client(&admin_secret), server.client(&acme.home.admin_key()));
        let after = everything(&admin, &operator, &bot, &secret).await;
        assert_eq!(after, before, "from history: {from_history}");
        server.stop().await;
    }
}

#[tokio::test]
async fn what_belongs_to_another_organization_is_as_absent_as_what_never_was() {
    let acme = Acme::new().await;
    let (admin, operator) = (&acme.admin, &acme.operator);
    let bot = make_account(admin, "bot").await;
    let own = make_role(admin, "own", &["a:b"]).await;
    let given = give(admin, &bot, &own, "").await;
    let other = operator.organization("globex", "glx", "").await;
    let stranger = operator.create_key(scoped(&other, "stranger", &["org:admin"])).await.unwrap();
    let stranger = operator.with_key(&stranger.secret);
    let foreign = make_account(&stranger, "foreign").await;
    rejected(stranger.update_role(edit(&own, &["a:b"])).await, "ROLE_NOT_FOUND");
    rejected(stranger.grant_role(grant(&foreign, &own, "")).await, "ROLE_NOT_FOUND");
    rejected(stranger.grant_role(grant(&bot, DNS_MANAGER, "")).await, "SERVICE_ACCOUNT_NOT_FOUND");
    let request = proto::RetireRoleRequest { role_id: own.clone(), ..Default::default() };
    rejected(stranger.retire_role(request.clone()).await, "ROLE_NOT_FOUND");
    let revoke = proto::RevokeGrantRequest { grant_id: given, ..Default::default() };
    rejected(stranger.revoke_grant(revoke).await, "GRANT_NOT_FOUND");
    let get = proto::GetRoleRequest { role_id: own.clone(), ..Default::default() };
    rejected(stranger.get_role(get).await, "ROLE_NOT_FOUND");
    rejected(stranger.create_key(with_roles("", "x", &[&own])).await, "ROLE_NOT_FOUND");
    let subject = Some(Subject::ServiceAccountId(bot.clone()));
    let request = proto::EffectivePermissionsRequest { subject, ..Default::default() };
    rejected(stranger.effective_permissions(request).await, "SERVICE_ACCOUNT_NOT_FOUND");
    let named = proto::ListRolesRequest { organization_id: acme.id.clone(), ..Default::default() };
    rejected(stranger.list_roles(named).await, "OTHER_ORGANIZATION");
    let roles = stranger.list_roles(Default::default()).await.unwrap().roles;
    assert!(roles.iter().all(|it| it.built_in && it.id != OPERATOR_ADMIN), "{roles:?}");
    // What the operator defines for itself is no tenant's either.
    let request =
        proto::CreateRoleRequest { organization_id: "operator".into(), ..role("ours", &["a:b"]) };
    let ours = operator.create_role(request).await.unwrap().role.unwrap().id;
    for id in [&ours[..], OPERATOR_ADMIN] {
        rejected(admin.grant_role(grant(&bot, id, "")).await, "ROLE_NOT_FOUND");
        rejected(admin.create_key(with_roles("", "x", &[id])).await, "ROLE_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_repeat_gives_the_same_and_a_stale_view_is_refused() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let bot = make_account(admin, "bot").await;
    let create =
        proto::CreateRoleRequest { idempotency_key: "r".into(), ..role("editor", &["dns:read"]) };
    let made = admin.create_role(create.clone()).await.unwrap();
    assert_eq!(admin.create_role(create.clone()).await.unwrap(), made);
    let other = proto::CreateRoleRequest { name: "else".into(), ..create };
    rejected(admin.create_role(other).await, "IDEMPOTENCY_KEY_REUSED");
    rejected(admin.create_role(role("editor", &["dns:read"])).await, "ROLE_NAME_TAKEN");
    rejected(admin.create_role(role("dns-manager", &["dns:read"])).await, "ROLE_NAME_RESERVED");
    let made = made.role.unwrap();
    let grant = proto::GrantRoleRequest {
        idempotency_key: "g".into(),
        ..grant(&bot, &made.id, "a.example")
    };
    let granted = admin.grant_role(grant.clone()).await.unwrap();
    assert_eq!(admin.grant_role(grant.clone()).await.unwrap(), granted);
    let again = proto::GrantRoleRequest { idempotency_key: String::new(), ..grant.clone() };
    rejected(admin.grant_role(again).await, "GRANT_EXISTS");
    let grant_id = granted.grant.clone().unwrap().id;
    let revoke =
        proto::RevokeGrantRequest { grant_id, idempotency_key: "v".into(), ..Default::default() };
    let revoked = admin.revoke_grant(revoke.clone()).await.unwrap();
    assert_eq!(admin.revoke_grant(revoke.clone()).await.unwrap(), revoked);
    let again = proto::RevokeGrantRequest { idempotency_key: String::new(), ..revoke };
    rejected(admin.revoke_grant(again).await, "GRANT_NOT_FOUND");
    // What was granted is told even when it is no more.
    assert_eq!(admin.grant_role(grant).await.unwrap(), granted);
    let revision = acme.revision().await;
    let stale = proto::UpdateRoleRequest {
        expected_revision: Some(revision - 1),
        ..edit(&made.id, &["dns:write"])
    };
    rejected(admin.update_role(stale.clone()).await, "WRONG_EXPECTED_REVISION");
    let fresh = proto::UpdateRoleRequest {
        expected_revision: Some(revision),
        idempotency_key: "u".into(),
        name: "keeper".into(),
        ..stale
    };
    let updated = admin.update_role(fresh.clone()).await.unwrap();
    assert_eq!(admin.update_role(fresh).await.unwrap(), updated);
    let updated = updated.role.unwrap();
    assert_eq!((&updated.name[..], &updated.description[..]), ("keeper", "a role"));
    assert_eq!(updated.permissions, ["dns:write"]);
    let built_in = rejected(admin.update_role(edit(DNS_MANAGER, &["a:b"])).await, "ROLE_BUILT_IN");
    assert_eq!(built_in.code(), Code::FailedPrecondition);
    let retire = proto::RetireRoleRequest {
        role_id: made.id,
        comment: "over".into(),
        idempotency_key: "t".into(),
        ..Default::default()
    };
    let retired = admin.retire_role(retire.clone()).await.unwrap();
    assert_eq!(admin.retire_role(retire.clone()).await.unwrap(), retired);
    let again = proto::RetireRoleRequest { idempotency_key: String::new(), ..retire };
    rejected(admin.retire_role(again).await, "ROLE_RETIRED");
    // Its name is free.
    make_role(admin, "keeper", &["dns:read"]).await;
}

#[tokio::test]
async fn every_field_is_looked_at() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let bot = make_account(admin, "bot").await;
    let own = make_role(admin, "own", &["a:b"]).await;
    let invalid = |answer, field: &str| {
        refused::<()>(answer, Code::InvalidArgument, &format!("`{field}`"));
    };
    let many: Vec<String> = (0..101).map(|n| format!("a:b{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (name, permissions, field) in [
        ("", &["a:b"][..], "name"),
        ("Admin", &["a:b"], "name"),
        ("a b", &["a:b"], "name"),
        ("\u{430}dmin", &["a:b"], "name"),
        ("x", &[], "permissions"),
        ("x", &many, "permissions"),
        ("x", &["a:b", "a"], "permissions[1]"),
        ("x", &["a:b", "a.b"], "permissions[1]"),
        ("x", &["a*:b"], "permissions[0]"),
    ] {
        invalid(admin.create_role(role(name, permissions)).await.map(drop), field);
    }
    let plain = |description: &str| proto::CreateRoleRequest {
        description: description.into(),
        ..role("x", &["a:b"])
    };
    for wrong in ["", "\u{1}", &"x".repeat(501)] {
        invalid(admin.create_role(plain(wrong)).await.map(drop), "description");
    }
    let empty = edit(&own, &[]);
    invalid(admin.update_role(empty).await.map(drop), "permissions.permissions");
    invalid(admin.update_role(edit("own", &["a:b"])).await.map(drop), "role_id");
    let named = proto::UpdateRoleRequest { name: "X".into(), ..edit(&own, &["a:b"]) };
    invalid(admin.update_role(named).await.map(drop), "name");
    for domain in ["com", "Example.com", "a..b", "192.0.2.7", "*.example.com", "example.com."] {
        invalid(admin.grant_role(grant(&bot, &own, domain)).await.map(drop), "domain");
        let question = proto::VerifyRequest { domain: domain.into(), ..about("x", &[]) };
        invalid(acme.operator.verify(question).await.map(drop), "domain");
    }
    invalid(admin.grant_role(grant("bot", &own, "")).await.map(drop), "service_account_id");
    invalid(admin.grant_role(grant(&bot, "own", "")).await.map(drop), "role_id");
    let nobody = proto::GrantRoleRequest { principal: None, ..grant(&bot, &own, "") };
    invalid(admin.grant_role(nobody).await.map(drop), "principal");
    use proto::grant_role_request::Expiry;
    for (expiry, field) in [
        (Expiry::ExpiresAt(Timestamp { seconds: 0, nanos: -1 }), "expires_at"),
        (Expiry::ExpiresAt(Timestamp { seconds: 1, nanos: 0 }), "expires_at"),
        (Expiry::Lifetime(prost_types::Duration { seconds: 0, nanos: 0 }), "lifetime"),
    ] {
        let over = proto::GrantRoleRequest { expiry: Some(expiry), ..grant(&bot, &own, "") };
        invalid(admin.grant_role(over).await.map(drop), field);
    }
    let comment = "x".repeat(501);
    let talk = proto::GrantRoleRequest { comment: comment.clone(), ..grant(&bot, &own, "") };
    invalid(admin.grant_role(talk).await.map(drop), "comment");
    let talk = proto::RetireRoleRequest { role_id: own.clone(), comment, ..Default::default() };
    invalid(admin.retire_role(talk).await.map(drop), "comment");
    let wrong = proto::RevokeGrantRequest { grant_id: own.clone(), ..Default::default() };
    invalid(admin.revoke_grant(wrong).await.map(drop), "grant_id");
    for permission in ["", "a", "a:*"] {
        let request =
            proto::WhoHoldsRequest { permission: permission.into(), ..Default::default() };
        invalid(admin.who_holds(request).await.map(drop), "permission");
    }
    let request = proto::WhoHoldsRequest {
        permission: "a:b".into(),
        page_token: "x".into(),
        ..Default::default()
    };
    invalid(admin.who_holds(request).await.map(drop), "page_token");
    let page = proto::ListGrantsRequest { page_size: 1_001, ..Default::default() };
    invalid(admin.list_grants(page).await.map(drop), "page_size");
    invalid(admin.effective_permissions(Default::default()).await.map(drop), "subject");
    let subject = Some(Subject::KeyId("key_".into()));
    let request = proto::EffectivePermissionsRequest { subject, ..Default::default() };
    invalid(admin.effective_permissions(request).await.map(drop), "key_id");
}

#[tokio::test]
async fn who_holds_what_and_why() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let (one, two) = (make_account(admin, "one").await, make_account(admin, "two").await);
    let editor = make_role(admin, "editor", &["dns:*"]).await;
    let everywhere = give(admin, &one, &editor, "").await;
    let there = give(admin, &two, &editor, "b.example").await;
    give(admin, &two, &editor, "a.example").await;
    let (scoped_id, _) = acme.key("scoped", &["dns:read"]).await;
    acme.key("other", &["dns:write"]).await;
    let (gone, _) = acme.key("gone", &["dns:read"]).await;
    admin.revoke("", &gone).await.unwrap();
    // Page by page, each of one.
    let mut holders = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::WhoHoldsRequest {
            permission: "dns:read".into(),
            page_size: 1,
            page_token,
            ..Default::default()
        };
        let page = admin.who_holds(request).await.unwrap();
        holders.extend(page.holders);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let told: Vec<_> = holders
        .iter()
        .map(|it| (it.name.as_str(), it.everywhere, it.domains.join(","), it.roles.len()))
        .collect();
    assert_eq!(
        told,
        [
            ("one", true, String::new(), 1),
            ("two", false, "a.example,b.example".into(), 1),
            ("admin", true, String::new(), 0),
            ("scoped", true, String::new(), 0),
        ]
    );
    assert_eq!(holders[0].holder, Some(Who::ServiceAccountId(one.clone())));
    assert_eq!(holders[3].holder, Some(Who::KeyId(scoped_id.clone())));
    let effective = async |subject| {
        let request =
            proto::EffectivePermissionsRequest { subject: Some(subject), ..Default::default() };
        admin.effective_permissions(request).await.unwrap()
    };
    let (key, _) = own_key(admin, &two, "its key").await;
    for subject in [Subject::ServiceAccountId(two.clone()), Subject::KeyId(key)] {
        let answer = effective(subject).await;
        let held = answer.permissions.iter();
        let held: Vec<_> = held.map(|it| (it.permission.as_str(), it.domain.as_str())).collect();
        assert_eq!(held, [("dns:*", "b.example"), ("dns:*", "a.example")]);
        assert_eq!(answer.permissions[0].grant_id, there);
        assert_eq!(answer.permissions[0].role.as_ref().unwrap().id, editor);
    }
    let own = effective(Subject::KeyId(scoped_id)).await;
    assert_eq!((own.in_force, own.permissions[0].permission.as_str()), (true, "dns:read"));
    assert_eq!(own.permissions[0].role, None);
    let over = effective(Subject::KeyId(gone)).await;
    assert!(!over.in_force && over.permissions.is_empty());
    // Grants, by role and by principal.
    let grants = async |role_id: &str, account: &str| {
        let request = proto::ListGrantsRequest {
            role_id: role_id.into(),
            service_account_id: account.into(),
            ..Default::default()
        };
        let listed = admin.list_grants(request).await.unwrap().grants;
        listed.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(grants("", "").await.len(), 3);
    assert_eq!(grants(&editor, "").await.len(), 3);
    assert_eq!(grants("", &one).await, [everywhere]);
    assert_eq!(grants(&editor, &two).await.len(), 2);
    assert!(grants(DNS_MANAGER, &two).await.is_empty());
}

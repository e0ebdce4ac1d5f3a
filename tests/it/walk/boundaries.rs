//! What is presented decides, nothing crosses organizations, nobody gives what they lack.

use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, Environment, GetOrganizationRequest, ListKeysRequest,
    RevokeKeyRequest, Scopes, ServiceAccess, VerifyRequest,
};
use tonic::{Code, Status};

use super::get;
use crate::support::{
    ADMIN, Acme, Client, DNS_MANAGER, OPERATOR_ADMIN, READ_ONLY_ADMIN, reason, refused, scoped,
    texts, with_roles,
};

#[tokio::test]
async fn prefixes_are_unique_and_some_are_kept() {
    let acme = Acme::new().await;
    let create = async |prefix: &str| {
        let request = proto::CreateOrganizationRequest {
            name: "x".into(),
            key_prefix: prefix.into(),
            ..Default::default()
        };
        acme.operator.create_organization(request).await
    };
    refused(create("vtx").await, Code::AlreadyExists, "`vtx` is taken");
    for kept in ["klop", "klbg"] {
        refused(create(kept).await, Code::InvalidArgument, "is reserved");
    }
    let two = create("cspm").await.unwrap();
    assert_eq!(two.revisions.len(), 2);
    assert_eq!(two.revisions[1].stream, "org-operator");
    let list = acme.operator.list_organizations(Default::default()).await.unwrap();
    let prefixes: Vec<_> = list.organizations.iter().map(|it| it.key_prefix.as_str()).collect();
    assert_eq!(prefixes, ["vtx", "cspm"]);
    let own = acme.admin.get_organization(GetOrganizationRequest::default()).await.unwrap();
    assert_eq!(own.organization.as_ref(), Some(&list.organizations[0]));
}

#[tokio::test]
async fn what_is_presented_decides_in_a_fixed_way() {
    use DecisionCode::{Allowed, Ambiguous, Malformed, NoCredential, TenantMismatch, Unknown};
    let acme = Acme::new().await;
    let (_, a) = acme.key("a", &["x:y"]).await;
    let (_, b) = acme.key("b", &["x:y"]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let foreign = acme.operator.create_key(scoped(&other, "f", &["x:y"])).await.unwrap().secret;
    let mut typo = a.clone();
    typo.replace_range(20..21, if &a[20..21] == "x" { "y" } else { "x" });
    let bearer = |key: &str| format!("Bearer {key}");
    let check = async |request: VerifyRequest, expected: DecisionCode| {
        let shown = format!("{request:?}");
        let answer = acme.operator.verify(request).await.unwrap();
        assert_eq!(answer.code(), expected, "{shown}");
        let known = matches!(expected, Allowed | TenantMismatch);
        assert_eq!(!answer.organization_id.is_empty(), known, "{answer:?}");
        assert_eq!(!answer.revisions.is_empty(), known, "{answer:?}");
        assert!(answer.correlation_id.starts_with("cor_"));
    };
    let with = |authorization: &[String], api_key: &[&str], admin: &[&str]| VerifyRequest {
        authorization: authorization.to_vec(),
        api_key: texts(api_key),
        admin_api_key: texts(admin),
        ..Default::default()
    };
    check(with(&[], &[], &[]), NoCredential).await;
    check(with(&[bearer(&a)], &[], &[]), Allowed).await;
    check(with(&[format!("bearer   {a}")], &[], &[]), Allowed).await;
    check(with(&[], &[&a], &[]), Allowed).await;
    check(with(&[], &[], &[&a]), Allowed).await;
    // The same value twice is one; two are ambiguous, wherever they stand.
    check(with(&[bearer(&a), bearer(&a)], &[&a], &[&a]), Allowed).await;
    check(with(&[bearer(&a)], &[&b], &[]), Ambiguous).await;
    check(with(&[], &[&a, &b], &[]), Ambiguous).await;
    check(with(&[], &[&a], &[&b]), Ambiguous).await;
    let alone = VerifyRequest { credential: a.clone(), ..with(&[], &[&b], &[]) };
    check(alone, Ambiguous).await;
    // Malformed is what no look-up is needed for.
    check(with(&["Basic dXNlcjpwdw==".into()], &[], &[]), Malformed).await;
    check(with(&["Basic dXNlcjpwdw==".into()], &[&a], &[]), Allowed).await;
    for bad in [typo.as_str(), "x", "vtx_live_", &a[1..], &format!("{a}0"), &"x".repeat(513)] {
        check(with(&[], &[bad], &[]), Malformed).await;
    }
    // A session's form is tried first, and its failure is no reason to try the key.
    check(with(&[bearer("a.b.c")], &[&a], &[]), Malformed).await;
    // Well formed, never issued: the same text of another installation.
    let elsewhere = Acme::new().await;
    check(with(&[], &[&elsewhere.admin_secret], &[]), Unknown).await;
    // The organization that the request claims to be for.
    for (tenant, expected) in [(&acme.id, Allowed), (&other, TenantMismatch)] {
        let request = VerifyRequest { tenant_id: tenant.clone(), ..with(&[], &[&a], &[]) };
        check(request, expected).await;
    }
    let request = VerifyRequest { tenant_id: "acme".into(), ..with(&[], &[&a], &[]) };
    refused(acme.operator.verify(request).await, Code::InvalidArgument, "`tenant_id`");

    // A verifier of one organization knows only its own credentials: all others are
    // unknown to it, whatever they are.
    let (_, verifier) = acme.key("verifier", &["credentials:verify"]).await;
    let verifier = acme.admin.with_key(&verifier);
    assert_eq!(verifier.code(with(&[], &[&a], &[])).await, Allowed);
    let never = elsewhere.admin_secret.clone();
    for strange in [&foreign, &acme.home.admin_key(), &never] {
        let mut answer = verifier.ask(strange, &["x:y"]).await;
        answer.correlation_id.clear();
        let nothing = proto::VerifyResponse { code: Unknown.into(), ..Default::default() };
        assert_eq!(answer, nothing);
        let request =
            VerifyRequest { tenant_id: other.clone(), ..with(&[], &[strange.as_str()], &[]) };
        assert_eq!(verifier.code(request).await, Unknown);
    }
    // Given, a correlation id is kept.
    let request = VerifyRequest { correlation_id: "trace-1".into(), ..with(&[], &[&a], &[]) };
    assert_eq!(verifier.verify(request).await.unwrap().correlation_id, "trace-1");
    // Lists have a limit.
    let eight = with(&vec![bearer(&a); 8], &[a.as_str(); 8], &[a.as_str(); 8]);
    assert_eq!(verifier.code(eight).await, Allowed);
    for (nine, field) in [
        (with(&vec![bearer(&a); 9], &[], &[]), "`authorization`"),
        (with(&[], &[a.as_str(); 9], &[]), "`api_key`"),
        (with(&[], &[], &[a.as_str(); 9]), "`admin_api_key`"),
    ] {
        refused(verifier.verify(nine).await, Code::InvalidArgument, field);
    }
}

/// What every method says to another organization's administrator who names this one.
async fn say(client: &Client, organization: &str, key: &str) -> Vec<Result<(), Status>> {
    let (organization_id, key_id) = (organization.to_owned(), key.to_owned());
    vec![
        client.create_key(scoped(organization, "x", &["a:b"])).await.map(drop),
        client.get_key(get(organization, key)).await.map(drop),
        client
            .list_keys(ListKeysRequest {
                organization_id: organization_id.clone(),
                ..Default::default()
            })
            .await
            .map(drop),
        client
            .revoke_key(RevokeKeyRequest {
                organization_id: organization_id.clone(),
                key_id,
                ..Default::default()
            })
            .await
            .map(drop),
        client.get_organization(GetOrganizationRequest { organization_id }).await.map(drop),
    ]
}

#[tokio::test]
async fn nothing_crosses_from_one_organization_to_another() {
    let acme = Acme::new().await;
    let (key, _) = acme.key("ci", &["a:b"]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let stranger = acme.operator.create_key(scoped(&other, "s", &["org:admin"])).await.unwrap();
    let (stranger_key, stranger) =
        (stranger.key.unwrap().id, acme.operator.with_key(&stranger.secret));
    let before = acme.home.facts();
    let shown = |answers: Vec<Result<(), Status>>| -> Vec<(Code, String)> {
        answers
            .into_iter()
            .map(|answer| {
                let status = answer.unwrap_err();
                (status.code(), format!("{}: {}", status.message(), reason(&status)))
            })
            .collect()
    };
    // Identical whether the organization and the key exist or not, and refused.
    let real = shown(say(&stranger, &acme.id, &key).await);
    assert!(real.iter().all(|(code, _)| *code == Code::PermissionDenied), "{real:?}");
    for (organization, key) in [
        ("org_00000000000000000000000009", key.as_str()),
        (&acme.id, "key_00000000000000000000000009"),
        ("operator", &key),
    ] {
        assert_eq!(shown(say(&stranger, organization, key).await), real);
    }
    // In its own organization, another's key is as absent as one that never was.
    for absent in [key.as_str(), "key_00000000000000000000000009"] {
        let status = stranger.get_key(get("", absent)).await;
        refused(status, Code::NotFound, &format!("key `{absent}` not found"));
        refused(stranger.revoke("", absent).await, Code::NotFound, "not found");
        // Even an operator does not reach it through the wrong organization.
        refused(acme.operator.get_key(get(&other, absent)).await, Code::NotFound, "not found");
    }
    // What only operators may do.
    refused(stranger.get_status(proto::GetStatusRequest {}).await, Code::PermissionDenied, "");
    refused(stranger.list_organizations(Default::default()).await, Code::PermissionDenied, "");
    let request = proto::CreateOrganizationRequest {
        name: "x".into(),
        key_prefix: "xyz".into(),
        ..Default::default()
    };
    refused(stranger.create_organization(request).await, Code::PermissionDenied, "");
    // A page token of one organization continues no other's list.
    acme.key("second", &["a:b"]).await;
    let page = ListKeysRequest { page_size: 1, ..Default::default() };
    let token = acme.admin.list_keys(page.clone()).await.unwrap().next_page_token;
    let page = ListKeysRequest { page_token: token, ..page };
    refused(stranger.list_keys(page.clone()).await, Code::InvalidArgument, "`page_token`");
    acme.admin.list_keys(page).await.unwrap();
    // An operator acts in an organization only by naming it.
    refused(
        acme.operator.create_key(scoped("", "x", &["a:b"])).await,
        Code::InvalidArgument,
        "name one, or `operator`",
    );
    // Nothing was written by any of it.
    assert_eq!(acme.home.facts(), before + 1);
    stranger.get_key(get("", &stranger_key)).await.unwrap();
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_hold() {
    let acme = Acme::new().await;
    let held = ["api-keys:write", "api-keys:read", "dns:read", "dns:write"];
    let (_, limited) = acme.key("limited", &held).await;
    let limited = acme.admin.with_key(&limited);
    limited.create_key(scoped("", "within", &["dns:read"])).await.unwrap();
    let check = async |client: &Client, request: CreateKeyRequest, expected: &str| {
        let before = acme.home.facts();
        let shown = format!("{request:?}");
        let Err(status) = client.create_key(request).await else { panic!("accepted: {shown}") };
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert_eq!(reason(&status), expected, "{shown}");
        assert_eq!(acme.home.facts(), before);
    };
    let not_held = "PERMISSION_NOT_HELD";
    // Scopes.
    check(&limited, scoped("", "n", &["cache:purge"]), not_held).await;
    check(&limited, scoped("", "n", &["dns:read", "cache:purge"]), not_held).await;
    check(&limited, scoped("", "n", &["org:admin"]), not_held).await;
    check(&limited, scoped("", "n", &["credentials:verify"]), not_held).await;
    // Roles and their wildcards: `dns:*` is more than the two it holds.
    check(&limited, with_roles("", "n", &[DNS_MANAGER]), not_held).await;
    check(&limited, with_roles("", "n", &[ADMIN]), not_held).await;
    check(&limited, with_roles("", "n", &[READ_ONLY_ADMIN]), not_held).await;
    // A role that scopes narrow to what is held gives no more than that.
    let narrowed = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["dns:read"]) }),
        ..with_roles("", "narrowed", &[DNS_MANAGER])
    };
    limited.create_key(narrowed).await.unwrap();
    let wide = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["org:admin"]) }),
        ..with_roles("", "n", &[DNS_MANAGER])
    };
    check(&limited, wide, not_held).await;
    // A role held can be given; another cannot.
    let scopes = Scopes { permissions: texts(&["api-keys:write", "dns:write"]) };
    let by_role = CreateKeyRequest { scopes: Some(scopes), ..with_roles("", "r", &[ADMIN]) };
    let by_role = acme.admin.create_key(by_role).await.unwrap().secret;
    let by_role = acme.admin.with_key(&by_role);
    by_role.create_key(scoped("", "from role", &["dns:write"])).await.unwrap();
    check(&by_role, scoped("", "n", &["dns:read"]), not_held).await;
    check(&by_role, with_roles("", "n", &[ADMIN]), not_held).await;
    // Environment: a test key neither makes nor ends live ones.
    let tester = CreateKeyRequest {
        environment: Environment::Test.into(),
        ..scoped("", "tester", &["org:admin"])
    };
    let tester = acme.admin.with_key(&acme.admin.create_key(tester).await.unwrap().secret);
    for environment in [Environment::Live, Environment::Unspecified] {
        let request =
            CreateKeyRequest { environment: environment.into(), ..scoped("", "n", &["a:b"]) };
        check(&tester, request, "ENVIRONMENT_NOT_HELD").await;
    }
    let test_key =
        CreateKeyRequest { environment: Environment::Test.into(), ..scoped("", "t", &["a:b"]) };
    tester.create_key(test_key).await.unwrap();
    let (live, _) = acme.key("live", &["a:b"]).await;
    let status = refused(tester.revoke("", &live).await, Code::PermissionDenied, "test key");
    assert_eq!(reason(&status), "ENVIRONMENT_NOT_HELD");
    // Services.
    let some = |services: &[&str]| Some(ServiceAccess { services: texts(services) });
    let listed = CreateKeyRequest {
        services: some(&["keyledger", "dns"]),
        ..scoped("", "listed", &["org:admin"])
    };
    let listed = acme.admin.with_key(&acme.admin.create_key(listed).await.unwrap().secret);
    for services in [None, some(&["waf"]), some(&["dns", "waf"])] {
        let request = CreateKeyRequest { services, ..scoped("", "n", &["a:b"]) };
        check(&listed, request, "SERVICE_NOT_HELD").await;
    }
    let request = CreateKeyRequest { services: some(&["dns"]), ..scoped("", "d", &["a:b"]) };
    listed.create_key(request).await.unwrap();
    // Neither scopes nor roles: nothing to give.
    let request = CreateKeyRequest { name: "none".into(), ..Default::default() };
    refused(acme.admin.create_key(request).await, Code::InvalidArgument, "needs `scopes`");
    refused(
        acme.admin.create_key(scoped("", "none", &[])).await,
        Code::InvalidArgument,
        "`scopes.permissions`",
    );
    // Wildcards stand in no key.
    for wild in ["*:*", "dns:*", "*:read"] {
        refused(
            acme.admin.create_key(scoped("", "w", &[wild])).await,
            Code::InvalidArgument,
            "`scopes.permissions`",
        );
    }
    // An operator with few permissions holds no more in an organization either.
    let request = scoped("operator", "helper", &["api-keys:write", "dns:read"]);
    let helper = acme.operator.create_key(request).await.unwrap();
    let helper = acme.operator.with_key(&helper.secret);
    helper.create_key(scoped(&acme.id, "helped", &["dns:read"])).await.unwrap();
    check(&helper, scoped(&acme.id, "n", &["dns:write"]), not_held).await;
    check(&helper, with_roles("operator", "n", &[OPERATOR_ADMIN]), not_held).await;
}

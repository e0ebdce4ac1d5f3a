//! A console's keys with roles and services, which nobody can edit.

use keyledger::proto::{
    self, CreateKeyRequest, DecisionCode, ListKeysRequest, Scopes, ServiceAccess, VerifyRequest,
};
use tonic::Code;

use crate::support::{
    ADMIN, Acme, DNS_MANAGER, OPERATOR_ADMIN, READ_ONLY_ADMIN, refused, texts, with_roles,
};

#[tokio::test]
async fn a_consoles_keys_with_roles_and_services() {
    let acme = Acme::new().await;
    // The eight roles of the wizard, by their identifiers, and one thing each may do.
    let roles = [
        (2, "admin", "zones:delete", ""),
        (3, "read-only-admin", "zones:read", "zones:delete"),
        (4, "billing-manager", "billing:write", "zones:read"),
        (5, "cache-purger", "cache:purge", "cache:read"),
        (6, "dns-manager", "dns:delete", "waf:write"),
        (7, "security-manager", "waf:write", "dns:delete"),
        (8, "traffic-manager", "load-balancing:write", "billing:read"),
        (9, "insights-analyst", "metrics:read", "metrics:write"),
    ];
    for (number, name, may, may_not) in roles {
        let id = format!("rol_0000000000000000000000000{number}");
        let created =
            acme.admin.create_key(with_roles("", &format!("a {name}"), &[&id])).await.unwrap();
        let key = created.key.unwrap();
        assert_eq!((&key.roles[0].id, key.roles[0].name.as_str()), (&id, name));
        assert!(key.scopes.is_none());
        let answer = acme.operator.ask(&created.secret, &[may]).await;
        assert!(answer.allowed, "{name}: {answer:?}");
        assert_eq!(answer.roles, key.roles);
        if !may_not.is_empty() {
            let answer = acme.operator.ask(&created.secret, &[may_not]).await;
            assert_eq!(answer.code(), DecisionCode::PermissionDenied, "{name}");
        }
    }
    // Roles and scopes narrow each other; several roles add up.
    let both = CreateKeyRequest {
        scopes: Some(Scopes { permissions: texts(&["dns:read", "waf:read"]) }),
        ..with_roles("", "both", &[DNS_MANAGER])
    };
    let both = acme.admin.create_key(both).await.unwrap().secret;
    for (wanted, allowed) in [("dns:read", true), ("dns:write", false), ("waf:read", false)] {
        assert_eq!(acme.operator.ask(&both, &[wanted]).await.allowed, allowed, "{wanted}");
    }
    let two = with_roles("", "two", &[DNS_MANAGER, READ_ONLY_ADMIN]);
    let two = acme.admin.create_key(two).await.unwrap().secret;
    assert!(acme.operator.ask(&two, &["dns:write", "waf:read"]).await.allowed);
    // A role that is not there, or is the operator's alone.
    for role in ["rol_0000000000000000000000000Z", OPERATOR_ADMIN] {
        for client in [&acme.admin, &acme.operator] {
            let request = with_roles(&acme.id, "no role", &[role]);
            refused(client.create_key(request).await, Code::InvalidArgument, "not found");
        }
    }

    // Service access: all, future ones included, or a list.
    let listed = CreateKeyRequest {
        services: Some(ServiceAccess { services: texts(&["cdn", "dns"]) }),
        ..with_roles("", "listed", &[ADMIN])
    };
    let listed = acme.admin.create_key(listed).await.unwrap();
    assert_eq!(listed.key.unwrap().services.unwrap().services, ["cdn", "dns"]);
    let all = acme.admin.create_key(with_roles("", "all", &[ADMIN])).await.unwrap();
    assert!(all.key.unwrap().services.is_none());
    for (secret, service, expected) in [
        (&listed.secret, "cdn", DecisionCode::Allowed),
        (&listed.secret, "waf", DecisionCode::ServiceNotAllowed),
        (&listed.secret, "", DecisionCode::ServiceNotAllowed),
        (&all.secret, "waf", DecisionCode::Allowed),
        (&all.secret, "one-of-next-year", DecisionCode::Allowed),
        (&all.secret, "", DecisionCode::Allowed),
    ] {
        let request = VerifyRequest {
            credential: secret.clone(),
            permissions: texts(&["cache:purge"]),
            service: service.into(),
            ..Default::default()
        };
        assert_eq!(acme.operator.code(request).await, expected, "{service}");
    }
    // A key for the product's services is none for keyledger itself.
    refused(
        acme.admin.with_key(&listed.secret).list_keys(ListKeysRequest::default()).await,
        Code::PermissionDenied,
        "other services than `keyledger`",
    );
    let by_role = ListKeysRequest { role_id: DNS_MANAGER.into(), ..Default::default() };
    let keys = acme.admin.list_keys(by_role).await.unwrap().keys;
    assert_eq!(
        keys.iter().map(|it| &it.name).collect::<Vec<_>>(),
        ["a dns-manager", "both", "two"]
    );
    let by_name = ListKeysRequest { name_prefix: "t".into(), ..Default::default() };
    let keys = acme.admin.list_keys(by_name).await.unwrap().keys;
    assert_eq!(keys.iter().map(|it| &it.name).collect::<Vec<_>>(), ["two"]);
}

/// What a key may do is fixed when it is made: of all requests that change a key, none
/// has a field for it, and its name and description alone can be told anew.
#[test]
fn a_key_cannot_be_edited() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
    let methods = set.file.iter().flat_map(|file| &file.service);
    let methods = methods.filter(|service| service.name() == "KeyService");
    let mut editors = Vec::new();
    for method in methods.flat_map(|service| &service.method) {
        let input = method.input_type().rsplit('.').next().unwrap();
        let input = messages.iter().find(|message| message.name() == input).unwrap();
        let fields: Vec<_> = input.field.iter().map(|field| field.name()).collect();
        if !fields.contains(&"key_id") {
            continue;
        }
        for fixed in ["scopes", "role_ids", "services", "environment", "allowed_ips", "limits"] {
            assert!(!fields.contains(&fixed), "{} has `{fixed}`", method.name());
        }
        if fields.contains(&"name") || fields.contains(&"description") {
            editors.push(method.name());
        }
    }
    assert_eq!(editors, ["UpdateKeyLabel"]);
}

/// The list of a console: name, description, masked key, roles, when it was made; and the
/// way of a change: revoke and make another.
#[tokio::test]
async fn a_console_shows_and_replaces_keys() {
    let acme = Acme::new().await;
    let request = CreateKeyRequest {
        description: "purges the cache after a deployment".into(),
        services: Some(ServiceAccess { services: texts(&["dns"]) }),
        ..with_roles("", "deployment", &[DNS_MANAGER])
    };
    let made = acme.admin.create_key(request.clone()).await.unwrap();
    let keys = acme.admin.list_keys(ListKeysRequest::default()).await.unwrap().keys;
    let shown = keys.iter().find(|key| key.name == "deployment").unwrap();
    assert_eq!(shown.description, request.description);
    assert_eq!(shown.roles[0].name, "dns-manager");
    assert_eq!(shown.masked, format!("vtx_live_…{}", &made.secret[made.secret.len() - 4..]));
    assert!(shown.created_at.is_some() && shown.warnings.is_empty());
    assert!(!format!("{shown:?}").contains(&made.secret[9..40]), "the secret is shown once");
    // A role that does not fit the services is hinted at, and not refused.
    let misfit = CreateKeyRequest {
        services: Some(ServiceAccess { services: texts(&["waf"]) }),
        ..with_roles("", "misfit", &[DNS_MANAGER])
    };
    let misfit = acme.admin.create_key(misfit).await.unwrap().key.unwrap();
    let codes: Vec<_> = misfit.warnings.iter().map(|it| it.code()).collect();
    assert_eq!(
        codes,
        [
            proto::KeyWarningCode::RoleOutsideServices,
            proto::KeyWarningCode::ServiceWithoutPermission
        ]
    );
    // Used by the header that the console names.
    let mut ask = VerifyRequest {
        api_key: vec![made.secret.clone()],
        permissions: texts(&["dns:write"]),
        service: "dns".into(),
        ..Default::default()
    };
    assert_eq!(acme.operator.code(ask.clone()).await, DecisionCode::Allowed);
    // To change it: revoke it, and make another of the same name.
    let id = made.key.unwrap().id;
    acme.admin.revoke("", &id).await.unwrap();
    assert_eq!(acme.operator.code(ask.clone()).await, DecisionCode::Revoked);
    let wider = CreateKeyRequest {
        services: Some(ServiceAccess { services: texts(&["dns", "cdn"]) }),
        ..request
    };
    ask.api_key = vec![acme.admin.create_key(wider).await.unwrap().secret];
    assert_eq!(acme.operator.code(ask).await, DecisionCode::Allowed);
}

//! Whom a request is for: the credential's organization, unless an operator who may says otherwise.

use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::{DecisionCode, ListKeysRequest, ListKeysResponse, VerifyRequest};
use tonic::{Code, Request, Response, Status};

use crate::support::{Acme, about, reason, scoped};

async fn list(
    acme: &Acme,
    key: &str,
    tenants: &[&str],
    named: &str,
) -> Result<Response<ListKeysResponse>, Status> {
    let message = ListKeysRequest { organization_id: named.into(), ..Default::default() };
    let mut request: Request<_> = acme.operator.with_key(key).request(message);
    for tenant in tenants {
        request.metadata_mut().append("x-tenant-id", tenant.parse().unwrap());
    }
    KeyServiceClient::new(acme.server.channel()).list_keys(request).await
}

#[tokio::test]
async fn the_metadata_names_the_organization_for_those_who_may() {
    let acme = Acme::new().await;
    let admin = acme.home.admin_key();
    let own = |scopes: &[&str]| scoped("operator", &scopes.join(" ").replace(':', "."), scopes);
    let some = ["admin:users", "admin:settings", "api-keys:read"];
    let helper = acme.operator.create_key(own(&some)).await.unwrap().secret;
    let weak =
        acme.operator.create_key(own(&["admin:users", "api-keys:read"])).await.unwrap().secret;
    for key in [&admin, &helper] {
        let answer = list(&acme, key, &[&acme.id], "").await.unwrap();
        assert_eq!(answer.metadata().get("x-tenant-id").unwrap(), acme.id.as_str());
        assert_eq!(answer.into_inner().keys[0].organization_id, acme.id);
        assert!(list(&acme, key, &[&acme.id, &acme.id], &acme.id).await.is_ok());
    }
    // One's own is always right, and without it nothing is repeated.
    let answer = list(&acme, &acme.admin_secret, &[&acme.id], "").await.unwrap();
    assert_eq!(answer.metadata().get("x-tenant-id").unwrap(), acme.id.as_str());
    let answer = list(&acme, &acme.admin_secret, &[], "").await.unwrap();
    assert!(answer.metadata().get("x-tenant-id").is_none());

    let nobody = "org_7ZZZZZZZZZZZZZZZZZZZZZZZZZ";
    for (key, tenants, named, code, says) in [
        (&weak, vec![&*acme.id], "", Code::PermissionDenied, "TENANT_MISMATCH"),
        (&admin, vec![nobody], "", Code::PermissionDenied, "TENANT_MISMATCH"),
        (&acme.admin_secret, vec![nobody], "", Code::PermissionDenied, "TENANT_MISMATCH"),
        (&acme.admin_secret, vec!["operator"], "", Code::PermissionDenied, "TENANT_MISMATCH"),
        (&admin, vec![&*acme.id], "operator", Code::InvalidArgument, "INVALID_ARGUMENT"),
        (&admin, vec![&*acme.id, "operator"], "", Code::InvalidArgument, "INVALID_ARGUMENT"),
        (&admin, vec!["acme"], "", Code::InvalidArgument, "INVALID_ARGUMENT"),
    ] {
        let status = list(&acme, key, &tenants, named).await.unwrap_err();
        assert_eq!((status.code(), &*reason(&status)), (code, says), "{tenants:?} {named}");
        assert!(status.metadata().get("x-tenant-id").is_none());
    }
}

#[tokio::test]
async fn a_question_names_it_too() {
    let acme = Acme::new().await;
    let ask = async |key: &str, tenant: &str| {
        let question = VerifyRequest { tenant_id: tenant.into(), ..about(key, &["dns:read"]) };
        let answer = acme.operator.verify(question).await.unwrap();
        let revisions: Vec<String> = answer.revisions.iter().map(|it| it.stream.clone()).collect();
        (
            answer.code(),
            answer.organization_id,
            answer.principal.unwrap().organization_id,
            revisions,
        )
    };
    let admin = acme.home.admin_key();
    let (code, organization, principal, revisions) = ask(&admin, &acme.id).await;
    assert_eq!((code, &*organization, &*principal), (DecisionCode::Allowed, &*acme.id, "operator"));
    assert_eq!(revisions, ["org-operator"], "of what was read");
    let (code, organization, ..) = ask(&admin, "").await;
    assert_eq!((code, &*organization), (DecisionCode::Allowed, "operator"));
    assert_eq!(ask(&admin, "org_7ZZZZZZZZZZZZZZZZZZZZZZZZZ").await.0, DecisionCode::TenantMismatch);
    assert_eq!(ask(&acme.admin_secret, "operator").await.0, DecisionCode::TenantMismatch);
    assert_eq!(ask(&acme.admin_secret, &acme.id).await.0, DecisionCode::Allowed);
}

/// What an operator writes in a tenant stands in the tenant's own log, under their name.
#[tokio::test]
async fn a_write_for_a_tenant_stands_in_its_log() {
    let acme = Acme::new().await;
    let before = acme.writes();
    let mut request = acme.operator.request(scoped("", "by an operator", &["dns:read"]));
    request.metadata_mut().insert("x-tenant-id", acme.id.parse().unwrap());
    KeyServiceClient::new(acme.server.channel()).create_key(request).await.unwrap();
    assert_eq!(acme.writes(), before + 1);
    let stream = format!("org-{}", acme.id);
    let last = acme.home.events().into_iter().rfind(|it| it.stream == stream).unwrap().json();
    assert_eq!((&last["type"], &last["actor"]), (&"KeyCreated".into(), &"operator".into()));
}

//! The rules that an organization gives itself for its keys.

use keyledger::proto::{
    CreateKeyRequest, DisableKeyRequest, EnableKeyRequest, GetOrganizationRequest,
    ImportKeysRequest, ImportedKey, Policy, RotateKeyRequest, UpdatePolicyRequest,
    create_key_request,
};
use prost_types::Duration;
use tonic::Code;

use super::support::{Acme, refused, rejected, scoped};

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn update(policy: Policy) -> UpdatePolicyRequest {
    UpdatePolicyRequest { policy: Some(policy), ..Default::default() }
}

#[tokio::test]
async fn an_organization_tightens_and_its_operator_loosens() {
    let acme = Acme::new().await;
    let tight = Policy {
        key_lifetime_max: seconds(3_600),
        rotation_grace_max: seconds(60),
        allowed_ips_required: true,
    };
    let request = UpdatePolicyRequest { idempotency_key: "p".into(), ..update(tight) };
    let updated = acme.admin.update_policy(request.clone()).await.unwrap();
    assert_eq!(updated.policy.as_ref(), Some(&tight));
    assert_eq!(acme.admin.update_policy(request.clone()).await.unwrap(), updated);
    // The same again writes nothing.
    let at = acme.revision().await;
    acme.admin.update_policy(update(tight)).await.unwrap();
    assert_eq!(acme.revision().await, at);
    for loose in [
        Policy { key_lifetime_max: seconds(3_601), ..tight },
        Policy { key_lifetime_max: None, ..tight },
        Policy { rotation_grace_max: seconds(61), ..tight },
        Policy { rotation_grace_max: None, ..tight },
        Policy { allowed_ips_required: false, ..tight },
        Policy::default(),
    ] {
        rejected(acme.admin.update_policy(update(loose)).await, "POLICY_LOOSENED");
    }
    let tighter = Policy { key_lifetime_max: seconds(60), ..tight };
    acme.admin.update_policy(update(tighter)).await.unwrap();
    let wrong = UpdatePolicyRequest { expected_revision: Some(0), ..update(tight) };
    rejected(
        acme.operator
            .update_policy(UpdatePolicyRequest { organization_id: acme.id.clone(), ..wrong })
            .await,
        "WRONG_EXPECTED_REVISION",
    );
    let loosened =
        UpdatePolicyRequest { organization_id: acme.id.clone(), ..update(Policy::default()) };
    acme.operator.update_policy(loosened).await.unwrap();
    acme.admin.update_policy(update(tight)).await.unwrap();
    acme.server.kill();
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    let own = admin.get_organization(GetOrganizationRequest::default()).await.unwrap();
    assert_eq!(own.organization.unwrap().policy, Some(tight));
    server.stop().await;
}

#[tokio::test]
async fn it_holds_for_all_that_comes_into_force_from_then_on() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let (old, secret) = acme.key("old", &["a:b"]).await;
    let (idle, _) = acme.key("idle", &["a:b"]).await;
    let request = DisableKeyRequest { key_id: idle.clone(), ..Default::default() };
    admin.disable_key(request).await.unwrap();
    admin
        .update_policy(update(Policy { key_lifetime_max: seconds(3_600), ..Default::default() }))
        .await
        .unwrap();
    // What is in force stays as it is.
    assert!(acme.operator.ask(&secret, &["a:b"]).await.allowed);
    let lifetime =
        |seconds| Some(create_key_request::Expiry::Lifetime(Duration { seconds, nanos: 0 }));
    let long = CreateKeyRequest { expiry: lifetime(3_601), ..scoped("", "long", &["a:b"]) };
    rejected(admin.create_key(long).await, "LIFETIME_ABOVE_POLICY");
    let made = admin.create_key(scoped("", "made", &["a:b"])).await.unwrap().key.unwrap();
    let lives = made.expires_at.unwrap().seconds - made.created_at.unwrap().seconds;
    assert_eq!(lives, 3_600, "what is not said is as long as is allowed");
    let rotate = RotateKeyRequest { key_id: old.clone(), ..Default::default() };
    let rotated = admin.rotate_key(rotate).await.unwrap().key.unwrap();
    assert_eq!(rotated.expires_at.unwrap().seconds - rotated.created_at.unwrap().seconds, 3_600);
    let enable = EnableKeyRequest { key_id: idle, ..Default::default() };
    rejected(admin.enable_key(enable).await, "LIFETIME_ABOVE_POLICY");
    let import = |seconds| ImportKeysRequest {
        keys: vec![ImportedKey {
            sha256: vec![7; 32],
            name: "imported".into(),
            scopes: Some(keyledger::proto::Scopes { permissions: vec!["a:b".into()] }),
            expiry: Some(keyledger::proto::imported_key::Expiry::Lifetime(Duration {
                seconds,
                nanos: 0,
            })),
            ..Default::default()
        }],
        ..Default::default()
    };
    rejected(admin.import_keys(import(3_601)).await, "LIFETIME_ABOVE_POLICY");
    admin.import_keys(import(60)).await.unwrap();
    // Addresses.
    let policy = Policy {
        key_lifetime_max: seconds(3_600),
        allowed_ips_required: true,
        ..Default::default()
    };
    admin.update_policy(update(policy)).await.unwrap();
    rejected(admin.create_key(scoped("", "x", &["a:b"])).await, "ALLOWED_IPS_REQUIRED");
    let rotate = RotateKeyRequest { key_id: made.id, ..Default::default() };
    rejected(admin.rotate_key(rotate).await, "ALLOWED_IPS_REQUIRED");
    // A list of all addresses is none.
    let everywhere =
        CreateKeyRequest { allowed_ips: vec!["0.0.0.0/0".into()], ..scoped("", "x", &["a:b"]) };
    let refusal = rejected(admin.create_key(everywhere).await, "ALLOWED_IPS_EVERYWHERE");
    assert!(refusal.message().starts_with("`allowed_ips`: all of `0.0.0.0/0`"), "{refusal:?}");
    let with = CreateKeyRequest {
        allowed_ips: vec!["192.0.2.7".into(), "2001:db8::/32".into()],
        ..scoped("", "x", &["a:b"])
    };
    let made = admin.create_key(with).await.unwrap().key.unwrap();
    assert_eq!(made.allowed_ips, ["192.0.2.7/32", "2001:db8::/32"]);
}

#[tokio::test]
async fn what_is_no_policy_is_refused_by_its_field() {
    let acme = Acme::new().await;
    let none = UpdatePolicyRequest::default();
    refused(acme.admin.update_policy(none).await, Code::InvalidArgument, "`policy`");
    for (bad, field) in [
        (
            Policy { key_lifetime_max: seconds(0), ..Default::default() },
            "`policy.key_lifetime_max`",
        ),
        (
            Policy { key_lifetime_max: seconds(-1), ..Default::default() },
            "`policy.key_lifetime_max`",
        ),
        (
            Policy {
                key_lifetime_max: Some(Duration { seconds: 1, nanos: 1 }),
                ..Default::default()
            },
            "`policy.key_lifetime_max`",
        ),
        (
            Policy { rotation_grace_max: seconds(i64::MAX), ..Default::default() },
            "`policy.rotation_grace_max`",
        ),
    ] {
        refused(acme.admin.update_policy(update(bad)).await, Code::InvalidArgument, field);
    }
    let none = Policy { rotation_grace_max: seconds(0), ..Default::default() };
    acme.admin.update_policy(update(none)).await.unwrap();
}

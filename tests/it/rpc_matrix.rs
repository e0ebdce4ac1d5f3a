//! Every method of every service, with every kind of caller: one row each, or the test
//! fails. Who may do what is the table [`ROWS`]; change it knowingly.

use std::collections::BTreeSet;

use keyledger::proto;
use prost::Message as _;
use tonic::{Code, Request, Status};

use super::support::{Acme, Client, about, call_raw, scoped, with_roles};

/// Whose permission counts.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// In the operator organization alone.
    ByOperators,
    /// In one's own organization.
    ByTenants,
}

/// One method.
struct Row {
    method: &'static str,
    permission: &'static str,
    held: Held,
    /// A request that is all right, from the caller's number (so that names differ).
    request: fn(&World, usize) -> Vec<u8>,
    /// What the callers of [`CALLERS`] are told.
    expected: [Code; 8],
}

const CALLERS: [&str; 8] = [
    "no credential",
    "a garbage credential",
    "an unknown credential",
    "a revoked key that held everything",
    "another organization's administrator",
    "a key with every permission but this one",
    "a tenant's key with this permission alone",
    "an operator's key with this permission alone",
];

const N: Code = Code::Unauthenticated;
const P: Code = Code::PermissionDenied;
const Y: Code = Code::Ok;

/// What keyledger itself asks for.
const PERMISSIONS: [&str; 15] = [
    "activity:read",
    "credentials:verify",
    "api-keys:read",
    "api-keys:write",
    "service-accounts:read",
    "service-accounts:write",
    "policy:write",
    "roles:read",
    "roles:write",
    "users:read",
    "users:write",
    "organizations:read",
    "organizations:write",
    "installation:read",
    "installation:write",
];

const ROWS: &[Row] = &[
    Row {
        method: "keyledger.v1.AuditService/QueryActivity",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::QueryActivityRequest { organization_id, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/CreateKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            scoped(&world.acme.id, &format!("made {caller}"), &["api-keys:write"]).encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/GetKey",
        permission: "api-keys:read",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, key_id) = (world.acme.id.clone(), world.keys[0].clone());
            proto::GetKeyRequest { organization_id, key_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/ListKeys",
        permission: "api-keys:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListKeysRequest { organization_id, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/RevokeKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let (organization_id, key_id) = (world.acme.id.clone(), world.keys[caller].clone());
            proto::RevokeKeyRequest { organization_id, key_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/UpdateKeyLabel",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let (organization_id, key_id) = (world.acme.id.clone(), world.keys[0].clone());
            let name = format!("called {caller}");
            proto::UpdateKeyLabelRequest { organization_id, key_id, name, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        // Whoever rotates a key gives what it holds: the permission alone is not enough.
        method: "keyledger.v1.KeyService/RotateKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let key_id = world.writers[caller].clone();
            proto::RotateKeyRequest { organization_id, key_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        // The keys that the callers of the row before rotated.
        method: "keyledger.v1.KeyService/EndRotation",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let key_id = world.writers[caller].clone();
            proto::EndRotationRequest { organization_id, key_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/DisableKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let key_id = world.idle[caller].clone();
            proto::DisableKeyRequest { organization_id, key_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        // The keys that the callers of the row before disabled.
        method: "keyledger.v1.KeyService/EnableKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let key_id = world.idle[caller].clone();
            proto::EnableKeyRequest { organization_id, key_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/ImportKeys",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let key = proto::ImportedKey {
                sha256: vec![caller as u8; 32],
                name: format!("imported {caller}"),
                scopes: Some(proto::Scopes { permissions: vec!["api-keys:write".into()] }),
                ..Default::default()
            };
            let organization_id = world.acme.id.clone();
            proto::ImportKeysRequest { organization_id, keys: vec![key], ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.KeyService/RevokeKeys",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            use proto::revoke_keys_request::Which;
            let key_ids = vec![world.idle[caller].clone()];
            proto::RevokeKeysRequest {
                organization_id: world.acme.id.clone(),
                which: Some(Which::List(proto::KeyList { key_ids, leaked: Vec::new() })),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/UpdatePolicy",
        permission: "policy:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let seconds = 1_000_000 - i64::try_from(caller).unwrap();
            let longest = prost_types::Duration { seconds, nanos: 0 };
            let policy = proto::Policy { key_lifetime_max: Some(longest), ..Default::default() };
            let organization_id = world.acme.id.clone();
            proto::UpdatePolicyRequest {
                organization_id,
                policy: Some(policy),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/CreateServiceAccount",
        permission: "service-accounts:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let name = format!("made {caller}");
            proto::CreateServiceAccountRequest { organization_id, name, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/ListServiceAccounts",
        permission: "service-accounts:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListServiceAccountsRequest { organization_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/CreateRole",
        permission: "roles:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::CreateRoleRequest {
                organization_id,
                name: format!("made-{caller}"),
                description: "a role".into(),
                permissions: vec!["roles:write".into()],
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/UpdateRole",
        permission: "roles:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::UpdateRoleRequest {
                organization_id,
                role_id: world.roles[caller].clone(),
                description: format!("by {caller}"),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/GrantRole",
        permission: "roles:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let account = world.account.clone();
            proto::GrantRoleRequest {
                organization_id,
                principal: Some(proto::grant_role_request::Principal::ServiceAccountId(account)),
                role_id: world.roles[caller].clone(),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/RetireRole",
        permission: "roles:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::RetireRoleRequest {
                organization_id,
                role_id: world.roles[caller].clone(),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/RevokeGrant",
        permission: "roles:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::RevokeGrantRequest {
                organization_id,
                grant_id: world.grants[caller].clone(),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/GetRole",
        permission: "roles:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::GetRoleRequest { organization_id, role_id: world.roles[caller].clone() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/ListRoles",
        permission: "roles:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::ListRolesRequest {
                organization_id,
                page_size: u32::try_from(caller).unwrap() + 1,
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/ListGrants",
        permission: "roles:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::ListGrantsRequest {
                organization_id,
                page_size: u32::try_from(caller).unwrap() + 1,
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/EffectivePermissions",
        permission: "roles:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let key = world.keys[caller].clone();
            proto::EffectivePermissionsRequest {
                organization_id,
                subject: Some(proto::effective_permissions_request::Subject::KeyId(key)),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.RoleService/WhoHolds",
        permission: "roles:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::WhoHoldsRequest {
                organization_id,
                permission: "a:b".into(),
                page_size: u32::try_from(caller).unwrap() + 1,
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/InviteUser",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            proto::InviteUserRequest {
                organization_id: world.acme.id.clone(),
                email: format!("made{caller}@example.com"),
                name: "made".into(),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/RenewInvitation",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let user_id = world.users[caller].clone();
            proto::RenewInvitationRequest { organization_id, user_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/GetUser",
        permission: "users:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::GetUserRequest { organization_id, user_id: world.users[caller].clone() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/ListUsers",
        permission: "users:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            proto::ListUsersRequest {
                organization_id,
                page_size: u32::try_from(caller).unwrap() + 1,
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/UpdateUser",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            proto::UpdateUserRequest {
                organization_id: world.acme.id.clone(),
                user_id: world.users[caller].clone(),
                name: format!("called {caller}"),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/SuspendUser",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let user_id = world.users[caller].clone();
            proto::SuspendUserRequest { organization_id, user_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        // The users whom the callers of the row before suspended.
        method: "keyledger.v1.OrganizationService/RestoreUser",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let user_id = world.users[caller].clone();
            proto::RestoreUserRequest { organization_id, user_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/RemoveUser",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let organization_id = world.acme.id.clone();
            let user_id = world.users[caller].clone();
            proto::RemoveUserRequest { organization_id, user_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OperatorService/GetStatus",
        permission: "installation:read",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y],
    },
    Row {
        method: "keyledger.v1.OperatorService/ConfirmClock",
        permission: "installation:write",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/CreateOrganization",
        permission: "organizations:write",
        held: Held::ByOperators,
        request: |_, caller| {
            proto::CreateOrganizationRequest {
                name: "made".into(),
                key_prefix: format!("made{caller}"),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, P, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/GetOrganization",
        permission: "organizations:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::GetOrganizationRequest { organization_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.OrganizationService/ListOrganizations",
        permission: "organizations:read",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y],
    },
    Row {
        // Another organization's administrator gets an answer: that he knows no such
        // credential. `the_verifier_of_another_organization_learns_nothing` holds it.
        method: "keyledger.v1.VerificationService/Verify",
        permission: "credentials:verify",
        held: Held::ByTenants,
        request: |world, _| {
            let credential = world.acme.admin_secret.clone();
            proto::VerifyRequest { credential, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, Y, P, Y, Y],
    },
    Row {
        method: "keyledger.v1.VerificationService/VerifyBatch",
        permission: "credentials:verify",
        held: Held::ByTenants,
        request: |world, _| {
            let questions = vec![about(&world.acme.admin_secret, &[])];
            proto::VerifyBatchRequest { questions, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, Y, P, Y, Y],
    },
    Row {
        // One question on a stream that ends then.
        method: "keyledger.v1.VerificationService/VerifyStream",
        permission: "credentials:verify",
        held: Held::ByTenants,
        request: |world, _| {
            let question = Some(about(&world.acme.admin_secret, &[]));
            proto::VerifyStreamRequest { id: 7, question }.encode_to_vec()
        },
        expected: [N, N, N, N, Y, P, Y, Y],
    },
];

/// An installation with a caller of each kind.
struct World {
    acme: Acme,
    /// Keys of the organization, to look at and to revoke: one for each caller.
    keys: Vec<String>,
    /// Keys that may do nothing but change keys.
    writers: Vec<String>,
    /// Keys of the same kind, to be put out of force.
    idle: Vec<String>,
    /// Roles that permit to change roles, and grants of another one: one for each caller.
    roles: Vec<String>,
    grants: Vec<String>,
    account: String,
    /// Users without roles: one for each caller.
    users: Vec<String>,
    revoked: String,
    unknown: String,
    stranger: Client,
}

impl World {
    async fn new() -> Self {
        let acme = Acme::new().await;
        let mut keys = Vec::new();
        for number in 0..CALLERS.len() {
            keys.push(acme.key(&format!("key {number}"), &["a:b"]).await.0);
        }
        let (mut writers, mut idle) = (Vec::new(), Vec::new());
        for number in 0..CALLERS.len() {
            writers.push(acme.key(&format!("writer {number}"), &["api-keys:write"]).await.0);
            idle.push(acme.key(&format!("idle {number}"), &["api-keys:write"]).await.0);
        }
        let (mut roles, mut grants) = (Vec::new(), Vec::new());
        let account = super::roles::make_account(&acme.admin, "bot").await;
        let granted = super::roles::make_role(&acme.admin, "granted", &["a:b"]).await;
        for number in 0..CALLERS.len() {
            let name = format!("role-{number}");
            roles.push(super::roles::make_role(&acme.admin, &name, &["roles:write"]).await);
            let domain = format!("d{number}.example");
            grants.push(super::roles::give(&acme.admin, &account, &granted, &domain).await);
        }
        let mut users = Vec::new();
        for number in 0..CALLERS.len() {
            users.push(super::users::make_user(&acme.admin, &format!("user{number}")).await);
        }
        let revoked = scoped("operator", "revoked", &["org:admin"]);
        let revoked = acme.operator.create_key(revoked).await.unwrap();
        acme.operator.revoke("operator", &revoked.key.unwrap().id).await.unwrap();
        let other = acme.operator.organization("globex", "glx", "").await;
        let stranger = scoped(&other, "stranger", &["org:admin"]);
        let stranger = acme.operator.create_key(stranger).await.unwrap().secret;
        let stranger = acme.operator.with_key(&stranger);
        let unknown = Acme::new().await.admin_secret;
        Self {
            acme,
            keys,
            writers,
            idle,
            roles,
            grants,
            account,
            users,
            revoked: revoked.secret,
            unknown,
            stranger,
        }
    }

    /// The callers of one row, in the order of [`CALLERS`].
    async fn callers(&self, row: &Row) -> Vec<Client> {
        let Self { acme, .. } = self;
        let name = row.method.split_once('/').unwrap().1;
        let make = async |organization: &str, kind: &str, scopes: &[&str]| {
            let request = scoped(organization, &format!("{kind} {name}"), scopes);
            acme.operator.with_key(&acme.operator.create_key(request).await.unwrap().secret)
        };
        let others: Vec<_> = PERMISSIONS.into_iter().filter(|it| *it != row.permission).collect();
        let lacking_in = if row.held == Held::ByOperators { "operator" } else { &acme.id };
        vec![
            acme.server.anonymous(),
            acme.operator.with_key("garbage"),
            acme.operator.with_key(&self.unknown),
            acme.operator.with_key(&self.revoked),
            self.stranger.clone(),
            make(lacking_in, "lacking", &others).await,
            make(&acme.id, "tenant", &[row.permission]).await,
            make("operator", "operator", &[row.permission]).await,
        ]
    }

    async fn call(&self, row: &Row, client: &Client, number: usize) -> Result<Vec<u8>, Status> {
        let request: Request<Vec<u8>> = client.request((row.request)(self, number));
        call_raw(self.acme.server.channel(), row.method, request).await
    }
}

fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("keyledger.")) {
        for service in &file.service {
            methods.extend(
                service.method.iter().map(|method| {
                    format!("{}.{}/{}", file.package(), service.name(), method.name())
                }),
            );
        }
    }
    methods
}

#[test]
fn every_method_has_a_row() {
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.method.to_owned()).collect();
    assert_eq!(rows.len(), ROWS.len(), "a method has two rows");
    assert_eq!(methods(), rows);
}

#[tokio::test]
async fn every_method_tells_every_caller_what_the_table_says() {
    let world = World::new().await;
    for row in ROWS {
        let callers = world.callers(row).await;
        assert_eq!(callers.len(), CALLERS.len());
        for (number, (client, expected)) in callers.iter().zip(row.expected).enumerate() {
            let before = world.acme.home.facts();
            let answer = world.call(row, client, number).await;
            let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
            let who = CALLERS[number];
            assert_eq!(code, expected, "{} by {who}: {answer:?}", row.method);
            // Whoever is refused has changed nothing.
            if expected != Code::Ok {
                assert_eq!(world.acme.home.facts(), before, "{} by {who}", row.method);
            }
        }
    }
}

/// A refused request is refused for the caller first: what it asks for is not looked at.
#[tokio::test]
async fn a_caller_without_permission_learns_nothing_of_what_is_there() {
    let world = World::new().await;
    let (_, lacking) = world.acme.key("lacking", &["a:b"]).await;
    let lacking = world.acme.operator.with_key(&lacking);
    for organization in [world.acme.id.as_str(), "org_00000000000000000000000009", "nonsense"] {
        for key in [world.keys[0].as_str(), "key_00000000000000000000000009", "nonsense"] {
            let (organization_id, key_id) = (organization.to_owned(), key.to_owned());
            let request = proto::GetKeyRequest { organization_id, key_id };
            let status = lacking.get_key(request).await.unwrap_err();
            assert_eq!(status.code(), P);
            assert_eq!(status.message(), "permission `api-keys:read` is not held");
        }
    }
}

#[tokio::test]
async fn the_verifier_of_another_organization_learns_nothing() {
    let world = World::new().await;
    let role = with_roles(&world.acme.id, "by role", &[super::support::ADMIN]);
    let role = world.acme.operator.create_key(role).await.unwrap().secret;
    let mut stream = world.stranger.verify_stream().await.unwrap();
    for credential in [&world.acme.admin_secret, &role, &world.unknown, &world.revoked] {
        let question = about(credential, &[]);
        let request =
            proto::VerifyBatchRequest { questions: vec![question.clone()], ..Default::default() };
        let in_batch = world.stranger.verify_batch(request).await.unwrap().answers.remove(0);
        let Some(proto::verify_batch_answer::Answer::Decision(in_batch)) = in_batch.answer else {
            panic!("{in_batch:?}")
        };
        let in_stream = stream.decide(1, question.clone()).await.unwrap();
        for answer in [world.stranger.verify(question).await.unwrap(), in_batch, in_stream] {
            assert_eq!(answer.code(), proto::DecisionCode::Unknown);
            let shown = proto::VerifyResponse {
                code: answer.code,
                correlation_id: answer.correlation_id.clone(),
                ..Default::default()
            };
            assert_eq!(answer, shown);
        }
    }
}

//! Every method of every service, with every kind of caller: one row each, or the test
//! fails. Who may do what is the table [`ROWS`]; change it knowingly.

use std::collections::BTreeSet;

use keyledger::proto;
use prost::Message as _;
use tonic::{Code, Request, Status};

use super::support::{ADMIN, Acme, Client, about, call_raw, scoped, with_roles};

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
    expected: [Code; 11],
}

const CALLERS: [&str; 11] = [
    "no credential",
    "a garbage credential",
    "an unknown credential",
    "a revoked key that held everything",
    "another organization's administrator",
    "a key with every permission but this one",
    "a tenant's key with this permission alone",
    "an operator's key with this permission alone",
    "the session of a user who may administer the organization",
    "the session of a user without roles",
    "the session of another organization's administrator",
];

const N: Code = Code::Unauthenticated;
const P: Code = Code::PermissionDenied;
const Y: Code = Code::Ok;
/// The caller is let in, and what is there does not allow it.
const F: Code = Code::FailedPrecondition;
/// The caller is let in, and there is no such thing.
const G: Code = Code::NotFound;
/// A grant of break-glass that there is not.
const NO_GRANT: &str = "bgg_00000000000000000000000009";

/// What keyledger itself asks for.
const PERMISSIONS: [&str; 22] = [
    "break-glass:read",
    "break-glass:approve",
    "break-glass:close",
    "break-glass:review",
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
    "sessions:read",
    "sessions:write",
    "accounts:write",
    "organizations:read",
    "organizations:write",
    "installation:read",
    "installation:write",
];

/// An instant before everything.
fn long_ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

const ROWS: &[Row] = &[
    Row {
        method: "keyledger.v1.AuditService/QueryActivity",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::QueryActivityRequest { organization_id, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.AuditService/TailActivity",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::TailActivityRequest { organization_id, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.AuditService/ExportActivity",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            let format = proto::ExportFormat::JsonLines.into();
            proto::ExportActivityRequest { organization_id, format, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.AuditService/StateAt",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            let moment = Some(proto::state_at_request::Moment::Revision(0));
            let table = proto::PastTable::Keys.into();
            proto::StateAtRequest { organization_id, moment, table, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.AuditService/ExplainDecision",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            let moment = Some(proto::explain_decision_request::Moment::Revision(0));
            let credential_id = "key_00000000000000000000000009".to_owned();
            proto::ExplainDecisionRequest {
                organization_id,
                moment,
                credential_id,
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.ReportService/ListUnusedKeys",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListUnusedKeysRequest { organization_id, days: 1, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.ReportService/ListKeysWithoutExpiry",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListKeysWithoutExpiryRequest { organization_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.ReportService/ListPermissionHolders",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListPermissionHoldersRequest {
                organization_id,
                permission: "dns:read".into(),
                from: long_ago(1),
                to: long_ago(2),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.ReportService/ListRoleHolders",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListRoleHoldersRequest {
                organization_id,
                role_id: ADMIN.into(),
                from: long_ago(1),
                to: long_ago(2),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.ReportService/SummarizeBreakGlass",
        permission: "activity:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::SummarizeBreakGlassRequest { organization_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        // It needs a custodian's master key, and nothing else will do.
        method: "keyledger.v1.BreakGlassService/OpenGrant",
        permission: "break-glass:read",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, reason) = (world.acme.id.clone(), "fire".to_owned());
            proto::OpenGrantRequest { organization_id, reason, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N; 11],
    },
    Row {
        // A person, and no key, and where it is off nobody.
        method: "keyledger.v1.BreakGlassService/ApproveGrant",
        permission: "break-glass:approve",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, grant_id) = (world.acme.id.clone(), NO_GRANT.to_owned());
            proto::ApproveGrantRequest { organization_id, grant_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, P, P, F, P, P],
    },
    Row {
        method: "keyledger.v1.BreakGlassService/CloseGrant",
        permission: "break-glass:close",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, grant_id) = (world.acme.id.clone(), NO_GRANT.to_owned());
            proto::CloseGrantRequest { organization_id, grant_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, G, G, G, P, P],
    },
    Row {
        method: "keyledger.v1.BreakGlassService/ReviewGrant",
        permission: "break-glass:review",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, grant_id) = (world.acme.id.clone(), NO_GRANT.to_owned());
            let finding = proto::ReviewFinding::Justified.into();
            proto::ReviewGrantRequest { organization_id, grant_id, finding, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, P, P, G, P, P],
    },
    Row {
        method: "keyledger.v1.BreakGlassService/ListBreakGlassGrants",
        permission: "break-glass:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListBreakGlassGrantsRequest { organization_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.BreakGlassService/ReplayGrant",
        permission: "break-glass:read",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, grant_id) = (world.acme.id.clone(), NO_GRANT.to_owned());
            proto::ReplayGrantRequest { organization_id, grant_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, G, G, G, P, P],
    },
    Row {
        method: "keyledger.v1.BreakGlassService/WatchBreakGlass",
        permission: "break-glass:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::WatchBreakGlassRequest { organization_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.KeyService/CreateKey",
        permission: "api-keys:write",
        held: Held::ByTenants,
        request: |world, caller| {
            scoped(&world.acme.id, &format!("made {caller}"), &["api-keys:write"]).encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.KeyService/GetKey",
        permission: "api-keys:read",
        held: Held::ByTenants,
        request: |world, _| {
            let (organization_id, key_id) = (world.acme.id.clone(), world.keys[0].clone());
            proto::GetKeyRequest { organization_id, key_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.KeyService/ListKeys",
        permission: "api-keys:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::ListKeysRequest { organization_id, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
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
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.OperatorService/GetStatus",
        permission: "installation:read",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y, P, P, P],
    },
    Row {
        method: "keyledger.v1.OperatorService/ConfirmClock",
        permission: "installation:write",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y, P, P, P],
    },
    Row {
        method: "keyledger.v1.OperatorService/RebuildActivityIndex",
        permission: "installation:write",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y, P, P, P],
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
        expected: [N, N, N, N, P, P, P, Y, P, P, P],
    },
    Row {
        method: "keyledger.v1.OrganizationService/GetOrganization",
        permission: "organizations:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            proto::GetOrganizationRequest { organization_id }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.OrganizationService/ListOrganizations",
        permission: "organizations:read",
        held: Held::ByOperators,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, Y, P, P, P],
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
        expected: [N, N, N, N, Y, P, Y, Y, Y, P, Y],
    },
    Row {
        method: "keyledger.v1.VerificationService/VerifyBatch",
        permission: "credentials:verify",
        held: Held::ByTenants,
        request: |world, _| {
            let questions = vec![about(&world.acme.admin_secret, &[])];
            proto::VerifyBatchRequest { questions, ..Default::default() }.encode_to_vec()
        },
        expected: [N, N, N, N, Y, P, Y, Y, Y, P, Y],
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
        expected: [N, N, N, N, Y, P, Y, Y, Y, P, Y],
    },
    // From here on: what people log in with. Where no permission is asked for, one is named all
    // the same, so that the keys have something to hold and to lack.
    Row {
        method: "keyledger.v1.SessionService/Login",
        permission: "sessions:read",
        held: Held::ByTenants,
        request: |_, _| credentials(PEOPLE[0]).encode_to_vec(),
        expected: [Y; 11],
    },
    Row {
        method: "keyledger.v1.SessionService/Refresh",
        permission: "sessions:read",
        held: Held::ByTenants,
        request: |world, caller| {
            let refresh_token = world.refresh_tokens[caller].clone();
            proto::RefreshRequest { refresh_token }.encode_to_vec()
        },
        expected: [Y; 11],
    },
    Row {
        method: "keyledger.v1.SessionService/GetSigningKeys",
        permission: "sessions:read",
        held: Held::ByTenants,
        request: |_, _| Vec::new(),
        expected: [Y; 11],
    },
    Row {
        method: "keyledger.v1.SessionService/WhoAmI",
        permission: "sessions:read",
        held: Held::ByTenants,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, Y, Y, Y, Y, Y, Y, Y],
    },
    Row {
        method: "keyledger.v1.SessionService/ListSessions",
        permission: "sessions:read",
        held: Held::ByTenants,
        request: |world, _| {
            let organization_id = world.acme.id.clone();
            let user_id = world.somebody.clone();
            proto::ListSessionsRequest { organization_id, user_id, ..Default::default() }
                .encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        method: "keyledger.v1.SessionService/RevokeSessions",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |world, caller| {
            use proto::revoke_sessions_request::Which;
            let organization_id = world.acme.id.clone();
            let which = Some(Which::SessionId(world.sessions[caller].clone()));
            proto::RevokeSessionsRequest { organization_id, which }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, Y, Y, Y, P, P],
    },
    Row {
        // Nobody has an authenticator here.
        method: "keyledger.v1.SessionService/StepUp",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| proto::StepUpRequest { code: "123456".into() }.encode_to_vec(),
        expected: [N, N, N, N, P, P, P, P, F, F, F],
    },
    Row {
        method: "keyledger.v1.SessionService/EnrollTotp",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| proto::EnrollTotpRequest { password: PASSWORD.into() }.encode_to_vec(),
        expected: [N, N, N, N, P, P, P, P, Y, Y, Y],
    },
    Row {
        // Not what the authenticators of the row before show: sessions are told that it is
        // wrong.
        method: "keyledger.v1.SessionService/ConfirmTotp",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| proto::ConfirmTotpRequest { code: "no code".into() }.encode_to_vec(),
        expected: [N, N, N, N, P, P, P, P, N, N, N],
    },
    Row {
        method: "keyledger.v1.SessionService/RemoveTotp",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| {
            let (password, code) = (PASSWORD.to_owned(), "123456".to_owned());
            proto::RemoveTotpRequest { password, code }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, P, P, F, F, F],
    },
    Row {
        method: "keyledger.v1.SessionService/NewRecoveryCodes",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| proto::NewRecoveryCodesRequest { code: "123456".into() }.encode_to_vec(),
        expected: [N, N, N, N, P, P, P, P, F, F, F],
    },
    Row {
        method: "keyledger.v1.SessionService/ChangePassword",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| {
            let (password, new_password) = (PASSWORD.to_owned(), PASSWORD.to_owned());
            proto::ChangePasswordRequest { password, new_password }.encode_to_vec()
        },
        expected: [N, N, N, N, P, P, P, P, Y, Y, Y],
    },
    Row {
        method: "keyledger.v1.SessionService/Logout",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |_, _| Vec::new(),
        expected: [N, N, N, N, P, P, P, P, Y, Y, Y],
    },
    Row {
        // Whoever shows nothing learns nothing; whoever shows a credential must be an operator.
        method: "keyledger.v1.SessionService/RequestPasswordReset",
        permission: "accounts:write",
        held: Held::ByOperators,
        request: |_, _| {
            proto::RequestPasswordResetRequest { email: email(PEOPLE[2]) }.encode_to_vec()
        },
        expected: [Y, N, N, N, P, P, P, Y, P, P, P],
    },
    Row {
        // The token is the credential: the first caller has one.
        method: "keyledger.v1.SessionService/ResetPassword",
        permission: "sessions:write",
        held: Held::ByTenants,
        request: |world, caller| {
            let token = if caller == 0 { world.reset_token.clone() } else { "klpr_x".into() };
            proto::ResetPasswordRequest { token, new_password: PASSWORD.into() }.encode_to_vec()
        },
        expected: [Y, N, N, N, N, N, N, N, N, N, N],
    },
    Row {
        // The token is the credential; a session beside it must be that of whom it is for.
        method: "keyledger.v1.OrganizationService/AcceptInvitation",
        permission: "users:write",
        held: Held::ByTenants,
        request: |world, caller| {
            proto::AcceptInvitationRequest {
                token: world.invitations[caller].clone(),
                password: PASSWORD.into(),
                ..Default::default()
            }
            .encode_to_vec()
        },
        expected: [Y, N, N, N, P, P, P, P, P, P, P],
    },
];

const PASSWORD: &str = "correct horse battery";

/// Those whose sessions call: in the order of the last three of [`CALLERS`]. Each is two
/// people: what ends sessions ends only those of the second.
const PEOPLE: [&str; 3] = ["admin", "plain", "elsewhere"];

fn email(name: &str) -> String {
    format!("{name}@people.example")
}

fn credentials(name: &str) -> proto::LoginRequest {
    proto::LoginRequest { email: email(name), password: PASSWORD.into(), ..Default::default() }
}

/// A client with a session that begins here.
async fn log_in(nobody: &Client, name: &str) -> Client {
    let begun = nobody.login(credentials(name)).await.unwrap();
    nobody.with_key(&begun.tokens.unwrap().access_token)
}

/// Has somebody with these roles join: their identifier.
async fn join(admin: &Client, nobody: &Client, name: &str, roles: &[&str]) -> String {
    let grant = |role: &&str| proto::InitialGrant { role_id: (*role).into(), ..Default::default() };
    let invite = proto::InviteUserRequest {
        email: email(name),
        name: name.into(),
        grants: roles.iter().map(grant).collect(),
        ..Default::default()
    };
    let token = admin.invite_user(invite).await.unwrap().invitation_token;
    let password = PASSWORD.to_owned();
    let accept = proto::AcceptInvitationRequest { token, password, ..Default::default() };
    nobody.accept_invitation(accept).await.unwrap().user_id
}

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
    /// A user who logged in, their sessions, and the refresh tokens of others: one for each
    /// caller.
    somebody: String,
    sessions: Vec<String>,
    refresh_tokens: Vec<String>,
    /// Invitations of users who did not join: one for each caller.
    invitations: Vec<String>,
    reset_token: String,
    /// The sessions of [`PEOPLE`].
    people: Vec<Client>,
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
        let nobody = acme.nobody();
        for name in PEOPLE {
            let (admin, roles) = match name {
                "admin" => (&acme.admin, &[ADMIN][..]),
                "plain" => (&acme.admin, &[][..]),
                _ => (&stranger, &[ADMIN][..]),
            };
            join(admin, &nobody, name, roles).await;
            join(admin, &nobody, &format!("{name}2"), roles).await;
        }
        let mut people = Vec::new();
        for name in PEOPLE {
            people.push(log_in(&nobody, name).await);
        }
        let somebody = join(&acme.admin, &nobody, "somebody", &[]).await;
        let (mut sessions, mut refresh_tokens, mut invitations) = (vec![], vec![], vec![]);
        for number in 0..CALLERS.len() {
            let begun = nobody.login(credentials("somebody")).await.unwrap();
            sessions.push(begun.session.unwrap().id);
            let begun = nobody.login(credentials("somebody")).await.unwrap();
            refresh_tokens.push(begun.tokens.unwrap().refresh_token);
            let invite = proto::InviteUserRequest {
                email: email(&format!("invited{number}")),
                name: "invited".into(),
                ..Default::default()
            };
            invitations.push(acme.admin.invite_user(invite).await.unwrap().invitation_token);
        }
        join(&acme.admin, &nobody, "forgetful", &[]).await;
        let asked = proto::RequestPasswordResetRequest { email: email("forgetful") };
        let reset_token = acme.operator.request_password_reset(asked).await.unwrap().token;
        Self {
            acme,
            keys,
            writers,
            idle,
            roles,
            grants,
            account,
            users,
            somebody,
            sessions,
            refresh_tokens,
            invitations,
            reset_token,
            people,
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
        // Those rows may end the sessions that they are called with.
        let ends = row.method.contains("SessionService");
        let mut people = self.people.clone();
        if ends {
            for (person, name) in people.iter_mut().zip(PEOPLE) {
                *person = log_in(&acme.nobody(), &format!("{name}2")).await;
            }
        }
        let [with_roles, without_roles, elsewhere] = people.try_into().ok().unwrap();
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
            with_roles,
            without_roles,
            elsewhere,
        ]
    }

    async fn call(&self, row: &Row, client: &Client, number: usize) -> Result<Vec<u8>, Status> {
        let request: Request<Vec<u8>> = client.request((row.request)(self, number));
        call_raw(self.acme.server.channel(), row.method, request).await
    }
}

pub(crate) fn methods() -> BTreeSet<String> {
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

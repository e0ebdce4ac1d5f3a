//! Requests that may be sent again under an idempotency key, in an organization.

use projections::id::OrganizationId;

use crate::proto;

/// A request to change something in an organization.
pub(in crate::services) trait Repeatable: prost::Message {
    /// The method that takes it.
    const METHOD: &'static str;

    /// What a repeat is known by; empty for none.
    fn idempotency_key(&self) -> &str;

    /// The revision at which the caller saw the stream.
    fn expected_revision(&self) -> Option<u64>;

    /// What must be the same in a repeat: all that it asks for, and of which organization,
    /// by name or by default.
    fn sameness(&self, organization_id: OrganizationId) -> Self;
}

macro_rules! repeatable {
    ($($request:ident => $method:literal,)+) => {
        $(impl Repeatable for proto::$request {
            const METHOD: &'static str = $method;

            fn idempotency_key(&self) -> &str {
                &self.idempotency_key
            }

            fn expected_revision(&self) -> Option<u64> {
                self.expected_revision
            }

            fn sameness(&self, organization_id: OrganizationId) -> Self {
                Self {
                    organization_id: organization_id.text(),
                    idempotency_key: String::new(),
                    expected_revision: None,
                    ..self.clone()
                }
            }
        })+
    };
}

// The names are part of what stored events know repeats by: they never change.
repeatable! {
    CreateKeyRequest => "CreateKey",
    UpdateKeyLabelRequest => "UpdateKeyLabel",
    RotateKeyRequest => "RotateKey",
    EndRotationRequest => "EndRotation",
    DisableKeyRequest => "DisableKey",
    EnableKeyRequest => "EnableKey",
    ImportKeysRequest => "ImportKeys",
    RevokeKeyRequest => "RevokeKey",
    UpdatePolicyRequest => "UpdatePolicy",
    CreateServiceAccountRequest => "CreateServiceAccount",
    CreateRoleRequest => "CreateRole",
    UpdateRoleRequest => "UpdateRole",
    RetireRoleRequest => "RetireRole",
    GrantRoleRequest => "GrantRole",
    RevokeGrantRequest => "RevokeGrant",
    InviteUserRequest => "InviteUser",
    RenewInvitationRequest => "RenewInvitation",
    UpdateUserRequest => "UpdateUser",
    SuspendUserRequest => "SuspendUser",
    RestoreUserRequest => "RestoreUser",
    RemoveUserRequest => "RemoveUser",
}

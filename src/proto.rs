//! The messages, clients and servers of `proto/keyledger/v1`, generated at build time.
//!
//! Their meaning stands in the `.proto` files. Only one thing is written by hand here:
//! messages that carry secrets have a `Debug` that does not show them, so that no log
//! line, panic or test report can. `build.rs` lists them.

use std::fmt;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    reason = "generated code: its documentation is in the .proto files"
)]
mod generated {
    tonic::include_proto!("keyledger.v1");
}

pub use generated::*;

/// The compiled `.proto` files and all they import, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/keyledger_descriptor.bin"));

/// Stands for a secret: tells only whether there is one.
struct Redacted(bool);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "<redacted>" } else { "<none>" })
    }
}

/// Messages of which nothing is shown but their names.
macro_rules! all_secret {
    ($($name:ident),+ $(,)?) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

all_secret!(
    OpenGrantResponse,
    EventKey,
    LoginRequest,
    InviteUserResponse,
    RenewInvitationResponse,
    AcceptInvitationRequest,
    Tokens,
    RefreshRequest,
    StepUpRequest,
    EnrollTotpRequest,
    EnrollTotpResponse,
    ConfirmTotpRequest,
    ConfirmTotpResponse,
    RemoveTotpRequest,
    NewRecoveryCodesRequest,
    NewRecoveryCodesResponse,
    ChangePasswordRequest,
    RequestPasswordResetResponse,
    ResetPasswordRequest,
);

impl fmt::Debug for VerifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            credential,
            authorization,
            api_key,
            admin_api_key,
            tenant_id,
            permissions,
            service,
            environment,
            correlation_id,
            at_least_revision,
            client_ip,
            forwarded_for,
            domain,
            master_key,
            break_glass_reason,
        } = self;
        f.debug_struct("VerifyRequest")
            .field("credential", &Redacted(!credential.is_empty()))
            .field("authorization", &Redacted(!authorization.is_empty()))
            .field("api_key", &Redacted(!api_key.is_empty()))
            .field("admin_api_key", &Redacted(!admin_api_key.is_empty()))
            .field("tenant_id", tenant_id)
            .field("permissions", permissions)
            .field("service", service)
            .field("environment", environment)
            .field("correlation_id", correlation_id)
            .field("at_least_revision", at_least_revision)
            .field("client_ip", &Redacted(!client_ip.is_empty()))
            .field("forwarded_for", &Redacted(!forwarded_for.is_empty()))
            .field("domain", domain)
            .field("master_key", &Redacted(!master_key.is_empty()))
            .field("break_glass_reason", &Redacted(!break_glass_reason.is_empty()))
            .finish()
    }
}

impl fmt::Debug for CreateKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, secret, secret_already_issued, revision } = self;
        f.debug_struct("CreateKeyResponse")
            .field("key", key)
            .field("secret", &Redacted(!secret.is_empty()))
            .field("secret_already_issued", secret_already_issued)
            .field("revision", revision)
            .finish()
    }
}

impl fmt::Debug for RotateKeyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, secret, secret_already_issued, predecessor, revision } = self;
        f.debug_struct("RotateKeyResponse")
            .field("key", key)
            .field("secret", &Redacted(!secret.is_empty()))
            .field("secret_already_issued", secret_already_issued)
            .field("predecessor", predecessor)
            .field("revision", revision)
            .finish()
    }
}

impl fmt::Debug for ImportedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sha256, name, scopes, role_ids, service_account_id, .. } = self;
        f.debug_struct("ImportedKey")
            .field("sha256", &Redacted(!sha256.is_empty()))
            .field("name", name)
            .field("scopes", scopes)
            .field("role_ids", role_ids)
            .field("service_account_id", service_account_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_ids, leaked } = self;
        f.debug_struct("KeyList")
            .field("key_ids", key_ids)
            .field("leaked", &Redacted(!leaked.is_empty()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::field_descriptor_proto::Type;
    use prost_types::{FieldDescriptorProto, FileDescriptorSet};

    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let secret = "vtx_live_hunter2";
        let request = VerifyRequest {
            credential: secret.into(),
            authorization: vec![format!("Bearer {secret}")],
            api_key: vec![secret.into()],
            admin_api_key: vec![secret.into()],
            service: "billing".into(),
            ..VerifyRequest::default()
        };
        let response = CreateKeyResponse { secret: secret.into(), ..CreateKeyResponse::default() };
        let rotated = RotateKeyResponse { secret: secret.into(), ..RotateKeyResponse::default() };
        let imported = ImportedKey { sha256: secret.into(), ..ImportedKey::default() };
        let list = KeyList { leaked: vec![secret.into()], ..KeyList::default() };
        let batch = VerifyBatchRequest {
            questions: vec![request.clone()],
            ..VerifyBatchRequest::default()
        };
        let message = VerifyStreamRequest { id: 1, question: Some(request.clone()) };
        for text in [
            format!("{request:?} {request:#?}"),
            format!("{response:?} {response:#?}"),
            format!("{rotated:?} {rotated:#?}"),
            format!("{imported:?} {imported:#?}"),
            format!("{list:?} {list:#?}"),
            format!("{batch:?} {batch:#?}"),
            format!("{message:?} {message:#?}"),
        ] {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("<redacted>"), "{text}");
        }
        assert!(format!("{request:?}").contains("billing"));
        assert!(format!("{:?}", VerifyRequest::default()).contains("<none>"));
    }

    /// A new field that holds a secret must come with a `Debug` written by hand.
    #[test]
    fn every_message_with_a_secret_is_known() {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let mut found = Vec::new();
        for message in set.file.iter().flat_map(|file| &file.message_type) {
            let secret = |name: &str| {
                ["secret", "credential", "authorization", "api_key", "password", "leaked", "sha256"]
                    .contains(&name)
                    || name.ends_with("_secret")
                    || name.ends_with("_api_key")
                    || (name.ends_with("token")
                        && name != "page_token"
                        && name != "next_page_token")
            };
            // A code of an authenticator is a text; one of an answer is a kind.
            let shown = |field: &FieldDescriptorProto| {
                let text = field.r#type() == Type::String;
                text && ["code", "recovery_codes"].contains(&field.name())
            };
            // What opens a piece of one event.
            let opens = message.name() == "EventKey";
            if opens || message.field.iter().any(|field| secret(field.name()) || shown(field)) {
                found.push(message.name().to_owned());
            }
        }
        found.sort();
        assert_eq!(
            found,
            [
                "AcceptInvitationRequest",
                "ChangePasswordRequest",
                "ConfirmTotpRequest",
                "ConfirmTotpResponse",
                "CreateKeyResponse",
                "EnrollTotpRequest",
                "EnrollTotpResponse",
                "EventKey",
                "ImportedKey",
                "InviteUserResponse",
                "KeyList",
                "LoginRequest",
                "NewRecoveryCodesRequest",
                "NewRecoveryCodesResponse",
                "OpenGrantResponse",
                "RefreshRequest",
                "RemoveTotpRequest",
                "RenewInvitationResponse",
                "RequestPasswordResetResponse",
                "ResetPasswordRequest",
                "RotateKeyResponse",
                "StepUpRequest",
                "Tokens",
                "VerifyRequest",
            ]
        );
    }
}

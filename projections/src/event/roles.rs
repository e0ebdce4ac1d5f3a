//! What befalls roles, and who has them.

use serde::{Deserialize, Serialize};

use crate::id::{GrantId, RoleId};
use crate::permission::PermissionPattern;
use crate::principal::Principal;
use crate::text::{Description, Domain, Name};
use crate::time::Timestamp;

/// What a role means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleDefinition {
    /// What people call it.
    pub name: Name,
    /// What it is for.
    pub description: Description,
    /// What it permits.
    pub permissions: Vec<PermissionPattern>,
}

/// See [`super::Event::BuiltInRoleDefined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltInRoleDefined {
    /// The role.
    pub role_id: RoleId,
    /// What it means from here on.
    pub definition: RoleDefinition,
    /// What it meant up to here; none where the role is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RoleDefinition>,
}

/// See [`super::Event::RoleCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleCreated {
    /// The role.
    pub role_id: RoleId,
    /// What it means.
    pub definition: RoleDefinition,
}

/// See [`super::Event::RoleUpdated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleUpdated {
    /// The role.
    pub role_id: RoleId,
    /// What it means from here on.
    pub definition: RoleDefinition,
    /// What it meant up to here.
    pub before: RoleDefinition,
}

/// See [`super::Event::RoleRetired`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRetired {
    /// The role.
    pub role_id: RoleId,
    /// What it was called.
    pub name: Name,
}

/// Who has which role, where, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantTerms {
    /// Who has it.
    pub principal: Principal,
    /// What they have.
    pub role_id: RoleId,
    /// The one domain that it is for; none for the whole organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// The first instant at which they no longer have it; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// See [`super::Event::RoleGranted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleGranted {
    /// The grant.
    pub grant_id: GrantId,
    /// What is granted.
    pub terms: GrantTerms,
}

/// See [`super::Event::GrantRevoked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRevoked {
    /// The grant.
    pub grant_id: GrantId,
    /// What was granted.
    pub before: GrantTerms,
}

//! The facts.
//!
//! Types and schemas are only ever added. A changed meaning gets a new schema, or a
//! new type; the old one stays readable for as long as any log holds it. One event
//! changes one record: that is what lets a reader see a table between two events.
//!
//! To change a type's data, write the new struct, give it the next schema in [`events!`],
//! and name the old struct beside it, with a conversion: what was written stays readable.
//!
//! To add a type: write its struct, add it to [`events!`] below with schema 1, fold it
//! in [`crate::organization`], and write its golden file. The tests say what is missing.

use serde::{Deserialize, Serialize, Serializer};

use crate::digest::SecretDigest;
use crate::id::{AccountId, InstallationId, OrganizationId, RoleId, ServiceAccountId};
use crate::policy::Policy;
use crate::text::{Description, KeyPrefix, Name, PlanName};

mod accounts;
mod break_glass;
mod keys;
mod noted;
mod roles;
mod rules;
mod signing_keys;
mod users;

use accounts::AccountCreated1;
pub use accounts::{
    AccountCreated, AccountLocked, DefaultOrganizationSet, EmailConfirmed, EmailReleased,
    EmailReserved, PasswordCause, PasswordResetIssued, PasswordSet, RecoveryCodeUsed,
    RecoveryCodesReplaced, ResetGivenTo, SessionsEnded, TotpEnrolled, TotpRemoved,
};
pub(crate) use accounts::{AccountFact, EmailFact};
pub use break_glass::{
    BreakGlassApproved, BreakGlassAsked, BreakGlassConfigured, BreakGlassEndReason,
    BreakGlassEnded, BreakGlassEscalated, BreakGlassOpened, BreakGlassRefused, BreakGlassReviewed,
    BreakGlassRules, BreakGlassUsed, Custodian, ReviewFinding,
};
pub use keys::{
    DigestForm, Hint, KeyCreated, KeyDisabled, KeyEnabled, KeyLabel, KeyOrigin, KeyRelabelled,
    KeyRevoked, KeyRotated, KeyRotationEnded, KeyStateBefore, KeyedDigest, RevocationReason,
};
use keys::{KeyCreated1, KeyCreated2, KeyRevoked1};
pub use noted::{
    CountedDenial, Denial, DenialCode, DenialsSummarized, HistoryRead, KeyUses, UsageRecorded,
    WayOfReading,
};
use noted::{DenialsSummarized1, DenialsSummarized2, DenialsSummarized3};
pub use roles::{
    BuiltInRoleDefined, GrantRevoked, GrantTerms, RoleCreated, RoleDefinition, RoleGranted,
    RoleRetired, RoleUpdated,
};
use rules::PlanDefined1;
pub use rules::{
    MfaRule, PermissionRule, PermissionRuleDefined, PermissionRuleRemoved, PlanDefined, PlanRules,
};
pub use signing_keys::{SigningKeyAdded, SigningKeyRetired};
pub use users::{
    AuthenticationMethod, InvitationRenewed, SessionEndReason, SessionEnded, SessionStarted,
    SessionSteppedUp, TokenWay, UserInvited, UserJoined, UserRemoved, UserRestored,
    UserStateBefore, UserSuspended, UserUpdated,
};

use users::{InvitationRenewed1, UserInvited1, UserJoined1};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $schema:literal $(or $before:ident = $older:literal)*,)+) => {
        /// A fact.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)+
        }

        /// Every type of event and its schema that this version writes, in the order
        /// in which the types came to be.
        pub const SCHEMAS: &[(&str, u32)] = &[$((stringify!($name), $schema)),+];

        /// Every type and schema that earlier versions wrote: it is read as the current one.
        pub const OLDER_SCHEMAS: &[(&str, u32)] = &[$($((stringify!($name), $older),)*)+];

        impl Event {
            /// The name of its type, as stored.
            #[must_use]
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)+ }
            }

            /// The schema of its data.
            #[must_use]
            pub fn schema(&self) -> u32 {
                match self { $(Self::$name(_) => $schema,)+ }
            }

            /// Reads the data of an event of this type and schema; none if there is no such.
            pub(crate) fn read(event_type: &str, schema: u32, data: &str) -> Option<serde_json::Result<Self>> {
                match (event_type, schema) {
                    $((stringify!($name), $schema) => Some(serde_json::from_str(data).map(Self::$name)),)+
                    $($((stringify!($name), $older) => {
                        Some(serde_json::from_str::<$before>(data).map(|it| Self::$name(it.into())))
                    })*)+
                    _ => None,
                }
            }
        }

        impl Serialize for Event {
            /// The data alone: type and schema stand in the envelope.
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name(data) => data.serialize(serializer),)+ }
            }
        }

        $(impl From<$name> for Event {
            fn from(data: $name) -> Self {
                Self::$name(data)
            }
        })+
    };
}

events! {
    /// The installation came to be: the first event of the operator's stream.
    InstallationCreated = 1,
    /// From here on events of these types and schemas may be written.
    SchemaActivated = 1,
    /// A plan has these rules from here on.
    PlanDefined = 2 or PlanDefined1 = 1,
    /// A role that every organization has means this from here on.
    BuiltInRoleDefined = 1,
    /// The operator admitted an organization; its name and prefix are taken.
    OrganizationRegistered = 2 or OrganizationRegistered1 = 1,
    /// An organization came to be: the first event of its stream (the operator's second).
    OrganizationCreated = 2 or OrganizationCreated1 = 1,
    /// A key came into force.
    KeyCreated = 3 or KeyCreated2 = 2 or KeyCreated1 = 1,
    /// A key went out of force for good.
    KeyRevoked = 2 or KeyRevoked1 = 1,
    /// A key is called otherwise, or what it is for is said otherwise.
    KeyRelabelled = 1,
    /// Another key takes a key's place: the old one goes out of force at an instant.
    KeyRotated = 1,
    /// A key whose place was taken went out of force before that instant.
    KeyRotationEnded = 1,
    /// A key went out of force until it is enabled.
    KeyDisabled = 1,
    /// A disabled key came into force again.
    KeyEnabled = 1,
    /// A program that acts for the organization came to be.
    ServiceAccountCreated = 1,
    /// The organization has these rules of its own from here on.
    PolicyUpdated = 1,
    /// New digests are made under another pepper from here on.
    PepperRotated = 1,
    /// Credentials were denied: what came together within a minute.
    DenialsSummarized = 4 or DenialsSummarized3 = 3 or DenialsSummarized2 = 2 or DenialsSummarized1 = 1,
    /// Keys were used: the one type of event in a usage stream.
    UsageRecorded = 1,
    /// The organization has a role of its own from here on.
    RoleCreated = 1,
    /// A role of the organization's own means something else from here on.
    RoleUpdated = 1,
    /// A role of the organization's own permits nothing from here on, for good.
    RoleRetired = 1,
    /// A principal has a role from here on.
    RoleGranted = 1,
    /// A principal no longer has a role that it was granted.
    GrantRevoked = 1,
    /// The organization has a user from here on, who may join.
    UserInvited = 2 or UserInvited1 = 1,
    /// An invitation that was not accepted is good until another instant.
    InvitationRenewed = 2 or InvitationRenewed1 = 1,
    /// The person who was invited accepted.
    UserJoined = 2 or UserJoined1 = 1,
    /// A user is called otherwise, or has other numbers.
    UserUpdated = 1,
    /// A user may do nothing until they are restored.
    UserSuspended = 1,
    /// A suspended user may do again what they may.
    UserRestored = 1,
    /// A user is one no longer, for good.
    UserRemoved = 1,
    /// A user logged in.
    SessionStarted = 1,
    /// The user of a session showed again who they are.
    SessionSteppedUp = 1,
    /// A session ended before its time.
    SessionEnded = 1,
    /// Access tokens may be signed with a key from here on.
    SigningKeyAdded = 1,
    /// No access token that a key signed counts any more, for good.
    SigningKeyRetired = 1,
    /// An e-mail is kept for an account that is about to come to be.
    EmailReserved = 1,
    /// An account has an e-mail, and no other account can.
    EmailConfirmed = 1,
    /// An e-mail is free again.
    EmailReleased = 1,
    /// Somebody can log in from here on: the first event of their account's stream.
    AccountCreated = 2 or AccountCreated1 = 1,
    /// An account has another password; its sessions ended, and so did a lock.
    PasswordSet = 1,
    /// A second factor is asked of whoever logs in to an account.
    TotpEnrolled = 1,
    /// No second factor is asked any more; its recovery codes went with it.
    TotpRemoved = 1,
    /// An account has other recovery codes, and none of those before.
    RecoveryCodesReplaced = 1,
    /// A recovery code took the place of a second factor, once.
    RecoveryCodeUsed = 1,
    /// An account's sessions ended, in all organizations.
    SessionsEnded = 1,
    /// Nobody can log in to an account for a time.
    AccountLocked = 1,
    /// A login that names no organization leads to this one.
    DefaultOrganizationSet = 1,
    /// An operator was given a token that sets an account's password, or had it delivered.
    PasswordResetIssued = 1,
    /// Permissions ask for this from here on, beside being held.
    PermissionRuleDefined = 1,
    /// Permissions no longer ask for what a rule said.
    PermissionRuleRemoved = 1,
    /// Break-glass is governed so from here on, or off.
    BreakGlassConfigured = 1,
    /// A break-glass grant was opened.
    BreakGlassOpened = 1,
    /// Somebody else let a break-glass grant permit what it says.
    BreakGlassApproved = 1,
    /// A break-glass grant let a request pass.
    BreakGlassUsed = 1,
    /// A request under a master key or a break-glass grant was refused.
    BreakGlassRefused = 1,
    /// A break-glass grant permits nothing any more, for good.
    BreakGlassEnded = 1,
    /// Nobody reviewed a break-glass grant in time.
    BreakGlassEscalated = 1,
    /// Somebody looked at what was done under a break-glass grant.
    BreakGlassReviewed = 1,
    /// Somebody read the history.
    HistoryRead = 1,
}

/// See [`Event::InstallationCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallationCreated {
    /// What this installation is called among others.
    pub installation_id: InstallationId,
    /// The pepper that keys its digests, by number.
    pub pepper: u32,
    /// What that pepper makes of a fixed text: another pepper would be found out.
    pub pepper_check: SecretDigest,
}

/// See [`Event::SchemaActivated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaActivated {
    /// The types and schemas that may be written.
    pub schemas: Vec<ActivatedSchema>,
}

/// One schema of one type of event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivatedSchema {
    /// The type.
    pub event_type: String,
    /// The schema.
    pub schema: u32,
}

/// See [`Event::OrganizationRegistered`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationRegistered {
    /// The organization.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What its keys begin with: no other organization's do.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
    /// The account of the one person whose own it is; none for one that people join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal_of: Option<AccountId>,
}

macro_rules! schema_1 {
    ($old:ident of $new:ident) => {
        /// Schema 1, in which no organization was one person's own.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $old {
            organization_id: OrganizationId,
            name: Name,
            key_prefix: KeyPrefix,
            plan: PlanName,
        }

        impl From<$old> for $new {
            fn from(it: $old) -> Self {
                let $old { organization_id, name, key_prefix, plan } = it;
                Self { organization_id, name, key_prefix, plan, personal_of: None }
            }
        }
    };
}
schema_1!(OrganizationRegistered1 of OrganizationRegistered);
schema_1!(OrganizationCreated1 of OrganizationCreated);

/// See [`Event::OrganizationCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationCreated {
    /// The organization: the one whose stream this is.
    pub organization_id: OrganizationId,
    /// What people call it.
    pub name: Name,
    /// What its keys begin with.
    pub key_prefix: KeyPrefix,
    /// The plan it is on.
    pub plan: PlanName,
    /// The account of the one person whose own it is; none for one that people join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal_of: Option<AccountId>,
}

/// See [`Event::ServiceAccountCreated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountCreated {
    /// The service account.
    pub service_account_id: ServiceAccountId,
    /// What people call it, unique in the organization.
    pub name: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleId>,
}

/// See [`Event::PolicyUpdated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyUpdated {
    /// The organization's rules from here on.
    pub policy: Policy,
    /// Its rules up to here.
    pub before: Policy,
}

/// See [`Event::PepperRotated`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PepperRotated {
    /// The pepper that keys new digests, by number.
    pub pepper: u32,
    /// What that pepper makes of a fixed text.
    pub pepper_check: SecretDigest,
}

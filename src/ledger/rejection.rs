//! Why the rules refuse a command.

use projections::id::{
    BreakGlassGrantId, GrantId, KeyId, RoleId, ServiceAccountId, SessionId, UserId,
};
use projections::principal::Owner;
use projections::principal::Principal;
use projections::recorded::Revision;

/// Why the rules of break-glass refuse a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakGlassRejection {
    /// It is off.
    #[error("break-glass is off; the operator turns it on in the configuration")]
    Disabled,
    /// Whoever asks is no person by an account.
    #[error(
        "only a person can do this: log in, use a key of your own, or show a custodian's master key that is bound to an account"
    )]
    NotAPerson,
    /// There is no such grant in this organization.
    #[error("break-glass grant `{0}` not found")]
    NotFound(BreakGlassGrantId),
    /// Nobody has emergency access to the installation itself.
    #[error(
        "`organization_id`: nobody has emergency access to the installation itself; use `keyledger operator reissue` on its machine"
    )]
    Operator,
    /// The permission is not one that grants may have.
    #[error("`permissions`: `{0}` is not on the installation's list for break-glass")]
    PermissionNotListed(String),
    /// The duration is none that a grant may have.
    #[error("`duration`: must be 1 to {0} seconds")]
    Duration(u32),
    /// No incident was named.
    #[error("`incident`: must be given; name the incident that this is for")]
    IncidentRequired,
    /// The last grant for the same reason ended, and was not reviewed.
    #[error(
        "`reason`: grant `{0}` of the same custodian and reason ended, and must be reviewed before another is opened"
    )]
    ReviewPending(BreakGlassGrantId),
    /// As many grants were opened as may be.
    #[error("{0} grants were opened within {1} seconds, as many as may be; try again later")]
    Limited(u32, u32),
    /// There is no grant for the custodian and reason, and none may be opened. Its caller
    /// counts what was opened, and asks again.
    #[error("no grant is open for this reason")]
    NotOpen,
    /// The grant does not await approval, or not any more.
    #[error("break-glass grant `{0}` does not await approval")]
    NotAwaitingApproval(BreakGlassGrantId),
    /// Whoever asks had a part in it.
    #[error(
        "the grant must be {0} by somebody who neither opened nor approved it, as told apart by accounts"
    )]
    OwnGrant(&'static str),
    /// The grant has not ended.
    #[error("break-glass grant `{0}` has not ended; close it first")]
    NotEnded(BreakGlassGrantId),
    /// The grant was reviewed, by another, or with another finding.
    #[error("break-glass grant `{0}` was reviewed already")]
    Reviewed(BreakGlassGrantId),
}

impl From<BreakGlassRejection> for Rejection {
    fn from(rejection: BreakGlassRejection) -> Self {
        Self::BreakGlass(rejection)
    }
}

/// Why the rules refuse a command. Variants stand in order of precedence: where
/// several hold, the earliest is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The caller's key has gone out of force since it was verified.
    #[error("the caller's key is no longer in force")]
    CallerNotInForce,
    /// The caller may not do this.
    #[error("permission `{0}` is not held")]
    PermissionDenied(String),
    /// What the caller may do asks for a feature that its organization's plan lacks.
    #[error("permission `{0}` asks for a feature that is not licensed to the organization")]
    FeatureNotLicensed(String),
    /// What the caller may do asks for a second factor.
    #[error("permission `{0}` asks for a second factor: show one, in a session")]
    MfaRequired(String),
    /// What is made under a break-glass grant would outlast it.
    #[error(
        "what is made under a break-glass grant must end with it: give an expiry, no later than the grant's"
    )]
    OutlastsGrant,
    /// The rules of break-glass refuse it.
    #[error(transparent)]
    BreakGlass(BreakGlassRejection),
    /// There is no such organization.
    #[error("organization not found")]
    OrganizationNotFound,
    /// The idempotency key was used within 24 hours for something else.
    #[error("`idempotency_key` was used for another request; choose a new one")]
    IdempotencyKeyReused,
    /// The stream ends elsewhere than the caller expects.
    #[error("`expected_revision`: the stream ends at revision {}; read again and decide anew", current.map_or(-1, |it| i128::from(it.0)))]
    WrongExpectedRevision {
        /// Where it ends; none if it holds nothing.
        current: Option<Revision>,
    },
    /// The installation exists.
    #[error("the installation exists already")]
    InstallationExists,
    /// Another organization has this prefix.
    #[error("`key_prefix`: `{0}` is taken; choose another")]
    KeyPrefixTaken(String),
    /// The prefix is kept for the ledger's own tokens, or is the name of an environment.
    #[error("`key_prefix`: `{0}` is reserved; choose another")]
    KeyPrefixReserved(String),
    /// There is no such plan.
    #[error("`plan`: `{0}` is unknown; plans are {1}")]
    PlanUnknown(String, String),
    /// There is no such key in this organization.
    #[error("key `{0}` not found")]
    KeyNotFound(KeyId),
    /// The key went out of force so long ago that it is only looked up any more.
    #[error("key `{0}` went out of force more than 30 days ago; it can only be looked up")]
    KeyEndedLongAgo(KeyId),
    /// The key is out of force already.
    #[error("key `{0}` is revoked already")]
    KeyAlreadyRevoked(KeyId),
    /// The key is disabled already.
    #[error("key `{0}` is disabled already")]
    KeyAlreadyDisabled(KeyId),
    /// The key is disabled, and only active keys can be asked for this.
    #[error("key `{0}` is disabled; enable it first")]
    KeyIsDisabled(KeyId),
    /// The key is not disabled.
    #[error("key `{0}` is not disabled")]
    KeyNotDisabled(KeyId),
    /// The key's lifetime is over.
    #[error("key `{0}` is expired; make a new one")]
    KeyIsExpired(KeyId),
    /// Another key took this one's place already.
    #[error("key `{0}` was rotated already; rotate its successor `{1}`")]
    KeyAlreadyRotated(KeyId, KeyId),
    /// No key took this one's place.
    #[error("key `{0}` was not rotated; name the old key of a rotation")]
    KeyNotRotated(KeyId),
    /// The key belongs to the configuration of the installation.
    #[error(
        "key `{0}` is the installation's own; change it through its configuration or `keyledger operator reissue`"
    )]
    KeyIsConfigured(KeyId),
    /// There is no such service account in this organization.
    #[error("service account `{0}` not found")]
    ServiceAccountNotFound(ServiceAccountId),
    /// Another service account has this name.
    #[error("`name`: `{0}` is the name of another service account; choose another")]
    ServiceAccountNameTaken(String),
    /// The service account or user has as many keys as it may.
    #[error("`{0}` has {1} keys already; revoke some")]
    TooManyKeys(Owner, usize),
    /// The organization has as many service accounts as it may.
    #[error("the organization has {max} service accounts already", max = super::decide::SERVICE_ACCOUNTS_MAX)]
    TooManyServiceAccounts,
    /// There is no such role in this organization.
    #[error("role `{0}` not found")]
    NoSuchRole(RoleId),
    /// The role is the installation's, the same for everybody.
    #[error("role `{0}` is built in: it cannot be changed or retired; make one of your own")]
    RoleIsBuiltIn(RoleId),
    /// The role permits nothing any more.
    #[error("role `{0}` is retired, for good; make another")]
    RoleIsRetired(RoleId),
    /// There is no such grant in this organization.
    #[error("grant `{0}` not found")]
    GrantNotFound(GrantId),
    /// The principal has the role already, there, for as long.
    #[error("grant `{0}` gives that already, for as long; revoke it first")]
    GrantExists(GrantId),
    /// The principal has as many grants as it may.
    #[error("`{0}` has {max} grants already; revoke some", max = super::command::GRANTS_MAX)]
    TooManyGrants(Principal),
    /// A role can be granted to no such principal.
    #[error("`principal`: a role can be granted to a service account or a user only")]
    NotGrantable,
    /// The name is a built-in role's.
    #[error("`name`: `{0}` is the name of a built-in role; choose another")]
    RoleNameReserved(String),
    /// Another role has this name.
    #[error("`name`: `{0}` is the name of another role; choose another")]
    RoleNameTaken(String),
    /// The organization has as many roles of its own as it may.
    #[error("the organization has {max} roles of its own already; retire some", max = super::command::OWN_ROLES_MAX)]
    TooManyRoles,
    /// The organization has made as many roles of its own as it may.
    #[error("the organization has made {max} roles of its own, retired ones among them; change one that is in force instead", max = super::command::ROLES_MADE_MAX)]
    TooManyRolesMade,
    /// The key of a service account or a user has their roles.
    #[error("`role_ids`: the key of a service account or a user has their roles; leave them out")]
    RolesOfOwner,
    /// A key for another person says what it is for.
    #[error(
        "`scopes`: a key that is made for another person needs a list of permissions that you hold"
    )]
    ScopesForAnother,
    /// There is no such user in this organization, or they were removed.
    #[error("user `{0}` not found")]
    UserNotFound(UserId),
    /// The user is suspended.
    #[error("user `{0}` is suspended; restore them first")]
    UserIsSuspended(UserId),
    /// The user is not suspended.
    #[error("user `{0}` is not suspended")]
    UserNotSuspended(UserId),
    /// The organization is one person's own.
    #[error(
        "the organization is one person's own, and nobody else joins it; ask the operator for one that people join"
    )]
    OrganizationPersonal,
    /// Another user of the organization has this e-mail.
    #[error("`email`: user `{0}` has it; change that user, or remove them first")]
    EmailTaken(UserId),
    /// The organization has as many users as it may.
    #[error("the organization has {max} users already", max = super::command::USERS_MAX)]
    TooManyUsers,
    /// The user joined already.
    #[error("user `{0}` joined already")]
    UserJoinedAlready(UserId),
    /// The invitation is no longer accepted.
    #[error("the invitation is over; ask for another")]
    InvitationOver,
    /// The invitation is for somebody else.
    #[error("the invitation is for another e-mail than the account's")]
    InvitationForAnother,
    /// Nobody suspends or removes themself.
    #[error("nobody suspends or removes themself; ask another administrator")]
    NotOneself,
    /// There is no such session in this organization, or it is over.
    #[error("session `{0}` not found, or over")]
    SessionNotFound(SessionId),
    /// A policy would allow more than it does.
    #[error(
        "`policy`: would allow more than it does now; an organization tightens its policy, and its operator loosens it"
    )]
    PolicyLoosened,
    /// A key needs scopes, roles or both.
    #[error("a key needs `scopes`, `role_ids` or both")]
    KeyWithoutPermissions,
    /// There is no such role.
    #[error("`role_ids`: role `{0}` not found")]
    RoleNotFound(RoleId),
    /// The caller would give a permission that it does not hold.
    #[error("`{0}` is not held by the caller, who therefore cannot give it")]
    PermissionNotHeld(String),
    /// A test key would act on a live one.
    #[error("`environment`: a test key cannot act on live keys")]
    EnvironmentNotHeld,
    /// The caller's key is limited to services, and would give others.
    #[error("`services`: the caller's key is limited to services; list only those")]
    ServiceNotHeld,
    /// Another active key has this name.
    #[error("`name`: `{0}` is the name of another active key; choose another or revoke that one")]
    KeyNameTaken(String),
    /// The key would be expired from the start.
    #[error("`expires_at`: is not in the future")]
    ExpiryNotInFuture,
    /// The plan allows less.
    #[error("`expires_at`: the plan allows {} at most", in_words(*max_seconds))]
    LifetimeAbovePlan {
        /// What the plan allows.
        max_seconds: u32,
    },
    /// The organization's policy allows less.
    #[error("`expires_at`: the organization's policy allows {} at most", in_words(*max_seconds))]
    LifetimeAbovePolicy {
        /// What the policy allows.
        max_seconds: u32,
    },
    /// The old key of a rotation would stay valid too long.
    #[error("`grace`: {} at most is allowed", in_words(*max_seconds))]
    GraceAboveMax {
        /// What is allowed.
        max_seconds: u32,
    },
    /// The organization's policy asks for a list of addresses.
    #[error(
        "`allowed_ips`: the organization's policy demands them; name where the key may be used from"
    )]
    AllowedIpsRequired,
    /// The organization's policy asks for a list of addresses, and this one names all.
    #[error(
        "`allowed_ips`: all of `{0}` is named, and the organization's policy demands a list that narrows; name only the networks that the key is used from"
    )]
    AllowedIpsEverywhere(String),
    /// A secret of the configuration belongs to a key that was revoked.
    #[error("the configured key `{0}` was revoked; configure a new secret")]
    ConfiguredKeyRevoked(String),
    /// A secret is that of another key.
    #[error("the secret is in use already")]
    SecretInUse,
    /// One of several things asked for is refused.
    #[error("`{list}[{place}]`: {source}")]
    Item {
        /// The list.
        list: &'static str,
        /// Its place, from 0.
        place: usize,
        /// Why.
        source: Box<Rejection>,
    },
}

/// A length of time in the longest unit that it is a whole number of.
fn in_words(seconds: u32) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let whole =
        units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    let (length, unit) = whole.unwrap_or((1, "second"));
    let number = seconds / length;
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

impl Rejection {
    /// This rejection, of one item of a list.
    #[must_use]
    pub fn of_item(self, list: &'static str, place: usize) -> Self {
        Self::Item { list, place, source: Box::new(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_said_in_words() {
        for (seconds, words) in [
            (7_776_000, "90 days"),
            (86_400, "1 day"),
            (3_600, "1 hour"),
            (5_400, "90 minutes"),
            (61, "61 seconds"),
            (0, "0 seconds"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }
}

//! The permissions that keyledger itself asks for.

use projections::permission::Permission;

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $resource:literal : $action:literal,)+) => {
        $($(#[$doc])* pub const $name: Permission<'static> = Permission::constant($resource, $action);)+

        /// All of them, in the order of this page.
        pub const ALL: &[Permission<'static>] = &[$($name),+];
    };
}

permissions! {
    /// Ask about credentials.
    CREDENTIALS_VERIFY = "credentials":"verify",
    /// See keys.
    API_KEYS_READ = "api-keys":"read",
    /// Make and revoke keys.
    API_KEYS_WRITE = "api-keys":"write",
    /// See service accounts.
    SERVICE_ACCOUNTS_READ = "service-accounts":"read",
    /// Make service accounts.
    SERVICE_ACCOUNTS_WRITE = "service-accounts":"write",
    /// Change the rules that an organization gives itself.
    POLICY_WRITE = "policy":"write",
    /// See organizations.
    ORGANIZATIONS_READ = "organizations":"read",
    /// Make organizations; meaningful only in the operator organization.
    ORGANIZATIONS_WRITE = "organizations":"write",
    /// See how the installation fares; meaningful only in the operator organization.
    INSTALLATION_READ = "installation":"read",
    /// Change the installation; meaningful only in the operator organization.
    INSTALLATION_WRITE = "installation":"write",
    /// See roles, who was granted them, and what that comes to.
    ROLES_READ = "roles":"read",
    /// Make, change and retire roles, and grant them.
    ROLES_WRITE = "roles":"write",
    /// See users.
    USERS_READ = "users":"read",
    /// Invite, change, suspend and remove users.
    USERS_WRITE = "users":"write",
    /// See the sessions of others.
    SESSIONS_READ = "sessions":"read",
    /// End the sessions of others.
    SESSIONS_WRITE = "sessions":"write",
    /// Help people to their accounts; meaningful only in the operator organization.
    ACCOUNTS_WRITE = "accounts":"write",
    /// See break-glass grants, and all that was done under them.
    BREAK_GLASS_READ = "break-glass":"read",
    /// Approve break-glass grants that others opened.
    BREAK_GLASS_APPROVE = "break-glass":"approve",
    /// End break-glass grants.
    BREAK_GLASS_CLOSE = "break-glass":"close",
    /// Review break-glass grants that others opened and approved.
    BREAK_GLASS_REVIEW = "break-glass":"review",
    /// See what happened, the personal data around it included.
    ACTIVITY_READ = "activity":"read",
}

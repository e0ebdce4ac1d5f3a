//! The activity log: what each event says, to people and to programs.
//!
//! [`Entry::of`] turns an event into one line of the log. Nothing is added to what the
//! event holds but the names of keys that it names by identifier alone, which the caller
//! looks up. What is secret, or stands for a secret, never becomes part of an entry.
//!
//! To add a type of event: name its action in `actions!` below, and say in `tell` what it
//! did, on what. The compiler asks for both, and the tests for its line in the docs.

mod filter;
mod tell;
mod terms;
mod words;

use std::borrow::Cow;
use std::fmt;

pub use filter::{ActionPattern, Filter, InvalidAction};
pub use words::{InvalidSearch, SEARCH_CHARS_MAX, SEARCH_WORDS_MAX, search_words, words, words_of};

use crate::envelope::Envelope;
use crate::event::Event;
use crate::id::{
    AccountId, BreakGlassGrantId, EventId, KeyId, OrganizationId, RoleId, ServiceAccountId,
    SessionId, UserId,
};
use crate::permission::PermissionPattern;
use crate::principal::{Credential, Principal};
use crate::recorded::Revision;
use crate::text::{CorrelationId, Name, PlanName};
use crate::time::Timestamp;
pub(crate) use tell::break_glass::grant_of;
use tell::{Told, tell};
pub use terms::{TERM_BITS, TERMS_FORM, Term, terms_of};

macro_rules! actions {
    ($($event:ident => $action:literal,)+) => {
        /// Every type of event and the name of what it records. Names are `<what>.<done>`,
        /// and stay what they are: people search for them.
        pub const ACTIONS: &[(&str, &str)] = &[$((stringify!($event), $action)),+];

        /// The name of what an event records, such as `key.created`.
        #[must_use]
        pub fn action(event: &Event) -> &'static str {
            match event { $(Event::$event(_) => $action,)+ }
        }
    };
}

actions! {
    InstallationCreated => "installation.created",
    SchemaActivated => "installation.schema_activated",
    PlanDefined => "plan.defined",
    BuiltInRoleDefined => "role.defined",
    OrganizationRegistered => "organization.registered",
    OrganizationCreated => "organization.created",
    KeyCreated => "key.created",
    KeyRevoked => "key.revoked",
    KeyRelabelled => "key.relabelled",
    KeyRotated => "key.rotated",
    KeyRotationEnded => "key.rotation_ended",
    KeyDisabled => "key.disabled",
    KeyEnabled => "key.enabled",
    ServiceAccountCreated => "service_account.created",
    PolicyUpdated => "policy.updated",
    PepperRotated => "pepper.rotated",
    DenialsSummarized => "denials.summarized",
    UsageRecorded => "usage.recorded",
    RoleCreated => "role.created",
    RoleUpdated => "role.updated",
    RoleRetired => "role.retired",
    RoleGranted => "role.granted",
    GrantRevoked => "role.grant_revoked",
    UserInvited => "user.invited",
    InvitationRenewed => "user.invitation_renewed",
    UserJoined => "user.joined",
    UserUpdated => "user.updated",
    UserSuspended => "user.suspended",
    UserRestored => "user.restored",
    UserRemoved => "user.removed",
    SessionStarted => "session.started",
    SessionSteppedUp => "session.stepped_up",
    SessionEnded => "session.ended",
    SigningKeyAdded => "signing_key.added",
    SigningKeyRetired => "signing_key.retired",
    EmailReserved => "account.email_reserved",
    EmailConfirmed => "account.email_confirmed",
    EmailReleased => "account.email_released",
    AccountCreated => "account.created",
    PasswordSet => "account.password_set",
    TotpEnrolled => "account.totp_enrolled",
    TotpRemoved => "account.totp_removed",
    RecoveryCodesReplaced => "account.recovery_codes_replaced",
    RecoveryCodeUsed => "account.recovery_code_used",
    SessionsEnded => "account.sessions_ended",
    AccountLocked => "account.locked",
    DefaultOrganizationSet => "account.default_organization_set",
    PasswordResetIssued => "account.password_reset_issued",
    PermissionRuleDefined => "permission_rule.defined",
    PermissionRuleRemoved => "permission_rule.removed",
    BreakGlassConfigured => "break_glass.configured",
    BreakGlassOpened => "break_glass.opened",
    BreakGlassApproved => "break_glass.approved",
    BreakGlassUsed => "break_glass.used",
    BreakGlassRefused => "break_glass.refused",
    BreakGlassEnded => "break_glass.ended",
    BreakGlassEscalated => "break_glass.escalated",
    BreakGlassReviewed => "break_glass.reviewed",
    HistoryRead => "history.read",
}

/// What became of what was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was refused.
    Denied,
}

/// What was acted on, by its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetId<'a> {
    /// The installation itself; written `operator`, as its organization is.
    Installation,
    /// A plan, which goes by its name.
    Plan(&'a PlanName),
    /// A rule of permissions, which goes by its pattern.
    PermissionRule(&'a PermissionPattern),
    /// A role.
    Role(RoleId),
    /// An organization.
    Organization(OrganizationId),
    /// A key.
    Key(KeyId),
    /// A service account.
    ServiceAccount(ServiceAccountId),
    /// An account.
    Account(AccountId),
    /// The rules that the organization gives itself; written `policy`.
    Policy,
    /// A user.
    User(UserId),
    /// A session.
    Session(SessionId),
    /// A break-glass grant.
    BreakGlass(BreakGlassGrantId),
    /// Several credentials, or ones that nobody knows; written `credentials`.
    Credentials,
    /// The organization's history; written `history`.
    History,
}

impl TargetId<'_> {
    /// What it is, in one word of lower case.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Plan(_) => "plan",
            Self::PermissionRule(_) => "permission_rule",
            Self::Role(_) => "role",
            Self::Organization(_) => "organization",
            Self::Key(_) => "key",
            Self::ServiceAccount(_) => "service_account",
            Self::Account(_) => "account",
            Self::Policy => "policy",
            Self::User(_) => "user",
            Self::Session(_) => "session",
            Self::BreakGlass(_) => "break_glass_grant",
            Self::Credentials => "credentials",
            Self::History => "history",
        }
    }

    /// The same, at the beginning of a sentence.
    fn noun(self) -> &'static str {
        match self {
            Self::Installation => "The installation",
            Self::Plan(_) => "Plan",
            Self::PermissionRule(_) => "The rule of",
            Self::Role(_) => "Role",
            Self::Organization(_) => "Organization",
            Self::Key(_) => "Key",
            Self::ServiceAccount(_) => "Service account",
            Self::Account(_) => "Account",
            Self::Policy => "The policy",
            Self::User(_) => "User",
            Self::Session(_) => "Session",
            Self::BreakGlass(_) => "Break-glass grant",
            Self::Credentials => "Credentials",
            Self::History => "The history",
        }
    }
}

impl fmt::Display for TargetId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => OrganizationId::OPERATOR.fmt(f),
            Self::Plan(name) => name.fmt(f),
            Self::PermissionRule(pattern) => pattern.fmt(f),
            Self::Role(id) => id.fmt(f),
            Self::Organization(id) => id.fmt(f),
            Self::Key(id) => id.fmt(f),
            Self::ServiceAccount(id) => id.fmt(f),
            Self::Account(id) => id.fmt(f),
            Self::Policy => f.write_str("policy"),
            Self::User(id) => id.fmt(f),
            Self::Session(id) => id.fmt(f),
            Self::BreakGlass(id) => id.fmt(f),
            Self::Credentials => f.write_str("credentials"),
            Self::History => f.write_str("history"),
        }
    }
}

/// What was acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its identifier.
    pub id: TargetId<'a>,
    /// What people call it, where it has a name beside its identifier and the name is known.
    pub name: Option<Name>,
}

impl Target<'_> {
    /// The subject of a sentence.
    fn subject(&self) -> String {
        let (noun, id) = (self.id.noun(), self.id);
        match (&self.name, id) {
            (
                _,
                TargetId::Installation
                | TargetId::Policy
                | TargetId::Credentials
                | TargetId::History,
            ) => noun.to_owned(),
            (Some(name), _) => format!("{noun} {} ({id})", quoted(name.as_str())),
            (None, _) => format!("{noun} `{id}`"),
        }
    }
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A number.
    Number(i64),
    /// A list of texts.
    Texts(Vec<Cow<'a, str>>),
    /// An instant.
    Instant(Timestamp),
}

/// What a field was, and what it is from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange<'a> {
    /// The field, by the name that the event has for it.
    pub field: Cow<'static, str>,
    /// What it was; none where it had no value, or the event does not say.
    pub before: Option<Value<'a>>,
    /// What it is; none where it has no value any more.
    pub after: Option<Value<'a>>,
}

/// One line of the activity log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The event.
    pub event_id: EventId,
    /// Its place in its stream.
    pub revision: Revision,
    /// When it was recorded.
    pub at: Timestamp,
    /// What it records, by the name in [`ACTIONS`].
    pub action: &'static str,
    /// Who acted.
    pub actor: Principal,
    /// What they acted with; none where the ledger acted.
    pub credential: Option<Credential>,
    /// What they acted on.
    pub target: Target<'a>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, in one word of lower case; none where no reason was given.
    pub reason: Option<&'static str>,
    /// What changed, field by field, as far as the event says.
    pub changes: Vec<FieldChange<'a>>,
    /// What ties it to all else that the same cause brought about.
    pub correlation_id: &'a CorrelationId,
    /// The event it follows from.
    pub causation_id: Option<EventId>,
    /// All of it in one sentence, without a full stop.
    pub sentence: String,
}

/// Whether an event belongs to a break-glass grant: what befell it, and what was done under
/// it.
#[must_use]
pub fn is_under(envelope: &Envelope, grant: BreakGlassGrantId) -> bool {
    envelope.actor == Principal::BreakGlass(grant)
        || envelope.credential == Some(Credential::BreakGlass(grant))
        || grant_of(&envelope.event) == Some(grant)
}

impl<'a> Entry<'a> {
    /// The entry of an event; `names` knows the names of the organization's keys.
    #[must_use]
    pub fn of(
        revision: Revision,
        envelope: &'a Envelope,
        names: impl Fn(KeyId) -> Option<Name>,
    ) -> Self {
        let Told { mut target, deed, outcome, reason, changes } = tell(&envelope.event);
        if let (TargetId::Key(id), None) = (target.id, &target.name) {
            target.name = names(id);
        }
        let sentence = sentence(&target, &deed, envelope, reason);
        Self {
            event_id: envelope.id,
            revision,
            at: envelope.at,
            action: action(&envelope.event),
            actor: envelope.actor,
            credential: envelope.credential,
            target,
            outcome,
            reason,
            changes: changes.0,
            correlation_id: &envelope.correlation_id,
            causation_id: envelope.causation_id,
            sentence,
        }
    }
}

/// Key `ci` (key_…) was revoked by organization `org_…` with key `key_…`: key_compromise
fn sentence(
    target: &Target<'_>,
    deed: &str,
    envelope: &Envelope,
    reason: Option<&'static str>,
) -> String {
    let actor = match (envelope.actor, target.id) {
        (Principal::Account(id), TargetId::Account(own)) if id == own => "its owner".to_owned(),
        (Principal::BreakGlass(id), TargetId::BreakGlass(own)) if id == own => {
            "its bearer".to_owned()
        }
        (actor, _) => who(actor),
    };
    let mut sentence = format!("{} {deed} by {actor}", target.subject());
    // Who acts under a grant, acts with it.
    let with = envelope.credential.filter(|it| !matches!(it, Credential::BreakGlass(_)));
    if let Some(it) = with {
        sentence.push_str(&format!(" with {} `{it}`", it.noun()));
    }
    if let Some(reason) = reason {
        sentence.push_str(": ");
        sentence.push_str(reason);
    }
    sentence
}

fn who(actor: Principal) -> String {
    match actor {
        Principal::Organization(id) if id.is_operator() => "the operator".to_owned(),
        Principal::Organization(id) => format!("organization `{id}`"),
        Principal::ServiceAccount(id) => format!("service account `{id}`"),
        Principal::Account(id) => format!("account `{id}`"),
        Principal::BreakGlass(id) => format!("break-glass grant `{id}`"),
        Principal::Ledger => "the ledger".to_owned(),
        Principal::User(id) => format!("user `{id}`"),
    }
}

/// A text that somebody chose, between backticks: one of its own would end it early, and
/// let a name say the rest of the sentence.
fn quoted(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

#[cfg(test)]
mod tests;

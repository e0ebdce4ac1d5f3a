//! The activity log: what each event says, to people and to programs.
//!
//! [`Entry::of`] turns an event into one line of the log. Nothing is added to what the
//! event holds but the names of keys that it names by identifier alone, which the caller
//! looks up. What is secret, or stands for a secret, never becomes part of an entry.
//!
//! To add a type of event: name its action in [`actions!`] below and say in [`tell`] what
//! it did, on what. The compiler asks for both, and the tests for its line in the docs.

mod filter;

use std::borrow::Cow;
use std::fmt;

pub use filter::{ActionPattern, Filter, InvalidAction};

use crate::api_key::Environment;
use crate::envelope::Envelope;
use crate::event::{
    BuiltInRoleDefined, Event, InstallationCreated, KeyCreated, KeyOrigin, KeyRevoked,
    KeyStateBefore, OrganizationCreated, OrganizationRegistered, PlanDefined, RevocationReason,
    RoleDefinition, SchemaActivated,
};
use crate::id::{EventId, KeyId, OrganizationId, RoleId};
use crate::permission::Scopes;
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::{CorrelationId, KeyPrefix, Name, PlanName};
use crate::time::Timestamp;

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
    /// A role.
    Role(RoleId),
    /// An organization.
    Organization(OrganizationId),
    /// A key.
    Key(KeyId),
}

impl TargetId<'_> {
    /// What it is, in one word of lower case.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Plan(_) => "plan",
            Self::Role(_) => "role",
            Self::Organization(_) => "organization",
            Self::Key(_) => "key",
        }
    }

    /// The same, at the beginning of a sentence.
    fn noun(self) -> &'static str {
        match self {
            Self::Installation => "The installation",
            Self::Plan(_) => "Plan",
            Self::Role(_) => "Role",
            Self::Organization(_) => "Organization",
            Self::Key(_) => "Key",
        }
    }
}

impl fmt::Display for TargetId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => OrganizationId::OPERATOR.fmt(f),
            Self::Plan(name) => name.fmt(f),
            Self::Role(id) => id.fmt(f),
            Self::Organization(id) => id.fmt(f),
            Self::Key(id) => id.fmt(f),
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
            (_, TargetId::Installation) => noun.to_owned(),
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
    /// The key they acted with; none where the ledger acted.
    pub credential: Option<KeyId>,
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
    let mut sentence = format!("{} {deed} by {}", target.subject(), who(envelope.actor));
    if let Some(key) = envelope.credential {
        sentence.push_str(&format!(" with key `{key}`"));
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
        Principal::Ledger => "the ledger".to_owned(),
    }
}

/// A text that somebody chose, between backticks: one of its own would end it early, and
/// let a name say the rest of the sentence.
fn quoted(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

/// What an event says of itself, its envelope aside.
struct Told<'a> {
    target: Target<'a>,
    /// What happened to the target: "was created". " by …" follows.
    deed: Cow<'static, str>,
    outcome: Outcome,
    reason: Option<&'static str>,
    changes: Changes<'a>,
}

impl<'a> Told<'a> {
    fn of(id: TargetId<'a>, name: Option<&Name>, deed: impl Into<Cow<'static, str>>) -> Self {
        Self {
            target: Target { id, name: name.cloned() },
            deed: deed.into(),
            outcome: Outcome::Succeeded,
            reason: None,
            changes: Changes::default(),
        }
    }
}

/// One arm for each type of event.
fn tell(event: &Event) -> Told<'_> {
    match event {
        Event::InstallationCreated(data) => installation_created(data),
        Event::SchemaActivated(data) => schema_activated(data),
        Event::PlanDefined(data) => plan_defined(data),
        Event::BuiltInRoleDefined(data) => role_defined(data),
        Event::OrganizationRegistered(OrganizationRegistered {
            organization_id,
            name,
            key_prefix,
            plan,
        }) => organization("was registered", *organization_id, name, key_prefix, plan),
        Event::OrganizationCreated(OrganizationCreated {
            organization_id,
            name,
            key_prefix,
            plan,
        }) => organization("was created", *organization_id, name, key_prefix, plan),
        Event::KeyCreated(data) => key_created(data),
        Event::KeyRevoked(data) => key_revoked(data),
    }
}

fn installation_created(data: &InstallationCreated) -> Told<'_> {
    let mut told = Told::of(TargetId::Installation, None, "was created");
    told.changes.made("installation_id", text(data.installation_id.text()));
    told
}

fn schema_activated(data: &SchemaActivated) -> Told<'_> {
    let deed = match data.schemas.as_slice() {
        [one] => format!("had schema {} of `{}` activated", one.schema, one.event_type),
        schemas => format!("had {} schemas of events activated", schemas.len()),
    };
    let mut told = Told::of(TargetId::Installation, None, deed);
    let schemas = data.schemas.iter().map(|it| format!("{} {}", it.event_type, it.schema).into());
    told.changes.made("schemas", Value::Texts(schemas.collect()));
    told
}

fn plan_defined(data: &PlanDefined) -> Told<'_> {
    let mut told = Told::of(TargetId::Plan(&data.plan), None, defined(data.before.is_some()));
    let lifetime = |seconds: Option<u32>| seconds.map(|it| Value::Number(it.into()));
    told.changes.changed(
        "key_lifetime_max_seconds",
        lifetime(data.before.as_ref().and_then(|it| it.key_lifetime_max_seconds)),
        lifetime(data.rules.key_lifetime_max_seconds),
    );
    told
}

fn role_defined(data: &BuiltInRoleDefined) -> Told<'_> {
    let BuiltInRoleDefined { role_id, definition, before } = data;
    let deed = defined(before.is_some());
    let mut told = Told::of(TargetId::Role(*role_id), Some(&definition.name), deed);
    let name = |it: &'_ RoleDefinition| it.name.as_str().to_owned();
    told.changes.changed("name", before.as_ref().map(name).map(text), Some(text(name(definition))));
    told.changes.changed(
        "description",
        before.as_ref().map(|it| text(it.description.as_str())),
        Some(text(definition.description.as_str())),
    );
    told.changes.changed(
        "permissions",
        before.as_ref().map(|it| texts(&it.permissions)),
        Some(texts(&definition.permissions)),
    );
    told
}

fn defined(before: bool) -> &'static str {
    if before { "was redefined" } else { "was defined" }
}

fn organization<'a>(
    deed: &'static str,
    id: OrganizationId,
    name: &'a Name,
    key_prefix: &'a KeyPrefix,
    plan: &'a PlanName,
) -> Told<'a> {
    let mut told = Told::of(TargetId::Organization(id), Some(name), deed);
    told.changes.made("name", text(name.as_str()));
    told.changes.made("key_prefix", text(key_prefix.as_str()));
    told.changes.made("plan", text(plan.as_str()));
    told
}

fn key_created(data: &KeyCreated) -> Told<'_> {
    // What stands for the secret is left out: it could be looked for elsewhere.
    let KeyCreated {
        key_id,
        name,
        description,
        origin,
        prefix: _,
        environment,
        hint: _,
        digest: _,
        scopes,
        roles,
        services,
        expires_at,
        metadata,
        limits,
    } = data;
    let (deed, origin) = match origin {
        KeyOrigin::Minted => ("was created", "minted"),
        KeyOrigin::Configured => ("was created from the configuration", "configured"),
    };
    let mut told = Told::of(TargetId::Key(*key_id), Some(name), deed);
    let changes = &mut told.changes;
    changes.made("name", text(name.as_str()));
    changes.made_some("description", description.as_ref().map(|it| text(it.as_str())));
    changes.made("origin", text(origin));
    changes.made_some("environment", environment.map(|it| text(environment_text(it))));
    changes.made_some("scopes", scopes.as_ref().map(scope_texts));
    changes.made_some("roles", (!roles.is_empty()).then(|| texts(roles)));
    changes.made_some("services", services.as_deref().map(texts));
    changes.made_some("expires_at", expires_at.map(Value::Instant));
    for (label, value) in metadata {
        changes.made(format!("metadata.{label}"), text(value.as_str()));
    }
    for (label, value) in limits {
        changes.made(format!("limits.{label}"), Value::Number(*value));
    }
    told
}

fn key_revoked(data: &KeyRevoked) -> Told<'_> {
    let mut told = Told::of(TargetId::Key(data.key_id), None, "was revoked");
    told.reason = revocation_reason(data.reason);
    let before = match data.before {
        KeyStateBefore::Active => "active",
        KeyStateBefore::Expired => "expired",
    };
    told.changes.changed("state", Some(text(before)), Some(text("revoked")));
    told
}

fn revocation_reason(reason: RevocationReason) -> Option<&'static str> {
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some("key_compromise"),
        RevocationReason::AffiliationChanged => Some("affiliation_changed"),
        RevocationReason::Superseded => Some("superseded"),
        RevocationReason::CessationOfOperation => Some("cessation_of_operation"),
        RevocationReason::PrivilegeWithdrawn => Some("privilege_withdrawn"),
    }
}

fn environment_text(environment: Environment) -> &'static str {
    match environment {
        Environment::Live => "live",
        Environment::Test => "test",
    }
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(text.into())
}

fn texts<T: ToString>(list: &[T]) -> Value<'static> {
    Value::Texts(list.iter().map(|it| it.to_string().into()).collect())
}

fn scope_texts(scopes: &Scopes) -> Value<'_> {
    Value::Texts(scopes.texts().map(Cow::Borrowed).collect())
}

/// Changes as they are gathered.
#[derive(Default)]
struct Changes<'a>(Vec<FieldChange<'a>>);

impl<'a> Changes<'a> {
    /// A field that may have had a value before; left out where it is what it was.
    fn changed(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        before: Option<Value<'a>>,
        after: Option<Value<'a>>,
    ) {
        if before != after {
            self.0.push(FieldChange { field: field.into(), before, after });
        }
    }

    /// A field of something new.
    fn made(&mut self, field: impl Into<Cow<'static, str>>, after: Value<'a>) {
        self.changed(field, None, Some(after));
    }

    /// A field of something new that may have no value.
    fn made_some(&mut self, field: &'static str, after: Option<Value<'a>>) {
        self.changed(field, None, after);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::event::{PlanRules, SCHEMAS};
    use crate::sample::{ACME, envelope, key_created, key_id, key_revoked, role_defined};

    fn sentence(event: Event) -> String {
        Entry::of(Revision(3), &envelope(5, event), |_| None).sentence
    }

    #[test]
    fn every_type_of_event_has_an_action_of_its_own() {
        let types: BTreeSet<&str> = SCHEMAS.iter().map(|(event_type, _)| *event_type).collect();
        let told: BTreeSet<&str> = ACTIONS.iter().map(|(event_type, _)| *event_type).collect();
        assert_eq!(types, told);
        let names: BTreeSet<&str> = ACTIONS.iter().map(|(_, action)| *action).collect();
        assert_eq!(names.len(), ACTIONS.len(), "two types of events share an action");
        for name in names {
            let (what, done) = name.split_once('.').unwrap();
            let word = |it: &str| {
                !it.is_empty() && it.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            assert!(word(what) && word(done), "{name}");
        }
    }

    #[test]
    fn an_entry_says_who_what_on_what_and_why() {
        let mut revoked = envelope(5, key_revoked(1));
        revoked.actor = Principal::Organization(ACME);
        revoked.credential = Some(key_id(2));
        let ci = || "ci".parse::<Name>().ok();
        let entry = Entry::of(Revision(3), &revoked, |id| ci().filter(|_| id == key_id(1)));
        let (key, by) = (key_id(1), key_id(2));
        assert_eq!(
            entry.sentence,
            format!(
                "Key `ci` ({key}) was revoked by organization `{ACME}` with key `{by}`: key_compromise"
            )
        );
        assert_eq!((entry.action, entry.reason), ("key.revoked", Some("key_compromise")));
        assert_eq!((entry.target.id, entry.target.name), (TargetId::Key(key), ci()));
        let state = |text: &'static str| Some(Value::Text(text.into()));
        assert_eq!(
            entry.changes,
            [FieldChange {
                field: "state".into(),
                before: state("active"),
                after: state("revoked")
            }]
        );
        revoked.actor = Principal::Organization(OrganizationId::OPERATOR);
        revoked.credential = None;
        let entry = Entry::of(Revision(3), &revoked, |_| None);
        assert_eq!(
            entry.sentence,
            format!("Key `{key}` was revoked by the operator: key_compromise")
        );
    }

    #[test]
    fn a_name_cannot_say_the_rest_of_the_sentence() {
        let event = key_created(1, |it| {
            it.name = "x` (key_1) was revoked by the operator: `".parse().unwrap();
        });
        assert_eq!(sentence(event).matches('`').count(), 2);
    }

    #[test]
    fn what_stands_for_a_secret_is_no_part_of_an_entry() {
        let envelope = envelope(5, key_created(0x5a, |it| it.hint = None));
        let entry = format!("{:?}", Entry::of(Revision(3), &envelope, |_| None));
        let Event::KeyCreated(data) = &envelope.event else { panic!() };
        let digest = serde_json::to_string(&data.digest.blake3).unwrap();
        assert!(!entry.contains(digest.trim_matches('"')), "{entry}");
        assert!(!entry.contains("5a5a5a") && !entry.contains("90, 90"), "{entry}");
    }

    #[test]
    fn what_stays_as_it_was_is_no_change() {
        let Event::BuiltInRoleDefined(mut role) = role_defined(1, &["dns:read"]) else { panic!() };
        role.before = Some(RoleDefinition {
            permissions: vec!["dns:*".parse().unwrap()],
            ..role.definition.clone()
        });
        let again = envelope(5, role.into());
        let entry = Entry::of(Revision(3), &again, |_| None);
        let fields: Vec<&str> = entry.changes.iter().map(|it| it.field.as_ref()).collect();
        assert_eq!(fields, ["permissions"]);
        assert!(entry.sentence.contains("was redefined by the ledger"), "{}", entry.sentence);
        let plan = PlanDefined {
            plan: "free".parse().unwrap(),
            rules: PlanRules { key_lifetime_max_seconds: None },
            before: None,
        };
        assert_eq!(sentence(plan.into()), "Plan `free` was defined by the ledger");
    }
}

//! What each type of event says of itself: one arm, and what it needs.

mod accounts;
pub(super) mod break_glass;

use std::borrow::Cow;
use std::fmt;

mod people;

use super::{FieldChange, Outcome, Target, TargetId, Value, who};
use crate::api_key::Environment;
use crate::event::{
    BuiltInRoleDefined, CountedDenial, Denial, DenialCode, DenialsSummarized, Event, GrantRevoked,
    GrantTerms, HistoryRead, InstallationCreated, KeyCreated, KeyLabel, KeyOrigin, KeyRelabelled,
    KeyRevoked, KeyRotated, KeyRotationEnded, KeyStateBefore, KeyUses, OrganizationCreated,
    OrganizationRegistered, PepperRotated, PermissionRule, PermissionRuleDefined,
    PermissionRuleRemoved, PlanDefined, PlanRules, PolicyUpdated, RevocationReason, RoleCreated,
    RoleDefinition, RoleGranted, RoleRetired, RoleUpdated, SchemaActivated, ServiceAccountCreated,
    SigningKeyAdded, SigningKeyRetired, WayOfReading,
};
use crate::id::{AccountId, GrantId, KeyId, OrganizationId, RoleId};
use crate::network::Networks;
use crate::permission::{PermissionPattern, Scopes};
use crate::policy::Policy;
use crate::principal::Credential;
use crate::text::{KeyPrefix, Name, PlanName};

/// What an event says of itself, its envelope aside.
pub(super) struct Told<'a> {
    pub(super) target: Target<'a>,
    /// What happened to the target: "was created". " by …" follows.
    pub(super) deed: Cow<'static, str>,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<&'static str>,
    pub(super) changes: Changes<'a>,
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

    /// As an organization that is one person's own, where it is one.
    fn owned_by(mut self, account: Option<AccountId>) -> Self {
        if let Some(account) = account {
            self.changes.made("personal_of", text(account.to_string()));
        }
        self
    }
}

/// One arm for each type of event.
pub(super) fn tell(event: &Event) -> Told<'_> {
    match event {
        Event::InstallationCreated(data) => installation_created(data),
        Event::SchemaActivated(data) => schema_activated(data),
        Event::PlanDefined(data) => plan_defined(data),
        Event::PermissionRuleDefined(PermissionRuleDefined { permission, rule, before }) => {
            let deed = defined(before.is_some());
            permission_rule(deed, permission, before.as_ref(), Some(rule))
        }
        Event::PermissionRuleRemoved(PermissionRuleRemoved { permission, before }) => {
            permission_rule("was removed", permission, Some(before), None)
        }
        Event::BuiltInRoleDefined(data) => role_defined(data),
        Event::OrganizationRegistered(OrganizationRegistered {
            organization_id,
            name,
            key_prefix,
            plan,
            personal_of,
        }) => {
            let told = organization("was registered", *organization_id, name, key_prefix, plan);
            told.owned_by(*personal_of)
        }
        Event::OrganizationCreated(OrganizationCreated {
            organization_id,
            name,
            key_prefix,
            plan,
            personal_of,
        }) => {
            let told = organization("was created", *organization_id, name, key_prefix, plan);
            told.owned_by(*personal_of)
        }
        Event::KeyCreated(data) => key_created(data),
        Event::KeyRevoked(data) => key_revoked(data),
        Event::KeyRelabelled(data) => key_relabelled(data),
        Event::KeyRotated(data) => key_rotated(data),
        Event::KeyRotationEnded(data) => key_rotation_ended(data),
        Event::KeyDisabled(data) => key_state(data.key_id, "was disabled", "active", "disabled"),
        Event::KeyEnabled(data) => key_state(data.key_id, "was enabled", "disabled", "active"),
        Event::ServiceAccountCreated(data) => service_account_created(data),
        Event::PolicyUpdated(data) => policy_updated(data),
        Event::PepperRotated(data) => pepper_rotated(data),
        Event::SigningKeyAdded(data) => signing_key_added(data),
        Event::SigningKeyRetired(data) => signing_key_retired(data),
        Event::DenialsSummarized(data) => denials_summarized(data),
        Event::HistoryRead(data) => history_read(data),
        Event::RoleCreated(RoleCreated { role_id, definition }) => {
            role("was created", *role_id, definition, None)
        }
        Event::RoleUpdated(RoleUpdated { role_id, definition, before }) => {
            role("was updated", *role_id, definition, Some(before))
        }
        Event::RoleRetired(RoleRetired { role_id, name }) => {
            let mut told = Told::of(TargetId::Role(*role_id), Some(name), "was retired");
            told.changes.changed("state", Some(text("in force")), Some(text("retired")));
            told
        }
        Event::RoleGranted(RoleGranted { grant_id, terms }) => {
            granted("was granted to", *grant_id, terms, true)
        }
        Event::GrantRevoked(GrantRevoked { grant_id, before }) => {
            granted("was withdrawn from", *grant_id, before, false)
        }
        Event::UserInvited(data) => people::user_invited(data),
        Event::InvitationRenewed(data) => people::invitation_renewed(data),
        Event::UserJoined(data) => people::user_joined(data),
        Event::UserUpdated(data) => people::user_updated(data),
        Event::UserSuspended(data) => people::user_suspended(data),
        Event::UserRestored(data) => people::user_restored(data),
        Event::UserRemoved(data) => people::user_removed(data),
        Event::SessionStarted(data) => people::session_started(data),
        Event::SessionSteppedUp(data) => people::session_stepped_up(data),
        Event::SessionEnded(data) => people::session_ended(data),
        Event::BreakGlassConfigured(data) => break_glass::configured(data),
        Event::BreakGlassOpened(data) => break_glass::opened(data),
        Event::BreakGlassApproved(data) => break_glass::approved(data),
        Event::BreakGlassUsed(data) => break_glass::used(data),
        Event::BreakGlassRefused(data) => break_glass::refused(data),
        Event::BreakGlassEnded(data) => break_glass::ended(data),
        Event::BreakGlassEscalated(data) => break_glass::escalated(data),
        Event::BreakGlassReviewed(data) => break_glass::reviewed(data),
        Event::EmailReserved(data) => accounts::email_reserved(data),
        Event::EmailConfirmed(data) => accounts::email_confirmed(data),
        Event::EmailReleased(data) => accounts::email_released(data),
        Event::AccountCreated(data) => accounts::created(data),
        Event::PasswordSet(data) => accounts::password_set(data),
        Event::TotpEnrolled(data) => accounts::totp_enrolled(data),
        Event::TotpRemoved(data) => accounts::totp_removed(data),
        Event::RecoveryCodesReplaced(data) => accounts::recovery_codes_replaced(data),
        Event::RecoveryCodeUsed(data) => accounts::recovery_code_used(data),
        Event::SessionsEnded(data) => accounts::sessions_ended(data),
        Event::AccountLocked(data) => accounts::locked(data),
        Event::DefaultOrganizationSet(data) => accounts::default_organization_set(data),
        Event::PasswordResetIssued(data) => accounts::password_reset_issued(data),
        Event::UsageRecorded(data) => {
            let mut told = Told::of(TargetId::Credentials, None, "had their use recorded");
            told.changes.made("keys", texts(&key_ids(&data.keys)));
            told
        }
    }
}

fn key_ids(keys: &[KeyUses]) -> Vec<KeyId> {
    keys.iter().map(|it| it.key_id).collect()
}

/// Gives the identifier of everything that an event was done to or speaks of: its target, the
/// credentials that it counts, a grant and who has it, whose session it is. Some may come twice.
pub(super) fn for_each_named(event: &Event, mut each: impl FnMut(&dyn fmt::Display)) {
    each(&tell(event).target.id);
    if let Event::DenialsSummarized(data) = event {
        data.denials.iter().filter_map(|it| it.denial.credential).for_each(|it| each(&it));
    } else if let Event::UsageRecorded(data) = event {
        data.keys.iter().for_each(|it| each(&it.key_id));
    } else if let Event::RoleGranted(RoleGranted { grant_id, terms })
    | Event::GrantRevoked(GrantRevoked { grant_id, before: terms }) = event
    {
        each(grant_id);
        each(&terms.principal);
    } else if let Some(user) = people::names_user(event) {
        each(&user);
    }
}

fn history_read(data: &HistoryRead) -> Told<'_> {
    let HistoryRead { way, asked, and_more } = data;
    let deed = match way {
        WayOfReading::Queried => "was queried",
        WayOfReading::Followed => "was followed",
        WayOfReading::Exported => "was exported",
        WayOfReading::Replayed => "was replayed",
        WayOfReading::AskedForThePast => "was asked how things were",
        WayOfReading::AskedToExplain => "was asked to explain a decision",
        WayOfReading::ReportedOn => "was reported on",
    };
    let deed = if *and_more { format!("{deed} again and again").into() } else { Cow::from(deed) };
    let mut told = Told::of(TargetId::History, None, deed);
    told.changes.made("way".to_owned(), text(way.name()));
    for (field, value) in asked {
        told.changes.made(field.to_string(), text(value));
    }
    told
}

fn denials_summarized(data: &DenialsSummarized) -> Told<'_> {
    let DenialsSummarized { first_at, last_at, denials, others } = data;
    let all_of = |id: Credential| denials.iter().all(|it| it.denial.credential == Some(id));
    let one = denials.first().and_then(|it| it.denial.credential);
    let target = match one.filter(|id| *others == 0 && all_of(*id)) {
        Some(Credential::Key(id)) => TargetId::Key(id),
        Some(Credential::Session(id)) => TargetId::Session(id),
        Some(Credential::BreakGlass(id)) => TargetId::BreakGlass(id),
        None => TargetId::Credentials,
    };
    let (total, once) = (data.total(), data.total() == 1);
    let were = if target == TargetId::Credentials { "were" } else { "was" };
    let deed =
        if once { format!("{were} denied once") } else { format!("{were} denied {total} times") };
    let mut told = Told::of(target, None, deed);
    told.outcome = Outcome::Denied;
    told.reason = match denials.as_slice() {
        [only] if *others == 0 => Some(denial_code(only.denial.code)),
        _ => None,
    };
    let changes = &mut told.changes;
    changes.made("first_at", Value::Instant(*first_at));
    changes.made("last_at", Value::Instant(*last_at));
    changes.made("denials", Value::Texts(denials.iter().map(|it| denial(it).into()).collect()));
    let number = i64::try_from(*others).unwrap_or(i64::MAX);
    changes.made_some("others", (number > 0).then_some(Value::Number(number)));
    told
}

/// 12 × permission_denied, key_…, asked with key_…, for cdn
fn denial(counted: &CountedDenial) -> String {
    let Denial { code, credential, asked_with, service } = &counted.denial;
    let mut text = format!("{} × {}", counted.count, denial_code(*code));
    if let Some(id) = credential {
        text.push_str(&format!(", {id}"));
    }
    if let Some(id) = asked_with {
        text.push_str(&format!(", asked with {id}"));
    }
    if let Some(service) = service {
        text.push_str(&format!(", for {service}"));
    }
    text
}

fn denial_code(code: DenialCode) -> &'static str {
    match code {
        DenialCode::NoCredential => "no_credential",
        DenialCode::Ambiguous => "ambiguous",
        DenialCode::Malformed => "malformed",
        DenialCode::Unknown => "unknown",
        DenialCode::TenantMismatch => "tenant_mismatch",
        DenialCode::Revoked => "revoked",
        DenialCode::Disabled => "disabled",
        DenialCode::Expired => "expired",
        DenialCode::Suspended => "suspended",
        DenialCode::IpNotAllowed => "ip_not_allowed",
        DenialCode::WrongEnvironment => "wrong_environment",
        DenialCode::ServiceNotAllowed => "service_not_allowed",
        DenialCode::PermissionDenied => "permission_denied",
        DenialCode::DomainNotAllowed => "domain_not_allowed",
        DenialCode::FeatureNotLicensed => "feature_not_licensed",
        DenialCode::MfaRequired => "mfa_required",
        DenialCode::RateLimited => "rate_limited",
        DenialCode::NotInForce => "not_in_force",
        DenialCode::BreakGlassDisabled => "break_glass_disabled",
        DenialCode::BreakGlassReasonRequired => "break_glass_reason_required",
        DenialCode::BreakGlassOrganizationRequired => "break_glass_organization_required",
        DenialCode::BreakGlassApprovalPending => "break_glass_approval_pending",
        DenialCode::BreakGlassReviewPending => "break_glass_review_pending",
        DenialCode::BreakGlassLimited => "break_glass_limited",
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
    let features =
        |rules: &PlanRules| Some(texts(&rules.features)).filter(|_| !rules.features.is_empty());
    told.changes.changed(
        "features",
        data.before.as_ref().and_then(features),
        features(&data.rules),
    );
    told
}

fn permission_rule<'a>(
    deed: &'static str,
    permission: &'a PermissionPattern,
    before: Option<&'a PermissionRule>,
    now: Option<&'a PermissionRule>,
) -> Told<'a> {
    let mut told = Told::of(TargetId::PermissionRule(permission), None, deed);
    let mfa = |it: &PermissionRule| it.mfa.map(|_| text("true"));
    told.changes.changed("mfa", before.and_then(mfa), now.and_then(mfa));
    let age = |it: &PermissionRule| it.mfa?.max_age_seconds.map(|it| Value::Number(it.into()));
    told.changes.changed("mfa_max_age_seconds", before.and_then(age), now.and_then(age));
    let keys = |it: &PermissionRule| it.mfa?.api_keys_satisfy.then(|| text("true"));
    told.changes.changed("api_keys_satisfy_mfa", before.and_then(keys), now.and_then(keys));
    let feature = |it: &'a PermissionRule| it.feature.as_ref().map(|it| text(it.as_str()));
    told.changes.changed("feature", before.and_then(feature), now.and_then(feature));
    told
}

fn role_defined(data: &BuiltInRoleDefined) -> Told<'_> {
    let BuiltInRoleDefined { role_id, definition, before } = data;
    role(defined(before.is_some()), *role_id, definition, before.as_ref())
}

fn role<'a>(
    deed: &'static str,
    id: RoleId,
    definition: &'a RoleDefinition,
    before: Option<&'a RoleDefinition>,
) -> Told<'a> {
    let mut told = Told::of(TargetId::Role(id), Some(&definition.name), deed);
    let name = |it: &'a RoleDefinition| text(it.name.as_str());
    told.changes.changed("name", before.map(name), Some(name(definition)));
    let description = |it: &'a RoleDefinition| text(it.description.as_str());
    told.changes.changed("description", before.map(description), Some(description(definition)));
    let permissions = |it: &'a RoleDefinition| texts(&it.permissions);
    told.changes.changed("permissions", before.map(permissions), Some(permissions(definition)));
    told
}

/// A role that somebody has from here on, or no longer.
fn granted<'a>(deed: &str, id: GrantId, terms: &'a GrantTerms, made: bool) -> Told<'a> {
    let GrantTerms { principal, role_id, domain, expires_at } = terms;
    let mut deed = format!("{deed} {}", who(*principal));
    if let Some(domain) = domain {
        deed.push_str(&format!(" for `{domain}`"));
    }
    deed.push(',');
    let mut told = Told::of(TargetId::Role(*role_id), None, deed);
    let mut change = |field: &'static str, value: Option<Value<'a>>| {
        let (before, after) = if made { (None, value) } else { (value, None) };
        told.changes.changed(field, before, after);
    };
    change("grant_id", Some(text(id.text())));
    change("principal", Some(text(principal.to_string())));
    change("domain", domain.as_ref().map(|it| text(it.as_str())));
    change("expires_at", expires_at.map(Value::Instant));
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
        owner,
        allowed_ips,
        rate_limit,
        rotates,
    } = data;
    let (deed, origin) = match origin {
        KeyOrigin::Minted => ("was created", "minted"),
        KeyOrigin::Configured => ("was created from the configuration", "configured"),
        KeyOrigin::Imported => ("was imported", "imported"),
        KeyOrigin::Global => ("was created from the configuration as the global key", "global"),
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
    changes.made_some("owner", owner.map(|it| text(it.to_string())));
    let networks = |it: &Networks| Value::Texts(it.texts().map(Cow::Owned).collect());
    changes.made_some("allowed_ips", allowed_ips.as_ref().map(networks));
    changes.made_some("rate_limit", rate_limit.map(|it| text(it.to_string())));
    changes.made_some("rotates", rotates.map(|it| text(it.text())));
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
        KeyStateBefore::Disabled => "disabled",
    };
    told.changes.changed("state", Some(text(before)), Some(text("revoked")));
    told
}

/// A key that went from one state into another.
fn key_state(
    id: KeyId,
    deed: &'static str,
    before: &'static str,
    after: &'static str,
) -> Told<'static> {
    let mut told = Told::of(TargetId::Key(id), None, deed);
    told.changes.changed("state", Some(text(before)), Some(text(after)));
    told
}

fn key_relabelled(data: &KeyRelabelled) -> Told<'_> {
    let KeyRelabelled { key_id, label, before } = data;
    let mut told = Told::of(TargetId::Key(*key_id), Some(&label.name), "was relabelled");
    let name = |it: &'_ KeyLabel| Some(text(it.name.as_str().to_owned()));
    told.changes.changed("name", name(before), name(label));
    let description = |it: &'_ KeyLabel| it.description.as_ref().map(|it| text(it.to_string()));
    told.changes.changed("description", description(before), description(label));
    told
}

fn key_rotated(data: &KeyRotated) -> Told<'_> {
    let KeyRotated { key_id, successor, ends_at } = data;
    let deed = format!("was rotated, in favour of key `{successor}`,");
    let mut told = Told::of(TargetId::Key(*key_id), None, deed);
    told.changes.made("successor", text(successor.text()));
    told.changes.made("ends_at", Value::Instant(*ends_at));
    told
}

fn key_rotation_ended(data: &KeyRotationEnded) -> Told<'_> {
    let deed = "was revoked before its rotation ran out";
    let mut told = Told::of(TargetId::Key(data.key_id), None, deed);
    told.reason = revocation_reason(RevocationReason::Superseded);
    told.changes.changed("ends_at", Some(Value::Instant(data.before)), None);
    told.changes.changed("state", Some(text("active")), Some(text("revoked")));
    told
}

fn service_account_created(data: &ServiceAccountCreated) -> Told<'_> {
    let ServiceAccountCreated { service_account_id, name, description, roles } = data;
    let id = TargetId::ServiceAccount(*service_account_id);
    let mut told = Told::of(id, Some(name), "was created");
    told.changes.made("name", text(name.as_str()));
    told.changes.made_some("description", description.as_ref().map(|it| text(it.as_str())));
    told.changes.made_some("roles", (!roles.is_empty()).then(|| texts(roles)));
    told
}

fn policy_updated(data: &PolicyUpdated) -> Told<'_> {
    let PolicyUpdated { policy, before } = data;
    let mut told = Told::of(TargetId::Policy, None, "was updated");
    let number = |it: Option<u32>| it.map(|it| Value::Number(it.into()));
    let changes = &mut told.changes;
    let lifetime = |it: &Policy| number(it.key_lifetime_max_seconds);
    changes.changed("key_lifetime_max_seconds", lifetime(before), lifetime(policy));
    let grace = |it: &Policy| number(it.rotation_grace_max_seconds);
    changes.changed("rotation_grace_max_seconds", grace(before), grace(policy));
    let listed = |it: &Policy| it.allowed_ips_required.then(|| text("true"));
    changes.changed("allowed_ips_required", listed(before), listed(policy));
    told
}

fn pepper_rotated(data: &PepperRotated) -> Told<'_> {
    let mut told = Told::of(TargetId::Installation, None, "had its pepper rotated");
    told.changes.made("pepper", Value::Number(data.pepper.into()));
    told
}

fn signing_key_added(data: &SigningKeyAdded) -> Told<'_> {
    let SigningKeyAdded { signing_key_id, public_key } = data;
    let mut told = Told::of(TargetId::Installation, None, "had a signing key added");
    told.changes.made("signing_key_id", text(signing_key_id.to_string()));
    told.changes.made("public_key", text(public_key.to_string()));
    told
}

fn signing_key_retired(data: &SigningKeyRetired) -> Told<'_> {
    let mut told = Told::of(TargetId::Installation, None, "had a signing key retired");
    let id = text(data.signing_key_id.to_string());
    told.changes.changed("signing_key_id", Some(id), None);
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
pub(super) struct Changes<'a>(pub(super) Vec<FieldChange<'a>>);

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

//! Entries as CloudEvents 1.0, one JSON object a line, whose data is an OCSF 1.3.0 event.
//!
//! [`kind`] says which class and activity an event is; docs/OCSF.md has the same as a table.
//! What OCSF has no place for stands under `unmapped`.

use projections::envelope::Envelope;
use projections::event::Event;
use projections::organization::Organization;
use projections::principal::Principal;
use serde_json::{Map, Value, json};

use crate::proto;

/// The release of the OCSF schema that the events follow.
const OCSF_VERSION: &str = "1.3.0";

/// A class of OCSF events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    AccountChange,
    Authentication,
    EntityManagement,
    UserAccess,
    ApiActivity,
}

impl Class {
    fn uid(self) -> u32 {
        match self {
            Self::AccountChange => 3001,
            Self::Authentication => 3002,
            Self::EntityManagement => 3004,
            Self::UserAccess => 3005,
            Self::ApiActivity => 6003,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::AccountChange => "Account Change",
            Self::Authentication => "Authentication",
            Self::EntityManagement => "Entity Management",
            Self::UserAccess => "User Access Management",
            Self::ApiActivity => "API Activity",
        }
    }

    /// As the address of its schema has it.
    fn slug(self) -> &'static str {
        match self {
            Self::AccountChange => "account_change",
            Self::Authentication => "authentication",
            Self::EntityManagement => "entity_management",
            Self::UserAccess => "user_access",
            Self::ApiActivity => "api_activity",
        }
    }

    fn category(self) -> (u32, &'static str) {
        match self {
            Self::ApiActivity => (6, "Application Activity"),
            Self::AccountChange
            | Self::Authentication
            | Self::EntityManagement
            | Self::UserAccess => (3, "Identity & Access Management"),
        }
    }
}

/// An activity of a class: its number there, and its name.
type Activity = (u32, &'static str);

const CREATE: Activity = (1, "Create");
const UPDATE: Activity = (3, "Update");
const DELETE: Activity = (4, "Delete");
const OTHER: Activity = (99, "Other");

/// Which class and activity an event is.
pub(super) fn kind(event: &Event) -> (Class, Activity) {
    use Class::{AccountChange, ApiActivity, Authentication, EntityManagement, UserAccess};
    match event {
        Event::InstallationCreated(_)
        | Event::PlanDefined(_)
        | Event::BuiltInRoleDefined(_)
        | Event::OrganizationRegistered(_)
        | Event::OrganizationCreated(_)
        | Event::KeyCreated(_)
        | Event::ServiceAccountCreated(_)
        | Event::RoleCreated(_)
        | Event::SigningKeyAdded(_)
        | Event::PermissionRuleDefined(_) => (EntityManagement, CREATE),
        Event::SchemaActivated(_) => (EntityManagement, (10, "Activate")),
        Event::KeyRelabelled(_)
        | Event::KeyRotated(_)
        | Event::PolicyUpdated(_)
        | Event::PepperRotated(_)
        | Event::RoleUpdated(_)
        | Event::BreakGlassConfigured(_)
        | Event::BreakGlassApproved(_)
        | Event::BreakGlassEscalated(_)
        | Event::BreakGlassReviewed(_) => (EntityManagement, UPDATE),
        Event::KeyRevoked(_)
        | Event::KeyRotationEnded(_)
        | Event::RoleRetired(_)
        | Event::SigningKeyRetired(_)
        | Event::PermissionRuleRemoved(_) => (EntityManagement, DELETE),
        Event::KeyEnabled(_) => (EntityManagement, (8, "Enable")),
        Event::KeyDisabled(_) => (EntityManagement, (9, "Disable")),
        Event::RoleGranted(_) | Event::BreakGlassOpened(_) => {
            (UserAccess, (1, "Assign Privileges"))
        }
        Event::GrantRevoked(_) | Event::BreakGlassEnded(_) => {
            (UserAccess, (2, "Revoke Privileges"))
        }
        Event::BreakGlassUsed(_) | Event::BreakGlassRefused(_) => (ApiActivity, OTHER),
        Event::HistoryRead(_) => (ApiActivity, (2, "Read")),
        Event::UserInvited(_) | Event::AccountCreated(_) => (AccountChange, CREATE),
        Event::UserJoined(_) | Event::UserRestored(_) => (AccountChange, (2, "Enable")),
        Event::PasswordSet(_) => (AccountChange, (3, "Password Change")),
        Event::PasswordResetIssued(_) => (AccountChange, (4, "Password Reset")),
        Event::UserSuspended(_) => (AccountChange, (5, "Disable")),
        Event::UserRemoved(_) => (AccountChange, (6, "Delete")),
        Event::AccountLocked(_) => (AccountChange, (9, "Lock")),
        Event::TotpEnrolled(_) => (AccountChange, (10, "MFA Factor Enable")),
        Event::TotpRemoved(_) => (AccountChange, (11, "MFA Factor Disable")),
        Event::InvitationRenewed(_)
        | Event::UserUpdated(_)
        | Event::EmailReserved(_)
        | Event::EmailConfirmed(_)
        | Event::EmailReleased(_)
        | Event::RecoveryCodesReplaced(_)
        | Event::RecoveryCodeUsed(_)
        | Event::DefaultOrganizationSet(_) => (AccountChange, OTHER),
        Event::SessionStarted(_) => (Authentication, (1, "Logon")),
        Event::SessionEnded(_) | Event::SessionsEnded(_) => (Authentication, (2, "Logoff")),
        Event::SessionSteppedUp(_) | Event::DenialsSummarized(_) | Event::UsageRecorded(_) => {
            (Authentication, OTHER)
        }
    }
}

/// How grave: what was denied is medium, what break-glass lets happen is high, all else
/// informational.
fn severity(entry: &proto::ActivityEntry) -> (u32, &'static str) {
    if entry.action.starts_with("break_glass.") && entry.action != "break_glass.configured" {
        (4, "High")
    } else if entry.outcome() == proto::ActivityOutcome::Denied {
        (3, "Medium")
    } else {
        (1, "Informational")
    }
}

/// Writes one entry.
pub(super) fn line(
    out: &mut Vec<u8>,
    entry: &proto::ActivityEntry,
    envelope: &Envelope,
    tables: &Organization,
) {
    let (class, _) = kind(&envelope.event);
    let target = entry.target.as_ref().map(|it| it.id.as_str()).unwrap_or_default();
    let event = json!({
        "specversion": "1.0",
        "id": entry.event_id,
        "source": format!("urn:keyledger:{}", tables.id),
        "type": format!("io.keyledger.{}", entry.action),
        "time": envelope.at.to_string(),
        "subject": target,
        "datacontenttype": "application/json",
        "dataschema": format!("https://schema.ocsf.io/{OCSF_VERSION}/classes/{}", class.slug()),
        "data": data(entry, envelope, tables),
    });
    // A value of text keys becomes JSON, and a vector takes all that is written.
    if serde_json::to_writer(&mut *out, &event).is_ok() {
        out.push(b'\n');
    }
}

/// The OCSF event.
fn data(entry: &proto::ActivityEntry, envelope: &Envelope, tables: &Organization) -> Value {
    let (class, (activity_id, activity)) = kind(&envelope.event);
    let (category_uid, category) = class.category();
    let (severity_id, severity) = severity(entry);
    let denied = entry.outcome() == proto::ActivityOutcome::Denied;
    let mut data = json!({
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": category_uid,
        "category_name": category,
        "class_uid": class.uid(),
        "class_name": class.name(),
        "type_uid": class.uid() * 100 + activity_id,
        "type_name": format!("{}: {activity}", class.name()),
        "time": envelope.at.as_millis(),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": if denied { 2 } else { 1 },
        "status": if denied { "Failure" } else { "Success" },
        "message": entry.sentence,
        "metadata": metadata(class, entry, envelope, tables),
        "actor": { "user": principal(envelope) },
    });
    let Value::Object(fields) = &mut data else { return data };
    if !entry.reason.is_empty() {
        fields.insert("status_detail".to_owned(), json!(entry.reason));
    }
    let seen = entry.personal_data.as_ref();
    let shown = |it: &str| Some(it.to_owned()).filter(|it| !it.is_empty());
    if let Some(ip) = seen.and_then(|it| shown(&it.origin_ip)) {
        fields.insert("src_endpoint".to_owned(), json!({ "ip": ip }));
    }
    if let Some(agent) = seen.and_then(|it| shown(&it.user_agent)) {
        fields.insert("http_request".to_owned(), json!({ "user_agent": agent }));
    }
    of_class(class, fields, entry, envelope);
    fields.insert("unmapped".to_owned(), unmapped(class, entry));
    data
}

fn metadata(
    class: Class,
    entry: &proto::ActivityEntry,
    envelope: &Envelope,
    tables: &Organization,
) -> Value {
    let mut metadata = json!({
        "version": OCSF_VERSION,
        "product": {
            "name": "keyledger",
            "vendor_name": "keyledger",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "uid": entry.event_id,
        "event_code": entry.action,
        "sequence": entry.revision,
        "correlation_uid": entry.correlation_id,
        "tenant_uid": tables.id.to_string(),
        "log_name": projections::recorded::StreamName::organization_text(tables.id),
        "original_time": envelope.at.to_string(),
    });
    // The classes whose actor comes with the profile of hosts.
    if let (Class::EntityManagement | Class::UserAccess, Value::Object(fields)) =
        (class, &mut metadata)
    {
        fields.insert("profiles".to_owned(), json!(["host"]));
    }
    metadata
}

/// Who acted, as a user.
fn principal(envelope: &Envelope) -> Value {
    let (type_id, kind) = match envelope.actor {
        Principal::Organization(id) if id.is_operator() => (2, "operator"),
        Principal::Organization(_) => (99, "organization"),
        Principal::ServiceAccount(_) => (99, "service_account"),
        Principal::Account(_) => (1, "account"),
        Principal::User(_) => (1, "user"),
        Principal::BreakGlass(_) => (2, "break_glass_grant"),
        Principal::Ledger => (3, "ledger"),
    };
    let mut user = user(&envelope.actor.to_string(), type_id, kind);
    if let (Some(credential), Value::Object(fields)) = (envelope.credential, &mut user) {
        fields.insert("credential_uid".to_owned(), json!(credential.to_string()));
    }
    user
}

fn user(uid: &str, type_id: u32, kind: &str) -> Value {
    json!({ "uid": uid, "type_id": type_id, "type": kind })
}

/// A text that a change went to or, where it has no value any more, from.
fn changed<'a>(entry: &'a proto::ActivityEntry, field: &str) -> Option<&'a proto::FieldValue> {
    let change = entry.changes.iter().find(|it| it.field == field)?;
    change.after.as_ref().or(change.before.as_ref())
}

fn changed_text<'a>(entry: &'a proto::ActivityEntry, field: &str) -> Option<&'a str> {
    match &changed(entry, field)?.kind {
        Some(proto::field_value::Kind::Text(text)) => Some(text),
        _ => None,
    }
}

/// What only events of a class have.
fn of_class(
    class: Class,
    fields: &mut Map<String, Value>,
    entry: &proto::ActivityEntry,
    envelope: &Envelope,
) {
    let empty = proto::ActivityTarget::default();
    let target = entry.target.as_ref().unwrap_or(&empty);
    let mut set = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    match class {
        Class::AccountChange => set("user", user(&target.id, 1, &target.kind)),
        Class::Authentication => {
            set("service", json!({ "name": "keyledger" }));
            if target.kind == "session" {
                set("session", json!({ "uid": target.id }));
                let whose = changed_text(entry, "user_id");
                let own = whose.map(|it| user(it, 1, "user"));
                set("user", own.unwrap_or_else(|| principal(envelope)));
            } else {
                set("user", user(&target.id, 99, &target.kind));
            }
        }
        Class::EntityManagement => {
            let mut entity = json!({ "uid": target.id, "type": target.kind });
            if let (false, Value::Object(entity)) = (target.name.is_empty(), &mut entity) {
                entity.insert("name".to_owned(), json!(target.name));
            }
            set("entity", entity);
            if let Some(comment) = entry.personal_data.as_ref().map(|it| &it.comment)
                && !comment.is_empty()
            {
                set("comment", json!(comment));
            }
        }
        Class::UserAccess => {
            let whose = changed_text(entry, "principal").unwrap_or(&target.id);
            set("user", user(whose, 0, whose.split('_').next().unwrap_or_default()));
            let listed = changed(entry, "permissions").and_then(|it| match &it.kind {
                Some(proto::field_value::Kind::Texts(list)) => Some(json!(list.texts)),
                _ => None,
            });
            set("privileges", listed.unwrap_or_else(|| json!([target.id])));
        }
        Class::ApiActivity => {
            let operation =
                ["method", "way"].into_iter().find_map(|field| changed_text(entry, field));
            let operation = operation.unwrap_or("verification");
            set("api", json!({ "operation": operation }));
            set("resources", json!([{ "uid": target.id, "type": target.kind }]));
        }
    }
    if class == Class::ApiActivity && !fields.contains_key("src_endpoint") {
        // It must have one, and the reader may not be shown which.
        fields.insert("src_endpoint".to_owned(), json!({ "name": "not shown" }));
    }
}

/// What OCSF has no place for.
fn unmapped(class: Class, entry: &proto::ActivityEntry) -> Value {
    let change = |it: &proto::FieldChange| {
        json!({
            "field": it.field,
            "before": it.before.as_ref().map(value),
            "after": it.after.as_ref().map(value),
        })
    };
    let mut unmapped = json!({
        "changes": entry.changes.iter().map(change).collect::<Vec<_>>(),
    });
    let Value::Object(fields) = &mut unmapped else { return unmapped };
    if !entry.causation_id.is_empty() {
        fields.insert("causation_id".to_owned(), json!(entry.causation_id));
    }
    if let Some(seen) = &entry.personal_data {
        let name = seen.state().as_str_name();
        let state = name.strip_prefix("PERSONAL_DATA_STATE_").unwrap_or(name).to_lowercase();
        fields.insert("personal_data_state".to_owned(), json!(state));
        if class != Class::EntityManagement && !seen.comment.is_empty() {
            fields.insert("comment".to_owned(), json!(seen.comment));
        }
    }
    unmapped
}

fn value(value: &proto::FieldValue) -> Value {
    use proto::field_value::Kind;
    match &value.kind {
        None => Value::Null,
        Some(Kind::Text(text)) => json!(text),
        Some(Kind::Number(number)) => json!(number),
        Some(Kind::Texts(list)) => json!(list.texts),
        Some(Kind::Instant(at)) => json!(super::instant(at)),
    }
}

#[cfg(test)]
mod tests;

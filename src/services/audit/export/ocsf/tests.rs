//! Every event that can be written is an OCSF event as the published schema has it.

use std::path::Path;

use projections::activity::ACTIONS;
use projections::event::SCHEMAS;
use projections::id::OrganizationId;
use projections::recorded::Revision;

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The golden event of each type and schema that is written today.
fn events() -> Vec<Envelope> {
    let read = |(event_type, schema): &(&str, u32)| {
        let name = format!("projections/tests/golden/{event_type}.{schema}.json");
        Envelope::decode(&std::fs::read(root().join(name)).unwrap()).unwrap()
    };
    SCHEMAS.iter().map(read).collect()
}

fn tables() -> Organization {
    Organization::new(OrganizationId::from_bytes([7; 16]))
}

/// What is seen of an event's personal data: by who sees all, and by who is shown nothing.
fn seen() -> [Option<proto::ActivityPersonalData>; 2] {
    let shown = proto::ActivityPersonalData {
        comment: "a \"comment\"\n".to_owned(),
        origin_ip: "2001:db8::1".to_owned(),
        user_agent: "curl".to_owned(),
        state: proto::PersonalDataState::Shown.into(),
    };
    [Some(shown), None]
}

fn lines() -> Vec<Value> {
    let tables = tables();
    let mut out = Vec::new();
    for envelope in events() {
        for seen in seen() {
            let mut entry = crate::services::audit::entry(Revision(3), &envelope, &tables);
            entry.personal_data = seen;
            line(&mut out, &entry, &envelope, &tables);
        }
    }
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('\n').count(), 2 * SCHEMAS.len());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_action_is_in_the_docs_with_its_class_and_activity() {
    let page = std::fs::read_to_string(root().join("docs/OCSF.md")).unwrap();
    let mut rows = Vec::new();
    for envelope in events() {
        let (class, (id, name)) = kind(&envelope.event);
        let action = projections::activity::action(&envelope.event);
        let row = format!("| `{action}` | {} ({}) | {name} ({id}) |", class.name(), class.uid());
        assert!(page.lines().any(|line| line == row), "docs/OCSF.md lacks the row\n{row}");
        rows.push(row);
    }
    let row = |line: &&str| line.starts_with("| `") && line.matches(" | ").count() == 2;
    let told = page.lines().filter(row).count();
    assert_eq!(told, ACTIONS.len(), "the page has a row that no event is");
}

/// The classes and objects that are used, out of the published schema.
fn schema() -> Value {
    let path = root().join("tests/ocsf/ocsf-1.3.0.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds an object to its attributes: nothing unknown, nothing missing, types and enums.
fn hold(schema: &Value, of: &Value, object: &Value, at: &str) {
    let attributes = of["attributes"].as_object().unwrap();
    let object = object.as_object().unwrap_or_else(|| panic!("{at} is no object"));
    for (name, value) in object {
        let known = attributes.get(name).unwrap_or_else(|| panic!("{at}.{name} is unknown"));
        let at = format!("{at}.{name}");
        match known["is_array"].as_bool() {
            Some(true) => {
                for value in value.as_array().unwrap_or_else(|| panic!("{at} is no list")) {
                    hold_value(schema, known, value, &at);
                }
            }
            _ => hold_value(schema, known, value, &at),
        }
    }
    for (name, attribute) in attributes {
        let profile = attribute["profile"].as_str();
        if attribute["requirement"] == "required" && profile.is_none() {
            assert!(object.contains_key(name), "{at} lacks {name}");
        }
    }
    if let Some(names) = of["constraints"]["at_least_one"].as_array() {
        let some = names.iter().any(|name| object.contains_key(name.as_str().unwrap()));
        assert!(some, "{at} has none of {names:?}");
    }
}

fn hold_value(schema: &Value, attribute: &Value, value: &Value, at: &str) {
    match attribute["type"].as_str().unwrap() {
        "object_t" => match attribute["object_type"].as_str().unwrap() {
            "object" => assert!(value.is_object(), "{at}"),
            name => hold(schema, &schema["objects"][name], value, at),
        },
        "integer_t" | "long_t" | "timestamp_t" => {
            assert!(value.is_i64() || value.is_u64(), "{at}: {value}");
        }
        "boolean_t" => assert!(value.is_boolean(), "{at}: {value}"),
        "ip_t" => {
            let text = value.as_str().unwrap();
            assert!(text.parse::<std::net::IpAddr>().is_ok(), "{at}: {value}");
        }
        _ => assert!(value.is_string(), "{at}: {value}"),
    }
    if let Some(numbers) = attribute["enum"].as_object() {
        let caption = numbers.get(&value.to_string());
        assert!(caption.is_some(), "{at}: {value} is no value of {numbers:?}");
    }
}

#[test]
fn every_event_is_as_the_published_schema_has_it() {
    let schema = schema();
    for event in lines() {
        let data = &event["data"];
        let slug = event["dataschema"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let class = &schema["classes"][&slug];
        let at = format!("{} {slug}", event["type"]);
        assert_eq!(class["uid"], data["class_uid"], "{at}");
        hold(&schema, class, data, &at);
        // Numbers and the names beside them say the same.
        for (id, name) in [
            ("activity_id", "activity_name"),
            ("type_uid", "type_name"),
            ("severity_id", "severity"),
            ("status_id", "status"),
            ("category_uid", "category_name"),
            ("class_uid", "class_name"),
        ] {
            let caption = &class["attributes"][id]["enum"][data[id].to_string()];
            assert_eq!(caption, &data[name], "{at}: {id}");
        }
        if class["attributes"]["actor"]["profile"] == "host" {
            assert_eq!(data["metadata"]["profiles"], json!(["host"]), "{at}");
        }
    }
}

/// CloudEvents 1.0, sections 3.1 and 3.2 of the specification and its JSON format.
#[test]
fn every_line_is_a_cloud_event() {
    let mut ids = std::collections::BTreeSet::new();
    for event in lines() {
        let event = event.as_object().unwrap();
        let text = |name: &str| event[name].as_str().filter(|it| !it.is_empty()).unwrap();
        assert_eq!(text("specversion"), "1.0");
        assert!(text("source").starts_with("urn:keyledger:org_"));
        assert!(text("type").starts_with("io.keyledger."));
        assert_eq!(text("datacontenttype"), "application/json");
        assert!(text("time").parse::<projections::time::Timestamp>().is_ok());
        text("subject");
        ids.insert(text("id").to_owned());
        for name in event.keys() {
            assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit()));
        }
        assert_eq!(event["data"]["metadata"]["uid"], event["id"]);
    }
}

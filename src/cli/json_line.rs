//! One line of a file of JSON objects.
//!
//! A line may hold a secret, so nothing of its values is ever repeated in an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The fields of a line that nobody has read yet.
pub(super) struct JsonLine(Map<String, Value>);

impl JsonLine {
    /// The line, or what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line)
            .map(Self)
            .map_err(|error| format!("is not one JSON object (column {})", error.column()))
    }

    /// A field that may be absent.
    pub(super) fn may<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        form: impl fmt::Display,
    ) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|_| format!("`{name}`: must be {form}")),
        }
    }

    /// A field that must be there.
    pub(super) fn must<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        form: &str,
    ) -> Result<T, String> {
        self.may(name, form)?.ok_or_else(|| format!("lacks `{name}`"))
    }

    /// A list of texts; empty where it is absent.
    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<String>, String> {
        let list: Option<Vec<String>> = self.may(name, "a list of texts")?;
        match list {
            // On the wire nothing would mean everything.
            Some(list) if list.is_empty() => Err(format!("`{name}`: is empty; leave it out")),
            list => Ok(list.unwrap_or_default()),
        }
    }

    /// Values by their names; none where it is absent.
    pub(super) fn map<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        form: &str,
    ) -> Result<BTreeMap<String, T>, String> {
        self.may(name, form).map(Option::unwrap_or_default)
    }

    /// Which environment.
    pub(super) fn environment(&mut self) -> Result<Option<crate::proto::Environment>, String> {
        use crate::proto::Environment;
        match self.may::<String>("environment", "`live` or `test`")?.as_deref() {
            None => Ok(None),
            Some("live") => Ok(Some(Environment::Live)),
            Some("test") => Ok(Some(Environment::Test)),
            Some(_) => Err("`environment`: must be `live` or `test`".to_owned()),
        }
    }

    /// Refuses what is left: a misspelt field is not a field. `known` are those there are.
    pub(super) fn is_read(&self, known: &[&str]) -> Result<(), String> {
        let Some(unknown) = self.0.keys().next() else { return Ok(()) };
        let is_word =
            unknown.len() <= 32 && unknown.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        let unknown = if is_word { format!("field `{unknown}`") } else { "a field".to_owned() };
        Err(format!("has {unknown} that is unknown; there are `{}`", known.join("`, `")))
    }
}

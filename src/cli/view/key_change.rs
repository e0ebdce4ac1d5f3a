//! What became of keys: a rotation, an import, many revocations.

use serde::Serialize;
use zeroize::Zeroizing;

use super::super::output::{Fields, table, warn};
use super::common::{StreamRevision, short};
use super::key::{Key, Warning, exposed, one};
use crate::proto;

/// See `RotateKeyResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Rotated {
    pub(in crate::cli) key: Option<Key>,
    #[serde(serialize_with = "exposed")]
    pub(in crate::cli) secret: Zeroizing<String>,
    pub(in crate::cli) secret_already_issued: bool,
    pub(in crate::cli) predecessor: Option<Key>,
    revision: Option<StreamRevision>,
}

impl From<proto::RotateKeyResponse> for Rotated {
    fn from(message: proto::RotateKeyResponse) -> Self {
        Self {
            key: message.key.map(Into::into),
            secret: Zeroizing::new(message.secret),
            secret_already_issued: message.secret_already_issued,
            predecessor: message.predecessor.map(Into::into),
            revision: message.revision.map(Into::into),
        }
    }
}

impl Rotated {
    /// For people: the new key.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields.add("secret", &self.secret);
        one(fields, self.key.as_ref(), self.revision.as_ref())
    }

    /// Until when the old key is accepted; none where it is refused from now on.
    pub(in crate::cli) fn old_key_until(&self) -> Option<&str> {
        let old = self.predecessor.as_ref().filter(|it| it.state != "revoked")?;
        old.rotation.as_ref()?.ends_at.as_deref()
    }

    /// Says on stderr what looks like a mistake.
    pub(in crate::cli) fn warn(&self) {
        self.key.iter().for_each(Key::warn);
    }
}

/// See `ImportKeysResponse`; of all requests that an import took.
#[derive(Serialize, Default)]
pub(in crate::cli) struct Imported {
    pub(in crate::cli) keys: Vec<Key>,
    revision: Option<StreamRevision>,
}

impl Imported {
    /// Puts the keys of the next request behind these.
    pub(in crate::cli) fn join(&mut self, later: proto::ImportKeysResponse) {
        self.keys.extend(later.keys.into_iter().map(Key::from));
        self.revision = later.revision.map(Into::into);
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        Key::table(&self.keys)
    }

    /// Says on stderr what looks like a mistake.
    pub(in crate::cli) fn warn(&self) {
        for key in &self.keys {
            key.warn_by_name();
        }
    }
}

/// See `KeyRevocation` in `key.proto`.
#[derive(Serialize)]
struct Revocation {
    /// Of the file of leaked keys; null where the key was named otherwise.
    line: Option<usize>,
    outcome: String,
    key_id: String,
    organization_id: String,
}

/// See `RevokeKeysResponse`; of all requests that it took.
#[derive(Serialize, Default)]
pub(in crate::cli) struct RevokedMany {
    keys: Vec<Revocation>,
    revisions: Vec<StreamRevision>,
    warnings: Vec<Warning>,
    /// Which line of a file each key that was asked about stands on.
    #[serde(skip)]
    lines: Vec<Option<usize>>,
}

impl RevokedMany {
    /// None yet; `lines` as far as the keys come from a file.
    pub(in crate::cli) fn of(lines: Vec<Option<usize>>) -> Self {
        Self { lines, ..Self::default() }
    }

    /// Puts what the next request revoked behind this.
    pub(in crate::cli) fn join(&mut self, later: proto::RevokeKeysResponse) {
        let name = proto::KeyRevocationOutcome::as_str_name;
        let lines = self.lines.iter().skip(self.keys.len()).copied().chain(std::iter::repeat(None));
        let keys: Vec<_> = later.keys.into_iter().zip(lines).collect();
        self.keys.extend(keys.into_iter().map(|(it, line)| Revocation {
            line,
            outcome: short(it.outcome, "KEY_REVOCATION_OUTCOME_", name),
            key_id: it.key_id,
            organization_id: it.organization_id,
        }));
        self.revisions.extend(later.revisions.into_iter().map(StreamRevision::from));
        self.warnings.extend(later.warnings.into_iter().map(Warning::from));
    }

    /// Says on stderr what looks like a mistake.
    pub(in crate::cli) fn warn(&self) {
        self.warnings.iter().for_each(|it| warn(&it.message));
    }

    /// How many keys came to this.
    pub(in crate::cli) fn count(&self, outcome: &str) -> usize {
        self.keys.iter().filter(|it| it.outcome == outcome).count()
    }

    /// How many keys were looked at.
    pub(in crate::cli) fn len(&self) -> usize {
        self.keys.len()
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        if self.keys.is_empty() {
            return String::new();
        }
        let from_file = self.keys.iter().any(|it| it.line.is_some());
        let rows = self.keys.iter().zip(1..).map(|(it, number): (&Revocation, usize)| {
            let outcome = it.outcome.replace('_', " ");
            let number = match it.line {
                Some(line) => line.to_string(),
                None if from_file => String::new(),
                None => number.to_string(),
            };
            [number, outcome, it.key_id.clone(), it.organization_id.clone()]
        });
        let number = if from_file { "LINE" } else { "#" };
        table([number, "OUTCOME", "KEY", "ORGANIZATION"], rows)
    }
}

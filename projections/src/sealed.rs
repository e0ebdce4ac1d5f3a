//! Sealed text: personal data as events, folds and exports carry it, unreadable without
//! a subject's key.
//!
//! Nothing here opens or seals: that needs keys, which this crate never sees.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Datelike as _};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::id::{AccountId, OrganizationId, UserId, text_serde};
use crate::time::Timestamp;

/// Who sealed data is about: what shares one key, and is erased together.
///
/// Written `<organization>/<person>`, such as `org_…/usr_…`, or `<organization>/<month>`,
/// such as `org_…/2026-11`, for data of that month (UTC) about nobody known, or as the
/// identifier of an account, such as `acc_…`, for data about the person whose account it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

/// Text that names no subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an account, or an organization, `/`, and a month such as `2026-11` or an identifier beginning `usr_`"
)]
pub struct InvalidSubject;

impl Subject {
    /// Whoever appears in an organization's events of the month of `at` and is not known
    /// as a person.
    #[must_use]
    pub fn organization_month(organization: OrganizationId, at: Timestamp) -> Self {
        let instant = DateTime::from_timestamp_millis(at.as_millis()).unwrap_or_default();
        Self(format!("{organization}/{:04}-{:02}", instant.year(), instant.month()).into())
    }

    /// This user of this organization.
    #[must_use]
    pub fn user(organization: OrganizationId, user: UserId) -> Self {
        Self(format!("{organization}/{user}").into())
    }

    /// The person whose account this is.
    #[must_use]
    pub fn account(id: AccountId) -> Self {
        Self(id.text().into())
    }

    /// The organization the data is kept by; none for data about an account.
    #[must_use]
    pub fn organization(&self) -> Option<OrganizationId> {
        self.0.split_once('/')?.0.parse().ok()
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let Some((organization, whom)) = text.split_once('/') else {
            return text.parse().map(Self::account).map_err(|_| InvalidSubject);
        };
        organization.parse::<OrganizationId>().map_err(|_| InvalidSubject)?;
        if is_person(whom) || is_month(whom) { Ok(Self(text.into())) } else { Err(InvalidSubject) }
    }
}

fn is_person(text: &str) -> bool {
    let Some(body) = text.strip_prefix("usr_") else { return false };
    let mut canonical = [0; ulid::ULID_LEN];
    Ulid::from_string(body).is_ok_and(|ulid| ulid.array_to_str(&mut canonical) == body)
}

/// Whether this is `YYYY-MM`, of the years that a [`Timestamp`] has.
fn is_month(text: &str) -> bool {
    let &[a, b, c, d, b'-', e, f] = text.as_bytes() else { return false };
    let digits = [a, b, c, d, e, f].iter().all(u8::is_ascii_digit);
    digits && [a, b, c, d] != *b"0000" && (*b"01"..=*b"12").contains(&[e, f])
}

text_serde!(
    Subject,
    "an account, or an organization and a month or person, such as `org_…/2026-11`"
);

/// Personal data of one event about one subject, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Whose key opens it.
    pub subject: Subject,
    /// The sealed bytes, in unpadded base64url.
    pub seal: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization() -> OrganizationId {
        OrganizationId::from_parts(1_700_000_000_000, 7)
    }

    #[test]
    fn a_month_is_utcs() {
        let subject =
            |at: &str| Subject::organization_month(organization(), at.parse().unwrap()).to_string();
        let id = organization();
        assert_eq!(subject("2026-10-31T23:59:59.999Z"), format!("{id}/2026-10"));
        assert_eq!(subject("2026-11-01T00:00:00.000Z"), format!("{id}/2026-11"));
        assert_eq!(subject("0001-01-01T00:00:00.000Z"), format!("{id}/0001-01"));
        let operator = Subject::organization_month(OrganizationId::OPERATOR, Timestamp::MAX);
        assert_eq!(operator.as_str(), "operator/9999-12");
        assert_eq!(operator.organization(), Some(OrganizationId::OPERATOR));
    }

    #[test]
    fn a_subject_has_exactly_one_spelling() {
        let id = organization();
        let person = format!("usr_{}", Ulid::from_parts(7, 10));
        let account = format!("acc_{}", Ulid::from_parts(7, 10));
        for text in [
            format!("{id}/2026-11"),
            format!("{id}/{person}"),
            "operator/2026-01".into(),
            account.clone(),
        ] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.as_str(), text);
            let json = serde_json::to_string(&subject).unwrap();
            assert_eq!(serde_json::from_str::<Subject>(&json).unwrap(), subject);
        }
        for text in [
            String::new(),
            "/".into(),
            format!("{id}"),
            format!("{id}/"),
            format!("{id}/2026-13"),
            format!("{id}/2026-00"),
            format!("{id}/2026-1"),
            format!("{id}/0000-01"),
            format!("{id}/+026-11"),
            format!("{id}/2026-11/2026-11"),
            format!("{id}/{account}"),
            format!("{account}/2026-11"),
            account.to_lowercase(),
            format!("{id}/usr_"),
            format!("{id}/{}", person.to_lowercase()),
            format!("{id}/key_{}", Ulid::from_parts(7, 10)),
            format!("key_{}/2026-11", Ulid::from_parts(7, 10)),
        ] {
            assert_eq!(text.parse::<Subject>(), Err(InvalidSubject), "{text}");
        }
    }

    #[test]
    fn sealed_data_has_two_members_and_no_others() {
        let text = r#"{"subject":"operator/2026-11","seal":"AQ"}"#;
        let sealed: Sealed = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&sealed).unwrap(), text);
        let more = text.replace("}", r#","x":1}"#);
        assert!(serde_json::from_str::<Sealed>(&more).is_err());
    }
}

//! Permissions: what may be asked for, held, and given.
//!
//! A permission is `resource:action`. A key's scopes are an exact list; a role's
//! permissions may put `*` for either part. Whoever holds `org:admin` holds every
//! permission of its organization.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, SeqAccess};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::text_serde;

/// Most characters in a permission.
pub const PERMISSION_CHARS_MAX: usize = 64;
/// Most permissions in a key's scopes, in a role, or in one question.
pub const PERMISSIONS_MAX: usize = 100;
/// As many patterns are looked through one by one.
const FEW: usize = 4;

/// Text that is no permission, or no list of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPermission {
    /// Not of the form `resource:action`.
    #[error(
        "`{0}` must be `resource:action`, each of `a-z 0-9 _ -` with a letter first, 64 characters in all"
    )]
    Form(String),
    /// The list is empty.
    #[error("must name at least one permission")]
    Empty,
    /// The list is too long.
    #[error("must name at most {PERMISSIONS_MAX} permissions")]
    TooMany,
    /// The list names a permission twice.
    #[error("`{0}` is named twice")]
    Twice(String),
}

/// One permission, borrowed from the text that names it.
///
/// The older spelling `resource.action` is read as the same permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission<'a> {
    resource: &'a str,
    action: &'a str,
}

impl<'a> Permission<'a> {
    /// Full authority over one organization.
    pub const ORG_ADMIN: Permission<'static> = Permission { resource: "org", action: "admin" };

    /// A permission known when the program is written.
    #[must_use]
    pub const fn constant(resource: &'static str, action: &'static str) -> Permission<'static> {
        Permission { resource, action }
    }

    /// Reads `resource:action`, or the older `resource.action`.
    pub fn parse(text: &'a str) -> Result<Self, InvalidPermission> {
        Self::split(text)
            .filter(|it| is_word(it.resource) && is_word(it.action))
            .ok_or_else(|| InvalidPermission::Form(clip(text)))
    }

    /// What it is about.
    #[must_use]
    pub fn resource(&self) -> &'a str {
        self.resource
    }

    /// Itself, and as patterns have it, with `*` for either part or both.
    pub(crate) fn patterns(self) -> [Self; 4] {
        let Self { resource, action } = self;
        [self, Self { resource, action: "*" }, Self { resource: "*", action }, Self::EVERYTHING]
    }

    const EVERYTHING: Permission<'static> = Permission { resource: "*", action: "*" };

    /// Takes a text apart that is known to be a permission.
    pub(crate) fn split(text: &'a str) -> Option<Self> {
        if text.len() > PERMISSION_CHARS_MAX {
            return None;
        }
        let (resource, action) = text.split_once([':', '.'])?;
        Some(Self { resource, action })
    }
}

impl fmt::Display for Permission<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.action)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// As much of a wrong text as an answer may repeat.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(PERMISSION_CHARS_MAX).collect()
}

/// A key's scopes: distinct permissions, sorted, in one piece of memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Scopes(Arc<Joined>);

/// Permissions, with a space between each two. A struct around the text keeps the
/// pointer to it thin: every key has one.
#[derive(PartialEq, Eq)]
struct Joined(Box<str>);

impl Scopes {
    /// Makes scopes of texts; refuses an empty list, a wrong or a repeated permission.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, InvalidPermission> {
        if texts.is_empty() {
            return Err(InvalidPermission::Empty);
        }
        if texts.len() > PERMISSIONS_MAX {
            return Err(InvalidPermission::TooMany);
        }
        let mut permissions = texts
            .iter()
            .map(|text| Permission::parse(text.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        permissions.sort_unstable();
        if let Some(twice) = permissions.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(a),
            _ => None,
        }) {
            return Err(InvalidPermission::Twice(twice.to_string()));
        }
        let bytes = permissions.iter().map(|it| it.resource.len() + it.action.len() + 2).sum();
        let mut joined = String::with_capacity(bytes);
        for permission in &permissions {
            for part in [permission.resource, ":", permission.action, " "] {
                joined.push_str(part);
            }
        }
        joined.pop();
        Ok(Self(Arc::new(Joined(joined.into()))))
    }

    /// The permissions as one text, which no other list of them has.
    pub(crate) fn joined(&self) -> &str {
        &self.0.0
    }

    /// The scopes of such a text; none where they would be written otherwise.
    pub(crate) fn from_joined(text: &str) -> Option<Self> {
        let texts: Vec<&str> = text.split(' ').take(PERMISSIONS_MAX + 1).collect();
        Self::new(&texts).ok().filter(|scopes| scopes.joined() == text)
    }

    /// The permissions, in order.
    pub fn iter(&self) -> impl Iterator<Item = Permission<'_>> + Clone {
        self.0.0.split(' ').filter_map(Permission::split)
    }

    /// The permissions as texts, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.0.split(' ')
    }

    /// Whether they include this permission, by name or through `org:admin`.
    #[must_use]
    pub fn imply(&self, wanted: Permission<'_>) -> bool {
        self.iter().any(|held| held == wanted || held == Permission::ORG_ADMIN)
    }

    /// Whether they include every permission of the organization.
    #[must_use]
    pub fn imply_everything(&self) -> bool {
        self.imply(Permission::ORG_ADMIN)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.texts())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> de::Visitor<'de> for List {
            type Value = Scopes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of permissions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scopes, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element::<&'de str>()? {
                    texts.push(text);
                }
                Scopes::new(&texts).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// One permission of a role's definition: either part may be `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermissionPattern(Arc<str>);

impl PermissionPattern {
    /// Makes a role's permissions of texts: 1 to [`PERMISSIONS_MAX`], distinct and sorted;
    /// else names the place of the one that is wrong.
    pub fn list<T: AsRef<str>>(
        texts: &[T],
    ) -> Result<Vec<Self>, (Option<usize>, InvalidPermission)> {
        if texts.is_empty() {
            return Err((None, InvalidPermission::Empty));
        }
        if texts.len() > PERMISSIONS_MAX {
            return Err((None, InvalidPermission::TooMany));
        }
        let mut list: Vec<Self> = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let pattern: Self = text.as_ref().parse().map_err(|error| (Some(place), error))?;
            if list.contains(&pattern) {
                return Err((Some(place), InvalidPermission::Twice(pattern.to_string())));
            }
            list.push(pattern);
        }
        list.sort_unstable();
        Ok(list)
    }

    /// How it stands to another pattern's text, in the order of patterns.
    pub(crate) fn cmp_text(&self, other: Permission<'_>) -> Ordering {
        let (resource, action) = (other.resource.as_bytes(), other.action.as_bytes());
        let own = self.0.as_bytes();
        match own.split_at_checked(resource.len()) {
            // It is shorter, so the two are never equal.
            None => own.cmp(resource),
            Some((head, rest)) => head.cmp(resource).then_with(|| match rest.split_first() {
                None => Ordering::Less,
                Some((colon, rest)) => colon.cmp(&b':').then_with(|| rest.cmp(action)),
            }),
        }
    }

    /// Whether any of these patterns, which stand in order, implies a permission.
    #[must_use]
    pub fn any_implies(sorted: &[Self], wanted: Permission<'_>) -> bool {
        if sorted.len() <= FEW {
            return sorted.iter().any(|pattern| pattern.implies(wanted));
        }
        Self::any_is(sorted, wanted) || Self::any_is(sorted, Permission::ORG_ADMIN)
    }

    /// Whether any of these patterns, which stand in order, covers another.
    #[must_use]
    pub fn any_covers(sorted: &[Self], other: &Self) -> bool {
        if sorted.len() <= FEW {
            return sorted.iter().any(|pattern| pattern.covers(other));
        }
        let (resource, action) = other.parts();
        Self::any_is(sorted, Permission::ORG_ADMIN)
            || (!other.matches(Permission::ORG_ADMIN)
                && Self::any_is(sorted, Permission { resource, action }))
    }

    /// Whether one of the four patterns that match a permission is among these.
    fn any_is(sorted: &[Self], wanted: Permission<'_>) -> bool {
        let among = |it: Permission<'_>| sorted.binary_search_by(|own| own.cmp_text(it)).is_ok();
        wanted.patterns().into_iter().any(among)
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or_default()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, wanted: Permission<'_>) -> bool {
        let (resource, action) = self.parts();
        (resource == "*" || resource == wanted.resource)
            && (action == "*" || action == wanted.action)
    }

    /// Whether whoever holds this holds the permission, by name, by wildcard or
    /// through `org:admin`.
    #[must_use]
    pub fn implies(&self, wanted: Permission<'_>) -> bool {
        self.matches(wanted) || self.matches(Permission::ORG_ADMIN)
    }

    /// Whether everything that `other` implies is implied by this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (resource, action) = self.parts();
        let (other_resource, other_action) = other.parts();
        self.matches(Permission::ORG_ADMIN)
            || ((resource == "*" || resource == other_resource)
                && (action == "*" || action == other_action)
                && !other.matches(Permission::ORG_ADMIN))
    }

    /// The exact permission, where this has no wildcard.
    #[must_use]
    pub fn as_permission(&self) -> Option<Permission<'_>> {
        let (resource, action) = self.parts();
        (resource != "*" && action != "*").then_some(Permission { resource, action })
    }
}

impl FromStr for PermissionPattern {
    type Err = InvalidPermission;
    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        let word = |part: &str| part == "*" || is_word(part);
        match Permission::split(text) {
            Some(it) if word(it.resource) && word(it.action) => Ok(Self(it.to_string().into())),
            _ => Err(InvalidPermission::Form(clip(text))),
        }
    }
}

impl fmt::Display for PermissionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PermissionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

text_serde!(PermissionPattern, "a permission, in which `*` may stand for either part");

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PermissionPattern {
        text.parse().unwrap()
    }

    #[test]
    fn one_permission_has_two_spellings_and_no_more() {
        assert_eq!(Permission::parse("admin.users"), Permission::parse("admin:users"));
        for bad in [
            "",
            "a",
            "a:",
            ":b",
            "a:b:c",
            "A:b",
            "a:*",
            "*:*",
            "a b:c",
            "1a:b",
            &format!("a:{}", "b".repeat(63)),
        ] {
            assert!(Permission::parse(bad).is_err(), "{bad}");
        }
        assert!(Permission::parse(&format!("a:{}", "b".repeat(62))).is_ok());
    }

    #[test]
    fn scopes_are_a_set() {
        let scopes = Scopes::new(&["workflows:read", "events.write"]).unwrap();
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["events:write","workflows:read"]"#);
        assert_eq!(Scopes::new::<&str>(&[]), Err(InvalidPermission::Empty));
        assert_eq!(Scopes::new(&["a:b", "a.b"]), Err(InvalidPermission::Twice("a:b".into())));
        let many: Vec<_> = (0..=PERMISSIONS_MAX).map(|n| format!("a:b{n}")).collect();
        assert_eq!(Scopes::new(&many), Err(InvalidPermission::TooMany));
        assert!(Scopes::new(many.get(1..).unwrap()).is_ok());
    }

    #[test]
    fn what_implies_what() {
        let read = Permission::parse("dns:read").unwrap();
        assert!(Scopes::new(&["dns:read"]).unwrap().imply(read));
        assert!(!Scopes::new(&["dns:write"]).unwrap().imply(read));
        assert!(Scopes::new(&["org:admin"]).unwrap().imply(read));
        for yes in ["*:*", "dns:*", "*:read", "org:admin", "org:*", "*:admin", "dns:read"] {
            assert!(pattern(yes).implies(read), "{yes}");
        }
        for no in ["dns:write", "*:write", "cache:*", "org:read"] {
            assert!(!pattern(no).implies(read), "{no}");
        }
    }

    #[test]
    fn covering_is_implying_everything_that_the_other_implies() {
        let texts = [
            "*:*",
            "dns:*",
            "*:read",
            "*:admin",
            "org:*",
            "org:admin",
            "org:read",
            "dns:read",
            "dns:write",
            "cache:purge",
        ];
        let asked = [
            "dns:read",
            "dns:write",
            "dns:admin",
            "org:admin",
            "org:read",
            "cache:read",
            "cache:admin",
            "cache:purge",
            "x:y",
        ];
        for a in texts {
            for b in texts {
                let implied = asked.iter().map(|text| Permission::parse(text).unwrap());
                let subset =
                    implied.clone().all(|p| !pattern(b).implies(p) || pattern(a).implies(p));
                assert_eq!(pattern(a).covers(&pattern(b)), subset, "{a} over {b}");
            }
        }
    }

    /// What is looked up is what would be found by asking each one.
    #[test]
    fn sorted_patterns_are_looked_up_as_if_each_were_asked() {
        let words = ["*", "a", "a-", "a_", "a1", "ab", "b", "org", "admin"];
        let all: Vec<PermissionPattern> = words
            .iter()
            .flat_map(|resource| words.iter().map(move |action| format!("{resource}:{action}")))
            .map(|text| pattern(&text))
            .collect();
        // Every list of every so-manieth, from each first one on.
        for step in [1, 2, 3, 5, 7, 11, 17, 40] {
            for first in 0..step.min(all.len()) {
                let texts: Vec<_> = all.iter().skip(first).step_by(step).collect();
                let list = PermissionPattern::list(
                    &texts.iter().map(|it| it.as_str()).collect::<Vec<_>>(),
                )
                .unwrap();
                for other in &all {
                    let each = list.iter().any(|it| it.covers(other));
                    assert_eq!(PermissionPattern::any_covers(&list, other), each, "{other}");
                    let Some(wanted) = other.as_permission() else { continue };
                    let each = list.iter().any(|it| it.implies(wanted));
                    assert_eq!(PermissionPattern::any_implies(&list, wanted), each, "{wanted}");
                    let own = other.cmp_text(wanted);
                    assert_eq!(own, Ordering::Equal);
                }
                for it in &list {
                    for other in all.iter().filter_map(|it| it.as_permission()) {
                        let text = other.to_string();
                        assert_eq!(it.cmp_text(other), it.as_str().cmp(&text), "{it} {text}");
                    }
                }
            }
        }
    }
}

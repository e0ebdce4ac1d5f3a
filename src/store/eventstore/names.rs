//! Which streams of an engine are ours, by their names.
//!
//! An engine may be shared: by installations with different prefixes, by other applications.
//! A stream of ours is called by our prefix (none, or one that ends with `_`), and then
//!
//! - `org-…`, `usage-…` or `node-…`, as the first versions wrote them: their names stay; or
//! - `keyledger.` and the stream's own name, for every other kind.
//!
//! No kind has a `_` in it, so that no installation takes another's streams for its own,
//! whatever their prefixes. The second form tells a kind that only a newer version knows
//! from a stranger's stream: the first must stop an older version, the second is no matter
//! of ours.

/// The kinds of stream that stand under their own names.
const PLAIN: [&str; 3] = ["org", "usage", "node"];
/// What the names of all others begin with.
const MARK: &str = "keyledger.";

/// What a stream is called at an engine.
pub(super) fn named(prefix: &str, stream: &str) -> String {
    [prefix, if is_plain(stream) { "" } else { MARK }, stream].concat()
}

/// What we call a stream of that name; none for one that is not ours.
pub(super) fn ours<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    let name = name.strip_prefix(prefix)?;
    match name.strip_prefix(MARK) {
        None => Some(name).filter(|name| is_plain(name)),
        // That nobody writes: not to be taken for the stream that bears the name itself.
        Some(marked) if is_plain(marked) => Some(name),
        marked => marked,
    }
}

fn is_plain(stream: &str) -> bool {
    stream.split_once('-').is_some_and(|(kind, _)| PLAIN.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_belong_to_one_installation() {
        let prefixes = ["", "a_", "a_b_", "b_", "org_", "keyledger_", "a__"];
        for prefix in prefixes {
            for stream in ["org-1", "usage-1", "node-registration", "account-a_b-c", "vault-x"] {
                let name = named(prefix, stream);
                for other in prefixes {
                    let wanted = Some(stream).filter(|_| other == prefix);
                    assert_eq!(ours(other, &name), wanted, "`{name}` behind `{other}`");
                }
            }
        }
    }

    #[test]
    fn the_first_versions_names_stay() {
        for stream in ["org-operator", "usage-1", "node-registration", "node-migration"] {
            assert_eq!(named("a_", stream), format!("a_{stream}"));
        }
    }

    #[test]
    fn strangers_are_not_ours_and_newer_kinds_are() {
        for name in ["order-1", "$$org-1", "$ce-org", "organization-1", "org", "x.org-1", "Org-1"] {
            assert_eq!(ours("", name), None, "{name}");
        }
        assert_eq!(ours("", "keyledger.lease-1"), Some("lease-1"));
        assert_eq!(ours("", "keyledger.org-1"), Some("keyledger.org-1"), "of no known kind");
    }
}

//! Which events an activity log shows.

use std::fmt;
use std::str::FromStr;

use super::tell::{for_each_named, tell};
use super::{ACTIONS, Outcome, action, words_of};
use crate::envelope::Envelope;
use crate::event::Event;
use crate::principal::{Credential, Principal};
use crate::text::CorrelationId;

/// One action, or all of one kind: `key.revoked`, `key.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionPattern(String);

/// Text that matches no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an action such as `key.revoked`, or all of one kind such as `key.*`")]
pub struct InvalidAction;

impl ActionPattern {
    /// Whether this action is meant.
    #[must_use]
    pub fn matches(&self, action: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(kind) => action.starts_with(kind),
            None => action == self.0,
        }
    }
}

impl FromStr for ActionPattern {
    type Err = InvalidAction;

    /// Refuses what no event could ever match: a misspelt filter shows an empty log.
    fn from_str(text: &str) -> Result<Self, InvalidAction> {
        let pattern = Self(text.to_owned());
        let shape = text.strip_suffix('*').is_none_or(|kind| kind.ends_with('.'));
        let known = ACTIONS.iter().any(|(_, action)| pattern.matches(action));
        if shape && known { Ok(pattern) } else { Err(InvalidAction) }
    }
}

impl fmt::Display for ActionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an event must be to be shown: all that is set must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who acted.
    pub actor: Option<Principal>,
    /// The key or session they acted with.
    pub credential: Option<Credential>,
    /// What was done.
    pub action: Option<ActionPattern>,
    /// What it was done to, by its identifier.
    pub target: Option<String>,
    /// What the event has in common with others.
    pub correlation_id: Option<CorrelationId>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// Words that must all be among [`words_of`] the event; empty asks for none.
    pub text: Vec<String>,
    /// Leaves out who read the history.
    pub without_readings: bool,
}

impl Filter {
    /// Whether an event is shown. What is quickly asked is asked first.
    #[must_use]
    pub fn shows(&self, envelope: &Envelope) -> bool {
        let Self {
            actor,
            credential,
            action,
            target,
            correlation_id,
            outcome,
            text,
            without_readings,
        } = self;
        let event = &envelope.event;
        actor.is_none_or(|actor| envelope.actor == actor)
            && credential.is_none_or(|it| envelope.credential == Some(it))
            && correlation_id.as_ref().is_none_or(|id| envelope.correlation_id == *id)
            && action.as_ref().is_none_or(|pattern| done(pattern, event))
            && !(*without_readings && matches!(event, Event::HistoryRead(_)))
            && target.as_ref().is_none_or(|id| on(id, event))
            && outcome.is_none_or(|outcome| tell(event).outcome == outcome)
            && (text.is_empty() || says(text, event))
    }
}

fn on(target: &str, event: &Event) -> bool {
    let mut found = false;
    for_each_named(event, |id| found = found || id.to_string() == target);
    found
}

fn says(text: &[String], event: &Event) -> bool {
    let found = words_of(event);
    text.iter().all(|word| found.contains(word))
}

fn done(pattern: &ActionPattern, event: &Event) -> bool {
    pattern.matches(action(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OrganizationId;
    use crate::sample::{envelope, installation_created, key_created, key_id, key_revoked};

    #[test]
    fn a_pattern_means_something() {
        let matches = |pattern: &str| -> Vec<&str> {
            let pattern: ActionPattern = pattern.parse().unwrap();
            ACTIONS.iter().map(|(_, action)| *action).filter(|it| pattern.matches(it)).collect()
        };
        assert_eq!(matches("key.revoked"), ["key.revoked"]);
        assert!(matches("key.*").iter().all(|it| it.starts_with("key.")));
        assert!(matches("key.*").len() > 1);
        for wrong in [
            "", "*", ".", ".*", "key", "key.", "key*", "ke*", "key.rev*", "keys.*", "KEY.*",
            "key.*.*",
        ] {
            assert_eq!(wrong.parse::<ActionPattern>(), Err(InvalidAction), "{wrong}");
        }
    }

    #[test]
    fn all_that_is_set_must_be_so() {
        let mut revoked = envelope(1, key_revoked(7));
        revoked.credential = Some(Credential::Key(key_id(9)));
        let whole = Filter {
            actor: Some(Principal::Ledger),
            credential: Some(Credential::Key(key_id(9))),
            action: "key.*".parse().ok(),
            target: Some(key_id(7).to_string()),
            correlation_id: "c".parse().ok(),
            outcome: Some(Outcome::Succeeded),
            text: vec!["compromise".to_owned(), "revoked".to_owned()],
            without_readings: true,
        };
        assert!(whole.shows(&revoked));
        assert!(Filter::default().shows(&revoked));
        for other in [
            Filter {
                actor: Some(Principal::Organization(OrganizationId::OPERATOR)),
                ..whole.clone()
            },
            Filter { credential: Some(Credential::Key(key_id(8))), ..whole.clone() },
            Filter { action: "key.created".parse().ok(), ..whole.clone() },
            Filter { target: Some(key_id(9).to_string()), ..whole.clone() },
            Filter { correlation_id: "d".parse().ok(), ..whole.clone() },
            Filter { outcome: Some(Outcome::Denied), ..whole.clone() },
            Filter { text: vec!["revoked".to_owned(), "superseded".to_owned()], ..whole.clone() },
        ] {
            assert!(!other.shows(&revoked), "{other:?}");
        }
        let created = envelope(1, key_created(7, |_| ()));
        assert!(!whole.shows(&created), "made with no key");
        let installation = envelope(1, installation_created());
        let target = Filter { target: Some("operator".to_owned()), ..Filter::default() };
        assert!(target.shows(&installation) && !target.shows(&created));
    }
}

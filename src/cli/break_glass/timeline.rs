//! What was done under a grant, as people read it: a line for each entry, a line for each
//! long quiet, and a summary.
//!
//! It keeps a few numbers and no entry, however long the story is.

use super::super::output::{Colour, Fields, coloured, safe};
use super::super::view::activity::Entry;
use super::super::view::common::{Principal, instant, span};
use crate::proto;
use crate::proto::field_value::Kind;

/// Nothing that happens for longer than this is a gap.
const GAP_MS: i64 = 5 * 60 * 1_000;

/// How far the story has been told.
#[derive(Default)]
pub(super) struct Timeline {
    grant_id: String,
    opened_ms: Option<i64>,
    /// Since when it permits anything.
    permits_ms: Option<i64>,
    last_ms: Option<i64>,
    ended_ms: Option<i64>,
    longest_gap_ms: i64,
    uses: u64,
    refusals: u64,
    changes: u64,
    ended: Option<String>,
    escalated: bool,
    reviewed: Option<String>,
}

impl Timeline {
    /// The story of this grant, from its opening.
    pub(super) fn of(grant_id: &str) -> Self {
        Self { grant_id: grant_id.to_owned(), ..Self::default() }
    }

    /// As it stands behind entries that are not told.
    pub(super) fn behind(grant: &proto::BreakGlassGrant) -> Self {
        let opened_ms = grant.opened_at.as_ref().map(millis);
        let approved_ms = grant.approved.as_ref().and_then(|it| it.at.as_ref()).map(millis);
        let is_pending = grant.state() == proto::BreakGlassGrantState::AwaitingApproval;
        Self {
            opened_ms,
            permits_ms: approved_ms.or(opened_ms.filter(|_| !is_pending)),
            ..Self::of(&grant.id)
        }
    }

    /// The lines of the next entry, behind the line of a gap where there is one.
    pub(super) fn tell(&mut self, entry: &proto::ActivityEntry) -> String {
        let at_ms = entry.at.as_ref().map_or(0, millis);
        let opened_ms = *self.opened_ms.get_or_insert(at_ms);
        let until_ms = ended_ms(entry).unwrap_or(at_ms);
        let mut lines = self.gap(until_ms);
        let Told { what, beside } = self.told(entry, at_ms);
        let at = instant(entry.at).unwrap_or_default();
        let head = format!("{at}  +{}  ", clock(at_ms - opened_ms));
        let indent = " ".repeat(head.chars().count() + 2);
        lines.push_str(&format!("{head}{what}\n"));
        for line in beside {
            lines.push_str(&format!("{indent}{}\n", safe(&line)));
        }
        lines
    }

    /// What lies between the entry before and this instant, as long as the grant lasts.
    fn gap(&mut self, until_ms: i64) -> String {
        let Some(last_ms) = self.last_ms.filter(|_| self.ended_ms.is_none()) else {
            return String::new();
        };
        let gap_ms = until_ms - last_ms;
        self.longest_gap_ms = self.longest_gap_ms.max(gap_ms);
        if gap_ms <= GAP_MS {
            return String::new();
        }
        format!("… {} without a request …\n", length(gap_ms))
    }

    fn told(&mut self, entry: &proto::ActivityEntry, at_ms: i64) -> Told {
        self.last_ms = Some(at_ms);
        match entry.action.as_str() {
            "break_glass.opened" => self.opened(entry, at_ms),
            "break_glass.approved" => {
                self.permits_ms = Some(at_ms);
                let ends = text(entry, "expires_at").unwrap_or_default();
                Told::of(format!("approved by {}; ends at {ends}", person(entry)), comment(entry))
            }
            "break_glass.used" => {
                self.uses += 1;
                // A call may still be refused for what it lacks: that is told behind it.
                let what = if text(entry, "method").is_some() { "called" } else { "used" };
                Told::of(format!("{what}: {}", asked(entry)), None)
            }
            "break_glass.refused" => {
                self.refusals += 1;
                let refused = coloured("REFUSED", Colour::Red);
                let what = safe(&format!(" ({}): {}", entry.reason, asked(entry)));
                Told { what: format!("{refused}{what}"), beside: Vec::new() }
            }
            "break_glass.ended" => self.end(entry, at_ms),
            "break_glass.escalated" => {
                self.escalated = true;
                Told::of("was not reviewed in time".to_owned(), None)
            }
            "break_glass.reviewed" => {
                let reviewed = format!("{}, by {}", entry.reason, person(entry));
                self.reviewed = Some(reviewed.clone());
                Told::of(format!("reviewed: {reviewed}"), comment(entry))
            }
            _ => {
                self.changes += 1;
                let mut told = Told::of(entry.sentence.clone(), comment(entry));
                told.beside.extend(Entry::from(entry.clone()).change_lines());
                told
            }
        }
    }

    fn opened(&mut self, entry: &proto::ActivityEntry, at_ms: i64) -> Told {
        let awaits = text(entry, "awaits_approval").as_deref() == Some("true");
        self.opened_ms = Some(at_ms);
        self.permits_ms = (!awaits).then_some(at_ms);
        let verb = if awaits { "asked for" } else { "opened" };
        let lasts = match field(entry, "duration_seconds") {
            Some(Kind::Number(seconds)) => format!(", for {}", span(*seconds)),
            _ => String::new(),
        };
        let mut told = Told::of(format!("{verb} by {}{lasts}", person(entry)), None);
        for (name, what) in
            [("permissions", "permits"), ("incident", "incident"), ("way", "used by")]
        {
            told.beside.extend(text(entry, name).map(|it| format!("{what}: {it}")));
        }
        told.beside.extend(comment(entry).map(|it| it.replacen("comment", "reason", 1)));
        told
    }

    fn end(&mut self, entry: &proto::ActivityEntry, at_ms: i64) -> Told {
        let ended_ms = ended_ms(entry).unwrap_or(at_ms);
        self.ended_ms = Some(ended_ms);
        let by = entry.actor.clone().map(Principal::from).map(|it| it.to_text());
        let ended = format!("{} by {}", entry.reason, by.unwrap_or_default());
        self.ended = Some(ended.clone());
        let mut told = Told::of(format!("ended: {ended}"), comment(entry));
        if ended_ms != at_ms {
            let since = text(entry, "ended_at").unwrap_or_default();
            told.beside.push(format!("permitted nothing since {since}"));
        }
        if text(entry, "server_was_down").is_some() {
            told.beside.push("no server was there to record it then".to_owned());
        }
        told
    }

    /// What it came to.
    pub(super) fn summary(&self) -> String {
        let mut fields = Fields::default();
        fields.add("grant", &self.grant_id);
        let until_ms = self.ended_ms.or(self.last_ms);
        let open = match (self.permits_ms, until_ms) {
            (Some(since), Some(until)) => clock(until - since),
            _ => "never: nobody approved it".to_owned(),
        };
        fields
            .add("was open", &open)
            .add("uses", &self.uses.to_string())
            .add("refusals", &self.refusals.to_string())
            .add("changes", &self.changes.to_string())
            .add("longest gap", &clock(self.longest_gap_ms));
        match &self.ended {
            Some(ended) => fields.add("ended", ended),
            None => fields.add("incomplete", "the grant has not ended; more may follow"),
        };
        match (&self.reviewed, self.escalated) {
            (Some(reviewed), _) => fields.add("reviewed", reviewed),
            (None, true) => fields.add("review", "overdue"),
            (None, false) if self.ended.is_some() => fields.add("review", "awaited"),
            (None, false) => &mut fields,
        };
        fields.to_text()
    }

    /// The grant's own numbers, where part of the story was not told.
    pub(super) fn take_numbers(&mut self, grant: &proto::BreakGlassGrant) {
        (self.uses, self.refusals) = (grant.uses, grant.refusals);
    }
}

/// The line of an entry, and those below it.
struct Told {
    what: String,
    beside: Vec<String>,
}

impl Told {
    fn of(what: String, beside: Option<String>) -> Self {
        Self { what: safe(&what), beside: beside.into_iter().collect() }
    }
}

fn millis(at: &prost_types::Timestamp) -> i64 {
    at.seconds.saturating_mul(1_000).saturating_add(i64::from(at.nanos) / 1_000_000)
}

fn field<'a>(entry: &'a proto::ActivityEntry, name: &str) -> Option<&'a Kind> {
    let change = entry.changes.iter().find(|it| it.field == name)?;
    change.after.as_ref()?.kind.as_ref()
}

fn text(entry: &proto::ActivityEntry, name: &str) -> Option<String> {
    field(entry, name).map(|kind| match kind {
        Kind::Text(text) => text.clone(),
        Kind::Number(number) => number.to_string(),
        Kind::Texts(list) => list.texts.join(", "),
        Kind::Instant(at) => instant(Some(*at)).unwrap_or_default(),
    })
}

/// When the grant ended, where the entry records that.
fn ended_ms(entry: &proto::ActivityEntry) -> Option<i64> {
    match field(entry, "ended_at") {
        Some(Kind::Instant(at)) if entry.action == "break_glass.ended" => Some(millis(at)),
        _ => None,
    }
}

fn person(entry: &proto::ActivityEntry) -> String {
    match (text(entry, "account_id"), text(entry, "custodian")) {
        (Some(account), Some(custodian)) => format!("custodian {custodian} ({account})"),
        (Some(account), None) => account,
        (None, Some(custodian)) => format!("custodian {custodian}"),
        (None, None) => String::new(),
    }
}

/// What was asked of the grant.
fn asked(entry: &proto::ActivityEntry) -> String {
    let named = |name: &str, before: &str| text(entry, name).map(|it| format!("{before}{it}"));
    let parts: Vec<String> = [
        named("method", ""),
        named("permissions", ""),
        named("service", "service "),
        named("domain", "domain "),
        named("asked_with", "asked with "),
    ]
    .into_iter()
    .flatten()
    .collect();
    let what =
        if parts.is_empty() { "whether it is in force".to_owned() } else { parts.join(", ") };
    match entry.actor.clone().map(Principal::from) {
        // Whoever has the token, or the ledger that asks for them.
        Some(actor) if !matches!(actor.kind(), "break_glass" | "ledger") => {
            format!("{what}, by {}", actor.to_text())
        }
        _ => what,
    }
}

fn comment(entry: &proto::ActivityEntry) -> Option<String> {
    let data = entry.personal_data.as_ref()?;
    if !data.comment.is_empty() {
        return Some(format!("comment: {}", data.comment));
    }
    let erased = data.state() == proto::PersonalDataState::Erased;
    erased.then(|| "comment: (erased)".to_owned())
}

/// `HH:MM:SS`; more than 99 hours are written in full.
fn clock(millis: i64) -> String {
    let seconds = millis.max(0) / 1_000;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The two largest units of a length of time that is minutes or more.
fn length(millis: i64) -> String {
    let minutes = millis / 60_000;
    let counted = |number: i64, unit: &str| match number {
        1 => format!("1 {unit}"),
        number => format!("{number} {unit}s"),
    };
    let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
    let parts = match (days, hours) {
        (0, 0) => [(minutes, "minute"), (0, "")],
        (0, hours) => [(hours, "hour"), (minutes, "minute")],
        (days, hours) => [(days, "day"), (hours, "hour")],
    };
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    parts.map(|(number, unit)| counted(number, unit)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant_of(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: 1_795_341_600 + seconds, nanos: 0 }
    }

    fn change(name: &str, kind: Kind) -> proto::FieldChange {
        let after = Some(proto::FieldValue { kind: Some(kind) });
        proto::FieldChange { field: name.to_owned(), before: None, after }
    }

    fn entry(seconds: i64, action: &str, changes: Vec<proto::FieldChange>) -> proto::ActivityEntry {
        proto::ActivityEntry {
            at: Some(instant_of(seconds)),
            action: format!("break_glass.{action}"),
            reason: "closed".to_owned(),
            changes,
            ..Default::default()
        }
    }

    fn used(seconds: i64) -> proto::ActivityEntry {
        let method = Kind::Text("KeyService/ListKeys".to_owned());
        entry(seconds, "used", vec![change("method", method)])
    }

    #[test]
    fn a_quiet_of_more_than_five_minutes_is_a_gap_while_the_grant_lasts() {
        let mut timeline = Timeline::of("bgg_1");
        assert!(timeline.tell(&entry(0, "opened", Vec::new())).contains("+00:00:00  opened"));
        assert!(!timeline.tell(&used(300)).contains('…'), "five minutes are none");
        let late = timeline.tell(&used(300 + 301));
        assert!(late.starts_with("… 5 minutes without a request …\n"), "{late}");
        assert!(late.contains("+00:10:01  called: KeyService/ListKeys"), "{late}");
        // Recorded an hour after it ended: the quiet is what lies before the end.
        let ended_at = change("ended_at", Kind::Instant(instant_of(601 + 720)));
        let end = timeline.tell(&entry(601 + 720 + 3_600, "ended", vec![ended_at]));
        assert!(end.starts_with("… 12 minutes without a request …\n"), "{end}");
        let reviewed = timeline.tell(&entry(900_000, "reviewed", Vec::new()));
        assert!(!reviewed.contains('…'), "it had ended: {reviewed}");
        let summary = timeline.summary();
        for line in ["was open     00:22:01", "uses         2", "longest gap  00:12:00"] {
            assert!(summary.contains(line), "{summary}");
        }
    }

    #[test]
    fn what_has_not_ended_is_incomplete() {
        let mut timeline = Timeline::of("bgg_1");
        let awaits = change("awaits_approval", Kind::Text("true".to_owned()));
        assert!(timeline.tell(&entry(0, "opened", vec![awaits])).contains("asked for"));
        let summary = timeline.summary();
        assert!(summary.contains("incomplete") && !summary.contains("review"), "{summary}");
        assert!(summary.contains("was open     never"), "{summary}");
    }

    #[test]
    fn lengths_of_time_are_said_in_two_units() {
        let minute = 60_000;
        for (millis, said) in [
            (minute, "1 minute"),
            (6 * minute, "6 minutes"),
            (65 * minute, "1 hour 5 minutes"),
            (120 * minute, "2 hours"),
            (1_500 * minute, "1 day 1 hour"),
        ] {
            assert_eq!(length(millis), said);
        }
        assert_eq!(clock(360_061_000), "100:01:01");
    }
}

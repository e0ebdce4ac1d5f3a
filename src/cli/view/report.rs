//! Reports.

use serde::Serialize;

use super::super::output::table;
use super::super::pages::Page;
use super::super::report::Rows;
use super::common::{StreamRevision, instant, span};
use super::history::PastEvent;
use super::key::{Key, Listed};
use crate::proto;

/// Keys of a report, see `ListUnusedKeysResponse` in `report.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct KeysFound {
    keys: Vec<Key>,
    next_page_token: String,
    revision: Option<StreamRevision>,
    #[serde(skip)]
    messages: Vec<proto::Key>,
}

impl KeysFound {
    pub(in crate::cli) fn new(
        keys: Vec<proto::Key>,
        next_page_token: String,
        revision: Option<proto::StreamRevision>,
    ) -> Self {
        Self {
            keys: keys.iter().cloned().map(Into::into).collect(),
            next_page_token,
            revision: revision.map(Into::into),
            messages: keys,
        }
    }
}

impl Rows for KeysFound {
    fn header(&self) -> &'static [&'static str] {
        &["id", "name", "service_account_id", "user_id", "created_at", "last_used_at", "expires_at"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &proto::Key| {
            let at = |at| instant(at).unwrap_or_default();
            vec![
                it.id.clone(),
                it.name.clone(),
                it.service_account_id.clone(),
                it.user_id.clone(),
                at(it.created_at),
                at(it.last_used_at),
                at(it.expires_at),
            ]
        };
        self.messages.iter().map(row).collect()
    }

    fn to_text(&self) -> String {
        let keys = self.messages.clone();
        Listed::from(proto::ListKeysResponse { keys, ..Default::default() }).to_text()
    }
}

impl Page for KeysFound {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.keys.len()
    }

    fn join(&mut self, later: Self) {
        self.keys.extend(later.keys);
        self.messages.extend(later.messages);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}

/// See `ListPermissionHoldersResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct HeldTimes {
    times: Vec<HeldTime>,
    next_page_token: String,
}

/// See `HeldTime`.
#[derive(Serialize)]
struct HeldTime {
    service_account_id: String,
    user_id: String,
    key_id: String,
    break_glass_grant_id: String,
    holder_name: String,
    domains: Vec<String>,
    from: Option<String>,
    to: Option<String>,
    began_by: Option<PastEvent>,
    ended_by: Option<PastEvent>,
}

impl HeldTimes {
    pub(in crate::cli) fn new(times: Vec<proto::HeldTime>, next_page_token: String) -> Self {
        use proto::held_time::Holder;
        let time = |it: proto::HeldTime| {
            let mut row = HeldTime {
                service_account_id: String::new(),
                user_id: String::new(),
                key_id: String::new(),
                break_glass_grant_id: String::new(),
                holder_name: it.holder_name,
                domains: it.domains,
                from: instant(it.from),
                to: instant(it.to),
                began_by: it.began_by.map(Into::into),
                ended_by: it.ended_by.map(Into::into),
            };
            match it.holder {
                Some(Holder::ServiceAccountId(id)) => row.service_account_id = id,
                Some(Holder::UserId(id)) => row.user_id = id,
                Some(Holder::KeyId(id)) => row.key_id = id,
                Some(Holder::BreakGlassGrantId(id)) => row.break_glass_grant_id = id,
                None => {}
            }
            row
        };
        Self { times: times.into_iter().map(time).collect(), next_page_token }
    }
}

impl HeldTime {
    fn holder(&self) -> String {
        [&*self.service_account_id, &self.user_id, &self.key_id, &self.break_glass_grant_id]
            .concat()
    }

    fn began_by(&self) -> String {
        let action = self.began_by.as_ref().map(PastEvent::action);
        action.unwrap_or_else(|| "held by then".to_owned())
    }

    fn ended_by(&self) -> String {
        let otherwise = if self.to.is_some() { "its time was over" } else { "" };
        self.ended_by.as_ref().map_or_else(|| otherwise.to_owned(), PastEvent::action)
    }

    /// For a table: each event by its action and its place.
    fn told(&self) -> [String; 7] {
        let at = |action: String, event: Option<&PastEvent>| match event {
            Some(event) => format!("{action} ({})", event.place()),
            None => action,
        };
        let everywhere = self.domains.is_empty();
        [
            self.holder(),
            self.holder_name.clone(),
            if everywhere { "everywhere".to_owned() } else { self.domains.join(",") },
            self.from.clone().unwrap_or_default(),
            at(self.began_by(), self.began_by.as_ref()),
            self.to.clone().unwrap_or_default(),
            at(self.ended_by(), self.ended_by.as_ref()),
        ]
    }

    /// For a spreadsheet.
    fn row(&self) -> [String; 11] {
        let id = |event: Option<&PastEvent>| event.map(PastEvent::id).unwrap_or_default();
        let sentence =
            |event: Option<&PastEvent>| event.map(PastEvent::sentence).unwrap_or_default();
        [
            self.holder(),
            self.holder_name.clone(),
            self.domains.join(" "),
            self.from.clone().unwrap_or_default(),
            self.began_by(),
            id(self.began_by.as_ref()),
            sentence(self.began_by.as_ref()),
            self.to.clone().unwrap_or_default(),
            self.ended_by(),
            id(self.ended_by.as_ref()),
            sentence(self.ended_by.as_ref()),
        ]
    }
}

impl Rows for HeldTimes {
    fn header(&self) -> &'static [&'static str] {
        &[
            "holder",
            "name",
            "domains",
            "from",
            "began_by",
            "began_by_event",
            "began_by_sentence",
            "to",
            "ended_by",
            "ended_by_event",
            "ended_by_sentence",
        ]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.times.iter().map(|it| it.row().to_vec()).collect()
    }

    fn to_text(&self) -> String {
        table(
            ["HOLDER", "NAME", "WHERE", "FROM", "BEGAN BY", "TO", "ENDED BY"],
            self.times.iter().map(HeldTime::told),
        )
    }
}

impl Page for HeldTimes {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.times.len()
    }

    fn join(&mut self, later: Self) {
        self.times.extend(later.times);
        self.next_page_token = later.next_page_token;
    }
}

/// See `SummarizeBreakGlassResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct BreakGlassSummary {
    quarters: Vec<Quarter>,
    revision: Option<StreamRevision>,
}

/// See `BreakGlassQuarter`.
#[derive(Serialize)]
struct Quarter {
    quarter: String,
    custodian: String,
    opened: u64,
    uses: u64,
    refusals: u64,
    open_seconds: i64,
    unreviewed: u64,
}

impl From<proto::SummarizeBreakGlassResponse> for BreakGlassSummary {
    fn from(message: proto::SummarizeBreakGlassResponse) -> Self {
        let quarter = |it: proto::BreakGlassQuarter| Quarter {
            quarter: it.quarter,
            custodian: it.custodian,
            opened: it.opened,
            uses: it.uses,
            refusals: it.refusals,
            open_seconds: it.open.map_or(0, |it| it.seconds),
            unreviewed: it.unreviewed,
        };
        Self {
            quarters: message.quarters.into_iter().map(quarter).collect(),
            revision: message.revision.map(Into::into),
        }
    }
}

impl Rows for BreakGlassSummary {
    fn header(&self) -> &'static [&'static str] {
        &["quarter", "custodian", "opened", "uses", "refusals", "open_seconds", "unreviewed"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |it: &Quarter| {
            let numbers = [it.opened, it.uses, it.refusals].map(|number| number.to_string());
            let mut row = vec![it.quarter.clone(), it.custodian.clone()];
            row.extend(numbers);
            row.extend([it.open_seconds.to_string(), it.unreviewed.to_string()]);
            row
        };
        self.quarters.iter().map(row).collect()
    }

    fn to_text(&self) -> String {
        table(
            ["QUARTER", "CUSTODIAN", "OPENED", "USES", "REFUSALS", "OPEN", "UNREVIEWED"],
            self.quarters.iter().map(|it| {
                [
                    it.quarter.clone(),
                    it.custodian.clone(),
                    it.opened.to_string(),
                    it.uses.to_string(),
                    it.refusals.to_string(),
                    span(it.open_seconds),
                    it.unreviewed.to_string(),
                ]
            }),
        )
    }
}

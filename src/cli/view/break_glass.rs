//! Break-glass: grants, alerts, and what custodians are given.

use std::path::Path;

use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::super::output::{Fields, safe, table};
use super::super::pages::Page;
use super::common::{Principal, StreamRevision, instant, short, span};
use crate::proto;

/// Bytes in lower-case hexadecimal.
pub(in crate::cli) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// See `BreakGlassGrant` in `break_glass.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Grant {
    id: String,
    organization_id: String,
    state: String,
    custodian: String,
    account_id: String,
    way: String,
    incident: String,
    permissions: Vec<String>,
    duration: Option<String>,
    opened_at: Option<String>,
    expires_at: Option<String>,
    uses: u64,
    refusals: u64,
    last_used_at: Option<String>,
    approved: Option<Approval>,
    ended: Option<End>,
    escalated_at: Option<String>,
    reviewed: Option<Review>,
    opened_revision: u64,
}

#[derive(Serialize)]
struct Approval {
    at: Option<String>,
    account_id: String,
    custodian: String,
}

#[derive(Serialize)]
struct End {
    reason: String,
    ended_at: Option<String>,
    recorded_at: Option<String>,
    server_was_down: bool,
    by: Option<Principal>,
}

#[derive(Serialize)]
struct Review {
    at: Option<String>,
    account_id: String,
    custodian: String,
    finding: String,
}

impl From<proto::BreakGlassGrant> for Grant {
    fn from(message: proto::BreakGlassGrant) -> Self {
        let state = short(
            message.state,
            "BREAK_GLASS_GRANT_STATE_",
            proto::BreakGlassGrantState::as_str_name,
        );
        Self {
            id: message.id,
            organization_id: message.organization_id,
            state,
            custodian: message.custodian,
            account_id: message.account_id,
            way: short(message.way, "BREAK_GLASS_WAY_", proto::BreakGlassWay::as_str_name),
            incident: message.incident,
            permissions: message.permissions,
            duration: message.duration.map(|it| span(it.seconds)),
            opened_at: instant(message.opened_at),
            expires_at: instant(message.expires_at),
            uses: message.uses,
            refusals: message.refusals,
            last_used_at: instant(message.last_used_at),
            approved: message.approved.map(Into::into),
            ended: message.ended.map(Into::into),
            escalated_at: instant(message.escalated_at),
            reviewed: message.reviewed.map(Into::into),
            opened_revision: message.opened_revision,
        }
    }
}

impl From<proto::BreakGlassApproval> for Approval {
    fn from(message: proto::BreakGlassApproval) -> Self {
        let (account_id, custodian) = (message.account_id, message.custodian);
        Self { at: instant(message.at), account_id, custodian }
    }
}

impl From<proto::BreakGlassEnd> for End {
    fn from(message: proto::BreakGlassEnd) -> Self {
        let reason = short(
            message.reason,
            "BREAK_GLASS_END_REASON_",
            proto::BreakGlassEndReason::as_str_name,
        );
        Self {
            reason,
            ended_at: instant(message.ended_at),
            recorded_at: instant(message.recorded_at),
            server_was_down: message.server_was_down,
            by: message.by.map(Into::into),
        }
    }
}

impl From<proto::BreakGlassReview> for Review {
    fn from(message: proto::BreakGlassReview) -> Self {
        Self {
            at: instant(message.at),
            account_id: message.account_id,
            custodian: message.custodian,
            finding: short(message.finding, "REVIEW_FINDING_", proto::ReviewFinding::as_str_name),
        }
    }
}

/// A person who governs: their account, and the custodian where they showed a master key.
fn person(account_id: &str, custodian: &str) -> String {
    match (account_id, custodian) {
        (account, "") => account.to_owned(),
        ("", custodian) => format!("custodian {custodian}"),
        (account, custodian) => format!("custodian {custodian} ({account})"),
    }
}

fn at(at: Option<&String>) -> &str {
    at.map_or("", String::as_str)
}

impl Grant {
    fn describe(&self, fields: &mut Fields) {
        fields
            .add("grant", &self.id)
            .add("organization", &self.organization_id)
            .add("state", &self.state)
            .add("opened by", &person(&self.account_id, &self.custodian))
            .add("incident", &self.incident)
            .add_all("permits", self.permissions.iter().cloned())
            .add_some("lasts", self.duration.as_ref())
            .add_some("opened", self.opened_at.as_ref());
        if self.ended.is_none() {
            fields.add_some("ends", self.expires_at.as_ref());
        }
        if let Some(it) = &self.approved {
            let who = person(&it.account_id, &it.custodian);
            fields.add("approved", &format!("{} by {who}", at(it.at.as_ref())));
        }
        if let Some(it) = &self.ended {
            let ended = format!("{} ({})", at(it.ended_at.as_ref()), it.reason);
            fields.add("ended", &ended);
            fields
                .add("", if it.server_was_down { "no server was there to record it" } else { "" });
        }
        fields.add_some("escalated", self.escalated_at.as_ref());
        if let Some(it) = &self.reviewed {
            let who = person(&it.account_id, &it.custodian);
            fields.add("reviewed", &format!("{} by {who}: {}", at(it.at.as_ref()), it.finding));
        }
        fields.add("uses", &self.uses.to_string()).add("refusals", &self.refusals.to_string());
    }

    fn review(&self) -> String {
        match (&self.reviewed, &self.escalated_at, self.state.as_str()) {
            (Some(review), _, _) => review.finding.clone(),
            (None, Some(_), _) => "overdue".to_owned(),
            (None, None, "ended") => "awaited".to_owned(),
            (None, None, _) => String::new(),
        }
    }

    fn row(&self) -> [String; 9] {
        let end = self.ended.as_ref().map(|it| &it.ended_at).unwrap_or(&self.expires_at);
        let how = self.ended.as_ref().map(|it| format!(" ({})", it.reason)).unwrap_or_default();
        [
            self.id.clone(),
            self.organization_id.clone(),
            self.custodian.clone(),
            self.state.clone(),
            self.opened_at.clone().unwrap_or_default(),
            format!("{}{how}", at(end.as_ref())),
            self.uses.to_string(),
            self.refusals.to_string(),
            self.review(),
        ]
    }
}

/// See `OpenGrantResponse`; the token only where it is shown.
#[derive(Serialize)]
pub(in crate::cli) struct Opened {
    grant: Option<Grant>,
    token: Option<Zeroed>,
    revision: Option<StreamRevision>,
}

/// A text that is overwritten when dropped.
struct Zeroed(Zeroizing<String>);

impl Serialize for Zeroed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Opened {
    /// What an answer said, and the token, which is not in it yet.
    pub(in crate::cli) fn of(message: proto::OpenGrantResponse) -> (Self, Zeroizing<String>) {
        let opened = Self {
            grant: message.grant.map(Into::into),
            token: None,
            revision: message.revision.map(Into::into),
        };
        (opened, Zeroizing::new(message.token))
    }

    /// Has the token shown.
    pub(in crate::cli) fn show(&mut self, token: Zeroizing<String>) {
        self.token = Some(Zeroed(token));
    }

    /// The grant.
    pub(in crate::cli) fn grant_id(&self) -> &str {
        self.grant.as_ref().map_or("", |it| &it.id)
    }

    /// The organization that it is for.
    pub(in crate::cli) fn organization_id(&self) -> &str {
        self.grant.as_ref().map_or("", |it| &it.organization_id)
    }

    /// Whether it permits nothing yet.
    pub(in crate::cli) fn awaits_approval(&self) -> bool {
        self.grant.as_ref().is_some_and(|it| it.state == "awaiting_approval")
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(grant) = &self.grant {
            grant.describe(&mut fields);
        }
        if let Some(token) = &self.token {
            fields.add("token", &token.0);
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// A grant that was approved, closed or reviewed.
#[derive(Serialize)]
pub(in crate::cli) struct Changed {
    grant: Option<Grant>,
    revision: Option<StreamRevision>,
}

impl Changed {
    /// What an answer said.
    pub(in crate::cli) fn new(
        grant: Option<proto::BreakGlassGrant>,
        revision: Option<proto::StreamRevision>,
    ) -> Self {
        Self { grant: grant.map(Into::into), revision: revision.map(Into::into) }
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(grant) = &self.grant {
            grant.describe(&mut fields);
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `ListBreakGlassGrantsResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    grants: Vec<Grant>,
    next_page_token: String,
}

impl From<proto::ListBreakGlassGrantsResponse> for Listed {
    fn from(message: proto::ListBreakGlassGrantsResponse) -> Self {
        Self {
            grants: message.grants.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            [
                "ID",
                "ORGANIZATION",
                "CUSTODIAN",
                "STATE",
                "OPENED",
                "ENDS",
                "USES",
                "REFUSED",
                "REVIEW",
            ],
            self.grants.iter().map(Grant::row),
        )
    }

    /// What to do about grants that nobody looked at; none where there are none.
    pub(in crate::cli) fn awaiting_review(&self) -> Option<String> {
        let mut awaiting = self.grants.iter().filter(|it| it.state == "ended");
        let first = awaiting.next()?;
        let (grants, await_) = match awaiting.count() {
            0 => ("1 grant".to_owned(), "awaits"),
            more => (format!("{} grants", more + 1), "await"),
        };
        let (id, organization) = (safe(&first.id), safe(&first.organization_id));
        Some(format!(
            "{grants} {await_} review: `keyledger break-glass replay {id} --org {organization}` \
             shows what was done, `review` says what came of it\n"
        ))
    }
}

impl Page for Listed {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.grants.len()
    }

    fn join(&mut self, later: Self) {
        self.grants.extend(later.grants);
        self.next_page_token = later.next_page_token;
    }
}

/// See `WatchBreakGlassResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Alert {
    kind: String,
    at: Option<String>,
    organization_id: String,
    custodian: String,
    grant: Option<Grant>,
}

impl From<proto::WatchBreakGlassResponse> for Alert {
    fn from(message: proto::WatchBreakGlassResponse) -> Self {
        let kind =
            short(message.kind, "BREAK_GLASS_ALERT_KIND_", proto::BreakGlassAlertKind::as_str_name);
        Self {
            kind,
            at: instant(message.at),
            organization_id: message.organization_id,
            custodian: message.custodian,
            grant: message.grant.map(Into::into),
        }
    }
}

impl Alert {
    /// For people: one line.
    pub(in crate::cli) fn to_text(&self) -> String {
        let grant = self.grant.as_ref();
        let what = match self.kind.as_str() {
            "awaits_approval" => "AWAITS APPROVAL".to_owned(),
            "ended" => match grant.and_then(|it| it.ended.as_ref()) {
                Some(end) => format!("ENDED ({})", end.reason),
                None => "ENDED".to_owned(),
            },
            "escalated" => "NOT REVIEWED IN TIME".to_owned(),
            "reviewed" => match grant.and_then(|it| it.reviewed.as_ref()) {
                Some(review) => format!("REVIEWED ({})", review.finding),
                None => "REVIEWED".to_owned(),
            },
            kind => kind.to_uppercase(),
        };
        let mut line = format!("{}  {what}", at(self.at.as_ref()));
        if let Some(grant) = grant {
            line.push_str(&format!("  {}", grant.id));
        }
        line.push_str(&format!("  of {}, master key of {}", self.organization_id, self.custodian));
        if let Some(grant) = grant {
            let (uses, refusals) = (grant.uses, grant.refusals);
            line.push_str(&format!(": {uses} used, {refusals} refused"));
        }
        format!("{}\n", safe(&line))
    }
}

/// A master key that was made, and what the configuration needs of it.
#[derive(Serialize)]
pub(in crate::cli) struct NewMasterKey {
    custodian: String,
    master_key: Option<String>,
    file: Option<String>,
    sha256: String,
    configuration: String,
}

impl Drop for NewMasterKey {
    fn drop(&mut self) {
        self.master_key.zeroize();
    }
}

impl NewMasterKey {
    /// The key where it is shown, or the file where it was put.
    pub(in crate::cli) fn new(
        custodian: &str,
        master_key: Option<&str>,
        sha256: String,
        file: Option<&Path>,
    ) -> Self {
        // A custodian's name has no character that TOML would have escaped.
        let configuration = format!(
            "[[break_glass.custodians]]\n\
             name = \"{custodian}\"\n\
             # The custodian's account: `keyledger user get USER --org ORGANIZATION` shows it.\n\
             # account = \"acc_…\"\n\
             master_key_sha256 = \"{sha256}\"\n"
        );
        Self {
            custodian: custodian.to_owned(),
            master_key: master_key.map(str::to_owned),
            file: file.map(|it| it.display().to_string()),
            sha256,
            configuration,
        }
    }

    /// For people: the key where it is shown; behind it the block for the configuration.
    pub(in crate::cli) fn to_text(&self) -> String {
        let Some(key) = &self.master_key else { return self.configuration.clone() };
        let mut fields = Fields::default();
        fields.add("master key", key).add("sha256", &self.sha256);
        format!("{}\n{}", fields.to_text(), self.configuration)
    }
}

/// What came of a look at a bundle.
#[derive(Serialize)]
pub(in crate::cli) struct Checked {
    /// Whether it is consistent in itself.
    pub(in crate::cli) whole: bool,
    /// Whether something that is kept elsewhere says that nothing was left out.
    pub(in crate::cli) anchored: bool,
    pub(in crate::cli) organization_id: String,
    pub(in crate::cli) grant_id: String,
    pub(in crate::cli) made_at: String,
    /// Whether the grant had ended when the bundle was made.
    pub(in crate::cli) complete: bool,
    pub(in crate::cli) events: u64,
    pub(in crate::cli) last_revision: Option<u64>,
    /// Sealed pieces that were opened, and that have no key in the bundle.
    pub(in crate::cli) opened: u64,
    pub(in crate::cli) without_key: u64,
    pub(in crate::cli) sha256: String,
    /// The first thing that is wrong.
    pub(in crate::cli) problem: Option<BundleProblem>,
}

/// What is wrong with a bundle.
#[derive(Serialize)]
pub(in crate::cli) struct BundleProblem {
    pub(in crate::cli) line: u64,
    pub(in crate::cli) what: String,
}

impl Checked {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        let last = self.last_revision.map(|it| format!(" up to revision {it}")).unwrap_or_default();
        fields.add("whole", &format!("{} events{last}, each as its leaf hash says", self.events));
        let complete = if self.complete { "yes" } else { "no: made before the grant had ended" };
        fields.add("complete", complete);
        let without = match self.without_key {
            0 => String::new(),
            more => format!("; {more} without a key: erased, or withheld"),
        };
        fields.add("sealed", &format!("{} pieces opened{without}", self.opened));
        fields.add("sha256", &self.sha256);
        fields.add_all(
            "unanchored",
            [
                "this proves that the bundle is consistent in itself; without a head of the"
                    .to_owned(),
                "ledger that is kept elsewhere it does not prove that nothing was left out"
                    .to_owned(),
                "between two events, or that the ledger wrote them".to_owned(),
            ],
        );
        fields.to_text()
    }
}

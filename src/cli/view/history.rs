//! What was so at a past moment.

use serde::Serialize;

use super::super::output::{Colour, Fields, coloured, safe, table, table_within_terminal};
use super::super::pages::Page;
use super::break_glass::Grant as BreakGlassGrant;
use super::common::{Principal, StreamRevision, instant};
use super::key::Key;
use super::organization::Organization;
use super::role::{Grant, Role};
use super::service_account::ServiceAccount;
use super::session::Session;
use super::user::User;
use super::verification::Decision;
use super::{break_glass, key, organization, role, service_account, session, user};
use crate::proto;
use crate::proto::PastTable as Table;

/// See `StateAtResponse` in `history.proto`. Of the tables, the one that was asked for is there.
#[derive(Serialize)]
pub(in crate::cli) struct Past {
    at: Option<String>,
    revisions: Vec<StreamRevision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Key>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<Role>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<Vec<Grant>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<User>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_accounts: Option<Vec<ServiceAccount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Vec<Session>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    break_glass_grants: Option<Vec<BreakGlassGrant>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<Organization>,
    used_since: Vec<String>,
    events: Vec<PastEvent>,
    next_page_token: String,
    work_limit_reached: bool,
    #[serde(skip)]
    table: Table,
    /// The same, as it came: lists for people are made from it.
    #[serde(skip)]
    message: proto::StateAtResponse,
}

/// See `PastEvent`.
#[derive(Serialize)]
pub(super) struct PastEvent {
    revision: Option<StreamRevision>,
    event_id: String,
    at: Option<String>,
    action: String,
    actor: Option<Principal>,
    credential_id: String,
    sentence: String,
}

impl PastEvent {
    /// What was done.
    pub(super) fn action(&self) -> String {
        self.action.clone()
    }

    /// Which event it is.
    pub(super) fn id(&self) -> String {
        self.event_id.clone()
    }

    /// What was done, as people are told.
    pub(super) fn sentence(&self) -> String {
        self.sentence.clone()
    }

    /// Where it stands: its revision, in the organization's stream or the operator's.
    pub(super) fn place(&self) -> String {
        let text = self.revision.as_ref().map(StreamRevision::to_text).unwrap_or_default();
        match text.rsplit_once('=') {
            Some(("org-operator", revision)) => format!("operator {revision}"),
            Some((_, revision)) => revision.to_owned(),
            None => text,
        }
    }
}

impl From<proto::PastEvent> for PastEvent {
    fn from(message: proto::PastEvent) -> Self {
        Self {
            revision: message.revision.map(Into::into),
            event_id: message.event_id,
            at: instant(message.at),
            action: message.action,
            actor: message.actor.map(Into::into),
            credential_id: message.credential_id,
            sentence: message.sentence,
        }
    }
}

fn rows<M, V: From<M>>(wanted: bool, rows: Vec<M>) -> Option<Vec<V>> {
    wanted.then(|| rows.into_iter().map(Into::into).collect())
}

impl Past {
    pub(in crate::cli) fn new(table: Table, message: proto::StateAtResponse) -> Self {
        let whole = message.clone();
        let is = |wanted| table == wanted;
        Self {
            at: instant(message.at),
            revisions: message.revisions.into_iter().map(Into::into).collect(),
            keys: rows(is(Table::Keys), message.keys),
            roles: rows(is(Table::Roles), message.roles),
            grants: rows(is(Table::Grants), message.grants),
            users: rows(is(Table::Users), message.users),
            service_accounts: rows(is(Table::ServiceAccounts), message.service_accounts),
            sessions: rows(is(Table::Sessions), message.sessions),
            break_glass_grants: rows(is(Table::BreakGlassGrants), message.break_glass_grants),
            organization: message.organization.map(Into::into),
            used_since: message.used_since,
            events: message.events.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            work_limit_reached: message.work_limit_reached,
            table,
            message: whole,
        }
    }

    /// Rows of the table.
    fn table_rows(&self) -> usize {
        let Self { message: it, .. } = self;
        let rows = [
            it.keys.len(),
            it.roles.len(),
            it.grants.len(),
            it.users.len(),
            it.service_accounts.len(),
            it.sessions.len(),
            it.break_glass_grants.len(),
            usize::from(it.organization.is_some()),
        ];
        rows.iter().sum()
    }

    /// For people: the rows as lists show them, and what happened to the one that was asked for.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut text = if self.table_rows() == 0 { String::new() } else { self.rows_text() };
        if !self.events.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&table_within_terminal(
                ["TIME", "WHAT HAPPENED"],
                self.events
                    .iter()
                    .map(|it| [vec![it.at.clone().unwrap_or_default()], vec![it.sentence.clone()]]),
            ));
        }
        text
    }

    fn rows_text(&self) -> String {
        let it = self.message.clone();
        let none = String::new;
        match self.table {
            Table::Unspecified => none(),
            Table::Keys => {
                let keys = it.keys;
                let listed = proto::ListKeysResponse { keys, ..Default::default() };
                key::Listed::from(listed).last_used_unknown(&it.used_since).to_text()
            }
            Table::Roles => {
                let roles = it.roles;
                role::Listed::from(proto::ListRolesResponse { roles, ..Default::default() })
                    .to_text()
            }
            Table::Grants => {
                let grants = it.grants;
                let listed = proto::ListGrantsResponse { grants, ..Default::default() };
                role::ListedGrants::from(listed).to_text()
            }
            Table::Users => {
                let users = it.users;
                user::Listed::from(proto::ListUsersResponse { users, ..Default::default() })
                    .to_text()
            }
            Table::ServiceAccounts => {
                let service_accounts = it.service_accounts;
                let listed =
                    proto::ListServiceAccountsResponse { service_accounts, ..Default::default() };
                service_account::Listed::from(listed).to_text()
            }
            Table::Sessions => {
                let sessions = it.sessions;
                session::Listed::from(proto::ListSessionsResponse {
                    sessions,
                    ..Default::default()
                })
                .to_text()
            }
            Table::BreakGlassGrants => {
                let grants = it.break_glass_grants;
                let listed = proto::ListBreakGlassGrantsResponse { grants, ..Default::default() };
                break_glass::Listed::from(listed).to_text()
            }
            Table::Organization => {
                let organization = it.organization;
                let got = proto::GetOrganizationResponse { organization, ..Default::default() };
                organization::Got::from(got).to_text()
            }
        }
    }

    /// What is told beside the rows: of when they are, and what is not known.
    pub(in crate::cli) fn talk(&self) -> String {
        let mut talk = format!("as of {}\n", self.at.as_deref().unwrap_or_default());
        for read in &self.revisions {
            talk.push_str(&format!("read up to {}\n", safe(&read.to_text())));
        }
        if !self.used_since.is_empty() {
            talk.push_str(&format!(
                "when {} had last been used by then is not known: they were used since\n",
                super::super::output::counted(self.used_since.len()).0
            ));
        }
        talk
    }
}

impl Page for Past {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.table_rows() + self.events.len()
    }

    fn join(&mut self, later: Self) {
        fn join<T>(one: &mut Option<Vec<T>>, two: Option<Vec<T>>) {
            if let (Some(one), Some(two)) = (one, two) {
                one.extend(two);
            }
        }
        let events = !later.events.is_empty() || !self.events.is_empty();
        self.events.extend(later.events);
        self.next_page_token = later.next_page_token;
        self.work_limit_reached = later.work_limit_reached;
        if events {
            return;
        }
        join(&mut self.keys, later.keys);
        join(&mut self.roles, later.roles);
        join(&mut self.grants, later.grants);
        join(&mut self.users, later.users);
        join(&mut self.service_accounts, later.service_accounts);
        join(&mut self.sessions, later.sessions);
        join(&mut self.break_glass_grants, later.break_glass_grants);
        self.used_since.extend(later.used_since);
        let (one, two) = (&mut self.message, later.message);
        one.keys.extend(two.keys);
        one.roles.extend(two.roles);
        one.grants.extend(two.grants);
        one.users.extend(two.users);
        one.service_accounts.extend(two.service_accounts);
        one.sessions.extend(two.sessions);
        one.break_glass_grants.extend(two.break_glass_grants);
    }
}

/// See `ExplainDecisionResponse` in `history.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct Explained {
    pub(in crate::cli) decision: Option<Decision>,
    at: Option<String>,
    reason: String,
    links: Vec<Link>,
    rate_limits_left_out: bool,
    links_complete: bool,
}

/// See `DecisionLink`.
#[derive(Serialize)]
struct Link {
    event: Option<PastEvent>,
    fact: String,
    decides: bool,
}

impl From<proto::ExplainDecisionResponse> for Explained {
    fn from(message: proto::ExplainDecisionResponse) -> Self {
        let link = |it: proto::DecisionLink| Link {
            event: it.event.map(Into::into),
            fact: it.fact,
            decides: it.decides,
        };
        Self {
            decision: message.decision.map(Into::into),
            at: instant(message.at),
            reason: message.reason,
            links: message.links.into_iter().map(link).collect(),
            rate_limits_left_out: message.rate_limits_left_out,
            links_complete: message.links_complete,
        }
    }
}

impl Explained {
    /// Whether the credential could do all that was asked.
    pub(in crate::cli) fn allowed(&self) -> bool {
        self.decision.as_ref().is_some_and(|it| it.allowed)
    }

    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let colour = if self.allowed() { Colour::Green } else { Colour::Red };
        let code = self.decision.as_ref().map(Decision::code).unwrap_or_default();
        let code = coloured(&safe(&code.to_uppercase()), colour);
        let mut text = format!("{code}: {}\n", safe(&self.reason));
        let mut fields = Fields::default();
        fields.add_some("as of", self.at.as_ref());
        if let Some(decision) = &self.decision {
            decision.describe(&mut fields);
        }
        text.push_str(&fields.to_text());
        if !self.links.is_empty() {
            text.push('\n');
            text.push_str(&table(
                ["", "TIME", "EVENT", "FACT"],
                self.links.iter().map(|it| {
                    let event = it.event.as_ref();
                    [
                        if it.decides { "→".to_owned() } else { String::new() },
                        event.and_then(|it| it.at.clone()).unwrap_or_default(),
                        event.map(|it| it.action.clone()).unwrap_or_default(),
                        it.fact.clone(),
                    ]
                }),
            ));
        }
        text
    }

    /// What is told beside it.
    pub(in crate::cli) fn talk(&self) -> String {
        let mut talk = "rate limits are no part of this\n".to_owned();
        if !self.links_complete {
            talk.push_str("more events may have made it so, further back than one request looks\n");
        }
        talk
    }
}

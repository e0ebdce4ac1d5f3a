//! StateAt: a table as it was.

use std::collections::VecDeque;
use std::sync::Arc;

use projections::activity::Filter;
use projections::event::WayOfReading;
use projections::id::{
    BreakGlassGrantId, GrantId, KeyId, OrganizationId, RoleId, ServiceAccountId, SessionId, UserId,
};
use projections::recorded::Revision;
use projections::time::Timestamp;
use prost::Message;
use tonic::{Request, Status};

use super::{account_revision, asked, failed, instant, no_moment, past_event, revisions};
use crate::ledger::Ledger;
use crate::ledger::activity::{Direction, Step, Walk};
use crate::ledger::history::{Moment, Past, Places};
use crate::ledger::tables::Published;
use crate::proto;
use crate::proto::PastTable as Table;
use crate::proto::state_at_request::Moment as Wire;
use crate::services::organization::users;
use crate::services::reading::Reading;
use crate::services::role::is_known_in;
use crate::services::warnings::Measure;
use crate::services::{break_glass, key, page, read, session, status, write};

/// Answers StateAt.
pub(in crate::services) async fn state_at(
    ledger: &Arc<Ledger>,
    request: &Request<proto::StateAtRequest>,
) -> Result<proto::StateAtResponse, Status> {
    let message = request.get_ref();
    let (reader, organization) = asked(ledger, request, &message.organization_id)?;
    let query = Query::read(message, organization.id)?;
    let (position, inner) = Position::split(&message.page_token)?;
    let (places, at) = match position {
        Some(Position { places, at }) => (places, at),
        None => {
            let found = ledger.places(&organization, query.moment).await;
            found.map_err(|error| failed(&organization, error))?
        }
    };
    let position = Position { places, at };
    let list = query.list(ledger, &organization, message, &position);
    let after = list.continue_behind(inner)?;
    let past = ledger.past(&organization, places, at).await;
    let past = past.map_err(|error| failed(&organization, error))?;
    let mut page = Page::new(&query, revisions(&organization, &past), at);
    let last = match &query.object {
        None => page.fill(ledger, &organization, &past, query.table, after).await?,
        Some(object) => {
            page.fill_one(ledger, &organization, &past, object).await?;
            let behind = after.map(from_token);
            page.fill_events(ledger, &organization, &past, (object, behind)).await?
        }
    };
    let mut answer = page.answer;
    answer.next_page_token = last.map(|last| position.token(&list, last)).unwrap_or_default();
    reading(message).record(ledger, request, &reader, &organization).await?;
    Ok(answer)
}

/// What is recorded of whoever asks this.
fn reading(message: &proto::StateAtRequest) -> Reading {
    let table = message.table().as_str_name().trim_start_matches("PAST_TABLE_");
    let reading = Reading::new(WayOfReading::AskedForThePast)
        .asking("table", table.to_ascii_lowercase())
        .asking("object_id", &message.object_id);
    match &message.moment {
        Some(Wire::At(at)) => reading.asking_at("at", Some(at)),
        Some(Wire::Revision(revision)) => reading.asking("revision", revision),
        None => reading,
    }
}

/// A request, read.
struct Query {
    moment: Moment,
    table: Table,
    object: Option<Object>,
    rows_max: usize,
}

/// One row of a table.
enum Object {
    Key(KeyId),
    Role(RoleId),
    Grant(GrantId),
    User(UserId),
    ServiceAccount(ServiceAccountId),
    Session(SessionId),
    BreakGlassGrant(BreakGlassGrantId),
    Organization(OrganizationId),
}

impl Object {
    fn read(table: Table, text: &str, own: OrganizationId) -> Result<Option<Self>, Status> {
        fn id<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Status> {
            read::field("object_id", text)
        }
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(match table {
            Table::Unspecified => return Err(no_table()),
            Table::Keys => Self::Key(id(text)?),
            Table::Roles => Self::Role(id(text)?),
            Table::Grants => Self::Grant(id(text)?),
            Table::Users => Self::User(id(text)?),
            Table::ServiceAccounts => Self::ServiceAccount(id(text)?),
            Table::Sessions => Self::Session(id(text)?),
            Table::BreakGlassGrants => Self::BreakGlassGrant(id(text)?),
            Table::Organization => match id(text)? {
                named if named == own => Self::Organization(named),
                _ => {
                    let problem = "must be the organization that is asked about, or nothing";
                    return Err(status::invalid("object_id", problem));
                }
            },
        }))
    }

    /// What events about it name.
    fn targets(&self) -> Vec<String> {
        match self {
            Self::Key(id) => vec![id.text()],
            Self::Role(id) => vec![id.text()],
            Self::Grant(id) => vec![id.text()],
            Self::User(id) => vec![id.text()],
            Self::ServiceAccount(id) => vec![id.text()],
            Self::Session(id) => vec![id.text()],
            Self::BreakGlassGrant(id) => vec![id.text()],
            Self::Organization(id) => vec![id.text(), "policy".to_owned()],
        }
    }
}

fn no_table() -> Status {
    status::invalid("table", "must be given")
}

impl Query {
    fn read(message: &proto::StateAtRequest, own: OrganizationId) -> Result<Self, Status> {
        let moment = match &message.moment {
            None => return Err(no_moment()),
            Some(Wire::At(at)) => Moment::At(instant("at", at)?),
            Some(Wire::Revision(revision)) => Moment::Behind(Revision(*revision)),
        };
        let table = match Table::try_from(message.table) {
            Ok(Table::Unspecified) => return Err(no_table()),
            Ok(table) => table,
            Err(_) => return Err(status::invalid("table", "is no known table")),
        };
        let object = Object::read(table, &message.object_id, own)?;
        Ok(Self { moment, table, object, rows_max: page::size(message.page_size)? })
    }

    /// What a page token is bound to.
    fn list<'a>(
        &self,
        ledger: &'a Ledger,
        organization: &Published,
        message: &proto::StateAtRequest,
        position: &Position,
    ) -> page::List<'a> {
        let moment = match self.moment {
            Moment::At(at) => format!("at {at}"),
            Moment::Behind(revision) => format!("behind {revision}"),
        };
        let parameters = [
            organization.stream.as_str(),
            &moment,
            self.table.as_str_name(),
            &message.object_id,
            &position.text(),
        ];
        page::List::new(ledger.stamper(), "StateAt", &parameters)
    }
}

/// Where in the streams the first page was read: all that follow are read there. It stands in
/// front of their tokens, whose seals hold it.
struct Position {
    places: Places,
    at: Timestamp,
}

impl Position {
    fn text(&self) -> String {
        let Places { revision, operator } = self.places;
        let operator = operator.map(|it| it.to_string()).unwrap_or_default();
        format!("{revision}.{operator}.{}", self.at.as_millis())
    }

    fn token(&self, list: &page::List<'_>, last: [u8; 16]) -> String {
        format!("{}.{}", self.text(), list.token(last))
    }

    /// A token's position, and the rest of it. Whether both go together is the seal's to say.
    fn split(token: &str) -> Result<(Option<Self>, &str), Status> {
        if token.is_empty() {
            return Ok((None, ""));
        }
        let read = || {
            let mut parts = token.splitn(4, '.');
            let revision = Revision(parts.next()?.parse().ok()?);
            let operator = match parts.next()? {
                "" => None,
                text => Some(Revision(text.parse().ok()?)),
            };
            let at = Timestamp::from_millis(parts.next()?.parse().ok()?)?;
            let inner = parts.next().filter(|it| !it.is_empty())?;
            Some((Self { places: Places { revision, operator }, at }, inner))
        };
        let (position, inner) = read().ok_or_else(page::foreign_token)?;
        Ok((Some(position), inner))
    }
}

fn to_token(revision: Revision) -> [u8; 16] {
    u128::from(revision.0).to_be_bytes()
}

fn from_token(bytes: [u8; 16]) -> Revision {
    // Only what `to_token` made has a seal.
    Revision(u64::try_from(u128::from_be_bytes(bytes)).unwrap_or(u64::MAX))
}

/// A page that is being filled.
struct Page {
    answer: proto::StateAtResponse,
    rows_max: usize,
    rows: usize,
    looked: usize,
    bytes: usize,
}

impl Page {
    fn new(query: &Query, revisions: Vec<proto::StreamRevision>, at: Timestamp) -> Self {
        let at = Some(write::timestamp(at));
        let answer = proto::StateAtResponse { at, revisions, ..Default::default() };
        Self { answer, rows_max: query.rows_max, rows: 0, looked: 0, bytes: 0 }
    }

    /// Counts a row that was looked at, and written if it was shown.
    fn count(&mut self, written: Option<&impl Message>) {
        self.looked += 1;
        self.rows += usize::from(written.is_some());
        self.bytes += written.map_or(0, Message::encoded_len);
    }

    fn is_full(&self) -> bool {
        self.rows >= self.rows_max
            || self.bytes >= page::PAGE_BYTES_MAX
            || self.looked >= page::PAGE_WORK_MAX
    }

    /// Adds rows until the page is full; whether more follow.
    fn take<R, M: Message>(
        &mut self,
        rows: impl Iterator<Item = R>,
        into: impl Fn(&mut proto::StateAtResponse) -> &mut Vec<M>,
        mut write: impl FnMut(&R) -> (Option<M>, [u8; 16]),
    ) -> Option<[u8; 16]> {
        let mut rows = rows.peekable();
        while let Some(row) = rows.next() {
            let (written, id) = write(&row);
            self.count(written.as_ref());
            into(&mut self.answer).extend(written);
            if self.is_full() && rows.peek().is_some() {
                return Some(id);
            }
        }
        None
    }

    /// The rows of a table behind one; gives the last one, where more follow.
    async fn fill(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        table: Table,
        after: Option<[u8; 16]>,
    ) -> Result<Option<[u8; 16]>, Status> {
        let Past { at, tables, operator } = past;
        let (id, now) = (organization.id, *at);
        Ok(match table {
            Table::Unspecified => return Err(no_table()),
            Table::Keys => {
                return self.fill_keys(ledger, organization, past, after).await;
            }
            Table::Roles => {
                let after = after.map(RoleId::from_bytes);
                // The identifiers of built-in roles come before all others.
                let built_in = operator.roles_after(after).filter(|it| it.built_in);
                let own = tables.roles_after(after).filter(|it| !it.built_in);
                let rows = built_in.filter(|it| is_known_in(it, tables)).chain(own);
                let write = |it: &&Arc<_>| (Some(write::role(it, id)), it.id.to_bytes());
                self.take(rows, |answer| &mut answer.roles, write)
            }
            Table::Grants => {
                let write = |it: &&Arc<projections::role::Grant>| {
                    let stood = it.stands(now).then(|| write::grant(it, tables, operator));
                    (stood, it.id.to_bytes())
                };
                let rows = tables.grants_after(after.map(GrantId::from_bytes));
                self.take(rows, |answer| &mut answer.grants, write)
            }
            Table::Users => {
                let rows = tables.users_after(after.map(UserId::from_bytes));
                let mut rows: VecDeque<_> = rows.take(self.rows_max + 1).cloned().collect();
                let more = rows.len() > self.rows_max;
                rows.truncate(self.rows_max);
                let shown = users::shown(ledger, id, rows.make_contiguous()).await?;
                let last = rows.back().filter(|_| more).map(|it| it.id.to_bytes());
                let rows = shown.into_iter().zip(rows);
                let write = |it: &(proto::User, Arc<_>)| {
                    let user: &projections::user::User = &it.1;
                    (Some(it.0.clone()), user.id.to_bytes())
                };
                self.take(rows, |answer| &mut answer.users, write).or(last)
            }
            Table::ServiceAccounts => {
                let rows = tables.service_accounts_after(after.map(ServiceAccountId::from_bytes));
                let write = |it: &&Arc<_>| {
                    (Some(write::service_account(it, tables, operator)), it.id.to_bytes())
                };
                self.take(rows, |answer| &mut answer.service_accounts, write)
            }
            Table::Sessions => {
                let mut rows = tables.sessions_after(after.map(SessionId::from_bytes)).peekable();
                while let Some(row) = rows.next() {
                    self.add_session(ledger, organization, past, row).await?;
                    if self.is_full() && rows.peek().is_some() {
                        return Ok(Some(row.id.to_bytes()));
                    }
                }
                None
            }
            Table::BreakGlassGrants => {
                let after = after.map(BreakGlassGrantId::from_bytes);
                let write =
                    |it: &&Arc<_>| (Some(break_glass::grant(it, id, now)), it.id.to_bytes());
                let rows = tables.break_glass_grants_after(after);
                self.take(rows, |answer| &mut answer.break_glass_grants, write)
            }
            Table::Organization => {
                self.add_organization(past);
                None
            }
        })
    }

    /// Keys in the tables, and those that had left them by then.
    async fn fill_keys(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        after: Option<[u8; 16]>,
    ) -> Result<Option<[u8; 16]>, Status> {
        let after = after.map(KeyId::from_bytes);
        let here = past.tables.keys_after(after);
        let mut rows = key::Rows::new(ledger, organization, here, after, true);
        let mut measure = Measure::new(&past.tables, &past.operator, past.at);
        while let Some(row) = rows.next().await? {
            let was = past.tables.key(row.key.id).is_some();
            if was || past.had_lost(&row.key) {
                self.add_key(ledger, organization, past, row.clone(), &mut measure).await?;
            } else {
                self.count(None::<&proto::Key>);
            }
            if self.looked.is_multiple_of(key::KEYS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            if self.is_full() && rows.peek().await?.is_some() {
                return Ok(Some(row.key.id.to_bytes()));
            }
        }
        Ok(None)
    }

    async fn add_key(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        mut row: crate::ledger::dead::KeyRow,
        measure: &mut Measure<'_>,
    ) -> Result<(), Status> {
        if organization.tables().key(row.key.id).is_none() {
            // It left the tables since: when it was last used is kept elsewhere.
            let dead = ledger.dead_key(organization, row.key.id).await;
            let dead = dead.map_err(|error| status::from_dead_keys(&error))?;
            row.last_used = dead.and_then(|it| it.last_used).or(row.last_used);
        }
        // Uses are known by their seconds: one within this second may have come later.
        let second_over = |last: Timestamp| last.saturating_add_millis(1_000) <= past.at;
        if row.last_used.is_some_and(|last| !second_over(last)) {
            row.last_used = None;
            self.answer.used_since.push(row.key.id.text());
        }
        let written = key::write_row(&row, measure);
        self.count(Some(&written));
        self.answer.keys.push(written);
        Ok(())
    }

    async fn add_session(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        row: &projections::session::Session,
    ) -> Result<(), Status> {
        let account = ledger.past_account(row.account_id, past.at).await;
        let account = account.map_err(|error| failed(organization, error))?;
        let read = account.as_deref().and_then(account_revision);
        if let Some(read) = read.filter(|it| !self.answer.revisions.contains(it)) {
            self.answer.revisions.push(read);
        }
        let account = account.as_deref();
        let written = session::write_session(row, account, organization.id, past.at, None);
        self.count(Some(&written));
        self.answer.sessions.push(written);
        Ok(())
    }

    fn add_organization(&mut self, past: &Past) {
        let profile = past.tables.profile();
        self.answer.organization = profile.map(|profile| {
            write::organization(past.tables.id, profile, Some(past.tables.policy()))
        });
    }

    /// One row, if there was such a one.
    async fn fill_one(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        object: &Object,
    ) -> Result<(), Status> {
        let Past { at, tables, operator } = past;
        let id = organization.id;
        match object {
            Object::Key(key) => {
                let mut measure = Measure::new(tables, operator, *at);
                let row = match tables.key(*key) {
                    Some(row) => Some(ledger.row(Arc::clone(row))),
                    None => {
                        let dead = ledger.dead_key(organization, *key).await;
                        let dead = dead.map_err(|error| status::from_dead_keys(&error))?;
                        dead.filter(|row| past.had_lost(&row.key))
                    }
                };
                if let Some(row) = row {
                    self.add_key(ledger, organization, past, row, &mut measure).await?;
                }
            }
            Object::Role(role) => {
                let found = tables.role(*role).or_else(|| operator.built_in_role(*role));
                let found = found.filter(|it| is_known_in(it, tables));
                self.answer.roles.extend(found.map(|it| write::role(it, id)));
            }
            Object::Grant(grant) => {
                let found = tables.grant(*grant).filter(|it| it.stands(*at));
                let found = found.map(|it| write::grant(it, tables, operator));
                self.answer.grants.extend(found);
            }
            Object::User(user) => {
                let found: Vec<_> = tables.user(*user).cloned().into_iter().collect();
                self.answer.users = users::shown(ledger, id, &found).await?;
            }
            Object::ServiceAccount(account) => {
                let found = tables.service_account(*account);
                let found = found.map(|it| write::service_account(it, tables, operator));
                self.answer.service_accounts.extend(found);
            }
            Object::Session(session) => {
                if let Some(row) = tables.session(*session) {
                    self.add_session(ledger, organization, past, row).await?;
                }
            }
            Object::BreakGlassGrant(grant) => {
                let found = tables.break_glass_grant(*grant);
                let found = found.map(|it| break_glass::grant(it, id, *at));
                self.answer.break_glass_grants.extend(found);
            }
            Object::Organization(_) => self.add_organization(past),
        }
        Ok(())
    }

    /// What happened to an object until then, behind this event; gives the place behind which
    /// more follow, where more do.
    async fn fill_events(
        &mut self,
        ledger: &Ledger,
        organization: &Published,
        past: &Past,
        (object, behind): (&Object, Option<Revision>),
    ) -> Result<Option<[u8; 16]>, Status> {
        let Some(head) = past.tables.head() else { return Ok(None) };
        let filter = |target| Filter { target: Some(target), ..Filter::default() };
        let filters: Vec<Filter> = object.targets().into_iter().map(filter).collect();
        let direction = Direction::NewestFirst;
        let walk = Walk::new(ledger, organization, head, direction, self.rows_max);
        // An index finds what has all of some terms, not what has one of several.
        let mut walk = walk.looking_for(match filters.as_slice() {
            [one] => one.terms(),
            _ => Vec::new(),
        });
        if let Some(last) = behind {
            walk.continue_behind(last);
        }
        let mut bytes = 0;
        while self.answer.events.len() < self.rows_max && bytes < page::PAGE_BYTES_MAX {
            match walk.step().await.map_err(|error| status::from_read(&error))? {
                Step::Event(revision, envelope) => {
                    if filters.iter().any(|it| it.shows(&envelope)) {
                        let event =
                            past_event(&organization.stream, revision, &envelope, &past.tables);
                        bytes += event.encoded_len();
                        self.answer.events.push(event);
                    }
                }
                Step::End => return Ok(None),
                Step::WorkLimit => {
                    self.answer.work_limit_reached = true;
                    break;
                }
            }
        }
        Ok(walk.left_at().map(to_token))
    }
}

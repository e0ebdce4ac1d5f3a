//! Who holds what: all that roles, grants and scopes come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use projections::id::{GrantId, KeyId, RoleId, ServiceAccountId, UserId};
use projections::key::{Key, KeyState};
use projections::organization::Organization;
use projections::permission::{Permission, PermissionPattern};
use projections::principal::Owner;
use projections::role::{Grant, Role};
use projections::verification::Authority;
use prost::Message as _;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::rejection::Rejection;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::{page, read, status, write};

/// What a service account, a user or a key may do now.
pub(super) async fn effective(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::EffectivePermissionsRequest,
) -> Result<proto::EffectivePermissionsResponse, Status> {
    use proto::effective_permissions_request::Subject;
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.now_for(&tables);
    let (subject, authority) = match &message.subject {
        None => return Err(status::invalid("subject", "name a service account, a user or a key")),
        Some(Subject::ServiceAccountId(text)) => {
            let id: ServiceAccountId = read::field("service_account_id", text)?;
            if tables.service_account(id).is_none() {
                return Err(status::rejected(&Rejection::ServiceAccountNotFound(id)));
            }
            (text, Some(Authority::of_owner(id.into(), &tables, &operator, now)))
        }
        Some(Subject::UserId(text)) => {
            let id: UserId = read::field("user_id", text)?;
            let user = tables.user(id);
            let user = user.ok_or_else(|| status::rejected(&Rejection::UserNotFound(id)))?;
            let in_force = user.is_in_force();
            let authority =
                in_force.then(|| Authority::of_owner(id.into(), &tables, &operator, now));
            (text, authority)
        }
        Some(Subject::KeyId(text)) => {
            let id: KeyId = read::field("key_id", text)?;
            let authority = match tables.key(id) {
                Some(key) => (key.state(now) == KeyState::Active && owner_in_force(key, &tables))
                    .then(|| Authority::of(key, &tables, &operator, now)),
                None => {
                    let dead = ledger.dead_key(organization, id).await;
                    let dead = dead.map_err(|error| status::from_dead_keys(&error))?;
                    dead.map(|_| None).ok_or_else(|| status::key_not_found(id))?
                }
            };
            (text, authority)
        }
    };
    let parameters = [organization.stream.as_str(), subject];
    let list = |kind| page::List::new(ledger.stamper(), kind, &parameters);
    let lists = (list("EffectivePermissions roles"), list("EffectivePermissions grants"));
    let behind = Behind::of(&lists, &message.page_token)?;
    let mut page = EffectivePage { rows: Vec::new(), bytes: 0, next: String::new() };
    if let Some(authority) = &authority {
        page.fill(authority, behind, &lists);
    }
    Ok(proto::EffectivePermissionsResponse {
        in_force: authority.is_some(),
        permissions: page.rows,
        revision: write::revision(&organization.stream, tables.revision()),
        next_page_token: page.next,
    })
}

/// Whether whoever a key belongs to may use it: a user who is suspended may not.
fn owner_in_force(key: &Key, tables: &Organization) -> bool {
    match key.owner() {
        Some(Owner::User(id)) => tables.user(id).is_some_and(|user| user.is_in_force()),
        Some(Owner::ServiceAccount(_)) | None => true,
    }
}

/// What a page comes behind: the roles that are had for good are first, then grants.
#[derive(Clone, Copy)]
enum Behind {
    Start,
    Role(RoleId),
    Grant(GrantId),
}

impl Behind {
    /// A token is of one of both lists; where it is of neither, the second says so.
    fn of(lists: &(page::List<'_>, page::List<'_>), token: &str) -> Result<Self, Status> {
        Ok(match lists.0.continue_behind(token) {
            Ok(None) => Self::Start,
            Ok(Some(role)) => Self::Role(RoleId::from_bytes(role)),
            Err(_) => match lists.1.continue_behind(token)? {
                None => Self::Start,
                Some(grant) => Self::Grant(GrantId::from_bytes(grant)),
            },
        })
    }
}

/// A page of permissions that is being filled. It ends behind the role or grant with which it
/// is full: what one of them permits is at most a hundred rows.
struct EffectivePage {
    rows: Vec<proto::EffectivePermission>,
    bytes: usize,
    next: String,
}

impl EffectivePage {
    /// Every permission with everything that lets it be held.
    fn fill(
        &mut self,
        authority: &Authority<'_>,
        behind: Behind,
        lists: &(page::List<'_>, page::List<'_>),
    ) {
        let scopes = authority.narrowing_scopes();
        if let Some(scopes) = scopes.filter(|_| !authority.has_roles()) {
            self.rows.extend(scopes.texts().map(|text| held(text, None, None)));
            return;
        }
        // A role is had for good once; a grant has its place for good, too.
        let mut fixed: Vec<&Role> = authority.fixed_roles().collect();
        fixed.sort_by_key(|role| role.id);
        let roles = fixed.into_iter().map(|role| (None, role));
        let granted = authority.grants().map(|(grant, role)| (Some(grant), role));
        let follows = |grant: Option<&Grant>, role: &Role| match (behind, grant) {
            (Behind::Start, _) | (Behind::Role(_), Some(_)) => true,
            (Behind::Role(last), None) => role.id > last,
            (Behind::Grant(last), Some(grant)) => grant.id > last,
            (Behind::Grant(_), None) => false,
        };
        let sources = roles.chain(granted).filter(|(grant, role)| follows(*grant, role));
        let mut sources = sources.peekable();
        while let Some((grant, role)) = sources.next() {
            match scopes {
                Some(scopes) => {
                    let named = scopes.iter().zip(scopes.texts());
                    let permitted = named.filter(|(scope, _)| role.implies(*scope));
                    permitted.for_each(|(_, text)| self.add(held(text, grant, Some(role))));
                }
                None => {
                    let texts = role.permissions().iter().map(PermissionPattern::as_str);
                    texts.for_each(|text| self.add(held(text, grant, Some(role))));
                }
            }
            if self.bytes >= page::PAGE_BYTES_MAX && sources.peek().is_some() {
                self.next = match grant {
                    Some(grant) => lists.1.token(grant.id.to_bytes()),
                    None => lists.0.token(role.id.to_bytes()),
                };
                return;
            }
        }
    }

    fn add(&mut self, row: proto::EffectivePermission) {
        self.bytes += row.encoded_len();
        self.rows.push(row);
    }
}

/// The roles that somebody has, each with the grant by which.
fn sources<'a>(
    authority: &Authority<'a>,
) -> impl Iterator<Item = (Option<&'a Grant>, &'a Role)> + use<'a> {
    let granted = authority.grants().map(|(grant, role)| (Some(grant), role));
    authority.fixed_roles().map(|role| (None, role)).chain(granted)
}

fn held(text: &str, grant: Option<&Grant>, role: Option<&Role>) -> proto::EffectivePermission {
    let terms = grant.map(|grant| &grant.terms);
    proto::EffectivePermission {
        permission: text.to_owned(),
        role: role.map(write::role_reference),
        grant_id: grant.map(|grant| grant.id.text()).unwrap_or_default(),
        domain: terms
            .and_then(|it| it.domain.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        expires_at: terms.and_then(|it| it.expires_at).map(write::timestamp),
    }
}

/// Where a page of holders begins: the lists follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Accounts,
    Users,
    Keys,
}

/// A page of those who hold a permission now.
pub(super) fn who_holds(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::WhoHoldsRequest,
) -> Result<proto::WhoHoldsResponse, Status> {
    let wanted = Permission::parse(&message.permission)
        .map_err(|error| status::invalid("permission", error))?;
    let rows_max = page::size(message.page_size)?;
    let permission = wanted.to_string();
    let parameters = [organization.stream.as_str(), &permission];
    let list = |kind| page::List::new(ledger.stamper(), kind, &parameters);
    let (accounts, users, keys) =
        (list("WhoHolds accounts"), list("WhoHolds users"), list("WhoHolds keys"));
    let token = &message.page_token;
    // A token is of one of the lists; where it is of none, the last says so.
    let (from, after) = match (accounts.continue_behind(token), users.continue_behind(token)) {
        (Ok(after), _) => (Of::Accounts, after),
        (Err(_), Ok(after)) => (Of::Users, after),
        (Err(_), Err(_)) => (Of::Keys, keys.continue_behind(token)?),
    };
    let behind = |of: Of| if of == from { after } else { None };
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.now_for(&tables);
    let mut page = Page { wanted, rows_max, holders: Vec::new(), looked: 0, bytes: 0 };
    let mut next_page_token = None;
    if from == Of::Accounts {
        let after = behind(Of::Accounts).map(ServiceAccountId::from_bytes);
        for account in tables.service_accounts_after(after) {
            let authority = Authority::of_owner(account.id.into(), &tables, &operator, now);
            let id = proto::holder::Holder::ServiceAccountId(account.id.text());
            if page.look(Some((&authority, id, account.name.as_str()))) {
                next_page_token = Some(accounts.token(account.id.to_bytes()));
                break;
            }
        }
    }
    if next_page_token.is_none() && from <= Of::Users {
        for user in tables.users_after(behind(Of::Users).map(UserId::from_bytes)) {
            let authority = Authority::of_owner(user.id.into(), &tables, &operator, now);
            let id = proto::holder::Holder::UserId(user.id.text());
            if page.look(Some((&authority, id, ""))) {
                next_page_token = Some(users.token(user.id.to_bytes()));
                break;
            }
        }
    }
    if next_page_token.is_none() {
        let mut rows = tables.keys_after(behind(Of::Keys).map(KeyId::from_bytes)).peekable();
        while let Some(key) = rows.next() {
            let counts = key.owner().is_none() && key.state(now) == KeyState::Active;
            let authority = Authority::of(key, &tables, &operator, now);
            let id = || proto::holder::Holder::KeyId(key.id.text());
            let row = counts.then(|| (&authority, id(), key.name.as_str()));
            if page.look(row) && rows.peek().is_some() {
                next_page_token = Some(keys.token(key.id.to_bytes()));
                break;
            }
        }
    }
    Ok(proto::WhoHoldsResponse {
        holders: page.holders,
        next_page_token: next_page_token.unwrap_or_default(),
        revision: write::revision(&organization.stream, tables.revision()),
    })
}

/// A page that is being filled.
struct Page<'a> {
    wanted: Permission<'a>,
    rows_max: usize,
    holders: Vec<proto::Holder>,
    looked: usize,
    bytes: usize,
}

impl Page<'_> {
    /// Looks at a row; whether the page ends with it.
    fn look(&mut self, row: Option<(&Authority<'_>, proto::holder::Holder, &str)>) -> bool {
        self.looked += 1;
        let found = row.and_then(|(authority, id, name)| holder(authority, self.wanted, id, name));
        self.bytes += found.as_ref().map_or(0, proto::Holder::encoded_len);
        self.holders.extend(found);
        self.holders.len() >= self.rows_max
            || self.bytes >= page::PAGE_BYTES_MAX
            || self.looked >= page::PAGE_WORK_MAX
    }
}

/// How somebody holds a permission; none where they do not.
fn holder(
    authority: &Authority<'_>,
    wanted: Permission<'_>,
    id: proto::holder::Holder,
    name: &str,
) -> Option<proto::Holder> {
    let everywhere = authority.holds(wanted);
    if !everywhere && !authority.holds_for_a_domain(wanted) {
        return None;
    }
    let permit: Vec<_> = sources(authority).filter(|(_, role)| role.implies(wanted)).collect();
    let domains: BTreeSet<&str> = permit
        .iter()
        .filter_map(|(grant, _)| grant.and_then(|it| it.terms.domain.as_ref()))
        .map(|domain| domain.as_str())
        .collect();
    let mut roles: Vec<&Role> = Vec::new();
    for (_, role) in permit {
        if !roles.iter().any(|it| it.id == role.id) {
            roles.push(role);
        }
    }
    Some(proto::Holder {
        holder: Some(id),
        name: name.to_owned(),
        everywhere,
        domains: domains.into_iter().map(str::to_owned).collect(),
        roles: roles.into_iter().map(write::role_reference).collect(),
    })
}

//! Who holds what: all that roles, grants and scopes come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use projections::id::{KeyId, ServiceAccountId};
use projections::key::KeyState;
use projections::permission::{Permission, PermissionPattern};
use projections::role::{Grant, Role};
use projections::verification::Authority;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::rejection::Rejection;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::{page, read, status, write};

/// What a service account or a key may do now.
pub(super) async fn effective(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::EffectivePermissionsRequest,
) -> Result<proto::EffectivePermissionsResponse, Status> {
    use proto::effective_permissions_request::Subject;
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.clock().now();
    let authority = match &message.subject {
        None => return Err(status::invalid("subject", "name a service account or a key")),
        Some(Subject::ServiceAccountId(id)) => {
            let id: ServiceAccountId = read::field("service_account_id", id)?;
            if tables.service_account(id).is_none() {
                return Err(status::rejected(&Rejection::ServiceAccountNotFound(id)));
            }
            Some(Authority::of_owner(id.into(), &tables, &operator, now))
        }
        Some(Subject::KeyId(id)) => {
            let id: KeyId = read::field("key_id", id)?;
            match tables.key(id) {
                Some(key) => (key.state(now) == KeyState::Active)
                    .then(|| Authority::of(key, &tables, &operator, now)),
                None => {
                    let dead = ledger.dead_key(organization, id).await;
                    let dead = dead.map_err(|error| status::from_dead_keys(&error))?;
                    dead.map(|_| None).ok_or_else(|| status::key_not_found(id))?
                }
            }
        }
    };
    Ok(proto::EffectivePermissionsResponse {
        in_force: authority.is_some(),
        permissions: authority.as_ref().map(all).unwrap_or_default(),
        revision: write::revision(&organization.stream, tables.revision()),
    })
}

/// The roles that somebody has, each with the grant by which.
fn sources<'a>(
    authority: &Authority<'a>,
) -> impl Iterator<Item = (Option<&'a Grant>, &'a Role)> + use<'a> {
    let granted = authority.grants().map(|(grant, role)| (Some(grant), role));
    authority.fixed_roles().map(|role| (None, role)).chain(granted)
}

/// Every permission with everything that lets it be held.
fn all(authority: &Authority<'_>) -> Vec<proto::EffectivePermission> {
    let Some(scopes) = authority.narrowing_scopes() else {
        let by_roles = sources(authority).flat_map(|(grant, role)| {
            let texts = role.permissions().iter().map(PermissionPattern::as_str);
            texts.map(move |text| held(text, grant, Some(role)))
        });
        return by_roles.collect();
    };
    if !authority.has_roles() {
        return scopes.texts().map(|text| held(text, None, None)).collect();
    }
    let mut rows = Vec::new();
    for (scope, text) in scopes.iter().zip(scopes.texts()) {
        let permit = sources(authority).filter(|(_, role)| role.implies(scope));
        rows.extend(permit.map(|(grant, role)| held(text, grant, Some(role))));
    }
    rows
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
    let accounts = page::List::new(ledger.stamper(), "WhoHolds accounts", &parameters);
    let keys = page::List::new(ledger.stamper(), "WhoHolds keys", &parameters);
    // A token is of one of both lists; where it is of neither, the second says so.
    let (after_account, after_key) = match accounts.continue_behind(&message.page_token) {
        Ok(after) => (Some(after.map(ServiceAccountId::from_bytes)), None),
        Err(_) => (None, keys.continue_behind(&message.page_token)?.map(KeyId::from_bytes)),
    };
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.clock().now();
    let mut page = Page { holders: Vec::new(), rows_max, looked: 0 };
    let mut next_page_token = None;
    for account in after_account.into_iter().flat_map(|after| tables.service_accounts_after(after))
    {
        let authority = Authority::of_owner(account.id.into(), &tables, &operator, now);
        let id = proto::holder::Holder::ServiceAccountId(account.id.text());
        if page.look(holder(&authority, wanted, id, account.name.as_str())) {
            next_page_token = Some(accounts.token(account.id.to_bytes()));
            break;
        }
    }
    if next_page_token.is_none() {
        let mut rows = tables.keys_after(after_key).peekable();
        while let Some(key) = rows.next() {
            let counts = key.owner().is_none() && key.state(now) == KeyState::Active;
            let found = counts.then(|| {
                let authority = Authority::of(key, &tables, &operator, now);
                let id = proto::holder::Holder::KeyId(key.id.text());
                holder(&authority, wanted, id, key.name.as_str())
            });
            if page.look(found.flatten()) && rows.peek().is_some() {
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
struct Page {
    holders: Vec<proto::Holder>,
    rows_max: usize,
    looked: usize,
}

impl Page {
    /// Counts a row that was looked at; whether the page ends with it.
    fn look(&mut self, found: Option<proto::Holder>) -> bool {
        self.looked += 1;
        self.holders.extend(found);
        self.holders.len() >= self.rows_max || self.looked >= page::PAGE_WORK_MAX
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

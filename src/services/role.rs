//! RoleService: roles of an organization, and who has them.

mod holding;

use std::sync::Arc;

use projections::envelope::Envelope;
use projections::event::{Event, RoleGranted};
use projections::id::{GrantId, RoleId};
use projections::organization::{Change, Organization};
use projections::principal::Principal;
use projections::role::{Grant, Role};
use tonic::{Request, Response, Status};

use super::authentication::authenticate;
use super::key::{begin, known};
use super::read::expiry;
use super::{Door, page, read, status, write};
use crate::ledger::built_in::OPERATOR_ADMIN;
use crate::ledger::command::{Command, CreateRole, GrantRole, Order, UpdateRole};
use crate::ledger::permissions::{ROLES_READ, ROLES_WRITE};
use crate::ledger::tables::Published;
use crate::ledger::{Executed, Ledger};
use crate::proto;
use crate::proto::role_service_server::RoleService;

/// The service.
pub struct Roles {
    door: Door,
}

impl Roles {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl RoleService for Roles {
    async fn create_role(
        &self,
        request: Request<proto::CreateRoleRequest>,
    ) -> Result<Response<proto::CreateRoleResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, ROLES_WRITE)?;
        let message = request.into_inner();
        let command = CreateRole {
            role_id: ledger.ids().role(ledger.clock().now()),
            name: read::field("name", &message.name)?,
            description: read::field("description", &message.description)?,
            permissions: read::role_permissions("permissions", &message.permissions)?,
        };
        let command = Command::CreateRole(Box::new(command));
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (role, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::CreateRoleResponse { role: Some(role), revision }))
    }

    async fn update_role(
        &self,
        request: Request<proto::UpdateRoleRequest>,
    ) -> Result<Response<proto::UpdateRoleResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, ROLES_WRITE)?;
        let message = request.into_inner();
        let permissions = message.permissions.as_ref().map(|it| &it.permissions);
        let permissions =
            permissions.map(|it| read::role_permissions("permissions.permissions", it));
        let command = UpdateRole {
            role_id: read::field("role_id", &message.role_id)?,
            name: read::optional("name", &message.name)?,
            description: read::optional("description", &message.description)?,
            permissions: permissions.transpose()?,
        };
        let command = Command::UpdateRole(Box::new(command));
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (role, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::UpdateRoleResponse { role: Some(role), revision }))
    }

    async fn retire_role(
        &self,
        request: Request<proto::RetireRoleRequest>,
    ) -> Result<Response<proto::RetireRoleResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, ROLES_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::RetireRole(read::field("role_id", &message.role_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (role, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::RetireRoleResponse { role: Some(role), revision }))
    }

    async fn get_role(
        &self,
        request: Request<proto::GetRoleRequest>,
    ) -> Result<Response<proto::GetRoleResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, ROLES_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        let id: RoleId = read::field("role_id", &message.role_id)?;
        let tables = Arc::clone(&organization.tables());
        let operator = ledger.tables().operator().tables();
        let found = role(&tables, &operator, id).ok_or_else(|| status::role_not_found(id))?;
        Ok(Response::new(proto::GetRoleResponse {
            role: Some(write::role(found, tables.id)),
            revision: write::revision(&organization.stream, tables.revision()),
        }))
    }

    async fn list_roles(
        &self,
        request: Request<proto::ListRolesRequest>,
    ) -> Result<Response<proto::ListRolesResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, ROLES_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        let rows_max = page::size(message.page_size)?;
        let parameters = [organization.stream.as_str()];
        let list = page::List::new(ledger.stamper(), "ListRoles", &parameters);
        let after = list.continue_behind(&message.page_token)?.map(RoleId::from_bytes);
        let tables = Arc::clone(&organization.tables());
        let operator = ledger.tables().operator().tables();
        // The identifiers of built-in roles come before all others.
        let built_in = operator.roles_after(after).filter(|it| it.built_in);
        let own = tables.roles_after(after).filter(|it| !it.built_in);
        let mut rows = built_in.filter(|it| is_known_in(it, &tables)).chain(own).peekable();
        let (mut roles, mut bytes, mut next_page_token) = (Vec::new(), 0, String::new());
        while let Some(row) = rows.next() {
            let written = write::role(row, tables.id);
            bytes += prost::Message::encoded_len(&written);
            roles.push(written);
            let full = roles.len() == rows_max || bytes >= page::PAGE_BYTES_MAX;
            if full && rows.peek().is_some() {
                next_page_token = list.token(row.id.to_bytes());
                break;
            }
        }
        let revision = write::revision(&organization.stream, tables.revision());
        Ok(Response::new(proto::ListRolesResponse { roles, next_page_token, revision }))
    }

    async fn grant_role(
        &self,
        request: Request<proto::GrantRoleRequest>,
    ) -> Result<Response<proto::GrantRoleResponse>, Status> {
        use proto::grant_role_request::Principal as Wire;
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, ROLES_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let principal = match &message.principal {
            Some(Wire::ServiceAccountId(id)) => {
                Principal::ServiceAccount(read::field("service_account_id", id)?)
            }
            Some(Wire::UserId(id)) => Principal::User(read::field("user_id", id)?),
            None => return Err(status::invalid("principal", "name who shall have the role")),
        };
        let command = GrantRole {
            grant_id: ledger.ids().grant(ledger.clock().now()),
            principal,
            role_id: read::field("role_id", &message.role_id)?,
            domain: read::optional("domain", &message.domain)?,
            expiry: expiry!(grant_role_request, message)?,
        };
        let command = Command::GrantRole(Box::new(command));
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let grant = granted(ledger, &organization, executed).await?;
        let tables = Arc::clone(&organization.tables());
        let operator = ledger.tables().operator().tables();
        Ok(Response::new(proto::GrantRoleResponse {
            grant: Some(write::grant(&grant, &tables, &operator)),
            revision: write::revision(&organization.stream, executed.revision),
        }))
    }

    async fn revoke_grant(
        &self,
        request: Request<proto::RevokeGrantRequest>,
    ) -> Result<Response<proto::RevokeGrantResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, ROLES_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::RevokeGrant(read::field("grant_id", &message.grant_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let revision = write::revision(&organization.stream, executed.revision);
        Ok(Response::new(proto::RevokeGrantResponse { revision }))
    }

    async fn list_grants(
        &self,
        request: Request<proto::ListGrantsRequest>,
    ) -> Result<Response<proto::ListGrantsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, ROLES_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        list_grants(ledger, &organization, &message).map(Response::new)
    }

    async fn effective_permissions(
        &self,
        request: Request<proto::EffectivePermissionsRequest>,
    ) -> Result<Response<proto::EffectivePermissionsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, ROLES_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        holding::effective(ledger, &organization, &message).await.map(Response::new)
    }

    async fn who_holds(
        &self,
        request: Request<proto::WhoHoldsRequest>,
    ) -> Result<Response<proto::WhoHoldsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, ROLES_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        holding::who_holds(ledger, &organization, &message).map(Response::new)
    }
}

/// Whether a role means something in this organization: the operator's own does in none else.
pub(super) fn is_known_in(role: &Role, organization: &Organization) -> bool {
    organization.id.is_operator() || role.id != OPERATOR_ADMIN
}

/// The role of this identifier, the organization's own or a built-in one.
fn role<'a>(tables: &'a Organization, operator: &'a Organization, id: RoleId) -> Option<&'a Role> {
    let found = tables.role(id).or_else(|| operator.built_in_role(id));
    found.map(|role| &**role).filter(|role| is_known_in(role, tables))
}

/// Carries out a change of one role; gives the role as it is then, and where that was
/// recorded.
async fn change(
    ledger: &Arc<Ledger>,
    organization: &Published,
    order: &Order,
) -> Result<(proto::Role, Option<proto::StreamRevision>), Status> {
    let executed = ledger.execute(organization.id, order).await.map_err(status::from)?;
    let tables = Arc::clone(&organization.tables());
    let missing = || status::outcome_missing(executed.outcome);
    let Change::Role(id) = executed.outcome else { return Err(missing()) };
    let role = tables.role(id).ok_or_else(missing)?;
    let revision = write::revision(&organization.stream, executed.revision);
    Ok((write::role(role, organization.id), revision))
}

/// The grant that a command made. One that was revoked since, or has ended, is no row any
/// more: the event that made it says what it was.
async fn granted(
    ledger: &Ledger,
    organization: &Published,
    executed: Executed,
) -> Result<Arc<Grant>, Status> {
    let missing = || status::outcome_missing(executed.outcome);
    let Change::Grant(id) = executed.outcome else { return Err(missing()) };
    if let Some(grant) = organization.tables().grant(id) {
        return Ok(Arc::clone(grant));
    }
    let revision = executed.revision.ok_or_else(missing)?;
    let recorded = ledger.event(organization, revision).await;
    let recorded = recorded.map_err(|error| status::from_read(&error))?;
    let envelope = recorded.and_then(|it| Envelope::decode(&it.stored).ok());
    let envelope = envelope.ok_or_else(missing)?;
    let Event::RoleGranted(RoleGranted { grant_id, terms }) = envelope.event else {
        return Err(missing());
    };
    let (granted_at, granted_by) = (envelope.at, envelope.actor);
    Ok(Arc::new(Grant { id: grant_id, terms, granted_at, granted_by, changed_at: revision }))
}

fn list_grants(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListGrantsRequest,
) -> Result<proto::ListGrantsResponse, Status> {
    let role: Option<RoleId> = read::optional("role_id", &message.role_id)?;
    let owner = read::owner(&message.service_account_id, &message.user_id)?;
    let rows_max = page::size(message.page_size)?;
    let parameters = [
        organization.stream.as_str(),
        &message.role_id,
        &message.service_account_id,
        &message.user_id,
    ];
    let list = page::List::new(ledger.stamper(), "ListGrants", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(GrantId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let operator = ledger.tables().operator().tables();
    let now = ledger.now_for(&tables);
    let rows: Box<dyn Iterator<Item = &Arc<Grant>>> = match (owner, role) {
        (Some(owner), _) => {
            let grants = tables.grants_of(owner.principal()).iter();
            Box::new(grants.filter(move |it| after.is_none_or(|after| it.id > after)))
        }
        (None, Some(role)) => Box::new(tables.grants_of_role(role, after)),
        (None, None) => Box::new(tables.grants_after(after)),
    };
    let mut rows = rows.peekable();
    let (mut grants, mut looked, mut next_page_token) = (Vec::new(), 0, String::new());
    while let Some(row) = rows.next() {
        looked += 1;
        if row.stands(now) && role.is_none_or(|role| row.terms.role_id == role) {
            grants.push(write::grant(row, &tables, &operator));
        }
        let full = grants.len() == rows_max || looked == page::PAGE_WORK_MAX;
        if full && rows.peek().is_some() {
            next_page_token = list.token(row.id.to_bytes());
            break;
        }
    }
    let revision = write::revision(&organization.stream, tables.revision());
    Ok(proto::ListGrantsResponse { grants, next_page_token, revision })
}

#[cfg(test)]
mod tests;

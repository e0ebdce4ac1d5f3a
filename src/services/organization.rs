//! OrganizationService: the tenants of the installation, and who belongs to them.

pub(super) mod users;

use std::sync::Arc;

use projections::event::{ServiceAccountCreated, TokenWay};
use projections::id::{OrganizationId, ServiceAccountId};
use projections::organization::{Change, Profile};
use tonic::{Request, Response, Status};

use super::authentication::{authenticate, authenticate_operator};
use super::key::{Context, begin, known};
use super::{Door, page, read, session, status, write};
use crate::delivery::Delivery;
use crate::ledger::command::{Command, Order, OrganizationDraft};
use crate::ledger::{Ledger, built_in, permissions};
use crate::proto;
use crate::proto::organization_service_server::OrganizationService;

/// The service.
pub struct Organizations {
    door: Door,
    delivery: Arc<Delivery>,
    hand_over: HandOver,
}

/// Who is handed the token of an invitation that nobody delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// Whoever invites.
    Inviter,
    /// Whoever invites, if they are an operator.
    Operators,
    /// Nobody: no invitation is accepted until something delivers.
    Nobody,
}

impl Organizations {
    /// The service behind this door; tokens that people are sent go this way, or are handed
    /// over.
    #[must_use]
    pub fn new(door: Door, delivery: Arc<Delivery>, hand_over: HandOver) -> Self {
        Self { door, delivery, hand_over }
    }

    /// Which way the token of an invitation goes, for whoever gives this order.
    fn way(&self, order: &Order) -> (&Delivery, TokenWay) {
        let by_operator = order.caller.home().is_some_and(OrganizationId::is_operator);
        let way = match self.hand_over {
            _ if self.delivery.delivers() => TokenWay::Delivered,
            HandOver::Inviter => TokenWay::HandedOver,
            HandOver::Operators if by_operator => TokenWay::HandedOver,
            HandOver::Operators | HandOver::Nobody => TokenWay::Withheld,
        };
        (&self.delivery, way)
    }
}

#[tonic::async_trait]
impl OrganizationService for Organizations {
    async fn create_organization(
        &self,
        request: Request<proto::CreateOrganizationRequest>,
    ) -> Result<Response<proto::CreateOrganizationResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate_operator(ledger, &request, permissions::ORGANIZATIONS_WRITE)?;
        let context = Context::of(ledger, &caller, &request)?;
        let message = request.into_inner();
        let draft = OrganizationDraft {
            organization_id: ledger.ids().organization(ledger.clock().now()),
            name: read::field("name", &message.name)?,
            key_prefix: read::field("key_prefix", &message.key_prefix)?,
            plan: read::optional("plan", &message.plan)?.unwrap_or_else(built_in::default_plan),
            personal_of: None,
        };
        let sameness =
            proto::CreateOrganizationRequest { idempotency_key: String::new(), ..message.clone() };
        let order = context.order(
            ledger,
            Command::RegisterOrganization(draft.clone()),
            ("CreateOrganization", &message.idempotency_key, &sameness),
            None,
        )?;
        create_organization(ledger, order).await.map(Response::new)
    }

    async fn get_organization(
        &self,
        request: Request<proto::GetOrganizationRequest>,
    ) -> Result<Response<proto::GetOrganizationResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, permissions::ORGANIZATIONS_READ)?;
        let organization =
            known(ledger, caller.target(ledger, &request.get_ref().organization_id)?)?;
        let tables = organization.tables();
        Ok(Response::new(proto::GetOrganizationResponse {
            organization: tables.profile().map(|profile| {
                write::organization(organization.id, profile, Some(tables.policy()))
            }),
            revision: write::revision(&organization.stream, tables.revision()),
        }))
    }

    async fn list_organizations(
        &self,
        request: Request<proto::ListOrganizationsRequest>,
    ) -> Result<Response<proto::ListOrganizationsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        authenticate_operator(ledger, &request, permissions::ORGANIZATIONS_READ)?;
        list_organizations(ledger, request.get_ref()).map(Response::new)
    }

    async fn update_policy(
        &self,
        request: Request<proto::UpdatePolicyRequest>,
    ) -> Result<Response<proto::UpdatePolicyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, permissions::POLICY_WRITE)?;
        let message = request.into_inner();
        let order = context.order_in(
            ledger,
            organization.id,
            Command::UpdatePolicy(read::policy(message.policy.as_ref())?),
            &message,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        Ok(Response::new(proto::UpdatePolicyResponse {
            policy: Some(write::policy(organization.tables().policy())),
            revision: write::revision(&organization.stream, executed.revision),
        }))
    }

    async fn create_service_account(
        &self,
        request: Request<proto::CreateServiceAccountRequest>,
    ) -> Result<Response<proto::CreateServiceAccountResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let needed = permissions::SERVICE_ACCOUNTS_WRITE;
        let (organization, context) = begin(ledger, &request, named, needed)?;
        let message = request.into_inner();
        let draft = ServiceAccountCreated {
            service_account_id: ledger.ids().service_account(ledger.clock().now()),
            name: read::field("name", &message.name)?,
            description: read::optional("description", &message.description)?,
            roles: read::roles(&message.role_ids)?,
        };
        let order = context.order_in(
            ledger,
            organization.id,
            Command::CreateServiceAccount(Box::new(draft)),
            &message,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let tables = Arc::clone(&organization.tables());
        let missing = || status::outcome_missing(executed.outcome);
        let Change::ServiceAccount(id) = executed.outcome else { return Err(missing()) };
        let made = tables.service_account(id).ok_or_else(missing)?;
        let operator = ledger.tables().operator().tables();
        Ok(Response::new(proto::CreateServiceAccountResponse {
            service_account: Some(write::service_account(made, &tables, &operator)),
            revision: write::revision(&organization.stream, executed.revision),
        }))
    }

    async fn accept_invitation(
        &self,
        request: Request<proto::AcceptInvitationRequest>,
    ) -> Result<Response<proto::AcceptInvitationResponse>, Status> {
        let entered = self.door.enter()?;
        session::accept(entered.ledger(), request).await
    }

    async fn list_service_accounts(
        &self,
        request: Request<proto::ListServiceAccountsRequest>,
    ) -> Result<Response<proto::ListServiceAccountsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, permissions::SERVICE_ACCOUNTS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        let rows_max = page::size(message.page_size)?;
        let parameters = [organization.stream.as_str()];
        let list = page::List::new(ledger.stamper(), "ListServiceAccounts", &parameters);
        let after = list.continue_behind(&message.page_token)?.map(ServiceAccountId::from_bytes);
        let tables = Arc::clone(&organization.tables());
        let operator = ledger.tables().operator().tables();
        let mut rows = tables.service_accounts_after(after).peekable();
        let page: Vec<_> = rows.by_ref().take(rows_max).collect();
        let next_page_token = match (rows.peek(), page.last()) {
            (Some(_), Some(last)) => list.token(last.id.to_bytes()),
            _ => String::new(),
        };
        let written = page.iter().map(|it| write::service_account(it, &tables, &operator));
        Ok(Response::new(proto::ListServiceAccountsResponse {
            service_accounts: written.collect(),
            next_page_token,
            revision: write::revision(&organization.stream, tables.revision()),
        }))
    }

    async fn invite_user(
        &self,
        request: Request<proto::InviteUserRequest>,
    ) -> Result<Response<proto::InviteUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        let order = users::invite(ledger, organization.id, context, &message)?;
        let invited = users::invited(ledger, self.way(&order), &organization, order).await?;
        Ok(Response::new(proto::InviteUserResponse {
            user: Some(invited.user),
            revision: invited.revision,
            invitation_token: invited.sent.token,
            invitation_sent: invited.sent.sent,
        }))
    }

    async fn renew_invitation(
        &self,
        request: Request<proto::RenewInvitationRequest>,
    ) -> Result<Response<proto::RenewInvitationResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        let order = users::renew(ledger, organization.id, context, &message)?;
        let invited = users::invited(ledger, self.way(&order), &organization, order).await?;
        Ok(Response::new(proto::RenewInvitationResponse {
            user: Some(invited.user),
            revision: invited.revision,
            invitation_token: invited.sent.token,
            invitation_sent: invited.sent.sent,
        }))
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, permissions::USERS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        users::get(ledger, &organization, &message).await.map(Response::new)
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, permissions::USERS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        users::list(ledger, &organization, &message).await.map(Response::new)
    }

    async fn update_user(
        &self,
        request: Request<proto::UpdateUserRequest>,
    ) -> Result<Response<proto::UpdateUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        let order = users::update(ledger, &organization, context, &message).await?;
        let (user, revision) = users::change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::UpdateUserResponse { user: Some(user), revision }))
    }

    async fn suspend_user(
        &self,
        request: Request<proto::SuspendUserRequest>,
    ) -> Result<Response<proto::SuspendUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::SuspendUser(read::field("user_id", &message.user_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (user, revision) = users::change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::SuspendUserResponse { user: Some(user), revision }))
    }

    async fn restore_user(
        &self,
        request: Request<proto::RestoreUserRequest>,
    ) -> Result<Response<proto::RestoreUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::RestoreUser(read::field("user_id", &message.user_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (user, revision) = users::change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::RestoreUserResponse { user: Some(user), revision }))
    }

    async fn remove_user(
        &self,
        request: Request<proto::RemoveUserRequest>,
    ) -> Result<Response<proto::RemoveUserResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin(ledger, &request, named, permissions::USERS_WRITE)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::RemoveUser(read::field("user_id", &message.user_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (user, revision) = users::change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::RemoveUserResponse { user: Some(user), revision }))
    }
}

/// Registers an organization with the operator, then begins its own stream.
///
/// Two streams, two appends: should the second be lost, the next start makes it up from
/// the first.
async fn create_organization(
    ledger: &Arc<Ledger>,
    order: Order,
) -> Result<proto::CreateOrganizationResponse, Status> {
    let registered =
        ledger.execute(OrganizationId::OPERATOR, &order).await.map_err(status::from)?;
    let Change::Registration(id) = registered.outcome else {
        return Err(status::outcome_missing(registered.outcome));
    };
    let operator = Arc::clone(ledger.tables().operator());
    let registration = operator
        .tables()
        .installation()
        .and_then(|installation| installation.organizations.get(&id).cloned())
        .ok_or_else(|| status::organization_not_found(id))?;
    let profile = &registration.profile;
    let draft = OrganizationDraft {
        organization_id: id,
        name: profile.name.clone(),
        key_prefix: profile.key_prefix.clone(),
        plan: profile.plan.clone(),
        personal_of: profile.personal_of,
    };
    let order = Order {
        command: Command::CreateOrganization(draft),
        request: None,
        expected: None,
        causation_id: Some(registration.event_id),
        ..order
    };
    let created = ledger.execute(id, &order).await.map_err(status::from)?;
    let organization = known(ledger, id)?;
    let tables = organization.tables();
    let revisions = [
        write::revision(&organization.stream, created.revision),
        write::revision(&operator.stream, registered.revision),
    ];
    Ok(proto::CreateOrganizationResponse {
        organization: tables
            .profile()
            .map(|profile| write::organization(id, profile, Some(tables.policy()))),
        revisions: revisions.into_iter().flatten().collect(),
    })
}

/// An organization as it says itself; as it was registered while its stream is not begun.
fn listed(ledger: &Ledger, id: OrganizationId, registered: &Profile) -> proto::Organization {
    let organization = ledger.tables().organization(id);
    let tables = organization.map(|organization| Arc::clone(&organization.tables()));
    let own = tables.as_ref().and_then(|tables| tables.profile());
    write::organization(id, own.unwrap_or(registered), tables.as_ref().map(|it| it.policy()))
}

fn list_organizations(
    ledger: &Ledger,
    message: &proto::ListOrganizationsRequest,
) -> Result<proto::ListOrganizationsResponse, Status> {
    use std::ops::Bound::{Excluded, Unbounded};
    let rows_max = page::size(message.page_size)?;
    let list = page::List::new(ledger.stamper(), "ListOrganizations", &[]);
    let after = list.continue_behind(&message.page_token)?.map(OrganizationId::from_bytes);
    let operator = ledger.tables().operator();
    let tables = Arc::clone(&operator.tables());
    let Some(installation) = tables.installation() else { return Err(status::starting()) };
    let mut rows =
        installation.organizations.range((after.map_or(Unbounded, Excluded), Unbounded)).peekable();
    let page: Vec<_> = rows.by_ref().take(rows_max).collect();
    let next_page_token = match (rows.peek(), page.last()) {
        (Some(_), Some((last, _))) => list.token(last.to_bytes()),
        _ => String::new(),
    };
    Ok(proto::ListOrganizationsResponse {
        organizations: page.iter().map(|(id, row)| listed(ledger, **id, &row.profile)).collect(),
        next_page_token,
        revision: write::revision(&operator.stream, tables.revision()),
    })
}

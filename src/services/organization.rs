//! OrganizationService: the tenants of the installation.

use std::sync::Arc;

use projections::id::OrganizationId;
use projections::organization::{Change, Profile};
use tonic::{Request, Response, Status};

use super::authentication::{authenticate, authenticate_operator};
use super::key::{Context, known};
use super::{Door, page, read, status, write};
use crate::ledger::command::{Command, Order, OrganizationDraft};
use crate::ledger::{Ledger, built_in, permissions};
use crate::proto;
use crate::proto::organization_service_server::OrganizationService;

/// The service.
pub struct Organizations {
    door: Door,
}

impl Organizations {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl OrganizationService for Organizations {
    async fn create_organization(
        &self,
        request: Request<proto::CreateOrganizationRequest>,
    ) -> Result<Response<proto::CreateOrganizationResponse>, Status> {
        let ledger = self.door.ledger()?;
        let caller = authenticate_operator(ledger, &request, permissions::ORGANIZATIONS_WRITE)?;
        let context = Context::of(ledger, &caller, &request)?;
        let message = request.into_inner();
        let draft = OrganizationDraft {
            organization_id: ledger.ids().organization(ledger.clock().now()),
            name: read::field("name", &message.name)?,
            key_prefix: read::field("key_prefix", &message.key_prefix)?,
            plan: read::optional("plan", &message.plan)?.unwrap_or_else(built_in::default_plan),
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
        let ledger = self.door.ledger()?;
        let caller = authenticate(ledger, &request, permissions::ORGANIZATIONS_READ)?;
        let organization = known(ledger, caller.target(&request.get_ref().organization_id)?)?;
        let tables = organization.tables();
        Ok(Response::new(proto::GetOrganizationResponse {
            organization: tables
                .profile()
                .map(|profile| described(ledger, organization.id, profile)),
            revision: write::revision(&organization.stream, tables.revision()),
        }))
    }

    async fn list_organizations(
        &self,
        request: Request<proto::ListOrganizationsRequest>,
    ) -> Result<Response<proto::ListOrganizationsResponse>, Status> {
        let ledger = self.door.ledger()?;
        authenticate_operator(ledger, &request, permissions::ORGANIZATIONS_READ)?;
        list_organizations(ledger, request.get_ref()).map(Response::new)
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
        return Err(status::not_found("organization"));
    };
    let operator = Arc::clone(ledger.tables().operator());
    let registration = operator
        .tables()
        .installation()
        .and_then(|installation| installation.organizations.get(&id).cloned())
        .ok_or_else(|| status::not_found(format_args!("organization `{id}`")))?;
    let profile = &registration.profile;
    let draft = OrganizationDraft {
        organization_id: id,
        name: profile.name.clone(),
        key_prefix: profile.key_prefix.clone(),
        plan: profile.plan.clone(),
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
        organization: tables.profile().map(|profile| described(ledger, id, profile)),
        revisions: revisions.into_iter().flatten().collect(),
    })
}

/// An organization as its own stream has it. It came to be when the operator admitted
/// it; its stream begins a moment later.
fn described(ledger: &Ledger, id: OrganizationId, profile: &Profile) -> proto::Organization {
    let operator = ledger.tables().operator().tables();
    let registration = operator.installation().and_then(|it| it.organizations.get(&id));
    let created_at = registration.map_or(profile.created_at, |it| it.profile.created_at);
    proto::Organization {
        created_at: Some(write::timestamp(created_at)),
        ..write::organization(id, profile)
    }
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
        organizations: page
            .iter()
            .map(|(id, row)| write::organization(**id, &row.profile))
            .collect(),
        next_page_token,
        revision: write::revision(&operator.stream, tables.revision()),
    })
}

//! ReportService: what whoever must show how access is governed asks for.
//!
//! Reports on keys and grants follow from the tables of today ([`tables`]); who held something
//! over a time, from the fold of history over it ([`holders`]).

mod holders;
mod tables;

use tonic::{Request, Response, Status};

use super::Door;
use super::history::asked;
use crate::proto;
use crate::proto::report_service_server::ReportService;

/// The service.
pub struct Reports {
    door: Door,
}

impl Reports {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn list_unused_keys(
        &self,
        request: Request<proto::ListUnusedKeysRequest>,
    ) -> Result<Response<proto::ListUnusedKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (_, organization) = asked(ledger, &request, &message.organization_id)?;
        tables::unused_keys(ledger, &organization, message).await.map(Response::new)
    }

    async fn list_keys_without_expiry(
        &self,
        request: Request<proto::ListKeysWithoutExpiryRequest>,
    ) -> Result<Response<proto::ListKeysWithoutExpiryResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (_, organization) = asked(ledger, &request, &message.organization_id)?;
        tables::keys_without_expiry(ledger, &organization, message).await.map(Response::new)
    }

    async fn list_permission_holders(
        &self,
        request: Request<proto::ListPermissionHoldersRequest>,
    ) -> Result<Response<proto::ListPermissionHoldersResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (_, organization) = asked(ledger, &request, &message.organization_id)?;
        holders::of_permission(ledger, &organization, message).await.map(Response::new)
    }

    async fn list_role_holders(
        &self,
        request: Request<proto::ListRoleHoldersRequest>,
    ) -> Result<Response<proto::ListRoleHoldersResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (_, organization) = asked(ledger, &request, &message.organization_id)?;
        holders::of_role(ledger, &organization, message).await.map(Response::new)
    }

    async fn summarize_break_glass(
        &self,
        request: Request<proto::SummarizeBreakGlassRequest>,
    ) -> Result<Response<proto::SummarizeBreakGlassResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (_, organization) = asked(ledger, &request, &message.organization_id)?;
        Ok(Response::new(tables::break_glass(ledger, &organization)))
    }
}

//! ReportService: what whoever must show how access is governed asks for.
//!
//! Reports on keys and grants follow from the tables of today ([`tables`]); who held something
//! over a time, from the fold of history over it ([`holders`]).

mod holders;
mod tables;

use tonic::{Request, Response, Status};

use projections::event::WayOfReading;

use super::Door;
use super::history::asked;
use super::reading::Reading;
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

fn reading() -> Reading {
    Reading::new(WayOfReading::ReportedOn)
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn list_unused_keys(
        &self,
        request: Request<proto::ListUnusedKeysRequest>,
    ) -> Result<Response<proto::ListUnusedKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (reader, organization) = asked(ledger, &request, &message.organization_id)?;
        let answer = tables::unused_keys(ledger, &organization, message).await?;
        let reading = reading().asking("report", "unused_keys").asking("days", message.days);
        reading.record(ledger, &request, &reader, &organization).await?;
        Ok(Response::new(answer))
    }

    async fn list_keys_without_expiry(
        &self,
        request: Request<proto::ListKeysWithoutExpiryRequest>,
    ) -> Result<Response<proto::ListKeysWithoutExpiryResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (reader, organization) = asked(ledger, &request, &message.organization_id)?;
        let answer = tables::keys_without_expiry(ledger, &organization, message).await?;
        let reading = reading().asking("report", "keys_without_expiry");
        reading.record(ledger, &request, &reader, &organization).await?;
        Ok(Response::new(answer))
    }

    async fn list_permission_holders(
        &self,
        request: Request<proto::ListPermissionHoldersRequest>,
    ) -> Result<Response<proto::ListPermissionHoldersResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (reader, organization) = asked(ledger, &request, &message.organization_id)?;
        let answer = holders::of_permission(ledger, &organization, message).await?;
        let reading = reading()
            .asking("report", "permission_holders")
            .asking("permission", &message.permission)
            .asking_at("from", message.from.as_ref())
            .asking_at("to", message.to.as_ref());
        reading.record(ledger, &request, &reader, &organization).await?;
        Ok(Response::new(answer))
    }

    async fn list_role_holders(
        &self,
        request: Request<proto::ListRoleHoldersRequest>,
    ) -> Result<Response<proto::ListRoleHoldersResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (reader, organization) = asked(ledger, &request, &message.organization_id)?;
        let answer = holders::of_role(ledger, &organization, message).await?;
        let reading = reading()
            .asking("report", "role_holders")
            .asking("role_id", &message.role_id)
            .asking_at("from", message.from.as_ref())
            .asking_at("to", message.to.as_ref());
        reading.record(ledger, &request, &reader, &organization).await?;
        Ok(Response::new(answer))
    }

    async fn summarize_break_glass(
        &self,
        request: Request<proto::SummarizeBreakGlassRequest>,
    ) -> Result<Response<proto::SummarizeBreakGlassResponse>, Status> {
        let entered = self.door.enter()?;
        let (ledger, message) = (entered.ledger(), request.get_ref());
        let (reader, organization) = asked(ledger, &request, &message.organization_id)?;
        let answer = tables::break_glass(ledger, &organization);
        let reading = reading().asking("report", "break_glass");
        reading.record(ledger, &request, &reader, &organization).await?;
        Ok(Response::new(answer))
    }
}

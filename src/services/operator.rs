//! OperatorService: the installation itself.

use tonic::{Request, Response, Status};

use super::authentication::authenticate_operator;
use super::{Door, status, write};
use crate::ledger::permissions;
use crate::proto;
use crate::proto::operator_service_server::OperatorService;

/// The service.
pub struct Operator {
    door: Door,
}

impl Operator {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl OperatorService for Operator {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        authenticate_operator(ledger, &request, permissions::INSTALLATION_READ)?;
        let operator = ledger.tables().operator().tables();
        let installation = operator.installation().ok_or_else(status::starting)?;
        let all = ledger.tables().all();
        let active_keys = all.iter().map(|organization| {
            let (keys, revoked) = organization.tables().key_counts();
            keys - revoked
        });
        let stopped = all.iter().filter_map(|organization| {
            let fault = organization.stopped()?.to_string();
            Some(proto::StoppedOrganization { organization_id: organization.id.to_string(), fault })
        });
        let usage_damaged = all.iter().filter_map(|organization| {
            let fault = organization.usage_damaged()?.to_string();
            Some(proto::DamagedUsage { organization_id: organization.id.to_string(), fault })
        });
        Ok(Response::new(proto::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installation_id: installation.id.to_string(),
            now: Some(write::timestamp(ledger.clock().now())),
            clock_ahead_ms: ledger.clock().ahead_ms().max(0),
            organizations: all.len() as u64,
            keys_not_revoked: active_keys.sum(),
            stopped: stopped.collect(),
            store_full: ledger.store_is_full(),
            usage_damaged: usage_damaged.collect(),
            activity_index_behind: ledger.activity_index_behind(),
        }))
    }

    async fn confirm_clock(
        &self,
        request: Request<proto::ConfirmClockRequest>,
    ) -> Result<Response<proto::ConfirmClockResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate_operator(ledger, &request, permissions::INSTALLATION_WRITE)?;
        let clock_ahead_ms = ledger.clock().confirm();
        let with = caller.caller.credential().map(|it| it.to_string()).unwrap_or_default();
        tracing::warn!(with, clock_ahead_ms, "the wall clock was confirmed");
        Ok(Response::new(proto::ConfirmClockResponse { clock_ahead_ms }))
    }

    async fn rebuild_activity_index(
        &self,
        request: Request<proto::RebuildActivityIndexRequest>,
    ) -> Result<Response<proto::RebuildActivityIndexResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate_operator(ledger, &request, permissions::INSTALLATION_WRITE)?;
        if !ledger.rebuild_activity_index() {
            return Err(status::no_activity_index());
        }
        let with = caller.caller.credential().map(|it| it.to_string()).unwrap_or_default();
        tracing::info!(with, "the activity index is made anew");
        Ok(Response::new(proto::RebuildActivityIndexResponse {}))
    }
}

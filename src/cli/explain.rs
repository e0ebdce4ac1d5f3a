//! `keyledger explain`

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Target};
use super::failure::{Failure, NO, Outcome};
use super::flags::{self, Environment, PastMoment, environment, past_moment};
use super::output::talk;
use super::view::history::Explained;
use crate::ledger::clock::Clock;
use crate::proto;
use crate::proto::audit_service_client::AuditServiceClient;
use crate::proto::explain_decision_request::Moment;

const EXAMPLES: &str = "\
Examples:
  keyledger explain key_01M3250V000000000000000001 --at 2026-11-01T12:00:00Z --permission dns:write
  keyledger explain key_01M3250V000000000000000001 --at revision:4711 --org vtx --json";

/// Say what a credential could have done at a past moment, and which events made it so.
///
/// The credential is named by its identifier: a key, a session or a break-glass grant. Rate
/// limits are no part of the answer.
///
/// Exit codes: 0 allowed, 1 denied, 2 no decision was made.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// The credential, by its identifier, never its secret
    #[arg(value_name = "CREDENTIAL_ID", value_parser = flags::not_empty)]
    credential_id: String,

    /// The moment: an instant in RFC 3339, a day, how long ago (`2h`), or `revision:4711`
    #[arg(long, value_name = "MOMENT", value_parser = flags::not_empty)]
    at: String,

    /// A permission that is wanted, such as dns:read; repeat, or separate by commas [default: none,
    /// only whether the credential was in force]
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',')]
    permissions: Vec<String>,

    /// The service that is wanted
    #[arg(long, value_name = "NAME", value_parser = flags::not_empty)]
    service: Option<String>,

    /// The domain that the request is about
    #[arg(long, value_name = "DOMAIN", value_parser = flags::not_empty)]
    domain: Option<String>,

    /// The environment that asks [default: either]
    #[arg(long, value_enum)]
    environment: Option<Environment>,

    /// The organization that the request claims to be for
    #[arg(long, value_name = "ID", value_parser = flags::not_empty)]
    tenant: Option<String>,

    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<IpAddr>,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Explain {
    pub(super) fn run(self) -> Outcome {
        // A denial is 1, so nothing else may be.
        self.explain().map_err(Failure::into_fault)
    }

    fn explain(self) -> Outcome {
        let moment = past_moment(&self.at, Clock::system().now())
            .map_err(|problem| Failure::fault(format!("`--at`: `{}` {problem}", self.at)))?;
        let mut message = proto::ExplainDecisionRequest {
            organization_id: self.target.organization_id(),
            credential_id: self.credential_id,
            moment: Some(match moment {
                PastMoment::At(at) => Moment::At(at),
                PastMoment::Revision(revision) => Moment::Revision(revision),
            }),
            permissions: self.permissions,
            service: self.service.unwrap_or_default(),
            domain: self.domain.unwrap_or_default(),
            environment: environment(self.environment),
            client_ip: self.client_ip.map(|it| it.to_string()).unwrap_or_default(),
            tenant_id: self.tenant.unwrap_or_default(),
        };
        self.client.run(async |session| {
            session.aim(&mut message.organization_id).await?;
            let request = session.request(message.clone())?;
            let mut service = AuditServiceClient::new(session.channel());
            let answer = session.answer(async { service.explain_decision(request).await });
            let explained = Explained::from(answer.await?);
            if !self.client.json() {
                talk(&explained.talk());
            }
            session.print(&explained, || explained.to_text())?;
            Ok(if explained.allowed() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
        })
    }
}

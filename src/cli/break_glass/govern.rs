//! What people do about a grant: `keyledger break-glass approve`, `close` and `review`.

use clap::{Args, ValueEnum};

use super::super::client::{Client, Target};
use super::super::failure::Outcome;
use super::super::output::talk;
use super::super::view::break_glass::Changed;
use super::master_key::{MayShow, aim, request, run};
use super::service;
use crate::proto;

/// Which grant, and what is written about what is done to it.
#[derive(Args)]
pub(super) struct Grant {
    /// The grant
    #[arg(value_name = "GRANT")]
    grant_id: String,

    /// What to write beside it, in at most 500 characters; kept sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
}

/// Let a grant permit what it says, from here on for as long as it lasts.
///
/// By a custodian's master key, or with your own credential if you hold `break-glass:approve`;
/// not by whoever opened it.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger break-glass approve bgg_01M3250V000000000000000001 --org org_01M3250V000000000000000001 \\
      --master-key-file bob.key")]
pub(in crate::cli) struct Approve {
    #[command(flatten)]
    grant: Grant,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    master_key: MayShow,

    #[command(flatten)]
    client: Client,
}

impl Approve {
    pub(in crate::cli) fn run(self) -> Outcome {
        let key = self.master_key.obtain(&self.client)?;
        let mut message = proto::ApproveGrantRequest {
            organization_id: self.target.organization_id(),
            grant_id: self.grant.grant_id,
            comment: self.grant.comment,
        };
        run(&self.client, key.as_ref(), async |session| {
            aim(session, key.as_ref(), &mut message.organization_id).await?;
            let request = request(session, key.as_ref(), message)?;
            let answer = session.answer(service(session).approve_grant(request)).await?;
            let changed = Changed::new(answer.grant, answer.revision);
            let code = session.print(&changed, || changed.to_text())?;
            if !session.json() {
                talk("done: it permits what it says from now on\n");
            }
            Ok(code)
        })
    }
}

/// End a grant.
///
/// With its token (`--api-key-file`), by its custodian's master key, or with your own credential
/// if you hold `break-glass:close`. When this returns it permits nothing.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger break-glass close bgg_01M3250V000000000000000001 --org org_01M3250V000000000000000001 \\
      --api-key-file token")]
pub(in crate::cli) struct Close {
    #[command(flatten)]
    grant: Grant,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    master_key: MayShow,

    #[command(flatten)]
    client: Client,
}

impl Close {
    pub(in crate::cli) fn run(self) -> Outcome {
        let key = self.master_key.obtain(&self.client)?;
        let mut message = proto::CloseGrantRequest {
            organization_id: self.target.organization_id(),
            grant_id: self.grant.grant_id,
            comment: self.grant.comment,
        };
        run(&self.client, key.as_ref(), async |session| {
            aim(session, key.as_ref(), &mut message.organization_id).await?;
            let request = request(session, key.as_ref(), message)?;
            let answer = session.answer(service(session).close_grant(request)).await?;
            let changed = Changed::new(answer.grant, answer.revision);
            let code = session.print(&changed, || changed.to_text())?;
            if !session.json() {
                talk("done: it permits nothing any more; somebody else reviews what was done\n");
            }
            Ok(code)
        })
    }
}

/// Say what came of a look at what was done under a grant that has ended.
///
/// By a custodian's master key, or with your own credential if you hold `break-glass:review`;
/// neither by whoever opened it nor by whoever approved it. `replay` shows what was done.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger break-glass replay bgg_01M3250V000000000000000001 --org org_01M3250V000000000000000001
  keyledger break-glass review bgg_01M3250V000000000000000001 --org org_01M3250V000000000000000001 \\
      --finding justified --comment 'restored the zone, nothing else'")]
pub(in crate::cli) struct Review {
    #[command(flatten)]
    grant: Grant,

    /// What came of it
    #[arg(long, value_enum)]
    finding: Finding,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    master_key: MayShow,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum Finding {
    /// All that was done was as it should be.
    Justified,
    /// Something was not.
    Unjustified,
}

impl Review {
    pub(in crate::cli) fn run(self) -> Outcome {
        let key = self.master_key.obtain(&self.client)?;
        let finding = match self.finding {
            Finding::Justified => proto::ReviewFinding::Justified,
            Finding::Unjustified => proto::ReviewFinding::Unjustified,
        };
        let mut message = proto::ReviewGrantRequest {
            organization_id: self.target.organization_id(),
            grant_id: self.grant.grant_id,
            finding: finding.into(),
            comment: self.grant.comment,
        };
        run(&self.client, key.as_ref(), async |session| {
            aim(session, key.as_ref(), &mut message.organization_id).await?;
            let request = request(session, key.as_ref(), message)?;
            let answer = session.answer(service(session).review_grant(request)).await?;
            let changed = Changed::new(answer.grant, answer.revision);
            session.print(&changed, || changed.to_text())
        })
    }
}

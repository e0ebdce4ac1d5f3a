//! `keyledger operator confirm-clock`

use clap::Args;

use super::super::client::Client;
use super::super::failure::Outcome;
use super::super::view::operator::ClockConfirmed;
use super::service;
use crate::proto;

/// Accept the server's wall clock as it is now.
///
/// A clock that jumped ahead stops all writes, so that no event gets a wrong time. Check
/// the clock first; then this lets writes go on. Needs an operator's key.
#[derive(Args)]
pub(in crate::cli) struct ConfirmClock {
    #[command(flatten)]
    client: Client,
}

impl ConfirmClock {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.client.run(async |session| {
            let request = session.request(proto::ConfirmClockRequest {})?;
            let answer = session.answer(service(session).confirm_clock(request)).await?;
            let confirmed = ClockConfirmed::from(answer);
            session.print(&confirmed, || confirmed.to_text())
        })
    }
}

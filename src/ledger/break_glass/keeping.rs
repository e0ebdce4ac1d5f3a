//! Every grant gets its end: rules that change, times that are over, reviews that are missing.

use std::sync::Arc;
use std::time::Duration;

use projections::event::BreakGlassRules;
use projections::id::OrganizationId;
use projections::text::Label;

use crate::ledger::command::{BreakGlassCommand, Command};
use crate::ledger::decide::break_glass::escalated_at;
use crate::ledger::tables::Published;
use crate::ledger::{Ledger, LedgerError};

/// How long to wait at the most before it is looked again whether a grant is over.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before an end that could not be recorded is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Ledger {
    /// Makes the rules of break-glass those of the configuration, and records the end of
    /// grants that are over, or that the rules no longer allow.
    pub(in crate::ledger) async fn configure_break_glass(
        self: &Arc<Self>,
        rules: Option<BreakGlassRules>,
    ) -> Result<(), LedgerError> {
        let command = Command::BreakGlass(Box::new(BreakGlassCommand::Configure(rules)));
        self.as_ledger(OrganizationId::OPERATOR, command).await?;
        // The ledger is configured once.
        let _ = self.server_since.set(self.clock.now());
        self.break_glass().go_live();
        // What cannot be recorded now is tried again, once the server is there.
        self.end_what_is_over().await;
        Ok(())
    }

    /// Ends the open grants of custodians who were given other master keys.
    pub(in crate::ledger) async fn withdraw_from(
        self: &Arc<Self>,
        custodians: &[Label],
    ) -> Result<(), LedgerError> {
        for (id, grant) in self.break_glass().unfinished() {
            if grant.ended.is_none() && custodians.contains(&grant.custodian) {
                let command = BreakGlassCommand::Withdraw(grant.id);
                self.as_ledger(id, Command::BreakGlass(Box::new(command))).await?;
            }
        }
        Ok(())
    }

    /// Records ends and missing reviews as they become due, until `end`.
    pub(in crate::ledger) async fn keep_break_glass(
        self: Arc<Self>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = std::pin::pin!(end);
        loop {
            let wait = self.end_what_is_over().await;
            tokio::select! {
                () = &mut end => return,
                () = tokio::time::sleep(wait) => {}
                () = self.break_glass().moved() => {}
            }
        }
    }

    /// Records what is due; gives how long to wait until more is.
    async fn end_what_is_over(self: &Arc<Self>) -> Duration {
        let Some(server_since) = self.server_since.get().copied() else { return LOOK_EVERY };
        let rules = self.break_glass_rules();
        let mut wait = LOOK_EVERY;
        for (id, grant) in self.break_glass().unfinished() {
            let organization = self.tables.organization(id).filter(|it| it.stopped().is_none());
            let Some(organization) = organization else { continue };
            let now = self.now_for(&organization.tables());
            let grant_id = grant.id;
            let (due, command) = match grant.ended {
                None if rules.as_ref().is_none_or(|rules| !grant.is_allowed_by(rules)) => {
                    (now, BreakGlassCommand::End { grant_id, server_since })
                }
                None => (grant.expires_at, BreakGlassCommand::End { grant_id, server_since }),
                Some(_) => {
                    let due = rules.as_ref().and_then(|rules| escalated_at(rules, &grant));
                    let Some(due) = due else { continue };
                    (due, BreakGlassCommand::Escalate(grant_id))
                }
            };
            let ahead = due.as_millis().saturating_sub(now.as_millis());
            if let Ok(ahead @ 1..) = u64::try_from(ahead) {
                wait = wait.min(Duration::from_millis(ahead));
                continue;
            }
            if !self.record_due(&organization, command).await {
                wait = wait.min(AGAIN_AFTER);
            }
        }
        wait
    }

    async fn record_due(
        self: &Arc<Self>,
        organization: &Published,
        command: BreakGlassCommand,
    ) -> bool {
        let command = Command::BreakGlass(Box::new(command));
        match self.as_ledger(organization.id, command).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(organization = %organization.id, %error, "what is due of a break-glass grant could not be recorded");
                false
            }
        }
    }
}

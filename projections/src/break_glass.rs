//! Break-glass grants: bounded emergency access to one organization.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::digest::ReasonDigest;
use crate::envelope::Envelope;
use crate::event::{
    BreakGlassEndReason, BreakGlassEnded, BreakGlassOpened, BreakGlassRules, KeyedDigest,
    ReviewFinding,
};
use crate::id::{AccountId, BreakGlassGrantId};
use crate::key::Act;
use crate::permission::Scopes;
use crate::recorded::Revision;
use crate::text::{Label, Name};
use crate::time::Timestamp;

/// A grant as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlassGrant {
    /// The grant.
    pub id: BreakGlassGrantId,
    /// Whose master key opened it.
    pub custodian: Label,
    /// The custodian's account.
    pub account_id: Option<AccountId>,
    /// What stands for its token; none where the master key is shown with each request.
    pub token: Option<KeyedDigest>,
    /// What stands for the reason.
    pub reason: ReasonDigest,
    /// The incident that it is for.
    pub incident: Option<Name>,
    /// What it permits.
    pub permissions: Scopes,
    /// How long it lasts, in seconds, from when it permits anything.
    pub duration_seconds: u32,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The event that opened it, which also holds the reason, sealed.
    pub opened_by: Revision,
    /// Whether it permits nothing until somebody approves it.
    pub awaits_approval: bool,
    /// Who approved it.
    pub approved: Option<Approval>,
    /// The first instant at which it is over, unless it ends before.
    pub expires_at: Timestamp,
    /// How often it was used.
    pub uses: u64,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// How often it was refused.
    pub refusals: u64,
    /// How it ended.
    pub ended: Option<GrantEnd>,
    /// Since when its missing review is escalated.
    pub escalated_at: Option<Timestamp>,
    /// Who reviewed it.
    pub reviewed: Option<Review>,
    /// The event that last changed this row.
    pub changed_at: Revision,
}

/// How a grant was approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The account of whoever approved.
    pub account_id: AccountId,
    /// The custodian, where they did it with a master key.
    pub custodian: Option<Label>,
    /// Who acted, and when.
    pub act: Act,
}

/// How a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantEnd {
    /// How.
    pub reason: BreakGlassEndReason,
    /// Since when it permits nothing.
    pub ended_at: Timestamp,
    /// Whether no server was there to record it then.
    pub server_was_down: bool,
    /// Who ended it, and when that was recorded.
    pub act: Act,
}

/// How a grant was reviewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The account of whoever reviewed.
    pub account_id: AccountId,
    /// The custodian, where they did it with a master key.
    pub custodian: Option<Label>,
    /// What came of it.
    pub finding: ReviewFinding,
    /// Who acted, and when.
    pub act: Act,
}

/// How far a grant has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrantState {
    /// It permits nothing until somebody approves it.
    AwaitingApproval,
    /// It permits what it says.
    Open,
    /// It permits nothing any more.
    Ended,
    /// It permits nothing any more, and somebody looked at what was done.
    Reviewed,
}

impl BreakGlassGrant {
    /// The row that an opening makes, recorded at this place and instant.
    #[must_use]
    pub fn of(revision: Revision, at: Timestamp, event: &BreakGlassOpened) -> Self {
        let BreakGlassOpened {
            grant_id,
            custodian,
            account_id,
            token,
            reason,
            incident,
            permissions,
            duration_seconds,
            awaits_approval,
            expires_at,
        } = event;
        Self {
            id: *grant_id,
            custodian: custodian.clone(),
            account_id: *account_id,
            token: token.clone(),
            reason: *reason,
            incident: incident.clone(),
            permissions: permissions.clone(),
            duration_seconds: *duration_seconds,
            opened_at: at,
            opened_by: revision,
            awaits_approval: *awaits_approval,
            approved: None,
            expires_at: *expires_at,
            uses: 0,
            last_used_at: None,
            refusals: 0,
            ended: None,
            escalated_at: None,
            reviewed: None,
            changed_at: revision,
        }
    }

    pub(crate) fn end(
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassEnded,
    ) -> GrantEnd {
        GrantEnd {
            reason: event.reason,
            ended_at: event.ended_at,
            server_was_down: event.server_was_down,
            act: Act::of(revision, envelope),
        }
    }

    /// How far it has come at this instant, whether or not its end was recorded.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> GrantState {
        if self.reviewed.is_some() {
            GrantState::Reviewed
        } else if self.ended.is_some() || now >= self.expires_at {
            GrantState::Ended
        } else if self.awaits_approval {
            GrantState::AwaitingApproval
        } else {
            GrantState::Open
        }
    }

    /// Whether the rules still allow it: its custodian is one, all that it permits is on the
    /// list, it lasts no longer than a grant may, and is approved where that is asked for.
    #[must_use]
    pub fn is_allowed_by(&self, rules: &BreakGlassRules) -> bool {
        let is_its = |it: &crate::event::Custodian| {
            it.name == self.custodian && it.account_id == self.account_id
        };
        let is_governed_so = self.duration_seconds <= rules.duration_max_seconds
            && (!rules.approval_required || self.awaits_approval || self.approved.is_some());
        rules.custodians.iter().any(is_its)
            && is_governed_so
            && self.permissions.iter().all(|it| rules.permissions.imply(it))
    }

    /// Whether this account opened or approved it.
    #[must_use]
    pub fn is_of(&self, account: AccountId) -> bool {
        self.account_id == Some(account)
            || self.approved.as_ref().is_some_and(|it| it.account_id == account)
    }
}

/// The grants of one organization. Most have none: they are one value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BreakGlassTable {
    pub(crate) grants: OrdMap<BreakGlassGrantId, Arc<BreakGlassGrant>>,
    /// The last one of each custodian and reason: of those with a token, and of those without.
    pub(crate) by_reason: OrdMap<(Label, ReasonDigest, bool), BreakGlassGrantId>,
    /// Those whose end was not recorded.
    pub(crate) open: OrdSet<BreakGlassGrantId>,
}

impl BreakGlassTable {
    /// Puts a row where it is looked for.
    pub(crate) fn put(&mut self, grant: BreakGlassGrant) {
        let id = grant.id;
        if grant.ended.is_some() {
            self.open.remove(&id);
        } else {
            self.open.insert(id);
        }
        let place = (grant.custodian.clone(), grant.reason, grant.token.is_some());
        let there = self.by_reason.get(&place).and_then(|other| self.grants.get(other));
        if there.is_none_or(|other| other.opened_by <= grant.opened_by) {
            self.by_reason.insert(place, id);
        }
        self.grants.insert(id, Arc::new(grant));
    }
}

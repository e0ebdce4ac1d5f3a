//! Break-glass grants: how they are looked up, and the fold of what befalls them.

use std::sync::Arc;

use super::{Change, Organization};
use crate::break_glass::{Approval, BreakGlassGrant, BreakGlassTable, Review};
use crate::corrupt::Fault;
use crate::digest::ReasonDigest;
use crate::envelope::Envelope;
use crate::event::{
    BreakGlassApproved, BreakGlassConfigured, BreakGlassEnded, BreakGlassEscalated,
    BreakGlassOpened, BreakGlassRefused, BreakGlassReviewed, BreakGlassUsed,
};
use crate::id::BreakGlassGrantId;
use crate::key::{Act, Key, KeyState};
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::text::Label;
use crate::time::Timestamp;

impl Organization {
    /// The grant of this identifier.
    #[must_use]
    pub fn break_glass_grant(&self, id: BreakGlassGrantId) -> Option<&Arc<BreakGlassGrant>> {
        self.break_glass.grants.get(&id)
    }

    /// The grants behind this one (none: from the first), in the order of their identifiers.
    pub fn break_glass_grants_after(
        &self,
        after: Option<BreakGlassGrantId>,
    ) -> impl DoubleEndedIterator<Item = &Arc<BreakGlassGrant>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.break_glass.grants.range(range).map(|(_, grant)| grant)
    }

    /// The last grant that this custodian opened for this reason by showing the master key.
    #[must_use]
    pub fn break_glass_grant_by(
        &self,
        custodian: &Label,
        reason: ReasonDigest,
    ) -> Option<&Arc<BreakGlassGrant>> {
        self.last_for(custodian, reason, false)
    }

    /// The last grant that this custodian opened for this reason, in whichever way.
    #[must_use]
    pub fn break_glass_grant_for(
        &self,
        custodian: &Label,
        reason: ReasonDigest,
    ) -> Option<&Arc<BreakGlassGrant>> {
        let both = [false, true].map(|token| self.last_for(custodian, reason, token));
        both.into_iter().flatten().max_by_key(|grant| grant.opened_by)
    }

    fn last_for(
        &self,
        custodian: &Label,
        reason: ReasonDigest,
        token: bool,
    ) -> Option<&Arc<BreakGlassGrant>> {
        let id = self.break_glass.by_reason.get(&(custodian.clone(), reason, token))?;
        self.break_glass.grants.get(id)
    }

    /// The grants whose end was not recorded, in the order of their identifiers.
    pub fn open_break_glass_grants(&self) -> impl Iterator<Item = &Arc<BreakGlassGrant>> {
        self.break_glass.open.iter().filter_map(|id| self.break_glass.grants.get(id))
    }

    /// Whether what this principal made may still be in force: under a break-glass grant nothing
    /// is made that outlasts it.
    #[must_use]
    pub fn outlives(&self, maker: Principal, now: Timestamp) -> bool {
        let Principal::BreakGlass(id) = maker else { return true };
        self.break_glass_grant(id).is_some_and(|it| it.ended.is_none() && now < it.expires_at)
    }

    /// Whether a key of the organization's is in force, by itself and by whoever made it.
    #[must_use]
    pub fn key_state(&self, key: &Key, now: Timestamp) -> KeyState {
        let state = key.state(now);
        let is_over = state == KeyState::Active && !self.outlives(key.maker.by, now);
        if is_over { KeyState::Revoked } else { state }
    }

    pub(super) fn break_glass_configured(
        &mut self,
        event: &BreakGlassConfigured,
    ) -> Result<Change, Fault> {
        self.installation_mut()?.break_glass = event.rules.clone().map(Arc::new);
        Ok(Change::Rule)
    }

    pub(super) fn break_glass_opened(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassOpened,
    ) -> Result<Change, Fault> {
        if self.break_glass_grant(event.grant_id).is_some() {
            return Err(Fault::DuplicateTarget(envelope.event.event_type()));
        }
        Ok(self.put_break_glass(revision, BreakGlassGrant::of(revision, envelope.at, event)))
    }

    pub(super) fn break_glass_approved(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassApproved,
    ) -> Result<Change, Fault> {
        let grant =
            self.grant_at(envelope, event.grant_id, |it| it.awaits_approval && it.ended.is_none())?;
        let approved = Approval {
            account_id: event.account_id,
            custodian: event.custodian.clone(),
            act: Act::of(revision, envelope),
        };
        Ok(self.put_break_glass(
            revision,
            BreakGlassGrant {
                awaits_approval: false,
                approved: Some(approved),
                expires_at: event.expires_at,
                ..grant
            },
        ))
    }

    pub(super) fn break_glass_used(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassUsed,
    ) -> Result<Change, Fault> {
        let grant = self
            .grant_at(envelope, event.grant_id, |it| !it.awaits_approval && it.ended.is_none())?;
        let (uses, last_used_at) = (grant.uses.saturating_add(1), Some(envelope.at));
        Ok(self.put_break_glass(revision, BreakGlassGrant { uses, last_used_at, ..grant }))
    }

    /// In the operator's stream it is of no grant: nothing there says which organization was
    /// meant.
    pub(super) fn break_glass_refused(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassRefused,
    ) -> Result<Change, Fault> {
        let Some(id) = event.grant_id else { return Ok(Change::Evidence) };
        let grant = self.grant_at(envelope, id, |_| true)?;
        let refusals = grant.refusals.saturating_add(1);
        Ok(self.put_break_glass(revision, BreakGlassGrant { refusals, ..grant }))
    }

    pub(super) fn break_glass_ended(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassEnded,
    ) -> Result<Change, Fault> {
        let grant = self.grant_at(envelope, event.grant_id, |it| it.ended.is_none())?;
        let ended = Some(BreakGlassGrant::end(revision, envelope, event));
        Ok(self.put_break_glass(revision, BreakGlassGrant { ended, ..grant }))
    }

    pub(super) fn break_glass_escalated(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassEscalated,
    ) -> Result<Change, Fault> {
        let grant = self.grant_at(envelope, event.grant_id, |it| {
            it.ended.is_some() && it.reviewed.is_none() && it.escalated_at.is_none()
        })?;
        let escalated_at = Some(envelope.at);
        Ok(self.put_break_glass(revision, BreakGlassGrant { escalated_at, ..grant }))
    }

    pub(super) fn break_glass_reviewed(
        &mut self,
        revision: Revision,
        envelope: &Envelope,
        event: &BreakGlassReviewed,
    ) -> Result<Change, Fault> {
        let grant = self
            .grant_at(envelope, event.grant_id, |it| it.ended.is_some() && it.reviewed.is_none())?;
        let reviewed = Some(Review {
            account_id: event.account_id,
            custodian: event.custodian.clone(),
            finding: event.finding,
            act: Act::of(revision, envelope),
        });
        Ok(self.put_break_glass(revision, BreakGlassGrant { reviewed, ..grant }))
    }

    /// A grant that has come as far as an event of it needs, to be changed.
    fn grant_at(
        &self,
        envelope: &Envelope,
        id: BreakGlassGrantId,
        is_there: impl Fn(&BreakGlassGrant) -> bool,
    ) -> Result<BreakGlassGrant, Fault> {
        let grant = self.break_glass_grant(id).filter(|grant| is_there(grant));
        let grant = grant.ok_or_else(|| Fault::MissingTarget(envelope.event.event_type()))?;
        Ok(BreakGlassGrant::clone(grant))
    }

    fn put_break_glass(&mut self, revision: Revision, grant: BreakGlassGrant) -> Change {
        let id = grant.id;
        let table: &mut BreakGlassTable = Arc::make_mut(&mut self.break_glass);
        table.put(BreakGlassGrant { changed_at: revision, ..grant });
        Change::BreakGlass(id)
    }
}

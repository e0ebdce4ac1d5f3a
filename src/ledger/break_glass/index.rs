//! Break-glass grants of all organizations: how a token is found, what is about to end, how
//! many were opened lately, and who is told at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use projections::break_glass::{BreakGlassGrant, GrantState};
use projections::digest::SecretDigest;
use projections::event::DenialCode;
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::text::Label;
use projections::time::Timestamp;
use tokio::sync::{Notify, broadcast};

/// Alerts that are kept for whoever is slow to take them.
const ALERTS_KEPT: usize = 1_024;

/// What somebody must hear of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// A grant was opened, and permits what it says.
    Opened,
    /// A grant was asked for, and awaits approval.
    AwaitsApproval,
    /// A grant was approved.
    Approved,
    /// A request under a master key or a grant was refused.
    Refused,
    /// A grant ended.
    Ended,
    /// A grant was not reviewed in time.
    Escalated,
    /// A grant was reviewed.
    Reviewed,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Opened,
        Self::AwaitsApproval,
        Self::Approved,
        Self::Refused,
        Self::Ended,
        Self::Escalated,
        Self::Reviewed,
    ];

    /// Its name: lower case, and the same for good.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::AwaitsApproval => "awaits_approval",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Escalated => "escalated",
            Self::Reviewed => "reviewed",
        }
    }
}

/// An alert: what happened is on disk by now.
#[derive(Clone, Debug)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// When it was recorded.
    pub at: Timestamp,
    /// The organization in whose history it stands.
    pub organization_id: OrganizationId,
    /// Whose master key was shown, or opened the grant.
    pub custodian: Label,
    /// The grant as it was then; none where none was found, nor opened.
    pub grant: Option<Arc<BreakGlassGrant>>,
    /// Why a request was refused, where that is known.
    pub code: Option<DenialCode>,
}

/// Break-glass grants of all organizations.
pub struct BreakGlassIndex {
    state: Mutex<State>,
    alerts: broadcast::Sender<Alert>,
    /// How many alerts there were of each kind, in the order of [`AlertKind::ALL`].
    counts: [AtomicU64; AlertKind::ALL.len()],
    /// Whether what is published from here on happens now, and is no history.
    live: AtomicBool,
    moved: Notify,
}

#[derive(Default)]
struct State {
    tokens: HashMap<SecretDigest, (OrganizationId, BreakGlassGrantId)>,
    openings: BTreeSet<(Timestamp, BreakGlassGrantId)>,
    /// The grants that something is still to come of: an end, or a review.
    unfinished: BTreeMap<BreakGlassGrantId, (OrganizationId, Arc<BreakGlassGrant>)>,
}

/// How many grants wait for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakGlassGauges {
    /// Those that await approval.
    pub awaiting_approval: u64,
    /// Those that permit what they say.
    pub open: u64,
    /// Those that ended and were not reviewed.
    pub unreviewed: u64,
    /// Those of them whose review is overdue.
    pub overdue: u64,
}

impl BreakGlassIndex {
    pub(in crate::ledger) fn new() -> Self {
        Self {
            state: Mutex::default(),
            alerts: broadcast::Sender::new(ALERTS_KEPT),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            live: AtomicBool::new(false),
            moved: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic inside leaves maps of plain values whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a row up, which was that before, and tells of what happened to it.
    pub(in crate::ledger) fn put(
        &self,
        organization_id: OrganizationId,
        at: Timestamp,
        before: Option<&Arc<BreakGlassGrant>>,
        grant: &Arc<BreakGlassGrant>,
    ) {
        let mut state = self.state();
        let id = grant.id;
        if let Some(token) = &grant.token {
            state.tokens.insert(token.blake3, (organization_id, id));
        }
        state.openings.insert((grant.opened_at, id));
        if grant.reviewed.is_some() {
            state.unfinished.remove(&id);
        } else {
            state.unfinished.insert(id, (organization_id, Arc::clone(grant)));
        }
        drop(state);
        if !self.live.load(Ordering::Acquire) {
            return;
        }
        if before.is_none_or(|before| before.uses == grant.uses) {
            self.moved.notify_one();
        }
        if let Some(kind) = happened(before, grant) {
            self.tell(Alert {
                kind,
                at,
                organization_id,
                custodian: grant.custodian.clone(),
                grant: Some(Arc::clone(grant)),
                code: None,
            });
        }
    }

    /// From here on what is published happens now.
    pub(super) fn go_live(&self) {
        self.live.store(true, Ordering::Release);
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self, alert: Alert) {
        let place = AlertKind::ALL.iter().position(|kind| *kind == alert.kind);
        if let Some(count) = place.and_then(|place| self.counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let grant = alert.grant.as_ref().map(|it| it.id.text()).unwrap_or_default();
        tracing::warn!(
            kind = alert.kind.name(),
            organization = %alert.organization_id,
            custodian = %alert.custodian,
            grant,
            "break-glass"
        );
        // Nobody may be listening.
        let _ = self.alerts.send(alert);
    }

    /// All alerts from here on. Whoever takes them too slowly is told that some are missing.
    #[must_use]
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.alerts.subscribe()
    }

    /// How many alerts of each kind there were since the start.
    pub fn counts(&self) -> impl Iterator<Item = (AlertKind, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        AlertKind::ALL.into_iter().zip(counts)
    }

    /// How many grants wait for what, at this instant.
    #[must_use]
    pub fn gauges(&self, now: Timestamp) -> BreakGlassGauges {
        let mut gauges = BreakGlassGauges::default();
        for (_, grant) in self.state().unfinished.values() {
            match grant.state(now) {
                GrantState::AwaitingApproval => gauges.awaiting_approval += 1,
                GrantState::Open => gauges.open += 1,
                GrantState::Ended => gauges.unreviewed += 1,
                GrantState::Reviewed => {}
            }
            gauges.overdue += u64::from(grant.escalated_at.is_some());
        }
        gauges
    }

    /// The grant that one of these digests of a token leads to.
    pub(super) fn by_token(
        &self,
        mut digests: impl Iterator<Item = SecretDigest>,
    ) -> Option<(OrganizationId, BreakGlassGrantId)> {
        let state = self.state();
        digests.find_map(|digest| state.tokens.get(&digest).copied())
    }

    /// How many grants were opened at this instant or later.
    pub(super) fn openings_since(&self, since: Timestamp) -> u32 {
        let first = (since, BreakGlassGrantId::from_bytes([0; 16]));
        u32::try_from(self.state().openings.range(first..).count()).unwrap_or(u32::MAX)
    }

    /// The grants that something is still to come of.
    pub(super) fn unfinished(&self) -> Vec<(OrganizationId, Arc<BreakGlassGrant>)> {
        self.state().unfinished.values().cloned().collect()
    }

    /// Waits until something came of a grant, beside uses.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }
}

/// What happened to a grant, where somebody must hear of it.
fn happened(before: Option<&Arc<BreakGlassGrant>>, now: &BreakGlassGrant) -> Option<AlertKind> {
    let Some(before) = before else {
        return Some(match now.awaits_approval {
            true => AlertKind::AwaitsApproval,
            false => AlertKind::Opened,
        });
    };
    if before.refusals != now.refusals {
        return Some(AlertKind::Refused);
    }
    let marks = [
        (before.approved.is_none() && now.approved.is_some(), AlertKind::Approved),
        (before.ended.is_none() && now.ended.is_some(), AlertKind::Ended),
        (before.escalated_at.is_none() && now.escalated_at.is_some(), AlertKind::Escalated),
        (before.reviewed.is_none() && now.reviewed.is_some(), AlertKind::Reviewed),
    ];
    marks.into_iter().find_map(|(is_so, kind)| is_so.then_some(kind))
}

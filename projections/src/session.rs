//! Sessions: what somebody who logged in may do, until it ends.

use crate::envelope::Envelope;
use crate::event::{AuthenticationMethod, SessionEndReason, SessionStarted};
use crate::id::{AccountId, SessionId, UserId};
use crate::key::Act;
use crate::recorded::Revision;
use crate::time::Timestamp;

/// How long a session that is over stays in the tables, in milliseconds of the stream's own
/// time: longer than any access token lives.
pub const SESSION_MEMORY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A session as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's account.
    pub account_id: AccountId,
    /// How often all sessions of the account had been ended when it began.
    pub epoch: u64,
    /// How its user showed who they are, each once, in order.
    pub methods: Vec<AuthenticationMethod>,
    /// When they last showed it by a second factor; none for never.
    pub second_factor_at: Option<Timestamp>,
    /// When it began.
    pub started_at: Timestamp,
    /// The first instant at which it is over.
    pub expires_at: Timestamp,
    /// How it ended before that; none where it did not.
    pub ended: Option<SessionEnd>,
    /// The event that began it, which also holds where from, sealed.
    pub started_by: Revision,
    /// The event that last changed this row.
    pub changed_at: Revision,
}

/// How a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// Why.
    pub reason: SessionEndReason,
    /// Who ended it, and when.
    pub act: Act,
}

/// What an account says of its sessions: which of them it has ended, whatever organization
/// they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How often all of them were ended.
    pub epoch: u64,
    /// The one that the last such end spared.
    pub kept: Option<SessionId>,
}

impl Standing {
    /// Whether the account has not ended this session.
    #[must_use]
    pub fn spares(&self, session: &Session) -> bool {
        session.epoch == self.epoch || self.kept == Some(session.id)
    }
}

impl Session {
    /// The row that a login makes.
    pub(crate) fn started(revision: Revision, envelope: &Envelope, event: &SessionStarted) -> Self {
        let second = event.methods.iter().any(|it| it.is_second_factor());
        Self {
            id: event.session_id,
            user_id: event.user_id,
            account_id: event.account_id,
            epoch: event.epoch,
            methods: event.methods.clone(),
            second_factor_at: second.then_some(envelope.at),
            started_at: envelope.at,
            expires_at: event.expires_at,
            ended: None,
            started_by: revision,
            changed_at: revision,
        }
    }

    /// The instant from which the tables need not know it any more.
    pub(crate) fn forgotten_at(&self) -> Timestamp {
        let over = self.ended.map_or(self.expires_at, |end| end.act.at);
        over.saturating_add_millis(SESSION_MEMORY_MS)
    }

    /// Whether it is over at this instant by its own time.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

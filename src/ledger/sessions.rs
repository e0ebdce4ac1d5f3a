//! Sessions as they are found: what an access token says, and whether its session stands.
//!
//! A token says which session it is of, and nothing that counts beside: the session is looked
//! up in the tables of its organization with every question, and so is what its account says
//! of it.

use std::sync::Arc;

use projections::id::{OrganizationId, SessionId, UserId};
use projections::organization::Organization;
use projections::presented::{Deciding, Presented};
use projections::session::{Session, Standing};
use projections::time::Timestamp;
use projections::verification::{self, Code, Question};

use super::accounts::StreamStopped;
use super::accounts::command::HeldSession;
use super::command::{Caller, Command, SessionsOf};
use super::sign_in::SignIn;
use super::sign_in::access_token::{AccessTokenError, Refusal};
use super::tables::Published;
use super::verify::{Answer, Reach};
use super::{Ledger, LedgerError};

/// A session that an access token was shown of: it is no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownSession {
    /// The organization that the session is in.
    pub organization_id: OrganizationId,
    /// The session.
    pub session_id: SessionId,
    /// Whose session the token says it is.
    pub user_id: UserId,
    /// The first instant at which the token is no longer good.
    pub expires_at: Timestamp,
}

/// What callers are told of a token that is none of ours, or not good yet.
fn code(error: AccessTokenError) -> Code {
    match error.refusal() {
        Refusal::Malformed => Code::Malformed,
        Refusal::Unknown => Code::Unknown,
        Refusal::Expired => Code::Expired,
    }
}

impl Ledger {
    /// What signing in rests on; none before the node set it up.
    #[must_use]
    pub fn sign_in(&self) -> Option<&Arc<SignIn>> {
        self.sign_in.get()
    }

    /// Lets people sign in by these means from here on.
    pub fn begin_sign_in(&self, sign_in: Arc<SignIn>) {
        // A second time changes nothing: there is one.
        let _ = self.sign_in.set(sign_in);
    }

    /// The session that a request presents by an access token of ours, if that is what
    /// decides about the request.
    #[must_use]
    pub fn shown_session(&self, presented: Presented<'_>) -> Option<ShownSession> {
        let Ok(Deciding::Session(token)) = presented.deciding() else {
            return None;
        };
        self.recognise(token).ok()
    }

    pub(super) fn recognise(&self, token: &str) -> Result<ShownSession, Code> {
        // Where nobody signs in no token is one of ours.
        let sign_in = self.sign_in().ok_or(Code::Unknown)?;
        let claims = sign_in.access_tokens.recognise(token).map_err(code)?;
        match claims.good_at(self.clock().now()) {
            Ok(()) | Err(AccessTokenError::Expired) => {}
            Err(error) => return Err(code(error)),
        }
        Ok(ShownSession {
            organization_id: claims.organization_id,
            session_id: claims.session_id,
            user_id: claims.user_id,
            expires_at: claims.expires_at(),
        })
    }

    /// Decides about a session.
    pub(super) fn decide_session<R>(
        &self,
        shown: &ShownSession,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        if !reach.includes(shown.organization_id) {
            return with(Answer::Refused(Code::Unknown));
        }
        let Some(published) = self.tables().organization(shown.organization_id) else {
            return with(Answer::Refused(Code::Unknown));
        };
        if published.stopped().is_some() {
            return with(Answer::Unavailable(published.id));
        }
        let tables = published.tables();
        let session = tables.session(shown.session_id).filter(|it| it.user_id == shown.user_id);
        let Some(session) = session else {
            // It has been over for long: its tokens with it.
            let over = question.now >= shown.expires_at;
            return with(Answer::Refused(if over { Code::Expired } else { Code::Unknown }));
        };
        // What cannot be known is no yes: the account's history may be corrupt.
        let Ok(standing) = self.standing(session) else {
            return with(Answer::Unavailable(published.id));
        };
        let operator;
        let operator = if published.id.is_operator() {
            &*tables
        } else {
            operator = self.tables().operator().tables();
            &*operator
        };
        let expires_at = shown.expires_at;
        let decision = verification::decide_session(
            session, standing, expires_at, &tables, operator, question,
        );
        if let Some(tenant) = self.stopped_tenant(&decision) {
            return with(Answer::Unavailable(tenant));
        }
        with(Answer::Decided(decision))
    }

    /// What the account of the session that a command is given with says of it; none for
    /// other callers, and where the session is not known.
    pub(super) fn callers_standing(
        &self,
        caller: Caller,
        state: &Organization,
        operator: &Organization,
    ) -> Result<Option<Standing>, StreamStopped> {
        let Caller::Session { organization_id, session_id, .. } = caller else { return Ok(None) };
        let home = if organization_id == state.id { state } else { operator };
        let session = Some(home).filter(|it| it.id == organization_id);
        match session.and_then(|home| home.session(session_id)) {
            Some(session) => self.standing(session),
            None => Ok(None),
        }
    }

    /// Whether a session is in force, as its organization says; true where there is none. What
    /// its account says of it is not asked.
    ///
    /// Whoever asks holds its account: see [`Ledger::await_account`].
    ///
    /// # Errors
    ///
    /// The organization's history is corrupt: nobody knows.
    pub(super) fn in_force(&self, session: Option<HeldSession>) -> Result<bool, LedgerError> {
        let Some(held) = session else { return Ok(true) };
        let Some(published) = self.tables().organization(held.organization_id) else {
            return Ok(false);
        };
        if let Some(source) = published.stopped() {
            let (organization_id, source) = (published.id, source.clone());
            return Err(LedgerError::Stopped { organization_id, source });
        }
        let tables = published.tables();
        let now = self.now_for(&tables);
        let session = tables.session(held.id);
        let session = session.filter(|it| it.ended.is_none() && !it.is_expired(now));
        let user = session.and_then(|it| tables.user(it.user_id));
        Ok(user.is_some_and(|it| it.is_in_force()))
    }

    /// Whether a session is in force, whenever the token was good that was shown of it.
    ///
    /// # Errors
    ///
    /// A history is corrupt: nobody knows.
    pub fn is_in_force(&self, shown: &ShownSession) -> Result<bool, LedgerError> {
        let ShownSession { organization_id, session_id, user_id, .. } = *shown;
        let Some(published) = self.tables().organization(organization_id) else {
            return Ok(false);
        };
        let session = published.tables().session(session_id).cloned();
        let Some(session) = session.filter(|it| it.user_id == user_id) else { return Ok(false) };
        let held = HeldSession { organization_id, id: session_id, epoch: session.epoch };
        let in_force = self.in_force(Some(held))?;
        Ok(in_force && self.session_stands(session.account_id, session_id, session.epoch)?)
    }

    /// Before the end of a session is acknowledged, what was decided of its account on its
    /// being in force has landed: nothing done with it comes after.
    ///
    /// # Errors
    ///
    /// It takes too long. The session is ended all the same.
    pub(super) async fn await_account(
        &self,
        organization: &Published,
        command: &Command,
    ) -> Result<(), LedgerError> {
        let account = match command.may_end_sessions() {
            None => None,
            Some(SessionsOf::Account(id)) => Some(id),
            Some(SessionsOf::User(id)) => {
                organization.tables().user(id).and_then(|it| it.account_id)
            }
            Some(SessionsOf::Session(id)) => {
                organization.tables().session(id).map(|it| it.account_id)
            }
        };
        match account {
            Some(id) => self.accounts().settled(id).await,
            None => Ok(()),
        }
    }

    /// What the account of a session says of it; none where there is no such account.
    ///
    /// # Errors
    ///
    /// The account's history is corrupt: nobody knows.
    pub(super) fn standing(&self, session: &Session) -> Result<Option<Standing>, StreamStopped> {
        let account = self.accounts().find(session.account_id)?;
        let Some(account) = account else { return Ok(None) };
        let account = account.account()?;
        Ok(Some(Standing { epoch: account.epoch(), kept: account.kept() }))
    }
}

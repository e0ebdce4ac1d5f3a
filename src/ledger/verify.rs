//! The way of a question to its answer.
//!
//! A look-up by digest, the pure decision of [`projections::verification`], a note of what
//! came of it, and nothing else: no lock that a writer holds, no allocation where the answer
//! is yes, no I/O.

use std::time::Duration;

use projections::api_key;
use projections::digest::SecretDigest;
use projections::event::{DigestForm, KeyOrigin};
use projections::id::{BreakGlassGrantId, KeyId, OrganizationId};
use projections::key::Key;
use projections::organization::Organization;
use projections::presented::{Deciding, Presented};
use projections::principal::Credential;
use projections::recorded::Revision;
use projections::text::KeyPrefix;
use projections::time::Timestamp;
use projections::verification::{self, Code, Decision, Question};
use sha2::{Digest as _, Sha256};

use super::break_glass::Emergency;
use super::dead::DeadTicket;
use super::sessions::ShownSession;
use super::snapshot_store::SnapshotError;
use super::tables::{IndexView, IndexedKey};
use super::usage::{Looked, Uses};
use super::{Ledger, denials};

/// Whose credentials the asker may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anybody's.
    Installation,
    /// Those of one organization; all others are unknown to it.
    Organization(OrganizationId),
}

impl Reach {
    pub(super) fn includes(self, id: OrganizationId) -> bool {
        match self {
            Self::Installation => true,
            Self::Organization(own) => own == id,
        }
    }
}

/// What a look at a credential is for, and so what is noted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know. Nothing is noted.
    Look,
    /// Somebody knocks with it. What keeps them out is noted; the rest is once they come in.
    Knock,
    /// Somebody calls the ledger with it: a use of the key.
    Enter,
    /// Somebody whose call is under way is looked at again.
    Again,
    /// Somebody sends another message on a call that stays: a use of the key, but no
    /// further call, where calls are limited.
    Message,
    /// Somebody asks about it, with this: a use of the key that is asked about.
    Ask(Credential),
}

/// Who asks, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Whose credentials they may know.
    pub reach: Reach,
    /// What for.
    pub purpose: Purpose,
}

impl From<Reach> for Asking {
    fn from(reach: Reach) -> Self {
        Self { reach, purpose: Purpose::Look }
    }
}

impl Purpose {
    /// Whether what is allowed counts as a use.
    fn uses(self) -> bool {
        matches!(self, Self::Enter | Self::Message | Self::Ask(_))
    }

    /// Whether this denial is to be noted now.
    fn notes(self, code: Code) -> bool {
        match self {
            Self::Look => false,
            Self::Knock => !matches!(
                code,
                Code::PermissionDenied
                    | Code::DomainNotAllowed
                    | Code::ServiceNotAllowed
                    | Code::FeatureNotLicensed
                    | Code::MfaRequired
            ),
            Self::Enter | Self::Again | Self::Message | Self::Ask(_) => true,
        }
    }
}

/// The answer to a question.
pub enum Answer<'a> {
    /// A known credential was decided about.
    Decided(Decision<'a>),
    /// A known credential was decided about and would be allowed, but has been used as
    /// often as it may for now. The code of the decision says so.
    RateLimited {
        /// The decision.
        decision: Decision<'a>,
        /// How long until it may be used again, if it is not used meanwhile.
        retry_after: Duration,
    },
    /// No credential that the asker may know was presented; the code says how so.
    Refused(Code),
    /// The ledger cannot know: the organization's history proved corrupt.
    Unavailable(OrganizationId),
    /// It is a key that ended long ago, and what is known of it is on the disk:
    /// [`Ledger::recall`] reads it, and the question is then asked again.
    Elsewhere(DeadTicket),
    /// It is a credential of break-glass: nothing is decided until that is recorded.
    /// [`Ledger::use_break_glass`] does both.
    Emergency(Emergency),
}

/// A credential that was shown, as it is looked up again.
#[derive(Clone, Copy)]
pub enum Held {
    /// A key, by what stands for its secret.
    Key(SecretDigest),
    /// A session.
    Session(ShownSession),
    /// A break-glass grant, whose use was recorded when it was shown.
    BreakGlass {
        /// The organization that it is for.
        organization_id: OrganizationId,
        /// The grant.
        grant_id: BreakGlassGrantId,
    },
}

/// How a key that was found is used.
struct Found<'a> {
    key: &'a Key,
    uses: &'a Uses,
    looked: Looked,
}

impl Ledger {
    /// Decides about what a request presents, notes what is to be noted of it, and gives
    /// the answer to `with`.
    pub fn verify<R>(
        &self,
        presented: Presented<'_>,
        question: &Question<'_>,
        asking: impl Into<Asking>,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let Asking { reach, purpose } = asking.into();
        let with = |found: Option<Found<'_>>, answer: Answer<'_>| {
            with(self.noted(found, answer, question, purpose))
        };
        match presented.deciding() {
            Err(code) => with(None, Answer::Refused(code)),
            Ok(Deciding::Session(token)) => match self.recognise(token) {
                Ok(shown) => {
                    self.decide_session(&shown, question, reach, |answer| with(None, answer))
                }
                Err(code) => with(None, Answer::Refused(code)),
            },
            Ok(Deciding::BreakGlass(text)) => match self.emergency(text, reach) {
                Ok(emergency) => with(None, Answer::Emergency(emergency)),
                Err(code) => with(None, Answer::Refused(code)),
            },
            Ok(Deciding::ApiKey(text)) => self.verify_api_key(text, question, reach, with),
            Ok(Deciding::GlobalKey(text)) => self.verify_global_key(text, question, reach, with),
        }
    }

    /// Notes an answer: a use, which may be one too many, or a denial.
    #[inline]
    fn noted<'a>(
        &self,
        found: Option<Found<'_>>,
        answer: Answer<'a>,
        question: &Question<'_>,
        purpose: Purpose,
    ) -> Answer<'a> {
        let answer = match (answer, found) {
            (Answer::Decided(decision), Some(Found { key, uses, looked }))
                if decision.code == Code::Allowed && purpose.uses() =>
            {
                let limit = key.rate_limit().filter(|_| purpose != Purpose::Message);
                let (owner, id) = (decision.organization_id, key.id);
                let first = || self.first_of_rotation(owner, key);
                match limit.map(|limit| self.rate_limits.take(owner, id, limit, first)) {
                    Some(Err(retry_after)) => {
                        let decision = Decision { code: Code::RateLimited, ..decision };
                        Answer::RateLimited { decision, retry_after }
                    }
                    None | Some(Ok(())) => {
                        if uses.count(looked, question.now) {
                            self.noted.note(key.digest.blake3.head());
                        }
                        return Answer::Decided(decision);
                    }
                }
            }
            (answer, _) => answer,
        };
        let (code, known) = match &answer {
            // Nothing is known yet.
            Answer::Unavailable(_) | Answer::Elsewhere(_) | Answer::Emergency(_) => return answer,
            Answer::Refused(code) => (*code, None),
            Answer::Decided(decision) | Answer::RateLimited { decision, .. } => {
                (decision.code, Some((decision.organization_id, decision.credential.id())))
            }
        };
        // What is refused under a grant is an event of its own.
        let is_recorded = matches!(known, Some((_, Credential::BreakGlass(_))));
        if purpose.notes(code)
            && !is_recorded
            && let Some(code) = denials::code(code)
        {
            self.note_denial(known, code, question, purpose);
        }
        answer
    }

    /// The instant of what is asked of these tables now: no earlier than they, or the
    /// operator's, have seen. See [`Organization::no_earlier`].
    #[must_use]
    pub fn now_for(&self, tables: &Organization) -> Timestamp {
        self.tables.operator().tables().no_earlier(tables.no_earlier(self.clock.now()))
    }

    /// The first key of a key's rotation; itself where it took no other's place.
    fn first_of_rotation(&self, owner: OrganizationId, key: &Key) -> KeyId {
        let organization = self.tables.organization(owner);
        organization.map_or(key.id, |it| it.tables().first_of_rotation(key))
    }

    fn verify_api_key<R>(
        &self,
        text: &str,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Option<Found<'_>>, Answer<'_>) -> R,
    ) -> R {
        let prefix = api_key::prefix_of(text);
        if prefix.is_none() && !self.tables.has_foreign_keys() {
            return with(None, Answer::Refused(Code::Malformed));
        }
        let index = self.tables.index();
        let found = self.find(&index, text);
        // Shown as an API key, the global key is none.
        let found = found.filter(|(_, found)| found.key.origin() != KeyOrigin::Global);
        let Some((digest, found)) = found else {
            if let Some(ticket) = self.dead_ticket(text) {
                return match self.recalled(&ticket) {
                    Some(found) => self.verify_dead(found.as_deref(), question, reach, |answer| {
                        with(None, answer)
                    }),
                    None => with(None, Answer::Elsewhere(ticket)),
                };
            }
            return with(
                None,
                match prefix {
                    None => Answer::Refused(Code::Malformed),
                    Some(prefix) => self.unknown(prefix, reach),
                },
            );
        };
        self.decide_found(&index, &digest, found, question, reach, with)
    }

    fn verify_global_key<R>(
        &self,
        text: &str,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Option<Found<'_>>, Answer<'_>) -> R,
    ) -> R {
        let index = self.tables.index();
        match self.find_global(&index, text) {
            Some((digest, found)) => {
                self.decide_found(&index, &digest, found, question, reach, with)
            }
            None => with(None, Answer::Refused(Code::Unknown)),
        }
    }

    /// Whether this text is the global key, or one that was the global key: what a value of
    /// `X-API-Key` is then. Where there never was any, that costs nothing.
    #[must_use]
    pub fn is_global_key(&self, text: &str) -> bool {
        self.tables.has_global_keys() && self.find_global(&self.tables.index(), text).is_some()
    }

    fn find_global<'a>(
        &self,
        index: &'a IndexView<'_>,
        text: &str,
    ) -> Option<(SecretDigest, &'a IndexedKey)> {
        self.find_by(index, DigestForm::Sha256, &Sha256::digest(text.as_bytes()))
            .filter(|(_, found)| found.key.origin() == KeyOrigin::Global)
    }

    /// Decides anew about a credential that was decided about before: nothing of the earlier
    /// decision counts.
    pub fn verify_again<R>(
        &self,
        held: &Held,
        question: &Question<'_>,
        asking: impl Into<Asking>,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let Asking { reach, purpose } = asking.into();
        let with = |found: Option<Found<'_>>, answer: Answer<'_>| {
            with(self.noted(found, answer, question, purpose))
        };
        match held {
            Held::Key(digest) => {
                let index = self.tables.index();
                match index.key(digest) {
                    Some(found) => self.decide_found(&index, digest, found, question, reach, with),
                    None => with(None, Answer::Refused(Code::Unknown)),
                }
            }
            Held::Session(shown) => {
                self.decide_session(shown, question, reach, |answer| with(None, answer))
            }
            Held::BreakGlass { organization_id, grant_id } => {
                self.decide_grant(*organization_id, *grant_id, question, |it| with(None, it))
            }
        }
    }

    /// Decides about a break-glass grant whose use is recorded already.
    fn decide_grant<R>(
        &self,
        organization_id: OrganizationId,
        grant_id: BreakGlassGrantId,
        question: &Question<'_>,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let Some(published) = self.tables.organization(organization_id) else {
            return with(Answer::Refused(Code::Unknown));
        };
        if published.stopped().is_some() {
            return with(Answer::Unavailable(organization_id));
        }
        let (tables, operator) = (published.tables(), self.tables.operator().tables());
        with(match tables.break_glass_grant(grant_id) {
            Some(grant) => Answer::Decided(verification::decide_break_glass(
                grant, &tables, &operator, question,
            )),
            None => Answer::Refused(Code::Unknown),
        })
    }

    fn decide_found<R>(
        &self,
        index: &IndexView<'_>,
        digest: &SecretDigest,
        found: &IndexedKey,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Option<Found<'_>>, Answer<'_>) -> R,
    ) -> R {
        let published = &found.organization;
        if !reach.includes(published.id) {
            return with(None, Answer::Refused(Code::Unknown));
        }
        loop {
            if published.stopped().is_some() {
                return with(None, Answer::Unavailable(published.id));
            }
            let tables = published.tables();
            // INVARIANT (tables.rs): a row read after the tables is no older than they are,
            // and if it is at most one event newer, that event changed this row alone.
            let Some(found) = index.latest(digest) else {
                return with(None, Answer::Refused(Code::Unknown));
            };
            if found.key.changed_at > Revision::after(tables.revision()) {
                continue;
            }
            let operator;
            let operator = if published.id.is_operator() {
                &*tables
            } else {
                operator = self.tables.operator().tables();
                &*operator
            };
            let used = Found { key: &found.key, uses: &found.uses, looked: found.uses.look() };
            let decision = verification::decide(&found.key, &tables, operator, question);
            if let Some(tenant) = self.stopped_tenant(&decision) {
                return with(None, Answer::Unavailable(tenant));
            }
            return with(Some(used), Answer::Decided(decision));
        }
    }

    /// The organization that a decision is for, where that is another one than the
    /// credential's and its history proved corrupt.
    pub(super) fn stopped_tenant(&self, decision: &Decision<'_>) -> Option<OrganizationId> {
        let tenant = Some(decision.tenant_id).filter(|it| *it != decision.organization_id)?;
        let organization = self.tables.organization(tenant)?;
        organization.stopped().map(|_| tenant)
    }

    /// Which key this text is the secret of, if the asker may know.
    ///
    /// # Errors
    ///
    /// It is a key that ended long ago, and which one cannot be known now.
    pub async fn key_of(
        &self,
        text: &str,
        reach: Reach,
    ) -> Result<Option<(OrganizationId, KeyId)>, SnapshotError> {
        let found = self.find(&self.tables.index(), text).map(|(_, found)| {
            let IndexedKey { key, organization, uses: _ } = found;
            (organization.id, key.id)
        });
        let found = match (found, self.dead_ticket(text)) {
            (None, Some(ticket)) => {
                let dead = self.dead_key_of(ticket).await?;
                dead.map(|it| (it.organization.id, it.key.id))
            }
            (found, _) => found,
        };
        Ok(found.filter(|(organization, _)| reach.includes(*organization)))
    }

    /// The key that this text is the secret of, and its digest.
    fn find<'a>(
        &self,
        index: &'a IndexView<'_>,
        text: &str,
    ) -> Option<(SecretDigest, &'a IndexedKey)> {
        let by_text = self.find_by(index, DigestForm::Text, text.as_bytes());
        if by_text.is_some() || !self.tables.has_sha256_keys() {
            return by_text;
        }
        self.find_by(index, DigestForm::Sha256, &Sha256::digest(text.as_bytes()))
    }

    fn find_by<'a>(
        &self,
        index: &'a IndexView<'_>,
        form: DigestForm,
        bytes: &[u8],
    ) -> Option<(SecretDigest, &'a IndexedKey)> {
        self.peppers.digests(bytes).find_map(|digest| {
            let found = index.key(&digest).filter(|found| found.key.digest.form == form)?;
            Some((digest, found))
        })
    }

    /// A key that was never seen: unknown, unless its organization cannot say.
    fn unknown(&self, prefix: &str, reach: Reach) -> Answer<'static> {
        if self.tables.any_stopped() {
            let operator = self.tables.operator().tables();
            let owner = operator.installation().and_then(|installation| {
                installation.prefixes.get(&prefix.parse::<KeyPrefix>().ok()?).copied()
            });
            let stopped = owner
                .filter(|id| reach.includes(*id))
                .and_then(|id| self.tables.organization(id))
                .filter(|organization| organization.stopped().is_some());
            if let Some(organization) = stopped {
                return Answer::Unavailable(organization.id);
            }
        }
        Answer::Refused(Code::Unknown)
    }
}

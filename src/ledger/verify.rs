//! The way of a question to its answer.
//!
//! A look-up by digest, the pure decision of [`projections::verification`], and nothing
//! else: no lock that a writer holds, no allocation where the answer is yes, no I/O.

use projections::api_key;
use projections::digest::SecretDigest;
use projections::event::DigestForm;
use projections::id::{KeyId, OrganizationId};
use projections::presented::{Deciding, Presented};
use projections::recorded::Revision;
use projections::text::KeyPrefix;
use projections::verification::{self, Code, Decision, Question};
use sha2::{Digest as _, Sha256};

use super::Ledger;
use super::tables::{IndexView, IndexedKey};

/// Whose credentials the asker may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anybody's.
    Installation,
    /// Those of one organization; all others are unknown to it.
    Organization(OrganizationId),
}

impl Reach {
    fn includes(self, id: OrganizationId) -> bool {
        match self {
            Self::Installation => true,
            Self::Organization(own) => own == id,
        }
    }
}

/// The answer to a question.
pub enum Answer<'a> {
    /// A known credential was decided about.
    Decided(Decision<'a>),
    /// No credential that the asker may know was presented; the code says how so.
    Refused(Code),
    /// The ledger cannot know: the organization's history proved corrupt.
    Unavailable(OrganizationId),
}

impl Ledger {
    /// Decides about what a request presents, and gives the answer to `with`.
    pub fn verify<R>(
        &self,
        presented: Presented<'_>,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        match presented.deciding() {
            Err(code) => with(Answer::Refused(code)),
            // No session is ever issued by this version, so none is known.
            Ok(Deciding::Session(_)) => with(Answer::Refused(Code::Unknown)),
            Ok(Deciding::ApiKey(text)) => self.verify_api_key(text, question, reach, with),
        }
    }

    fn verify_api_key<R>(
        &self,
        text: &str,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let prefix = api_key::prefix_of(text);
        if prefix.is_none() && !self.tables.has_foreign_keys() {
            return with(Answer::Refused(Code::Malformed));
        }
        let index = self.tables.index();
        let Some((digest, found)) = self.find(&index, text) else {
            return with(match prefix {
                None => Answer::Refused(Code::Malformed),
                Some(prefix) => self.unknown(prefix, reach),
            });
        };
        self.decide_found(&index, &digest, found, question, reach, with)
    }

    /// Decides anew about a key that was decided about before, by its digest: nothing of
    /// the earlier decision counts.
    pub fn verify_again<R>(
        &self,
        digest: &SecretDigest,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let index = self.tables.index();
        match index.key(digest) {
            Some(found) => self.decide_found(&index, digest, found, question, reach, with),
            None => with(Answer::Refused(Code::Unknown)),
        }
    }

    fn decide_found<R>(
        &self,
        index: &IndexView<'_>,
        digest: &SecretDigest,
        found: &IndexedKey,
        question: &Question<'_>,
        reach: Reach,
        with: impl FnOnce(Answer<'_>) -> R,
    ) -> R {
        let published = &found.organization;
        if !reach.includes(published.id) {
            return with(Answer::Refused(Code::Unknown));
        }
        loop {
            if published.stopped().is_some() {
                return with(Answer::Unavailable(published.id));
            }
            let tables = published.tables();
            // INVARIANT (tables.rs): a row read after the tables is no older than they are,
            // and if it is at most one event newer, that event changed this row alone.
            let Some(found) = index.latest(digest) else {
                return with(Answer::Refused(Code::Unknown));
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
            return with(Answer::Decided(verification::decide(
                &found.key, &tables, operator, question,
            )));
        }
    }

    /// Which key this text is the secret of, if the asker may know.
    #[must_use]
    pub fn key_of(&self, text: &str, reach: Reach) -> Option<(OrganizationId, KeyId)> {
        let index = self.tables.index();
        let (_, found) = self.find(&index, text)?;
        let organization = found.organization.id;
        reach.includes(organization).then_some((organization, found.key.id))
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

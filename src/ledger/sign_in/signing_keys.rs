//! The keys that sign access tokens, over time.
//!
//! A key is made, kept in the vault, and then added by an event of the operator's stream.
//! From then on everybody can fetch its public half; it signs once everybody who keeps the
//! set as long as they may ([`JWKS_MAX_AGE_S`]) has it. The one before it stays until the
//! last token that it may have signed is over, and is then retired: nothing it signed counts
//! any more, and its private half is taken out of the vault.
//!
//! What is due follows from the keys and the time alone ([`Lives::due`], [`Lives::signer`]).
//! [`SigningKeys::tend`] does it, again and again, and picks up where it was cut short.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use projections::digest::SigningKeyId;
use projections::event::SigningKeyAdded;
use projections::id::{AccountId, OrganizationId};
use projections::installation::SigningKeyRow;
use projections::time::Timestamp;
use tokio::sync::Mutex;

use super::access_token::AccessTokens;
use super::signing_key::{SigningKey, SigningKeyError, jwks};
use crate::ledger::command::Command;
use crate::ledger::urgency::Urgency;
use crate::ledger::vault::rows::{RowKind, RowName, RowSecret, RowWritten};
use crate::ledger::vault::{Vault, VaultError};
use crate::ledger::{Ledger, LedgerError};

/// For how long others may keep the set of public halves, in seconds.
pub const JWKS_MAX_AGE_S: u32 = 3_600;
/// Longest that an access token may be good, in seconds: what a retirement waits for,
/// whatever the lifetime is set to today.
pub const ACCESS_LIFETIME_S_MAX: u32 = 3_600;
/// What a retirement waits beyond that, for clocks that differ, in milliseconds.
const RETIREMENT_SPARE_MS: i64 = 300_000;
/// How long a key is published before it signs, in milliseconds.
const LEAD_MS: i64 = JWKS_MAX_AGE_S as i64 * 1_000;
/// How long a key stays after another signs in its place, in milliseconds.
const STAY_MS: i64 = ACCESS_LIFETIME_S_MAX as i64 * 1_000 + RETIREMENT_SPARE_MS;
/// Most that one look does: more is left to the next one.
const STEPS_MAX: usize = 16;

/// Why the keys could not be tended.
#[derive(Debug, thiserror::Error)]
pub enum TendError {
    /// The vault did not do its part.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] SigningKeyError),
    /// The event was not recorded.
    #[error("ledger")]
    Ledger(#[from] LedgerError),
    /// A key was added so short a time ago that it does not sign yet.
    #[error("a signing key was added less than {JWKS_MAX_AGE_S} seconds ago; rotate again later")]
    TooSoon,
}

/// A key that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The key.
    pub id: SigningKeyId,
    /// Since when it is published.
    pub added_at: Timestamp,
    /// Whether its private half is at hand.
    pub at_hand: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A key is to be added.
    Add,
    /// This key is to be retired.
    Retire(SigningKeyId),
}

/// The keys that count, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lives(Vec<Life>);

impl Lives {
    /// These keys.
    #[must_use]
    pub fn of(mut lives: Vec<Life>) -> Self {
        lives.sort_by_key(|life| (life.added_at, life.id));
        Self(lives)
    }

    fn usable(&self) -> impl DoubleEndedIterator<Item = &Life> {
        self.0.iter().filter(|life| life.at_hand)
    }

    /// The key that signs now: the newest that has been published long enough, or else the
    /// oldest; none where none is at hand.
    #[must_use]
    pub fn signer(&self, now: Timestamp) -> Option<SigningKeyId> {
        let long_enough = |life: &&Life| life.added_at.saturating_add_millis(LEAD_MS) <= now;
        let newest = self.usable().rfind(long_enough);
        newest.or_else(|| self.usable().next()).map(|life| life.id)
    }

    /// What is due now, if a key is to be replaced at this age, in milliseconds.
    #[must_use]
    pub fn due(&self, now: Timestamp, replaced_at_ms: i64) -> Option<Due> {
        let Some(newest) = self.usable().next_back() else { return Some(Due::Add) };
        if newest.added_at.saturating_add_millis(replaced_at_ms) <= now {
            return Some(Due::Add);
        }
        // Whose place was taken so long ago that nothing it signed is good any more.
        let over = |life: &&Life| {
            let successor =
                self.usable().find(|other| (other.added_at, other.id) > (life.added_at, life.id));
            successor.is_some_and(|it| {
                it.added_at.saturating_add_millis(LEAD_MS).saturating_add_millis(STAY_MS) <= now
            })
        };
        self.0.iter().find(over).map(|life| Due::Retire(life.id))
    }

    /// Whether a key is published that does not sign yet.
    fn has_one_to_come(&self, now: Timestamp) -> bool {
        let newest = self.usable().next_back();
        self.usable().count() > 1
            && newest.is_some_and(|life| life.added_at.saturating_add_millis(LEAD_MS) > now)
    }
}

/// The keys of an installation, tended.
pub struct SigningKeys {
    access: Arc<AccessTokens>,
    replaced_at_ms: i64,
    signer: ArcSwap<Option<Arc<SigningKey>>>,
    tended: Mutex<Tended>,
}

/// What is known between one look and the next.
#[derive(Default)]
struct Tended {
    at_hand: BTreeMap<SigningKeyId, Arc<SigningKey>>,
    /// A key that is kept, and not known to be added.
    candidate: Option<SigningKey>,
    /// Rows of keys that were never added, or are retired, are gone.
    swept: bool,
}

impl SigningKeys {
    /// Whose tokens these are; a key is replaced at this age, in milliseconds. None signs
    /// before the first look.
    #[must_use]
    pub fn new(access: Arc<AccessTokens>, replaced_at_ms: i64) -> Self {
        Self { access, replaced_at_ms, signer: ArcSwap::default(), tended: Mutex::default() }
    }

    /// The key that signs; none before the first look, or where none could be made.
    #[must_use]
    pub fn signer(&self) -> Option<Arc<SigningKey>> {
        self.signer.load().as_ref().clone()
    }

    /// Does what is due: loads keys, adds and retires them, and says which one signs and
    /// whose signatures count. To be called at a start and then every minute or so.
    ///
    /// # Errors
    ///
    /// Something could not be done. What was done before it holds, and the keys that were
    /// at hand go on.
    pub async fn tend(&self, ledger: &Arc<Ledger>) -> Result<(), TendError> {
        self.look(ledger, false).await
    }

    /// As [`SigningKeys::tend`], and replaces the key that signs, whatever its age.
    ///
    /// # Errors
    ///
    /// As there; and [`TendError::TooSoon`] while another key waits to sign already.
    pub async fn rotate(&self, ledger: &Arc<Ledger>) -> Result<(), TendError> {
        self.look(ledger, true).await
    }

    async fn look(&self, ledger: &Arc<Ledger>, mut replace: bool) -> Result<(), TendError> {
        let mut tended = self.tended.lock().await;
        if !tended.swept {
            tended.swept = sweep(ledger).await?;
        }
        let mut outcome = Ok(());
        for _ in 0..STEPS_MAX {
            if let Err(error) = tended.load(ledger).await {
                outcome = Err(error);
            }
            let now = ledger.clock().now();
            let lives = tended.lives(ledger);
            self.publish(ledger, &tended, &lives, now);
            let due = match lives.due(now, self.replaced_at_ms) {
                _ if replace && lives.has_one_to_come(now) => return Err(TendError::TooSoon),
                _ if replace => Some(Due::Add),
                due => due,
            };
            replace = false;
            match due {
                None => break,
                Some(Due::Add) => tended.add(ledger).await?,
                Some(Due::Retire(id)) => tended.retire(ledger, id).await?,
            }
        }
        outcome
    }

    fn publish(&self, ledger: &Ledger, tended: &Tended, lives: &Lives, now: Timestamp) {
        let counting = counting(ledger);
        self.access.set_keys(counting.iter().map(|(id, row)| (*id, row.public_key)));
        let signer = lives.signer(now).and_then(|id| tended.at_hand.get(&id)).cloned();
        self.signer.store(Arc::new(signer));
    }
}

/// The public halves of the keys that count, as a set of JSON Web Keys.
#[must_use]
pub fn published(ledger: &Ledger) -> String {
    jwks(counting(ledger).into_iter().map(|(id, row)| (id, row.public_key)))
}

/// The keys that count, by name.
fn counting(ledger: &Ledger) -> Vec<(SigningKeyId, SigningKeyRow)> {
    let operator = ledger.tables().operator().tables();
    let Some(installation) = operator.installation() else { return Vec::new() };
    let rows = installation.signing_keys.iter();
    rows.filter(|(_, row)| row.retired_at.is_none()).map(|(id, row)| (*id, row.clone())).collect()
}

/// Takes away what is kept of keys that were never added, or are retired: what a crash left.
async fn sweep(ledger: &Ledger) -> Result<bool, TendError> {
    let known: Vec<SigningKeyId> = counting(ledger).into_iter().map(|(id, _)| id).collect();
    // Their names stand behind those of resets.
    let mut behind = Some(RowName::reset(AccountId::from_bytes([255; 16])));
    while let Some(after) = behind {
        let names = ledger.vault.row_names(Some(&after)).await?;
        let of_keys = names.iter().filter(|name| name.kind() == RowKind::SigningKey);
        for name in
            of_keys.filter(|name| known.iter().all(|id| RowName::signing_key(*id) != **name))
        {
            forget(&*ledger.vault, name).await?;
        }
        behind = names.last().filter(|name| name.kind() == RowKind::SigningKey).cloned();
    }
    Ok(true)
}

async fn forget(vault: &dyn Vault, name: &RowName) -> Result<(), VaultError> {
    if let Some(row) = vault.read_row(name).await? {
        vault.write_row(name, Some(row.version), None, Urgency::Reserved).await?;
    }
    Ok(())
}

impl Tended {
    /// Loads what is not at hand of the keys that count, and lets go of the others.
    async fn load(&mut self, ledger: &Ledger) -> Result<(), TendError> {
        let counting = counting(ledger);
        self.at_hand.retain(|id, _| counting.iter().any(|(known, _)| known == id));
        let mut outcome = Ok(());
        for (id, _) in &counting {
            if self.at_hand.contains_key(id) {
                continue;
            }
            if let Some(candidate) = self.candidate.take_if(|it| it.id() == *id) {
                self.at_hand.insert(*id, Arc::new(candidate));
                continue;
            }
            match read(ledger, *id).await {
                Ok(Some(key)) => drop(self.at_hand.insert(*id, Arc::new(key))),
                Ok(None) => {
                    // Restored from an older backup, perhaps: another key takes its place.
                    tracing::warn!(signing_key = %id, "the vault does not have this signing key");
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn lives(&self, ledger: &Ledger) -> Lives {
        let life = |(id, row): (SigningKeyId, SigningKeyRow)| {
            let at_hand = self.at_hand.contains_key(&id);
            Life { id, added_at: row.added_at, at_hand }
        };
        Lives::of(counting(ledger).into_iter().map(life).collect())
    }

    /// Makes a key, keeps it, and adds it: in this order, each on disk before the next.
    async fn add(&mut self, ledger: &Arc<Ledger>) -> Result<(), TendError> {
        let candidate = match self.candidate.take() {
            Some(candidate) => candidate,
            None => {
                let (key, kept) = SigningKey::make()?;
                keep(ledger, key.id(), kept).await?;
                key
            }
        };
        let event =
            SigningKeyAdded { signing_key_id: candidate.id(), public_key: candidate.public_key() };
        self.candidate = Some(candidate);
        ledger.as_ledger(OrganizationId::OPERATOR, Command::AddSigningKey(event)).await?;
        Ok(())
    }

    async fn retire(&mut self, ledger: &Arc<Ledger>, id: SigningKeyId) -> Result<(), TendError> {
        ledger.as_ledger(OrganizationId::OPERATOR, Command::RetireSigningKey(id)).await?;
        self.at_hand.remove(&id);
        Ok(forget(&*ledger.vault, &RowName::signing_key(id)).await?)
    }
}

async fn read(ledger: &Ledger, id: SigningKeyId) -> Result<Option<SigningKey>, TendError> {
    let Some(row) = ledger.vault.read_row(&RowName::signing_key(id)).await? else {
        return Ok(None);
    };
    Ok(Some(SigningKey::from_kept(id, &row.secret)?))
}

async fn keep(ledger: &Ledger, id: SigningKeyId, secret: RowSecret) -> Result<(), TendError> {
    let name = RowName::signing_key(id);
    match ledger.vault.write_row(&name, None, Some(secret), Urgency::Normal).await? {
        RowWritten::Written(_) => Ok(()),
        RowWritten::Conflict => Err(VaultError::Damaged(name.to_string()).into()),
    }
}

#[cfg(test)]
mod tests;
